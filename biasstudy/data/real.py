"""How an experiment draws its real data: start, reserve, instruments and test, in the same way for
every data set.

All parts are disjoint index sets of a `Dataset`, with exact counts by largest remainder, checked
before any training.
"""

import bisect
import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.checks import listed, meant
from ..core.counts import largest_remainder, spread
from ..core.registry import DATASETS
from ..core.seeds import digest, seed_for
from ..experiment import AS_FOUND, FILTERED, IMITATING, PROTOCOLS, Experiment
from .conditions import Conditions, condition_of
from .images import Dataset, LabeledImages, concatenate
from .natural import (
    SMALLEST,
    even_test,
    favoured_cells,
    instruments_as_found,
    natural_counts,
    natural_start,
    no_contrast,
    only_group,
    sentences,
    without_small_cells,
)
from .pools import Part


@functools.lru_cache(maxsize=4)
def _source(name: str, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return DATASETS[name].target(**dict(options))


def dataset_of(experiment: Experiment) -> Dataset:
    """The data set of an experiment, loaded once per process."""
    return _source(
        experiment.dataset,
        tuple(sorted(experiment.dataset_entry.resolve(experiment.dataset_options).items())),
    )


# ---- Starts --------------------------------------------------------------------------------------


def shares_of_start(
    dataset: Dataset, start: str, bias: float, seed: int, n_thinned: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each group in its class in the real training set, and which cells the start favours.

    Crossed: P(group = majority | class) = bias + (1 - bias) / n_groups, the others equal; the
    majority group of class k is pi(k mod n_groups), pi drawn per seed, or the one that the data set
    names for all classes. Nested: inside a class weights 1 and 1 - bias; n_thinned of its groups,
    drawn per seed or named by the data set, are thinned. Unbiased: all groups of a class equal.

    returns  shares (n_classes, n_groups) float, rows sum to 1;
             favoured (n_classes, n_groups) int: 1 favoured, -1 not, 0 where the start favours
             nothing or the group does not occur
    raises   ValueError   if the groups of this data set cannot be thinned in this way
    source   ours
    """
    occurs, rng = dataset.occurs, np.random.default_rng(seed_for(seed, "start", "favoured"))
    favoured = np.zeros(occurs.shape, np.int64)
    weights = occurs.astype(float)
    _check_start(dataset, start, n_thinned)
    if start != "unbiased" and dataset.design == "crossed":
        majority = rng.permutation(dataset.n_groups)[
            np.arange(dataset.n_classes) % dataset.n_groups
        ]
        if dataset.majority is not None:
            majority = np.full(dataset.n_classes, dataset.majority)
        favoured = np.where(np.arange(dataset.n_groups) == majority[:, None], 1, -1)
        weights = np.where(
            favoured > 0, bias + (1 - bias) / dataset.n_groups, (1 - bias) / dataset.n_groups
        )
    elif start != "unbiased":
        for k in range(dataset.n_classes):
            groups = np.flatnonzero(occurs[k])
            drawn = rng.permutation(groups)[:n_thinned]
            thinned = drawn if start == "biased" else np.intersect1d(groups, dataset.presets[start])
            favoured[k, groups], favoured[k, thinned], weights[k, thinned] = 1, -1, 1 - bias
    return weights / weights.sum(1, keepdims=True), favoured


def counts_of_start(dataset: Dataset, e: Experiment, n_real: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of each cell in a start of n_real, classes balanced but where it is as found; and
    which cells it favours; both (n_classes, n_groups) int."""
    if e.start == AS_FOUND:
        found = natural_start(dataset, n_real)
        favoured = favoured_cells(dataset, e.favoured)
        return found, without_small_cells(favoured, found, even_test(dataset, e.n_test))
    shares, favoured = shares_of_start(dataset, e.start, e.bias, e.seed, e.n_thinned)
    per_class = largest_remainder(np.ones(dataset.n_classes), n_real)
    counts = [largest_remainder(s, n) for s, n in zip(shares, per_class, strict=True)]
    return np.stack(counts), favoured


def _check_start(dataset: Dataset, start: str, n_thinned: int) -> None:
    """ValueError with one sentence if this data set cannot be drawn so."""
    if start != "unbiased" and dataset.design == "crossed" and not dataset.occurs.all():
        k, g = np.argwhere(~dataset.occurs)[0]
        raise ValueError(
            f"start {start!r} draws every group in every class, and class {dataset.classes[k]!r} "
            f"has none of group {dataset.groups[g]!r}; use start {AS_FOUND!r}"
        )
    fewest = int(dataset.occurs.sum(1).min())
    known = ["unbiased", "biased", *dataset.presets]
    if start not in known:
        raise ValueError(
            f"this data set has no start {start!r}{meant(start, known)}; known: {listed(known)}"
        )
    if dataset.design == "grouped" and start != "unbiased":
        raise ValueError(
            f"start {start!r} moves groups inside a class, but classes of this data set have one "
            "group; use unbiased"
        )
    if dataset.design == "crossed" and n_thinned != 2:
        raise ValueError(
            "n_thinned is for groups that have one class, and those of this data set meet every "
            f"class; got {n_thinned}"
        )
    if dataset.design == "nested" and start == "biased" and n_thinned >= fewest:
        raise ValueError(
            f"n_thinned must leave a group of each class as it is; got {n_thinned} of {fewest}"
        )


# ---- Drawing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealData:
    """The real data of one experiment: `start`, `test`, `instruments` by purpose and the reserve
    slices, all disjoint.

    counts       (n_classes, n_groups) int   images of the start
    conditions   what a generator is told of each batch: exact counts, the start's shares
    reserve      t -> Part                   fresh real images of generation t in told order, as
                                             many as a batch has (and the first SPARE of them once
                                             more if a filter will reject some)
    arrivals     t -> Part                   the photographs of generation t's slice in told order,
                                             each in every group: n_groups images of the first, then
                                             of the second, ...; only where groups are painted
    shelf        t -> Part                   real images to choose from in generation t: its slice
                                             of the reserve, then others
    favoured     (n_classes, n_groups) int   see `shares_of_start`
    sizes        images per class: available, in start, in the whole reserve, in instruments
    draws        "shared": other seeds draw from the same photographs; "disjoint": all lie in a draw
                 of this seed alone; "disjoint starts, shared reserves": those of the start do,
                 others may be in the starts of other seeds
    says         -> sentences about how the data were made and, of a start as found, its sizes
    """

    dataset: Dataset
    start: Part
    test: Part
    instruments: dict[str, Part]
    reserve: Callable[[int], Part]
    arrivals: Callable[[int], Part]
    shelf: Callable[[int], Part]
    counts: np.ndarray
    conditions: Conditions
    favoured: np.ndarray
    sizes: dict[str, int]
    draws: str
    says: Callable[[], list[str]]


SPARE = 0.5  # of a batch: real images that replace those which a filter rejects

SHELF = 2  # times a batch: more painted images to choose from; each takes time to paint

# What each share of the instruments is for. The model that filters never measures, and nothing is
# fitted to images with which batches are compared.
_PURPOSES = {"measuring": 0.6, "expert": 0.15, "comparison": 0.25}
FEWEST_INSTRUMENTS = 4  # of a class and group: of fewer, one of the purposes has none


def real_data(experiment: Experiment) -> RealData:
    """The start, reserve, instruments and test images of an experiment.

    Instruments do not depend on the seed and are balanced over class x group. The rest of each
    class is shuffled by the seed; the start takes the first images, the reserve the next ones, so
    the start is the same in every arm. Under draws `disjoint` the rest is shuffled once, whatever
    the seed, and cut into n_draws equal draws; a seed begins at its own and goes on to the next.

    raises   ValueError   with one sentence about every size that does not fit, and the largest that
                          does; if a model cannot see images of this size
    """
    e, dataset = experiment, dataset_of(experiment)
    e.check_side(dataset.train.images.shape[2])
    as_found = e.start == AS_FOUND
    lacking = no_contrast(dataset, e.favoured) if as_found else only_group(dataset)
    if lacking:
        raise ValueError(f"{e.dataset}: {lacking}")
    counts, favoured = counts_of_start(dataset, e, e.n_real)
    stock = _Stock(e, dataset)
    if wrong := _wrong_sizes(e, stock, counts):
        raise ValueError("; ".join(wrong))
    conditions = _conditions(e, dataset, counts, e.n_batch)
    reserve = _Reserve(e, stock, counts, conditions.of_batch)
    bare_stock = stock.bare()
    bare_reserve = copy.copy(reserve)
    bare_reserve.stock = bare_stock

    name = {
        "dataset": e.dataset,
        "version": e.dataset_entry.identity,
        "checksum": dataset.checksum,
        "options": _options_in_keys(e, dataset),
    }
    # these instruments leave other images to the rest
    kind = {"as_found": True} if as_found else {}
    drawn = {**name, **kind, "counts": digest(counts.tolist()), "seed": e.seed}
    if e.draws == "disjoint":
        drawn["draws"] = e.n_draws

    return RealData(
        dataset=dataset,
        counts=counts,
        conditions=conditions,
        favoured=favoured,
        reserve=lambda t: Part(
            {**drawn, "part": "reserve", **reserve.described(t)},
            functools.partial(reserve.images, t),
            functools.partial(bare_reserve.images, t),
        ),
        arrivals=lambda t: Part(
            {**drawn, "part": "arrivals", **reserve.described(t)},
            functools.partial(bare_reserve.in_every_group, t, dataset),
            functools.partial(bare_reserve.in_every_group, t, bare_stock.dataset),
        ),
        shelf=lambda t: Part(
            {**drawn, "part": "shelf", **reserve.described(t), "T": e.n_generations},
            functools.partial(reserve.shelf, t),
            functools.partial(bare_reserve.shelf, t),
        ),
        start=Part(
            {**drawn, "part": "start"},
            functools.partial(stock.take, counts, np.zeros_like(counts)),
            functools.partial(bare_stock.take, counts, np.zeros_like(counts)),
        ),
        test=Part(
            {**name, "part": "test", "n_test": e.n_test, **kind},
            functools.partial(_test_images, dataset, e),
            functools.partial(_test_images, bare_stock.dataset, e),
        ),
        instruments={
            purpose: Part(
                {**name, "part": purpose, **kind},
                functools.partial(stock.instruments, purpose),
                functools.partial(bare_stock.instruments, purpose),
            )
            for purpose in _PURPOSES
        },
        sizes=stock.sizes(counts, reserve.total),
        draws=_draws(e, stock, counts + reserve.total),
        says=functools.partial(_says, e, stock, counts, favoured),
    )


def _options_in_keys(e: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Options of the data set as they enter keys: where files lie is no part of what is computed,
    since their checksum says what they hold."""
    if e.dataset_entry.traits.get("by_content"):
        return {"n_instruments": dataset.n_instruments, "n_as_found": dataset.n_as_found}
    return e.dataset_entry.resolve(e.dataset_options)


def _says(e: Experiment, stock: "_Stock", counts: np.ndarray, favoured: np.ndarray) -> list[str]:
    dataset = stock.dataset
    if e.start != AS_FOUND:
        return list(dataset.report)
    most = sum(map(len, stock.free.values()))
    largest = _largest(most, lambda n: _fits(e, stock, n))
    return [*dataset.report, *sentences(dataset, counts, favoured, e.favoured, e.n_test, largest)]


def _draws(e: Experiment, stock: "_Stock", used: np.ndarray) -> str:
    """What seeds have in common, in words: see `RealData.draws`."""
    if e.draws == "shared":
        return "shared"
    # an arm that imitates chooses among all images of the shelf
    own = e.imitate == "nothing" and stock.in_draw(used)
    return "disjoint" if own else "disjoint starts, shared reserves"


def _conditions(e: Experiment, dataset: Dataset, counts: np.ndarray, n_batch: int) -> Conditions:
    """What is told of a batch of n_batch images: the shares of the start, in exact counts."""
    of_start = counts.sum(1) if e.condition == "class" else counts.ravel()
    of_batch = tuple(largest_remainder(of_start, n_batch).tolist())
    return Conditions(of_batch, e.n_fresh, e.condition, dataset.n_groups)


def all_real_data(experiments: Sequence[Experiment]) -> list[RealData]:
    """The real data of each experiment, in their order; those that need a reserve are checked
    first, so that one sentence says all that does not fit. Files of the user's own are looked at
    again."""
    if any(e.dataset_entry.traits.get("by_content") for e in experiments):
        _source.cache_clear()
    drawn = {e.id: real_data(e) for e in sorted(experiments, key=lambda e: not _uses_reserve(e))}
    return [drawn[e.id] for e in experiments]


# ---- Sizes ---------------------------------------------------------------------------------------


def _wrong_sizes(e: Experiment, stock: "_Stock", counts: np.ndarray) -> list[str]:
    """All that is wrong with n_real, n_test, ratio, the draws, the instruments and the levels of a
    path, each with the largest value that fits."""
    dataset, none = stock.dataset, np.zeros_like(counts)
    wrong = []
    if e.n_real < dataset.n_classes:
        wrong.append(
            f"n_real must be at least the number of classes, {dataset.n_classes}; got {e.n_real}"
        )
    # the start alone first: nothing is laid out that is longer than all images
    elif lacking := stock.lacking(counts, none) or stock.lacking(*_demand(e, stock)):
        wrong.append(f"not enough real images: {lacking}; {_what_fits(e, stock, counts)}")
    elif e.draws == "disjoint" and not stock.in_draw(counts):
        n = _largest(e.n_real, lambda n: _fits(e, stock, n))
        wrong.append(
            f"not enough real images for {e.n_draws} disjoint draws of n_real {e.n_real}: at most "
            f"n_real {n} fits; lower n_real or n_draws, or use draws 'shared'"
        )
    if PROTOCOLS[e.protocol].feedback and e.n_batch and dataset.paint is None:
        wrong.append(
            f"protocol {e.protocol!r} shows every fresh photograph in every group, so it needs a "
            f"data set whose groups are painted; those of {e.dataset!r} are found as they are"
        )
    most = _largest_test(dataset, e.start)
    if e.n_test > most:
        kind = "test set" if e.start == AS_FOUND else "balanced test set"
        wrong.append(f"n_test is {e.n_test}, but the {kind} has at most {most} images")
    if e.start == AS_FOUND and not wrong:
        wrong = _wrong_shares(e, dataset, counts)
    return wrong + _wrong_instruments(e, stock) + _wrong_path(e, dataset.n_classes)


def _wrong_shares(e: Experiment, dataset: Dataset, counts: np.ndarray) -> list[str]:
    """A sentence for a start as found that has a class without images, or nothing to compare."""
    natural = natural_counts(dataset).sum(1)
    k = int(counts.sum(1).argmin())
    if not counts[k].any():
        return [
            f"a start as found of n_real {e.n_real} has no image of class {dataset.classes[k]!r}, "
            f"which has {natural[k]:,} of {natural.sum():,}; raise n_real"
        ]
    _, favoured = counts_of_start(dataset, e, e.n_real)
    if not ((favoured > 0).any(1) & (favoured < 0).any(1)).any():
        return [
            "a start as found needs a class in which one group is favoured and another is not, "
            f"each with {SMALLEST} images in the start and in the test set, and there is none; "
            "raise n_real or n_test, or name other groups with favoured"
        ]
    return []


def _wrong_instruments(e: Experiment, stock: "_Stock") -> list[str]:
    """A sentence for instruments that were asked for and are not there beside a start as found, or
    for a class whose instruments are too few to serve all purposes."""
    dataset = stock.dataset
    asked, there = (
        e.dataset_options.get("n_instruments", 0),
        sum(map(len, stock.set_aside.values())),
    )
    if e.start == AS_FOUND and asked > there:
        return [
            f"n_instruments is {asked:,}, but beside a start as found instruments take at most a "
            f"third of each class and group, {there:,} in all"
        ]
    for purpose in _PURPOSES:
        label = dataset.train.label[stock.of_purpose(purpose)]
        n = np.bincount(label, minlength=dataset.n_classes)
        if not n.all():
            return [
                f"the instruments of class {dataset.classes[int(n.argmin())]!r} are too few to "
                f"divide: none is left for {purpose!r}; raise n_instruments, or leave the class out"
            ]
    return []


def _demand(
    e: Experiment, stock: "_Stock", n_real: int | None = None, n_batch: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images of each cell in the start and in the whole reserve, (n_classes, n_groups) int each;
    for the sizes of the experiment or others."""
    n_real = e.n_real if n_real is None else n_real
    n_batch = round(e.ratio * n_real) if n_batch is None else n_batch
    counts, _ = counts_of_start(stock.dataset, e, n_real)
    if not n_batch or not _uses_reserve(e):
        return counts, np.zeros_like(counts)
    told = _conditions(e, stock.dataset, counts, n_batch).of_batch
    return counts, _Reserve(e, stock, counts, told).total


def _what_fits(e: Experiment, stock: "_Stock", counts: np.ndarray) -> str:
    """The largest n_real, ratio and number of instruments that fit, each where the others stay."""
    classes, most = stock.dataset.n_classes, sum(map(len, stock.free.values()))
    n = _largest(min(e.n_real, most), lambda n: n < classes or _fits(e, stock, n))
    fits = [f"n_real {n}"] if n >= classes else []
    if _uses_reserve(e) and not stock.lacking(counts, np.zeros_like(counts)):
        n = _largest(min(e.n_batch, most), lambda n: not stock.lacking(*_demand(e, stock, None, n)))
        fits.append(f"ratio {math.floor(1000 * n / e.n_real) / 1000:g}")
    option = e.dataset_entry.traits.get("within", {}).get("n_instruments")
    if option and stock.dataset.set_aside is None:
        n = stock.most_instruments(*_demand(e, stock))
        if n >= max(option[0], FEWEST_INSTRUMENTS * len(stock.free)):
            fits.append(f"dataset_options n_instruments {n}")
    return f"at most {' or '.join(fits)} fits" if fits else "lower n_real, ratio or n_generations"


def _fits(e: Experiment, stock: "_Stock", n_real: int) -> bool:
    """Whether there are images for a start of n_real and its reserve, the start within a draw."""
    counts, reserve = _demand(e, stock, n_real)
    within = e.draws == "shared" or stock.in_draw(counts)
    return within and not stock.lacking(counts, reserve)


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest of 0..most that fits, where all that is smaller than a fitting one fits, too."""
    return bisect.bisect_left(range(1, most + 1), True, key=lambda n: not fits(n))


def _uses_reserve(e: Experiment) -> bool:
    """Whether its batches take images from the reserve."""
    return e.arm in ("real", FILTERED, *IMITATING) or (
        PROTOCOLS[e.protocol].fresh and e.n_batch > 0
    )


# ---- Reserve and stock ---------------------------------------------------------------------------


class _Reserve:
    """Slices of fresh real images, one per generation, laid out after the start: first the whole
    slices of every stream, then the spare images. So the slices are the same with and without a
    filter, and two streams share no image."""

    def __init__(
        self, e: Experiment, stock: "_Stock", counts: np.ndarray, told: np.ndarray
    ) -> None:
        self.e, self.stock, self.counts = e, stock, counts
        self.stream = e.resolved("generator").get("stream", 0) if e.generator == "reserve" else 0
        self.told = [told, told[: round(SPARE * len(told))]] if e.arm == FILTERED else [told]
        self.slices = [self._cells(told) for told in self.told]
        whole, spare = self.slices[0], sum(self.slices[1:], np.zeros_like(counts))
        self.total = ((self.stream + 1) * whole + spare) * e.n_generations * _uses_reserve(e)

    def _cells(self, told: np.ndarray) -> np.ndarray:
        """Images per class and group that are told these conditions; groups in the shares that they
        have in the start."""
        asked = np.bincount(
            told, minlength=len(self.counts) if self.e.condition == "class" else self.counts.size
        )
        if self.e.condition == "group":
            return asked.reshape(self.counts.shape)
        return np.stack(
            [
                largest_remainder(row, n) if n else np.zeros_like(row)
                for row, n in zip(self.counts, asked, strict=True)
            ]
        )

    def described(self, t: int) -> dict[str, Any]:
        return {
            "t": t,
            "slices": digest([cells.tolist() for cells in self.slices]),
            "condition": self.e.condition,
            "stream": self.stream,
        }

    def images(self, t: int) -> LabeledImages:
        """The slice of generation t, in the order in which a generator would be told it; then its
        spare images."""
        T, whole = self.e.n_generations, self.slices[0]
        first = [self.counts + (self.stream * T + t) * whole]
        first += [
            self.counts + (self.stream + 1) * T * whole + t * spare for spare in self.slices[1:]
        ]
        return concatenate(
            [
                in_told_order(
                    self.stock.take(cells, offset),
                    told,
                    self.e.condition,
                    self.stock.dataset.n_groups,
                    seed_for(self.e.seed, "reserve", self.stream, t, i),
                )
                for i, (cells, offset, told) in enumerate(
                    zip(self.slices, first, self.told, strict=True)
                )
            ]
        )

    def in_every_group(self, t: int, dataset: Dataset) -> LabeledImages:
        """The slice of generation t without its spare images, every photograph in every group of a
        data set that paints them; of a reserve whose own images are bare."""
        return _in_every_group(dataset, self.images(t)[: len(self.told[0])], self.e.seed)

    def shelf(self, t: int) -> LabeledImages:
        """The slice of generation t, then the images that neither start nor any slice uses, every
        T-th first, so that two generations take one image only where a batch needs more than its
        part; painted ones, at most SHELF times as many as the slice has, in every group."""
        stock, T, whole = self.stock, self.e.n_generations, self.slices[0]
        return stock.lay_out(self.counts + t * whole, whole, self.counts + T * whole, t, T)


class _Stock:
    """Real training images in lanes (one per class where groups are painted, else one per class x
    group): first the instruments, fixed for the data set, then the rest in the order of the
    seed.

    draw   lane -> images of a disjoint draw
    """

    def __init__(self, e: Experiment, dataset: Dataset) -> None:
        self.dataset, self.seed = dataset, e.seed
        lanes = (
            dataset.train.label
            if dataset.paint
            else dataset.train.label * dataset.n_groups + dataset.train.group
        )
        fixed = np.random.default_rng(seed_for("instruments", dataset.checksum)).permutation(
            len(lanes)
        )
        kept = np.ones(len(lanes), bool)  # for start and reserve
        if dataset.set_aside is not None:
            kept[dataset.set_aside] = False
            fixed = fixed[np.argsort(kept[fixed], kind="stable")]
        members = {lane: fixed[lanes[fixed] == lane] for lane in np.unique(lanes)}
        n_aside = self._n_aside(e, members, kept)
        self.set_aside = {lane: index[: n_aside[lane]] for lane, index in members.items()}
        disjoint = e.draws == "disjoint"
        drawn_by = (
            seed_for("draws", dataset.checksum) if disjoint else seed_for(e.seed, "real", "order")
        )
        order = np.random.default_rng(drawn_by).permutation(len(lanes))
        free = {
            lane: np.isin(order, index[n_aside[lane] :]) & kept[order]
            for lane, index in members.items()
        }
        self.free = {lane: order[keep] for lane, keep in free.items()}
        if disjoint:
            self.draw = {lane: len(index) // e.n_draws for lane, index in self.free.items()}
            self.free = {
                lane: np.roll(index, -e.seed * self.draw[lane]) for lane, index in self.free.items()
            }

    def _n_aside(
        self, e: Experiment, members: dict[int, np.ndarray], kept: np.ndarray
    ) -> dict[int, int]:
        """Lane -> images that become instruments: equally many, but of rare cells fewer where the
        start is as found."""
        if e.start == AS_FOUND:
            of_cells = instruments_as_found(self.dataset).ravel()
            return {lane: int(of_cells[lane]) for lane in members}
        n = self.dataset.n_instruments // len(members)
        if self.dataset.set_aside is not None:
            n = min(n, *(int((~kept[index]).sum()) for index in members.values()))
        return dict.fromkeys(members, n)

    def in_draw(self, counts: np.ndarray) -> bool:
        """Whether so many images of each cell lie in the draw of the seed; (n_classes, n_groups)
        int."""
        lanes = counts.sum(1) if self.dataset.paint else counts.ravel()
        return all(wanted <= self.draw.get(lane, 0) for lane, wanted in enumerate(lanes))

    def bare(self) -> "_Stock":
        """The same images in the same order, without the looks of their groups."""
        stock = copy.copy(self)
        if self.dataset.paint is not None:
            stock.dataset = replace(self.dataset, paint=_as_it_is)
        return stock

    def lacking(self, counts: np.ndarray, reserve: np.ndarray) -> str:
        """What one class (and group) lacks for a start and a reserve, in words; empty if there are
        images enough."""
        need = counts + reserve
        lanes = need.sum(1) if self.dataset.paint else need.ravel()
        for lane, wanted in enumerate(lanes):
            free, set_aside = len(self.free.get(lane, ())), len(self.set_aside.get(lane, ()))
            if wanted > free:
                if self.dataset.paint:
                    what = f"class {self.dataset.classes[lane]!r}"
                    in_start, in_reserve = counts.sum(1)[lane], reserve.sum(1)[lane]
                else:
                    k, g = divmod(lane, self.dataset.n_groups)
                    what = f"class {self.dataset.classes[k]!r}, group {self.dataset.groups[g]!r}"
                    in_start, in_reserve = counts[k, g], reserve[k, g]
                of_reserve = f" and {in_reserve} for the reserve" if reserve.any() else ""
                return (
                    f"{what} has {free + set_aside}, {set_aside} of them instruments, and needs "
                    f"{in_start} for the start{of_reserve}"
                )
        return ""

    def most_instruments(self, counts: np.ndarray, reserve: np.ndarray) -> int:
        """Instruments that could be set aside beside such a start and reserve, of images that are
        not set aside by name."""
        need = counts + reserve
        lanes = need.sum(1) if self.dataset.paint else need.ravel()
        per_lane = min(
            len(free) + len(self.set_aside[lane]) - lanes[lane] for lane, free in self.free.items()
        )
        return int(per_lane) * len(self.free)

    def sizes(self, counts: np.ndarray, reserve: np.ndarray) -> dict[str, int]:
        per_class = np.bincount(self.dataset.train.label, minlength=self.dataset.n_classes)
        return {
            "available": int(per_class.min()),
            "start": int(counts.sum(1).max()),
            "reserve": int(reserve.sum(1).max()),
            "instruments": sum(map(len, self.set_aside.values())) // self.dataset.n_classes,
        }

    def take(self, counts: np.ndarray, offset: np.ndarray) -> LabeledImages:
        """counts[k, g] images of each cell, after the first offset[k, g] of them; class by
        class."""
        index, group = [], []
        for k in range(self.dataset.n_classes):
            if self.dataset.paint:
                first = offset[k].sum()
                index.append(self.free[k][first : first + counts[k].sum()])
                group.append(spread(counts[k]))
                continue
            for g in np.flatnonzero(counts[k]):
                lane = self.free[k * self.dataset.n_groups + g]
                index.append(lane[offset[k, g] : offset[k, g] + counts[k, g]])
                group.append(np.full(counts[k, g], g))
        return _painted(
            self.dataset,
            self.dataset.train[np.concatenate(index)],
            np.concatenate(group),
            self.seed,
        )

    def lay_out(
        self, offset: np.ndarray, counts: np.ndarray, used: np.ndarray, t: int, T: int
    ) -> LabeledImages:
        """counts[k, g] images of each cell after the first offset[k, g], then those after the first
        used[k, g], every T-th first."""
        first, size, rest = (
            cells.sum(1) if self.dataset.paint else cells.ravel()
            for cells in (offset, counts, used)
        )
        index = []
        for lane, free in self.free.items():
            more = np.concatenate([free[rest[lane] :][(t + i) % T :: T] for i in range(T)])
            index += [
                free[first[lane] : first[lane] + size[lane]],
                more[: SHELF * size[lane]] if self.dataset.paint else more,
            ]
        images = self.dataset.train[np.concatenate(index)]
        return _in_every_group(self.dataset, images, self.seed) if self.dataset.paint else images

    def of_purpose(self, purpose: str) -> np.ndarray:
        """Positions of the instruments of one purpose among the training images."""
        edges = np.cumsum([0.0, *_PURPOSES.values()])
        position = list(_PURPOSES).index(purpose)
        share = edges[position : position + 2]
        parts = []
        for index in self.set_aside.values():
            low, high = (int(edge * len(index) + 0.5) for edge in share)
            parts.append(index[low:high])
        return np.concatenate(parts)

    def instruments(self, purpose: str) -> LabeledImages:
        """The instruments of one purpose; where groups are painted, every photograph in every
        group."""
        chosen = self.dataset.train[self.of_purpose(purpose)]
        if not self.dataset.paint:
            return chosen
        return _in_every_group(self.dataset, chosen, "instruments")


def in_told_order(
    images: LabeledImages, told: np.ndarray, condition: str, n_groups: int, seed: int
) -> LabeledImages:
    """The images in the order in which a generator is told their conditions, groups mixed within a
    condition.

    told     (N,) int   each condition as often as the images have it
    """
    images = images[np.random.default_rng(seed).permutation(len(images))]
    have = condition_of(images, condition, n_groups)
    order = np.empty(len(images), np.int64)
    for c in np.unique(have):
        order[told == c] = np.flatnonzero(have == c)
    return images[order]


def _painted(
    dataset: Dataset, images: LabeledImages, group: np.ndarray, seed: int | str
) -> LabeledImages:
    if dataset.paint is None:
        return images
    return replace(
        images, images=dataset.paint(images.images, group, images.unit, seed), group=group
    )


def _as_it_is(
    images: np.ndarray, group: np.ndarray, unit: np.ndarray, seed: int | str
) -> np.ndarray:
    """The images themselves, in place of `Dataset.paint`."""
    return images


def _in_every_group(dataset: Dataset, images: LabeledImages, seed: int | str) -> LabeledImages:
    n, g = len(images), dataset.n_groups
    return _painted(dataset, images[np.repeat(np.arange(n), g)], np.tile(np.arange(g), n), seed)


def _test_images(dataset: Dataset, e: Experiment) -> LabeledImages:
    """n_test test photographs, balanced over classes (and groups), as far as they go where the
    start is as found; painted ones are shown in every group, with looks that depend on the
    photograph alone, so that gaps between groups are paired."""
    test = dataset.test
    lanes = test.label if dataset.paint else test.label * dataset.n_groups + test.group
    names = np.unique(lanes)
    if e.start == AS_FOUND:
        wanted = even_test(dataset, e.n_test).ravel()[names]
    else:
        wanted = largest_remainder(np.ones(len(names)), e.n_test)
    order = np.random.default_rng(seed_for("test", dataset.checksum)).permutation(len(lanes))
    chosen = [order[lanes[order] == lane][:n] for lane, n in zip(names, wanted, strict=True)]
    index = np.sort(np.concatenate(chosen))
    return _in_every_group(dataset, test[index], "test") if dataset.paint else test[index]


def _wrong_path(e: Experiment, n_classes: int) -> list[str]:
    """A sentence if the last level of a path leaves nothing to learn from."""
    if e.path == "fewer" and (n := round(e.levels[-1] * e.n_real)) < n_classes:
        return [
            f"the arm 'fewer' ends at {e.levels[-1]:g} of n_real {e.n_real}, {n} images for "
            f"{n_classes} classes; raise n_real or lower path_points"
        ]
    if e.path == "noisier" and e.levels[-1] > 1 - 1 / n_classes:
        return [
            f"the arm 'noisier' ends at {e.levels[-1]:g} wrong labels, more than the "
            f"{1 - 1 / n_classes:g} of labels drawn blindly from {n_classes} classes; lower "
            "path_points"
        ]
    return []


def _largest_test(dataset: Dataset, start: str) -> int:
    """Images of the largest test set: balanced over classes (and groups), or all."""
    if start == AS_FOUND:
        return len(dataset.test)
    lanes = (
        dataset.test.label
        if dataset.paint
        else dataset.test.label * dataset.n_groups + dataset.test.group
    )
    _, have = np.unique(lanes, return_counts=True)
    return int(have.min()) * len(have)
