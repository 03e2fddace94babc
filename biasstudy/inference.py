"""Is it amplified? Contrasts between arms, their interval, and a verdict in words.

All arms of a seed share generation 0, so the difference of two arms in the last generation is the difference of their
changes. With M the headline metric in the last generation:

    A = M(generated) - M(none)        does adding generated images amplify?
    S = M(generated) - M(resample)    beyond sampling drift, at the same pool size
    R = M(generated) - M(real)        because the images are generated, not because there are more of them

The headline is a linear, signed contrast of accuracies fixed beforehand: favoured minus other cells of a biased start;
for an unbiased start top minus bottom half of the groups, ranked by generation-0 accuracy of the *other* seeds. Above 0
means that the better-off groups are further ahead. numpy and scipy only; nothing else of the package but `metrics`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from .metrics import contrast_weights

CONTRASTS = {"A": ("generated", "none"), "S": ("generated", "resample"), "R": ("generated", "real")}
MARGIN = 0.02       # a change within this margin is called no change
SEEDS_FOR_VERDICT = 6
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    mean, low, high   the mean and its 95 % interval; nan with fewer than two seeds
    se, df            standard error and its degrees of freedom
    p                 two-sided p-value of mean 0; nan with fewer than two seeds
    detectable        smallest change found with 80 % power at this n and spread
    per_seed          (n,) the differences themselves
    """

    mean: float
    low: float
    high: float
    se: float
    df: float
    p: float
    detectable: float
    per_seed: np.ndarray

    @property
    def n(self) -> int:
        return len(self.per_seed)

    def interval(self, level: float) -> tuple[float, float]:
        """Interval of another level, (low, high)."""
        half = stats.t.ppf(0.5 + level / 2, self.df) * self.se
        return self.mean - half, self.mean + half


