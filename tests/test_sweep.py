"""Sweeps: what a grid means, what it will cost, and that results depend on nothing but the
experiments.

What dies and fills up is in test_faults.py.
"""

import json
import lzma
import os
import random
import re
import shlex
import signal
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import TINY, Here

from biasstudy import run
from biasstudy.__main__ import main
from biasstudy.campaign import commands, engine, sweep
from biasstudy.campaign.cost import Costs, Recipe, recipe_of
from biasstudy.campaign.farm import Farm, run_by
from biasstudy.core.numerics import Numerics
from biasstudy.core.store import Slot
from biasstudy.study import study_from

ROOT = Path(__file__).parents[1]
BASE = {**TINY, "precision": "float64", "n_seeds": 2, "arms": ["generated", "none"]}
STARTS = [{"start": "unbiased", "bias": 0.0}, {"start": "biased", "bias": 0.6}]


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nothing dies here, so nothing need wait for the disk."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def written(tmp_path, grid, base=BASE, **keys) -> Path:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", "grid": grid, **keys}))
    return path


# ---- The grid ------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_and_equal_experiments_count_once(tmp_path):
    grid = sweep.read(
        written(
            tmp_path,
            {
                "starts": STARTS,
                "ratio": [0.5, 1.0],
                "protocol": ["accumulate", "latest"],
                "arms": ["generated", "real", "none"],
                "seed": [3, 4, 5],
            },
        )
    )
    found = grid.study.experiments
    assert len(found) == len({e.id for e in found})
    arms = [e.arm for e in found]
    assert arms.count("generated") == arms.count("real") == 2 * 2 * 2 * 3
    assert arms.count("none") == 2 * 3, "it depends on neither ratio nor protocol"
    assert grid.written == 2 * 2 * 2 * 3 * 3 and {e.seed for e in found} == {3, 4, 5}
    assert {(e.start, e.bias) for e in found} == {("unbiased", 0.0), ("biased", 0.6)}
    assert len(grid.study.variants) == 8


def test_seeds_and_arms_are_those_of_the_base_unless_they_are_axes(tmp_path):
    study = sweep.read(written(tmp_path, {"ratio": [0.5, 1.0]})).study
    assert (study.n_seeds, study.arms) == (2, ("generated", "none"))
    assert sweep.read(written(tmp_path, {"ratio": [0.5]}), {"n_test": 30}).study.base.n_test == 30
    one = sweep.read(written(tmp_path, {"ratio": [0.5, 1.0], "n_real": [80]})).study
    assert list(one.variants) == ["ratio 0.5", "ratio 1.0"] and one.base.n_real == 80


def test_combinations_that_cannot_be_stop_it_or_are_left_out_and_counted(tmp_path):
    grid = {"ratio": [0.5, 1.0], "protocol": ["latest", "replace"]}
    with pytest.raises(ValueError, match="protocol 'replace' needs ratio 1"):
        sweep.read(written(tmp_path, grid))
    found = sweep.read(written(tmp_path, grid, impossible="skip"))
    assert list(found.refused.values()) == [1] and "needs ratio 1" in next(iter(found.refused))
    assert {(e.ratio, e.protocol) for e in found.study.experiments if e.n_batch} == {
        (0.5, "latest"),
        (1.0, "latest"),
        (1.0, "replace"),
    }
    with pytest.raises(
        ValueError, match=r"no experiment can have ratio 0.5: protocol 'replace' needs ratio 1"
    ):
        sweep.read(
            written(tmp_path, {"ratio": [0.5, 0.6], "protocol": ["replace"]}, impossible="skip")
        )


