"""Parameters, from wherever they come: a run uses what the reader wrote, and nothing else; what
cannot be meant is one sentence before any training."""

import dataclasses
import functools
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node, read_yaml_file
from papermill.parameterize import parameterize_notebook
from PIL import Image

from biasstudy import Experiment, notebook
from biasstudy.__main__ import main
from biasstudy.campaign import sweep
from biasstudy.core.checks import checked, parse_yaml
from biasstudy.core.places import check_folder
from biasstudy.parameters import cell_of, parse_changes, read, read_parameters
from biasstudy.study import SETTINGS, study_from

STUDY = "study = notebook.study(globals())"
PARAMETERS = """\
start = "biased"
bias = 0.6
ratio = 0.5
n_real = 200
n_test = 20
n_seeds = 3
classifier = instrument = "ridge"
arms = ["generated", "none"]
"""
MAGIC = "get_ipython().run_cell_magic('time', '', {!r})\n"


def executed(*cells: str) -> dict:
    """The namespace of a kernel that executed these cells (as IPython keeps them), before the one
    that calls notebook.study."""
    namespace: dict = {"notebook": notebook}
    for cell in cells:
        # what magics and loops run, without IPython
        namespace["get_ipython"] = lambda: Magics(namespace)
        exec(cell, namespace)
    return {**namespace, "In": ["", *cells, STUDY]}


class Magics:
    def __init__(self, namespace: dict):
        self.namespace = namespace

    def run_cell_magic(self, name, line, cell):
        if name == "time":
            exec(cell, self.namespace)

    def run_line_magic(self, name, line):
        if name == "time":
            exec(line, self.namespace)


# ---- What the reader sees is what runs -----------------------------------------------------------


@functools.cache
def _cells_alone(notebook: Path) -> nbformat.NotebookNode:
    """A notebook without its outputs, which take long to copy."""
    book = load_notebook_node(str(notebook))
    book.cells = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    book.cells[0].outputs = []
    return book


def injected(notebook: Path, file: Path) -> list[str]:
    """The cells of parameters of a notebook, as papermill executes it with -f FILE."""
    book = parameterize_notebook(
        _cells_alone(notebook),
        read_yaml_file(str(file)),
        report_mode=False,
        comment="Parameters",
        kernel_name=None,
        language=None,
    )
    tags = {"parameters", "injected-parameters"}
    return [cell.source for cell in book.cells if tags & set(cell.metadata.tags)]


SEEN = [  # cells, parameters of the study that they make
    ((PARAMETERS,), {"ratio": 0.5}),
    ((PARAMETERS, "# Parameters\nratio = 1.0\n"), {"ratio": 1.0}),
    ((PARAMETERS, "# Parameters\nratio = 1.0\nPAPERMILL_OUTPUT_PATH = 'x'\n"), {"ratio": 1.0}),
    ((MAGIC.format(PARAMETERS),), {"ratio": 0.5}),
    ((MAGIC.format(PARAMETERS), "# Parameters\nratio = 1.0\n"), {"ratio": 1.0}),
    (("get_ipython().run_line_magic('matplotlib', 'inline')\n" + PARAMETERS,), {}),
    ((PARAMETERS, "get_ipython().run_line_magic('time', 'ratio = 1.0')"), {"ratio": 1.0}),
    (("get_ipython().run_cell_magic('bash', '', 'raito=3')\n", PARAMETERS), {}),
    (tuple(line + "\n" for line in PARAMETERS.splitlines()), {"ratio": 0.5}),
    ((PARAMETERS, "ratio = 0.7"), {"ratio": 0.7}),
    ((PARAMETERS, "ratio = 0.7\nprint(ratio)"), {"ratio": 0.7}),
    ((PARAMETERS, "ratio *= 2"), {"ratio": 1.0}),
    ((PARAMETERS, "if start == 'biased':\n    bias = 0.8"), {"bias": 0.8}),
    ((PARAMETERS, "bias, ratio = 0.2, 0.1"), {"bias": 0.2, "ratio": 0.1}),
    ((PARAMETERS, PARAMETERS.replace("0.5", "0.9")), {"ratio": 0.9}),
    (
        (
            PARAMETERS,
            "def f():\n    ratio = 9.0\n",
            "ratios = [x for ratio in (1, 2) for x in (3,)]",
        ),
        {},
    ),
    # a misspelt name, mended, and the cell executed again
    (("raito = 0.9\n" + PARAMETERS.replace("ratio = 0.5\n", ""), PARAMETERS), {"ratio": 0.5}),
    # variables of later cells, then the parameters again
    ((PARAMETERS, STUDY, "figure, colors = 1, ['r']\nprint(colors)", PARAMETERS), {}),
    ((PARAMETERS, STUDY, "for seed in range(3): pass", PARAMETERS + "seed = 0\n"), {"seed": 0}),
    # another study below the first
    ((PARAMETERS, "n_seeds = 2\n" + STUDY, "ratio = 1.0\n" + STUDY), {"n_seeds": 2, "ratio": 1.0}),
]


