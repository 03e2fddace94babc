"""Power of the words: against the noncentral t where it is exact, and against whole studies."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from biasstudy.inference.intervals import two_way, two_way_interval
from biasstudy.inference.power import _refits, power, spread, spread_of

STRATUM = np.repeat(np.arange(5), 20)
NOTHING = np.zeros((2, 2))


def matrix(sd_a, sd_m, correlation):
    return np.array([[sd_a**2, correlation * sd_a * sd_m], [correlation * sd_a * sd_m, sd_m**2]])


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("family", [1, 4])
def test_with_a_fixed_margin_and_no_image_effect_it_is_the_noncentral_t(n, family):
    """One-sided t test of A - 0.01 at .025, and two of them at .05 (in closed form for A = 0)."""
    sd, change = 0.008, 0.02
    found = power(change, 0.04, matrix(sd, 0, 0), NOTHING, n, margin=0.01, family=family)
    bound = stats.t.ppf(1 - 0.025 / family, n - 1)
    for value, beyond in ((found.amplified, 0.01), (found.above, 0)):
        exact = stats.nct.sf(bound, n - 1, (change - beyond) / sd * np.sqrt(n))
        assert value == pytest.approx(exact, abs=0.015)
    rng, bound = np.random.default_rng(1), stats.t.ppf(1 - 0.05 / family, n - 1)
    d = sd * rng.standard_normal((40_000, n))
    half = bound * d.std(1, ddof=1) / np.sqrt(n)
    inside = np.abs(d.mean(1)) + half < 0.01
    still = power(0, 0.04, matrix(sd, 0, 0), NOTHING, n, margin=0.01, family=family)
    assert still.within == pytest.approx(inside.mean(), abs=0.015)


def studies(rng, change, level, per_seed, images, n, many):
    """Contributions of test images to A and M(none) of whole studies, (2, many, n, units); half of
    a seed's variance is of its models, half of the images that they err on."""
    units = len(STRATUM)

    def drawn(covariance, *shape):
        values, vectors = np.linalg.eigh(covariance)
        return rng.standard_normal((*shape, 2)) @ (vectors * np.sqrt(np.maximum(values, 0))).T

    of_seed = drawn(per_seed / 2, many, n, 1)
    of_image = np.sqrt(units) * drawn(images, many, 1, units)
    of_both = np.sqrt(units) * drawn(per_seed / 2, many, n, units)
    total = np.array([change, level]) + of_seed + of_image + of_both
    return np.moveaxis(total / units, -1, 0)


def p_above(per_unit):
    mean, se, df = two_way(per_unit, STRATUM)
    return stats.t.sf(mean / se, df)


@pytest.mark.parametrize("n", [6, 10])
@pytest.mark.parametrize("ratio", [0.0, 1.0, 3.0])
def test_it_is_the_share_of_whole_studies_that_get_the_word(ratio, n):
    """Models, seeds and test images drawn anew in every study; the words by `two_way` itself."""
    per_seed, family = matrix(0.008, 0.006, -0.6), 2
    images = ratio * per_seed / n
    for change in (0.0, 0.025):
        a, m = studies(np.random.default_rng(4), change, 0.06, per_seed, images, n, 2500)
        alpha = 0.05 / family
        beyond = np.maximum(p_above(a - m / 4), p_above(m))
        within = np.maximum(p_above(m / 4 - a), p_above(a + m / 4))
        found = power(change, 0.06, per_seed, images, n, family=family)
        assert found.amplified == pytest.approx(np.mean(2 * beyond < alpha), abs=0.03)
        assert found.within == pytest.approx(np.mean(within < alpha), abs=0.03)
        assert found.above == pytest.approx(np.mean(2 * p_above(a) < alpha), abs=0.03)


