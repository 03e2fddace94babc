"""Summary and ledger: read from stored results, corrected for how many there are."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Results, figures, reference, run
from biasstudy.inference.contrasts import contrast, difference
from biasstudy.inference.intervals import holm
from biasstudy.inference.verdicts import change, sentence
from biasstudy.report import ledger
from biasstudy.report.shipped import studies
from biasstudy.report.summary import Stored, answer, remedies, stored, table_of_effects

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def shipped():
    return stored()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two settings of two seeds."""
    seeds = [
        tiny(start="biased", bias=bias, n_generations=1, seed=s)
        for bias in (0.3, 0.8)
        for s in range(2)
    ]
    results = run(
        [e.to_arm(arm) for e in seeds for arm in ("generated", "real", "none")],
        numerics=FLOAT64,
        where=tmp_path_factory.mktemp("small"),
    )
    return {
        f"bias {bias}": Results([o for o in results.outcomes if o.experiment.bias == bias])
        for bias in (0.3, 0.8)
    }


def test_every_stored_study_is_in_the_summary(shipped):
    parts = set(studies()) - set(shipped.parts)
    assert all(not shipped.parts.get(name) for name in parts) and set(shipped.effects.study) == set(
        shipped.parts
    )
    ids = {o.experiment.id for o in shipped.outcomes}
    assert len(ids) == len(shipped.outcomes) == sum(shipped.cost.experiments) - repeated(shipped)


def repeated(found):
    ids = [
        o.experiment.id
        for parts in found.parts.values()
        for o in {o.experiment.id: o for r in parts.values() for o in r.outcomes}.values()
    ]
    return len(ids) - len(set(ids))


def test_a_remedy_is_compared_with_the_same_setting_without_it(tmp_path):
    base = tiny(start="biased", bias=0.6, ratio=1.0, n_generations=1)
    settings = {
        f"{protocol}, {ratio}": dataclasses.replace(base, protocol=protocol, ratio=ratio)
        for protocol, ratio in (("subsample", 1.0), ("balanced", 1.0), ("balanced", 0.5))
    }
    parts = {name: run(e, numerics=FLOAT64, where=tmp_path) for name, e in settings.items()}
    found = remedies(Stored({"study": parts}))
    expected = difference(
        parts["balanced, 1.0"].of("generated"), parts["subsample, 1.0"].of("generated")
    )
    assert found[["remedy", "n"]].values.tolist() == [["balanced", 1]]
    assert found.setting[0] == "colorized-mnist-5k: bias 0.6, mixture, ridge, T 1"
    assert found.change[0] == expected.mean


def test_effects_are_the_contrasts_with_holm_within_a_study(shipped):
    table = shipped.effects
    row = table.iloc[-1]
    a = contrast(shipped.parts[row.study][row.variant], "A")
    assert (row.A, row.A_low, row.n) == (a.mean, a.low, a.n)
    for study, part in table.groupby("study"):
        found = {
            name: change(results)
            for name, results in shipped.parts[study].items()
            if results.of("none")
        }
        for column, p_of in (
            ("differs", lambda c: c.a.p),
            ("changed", lambda c: c.p_changed),
            ("within", lambda c: c.p_within),
        ):
            own = [p_of(c) if c.a.n >= 6 else np.nan for c in found.values()]
            plan = shipped.parts[study][part.variant.iloc[0]].plan
            # of what was planned beside them, such as P, nothing is taken to be shown
            others = len(plan.family) - len(own) if plan else 0
            adjusted = dict(zip(found, holm([*own, *[1.0] * others]), strict=False))
            assert np.allclose(part[column], part.variant.map(adjusted), equal_nan=True)
    changed = table[table.changed < 0.05]
    assert set(changed.word) == {"amplified", "reduced"}
    assert (table.word[table.within < 0.05] == "within the margin").all()
    assert ((table.growth_low > 0.25) == (table.A_low > table.margin))[changed.index].all()
    planned = table.study.isin(
        [
            "colorized_mnist",
            "colorized_mnist_fit",
            "colorized_mnist_fit_unbiased",
            "digits_by_thickness",
            "cifar20_fit",
            "colorized_mnist_performative",
            "colorized_mnist_transfer_fit",
            "colorized_mnist_filter_fit",
            "colorized_mnist_fit_mixture",
            "colorized_mnist_long",
        ]
    )
    assert (table.status == np.where(planned, "confirmatory", "exploratory")).all(), (
        "a plan was frozen before these were run"
    )


def test_settings_of_a_study_are_not_pooled_as_seeds():
    for study in ("colorized_mnist_fit", "colorized_mnist_start"):
        with pytest.raises(ValueError, match="these results are of several settings"):
            sentence(reference(study))


