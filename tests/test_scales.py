"""The same change on other scales, and several settings as one estimate: planted truth, bias and
coverage."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit

from biasstudy import Results
from biasstudy.bench.planted import favoured_cells, planted
from biasstudy.inference.contrasts import contrast, difference, headline
from biasstudy.inference.pooled import pooled_change, sharing_seeds
from biasstudy.inference.scales import growth, logit_contrast, relative_contrast
from biasstudy.inference.verdicts import change, sentence, verdict

CLASSES, GROUPS = 6, 3
FAVOURED = favoured_cells(CLASSES, GROUPS)

EVEN = np.full((CLASSES, GROUPS), 0.9)


def on_logits(accuracy, loss):
    """Every cell loses as much on the logit scale, whatever its group."""
    return expit(logit(accuracy) - loss)


def test_logits_see_odds_where_accuracies_differ():
    """A planted effect of the same odds ratio in every cell, at cells of unequal accuracy."""
    rng, base = np.random.default_rng(7), np.linspace(0.6, 0.9, CLASSES)[:, None] * np.ones(GROUPS)
    lost = on_logits(base, np.where(FAVOURED > 0, 0, np.log(2)))
    found = [
        logit_contrast(planted(rng, {"generated": lost, "none": base}, n=12), "A")
        for _ in range(40)
    ]
    # the logit of a mean over unequal cells moves a little less than the mean of logits
    sides = [x[FAVOURED < 0].mean() for x in (base, lost)]
    truth = logit(sides[0]) - logit(sides[1])
    assert truth == pytest.approx(np.log(2), abs=0.05)
    assert np.mean([e.mean for e in found]) == pytest.approx(truth, abs=0.06)
    assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.85
    assert np.std([e.mean for e in found]) == pytest.approx(np.mean([e.se for e in found]), rel=0.4)


@pytest.mark.parametrize("per_cell, before, loss", [(10, 0.95, 0.8), (30, 0.979, 0.81)])
def test_a_uniform_loss_on_the_logit_scale_is_none_with_small_cells(per_cell, before, loss):
    """.979 -> .954 with 30 images a cell read +.20 logits when each cell had its own logit."""
    rng, studies = np.random.default_rng(per_cell), 200
    base = on_logits(before, 0.3 * (FAVOURED < 0))
    arms = {"generated": on_logits(base, loss), "none": base, "real": base}
    found = [
        logit_contrast(planted(rng, arms, per_class=per_cell), name)
        for _ in range(studies // 2)
        for name in ("A", "R")
    ]
    spread = np.std([e.mean for e in found]) / np.sqrt(studies)
    assert abs(np.mean([e.mean for e in found])) < 0.02 + 3 * spread
    assert 0.9 <= np.mean([e.low <= 0 <= e.high for e in found]) <= 0.99


def test_a_side_without_an_error_has_a_logit():
    rng, sure = np.random.default_rng(3), np.ones((CLASSES, GROUPS))
    found = logit_contrast(planted(rng, {"generated": sure, "none": sure}), "A")
    assert found.mean == 0 and found.se == 0


def test_a_proportional_loss_is_none_relative_to_accuracy():
    rng, base = np.random.default_rng(4), EVEN - 0.2 * (FAVOURED < 0)
    studies = [planted(rng, {"generated": 0.8 * base, "none": base}, n=12) for _ in range(60)]
    plain, relative = ([f(study, "A") for study in studies] for f in (contrast, relative_contrast))
    assert np.mean([e.mean for e in plain]) == pytest.approx(-0.04, abs=0.005)
    assert np.mean([e.mean for e in relative]) == pytest.approx(0, abs=0.01)
    assert np.mean([e.low <= 0 <= e.high for e in relative]) >= 0.87
    by_hand = np.array([headline(studies[0].of(arm))[:, 0].mean() for arm in ("generated", "none")])
    accuracy = [np.mean([o.correct() for o in studies[0].of(a)]) for a in ("generated", "none")]
    assert relative[0].mean == pytest.approx(np.subtract(*(by_hand / accuracy)))


def test_without_a_contrast_nothing_grows():
    rng = np.random.default_rng(5)
    assert np.isnan(growth(planted(rng, {"generated": EVEN, "none": EVEN}))).all()


# ---- Several settings ----------------------------------------------------------------------------


def with_controls_of(first, other):
    """A setting that shares its arm none with another."""
    outcomes = [*first.of("generated"), *other.of("none")]
    return Results(outcomes)


def test_the_mean_over_settings_counts_shared_controls_once():
    """Twelve settings that share one control: their changes go together, and their mean is no surer
    than that control."""
    rng, base, inside = np.random.default_rng(6), EVEN - 0.1 * (FAVOURED < 0), []
    alone = []
    for _ in range(60):
        control = planted(rng, {"generated": base, "none": base}, hard=0.1)
        settings = [control] + [
            with_controls_of(planted(rng, {"generated": base}, hard=0.1), control)
            for _ in range(11)
        ]
        a = pooled_change(settings).a
        inside.append(a.low <= 0 <= a.high)
        alone.append(a.se / contrast(control, "A").se)
    assert np.mean(inside) >= 0.87
    assert np.mean(alone) > 0.55, "twelve findings would have a standard error of .29 of one"


def test_settings_of_other_seeds_are_not_averaged():
    class Of:
        def __init__(self, *seeds):
            self.seeds = seeds

        def of(self, arm):
            return [SimpleNamespace(experiment=SimpleNamespace(seed=s)) for s in self.seeds]

    usual, shorter, longer, other = (
        Of(*range(*ends)) for ends in ((0, 12), (0, 6), (0, 13), (12, 20))
    )
    assert sharing_seeds([other, usual, shorter, longer]) == [usual, shorter, longer]
    assert sharing_seeds([other]) == [other] and sharing_seeds([]) == []


def test_one_setting_is_its_own_mean():
    rng, base = np.random.default_rng(7), EVEN - 0.1 * (FAVOURED < 0)
    one = planted(rng, {"generated": base - 0.05 * (FAVOURED < 0), "none": base})
    pooled, alone = pooled_change([one]), change(one)
    for name in ("a", "level", "above", "below"):
        mine, its = getattr(pooled, name), getattr(alone, name)
        assert np.allclose([mine.mean, mine.se, mine.df], [its.mean, its.se, its.df])
    assert verdict(pooled) == verdict(alone) and pooled.margin == alone.margin


# ---- What may be paired --------------------------------------------------------------------------


def test_settings_are_no_seeds():
    rng = np.random.default_rng(8)
    arms = {"generated": EVEN, "none": EVEN}
    weak, strong = (planted(rng, arms, bias=bias) for bias in (0.4, 0.6))
    both = Results([*weak.outcomes, *strong.outcomes])
    for ask in (lambda: contrast(both, "A"), lambda: sentence(both), lambda: change(both)):
        with pytest.raises(ValueError, match=r"several settings, bias 0.4, 0.6: settings are no"):
            ask()
    with pytest.raises(ValueError, match="each seed may stand once; got seeds 0, 1, 2, 3, 4, 5"):
        contrast(Results([*weak.outcomes, *weak.outcomes]), "A")
    with pytest.raises(ValueError, match=r"share generation 0 .*; bias is 0.4 in one and 0.6"):
        difference(weak.of("generated"), strong.of("generated"))
    crossed = Results([*weak.of("generated"), *strong.of("none")])
    with pytest.raises(ValueError, match=r"the arm none is not that of these .* bias is 0.6, not"):
        contrast(crossed, "A")
    longer = planted(rng, arms, bias=0.4, n_generations=2)
    with pytest.raises(ValueError, match=r"n_generations is 1 in one and 2 in the other"):
        difference(weak.of("generated"), longer.of("generated"))
    with pytest.raises(ValueError, match="biased starts only"):
        pooled_change([planted(rng, arms, start="unbiased", bias=0.0)])
