"""All settings at once, from the table of `summary.table_of_effects` or from stored results: across
data sets, by dose, and others."""

from collections.abc import Mapping
from itertools import cycle, product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...inference.contrasts import difference, headline
from ...inference.excess import NOT_BEYOND
from ...inference.gate import FIT, NO_FIT
from ...inference.verdicts import AMPLIFIED, CANNOT_TELL, QUARTER, REDUCED, TOO_FEW_SEEDS, WITHIN
from ...loop.results import Outcome, Results
from ...measures.quality import CLOSE, NAMES
from ..summary import SETTING, names_of, names_of_settings
from ._families import PALETTE
from ._style import ARM_STYLE, BAND, WIDTH, group_colors, mark_of, say_instead, signed, use_style

VERDICT_STYLE = {
    AMPLIFIED: ("#D55E00", "o"),
    REDUCED: ("#0072B2", "s"),
    WITHIN: ("#777777", "D"),
    CANNOT_TELL: ("#8C6D00", "^"),
    TOO_FEW_SEEDS: ("#BBBBBB", "v"),
}
FORMS = ("-o", "--s", ":^", "-.D", "-v", "--P", ":X", "-.p")  # of lines, each in every colour
NAMED_ROWS = 80  # settings that a figure can name, a line each


def effects(table: pd.DataFrame, mark: str) -> tuple[Figure, pd.DataFrame]:
    """The effect of adding generated images in every setting, with its 95 % interval, by data set,
    start, generator and classifier; colour and shape say the verdict, hollow where the generator
    is not fit.

    table    of `summary.table_of_effects`; with more than 80 settings, those of a data set stand in
             order of effect, unnamed
    mark     what stands under the figure
    returns  the figure and the rows it draws
    """
    use_style()
    few = len(table) <= NAMED_ROWS
    table = table.sort_values(
        ["dataset", "start", "bias", "generator", "A"] if few else ["dataset", "A"],
        kind="stable",
        ignore_index=True,
    )
    sizes = table.groupby("dataset", sort=False).size()
    height = (0.165 if few else 0.028) * len(table) + 0.5 * len(sizes) + 0.8
    figure, axes = plt.subplots(
        len(sizes),
        1,
        figsize=(WIDTH, height),
        squeeze=False,
        gridspec_kw={"height_ratios": [n + 1.2 for n in sizes]},
    )
    names = np.array([row.setting.removeprefix(f"{row.dataset}: ") for row in table.itertuples()])
    for axis, (dataset, settings) in zip(
        axes[:, 0], table.groupby("dataset", sort=False), strict=True
    ):
        at = np.arange(len(settings))
        axis.hlines(
            at, -settings.margin, settings.margin, color="#e4e4e4", linewidth=6 if few else 2
        )
        axis.axvline(0, color="#666666", linewidth=0.9)
        for (word, (color, marker)), is_fit in product(VERDICT_STYLE.items(), (True, False)):
            mask = ((settings.word == word) & ((settings.fit == FIT) == is_fit)).to_numpy()
            off = np.abs(settings[["A_low", "A_high"]].to_numpy().T - settings.A.to_numpy())[
                :, mask
            ]
            axis.errorbar(
                settings.A[mask],
                at[mask],
                xerr=off,
                fmt=marker,
                color=color,
                markerfacecolor=color if is_fit else "white",
                capsize=1.5 if few else 0,
                markersize=4 if few else 2.5,
                linewidth=1 if few else 0.6,
            )
        axis.set_yticks(at if few else [], names[settings.index] if few else [], fontsize=6.8)
        axis.set_ylim(len(settings) - 0.4, -0.6)
        axis.set_title(f"{dataset}, {len(settings)} setting{'s' * (len(settings) > 1)}")
        axis.grid(axis="y", visible=False)
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    scales = "; a scale for each data set" if len(sizes) > 1 else ""
    axes[-1, 0].set_xlabel(
        f"A, 95 % interval; hollow: generator not fit; grey: margin{scales}\n"
        "(words are of corrected tests; within: that of a 90 % interval)",
        loc="right",
    )
    words = [word for word in VERDICT_STYLE if (table.word == word).any()]
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=4, linewidth=1)
        for color, marker in map(VERDICT_STYLE.__getitem__, words)
    ]
    figure.legend(handles, words, loc="outside upper left", ncols=3, fontsize=7.5)
    return signed(figure, mark), table


