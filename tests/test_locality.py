"""Patchworks of real images, and the figure that holds them against what a generator makes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Results, figures, run
from biasstudy.measures.patchwork import patchworks

SIDE = 12


def numbered(n) -> np.ndarray:
    """Images that show nothing but their own number."""
    return np.broadcast_to(
        np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 3, SIDE, SIDE)
    ).copy()


@pytest.mark.parametrize("window", [1, 4, 5, 100])
def test_every_square_is_from_one_image_of_the_told_class(window):
    label, told = np.arange(40) % 4, np.arange(200) % 4
    made = patchworks(numbered(40), label, told, window, seed=0)
    assert made.shape == (200, 3, SIDE, SIDE) and (made == made[:, :1]).all()
    assert (label[made] == told[:, None, None, None]).all()
    for axis in (2, 3):
        # within a square nothing changes: changes lie a window apart, all in the same places
        changes = np.flatnonzero(
            (np.diff(made[0, 0].astype(int), axis=axis - 2) != 0).any(2 - axis - 1)
        )
        assert len(changes) <= -(-SIDE // window) and (np.diff(changes) % window == 0).all()
    # every image of the class as often as any other
    counts = np.bincount(made[told == 1].ravel(), minlength=40)[label == 1]
    squares = counts.sum() / min(window, SIDE) ** 2 / 3
    assert (abs(counts / counts.sum() - 0.1) < 6 * np.sqrt(0.09 / squares)).all()


def test_patchworks_stay_in_place():
    """A pixel of a patchwork is the pixel at the same place of some image."""
    images = np.arange(2 * 3 * SIDE**2).reshape(2, 3, SIDE, SIDE)
    for made in patchworks(images, np.zeros(2, int), np.zeros(9, int), 3, seed=1):
        assert ((made == images[0]) | (made == images[1])).all()
        assert ((made == images[0]).all(0) | (made == images[1]).all(0)).all()


def variant(window, **fields):
    options = {"window": "linear", "largest": window, "smallest": window, "sampling_steps": 2}
    e = tiny(generator="local-score", generator_options=options, n_generations=1, **fields)
    return run([e.to_arm(arm) for arm in ("generated", "none")], numerics=FLOAT64, progress=False)


def test_the_figure_against_the_window(tmp_path, monkeypatch):
    monkeypatch.setenv("BIASSTUDY_RUNS", str(tmp_path))
    parts = {
        f"{start} {window}": variant(window, start=start, bias=bias)
        for start, bias, window in (("biased", 0.6, 3), ("biased", 0.6, 55), ("unbiased", 0.0, 3))
    }
    figure, table = figures.locality(parts)
    plt.close(figure)
    value = table.set_index(["metric", "start", "window"])
    clear, favoured = value.loc["clear-share"], value.loc["favoured-share"]
    batch = figures.batch_table(parts)[0].xs("clear-share", level="metric")
    for start, window in clear.index:
        assert clear.measured[start, window] == pytest.approx(batch[f"{start} {window}"])
    assert clear.measured["biased", 55] == 1 > clear.predicted["biased", 3]
    # whole images: nearly the start's share, 0.68; small squares: the common colour alone
    assert favoured.predicted["biased", 3] > 0.95 and 0.6 < favoured.predicted["biased", 55] < 0.78
    assert np.isnan(favoured.predicted["unbiased", 3]), "nothing is favoured"
    only = {"none": Results(parts["biased 3"].of("none"))}
    figure, table = figures.locality(only)
    plt.close(figure)
    assert table.empty, "nothing was generated"
    with pytest.raises(ValueError, match="needs variants with one window each"):
        figures.locality({"other": run([tiny()], numerics=FLOAT64, progress=False)})
