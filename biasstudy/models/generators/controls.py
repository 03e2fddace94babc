"""Generators that generate nothing new: the control arms `real` and `resample`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.checks import within
from ...core.context import Context
from ...core.noise import uniform_of_images
from ...core.registry import GENERATORS
from ...data.images import LabeledImages

State = dict[str, Tensor]


@GENERATORS.register("reserve", version=1)
@dataclass(frozen=True)
class Reserve:
    """Fresh real images: what a perfect generator would make. The reserve slice comes in the order
    in which it is told.

    stream  int >= 0   another stream hands out other images of the reserve: two controls that
                       differ by chance alone
    """

    stream: int = 0

    def __post_init__(self) -> None:
        within("reserve", self, stream=(0, 10**5))

    def fit(
        self,
        pool: LabeledImages,
        told: np.ndarray,
        reserve_t: LabeledImages | None,
        *,
        seed: int,
        context: Context,
        previous: State | None = None,
    ) -> State:
        assert reserve_t is not None, "the generator 'reserve' was not given its real images"
        return {"images": torch.as_tensor(reserve_t.images)}

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        if first_index + len(told) > len(state["images"]):
            raise ValueError(
                f"the reserve slice has {len(state['images'])} images; {first_index + len(told)} "
                "were asked for"
            )
        return state["images"][first_index : first_index + len(told)].numpy()


@GENERATORS.register("resample", version=1)
@dataclass(frozen=True)
class Resample:
    """Bootstrap of the pool within each told condition: what sampling alone does to shares and
    variety."""

    def fit(
        self,
        pool: LabeledImages,
        told: np.ndarray,
        reserve_t: LabeledImages | None,
        *,
        seed: int,
        context: Context,
        previous: State | None = None,
    ) -> State:
        return {"images": torch.as_tensor(pool.images), "told": torch.as_tensor(told)}

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        uniform = uniform_of_images(first_index, len(told), seed)
        known, index = state["told"].numpy(), np.empty(len(told), np.int64)
        for condition in np.unique(told):
            members, asked = np.flatnonzero(known == condition), told == condition
            if not len(members):
                raise ValueError(
                    f"resample was told condition {condition}, which its training set does not have"
                )
            index[asked] = members[(uniform[asked] * len(members)).astype(np.int64)]
        return state["images"].numpy()[index]
