"""Equal opportunity and equalized odds: are the images of a class treated alike in each of its
groups?"""

import numpy as np

from ...core.registry import METRICS
from . import Value, cells, confusion, gap, min_over_max, per_class, rate, summary, values_of

_GROUPED = "a class belongs to one group, so no class can be compared between groups"
_NEGATIVES = {
    "nested": "a group belongs to one class, so it has no images of other classes; see "
    "row-distance",
    "grouped": _GROUPED,
}


@per_class("equal-opportunity", "mean", "max", version=1, refuses={"grouped": _GROUPED})
def equal_opportunity(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Largest difference, within a class, of the rate at which its groups are recognised.

    EO_y = max_g a_yg - min_g a_yg, over the groups that occur in class y

    returns  a Value per class, in [0, 1]; nan if fewer than two of its groups have images
    source   Hardt et al. 2016, arXiv 1610.02413, for one class at a time
    """
    a, n = cells(label, predicted, group, occurs)
    return values_of(gap(a, axis=1), n.sum(1), "label")


@per_class("within-class-ratio", "mean", "min", version=1, refuses={"grouped": _GROUPED})
def within_class_ratio(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Smallest over largest rate at which the groups of a class are recognised: disparate impact
    given the class.

    DI_y = min_g a_yg / max_g a_yg, over the groups that occur in class y

    The four-fifths rule flags a ratio below 0.8. Below 1 by chance alone: 5 equal groups of 100
    images at accuracy 0.8 give 0.89 on average, and the worst of 20 such classes is below 0.8 in 28
    % of draws.

    returns  a Value per class, in [0, 1]; nan if fewer than two of its groups have images or none
             is ever recognised
    source   fairlearn equal_opportunity_ratio, for one class at a time
    """
    a, n = cells(label, predicted, group, occurs)
    return values_of(min_over_max(a, axis=1), n.sum(1), "label")


@per_class("equalized-odds", "mean", version=1, refuses=_NEGATIVES)
def equalized_odds(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """The larger of the gaps between groups in true and in false positive rate, each class against
    the rest.

    EOdds_y = max(max_g TPR - min_g TPR, max_g FPR - min_g FPR), TPR = P(yhat = y | y, g), FPR =
    P(yhat = y | not y, g)

    returns  a Value per class, in [0, 1]; nan if either rate is defined in fewer than two groups
    source   fairlearn equalized_odds_difference, for one class at a time
    """
    table = confusion(label, predicted, group, occurs)
    hit, n = np.einsum("ygy->yg", table), table.sum(2)
    false = table.sum(0).T - hit
    larger = np.maximum(gap(rate(hit, n), axis=1), gap(rate(false, n.sum(0) - n), axis=1))
    return values_of(larger, len(label), "label")


@METRICS.register("equalized-odds-strict", version=1, refuses=_NEGATIVES)
def equalized_odds_strict(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Largest gap between groups in any entry of the confusion given the class.

    max over y, k of (max_g C^g_yk - min_g C^g_yk): 0 exactly where all groups have the same
    confusion

    returns  float in [0, 1]   nan if no class has images in two groups
    source   multiclass equalized odds as in Sabato et al. 2025
    """
    table = confusion(label, predicted, group)
    return summary("max", gap(rate(table, table.sum(2, keepdims=True)), axis=1).ravel())


@per_class("row-distance", "mean", version=1, refuses={"grouped": _GROUPED})
def row_distance(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Largest total variation, within a class, between what two of its groups are taken for.

    max over groups g, h of y of (1/2) sum_k |C^g_yk - C^h_yk|; at least EO_y, since it also sees
    where errors go

    returns  a Value per class, in [0, 1]; nan if fewer than two of its groups have images
    source   ours: equalized odds where groups have no negatives
    """
    table = confusion(label, predicted, group, occurs)
    n = table.sum(2)
    farthest = np.full(len(table), np.nan)
    for y in np.flatnonzero((n > 0).sum(1) > 1):
        rows = (table[y] / np.maximum(n[y], 1)[:, None])[n[y] > 0]
        farthest[y] = np.abs(rows[:, None] - rows).sum(2).max() / 2
    return values_of(farthest, n.sum(1), "label")
