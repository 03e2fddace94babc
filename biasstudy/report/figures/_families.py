"""Several variants of a study side by side. `parts` is what `Study.split` returns: results by the
name of the variant."""

from collections.abc import Collection, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...experiment import PATHS, PROTOCOLS
from ...inference.contrasts import CONTRASTS, HEADLINE, PARTS_OF_R, all_contrasts, decompose
from ...loop.results import Results
from ._curves import curve_table
from ._style import (
    ARM_STYLE,
    GROUP_MARKERS,
    LABELS,
    OVER_GENERATIONS,
    WIDTH,
    by_seed,
    chance_line,
    group_colors,
    is_accuracy,
    is_unfit,
    legend,
    lines_of_seeds,
    mark_of,
    say_instead,
    signed,
    use_style,
    why_no_shares,
    zero_line,
)

Variants = Mapping[str, Results]
CONTRAST_STYLE = {
    "A": ("#D55E00", "o"),
    "S": ("#CC79A7", "^"),
    "R": ("#0072B2", "s"),
    "F": ("#56B4E9", "v"),
}
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#8C6D00", "#56B4E9", "#000000")


# said in place of a signed contrast of an unbiased start: other seeds tell which half is better
NOT_RANKED = "one seed:\nnothing ranks\nits groups"
_IN_PANEL: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "#555555"}


def _mark(parts: Variants) -> str:
    first = next(iter(parts.values()))
    everything = Results(
        [o for results in parts.values() for o in results.outcomes],
        note=first.note,
        settings=first.settings,
    )
    return mark_of(everything, parts.values())


def _unfit(parts: Variants) -> set[str]:
    """Variants whose generators are not fit."""
    return {name for name, results in parts.items() if is_unfit(results)}


def _columns(parts: Variants) -> int:
    """Panels in a row: full rows where that is possible."""
    return next((n for n in (5, 4, 3, 2) if len(parts) % n == 0), min(3, len(parts)))


def _panels(parts: Variants, height: float) -> tuple[Figure, list[Any]]:
    """One panel per variant, named; the rest of the grid is empty."""
    use_style()
    columns = _columns(parts)
    rows = -(-len(parts) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.9 + height * rows), squeeze=False, sharex=True, sharey=True
    )
    for axis, name in zip(axes.flat, parts, strict=False):
        axis.set_title(name.replace(", ", "\n"), fontsize=8)
    for axis in axes.flat[len(parts) :]:
        axis.set_axis_off()
    return figure, list(axes.flat[: len(parts)])


def _stacked(rows: list[pd.DataFrame], names: Any) -> pd.DataFrame:
    return pd.concat(
        [table.assign(variant=name) for table, name in zip(rows, names, strict=True)],
        ignore_index=True,
    )


def grid(parts: Variants, metric: str = HEADLINE) -> tuple[Figure, pd.DataFrame]:
    """One metric over generations, a panel per variant, a line per arm; thin lines are seeds.

    metric   HEADLINE or a registered metric with one value
    returns  the figure and its table: variant, metric, arm, seed, generation, value
    """
    figure, axes = _panels(parts, 1.9)
    tables = [curve_table(results, (metric,)) for results in parts.values()]
    for axis, table in zip(axes, tables, strict=True):
        for arm, style in OVER_GENERATIONS.items():
            lines = by_seed(table[table.arm == arm])
            if not lines.empty:
                lines_of_seeds(axis, lines, arm, **style)
        zero_line(axis, metric)
        if metric == HEADLINE and table.value.isna().all():
            axis.text(0.5, 0.6, NOT_RANKED, **_IN_PANEL, transform=axis.transAxes)
        if is_accuracy(metric):
            chance_line(axis, next(iter(parts.values())).outcomes[0])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supylabel(LABELS.get(metric, metric), fontsize=9)
    for axis in axes[-_columns(parts) :]:
        axis.set_xlabel("generation")
    legend(figure, axes)
    return signed(figure, _mark(parts)), _stacked(tables, parts)


