"""Secondary metrics with the care of the headline: worst groups, gaps, odds, parity, calibration.

Each is a rate of test images within groups, v_rg in row r (all images, a class, ...) and group g,
of which the data choose: a smallest one, or a largest minus a smallest one per row, of which the
mean or the largest is taken. With c_rg what was chosen (1, -1, 0, over the number of rows),

    M = sum_rg c_rg v_rg

and a test image i moves M by  sum_r c_rg (x_ri - v_rg) / n_rg,  g its group (the delta method, the
choice held fixed). So the change between two arms has the two-way interval of `intervals`, for new
seeds and new test images.

A largest minus a smallest rate is too large by chance, the more so the smaller the cells. A change
between two arms has this bias at both ends, so that most of it cancels; what is left is what a loss
of accuracy alike in all groups would do to the metric, and stands beside it as its floor.

Letters: N test images, K classes, G groups, R classifiers of a seed, T the last generation.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..core.checks import unknown
from ..measures.floors import shuffled
from ..measures.metrics import rate, refusal
from .contrasts import CONTRASTS, arms_of, check_pairs, estimate_of
from .intervals import Estimate, holm

PERMUTATIONS = 200
COLUMNS = (
    "metric",
    "contrast",
    "mean",
    "low",
    "high",
    "p",
    "slope",
    "slope_low",
    "slope_high",
    "floor",
    "top",
    "bottom",
    "seeds_with_this_pair",
    "n",
    "refused",
)


# ---- Rates within groups -------------------------------------------------------------------------


class Rates(NamedTuple):
    """Rates of one set of predictions: v_rg = sum of x over images of row r and group g / images of
    the members of row r in group g.

    row      (N,) int               row in whose sum an image counts
    x        (N,) float             how much
    members  (n_rows, K) bool       classes whose images are the members of a row
    """

    row: np.ndarray
    x: np.ndarray
    members: np.ndarray


def _of_all(label: np.ndarray, predicted: np.ndarray, confidence: Any, k: int) -> Rates:
    """Accuracy."""
    return Rates(np.zeros(len(label), int), label == predicted, np.ones((1, k), bool))


def _of_classes(label: np.ndarray, predicted: np.ndarray, confidence: Any, k: int) -> Rates:
    """Accuracy within each class."""
    return Rates(label, label == predicted, np.eye(k, dtype=bool))


def _of_odds(label: np.ndarray, predicted: np.ndarray, confidence: Any, k: int) -> Rates:
    """True positive rate of each class, then false positive rate of each class."""
    row = np.where(label == predicted, predicted, k + predicted)
    one = np.eye(k, dtype=bool)
    return Rates(row, np.ones(len(label)), np.concatenate([one, ~one]))


def _of_predicted(label: np.ndarray, predicted: np.ndarray, confidence: Any, k: int) -> Rates:
    """How often each class is predicted."""
    return Rates(predicted, np.ones(len(label)), np.ones((k, k), bool))


def _of_confidence(label: np.ndarray, predicted: np.ndarray, confidence: Any, k: int) -> Rates:
    """Confidence minus accuracy."""
    x = np.asarray(confidence, float) - (label == predicted)
    return Rates(np.zeros(len(label), int), x, np.ones((1, k), bool))


# ---- What is chosen of them ----------------------------------------------------------------------


def _lowest(v: np.ndarray) -> np.ndarray:
    """The smallest rate of all; equal ones share."""
    here = v == np.nanmin(v, axis=(-2, -1), keepdims=True)
    return here / here.sum((-2, -1), keepdims=True)


def _gaps(v: np.ndarray) -> np.ndarray:
    """Largest minus smallest rate of each row, equal ones share; nan rows where fewer than two are
    defined."""
    known = ~np.isnan(v)
    top = v == np.where(known, v, -np.inf).max(-1, keepdims=True)
    bottom = v == np.where(known, v, np.inf).min(-1, keepdims=True)
    number_of_top, number_of_bottom = (here.sum(-1, keepdims=True) for here in (top, bottom))
    chosen = top / np.maximum(number_of_top, 1) - bottom / np.maximum(number_of_bottom, 1)
    return np.where(known.sum(-1, keepdims=True) > 1, chosen, np.nan)


def _mean_gap(v: np.ndarray) -> np.ndarray:
    """Mean over rows of the gap."""
    chosen = _gaps(v)
    known = ~np.isnan(chosen).any(-1, keepdims=True)
    number = known.sum(-2, keepdims=True)
    return np.where(number > 0, np.where(known, chosen, 0) / np.maximum(number, 1), np.nan)


def _larger_gap(v: np.ndarray, of: int) -> np.ndarray:
    """The gap of the row, out of every `of`, in which it is largest, equal ones share; nan where
    none is defined."""
    chosen = _gaps(v)
    size = _total(chosen, v, axis=-1).reshape(*v.shape[:-2], of, v.shape[-2] // of)
    largest = np.where(np.isnan(size), -np.inf, size).max(-2, keepdims=True)
    here = size == largest
    share = np.where(largest > -np.inf, here / np.maximum(here.sum(-2, keepdims=True), 1), np.nan)
    share = share.reshape(*v.shape[:-1], 1)
    return np.where(share == 0, 0, share * chosen)


def _largest_gap(v: np.ndarray) -> np.ndarray:
    """The largest gap of all rows."""
    return _larger_gap(v, v.shape[-2])


def _mean_larger_gap(v: np.ndarray) -> np.ndarray:
    """Mean over classes of the larger gap of their two rows; a class needs both."""
    both = np.isnan(_gaps(v)).any(-1).reshape(*v.shape[:-2], 2, -1).any(-2)
    v = np.where(np.concatenate([both, both], axis=-1)[..., None], np.nan, v)
    chosen = _larger_gap(v, 2)
    classes = (~both).sum(-1)[..., None, None]
    return np.where(classes > 0, np.nan_to_num(chosen) / np.maximum(classes, 1), np.nan)


def _total(chosen: np.ndarray, v: np.ndarray, axis: Any = (-2, -1)) -> np.ndarray:
    """sum c v, where a rate that is not chosen need not be defined."""
    return np.sum(np.where(chosen == 0, 0, chosen * v), axis=axis)


class Secondary(NamedTuple):
    """What a metric is made of: its rates and the choice among them."""

    rates: Callable[[np.ndarray, np.ndarray, Any, int], Rates]
    choice: Callable[[np.ndarray], np.ndarray]


SECONDARY = {
    "worst-group-accuracy": Secondary(_of_all, _lowest),
    "worst-cell-accuracy": Secondary(_of_classes, _lowest),
    "accuracy-gap": Secondary(_of_all, _mean_gap),
    "equal-opportunity-mean": Secondary(_of_classes, _mean_gap),
    "equal-opportunity-max": Secondary(_of_classes, _largest_gap),
    "equalized-odds-mean": Secondary(_of_odds, _mean_larger_gap),
    "demographic-parity-mean": Secondary(_of_predicted, _mean_gap),
    "demographic-parity-max": Secondary(_of_predicted, _largest_gap),
    "calibration-gap": Secondary(_of_confidence, _mean_gap),
}


# ---- Of one outcome ------------------------------------------------------------------------------


def _rates(metric: str, o: Any, t: int, r: int) -> Rates:
    confidence = None if o.confidence is None else o.confidence[t, r]
    return SECONDARY[metric].rates(o.label, o.predicted[t, r], confidence, o.occurs.shape[0])


def _table(rates: Rates, cells: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rates and numbers of members, (..., n_rows, G).

    cells   (K, G) int      test images of each cell, the same for all of `groups`
    groups  (..., N) int    groups of the images
    """
    n, size = rates.members @ cells, len(rates.members) * cells.shape[1]
    first = size * np.arange(groups[..., 0].size).reshape(*groups.shape[:-1], 1)
    at = first + rates.row * cells.shape[1] + groups
    x = np.broadcast_to(rates.x, groups.shape)
    total = np.bincount(at.ravel(), x.ravel(), first.size * size)
    return rate(total.reshape(*groups.shape[:-1], *n.shape), n), n


