"""Quality of generated images: torchmetrics and brute force as oracles, closed forms, null laws,
extreme generators."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from biasstudy.core.counts import largest_remainder
from biasstudy.measures import quality as q
from biasstudy.measures.quality import Sample, fid, kid, matched, precision_recall, quality

D = 6
MEASURES = [
    "kid",
    "kid-se",
    "fid",
    "precision",
    "recall",
    "density",
    "coverage",
    "copied-share",
    "nearest-ratio",
]


def real_data(n, seed, shift=0.0, d=D):
    """Features like those behind a ReLU: some are 0, and they depend on each other."""
    rng = np.random.default_rng([seed, n])
    mixing = np.random.default_rng(0).standard_normal((3, d))
    return np.maximum(
        (rng.standard_normal((n, 3)) + shift) @ mixing + rng.standard_normal((n, d)), 0
    )


def with_moments(n, mean, covariance, seed):
    """A sample whose mean and covariance are exactly these."""
    z = np.random.default_rng(seed).standard_normal((n, len(mean)))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return z @ np.linalg.cholesky(covariance).T + mean


def some(of, index):
    return Sample(of.features[index], of.label[index], of.group[index])


class Passing(nn.Module):
    """Takes features for images."""

    num_features = D

    def forward(self, x):
        return x


# ---- KID -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Metric `Kernel")
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_kid_is_that_of_torchmetrics(shift):
    x, y = real_data(150, 1), real_data(150, 2, shift)
    assert kid(x, y).value == pytest.approx(
        float(poly_mmd(torch.tensor(x), torch.tensor(y))), rel=1e-9
    )
    metric = KernelInceptionDistance(feature=Passing(), subsets=1, subset_size=150).set_dtype(
        torch.float64
    )
    metric.update(torch.tensor(x), real=True)
    metric.update(torch.tensor(y), real=False)
    assert kid(x, y).value == pytest.approx(float(metric.compute()[0]), rel=1e-9)


def kernel(x, y):
    return (x @ y / len(x) + 1) ** 3


def test_kid_of_unequal_sets_is_the_sum_over_pairs():
    x, y = real_data(9, 1), real_data(14, 2, 0.3)
    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(z, 2)]) for z in (x, y)]
    assert kid(x, y).value == pytest.approx(
        sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]), rel=1e-9
    )


@pytest.mark.parametrize("seed", [15, 20])
def test_the_squared_standard_error_is_the_one_unbiased_symmetric_estimate(seed):
    """KID^2 minus the mean product of two disjoint KIDs, the one symmetric statistic with mean Var
    KID (no part set to 0)."""
    x, y = real_data(4, seed, d=2), real_data(5, seed, 2.0, d=2)

    def one(i, j, p, r):
        cross = kernel(x[i], y[p]) + kernel(x[i], y[r]) + kernel(x[j], y[p]) + kernel(x[j], y[r])
        return kernel(x[i], x[j]) + kernel(y[p], y[r]) - cross / 2

    products = [
        one(i, j, p, r) * one(k, m, s, t)
        for i, j, k, m in itertools.permutations(range(4))
        for p, r, s, t in itertools.permutations(range(5), 4)
    ]
    value, se = kid(x, y)
    assert se**2 == pytest.approx(value**2 - np.mean(products), rel=1e-9)


@pytest.mark.parametrize(("m", "n", "shift"), [(40, 40, 0.0), (40, 100, 0.0), (40, 100, 0.3)])
def test_kid_is_unbiased_and_its_standard_error_calibrated(m, n, shift):
    rng = np.random.default_rng(7)
    drawn = [
        kid(rng.standard_normal((m, 20)), rng.standard_normal((n, 20)) + shift) for _ in range(600)
    ]
    value, se = np.array(drawn).T
    # E (x.y / D + 1)^3 with E x.y / D = s and Var x.y / D = v is (1 + s)^3 + 3 (1 + s) v, s and v
    # below
    t = shift**2
    real, fake, both = (
        (1 + s) ** 3 + 3 * (1 + s) * v
        for s, v in ((0, 1 / 20), (t, (1 + 2 * t) / 20), (0, (1 + t) / 20))
    )
    skew = 6 * t / 20**2  # third central moment of x.y / D where both have the mean `shift`
    assert abs(value.mean() - (real + fake + skew - 2 * both)) < 4 * value.std() / np.sqrt(
        len(value)
    )
    assert 0.85 < np.sqrt(np.mean(se**2)) / value.std(ddof=1) < 1.2


def test_the_standard_error_errs_upward_where_few_directions_matter():
    value, se = np.array([kid(real_data(60, i), real_data(90, 10_000 + i)) for i in range(400)]).T
    assert abs(value.mean()) < 4 * value.std() / np.sqrt(len(value))
    assert (
        0.9 < np.median(se) / value.std() < 1.2
        and 0.9 < np.sqrt(np.mean(se**2)) / value.std() < 1.5
    )


# ---- FID -----------------------------------------------------------------------------------------


def test_fid_of_two_gaussians_is_the_closed_form():
    a, b = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.25])
    x, y = with_moments(50, [0, 0, 0], np.diag(a), 1), with_moments(70, [1, 2, 0], np.diag(b), 2)
    assert fid(x, y) == pytest.approx(5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-9)


def test_fid_where_covariances_do_not_commute():
    x, y = real_data(300, 1), real_data(200, 2, 0.5)
    a, b, shift = np.cov(x.T), np.cov(y.T), x.mean(0) - y.mean(0)
    expected = shift @ shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert np.abs(a @ b - b @ a).max() > 0.01 and fid(x, y) == pytest.approx(expected, rel=1e-8)
    metric = FrechetInceptionDistance(feature=Passing(), input_img_size=(D,)).set_dtype(
        torch.float64
    )
    metric.update(torch.tensor(x), real=True)
    metric.update(torch.tensor(y), real=False)
    assert fid(x, y) == pytest.approx(float(metric.compute()), rel=1e-5)


def test_fid_stands_dead_features_and_is_zero_for_equal_sets():
    x, y = real_data(60, 1), real_data(60, 2, 0.5)
    dead = [np.hstack([z, np.zeros((60, 2)), z[:, :1]]) for z in (x, y)]
    assert fid(x, x) == pytest.approx(0, abs=1e-9) and fid(dead[0], dead[0]) == pytest.approx(
        0, abs=1e-9
    )
    # a feature twice weighs like sqrt(2) of it once
    doubled = [np.hstack([z[:, :1] * np.sqrt(2), z[:, 1:]]) for z in (x, y)]
    assert fid(*dead) == pytest.approx(fid(*doubled), rel=1e-8)


def test_fid_needs_more_images_than_features():
    assert np.isnan(fid(real_data(D, 1), real_data(50, 2))) and np.isnan(
        fid(real_data(50, 2), real_data(D, 1))
    )
    assert fid(real_data(D + 1, 1), real_data(50, 2)) > 0


# ---- Precision, recall, density, coverage --------------------------------------------------------


def brute_force(x, y, k):
    n = len(x)
    reach = [
        [
            sorted(np.linalg.norm(z[i] - z[j]) for j in range(n) if j != i)[k - 1] + 1e-7
            for i in range(n)
        ]
        for z in (x, y)
    ]
    inside = np.array(
        [[np.linalg.norm(x[i] - y[j]) <= reach[0][i] for j in range(n)] for i in range(n)]
    )
    recalled = [any(np.linalg.norm(x[i] - y[j]) <= reach[1][j] for j in range(n)) for i in range(n)]
    return inside.any(0).mean(), np.mean(recalled), inside.sum() / (k * n), inside.any(1).mean()


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("kind", ["apart", "copies", "doubles"])
def test_precision_and_recall_are_those_of_a_loop(k, kind, monkeypatch):
    x, y = real_data(40, 1), real_data(40, 2, 0.7)
    if kind == "copies":  # a copy of a neighbour lies exactly on the sphere
        y[:25] = x[:25]
    if kind == "doubles":  # the balls of some images have radius 0
        x[10:18], y[:6] = x[0], x[0]
    expected = brute_force(x, y, k)
    assert precision_recall(x, y, k) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(q, "ROWS", 7)
    assert precision_recall(x, y, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_a_copied_set_lies_on_its_own_spheres_whatever_the_rounding(k):
    x = np.random.default_rng(8).standard_normal((400, 40))
    y = x[np.random.default_rng(9).permutation(400)].astype(np.float32)
    assert precision_recall(x, y, k) == (1, 1, pytest.approx((k + 1) / k, abs=1e-12), 1)


def test_the_larger_set_is_cut_to_the_size_of_the_smaller_by_one_shuffle():
    x, y = real_data(90, 1), real_data(40, 2, 0.3)
    cut = x[np.sort(q._shuffled(90)[:40])]
    assert precision_recall(x, y) == precision_recall(cut, y) != precision_recall(x[:40], y)
    there, back = precision_recall(y, x), precision_recall(cut, y)
    assert there.precision == back.recall and there.recall == back.precision


def test_a_dropped_mode_lowers_recall_and_noise_lowers_precision():
    rng = np.random.default_rng(3)

    def modes(n, used, noise=1.0):
        return rng.standard_normal((n, D)) * noise + 20 * np.eye(D)[rng.integers(0, used, n)]

    real = modes(400, 4)
    good, dropped, noisy = (
        precision_recall(real, modes(400, *how)) for how in ((4,), (2,), (4, 3.0))
    )
    assert dropped.recall < 0.6 < good.recall and dropped.coverage < 0.6 < good.coverage
    assert dropped.precision > good.precision - 0.05
    assert (
        noisy.precision < 0.4 < good.precision
        and noisy.density < 0.3
        and noisy.recall > good.recall - 0.1
    )
    assert 0.85 < good.density < 1.15


def test_precision_needs_more_than_k_images():
    assert np.isnan(precision_recall(real_data(3, 1), real_data(50, 2))).all()
    assert not np.isnan(precision_recall(real_data(4, 1), real_data(50, 2))).any()
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        precision_recall(real_data(9, 1), real_data(9, 2), 0)


# ---- Copies --------------------------------------------------------------------------------------


def nearest(train, fake, held_out):
    return q.closer(q.to_nearest(train, fake), q.to_nearest(train, held_out))


def test_a_copying_generator_is_found_and_a_perfect_one_is_not():
    train, held_out = real_data(400, 1), real_data(300, 2)
    assert nearest(train, train[::2], held_out) == (1, 0)
    assert nearest(train, (train[::2] + 1e-9).astype(np.float32), held_out).copied_share == 1
    mixed = nearest(train, np.vstack([train[:100], real_data(100, 3) + 50]), held_out)
    assert mixed.copied_share == 0.5
    rng = np.random.default_rng(4)  # continuous features: no image coincides with another
    train = rng.standard_normal((400, D))
    perfect = [
        nearest(train, rng.standard_normal((200, D)), rng.standard_normal((150, D)))
        for _ in range(300)
    ]
    share, ratio = np.array(perfect).T
    assert abs(share.mean() - 0.01) < 4 * share.std() / np.sqrt(len(share)) < 0.003
    assert abs(ratio.mean() - 1) < 0.02


def test_nearest_distances_are_those_of_a_loop():
    train, images = real_data(300, 1), real_data(140, 2)
    expected = [min(np.linalg.norm(z - t) for t in train) for z in images]
    assert q.to_nearest(train, images) == pytest.approx(expected, rel=1e-9)
    assert q.to_nearest(train + 1e5, images + 1e5) == pytest.approx(expected, rel=1e-6, abs=1e-4)
    far = nearest(train, images, real_data(200, 3))
    assert far.ratio == pytest.approx(
        np.median(expected) / np.median(q.to_nearest(train, real_data(200, 3)))
    )


def test_the_nearest_check_is_nan_without_enough_held_out_images():
    train, fake = real_data(50, 1), real_data(50, 2)
    few, enough = (nearest(train, fake, real_data(98, 3)), nearest(train, fake, real_data(99, 3)))
    assert np.isnan(few.copied_share) and few.ratio > 0 and not np.isnan(enough.copied_share)
    assert (
        np.isnan(nearest(train, fake[:0], real_data(99, 3))).all()
        and np.isnan(nearest(train[:0], fake, real_data(99, 3))).all()
    )
    assert np.isnan(nearest(train, fake, train).ratio)


# ---- Real images of the start's shares -----------------------------------------------------------


def table_of(label, group, shape):
    table = np.zeros(shape, int)
    np.add.at(table, (label, group), 1)
    return table


@pytest.mark.parametrize("seed", range(20))
def test_matched_is_the_largest_proportional_subset(seed):
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, 3, 200), rng.integers(0, 4, 200)
    counts = rng.integers(0, 40, (3, 4))
    have, share = table_of(label, group, (3, 4)), counts / counts.sum()
    index = matched(label, group, counts)
    got = table_of(label[index], group[index], (3, 4))
    assert (np.diff(index) > 0).all() and (got <= have).all()
    assert np.abs(got - len(index) * share).max() < 1 and not got[counts == 0].any()
    assert ((len(index) + 1) * share > have + 1e-9).any(), "one more would still have fitted"


def test_matched_takes_everything_where_the_shares_agree_and_exact_multiples_else():
    label, group = np.repeat([0, 0, 1, 1], 30), np.tile([0, 1], 60)
    assert matched(label, group, np.array([[7, 7], [7, 7]])).tolist() == list(range(120))
    got = matched(label, group, np.array([[90, 10], [10, 90]]))
    assert (
        table_of(label[got], group[got], (2, 2)).tolist() == [[30, 3], [3, 30]] and len(got) == 66
    )
    assert set(matched(label, group, np.array([[90, 10], [0, 0]]))) <= set(got)
    assert (got == matched(label, group, np.array([[900, 100], [100, 900]]))).all()
    first = np.concatenate(
        [np.flatnonzero((label == y) & (group == g))[:3] for y, g in ((0, 1), (1, 0))]
    )
    assert not np.isin(first, got).all(), (
        "images are taken from anywhere in the test set, not from its beginning"
    )


def test_matched_is_empty_where_nothing_is_wanted_or_a_wanted_cell_has_no_image():
    label, group = np.array([0, 0, 1]), np.array([0, 1, 0])
    assert len(matched(label, group, np.zeros((2, 2), int))) == 0
    assert len(matched(label, group, np.array([[1, 1], [1, 1]]))) == 0
    assert matched(label, group, np.array([[5, 5], [5, 0]])).tolist() == [0, 1, 2]


def test_matched_takes_no_photograph_twice_and_every_one_that_fits():
    unit = np.repeat(np.arange(40), 3)  # 40 digits, 20 of each class, each painted in 3 colours
    label, group = unit % 2, np.tile(np.arange(3), 40)
    tables = (
        [[1, 1, 1], [1, 1, 1]],
        [[8, 1, 1], [1, 8, 1]],
        [[0, 7, 0], [0, 7, 0]],
        [[3, 1, 0], [0, 0, 0]],
    )
    for counts in (*tables, *np.random.default_rng(0).integers(0, 9, (40, 2, 3)).tolist()):
        counts = np.array(counts)
        got = matched(label, group, counts, unit)
        table = table_of(label[got], group[got], (2, 3))
        assert (
            len(np.unique(unit[got])) == len(got)
            and np.abs(table - len(got) * counts / counts.sum()).max() < 1
        )
        fits = [
            n
            for n in range(41)
            if (n * counts.sum(1) <= 20 * counts.sum()).all()
            and (largest_remainder(counts.ravel(), n).reshape(2, 3).sum(1) <= 20).all()
        ]
        assert len(got) == fits[-1]
    assert len(matched(label, group, np.ones((2, 3)))) == 120
    twice = matched(
        np.zeros(6, int), np.zeros(6, int), np.array([[1]]), np.array([0, 0, 0, 1, 1, 2])
    )
    assert len(twice) == 3


# ---- Everything together -------------------------------------------------------------------------

COUNTS = np.array([[60, 20], [20, 60]])


def sample(table, seed):
    """Features whose law depends on class and group, `table` images of each cell."""
    cell = np.repeat(np.arange(4), np.ravel(table))
    features = np.vstack([real_data(n, seed + c, 0.7 * c) for c, n in enumerate(np.ravel(table))])
    return Sample(features, cell // 2, cell % 2)


@pytest.fixture(scope="module")
def case():
    real, fake, train = (
        sample(np.full((2, 2), 150), 1),
        sample(COUNTS, 20),
        sample(COUNTS, 40).features,
    )
    return real, fake, train


def value(found, name, label=None, group=None):
    (only,) = [v for n, v in found if (n, v.label, v.group) == (name, label, group)]
    return only


def test_quality_has_every_measure_of_all_classes_and_groups(case):
    real, fake, train = case
    found = quality(real, fake, train, counts=COUNTS)
    of = [(None, None), (0, None), (1, None), (None, 0), (None, 1)]
    assert [(n, v.label, v.group) for n, v in found] == [(n, *w) for w in of for n in MEASURES] + [
        ("kid-gap", None, None)
    ]
    for label, group in of:
        wanted = np.where((np.arange(2)[:, None] == label) | (label is None), COUNTS, 0)
        wanted = np.where((np.arange(2) == group) | (group is None), wanted, 0)
        i = matched(real.label, real.group, wanted)
        j = ((fake.label == label) | (label is None)) & ((fake.group == group) | (group is None))
        x, y = real.features[i], fake.features[j]
        expected = [*kid(x, y), fid(x, y), *precision_recall(x, y), *nearest(train, y, x)]
        got = [value(found, name, label, group) for name in MEASURES]
        assert [v.value for v in got] == pytest.approx(expected, nan_ok=True, abs=1e-12)
        assert {v.n for v in got} == {min(len(x), j.sum())}
    kids = [value(found, "kid", group=g).value for g in (0, 1)]
    assert value(found, "kid-gap").value == pytest.approx(max(kids) - min(kids)) and max(
        kids
    ) != min(kids)


def test_a_batch_is_compared_with_real_images_of_the_shares_of_the_start():
    rng = np.random.default_rng(6)
    real, fake = (sample(table, 1) for table in (np.full((2, 2), 300), 3 * COUNTS))
    real, fake = (
        s._replace(
            features=(2 * s.group + s.label - 1.5)[:, None]
            + 0.5 * rng.standard_normal((len(s.group), D))
        )
        for s in (real, fake)
    )
    found = quality(real, fake, fake.features, counts=COUNTS)
    for key in ({}, {"label": 0}, {"label": 1}, {"group": 0}, {"group": 1}):
        assert abs(value(found, "kid", **key).value) < 3 * value(found, "kid-se", **key).value
    unmatched = kid(real.features[real.label == 1], fake.features[fake.label == 1])
    assert unmatched.value > 3 * unmatched.se


def test_a_photograph_in_two_colours_counts_once(case):
    real, fake, train = case
    doubled = Sample(*(np.concatenate([a, a]) for a in real[:3]), unit=np.tile(np.arange(600), 2))
    assert value(quality(doubled, fake, train, counts=COUNTS), "kid").n == 160
    i = matched(doubled.label, doubled.group, COUNTS, doubled.unit)
    assert (
        value(quality(doubled, fake, train, counts=COUNTS), "kid").value
        == kid(doubled.features[i], fake.features).value
    )
    assert len(i) == len(np.unique(i % 600)) == len(matched(real.label, real.group, COUNTS))


def test_images_of_unclear_group_stay_in_their_class(case):
    real, fake, train = case
    unclear = np.where(np.arange(160) % 4 == 0, -1, fake.group)
    found, before = (
        quality(real, fake._replace(group=g), train, counts=COUNTS) for g in (unclear, fake.group)
    )
    for key in ({}, {"label": 0}, {"label": 1}):
        assert value(found, "kid", **key) == value(before, "kid", **key)
    assert (
        [value(found, "kid", group=g).n for g in (0, 1)]
        == [np.sum(unclear == g) for g in (0, 1)]
        == [60, 60]
    )


def test_fewer_than_thirty_images_are_nan_with_their_number(case):
    real, fake, train = case
    few = np.r_[0:29, 80:160]  # 29 images of class 0, all of group 0
    found = quality(real, some(fake, few), train, counts=COUNTS)
    for name in MEASURES:
        assert np.isnan(value(found, name, label=0).value) and value(found, name, label=0).n == 29
    assert not np.isnan(value(found, "kid", label=1).value) and value(found, "kid").n == 109
    one_more = np.r_[0:30, 80:160]
    found = quality(real, some(fake, one_more), train, counts=COUNTS)
    assert not np.isnan([value(found, name, label=0).value for name in MEASURES]).any()


def test_n_is_the_number_of_images_on_the_smaller_side(case):
    real, fake, train = case
    # 30 of each cell; 3 to 1 leaves 10
    found = quality(some(real, slice(None, None, 5)), fake, train, counts=COUNTS)
    assert (
        value(found, "kid").n == 80
        and value(found, "fid", label=0).n == 40
        and value(found, "kid-gap").n == 80
    )


def test_a_vanished_group_is_a_row_and_no_gap(case):
    real, fake, train = case
    found = quality(real, fake._replace(group=np.zeros(160, int)), train, counts=COUNTS)
    assert value(found, "kid", group=1).n == 0 and np.isnan(value(found, "kid", group=1).value)
    assert np.isnan(value(found, "kid-gap").value)
    empty = quality(real, some(fake, slice(0)), train, counts=COUNTS)
    assert all(np.isnan(v.value) and v.n == 0 for _, v in empty)


def test_the_order_of_images_does_not_matter(case):
    real, fake, train = case
    # fewer than real ones everywhere: nothing is drawn from them
    fake = some(fake, slice(None, None, 2))
    order = np.random.default_rng(5).permutation(len(fake.label))
    one = quality(real, fake, train, counts=COUNTS)
    other = quality(real, some(fake, order), train[::-1], counts=COUNTS)
    assert [v.value for _, v in other] == pytest.approx(
        [v.value for _, v in one], rel=1e-9, nan_ok=True
    )


def test_values_depend_neither_on_block_size_nor_on_axes_nor_on_float32(case, monkeypatch):
    real, fake, train = case
    before = [v.value for _, v in quality(real, fake, train, counts=COUNTS)]
    monkeypatch.setattr(q, "ROWS", 13)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0]
    turned = [z.features @ turn for z in (real, fake)]
    after = quality(
        real._replace(features=turned[0]),
        fake._replace(features=turned[1]),
        train @ turn,
        counts=COUNTS,
    )
    assert [v.value for _, v in after] == pytest.approx(before, rel=1e-6, abs=1e-9, nan_ok=True)
    x, y = (z.features.astype(np.float32) for z in (real, fake))
    assert kid(x, y) == kid(x.astype(float), y.astype(float)) and fid(x, y) == fid(
        x.astype(float), y.astype(float)
    )


def test_errors_say_what_was_seen(case):
    real, fake, train = case
    with pytest.raises(ValueError, match=r"one D; got \(9, 6\) and \(9, 5\)"):
        kid(real_data(9, 1), real_data(9, 1, d=5))
    with pytest.raises(ValueError, match="must be finite"):
        fid(np.full((9, 2), np.nan), np.ones((9, 2)))
    with pytest.raises(
        ValueError,
        match="generated features, labels and groups must be equally many; got 160, 9 and 160",
    ):
        quality(real, fake._replace(label=fake.label[:9]), train, counts=COUNTS)
    with pytest.raises(ValueError, match="group of a real image must be 0 to 1; got -1 to 1"):
        quality(real._replace(group=real.group - (np.arange(600) == 0)), fake, train, counts=COUNTS)
    with pytest.raises(ValueError, match="counts must be a table"):
        matched(real.label, real.group, -COUNTS)
