"""Colours made uncorrelated, so that a squared error sees hue as well as brightness."""

import numpy as np
import torch
from torch import Tensor, nn

from ...core.noise import CHUNK


class Colors(nn.Module):
    """Linear change of colours after which those of all pixels of a training set have mean 0 and
    covariance 1.

    In RGB most of the variance is brightness; a generator that is fitted by squared errors, or that
    takes out noise of one size, then learns hue last and paints grey.
    """

    mean: Tensor
    root: Tensor
    inverse: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (
            ("mean", torch.zeros(3)),
            ("root", torch.eye(3)),
            ("inverse", torch.eye(3)),
        ):
            self.register_buffer(name, value)

    def fit(self, images: np.ndarray) -> None:
        """Take mean and covariance from images, (N, 3, H, W) uint8."""
        mean, covariance = moments(images)
        value, vector = torch.linalg.eigh(covariance)
        # also for grey images
        value = value.clamp(min=max(1e-4 * float(value.max()), 1e-8)).sqrt()
        self.mean.copy_(mean)
        self.root.copy_(vector @ value.diag() @ vector.T)
        self.inverse.copy_(vector @ value.reciprocal().diag() @ vector.T)

    def forward(self, pixels: Tensor) -> Tensor:
        """From pixels -1..1; (B, 3, H, W)."""
        return torch.einsum("ij,bjhw->bihw", self.inverse, pixels - self.mean[:, None, None])

    def back(self, x: Tensor) -> Tensor:
        """To pixels, those outside -1..1 moved to the nearest that exists; (B, 3, H, W)."""
        return (
            torch.einsum("ij,bjhw->bihw", self.root, x.to(self.root)) + self.mean[:, None, None]
        ).clamp(-1, 1)


def moments(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of the colours of all pixels, -1..1; float64, from sums of
    whole numbers."""
    total, square = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for low in range(0, len(images), CHUNK):
        # (3, pixels)
        pixels = torch.as_tensor(images[low : low + CHUNK]).transpose(0, 1).flatten(1).double()
        total, square = total + pixels.sum(1), square + pixels @ pixels.T
    n = images.size / 3
    mean = total / n
    return mean / 127.5 - 1, (square / n - mean[:, None] * mean) / 127.5**2
