"""Demographic parity and disparate impact: is each class predicted equally often in every group?"""

import numpy as np

from . import Value, confusion, gap, min_over_max, per_class, rate, values_of

_BY_DESIGN = {
    "nested": "a group belongs to one class, so P(yhat | g) differs between groups by design; see "
    "within-class-ratio",
    "grouped": "a class belongs to one group, so P(yhat | g) differs between groups by design",
}


def _predicted_shares(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, occurs: np.ndarray | None
) -> np.ndarray:
    """P(yhat = k | g), (n_groups, n_classes); NaN rows where a group has no image."""
    count = confusion(label, predicted, group, occurs).sum(0)
    return rate(count, count.sum(1, keepdims=True))


@per_class("demographic-parity", "mean", "max", version=1, refuses=_BY_DESIGN)
def demographic_parity(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Largest difference between groups in how often a class is predicted.

    DP_k = max_g P(yhat = k | g) - min_g P(yhat = k | g)

    returns  a Value per class, in [0, 1]; nan if fewer than two groups have images
    source   fairlearn demographic_parity_difference, each class against the rest; maximum over
             classes as in Denis et al. 2021
    """
    return values_of(gap(_predicted_shares(label, predicted, group, occurs)), len(label), "label")


@per_class("disparate-impact", "mean", "min", version=1, refuses=_BY_DESIGN)
def disparate_impact(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Smallest over largest rate, between groups, at which a class is predicted; the four-fifths
    rule flags below 0.8.

    DI_k = min_g P(yhat = k | g) / max_g P(yhat = k | g)

    returns  a Value per class, in [0, 1]; nan if fewer than two groups have images or the class is
             never predicted
    source   Feldman et al. 2015, arXiv 1412.3756; fairlearn demographic_parity_ratio, each class
             against the rest
    """
    return values_of(
        min_over_max(_predicted_shares(label, predicted, group, occurs)), len(label), "label"
    )
