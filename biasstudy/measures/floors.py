"""Floors: what a gap between groups would be if groups did not matter.

A largest difference is positive by chance, and a loss of accuracy that hits all groups alike widens
it. Its floor is its distribution when correctness is permuted across groups within a class.

Letters: R classifiers, N test images, K classes, G groups.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core.checks import whole_numbers
from . import LEVEL
from .metrics import gap, measure, min_over_max, rate

PERMUTATIONS = 1000
PERMUTATIONS_OF_A_SEED = 200  # of a band that is a mean over seeds


# ---- Metrics from tables of correct images -------------------------------------------------------


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined."""
    known = ~np.isnan(values)
    return rate(np.sum(values, axis=-1, where=known), known.sum(-1))


def _of_groups(correct: np.ndarray, n: np.ndarray) -> np.ndarray:
    return rate(correct.sum(-2), n.sum(-2))


# metric -> function of correct (..., K, G) and n (K, G); other registered metrics are asked one
# permutation at a time
FROM_TABLES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy-gap": lambda correct, n: gap(_of_groups(correct, n), axis=-1),
    "worst-group-accuracy": lambda correct, n: np.fmin.reduce(_of_groups(correct, n), axis=-1),
    "worst-cell-accuracy": lambda correct, n: np.fmin.reduce(rate(correct, n), axis=(-2, -1)),
    "equal-opportunity-mean": lambda correct, n: _mean(gap(rate(correct, n), axis=-1)),
    "equal-opportunity-max": lambda correct, n: np.fmax.reduce(
        gap(rate(correct, n), axis=-1), axis=-1
    ),
    "within-class-ratio-mean": lambda correct, n: _mean(min_over_max(rate(correct, n), axis=-1)),
    "within-class-ratio-min": lambda correct, n: np.fmin.reduce(
        min_over_max(rate(correct, n), axis=-1), axis=-1
    ),
}


