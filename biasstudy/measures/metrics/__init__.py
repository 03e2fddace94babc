"""Fairness of predictions: plain numpy functions of three arrays, one family per file of this
folder.

    @METRICS.register("name", version=1, refuses={design: reason}, needs=("biased start",))
    def name(label, predicted, group, *, occurs=None, favoured) -> float, Value or list of Value:
    ...

label         (N,) int                  true class of each test image
predicted     (N,) int                  what the classifier says
group         (N,) int                  subgroup

A function names the keywords that it needs, out of these; one without a default must be known:

occurs        (n_classes, n_groups) bool   which groups a class has by design; default: those in the
                                           data
favoured      (n_classes, n_groups) int    1 where a biased start favours the cell, -1 where not, 0
                                           where it does not occur
confidence    (N,) float                   probability given to the predicted class, in [0, 1]
unit          (N,) int                     photograph; images made from the same one share it
start_counts  (n_classes, n_groups) int    images of the start
pool_counts   (n_classes, n_groups) int    images of the pool of this generation, by training label
                                           and probed group

`refuses` names the designs in which a metric is degenerate, with the reason; `needs` is a tuple out
of "biased start" and "paired" (every photograph is shown in every group). A rate over no image is
NaN with n = 0, never 0 or 1; a group that vanished stays a row. Symbols: y the true class, yhat the
predicted one, g the group; a_g the accuracy in group g, a_yg in the cell of class y and group g,
C^g_yk = P(yhat = k | y, g) the confusion.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...core.checks import whole_numbers
from ...core.registry import METRICS


class Value(NamedTuple):
    """One number of a metric, for a class, a group, a cell or all."""

    value: float
    n: int
    label: int | None = None
    group: int | None = None


def values_of(values: np.ndarray, n: np.ndarray | int, of: str) -> list[Value]:
    """A Value per class (of="label") or per group (of="group"); n for each, or one for all."""
    counts = np.broadcast_to(n, values.shape)
    return [
        Value(v, c, **{of: i})
        for i, (v, c) in enumerate(zip(values.tolist(), counts.tolist(), strict=True))
    ]


# ---- Counting ------------------------------------------------------------------------------------


def aligned(label: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """The three arrays as int64, so that no sum or product of them overflows.

    raises   ValueError   if one does not hold whole numbers in one row, their lengths differ, or
                          one has a negative entry
    """
    named = {"label": label, "predicted": predicted, "group": group}
    arrays = [whole_numbers(name, values) for name, values in named.items()]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            "label, predicted and group must be equally long; got "
            f"{', '.join(str(len(array)) for array in arrays)}"
        )
    if len(arrays[0]) and min(array.min() for array in arrays) < 0:
        raise ValueError("labels, predictions and groups of test images must be known, 0 or more")
    return arrays


def shape_of(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, like: np.ndarray | None = None
) -> tuple[int, int]:
    """(n_classes, n_groups): the shape of `like` where given, else what the data show."""
    label, predicted, group = aligned(label, predicted, group)
    return _shape(label, predicted, group, like)


def _shape(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, like: np.ndarray | None
) -> tuple[int, int]:
    """See `shape_of`, of arrays that are aligned."""
    seen = (
        int(max(label.max(initial=-1), predicted.max(initial=-1))) + 1,
        int(group.max(initial=-1)) + 1,
    )
    if like is None:
        return seen
    if seen[0] > like.shape[0] or seen[1] > like.shape[1]:
        raise ValueError(
            f"the test images show {seen[0]} classes and {seen[1]} groups; expected at most "
            f"{like.shape}"
        )
    return like.shape[0], like.shape[1]


def cells(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, occurs: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and number of images of every cell.

    occurs   only its shape counts; default: the classes and groups that the data show
    returns  a (n_classes, n_groups) float, NaN where no image; n (n_classes, n_groups) int
    raises   ValueError   if the lengths differ or a label or group is negative or outside `occurs`
    """
    label, predicted, group = aligned(label, predicted, group)
    shape = _shape(label, predicted, group, occurs)
    at, size = label * shape[1] + group, shape[0] * shape[1]
    n = np.bincount(at, minlength=size).reshape(shape)
    correct = np.bincount(at, np.equal(label, predicted), minlength=size).reshape(shape)
    return rate(correct, n), n


