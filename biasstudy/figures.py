"""Figures: results in, Figure out. One style for all; every figure is saved as PNG and PDF with the table it draws.

Arms have fixed colours and markers (Okabe-Ito, told apart in grey print by marker and dash). A thin line is one seed, a
thick one the mean over seeds.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .drift import drift_band
from .floors import floor_band
from .inference import headline
from .results import Results

ARM_STYLE: dict[str, dict[str, Any]] = {
    "generated": {"color": "#D55E00", "marker": "o", "linestyle": "-"},
    "real": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    "resample": {"color": "#CC79A7", "marker": "^", "linestyle": "-."},
    "none": {"color": "#555555", "marker": "D", "linestyle": ":"},
    "real-filtered": {"color": "#56B4E9", "marker": "v", "linestyle": (0, (4, 1, 1, 1))},
}
STYLE = {
    "figure.dpi": 80, "savefig.dpi": 200, "savefig.bbox": "tight", "font.size": 9, "axes.titlesize": 9.5,
    "axes.labelsize": 9, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8.5, "pdf.fonttype": 42,
    "figure.constrained_layout.use": True, "lines.markersize": 4.5, "image.interpolation": "nearest",
}
WIDTH = 7.0  # inches: the text width of a one-column page

LABELS = {"worst-group-accuracy": "worst-group accuracy", "accuracy-gap": "accuracy gap between groups",
          "equal-opportunity-mean": "mean gap within classes",
          "class-disparity-mean": "variance within classes, without noise", "adjusted-accuracy": "mean of group accuracies",
          "headline": "accuracy contrast (signed)"}


def use_style() -> None:
    """Set matplotlib to the style of this study."""
    for name, value in STYLE.items():
        mpl.rcParams[name] = value  # type: ignore[index]


def mark_of(results: Results) -> str:
    """What must stand on every figure: where the numbers come from, how many seeds, and the word smoke where it is due."""
    seeds = len({o.experiment.seed for o in results.outcomes})
    first = results.outcomes[0]
    standin = "stand-in data" if "standin" in first.experiment.dataset else ""
    words = [first.experiment.dataset, standin, f"scale {first.scale}", f"n = {seeds} seed{'s' * (seeds > 1)}", results.note]
    return " · ".join(w for w in words if w)


def _signed(figure: Figure, text: str) -> Figure:
    figure.supxlabel(text, fontsize=7, color="#777777", x=0.99, ha="right")
    return figure


# ---- Pictures --------------------------------------------------------------------------------------------------------

def _tile(rows: list[np.ndarray], pad: int = 1) -> np.ndarray:
    """Rows of equally many images (n, 3, H, W) uint8 as one picture (height, width, 3)."""
    lines = []
    for images in rows:
        padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=255)
        lines.append(np.concatenate(list(padded), axis=2))
    return np.concatenate(lines, axis=1).transpose(1, 2, 0)


def data_picture(real: Any, n_classes: int = 10) -> tuple[Figure, pd.DataFrame]:
    """One real image of each class (columns) and group (rows) beside the counts of the start.

    real     Draw
    returns  the figure and its table: images per class and group
    """
    use_style()
    source, start = real.source, real.start.load()
    shown = min(n_classes, source.n_classes)
    if source.design == "crossed":
        rows = [np.stack([_first(start, k, g) for k in range(shown)]) for g in range(source.n_groups)]
        names = source.groups
    else:
        members = [np.flatnonzero(source.occurs[k]) for k in range(shown)]
        rows = [np.stack([_first(start, k, member[i]) for k, member in enumerate(members)])
                for i in range(min(map(len, members)))]
        names = tuple(f"group {i + 1}" for i in range(len(rows)))
    size = start.images.shape[2] + 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.42 * len(rows) + 0.8))
    left.imshow(_tile(rows))
    turn = 0 if max(map(len, source.classes)) < 3 else 60
    left.set_xticks((np.arange(shown) + 0.5) * size, source.classes[:shown], rotation=turn)
    left.set_yticks((np.arange(len(rows)) + 0.5) * size, names)
    left.set_title("one real image per class and group")
    table = counts_table(real)
    counts = _compact(real.counts, source)
    right.imshow(counts[:shown].T, cmap="Greys", vmin=0, vmax=1.3 * counts.max())
    for (k, g), n in np.ndenumerate(counts[:shown]):
        right.text(k, g, n, ha="center", va="center", fontsize=6.5, color="white" if n > 0.75 * counts.max() else "black")
    right.set_xticks(range(shown), source.classes[:shown], rotation=turn)
    right.set_yticks([])
    right.set_title("images in the start")
    for axis in (left, right):
        axis.grid(False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return figure, table


def _first(images: Any, k: int, g: int) -> np.ndarray:
    found = np.flatnonzero((images.label == k) & (images.group == g))
    return images.images[found[0]] if len(found) else np.full(images.images.shape[1:], 235, np.uint8)


def _compact(values: np.ndarray, source: Any) -> np.ndarray:
    """(n_classes, n_groups) as it is if crossed; else (n_classes, groups per class), the groups of a class side by side."""
    if source.design == "crossed":
        return values
    return np.stack([row[occurs] for row, occurs in zip(values, source.occurs, strict=True)])


def counts_table(real: Any) -> pd.DataFrame:
    """Images of the start by class (rows) and group (columns, numbered within the class where groups are nested)."""
    counts = _compact(real.counts, real.source)
    columns = real.source.groups if real.source.design == "crossed" else [f"group {i + 1}" for i in range(counts.shape[1])]
    return pd.DataFrame(counts, index=pd.Index(real.source.classes, name="class"), columns=columns)


def samples(results: Results, real: Any, classes: int = 10) -> Figure:
    """Real images beside what the generator of each generation makes of equal noise; one row per class."""
    use_style()
    o = (results.of("generated") or results.outcomes)[0]
    per_class = len(o.grids[0]) // len(o.classes) if o.grids else 6
    start, shown, n_show = real.start.load(), min(classes, len(o.classes)), min(6, per_class)
    members = [np.flatnonzero(start.label == k) for k in range(shown)]
    first = [index[np.linspace(0, len(index) - 1, n_show).astype(int)] for index in members]  # from all groups
    blocks = [[start.images[index] for index in first]]
    blocks += [[grid[k * per_class: k * per_class + n_show] for k in range(shown)] for grid in o.grids]
    titles = ["real (the start)", *[f"made by generator {t}" for t in range(len(o.grids))]]
    columns = min(3, len(blocks))
    lines = -(-len(blocks) // columns)
    height = lines * WIDTH / columns * shown / n_show * 1.06
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, height), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, rows, title in zip(axes.flat, blocks, titles, strict=False):
        axis.imshow(_tile(rows))
        axis.set_title(title)
    return _signed(figure, mark_of(results))


# ---- Curves ----------------------------------------------------------------------------------------------------------

# the worst of a hundred small groups is 0 whatever happens, so nested groups are compared within their classes
CURVES = {"crossed": ("accuracy", "worst-group-accuracy", "accuracy-gap", "headline"),
          "nested": ("accuracy", "equal-opportunity-mean", "class-disparity-mean", "headline"),
          "grouped": ("accuracy", "worst-group-accuracy", "headline")}
FLOORED = ("worst-group-accuracy", "accuracy-gap", "equal-opportunity-mean", "equal-opportunity-max")  # positive by chance
BAND = {"color": "#d9d9d9", "alpha": 0.8, "linewidth": 0}


def curves(results: Results, metrics: tuple[str, ...] = ()) -> tuple[Figure, pd.DataFrame]:
    """Metrics over generations, one panel each, for every arm; thin lines are seeds, thick ones their mean. The grey band of a
    gap is its floor: where one seed of the generated arm would lie if groups did not matter.

    metrics  names of scalar metrics; "headline" is the signed accuracy contrast of `inference`; default by design
    returns  the figure and its table: mean over seeds by metric, arm and generation
    """
    use_style()
    metrics = metrics or CURVES[results.outcomes[0].design]
    table = curve_table(results, metrics)
    columns = 2 if len(metrics) == 4 else len(metrics)
    lines_of_panels = -(-len(metrics) // columns)
    figure, axes = plt.subplots(lines_of_panels, columns, figsize=(WIDTH, 0.5 + 2.1 * lines_of_panels), squeeze=False)
    floor = None
    for axis, metric in zip(axes.flat, metrics, strict=True):
        if metric in FLOORED and results.outcomes[0].design != "grouped":
            band = floor_band(results.of("generated") or results.outcomes, metric)
            floor = axis.fill_between(band.generation, band.low, band.high, label="if groups did not matter (95 %)", **BAND)
        for arm, style in ARM_STYLE.items():
            mine = table[(table.metric == metric) & (table.arm == arm)]
            lines = mine.pivot(index="generation", columns="seed", values="value")
            if lines.empty:
                continue
            if lines.shape[1] > 1:
                axis.plot(lines.index, lines, color=style["color"], linewidth=0.6, alpha=0.35)
            axis.plot(lines.index, lines.mean(axis=1), label=arm, linewidth=1.8, **style)
        axis.set_title(LABELS.get(metric, metric))
        axis.set_xlabel("generation")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if metric == "headline":
            axis.axhline(0, color="#999999", linewidth=0.8)
    handles, names = axes[0][0].get_legend_handles_labels()
    if floor is not None:
        handles, names = [*handles, floor], [*names, floor.get_label()]
    figure.legend(handles, names, loc="outside upper left", ncols=6, title=None)
    return _signed(figure, mark_of(results)), table


def curve_table(results: Results, metrics: tuple[str, ...]) -> pd.DataFrame:
    """Values of scalar metrics by metric, arm, seed and generation; the classifiers of a seed averaged."""
    parts: list[Any] = []
    scalar = [m for m in metrics if m != "headline"]
    if scalar:
        found = results.table.query("metric in @scalar and measured_on == 'classifier' and label.isna() and group.isna()")
        parts.append(found.groupby(["metric", "arm", "seed", "generation"], as_index=False).value.mean())
    if "headline" in metrics:
        for arm in ARM_STYLE:
            outcomes = results.of(arm)
            if outcomes:
                for o, line in zip(outcomes, headline(outcomes), strict=True):
                    parts.append(pd.DataFrame({"metric": "headline", "arm": arm, "seed": o.experiment.seed,
                                               "generation": range(len(line)), "value": line}))
    return pd.concat(parts, ignore_index=True)


# ---- Heat maps and shares --------------------------------------------------------------------------------------------

def cell_accuracy(results: Results, arm: str | None = None) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of every class (rows) and group (columns) in generation 0, and its change since, in every later one.

    arm      default: generated, or none where nothing was added
    returns  the figure and its table: accuracy per cell and generation, mean over seeds
    """
    use_style()
    arm = arm or ("generated" if results.of("generated") else "none")
    outcomes = results.of(arm)
    first = outcomes[0]
    n_t = len(first.predicted)
    means = np.stack([np.mean([o.cell_accuracy(t) for o in outcomes], axis=0) for t in range(n_t)])
    compact = np.stack([_compact(m, first) for m in means])
    height = 1.1 + 0.2 * compact.shape[1]
    figure, axes = plt.subplots(1, n_t, figsize=(min(WIDTH, 1.5 + 1.9 * n_t), height), sharey=True, squeeze=False)
    limit = max(0.02, float(np.nanmax(np.abs(compact[1:] - compact[0]))))
    columns = first.groups if first.design == "crossed" else [f"{i + 1}" for i in range(compact.shape[2])]
    for t, axis in enumerate(axes[0]):
        values = compact[0] if t == 0 else compact[t] - compact[0]
        low, high = (min(0.5, float(np.nanmin(compact[0]))), 1.0) if t == 0 else (-limit, limit)
        shown = axis.imshow(values, aspect="auto", cmap="PuOr" if t else "cividis", vmin=low, vmax=high)
        axis.set_title("generation 0: accuracy" if t == 0 else f"generation {t}: change")
        axis.set_xticks(range(len(columns)), columns, rotation=60 if first.design == "crossed" else 0)
        axis.set_yticks(range(len(first.classes)), first.classes)
        axis.grid(False)
        axis.tick_params(length=0)
        if t == 0 or t == n_t - 1:
            figure.colorbar(shown, ax=axis, shrink=0.9, aspect=30, pad=0.03)
    axes[0][0].set_ylabel("class")
    axes[0][0].set_xlabel("group" if first.design == "crossed" else "group within the class")
    rows = [(t, first.classes[y], first.groups[g], means[t, y, g]) for t in range(n_t) for y, g in np.argwhere(first.occurs)]
    table = pd.DataFrame(rows, columns=["generation", "class", "group", "accuracy"])
    return _signed(figure, f"arm {arm} · {mark_of(results)}"), table


