"""Predictions of a loop elsewhere: a table of them becomes outcomes, and with these everything that
own results get.

    generation, arm, seed, image    what was predicted when: of a path arm, generation is the level
    label, group, predicted         true class, subgroup and predicted class of the test image
    replicate                       which of the classifiers of a generation; default: there is one
    unit                            photograph, where test images are made of the same one
    confidence                      probability given to the predicted class, in [0, 1]
    favoured                        whether the image is in a cell that the start favours: 1 or 0
    bias                            strength of such a start in [0, 1], where it is known
    variant                         what is compared, where there are several settings
    label_name, group_name          how labels and groups are called, where they are numbers

The first two rows are needed; the rest need not be there. Other columns are not read.

Nothing is filled in. All runs (an arm, a seed, a generation, a classifier) show the same images
with the same labels and groups, and the arms of a seed share generation 0. What differs or is
missing is told in one sentence, with the first example and how many there are.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..core.checks import listed, shown, unknown
from ..core.seeds import digest
from ..data.images import design_of
from ..experiment import ALL_ARMS, PATHS, Experiment
from ..inference.contrasts import CONTRASTS
from ..loop.results import Outcome, Results

NEEDED = ("generation", "arm", "seed", "image", "label", "group", "predicted")
OPTIONAL = (
    "replicate",
    "unit",
    "confidence",
    "favoured",
    "bias",
    "variant",
    "label_name",
    "group_name",
)
RUN = ("arm", "seed", "generation", "replicate")  # what tells runs of one setting apart
SHOWN = 3  # examples in a sentence
NOTE = "made elsewhere"
_UNKNOWN = "unknown"


# ---- An experiment of which little is known ------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Elsewhere(Experiment):
    """An experiment of a loop elsewhere: of its fields those are known that its table tells.

    own_arm   its arm
    variant   name of its setting
    table     hash of all predictions of the setting
    """

    own_arm: str = "generated"
    variant: str = ""
    table: str = ""

    def __post_init__(self) -> None:
        """Nothing of it is run here, so no name has to be known."""

    def __eq__(self, other: object) -> bool:
        """By name: numbers that are unknown are nan, which equals nothing."""
        return isinstance(other, Elsewhere) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def arm(self) -> str:
        return self.own_arm

    def to_arm(self, arm: str, path_points: int = 0) -> "Elsewhere":
        points = path_points if arm in PATHS else self.n_generations
        return dataclasses.replace(self, own_arm=arm, n_generations=points)

    def known(self) -> dict[str, Any]:
        """The fields that are known; its arm is no setting."""
        names = ("dataset", "start", "bias", "n_test", "n_classifiers", "n_generations", "seed")
        known = {name: getattr(self, name) for name in (*names, "variant", "table")}
        return {name: value for name, value in known.items() if value == value}  # not nan

    def resolved(self, role: str) -> dict[str, Any]:
        return {}

    @property
    def prior(self) -> str:
        return _UNKNOWN

    @property
    def is_remedy(self) -> bool:
        return False

    @property
    def has_feedback(self) -> bool:
        return False

    @functools.cached_property
    def id(self) -> str:
        return digest([self.table, self.variant, self.seed, self.own_arm], 12)

    @functools.cached_property
    def pair(self) -> str:
        return digest([self.table, self.variant, self.seed], 12)


def _unknown_fields() -> dict[str, Any]:
    """What stands for every field of Experiment of which nothing is known."""
    return {
        f.name: _UNKNOWN if f.type is str else {} if f.type is dict else math.nan
        for f in dataclasses.fields(Experiment)
    }


# ---- From a table to results ---------------------------------------------------------------------


def score(
    frame: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    arms: Mapping[str, str] | None = None,
    favoured: str | Mapping[Any, Any] | None = None,
    name: str = "predictions",
    scale: str = "custom",
) -> Results:
    """Results from predictions of any loop: contrasts, verdicts, figures take them as their own.

    frame     one prediction a row, in any order; columns as in the module, labels and groups as
              text or numbers
    columns   name here -> name in the frame, where they differ: {"arm": "method"}
    arms      arm -> how the frame calls it, where they differ: {"none": "baseline"}
    favoured  groups that the start favours: {class: group, or a list of groups}, or "red,blue" for
              all classes in which they are, or "0=red,1=green"; default: the column favoured, else
              nobody, and groups are ranked by generation 0 of the other seeds
    name      what figures and sentences call the data
    scale     the word that figures carry: smoke for what is only tried out
    returns   Results      of all variants; of one each: `score_parts`
    raises    ValueError   with one sentence: the first thing that is missing, differs or cannot be
    """
    parts = score_parts(
        frame, columns=columns, arms=arms, favoured=favoured, name=name, scale=scale
    )
    return Results([o for part in parts.values() for o in part.outcomes], note=NOTE)


def score_parts(
    frame: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    arms: Mapping[str, str] | None = None,
    favoured: str | Mapping[Any, Any] | None = None,
    name: str = "predictions",
    scale: str = "custom",
) -> dict[str, Results]:
    """Results of each variant, by its name ("" where the table has no column variant); arguments
    and errors as of `score`."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"predictions are a table (pandas DataFrame); got {type(frame).__name__}")
    here = columns_read(list(map(str, frame.columns)), columns or {})
    table = frame.set_axis(list(map(str, frame.columns)), axis=1)[list(here.values())]
    table = table.set_axis(list(here), axis=1).reset_index(drop=True)
    _check_whole(table)
    arm = _arms_of(table.pop("arm"), arms or {})
    if "variant" not in table:
        return {"": _scored(table, arm, "", favoured, name, scale)}
    variant = _coded(table.pop("variant"))
    parts = {}
    for i, named in enumerate(variant.names):
        rows = variant.codes == i
        try:
            parts[named] = _scored(table[rows], arm.only(rows), named, favoured, name, scale)
        except ValueError as error:
            raise ValueError(f"variant {named}: {error}") from error
    return parts


