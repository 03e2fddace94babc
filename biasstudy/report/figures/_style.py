"""The style of all figures, what stands on them, and how they are saved."""

import io
import json
import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ...core.checks import listed, shown
from ...core.places import replacing, write_text
from ...experiment import PATHS
from ...inference.contrasts import HEADLINE
from ...inference.gate import UNFIT, gate
from ...loop.results import Results
from ...measures.fitness import RELIABLE

ARM_STYLE: dict[str, dict[str, Any]] = {
    "generated": {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    "real": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    "resample": {"color": "#CC79A7", "marker": "^", "linestyle": "-."},
    "none": {"color": "#555555", "marker": "D", "linestyle": ":"},
    "real-filtered": {"color": "#56B4E9", "marker": "v", "linestyle": (0, (4, 1, 1, 1))},
    "real-shares": {"color": "#009E73", "marker": "P", "linestyle": (0, (6, 2))},
    "rebalance": {"color": "#8C6D00", "marker": "X", "linestyle": (0, (3, 1))},
    "real-noise": {"color": "#7B4EA3", "marker": "h", "linestyle": (0, (1, 1.5))},
    "fewer": {"color": "#F0A030", "marker": "p", "linestyle": (0, (2, 2))},
    "shorter": {"color": "#A6761D", "marker": "<", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "noisier": {"color": "#666699", "marker": ">", "linestyle": (0, (3, 1, 1, 1))},
}
# arms whose results stand over generations; those of a path stand over its levels
OVER_GENERATIONS = {arm: style for arm, style in ARM_STYLE.items() if arm not in PATHS}
STYLE = {
    "figure.dpi": 80,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "lines.markersize": 4.5,
    "image.interpolation": "nearest",
}
WIDTH = 7.0  # inches: the text width of a one-column page
# of figures in a notebook: as wide as its column, on screens up to 1,920 pixels; for committed
# notebooks the variable below says less
COLUMN_DPI = 240
DPI_VARIABLE = "BIASSTUDY_FIGURE_DPI"
BAND: dict[str, Any] = {"color": "#d9d9d9", "alpha": 0.8, "linewidth": 0}

SIGNED = (HEADLINE, "relative-foreground-sensitivity")
LABELS = {
    "worst-group-accuracy": "worst-group accuracy",
    "accuracy-gap": "accuracy gap between groups",
    "equal-opportunity-mean": "mean gap within classes",
    "class-disparity-mean": "variance within classes, without noise",
    "adjusted-accuracy": "mean of group accuracies",
    HEADLINE: "accuracy contrast (signed)",
    "relative-foreground-sensitivity": "relative foreground sensitivity",
    **{
        f"ablated-{kind}-{how}": f"{kind}, {words}"
        for kind in ("accuracy", "confidence")
        for how, words in (
            ("grey-object", "object grey"),
            ("grey-box", "box of the object grey"),
            ("tile", "object tiled over"),
        )
    },
}


def use_style() -> None:
    """Set matplotlib to the style of this study."""
    for name, value in STYLE.items():
        mpl.rcParams[name] = value  # type: ignore[index]


def by_seed(table: pd.DataFrame, column: str = "value", index: str = "generation") -> pd.DataFrame:
    """Values of a column, a line of the figure in each column: one per seed."""
    return table.pivot(index=index, columns="seed", values=column)


def lines_of_seeds(axis: Any, lines: pd.DataFrame, label: str, **style: Any) -> None:
    """A thick line for the mean over seeds and, where there are several, a thin one for each.

    lines   of `by_seed`
    style   of the thick line, its color among it
    """
    if lines.shape[1] > 1:
        axis.plot(lines.index, lines, color=style["color"], linewidth=0.6, alpha=0.35)
    axis.plot(lines.index, lines.mean(axis=1), label=label, linewidth=1.7, **style)


def legend(figure: Figure, axes: Iterable[Any]) -> None:
    """One legend above all panels: whatever any of them labels, once, in rows of equal length."""
    handles = {
        name: handle
        for axis in axes
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if not handles:
        return
    rows = math.ceil(len(handles) / 5)
    columns = math.ceil(len(handles) / rows)
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=columns)


def chance_line(axis: Any, outcome: Any) -> None:
    """A line at the accuracy of guessing, 1 / number of classes; the legend says so."""
    axis.axhline(
        1 / len(outcome.classes),
        color="#000000",
        linewidth=0.9,
        linestyle=(0, (1, 3)),
        label="chance (1 / classes)",
    )


def zero_line(axis: Any, metric: str) -> None:
    """A line at 0 where a metric has a sign, and the line is what tells its sides apart."""
    if metric in SIGNED:
        axis.axhline(0, color="#999999", linewidth=0.8)


def is_accuracy(metric: str) -> bool:
    """Whether guessing would reach 1 / number of classes in it."""
    return metric == "accuracy" or metric.endswith("-accuracy") or "ablated-accuracy" in metric


def why_no_shares(results: Results) -> str:
    """Why shares of groups are not drawn, for a panel: the probe is not RELIABLE on real test
    images; empty if they may be."""
    known = [o.confusion for o in results.outcomes if o.confusion is not None]
    if not known:
        return ""
    right = float(np.mean([np.trace(c[:, :-1]) / c.sum() for c in known]))
    if right >= RELIABLE:
        return ""
    return (
        f"No shares of groups are drawn:\nthe probe that tells the group is wrong\non "
        f"{100 * (1 - right):.0f} % of real test images\n(more than a third)."
    )


def say_instead(axis: Any, why: str) -> None:
    """A panel that says why it is empty."""
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)


def only_words(why: str) -> Figure:
    """A figure that says why nothing is drawn. It has an axis: a notebook shows no figure without
    one."""
    figure, axis = plt.subplots(figsize=(WIDTH, 0.4 + 0.2 * len(why.splitlines())))
    axis.set_axis_off()
    say_instead(axis, why)
    return figure


def mark_of(results: Results, settings: Iterable[Results] = ()) -> str:
    """What must stand on every figure: where the numbers come from, how many seeds, the word smoke
    where it is due, whether the generators are fit, and what differs from the notebook's cell.

    settings   whose generators; default: these results are of one setting
    """
    seeds = len({o.experiment.seed for o in results.outcomes})
    first = results.outcomes[0]
    words = [
        first.experiment.data_name,
        first.caption,
        f"scale {first.scale}",
        f"n = {seeds} seed{'s' * (seeds > 1)}",
        _fitness(list(settings) or [results]),
        results.note,
        _changed(results),
    ]
    return " · ".join(w for w in dict.fromkeys(words) if w)  # a folder is its own caption


def _changed(results: Results) -> str:
    """What differs from the notebook's cell, in words; of many settings how many."""
    told = {k: v for k, v in results.settings.items() if k not in _SAID and v not in ({}, [])}
    if len(told) > MOST_TOLD:
        return f"{len(told)} settings not as in the notebook's cell: in the figure's JSON file"
    return listed(f"{k} {shown(v)}" for k, v in told.items())


_SAID = ("dataset", "scale", "n_seeds")  # settings that every mark names
MOST_TOLD = 4  # settings that a footer has room for


def _fitness(settings: list[Results]) -> str:
    """Which generators are not fit, in words; empty if all are, or nothing is known of them."""
    gates = [judged for judged in map(gate, settings) if judged]
    unfit = [judged for judged in gates if judged.word == UNFIT]
    if not unfit:
        return ""
    if len(gates) == 1:
        return f"generator not fit ({', '.join(unfit[0].missed)})"
    return f"{len(unfit)} of {len(gates)} generators not fit"


def is_unfit(results: Results) -> bool:
    """Whether the generators of one setting are known not to be fit: what they do is drawn
    hollow."""
    judged = gate(results)
    return judged is not None and judged.word == UNFIT


def signed(figure: Figure, text: str) -> Figure:
    """The figure with a small line below that says where its numbers come from."""
    # characters of this size that fit
    text = textwrap.fill(text, int(16 * figure.get_figwidth()), break_on_hyphens=False)
    figure.supxlabel(text, fontsize=7, color="#777777", x=0.99, ha="right")
    return figure


def compact(values: np.ndarray, dataset: Any) -> np.ndarray:
    """(n_classes, n_groups) as it is if crossed; else (n_classes, most groups of a class), the
    groups of a class side by side; where a class has fewer, nan, and 0 of whole numbers."""
    if dataset.design == "crossed":
        return values
    filled = 0 if values.dtype.kind in "iu" else np.nan
    side_by_side = np.full((len(values), dataset.occurs.sum(1).max()), filled, values.dtype)
    for row, of_class, occurs in zip(side_by_side, values, dataset.occurs, strict=True):
        row[: occurs.sum()] = of_class[occurs]
    return side_by_side


TRAINED = "trained here"  # how a figure was made that is of no reference and no table

GROUP_MARKERS = "osD^vPX*hp"
_NAMED = {
    "red": "#d1495b",
    "orange": "#d98324",
    "yellow": "#a08c00",
    "green": "#3c8d40",
    "mint": "#1f9e89",
    "cyan": "#1b9bc0",
    "blue": "#2f6fba",
    "indigo": "#5b57c9",
    "purple": "#8e4ec6",
    "pink": "#c64e9b",
}


def group_colors(groups: tuple[str, ...]) -> list[str]:
    fallback = [
        "#0072B2",
        "#D55E00",
        "#009E73",
        "#CC79A7",
        "#E69F00",
        "#56B4E9",
        "#F0E442",
        "#000000",
        "#999999",
        "#7F3C8D",
    ]
    return [_NAMED.get(name, fallback[i % 10]) for i, name in enumerate(groups)]


def packed(png: bytes, width: int = 0, smallest: bool = True) -> bytes:
    """A picture in 128 colours: a third of the bytes.

    The colours span those of the picture, so that the few coloured points of a grey figure stay
    what they are; a palette by how often colours occur makes one brown of them.

    png       an encoded picture
    width     in pixels: a wider one is made so wide; 0: it stays as it is
    smallest  the fewest bytes, which takes a second or two
    returns   an encoded PNG
    """
    picture, small = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    if 0 < width < picture.width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    palette = picture.quantize(
        128, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    )
    palette.save(small, "PNG", optimize=smallest)
    return small.getvalue()


def save(
    figure: Figure, table: pd.DataFrame, claim: str, name: str, results: Results, folder: Path
) -> list[str]:
    """Write name.png, .csv (what the figure draws), .json (its claim, where the numbers come from,
    and what differs from the notebook's cell) and, but at scale smoke, name.pdf.

    returns  the file names
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = figure.get_supxlabel(), _changed(results)
    line, changed = (" ".join(text.split()) for text in texts)
    if changed not in line:  # a picture of real data is drawn without results
        signed(figure, " · ".join(filter(None, (line, changed))))
    pictures = ("png",) if results.outcomes[0].scale == "smoke" else ("png", "pdf")
    for ending in pictures:
        with replacing(folder / f"{name}.{ending}") as file:
            figure.savefig(file, metadata={"CreationDate": None} if ending == "pdf" else {})
    write_text(folder / f"{name}.csv", table.to_csv(index=False))
    about = {
        "name": name,
        "claim": claim,
        "mark": mark_of(results),
        # "reference, processor, ..." of what ships, NOTE of predictions
        "made": results.note.partition(",")[0] or TRAINED,
        "settings": results.settings,
        "study": results.study,
    }
    write_text(folder / f"{name}.json", json.dumps(about, indent=1) + "\n")
    return [f"{name}.{ending}" for ending in (*pictures, "csv", "json")]
