"""What is added in one place reaches everything: a data set, a filter and a metric, each one
decorated function, followed through a run into figures. (A protocol: see test_protocols.)"""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from conftest import FLOAT64, TINY, tiny

from biasstudy import (
    CLASSIFIERS,
    DATASETS,
    FILTERS,
    GENERATORS,
    METRICS,
    Dataset,
    LabeledImages,
    figures,
    notebook,
    run,
)
from biasstudy.__main__ import main
from biasstudy.data.real import real_data
from biasstudy.study import study_from


@pytest.fixture
def added():
    """Registers the three things, and takes them away afterwards."""

    @DATASETS.register("test-halves")
    def halves() -> Dataset:
        """Bright left or right half (class), above or below (group)."""
        rng, i = np.random.default_rng(0), np.arange(600)
        label, group = i % 2, i // 2 % 2
        images = rng.integers(0, 60, (600, 3, 16, 16)).astype(np.uint8)
        for n, (y, g) in enumerate(zip(label, group, strict=True)):
            images[n, :, 8 * g : 8 * g + 8, 8 * y : 8 * y + 8] += 150
        everything = LabeledImages(images, label, group)
        return Dataset(
            everything[:440],
            everything[440:],
            ("left", "right"),
            ("above", "below"),
            "crossed",
            "test-halves",
            n_instruments=80,
            probe=lambda x: (x[:, :, 8:].mean((1, 2, 3)) > x[:, :, :8].mean((1, 2, 3))).astype(int),
        )

    @FILTERS.register("test-every-other")
    def every_other(images, label, judged, chance):
        """Keep half of the images."""
        return chance < 0.5

    @METRICS.register("test-misses")
    def misses(label, predicted, group):
        """Share of wrong images. returns a float, nan without images."""
        return float(np.mean(label != predicted)) if len(label) else float("nan")

    yield
    for registry, name in ((DATASETS, "test-halves"), (FILTERS, "test-every-other")):
        registry._entries.pop(name)
    METRICS._entries.pop("test-misses")


def test_what_is_registered_reaches_results_and_figures(added, runs):
    e = tiny(
        dataset="test-halves",
        n_real=80,
        n_test=100,
        filter="test-every-other",
        start="biased",
        bias=0.5,
    )
    results = run([e.to_arm(arm) for arm in ("generated", "none")], numerics=FLOAT64)

    picture, counts = figures.data_picture(real_data(e))
    assert counts.to_numpy().sum() >= 80 and picture.axes, "the data set"

    kept = results.table.query("metric == 'acceptance' and label.isna() and group.isna()").value
    assert (abs(kept - 0.5) < 0.25).all() and len(kept) == 2, "the filter"
    _, accepted = figures.acceptance({"": results})
    assert set(accepted.group) == {"above", "below"}

    _, curve_values = figures.curves(results, ("accuracy", "test-misses"))
    wide = curve_values.pivot_table("value", ["arm", "generation"], "metric")
    assert np.allclose(wide["accuracy"] + wide["test-misses"], 1), "the metric"
    plt.close("all")