def columns_read(there: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that are read: name here -> name in the table.

    there    columns of the table
    columns  as of `score`
    raises   ValueError   if a needed one is missing, or it is not clear which one is meant
    """
    if twice := sorted({name for name in there if there.count(name) > 1}):
        raise ValueError(f"the table has more than one column {listed(twice)}")
    for name, theirs in columns.items():
        if name not in NEEDED + OPTIONAL:
            raise ValueError(unknown("column", name, NEEDED + OPTIONAL))
        if theirs not in there:
            raise ValueError(unknown("column", theirs, there, f"for {name}"))
    named = {name: columns.get(name, name) for name in NEEDED + OPTIONAL}
    if missing := [name for name in NEEDED if named[name] not in there]:
        raise ValueError(
            f"the table has no column {listed(missing)}; it has {listed(there) or 'none'}; say "
            f"which it is: --column {missing[0]}=NAME"
        )
    here = {name: theirs for name, theirs in named.items() if theirs in there}
    read = list(here.values())
    if twice := [theirs for theirs in read if read.count(theirs) > 1]:
        both = listed(name for name, theirs in here.items() if theirs == twice[0])
        raise ValueError(f"the column {twice[0]} cannot be both {both}; say which: --column")
    return here


def _check_whole(table: pd.DataFrame) -> None:
    """ValueError if there are no rows, or a value is missing."""
    if table.empty:
        raise ValueError("the table has no rows")
    for name in table:
        if n := int(table[name].isna().sum()):
            raise ValueError(
                f"{name} is missing in {n:,} of {len(table):,} rows, the first is row "
                f"{int(table[name].isna().argmax()) + 1:,}"
            )


# ---- Names and numbers ---------------------------------------------------------------------------


class _Coded(NamedTuple):
    """Names as positions: names[codes] are the values."""

    codes: np.ndarray
    names: list[str]

    def only(self, rows: np.ndarray) -> "_Coded":
        """Of some rows."""
        return _Coded(self.codes[rows], self.names)


def _coded(values: pd.Series) -> _Coded:
    """Values as positions among their names: numbers by size, other names by letters."""
    codes, distinct = pd.factorize(values)
    named = [_name(value) for value in distinct]
    names = _in_order(set(named))
    position = {name: i for i, name in enumerate(names)}
    return _Coded(np.array([position[name] for name in named], np.int64)[codes], names)


def _name(value: Any) -> str:
    """A label, group or image as a name: 1, 1.0 and "1" are one."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _in_order(names: Iterable[str]) -> list[str]:
    """By size if all are numbers, else by letters."""
    by_letters = sorted(names)
    numbers = pd.to_numeric(pd.Series(by_letters, dtype=object), errors="coerce")
    if numbers.isna().any():
        return by_letters
    return [by_letters[i] for i in np.argsort(numbers.to_numpy(float), kind="stable")]


def _whole(values: pd.Series, name: str) -> np.ndarray:
    """Whole numbers, 0 or more."""
    numbers = _numbers(values)
    fine = (numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2.0**53)
    _check_values(values, fine, f"{name} must be a whole number, 0 or more")
    return numbers.astype(np.int64)


def _within(values: pd.Series, name: str) -> np.ndarray:
    """Numbers in [0, 1]."""
    numbers = _numbers(values)
    _check_values(values, (numbers >= 0) & (numbers <= 1), f"{name} must be a number in [0, 1]")
    return numbers


def _numbers(values: pd.Series) -> np.ndarray:
    """As numbers, nan where they are none."""
    return pd.to_numeric(values, errors="coerce").to_numpy(float, na_value=np.nan)


def _check_values(values: pd.Series, fine: np.ndarray, must: str) -> None:
    """ValueError with the first value that is not fine."""
    if not fine.all():
        first = values.iloc[int(fine.argmin())]
        seen = shown(first.item() if isinstance(first, np.generic) else first)
        raise ValueError(f"{must}; got {seen} in {(~fine).sum():,} of {len(values):,} rows")


def _arms_of(values: pd.Series, arms: Mapping[str, str]) -> _Coded:
    """The arm of every row, a position in ALL_ARMS."""
    theirs = _coded(values)
    called: dict[str, str] = {}
    for arm, name in arms.items():
        if arm not in ALL_ARMS:
            raise ValueError(unknown("arm", arm, ALL_ARMS))
        if str(name) not in theirs.names:
            raise ValueError(unknown("arm", name, theirs.names, f"in the table for {arm}"))
        if str(name) in called:
            raise ValueError(f"the arm {name} of the table is both {called[str(name)]} and {arm}")
        called[str(name)] = arm
    present = [theirs.names[i] for i in np.unique(theirs.codes)]
    ours = {name: called.get(name, name) for name in present}
    for name, arm in ours.items():
        if arm not in ALL_ARMS:
            raise ValueError(
                f"{unknown('arm', name, ALL_ARMS)}; say which it is: --arm none={name}"
            )
    if len(set(ours.values())) < len(ours):
        twice = next(arm for arm in ours.values() if list(ours.values()).count(arm) > 1)
        both = listed(name for name, arm in ours.items() if arm == twice)
        raise ValueError(f"the arms {both} of the table are both {twice}")
    position = np.array([ALL_ARMS.index(ours.get(name, "none")) for name in theirs.names])
    return _Coded(position[theirs.codes], list(ALL_ARMS))


# ---- One setting ---------------------------------------------------------------------------------


class _Runs(NamedTuple):
    """Predictions of one setting in order: a line for each run, a column for each test image.

    of          arm (position in ALL_ARMS), seed, generation, replicate of each run, (n_runs,) each
    images      names of the images
    table       column -> (n_runs, n_images)
    """

    of: dict[str, np.ndarray]
    images: list[str]
    table: dict[str, np.ndarray]

    def words(self, run: int) -> str:
        """A run in a sentence."""
        seed, t = self.of["seed"][run], self.of["generation"][run]
        return f"arm {ALL_ARMS[self.of['arm'][run]]}, seed {seed}, generation {t}"


def _scored(
    table: pd.DataFrame, arm: _Coded, variant: str, favoured: Any, name: str, scale: str
) -> Results:
    """Results of one setting."""
    for needed in CONTRASTS["A"]:
        if ALL_ARMS.index(needed) not in arm.codes:
            present = listed(ALL_ARMS[i] for i in np.unique(arm.codes))
            raise ValueError(f"arm {needed} is missing: A needs it; the table has {present}")
    classes = _classes(table)
    group, image = _coded(table["group"]), _coded(table["image"])
    unit = _coded(table["unit"]) if "unit" in table else image
    columns = {
        "label": classes["label"],
        "predicted": classes["predicted"],
        "group": group.codes,
        "unit": unit.codes,
    }
    for number in ("confidence", "bias"):
        if number in table:
            columns[number] = _within(table[number], number)
    called: dict[str, list[str]] = {}
    for what in ("label_name", "group_name"):
        if what in table:
            columns[what], called[what] = _coded(table[what])
    if "favoured" in table and favoured is None:
        columns["favoured"] = _flags(table["favoured"])
    replicate = _whole(table["replicate"], "replicate") if "replicate" in table else 0 * arm.codes
    runs = _in_runs(
        {
            "arm": arm.codes,
            "seed": _whole(table["seed"], "seed"),
            "generation": _whole(table["generation"], "generation"),
            "replicate": replicate,
        },
        image,
        columns,
        "replicate" in table,
    )
    fixed = {"label": classes["names"], "group": group.names, "unit": unit.names, **called}
    of_image = {what: _of_images(runs, what, names) for what, names in fixed.items()}
    for what in ("label", "group"):
        if f"{what}_name" in called:
            fixed[what] = _called(of_image, what, fixed)
    _check_generations(runs)
    _check_shared(runs, fixed["label"])
    return _results(runs, of_image, fixed, variant, favoured, name, scale)


def _classes(table: pd.DataFrame) -> dict[str, Any]:
    """Label and predicted class of every row, and the names of the classes."""
    label, predicted = _coded(table["label"]), _coded(table["predicted"])
    if not set(label.names) & set(predicted.names):
        raise ValueError(
            "no prediction is one of the labels: label is "
            f"{listed(label.names[:SHOWN])}, predicted {listed(predicted.names[:SHOWN])}"
        )
    names = _in_order({*label.names, *predicted.names})
    position = {name: i for i, name in enumerate(names)}
    return {
        "names": names,
        **{
            what: np.array([position[name] for name in coded.names])[coded.codes]
            for what, coded in (("label", label), ("predicted", predicted))
        },
    }


def _flags(values: pd.Series) -> np.ndarray:
    """Whether an image is favoured, 1 or 0."""
    words = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}
    coded = _coded(values)
    known = [words.get(name.lower(), -1) for name in coded.names]
    if -1 in known:
        raise ValueError(
            f"favoured must be 1 or 0, true or false; got {shown(coded.names[known.index(-1)])}"
        )
    return np.array(known)[coded.codes]


