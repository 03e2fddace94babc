"""Stages and results on disk: what was computed once is never computed again, and nothing
half-written is ever read.

A stage is one step of the loop (fit, sample, predict, ...). Its key is the sha256 of what
determines its result: its kind, the names and versions of the registry entries in it, its inputs
(numbers, options, ids of other stages) and the numerics. Its value is a dictionary of arrays. A
stage is lazy: its id is known at once, its value is read or computed when somebody needs it. So
resuming is running again, and experiments with a common beginning compute it once.

A `Store` reads: it writes nothing, removes nothing, and needs no right to. A `Workshop` is a store
that also computes what is missing; it asks whether it can write when it first has to.

Correctness never depends on a lock: a stage is written into a folder of its own, synced, and
renamed into place; whoever comes second throws its own copy away. The lock only saves work. This
module knows nothing of what stages compute, and no other knows where their files are:

    stages/<kind>/<id>/       arrays.safetensors: the value;  stage.json: what it is, what it cost,
                              the sha256 of the value; stays when the value of scratch is deleted
    experiments/<name>.json   record of a finished experiment
    plans/<study>/<hash>/plan.json   what a study asks, older than its results
    checkpoints/<id>/         of a fit under way
    locks/<id>, tmp/          of processes that compute
"""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from filelock import FileLock
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from .places import CannotWrite, write_synced, writing
from .provenance import environment, peak_memory_mb
from .seeds import digest

log = logging.getLogger("biasstudy")
Arrays = dict[str, np.ndarray]
_ARRAYS, _RECORD, _PLAN = "arrays.safetensors", "stage.json", "plan.json"
# what file systems say that have no locks, or let this user have none
_NO_LOCKS = {
    errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES, errno.EPERM,
}  # fmt: skip
_told_of_locks: set[Path] = set()  # roots of which this process has said that locks do not work


class NotStored(ValueError):
    """A value that a store was asked for is not there, or not as it was written."""


class NotEnoughMemory(MemoryError):
    """A stage cannot be computed on this machine: one sentence that says which options to lower."""


class Lazy(Protocol):
    """Something with an id that is known before its value: a stage, a part of the data, a pool, a
    judge.

    id       names the value by how it is made
    inputs   what it rests on, by name: lazy things, or plain values
    load     reads or computes the value
    """

    @property
    def id(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Any]: ...
    def load(self) -> Any: ...


@dataclass(frozen=True)
class Kind:
    """A kind of stage: the function that computes it, and whether its value is kept when the
    experiment is done.

    version   raise it when the function's results change
    keep      False: scratch (weights, batches), deleted when done and computed again if ever needed
    decode    arrays -> the object that other stages receive
    """

    name: str
    function: Callable[..., Arrays]
    version: int
    keep: bool
    decode: Callable[[Arrays], Any]


def kind(
    name: str,
    *,
    version: int = 1,
    keep: bool,
    decode: Callable[[Arrays], Any] = lambda arrays: arrays,
) -> Any:
    """Decorator that makes a function(context, **inputs) -> arrays a kind of stage."""
    return lambda function: Kind(name, function, version, keep, decode)


