"""Notebooks and parameter files: structure, siblings, and that every parameter means a field of
Experiment."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from test_parameters import executed, injected

from biasstudy import notebook
from biasstudy.campaign import sweep
from biasstudy.parameters import read
from biasstudy.report.shipped import recipe, reference, reference_parts, studies
from biasstudy.study import SETTINGS, study_from

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# grids are no notebook's
FILES = sorted(p for p in (ROOT / "params").rglob("*.yaml") if p.parent.name != "sweeps")
DATA_SETS = [
    ROOT / "notebooks" / f"{stem}.ipynb" for stem in ("colorized_mnist", "cifar20", "hard_imagenet")
]
SWEEPS = sorted((ROOT / "params" / "sweeps").glob("*.yaml"))
# of stored results
READERS = [ROOT / "notebooks" / f"{stem}.ipynb" for stem in ("conjecture", "summary", "explore")]
# of a table of predictions
SCORE = ROOT / "notebooks" / "score.ipynb"
OWN = ROOT / "notebooks" / "own_data.ipynb"
FAMILIES = [path for path in NOTEBOOKS if path not in [*DATA_SETS, *READERS, SCORE, OWN]]
name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def tagged(cell):
    return "parameters" in cell["metadata"].get("tags", [])


def parameters(path) -> dict:
    """Values of the parameters cell."""
    found = [cell for cell in cells(path) if tagged(cell)]
    assert len(found) == 1
    body = ast.parse(source(found[0])).body
    return {node.target.id: ast.literal_eval(node.value) for node in body}


@name
def test_structure(path):
    code, prose = cells(path), cells(path, "markdown")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), (
        "not executed in order: make notebooks"
    )
    assert path.stat().st_size < 400_000
    first = source(prose[0])
    assert first.startswith("# ") and "?" in first.split("\n")[0], "the title is a question"
    for cell in code:
        text = source(cell)
        assert len(text.splitlines()) <= 15 or tagged(cell), text
        assert not any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(text))
        )
        assert "sys.path" not in text and "pip install" not in text
        assert not any(o["output_type"] == "error" for o in cell["outputs"])
        assert "injected-parameters" not in cell["metadata"].get("tags", [])
    share = len(prose) / (len(prose) + len(code))
    assert 0.35 <= share <= 0.65
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@name
def test_every_figure_has_its_table_under_it(path):
    """nbval does not compare pictures, so what a figure draws must also be printed."""
    code = cells(path)
    pictures = [
        i
        for i, cell in enumerate(code)
        if any("image/png" in o.get("data", {}) for o in cell["outputs"])
    ]
    assert len(pictures) >= (5 if path in [*DATA_SETS, OWN] else 4)
    for i in pictures:
        near = [code[i - 1], code[i], *code[i + 1 : i + 2]]
        assert any("text/html" in o.get("data", {}) for cell in near for o in cell["outputs"]), (
            source(code[i])
        )


@name
def test_no_output_names_a_machine(path):
    text = json.dumps([cell["outputs"] for cell in cells(path)])
    assert (
        str(ROOT) not in text
        and "/home/" not in text
        and "/tmp/" not in text
        and "Warning" not in text
    )


@name
def test_the_parameters_cell_declares_fields_with_their_types_and_smoke_values(path):
    declared = parameters(path)
    study = study_from(declared)
    assert (
        declared["scale"] == "smoke"
        and declared["precision"] == "float64"
        and declared["threads"] == 1
    )
    text = source(next(c for c in cells(path) if tagged(c)))
    for line in text.splitlines():
        inside = line.startswith("    ")  # of the list of variants
        assert line.count("=") == (0 if inside else 1), (
            "papermill drops parameters with = in the comment or default"
        )
    for key, value in declared.items():
        expected = type(SETTINGS[key]) if key in SETTINGS else type(getattr(study.base, key))
        assert type(value) is expected, key


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_parameter_file_says_all_that_its_notebook_would(path):
    """The command line and papermill run the same experiments, so they share every stage; and no
    smoke value of the notebook's cell is in them."""
    declared = parameters(ROOT / "notebooks" / f"{path.parent.name}.ipynb")
    given = yaml.safe_load(path.read_text())
    assert set(given) <= set(declared)
    by_run = read(path)
    assert by_run.notes == (), "write the value into the file"
    assert study_from(by_run.parameters).id == study_from(given).id
    for key, value in given.items():
        assert type(value) is type(declared[key]) or (
            type(declared[key]) is float and type(value) is int
        ), key
    assert given["scale"] == path.stem.split("-")[0]
    namespace = executed(*injected(ROOT / "notebooks" / f"{path.parent.name}.ipynb", path))
    by_papermill, _ = notebook.read(namespace)
    assert by_papermill.id == study_from(by_run.parameters).id


@pytest.mark.parametrize("study", studies())
def test_the_command_of_results_that_ship_plans_exactly_these(study):
    """So the command beside them makes them again, from a file of the repository."""
    *python, verb, path = recipe(study).split()
    assert python == ["python", "-m", "biasstudy"] and verb in ("run", "sweep")
    file = ROOT / path
    assert file in FILES + SWEEPS, f"{path} is no parameter file of the repository"
    planned = (
        sweep.read(file).study
        if verb == "sweep"
        else study_from(yaml.safe_load(file.read_text()), elsewhere=True)
    )
    shipped = {o.experiment.id for o in reference(study).outcomes}
    assert shipped == {e.id for e in planned.experiments}
    by_variant = {
        name: {o.experiment.id for o in results.outcomes}
        for name, results in reference_parts(study).items()
    }
    assert by_variant == {
        name: {e.id for e in experiments} for name, experiments in planned.by_variant().items()
    }


