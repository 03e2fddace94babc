"""One estimate over several settings of a data set.

Settings of a study share seeds, test images and controls, so ten settings are not ten findings. The
contributions of each seed and photograph are averaged over the settings first; then the average is
an estimate like any other, with the two-way interval for new seeds and new photographs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .contrasts import arms_of, headline_weights, right_of, units_of
from .intervals import two_way_interval
from .verdicts import QUARTER, Change, has_bias


def sharing_seeds(settings: Sequence[Any]) -> list[Any]:
    """Those settings that share at least half of their seeds with the one that does so with most:
    what can be averaged.

    settings  Results of one setting each
    """
    seeds = [{o.experiment.seed for o in results.of("generated")} for results in settings]
    partners = [
        [2 * len(own & other) >= min(len(own), len(other)) for other in seeds] for own in seeds
    ]
    most = max(partners, key=sum, default=[])
    return [results for results, shares in zip(settings, most, strict=True) if shares]


def pooled_change(settings: Sequence[Any]) -> Change:
    """The mean over settings of the change A, against a quarter of the mean of M(none).

    settings  Results of one setting each, all biased, of one data set; of their seeds those count
              that all settings have, of their test images all
    returns   Change
    raises    ValueError   if they are of several data sets, share no two seeds, or one has no bias
    """
    arms = [arms_of(results, "A") for results in settings]
    first = [generated[0] for generated, _ in arms]
    names = sorted({o.experiment.data_name for o in first})
    if len(names) != 1 or not all(map(has_bias, first)):
        raise ValueError(
            f"settings are averaged within one data set, biased starts only; got {names}"
        )
    seeds = sorted(
        set.intersection(*({o.experiment.seed for o in generated} for generated, _ in arms))
    )
    if len(seeds) < 2:
        raise ValueError(f"settings are averaged over seeds that all have; got {seeds}")
    photographs, strata = _photographs(first)
    position = {photograph: i for i, photograph in enumerate(photographs)}
    generated_sum, none_sum = np.zeros((2, len(seeds), len(photographs)))
    for generated, none in arms:
        at = np.array([position[unit] for unit in generated[0].unit.tolist()])
        weights = headline_weights(generated)
        for s, (o, control) in enumerate(zip(generated, none, strict=True)):
            if o.experiment.seed not in seeds:
                continue
            row, n = seeds.index(o.experiment.seed), len(photographs)
            generated_sum[row] += np.bincount(at, weights[s] * right_of(o, -1), n)
            none_sum[row] += np.bincount(at, weights[s] * right_of(control, -1), n)
    generated_mean, none_mean = generated_sum / len(settings), none_sum / len(settings)
    change = generated_mean - none_mean
    level = two_way_interval(none_mean, strata)
    return Change(
        two_way_interval(change, strata),
        level,
        above=two_way_interval(change - QUARTER * none_mean, strata),
        below=two_way_interval(change + QUARTER * none_mean, strata),
        relative=True,
        margin=QUARTER * level.mean,
    )


def _photographs(outcomes: Sequence[Any]) -> tuple[list[int], np.ndarray]:
    """Test photographs of any of the outcomes, and the stratum of each."""
    stratum_of: dict[int, int] = {}
    for o in outcomes:
        _, stratum = units_of(o)
        of_unit = np.unique(o.unit)
        assert len(of_unit) == len(stratum), "every unit has a stratum"
        stratum_of |= dict(zip(of_unit.tolist(), stratum.tolist(), strict=True))
    photographs = sorted(stratum_of)
    return photographs, np.array([stratum_of[photograph] for photograph in photographs])
