"""Estimates and their uncertainty from plain arrays: the two-way interval, Holm.

numpy and scipy only. What is estimated is in `contrasts`.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize, stats

from ..measures import LEVEL

POWER = 0.8  # of the smallest change that is called detectable
QUANTILES = (np.arange(200) + 0.5) / 200  # at which means over a distribution are taken
ROUNDING = 1e-9  # a standard error below this share of the values is none


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    Seeds that all have one value show no spread, and nothing else says how far a new seed lies: a
    standard error of 0 is no knowledge, so there is no interval and nothing is shown.

    mean, low, high   the mean and its 95 % interval; nan with fewer than two seeds or no spread
    se, df            standard error, se^2 = seeds + images, and its degrees of freedom; se is 0
                      without spread
    p                 two-sided p-value of mean 0; nan with fewer than two seeds, 1 without spread
    seeds, images     variance of the mean for new seeds, and for new test images
    per_seed          (n,) the differences themselves
    """

    mean: float
    low: float
    high: float
    se: float
    df: float
    p: float
    seeds: float
    images: float
    per_seed: np.ndarray

    @property
    def n(self) -> int:
        return len(self.per_seed)

    def interval(self, level: float) -> tuple[float, float]:
        """Interval of another level, (low, high); nan where there is none."""
        half = _half(self.se, self.df, level)
        return self.mean - half, self.mean + half

    def shifted(self, by: float) -> "Estimate":
        """The estimate of this plus a known number, with the same uncertainty."""
        mean = self.mean + by
        return replace(
            self,
            mean=mean,
            low=self.low + by,
            high=self.high + by,
            p=p_two_sided(mean, self.se, self.df),
            per_seed=self.per_seed + by,
        )

    @functools.cached_property
    def detectable(self) -> float:
        """Smallest change found with 80 % power at this n, if the variances are those found here;
        nan with fewer than two seeds or no spread."""
        return detectable(self.seeds, self.images, self.n) if self.se > 0 else float("nan")


