"""What can be named: nothing is left out, and everything says what it is."""

import dataclasses
import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from biasstudy import DATASETS, GENERATORS, METRICS, Experiment
from biasstudy.__main__ import main
from biasstudy.catalogue import KINDS, WIDTH, first_sentence, listing
from biasstudy.experiment import ALL_ARMS, PROTOCOLS

ROOT = Path(__file__).parents[1]


def test_every_name_has_a_sentence():
    said = {kind: read() for kind, read in KINDS.items()}
    for kind, names in (
        ("data sets", DATASETS),
        ("generators", GENERATORS),
        ("metrics", METRICS),
        ("protocols", PROTOCOLS),
        ("arms", ALL_ARMS),
    ):
        assert list(said[kind]) == list(names)
    for names in said.values():
        assert names and all(says.strip() and "\n" not in says for says in names.values())


def test_the_first_sentence_of_a_docstring():
    def thing():
        """It keeps 0.5 of
        them. Then more."""

    assert first_sentence(thing) == "It keeps 0.5 of them."
    assert first_sentence(object()) != "" and first_sentence(lambda: 0) == ""


@pytest.mark.parametrize(
    ("asked", "first", "inside"),
    [
        (["fields"], "fields", "ratio "),
        (["data", "sets"], "data sets", "colorized-mnist-5k"),
        (["data-sets", "filters"], "data sets", "random-cell"),
        ([], "data sets", "worst-group-accuracy"),
    ],
)
def test_list_prints_names_and_what_they_are(asked, first, inside, capsys):
    assert main(["list", *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == first and any(line.startswith(f"  {inside}") for line in lines)
    assert max(map(len, lines)) <= WIDTH


def test_an_unknown_kind_is_told(capsys):
    assert main(["list", "feilds"]) == 2
    assert "unknown kind 'feilds' (did you mean fields?); known: data" in capsys.readouterr().err


def test_every_field_tells_its_range_and_help_tells_every_field():
    told = listing(["fields"])
    page = " ".join(pydoc.render_doc(Experiment, renderer=pydoc.plaintext).split()).replace(
        "| ", ""
    )
    for f in dataclasses.fields(Experiment):
        says = " ".join(f.metadata["says"].split())
        assert f"  {f.name} " in told and f" {f.name}: " in page
        assert says in " ".join(told.split()) and says in page
    assert "at least 1, at most 1,000; default 2" in " ".join(told.split())
    assert "strength of a biased start; 0 to 1; default 0.0" in told


def test_the_console_script_is_the_command_line():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"biasstudy": "biasstudy.__main__:main"}
    code = "import sys; from biasstudy.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "arms"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("arms\n  generated ")
