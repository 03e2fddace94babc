"""Inference: closed forms against brute resampling, coverage, verdict words, and planted
effects."""

import dataclasses
import functools

import numpy as np
import pytest
from conftest import FLOAT64, tiny
from scipy import stats

from biasstudy import METRICS, Results, run
from biasstudy.bench.planted import favoured_cells, planted
from biasstudy.inference.contrasts import contrast, curve, headline, headline_weights, ranked
from biasstudy.inference.intervals import (
    Estimate,
    _variance_of_sum,
    detectable,
    holm,
    two_way,
    two_way_interval,
)
from biasstudy.inference.scales import growth
from biasstudy.inference.verdicts import (
    Change,
    Corrected,
    Verdict,
    change,
    corrected,
    in_words,
    sentence,
    sentences,
    verdict,
)
from biasstudy.measures.drift import drift_band
from biasstudy.measures.floors import floor_band

CLASSES, GROUPS = 6, 3
FAVOURED = favoured_cells(CLASSES, GROUPS)

ARMS = ("generated", "real", "resample", "none")


def test_the_closed_form_equals_brute_resampling_within_strata():
    rng = np.random.default_rng(0)
    stratum = np.repeat(np.arange(5), [10, 20, 5, 30, 8])
    x = rng.standard_normal(len(stratum)) * (1 + stratum)
    draws = np.zeros(20000)
    for h in range(5):
        members = x[stratum == h]
        n = len(members)
        # unbiased variance within the stratum
        draws += members[rng.integers(0, n, (20000, n))].sum(1) * np.sqrt(n / (n - 1))
    assert abs(_variance_of_sum(x, stratum) / draws.var() - 1) < 0.04


def test_one_level_of_it_is_the_bootstrap_of_scipy():
    """Test images of one stratum, and seeds: the closed form is the standard error that resampling
    finds, but for n - 1."""
    rng = np.random.default_rng(2)
    images, seeds = rng.standard_normal(40) ** 3, rng.standard_normal(8)
    for x, closed in (
        (images, np.sqrt(_variance_of_sum(images, np.zeros(40, int)) / 40**2)),
        (seeds, two_way_interval(seeds[:, None], np.zeros(1, int)).se),
    ):
        found = stats.bootstrap(
            (x,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
        )
        assert closed * np.sqrt((len(x) - 1) / len(x)) == pytest.approx(
            found.standard_error, rel=0.02
        )


def test_without_an_image_effect_the_interval_is_the_t_interval_over_seeds():
    d = np.random.default_rng(1).standard_normal((6, 1))
    found = two_way_interval(d, np.zeros(1, int))
    low, high = stats.t.interval(0.95, 5, d.mean(), stats.sem(d[:, 0]))
    assert np.allclose([found.low, found.high], [low, high]) and found.df == 5
    assert np.isclose(found.p, stats.ttest_1samp(d[:, 0], 0).pvalue)
    assert np.isclose(found.detectable, 1.43 * d.std(ddof=1), rtol=0.01), (
        "the design's figure for n = 6"
    )


def simulated(rng, studies, n, units=100, image_effect=0.0, heavy=False):
    """Contributions of test images to D_s in many studies whose true mean is 0: (studies, n,
    units).

    D_s = seed + mean over images of (image + noise); each effect has sd 1 in D_s, that of the
    images `image_effect`
    """
    draw = functools.partial(rng.standard_t, 3) if heavy else rng.standard_normal
    scale = np.sqrt(1 / 3) if heavy else 1
    seed, image, noise = draw((studies, n, 1)), draw((studies, 1, units)), draw((studies, n, units))
    return scale * (seed + np.sqrt(units) * (image_effect * image + noise)) / units


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "t with 3 df"])
@pytest.mark.parametrize("n", [6, 10])
@pytest.mark.parametrize("image_effect", [0.0, 0.8, 1.5])
def test_coverage_of_the_interval(image_effect, n, heavy):
    """New seeds and new test images in every one of 4,000 simulated studies."""
    per_unit = simulated(np.random.default_rng(5), 4000, n, image_effect=image_effect, heavy=heavy)
    mean, se, df = two_way(per_unit, np.repeat(np.arange(10), 10))
    inside = np.mean(np.abs(mean) <= stats.t.ppf(0.975, df) * se)
    assert 0.935 <= inside <= 0.97


