"""Floors and drift null against brute simulation, and against the table of simulated floors in the
study's definitions."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import urn

from biasstudy import METRICS
from biasstudy.experiment import PROTOCOLS, Protocol
from biasstudy.measures.drift import drift_band, drift_variance, has_formula
from biasstudy.measures.floors import FROM_TABLES, correct_tables, floor_of_level, shuffled

# ---- Floors --------------------------------------------------------------------------------------


def exactly(accuracy: float, classes: int, groups: int, n: int):
    """Test images of equal cells, `accuracy` of each class right, wherever: label, predicted,
    group."""
    label = np.repeat(np.arange(classes), groups * n)
    group = np.tile(np.repeat(np.arange(groups), n), classes)
    right = np.arange(len(label)) % (groups * n) < round(accuracy * groups * n)
    return label, np.where(right, label, (label + 1) % max(classes, 2)), group


@pytest.mark.parametrize(
    ("metric", "accuracy", "classes", "groups", "n", "mean", "q95"),
    [
        # five fine classes of one superclass
        ("accuracy-gap", 0.80, 1, 5, 100, 0.093, 0.150),
        ("equal-opportunity-mean", 0.80, 20, 5, 100, 0.093, 0.106),  # CIFAR-20
        ("equal-opportunity-max", 0.80, 20, 5, 100, 0.164, 0.20),
        ("accuracy-gap", 0.80, 1, 100, 100, 0.199, 0.240),  # all fine classes
        ("accuracy-gap", 0.90, 1, 15, 50, 0.145, 0.200),  # Hard ImageNet
        ("accuracy-gap", 0.95, 1, 20, 500, 0.036, 0.048),  # 20 digit x colour cells
    ],
)
def test_floors_are_those_of_independent_equal_groups(
    metric, accuracy, classes, groups, n, mean, q95
):
    """The table was simulated with independent groups; permuting fixes the total, which a gap does
    not notice."""
    floor = floor_of_level(metric, *exactly(accuracy, classes, groups, n), n_permutations=2000)
    # rates, and so quantiles, move in steps of 1/n
    grid = 0.0 if metric.endswith("mean") else 1 / n
    assert abs(floor.mean - mean) < 0.002 and abs(floor.quantile95 - q95) < grid + 0.001
    independent = FROM_TABLES[metric](
        np.random.default_rng(1).binomial(n, accuracy, (2000, classes, groups)),
        np.full((classes, groups), n),
    )
    assert abs(floor.mean - independent.mean()) < 0.003
    assert abs(np.mean(floor.values <= q95) - np.mean(independent <= q95)) < 0.025


def test_the_ratio_within_a_class_is_below_four_fifths_by_chance():
    """Simulated in the table: 0.89 on average, below 0.8 in 1.6 % of classes, in 28 % for the worst
    of 20."""
    label, _, group = exactly(1, 1000, 5, 100)
    right = np.random.default_rng(0).random((1, len(label))) < 0.8
    hits = correct_tables(right, label, group, label, (1000, 5), 20, np.random.default_rng(1))[
        :, 0
    ].reshape(1000, 20, 5)
    mean, least = (
        FROM_TABLES[f"within-class-ratio-{how}"](hits, np.full((20, 5), 100))
        for how in ("mean", "min")
    )
    alone = FROM_TABLES["within-class-ratio-min"](hits.reshape(-1, 1, 5), np.full((1, 5), 100))
    assert abs(mean.mean() - 0.89) < 0.003 and abs((alone < 0.8).mean() - 0.016) < 0.003
    assert abs((least < 0.8).mean() - 0.28) < 0.03


@functools.cache
def predictions(seed=0, classes=4, groups=3, photographs=40, replicates=2):
    """Photographs shown in every group, some hard, and cells of unequal accuracy: label, predicted,
    group, unit."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(photographs), groups)
    label, group = unit % classes, np.tile(np.arange(groups), photographs)
    hard = rng.random(photographs)[unit] < 0.4
    right = rng.random((replicates, len(unit))) < np.where(hard, 0.5, 0.95)
    return label, np.where(right, label, (label + 1) % classes), group, unit


