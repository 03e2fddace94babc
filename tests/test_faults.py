"""Faults: whatever dies, fills up or is damaged, running again gives the table of a run that
nothing befell.

Most processes that die here are forks of this one: a fork starts in milliseconds, `import torch`
takes seconds. Equal means equal to the last bit: the table as text with every digit, predictions,
confidences, grids.
"""

import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import yaml
from conftest import Here, tiny
from tiny_models import from_disk

from biasstudy import CLASSIFIERS, DATASETS, GENERATORS, Numerics, run
from biasstudy.__main__ import main
from biasstudy.campaign import engine, sweep
from biasstudy.campaign.engine import Local
from biasstudy.campaign.farm import run_by
from biasstudy.core.context import Context
from biasstudy.core.store import Workshop, kind, prune_all
from biasstudy.data.real import _source, real_data
from biasstudy.loop import run as loop
from biasstudy.study import study_from

DEAD = 99  # exit code of a child that died where it was told to

BLOBS = '''
import numpy as np
from biasstudy import DATASETS, LabeledImages, Dataset

@DATASETS.register("blobs")
def blobs() -> Dataset:
    """Noise with a bright bar: its place is the class, its colour the group."""
    def part(n, seed):
        i = np.arange(n)
        label, group = i % 4, i // 4 % 2
        images = np.random.default_rng(seed).integers(0, 150, (n, 3, 8, 8)).astype(np.uint8)
        for k in (0, 1):
            images[i, group, :, 2 * label + k] += 60
        return LabeledImages(images, label, group)
    return Dataset(part(800, 0), part(200, 1), tuple("abcd"), ("red", "green"), "crossed", "blobs",
                  n_instruments=160)
'''

KILLER = '''
"""Kills the first worker process that finishes its third stage, or the parent of it, once."""
import os, signal, sys
finished = 0

def hook(event, arguments):
    global finished
    if event == "os.rename" and "/stages/" in str(arguments[1]):
        finished += 1
        if finished == 3:
            try:
                os.close(os.open("killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(VICTIM, signal.SIGKILL)

if sys.argv[0] == "-c":                                     # a worker
    VICTIM = os.getppid() if os.path.exists("kill-the-parent") else os.getpid()
    sys.addaudithook(hook)
'''


MORTAL = '''
"""Writes down every stage that a worker finishes; every worker is killed in its tenth."""
import os, signal, sys
finished = 0

def hook(event, arguments):
    global finished
    if event != "os.rename" or "/stages/" not in str(arguments[1]):
        return
    finished += 1
    deaths = len([name for name in os.listdir() if name.startswith("death")])
    if finished == 10 and deaths < 3:
        open(f"death-{os.getpid()}", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    handle = os.open("log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, f"{arguments[1]}\\n".encode())
    os.close(handle)

if sys.argv[0] == "-c":                                     # a worker
    sys.addaudithook(hook)
'''


# ---- What the tests share ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder with a cheap data set in it, known under the name `blobs` while the
    test lasts."""
    (tmp_path / "blobs.py").write_text(BLOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("blobs", None)
    importlib.invalidate_caches()
    importlib.import_module("blobs")
    yield tmp_path
    DATASETS._entries.pop("blobs")
    sys.modules.pop("blobs", None)
    _source.cache_clear()


@pytest.fixture
def no_sync(monkeypatch):
    """A process that dies takes nothing along that it gave to the system, so these tests need not
    wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def arms(**fields):
    base = tiny(**{"dataset": "blobs", "n_generations": 1, **fields})
    return [base.to_arm(arm) for arm in ("generated", "none")]


def bits(results) -> str:
    """Digest of everything that is measured."""
    found = hashlib.sha256(results.table.to_csv(index=False).encode())
    for o in results.outcomes:
        judged = [values for batch in o.batches for values in batch.values()]
        for values in (o.predicted, o.confidence, *o.grids, *judged):
            found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def computed(results) -> Counter:
    return Counter({name: n for (how, name), n in results.counts.items() if how == "computed"})


