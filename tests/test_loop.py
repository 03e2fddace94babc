"""The loop: bookkeeping of pools, arms that share generation 0, knobs that do what they say, null
experiments."""

import dataclasses
import io
import lzma

import numpy as np
import pytest
from conftest import FLOAT64, TINY, tiny

from biasstudy import ARMS, GENERATORS, Experiment, Results, run
from biasstudy.data.real import real_data
from biasstudy.loop.generations import generations
from biasstudy.loop.instruments import Instruments
from biasstudy.measures import quality
from biasstudy.report.shipped import save_study

BASE = tiny(start="biased", bias=0.6)


def plan(e, store):
    return list(generations(e, real_data(e), store))


@pytest.mark.parametrize(
    ("protocol", "ratio", "sizes"),
    [
        ("accumulate", 0.5, [100, 150, 200]),
        ("accumulate", 2, [100, 300, 500]),
        ("replace", 1, [100, 100, 100]),
    ],
)
def test_pools_hold_exactly_what_the_protocol_says(store, protocol, ratio, sizes):
    e = tiny(protocol=protocol, ratio=ratio)
    start = real_data(e).start.load().images
    found = [turn.pool.load() for turn in plan(e, store)]
    assert [len(pool) for pool in found] == sizes
    for t, pool in enumerate(found):
        origins = np.bincount(pool.origin + 1, minlength=t + 1)
        if protocol == "accumulate":
            assert (
                origins.tolist() == [100, *[round(100 * ratio)] * t]
                and (pool.images[:100] == start).all()
            )
        else:
            assert origins[t] == 100 and origins.sum() == 100
        assert np.bincount(pool.label).tolist() == [sizes[t] // 10] * 10, (
            "told labels have exact counts"
        )
        assert (pool.group[pool.origin >= 0] == -1).all(), (
            "told the class only, the group of a generated image is unknown"
        )


def test_told_the_group_its_shares_are_fixed(store):
    e = dataclasses.replace(BASE, condition="group", ratio=1.0)
    real, batch = real_data(e), plan(e, store)[0].batch.load()
    assert (batch.counts(10, 5) == real.counts).all()


def test_arms_share_generation_0_and_the_arm_none_keeps_the_start(runs):
    found = run([BASE.to_arm(arm) for arm in ARMS], numerics=FLOAT64)
    assert len({o.predicted[0].tobytes() for o in found.outcomes}) == 1
    assert found.counts["computed", "classifier"] == 1 + 2 * len(ARMS)
    assert not found.of("none")[0].batches and len(found.of("none")[0].predicted) == 3
    real = found.of("real")[0].batches
    assert all((batch["group"] >= 0).all() for batch in real)
    favoured = found.table.query("metric == 'favoured-share' and arm == 'real'").value
    assert favoured.nunique() == 1, "the reserve comes in exactly the shares of the start"


def test_a_second_experiment_fits_nothing_at_generation_0(runs):
    """Of two experiments that differ only in protocol and ratio, the second finds generation 0 in
    the store."""
    run(tiny(ratio=0.5, protocol="accumulate"), numerics=FLOAT64, keep="all")
    second = run(tiny(ratio=1, protocol="replace"), numerics=FLOAT64, keep="all")
    assert second.counts["found", "prediction"] == 1 and second.counts["found", "generator"] == 1
    assert (
        second.counts["computed", "classifier"] == 2 and second.counts["computed", "generator"] == 1
    )


def test_running_again_is_reading(runs):
    first = run([BASE, BASE.to_arm("none")], numerics=FLOAT64)
    again = run([BASE, BASE.to_arm("none")], numerics=FLOAT64)
    assert not [key for key in again.counts if key[0] == "computed"]
    assert first.table.to_csv() == again.table.to_csv()


def test_scratch_is_deleted_and_comes_back_when_it_is_needed(runs):
    first = run(BASE, numerics=FLOAT64)
    arrays = {path.parent.parent.name for path in runs.glob("stages/*/*/arrays.safetensors")}
    assert (
        not arrays & {"generator", "batch", "classifier"}
        and {"prediction", "grid", "telling"} <= arrays
    )
    assert list(runs.glob("stages/generator/*/stage.json")), "provenance stays"
    assert sum(first.outcomes[0].cost["seconds"].values()) > 0
    longer = run(dataclasses.replace(BASE, n_generations=3), numerics=FLOAT64)
    fresh = run(
        dataclasses.replace(BASE, n_generations=3), numerics=FLOAT64, where=runs.parent / "other"
    )
    assert (
        longer.table.drop(columns="experiment").to_csv()
        == fresh.table.drop(columns="experiment").to_csv()
    )


