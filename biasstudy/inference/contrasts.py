"""Contrasts between arms, with their interval.

All arms of a seed share generation 0, so the difference of two arms in the last generation is the
difference of their changes. With M the headline metric in the last generation:

    A = M(generated) - M(none)        does adding generated images amplify?
    S = M(generated) - M(resample)    beyond sampling drift, at the same pool size
    R = M(generated) - M(real)        because the images are generated, not because there are more
                                      of them
    F = M(generated) - M(real-filtered)     R of a filtered experiment, against real images through
    the same filter

The headline is a linear, signed contrast of accuracies fixed beforehand: favoured minus other cells
of a biased start; for an unbiased start top minus bottom half of the groups, ranked by generation-0
accuracy of the *other* seeds. Above 0 means that the better-off groups are further ahead.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..measures.metrics import contrast_weights
from .intervals import Estimate, two_way_interval

CONTRASTS = {
    "A": ("generated", "none"),
    "S": ("generated", "resample"),
    "R": ("generated", "real"),
    "F": ("generated", "real-filtered"),
}
HEADLINE = "headline"  # its name beside those of registered metrics
PARTS_OF_R = {  # see `decompose`
    "total": {"generated": 1, "real": -1},
    "shares": {"real-shares": 1, "real": -1},
    "quality": {"rebalance": 1, "real": -1},
    "interaction": {"generated": 1, "real-shares": -1, "rebalance": -1, "real": 1},
    "label errors": {"real-noise": 1, "real": -1},
}


# ---- The headline --------------------------------------------------------------------------------


def headline_weights(outcomes: list[Any]) -> np.ndarray:
    """Weights of the headline contrast for each seed: M = sum_i w_i 1[yhat_i = y_i].

    outcomes  of one arm, one per seed
    returns   (n_seeds, N) float   nan rows where an unbiased start has only one seed: nothing ranks
                                   the groups
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
        weights.append(
            contrast_weights(first.label, first.group, ranked(others.mean(0), first.design))
        )
    return np.stack(weights)


def ranked(accuracy: np.ndarray, design: str) -> np.ndarray:
    """1 for the top half of the groups, -1 for the bottom half, 0 for the middle one of an odd
    number.

    accuracy  (n_classes, n_groups)   nan where the group does not occur in the class
    design    crossed: groups are ranked by their mean over classes; nested: within each class
    """
    if design == "crossed":
        accuracy = np.broadcast_to(np.nanmean(accuracy, axis=0), accuracy.shape)
    signs = np.zeros(accuracy.shape, np.int64)
    for row, line in zip(accuracy, signs, strict=True):
        known = np.flatnonzero(~np.isnan(row))
        order = known[np.argsort(row[known], kind="stable")]
        half = len(order) // 2
        line[order[:half]], line[order[len(order) - half :]] = -1, 1
    return signs


def headline(outcomes: list[Any]) -> np.ndarray:
    """The headline metric over generations: (n_seeds, T + 1), mean over the classifiers of a
    seed."""
    weights = headline_weights(outcomes)
    return np.stack([o.correct().mean(1) @ w for o, w in zip(outcomes, weights, strict=True)])


def curve(outcomes: list[Any], metric: str = HEADLINE) -> np.ndarray:
    """A metric over generations: (n_seeds, T + 1), mean over the classifiers of a seed.

    metric    HEADLINE or a registered metric with one value
    raises    ValueError   if it is unknown, has several values, or the design forbids it
    """
    if metric == HEADLINE:
        return headline(outcomes)
    tables = [o.measure(metric) for o in outcomes]
    if not all(t.label.isna().all() and t.group.isna().all() for t in tables):
        raise ValueError(f"a curve needs a metric with one value; {metric!r} has several")
    return np.stack([t.groupby("generation").value.mean().to_numpy() for t in tables])


# ---- Contrasts between arms ----------------------------------------------------------------------


