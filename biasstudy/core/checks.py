"""What users give, read and checked: one sentence says what was seen and what was expected."""

import difflib
import functools
import math
import re
import reprlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .places import read_text

# a value in a sentence: short, on one line, whatever it is
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxlist, _SHOWN.maxdict = 4, 12, 12
_SHOWN.maxstring, _SHOWN.maxlong, _SHOWN.maxother = 120, 60, 120


def shown(value: Any) -> str:
    """A value as Python writes it, on one line; of a long one the beginning and the end."""
    return " ".join(_SHOWN.repr(value).split())


def whole_numbers(name: str, values: Any) -> np.ndarray:
    """The values as int64, whatever integers they are.

    values   (N,) of any integer type, or bool
    raises   ValueError   says what was seen, if they are text or fractions, or not in one row
    """
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iub" and array.size):
        raise ValueError(
            f"{name} must be whole numbers in one row; got {array.dtype} {array.shape}"
            + (f" such as {shown(array.ravel()[:1].tolist()[0])}" if array.size else "")
        )
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit 64 bits with a sign; got {array.max()}")
    return array.astype(np.int64)


def listed(names: Any) -> str:
    return ", ".join(map(str, names))


def meant(name: Any, known: Iterable[str]) -> str:
    """ " (did you mean X?)", where a known name is much like the one that was given; else empty."""
    near = difflib.get_close_matches(str(name), list(map(str, known)), n=1, cutoff=0.66)
    return f" (did you mean {near[0]}?)" if near else ""


def unknown(what: str, name: Any, known: Iterable[str], where: str = "") -> str:
    """The sentence about a name that is not among the known ones.

    what    what it would name: "generator"
    where   more words about it: "of generator 'gan'"
    """
    known = list(known)
    where = f" {where}" if where else ""
    return f"unknown {what} {shown(name)}{where}{meant(name, known)}; known: {listed(known)}"


def checked(name: str, value: Any, expected: Any) -> Any:
    """The value as the type `expected`, int becoming float.

    raises   ValueError   says what was seen and what was expected
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )
    if expected is float and number:
        # a whole number may be too large for a float
        if abs(value) > FLOAT_MAX or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number; got {shown(value)}")
        return float(value)
    if expected is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if expected not in (int, float) and isinstance(value, expected):
        return dict(value) if expected is dict else value
    hint = (
        " (in YAML write 1.0e-3, not 1e-3)"
        if expected is float and isinstance(value, str) and _POWER.fullmatch(value)
        else ""
    )
    raise ValueError(
        f"{name} must be {_TYPE_NAMES.get(expected, expected.__name__)}; got "
        f"{type(value).__name__} {shown(value)}{hint}"
    )


FLOAT_MAX = float(np.finfo(float).max)
# a number that YAML takes for text
_POWER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def within(model: str, options: Any, **ranges: tuple[float, float]) -> None:
    """ValueError with one sentence if an option of a model is outside (lowest, highest); above the
    highest no machine could compute it, or nothing would be learned."""
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if not value >= low:  # also of nan
            raise ValueError(f"{model}: {name} must be at least {low}; got {value}")
        if value > high:
            raise ValueError(f"{model}: {name} must be at most {high:,}; got {shown(value)}")


def among(model: str, options: Any, **choices: Collection[Any]) -> None:
    """ValueError with one sentence if an option of a model is none of its choices, two at least."""
    for name, known in choices.items():
        value = getattr(options, name)
        if value not in known:
            *first, last = map(str, known)
            raise ValueError(
                f"{model}: {name} must be {', '.join(first)} or {last}; got {shown(value)}"
            )


STEPS, BATCH = (1, 10**8), (1, 10**6)  # of every fit
RATE = (0, 100)  # of an optimiser
WEIGHT = (0, 10**6)  # of a part of a loss


LONGEST_NAME = 100  # files that are named after it have endings, too


def check_name(what: str, name: str) -> str:
    """The name, which becomes part of file names and web pages.

    raises   ValueError   if it is not letters, digits and underscores
    """
    if not re.fullmatch("[A-Za-z0-9_]+", name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{what} must be 1 to {LONGEST_NAME} letters (a-z), digits and underscores; got "
            f"{shown(name)}"
        )
    return name


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping of options",
    bool: "true or false",
}


# ---- YAML ----------------------------------------------------------------------------------------


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    raises   OSError      if it cannot be read
             ValueError   if it is not UTF-8, and see `parse_yaml`
    """
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """What a YAML text holds; dates stay text.

    where    the file or option that it comes from, for the sentence
    raises   ValueError   with line and column: not YAML, a key twice in one mapping, a tag such as
                          !!python
    """
    import yaml

    try:
        return yaml.load(text, _loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = str(error.problem or error.context)
        if error.context_mark and error.context and error.context_mark is not mark:
            reason += f", {error.context} from line {error.context_mark.line + 1} on"
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        place = f"line {line}, column {column}: "
        reason = f"the character #x{error.character:04x} is not allowed"
    except ValueError as error:  # of a number that is none, such as 0x_
        place, reason = "", str(error)
    except RecursionError:
        place, reason = "", "too many brackets inside each other"
    raise ValueError(f"{where} is not YAML: {place}{' '.join(reason.split())}")


@functools.cache
def _loader() -> Any:
    """YAML's safe loader that also refuses a key that stands twice in one mapping, and tags."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:timestamp"]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if getattr(event, "tag", None) is not None:
                raise yaml.composer.ComposerError(
                    None, None, f"the tag {event.tag!r} is not taken here", event.start_mark
                )
            return super().compose_node(parent, index)

        def compose_mapping_node(self, anchor: Any) -> Any:
            # before merges (<<) are filled in: a key may stand beside the one that it replaces
            node = super().compose_mapping_node(anchor)
            lines: dict[Any, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.composer.ComposerError(
                        None, None, "a key must be a word or number", key.start_mark
                    )
                # `<<` is no value of its own
                name = key.value if key.tag.endswith(":merge") else self.construct_object(key)
                if name in lines:
                    raise yaml.composer.ComposerError(
                        None,
                        None,
                        f"{key.value!r} stands here and in line {lines[name]}",
                        key.start_mark,
                    )
                lines[name] = key.start_mark.line + 1
            return node

    return Loader