def _in_runs(
    of: dict[str, np.ndarray], image: _Coded, columns: dict[str, np.ndarray], told_apart: bool
) -> _Runs:
    """All runs in order; ValueError if an image stands twice in one, or is missing in one.

    told_apart   whether the table has a column replicate
    """
    run = np.zeros(len(image.codes), np.int64)
    for what in RUN:
        distinct, position = np.unique(of[what], return_inverse=True)
        _, run = np.unique(run * len(distinct) + position, return_inverse=True)
    n_runs, n_images = int(run.max()) + 1, len(image.names)
    order = np.lexsort((image.codes, run))
    run, at = run[order], image.codes[order]
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    runs = _Runs({what: of[what][order][starts] for what in RUN}, image.names, {})
    again = np.flatnonzero((np.diff(run) == 0) & (np.diff(at) == 0))
    if len(again):
        more = "" if told_apart else "; are they several classifiers? say which: column replicate"
        raise ValueError(
            f"image {image.names[at[again[0]]]} stands more than once in "
            f"{runs.words(run[again[0]])}; {len(again):,} rows are too many{more}"
        )
    if len(run) < n_runs * n_images:
        sizes = np.bincount(run, minlength=n_runs)
        few = int(np.argmax(sizes < n_images))
        lacking = np.setdiff1d(np.arange(n_images), at[run == few])
        examples = listed(image.names[i] for i in lacking[:SHOWN])
        raise ValueError(
            f"{runs.words(few)} lacks {len(lacking):,} of {n_images:,} images, the first {examples}"
            f"; {np.sum(sizes < n_images):,} of {n_runs:,} runs lack some"
        )
    return runs._replace(
        table={what: values[order].reshape(n_runs, n_images) for what, values in columns.items()}
    )