# ---- Floor of a level ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Floor:
    """Distribution of a metric when groups do not matter; values (n_permutations,)."""

    values: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def quantile95(self) -> float:
        return float(np.quantile(self.values, 0.95))

    @property
    def band(self) -> tuple[float, float]:
        """2.5 and 97.5 % quantile."""
        low, high = np.quantile(self.values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return float(low), float(high)

    def p(self, observed: float) -> float:
        """One-sided p-value of a gap: (1 + number of permutations that reach it) / (1 + number of
        permutations)."""
        return float((1 + np.sum(self.values >= observed - 1e-12)) / (1 + len(self.values)))


def floor_of_level(
    metric: str,
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    unit: np.ndarray | None = None,
    design: str = "crossed",
    known: Mapping[str, Any] | None = None,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Floor:
    """Distribution of a metric when groups do not matter, by permutation.

    Groups change places within a class; where every photograph is shown in every group, within the
    photograph, since its images are easy or hard together. All classifiers meet the same
    permutation, and the metric is their mean.

    metric          str                    a registered metric with one value, such as accuracy-gap
    label, group    (N,) int               of the test images
    predicted       (N,) or (R, N) int     of one generation
    unit            (N,) int               photograph of each image, if each is shown in every
                                           group; else None
    known           by keyword             what metrics may ask for, such as occurs (K, G) and
                                           favoured (K, G); see `metrics`
    returns         Floor                  nan where the metric is undefined
    raises          ValueError             if no class (or photograph) has two groups, or the metric
                                           has several values
    source          ours; metrics.md, section 10, by simulation in the tests
    """
    label, group = whole_numbers("label", label), whole_numbers("group", group)
    rows = np.atleast_2d(predicted)
    predicted = np.stack([whole_numbers("predicted", row) for row in rows])
    stratum = label if unit is None else whole_numbers("unit", unit)
    pairs = np.unique(np.stack([stratum, group]), axis=1)[0]
    if len(pairs) == len(np.unique(pairs)):
        raise ValueError(
            "a floor needs classes (or photographs) with images of two groups; here each belongs "
            "to one"
        )
    known = {"unit": unit, **(known or {})}
    shape = (
        known["occurs"].shape if "occurs" in known else (int(label.max()) + 1, int(group.max()) + 1)
    )
    rng, parts = np.random.default_rng(seed), []
    chunk = max(1, 4_000_000 // len(label))
    for first in range(0, n_permutations, chunk):
        n = min(chunk, n_permutations - first)
        if metric in FROM_TABLES:
            tables = correct_tables(predicted == label, label, group, stratum, shape, n, rng)
            parts.append(FROM_TABLES[metric](tables, _tables(label, group[None], shape)[0]).mean(1))
        else:
            parts.append(
                np.array(
                    [
                        _asked(metric, label, predicted, g, design, known)
                        for g in shuffled(group, stratum, n, rng)
                    ]
                )
            )
    return Floor(np.concatenate(parts))


def shuffled(
    group: np.ndarray, stratum: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """The groups of all images, n times, each time permuted within strata; (n, N)."""
    order = np.argsort(stratum, kind="stable")
    _, first, size = np.unique(stratum[order], return_index=True, return_counts=True)
    groups = np.empty((n, len(group)), group.dtype)
    for s in np.unique(size):
        members = order[first[size == s][:, None] + np.arange(s)]
        groups[:, members] = rng.permuted(
            np.broadcast_to(group[members], (n, *members.shape)), axis=2
        )
    return groups


def correct_tables(
    correct: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    stratum: np.ndarray,
    shape: tuple[int, int],
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Correct images of each cell after n permutations of the groups within strata.

    correct  (R, N) bool
    returns  (n, R, K, G) int   strata that are all right or all wrong need no permutation
    """
    _, at = np.unique(stratum, return_inverse=True)
    size = np.bincount(at)
    mixed = np.any([(c := np.bincount(at, row)) * (size - c) > 0 for row in correct], axis=0)[at]
    moved = shuffled(group[mixed], stratum[mixed], n, rng)
    return np.stack(
        [
            _tables(label[row & ~mixed], group[None, row & ~mixed], shape)
            + _tables(label[row & mixed], moved[:, row[mixed]], shape)
            for row in correct
        ],
        axis=1,
    )


def _tables(label: np.ndarray, group: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number of images of each cell, for several assignments of groups: group (n, N) gives (n, K,
    G)."""
    cells = shape[0] * shape[1]
    at = np.arange(len(group))[:, None] * cells + label * shape[1] + group
    return np.bincount(at.ravel(), minlength=len(group) * cells).reshape(len(group), *shape)


def _asked(
    metric: str,
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    design: str,
    known: Mapping[str, Any],
) -> float:
    """Mean over classifiers of a metric as it is registered."""
    values = [
        measure(
            metric,
            label,
            row,
            group,
            design=design,
            biased="favoured" in known,
            paired=known["unit"] is not None,
            known=known,
        )
        for row in predicted
    ]
    if any(len(v) != 1 or v[0].label is not None or v[0].group is not None for v in values):
        raise ValueError(f"a floor needs a metric with one value; {metric!r} has several")
    return float(np.mean([v[0].value for v in values]))


def floor_band(
    outcomes: list[Any], metric: str, n_permutations: int = PERMUTATIONS
) -> pd.DataFrame:
    """The floor of a metric in every generation of one arm: where a single seed lies if groups do
    not matter.

    outcomes        of one arm, one per seed
    n_permutations  of all seeds together, at least PERMUTATIONS_OF_A_SEED of each: the band is a
                    mean over seeds
    returns         generation, low, mean, high, quantile95: the floor of each seed, averaged over
                    seeds; the band is 95 %
    raises          ValueError   see floor_of_level
    """
    rows = []
    of_a_seed = min(n_permutations, max(PERMUTATIONS_OF_A_SEED, n_permutations // len(outcomes)))
    for t in range(len(outcomes[0].predicted)):
        floors = [
            floor_of_level(
                metric,
                o.label,
                o.predicted[t],
                o.group,
                unit=o.unit if o.paired else None,
                design=o.design,
                known=_known(o),
                n_permutations=of_a_seed,
                seed=t,
            )
            for o in outcomes
        ]
        low, high = np.mean([f.band for f in floors], axis=0)
        rows.append(
            (
                t,
                low,
                np.mean([f.mean for f in floors]),
                high,
                np.mean([f.quantile95 for f in floors]),
            )
        )
    return pd.DataFrame(rows, columns=["generation", "low", "mean", "high", "quantile95"])


def _known(o: Any) -> dict[str, Any]:
    return {"occurs": o.occurs, "start_counts": o.counts} | (
        {"favoured": o.favoured} if o.biased else {}
    )