def plane(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """Accuracy against signed contrast, a panel per variant: the way of each arm from generation 0
    (open ring) to the last, of a path from level to level.

    Down is fairer, right is better. A small dot is one seed in the last generation. Paths go on
    outside: the panels show where the other arms are.

    returns  the figure and its table: variant, arm, seed, generation, accuracy, contrast
    """
    figure, axes = _panels(parts, 2.1)
    tables = []
    for axis, results in zip(axes, parts.values(), strict=True):
        table = curve_table(results, ("accuracy", HEADLINE), ARM_STYLE)
        wide = table.pivot(
            index=["arm", "seed", "generation"], columns="metric", values="value"
        ).reset_index()
        tables.append(wide.rename(columns={HEADLINE: "contrast"}))
        for arm, style in ARM_STYLE.items():
            rows = wide[wide.arm == arm]
            if rows.empty:
                continue
            way = rows.groupby("generation")[["accuracy", "headline"]].mean()
            last = rows[rows.generation == rows.generation.max()]
            axis.plot(
                last.accuracy, last.headline, ".", color=style["color"], alpha=0.3, markersize=3
            )
            # levels of a path are marked, of the others where they end
            marked = {} if arm in PATHS else {"markevery": [-1]}
            axis.plot(way.accuracy, way.headline, linewidth=1.3, label=arm, **style, **marked)
            axis.plot(
                way.accuracy.iloc[:1],
                way.headline.iloc[:1],
                "o",
                mfc="none",
                mec="#333333",
                markersize=9,
                zorder=5,
            )
        axis.axhline(0, color="#999999", linewidth=0.8)
    ways = pd.concat(tables)
    of_generations = ways[~ways.arm.isin(PATHS)]
    axes[0].set_xlim(*_around(of_generations.accuracy))
    axes[0].set_ylim(*_around(pd.concat([of_generations.contrast, pd.Series([0.0])])))
    figure.supylabel("accuracy contrast (signed)", fontsize=9)
    # a line there would leave no room for what differs
    chance = 1 / len(next(iter(parts.values())).outcomes[0].classes)
    end = "\n" if _columns(parts) > 4 else " "  # labels of narrow panels have two lines
    for axis in axes[-_columns(parts) :]:
        axis.set_xlabel(f"accuracy{end}(chance {chance:.2g})")
    legend(figure, axes)
    said = f"ring: generation 0 · dots: seeds in the last · {_mark(parts)}"
    return signed(figure, said), _stacked(tables, parts)


def _around(values: pd.Series) -> tuple[float, float]:
    """Limits of an axis that shows all these values, with a fifth of their span on both sides."""
    low, high = float(values.min()), float(values.max())
    room = 0.2 * (high - low) or 0.01
    return low - room, high + room


def forest(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """The contrasts of the last generation with their 95 % intervals, a row per variant.

    returns  the figure and its table: variant, contrast, control, mean, low, high, n
    """
    rows = [
        (name, key, CONTRASTS[key][1], d.mean, d.low, d.high, d.n)
        for name, results in parts.items()
        for key, d in all_contrasts(results).items()
    ]
    table = pd.DataFrame(
        rows, columns=["variant", "contrast", "control", "mean", "low", "high", "n"]
    )
    styles = {
        key: (*CONTRAST_STYLE[key], f"{key} = generated - {arms[1]}")
        for key, arms in CONTRASTS.items()
    }
    figure = intervals(
        table,
        "contrast",
        styles,
        "difference of accuracy contrasts in the last generation",
        hollow=_unfit(parts),
    )
    axis = figure.axes[0]
    for i, name in enumerate(parts):
        of_variant = table[table.variant == name]
        if len(of_variant) and of_variant["mean"].isna().all():
            at_the_row = axis.get_yaxis_transform()
            axis.text(0.5, i, NOT_RANKED.replace("\n", " "), **_IN_PANEL, transform=at_the_row)
    return signed(figure, _mark(parts)), table


def decomposition(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """What the difference between generated and real images is made of, a row per variant: see the
    module `decomposition`. Shares, quality and interaction add up to the total; label errors are a
    bound of their own.

    returns  the figure and its table: variant, part, mean, low, high, n
    """
    rows = [
        (name, key, d.mean, d.low, d.high, d.n)
        for name, results in parts.items()
        for key, d in decompose(results).items()
    ]
    table = pd.DataFrame(rows, columns=["variant", "part", "mean", "low", "high", "n"])
    says = {"total": "total (R)", "label errors": "label errors: a bound, no part of the sum"}
    styles = {
        part: (PALETTE[i], "osD^v"[i], says.get(part, part)) for i, part in enumerate(PARTS_OF_R)
    }
    what = "difference of accuracy contrasts from the arm real"
    figure = intervals(table, "part", styles, what, hollow=_unfit(parts))
    return signed(figure, _mark(parts)), table


def intervals(
    table: pd.DataFrame,
    column: str,
    styles: Mapping[str, tuple],
    what: str,
    row: str = "variant",
    hollow: Collection[str] = (),
) -> Figure:
    """Means of `what` with intervals; where the table has a floor, a hollow mark beside each.

    styles  colour, marker and legend of each value of the column
    row     column whose values are the rows of the figure
    hollow  rows whose marks are hollow: their generators are not fit
    """
    use_style()
    parts = list(dict.fromkeys(table[row]))
    shown = [key for key in styles if key in set(table[column])]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + max(0.42, 0.15 * len(shown)) * len(parts)))
    for i, key in enumerate(shown):
        rows = table[table[column] == key]
        color, marker, label = styles[key]
        at = np.array([parts.index(v) for v in rows[row]]) + min(0.18, 0.7 / len(shown)) * (
            i - (len(shown) - 1) / 2
        )
        off = np.nan_to_num(np.stack([rows["mean"] - rows.low, rows.high - rows["mean"]]))
        axis.errorbar(
            rows["mean"],
            at,
            xerr=off,
            fmt=marker,
            color=color,
            capsize=2,
            markersize=4,
            label=label,
        )
        within = rows[row].isin(hollow).to_numpy()
        axis.plot(
            rows["mean"][within],
            at[within],
            marker,
            color=color,
            markerfacecolor="white",
            markersize=4,
            zorder=3,
        )
        if "floor" in table:
            axis.plot(
                rows.floor,
                at,
                marker,
                color=color,
                markerfacecolor="white",
                markersize=6,
                zorder=1,
                label=f"floor of {key}",
            )
    axis.axvline(0, color="#666666", linewidth=0.9)
    axis.set_yticks(range(len(parts)), [name or "this study" for name in parts])
    axis.set_ylim(len(parts) - 0.5, -0.5)
    spread = "95 % interval" if table.low.notna().any() else "no interval"
    if (table.n == 1).all():
        spread = "one seed: no interval"
    meant = "\nhollow: generator not fit" if table[row].isin(hollow).any() else ""
    axis.set_xlabel(f"{what}, {spread}{meant}")
    figure.legend(loc="outside upper left", ncols=2 if len(shown) < 5 else len(shown))
    return figure


def acceptance(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """How often a filter accepts generated images of each probed group, a panel per variant with a
    filter.

    returns  the figure and its table: variant, seed, generation, group, acceptance, n
    raises   ValueError   if no variant has a filter
    """
    rows = []
    for name, results in parts.items():
        acceptances = results.table.query(
            "metric == 'acceptance' and arm == 'generated' and group.notna()"
        )
        rows += [
            (name, *row)
            for row in acceptances[["seed", "generation", "group", "value", "n"]].itertuples(
                index=False
            )
        ]
    table = pd.DataFrame(
        rows, columns=["variant", "seed", "generation", "group", "acceptance", "n"]
    )
    if table.empty:
        raise ValueError("no variant has a filter: nothing was accepted or rejected")
    figure, axes = _panels({name: parts[name] for name in parts if name in set(table.variant)}, 2.0)
    for axis, (_, variant_rows) in zip(axes, table.groupby("variant", sort=False), strict=True):
        groups = tuple(dict.fromkeys(variant_rows.group))
        for g, (group, color) in enumerate(zip(groups, group_colors(groups), strict=True)):
            lines = by_seed(variant_rows[variant_rows.group == group], "acceptance")
            lines_of_seeds(axis, lines, group, color=color, marker=GROUP_MARKERS[g % 10])
        axis.set_xticks(sorted(variant_rows.generation.unique()))
        axis.set_xlabel("made in generation")
    figure.supylabel("share accepted", fontsize=9)
    legend(figure, axes)
    return signed(figure, _mark(parts)), table


def pool_table(parts: Variants) -> pd.DataFrame:
    """Images in the training set of each generation of the arm `generated`, by variant: all of
    them, and the real ones, of the first seed; "about" where the protocol draws them at random and
    these results do not hold what was drawn, "?" where then nothing is known."""
    rows = {}
    for name, results in parts.items():
        o = results.of("generated")[0]
        for t, pool in enumerate(o.in_pools()):
            rows[name, f"generation {t}"] = (
                f"{pool.sum()}" if t == 0 else f"{pool.sum()} ({_real_images(o, t)})"
            )
    return pd.Series(rows).unstack().reindex(list(parts)).rename_axis("images (of them real)")


def _real_images(o: Any, t: int) -> str:
    """Real images in the pool of generation t > 0: as stored, else by bookkeeping of what the
    protocol keeps."""
    if o.origins is not None:
        start, reserve, _ = o.origins[t]
        return str(start + reserve)
    e, n_real = o.experiment, int(o.in_start().sum())
    protocol = PROTOCOLS[e.protocol]
    if protocol.balanced:
        return "?"
    batch_sizes = [len(batch["label"]) for batch in o.batches[:t]]
    batch_sizes = batch_sizes if protocol.batches == "all" else batch_sizes[-1:]
    real = (n_real if protocol.start else 0) + len(batch_sizes) * e.n_fresh
    kept = real + sum(batch_sizes)
    if protocol.drawn and kept > n_real:
        return f"about {round(n_real * real / kept)}"
    return str(real)


BATCH_METRICS = (
    "label-agreement",
    "clear-share",
    "favoured-share",
    "kid",
    "kid-gap",
    "precision",
    "recall",
    "copied-share",
)


def batch_table(parts: Variants, metrics: tuple[str, ...] = BATCH_METRICS) -> pd.DataFrame:
    """Quality and shares of what the generators make, means over seeds: by variant and metric, a
    column per generation."""
    tables = {
        name: results.table.query(
            "measured_on == 'batch' and arm == 'generated' and label.isna() and group.isna()"
        )
        for name, results in parts.items()
    }
    table = pd.concat(tables, names=["variant"]).reset_index("variant")
    table = table[table.metric.isin(metrics)]
    return table.pivot_table(
        index=["variant", "metric"], columns="generation", values="value", sort=False
    )


def share_and_accuracy(
    results: Results, arms: tuple[str, ...] = ("generated", "real")
) -> tuple[Figure, pd.DataFrame]:
    """Share of each group in its class in the training set against the accuracy of that cell, in
    generation 0 and the last.

    returns  the figure and its table: arm, generation, class, group, share, accuracy: means over
             seeds
    """
    use_style()
    rows = []
    for arm in arms:
        outcomes = results.of(arm)
        for t in [0, len(outcomes[0].predicted) - 1] if outcomes else []:
            pools = [
                pools[t, :, :-1] / np.maximum(pools[t].sum(1, keepdims=True), 1)
                for pools in (o.in_pools() for o in outcomes)
            ]
            accuracy = [o.cell_accuracy(t) for o in outcomes]
            o = outcomes[0]
            rows += [
                (
                    arm,
                    t,
                    outcome.experiment.seed,
                    o.classes[y],
                    o.groups[g],
                    pool[y, g],
                    right[y, g],
                )
                for outcome, pool, right in zip(outcomes, pools, accuracy, strict=True)
                for y, g in np.argwhere(o.occurs)
            ]
    table = pd.DataFrame(
        rows, columns=["arm", "generation", "seed", "class", "group", "share", "accuracy"]
    )
    figure, axes = plt.subplots(
        1, len(arms), figsize=(WIDTH, 2.8), sharex=True, sharey=True, squeeze=False
    )
    why = why_no_shares(results)
    for axis, arm in zip(axes[0], arms, strict=True):
        axis.set_title(f"arm {arm}")
        if why:
            say_instead(axis, why)
            continue
        for t, marker, color in zip(
            sorted(set(table.generation)), "o^", ("#888888", ARM_STYLE[arm]["color"]), strict=False
        ):
            cells = table[(table.arm == arm) & (table.generation == t)]
            axis.plot(cells.share, cells.accuracy, ".", color=color, alpha=0.25, markersize=3)
            binned = cells.groupby(pd.cut(cells.share, np.linspace(0, 1, 11)), observed=True)[
                ["share", "accuracy"]
            ].mean()
            axis.plot(
                binned.share, binned.accuracy, "-" + marker, color=color, label=f"generation {t}"
            )
        axis.set_xlabel("share of the group in its class")
        axis.legend()
    # a line there would leave no room for what differs
    axes[0][0].set_ylabel(
        f"accuracy of the cell (chance {1 / len(results.outcomes[0].classes):.2g})"
    )
    said = f"dots: cells of one seed · marks: means by tenths of the share · {mark_of(results)}"
    return signed(figure, said), table
