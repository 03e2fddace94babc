"""What an experiment is: its fields, the protocols and the arms.

An `Experiment` is one frozen choice of everything that can change a result, for one seed. Its id
names its rows in every table. Nothing here trains, reads or writes. Importing this module does not
import torch; building an `Experiment` does, since the models that it names check their options.

To add a protocol, add one line to `PROTOCOLS`. To add a field, add one line to `Experiment` and use
it in `loop/`.
"""

import copy
import dataclasses
import functools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from .core.checks import checked, listed, shown, unknown
from .core.registry import CLASSIFIERS, DATASETS, FILTERS, GENERATORS, Entry, Registry
from .core.seeds import digest

# ---- Protocols -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """How generated images enter the pool of generation t + 1, as data; n = n_real, q = round(ratio
    n) images in a batch."""

    start: bool  # the real start stays
    batches: str  # "all" batches made so far, or the "newest"
    full_batch: bool = False  # a batch must be as large as the start (ratio 1)
    # of all that, n images drawn without replacement, per told condition, each time anew
    drawn: bool = False
    # of all that, n images drawn, in every class as many of each group as the probe sees
    balanced: bool = False
    # the first round(fresh_share q) images of each batch come from the reserve
    fresh: bool = False
    # their group shares follow how well the last classifier serves each class and group
    feedback: bool = False
    # the pool of generation t + 1, in words: no part of the rule
    says: str = field(default="", compare=False)


PROTOCOLS: dict[str, Protocol] = {
    "accumulate": Protocol(start=True, batches="all", says="The start and all batches so far."),
    "latest": Protocol(start=True, batches="newest", says="The start and the newest batch."),
    "replace": Protocol(
        start=False,
        batches="newest",
        full_batch=True,
        says="The newest batch alone; ratio must be 1.",
    ),
    "subsample": Protocol(
        start=True,
        batches="all",
        drawn=True,
        says="Of the start and all batches n_real images, drawn anew each generation.",
    ),
    "fresh": Protocol(
        start=True,
        batches="all",
        fresh=True,
        says="The start and all batches, of each fresh_share from the reserve.",
    ),
    "performative": Protocol(
        start=True,
        batches="all",
        fresh=True,
        feedback=True,
        says="As fresh, but within each class the groups that the last classifier serves badly "
        "send fewer of the images from the reserve.",
    ),
    "balanced": Protocol(
        start=True,
        batches="all",
        balanced=True,
        says="Of the start and all batches n_real images, in every class equally many of each "
        "group as the probe sees it (a remedy).",
    ),
}

# starts that thin groups which the data set names, and their bias: a weight of 25 %
PRESETS = {"dim-25": 0.75}
AS_FOUND = "as-found"  # the start in the natural shares of the data

ARMS = ("generated", "real", "resample", "none")  # of every experiment
FILTERED = "real-filtered"  # one more of an experiment with a filter
# the generator thinned to the start's shares, by the filter of that name
REBALANCE = "rebalance"
# real images that copy one side of the generated batches
IMITATING = {"real-shares": "shares", "real-noise": "labels"}
DECOMPOSING = ("real-shares", REBALANCE, "real-noise")
# those that need shares which may drift
DRIFTING = ("real-shares", REBALANCE)
# Ways to lose accuracy with nothing generated, each an arm: the level of its generation 0, 1, ...;
# the first is the start itself. What lies behind PATH_POINTS is for accuracies that those do not
# reach.
PATHS: dict[str, tuple[float, ...]] = {
    # share of the start's images
    "fewer": (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64),
    # share of the optimiser steps of a fit
    "shorter": (1, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12, 1 / 16, 1 / 24, 1 / 32),
    # share of the labels that are wrong, whatever the group
    "noisier": (0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.9, 0.95),
}
PATH_POINTS = 4  # after the first, unless a study asks for more
ALL_ARMS = (*ARMS, FILTERED, *DECOMPOSING, *PATHS)
ARM_SAYS = {
    "generated": "Images of the generator are added.",
    "real": "Equally many fresh real images of the reserve are added instead.",
    "resample": "A bootstrap of the pool is added instead: drift alone.",
    "none": "Nothing is added: noise of training again.",
    FILTERED: "Images of the reserve are added that pass the same filter.",
    "real-shares": "Images of the reserve are added, in the group shares of the generated batch.",
    REBALANCE: "Images of the generator are added, thinned to the group shares of the start.",
    "real-noise": "Images of the reserve are added, with the label errors of the generated batch.",
    "fewer": "Nothing is added; each level trains on a smaller part of the start.",
    "shorter": "Nothing is added; each level is fitted in fewer steps.",
    "noisier": "Nothing is added; at each level more labels are wrong at random.",
}
# generators that make the arms `real` (also filtered) and `resample`
CONTROLS = ("reserve", "resample")


# ---- Fields --------------------------------------------------------------------------------------


def knob(
    default: Any,
    says: str,
    *,
    low: float | None = None,
    high: float | None = None,
    most: float | None = None,
    among: Any = None,
) -> Any:
    """A field of Experiment: its default, its meaning, and its range or the names it may take.

    most   above it, no machine could do what is asked
    """
    metadata = {"says": says, "low": low, "high": high, "most": most, "among": among}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Experiment:
    """One run of the self-consuming loop: every choice that can change its result, for one seed.

    Fields are checked when it is built: ValueError with one sentence for an unknown name, a wrong
    type or a value out of range. Steps and batch sizes of 0 mean the default of the named model.

    Fields:
    """

    dataset: str = knob("colorized-mnist-5k", "name of the data set", among=DATASETS)
    dataset_options: dict = knob({}, "options of the data set")
    start: str = knob(
        "unbiased",
        "how the real training set is drawn",
        among=("unbiased", "biased", AS_FOUND, *PRESETS),
    )
    bias: float = knob(0.0, "strength of a biased start", low=0, high=1)
    favoured: dict = knob(
        {}, "groups that a start as found favours, by class; default: the larger ones"
    )
    n_thinned: int = knob(
        2,
        "groups of each class that a biased start thins, where a group has one class",
        low=1,
        most=1000,
    )
    n_real: int = knob(1000, "real images in the start", low=1, most=10**7)
    draws: str = knob(
        "shared",
        "whether the starts of all seeds are drawn from one stock, or no photograph is in two",
        among=("shared", "disjoint"),
    )
    n_draws: int = knob(
        1, "disjoint draws that the stock is cut into; seeds count them from 0", low=1, most=10_000
    )
    n_test: int = knob(
        300, "real test images (digits; each is shown in every colour)", low=1, most=10**7
    )
    generator: str = knob("mixture", "name of the generator", among=GENERATORS)
    generator_steps: int = knob(0, "optimiser steps of each generator fit", low=0, most=10**8)
    generator_batch: int = knob(
        0, "images in an optimiser step of the generator", low=0, most=10**6
    )
    generator_options: dict = knob({}, "other options of the generator")
    classifier: str = knob("lenet", "name of the classifier", among=CLASSIFIERS)
    classifier_steps: int = knob(0, "optimiser steps of each classifier fit", low=0, most=10**8)
    classifier_batch: int = knob(
        0, "images in an optimiser step of the classifier", low=0, most=10**6
    )
    classifier_options: dict = knob({}, "other options of the classifier")
    n_classifiers: int = knob(
        1,
        "classifiers per generation, averaged within a seed; the first filters and relabels",
        low=1,
        most=1000,
    )
    pretraining: str = knob(
        "none",
        "what classifiers learned before their first step: nothing (options may name weights), or "
        "what the instrument `expert` did",
        among=("none", "expert"),
    )
    warm_start: str = knob(
        "none",
        "which models go on from their weights of the generation before",
        among=("none", "generator", "classifier", "both"),
    )
    condition: str = knob("class", "what the generator is told", among=("class", "group"))
    ratio: float = knob(0.5, "generated images added per generation / n_real", low=0, most=100)
    protocol: str = knob("accumulate", "how generated images enter the pool", among=PROTOCOLS)
    fresh_share: float = knob(
        0.5,
        "share of each batch that comes from the reserve under protocols fresh and performative",
        low=0,
        high=1,
    )
    sensitivity: float = knob(
        1.0,
        "under protocol performative: power of the accuracy on a class and group to which its "
        "share among the images from the reserve is proportional; 0: protocol fresh",
        low=0,
        high=100,
    )
    filter: str = knob("none", "which generated images are kept", among=FILTERS)
    filter_options: dict = knob({}, "options of the filter")
    shortfall: str = knob(
        "stop",
        "if the filter rejects too many: stop, or keep a batch that is too small",
        among=("stop", "keep"),
    )
    labels: str = knob(
        "told",
        "training label of a generated image: what the generator was told, or what the classifier "
        "of the same generation sees",
        among=("told", "classifier"),
    )
    imitate: str = knob(
        "nothing",
        "arms of real images: what they copy from the generated batches, their group shares or the "
        "errors of their labels",
        among=("nothing", *IMITATING.values()),
    )
    path: str = knob(
        "none",
        "arms that lose accuracy with nothing generated, a level each generation: fewer images of "
        "the start, shorter fits, or noisier labels",
        among=("none", *PATHS),
    )
    n_generations: int = knob(
        2, "turns of the loop, or levels of a path, after generation 0", low=1, most=1000
    )
    instrument: str = knob(
        "lenet",
        "name of the fixed classifier that serves as oracle, probe, expert and feature extractor",
        among=CLASSIFIERS,
    )
    instrument_steps: int = knob(0, "optimiser steps of the instruments", low=0, most=10**8)
    instrument_options: dict = knob({}, "other options of the instruments")
    seed: int = knob(0, "base of every random stream", low=0, most=2**63 - 1)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = checked(f.name, getattr(self, f.name), f.type)  # type: ignore[arg-type]
            low, high, among = f.metadata["low"], f.metadata["high"], f.metadata["among"]
            if isinstance(among, Registry):
                among[value]
            elif among is not None and value not in among:
                raise ValueError(unknown(f.name, value, among))
            if (low is not None and value < low) or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
                raise ValueError(f"{f.name} must be {bounds}; got {shown(value)}")
            most = f.metadata["most"]
            if most is not None and value > most:
                raise ValueError(f"{f.name} must be at most {most:,}; got {shown(value)}")
            object.__setattr__(self, f.name, value)
        self._check_together()

    def _check_together(self) -> None:
        protocol = PROTOCOLS[self.protocol]
        if protocol.full_batch and self.ratio != 1:
            raise ValueError(
                f"protocol {self.protocol!r} needs ratio 1: its batch is the whole pool; got ratio "
                f"{self.ratio}"
            )
        if not protocol.fresh and self.fresh_share != 0.5:
            raise ValueError(
                "fresh_share is used by protocols 'fresh' and 'performative' alone; got "
                f"{self.fresh_share} with {self.protocol!r}"
            )
        if not protocol.feedback and self.sensitivity != 1:
            raise ValueError(
                f"sensitivity is used by protocol 'performative' alone; got {self.sensitivity} "
                f"with {self.protocol!r}"
            )
        if protocol.fresh and self.n_batch and not 0 < self.n_fresh < self.n_batch:
            raise ValueError(
                f"protocol {self.protocol!r} needs images from the reserve and from the generator; "
                f"fresh_share {self.fresh_share} of {self.n_batch} is {self.n_fresh} (none: "
                "accumulate; all: the arm real)"
            )
        if protocol.drawn and self.shortfall == "keep":
            raise ValueError(
                f"protocol {self.protocol!r} needs full batches; shortfall must be 'stop', got "
                "'keep'"
            )
        if self.start == "unbiased" and self.bias != 0:
            raise ValueError(
                f"an unbiased start has bias 0; got bias {self.bias} (say start: biased)"
            )
        if self.start == AS_FOUND and (self.bias, self.n_thinned) != (0, 2):
            raise ValueError(
                f"start {AS_FOUND!r} has the shares that are found, so bias stays 0 and n_thinned "
                f"2; got bias {self.bias}, n_thinned {self.n_thinned}"
            )
        self._name_favoured()
        if self.favoured and self.start != AS_FOUND:
            raise ValueError(
                f"favoured is used by start {AS_FOUND!r} alone; got start {self.start!r}"
            )
        if self.start in PRESETS and (self.bias, self.n_thinned) != (PRESETS[self.start], 2):
            raise ValueError(
                f"start {self.start!r} has bias {PRESETS[self.start]} and names what it thins; got "
                f"bias {self.bias}, n_thinned {self.n_thinned}"
            )
        if self.draws == "shared" and self.n_draws != 1:
            raise ValueError(f"n_draws is used by draws 'disjoint' alone; got {self.n_draws}")
        if self.draws == "disjoint" and self.seed >= self.n_draws:
            raise ValueError(
                f"draws 'disjoint' has a start for each seed below n_draws, {self.n_draws}; got "
                f"seed {self.seed}"
            )
        if self.path != "none":
            self._check_path()
        if self.ratio > 0 and self.n_batch == 0:
            raise ValueError(
                f"ratio {self.ratio} of n_real {self.n_real} adds no image; use ratio 0 or a "
                "larger one"
            )
        if self.labels == "classifier" and self.condition == "group":
            raise ValueError(
                "labels 'classifier' needs condition 'class': a relabelled image would be in a "
                "group nobody told"
            )
        if self.imitate != "nothing":
            self._check_imitation()
        if self.pretraining != "none":
            self._check_pretraining()
        if self.arm in DRIFTING and self.condition == "group":
            raise ValueError(
                f"the arm {self.arm!r} needs condition 'class'; under 'group' the shares are told, "
                "not drifting"
            )
        for model in ("generator", "classifier"):
            # more than the first training set holds: no step could see that many images
            if (batch := getattr(self, f"{model}_batch")) > self.n_real:
                raise ValueError(
                    f"{model}_batch must be at most n_real, {self.n_real}; got {batch}"
                )
            if self.warm(model) and not self.entry(model).traits.get("warm"):
                raise ValueError(
                    f"warm_start is {self.warm_start!r}, but {model} {getattr(self, model)!r} has "
                    "no weights to go on from"
                )
        self.dataset_entry.resolve(self.dataset_options)
        for role in ("generator", "classifier", "instrument"):
            self._model(role)  # it checks the values of its options when it is built
        FILTERS[self.filter].resolve(self.filter_options)
        self.reference()

    def _name_favoured(self) -> None:
        """Classes and groups by their names: a number is the name of its digits, and one group a
        list of one."""
        named = {}
        for class_name, of_class in self.favoured.items():
            groups = of_class if isinstance(of_class, list | tuple) else [of_class]
            for name in (class_name, *groups):
                if not isinstance(name, str | int | float):
                    raise ValueError(
                        "favoured must be class: group, or class: [group, group]; got "
                        f"{shown(self.favoured)}"
                    )
            named[str(class_name)] = [str(group) for group in groups]
        object.__setattr__(self, "favoured", named)

    def _check_path(self) -> None:
        if self.ratio:
            raise ValueError(
                f"path {self.path!r} trains on the start alone: it needs ratio 0; got ratio "
                f"{self.ratio}"
            )
        if self.warm_start != "none":
            raise ValueError(
                f"every level of path {self.path!r} is a fit of its own, from the first weights of "
                f"generation 0; warm_start must be 'none', got {self.warm_start!r}"
            )
        if self.n_generations >= len(PATHS[self.path]):
            raise ValueError(
                f"path {self.path!r} has at most {len(PATHS[self.path]) - 1} levels after the "
                f"first; got {self.n_generations}"
            )
        if self.path == "shorter" and "steps" not in self.resolved("classifier"):
            raise ValueError(
                "path 'shorter' needs a classifier that is fitted in steps; got "
                f"{self.classifier!r}, which has a closed form"
            )

    def _check_pretraining(self) -> None:
        if self.classifier != self.instrument or not self.entry("classifier").traits.get("warm"):
            raise ValueError(
                f"pretraining {self.pretraining!r} needs a classifier with weights, the same as "
                f"the instrument; got classifier {self.classifier!r}, instrument "
                f"{self.instrument!r}"
            )
        shape, expected = (
            getattr(self._model(role), "shape", self.resolved(role))
            for role in ("classifier", "instrument")
        )
        for name in shape:
            if shape[name] != expected[name]:
                raise ValueError(
                    f"pretraining {self.pretraining!r} needs the network of the instrument: its "
                    f"{name} is {expected[name]!r}; got {shape[name]!r} in classifier_options"
                )

    def _check_imitation(self) -> None:
        for name, needed in (("filter", "none"), ("labels", "told")):
            if getattr(self, name) != needed:
                raise ValueError(
                    f"imitate {self.imitate!r} needs {name} {needed!r}; got {getattr(self, name)!r}"
                )
        if self.generator in CONTROLS or self.n_batch == 0 or self.n_fresh:
            raise ValueError(
                f"imitate {self.imitate!r} needs batches that a generator made alone; got "
                f"generator {self.generator!r}, ratio {self.ratio}, protocol {self.protocol!r}"
            )

    # -- what follows from the fields

    @property
    def n_batch(self) -> int:
        """Images added per generation, q = round(ratio n_real)."""
        return round(self.ratio * self.n_real)

    @property
    def leans(self) -> bool:
        """Whether its start favours cells by more or less, as data as found do; how much may be
        unknown."""
        return self.bias != 0 or self.start == AS_FOUND

    @property
    def n_fresh(self) -> int:
        """Images of each batch that come from the reserve, whatever the arm."""
        return round(self.fresh_share * self.n_batch) if PROTOCOLS[self.protocol].fresh else 0

    @property
    def dataset_entry(self) -> Entry:
        return DATASETS[self.dataset]

    @property
    def data_name(self) -> str:
        """What its data are called: the name of the data set, or of the folder they lie in; of
        predictions of a loop elsewhere, the name that was given to them."""
        elsewhere = self.dataset not in DATASETS
        if elsewhere or not self.dataset_entry.traits.get("by_content"):
            return self.dataset
        return PurePath(self.dataset_options["root"]).name

    def entry(self, role: str) -> Entry:
        """What is registered under the name of the `generator`, `classifier` or `instrument`."""
        return (GENERATORS if role == "generator" else CLASSIFIERS)[getattr(self, role)]

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the path, one for each generation; () in an arm that is no path."""
        return PATHS[self.path][: self.n_generations + 1] if self.path != "none" else ()

    def warm(self, model: str) -> bool:
        """Whether the `generator` or `classifier` goes on from its weights of the generation
        before."""
        return self.warm_start in (model, "both")

    def resolved(self, role: str) -> dict[str, Any]:
        """Every option of the `generator`, `classifier` or `instrument`, defaults filled in, steps
        and batch among them."""
        entry = self.entry(role)
        given = getattr(self, f"{role}_options", {})
        options = entry.resolve(given)
        for name in ("steps", "batch"):
            if name in given:
                raise ValueError(f"give {name!r} as {role}_{name}, not inside {role}_options")
            value = getattr(self, f"{role}_{name}", 0)
            if value and name not in options:
                raise ValueError(
                    f"{role} {entry.name!r} has no {name}; {role}_{name} must stay 0, got {value}"
                )
            if value:
                options[name] = value
        return options

    def prepared(self, role: str, dataset: Any = None) -> dict[str, Any]:
        """Every option of a model, or of the `filter`, that is ready to be used: it has found its
        files, and its options say what they hold.

        dataset   the data set, of a generator or filter: one that is told names has them in its
                 options
        raises   ValueError, OSError, ImportError   with one sentence if a file or a package is
                                                    missing, damaged or another
        """
        if role == "filter":
            options = FILTERS[self.filter].resolve(self.filter_options)
            prepare = FILTERS[self.filter].traits.get("prepare")
            return prepare(options, dataset.classes) if prepare else options
        model = self._model(role)
        if hasattr(model, "named"):
            model = model.named(
                dataset.classes, dataset.groups if self.condition == "group" else ()
            )
        model = model.prepare() if hasattr(model, "prepare") else model
        options = dataclasses.asdict(model)
        # how files came here is no part of what is computed
        return {
            f.name: options[f.name]
            for f in dataclasses.fields(model)
            if f.metadata.get("in_keys", True)
        }

    def check_side(self, side: int) -> None:
        """ValueError if a model cannot see images of this side, in pixels."""
        for role in ("generator", "classifier", "instrument"):
            model = self._model(role)
            if hasattr(model, "check_side"):
                model.check_side(side)

    def _model(self, role: str) -> Any:
        return self.entry(role).target(**self.resolved(role))

    @property
    def prior(self) -> str:
        """Data, other than the start, from which the weights of generator and classifier were
        learned before; or none."""
        learned = {getattr(self._model(role), "prior", "") for role in ("generator", "classifier")}
        if self.pretraining == "expert":
            learned.add("instruments")
        return " and ".join(sorted(learned - {""})) or "none"

    @property
    def arm(self) -> str:
        """Arm that the fields amount to."""
        if self.n_batch == 0:
            return self.path
        if self.imitate != "nothing":
            return next(arm for arm, copied in IMITATING.items() if copied == self.imitate)
        if self.filter == REBALANCE and self.generator not in CONTROLS:
            return REBALANCE
        real = "real" if self.filter == "none" else FILTERED
        return {"reserve": real, "resample": "resample"}.get(self.generator, "generated")

    def to_arm(self, arm: str, path_points: int = PATH_POINTS) -> "Experiment":
        """The experiment of another arm with the same seed, sizes, steps and generation 0.

        arm          str          generated (itself); real, resample, none; real-filtered (the
                                  reserve through the same filter); of the decomposition
                                  real-shares, rebalance, real-noise; of PATHS fewer, shorter,
                                  noisier: these are the same whatever would have been generated,
                                  and for how long
        path_points  int          levels of a path after the first
        raises       ValueError   for another name, or if this experiment is itself a control
        """
        if arm not in ALL_ARMS:
            raise ValueError(unknown("arm", arm, ALL_ARMS))
        if self.path != "none" and arm not in PATHS:
            raise ValueError(
                f"path {self.path!r} is an arm of every study with its start, and has no arm "
                f"{arm!r}; give path 'none', and {self.path!r} among the arms"
            )
        if arm in ("generated", REBALANCE, *IMITATING):
            if self.generator in CONTROLS:
                raise ValueError(
                    f"generator {self.generator!r} is a control; the arm {arm!r} needs a generator"
                )
            if arm == REBALANCE and self.filter not in ("none", REBALANCE):
                raise ValueError(f"the arm {REBALANCE!r} needs filter 'none'; got {self.filter!r}")
            changes = {
                REBALANCE: {"filter": REBALANCE},
                **{name: {"imitate": copied} for name, copied in IMITATING.items()},
            }
            return dataclasses.replace(self, **changes.get(arm, {}))  # type: ignore[arg-type]
        if arm == FILTERED and self.filter == "none":
            raise ValueError(f"the arm {FILTERED!r} needs a filter; got filter 'none'")
        changed = self._defaults(
            "generator_steps", "generator_batch", "generator_options", "imitate"
        )
        changed["warm_start"] = "classifier" if self.warm("classifier") else "none"
        if arm in PATHS:
            changed |= {"path": arm, "n_generations": path_points, "warm_start": "none"}
        # the start under every protocol: what would have been generated does not matter
        if arm in ("none", *PATHS):
            changed |= self._defaults(
                "generator", "condition", "protocol", "fresh_share", "sensitivity", "labels"
            ) | {"ratio": 0.0}
        else:
            changed["generator"] = "resample" if arm == "resample" else "reserve"
        if arm != FILTERED:
            changed |= self._defaults("filter", "filter_options", "shortfall")
        return dataclasses.replace(self, **changed)

    def reference(self) -> "Experiment | None":
        """The experiment whose results this one needs: what a filter's acceptance rates or an arm
        of real images copies.

        returns  None for all other experiments
        """
        if self.imitate != "nothing":
            return dataclasses.replace(self, imitate="nothing")
        entry = FILTERS[self.filter]
        if "imitates" not in entry.traits:
            return None
        options = entry.resolve(self.filter_options)
        return dataclasses.replace(self, filter=entry.traits["imitates"], filter_options=options)

    def without_feedback(self) -> "Experiment":
        """The same experiment under protocol `fresh`, if its protocol has feedback; else itself."""
        if not self.has_feedback:
            return self
        return dataclasses.replace(self, protocol="fresh", **self._defaults("sensitivity"))

    @property
    def is_remedy(self) -> bool:
        """Whether its protocol is one that is meant to help."""
        return PROTOCOLS[self.protocol].balanced

    @property
    def has_feedback(self) -> bool:
        """Whether the groups of fresh real images follow how well the last classifier served
        them."""
        return PROTOCOLS[self.protocol].feedback

    # -- names

    def fields(self) -> dict[str, Any]:
        """All fields as a plain dictionary (JSON), a copy."""
        return {
            name: copy.deepcopy(value) if isinstance(value, dict) else value
            for name, value in self.known().items()
        }

    def known(self) -> dict[str, Any]:
        """The fields that are known, by name: its own values, to be compared and not changed."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def _defaults(self, *names: str) -> dict[str, Any]:
        return {f.name: default_of(f) for f in dataclasses.fields(self) if f.name in names}

    @functools.cached_property
    def id(self) -> str:
        """Hash of the fields that differ from their defaults: the experiment's name in tables and
        folders."""
        return _digest_without((), self.fields())

    @functools.cached_property
    def pair(self) -> str:
        """Hash of what all arms share (seed, data, sizes, classifier): experiments with one pair
        share generation 0."""
        return _digest_without(OF_THE_ARM, self.fields())


def trained_from(fields: Mapping[str, Any]) -> str:
    """Hash of what the models of an experiment are trained from: experiments with one differ in
    what measures them alone.

    fields   of Experiment, as `Experiment.fields` or a record tells them
    """
    return _digest_without(OF_THE_MEASUREMENT, fields)


def _digest_without(dropped: tuple[str, ...], fields: Mapping[str, Any]) -> str:
    """Hash of the fields that differ from their defaults, but for those that are dropped."""
    changed = {
        f.name: fields[f.name]
        for f in dataclasses.fields(Experiment)
        if f.name not in dropped and fields.get(f.name, default_of(f)) != default_of(f)
    }
    return digest(changed, 12)


def default_of(f: dataclasses.Field) -> Any:
    """The default of a field of Experiment."""
    return {} if f.default is dataclasses.MISSING else f.default


def told(f: dataclasses.Field) -> str:
    """What a field of Experiment means, which values it takes, and its default, in words."""
    low, high, most = (f.metadata[name] for name in ("low", "high", "most"))
    among = f.metadata["among"]
    if isinstance(among, Registry):
        values = f"see python -m biasstudy list {among.noun}s"
    elif among is not None:
        values = listed(among)
    elif high is not None:
        values = f"{low} to {high}"
    elif low is not None:
        values = f"at least {low}" + (f", at most {most:,}" if most is not None else "")
    else:
        values = "name: value"
    return f"{f.metadata['says']}; {values}; default {default_of(f)!r}"


def fields_told() -> str:
    """Every field of Experiment: its name, its type, and what `told` says; lines of a docstring."""
    return "\n".join(
        textwrap.fill(
            f"{f.name}: {_name_of(f)}   {told(f)}",
            100,
            initial_indent=" " * 4,
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
        for f in dataclasses.fields(Experiment)
    )


def _name_of(f: dataclasses.Field) -> str:
    return getattr(f.type, "__name__", str(f.type))


Experiment.__doc__ = f"{(Experiment.__doc__ or '').rstrip()}\n{fields_told()}\n"

OF_THE_MEASUREMENT = ("n_test", "instrument", "instrument_steps", "instrument_options")
OF_THE_ARM = (
    "generator",
    "generator_steps",
    "generator_batch",
    "generator_options",
    "condition",
    "ratio",
    "protocol",
    "fresh_share",
    "sensitivity",
    "filter",
    "filter_options",
    "shortfall",
    "labels",
    "warm_start",
    "imitate",
    "path",
    "n_generations",
)


def experiment_from(parameters: Mapping[str, Any]) -> Experiment:
    """The experiment with these fields; ValueError names a field that does not exist."""
    known = [f.name for f in dataclasses.fields(Experiment)]
    for name in parameters:
        if name not in known:
            raise ValueError(unknown("parameter", name, known))
    return Experiment(**parameters)


def stored_experiment(recorded: Mapping[str, Any]) -> Experiment:
    """The experiment that a stored record tells of, by its fields.

    Records of before there were three paths have a field `fewer` instead of `path`.

    raises   ValueError   where it is true: the levels of that arm were others than those of PATHS
    """
    now = dict(recorded)
    if now.pop("fewer", False):
        raise ValueError("it is of an older arm `fewer`, with other levels; run it again")
    return experiment_from(now)
