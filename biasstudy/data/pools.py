"""Training sets by how they were made: parts of the real data, pools of parts; named before
anything is loaded."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..core.seeds import digest
from .images import LabeledImages, concatenate


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
    """Training set of one generation: parts in order, each whole or at given positions, which may
    be known only later. Its id hashes that list."""

    # index: (n,) int, something that loads as such, or None for all
    parts: tuple[tuple[Lazy, Any], ...]

    @property
    def id(self) -> str:
        return digest(
            [
                [
                    part.id,
                    None
                    if index is None
                    else index.id
                    if hasattr(index, "id")
                    else digest(index.tolist()),
                ]
                for part, index in self.parts
            ]
        )

    def load(self) -> LabeledImages:
        loaded = [
            part.load() if index is None else part.load()[positions(index)]
            for part, index in self.parts
        ]
        return loaded[0] if len(loaded) == 1 else concatenate(loaded)


def positions(index: Any) -> Any:
    """Where the images of a part are that a pool takes: (n,) int, or a slice of all."""
    return slice(None) if index is None else index.load() if hasattr(index, "load") else index


@dataclass(frozen=True, eq=False)
class Groups:
    """Group of each image of several parts, one after another: as its data say or, where there is
    one, as a probe says."""

    # images, and what the probe said of them: "told"
    parts: tuple[tuple[Lazy, Lazy | None], ...]

    @property
    def id(self) -> str:
        return digest([[images.id, said and said.id] for images, said in self.parts])

    def load(self) -> np.ndarray:
        return np.concatenate(
            [said.load()["told"] if said else images.load().group for images, said in self.parts]
        )
