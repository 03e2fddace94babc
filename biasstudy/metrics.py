"""Fairness of predictions: plain numpy functions of three arrays.

    @METRICS.register("name", version=1)
    def name(label, predicted, group, *, occurs=None, favoured=None) -> float or list of Value: ...

label      (N,) int                  true class of each test image
predicted  (N,) int                  what the classifier says
group      (N,) int                  subgroup
occurs     (n_classes, n_groups) bool   which groups a class has by design; default: those in the data
favoured   (n_classes, n_groups) int    1 where a biased start favours the cell, -1 where not, 0 where the cell does not occur

A function takes only the keywords that it needs. A rate over no image is NaN with n = 0, never 0 or 1; a group that
vanished stays a row. `refuses` names the designs in which a metric is degenerate, with the reason. a_g is the accuracy in
group g, a_yg in the cell of class y and group g.
"""

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .experiment import METRICS


class Value(NamedTuple):
    """One number of a metric, for a class, a group, a cell or all."""

    value: float
    n: int
    label: int | None = None
    group: int | None = None


# ---- Counting --------------------------------------------------------------------------------------------------------

def cells(label: np.ndarray, predicted: np.ndarray, group: np.ndarray,
          occurs: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and number of images of every cell.

    returns  a (n_classes, n_groups) float, NaN where no image; n (n_classes, n_groups) int
    raises   ValueError   if the lengths differ or a label or group is negative
    """
    label, predicted, group = (np.asarray(x) for x in (label, predicted, group))
    if not len(label) == len(predicted) == len(group):
        raise ValueError(f"label, predicted and group must be equally long; got {len(label)}, {len(predicted)}, {len(group)}")
    if len(label) and min(label.min(), group.min()) < 0:
        raise ValueError("labels and groups of test images must be known, 0 or more")
    shape = occurs.shape if occurs is not None else (int(label.max(initial=-1)) + 1, int(group.max(initial=-1)) + 1)
    at = label * shape[1] + group
    n = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape)
    correct = np.bincount(at, label == predicted, minlength=shape[0] * shape[1]).reshape(shape)
    return _ratio(correct, n), n


def _ratio(count: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.divide(count, n, out=np.full(np.shape(n), np.nan), where=np.asarray(n) > 0)


def _mean(values: np.ndarray, axis: int | None = None) -> Any:
    """Mean of what is defined; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def _gap(values: np.ndarray) -> float:
    """Largest minus smallest of what is defined; NaN if fewer than two are."""
    known = values[~np.isnan(values)]
    return float(known.max() - known.min()) if len(known) > 1 else float("nan")


# ---- Accuracy --------------------------------------------------------------------------------------------------------

@METRICS.register("accuracy", version=1)
def accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Share of test images whose class is told rightly; the test mix is balanced over class x group.

    P(yhat = y)

    returns  float in [0, 1]   nan if there is no image
    """
    return float(np.mean(label == predicted)) if len(label) else float("nan")


@METRICS.register("group-accuracy", version=1)
def group_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *,
                   occurs: np.ndarray | None = None) -> list[Value]:
    """Accuracy in each group: a_g = P(yhat = y | g).

    returns  a Value per group; nan if the group has no image
    """
    a, n = cells(label, predicted, group, occurs)
    rates = _ratio(np.nansum(a * n, 0), n.sum(0))
    return [Value(float(rate), int(count), group=g) for g, (rate, count) in enumerate(zip(rates, n.sum(0), strict=True))]


@METRICS.register("class-accuracy", version=1)
def class_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *,
                   occurs: np.ndarray | None = None) -> list[Value]:
    """Accuracy in each class: P(yhat = y | y).

    returns  a Value per class; nan if the class has no image
    """
    a, n = cells(label, predicted, group, occurs)
    rates = _ratio(np.nansum(a * n, 1), n.sum(1))
    return [Value(float(rate), int(count), label=y) for y, (rate, count) in enumerate(zip(rates, n.sum(1), strict=True))]


@METRICS.register("cell-accuracy", version=1)
def cell_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *,
                  occurs: np.ndarray | None = None) -> list[Value]:
    """Accuracy of each class in each group: a_yg = P(yhat = y | y, g).

    returns  a Value per cell that occurs; nan if it has no image
    """
    a, n = cells(label, predicted, group, occurs)
    where = np.argwhere(occurs if occurs is not None else n > 0)
    return [Value(float(a[y, g]), int(n[y, g]), int(y), int(g)) for y, g in where]


@METRICS.register("adjusted-accuracy", version=1)
def adjusted_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Mean of the group accuracies, each group counting the same: (1 / |G|) sum_g a_g over groups with images.

    returns  float in [0, 1]   nan if there is no image
    source   SubpopBench, "adjusted accuracy"
    """
    return float(_mean(np.array([v.value for v in group_accuracy(label, predicted, group)] or [np.nan])))


@METRICS.register("worst-group-accuracy", version=1)
def worst_group_accuracy(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Smallest group accuracy: min_g a_g over groups with images.

    returns  float in [0, 1]   nan if there is no image
    source   Sagawa et al. 2020, arXiv 1911.08731
    """
    rates = np.array([v.value for v in group_accuracy(label, predicted, group) if v.n])
    return float(rates.min()) if len(rates) else float("nan")


@METRICS.register("accuracy-gap", version=1)
def accuracy_gap(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Largest difference of accuracy between two groups: max_g a_g - min_g a_g.

    Positive by chance alone, and widened by a uniform loss of accuracy: read it beside its floor.

    returns  float in [0, 1]   nan if fewer than two groups have images
    source   fairlearn MetricFrame(accuracy_score).difference("between_groups")
    """
    return _gap(np.array([v.value for v in group_accuracy(label, predicted, group)]))


# ---- Equal opportunity -----------------------------------------------------------------------------------------------

_GROUPED = "a class belongs to one group, so no class can be compared between groups"


@METRICS.register("equal-opportunity", version=1, refuses={"grouped": _GROUPED})
def equal_opportunity(label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *,
                      occurs: np.ndarray | None = None) -> list[Value]:
    """Largest difference, within a class, of the rate at which its groups are recognised.

    EO_y = max_g a_yg - min_g a_yg, over the groups that occur in class y

    returns  a Value per class, in [0, 1]; nan if fewer than two of its groups have images
    source   Hardt et al. 2016, arXiv 1610.02413, for one class at a time
    """
    a, n = cells(label, predicted, group, occurs)
    return [Value(_gap(row), int(count), label=y) for y, (row, count) in enumerate(zip(a, n.sum(1), strict=True))]


@METRICS.register("equal-opportunity-mean", version=1, refuses={"grouped": _GROUPED})
def equal_opportunity_mean(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Mean over classes of EO_y (see equal-opportunity).

    returns  float in [0, 1]   nan if it is defined for no class
    """
    return float(_mean(np.array([v.value for v in equal_opportunity(label, predicted, group)] or [np.nan])))


@METRICS.register("equal-opportunity-max", version=1, refuses={"grouped": _GROUPED})
def equal_opportunity_max(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    """Largest EO_y of any class (see equal-opportunity).

    returns  float in [0, 1]   nan if it is defined for no class
    """
    known = [v.value for v in equal_opportunity(label, predicted, group) if not np.isnan(v.value)]
    return max(known, default=float("nan"))


# ---- The signed contrast ---------------------------------------------------------------------------------------------

def contrast_weights(label: np.ndarray, group: np.ndarray, favoured: np.ndarray) -> np.ndarray:
    """Weights w_i with accuracy contrast = sum_i w_i 1[yhat_i = y_i].

    Within a class: mean accuracy of its favoured groups minus mean accuracy of the others; then the mean over classes
    that have both.

    favoured  (n_classes, n_groups) int   1, -1, or 0 for no part in the contrast
    returns   (N,) float                  positive on favoured cells, negative on the others; all nan if no class has both
    """
    n = np.zeros(favoured.shape, np.int64)
    np.add.at(n, (label, group), 1)
    up, down = (favoured > 0) & (n > 0), (favoured < 0) & (n > 0)
    both = np.logical_and(up.any(axis=1), down.any(axis=1))
    if not both.any():
        return np.full(len(label), np.nan)
    per_cell = up / np.maximum(up.sum(1, keepdims=True), 1) - down / np.maximum(down.sum(1, keepdims=True), 1)
    weight = np.where(both[:, None], per_cell, 0) / both.sum() / np.maximum(n, 1)
    return weight[label, group]


@METRICS.register("accuracy-contrast", version=1, needs="biased start")
def accuracy_contrast(label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, favoured: np.ndarray) -> float:
    """Accuracy on what the biased start favours minus accuracy on the rest: the signed headline of a biased start.

    Crossed: cells of the majority group minus the other cells of the class. Nested: kept minus thinned groups of the
    class. Mean over classes.

    returns  float in [-1, 1]   above 0: the start's favourites are recognised better; nan if no class has both
    source   ours
    """
    return float(contrast_weights(label, group, favoured) @ np.equal(label, predicted)) if len(label) else float("nan")


# ---- Asking for metrics ----------------------------------------------------------------------------------------------

def refusal(name: str, design: str, biased: bool) -> str | None:
    """Why a metric is not defined for an experiment; None if it is."""
    traits = METRICS[name].traits
    if design in traits.get("refuses", {}):
        return f"metric {name!r} is not defined for a {design} design: {traits['refuses'][design]}"
    if traits.get("needs") == "biased start" and not biased:
        return f"metric {name!r} needs a biased start: an unbiased one favours no group"
    return None


def measure(name: str, label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, design: str, biased: bool,
            known: Mapping[str, Any]) -> list[Value]:
    """Values of one metric, by name.

    known    what metrics may ask for by keyword: occurs, favoured
    raises   ValueError   with the reason if the metric is degenerate in this design
    """
    if reason := refusal(name, design, biased):
        raise ValueError(reason)
    function = METRICS[name].target
    keywords = {k: known[k] for k in inspect.signature(function).parameters if k in known}
    found = function(label, predicted, group, **keywords)
    return list(found) if isinstance(found, Iterable) else [Value(float(found), len(label))]


def applicable(design: str, biased: bool) -> list[str]:
    """Names of the metrics that are defined for a design and start."""
    return [name for name in METRICS if refusal(name, design, biased) is None]