def test_numerics_keep_their_results_apart(runs):
    from biasstudy import Numerics

    run(BASE, numerics=FLOAT64)
    other = run(BASE, numerics=Numerics("float32"))
    assert other.counts["computed", "prediction"] == 3 and set(other.table.numerics) == {
        "float32-cpu-1"
    }


def _start(turn):
    return turn[0].pool.load().images


KNOBS = {  # field: (another value, what of the plan it must change)
    "dataset": ("standin20", _start),
    "dataset_options": ({"n_colors": 3}, _start),
    "start": ("unbiased", _start),
    "bias": (0.9, _start),
    "n_thinned": (1, _start),
    "n_real": (200, _start),
    "favoured": ({"ring": "weak cue"}, lambda real: real.favoured),
    "draws": ("disjoint", _start),
    "n_draws": (3, _start),
    "n_test": (40, lambda plan: plan[0].predictions[0].load()["predicted"]),
    "generator": ("resample", lambda plan: plan[0].batch.load().images),
    "generator_steps": (3, lambda plan: plan[0].batch.load().images),
    "generator_batch": (16, lambda plan: plan[0].batch.load().images),
    "generator_options": ({"clusters": 1}, lambda plan: plan[0].batch.load().images),
    "classifier": ("lenet", lambda plan: plan[0].predictions[0].load()["confidence"]),
    "classifier_steps": (6, lambda plan: plan[0].predictions[0].load()["confidence"]),
    "classifier_batch": (16, lambda plan: plan[0].predictions[0].load()["confidence"]),
    "classifier_options": (
        {"penalty": 1.0},
        lambda plan: plan[0].predictions[0].load()["confidence"],
    ),
    "n_classifiers": (2, lambda turns: np.array([len(turns[0].predictions)])),
    "condition": ("group", lambda plan: plan[0].batch.load().group),
    "ratio": (1.0, lambda plan: plan[1].pool.load().images),
    "protocol": ("replace", lambda plan: plan[2].pool.load().images),
    "n_generations": (3, lambda turns: np.array([len(turns)])),
    "instrument": ("lenet", lambda plan: plan[0].oracle.load()["told"]),
    "instrument_steps": (40, lambda plan: plan[0].oracle.load()["told"]),
    "instrument_options": ({"penalty": 3.0}, lambda plan: plan[0].oracle.load()["told"]),
    "filter": ("classifier", lambda plan: plan[0].batch.load().images),
    "filter_options": ({"confidence": 0.6}, lambda plan: plan[0].batch.load().images),
    "shortfall": ("keep", lambda turns: np.array([len(turns[0].batch.load())])),
    "labels": ("classifier", lambda plan: plan[1].pool.load().label),
    "fresh_share": (0.2, lambda plan: plan[1].pool.load().origin),
    "sensitivity": (9.0, lambda plan: plan[1].pool.load().images),
    "path": ("fewer", lambda plan: plan[1].pool.load().images),
    "imitate": ("shares", lambda plan: plan[0].batch.load().images),
    "pretraining": ("expert", lambda plan: plan[0].predictions[0].load()["confidence"]),
    "warm_start": ("both", lambda plan: plan[1].predictions[0].load()["confidence"]),
    "seed": (1, _start),
}
BASES = {  # what a field needs to have an effect
    "classifier": {},
    "classifier_options": {},
    "instrument": {},
    "instrument_options": {},
    "protocol": {"ratio": 1.0},
    "fresh_share": {"protocol": "fresh"},
    "sensitivity": {"protocol": "performative", "n_real": 200},
    "path": {"ratio": 0.0},
    "favoured": {
        "start": "as-found",
        "bias": 0.0,
        "dataset": "standin-hard",
        "n_real": 300,
        "n_test": 200,
    },
    "n_draws": {"draws": "disjoint", "n_draws": 2, "seed": 1},
    "filter": {"n_real": 200, "classifier_options": {"penalty": 3.0}},
    "shortfall": {"filter": "classifier"},
    "filter_options": {
        "filter": "classifier",
        "shortfall": "keep",
        "classifier_options": {"penalty": 3.0},
    },
    "generator_steps": {"generator": "gan", "generator_steps": 2, "generator_batch": 8},
    "generator_batch": {"generator": "gan", "generator_steps": 2, "generator_batch": 8},
    "warm_start": {"generator": "gan", "generator_steps": 2, "generator_batch": 8},
    "n_thinned": {"dataset": "standin20", "n_real": 200, "n_test": 100},
}
NETWORKS = {
    "classifier": "lenet",
    "classifier_steps": 3,
    "instrument": "lenet",
    "instrument_steps": 20,
}
CHANGES = {  # fields that change together
    "start": {"start": "unbiased", "bias": 0.0},
    "classifier": {"classifier": "lenet", "classifier_steps": 3},
    "instrument": {"instrument": "lenet", "instrument_steps": 20},
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Experiment)])
def test_every_field_changes_what_it_names(store, name):
    """Peers shipped knobs that did nothing."""
    value, of = KNOBS[name]
    plain = name in (
        "classifier",
        "classifier_options",
        "instrument",
        "instrument_options",
        "filter",
        "filter_options",
        "imitate",
        "sensitivity",
    )
    base = dataclasses.replace(BASE, **({} if plain else NETWORKS), **BASES.get(name, {}))
    changed = dataclasses.replace(base, **CHANGES.get(name, {name: value}))
    if name == "shortfall":  # three steps recognise nothing: one stops where the other goes on
        with pytest.raises(ValueError, match="filter 'classifier' accepted"):
            of(plan(base, store))
        assert of(plan(changed, store)) < base.n_batch
        return
    if name == "favoured":  # which cells are contrasted, not what is trained
        before, after = (of(real_data(e)) for e in (base, changed))
    else:
        before, after = (of(plan(e, store)) for e in (base, changed))
    assert before.shape != after.shape or (before != after).any()


