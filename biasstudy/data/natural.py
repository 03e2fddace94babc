"""Starts as they are found: in the natural shares of the training images; and the instruments and
test images beside them, as even over classes and groups as these allow.

A *cell* is a class with a group. Shares are those of all training images but such that were set
aside by name (`Dataset.set_aside`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.checks import listed, unknown
from ..core.counts import largest_remainder
from ..experiment import AS_FOUND
from .images import Dataset

SMALLEST = 10  # images of a cell, in the start and in the test set, that a contrast rests on
OF_A_CELL = 3  # instruments take at most one of so many images of a cell
EXAMPLES = 6  # cells or classes that a sentence shows


def natural_counts(dataset: Dataset) -> np.ndarray:
    """Training images of every cell that were not set aside by name, (n_classes, n_groups) int.

    raises   ValueError   if groups are painted: nature has no shares of them
    """
    if dataset.paint is not None:
        raise ValueError(
            f"start {AS_FOUND!r} needs groups that were found, and those of this data set are "
            "painted; use unbiased or biased"
        )
    train = dataset.train
    counts = train.counts(dataset.n_classes, dataset.n_groups)
    if dataset.set_aside is not None:  # every image of a start as found has a group
        aside = train.label[dataset.set_aside], train.group[dataset.set_aside]
        np.subtract.at(counts, aside, 1)
    return counts


def natural_start(dataset: Dataset, n_real: int) -> np.ndarray:
    """Images of every cell in a start of n_real, in natural shares by largest remainder;
    (n_classes, n_groups) int."""
    counts = natural_counts(dataset)
    return largest_remainder(counts.ravel(), n_real).reshape(counts.shape)


def favoured_cells(dataset: Dataset, named: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Which cells a start as found favours; (n_classes, n_groups) int: 1 favoured, -1 not, 0 no
    part in a contrast.

    named    class -> groups that are favoured in it; classes that are not named take no part.
             Empty: in every class the groups that are larger than its mean
    raises   ValueError   with one sentence for an unknown class or group, or one that does not
                          occur
    """
    counts = natural_counts(dataset)
    occurs = counts > 0
    favoured = np.zeros(counts.shape, np.int64)
    if not named:
        mean = counts.sum(1, keepdims=True) / np.maximum(occurs.sum(1, keepdims=True), 1)
        favoured = np.where(occurs, np.where(counts > mean, 1, -1), 0)
        favoured[~(favoured > 0).any(1)] = 0  # all equal: nothing is favoured
        return favoured
    for class_name, of_class in named.items():
        k = _position("class", class_name, dataset.classes)
        chosen = [_position("group", group, dataset.groups) for group in of_class]
        absent = [dataset.groups[g] for g in chosen if not occurs[k, g]]
        if absent or not chosen or len(set(chosen)) == occurs[k].sum():
            raise ValueError(
                f"favoured must name some groups of class {class_name!r} and not all; it has "
                f"{listed(dataset.groups[g] for g in np.flatnonzero(occurs[k]))}; got "
                f"{listed(of_class)}"
            )
        favoured[k] = np.where(occurs[k], -1, 0)
        favoured[k, chosen] = 1
    return favoured


def no_contrast(dataset: Dataset, named: Mapping[str, Sequence[str]]) -> str:
    """Why a start as found, of whatever size, has no groups to compare; "" if it has some.

    named    as in `favoured_cells`
    """
    if one_group := only_group(dataset):
        return one_group
    if (favoured_cells(dataset, named) > 0).any():
        return ""
    if (dataset.occurs.sum(1) < 2).all():
        return "every class has one group, so none is larger than another; use start: unbiased"
    return (
        "all groups of a class are equally large, in every class, so none is favoured; use start: "
        "unbiased, or name the favoured ones with favoured"
    )


def only_group(dataset: Dataset) -> str:
    """That there is one group alone, in words; "" if there are several."""
    if dataset.n_groups > 1:
        return ""
    return (
        f"all images are of one group, {dataset.groups[0]!r}, so there is no contrast between "
        "groups to measure"
    )


def _position(what: str, name: str, known: tuple[str, ...]) -> int:
    if name not in known:
        raise ValueError(unknown(what, name, known, "in favoured"))
    return known.index(name)