def test_the_two_variances_are_unbiased():
    """se^2 is the variance of the mean over studies, at any share of the images."""
    for image_effect in (0.0, 1.5, 3.0):
        per_unit = simulated(np.random.default_rng(6), 4000, 6, image_effect=image_effect)
        mean, se, _ = two_way(per_unit, np.repeat(np.arange(10), 10))
        truth = (1 + 1) / 6 + image_effect**2
        assert mean.var() == pytest.approx(truth, rel=0.07) and np.mean(se**2) == pytest.approx(
            truth, rel=0.07
        )


def test_many_studies_at_once_are_each_as_one():
    per_unit, stratum = (
        simulated(np.random.default_rng(0), 3, 6, image_effect=1),
        np.repeat(np.arange(10), 10),
    )
    several = np.array(two_way(per_unit, stratum))
    one = [two_way_interval(x, stratum) for x in per_unit]
    assert np.allclose(several.T, [(e.mean, e.se, e.df) for e in one])


# ---- Verdict -------------------------------------------------------------------------------------


def of(d):
    return two_way_interval(np.array(d)[:, None], np.zeros(1, int))


def test_holm_rejects_step_by_step():
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert np.allclose(holm([0.5, np.nan, 0.9]), [1, np.nan, 1], equal_nan=True), (
        "nan is no hypothesis"
    )
    rng = np.random.default_rng(0)
    for p in rng.random((200, 4)) ** 3:
        by_hand, order = set(), np.argsort(p)
        for i, k in enumerate(order):
            if p[k] >= 0.05 / (4 - i):
                break
            by_hand.add(k)
        assert set(np.flatnonzero(holm(p) < 0.05)) == by_hand


def test_an_adjusted_p_below_a_twentieth_is_an_interval_without_0():
    for d in np.random.default_rng(1).standard_normal((200, 6)) + 0.8:
        found = of(d)
        for m in (1, 2, 3):
            low, high = found.interval(1 - 0.05 / m)
            assert (m * found.p < 0.05) == (low > 0 or high < 0)


def at_margin(mean, se, df):
    """A change whose margin is 0, so that every true change lies on it."""
    p = 2 * stats.t.sf(abs(mean) / se, df)
    a = Estimate(mean, 0, 0, se, df, p, se**2, 0.0, np.zeros(6))
    return Change(a, a, a, a, False, 0.0)


def test_false_alarms_of_a_family_stay_below_five_percent():
    """Three data sets, no effect in any: how often does any of them get amplified or reduced?"""
    rng, families, stratum, alarms = np.random.default_rng(2), 2000, np.repeat(np.arange(10), 10), 0
    mean, se, df = two_way(simulated(rng, 3 * families, 6, image_effect=0.8), stratum)
    p = 2 * stats.t.sf(np.abs(mean) / se, df)
    for family in np.arange(3 * families).reshape(families, 3):
        adjusted = holm(p[family])
        if adjusted.min() > 0.2:
            continue  # far from any alarm
        words = [
            verdict(at_margin(mean[i], se[i], df[i]), Corrected(1, float(p_adjusted), 1)).word
            for i, p_adjusted in zip(family, adjusted, strict=True)
        ]
        alarms += any(word in ("amplified", "reduced") for word in words)
    assert 0.02 < alarms / families < 0.05 + 3 * np.sqrt(0.05 * 0.95 / families)


def changed(d, level=None, margin=0.02):
    """A change with these differences; its margin a quarter of `level` where that is given."""
    a = of(d)
    if level is None:
        return Change(a, of(0 * a.per_seed), a.shifted(-margin), a.shifted(margin), False, margin)
    level = np.array(level)
    above, below = (of(a.per_seed + sign * level / 4) for sign in (-1, 1))
    return Change(a, of(level), above, below, True, level.mean() / 4)


