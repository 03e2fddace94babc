"""Images with their labels and groups, and how an experiment draws its real data from a source.

A data set is a function that returns a `Source`; everything after that (start, reserve, instruments, test) is drawn here,
in the same way for every data set, by index arrays that hash to an id. Letters: N images, C channels, H W pixels.

Not here: loaders (`datasets/`), and what a generator makes of the data.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from .experiment import Experiment, digest, largest_remainder, seed_for, spread

REAL = -1     # origin of a real image; a generated one has the generation whose generator made it
UNKNOWN = -1  # group of an image that nobody told

DESIGNS = ("crossed", "nested", "grouped")


@dataclass(frozen=True)
class LabeledImages:
    """Images with label, group and origin; checked at birth.

    images   (N, C, H, W) uint8    0..255
    label    (N,) int              training label, 0..n_classes - 1
    group    (N,) int              0..n_groups - 1, or UNKNOWN
    origin   (N,) int              REAL, or the generation whose generator made the image
    unit     (N,) int              images made from the same photograph share it (the unit that statistics resample)
    mask     (N, H, W) bool        object pixels, where the data set has them
    raises   ValueError            if lengths, types or ranges do not fit
    """

    images: np.ndarray
    label: np.ndarray
    group: np.ndarray
    origin: np.ndarray = None  # type: ignore[assignment]   # default: REAL
    unit: np.ndarray = None    # type: ignore[assignment]   # default: every image its own
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W); got {self.images.dtype} {self.images.shape}")
        fill = {"origin": np.full(n, REAL), "unit": np.arange(n)}
        for name in ("label", "group", "origin", "unit"):
            given = getattr(self, name)
            value = np.asarray(fill[name] if given is None else given)
            if value.shape != (n,) or value.dtype.kind not in "iu":
                raise ValueError(f"{name} must be {n} whole numbers, one per image; got {value.dtype} {value.shape}")
            object.__setattr__(self, name, value.astype(np.int64))
        if n and self.label.min() < 0:
            raise ValueError(f"labels start at 0; got {self.label.min()}")
        if self.mask is not None and self.mask.shape != (n, *self.images.shape[2:]):
            raise ValueError(f"a mask has the height and width of its image; got {self.mask.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> "LabeledImages":
        """The images at these positions (slice, index array or boolean mask)."""
        mask = None if self.mask is None else self.mask[index]
        return LabeledImages(self.images[index], self.label[index], self.group[index], self.origin[index], self.unit[index],
                             mask)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, for the store."""
        found = {name: getattr(self, name) for name in ("images", "label", "group", "origin", "unit", "mask")}
        return {name: value for name, value in found.items() if value is not None}

    def counts(self, n_classes: int, n_groups: int) -> np.ndarray:
        """Images per class and group, (n_classes, n_groups) int64; images of unknown group are not counted."""
        known = self.group >= 0
        table = np.zeros((n_classes, n_groups), np.int64)
        np.add.at(table, (self.label[known], self.group[known]), 1)
        return table


