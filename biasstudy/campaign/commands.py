"""The commands `run` and `sweep`: experiments of a file are run, the answer is printed, results are
saved."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.checks import check_name
from ..parameters import read, read_parameters
from ..study import PILOT, study_from

FOR_A_VERDICT = ("generated", "none")  # arms: did it change at all


@dataclass(frozen=True)
class Asked:
    """What both commands are told.

    file         of parameters, or of a grid
    changes      parameters that -p changes
    modules      the user's own, which every process imports
    keep         "results" or "all": weights and batches as well
    save         name of the reference results to write; "": none
    pictures     with save: images of the first seed are kept, too
    confidences  with save: probabilities of predictions are kept
    command      as provenance has it
    raises       ValueError   if save is no name
    """

    file: Path
    command: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    modules: Sequence[str] = ()
    keep: str = "results"
    save: str = ""
    pictures: bool = False
    confidences: bool = True

    def __post_init__(self) -> None:
        if self.save:
            check_name("--save", self.save)


@dataclass(frozen=True)
class Machines:
    """Where a sweep runs: processes here, or the workers of a cluster.

    workers    processes; None: one for each core or GPU
    per_gpu    processes that share a GPU
    scheduler  address of a Dask cluster, with `tls`: files for tls://...
    slurm      file of options with which workers are started as Slurm jobs
    raises     ValueError   with one sentence if options exclude each other
    """

    workers: int | None = None
    per_gpu: int = 1
    scheduler: str = ""
    tls: Sequence[Path] = ()
    slurm: Path | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.workers, self.scheduler, self.slurm))) > 1:
            raise ValueError("choose one of --workers, --scheduler and --slurm")
        if self.tls and not self.scheduler:
            raise ValueError("--tls belongs to --scheduler tls://...")

    @property
    def elsewhere(self) -> bool:
        return bool(self.scheduler or self.slurm)

    def check(self, device: str) -> None:
        """ValueError with one sentence if processes cannot share a GPU there."""
        if self.per_gpu != 1 and (self.elsewhere or device != "cuda"):
            raise ValueError(
                f"--per-gpu is for GPUs of this machine; got {self.per_gpu} with device {device!r}"
            )

    def engine(self, numerics: Any) -> Any:
        """What runs the experiments."""
        if not self.elsewhere:
            from .engine import local

            return local(self.workers, numerics, self.per_gpu)
        from .cluster import Cluster, Slurm

        engine = (
            Slurm(read_parameters(self.slurm)) if self.slurm else Cluster(self.scheduler, self.tls)
        )
        print(f"dashboard: {engine.dashboard}")
        return engine


def run_study(asked: Asked, workers: int = 1) -> None:
    """Run the experiments of a parameter file and print the answer.

    workers  processes, one thread each
    raises   ChildProcessError   if experiments failed in processes
    """
    from ..core.numerics import Numerics
    from ..inference.verdicts import sentences

    given = read(asked.file, asked.changes)
    study = study_from(given.parameters)
    _say(given.notes)
    if study.source == "run":
        _say(study.real.says())
    print(study.table().to_string())
    plan = _freeze(study, Numerics(**study.numerics))
    if study.source == "run":
        _compute(study, asked, workers, plan)
    results = study.run(keep=asked.keep)
    largest = max((o.sizes for o in results.outcomes), key=lambda sizes: sizes["reserve"])
    print("images per class:", ", ".join(f"{name} {n}" for name, n in largest.items()))
    parts = study.split(results)
    print("\n".join(sentences(parts)))
    if given.notebook:
        print(f"its figures, with nothing trained again: {_drawing(asked, given.notebook)}")
    _ship(asked, results, parts)


def _drawing(asked: Asked, notebook: Path) -> str:
    """The command that draws what was run; papermill takes lists and mappings as YAML alone."""
    changes = ["-y", json.dumps(dict(asked.changes))] if asked.changes else []
    words = ["papermill", notebook, f"{notebook.stem}-drawn.ipynb", "-f", asked.file, *changes]
    return shlex.join(map(str, words))


def _ship(
    asked: Asked, results: Any, parts: Mapping[str, Any], measured: Mapping[str, Any] | None = None
) -> None:
    """Write reference results and their figures, if that is asked for."""
    from ..report.shipped import REFERENCE, save_figures, save_study

    if asked.save:
        save_study(
            results,
            REFERENCE,
            asked.save,
            asked.command,
            parts,
            asked.pictures,
            measured,
            asked.confidences,
        )
        save_figures(asked.save, REFERENCE)


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        print(note, flush=True)


def _freeze(study: Any, numerics: Any) -> Any:
    """Freeze the plan of a study before anything is run, and say so."""
    if study.source != "run":
        return None
    plan, _ = study.freeze(numerics)
    if plan:
        print(plan, flush=True)
    elif study.pilot:
        print(f"pilot: seeds from {PILOT:,} on never count; no plan, all is exploratory")
    else:
        print("no plan: nothing is asked without the arms generated and none; all is exploratory")
    return plan


def _compute(study: Any, asked: Asked, workers: int, plan: Any) -> None:
    """Run all experiments of a study, several in processes of their own; a failed one is an error
    here. Those that a verdict needs come first, and it is told as soon as they are there."""
    from ..core.numerics import Numerics
    from ..core.places import runs_folder
    from ..inference.verdicts import sentences
    from ..loop.progress import Line
    from ..loop.results import Results
    from ..report import tables
    from .engine import Here, Local
    from .farm import run_by

    line = Line()
    arms = dict.fromkeys(e.arm for e in study.experiments)
    later = [arm for arm in arms if arm not in FOR_A_VERDICT]
    first = [e for e in study.experiments if e.arm in FOR_A_VERDICT]

    def tell() -> None:
        line.end()
        numerics = Numerics(**study.numerics)
        outcomes = [tables.read_outcome(e, numerics, study.scale, runs_folder()) for e in first]
        print(f"Without the arms that are still to come ({', '.join(later)}):")
        print("\n".join(sentences(study.split(Results(outcomes, plan=plan)))), flush=True)

    has_verdict = plan is not None and bool(later)
    try:
        failed = run_by(
            Here() if workers == 1 else Local(workers),
            study,
            [*asked.modules, *study.imports],
            asked.keep,
            say=line,
            first={e.id for e in first} if has_verdict else frozenset(),
            tell=tell,
        ).failed
    finally:
        line.end()
    if failed:
        raise ChildProcessError(
            f"{len(failed)} of {len(study.experiments)} experiments failed; the first with: "
            f"{next(iter(failed.values()))[-1]}"
        )


def run_sweep(asked: Asked, machines: Machines, dry_run: bool = False) -> bool:
    """Say what a grid would cost, run it and print the answers.

    dry_run  stop after the cost
    returns  whether no experiment failed
    """
    from ..core.numerics import Numerics
    from ..core.places import runs_folder
    from ..inference.verdicts import sentences
    from ..loop.progress import Line
    from ..loop.results import Results
    from ..report import tables
    from . import sweep
    from .farm import run_by, sweep_text

    line = Line()
    grid = sweep.read(asked.file, asked.changes, machines.elsewhere)
    study = grid.study
    numerics = (Numerics.elsewhere if machines.elsewhere else Numerics)(**study.numerics)
    machines.check(numerics.device)
    schedule = sweep.schedule_of(study, runs_folder(), numerics, line)
    costs, source = schedule.costs(numerics, runs_folder())
    line.end()
    _say(grid.notes)
    engine = machines.engine(numerics)
    workers = max(1, engine.slots)
    print(sweep.run_table(study, schedule).to_string())
    print(sweep.cost_table(grid, schedule, costs, source, workers).to_string(), flush=True)
    if dry_run:
        engine.close()
        return True
    frozen = _freeze(study, numerics)
    try:
        report = run_by(
            engine,
            study,
            [*asked.modules, *study.imports],
            asked.keep,
            numerics=numerics,
            schedule=schedule,
            costs=costs,
            say=line,
        )
    finally:
        line.end()
    print(sweep_text(report, schedule, workers))
    if report.failed:
        return False
    results = Results(
        [tables.read_outcome(e, numerics, study.scale, runs_folder()) for e in study.experiments],
        plan=frozen,
    )
    parts = study.split(results)
    print("\n".join(sentences(parts)))
    measured = {
        "wall_seconds": round(report.seconds),
        "workers": workers,
        "stages_computed": report.computed,
        "stages_each_by_itself": sum(len(job.rests_on) for job in schedule.jobs.values()),
    }
    _ship(asked, results, parts, measured if report.finished else {})
    return True
