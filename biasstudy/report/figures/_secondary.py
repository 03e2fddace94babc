"""Secondary metrics: what else changed, beside what it would be if groups did not matter."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...inference import secondary as _metrics
from ...inference.contrasts import CONTRASTS
from ...loop.results import Results
from ._families import CONTRAST_STYLE
from ._style import WIDTH, mark_of, signed, use_style


def secondary(results: Results) -> tuple[Figure, pd.DataFrame]:
    """The change of every secondary metric in the last generation with its 95 % interval, a row per
    metric; a hollow mark is its floor, the change if groups did not matter.

    results  of one setting, with both arms of the contrast A or R
    returns  the figure and its table, `inference.secondary.secondary`; refused metrics stand in the
             table alone
    raises   ValueError   if neither contrast has both arms
    """
    table = _metrics.secondary(results)
    drawn = table[table.refused == ""]
    metrics, contrasts = list(dict.fromkeys(drawn.metric)), list(dict.fromkeys(drawn.contrast))
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 1.1 + 0.34 * len(metrics)))
    for i, name in enumerate(contrasts):
        rows, (color, marker) = drawn[drawn.contrast == name], CONTRAST_STYLE[name]
        at = np.arange(len(metrics)) + 0.26 * (i - (len(contrasts) - 1) / 2)
        off = np.nan_to_num(np.stack([rows["mean"] - rows.low, rows.high - rows["mean"]]))
        axis.errorbar(
            rows["mean"],
            at,
            xerr=off,
            fmt=marker,
            color=color,
            capsize=2,
            markersize=4,
            label=f"{name} = generated - {CONTRASTS[name][1]}",
        )
        axis.plot(
            rows.floor,
            at,
            marker,
            color=color,
            markerfacecolor="white",
            markersize=6,
            zorder=1,
            label=f"floor of {name}",
        )
    axis.axvline(0, color="#666666", linewidth=0.9)
    axis.set_yticks(range(len(metrics)), metrics)
    axis.set_ylim(len(metrics) - 0.5, -0.5)
    interval = "95 % interval" if drawn.low.notna().any() else "one seed: no interval"
    axis.set_xlabel(f"change of the metric in the last generation, {interval}")
    figure.legend(loc="outside upper left", ncols=2)
    return signed(figure, mark_of(results)), table