def test_groups_are_permuted_within_strata_only():
    label, _, group, unit = predictions()
    for stratum in (label, unit):
        moved = shuffled(group, stratum, 50, np.random.default_rng(0))
        for row in moved:
            assert (np.bincount(stratum * 3 + row) == np.bincount(stratum * 3 + group)).all()
        assert (moved != group).mean() == pytest.approx(2 / 3, abs=0.05), (
            "with three groups, two thirds move"
        )


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("metric", sorted(FROM_TABLES))
def test_tables_give_what_the_metric_gives_one_permutation_at_a_time(metric, paired):
    label, predicted, group, unit = predictions()
    stratum = unit if paired else label
    slow = [
        np.mean([METRICS[metric].target(label, row, moved) for row in predicted])
        for moved in shuffled(group, stratum, 800, np.random.default_rng(1))
    ]
    fast = floor_of_level(metric, label, predicted, group, unit=unit if paired else None).values
    assert abs(fast.mean() - np.mean(slow)) < 5 * np.hypot(
        np.std(slow) / np.sqrt(800), np.std(fast) / np.sqrt(1000)
    )
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.15)
    tables = correct_tables(
        predicted == label, label, group, group + 3 * label, (4, 3), 1, np.random.default_rng(0)
    )
    n = np.bincount(label * 3 + group, minlength=12).reshape(4, 3)
    exact = [METRICS[metric].target(label, row, group) for row in predicted]
    assert np.allclose(FROM_TABLES[metric](tables, n)[0], exact), (
        "strata of one cell: nothing moves"
    )


def test_pairing_narrows_the_floor_where_photographs_differ_in_difficulty():
    label, predicted, group, unit = predictions()
    assert (
        floor_of_level("accuracy-gap", label, predicted, group, unit=unit).mean
        < floor_of_level("accuracy-gap", label, predicted, group).mean
    )


def test_a_floor_needs_two_groups_in_a_class_and_one_value():
    label, predicted, group, unit = predictions()
    with pytest.raises(ValueError, match="classes \\(or photographs\\) with images of two groups"):
        floor_of_level("accuracy-gap", label, predicted, label)
    with pytest.raises(ValueError, match="one value; 'group-accuracy' has several"):
        floor_of_level("group-accuracy", label, predicted, group, unit=unit, n_permutations=2)


def test_other_registered_metrics_are_asked_directly():
    label, predicted, group, unit = predictions()
    asked = floor_of_level(
        "adjusted-accuracy", label, predicted, group, unit=unit, n_permutations=5
    ).values
    assert np.allclose(asked, np.mean(predicted == label)), (
        "balanced groups: permuting leaves the mean of group accuracies"
    )


def test_shuffled_groups_lie_inside_the_floor_and_planted_ones_above():
    label, predicted, group, unit = predictions(photographs=200)
    for metric in ("accuracy-gap", "equal-opportunity-mean"):
        floor = floor_of_level(metric, label, predicted, group, unit=unit)
        low, high = floor.band
        seen = [
            np.mean([METRICS[metric].target(label, row, moved) for row in predicted])
            for moved in shuffled(group, unit, 300, np.random.default_rng(3))
        ]
        inside = np.mean([low <= x <= high for x in seen])
        assert 0.91 <= inside <= 0.99
        assert np.mean([floor.p(x) <= 0.05 for x in seen]) < 0.09
        worse = np.where(
            (group == 0) & (np.random.default_rng(4).random(len(group)) < 0.25),
            (label + 1) % 4,
            predicted,
        )
        found = np.mean([METRICS[metric].target(label, row, group) for row in worse])
        assert floor_of_level(metric, label, worse, group, unit=unit).p(found) < 0.01


def test_a_uniform_loss_of_accuracy_widens_gaps_and_their_floor_alike():
    rng, gaps, floors, inside = np.random.default_rng(5), [], [], []
    label, _, group = exactly(1, 10, 5, 30)
    for accuracy in (0.95, 0.80):
        for _ in range(60):
            predicted = np.where(rng.random(len(label)) < accuracy, label, (label + 1) % 10)
            floor = floor_of_level(
                "equal-opportunity-mean", label, predicted, group, n_permutations=200
            )
            gaps.append(METRICS["equal-opportunity-mean"].target(label, predicted, group))
            floors.append(floor.mean)
            inside.append(floor.band[0] <= gaps[-1] <= floor.band[1])
    gap, floor = np.reshape(gaps, (2, 60)).mean(1), np.reshape(floors, (2, 60)).mean(1)
    assert gap[1] > 1.7 * gap[0], "nothing but accuracy differs, yet the gap grows"
    assert np.allclose(gap, floor, atol=0.006) and np.mean(inside) > 0.88