# ---- What is on disk of a stage ------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """The place of one stage in a store, whether or not anything is there.

    root   folder of the store
    kind   name of the kind of stage
    id     key of the stage
    """

    root: Path
    kind: str
    id: str

    @property
    def folder(self) -> Path:
        return self.root / "stages" / self.kind / self.id

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints of its fit go."""
        return self.root / "checkpoints" / self.id

    def filled(self) -> bool:
        """Whether a value is there; whether it is whole, only reading it says."""
        return (self.folder / _ARRAYS).exists()

    def size(self) -> int:
        """Bytes of the value; 0 if it is not there."""
        try:
            return (self.folder / _ARRAYS).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def record(self) -> dict[str, Any]:
        """What is told of it, `kind`, `inputs`, `numerics`, `provenance` and others; empty if it is
        missing or damaged. It stays when the value is discarded."""
        return _read_json(self.folder / _RECORD)

    def provenance(self) -> dict[str, Any]:
        """Seconds, peak memory, versions and hardware of the computation; what is missing, damaged
        or of another type is left out."""
        provenance = self.record().get("provenance")
        numbers = ("seconds", "peak_memory_mb")
        return {
            name: value
            for name, value in (provenance.items() if isinstance(provenance, dict) else ())
            if isinstance(value, int | float if name in numbers else str)
        }

    def seconds(self) -> float:
        """Seconds that its computation took; 0 if nothing is told, or it cannot be read now."""
        with contextlib.suppress(OSError):
            return float(self.provenance().get("seconds", 0.0))
        return 0.0

    def mark(self) -> tuple[Any, ...]:
        """Something that changes with every checkpoint, and when the value is there."""
        times = []
        for path in _files(self.checkpoints):
            with contextlib.suppress(FileNotFoundError):  # replaced by a newer one
                times.append(path.stat().st_mtime_ns)
        return self.filled(), *times

    def discard(self) -> None:
        """Delete the value; what is told of it stays."""
        (self.folder / _ARRAYS).unlink(missing_ok=True)

    def read(self) -> Arrays:
        """The value. NotStored says why there is none."""
        try:
            data = (self.folder / _ARRAYS).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NotStored(f"a {self.kind} is missing or of another version") from None
        if hashlib.sha256(data).hexdigest() != self.record().get("sha256"):
            raise NotStored(f"a stored {self.kind} is damaged or not completely copied")
        return load_arrays(data)


def slots(root: Path, kind: str = "*", most: int | None = None) -> Iterator[Slot]:
    """Places of stages of which something is stored, in no order.

    kind   name of a kind; default: all
    most   of each kind, at most so many
    """
    for folder in (root / "stages").glob(kind):
        for place in itertools.islice(folder.glob("*"), most):
            yield Slot(root, folder.name, place.name)


@dataclass(eq=False)
class Stage:
    """One stage of one store: `id` names its value, `load()` reads or computes it."""

    store: "Store"
    kind: Kind
    id: str
    described: dict[str, Any]
    inputs: dict[str, Any]
    _value: Any = field(default=None, repr=False)

    def load(self) -> Any:
        """The value; where it is not on disk, a workshop computes it, a store raises NotStored."""
        if self._value is None:
            self._value = self.kind.decode(self.store.value(self))
        return self._value

    def forget(self) -> None:
        """Free the memory of the value."""
        self._value = None

    @property
    def slot(self) -> Slot:
        """Where it is on disk."""
        return Slot(self.store.root, self.kind.name, self.id)

    @property
    def provenance(self) -> dict[str, Any]:
        """Seconds, peak memory, versions and hardware of the computation; empty if it is not on
        disk."""
        return self.slot.provenance()


# ---- Reading -------------------------------------------------------------------------------------