@pytest.mark.parametrize(
    ("grid", "keys", "sentence"),
    [
        (
            {"raito": [0.5]},
            {},
            "axis 'raito' is no field of an experiment, so its values must be mappings of fields; "
            "known",
        ),
        ({"ratio": 0.5}, {}, "axis 'ratio' must be a list of values; got 0.5"),
        ({"ratio": []}, {}, "axis 'ratio' must be a list of values; got []"),
        ({"ratio": [0.5, 0.5]}, {}, "axis 'ratio' has a value twice"),
        ({"ratio": [0.5, "high"]}, {}, "ratio must be a number"),
        ({"ratio": [0.5, "high"]}, {"impossible": "skip"}, "ratio must be a number"),
        (
            {"starts": [{"strat": "biased"}, {"start": "unbiased"}]},
            {"impossible": "skip"},
            "no experiment can have starts {'strat': 'biased'}: unknown parameter 'strat'",
        ),
        ({"seed": [1, 3]}, {}, "axis 'seed' must be consecutive whole numbers; got [1, 3]"),
        ({"arms": ["generated", "fresh"]}, {}, "unknown arm 'fresh' in arms; known: generated"),
        ({"ratio": [0.5]}, {"impossible": "maybe"}, "impossible must be stop or skip; got 'maybe'"),
        ({"ratio": [0.5]}, {"workers": 3}, "unknown key 'workers' in "),
        ({}, {}, "must hold 'base: parameter file' and 'grid: {axis: [values]}'"),
    ],
)
def test_a_wrong_grid_is_told_in_one_sentence(grid, keys, sentence, tmp_path, runs, capsys):
    assert main(["sweep", str(written(tmp_path, grid, **keys))]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not runs.exists()


@pytest.mark.parametrize(
    ("name", "generator", "n"),
    [("colorized_mnist", "mixture", 372), ("colorized_mnist-gan", "gan", 228)],
)
def test_the_sweeps_that_come_along_are_hundreds_of_distinct_experiments(name, generator, n):
    found = sweep.read(ROOT / "params" / "sweeps" / f"{name}.yaml").study.experiments
    assert len({e.id for e in found}) == n
    assert {e.generator for e in found if e.arm == "generated"} == {generator}
    mixture = sweep.read(ROOT / "params" / "sweeps" / "colorized_mnist.yaml").study.experiments
    controls = {e.id for e in mixture if e.arm != "generated"}
    assert {e.id for e in found if e.arm != "generated"} <= controls, (
        "the GAN's controls are trained once"
    )


# ---- What it will cost ---------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_cost_and_trains_nothing(tmp_path, runs, capsys):
    path = written(tmp_path, {"ratio": [0.5, 1.0], "protocol": ["accumulate", "latest"]})
    assert main(["sweep", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        "distinct experiments" in said
        and "a probe of 1 short experiment" in said
        and not list(runs.glob("stages/*/*"))
    )
    run(study_from(BASE).experiments[:1], numerics=Numerics("float64"))
    assert main(["sweep", str(path), "--dry-run"]) == 0
    lines = [line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line]
    row = {name.strip(): value for name, value in lines}
    assert (
        row["estimated from"] == "times of stored stages"
        and row["finished already"] == "1"
        and row["to run"] == "9"
    )


def test_shared_stages_are_counted_once(tmp_path, runs):
    grid = sweep.read(written(tmp_path, {"protocol": ["accumulate", "latest"]}))
    schedule = sweep.schedule_of(grid.study, runs, Numerics("float64"))
    kinds = [piece.slot.kind for piece in schedule.pieces.values()]
    # per seed: one classifier at t = 0, two later ones of `none`; t = 1 is the same under both
    # protocols, t = 2 is not
    assert kinds.count("classifier") == 2 * (1 + 2 + 1 + 2) and kinds.count("generator") == 2 * 2
    assert schedule.missing == set(schedule.pieces) and not schedule.finished


def test_costs_grow_with_steps_and_prefer_what_was_stored():
    described = {
        "kind": "classifier",
        "numerics": {},
        "inputs": {
            "model": ["classifier", "lenet", "1"],
            "seed": 5,
            "options": {"steps": 500, "rate": 0.1},
        },
    }
    one, other = (
        recipe_of(described),
        recipe_of({**described, "inputs": {**described["inputs"], "seed": 6}}),
    )
    assert one == other and one.steps == 500
    shorter = recipe_of(
        {**described, "inputs": {**described["inputs"], "options": {"steps": 100, "rate": 0.1}}}
    )
    assert shorter.family == one.family and shorter.name != one.name
    probed = Costs(probed={one.family: (2.0, 0.01)})
    assert probed.of([one, shorter]) == pytest.approx(2 + 5 + 2 + 1) and probed.knows(one)
    assert Costs(seconds={one.name: 30.0}, probed=probed.probed).of(
        [one, shorter]
    ) == pytest.approx(30 + 3)
    unknown = Recipe("x", "x", 0)
    assert not probed.knows(unknown) and probed.of([unknown]) == 0


def test_a_probe_is_about_right(tmp_path, runs):
    base = {
        **BASE,
        "classifier": "lenet",
        "classifier_steps": 150,
        "classifier_batch": 4,
        "n_seeds": 1,
        "n_generations": 1,
        "arms": ["none"],
    }
    grid = sweep.read(written(tmp_path, {"ratio": [0.5]}, base))
    schedule = sweep.schedule_of(grid.study, runs, Numerics("float64"))
    costs, source = schedule.costs(Numerics("float64"), runs)
    assert source == "a probe of 1 short experiment" and not list(runs.glob("stages/*/*"))
    guess = costs.of(schedule.pieces[id].recipe for id in schedule.missing)
    report = run_by(Here(), grid.study, schedule=schedule, costs=costs)
    assert report.computed == len(schedule.pieces)
    assert 1 / 5 < guess / report.stage_seconds < 5, "the machine may be busy with other things"


# ---- Running it ----------------------------------------------------------------------------------


def test_results_do_not_depend_on_engine_workers_or_order(tmp_path, runs, monkeypatch, capsys):
    grid = {
        "starts": STARTS[1:],
        "protocol": ["accumulate", "latest"],
        "arms": ["generated", "real", "none"],
    }
    path = written(tmp_path, grid, {**BASE, "n_seeds": 1})
    study = sweep.read(path).study
    assert main(["sweep", str(path), "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert (
        f"{len(study.experiments)} experiments finished" in said
        and "0 times a process died" in said
    )
    shuffled = study.experiments
    random.Random(1).shuffle(shuffled)
    alone = run(shuffled, numerics=Numerics("float64"), where=tmp_path / "alone")
    by_sweep = run(shuffled, numerics=Numerics("float64"))
    assert not any(how == "computed" for how, _ in by_sweep.counts)
    assert by_sweep.table.equals(alone.table.assign(scale=by_sweep.table.scale))
    for a, b in zip(alone.outcomes, by_sweep.outcomes, strict=True):
        assert (a.predicted == b.predicted).all() and (a.confidence == b.confidence).all()
    scratch = {path.parents[1].name for path in runs.glob("stages/*/*/arrays.safetensors")}
    assert not scratch & {"classifier", "generator", "batch"}, (
        "weights and batches are deleted when no experiment needs them"
    )
    assert main(["sweep", str(path), "--workers", "2"]) == 0
    assert f"all {len(study.experiments)} experiments are finished" in capsys.readouterr().out


def test_running_again_does_what_is_missing(tmp_path, runs):
    small, large = ({"ratio": [0.5, *more]} for more in ([], [1.0]))
    first, then = Here(), Here()
    run_by(first, sweep.read(written(tmp_path, small)).study)
    study = sweep.read(written(tmp_path, large)).study
    run_by(then, study)
    assert (
        len(first.seen) == 4
        and len(then.seen) == 2
        and {task["fields"]["ratio"] for task in then.seen} == {1.0}
    )
    victim = next(runs.glob("stages/prediction/*/arrays.safetensors"))
    victim.unlink()
    schedule = sweep.schedule_of(study, runs, Numerics("float64"))
    assert len(schedule.waiting()) >= 1, "an experiment with a lost value is not finished"


def piece(id, root=Path("nowhere"), recipe="") -> sweep.Piece:
    """A stage of a schedule whose stages of one recipe cost the same; default: each has its own."""
    return sweep.Piece(Slot(root, "kind", id), True, Recipe(recipe or id, recipe or id, 0))


def job(name, pair, missing) -> sweep.Job:
    e = study_from(BASE).base
    return sweep.Job(
        replace(e, seed=pair, n_test=20 + name),
        frozenset(missing),
        frozenset(),
        Path(),
        set(missing),
    )


def test_neighbours_that_share_no_stage_run_at_the_same_time_and_the_longest_comes_first():
    jobs = [
        job(0, 1, {"a0", "a1"}),
        job(1, 1, {"a0", "a2", "a3"}),
        job(2, 2, {"b0"}),
        job(3, 2, {"b0", "b1"}),
    ]
    pieces = {id: piece(id) for j in jobs for id in j.missing}
    schedule = sweep.Schedule({j.experiment.id: j for j in jobs}, pieces)
    farm = Farm(schedule, Here(), lambda e: {}, Costs(dict.fromkeys(pieces, 1.0)))
    order = []
    for _ in jobs:
        order.append(farm._next())
        del farm.waiting[order[-1].experiment.id]
        farm.running[Future()] = order[-1]
    assert order[0] is jobs[1] and order[1] is jobs[3], (
        "the longest, then the longest that shares nothing with it"
    )


def test_what_comes_first_does_and_is_told_once_before_the_rest():
    jobs = [job(0, 1, {"a0", "a1", "a2"}), job(1, 2, {"b0"}), job(2, 2, {"b0", "b1"})]
    pieces = {id: piece(id) for j in jobs for id in j.missing}
    ids = [j.experiment.id for j in jobs]
    told = []
    farm = Farm(
        sweep.Schedule(dict(zip(ids, jobs, strict=True)), pieces),
        Here(),
        lambda e: {},
        Costs(dict.fromkeys(pieces, 1.0)),
        "all",
        first={ids[1], ids[2]},
        tell=lambda: told.append(set(farm.waiting)),
    )
    farm._is_finished = lambda job: True
    farm._computed = lambda ids: None
    for expected in (jobs[2], jobs[1], jobs[0]):
        assert farm._next() is expected, "the longest is none of the first"
        del farm.waiting[expected.experiment.id]
        farm.under_way[expected.experiment.id] = expected
        farm._ended(expected, {"state": "done"})
    assert told == [{ids[0]}]


def test_a_run_tells_its_verdict_before_the_arms_that_need_not_be_waited_for(
    tmp_path, runs, capsys
):
    path = tmp_path / "file.yaml"
    arms = ["resample", "generated", "real", "none"]
    path.write_text(yaml.safe_dump({**BASE, "n_seeds": 2, "arms": arms}))
    assert main(["run", str(path), "--workers", "2"]) == 0
    said = capsys.readouterr().out
    early, last = said.split("Without the arms that are still to come (resample, real):")[1].split(
        "images per class"
    )
    assert "A = generated - none" in early and "S = " in last and "R = " in last
    assert "S = " not in early and "R = " not in early
    number = re.compile(r"A = generated - none = (\S+)")
    assert number.search(early)[1] == number.search(last)[1]


def test_the_command_that_draws_a_study_is_told_with_what_was_changed():
    notebook = Path("notebooks/cifar20.ipynb")
    plain = commands._drawing(commands.Asked(Path("a b.yaml"), ""), notebook)
    assert plain == "papermill notebooks/cifar20.ipynb cifar20-drawn.ipynb -f 'a b.yaml'"
    changed = commands.Asked(Path("f.yaml"), "", {"ratio": 1.0, "arms": ["real"]})
    words = shlex.split(commands._drawing(changed, notebook))
    assert words[-2] == "-y" and yaml.safe_load(words[-1]) == {"ratio": 1.0, "arms": ["real"]}


def test_time_left_is_learnt_from_the_first_stage_of_each_kind(tmp_path):
    jobs = [job(seed, seed, {f"fit-{seed}", f"predict-{seed}"}) for seed in range(3)]
    pieces = {id: piece(id, tmp_path, id[:3]) for j in jobs for id in j.missing}
    here = Here()
    here.slots = 2
    farm = Farm(
        sweep.Schedule({j.experiment.id: j for j in jobs}, pieces), here, lambda e: {}, Costs()
    )
    farm.started = time.perf_counter() - 150
    assert "left" not in farm._line()

    def finish(id, seconds):
        folder = pieces[id].slot.folder
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(json.dumps({"provenance": {"seconds": seconds}}))
        farm._computed({id})

    finish("fit-0", 297.0)
    assert f"about {sweep.duration(300)} left and what was never timed" in farm._line(), (
        "two fits; predictions are unknown"
    )
    finish("predict-0", 3.0)
    assert (
        farm.ahead == 600
        and farm.cost[jobs[0].experiment.id] == 0
        and farm.cost[jobs[1].experiment.id] == 300
    )
    assert farm._line().endswith(f"about {sweep.duration(300)} left"), (
        "a third took 150 s of two workers"
    )


def test_time_left_before_a_stage_has_ended_is_what_the_workers_would_take():
    """A stage in flight, or a sum in another order, is no rate: resumed, a study once said
    956360000 h."""
    jobs = [job(seed, seed, {f"fit-{seed}"}) for seed in range(30)]
    pieces = {id: piece(id) for j in jobs for id in j.missing}
    seconds = {f"fit-{seed}": 60.0 + 0.1 * seed for seed in range(30)}
    farm = Farm(
        sweep.Schedule({j.experiment.id: j for j in jobs}, pieces),
        Here(),
        lambda e: {},
        Costs(seconds),
    )
    farm.started = time.perf_counter()
    whole = sum(seconds.values()) / farm.engine.slots
    assert farm._line().endswith(f"about {sweep.duration(whole)} left")
    farm.started -= 20
    assert farm._line().endswith(f"about {sweep.duration(2 * whole)} left"), "nothing was done"


def test_one_worker_is_this_process_and_tells_its_time_as_well(runs, monkeypatch):
    study, said = study_from({**BASE, "arms": ["generated", "none"], "n_seeds": 2}), []
    monkeypatch.setattr(engine._Looking, "EVERY", 0.0)
    report = run_by(engine.Here(), study, say=said.append)
    assert report.finished == len(study.experiments) == 4 and not report.failed
    during = [line for line in said if "1 running" in line and re.search(r"about .* left", line)]
    assert len(during) > 4, "not only between experiments"
    assert said[-1].startswith("4 of 4 done, 0 running")
    assert {how for how, _ in study.run().counts} == {"found"}


def test_what_an_experiment_raises_in_this_process_is_raised(runs, monkeypatch):
    def bitter(*args, **keywords):
        raise ValueError("bitter almonds")

    monkeypatch.setattr("biasstudy.loop.run.run", bitter)
    with pytest.raises(ValueError, match=r"^bitter almonds$"):
        run_by(engine.Here(), study_from({**BASE, "arms": ["none"], "n_seeds": 1}))


def test_a_failed_experiment_is_told_and_stops_no_other(tmp_path, runs, capsys, monkeypatch):
    monkeypatch.setattr(engine, "local", lambda *_: Here())
    (tmp_path / "poison.py").write_text(POISON)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    path = written(
        tmp_path,
        {"arms": ["generated", "none"], "ratio": [0.5, 1.0]},
        {**BASE, "generator": "poisoned", "n_generations": 1},
    )
    try:
        assert main(["sweep", str(path), "--import", "poison"]) == 1
        said = capsys.readouterr().out
        assert "4 experiments finished" in said and "2 failed; run the same command again" in said
        assert said.count("RuntimeError: bitter almonds") == 2 and "raise RuntimeError" in said
        assert len(list(runs.glob("experiments/*.json"))) == 4
    finally:
        from biasstudy import GENERATORS

        GENERATORS._entries.pop("poisoned", None)
        __import__("sys").modules.pop("poison", None)


POISON = '''
from dataclasses import dataclass
from biasstudy import GENERATORS
from biasstudy.models.generators.mixture import Mixture

@GENERATORS.register("poisoned")
@dataclass(frozen=True)
class Poisoned(Mixture):
    """The mixture, but it cannot make the 100 images of ratio 1."""
    def sample(self, state, told, first_index, *, seed, context):
        if len(told) == 100:
            raise RuntimeError("bitter almonds")
        return super().sample(state, told, first_index, seed=seed, context=context)
'''


class Deadly:
    """An engine whose processes end in every task, before or after they finished a stage."""

    def __init__(self, state, then=()):
        self.slots, self.state, self.then, self.given = 2, state, list(then), 0

    def submit(self, task):
        self.given += 1
        future = Future()
        if self.then:
            self.then.pop()()
        future.set_result({"state": self.state, "lines": ["Segmentation fault"]})
        return future


def one_job(tmp_path) -> tuple[sweep.Job, sweep.Schedule]:
    pieces = {id: piece(id, tmp_path) for id in ("a", "b")}
    e = study_from(BASE).base
    one = sweep.Job(e, frozenset(pieces), frozenset(pieces), tmp_path / "record", set(pieces))
    return one, sweep.Schedule({e.id: one}, pieces)


def test_an_experiment_that_always_kills_its_process_is_given_up(tmp_path):
    job, schedule = one_job(tmp_path)
    deadly = Deadly("died")
    report = Farm(schedule, deadly, lambda e: {}, Costs(dict.fromkeys(schedule.pieces, 1.0))).run()
    assert deadly.given == 3 and report.died == 3
    assert report.failed == {
        job.experiment.id: ["Segmentation fault", "so it was 3 times at the same stage"]
    }


def test_an_experiment_whose_process_is_killed_after_progress_is_not_given_up(tmp_path):
    job, schedule = one_job(tmp_path)

    def progress(id, name):
        slot = schedule.pieces[id].slot
        path = {
            "a checkpoint": slot.checkpoints / "checkpoint",
            "the value": slot.folder / "arrays.safetensors",
        }[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    deadly = Deadly(
        "died",
        [
            lambda: None,
            lambda: None,
            lambda: progress("b", "a checkpoint"),
            lambda: progress("a", "the value"),
            lambda: None,
        ],
    )
    report = Farm(schedule, deadly, lambda e: {}, Costs(dict.fromkeys(schedule.pieces, 1.0))).run()
    assert deadly.given == 1 + 1 + 3 and list(report.failed) == [job.experiment.id]


def test_processes_that_cannot_be_started_end_the_sweep(tmp_path):
    _, schedule = one_job(tmp_path)
    with pytest.raises(
        ChildProcessError, match="no worker process could be started: Segmentation fault"
    ):
        Farm(
            schedule, Deadly("unborn"), lambda e: {}, Costs(dict.fromkeys(schedule.pieces, 1.0))
        ).run()


# ---- Clusters ------------------------------------------------------------------------------------


def test_a_dask_cluster_gives_the_same_and_a_dead_worker_costs_a_stage(tmp_path, runs, capsys):
    """Two workers on loopback; the first that holds a task is killed."""
    from distributed import LocalCluster

    path = written(tmp_path, {"arms": ["generated", "none"]}, {**BASE, "n_generations": 1})
    study = sweep.read(path).study
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        killer = threading.Thread(target=kill_when_there, args=(cluster, runs))
        killer.start()
        assert main(["sweep", str(path), "--scheduler", cluster.scheduler_address]) == 0
        killer.join()
    said = capsys.readouterr().out
    assert "dashboard: http://127.0.0.1:" in said and "4 experiments finished" in said
    there = run(study.experiments, numerics=Numerics("float64"))
    alone = run(study.experiments, numerics=Numerics("float64"), where=tmp_path / "alone")
    assert there.table.equals(alone.table) and not any(how == "computed" for how, _ in there.counts)


def kill_when_there(cluster, runs) -> None:
    while not list(runs.glob("stages/prediction/*")):
        time.sleep(0.05)
    os.kill(next(iter(cluster.workers.values())).process.process.pid, signal.SIGKILL)


def test_no_scheduler_is_told_in_one_sentence(tmp_path, runs, capsys):
    path = str(written(tmp_path, {"ratio": [0.5]}))
    run(study_from(BASE).experiments, numerics=Numerics("float64"))  # nothing to probe
    assert main(["sweep", path, "--scheduler", "tls://127.0.0.1:9"]) == 2
    assert "an address tls://... needs --tls CA CERT KEY" in capsys.readouterr().err
    assert main(["sweep", path, "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"]) == 2
    assert "choose one of --workers, --scheduler and --slurm" in capsys.readouterr().err
    for options, sentence in (
        (["--tls", "a", "b", "c"], "--tls belongs to --scheduler"),
        (["--per-gpu", "2"], "--per-gpu is for GPUs of this machine; got 2 with device 'cpu'"),
    ):
        assert main(["sweep", path, *options]) == 2 and sentence in capsys.readouterr().err


def test_slurm_jobs_are_what_the_file_says(tmp_path):
    from biasstudy.campaign.cluster import slurm_cluster

    options = {
        "jobs": 64,
        "interface": "lo",
        "queue": "gpu",
        "job_extra_directives": ["--gres=gpu:1"],
        "walltime": "04:00:00",
        "tls": True,
        "shared_temp_directory": str(tmp_path),
    }
    with slurm_cluster(options) as cluster:
        script = cluster.job_script()
        assert (
            "#SBATCH -p gpu" in script
            and "#SBATCH --gres=gpu:1" in script
            and "#SBATCH -t 04:00:00" in script
        )
        assert "tls://127.0.0.1:" in script and "--nthreads 1" in script and "--tls-key" in script
        assert cluster.dashboard_link.startswith("http://127.0.0.1:")
    with pytest.raises(
        ValueError, match="must say interface: the network on which jobs reach this machine"
    ):
        slurm_cluster({"jobs": 64})
    with pytest.raises(ValueError, match="must say jobs: how many at most; got None"):
        slurm_cluster({"interface": "lo"})
    with pytest.raises(ValueError, match=r"does not take the Slurm file: .*'quue'"):
        slurm_cluster({"jobs": 1, "interface": "lo", "quue": "gpu"})


def test_a_sweep_for_other_machines_is_planned_without_their_device(tmp_path, runs):
    path = written(tmp_path, {"ratio": [0.5, 1.0]}, {**BASE, "device": "cuda"})
    study = sweep.read(path, elsewhere=True).study
    schedule = sweep.schedule_of(study, runs, Numerics.elsewhere(**study.numerics))
    assert len(schedule.jobs) == 6 and all(
        ".float64-cuda-1.json" in str(job.record) for job in schedule.jobs.values()
    )
    with pytest.raises(ValueError, match="device is 'auto', but it is other machines that compute"):
        sweep.read(path, {"device": "auto"}, elsewhere=True)


# ---- The table -----------------------------------------------------------------------------------


def test_a_folder_of_runs_a_file_and_a_name_give_one_table(
    tmp_path, runs, monkeypatch, caplog, capsys
):
    from biasstudy import figures, load
    from biasstudy.report import shipped
    from biasstudy.report.shipped import reference_parts

    monkeypatch.setattr(engine, "local", lambda *_: Here())
    monkeypatch.setattr(shipped, "REFERENCE", tmp_path / "reference")
    path = written(
        tmp_path,
        {"starts": STARTS, "ratio": [0.5, 1.0], "arms": ["generated", "real", "none"]},
        {**BASE, "n_generations": 1},
    )
    assert main(["sweep", str(path), "--save", "tiny"]) == 0
    said = capsys.readouterr().out
    assert (
        said.count("no verdict with fewer than 6 seeds") == 4
        and "ratio 1.0, bias 0.6, start biased: " in said
    )
    study = sweep.read(path).study
    whole = run(study.experiments, numerics=Numerics("float64"), scale=study.scale)
    keys = ["experiment", "generation", "measured_on", "metric", "label", "group", "replicate"]
    one, other = (t.sort_values(keys).reset_index(drop=True) for t in (load(), whole.table))
    assert one.equals(other) and not caplog.records

    stored = reference_parts("tiny", tmp_path / "reference")
    assert figures.forest(stored)[1].equals(figures.forest(study.split(whole))[1]), (
        "predictions are kept"
    )
    plain = load(tmp_path / "reference" / "tiny.csv.xz").dropna(subset="value")
    assert set(plain.experiment) == set(whole.table.experiment) and set(plain.columns) == set(
        whole.table.columns
    )
    about = json.loads(lzma.decompress((tmp_path / "reference" / "tiny.json.xz").read_bytes()))
    assert about["stages_computed"] < about["stages_each_by_itself"] and about["command"].endswith(
        f"sweep {path.as_posix()}"
    )

    next(runs.glob("stages/prediction/*/arrays.safetensors")).unlink()
    fewer = load(runs)
    assert (
        fewer.experiment.nunique() < one.experiment.nunique()
        and "are left out, the first because: " in caplog.text
    )
    assert not list(runs.glob("stages/classifier/*/arrays.safetensors")), "reading trains nothing"


def test_what_cannot_be_loaded_is_told_in_one_sentence(tmp_path):
    from biasstudy import load

    with pytest.raises(
        FileNotFoundError, match=r"no folder, file or study 'nothing'; studies: .*colorized_mnist"
    ):
        load("nothing")
    with pytest.raises(FileNotFoundError, match="no finished experiment of this version is in"):
        load(tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no table of results: unknown columns a, b"):
        load(tmp_path / "other.csv")


def test_studies_that_ship_are_loaded_by_name():
    from biasstudy import load, reference

    assert load("colorized_mnist").equals(reference("colorized_mnist").table)
