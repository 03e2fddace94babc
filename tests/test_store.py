"""The store as its readers and its writers see it, and the files, places and provenance below it.

What dies, fills up and is damaged in the middle of a run is in test_faults.py.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import types
import weakref
from pathlib import Path

import numpy as np
import pytest
from conftest import FLOAT64, Here, tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from biasstudy import Numerics, load, run
from biasstudy.__main__ import main
from biasstudy.campaign import engine
from biasstudy.campaign.farm import run_by
from biasstudy.core import places, provenance, store
from biasstudy.core.store import NotStored, Slot, Store, Workshop, kind, prune_all, slots
from biasstudy.report import tables
from biasstudy.study import study_from

ROOT = Path(__file__).parents[1]


@kind("plain", keep=True)
def plain(context, *, n):
    return {"x": np.arange(n)}


def pair_of_arms():
    base = tiny(n_generations=1)
    return [base.to_arm(arm) for arm in ("generated", "none")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with two finished experiments, and their table; tests work on copies."""
    root = tmp_path_factory.mktemp("whole")
    return root, run(pair_of_arms(), numerics=FLOAT64, where=root, scale="laptop").table


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of that store."""
    shutil.copytree(whole[0], tmp_path / "finished")
    return tmp_path / "finished"


def by_experiment(table):
    """A table in the order of `load`."""
    parts = [part for _, part in sorted(table.groupby("experiment"), key=lambda item: item[0])]
    return [part.reset_index(drop=True) for part in parts]


def same(one, other) -> bool:
    pairs = zip(by_experiment(one), by_experiment(other), strict=True)
    return all(a.equals(b) for a, b in pairs)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


# ---- Folders that cannot be written --------------------------------------------------------------

_frozen: dict[str, int] = {}  # folder -> what every change in it is answered with


def _refuse(event, arguments) -> None:
    """Audit hook: no change in a frozen folder. Root may write whatever permissions say."""
    if not _frozen:
        return
    if event == "open":
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        paths = arguments[:1] if (arguments[2] or 0) & writes else ()
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.chmod"):
        paths = arguments[:1]
    elif event in ("os.rename", "os.link", "os.symlink", "shutil.rmtree"):
        paths = arguments[:2]
    else:
        return
    for path in paths:
        for root, number in _frozen.items():
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(root):
                raise OSError(number, os.strerror(number), os.fspath(path))


sys.addaudithook(_refuse)


@pytest.fixture
def freeze(monkeypatch):
    """freeze(folder, errno): every change in it fails from now on."""
    return lambda root, number: monkeypatch.setitem(_frozen, str(root), number)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_finished_store_that_cannot_be_written_is_read(number, whole, finished, freeze, caplog):
    before = contents(finished)
    freeze(finished, number)
    with pytest.raises(OSError):
        (finished / "anything").write_text("")
    assert same(load(finished), whole[1])
    again = run(pair_of_arms(), numerics=FLOAT64, where=finished, scale="laptop")
    assert same(again.table, whole[1]) and not any(how == "computed" for how, _ in again.counts)
    assert not caplog.records and contents(finished) == before


def test_results_are_read_where_their_record_cannot_be_renewed(whole, finished, freeze, caplog):
    freeze(finished, errno.EROFS)
    again = run(pair_of_arms(), numerics=FLOAT64, where=finished, scale="offline")
    assert same(again.table.assign(scale="laptop"), whole[1])
    assert caplog.text.count("is not renewed: cannot write results to") == 2


def test_a_store_that_cannot_be_written_is_told_before_anything_is_computed(
    finished, freeze, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(Workshop, "_compute", lambda *_: pytest.fail("it computes"))
    freeze(finished, errno.EROFS)
    sentence = f"cannot write results to {finished}: Read-only file system; free space there, or"
    with pytest.raises(places.CannotWrite, match=sentence):
        run(tiny(seed=7), numerics=FLOAT64, where=finished)
    monkeypatch.setenv("BIASSTUDY_RUNS", str(finished))
    (tmp_path / "base.yaml").write_text("n_real: 100\nn_test: 20\nclassifier: ridge\n")
    (tmp_path / "sweep.yaml").write_text("base: base.yaml\ngrid: {ratio: [0.5]}\n")
    assert main(["sweep", str(tmp_path / "sweep.yaml")]) == 2
    assert capsys.readouterr().err.startswith(f"biasstudy: {sentence}")


def test_a_disk_without_space_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(Workshop, "_compute", lambda *_: pytest.fail("it computes"))
    monkeypatch.setattr(store.shutil, "disk_usage", lambda root: types.SimpleNamespace(free=10**6))
    with pytest.raises(places.CannotWrite, match=r"1 MB are free and about .* MB are needed"):
        run(tiny(), numerics=FLOAT64, where=tmp_path / "runs")


def test_a_store_has_no_way_to_write_and_says_what_is_missing(tmp_path):
    stage = Store(tmp_path / "nothing", {}).stage(plain, n=3)
    with pytest.raises(NotStored, match="a plain is missing or of another version"):
        stage.load()
    assert not (tmp_path / "nothing").exists()


def test_a_table_of_many_experiments_keeps_few_of_them_in_memory(tmp_path, monkeypatch):
    experiments = [tiny(n_generations=1, ratio=0.0, seed=seed) for seed in range(6)]
    table = run(experiments, numerics=FLOAT64, where=tmp_path).table
    read, alive, most = tables.read_outcome, [], 0

    def counted(*given):
        nonlocal most
        outcome = read(*given)
        alive.append(weakref.ref(outcome))
        most = max(most, sum(reference() is not None for reference in alive))
        return outcome

    monkeypatch.setattr(tables, "read_outcome", counted)
    assert same(load(tmp_path), table)
    assert len(alive) == 6 and most <= 3


def test_one_walk_says_what_a_store_takes(finished):
    (finished / "tmp" / "half").mkdir(parents=True)
    (finished / "tmp" / "half" / "arrays.safetensors").write_bytes(b"12345")
    sizes = [len(data) for data in contents(finished).values()]
    scratch = [slot.size() for slot in slots(finished) if slot.record()["keep"] is False]
    locks = [path.stat().st_size for path in (finished / "locks").glob("*")]
    assert prune_all(finished, delete=False) == (sum(sizes), sum(scratch) + 5 + sum(locks))


# ---- Stores that are damaged, or still being copied ----------------------------------------------


def test_reading_a_store_that_is_still_being_copied_loses_nothing(whole, finished, caplog):
    records = {path: path.read_bytes() for path in finished.glob("stages/*/*/stage.json")}
    for path in records:
        path.unlink()
    before = contents(finished)
    with pytest.raises(FileNotFoundError, match="no finished experiment of this version is in"):
        load(finished)
    assert "2 finished experiments are left out, the first because: " in caplog.text
    assert "is damaged or not completely copied" in caplog.text
    prune_all(finished, delete=True)
    assert {k: v for k, v in before.items() if not k.startswith("locks")} == contents(finished)
    for path, data in records.items():
        path.write_bytes(data)
    assert same(load(finished), whole[1])


def test_a_reader_leaves_a_damaged_stage_alone_and_a_run_replaces_it(whole, finished, caplog):
    record = json.loads(min(finished.glob("experiments/*.json")).read_bytes())
    last = [Slot(finished, "prediction", id) for id in record["stages"]["1"]]  # no other has it
    broken = next(slot.folder for slot in last if slot.filled()) / "arrays.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    before = contents(finished)
    assert load(finished).equals(by_experiment(whole[1])[1]) and contents(finished) == before
    again = run(pair_of_arms(), numerics=FLOAT64, where=finished, scale="laptop")
    assert again.counts["computed", "prediction"] == 1 and same(again.table, whole[1])
    assert same(load(finished), whole[1])


def test_a_damaged_value_stays_until_a_new_one_is_there(tmp_path):
    workshop = Workshop(tmp_path, {}, lambda folder: None)
    stage = workshop.stage(plain, n=3)
    stage.load()
    file = stage.slot.folder / "arrays.safetensors"
    file.write_bytes(b"damaged")
    stage.forget()
    failing = kind("plain", keep=True)(lambda context, n: (_ for _ in ()).throw(KeyError("no")))
    with pytest.raises(KeyError):
        Workshop(tmp_path, {}, lambda folder: None).stage(failing, n=3).load()
    assert file.read_bytes() == b"damaged"
    assert stage.load()["x"].tolist() == [0, 1, 2] and stage.slot.read()["x"].tolist() == [0, 1, 2]


WRONG_RECORDS = [
    (b"", "it cannot be read: "),
    (b"\xff\xfe{}", "it cannot be read: "),
    (b"[" * 100_000, "it cannot be read: "),
    (b"[]", "it is no record, but list"),
    (b"null", "it is no record, but NoneType"),
    ({"fields": ...}, "it lacks 'fields'"),
    ({"scale": ...}, "it lacks 'scale'"),
    ({"numerics": ...}, "it lacks 'numerics'"),
    ({"experiment": ...}, "it lacks 'experiment'"),
    ({"fields": []}, "fields must be a mapping of options; got list []"),
    ({"fields": {}}, "its fields are those of "),
    ({"fields": {"raito": 1}}, "unknown parameter 'raito'"),
    ({"fields": {"ratio": "high"}}, "ratio must be a number"),
    ({"scale": 3}, "scale must be text; got int 3"),
    ({"numerics": 3}, "numerics must be text; got int 3"),
    ({"numerics_fields": "cpu"}, "numerics_fields must be a mapping of options"),
    ({"numerics_fields": {"device": "cpu"}}, "numerics_fields must be precision, device, threads"),
    ({"numerics_fields": {"precision": 1, "device": "cpu", "threads": 1, "compile": False}},
     "precision must be text"),
    ({"numerics_fields": None}, "numerics_fields must be a mapping of options; got NoneType None"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "reason"), WRONG_RECORDS)
def test_a_wrong_record_is_left_out_and_told_and_all_others_are_read(
    wrong, reason, whole, finished, caplog
):
    # the first in the order of names, so that reading must go on
    path = min(finished.glob("experiments/*.json"))
    if isinstance(wrong, dict):
        record = {**json.loads(path.read_bytes()), **wrong}
        wrong = json.dumps({k: v for k, v in record.items() if v is not ...}).encode()
    path.write_bytes(wrong)
    table = load(finished)
    assert table.equals(by_experiment(whole[1])[1])
    assert f"1 finished experiments are left out, the first because: {path.name}: " in caplog.text
    assert reason in caplog.text
    # running renews the record
    run(pair_of_arms(), numerics=FLOAT64, where=finished, scale="laptop")
    assert same(load(finished), whole[1])


def test_a_copy_of_a_record_does_not_count_twice(whole, finished, caplog):
    path = min(finished.glob("experiments/*.json"))
    shutil.copy(path, path.with_name(f"zz {path.name}"))
    assert same(load(finished), whole[1]) and "it is a copy of another record" in caplog.text


@pytest.mark.parametrize("told", [5, "x", [], {"seconds": "long", "peak_memory_mb": None}])
def test_a_provenance_that_is_no_provenance_spoils_no_table(told, whole, finished):
    for path in finished.glob("stages/*/*/stage.json"):
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "provenance": told}))
    assert same(load(finished), whole[1])
    slot = next(slots(finished, "prediction"))
    assert slot.seconds() == 0.0 and slot.provenance() == {}


# ---- What records and slots say ------------------------------------------------------------------


def test_records_hold_the_numerics_as_fields_and_older_records_are_read(whole, finished):
    for path in finished.glob("experiments/*.json"):
        record = json.loads(path.read_bytes())
        assert record["numerics"] == "float64-cpu-1" and record.pop("numerics_fields") == {
            "precision": "float64",
            "device": "cpu",
            "threads": 1,
            "compile": False,
        }
        path.write_text(json.dumps(record))
    assert same(load(finished), whole[1])


def test_numerics_are_found_by_their_short_name():
    for numerics in (Numerics(), Numerics("float64", threads=3, compile=True)):
        assert Numerics.named(numerics.name) == numerics
    assert Numerics.named("bf16-cuda-1").device == "cuda", "of a machine that this one is not"
    for name in ("", "float32", "float32-cpu", "float32-cpu-many", "float32-cpu-1-fast"):
        with pytest.raises(ValueError, match="no precision-device-threads"):
            Numerics.named(name)
    with pytest.raises(ValueError, match="unknown precision 'float16'"):
        Numerics.named("float16-cpu-1")


def test_a_slot_says_what_is_stored(tmp_path):
    workshop = Workshop(tmp_path, {"device": "cpu"}, lambda folder: None)
    stage = workshop.stage(plain, n=5)
    slot, marks = stage.slot, [stage.slot.mark()]
    assert (
        not slot.filled() and slot.size() == 0 and slot.record() == {} and not list(slots(tmp_path))
    )
    slot.checkpoints.mkdir(parents=True)
    (slot.checkpoints / "checkpoint").write_bytes(b"")
    marks.append(slot.mark())
    stage.load()
    marks.append(slot.mark())
    assert len(set(marks)) == 3, "a checkpoint and a value are progress"
    assert list(slots(tmp_path)) == list(slots(tmp_path, "plain")) == [slot]
    assert list(slots(tmp_path, "other")) == list(slots(tmp_path, most=0)) == []
    assert slot.filled() and slot.size() > 40 and slot.record()["inputs"] == {"n": 5}
    assert slot.provenance()["python"] and slot.seconds() == slot.provenance()["seconds"]
    slot.discard()
    slot.discard()
    assert not slot.filled() and slot.record()["kind"] == "plain", "provenance stays"


def test_only_the_store_knows_where_its_files_are():
    words = ('/ "stages"', "stage.json", "arrays.safetensors")
    words += ('/ "checkpoints"', '/ "experiments"', '/ "plans"', "plan.json")
    for path in (ROOT / "biasstudy").rglob("*.py"):
        if path.name != "store.py":
            assert not [word for word in words if word in path.read_text()], path


# ---- Results that cannot be written, told by a worker --------------------------------------------


@pytest.mark.parametrize("error", [places.CannotWrite("cannot write results to x"), ValueError])
def test_that_results_cannot_be_written_is_told_by_type_and_not_by_words(error, runs, monkeypatch):
    """The first ends the sweep; any other error fails one experiment, whatever its words."""
    if error is ValueError:
        error = ValueError("cannot write poems")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("biasstudy.loop.run.run", fail)
    study = study_from({"n_real": 100, "n_test": 20, "classifier": "ridge", "arms": ["none"]})
    here = Here()
    if isinstance(error, places.CannotWrite):
        with pytest.raises(places.CannotWrite, match=r"^cannot write results to x$"):
            run_by(here, study)
        assert len(here.seen) == 1
    else:
        failed = run_by(here, study).failed
        assert len(failed) == len(study.experiments)
        assert all(lines[-1] == "ValueError: cannot write poems" for lines in failed.values())


def test_a_worker_tells_it_through_its_pipe(tmp_path):
    (tmp_path / "file").write_text("")
    task = engine.task_of(tiny(), FLOAT64, "custom", tmp_path / "file" / "runs", [])
    child = engine.Child({})
    try:
        ended = child.perform(task)
    finally:
        child.end()
    assert ended["state"] == "unwritable"
    assert ended["why"].startswith(f"cannot write results to {tmp_path / 'file' / 'runs'}: ")


@pytest.mark.parametrize(
    ("code", "words"), [(3, "with code 3"), (-9, "by SIGKILL"), (-40, "by signal 40")]
)
def test_how_a_process_ended_is_said_in_words(code, words):
    assert engine._how(code).endswith(words)


# ---- Locks ---------------------------------------------------------------------------------------


@pytest.fixture
def lock_error(monkeypatch):
    """lock_error(errno): the file system answers every attempt to lock a file with it."""
    monkeypatch.setattr(store, "_told_of_locks", set())

    def set_error(number):
        fcntl = pytest.importorskip("fcntl")

        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return set_error


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM], ids=errno.errorcode.get
)
def test_a_file_system_without_locks_is_said_once_and_used(
    number, lock_error, whole, tmp_path, caplog
):
    lock_error(number)
    results = run(pair_of_arms(), numerics=FLOAT64, where=tmp_path / "runs", scale="laptop")
    assert same(results.table, whole[1])
    assert caplog.text.count("locks do not work in") == 1 and os.strerror(number) in caplog.text
    assert len(caplog.records) == 1


def test_a_folder_of_locks_that_belongs_to_somebody_else_is_done_without(
    tmp_path, freeze, whole, caplog, monkeypatch
):
    monkeypatch.setattr(store, "_told_of_locks", set())
    (tmp_path / "runs" / "locks").mkdir(parents=True)
    freeze(tmp_path / "runs" / "locks", errno.EACCES)
    results = run(pair_of_arms(), numerics=FLOAT64, where=tmp_path / "runs", scale="laptop")
    assert same(results.table, whole[1]) and caplog.text.count("locks do not work in") == 1


def test_a_lock_that_fails_for_want_of_space_is_no_missing_lock(tmp_path, lock_error):
    lock_error(errno.ENOSPC)
    with pytest.raises(places.CannotWrite, match="No space left on device; free space there"):
        run(tiny(), numerics=FLOAT64, where=tmp_path / "runs")


# ---- Files ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "text.md"
    places.write_text(path, "Löwe\r\n")
    assert path.read_bytes() == "Löwe\r\n".encode() and places.read_text(path) == "Löwe\r\n"
    with pytest.raises(KeyError), places.replacing(path) as partial:
        assert partial.parent == tmp_path and partial.suffix == ".md"
        partial.write_text("half")
        raise KeyError
    with pytest.raises(UnicodeEncodeError):
        places.write_text(path, "\ud800")
    assert places.read_text(path) == "Löwe\r\n" and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_pipe_is_written_into(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    places.write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "x"
    reader, writer = os.pipe()
    places.write_text(Path(f"/dev/fd/{writer}"), "told")
    assert os.read(reader, 10) == b"told"


def test_text_that_is_not_utf8_is_told_with_its_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes("# für\n".encode("latin-1"))
    with pytest.raises(ValueError, match=f"{path} is not UTF-8 text: byte 0xfc in line 1"):
        places.read_text(path)
    path.write_bytes("a: ü".encode("utf-8-sig"))
    assert places.read_text(path) == "a: ü"


IN_C_LOCALE = """
import locale
from pathlib import Path
from biasstudy.__main__ import main
from biasstudy.report.page import write_page
from biasstudy.report.summary import Stored
from biasstudy.parameters import read_parameters
from biasstudy.study import study_from

