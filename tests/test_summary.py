"""Summary and ledger: read from stored results, corrected for how many there are."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Results, figures, run
from biasstudy.inference.contrasts import contrast, difference
from biasstudy.inference.intervals import holm
from biasstudy.inference.verdicts import verdict
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
    assert found[["remedy", "variant", "n"]].values.tolist() == [["balanced", "balanced, 1.0", 1]]
    assert found.change[0] == expected.mean


def test_effects_are_the_contrasts_with_holm_within_and_over_studies(shipped):
    table = shipped.effects
    row = table.iloc[-1]
    a = contrast(shipped.parts[row.study][row.variant], "A")
    assert (row.A, row.A_low, row.n) == (a.mean, a.low, a.n)
    counted = table.A_p.where(table.n >= 6)
    assert np.allclose(table.A_all, holm(counted), equal_nan=True)
    for study, part in table.groupby("study"):
        found = {
            name: contrast(results, "A")
            for name, results in shipped.parts[study].items()
            if results.of("none")
        }
        adjusted = dict(
            zip(found, holm([a.p if a.n >= 6 else np.nan for a in found.values()]), strict=True)
        )
        assert np.allclose(part.A_holm, part.variant.map(adjusted), equal_nan=True)
    assert (table.A_all.dropna() >= table.A_holm.dropna() - 1e-12).all(), (
        "more hypotheses, larger p"
    )
    assert (table.verdict[table.A_holm < 0.05].isin(["amplified", "reduced"])).all()


def test_a_setting_that_two_studies_hold_counts_once_where_most_arms_were_run(small):
    lean = {
        name: Results(
            [
                dataclasses.replace(
                    o, experiment=dataclasses.replace(o.experiment, shortfall="keep")
                )
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
        and found.effects.A_all.isna().all()
    )
    assert answer(found) == "No answer: no setting on real data has 6 seeds."
    assert (
        "cannot tell" in {j.word for j in found.judgements.values()} and len(found.judgements) == 2
    )
    rows = ledger.table(found)
    assert rows.result.str.contains("not stored").sum() >= 3 and len(rows) == len(ledger.LEDGER)


def planted(effect_by_setting):
    """Stored results of made-up verdicts: the sentence counts what it is given, and only studies
    with enough seeds."""
    columns = {
        "n": 6,
        "dataset": "cifar20",
        "because": False,
        "A_all": 0.5,
        "A_logit_low": -1.0,
        "E": np.nan,
        "E_low": np.nan,
    }
    table = pd.DataFrame([{**columns, "verdict": word, **more} for word, more in effect_by_setting])
    table["study"] = [f"of {n} seeds" for n in table.n]
    parts = {
        f"of {n} seeds": {
            "": SimpleNamespace(
                outcomes=[
                    SimpleNamespace(experiment=SimpleNamespace(id=(n, i))) for i in range(n + 1)
                ]
            )
        }
        for n in (3, 6)
    }
    return SimpleNamespace(effects=table, parts=parts)


def test_the_sentence_counts():
    found = planted(
        [
            ("amplified", {"because": True, "A_all": 0.01, "E": 0.03, "E_low": 0.01}),
            ("amplified", {"A_logit_low": 0.1, "E": 0.0, "E_low": -0.1}),
            ("reduced", {}),
            ("no change beyond 0.02", {"dataset": "colorized-mnist"}),
            ("no change beyond 0.02", {"dataset": "colorized-mnist-5k"}),
            ("amplified", {"dataset": "standin20"}),
            ("no verdict with fewer than 6 seeds", {"n": 3}),
        ]
    )
    assert answer(found) == (
        "It depends: of 5 settings on 2 data sets (n = 6 seeds each, 7 experiments), adding "
        "generated images amplified the bias of later classifiers in 2 (1 of them because the "
        "images are generated; 1 after correction for all 5; 1 shown on the logit scale, too; of "
        "the 2 with an accuracy curve 1 shown beyond the loss of accuracy), reduced it in 1, "
        "changed nothing beyond 0.02 in 2, and 0 cannot be told."
    )
    assert answer(planted([("cannot tell", {})])).startswith("In no setting so far")


def test_the_ledger_names_notebooks_that_are_there_and_reasons(shipped):
    named = {name for claim in ledger.LEDGER for name in claim.notebooks}
    assert named <= {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    known = ("n = ", "not testable here: ", "not stored", " experiments in ", " settings, ")
    for claim in ledger.LEDGER:
        says = claim.says(shipped)
        assert any(word in says for word in known), says
        assert claim.notebooks or isinstance(claim.result, str)


def test_a_difference_is_paired_by_seed(small):
    one, other = (small[name].of("generated") for name in ("bias 0.3", "bias 0.8"))
    e = difference(one, one)
    assert (e.mean, e.low, e.high) == (0, 0, 0) and verdict(e).word.startswith("no verdict")
    assert difference(one, other).n == 2
    with pytest.raises(
        ValueError, match="a difference needs two lists of outcomes with the same seeds"
    ):
        difference(one, other[:1])


def test_effects_leave_out_what_was_not_run(small):
    bare = {"alone": Results([dataclasses.replace(o) for o in small["bias 0.3"].of("generated")])}
    mixed = table_of_effects({"bare": bare, "small": small})
    assert set(mixed.study) == {"small"} and mixed.S.isna().all() and mixed.R.notna().all()
