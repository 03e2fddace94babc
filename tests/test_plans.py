"""A plan is there before what it asks is answered, whole or not at all, and says when it is not."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from conftest import FLOAT64, TINY, Here

from biasstudy.__main__ import main
from biasstudy.campaign import commands, sweep
from biasstudy.campaign.cost import Costs
from biasstudy.core import store as stores
from biasstudy.core.places import CannotWrite
from biasstudy.core.seeds import digest
from biasstudy.inference.plans import plan_from
from biasstudy.loop.results import Results
from biasstudy.report.shipped import reference, reference_parts, save_study
from biasstudy.study import study_from

SMALL = {
    **TINY,
    "name": "asked",
    "n_generations": 1,
    "precision": "float64",
    "n_seeds": 2,
    "start": "biased",
    "bias": 0.6,
    "arms": ["generated", "none"],
}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def files(runs):
    return sorted(runs.glob("plans/*/*/plan.json"))


def test_a_plan_is_older_than_the_first_stage(runs):
    results = study_from(SMALL).run()
    (file,) = files(runs)
    first = min(stage.stat().st_mtime_ns for stage in runs.glob("stages/*/*/stage.json"))
    assert file.stat().st_mtime_ns < first
    record = json.loads(file.read_text())
    assert record["hash"] == file.parent.name == digest(record["plan"], 64)
    age = datetime.now(UTC) - datetime.fromisoformat(record["frozen"])
    assert timedelta(0) <= age < timedelta(minutes=10)
    assert record["made_with"]["torch"] and record["replaced"] == "" and not record["late"]
    plan = results.plan
    assert plan.confirmatory and plan.status == "confirmatory" and plan.hash == record["hash"]
    assert plan.seeds == (0, 1) and plan.family == ("",) and plan.asked_of("x") is None
    (asked,) = plan.content["hypotheses"]
    for arm in ("generated", "none"):
        assert asked["experiments"][arm] == [o.experiment.id for o in results.of(arm)]
        same = all(plan.asked_of(id) == asked for id in asked["experiments"]["generated"])
        assert same and plan.asked_of(asked["experiments"]["none"][0]) is None


def test_it_is_there_when_the_first_fit_begins(runs, monkeypatch):
    def stop(*_):
        assert len(files(runs)) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stores.Workshop, "_compute", stop)
        study_from(SMALL).run()
    assert study_from(SMALL).run().plan.confirmatory, "found again, not made after the results"
    assert len(files(runs)) == 1


def test_margins(runs):
    starts = [{"start": "unbiased", "bias": 0.0}, {"start": "biased", "bias": 0.6}]
    unbiased, biased = study_from({**SMALL, "variants": starts}).hypotheses()
    assert unbiased["margin"] == 0.02 and biased["margin"] is None
    given = study_from({**SMALL, "variants": starts, "margin": 0.01}).hypotheses()
    assert [asked["margin"] for asked in given] == [0.01, 0.01]
    for margin in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"margin must be a change of accuracy in \(0, 1\)"):
            study_from({**SMALL, "margin": margin})
    nothing = {**SMALL, "variants": [{"ratio": 0.0}, {"ratio": 0.5}]}
    assert len(study_from(nothing).hypotheses()) == 1, "at ratio 0 nothing is asked"


def told(parameters, tmp_path, capsys, command="run"):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(parameters))
    assert main([command, str(tmp_path / "study.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if "plan" in line and "has no notebook" not in line]


def test_a_changed_plan_is_told_in_one_sentence(tmp_path, runs, capsys):
    first = told(SMALL, tmp_path, capsys)
    assert len(first) == 1 and first[0].endswith("before the first result: confirmatory")
    assert "1 hypothesis, margin a quarter of M(none), seeds 0 to 1, frozen 20" in first[0]
    assert told(SMALL, tmp_path, capsys) == first
    old = first[0].split()[1].strip(":")
    # new seeds: nothing is known of them
    later = told({**SMALL, "seed": 5}, tmp_path, capsys)
    assert later[0].endswith(f"confirmatory; it replaces plan {old}: seeds 5 to 6, was 0 to 1")
    assert told({**SMALL, "scale": "offline", "seed": 9}, tmp_path, capsys)[0].endswith(
        "confirmatory"
    ), "another scale is another study"
    assert len(files(runs)) == 3


@pytest.mark.parametrize(
    "change",
    [{"margin": 0.05}, {"n_seeds": 3}, {"arms": ["generated", "none", "real"]}],
    ids=["margin", "seeds", "arm"],
)
def test_a_plan_made_after_the_first_results_is_exploratory(change, runs, caplog):
    study_from(SMALL).run()
    with caplog.at_level(logging.WARNING, "biasstudy"):
        results = study_from({**SMALL, **change}).run()
    if "arms" in change:
        assert results.plan.confirmatory and not caplog.records, "the hypothesis is the same"
        return
    assert results.plan.late and results.plan.status == "exploratory"
    (record,) = caplog.records
    assert "after the first results: exploratory; it replaces plan " in record.getMessage()
    assert study_from({**SMALL, **change}).run().plan.late, "and stays so"


def test_results_in_other_numerics_are_results(runs):
    study_from({**SMALL, "precision": "float32"}).run()
    assert study_from(SMALL).run().plan.late


@pytest.mark.parametrize(
    "change", [{"instrument": "patch-ridge"}, {"n_test": 40}, {"precision": "float32"}]
)
def test_results_of_the_same_models_measured_otherwise_are_results(change, runs):
    """Somebody may have looked at nearly the same numbers."""
    study_from({**SMALL, "n_test": 60}).run()
    later = study_from({**SMALL, "n_test": 60, **change, "arms": ["generated", "none"]})
    assert later.run().plan.late
    fresh = {**SMALL, "n_test": 60, **change, "seed": 7}
    assert study_from(fresh).run().plan.confirmatory, "seeds that nobody has seen"


def test_a_plan_of_other_photographs_is_not_replaced(runs, tmp_path):
    """`name: own_data` is everybody's."""
    from conftest import FLOAT64

    from biasstudy.inference.plans import content_of, freeze, hypothesis_of
    from biasstudy.loop.run import open_store

    store = open_store(None, FLOAT64)
    plans = []
    for data, seeds in (("birds", [0, 1]), ("sky", [0, 5]), ("birds", [0, 2])):
        asked = [hypothesis_of("", ["a", "b"], ["c", "d"], None, data)]
        content = content_of("own_data", "custom", FLOAT64.name, seeds, asked)
        plans.append(freeze(store, content, lambda: False)[0])
    assert plans[0].replaced == plans[1].replaced == ""
    assert plans[2].replaced.endswith(f"{plans[0].hash[:8]}: seeds 0 to 2, was 0 to 1")