class Store:
    """A folder of stages that is read: nothing in it is written, removed or tried.

    root       the folder; it need not be there
    numerics   JSON description that enters every key
    counts     Counter of ("computed" or "found", kind)
    """

    def __init__(self, root: Path, numerics: dict[str, Any]) -> None:
        self.root, self.numerics = Path(root), numerics
        self.counts: Counter[tuple[str, str]] = Counter()
        self._stages: dict[str, Stage] = {}

    def stage(self, kind: Kind, **inputs: Any) -> Stage:
        """The stage of this kind with these inputs: JSON values, registry entries' identities, or
        things with an id."""
        seen = {name: _identity(value) for name, value in inputs.items()}
        described = {
            "kind": kind.name,
            "version": kind.version,
            "inputs": seen,
            "numerics": self.numerics,
        }
        text = json.dumps(described, sort_keys=True, separators=(",", ":"), allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._stages.setdefault(key, Stage(self, kind, key, described, inputs))

    def value(self, stage: Stage) -> Arrays:
        """Arrays of a stage, from disk. NotStored says why there are none."""
        arrays = stage.slot.read()
        self.counts["found", stage.kind.name] += 1
        return arrays

    def has(self, stage: Stage) -> bool:
        """Whether a value is on disk."""
        return stage.slot.filled()

    def close(self) -> None:
        """Forget all stages: they and the store refer to each other, which would keep their values
        until a garbage collection."""
        self._stages.clear()

    def record(self, name: str) -> dict[str, Any]:
        """The record of a finished experiment; empty if there is none, or it is damaged."""
        return _read_json(record_file(self.root, name))


def record_file(root: Path, name: str) -> Path:
    """Where the record of a finished experiment is kept."""
    return root / "experiments" / f"{name}.json"


def records(root: Path) -> Iterator[tuple[Path, Any]]:
    """Every record of a finished experiment in a store, by name: its file and what the JSON says,
    which may be anything; of a file that cannot be read, the error."""
    for file in sorted((root / "experiments").glob("*.json")):
        yield file, _json_or_error(file)


def stored_plans(root: Path, study: str) -> Iterator[tuple[Path, Any]]:
    """Every plan of a study in a store, in no order: its file and what the JSON says; of a file
    that cannot be read, the error."""
    for file in (root / "plans" / study).glob(f"*/{_PLAN}"):
        yield file, _json_or_error(file)


# ---- Computing -----------------------------------------------------------------------------------


class Workshop(Store):
    """A store that computes what is missing.

    root      the folder; made when something must be written
    context   checkpoint folder -> what stage functions get as their first argument
    computed  stages that this workshop computed and whose values it did not delete
    """

    def __init__(
        self, root: Path, numerics: dict[str, Any], context: Callable[[Path], Any]
    ) -> None:
        super().__init__(root, numerics)
        self.context = context
        self.computed: list[Stage] = []
        self._opened = False

    def open(self, n_bytes: int = 0) -> None:
        """Make the folder, and see whether it can be written.

        n_bytes   about as much space must be left on the disk
        raises    CannotWrite
        """
        if not self._opened:
            probe = self._partial("probe")
            with writing("results", self.root):
                probe.parent.mkdir(parents=True, exist_ok=True)
                write_synced(probe, b"biasstudy")
                probe.unlink()
            self._opened = True
        if n_bytes and (free := shutil.disk_usage(self.root).free) < n_bytes:
            raise CannotWrite(
                f"cannot write results to {self.root}: {free / 1e6:.0f} MB are free and about "
                f"{n_bytes / 1e6:.0f} MB are needed; free space there, or set BIASSTUDY_RUNS"
            )

    def value(self, stage: Stage) -> Arrays:
        """Arrays of a stage, from disk or computed now; CannotWrite before anything is computed
        that could not be kept."""
        with contextlib.suppress(NotStored):
            return super().value(stage)
        self.open()
        with self._lock(stage):
            try:
                return super().value(stage)  # another process may have been faster
            except NotStored as error:
                if self.has(stage):
                    log.warning("%s; it is computed again", error)
            return self._compute(stage)

    def _compute(self, stage: Stage) -> Arrays:
        inputs = {
            name: value.load() if hasattr(value, "load") else value
            for name, value in stage.inputs.items()
        }
        started = time.perf_counter()
        try:
            arrays = stage.kind.function(self.context(stage.slot.checkpoints), **inputs)
        except (MemoryError, RuntimeError) as error:
            if not _memory_is_short(error):
                raise
            raise NotEnoughMemory(_what_to_lower(stage)) from error
        seconds = time.perf_counter() - started
        arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        provenance = {
            "seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(),
            **environment(),
        }
        with writing("results", self.root):
            self._write(stage, arrays, provenance)
        shutil.rmtree(stage.slot.checkpoints, ignore_errors=True)
        self.counts["computed", stage.kind.name] += 1
        self.computed.append(stage)
        return arrays

    def _write(self, stage: Stage, arrays: Arrays, provenance: dict[str, Any]) -> None:
        partial, folder = self._partial(stage.id), stage.slot.folder
        partial.mkdir(parents=True)
        try:
            data = save_arrays(arrays)
            write_synced(partial / _ARRAYS, data)
            record = {
                **stage.described,
                "keep": stage.kind.keep,
                "provenance": provenance,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            write_synced(partial / _RECORD, json.dumps(record, indent=1, sort_keys=True).encode())
            _sync_folder(partial)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists() and not _whole(stage):  # damaged, or what pruning left
                self._remove(folder)
            try:
                os.rename(partial, folder)
            except OSError:
                if not _whole(stage):
                    raise
                # somebody else finished first: theirs is as good
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, stage: Stage) -> Iterator[None]:
        """Inside, no other process computes the stage; where locks do not work, that is said once
        and two may do the same work."""
        folder = self.root / "locks"
        # a soft lock would outlive a killed process
        lock = FileLock(folder / stage.id, fallback_to_soft=False)
        try:
            with writing("results", self.root):
                folder.mkdir(exist_ok=True)
                lock.acquire()
        except CannotWrite as error:
            reason = error.__cause__
            if not isinstance(reason, OSError) or reason.errno not in _NO_LOCKS:
                raise
            if self.root not in _told_of_locks:
                _told_of_locks.add(self.root)
                log.warning(
                    "locks do not work in %s (%s): processes that run at the same time may do the "
                    "same work twice; results stay right",
                    self.root,
                    reason.strerror,
                )
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # closing the file frees it as well
                lock.release()

    def _partial(self, name: str) -> Path:
        """A new name in the folder of what is being written or removed."""
        return self.root / "tmp" / f"{name}-{uuid.uuid4().hex}"

    def _remove(self, folder: Path) -> None:
        """Remove a folder, in one step for other readers."""
        grave = self._partial("deleted")
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, grave)
            shutil.rmtree(grave, ignore_errors=True)

    def prune(self, needed: Container[str] = ()) -> None:
        """Delete the values of scratch stages that this workshop computed, except those still
        needed; provenance stays."""
        kept = []
        for stage in self.computed:
            if stage.kind.keep or stage.id in needed:
                kept.append(stage)
            else:
                stage.slot.discard()
                stage.forget()
        self.computed = kept

    def close(self) -> None:
        super().close()
        self.computed.clear()

    def save_record(self, name: str, record: dict[str, Any]) -> None:
        """Keep the JSON record of a finished experiment."""
        self.open()
        file, partial = record_file(self.root, name), self._partial("record")
        with writing("results", self.root):
            file.parent.mkdir(exist_ok=True)
            write_synced(partial, json.dumps(record, indent=1, sort_keys=True).encode())
            os.replace(partial, file)

    def save_plan(self, study: str, name: str, record: dict[str, Any]) -> Any:
        """Keep the JSON record of a plan, whole or not at all; of two at the same time the first
        stays.

        name     of the plan: digest of what the record has as `plan`
        returns  the record that is kept
        """
        self.open()
        folder, partial = self.root / "plans" / study / name, self._partial("plan")
        with writing("results", self.root):
            partial.mkdir(parents=True)
            try:
                write_synced(partial / _PLAN, json.dumps(record, indent=1, sort_keys=True).encode())
                _sync_folder(partial)
                folder.parent.mkdir(parents=True, exist_ok=True)
                kept = _read_json(folder / _PLAN).get("plan")
                if folder.exists() and digest(kept, len(name)) != name:
                    self._remove(folder)  # damaged
                with contextlib.suppress(OSError):  # somebody else was first: theirs stays
                    os.rename(partial, folder)
                _sync_folder(folder.parent)
                return json.loads((folder / _PLAN).read_bytes())
            finally:
                shutil.rmtree(partial, ignore_errors=True)