def confusion(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, occurs: np.ndarray | None = None
) -> np.ndarray:
    """Number of images by true class y, group g and predicted class k: (n_classes, n_groups,
    n_classes) int.

    occurs, raises   as in `cells`
    """
    label, predicted, group = aligned(label, predicted, group)
    n_classes, n_groups = _shape(label, predicted, group, occurs)
    at = (label * n_groups + group) * n_classes + predicted
    return np.bincount(at, minlength=n_classes * n_groups * n_classes).reshape(
        n_classes, n_groups, n_classes
    )


def rate(count: np.ndarray, n: np.ndarray) -> np.ndarray:
    """count / n, NaN where n is 0; the two are broadcast."""
    count, n = np.broadcast_arrays(count, n)
    return np.divide(count, n, out=np.full(n.shape, np.nan), where=n > 0)


# ---- Comparing groups, summing up ----------------------------------------------------------------


def _extremes(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = ~np.isnan(values)
    low, high = (
        f(values, axis=axis, where=known, initial=start)
        for f, start in ((np.min, np.inf), (np.max, -np.inf))
    )
    return low, high, known.sum(axis) > 1


def gap(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Largest minus smallest of what is defined along an axis; NaN if fewer than two are."""
    low, high, enough = _extremes(values, axis)
    return np.where(enough, high - low, np.nan)


def min_over_max(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Smallest over largest of what is defined along an axis; NaN if fewer than two are or all are
    0."""
    low, high, enough = _extremes(values, axis)
    return rate(low, np.where(enough, high, 0))


_SUMMARIES: dict[str, Callable[..., Any]] = {"mean": np.mean, "max": np.max, "min": np.min}


def summary(how: str, values: Iterable[float]) -> float:
    """Mean, max or min of what is defined; NaN where nothing is."""
    numbers = np.fromiter(values, float)
    known = numbers[~np.isnan(numbers)]
    return float(_SUMMARIES[how](known)) if len(known) else float("nan")


def per_class(name: str, *summaries: str, **traits: Any) -> Callable[[Any], Any]:
    """Decorator that registers a metric with a Value per class and, as metrics of their own, its
    summaries over classes.

    summaries   "mean", "max", "min": registered as `name-mean`, `name-max`, `name-min`, with the
                same traits
    """

    def add(function: Any) -> Any:
        METRICS.register(name, **traits)(function)
        for how in summaries:
            summarised = _over_classes(function, name, how)
            METRICS.register(f"{name}-{how}", summarises=(name, how), **traits)(summarised)
        return function

    return add


def _over_classes(function: Any, name: str, how: str) -> Any:
    @functools.wraps(function)  # so that it asks for the same keywords
    def summarised(
        label: np.ndarray, predicted: np.ndarray, group: np.ndarray, **known: Any
    ) -> float:
        return summary(how, (v.value for v in function(label, predicted, group, **known)))

    summarised.__name__ = summarised.__qualname__ = f"{function.__name__}_{how}"
    summarised.__doc__ = (
        f"{how.capitalize()} over classes of {name}.\n\nreturns  float   nan if "
        "it is defined for no class"
    )
    return summarised


# ---- The signed contrast -------------------------------------------------------------------------


def contrast_weights(label: np.ndarray, group: np.ndarray, favoured: np.ndarray) -> np.ndarray:
    """Weights w_i with accuracy contrast = sum_i w_i 1[yhat_i = y_i].

    Within a class: mean accuracy of its favoured groups minus mean accuracy of the others; then the
    mean over classes that have both.

    favoured  (n_classes, n_groups) int   1, -1, or 0 for no part in the contrast
    returns   (N,) float                  positive on favoured cells, negative on the others; all
                                          nan if no class has both
    """
    label, group = whole_numbers("label", label), whole_numbers("group", group)
    cell = label * favoured.shape[1] + group
    n = np.bincount(cell, minlength=favoured.size).reshape(favoured.shape)
    up, down = (favoured > 0) & (n > 0), (favoured < 0) & (n > 0)
    both = np.logical_and(up.any(axis=1), down.any(axis=1))
    if not both.any():
        return np.full(len(label), np.nan)
    per_cell = up / np.maximum(up.sum(1, keepdims=True), 1) - down / np.maximum(
        down.sum(1, keepdims=True), 1
    )
    weight = np.where(both[:, None], per_cell, 0) / both.sum() / np.maximum(n, 1)
    return weight[label, group]


# ---- Asking for metrics --------------------------------------------------------------------------


def refusal(
    name: str, design: str, biased: bool, paired: bool = True, unknown: Collection[str] = ()
) -> str | None:
    """Why a metric is not defined for an experiment, or cannot be told; None if it can.

    unknown   keywords of metrics of which nothing is known
    """
    traits = METRICS[name].traits
    if design in traits.get("refuses", {}):
        return f"metric {name!r} is not defined for a {design} design: {traits['refuses'][design]}"
    if "biased start" in traits.get("needs", ()) and not biased:
        return f"metric {name!r} needs a biased start: an unbiased one favours no group"
    if "paired" in traits.get("needs", ()) and not paired:
        return (
            f"metric {name!r} needs every photograph in every group: this data set shows each in "
            "one group only"
        )
    if missing := [keyword for keyword in _needed(name) if keyword in unknown]:
        return f"metric {name!r} needs {' and '.join(missing)}, not known here"
    return None


def measure(
    name: str,
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    design: str,
    biased: bool,
    paired: bool = True,
    known: Mapping[str, Any],
) -> list[Value]:
    """Values of one metric, by name; see `measure_all`."""
    return measure_all(
        [name], label, predicted, group, design=design, biased=biased, paired=paired, known=known
    )[name]


def measure_all(
    names: Iterable[str],
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    design: str,
    biased: bool,
    paired: bool = True,
    known: Mapping[str, Any],
) -> dict[str, list[Value]]:
    """Values of several metrics of the same predictions, by name.

    known    what metrics may ask for by keyword (see above); None where it is not known
    raises   ValueError   with the reason if a metric is degenerate in this design, or with what is
                          not known
    """
    arrays = aligned(label, predicted, group)
    given = {key: value for key, value in known.items() if value is not None}
    values: dict[str, list[Value]] = {}
    for name in names:
        if reason := refusal(name, design, biased, paired):
            raise ValueError(reason)
        whole, how = METRICS[name].traits.get("summarises", (None, ""))
        if whole in values:  # not once more for each summary
            values[name] = [Value(summary(how, (v.value for v in values[whole])), len(label))]
        else:
            values[name] = _measured(name, arrays, given)
    return values


@functools.cache
def _asked(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The keywords of a metric."""
    return list(inspect.signature(function).parameters.values())[3:]


def _measured(name: str, arrays: list[np.ndarray], given: Mapping[str, Any]) -> list[Value]:
    function = METRICS[name].target
    asked = _asked(function)
    if missing := [keyword for keyword in _needed(name) if keyword not in given]:
        raise ValueError(
            f"metric {name!r} needs {missing[0]}, not known here; known: "
            f"{', '.join(given) or 'nothing'}"
        )
    try:
        result = function(*arrays, **{p.name: given[p.name] for p in asked if p.name in given})
    except ValueError:
        raise
    except Exception as error:  # one of the user's own may raise anything
        raise ValueError(f"metric {name!r} raised {type(error).__name__}: {error}") from error
    if isinstance(result, Value):
        return [result]
    if isinstance(result, list) and all(isinstance(value, Value) for value in result):
        return result
    try:
        return [Value(float(result), len(arrays[0]))]
    except (TypeError, ValueError) as error:
        what = type(result[0]).__name__ if isinstance(result, list) else type(result).__name__
        of_it = f"a list of {what}" if isinstance(result, list) else what
        raise ValueError(
            f"metric {name!r} must return a number, a Value or a list of Values; got {of_it}"
        ) from error


def _needed(name: str) -> list[str]:
    """Keywords that a metric cannot do without."""
    asked = _asked(METRICS[name].target)
    return [p.name for p in asked if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def applicable(design: str, biased: bool, paired: bool = True) -> list[str]:
    """Names of the metrics that are defined for a design and start."""
    return [name for name in METRICS if refusal(name, design, biased, paired) is None]