def without_small_cells(favoured: np.ndarray, start: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The favoured cells without those of fewer than SMALLEST images in the start or the test set;
    all (n_classes, n_groups) int."""
    return np.where(np.minimum(start, test) < SMALLEST, 0, favoured)


def instruments_as_found(dataset: Dataset) -> np.ndarray:
    """Images of every cell that become instruments, (n_classes, n_groups) int: equally many of each
    that occurs, of a rare one a third; all that were set aside by name, where there are such.

    (In natural shares an instrument hardly ever says that an image is of a rare group.)
    """
    counts = natural_counts(dataset)
    if dataset.set_aside is not None:
        return dataset.train.counts(*counts.shape) - counts
    n = dataset.n_instruments if dataset.n_as_found is None else dataset.n_as_found
    return _evenly(n, counts // OF_A_CELL)


def even_test(dataset: Dataset, n_test: int) -> np.ndarray:
    """Test images of every cell, (n_classes, n_groups) int: equally many of each that occurs, and
    of one that has fewer all."""
    return _evenly(n_test, dataset.test.counts(dataset.n_classes, dataset.n_groups))


def _evenly(n: int, most: np.ndarray) -> np.ndarray:
    """n dealt out to cells, equally many to each, but none more than its most; fewer than n where
    all are full."""
    dealt, left = np.zeros_like(most), min(n, int(most.sum()))
    while left:
        free = most > dealt
        more = np.zeros_like(most)
        more[free] = largest_remainder(np.ones(int(free.sum())), left)
        more = np.minimum(more, most - dealt)
        dealt, left = dealt + more, left - int(more.sum())
    return dealt


def sentences(
    dataset: Dataset,
    start: np.ndarray,
    favoured: np.ndarray,
    named: Mapping[Any, Any],
    n_test: int,
    largest: int,
) -> Iterator[str]:
    """What is said of a start as found: its sizes, what it favours, and which cells are too small.

    start, favoured   (n_classes, n_groups) int
    largest           the largest n_real that fits
    """
    natural, aside = natural_counts(dataset), instruments_as_found(dataset)
    occurs = natural > 0
    yield (
        f"Start as found: {start.sum():,} images in the shares of {natural.sum():,}, "
        f"{_span(dataset, start, occurs)}; at most n_real {largest:,} fits."
    )
    at_most = "" if dataset.set_aside is not None else ", at most a third of each"
    yield f"Instruments: {aside.sum():,}, {_span(dataset, aside, occurs)}{at_most}."
    leaning = np.flatnonzero((favoured > 0).any(1))
    groups = [np.flatnonzero(favoured[k] > 0) for k in leaning[:EXAMPLES]]
    told = "; ".join(
        f"{dataset.classes[k]}: {listed(dataset.groups[g] for g in favourites)}"
        for k, favourites in zip(leaning, groups, strict=False)
    )
    more = f"; and of {len(leaning) - EXAMPLES} more classes" if len(leaning) > EXAMPLES else ""
    how = "named" if named else "the larger ones"
    yield f"Favoured ({how}): {told}{more}."
    small = (favoured_cells(dataset, named) != 0) & (favoured == 0)
    if small.any():
        test = even_test(dataset, n_test)
        cells = [
            f"{dataset.classes[k]}, {dataset.groups[g]} ({start[k, g]} in the start, "
            f"{test[k, g]} test)"
            for k, g in np.argwhere(small)
        ]
        rest = f" and {len(cells) - EXAMPLES} more" if len(cells) > EXAMPLES else ""
        yield (
            f"Left out of the contrast, not of the data: {'; '.join(cells[:EXAMPLES])}{rest}: a "
            f"contrast needs {SMALLEST} images of a cell in both."
        )


def _span(dataset: Dataset, counts: np.ndarray, occurs: np.ndarray) -> str:
    """The smallest and the largest cell, "5 (cat, white) to 90 (dog, black)"."""
    cells = np.argwhere(occurs)
    n = counts[occurs]
    ends = [
        f"{n[i]:,} ({dataset.classes[cells[i][0]]}, {dataset.groups[cells[i][1]]})"
        for i in (int(n.argmin()), int(n.argmax()))
    ]
    return " to ".join(ends)