def _of_images(runs: _Runs, what: str, names: Sequence[str]) -> np.ndarray:
    """What must be the same of a test image in all runs, (n_images,)."""
    values = runs.table[what]
    differs = values != values[0]
    if differs.any():
        wrong = np.flatnonzero(differs.any(0))
        run, i = int(differs[:, wrong[0]].argmax()), wrong[0]
        raise ValueError(
            f"image {runs.images[i]} has {what} {names[values[0, i]]} in {runs.words(0)} and "
            f"{names[values[run, i]]} in {runs.words(run)}; {len(wrong):,} of "
            f"{len(runs.images):,} images differ"
        )
    return values[0]


def _called(
    of_image: Mapping[str, np.ndarray], what: str, names: Mapping[str, list[str]]
) -> list[str]:
    """The names of all labels or groups; one that no image has keeps its number."""
    told = list(names[what])
    pairs = np.unique(np.stack([of_image[what], of_image[f"{what}_name"]]), axis=1).T
    for number, name in pairs:
        told[number] = names[f"{what}_name"][name]
    for position, of in ((0, names[what]), (1, names[f"{what}_name"])):
        distinct, times = np.unique(pairs[:, position], return_counts=True)
        if (times > 1).any():
            twice = int(distinct[times > 1][0])
            other = listed(
                (names[f"{what}_name"], names[what])[position][pair[1 - position]]
                for pair in pairs
                if pair[position] == twice
            )
            raise ValueError(f"{what} and {what}_name disagree: {of[twice]} goes with {other}")
    return told


