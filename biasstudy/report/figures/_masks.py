"""Pictures and curves for images with masks: what ablations do, and what noise on and around the
object costs."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...loop.results import Results
from ...measures.spurious import (
    ABLATIONS,
    SIGMA,
    SIGMAS,
    box_of,
    noise_of,
    noisy,
    noisy_accuracies,
    relative_foreground_sensitivity,
)
from ._pictures import _tile
from ._style import (
    ARM_STYLE,
    OVER_GENERATIONS,
    WIDTH,
    by_seed,
    chance_line,
    lines_of_seeds,
    mark_of,
    signed,
    use_style,
)

OUTLINE = "#ff2f92"
NOISY = {"noise on object": "-", "noise around it": "--"}  # columns and line styles


def ablations(real: Any, n_classes: int = 6) -> tuple[Figure, pd.DataFrame]:
    """Test images with the outline of their mask, and what noise and ablations make of them; one
    row per class.

    real     RealData of a data set with masks
    returns  the figure and its table: of each class and group mean share of the image that the
             object and its box cover, and how many test images they are of
    """
    use_style()
    dataset, test = real.dataset, real.test.load()
    shown = range(min(n_classes, dataset.n_classes))
    first = [int(np.flatnonzero(test.label == k)[0]) for k in shown]
    columns: dict[str, list[np.ndarray]] = {"mask": [test.images[i] for i in first]}
    noises = [
        noisy(
            test.images[i], test.mask[i], noise_of(int(test.unit[i]), test.images[i].shape), SIGMA
        )
        for i in first
    ]
    columns |= {name: [pair[j][0] for pair in noises] for j, name in enumerate(NOISY)}
    columns |= {
        name: [ablate(test.images[i], test.mask[i]) for i in first]
        for name, ablate in ABLATIONS.items()
        if name != "none"
    }
    side = test.images.shape[2] + 2
    figure, axis = plt.subplots(figsize=(WIDTH, 0.4 + WIDTH / len(columns) * len(shown) * 0.93))
    axis.imshow(_tile([np.stack(row) for row in zip(*columns.values(), strict=True)]))
    for row, i in enumerate(first):
        outline = np.pad(test.mask[i], 1).astype(float)  # closed at the edge of the image
        axis.contour(
            np.arange(side),
            row * side + np.arange(side),
            outline,
            levels=[0.5],
            colors=OUTLINE,
            linewidths=1.1,
        )
    axis.set_xticks(
        (np.arange(len(columns)) + 0.5) * side, [name.replace("-", " ") for name in columns]
    )
    axis.set_yticks((np.arange(len(shown)) + 0.5) * side, [dataset.classes[k] for k in shown])
    axis.xaxis.tick_top()
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return signed(
        figure, f"test images, {dataset.caption or 'masks'}; noise of sigma {SIGMA}"
    ), mask_table(real)


def mask_table(real: Any) -> pd.DataFrame:
    """Mean share of a test image that the object and its bounding box cover, by class and group;
    real images only."""
    dataset, test = real.dataset, real.test.load()
    boxes = [box_of(mask) for mask in test.mask]
    box = np.array([(r.stop - r.start) * (c.stop - c.start) for r, c in boxes]) / test.mask[0].size
    rows = pd.DataFrame(
        {
            "class": np.array(dataset.classes)[test.label],
            "group": np.array(dataset.groups)[test.group],
            "object": test.mask.mean((1, 2)),
            "box": box,
        }
    )
    return (
        rows.groupby(["class", "group"], sort=False)
        .agg(object=("object", "mean"), box=("box", "mean"), n=("box", "size"))
        .reset_index()
    )


def sensitivity_table(results: Results) -> pd.DataFrame:
    """Accuracies with noise on the object and around it, and the relative foreground sensitivity,
    by arm, seed, generation and sigma; of all classifiers of a seed together."""
    rows = []
    for o in results.outcomes:
        for t, hits in enumerate(o.spurious["hits"]):
            # (R, sigmas, 2)
            accuracies = np.array(
                [noisy_accuracies(classifier_hits, o.label) for classifier_hits in hits]
            )
            rfs = np.mean(
                [
                    [relative_foreground_sensitivity(*pair) for pair in pairs]
                    for pairs in accuracies.tolist()
                ],
                axis=0,
            )
            rows += [
                (o.experiment.arm, o.experiment.seed, t, sigma, *pair, value)
                for sigma, pair, value in zip(SIGMAS, accuracies.mean(0).tolist(), rfs, strict=True)
            ]
    return pd.DataFrame(rows, columns=["arm", "seed", "generation", "sigma", *NOISY, "sensitivity"])


def sensitivity(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Relative foreground sensitivity against sigma, in generation 0 (grey; all arms share it) and
    the last, for every arm; and the two accuracies it is made of, in the arm generated (or none).
    Thin lines are seeds.

    returns  the figure and its table, see `sensitivity_table`
    """
    use_style()
    table, last = sensitivity_table(results), len(results.outcomes[0].predicted) - 1
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.1))
    shared = table[(table.generation == 0) & (table.arm == table.arm.iloc[0])]
    _lines(
        left,
        shared,
        "sensitivity",
        "generation 0",
        {"color": "#999999", "linestyle": "-", "marker": "."},
    )
    for arm, style in OVER_GENERATIONS.items():
        rows = table[(table.arm == arm) & (table.generation == last)]
        if len(rows):
            _lines(left, rows, "sensitivity", f"{arm}, {last}", style)
    left.axhline(0, color="#999999", linewidth=0.8)
    left.set_title("relative foreground sensitivity\n(above 0: relies on the object)")
    arm = "generated" if results.of("generated") else results.outcomes[0].experiment.arm
    for column, dash in NOISY.items():
        for t, color in ((0, "#999999"), (last, ARM_STYLE[arm]["color"])):
            rows = table[(table.arm == arm) & (table.generation == t)]
            _lines(
                right,
                rows,
                column,
                f"{column}, generation {t}",
                {"color": color, "linestyle": dash, "marker": "."},
            )
    chance_line(right, results.outcomes[0])
    right.set_title(f"accuracy with noise,\narm {arm}")
    for axis in (left, right):
        axis.set_xlabel("sigma of the noise (pixels 0 to 1)")
        axis.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS], fontsize=7.5)
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, fontsize=7, handlelength=1.8
        )
    return signed(figure, mark_of(results)), table


def _lines(axis: Any, table: pd.DataFrame, column: str, label: str, style: dict[str, Any]) -> None:
    lines_of_seeds(axis, by_seed(table, column, "sigma"), label, **style)