def _cells(o: Any) -> np.ndarray:
    """Test images of each cell, (K, G)."""
    at = o.label * o.occurs.shape[1] + o.group
    return np.bincount(at, minlength=o.occurs.size).reshape(o.occurs.shape)


def contributions(o: Any, metric: str, t: int) -> np.ndarray:
    """Contribution of each test image to a metric in generation t, mean over classifiers: its
    influence, and an equal part of the metric itself; (N,), their sum is the metric."""
    cells, parts = _cells(o), []
    for r in range(o.predicted.shape[1]):
        rates = _rates(metric, o, t, r)
        v, n = _table(rates, cells, o.group)
        chosen = SECONDARY[metric].choice(v)
        per_image = np.where(chosen == 0, 0, chosen / np.maximum(n, 1))
        expected = rates.members.T @ np.where(per_image == 0, 0, per_image * v)
        influence = per_image[rates.row, o.group] * rates.x - expected[o.label, o.group]
        parts.append(influence + _total(chosen, v) / len(o.label))
    return np.mean(parts, axis=0)


def pair_of(o: Any, metric: str, t: int) -> tuple[str, str]:
    """The groups that make a metric in generation t: highest and lowest rate, of the mean over
    classifiers.

    Of a mean over classes: most often the highest, most often the lowest.

    returns  top, bottom   names, of equal ones all; with their class where a single class makes the
                           metric; "" for none: a smallest rate has no top, equal groups neither
    """
    cells, replicates = _cells(o), range(o.predicted.shape[1])
    tables = [_table(_rates(metric, o, t, r), cells, o.group)[0] for r in replicates]
    chosen = np.nan_to_num(SECONDARY[metric].choice(np.mean(tables, axis=0)))
    rows, total = np.flatnonzero(chosen.any(1)), chosen.sum(0).round(9)
    of_one = len(rows) == 1 < len(chosen)
    where = f"{o.classes[rows[0] % len(o.classes)]}, " if of_one else ""
    names = [
        where + " or ".join(o.groups[g] for g in np.flatnonzero(total == extreme))
        if extreme
        else ""
        for extreme in (max(total.max(), 0), min(total.min(), 0))
    ]
    return ("", names[0]) if SECONDARY[metric].choice is _lowest else (names[0], names[1])