def _check_generations(runs: _Runs) -> None:
    """ValueError unless arms have the same seeds, generations and classifiers; of a path, its
    levels may be others."""
    arm, seed, t = runs.of["arm"], runs.of["seed"], runs.of["generation"]
    seeds = np.unique(seed)
    replicates = np.unique(runs.of["replicate"])
    generated = ALL_ARMS.index("generated")
    for a in np.unique(arm):
        lacking = np.setdiff1d(seeds, seed[arm == a])
        if len(lacking):
            raise ValueError(
                f"arm {ALL_ARMS[a]} lacks seed {listed(lacking[:SHOWN])}; {len(lacking)} of "
                f"{len(seeds)} seeds; arms are paired by seed"
            )
        like = a if ALL_ARMS[a] in PATHS else generated
        wanted = np.arange(min(t[arm == like].max(), len(t)) + 1)
        for s in seeds:
            here = (arm == a) & (seed == s)
            for what, all_of_them in (("generation", wanted), ("replicate", replicates)):
                missing = np.setdiff1d(all_of_them, runs.of[what][here])
                extra = np.setdiff1d(runs.of[what][here], all_of_them)
                if len(missing):
                    raise ValueError(
                        f"arm {ALL_ARMS[a]}, seed {s} lacks {what} {listed(missing[:SHOWN])}; "
                        f"{what}s are counted from {all_of_them[0]} to {all_of_them[-1]}"
                    )
                if len(extra):
                    raise ValueError(
                        f"arm {ALL_ARMS[a]}, seed {s} has {what} {listed(extra[:SHOWN])}, which "
                        "the arm generated lacks"
                    )
            if here.sum() < len(np.unique(t[here])) * len(replicates):
                raise ValueError(
                    f"arm {ALL_ARMS[a]}, seed {s} has not all {len(replicates)} replicates in "
                    "every generation"
                )
    if t[arm == generated].max() < 1:
        raise ValueError("there is one generation: a change needs generation 0 and a later one")


def _check_shared(runs: _Runs, names: Sequence[str]) -> None:
    """ValueError unless the arms of a seed share generation 0; a path, whose levels are fits of
    their own, need not."""
    paths = [ALL_ARMS.index(path) for path in PATHS]
    first = np.flatnonzero((runs.of["generation"] == 0) & ~np.isin(runs.of["arm"], paths))
    with_arm: dict[tuple[int, int], int] = {}
    for run in map(int, first):
        key = int(runs.of["seed"][run]), int(runs.of["replicate"][run])
        like = with_arm.setdefault(key, run)
        differs = np.flatnonzero(runs.table["predicted"][run] != runs.table["predicted"][like])
        if len(differs):
            i = differs[0]
            one, other = (names[runs.table["predicted"][r, i]] for r in (like, run))
            arms = [ALL_ARMS[runs.of["arm"][r]] for r in (like, run)]
            raise ValueError(
                f"arms {arms[0]} and {arms[1]} of seed {key[0]} differ in generation 0, which all "
                f"arms share: image {runs.images[i]} is predicted {one} and {other}; "
                f"{len(differs):,} of {len(runs.images):,} images differ"
            )


