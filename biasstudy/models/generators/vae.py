"""A conditional variational autoencoder for small colour images: blurred but quick, and told
conditions are kept."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checks import BATCH, RATE, STEPS, WEIGHT, within
from ...core.context import Context, to_uint8
from ...core.fitting import Batches, cosine, set_rate, train
from ...core.noise import CHUNK, noise, noise_of_images
from ...core.numerics import Numerics
from ...core.registry import GENERATORS
from ...core.seeds import seed_for
from ...data.images import LabeledImages
from .clusters import chosen, clusters_of, gaussian, largest
from .colors import Colors

State = dict[str, Tensor]
ROUNDS = 10  # of k-means among latents


@GENERATORS.register("vae", version=1, warm=True)
@dataclass(frozen=True)
class VAE:
    """An encoder and a decoder, both told the condition; an image is the decoder's mean for a
    latent that is standard normal, or like those of the training images.

    loss  E -log p(x | z, c) + beta KL(q(z | x, c) || N(0, 1)),  z from q, per image
    p     Gaussian of variance 1 per number of x, the image in uncorrelated colours: a wrong hue
          costs as much as a wrong brightness, and the answer for a doubtful hue is a hue between (a
          Bernoulli per RGB channel gave grey digits)
    q     Gaussian, its means and log variances from the encoder

    steps     int >= 1      optimiser steps
    batch     int >= 1      images in a step
    channels  int >= 4      width of the networks
    latent    int >= 1      length of z and of the embedding of c
    rate      float > 0     of Adam; rises over the first 5 % of the steps, then falls to 0 on a
                            cosine
    beta      float >= 0    weight of the divergence: higher gives plainer images that keep the told
                            condition better; the same as a Gaussian of variance beta
    clusters  int >= 0      0: z is standard normal. Else the training images are encoded and their
                            latents parted into so many clusters per condition; z is from the
                            Gaussian of one cluster: its means' covariance plus its mean variance.
                            Latents that no image has then make none, so beta may be low
    source    Kingma and Welling 2014; Sohn et al. 2015 (conditional); Higgins et al. 2017 (beta);
              Ghosh et al. 2020 (latents from a density fitted after the networks)
    """

    steps: int = 1200
    batch: int = 64
    channels: int = 32
    latent: int = 16
    rate: float = 2e-3
    beta: float = 12.0
    clusters: int = 0

    def __post_init__(self) -> None:
        within(
            "vae",
            self,
            steps=STEPS,
            batch=BATCH,
            channels=(4, 1024),
            latent=(1, 4096),
            rate=RATE,
            beta=WEIGHT,
            clusters=(0, 10**5),
        )
        if self.rate == 0:
            raise ValueError(f"vae: rate must be above 0; got {self.rate}")

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
            networks = Networks(self.channels, self.latent, n_conditions, size)
        context.place(networks)
        networks.colors.fit(pool.images)
        if previous is not None:
            if int(previous["n_conditions"]) != n_conditions:
                raise ValueError(
                    f"the previous vae knows {int(previous['n_conditions'])} conditions; this pool "
                    f"has {n_conditions}"
                )
            networks.load_state_dict(_weights(previous))
        adam = context.optimizer(torch.optim.Adam, networks.parameters(), self.rate)
        images, condition = context.tensor(pool.images), context.tensor(told)
        batches = Batches(len(pool), self.batch, seed_for(seed, "batches"), context)

        @context.recorded
        def descend(index: Tensor, eps: Tensor) -> None:
            x, c = networks.colors(context.pixels(images[index])), condition[index]
            with context.numerics.autocast():
                mean, log_variance = networks.encoder(x, c)
                z = mean + (log_variance / 2).exp() * eps
                decoded = networks.decoder(z, c)
            surprise = F.mse_loss(decoded.to(x.dtype), x, reduction="sum") / 2
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).to(
                x.dtype
            ).sum() / 2
            adam.zero_grad(set_to_none=True)
            ((surprise + self.beta * divergence) / len(x)).backward()
            adam.step()

        def step(i: int) -> None:
            set_rate(adam, self.rate * cosine(i, self.steps))
            descend(batches(i), noise((self.batch, self.latent), context, seed, "latent", i))

        train({"networks": networks, "adam": adam}, step, self.steps, context)
        shape = {"n_conditions": torch.tensor(n_conditions), "size": torch.tensor(size)}
        weights = {name: value.detach().cpu() for name, value in networks.state_dict().items()}
        latents = self._latents(networks, images, told, seed, context) if self.clusters else {}
        return shape | weights | latents

    def _latents(
        self, networks: "Networks", images: Tensor, told: np.ndarray, seed: int, context: Context
    ) -> State:
        """Means and variances of the latents of all training images, those of a cluster side by
        side; in float64, so that what is drawn from them is the same on every CPU."""
        encoded = []
        with torch.inference_mode():
            for low in range(0, len(told), CHUNK):
                x = networks.colors(context.pixels(images[low : low + CHUNK]))
                c = context.tensor(told[low : low + CHUNK])
                with context.numerics.autocast():
                    encoded.append(torch.cat(networks.encoder(x, c), 1).double().cpu())
        mean, log_variance = torch.cat(encoded).chunk(2, 1)
        cluster = clusters_of(mean, told, self.clusters, ROUNDS, seed)
        order = np.lexsort((cluster, told))
        return {
            "latents.mean": mean[order].contiguous(),
            "latents.variance": log_variance[order].exp(),
            "latents.told": torch.as_tensor(told[order]),
            "latents.cluster": torch.as_tensor(cluster[order]),
        }

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        size, n_conditions = int(state["size"]), int(state["n_conditions"])
        if len(told) and not 0 <= told.min() <= told.max() < n_conditions:
            raise ValueError(
                f"vae knows conditions 0..{n_conditions - 1}; got {told.min()}..{told.max()}"
            )
        networks = Networks(self.channels, self.latent, n_conditions, size)
        networks.load_state_dict(_weights(state))
        context.place(networks).eval()
        chunks = [np.empty((0, 3, size, size), np.uint8)]
        with torch.inference_mode():
            for low in range(0, len(told), CHUNK):
                c = context.tensor(told[low : low + CHUNK])
                z = self._drawn(state, told[low : low + CHUNK], first_index + low, seed, context)
                with context.numerics.autocast():
                    decoded = networks.decoder(z, c)
                chunks.append(to_uint8(networks.colors.back(decoded)))
        return np.concatenate(chunks)

    def _drawn(
        self, state: State, told: np.ndarray, first_index: int, seed: int, context: Context
    ) -> Tensor:
        """A latent for each image, (N, latent)."""
        if not self.clusters:
            return noise_of_images(first_index, len(told), (self.latent,), seed, context)
        known, cluster = (state[f"latents.{name}"].numpy() for name in ("told", "cluster"))
        most = largest(known, cluster)
        drawn = noise_of_images(
            first_index, len(told), (most + self.latent + 1,), seed, Context(Numerics("float64"))
        )
        # uniform: which cluster
        pick = torch.special.ndtr(drawn[:, -1]).numpy()
        z = torch.empty(len(told), self.latent, dtype=torch.float64)
        for rows, members in chosen("vae", known, cluster, told, pick):
            means = state["latents.mean"][members]
            deviation = state["latents.variance"][members].mean(0).sqrt()
            around = gaussian(means, drawn[rows, : len(means)])
            z[rows] = around + deviation * drawn[rows, most : most + self.latent]
        return context.tensor(z.to(context.numerics.dtype))


def _weights(state: State) -> State:
    return {
        name: value
        for name, value in state.items()
        if name not in ("n_conditions", "size") and not name.startswith("latents.")
    }


# ---- Networks; B batch, C channels, S side of an image, s = S / 4, Z latent ----------------------


class Networks(nn.Module):
    """The change of colours, the encoder and the decoder."""

    def __init__(self, channels: int, latent: int, n_conditions: int, size: int) -> None:
        super().__init__()
        self.colors = Colors()
        self.encoder = Encoder(channels, latent, n_conditions, size)
        self.decoder = Decoder(channels, latent, n_conditions, size)


class Encoder(nn.Module):
    """Image and condition to the mean and log variance of the latent."""

    def __init__(self, channels: int, latent: int, n_conditions: int, size: int) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(f"vae: the side of an image must be a multiple of 4; got {size}")
        self.features = nn.Sequential(
            # (B, C, S / 2, S / 2)
            nn.Conv2d(3, channels, 4, 2, 1),
            nn.SiLU(),
            # (B, 2 C s s)
            nn.Conv2d(channels, 2 * channels, 4, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.embedding = nn.Embedding(n_conditions, latent)
        self.mixing = nn.Linear(2 * channels * (size // 4) ** 2 + latent, 8 * channels)
        self.last = nn.Linear(8 * channels, 2 * latent)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.silu(self.mixing(torch.cat([self.features(x), self.embedding(c)], 1)))
        # (B, Z) each
        mean, log_variance = self.last(hidden).chunk(2, 1)
        return mean, log_variance


class Decoder(nn.Module):
    """Latent and condition to an image, twice doubled in size by transposed convolutions."""

    def __init__(self, channels: int, latent: int, n_conditions: int, size: int) -> None:
        super().__init__()
        self.shape = (2 * channels, size // 4, size // 4)
        self.embedding = nn.Embedding(n_conditions, latent)
        self.mixing = nn.Linear(2 * latent, 8 * channels)
        self.first = nn.Linear(8 * channels, int(np.prod(self.shape)))
        self.up = nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1)
        self.to_image = nn.ConvTranspose2d(channels, 3, 4, 2, 1)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        hidden = F.silu(self.mixing(torch.cat([z, self.embedding(c)], 1)))
        # (B, 2 C, s, s)
        x = F.silu(self.first(hidden).view(-1, *self.shape))
        # (B, 3, S, S)
        return self.to_image(F.silu(self.up(x)))
