"""A conditional generative adversarial network for small colour images, fitted in a minute on one
CPU core."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checks import BATCH, RATE, STEPS, WEIGHT, among, within
from ...core.context import Context, to_uint8
from ...core.fitting import Batches, MovingAverage, set_rate, train
from ...core.noise import CHUNK, generator_for, noise, noise_of_images
from ...core.registry import GENERATORS
from ...core.seeds import seed_for
from ...data.images import LabeledImages

State = dict[str, Tensor]
# lazy regularisation: the penalty every 16 steps, 16 times as strong (Karras et al. 2020, arXiv
# 1912.04958)
R1_EVERY = 16
AUGMENTATIONS = ("none", "translation", "translation-cutout")


@GENERATORS.register("gan", version=1, warm=True)
@dataclass(frozen=True)
class GAN:
    """Two networks against each other, both told the condition; images are made by the moving
    average of the generator.

    discriminator  E softplus(-D(T(x), c)) + E softplus(D(T(G(z, c)), c))
                   + (r1 / 2) E |grad D(T(x), c)|^2,  x real
    generator      E softplus(-D(T(G(z, c)), c)),  z standard normal
    T              a random change of an image, drawn anew for every image and every use; the
                   gradient goes through it

    steps     int >= 1      optimiser steps of both networks
    batch     int >= 1      real, and as many generated, images in a step
    channels  int >= 4      width of the networks
    latent    int >= 1      length of z and of the embedding of c
    rate      float > 0     of Adam with betas 0 and 0.99; falls to 0 over the second half of the
                            steps
    r1        float >= 0    strength of the gradient penalty
    average   float in [0, 1)   decay of the moving average, less in the first steps
    augment   "none", "translation" or "translation-cutout"   T: nothing; moved by up to an eighth
                            of the side; then also a square of half the side made grey. No change of
                            colour: colour may be the group
    sees_colors   bool      whether the critic is also given the mean and covariance of the colours
                            of an image, which tell whether colours far from each other are alike
    source    Goodfellow et al. 2014 (non-saturating loss); Mescheder et al. 2018 (R1); Miyato and
              Koyama 2018 (projection discriminator); Karras et al. 2018 (pixels at unit length) and
              2019 (mapping network, styles); Yazici et al. 2019 (moving average); Zhao et al. 2020,
              arXiv 2006.10738 (T); Lin et al. 2015 (covariance of channels as features)
    """

    steps: int = 1200
    batch: int = 64
    channels: int = 32
    latent: int = 32
    rate: float = 2e-3
    r1: float = 1.0
    average: float = 0.99
    augment: str = "none"
    sees_colors: bool = False

    def __post_init__(self) -> None:
        within(
            "gan",
            self,
            steps=STEPS,
            batch=BATCH,
            channels=(4, 1024),
            latent=(1, 4096),
            rate=RATE,
            r1=WEIGHT,
        )
        if not (self.rate > 0 and 0 <= self.average < 1):
            raise ValueError(
                f"gan: rate must be above 0, average in [0, 1); got {self.rate}, {self.average}"
            )
        among("gan", self, augment=AUGMENTATIONS)

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
        size, n_conditions = pool.images.shape[2], int(told.max()) + 1
        with context.initial(seed, "init"):
            painter = context.place(Painter(self.channels, self.latent, n_conditions, size))
            critic = context.place(Critic(self.channels, n_conditions, size, self.sees_colors))
        average = MovingAverage(painter, self.average)
        networks = {"painter": painter, "critic": critic, "average": average.module}
        if previous is not None:
            for name, network in networks.items():
                network.load_state_dict(_of(name, previous))
            average.n_averaged += self.steps  # the average goes on as well, with its full memory
        adam = {
            name: context.optimizer(
                torch.optim.Adam, network.parameters(), self.rate, betas=(0.0, 0.99)
            )
            for name, network in (("painter", painter), ("critic", critic))
        }
        images, condition = context.tensor(pool.images), context.tensor(told)
        batches = Batches(len(pool), self.batch, seed_for(seed, "batches"), context)

        @context.recorded
        def descend(index: Tensor, z: Tensor, places: Tensor, penalised: bool) -> None:
            c = condition[index]
            real = augmented(context.pixels(images[index]), places[0], self.augment)
            with context.numerics.autocast():
                painted = painter(z, c)
                seen = augmented(painted.detach(), places[1], self.augment)
                loss = F.softplus(critic(seen, c)).mean() + F.softplus(-critic(real, c)).mean()
            if penalised:
                loss = loss + R1_EVERY * self.r1 / 2 * _gradient_penalty(critic, real, c)
            _descend(adam["critic"], loss)

            critic.requires_grad_(False)
            with context.numerics.autocast():
                seen = augmented(painted, places[2], self.augment)
                loss = F.softplus(-critic(seen, c)).mean()
            _descend(adam["painter"], loss)
            critic.requires_grad_(True)

        def step(i: int) -> None:
            for optimizer in adam.values():
                set_rate(optimizer, self.rate * min(1.0, 2 * (1 - i / self.steps)))
            z = noise((self.batch, self.latent), context, seed, "latent", i)
            places = torch.rand(
                (3, 4, self.batch), generator=generator_for(seed, "augment", i), dtype=torch.float64
            )
            penalised = self.r1 > 0 and i % R1_EVERY == 0
            descend(batches(i), z, context.tensor(places), penalised)
            average.update_parameters(painter)

        state = {
            "painter": painter,
            "critic": critic,
            "average": average,
            **{f"adam {name}": a for name, a in adam.items()},
        }
        train(state, step, self.steps, context)
        shape = {"n_conditions": torch.tensor(n_conditions), "size": torch.tensor(size)}
        return shape | {
            f"{name}.{key}": value.detach().cpu()
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        network = Painter(
            self.channels, self.latent, int(state["n_conditions"]), int(state["size"])
        )
        network.load_state_dict(_of("average", state))
        painter = context.place(network).eval()
        if len(told) and not 0 <= told.min() <= told.max() < network.embedding.num_embeddings:
            raise ValueError(
                f"gan knows conditions 0..{network.embedding.num_embeddings - 1}; got "
                f"{told.min()}..{told.max()}"
            )
        chunks = [np.empty((0, 3, int(state["size"]), int(state["size"])), np.uint8)]
        with torch.inference_mode(), context.numerics.autocast():
            for low in range(0, len(told), CHUNK):
                c = context.tensor(told[low : low + CHUNK])
                z = noise_of_images(first_index + low, len(c), (self.latent,), seed, context)
                chunks.append(to_uint8(painter(z, c)))
        return np.concatenate(chunks)


def _of(network: str, state: State) -> State:
    """Weights of one network out of the state of all."""
    return {
        name.removeprefix(f"{network}."): value
        for name, value in state.items()
        if name.startswith(f"{network}.")
    }


def augmented(x: Tensor, place: Tensor, how: str) -> Tensor:
    """Images changed at random, each in its own way; differentiable.

    x        (B, 3, S, S)      images
    place    (4, B) in [0, 1)  which row and column an image is moved by, then which row and column
                               is the middle of its square
    how      one of AUGMENTATIONS
    returns  (B, 3, S, S)      moved by -S // 8 .. S // 8 pixels, edges repeated; the square, of
                               side S // 2, may reach over the edge
    source   Zhao et al. 2020, arXiv 2006.10738 (they fill with 0 what a move leaves empty)
    """
    if how == "none":
        return x
    side, pixel = x.shape[2], torch.arange(x.shape[2], device=x.device)
    most = side // 8
    moved = ((2 * most + 1) * place[:2]).long() - most
    # (B, S) each
    row, column = (pixel + move[:, None] for move in moved)
    every = torch.arange(len(x), device=x.device)[:, None, None]
    x = x.permute(0, 2, 3, 1)[
        every, row.clamp(0, side - 1)[:, :, None], column.clamp(0, side - 1)[:, None, :]
    ]
    if how == "translation-cutout":
        low = (side * place[2:]).long()[:, :, None] - side // 4
        # (2, B, S): whether a row, a column is in the square
        inside = (pixel >= low) & (pixel < low + side // 2)
        square = inside[0][:, :, None] & inside[1][:, None, :]
        x = x.masked_fill(square[..., None], 0)
    return x.permute(0, 3, 1, 2)


def _gradient_penalty(critic: nn.Module, real: Tensor, c: Tensor) -> Tensor:
    """E |grad_x D(x, c)|^2 in full precision, by the plain forward: a compiled one has no second
    derivative."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic.forward(real, c).sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


