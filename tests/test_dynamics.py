"""Dynamics on simulated loops whose truth is known, crossed and nested; bookkeeping against pools
that were trained on."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Experiment, figures, reference_parts, run
from biasstudy.experiment import PROTOCOLS
from biasstudy.inference.conjecture import (
    HYPOTHESES,
    Judgement,
    judge,
    judgements,
    naive_fit,
    naive_study,
)
from biasstudy.inference.dynamics import (
    TransferMap,
    by_level,
    favoured_shares,
    fixed_point,
    held_out,
    predicted_shares,
    prediction_errors,
    slopes_across_starts,
    told_apart,
    transfer_map,
    transfer_table,
)
from biasstudy.inference.intervals import over_seeds
from biasstudy.inference.verdicts import Change

LEVELS, CLASSES, GROUPS, IMAGES = (0.0, 0.2, 0.4, 0.6, 0.8), 6, 4, 1200
TRUTHS = {  # what a generation adds to the share s of the favoured cells, from a share of 1/4 up
    "growth": lambda s: 0.35 * (s - 0.25) * (1.25 - s) + 0.02 * (s > 0.25),
    "drift": lambda s: 0.5 * (0.55 - s),
    "within a quarter": lambda s: 0 * s,
    "apart": lambda s: 0.6 * (s - 0.55),
}
RESTS = {"drift": 0.55}


# ---- Simulated loops -----------------------------------------------------------------------------


def design(name, rng):
    """(favoured, occurs): a majority group per class (crossed), or two of four own groups thinned
    (nested)."""
    if name == "crossed":
        favoured = np.where(
            np.arange(GROUPS) == rng.permutation(np.arange(CLASSES) % GROUPS)[:, None], 1, -1
        )
        return favoured, favoured != 0
    occurs = np.arange(CLASSES * GROUPS)[None] // GROUPS == np.arange(CLASSES)[:, None]
    # kept one: shares as crossed
    signs = np.concatenate([rng.permutation([1, -1, -1, -1]) for _ in range(CLASSES)])
    return np.where(occurs, signs, 0), occurs


def loop(truth, kind, rng, seed, level, T=1, noise=0.004):
    """Outcomes of the arms generated and none of one seed: shares follow the truth, the contrast is
    0.8 (share - 1/4)."""
    favoured, occurs = design(kind, np.random.default_rng(seed))
    n, start = 4000, 0.25 + 0.75 * level
    counts = np.where(
        favoured > 0, n * start / CLASSES, np.where(occurs, n * (1 - start) / CLASSES / 3, 0)
    )
    y, g = np.nonzero(occurs)
    cell = np.random.default_rng(0).integers(0, len(y), IMAGES)
    label, group = y[cell], g[cell]
    cells_up, shares, batches = favoured[label, group] > 0, [start], []
    for _ in range(T):
        made = np.clip(shares[-1] + truth(shares[-1]) + noise * rng.standard_normal(), 0, 1)
        told = np.repeat(np.arange(CLASSES), 1000)
        up = np.argmax(favoured > 0, axis=1)[told]
        down = np.argmax(favoured < 0, axis=1)[told]
        batches.append({"label": told, "group": np.where(rng.random(len(told)) < made, up, down)})
        shares.append(
            (n * start + n * sum(favoured_share(b, favoured) for b in batches))
            / (n * (1 + len(batches)))
        )
    unit, found, first = np.arange(IMAGES), {}, None
    for arm, path in (("generated", shares), ("none", [start] * (T + 1))):
        rows = []
        for s in path:
            a = 0.6 + 0.8 * (s - 0.25) * np.where(cells_up, 0.5, -0.5)
            rows.append(rng.random(IMAGES) < a)
        first = rows[0] if first is None else first
        correct = np.stack([first, *rows[1:]])[:, None]
        e = Experiment(
            start="biased",
            bias=level,
            seed=seed,
            n_real=n,
            ratio=1.0 if arm == "generated" else 0.0,
            n_generations=T,
        )
        found[arm] = SimpleNamespace(
            experiment=e,
            numerics="float64",
            biased=True,
            design=kind,
            paired=False,
            label=label,
            group=group,
            unit=unit,
            favoured=favoured,
            occurs=occurs,
            counts=counts,
            batches=batches if arm == "generated" else [],
            predicted=np.where(correct, label, (label + 1) % CLASSES),
            correct=lambda correct=correct: correct,
        )
    return found


def favoured_share(batch, favoured):
    return np.mean(favoured[batch["label"], batch["group"]] > 0)


def study(truth, kind, rng, n=6, levels=LEVELS, T=1):
    parts = {}
    for level in levels:
        arms = [loop(TRUTHS[truth], kind, rng, seed, level, T) for seed in range(n)]
        parts[f"bias {level}"] = SimpleNamespace(
            of=lambda arm, arms=arms: [a[arm] for a in arms if arm in a]
        )
    return parts


@pytest.mark.parametrize("kind", ["crossed", "nested"])
@pytest.mark.parametrize("truth", TRUTHS)
def test_simulated_loops_are_recovered(truth, kind):
    """Shares and contrasts of 12 studies: the truth is claimed where there is power for it, and
    hardly ever refuted."""
    rng, words = np.random.default_rng(3), {"share": [], "contrast": []}
    refuted = {"share": 0, "contrast": 0}
    for _ in range(12):
        for (_, what), found in judgements(study(truth, kind, rng)).items():
            words[what].append(found.word)
            refuted[what] += truth in found.refuted
    right = "none of the three" if truth == "apart" else truth
    assert words["share"].count(right) >= 11 and refuted["share"] <= 1, words
    wrong = [word for word in words["contrast"] if word not in (right, "cannot tell")]
    assert refuted["contrast"] <= 1 and len(wrong) <= 1, words


MARGIN = 0.02


def changes(rng, true, sd=0.02, n=6):
    found = {}
    for level, x in true.items():
        a = over_seeds(x + sd * rng.standard_normal(n))
        found[level] = Change(a, a, a.shifted(-MARGIN), a.shifted(MARGIN), False, MARGIN)
    return found


@pytest.mark.parametrize(
    "true, false_claims",
    [
        ({0.2: 0.0, 0.4: 0.0, 0.6: 0.0, 0.8: 0.0}, {"drift", "growth"}),
        ({0.2: 0.0, 0.4: 0.05, 0.6: 0.08, 0.8: 0.09}, {"drift", "growth"}),  # on the edge of growth
        ({0.2: 0.09, 0.4: 0.02, 0.6: 0.0, 0.8: 0.0}, {"drift", "growth"}),  # on the edge of drift
        # on the edge of a quarter
        ({0.2: 0.0, 0.4: 0.0, 0.6: 0.0, 0.8: 0.021}, {"within a quarter", "drift"}),
        ({0.2: -0.05, 0.4: 0.0, 0.6: 0.05, 0.8: 0.09}, {"drift", "growth", "within a quarter"}),
    ],
    ids=["nothing", "edge of growth", "edge of drift", "edge of a quarter", "apart"],
)
def test_false_claims_stay_below_the_stated_rates(true, false_claims):
    rng, studies = np.random.default_rng(5), 600
    words = [judge(changes(rng, true)).word for _ in range(studies)]
    for claim in false_claims:
        stated = 0.05 if claim == "within a quarter" else 0.025
        assert words.count(claim) / studies <= stated + 3 * np.sqrt(
            stated * (1 - stated) / studies
        ), claim


@pytest.mark.parametrize(
    "name, true",
    [
        ("drift", {0.2: 0.0, 0.4: 0.05, 0.6: 0.0, 0.8: 0.0}),
        ("growth", {0.2: 0.0, 0.4: 0.0, 0.6: 0.0, 0.8: 0.0}),
        ("within a quarter", {0.2: 0.02, 0.4: -0.02, 0.6: 0.02, 0.8: -0.02}),
    ],
)
def test_a_true_hypothesis_is_refuted_in_at_most_five_percent(name, true):
    """At the edge of what each hypothesis allows, where refuting it by mistake is most likely."""
    rng, studies = np.random.default_rng(6), 600
    wrong = sum(name in judge(changes(rng, true)).refuted for _ in range(studies))
    assert wrong / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_power_at_six_seeds_is_what_the_smallest_detectable_change_says():
    """Each level moved by 1.43 sd: each test has 80 % power, so the claim of all four about its
    fourth power."""
    rng = np.random.default_rng(7)
    words = [
        judge(changes(rng, dict.fromkeys((0.2, 0.4, 0.6, 0.8), 1.43 * 0.05), sd=0.05)).word
        for _ in range(600)
    ]
    assert words.count("growth") / 600 == pytest.approx(0.8**4, abs=0.07)


def test_little_evidence_is_no_judgement():
    rng = np.random.default_rng(8)
    assert (
        judge(changes(rng, {0.0: 1.0, 0.4: 1.0, 0.8: 1.0})).because
        == "needs 3 assigned levels above 0; got [0.4, 0.8]"
    )
    few = judge(changes(rng, {0.2: 1.0, 0.4: 1.0, 0.8: 1.0}, n=5))
    assert few.word == "cannot tell" and "6 seeds" in few.because
    assert str(Judgement("growth", ("drift",), "n = 6", {})) == "growth (refuted: drift; n = 6)"
    assert set(HYPOTHESES) == {"drift", "growth", "within a quarter"}


# ---- The map -------------------------------------------------------------------------------------


def test_the_interval_of_a_level_of_rest_covers_it():
    """The truth is straight between the levels, as the map takes it to be."""
    rng, x = np.random.default_rng(9), np.array([0.2, 0.4, 0.6, 0.8])
    true, inside, bounded = np.array([0.08, 0.03, -0.02, -0.06]), 0, 0
    rest = 0.4 + 0.2 * 0.03 / 0.05
    for _ in range(1500):
        # seeds of all levels share a part, as paired seeds do
        step = true + 0.02 * rng.standard_normal((6, 1)) + 0.02 * rng.standard_normal((6, 4))
        found = fixed_point(TransferMap(x, step, np.ones(4)))
        inside += found.low <= rest <= found.high
        bounded += np.isfinite(found.low) and np.isfinite(found.high)
    assert 0.935 <= inside / 1500 <= 0.985 and bounded > 750


def test_maps_that_do_not_cross_have_no_level_of_rest():
    x, steady, fall = np.array([0.2, 0.5, 0.8]), np.ones(3), np.array([0.06, 0.0, -0.06])
    rng = np.random.default_rng(0).standard_normal((6, 3)) * 0.001
    growth, apart = (
        TransferMap(x, rng + 0.05, steady),
        TransferMap(x, rng + np.array([-0.05, 0, 0.05]), steady),
    )
    assert np.isnan(fixed_point(growth).value) and np.isnan(fixed_point(apart).value), (
        "a crossing from below repels"
    )
    assert str(fixed_point(growth)) == "no level of rest between the assigned levels (n = 6 seeds)"
    still = fixed_point(TransferMap(x, 50 * rng, steady))
    assert np.isnan(still.value) or (still.low, still.high) == (-np.inf, np.inf)
    drift = fixed_point(TransferMap(x, rng + fall, steady))
    assert drift.value == pytest.approx(0.5, abs=0.01) and drift.low < drift.value < drift.high
    assert np.isnan(fixed_point(TransferMap(x, (rng + fall)[:1], steady)).low), (
        "one seed: no interval"
    )


@pytest.mark.parametrize("kind", ["crossed", "nested"])
def test_levels_of_rest_and_held_out_generations_of_simulated_loops(kind):
    rng = np.random.default_rng(11)
    parts = study("drift", kind, rng)
    table = transfer_table(parts)
    assert (
        set(table.setting) == {"generator mixture"}
        and len(table) == 30
        and (table.clear == 1).all()
    )
    found = fixed_point(transfer_map(table))
    assert found.low <= RESTS["drift"] <= found.high and found.high - found.low < 0.1
    later = study("drift", kind, rng, T=4, levels=(0.2, 0.8))
    errors = prediction_errors(held_out(parts, later.values()))
    assert errors.generation.tolist() == [1, 2, 3] * 2 and (errors.n == 6).all()
    assert ((errors.low <= 0) & (errors.high >= 0)).sum() >= 5 and (errors.error.abs() < 0.02).all()
    assert (errors.error_unchanged.abs() > 2 * errors.error.abs())[errors.generation == 3].all()


@pytest.mark.parametrize(("truth", "located"), [("drift", True), ("growth", False)])
def test_a_level_of_rest_is_drawn_where_levels_on_both_sides_move(truth, located, monkeypatch):
    monkeypatch.setattr("biasstudy.report.figures._dynamics._mark", lambda parts: "simulated")
    figure, _ = figures.transfer(study(truth, "crossed", np.random.default_rng(11)))
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert bool(rings) == located


def test_no_level_of_rest_is_drawn_at_an_end_of_the_levels():
    figure, _ = figures.transfer(reference_parts("colorized_mnist_transfer"))
    for axis in figure.axes:
        assert not [line for line in axis.lines if line.get_markerfacecolor() == "white"]


def test_a_map_needs_every_seed_at_every_level():
    table = transfer_table(study("drift", "crossed", np.random.default_rng(0), n=2))
    with pytest.raises(ValueError, match="every seed at every assigned level"):
        transfer_map(table.iloc[1:])
    with pytest.raises(ValueError, match="'share' or 'contrast'; got 'gap'"):
        transfer_map(table, "gap")


def test_settings_are_told_apart_and_unbiased_starts_left_out():
    rng = np.random.default_rng(0)
    one, other = (study("drift", "crossed", rng, n=1, levels=(0.2, 0.8)) for _ in range(2))
    both = {
        f"generator {g}, {name}": r
        for g, parts in (("a", one), ("b", other))
        for name, r in parts.items()
    }
    for name, results in both.items():
        for o in results.of("generated"):
            # not registered: only a name here
            object.__setattr__(o.experiment, "generator", name.split(",")[0][-1])
    assert {s: list(levels) for s, levels in by_level(both).items()} == {
        "generator a": [0.2, 0.8],
        "generator b": [0.2, 0.8],
    }
    assert by_level({"alone": one["bias 0.2"]}) == {}


def test_experiments_are_told_apart_by_their_fields():
    base = tiny(start="biased", bias=0.2)
    others = [
        dataclasses.replace(base, seed=3),
        dataclasses.replace(base, generator_options={"clusters": 3}, ratio=1.0),
        dataclasses.replace(base, generator_options={"clusters": 4}, classifier_options={}),
    ]
    words = ["", "", "clusters 3", "clusters 4"]
    assert told_apart([base, *others]) == words, "the ratio tells nothing more"
    longer = dataclasses.replace(base, n_generations=2, protocol="latest")
    assert told_apart([base, longer]) == ["protocol accumulate", "protocol latest"]
    assert told_apart([base, base]) == ["", ""] and told_apart([]) == []


# ---- Predictions ---------------------------------------------------------------------------------


class Seen(TransferMap):
    """A map that repeats what was measured, so that what is left is bookkeeping."""

    def __init__(self, made, clear):
        object.__setattr__(self, "made", iter(made))
        object.__setattr__(self, "seen", iter(clear))

    def after(self, x):
        return np.array([next(self.made)])

    def visible(self, x):
        return np.array([next(self.seen)])


@pytest.mark.parametrize(
    "protocol",
    [name for name in PROTOCOLS if name not in ("subsample", "balanced", "performative")],
)
def test_bookkeeping_equals_the_pools_that_were_trained_on(protocol, runs):
    e = tiny(start="biased", bias=0.6, ratio=1.0, protocol=protocol, n_generations=3)
    o = run(e, numerics=FLOAT64).outcomes[0]
    seen = Seen(favoured_shares(o), [np.mean(batch["group"] >= 0) for batch in o.batches])
    start = np.array([o.counts[o.favoured > 0].sum() / o.counts.sum()])
    pools, batches = predicted_shares(seen, start, e, 3)
    truth = [pool[:, :-1][o.favoured > 0].sum() / pool[:, :-1].sum() for pool in o.pools]
    # fresh: 50 of the 100 reserve images that a batch would have; their shares are the start's up
    # to rounding in 50 cells
    assert np.allclose(pools[0], truth, atol=0.02 if protocol == "fresh" else 1e-12)
    assert np.allclose(batches[0], favoured_shares(o))


def test_a_uniform_draw_keeps_the_mean_share():
    e = tiny(start="biased", bias=0.6, ratio=1.0)
    steady = TransferMap(np.array([0.2, 0.9]), np.array([[0.1, 0.0]]), np.ones(2))
    drawn, all_of_it = (
        predicted_shares(
            steady, np.array([0.4]), tiny(start="biased", bias=0.6, ratio=1.0, protocol=p), 3
        )[0]
        for p in ("subsample", "accumulate")
    )
    assert np.allclose(drawn, all_of_it)
    assert np.isnan(predicted_shares(steady, np.array([0.95]), e, 2)[1]).all(), (
        "outside the assigned levels nothing is known"
    )


# ---- Convergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crossed", "nested"])
def test_convergence_across_starts_is_seen_and_none_is_not_invented(kind):
    rng, found = np.random.default_rng(13), {}
    for truth in ("within a quarter", "drift", "growth"):
        found[truth] = [
            slopes_across_starts(
                {float(name.split()[1]): r for name, r in study(truth, kind, rng).items()}
            )
            for _ in range(16)
        ]
    still = [c["difference"] for c in found["within a quarter"]]
    assert (
        sum(e.low > 0 or e.high < 0 for e in still) <= 3
        and abs(np.mean([e.mean for e in still])) < 0.05
    )
    assert np.mean([c["none"].mean for c in found["within a quarter"]]) == pytest.approx(
        1, abs=0.04
    ), "noise in M_0 does not bias it"
    assert np.mean([c["difference"].mean for c in found["drift"]]) == pytest.approx(
        -0.25, abs=0.04
    ), "half of it is real"
    assert np.mean([c["difference"].high < 0 for c in found["drift"]]) > 0.9
    sd = np.std([e.mean for e in still], ddof=1)
    assert sd == pytest.approx(np.mean([e.se for e in still]), rel=0.5)


def test_convergence_refuses_seeds_that_differ():
    parts = study("drift", "crossed", np.random.default_rng(0), n=3, levels=(0.2, 0.8))
    levels = {float(name.split()[1]): r for name, r in parts.items()}
    with pytest.raises(ValueError, match=r"at least two assigned levels; got \[0.2\]"):
        slopes_across_starts({0.2: levels[0.2]})
    short = SimpleNamespace(of=lambda arm: levels[0.8].of(arm)[:2])
    with pytest.raises(ValueError, match="the same seeds at every level"):
        slopes_across_starts({0.2: levels[0.2], 0.8: short})


# ---- What we do not do ---------------------------------------------------------------------------


def test_the_naive_fit_finds_an_equilibrium_where_there_is_none():
    found = naive_study(1000).groupby("series").equilibrium.mean()
    assert found["no change"] > 0.99 and found["growth"] > 0.9 and found["runaway"] > 0.6
    x = np.array([1.0, 3.0, 7.0, 15.0])
    assert np.allclose(naive_fit(x), (1, 2)), "M' = 1 + 2 M without noise"
    assert np.isnan(naive_fit(np.ones(4))[1])
