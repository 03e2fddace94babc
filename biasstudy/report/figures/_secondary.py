"""Secondary metrics: what else changed, beside what it would be if groups did not matter."""

import pandas as pd
from matplotlib.figure import Figure

from ...inference import secondary as _metrics
from ...inference.contrasts import CONTRASTS
from ...loop.results import Results
from ._families import CONTRAST_STYLE, intervals
from ._style import mark_of, signed


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
    styles = {
        name: (*CONTRAST_STYLE[name], f"{name} = generated - {CONTRASTS[name][1]}")
        for name in dict.fromkeys(drawn.contrast)
    }
    what = "change of the metric in the last generation"
    figure = intervals(drawn, "contrast", styles, what, row="metric")
    return signed(figure, mark_of(results)), table
