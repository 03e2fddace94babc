"""Where bias is going: transfer maps, what they predict, and why no series is fitted to its own
past."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...inference.conjecture import SERIES, Judgement, naive_study
from ...inference.dynamics import fixed_point, prediction_errors, transfer_map, transfer_table
from ...inference.verdicts import with_interval
from ._families import PALETTE, Variants, _mark
from ._style import ARM_STYLE, WIDTH, only_words, signed, use_style


def transfer(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """The transfer map: what one generation makes of an assigned bias. On the diagonal a generation
    changes nothing; where a line crosses it from above, bias would come to rest: a ring, with its
    interval as a bar on the diagonal. An interval beyond the levels on either side locates nothing
    and is not drawn; at the lowest level everything is at rest by symmetry.

    parts    variants with starts `biased` at several levels of bias, in one or more settings
    returns  the figure and its table, see `dynamics.transfer_table`
    """
    use_style()
    table = transfer_table(parts)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    for axis, what, title in zip(
        axes, ("share", "contrast"), ("share of favoured cells", "accuracy contrast"), strict=True
    ):
        before, after = f"{what}_before", f"{what}_after"
        for (setting, rows), color in zip(
            table.groupby("setting", sort=False), PALETTE, strict=False
        ):
            means = rows.groupby("assigned")[[before, after]].mean()
            axis.plot(rows[before], rows[after], ".", color=color, alpha=0.35, markersize=3)
            axis.plot(means[before], means[after], "-o", color=color, label=str(setting))
            rest = fixed_point(transfer_map(rows, what))
            if means[before].min() < rest.low and rest.high < means[before].max():
                ends = [rest.low, rest.high]
                axis.plot(ends, ends, color=color, linewidth=5, alpha=0.3, solid_capstyle="butt")
                axis.plot(
                    rest.value, rest.value, "o", mfc="white", mec=color, markersize=7, zorder=5
                )
        low = float(table[[before, after]].min().min())
        high = float(table[[before, after]].max().max())
        axis.axline((low, low), (high, high), color="#999999", linewidth=0.8, linestyle="--")
        axis.set_title(title)
    axes[0].set_xlabel("in the start")
    axes[0].set_ylabel("in what the generator makes of it")
    axes[1].set_xlabel("of the classifier of generation 0")
    axes[1].set_ylabel("of generation 1")
    axes[0].legend()
    said = "small dots: seeds; a ring: a level of rest, with its interval"
    return signed(figure, f"{said} · {_mark(parts)}"), table


def predictions(table: pd.DataFrame, mark: str) -> tuple[Figure, pd.DataFrame]:
    """Shares of later batches as the one-step map predicts them, against what was measured; on the
    diagonal it is right.

    table    of `dynamics.held_out`
    mark     what stands under the figure
    returns  the figure and the table of `dynamics.prediction_errors`
    """
    use_style()
    errors = prediction_errors(table)
    if table.empty:
        why = "no experiment has the setting of a map and later generations: nothing is held out"
        return signed(only_words(why), mark), errors
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 3.3))
    for (name, rows), color in zip(
        table.groupby(["setting", "protocol"], sort=False), PALETTE, strict=False
    ):
        axis.plot(rows.predicted, rows.measured, ".", color=color, alpha=0.3, markersize=4)
        means = rows.groupby(["bias", "ratio", "generation"])[["predicted", "measured"]].mean()
        axis.plot(
            means.predicted, means.measured, "o", color=color, label=", ".join(map(str, name))
        )
    axis.axline((0.5, 0.5), slope=1, color="#999999", linewidth=0.8, linestyle="--")
    seen = table[["predicted", "measured"]].to_numpy()
    ends = np.nanmin(seen) - 0.02, np.nanmax(seen) + 0.02
    axis.set_xlim(ends)
    axis.set_ylim(ends)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlabel("share of favoured cells predicted")
    axis.set_ylabel("measured in later batches\n(small dots: seeds)")
    axis.legend()
    return signed(figure, mark), errors


def levels(judgements: Mapping[Any, Judgement], mark: str) -> tuple[Figure, pd.DataFrame]:
    """The evidence of a judgement: change at each assigned level of bias above 0, with its 95 %
    interval; drift asks that the lowest lies above 0 and the highest below, growth that all lie
    above. Grey bars: the margin of each level, a quarter of the bias that is there.

    judgements  (..., setting, contrast or share) -> Judgement, as of `Stored.judgements`
    returns     the figure and its table: setting, of, bias, change, low, high, margin, n, judgement
    """
    use_style()
    rows = [
        (
            ", ".join(name[:-1]),
            name[-1],
            level,
            c.a.mean,
            c.a.low,
            c.a.high,
            c.margin,
            c.a.n,
            j.word,
        )
        for name, j in judgements.items()
        for level, c in j.levels.items()
    ]
    table = pd.DataFrame(
        rows, columns=["setting", "of", "bias", "change", "low", "high", "margin", "n", "judgement"]
    )
    short = {", ".join(name[:-1]): name[-2] for name in judgements}  # without the study
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    titles = {
        "contrast": "A: accuracy contrast of classifiers,\ngenerated minus none",
        "share": "share of favoured cells,\nin the batch minus in the start",
    }
    for axis, (what, title) in zip(axes, titles.items(), strict=True):
        axis.axhline(0, color="#666666", linewidth=0.9)
        for i, (setting, setting_rows) in enumerate(
            table[table.of == what].groupby("setting", sort=False)
        ):
            off = np.abs(
                setting_rows[["low", "high"]].to_numpy().T - setting_rows.change.to_numpy()
            )
            at = setting_rows.bias + 0.008 * i
            margins = setting_rows.margin
            axis.vlines(at, -margins, margins, color="#dddddd", linewidth=6, zorder=0)
            axis.errorbar(
                at,
                setting_rows.change,
                yerr=off,
                fmt="-o",
                color=PALETTE[i % len(PALETTE)],
                capsize=2,
                label=f"{short[setting]}: {setting_rows.judgement.iloc[0]}",
            )
        axis.set_title(title)
        axis.set_xlabel("assigned bias (grey: margin)")
        if 0 < table[table.of == what].setting.nunique() <= 7:
            axis.legend(fontsize=7)
    return signed(figure, mark), table


def convergence(table: pd.DataFrame, mark: str) -> tuple[Figure, pd.DataFrame]:
    """Slopes of the last contrast on the first: generated below none, starts come together; above,
    they part.

    table    rows of `dynamics.convergence_table`, with a column study
    returns  the figure and the table
    """
    use_style()
    names = list(dict.fromkeys(zip(table.study, table.dataset, table.setting, strict=True)))
    words = [f"{dataset}\n{setting}" for _, dataset, setting in names]
    words = [
        f"{word} ({study})" if words.count(word) > 1 else word
        for word, (study, *_) in zip(words, names, strict=True)
    ]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.0 + 0.5 * max(1, len(names))))
    for i, arm in enumerate(("generated", "none")):
        slopes = table[table.slope == arm]
        at = np.array(
            [names.index(n) for n in zip(slopes.study, slopes.dataset, slopes.setting, strict=True)]
        ) + 0.16 * (2 * i - 1)
        off = np.abs(np.nan_to_num(slopes[["low", "high"]].to_numpy().T - slopes.value.to_numpy()))
        axis.errorbar(
            slopes.value,
            at,
            xerr=off,
            capsize=2,
            linestyle="none",
            color=ARM_STYLE[arm]["color"],
            marker=ARM_STYLE[arm]["marker"],
            label=arm,
        )
    axis.axvline(1, color="#666666", linewidth=0.9)
    for i, (study, dataset, setting) in enumerate(names):
        of_setting = (
            (table.study == study) & (table.dataset == dataset) & (table.setting == setting)
        )
        for d in table[of_setting & (table.slope == "difference")].itertuples():
            words[i] += f"\ndifference {with_interval(d.value, d.low, d.high, 2)}"
    axis.set_yticks(range(len(names)), words, fontsize=7.5)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("slope of the last contrast on the first, by assigned bias, 95 % interval")
    axis.legend()
    return signed(figure, mark), table


def naive(replicates: int = 2000) -> tuple[Figure, pd.DataFrame]:
    """Why no series is fitted to its own past: slopes b of M_{t+1} = a + b M_t on simulated series
    without any equilibrium.

    returns  the figure and its table: series, n, mean_b, low_b, high_b (95 % of series),
             equilibrium (share with b < 1)
    """
    use_style()
    fits, t = naive_study(replicates), np.arange(9.0)
    figure, axes = plt.subplots(2, len(SERIES), figsize=(WIDTH, 3.6), sharex="row", sharey="row")
    rng, rows = np.random.default_rng(1), []
    for (name, truth), (above, below) in zip(SERIES.items(), axes.T, strict=True):
        above.plot(
            t,
            (truth(t) + rng.standard_normal((12, len(t)))).T,
            color="#0072B2",
            linewidth=0.5,
            alpha=0.5,
        )
        above.plot(t, truth(t), color="#333333", linewidth=1.6)
        above.set_title(name)
        above.set_xlabel("generation")
        b = fits[fits.series == name].b
        below.hist(b, np.linspace(-1, 2, 61), color="#D55E00", alpha=0.7)
        below.axvline(1, color="#333333", linewidth=0.9, linestyle="--")
        share = float((b < 1).mean())
        below.set_title(f"b < 1 in {100 * share:.0f} % of series")
        below.set_xlabel("fitted b")
        rows.append((name, len(b), b.mean(), *np.quantile(b, [0.025, 0.975]), share))
    axes[0][0].set_ylabel("bias, in units of noise")
    axes[1][0].set_ylabel("series")
    table = pd.DataFrame(rows, columns=["series", "n", "mean_b", "low_b", "high_b", "equilibrium"])
    return signed(
        figure,
        f"simulated, {replicates} series each, T = 8; black: the truth; none has an equilibrium",
    ), table
