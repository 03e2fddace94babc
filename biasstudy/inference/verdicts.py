"""Is it amplified? A verdict in words.

The words rest on a *margin* that is fixed before the study: a quarter of M(none), the contrast that
is there when nothing is generated; where there is no contrast to grow, an absolute number. With A
the change of the contrast:

    amplified        A - margin is above 0
    reduced          A + margin is below 0
    within a quarter A - margin is below 0 and A + margin above 0
    cannot tell      none of these is shown

A - M(none)/4 is linear in the test images, so the interval of all other estimates serves. As seeds
are added, words only leave `cannot tell`. That A is above or below 0 is a clause beside the word.
Holm's correction goes over the hypotheses of a plan. With fewer than six seeds there is no word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..measures import LEVEL
from .contrasts import CONTRASTS, FEEDBACK, all_contrasts, arms_of, check_pairs, combined
from .excess import all_excesses, beyond
from .gate import gate
from .intervals import Estimate, holm
from .plans import EXPLORATORY

QUARTER = 0.25  # margin of a contrast that is there, as a share of it
ABSOLUTE = 0.02  # margin where there is none, in accuracy
SEEDS_FOR_VERDICT = 6

AMPLIFIED = "amplified"
REDUCED = "reduced"
WITHIN = "within the margin"
CANNOT_TELL = "cannot tell"
WORSE = "no verdict where favoured groups are served worse"
TOO_FEW_SEEDS = f"no verdict with fewer than {SEEDS_FOR_VERDICT} seeds"
MORE_THAN_REAL = "more than with new real images"
DRAWS = {  # what seeds have in common, the most first: see `RealData.draws`
    "unknown": "that may share training images",
    "shared": "drawn from the same photographs",
    "disjoint starts, shared reserves": "of starts that no other seed has, reserves shared",
    "disjoint": "of photographs that no other seed has",
}
WORDS = (AMPLIFIED, REDUCED, WITHIN, CANNOT_TELL, WORSE, TOO_FEW_SEEDS)


# ---- A change and its margin ---------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A change of the contrast, against its margin.

    a         A = M(generated) - M(none)
    level     M(none)
    above     A - margin
    below     A + margin
    relative  whether the margin is a quarter of M(none)
    margin    the margin itself, in accuracy
    """

    a: Estimate
    level: Estimate
    above: Estimate
    below: Estimate
    relative: bool
    margin: float

    @property
    def served_worse(self) -> bool:
        """Whether the margin is a quarter of a contrast that is shown to be below 0: then there is
        no bias for the favoured groups that could grow."""
        return self.relative and self.level.high < 0

    @property
    def p_changed(self) -> float:
        """Two-sided p-value of a change beyond the margin: the smaller of `amplified` and
        `reduced`.

        A relative margin asks that there is a contrast, M(none) > 0, as well (intersection-union).
        """
        if self.a.n < 2 or np.isnan(self.a.mean):
            return float("nan")
        there = p_above(self.level) if self.relative else 0.0
        return 2 * max(there, min(p_above(self.above), p_above(self.below, up=False)))

    @property
    def p_within(self) -> float:
        """p-value of a change that stays within the margin on both sides (two one-sided tests)."""
        if self.a.n < 2 or np.isnan(self.a.mean):
            return float("nan")
        return max(p_above(self.above, up=False), p_above(self.below))


def has_bias(o: Any) -> bool:
    """Whether the start of an outcome has a bias that could be amplified; one whose strength is not
    known, nan, has."""
    return o.biased and o.experiment.leans


def p_above(e: Estimate, up: bool = True) -> float:
    """One-sided p-value of an estimate not above 0 (below 0: up=False); nan of one that is nan, 1
    of one without spread."""
    if np.isnan(e.mean):
        return float("nan")
    t = e.mean if up else -e.mean
    return float(stats.t.sf(t / e.se, e.df)) if e.se > 0 else 1.0


