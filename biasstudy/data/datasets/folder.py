"""Photographs of your own: a folder, with a table or with folders that tell class and group."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.checks import listed
from ...core.counts import largest_remainder
from ...core.places import data_folder, in_home
from ...core.registry import DATASETS
from ...core.seeds import digest, seed_for
from ...experiment import AS_FOUND
from ..images import Dataset, LabeledImages, design_of
from ..metadata import Rows, examples, rows_of
from ..natural import no_contrast, only_group
from ..photographs import VERSION, checksums, pixels
from .examples import EXAMPLES, make

SIDES = (8, 512)  # of the squares that photographs are made into
TEST_SHARE = 0.25  # of each cell, where no split is given
INSTRUMENTS = 0.2  # of the training images, unless an option says how many
MOST_INSTRUMENTS = 10_000  # unless an option says so
OF_A_CELL = 3  # instruments leave two of so many images of a cell
NO_GROUP = "all"  # name of the group where none is told
VALIDATION = ("leave-out", "train", "instruments")


@DATASETS.register(
    "folder",
    version=1,
    by_content=True,
    lists=("group",),
    within={"size": SIDES, "n_instruments": (0, 10**7)},
    among={"damaged": ("stop", "skip"), "validation": VALIDATION},
)
def folder(
    *,
    root: str = "",
    metadata: str = "",
    image: str = "",
    label: str = "",
    group: str = "",
    split: str = "",
    size: int = 64,
    n_instruments: int = 0,
    validation: str = "leave-out",
    damaged: str = "stop",
) -> Dataset:
    """Photographs of your own in a folder, with a table or with folders that tell class and group.

    what      RGB, the middle square scaled to `size`; label and group: what the table says, as text
              or numbers. Crossed, nested or grouped: as it is found
    options   root           the folder; a relative path starts in the data folder.
                             digits-by-thickness is made when first asked for: 5,000 real digits,
                             grouped by how thick their strokes are; mnist-by-thickness likewise,
                             of all 70,000, once MNIST was fetched
              metadata       file of the table in it: .csv, .tsv, .jsonl or .parquet; default:
                             metadata.csv, .jsonl or .parquet; without one, folders
                             split/class[/group]/
              image          column of the files, relative to the folder. Three dialects need no
                             names of columns: SubpopBench (filename, y, a, split), WILDS
                             (img_filename, y, place, split), Hugging Face (file_name, label, group,
                             split)
              label          column of the class
              group          column of the group; of several, [sex, age], the combination
              split          column of the split: train, val, test, or 0, 1, 2; without one a
                             quarter of every class and group is the test set, in every run the same
              size           int 8..512: side in pixels; smaller photographs are enlarged, which is
                             said
              n_instruments  int: training images set aside for the measuring devices, equally many
                             of every class and group; 0: a fifth of all, at most a third of the
                             smallest class and group
              validation     what images of the split val are: leave-out (not used), train, or
                             instruments. Without a split test they are the test set
              damaged        stop, or skip: leave out images that are not there or cannot be read,
                             test images that are also training images, and classes with a group
                             that training or test lacks
    size      as it is found
    start     beside unbiased and biased: as-found, in the natural shares
    licence   yours to know
    get it    python -m biasstudy folder PATH says what a run would see
    flaws     yours to know; the same photograph in two files is seen only if the files are equal
    """
    columns = {"image": image, "label": label, "group": group, "split": split}
    found = _find(root, metadata, columns, size, damaged)
    return _dataset(found, n_instruments, validation)


def _find(root: str, metadata: str, columns: dict[str, str], size: int, damaged: str) -> "_Found":
    """The photographs of a folder; an example is made if it is not there."""
    if not root.strip():
        raise ValueError("folder: say where the images are: dataset_options: {root: PATH}")
    place = data_folder() / in_home(root, "give the option root in full")
    if root in EXAMPLES and not place.is_dir():
        make(root, place)
    return _Found(place, rows_of(place, metadata, columns), size, damaged == "skip")


class _Found:
    """Photographs that can be used, with their numbers of class and group.

    said   sentences about what was found and left out
    """

    def __init__(self, root: Path, rows: Rows, size: int, skip: bool) -> None:
        self.root, self.size, self.skip, self.said = root, size, skip, [f"{rows.says}."]
        self.file = np.array(rows.file, object)
        self.sums = np.array(checksums(root, rows.file), object)
        for what, words in (("class", rows.label), ("group", rows.group)):
            _check_spelling(what, words)
        self.label, self.classes = _numbered(rows.label)
        self.group, self.groups = _numbered(rows.group or (NO_GROUP,) * len(rows.file))
        self._check_names()
        self.split = np.array(rows.split or ("",) * len(rows.file), object)
        self.row = np.arange(len(self.file))  # of the photographs that are read
        self._leave_out(
            self.sums == "",
            "images of the table are not there",
            f"names are relative to {root}; leave them out with the option damaged: skip",
        )
        self._read()
        if not rows.split:
            self._draw_split()
        self._name_test()

    def _check_names(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(
                f"folder: a classifier needs two classes or more; all {len(self.file):,} images of "
                f"{self.root} are of class {self.classes[0]!r}"
            )
        if len(self.classes) > len(self.file) // 2:
            raise ValueError(
                f"folder: {len(self.classes):,} classes for {len(self.file):,} images: the column "
                "of the label names images rather than classes; say another with the option label"
            )
        if len(self.groups) > len(self.file) // 2:
            kind = "be continuous" if all(map(_is_number, self.groups)) else "name images"
            raise ValueError(
                f"folder: the column of the group has {len(self.groups):,} different values in "
                f"{len(self.file):,} rows, so it seems to {kind}; cut it into a few groups, or say "
                "another with the option group"
            )

    def keep(self, index: np.ndarray) -> None:
        """Go on with the photographs at these positions, or where this is true."""
        for name in ("file", "sums", "label", "group", "split", "row"):
            setattr(self, name, getattr(self, name)[index])

    def _leave_out(self, wrong: np.ndarray, what: str, advice: str, why: str = "") -> None:
        """ValueError about what is wrong, (N,) bool; with `damaged: skip` it is left out and
        said."""
        if not wrong.any():
            return
        told = examples(self.file[wrong].tolist(), len(wrong))
        if not self.skip:
            raise ValueError(f"folder: {what}: {told}{why}; {advice}")
        self.said.append(f"Left out: {what}: {told}{why}.")
        if wrong.all():
            raise ValueError(f"folder: {what}: {told}{why}; nothing is left")
        self.keep(~wrong)

    def _read(self) -> None:
        self.row = np.arange(len(self.file))
        read = pixels(self.root, self.file.tolist(), self.sums.tolist(), self.size)
        self.images, self.side, bad = read.images, read.side, read.bad
        wrong = np.isin(np.arange(len(self.file)), list(bad))
        why = f": {next(iter(bad.values()))}" if bad else ""
        self._leave_out(
            wrong,
            "images cannot be read",
            "replace them, or leave them out with the option damaged: skip",
            why,
        )

    def _draw_split(self) -> None:
        """A quarter of every class and group becomes the test set; equal files stay together."""
        _, content = np.unique(self.sums.astype(str), return_inverse=True)
        cell = self.label * len(self.groups) + self.group
        order = np.random.default_rng(seed_for("folder", "split")).permutation(content.max() + 1)
        self.split = np.full(len(self.file), "train", object)
        for c in np.unique(cell):
            members = np.flatnonzero(cell == c)
            members = members[np.argsort(order[content[members]], kind="stable")]
            n_test = int(largest_remainder(np.array([TEST_SHARE, 1 - TEST_SHARE]), len(members))[0])
            self.split[members[: max(n_test, min(1, len(members) - 1))]] = "test"
        # the last file of a cell's test part may have a copy behind it
        in_test = np.zeros(content.max() + 1, bool)
        in_test[content[self.split == "test"]] = True
        self.split[in_test[content]] = "test"
        self.said.append(
            f"No split is given: {np.mean(self.split == 'test'):.0%} of the images are the test "
            "set, a quarter of every class and group, in every run the same."
        )

    def _name_test(self) -> None:
        for part in ("train", "test"):
            if part == "test" and not (self.split == "test").any():
                self.split[self.split == "validation"] = "test"
                if (self.split == "test").any():
                    self.said.append("No image is of the split test; those of val are.")
            if not (self.split == part).any():
                have = Counter(self.split.tolist())
                raise ValueError(
                    f"folder: no image of {self.root} is of the split {part}; there: "
                    f"{listed(f'{name} {n:,}' for name, n in have.items())}"
                )

    def count(self, part: str) -> np.ndarray:
        """Images of each class and group in a split, (n_classes, n_groups)."""
        table = np.zeros((len(self.classes), len(self.groups)), np.int64)
        of_part = self.split == part
        np.add.at(table, (self.label[of_part], self.group[of_part]), 1)
        return table

    def check_copies(self) -> None:
        """Equal files in training (or instruments) and test."""
        of_train = set(self.sums[self.split != "test"])
        copied = (self.split == "test") & np.array([s in of_train for s in self.sums])
        self._leave_out(
            copied,
            "test images are also, byte for byte, images of another split",
            "remove them, or leave them out of the test set with the option damaged: skip",
        )
        often = [n for n in Counter(self.sums[self.split != "test"]).values() if n > 1]
        if often:
            self.said.append(
                f"{sum(often) - len(often):,} of {int((self.split != 'test').sum()):,} training "
                "images are copies of another, byte for byte; they stay."
            )

    def check_cells(self) -> None:
        """Cells that training or test lacks; classes and groups that nothing is left of."""
        train, test = self.count("train"), self.count("test")
        lacks = (train > 0) != (test > 0)
        where = np.argwhere(lacks)
        if len(where):
            cells = [
                f"{self.classes[k]}, {self.groups[g]}: {train[k, g]} train, {test[k, g]} test"
                for k, g in where
            ]
            what = (
                "classes with a group are in training or in the test set alone: "
                f"{examples(cells, int(((train > 0) | (test > 0)).sum()))}"
            )
            if not self.skip:
                raise ValueError(
                    f"folder: {what}; move images, or leave these cells out with the option "
                    "damaged: skip"
                )
            self.said.append(f"Left out: {what}.")
            self.keep(~lacks[self.label, self.group])
        self._renumber()

    def _renumber(self) -> None:
        """Classes and groups that have no image are none."""
        for numbers, names in (("label", "classes"), ("group", "groups")):
            there, new = np.unique(getattr(self, numbers), return_inverse=True)
            setattr(self, numbers, new)
            setattr(self, names, tuple(getattr(self, names)[i] for i in there))
        if len(self.classes) < 2:
            raise ValueError("folder: fewer than two classes are left")


def _dataset(found: _Found, n_instruments: int, validation: str) -> Dataset:
    if n_instruments and validation == "instruments":
        raise ValueError(
            f"folder: with validation: instruments all images of the split val are instruments; "
            f"leave out n_instruments {n_instruments:,}"
        )
    aside = found.split == "validation"
    if validation == "train":
        found.split[aside] = "train"
    elif validation == "leave-out" and aside.any():
        found.said.append(
            f"{int(aside.sum()):,} images of the split val are not used (option validation)."
        )
        found.keep(~aside)
    found.check_copies()
    found.check_cells()
    train, test = found.count("train"), found.count("test")
    design = _design(train > 0, found)
    if validation == "instruments":
        _check_validation(found, train)
    drawn = found.split != "test"
    parts = [
        LabeledImages(found.images[found.row[part]], found.label[part], found.group[part])
        for part in (drawn, ~drawn)
    ]
    set_aside = np.flatnonzero(found.split[drawn] == "validation")
    n_balanced, n_as_found = _n_instruments(train, n_instruments, len(set_aside))
    return Dataset(
        parts[0],
        parts[1],
        found.classes,
        found.groups,
        design,
        _checksum(found),
        n_balanced,
        set_aside=set_aside if len(set_aside) else None,
        n_as_found=n_as_found,
        caption=found.root.name,
        report=tuple(_report(found, design, train, test, len(set_aside))),
    )


def _numbered(words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """A number for each word, and the words in their order, numbers in them by their size."""
    # the word itself as well: 1 and 01 are two, always in one order
    names = tuple(sorted(set(words), key=lambda word: (_natural(word), word)))
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[word] for word in words], np.int64), names


def _check_spelling(what: str, words: Sequence[str]) -> None:
    """ValueError if two names differ in capitals, spaces or the make of their letters alone."""
    spellings: dict[str, Counter[str]] = {}
    for word, n in Counter(words).items():
        plain = " ".join(unicodedata.normalize("NFKC", word).casefold().split())
        spellings.setdefault(plain, Counter())[word] = n
    several = [counts for counts in spellings.values() if len(counts) > 1]
    if several:
        told = " and ".join(f"{word!r} ({n:,} images)" for word, n in several[0].items())
        more = f", and likewise {len(several) - 1} more" if len(several) > 1 else ""
        raise ValueError(
            f"folder: one {what} is written in several ways: {told}{more}; write it alike"
        )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _natural(word: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", word)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def _design(occurs: np.ndarray, found: _Found) -> str:
    design = design_of(occurs)
    if not design:
        raise ValueError(
            "folder: label and group say the same: every class has one group, and every group one "
            f"class (first {found.classes[0]!r} and {found.groups[int(occurs[0].argmax())]!r}); "
            "there is nothing to compare"
        )
    return design


def _check_validation(found: _Found, train: np.ndarray) -> None:
    """ValueError unless the split val can be the instruments."""
    n = found.count("validation")
    if (n[train == 0] > 0).any():
        raise ValueError(
            "folder: the split val has classes with a group that training lacks; use the option "
            "validation: leave-out"
        )
    short = [
        f"{found.classes[k]}, {found.groups[g]}: {n[k, g]}"
        for k, g in np.argwhere((train > 0) & (n < OF_A_CELL))
    ]
    if short:
        raise ValueError(
            f"folder: instruments need {OF_A_CELL} images of every class and group, and the split "
            f"val is short of them in {examples(short, int((train > 0).sum()))}; use the option "
            "validation: leave-out or train"
        )


def _n_instruments(train: np.ndarray, asked: int, n_validation: int) -> tuple[int, int]:
    """Images set aside for instruments: equally many of each cell, and beside a start as found."""
    if n_validation:
        return n_validation, n_validation
    usual = min(int(INSTRUMENTS * train.sum()), MOST_INSTRUMENTS)
    cells = train[train > 0]
    third = len(cells) * int(cells.min() // OF_A_CELL)
    if asked // len(cells) >= cells.min():
        raise ValueError(
            f"folder: n_instruments {asked:,} are {asked // len(cells):,} of each class and group, "
            f"and the smallest has {cells.min():,}; at most {len(cells) * (cells.min() - 1):,} fits"
        )
    return asked or max(len(cells), min(usual, third)), asked or usual


def _checksum(found: _Found) -> str:
    """Names all that a run can see: files, classes, groups, splits, side, in their order."""
    columns = [found.sums, found.label, found.group, found.split]
    names = [list(found.classes), list(found.groups)]
    return digest([VERSION, found.size, *names, *(column.tolist() for column in columns)], 40)


# ---- What is said --------------------------------------------------------------------------------


def _report(
    found: _Found, design: str, train: np.ndarray, test: np.ndarray, n_aside: int
) -> Iterator[str]:
    yield from found.said
    says = {
        "crossed": "Crossed: groups meet several classes",
        "nested": "Nested: a group belongs to one class, a class has several",
        "grouped": "Grouped: a class belongs to one group, so groups are not compared within it",
    }
    n_classes, n_groups = len(found.classes), len(found.groups)
    holes = int((train == 0).sum()) if design == "crossed" else 0
    yield (
        f"{says[design]}. {n_classes:,} classes, {n_groups:,} groups, {_side(found)}; "
        f"{train.sum():,} images to draw from and {test.sum():,} test images"
        + (f"; {n_aside:,} of the split val are the instruments" if n_aside else "")
        + (f"; {holes} of {train.size} classes with a group have no image" if holes else "")
        + "."
    )
    cells = np.argwhere(train > 0)
    order = cells[np.argsort(train[tuple(cells.T)], kind="stable")][:3]
    yield (
        "Fewest to draw from: "
        + "; ".join(
            f"{found.classes[k]}, {found.groups[g]}: {train[k, g]:,} (test {test[k, g]:,})"
            for k, g in order
        )
        + "."
    )


def _side(found: _Found) -> str:
    """ "64 x 64 pixels", and whether photographs were enlarged to that."""
    size, side = found.size, found.side[found.row]
    says, n = f"{size} x {size} pixels", int(np.count_nonzero(side < size))
    if n:
        says += f", enlarged from {side.min()} x {side.min()}"
        fitting = _fitting_size(found)
        says += (
            f": give size {fitting}"
            if fitting < size
            else f" and more: {n:,} of {len(side):,} images are smaller"
        )
    return says


def _fitting_size(found: _Found) -> int:
    """The side that all photographs have, where that is less than they were scaled to; else that
    which they were scaled to."""
    side = found.side[found.row]
    least, most = int(side.min()), int(side.max())
    return least if SIDES[0] <= least == most < found.size else found.size


def counts_table(dataset: Dataset) -> Any:
    """Images of every class and group that occurs, to draw from and in the test set, as a table."""
    import pandas as pd

    shape = dataset.n_classes, dataset.n_groups
    train, test = (part.counts(*shape) for part in (dataset.train, dataset.test))
    cells = np.argwhere(train > 0)
    index = pd.MultiIndex.from_tuples(
        [(dataset.classes[k], dataset.groups[g]) for k, g in cells], names=["class", "group"]
    )
    columns = {"to draw from": train, "test": test}
    return pd.DataFrame(
        {name: counts[tuple(cells.T)] for name, counts in columns.items()}, index=index
    )


def seen(root: Path, options: dict[str, Any]) -> list[str]:
    """Lines about what a run would see in a folder, and what it would be asked with.

    root     as typed: a relative path starts in the working directory; an example that is not
             there is made in the data folder
    raises   as `folder`
    """
    if "root" in options:
        raise ValueError(f"the folder is named once; got {root} and -p root {options['root']}")
    is_example = str(root) in EXAMPLES and not root.exists()
    given = {**options, "root": str(root if is_example else root.absolute())}
    asked = DATASETS["folder"].resolve(given)
    columns = {role: asked[role] for role in ("image", "label", "group", "split")}
    found = _find(asked["root"], asked["metadata"], columns, asked["size"], asked["damaged"])
    dataset = _dataset(found, asked["n_instruments"], asked["validation"])
    fitting = {"size": _fitting_size(found), **given}
    named = ", ".join(f"{name}: {value!r}" for name, value in fitting.items())
    table = counts_table(dataset).to_string(max_rows=200)
    lacking = no_contrast(dataset, {})
    what = "A run" if only_group(dataset) else f"A run with start: {AS_FOUND}"
    return [
        *dataset.report,
        *([f"{what} would be refused: {lacking}."] if lacking else []),
        "",
        *table.splitlines(),
        "",
        f"In a parameter file: dataset: folder, dataset_options: {{{named}}}",
    ]
