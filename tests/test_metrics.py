"""Metrics: hand-computed tables, fairlearn where both are defined, NaN rules, invariances, refusals by design."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from biasstudy import METRICS
from biasstudy.metrics import (
    accuracy_contrast,
    accuracy_gap,
    applicable,
    cell_accuracy,
    cells,
    class_accuracy,
    contrast_weights,
    equal_opportunity,
    equal_opportunity_max,
    equal_opportunity_mean,
    group_accuracy,
    measure,
    worst_group_accuracy,
)

# two classes, two groups: cell accuracies 1/2, 1/1 (class 0) and 2/2, 0/1 (class 1)
LABEL = np.array([0, 0, 0, 1, 1, 1])
GROUP = np.array([0, 0, 1, 0, 0, 1])
PREDICTED = np.array([0, 1, 0, 1, 1, 0])
BIASED = {"occurs": np.ones((2, 2), bool), "favoured": np.array([[1, -1], [-1, 1]])}


def random_predictions(seed, n=400, n_classes=4, n_groups=6, empty=True):
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, n_classes, n), rng.integers(0, n_groups, n)
    if empty:  # a group without images, and a class without one of its groups
        group[group == 2] = 3
        group[(label == 1) & (group == 4)] = 5
    predicted = np.where(rng.random(n) < 0.7, label, rng.integers(0, n_classes, n))
    return label, predicted, group


def test_a_table_computed_by_hand():
    a, n = cells(LABEL, PREDICTED, GROUP)
    assert a.tolist() == [[0.5, 1.0], [1.0, 0.0]] and n.tolist() == [[2, 1], [2, 1]]
    assert [v.value for v in group_accuracy(LABEL, PREDICTED, GROUP)] == [0.75, 0.5]
    assert [v.value for v in equal_opportunity(LABEL, PREDICTED, GROUP)] == [0.5, 1.0]
    assert equal_opportunity_mean(LABEL, PREDICTED, GROUP) == 0.75 and equal_opportunity_max(LABEL, PREDICTED, GROUP) == 1
    assert accuracy_gap(LABEL, PREDICTED, GROUP) == 0.25 and worst_group_accuracy(LABEL, PREDICTED, GROUP) == 0.5
    # class 0: favoured 0.5 - other 1.0 = -0.5; class 1: favoured 0.0 - other 1.0 = -1.0
    assert accuracy_contrast(LABEL, PREDICTED, GROUP, favoured=BIASED["favoured"]) == -0.75


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_fairlearn_where_both_are_defined(seed):
    label, predicted, group = random_predictions(seed, n=60 if seed % 2 else 400)
    frame = MetricFrame(metrics=accuracy_score, y_true=label, y_pred=predicted, sensitive_features=group)
    ours = {v.group: v.value for v in group_accuracy(label, predicted, group) if v.n}
    assert max(abs(ours[g] - value) for g, value in frame.by_group.items()) < 1e-12 and len(ours) == len(frame.by_group)
    assert abs(accuracy_gap(label, predicted, group) - frame.difference("between_groups")) < 1e-12
    assert abs(worst_group_accuracy(label, predicted, group) - frame.group_min()) < 1e-12
    within = MetricFrame(metrics=accuracy_score, y_true=label, y_pred=predicted, sensitive_features=group,
                         control_features=label)
    expected = within.difference("between_groups")
    for v in equal_opportunity(label, predicted, group):
        assert abs(v.value - expected[v.label]) < 1e-12


def test_undefined_is_nan_with_its_count_and_the_vanished_group_stays_a_row():
    occurs = np.ones((2, 3), bool)
    rows = {v.group: v for v in group_accuracy(LABEL, PREDICTED, GROUP, occurs=occurs)}
    assert np.isnan(rows[2].value) and rows[2].n == 0
    assert sum(v.n == 0 for v in cell_accuracy(LABEL, PREDICTED, GROUP, occurs=occurs)) == 2
    one = np.zeros(3, int)
    assert np.isnan(accuracy_gap(one, one, one)), "one group has no gap"
    assert np.isnan(equal_opportunity_max(one, one, one)) and np.isnan(equal_opportunity_mean(one, one, one))
    nothing = np.zeros(0, int)
    for name in METRICS:
        values = measure(name, nothing, nothing, nothing, design="crossed", biased=True, known=BIASED)
        assert all(np.isnan(v.value) and v.n == 0 for v in values), name


@pytest.mark.parametrize("seed", range(5))
def test_order_of_images_and_names_of_groups_do_not_matter(seed):
    label, predicted, group = random_predictions(seed)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(label)), rng.permutation(6)
    known = {"occurs": np.ones((4, 6), bool), "favoured": rng.choice([-1, 1], (4, 6))}
    renamed = {"occurs": known["occurs"], "favoured": known["favoured"][:, np.argsort(names)]}
    for name in METRICS:
        before = measure(name, label, predicted, group, design="crossed", biased=True, known=known)
        shuffled = measure(name, label[order], predicted[order], group[order], design="crossed", biased=True, known=known)
        other = measure(name, label, predicted, names[group], design="crossed", biased=True, known=renamed)
        for a, b in zip(before, shuffled, strict=True):
            assert np.isclose(a.value, b.value, rtol=0, atol=1e-12, equal_nan=True), name
        assert np.allclose(np.sort([v.value for v in before]), np.sort([v.value for v in other]), equal_nan=True), name


def test_perfect_predictions_have_no_gap():
    label, _, group = random_predictions(0)
    for name in METRICS:
        known = {"favoured": np.eye(4, 6, dtype=int) * 2 - 1}
        values = measure(name, label, label, group, design="crossed", biased=True, known=known)
        gap = "gap" in name or "opportunity" in name or "contrast" in name
        assert all(np.isnan(v.value) or abs(v.value - (0 if gap else 1)) < 1e-12 for v in values), name


def test_a_uniform_loss_of_accuracy_is_not_a_contrast():
    """Every cell loses the same share of its images: the signed contrast stays 0 where a max-min gap would widen."""
    label, group = (x.ravel() for x in np.mgrid[0:4, 0:5].repeat(100, axis=2))
    predicted = np.where(np.tile(np.arange(100) < 80, 20), label, (label + 1) % 4)
    favoured = np.where(np.arange(5) == np.arange(4)[:, None], 1, -1)
    assert abs(accuracy_contrast(label, predicted, group, favoured=favoured)) < 1e-12


def test_contrast_weights_are_the_contrast_and_ignore_classes_without_both_sides():
    label, predicted, group = random_predictions(3)
    favoured = np.where(np.arange(6) == np.arange(4)[:, None], 1, -1)
    favoured[0] = 0
    w = contrast_weights(label, group, favoured)
    assert (w[label == 0] == 0).all() and abs(w[w > 0].sum() - 1) < 1e-12 and abs(w[w < 0].sum() + 1) < 1e-12
    assert np.isnan(contrast_weights(label, group, np.zeros((4, 6), int))).all()
    a, n = cells(label, predicted, group, np.ones((4, 6), bool))
    by_hand = np.mean([a[y, y] - np.mean([a[y, g] for g in range(6) if g != y and n[y, g]]) for y in (1, 3)])
    favoured[2] = 0  # group 2 has no image, so class 2 has no favoured side
    assert abs(accuracy_contrast(label, predicted, group, favoured=favoured) - by_hand) < 1e-12


def test_what_a_design_forbids_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="is not defined for a grouped design: a class belongs to one group"):
        measure("equal-opportunity", LABEL, PREDICTED, GROUP, design="grouped", biased=False, known={})
    with pytest.raises(ValueError, match="'accuracy-contrast' needs a biased start"):
        measure("accuracy-contrast", LABEL, PREDICTED, GROUP, design="crossed", biased=False, known={})
    with pytest.raises(ValueError, match="unknown metric 'f1'; known: accuracy"):
        measure("f1", LABEL, PREDICTED, GROUP, design="crossed", biased=False, known={})
    assert "equal-opportunity" not in applicable("grouped", False) and "accuracy-contrast" not in applicable("nested", False)
    assert "equal-opportunity-mean" in applicable("nested", True)


def test_lengths_and_unknown_groups_are_checked():
    with pytest.raises(ValueError, match="equally long; got 6, 5, 6"):
        cells(LABEL, PREDICTED[:5], GROUP)
    with pytest.raises(ValueError, match="must be known"):
        cells(LABEL, PREDICTED, GROUP - 1)


def test_class_accuracy_counts():
    assert [(round(v.value, 3), v.n) for v in class_accuracy(LABEL, PREDICTED, GROUP)] == [(0.667, 3), (0.667, 3)]