def change_between(
    generated: list[Any], none: list[Any], margin: float | None = None, generation: int = -1
) -> Change:
    """The change from one list of outcomes to another, paired by seed, with its margin.

    margin   in accuracy; None: a quarter of M(none) if there is a bias to amplify, else ABSOLUTE
    raises   ValueError   if they cannot be paired, see `contrasts.check_pairs`
    """
    check_pairs(generated, none, "a change needs two lists of outcomes")
    arms = {"generated": generated, "none": none}
    level = combined(arms, {"none": 1}, generation)
    a = combined(arms, {"generated": 1, "none": -1}, generation)
    relative = margin is None and has_bias(generated[0])
    if relative:
        return Change(
            a,
            level,
            above=combined(arms, {"generated": 1, "none": -1 - QUARTER}, generation),
            below=combined(arms, {"generated": 1, "none": -1 + QUARTER}, generation),
            relative=True,
            margin=QUARTER * level.mean,
        )
    margin = ABSOLUTE if margin is None else margin
    return Change(a, level, a.shifted(-margin), a.shifted(margin), False, margin)


def change(results: Any, margin: float | None = None, generation: int = -1) -> Change:
    """The change A of one setting, with its margin; ValueError if an arm or a seed is missing."""
    return change_between(*arms_of(results, "A"), margin, generation)


