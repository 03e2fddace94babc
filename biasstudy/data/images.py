"""Images with their labels and groups: what passes between all parts of the loop.

A data set is a function that returns a `Dataset`. Letters: N images, C channels, H W pixels. Not
here: loaders (`datasets/`), how an experiment draws its real data (`real.py`), training sets
(`pools.py`).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

REAL = -1  # origin of a real image; a generated one has the generation whose generator made it
UNKNOWN = -1  # group of an image that nobody told
DESIGNS = ("crossed", "nested", "grouped")


def design_of(occurs: np.ndarray) -> str:
    """The one of DESIGNS in which classes and groups meet; empty where both say the same.

    occurs   (n_classes, n_groups) bool   which groups a class has; a class or group may have none
    """
    one_class, one_group = (occurs.sum(0) <= 1).all(), (occurs.sum(1) <= 1).all()
    if one_class and one_group:
        return ""
    if one_class:
        return "nested"
    return "grouped" if one_group else "crossed"


@dataclass(frozen=True)
class LabeledImages:
    """Images with label, group and origin; checked at birth.

    images   (N, C, H, W) uint8    0..255
    label    (N,) int              training label, 0..n_classes - 1
    group    (N,) int              0..n_groups - 1, or UNKNOWN
    origin   (N,) int              REAL, or the generation whose generator made the image
    unit     (N,) int              images made from the same photograph share it (the unit that
                                   statistics resample)
    mask     (N, H, W) bool        object pixels, where the data set has them
    raises   ValueError            if lengths, types or ranges do not fit
    """

    images: np.ndarray
    label: np.ndarray
    group: np.ndarray
    origin: np.ndarray = None  # type: ignore[assignment]   # default: REAL
    unit: np.ndarray = None  # type: ignore[assignment]   # default: every image its own
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images must be uint8 (N, C, H, W); got {self.images.dtype} {self.images.shape}"
            )
        fill = {"origin": np.full(n, REAL), "unit": np.arange(n)}
        for name in ("label", "group", "origin", "unit"):
            given = getattr(self, name)
            value = np.asarray(fill[name] if given is None else given)
            if value.shape != (n,) or value.dtype.kind not in "iu":
                raise ValueError(
                    f"{name} must be {n} whole numbers, one per image; got {value.dtype} "
                    f"{value.shape}"
                )
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
        return LabeledImages(
            self.images[index],
            self.label[index],
            self.group[index],
            self.origin[index],
            self.unit[index],
            mask,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, for the store."""
        values = {
            name: getattr(self, name)
            for name in ("images", "label", "group", "origin", "unit", "mask")
        }
        return {name: value for name, value in values.items() if value is not None}

    def counts(self, n_classes: int, n_groups: int) -> np.ndarray:
        """Images per class and group, (n_classes, n_groups) int64; images of unknown group are not
        counted."""
        known = self.group >= 0
        table = np.zeros((n_classes, n_groups), np.int64)
        np.add.at(table, (self.label[known], self.group[known]), 1)
        return table


def concatenate(parts: list[LabeledImages]) -> LabeledImages:
    """All images of the parts, in order (masks are dropped: generated images have none)."""
    names = ("images", "label", "group", "origin", "unit")
    return LabeledImages(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in names)
    )


@dataclass(frozen=True)
class Dataset:
    """What a data set function returns: all its real images, and what is known about their groups.

    train      LabeledImages   everything that start, reserve and instruments are drawn from
    test       LabeledImages   measured on, never trained on
    classes    n_classes names, in the order of the labels
    groups     n_groups names, in the order of the group numbers
    design     "crossed" (every group meets every class), "nested" (a group belongs to one class) or
               "grouped"
    checksum   names the raw content; two sources with one checksum hold the same images
    paint      None where nature fixes the group. Else paint(images, group, unit, seed) -> images
               gives images (N, C, H, W) the looks of a group; the look of photograph `unit` depends
               on (unit, seed) alone
    probe      None: a classifier fitted to instruments tells groups. Else probe(images) -> (group
               (N,) int, UNKNOWN where unclear), exact
    n_instruments   images set aside from `train` for the measuring devices, equally many of each
               class and group
    n_as_found  so many where the start is as found, of a rare class and group at most a third;
               None: n_instruments
    presets    starts by name: the groups that such a start thins, whatever the seed
    majority   of a crossed design: the group that a biased start favours in every class; None: one
               per class, drawn per seed
    set_aside  None, or positions in `train` of the images that became instruments when the groups
               were made: the instruments are drawn from them, and nothing else is
    caption    what every figure must say about these data, beside their name
    report     sentences about how the groups were made and what was left out, for the first output
               of a notebook
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
    presets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    majority: int | None = None
    set_aside: np.ndarray | None = None
    caption: str = ""
    report: tuple[str, ...] = ()
    n_as_found: int | None = None

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise ValueError(f"unknown design {self.design!r}; known: {', '.join(DESIGNS)}")
        for part in (self.train, self.test):
            if len(part) and (
                part.label.max() >= len(self.classes) or part.group.max() >= len(self.groups)
            ):
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
