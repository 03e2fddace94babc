"""Where is bias going? The transfer map, its level of rest, what it predicts, and convergence
across starts.

Evidence are one-step experiments at several *assigned* levels of bias, because an assigned level
has no noise; what is concluded from them is in `conjecture`, with what is not done (a regression of
a series on its own past).

Letters: L assigned levels, n seeds, T generations; x the bias of a training set, d what one
generation adds to it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..experiment import PROTOCOLS
from ..measures import LEVEL
from ..measures.shares import favoured_part, told_counts
from .contrasts import estimate_of, headline, headline_weights, right_of
from .intervals import Estimate, over_seeds, p_two_sided

_OF_THE_MAP = (
    "dataset",
    "dataset_options",
    "n_real",
    "n_thinned",
    "generator",
    "condition",
    "filter",
    "filter_options",
    "labels",
    "warm_start",
)
_ASSIGNED = ("bias", "seed")  # what differs within a setting
_OF_A_STEP = (
    "assigned",
    "seed",
    "share_before",
    "share_after",
    "clear",
    "contrast_before",
    "contrast_after",
)


# ---- Experiments at several assigned levels ------------------------------------------------------


def told_apart(experiments: Sequence[Any], but: tuple[str, ...] = ("seed",)) -> list[str]:
    """What tells experiments apart, in words: "generator gan", "guidance 1.5".

    A field is named where those before it leave two experiments alike; of options those that
    differ.

    experiments  Experiments
    but          fields that do not count
    returns      a text for each, empty where there is nothing to tell or no option is given
    """
    fields = [e.fields() for e in experiments]
    words: list[list[str]] = [[] for _ in experiments]
    alike = [""] * len(experiments)
    # how long a model is fitted says least of what it is
    names = sorted(fields[0] if fields else (), key=lambda n: n.endswith(("_steps", "_batch")))
    for name in (name for name in names if name not in but):
        values = [given[name] for given in fields]
        finer = [f"{before} {_canonical(v)}" for before, v in zip(alike, values, strict=True)]
        if len(set(finer)) == len(set(alike)):
            continue
        alike = finer
        for phrases, value in zip(words, values, strict=True):
            options = value if isinstance(value, dict) else {name: value}
            others = [choice if isinstance(choice, dict) else {name: choice} for choice in values]
            phrases += [
                f"{key} {str(chosen).split('/')[-1]}"  # of a file its name
                for key, chosen in options.items()
                if any(choice.get(key) != chosen for choice in others)
            ]
    return [", ".join(phrases) for phrases in words]


def _canonical(value: Any) -> str:
    """Equal for equal options in another order."""
    return str(sorted(value.items())) if isinstance(value, dict) else str(value)


def by_level(parts: Mapping[str, Any]) -> dict[str, dict[float, Any]]:
    """Variants that differ in the assigned bias only, together: name of the setting -> bias ->
    Results, by rising bias.

    parts    name -> Results, as of `Study.split`; variants that are not `start: biased`, or lack an
             arm `generated`, are left
    returns  the settings with at least two levels; a name is what tells them apart, see
             `told_apart`, or of a single one its generator
    """
    settings: dict[str, dict[float, Any]] = {}
    for results in parts.values():
        outcomes = results.of("generated")
        if outcomes and outcomes[0].experiment.start == "biased":
            e = outcomes[0].experiment
            same = str([_canonical(v) for k, v in e.fields().items() if k not in _ASSIGNED])
            settings.setdefault(same, {})[e.bias] = results
    several = [levels for levels in settings.values() if len(levels) > 1]
    firsts = [next(iter(levels.values())).of("generated")[0].experiment for levels in several]
    return {
        words or f"generator {e.generator}": dict(sorted(levels.items()))
        for words, e, levels in zip(told_apart(firsts, _ASSIGNED), firsts, several, strict=True)
    }


def transfer_table(parts: Mapping[str, Any]) -> pd.DataFrame:
    """`one_step` of every setting, with its name in the column setting."""
    tables = [one_step(levels).assign(setting=name) for name, levels in by_level(parts).items()]
    columns = ["setting", *_OF_A_STEP]
    return (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    )


def one_step(levels: Mapping[float, Any]) -> pd.DataFrame:
    """One-step map of every seed of a setting: share of the favoured cells and accuracy contrast,
    assigned and after one generation.

    levels   bias -> Results, as of `by_level`
    returns  assigned (bias), seed, share_before (in the start), share_after (in the batch of
             generation 0, among images with a clear group; nan if there is none), clear (share of
             those images), contrast_before (generation 0), contrast_after (generation 1)
    """
    rows = []
    for level, results in levels.items():
        outcomes = results.of("generated")
        for o, line in zip(outcomes, headline(outcomes), strict=True):
            shares = favoured_part(o.counts, o.favoured), favoured_shares(o)[0]
            clear = np.mean(o.batches[0]["group"] >= 0)
            rows.append((level, o.experiment.seed, *shares, clear, line[0], line[1]))
    return pd.DataFrame(rows, columns=list(_OF_A_STEP))


def favoured_shares(o: Any) -> np.ndarray:
    """Share of the favoured cells in every batch, among images with a clear group; (T,), nan where
    there is none."""
    tables = [told_counts(b["label"], b["group"], o.favoured.shape)[:, :-1] for b in o.batches]
    return np.array([favoured_part(counts, o.favoured) for counts in tables])


# ---- The transfer map ----------------------------------------------------------------------------


@dataclass(frozen=True)
class TransferMap:
    """What one generation makes of the bias of a training set, straight between the assigned
    levels.

    before  (L,) float    bias of the training set at each level, rising; mean over seeds
    step    (n, L) float  bias after one generation minus before, per seed
    clear   (L,) float    share of images with a clear group; ones where bias is no share
    """

    before: np.ndarray
    step: np.ndarray
    clear: np.ndarray

    def after(self, x: np.ndarray) -> np.ndarray:
        """Bias after one generation from x; (n,) one per seed to (n,), nan outside the assigned
        levels."""
        moved = np.array([np.interp(a, self.before, d) for a, d in zip(x, self.step, strict=True)])
        # levels are means over seeds: rounded
        inside = (x >= self.before[0] - 1e-9) & (x <= self.before[-1] + 1e-9)
        return np.where(inside, x + moved, np.nan)

    def visible(self, x: np.ndarray) -> np.ndarray:
        """Share of the images made from x whose group is clear, mean over seeds; (n,)."""
        return np.interp(x, self.before, self.clear)


def transfer_map(table: pd.DataFrame, what: str = "share") -> TransferMap:
    """The map of one setting.

    table    of `one_step`: one setting, every seed at every level
    what     share or contrast
    raises   ValueError   if a level lacks a seed, or the name is another
    """
    if what not in ("share", "contrast"):
        raise ValueError(f"a transfer map is of 'share' or 'contrast'; got {what!r}")
    wide = table.pivot(
        index="seed", columns="assigned", values=[f"{what}_before", f"{what}_after", "clear"]
    )
    if wide.isna().any(axis=None):
        raise ValueError("a transfer map needs every seed at every assigned level")
    before, after = wide[f"{what}_before"].to_numpy(), wide[f"{what}_after"].to_numpy()
    order = np.argsort(before.mean(0), kind="stable")
    clear = wide["clear"].to_numpy().mean(0) if what == "share" else np.ones(before.shape[1])
    return TransferMap(before.mean(0)[order], (after - before)[:, order], clear[order])


@dataclass(frozen=True)
class FixedPoint:
    """Where bias would come to rest: the map crosses the diagonal from above.

    value      nan where the mean map does not cross from above between the assigned levels
    low, high  95 % interval; infinite where it is not bounded by the levels that were assigned; nan
               with value
    n          seeds
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"no level of rest between the assigned levels (n = {self.n} seeds)"
        ends = [
            f"{end:.2f}" if np.isfinite(end) else "beyond the levels"
            for end in (self.low, self.high)
        ]
        return f"{self.value:.2f} [{ends[0]}, {ends[1]}] (n = {self.n} seeds)"


