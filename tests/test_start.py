"""`biasstudy start` and the wheel: those who have no clone get the same notebooks and files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from biasstudy.__main__ import main

ROOT = Path(__file__).parents[1]
SHIPPED = {
    path.relative_to(ROOT): path.read_bytes()
    for part, ending in (("notebooks", "ipynb"), ("params", "yaml"))
    for path in (ROOT / part).rglob(f"*.{ending}")
}


def laid_out(folder) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_start_lays_out_all_notebooks_and_files_and_overwrites_nothing(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["start", str(folder)]) == 0
    assert laid_out(folder) == SHIPPED and len(SHIPPED) > 50
    assert (
        f"{folder}: {len(SHIPPED)} files written, 0 were there already" in capsys.readouterr().out
    )
    changed, lost = (
        folder / "params" / "cifar20" / "offline.yaml",
        folder / "notebooks" / "cifar20.ipynb",
    )
    changed.write_text("n_seeds: 1\n")
    lost.unlink()
    assert main(["start", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"1 files written, {len(SHIPPED) - 2} were there already" in out
    assert "left as they are" in out and "params/cifar20/offline.yaml" in out
    assert (
        changed.read_text() == "n_seeds: 1\n"
        and lost.read_bytes() == SHIPPED[lost.relative_to(folder)]
    )
    (tmp_path / "file").write_text("")
    assert main(["start", str(tmp_path / "file")]) == 2
    assert "cannot be a folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package from its wheel, in a folder beside what the tests have."""
    pytest.importorskip("hatchling", reason="needs hatchling, which builds the wheel")
    built, target = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(built), str(ROOT)]
    subprocess.run(wheel, check=True, capture_output=True)
    (file,) = built.glob("*.whl")
    command = [*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_from_a_wheel_the_command_lays_them_out_and_a_file_finds_its_notebook(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    program = installed / "bin" / "biasstudy"

    def said(*arguments):
        done = subprocess.run(
            [sys.executable, str(program), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import biasstudy; print(biasstudy.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(installed / "biasstudy" / "__init__.py")
    assert f"{len(SHIPPED)} files written" in said("start", "mine")
    assert laid_out(tmp_path / "mine") == SHIPPED
    assert (installed / "biasstudy" / "report" / "page.html").is_file()
    assert (installed / "biasstudy" / "py.typed").is_file()
    for name in ("reference", "reference/instrument"):
        ships = {path.name for path in (ROOT / "biasstudy" / name).iterdir() if path.is_file()}
        assert {p.name for p in (installed / "biasstudy" / name).iterdir() if p.is_file()} == ships
    packaged = {p.relative_to(ROOT) for p in (ROOT / "biasstudy").rglob("*.py")}
    assert {p.relative_to(installed) for p in (installed / "biasstudy").rglob("*.py")} == packaged
