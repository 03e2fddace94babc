"""Protocol performative: planted accuracies, exact counts, what it shares with protocol fresh, and
the contrast P."""

import dataclasses
from contextlib import closing
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Experiment, figures, inference, run
from biasstudy.core.context import Context
from biasstudy.data.images import REAL, LabeledImages
from biasstudy.data.real import real_data
from biasstudy.loop.generations import generations
from biasstudy.loop.run import open_store
from biasstudy.loop.stages import draw_served
from biasstudy.report.figures._feedback import fresh_counts
from biasstudy.study import study_from

K, G = 3, 4
FRESH = tiny(protocol="fresh", ratio=1.0, start="biased", bias=0.6)


def performative(sensitivity, **fields):
    return dataclasses.replace(FRESH, protocol="performative", sensitivity=sensitivity, **fields)


def drawn(accuracy, counts, sensitivity=1.0, per_class=20, seed=0):
    """Groups of fresh images, and the photographs they are, where a made classifier is right about
    accuracy[k, g] of per_class photographs in group g.

    counts   (K, G) int   of the usual fresh images
    """
    rng = np.random.default_rng(seed)
    usual_label = np.repeat(np.arange(K), counts.sum(1))
    usual_group = np.concatenate([np.repeat(np.arange(G), row) for row in counts])
    order = rng.permutation(len(usual_label))
    spare = [np.full(per_class - counts[k].sum(), k) for k in range(K)]
    label = np.concatenate([usual_label[order], *spare])
    group = np.concatenate([usual_group[order], *[0 * s for s in spare]])
    unit, pixels = np.arange(len(label)), np.zeros((len(label), 1, 1, 1), np.uint8)
    usual = LabeledImages(pixels, label, group, unit=unit)
    every = np.repeat(unit, G)
    arrivals = LabeledImages(
        pixels[every], label[every], np.tile(np.arange(G), len(unit)), unit=every
    )
    predicted = (arrivals.label + 1) % K
    for k in range(K):
        for g in range(G):
            cell = np.flatnonzero((arrivals.label == k) & (arrivals.group == g))
            right = rng.permutation(cell)[: round(accuracy[k, g] * per_class)]
            predicted[right] = k
    index = draw_served.function(
        Context(),
        arrivals=arrivals,
        said={"predicted": predicted},
        usual=usual,
        n_fresh=int(counts.sum()),
        sensitivity=sensitivity,
    )["index"]
    chosen = arrivals[index]
    n = int(counts.sum())
    assert chosen.unit.tolist() == usual.unit[:n].tolist(), "the same photographs in the same order"
    assert chosen.label.tolist() == usual.label[:n].tolist()
    return chosen.label, chosen.group, usual.group[:n]


def table(label, group):
    found = np.zeros((K, G), int)
    np.add.at(found, (label, group), 1)
    return found


COUNTS = np.array([[7, 2, 2, 1], [1, 8, 2, 1], [3, 3, 3, 3]])


def test_a_group_that_is_never_served_is_gone_in_one_step():
    accuracy = np.full((K, G), 0.9)
    accuracy[0, 0] = accuracy[2, 1] = 0
    found = table(*drawn(accuracy, COUNTS)[:2])
    assert found[0, 0] == found[2, 1] == 0
    assert found.sum(1).tolist() == COUNTS.sum(1).tolist(), "classes keep their numbers"
    assert found[1].tolist() == COUNTS[1].tolist(), "other classes are as they were"


@pytest.mark.parametrize("level", [1.0, 0.35, 0.0])
@pytest.mark.parametrize("sensitivity", [0.0, 1.0, 7.0, 100.0])
def test_equal_accuracies_change_no_group_of_any_image(level, sensitivity):
    _, group, usual = drawn(np.full((K, G), level), COUNTS, sensitivity)
    assert (group == usual).all()


