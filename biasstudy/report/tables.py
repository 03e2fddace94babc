"""One tidy table of everything that is finished, wherever it is kept.

Columns of every table here (`results.COLUMNS`), one row per experiment, generation, metric, class
and group:

    experiment, pair     hash of all fields; of those that all arms of a seed share
    scale, numerics      smoke, offline, laptop, paper or custom; precision-device-threads
    dataset ... protocol, filter    fields of the experiment that most studies vary
    arm, prior           what the batches are made of; data that models have learned from before the
                         start, or none
    seed, replicate      base of every random stream; which of the classifiers of a generation
    generation           t = 0 (real data only), 1, ...
    measured_on, split   classifier on test; start on train; batch, candidates on generated
    metric, label, group     what, of which class, of which group; empty: of all
    value, n             nan with n = 0 where undefined; n images (of a rate: those it is a rate of)
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.places import runs_folder
from ..core.store import Stage, Store
from ..experiment import Experiment, experiment_from
from ..loop.results import COLUMNS, Outcome, Results
from .shipped import reference, studies

log = logging.getLogger("biasstudy")


def load(where: str | Path | None = None) -> pd.DataFrame:
    """The table of all finished results in a folder of runs, in a table that was written, or of a
    study that ships.

    Nothing is computed: an experiment of which values are missing, damaged or of another version is
    left out, and said so.

    where    folder; file .csv or .csv.xz; name of a study; default: BIASSTUDY_RUNS, else runs/ of
             the checkout
    returns  columns as in the module; of stored tables those of single classes and groups are not
             there; attrs["note"] says where it was made
    raises   FileNotFoundError   if there is nothing of that name, listing what there is
             ValueError          if a file has other columns
    """
    path = Path(where) if where is not None else runs_folder()
    if path.is_dir():
        outcomes = list(_finished(path))
        if not outcomes:
            raise FileNotFoundError(f"no finished experiment of this version is in {path}")
        return Results(outcomes).table
    if path.is_file():
        return _read(path)
    if str(where) in studies():
        results = reference(str(where))
        results.table.attrs["note"] = results.note
        return results.table
    raise FileNotFoundError(
        f"no folder, file or study {str(where)!r}; studies: {', '.join(studies())}"
    )


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    if unknown := set(table.columns) - set(COLUMNS):
        raise ValueError(
            f"{path} is no table of results: unknown columns {', '.join(sorted(unknown))}"
        )
    return table.reindex(columns=list(COLUMNS))


class _Reader(Store):
    """A store that computes nothing."""

    def _compute(self, stage: Stage) -> Any:
        raise ValueError(f"values of a {stage.kind.name} are missing or of another version")


def _finished(root: Path) -> Iterator[Outcome]:
    """What is kept of every finished experiment in a folder."""
    from ..core.numerics import Numerics

    left: list[str] = []
    for file in sorted((root / "experiments").glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
            precision, device, threads, *compiled = record["numerics"].split("-")
            numerics = Numerics.elsewhere(
                device, precision=precision, threads=int(threads), compile=bool(compiled)
            )
            outcome = read_outcome(
                experiment_from(record["fields"]), numerics, record["scale"], root
            )
        except (ValueError, OSError, ImportError) as error:
            left.append(str(error))
        else:
            yield outcome
    if left:
        log.warning(
            "%d finished experiments are left out, the first because: %s", len(left), left[0]
        )


def read_outcome(e: Experiment, numerics: Any, scale: str, root: Path) -> Outcome:
    """What is kept of one finished experiment; ValueError if values are missing, damaged or of
    another version."""
    from ..data.real import real_data
    from ..loop.gathering import outcome_of
    from ..loop.generations import generations
    from ..loop.run import open_store

    real, store = real_data(e), open_store(root, numerics, kind=_Reader)
    outcome = outcome_of(e, real, list(generations(e, real, store)), numerics, scale, store)
    store.close()
    return outcome
