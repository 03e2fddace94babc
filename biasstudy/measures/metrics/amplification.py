"""Directional bias amplification, group to class: is the association of the start made stronger?

Wang and Russakovsky 2021, arXiv 2102.12594. Groups a, classes t. The start fixes the directions, in
exact integers:

    s_at = sign(n_at n - n_a n_t)    n_at images of the start in class t and group a; n_a, n_t, n
                                     its sums

and every metric is the mean over a and t of s_at times a shift of P(t | a): above 0, classes that
the start associates with a group are met, or predicted, in that group still more often. With K
balanced classes, each associated with one group, at most 2 (1 - 1/K) / K. Groups for which a share
is undefined are left out. For a start without association there are no directions: nan. Their
authors ask for intervals over runs.
"""

from typing import Any

import numpy as np

from ...core.registry import METRICS
from . import Value, confusion, rate, summary

_CROSSED = {
    "nested": "a group belongs to one class, so it is -2 x the mean error / n_classes and only "
    "restates accuracy",
    "grouped": "a class belongs to one group, so it is -2 x the rate of leaving the group / "
    "n_classes",
}
_TRAITS: dict[str, Any] = {"version": 1, "refuses": _CROSSED, "needs": ("biased start",)}


def _directed(shift: np.ndarray, start_counts: np.ndarray) -> float:
    """Mean over groups and classes of the shift (n_classes, n_groups) in the directions of the
    start."""
    n = start_counts.astype(np.int64)
    sign = np.sign(n * n.sum() - n.sum(0) * n.sum(1, keepdims=True))
    return summary("mean", (sign * shift).mean(0)) if sign.any() else float("nan")


def _given_group(counts: np.ndarray) -> np.ndarray:
    """P(t | a) from counts (n_classes, n_groups); NaN columns where a group has no image."""
    return rate(counts, counts.sum(0))


@METRICS.register("bias-amplification", **_TRAITS)
def bias_amplification(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, start_counts: np.ndarray
) -> float:
    """How much more often classes are predicted in the groups that the start associates with them
    than they are there.

    mean_at s_at [P(yhat = t | a) - P(y = t | a)], on the test set as it is

    returns  float in [-1, 1]   nan if there is no image or the start has no association
    source   BiasAmp A -> T of Wang and Russakovsky 2021, arXiv 2102.12594
    """
    table = confusion(label, predicted, group, start_counts)
    return _directed(_given_group(table.sum(0).T) - _given_group(table.sum(2)), start_counts)


@METRICS.register("data-drift", **_TRAITS)
def data_drift(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    start_counts: np.ndarray,
    pool_counts: np.ndarray,
) -> Value:
    """How much the pool strengthens the association of the start; the predictions play no part.

    mean_at s_at [P_pool(t | a) - P_start(t | a)], over groups that the pool still has

    returns  float in [-1, 1], n in images of the pool   nan if the pool is empty or the start has
                                                         no association
    source   ours, after Wang and Russakovsky 2021
    """
    shift = _given_group(pool_counts) - _given_group(start_counts)
    return Value(_directed(shift, start_counts), int(pool_counts.sum()))


@METRICS.register("model-amplification", **_TRAITS)
def model_amplification(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    start_counts: np.ndarray,
    pool_counts: np.ndarray,
) -> float:
    """How much the classifier strengthens the association that its pool has.

    mean_at s_at [P_w(yhat = t | a) - P_pool(t | a)], P_w(yhat = t | a) = sum_y P_pool(y | a)
    C^a_yt: predictions on a test set weighted to the shares of the pool. data-drift +
    model-amplification is the shift from start to predictions. Errors at random spread predictions
    out and pull it below 0: read it beside accuracy.

    returns  float in [-1, 1]   nan if no group has test images in all its classes of the pool, or
                                the start has no association
    source   ours, after Wang and Russakovsky 2021
    """
    table = confusion(label, predicted, group, start_counts)
    pool = _given_group(pool_counts)
    weighted = pool[..., None] * rate(table, table.sum(2, keepdims=True))
    # a class that the pool lacks needs no test image
    shares = np.sum(weighted, axis=0, where=pool[..., None] != 0).T
    return _directed(shares - pool, start_counts)