def test_verdict_words():
    clear = changed([0.05, 0.06, 0.05, 0.06, 0.05, 0.06])
    assert verdict(clear).word == "amplified"
    assert verdict(clear, Corrected(0.01, 0.04, 1)).word == "amplified"
    not_corrected = verdict(clear, Corrected(0.01, 0.06, 1))
    assert not_corrected.word == "cannot tell" and str(not_corrected) == "cannot tell, above 0"
    assert verdict(changed([-0.05, -0.06, -0.05, -0.06, -0.05, -0.06])).word == "reduced"
    still = verdict(changed([0.001, -0.001, 0.002, -0.002, 0.001, -0.001]))
    assert still.word == "within the margin" and str(still) == "within 0.02"
    inside = verdict(changed([0.010, 0.011, 0.010, 0.011, 0.010, 0.011]))
    assert str(inside) == "within 0.02, above 0", "a change that is there, but is small"
    assert verdict(changed([0.05] * 5)).word == "no verdict with fewer than 6 seeds"
    open_ = changed([0.2, -0.1, 0.1, -0.2, 0.1, 0.05])
    assert verdict(open_) == Verdict("cannot tell", "", "0.02", open_.a.detectable)


def test_a_quarter_of_the_contrast_is_the_margin():
    level = [0.08, 0.081, 0.079, 0.08, 0.081, 0.079]
    assert str(verdict(changed([0.03, 0.031, 0.03, 0.029, 0.03, 0.03], level))) == "amplified"
    assert str(verdict(changed([-0.03, -0.031, -0.03, -0.029, -0.03, -0.03], level))) == "reduced"
    assert (
        str(verdict(changed([0.01, 0.011, 0.01, 0.009, 0.01, 0.01], level)))
        == "within a quarter, above 0"
    )
    assert str(verdict(changed([0.02, 0.021, 0.02, 0.019, 0.02, 0.02], level))) == (
        "cannot tell, above 0"
    ), "on the margin"
    absent = [0.01, -0.01, 0.012, -0.01, 0.01, -0.012]
    assert verdict(changed([0.03, 0.031, 0.03, 0.029, 0.03, 0.03], absent)).word == "cannot tell", (
        "without a contrast nothing can grow by a quarter of it"
    )


def test_where_favoured_groups_are_served_worse_there_is_no_verdict():
    """A quarter of a contrast below 0 is a margin below 0: nothing could ever be shown."""
    level = [-0.18, -0.181, -0.179, -0.18, -0.181, -0.179]
    for d in ([0.03, 0.031, 0.03, 0.029, 0.03, 0.03], [0.001, -0.001, 0.002, -0.002, 0.001, 0]):
        judged = verdict(changed(d, level))
        assert str(judged) == "no verdict where favoured groups are served worse"
    by_chance = [0.01, -0.02, 0.012, -0.02, 0.01, -0.022]
    assert verdict(changed([0.03, 0.031] * 3, by_chance)).word == "cannot tell", "not shown"
    in_accuracy = changed([0.05, 0.051] * 3)
    assert not in_accuracy.served_worse and verdict(in_accuracy).word == "amplified"


def test_growth_lies_above_a_quarter_where_the_word_is_amplified():
    rng, agree, words = np.random.default_rng(11), 0, []
    before = 0.9 - 0.06 * (FAVOURED < 0)
    for loss in np.linspace(0, 0.06, 25):
        results = planted(rng, {"generated": before - loss * (FAVOURED < 0), "none": before}, n=12)
        found, low, high = growth(results)
        words.append(verdict(change(results)).word)
        agree += (low > 0.25) == (words[-1] == "amplified")
        assert low <= found <= high
    assert agree == 25 and {"amplified", "cannot tell"} <= set(words)


def test_more_seeds_lead_out_of_cannot_tell_and_nowhere_else():
    """A true change of a third of the margin: at every n the wrong words are rare, and the right
    one becomes common."""
    rng, right = np.random.default_rng(12), {}
    before = 0.9 - 0.08 * (FAVOURED < 0)
    for n in (6, 12, 30):
        words = [
            verdict(
                change(
                    planted(rng, {"generated": before - 0.007 * (FAVOURED < 0), "none": before}, n)
                )
            ).word
            for _ in range(40)
        ]
        assert words.count("amplified") + words.count("reduced") <= 4
        right[n] = words.count("within the margin")
    assert right[6] < right[12] < right[30]