@pytest.mark.parametrize("seed", range(20))
def test_counts_follow_accuracy_exactly_and_no_more_images_change_than_must(seed):
    rng = np.random.default_rng(seed)
    accuracy = rng.integers(0, 21, (K, G)) / 20
    sensitivity = int(rng.integers(0, 5))
    label, group, usual = drawn(accuracy, COUNTS, float(sensitivity), seed=seed)
    found = table(label, group)
    for k in range(K):
        weight = [
            int(COUNTS[k, g]) * Fraction(round(20 * accuracy[k, g]), 20) ** sensitivity
            for g in range(G)
        ]
        quota = [int(COUNTS[k].sum()) * w / sum(weight) for w in weight]
        assert all(abs(n - q) < 1 for n, q in zip(found[k], quota, strict=True))
        up = [q - n for n, q in zip(found[k], quota, strict=True) if n > q]
        down = [q - n for n, q in zip(found[k], quota, strict=True) if n < q]
        assert not up or not down or min(1 + x for x in up) >= max(down), "largest remainders"
    assert (group != usual).sum() == np.abs(found - COUNTS).sum() / 2


def test_with_more_sensitivity_the_worse_served_are_fewer():
    accuracy = np.where(COUNTS.max(1, keepdims=True) == COUNTS, 1.0, 0.8)
    majority = [table(*drawn(accuracy, COUNTS, s)[:2])[0, 0] for s in (0, 2, 5, 20)]
    assert majority == sorted(majority) and len(set(majority)) == 4 and majority[-1] == 12


# ---- In the loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["generated", "real", "resample"])
def test_sensitivity_0_is_protocol_fresh_to_the_bit(store, arm):
    for condition in ("class", "group"):
        pairs = [
            dataclasses.replace(e, condition=condition).to_arm(arm)
            for e in (FRESH, performative(0.0))
        ]
        both = [generations(e, real_data(e), store) for e in pairs]
        for one, other in zip(*both, strict=True):
            first, second = one.pool.load(), other.pool.load()
            for name in ("images", "label", "group", "unit", "origin"):
                assert (getattr(first, name) == getattr(second, name)).all()
            assert one.t == 0 or one.pool.id != other.pool.id


@pytest.mark.parametrize("arm", ["generated", "real"])
def test_only_colours_of_fresh_photographs_differ_from_protocol_fresh(store, arm):
    e = performative(20.0).to_arm(arm)
    fresh, moved = (list(generations(x, real_data(x), store)) for x in (FRESH.to_arm(arm), e))
    n, m = e.n_real, e.n_fresh
    for one, other in zip(fresh[1:], moved[1:], strict=True):
        first, second = one.pool.load(), other.pool.load()
        assert (first.label == second.label).all() and (first.origin == second.origin).all()
        real = first.origin == REAL
        assert (first.unit[real] == second.unit[real]).all()
    first, second = fresh[1].pool.load(), moved[1].pool.load()
    differ = (first.images != second.images).any((1, 2, 3))
    assert (differ[n : n + m] == (first.group != second.group)[n : n + m]).all()
    assert differ[n : n + m].any() and not differ[:n].any() and not differ[n + m :].any()


def test_accuracy_is_that_of_the_last_classifier_on_photographs_that_nothing_else_uses(store):
    e = performative(20.0)
    real = real_data(e)
    turns = list(generations(e, real, store))
    used = {int(u) for part in (real.start, *real.instruments.values()) for u in part.load().unit}
    for now in turns[:-1]:
        served = now.added[0].index
        said, arrivals = served.inputs["said"], served.inputs["arrivals"].load()
        assert said.inputs["by"].state is now.classifiers[0].state
        assert not used & set(arrivals.unit.tolist()), "not trained on, and no instrument"
        assert (arrivals.group.reshape(-1, 5) == np.arange(5)).all()
        used |= set(arrivals.unit.tolist())
        # by hand: the groups that were chosen are those of the formula
        right = said.load()["predicted"] == arrivals.label
        chosen, usual = arrivals[served.load()], real.reserve(now.t).load()
        for k in range(10):
            accuracy = right.reshape(-1, 5)[arrivals.label[::5] == k].mean(0)
            first = usual.group[: e.n_fresh][usual.label[: e.n_fresh] == k]
            weight = np.bincount(first, minlength=5) * accuracy**20
            n = np.bincount(chosen.group[chosen.label == k], minlength=5)
            assert np.abs(n - len(first) * weight / weight.sum()).max() < 1


def test_data_whose_groups_are_not_painted_are_refused_before_training():
    e = Experiment(
        dataset="standin20", protocol="performative", classifier="ridge", n_real=200, n_test=100
    )
    with pytest.raises(
        ValueError, match=r"needs a data set whose groups are painted; .*'standin20'"
    ):
        real_data(e)
    real_data(e.to_arm("none"))


