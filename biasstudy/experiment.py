"""What an experiment is: its fields, the protocols, the arms, the registries and the seeds.

An `Experiment` is one frozen choice of everything that can change a result, for one seed. Its id names its rows in
every table. Nothing here trains, reads or writes; torch is not imported.

To add a data set, generator, classifier, filter or metric, decorate it with the registry of its kind
(`@GENERATORS.register("name", version=1)`); nothing else has to be edited. To add a protocol, add one line to
`PROTOCOLS`. To add a field, add one line to `Experiment` and use it in `loop.py`.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with defaults filled in; ValueError names an unknown key or a wrong type."""
        known = self.defaults()
        for key, value in options.items():
            if key not in known:
                raise ValueError(f"unknown option {key!r} of {self.kind} {self.name!r}; known: {_listed(known)}")
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
            raise ValueError(f"unknown {self.kind} {name!r}; known: {_listed(self._entries)}")
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


# ---- Protocols -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Protocol:
    """How generated images enter the pool of generation t + 1, as data."""

    start: bool         # the real start stays in the pool
    batches: str        # "all" batches made so far, or the "newest"
    full_batch: bool    # a batch must be as large as the start (ratio 1)

    def parts(self, batches: list[Any]) -> list[Any]:
        """Batches, oldest first, that enter the pool."""
        return batches if self.batches == "all" else batches[-1:]


PROTOCOLS: dict[str, Protocol] = {
    "accumulate": Protocol(start=True, batches="all", full_batch=False),
    "replace": Protocol(start=False, batches="newest", full_batch=True),
}

ARMS = ("generated", "real", "resample", "none")
CONTROLS = ("reserve", "resample")  # generators that make the arms `real` and `resample`


# ---- Fields ----------------------------------------------------------------------------------------------------------

def _listed(names: Any) -> str:
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


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", list: "a list", dict: "a mapping of options",
               bool: "true or false"}


