"""What can be named: data sets, models, filters, protocols, arms, metrics and fields, each with one
sentence. `python -m biasstudy list` prints it."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .core.checks import unknown
from .core.registry import CLASSIFIERS, DATASETS, FILTERS, GENERATORS, METRICS, Registry
from .experiment import ALL_ARMS, ARM_SAYS, PROTOCOLS, Experiment, told

WIDTH = 100  # characters of a line


def _of_registry(registry: Registry) -> dict[str, str]:
    named = {name: first_sentence(entry.target) for name, entry in registry.items()}
    return named | {
        f"{prefix}:NAME": first_sentence(make) for prefix, make in registry.families.items()
    }


# kind -> names and what is said of each; read when asked for
KINDS: dict[str, Callable[[], Mapping[str, str]]] = {
    "data sets": lambda: _of_registry(DATASETS),
    "generators": lambda: _of_registry(GENERATORS),
    "classifiers": lambda: _of_registry(CLASSIFIERS),
    "filters": lambda: _of_registry(FILTERS),
    "protocols": lambda: {name: protocol.says for name, protocol in PROTOCOLS.items()},
    "arms": lambda: {arm: ARM_SAYS[arm] for arm in ALL_ARMS},
    "metrics": lambda: _of_registry(METRICS),
    "fields": lambda: {f.name: told(f) for f in dataclasses.fields(Experiment)},
}


def first_sentence(target: Any) -> str:
    """The first sentence of a docstring, on one line; empty where there is none."""
    text = " ".join((inspect.getdoc(target) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s+(?=[A-Z])", text)[0]


def listing(kinds: Iterable[str] = ()) -> str:
    """Names of these kinds, each with what is said of it, as text.

    kinds    of KINDS; default: all
    raises   ValueError   for an unknown kind
    """
    asked = list(kinds) or list(KINDS)
    for kind in asked:
        if kind not in KINDS:
            raise ValueError(unknown("kind", kind, KINDS))
    return "\n\n".join(_section(kind, KINDS[kind]()) for kind in asked)


def _section(kind: str, said: Mapping[str, str]) -> str:
    column = max(map(len, said)) + 4
    lines = [kind]
    for name, says in said.items():
        first = f"  {name}".ljust(column)
        lines += textwrap.wrap(
            says, WIDTH, initial_indent=first, subsequent_indent=" " * column
        ) or [first.rstrip()]
    return "\n".join(lines)
