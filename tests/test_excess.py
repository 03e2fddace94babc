"""The excess over the accuracy curve on planted truth, crossed and nested."""

from types import SimpleNamespace

import numpy as np
import pytest

from biasstudy.bench.planted import experiment_of, planted
from biasstudy.experiment import PATHS
from biasstudy.inference.contrasts import contrast
from biasstudy.inference.excess import (
    BEYOND,
    NOT_BEYOND,
    NOT_RUN,
    OUT_OF_REACH,
    all_excesses,
    beyond,
    excess,
)
from biasstudy.inference.verdicts import change, corrected, sentence, verdict

CLASSES, GROUPS, IMAGES = 6, 3, 1800


# ---- Planted truth -------------------------------------------------------------------------------


def of_accuracy(right, nested, slope=0.5):
    """Accuracy of cells at a stage of training: the rarer groups lose more of it, by the slope,
    when there is less to learn from."""
    favoured = np.where(np.arange(GROUPS) == np.arange(CLASSES)[:, None] % GROUPS, 1, -1)
    cells = right - slope * (0.95 - right) * (favoured < 0)
    if not nested:
        return cells, favoured, np.ones_like(favoured, bool)
    occurs = np.arange(CLASSES * GROUPS)[None] // GROUPS == np.arange(CLASSES)[:, None]
    spread = [np.where(occurs, np.tile(x, (1, CLASSES)), 0) for x in (cells, favoured)]
    return *spread, occurs


def study(rng, nested, generated, extra=0.0, n=6, slopes=None):
    """Arms generated, none and paths (accuracies of the favoured .95, .9, .8, .7); `extra`: lost by
    the rare alone.

    slopes  of the paths by name and of `generated`; default: the path fewer, all .5
    """
    slopes = slopes or {"fewer": 0.5}
    paths = {"generated": [0.95, generated], "none": [0.95, 0.95]}
    paths |= {path: [0.95, 0.9, 0.8, 0.7] for path in slopes if path != "generated"}
    _, favoured, occurs = of_accuracy(0.95, nested)
    y, g = np.nonzero(occurs)
    at = np.arange(IMAGES) % len(y)
    label, group = y[at], g[at]
    hard = rng.standard_normal(IMAGES) * 0.03  # some images are hard for every seed
    found = {}
    for arm, path in paths.items():
        found[arm] = []
        for seed in range(n):
            slope = slopes.get(arm, 0.5)
            cells = np.stack([of_accuracy(a, nested, slope)[0] for a in path])
            if arm == "generated":
                cells[-1] -= extra * (favoured < 0)
            right = (
                rng.random((len(path), IMAGES))
                < cells[:, label, group] + hard + 0.005 * rng.standard_normal()
            )[:, None]
            found[arm].append(
                SimpleNamespace(
                    experiment=experiment_of(arm, seed),
                    numerics="float64",
                    biased=True,
                    paired=False,
                    label=label,
                    group=group,
                    unit=np.arange(IMAGES),
                    favoured=favoured,
                    occurs=occurs,
                    predicted=right,
                    correct=lambda right=right: right,
                )
            )
    return SimpleNamespace(of=lambda arm: found.get(arm, []))


@pytest.mark.parametrize("nested", [False, True], ids=["crossed", "nested"])
def test_a_loss_of_accuracy_alone_is_no_excess_and_a_loss_of_groups_is(nested):
    rng, words = np.random.default_rng(1), {"alone": [], "extra": []}
    for _ in range(150):
        alone, more = study(rng, nested, 0.85), study(rng, nested, 0.9, extra=0.08)
        words["alone"].append((contrast(alone, "A"), excess(alone, "fewer").estimate))
        words["extra"].append((contrast(more, "A"), excess(more, "fewer").estimate))
    assert np.mean([a.low > 0 for a, _ in words["alone"]]) > 0.9, "A alone would call it amplified"
    assert np.mean([e.low > 0 or e.high < 0 for _, e in words["alone"]]) <= 0.05 + 3 * np.sqrt(
        0.05 * 0.95 / 150
    )
    assert abs(np.mean([e.mean for _, e in words["alone"]])) < 0.006
    assert np.mean([e.low > 0 for _, e in words["extra"]]) > 0.8
    spread = np.std([e.mean for _, e in words["alone"]])
    assert spread == pytest.approx(np.mean([e.se for _, e in words["alone"]]), rel=0.25)


