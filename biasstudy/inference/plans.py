"""What a study will ask, written down before it is run.

A plan holds hypotheses, their margins, the family that Holm's correction goes over, the metric, the
seeds and the ids of the experiments that hypotheses rest on. Its name is the sha256 of all that, so
a changed plan is another plan. What rests on a plan that is older than its results is
*confirmatory*; everything else is *exploratory*: results without a plan, pilot seeds, and a plan
made when results were there.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..core.places import CannotWrite
from ..core.provenance import environment
from ..core.seeds import digest
from ..core.store import Workshop, stored_plans
from .contrasts import FEEDBACK, HEADLINE

log = logging.getLogger("biasstudy")

CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"


@dataclass(frozen=True)
class Plan:
    """A plan as it was frozen.

    content    what is hashed, see `content_of`
    frozen     time, UTC, to the second
    late       it was made after the first results
    replaced   what it changes in the plan of this study, scale and data before it; empty: there was
               none
    made_with  versions, commit and processor
    """

    content: Mapping[str, Any]
    frozen: str
    late: bool
    replaced: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON of the content."""
        return digest(self.content, 64)

    @property
    def family(self) -> tuple[str, ...]:
        """Names of the hypotheses that share one error rate: their variants, and the contrast where
        it is not A."""
        return tuple(self.content["family"])

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.content["seeds"])

    @property
    def confirmatory(self) -> bool:
        return not self.late

    @property
    def status(self) -> str:
        """CONFIRMATORY or EXPLORATORY."""
        return CONFIRMATORY if self.confirmatory else EXPLORATORY

    def asked_of(self, experiment: str, contrast: str = "A") -> Mapping[str, Any] | None:
        """The hypothesis about a contrast of an experiment of the arm generated, by its id; None if
        there is none."""
        for hypothesis in self.content["hypotheses"]:
            of_it = experiment in hypothesis["experiments"]["generated"]
            if of_it and hypothesis["contrast"] == contrast:
                return hypothesis
        return None

    def asks(self, hypotheses: Iterable[Mapping[str, Any]]) -> bool:
        """Whether all these are hypotheses of the plan, with the same experiments and margins."""
        return all(hypothesis in self.content["hypotheses"] for hypothesis in hypotheses)

    def record(self) -> dict[str, Any]:
        """JSON that is kept of it."""
        return {
            "hash": self.hash,
            "plan": dict(self.content),
            "frozen": self.frozen,
            "late": self.late,
            "replaced": self.replaced,
            "made_with": dict(self.made_with),
        }

    def __str__(self) -> str:
        n = len(self.family)
        when = datetime.fromisoformat(self.frozen).strftime("%Y-%m-%d %H:%M UTC")
        order = "after the first results" if self.late else "before the first result"
        text = (
            f"plan {self.hash[:8]}: {n} hypothes{'es' if n > 1 else 'is'}, "
            f"margin {_margins(self.content)}, seeds {_seeds(self.content)}, frozen {when}, "
            f"{order}: {self.status}"
        )
        return text + (f"; {self.replaced}" if self.replaced else "")


def plan_from(record: Any) -> Plan:
    """The plan that a record tells of.

    raises   ValueError   if it is no record of a plan, or does not have its hash
    """
    try:
        plan = Plan(
            record["plan"],
            str(record["frozen"]),
            bool(record["late"]),
            str(record["replaced"]),
            record["made_with"],
        )
        whole = plan.hash == record["hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is no record of a plan: {error!r}") from error
    if not whole:
        raise ValueError("the plan is not the one that its hash names")
    return plan


# ---- Freezing ------------------------------------------------------------------------------------


def hypothesis_of(
    variant: str,
    generated: Iterable[str],
    others: Iterable[str],
    margin: float | None,
    data: str = "",
    contrast: str = "A",
) -> dict[str, Any]:
    """The hypothesis that a contrast of a variant lies beyond its margin, as JSON.

    generated  ids of the experiments of the arm generated, by seed
    others     ids of those that they are compared with: of the contrast A the arm none, of P the
               arm generated under protocol `fresh`
    margin     in accuracy; None: a quarter of M of the others
    data       checksum of files of the user's own, of which no id tells what they hold
    """
    experiments = {"generated": list(generated), _OTHERS[contrast]: list(others)}
    asked = {"variant": variant, "contrast": contrast, "margin": margin, "experiments": experiments}
    return asked | ({"data": data} if data else {})


_OTHERS = {"A": "none", FEEDBACK: "fresh"}


def content_of(
    study: str, scale: str, numerics: str, seeds: Iterable[int], hypotheses: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is hashed of a plan."""
    return {
        "study": study,
        "scale": scale,
        "numerics": numerics,
        "metric": HEADLINE,
        "seeds": list(seeds),
        "hypotheses": hypotheses,
        "family": [
            hypothesis["variant"]
            if hypothesis["contrast"] == "A"
            else f"{hypothesis['variant']}: {hypothesis['contrast']}"
            for hypothesis in hypotheses
        ],
    }


def freeze(
    store: Workshop, content: Mapping[str, Any], late: Callable[[], bool]
) -> tuple[Plan, bool]:
    """The plan of this content: as it was frozen earlier in this store, else frozen now.

    late     whether results are there already; asked for a new plan alone
    returns  the plan, and whether it is new
    raises   CannotWrite   if a plan without results cannot be kept
    """
    earlier = _earlier(store, content["study"])
    for plan in earlier:
        if plan.hash == digest(content, 64):
            return plan, False
    before = [plan for plan in earlier if _about(plan.content) == _about(content)]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    replaced = _changed(before[-1], content) if before else ""
    plan = Plan(content, now, late(), replaced, environment())
    try:
        kept = store.save_plan(content["study"], plan.hash, plan.record())
    except CannotWrite as error:
        if not plan.late:
            raise
        log.warning("the plan is not kept: %s", error)
        return plan, True
    return plan_from(kept), True


def _earlier(store: Workshop, study: str) -> list[Plan]:
    """Frozen plans of a study, by time; damaged ones are told and left out."""
    plans = []
    for file, record in stored_plans(store.root, study):
        try:
            plans.append(plan_from(record))
        except ValueError as error:
            log.warning("%s is left out: %s", file, error)
    return sorted(plans, key=lambda plan: plan.frozen)


def _about(content: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """What a plan may replace: one of the same scale and the same photographs of the user's own."""
    return content["scale"], frozenset(h.get("data", "") for h in content["hypotheses"])


def _changed(before: Plan, content: Mapping[str, Any]) -> str:
    """What differs from an earlier plan, in words."""
    changes = [
        f"{name} {new}, was {old}"
        for name, old, new in (
            ("seeds", _seeds(before.content), _seeds(content)),
            ("margin", _margins(before.content), _margins(content)),
            ("numerics", before.content["numerics"], content["numerics"]),
            ("metric", before.content["metric"], content["metric"]),
            ("variants", _variants(before.content), _variants(content)),
        )
        if old != new
    ]
    return f"it replaces plan {before.hash[:8]}: {', '.join(changes) or 'another setting'}"


def _seeds(content: Mapping[str, Any]) -> str:
    return f"{content['seeds'][0]} to {content['seeds'][-1]}"


def _margins(content: Mapping[str, Any]) -> str:
    margins = dict.fromkeys(h["margin"] for h in content["hypotheses"])
    return " and ".join("a quarter of M(none)" if m is None else f"{m:g}" for m in margins)


def _variants(content: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in content["family"])
