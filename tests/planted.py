"""Studies with a known truth: outcomes whose answers a test plants, cell by cell."""

import functools
from types import SimpleNamespace

import numpy as np

from biasstudy import Experiment

CLASSES, GROUPS, PHOTOGRAPHS = 6, 3, 120
FAVOURED = np.where(np.arange(GROUPS) == np.arange(CLASSES)[:, None] % GROUPS, 1, -1)


@functools.cache
def planted_experiment(arm: str, seed: int, **fields) -> Experiment:
    """The experiment whose outcome a test plants; biased unless its fields say otherwise."""
    fields = {"start": "biased", "bias": 0.6, "n_generations": 1, **fields}
    return Experiment(seed=seed, **fields).to_arm(arm)


def planted(rng, accuracy_of_arm, n=6, photographs=PHOTOGRAPHS, hard=0.0, **fields):
    """A study whose arms have these cell accuracies (classes, groups), photographs shown in every
    group.

    hard     spread over photographs of how much more or less often each is told rightly, in all
             arms and seeds alike
    fields   of the experiments, beside a biased start of one generation
    """
    unit = np.repeat(np.arange(photographs), GROUPS)
    label, group = unit % CLASSES, np.tile(np.arange(GROUPS), photographs)
    shift = hard * rng.standard_normal(photographs)[unit]
    outcomes = []
    for arm, accuracy in accuracy_of_arm.items():
        for seed in range(n):
            right = rng.random(len(label)) < accuracy[label, group] + shift
            e = planted_experiment(arm, seed, **fields)
            outcomes.append(
                SimpleNamespace(
                    experiment=e,
                    numerics="float64",
                    biased=True,
                    design="crossed",
                    paired=True,
                    label=label,
                    group=group,
                    unit=unit,
                    favoured=FAVOURED,
                    occurs=FAVOURED != 0,
                    counts=np.ones_like(FAVOURED),
                    predicted=np.where(right, label, (label + 1) % CLASSES)[None, None],
                    correct=lambda right=right: right[None, None],
                )
            )
    return SimpleNamespace(
        outcomes=outcomes, of=lambda arm: [o for o in outcomes if o.experiment.arm == arm]
    )