# ---- Networks; B batch, C channels, S side of an image, s = S / 4, Z latent ----------------------


class Painter(nn.Module):
    """The generator's network: latent and condition to an image, twice doubled in size by
    transposed convolutions."""

    def __init__(self, channels: int, latent: int, n_conditions: int, size: int) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(f"gan: the side of an image must be a multiple of 4; got {size}")
        self.shape = (2 * channels, size // 4, size // 4)
        self.embedding = nn.Embedding(n_conditions, latent)
        self.mapping = nn.Linear(2 * latent, 2 * latent)
        self.first = nn.Linear(2 * latent, int(np.prod(self.shape)))
        self.styles = nn.ModuleList(
            [nn.Linear(2 * latent, 4 * channels), nn.Linear(2 * latent, 2 * channels)]
        )
        self.up = nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1)
        self.to_image = nn.ConvTranspose2d(channels, 3, 4, 2, 1)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        # (B, 2 Z)
        w = F.leaky_relu(self.mapping(torch.cat([z, self.embedding(c)], 1)), 0.2) * 2**0.5
        # (B, 2 C, s, s)
        x = self.first(w).view(-1, *self.shape)
        x = F.relu(_styled(x, self.styles[0](w)))
        # (B, C, 2 s, 2 s)
        x = F.relu(_styled(self.up(x), self.styles[1](w)))
        # (B, 3, S, S), -1..1
        return torch.tanh(self.to_image(x))