def contrast(results: Any, name: str, generation: int = -1) -> Estimate:
    """One of the contrasts A, S, R, F of the headline metric, paired by seed.

    results     Results with both arms, the same seeds in each
    generation  which one; the last by default
    raises      ValueError   if an arm or a seed is missing
    """
    return difference(*_arms(results, name), generation)


def difference(first: list[Any], second: list[Any], generation: int = -1) -> Estimate:
    """Headline metric of one list of outcomes minus that of another, paired by seed: two arms, or
    two variants of an arm.

    first, second  outcomes of the same seeds and test images; the weights of the headline are those
                   of the first
    raises         ValueError   if the seeds or the numerics differ
    """
    _check_pairs(first, second, "a difference needs two lists of outcomes")
    right = [
        right_of(a, generation) - right_of(b, generation)
        for a, b in zip(first, second, strict=True)
    ]
    return estimate_of(first[0], headline_weights(first) * np.stack(right))


def decompose(results: Any, generation: int = -1) -> dict[str, Estimate]:
    """What R is made of: shares that differ, images that differ, and both together; secondary
    results, intervals only.

    total = shares + quality + interaction;  label errors are the piece of quality that wrong labels
    make on real images; each is a difference of the headline metric between arms, as in the module
    `decomposition`

    returns  part -> Estimate, of those parts whose arms were run
    raises   ValueError   if the arms have different seeds
    """
    return {
        part: _combined(results, weights, generation)
        for part, weights in PARTS_OF_R.items()
        if all(map(results.of, weights))
    }


def _combined(results: Any, weights: Mapping[str, int], generation: int) -> Estimate:
    """Estimate of sum over arms of weight x headline metric, paired by seed."""
    arms = {arm: results.of(arm) for arm in weights}
    first = next(iter(arms.values()))
    for arm in arms:
        _check_pairs(first, arms[arm], f"{' and '.join(arms)} are compared: they need results")
    right = [
        sum(w * right_of(arms[arm][s], generation) for arm, w in weights.items())
        for s in range(len(first))
    ]
    return estimate_of(first[0], headline_weights(first) * np.stack(right))


def logit_contrast(results: Any, name: str, generation: int = -1) -> Estimate:
    """The same contrast on the logit scale, where a uniform loss of accuracy near 1 counts as much
    as one near 1/2.

    M = sum over cells of w_yg logit (r_yg + 1/2) / (n_yg + 1),  r_yg right of n_yg test images,
    w_yg as in the headline; the interval takes a test image to move M by w_yg / n_yg (x - a_yg) /
    (a_yg (1 - a_yg)) (delta method)

    returns  Estimate   in logits; a secondary result: interval only
    """
    first, second = _arms(results, name)
    parts = [
        _logits(a, w, generation) - _logits(b, w, generation)
        for a, b, w in zip(first, second, headline_weights(first), strict=True)
    ]
    return estimate_of(first[0], np.stack(parts))


def excess(results: Any, generation: int = -1) -> Estimate:
    """E = M(generated) - M(fewer) at equal mean accuracy: is the contrast wider than that loss of
    accuracy alone makes it?

    Classifiers of the arm `fewer` saw 1 to 1/8 of the start: points (a_j, M_j), means over seeds.
    Between the two points around a, the accuracy of the arm `generated`,  c = (1 - l) M_j + l
    M_(j+1),  l = (a_j - a)/(a_j - a_(j+1)),  and each seed's remaining difference in accuracy
                                              counts with the slope between the points:

        E_s = M_s - (1 - l) M_js - l M_(j+1)s - (M_j - M_(j+1))/(a_j - a_(j+1)) (a_s - (1 - l) a_js
        - l a_(j+1)s)

    which is linear in the test images. The points are used in order of accuracy; above all of them
    the last slope goes on.

    returns  Estimate   a secondary result: interval only; all nan if a lies below all points: more
                        parts are needed
    raises   ValueError   if an arm is missing, or the points do not differ in accuracy
    """
    first, second = results.of("generated"), results.of("fewer")
    _check_pairs(first, second, "the excess needs the arms generated and fewer")
    weights = headline_weights(first)
    generated = np.stack([right_of(o, generation) for o in first])
    fewer = np.stack([[right_of(o, t) for o in second] for t in range(len(second[0].predicted))])
    order = np.argsort(-fewer.mean((1, 2)), kind="stable")
    points, a = fewer.mean((1, 2))[order], generated.mean()
    contrast_at = np.einsum("tsi,si->t", fewer[order], weights) / len(first)
    if points[0] - points[-1] <= 0:
        raise ValueError(f"the arm fewer has one accuracy, {points[0]:.3f}: there is no curve")
    if a < points[-1]:
        nan = float("nan")
        return Estimate(nan, nan, nan, nan, nan, nan, nan, np.full(len(first), nan))
    j = max(min(int(np.searchsorted(-points, -a, side="right")), len(points) - 1) - 1, 0)
    gap = points[j] - points[j + 1]
    part, slope = (
        ((points[j] - a) / gap, (contrast_at[j] - contrast_at[j + 1]) / gap)
        if gap > 0
        else (0.0, 0.0)
    )
    mixed = (1 - part) * fewer[order[j]] + part * fewer[order[j + 1]]
    return estimate_of(first[0], (weights - slope / generated.shape[1]) * (generated - mixed))