def test_what_cannot_be_amplified_is_counted_apart(shipped):
    asked, table = shipped.effects, shipped.data_sets
    counted = asked[asked.has_bias & ~asked.remedy & ~asked.feedback & (asked.n >= 6)]
    assert table.settings.sum() == len(counted) < len(asked)
    assert (
        table[["amplified", "reduced", "within", "cannot_tell"]].sum(axis=1) == table.settings
    ).all()
    assert not asked[asked.has_bias].start.eq("unbiased").any()
    # a start as found has a bias of its own
    assert not asked[(asked.start != "as-found") & (asked.bias == 0)].has_bias.any()
    one = table.set_index("dataset").loc["hard-imagenet"]
    alone = asked[(asked.study == "hard_imagenet")].iloc[0]
    assert (one.A, one.A_low) == pytest.approx((alone.A, alone.A_low)), "one setting is its mean"


def test_a_setting_that_two_studies_hold_counts_once_where_most_arms_were_run(small):
    lean = {
        name: Results(
            [
                dataclasses.replace(
                    o, experiment=dataclasses.replace(o.experiment, shortfall="keep")
                )
                if o.experiment.arm == "generated"
                else o
                for o in results.outcomes
                if o.experiment.arm != "real"
            ]
        )
        for name, results in small.items()
    }
    alone = table_of_effects({"small": small})
    assert (
        table_of_effects({"lean": lean, "small": small, "twin": small}).equals(alone)
        and len(alone) == len(small) > 1
    )


def test_figures_tell_settings_apart(shipped):
    figure, rows = figures.effects(shipped.effects, shipped.mark)
    named = [[text.get_text() for text in axis.get_yticklabels()] for axis in figure.axes]
    assert sum(map(len, named)) == len(rows) and all(
        len(set(names)) == len(names) for names in named
    )
    assert sum("(guidance 1.5)" in name for names in named for name in names) == 1, (
        "by what differs, not by the study"
    )
    figure, table = figures.dose(shipped.effects, shipped.parts, shipped.mark)
    for axis, (_, part) in zip(figure.axes, table.groupby("dose", sort=False), strict=True):
        looks = {
            (bars[0].get_color(), bars[0].get_linestyle(), bars[0].get_marker())
            for bars in axis.containers
        }
        assert len(looks) == len(axis.containers) == part.line.nunique()
    plt.close("all")


def test_few_seeds_give_no_answer(small):
    found = Stored({"small": small})
    assert (
        set(found.effects.verdict) == {"no verdict with fewer than 6 seeds"}
        and found.effects.differs.isna().all()
    )
    assert answer(found) == ("No answer: no setting on real data has a biased start and 6 seeds.")
    assert (
        "cannot tell" in {j.word for j in found.judgements.values()} and len(found.judgements) == 2
    )
    rows = ledger.table(found)
    assert rows.result.str.contains("not stored").sum() >= 3 and len(rows) == len(ledger.LEDGER)


def planted(effect_by_setting):
    """Stored results of made-up verdicts: the sentence counts what it is given."""
    columns = {
        "n": 6,
        "dataset": "cifar20",
        "has_bias": True,
        "remedy": False,
        "feedback": False,
        "status": "exploratory",
        "beside_real": "",
        "decayed": "",
        "beyond": "not compared with all paths",
        "fit": "fit",
    }
    table = pd.DataFrame([{**columns, "word": word, **more} for word, more in effect_by_setting])
    table["counted"] = table.has_bias & ~table.remedy & ~table.feedback
    return SimpleNamespace(effects=table)


