"""Training sets by how they were made: parts of the real data, pools of parts; named before
anything is loaded."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.seeds import digest
from ..core.store import Lazy
from .images import LabeledImages, concatenate

ORIGINS = ("start", "reserve", "batch")  # where images of a pool come from


@dataclass(frozen=True, eq=False)
class Part:
    """Images drawn from a data set, named by how they were drawn; rendered when first needed.

    draw        -> the images
    draw_bare   -> the same without the looks of their groups, which take time to paint
    """

    derivation: dict[str, Any]
    draw: Callable[[], LabeledImages]
    draw_bare: Callable[[], LabeledImages]
    inputs: Mapping[str, Any] = field(default_factory=dict)  # it rests on nothing that is stored

    @functools.cached_property
    def id(self) -> str:
        return digest(self.derivation)

    @functools.cached_property
    def _value(self) -> LabeledImages:
        return self.draw()

    @functools.cached_property
    def _bare(self) -> LabeledImages:
        return self.draw_bare()

    def load(self) -> LabeledImages:
        return self._value

    def labels(self) -> LabeledImages:
        """The images for who asks for labels, groups and units alone: perhaps without looks."""
        return self._value if "_value" in self.__dict__ else self._bare


@dataclass(frozen=True, eq=False)
class Member:
    """Images that enter a pool together: a part, a batch, or another pool.

    images       loads as LabeledImages
    came_from    one of ORIGINS; of a pool: its own members say
    conditions   (N,) int   what a generator is told about each; empty where the protocol does not
                            draw by them
    index        positions of those that enter, (n,) int or something that loads as such; None: all
    probed       what the probe says of their groups ("told"); None: the data say
    """

    images: Lazy
    came_from: str = ""
    conditions: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    index: Any = None
    probed: Lazy | None = None

    @property
    def positions(self) -> Any:
        """Where the images are that enter the pool: (n,) int, or a slice of all."""
        if self.index is None:
            return slice(None)
        return self.index.load() if hasattr(self.index, "load") else self.index

    @property
    def index_id(self) -> str | None:
        if self.index is None:
            return None
        return self.index.id if hasattr(self.index, "id") else digest(self.index.tolist())


@dataclass(frozen=True, eq=False)
class Pool:
    """Training set of one generation: members in order. Its id hashes them and their positions."""

    members: tuple[Member, ...]

    @property
    def id(self) -> str:
        return digest([[member.images.id, member.index_id] for member in self.members])

    @property
    def inputs(self) -> dict[str, Any]:
        images = {f"images {i}": member.images for i, member in enumerate(self.members)}
        return images | {f"index {i}": member.index for i, member in enumerate(self.members)}

    def load(self) -> LabeledImages:
        loaded = [
            member.images.load() if member.index is None else member.images.load()[member.positions]
            for member in self.members
        ]
        return loaded[0] if len(loaded) == 1 else concatenate(loaded)


@dataclass(frozen=True, eq=False)
class Groups:
    """Group of each image of several members, one after another: as their data say or, where
    there is one, as a probe says."""

    members: tuple[Member, ...]

    @property
    def id(self) -> str:
        pairs = [[m.images.id, m.probed and m.probed.id] for m in self.members]
        drawn = [[] if m.index is None else [m.index_id] for m in self.members]
        return digest([pair + index for pair, index in zip(pairs, drawn, strict=True)])

    @property
    def inputs(self) -> dict[str, Any]:
        of_all = Pool(self.members).inputs
        return of_all | {f"probed {i}": member.probed for i, member in enumerate(self.members)}

    def load(self) -> np.ndarray:
        groups = [
            m.probed.load()["told"] if m.probed else m.images.load().group for m in self.members
        ]
        return np.concatenate([g[m.positions] for g, m in zip(groups, self.members, strict=True)])