def test_attribution_goes_both_ways():
    rng, before = np.random.default_rng(13), 0.9 - 0.1 * (FAVOURED < 0)
    less, more = before + 0.08 * (FAVOURED < 0), before - 0.08 * (FAVOURED < 0)
    said = {
        name: sentence(planted(rng, {"generated": g, "none": before, "real": r}, n=20))
        for name, (g, r) in {
            "up": (more, before),
            "up too": (more, more),
            "down": (less, before),
            "down too": (less, less),
        }.items()
    }
    told = "exploratory, fitness not measured."
    assert f"amplified, more than with new real images, {told}" in said["up"]
    assert (
        f"not shown to be more than with new real images: R is not above 0, {told}"
        in said["up too"]
    )
    assert f"reduced, more than with new real images, {told}" in said["down"]
    assert (
        f"not shown to be more than with new real images: R is not below 0, {told}"
        in said["down too"]
    )


def test_the_smallest_detectable_change_is_the_designs():
    for n, factor in ((6, 1.43), (10, 1.00)):
        d = np.random.default_rng(n).standard_normal(n)
        assert of(d).detectable == pytest.approx(factor * d.std(ddof=1), rel=0.01)


@pytest.mark.parametrize("n", [6, 10])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_a_detectable_change_is_found_with_80_percent_power(ratio, n):
    """Seeds and test images drawn anew in each of 4,000 studies; var(D_s) is 1 + 1 for new seeds,
    the images' part of the mean `ratio` times the seeds'."""
    seeds = 2 / n
    effect = np.sqrt(ratio * seeds)
    per_unit = simulated(np.random.default_rng(9), 4000, n, image_effect=effect)
    mean, se, df = two_way(per_unit, np.repeat(np.arange(10), 10))
    change = detectable(seeds, ratio * seeds, n)
    found = np.abs(mean + change) > stats.t.ppf(0.975, df) * se
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_the_two_parts_of_a_variance_and_what_follows_from_them():
    per_unit = simulated(np.random.default_rng(3), 1, 8, image_effect=1.5)[0]
    found = two_way_interval(per_unit, np.repeat(np.arange(10), 10))
    assert found.seeds == pytest.approx(found.per_seed.var(ddof=1) / 8) and found.images > 0
    assert found.se**2 == pytest.approx(found.seeds + found.images)
    assert found.detectable == detectable(found.seeds, found.images, 8)
    two_sided = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable(0, 0.01, 6) == pytest.approx(0.1 * two_sided, rel=1e-3), "no seeds' part"
    assert detectable(0, 0, 6) == 0 and np.isnan(detectable(0.1, 0, 1))
    assert np.isnan(of([0.1]).detectable) and np.isnan(of([0.1]).seeds)


@pytest.mark.parametrize("d", [[0.1 + 0.2, 0.3], [0.0] * 6, [-0.05] * 6])
def test_seeds_of_one_value_show_no_spread_and_so_nothing(d):
    """Rounding counts as none: 0.1 + 0.2 is not 0.3."""
    same = of(d)
    assert np.isnan([same.low, same.high, same.detectable, *same.interval(0.5)]).all()
    assert same.se == 0 and same.p == 1 and same.mean == pytest.approx(d[0])
    moved = same.shifted(-0.2)
    assert np.isnan(moved.low) and moved.p == 1
    assert in_words(same) == f"{d[-1]:+.3f} (no spread: no interval)"
    assert in_words(of([0.3, 0.3 + 1e-6])) == "+0.300 [+0.300, +0.300]", "a spread, if a small one"


def test_images_that_differ_are_a_spread_though_seeds_agree():
    """Two seeds with one D, of test images that both get right or both get wrong."""
    per_unit = np.tile([0.0, 0.0, 0.1, 0.1], (2, 1))
    found = two_way_interval(per_unit, np.zeros(4, int))
    assert found.seeds == 0 and found.images > 0
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 1) * found.se)


def test_six_seeds_without_spread_have_no_verdict_but_cannot_tell():
    nothing = verdict(changed([0.0] * 6))
    assert nothing.word == "cannot tell" and nothing.clause == "" and np.isnan(nothing.detectable)
    assert verdict(changed([0.05] * 6)).word == "cannot tell", "0.05 six times is no knowledge"