def glance(table: pd.DataFrame, mark: str) -> tuple[Figure, pd.DataFrame]:
    """What adding generated images did to the bias, a row per setting: growth A / M(none) in
    percent with its 95 and 90 % intervals, the margin as a band, the verdict in words, the seeds,
    and whether later images decay. The words are those of corrected tests of A, and cannot always
    be read off the lines. Where no generator is fit, the row says so and has no point.

    table    a row per setting: data, setting (in words), growth, growth_low, growth_high,
             inner_low, inner_high, word, verdict, beyond, fit, decayed, n
    mark     what stands under the figure
    returns  the figure and its table, in percent
    """
    use_style()
    growth = ["growth", "growth_low", "growth_high", "inner_low", "inner_high"]
    table = table.assign(**{name: 100 * table[name] for name in growth})
    at, asked = np.arange(len(table)), (table.fit == FIT).to_numpy()
    settings = table[asked]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.42 * len(table) + 1.1))
    axis.axvspan(-100 * QUARTER, 100 * QUARTER, **BAND)
    axis.axvline(0, color="#666666", linewidth=0.9)
    color = "#0072B2"
    axis.hlines(at[asked], settings.growth_low, settings.growth_high, color=color, linewidth=1.2)
    axis.hlines(at[asked], settings.inner_low, settings.inner_high, color=color, linewidth=3.5)
    axis.plot(settings.growth, at[asked], "o", color=color, markersize=7)
    beside = axis.get_yaxis_transform()
    for y, row in enumerate(table.itertuples()):
        decay = ", later images decay" if row.decayed else ""
        only_lost = row.word == AMPLIFIED and row.beyond == NOT_BEYOND
        lost = ",\nnot beyond lost accuracy" if only_lost else ""
        says = f"{row.verdict}{lost}\n{row.n} seeds{decay}" if row.fit == FIT else NO_FIT
        axis.text(1.02, y, says, va="center", fontsize=8, transform=beside)
    names = [f"{row.data},\n{row.setting}" for row in table.itertuples()]
    axis.set_yticks(at, names, fontsize=8)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:+.0f} %" if x else "0")
    axis.set_xlabel(
        "growth of the accuracy contrast by generated images, A / M(none)\n"
        "(dot: mean; lines: 90 and 95 % intervals; grey: within a quarter)"
    )
    return signed(figure, mark), table


def dose(
    table: pd.DataFrame, parts: Mapping[str, Mapping[str, Any]], mark: str
) -> tuple[Figure, pd.DataFrame]:
    """A in the last generation against the ratio, and against the share of fresh real images:
    settings that differ in nothing else stand on a line; a lone setting is no dose.

    At fresh share 1 stands the arm `real` (fresh images alone) against `none`, at 0 the protocol
    `accumulate`.

    returns  the figure and its table: dose (ratio, fresh share), line (the setting), value, A, low,
             high, n, fit (whether the generators are)
    """
    use_style()
    rows = []
    for what in ("ratio", "fresh share"):
        field = "ratio" if what == "ratio" else "fresh_share"
        settings = (
            table
            if what == "ratio"
            else table[table.protocol.isin(["accumulate", "fresh"])].assign(
                fresh_share=lambda t: np.where(t.protocol == "fresh", t.fresh_share, 0.0),
                protocol="accumulate",
            )
        )
        keys = ["study", *(name for name in SETTING if name != field), "generation", "apart"]
        doses = [
            series.sort_values(field)
            for _, series in settings.groupby(keys, sort=False)
            if len(series) > 1
        ]
        lines = names_of(pd.concat([series.iloc[:1] for series in doses])) if doses else []
        for series, line in zip(doses, lines, strict=True):
            points = [(getattr(r, field), r.A, r.A_low, r.A_high, r.n) for r in series.itertuples()]
            results = parts[series.study.iloc[0]][series.variant.iloc[0]]
            if what == "fresh share" and results.of("real"):
                e = difference(results.of("real"), results.of("none"))
                points.append((1.0, e.mean, e.low, e.high, e.n))
            name, is_fit = f"{series.dataset.iloc[0]}, {line}", (series.fit == FIT).all()
            rows += [(what, name, *point, is_fit) for point in points]
    drawn = pd.DataFrame(rows, columns=["dose", "line", "value", "A", "low", "high", "n", "fit"])
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4), sharey=True)
    for axis, what in zip(axes, ("ratio", "fresh share"), strict=True):
        panel_points = drawn[drawn.dose == what]
        lines = panel_points.groupby("line", sort=False)
        # so that each interval is seen
        apart = 0.08 * (np.arange(len(lines)) - (len(lines) - 1) / 2) / max(len(lines), 2)
        for (line, line_points), (form, color), aside in zip(
            lines, cycle(product(FORMS, PALETTE)), apart, strict=False
        ):
            off = np.abs(line_points[["low", "high"]].to_numpy().T - line_points.A.to_numpy())
            axis.errorbar(
                line_points.value + aside,
                line_points.A,
                yerr=off,
                fmt=form,
                color=color,
                markerfacecolor=color if line_points.fit.all() else "white",
                capsize=2,
                linewidth=1.2,
                label=line,
            )
        axis.axhline(0, color="#666666", linewidth=0.9)
        axis.set_xlabel(
            "images per generation / real"
            if what == "ratio"
            else "share of fresh real images in a batch\n(at 1: the arm real, real minus none)"
        )
        if panel_points.empty:
            axis.text(
                0.5,
                0.5,
                f"no stored study varies\nthe {what} alone",
                ha="center",
                transform=axis.transAxes,
            )
            axis.set_xticks([])
        elif panel_points.line.nunique() <= 8:
            axis.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.3), handlelength=4)
    axes[0].set_ylabel("A in the last generation, 95 % interval\n(hollow: generator not fit)")
    return signed(figure, mark), drawn


