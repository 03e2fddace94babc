"""The package as a whole: quick to import, arrows in one direction, README code that runs, one version."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import biasstudy
from biasstudy import store

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "biasstudy"

# who may import whom, beside registry, which everybody may
ALLOWED = {
    "registry": set(), "experiment": set(), "store": set(), "progress": set(), "metrics": set(), "pretrained": set(),
    "data": set(), "training": set(), "filters": {"pretrained"}, "clip": {"data", "pretrained", "stages", "store", "training"},
    "drawing": {"experiment", "data"}, "classifiers": {"data", "training", "store"},
    "generators": {"data", "pretrained", "training"}, "datasets": {"data", "store"},
    "stages": {"data", "spurious", "store", "training"}, "spurious": {"metrics"},
    "correction": set(), "decomposition": {"correction", "data", "stages", "store", "training"},
    "probes": {"experiment", "data", "drawing", "filters", "quality", "stages", "training", "store"},
    "quality": {"metrics"}, "intervals": set(), "floors": {"metrics"}, "drift": set(),
    "inference": {"metrics", "intervals", "floors", "drift"},
    "results": {"data", "experiment", "metrics", "quality", "spurious"},
    "dynamics": {"experiment", "inference", "intervals"},
    "conjecture": {"dynamics", "inference", "intervals"},
    "figures": {"conjecture", "correction", "dynamics", "metrics", "quality", "spurious", "summary",
                "experiment", "results", "inference", "drift", "floors", "__init__"},
    "nulls": {"experiment", "loop", "results", "inference", "intervals", "drift", "figures"},
    "summary": {"conjecture", "dynamics", "experiment", "inference", "intervals", "results"},
    "ledger": {"conjecture", "inference", "intervals", "metrics", "summary"},
    "execute": {"figures"}, "report": {"conjecture", "figures", "ledger", "store", "summary", "__init__"},
    "loop": {"clip", "correction", "decomposition", "experiment", "data", "drawing", "training", "stages", "store", "probes",
             "results", "progress"},
    "cost": {"experiment", "loop"}, "engine": {"experiment", "loop", "training"},
    "tables": {"drawing", "experiment", "inference", "loop", "results", "store", "training"},
    "cluster": {"engine"}, "sweep": {"cost", "drawing", "experiment", "loop", "notebook", "training"},
    "farm": {"cost", "engine", "experiment", "notebook", "store", "sweep", "training"},
    "notebook": {"experiment", "store", "drawing", "loop", "results", "training", "figures", "inference", "summary"},
    "bench": {"data", "drawing", "experiment", "loop", "progress", "stages", "store", "training"},
    "sampling": {"bench", "data", "drawing", "experiment", "figures", "generators", "loop", "probes", "quality", "stages",
                 "store", "training"},
    "__main__": {"bench", "cluster", "datasets", "engine", "execute", "farm", "figures", "inference", "ledger", "notebook",
                 "nulls", "progress", "report", "results", "sampling", "store",
                 "summary", "sweep", "tables", "training", "__init__"},
    "__init__": {"data", "experiment", "loop", "results", "tables", "training"},
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = len(path.relative_to(PACKAGE).parts) - 1
            if node.level <= inside:
                continue  # a neighbour in the same folder
            found.add((node.module or "__init__").split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert _imports(path) <= ALLOWED[room] | {"registry"}, f"{room} may import {sorted(ALLOWED[room])}"


def test_import_is_quick_and_needs_neither_torch_nor_pandas():
    code = ("import sys, time; t = time.perf_counter(); import biasstudy; seconds = time.perf_counter() - t; "
            "heavy = {'torch', 'pandas', 'diffusers', 'matplotlib', 'scipy'} & set(sys.modules); "
            "print(seconds, sorted(heavy))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(maxsplit=1)
    assert out[1].strip() == "[]" and float(out[0]) < 0.3


def test_public_names_are_there():
    for name in biasstudy.__all__:
        assert getattr(biasstudy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = biasstudy.nothing


def test_no_module_is_longer_than_400_lines():
    assert {p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400} == {}


def test_versions_stand_once():
    lock = (ROOT / "requirements.lock").read_text()
    assert "torch==2.14.1" in lock and "torchvision==0.29.2" in lock and "://" not in lock
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = environment["dependencies"][-1]["pip"]
    assert "-c requirements.lock" in names and not any("==" in name for name in names)
    for name in names[1:-1]:
        assert re.search(rf"^{name}==", lock, re.M), f"{name} is not locked"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == biasstudy.__version__


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_every_python_block_of_the_readme_runs(runs, tmp_path, monkeypatch):
    """In order, in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    import matplotlib
    matplotlib.use("agg")
    blocks, namespace = _blocks("python"), {"__name__": "reader"}
    assert len(blocks) >= 4
    try:
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    finally:  # what the README registers must not stay for other tests
        for registry in (biasstudy.DATASETS, biasstudy.GENERATORS, biasstudy.FILTERS, biasstudy.METRICS):
            for name in [n for n, entry in registry._entries.items() if not entry.target.__module__.startswith("biasstudy")]:
                registry._entries.pop(name)


def test_commands_and_files_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"(?:params|notebooks)/[\w/]+\.(?:yaml|ipynb)", text):
        assert (ROOT / path).is_file(), path
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"`make (\w+)", text)) <= set(targets)
    for image in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (ROOT / image).is_file(), image


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_provenance_marks_changed_code_and_not_results_that_were_stored(tmp_path, monkeypatch):
    """Two studies stored one after the other are made by the same code."""
    room = tmp_path / "biasstudy"
    (room / "reference").mkdir(parents=True)
    (room / "store.py").write_text("")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=n@n", "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(store, "__file__", str(room / "store.py"))
    commit = store._commit()
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (room / "reference" / "study.csv").write_text("1")
    assert store._commit() == commit
    (room / "store.py").write_text("1")
    assert store._commit() == commit + "+"