# ---- The verdict ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What may be said of a change.

    word        one of WORDS
    clause      "above 0" or "below 0" where A is shown to differ from 0, else empty
    margin      in words: "a quarter", or the absolute one
    detectable  smallest change of A found with 80 % power; nan with fewer than two seeds or no
                spread
    """

    word: str
    clause: str
    margin: str
    detectable: float

    def __str__(self) -> str:
        word = f"within {self.margin}" if self.word == WITHIN else self.word
        if self.word in (WITHIN, CANNOT_TELL) and self.clause:
            return f"{word}, {self.clause}"
        return word


@dataclass(frozen=True)
class Corrected:
    """p-values of one hypothesis after Holm's correction over its family: that A is not 0, that it
    is beyond the margin, that it is within the margin."""

    differs: float
    changed: float
    within: float


def corrected(changes: Sequence[Change | None], family: int = 0) -> list[Corrected]:
    """p-values after Holm's correction over those changes that have a contrast and seeds enough for
    a verdict; nan for the others.

    family   hypotheses that were planned together; of those that are not among the changes nothing
             is taken to be shown, so that a part of a family is told no more than the whole allows
    """
    judged = [bool(c and c.a.n >= SEEDS_FOR_VERDICT and not np.isnan(c.a.mean)) for c in changes]
    absent = [1.0] * (family - sum(judged))

    def adjusted(p_of: Any) -> np.ndarray:
        known = [p_of(c) if has else np.nan for c, has in zip(changes, judged, strict=True)]
        return holm([*known, *absent])[: len(known)]

    differs = adjusted(lambda c: c.a.p)
    changed = adjusted(lambda c: c.p_changed)
    within = adjusted(lambda c: c.p_within)
    return [Corrected(*map(float, p)) for p in zip(differs, changed, within, strict=True)]


def verdict(c: Change, p: Corrected | None = None) -> Verdict:
    """What may be said of a change.

    p   after Holm's correction over the family; default: this is its only hypothesis
    """
    margin = "a quarter" if c.relative else f"{c.margin:g}"
    if c.a.n < SEEDS_FOR_VERDICT:
        return Verdict(TOO_FEW_SEEDS, "", margin, c.a.detectable)
    if c.served_worse:
        return Verdict(WORSE, "", margin, c.a.detectable)
    p = p or corrected([c])[0]
    alpha = 1 - LEVEL
    word = CANNOT_TELL
    if p.changed < alpha:
        word = AMPLIFIED if c.above.mean > 0 else REDUCED
    elif p.within < alpha:
        word = WITHIN
    clause = ""
    if p.differs < alpha:
        clause = "above 0" if c.a.mean > 0 else "below 0"
    return Verdict(word, clause, margin, c.a.detectable)


def beside_real(word: str, r: Estimate | None) -> str:
    """Whether generated images change the contrast more than as many new real ones, in words: R,
    the change against these, is on the same side of 0. New real images bring new information as
    well, so this does not say that being generated is the cause.

    returns  empty where nothing changed or the arm `real` was not run
    """
    if word not in (AMPLIFIED, REDUCED) or r is None:
        return ""
    if (r.low > 0) if word == AMPLIFIED else (r.high < 0):
        return MORE_THAN_REAL
    side = "above" if word == AMPLIFIED else "below"
    return f"not shown to be {MORE_THAN_REAL}: R is not {side} 0"


# ---- What was planned ----------------------------------------------------------------------------


def _hypothesis(results: Any, contrast: str = "A") -> Mapping[str, Any] | None:
    """What the plan of some results asks about a contrast of their setting; None if it does not, or
    there is no plan."""
    if not results.plan or not results.of("generated"):
        return None
    return results.plan.asked_of(results.of("generated")[0].experiment.id, contrast)


def family_of(results: Any) -> int:
    """Hypotheses that share the error rate of these results by plan; 0 where none asks."""
    return len(results.plan.family) if _hypothesis(results) else 0


def margin_of(results: Any) -> float | None:
    """Margin of a setting as its plan fixed it, in accuracy; None: a quarter of M(none), or
    ABSOLUTE where there is no bias to amplify, see `change_between`."""
    hypothesis = _hypothesis(results)
    return hypothesis["margin"] if hypothesis else None


def status_of(results: Any) -> str:
    """CONFIRMATORY if a plan that asks about this setting was frozen before its first result, else
    EXPLORATORY."""
    return results.plan.status if _hypothesis(results) else EXPLORATORY


def corrected_changes(parts: Mapping[str, Any]) -> dict[str, tuple[Change, Corrected]]:
    """The change of each of several results that has one, against the margin of its plan, with
    Holm's correction over all of them and over what else was planned with them.

    parts    name -> Results of one setting
    returns  name -> change, p-values
    """
    asked = {name: r for name, r in parts.items() if r.of("generated") and r.of("none")}
    changes = {name: change(results, margin_of(results)) for name, results in asked.items()}
    family = max(map(family_of, asked.values()), default=0)
    p_values = corrected(list(changes.values()), family)
    return dict(zip(changes, zip(changes.values(), p_values, strict=True), strict=True))


# ---- Feedback ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Feedback:
    """What the feedback of a variant does: P = M(performative) - M(fresh), in one arm.

    change     P, against a quarter of M(fresh) or the margin of the plan
    corrected  p-values after Holm's correction
    status     CONFIRMATORY where a plan asked about it beforehand, else EXPLORATORY; empty at smoke
               scale, where nothing is planned
    """

    variant: str
    arm: str
    change: Change
    corrected: Corrected
    status: str

    def __str__(self) -> str:
        c, judged = self.change, verdict(self.change, self.corrected)
        against = f"a quarter of M(fresh) is {c.margin:.3f}" if c.relative else "an absolute margin"
        return (
            f"{self.variant}, arm {self.arm}: {', '.join(filter(None, [str(judged), self.status]))}"
            f". {FEEDBACK} = performative - fresh = {in_words(c.a)}, {against}; n = {c.a.n} "
            f"seed{'s' * (c.a.n != 1)}"
        )


def feedback(parts: Mapping[str, Any]) -> list[Feedback]:
    """What feedback does in each variant that has it, in the arms generated and real, beside the
    same variant under protocol `fresh`: equal numbers of real and generated images, other groups.

    Only the arm generated is ever planned; all that are here share one error rate.

    parts    name -> Results of one setting
    returns  none for a variant whose partner is not among the parts
    """
    found: list[tuple[str, str, Change, str]] = []
    family = 0
    for arm in ("generated", "real"):
        by_id = {r.of(arm)[0].experiment.id: r.of(arm) for r in parts.values() if r.of(arm)}
        for name, results in parts.items():
            outcomes = results.of(arm)
            if not outcomes:
                continue
            e = outcomes[0].experiment
            without = e.without_feedback()
            if without == e or without.id not in by_id:
                continue
            asked = _hypothesis(results, FEEDBACK)
            margin = asked["margin"] if asked else None
            status = EXPLORATORY
            if outcomes[0].scale == "smoke":
                status = ""
            elif asked and arm == "generated":
                status = results.plan.status
            family = max(family, len(results.plan.family) if asked else 0)
            moved = change_between(outcomes, by_id[without.id], margin)
            found.append((name, arm, moved, status))
    p_values = corrected([moved for _, _, moved, _ in found], family)
    return [
        Feedback(name, arm, moved, p, status)
        for (name, arm, moved, status), p in zip(found, p_values, strict=True)
    ]


# ---- Sentences -----------------------------------------------------------------------------------


def sentence(results: Any, p: Corrected | None = None) -> str:
    """The answer of a study in two sentences: the verdict on A, whether it was planned, and whether
    the generators deserve one; then what it rests on, with S, R, F and the excess where those arms
    were run.

    p   after Holm's correction over the family; default: nothing is known of the others in the
        family of its plan, if it has one
    """
    estimates = all_contrasts(results)
    if "A" not in estimates:
        return "No answer: the arms generated and none are needed."
    first, a = results.of("generated")[0], estimates["A"]
    if np.isnan(a.mean) and first.design == "grouped":
        return (
            "No answer: each class belongs to one group, so no class has groups to compare; other "
            "metrics compare groups over classes."
        )
    if np.isnan(a.mean):
        return "No answer: with one seed nothing ranks the groups of an unbiased start."
    e, c = first.experiment, change(results, margin_of(results))
    judged = verdict(c, p or corrected([c], family_of(results))[0])
    what = "favoured minus other cells" if first.biased else "top minus bottom groups"
    where = f"{e.data_name}, {e.start} start, generation {e.n_generations}, accuracy of {what}"
    than_real = beside_real(judged.word, estimates.get("R"))
    against = f"a quarter of M(none) is {c.margin:.3f}" if c.relative else "the margin is absolute"
    if judged.word == WORSE:
        against = (
            f"M(none) = {in_words(c.level)}: to ask about the groups that are served better, name "
            "them with favoured"
        )
    power = (
        f", smallest change detectable with 80 % power {a.detectable:.3f}"
        if judged.word == CANNOT_TELL and not np.isnan(a.detectable)
        else ""
    )
    facts = [f"A = generated - none = {in_words(a)}, {against}{power}"]
    facts += [
        f"{name} = generated - {CONTRASTS[name][1]} = {in_words(d)}"
        for name, d in estimates.items()
        if name != "A"
    ]
    excesses = all_excesses(results) if a.n > 1 else {}
    for path, over in excesses.items():
        facts.append(
            f"E over {path} = {in_words(over.estimate)}"
            if over.reached
            else f"accuracy {over.accuracy:.3f} lies below the path {path}, which ends at "
            f"{over.reach:.3f}"
        )
    if excesses and judged.word == AMPLIFIED:
        facts.append(beyond(excesses))
    draws = min((o.draws for o in results.outcomes), key=list(DRAWS).index)
    n = f"n = {a.n} seeds {DRAWS[draws]}" if a.n > 1 else "n = 1 seed"
    # at smoke scale nothing is planned, and nothing is said that depends on what was run before
    status = status_of(results) if first.scale != "smoke" and judged.word != TOO_FEW_SEEDS else ""
    judged_gate = gate(results)
    fitness = str(judged_gate) if judged_gate else ""
    answer = ", ".join(filter(None, [str(judged), than_real, status, fitness]))
    return f"{where}: {answer}. {'; '.join(facts)}; {n}."


def in_words(e: Estimate) -> str:
    """An estimate and its interval, as all texts write it."""
    if np.isnan(e.low):
        return f"{e.mean:+.3f} ({'one seed' if e.n == 1 else 'no spread'}: no interval)"
    return with_interval(e.mean, e.low, e.high)


def with_interval(mean: float, low: float, high: float, digits: int = 3) -> str:
    """A number and its interval, which is nan where there is none."""
    if np.isnan(low):
        return f"{mean:+.{digits}f} (no interval)"
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def sentences(parts: Mapping[str, Any]) -> list[str]:
    """The answer of each of several results, by name, with Holm's correction over all of them that
    have a verdict, see `corrected_changes`."""
    told = corrected_changes(parts)
    return [
        line_of(name, sentence(results, told[name][1] if name in told else None))
        for name, results in parts.items()
    ]


def line_of(name: str, text: str) -> str:
    """A sentence with the name of its variant before it, if that has one."""
    return f"{name}: {text}" if name else text