@name
def test_every_notebook_has_its_parameter_files(path):
    scales = {p.stem for p in FILES if p.parent.name == path.stem}
    assert {"offline"} <= scales


@name
def test_results_that_ship_are_found_whatever_the_study_is_called(path):
    """`-p name mine` renames figures; it must not end a notebook after its training."""
    code = "\n".join(source(c) for c in cells(path))
    assert (
        "reference(name" not in code
        and "reference_parts(name" not in code
        and "{name}_" not in code
    )


def test_the_check_of_a_notebook_names_what_does_not_add_up(tmp_path):
    from conftest import FLOAT64, tiny

    from biasstudy import Results, run
    from biasstudy.notebook import check

    results = run(
        [tiny(seed=s).to_arm(arm) for s in range(2) for arm in ("generated", "none")],
        numerics=FLOAT64,
        where=tmp_path,
    )
    check(results)
    good, arm = results.of("generated")[0], results.of("none")[0]
    short = [{k: v[1:] for k, v in batch.items()} for batch in good.batches]
    other = good.predicted.copy()
    other[0, 0, 0] += 1
    for outcome, words in (
        (dataclasses.replace(good, predicted=good.predicted[:-1]), "2 generations; expected 3"),
        (dataclasses.replace(good, counts=good.counts * 2), "200 images in the start; expected"),
        (dataclasses.replace(good, batches=good.batches[:1]), "has 1 batches; expected 2"),
        (dataclasses.replace(good, batches=short), "batch 0 of .* has 49 images; expected 50"),
        (dataclasses.replace(good, predicted=other), "does not share generation 0"),
    ):
        with pytest.raises(AssertionError, match=words):
            check(Results([arm, outcome]))


def test_a_notebook_knows_its_own_name():
    from biasstudy.notebook import study

    cell = 'name: str = "own"\ndataset: str = "colorized-mnist-5k"\nratio: float = 0.5'
    injected = '# Parameters\nname = "mine"\n'
    given = {"name": "mine", "dataset": "colorized-mnist-5k", "ratio": 0.5}
    assert study({"In": ["", cell, injected], **given}).notebook == "own"
    assert study(given).notebook == "mine", "outside a notebook"


def test_siblings_share_their_code():
    """The ratio family differs in its parameters only; the others in these and in the figures of
    their question."""
    one, other, masked = ([source(c) for c in cells(path) if not tagged(c)] for path in DATA_SETS)
    assert one == other and len(set(one) & set(masked)) >= 12, (
        "masks add to what is measured, and take nothing away"
    )
    own = [source(c) for c in cells(OWN) if not tagged(c)]
    assert len([cell for cell in own if cell not in one]) == 2, "set-up, and what was found"
    assert "reference" not in "".join(own), "nothing of it ships"
    codes = {path.stem: [source(c) for c in cells(path) if not tagged(c)] for path in FAMILIES}
    shared = set.intersection(*map(set, codes.values()))
    assert len(shared) >= 8, "set-up, data, loop, asserts, curves, effects, answer"
    for stem, code in codes.items():
        own = [cell for cell in code if cell not in shared]
        others = [cell for other, cells_of in codes.items() if other != stem for cell in cells_of]
        assert sum(cell not in others for cell in own) <= 6, f"{stem} has too much code of its own"


@pytest.mark.parametrize("path", READERS, ids=lambda p: p.stem)
def test_a_reader_reads_all_that_ships_unless_told(path):
    declared = parameters(path)
    assert (
        declared["source"] == "reference"
        and len(study_from({**declared, "source": "run"}).variants) >= 3
    )
    text = "\n".join(source(c) for c in cells(path))
    assert "study.stored(name)" in text and "study.run(" not in text
    with pytest.raises(ValueError, match="source 'reference' reads all that ships"):
        study_from(declared).run()
    codes = [{source(c) for c in cells(p)} for p in READERS]
    assert len(set.intersection(*codes)) >= 1, "readers end alike"


def test_the_notebook_of_predictions_takes_an_example_that_ships_unless_told():
    declared = parameters(SCORE)
    assert declared["source"].removeprefix("reference:") in studies()
    text = "\n".join(source(c) for c in cells(SCORE))
    assert ".predictions()" in text and "score(table" in text and "study.run(" not in text
    asked = study_from({**declared, "source": "run"})
    assert {"generated", "real", "none"} == {e.arm for e in asked.experiments}


@pytest.mark.parametrize("path", FAMILIES + READERS, ids=lambda p: p.stem)
def test_a_family_compares_variants(path):
    study = study_from(parameters(path))
    assert len(study.variants) >= 2 and all(study.variants)
    # laptop-diffusion: laptop, another generator
    scales = {p.stem.split("-")[0] for p in FILES if p.parent.name == path.stem}
    assert scales == {"offline", "laptop", "paper"}


def test_there_is_a_notebook_for_each_data_set_and_family_so_far():
    families = {
        f"colorized_mnist_{family}"
        for family in (
            "start",
            "protocol",
            "filter",
            "transfer",
            "generator",
            "locality",
            "performative",
        )
    }
    families |= {"cifar20_condition", "cifar20_start"}
    families |= {"conjecture", "summary", "explore", "score", "hard_imagenet_filter", "own_data"}
    assert {"colorized_mnist", "cifar20", "hard_imagenet"} | families <= {p.stem for p in NOTEBOOKS}
