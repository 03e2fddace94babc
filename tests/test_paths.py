"""Arms that lose accuracy with nothing generated, by exact bookkeeping: parts of the start, shorter
fits, noisier labels."""

import dataclasses
import itertools

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Experiment, run
from biasstudy.core.counts import largest_remainder
from biasstudy.core.store import needed_by
from biasstudy.data.images import LabeledImages
from biasstudy.data.real import real_data
from biasstudy.experiment import ALL_ARMS, PATH_POINTS, PATHS, stored_experiment
from biasstudy.loop.generations import generations, results_of
from biasstudy.loop.protocols import in_turn, wrong_labels
from biasstudy.notebook import check
from biasstudy.report import figures
from biasstudy.report.shipped import reference, save_study, studies
from biasstudy.study import study_from

LENET = {"classifier": "lenet", "classifier_steps": 12, "classifier_batch": 8}
BASE = tiny(n_real=400, start="biased", bias=0.6, **LENET)
NESTED = tiny(dataset="standin20", n_real=640, n_test=100, start="biased", bias=0.75, **LENET)


def plan(e, store):
    return list(generations(e, real_data(e), store))


def cells(pool, real):
    shape = real.counts.shape
    return np.bincount(pool.label * shape[1] + pool.group, minlength=real.counts.size)


# ---- What a path is ------------------------------------------------------------------------------


def test_levels_begin_at_the_start_and_lead_away_from_it():
    for name, levels in PATHS.items():
        assert levels[0] == (0 if name == "noisier" else 1)
        away = np.diff(levels) if name == "noisier" else -np.diff(levels)
        assert (away > 0).all() and len(levels) > PATH_POINTS + 1, "longer where it must be"
        e = BASE.to_arm(name)
        assert e.arm == name and e.levels == levels[: PATH_POINTS + 1]
        assert BASE.to_arm(name, 1).levels == levels[:2]
    assert BASE.levels == () == BASE.to_arm("none").levels


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_one_experiment_of_all_studies_with_its_start(path):
    """No generator enters, so nothing of it, nor of how or how long its images would enter."""
    of_others = {
        "generator": "resample",
        "generator_options": {"clusters": 1},
        "ratio": 1.0,
        "protocol": "latest",
        "condition": "group",
        "filter": "classifier",
        "shortfall": "keep",
        "labels": "classifier",
        "warm_start": "classifier",
        "n_generations": 5,
    }
    for name, value in of_others.items():
        assert dataclasses.replace(BASE, **{name: value}).to_arm(path) == BASE.to_arm(path), name
    fresh = dataclasses.replace(BASE, protocol="fresh", fresh_share=0.2)
    gan = dataclasses.replace(BASE, generator="gan", generator_steps=3, generator_batch=8)
    assert fresh.to_arm(path).id == gan.to_arm(path).id == BASE.to_arm(path).id
    for name, value in {"seed": 1, "bias": 0.3, "n_real": 500, "classifier_steps": 13}.items():
        assert dataclasses.replace(BASE, **{name: value}).to_arm(path).id != BASE.to_arm(path).id
    assert BASE.to_arm("fewer").to_arm(path) == BASE.to_arm(path)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_dropped_does_not_move_the_start(path):
    told = dataclasses.replace(BASE, condition="group", ratio=0.75, n_generations=3)
    assert real_data(told).start.id == real_data(BASE.to_arm(path)).start.id