def test_one_finished_stage_of_one_seed_is_a_result(runs, monkeypatch):
    """As after a kill: no record of an experiment yet, and somebody may have looked."""
    study = study_from({**SMALL, "margin": 0.05})

    def stop(self, name, record):
        if "generated" in record["arm"]:
            raise KeyboardInterrupt
        save(self, name, record)

    save = stores.Workshop.save_record
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stores.Workshop, "save_record", stop)
        study.run()
    assert study.run().plan.confirmatory and study_from(SMALL).run().plan.late


def test_the_arm_none_alone_is_no_result(runs):
    """It tells nothing of A."""
    assert study_from({**SMALL, "name": "other", "arms": ["none"]}).run().plan is None
    assert study_from(SMALL).run().plan.confirmatory


def test_pilot_seeds_never_count(tmp_path, runs, capsys):
    (said,) = told({**SMALL, "seed": 1000}, tmp_path, capsys)
    assert said == "pilot: seeds from 1,000 on never count; no plan, all is exploratory"
    assert study_from({**SMALL, "seed": 1000}).run().plan is None and not files(runs)
    with pytest.raises(ValueError, match="pilot seeds, which never count; got 999 to 1000"):
        study_from({**SMALL, "seed": 999})
    assert told(SMALL, tmp_path, capsys)[0].endswith("confirmatory"), "pilots are no results"


