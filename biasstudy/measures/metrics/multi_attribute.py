"""Multi-attribute bias amplification, group to class: how far predictions shift the classes of each
group, whichever way.

Zhao, Andrews and Xiang 2023, arXiv 2210.11924 (Multi, later MDBA). Their attributes are sets of
labels of one image. Our images have one label each, so no set of two occurs and the sets are the
classes. Only the direction from group to class is defined here: the other needs a model under test
that predicts the group.
"""

import numpy as np

from ...core.registry import METRICS
from . import confusion, rate, summary

_BY_DESIGN = {
    "nested": "a group belongs to one class, so it is 2 x the mean error / n_classes and only "
    "restates accuracy",
    "grouped": "a class belongs to one group, so P(yhat | g) differs between groups by design",
}


def _shifts(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, occurs: np.ndarray | None
) -> np.ndarray:
    """P(yhat = k | g) - P(y = k | g), (n_classes, n_groups); NaN columns where a group has no
    image."""
    table = confusion(label, predicted, group, occurs)
    of_group = table.sum((0, 2))
    return rate(table.sum(0).T, of_group) - rate(table.sum(2), of_group)


@METRICS.register("multi-attribute-amplification", version=1, refuses=_BY_DESIGN)
def multi_attribute_amplification(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> float:
    """Mean size of the shift from true to predicted shares of the classes within each group.

    mean_gk |P(yhat = k | g) - P(y = k | g)|, on the test set as it is

    Shifts up and down do not cancel as they do in bias-amplification, so it is 0 only where every
    group is met with its own shares, and it has no sign. A class that is predicted too often in all
    groups alike raises it, and so do errors at random: read it beside its floor.

    returns  float in [0, 1]   nan if there is no image
    source   Multi_{G -> M} of Zhao, Andrews and Xiang 2023, arXiv 2210.11924
    """
    return summary("mean", np.abs(_shifts(label, predicted, group, occurs)).ravel())


@METRICS.register("multi-attribute-variance", version=1, refuses=_BY_DESIGN)
def multi_attribute_variance(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> float:
    """Variance of the shifts from true to predicted shares of the classes within each group.

    Var_gk [P(yhat = k | g) - P(y = k | g)], ddof 0; their mean is 0. Beside
    multi-attribute-amplification it says whether the shifts are alike or a few of them large.

    returns  float in [0, 1]   nan if there is no image
    source   reported beside Multi_{G -> M} by Zhao, Andrews and Xiang 2023, arXiv 2210.11924
    """
    return summary("mean", _shifts(label, predicted, group, occurs).ravel() ** 2)
