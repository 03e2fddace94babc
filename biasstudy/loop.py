"""The self-consuming loop: the method section of the study, top to bottom.

`turns` lists the stages of every generation without computing anything; `run` then asks for the ones whose values are
kept, and the store computes what is missing. There is no resume logic: running again is resuming.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .data import LabeledImages, Lazy, Pool, condition_of
from .drawing import Draw, draw
from .experiment import CLASSIFIERS, GENERATORS, PROTOCOLS, Experiment, seed_for, spread
from .probes import Instruments, confusion_counts, predicted
from .progress import Progress
from .results import Outcome, Results
from .store import Stage, Store, kind, runs_folder
from .training import Context, Numerics

GRID = 8  # images per class kept from every generator, made from equal noise in every generation


# ---- What a stage computes -------------------------------------------------------------------------------------------

def _numpy(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in state.items()}


def _torch(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in state.items()}


@kind("generator", keep=False)
def fit_generator(context: Context, *, model: Any, options: dict, pool: LabeledImages, condition: str, n_groups: int,
                  reserve: LabeledImages | None, seed: int) -> dict:
    told = condition_of(pool, condition, n_groups)
    return _numpy(model.target(**options).fit(pool, told, reserve, seed=seed, context=context))


@kind("batch", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def sample_batch(context: Context, *, model: Any, options: dict, state: dict, condition: str, n_groups: int,
                 told_counts: list[int], origin: int, seed: int) -> dict:
    told = spread(np.array(told_counts))
    images = model.target(**options).sample(_torch(state), told, 0, seed=seed, context=context)
    label, group = (told, np.full(len(told), -1)) if condition == "class" else divmod(told, n_groups)
    return LabeledImages(images, label, group, np.full(len(told), origin)).arrays()


@kind("grid", keep=True)
def sample_grid(context: Context, *, model: Any, options: dict, state: dict, told: list[int], seed: int) -> dict:
    return {"images": model.target(**options).sample(_torch(state), np.array(told), 0, seed=seed, context=context)}


@kind("classifier", keep=False)
def fit_classifier(context: Context, *, model: Any, options: dict, pool: LabeledImages, n_classes: int, seed: int) -> dict:
    return _numpy(model.target(**options).fit(pool, n_classes, seed=seed, context=context))


@kind("prediction", keep=True)
def predict(context: Context, *, model: Any, options: dict, state: dict, images: LabeledImages) -> dict:
    label, confidence = predicted(context, model, options, state, images.images)
    return {"predicted": label.astype(np.int16), "confidence": confidence.astype(np.float32)}


# ---- The loop --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Turn:
    """Stages of one generation; `batch` and what follows from it are None in the last one and where nothing is added."""

    t: int
    pool: Pool
    predictions: list[Stage]
    batch: Stage | None = None
    kept: dict[str, Stage] = field(default_factory=dict)     # oracle and probe on the batch; the sample grid

    def results(self) -> list[Stage]:
        """Stages whose values are kept for good."""
        return [*self.predictions, *self.kept.values()]


def turns(e: Experiment, real: Draw, store: Store) -> Iterator[Turn]:
    """The generations of an experiment, t = 0, 1, ..., n_generations."""
    tell = Instruments(e, real, store)
    classifier = {"model": CLASSIFIERS[e.classifier], "options": e.resolved("classifier")}
    generator = {"model": GENERATORS[e.generator], "options": e.resolved("generator")}
    told = {"condition": e.condition, "n_groups": real.source.n_groups}
    batches: list[Lazy] = []

    for t in range(e.n_generations + 1):
        pool = pool_of(e, real.start, batches)

        classifiers = [store.stage(fit_classifier, **classifier, pool=pool, n_classes=real.source.n_classes,
                                   seed=seed_for(e.seed, "classifier", t, replicate)) for replicate in range(e.n_classifiers)]
        predictions = [store.stage(predict, **classifier, state=state, images=real.test) for state in classifiers]

        if t == e.n_generations or e.n_batch == 0:
            yield Turn(t, pool, predictions)
            continue

        reserve = real.reserve(t) if e.arm == "real" else None
        state = store.stage(fit_generator, **generator, **told, pool=pool, reserve=reserve,
                            seed=seed_for(e.seed, "generator", t))
        batch = store.stage(sample_batch, **generator, **told, state=state, origin=t, seed=seed_for(e.seed, "batch", t),
                            told_counts=real.told_counts(e.condition, e.n_batch).tolist())
        batches.append(batch)

        kept = {"oracle": tell.oracle(batch), "probe": tell.probe(batch)}
        if e.arm == "generated":
            kept["grid"] = store.stage(sample_grid, **generator, state=state, told=grid_told(e, real),
                                       seed=seed_for(e.seed, "grid"))
        yield Turn(t, pool, predictions, batch, kept)


def pool_of(e: Experiment, start: Lazy, batches: list[Lazy]) -> Pool:
    """Training set of the next generation: what the protocol keeps of the start and the batches made so far."""
    protocol = PROTOCOLS[e.protocol]
    kept_start = [start] if protocol.start or not batches else []
    return Pool(tuple((part, None) for part in [*kept_start, *protocol.parts(batches)]))


def grid_told(e: Experiment, real: Draw) -> list[int]:
    """Conditions of the sample grid: GRID images of each class, groups in turn where the generator is told them."""
    if e.condition == "class":
        return np.repeat(np.arange(real.source.n_classes), GRID).tolist()
    rows = [np.resize(np.flatnonzero(row), GRID) for row in real.counts]
    return [k * real.source.n_groups + int(g) for k, row in enumerate(rows) for g in row]


# ---- Running it ------------------------------------------------------------------------------------------------------

def run(experiments: Experiment | Iterable[Experiment], *, numerics: Numerics | None = None, where: str | Path | None = None,
        scale: str = "custom", keep: str = "results", progress: bool | None = None) -> Results:
    """Run experiments, or read what an earlier run left, and return their results.

    experiments  one or many; all are checked before any is trained
    numerics     default: float32 on the CPU, one thread
    where        folder of the store; default BIASSTUDY_RUNS, else runs/ of the checkout, else the user's cache
    scale        a word for tables and figures: smoke, offline, laptop, paper, custom
    keep         "results": weights and batches are deleted when no experiment of this call needs them; "all": kept
    progress     a line on stderr; default: in a terminal and in JupyterLab
    raises       ValueError, FileNotFoundError or OSError with one sentence, before any training
    """
    if keep not in ("results", "all"):
        raise ValueError(f"unknown keep {keep!r}; known: results, all")
    listed = list({e.id: e for e in ([experiments] if isinstance(experiments, Experiment) else experiments)}.values())
    numerics = numerics or Numerics()
    numerics.apply()
    drawn = [draw(e) for e in listed]
    bar = Progress(progress)
    store = open_store(where, numerics, bar)
    store.require(max(space_of(e, real) for e, real in zip(listed, drawn, strict=True)))
    plans = [list(turns(e, real, store)) for e, real in zip(listed, drawn, strict=True)]

    outcomes = []
    with bar.over([stage for plan in plans for turn in plan for stage in turn.results()]):
        for i, (e, real, plan) in enumerate(zip(listed, drawn, plans, strict=True)):
            for turn in plan:
                for stage in turn.results():
                    bar.now(f"experiment {i + 1} of {len(listed)} ({e.arm}), generation {turn.t}: {stage.kind.name}")
                    stage.load()
            outcomes.append(outcome_of(e, real, plan, numerics, scale, store))
            store.save_record(f"{e.id}.{numerics.name}", outcomes[-1].record)
            if keep == "results":
                store.prune(set(needed_by(plans[i + 1:])))
    return Results(outcomes, dict(store.counts))


def open_store(where: str | Path | None, numerics: Numerics, bar: Progress | None = None) -> Store:
    """The store in a folder, for these numerics."""
    described = {name: getattr(numerics, name) for name in ("precision", "device", "threads", "compile")}
    progress = bar.steps if bar else None
    return Store(Path(where) if where else runs_folder(), described,
                 lambda folder: Context(numerics, folder, progress=progress))


def space_of(e: Experiment, real: Draw) -> int:
    """Bytes that an experiment may fill while it runs: each generation its batch, and a generator that may hold its pool;
    and 20 MB for weights, predictions and checkpoints."""
    image = 3 * int(np.prod(real.source.train.images.shape[2:]))
    return image * sum(2 * e.n_batch * (t + 1) + e.n_real for t in range(e.n_generations)) + 20_000_000


def needed_by(plans: list[list[Turn]]) -> dict[str, Stage]:
    """All stages on which these plans rest, by id."""
    found: dict[str, Stage] = {}

    def visit(thing: Any) -> None:
        if isinstance(thing, Pool):
            for part, _ in thing.parts:
                visit(part)
        elif isinstance(thing, Stage) and thing.id not in found:
            found[thing.id] = thing
            for value in thing.inputs.values():
                visit(value)

    for plan in plans:
        for turn in plan:
            for stage in turn.results():
                visit(stage)
    return found


def outcome_of(e: Experiment, real: Draw, plan: list[Turn], numerics: Numerics, scale: str, store: Store) -> Outcome:
    """Everything that is kept of a finished experiment, gathered from its stages."""
    test, source = real.test.load(), real.source
    stacked = [[stage.load() for stage in turn.predictions] for turn in plan]
    judged = [{"label": spread_labels(e, real), "oracle": turn.kept["oracle"].load()["told"],
               "group": turn.kept["probe"].load()["told"]} for turn in plan if turn.batch]
    grids = [turn.kept["grid"].load()["images"] for turn in plan if "grid" in turn.kept]
    confusion = None
    if not source.probe and judged:
        confusion = confusion_counts(test.group, Instruments(e, real, store).probe(real.test).load()["told"], source.n_groups)
    stages = {f"{turn.t}": [stage.id for stage in turn.results()] for turn in plan}
    provenance = {stage.id: stage.provenance for stage in needed_by([plan]).values()}
    made = list(provenance.values())
    cost = {"seconds": {id[:8]: p.get("seconds", 0) for id, p in provenance.items()},
            "peak_memory_mb": max(p.get("peak_memory_mb", 0) for p in made),
            "processor": made[0].get("processor", ""), "commits": sorted({p.get("commit", "") for p in made}),
            "versions": {name: made[0].get(name, "") for name in ("biasstudy", "python", "torch", "numpy")}}
    return Outcome(
        experiment=e, numerics=numerics.name, scale=scale, classes=source.classes, groups=source.groups, design=source.design,
        occurs=source.occurs, favoured=real.favoured, counts=real.counts, sizes=real.sizes,
        label=test.label, group=test.group, unit=test.unit, paired=source.paint is not None,
        predicted=np.array([[p["predicted"] for p in row] for row in stacked]),
        confidence=np.array([[p["confidence"] for p in row] for row in stacked]),
        batches=judged, grids=grids, confusion=confusion, stages=stages, cost=cost)


def spread_labels(e: Experiment, real: Draw) -> np.ndarray:
    """Told class of each image of a batch."""
    told = spread(real.told_counts(e.condition, e.n_batch))
    return told if e.condition == "class" else told // real.source.n_groups
