"""Contrasts between arms, with their interval.

All arms of a seed share generation 0, so the difference of two arms in the last generation is the
difference of their changes. With M the headline metric in the last generation:

    A = M(generated) - M(none)        does adding generated images amplify?
    S = M(generated) - M(resample)    beyond sampling drift, at the same pool size
    R = M(generated) - M(real)        more than as many new real images do
                                      of them
    F = M(generated) - M(real-filtered)     R of a filtered experiment, against real images through
    the same filter

The headline is a linear, signed contrast of accuracies fixed beforehand: favoured minus other cells
of a biased start; for an unbiased start top minus bottom half of the groups, ranked by generation-0
accuracy of the *other* seeds. Above 0 means that the better-off groups are further ahead.

Everything here pairs outcomes by seed. It refuses outcomes that differ in more than seed and arm,
and a seed that stands twice: settings are no seeds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.checks import listed, unknown
from ..experiment import OF_THE_ARM, Experiment
from ..measures.metrics import contrast_weights
from .intervals import Estimate, two_way_interval

CONTRASTS = {
    "A": ("generated", "none"),
    "S": ("generated", "resample"),
    "R": ("generated", "real"),
    "F": ("generated", "real-filtered"),
}
FEEDBACK = "P"  # performative - fresh: a contrast of two variants, see `verdicts.feedback`
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

    outcomes  of one arm and one setting, one per seed
    returns   (n_seeds, N) float   nan rows where an unbiased start has only one seed: nothing ranks
                                   the groups
    raises    ValueError           if they are of several settings, or a seed stands twice
    """
    check_one_setting(outcomes)
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

    results     Results of one setting with both arms, the same seeds in each
    generation  which one; the last by default
    raises      ValueError   if an arm or a seed is missing, a seed stands twice, or the arms differ
                             in more than what makes them arms
    """
    first, second = arms_of(results, name)
    return combined({"first": first, "second": second}, {"first": 1, "second": -1}, generation)


def difference(first: list[Any], second: list[Any], generation: int = -1) -> Estimate:
    """Headline metric of one list of outcomes minus that of another, paired by seed: two arms, or
    two variants that share generation 0.

    first, second  outcomes of the same seeds and test images; the weights of the headline are those
                   of the first
    raises         ValueError   if one list is of several settings, or the seeds, the numerics or
                                what generation 0 rests on differ
    """
    check_pairs(first, second, "a difference needs two lists of outcomes")
    return combined({"first": first, "second": second}, {"first": 1, "second": -1}, generation)


def decompose(results: Any, generation: int = -1) -> dict[str, Estimate]:
    """What R is made of: shares that differ, images that differ, and both together; secondary
    results, intervals only.

    total = shares + quality + interaction. Label errors are no part of that sum: wrong labels on
    real images, a bound of its own, which may be larger than the total. Each is a difference of the
    headline metric between arms, as in the module `decomposition`

    returns  part -> Estimate, of those parts whose arms were run
    raises   ValueError   if the arms have different seeds or differ in more than the arm
    """
    parts = {}
    for part, weights in PARTS_OF_R.items():
        arms = {arm: results.of(arm) for arm in weights}
        if all(arms.values()):
            check_arms(results.of("generated"), arms, f"{' and '.join(arms)} are compared")
            parts[part] = combined(arms, weights, generation)
    return parts


def all_contrasts(results: Any, generation: int = -1) -> dict[str, Estimate]:
    """Those of the contrasts whose arms were run, by name."""
    return {
        name: contrast(results, name, generation)
        for name, arms in CONTRASTS.items()
        if all(map(results.of, arms))
    }


def combined(
    arms: Mapping[str, list[Any]], weights: Mapping[str, float], generation: int = -1
) -> Estimate:
    """Estimate of the sum over arms of weight x headline metric, paired by seed.

    arms     outcomes by name, the same seeds and test images in each, in the same order; the
             weights of the headline are those of the first
    weights  number by name of the arm
    """
    first = next(iter(arms.values()))
    right = sum(weight * right_of_seeds(arms[arm], generation) for arm, weight in weights.items())
    return estimate_of(first[0], headline_weights(first) * right)


def arms_of(results: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Outcomes of the two arms of a contrast, by seed; ValueError if they cannot be paired."""
    if name not in CONTRASTS:
        raise ValueError(unknown("contrast", name, CONTRASTS))
    top, bottom = CONTRASTS[name]
    first, second = results.of(top), results.of(bottom)
    check_arms(first, {bottom: second}, f"contrast {name} needs the arms {top} and {bottom}")
    return first, second


