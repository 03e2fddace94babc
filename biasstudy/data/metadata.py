"""What a table, or the folders they lie in, say of photographs: file, label, group and split of
each, as text.

Three dialects of tables are known by their columns; any other needs its columns named. Not here:
pixels (`photographs.py`), what is made of the rows (`datasets/folder.py`).
"""

import csv
import io
import json
import posixpath
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.checks import listed, meant, shown
from ..core.places import read_text

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# how each split is written
SPLITS = {
    "train": ("train", "training", "tr", "0"),
    "validation": ("validation", "val", "valid", "dev", "1"),
    "test": ("test", "testing", "te", "2"),
}
_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}
# of folders: one that is called 0 may be a class
_SPLIT_FOLDERS = frozenset(word for word in _SPLIT_OF if not word.isdigit())
# columns of image, label, group and split in each dialect
DIALECTS = {
    "SubpopBench": ("filename", "y", "a", "split"),
    "WILDS": ("img_filename", "y", "place", "split"),
    "Hugging Face image folder": ("file_name", "label", "group", "split"),
}
EXAMPLES = 3  # that a sentence shows


@dataclass(frozen=True)
class Rows:
    """Photographs, in the order of their table; all columns have one length.

    file    relative to the folder, or in full
    label   text
    group   text; of several columns "a, b"; empty where nothing tells groups
    split   "train", "validation" or "test"; empty where nothing tells splits
    says    which dialect it is, in a sentence
    """

    file: tuple[str, ...]
    label: tuple[str, ...]
    group: tuple[str, ...]
    split: tuple[str, ...]
    says: str


def examples(items: Sequence[Any], of: int) -> str:
    """ "3 of 100 (first 'a', 'b')": how many there are of how many, and the first of them."""
    first = listed(shown(item) for item in items[:EXAMPLES])
    return f"{len(items):,} of {of:,} (first {first})"


def rows_of(root: Path, metadata: str, columns: dict[str, str]) -> Rows:
    """The photographs of a folder, by its table or, where there is none, by its folders.

    metadata  file name of the table; "": one of TABLES, if it is there
    columns   image, label, group and split: names of columns, several of group with commas
              between; "": as the dialect has it
    raises    FileNotFoundError, ValueError, ImportError   with one sentence
    """
    if root.is_file():
        advice = "unpack it, and name" if _is_packed(root) else "name"
        raise FileNotFoundError(
            f"folder: {root} is a file, not a folder; {advice} the folder with the images"
        )
    if not root.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {root}")
    if metadata:
        return _by_table({"": root / metadata}, columns)
    if table := _table_in(root):
        return _by_table({"": table}, columns)
    of_splits = {folder.name: found for folder in _folders(root) if (found := _table_in(folder))}
    if of_splits:
        return _by_table(of_splits, columns)
    return _by_folders(root, columns)


