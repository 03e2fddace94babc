"""Power of the words of a verdict, before a study is run.

What a study will see is drawn from the variances of an earlier one: per seed, per test image and
per refit of the classifiers. Power is the share of many such studies that get the word.

With A the change, M the contrast of the arm none, both linear in the test images, and f the
hypotheses of the family (Bonferroni, which is Holm's first step and so never says too much):

    amplified   A - margin above 0 at .025/f; M above 0 at .025/f as well if the margin is M/4
    within      A - margin below 0 and A + margin above 0, each at .05/f
    above 0     A above 0 at .025/f
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from ..measures import LEVEL
from .contrasts import arms_of, headline_weights, right_of, units_of
from .intervals import degrees
from .verdicts import QUARTER, SEEDS_FOR_VERDICT

STUDIES = 5_000  # that are drawn: power to within .006
ENDLESS = 1e10  # degrees of freedom that make the normal distribution
A, M = np.array([1.0, 0.0]), np.array([0.0, 1.0])


# ---- Variances of an earlier study ---------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Variances and covariances of A and M(none), as (2, 2) matrices in that order.

    level    M(none) itself, mean over seeds
    seeds    of one seed, were there endless test images
    noise    of one seed, because its models err on other images than those of the next seed; falls
             as 1 / test images
    images   of the mean over any number of seeds, for new test images; falls as 1 / test images
    refits   share of `seeds` and `noise` that falls as 1 / classifiers per seed, in [0, 1]; nan
             where each seed had one classifier: not known
    n        seeds that they were found with
    """

    level: float
    seeds: np.ndarray
    noise: np.ndarray
    images: np.ndarray
    refits: float
    n: int

    def at(
        self, test_images: float = 1.0, classifiers: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Variances of one seed, and for new test images, in another design.

        test_images  times as many
        classifiers  times as many per seed
        returns      two (2, 2) float
        raises       ValueError   if the part of the classifiers is not known and their number
                                  changes
        """
        averaged = 1.0
        if classifiers != 1:
            if np.isnan(self.refits):
                raise ValueError("with one classifier per seed its part of the variance is unknown")
            averaged = 1 - self.refits + self.refits / classifiers
        return averaged * (self.seeds + self.noise / test_images), self.images / test_images


def spread(results: Any, generation: int = -1) -> Spread:
    """The variances of a study that was run.

    results  Results of one setting with the arms generated and none, two seeds or more
    raises   ValueError   if an arm is missing, or there is one seed
    """
    generated, none = arms_of(results, "A")
    if len(none) < 2:
        raise ValueError("variances need two seeds or more; got 1")
    weights = headline_weights(generated)
    unit, stratum = units_of(none[0])

    def contributions(values: list[np.ndarray]) -> np.ndarray:
        return np.stack(
            [np.bincount(unit, w * x, len(stratum)) for w, x in zip(weights, values, strict=True)]
        )

    level = [right_of(o, generation) for o in none]
    change = [right_of(o, generation) - x for o, x in zip(generated, level, strict=True)]
    per_unit = np.stack([contributions(change), contributions(level)])
    return spread_of(per_unit, stratum, _refits(generated, none, weights, generation))


def spread_of(per_unit: np.ndarray, stratum: np.ndarray, refits: float = float("nan")) -> Spread:
    """The variances from contributions of test units; the parts are those of `two_way`.

    The variance of a seed is at least its noise, which many images tell, even where few seeds
    happened to lie closer together.

    per_unit  (2, n_seeds, n_units) float   of A and of M(none)
    stratum   (n_units,) int
    refits    see Spread
    """
    of_seed = per_unit.sum(-1)
    n = of_seed.shape[1]
    own = np.mean([_covariance_of_sums(per_unit[:, s], stratum) for s in range(n)], axis=0)
    common = _covariance_of_sums(per_unit.mean(1), stratum)
    images = _without_negative(n / (n - 1) * (common - own / n))
    noise = _without_negative(own - images)
    seeds = _without_negative(np.cov(of_seed) - noise)
    return Spread(float(of_seed[1].mean()), seeds, noise, images, refits, n)


def _covariance_of_sums(x: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Covariance of the sums of x over units, drawn anew within strata; (2, n_units) to (2, 2)."""
    total = np.zeros((2, 2))
    for h in np.unique(stratum):
        members = x[:, stratum == h]
        if members.shape[1] > 1:
            total += members.shape[1] * np.cov(members)
    return total


def _without_negative(covariance: np.ndarray) -> np.ndarray:
    """The nearest matrix that is a covariance: estimates of parts may have a negative variance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def _refits(generated: list[Any], none: list[Any], weights: np.ndarray, generation: int) -> float:
    """Share of the variance of a seed's A that comes from refitting its classifiers."""
    change = np.stack(
        [
            (a.correct()[generation].astype(float) - b.correct()[generation]) @ w
            for a, b, w in zip(generated, none, weights, strict=True)
        ]
    )
    k = change.shape[1]
    total = change.mean(1).var(ddof=1)
    if k < 2 or total == 0:
        return float("nan")
    return float(min(1.0, change.var(1, ddof=1).mean() / k / total))


# ---- Power ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Power:
    """Probability of each word, in [0, 1]; nan with fewer seeds than a verdict needs.

    amplified   A is shown above the margin
    within      A is shown within the margin
    above       A is shown above 0
    """

    amplified: float
    within: float
    above: float


def power(
    change: float,
    level: float,
    per_seed: np.ndarray,
    images: np.ndarray,
    n: int,
    margin: float | None = None,
    family: int = 1,
) -> Power:
    """Power of the words at a true change, from drawn studies.

    The mean over seeds of (A, M) is normal with covariance per_seed/n + images; the variances that
    a study finds between its seeds are Wishart; those of test images are taken as known.

    change, level     true A and M(none), in accuracy
    per_seed, images  (2, 2) float   see Spread.at
    n                 int            seeds
    margin            absolute, in accuracy; None: M(none)/4
    family            hypotheses that share the error rate
    source            ours; checked against whole simulated studies in the tests
    """
    if n < SEEDS_FOR_VERDICT:
        return Power(*[float("nan")] * 3)
    rng = np.random.default_rng(0)
    root = _root(per_seed / n + images)
    mean = np.array([change, level]) + rng.standard_normal((STUDIES, 2)) @ root.T
    found = _wishart(rng, per_seed, n - 1)

    def p_above(weights: np.ndarray, shift: float, up: bool = True) -> np.ndarray:
        seeds = np.einsum("i,sij,j->s", weights, found, weights) / n
        known = float(weights @ images @ weights)
        se = np.sqrt(seeds + known)
        estimate = (mean @ weights + shift) * (1 if up else -1)
        t = np.divide(estimate, se, out=np.inf * np.sign(estimate), where=se > 0)
        df = np.minimum(degrees(seeds, known, n), ENDLESS)
        return special.stdtr(df, -t)  # of t's distribution, a tenth of the time of stats.t

    share, fixed = (QUARTER, 0.0) if margin is None else (0.0, margin)
    upper, lower = A - share * M, A + share * M
    there = p_above(M, 0) if margin is None else np.zeros(STUDIES)
    alpha = (1 - LEVEL) / family
    amplified = 2 * np.maximum(there, p_above(upper, -fixed)) < alpha
    inside = np.maximum(p_above(upper, -fixed, up=False), p_above(lower, fixed)) < alpha
    return Power(
        float(np.mean(amplified)), float(np.mean(inside)), float(np.mean(2 * p_above(A, 0) < alpha))
    )


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R R^T the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def _wishart(rng: np.random.Generator, covariance: np.ndarray, df: int) -> np.ndarray:
    """Covariances that studies find where this one is true, (STUDIES, 2, 2).

    source   Bartlett 1933, Proceedings of the Royal Society of Edinburgh 53, 260-283
    """
    triangle = np.zeros((STUDIES, 2, 2))
    triangle[:, 0, 0] = np.sqrt(rng.chisquare(df, STUDIES))
    triangle[:, 1, 1] = np.sqrt(rng.chisquare(df - 1, STUDIES))
    triangle[:, 1, 0] = rng.standard_normal(STUDIES)
    factor = _root(covariance) @ triangle
    return factor @ factor.transpose(0, 2, 1) / df