# ---- Of two arms ---------------------------------------------------------------------------------


def difference(
    first: Sequence[Any], second: Sequence[Any], metric: str, generation: int = -1
) -> Estimate:
    """A secondary metric of one list of outcomes minus that of another, paired by seed, with the
    two-way interval.

    The interval is for the change expected with other seeds and other test images, *as many*.
    Simulated, 500 studies of 6 and of 12 seeds (5 classes, 4 groups, 30 photographs a class shown
    in every group; no change, a uniform loss, a loss of one group; b/a from 0.1 to 3.7), it covered
    that change in

        worst-group-accuracy 0.936 to 0.968      equalized-odds-mean 0.936 to 0.982
        equal-opportunity-mean 0.940 to 0.982    calibration-gap     0.940 to 0.972

    and the other metrics in 0.926 to 0.980. A bootstrap of photographs gave the same standard
    errors within 7 %. What remains of the bias of a gap, against a test set without end: under
    0.004 where nothing changed; up to 0.033 of the mean gaps and 0.049 of the largest where
    accuracy fell by 7 to 14 points (equal groups: +0.054 for +0.022; one group loses: +0.090 for
    +0.109). So a gap that widens is no news before it is compared with its floor: after a uniform
    loss the interval at 12 seeds is above 0 in 24 to 84 % of 80 studies, above `floor_of_change`
    in 1 to 8 % (accuracy gap, equal opportunity, odds); after the loss of one group in all.

    first, second  outcomes of the same seeds and test images, as of two arms
    metric         a key of SECONDARY
    generation     which one; the last by default
    returns        Estimate     all nan where the metric is undefined
    raises         ValueError   if the metric is unknown or the design forbids it, with the reason;
                                if the outcomes cannot be paired, see `contrasts`
    """
    _check(first, second, metric)
    return _estimate(first, second, metric, {range(len(first[0].predicted))[generation]: 1.0})