def ways(
    table: pd.DataFrame, parts: Mapping[str, Mapping[str, Any]], mark: str
) -> tuple[Figure, pd.DataFrame]:
    """Accuracy and contrast of the arm `generated` minus those of `none`, over generations: the way
    of every setting from (0, 0). Up is more bias, left is less accuracy.

    table    of `summary.table_of_effects`
    returns  the figure and its table: setting (as other figures name it), dataset, fit, generation,
             accuracy, contrast (differences, means over seeds); none with too few seeds for a
             verdict
    """
    use_style()
    rows = []
    for row in table.itertuples():
        results = parts[row.study][row.variant]
        arms = results.of("generated"), results.of("none")
        if np.isnan(row.A) or len(arms[0]) != len(arms[1]) or row.word == TOO_FEW_SEEDS:
            continue  # nothing ranks the groups, or seeds lack an arm, or are too few for a verdict
        right = [np.mean([o.correct().mean((1, 2)) for o in arm], axis=0) for arm in arms]
        lines = [headline(arm).mean(0) for arm in arms]
        rows += [
            (row.setting, row.dataset, row.fit == FIT, t, a, c)
            for t, (a, c) in enumerate(zip(right[0] - right[1], lines[0] - lines[1], strict=True))
        ]
    columns = ["setting", "dataset", "fit", "generation", "accuracy", "contrast"]
    drawn = pd.DataFrame(rows, columns=columns)
    figure, axis = plt.subplots(figsize=(WIDTH * 0.7, 3.4))
    for (dataset, dataset_rows), color in zip(drawn.groupby("dataset"), PALETTE, strict=False):
        for _, way in dataset_rows.groupby("setting", sort=False):
            axis.plot(way.accuracy, way.contrast, color=color, linewidth=0.8, alpha=0.7)
            axis.plot(
                way.accuracy.iloc[-1:],
                way.contrast.iloc[-1:],
                "o",
                color=color,
                markerfacecolor=color if way.fit.all() else "white",
                markersize=3.5,
            )
        axis.plot([], [], "-o", color=color, markersize=3.5, label=dataset)
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.set_xlabel(
        "accuracy, generated minus none\n(mark: last generation; hollow: generator not fit)"
    )
    axis.set_ylabel("accuracy contrast, generated minus none")
    axis.legend()
    return signed(figure, mark), drawn