# ---- Planted effects -----------------------------------------------------------------------------


def test_a_loss_of_classes_is_not_called_amplified_and_a_loss_of_groups_is():
    rng, words = np.random.default_rng(6), {"classes": [], "groups": []}
    before = np.full((CLASSES, GROUPS), 0.9)
    losses = {
        "classes": np.linspace(0, 0.3, CLASSES)[:, None] * np.ones(GROUPS),
        "groups": 0.12 * (FAVOURED < 0),
    }
    for what, loss in losses.items():
        for _ in range(100):
            found = change(planted(rng, {"generated": before - loss, "none": before}), margin=0.0)
            words[what].append(verdict(found).word)
    assert words["classes"].count("amplified") <= 8, "5 % false alarms on both sides"
    assert words["groups"].count("amplified") >= 95
    study = planted(rng, {"generated": before - losses["classes"], "none": before})
    gap, floor = (
        curve_of(study, "equal-opportunity-mean"),
        floor_band(study.of("generated"), "equal-opportunity-mean", 300),
    )
    assert gap["generated"] > 1.2 * gap["none"], "the gap does widen"
    assert floor.low[0] < gap["generated"] < floor.high[0], "as its floor does"


def curve_of(study, metric):
    return {
        arm: np.mean(
            [METRICS[metric].target(o.label, o.predicted[0, 0], o.group) for o in study.of(arm)]
        )
        for arm in ("generated", "none")
    }


def test_sentences_correct_for_the_number_of_studies():
    rng, before = np.random.default_rng(8), 0.9 - 0.1 * (FAVOURED < 0)
    named = {
        f"study {i}": planted(
            rng, {"generated": before - loss * (FAVOURED < 0), "none": before, "real": before}
        )
        for i, loss in enumerate((0.2, 0.0, 0.0))
    }
    named["few"] = planted(rng, {"generated": before, "none": before}, n=3)
    named["bare"] = planted(rng, {"generated": before})
    first, *_, few, bare = sentences(named)
    assert first.startswith("study 0: ") and ": amplified, more than" in first and "R = " in first
    changes = [change(study) for name, study in named.items() if name != "bare"]
    adjusted = corrected([*changes, None])
    for name, p_of in (
        ("differs", lambda c: c.a.p),
        ("changed", lambda c: c.p_changed),
        ("within", lambda c: c.p_within),
    ):
        got = [getattr(p, name) for p in adjusted]
        assert np.allclose(got[:3], holm([p_of(c) for c in changes[:3]]))
        assert np.isnan(got[3:]).all(), "too few seeds, or no arm none"
    assert ": no verdict with fewer than 6 seeds, fitness not measured. A = " in few
    assert bare == "bare: No answer: the arms generated and none are needed."


def test_a_part_of_a_family_is_told_no_more_than_the_whole():
    rng, before = np.random.default_rng(14), 0.9 - 0.1 * (FAVOURED < 0)
    after = before - 0.1 * (FAVOURED < 0)
    changes = [change(planted(rng, {"generated": after, "none": before})) for _ in range(4)]
    whole = corrected(changes)
    for c, p in zip(changes, whole, strict=True):
        (alone,) = corrected([c], family=4)
        assert alone.changed == min(1, 4 * c.p_changed) >= p.changed
    assert corrected(changes, family=4) == whole, "all are there"
    assert corrected(changes[:1])[0].changed == changes[0].p_changed


def test_a_filtered_study_is_compared_with_filtered_real_images():
    rng, before = np.random.default_rng(9), np.full((CLASSES, GROUPS), 0.9)
    study = planted(
        rng, {"generated": before, "none": before, "real-filtered": before}, filter="classifier"
    )
    assert "F = generated - real-filtered = " in sentence(study) and contrast(study, "F").n == 6


# ---- Studies that were run -----------------------------------------------------------------------


