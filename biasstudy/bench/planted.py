"""Studies with a planted truth: outcomes drawn from accuracies that are known cell by cell, for the
tests of the instrument and for `error_rates`."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..experiment import Experiment
from ..loop.results import Outcome, Results


@functools.cache
def experiment_of(arm: str, seed: int, **fields: Any) -> Experiment:
    """The experiment whose outcome is planted; its start is biased unless its fields say
    otherwise."""
    fields = {"start": "biased", "bias": 0.6, "n_generations": 1, **fields}
    return Experiment(seed=seed, **fields).to_arm(arm)


def favoured_cells(n_classes: int, n_groups: int) -> np.ndarray:
    """1 where a crossed start favours the cell, -1 where not, (n_classes, n_groups)."""
    majority = np.arange(n_classes)[:, None] % n_groups
    return np.where(np.arange(n_groups) == majority, 1, -1)


def planted(
    rng: np.random.Generator,
    accuracy_of_arm: Mapping[str, Any],
    n: int = 6,
    per_class: int | Sequence[int] = 20,
    hard: float = 0.0,
    unsteady: float = 0.0,
    **fields: Any,
) -> Results:
    """A crossed study whose arms have these accuracies; every photograph is shown in every group.

    accuracy_of_arm  arm -> (n_classes, n_groups), or (points, n_classes, n_groups) in [0, 1] of its
                     generations; an arm with one has the same in all
    n                seeds
    per_class        photographs of each class
    hard             sd over photographs of what is added to their accuracy, in all arms and seeds
    unsteady         sd over seeds, and cells, of what is added to the accuracy of an arm
    fields           of the experiments, beside a biased start of one generation
    """
    first = np.asarray(next(iter(accuracy_of_arm.values())), float)
    n_classes, n_groups = first.shape[-2:]
    photographs = np.repeat(np.arange(n_classes), per_class)
    unit = np.repeat(np.arange(len(photographs)), n_groups)
    label, group = photographs[unit], np.tile(np.arange(n_groups), len(photographs))
    difficulty = hard * rng.standard_normal(len(photographs))[unit]
    favoured = favoured_cells(n_classes, n_groups)
    outcomes = []
    for arm, accuracy in accuracy_of_arm.items():
        points = np.asarray(accuracy, float).reshape(-1, n_classes, n_groups)
        for seed in range(n):
            shaken = points + unsteady * rng.standard_normal(points.shape)
            right = rng.random((len(points), len(label))) < shaken[:, label, group] + difficulty
            predicted = np.where(right, label, (label + 1) % n_classes)[:, None]
            outcomes.append(
                Outcome(
                    experiment=experiment_of(arm, seed, **fields),
                    numerics="planted",
                    scale="planted",
                    classes=tuple(map(str, range(n_classes))),
                    groups=tuple(map(str, range(n_groups))),
                    design="crossed",
                    occurs=np.ones_like(favoured, bool),
                    favoured=favoured,
                    counts=np.ones_like(favoured),
                    label=label,
                    group=group,
                    unit=unit,
                    paired=True,
                    predicted=predicted,
                    confidence=np.ones(predicted.shape),
                    pools=np.ones((len(points), n_classes, n_groups + 1), int),
                )
            )
    return Results(outcomes)