def concatenate(parts: list[LabeledImages]) -> LabeledImages:
    """All images of the parts, in order (masks are dropped: generated images have none)."""
    names = ("images", "label", "group", "origin", "unit")
    return LabeledImages(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Source:
    """What a data set function returns: all its real images, and what is known about their groups.

    train      LabeledImages   everything that start, reserve and instruments are drawn from
    test       LabeledImages   measured on, never trained on
    classes    n_classes names, in the order of the labels
    groups     n_groups names, in the order of the group numbers
    design     "crossed" (every group meets every class), "nested" (a group belongs to one class) or "grouped"
    checksum   names the raw content; two sources with one checksum hold the same images
    paint      None where nature fixes the group. Else paint(images, group, unit, seed) -> images gives images (N, C, H, W)
               the looks of a group; the look of photograph `unit` depends on (unit, seed) alone
    probe      None: a classifier fitted to instruments tells groups. Else probe(images) -> (group (N,) int, UNKNOWN where
               unclear), exact
    n_instruments   images set aside from `train` for the measuring devices
    """

    train: LabeledImages
    test: LabeledImages
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    design: str
    checksum: str
    n_instruments: int
    paint: Callable[..., np.ndarray] | None = None
    probe: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise ValueError(f"unknown design {self.design!r}; known: {', '.join(DESIGNS)}")
        for part in (self.train, self.test):
            if len(part) and (part.label.max() >= len(self.classes) or part.group.max() >= len(self.groups)):
                raise ValueError("a label or group has no name in `classes` or `groups`")

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def n_groups(self) -> int:
        return len(self.groups)

    @functools.cached_property
    def occurs(self) -> np.ndarray:
        """(n_classes, n_groups) bool: which groups a class has."""
        if self.paint:
            return np.ones((self.n_classes, self.n_groups), bool)
        return self.train.counts(self.n_classes, self.n_groups) > 0


@functools.lru_cache(maxsize=4)
def _source(name: str, options: tuple[tuple[str, Any], ...]) -> Source:
    from .experiment import DATASETS
    return DATASETS[name].target(**dict(options))


def source_of(experiment: Experiment) -> Source:
    """The data set of an experiment, loaded once per process."""
    return _source(experiment.dataset, tuple(sorted(experiment.dataset_entry.resolve(experiment.dataset_options).items())))


# ---- Starts ----------------------------------------------------------------------------------------------------------

def shares_of_start(source: Source, start: str, bias: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of each group in its class in the real training set, and which cells the start favours.

    Crossed: P(group = majority | class) = bias + (1 - bias) / n_groups, the others equal; the majority group of class k
    is pi(k mod n_groups), pi drawn per seed. Nested: inside a class weights 1 and 1 - bias; two fifths of its groups, drawn
    per seed, are thinned. Unbiased: all groups of a class equal.

    returns  shares (n_classes, n_groups) float, rows sum to 1;
             favoured (n_classes, n_groups) int: 1 favoured, -1 not, 0 where the start favours nothing or the group does
             not occur
    source   ours
    """
    occurs, rng = source.occurs, np.random.default_rng(seed_for(seed, "start", "favoured"))
    favoured = np.zeros(occurs.shape, np.int64)
    weights = occurs.astype(float)
    if start == "biased":
        if source.design == "crossed":
            majority = rng.permutation(source.n_groups)[np.arange(source.n_classes) % source.n_groups]
            favoured = np.where(np.arange(source.n_groups) == majority[:, None], 1, -1)
            weights = np.where(favoured > 0, bias + (1 - bias) / source.n_groups, (1 - bias) / source.n_groups)
        else:
            for k in range(source.n_classes):
                groups = np.flatnonzero(occurs[k])
                thinned = rng.permutation(groups)[: max(1, round(0.4 * len(groups)))]
                favoured[k, groups], favoured[k, thinned], weights[k, thinned] = 1, -1, 1 - bias
    return weights / weights.sum(1, keepdims=True), favoured


# ---- Drawing ---------------------------------------------------------------------------------------------------------

class Lazy(Protocol):
    """Something with an id that is known before its value: a stage, a drawn part, a pool."""

    @property
    def id(self) -> str: ...
    def load(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Part:
    """Images drawn from a source, named by how they were drawn; rendered when first needed."""

    derivation: dict[str, Any]
    draw: Callable[[], LabeledImages]

    @functools.cached_property
    def id(self) -> str:
        return digest(self.derivation)

    @functools.cached_property
    def _value(self) -> LabeledImages:
        return self.draw()

    def load(self) -> LabeledImages:
        return self._value


@dataclass(frozen=True, eq=False)
class Pool:
    """Training set of one generation: parts in order, each whole or at given positions. Its id hashes that list."""

    parts: tuple[tuple[Lazy, np.ndarray | None], ...]

    @property
    def id(self) -> str:
        return digest([[part.id, None if index is None else digest(index.tolist())] for part, index in self.parts])

    def load(self) -> LabeledImages:
        loaded = [part.load() if index is None else part.load()[index] for part, index in self.parts]
        return loaded[0] if len(loaded) == 1 else concatenate(loaded)


@dataclass(frozen=True)
class Draw:
    """The real data of one experiment: `start`, `test`, `instruments` by purpose and the reserve slices, all disjoint.

    shares     (n_classes, n_groups) float   share of each group in its class in the start, realised
    favoured   (n_classes, n_groups) int     see shares_of_start
    sizes      images per class: available, in start, in the whole reserve, in instruments
    """

    source: Source
    start: Part
    test: Part
    instruments: dict[str, Part]
    reserve: Callable[[int], Part]
    counts: np.ndarray
    favoured: np.ndarray
    sizes: dict[str, int]

    def told_counts(self, condition: str, n: int) -> np.ndarray:
        """How many of n images are told each condition: the start's shares, exact by largest remainder; (n_conditions,)."""
        return largest_remainder(self.counts.sum(1) if condition == "class" else self.counts.ravel(), n)


def condition_of(images: LabeledImages, condition: str, n_groups: int) -> np.ndarray:
    """What a generator is told about each image: its class, or under condition `group` its cell class * n_groups + group."""
    return images.label if condition == "class" else images.label * n_groups + images.group


# what each share of the instruments is for; the model that filters never measures
_PURPOSES = {"oracle": 0.6, "expert": 0.2, "extractor": 0.2}
_PURPOSES_WITH_PROBE = {"oracle": 0.3, "probe": 0.4, "expert": 0.15, "extractor": 0.15}


def draw(experiment: Experiment) -> Draw:
    """Draw start, reserve, instruments and test of an experiment.

    Instruments do not depend on the seed and are balanced over class x group. The rest of each class is shuffled by the
    seed; the start takes the first images, the reserve the next ones, so the start is the same in every arm.

    raises   ValueError   if a class (and group) has too few images, saying how many it has and needs
    """
    e, source = experiment, source_of(experiment)
    shares, favoured = shares_of_start(source, e.start, e.bias, e.seed)
    per_class = largest_remainder(np.ones(source.n_classes), e.n_real)
    counts = np.stack([largest_remainder(s, n) for s, n in zip(shares, per_class, strict=True)])
    slice_counts = _slice_counts(e, counts)
    n_slices = e.n_generations if e.arm == "real" else 0
    stock = _Stock(e, source)
    stock.check(counts, slice_counts * n_slices)
    _check_test(source, e.n_test)

    name = {"dataset": e.dataset, "version": e.dataset_entry.identity, "checksum": source.checksum,
            "options": e.dataset_entry.resolve(e.dataset_options)}
    drawn = {**name, "counts": digest(counts.tolist()), "seed": e.seed}

    def reserve(t: int) -> Part:
        offset = counts + t * slice_counts
        described = {**drawn, "part": "reserve", "t": t, "slice": digest(slice_counts.tolist()), "condition": e.condition}
        return Part(described,
                    lambda: in_told_order(stock.take(slice_counts, offset), e.condition, source.n_groups,
                                          seed_for(e.seed, "reserve", t)))

    return Draw(
        source=source, counts=counts, favoured=favoured, reserve=reserve,
        start=Part({**drawn, "part": "start"}, lambda: stock.take(counts, np.zeros_like(counts))),
        test=Part({**name, "part": "test", "n_test": e.n_test}, functools.partial(_test_images, source, e.n_test)),
        instruments={purpose: Part({**name, "part": purpose}, functools.partial(stock.instruments, purpose))
                     for purpose in stock.purposes},
        sizes=stock.sizes(counts, slice_counts * n_slices))


def _slice_counts(e: Experiment, counts: np.ndarray) -> np.ndarray:
    """Images per class and group in one reserve slice: as many per told condition as one batch asks for."""
    if e.condition == "group":
        return largest_remainder(counts.ravel(), e.n_batch).reshape(counts.shape)
    told = largest_remainder(counts.sum(1), e.n_batch)
    return np.stack([largest_remainder(row, n) if n else np.zeros_like(row) for row, n in zip(counts, told, strict=True)])


class _Stock:
    """Real training images in lanes (one per class where groups are painted, else one per class x group): first the
    instruments, fixed for the data set, then the rest in the order of the seed."""

    def __init__(self, e: Experiment, source: Source) -> None:
        self.source, self.seed = source, e.seed
        self.purposes = _PURPOSES if source.probe else _PURPOSES_WITH_PROBE
        lanes = source.train.label if source.paint else source.train.label * source.n_groups + source.train.group
        fixed = np.random.default_rng(seed_for("instruments", source.checksum)).permutation(len(lanes))
        members = {lane: fixed[lanes[fixed] == lane] for lane in np.unique(lanes)}
        self.n_set_aside = source.n_instruments // len(members)
        self.set_aside = {lane: index[: self.n_set_aside] for lane, index in members.items()}
        rng = np.random.default_rng(seed_for(e.seed, "real", "order"))
        order = rng.permutation(len(lanes))
        free = {lane: np.isin(order, index[self.n_set_aside:]) for lane, index in members.items()}
        self.free = {lane: order[keep] for lane, keep in free.items()}

    def check(self, counts: np.ndarray, reserve: np.ndarray) -> None:
        need = counts + reserve
        lanes = need.sum(1) if self.source.paint else need.ravel()
        for lane, wanted in enumerate(lanes):
            have = len(self.free.get(lane, ()))
            if wanted > have:
                k, g = (lane, None) if self.source.paint else divmod(lane, self.source.n_groups)
                what = f"class {self.source.classes[k]!r}" + ("" if g is None else f", group {self.source.groups[g]!r}")
                parts = f"{counts.sum(1)[k] if g is None else counts[k, g]} for the start"
                if reserve.any():
                    parts += f" and {reserve.sum(1)[k] if g is None else reserve[k, g]} for the reserve (arm real)"
                raise ValueError(
                    f"not enough real images: {what} has {have + self.n_set_aside}, {self.n_set_aside} of them instruments, "
                    f"and needs {parts}; lower n_real, ratio or n_generations")

    def sizes(self, counts: np.ndarray, reserve: np.ndarray) -> dict[str, int]:
        per_class = np.bincount(self.source.train.label, minlength=self.source.n_classes)
        return {"available": int(per_class.min()), "start": int(counts.sum(1).max()), "reserve": int(reserve.sum(1).max()),
                "instruments": int(self.n_set_aside * len(self.set_aside) // self.source.n_classes)}

    def take(self, counts: np.ndarray, offset: np.ndarray) -> LabeledImages:
        """counts[k, g] images of each cell, after the first offset[k, g] of them; class by class."""
        index, group = [], []
        for k in range(self.source.n_classes):
            if self.source.paint:
                first = offset[k].sum()
                index.append(self.free[k][first: first + counts[k].sum()])
                group.append(spread(counts[k]))
                continue
            for g in np.flatnonzero(counts[k]):
                lane = self.free[k * self.source.n_groups + g]
                index.append(lane[offset[k, g]: offset[k, g] + counts[k, g]])
                group.append(np.full(counts[k, g], g))
        return _painted(self.source, self.source.train[np.concatenate(index)], np.concatenate(group), self.seed)

    def instruments(self, purpose: str) -> LabeledImages:
        """The instruments of one purpose; where groups are painted, every photograph in every group."""
        edges = np.cumsum([0.0, *self.purposes.values()])
        position = list(self.purposes).index(purpose)
        low, high = (int(edge * self.n_set_aside + 0.5) for edge in edges[position: position + 2])
        chosen = self.source.train[np.concatenate([index[low:high] for index in self.set_aside.values()])]
        if not self.source.paint:
            return chosen
        return _in_every_group(self.source, chosen, "instruments")


def in_told_order(images: LabeledImages, condition: str, n_groups: int, seed: int) -> LabeledImages:
    """The images in the order in which a generator would be told their conditions, groups mixed within a condition."""
    images = images[np.random.default_rng(seed).permutation(len(images))]
    have = condition_of(images, condition, n_groups)
    told = spread(np.bincount(have))
    order = np.empty(len(images), np.int64)
    for c in np.unique(have):
        order[told == c] = np.flatnonzero(have == c)
    return images[order]


def _painted(source: Source, images: LabeledImages, group: np.ndarray, seed: int | str) -> LabeledImages:
    if source.paint is None:
        return images
    return replace(images, images=source.paint(images.images, group, images.unit, seed), group=group)


def _in_every_group(source: Source, images: LabeledImages, seed: str) -> LabeledImages:
    n, g = len(images), source.n_groups
    return _painted(source, images[np.repeat(np.arange(n), g)], np.tile(np.arange(g), n), seed)


def _test_images(source: Source, n_test: int) -> LabeledImages:
    """n_test test photographs, balanced over classes (and groups); painted ones are shown in every group, with looks that
    depend on the photograph alone, so that gaps between groups are paired."""
    test = source.test
    lanes = test.label if source.paint else test.label * source.n_groups + test.group
    names = np.unique(lanes)
    wanted = largest_remainder(np.ones(len(names)), n_test)
    order = np.random.default_rng(seed_for("test", source.checksum)).permutation(len(lanes))
    chosen = [order[lanes[order] == lane][:n] for lane, n in zip(names, wanted, strict=True)]
    index = np.sort(np.concatenate(chosen))
    return _in_every_group(source, test[index], "test") if source.paint else test[index]


def _check_test(source: Source, n_test: int) -> None:
    """ValueError unless the test set has n_test images, balanced over classes (and groups)."""
    lanes = source.test.label if source.paint else source.test.label * source.n_groups + source.test.group
    _, have = np.unique(lanes, return_counts=True)
    if -(-n_test // len(have)) > have.min():
        raise ValueError(f"n_test is {n_test}, but the balanced test set has at most {have.min() * len(have)} images")