@pytest.mark.parametrize(("cells", "expected"), SEEN)
def test_a_run_uses_what_the_cells_say(cells, expected, runs):
    cells = [cell.replace(STUDY, "study = dict()") for cell in cells]
    study = notebook.study(executed(*cells))
    asked = {**dataclasses.asdict(study.base), "n_seeds": study.n_seeds}
    expected = {"start": "biased", "n_real": 200, "n_seeds": 3, "bias": 0.6, **expected}
    assert {name: asked[name] for name in expected} == expected


REFUSED = [  # cells, sentence
    ((PARAMETERS + "raito = 0.9\n",), r"unknown parameter 'raito' \(did you mean ratio\?\); known"),
    ((PARAMETERS + "colour = 3\n",), "unknown parameter 'colour'; known"),
    ((MAGIC.format(PARAMETERS + "raito = 0.9\n"),), "unknown parameter 'raito'"),
    ((PARAMETERS + "raito = float('1')\nprint(raito)",), "unknown parameter 'raito'"),
    ((PARAMETERS, "# Parameters\nraito = 0.5\n"), "unknown parameter 'raito'"),
    (
        (PARAMETERS, "# Parameters\ncolor = f(3)\n".replace("f(3)", "3")),
        "unknown parameter 'color'",
    ),
    ((PARAMETERS, "ratio = 0.2\nraito = 0.5\n"), "unknown parameter 'raito'"),
    (("# Parameters\nratio = 1.0\n", PARAMETERS), "papermill's value of ratio stands before"),
    ((PARAMETERS, "for seed in range(3): pass"), "seed is a parameter, but a loop, .* set it to 2"),
    ((PARAMETERS, "import math as ratio"), "ratio is a parameter, but a loop, import"),
    (
        (PARAMETERS, PARAMETERS.replace("bias = 0.6\n", "").replace("biased", "unbiased")),
        "bias is left from a cell that was executed again without it",
    ),
    ((PARAMETERS, "labels = ['a']"), r"labels must be text; got list \['a'\]"),
    ((PARAMETERS, "arms = ['real']"), "arms lack generated, none .*: got \\['real'\\]"),
    ((PARAMETERS, "arms = ['generated', 'real']"), "arms lack none"),
    (
        (PARAMETERS, "# Parameters\nvariants = [{'ratio': 0.5}, {'ratio': 1.0}]"),
        "does not declare variants",
    ),
    (
        (PARAMETERS, "variants = [{'ratio': 0.0}, {'ratio': 1.0}]"),
        "the variant 'ratio 0.0' has ratio 0",
    ),
    ((PARAMETERS, "name = 'my/study'"), "name must be 1 to 100 letters .*; got 'my/study'"),
    ((PARAMETERS, "name = '../escaped'"), "name must be 1 to 100 letters"),
    ((PARAMETERS, "name = 'my-study'"), "name must be 1 to 100 letters"),
    ((PARAMETERS, "name = 'a b.c'"), "name must be 1 to 100 letters"),
    ((PARAMETERS, "name = 'a\\n'"), "name must be 1 to 100 letters"),
    ((PARAMETERS, f"name = {'a' * 101!r}"), "name must be 1 to 100 letters"),
]


@pytest.mark.parametrize(("cells", "sentence"), REFUSED)
def test_what_may_not_be_meant_is_refused(cells, sentence, runs):
    with pytest.raises(ValueError, match=sentence) as error:
        notebook.study(executed(*cells))
    assert "\n" not in str(error.value)


def test_a_name_stays_that_of_the_notebook_whatever_papermill_says(runs):
    namespace = executed('name = "own"\n' + PARAMETERS, "# Parameters\nname = 'other'\n")
    assert notebook.study(namespace).notebook == "own"


def test_outside_ipython_every_variable_with_the_name_of_a_parameter_counts(runs):
    namespace: dict = {"colour": 3}
    exec(PARAMETERS, namespace)
    study = notebook.study(namespace)
    assert (study.base.start, study.base.n_real, study.n_seeds) == ("biased", 200, 3)
    assert study_from({}).base == Experiment() and notebook.study({}).base == Experiment()


def test_where_executed_cells_are_not_kept_the_variables_count(runs):
    """As under nbval."""
    namespace = executed(PARAMETERS + "variants = [{'ratio': 0.5}, {'ratio': 1.0}]\n")
    assert len(notebook.study({**namespace, "In": [""]}).variants) == 2


def test_what_is_told_is_markdown_in_a_kernel_and_printed_elsewhere(monkeypatch, capsys):
    import mistune

    shown = []
    answer = "ridge_2, *A* = +0.01 [-0.02, +0.05]: `n` < $5$ & [x](y) \\ #1 <b>"
    texts = (answer, "- first_one: -1\n+ second | 2", "1. of all", "= a title?")
    notebook.tell(*texts)
    assert capsys.readouterr().out == "\n".join(texts) + "\n"
    monkeypatch.setattr(notebook, "_kernel", object)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    notebook.tell(*texts)
    ((data, raw),) = shown
    assert raw and sorted(data) == ["text/markdown", "text/plain"]
    assert data["text/plain"] == "\n".join(texts) and not capsys.readouterr().out
    page = mistune.html(data["text/markdown"])
    assert re.findall(r"<(\w+)", page) == ["p", "ul", "li", "li", "p", "p"], "no other meaning"
    words = html.unescape(re.sub(r"<[^>]*>", "", page)).split("\n")
    assert [line for line in words if line] == "\n".join(texts).split("\n")


