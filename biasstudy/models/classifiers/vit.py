"""A small vision transformer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.checks import within
from ...core.registry import CLASSIFIERS
from .networks import Deep


@CLASSIFIERS.register("vit", version=1, warm=True, features=True)
@dataclass(frozen=True)
class ViT(Deep):
    """A small vision transformer from scratch, for images of 16 to 64 pixels; its features are the
    mean of the patches.

    patch   int >= 1    side of a patch in pixels; divides the side of the images
    width   int >= 1    numbers that describe a patch; a multiple of heads
    depth   int >= 1    layers: attention, then 4 width hidden units, each normalised before and
                        added
    heads   int >= 1    of attention
    source  Dosovitskiy et al. 2021; the mean in place of a class token after Beyer et al. 2022,
            arXiv 2205.01580
    """

    rate: float = 5e-4
    decay: float = 0.05
    patch: int = 4
    width: int = 192
    depth: int = 6
    heads: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        within("vit", self, patch=(1, 512), width=(1, 8192), depth=(1, 128), heads=(1, 512))
        if self.width % self.heads:
            raise ValueError(
                f"vit: width must be a multiple of heads; got {self.width} and {self.heads}"
            )

    def check_side(self, side: int) -> None:
        """ValueError unless images of this side can be cut into patches."""
        if side % self.patch:
            raise ValueError(
                f"vit: patch must divide the side of the images; got {self.patch} and {side}"
            )

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        self.check_side(height)
        return nn.Sequential(
            _Patches(channels, height // self.patch, self.patch, self.width),
            *(
                nn.TransformerEncoderLayer(
                    self.width,
                    self.heads,
                    4 * self.width,
                    dropout=0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(self.depth)
            ),
            nn.LayerNorm(self.width),
            _Mean(),
            nn.Linear(self.width, n_classes),
        )


class _Patches(nn.Module):
    """Images (B, C, H, W) as patches with their places, (B, side * side, width)."""

    def __init__(self, channels: int, side: int, patch: int, width: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(channels, width, patch, patch)
        self.place = nn.Parameter(torch.randn(side * side, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(x).flatten(2).mT + self.place


class _Mean(nn.Module):
    """Mean over patches."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)
