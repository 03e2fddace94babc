"""The answer of a notebook as numbers, and what figures say of chance and of a probe that cannot
see."""

import json
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import Results, figures, inference, run
from biasstudy.inference.gate import gate
from biasstudy.report.answers import answers, write_answers

matplotlib.use("agg")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    seeds = [tiny(start="biased", bias=0.6, n_generations=1, seed=s) for s in range(2)]
    return run(
        [e.to_arm(arm) for e in seeds for arm in ("generated", "real", "none")],
        numerics=FLOAT64,
        scale="smoke",
        where=tmp_path_factory.mktemp("answers"),
    )


def test_the_answer_of_one_setting_is_what_its_results_say(found, tmp_path):
    text = write_answers({"": found}, "mine", tmp_path)
    assert text == inference.sentence(found)
    assert (tmp_path / "mine.txt").read_text() == text + "\n"
    told = json.loads((tmp_path / "mine-answer.json").read_text())
    assert told["n_seeds"] == 2 and told["made"] == "trained here"
    assert told["verdict"] == "no verdict with fewer than 6 seeds"
    assert told["sentence"] == inference.sentence(found)
    assert "seed" not in told["settings"] and told["settings"]["arms"] == [
        "generated",
        "real",
        "none",
    ]
    table = found.table.query("measured_on == 'classifier' and label.isna() and group.isna()")
    for key, metric in (("accuracy", "accuracy"), ("contrast", "accuracy-contrast")):
        means = table[table.metric == metric].groupby(["arm", "generation"]).value.mean()
        assert set(told[key]) == {"generated", "real", "none"}
        for arm, line in told[key].items():
            assert line == pytest.approx(means[arm].tolist(), abs=1e-6)
    judged = gate(found)
    assert told["fitness"]["word"] == judged.word
    for when, values in (("first", judged.values[0]), ("last", judged.values[-1])):
        for name, value in values.items():
            known = told["fitness"][when][name]
            assert np.isnan(value) if known is None else known == pytest.approx(value, abs=1e-6)


def test_the_answer_of_several_settings_names_them(found, tmp_path):
    none = Results(found.of("none"))
    write_answers({"ratio 0.5": found, "nothing": none}, "mine", tmp_path)
    told = json.loads((tmp_path / "mine-answer.json").read_text())["variants"]
    assert list(told) == ["ratio 0.5", "nothing"]
    assert told["nothing"]["verdict"] is None and told["nothing"]["fitness"] is None
    assert list(told["nothing"]["accuracy"]) == ["none"]
    assert told["ratio 0.5"] == answers({"": found})[""]


def test_accuracy_has_a_line_at_chance_and_gaps_have_none(found):
    figure, _ = figures.curves(found)
    level = 1 / len(found.outcomes[0].classes)
    at_chance = {
        axis.get_title(loc="left"): any(
            np.allclose(line.get_ydata(), level) for line in axis.get_lines() if line.get_label()
        )
        for axis in figure.axes
    }
    assert at_chance["accuracy"] and at_chance["worst-group accuracy"]
    assert "chance (1 / classes)" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not at_chance["accuracy gap between groups"]


@pytest.mark.parametrize(("right", "shown"), [(70, True), (60, False)])
def test_shares_are_drawn_where_the_probe_sees(found, right, shown):
    n = len(found.outcomes[0].groups)
    confusion = np.zeros((n, n + 1), int)
    np.fill_diagonal(confusion, right)
    confusion[:, -1] = 100 - right
    seen = Results([replace(o, confusion=confusion) for o in found.outcomes])
    figure, _ = figures.shares(seen)
    assert figure.axes, "a notebook shows no figure without an axis"
    said = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert all(bool(axis.get_lines()) == shown for axis in figure.axes)
    assert shown or all("wrong\non 40 % of real test images" in text for text in said)


def test_lines_of_shares_have_labels(found):
    figure, _ = figures.shares(found)
    for axis in figure.axes:
        labelled = [line for line in axis.get_lines() if not line.get_label().startswith("_")]
        assert len(axis.get_lines()) <= 5 or (labelled and axis.get_legend() is not None)