def fixed_point(found: TransferMap) -> FixedPoint:
    """The level of rest of a map, with the set of levels at which a t test over seeds does not see
    it move.

    d(x) = 0 falling;  interval: the x around it with |mean_s d_s(x)| <= t(n - 1) sd_s d_s(x) /
                       sqrt(n)

    The test is inverted level by level, so the interval needs no standard error of a crossing and
    may be open.

    returns  FixedPoint   of several crossings the lowest; without an interval (nan) below two seeds
    source   Fieller 1954, Journal of the Royal Statistical Society B 16, 175-185 (inverting a t
             test); coverage in the tests
    """
    n, nan = len(found.step), float("nan")
    grid = np.unique(
        np.concatenate([found.before, np.linspace(found.before[0], found.before[-1], 2001)])
    )
    d = np.array([np.interp(grid, found.before, row) for row in found.step])
    mean = d.mean(0)
    falls = np.flatnonzero((mean[:-1] >= 0) & (mean[1:] < 0))
    if not len(falls):
        return FixedPoint(nan, nan, nan, n)
    i = int(falls[0])
    value = float(grid[i] + (grid[i + 1] - grid[i]) * mean[i] / (mean[i] - mean[i + 1]))
    if n < 2:
        return FixedPoint(value, nan, nan, n)
    moves = np.abs(mean) > stats.t.ppf(0.5 + LEVEL / 2, n - 1) * d.std(0, ddof=1) / np.sqrt(n)
    below, above = np.flatnonzero(moves & (grid < value)), np.flatnonzero(moves & (grid > value))
    return FixedPoint(
        value,
        float(grid[below[-1]]) if len(below) else -np.inf,
        float(grid[above[0]]) if len(above) else np.inf,
        n,
    )