def two_way_interval(per_unit: np.ndarray, stratum: np.ndarray) -> Estimate:
    """Mean over seeds of a linear statistic, with an interval for new seeds and new test images.

    D_s = sum_u x_su;  se^2 = var(D)/n + max(0, v_common - v_indep);  df = (n - 1) (se^2 / (var(D)/n))^2

    v_common is the variance of mean D when one resample of test units within strata is shared by all seeds, v_indep the
    same with a fresh resample per seed; both in closed form, sum over strata of n_h var_h, since D is a sum over units.

    per_unit  (n_seeds, n_units) float   contribution of each test unit to D_s
    stratum   (n_units,) int             units are resampled within strata
    returns   Estimate                   all nan but the mean with one seed
    source    ours; coverage simulated in the tests
    """
    d = per_unit.sum(1)
    n = len(d)
    if n < 2:
        nan = float("nan")
        return Estimate(float(d.mean()), nan, nan, nan, nan, nan, nan, d)
    across_seeds = float(d.var(ddof=1) / n)
    common = _variance_of_sum(per_unit.mean(0), stratum)
    independent = sum(_variance_of_sum(row, stratum) for row in per_unit) / n**2
    square = across_seeds + max(0.0, common - independent)
    df = (n - 1) * (square / across_seeds) ** 2 if across_seeds > 0 else np.inf
    se = float(np.sqrt(square))
    half = stats.t.ppf(0.5 + LEVEL / 2, df) * se
    p = float(2 * stats.t.sf(abs(d.mean()) / se, df)) if se > 0 else float(d.mean() == 0)
    detectable = (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * d.std(ddof=1) / np.sqrt(n)
    return Estimate(float(d.mean()), float(d.mean() - half), float(d.mean() + half), se, float(df), p, float(detectable), d)


def _variance_of_sum(x: np.ndarray, stratum: np.ndarray) -> float:
    """Variance of sum(x) when units are drawn anew within strata: sum_h n_h var_h."""
    n = np.bincount(stratum)
    mean = np.bincount(stratum, x) / np.maximum(n, 1)
    square = np.bincount(stratum, (x - mean[stratum]) ** 2)
    return float(np.sum(n * square / np.maximum(n - 1, 1)))


# ---- The headline ----------------------------------------------------------------------------------------------------

def headline_weights(outcomes: list[Any]) -> np.ndarray:
    """Weights of the headline contrast for each seed: M = sum_i w_i 1[yhat_i = y_i].

    outcomes  of one arm, one per seed
    returns   (n_seeds, N) float   nan rows where an unbiased start has only one seed: nothing ranks the groups
    """
    first = outcomes[0]
    if first.biased:
        return np.stack([contrast_weights(o.label, o.group, o.favoured) for o in outcomes])
    accuracy = np.stack([o.cell_accuracy(0) for o in outcomes])
    weights = []
    for s in range(len(outcomes)):
        others = np.delete(accuracy, s, axis=0)
        if not len(others):
            weights.append(np.full(len(first.label), np.nan))
            continue
        weights.append(contrast_weights(first.label, first.group, ranked(others.mean(0), first.design)))
    return np.stack(weights)


def ranked(accuracy: np.ndarray, design: str) -> np.ndarray:
    """1 for the top half of the groups, -1 for the bottom half, 0 for the middle one of an odd number.

    accuracy  (n_classes, n_groups)   nan where the group does not occur in the class
    design    crossed: groups are ranked by their mean over classes; nested: within each class
    """
    if design == "crossed":
        accuracy = np.broadcast_to(np.nanmean(accuracy, axis=0), accuracy.shape)
    out = np.zeros(accuracy.shape, np.int64)
    for row, line in zip(accuracy, out, strict=True):
        known = np.flatnonzero(~np.isnan(row))
        order = known[np.argsort(row[known], kind="stable")]
        half = len(order) // 2
        line[order[:half]], line[order[len(order) - half:]] = -1, 1
    return out


def headline(outcomes: list[Any]) -> np.ndarray:
    """The headline metric over generations: (n_seeds, T + 1), mean over the classifiers of a seed."""
    weights = headline_weights(outcomes)
    return np.stack([o.correct().mean(1) @ w for o, w in zip(outcomes, weights, strict=True)])


def contrast(results: Any, name: str, generation: int = -1) -> Estimate:
    """One of the contrasts A, S, R of the headline metric, paired by seed.

    results     Results with both arms, the same seeds in each
    generation  which one; the last by default
    raises      ValueError   if an arm or a seed is missing
    """
    if name not in CONTRASTS:
        raise ValueError(f"unknown contrast {name!r}; known: {', '.join(CONTRASTS)}")
    first, second = (results.of(arm) for arm in CONTRASTS[name])
    seeds = [[o.experiment.seed for o in arm] for arm in (first, second)]
    if not first or seeds[0] != seeds[1]:
        raise ValueError(f"contrast {name} needs the arms {' and '.join(CONTRASTS[name])} with the same seeds; got {seeds}")
    if len({o.numerics for o in first + second}) > 1:
        raise ValueError("a contrast pairs results of one numerics only")
    weights = headline_weights(first)
    difference = np.stack([a.correct()[generation].mean(0) - b.correct()[generation].mean(0)
                           for a, b in zip(first, second, strict=True)])
    unit, stratum = _units(first[0])
    per_unit = np.stack([np.bincount(unit, x, len(stratum)) for x in weights * difference])
    return two_way_interval(per_unit, stratum)


def _units(o: Any) -> tuple[np.ndarray, np.ndarray]:
    """Unit of each test image, numbered from 0, and the stratum of each unit: the class where every photograph is shown in
    every group (so the group gaps of one photograph are drawn together), else the cell."""
    _, first, unit = np.unique(o.unit, return_index=True, return_inverse=True)
    return unit, o.label[first] if o.paired else (o.label * o.occurs.shape[1] + o.group)[first]


# ---- The verdict -----------------------------------------------------------------------------------------------------

def verdict(estimate: Estimate) -> str:
    """One of: amplified, reduced, no change beyond 0.02, cannot tell; or why there is no verdict."""
    if estimate.n < SEEDS_FOR_VERDICT:
        return f"no verdict with fewer than {SEEDS_FOR_VERDICT} seeds"
    if estimate.low > 0:
        return "amplified"
    if estimate.high < 0:
        return "reduced"
    low, high = estimate.interval(0.90)
    if low > -MARGIN and high < MARGIN:
        return f"no change beyond {MARGIN}"
    return f"cannot tell (smallest change detectable with 80 % power: {estimate.detectable:.3f})"


def sentence(results: Any) -> str:
    """The answer of a study in words: the primary contrast A with its verdict, then S and R where those arms were run."""
    found = {}
    for name, (_, control) in CONTRASTS.items():
        if results.of("generated") and results.of(control):
            found[name] = contrast(results, name)
    if "A" not in found:
        return "No answer: the arms generated and none are needed."
    first = results.of("generated")[0]
    a = found["A"]
    what = "favoured minus other cells" if first.biased else "top minus bottom groups"
    if np.isnan(a.mean):
        return "No answer: with one seed nothing ranks the groups of an unbiased start."
    e = first.experiment
    text = [f"{e.dataset}, {e.start} start, generation {e.n_generations}, accuracy of {what}: {verdict(a)}."]
    for name, d in found.items():
        interval = f"[{d.low:+.3f}, {d.high:+.3f}]" if d.n > 1 else "(one seed: no interval)"
        text.append(f"{name} = generated - {CONTRASTS[name][1]} = {d.mean:+.3f} {interval}")
    if a.n >= SEEDS_FOR_VERDICT and a.low > 0 and "R" in found:
        text.append("because the images are generated" if found["R"].low > 0 else
                    "not shown to be because the images are generated (R is not above 0)")
    return " ".join(text[:1]) + " " + "; ".join(text[1:]) + f"; n = {a.n} seed{'s' * (a.n > 1)}."
