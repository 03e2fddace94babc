"""Processes that run experiments one after another, on this machine or on the machines of a Dask
cluster.

A task is JSON: the fields of an experiment, numerics, folder of the store. `perform` hands it to a
child process and waits; both engines do nothing else, in their own threads, so a training never
holds up the process that talks to others. A child reads tasks from its stdin and ends when that
closes, so whatever happens to its parent leaves no orphan. What it says is one line of JSON per
task; the results are in the store.
"""

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..loop.progress import Progress

LAST_LINES = 8  # of what a failed experiment said
IDLE = 300.0  # seconds without a task after which a child ends; the next task starts another


# ---- One process ---------------------------------------------------------------------------------


class Child:
    """A process that performs tasks.

    environment   variables beside those of this process
    """

    def __init__(self, environment: dict[str, str]) -> None:
        home = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from biasstudy.campaign.engine import serve; serve()"],
            stdin=subprocess.PIPE,
            encoding="utf-8",
            # Ctrl-C is for the parent alone
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )
        self._ready = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def perform(self, task: dict[str, Any]) -> dict[str, Any]:
        """What became of a task: `state` done, failed, unwritable (`why`: results cannot be
        written), died (the process ended in it) or unborn (before it could begin); `lines`: the
        last ones of what was said."""
        assert self._process.stdin and self._process.stdout
        answer = ""
        try:
            self._ready = self._ready or bool(self._process.stdout.readline())
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if answer.endswith("\n"):
            return json.loads(answer)
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        return {
            "state": "died" if self._ready else "unborn",
            "lines": [*lines[-LAST_LINES:], _how(code)],
        }

    def end(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"its process ended with code {code}"
    names = {value.value: value.name for value in signal.Signals}  # a few numbers have no name
    return f"its process was ended by {names.get(-code, f'signal {-code}')}"


def serve() -> None:
    """What a child does: tasks from stdin, one line of JSON for each on what was stdout; ends when
    stdin does."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    tasks_in = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed goes where errors go
    tasks: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in tasks_in:
            tasks.put(line)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    from ..loop.run import run  # noqa: F401  (torch: seconds)

    print("ready", file=answers, flush=True)
    while True:
        try:
            task = json.loads(tasks.get(timeout=IDLE))
        except queue.Empty:
            os._exit(0)
        print(json.dumps(_perform(task)), file=answers, flush=True)


def task_of(
    experiment: Any, numerics: Any, scale: str, where: Path, modules: Sequence[str]
) -> dict[str, Any]:
    """The task to run one experiment; modules are imported first, as this process would find
    them."""
    return {
        "fields": experiment.fields(),
        "numerics": asdict(numerics),
        "scale": scale,
        "where": str(where.resolve()),
        "modules": list(modules),
        "paths": [os.getcwd()] if modules else [],
        "environment": {"BIASSTUDY_DATA": str(Path(data).resolve())}
        if (data := os.environ.get("BIASSTUDY_DATA"))
        else {},
    }


def _perform(task: dict[str, Any]) -> dict[str, Any]:
    from ..core.places import CannotWrite

    started = time.perf_counter()
    try:
        os.environ.update(task["environment"])
        sys.path[:0] = [path for path in task["paths"] if path not in sys.path]
        for module in task["modules"]:
            importlib.import_module(module)
        _run(task, False)
    except CannotWrite as error:
        return {"state": "unwritable", "lines": [str(error)], "why": str(error)}
    except Exception:
        lines = traceback.format_exc().splitlines()[-LAST_LINES:]
        return {"state": "failed", "lines": lines}
    return {"state": "done", "seconds": time.perf_counter() - started}


def _run(task: dict[str, Any], progress: bool | Progress) -> None:
    """Run the experiment of a task in this process."""
    from ..core.numerics import Numerics
    from ..experiment import experiment_from
    from ..loop.run import run

    # scratch stays: another experiment may rest on it; the farm deletes it
    run(
        experiment_from(task["fields"]),
        numerics=Numerics(**task["numerics"]),
        where=task["where"],
        scale=task["scale"],
        keep="all",
        progress=progress,
    )


_idle: list[Child] = []  # of this process


def perform_here(task: dict[str, Any]) -> dict[str, Any]:
    """What became of a task, which a child of this process performs; children stay for the next
    one. For any thread."""
    try:
        child = _idle.pop()
    except IndexError:
        child = Child(_one_process(task["numerics"]["threads"]))
    if not child.alive:  # it had nothing to do for a while
        child = Child(_one_process(task["numerics"]["threads"]))
    outcome = child.perform(task)
    if child.alive:
        _idle.append(child)
    return outcome


def _one_process(threads: int) -> dict[str, str]:
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


# ---- Engines: submit(task) -> Future of what became of it ----------------------------------------


class Local:
    """Processes of this machine, one thread each.

    workers   how many tasks at a time
    gpus      numbers of the GPUs that they share evenly; a process sees one
    threads   CPU threads of each
    """

    def __init__(self, workers: int, gpus: Sequence[str] = (), threads: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1; got {workers}")
        self.slots = workers
        self._threads = ThreadPoolExecutor(workers)
        self._seats: queue.SimpleQueue[tuple[Child | None, dict[str, str]]] = queue.SimpleQueue()
        self._children: list[Child] = []
        self._closed = False
        for i in range(workers):
            self._seats.put(
                (
                    None,
                    _one_process(threads)
                    | ({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}),
                )
            )

    def submit(self, task: dict[str, Any]) -> "Future[dict[str, Any]]":
        return self._threads.submit(self._perform, task)

    def _perform(self, task: dict[str, Any]) -> dict[str, Any]:
        child, environment = self._seats.get()
        try:
            if child is None or not child.alive:
                child = Child(environment)
                self._children.append(child)
                if self._closed:
                    child.end()
            return child.perform(task)
        finally:
            self._seats.put((child, environment))

    def close(self) -> None:
        """End all processes, finished or not."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in list(self._children):
            child.end()
        self._threads.shutdown()


class Here:
    """This process, one experiment at a time; what an experiment raises is raised here.

    look   called now and then while one is computed
    """

    slots = 1

    def __init__(self) -> None:
        self.look: Callable[[], None] = lambda: None

    def submit(self, task: dict[str, Any]) -> "Future[dict[str, Any]]":
        _run(task, _Looking(self.look))
        ended: Future[dict[str, Any]] = Future()
        ended.set_result({"state": "done"})
        return ended

    def close(self) -> None:
        pass


class _Looking(Progress):
    """Calls `look` every few seconds."""

    EVERY = 5.0

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__(False)
        self._look, self._looked = look, time.monotonic()

    def now(self, what: str) -> None:
        if time.monotonic() - self._looked >= self.EVERY:
            self._look()
            self._looked = time.monotonic()

    def steps(self, i: int, n: int) -> None:
        self.now("")


def local(workers: int | None, numerics: Any, per_gpu: int = 1) -> Local:
    """The engine of this machine for these numerics.

    workers   default: on CUDA `per_gpu` for each GPU that this process may use, else one for each
              core that it may use
    per_gpu   processes that share a GPU
    """
    if per_gpu < 1:
        raise ValueError(f"per_gpu must be at least 1; got {per_gpu}")
    gpus: list[str] = []
    if numerics.device == "cuda":
        import torch

        visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = (
            visible_devices.split(",")
            if visible_devices
            else [str(i) for i in range(torch.cuda.device_count())]
        )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return Local(
        workers
        if workers is not None
        else len(gpus) * per_gpu or max(1, cores // numerics.threads),
        gpus,
        numerics.threads,
    )
