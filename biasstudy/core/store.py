"""Stages and results on disk: what was computed once is never computed again, and nothing
half-written is ever read.

A stage is one step of the loop (fit, sample, predict, ...). Its key is the sha256 of what
determines its result: its kind, the names and versions of the registry entries in it, its inputs
(numbers, options, ids of other stages) and the numerics. Its value is a dictionary of arrays. A
stage is lazy: its id is known at once, its value is read or computed when somebody needs it. So
resuming is running again, and experiments with a common beginning compute it once.

Correctness never depends on a lock: a stage is written into a folder of its own, synced, and
renamed into place; whoever comes second throws its own copy away. The lock only saves work. This
module knows nothing of what stages compute.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from .provenance import environment, peak_memory_mb

log = logging.getLogger("biasstudy")
Arrays = dict[str, np.ndarray]
_ARRAYS = "arrays.safetensors"


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
        """The value; computed if it is not on disk."""
        if self._value is None:
            self._value = self.kind.decode(self.store.value(self))
        return self._value

    def forget(self) -> None:
        """Free the memory of the value."""
        self._value = None

    @property
    def folder(self) -> Path:
        return self.store.root / "stages" / self.kind.name / self.id

    @property
    def file(self) -> Path:
        """Where the value is, if it is on disk."""
        return self.folder / _ARRAYS

    @property
    def provenance(self) -> dict[str, Any]:
        """Seconds, peak memory, versions and hardware of the computation; empty if it is not on
        disk."""
        found = _read_json(self.folder / "stage.json").get("provenance")
        return found if isinstance(found, dict) else {}


class Store:
    """A folder of stages.

    root           the folder; made if it is missing
    numerics       JSON description that enters every key
    context        checkpoint folder or None -> what stage functions get as their first argument
    raises         OSError with one sentence if the folder cannot be written
    counts         Counter of ("computed" or "found", kind)
    """

    def __init__(
        self, root: Path, numerics: dict[str, Any], context: Callable[[Path], Any]
    ) -> None:
        self.root, self.numerics, self.context = Path(root), numerics, context
        self.counts: Counter[tuple[str, str]] = Counter()
        self.computed: list[Stage] = []
        self._stages: dict[str, Stage] = {}
        probe = self.root / "tmp" / f"probe-{uuid.uuid4().hex}"
        with _explained(self.root):
            probe.parent.mkdir(parents=True, exist_ok=True)
            _write(probe, b"biasstudy")
            probe.unlink()

    def require(self, n_bytes: int) -> None:
        """OSError with one sentence unless the disk has about this much space left."""
        free = shutil.disk_usage(self.root).free
        if free < n_bytes:
            raise OSError(
                f"cannot write results to {self.root}: {free / 1e6:.0f} MB are free and about "
                f"{n_bytes / 1e6:.0f} MB are needed; free space there, or set BIASSTUDY_RUNS"
            )

    # -- stages

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
        """Arrays of a stage, from disk or computed now."""
        found = self._read(stage)
        if found is not None:
            self.counts["found", stage.kind.name] += 1
            return found
        with self._lock(stage):
            found = self._read(stage)  # another process may have been faster
            if found is not None:
                self.counts["found", stage.kind.name] += 1
                return found
            return self._compute(stage)

    def has(self, stage: Stage) -> bool:
        """Whether the value is on disk."""
        return stage.file.exists()

    def _compute(self, stage: Stage) -> Arrays:
        inputs = {
            name: value.load() if hasattr(value, "load") else value
            for name, value in stage.inputs.items()
        }
        checkpoints = self.root / "checkpoints" / stage.id
        started = time.perf_counter()
        arrays = stage.kind.function(self.context(checkpoints), **inputs)
        seconds = time.perf_counter() - started
        arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        provenance = {
            "seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(),
            **environment(),
        }
        with _explained(self.root):
            self._write(stage, arrays, provenance)
        shutil.rmtree(checkpoints, ignore_errors=True)
        self.counts["computed", stage.kind.name] += 1
        self.computed.append(stage)
        return arrays

    def _write(self, stage: Stage, arrays: Arrays, provenance: dict[str, Any]) -> None:
        partial = self.root / "tmp" / f"{stage.id}-{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            data = save_arrays(arrays)
            _write(partial / _ARRAYS, data)
            record = {
                **stage.described,
                "keep": stage.kind.keep,
                "provenance": provenance,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            _write(partial / "stage.json", json.dumps(record, indent=1, sort_keys=True).encode())
            _sync_folder(partial)
            stage.folder.parent.mkdir(parents=True, exist_ok=True)
            if stage.folder.exists() and not self.has(stage):  # what pruning left
                self._remove(stage.folder)
            try:
                os.rename(partial, stage.folder)
            except OSError:
                if not self.has(stage):
                    raise
                # somebody else finished first: theirs is as good
            _sync_folder(stage.folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _read(self, stage: Stage) -> Arrays | None:
        """Arrays of a finished stage; None if there is none, or its file is damaged (it is then
        removed)."""
        try:
            data = stage.file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        record = _read_json(stage.folder / "stage.json")
        if hashlib.sha256(data).hexdigest() == record.get("sha256"):
            return load_arrays(data)
        log.warning("a stored %s is damaged and is computed again", stage.kind.name)
        self._remove(stage.folder)
        return None

    @contextlib.contextmanager
    def _lock(self, stage: Stage) -> Iterator[None]:
        folder = self.root / "locks"
        folder.mkdir(exist_ok=True)
        with FileLock(folder / stage.id):
            yield

    def _remove(self, folder: Path) -> None:
        """Remove a folder, in one step for other readers."""
        grave = self.root / "tmp" / f"deleted-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, grave)
            shutil.rmtree(grave, ignore_errors=True)

    def prune(self, needed: Container[str] = ()) -> None:
        """Delete the values of scratch stages that this store computed, except those still needed;
        provenance stays."""
        kept = []
        for stage in self.computed:
            if stage.kind.keep or stage.id in needed:
                kept.append(stage)
            else:
                stage.file.unlink(missing_ok=True)
                stage.forget()
        self.computed = kept

    def close(self) -> None:
        """Forget all stages: they and the store refer to each other, which would keep their values
        until a garbage collection."""
        self._stages.clear()
        self.computed.clear()

    # -- finished experiments

    def save_record(self, name: str, record: dict[str, Any]) -> None:
        """Keep a JSON record of a finished experiment under experiments/<name>.json."""
        file = self.record_file(name)
        partial = self.root / "tmp" / f"record-{uuid.uuid4().hex}"
        with _explained(self.root):
            file.parent.mkdir(exist_ok=True)
            _write(partial, json.dumps(record, indent=1, sort_keys=True).encode())
            os.replace(partial, file)

    def record_file(self, name: str) -> Path:
        """Where the record of a finished experiment is."""
        return self.root / "experiments" / f"{name}.json"


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


def prune_all(root: Path, delete: bool) -> int:
    """Bytes of a store that can go without losing a result: unfinished writes, checkpoints, values
    of scratch stages.

    delete   whether to delete them; another process that is computing then only loses time
    """
    paths = [
        path
        for name in ("tmp", "checkpoints", "locks")
        for path in (root / name).rglob("*")
        if path.is_file()
    ]
    for path in (root / "stages").glob(f"*/*/{_ARRAYS}"):
        paths += [] if _read_json(path.with_name("stage.json")).get("keep") else [path]
    size = sum(path.stat().st_size for path in paths)
    for path in paths if delete else ():
        path.unlink(missing_ok=True)
    return size


# ---- Files ---------------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says; empty if it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Generation a failed write into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"cannot write results to {root}: {reason}; free space there, or set BIASSTUDY_RUNS"
        ) from error