def _is_packed(path: Path) -> bool:
    """Whether a file is an archive of others."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path) or path.suffix in (".7z", ".rar")


def _table_in(folder: Path) -> Path | None:
    """The one of TABLES that lies in a folder; ValueError if there are several."""
    there = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(there) > 1:
        raise ValueError(
            f"folder: {folder} has {listed(path.name for path in there)}; keep one, or say which "
            f"with the option metadata: {there[0].name}"
        )
    return there[0] if there else None


# ---- Tables --------------------------------------------------------------------------------------


def _by_table(paths: dict[str, Path], columns: dict[str, str]) -> Rows:
    """Rows of a table, or of one in each folder of a split: folder -> table."""
    parts = {folder: read_table(path) for folder, path in paths.items()}
    path = next(iter(paths.values()))
    header = list(next(iter(parts.values())))
    for folder, table in parts.items():
        if sorted(table) != sorted(header):
            raise ValueError(
                f"folder: tables of one data set have the same columns; {path} has "
                f"{listed(header)}, and {paths[folder]} has {listed(table)}"
            )
    whole = {name: [value for table in parts.values() for value in table[name]] for name in header}
    n = len(whole[header[0]])
    if not n:
        raise ValueError(f"folder: {path} has no rows under its header {listed(header)}")
    dialect, image, label, groups, split = _columns(path, header, columns)
    prefix = [folder for folder, table in parts.items() for _ in table[image]]
    file = tuple(
        posixpath.normpath(posixpath.join(folder, name)) if name else ""
        for folder, name in zip(prefix, whole[image], strict=True)
    )
    for column in (image, label, *groups, *([split] if split else [])):
        empty = [i + 2 for i, value in enumerate(whole[column]) if not value]
        if empty:
            raise ValueError(
                f"folder: the column {column!r} of {path} is empty in rows {examples(empty, n)}, "
                "counted with the header"
            )
    often = [name for name, times in Counter(file).items() if times > 1]
    if often:
        raise ValueError(
            f"folder: the column {image!r} of {path} names files more than once: "
            f"{examples(often, len(set(file)))}"
        )
    if len(groups) > 1:
        joint = [i + 2 for i in range(n) if any(", " in whole[name][i] for name in groups)]
        if joint:
            raise ValueError(
                f"folder: values of several columns of group are joined by a comma, and one stands "
                f"in rows {examples(joint, n)} of {path}, counted with the header"
            )
    told_by = f"the column {split!r}"
    splits = tuple(whole[split]) if split else ()
    if not split and "" not in parts:
        splits, told_by = tuple(prefix), "the folders"
    elif not split and all(name.partition("/")[0].lower() in _SPLIT_FOLDERS for name in file):
        splits, told_by = tuple(name.partition("/")[0] for name in file), "the folders"
    says = (
        f"{path.name}, {dialect}: image {image!r}, label {label!r}, group "
        f"{listed(map(repr, groups))}, split "
        + (repr(split) if split else "by folders" if splits else "none")
    )
    return Rows(
        file,
        tuple(whole[label]),
        tuple(", ".join(values) for values in zip(*(whole[name] for name in groups), strict=True)),
        _splits(splits, told_by, str(path)),
        says,
    )


def _columns(
    path: Path, header: Sequence[str], asked: dict[str, str]
) -> tuple[str, str, str, list[str], str]:
    """The dialect, and the columns of image, label, groups and split ("": none)."""
    dialect, usual = next(
        ((name, known) for name, known in DIALECTS.items() if known[0] in header),
        ("a table of its own", ("", "", "", "split")),
    )
    of = dict(zip(("image", "label", "group", "split"), usual, strict=True))
    if asked["image"] and asked["image"] != of["image"]:
        dialect = "a table of its own"
    if not asked["image"] and not of["image"]:
        known = listed(columns[0] for columns in DIALECTS.values())
        raise ValueError(
            f"folder: no column of {path} names the images as a known dialect does ({known}); say "
            f"which, with the option image; its columns: {listed(header)}"
        )
    found: dict[str, list[str]] = {}
    for role, default in of.items():
        given = [name.strip() for name in asked[role].split(",")] if asked[role].strip() else []
        if role != "group" and len(given) > 1:
            raise ValueError(
                f"folder: {role} is one column; only group may be several; got {asked[role]!r}"
            )
        for name in given:
            if name not in header:
                raise ValueError(
                    f"folder: {path} has no column {name!r} for the option {role}"
                    f"{meant(name, header)}; its columns: {listed(header)}"
                )
        found[role] = given or ([default] if default in header else [])
        if not found[role] and role != "split":
            raise ValueError(
                f"folder: say which column of {path} is the {role}, with the option {role}; its "
                f"columns: {listed(header)}"
            )
    used = Counter(name for names in found.values() for name in names)
    twice = [name for name, times in used.items() if times > 1]
    if twice:
        roles = [role for role, names in found.items() if twice[0] in names]
        raise ValueError(
            f"folder: one column is one thing; {twice[0]!r} is named for {' and '.join(roles)}"
        )
    split = found["split"][0] if found["split"] else ""
    return dialect, found["image"][0], found["label"][0], found["group"], split


def read_table(path: Path) -> dict[str, list[str]]:
    """Columns of a table as text; whole numbers have no point, what is missing is empty.

    raises   FileNotFoundError, ValueError, ImportError   with one sentence
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in KINDS)
        raise FileNotFoundError(
            f"folder: there is no table {path}{meant(path.name, near)}; tables there: "
            f"{listed(near) or 'none'}"
        )
    if path.suffix not in KINDS:
        raise ValueError(f"folder: a table is {listed(KINDS)}; got {path.name}")
    header, records = {".jsonl": _of_jsonl, ".parquet": _of_parquet}.get(path.suffix, _of_csv)(path)
    names = [str(name).strip() for name in header]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice or "" in names:
        raise ValueError(
            f"folder: columns of {path} need names of their own; "
            + (f"{twice[0]!r} stands twice" if twice else f"one of {len(names)} has none")
        )
    columns = zip(*records, strict=True) if records else [()] * len(names)
    return {
        name: [_as_text(value) for value in column]
        for name, column in zip(names, columns, strict=True)
    }


