"""Shares of groups and of favoured cells, as counted; `correction` undoes the errors of a probe."""

import numpy as np


def told_counts(label: np.ndarray, group: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Counts of images by told class and group said by the probe (the last column: unclear); (K, G
    + 1) int.

    label   (N,) int        told class
    group   (N,) int        what the probe says; below 0: unclear
    shape   (K, G)
    """
    table = np.zeros((shape[0], shape[1] + 1), np.int64)
    np.add.at(table, (label, np.where(group < 0, shape[1], group)), 1)
    return table


def favoured_part(counts: np.ndarray, favoured: np.ndarray) -> float:
    """Share of the images that lie in cells which a biased start favours.

    counts    (K, G) int   images by class and group, those of unclear group left out
    favoured  (K, G) int   above 0 where the start favours the cell
    returns   float        in [0, 1]; nan where there is no image
    """
    n = counts.sum()
    return float(counts[favoured > 0].sum() / n) if n else float("nan")


def counted_shares(counts: np.ndarray, favoured: np.ndarray) -> np.ndarray:
    """Share of each group, then, where the start favours anything, of the favoured cells; (S,), nan
    where there is no image. Arguments as in `favoured_part`."""
    n = counts.sum()
    groups = counts.sum(0) / n if n else np.full(counts.shape[1], np.nan)
    return np.append(groups, favoured_part(counts, favoured)) if favoured.any() else groups
