"""The command `score`: tables of predictions of any loop are read, the answer is printed, figures
and a page are written."""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.checks import check_name, listed
from ..core.places import check_folder, write_text
from ..experiment import ALL_ARMS
from ..inference.contrasts import CONTRASTS, all_contrasts, combined, decompose
from ..inference.excess import all_excesses
from ..inference.scales import growth, logit_contrast, relative_contrast
from ..inference.verdicts import line_of, sentences
from ..loop.results import Results
from ..report.predictions import columns_read, score_parts
from .plan import check_detect, power_lines

# not text, no such column; not packed as its ending says, or cut off
_NO_TABLE = (ValueError, OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
ENDINGS = (".csv", ".csv.gz", ".csv.xz", ".csv.bz2", ".csv.zip", ".parquet")


@dataclass(frozen=True)
class Scored:
    """What the command is told.

    files      of predictions, one table together
    columns    name here -> name in the files
    arms       arm -> how the files call it
    favoured   groups that the start favours, "red" or "0=red,1=green"; None: a column says, or
               nobody
    out        folder of figures and page; None: neither is made
    name       of the data in figures and sentences; "": that of the first file
    detect     how far above the margin a change is that a later study should find; None: not asked
    """

    files: Sequence[Path]
    columns: Mapping[str, str] = field(default_factory=dict)
    arms: Mapping[str, str] = field(default_factory=dict)
    favoured: str | None = None
    out: Path | None = None
    name: str = ""
    detect: float | None = None


def run_score(asked: Scored) -> Iterator[str]:
    """What the command prints: the answer, the contrasts, what was found in the table, where the
    rest was written.

    raises   ValueError, OSError, ImportError   with one sentence
    """
    name = check_name("--name", asked.name or re.sub(r"[^A-Za-z0-9_]", "_", _stem(asked.files[0])))
    if asked.out:
        check_folder(asked.out)
    if asked.detect is not None:
        check_detect(asked.detect)
    frame = read_files(asked.files, asked.columns)
    parts = score_parts(
        frame, columns=asked.columns, arms=asked.arms, favoured=asked.favoured, name=name
    )
    yield from sentences(parts)
    table = contrast_table(parts)
    if len(table):
        yield ""
        yield _text(table)
        yield ""
    found: dict[str, list[str]] = {}
    for variant, results in parts.items():
        found.setdefault(_found(results), []).append(variant)
    yield f"{len(frame):,} rows"
    for text, variants in found.items():
        yield line_of(listed(variants) if len(found) > 1 else "", text)
    if asked.out:
        from ..report.page import write_scored

        written = _write(parts, table, name, asked.out)
        page = write_scored(asked.out, name, table)
        yield f"written: {page}, {len(written)} figures in {asked.out / 'figures'}"
    if asked.detect is not None:
        yield ""
        yield from power_lines(parts, asked.detect)


# ---- Reading -------------------------------------------------------------------------------------


def read_files(files: Sequence[Path], columns: Mapping[str, str]) -> pd.DataFrame:
    """The columns of predictions of all files, one below the other.

    raises   ValueError    if one is no table, or lacks a column
             ImportError   if Parquet cannot be read here
             OSError       if one is not there
    """
    tables = []
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        if not path.name.endswith(ENDINGS):
            raise ValueError(f"{path} is no table: files end in {', '.join(ENDINGS)}")
        try:
            tables.append(_read(path, columns))
        except _NO_TABLE as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def _read(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    if path.suffix == ".parquet":
        try:
            there = pd.read_parquet(path)
        except ImportError as error:
            raise ImportError(
                "reading Parquet needs pyarrow: pip install pyarrow, or write CSV"
            ) from error
        return there[list(columns_read(list(map(str, there.columns)), columns).values())]
    # as they are written: pandas gives the second of two equal names another
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    wanted = columns_read(list(header), columns).values()
    # a group may be called none or NA: only what is empty is missing
    return pd.read_csv(
        path, usecols=list(wanted), keep_default_na=False, na_values=[""], low_memory=False
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


# ---- What is printed -----------------------------------------------------------------------------


def contrast_table(parts: Mapping[str, Results]) -> pd.DataFrame:
    """Every number about the change, with its 95 % interval.

    parts    results of each setting, by its name
    returns  variant, number (M(none), A, S, R, F; what R is made of; E: excess over a path;
             growth; A on other scales), of, mean, low, high, p (two-sided, uncorrected; nan
             where there is none), n; no rows of a setting that has no contrast
    """
    rows: list[tuple[Any, ...]] = []
    for variant, results in parts.items():
        contrasts = all_contrasts(results)
        if np.isnan(contrasts["A"].mean):
            continue
        arms = {arm: results.of(arm) for arm in CONTRASTS["A"]}
        told = [("M(none)", "contrast without generated images", combined(arms, {"none": 1}))]
        told += [
            (name, " - ".join(CONTRASTS[name]), estimate) for name, estimate in contrasts.items()
        ]
        told += [
            ("part of R", part, estimate)
            for part, estimate in decompose(results).items()
            if part != "total"
        ]
        excesses = all_excesses(results) if contrasts["A"].n > 1 else {}
        told += [
            ("E", f"over {path} at equal accuracy", over.estimate)
            for path, over in excesses.items()
            if over.reached
        ]
        told += [
            ("A, logit", "on the logit scale", logit_contrast(results, "A")),
            ("A / accuracy", "contrasts over accuracies", relative_contrast(results, "A")),
        ]
        rows += [(variant, name, of, e.mean, e.low, e.high, e.p, e.n) for name, of, e in told]
        n = contrasts["A"].n
        rows.append((variant, "growth", "A / M(none)", *growth(results), float("nan"), n))
    columns = ["variant", "number", "of", "mean", "low", "high", "p", "n"]
    return pd.DataFrame(rows, columns=columns)


def _text(table: pd.DataFrame) -> str:
    """The table as it is printed."""
    shown = table.drop(columns=[] if table.variant.any() else ["variant"])
    signed = {name: "{:+.3f}".format for name in ("mean", "low", "high")}
    return shown.to_string(index=False, formatters={**signed, "p": "{:.2g}".format}, na_rep="")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _found(results: Results) -> str:
    """What is in the table, for a sentence."""
    o = results.of("generated")[0]
    e, arms = o.experiment, {x.experiment.arm for x in results.outcomes}
    images = f"{len(o.label):,} test images"
    if o.paired:
        images += f" of {e.n_test:,} photographs, each in every group"
    empty = np.argwhere(~o.occurs)
    holes = ""
    if o.design == "crossed" and len(empty):
        label, group = empty[0]
        holes = (
            f", but {_count(len(empty), 'cell')} without a test image, the first class "
            f"{o.classes[label]} in group {o.groups[group]}"
        )
    favoured = "groups are favoured" if o.biased else "no group is named as favoured"
    return "; ".join(
        [
            f"arms {', '.join(arm for arm in ALL_ARMS if arm in arms)}",
            _count(len(results.of("generated")), "seed"),
            f"generations 0 to {e.n_generations}",
            *([f"{e.n_classifiers} classifiers each"] if e.n_classifiers > 1 else []),
            images,
            f"{len(o.classes)} classes and {len(o.groups)} groups, {o.design}{holes}",
            favoured,
        ]
    )


# ---- What is written -----------------------------------------------------------------------------


def _write(parts: Mapping[str, Results], table: pd.DataFrame, name: str, out: Path) -> list[str]:
    """Figures with their tables, the answer with its numbers, the table of contrasts.

    returns  names of the figures
    """
    from ..inference.secondary import secondary_of_settings
    from ..report import figures
    from ..report.answers import write_answers

    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{name}-[1-9]-*"):  # of a table that had this name before
        path.unlink()
    write_answers(parts, name, folder)
    write_text(folder / f"{name}-contrasts.csv", table.to_csv(index=False))
    first = next(iter(parts.values()))
    drawn: dict[str, Any] = {}
    if len(parts) > 1:
        others = secondary_of_settings(parts)
        write_text(folder / f"{name}-secondary.csv", others.to_csv(index=False))
        drawn["1-grid"] = *figures.grid(parts), "The contrast over generations, in every setting."
    else:
        drawn["1-curves"] = *figures.curves(first), "Accuracy and gaps over generations, by arm."
    if len(table):
        drawn["2-plane"] = *figures.plane(parts), "The way of each arm: accuracy against contrast."
        drawn["3-forest"] = *figures.forest(parts), "What generated images change, with intervals."
    if len(parts) == 1:
        drawn["4-cells"] = *figures.cell_accuracy(first), "Accuracy of every cell, and its change."
        drawn["5-secondary"] = *figures.secondary(first), "Other metrics, beside their floors."
        if first.outcomes[0].confidence is not None:
            drawn["6-calibration"] = *figures.calibration(first), "Calibration error of each group."
    for key, (figure, values, claim) in drawn.items():
        figures.save(figure, values, claim, f"{name}-{key}", first, folder)
    return list(drawn)