def test_the_answer_counts_settings_with_a_bias_to_amplify():
    found = planted(
        [
            ("amplified", {"beside_real": "more than with new real images", "decayed": "recall"}),
            ("amplified", {"beyond": "beyond the loss of accuracy", "n": 12}),
            ("reduced", {"remedy": True}),
            ("amplified", {"feedback": True}),
            ("within the margin", {"dataset": "colorized-mnist"}),
            ("within the margin", {"dataset": "colorized-mnist-5k"}),
            ("within the margin", {"has_bias": False}),
            ("amplified", {"dataset": "standin20"}),
            ("no verdict with fewer than 6 seeds", {"n": 3}),
        ]
    )
    changed = "the accuracy contrast"
    told = (
        f"{changed} widened by more than a quarter in 2, stayed within a quarter in 2. In 1 of the "
        "2 it is wider than with new real images; in 1 this is shown to be more than lost accuracy "
        "alone makes."
    )
    last = "All of this is exploratory, and from small models."
    first = (
        "settings have a biased start, no remedy and no feedback (cifar20, mnist; 6 to 12 seeds a "
        "setting)."
    )
    fit = "the first generator is fit (in 1 its later images decay)"
    assert answer(found) == f"4 {first} In 4 {fit}: {told} {last}"
    found.effects.loc[0, "status"] = "confirmatory"
    assert answer(found).endswith(
        " Confirmatory are 1 of the 4 fit; the rest is exploratory. All models are small."
    )
    found.effects["status"] = "exploratory"
    found.effects["fit"] = "unfit"
    assert answer(found) == (
        f"4 {first} In none is the first generator fit. In 4 it is unfit: {told} {last}"
    )
    open_setting = [("cannot tell", {"fit": "unfit"}), ("cannot tell", {})]
    assert (
        f"In 1 the first generator is fit: whether {changed} changed by a quarter cannot be told. "
        "In 1 it is unfit: " in answer(planted(open_setting))
    )
    unknown = planted([("cannot tell", {"fit": "fitness not measured"})])
    assert "In 1 this was not measured: whether " in answer(unknown)
    assert answer(planted([("amplified", {"has_bias": False})])).startswith("No answer: ")


def test_the_ledger_names_notebooks_that_are_there_and_reasons(shipped):
    named = {name for claim in ledger.LEDGER for name in claim.notebooks}
    assert named <= {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    known = (
        "n = ",
        "E is above 0 in ",
        "not testable here: ",
        "not stored",
        " experiments in ",
        " settings, ",
    )
    for claim in ledger.LEDGER:
        says = claim.says(shipped)
        assert any(word in says for word in known), says
        assert claim.notebooks or isinstance(claim.result, str)


def test_a_difference_is_paired_by_seed(small):
    one, other = (small[name].of("generated") for name in ("bias 0.3", "bias 0.8"))
    e = difference(one, one)
    assert (e.mean, e.se, e.p, e.n) == (0, 0, 1, 2)
    assert np.isnan(e.low) and np.isnan(e.high), "no spread is no knowledge"
    with pytest.raises(ValueError, match=r"bias is 0.3 in one and 0.8 in the other"):
        difference(one, other)
    with pytest.raises(
        ValueError, match="a difference needs two lists of outcomes with the same seeds"
    ):
        difference(one, other[:1])


def test_effects_leave_out_what_was_not_run(small):
    bare = {"alone": Results([dataclasses.replace(o) for o in small["bias 0.3"].of("generated")])}
    mixed = table_of_effects({"bare": bare, "small": small})
    assert set(mixed.study) == {"small"} and mixed.S.isna().all() and mixed.R.notna().all()


def test_tables_name_settings_as_figures_do(shipped):
    names = set(shipped.effects.setting)
    assert len(names) == len(shipped.effects)
    figure, rows = figures.effects(shipped.effects, shipped.mark)
    drawn = {
        f"{axis.get_title(loc='left').split(',')[0]}: {tick.get_text()}"
        for axis in figure.axes
        for tick in axis.get_yticklabels()
    }
    assert drawn == set(rows.setting) == names
    _, ways = figures.ways(shipped.effects, shipped.parts, shipped.mark)
    told = set(shipped.effects.setting[shipped.effects.n >= 6])
    assert set(ways.setting) == told, "each setting has one way, though two studies may hold it"
    _, doses = figures.dose(shipped.effects, shipped.parts, shipped.mark)
    assert not doses.duplicated(["dose", "line", "value"]).any(), "a line is one of doses"
    plt.close("all")


def test_the_largest_setting_that_ships_is_of_a_fit_generator_and_keeps_confidences(shipped):
    study, variant = shipped.largest
    row = shipped.effects.set_index(["study", "variant"]).loc[study, variant]
    results = shipped.parts[study][variant]
    assert row.fit == "fit" and all(o.confidence is not None for o in results.outcomes)


def test_the_largest_setting_is_one_whose_results_keep_confidences(small):
    first, last = small
    lean = Results([dataclasses.replace(o, confidence=None) for o in small[last].outcomes])
    assert Stored({"study": small}).largest == ("study", last), "of equal ones the last"
    assert Stored({"study": {**small, last: lean}}).largest == ("study", first)
    assert Stored({"study": {last: lean}}).largest == ("study", last), "better than none"
    figure, values = figures.calibration(lean)
    assert values.empty and list(values) == ["arm", "group", "error", "sd"]
    assert "keep no confidences" in figure.axes[0].texts[0].get_text()
    plt.close("all")


def test_results_without_a_change_are_one_sentence():
    with pytest.raises(ValueError, match="no setting has results of the arms generated and none"):
        _ = Stored({}).effects
