"""Is the contrast wider than lost accuracy alone makes it?

Three ways to lose accuracy with nothing generated stand beside each other, each an arm with a path
of points: smaller parts of the start (`fewer`), shorter fits (`shorter`), labels wrong at random
(`noisier`). E is the excess of the contrast over one path at equal accuracy. One path alone shows
nothing: a shorter fit on real images has an excess over the path of fewer images. So "beyond the
loss of accuracy" asks that E is above 0 over all three; that is an intersection-union test, which
needs no correction.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..experiment import PATHS
from .contrasts import check_arms, estimate_of, headline_weights, right_of_seeds
from .intervals import Estimate

BEYOND = "beyond the loss of accuracy"
NOT_BEYOND = "not shown beyond the loss of accuracy"
OUT_OF_REACH = "accuracy below a path's reach"
NOT_RUN = "not compared with all paths"


@dataclass(frozen=True)
class Excess:
    """The excess over one path.

    estimate   E; all nan but `per_seed` where accuracy lies below the path
    accuracy   of the arm generated
    reach      lowest accuracy of the path
    """

    estimate: Estimate
    accuracy: float
    reach: float

    @property
    def reached(self) -> bool:
        """Whether the path goes down to the accuracy of the arm generated."""
        return self.accuracy >= self.reach


def excess(results: Any, path: str, generation: int = -1) -> Excess:
    """E = M(generated) - M(path) at equal mean accuracy.

    The points of the path are (a_j, M_j), means over seeds. Between the two around a, the accuracy
    of the arm `generated`,

        c = (1 - l) M_j + l M_(j+1),  l = (a_j - a)/(a_j - a_(j+1))

    and each seed's remaining difference in accuracy counts with the slope between the points:

        E_s = M_s - (1 - l) M_js - l M_(j+1)s
              - (M_j - M_(j+1))/(a_j - a_(j+1)) (a_s - (1 - l) a_js - l a_(j+1)s)

    which is linear in the test images. The points are used in order of accuracy. Above all of them,
    where no accuracy is lost, the slope of the first two goes on; below all of them there is no
    excess: the path must be longer.

    path     fewer, shorter or noisier
    returns  Excess       a secondary result: interval only
    raises   ValueError   if an arm is missing, or the points do not differ in accuracy
    """
    first, second = results.of("generated"), results.of(path)
    check_arms(first, {path: second}, f"the excess needs the arms generated and {path}")
    weights = headline_weights(first)
    generated = right_of_seeds(first, generation)
    points = np.stack([right_of_seeds(second, point) for point in range(len(second[0].predicted))])
    points = points[np.argsort(-points.mean((1, 2)), kind="stable")]
    accuracies, accuracy = points.mean((1, 2)), float(generated.mean())
    contrasts = np.einsum("psi,si->p", points, weights) / len(first)
    reach = float(accuracies[-1])
    if accuracies[0] <= reach:
        raise ValueError(f"the arm {path} has one accuracy, {reach:.3f}: there is no path")
    if accuracy < reach:
        nan = float("nan")
        unknown = Estimate(nan, nan, nan, nan, nan, nan, nan, nan, np.full(len(first), nan))
        return Excess(unknown, accuracy, reach)
    after = int(np.searchsorted(-accuracies, -accuracy, side="right"))
    j = max(min(after, len(points) - 1) - 1, 0)
    gap = accuracies[j] - accuracies[j + 1]
    part, slope = 0.0, 0.0
    if gap > 0:
        part = (accuracies[j] - accuracy) / gap
        slope = (contrasts[j] - contrasts[j + 1]) / gap
    control = (1 - part) * points[j] + part * points[j + 1]
    per_image = (weights - slope / generated.shape[1]) * (generated - control)
    return Excess(estimate_of(first[0], per_image), accuracy, reach)


def all_excesses(results: Any, generation: int = -1) -> dict[str, Excess]:
    """The excess over each path that was run, by its name."""
    return {path: excess(results, path, generation) for path in PATHS if results.of(path)}


def beyond(excesses: dict[str, Excess]) -> str:
    """What the excesses over the paths show together: BEYOND, NOT_BEYOND, OUT_OF_REACH or NOT_RUN.

    One path whose interval of E is not above 0 is enough for NOT_BEYOND. BEYOND asks for all three.
    """
    known = [e for e in excesses.values() if e.reached]
    if any(not e.estimate.low > 0 for e in known):
        return NOT_BEYOND
    if len(known) < len(excesses):
        return OUT_OF_REACH
    return BEYOND if len(known) == len(PATHS) else NOT_RUN
