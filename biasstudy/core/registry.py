"""How things are found: registries of data sets, generators, classifiers, filters and metrics.

To add one of a kind, decorate it with its registry (`@GENERATORS.register("name", version=1)`);
nothing else has to be edited.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import math
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import checked, listed, shown, unknown


@dataclass(frozen=True)
class Entry:
    """One registered thing: a class or function whose keyword arguments are its options; `noun`
    says what it is one of."""

    noun: str
    name: str
    version: int
    target: Callable[..., Any]
    traits: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Version as it enters stage keys; code outside this package adds the hash of its source,
        so that editing it never meets results of the older text."""
        if _of_this_package(self.target):
            return str(self.version)
        try:
            source = inspect.getsource(self.target)
        except (OSError, TypeError):
            return str(self.version)
        return f"{self.version}+{hashlib.sha256(source.encode()).hexdigest()[:12]}"

    def defaults(self) -> dict[str, Any]:
        """Options with their default values, in the order of the signature."""
        parameters = _signature(self.target).parameters.values()
        values = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        factories = {
            f.name: f.default_factory
            for f in getattr(self.target, "__dataclass_fields__", {}).values()
        }
        return {
            name: factories[name]() if callable(factories.get(name)) else value
            for name, value in values.items()
        }

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with defaults filled in; ValueError names an unknown key, a wrong type, a number
        outside the trait `within`, a mapping of names to (lowest, highest), or a word that is not
        in the trait `among`, a mapping of names to words. Texts that the trait `lists` names may be
        lists of texts: they become one text with commas."""
        known = self.defaults()
        for key, value in options.items():
            if key not in known:
                raise ValueError(unknown("option", key, known, f"of {self.noun} {self.name!r}"))
            if key in self.traits.get("lists", ()) and isinstance(value, list):
                value = ", ".join(
                    checked(f"{key!r} in option of {self.noun} {self.name!r}", part, str)
                    for part in value
                )
            known[key] = checked(
                f"option {key!r} of {self.noun} {self.name!r}", value, type(known[key])
            )
            _check_text(f"option {key!r} of {self.noun} {self.name!r}", known[key])
        for key, (low, high) in self.traits.get("within", {}).items():
            if not low <= known[key] <= high:
                raise ValueError(
                    f"{self.name}: {key} must be in [{low}, {high}]; got {shown(known[key])}"
                )
        for key, words in self.traits.get("among", {}).items():
            if known[key] not in words:
                raise ValueError(
                    f"{self.name}: {key} must be one of {listed(words)}; got {shown(known[key])}"
                )
        return known


def _of_this_package(target: Any) -> bool:
    return target.__module__.split(".")[0] == __package__.split(".")[0]


def _check_text(name: str, value: Any) -> None:
    """ValueError unless a text, or every text of a list, can be printed: no file and no word holds
    the others. A list of an option holds texts and finite numbers alone."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and not one.isprintable():
            raise ValueError(f"{name} must be text that can be printed; got {shown(one)}")
        if not isinstance(one, str | int) and not (isinstance(one, float) and math.isfinite(one)):
            raise ValueError(f"{name} must hold texts and finite numbers; got {shown(one)}")


HOW_TO_ADD = (
    "; one of your own needs its module: imports: [module] in the parameter file, or --import "
    "module"
)

# asked for a hundred times per experiment
_signature = functools.cache(inspect.signature)


