"""Running experiments: ask for the stages whose values are kept; the store computes what is
missing."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import unknown
from ..core.context import Context
from ..core.numerics import Numerics
from ..core.places import CannotWrite, runs_folder
from ..core.store import Store, Workshop, needed_by, records
from ..data.real import RealData, all_real_data, real_data
from ..experiment import Experiment, trained_from
from .gathering import outcome_of
from .generations import generations, results_of, tries_of
from .instruments import Instruments
from .progress import Progress
from .results import Outcome, Results

log = logging.getLogger("biasstudy")

# ---- Running it ----------------------------------------------------------------------------------


def run(
    experiments: Experiment | Iterable[Experiment],
    *,
    numerics: Numerics | None = None,
    where: str | Path | None = None,
    scale: str = "custom",
    keep: str = "results",
    progress: bool | Progress | None = None,
    tell: bool = True,
) -> Results:
    """Run experiments, or read what an earlier run left, and return their results.

    experiments  one or many; all are checked before any is trained
    numerics     default: float32 on the CPU, one thread
    where        folder of the store; default BIASSTUDY_RUNS, else runs/ of the checkout, else the
                 user's cache
    scale        a word for tables and figures: smoke, offline, laptop, paper, custom
    keep         "results": weights and batches are deleted when no experiment of this call needs
                 them; "all": kept
    progress     a line on stderr, or what is told of every stage; default: the line, in a terminal
                 and in JupyterLab
    tell         whether it is told where instruments are often wrong on real images
    raises       ValueError, FileNotFoundError or OSError with one sentence, before any training
    """
    if keep not in ("results", "all"):
        raise ValueError(unknown("keep", keep, ("results", "all")))
    asked = [experiments] if isinstance(experiments, Experiment) else experiments
    distinct = list({e.id: e for e in asked}.values())
    numerics = numerics or Numerics()
    numerics.apply()
    drawn = all_real_data(distinct)
    bar = progress if isinstance(progress, Progress) else Progress(progress)
    store = open_store(where, numerics, bar)
    all_turns = [list(generations(e, real, store)) for e, real in zip(distinct, drawn, strict=True)]
    spaces = [
        space_of(e, real)
        for e, real, turns in zip(distinct, drawn, all_turns, strict=True)
        if not all(map(store.has, results_of(turns)))
    ]
    if spaces:  # reading what is finished needs no right to write
        store.open(max(spaces))

    outcomes: list[Outcome] = []
    with bar.over([stage for turns in all_turns for stage in results_of(turns)]):
        for i, (e, real, turns) in enumerate(zip(distinct, drawn, all_turns, strict=True)):
            if tell and e.n_batch:
                Instruments(e, real, store).warn(not all(map(store.has, results_of(turns))))
            for now in turns:
                for stage in now.results():
                    bar.now(
                        f"experiment {i + 1} of {len(distinct)} ({e.arm}), generation {now.t}: "
                        f"{stage.kind.name}"
                    )
                    stage.load()
            outcomes.append(outcome_of(e, real, turns, numerics, scale, store))
            _keep_record(store, outcomes[-1], numerics, real)
            if keep == "results":
                later = [stage for turns in all_turns[i + 1 :] for stage in results_of(turns)]
                store.prune(set(needed_by(later)))
    store.close()
    return Results(outcomes, dict(store.counts))


def any_results(experiments: Iterable[Experiment], store: Store) -> bool:
    """Whether anything is stored that only these experiments can have: the record of one whose
    models are trained alike, in any numerics and however it was measured, or a value that is kept
    and that the arm `none` does not share."""
    asked = list(experiments)
    known = {
        trained_from(record["fields"])
        for _, record in records(store.root)
        if isinstance(record, Mapping) and isinstance(record.get("fields"), Mapping)
    }
    return any(trained_from(e.fields()) in known or _has_values(e, store) for e in asked)


def _has_values(e: Experiment, store: Store) -> bool:
    real = real_data(e)
    of_none = {stage.id for stage in results_of(generations(e.to_arm("none"), real, store))}
    own = [stage for stage in results_of(generations(e, real, store)) if stage.id not in of_none]
    return any(map(store.has, own))


def record_name(e: Experiment, numerics: Numerics) -> str:
    """Name of the record of a finished experiment."""
    return f"{e.id}.{numerics.name}"


def record_of(outcome: Outcome, numerics: Numerics) -> dict[str, Any]:
    """JSON that is kept of a finished experiment: `numerics` is their short name, as in tables,
    `numerics_fields` are their fields."""
    return {**outcome.record, "numerics_fields": asdict(numerics)}


def _keep_record(store: Workshop, outcome: Outcome, numerics: Numerics, real: RealData) -> None:
    """Write the record of a finished experiment if it says something new.

    A folder of one's own may have changed under its name: then it is told that the record was of
    other data. Their results stay, under the keys of their content. Results that were only read are
    complete without a record, so a folder that cannot be written is then only told.
    """
    name, record = record_name(outcome.experiment, numerics), record_of(outcome, numerics)
    if outcome.experiment.dataset_entry.traits.get("by_content"):
        record["data"] = real.dataset.checksum
    old = store.record(name)
    if old == json.loads(json.dumps(record)):
        return
    if old and old.get("data") and old["data"] != record.get("data"):
        log.warning(
            "the files of %s changed: the record of %s was of other data and is replaced",
            real.dataset.caption,
            outcome.experiment.id,
        )
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
    n_images = e.n_batch * (2 if e.filter == "none" else 1 + tries_of(e))
    return (
        int(image * sum(n_images * (t + 1) + e.n_real for t in range(e.n_generations))) + 60_000_000
    )