def _of_csv(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    text = read_text(path)
    if not text.strip():
        raise ValueError(f"folder: {path} is empty")
    first = text.lstrip().split("\n", 1)[0]
    comma = max(",;\t", key=first.count)  # the first of them where there is none
    try:
        header, *records = (
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
            if row
        )
    except csv.Error as error:
        raise ValueError(f"folder: {path} is no table: {error}") from error
    wrong = [i + 2 for i, row in enumerate(records) if len(row) != len(header)]
    if wrong:
        raise ValueError(
            f"folder: {path} has {len(header)} columns, and other numbers of values in rows "
            f"{examples(wrong, len(records))}, counted with the header"
        )
    return header, list(records)


def _of_jsonl(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    records: list[dict[str, Any]] = []
    for i, line in enumerate(read_text(path).splitlines()):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"folder: line {i + 1} of {path} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"folder: line {i + 1} of {path} must be {{...}}; got {shown(record)}")
        records.append(record)
    if not records:
        raise ValueError(f"folder: {path} is empty")
    header = list(dict.fromkeys(name for record in records for name in record))
    return header, [[record.get(name) for name in header] for record in records]


def _of_parquet(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            f"folder: {path.name} needs the package pyarrow, which is not installed (pip install "
            "pyarrow); or write the table as metadata.csv"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"folder: {path} is no parquet file: {reason}") from error
    return list(table.columns), table.astype(object).where(table.notna(), None).values.tolist()


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = str(value).strip()
    return re.sub(r"\.0+$", "", text) if re.fullmatch(r"[-+]?\d+\.0+", text) else text


def _splits(words: Iterable[str], told_by: str, where: str) -> tuple[str, ...]:
    words = list(words)
    strange = [word for word in dict.fromkeys(words) if word.lower() not in _SPLIT_OF]
    if strange:
        n = sum(word in set(strange) for word in words)
        known = "; ".join(f"{split}: {listed(forms)}" for split, forms in SPLITS.items())
        raise ValueError(
            f"folder: {told_by} of {where} is no split for {n:,} of {len(words):,} images (first "
            f"{listed(map(shown, strange[:EXAMPLES]))}); known: {known}"
        )
    return tuple(_SPLIT_OF[word.lower()] for word in words)


# ---- Folders -------------------------------------------------------------------------------------


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _by_folders(root: Path, columns: dict[str, str]) -> Rows:
    """Rows of images in split/class[/group], or class[/group] without splits."""
    named = [name for name, column in columns.items() if column]
    tables = sorted(p.name for p in root.glob("*") if p.suffix in KINDS)
    every = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
    images = [p.relative_to(root) for p in every if p.suffix.lower() in ENDINGS]
    if not images and not tables:
        seen = (
            f"none of its {len(every):,} files ends in {listed(ENDINGS)}"
            if every
            else "it is empty"
        )
        raise FileNotFoundError(f"folder: there are no images in {root}: {seen}")
    if named or tables:
        advice = f"name one with the option metadata: {tables[0]}" if tables else "there is none"
        raise FileNotFoundError(
            f"folder: {root} has no {listed(TABLES)}; "
            + (f"the options {listed(named)} name columns of a table; " if named else "")
            + advice
        )
    places = [path.parts[:-1] for path in images]
    loose = [str(path) for path, place in zip(images, places, strict=True) if not place]
    if loose:
        raise ValueError(
            "folder: without a table an image lies in split/class/ or split/class/group/; in "
            f"{root} itself lie {examples(loose, len(images))}"
        )
    first = {place[0] for place in places}
    words = sorted(word for word in first if word.lower() in _SPLIT_FOLDERS)
    if words and len(words) < len(first):
        raise ValueError(
            f"folder: either all folders of {root} are splits, or none; splits are "
            f"{listed(words)}, and not {listed(sorted(first - set(words))[:EXAMPLES])}"
        )
    below = [place[1:] if words else place for place in places]
    depths = Counter(map(len, below))
    if len(depths) > 1 or not set(depths) <= {1, 2}:
        usual = max((1, 2), key=lambda depth: depths[depth])
        odd = [str(p) for p, place in zip(images, below, strict=True) if len(place) != usual]
        raise ValueError(
            f"folder: all images lie in {'split/' if words else ''}class/ or all in "
            f"{'split/' if words else ''}class/group/; otherwise {examples(odd, len(images))}"
        )
    nested = 2 in depths
    others = len(every) - len(images)
    layout = f"{'split/' if words else ''}class{'/group' if nested else ''}/"
    says = f"no table: folders {layout}" + (f"; {others:,} other files left" if others else "")
    return Rows(
        tuple(path.as_posix() for path in images),
        tuple(place[0] for place in below),
        tuple(place[1] for place in below) if nested else (),
        _splits((place[0] for place in places) if words else (), "a folder", str(root)),
        says,
    )
