"""Points in clusters per told condition, and new points from the Gaussian of one cluster."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...core.noise import generator_for

SMALLEST = 4  # points to a cluster on average, or more: fewer have no covariance to speak of


def clusters_of(
    points: Tensor, told: np.ndarray, clusters: int, rounds: int, seed: int
) -> np.ndarray:
    """Which cluster of its told condition each point is in, by k-means within the condition.

    points    (N, D) float64
    told      (N,) int
    clusters  int >= 1   per condition, fewer where a condition has under 4 points for each
    returns   (N,) int64, 0 .. clusters - 1
    """
    cluster = np.zeros(len(told), np.int64)
    for condition in np.unique(told):
        members = np.flatnonzero(told == condition)
        k = max(1, min(clusters, len(members) // SMALLEST))
        generator = generator_for(seed, "centers", int(condition))
        cluster[members] = _k_means(points[members], k, rounds, generator)
    return cluster


def _k_means(x: Tensor, k: int, rounds: int, generator: torch.Generator) -> np.ndarray:
    """Cluster of each of N points (N, D), Lloyd's algorithm from k points chosen at random."""
    center = x[torch.randperm(len(x), generator=generator)[:k]]
    nearest = torch.zeros(len(x), dtype=torch.int64)
    for _ in range(rounds):
        # (N, k), up to |x|^2
        distance = (center**2).sum(1) - 2 * x @ center.T
        nearest = distance.argmin(1)
        count = torch.bincount(nearest, minlength=k)
        total = torch.zeros_like(center).index_add_(0, nearest, x)
        center = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], center)
    return nearest.numpy()


def largest(known: np.ndarray, cluster: np.ndarray) -> int:
    """Number of points in the largest cluster."""
    return int(np.unique(known * (cluster.max() + 1) + cluster, return_counts=True)[1].max())


def chosen(
    model: str, known: np.ndarray, cluster: np.ndarray, told: np.ndarray, pick: np.ndarray
) -> Iterator[tuple[np.ndarray, slice]]:
    """A cluster for each new point, in proportion to its size.

    model    a name, for the error
    known    (N,) int      condition of each point; conditions, and clusters within one, ascend
    cluster  (N,) int      of each point
    told     (M,) int      condition of each new point
    pick     (M,) float    uniform in [0, 1)
    returns  for each cluster that is chosen: which new points are from it, and its points
    raises   ValueError    if a condition has no points
    """
    for condition in np.unique(told):
        asked = np.flatnonzero(told == condition)
        low, high = np.searchsorted(known, [condition, condition + 1])
        if low == high:
            raise ValueError(
                f"{model} was told condition {condition}, which its training set does not have"
            )
        of = cluster[low + (pick[asked] * (high - low)).astype(np.int64)]
        for c in np.unique(of):
            first, last = low + np.searchsorted(cluster[low:high], [c, c + 1])
            yield asked[of == c], slice(first, last)


def gaussian(points: Tensor, eps: Tensor) -> Tensor:
    """New points mu + eps (A - mu) / sqrt(n - 1), A (n, D) the points, mu their mean: exactly N(mu,
    sample covariance), without a covariance matrix.

    eps      (M, n) standard normal
    returns  (M, D)
    """
    mean = points.mean(0)
    return mean + eps @ (points - mean) / max(1, len(points) - 1) ** 0.5