# ---- Classes, groups, who is favoured ------------------------------------------------------------


def _design(n: np.ndarray, classes: Sequence[str], groups: Sequence[str]) -> str:
    """How classes and groups meet; n (n_classes, n_groups) test images."""
    here, there = (n > 0).any(1), (n > 0).any(0)
    if here.sum() < 2 or there.sum() < 2:
        what, name = (
            ("label", classes[int(here.argmax())])
            if here.sum() < 2
            else ("group", groups[int(there.argmax())])
        )
        raise ValueError(f"all test images have the {what} {name}: nothing to compare")
    design = design_of(n > 0)
    if not design:
        raise ValueError(
            f"every class has one group and every group one class, {classes[0]} with "
            f"{groups[int(n[0].argmax())]}: nothing to compare"
        )
    return design


def _is_paired(
    label: np.ndarray, group: np.ndarray, unit: np.ndarray, units: Sequence[str]
) -> bool:
    """Whether every unit is shown in every group; ValueError if some are in several and not all."""
    cells = pd.DataFrame({"unit": unit, "label": label, "group": group})
    of_units = cells.groupby("unit").nunique()
    if (of_units.label > 1).any():
        raise ValueError(
            f"unit {units[int(of_units.label.gt(1).idxmax())]} has images of several labels; "
            f"{int((of_units.label > 1).sum()):,} of {len(of_units):,} units do: a unit is one "
            "photograph"
        )
    n_groups = len(np.unique(group))
    if (of_units.group == 1).all():
        return False
    few, many = int(of_units.group.idxmin()), int(of_units.group.idxmax())
    if of_units.group[few] < n_groups:
        raise ValueError(
            f"of {n_groups} groups, unit {units[many]} is shown in {of_units.group[many]} and "
            f"unit {units[few]} in {of_units.group[few]}: each unit is in one group, or all are in "
            "every group"
        )
    return True


def _favoured_cells(
    asked: Any, n: np.ndarray, classes: Sequence[str], groups: Sequence[str]
) -> np.ndarray:
    """1 where the cell is favoured, -1 where not, 0 where no image is; see `score`."""
    cells = np.where(n > 0, -1, 0)
    for label, group in _pairs(asked):
        if group not in groups:
            raise ValueError(unknown("group", group, groups, "in favoured"))
        if label is not None and label not in classes:
            raise ValueError(unknown("class", label, classes, "in favoured"))
        g = groups.index(group)
        rows = n[:, g] > 0 if label is None else np.arange(len(classes)) == classes.index(label)
        if not n[rows, g].any():
            raise ValueError(f"favoured: class {label} has no test image of group {group}")
        cells[rows, g] = 1
    return cells


def _pairs(asked: Any) -> list[tuple[str | None, str]]:
    """Class (None: all) and group, of all that are favoured."""
    if isinstance(asked, str):
        pairs = []
        for part in asked.split(","):
            label, sign, group = part.rpartition("=")
            pairs.append((label.strip() if sign else None, group.strip()))
        return pairs
    if isinstance(asked, Mapping):
        return [
            (_name(label), _name(group))
            for label, given in asked.items()
            for group in (given if isinstance(given, list | tuple) else [given])
        ]
    raise ValueError(
        "favoured is {class: group}, or text such as 'red' or '0=red,1=green'; got "
        f"{shown(asked)}"
    )


def _check_favoured(cells: np.ndarray, classes: Sequence[str]) -> None:
    """ValueError unless some class has a favoured group and another one."""
    if not ((cells > 0).any(1) & (cells < 0).any(1)).any():
        raise ValueError(
            "in no class is one group favoured and another not, so there is no contrast; the "
            f"classes are {listed(classes[:SHOWN])}{' ...' * (len(classes) > SHOWN)}"
        )