def _styled(x: Tensor, style: Tensor) -> Tensor:
    """Every pixel's channels at unit length, then scaled and shifted by the style; no statistics
    over the batch, so an image does not depend on its neighbours."""
    gain, shift = style[:, :, None, None].chunk(2, 1)
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * (1 + gain) + shift


class Critic(nn.Module):
    """The discriminator's network; its last features are compared with an embedding of the
    condition (projection).

    sees_colors   whether it is also given the mean and the covariance of the colours of an image
    """

    def __init__(self, channels: int, n_conditions: int, size: int, sees_colors: bool) -> None:
        super().__init__()
        width, side = 4 * channels, size // 4
        self.features = nn.Sequential(
            # (B, C, S / 2, S / 2)
            nn.Conv2d(3, channels, 4, 2, 1),
            nn.LeakyReLU(0.2),
            # (B, 2 C s s)
            nn.Conv2d(channels, 2 * channels, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            # (B, 4 C)
            nn.Linear(2 * channels * side * side, width),
        )
        self.real = nn.Linear(width, 1)
        self.embedding = nn.Embedding(n_conditions, width)
        self.of_colors = nn.Linear(12, width) if sees_colors else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        f = self.features(x)
        if self.of_colors is not None:
            mean = x.mean((2, 3))
            flat = x.flatten(2) - mean[:, :, None]
            covariance = (flat @ flat.transpose(1, 2) / flat.shape[2]).flatten(1)
            f = f + self.of_colors(torch.cat([mean, 4 * covariance], 1))
        f = F.leaky_relu(f, 0.2)
        return self.real(f).squeeze(1) + (f * self.embedding(c)).sum(1) * f.shape[1] ** -0.5  # (B,)
