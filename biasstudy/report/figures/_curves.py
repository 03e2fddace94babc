"""Metrics over generations: curves for every arm, and maps of the accuracy of cells."""

from collections.abc import Collection
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...inference.contrasts import HEADLINE, headline
from ...loop.results import Results
from ...measures.floors import floor_band
from ...measures.metrics import cells as cells_of
from ._style import (
    BAND,
    LABELS,
    OVER_GENERATIONS,
    WIDTH,
    by_seed,
    chance_line,
    compact,
    is_accuracy,
    legend,
    lines_of_seeds,
    mark_of,
    signed,
    use_style,
    zero_line,
)

# the worst of a hundred small groups is 0 whatever happens, so nested groups are compared within
# their classes
CURVES = {
    "crossed": ("accuracy", "worst-group-accuracy", "accuracy-gap", HEADLINE),
    "nested": ("accuracy", "equal-opportunity-mean", "class-disparity-mean", HEADLINE),
    "grouped": ("accuracy", "worst-group-accuracy", HEADLINE),
}
# positive by chance
FLOORED = (
    "worst-group-accuracy",
    "accuracy-gap",
    "equal-opportunity-mean",
    "equal-opportunity-max",
)


def curves(results: Results, metrics: tuple[str, ...] = ()) -> tuple[Figure, pd.DataFrame]:
    """Metrics over generations, one panel each, for every arm; thin lines are seeds, thick ones
    their mean. The grey band of a gap is its floor: where one seed of the generated arm would lie
    if groups did not matter.

    metrics  names of scalar metrics; HEADLINE is the signed accuracy contrast of `inference`;
             default by design
    returns  the figure and its table: mean over seeds by metric, arm and generation
    """
    use_style()
    metrics = metrics or CURVES[results.outcomes[0].design]
    table = curve_table(results, metrics)
    columns = 2 if len(metrics) == 4 else len(metrics)
    lines_of_panels = -(-len(metrics) // columns)
    figure, axes = plt.subplots(
        lines_of_panels, columns, figsize=(WIDTH, 0.5 + 2.1 * lines_of_panels), squeeze=False
    )
    for axis, metric in zip(axes.flat, metrics, strict=True):
        if metric in FLOORED and results.outcomes[0].design != "grouped":
            band = floor_band(results.of("generated") or results.outcomes, metric)
            axis.fill_between(
                band.generation,
                band.low,
                band.high,
                label="if groups did not matter (95 %)",
                **BAND,
            )
        for arm, style in OVER_GENERATIONS.items():
            lines = by_seed(table[(table.metric == metric) & (table.arm == arm)])
            if not lines.empty:
                lines_of_seeds(axis, lines, arm, **style)
        axis.set_title(LABELS.get(metric, metric))
        axis.set_xlabel("generation")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        zero_line(axis, metric)
        if is_accuracy(metric):
            chance_line(axis, results.outcomes[0])
    legend(figure, axes.flat)
    return signed(figure, mark_of(results)), table


def curve_table(
    results: Results, metrics: tuple[str, ...], arms: Collection[str] = OVER_GENERATIONS
) -> pd.DataFrame:
    """Values of scalar metrics by metric, arm, seed and generation; the classifiers of a seed
    averaged.

    arms   default: without those of paths, whose levels are no generations
    """
    parts: list[Any] = []
    scalar = [m for m in metrics if m != HEADLINE]
    if scalar:
        values = results.table.query(
            "metric in @scalar and measured_on == 'classifier' and label.isna() and group.isna() "
            "and arm in @arms"
        )
        parts.append(
            values.groupby(["metric", "arm", "seed", "generation"], as_index=False).value.mean()
        )
    if HEADLINE in metrics:
        for arm in arms:
            outcomes = results.of(arm)
            if outcomes:
                for o, line in zip(outcomes, headline(outcomes), strict=True):
                    parts.append(
                        pd.DataFrame(
                            {
                                "metric": HEADLINE,
                                "arm": arm,
                                "seed": o.experiment.seed,
                                "generation": range(len(line)),
                                "value": line,
                            }
                        )
                    )
    return pd.concat(parts, ignore_index=True)


def cell_accuracy(results: Results, arm: str | None = None) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of every class (rows) and group (columns) in generation 0, and its change since, in
    every later one.

    arm      default: generated, or none where nothing was added
    returns  the figure and its table: accuracy per cell and generation, mean over seeds
    """
    use_style()
    arm = arm or ("generated" if results.of("generated") else "none")
    outcomes = results.of(arm)
    first = outcomes[0]
    n_t = len(first.predicted)
    means = np.stack([np.mean([o.cell_accuracy(t) for o in outcomes], axis=0) for t in range(n_t)])
    cells = np.stack([compact(m, first) for m in means])
    height = max(2.6, 1.1 + 0.2 * cells.shape[1])  # less, and the scales' numbers meet
    figure, axes = plt.subplots(
        1, n_t, figsize=(min(WIDTH, 1.5 + 1.9 * n_t), height), sharey=True, squeeze=False
    )
    chance = 1 / len(first.classes)
    limit = max(0.02, float(np.nanmax(np.abs(cells[1:] - cells[0]))))
    columns = (
        first.groups if first.design == "crossed" else [f"{i + 1}" for i in range(cells.shape[2])]
    )
    n = cells_of(first.label, first.predicted[0, 0], first.group, first.occurs)[1][first.occurs]
    # titles of narrow panels have two short lines
    named, end = ("gen.", "\n") if n_t > 3 else ("generation", " ")
    for t, axis in enumerate(axes[0]):
        values = cells[0] if t == 0 else cells[t] - cells[0]
        lowest = min(chance, float(np.nanmin(cells[0])))
        low, high = (lowest, 1.0) if t == 0 else (-limit, limit)
        shown = axis.imshow(
            values, aspect="auto", cmap="PuOr" if t else "cividis", vmin=low, vmax=high
        )
        axis.set_title(f"{named} {t}:{end}{'change' if t else 'accuracy'}")
        axis.set_xticks(
            range(len(columns)), columns, rotation=60 if first.design == "crossed" else 0
        )
        axis.set_yticks(range(len(first.classes)), first.classes)
        axis.grid(False)
        axis.tick_params(length=0)
        if t == 0 or t == n_t - 1:
            bar = figure.colorbar(shown, ax=axis, shrink=0.9, aspect=30, pad=0.03)
            if t == 0 and lowest < chance:
                bar.ax.axhline(chance, color="#ffffff", linewidth=1.5)
                bar.ax.axhline(chance, color="#000000", linewidth=1, linestyle=(0, (1, 1)))
    axes[0][0].set_ylabel("class")
    axes[0][0].set_xlabel("group" if first.design == "crossed" else "group within the class")
    rows = [
        (t, first.classes[y], first.groups[g], means[t, y, g])
        for t in range(n_t)
        for y, g in np.argwhere(first.occurs)
    ]
    table = pd.DataFrame(rows, columns=["generation", "class", "group", "accuracy"])
    said = f"arm {arm} · chance {chance:.2g}{', dotted' * bool(np.nanmin(cells[0]) < chance)}"
    sizes = " to ".join(map(str, dict.fromkeys((int(n.min()), int(n.max())))))
    said = f"{said} · {sizes} test images a cell · {mark_of(results)}"
    return signed(figure, said), table
