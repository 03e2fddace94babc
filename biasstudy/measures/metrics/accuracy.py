"""Accuracy: of all, of each class, group and cell, and of the worst."""

import numpy as np

from ...core.registry import METRICS
from . import Value, cells, gap, rate, shape_of, summary, values_of


def _accuracy_by(key: np.ndarray, correct: np.ndarray, size: int, of: str) -> list[Value]:
    n = np.bincount(key, minlength=size)
    return values_of(rate(np.bincount(key, correct, size), n), n, of)


@METRICS.register("accuracy", version=1)
def accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Share of test images whose class is told rightly; the test mix is balanced over class x
    group.

    P(yhat = y)

    returns  float in [0, 1]   nan if there is no image
    """
    return float(np.mean(label == predicted)) if len(label) else float("nan")


@METRICS.register("group-accuracy", version=1)
def group_accuracy(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Accuracy in each group: a_g = P(yhat = y | g).

    returns  a Value per group; nan if the group has no image
    """
    return _accuracy_by(
        group, label == predicted, shape_of(label, predicted, group, occurs)[1], "group"
    )


@METRICS.register("class-accuracy", version=1)
def class_accuracy(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Accuracy in each class: P(yhat = y | y).

    returns  a Value per class; nan if the class has no image
    """
    return _accuracy_by(
        label, label == predicted, shape_of(label, predicted, group, occurs)[0], "label"
    )


@METRICS.register("cell-accuracy", version=1)
def accuracy_of_cells(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> list[Value]:
    """Accuracy of each class in each group: a_yg = P(yhat = y | y, g).

    returns  a Value per cell that occurs; nan if it has no image
    """
    a, n = cells(label, predicted, group, occurs)
    where = np.argwhere(occurs if occurs is not None else n > 0)
    return [Value(float(a[y, g]), int(n[y, g]), int(y), int(g)) for y, g in where]


@METRICS.register("adjusted-accuracy", version=1)
def adjusted_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Mean of the group accuracies, each group counting the same: (1 / |G|) sum_g a_g over groups
    with images.

    returns  float in [0, 1]   nan if there is no image
    source   SubpopBench, "adjusted accuracy"
    """
    return summary("mean", (v.value for v in group_accuracy(label, predicted, group)))


@METRICS.register("start-mix-accuracy", version=1)
def start_mix_accuracy(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, start_counts: np.ndarray
) -> float:
    """Accuracy on test images weighted to the cells of the start: what a biased start lets one
    believe.

    sum_yg P_start(y, g) a_yg

    returns  float in [0, 1]   nan if a cell of the start has no test image
    source   the "average accuracy" of Sagawa et al. 2020, arXiv 1911.08731 (re-weighted by training
             shares)
    """
    a, _ = cells(label, predicted, group, start_counts)
    here = start_counts > 0
    return float(rate(np.sum(a[here] * start_counts[here]), start_counts.sum()))


@METRICS.register("worst-group-accuracy", version=1)
def worst_group_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Smallest group accuracy: min_g a_g over groups with images.

    returns  float in [0, 1]   nan if there is no image
    source   Sagawa et al. 2020, arXiv 1911.08731
    """
    return summary("min", (v.value for v in group_accuracy(label, predicted, group)))


@METRICS.register("worst-class-accuracy", version=1)
def worst_class_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Smallest class accuracy: min_y P(yhat = y | y) over classes with images.

    returns  float in [0, 1]   nan if there is no image
    """
    return summary("min", (v.value for v in class_accuracy(label, predicted, group)))


@METRICS.register("worst-cell-accuracy", version=1)
def worst_cell_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Smallest accuracy of a class in a group: min_yg a_yg over cells with images.

    This is the worst-group accuracy of papers whose groups are class x attribute.

    returns  float in [0, 1]   nan if there is no image
    source   Sagawa et al. 2020, arXiv 1911.08731
    """
    return summary("min", cells(label, predicted, group)[0].ravel())


@METRICS.register("accuracy-gap", version=1)
def accuracy_gap(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Largest difference of accuracy between two groups, the maximal disparity: max_g a_g - min_g
    a_g.

    Positive by chance alone, and widened by a uniform loss of accuracy: read it beside its floor,
    or read `disparity`.

    returns  float in [0, 1]   nan if fewer than two groups have images
    source   fairlearn MetricFrame(accuracy_score).difference("between_groups")
    """
    return float(gap(np.array([v.value for v in group_accuracy(label, predicted, group)])))