OWN = '''
import numpy as np
from biasstudy import GENERATORS, METRICS
from biasstudy.models.generators.mixture import Mixture
from dataclasses import dataclass

@GENERATORS.register("test-own-mixture")
@dataclass(frozen=True)
class OwnMixture(Mixture):
    """A mixture of one's own."""

@METRICS.register("test-own-hits")
def hits(label, predicted, group):
    """Share of right images. returns a float, nan without images."""
    return float(np.mean(label == predicted)) if len(label) else float("nan")
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the working directory, and a parameter file that imports it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "test_own_module.py").write_text(OWN)
    (tmp_path / "broken_own_module.py").write_text("import nothing_like_this\n")
    fields = {
        **TINY,
        "generator": "test-own-mixture",
        "start": "biased",
        "bias": 0.6,
        "imports": ["test_own_module"],
        "arms": ["generated", "none"],
        "precision": "float64",
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(fields))
    yield fields
    sys.modules.pop("test_own_module", None)
    GENERATORS._entries.pop("test-own-mixture", None)
    METRICS._entries.pop("test-own-hits", None)


def test_a_parameter_file_imports_modules_of_ones_own(own, runs, capsys):
    assert main(["run", "own.yaml"]) == 0
    assert "A = generated - none" in capsys.readouterr().out
    study = study_from(own)
    assert study.imports == ("test_own_module",)
    values = study.run(progress=False).measure("test-own-hits").value
    assert len(values) and values.between(0, 1).all()


def test_processes_import_them_too(own, runs, monkeypatch):
    seen = []

    def run_by(engine, study, modules, *given, **named):
        seen.extend(modules)
        raise InterruptedError

    monkeypatch.setattr("biasstudy.campaign.farm.run_by", run_by)
    monkeypatch.setattr("biasstudy.campaign.engine.Local", lambda workers: None)
    assert main(["run", "own.yaml", "--workers", "2"]) == 2
    assert seen == ["test_own_module"]


def test_a_notebook_imports_them_before_it_looks_for_names(own, runs):
    assert notebook.study(own).base.generator == "test-own-mixture"


@pytest.mark.parametrize(
    ("imports", "says"),
    [
        (
            ["no_such_module"],
            r"cannot import 'no_such_module' \(ModuleNotFoundError: .*\); modules",
        ),
        (["broken_own_module"], r"No module named 'nothing_like_this'\); modules are"),
        ("test_own_module", "imports must be a list; got str"),
        ([1], r"imports must be a list of modules; got \[1\]"),
    ],
)
def test_modules_that_cannot_be_imported_are_one_sentence(own, imports, says):
    with pytest.raises(ValueError, match=says):
        study_from({**own, "imports": imports})


TAKEN = """
from biasstudy import GENERATORS
from biasstudy.models.generators.mixture import Mixture

@GENERATORS.register("gan")
class Gan(Mixture):
    pass
"""


@pytest.mark.parametrize("registry", [DATASETS, GENERATORS, CLASSIFIERS, FILTERS, METRICS])
def test_an_unknown_name_says_how_ones_own_comes_in(registry):
    with pytest.raises(ValueError, match=r"unknown .* 'mine-own'.*imports: \[module\].*--import m"):
        registry["mine-own"]


def test_a_name_of_the_package_is_its_own_whoever_comes_first(own, tmp_path):
    """In a process of its own: nothing of the package is loaded when the module is imported."""
    (tmp_path / "taken_own_module.py").write_text(TAKEN)
    command = ["-m", "biasstudy", "list", "--import", "taken_own_module", "generators"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "biasstudy: cannot import 'taken_own_module' (ValueError: the generator name 'gan' of "
        "taken_own_module is already that of biasstudy.models.generators.gan; register it under "
        "another name)\n"
    )


@pytest.mark.parametrize("command", ["list", "plan", "report", "run", "score", "sweep"])
def test_commands_that_know_names_import_ones_own(own, command, monkeypatch, capsys):
    monkeypatch.setattr(f"biasstudy.__main__._{command}", lambda asked: 0)
    further = {"list": ["metrics"], "plan": ["own.yaml", "--detect", "0.01"], "report": []}
    given = further.get(command, ["own.yaml"])
    assert main([command, "--import", "test_own_module", *given]) == 0
    assert "test-own-hits" in METRICS and "test-own-mixture" in GENERATORS


def test_list_shows_what_was_imported(own, capsys):
    assert main(["list", "--import", "test_own_module", "metrics"]) == 0
    assert "  test-own-hits  " in capsys.readouterr().out


def test_an_option_of_other_commands_is_said_to_be_theirs(capsys):
    for command, option, says in (
        (["fetch", "mnist"], "--import", "(--import is an option of list, score, plan, run, sweep"),
        (["run", "x.yaml"], "--imprt", "(did you mean --import?)"),
    ):
        with pytest.raises(SystemExit):
            main([*command, option, "mine"])
        told = capsys.readouterr().err
        assert says in told and f"mean {option}?" not in told