def test_groups_are_ranked_over_classes_if_crossed_and_within_classes_if_nested():
    accuracy = np.array([[0.9, 0.5, 0.7, np.nan], [0.8, 0.4, 0.99, np.nan]])
    assert ranked(accuracy, "nested").tolist() == [[1, -1, 0, 0], [0, -1, 1, 0]]
    crossed = np.array([[0.9, 0.5, 0.7], [0.8, 0.4, 0.75]])
    assert ranked(crossed, "crossed").tolist() == [[1, -1, 0], [1, -1, 0]]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    seeds = [tiny(start="biased", bias=0.7, n_test=50, n_generations=1, seed=s) for s in range(3)]
    return run(
        [e.to_arm(arm) for e in seeds for arm in ARMS],
        numerics=FLOAT64,
        where=tmp_path_factory.mktemp("study"),
    )


def test_the_headline_of_a_biased_start_is_its_metric(study):
    table = study.table.query("metric == 'accuracy-contrast' and arm == 'generated'")
    assert np.allclose(
        headline(study.of("generated")),
        table.pivot(index="seed", columns="generation", values="value"),
    )


def test_contrasts_are_differences_of_the_last_generation(study):
    generated, none = headline(study.of("generated")), headline(study.of("none"))
    assert np.allclose(contrast(study, "A").per_seed, (generated - none)[:, -1])
    assert np.allclose(contrast(study, "A", generation=0).per_seed, 0), (
        "all arms share generation 0"
    )
    assert "n = 3 seeds" in sentence(study) and "no verdict with fewer than 6 seeds" in sentence(
        study
    )


def test_an_unbiased_start_is_ranked_by_the_other_seeds_only(study):
    outcomes = [
        dataclasses.replace(o, favoured=np.zeros_like(o.favoured)) for o in study.of("generated")
    ]
    before = headline_weights(outcomes)[0]
    changed = [
        dataclasses.replace(outcomes[0], predicted=np.zeros_like(outcomes[0].predicted)),
        *outcomes[1:],
    ]
    assert (headline_weights(changed)[0] == before).all(), (
        "a seed's own errors must not rank its groups"
    )
    assert np.isnan(headline_weights(outcomes[:1])).all(), "one seed: nothing ranks the groups"


def test_curves_are_the_tables(study):
    mine = study.of("generated")
    table = study.table.query("metric == 'accuracy-gap' and arm == 'generated'")
    assert np.allclose(
        curve(mine, "accuracy-gap"), table.pivot(index="seed", columns="generation", values="value")
    )
    with pytest.raises(ValueError, match="one value; 'group-accuracy' has several"):
        curve(mine, "group-accuracy")


def test_bands_of_a_study_match_its_table(study):
    mine = study.of("resample")
    floor = floor_band(mine, "accuracy-gap", 200)
    assert (
        floor.generation.tolist() == [0, 1]
        and ((floor.low <= floor["mean"]) & (floor["mean"] <= floor.high)).all()
    )
    assert set(drift_band(mine).metric) == {"group-share", "favoured-share"}
    with pytest.raises(ValueError, match="nothing was added"):
        drift_band(study.of("none"))


def test_missing_arms_and_mixed_numerics_are_refused(study):
    with pytest.raises(ValueError, match="unknown contrast 'B'"):
        contrast(study, "B")
    with pytest.raises(ValueError, match="needs the arms generated and real with the same seeds"):
        contrast(Results([o for o in study.outcomes if o.experiment.arm != "real"]), "R")
    mixed = [
        dataclasses.replace(o, numerics="float32-cpu-1") if o.experiment.arm == "none" else o
        for o in study.outcomes
    ]
    with pytest.raises(ValueError, match="one numerics only"):
        contrast(Results(mixed), "A")


def test_shuffled_groups_show_nothing(study):
    """A null experiment: with groups drawn at random the contrast between arms has no preferred
    sign."""
    rng, outcomes, values = np.random.default_rng(0), study.outcomes, []
    for _ in range(40):
        order = rng.permutation(len(outcomes[0].group))
        group = np.empty_like(outcomes[0].group)
        for y in range(10):  # within classes, so that classes stay balanced
            members = np.flatnonzero(outcomes[0].label == y)
            group[members] = outcomes[0].group[members[np.argsort(order[members])]]
        values.append(
            contrast(Results([dataclasses.replace(o, group=group) for o in outcomes]), "A").mean
        )
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(40) + 1e-3