assert locale.getpreferredencoding(False) != "UTF-8", "it tests nothing"
assert main(["doctor"]) == 0
assert main(["run", "study.yaml"]) == 0
print("gr\\u00f6\\u00dfe")
study = study_from(read_parameters(Path("study.yaml")))
write_page(Path("page"), Stored({"gr\\u00f6\\u00dfe": study.split(study.run())}))
"""


def test_text_is_utf8_whatever_the_locale(tmp_path):
    """A parameter file with an umlaut, another project's file in latin-1, and the page."""
    (tmp_path / "pyproject.toml").write_bytes('name = "größe"\n'.encode("latin-1"))
    (tmp_path / "study.yaml").write_text(
        "# Größe\nn_real: 100\nn_test: 20\nclassifier: ridge\ninstrument: ridge\n"
        "generator: mixture\nn_generations: 1\nn_seeds: 2\nstart: biased\nbias: 0.6\n",
        encoding="utf-8",
    )
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("LC_")},
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(ROOT),
        "BIASSTUDY_RUNS": "runs",
        "BIASSTUDY_DATA": "",
    }
    ended = subprocess.run(
        [sys.executable, "-c", IN_C_LOCALE], cwd=tmp_path, env=environment, capture_output=True
    )
    assert ended.returncode == 0, ended.stderr.decode()
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "größe" in page and page.endswith("</html>\n")
    assert b"gr\\xf6\\xdfe" in ended.stdout, "told as well as this locale can"


