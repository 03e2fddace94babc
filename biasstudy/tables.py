"""One tidy table of everything that is finished, wherever it is kept; and a sweep stored as a table.

Columns of every table here (`results.COLUMNS`), one row per experiment, generation, metric, class and group:

    experiment, pair     hash of all fields; of those that all arms of a seed share
    scale, numerics      smoke, offline, laptop, paper or custom; precision-device-threads
    dataset ... protocol, filter    fields of the experiment that most studies vary
    arm, prior           what the batches are made of; data that models have learned from before the start, or none
    seed, replicate      base of every random stream; which of the classifiers of a generation
    generation           t = 0 (real data only), 1, ...
    measured_on, split   classifier on test; start on train; batch, candidates on generated
    metric, label, group     what, of which class, of which group; empty: of all
    value, n             nan with n = 0 where undefined; n images (of a rate: those it is a rate of)
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .experiment import Experiment, experiment_from
from .inference import contrast_table
from .results import COLUMNS, REFERENCE, Outcome, Results, reference, seconds, studies
from .store import Stage, Store, runs_folder

log = logging.getLogger("biasstudy")
DROPPED = "predictions, values of single classes and groups, sample grids, ids of stages"


def load(where: str | Path | None = None) -> pd.DataFrame:
    """The table of all finished results in a folder of runs, in a stored table, or of a study that ships with the package.

    Nothing is computed: an experiment of which values are missing, damaged or of another version is left out, and said so.

    where    folder; file .csv or .csv.xz; name of a study or sweep; default: BIASSTUDY_RUNS, else runs/ of the checkout
    returns  columns as in the module; of stored tables those of single classes and groups are not there;
             attrs["note"] says where it was made
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
        return _noted(results.table, results.note)
    if str(where) in sweeps():
        about = about_sweep(str(where))
        return _noted(_read(REFERENCE / f"{where}.csv.xz"), f"reference, {about['processor']}, commit {about['commits'][0]}")
    raise FileNotFoundError(f"no folder, file or study {str(where)!r}; studies: {', '.join([*studies(), *sweeps()])}")


def _noted(table: pd.DataFrame, note: str) -> pd.DataFrame:
    table.attrs["note"] = note
    return table


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    if unknown := set(table.columns) - set(COLUMNS):
        raise ValueError(f"{path} is no table of results: unknown columns {', '.join(sorted(unknown))}")
    return table.reindex(columns=list(COLUMNS))


class _Reader(Store):
    """A store that computes nothing."""

    def _compute(self, stage: Stage) -> Any:
        raise ValueError(f"values of a {stage.kind.name} are missing or of another version")


def _finished(root: Path) -> Iterator[Outcome]:
    """What is kept of every finished experiment in a folder."""
    from .training import Numerics
    left: list[str] = []
    for file in sorted((root / "experiments").glob("*.json")):
        try:
            record = json.loads(file.read_bytes())
            precision, device, threads, *compiled = record["numerics"].split("-")
            numerics = Numerics.elsewhere(device, precision=precision, threads=int(threads), compile=bool(compiled))
            outcome = read_outcome(experiment_from(record["fields"]), numerics, record["scale"], root)
        except (ValueError, OSError, ImportError) as error:
            left.append(str(error))
        else:
            yield outcome
    if left:
        log.warning("%d finished experiments are left out, the first because: %s", len(left), left[0])


def read_outcome(e: Experiment, numerics: Any, scale: str, root: Path) -> Outcome:
    """What is kept of one finished experiment; ValueError if values are missing, damaged or of another version."""
    from .drawing import draw
    from .loop import open_store, outcome_of, turns
    real, store = draw(e), open_store(root, numerics, kind=_Reader)
    outcome = outcome_of(e, real, list(turns(e, real, store)), numerics, scale, store)
    store.close()
    return outcome


# ---- A sweep that ships as a table -------------------------------------------------------------------------------------

def sweeps(folder: Path | None = None) -> list[str]:
    """Names of the sweeps whose tables ship with the package."""
    return sorted(path.name.removesuffix(".sweep.json") for path in (folder or REFERENCE).glob("*.sweep.json"))


def about_sweep(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Command, hardware, time and versions of a sweep that ships with the package; FileNotFoundError lists the known ones."""
    if name not in (known := sweeps(folder)):
        raise FileNotFoundError(f"no sweep {name!r} ships with the package; known: {', '.join(known) or 'none'}")
    return json.loads(((folder or REFERENCE) / f"{name}.sweep.json").read_text())


def effects(name: str, folder: Path | None = None) -> pd.DataFrame:
    """Contrasts with intervals and verdicts of every variant of a sweep that ships with the package; see `contrast_table`."""
    about_sweep(name, folder)
    return pd.read_csv((folder or REFERENCE) / f"{name}.contrasts.csv", keep_default_na=False,
                       na_values={column: [""] for column in ("mean", "low", "high", "p")})


def save_sweep(results: Results, parts: Mapping[str, Results], folder: Path, name: str, command: str,
               measured: Mapping[str, Any]) -> None:
    """Store a sweep as tables: <name>.csv.xz (rows that are of no single class or group), <name>.contrasts.csv (contrasts of
    each variant), <name>.sweep.json (command, hardware, versions). Predictions are dropped: thousands of bytes each.

    parts     results of each variant, by its name
    measured  wall time, workers and the like, into the last file
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = results.table.query("label.isna() and group.isna()").drop(columns=["label", "group"])
    plain.to_csv(folder / f"{name}.csv.xz", index=False, float_format="%.5g", compression="xz")
    contrast_table(parts).to_csv(folder / f"{name}.contrasts.csv", index=False, float_format="%.5g")
    first = results.outcomes[0]
    about = {"sweep": name, "command": command, "experiments": len(results.outcomes), "variants": len(parts),
             "dropped": DROPPED,
             "process_seconds": round(seconds(results.outcomes)), "processor": first.cost["processor"],
             "versions": first.cost["versions"], "commits": sorted({c for o in results.outcomes for c in o.cost["commits"]}),
             "entries": dict(sorted({item for o in results.outcomes for item in o.made_with.items()})),
             "peak_memory_mb": max(o.cost["peak_memory_mb"] for o in results.outcomes), **measured}
    (folder / f"{name}.sweep.json").write_text(json.dumps(about, indent=1) + "\n")
