"""Calibration: does the confidence of a classifier match its accuracy, overall and in each
group?"""

import numpy as np

from ...core.registry import METRICS
from . import Value, gap, rate, shape_of, values_of

BINS = 15


def _excess(label: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Confidence minus correctness of each image, (N,); ValueError if confidences are not N
    probabilities."""
    if np.shape(confidence) != np.shape(label) or not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(
            f"confidence must be {len(label)} probabilities in [0, 1]; got shape "
            f"{np.shape(confidence)}, values {np.min(confidence, initial=1):.3g} to "
            f"{np.max(confidence, initial=0):.3g}"
        )
    return np.asarray(confidence, np.float64) - np.equal(label, predicted)


@METRICS.register("calibration-error", version=1)
def calibration_error(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    confidence: np.ndarray,
    occurs: np.ndarray | None = None,
) -> list[Value]:
    """Expected calibration error with 15 bins of equal width.

    ECE = sum_b (n_b / n) |mean confidence - accuracy in bin b|, bins ((b - 1) / 15, b / 15], 0 in
    the first

    Positive by chance alone, the more so the smaller the group; overconfidence has no such floor.

    confidence  (N,) float   probability given to the predicted class
    returns     a Value of all and one per group, in [0, 1]; nan if there is no image
    raises      ValueError   if a confidence is not in [0, 1]
    source      Guo et al. 2017, arXiv 1706.04599
    """
    n_groups = shape_of(label, predicted, group, occurs)[1]
    excess = _excess(label, predicted, confidence)
    # 0.2 in float32 is a little more than 3/15, and belongs to bin 3 all the same
    bins = np.clip(
        np.ceil(np.round(np.asarray(confidence, np.float64) * BINS, 6)).astype(np.int64) - 1,
        0,
        BINS - 1,
    )
    per_bin = np.bincount(group * BINS + bins, excess, n_groups * BINS).reshape(n_groups, BINS)
    n = np.bincount(group, minlength=n_groups)
    overall = rate(np.abs(per_bin.sum(0)).sum(), n.sum())
    return [
        Value(float(overall), len(label)),
        *values_of(rate(np.abs(per_bin).sum(1), n), n, "group"),
    ]


@METRICS.register("overconfidence", version=1)
def overconfidence(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    confidence: np.ndarray,
    occurs: np.ndarray | None = None,
) -> list[Value]:
    """Mean confidence minus accuracy: signed, and 0 on average where a classifier is calibrated.

    mean(confidence) - P(yhat = y)

    confidence  (N,) float   probability given to the predicted class
    returns     a Value of all and one per group, in [-1, 1]; nan if there is no image
    raises      ValueError   if a confidence is not in [0, 1]
    """
    n_groups = shape_of(label, predicted, group, occurs)[1]
    excess, n = _excess(label, predicted, confidence), np.bincount(group, minlength=n_groups)
    overall = rate(excess.sum(), n.sum())
    return [
        Value(float(overall), len(label)),
        *values_of(rate(np.bincount(group, excess, n_groups), n), n, "group"),
    ]


@METRICS.register("calibration-gap", version=1)
def calibration_gap(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    confidence: np.ndarray,
    occurs: np.ndarray | None = None,
) -> float:
    """Largest difference of overconfidence between two groups.

    max_g o_g - min_g o_g, o_g mean confidence minus accuracy in group g

    Positive by chance alone: read it beside its floor. (The gap of calibration errors would be
    larger by chance still, since each of them is positive.)

    confidence  (N,) float   probability given to the predicted class
    returns     float in [0, 2]   nan if fewer than two groups have images
    raises      ValueError        if a confidence is not in [0, 1]
    source      ours
    """
    _, *of_groups = overconfidence(label, predicted, group, confidence=confidence, occurs=occurs)
    return float(gap(np.array([v.value for v in of_groups])))