def test_a_study_folder_that_is_a_file_is_told_before_training(tmp_path, runs, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIASSTUDY_STUDY", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot be a folder: .*file is a file"):
        notebook.study(executed(PARAMETERS))
    assert check_folder(tmp_path / "new" / "one") == tmp_path / "new" / "one"


# ---- Layers: the cell of a notebook, a file, changes ---------------------------------------------

ROOT = Path(__file__).parents[1]
HALF = "bias: 0.5\nn_real: 400\nclassifier: ridge\nprecision: float32\n"


def half_of_a_study(folder: Path) -> Path:
    """A file that leaves half of the fields to the notebook in the folder beside params."""
    for part in ("notebooks", "params/cifar20"):
        (folder / part).mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "cifar20.ipynb", folder / "notebooks")
    (folder / "params" / "cifar20" / "half.yaml").write_text(HALF)
    return folder / "params" / "cifar20" / "half.yaml"


def test_half_of_a_file_means_the_same_by_run_and_through_papermill(tmp_path, runs, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "biasstudy.campaign.commands.study_from", lambda told: seen.append(told) or study_from(told)
    )
    monkeypatch.setattr("biasstudy.campaign.commands._compute", lambda *_: sys.exit(0))
    path = half_of_a_study(tmp_path)
    with pytest.raises(SystemExit):
        main(["run", str(path)])
    by_run = study_from(seen[0])
    assert by_run.base.dataset == "standin20" and by_run.base.bias == 0.5
    ids = "print(*[e.id for e in study.experiments])"
    cells = injected(tmp_path / "notebooks" / "cifar20.ipynb", path)
    *_, last = kernel_cells({}, IMPORT, *cells, STUDY, ids)
    assert text(last).split() == [e.id for e in by_run.experiments]


def test_what_a_file_leaves_out_is_told(tmp_path):
    path = half_of_a_study(tmp_path)
    given, cell = read(path), cell_of(ROOT / "notebooks" / "cifar20.ipynb")
    (first, *_) = given.notes
    assert first.startswith(f"{path} leaves to notebooks/cifar20.ipynb: ")
    assert f"dataset {cell['dataset']!r}" in first and "n_real" not in first
    (tmp_path / "alone.yaml").write_text("ratio: 0.25\n")
    alone = read(tmp_path / "alone.yaml", {"seed": 3})
    assert study_from(alone.parameters).base == Experiment(ratio=0.25, seed=3)
    (only,) = alone.notes
    assert "has no notebook; where it says nothing, the defaults hold: " in only
    assert "n_real 1000" in only and "n_seeds 1" in only and ", ratio " not in only


def test_a_file_may_name_its_notebook_and_papermill_takes_it(tmp_path, runs):
    path = tmp_path / "mine.yaml"
    path.write_text("notebook: cifar20\nn_real: 400\n")
    cells = injected(ROOT / "notebooks" / "cifar20.ipynb", path)
    study, _ = notebook.read(executed(*cells))
    assert study.id == study_from(read(path).parameters).id and study.base.n_real == 400
    other = injected(ROOT / "notebooks" / "colorized_mnist.ipynb", path)
    with pytest.raises(ValueError, match="for the notebook 'cifar20'; this one is 'colorized_mn"):
        notebook.read(executed(*other))
    path.write_text("notebook: cifar21\n")
    with pytest.raises(ValueError, match=r"there is no notebooks/cifar21\.ipynb around it"):
        read(path)
    path.write_text("notebook: ../cifar20\n")
    with pytest.raises(ValueError, match="must be the name of a notebook, such as cifar20"):
        read(path)


def test_a_notebook_without_parameters_is_told(tmp_path):
    path = half_of_a_study(tmp_path)
    for broken in ("", "{}", '{"cells": []}', '{"cells": [{"metadata": {}}]}'):
        (tmp_path / "notebooks" / "cifar20.ipynb").write_text(broken)
        with pytest.raises(ValueError, match=r"cifar20\.ipynb is no notebook whose cell"):
            read(path)


MODELS = [  # lower layer, upper layer, parameters, dropped
    (
        {"generator": "gan", "generator_steps": 1200, "classifier_steps": 80},
        {"generator": "mixture"},
        {"generator": "mixture", "classifier_steps": 80},
        "generator mixture takes its own steps, batch and options; those of gan are dropped: "
        "generator_steps 1200",
    ),
    (
        {"classifier_steps": 80, "classifier_options": {"smoothing": 0.1}, "ratio": 0.5},
        {"classifier": "ridge", "classifier_options": {"penalty": 2.0}},
        {"classifier": "ridge", "classifier_options": {"penalty": 2.0}, "ratio": 0.5},
        "classifier ridge takes its own steps, batch and options; those of lenet are dropped: "
        "classifier_steps 80",
    ),
    (
        {"instrument": "lenet", "instrument_steps": 150, "dataset_options": {"n_colors": 3}},
        {"instrument": "ridge", "dataset": "standin20"},
        {"instrument": "ridge", "dataset": "standin20"},
        "those of lenet are dropped: instrument_steps 150",
    ),
    (
        {"generator": "gan", "generator_steps": 1200},
        {"generator": "gan"},
        {"generator": "gan", "generator_steps": 1200},
        "",
    ),
]