def all_contrasts(results: Any, generation: int = -1) -> dict[str, Estimate]:
    """Those of the contrasts whose arms were run, by name."""
    return {
        name: contrast(results, name, generation)
        for name, arms in CONTRASTS.items()
        if all(map(results.of, arms))
    }


def _arms(results: Any, name: str) -> tuple[list[Any], list[Any]]:
    if name not in CONTRASTS:
        raise ValueError(f"unknown contrast {name!r}; known: {', '.join(CONTRASTS)}")
    first, second = (results.of(arm) for arm in CONTRASTS[name])
    _check_pairs(first, second, f"contrast {name} needs the arms {' and '.join(CONTRASTS[name])}")
    return first, second


def _check_pairs(first: list[Any], second: list[Any], needs: str) -> None:
    seeds = [[o.experiment.seed for o in arm] for arm in (first, second)]
    if not first or seeds[0] != seeds[1]:
        raise ValueError(f"{needs} with the same seeds; got {seeds}")
    if len({o.numerics for o in first + second}) > 1:
        raise ValueError("a contrast pairs results of one numerics only")


def right_of(o: Any, generation: int) -> np.ndarray:
    """Share of the classifiers of an outcome that are right about each test image, (N,) in [0,
    1]."""
    return o.correct()[generation].mean(0)


def _logits(o: Any, weight: np.ndarray, generation: int) -> np.ndarray:
    """Contribution of each test image to M on the logit scale, (N,): its influence, and an equal
    part of M itself."""
    right, cell = right_of(o, generation), o.label * o.occurs.shape[1] + o.group
    n, hits = np.bincount(cell), np.bincount(cell, right)
    a = (hits + 0.5) / (n + 1)
    logit, slope = np.log(a / (1 - a)), 1 / (a * (1 - a))
    mean = np.divide(hits, n, out=np.zeros(len(n)), where=n > 0)
    return weight * (right - mean[cell]) * slope[cell] + (weight @ logit[cell]) / len(weight)


def estimate_of(o: Any, per_image: np.ndarray) -> Estimate:
    """Estimate from the contribution of each test image to each seed's value.

    o          Outcome whose test images they are; it tells which of them belong together
    per_image  (n_seeds, N) float
    """
    unit, stratum = _units(o)
    return two_way_interval(
        np.stack([np.bincount(unit, values, len(stratum)) for values in per_image]), stratum
    )


def _units(o: Any) -> tuple[np.ndarray, np.ndarray]:
    """Unit of each test image, numbered from 0, and the stratum of each unit: the class where every
    photograph is shown in every group (so the group gaps of one photograph are drawn together),
    else the cell."""
    _, first, unit = np.unique(o.unit, return_index=True, return_inverse=True)
    return unit, o.label[first] if o.paired else (o.label * o.occurs.shape[1] + o.group)[first]