# ---- Drift null ----------------------------------------------------------------------------------

# those of the package, and what a line in PROTOCOLS could add
KNOWN = {
    **{name: protocol for name, protocol in PROTOCOLS.items() if has_formula(protocol)},
    "newest, drawn": Protocol(start=True, batches="newest", drawn=True),
    "newest, drawn, fresh": Protocol(start=True, batches="newest", drawn=True, fresh=True),
    "batches": Protocol(start=False, batches="all"),
    "batches, drawn": Protocol(start=False, batches="all", drawn=True),
}


def brute(protocol, p, n, k, T, fresh, replicates, seed):
    """The arm `resample` image by image, by the words of the protocol table: shares of pool and
    batch, (T + 1, replicates)."""
    rng = np.random.default_rng(seed)
    assert (p * n).is_integer() and (p * fresh).is_integer(), "exact counts"
    start = np.broadcast_to(np.arange(n) < round(p * n), (replicates, n))
    reserve = np.broadcast_to(np.arange(fresh) < round(p * fresh), (replicates, fresh))
    everything = pool = start
    made = np.empty((replicates, 0), bool)
    pools, batches = [], []
    for _ in range(T + 1):
        batch = np.take_along_axis(pool, rng.integers(0, pool.shape[1], (replicates, k - fresh)), 1)
        pools.append(pool.mean(1))
        batches.append(batch.mean(1))
        everything = np.concatenate([everything, batch, reserve], 1)
        made = np.concatenate([made, batch], 1)
        newest = np.concatenate([start, batch, reserve], 1)
        pool = {
            "accumulate": everything,
            "fresh": everything,
            "latest": np.concatenate([start, batch], 1),
            "replace": batch,
            "subsample": rng.permuted(everything, axis=1)[:, :n],
            "newest, drawn": rng.permuted(newest, axis=1)[:, :n],
            "newest, drawn, fresh": rng.permuted(newest, axis=1)[:, :n],
            "batches": made,
            "batches, drawn": rng.permuted(made, axis=1)[:, :n],
        }[protocol]
    return np.array(pools), np.array(batches)


@pytest.mark.parametrize(("n", "k", "p"), [(40, 20, 0.3), (100, 50, 0.8)])
@pytest.mark.parametrize("protocol", KNOWN)
def test_drift_of_the_bootstrap_equals_the_closed_form_and_the_urn(protocol, n, k, p):
    k, T, replicates = n if protocol == "replace" else k, 5, 4000
    fresh = k // 2 if KNOWN[protocol].fresh else 0
    formula = drift_variance(KNOWN[protocol], p, n, k, T, fresh)
    counted = urn(KNOWN[protocol], p, n, k, T, fresh, replicates=replicates, seed=1)
    simulated = brute(protocol, p, n, k, T, fresh, replicates, seed=2)
    for variance, by_count, by_image in zip(formula, counted, simulated, strict=True):
        for shares in (by_count, by_image):
            drifts = variance > 0
            assert drifts[1:].all()
            assert np.allclose(shares[drifts].std(1), np.sqrt(variance[drifts]), rtol=0.05)
            error = np.sqrt(variance / replicates)
            assert (np.abs(shares.mean(1) - p) <= 4 * error + 1e-12).all()


def test_closed_forms_are_those_of_the_definitions():
    p, n, k, t = 0.2, 50, 25, np.arange(6)
    assert np.allclose(
        drift_variance(PROTOCOLS["replace"], p, n, n, 5)[0], p * (1 - p) * (1 - (1 - 1 / n) ** t)
    )
    factors = np.cumprod([1, *(1 - k / (n + i * k) ** 2 for i in range(1, 6))])
    assert np.allclose(
        drift_variance(PROTOCOLS["accumulate"], p, n, k, 5)[0], p * (1 - p) * (1 - factors)
    )
    pool = drift_variance(PROTOCOLS["latest"], p, n, k, 5)[0]
    assert np.allclose(pool[1:], (k / (n + k)) ** 2 * (pool[:-1] + (p * (1 - p) - pool[:-1]) / k))