def test_a_sweep_freezes_before_it_runs_and_a_dry_run_does_not(tmp_path, runs, capsys, monkeypatch):
    monkeypatch.setattr(commands.Machines, "engine", lambda self, numerics: Here())
    monkeypatch.setattr(sweep.Schedule, "costs", lambda *_: (Costs(), "nothing"))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(SMALL))
    grid = {"name": "grid", "base": "base.yaml", "grid": {"protocol": ["accumulate", "latest"]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(grid))
    command = ["sweep", str(tmp_path / "sweep.yaml")]
    assert main([*command, "--dry-run"]) == 0 and not files(runs)
    assert main(command) == 0
    (file,) = files(runs)
    assert file.parts[-3] == "grid" and "2 hypotheses" in capsys.readouterr().out
    assert json.loads(file.read_text())["plan"]["family"] == [
        "protocol accumulate",
        "protocol latest",
    ]
    first = min(stage.stat().st_mtime_ns for stage in runs.glob("stages/*/*/stage.json"))
    assert file.stat().st_mtime_ns < first


# ---- Shipped -------------------------------------------------------------------------------------


def test_a_plan_ships_with_the_results(tmp_path, runs):
    variants = [{"protocol": "accumulate"}, {"protocol": "latest"}]
    study = study_from({**SMALL, "variants": variants, "margin": 0.03})
    results = study.run()
    parts = study.split(results)
    assert all(part.plan == results.plan for part in parts.values())
    save_study(results, tmp_path, "asked", "command", parts)
    back = reference("asked", tmp_path)
    assert back.plan == results.plan and back.plan.content["hypotheses"][1]["margin"] == 0.03
    assert all(p.plan == results.plan for p in reference_parts("asked", tmp_path).values())
    save_study(Results(results.outcomes), tmp_path / "bare", "asked", "command", parts)
    assert reference("asked", tmp_path / "bare").plan is None
    # a part of it that another study ships has no plan of its own
    save_study(Results(parts["protocol latest"].outcomes), tmp_path, "part", "command")
    assert reference("part", tmp_path).plan is None


def test_what_ships_without_a_plan_is_exploratory():
    assert reference("colorized_mnist_gan").plan is None
    assert reference("colorized_mnist").plan.confirmatory


def test_reference_results_have_their_plan_where_the_same_is_asked(tmp_path, runs, monkeypatch):
    results = study_from(SMALL).run()
    save_study(results, tmp_path, "asked", "command")
    monkeypatch.setattr("biasstudy.report.shipped.REFERENCE", tmp_path)
    stored = {**SMALL, "source": "reference:asked"}
    assert study_from(stored).run().plan == results.plan
    assert study_from({**stored, "margin": 0.1}).run().plan is None, "another margin: not asked"


# ---- Faults --------------------------------------------------------------------------------------


def test_a_plan_that_is_not_whole_is_no_plan(runs, caplog):
    study_from(SMALL).freeze(FLOAT64, runs)
    (file,) = files(runs)
    whole = file.read_text()
    assert plan_from(json.loads(whole)).confirmatory
    for damage in (whole[:100], whole.replace('"seeds": [', '"seeds": [7, '), "[]", ""):
        file.write_text(damage)
        plan, _ = study_from(SMALL).freeze(FLOAT64, runs)
        assert plan.confirmatory and "is left out" in caplog.text
        assert plan_from(json.loads(file.read_text())) == plan, "frozen anew"
        caplog.clear()


def test_the_first_of_two_stays(store):
    first = {"plan": {"seeds": [0]}, "frozen": "1"}
    name = digest(first["plan"], 64)
    assert store.save_plan("asked", name, first) == first
    assert store.save_plan("asked", name, {**first, "frozen": "2"}) == first
    assert not list((store.root / "tmp").iterdir())


def test_a_store_that_cannot_be_written_has_only_late_plans(runs, monkeypatch, caplog):
    def refuse(self, n_bytes=0):
        raise CannotWrite("cannot write results to x")

    with monkeypatch.context() as patch, pytest.raises(CannotWrite):
        patch.setattr(stores.Workshop, "open", refuse)
        study_from(SMALL).run()
    study_from(SMALL).run()
    monkeypatch.setattr(stores.Workshop, "open", refuse)
    assert study_from(SMALL).run().plan.confirmatory, "reading needs no right to write"
    assert study_from({**SMALL, "margin": 0.1}).run().plan.late
    assert "the plan is not kept: cannot write results to x" in caplog.text


FREEZING = """
import itertools, sys
from pathlib import Path
from biasstudy import Numerics
from biasstudy.study import study_from
parameters = eval(sys.argv[1])
for i in itertools.count():
    study_from({**parameters, "name": f"asked_{i}"}).freeze(Numerics("float64"), Path("runs"))
"""


def test_kill_9_leaves_a_whole_plan_or_none(tmp_path):
    command = [sys.executable, "-c", FREEZING, repr(SMALL)]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 60
    while len(files(tmp_path / "runs")) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = files(tmp_path / "runs")
    assert len(found) >= 20
    assert all(plan_from(json.loads(file.read_text())).confirmatory for file in found)
    assert all(len(list(folder.iterdir())) == 1 for folder in (tmp_path / "runs/plans").glob("*/*"))
