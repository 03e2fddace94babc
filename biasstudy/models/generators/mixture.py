"""A mixture of Gaussians per told condition: a real generator that costs a tenth of a second."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.checks import within
from ...core.context import Context
from ...core.noise import generator_for, noise_of_images
from ...core.numerics import Numerics
from ...core.registry import GENERATORS
from ...data.images import LabeledImages

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
        cluster = np.zeros(len(told), np.int64)
        for condition in np.unique(told):
            members = np.flatnonzero(told == condition)
            k = max(1, min(self.clusters, len(members) // 4))
            flat = torch.as_tensor(pool.images[members]).flatten(1).double()
            cluster[members] = self._k_means(flat, k, seed, int(condition))
        # images of a cluster side by side
        order = np.lexsort((cluster, told))
        return {
            "images": torch.as_tensor(pool.images[order]),
            "told": torch.as_tensor(told[order]),
            "cluster": torch.as_tensor(cluster[order]),
        }

    def _k_means(self, x: Tensor, k: int, seed: int, condition: int) -> np.ndarray:
        """Cluster of each of N images (N, D), Lloyd's algorithm from k images chosen at random."""
        center = x[torch.randperm(len(x), generator=generator_for(seed, "centers", condition))[:k]]
        nearest = torch.zeros(len(x), dtype=torch.int64)
        for _ in range(self.rounds):
            # (N, k), up to |x|^2
            distance = (center**2).sum(1) - 2 * x @ center.T
            nearest = distance.argmin(1)
            count = torch.bincount(nearest, minlength=k)
            total = torch.zeros_like(center).index_add_(0, nearest, x)
            center = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], center)
        return nearest.numpy()

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        known, cluster = state["told"].numpy(), state["cluster"].numpy()
        largest = int(np.unique(known * (cluster.max() + 1) + cluster, return_counts=True)[1].max())
        drawn = noise_of_images(
            first_index, len(told), (largest + 1,), seed, Context(Numerics("float64"))
        )
        # uniform: which cluster
        pick = torch.special.ndtr(drawn[:, -1]).numpy()
        shape = state["images"].shape[1:]
        samples = np.empty((len(told), *shape), np.uint8)
        for condition in np.unique(told):
            asked = np.flatnonzero(told == condition)
            low, high = np.searchsorted(known, [condition, condition + 1])
            if low == high:
                raise ValueError(
                    f"mixture was told condition {condition}, which its training set does not have"
                )
            # a cluster in proportion to its size
            chosen = low + (pick[asked] * (high - low)).astype(np.int64)
            for c in np.unique(cluster[chosen]):
                first, last = low + np.searchsorted(cluster[low:high], [c, c + 1])
                images = state["images"][first:last].flatten(1).double()
                rows = asked[cluster[chosen] == c]
                mean, n = images.mean(0), last - first
                pixels = mean + drawn[rows, :n] @ (images - mean) / max(1, n - 1) ** 0.5
                samples[rows] = (
                    pixels.round().clamp(0, 255).to(torch.uint8).reshape(-1, *shape).numpy()
                )
        return samples
