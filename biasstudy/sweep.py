"""Many experiments in several processes of this machine; the store is the truth, so a process that dies loses its stage."""

import importlib
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from .experiment import Experiment
from .progress import Progress
from .store import runs_folder


def run_in_processes(study: Any, workers: int, modules: list[str], keep: str = "results") -> None:
    """Run a study's experiments in `workers` processes of one thread each; afterwards reading them trains nothing.

    The arms of a seed share generation 0 and stay together.

    study    notebook.Study
    modules  imported in every process first
    keep     see loop.run
    raises   ValueError          if workers is not positive
             ChildProcessError   if a process died; what is finished is kept
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    seeds: dict[int, list[Experiment]] = {}
    for e in study.experiments:
        seeds.setdefault(e.seed, []).append(e)
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["torch"])
    bar = Progress()
    pool = ProcessPoolExecutor(min(workers, len(seeds)), mp_context=context, initializer=_end_with_parent)
    where = str(runs_folder())  # told, because the environment of a forkserver is that of its first use
    with pool, bar.over(list(seeds)):
        waiting = {pool.submit(_run_seed, arms, dict(study.numerics), study.scale, modules, where, keep): seed
                   for seed, arms in seeds.items()}
        try:
            for done in as_completed(waiting):
                done.result()
                bar.now(f"seed {waiting[done]} done")
        except BrokenProcessPool as error:
            raise ChildProcessError("a worker process died; run the same command again to go on where it stopped") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when its parent does; a worker of a pool would wait for its next task for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent
        parent.join()
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def _run_seed(experiments: list[Experiment], numerics: dict[str, Any], scale: str, modules: list[str], where: str,
              keep: str) -> None:
    from .loop import run
    from .training import Numerics
    for module in modules:
        importlib.import_module(module)
    run(experiments, numerics=Numerics(**numerics), where=where, scale=scale, keep=keep, progress=False)