def calibration(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Calibration error of each group in the last generation, generated against none and real; a
    bar of groups where there are more than ten. It is positive by chance, equally in all arms.
    Results without confidences have none, and the panel says so.

    returns  the figure and its table: arm, group, error (mean over seeds and classifiers), sd (over
             seeds)
    """
    use_style()
    known = all(o.confidence is not None for o in results.outcomes)
    rows, arms = [], [arm for arm in ("generated", "real", "none") if known and results.of(arm)]
    for arm in arms:
        outcomes = results.of(arm)
        errors = np.stack(
            [
                np.mean([_per_group(o, r) for r in range(o.predicted.shape[1])], axis=0)
                for o in outcomes
            ]
        )
        rows += [
            (
                arm,
                group,
                errors[:, g].mean(),
                errors[:, g].std(ddof=1) if len(errors) > 1 else np.nan,
            )
            for g, group in enumerate(outcomes[0].groups)
        ]
    table = pd.DataFrame(rows, columns=["arm", "group", "error", "sd"])
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    if not known:
        say_instead(axis, "No calibration: these results keep no confidences.")
        return signed(figure, mark_of(results)), table
    groups = list(dict.fromkeys(table.group))
    for i, arm in enumerate(arms):
        arm_rows = table[table.arm == arm]
        if len(groups) > 10:
            axis.plot(
                np.sort(arm_rows.error)[::-1],
                np.arange(1, len(arm_rows) + 1) / len(arm_rows),
                label=arm,
                linewidth=1.4,
                color=ARM_STYLE[arm]["color"],
                linestyle=ARM_STYLE[arm]["linestyle"],
            )
        else:
            axis.errorbar(
                np.arange(len(groups)) + 0.15 * (i - 1),
                arm_rows.error,
                yerr=arm_rows.sd,
                capsize=2,
                linestyle="none",
                color=ARM_STYLE[arm]["color"],
                marker=ARM_STYLE[arm]["marker"],
                label=arm,
            )
    if len(groups) > 10:
        axis.set_xlabel("calibration error of a group")
        axis.set_ylabel("share of groups above")
    else:
        axis.set_xticks(range(len(groups)), groups)
        for tick, color in zip(axis.get_xticklabels(), group_colors(tuple(groups)), strict=True):
            tick.set_color(color)
        axis.set_ylabel("calibration error (bar: sd over seeds)")
        axis.set_ylim(0)
    axis.legend()
    return signed(figure, mark_of(results)), table


def _per_group(o: Outcome, r: int) -> list[float]:
    """Calibration error of each group in the last generation, by classifier r."""
    values = o.values("calibration-error", -1, r)
    return [v.value for v in values if v.group is not None]


def nearest(parts: Mapping[str, Mapping[str, Any]], mark: str) -> tuple[Figure, pd.DataFrame]:
    """Distance of generated images to their nearest training image over generations, as a ratio to
    that of held-out real images (1: as far as new real images are; below: copies), and the share
    that is as close as a copy.

    returns  the figure and its table: setting (in words; one that two studies hold stands once),
             generator, metric, generation, value (mean over seeds)
    """
    use_style()
    settings = names_of_settings(parts)
    rows: list[tuple] = []
    for study, variants in parts.items():
        for name, results in variants.items():
            values_by_metric: dict[tuple[str, int], list[float]] = {}
            for o in results.of("generated"):
                for t, q in enumerate(o.quality):
                    for metric, value, where in zip(
                        q["metric"], q["value"], q["where"], strict=True
                    ):
                        if NAMES[metric] in ("nearest-ratio", "copied-share") and (where < 0).all():
                            values_by_metric.setdefault((NAMES[metric], t), []).append(float(value))
            if not values_by_metric or settings[study, name] in {row[0] for row in rows}:
                continue
            generator = results.of("generated")[0].experiment.generator
            rows += [
                (settings[study, name], generator, *where, np.mean(values))
                for where, values in sorted(values_by_metric.items())
            ]
    table = pd.DataFrame(rows, columns=["setting", "generator", "metric", "generation", "value"])
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
    titles = {
        "nearest-ratio": "distance to the nearest training image\n/ that of held-out images",
        "copied-share": "share as close as a copy\n(line: of real images)",
    }
    for axis, (metric, label) in zip(axes, titles.items(), strict=True):
        for (generator, generator_rows), color, marker in zip(
            table[table.metric == metric].groupby("generator"), PALETTE, "osD^vP*", strict=False
        ):
            for i, (_, line) in enumerate(generator_rows.groupby("setting", sort=False)):
                axis.plot(
                    line.generation,
                    line.value,
                    f"-{marker}",
                    color=color,
                    linewidth=0.9,
                    markersize=3,
                    alpha=0.8,
                    label=generator if i == 0 else None,
                )
        axis.set_title(label, fontsize=8.5)
        axis.set_xlabel("made in generation")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, of_real in zip(axes, (1, CLOSE), strict=True):
        axis.axhline(of_real, color="#999999", linewidth=0.8)
    if len(table):
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, fontsize=7.5
        )
    return signed(figure, mark), table