def test_all_experiments_are_checked_before_any_is_trained(runs):
    with pytest.raises(ValueError, match="not enough real images"):
        run([tiny(), tiny(n_real=4000)], numerics=FLOAT64)
    assert not list(runs.glob("stages/*/*"))
    with pytest.raises(ValueError, match="unknown keep 'some'"):
        run(tiny(), keep="some")


def test_the_table_has_the_columns_of_the_design_and_no_silent_zero(runs):
    from biasstudy.loop.results import COLUMNS

    table = run([BASE, BASE.to_arm("none")], numerics=FLOAT64, scale="smoke").table
    assert tuple(table.columns) == COLUMNS and set(table.scale) == {"smoke"}
    assert table[table.n == 0].value.isna().all()
    # nan with its n where there are too few images for a measure of quality
    few = table.metric.isin(quality.NAMES)
    assert table[(table.n > 0) & ~few].value.notna().all()
    assert set(table.query("measured_on == 'classifier'").split) == {"test"}


def test_several_classifiers_are_rows_of_their_own(runs):
    found = run(
        dataclasses.replace(BASE, n_classifiers=2, classifier="lenet", classifier_steps=3),
        numerics=FLOAT64,
    )
    assert found.outcomes[0].predicted.shape[:2] == (3, 2)
    assert set(found.table.query("measured_on == 'classifier'").replicate) == {0, 1}


def test_pretrained_classifiers_begin_at_the_weights_of_the_expert_in_every_generation(store):
    e = dataclasses.replace(
        BASE,
        **{**NETWORKS, "classifier_steps": 1, "classifier_options": {"rate": 1e-12}},
        pretraining="expert",
        n_classifiers=2,
    )
    expert = Instruments(e, real_data(e), store).fitted("expert").state.load()
    for turn in plan(e, store):
        for stage in turn.predictions:
            found = stage.inputs["by"].state.load()
            assert all(np.allclose(found[name], expert[name], atol=1e-9) for name in expert)
    assert (
        e.prior == "instruments"
        and BASE.prior == "none"
        and e.to_arm("none").pretraining == "expert"
    )


def test_quality_is_measured_with_the_features_of_the_instrument(runs):
    e = tiny(
        n_real=300,
        n_test=300,
        instrument="lenet",
        instrument_steps=100,
        ratio=1.0,
        generator_options={"clusters": 1},
        n_generations=1,
    )
    found = run([e, e.to_arm("real"), e.to_arm("resample")])
    first = found.table.query(
        "generation == 0 and measured_on == 'batch' and label.isna() and group.isna()"
    )
    value = first.pivot(index="metric", columns="arm", values="value")
    margin = 3 * value.loc["kid-se", "real"]
    assert value.loc["kid", "generated"] > value.loc["kid", "real"] + margin, (
        "one Gaussian is no digit"
    )
    assert value.loc["recall", "generated"] < value.loc["recall", "real"] - 0.1
    assert abs(value.loc["kid", "real"]) < 4 * value.loc["kid-se", "real"]
    assert value.loc["copied-share", "resample"] == 1 and value.loc["copied-share", "real"] < 0.1
    assert found.table.query("metric == 'kid' and group.notna()").n.gt(0).all()
    assert "kid" not in set(run(tiny(), numerics=FLOAT64).table.metric), "ridge has no features"