def slope(first: Sequence[Any], second: Sequence[Any], metric: str) -> Estimate:
    """Least-squares slope over generations 0 ... T of the difference D_s(t) of a secondary metric,
    with the two-way interval.

    sum_t (t - T/2) D_s(t) / sum_t (t - T/2)^2;  between two arms D_s(0) is 0

    arguments, raises   as in `difference`
    returns             Estimate   per generation; nan if there is one
    """
    _check(first, second, metric)
    t = np.arange(len(first[0].predicted))
    centred = t - t.mean()
    size = np.sum(centred**2)
    weights = centred / size if size else np.full(1, np.nan)
    return _estimate(first, second, metric, dict(enumerate(weights.tolist())))


def _check(first: Sequence[Any], second: Sequence[Any], metric: str) -> None:
    if metric not in SECONDARY:
        raise ValueError(unknown("secondary metric", metric, SECONDARY))
    check_pairs(first, second, "a difference needs two lists of outcomes")
    if reason := _refusal(metric, first[0]):
        raise ValueError(reason)


def _refusal(metric: str, o: Any) -> str | None:
    """Why a metric is not defined for an outcome, or cannot be told."""
    unknown = () if o.confidence is not None else ("confidence",)
    return refusal(metric, o.design, o.biased, o.paired, unknown)


def _estimate(
    first: Sequence[Any], second: Sequence[Any], metric: str, weights: Mapping[int, float]
) -> Estimate:
    """Estimate of the sum over generations of weight x difference of the metric."""
    per_image = [
        sum(
            w * (contributions(a, metric, t) - contributions(b, metric, t))
            for t, w in weights.items()
        )
        for a, b in zip(first, second, strict=True)
    ]
    return estimate_of(first[0], np.stack(per_image))