def test_fresh_images_damp_drift_and_a_draw_adds_to_it():
    sd = {
        name: drift_variance(PROTOCOLS[name], 0.3, 40, 20, 3, fresh)[0][3]
        for name, fresh in (("accumulate", 0), ("fresh", 10), ("subsample", 0))
    }
    assert sd["fresh"] < sd["accumulate"] < sd["subsample"]


def test_impossible_nulls_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Weighted(Protocol):
        weighted: bool = False

    for arguments, words in (
        ((PROTOCOLS["balanced"], 0.5, 10, 10, 2), "no formula for the drift .* balanced=True"),
        ((Weighted(True, "all", weighted=True), 0.5, 10, 10, 2), "no formula .* weighted=True"),
        ((PROTOCOLS["accumulate"], 0.5, 10, 5, 2, 1), "takes no fresh images got 1"),
        ((PROTOCOLS["fresh"], 0.5, 10, 5, 2, 6), "cannot hold 6 fresh images"),
    ):
        with pytest.raises(ValueError, match=words):
            drift_variance(*arguments)
    assert has_formula(Weighted(True, "all"))
    with pytest.raises(ValueError, match="of must be 'pool' or 'batch'; got 'start'"):
        drift_band([resampled(0)], of="start")


# ---- Shares summed over classes ------------------------------------------------------------------

COUNTS = np.array([[60, 20, 20], [10, 45, 45], [34, 33, 33]])
FAVOURED = np.array([[1, -1, -1], [-1, 1, 1], [0, 0, 0]])


def resampled(seed, protocol="accumulate", q=150, T=3, confusion=None, condition="class"):
    """An outcome of the arm `resample`, image by image: what the figures draw bands for."""
    rng = np.random.default_rng(seed)
    told, told_group = (x.ravel() for x in np.indices(COUNTS.shape))
    label, group = np.repeat(told, COUNTS.ravel()), np.repeat(told_group, COUNTS.ravel())
    seen = group
    if confusion is not None:
        clear = confusion[group, :3].cumsum(1)
        seen = (rng.random(len(group))[:, None] > clear / clear[:, -1:]).sum(1)
    pool, batches = np.arange(len(label)), []
    asked = np.bincount(label) * q // len(label)
    for _ in range(T):
        of_class = [pool[label[pool] == y] for y in range(3)]
        batch = np.concatenate(
            [rng.choice(members, n) for members, n in zip(of_class, asked, strict=True)]
        )
        batches.append({"label": label[batch], "group": seen[batch]})
        pool = np.concatenate(
            [pool, batch] if protocol == "accumulate" else [np.arange(len(label)), batch]
        )
    e = SimpleNamespace(protocol=protocol, condition=condition, seed=seed)
    return SimpleNamespace(
        experiment=e,
        counts=COUNTS,
        favoured=FAVOURED,
        biased=True,
        groups=("a", "b", "c"),
        confusion=confusion,
        batches=batches,
    )


@pytest.mark.parametrize(
    "confusion", [None, np.array([[16, 3, 1, 0], [2, 17, 1, 0], [4, 0, 14, 2]])]
)
def test_overall_shares_of_a_resampling_loop_lie_in_their_band(confusion):
    outcomes = [resampled(seed, "latest", confusion=confusion) for seed in range(400)]
    band = (
        drift_band(outcomes[:1])
        .query("generation >= 0")
        .pivot(index=["metric", "group"], columns="generation")
    )
    inside = np.zeros((4, 3))
    for o in outcomes:
        for t, batch in enumerate(o.batches):
            share = [(batch["group"] == g).mean() for g in range(3)]
            # the order of the index
            share.insert(0, (o.favoured[batch["label"], batch["group"]] > 0).mean())
            inside[:, t] += (band.low[t] <= share) & (share <= band.high[t])
    assert (np.abs(inside / 400 - 0.95) < 0.035).all()


def test_the_band_of_shares_starts_at_the_start_and_is_nil_where_shares_are_told():
    band = drift_band([resampled(0)])
    first = band[band.generation == -1]
    assert np.allclose(first.low, first.start) and np.allclose(
        first.start, [*COUNTS.sum(0) / 300, 150 / 300]
    )
    told = drift_band([resampled(0, condition="group")])
    assert np.allclose(told.low, told.high)
    assert (drift_band([resampled(0)], of="pool").query("generation == 0").sd == 0).all()
    with pytest.raises(ValueError, match="nothing was added"):
        drift_band([SimpleNamespace(batches=[], in_start=lambda: COUNTS)])
