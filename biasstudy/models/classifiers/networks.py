"""The recipe that all networks share, and two small ones."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checks import BATCH, RATE, STEPS, WEIGHT, unknown, within
from ...core.context import Context
from ...core.fitting import Batches, cosine, set_rate, train
from ...core.noise import generator_for
from ...core.registry import CLASSIFIERS
from ...core.seeds import seed_for
from ...data.images import LabeledImages

State = dict[str, Tensor]


def called(model: Any) -> str:
    """The name under which a model is registered."""
    return next(
        (name for name, entry in CLASSIFIERS.items() if entry.target is type(model)),
        type(model).__name__,
    )


@dataclass(frozen=True)
class Network:
    """A network fitted by cross-entropy: AdamW, rates falling to zero on a cosine after a short
    rise, random shifts.

    Shift 4 with flip is the usual augmentation of CIFAR: crops out of 4 more pixels on every side,
    half of them mirrored.
    """

    steps: int = 500
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.01
    shift: int = 2  # pixels by which training images are moved at random
    flip: bool = False  # half of the training images mirrored

    recipe: ClassVar[tuple[str, ...]] = ("steps", "batch", "rate", "decay", "shift", "flip")

    @property
    def shape(self) -> dict[str, Any]:
        """Options that decide which network is built: all but the recipe. Weights fit where these
        are equal."""
        return {name: value for name, value in asdict(self).items() if name not in self.recipe}

    def __post_init__(self) -> None:
        within(
            called(self), self, steps=STEPS, batch=BATCH, shift=(0, 512), rate=RATE, decay=WEIGHT
        )
        if self.rate == 0:
            raise ValueError(f"{called(self)}: rate must be above 0; got {self.rate}")

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        """The network, in parts; the last part is the linear layer that tells classes."""
        raise NotImplementedError

    def fit(
        self,
        pool: LabeledImages,
        n_classes: int,
        *,
        seed: int,
        context: Context,
        previous: State | None = None,
    ) -> State:
        with context.initial(seed, "init"):
            network = self.network(pool.images.shape[1], pool.images.shape[2], n_classes)
            context.place(network)
        if previous is None:
            self._inherit(network, pool.images)
        else:
            network.load_state_dict(_weights(previous))
        optimizer = self._optimizer(network, context)
        images, label = context.tensor(pool.images), context.tensor(pool.label)
        batches = Batches(len(pool), self.batch, seed_for(seed, "batches"), context)
        network.train()

        @context.recorded
        def descend(index: Tensor, move: Tensor, mirrored: Tensor) -> None:
            pixels = context.pixels(self._augmented(images[index], move, mirrored))
            with context.numerics.autocast():
                loss = self._loss(network(pixels), label[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        def step(i: int) -> None:
            set_rate(optimizer, self.rate * self._share_of_rate(i))
            descend(batches(i), *map(context.tensor, self._moves(self.batch, seed, i)))

        train({"network": network, "optimizer": optimizer}, step, self.steps, context)
        self._settle(network, pool.images, context)
        return {
            "n_classes": torch.tensor(n_classes),
            **{k: v.detach().cpu() for k, v in network.state_dict().items()},
        }

    def _inherit(self, network: nn.Sequential, images: np.ndarray) -> None:
        """Put in weights that were learned from other data, or that follow from the images of the
        pool alone; most networks have none."""

    def _settle(self, network: nn.Sequential, images: np.ndarray, context: Context) -> None:
        """What is left to do after the last step; in most networks nothing."""

    def _share_of_rate(self, i: int) -> float:
        """Factor of the rate at step i."""
        return cosine(i, self.steps)

    def _optimizer(self, network: nn.Sequential, context: Context) -> torch.optim.Optimizer:
        return context.optimizer(
            torch.optim.AdamW, network.parameters(), self.rate, weight_decay=self.decay
        )

    def _loss(self, output: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(output, label)

    def _moves(self, n: int, seed: int, i: int) -> tuple[Tensor, Tensor]:
        """How step i augments its n images: rows and columns (2, n) where a crop begins, and
        whether it is mirrored."""
        g = generator_for(seed, "augment", i)
        move = (
            torch.randint(0, 2 * self.shift + 1, (2, n), generator=g)
            if self.shift
            else torch.zeros(2, n).long()
        )
        return move, torch.rand(n, generator=g) < 0.5 if self.flip else torch.zeros(n).bool()

    def _augmented(self, images: Tensor, move: Tensor, mirrored: Tensor) -> Tensor:
        """A batch, each image moved by up to `shift` pixels (edges repeated) and perhaps mirrored;
        uint8 (B, C, H, W)."""
        n, _, height, width = images.shape
        if self.shift:
            padded = F.pad(images.float(), (self.shift,) * 4, mode="replicate").to(torch.uint8)
            rows = move[0, :, None] + torch.arange(height, device=images.device)
            columns = move[1, :, None] + torch.arange(width, device=images.device)
            images = padded[
                torch.arange(n, device=images.device)[:, None, None],
                :,
                rows[:, :, None],
                columns[:, None, :],
            ]
            images = images.permute(0, 3, 1, 2)
        if self.flip:
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images

    def predict(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        network = self._fitted(state, images, context)
        return self._in_parts(lambda x: network(x).softmax(1), images, context)

    def features(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        """Activations before the last linear layer; (N, d) float32."""
        return self._in_parts(self._fitted(state, images, context)[:-1], images, context)

    def _fitted(self, state: State, images: np.ndarray, context: Context) -> nn.Sequential:
        """The network with these weights; calls with the same state share one."""
        built, channels, height = self._last, images.shape[1], images.shape[2]
        if built and built[0] is state and built[1:3] == [(channels, height), context.numerics]:
            return built[3]
        network = self.network(channels, height, int(state["n_classes"]))
        network.load_state_dict(_weights(state))
        context.place(network).eval()
        built[:] = state, (channels, height), context.numerics, network
        return network

    @functools.cached_property
    def _last(self) -> list[Any]:
        """Of the network that was built last: its state, the channels and height of its images, the
        numerics, and itself."""
        return []

    def _in_parts(
        self, outputs: Callable[[Tensor], Tensor], images: np.ndarray, context: Context
    ) -> np.ndarray:
        """Outputs of a network for all images, a part at a time; float32."""
        n = self._at_once(images.shape[2])
        with torch.inference_mode(), context.numerics.autocast():
            parts = [
                outputs(context.pixels(images[low : low + n])).float().cpu()
                for low in range(0, len(images), n)
            ]
        return torch.cat(parts).numpy()

    def _at_once(self, height: int) -> int:
        """Images in a part: about as many as 1 GB holds."""
        return max(1, min(1024, 2**20 // height**2))


def _weights(state: State) -> State:
    return {name: value for name, value in state.items() if name != "n_classes"}


@dataclass(frozen=True)
class Deep(Network):
    """A network for photographs, with two more choices in the recipe."""

    smoothing: float = 0.0  # of the labels: the share that all classes divide among them
    optimizer: str = "adamw"  # or sgd: Nesterov momentum 0.9

    recipe: ClassVar[tuple[str, ...]] = (*Network.recipe, "smoothing", "optimizer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"{called(self)}: smoothing must be in [0, 1); got {self.smoothing}")
        if self.optimizer not in ("adamw", "sgd"):
            raise ValueError(
                unknown("optimizer", self.optimizer, ("adamw", "sgd"), f"of {called(self)}")
            )

    def _loss(self, output: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(output, label, label_smoothing=self.smoothing)

    def _optimizer(self, network: nn.Sequential, context: Context) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return context.optimizer(
                torch.optim.SGD,
                self._shares(network),
                self.rate,
                momentum=0.9,
                nesterov=True,
                weight_decay=self.decay,
            )
        return context.optimizer(
            torch.optim.AdamW, self._shares(network), self.rate, weight_decay=self.decay
        )

    def _shares(self, network: nn.Sequential) -> list[dict[str, Any]]:
        """Groups of parameters, each with its share of the rate."""
        return [{"params": list(network.parameters()), "share": 1.0}]


def _convolution(c_in: int, c_out: int, size: int) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(),
    ]


@CLASSIFIERS.register("lenet", version=1, warm=True, features=True)
@dataclass(frozen=True)
class LeNet(Network):
    """Two 5 x 5 convolutions (8 and 16 channels), pooled, and two linear layers; after LeCun et al.
    1998."""

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 8, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * (height // 4) ** 2, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )


@CLASSIFIERS.register("small-cnn", version=1, warm=True, features=True)
@dataclass(frozen=True)
class SmallCNN(Network):
    """Three 3 x 3 convolutions with batch normalisation (32, 64, 128 channels), mean over pixels,
    one linear layer."""

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        return nn.Sequential(
            *_convolution(channels, 32, 3),
            nn.MaxPool2d(2),
            *_convolution(32, 64, 3),
            nn.MaxPool2d(2),
            *_convolution(64, 128, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, n_classes),
        )
