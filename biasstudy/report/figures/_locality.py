"""How far a generator looks: shares of groups against its window, beside those of patchworks."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...data.real import real_data
from ...inference.contrasts import all_contrasts
from ...loop.results import Results
from ...measures.patchwork import patchworks
from ...measures.shares import favoured_part, told_counts
from ._families import Variants, _mark
from ._style import WIDTH, signed, use_style

PREDICTED = 1000  # patchworks of each seed
STARTS = {"biased": ("#D55E00", "o"), "unbiased": ("#0072B2", "s")}
PANELS = {
    "favoured-share": "share of favoured cells\namong clear colours",
    "clear-share": "share of images with a\nclear colour",
    "A": "A: change of the\naccuracy contrast",
}


def locality(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """What the generator of generation 0 makes of the start, against its window, and the change of
    the accuracy contrast in the last generation; dashed: of patchworks of the same start
    (`patchworks`), which know nothing outside a window.

    parts    variants of local-score with one window (`largest` equal to `smallest`), on a data set
             whose groups can be told exactly
    returns  the figure and its table: start, window, metric, predicted, measured: means over seeds
    """
    use_style()
    rows = [row for results in parts.values() for row in _rows(results)]
    table = pd.DataFrame(rows, columns=["start", "window", "metric", "predicted", "measured"])
    windows = sorted(set(table.window))
    figure, axes = plt.subplots(1, len(PANELS), figsize=(WIDTH, 2.9))
    for axis, (metric, label) in zip(axes, PANELS.items(), strict=True):
        for start, (color, marker) in STARTS.items():
            line = table[(table.metric == metric) & (table.start == start)].sort_values("window")
            at = [windows.index(window) for window in line.window]
            if line.empty:
                continue
            axis.plot(at, line.measured, "-" + marker, color=color, label=f"{start}, measured")
            if metric != "A":
                axis.plot(
                    at,
                    line.predicted,
                    "--" + marker,
                    color=color,
                    markerfacecolor="none",
                    label=f"{start}, patchworks",
                )
        axis.set_xticks(range(len(windows)), windows)
        axis.set_xlabel("window (pixels)")
        axis.set_title(label)
    axes[-1].axhline(0, color="#999999", linewidth=0.8)
    handles, names = axes[0].get_legend_handles_labels()
    if names:  # at ratio 0 there are none
        figure.legend(handles, names, loc="outside upper left", ncols=4, fontsize=7.5)
    return signed(figure, _mark(parts)), table


def _rows(results: Results) -> list[tuple[str, int, str, float, float]]:
    """A row per metric of one variant."""
    experiments = [o.experiment for o in results.of("generated")]
    if not experiments:  # ratio 0: nothing is generated
        return []
    e = experiments[0]
    window = window_of(e.resolved("generator"))
    predicted = pd.DataFrame([_predicted(one, window) for one in experiments]).mean()
    batch = results.table.query(
        "measured_on == 'batch' and arm == 'generated' and generation == 0 and label.isna() "
        "and group.isna()"
    )
    measured = batch.groupby("metric").value.mean()
    contrasts: Mapping[str, Any] = all_contrasts(results)
    return [
        (e.start, window, metric, predicted[metric], measured.get(metric, np.nan))
        for metric in predicted.index
    ] + [(e.start, window, "A", np.nan, contrasts["A"].mean if "A" in contrasts else np.nan)]


def window_of(options: Mapping[str, Any]) -> int:
    """The one window of a local-score; ValueError if it has several, or it is another generator."""
    if options.get("window") != "linear" or options["largest"] != options["smallest"]:
        raise ValueError(
            "a figure against the window needs variants with one window each: generator "
            "local-score with window linear, largest equal to smallest; got options "
            f"{dict(options)}"
        )
    return int(options["largest"])


def _predicted(e: Any, window: int) -> dict[str, float]:
    """Shares of patchworks of the start, as the exact probe tells them."""
    real = real_data(e)
    start, probe = real.start.load(), real.dataset.probe
    if probe is None:
        raise ValueError(f"patchworks need groups that can be told exactly; got {e.dataset}")
    told = np.arange(PREDICTED) % real.dataset.n_classes
    group = probe(patchworks(start.images, start.label, told, window, e.seed))
    counts = told_counts(told, group, real.counts.shape)[:, :-1]
    biased = bool((real.favoured > 0).any())
    return {
        "favoured-share": favoured_part(counts, real.favoured) if biased else float("nan"),
        "clear-share": float((group >= 0).mean()),
    }