def fixed_points(parts: Mapping[str, Any]) -> pd.DataFrame:
    """The level of rest of shares and of contrasts in every setting: setting, of, value, low, high,
    n, says."""
    rows = []
    for setting, table in transfer_table(parts).groupby("setting", sort=False):
        for what in ("share", "contrast"):
            rest = fixed_point(transfer_map(table, what))
            rows.append((setting, what, rest.value, rest.low, rest.high, rest.n, str(rest)))
    return pd.DataFrame(rows, columns=["setting", "of", "value", "low", "high", "n", "says"])


# ---- What the map predicts -----------------------------------------------------------------------


def predicted_shares(
    found: TransferMap, start: np.ndarray, e: Any, generations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of later training sets and batches, if every generation does to its pool what one did
    to the start.

    s_t the share of the favoured cells in pool t, b_t = f(s_t) that in batch t, c_t its share of
    images with a clear group, q images in a batch, of them r fresh real ones. The protocol says
    which parts are in the pool; their images are counted:

        s_{t+1} = (n s_0 + sum_i [(q - r) c_i b_i + r s_0]) / (n + sum_i [(q - r) c_i + r])

    with the start where it stays and i over all batches or the newest. A uniform draw of it
    (`subsample`) keeps the mean.

    start    (n_seeds,) float   share in the start of each seed
    e        Experiment         its protocol, n_real, n_batch, n_fresh
    returns  pools (n_seeds, generations + 1), batches (n_seeds, generations); nan from where a pool
             leaves the assigned levels
    """
    protocol, fresh = PROTOCOLS[e.protocol], float(e.n_fresh)
    pools, batches, parts = [start], [], []
    for _ in range(generations):
        batch = found.after(pools[-1])
        images = (e.n_batch - fresh) * found.visible(pools[-1])
        batches.append(batch)
        parts.append((images * batch + fresh * start, images + fresh))
        kept = [(e.n_real * start, np.full_like(start, e.n_real))] if protocol.start else []
        kept += parts if protocol.batches == "all" else parts[-1:]
        pools.append(sum(hits for hits, _ in kept) / sum(size for _, size in kept))
    return np.stack(pools, 1), np.stack(batches, 1).reshape(len(start), generations)


def held_out(parts: Mapping[str, Any], others: Iterable[Any]) -> pd.DataFrame:
    """Shares of batches after generation 0, measured and as the one-step maps predict them; the map
    has not seen them.

    parts    variants at several levels, see `by_level`; their generation 0 makes the maps
    others   Results whose experiments have the same data, sizes and generator, later generations
             and any protocol but `balanced` and `performative`, under which the shares of real
             images are not those of the start
    returns  setting, protocol, ratio, bias, seed, generation (from 1), start, predicted, unchanged
             (the share that generation 0 made: what no further change predicts), measured; each
             seed by its own map
    """
    rows: list[tuple] = []
    outcomes = [
        o
        for results in others
        for o in results.of("generated")
        if o.experiment.start == "biased"
        and len(o.batches) > 1
        and not PROTOCOLS[o.experiment.protocol].balanced
        and not PROTOCOLS[o.experiment.protocol].feedback
    ]
    for setting, levels in by_level(parts).items():
        table = one_step(levels)
        transfer = transfer_map(table)
        seeds = sorted(table.seed.unique())
        wanted, seen = _of_the_map(next(iter(levels.values())).of("generated")[0].experiment), set()
        for o in outcomes:
            experiment = o.experiment
            if (
                experiment.seed not in seeds
                or experiment.id in seen
                or _of_the_map(experiment) != wanted
            ):
                continue
            seen.add(experiment.id)
            i = seeds.index(experiment.seed)
            own = TransferMap(transfer.before, transfer.step[i : i + 1], transfer.clear)
            start, measured = favoured_part(o.counts, o.favoured), favoured_shares(o)
            _, batches = predicted_shares(own, np.array([start]), experiment, len(o.batches))
            rows += [
                (
                    setting,
                    experiment.protocol,
                    experiment.ratio,
                    experiment.bias,
                    experiment.seed,
                    t,
                    start,
                    batches[0, t],
                    measured[0],
                    measured[t],
                )
                for t in range(1, len(measured))
            ]
    return pd.DataFrame(
        rows,
        columns=[
            "setting",
            "protocol",
            "ratio",
            "bias",
            "seed",
            "generation",
            "start",
            "predicted",
            "unchanged",
            "measured",
        ],
    )


def _of_the_map(e: Any) -> dict[str, Any]:
    """What a one-step map of shares depends on."""
    return {name: getattr(e, name) for name in _OF_THE_MAP} | {"options": e.resolved("generator")}


def prediction_errors(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of measured minus predicted share, with its 95 % t interval, in every
    held-out generation.

    table    of `held_out`
    returns  setting, protocol, ratio, bias, generation, n, measured, predicted, error, low, high,
             error_unchanged (of the prediction that nothing changes after generation 0); nan
             intervals with one seed
    """
    keys = ["setting", "protocol", "ratio", "bias", "generation"]
    rows = []
    for where, part in table.groupby(keys, sort=False):
        e = over_seeds((part.measured - part.predicted).to_numpy())
        rows.append(
            (
                *where,
                e.n,
                part.measured.mean(),
                part.predicted.mean(),
                e.mean,
                e.low,
                e.high,
                (part.measured - part.unchanged).mean(),
            )
        )
    return pd.DataFrame(
        rows,
        columns=[*keys, "n", "measured", "predicted", "error", "low", "high", "error_unchanged"],
    )


# ---- Convergence across starts -------------------------------------------------------------------


def slopes_across_starts(levels: Mapping[float, Any], generation: int = -1) -> dict[str, Estimate]:
    """Do starts of different bias come together? The slope of M_T on M_0, with the assigned level z
    as instrument.

    slope(arm) = sum_s cov_l(z_l, M_T) / sum_s cov_l(z_l, M_0);   difference = slope(generated) -
    slope(none)

    Regressing M_T on a noisy M_0 gives slopes below 1 where nothing happens; the assigned level has
    no noise, and retraining alone (arm none) shares M_0 and the rest of the bias. difference < 0:
    starts come together; > 0: they part. Intervals are for new seeds and new test images (delta
    method, `two_way_interval`).

    levels   bias -> Results with the arms generated and none, the same seeds at each
    returns  generated, none, difference -> Estimate
    raises   ValueError   with fewer than two levels, or seeds that differ
    """
    if len(levels) < 2:
        raise ValueError(
            f"slopes across starts need at least two assigned levels; got {sorted(levels)}"
        )
    z = np.array(list(levels)) - np.mean(list(levels))
    seeds = {
        (level, arm): [o.experiment.seed for o in results.of(arm)]
        for level, results in levels.items()
        for arm in ("generated", "none")
    }
    if len({tuple(s) for s in seeds.values()}) > 1 or not next(iter(seeds.values())):
        raise ValueError(
            "slopes across starts need the arms generated and none with the same seeds at every "
            f"level; got {seeds}"
        )

    def moved(arm: str, t: int) -> np.ndarray:
        return np.sum(
            [
                zl
                * headline_weights(results.of(arm))
                * np.stack([right_of(o, t) for o in results.of(arm)])
                for zl, results in zip(z, levels.values(), strict=True)
            ],
            axis=0,
        )

    before = moved("none", 0)
    after = {arm: moved(arm, generation) for arm in ("generated", "none")}
    after["difference"] = after["generated"] - after["none"]
    first = next(iter(levels.values())).of("none")[0]
    return {name: _ratio(first, top, before) for name, top in after.items()}


def convergence_table(parts: Mapping[str, Any]) -> pd.DataFrame:
    """`slopes_across_starts` of every setting with the arm none: dataset, setting, slope (of the
    arms generated, none, their difference), value, low, high, p, n."""
    dataset = next(iter(parts.values())).outcomes[0].experiment.data_name if parts else ""
    rows = [
        (dataset, setting, name, e.mean, e.low, e.high, e.p, e.n)
        for setting, levels in by_level(parts).items()
        if all(results.of("none") for results in levels.values())
        for name, e in slopes_across_starts(levels).items()
    ]
    columns = ["dataset", "setting", "slope", "value", "low", "high", "p", "n"]
    return pd.DataFrame(rows, columns=columns)


def _ratio(o: Any, top: np.ndarray, bottom: np.ndarray) -> Estimate:
    """Estimate of mean(sum of top) / mean(sum of bottom), both (n_seeds, N) contributions of test
    images."""
    size = bottom.sum(1).mean()
    b = top.sum(1).mean() / size
    e = estimate_of(o, (top - b * bottom) / size)
    p = p_two_sided(b, e.se, e.df)
    return dataclasses.replace(
        e, mean=float(b), low=e.low + b, high=e.high + b, p=p, per_seed=e.per_seed + b
    )