def test_a_family_of_crossed_and_nested_hypotheses_gives_false_alarms_in_at_most_five_percent():
    """Six primary hypotheses (three data sets, two starts), no effect in any; real outcomes,
    intervals and verdicts."""
    rng, families, alarms = np.random.default_rng(3), 200, 0
    for _ in range(families):
        found = [
            change(study(rng, nested, 0.95), margin=0.0)
            for nested in (False, True)
            for _ in range(3)
        ]
        words = [verdict(c, p) for c, p in zip(found, corrected(found), strict=True)]
        alarms += any(v.word in ("amplified", "reduced") for v in words)
    assert alarms / families <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / families)


@pytest.mark.parametrize("nested", [False, True], ids=["crossed", "nested"])
def test_the_smallest_detectable_change_is_found_with_the_power_stated(nested):
    rng = np.random.default_rng(4)
    sd = np.mean([contrast(study(rng, nested, 0.95), "A").per_seed.std(ddof=1) for _ in range(60)])
    words = [
        verdict(change(study(rng, nested, 0.95, extra=1.43 * sd), margin=0.0)).word
        for _ in range(150)
    ]
    assert words.count("amplified") / 150 == pytest.approx(0.8, abs=0.12)


def test_below_a_path_that_is_said_and_above_it_the_slope_goes_on():
    rng = np.random.default_rng(2)
    below = excess(study(rng, False, 0.6), "fewer")
    assert np.isnan(below.estimate.mean) and not below.reached
    assert below.accuracy < below.reach == pytest.approx(0.62, abs=0.03)
    above = excess(study(rng, False, 0.97), "fewer")
    assert above.reached and above.estimate.low < 0 < above.estimate.high
    flat = study(rng, False, 0.9)
    for o in flat.of("fewer"):
        o.predicted = np.zeros((4, 1, IMAGES), bool)
        o.correct = lambda: np.zeros((4, 1, IMAGES), bool)
    with pytest.raises(ValueError, match=r"one accuracy, 0.000: there is no path"):
        excess(flat, "fewer")


def test_beyond_the_loss_of_accuracy_is_beyond_every_way_to_lose_it():
    """A model that loses accuracy as shorter fits do has an excess over fewer images, and is not
    beyond the loss of accuracy."""
    rng = np.random.default_rng(5)
    slopes = {"generated": 1.0, "fewer": 0.3, "shorter": 1.0, "noisier": 0.3}
    words = []
    for _ in range(60):
        results = study(rng, False, 0.85, slopes=slopes)
        found = all_excesses(results)
        words.append(beyond(found))
        assert found["fewer"].estimate.mean > 0.02
    assert words.count(BEYOND) <= 0.025 * 60 + 3 * np.sqrt(60 * 0.025)
    more = study(rng, False, 0.88, extra=0.15, slopes=slopes)
    assert beyond(all_excesses(more)) == BEYOND
    one = study(rng, False, 0.88, extra=0.15)
    assert beyond(all_excesses(one)) == NOT_RUN, "one path is not enough"
    assert beyond({}) == NOT_RUN
    low = all_excesses(study(rng, False, 0.5, extra=0.15, slopes=slopes))
    assert beyond(low) == OUT_OF_REACH, "counted, not dropped"
    assert beyond(low | {"shorter": found["shorter"]}) == NOT_BEYOND


def test_one_seed_says_that_it_has_no_interval():
    even = np.full((CLASSES, GROUPS), 0.9)
    path = np.stack([even, even - 0.2, even - 0.4])
    arms = {"generated": even - 0.1, "none": even, **dict.fromkeys(PATHS, path)}
    said = sentence(planted(np.random.default_rng(6), arms, n=1))
    assert "nan" not in said and "(one seed: no interval)" in said and "n = 1 seed." in said