def test_a_study_has_the_paths_of_its_variants_once_and_as_long_as_it_says():
    parameters = {
        "n_real": 400,
        "n_test": 20,
        "arms": ["generated", "none", *PATHS],
        "variants": [{"ratio": 0.5}, {"ratio": 1.0, "n_generations": 3}, {"classifier": "ridge"}],
        "path_points": 3,
        "n_seeds": 2,
    }
    study = study_from(parameters)
    arms = [e.arm for e in study.experiments]
    assert [arms.count(path) for path in PATHS] == [4, 2, 4], "ridge has no steps to be shorter"
    assert {e.levels for e in study.experiments if e.arm == "noisier"} == {(0, 0.2, 0.4, 0.6)}
    with pytest.raises(ValueError, match="path_points must be at least 1; got 0"):
        study_from({**parameters, "path_points": 0})
    with pytest.raises(ValueError, match="'fewer' has at most 6 levels after the first; got 9"):
        _ = study_from({**parameters, "path_points": 9}).experiments


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"path": "shorter"},
            "path 'shorter' trains on the start alone: it needs ratio 0; got ratio 0.5",
        ),
        (
            {"path": "shorter", "ratio": 0, "classifier": "ridge"},
            "path 'shorter' needs a classifier that is fitted in steps; got 'ridge', which has a "
            "closed form",
        ),
        (
            {"path": "fewer", "ratio": 0, "classifier": "lenet", "warm_start": "classifier"},
            "every level of path 'fewer' is a fit of its own, from the first weights of generation "
            "0; warm_start must be 'none', got 'classifier'",
        ),
        (
            {"path": "fewer", "ratio": 0, "n_generations": 7},
            "path 'fewer' has at most 6 levels after the first; got 7",
        ),
        ({"path": "slower"}, "unknown path 'slower'; known: none, fewer, shorter, noisier"),
    ],
)
def test_what_cannot_be_a_path_is_told_in_one_sentence(fields, says):
    with pytest.raises(ValueError) as error:
        Experiment(**fields)
    assert str(error.value) == says


def test_a_path_that_leaves_nothing_to_learn_is_refused_before_training(runs):
    with pytest.raises(
        ValueError,
        match=r"'fewer' ends at 0.0625 of n_real 100, 6 images for 10 classes; raise n_real or",
    ):
        run([tiny(), tiny().to_arm("fewer")], numerics=FLOAT64)
    with pytest.raises(
        ValueError, match=r"ends at 0.95 wrong labels, more than the 0.9 of labels drawn blindly"
    ):
        run([tiny(), tiny().to_arm("noisier", 7)], numerics=FLOAT64)
    assert not list(runs.glob("stages/*/*"))
    with pytest.raises(ValueError, match="path 'fewer' is an arm of every study with its start"):
        BASE.to_arm("fewer").to_arm("none")


# ---- Its training sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", [BASE, NESTED], ids=["crossed", "nested"])
def test_fewer_is_nested_parts_of_the_start_with_its_shares(base, store):
    e = base.to_arm("fewer")
    real, pools = real_data(e), [turn.pool.load() for turn in plan(e, store)]
    assert [len(pool) for pool in pools] == [round(level * e.n_real) for level in e.levels]
    images = [{image.tobytes() for image in pool.images} for pool in pools]
    assert images[4] < images[3] < images[2] < images[1] < images[0]
    for pool, level in zip(pools, e.levels, strict=True):
        assert abs(cells(pool, real) - real.counts.ravel() * level).max() < 2
        assert np.ptp(np.bincount(pool.label)) <= 2, "classes stay balanced"


@pytest.mark.parametrize("base", [BASE, NESTED], ids=["crossed", "nested"])
def test_noisier_errs_equally_in_every_cell_and_an_error_stays(base, store):
    e = base.to_arm("noisier")
    real, turns = real_data(e), plan(e, store)
    start, pools = real.start.load(), [turn.pool.load() for turn in turns]
    n_groups = real.dataset.n_groups
    wrong = np.stack([pool.label != start.label for pool in pools])
    assert wrong.sum(1).tolist() == [round(level * e.n_real) for level in e.levels]
    assert (np.diff(wrong.astype(int), axis=0) >= 0).all(), "who is wrong at .2 is wrong at .4"
    told = [np.where(now, pool.label, -1) for now, pool in zip(wrong, pools, strict=True)]
    for one, other in itertools.pairwise(told):
        assert (other[one >= 0] == one[one >= 0]).all(), "and as the same class"
    for pool, now, level in zip(pools, wrong, e.levels, strict=True):
        assert (pool.images == start.images).all() and (pool.group == start.group).all()
        of_cell = np.bincount(
            (start.label * n_groups + start.group)[now], minlength=real.counts.size
        )
        assert abs(of_cell - real.counts.ravel() * level).max() < 2
        favoured = real.favoured[start.label, start.group] > 0
        assert now[favoured].mean() == pytest.approx(level, abs=0.02)
        assert now[~favoured].mean() == pytest.approx(level, abs=0.04)
    # each of the other classes equally often, of every class
    pairs = np.zeros((len(real.counts), len(real.counts)), int)
    np.add.at(pairs, (start.label[wrong[-1]], pools[-1].label[wrong[-1]]), 1)
    assert (np.diag(pairs) == 0).all()
    assert all(np.ptp(np.delete(row, k)) <= 1 for k, row in enumerate(pairs))