@pytest.mark.parametrize(("lower", "upper", "parameters", "sentence"), MODELS)
def test_another_model_takes_its_own_steps_and_options_and_it_is_said(
    lower, upper, parameters, sentence, tmp_path
):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(lower))
    given = read(path, upper)
    assert given.parameters == parameters
    assert sentence in "\n".join(given.notes) and (sentence or len(given.notes) == 1)
    cell = "".join(f"{k}: {type(v).__name__} = {v!r}\n" for k, v in lower.items())
    told = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in upper.items())
    study, notes = notebook.read(executed(cell, told))
    assert study.base == study_from(parameters).base and sentence in "\n".join(notes)


def test_another_generator_through_the_command_line(tmp_path, runs, monkeypatch, capsys):
    """It was refused: generator_steps must stay 0, got 1200."""
    monkeypatch.setattr("biasstudy.campaign.commands._compute", lambda *_: sys.exit(0))
    # of digits that come with the install
    file = ROOT / "params" / "colorized_mnist" / "offline-gan.yaml"
    with pytest.raises(SystemExit):
        main(["run", str(file), "-p", "generator", "mixture"])
    told = capsys.readouterr().out
    assert told.startswith("generator mixture takes its own steps, batch and options; those of gan")


def test_a_grid_reads_its_base_as_run_does(tmp_path):
    base = half_of_a_study(tmp_path)
    path = tmp_path / "params" / "grid.yaml"
    path.write_text("base: cifar20/half.yaml\ngrid: {ratio: [0.25, 0.5]}\n")
    grid = sweep.read(path)
    expected = study_from(
        {**read(base).parameters, "variants": [{"ratio": r} for r in (0.25, 0.5)]}
    )
    assert [e.id for e in grid.study.experiments] == [e.id for e in expected.experiments]
    assert grid.notes and "ratio" not in grid.notes[0]


# ---- Nothing overwrites --------------------------------------------------------------------------

FOLDERS = [  # what papermill says, the folder, settings that are told
    ("", "", {}),
    ("ratio = 0.5\nn_real = 200", "", {}),
    ("ratio = 0.1", "ratio-0.1", {"ratio": 0.1}),
    ("name = 'mine'\nratio = 0.1", "ratio-0.1", {"ratio": 0.1}),
    ("seed = 3\nratio = 1.0", "ratio-1.0+seed-3", {"ratio": 1.0, "seed": 3}),
    ("generator = 'gan'", "generator-gan", {"generator": "gan"}),
    ("scale = '../x y'", "-x-y-", {"scale": "../x y"}),
    (
        "scale = 'offline'\nn_test = 30\nratio = 0.1\nbias = 0.2",
        "offline-",
        {"scale": "offline", "n_test": 30, "ratio": 0.1, "bias": 0.2},
    ),
]


@pytest.mark.parametrize(("told", "folder", "settings"), FOLDERS)
def test_a_folder_is_named_after_what_differs_from_the_cell(
    told, folder, settings, tmp_path, runs, capsys
):
    cells = (PARAMETERS, "# Parameters\n" + told) if told else (PARAMETERS,)
    study = notebook.study(executed(*cells))
    here = notebook.output_folder()
    assert study.settings == settings
    if not folder:
        assert here == tmp_path / "study" / "figures" and capsys.readouterr().out == ""
        return
    assert here.parent == tmp_path / "study" / "figures" and here.name.startswith(folder)
    assert here.name == folder or folder.endswith("-"), "a hash tells them apart"
    assert f"figures, tables and the answer go to {here}\n" in capsys.readouterr().out


def test_two_ratios_leave_two_sets_and_both_are_on_the_page(tmp_path, runs):
    from biasstudy import figures
    from biasstudy.report.page import write_page

    small = PARAMETERS.replace("n_seeds = 3", "n_seeds = 1\nprecision = 'float64'")
    written = {}
    for ratio in (0.5, 0.1):
        cells = (small + "name = 'mine'\n", f"# Parameters\nratio = {ratio}\n")
        study = notebook.study(executed(*cells))
        results = study.run()
        notebook.answer(results, "mine")
        files = figures.save(
            *figures.curves(results), "What changes.", "mine-1", results, notebook.output_folder()
        )
        written[ratio] = {name: (notebook.output_folder() / name).read_bytes() for name in files}
    first, second = tmp_path / "study" / "figures", tmp_path / "study" / "figures" / "ratio-0.1"
    for folder, ratio in ((first, 0.5), (second, 0.1)):
        assert {name: (folder / name).read_bytes() for name in written[ratio]} == written[ratio]
        assert (folder / "mine.txt").is_file()
    about = [json.loads((folder / "mine-1.json").read_text()) for folder in (first, second)]
    assert [record["settings"] for record in about] == [{}, {"ratio": 0.1}]
    assert about[0]["study"] != about[1]["study"]
    assert about[1]["mark"].endswith("ratio 0.1") and "ratio" not in about[0]["mark"]
    picture, counts = figures.data_picture(study.real)
    figures.save(picture, counts, "The start.", "mine-2", results, second)
    assert picture.get_supxlabel() == "ratio 0.1", "drawn without results, signed when saved"
    page = write_page(tmp_path / "study").read_text()
    assert ">mine</h3>" in page and ">mine: ratio-0.1</h3>" in page
    assert 'href="figures/mine-1.csv"' in page and 'href="figures/ratio-0.1/mine-1.csv"' in page


