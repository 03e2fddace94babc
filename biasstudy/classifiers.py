"""Classifiers. One decorated frozen dataclass each; its fields are its options.

    @CLASSIFIERS.register("name", version=1)
    @dataclass(frozen=True)
    class Name:
        steps: int = 500
        def fit(self, pool, n_classes, *, seed, context, previous=None) -> state: ...
        def predict(self, state, images, *, context) -> probabilities: ...
        def features(self, state, images, *, context) -> activations: ...      # registered with features=True

`fit` learns pool.label from pool.images and returns a dictionary of tensors; with the state of the last generation as
`previous` it goes on from there (warm start). `predict` returns (N, n_classes) float32, `features` (N, d) float32. Every
class has an output, also one that the pool lacks. Networks share one recipe, `_Network`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import LabeledImages
from .registry import CLASSIFIERS, seed_for
from .training import Batches, Context, cosine, generator_for, train

State = dict[str, Tensor]


@CLASSIFIERS.register("ridge", version=1)
@dataclass(frozen=True)
class Ridge:
    """Linear one-vs-rest least squares on pixels with an L2 penalty, in closed form; the constant is not shrunk.

    W = (X'X + n penalty I)^-1 X'Y = X'(XX' + n penalty I)^-1 Y,  X (n, D) pixels 0..1 and Y (n, n_classes), both centred;
    the second form where there are fewer images than pixels. The solution is unique: a warm start changes nothing.
    """

    penalty: float = 0.01

    def fit(self, pool: LabeledImages, n_classes: int, *, seed: int, context: Context, previous: State | None = None) -> State:
        x = _flat(pool.images)
        y = F.one_hot(torch.as_tensor(pool.label), n_classes).double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        weight = _ridge(x - x_mean, y - y_mean, len(x) * self.penalty, dual=len(x) < x.shape[1])
        return {"weight": torch.cat([weight, (y_mean - x_mean @ weight)[None]])}

    def predict(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        weight = state["weight"].double()
        return (_flat(images) @ weight[:-1] + weight[-1]).mul(10).softmax(1).float().numpy()


def _flat(images: np.ndarray) -> Tensor:
    return torch.as_tensor(images).flatten(1).double() / 255


def _ridge(x: Tensor, y: Tensor, penalty: float, dual: bool) -> Tensor:
    """Weights (D, n_classes) of centred x (n, D) and y (n, n_classes), by a system of size n (dual) or D."""
    square = x @ x.T if dual else x.T @ x
    square.diagonal().add_(penalty)
    return x.T @ torch.linalg.solve(square, y) if dual else torch.linalg.solve(square, x.T @ y)


@dataclass(frozen=True)
class _Network:
    """A network fitted by cross-entropy: AdamW, rates falling to zero on a cosine after a short rise, random shifts."""

    steps: int = 500
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.01
    shift: int = 2          # pixels by which training images are moved at random
    flip: bool = False      # half of the training images mirrored

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        """The network, in parts; the last part is the linear layer that tells classes."""
        raise NotImplementedError

    def fit(self, pool: LabeledImages, n_classes: int, *, seed: int, context: Context, previous: State | None = None) -> State:
        with context.initial(seed, "init"):
            network = context.place(self.network(pool.images.shape[1], pool.images.shape[2], n_classes))
        if previous is not None:
            network.load_state_dict(_weights(previous))
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=self.decay)
        images, label = context.tensor(pool.images), context.tensor(pool.label)
        batches = Batches(len(pool), self.batch, seed_for(seed, "batches"), context)
        network.train()

        def step(i: int) -> None:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * cosine(i, self.steps)
            index = batches(i)
            x = context.pixels(self._augmented(images[index], seed, i))
            with context.numerics.autocast():
                loss = F.cross_entropy(network(x), label[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        train({"network": network, "optimizer": optimizer}, step, self.steps, context)
        return {"n_classes": torch.tensor(n_classes), **{k: v.detach().cpu() for k, v in network.state_dict().items()}}

    def _augmented(self, images: Tensor, seed: int, i: int) -> Tensor:
        """The batch, each image moved by up to `shift` pixels (edges repeated) and perhaps mirrored; uint8 (B, C, H, W)."""
        g, (n, _, height, width) = generator_for(seed, "augment", i), images.shape
        if self.shift:
            padded = F.pad(images.float(), (self.shift,) * 4, mode="replicate").to(torch.uint8)
            move = torch.randint(0, 2 * self.shift + 1, (2, n), generator=g).to(images.device)
            rows = move[0, :, None] + torch.arange(height, device=images.device)
            columns = move[1, :, None] + torch.arange(width, device=images.device)
            images = padded[torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
            images = images.permute(0, 3, 1, 2)
        if self.flip:
            mirrored = torch.rand(n, generator=g).to(images.device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images

    def predict(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        network = self._fitted(state, images, context)
        return _in_parts(lambda x: network(x).softmax(1), images, context)

    def features(self, state: State, images: np.ndarray, *, context: Context) -> np.ndarray:
        """Activations before the last linear layer; (N, d) float32."""
        return _in_parts(self._fitted(state, images, context)[:-1], images, context)

    def _fitted(self, state: State, images: np.ndarray, context: Context) -> nn.Sequential:
        network = self.network(images.shape[1], images.shape[2], int(state["n_classes"]))
        network.load_state_dict(_weights(state))
        context.place(network).eval()
        return network


def _weights(state: State) -> State:
    return {name: value for name, value in state.items() if name != "n_classes"}


def _in_parts(outputs: Callable[[Tensor], Tensor], images: np.ndarray, context: Context) -> np.ndarray:
    """Outputs of a network for all images, 1024 at a time; float32."""
    with torch.inference_mode(), context.numerics.autocast():
        parts = [outputs(context.pixels(images[low: low + 1024])).float().cpu() for low in range(0, len(images), 1024)]
    return torch.cat(parts).numpy()


def _convolution(c_in: int, c_out: int, size: int) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]


@CLASSIFIERS.register("lenet", version=1, warm=True, features=True)
@dataclass(frozen=True)
class LeNet(_Network):
    """Two 5 x 5 convolutions (8 and 16 channels), pooled, and two linear layers; after LeCun et al. 1998."""

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * (height // 4) ** 2, 84), nn.ReLU(), nn.Linear(84, n_classes))


@CLASSIFIERS.register("small-cnn", version=1, warm=True, features=True)
@dataclass(frozen=True)
class SmallCNN(_Network):
    """Three 3 x 3 convolutions with batch normalisation (32, 64, 128 channels), mean over pixels, one linear layer."""

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        return nn.Sequential(
            *_convolution(channels, 32, 3), nn.MaxPool2d(2), *_convolution(32, 64, 3), nn.MaxPool2d(2),
            *_convolution(64, 128, 3),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, n_classes))


@CLASSIFIERS.register("resnet18", version=1, warm=True, features=True)
@dataclass(frozen=True)
class ResNet18(_Network):
    """The 18-layer residual network of He et al. 2016, from scratch; for small images its first layer keeps their size.

    (A 3 x 3 convolution of stride 1 in place of 7 x 7 of stride 2, and no pooling after it, as is usual for CIFAR.)
    """

    def network(self, channels: int, height: int, n_classes: int) -> nn.Sequential:
        from torchvision.models import resnet18  # slow to import
        body = resnet18(weights=None)
        body.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")      # as its other convolutions
        body.maxpool = body.fc = nn.Identity()
        return nn.Sequential(body, nn.Linear(512, n_classes))
