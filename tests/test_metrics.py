"""Metrics: hand-computed tables, independent implementations, NaN rules, invariances, planted
effects, refusals by design."""

from fractions import Fraction

import numpy as np
import oracles
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equal_opportunity_ratio,
    equalized_odds_difference,
)
from sklearn.metrics import accuracy_score

from biasstudy import METRICS
from biasstudy.measures.floors import floor_of_level
from biasstudy.measures.metrics import applicable, cells, contrast_weights, measure, refusal
from biasstudy.measures.metrics.accuracy import (
    accuracy_gap,
    accuracy_of_cells,
    class_accuracy,
    group_accuracy,
    start_mix_accuracy,
    worst_cell_accuracy,
    worst_group_accuracy,
)
from biasstudy.measures.metrics.amplification import (
    bias_amplification,
    data_drift,
    model_amplification,
)
from biasstudy.measures.metrics.calibration import (
    calibration_error,
    calibration_gap,
    overconfidence,
)
from biasstudy.measures.metrics.contrast import (
    accuracy_contrast,
    group_dependence,
    relative_contrast,
)
from biasstudy.measures.metrics.disparity import class_disparity, disparity
from biasstudy.measures.metrics.multi_attribute import (
    multi_attribute_amplification,
    multi_attribute_variance,
)
from biasstudy.measures.metrics.opportunity import (
    equal_opportunity,
    equalized_odds,
    equalized_odds_strict,
    row_distance,
    within_class_ratio,
)
from biasstudy.measures.metrics.parity import demographic_parity, disparate_impact
from biasstudy.measures.metrics.predictability import predictability_amplification

# two classes, two groups: cell accuracies 1/2, 1/1 (class 0) and 2/2, 0/1 (class 1)
LABEL = np.array([0, 0, 0, 1, 1, 1])
GROUP = np.array([0, 0, 1, 0, 0, 1])
PREDICTED = np.array([0, 1, 0, 1, 1, 0])
FAVOURED = np.array([[1, -1], [-1, 1]])


def random_predictions(seed, n=400, n_classes=4, n_groups=6, empty=True):
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, n_classes, n), rng.integers(0, n_groups, n)
    if empty:  # a group without images, and a class without one of its groups
        group[group == 2] = 3
        group[(label == 1) & (group == 4)] = 5
    predicted = np.where(rng.random(n) < 0.7, label, rng.integers(0, n_classes, n))
    return label, predicted, group


def knowledge(label, n_classes=4, n_groups=6, seed=0):
    """Everything that a metric may ask for, at random; an association in the start, and a pool
    unlike it."""
    rng = np.random.default_rng(seed)
    favoured = np.where(np.arange(n_groups) == np.arange(n_classes)[:, None] % n_groups, 1, -1)
    return {
        "occurs": np.ones((n_classes, n_groups), bool),
        "favoured": favoured,
        "confidence": rng.random(len(label)),
        "unit": label * 1000 + rng.integers(0, 40, len(label)),
        "start_counts": 20 + 10 * favoured,
        "pool_counts": rng.integers(1, 50, (n_classes, n_groups)),
    }


def shown_in_every_group(n_classes=4, n_groups=5, per_cell=100):
    """Label, group and photograph of a crossed, paired test set."""
    label, unit, group = (x.ravel() for x in np.mgrid[:n_classes, :per_cell, :n_groups])
    return label, group, label * per_cell + unit


def asked(name, label, predicted, group, known, design="crossed"):
    return measure(name, label, predicted, group, design=design, biased=True, known=known)


def values(found):
    return np.array([v.value for v in found])


# ---- By hand, and by independent implementations -------------------------------------------------


