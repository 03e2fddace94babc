"""Parameters, from wherever they come: a run uses what the reader wrote, and nothing else; what
cannot be meant is one sentence before any training."""

import dataclasses

import pytest

from biasstudy import Experiment, notebook
from biasstudy.core.places import check_folder
from biasstudy.study import study_from

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


def test_a_study_folder_that_is_a_file_is_told_before_training(tmp_path, runs, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIASSTUDY_STUDY", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot be a folder: .*file is a file"):
        notebook.study(executed(PARAMETERS))
    assert check_folder(tmp_path / "new" / "one") == tmp_path / "new" / "one"
