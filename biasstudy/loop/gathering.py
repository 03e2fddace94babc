"""What is kept of a finished experiment, gathered from the values of its stages."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.numerics import Numerics
from ..core.store import Stage, Store, needed_by
from ..data.pools import ORIGINS, Part, Pool
from ..data.real import RealData
from ..experiment import Experiment
from ..measures.shares import told_counts
from .generations import Generation, results_of
from .instruments import Instruments
from .results import Outcome, confidence_of, entries_of, steps_of

Batch = dict[str, np.ndarray]  # what is known of the images of one batch, see `batch_of`


def outcome_of(
    e: Experiment,
    real: RealData,
    turns: Sequence[Generation],
    numerics: Numerics,
    scale: str,
    store: Store,
) -> Outcome:
    """Everything that is kept of a finished experiment."""
    test, dataset = real.test.labels(), real.dataset
    predictions = [[stage.load() for stage in now.predictions] for now in turns]
    with_batches = [now for now in turns if now.batch]
    batches = [batch_of(e, real, now) for now in with_batches]
    # a pool holds the batch as it is trained on, relabelled or not
    by_id = {
        now.added[-1].images.id: batch for now, batch in zip(with_batches, batches, strict=True)
    }
    composed = [composition(now.pool, real, by_id) for now in turns]
    confusion = None
    if not dataset.probe and batches:
        probed = Instruments(e, real, store).probe(real.test).load()["told"]
        confusion = told_counts(test.group, probed, (dataset.n_groups, dataset.n_groups))
    return Outcome(
        experiment=e,
        numerics=numerics.name,
        scale=scale,
        classes=dataset.classes,
        groups=dataset.groups,
        design=dataset.design,
        occurs=dataset.occurs,
        favoured=real.favoured,
        counts=real.counts,
        sizes=real.sizes,
        label=test.label,
        group=test.group,
        unit=test.unit,
        paired=dataset.paint is not None,
        caption=dataset.caption,
        levels=e.levels,
        draws=real.draws,
        predicted=np.array([[p["predicted"] for p in row] for row in predictions]),
        confidence=rounded(np.array([[p["confidence"] for p in row] for row in predictions])),
        batches=batches,
        quality=[now.quality.load() for now in turns if now.quality],
        fitness=[now.fitness.load() for now in turns if now.fitness],
        spurious=spurious_of(turns),
        pools=np.stack([cells for cells, _ in composed]),
        origins=np.stack([origins for _, origins in composed]),
        grids=[now.grid.load()["images"] for now in turns if now.grid],
        confusion=confusion,
        stages={f"{now.t}": [stage.id for stage in now.results()] for now in turns},
        cost=cost_of(list(needed_by(results_of(turns)).values())),
        made_with=entries_of(e),
    )


def rounded(confidence: np.ndarray) -> np.ndarray:
    """Confidences as results keep them: one byte each."""
    return confidence_of(steps_of(confidence))


def cost_of(stages: Sequence[Stage]) -> dict[str, Any]:
    """Seconds of each stage, largest memory, and where they were computed."""
    provenance = {stage.id: stage.provenance for stage in stages}
    first = next(iter(provenance.values()))
    names = ("biasstudy", "python", "torch", "numpy")
    return {
        "seconds": {id[:8]: p.get("seconds", 0) for id, p in provenance.items()},
        "peak_memory_mb": max(p.get("peak_memory_mb", 0) for p in provenance.values()),
        "processor": first.get("processor", ""),
        "commits": sorted({p.get("commit", "") for p in provenance.values()}),
        "versions": {name: first.get(name, "") for name in names},
    }


def spurious_of(turns: Sequence[Generation]) -> dict[str, np.ndarray]:
    """What `spurious.responses` gave, by generation and classifier; empty where test images have
    no masks."""
    values = [[stage.load() for stage in now.spurious] for now in turns]
    names = values[0][0] if values[0] else ()
    stacked = {
        name: np.array([[arrays[name] for arrays in row] for row in values]) for name in names
    }
    return stacked | ({"confidence": rounded(stacked["confidence"])} if stacked else {})


def batch_of(e: Experiment, real: RealData, now: Generation) -> Batch:
    """What is known of the images of one batch: label (told), oracle, group (probed), trained
    (label in later pools); and of all candidates, where there is a filter: candidate_label,
    candidate_group, accepted."""
    assert now.oracle and now.probed, "a batch is judged by the instruments"
    known = {
        "label": real.conditions.label(real.conditions.asked),
        "oracle": now.oracle.load()["told"],
        "group": now.probed.load()["told"],
    }
    if now.decisions and now.candidate_groups:
        decided = now.decisions.load()
        known |= {
            "label": decided["batch"],
            "candidate_label": decided["label"],
            "accepted": decided["accepted"],
            "candidate_group": now.candidate_groups.load()["told"],
        }
    known["trained"] = now.seen.load()["told"] if now.seen else known["label"]
    return {name: value.astype(np.int64) for name, value in known.items()}


def composition(
    pool: Pool, real: RealData, batches: dict[str, Batch]
) -> tuple[np.ndarray, np.ndarray]:
    """Images of a pool, counted.

    batches   what is known of batches, by the id of their images
    returns   by training label and group, the probed one of generated images, (n_classes,
              n_groups + 1), the last column: group unclear; and by ORIGINS, (3,)
    """
    label, group, origin = membership(pool, batches)
    cells = np.zeros((real.dataset.n_classes, real.dataset.n_groups + 1), np.int64)
    np.add.at(cells, (label, group), 1)  # UNKNOWN is -1: the last column
    return cells, np.bincount(origin, minlength=len(ORIGINS))


def membership(pool: Pool, batches: dict[str, Batch]) -> tuple[np.ndarray, ...]:
    """Training label, group and origin (position in ORIGINS) of every image of a pool; batches are
    not loaded, since what instruments say of them is known."""
    columns = []
    for member in pool.members:
        if isinstance(member.images, Pool):
            label, group, origin = membership(member.images, batches)
        elif member.images.id in batches:
            batch = batches[member.images.id]
            label, group = batch["trained"], batch["group"]
            origin = np.full(len(label), ORIGINS.index(member.came_from))
        else:
            images = member.images
            drawn = images.labels() if isinstance(images, Part) else images.load()
            label, group = drawn.label, drawn.group
            origin = np.full(len(label), ORIGINS.index(member.came_from))
        columns.append([values[member.positions] for values in (label, group, origin)])
    return tuple(np.concatenate(values) for values in zip(*columns, strict=True))