# ---- Other systems -------------------------------------------------------------------------------

POSIX_ONLY = ("resource", "fcntl", "pwd", "grp", "termios")

WITHOUT = f'''
"""Python starts with this: modules that are on POSIX systems alone cannot be imported."""
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name in {POSIX_ONLY!r}:
            raise ModuleNotFoundError(f"no module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
for name in {POSIX_ONLY!r}:
    sys.modules.pop(name, None)
'''

SPAWNED = """
import importlib, multiprocessing, pkgutil, sys
from pathlib import Path

def experiment(folder):
    from biasstudy import Experiment, run
    for name in ("resource", "fcntl"):
        try:
            __import__(name)
        except ImportError:
            continue
        raise AssertionError(f"{name} is there")
    e = Experiment(n_real=100, n_test=20, classifier="ridge", instrument="ridge",
                   generator="mixture", n_generations=1)
    return len(run(e, where=folder).table)

if __name__ == "__main__":
    import biasstudy
    names = [m.name for m in pkgutil.walk_packages(biasstudy.__path__, "biasstudy.")]
    assert len(names) > 60
    for name in names:
        if name != "biasstudy.__main__":
            importlib.import_module(name)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(experiment, (str(Path("runs").resolve()),)) > 100
"""


def test_nothing_needs_what_only_posix_has(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    (tmp_path / "spawned.py").write_text(SPAWNED)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    ended = subprocess.run(
        [sys.executable, "spawned.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    slot = next(slots(tmp_path / "runs"))
    assert "peak_memory_mb" not in slot.provenance() and slot.provenance()["python"]


# ---- Places --------------------------------------------------------------------------------------


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user without a home folder, and a package outside a checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "__file__", str(tmp_path / "lib" / "biasstudy" / "core" / "p.py"))
    for name in ("HOME", "XDG_CACHE_HOME", "BIASSTUDY_RUNS", "BIASSTUDY_DATA"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_user_without_a_home_is_told_which_folder_to_set(homeless, monkeypatch, tmp_path):
    for folder, variable in (
        (places.runs_folder, "BIASSTUDY_RUNS"),
        (places.data_folder, "BIASSTUDY_DATA"),
    ):
        with pytest.raises(ValueError, match=f"there is no home folder.*; set {variable} to a"):
            folder()
    monkeypatch.setenv("BIASSTUDY_RUNS", "~/runs")
    with pytest.raises(ValueError, match="there is no home folder for '~/runs'"):
        places.runs_folder()
    monkeypatch.setenv("BIASSTUDY_RUNS", str(tmp_path))
    assert places.runs_folder() == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert places.data_folder() == Path("/cache/biasstudy/data")


def test_a_checkout_is_known_by_its_own_project_file_alone(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    inner = tmp_path / "checkout" / "other" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    (inner.parent / "pyproject.toml").write_bytes('name = "größe"'.encode("latin-1"))
    (inner / "pyproject.toml").mkdir()  # of all things
    assert places.data_folder() == Path("/cache/biasstudy/data")
    (tmp_path / "checkout" / "pyproject.toml").write_text('name = "biasstudy"')
    assert places.data_folder() == tmp_path / "checkout" / "data"


def test_a_working_folder_that_is_gone_is_no_checkout(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert places.data_folder() == Path("/cache/biasstudy/data")
    os.chdir(tmp_path)


# ---- Provenance ----------------------------------------------------------------------------------

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


def repository(folder: Path, *ignored: str) -> str:
    """A repository in which everything in a folder is committed but what is ignored; its commit."""
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("".join(f"{name}\n" for name in ignored))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*words):
        who = ("-c", "user.name=n", "-c", "user.email=n@n")
        return subprocess.run(
            ["git", "-C", str(folder), *who, *words],
            check=True,
            env=environment,
            capture_output=True,
            text=True,
        ).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return git("rev-parse", "--short=12", "HEAD")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """package(folder): a package that lies there, as this module's provenance sees it."""

    def put(folder: Path) -> Path:
        room = folder / "biasstudy"
        (room / "core").mkdir(parents=True)
        (room / "reference").mkdir()
        (room / "core" / "provenance.py").write_text("")
        monkeypatch.setattr(provenance, "__file__", str(room / "core" / "provenance.py"))
        return room

    return put


@needs_git
@pytest.mark.parametrize("ignored", [(), (".venv",)])
def test_a_package_inside_somebodys_repository_has_no_commit(tmp_path, package, ignored):
    if ignored:
        package(tmp_path / "theirs" / ".venv" / "lib" / "site-packages")
        repository(tmp_path / "theirs", *ignored)
    else:
        repository(tmp_path / "theirs")
        package(tmp_path / "theirs" / "lib")
    assert provenance._commit() == ""


@needs_git
def test_variables_of_git_name_no_other_repository(tmp_path, package, monkeypatch):
    package(tmp_path / "ours")
    commit = repository(tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    assert repository(tmp_path / "theirs") != commit
    for name, value in (
        ("GIT_DIR", tmp_path / "theirs" / ".git"),
        ("GIT_WORK_TREE", tmp_path / "theirs"),
        ("GIT_INDEX_FILE", tmp_path / "theirs" / ".git" / "index"),
        ("GIT_CEILING_DIRECTORIES", tmp_path / "ours"),
        ("GIT_OBJECT_DIRECTORY", tmp_path),
        ("GIT_LITERAL_PATHSPECS", 1),
    ):
        monkeypatch.setenv(name, str(value))
    assert provenance._commit() == commit


@needs_git
def test_asking_for_the_commit_writes_nothing(tmp_path, package):
    room = package(tmp_path / "ours")
    commit = repository(tmp_path / "ours")
    (room / "core" / "provenance.py").touch()  # git would note the new time in its index
    before = contents(tmp_path / "ours")
    assert provenance._commit() == commit and contents(tmp_path / "ours") == before


@pytest.mark.parametrize("script", ["sleep 5", "exit 3", None])
def test_a_git_that_hangs_fails_or_is_missing_gives_no_commit(script, tmp_path, monkeypatch):
    if script:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\necho 123456789012\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if script else str(tmp_path))
    monkeypatch.setattr(provenance, "PATIENCE", 0.5)
    assert provenance._commit() == ""


# ---- Clusters ------------------------------------------------------------------------------------


def test_missing_tls_files_are_named(tmp_path, capsys, runs):
    from biasstudy.campaign.cluster import Cluster

    there = tmp_path / "ca.pem"
    there.write_text("")
    with pytest.raises(ValueError, match=f"--tls names {tmp_path / 'cert.pem'}, and there is no"):
        Cluster("tls://127.0.0.1:9", [there, tmp_path / "cert.pem", tmp_path / "key.pem"])


# ---- Whatever is in a file -----------------------------------------------------------------------

CASES = int(os.environ.get("CASES", "120"))
MANY = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@st.composite
def damages(draw):
    """What happens to one file: (which of all, what is done, with what)."""
    how = draw(st.sampled_from(["cut", "flip", "bytes", "json", "field", "gone"]))
    with_what = {
        "cut": st.floats(0, 1),
        "flip": st.floats(0, 1),
        "bytes": st.binary(max_size=60),
        "json": JSON,
        "field": st.tuples(st.integers(0, 50), JSON),
        "gone": st.none(),
    }[how]
    return draw(st.integers(0, 10**6)), how, draw(with_what)


def damage(path, how, what) -> None:
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
        return
    if how == "cut":
        data = data[: int(what * len(data))]
    elif how == "flip" and data:
        at = min(int(what * len(data)), len(data) - 1)
        data = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
    elif how == "bytes":
        data = what
    elif how == "json":
        data = json.dumps(what).encode()
    elif how == "field" and path.suffix == ".json":
        record = json.loads(data)
        record[sorted(record)[what[0] % len(record)]] = what[1]
        data = json.dumps(record).encode()
    path.write_bytes(data)


@MANY
@given(damages())
def test_a_damaged_store_gives_true_rows_or_says_what_is_left_out(whole, tmp_path_factory, case):
    """Whatever happens to one file: no value is another one, nothing on disk is changed, no
    traceback."""
    root, table = whole
    which, how, what = case
    copy = tmp_path_factory.mktemp("damaged") / "store"
    shutil.copytree(root, copy)
    files = sorted(path for path in copy.rglob("*.json") if path.is_file())
    files += sorted(path for path in copy.rglob("*.safetensors") if path.is_file())
    damage(files[which % len(files)], how, what)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    try:
        read = load(copy)
    except FileNotFoundError as error:
        assert "\n" not in str(error)
    else:
        # a scale is a word of the record alone, which nothing else can contradict
        columns = [c for c in table.columns if c != "scale"]
        known = {one.experiment.iloc[0]: one[columns] for one in by_experiment(table)}
        for one in by_experiment(read):
            assert same(one[columns], known[one.experiment.iloc[0]])
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    shutil.rmtree(copy)


@MANY
@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode), st.booleans())
@example(b"n", False)  # one of a table's columns
def test_a_file_that_is_no_table_is_one_sentence(tmp_path_factory, data, packed):
    path = tmp_path_factory.mktemp("table") / ("table.csv.xz" if packed else "table.csv")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is no table of results") as error:
        load(path)
    assert "\n" not in str(error.value)
