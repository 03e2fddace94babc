"""What models must give back, checked where they give it: one sentence with the model's name says
what is wrong, before it becomes a result."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..core.checks import shown
from ..core.registry import Entry

NEAR_ONE = 0.01  # how far from 1 the probabilities of an image may sum, also in bfloat16


def check_state(model: Entry, state: Any) -> dict[str, Tensor]:
    """What `fit` of a model returned; ValueError unless it is a dictionary of tensors."""
    whose = f"{model.noun} {model.name!r}: fit must return a dictionary of tensors by name"
    if not isinstance(state, Mapping):
        raise ValueError(f"{whose}; got {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{whose}; got {type(value).__name__} under {shown(name)}")
    return dict(state)


def check_images(model: Entry, images: Any, n: int) -> np.ndarray:
    """What `sample` of a generator returned; ValueError unless it is (n, 3, H, W) uint8."""
    whose = f"{model.noun} {model.name!r}: sample must return an array ({n}, 3, H, W) of uint8"
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{whose}; got {type(images).__module__}.{type(images).__name__}")
    square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not square or len(images) != n or images.dtype != np.uint8:
        raise ValueError(f"{whose}, H = W; got {images.shape} of {images.dtype}")
    return images


def check_probabilities(model: Entry, probability: Any, n: int) -> np.ndarray:
    """What `predict` of a classifier returned; ValueError unless it is (n, classes), finite, not
    below 0, and each row sums to 1."""
    whose = f"{model.noun} {model.name!r}: predict must return an array ({n}, classes)"
    if not isinstance(probability, np.ndarray):
        type_ = type(probability)
        raise ValueError(f"{whose}; got {type_.__module__}.{type_.__name__}")
    if probability.ndim != 2 or len(probability) != n or not probability.shape[1]:
        raise ValueError(f"{whose}; got {probability.shape}")
    if n == 0:
        return probability
    if not np.isfinite(probability).all():
        raise ValueError(f"{whose} of probabilities; some are not finite")
    away = np.abs(probability.sum(1, dtype=np.float64) - 1).max()
    if probability.min() < -NEAR_ONE or away > NEAR_ONE:
        raise ValueError(
            f"{whose} of probabilities that sum to 1 for each image; got {probability.min():g} to "
            f"{probability.max():g}, sums up to {away:.3g} away from 1"
        )
    return probability
