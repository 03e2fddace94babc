"""Spurious metrics, on classifiers whose answer is known: of the object alone, of the background
alone, of nothing."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import run
from biasstudy.loop.results import Results
from biasstudy.measures.spurious import (
    ABLATIONS,
    GREY,
    SIGMA,
    SIGMAS,
    TRIALS,
    grey_box,
    noise_of,
    noisy,
    relative_foreground_sensitivity,
    responses,
    tile,
    values,
)
from biasstudy.report.shipped import reference, save_study

N, SIDE = 40, 16
BOX = (slice(4, 10), slice(5, 12))


def scenes():
    """Even images are class 0, odd ones class 1: object and background both 64 in class 0, both 192
    in class 1."""
    label = np.arange(N) % 2
    images = (
        np.repeat(np.where(label, 192, 64), 3 * SIDE * SIDE)
        .reshape(N, 3, SIDE, SIDE)
        .astype(np.uint8)
    )
    mask = np.zeros((N, SIDE, SIDE), bool)
    mask[:, *BOX] = True
    return images, mask, label


def untouched(images, region):
    """A classifier of two classes that says the level of a region where that is the clean level,
    and the wrong class where it is anything else."""
    level = images[:, 0][:, region].astype(int)
    clean = [(level == value).all(1) for value in (64, 192)]
    wrong = np.where(level.mean(1) > 128, 0, 1)  # noise keeps the mean on its side of grey
    said = np.where(clean[0], 0, np.where(clean[1], 1, wrong))
    return np.eye(2)[said] * 0.8 + 0.1


def of(found, name):
    return dict(values(found, scenes()[2]))[name].value


def region(inside):
    mask = scenes()[1][0]
    return mask if inside else ~mask


@pytest.mark.parametrize(("inside", "expected"), [(True, 1.0), (False, -1.0)])
def test_a_classifier_of_one_region_alone_has_the_extreme_sensitivity(inside, expected):
    images, mask, label = scenes()
    found = responses(lambda x: untouched(x, region(inside)), images, mask, label, np.arange(N))
    assert found["hits"].shape == (N, len(SIGMAS), 2) and found["right"].shape == (
        N,
        len(ABLATIONS),
    )
    noise_elsewhere = found["hits"][:, :, 1 if inside else 0]
    assert (noise_elsewhere == TRIALS).all(), "noise elsewhere does no harm"
    for sigma in SIGMAS:
        name = "relative-foreground-sensitivity" + ("" if sigma == SIGMA else f"-{sigma}")
        assert of(found, name) == pytest.approx(expected, abs=1e-12)
    assert of(found, "ablated-accuracy-none") == 1 and of(
        found, "ablated-confidence-none"
    ) == pytest.approx(0.9)
    if not inside:
        assert of(found, "ablated-accuracy-grey-box") == 1, (
            "taking the object away does no harm either"
        )


def test_a_constant_classifier_has_sensitivity_0():
    images, mask, label = scenes()
    found = responses(lambda x: np.tile([0.7, 0.3], (len(x), 1)), images, mask, label, np.arange(N))
    assert (
        of(found, "relative-foreground-sensitivity") == 0
        and of(found, "noisy-foreground-accuracy") == 0.5
    )
    assert all(of(found, f"ablated-confidence-{name}") == pytest.approx(0.5) for name in ABLATIONS)


def test_the_formula_where_it_ends_and_between():
    rfs = relative_foreground_sensitivity
    assert (
        rfs(0, 0) == rfs(1, 1) == 0
        and rfs(0.3, 1) == pytest.approx(1)
        and rfs(1, 0.3) == pytest.approx(-1)
    )
    assert rfs(0.4, 0.8) == pytest.approx(0.4 / (2 * 0.4)) and rfs(0.1, 0.2) == pytest.approx(
        0.1 / (2 * 0.15)
    )
    assert rfs(0.2, 0.6) == -rfs(0.6, 0.2)


def test_accuracies_are_averaged_within_classes_first():
    label = np.array([0] * 9 + [1])
    hits = np.zeros((10, len(SIGMAS), 2), np.uint8)
    # class 0: always right with noise on the background; class 1: never
    hits[:9, :, 1] = TRIALS
    found = {
        "hits": hits,
        "right": np.zeros((10, 4), bool),
        "confidence": np.zeros((10, 4), np.float32),
    }
    known = dict(values(found, label))
    assert (
        known["noisy-background-accuracy"].value == 0.5
        and known["noisy-background-accuracy"].n == 10
    )
    assert known["relative-foreground-sensitivity"].value == 1


def random_scenes(n=30, side=20):
    rng = np.random.default_rng(0)
    mask = np.zeros((n, side, side), bool)
    for m in mask:
        (y, x), (h, w) = rng.integers(0, side - 6, 2), rng.integers(2, 7, 2)
        m[y : y + h, x : x + w] = True
    return rng.integers(0, 256, (n, 3, side, side)).astype(np.uint8), mask, rng.integers(0, 3, n)


def linear(images):
    x = (
        images.reshape(len(images), -1)
        @ np.random.default_rng(1).standard_normal((images[0].size, 3))
        / 3000
    )
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_neither_order_nor_batches_change_what_is_found():
    images, mask, label = random_scenes()
    order = np.random.default_rng(2).permutation(len(label))
    whole = responses(linear, images, mask, label, np.arange(30))
    assert 0 < whole["hits"].mean() < TRIALS, "the classifier is not constant"
    shuffled = responses(
        linear, images[order], mask[order], label[order], order, at_once=10 * 40 * images[0].size
    )
    single = responses(linear, images, mask, label, np.arange(30), at_once=1)
    for name, value in whole.items():
        assert np.allclose(shuffled[name], value[order], atol=1e-6) and np.allclose(
            single[name], value, atol=1e-6
        ), name
    for (name, one), (_, other) in zip(
        values(whole, label), values(shuffled, label[order]), strict=True
    ):
        assert one.value == pytest.approx(other.value, abs=1e-7), name
    other_draws = responses(linear, images, mask, label, np.arange(30), seed=1)
    assert (other_draws["hits"] != whole["hits"]).any() and (
        other_draws["right"] == whole["right"]
    ).all()


def test_noise_is_the_clamped_sum_within_half_a_level_and_stays_in_its_region():
    images, mask, _ = random_scenes(1)
    noise = noise_of(0, images[0].shape, 0)
    for sigma in SIGMAS:
        on, off = noisy(images[0], mask[0], noise, sigma)
        exact = np.clip(images[0] / 255 + sigma * noise.astype(float), 0, 1) * 255
        assert np.abs(np.where(mask[0], exact, images[0]) - on).max() <= 0.5001
        assert np.abs(np.where(mask[0], images[0], exact) - off).max() <= 0.5001


def test_noise_is_standard_normal_and_that_of_other_images_is_another():
    from scipy.stats import kstest

    noise = noise_of(3, (3, 64, 64), 0)
    assert noise.shape == (TRIALS, 3, 64, 64) and kstest(noise.ravel(), "norm").pvalue > 0.01
    other = noise_of(4, (3, 64, 64), 0)
    assert (noise == noise_of(3, (3, 64, 64), 0)).all() and abs(
        np.corrcoef(noise.ravel(), other.ravel())[0, 1]
    ) < 0.02
    assert abs(np.corrcoef(noise.reshape(TRIALS, -1)) - np.eye(TRIALS)).max() < 0.03, (
        "trials are independent"
    )


def test_the_grey_box_holds_the_last_row_and_column():
    image, mask = np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8), bool)
    mask[2, 3] = mask[5, 6] = True
    out = grey_box(image, mask)
    assert (out[:, 2:6, 3:7] == GREY).all() and (out == GREY).sum() == 3 * 16
    assert (grey_box(image, np.zeros((8, 8), bool)) == image).all()


def test_tile_takes_the_largest_adjacent_patch():
    image = np.arange(100, dtype=np.uint8).reshape(1, 10, 10).repeat(3, axis=0)
    mask = np.zeros((10, 10), bool)
    # 1 column to the right, 2 x 2 to the left, above, below
    mask[4:6, 7:9] = True
    out = tile(image, mask)
    assert (out[:, 4:6, 7:9] == image[:, 4:6, 5:7]).all() and (
        out[:, ~mask] == image[:, ~mask]
    ).all()

    # another object: left of the first one column is free, below two rows
    mask[4, 5] = True
    out = tile(image, mask)
    assert (out[:, 4:6, 7:9] == image[:, 6:8, 7:9]).all()

    wide = np.zeros((10, 10), bool)
    # right: 2 columns; left: 3, copied from the patch on
    wide[0:10, 3:8] = True
    out = tile(image, wide)
    assert (out[:, :, 5:8] == image[:, :, 0:3]).all() and (out[:, :, 3:5] == image[:, :, 1:3]).all()

    assert (tile(image, np.ones((10, 10), bool)) == GREY).all(), "no room on any side"
    assert (tile(image, np.zeros((10, 10), bool)) == image).all()


# ---- In the loop ---------------------------------------------------------------------------------

HARD = {
    "dataset": "standin-hard",
    "start": "biased",
    "bias": 0.5,
    "n_real": 80,
    "n_test": 16,
    "n_generations": 1,
}


def test_the_loop_measures_the_classifiers_of_every_generation_and_stores_what_it_finds(
    runs, tmp_path
):
    base = tiny(
        **HARD,
        n_classifiers=2,
        classifier="lenet",
        classifier_steps=5,
        instrument="lenet",
        instrument_steps=5,
    )
    found = run([base, base.to_arm("none")], numerics=FLOAT64)
    o = found.of("generated")[0]
    assert o.spurious["hits"].shape == (2, 2, 16, len(SIGMAS), 2)
    assert (o.spurious["right"][..., 0] == o.correct()).all(), (
        "the ablation `none` is the image as it is"
    )
    rows = found.table[found.table.metric == "relative-foreground-sensitivity"]
    assert len(rows) == 2 * 2 * 2 and set(rows.n) == {16} and rows.value.between(-1, 1).all()
    same = rows[rows.generation == 0].pivot(index="replicate", columns="arm", values="value")
    assert (same.generated == same.none).all(), "one generation 0, and one noise for all arms"
    whole = found.table.query("metric in ['accuracy', 'ablated-accuracy-none']").pivot_table(
        index=["arm", "generation", "replicate"], columns="metric", values="value"
    )
    assert np.allclose(whole["accuracy"], whole["ablated-accuracy-none"])
    assert o.confusion.sum() == 16, "the probe's errors are kept"

    save_study(found, tmp_path, "hard", "a command")
    again = reference("hard", tmp_path)
    assert again.table.drop(columns="value").equals(found.table.drop(columns="value"))
    assert np.allclose(again.table.value, found.table.value, equal_nan=True, atol=1e-6)


def test_images_without_masks_have_no_spurious_metrics(runs):
    found = run(tiny(n_generations=1), numerics=FLOAT64)
    assert (
        found.outcomes[0].spurious == {} and not found.table.metric.str.contains("foreground").any()
    )


def test_what_must_be_said_of_the_data_stands_on_every_figure(runs, tmp_path, monkeypatch):
    from biasstudy import figures

    found = run(tiny(**HARD), numerics=FLOAT64)
    assert "standin-hard · stand-in data" in figures.mark_of(found)
    boxes = Results([replace(o, caption="box masks, 4 of 15 classes") for o in found.outcomes])
    save_study(boxes, tmp_path, "boxes", "a command")
    assert "box masks, 4 of 15 classes" in figures.mark_of(reference("boxes", tmp_path))