def test_a_table_computed_by_hand():
    three = LABEL, PREDICTED, GROUP
    a, n = cells(*three)
    assert a.tolist() == [[0.5, 1.0], [1.0, 0.0]] and n.tolist() == [[2, 1], [2, 1]]
    assert values(group_accuracy(*three)).tolist() == [0.75, 0.5]
    assert [(round(v.value, 3), v.n) for v in class_accuracy(*three)] == [(0.667, 3), (0.667, 3)]
    assert (
        accuracy_gap(*three) == 0.25
        and worst_group_accuracy(*three) == 0.5
        and worst_cell_accuracy(*three) == 0
    )
    assert (
        start_mix_accuracy(*three, start_counts=np.array([[2, 0], [1, 1]]))
        == (2 * 0.5 + 1.0 + 0.0) / 4
    )
    assert values(equal_opportunity(*three)).tolist() == [0.5, 1.0]
    assert values(within_class_ratio(*three)).tolist() == [0.5, 0.0]
    # false positive rate of class 0: 0/2 in group 0, 1/1 in group 1; of class 1: 1/2 and 0/1
    assert (
        values(equalized_odds(*three)).tolist() == [1.0, 1.0] and equalized_odds_strict(*three) == 1
    )
    assert values(row_distance(*three)).tolist() == [0.5, 1.0]
    # class 0 is predicted for 1 of 4 in group 0, 2 of 2 in group 1
    assert values(demographic_parity(*three)).tolist() == [0.75, 0.75]
    assert values(disparate_impact(*three)).tolist() == [0.25, 0.0]
    # class 0: favoured 0.5 - other 1.0 = -0.5; class 1: favoured 0.0 - other 1.0 = -1.0
    assert accuracy_contrast(*three, favoured=FAVOURED) == -0.75
    # favoured 0.25 and other 1.0 on average: the mean 0.625 leaves room for a contrast of 0.75 at
    # most
    assert relative_contrast(*three, favoured=FAVOURED) == -1
    # variance of 3/4 and 1/2 is 1/32; noise 3/16 / 3 and 1/4 / 1, mean 5/32
    assert np.isclose(disparity(*three).value, 1 / 32 - 5 / 32, rtol=0, atol=1e-15)
    assert np.isnan(values(class_disparity(*three))).all(), "one image has no variance"
    for name, value in {
        "equal-opportunity-mean": 0.75,
        "equal-opportunity-max": 1,
        "within-class-ratio-mean": 0.25,
        "within-class-ratio-min": 0,
        "equalized-odds-mean": 1,
        "row-distance-mean": 0.75,
        "demographic-parity-mean": 0.75,
        "demographic-parity-max": 0.75,
        "disparate-impact-mean": 0.125,
        "disparate-impact-min": 0,
        "adjusted-accuracy": 0.625,
        "worst-class-accuracy": 2 / 3,
    }.items():
        assert [v[:2] for v in asked(name, *three, known={})] == [(value, 6)], name


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_fairlearn_where_both_are_defined(seed):
    label, predicted, group = three = random_predictions(seed, n=80 if seed % 2 else 400)
    frame = MetricFrame(
        metrics=accuracy_score, y_true=label, y_pred=predicted, sensitive_features=group
    )
    ours = {v.group: v.value for v in group_accuracy(*three) if v.n}
    assert max(abs(ours[g] - value) for g, value in frame.by_group.items()) < 1e-12 and len(
        ours
    ) == len(frame.by_group)
    assert abs(accuracy_gap(*three) - frame.difference("between_groups")) < 1e-12
    assert abs(worst_group_accuracy(*three) - frame.group_min()) < 1e-12
    with_odds = 0
    for k in range(4):
        truth, said, groups = label == k, predicted == k, {"sensitive_features": group}
        assert (
            abs(
                demographic_parity(*three)[k].value
                - demographic_parity_difference(truth, said, **groups)
            )
            < 1e-12
        )
        assert (
            abs(disparate_impact(*three)[k].value - demographic_parity_ratio(truth, said, **groups))
            < 1e-12
        )
        have = np.isin(group, group[truth])  # fairlearn takes the rate over no image for 0
        truth, said, groups = truth[have], said[have], {"sensitive_features": group[have]}
        assert (
            abs(
                equal_opportunity(*three)[k].value
                - equal_opportunity_difference(truth, said, **groups)
            )
            < 1e-12
        )
        assert (
            abs(
                within_class_ratio(*three)[k].value - equal_opportunity_ratio(truth, said, **groups)
            )
            < 1e-12
        )
        if have.all():
            with_odds += 1
            assert (
                abs(
                    equalized_odds(*three)[k].value
                    - equalized_odds_difference(truth, said, **groups)
                )
                < 1e-12
            )
    assert len(set(group)) == 5 and with_odds >= (1 if seed % 2 else 3)


