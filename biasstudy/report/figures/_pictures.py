"""Pictures of real and generated images."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...loop.results import Results
from ..shipped import PICTURES
from ._style import WIDTH, compact, mark_of, signed, use_style


def _tile(rows: list[np.ndarray], pad: int = 1) -> np.ndarray:
    """Rows of equally many images (n, 3, H, W) uint8 as one picture (height, width, 3)."""
    lines = []
    for images in rows:
        padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=255)
        lines.append(np.concatenate(list(padded), axis=2))
    return np.concatenate(lines, axis=1).transpose(1, 2, 0)


def data_picture(real: Any, n_classes: int = 10) -> tuple[Figure, pd.DataFrame]:
    """One real image of each class (columns) and group (rows) beside the counts of the start.

    real     RealData
    returns  the figure and its table: images per class and group
    """
    use_style()
    dataset, start = real.dataset, real.start.load()
    shown = min(n_classes, dataset.n_classes)
    if dataset.design == "crossed":
        rows = [
            np.stack([_first(start, k, g) for k in range(shown)]) for g in range(dataset.n_groups)
        ]
        names = dataset.groups
    else:
        members = [np.flatnonzero(dataset.occurs[k]) for k in range(shown)]
        rows = [
            np.stack([_first(start, k, member[i]) for k, member in enumerate(members)])
            for i in range(min(map(len, members)))
        ]
        names = tuple(f"group {i + 1}" for i in range(len(rows)))
    size = start.images.shape[2] + 2
    turn = 0 if max(map(len, dataset.classes)) < 3 else 60
    height = min(0.7, 0.4 * WIDTH / shown) * len(rows) + 0.8 + 0.008 * turn
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, height))
    left.imshow(_tile(rows))
    left.set_xticks((np.arange(shown) + 0.5) * size, dataset.classes[:shown], rotation=turn)
    left.set_yticks((np.arange(len(rows)) + 0.5) * size, names)
    left.set_title("one real image per class and group")
    table = counts_table(real)
    counts = compact(real.counts, dataset)
    right.imshow(counts[:shown].T, cmap="Greys", vmin=0, vmax=1.8 * counts.max())
    for (k, g), n in np.ndenumerate(counts[:shown]):
        right.text(
            k,
            g,
            n,
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if n > 0.95 * counts.max() else "black",
        )
    right.set_xticks(range(shown), dataset.classes[:shown], rotation=turn)
    right.set_yticks([])
    right.set_title("images in the start")
    for axis in (left, right):
        axis.grid(False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return signed(figure, dataset.caption) if dataset.caption else figure, table


def _first(images: Any, k: int, g: int) -> np.ndarray:
    indices = np.flatnonzero((images.label == k) & (images.group == g))
    return (
        images.images[indices[0]]
        if len(indices)
        else np.full(images.images.shape[1:], 235, np.uint8)
    )


def counts_table(real: Any) -> pd.DataFrame:
    """Images of the start by class (rows) and group (columns, numbered within the class where
    groups are nested)."""
    counts = compact(real.counts, real.dataset)
    columns = (
        real.dataset.groups
        if real.dataset.design == "crossed"
        else [f"group {i + 1}" for i in range(counts.shape[1])]
    )
    return pd.DataFrame(counts, index=pd.Index(real.dataset.classes, name="class"), columns=columns)


def _mean_share(outcomes: Sequence[Any], g: int, t: int | None = None) -> float:
    """Share of group g in the start, or in batch t among the images of which the probe sees the
    group; mean over seeds."""
    if t is None:
        return float(np.mean([o.in_start()[:, g].sum() / o.in_start().sum() for o in outcomes]))
    seen = [o.batches[t]["group"][o.batches[t]["group"] >= 0] for o in outcomes]
    return float(np.mean([np.mean(group == g) for group in seen]))


def samples(results: Results, real: Any = None, classes: int = 10, name: str = "") -> Figure:
    """Real images, if given, beside what the generator of each generation makes of equal noise; one
    row per class. Real ones are drawn at random from the start.

    The images are those of the first seed. Where the start favours one group in all classes, titles
    say which share of the start, and of each batch as the probe sees it, is of that group: means
    over seeds.

    real     RealData of the start of these results
    name     of the variant, above the pictures
    raises   ValueError   if these results were stored without images, or `real` is another start
    """
    use_style()
    outcomes = results.of("generated") or results.outcomes
    o = outcomes[0]
    per_class = len(o.grids[0]) // len(o.classes) if o.grids else PICTURES
    shown, n_show, blocks, titles = min(classes, len(o.classes)), min(PICTURES, per_class), [], []
    if real is not None:
        if not np.array_equal(real.counts, o.in_start()):
            raise ValueError("the real images are of another start than these results")
        start, rng = real.start.load(), np.random.default_rng(0)
        drawn = [rng.permutation(np.flatnonzero(start.label == k))[:n_show] for k in range(shown)]
        blocks, titles = [[start.images[index] for index in drawn]], ["real (the start)"]
    blocks += [
        [grid[k * per_class : k * per_class + n_show] for k in range(shown)] for grid in o.grids
    ]
    titles += [f"made by generator {t}" for t in range(len(o.grids))]
    if not blocks:
        raise ValueError(
            "these results hold no generated images; run and sweep store them with --pictures"
        )
    for g in np.flatnonzero((o.favoured > 0).all(0)).tolist():
        shares = [
            *([] if real is None else [f"{_mean_share(outcomes, g):.0%}"]),
            *(f"seen: {_mean_share(outcomes, g, t):.0%}" for t in range(len(o.grids))),
        ]
        titles = [
            f"{title}:\n{share} {o.groups[g]}" for title, share in zip(titles, shares, strict=True)
        ]
    columns = min(3, len(blocks))
    lines = -(-len(blocks) // columns)
    # few pictures stay small, but as wide as their title
    side = min(WIDTH / columns / n_show, max(0.55, 1.6 / n_show))
    title_height = 0.22 * titles[0].count("\n") + 0.25
    height = lines * (side * shown + title_height) + 0.25  # the mark below
    figure, axes = plt.subplots(
        lines, columns, figsize=(columns * n_show * side, height), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, rows, title in zip(axes.flat, blocks, titles, strict=False):
        axis.imshow(_tile(rows))
        axis.set_title(title)
    if name:
        figure.suptitle(name, x=0.01, ha="left", fontsize=9)
    return signed(figure, mark_of(results))
