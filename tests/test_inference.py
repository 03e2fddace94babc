"""Inference: closed forms against brute resampling, coverage, verdict words, and planted effects."""

import dataclasses

import numpy as np
import pytest
from conftest import FLOAT64, tiny
from scipy import stats

from biasstudy import run
from biasstudy.inference import (
    _variance_of_sum,
    contrast,
    headline,
    headline_weights,
    ranked,
    sentence,
    two_way_interval,
    verdict,
)

ARMS = ("generated", "real", "resample", "none")


def test_the_closed_form_equals_brute_resampling_within_strata():
    rng = np.random.default_rng(0)
    stratum = np.repeat(np.arange(5), [10, 20, 5, 30, 8])
    x = rng.standard_normal(len(stratum)) * (1 + stratum)
    draws = np.zeros(20000)
    for h in range(5):
        members = x[stratum == h]
        n = len(members)
        draws += members[rng.integers(0, n, (20000, n))].sum(1) * np.sqrt(n / (n - 1))  # unbiased variance within the stratum
    assert abs(_variance_of_sum(x, stratum) / draws.var() - 1) < 0.04


def test_without_an_image_effect_the_interval_is_the_t_interval_over_seeds():
    d = np.random.default_rng(1).standard_normal((6, 1))
    found = two_way_interval(d, np.zeros(1, int))
    low, high = stats.t.interval(0.95, 5, d.mean(), stats.sem(d[:, 0]))
    assert np.allclose([found.low, found.high], [low, high]) and found.df == 5
    assert np.isclose(found.p, stats.ttest_1samp(d[:, 0], 0).pvalue)
    assert np.isclose(found.detectable, 1.43 * d.std(ddof=1), rtol=0.01), "the design's figure for n = 6"


@pytest.mark.parametrize("image_effect", [0.0, 0.8, 1.5])
def test_coverage_of_the_interval(image_effect):
    """New seeds and new test images in every simulated study; 500 here, 2,000 and heavy tails in the instrument's study."""
    rng, n, units, hits = np.random.default_rng(5), 6, 200, 0
    stratum = np.repeat(np.arange(10), 20)
    for _ in range(500):
        seed, image = rng.standard_normal(n), rng.standard_normal(units) * image_effect * np.sqrt(units)
        noise = rng.standard_normal((n, units)) * np.sqrt(units)
        found = two_way_interval((seed[:, None] + image + noise) / units, stratum)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 500 <= 0.985


def test_verdict_words():
    def of(d):
        return verdict(two_way_interval(np.array(d)[:, None], np.zeros(1, int)))
    assert of([0.05, 0.06, 0.05, 0.06, 0.05, 0.06]) == "amplified"
    assert of([-0.05, -0.06, -0.05, -0.06, -0.05, -0.06]) == "reduced"
    assert of([0.001, -0.001, 0.002, -0.002, 0.001, -0.001]) == "no change beyond 0.02"
    assert of([0.2, -0.1, 0.1, -0.2, 0.1, 0.05]).startswith("cannot tell (smallest change detectable")
    assert of([0.05] * 5) == "no verdict with fewer than 6 seeds"


def test_groups_are_ranked_over_classes_if_crossed_and_within_classes_if_nested():
    accuracy = np.array([[0.9, 0.5, 0.7, np.nan], [0.8, 0.4, 0.99, np.nan]])
    assert ranked(accuracy, "nested").tolist() == [[1, -1, 0, 0], [0, -1, 1, 0]]
    crossed = np.array([[0.9, 0.5, 0.7], [0.8, 0.4, 0.75]])
    assert ranked(crossed, "crossed").tolist() == [[1, -1, 0], [1, -1, 0]]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    seeds = [tiny(start="biased", bias=0.7, n_test=50, seed=s) for s in range(3)]
    return run([e.to_arm(arm) for e in seeds for arm in ARMS], numerics=FLOAT64, where=tmp_path_factory.mktemp("study"))


def test_the_headline_of_a_biased_start_is_its_metric(study):
    table = study.table.query("metric == 'accuracy-contrast' and arm == 'generated'")
    assert np.allclose(headline(study.of("generated")), table.pivot(index="seed", columns="generation", values="value"))


def test_contrasts_are_differences_of_the_last_generation(study):
    generated, none = headline(study.of("generated")), headline(study.of("none"))
    assert np.allclose(contrast(study, "A").per_seed, (generated - none)[:, -1])
    assert np.allclose(contrast(study, "A", generation=0).per_seed, 0), "all arms share generation 0"
    assert "n = 3 seeds" in sentence(study) and "no verdict with fewer than 6 seeds" in sentence(study)


def test_an_unbiased_start_is_ranked_by_the_other_seeds_only(tmp_path):
    found = run([tiny(n_test=50, seed=s) for s in range(3)], numerics=FLOAT64, where=tmp_path)
    outcomes = found.of("generated")
    before = headline_weights(outcomes)[0]
    changed = [dataclasses.replace(outcomes[0], predicted=np.zeros_like(outcomes[0].predicted)), *outcomes[1:]]
    assert (headline_weights(changed)[0] == before).all(), "a seed's own errors must not rank its groups"
    assert np.isnan(headline_weights(outcomes[:1])).all(), "one seed: nothing ranks the groups"


def test_missing_arms_and_mixed_numerics_are_refused(study):
    from biasstudy import Results
    with pytest.raises(ValueError, match="unknown contrast 'B'"):
        contrast(study, "B")
    with pytest.raises(ValueError, match="needs the arms generated and real with the same seeds"):
        contrast(Results([o for o in study.outcomes if o.experiment.arm != "real"]), "R")
    mixed = [dataclasses.replace(o, numerics="float32-cpu-1") if o.experiment.arm == "none" else o for o in study.outcomes]
    with pytest.raises(ValueError, match="one numerics only"):
        contrast(Results(mixed), "A")


def test_shuffled_groups_show_nothing(study):
    """A null experiment: with groups drawn at random the contrast between arms has no preferred sign."""
    rng, outcomes, values = np.random.default_rng(0), study.outcomes, []
    from biasstudy import Results
    for _ in range(40):
        order = rng.permutation(len(outcomes[0].group))
        group = np.empty_like(outcomes[0].group)
        for y in range(10):  # within classes, so that classes stay balanced
            members = np.flatnonzero(outcomes[0].label == y)
            group[members] = outcomes[0].group[members[np.argsort(order[members])]]
        values.append(contrast(Results([dataclasses.replace(o, group=group) for o in outcomes]), "A").mean)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(40) + 1e-3