@pytest.mark.parametrize("seed", range(8))
def test_every_beginning_of_the_order_has_the_shares_and_rounding_favours_no_side(seed):
    rng = np.random.default_rng(seed)
    n_classes, n_groups, bias = int(rng.integers(3, 12)), int(rng.integers(2, 7)), rng.random()
    favoured = rng.permutation(n_groups)[np.arange(n_classes) % n_groups]
    share = np.full((n_classes, n_groups), (1 - bias) / n_groups)
    share[np.arange(n_classes), favoured] += bias
    counts = np.stack([largest_remainder(row, int(rng.integers(20, 200))) for row in share])
    label, group = (np.repeat(side, counts[np.nonzero(counts)]) for side in np.nonzero(counts))
    images = LabeledImages(np.zeros((len(label), 1, 1, 1), np.uint8), label, group)
    shift = []
    for again in range(20):
        order = in_turn(images, counts, again)
        assert sorted(order) == list(range(len(label)))
        cell = (label * n_groups + group)[order]
        so_far = (cell[:, None] == np.arange(counts.size)).cumsum(0)
        due = np.arange(1, len(label) + 1)[:, None] * counts.ravel() / len(label)
        assert abs(so_far - due).max() < 3
        side = (group == favoured[label])[order]
        shift.append((side.cumsum() - np.arange(1, len(label) + 1) * side.mean())[len(label) // 3])
    assert abs(np.mean(shift)) < 4 * np.std(shift) / np.sqrt(len(shift)) + 0.5


def test_a_wrong_label_is_any_other_class_with_equal_chance():
    label = np.repeat(np.arange(4), 6)
    drawn = np.stack([wrong_labels(label, np.arange(24), 4, seed) for seed in range(3000)])
    assert (drawn != label).all()
    rates = np.stack([(drawn == k).mean(0) for k in range(4)], axis=1)
    expected = np.where(np.arange(4) == label[:, None], 0, 1 / 3)
    assert abs(rates - expected).max() < 5 * np.sqrt(2 / 9 / 3000)
    assert set(wrong_labels(np.array([0, 1, 1]), np.arange(3), 2, 0)[:2]) == {1, 0}


def test_shorter_is_whole_fits_of_fewer_steps_on_the_whole_start(store):
    e = BASE.to_arm("shorter")
    turns = plan(e, store)
    fits = [turn.predictions[0].inputs["by"].state.inputs for turn in turns]
    assert [fit["options"]["steps"] for fit in fits] == [12, 6, 4, 3, 2]
    assert len({turn.pool.id for turn in turns}) == 1 and len({fit["seed"] for fit in fits}) == 5
    short = plan(dataclasses.replace(BASE.to_arm("shorter"), classifier_steps=2), store)
    steps = [turn.predictions[0].inputs["by"].options["steps"] for turn in short]
    assert steps == [2, 1, 1, 1, 1], "a fit has a step"


@pytest.mark.parametrize("path", PATHS)
def test_level_0_is_generation_0_and_every_level_is_a_fit_of_its_own(path, store):
    for base in (BASE, dataclasses.replace(BASE, protocol="subsample", n_generations=3)):
        first, on_path = plan(base, store)[0], plan(base.to_arm(path), store)
        assert [s.id for s in on_path[0].predictions] == [s.id for s in first.predictions]
        assert base.pair == base.to_arm(path).pair
        ids = {turn.predictions[0].id for turn in on_path}
        assert len(ids) == PATH_POINTS + 1 and results_of(on_path)[-1].id != first.batch.id
    with_weights = dataclasses.replace(
        BASE, warm_start="classifier", pretraining="expert", instrument="lenet", instrument_steps=3
    )
    previous = [
        turn.predictions[0].inputs["by"].state.inputs["previous"].id
        for turn in plan(with_weights.to_arm(path), store)
    ]
    assert len(set(previous)) == 1, "the weights of the expert, as in generation 0"


def test_longer_paths_fit_only_what_is_new(runs):
    e = dataclasses.replace(BASE, n_real=160)
    first = run([e, *(e.to_arm(path, 1) for path in PATHS)], numerics=FLOAT64)
    check(first)
    assert first.counts["computed", "classifier"] == 3 + 3, "generation 0 is shared"
    longer = run([e.to_arm(path, 2) for path in PATHS], numerics=FLOAT64)
    assert longer.counts["computed", "prediction"] == 3
    for path in PATHS:
        (before,), (after,) = first.of(path), longer.of(path)
        assert (after.predicted[:2] == before.predicted).all() and after.levels == PATHS[path][:3]
        assert not after.batches and (after.origins[:, 1:] == 0).all()
    (noisier,) = longer.of("noisier")
    assert (noisier.pools.sum((1, 2)) == 160).all() and (noisier.pools[0] != noisier.pools[2]).any()


def test_the_key_of_a_noisier_start_says_level_and_seed(store):
    turns = plan(BASE.to_arm("noisier"), store)
    parts = [turn.pool.members[0].images for turn in turns[1:]]
    assert [part.derivation["wrong labels"] for part in parts] == list(PATHS["noisier"][1:5])
    other = plan(dataclasses.replace(BASE, seed=1).to_arm("noisier"), store)
    assert not {turn.pool.id for turn in turns} & {turn.pool.id for turn in other}
    assert not set(needed_by(results_of(turns))) & set(needed_by(results_of(other)))


# ---- What is told of it --------------------------------------------------------------------------


def test_levels_are_no_generations_of_a_figure_and_ship_with_the_results(runs, tmp_path):
    import matplotlib

    matplotlib.use("agg")
    e = dataclasses.replace(BASE, n_real=160)
    arms = ["generated", "none", *PATHS]
    found = run([e.to_arm(arm, 2) for arm in arms], numerics=FLOAT64)
    curves, grid = figures.curves(found)[1], figures.grid({"": found})[1]
    assert set(curves.arm) == set(grid.arm) == {"generated", "none"}
    assert set(figures.plane({"": found})[1].arm) == set(arms)
    assert set(figures.shares(found)[1].query("generation >= 0").arm) == {"generated"}
    save_study(found, tmp_path, "study", "")
    again = reference("study", tmp_path)
    assert [o.levels for o in again.outcomes] == [o.levels for o in found.outcomes]
    assert [o.experiment for o in again.outcomes] == [o.experiment for o in found.outcomes]


def test_every_arm_has_a_style():
    from biasstudy.report.figures._style import ARM_STYLE

    assert set(ARM_STYLE) == set(ALL_ARMS)
    assert len({style["color"] for style in ARM_STYLE.values()}) == len(ARM_STYLE)


def test_records_of_before_there_were_three_paths_are_read():
    fields = BASE.fields()
    del fields["path"]
    assert stored_experiment({**fields, "fewer": False}) == BASE
    with pytest.raises(ValueError, match="older arm `fewer`, with other levels; run it again"):
        stored_experiment({**fields, "ratio": 0.0, "fewer": True})


def test_paths_that_ship_have_the_levels_of_their_names():
    shipped = [o for study in studies() for o in reference(study).outcomes if o.levels]
    assert {o.experiment.path for o in shipped} == set(PATHS)
    for o in shipped:
        assert o.levels == o.experiment.levels and len(o.predicted) == len(o.levels)
