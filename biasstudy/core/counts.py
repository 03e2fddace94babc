"""Exact counts: whole numbers of images in given shares, and the sequence that holds them."""

import functools

import numpy as np


def largest_remainder(shares: np.ndarray, n: int) -> np.ndarray:
    """Whole counts that sum to n and lie closest to n times the shares.

    shares   (K,) float    non-negative, not all zero; normalised here
    n        int
    returns  (K,) int64    floor of the quota, the rest by largest remainder; ties go to the lower
                           index
    source   Hamilton's method of apportionment
    """
    quota = n * np.asarray(shares, float) / np.sum(shares)
    counts = np.floor(quota + 1e-9).astype(np.int64)
    order = np.argsort(-(quota - counts).round(9), kind="stable")
    counts[order[: n - counts.sum()]] += 1
    return counts


def spread(counts: np.ndarray) -> np.ndarray:
    """The sequence that holds index k exactly counts[k] times, each prefix as close to the shares
    as can be.

    counts   (K,) int
    returns  (sum(counts),) int64   so the told label of image i hardly depends on how many images
                                    are asked for
    """
    return _spread(tuple(np.asarray(counts).tolist())).copy()


@functools.lru_cache(maxsize=32)  # hundreds of experiments ask for the same few
def _spread(counts: tuple[int, ...]) -> np.ndarray:
    shares = np.array(counts)
    n = sum(counts)
    due = np.zeros(len(counts))
    sequence = np.empty(n, np.int64)
    for i in range(n):
        due += shares / n
        sequence[i] = k = int(np.argmax(due))
        due[k] -= 1
    return sequence
