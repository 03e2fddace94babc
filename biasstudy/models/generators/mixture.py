"""A mixture of Gaussians per told condition: a real generator that costs a tenth of a second."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.checks import within
from ...core.context import Context
from ...core.noise import noise_of_images
from ...core.numerics import Numerics
from ...core.registry import GENERATORS
from ...data.images import LabeledImages
from .clusters import chosen, clusters_of, gaussian, largest

State = dict[str, Tensor]


@GENERATORS.register("mixture", version=2)
@dataclass(frozen=True)
class Mixture:
    """Clusters of images per told condition (k-means); a new image is drawn from the Gaussian of
    one cluster.

    x = mu + eps (A - mu) / sqrt(n - 1), with A (n, D) the images of the cluster, mu their mean, eps
    n standard normal numbers: exactly N(mu, sample covariance), without a covariance matrix.
    Computed in float64 whatever the numerics, so the result is the same on every CPU.

    clusters  int >= 1           per condition, fewer where a condition has few images
    rounds    int >= 1           of Lloyd's algorithm
    source    the factor A / sqrt(n - 1) as square root of a covariance: standard; the generator is
              ours
    """

    clusters: int = 8
    rounds: int = 10

    def __post_init__(self) -> None:
        within("mixture", self, clusters=(1, 10**5), rounds=(1, 10**5))

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
        flat = torch.as_tensor(pool.images).flatten(1).double()
        cluster = clusters_of(flat, told, self.clusters, self.rounds, seed)
        # images of a cluster side by side
        order = np.lexsort((cluster, told))
        return {
            "images": torch.as_tensor(pool.images[order]),
            "told": torch.as_tensor(told[order]),
            "cluster": torch.as_tensor(cluster[order]),
        }

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        known, cluster = state["told"].numpy(), state["cluster"].numpy()
        drawn = noise_of_images(
            first_index,
            len(told),
            (largest(known, cluster) + 1,),
            seed,
            Context(Numerics("float64")),
        )
        # uniform: which cluster
        pick = torch.special.ndtr(drawn[:, -1]).numpy()
        shape = state["images"].shape[1:]
        samples = np.empty((len(told), *shape), np.uint8)
        for rows, members in chosen("mixture", known, cluster, told, pick):
            images = state["images"][members].flatten(1).double()
            pixels = gaussian(images, drawn[rows, : len(images)])
            samples[rows] = pixels.round().clamp(0, 255).to(torch.uint8).reshape(-1, *shape).numpy()
        return samples
