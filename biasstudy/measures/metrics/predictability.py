"""Directional predictability amplification: do predictions tell more of a class from the group than
the true labels do?

Tokas, Nair and Kerner 2025, arXiv 2412.11060 (DPA). An attacker predicts the class from the group;
the better it does on predictions than on labels, the more the classifier goes by the group. The
authors train the attacker; of one group an image, no attacker beats the most frequent class of each
group, so ours is that table of counts. Only the direction from group to class is defined here: the
other needs a model under test that predicts the group, and we have none.
"""

import numpy as np

from ...core.registry import METRICS
from . import confusion, rate, shape_of

_BY_DESIGN = {
    "nested": "a group belongs to one class, so the group tells the class by design",
    "grouped": "a class belongs to one group, so the group narrows the class by design",
}


@METRICS.register("predictability-amplification", version=1, refuses=_BY_DESIGN)
def predictability_amplification(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, occurs: np.ndarray | None = None
) -> float:
    """How much better the group tells what is predicted than what is true, at equal accuracy.

    (m - d) / (m + d),  m = sum_g P(g) max_k P(yhat = k | g),  d = sum_g P(g) max_k P(y' = k | g)

    y' are the true labels made as wrong as the predictions, at random: kept with probability a =
    P(yhat = y), else one of the other K - 1 classes, P(y' = k | g) = a P(k | g) + (1 - a) (1 - P(k
    | g)) / (K - 1). On a test set that is balanced over class x group d is 1/K: it is defined where
    bias-amplification has no direction, and never negative there. A class that is predicted too
    often in all groups alike raises it, and so does chance, the more so the smaller the groups:
    read it beside its floor.

    returns  float in [-1, 1]   nan if there is no image
    source   DPA, A -> T, with accuracy as its quality: Tokas, Nair and Kerner 2025, arXiv
             2412.11060; the attacker in closed form is ours
    """
    if not len(label):
        return float("nan")
    table = confusion(label, predicted, group, occurs)
    n_classes = shape_of(label, predicted, group, occurs)[0]
    of_group = table.sum((0, 2))
    accuracy = np.mean(label == predicted)
    true = rate(table.sum(2), of_group)
    as_wrong = accuracy * true + (1 - accuracy) * (1 - true) / max(n_classes - 1, 1)
    seen = of_group > 0
    of_predictions = table.sum(0)[seen].max(1).sum() / len(label)
    of_labels = as_wrong.max(0)[seen] @ of_group[seen] / len(label)
    return float((of_predictions - of_labels) / (of_predictions + of_labels))
