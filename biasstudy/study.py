"""A study: experiments that differ in variant, seed and arm, and how to run them."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.checks import check_name, checked, shown, unknown
from .core.registry import import_own
from .core.seeds import digest
from .experiment import (
    ALL_ARMS,
    DRIFTING,
    FILTERED,
    PATH_POINTS,
    Experiment,
    default_of,
    experiment_from,
)

if TYPE_CHECKING:
    from .inference.plans import Plan

log = logging.getLogger("biasstudy")

PILOT = 1000  # seeds from here on are for trying out and never count

# parameters of a study that are not fields of an experiment
SETTINGS: dict[str, Any] = {
    "name": "study",
    "variants": [],
    "n_seeds": 1,
    "arms": ["generated", "real", "resample", "none"],
    "path_points": PATH_POINTS,
    "margin": 0.0,
    "scale": "custom",
    "source": "run",
    "imports": [],
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
}
# every parameter at its default
DEFAULTS: dict[str, Any] = {f.name: default_of(f) for f in fields(Experiment)} | SETTINGS
MOST = {"n_seeds": 10_000, "threads": 1024}  # above it, no machine could do what is asked


@dataclass(frozen=True)
class Study:
    """Experiments that differ in variant, seed and arm only, and how to run them.

    variants     what is compared, by name: the first seed of the generated arm of each; often only
                 one
    path_points  levels after the first of the arms that are paths
    settings     what a notebook was asked otherwise than its own cell says
    imports      modules of the user's own that were imported first
    margin       of every hypothesis, in accuracy; 0: a quarter of M(none) where the start has a
                 bias, else verdicts.ABSOLUTE
    """

    variants: Mapping[str, Experiment]
    n_seeds: int
    arms: tuple[str, ...]
    scale: str
    source: str
    numerics: Mapping[str, Any]
    # the name that a notebook gives itself: that of its results which ship, whatever `-p name` says
    notebook: str = ""
    path_points: int = PATH_POINTS
    name: str = SETTINGS["name"]
    margin: float = SETTINGS["margin"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    imports: tuple[str, ...] = ()

    @functools.cached_property
    def id(self) -> str:
        """Hash of all that is computed: experiments, numerics, and where results come from."""
        return digest([[e.id for e in self.experiments], dict(self.numerics), self.source], 12)

    @property
    def base(self) -> Experiment:
        """First seed of the first variant."""
        return next(iter(self.variants.values()))

    @property
    def experiments(self) -> list[Experiment]:
        """All variants, all seeds, all arms of each; what several variants share counts once."""
        return list(
            {e.id: e for experiments in self.by_variant().values() for e in experiments}.values()
        )

    def by_variant(self) -> dict[str, list[Experiment]]:
        """Experiments of each variant, by its name; several variants may have some in common."""
        return {name: self._experiments(base) for name, base in self.variants.items()}

    def _experiments(self, base: Experiment) -> list[Experiment]:
        return [
            e.to_arm(arm, self.path_points) for e in self._seeds(base) for arm in self._arms(base)
        ]

    def _seeds(self, base: Experiment) -> list[Experiment]:
        """A variant with each seed."""
        return [replace(base, seed=base.seed + i) for i in range(self.n_seeds)]

    def _arms(self, base: Experiment) -> list[str]:
        """At ratio 0 nothing is generated: every arm is `none`. Among several variants only a
        filtered one has the arm `real-filtered`, only one whose shares may drift has the arms that
        need it, and only one whose classifier is fitted in steps has the arm `shorter`."""
        if not base.n_batch:
            return ["none"]
        idle = {FILTERED} if base.filter == "none" else set()
        idle |= set(DRIFTING) if base.condition == "group" else set()
        idle |= set() if "steps" in base.resolved("classifier") else {"shorter"}
        return [arm for arm in self.arms if arm not in idle or len(self.variants) == 1]

    @property
    def real(self) -> Any:
        """Real data of the first seed (RealData), with the reserve if the arm `real` is among the
        arms."""
        from .data.real import real_data

        return real_data(self.base.to_arm("real") if "real" in self._arms(self.base) else self.base)

    def real_of(self, results: Any) -> Any:
        """Real data of the first outcome of one variant (RealData)."""
        from .data.real import real_data

        return real_data(results.of("generated")[0].experiment)

    def run(self, **keywords: Any) -> Any:
        """Run the experiments, or read the reference results that ship with the package (source:
        reference:NAME)."""
        from .core.numerics import Numerics
        from .loop.results import Results
        from .loop.run import run
        from .report.shipped import reference

        if self.source == "run":
            numerics = Numerics(**self.numerics)
            plan, told = self.freeze(numerics, keywords.get("where"))
            # small notebooks share a store: what was there first says nothing of a study
            if told and self.scale != "smoke":
                log.warning("%s", plan)
            results = run(self.experiments, numerics=numerics, scale=self.scale, **keywords)
            results.plan, results.settings, results.study = plan, dict(self.settings), self.id
            return results
        if self.source == "reference":
            raise ValueError(
                "source 'reference' reads all that ships, which is not one study; give "
                "reference:NAME or run"
            )
        stored = reference(self.source.removeprefix("reference:"))
        wanted = {e.id for e in self.experiments}
        outcomes = [o for o in stored.outcomes if o.experiment.id in wanted]
        if len(outcomes) < len(wanted):
            settings = sorted(
                {
                    _in_words(o.experiment)
                    for o in stored.outcomes
                    if o.experiment.arm == "generated"
                }
            )
            raise ValueError(
                f"the reference results hold {len(outcomes)} of the {len(wanted)} experiments "
                f"asked for; they were made at: {'; '.join(settings)}"
            )
        asked = stored.plan is not None and stored.plan.asks(self.hypotheses())
        return Results(
            outcomes,
            note=stored.note,
            plan=stored.plan if asked else None,
            settings=self.settings,
            study=self.id,
        )

    @property
    def pilot(self) -> bool:
        """Whether its seeds are for trying out: they never count."""
        return self.base.seed >= PILOT

    def hypotheses(self) -> list[dict[str, Any]]:
        """What is asked of each variant that generates images and has the arms for it: does A lie
        beyond the margin? And of each with feedback beside the same under protocol `fresh`: does P?
        See `plans.hypothesis_of`."""
        from .data.real import dataset_of
        from .inference.contrasts import FEEDBACK
        from .inference.plans import hypothesis_of
        from .inference.verdicts import ABSOLUTE

        asked, of_feedback = [], []
        known = {base.id for base in self.variants.values()}
        for name, base in self.variants.items():
            if "generated" not in self._arms(base):
                continue
            usual = None if base.leans else ABSOLUTE
            by_content = base.dataset_entry.traits.get("by_content")
            data = dataset_of(base).checksum if by_content else ""
            generated = [e.id for e in self._seeds(base)]
            if "none" in self._arms(base):
                none = [e.to_arm("none").id for e in self._seeds(base)]
                asked.append(hypothesis_of(name, generated, none, self.margin or usual, data))
            without = base.without_feedback()
            if without != base and without.id in known:
                fresh = [e.id for e in self._seeds(without)]
                margin = self.margin or usual
                of_feedback.append(hypothesis_of(name, generated, fresh, margin, data, FEEDBACK))
        return asked + of_feedback

    def freeze(self, numerics: Any, where: str | Path | None = None) -> "tuple[Plan | None, bool]":
        """The plan of this study, frozen before its first fit; found again where it was frozen.

        numerics  of the experiments
        where     folder of the store; default as in loop.run
        returns   the plan, None for pilot seeds and where nothing is asked; and whether something
                  is to be told of it: it is new, and changed or late
        raises    CannotWrite, and what missing data raise
        """
        from .inference.plans import content_of, freeze
        from .loop.run import any_results, open_store

        hypotheses = self.hypotheses()
        if self.pilot or not hypotheses:
            return None, False
        store = open_store(where, numerics)
        seeds = [e.seed for e in self._seeds(self.base)]
        content = content_of(self.name, self.scale, numerics.name, seeds, hypotheses)
        generated = {e.id: e for base in self.variants.values() for e in self._seeds(base)}
        wanted = [generated[id] for asked in hypotheses for id in asked["experiments"]["generated"]]
        plan, new = freeze(store, content, lambda: any_results(wanted, store))
        store.close()
        return plan, new and (plan.late or bool(plan.replaced))

    def stored(self, name: str) -> Any:
        """What a notebook that only reads sums up (summary.Stored): all that ships with the package
        (source: reference), one study of it (reference:NAME), or, made on the spot, this study
        under a name (run)."""
        from .report.shipped import reference_parts
        from .report.summary import Stored, stored

        if self.source == "run":
            return Stored({name: self.split(self.run())})
        which = self.source.removeprefix("reference").removeprefix(":")
        return Stored({which: reference_parts(which)}) if which else stored()

    def split(self, results: Any) -> dict[str, Any]:
        """Results of each variant, by its name."""
        from .loop.results import Results

        parts = {}
        for name, experiments in self.by_variant().items():
            ids = {e.id for e in experiments}
            parts[name] = Results(
                [o for o in results.outcomes if o.experiment.id in ids],
                note=results.note,
                plan=results.plan,
                settings=results.settings,
                study=results.study,
            )
        return parts

    def table(self) -> Any:
        """The choices that are not defaults, and the experiments they make, as a small table."""
        import pandas as pd

        changed = {
            f.name: getattr(self.base, f.name)
            for f in fields(Experiment)
            if getattr(self.base, f.name) != f.default and getattr(self.base, f.name) != {}
        }
        rows = {
            **changed,
            **self._named(),
            "seeds": f"{self.base.seed} to {self.base.seed + self.n_seeds - 1}",
            "arms": ", ".join(dict.fromkeys(e.arm for e in self.experiments)),
            "experiments": len(self.experiments),
            "scale": self.scale,
            "precision": self.numerics["precision"],
        }
        return pd.DataFrame({"value": rows.values()}, index=pd.Index(rows, name="parameter"))

    def _named(self) -> dict[str, str]:
        return {f"variant {i}": name for i, name in enumerate(self.variants, 1) if name}


def _in_words(e: Experiment) -> str:
    """The setting of an experiment, for a sentence."""
    return (
        f"{e.data_name}, {e.start} start, bias {e.bias}, n_real {e.n_real}, generator "
        f"{e.generator}, ratio {e.ratio}, {e.protocol}"
    )


def study_from(parameters: Mapping[str, Any], elsewhere: bool = False) -> Study:
    """The study with these parameters: fields of Experiment and SETTINGS.

    elsewhere  other machines compute: the device need not be here
    imports    list of modules of the user's own, imported first
    variants   list of mappings: fields in which the variants differ, for example [{protocol:
               latest}, {protocol: fresh}]

    raises   ValueError   with one sentence: unknown name, wrong type, value out of range, unknown
                          arm, no such device
    """
    own = {f.name for f in fields(Experiment)}
    for name in parameters:
        if name not in own and name not in SETTINGS:
            raise ValueError(unknown("parameter", name, [*sorted(own), *SETTINGS]))
    s = {
        name: checked(name, parameters.get(name, default), type(default))
        for name, default in SETTINGS.items()
    }
    if not all(isinstance(module, str) for module in s["imports"]):
        raise ValueError(f"imports must be a list of modules; got {shown(s['imports'])}")
    import_own(s["imports"])
    for arm in s["arms"]:
        if arm not in ALL_ARMS:
            raise ValueError(unknown("arm", arm, ALL_ARMS, "in arms"))
    check_name("name", s["name"])
    if s["path_points"] < 1:
        raise ValueError(f"path_points must be at least 1; got {s['path_points']}")
    if s["n_seeds"] < 1 or not s["arms"]:
        raise ValueError(
            f"n_seeds must be at least 1 and arms not empty; got {s['n_seeds']} and {s['arms']}"
        )
    if not 0 <= s["margin"] < 1:
        raise ValueError(
            "margin must be a change of accuracy in (0, 1), or 0 for a quarter of the contrast "
            f"M(none); got {shown(s['margin'])}"
        )
    for name, most in MOST.items():
        if s[name] > most:
            raise ValueError(f"{name} must be at most {most:,}; got {shown(s[name])}")
    if s["source"] not in ("run", "reference") and not s["source"].startswith("reference:"):
        raise ValueError(
            "source must be 'run', 'reference:NAME' or, for all that ships, 'reference'; got "
            f"{shown(s['source'])}"
        )
    variants = _variants(
        {name: value for name, value in parameters.items() if name in own}, s["variants"]
    )
    first = next(iter(variants.values())).seed
    if first < PILOT < first + s["n_seeds"]:
        raise ValueError(
            f"seeds from {PILOT:,} on are pilot seeds, which never count; got {first} to "
            f"{first + s['n_seeds'] - 1}, some of each"
        )
    numerics = {name: s[name] for name in ("device", "precision", "threads")}
    if s["source"] == "run":
        from .core.numerics import Numerics

        # refuses a device that is not there
        _ = Numerics.elsewhere(**numerics) if elsewhere else Numerics(**numerics)
    # a notebook's cell says smoke, which photographs of the user's own never are
    scale = s["scale"]
    if scale == "smoke" and is_own(next(iter(variants.values()))):
        scale = SETTINGS["scale"]
    return Study(
        variants,
        s["n_seeds"],
        tuple(s["arms"]),
        scale,
        s["source"],
        numerics,
        path_points=s["path_points"],
        name=s["name"],
        margin=s["margin"],
        imports=tuple(s["imports"]),
    )


def is_own(e: Experiment) -> bool:
    """Whether its photographs are the user's: a folder that is no example of the package."""
    from .data.datasets.examples import EXAMPLES

    return bool(e.dataset_entry.traits.get("by_content")) and e.data_name not in EXAMPLES


def _variants(base: dict[str, Any], changes: list[Any]) -> dict[str, Experiment]:
    """Experiments by what differs between them, "start biased, bias 0.6"; the base alone has the
    empty name."""
    variants: dict[str, Experiment] = {}
    for change in changes:
        if not isinstance(change, dict) or not change:
            raise ValueError(
                f"a variant is a mapping of fields to values, such as {{ratio: 1.0}}; got "
                f"{shown(change)}"
            )
    for change in changes or [{}]:
        name = ", ".join(
            filter(None, (_difference(field, value, changes) for field, value in change.items()))
        )
        if name in variants:
            raise ValueError(f"the variant {name!r} is given twice")
        variants[name] = experiment_from({**base, **change})
    return variants


def _difference(field: str, value: Any, changes: list[dict[str, Any]]) -> str:
    """A field and its value in words; options are named by themselves, those that all variants
    share not at all."""
    if not isinstance(value, dict):
        return f"{field} {value}"
    choices = [change.get(field) for change in changes]
    shared = {
        k
        for k, v in value.items()
        if all(isinstance(options, dict) and options.get(k) == v for options in choices)
    }
    return ", ".join(f"{k} {v}" for k, v in value.items() if k not in shared or len(changes) == 1)