# what numpy, torch on the CPU and torch on a GPU say of an array that is too large
_SHORT = re.compile(r"(?i)out of memory|can't allocate memory|not enough memory|unable to allocate")


def _memory_is_short(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _SHORT.search(str(error)) is not None


def _what_to_lower(stage: Stage) -> str:
    """The sentence about a stage for which there is not enough memory: the options of its models
    that are above their defaults, largest factor first, else those of batches."""
    sizes = []
    for entry, options in _models_of(stage):
        for name, default in entry.defaults().items():
            value = options.get(name)
            if type(default) is int and type(value) is int:
                factor = value / max(1, default)
                sizes.append((factor, "batch" in name, f"{name} {value} of {entry.name}"))
    raised = [size for size in sizes if size[0] > 1] or [size for size in sizes if size[1]]
    names = [text for _, _, text in sorted(raised, key=lambda size: -size[0])]
    return (
        f"not enough memory for a {stage.kind.name}; lower {', '.join([*names, 'n_real or ratio'])}"
    )


def _models_of(stage: Stage) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Registry entries among the inputs of a stage, or of who judges in it, with their options."""
    inputs = stage.inputs
    if "model" in inputs and "options" in inputs:
        yield inputs["model"], inputs["options"]
    judge: Any = inputs.get("by")
    judge = getattr(judge, "fitted", judge)  # of an extractor, what it sees by
    if hasattr(judge, "model"):
        yield judge.model, judge.options


def _whole(stage: Stage) -> bool:
    """Whether the value on disk is as it was written."""
    try:
        stage.slot.read()
    except NotStored:
        return False
    return True


def needed_by(
    wanted: Iterable[Stage], beyond: Callable[[Stage], bool] = lambda stage: True
) -> dict[str, Stage]:
    """All stages on which these rest, themselves among them, by id.

    beyond   of a stage: whether to go on to it and to what it rests on
    """
    needed: dict[str, Stage] = {}

    def visit(thing: Any) -> None:
        if isinstance(thing, Stage):
            if thing.id in needed or not beyond(thing):
                return
            needed[thing.id] = thing
        for value in getattr(thing, "inputs", {}).values():
            visit(value)

    for stage in wanted:
        visit(stage)
    return needed


def _identity(value: Any) -> Any:
    """How an input enters the key."""
    if hasattr(value, "identity"):  # a registry entry
        return [value.noun, value.name, value.identity]
    return value.id if hasattr(value, "id") else value


class Space(NamedTuple):
    """Bytes of a store.

    total     of all files in its folders
    scratch   of those that can go without losing a result
    """

    total: int
    scratch: int


def prune_all(root: Path, delete: bool) -> Space:
    """What a store takes, as it is found, in one walk over its files.

    Unfinished writes, checkpoints and values that are told to be scratch can go. A value of which
    nothing is told stays: its record may still be being copied.

    delete   whether to delete what can go; another process that is computing then only loses time
    """
    total = scratch = 0
    for room in root.glob("*"):
        for folder, _, names in os.walk(room):
            for name in names:
                path = os.path.join(folder, name)  # a tenth of the time of a Path
                with contextlib.suppress(FileNotFoundError):  # a process that computes was faster
                    size = os.stat(path).st_size
                    total += size
                    if _can_go(room.name, folder, name):
                        scratch += size
                        if delete:
                            os.unlink(path)
    return Space(total, scratch)


def _can_go(room: str, folder: str, name: str) -> bool:
    """Whether no result is lost with a file of a store.

    room   of the folders in the store, that in which it lies
    """
    if room == "stages":
        return name == _ARRAYS and _read_json(Path(folder) / _RECORD).get("keep") is False
    return room in ("tmp", "checkpoints", "locks")


# ---- Files ---------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file())


def _sync_folder(path: Path) -> None:
    """Let the disk have the names in a folder; other systems than POSIX do so by themselves."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json_or_error(file: Path) -> Any:
    """What a JSON file says, which may be anything, or the error that reading it raised."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return error


def _read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
