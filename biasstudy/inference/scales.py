"""The same change on other scales: is it more than a proportional loss?

A contrast of accuracies widens when accuracy falls near 1, whatever the group. Three scales say
what such a loss would make: the logit of each side's accuracy, the contrast as a share of the
accuracy, and the change as a share of the contrast that is there without generated images. All are
secondary results: an interval, no word.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, stats

from ..measures import LEVEL
from .contrasts import arms_of, by_unit, estimate_of, headline_weights, right_of_seeds
from .intervals import Estimate, two_way_interval


def logit_contrast(results: Any, name: str, generation: int = -1) -> Estimate:
    """A contrast on the logit scale, where a uniform loss of accuracy near 1 counts as much as one
    near 1/2.

        L = logit P+ - logit P-,  P+, P- = accuracy of favoured and of other cells, each averaged
        over cells and over seeds *before* the logit, so that small cells do not bias it;  P is
        (P n + 1/2)/(n + 1),  n = n_seeds / sum of squared weights, so that a side without an error
        has a logit, too

    The contrast is L of one arm minus L of the other. Its interval takes a test image to move logit
    P by its part of P over P (1 - P) (delta method).

    name     A, S, R or F
    returns  Estimate   in logits
    source   ours; bias and coverage: `python -m biasstudy nulls`, docs/method.md
    """
    return _difference_of(_logits, results, name, generation)


def _logits(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Contribution of each seed and test image to L, (n_seeds, N): its influence and an equal part
    of L itself, so that the mean over seeds of their sums is L."""
    contributions = np.zeros_like(weights)
    for sign in (1, -1):
        of_side = np.maximum(sign * weights, 0)
        part = of_side * right
        n = len(weights) / np.mean((of_side**2).sum(1))
        accuracy = (part.sum(1).mean() * n + 0.5) / (n + 1)
        slope = 1 / (accuracy * (1 - accuracy))
        logit = np.log(accuracy / (1 - accuracy))
        centred = part - of_side * part.sum(1).mean()
        contributions += sign * (slope * centred + logit / weights.shape[1])
    return contributions


def relative_contrast(results: Any, name: str, generation: int = -1) -> Estimate:
    """A contrast after each arm's contrast is divided by its accuracy: 0 where both fall in
    proportion.

        M/a of one arm minus M/a of the other,  M = headline metric, a = mean accuracy, both
        averaged over seeds before they are divided

    The interval takes a test image to move M/a by (its part of M - M/a times its part of a) / a
    (delta method).

    name     A, S, R or F
    returns  Estimate
    """
    return _difference_of(_relative, results, name, generation)


def _relative(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Contribution of each seed and test image to M/a, (n_seeds, N)."""
    n_images = weights.shape[1]
    accuracy = right.mean()
    share = (weights * right).sum(1).mean() / accuracy
    influence = (weights - share / n_images) * right / accuracy
    return influence + share / n_images


def _difference_of(
    contributions: Callable[[np.ndarray, np.ndarray], np.ndarray],
    results: Any,
    name: str,
    generation: int,
) -> Estimate:
    """A number of one arm of a contrast minus that of the other.

    contributions  (right, weights), both (n_seeds, N), to the part of each seed and test image
    """
    first, second = arms_of(results, name)
    weights = headline_weights(first)
    parts = [contributions(right_of_seeds(arm, generation), weights) for arm in (first, second)]
    return estimate_of(first[0], parts[0] - parts[1])


def growth(results: Any, generation: int = -1, level: float = LEVEL) -> tuple[float, float, float]:
    """The change as a share of the contrast that is there without generated images, A / M(none).

    Its interval holds every g for which A - g M(none) is not shown to differ from 0 (Fieller), with
    the two-way interval; so it lies above 1/4 exactly where the word is `amplified`. One of level
    0.9 lies between -1/4 and 1/4 exactly where it is `within a quarter` (two one-sided tests).

    level    of the interval
    returns  growth, low, high   nan where M(none) is not shown above 0: nothing grows; no interval
                                 where A has no spread
    source   Fieller 1954, Journal of the Royal Statistical Society B 16, 175-185
    """
    first, second = arms_of(results, "A")
    weights = headline_weights(first)
    (generated, stratum), (retrained, _) = (
        by_unit(first[0], weights * right_of_seeds(arm, generation)) for arm in (first, second)
    )
    none = two_way_interval(retrained, stratum)
    a = two_way_interval(generated - retrained, stratum)
    if not none.low > 0:
        return float("nan"), float("nan"), float("nan")
    middle = a.mean / none.mean
    if a.se == 0:
        return middle, float("nan"), float("nan")

    def beyond(g: float) -> float:
        """How far A - g M(none) is from what its interval covers, in standard errors."""
        e = two_way_interval(generated - (1 + g) * retrained, stratum)
        return abs(e.mean) / e.se - stats.t.ppf(0.5 + level / 2, e.df)

    half = max(a.high - a.low, 1e-6) / none.low
    ends = []
    for side in (-1, 1):
        end = middle + side * half
        while beyond(end) < 0:
            end += side * half
        ends.append(optimize.brentq(beyond, middle, end))
    return middle, ends[0], ends[1]