def knob(default: Any, says: str, *, low: float | None = None, high: float | None = None, among: Any = None) -> Any:
    """A field of Experiment: its default, its meaning, and its range or the names it may take."""
    metadata = {"says": says, "low": low, "high": high, "among": among}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Experiment:
    """One run of the self-consuming loop: every choice that can change its result, for one seed.

    Fields are checked when it is built: ValueError with one sentence for an unknown name, a wrong type or a value out of
    range. Steps and batch sizes of 0 mean the default of the named model.
    """

    dataset: str = knob("colorized-mnist-5k", "name of the data set", among=DATASETS)
    dataset_options: dict = knob({}, "options of the data set")
    start: str = knob("unbiased", "how the real training set is drawn", among=("unbiased", "biased"))
    bias: float = knob(0.0, "strength of a biased start", low=0, high=1)
    n_real: int = knob(1000, "real images in the start", low=1)
    n_test: int = knob(300, "real test images (digits; each is shown in every colour)", low=1)
    generator: str = knob("mixture", "name of the generator", among=GENERATORS)
    generator_steps: int = knob(0, "optimiser steps of each generator fit", low=0)
    generator_batch: int = knob(0, "images in an optimiser step of the generator", low=0)
    generator_options: dict = knob({}, "other options of the generator")
    classifier: str = knob("lenet", "name of the classifier", among=CLASSIFIERS)
    classifier_steps: int = knob(0, "optimiser steps of each classifier fit", low=0)
    classifier_batch: int = knob(0, "images in an optimiser step of the classifier", low=0)
    classifier_options: dict = knob({}, "other options of the classifier")
    n_classifiers: int = knob(1, "classifiers per generation, averaged within a seed", low=1)
    condition: str = knob("class", "what the generator is told", among=("class", "group"))
    ratio: float = knob(0.5, "generated images added per generation / n_real", low=0)
    protocol: str = knob("accumulate", "how generated images enter the pool", among=PROTOCOLS)
    filter: str = knob("none", "which generated images are kept", among=FILTERS)
    filter_options: dict = knob({}, "options of the filter")
    n_generations: int = knob(2, "turns of the loop after generation 0", low=1)
    instrument: str = knob("lenet", "name of the fixed classifier that serves as oracle and probe", among=CLASSIFIERS)
    instrument_steps: int = knob(0, "optimiser steps of oracle and probe", low=0)
    seed: int = knob(0, "base of every random stream", low=0)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = checked(f.name, getattr(self, f.name), f.type)  # type: ignore[arg-type]
            low, high, among = f.metadata["low"], f.metadata["high"], f.metadata["among"]
            if isinstance(among, Registry):
                among[value]
            elif among is not None and value not in among:
                raise ValueError(f"unknown {f.name} {value!r}; known: {_listed(among)}")
            if (low is not None and value < low) or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
                raise ValueError(f"{f.name} must be {bounds}; got {value!r}")
            object.__setattr__(self, f.name, value)
        self._check_together()

    def _check_together(self) -> None:
        if PROTOCOLS[self.protocol].full_batch and self.ratio != 1:
            raise ValueError(f"protocol {self.protocol!r} needs ratio 1: its batch is the whole pool; got ratio {self.ratio}")
        if self.start == "unbiased" and self.bias != 0:
            raise ValueError(f"an unbiased start has bias 0; got bias {self.bias} (say start: biased)")
        if self.ratio > 0 and self.n_batch == 0:
            raise ValueError(f"ratio {self.ratio} of n_real {self.n_real} adds no image; use ratio 0 or a larger one")
        self.dataset_entry.resolve(self.dataset_options)
        for kind in ("generator", "classifier", "instrument"):
            self.resolved(kind)
        FILTERS[self.filter].resolve(self.filter_options)

    # -- what follows from the fields

    @property
    def n_batch(self) -> int:
        """Images added per generation, q = round(ratio n_real)."""
        return round(self.ratio * self.n_real)

    @property
    def dataset_entry(self) -> Entry:
        return DATASETS[self.dataset]

    def resolved(self, kind: str) -> dict[str, Any]:
        """Every option of the `generator`, `classifier` or `instrument`, defaults filled in, steps and batch among them."""
        entry = (GENERATORS if kind == "generator" else CLASSIFIERS)[getattr(self, kind)]
        given = getattr(self, f"{kind}_options", {})
        options = entry.resolve(given)
        for name in ("steps", "batch"):
            if name in given:
                raise ValueError(f"give {name!r} as {kind}_{name}, not inside {kind}_options")
            value = getattr(self, f"{kind}_{name}", 0)
            if value and name not in options:
                raise ValueError(f"{kind} {entry.name!r} has no {name}; {kind}_{name} must stay 0, got {value}")
            if value:
                options[name] = value
        return options

    @property
    def arm(self) -> str:
        """Arm that the fields amount to: `none`, `real`, `resample` or `generated`."""
        if self.n_batch == 0:
            return "none"
        return {"reserve": "real", "resample": "resample"}.get(self.generator, "generated")

    def to_arm(self, arm: str) -> "Experiment":
        """The experiment of another arm with the same seed, sizes, steps and generation 0.

        arm      str          generated (itself), real, resample or none
        raises   ValueError   for another name, or if this experiment is itself a control
        """
        if arm not in ARMS:
            raise ValueError(f"unknown arm {arm!r}; known: {_listed(ARMS)}")
        if arm == "generated":
            if self.generator in CONTROLS:
                raise ValueError(f"generator {self.generator!r} is a control; the arm 'generated' needs a generator")
            return self
        own: dict[str, Any] = {"generator_steps": 0, "generator_batch": 0, "generator_options": {}}
        if arm == "none":  # the start under every protocol: what would have been generated does not matter
            default: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(self)}
            fixed = {name: default[name] for name in ("generator", "condition", "protocol", "filter")}
            return dataclasses.replace(self, ratio=0.0, filter_options={}, **fixed, **own)
        return dataclasses.replace(self, generator={"real": "reserve", "resample": "resample"}[arm], **own)

    # -- names

    def fields(self) -> dict[str, Any]:
        """All fields as a plain dictionary (JSON)."""
        return dataclasses.asdict(self)

    def _digest_without(self, dropped: tuple[str, ...]) -> str:
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                   if f.name not in dropped and getattr(self, f.name) != _default(f)}
        return digest(changed, 12)

    @property
    def id(self) -> str:
        """Hash of the fields that differ from their defaults: the experiment's name in tables and folders."""
        return self._digest_without(())

    @property
    def pair(self) -> str:
        """Hash of what all arms share (seed, data, sizes, classifier): experiments with one pair share generation 0."""
        return self._digest_without(_OF_THE_ARM)


_OF_THE_ARM = ("generator", "generator_steps", "generator_batch", "generator_options", "condition", "ratio", "protocol",
               "filter", "filter_options")


def _default(f: dataclasses.Field) -> Any:
    return {} if f.default is dataclasses.MISSING else f.default


def experiment_from(parameters: Mapping[str, Any]) -> Experiment:
    """The experiment with these fields; ValueError names a field that does not exist."""
    known = [f.name for f in dataclasses.fields(Experiment)]
    for name in parameters:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}; known: {_listed(known)}")
    return Experiment(**parameters)


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