def test_nested_groups_are_told_by_a_classifier_whose_errors_are_kept(runs):
    e = tiny(dataset="standin20", n_real=200, n_test=200, start="biased", bias=0.75)
    found = run(e, numerics=FLOAT64).outcomes[0]
    assert found.confusion.shape == (100, 101) and found.confusion.sum() == 200


def test_figures_and_report_are_written(runs, tmp_path):
    import json

    import matplotlib

    matplotlib.use("agg")
    from biasstudy import figures
    from biasstudy.__main__ import main

    found = run([BASE, BASE.to_arm("none")], numerics=FLOAT64, scale="smoke")
    real, folder = real_data(BASE), tmp_path / "study" / "figures"
    drawn = {
        "data": figures.data_picture(real),
        "curves": figures.curves(found),
        "cells": figures.cell_accuracy(found),
        "shares": figures.shares(found),
        "samples": (figures.samples(found, real), figures.counts_table(real)),
    }
    for name, (figure, table) in drawn.items():
        files = figures.save(
            figure, table, f"What the {name} show.", f"mnist-{name}", found, folder
        )
        assert files == [f"mnist-{name}.{ending}" for ending in ("png", "csv", "json")]
        assert all((folder / file).stat().st_size > 100 for file in files)
        about = json.loads((folder / f"mnist-{name}.json").read_text())
        assert (
            about["claim"] == f"What the {name} show."
            and "scale smoke" in about["mark"]
            and "n = 1 seed" in about["mark"]
        )
    assert main(["report"]) == 0
    page = (tmp_path / "study" / "index.html").read_text()
    assert page.count("trained here: ") == 5 and ">mnist</h3>" in page and 'src="http' not in page


@pytest.mark.parametrize(
    "fields", [{"ratio": 0.0}, {"dataset": "standin20", "n_real": 200, "n_test": 200}]
)
def test_every_figure_can_be_drawn_without_batches_and_for_nested_groups(runs, fields):
    import matplotlib

    matplotlib.use("agg")
    from biasstudy import figures

    e = tiny(**{"start": "biased", "bias": 0.6, **fields})
    found, real = run(e, numerics=FLOAT64), real_data(e)
    figures.data_picture(real), figures.samples(found, real), figures.curves(found)
    assert len(figures.cell_accuracy(found)[1]) and len(figures.shares(found)[1])


def test_reference_results_survive_being_saved(runs, tmp_path):
    from biasstudy import inference, reference

    seeds = [dataclasses.replace(BASE, seed=s) for s in range(2)]
    found = run([e.to_arm(arm) for e in seeds for arm in ARMS], numerics=FLOAT64)
    save_study(found, tmp_path, "study", "a command")
    stored = reference("study", tmp_path)
    kept = ["experiment", "arm", "seed", "generation", "metric", "label", "group", "value", "n"]
    assert stored.table[kept].to_csv() == found.table[kept].to_csv() and "commit" in stored.note
    assert inference.sentence(stored) == inference.sentence(found)


@pytest.mark.parametrize("largest", [9, 127, 128, 255, 256, 30_000])
def test_predictions_of_any_number_of_classes_are_kept(largest, runs):
    from biasstudy.report.shipped import _arrays

    first = run([BASE], numerics=FLOAT64).outcomes[0]
    predicted = first.predicted.copy()
    predicted[-1, 0, :2] = largest, 0
    kept = _arrays(dataclasses.replace(first, predicted=predicted), False)["predicted"]
    assert np.array_equal(kept, predicted)


def test_alike_arrays_are_stacked_and_come_back_to_the_last_bit():
    """Whatever the type; a nan keeps its bits; what was written before arrays were stacked is
    read as well."""
    from biasstudy.report.shipped import _packed, _unpacked

    values = np.array([np.nan, -0.0, 1 / 3])
    values.view(np.uint64)[0] += 5
    arrays = {
        "0/predicted": np.arange(6, dtype=np.uint8).reshape(2, 1, 3),
        "1/predicted": np.arange(4, dtype=np.uint8).reshape(2, 1, 2),
        "2/predicted": np.arange(1, 7, dtype=np.uint8).reshape(2, 1, 3),
        "0/quality0/value": values,
        "2/quality0/value": values[::-1],
        "1/quality0/value": values.astype(np.float32),
        "2/batch0/label": np.zeros((0,), np.int16),
        "1/favoured": np.array(3),
    }
    older = io.BytesIO()
    np.savez(older, **arrays)
    for packed in (_packed(arrays), lzma.compress(older.getvalue())):
        again = {
            f"{i}/{name}": value
            for i, by_name in enumerate(_unpacked(packed, 3))
            for name, value in by_name.items()
        }
        assert again.keys() == arrays.keys()
        for name, value in arrays.items():
            assert again[name].dtype == value.dtype and again[name].shape == value.shape
            assert again[name].tobytes() == value.tobytes(), name


