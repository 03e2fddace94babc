"""What batches are made of, against the start and against sampling alone."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...experiment import PROTOCOLS
from ...loop.results import Results
from ...measures.correction import favoured_share
from ...measures.drift import drift_band, has_formula
from ...measures.shares import favoured_part, told_counts
from ._style import (
    ARM_STYLE,
    BAND,
    GROUP_MARKERS,
    OVER_GENERATIONS,
    WIDTH,
    by_seed,
    group_colors,
    lines_of_seeds,
    mark_of,
    only_words,
    signed,
    use_style,
    why_no_shares,
)


def shares(results: Results) -> tuple[Figure, pd.DataFrame]:
    """What the batches are made of: share of the cells that a biased start favours, for every arm;
    and share of each group minus its share in the start, for the generated arm and the bootstrap.
    Grey: where one seed lies by sampling alone.

    Where the probe cannot tell the group, a sentence says so in place of the figure, and the table
    holds the start alone.

    returns  the figure and its table: share by arm, seed, generation (-1: the start) and group
    """
    use_style()
    results.outcomes[0].in_start()  # where nothing is known of batches, this says so
    share_rows = results.table[results.table.metric.isin(["group-share", "favoured-share"])]
    start = share_rows[share_rows.measured_on == "start"].assign(generation=-1)
    table = pd.concat([start, share_rows[share_rows.measured_on == "batch"]])
    columns = ["metric", "arm", "seed", "generation", "group", "value", "n"]
    arms = [arm for arm in OVER_GENERATIONS if arm != "none" and results.of(arm)]
    biased = results.outcomes[0].biased
    panels: list[str] = [arm for arm in ("generated", "resample", "real") if arm in arms]
    panels = ["favoured", *panels[:2]] if biased else panels
    nothing = "" if arms else "ratio 0: nothing was added to any training set"
    if why := nothing or why_no_shares(results):
        told = table[table.measured_on == "start"]
        return signed(only_words(why), mark_of(results)), told[columns].reset_index(drop=True)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.3), squeeze=False)
    # the start is counted; where a probe that errs sees the batches, no line joins the two
    joined = results.outcomes[0].confusion is None
    for axis, panel in zip(axes[0], panels, strict=True):
        if panel == "favoured":
            _drift(axis, results.of(arms[0]), "favoured-share")
            _favoured(axis, table[table.metric == "favoured-share"], arms, joined)
        else:
            _drift(axis, results.of(panel), "group-share")
            _deviations(
                axis,
                table[(table.metric == "group-share") & (table.arm == panel)],
                results.outcomes[0].groups,
                joined,
            )
        axis.set_title(_title(panel))
        ticks = sorted(table[table.arm == arms[0]].generation.unique())
        axis.set_xticks(ticks, ["start" if t < 0 else str(t) for t in ticks])
        axis.set_xlabel("made in generation")
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.25),
            ncols=1 if len(results.outcomes[0].groups) > 10 else 2,
            fontsize=7,
            columnspacing=0.7,
            handlelength=1.3,
            handletextpad=0.4,
        )
    of_groups = [axis for axis, panel in zip(axes[0], panels, strict=True) if panel != "favoured"]
    if of_groups:
        lows, highs = zip(*(axis.get_ylim() for axis in of_groups), strict=True)
        plt.setp(of_groups, ylim=(min(lows), max(highs)))
    return signed(figure, mark_of(results)), table[columns].reset_index(drop=True)


def corrected_table(parts: Mapping[str, Results]) -> pd.DataFrame:
    """Share of the images in groups that the start favours, corrected for the errors of the probe:
    see `correction`.

    returns  variant, arm, seed, generation, start, raw, corrected, low, high, n; no rows where the
             probe does not err or the start favours nothing
    """
    columns = [
        "variant",
        "arm",
        "seed",
        "generation",
        "start",
        "raw",
        "corrected",
        "low",
        "high",
        "n",
    ]
    rows = []
    for name, results in parts.items():
        for o in results.outcomes:
            if o.confusion is None or not o.biased:
                continue
            start, shape = favoured_part(o.in_start(), o.favoured), o.occurs.shape
            for t, batch in enumerate(o.batches):
                told = told_counts(batch["label"], batch["group"], shape)
                raw = favoured_part(told[:, :-1] * o.occurs, o.favoured)
                estimate = favoured_share(told, o.confusion, o.occurs, o.favoured)
                rows.append(
                    (
                        name,
                        o.experiment.arm,
                        o.experiment.seed,
                        t,
                        start,
                        raw,
                        estimate.value,
                        estimate.low,
                        estimate.high,
                        estimate.n,
                    )
                )
    return pd.DataFrame(rows, columns=columns)


def _title(panel: str) -> str:
    if panel == "favoured":
        return "share of images in the cells\nthat the start favours"
    return f"shares of groups minus the\nstart's, arm {panel}"


def _drift(axis: Any, outcomes: list[Any], metric: str) -> None:
    """Grey band: where the share of one seed would lie by sampling alone; of group shares the
    widest, around the start's."""
    if not has_formula(PROTOCOLS[outcomes[0].experiment.protocol]):
        return
    band = drift_band(outcomes)
    band = band[band.metric == metric].assign(
        zero=0.0 if metric == "favoured-share" else lambda b: b.start
    )
    edges = band.assign(low=band.low - band.zero, high=band.high - band.zero).groupby("generation")
    axis.fill_between(
        list(edges.groups), edges.low.min(), edges.high.max(), label="sampling alone (95 %)", **BAND
    )


def _apart(lines: pd.DataFrame, joined: bool) -> pd.DataFrame:
    """Lines over generations, with a gap between the start (-1) and batch 0 unless they are
    joined."""
    if joined:
        return lines
    gap = pd.DataFrame(np.nan, index=[-0.5], columns=lines.columns)
    return pd.concat([lines, gap]).sort_index()


def _favoured(axis: Any, table: pd.DataFrame, arms: list[str], joined: bool) -> None:
    for arm in arms:
        lines = _apart(by_seed(table[table.arm == arm]), joined)
        lines_of_seeds(axis, lines, arm, **ARM_STYLE[arm])


def _deviations(axis: Any, table: pd.DataFrame, groups: tuple[str, ...], joined: bool) -> None:
    many = len(groups) > 10
    palette = ["#777777"] * len(groups) if many else group_colors(groups)
    for g, name in enumerate(groups):
        lines = by_seed(table[table.group == name])
        lines = _apart(lines - lines.loc[-1], joined)
        if many:
            label = f"each of {len(groups)} groups" if g == 0 else None
            axis.plot(lines.index, lines.mean(axis=1), color=palette[g], linewidth=0.6, label=label)
        else:
            lines_of_seeds(axis, lines, name, color=palette[g], marker=GROUP_MARKERS[g % 10])
    axis.axhline(0, color="#999999", linewidth=0.8)
