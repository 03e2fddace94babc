"""The command `plan`: before a study is run, how many seeds, test images and classifiers per seed
show a change, and what they cost.

The variances are those of an earlier study, see `nearest`; the words are those of `verdicts`, their
power that of `power`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ..core.checks import listed, shown
from ..core.places import runs_folder
from ..experiment import Experiment
from ..inference.contrasts import contrast
from ..inference.power import Power, Spread, power, spread
from ..inference.verdicts import ABSOLUTE, QUARTER, SEEDS_FOR_VERDICT, has_bias, line_of
from ..loop.results import Outcome, Results
from ..parameters import read
from ..report.shipped import fields_of, reference, studies
from ..report.tables import finished
from ..study import Study, study_from
from .cost import Costs
from .sweep import duration, schedule_of

ENOUGH = 0.8  # power that a design should have
SEEDS = (6, 8, 10, 12, 16, 24)  # of the table
MOST = 100  # seeds that a design may have
IMAGES = (1, 2, 4)  # times the file's test images, as far as there are so many
CLASSIFIERS = (1, 3, 5)  # per seed, where it is known what they do
SEEDS_FOR_VARIANCE = 3
ARMS = ("generated", "none")  # of A, whose variance is wanted


# ---- The nearest results -------------------------------------------------------------------------


@dataclass(frozen=True)
class Pilot:
    """Results whose variances a plan takes.

    source    where they are from, in words
    results   of one setting, with the arms generated and none
    differs   fields in which they differ from the planned setting
    """

    source: str
    results: Results
    differs: tuple[str, ...]

    @property
    def experiment(self) -> Experiment:
        return self.results.of("generated")[0].experiment

    def __str__(self) -> str:
        e, n = self.experiment, len(self.results.of("generated"))
        n_real = "" if math.isnan(e.n_real) else f"n_real {e.n_real}, "  # of predictions: unknown
        size = (
            f"{n} seeds, {n_real}{e.n_test} test images, {e.n_classifiers} "
            f"classifier{'s' * (e.n_classifiers > 1)} per seed"
        )
        return f"{self.source} ({size}), " + (
            f"which differs in {listed(self.differs)}" if self.differs else "the same setting"
        )


def nearest(e: Experiment, pilot: str = "") -> Pilot:
    """The results nearest to a setting.

    They have its data set, start and classifier; of these the nearest n_real, then the nearest
    bias, then the fewest other fields that differ, then the most seeds.

    e        generated arm of the setting
    pilot    a study that ships, or a parameter file; then nothing must be alike but the data set
    raises   ValueError, FileNotFoundError   with one sentence if there are none
    """
    names = ("dataset",) if pilot else ("dataset", "start", "classifier")
    alike = {name: getattr(e, name) for name in names}
    found = [
        Pilot(source, results, _differing(e, results.of("generated")[0].experiment))
        for source, outcomes in _stored(alike, pilot)
        for results in _settings(outcomes)
    ]
    if not found:
        what = ", ".join(f"{name} {value}" for name, value in alike.items())
        raise ValueError(
            f"{pilot or 'nothing that is stored or ships'} has no results with {what}, the arms "
            f"generated and none and {SEEDS_FOR_VARIANCE} seeds to take variances from; run pilot "
            "seeds first, which never count: python -m biasstudy run FILE -p seed 1000"
        )

    def distance(candidate: Pilot) -> tuple[Any, ...]:
        other = candidate.experiment
        return (
            abs(math.log(other.n_real / e.n_real)),
            abs(other.bias - e.bias),
            len(candidate.differs),
            -len(candidate.results.of("generated")),
        )

    return min(found, key=distance)


def _stored(alike: dict[str, Any], pilot: str) -> Iterator[tuple[str, list[Outcome]]]:
    """What ships and what is in the store and has these fields, by its source in words: the arms
    that a variance is of."""

    def wanted(fields: dict[str, Any]) -> bool:
        return all(fields[name] == value for name, value in alike.items())

    named = [pilot] if pilot in studies() else studies()
    for study in named if pilot in ("", *named) else ():
        if any(map(wanted, fields_of(study))):
            held = [o for o in reference(study).outcomes if o.experiment.arm in ARMS]
            yield f"{study}, which ships", [o for o in held if wanted(o.experiment.fields())]
    if pilot in named:
        return
    ours = _of_file(pilot) if pilot else None

    def asked(e: Experiment) -> bool:
        return e.arm in ARMS and wanted(e.fields()) and (ours is None or _setting(e) in ours)

    outcomes = finished(runs_folder(), asked)
    yield f"{pilot or 'results'} in {runs_folder()}", list(outcomes)


def _of_file(pilot: str) -> list[dict[str, Any]]:
    """Settings of a parameter file, all of its arms."""
    if not Path(pilot).is_file():
        raise FileNotFoundError(
            f"--pilot {pilot} is no parameter file and no study that ships; these do: "
            f"{listed(studies())}"
        )
    return [_setting(e) for e in study_from(read(Path(pilot)).parameters).experiments]


def _setting(e: Experiment) -> dict[str, Any]:
    """All that tells an experiment but its seed."""
    return {name: value for name, value in e.fields().items() if name != "seed"}


def _settings(outcomes: Iterable[Outcome]) -> Iterator[Results]:
    """Generated outcomes of one setting and numerics, each with its arm none."""
    held = {(o.experiment.id, o.numerics): o for o in outcomes}
    groups: list[tuple[Any, list[Outcome]]] = []
    for (_, numerics), o in held.items():
        if o.experiment.arm != "generated":
            continue
        none = held.get((o.experiment.to_arm("none").id, numerics))
        if none is None:
            continue
        key = (numerics, _setting(o.experiment))
        group = next((group for known, group in groups if known == key), None)
        if group is None:
            groups.append((key, group := []))
        group += [o, none]
    for _, group in groups:
        if len(group) >= 2 * SEEDS_FOR_VARIANCE:
            yield Results(group)


def _differing(e: Experiment, other: Experiment) -> tuple[str, ...]:
    """Fields that differ, but for seeds and what a plan may choose."""
    free = {"seed", "n_test", "n_classifiers"}
    mine, theirs = e.fields(), other.fields()
    return tuple(name for name in mine if name not in free and mine[name] != theirs[name])


# ---- Designs -------------------------------------------------------------------------------------


class Design(NamedTuple):
    """What a study may choose."""

    seeds: int
    n_test: int
    classifiers: int

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.n_test} test images, {self.classifiers} "
            f"classifier{'s' * (self.classifiers > 1)} per seed"
        )


@dataclass(frozen=True)
class Question:
    """One hypothesis of a plan: its variances, M(none) and margin.

    margin   absolute, in accuracy; None: a quarter of M(none)
    """

    pilot: Pilot
    spread: Spread
    margin: float | None

    @property
    def bound(self) -> float:
        """The margin in accuracy."""
        return QUARTER * self.spread.level if self.margin is None else self.margin

    def power(self, design: Design, detect: float, family: int) -> Power:
        """Of `amplified` and "above 0" where A is `detect` above the margin, of `within` where it
        is 0."""
        e, level = self.pilot.experiment, self.spread.level
        # where it is not known what more classifiers do, they count as one: no power is promised
        more = 1.0 if np.isnan(self.spread.refits) else design.classifiers / e.n_classifiers
        per_seed, images = self.spread.at(design.n_test / e.n_test, more)
        there, still = (
            power(change, level, per_seed, images, design.seeds, self.margin, family)
            for change in (self.bound + detect, 0.0)
        )
        return replace(there, within=still.within)


@dataclass
class Powers:
    """Power of the words for designs.

    questions  hypotheses whose variances are known
    detect     how far A lies above the margin
    family     hypotheses that share the error rate
    """

    questions: list[Question]
    detect: float
    family: int

    def __post_init__(self) -> None:
        self._power: dict[Design, Power] = {}

    def power(self, design: Design) -> Power:
        """Of the hypothesis for which each is smallest."""
        if design not in self._power:
            all_of_them = [q.power(design, self.detect, self.family) for q in self.questions]
            self._power[design] = Power(
                *(
                    min(getattr(found, word) for found in all_of_them)
                    for word in ("amplified", "within", "above")
                )
            )
        return self._power[design]

    def fewest_seeds(self, n_test: int, classifiers: int, words: tuple[str, ...]) -> Design | None:
        """The design with the fewest seeds that reaches ENOUGH for all words; None: not with
        MOST."""

        def reaches(seeds: int) -> bool:
            found = self.power(Design(seeds, n_test, classifiers))
            return all(getattr(found, word) >= ENOUGH for word in words)

        low, high = SEEDS_FOR_VERDICT, MOST
        if not reaches(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle + 1, high)
        return Design(low, n_test, classifiers)


@dataclass
class Planner(Powers):
    """Power and cost of the designs of a study."""

    study: Study

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hours: dict[tuple[int, int], tuple[float, float]] = {}
        self._costs: Costs | None = None
        self.priced_from = ""

    def hours(self, design: Design) -> float:
        """Core hours of all its experiments, none of them being finished."""
        changes = design.n_test, design.classifiers
        if changes not in self._hours:
            self._hours[changes] = self._priced(*changes)
        once, per_seed = self._hours[changes]
        return once + design.seeds * per_seed

    def _priced(self, n_test: int, classifiers: int) -> tuple[float, float]:
        """Core hours of what all seeds share, and of each seed."""
        from ..core.numerics import Numerics

        numerics, where = Numerics(**self.study.numerics), runs_folder()
        two = replace(
            self.study,
            n_seeds=2,
            variants={
                name: replace(e, n_test=n_test, n_classifiers=classifiers)
                for name, e in self.study.variants.items()
            },
        )
        schedule = schedule_of(two, where, numerics)
        if self._costs is None:  # designs have the same kinds of stages: measured once
            self._costs, self.priced_from = schedule.costs(numerics, where, set(schedule.pieces))
        both, one = (
            self._costs.of(
                schedule.pieces[id].recipe
                for id in set().union(
                    *(
                        job.rests_on
                        for job in schedule.jobs.values()
                        if job.experiment.seed in seeds
                    )
                )
            )
            for seeds in ((self.study.base.seed, self.study.base.seed + 1), (self.study.base.seed,))
        )
        return (2 * one - both) / 3600, (both - one) / 3600

    def cheapest(self, sizes: list[tuple[int, int]], words: tuple[str, ...]) -> Design | None:
        """The cheapest design that reaches ENOUGH for all words; among equals the one with fewer
        seeds."""
        designs = [self.fewest_seeds(*size, words) for size in sizes]
        return min(
            (d for d in designs if d), key=lambda d: (round(self.hours(d), 3), d), default=None
        )


# ---- The command ---------------------------------------------------------------------------------


def plan_lines(study: Study, detect: float, margin: str = "", pilot: str = "") -> Iterator[str]:
    """What the command prints.

    detect   how far above the margin the true A is, in accuracy
    margin   "quarter", a number, or "" for the study's
    pilot    see `nearest`
    raises   ValueError, FileNotFoundError   with one sentence
    """
    check_detect(detect)
    if study.source != "run":
        raise ValueError(f"a plan is for a study that is run; source is {shown(study.source)}")
    hypotheses = study.hypotheses()
    asked = [h["variant"] for h in hypotheses if h["contrast"] == "A"]
    if not asked:
        raise ValueError(
            "nothing is asked: a plan needs the arms generated and none, and a ratio above 0"
        )
    questions: list[Question] = []
    for name in asked:
        e = study.variants[name]
        question = _question(nearest(e, pilot), _margin(margin, study, e), name)
        if not any(_same(question, known) for known in questions):
            questions.append(question)
            yield from _told(question, name)
    planner = Planner(questions, detect, len(hypotheses), study)
    sizes = _sizes(study, questions)
    within = _within(questions)
    yield _asked(planner, within)
    seeds = sorted({*SEEDS, max(study.n_seeds, SEEDS_FOR_VERDICT)})
    yield _table(planner, sizes, seeds, within)
    yield f"core hours: from {planner.priced_from}"
    for words, what in (
        (("amplified", "within"), f"`amplified` and `{within}`"),
        (("amplified",), "`amplified` alone"),
    ):
        design = planner.cheapest(sizes, words)
        yield f"cheapest for {what}: " + (
            f"{design}: {duration(3600 * planner.hours(design))} of one core"
            if design
            else f"none with up to {MOST} seeds and {max(n for n, _ in sizes)} test images reaches "
            f"{ENOUGH:.0%}"
        )


def power_lines(parts: Mapping[str, Results], detect: float) -> Iterator[str]:
    """What `score --detect` prints: the power of designs like that of these predictions. What they
    would cost is not known.

    parts    predictions of each setting, by its name
    raises   ValueError   with one sentence
    """
    check_detect(detect)
    questions = []
    for name, results in parts.items():
        if np.isnan(contrast(results, "A").mean):
            yield line_of(name, "no power: nothing is contrasted, see the answer")
            continue
        pilot = Pilot("these predictions", results, ())
        margin = None if has_bias(results.of("generated")[0]) else ABSOLUTE
        try:
            questions.append(_question(pilot, margin, name, otherwise=""))
        except ValueError as error:
            raise ValueError(f"--detect: {line_of(name, str(error))}") from error
        yield from _told(questions[-1], name)
    if not questions:
        return
    powers, within = Powers(questions, detect, len(questions)), _within(questions)
    e = questions[0].pilot.experiment
    numbers = [times * e.n_test for times in IMAGES]
    sizes = [(n, k) for k in _classifiers(questions, e.n_classifiers) for n in numbers]
    yield _asked(powers, within)
    yield _table(powers, sizes, list(SEEDS), within)
    for words in (("amplified", "within"), ("amplified",)):
        design = powers.fewest_seeds(e.n_test, e.n_classifiers, words)
        names = " and ".join(f"`{within if word == 'within' else word}`" for word in words)
        yield f"fewest seeds for {names}: " + (
            str(design) if design else f"none with up to {MOST} seeds reaches {ENOUGH:.0%}"
        )


def check_detect(detect: float) -> None:
    """ValueError if a change is no change of accuracy."""
    if not 0 < detect < 1:
        raise ValueError(f"--detect must be a change of accuracy in (0, 1); got {detect:g}")


def _asked(powers: Powers, within: str) -> str:
    """What the table tells."""
    several = powers.family > 1
    return (
        f"Power of `amplified` where A is {powers.detect:g} above the margin, and of `{within}` "
        f"where A is 0; {powers.family} hypothes{'es' if several else 'is'} in the family"
        f"{', the least certain one counts' * several}:"
    )


def _margin(margin: str, study: Study, e: Experiment) -> float | None:
    """The margin of a hypothesis; None: a quarter of M(none)."""
    if not margin:
        return study.margin or (None if e.leans else ABSOLUTE)
    if margin == "quarter":
        if e.leans:
            return None
        raise ValueError(
            "--margin quarter is a quarter of the contrast that a biased start makes, and this "
            f"start is {e.start}; give a number such as {ABSOLUTE:g}"
        )
    try:
        number = float(margin)
    except ValueError:
        number = float("nan")
    if not 0 < number < 1:
        raise ValueError(f"--margin must be quarter or a number in (0, 1); got {shown(margin)}")
    return number


def _question(
    pilot: Pilot,
    margin: float | None,
    name: str,
    otherwise: str = f"; give --margin NUMBER, such as {ABSOLUTE:g}",
) -> Question:
    """otherwise   what the user can do where there is no contrast"""
    found = spread(pilot.results)
    if margin is None and found.level <= 0:
        raise ValueError(
            f"{f'{name}: ' if name else ''}M(none) is {found.level:+.3f} in {pilot}: there is no "
            f"contrast to take a quarter of{otherwise}"
        )
    return Question(pilot, found, margin)


def _same(one: Question, other: Question) -> bool:
    return one.margin == other.margin and one.pilot.experiment == other.pilot.experiment


def _told(question: Question, name: str) -> Iterator[str]:
    """Where variances are from, and what they are."""
    found, share = question.spread, "a quarter" if question.margin is None else "absolute"
    low, high = np.sqrt((found.n - 1) / stats.chi2.ppf([0.975, 0.025], found.n - 1))
    yield f"{f'{name}: ' if name else ''}variances from {question.pilot}"
    per_seed, images = found.at()
    yield (
        f"  M(none) {found.level:.3f}, margin {question.bound:.3f} ({share}); standard deviation "
        f"of A {math.sqrt(per_seed[0, 0]):.4f} between seeds (which {found.n} seeds tell to a "
        f"factor of {low:.1f} to {high:.1f}), {math.sqrt(images[0, 0]):.4f} for new test images"
    )
    if np.isnan(found.refits):
        yield "  one classifier per seed: what more of them would do is not known, so not counted"
    else:
        yield f"  refits of the classifiers make {found.refits:.0%} of the variance between seeds"


def _within(questions: list[Question]) -> str:
    margins = {question.margin for question in questions}
    if margins == {None}:
        return "within a quarter"
    return f"within {margins.pop():g}" if len(margins) == 1 else "within the margin"


def _sizes(study: Study, questions: list[Question]) -> list[tuple[int, int]]:
    """Test images and classifiers per seed that designs may have."""
    from ..data.real import real_data

    n_test, own = study.base.n_test, study.base.n_classifiers
    numbers = []
    for times in IMAGES:
        try:
            for e in study.variants.values():
                real_data(replace(e, n_test=times * n_test))
        except ValueError:
            if times == 1:
                raise
            continue  # the data set has not so many
        numbers.append(times * n_test)
    return [(n, k) for k in _classifiers(questions, own) for n in numbers]


def _classifiers(questions: list[Question], own: int) -> list[int]:
    """Classifiers per seed that designs may have: others than their own where it is known what they
    do."""
    known = not any(np.isnan(question.spread.refits) for question in questions)
    return sorted({*CLASSIFIERS, own}) if known else [own]


def _table(powers: Powers, sizes: list[tuple[int, int]], seeds: list[int], within: str) -> str:
    """Power of both words by design, and what it costs where that is known, as text."""
    import pandas as pd

    numbers = sorted({n for n, _ in sizes})
    rows = []
    for k in sorted({k for _, k in sizes}):
        for n_seeds in seeds:
            row: dict[str, Any] = {"seeds": n_seeds, "classifiers": k}
            for n in numbers:
                found = powers.power(Design(n_seeds, n, k))
                row[f"{n} test images"] = f"{found.amplified:.2f} | {found.within:.2f}"
            if isinstance(powers, Planner):
                row["core hours"] = f"{powers.hours(Design(n_seeds, numbers[0], k)):.2f}"
            rows.append(row)
    return pd.DataFrame(rows).to_string(index=False) + f"\n(`amplified` | `{within}`)"