def shares(results: Results) -> tuple[Figure, pd.DataFrame]:
    """What the batches are made of: share of the cells that a biased start favours, for every arm; and share of each group
    minus its share in the start, for the generated arm and the bootstrap. Grey: where one seed lies by sampling alone.

    returns  the figure and its table: share by arm, seed, generation (-1: the start) and group
    """
    use_style()
    found = results.table[results.table.metric.isin(["group-share", "favoured-share"])]
    start = found[found.measured_on == "start"].assign(generation=-1)
    table = pd.concat([start, found[found.measured_on == "batch"]])
    table = table[["metric", "arm", "seed", "generation", "group", "value", "n"]]
    arms = [arm for arm in ARM_STYLE if arm != "none" and results.of(arm)]
    biased = results.outcomes[0].biased
    panels: list[str] = [arm for arm in ("generated", "resample", "real") if arm in arms]
    panels = ["favoured", *panels[:2]] if biased else panels
    if not arms:
        figure = plt.figure(figsize=(WIDTH, 0.8))
        figure.text(0.5, 0.5, "ratio 0: nothing was added to any training set", ha="center", va="center")
        return _signed(figure, mark_of(results)), table.reset_index(drop=True)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.3), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        if panel == "favoured":
            _drift(axis, results.of(arms[0]), "favoured-share")
            _favoured(axis, table[table.metric == "favoured-share"], arms)
        else:
            _drift(axis, results.of(panel), "group-share")
            _deviations(axis, table[(table.metric == "group-share") & (table.arm == panel)], results.outcomes[0].groups)
            axis.set_title(f"shares of groups minus the\nstart's, arm {panel}")
        ticks = sorted(table[table.arm == arms[0]].generation.unique())
        axis.set_xticks(ticks, ["start" if t < 0 else str(t) for t in ticks])
        axis.set_xlabel("made in generation")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, fontsize=7, columnspacing=0.7, handlelength=1.3,
                    handletextpad=0.4)
    return _signed(figure, mark_of(results)), table.reset_index(drop=True)


