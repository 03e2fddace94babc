"""What a generator is told about each image: its class, or its class and group."""

import functools
from dataclasses import dataclass

import numpy as np

from ..core.counts import spread
from .images import UNKNOWN, LabeledImages


def condition_of(images: LabeledImages, condition: str, n_groups: int) -> np.ndarray:
    """What a generator is told about each image: its class, or under condition `group` its cell
    class * n_groups + group."""
    return images.label if condition == "class" else images.label * n_groups + images.group


@dataclass(frozen=True)
class Conditions:
    """What the generator of one generation is told, image by image, in exact counts.

    counts      images of each condition: of each class, or under condition `group` of each cell
                class * n_groups + group
    n_fresh     so many images at the front are not asked of the generator: the reserve gives them
    condition   "class" or "group"
    n_groups    groups of the data set
    """

    counts: tuple[int, ...]
    n_fresh: int
    condition: str
    n_groups: int

    @property
    def id(self) -> list:
        """How they enter the key of a stage; conditions that are never told do not."""
        last = max((c + 1 for c, n in enumerate(self.counts) if n), default=0)
        return [list(self.counts[:last]), self.n_fresh, self.condition, self.n_groups]

    @functools.cached_property
    def of_batch(self) -> np.ndarray:
        """Condition of every image of a batch, each condition spread evenly over it; (q,) int."""
        return spread(np.array(self.counts, np.int64))

    @property
    def asked(self) -> np.ndarray:
        """Conditions of the images that the generator makes, in order; (q - n_fresh,) int."""
        return self.of_batch[self.n_fresh :]

    @property
    def quota(self) -> np.ndarray:
        """Images of each condition that the generator makes; (n_conditions,) int."""
        return np.bincount(self.asked, minlength=len(self.counts))

    def label(self, told: np.ndarray) -> np.ndarray:
        """Class of images that were told these conditions."""
        return told if self.condition == "class" else told // self.n_groups

    def labeled(self, images: np.ndarray, told: np.ndarray, origin: int) -> LabeledImages:
        """Generated images with the class, and under condition `group` the group, they were told.

        images   (N, C, H, W) uint8
        told     (N,) int             their conditions
        origin   int                  the generation whose generator made them
        """
        group = np.full(len(told), UNKNOWN) if self.condition == "class" else told % self.n_groups
        return LabeledImages(images, self.label(told), group, np.full(len(told), origin))