def floor_of_change(
    first: Sequence[Any],
    second: Sequence[Any],
    metric: str,
    generation: int = -1,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """The change that a secondary metric would have if groups did not matter: groups permuted
    within classes, or within photographs where each is shown in every group, alike in both arms;
    mean over permutations and seeds.

    A loss of accuracy alike in all groups widens gaps that much; 0 where nothing changed.

    arguments, raises   as in `difference`
    returns             float   nan where no class has two groups
    """
    _check(first, second, metric)
    groups = _groups_that_do_not_matter(first[0], n_permutations, seed)
    sides = ([_permuted(o, metric, generation, groups) for o in arm] for arm in (first, second))
    return _mean_difference(*sides)


def _mean_difference(first: Sequence[float], second: Sequence[float]) -> float:
    return float(np.mean([a - b for a, b in zip(first, second, strict=True)]))


def _groups_that_do_not_matter(o: Any, n_permutations: int, seed: int) -> np.ndarray | None:
    """Groups of the test images, permuted, (n_permutations, N); None where no class has two."""
    stratum = o.unit if o.paired else o.label
    if len(np.unique(np.stack([stratum, o.group]), axis=1)[0]) == len(np.unique(stratum)):
        return None
    return shuffled(o.group, stratum, n_permutations, np.random.default_rng(seed))


def _permuted(o: Any, metric: str, t: int, groups: np.ndarray | None) -> float:
    """Mean over permutations and classifiers of a metric; groups (n_permutations, N), None: nan."""
    if groups is None:
        return float("nan")
    values = []
    for r in range(o.predicted.shape[1]):
        v, _ = _table(_rates(metric, o, t, r), _cells(o), groups)
        values.append(_total(SECONDARY[metric].choice(v), v).mean())
    return float(np.mean(values))


# ---- Tables --------------------------------------------------------------------------------------


def pairs(results: Any, arm: str = "generated") -> pd.DataFrame:
    """Which groups make each metric in the first and the last generation of an arm, and in how many
    seeds it is these.

    returns  metric, generation, top, bottom (the pair of most seeds; see `pair_of`),
             seeds_with_this_pair, n; metrics that the design refuses are left out
    """
    outcomes = results.of(arm)
    last = len(outcomes[0].predicted) - 1
    rows = []
    for metric in SECONDARY:
        if _refusal(metric, outcomes[0]):
            continue
        for t in dict.fromkeys((0, last)):
            found = Counter(pair_of(o, metric, t) for o in outcomes)
            (top, bottom), seeds = found.most_common(1)[0]
            rows.append((metric, t, top, bottom, seeds, len(outcomes)))
    names = ["metric", "generation", "top", "bottom", "seeds_with_this_pair", "n"]
    return pd.DataFrame(rows, columns=names)


def secondary(results: Any, names: Sequence[str] = ("A", "R")) -> pd.DataFrame:
    """Every secondary metric: its change in the last generation with interval and floor, its slope
    over generations, and the groups that make it.

    names    contrasts, keys of CONTRASTS; those whose arms were not run are left out
    returns  metric, contrast, mean, low, high (see `difference`), p (of a change that is its floor,
             two-sided, uncorrected: see `secondary_of_settings`), slope, slope_low, slope_high
             (`slope`), floor (`floor_of_change`), top, bottom, seeds_with_this_pair (`pairs`, of
             the arm generated in the last generation), n (seeds), refused (why the metric is not
             defined or not known, else ""; then numbers are nan, n is 0)
    raises   ValueError   if none of the contrasts has both arms
    """
    here = [name for name in names if all(map(results.of, CONTRASTS[name]))]
    if not here:
        raise ValueError(
            f"secondary metrics need both arms of a contrast out of {', '.join(names)}; got arms "
            f"{', '.join(sorted({o.experiment.arm for o in results.outcomes}))}"
        )
    o = results.of("generated")[0]
    table = pairs(results)
    made_by = table[table.generation == table.generation.max()].set_index("metric")
    groups = _groups_that_do_not_matter(o, PERMUTATIONS, seed=0)
    rows: list[dict[str, Any]] = []
    for metric in SECONDARY:
        reason = _refusal(metric, o)
        permuted = {  # once, whatever the contrasts that an arm is in
            arm: [_permuted(o, metric, -1, groups) for o in results.of(arm)]
            for arm in {arm for name in here for arm in CONTRASTS[name]}
            if not reason
        }
        for name in here:
            row: dict[str, Any] = {
                "metric": metric,
                "contrast": name,
                "top": "",
                "bottom": "",
                "seeds_with_this_pair": 0,
                "n": 0,
                "refused": reason or "",
            }
            if not reason:
                arms = arms_of(results, name)
                last, tilt = difference(*arms, metric), slope(*arms, metric)
                floor = _mean_difference(*(permuted[arm] for arm in CONTRASTS[name]))
                row |= {
                    "mean": last.mean,
                    "low": last.low,
                    "high": last.high,
                    "p": last.shifted(-floor).p,
                    "slope": tilt.mean,
                    "slope_low": tilt.low,
                    "slope_high": tilt.high,
                    "floor": floor,
                    "n": last.n,
                    **made_by.loc[metric, ["top", "bottom", "seeds_with_this_pair"]],
                }
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def secondary_of_settings(
    parts: Mapping[str, Any], names: Sequence[str] = ("A", "R")
) -> pd.DataFrame:
    """`secondary` of every setting, with Holm's correction over the settings, a family of its own
    for each metric and contrast.

    parts    setting -> results
    returns  setting, the columns of `secondary`, p_adjusted (nan where refused)
    """
    table = pd.concat(
        [secondary(results, names).assign(setting=setting) for setting, results in parts.items()],
        ignore_index=True,
    )
    table["p_adjusted"] = table.groupby(["metric", "contrast"]).p.transform(holm)
    return table[["setting", *COLUMNS, "p_adjusted"]]