def _drift(axis: Any, outcomes: list[Any], metric: str) -> None:
    """Grey band: where the share of one seed would lie by sampling alone; of group shares the widest, around the start's."""
    band = drift_band(outcomes)
    band = band[band.metric == metric].assign(zero=0.0 if metric == "favoured-share" else lambda b: b.start)
    edges = band.assign(low=band.low - band.zero, high=band.high - band.zero).groupby("generation")
    axis.fill_between(list(edges.groups), edges.low.min(), edges.high.max(), label="sampling alone (95 %)", **BAND)


def _favoured(axis: Any, table: pd.DataFrame, arms: list[str]) -> None:
    for arm in arms:
        lines, style = table[table.arm == arm].pivot(index="generation", columns="seed", values="value"), ARM_STYLE[arm]
        if lines.shape[1] > 1:
            axis.plot(lines.index, lines, color=style["color"], linewidth=0.6, alpha=0.35)
        axis.plot(lines.index, lines.mean(axis=1), label=arm, linewidth=1.8, **style)
    axis.set_title("share of images in the cells\nthat the start favours")


def _deviations(axis: Any, table: pd.DataFrame, groups: tuple[str, ...]) -> None:
    many = len(groups) > 10
    palette = ["#777777"] * len(groups) if many else _group_colors(groups)
    for g, name in enumerate(groups):
        lines = table[table.group == name].pivot(index="generation", columns="seed", values="value")
        lines = lines - lines.loc[-1]
        if lines.shape[1] > 1 and not many:
            axis.plot(lines.index, lines, color=palette[g], linewidth=0.6, alpha=0.4)
        axis.plot(lines.index, lines.mean(axis=1), color=palette[g], linewidth=0.6 if many else 1.6,
                  label=None if many else name, marker=None if many else "osD^vPX*hp"[g % 10])
    axis.axhline(0, color="#999999", linewidth=0.8)


