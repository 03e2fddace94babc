"""Secondary metrics: equal to the registered ones, influences against brute force, coverage,
floors, and planted pairs of groups."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import tiny

from biasstudy import METRICS, figures, reference_parts, secondary
from biasstudy.inference import SECONDARY, holm, secondary_of_settings
from biasstudy.inference.contrasts import curve
from biasstudy.inference.secondary import (
    contributions,
    difference,
    floor_of_change,
    pair_of,
    pairs,
    slope,
)
from biasstudy.measures.floors import floor_of_level

STUDIES = ("colorized_mnist", "colorized_mnist_diffusion")  # that keep confidences
CLASSES, GROUPS = 4, 3


def outcome(label, predicted, group, confidence, unit=None, seed=0, arm="none", n_classes=CLASSES):
    """predicted, confidence (T + 1, R, N)."""
    paired = unit is not None
    return SimpleNamespace(
        experiment=tiny(seed=seed).to_arm(arm),
        numerics="float64",
        design="crossed",
        biased=False,
        paired=paired,
        label=label,
        group=group,
        unit=unit if paired else np.arange(len(label)),
        predicted=predicted,
        confidence=confidence,
        occurs=np.ones((n_classes, GROUPS), bool),
        classes=tuple("abcd"[:n_classes]),
        groups=("red", "green", "blue"),
    )


def at_random(seed, n=300, empty=False):
    """An outcome of two generations and two classifiers, with unequal cells."""
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, CLASSES, n), rng.choice(GROUPS, n, p=[0.5, 0.3, 0.2])
    if empty:
        group[label == 1] = 2
        label[label == 3] = 0
    wrong = rng.random((2, 2, n)) < 0.3
    predicted = np.where(wrong, rng.integers(0, CLASSES, (2, 2, n)), label)
    return outcome(label, predicted, group, rng.random((2, 2, n)))


def registered(metric, o, t, images=slice(None)):
    """The metric as it is registered, mean over classifiers."""
    known = {"confidence": None} if metric == "calibration-gap" else {}
    values = []
    for r in range(o.predicted.shape[1]):
        if known:
            known["confidence"] = o.confidence[t, r][images]
        three = o.label[images], o.predicted[t, r][images], o.group[images]
        values.append(METRICS[metric].target(*three, **known))
    return np.mean(values)


# ---- One outcome ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", SECONDARY)
@pytest.mark.parametrize("empty", [False, True])
def test_contributions_sum_to_the_registered_metric(metric, empty):
    for seed in range(5):
        o = at_random(seed, empty=empty)
        for t in (0, 1):
            found = contributions(o, metric, t).sum()
            assert np.isclose(found, registered(metric, o, t), rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", SECONDARY)
def test_a_contribution_is_what_one_more_copy_of_an_image_changes(metric):
    """Against the registered metric on 2,000 copies of the test set, one image of them once more:
    its influence to first order."""
    o, copies = at_random(3, n=60), 2000
    every = np.tile(np.arange(60), copies)
    found = contributions(o, metric, 1)
    before = registered(metric, o, 1)
    for i in range(0, 60, 7):
        more = registered(metric, o, 1, np.append(every, i))
        assert np.isclose(copies * (more - before), found[i] - before / 60, atol=2e-3)


# ---- Two arms ------------------------------------------------------------------------------------


def studied(rng, n, gain, photographs=12, n_classes=3, noise=(0.3, 0.2)):
    """Two arms of n seeds, photographs shown in every group; `gain` (n_groups,) logits of the arm
    generated. Seeds, arms and photographs have effects of their own."""
    unit = np.repeat(np.arange(n_classes * photographs), GROUPS)
    label, group = unit // photographs, np.tile(np.arange(GROUPS), n_classes * photographs)
    hard = rng.normal(0, 1, unit[-1] + 1)[unit] + rng.normal(0, 0.5, len(unit))
    arms = {"none": [], "generated": []}
    for seed in range(n):
        of_seed = 1.5 + rng.normal(0, noise[0], (n_classes, GROUPS))
        for arm, outcomes in arms.items():
            level = of_seed + rng.normal(0, noise[1], of_seed.shape) + gain * (arm == "generated")
            odds = level[label, group] + hard
            right = rng.random(len(label)) < 1 / (1 + np.exp(-odds))
            other = (label + rng.integers(1, n_classes, len(label))) % n_classes
            predicted = np.where(right, label, other)[None, None]
            confidence = 1 / (1 + np.exp(-level[label, group]))[None, None]
            outcomes.append(
                outcome(label, predicted, group, confidence, unit, seed, arm, n_classes)
            )
    everything = [*arms["none"], *arms["generated"]]
    return SimpleNamespace(of=lambda arm: arms.get(arm, []), outcomes=everything)


def between(study, arm="none"):
    return study.of("generated"), study.of(arm)


COVERED = (
    "worst-group-accuracy",
    "equal-opportunity-mean",
    "equalized-odds-mean",
    "calibration-gap",
)


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("gain", [(0, 0, 0), (0, 0, -1)], ids=["no change", "a group loses"])
def test_coverage_of_new_seeds_and_new_test_images(n, gain):
    """Of the change expected at this number of test images, its mean over the studies."""
    rng = np.random.default_rng(n)
    studies = [between(studied(rng, n, np.array(gain))) for _ in range(60)]
    inside = []
    for metric in COVERED:
        found = [difference(*arms, metric) for arms in studies]
        expected = np.mean([e.mean for e in found])
        inside += [e.low <= expected <= e.high for e in found]
    assert 0.91 <= np.mean(inside) <= 0.99


def test_the_bias_of_a_gap_cancels_in_its_change_where_accuracy_stays():
    """Cells of 12 images: a gap between equal groups is .1 too large, its change is not."""
    rng = np.random.default_rng(1)
    studies = [between(studied(rng, 6, np.zeros(3), noise=(0, 0))) for _ in range(40)]
    level = np.mean([registered("equal-opportunity-mean", b[0], 0) for _, b in studies])
    changes = [difference(*arms, "equal-opportunity-mean").mean for arms in studies]
    assert level > 0.1 and abs(np.mean(changes)) < 3 * np.std(changes) / np.sqrt(40) < 0.03


def test_a_uniform_loss_widens_a_gap_as_much_as_its_floor():
    rng = np.random.default_rng(2)
    arms = between(studied(rng, 12, np.full(3, -1.0), photographs=40, noise=(0, 0)))
    for metric in ("accuracy-gap", "equal-opportunity-mean", "equalized-odds-mean"):
        found, floor = difference(*arms, metric), floor_of_change(*arms, metric)
        assert floor > 0.005 and found.low < floor < found.high
    none = arms[1]
    assert floor_of_change(none, none, "accuracy-gap") == 0
    planted = between(studied(rng, 12, np.array([0, 0, -1.5]), photographs=40))
    for metric in ("accuracy-gap", "equal-opportunity-mean"):
        assert difference(*planted, metric).low > 2 * floor_of_change(*planted, metric) > 0


def test_the_floor_of_a_change_is_the_difference_of_the_floors_of_the_levels():
    arms = between(studied(np.random.default_rng(3), 3, np.array([0, 0, -1.0])))
    for metric in ("worst-cell-accuracy", "equal-opportunity-mean", "equalized-odds-mean"):
        levels = [
            np.mean(
                [
                    floor_of_level(
                        metric, o.label, o.predicted[0], o.group, unit=o.unit, n_permutations=200
                    ).mean
                    for o in arm
                ]
            )
            for arm in arms
        ]
        # the registered metrics of correct images alone meet other permutations
        same = metric == "equalized-odds-mean"
        found, expected = floor_of_change(*arms, metric), levels[0] - levels[1]
        assert np.isclose(found, expected, rtol=0, atol=1e-12 if same else 0.01), metric


def test_the_pair_of_groups_that_makes_a_gap_is_the_planted_one():
    study = studied(np.random.default_rng(4), 6, np.array([2.0, 0, -2.0]), photographs=60)
    table = pairs(study).set_index("metric")
    for metric in ("accuracy-gap", "equal-opportunity-mean"):
        assert table.loc[metric, ["top", "bottom"]].tolist() == ["red", "blue"]
        assert table.seeds_with_this_pair[metric] == table.n[metric] == 6
    assert table.loc["worst-group-accuracy", ["top", "bottom"]].tolist() == ["", "blue"]
    assert table.bottom["worst-cell-accuracy"].endswith(", blue")
    assert table.bottom["equal-opportunity-max"].endswith(", blue")
    label = np.repeat(np.arange(2), 6)
    equal = outcome(
        label, label[None, None], np.tile(np.arange(3), 4), np.ones((1, 1, 12)), n_classes=2
    )
    assert pair_of(equal, "accuracy-gap", 0) == ("", "")
    assert pair_of(equal, "worst-group-accuracy", 0) == ("", "red or green or blue")


# ---- Stored results ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts():
    return {study: next(iter(reference_parts(study).values())) for study in STUDIES}


def test_the_table_holds_changes_slopes_and_intervals_of_stored_results(parts):
    results = parts[STUDIES[1]]
    table = secondary(results).set_index(["metric", "contrast"])
    assert set(table.index) == {(m, c) for m in SECONDARY for c in ("A", "R")}
    assert (table.refused == "").all() and (table.n == 6).all()
    for (metric, contrast), row in table.iterrows():
        arms = between(results, {"A": "none", "R": "real"}[contrast])
        d = curve(arms[0], metric) - curve(arms[1], metric)
        assert np.isclose(row["mean"], d[:, -1].mean())
        tilt = np.polyfit(np.arange(d.shape[1]), d.T, 1)[0]
        assert np.isclose(row.slope, tilt.mean()) and np.allclose(
            slope(*arms, metric).per_seed, tilt
        )
        assert row.low < row["mean"] < row.high and row.slope_low < row.slope < row.slope_high
        assert 1 <= row.seeds_with_this_pair <= 6


def test_the_figure_shows_every_interval_and_its_floor_as_a_hollow_mark(parts):
    results = next(iter(parts.values()))
    figure, table = figures.secondary(results)
    assert table.equals(secondary(results))
    axis = figure.axes[0]
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    floors = np.concatenate([line.get_xdata() for line in hollow])
    assert sorted(floors) == sorted(table.floor)
    assert [label.get_text() for label in axis.get_yticklabels()] == list(SECONDARY)
    ends = np.concatenate([bar.get_segments() for bar in axis.collections])[:, :, 0]
    assert np.allclose(np.sort(ends.ravel()), np.sort(np.concatenate([table.low, table.high])))


def test_each_metric_is_a_family_over_settings(parts):
    table = secondary_of_settings(parts, names=("A",))
    assert len(table) == len(parts) * len(SECONDARY)
    for _, family in table.groupby("metric"):
        assert np.allclose(family.p_adjusted, holm(family.p.to_numpy()))
    off_floor = (table["floor"] < table.low) | (table["floor"] > table.high)
    assert ((table.p < 0.05) == off_floor).all(), "p is of the floor, not of 0"
    assert (table.p_adjusted >= table.p).all() and (table.p_adjusted > table.p).any()


def test_what_the_design_forbids_stands_there_with_its_reason():
    results = studied(np.random.default_rng(5), 3, np.zeros(3))
    for o in results.outcomes:
        o.design = "nested"
    table = secondary(results, names=("A",)).set_index("metric")
    odds = table.loc["equalized-odds-mean"]
    assert "a group belongs to one class" in odds.refused and odds.n == 0 and np.isnan(odds["mean"])
    assert table.refused["equal-opportunity-mean"] == "" and table.n["equal-opportunity-mean"] > 0
    arms = between(results)
    with pytest.raises(ValueError, match="is not defined for a nested design"):
        difference(*arms, "demographic-parity-mean")
    with pytest.raises(
        ValueError,
        match=r"unknown secondary metric 'accuracy' .did you mean accuracy-gap.*; known: worst",
    ):
        difference(*arms, "accuracy")
    with pytest.raises(ValueError, match="both arms of a contrast out of F; got arms"):
        secondary(results, names=("F",))