def fork(work) -> int:
    """Start work() in a copy of this process; its exit code is 0, or 1 with the traceback on
    stderr."""
    pid = os.fork()
    if pid:
        return pid
    try:
        gc.disable()
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_before(k: int, root) -> None:
    """Let this process die right before its k-th operation that changes the folder; of a file only
    half is then written.

    Operations are counted by Python's own audit events, so none that the store could come to use is
    forgotten.
    """
    seen = 0

    def count() -> bool:
        nonlocal seen
        seen += 1
        return seen == k

    def changes(event, arguments) -> bool:
        if event == "open":
            path, _, flags = arguments
            return inside(path) and bool(flags & (os.O_WRONLY | os.O_RDWR)) and not locked(path)
        if event == "os.mkdir":
            return inside(arguments[0]) and not os.path.exists(arguments[0])
        if event in ("os.remove", "os.rmdir"):
            # relative to a folder: shutil.rmtree
            return inside(arguments[0]) or arguments[1] != -1
        moves = ("os.rename", "os.link", "os.symlink", "os.truncate")
        return event in moves and (inside(arguments[0]) or inside(arguments[1]))

    def inside(path) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(root))

    def locked(path) -> bool:
        return "/locks/" in os.fspath(path) and os.path.exists(path)

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and count():
            os.ftruncate(handle, status.st_size // 2)
            os._exit(DEAD)

    sys.addaudithook(
        lambda event, arguments: os._exit(DEAD) if changes(event, arguments) and count() else None
    )
    os.fsync = fsync


def finished(root) -> Counter:
    """Stages of each kind that a reader can see; every one of them must be whole, and every record
    of an experiment."""
    found: Counter = Counter()
    for path in (root / "experiments").glob("*"):
        assert json.loads(path.read_text())["cost"], f"half of {path.name} can be read"
    for folder in (root / "stages").glob("*/*"):
        record = json.loads((folder / "stage.json").read_text())
        if (folder / "arrays.safetensors").exists():
            data = (folder / "arrays.safetensors").read_bytes()
            assert hashlib.sha256(data).hexdigest() == record["sha256"], (
                f"half a {folder.parent.name} can be read"
            )
            found[folder.parent.name] += 1
    return found


def write_study(path, **parameters) -> dict:
    """A parameter file for the command line, and its contents."""
    base = {
        "dataset": "blobs",
        "n_real": 100,
        "n_test": 20,
        "generator": "mixture",
        "arms": ["generated", "none"],
        "n_generations": 1,
        "classifier": "ridge",
        "instrument": "ridge",
        **parameters,
    }
    path.write_text(yaml.safe_dump(base))
    return base


# ---- Processes that die --------------------------------------------------------------------------


def test_a_process_may_die_before_any_file_operation_or_in_any_write(
    place, no_sync, monkeypatch, caplog
):
    experiments, drawn = arms(), {}
    monkeypatch.setattr(
        loop,
        "real_data",
        lambda e: drawn[e.id] if e.id in drawn else drawn.setdefault(e.id, real_data(e)),
    )
    whole = run(experiments, where=place / "whole")
    caplog.clear()  # of the instruments it is told once in a process
    kept = [
        folder.name
        for folder in (place / "whole" / "stages").iterdir()
        if all(json.loads(p.read_text())["keep"] for p in folder.glob("*/stage.json"))
    ]
    assert {"prediction", "grid", "telling", "instrument"} <= set(kept)

    deaths = 0
    while True:
        root = place / f"death-{deaths + 1}"

        def child(k=deaths + 1, root=root):
            die_before(k, root)
            run(experiments, where=root)

        code = ended(fork(child))
        if code == 0:
            break
        assert code == DEAD, (
            f"the child failed otherwise before operation {deaths + 1}: exit code {code}"
        )
        deaths += 1

        before = finished(root)
        again = run(experiments, where=root)
        assert bits(again) == bits(whole), f"died before operation {deaths}"
        assert not caplog.records, f"died before operation {deaths}: {caplog.text}"
        for name in kept:
            assert computed(again)[name] == computed(whole)[name] - before[name], (
                f"a finished {name} was made again"
            )

        prune_all(root, delete=True)
        left = [
            path
            for name in ("tmp", "checkpoints")
            for path in (root / name).rglob("*")
            if path.is_file()
        ]
        assert not left and prune_all(root, delete=False).scratch == 0
        pruned = run(experiments, where=root)
        assert not computed(pruned) and bits(pruned) == bits(whole)
        shutil.rmtree(root)
    assert deaths > 20, f"only {deaths} places to die at: are the operations still seen?"
    assert bits(run(experiments, where=root)) == bits(whole)
    print(f"died at {deaths} places")


def test_kill_9_at_random_moments_changes_nothing(place):
    parameters = write_study(
        place / "study.yaml", classifier="lenet", classifier_steps=250, n_generations=3, n_seeds=2
    )
    whole = study_from(parameters).run(where=place / "whole")
    environment = {**os.environ, "BIASSTUDY_RUNS": str(place / "killed"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "biasstudy", "run", "study.yaml", "--import", "blobs"]

    def start():
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    delays, kills = random.Random(5), 0
    for _ in range(5):
        shutil.rmtree(place / "killed" / "tmp", ignore_errors=True)
        process = start()
        # until it opens the store
        while not (place / "killed" / "tmp").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delays.uniform(0.02, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        finished(place / "killed")
    _, err = (last := start()).communicate()
    assert last.returncode == 0, err
    assert kills >= 3, "the study was over before it could be killed"
    results = study_from(parameters).run(where=place / "killed")
    assert not computed(results) and bits(results) == bits(whole)


def test_two_processes_on_one_store_do_not_disturb_each_other(place):
    experiments = arms(classifier="lenet", classifier_steps=20, n_generations=2)
    whole = run(experiments, where=place / "whole")
    hold, go = os.pipe()

    def child(name):
        os.close(go)
        # until the parent lets both go
        os.read(hold, 1)
        results = run(experiments, where=place / "shared")
        (place / name).write_text(json.dumps([bits(results), computed(results)]))

    pids = [fork(lambda name=name: child(name)) for name in ("first", "second")]
    os.close(hold)
    os.close(go)
    assert [ended(pid) for pid in pids] == [0, 0]

    (first, made), (second, also_made) = (
        json.loads((place / name).read_text()) for name in ("first", "second")
    )
    assert first == second == bits(whole)
    for name in ("prediction", "telling", "instrument", "grid"):
        assert made.get(name, 0) + also_made.get(name, 0) == computed(whole)[name], (
            f"{name} was not computed exactly once"
        )
        assert finished(place / "shared")[name] == computed(whole)[name]


def test_a_killed_worker_is_replaced_and_its_experiment_goes_on(place, runs):
    (place / "killer.py").write_text(KILLER)
    parameters = write_study(place / "study.yaml", n_seeds=2)
    whole = study_from(parameters).run(where=place / "whole")
    assert (
        main(["run", "study.yaml", "--workers", "2", "--import", "blobs", "--import", "killer"])
        == 0
    )
    assert (place / "killed").exists()
    results = study_from(parameters).run()
    assert not computed(results) and bits(results) == bits(whole)


def test_workers_end_with_their_parent(place):
    """They inherit its stdout, so reading that to its end waits for all of them."""
    (place / "killer.py").write_text(KILLER)
    (place / "kill-the-parent").touch()
    parameters = write_study(place / "study.yaml", n_seeds=2)
    command = [
        sys.executable,
        "-m",
        "biasstudy",
        "run",
        "study.yaml",
        "--workers",
        "2",
        "--import",
        "blobs",
        "--import",
        "killer",
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "BIASSTUDY_RUNS": str(place / "runs")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and (place / "killed").exists()
    results = study_from(parameters).run(where=place / "runs")
    assert bits(results) == bits(study_from(parameters).run(where=place / "whole"))


def test_workers_write_where_the_environment_says_now(place, monkeypatch):
    """Not where it said when the first worker of this process was started."""
    study = study_from(write_study(place / "study.yaml", n_seeds=2))
    for name in ("here", "there"):
        monkeypatch.setenv("BIASSTUDY_RUNS", str(place / name))
        run_by(Local(2), study, ["blobs"])
    assert finished(place / "here") == finished(place / "there") != Counter()


# ---- Sweeps that are disturbed -------------------------------------------------------------------


def write_sweep(place, **parameters):
    """A sweep file, and the experiments in it."""
    write_study(place / "base.yaml", precision="float64", n_generations=2, **parameters)
    grid = {
        "starts": [{"start": "unbiased", "bias": 0.0}, {"start": "biased", "bias": 0.6}],
        "protocol": ["accumulate", "latest"],
        "arms": ["generated", "real", "none"],
    }
    (place / "sweep.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "grid": grid}))
    return sweep.read(place / "sweep.yaml").study


def test_a_sweep_whose_workers_and_driver_are_killed_loses_and_repeats_nothing(place):
    study = write_sweep(place)
    (place / "mortal.py").write_text(MORTAL)
    whole = study.run(where=place / "whole")
    command = [
        sys.executable,
        "-m",
        "biasstudy",
        "sweep",
        "sweep.yaml",
        "--workers",
        "2",
        "--import",
        "blobs",
        "--import",
        "mortal",
    ]

    def start():
        return subprocess.Popen(
            command,
            env={**os.environ, "BIASSTUDY_RUNS": str(place / "runs"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = start()
    while len(list(place.glob("death-*"))) < 2 and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "the sweep was over before its driver could be killed"
    before = finished(place / "runs")
    said, err = (last := start()).communicate()
    assert last.returncode == 0, err
    assert before.total() >= 10 and len(list(place.glob("death-*"))) == 3
    assert "failed" not in said.splitlines()[-1]
    results = study.run(where=place / "runs")
    assert not computed(results) and bits(results) == bits(whole)
    made = Counter((place / "log").read_text().split())
    kept = {path: n for path, n in made.items() if (place / path / "arrays.safetensors").exists()}
    assert set(kept.values()) == {1} and len(kept) == finished(place / "runs").total(), (
        "a finished stage was made again"
    )


def test_two_sweeps_on_one_store_share_the_work(place, monkeypatch, no_sync):
    study = write_sweep(place)
    whole = study.run(where=place / "whole")
    monkeypatch.setenv("BIASSTUDY_RUNS", str(place / "shared"))
    monkeypatch.setattr(engine, "local", lambda *_: Here())
    hold, go = os.pipe()

    def child(name):
        os.close(go)
        # until the parent lets both go
        os.read(hold, 1)
        made = []
        sys.addaudithook(
            lambda event, a: (
                made.append(str(a[1])) if event == "os.rename" and "/stages/" in str(a[1]) else None
            )
        )
        with open(place / f"{name}.txt", "w") as out, contextlib.redirect_stdout(out):
            assert main(["sweep", "sweep.yaml"]) == 0
        (place / name).write_text("\n".join(made))

    pids = [fork(lambda name=name: child(name)) for name in ("first", "second")]
    os.close(hold)
    os.close(go)
    assert [ended(pid) for pid in pids] == [0, 0]
    results = study.run(where=place / "shared")
    assert not computed(results) and bits(results) == bits(whole)
    made = Counter(
        path for name in ("first", "second") for path in (place / name).read_text().split()
    )
    kept = [
        n
        for path, n in made.items()
        if path.split("/")[-2] in ("prediction", "telling", "instrument", "grid")
    ]
    assert set(kept) == {1}, "a stage whose value is kept was computed twice"


def test_a_disk_that_fills_up_ends_a_sweep_in_one_sentence_and_running_again_goes_on(place, runs):
    study = write_sweep(place, ratio=1.5)
    whole = study.run(where=place / "whole")

    def child():
        # of this process and its workers
        limited(26_000)
        with (
            open(place / "said", "w") as said,
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(said),
        ):
            assert main(["sweep", "sweep.yaml", "--workers", "1", "--import", "blobs"]) == 2

    assert ended(fork(child)) == 0
    said = (place / "said").read_text().splitlines()
    assert said[-1].startswith(
        f"biasstudy: cannot write results to {runs}: File too large; free space there"
    ), said
    assert finished(runs).total() > 0 and not list((runs / "tmp").iterdir())
    run_by(Here(), study)
    results = study.run()
    assert not computed(results) and bits(results) == bits(whole)


# ---- Checkpoints ---------------------------------------------------------------------------------


class Killed(Exception):
    pass


@dataclass
class Watch:
    """Progress of a fit: the steps seen, and a death at one of them."""

    deadly: int = 0

    def __post_init__(self):
        self.seen = []

    def __call__(self, step, n):
        self.seen.append(step)
        if step == self.deadly:
            raise Killed


FITS = [
    entry
    for registry in (GENERATORS, CLASSIFIERS)
    for entry in registry.values()
    if "steps" in entry.defaults() and entry.name != "resnet50"
]  # the code of resnet18, five times as slow


def fit(entry, context, steps=7):
    real = real_data(tiny())
    pool = real.start.load()
    short = {
        "steps": steps,
        **({"batch": 8} if "batch" in entry.defaults() else {}),
        **from_disk(entry.name),
    }
    model = entry.target(**{**entry.defaults(), **short})
    if entry.noun == "generator":
        return model.fit(pool, pool.label, None, seed=3, context=context)
    return model.fit(pool, real.dataset.n_classes, seed=3, context=context)


def same(one, other) -> bool:
    def plain(value):
        return (
            (str(value.dtype), value.detach().numpy().tobytes())
            if isinstance(value, torch.Tensor)
            else value
        )

    return list(one) == list(other) and all(plain(one[name]) == plain(other[name]) for name in one)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("entry", FITS, ids=lambda entry: entry.name)
def test_a_fit_killed_and_resumed_equals_one_that_ran_in_one_go(entry, precision, tmp_path):
    numerics = Numerics(precision)
    whole = fit(entry, Context(numerics))
    with pytest.raises(Killed):
        fit(entry, Context(numerics, tmp_path / "checkpoints", every=0.0, progress=Watch(deadly=4)))
    watch = Watch()
    resumed = fit(entry, Context(numerics, tmp_path / "checkpoints", every=0.0, progress=watch))
    assert watch.seen[0] == 4, "it did not go on after the last checkpoint"
    assert same(whole, resumed)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_makes_the_fit_start_over(damage, tmp_path, caplog):
    entry, folder = CLASSIFIERS["lenet"], tmp_path / "checkpoints"
    with pytest.raises(Killed):
        fit(entry, Context(Numerics(), folder, every=0.0, progress=Watch(deadly=4)))
    (path,) = folder.iterdir()
    path.write_bytes(damaged(path.read_bytes(), damage))
    watch = Watch()
    resumed = fit(entry, Context(Numerics(), folder, progress=watch))
    assert watch.seen[0] == 1 and "checkpoint is damaged" in caplog.text
    assert same(resumed, fit(entry, Context(Numerics())))


def damaged(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {
        "truncated": data[:middle],
        "empty": b"",
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[how]


# ---- Damaged stages ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arrays.safetensors", "stage.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_stages_are_noticed_and_computed_again(name, damage, place, no_sync, caplog):
    experiments = arms()
    whole = run(experiments, where=place / "runs")
    paths = [
        path
        for path in (place / "runs" / "stages").glob(f"*/*/{name}")
        if path.with_name("arrays.safetensors").exists()
    ]
    assert len(paths) >= 6
    for path in paths:
        data = path.read_bytes()
        # where it matters: the checksum in it
        if (name, damage) == ("stage.json", "flipped"):
            at = data.index(b'"sha256": "') + 11
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        else:
            data = damaged(data, damage)
        path.write_bytes(data)
    again = run(experiments, where=place / "runs")
    assert bits(again) == bits(whole) and computed(again) == computed(whole)
    said = "a stored prediction is damaged or not completely copied; it is computed again"
    assert said in caplog.text


@kind("plain", keep=True)
def plain(context, *, n):
    return {"x": np.arange(n)}


def test_any_flipped_byte_of_a_stage_does_no_harm(tmp_path, no_sync):
    store = Workshop(tmp_path, {}, lambda folder: None)
    stage = store.stage(plain, n=3)
    stage.load()
    for name in ("arrays.safetensors", "stage.json"):
        path = stage.slot.folder / name
        for at in range(path.stat().st_size):
            for mask in (0x01, 0xFF):
                data = bytearray(path.read_bytes())
                # made again, and a digit shorter
                if at >= len(data):
                    continue
                data[at] ^= mask
                path.write_bytes(data)
                stage.forget()
                assert prune_all(tmp_path, delete=False).scratch >= 0
                assert isinstance(stage.provenance, dict)
                assert stage.load()["x"].tolist() == [0, 1, 2], f"byte {at} of {name}"


# ---- Folders that cannot be written --------------------------------------------------------------


def test_an_unwritable_folder_is_told_before_any_training(place, monkeypatch, capsys):
    write_study(place / "study.yaml")
    (place / "file").write_text("")
    monkeypatch.setenv("BIASSTUDY_RUNS", str(place / "file" / "runs"))
    monkeypatch.setattr(Workshop, "_compute", lambda *_: pytest.fail("it trains"))
    assert main(["run", "study.yaml", "--import", "blobs"]) == 2
    said = capsys.readouterr().err.strip()
    assert (
        said.startswith(f"biasstudy: cannot write results to {place / 'file' / 'runs'}: ")
        and "\n" not in said
    )


def limited(n_bytes: int) -> None:
    """A full disk: no file of this process can grow beyond n_bytes."""
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )


def test_a_full_disk_is_told_in_one_sentence_and_running_again_goes_on(place, runs):
    parameters = write_study(place / "study.yaml", ratio=1.5)
    whole = study_from(parameters).run(where=place / "whole")

    def child():
        # a generator fits, a batch does not
        limited(26_000)
        with open(place / "said", "w") as said, contextlib.redirect_stderr(said):
            code = main(["run", "study.yaml", "--import", "blobs"])
        assert code == 2, code

    assert ended(fork(child)) == 0
    said = (place / "said").read_text().strip()
    assert (
        said.startswith(
            f"biasstudy: cannot write results to {runs}: File too large; free space there"
        )
        and "\n" not in said
    )
    assert finished(runs)["generator"] == 1 and finished(runs)["batch"] == 0
    assert not list((runs / "tmp").iterdir()), "what could not be written was left there"

    again = study_from(parameters).run()
    assert bits(again) == bits(whole) and computed(again)["generator"] == 0


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_told_in_one_sentence(tmp_path):
    folder = tmp_path / "checkpoints"

    def child():
        limited(1000)
        with pytest.raises(
            OSError,
            match=f"cannot write a checkpoint to {folder}: File too large; free space there",
        ) as error:
            fit(CLASSIFIERS["lenet"], Context(Numerics(), folder, every=0.0))
        assert "\n" not in str(error.value)

    assert ended(fork(child)) == 0
    assert not (folder / "checkpoint").exists()