class Registry(Mapping[str, Entry]):
    """Known entries of one kind, by name; the built-in ones are imported when first looked at."""

    def __init__(self, noun: str, module: str, needs: Sequence[str] = ()) -> None:
        """needs   methods of every entry, which is then a dataclass: its fields are its options"""
        self.noun, self._module, self._entries = noun, module, dict[str, Entry]()
        self._needs = needs
        self.families: dict[str, Callable[[str], Any]] = {}
        self._traits: dict[str, dict[str, Any]] = {}

    def register(self, name: str, *, version: int = 1, **traits: Any) -> Callable[[Any], Any]:
        """Decorator that adds a class or function under a name.

        name     str    lower case, hyphens
        version  int    raise it when results change: stored stages of the older version are then
                        not used
        traits          what the package must know without building one (design of a metric, for
                        example)
        raises   ValueError   if another thing has that name, or the target lacks what is needed
        """

        def add(target: Any) -> Any:
            if not _of_this_package(target):
                assert self._loaded  # the package has its names before anybody else
            old = self._entries.get(name)
            if old and (old.target.__module__, old.target.__qualname__) != (
                target.__module__,
                target.__qualname__,
            ):
                raise ValueError(
                    f"the {self.noun} name {name!r} of {target.__module__} is already that of "
                    f"{old.target.__module__}; register it under another name"
                )
            for method in self._needs:
                if not callable(getattr(target, method, None)):
                    raise ValueError(f"the {self.noun} {name!r} has no method {method!r}")
            if self._needs and not dataclasses.is_dataclass(target):
                raise ValueError(
                    f"the {self.noun} {name!r} must be a dataclass, whose fields are its options: "
                    f"write @dataclass(frozen=True) below @{self.noun.upper()}S.register"
                )
            self._entries[name] = Entry(self.noun, name, version, target, traits)
            return target

        return add

    def family(self, prefix: str, **traits: Any) -> Callable[[Any], Any]:
        """Decorator that adds all that a function name -> class makes, under "prefix:name".

        prefix   str   lower case
        traits         version, and as in `register`; the function raises ValueError with one
                       sentence for a name that it cannot make
        """

        def add(make: Callable[[str], Any]) -> Callable[[str], Any]:
            self.families[prefix], self._traits[prefix] = make, traits
            return make

        return add

    def _member(self, name: str) -> Entry | None:
        """What is registered under a name, made now if it is of a family; None: nothing."""
        if name not in self._entries and self._loaded:
            prefix, _, of_family = str(name).partition(":")
            if prefix in self.families and of_family:
                self.register(name, **self._traits[prefix])(self.families[prefix](of_family))
        return self._entries.get(name)

    @functools.cached_property
    def _loaded(self) -> bool:
        module = importlib.import_module(self._module)
        for submodule in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{self._module}.{submodule.name}")
        return True

    def __contains__(self, name: object) -> bool:
        try:
            return self._member(name) is not None  # type: ignore[arg-type]
        except ValueError:  # of a family that cannot make it
            return False

    def __getitem__(self, name: str) -> Entry:
        entry = self._member(name)
        if entry is None:
            raise ValueError(unknown(self.noun, name, [*self, *self._patterns()]) + HOW_TO_ADD)
        return entry

    def _patterns(self) -> list[str]:
        return [f"{prefix}:NAME" for prefix in sorted(self.families)]

    def __iter__(self) -> Iterator[str]:
        assert self._loaded
        return iter(sorted(name for name in self._entries if not self._of_family(name)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _of_family(self, name: str) -> bool:
        return name.partition(":")[0] in self.families and ":" in name


def import_own(modules: Iterable[str]) -> None:
    """Import modules of the user's own, which may lie in the working directory; what they register
    is then known.

    raises   ValueError   with one sentence, if one is not there or cannot be imported
    """
    modules = list(modules)
    if not modules:
        return
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # it may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            missing = isinstance(error, ModuleNotFoundError)
            raise ValueError(
                f"cannot import {shown(module)} ({reason})"
                + f"; modules are looked for in {here} and where Python looks" * missing
            ) from error


DATASETS = Registry("data set", "biasstudy.data.datasets")
GENERATORS = Registry("generator", "biasstudy.models.generators", ("fit", "sample"))
CLASSIFIERS = Registry("classifier", "biasstudy.models.classifiers", ("fit", "predict"))
FILTERS = Registry("filter", "biasstudy.loop.filters")
METRICS = Registry("metric", "biasstudy.measures.metrics")
