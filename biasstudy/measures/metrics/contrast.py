"""Signed contrast of what a biased start favours with the rest, and whether the group alone changes
a prediction."""

import numpy as np

from ...core.registry import METRICS
from . import Value, contrast_weights, rate, shape_of, values_of


@METRICS.register("accuracy-contrast", version=1, needs=("biased start",))
def accuracy_contrast(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, favoured: np.ndarray
) -> float:
    """Accuracy on what the biased start favours minus accuracy on the rest: the signed headline of
    a biased start.

    Crossed: cells of the majority group minus the other cells of the class. Nested: kept minus
    thinned groups of the class. Mean over classes.

    returns  float in [-1, 1]   above 0: the start's favourites are recognised better; nan if no
                                class has both
    source   ours
    """
    return (
        float(contrast_weights(label, group, favoured) @ np.equal(label, predicted))
        if len(label)
        else float("nan")
    )


@METRICS.register("relative-contrast", version=1, needs=("biased start",))
def relative_contrast(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, favoured: np.ndarray
) -> float:
    """The accuracy contrast as a share of the largest one that this mean accuracy allows.

    (a_up - a_down) / (2 min(m, 1 - m)), m = (a_up + a_down) / 2; a_up, a_down: accuracy on favoured
    and on other cells, each as in accuracy-contrast

    returns  float in [-1, 1]   nan if no class has both or the mean accuracy is 0 or 1
    source   the form of the relative foreground sensitivity of Moayeri et al. 2022, arXiv
             2201.10766 (which is 0 there)
    """
    weights, correct = contrast_weights(label, group, favoured), np.equal(label, predicted)
    up, down = np.maximum(weights, 0) @ correct, np.maximum(-weights, 0) @ correct
    room = min(up + down, 2 - up - down)
    # less is rounding
    return float((up - down) / room) if len(label) and room > 1e-9 else float("nan")


_NOT_SHOWN_TWICE = "a photograph has one group, so it cannot be shown in another"


@METRICS.register(
    "group-dependence",
    version=1,
    refuses={"nested": _NOT_SHOWN_TWICE, "grouped": _NOT_SHOWN_TWICE},
    needs=("paired",),
)
def group_dependence(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    unit: np.ndarray,
    occurs: np.ndarray | None = None,
) -> list[Value]:
    """Share of photographs whose predicted class depends on the group they are shown in (the colour
    of a digit).

    P(yhat differs between the images of a photograph), right or wrong alike

    returns  a Value of all and one per class, in [0, 1], n in photographs; nan if there is no
             photograph
    source   ours; counterfactual predictions as in Kusner et al. 2017, arXiv 1703.06856
    """
    _, first, photograph = np.unique(unit, return_index=True, return_inverse=True)
    differs = np.bincount(photograph, predicted != predicted[first][photograph], len(first)) > 0
    n = np.bincount(label[first], minlength=shape_of(label, predicted, group, occurs)[0])
    count = np.bincount(label[first], differs, len(n))
    return [
        Value(float(rate(count.sum(), n.sum())), len(first)),
        *values_of(rate(count, n), n, "label"),
    ]
