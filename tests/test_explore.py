"""Stored results, one setting at a time: what is chosen is what is shown, and menus offer only what
there is."""

import math

import pytest
from conftest import FLOAT64, tiny

from biasstudy import explore, inference, run, summary
from biasstudy.inference.gate import gate
from biasstudy.measures.fitness import CRITERIA
from biasstudy.report.summary import Stored


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Three settings: two biases, one of them with two protocols."""
    parts = {}
    for bias, protocol in ((0.4, "accumulate"), (0.8, "accumulate"), (0.8, "latest")):
        seeds = [tiny(start="biased", bias=bias, protocol=protocol, seed=s) for s in range(2)]
        parts[f"{bias} {protocol}"] = run(
            [e.to_arm(arm) for e in seeds for arm in ("generated", "real", "none")],
            numerics=FLOAT64,
            where=tmp_path_factory.mktemp("runs"),
        )
    return Stored({"mine": parts})


def test_what_is_chosen_is_what_there_is(found):
    assert len(explore.settings(found)) == 3
    chosen = explore.settings(found, bias=0.8, protocol="latest")
    assert list(chosen.variant) == ["0.8 latest"] and chosen.setting.is_unique
    assert explore.results(found, chosen.iloc[0]) is found.parts["mine"]["0.8 latest"]


def test_fit_generators_come_first_and_of_these_a_bias():
    table = explore.settings(summary.stored())
    order = [(row.fit != "fit", not row.has_bias) for row in table.itertuples()]
    assert order == sorted(order) and order[0] == (False, False) and order[-1] == (True, True)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"protocoll": "latest"}, "unknown field 'protocoll' (did you mean protocol?)"),
        ({"protocol": "replace"}, "unknown protocol 'replace'; known: accumulate, latest"),
        ({"bias": 0.4, "protocol": "latest"}, "unknown protocol 'latest'"),
    ],
)
def test_what_is_not_stored_is_told(found, chosen, says):
    with pytest.raises(ValueError) as error:
        explore.settings(found, **chosen)
    assert says in str(error.value)


def test_contrasts_are_those_of_inference(found):
    results = found.parts["mine"]["0.4 accumulate"]
    table = explore.contrasts(results).set_index("contrast")
    assert list(table.index) == ["A", "R"] and table.of["R"] == "generated - real"
    a = inference.contrast(results, "A")
    assert table.loc["A", ["mean", "low", "high", "n"]].tolist() == [a.mean, a.low, a.high, 2]


def test_fitness_is_that_of_the_gate(found, tmp_path):
    results = found.parts["mine"]["0.4 accumulate"]
    table = explore.fitness(results).set_index("criterion")
    assert list(table.index) == list(CRITERIA)
    assert list(table.columns) == ["bound", "generation 0", "generation 1"]
    assert table["generation 1"].agreement == gate(results).values[1]["agreement"]
    assert table.bound["agreement"] == "at least 0.90"
    nothing = run([tiny(ratio=0.0)], numerics=FLOAT64, where=tmp_path)
    assert len(explore.fitness(nothing)) == 0


def test_menus_offer_what_is_stored_beside_the_menus_above(found):
    panel = explore.Panel(found)
    menus = panel.menus
    assert menus["protocol"].options == ("accumulate", "latest")
    menus["bias"].value = 0.4
    assert panel.setting.variant == "0.4 accumulate"
    menus["protocol"].value = "latest"
    assert menus["bias"].options == (0.8,) and panel.setting.variant == "0.8 latest"
    menus["protocol"].value = "accumulate"
    assert menus["bias"].options == (0.4, 0.8) and menus["bias"].value == 0.8


def test_a_panel_shows_the_setting_that_is_chosen(found, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    panel = explore.Panel(found)
    shown.clear()
    panel.menus["bias"].value = 0.8
    panel.menus["protocol"].value = "latest"
    contrasts, fitness, *figures = shown[-5:]
    expected = explore.contrasts(found.parts["mine"]["0.8 latest"])
    assert contrasts["mean"].tolist() == expected["mean"].round(4).tolist()
    assert len(fitness) == len(CRITERIA) and len(figures) == 3
    assert all(math.isfinite(figure.get_size_inches()[0]) for figure in figures)


def test_menus_are_shown_in_jupyterlab_alone(found, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert explore.panel(found) == explore.ONLY_THERE
    monkeypatch.setenv("JPY_SESSION_NAME", "explore.ipynb")
    assert type(explore.panel(found)).__name__ == "VBox"