def two_way(per_unit: np.ndarray, stratum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds of a linear statistic, its standard error for new seeds and new test images,
    and degrees of freedom.

    D_s = sum_u x_su;  se^2 = a + b,  a = var(D)/n,  b = n/(n - 1) max(0, v_common - v_indep)
    df = (n - 1) (1 + (n - 3)/(n - 1) b/a)^2   (n - 1 below four seeds)

    v_common is the variance of mean D when one resample of test units within strata is shared by
    all seeds, v_indep the same with a fresh resample per seed; both in closed form, sum over strata
    of n_h var_h, since D is a sum over units. n/(n - 1) makes b unbiased: v_common holds 1/n of the
    noise of v_indep, which holds 1/n of the images' variance. df is Satterthwaite's, with the bias
    of 1/a removed: E[1/a] is (n - 1)/(n - 3) times too large.

    per_unit  (..., n_seeds, n_units) float   contribution of each test unit to D_s; at least two
                                              seeds
    stratum   (n_units,) int                  units are resampled within strata
    returns   mean, se, df   (...) each; df is inf where var(D) is 0 and n > 3
    source    ours; coverage simulated in the tests
    """
    mean, seeds, images = two_variances(per_unit, stratum)
    return mean, np.sqrt(seeds + images), degrees(seeds, images, per_unit.shape[-2])


def two_variances(
    per_unit: np.ndarray, stratum: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds, and the two parts a and b of its variance; arguments as of `two_way`."""
    d = per_unit.sum(-1)
    n = d.shape[-1]
    common = _variance_of_sum(per_unit.mean(-2), stratum)
    independent = _variance_of_sum(per_unit, stratum).sum(-1) / n**2
    images = n / (n - 1) * np.maximum(0.0, common - independent)
    return d.mean(-1), d.var(-1, ddof=1) / n, images


def degrees(seeds: Any, images: Any, n: int) -> np.ndarray:
    """Degrees of freedom of the interval; see `two_way`.

    seeds, images  (...) float   a and b
    """
    seeds, images = np.broadcast_arrays(np.asarray(seeds, float), images)
    ratio = np.divide(images, seeds, out=np.full(seeds.shape, np.inf), where=seeds > 0)
    shrunk = (n - 3) / (n - 1) * ratio if n > 3 else 0 * seeds
    return (n - 1) * (1 + shrunk) ** 2


def detectable(seeds: float, images: float, n: int) -> float:
    """Smallest true change of which the 95 % interval excludes 0 with 80 % power.

    P(|D + change| > t(.975, df) sqrt(a^ + b)) = 0.8,   D ~ N(0, a + b),
    a^ ~ a chi^2(n - 1)/(n - 1),   df that of a^ and b

    seeds, images  float in [0, inf)   a and b of `two_way`, here the true ones: with estimates in
                                       their place the power is about 0.8, and below it on average
    n              int >= 1            seeds
    returns        float               nan with one seed
    source         noncentral t with b known; power simulated in the tests
    """
    se = float(np.sqrt(seeds + images))
    if n < 2 or not se > 0:
        return float("nan") if n < 2 or np.isnan(se) else 0.0
    found = seeds * stats.chi2.ppf(QUANTILES, n - 1) / (n - 1)
    bound = stats.t.ppf(0.5 + LEVEL / 2, degrees(found, images, n)) * np.sqrt(found + images) / se

    def lacks(change: float) -> float:
        beyond = stats.norm.sf(bound - change) + stats.norm.cdf(-bound - change)
        return float(np.mean(beyond)) - POWER

    return se * float(optimize.brentq(lacks, 0, bound.max() + 1))


def two_way_interval(per_unit: np.ndarray, stratum: np.ndarray) -> Estimate:
    """The estimate and interval of one study; see `two_way`.

    per_unit  (n_seeds, n_units) float
    returns   Estimate                   all nan but the mean with one seed; without spread no
                                         interval, see Estimate
    """
    d = per_unit.sum(1)
    n = len(d)
    if n < 2:
        nan = float("nan")
        return Estimate(float(d.mean()), nan, nan, nan, nan, nan, nan, nan, d)
    mean, seeds, images = (float(number) for number in two_variances(per_unit, stratum))
    se, df = float(np.sqrt(seeds + images)), float(degrees(seeds, images, n))
    if se <= ROUNDING * np.abs(per_unit).sum(1).max():
        se = 0.0
    half = _half(se, df, LEVEL)
    p = p_two_sided(mean, se, df)
    return Estimate(mean, mean - half, mean + half, se, df, p, seeds, images, d)


def p_two_sided(mean: float, se: float, df: float) -> float:
    """p-value of a mean against 0, see Estimate; nan where se is."""
    if se == 0:
        return 1.0
    return float(2 * stats.t.sf(abs(mean) / se, df))


def _half(se: float, df: float, level: float) -> float:
    """Half of an interval's width; nan where there is no spread."""
    return float(stats.t.ppf(0.5 + level / 2, df) * se) if se > 0 else float("nan")


def over_seeds(d: np.ndarray) -> Estimate:
    """The mean of one value per seed and its t interval: `two_way_interval` without test images."""
    return two_way_interval(np.asarray(d, float)[:, None], np.zeros(1, int))


def _variance_of_sum(x: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Variance of sum(x) when units are drawn anew within strata, sum_h n_h var_h; (..., n_units)
    to (...)."""
    order = np.argsort(stratum, kind="stable")
    first = np.flatnonzero(np.diff(stratum[order], prepend=-1))
    n, x = np.diff(first, append=len(order)), x[..., order]
    mean = np.add.reduceat(x, first, axis=-1) / n
    square = np.add.reduceat((x - np.repeat(mean, n, axis=-1)) ** 2, first, axis=-1)
    return np.sum(n * square / np.maximum(n - 1, 1), axis=-1)


def holm(p_values: Any) -> np.ndarray:
    """Holm's step-down adjustment: rejecting where it is below 0.05 keeps the family-wise error at
    5 %.

    p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),  p_(1) <= ... <= p_(m)

    p_values  (m,) float   nan: no hypothesis, stays nan and does not count
    returns   (m,) float
    source    Holm 1979, Scandinavian Journal of Statistics 6, 65-70
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(order), 0, -1)))
    return adjusted
