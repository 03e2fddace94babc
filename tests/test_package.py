"""The package as a whole: quick to import, arrows in one direction, one version."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import biasstudy
from biasstudy.core import provenance

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "biasstudy"

# rooms and modules from the ground up; each may import those below it, and its neighbours in the
# same room
LAYERS = (
    "core",
    "experiment",
    "measures",
    "data",
    "models",
    "inference",
    "loop",
    "report",
    "study",
    "catalogue",
    "parameters",
    "campaign",
    "bench",
    "notebook",
    "__main__",
)


def _imported(path: Path, package: Path = PACKAGE) -> set[str]:
    """Modules of the package that a file imports, at its top or inside a function, in full:
    `loop.run`; of `from . import x` the thing imported, where it is a module."""
    here, found = path.relative_to(package).parts[:-1], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("biasstudy.")
                for alias in node.names
                if alias.name.startswith("biasstudy.")
            }
        elif isinstance(node, ast.ImportFrom):
            inside = here[: len(here) - node.level + 1] if node.level else ()
            if not node.level and (node.module or "").split(".")[0] != "biasstudy":
                continue
            base = (
                (*inside, *(node.module or "").removeprefix("biasstudy").strip(".").split("."))
                if node.module
                else inside
            )
            base = tuple(filter(None, base))
            for alias in node.names:
                place = package.joinpath(*base, alias.name)
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                found.add(".".join((*base, alias.name) if is_module else base))
    return found - {""}


def _climbing(package: Path = PACKAGE) -> list[str]:
    """Imports that point up, or to a room that has no place in LAYERS."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for target in _imported(path, package):
            other = target.split(".")[0]
            known = room in LAYERS and other in LAYERS
            if not known or (other != room and LAYERS.index(other) > LAYERS.index(room)):
                wrong.append(f"{path.relative_to(package)} imports {target}")
    return wrong


def test_imports_point_down():
    assert _climbing() == []


@pytest.mark.parametrize(
    "line",
    [
        "from . import study",
        "from .loop import run",
        "from .loop.run import run",
        "def f():\n    from .report import figures",
        "import biasstudy.loop.run",
        "from biasstudy.loop import run",
        "from biasstudy import notebook",
    ],
)
def test_an_import_that_points_up_is_seen_in_every_form(tmp_path, line):
    for name in ("loop/run.py", "report/figures/__init__.py", "study.py", "notebook.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "experiment.py").write_text(line)
    assert len(_climbing(tmp_path)) == 1


def test_no_room_has_more_than_a_dozen_modules():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    sizes = {
        str(f.relative_to(PACKAGE)): len([m for m in f.glob("*.py") if m.stem != "__init__"])
        for f in folders
    }
    assert {room: n for room, n in sizes.items() if n > 12} == {}


def test_import_is_quick_and_needs_neither_torch_nor_pandas():
    code = (
        "import sys, time; t = time.perf_counter(); import biasstudy; seconds = "
        "time.perf_counter() - t; "
        "heavy = {'torch', 'pandas', 'diffusers', 'matplotlib', 'scipy'} & set(sys.modules); "
        "print(seconds, sorted(heavy))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split(maxsplit=1)
    assert out[1].strip() == "[]" and float(out[0]) < 0.3


def test_public_names_are_there():
    for name in biasstudy.__all__:
        assert getattr(biasstudy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = biasstudy.nothing


def test_versions_stand_once():
    lock = (ROOT / "requirements.lock").read_text()
    assert "torch==2.14.1" in lock and "torchvision==0.29.2" in lock and "://" not in lock
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = environment["dependencies"][-1]["pip"]
    assert "-c requirements.lock" in names and not any("==" in name for name in names)
    for name in names[1:-1]:
        assert re.search(rf"^{name}==", lock, re.M), f"{name} is not locked"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == biasstudy.__version__


def test_public_ci_runs_what_ours_does_on_every_python_that_is_promised():
    told = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert told[True] == ["push", "pull_request"], "YAML reads the word on as true"
    job = told["jobs"]["tests"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    makefile = (ROOT / "Makefile").read_text()
    assert set(re.search(r"^test: (.*)$", makefile, re.M)[1].split()) == {"lint", "unit", "slow"}
    slow = re.search(r"^slow: .*\n((?:\t.*\n)+)", makefile, re.M)[1]
    assert "pytest --nbval notebooks tests/test_faults.py " in slow
    matrix = job["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    for step in job["steps"]:
        assert set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", str(step))) <= set(matrix)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_provenance_marks_changed_code_and_not_results_that_were_stored(tmp_path, monkeypatch):
    """Two studies stored one after the other are made by the same code."""
    room = tmp_path / "biasstudy"
    (room / "reference").mkdir(parents=True)
    (room / "core").mkdir()
    (room / "core" / "provenance.py").write_text("")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=n", "-c", "user.email=n@n", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(room / "core" / "provenance.py"))
    commit = provenance._commit()
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (room / "reference" / "study.csv").write_text("1")
    assert provenance._commit() == commit
    (room / "core" / "provenance.py").write_text("1")
    assert provenance._commit() == commit + "+"