def test_a_study_of_many_alike_experiments_is_small():
    """A header of each array took as much room as what 300 small arrays hold."""
    from biasstudy.report.shipped import _packed

    rng = np.random.default_rng(0)
    arrays = {f"{i}/counts": rng.integers(0, 256, 10).astype(np.uint8) for i in range(300)}
    assert len(_packed(arrays)) < 2 * sum(a.nbytes for a in arrays.values())


def test_results_that_ship_leave_room_in_ten_megabytes():
    from biasstudy.report.shipped import REFERENCE

    files = [path for path in REFERENCE.rglob("*") if path.is_file()]
    assert len(files) > 40 and sum(path.stat().st_size for path in files) <= 10e6


def test_what_another_stored_study_holds_is_kept_once(runs, tmp_path):
    from biasstudy import reference, reference_parts
    from biasstudy.report.shipped import is_part, recipe, studies
    from biasstudy.study import study_from

    study = study_from(
        {
            **BASE.fields(),
            "variants": [{"ratio": 0.5}, {"ratio": 1.0}],
            "arms": ["generated", "real", "none"],
        }
    )
    found = study.run()
    save_study(found, tmp_path, "whole", "a command", study.split(found))
    smaller = study_from({**BASE.fields(), "ratio": 1.0, "arms": ["generated", "none"]})
    mine = smaller.run()
    save_study(mine, tmp_path, "part", "another command", smaller.split(mine))
    assert studies(tmp_path) == ["part", "whole"] and recipe("part", tmp_path) == "another command"
    assert is_part("part", tmp_path) and not is_part("whole", tmp_path)
    assert not (tmp_path / "part.npz.xz").exists() and not (tmp_path / "part.csv.xz").exists()
    part = reference("part", tmp_path)
    assert [o.experiment for o in part.outcomes] == smaller.experiments
    assert [*reference_parts("part", tmp_path)] == [""]
    same = study.split(found)["ratio 1.0"].of("generated")[0]
    assert (part.of("generated")[0].predicted == same.predicted).all()
    minutes = [
        float(r.note.split(" process")[0].split()[-1]) for r in (part, reference("whole", tmp_path))
    ]
    assert minutes[0] <= minutes[1], "its cost is its own"


@pytest.mark.parametrize("changed", ["stages", "pictures"])
def test_what_no_other_study_holds_is_stored_itself(runs, tmp_path, changed):
    """Other stages are other results, whatever the experiment is called."""
    from biasstudy.report.shipped import is_part

    found = run(BASE, numerics=FLOAT64)
    save_study(found, tmp_path, "whole", "a command")
    if changed == "stages":
        found = Results([dataclasses.replace(o, stages={"0": ["other"]}) for o in found.outcomes])
    save_study(found, tmp_path, "mine", "a command", pictures=changed == "pictures")
    assert not is_part("mine", tmp_path) and (tmp_path / "mine.npz.xz").exists()


def test_reference_results_of_an_older_version_say_so(runs, tmp_path, monkeypatch):
    from biasstudy import reference

    save_study(run(BASE, numerics=FLOAT64), tmp_path, "study", "a command")
    assert "made with" not in reference("study", tmp_path).note
    newer = dataclasses.replace(GENERATORS["mixture"], version=99)
    monkeypatch.setitem(GENERATORS._entries, "mixture", newer)
    assert reference("study", tmp_path).note.endswith("made with generator mixture v2")


def test_variants_survive_being_saved(runs, tmp_path):
    from biasstudy.report.shipped import reference_parts
    from biasstudy.study import study_from

    study = study_from(
        {
            **TINY,
            "start": "biased",
            "bias": 0.6,
            "variants": [{"protocol": "latest"}, {"ratio": 1.0}],
            "arms": ["generated", "real", "none"],
            "precision": "float64",
        }
    )
    found = study.run()
    assert len(found.outcomes) == 5, "the arm none depends on neither and is run once"
    save_study(found, tmp_path, "study", "a command", study.split(found))
    parts = reference_parts("study", tmp_path)
    assert list(parts) == ["protocol latest", "ratio 1.0"]
    assert {name: [o.experiment.id for o in part.outcomes] for name, part in parts.items()} == {
        name: [o.experiment.id for o in part.outcomes] for name, part in study.split(found).items()
    }
    assert all(part.of(arm) for part in parts.values() for arm in ("generated", "real", "none"))
