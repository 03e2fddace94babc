"""How things are named and found: registries of data sets, generators, classifiers, filters and metrics; seeds by name; exact
counts.

To add one of a kind, decorate it with its registry (`@GENERATORS.register("name", version=1)`); nothing else has to be edited.
"""

import functools
import hashlib
import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# ---- Names and seeds -------------------------------------------------------------------------------------------------

def digest(value: Any, length: int = 20) -> str:
    """Hexadecimal sha256 of the canonical JSON of a value (keys sorted, no spaces, floats by repr)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def seed_for(*names: Any) -> int:
    """Seed of the random stream with this name: seed_for(seed, "generator", t, "init").

    names    str or int           any number of them; other names give an independent stream
    returns  int in [0, 2**63)    the same on every machine; adding a stream moves no other
    source   seeds by name after DomainBed's seed_hash
    """
    return int(digest(list(names), 16), 16) >> 1


# ---- Registries ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Entry:
    """One registered thing: a class or function whose keyword arguments are its options."""

    kind: str
    name: str
    version: int
    target: Callable[..., Any]
    traits: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Version as it enters stage keys; code outside this package adds the hash of its source, so that editing it
        never meets results of the older text."""
        if self.target.__module__.split(".")[0] == __package__:
            return str(self.version)
        try:
            source = inspect.getsource(self.target)
        except (OSError, TypeError):
            return str(self.version)
        return f"{self.version}+{hashlib.sha256(source.encode()).hexdigest()[:12]}"

    def defaults(self) -> dict[str, Any]:
        """Options with their default values, in the order of the signature."""
        parameters = inspect.signature(self.target).parameters.values()
        found = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        made = {f.name: f.default_factory for f in getattr(self.target, "__dataclass_fields__", {}).values()}
        return {name: made[name]() if callable(made.get(name)) else value for name, value in found.items()}

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with defaults filled in; ValueError names an unknown key or a wrong type."""
        known = self.defaults()
        for key, value in options.items():
            if key not in known:
                raise ValueError(f"unknown option {key!r} of {self.kind} {self.name!r}; known: {listed(known)}")
            known[key] = checked(f"option {key!r} of {self.kind} {self.name!r}", value, type(known[key]))
        return known


class Registry(Mapping[str, Entry]):
    """Known entries of one kind, by name; the built-in ones are imported when first looked at."""

    def __init__(self, kind: str, module: str) -> None:
        self.kind, self._module, self._entries = kind, module, dict[str, Entry]()

    def register(self, name: str, *, version: int = 1, **traits: Any) -> Callable[[Any], Any]:
        """Decorator that adds a class or function under a name.

        name     str    lower case, hyphens
        version  int    raise it when results change: stored stages of the older version are then not used
        traits          what the package must know without building one (design of a metric, for example)
        raises   ValueError   if another thing has that name
        """
        def add(target: Any) -> Any:
            old = self._entries.get(name)
            if old and (old.target.__module__, old.target.__qualname__) != (target.__module__, target.__qualname__):
                raise ValueError(f"the {self.kind} name {name!r} is taken by {old.target.__module__}")
            self._entries[name] = Entry(self.kind, name, version, target, traits)
            return target
        return add

    @functools.cached_property
    def _loaded(self) -> bool:
        module = importlib.import_module(self._module)
        for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{self._module}.{found.name}")
        return True

    def __contains__(self, name: object) -> bool:
        return name in self._entries or (self._loaded and name in self._entries)

    def __getitem__(self, name: str) -> Entry:
        if name not in self:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {listed(self)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        assert self._loaded
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        assert self._loaded
        return len(self._entries)


DATASETS = Registry("data set", "biasstudy.datasets")
GENERATORS = Registry("generator", "biasstudy.generators")
CLASSIFIERS = Registry("classifier", "biasstudy.classifiers")
FILTERS = Registry("filter", "biasstudy.filters")
METRICS = Registry("metric", "biasstudy.metrics")


# ---- Checked values ---------------------------------------------------------------------------------------------------

def listed(names: Any) -> str:
    return ", ".join(map(str, names))


def checked(name: str, value: Any, kind: Any) -> Any:
    """The value as `kind`, int becoming float; ValueError says what was seen and what was expected."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if kind is float and number:
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number; got {value!r}")
        return float(value)
    if kind is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if kind not in (int, float) and isinstance(value, kind):
        return dict(value) if kind is dict else value
    hint = " (in YAML write 1.0e-3, not 1e-3)" if kind is float and isinstance(value, str) and "e" in value else ""
    raise ValueError(f"{name} must be {_TYPE_NAMES.get(kind, kind.__name__)}; "
                     f"got {type(value).__name__} {value!r}{hint}")


def at_least(model: str, options: Any, **lowest: int) -> None:
    """ValueError with one sentence if an option of a model is below its lowest value."""
    for name, low in lowest.items():
        if getattr(options, name) < low:
            raise ValueError(f"{model}: {name} must be at least {low}; got {getattr(options, name)}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a mapping of options",
               bool: "true or false"}


# ---- Exact counts ----------------------------------------------------------------------------------------------------

def largest_remainder(shares: np.ndarray, n: int) -> np.ndarray:
    """Whole counts that sum to n and lie closest to n times the shares.

    shares   (K,) float    non-negative, not all zero; normalised here
    n        int
    returns  (K,) int64    floor of the quota, the rest by largest remainder; ties go to the lower index
    source   Hamilton's method of apportionment
    """
    quota = n * np.asarray(shares, float) / np.sum(shares)
    counts = np.floor(quota + 1e-9).astype(np.int64)
    order = np.argsort(-(quota - counts).round(9), kind="stable")
    counts[order[: n - counts.sum()]] += 1
    return counts


def spread(counts: np.ndarray) -> np.ndarray:
    """The sequence that holds index k exactly counts[k] times, each prefix as close to the shares as can be.

    counts   (K,) int
    returns  (sum(counts),) int64   so the told label of image i hardly depends on how many images are asked for
    """
    counts = np.asarray(counts)
    n, due, out = int(counts.sum()), np.zeros(len(counts)), np.empty(int(counts.sum()), np.int64)
    for i in range(n):
        due += counts / n
        out[i] = k = int(np.argmax(due))
        due[k] -= 1
    return out