_NAMED = {"red": "#d1495b", "orange": "#d98324", "yellow": "#a08c00", "green": "#3c8d40", "mint": "#1f9e89", "cyan": "#1b9bc0",
          "blue": "#2f6fba", "indigo": "#5b57c9", "purple": "#8e4ec6", "pink": "#c64e9b"}


def _group_colors(groups: tuple[str, ...]) -> list[str]:
    fallback = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000", "#999999", "#7F3C8D"]
    return [_NAMED.get(name, fallback[i % 10]) for i, name in enumerate(groups)]


# ---- Saving ----------------------------------------------------------------------------------------------------------

def save(figure: Figure, table: pd.DataFrame, claim: str, name: str, results: Results, folder: Path) -> list[str]:
    """Write name.png, .pdf, .csv (what the figure draws) and .json (its claim and where the numbers come from).

    returns  the file names
    """
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("png", "pdf"):
        figure.savefig(folder / f"{name}.{ending}", metadata={"CreationDate": None} if ending == "pdf" else {})
    table.to_csv(folder / f"{name}.csv", index=False)
    about = {"name": name, "claim": claim, "mark": mark_of(results), "made": "reference" if results.note else "trained here"}
    (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    return [f"{name}.{ending}" for ending in ("png", "pdf", "csv", "json")]