def test_words_are_rare_where_they_are_wrong():
    """At the margin itself: amplified in 2.5 %, within in 5 % of studies, at most."""
    per_seed, images = matrix(0.008, 0.005, -0.4), matrix(0.003, 0.002, 0)
    edge = power(0.01, 0.04, per_seed, images, 10)
    assert edge.amplified <= 0.03 and edge.within <= 0.055
    assert power(0, 0, per_seed, images, 10).amplified <= 0.03, "no contrast to amplify"


def test_under_six_seeds_there_is_no_word():
    few = power(0.1, 0.1, matrix(0.001, 0, 0), NOTHING, 5)
    assert np.isnan([few.amplified, few.within, few.above]).all()


def test_variances_are_found_again():
    """Mean over 300 studies of each part, beside what the studies were drawn from."""
    per_seed, images, n = matrix(0.010, 0.008, -0.5), matrix(0.006, 0.005, 0.3), 8
    drawn = studies(np.random.default_rng(5), 0.02, 0.05, per_seed, images, n, 300)
    found = [spread_of(drawn[:, i], STRATUM) for i in range(300)]
    for part, truth in (("seeds", per_seed / 2), ("noise", per_seed / 2), ("images", images)):
        mean = np.mean([getattr(s, part) for s in found], axis=0)
        assert mean == pytest.approx(truth, abs=0.12 * truth.max())
    assert np.mean([s.level for s in found]) == pytest.approx(0.05, abs=0.002)


def test_its_parts_are_those_of_the_interval():
    drawn = studies(
        np.random.default_rng(6), 0, 0.05, matrix(0.01, 0.01, 0), matrix(0.01, 0.01, 0), 40, 1
    )[:, 0]
    found, interval = spread_of(drawn, STRATUM), two_way_interval(drawn[0], STRATUM)
    assert found.images[0, 0] == pytest.approx(interval.images)
    assert (found.seeds + found.noise)[0, 0] == pytest.approx(40 * interval.seeds)
    per_seed, images = found.at(test_images=4)
    assert images == pytest.approx(found.images / 4)
    assert per_seed == pytest.approx(found.seeds + found.noise / 4)
    with pytest.raises(ValueError, match="with one classifier per seed"):
        found.at(classifiers=3)
    known = spread_of(drawn, STRATUM, refits=0.75)
    assert known.at(classifiers=3)[0] == pytest.approx((known.seeds + known.noise) / 2)


def test_variances_of_results_that_ship():
    from biasstudy.inference import contrast
    from biasstudy.report.shipped import reference

    results = reference("colorized_mnist_gan")
    found, a = spread(results), contrast(results, "A")
    assert found.n == 6 and np.isnan(found.refits)
    assert found.level == pytest.approx(
        np.mean([o.measure("accuracy-contrast").value.iloc[-1] for o in results.of("none")])
    )
    per_seed, images = found.at()
    assert per_seed[0, 0] >= 6 * a.seeds, "six seeds lay closer than their images alone would"
    assert images[0, 0] >= a.images


@pytest.mark.parametrize(("shared", "share"), [(0.0, 1.0), (1.0, 0.5)], ids=["no", "half"])
def test_refits_of_classifiers_have_their_part(shared, share):
    """What the classifiers of a seed have in common does not average out; half of the variance of
    their mean over two is of refits where one of them has twice the part that they share."""
    rng, weights = np.random.default_rng(7), np.full((400, 900), 1 / 900)

    def outcomes():
        common = 0.04 * np.sqrt(shared / 2) * rng.standard_normal((400, 1))
        accuracy = 0.5 + common + 0.04 * rng.standard_normal((400, 2))
        # as many images right as the accuracy says: nothing else is left to chance
        right = np.arange(900) < 900 * accuracy[..., None]
        return [SimpleNamespace(correct=lambda r=r: r[None]) for r in right]

    assert _refits(outcomes(), outcomes(), weights, -1) == pytest.approx(share, abs=0.1)
    alone = [SimpleNamespace(correct=lambda: np.ones((1, 1, 900), bool))] * 400
    assert np.isnan(_refits(alone, alone, weights, -1))