@pytest.mark.parametrize("seed", range(6))
def test_vectorised_code_is_the_plain_loop(seed):
    label, predicted, group = three = random_predictions(seed, n=90 if seed % 2 else 400)
    unit = knowledge(label, seed=seed)["unit"]
    rows = {
        (y, g): np.bincount(predicted[here], minlength=4) / here.sum()
        for y in range(4)
        for g in range(6)
        if (here := (label == y) & (group == g)).any()
    }
    for y, found in enumerate(values(row_distance(*three))):
        mine = [row for (k, _), row in rows.items() if k == y]
        assert abs(found - max(abs(a - b).sum() / 2 for a in mine for b in mine)) < 1e-12
    strict = max(
        abs(rows[y, g] - rows[y, h]).max()
        for y in range(4)
        for g in range(6)
        for h in range(6)
        if {(y, g), (y, h)} <= set(rows)
    )
    assert abs(equalized_odds_strict(*three) - strict) < 1e-12
    overall, *by_class = group_dependence(*three, unit=unit)
    photographs = {u: set(predicted[unit == u]) for u in unit}
    assert overall.n == len(photographs) and overall.value == np.mean(
        [len(s) > 1 for s in photographs.values()]
    )
    for v in by_class:
        mine = [len(s) > 1 for u, s in photographs.items() if u // 1000 == v.label]
        assert v.n == len(mine) and abs(v.value - np.mean(mine)) < 1e-12
    # every image its own photograph: the textbook formula
    for y, v in enumerate(class_disparity(*three)):
        a, n = np.array(
            [(rows[k, g][y], ((label == y) & (group == g)).sum()) for k, g in rows if k == y]
        ).T
        a, n = a[n > 1], n[n > 1]
        assert (
            abs(v.value - (a.var(ddof=1) - np.mean(a * (1 - a) / (n - 1)))) < 1e-12
            and v.n == n.sum()
        )


# ---- Undefined, empty, invariant -----------------------------------------------------------------


def test_undefined_is_nan_with_its_count_and_the_vanished_group_stays_a_row():
    three, occurs = (LABEL, PREDICTED, GROUP), np.ones((2, 3), bool)
    for found in (
        group_accuracy(*three, occurs=occurs),
        calibration_error(*three, occurs=occurs, confidence=np.ones(6)),
        overconfidence(*three, occurs=occurs, confidence=np.ones(6)),
    ):
        rows = {v.group: v for v in found}
        assert np.isnan(rows[2].value) and rows[2].n == 0 and rows[1].n == 2
    assert sum(v.n == 0 for v in accuracy_of_cells(*three, occurs=occurs)) == 2
    zero, one = np.zeros(3, int), np.ones(3, int)
    for name in METRICS:
        if any(
            word in name
            for word in (
                "gap",
                "opportunity",
                "-ratio",
                "odds",
                "distance",
                "parity",
                "disparity",
                "impact",
            )
        ):
            known = {**knowledge(zero, 1, 1), "occurs": None}
            assert np.isnan(values(asked(name, zero, zero, zero, known))).all(), (
                f"{name} of one group"
            )
    never = within_class_ratio(zero, one, np.array([0, 1, 1]))
    assert np.isnan(never[0].value) and never[0].n == 3, (
        "a class that is never recognised has no ratio"
    )
    assert np.isnan(start_mix_accuracy(LABEL, PREDICTED, GROUP, start_counts=np.ones((2, 3), int)))
    assert np.isnan(bias_amplification(*three, start_counts=np.full((2, 2), 5))), (
        "no association, no direction"
    )
    lost = np.array([[8, 0], [2, 0]])  # the pool has lost group 1
    assert np.isclose(
        data_drift(*three, start_counts=np.array([[5, 3], [2, 5]]), pool_counts=lost).value,
        0.8 - 5 / 7,
    )
    assert np.isnan(data_drift(*three, start_counts=lost, pool_counts=lost).value), (
        "nor of a single group"
    )


def test_no_image_at_all_is_nan_with_no_count():
    nothing = np.zeros(0, int)
    known = knowledge(nothing) | {"pool_counts": np.zeros((4, 6), int)}
    for name in METRICS:
        for given in (known, {**known, "occurs": None}):
            assert all(
                np.isnan(v.value) and v.n == 0
                for v in asked(name, nothing, nothing, nothing, given)
            ), name


@pytest.mark.parametrize("seed", range(4))
def test_order_of_images_and_names_of_groups_do_not_matter(seed):
    label, predicted, group = random_predictions(seed, empty=seed > 1)
    rng = np.random.default_rng(seed)
    order, names, known = (
        rng.permutation(len(label)),
        rng.permutation(6),
        knowledge(label, seed=seed),
    )
    per_image = {k: known[k][order] for k in ("confidence", "unit")}
    renamed = {
        k: known[k][:, np.argsort(names)]
        for k in ("occurs", "favoured", "start_counts", "pool_counts")
    }
    for name in METRICS:
        before = asked(name, label, predicted, group, known)
        assert all(-1 <= v.value <= 1 or (seed > 1 and np.isnan(v.value)) for v in before), name
        assert all(type(v.value) is float and type(v.n) is int for v in before), name
        shuffled = asked(name, label[order], predicted[order], group[order], known | per_image)
        assert [v[1:] for v in before] == [v[1:] for v in shuffled], name
        assert np.allclose(values(before), values(shuffled), rtol=0, atol=1e-12, equal_nan=True), (
            name
        )
        other = asked(name, label, predicted, names[group], known | renamed)
        back = {(v.label, None if v.group is None else names[v.group]): v.value for v in before}
        assert np.allclose(
            [back[v.label, v.group] for v in other],
            values(other),
            rtol=0,
            atol=1e-12,
            equal_nan=True,
        ), name


# ---- Planted effects -----------------------------------------------------------------------------

# what fair and perfect predictions give; 0 where no word fits
FAIR = {"accuracy": 1, "ratio": 1, "impact": 1}


def fair_value(name):
    last = name.removesuffix("-mean").removesuffix("-min").removesuffix("-max").split("-")[-1]
    return FAIR.get(last, 0)


def test_perfect_predictions_on_a_balanced_test_set_are_fair():
    label, group, unit = shown_in_every_group(per_cell=10)
    known = knowledge(label, 4, 5) | {"unit": unit, "confidence": np.ones(len(label))}
    known["pool_counts"] = known["start_counts"]
    for name in METRICS:
        found = values(asked(name, label, label, group, known))
        assert (
            np.isnan(found).all()
            if name == "relative-contrast"
            else np.allclose(found, fair_value(name), atol=1e-12)
        ), name


def test_accuracy_lost_by_class_alone_is_no_unfairness_of_groups():
    """Classes lose 0, 10, 20 and 30 % of their photographs, the same in every group: group metrics
    stay at their floor."""
    label, group, unit = shown_in_every_group()
    predicted = np.where(unit % 100 < 10 * label, (label + 1) % 4, label)
    known = knowledge(label, 4, 5) | {"unit": unit}
    sure = ("overconfidence", "calibration-error", "calibration-gap")
    # a class that is predicted too often in all groups alike counts in the metrics of balanced data
    others = ("accuracy", "data-drift", "amplification", "multi-attribute-variance", *sure)
    about_groups = [name for name in METRICS if not name.endswith(others)]
    for name in [*about_groups, "bias-amplification"]:
        assert np.allclose(
            values(asked(name, label, predicted, group, known)), fair_value(name), atol=1e-12
        ), name
    assert len(about_groups) == 24
    for name in ("predictability-amplification", "multi-attribute-amplification"):
        found = asked(name, label, predicted, group, known)[0].value
        floor = floor_of_level(
            name, label, predicted, group, unit=unit, known=known, n_permutations=5
        )
        assert found > 0.02 and np.allclose(floor.values, found)


def test_a_uniform_loss_of_accuracy_changes_no_signed_metric():
    label, group, unit = shown_in_every_group()
    known = knowledge(label, 4, 5) | {"unit": unit}
    for lost in (0, 20, 60):
        predicted = np.where(unit % 100 < lost, (label + 1 + unit % 3) % 4, label)
        for name in ("accuracy-contrast", "disparity", "class-disparity-mean"):
            assert np.allclose(
                values(asked(name, label, predicted, group, known)), 0, atol=1e-12
            ), (name, lost)
        assert abs(asked("bias-amplification", label, predicted, group, known)[0].value) < 0.005


def test_contrast_weights_are_the_contrast_and_ignore_classes_without_both_sides():
    label, predicted, group = random_predictions(3)
    favoured = np.where(np.arange(6) == np.arange(4)[:, None], 1, -1)
    favoured[0] = 0
    w = contrast_weights(label, group, favoured)
    assert (
        (w[label == 0] == 0).all()
        and abs(w[w > 0].sum() - 1) < 1e-12
        and abs(w[w < 0].sum() + 1) < 1e-12
    )
    assert np.isnan(contrast_weights(label, group, np.zeros((4, 6), int))).all()
    a, n = cells(label, predicted, group, np.ones((4, 6), bool))
    by_hand = np.mean(
        [a[y, y] - np.mean([a[y, g] for g in range(6) if g != y and n[y, g]]) for y in (1, 3)]
    )
    favoured[2] = 0  # group 2 has no image, so class 2 has no favoured side
    assert abs(accuracy_contrast(label, predicted, group, favoured=favoured) - by_hand) < 1e-12


def test_relative_contrast_does_not_shrink_with_the_room_for_errors():
    """Half of the errors of favoured cells at any accuracy: the contrast falls, the relative one
    stays 1/3."""
    label, group, unit = shown_in_every_group(2, 2, 120)
    for errors in (10, 20, 40):
        predicted = np.where(
            unit % 120 < np.where(label == group, errors, 2 * errors), 1 - label, label
        )
        assert np.isclose(
            accuracy_contrast(label, predicted, group, favoured=FAVOURED), errors / 120
        )
        assert np.isclose(relative_contrast(label, predicted, group, favoured=FAVOURED), 1 / 3)


def test_disparity_is_0_on_average_where_groups_are_equal_and_the_true_variance_where_not():
    """Photographs of unequal difficulty. Shown in every group their errors go together, and the
    noise is less than in groups of different photographs."""
    rng = np.random.default_rng(0)
    label, group, unit = shown_in_every_group(1, 5, 60)
    own = np.arange(300)
    found = []
    for _ in range(400):
        hard = rng.random(60) < 0.3
        paired = (rng.random(300) < np.where(hard, 0.2, 0.95)[unit]).astype(int)
        alone = (rng.random(300) < 0.7 + 0.1 * (group - 2)).astype(int)
        found.append(
            [
                disparity(label, 1 - paired, group, unit=unit).value,
                disparity(label, 1 - paired, group).value,
                disparity(label, 1 - alone, group, unit=own).value,
                disparity(label, 1 - alone, group).value,
            ]
        )
    mean, se = np.mean(found, 0), np.std(found, 0) / 20
    assert abs(mean[0]) < 4 * se[0] and mean[1] < -10 * se[1], "pairing must be taken into account"
    assert abs(mean[2] - np.var([0.5, 0.6, 0.7, 0.8, 0.9], ddof=1)) < 4 * se[2]
    assert np.allclose(np.array(found)[:, 2], np.array(found)[:, 3], atol=1e-14)


# ---- Bias amplification --------------------------------------------------------------------------


def by_the_paper(label, predicted, group, start, weight=None, minus=None):
    """(1/|A||T|) sum_at y_at [P(That = t | a) - P(T = t | a)], one pair at a time in exact
    fractions.

    weight (class, group) -> weight of a test image; minus (class, group) -> what takes the place of
    P(T = t | a)
    """
    n_classes, n_groups = start.shape
    n, total = int(start.sum()), Fraction(0)
    images = [(int(y), int(k), int(g)) for y, k, g in zip(label, predicted, group, strict=True)]
    weight = weight or (lambda y, g: Fraction(1))
    for a in range(n_groups):
        mine = [(y, k, weight(y, a)) for y, k, g in images if g == a]
        everything = sum(w for *_, w in mine)
        for t in range(n_classes):
            together = Fraction(int(start[t, a]), n)
            apart = Fraction(int(start[:, a].sum()), n) * Fraction(int(start[t].sum()), n)
            said = sum((w for _, k, w in mine if k == t), Fraction(0)) / everything
            true = sum((w for y, _, w in mine if y == t), Fraction(0)) / everything
            total += ((together > apart) - (together < apart)) * (
                said - (minus(t, a) if minus else true)
            )
    return float(total / (n_classes * n_groups))


@pytest.mark.parametrize("seed", range(8))
def test_bias_amplification_is_the_formula_of_the_paper(seed):
    three = random_predictions(seed, 300, 4, 5, empty=False)
    rng = np.random.default_rng(seed)
    start, pool = rng.integers(1, 6, (4, 5)), rng.integers(0, 40, (4, 5))
    start[:2, :2] = 6 * np.ones((2, 2), int)  # ties are likely
    assert abs(bias_amplification(*three, start_counts=start) - by_the_paper(*three, start)) < 1e-12
    share = [[Fraction(int(pool[t, a]), int(pool[:, a].sum())) for a in range(5)] for t in range(4)]
    count = {
        (y, g): int(np.sum((three[0] == y) & (three[2] == g))) for y in range(4) for g in range(5)
    }
    model = by_the_paper(
        *three, start, lambda y, g: share[y][g] / count[y, g], lambda t, a: share[t][a]
    )
    assert abs(model_amplification(*three, start_counts=start, pool_counts=pool) - model) < 1e-12
    of_start = [
        [Fraction(int(start[t, a]), int(start[:, a].sum())) for a in range(5)] for t in range(4)
    ]
    both = by_the_paper(
        *three, start, lambda y, g: share[y][g] / count[y, g], lambda t, a: of_start[t][a]
    )
    drift = data_drift(*three, start_counts=start, pool_counts=pool)
    assert abs(drift.value + model - both) < 1e-12 and drift.n == pool.sum()


def test_a_test_set_with_the_shares_of_the_pool_needs_no_weights():
    pool = np.array([[30, 10, 0], [10, 20, 5]])
    label, group = (
        np.repeat(np.arange(6), pool.ravel()) // 3,
        np.repeat(np.arange(6), pool.ravel()) % 3,
    )
    predicted = np.where(np.random.default_rng(0).random(75) < 0.7, label, 1 - label)
    start = np.array([[9, 1, 1], [1, 9, 9]])
    plain = bias_amplification(label, predicted, group, start_counts=start)
    model = model_amplification(label, predicted, group, start_counts=start, pool_counts=pool)
    assert abs(model - plain) < 1e-12 and plain != 0


def test_bias_amplification_at_its_limit():
    """Ten balanced classes, predictions follow the group alone: 2 (1 - 1/K) / K."""
    label, group, _ = shown_in_every_group(10, 10, 3)
    start = 1 + 9 * np.eye(10, dtype=int)
    assert np.isclose(
        bias_amplification(label, group, group, start_counts=start), 2 * (1 - 1 / 10) / 10
    )
    assert np.isclose(
        bias_amplification(label, (group + 1) % 10, group, start_counts=start), -2 / 10 / 10
    )


@pytest.mark.parametrize("seed", range(3))
def test_in_a_nested_or_grouped_design_it_only_restates_accuracy(seed):
    rng = np.random.default_rng(seed)
    group, predicted = np.arange(600) % 20, rng.integers(0, 4, 600)
    label = group // 5
    start = rng.integers(5, 30, 20) * (np.arange(20) // 5 == np.arange(4)[:, None])
    error = np.mean([1 - v.value for v in group_accuracy(label, predicted, group)])
    assert np.isclose(
        bias_amplification(label, predicted, group, start_counts=start),
        -2 * error / 4,
        rtol=0,
        atol=1e-12,
    )
    label, predicted = group, rng.integers(0, 20, 600)
    group, start = label // 5, start.T
    left = np.mean([(predicted[group == g] // 5 != g).mean() for g in range(4)])
    assert np.isclose(
        bias_amplification(label, predicted, group, start_counts=start),
        -2 * left / 20,
        rtol=0,
        atol=1e-12,
    )
    assert "-2 x the mean error" in refusal("bias-amplification", "nested", True)


# ---- Predictability and multi-attribute amplification --------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_amplification_of_balanced_data_is_the_formula_of_its_papers(seed):
    """Groups may be empty; an unpredicted class and one without images count as well."""
    label, predicted, group = three = random_predictions(seed, 120, 3, 6, empty=seed % 2 == 1)
    found = predictability_amplification(*three, occurs=np.ones((3, 6), bool))
    assert abs(found - oracles.predictability_amplification(*map(list, three), 3)) < 1e-12
    hot = np.eye(3, dtype=int)
    mean, variance = oracles.multi_attribute_amplification(hot[label], hot[predicted], group)
    assert abs(multi_attribute_amplification(*three) - mean) < 1e-12
    assert abs(multi_attribute_variance(*three) - variance) < 1e-12


# images by (class, predicted, group), and DPA of the package bias-amplification 0.2.1: mean of 8
# attackers, logistic regression on the group for 15 epochs, tested on the same images, seed 0. (Its
# MDBA is 0 for any predictions: it divides each class by itself. It needs sphinx to be installed,
# so its values are kept instead.)
OF_THE_PACKAGE = [
    (
        {
            (0, 0, 0): 4000,
            (1, 1, 0): 2500,
            (1, 0, 0): 1500,
            (0, 0, 1): 2600,
            (0, 1, 1): 1400,
            (1, 1, 1): 4000,
        },
        0.1514,
    ),
    (
        {
            (0, 0, 0): 3200,
            (0, 1, 0): 800,
            (1, 1, 0): 3200,
            (1, 0, 0): 800,
            (0, 0, 1): 3200,
            (0, 1, 1): 800,
            (1, 1, 1): 3200,
            (1, 0, 1): 800,
        },
        0.0005,
    ),
    (
        {
            (0, 0, 0): 4200,
            (0, 1, 0): 1800,
            (1, 1, 0): 2000,
            (0, 0, 1): 2000,
            (1, 1, 1): 4200,
            (1, 0, 1): 1800,
        },
        -0.0992,
    ),
    (
        {
            (0, 0, 0): 6000,
            (1, 1, 0): 800,
            (1, 0, 0): 1200,
            (0, 0, 1): 800,
            (0, 1, 1): 1200,
            (1, 1, 1): 6000,
        },
        0.1429,
    ),
]


@pytest.mark.parametrize(("images", "theirs"), OF_THE_PACKAGE)
def test_predictability_amplification_is_that_of_trained_attackers(images, theirs):
    label, predicted, group = np.repeat(np.array(list(images)), list(images.values()), axis=0).T
    assert abs(predictability_amplification(label, predicted, group) - theirs) < 0.004


def test_amplification_at_its_limits():
    """K balanced classes, predictions follow the group alone: every attack on them succeeds."""
    label, group, _ = shown_in_every_group(10, 10, 3)
    assert np.isclose(predictability_amplification(label, group, group), (1 - 0.1) / (1 + 0.1))
    assert np.isclose(multi_attribute_amplification(label, group, group), 2 * (1 - 1 / 10) / 10)
    assert np.isclose(multi_attribute_variance(label, group, group), 0.09)
    elsewhere = (label + 1) % 10  # all wrong, yet the same in every group
    for metric in (
        predictability_amplification,
        multi_attribute_amplification,
        multi_attribute_variance,
    ):
        assert abs(metric(label, elsewhere, group)) < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_in_a_nested_design_multi_attribute_amplification_only_restates_accuracy(seed):
    rng = np.random.default_rng(seed)
    group, predicted = np.arange(600) % 20, rng.integers(0, 4, 600)
    label = group // 5
    error = np.mean([1 - v.value for v in group_accuracy(label, predicted, group)])
    found = multi_attribute_amplification(label, predicted, group)
    assert np.isclose(found, 2 * error / 4, rtol=0, atol=1e-12)
    assert "2 x the mean error" in refusal("multi-attribute-amplification", "nested", True)


# ---- Calibration ---------------------------------------------------------------------------------


def test_calibration_by_hand():
    three, confidence = (LABEL, PREDICTED, GROUP), np.array([0.99, 0.97, 0.5, 1.0, 0.2, 0.0])
    # right: 1 0 1 1 1 0. Last bin .99, .97, 1: |2.96 - 2|; 0.5: |.5 - 1|; 0.2: |.2 - 1|; 0: 0
    overall, first, second = calibration_error(*three, confidence=confidence)
    assert (
        np.isclose(overall.value, (0.96 + 0.5 + 0.8) / 6)
        and overall.n == 6
        and overall.group is None
    )
    assert (
        np.isclose(first.value, (0.96 + 0.8) / 4)
        and np.isclose(second.value, 0.5 / 2)
        and (first.n, second.n) == (4, 2)
    )
    assert np.allclose(
        values(overconfidence(*three, confidence=confidence)),
        [-0.34 / 6, (3.16 - 3) / 4, (0.5 - 1) / 2],
    )
    # 0.2 is the upper edge of the third bin, also in float32, where it is larger
    edge = np.array([0.2, 0.19], np.float32)
    zero = np.zeros(2, int)
    assert np.isclose(
        calibration_error(zero, np.array([0, 1]), zero, confidence=edge)[0].value,
        (1 - 0.2 - 0.19) / 2,
    )
    for wrong in (np.full(6, 1.2), np.full(6, np.nan), np.ones(5)):
        with pytest.raises(
            ValueError, match=r"confidence must be 6 probabilities in \[0, 1\]; got shape"
        ):
            overconfidence(*three, confidence=wrong)


def test_the_calibration_gap_is_the_widest_of_overconfidence():
    three, confidence = (LABEL, PREDICTED, GROUP), np.array([0.99, 0.97, 0.5, 1.0, 0.2, 0.0])
    _, first, second = overconfidence(*three, confidence=confidence)
    assert np.isclose(first.value, 3.16 / 4 - 3 / 4) and np.isclose(second.value, 0.25 - 0.5)
    assert np.isclose(calibration_gap(*three, confidence=confidence), 0.04 + 0.25)
    rng = np.random.default_rng(0)
    label, predicted, group = random_predictions(0)
    sure = rng.random(len(label))
    within = [(sure - (label == predicted))[group == g].mean() for g in set(group.tolist())]
    found = calibration_gap(label, predicted, group, confidence=sure)
    assert np.isclose(found, max(within) - min(within))


def test_calibration_error_equal_to_torchmetrics():
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    rng = np.random.default_rng(0)
    for sharpness in (1, 4):
        # they put 1.0 into a bin of its own
        p = rng.dirichlet(np.ones(4) / sharpness, 3000) * 0.999 + 0.00025
        label, group = rng.integers(0, 4, 3000), rng.integers(0, 5, 3000)
        found = calibration_error(label, p.argmax(1), group, confidence=p.max(1))
        for v in found:
            mine = np.full(3000, True) if v.group is None else group == v.group
            theirs = multiclass_calibration_error(
                torch.tensor(p[mine]), torch.tensor(label[mine]), 4, n_bins=15, norm="l1"
            )
            assert abs(v.value - float(theirs)) < 1e-5 and v.n == mine.sum()


# ---- Asking for metrics --------------------------------------------------------------------------

CROSSED_ONLY = {
    "bias-amplification",
    "data-drift",
    "model-amplification",
    "equalized-odds",
    "equalized-odds-mean",
    "equalized-odds-strict",
    "group-dependence",
    "demographic-parity",
    "demographic-parity-mean",
    "demographic-parity-max",
    "disparate-impact",
    "disparate-impact-mean",
    "disparate-impact-min",
    "predictability-amplification",
    "multi-attribute-amplification",
    "multi-attribute-variance",
}
WITHIN_CLASSES = {
    "equal-opportunity",
    "equal-opportunity-mean",
    "equal-opportunity-max",
    "within-class-ratio",
    "within-class-ratio-mean",
    "within-class-ratio-min",
    "row-distance",
    "row-distance-mean",
    "class-disparity",
    "class-disparity-mean",
}
BIASED = {
    "accuracy-contrast",
    "relative-contrast",
    "bias-amplification",
    "data-drift",
    "model-amplification",
}


def test_each_design_refuses_what_is_degenerate_in_it():
    everything = set(METRICS)
    assert set(applicable("crossed", True)) == everything
    assert set(applicable("crossed", True, paired=False)) == everything - {"group-dependence"}
    assert set(applicable("crossed", False)) == everything - BIASED
    assert set(applicable("nested", True)) == everything - CROSSED_ONLY
    assert set(applicable("grouped", True)) == everything - CROSSED_ONLY - WITHIN_CLASSES
    for name in METRICS:
        assert set(METRICS[name].traits.get("needs", ())) <= {"biased start", "paired"}
        for design in ("nested", "grouped"):
            reason = refusal(name, design, True)
            if reason:
                assert "\n" not in reason and reason.startswith(
                    f"metric {name!r} is not defined for a {design} design: "
                )
                with pytest.raises(ValueError, match="is not defined for"):
                    asked(name, LABEL, PREDICTED, GROUP, {}, design)


def test_what_cannot_be_measured_is_said_with_the_reason():
    three, crossed = (LABEL, PREDICTED, GROUP), {"design": "crossed", "known": {}}
    with pytest.raises(
        ValueError, match="is not defined for a grouped design: a class belongs to one group"
    ):
        measure("equal-opportunity", *three, design="grouped", biased=False, known={})
    with pytest.raises(
        ValueError,
        match="'accuracy-contrast' needs a biased start: an unbiased one favours no group",
    ):
        measure("accuracy-contrast", *three, biased=False, **crossed)
    with pytest.raises(
        ValueError, match="'group-dependence' needs every photograph in every group"
    ):
        measure("group-dependence", *three, biased=False, paired=False, **crossed)
    with pytest.raises(ValueError, match="unknown metric 'f1'; known: accuracy"):
        measure("f1", *three, biased=False, **crossed)
    with pytest.raises(
        ValueError, match="'data-drift' needs pool_counts, not known here; known: start_counts"
    ):
        asked("data-drift", *three, {"start_counts": FAVOURED + 2, "pool_counts": None})
    with pytest.raises(
        ValueError, match="'overconfidence' needs confidence, not known here; known: nothing"
    ):
        asked("overconfidence", *three, {})


def test_lengths_and_unknown_groups_are_checked():
    with pytest.raises(ValueError, match="equally long; got 6, 5, 6"):
        cells(LABEL, PREDICTED[:5], GROUP)
    with pytest.raises(ValueError, match="must be known"):
        asked("accuracy", LABEL, PREDICTED, GROUP - 1, {})
    with pytest.raises(ValueError, match=r"show 2 classes and 2 groups; expected at most \(2, 1\)"):
        asked("demographic-parity", LABEL, PREDICTED, GROUP, {"occurs": np.ones((2, 1), bool)})


# ---- Types ---------------------------------------------------------------------------------------


def _many():
    """Three hundred images of 20 classes in 20 groups: cells are numbered up to 399, beyond a
    byte."""
    rng = np.random.default_rng(0)
    label, group = np.arange(400) // 20, np.arange(400) % 20
    predicted = np.where(rng.random(400) < 0.7, label, rng.integers(0, 20, 400))
    return label, predicted, group


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint64"])
def test_any_integers_are_taken_and_give_the_same_values(dtype):
    label, predicted, group = _many()
    favoured = np.where((np.arange(20) + np.arange(20)[:, None]) % 3 == 0, 1, -1)
    known = {
        "favoured": favoured,
        "occurs": np.ones((20, 20), bool),
        "confidence": np.linspace(0.2, 1, 400),
        "start_counts": np.ones((20, 20), int),
        "pool_counts": np.ones((20, 20), int),
        "unit": np.arange(400),
    }
    narrow = [values.astype(dtype) for values in (label, predicted, group)]
    for name in applicable("crossed", True):
        wide = measure(name, label, predicted, group, design="crossed", biased=True, known=known)
        same = measure(name, *narrow, design="crossed", biased=True, known=known)
        assert np.array_equal([v.value for v in wide], [v.value for v in same], equal_nan=True), (
            name
        )
    assert np.array_equal(
        contrast_weights(label, group, favoured), contrast_weights(narrow[0], narrow[2], favoured)
    )
    floors = [
        floor_of_level("accuracy-gap", *arrays, n_permutations=20).values
        for arrays in ((label, predicted, group), narrow)
    ]
    assert (floors[0] == floors[1]).all()


@pytest.mark.parametrize(
    ("bad", "seen"),
    [
        (np.array(["cat"] * 400), "label must be whole numbers in one row; got <U3 .400,. such as"),
        (np.arange(400) / 20, "got float64 .400,. such as 0.0"),
        (np.array([None] * 400), "got object"),
        (np.zeros((400, 2), int), "got int64 .400, 2."),
    ],
)
def test_text_and_fractions_are_refused_in_one_sentence(bad, seen):
    _, predicted, group = _many()
    with pytest.raises(ValueError, match=seen) as error:
        measure("accuracy", bad, predicted, group, design="crossed", biased=False, known={})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (lambda: 1 / 0, "metric 'test-own' raised ZeroDivisionError: division by zero"),
        (lambda: [0.5, 0.6], "must return a number, a Value or a list of Values; got a list of fl"),
        (lambda: "high", "a list of Values; got str"),
        (lambda: None, "a list of Values; got NoneType"),
    ],
)
def test_what_an_own_metric_does_wrong_is_told_with_its_name(returned, reason):
    @METRICS.register("test-own")
    def own(label, predicted, group):
        return returned()

    try:
        with pytest.raises(ValueError, match=reason):
            measure("test-own", *3 * [np.zeros(2, int)], design="crossed", biased=False, known={})
    finally:
        del METRICS._entries["test-own"]
