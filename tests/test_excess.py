"""The excess over the accuracy curve on planted truth, crossed and nested."""

from types import SimpleNamespace

import numpy as np
import pytest

from biasstudy.inference.contrasts import contrast, excess
from biasstudy.inference.intervals import holm
from biasstudy.inference.verdicts import verdict

CLASSES, GROUPS, IMAGES = 6, 3, 1800


# ---- Planted truth -------------------------------------------------------------------------------


def of_accuracy(right, nested):
    """Accuracy of cells at a stage of training: the rarer groups lose more of it when there is less
    to learn from."""
    favoured = np.where(np.arange(GROUPS) == np.arange(CLASSES)[:, None] % GROUPS, 1, -1)
    cells = right - 0.5 * (0.95 - right) * (favoured < 0)
    if not nested:
        return cells, favoured, np.ones_like(favoured, bool)
    occurs = np.arange(CLASSES * GROUPS)[None] // GROUPS == np.arange(CLASSES)[:, None]
    spread = [np.where(occurs, np.tile(x, (1, CLASSES)), 0) for x in (cells, favoured)]
    return *spread, occurs


def study(rng, nested, generated, extra=0.0, n=6):
    """Arms generated, none and fewer (accuracies of the favoured .95, .9, .8, .7); `extra`: lost by
    the rare alone."""
    paths = {"generated": [0.95, generated], "none": [0.95, 0.95], "fewer": [0.95, 0.9, 0.8, 0.7]}
    _, favoured, occurs = of_accuracy(0.95, nested)
    y, g = np.nonzero(occurs)
    at = np.arange(IMAGES) % len(y)
    label, group = y[at], g[at]
    hard = rng.standard_normal(IMAGES) * 0.03  # some images are hard for every seed
    found = {}
    for arm, path in paths.items():
        found[arm] = []
        for seed in range(n):
            cells = np.stack([of_accuracy(a, nested)[0] for a in path])
            if arm == "generated":
                cells[-1] -= extra * (favoured < 0)
            right = (
                rng.random((len(path), IMAGES))
                < cells[:, label, group] + hard + 0.005 * rng.standard_normal()
            )[:, None]
            found[arm].append(
                SimpleNamespace(
                    experiment=SimpleNamespace(seed=seed),
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
    return SimpleNamespace(of=lambda arm: found[arm])


@pytest.mark.parametrize("nested", [False, True], ids=["crossed", "nested"])
def test_a_loss_of_accuracy_alone_is_no_excess_and_a_loss_of_groups_is(nested):
    rng, words = np.random.default_rng(1), {"alone": [], "extra": []}
    for _ in range(150):
        alone, more = study(rng, nested, 0.85), study(rng, nested, 0.9, extra=0.08)
        words["alone"].append((contrast(alone, "A"), excess(alone)))
        words["extra"].append((contrast(more, "A"), excess(more)))
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
            contrast(study(rng, nested, 0.95), "A") for nested in (False, True) for _ in range(3)
        ]
        words = [verdict(a, p) for a, p in zip(found, holm([a.p for a in found]), strict=True)]
        alarms += any(v.word in ("amplified", "reduced") for v in words)
    assert alarms / families <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / families)


@pytest.mark.parametrize("nested", [False, True], ids=["crossed", "nested"])
def test_the_smallest_detectable_change_is_found_with_the_power_stated(nested):
    rng = np.random.default_rng(4)
    sd = np.mean([contrast(study(rng, nested, 0.95), "A").per_seed.std(ddof=1) for _ in range(60)])
    words = [
        verdict(contrast(study(rng, nested, 0.95, extra=1.43 * sd), "A")).word for _ in range(150)
    ]
    assert words.count("amplified") / 150 == pytest.approx(0.8, abs=0.12)


def test_below_the_curve_nothing_is_said_and_above_it_the_slope_goes_on():
    rng = np.random.default_rng(2)
    assert np.isnan(excess(study(rng, False, 0.6)).mean)
    above = excess(study(rng, False, 0.97))
    assert above.low < 0 < above.high
    flat = study(rng, False, 0.9)
    for o in flat.of("fewer"):
        o.predicted = np.zeros((4, 1, IMAGES), bool)
        o.correct = lambda: np.zeros((4, 1, IMAGES), bool)
    with pytest.raises(ValueError, match=r"one accuracy, 0.000: there is no curve"):
        excess(flat)