def _told_cells(runs: _Runs, seed: int, n: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Favoured cells of a seed as the column says; at: cell of each image."""
    flags = runs.table["favoured"][runs.of["seed"] == seed]
    share = np.zeros(n.size)
    np.add.at(share, at, flags.mean(0))
    share = np.divide(share, n.ravel(), out=np.zeros(n.size), where=n.ravel() > 0)
    mixed = np.flatnonzero((share > 1e-9) & (share < 1 - 1e-9))
    if len(mixed):
        image = runs.images[int(np.flatnonzero(at == mixed[0])[0])]
        raise ValueError(
            f"favoured is 1 and 0 in one cell of class and group, in seed {seed}: that of image "
            f"{image}; {len(mixed):,} cells are mixed"
        )
    return np.where(n > 0, np.where(share.reshape(n.shape) > 0.5, 1, -1), 0)


# ---- Outcomes ------------------------------------------------------------------------------------


def _results(
    runs: _Runs,
    of_image: Mapping[str, np.ndarray],
    names: Mapping[str, list[str]],
    variant: str,
    favoured: Any,
    name: str,
    scale: str,
) -> Results:
    label, group, unit = (of_image[what] for what in ("label", "group", "unit"))
    classes, groups = names["label"], names["group"]
    at = label * len(groups) + group
    n = np.bincount(at, minlength=len(classes) * len(groups)).reshape(len(classes), len(groups))
    design = _design(n, classes, groups)
    paired = _is_paired(label, group, unit, names["unit"])
    if paired and design != "crossed":
        raise ValueError(f"units in several groups need a crossed design; this one is {design}")
    nobody = np.zeros_like(n)
    by_option = nobody if favoured is None else _favoured_cells(favoured, n, classes, groups)
    seeds = np.unique(runs.of["seed"])
    cells = {
        int(s): _told_cells(runs, s, n, at) if "favoured" in runs.table else by_option
        for s in seeds
    }
    if "favoured" in runs.table or favoured is not None:
        for of_seed in cells.values():
            _check_favoured(of_seed, classes)
    biased = any(of_seed.any() for of_seed in cells.values())
    n_replicates = len(np.unique(runs.of["replicate"]))
    known = {
        "dataset": name,
        "start": "biased" if biased else _UNKNOWN,
        "bias": _bias(runs, biased),
        "n_test": len(np.unique(unit)),
        "n_classifiers": n_replicates,
        "variant": variant,
        "table": _checksum(runs, of_image),
    }
    outcomes = []
    for a in np.unique(runs.of["arm"]):
        for seed in seeds:
            here = np.flatnonzero((runs.of["arm"] == a) & (runs.of["seed"] == seed))
            shape = -1, n_replicates, len(label)
            predicted = runs.table["predicted"][here].reshape(shape)
            confidence = runs.table.get("confidence")
            fields = _unknown_fields() | known
            fields |= {"seed": int(seed), "n_generations": len(predicted) - 1}
            outcomes.append(
                Outcome(
                    experiment=Elsewhere(**fields, own_arm=ALL_ARMS[a]),
                    numerics=_UNKNOWN,
                    scale=scale,
                    classes=tuple(classes),
                    groups=tuple(groups),
                    design=design,
                    occurs=n > 0,
                    favoured=cells[int(seed)],
                    label=label,
                    group=group,
                    unit=unit,
                    paired=paired,
                    predicted=predicted,
                    confidence=None
                    if confidence is None
                    else confidence[here].reshape(shape).astype(np.float32),
                    draws=_UNKNOWN,
                )
            )
    return Results(outcomes, note=NOTE)


def _bias(runs: _Runs, biased: bool) -> float:
    """Strength of the start, nan where it is not told.

    biased   whether it is known which groups are favoured
    """
    if "bias" not in runs.table:
        return math.nan
    values = np.unique(runs.table["bias"])
    if len(values) > 1:
        raise ValueError(
            f"bias is one number in a setting; got {listed(values[:SHOWN])}: settings are told "
            "apart by a column variant"
        )
    if values[0] > 0 and not biased:
        raise ValueError(
            f"bias is {values[0]:g}, and no group is named as favoured; say which are, by a column "
            "favoured or by --favoured"
        )
    return float(values[0]) if biased else math.nan


def _checksum(runs: _Runs, of_image: Mapping[str, np.ndarray]) -> str:
    """Hash of all that is predicted, and of which runs."""
    found = hashlib.sha256()
    for values in (*runs.of.values(), *of_image.values(), runs.table["predicted"]):
        found.update(np.ascontiguousarray(values, np.int64).tobytes())
    return found.hexdigest()[:20]
