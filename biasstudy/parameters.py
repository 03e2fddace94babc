"""Parameters from files and command lines, in layers: the cell of a notebook, a file over it, and
over both what -p changes.

So `python -m biasstudy run FILE` and `papermill notebooks/NAME.ipynb out.ipynb -f FILE` mean the
same experiments. With -p beside the file one thing differs: papermill hands both over as one layer,
so a model that -p names keeps the steps, batch and options that the file has for another.
"""

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.checks import listed, parse_yaml, read_yaml, shown
from .core.places import read_text, upwards
from .study import DEFAULTS

# what is registered under a name; fields that begin with one of these words are its own
NAMED = ("dataset", "generator", "classifier", "filter", "instrument")
NOTEBOOK = "notebook"  # the key of a file that names its notebook


@dataclass(frozen=True)
class Given:
    """What a file and changes ask for.

    parameters   fields of Experiment and SETTINGS
    notes        sentences: what neither file nor changes say and where it comes from, and what a
                 change of a model made void
    notebook     that of the file, None if it has none
    """

    parameters: dict[str, Any]
    notes: tuple[str, ...]
    notebook: Path | None = None


def read(
    path: Path, changes: Mapping[str, Any] | None = None, besides: Iterable[str] = ()
) -> Given:
    """The parameters of a study: those of the cell of its notebook, then of the file, then the
    changes.

    The notebook is that of the folder, of params/cifar20/offline.yaml notebooks/cifar20.ipynb, or
    the one that a key `notebook` in the file names. Without one the defaults of Experiment hold.

    besides  parameters that something else says, such as the axes of a grid
    raises   OSError      if a file cannot be read
             ValueError   with one sentence: no flat mapping, no such notebook, a notebook without
                          parameters
    """
    file = read_parameters(path)
    notebook = _notebook_of(path, file.pop(NOTEBOOK, None))
    cell = cell_of(notebook) if notebook else {}
    below = layered(cell, file)
    parameters = layered(below, changes or {})
    notes = void_notes(below, changes or {})
    said = {*file, *(changes or {}), *besides}
    return Given(parameters, (*_origin(path, notebook, parameters, said), *notes), notebook)


def layered(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """The upper layer over what it leaves of the lower one."""
    void = made_void(lower, upper)
    return {name: value for name, value in lower.items() if name not in void} | dict(upper)


def made_void(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> set[str]:
    """Fields of the lower layer that belong to a model, data set or filter which the upper layer
    replaces by another: its steps, batch and options. What the upper layer itself says stays."""
    replaced = {
        role for role in NAMED if role in upper and upper[role] != lower.get(role, DEFAULTS[role])
    }
    return {
        name
        for name in lower
        if name not in upper and any(name.startswith(f"{role}_") for role in replaced)
    }


def void_notes(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> list[str]:
    """A sentence for each model that lost fields which were not at their defaults."""
    notes, void = list[str](), made_void(lower, upper)
    for role in NAMED:
        lost = _in_words(
            {
                name: lower[name]
                for name in lower
                if name in void
                and name.startswith(f"{role}_")
                and lower[name] != DEFAULTS.get(name)
            }
        )
        if lost:
            old = lower.get(role, DEFAULTS[role])
            notes.append(
                f"{role} {upper[role]} takes its own steps, batch and options; those of {old} are "
                f"dropped: {lost}"
            )
    return notes


def _origin(
    path: Path, notebook: Path | None, parameters: Mapping[str, Any], said: set[str]
) -> list[str]:
    """A sentence about what the file leaves to its notebook, or to the defaults."""
    if notebook is None:
        rest = {name: value for name, value in DEFAULTS.items() if name not in said}
        return [
            f"{path} has no notebook; where it says nothing, the defaults hold: {_in_words(rest)}"
        ]
    rest = {
        name: value
        for name, value in parameters.items()
        if name not in said and value != DEFAULTS.get(name)
    }
    filled = f"{path} leaves to {notebook.parent.name}/{notebook.name}: {_in_words(rest)}"
    return [filled] if rest else []


def _in_words(values: Mapping[str, Any]) -> str:
    """Names and values, without empty mappings and lists."""
    return listed(
        f"{name} {shown(value)}" for name, value in values.items() if value not in ({}, [])
    )


# ---- Notebooks -----------------------------------------------------------------------------------


def _notebook_of(path: Path, named: Any) -> Path | None:
    """The notebook of a parameter file; None if it has none.

    named    what its key `notebook` says
    raises   ValueError   if that is no notebook's name, or no such notebook is found in a folder
                          notebooks around the file, the working directory or this package
    """
    places = path.resolve().parents
    if named is None:
        inside = len(places) > 2 and places[1].name == "params"
        found = places[2] / "notebooks" / f"{places[0].name}.ipynb" if inside else None
        return found if found and found.is_file() else None
    if not isinstance(named, str) or not named.isidentifier():
        raise ValueError(
            f"{NOTEBOOK} in {path} must be the name of a notebook, such as cifar20; got "
            f"{shown(named)}"
        )
    for folder in (*places, *upwards()):
        found = folder / "notebooks" / f"{named}.ipynb"
        if found.is_file():
            return found
    raise ValueError(
        f"{path} names the notebook {named!r}, and there is no notebooks/{named}.ipynb around it"
    )


def cell_of(notebook: Path) -> dict[str, Any]:
    """Values of the cell of a notebook with the tag `parameters`.

    raises   OSError      if the notebook cannot be read
             ValueError   if it is none, or has no such cell of literals
    """
    try:
        cells = json.loads(read_text(notebook))["cells"]
        source = next(
            "".join(cell["source"])
            for cell in cells
            if "parameters" in cell["metadata"].get("tags", [])
        )
        return {name: ast.literal_eval(value) for name, value in _assignments(source)}
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, StopIteration) as error:
        raise ValueError(
            f"{notebook} is no notebook whose cell with the tag 'parameters' assigns literals"
        ) from error


def _assignments(source: str) -> Iterable[tuple[str, ast.expr]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign):
            yield from ((t.id, node.value) for t in node.targets if isinstance(t, ast.Name))


# ---- Files and command lines ---------------------------------------------------------------------


def read_parameters(path: Path) -> dict[str, Any]:
    """What one YAML file says.

    raises   OSError      if it cannot be read
             ValueError   if it is not a flat mapping of names to values, or a name stands twice
    """
    parameters = read_yaml(path)
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        raise ValueError(f"{path} must hold lines 'name: value'")
    return parameters


def parse_changes(changes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Parameters that a command line changes, as pairs of a name and a YAML value.

    raises   ValueError   if a value is not YAML, or a name is given twice
    """
    parameters: dict[str, Any] = {}
    for name, text in changes:
        if name in parameters:
            raise ValueError(f"-p {name} is given twice; say it once")
        parameters[name] = parse_yaml(text, f"-p {name} {shown(text)}")
    return parameters
