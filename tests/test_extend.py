"""What is added in one place reaches everything: a data set, a filter and a metric, each one
decorated function, followed through a run into figures. (A protocol: see test_protocols.)"""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import DATASETS, FILTERS, METRICS, Dataset, LabeledImages, figures, run
from biasstudy.data.real import real_data


@pytest.fixture
def added():
    """Registers the three things, and takes them away afterwards."""

    @DATASETS.register("test-halves")
    def halves() -> Dataset:
        """Bright left or right half (class), above or below (group)."""
        rng, i = np.random.default_rng(0), np.arange(600)
        label, group = i % 2, i // 2 % 2
        images = rng.integers(0, 60, (600, 3, 16, 16)).astype(np.uint8)
        for n, (y, g) in enumerate(zip(label, group, strict=True)):
            images[n, :, 8 * g : 8 * g + 8, 8 * y : 8 * y + 8] += 150
        everything = LabeledImages(images, label, group)
        return Dataset(
            everything[:440],
            everything[440:],
            ("left", "right"),
            ("above", "below"),
            "crossed",
            "test-halves",
            n_instruments=80,
            probe=lambda x: (x[:, :, 8:].mean((1, 2, 3)) > x[:, :, :8].mean((1, 2, 3))).astype(int),
        )

    @FILTERS.register("test-every-other")
    def every_other(images, label, judged, chance):
        """Keep half of the images."""
        return chance < 0.5

    @METRICS.register("test-misses")
    def misses(label, predicted, group):
        """Share of wrong images. returns a float, nan without images."""
        return float(np.mean(label != predicted)) if len(label) else float("nan")

    yield
    for registry, name in ((DATASETS, "test-halves"), (FILTERS, "test-every-other")):
        registry._entries.pop(name)
    METRICS._entries.pop("test-misses")


def test_what_is_registered_reaches_results_and_figures(added, runs):
    e = tiny(
        dataset="test-halves",
        n_real=80,
        n_test=100,
        filter="test-every-other",
        start="biased",
        bias=0.5,
    )
    results = run([e.to_arm(arm) for arm in ("generated", "none")], numerics=FLOAT64)

    picture, counts = figures.data_picture(real_data(e))
    assert counts.to_numpy().sum() >= 80 and picture.axes, "the data set"

    kept = results.table.query("metric == 'acceptance' and label.isna() and group.isna()").value
    assert (abs(kept - 0.5) < 0.25).all() and len(kept) == 2, "the filter"
    _, accepted = figures.acceptance({"": results})
    assert set(accepted.group) == {"above", "below"}

    _, curve_values = figures.curves(results, ("accuracy", "test-misses"))
    wide = curve_values.pivot_table("value", ["arm", "generation"], "metric")
    assert np.allclose(wide["accuracy"] + wide["test-misses"], 1), "the metric"
    plt.close("all")