# ---- What is concluded ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two seeds, its results by variant, and a folder with its stages."""
    study = study_from(
        {
            **{name: getattr(FRESH, name) for name in FRESH.fields()},
            "variants": [{"protocol": "fresh"}, {"protocol": "performative", "sensitivity": 20.0}],
            "n_seeds": 2,
            "arms": ["generated", "real", "none"],
            "precision": "float64",
        }
    )
    folder = tmp_path_factory.mktemp("performative")
    return study, study.split(study.run(where=folder)), folder


def test_p_is_the_difference_of_the_variants_in_each_arm(made):
    _, parts, _ = made
    fresh, moved = parts.values()
    found = inference.feedback(parts)
    assert [(f.variant, f.arm) for f in found] == [
        (list(parts)[1], arm) for arm in ("generated", "real")
    ]
    for f in found:
        by_seed = []
        for one, other in zip(moved.of(f.arm), fresh.of(f.arm), strict=True):
            M = [
                np.mean([o.cell_accuracy(2)[k, g] for k, g in np.argwhere(o.favoured > 0)])
                - np.mean([o.cell_accuracy(2)[k, g] for k, g in np.argwhere(o.favoured < 0)])
                for o in (one, other)
            ]
            by_seed.append(M)
        level = np.mean(by_seed, 0)[1]
        assert f.change.a.mean == pytest.approx(np.mean(by_seed, 0)[0] - level)
        assert f.change.margin == pytest.approx(level / 4) and f.change.a.n == 2
        assert f.status == ("confirmatory" if f.arm == "generated" else "exploratory")
        assert f.status in str(f) and f.arm in str(f)
    assert not inference.feedback({"alone": moved}), "nothing to compare with"
    rows = figures.feedback_table(parts)
    assert rows.P.tolist() == [f.change.a.mean for f in found]


def test_the_plan_asks_for_a_of_each_variant_and_for_p(made):
    study, parts, _ = made
    first, second = study.variants
    asked = study.hypotheses()
    assert [(h["variant"], h["contrast"]) for h in asked] == [
        (first, "A"),
        (second, "A"),
        (second, "P"),
    ]
    fresh = [dataclasses.replace(FRESH, seed=s).id for s in range(2)]
    assert asked[2]["experiments"]["fresh"] == fresh
    assert asked[2]["experiments"]["generated"] == asked[1]["experiments"]["generated"]
    plan = parts[first].plan
    assert plan.family == (first, second, f"{second}: P")
    id = asked[2]["experiments"]["generated"][0]
    assert plan.asked_of(id) == asked[1] and plan.asked_of(id, "P") == asked[2]
    alone = dataclasses.replace(study, variants={second: study.variants[second]})
    assert [h["contrast"] for h in alone.hypotheses()] == ["A"], "without its partner no P"


def test_the_figure_counts_the_fresh_images_that_entered(made):
    _, parts, folder = made
    for results in parts.values():
        for arm in ("generated", "real"):
            o = results.of(arm)[0]
            with closing(open_store(folder, FLOAT64)) as store:
                turns = list(generations(o.experiment, real_data(o.experiment), store))
                for now, counted in zip(turns, fresh_counts(o), strict=False):
                    fresh = now.added[0].images.load()[now.added[0].positions]
                    by_hand = np.zeros_like(counted)
                    np.add.at(by_hand, (fresh.label, fresh.group), 1)
                    assert (counted == by_hand).all()
    figure, values = figures.with_feedback(parts)
    assert len(figure.axes) == 4
    plt.close("all")
    moved = values[values.variant == list(parts)[1]]
    assert moved["fresh share"].notna().groupby(moved.generation).all().tolist() == [
        True,
        True,
        False,
    ]
    usual = values[values.variant == next(iter(parts))]
    assert moved["fresh share"].mean() > usual["fresh share"].mean() + 0.05


def test_the_figure_refuses_what_has_no_fresh_images_or_no_favoured_cell(runs):
    other = run([tiny(start="biased", bias=0.6, n_generations=1)], numerics=FLOAT64)
    with pytest.raises(
        ValueError, match=r"fresh images are counted under protocols .* 'accumulate'"
    ):
        figures.with_feedback({"": other})
    unbiased = run(
        [tiny(protocol="fresh", n_generations=1, seed=s) for s in range(2)], numerics=FLOAT64
    )
    with pytest.raises(ValueError, match="an unbiased start favours no group"):
        figures.with_feedback({"": unbiased})