# ---- What may be paired --------------------------------------------------------------------------


def check_one_setting(outcomes: Sequence[Any]) -> None:
    """ValueError unless outcomes differ in their seed alone, and each seed stands once."""
    for o in outcomes:
        if differing := _differing(outcomes[0].experiment, o.experiment, ("seed",)):
            values = dict.fromkeys(str(getattr(x.experiment, differing[0])) for x in outcomes)
            raise ValueError(
                f"these results are of several settings, {differing[0]} {listed(values)}: settings "
                "are no seeds; take one variant (reference_parts, score_parts, Study.split)"
            )
    seeds = [o.experiment.seed for o in outcomes]
    if len(set(seeds)) < len(seeds):
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        raise ValueError(
            f"each seed may stand once; got seed{'s' * (len(twice) > 1)} {listed(twice)} more than "
            "once"
        )


def check_pairs(first: Sequence[Any], second: Sequence[Any], needs: str) -> None:
    """ValueError unless each outcome has a partner of the same seed, data, sizes, classifier,
    generations and numerics.

    needs   how the message begins
    """
    _check_seeds(first, second, needs)
    one, other = first[0].experiment, second[0].experiment
    if differing := _differing(one, other, set(OF_THE_ARM) - {"n_generations"}):
        name = differing[0]
        raise ValueError(
            f"{needs} that share generation 0 and the number of generations; {name} is "
            f"{getattr(one, name)!r} in one and {getattr(other, name)!r} in the other"
        )


def check_arms(generated: Sequence[Any], arms: Mapping[str, Sequence[Any]], needs: str) -> None:
    """ValueError unless every arm is exactly that arm of the generated outcomes, seed by seed, in
    the same numerics.

    generated  outcomes with a generator
    arms       name -> outcomes
    needs      how the message begins
    """
    for arm, outcomes in arms.items():
        _check_seeds(generated, outcomes, needs)
        e = outcomes[0].experiment
        derived = generated[0].experiment.to_arm(arm, path_points=e.n_generations)
        if differing := _differing(derived, e):
            name = differing[0]
            raise ValueError(
                f"the arm {arm} is not that of these generated results: its {name} is "
                f"{getattr(e, name)!r}, not {getattr(derived, name)!r}"
            )


def _differing(one: Experiment, other: Experiment, but: Collection[str] = ()) -> list[str]:
    """Names of the fields in which two experiments differ, some left out."""
    fields, others = one.known(), other.known()
    return [name for name in fields if name not in but and fields[name] != others.get(name)]


def _check_seeds(first: Sequence[Any], second: Sequence[Any], needs: str) -> None:
    """ValueError unless both are of one setting each, with the same seeds and numerics."""
    check_one_setting(first)
    check_one_setting(second)
    seeds = [[o.experiment.seed for o in arm] for arm in (first, second)]
    if not first or seeds[0] != seeds[1]:
        raise ValueError(f"{needs} with the same seeds; got {seeds}")
    if len({o.numerics for o in (*first, *second)}) > 1:
        raise ValueError("a contrast pairs results of one numerics only")


# ---- Contributions of test images ----------------------------------------------------------------


def right_of(o: Any, generation: int) -> np.ndarray:
    """Share of the classifiers of an outcome that are right about each test image, (N,) in [0,
    1]."""
    return o.correct()[generation].mean(0)


def right_of_seeds(outcomes: Sequence[Any], generation: int) -> np.ndarray:
    """`right_of` each outcome, (n_seeds, N)."""
    return np.stack([right_of(o, generation) for o in outcomes])


def estimate_of(o: Any, per_image: np.ndarray) -> Estimate:
    """Estimate from the contribution of each test image to each seed's value.

    o          Outcome whose test images they are; it tells which of them belong together
    per_image  (n_seeds, N) float
    """
    return two_way_interval(*by_unit(o, per_image))


def by_unit(o: Any, per_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of test images summed over those that belong together, (n_seeds, n_units), and
    the stratum of each unit; see `units_of`."""
    unit, stratum = units_of(o)
    summed = [np.bincount(unit, values, len(stratum)) for values in per_image]
    return np.stack(summed), stratum


def units_of(o: Any) -> tuple[np.ndarray, np.ndarray]:
    """Unit of each test image, numbered from 0, and the stratum of each unit: the class where every
    photograph is shown in every group (so the group gaps of one photograph are drawn together),
    else the cell."""
    _, first, unit = np.unique(o.unit, return_index=True, return_inverse=True)
    return unit, o.label[first] if o.paired else (o.label * o.occurs.shape[1] + o.group)[first]
