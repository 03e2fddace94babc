"""A small network that learns photographs of 32 pixels in few steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checks import within
from ...core.context import Context
from ...core.registry import CLASSIFIERS
from .networks import Network, called

PEAK = 0.25  # of all steps, after which the rate falls
WHITENING = 5e-4  # added to the variances of patches with pixels -1..1
PIECE = 500  # images over which batch statistics are averaged at the end
SMALLEST = 9  # side of images from which a pixel is left after three halvings


@CLASSIFIERS.register("airbench", version=1, warm=True, features=True)
@dataclass(frozen=True)
class AirBench(Network):
    """A fixed whitening layer and three pairs of 3 x 3 convolutions, fitted in few steps by
    orthogonalised gradients.

    The first layer is no choice of the fit: 2 x 2 patches of the pool, whitened (ZCA), and their
    negatives; a warm start keeps it. Convolutions begin as the identity where they can; their
    gradients are orthogonalised (`Muon`), all others follow Nesterov momentum. The rate rises to
    its peak over a quarter of the steps and falls to 0 in a line. After the last step the
    statistics of batch normalisation are averaged over the whole pool. With `flip` an image counts
    as the mean of itself and its mirror image when it is told.

    width      int >= 1          channels of the first pair; the others have four times as many
    smoothing  float in [0, 1)   of the labels: the share that all classes divide among them
    flip       bool              off, for digits and letters must not be mirrored; photographs want
                                 it on
    decay      float >= 0        of biases and the last layer; convolutions keep their norm
    source     ideas of Jordan 2024, arXiv 2404.00498, and its program airbench; ours in size, steps
               and rates
    """

    batch: int = 128
    rate: float = 0.1
    decay: float = 0.0
    width: int = 32
    smoothing: float = 0.2

    recipe: ClassVar[tuple[str, ...]] = (*Network.recipe, "smoothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        within(called(self), self, width=(1, 4096))
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"{called(self)}: smoothing must be in [0, 1); got {self.smoothing}")

    def check_side(self, side: int) -> None:
        """ValueError unless a pixel is left of images of this side."""
        if side < SMALLEST:
            raise ValueError(
                f"{called(self)}: images need a side of at least {SMALLEST} pixels; got {side}"
            )

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        self.check_side(height)
        first, wide = nn.Conv2d(channels, 8 * channels, 2), 4 * self.width
        first.weight.requires_grad_(False)
        body = nn.Sequential(
            first,
            nn.GELU(),
            *_pair(8 * channels, self.width),
            *_pair(self.width, wide),
            *_pair(wide, wide),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        return nn.Sequential(_BothWays(body, self.flip), nn.Linear(wide, n_classes, bias=False))

    def _inherit(self, network: nn.Sequential, images: np.ndarray) -> None:
        both: Any = network[0]
        first, whiten = both.body[0], whitening_of(images)
        with torch.no_grad():
            first.weight.copy_(torch.cat([whiten, -whiten]))
            first.bias.zero_()

    def _optimizer(self, network: nn.Sequential, context: Context) -> torch.optim.Optimizer:
        body = [weight for weight in network[0].parameters() if weight.requires_grad]
        convolutions = [weight for weight in body if weight.dim() == 4]
        others = [weight for weight in body if weight.dim() == 1]
        groups = [
            {"params": convolutions, "orthogonal": True, "share": 1.0, "momentum": 0.6},
            {"params": others, "decay": self.decay, "share": 1.0},
            {"params": list(network[1].parameters()), "decay": self.decay, "share": 5.0},
        ]
        return context.optimizer(Muon, groups, self.rate)

    def _loss(self, output: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(output, label, label_smoothing=self.smoothing)

    def _share_of_rate(self, i: int) -> float:
        peak = PEAK * self.steps
        return 0.2 + 0.8 * i / peak if i < peak else (self.steps - i) / (self.steps - peak)

    def _settle(self, network: nn.Sequential, images: np.ndarray, context: Context) -> None:
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None  # the mean over all pieces
        with torch.no_grad(), context.numerics.autocast():
            for piece in np.array_split(images, -(-len(images) // PIECE)):
                network(context.pixels(piece))


def _pair(c_in: int, c_out: int) -> list[nn.Module]:
    """Two convolutions, the image halved between them."""
    return [
        _identical(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)),
        nn.MaxPool2d(2),
        _normalised(c_out),
        nn.GELU(),
        _identical(nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)),
        _normalised(c_out),
        nn.GELU(),
    ]


def _identical(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution, its first channels those that it sees."""
    nn.init.dirac_(convolution.weight[: convolution.in_channels].detach())
    return convolution


def _normalised(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation that learns a constant alone."""
    layer = nn.BatchNorm2d(channels)
    layer.weight.requires_grad_(False)
    return layer


class _BothWays(nn.Module):
    """What a network makes of an image; after training, if so asked, the mean over it and its
    mirror image."""

    def __init__(self, body: nn.Sequential, mirrored: bool) -> None:
        super().__init__()
        self.body, self.mirrored = body, mirrored

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.mirrored:
            return self.body(x)
        return (self.body(x) + self.body(x.flip(3))) / 2


def whitening_of(images: np.ndarray) -> Tensor:
    """(covariance + WHITENING I)^(-1/2) of 2 x 2 patches, side by side, with pixels -1..1; as
    filters, (4 C, C, 2, 2) float64.

    The symmetric root: eigenvectors have no sign that computers could choose differently.
    """
    n, channels, height, width = images.shape
    total, square, count = torch.zeros(4 * channels), torch.zeros(4 * channels, 4 * channels), 0
    total, square = total.double(), square.double()
    for piece in np.array_split(images, -(-n // PIECE)):
        x = torch.as_tensor(piece[:, :, : height // 2 * 2, : width // 2 * 2]).double() / 127.5 - 1
        x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)
        total, square, count = total + x.sum(0), square + x.T @ x, count + len(x)
    mean = total / count
    variance, direction = torch.linalg.eigh(square / count - mean[:, None] * mean)
    root = (direction / (variance.clamp(min=0) + WHITENING).sqrt()) @ direction.T
    return root.reshape(-1, channels, 2, 2)


class Muon(torch.optim.Optimizer):
    """Momentum whose step, for groups with `orthogonal`, is the orthogonal matrix nearest to it.

    b = momentum b + gradient, u = gradient + momentum b. A weight w (c_out, ...) of such a group is
    scaled to norm sqrt(c_out) and moved by -rate times the nearly orthogonal matrix of u; any other
    by -rate (u + decay w).

    source   Jordan et al. 2024 (Muon): Newton-Schulz of order 5, three times
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: Any,
        capturable: bool = False,
        fused: bool = False,
    ) -> None:
        usual = {"lr": lr, "momentum": 0.85, "decay": 0.0, "orthogonal": False}
        super().__init__(groups, usual)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                memory = state["momentum"]
                memory.mul_(group["momentum"]).add_(weight.grad)
                move = weight.grad + group["momentum"] * memory
                if group["orthogonal"]:
                    weight.mul_(len(weight) ** 0.5 / weight.norm())
                    move = orthogonalised(move)
                else:
                    move = move + group["decay"] * weight
                weight.sub_(move * group["lr"])


def orthogonalised(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal matrix next to a matrix: its singular values brought to about 1; of a
    convolution as (c_out, rest)."""
    x = matrix.flatten(1)
    x = x / (x.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return (x.T if tall else x).reshape(matrix.shape)