def test_a_cell_that_was_edited_by_hand_does_not_overwrite(tmp_path, runs):
    first = notebook.study(executed(PARAMETERS))
    place = notebook.output_folder()
    place.mkdir(parents=True)
    (place / "study-1.json").write_text(json.dumps({"study": first.id}))
    edited = notebook.study(executed(PARAMETERS.replace("ratio = 0.5", "ratio = 0.7")))
    assert notebook.output_folder() == place / edited.id and not edited.settings
    notebook.study(executed(PARAMETERS))
    assert notebook.output_folder() == place


# ---- A real kernel -------------------------------------------------------------------------------

IMPORT = "from biasstudy import notebook\nimport matplotlib.pyplot as plt"
TOLD = "print(study.base.ratio, study.base.bias, study.base.n_real, study.n_seeds)"
FIGURE = "plt.plot([1, 2])\nplt.show()"


def kernel_cells(environment: dict, *cells: str) -> list[list[dict]]:
    """Outputs of cells that a real kernel executed one after the other, also after an error."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    client = NotebookClient(book, kernel_name="python3", allow_errors=True, timeout=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        client.execute()
    return [cell.outputs for cell in book.cells]


def text(outputs: list[dict]) -> str:
    return "".join(o.get("text", "") or o.get("evalue", "") for o in outputs)


def has_picture(outputs: list[dict]) -> bool:
    return any("image/png" in o.get("data", {}) for o in outputs)


def test_in_a_real_kernel(runs):
    """Several notebooks, one after the other, in a kernel whose figures would go nowhere."""
    cut = PARAMETERS.index("n_real")
    forget = "%reset_selective -f ^(start|bias|ratio|n_real|n_seeds|raito)$\nIn[:] = ['']"
    run = STUDY + "\n" + TOLD
    outputs = kernel_cells(
        {"MPLBACKEND": "agg"},
        IMPORT,
        *("%%time\n" + PARAMETERS, "# Parameters\nratio = 1.0", run, forget),
        *("%matplotlib inline\n" + PARAMETERS[:cut], PARAMETERS[cut:], run, forget),
        *("%%time\n" + PARAMETERS + "raito = 0.9", run, PARAMETERS, run, FIGURE),
    )
    _, _, _, timed, _, _, _, in_two, _, _, misspelt, _, mended, figure = outputs
    assert text(timed).endswith("1.0 0.6 200 3\n")
    assert text(in_two).endswith("0.5 0.6 200 3\n")
    assert "unknown parameter 'raito' (did you mean ratio?)" in text(misspelt)
    assert text(mended).endswith("0.5 0.6 200 3\n")
    assert has_picture(figure)


@pytest.mark.parametrize("backend", ["agg", "nonsense"])
def test_figures_appear_whatever_the_environment_says_or_the_first_cell_says_why_not(backend, runs):
    first, study, figure = kernel_cells({"MPLBACKEND": backend}, IMPORT, PARAMETERS + STUDY, FIGURE)
    if backend == "nonsense":
        assert "'nonsense' is not a valid value for backend" in text(first)
    else:
        assert text(study) == "" and has_picture(figure)


def test_a_backend_that_a_cell_chose_stays(runs):
    """Outside kernels nothing is changed either: these tests run with agg."""
    cells = ("%matplotlib agg", IMPORT, PARAMETERS + STUDY, FIGURE)
    assert not has_picture(kernel_cells({}, *cells)[-1])


# ---- YAML ----------------------------------------------------------------------------------------

BROKEN = [  # a text, the sentence after the file's name
    ("ratio: 0.2\nratio: 0.9\n", "line 2, column 1: 'ratio' stands here and in line 1"),
    ("a: {x: 1, 'x': 2}", "line 1, column 11: 'x' stands here and in line 1"),
    ("a:\n- {x: 1}\n- {y: 1, y: 1}", "line 3, column 10: 'y' stands here and in line 3"),
    ("1: a\ntrue: b", "line 2, column 1: 'true' stands here and in line 1"),
    ("a: [1", "line 1, column 6: expected ',' or ']'"),
    ("ratio: 1\n\tbias: 2", "line 2, column 1: found character '\\t' that cannot start any token"),
    ("@x", "line 1, column 1: found character '@'"),
    ("*x", "line 1, column 1: found undefined alias 'x'"),
    ("[generated,none", "line 1, column 16: expected ',' or ']'"),
    ("a: 1\nb: x: y", "line 2, column 5: mapping values are not allowed here"),
    ("a: !!python/name:os.system x", "line 1, column 4: the tag"),
    ("? [1]\n: 2", "line 1, column 3: a key must be a word or number"),
    ("a: b\0", "line 1, column 5: the character #x0000 is not allowed"),
    ("a: " + "1" * 5000, "Exceeds the limit"),
    ("a: 0x_", "invalid literal for int"),
    ("[" * 20_000, "too many brackets inside each other"),
    ("--- 1\n--- 2", "line 2, column 1: but found another document"),
]


@pytest.mark.parametrize(("written", "sentence"), BROKEN)
def test_broken_yaml_says_file_line_and_column(written, sentence, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(written.encode())
    with pytest.raises(ValueError) as error:
        read_parameters(path)
    assert str(error.value).startswith(f"{path} is not YAML: {sentence}")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"-p ratio .* is not YAML: ") as error:
        parse_changes([("ratio", written)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "written", ["name: a\nratio: 1".encode("utf-16"), b"name: a\n# \xe4\nratio: 1"]
)
def test_a_file_that_is_not_utf_8_is_told(written, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(written)
    sentence = r"a\.yaml is not UTF-8 text: byte 0x\w\w in line [12]; save it as UTF-8$"
    with pytest.raises(ValueError, match=sentence):
        read_parameters(path)


def test_what_yaml_may_say(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeff# für alle\nname: 2024-01-01\nratio: 1.0e-3\n".encode())
    assert read_parameters(path) == {"name": "2024-01-01", "ratio": 0.001}
    merged = parse_yaml("e: &e {r: 1, s: 1}\nd: &d {<<: *e, r: 2}\n<<: *d", "here")
    assert merged == {"e": {"r": 1, "s": 1}, "d": {"r": 2, "s": 1}, "r": 2, "s": 1}
    assert parse_yaml("", "here") is None and parse_yaml("[a, a]", "here") == ["a", "a"]


def test_a_key_twice_is_refused_wherever_yaml_is_read(tmp_path, runs, capsys):
    base, grid, slurm = (tmp_path / f"{name}.yaml" for name in ("base", "grid", "slurm"))
    base.write_text("ratio: 0.2\nn_real: 200\nratio: 0.9\n")
    assert main(["run", str(base)]) == 2
    base.write_text("n_real: 200\n")
    grid.write_text("base: base.yaml\ngrid:\n  ratio: [0.2]\n  ratio: [0.9]\n")
    assert main(["sweep", str(grid)]) == 2
    grid.write_text("base: base.yaml\ngrid: {ratio: [0.2]}\n")
    slurm.write_text("jobs: 1\njobs: 2\ninterface: lo\n")
    assert main(["sweep", str(grid), "--slurm", str(slurm), "-p", "n_real", "20"]) == 2
    assert main(["run", str(base), "-p", "ratio", "0.2", "-p", "ratio", "0.9"]) == 2
    assert main(["run", str(base), "-p", "variants", "[{ratio: 1, ratio: 2}]"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 1)[1] for line in told] == [
        f"{base} is not YAML: line 3, column 1: 'ratio' stands here and in line 1",
        f"{grid} is not YAML: line 4, column 3: 'ratio' stands here and in line 3",
        f"{slurm} is not YAML: line 2, column 1: 'jobs' stands here and in line 1",
        "-p ratio is given twice; say it once",
        "-p variants '[{ratio: 1, ratio: 2}]' is not YAML: line 1, column 13: 'ratio' stands here "
        "and in line 1",
    ]


@pytest.mark.parametrize(
    ("grid", "changes", "sentence"),
    [
        ({"ratio": [0.5, 1.0]}, {"ratio": 0.2}, "-p ratio: in a sweep the grid says it"),
        ({"seed": [0, 1]}, {"n_seeds": 3}, "-p n_seeds: in a sweep the grid says it"),
        ({"s": [{"bias": 0.1}, {"bias": 0.2}]}, {"bias": 0.2}, "-p bias: in a sweep the grid"),
        ({"s": [{"bias": 0.1}], "bias": [0.2]}, {}, "the axes 'bias' and 's' both set 'bias'"),
        ({"ratio": [0.5]}, {"variants": []}, "-p variants: in a sweep the grid says it"),
        (
            {"seed": [0], "ratio": list(range(400)), "bias": list(range(400))},
            {},
            "may have 100,000",
        ),
    ],
)
def test_no_part_of_a_sweep_is_overwritten_silently(grid, changes, sentence, tmp_path):
    (tmp_path / "base.yaml").write_text("n_real: 200\n")
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", "grid": grid}))
    with pytest.raises(ValueError, match=sentence):
        sweep.read(path, changes)
    (tmp_path / "base.yaml").write_text("variants: [{ratio: 0.5}]\n")
    with pytest.raises(ValueError, match=r"has variants; in a sweep the axes|both set|may have"):
        sweep.read(path)


# ---- Values that cannot be meant -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1e-3", True),
        ("-2.E5", True),
        ("None", False),
        ("here", False),
        ("seven", False),
        ("e", False),
    ],
)
def test_the_hint_is_for_numbers_alone(value, hint):
    with pytest.raises(ValueError, match="ratio must be a number; got str ") as error:
        checked("ratio", value, float)
    assert ("in YAML write" in str(error.value)) == hint


ABSURD = [  # parameter, value, sentence
    ("ratio", "1.0e+9", "ratio must be at most 100; got 1000000000.0"),
    ("ratio", "1" + "0" * 400, "ratio must be a finite number; got 1000"),
    ("n_real", "1000000000000", "n_real must be at most 10,000,000; got 1000000000000"),
    ("n_real", "9000000", "not enough real images"),
    ("n_real", "5", "n_real must be at least the number of classes, 10; got 5"),
    ("n_test", "1000000000000", "n_test must be at most 10,000,000"),
    ("classifier_batch", "100000", "classifier_batch must be at most n_real, 200; got 100000"),
    ("n_generations", "1000000000", "n_generations must be at most 1,000; got 1000000000"),
    ("n_classifiers", "1000000000", "n_classifiers must be at most 1,000"),
    ("n_seeds", "1000000000", "n_seeds must be at most 10,000"),
    ("threads", "1000000000", "threads must be at most 1,024"),
    ("seed", "1" + "0" * 30, "seed must be at most 9,223,372,036,854,775,807"),
    ("name", "a/b", "name must be 1 to 100 letters"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), ABSURD)
def test_an_absurd_value_is_told_at_once(name, value, sentence, tmp_path, runs, capsys):
    Experiment(n_real=10)  # the first one loads torch
    (tmp_path / "a.yaml").write_text(
        "n_real: 200\n" * (name != "n_real") + "classifier: lenet\ninstrument: ridge\n"
    )
    started = time.perf_counter()
    assert main(["run", str(tmp_path / "a.yaml"), "-p", name, value]) == 2
    assert time.perf_counter() - started < 3, "under a second on a machine of its own"
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and len(error) < 400
    assert not list(runs.glob("stages/*/*")), "nothing was trained"


def test_reference_results_get_a_name_that_fits_a_file(tmp_path, runs, capsys):
    (tmp_path / "a.yaml").write_text("n_real: 200\n")
    assert main(["run", str(tmp_path / "a.yaml"), "--save", "a/b"]) == 2
    assert "--save must be 1 to 100 letters (a-z), digits and underscores; got 'a/b'" in (
        capsys.readouterr().err
    )


def test_what_cannot_be_held_in_memory_is_one_sentence(monkeypatch, tmp_path, capsys):
    def short(*_):
        raise MemoryError

    monkeypatch.setattr("biasstudy.campaign.commands.run_study", short)
    assert main(["run", str(tmp_path / "a.yaml")]) == 2
    assert capsys.readouterr().err.startswith("biasstudy: not enough memory; lower ")


def test_a_reader_that_goes_and_an_interrupt_are_no_tracebacks(tmp_path):
    script = (
        "import sys; from biasstudy import __main__ as m\n"
        "def ledger(asked):\n"
        "    print('line\\n' * 100_000)\n"
        "m._ledger = ledger\n"
        "def stop(asked):\n"
        "    raise KeyboardInterrupt\n"
        "m._doctor = stop\n"
        "sys.exit(m.main())\n"
    )
    line = f'{sys.executable} -c "$0" ledger | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line, script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("line\n141\n", "")
    done = subprocess.run([sys.executable, "-c", script, "doctor"], capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr.count("\n") == 1


def test_a_figure_that_is_not_whole_is_named_on_the_page_and_left_out(tmp_path):
    """A page ends with its figures, not with a traceback at a record that is `{}`."""
    from biasstudy.report.page import _own, _Pictures, _studies

    whole = {"name": "a-1", "claim": "It is so.", "mark": "n", "made": "trained here"}
    for name, record in {
        "whole": json.dumps(whole),
        "empty": "{}",
        "list": "[1]",
        "cut": "{",
        "typed": json.dumps({**whole, "claim": None}),
        "unseen": json.dumps(whole),
    }.items():
        (tmp_path / "figures").mkdir(exist_ok=True)
        (tmp_path / "figures" / f"{name}.json").write_text(record)
        if name != "unseen":
            Image.new("RGB", (9, 9)).save(tmp_path / "figures" / f"{name}.png")
    own, _, broken = _studies(tmp_path)
    page = "".join(_own(own, broken, _Pictures(tmp_path)))
    assert page.count("<img") == 1 and "It is so." in page
    assert "left out: cut.json, empty.json, list.json, typed.json, unseen.json in figures" in page


# ---- Whatever is written -------------------------------------------------------------------------

FIELDS = {f.name: f for f in dataclasses.fields(Experiment)}
KNOWN = [*FIELDS, *SETTINGS]
# values that users write, right and wrong; data that are here
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 4),
    st.floats(),
    st.sampled_from([0.5, 1.0, 10, 100, 200, 1e9, 10**400, "1e-3", "ridge", "biased", "lenet"]),
    st.sampled_from(["group", "both", "expert", "classifier", "latest", "reserve", "a/b", "auto"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
# mostly parameters with a value of their own type
TYPED = {
    int: st.integers(-1, 300),
    float: st.floats(-0.5, 2) | st.integers(0, 2),
    str: st.sampled_from(
        ["none", "biased", "ridge", "group", "run", "cpu", "float64", "a", "latest"]
    ),
    bool: st.booleans(),
    list: st.lists(st.sampled_from(["generated", "real", "none", "resample"]), max_size=3),
    dict: st.dictionaries(
        st.sampled_from(["steps", "rate", "clusters"]), st.integers(0, 3), max_size=2
    ),
}


def of_its_type(name: str) -> st.SearchStrategy:
    among, value = FIELDS[name].metadata["among"], getattr(Experiment(), name)
    return st.sampled_from(among) if isinstance(among, tuple) else TYPED[type(value)]


PAIRS = st.one_of(
    *(st.tuples(st.just(name), of_its_type(name)) for name in FIELDS if name != "dataset"),
    *(
        # every seed draws its real data
        st.tuples(st.just(name), st.integers(0, 5) if name == "n_seeds" else TYPED[type(value)])
        for name, value in SETTINGS.items()
    ),
    st.tuples(st.sampled_from(KNOWN), VALUES),
    st.tuples(st.text(max_size=6), VALUES),
)
WRITTEN = st.lists(PAIRS, max_size=4).map(dict)
# of each of four tests; others than the usual ones with, for example, CASES=2500
N_CASES = os.environ.get("CASES", "")
CASES = settings(
    max_examples=int(N_CASES or 250),
    deadline=None,
    database=None,
    derandomize=not N_CASES,
    suppress_health_check=list(HealthCheck),
)


def same(asked: Any, written: Any) -> bool:
    return asked == written or (asked != asked and written != written)


def check(call, written: dict) -> None:
    """A study holds the values that are written, and defaults else; or one sentence says why
    not."""
    try:
        study = call()
    except (ValueError, OSError) as error:
        assert str(error) and "\n" not in str(error) and type(error) is not UnicodeError
        return
    changes = written.get("variants") or [{}]
    assert len(study.variants) == len(changes)
    for base, change in zip(study.variants.values(), changes, strict=True):
        mine = {**written, **change}
        for name, f in FIELDS.items():
            default = {} if f.default is dataclasses.MISSING else f.default
            asked = mine.get(name, default)
            if name == "favoured":  # of a class one name or several, each text or a number
                asked = {
                    str(class_): [
                        str(group) for group in (groups if isinstance(groups, list) else [groups])
                    ]
                    for class_, groups in asked.items()
                }
            assert same(getattr(base, name), asked), name
    for name in ("n_seeds", "scale", "source"):
        assert getattr(study, name) == written.get(name, SETTINGS[name])
    assert list(study.arms) == written.get("arms", SETTINGS["arms"])
    assert set(written) <= set(KNOWN)


@CASES
@given(WRITTEN)
@example({"arms": [[]]})
@example({"variants": [{"ratio": [1]}]})
@example({"source": "reference:../x"})
def test_any_variables_make_the_study_that_they_say_or_one_sentence(written):
    known = {name: value for name, value in written.items() if name in KNOWN}
    check(lambda: notebook.study(known), known)


@CASES
@given(WRITTEN)
def test_any_parameter_file_makes_the_study_that_it_says_or_one_sentence(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8", errors="replace")
    try:
        given = read_parameters(path)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    check(lambda: study_from(given), given)


BYTES = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet="ab: -[]{},&*!|>'\"%@`#?\n\t<01.e_~=", max_size=30).map(str.encode),
    st.lists(st.sampled_from(KNOWN).map(lambda name: f"{name}: 1"), max_size=4).map(
        lambda lines: "\n".join(lines).encode()
    ),
)


@CASES
@given(BYTES)
def test_any_bytes_in_a_file_or_after_p_are_parameters_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    text = content.decode("utf-8", "surrogateescape")
    for reading in (
        lambda: study_from(read_parameters(path)),
        lambda: study_from(parse_changes([("ratio", text)])),
    ):
        try:
            reading()
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
    assert path.read_bytes() == content
    assert not list(path.parent.glob("bytes.yaml?*")), "no partial file"


AXES = st.dictionaries(
    st.sampled_from([*KNOWN, "starts", "more"]) | st.text(max_size=4),
    st.lists(VALUES | st.dictionaries(st.sampled_from(KNOWN), VALUES, max_size=2), max_size=2)
    | st.lists(st.integers(0, 3), max_size=3),
    max_size=3,
)


@CASES
@given(WRITTEN, AXES, st.sampled_from(["stop", "skip"]), WRITTEN)
def test_any_sweep_file_is_a_grid_or_one_sentence(
    tmp_path_factory, base, axes, impossible, changes
):
    folder = tmp_path_factory.getbasetemp()
    (folder / "grid_base.yaml").write_text(yaml.safe_dump(base, allow_unicode=False))
    file = {"base": "grid_base.yaml", "grid": axes, "impossible": impossible}
    (folder / "grid.yaml").write_text(yaml.safe_dump(file, allow_unicode=False))
    try:
        grid = sweep.read(folder / "grid.yaml", changes)
    except (ValueError, OSError) as error:
        assert str(error) and "\n" not in str(error)
        return
    for name, value in axes.items():
        if name in FIELDS and name != "seed":
            assert {getattr(e, name) for e in grid.study.variants.values()} <= set(value)
    for name, value in {**base, **changes}.items():
        if name in FIELDS and not any(name in sweep._names(a, v) for a, v in axes.items()):
            assert all(same(getattr(e, name), value) for e in grid.study.variants.values())
