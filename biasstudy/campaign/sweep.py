"""Many experiments: a grid, the stages that its experiments share, and what they will cost. `farm`
runs them.

What is finished is what the store holds, so whatever dies loses no finished stage, and running
again does what is missing.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..core.checks import shown, unknown
from ..core.store import Slot, record_file
from ..experiment import Experiment
from ..parameters import read as read_study
from ..parameters import read_parameters
from ..study import SETTINGS, Study, study_from
from .cost import Costs, Recipe, add_probe, recipe_of, stored_costs

_FIELDS = {f.name for f in fields(Experiment)} | {"arms"}  # names of axes that set one parameter
RECORD = 8_000  # bytes of what is told of an experiment and its stages, beside their values


# ---- The grid ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """A sweep file, expanded.

    study     all settings as variants of one study; equal experiments count once
    written   experiments before equal ones were put together
    refused   why combinations cannot be experiments -> how many
    notes     where the parameters of the base come from; see `parameters.Given`
    """

    study: Study
    written: int
    refused: Mapping[str, int]
    notes: tuple[str, ...] = ()


def read(path: Path, changes: Mapping[str, Any] | None = None, elsewhere: bool = False) -> Grid:
    """The grid of a sweep file: `{base: parameter file, grid: {axis: [values]}}`, each value with
    each.

    An axis is a field of Experiment, `seed` (consecutive) or `arms`; or any other name, and its
    values are mappings of fields that go together. `impossible: skip` leaves out combinations that
    cannot be experiments.

    changes    parameters of the base that are changed
    elsewhere  other machines compute: the device need not be here
    raises    ValueError, OSError   with one sentence: unknown key or axis, no values, a combination
                                    that cannot be
    """
    file = read_parameters(path)
    if (
        not isinstance(file.get("base"), str)
        or not isinstance(file.get("grid"), dict)
        or not file["grid"]
    ):
        raise ValueError(f"{path} must hold 'base: parameter file' and 'grid: {{axis: [values]}}'")
    for key in file:
        if key not in ("name", "base", "grid", "impossible"):
            known = ("base", "grid", "impossible", "name")
            raise ValueError(unknown("key", key, known, f"in {path}"))
    if file.get("impossible", "stop") not in ("stop", "skip"):
        raise ValueError(f"impossible must be stop or skip; got {shown(file['impossible'])}")
    axes = _axes(file["grid"])
    varied = {name for axis, values in axes.items() for name in _names(axis, values)}
    for name in changes or {}:
        if name in varied or name == "variants":
            raise ValueError(f"-p {name}: in a sweep the grid says it; change the grid instead")
    named = {"name": file["name"]} if "name" in file else {}
    base = read_study(path.parent / file["base"], {**named, **(changes or {})}, varied)
    if base.parameters.get("variants"):
        raise ValueError(
            f"the base {path.parent / file['base']} has variants; in a sweep the axes of the grid "
            "say what varies"
        )
    grid = _expanded(dict(base.parameters), axes, file.get("impossible") == "skip", elsewhere)
    return replace(grid, notes=base.notes)


MOST = 100_000  # combinations of a grid


def _names(axis: str, values: list[Any]) -> set[str]:
    """Parameters that an axis sets."""
    if axis in _FIELDS:
        return {axis, "n_seeds"} if axis == "seed" else {axis}
    return {name for value in values for name in value}


def _axes(grid: dict[str, Any]) -> dict[str, list[Any]]:
    for axis, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"axis {shown(axis)} must be a list of values; got {shown(values)}")
        if axis not in _FIELDS and not all(isinstance(value, dict) for value in values):
            raise ValueError(
                f"axis {shown(axis)} is no field of an experiment, so its values must be mappings "
                f"of fields; known fields: {', '.join(sorted(_FIELDS))}"
            )
        if any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError(f"axis {shown(axis)} has a value twice: {shown(values)}")
    combinations = math.prod(len(values) for values in grid.values())
    if combinations > MOST:
        raise ValueError(f"a grid may have {MOST:,} combinations; this one has {combinations:,}")
    setting: dict[str, Any] = {}
    for axis, values in grid.items():
        for name in _names(axis, values):
            if name in setting:
                raise ValueError(
                    f"the axes {shown(setting[name])} and {shown(axis)} both set {shown(name)}"
                )
            setting[name] = axis
    return grid


def _expanded(
    base: dict[str, Any], axes: dict[str, list[Any]], skip: bool, elsewhere: bool
) -> Grid:
    own = {f.name for f in fields(Experiment)}
    axes = dict(axes)
    base["arms"] = axes.pop("arms", base.get("arms", SETTINGS["arms"]))
    if "seed" in axes:
        seeds = axes.pop("seed")
        if not all(type(s) is int for s in seeds) or seeds != list(
            range(seeds[0], seeds[0] + len(seeds))
        ):
            raise ValueError(f"axis 'seed' must be consecutive whole numbers; got {shown(seeds)}")
        base |= {"seed": seeds[0], "n_seeds": len(seeds)}
    # nothing varies: no name of a variant
    alone = {axis for axis, values in axes.items() if axis in own and len(values) == 1}
    base |= {axis: axes.pop(axis)[0] for axis in alone}
    base = {name: value for name, value in base.items() if name != "variants"}
    possible, used, refused = [], set[tuple[str, int]](), Counter[str]()
    why: dict[tuple[str, int], str] = {}
    for chosen in itertools.product(*(enumerate(values) for values in axes.values())):
        named: dict[str, Any] = {}
        for axis, (_, value) in zip(axes, chosen, strict=True):
            named |= {axis: value} if axis in own else value
        places = {(axis, i) for axis, (i, _) in zip(axes, chosen, strict=True)}
        try:
            study_from({**base, "variants": [named] if named else []}, elsewhere)
        except ValueError as error:
            if not skip:
                raise
            refused[str(error)] += 1
            why |= dict.fromkeys(places, str(error))
        else:
            possible.append(named)
            used |= places
    for axis, i in why:
        if (axis, i) not in used:
            raise ValueError(
                f"no experiment can have {axis} {shown(axes[axis][i])}: {why[axis, i]}"
            )
    study = study_from({**base, "variants": [named for named in possible if named]}, elsewhere)
    written = len(possible) * study.n_seeds * len(study.arms)
    return Grid(study, written, refused)


# ---- The schedule --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """One stage of a schedule: its place in the store, whether its value is kept, what it costs
    (`recipe`)."""

    slot: Slot
    keep: bool
    recipe: Recipe


@dataclass
class Job:
    """One experiment of a schedule: ids of the stages that it rests on, of those whose values are
    kept, of those to compute."""

    experiment: Experiment
    rests_on: frozenset[str]
    results: frozenset[str]
    record: Path
    missing: set[str] = field(default_factory=set)
    deaths: int = 0
    mark: Any = None  # what was on disk when its process ended the last time

    @functools.cached_property
    def pair(self) -> str:
        return self.experiment.pair


@dataclass
class Schedule:
    """All experiments and their stages; nothing is computed.

    largest   bytes that one experiment may fill while it runs
    """

    jobs: dict[str, Job]
    pieces: dict[str, Piece]
    finished: set[str] = field(default_factory=set)
    largest: int = 0

    def is_finished(self, job: Job) -> bool:
        """Whether everything that is kept of it is on disk."""
        return job.record.exists() and all(self.pieces[id].slot.filled() for id in job.results)

    @property
    def missing(self) -> set[str]:
        """Ids of all stages that are to be computed."""
        return set().union(*(job.missing for job in self.jobs.values()))

    def waiting(self) -> list[Job]:
        return [job for name, job in self.jobs.items() if name not in self.finished]

    def costs(self, numerics: Any, root: Path, ids: set[str] | None = None) -> tuple[Costs, str]:
        """What stages cost, and where that is from.

        ids   which stages; default: those to be computed
        """
        ids = self.missing if ids is None else ids
        recipes = {id: self.pieces[id].recipe for id in ids}
        costs = stored_costs(root, {self.pieces[id].slot.kind for id in recipes})
        unknown = {recipe.family for recipe in recipes.values() if not costs.knows(recipe)}
        if not unknown:
            return costs, "times of stored stages"
        jobs = [job for job in self.jobs.values() if job.rests_on & ids]
        probed: list[Experiment] = []
        for job in sorted(jobs, key=lambda job: -len(job.rests_on)):
            new = {recipes[id].family for id in job.rests_on & ids} & unknown
            unknown -= new
            probed += [job.experiment] if new else []
        images = [job.experiment.n_batch for job in jobs if job.experiment.n_batch]
        add_probe(costs, probed, numerics, sum(images) / max(1, len(images)))
        source = f"a probe of {len(probed)} short experiment{'s' * (len(probed) > 1)}"
        return costs, source + (" and times of stored stages" if costs.seconds else "")


def schedule_of(
    study: Study, where: Path, numerics: Any, say: Callable[[str], None] = lambda text: None
) -> Schedule:
    """The stages of every experiment of a study.

    raises   ValueError, FileNotFoundError, OSError   with one sentence if data are missing or
                                                      cannot give what is asked
    """
    from ..core.store import needed_by
    from ..data.real import real_data
    from ..loop.generations import generations
    from ..loop.run import open_store, record_name, results_of, space_of

    schedule, store = Schedule({}, {}), open_store(where, numerics)
    for i, e in enumerate(study.experiments):
        real = real_data(e)
        results = results_of(generations(e, real, store))
        stages = needed_by(results)
        for id, stage in stages.items():
            schedule.pieces.setdefault(
                id, Piece(stage.slot, stage.kind.keep, recipe_of(stage.described))
            )
        job = schedule.jobs[e.id] = Job(
            e,
            frozenset(stages),
            frozenset(stage.id for stage in results),
            record_file(store.root, record_name(e, numerics)),
        )
        if schedule.is_finished(job):
            schedule.finished.add(e.id)
        else:
            job.missing = set(needed_by(results, lambda stage: not store.has(stage)))
        schedule.largest = max(schedule.largest, space_of(e, real))
        store.close()
        if i % 100 == 99:
            say(f"planned {i + 1} experiments")
    if schedule.waiting():  # that nothing can be written is told before anything is computed
        store.open()
    return schedule


def cost_table(grid: Grid, schedule: Schedule, costs: Costs, source: str, workers: int) -> Any:
    """What is to be run and what it will cost, as a small table."""
    import pandas as pd

    jobs, waiting, missing = schedule.jobs.values(), schedule.waiting(), schedule.missing
    distinct, counted = len(schedule.pieces), sum(len(job.rests_on) for job in jobs)
    recipe = {id: piece.recipe for id, piece in schedule.pieces.items()}
    seconds = costs.of(recipe[id] for id in missing)
    alone = costs.of(recipe[id] for job in waiting for id in job.missing)
    kept = costs.size(recipe[id] for id in missing if schedule.pieces[id].keep) + RECORD * len(
        waiting
    )
    rows = {
        "experiments written": f"{grid.written:,}",
        "distinct experiments": f"{len(jobs):,}",
        "finished already": f"{len(schedule.finished):,}",
        "to run": f"{len(waiting):,}",
        "their stages, each experiment by itself": f"{counted:,}",
        "distinct stages": f"{distinct:,} ({1 - distinct / counted:.0%} shared)",
        "stages to compute": f"{len(missing):,}",
        "process time without sharing": duration(alone),
        "process time": duration(seconds),
        f"time with {workers} worker{'s' * (workers > 1)}": duration(seconds / workers),
        "disk, kept": f"{kept / 1e6:,.0f} MB",
        "disk, scratch of a worker": f"at most {schedule.largest / 1e6:,.0f} MB",
        "estimated from": source,
    }
    if grid.refused:
        rows["combinations left out"] = f"{sum(grid.refused.values())}: {next(iter(grid.refused))}"
    return pd.DataFrame({"value": rows.values()}, index=pd.Index(rows, name="sweep"))


def run_table(study: Study, schedule: Schedule) -> Any:
    """Experiments and those still to run, by variant and arm; what several variants share is in the
    first."""
    import pandas as pd

    seen: set[str] = set()
    rows = []
    for name, experiments in study.by_variant().items():
        new = [e for e in experiments if e.id not in seen]
        seen |= {e.id for e in new}
        left = [e for e in new if e.id not in schedule.finished]
        rows.append({"variant": name or "all", **Counter(e.arm for e in new), "to run": len(left)})
    return pd.DataFrame(rows).set_index("variant").fillna(0).astype(int)


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
