"""Values that users give, checked: one sentence says what was seen and what was expected."""

import math
from typing import Any

import numpy as np


def listed(names: Any) -> str:
    return ", ".join(map(str, names))


def checked(name: str, value: Any, kind: Any) -> Any:
    """The value as `kind`, int becoming float; ValueError says what was seen and what was
    expected."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )
    if kind is float and number:
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number; got {value!r}")
        return float(value)
    if kind is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if kind not in (int, float) and isinstance(value, kind):
        return dict(value) if kind is dict else value
    hint = (
        " (in YAML write 1.0e-3, not 1e-3)"
        if kind is float and isinstance(value, str) and "e" in value
        else ""
    )
    raise ValueError(
        f"{name} must be {_TYPE_NAMES.get(kind, kind.__name__)}; "
        f"got {type(value).__name__} {value!r}{hint}"
    )


def at_least(model: str, options: Any, **lowest: int) -> None:
    """ValueError with one sentence if an option of a model is below its lowest value."""
    for name, low in lowest.items():
        if getattr(options, name) < low:
            raise ValueError(
                f"{model}: {name} must be at least {low}; got {getattr(options, name)}"
            )


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping of options",
    bool: "true or false",
}
