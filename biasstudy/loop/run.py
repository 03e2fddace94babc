"""Running experiments: ask for the stages whose values are kept, and gather what is kept of
them."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..core.context import Context
from ..core.files import CannotWrite
from ..core.numerics import Numerics
from ..core.places import runs_folder
from ..core.store import Stage, Store, Workshop
from ..data.pools import Groups, Pool, positions
from ..data.real import RealData, real_data
from ..experiment import Experiment
from ..measures.correction import told_counts
from .generations import Generation, generations, tries_of
from .instruments import Instruments
from .progress import Progress
from .results import Outcome, Results, entries_of, in_steps

log = logging.getLogger("biasstudy")

# ---- Running it ----------------------------------------------------------------------------------


def run(
    experiments: Experiment | Iterable[Experiment],
    *,
    numerics: Numerics | None = None,
    where: str | Path | None = None,
    scale: str = "custom",
    keep: str = "results",
    progress: bool | None = None,
) -> Results:
    """Run experiments, or read what an earlier run left, and return their results.

    experiments  one or many; all are checked before any is trained
    numerics     default: float32 on the CPU, one thread
    where        folder of the store; default BIASSTUDY_RUNS, else runs/ of the checkout, else the
                 user's cache
    scale        a word for tables and figures: smoke, offline, laptop, paper, custom
    keep         "results": weights and batches are deleted when no experiment of this call needs
                 them; "all": kept
    progress     a line on stderr; default: in a terminal and in JupyterLab
    raises       ValueError, FileNotFoundError or OSError with one sentence, before any training
    """
    if keep not in ("results", "all"):
        raise ValueError(f"unknown keep {keep!r}; known: results, all")
    listed = list(
        {
            e.id: e for e in ([experiments] if isinstance(experiments, Experiment) else experiments)
        }.values()
    )
    numerics = numerics or Numerics()
    numerics.apply()
    drawn = [real_data(e) for e in listed]
    bar = Progress(progress)
    store = open_store(where, numerics, bar)
    plans = [list(generations(e, real, store)) for e, real in zip(listed, drawn, strict=True)]
    spaces = [
        space_of(e, real)
        for e, real, plan in zip(listed, drawn, plans, strict=True)
        if not all(store.has(stage) for turn in plan for stage in turn.results())
    ]
    if spaces:  # reading what is finished needs no right to write
        store.open(max(spaces))

    outcomes = []
    with bar.over([stage for plan in plans for turn in plan for stage in turn.results()]):
        for i, (e, real, plan) in enumerate(zip(listed, drawn, plans, strict=True)):
            for turn in plan:
                for stage in turn.results():
                    bar.now(
                        f"experiment {i + 1} of {len(listed)} ({e.arm}), generation {turn.t}: "
                        f"{stage.kind.name}"
                    )
                    stage.load()
            outcomes.append(outcome_of(e, real, plan, numerics, scale, store))
            _keep_record(store, outcomes[-1], numerics)
            if keep == "results":
                store.prune(set(needed_by(plans[i + 1 :])))
    store.close()
    return Results(outcomes, dict(store.counts))


def record_name(e: Experiment, numerics: Numerics) -> str:
    """Name of the record of a finished experiment."""
    return f"{e.id}.{numerics.name}"


def record_of(outcome: Outcome, numerics: Numerics) -> dict[str, Any]:
    """JSON that is kept of a finished experiment: `numerics` is their short name, as in tables,
    `numerics_fields` are their fields."""
    return {**outcome.record, "numerics_fields": asdict(numerics)}


def _keep_record(store: Workshop, outcome: Outcome, numerics: Numerics) -> None:
    """Write the record of a finished experiment if it says something new.

    Results that were only read are complete without it, so a folder that cannot be written is
    then only told.
    """
    name, record = record_name(outcome.experiment, numerics), record_of(outcome, numerics)
    if store.record(name) == json.loads(json.dumps(record)):
        return
    try:
        store.save_record(name, record)
    except CannotWrite as error:
        if any(how == "computed" for how, _ in store.counts):
            raise
        log.warning("the record of %s is not renewed: %s", outcome.experiment.id, error)


def open_store(
    where: str | Path | None, numerics: Numerics, bar: Progress | None = None
) -> Workshop:
    """The store in a folder, for these numerics; it computes what is missing."""
    progress = bar.steps if bar else None
    return Workshop(
        Path(where) if where else runs_folder(),
        asdict(numerics),
        lambda folder: Context(numerics, folder, progress=progress),
    )


def read_store(where: Path, numerics: Numerics) -> Store:
    """The store in a folder, for these numerics; it only reads."""
    return Store(where, asdict(numerics))


def space_of(e: Experiment, real: RealData) -> int:
    """Bytes that an experiment may fill while it runs: each generation its batch, and a generator
    that may hold its pool; with a filter its candidates as well; and 60 MB for weights, predictions
    and checkpoints."""
    image = 3 * int(np.prod(real.dataset.train.images.shape[2:]))
    made = e.n_batch * (2 if e.filter == "none" else 1 + tries_of(e))
    return int(image * sum(made * (t + 1) + e.n_real for t in range(e.n_generations))) + 60_000_000


def needed_by(
    plans: list[list[Generation]], beyond: Callable[[Stage], bool] = lambda stage: True
) -> dict[str, Stage]:
    """All stages on which these plans rest, by id.

    beyond   of a stage: whether to go on to it and to what it rests on
    """
    found: dict[str, Stage] = {}

    def visit(thing: Any) -> None:
        if isinstance(thing, Pool):
            for part, index in thing.parts:
                visit(part)
                visit(index)
            return
        if isinstance(thing, Groups):
            for images, said in thing.parts:
                visit(images)
                visit(said)
            return
        if isinstance(thing, Stage):
            if thing.id in found or not beyond(thing):
                return
            found[thing.id] = thing
        for value in getattr(thing, "inputs", {}).values():
            visit(value)

    for plan in plans:
        for turn in plan:
            for stage in turn.results():
                visit(stage)
    return found


# ---- What is kept of it --------------------------------------------------------------------------


def outcome_of(
    e: Experiment,
    real: RealData,
    plan: list[Generation],
    numerics: Numerics,
    scale: str,
    store: Store,
) -> Outcome:
    """Everything that is kept of a finished experiment, gathered from its stages."""
    test, source = real.test.load(), real.dataset
    stacked = [[stage.load() for stage in turn.predictions] for turn in plan]
    batches = {turn.batch.id: batch_of(e, real, turn) for turn in plan if turn.batch}
    grids = [turn.kept["grid"].load()["images"] for turn in plan if "grid" in turn.kept]
    confusion = None
    if not source.probe and batches:
        said = Instruments(e, real, store).probe(real.test).load()["told"]
        confusion = told_counts(test.group, said, (source.n_groups, source.n_groups))
    stages = {f"{turn.t}": [stage.id for stage in turn.results()] for turn in plan}
    provenance = {stage.id: stage.provenance for stage in needed_by([plan]).values()}
    made = list(provenance.values())
    cost = {
        "seconds": {id[:8]: p.get("seconds", 0) for id, p in provenance.items()},
        "peak_memory_mb": max(p.get("peak_memory_mb", 0) for p in made),
        "processor": made[0].get("processor", ""),
        "commits": sorted({p.get("commit", "") for p in made}),
        "versions": {
            name: made[0].get(name, "") for name in ("biasstudy", "python", "torch", "numpy")
        },
    }
    return Outcome(
        experiment=e,
        numerics=numerics.name,
        scale=scale,
        classes=source.classes,
        groups=source.groups,
        design=source.design,
        occurs=source.occurs,
        favoured=real.favoured,
        counts=real.counts,
        sizes=real.sizes,
        label=test.label,
        group=test.group,
        unit=test.unit,
        paired=source.paint is not None,
        caption=source.caption,
        predicted=np.array([[p["predicted"] for p in row] for row in stacked]),
        confidence=in_steps(np.array([[p["confidence"] for p in row] for row in stacked])),
        batches=list(batches.values()),
        quality=[turn.kept["quality"].load() for turn in plan if "quality" in turn.kept],
        spurious=spurious_of(plan),
        pools=np.stack([composition(turn.pool, real, batches) for turn in plan]),
        grids=grids,
        confusion=confusion,
        stages=stages,
        cost=cost,
        made_with=entries_of(e),
    )


def spurious_of(plan: list[Generation]) -> dict[str, np.ndarray]:
    """What `spurious.responses` found, by generation and classifier; empty where test images have
    no masks."""
    found = [[stage.load() for stage in turn.spurious] for turn in plan]
    names = found[0][0] if found[0] else ()
    stacked = {name: np.array([[one[name] for one in row] for row in found]) for name in names}
    return stacked | ({"confidence": in_steps(stacked["confidence"])} if stacked else {})


def batch_of(e: Experiment, real: RealData, turn: Generation) -> dict[str, np.ndarray]:
    """What is known of the images of one batch: label (told), oracle, group (probed), trained
    (label in later pools); and of all candidates, where there is a filter: candidate_label,
    candidate_group, accepted."""
    told = (
        real.told[e.n_fresh :]
        if e.condition == "class"
        else real.told[e.n_fresh :] // real.dataset.n_groups
    )
    known = {
        "label": told,
        "oracle": turn.kept["oracle"].load()["told"],
        "group": turn.kept["probe"].load()["told"],
    }
    if "decisions" in turn.kept:
        decided = turn.kept["decisions"].load()
        known |= {
            "label": decided["batch"],
            "candidate_label": decided["label"],
            "accepted": decided["accepted"],
            "candidate_group": turn.kept["groups"].load()["told"],
        }
    known["trained"] = turn.kept["seen"].load()["told"] if "seen" in turn.kept else known["label"]
    return {name: value.astype(np.int64) for name, value in known.items()}


def composition(
    pool: Pool, real: RealData, batches: dict[str, dict[str, np.ndarray]]
) -> np.ndarray:
    """Images of a pool by training label and group, the probed one of generated images; (n_classes,
    n_groups + 1), the last column: group unclear."""
    table = np.zeros((real.dataset.n_classes, real.dataset.n_groups + 1), np.int64)
    # UNKNOWN is -1: the last column
    np.add.at(table, membership(pool, batches), 1)
    return table


def membership(thing: Any, batches: dict[str, dict[str, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Training label and group of every image of a pool or part."""
    if isinstance(thing, Pool):
        found = [
            [values[positions(index)] for values in membership(part, batches)]
            for part, index in thing.parts
        ]
        return tuple(np.concatenate(values) for values in zip(*found, strict=True))
    if isinstance(thing, Stage):
        # a relabelled batch, or the batch
        batch = batches[thing.inputs.get("batch", thing).id]
        return batch["trained"], batch["group"]
    images = thing.load()
    return images.label, images.group
