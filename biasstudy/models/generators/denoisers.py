"""The networks of the diffusion model: a lean one for small images on a CPU, and the UNet of
diffusers.

Letters: B batch, C channels, E length of what an image is told, S side on which a network works.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.context import Context
from ...core.noise import CHUNK
from .colors import Colors


class Denoiser(nn.Module):
    """A network that sees noisy images, noise levels and conditions; it sees patch x patch pixels
    as one, with 3 patch^2 channels. One condition more than there are: the null condition."""

    halvings = 0  # how often it halves the side
    memory_format = torch.channels_last

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.colors = Colors()

    @classmethod
    def multiple(cls, patch: int) -> int:
        """What the side of an image must be a multiple of."""
        return patch * 2**cls.halvings

    def place(self, context: Context) -> "Denoiser":
        """The network on the device."""
        context.place(self)
        return self.to(memory_format=self.memory_format)

    def at_once(self, side: int, context: Context) -> int:
        """Images of this side to make together."""
        return CHUNK if context.numerics.device == "cpu" else 4 * CHUNK

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, self.patch).contiguous(memory_format=self.memory_format)
        # (B, 3, side, side)
        return F.pixel_shuffle(self.of_patches(x, t.to(x.dtype), c), self.patch)

    def of_patches(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """The prediction, from and as patches; (B, 3 patch^2, S, S)."""
        raise NotImplementedError


# ---- Lean ----------------------------------------------------------------------------------------


class Lean(Denoiser):
    """Two resolutions: one residual block at the full one, `layers` with three times the channels
    at half of it, one at the full one again, which also sees what the first made. Before each of
    the first two blocks at half the resolution stands a dense part, which sees all places at once.

    Few operations beside the convolutions, and those quick on a CPU where channels come last. Each
    block begins as the identity, the whole as 0.
    """

    halvings = 1

    def __init__(
        self, channels: int, layers: int, patch: int, n_conditions: int, side: int
    ) -> None:
        super().__init__(patch)
        wide, inside = 3 * channels, side // patch
        self.waves = Waves(64)
        self.level = nn.Sequential(nn.Linear(64, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.condition = nn.Embedding(n_conditions + 1, wide)
        self.first = nn.Conv2d(3 * patch**2, channels, 3, padding=1)
        self.before = Block(channels, channels, wide)
        self.down = nn.Linear(4 * channels, wide)
        self.position = nn.Parameter(0.02 * torch.randn(inside // 2, inside // 2, wide))
        places = (inside // 2) ** 2
        self.dense = nn.ModuleList([Dense(wide, places, wide) for _ in range(min(2, layers))])
        self.middle = nn.ModuleList([Block(wide, wide, wide) for _ in range(layers)])
        self.up = nn.Linear(wide, 4 * channels)
        self.after = Block(2 * channels, channels, wide)
        self.style = zeroed(nn.Linear(wide, 2 * channels))
        self.last = zeroed(nn.Conv2d(channels, 3 * patch**2, 3, padding=1))

    def of_patches(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        # (B, E)
        told = F.silu(self.level(self.waves(t)) + self.condition(c))
        # (B, S, S, C)
        fine = self.before(self.first(x).permute(0, 2, 3, 1), told)
        b, side, _, channels = fine.shape
        pairs = fine.view(b, side // 2, 2, side // 2, 2, channels).transpose(2, 3)
        # (B, S / 2, S / 2, 3 C)
        coarse = self.down(pairs.reshape(b, side // 2, side // 2, 4 * channels))
        coarse = coarse + self.position.to(coarse.dtype)
        for i, block in enumerate(self.middle):
            if i < len(self.dense):
                coarse = self.dense[i](coarse, told)
            coarse = block(coarse, told)
        pairs = self.up(coarse).view(b, side // 2, side // 2, 2, 2, channels).transpose(2, 3)
        both = torch.cat([fine, pairs.reshape(b, side, side, channels)], -1)
        out = F.silu(styled(self.after(both, told), self.style(told)))
        return self.last(out.permute(0, 3, 1, 2))


class Block(nn.Module):
    """Two convolutions beside a shortcut, the second told the noise level and the condition;
    (B, S, S, C) to (B, S, S, C')."""

    def __init__(self, from_channels: int, to_channels: int, told: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(from_channels)
        self.one = nn.Conv2d(from_channels, to_channels, 3, padding=1)
        self.style = zeroed(nn.Linear(told, 2 * to_channels))
        self.two = zeroed(nn.Conv2d(to_channels, to_channels, 3, padding=1))
        self.shortcut: nn.Module = nn.Identity()
        if from_channels != to_channels:
            self.shortcut = nn.Linear(from_channels, to_channels)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = self.one(F.silu(self.norm(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        h = F.silu(styled(h, self.style(told)))
        return self.shortcut(x) + self.two(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Dense(nn.Module):
    """A perceptron on the whole image beside a shortcut: what is far apart must fit together.

    Each place is told in `FEW` numbers; (B, S, S, C) to (B, S, S, C).
    """

    FEW, HIDDEN = 16, 512

    def __init__(self, channels: int, places: int, told: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.few = nn.Linear(channels, self.FEW)
        self.one = nn.Linear(places * self.FEW, self.HIDDEN)
        self.style = zeroed(nn.Linear(told, 2 * self.HIDDEN))
        self.two = nn.Linear(self.HIDDEN, self.HIDDEN)
        self.three = nn.Linear(self.HIDDEN, places * self.FEW)
        self.back = zeroed(nn.Linear(self.FEW, channels))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = self.one(self.few(self.norm(x)).flatten(1))[:, None, None]
        h = F.silu(self.two(F.silu(styled(h, self.style(told)))))
        return x + self.back(F.silu(self.three(h)).view(*x.shape[:3], self.FEW))


def styled(x: Tensor, style: Tensor) -> Tensor:
    """Channels of every pixel at mean 0 and variance 1, then scaled by 1 + the first half of the
    style and shifted by the second; (B, S, S, C) and (B, 2 C)."""
    gain, shift = style[:, None, None].chunk(2, -1)
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + gain)


def zeroed(layer: Any) -> Any:
    """The layer with its weights set to 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


# ---- UNet ----------------------------------------------------------------------------------------


class UNet(Denoiser):
    """The UNet of diffusers at three resolutions, without attention."""

    halvings = 2

    def __init__(
        self, channels: int, layers: int, patch: int, n_conditions: int, side: int
    ) -> None:
        from diffusers import UNet2DModel  # slow to import

        super().__init__(patch)
        unet: Any = UNet2DModel(
            in_channels=3 * patch**2,
            out_channels=3 * patch**2,
            block_out_channels=(channels, 2 * channels, 3 * channels),
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            add_attention=False,
            norm_num_groups=8,
            num_class_embeds=n_conditions + 1,
        )
        unet.time_proj = Waves(channels)  # that of diffusers computes in float32 whatever the dtype
        self.unet = unet

    def place(self, context: Context) -> "Denoiser":
        """The network on the device. In bfloat16 a CPU normalises groups ten times more slowly
        where channels come last (1.37 times longer to sample), so there memory is contiguous."""
        if context.numerics.precision == "bf16" and context.numerics.device == "cpu":
            self.memory_format = torch.contiguous_format
        return super().place(context)

    def at_once(self, side: int, context: Context) -> int:
        """Images of this side to make together: diffusers copies large images from 64 on."""
        if context.numerics.device == "cpu" and self.memory_format == torch.channels_last:
            return max(1, min(CHUNK, 48 * 32**2 // (side // self.patch) ** 2))
        return super().at_once(side, context)

    def of_patches(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self.unet(x, t, c).sample


class Waves(nn.Module):
    """Times as cosines and sines of falling frequency, in the dtype of the times; (B,) to (B,
    width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        half = self.width // 2
        frequency = torch.exp(
            -math.log(10000) / half * torch.arange(half, dtype=t.dtype, device=t.device)
        )
        angle = t[:, None] * frequency
        return torch.cat([angle.cos(), angle.sin()], 1)


NETWORKS: dict[str, type[Denoiser]] = {"lean": Lean, "unet": UNet}
