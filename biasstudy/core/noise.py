"""Noise by name and number: that of image i or step i depends on nothing else, so runs are paired
and resumed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .context import Context
from .seeds import seed_for

CHUNK = 256  # images whose noise is drawn together; part of the definition of every sample


def generator_for(*names: Any) -> torch.Generator:
    """A CPU random number generator for the stream with this name."""
    return torch.Generator().manual_seed(seed_for(*names))


def noise(shape: tuple[int, ...], context: Context, *names: Any) -> Tensor:
    """Standard normal numbers of the stream with this name, drawn on the CPU so that all devices
    see the same.

    In float32 torch draws them with vector instructions, whose last bits differ between kinds of
    CPU; in float64 not.
    """
    return context.tensor(
        torch.randn(shape, generator=generator_for(*names), dtype=context.numerics.dtype)
    )


def noise_of_images(
    first_index: int, n: int, shape: tuple[int, ...], seed: int, context: Context
) -> Tensor:
    """Noise of images first_index ... first_index + n - 1; that of image i depends on (seed, i)
    only; (n, *shape)."""
    chunks = range(first_index // CHUNK, -(-(first_index + n) // CHUNK))
    dtype = context.numerics.dtype
    drawn = [
        torch.randn((CHUNK, *shape), generator=generator_for(seed, "images", c), dtype=dtype)
        for c in chunks
    ]
    start = first_index % CHUNK
    return context.tensor(torch.cat(drawn)[start : start + n])


def uniform_of_images(first_index: int, n: int, seed: int) -> np.ndarray:
    """One uniform number in [0, 1) for each of n images; that of image i depends on (seed, i)
    only."""
    chunks = range(first_index // CHUNK, -(-(first_index + n) // CHUNK))
    drawn = torch.cat(
        [
            torch.rand(CHUNK, generator=generator_for(seed, "pick", c), dtype=torch.float64)
            for c in chunks
        ]
    )
    start = first_index % CHUNK
    return drawn[start : start + n].numpy()
