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

import itertools
import logging
import lzma
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.checks import checked
from ..core.places import runs_folder
from ..core.store import records
from ..experiment import Experiment, stored_experiment
from ..loop.results import COLUMNS, Outcome, table_of
from .shipped import reference, studies

log = logging.getLogger("biasstudy")


def load(where: str | Path | None = None) -> pd.DataFrame:
    """The table of all finished results in a folder of runs, in a table that was written, or of a
    study that ships.

    Nothing is computed, written or removed: an experiment of which values or record are missing,
    damaged or of another version is left out, and said so.

    where    folder; file .csv or .csv.xz; name of a study; default: BIASSTUDY_RUNS, else runs/ of
             the checkout
    returns  columns as in the module; of stored tables those of single classes and groups are not
             there; attrs["note"] says where it was made
    raises   FileNotFoundError   if there is nothing of that name, listing what there is
             ValueError          if a file has other columns
    """
    path = Path(where) if where is not None else runs_folder()
    if path.is_dir():
        outcomes = finished(path)
        if (first := next(outcomes, None)) is None:
            raise FileNotFoundError(f"no finished experiment of this version is in {path}")
        return table_of(itertools.chain([first], outcomes))
    if path.is_file():
        return _read_table(path)
    if str(where) in studies():
        results = reference(str(where))
        results.table.attrs["note"] = results.note
        return results.table
    raise FileNotFoundError(
        f"no folder, file or study {str(where)!r}; studies: {', '.join(studies())}"
    )


# columns that tables of studies that ship do not have
_NOT_SHIPPED = ("numerics", "prior", "label", "group")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (ValueError, lzma.LZMAError, EOFError) as error:  # not text, not packed, cut off
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no table of results: {reason}") from error
    if unknown := set(table.columns) - set(COLUMNS):
        raise ValueError(
            f"{path} is no table of results: unknown columns {', '.join(sorted(unknown))}"
        )
    if absent := [c for c in COLUMNS if c not in table.columns and c not in _NOT_SHIPPED]:
        raise ValueError(f"{path} is no table of results: there is no column {', '.join(absent)}")
    return table.reindex(columns=list(COLUMNS))


def finished(
    root: Path, wanted: Callable[[Experiment], bool] = lambda e: True
) -> Iterator[Outcome]:
    """What is kept of the finished experiments in a folder; damaged ones are told and left out.

    wanted   which of them; default: all
    """
    left_out: list[str] = []
    seen: set[tuple[str, str]] = set()
    for file, record in records(root):
        try:
            e, numerics, scale = _run_in(record)
            if not wanted(e):
                continue
            if (e.id, numerics.name) in seen:
                raise ValueError("it is a copy of another record")
            outcome = read_outcome(e, numerics, scale, root)
        except (ValueError, OSError, ImportError) as error:
            left_out.append(f"{file.name}: {error}")
        else:
            seen.add((e.id, numerics.name))
            yield outcome
    if left_out:
        log.warning(
            "%d finished experiments are left out, the first because: %s",
            len(left_out),
            left_out[0],
        )


def _run_in(record: Any) -> tuple[Experiment, Any, str]:
    """Experiment, numerics and scale that a record tells of; ValueError says what is wrong with
    it."""
    from ..core.numerics import Numerics

    if isinstance(record, Exception):
        raise ValueError(f"it cannot be read: {record}")
    if not isinstance(record, Mapping):
        raise ValueError(f"it is no record, but {type(record).__name__}")
    types = {"experiment": str, "fields": dict, "scale": str, "numerics": str}
    for name, type_ in types.items():
        if name not in record:
            raise ValueError(f"it lacks {name!r}")
        checked(name, record[name], type_)
    e = stored_experiment(record["fields"])
    if e.id != record["experiment"]:
        raise ValueError(f"its fields are those of {e.id}, not of {record['experiment']}")
    if "numerics_fields" not in record:  # of an older store
        return e, Numerics.named(record["numerics"]), record["scale"]
    told = checked("numerics_fields", record["numerics_fields"], dict)
    known = [field.name for field in fields(Numerics)]
    if sorted(told) != sorted(known):
        raise ValueError(
            f"numerics_fields must be {', '.join(known)}; got {', '.join(map(str, told)) or 'none'}"
        )
    return e, Numerics.elsewhere(**told), record["scale"]


def read_outcome(e: Experiment, numerics: Any, scale: str, root: Path) -> Outcome:
    """What is kept of one finished experiment; NotStored, a ValueError, if values are missing,
    damaged or of another version."""
    from ..data.real import real_data
    from ..loop.gathering import outcome_of
    from ..loop.generations import generations
    from ..loop.run import read_store

    real, store = real_data(e), read_store(root, numerics)
    outcome = outcome_of(e, real, list(generations(e, real, store)), numerics, scale, store)
    store.close()
    return outcome
