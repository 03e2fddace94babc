"""Run the experiments of a schedule by an engine until all are finished or have failed.

Workers get experiments that have no unfinished stage in common where there are any (a lock in the
store does the rest), and weights and batches are deleted when no unfinished experiment rests on
them. A process that dies is replaced, and its experiment goes on from its last stage.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

from ..core.places import CannotWrite, runs_folder
from ..experiment import Experiment
from ..study import Study
from .cost import Costs, Recipe, stored_costs
from .engine import Here, task_of
from .sweep import Job, Schedule, duration, schedule_of

FIRST = 20.0  # seconds
LAST = 5  # stages of a recipe whose mean is what one costs now
# pricing all stages anew takes one part in so many of the time, at most
RARELY = 50
UNTIMED = 1e-3  # seconds that a stage counts which was never timed
# times that a process may end in an experiment, with no stage or checkpoint finished in between
DEATHS = 3


@dataclass
class SweepReport:
    """What became of a sweep. `failed`: id -> its last lines; `computed`: stages; `seconds` since
    the first task."""

    finished: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)
    died: int = 0
    computed: int = 0
    stage_seconds: float = 0.0
    seconds: float = 0.0


def sweep_text(report: SweepReport, schedule: Schedule, workers: int) -> str:
    """What became of a sweep, in words; failed experiments with their last lines."""
    if not report.finished and not report.failed:
        return f"all {len(schedule.jobs)} experiments are finished"
    n, beside = report.finished, workers * report.seconds - report.stage_seconds
    lines = [
        f"{n} experiments finished in {duration(report.seconds)} with {workers} "
        f"worker{'s' * (workers > 1)} ({n / report.seconds * 3600:.0f} per hour); "
        f"{report.computed} stages took {duration(report.stage_seconds)}, all else "
        f"{beside / max(1, n):.2f} s per experiment; {report.died} times a process died and was "
        "replaced"
    ]
    for id, last in report.failed.items():
        e = schedule.jobs[id].experiment
        lines += [
            f"failed: {id} (arm {e.arm}, seed {e.seed}, {e.start} start, {e.generator}, ratio "
            f"{e.ratio}, {e.protocol})"
        ]
        lines += [f"    {line}" for line in last]
    if report.failed:
        lines += [f"{len(report.failed)} failed; run the same command again to try them again"]
    return "\n".join(lines)


class Farm:
    """The experiments of a schedule, given to an engine until all are finished or have failed.

    engine  `slots` tasks at a time; submit(task) -> Future, see `engine`
    task    experiment -> task
    costs   of stages; what is finished here corrects them
    keep    "all": no scratch is deleted
    say     gets a line of progress whenever something changed
    first   ids of experiments that come before all others
    tell    called once, when the last of them is finished and others are not
    """

    def __init__(
        self,
        schedule: Schedule,
        engine: Any,
        task: Callable[[Experiment], dict[str, Any]],
        costs: Costs,
        keep: str = "results",
        say: Callable[[str], None] = lambda text: None,
        first: Set[str] = frozenset(),
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.schedule = schedule
        self.engine = engine
        self.task = task
        self.costs = costs
        self.keep = keep
        self.say = say
        self.first = first if first - schedule.finished else frozenset()
        self.tell = tell
        self.waiting = {job.experiment.id: job for job in schedule.waiting()}
        self.running: dict[Future[dict[str, Any]], Job] = {}
        # by id; one that an engine computes at once, in this process, is not among those running
        self.under_way: dict[str, Job] = {}
        # of each running experiment, when it was begun or last seen to finish a stage
        self.since: dict[str, float] = {}
        # of each recipe, seconds of the stages that were finished in this run
        self.timed: dict[str, list[float]] = defaultdict(list)
        self.missing = schedule.missing
        self.left = set(self.missing)
        self.uses = Counter(id for job in self.waiting.values() for id in job.rests_on)
        # of each stage to compute, the experiments that need it
        self.users: dict[str, list[str]] = defaultdict(list)
        for name, job in self.waiting.items():
            for id in job.missing:
                self.users[id].append(name)
        self._price()
        # pairs of which something has run: their scratch is on disk
        self.begun: set[str] = set()
        self.report = SweepReport()
        self.unborn = 0
        self.full = ""

    def _price(self) -> None:
        """Seconds of each stage, and what is left of each experiment and of all, by what is known
        now."""
        begun = time.perf_counter()
        recipes = {id: self.schedule.pieces[id].recipe for id in self.missing}
        of_sort = self._known_of_sorts(set(recipes.values()))
        self.price = {}
        self.untimed = {id for id, recipe in recipes.items() if not self.costs.knows(recipe)}
        for id, recipe in recipes.items():
            usual = of_sort.get(_sort(recipe), 0.0)
            seconds = usual if id in self.untimed else self.costs.of([recipe])
            self.price[id] = max(seconds, UNTIMED)
        self.cost = dict.fromkeys((job.experiment.id for job in self.schedule.waiting()), 0.0)
        for id in self.left:
            for name in self.users[id]:
                self.cost[name] += self.price[id]
        self.ahead = sum(self.price[id] for id in self.left)
        known = {kind for kind, _ in of_sort}
        self.known = all(_sort(recipe)[0] in known for recipe in recipes.values())
        took = time.perf_counter() - begun
        self.next_pricing = begun + RARELY * took

    def _known_of_sorts(self, recipes: Set[Recipe]) -> dict[tuple[str, bool], float]:
        """Of each sort, the mean seconds of those of its recipes that are known."""
        seconds: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for recipe in recipes:
            if self.costs.knows(recipe):
                seconds[_sort(recipe)].append(self.costs.of([recipe]))
        return {sort: sum(values) / len(values) for sort, values in seconds.items()}

    def run(self) -> SweepReport:
        """All of it.

        raises   ChildProcessError   if no process can be started
                 CannotWrite         if results cannot be written
        """
        self.started = time.perf_counter()
        if self.keep != "all":
            self._discard(set(self.schedule.pieces) - set(self.uses))
        while self.running or (self.waiting and not self.full):
            while self.waiting and not self.full and len(self.running) < self.engine.slots:
                job = self._next()
                del self.waiting[job.experiment.id]
                self.begun.add(job.pair)
                self.since[job.experiment.id] = time.perf_counter()
                self.under_way[job.experiment.id] = job
                self.running[self.engine.submit(self.task(job.experiment))] = job
            self.say(self._line())
            if not self.running:
                time.sleep(1)  # no worker is there yet
            ended = wait(self.running, timeout=5, return_when=FIRST_COMPLETED).done
            for future in ended:
                self._ended(self.running.pop(future), future.result())
            # looking costs a file each: where experiments end every second, their ends say enough
            if not ended:
                self._look()
        self.report.seconds = time.perf_counter() - self.started
        self.say(self._line())
        computed = self.missing - self.left
        self.report.computed = len(computed)
        self.report.stage_seconds = sum(self.schedule.pieces[id].slot.seconds() for id in computed)
        if self.full:
            raise CannotWrite(self.full)
        return self.report

    def look(self) -> None:
        """Which stages were finished meanwhile; and a line of progress."""
        self._look()
        self.say(self._line())

    def _look(self) -> None:
        self._computed(
            {
                id
                for job in self.under_way.values()
                for id in job.missing & self.left
                if self.schedule.pieces[id].slot.filled()
            }
        )

    def _next(self) -> Job:
        """One of those that come first; of these one sharing least unfinished work with those
        running; of these one with stages of which none was timed or is under way; of these one
        whose pair has begun; of these the longest."""
        shared: dict[str, float] = defaultdict(float)
        for id in set().union(*(job.missing for job in self.running.values())) & self.left:
            for name in self.users[id]:
                shared[name] += self.price[id]

        under_way = set().union(*(self._untimed(job) for job in self.running.values()))

        def order(item: tuple[str, Job]) -> tuple[bool, float, bool, bool, float]:
            name, job = item
            is_new = bool(self._untimed(job) - under_way)
            return (
                name not in self.first,
                shared.get(name, 0.0),
                not is_new,
                job.pair not in self.begun,
                -self.cost[name],
            )

        return min(self.waiting.items(), key=order)[1]

    def _untimed(self, job: Job) -> set[str]:
        """Recipes of its stages to compute of which nothing is known."""
        unknown = job.missing & self.untimed & self.left
        return {self.schedule.pieces[id].recipe.name for id in unknown}

    def _ended(self, job: Job, found: dict[str, Any]) -> None:
        name, state = job.experiment.id, found["state"]
        del self.under_way[name]
        self.unborn = self.unborn + 1 if state == "unborn" else 0
        if state == "done" and self._is_finished(job):
            self.schedule.finished.add(name)
            self.report.finished += 1
            self._computed(job.missing & self.left)
            self.uses.subtract(job.rests_on)
            if self.keep != "all":
                self._discard(id for id in job.rests_on if not self.uses[id])
            if self.first and self.first <= self.schedule.finished:
                self.first = frozenset()
                if self._unfinished():
                    self.tell()
        elif state == "done":
            self.report.failed[name] = [
                "the worker computed other stages or wrote them elsewhere: has it this version of "
                "the package, and the same folder of results?"
            ]
        elif state == "unwritable":  # so it would be for any other
            self.full = found["why"]
        elif state == "failed":
            self.report.failed[name] = found["lines"]
        elif state == "unborn" and self.unborn >= DEATHS:
            raise ChildProcessError(
                f"no worker process could be started: {' '.join(found['lines'][-2:])}"
            )
        else:
            self._died(job, found["lines"], state)

    def _computed(self, ids: set[str]) -> None:
        if not ids:
            return
        self.left -= ids
        for job in self.under_way.values():
            if job.missing & ids:
                self.since[job.experiment.id] = time.perf_counter()
        is_new = bool(ids & self.untimed)
        for id in ids:
            self.ahead -= self.price[id]
            for name in self.users[id]:
                self.cost[name] -= self.price[id]
            piece = self.schedule.pieces[id]
            self.timed[piece.recipe.name].append(piece.slot.seconds())
        self.costs.seconds |= {
            name: statistics.fmean(self.timed[name][-LAST:])
            for name in {self.schedule.pieces[id].recipe.name for id in ids}
        }
        if is_new or time.perf_counter() > self.next_pricing:
            self._price()

    def _died(self, job: Job, lines: list[str], state: str) -> None:
        """It goes on from its last stage, unless its process always ends at the same place."""
        mark = self._mark(job)
        job.deaths = 0 if state == "unborn" else 1 if mark != job.mark else job.deaths + 1
        job.mark = mark
        self.report.died += 1
        if job.deaths >= DEATHS:
            self.report.failed[job.experiment.id] = [
                *lines,
                f"so it was {DEATHS} times at the same stage",
            ]
        else:
            self.waiting[job.experiment.id] = job

    def _mark(self, job: Job) -> Any:
        """Something that changes with every stage and checkpoint of an experiment."""
        return [self.schedule.pieces[id].slot.mark() for id in sorted(job.missing)]

    def _is_finished(self, job: Job) -> bool:
        for _ in range(10):  # a shared folder may show new files late
            if self.schedule.is_finished(job):
                return True
            time.sleep(0.5)
        return False

    def _discard(self, ids: Iterable[str]) -> None:
        for id in ids:
            if not self.schedule.pieces[id].keep:
                self.schedule.pieces[id].slot.discard()

    def _line(self) -> str:
        """How far it is, and how long the rest takes at the rate so far."""
        forecast = f", about {duration(self._seconds_left())} left"
        forecast *= self.known or bool(self.timed)
        forecast += "" if self.known or not forecast else " and what was never timed"
        return (
            f"{len(self.schedule.finished)} of {len(self.schedule.jobs)} done, "
            f"{len(self.under_way)} running, {len(self.report.failed)} failed{forecast}"
        )

    def _seconds_left(self) -> float:
        """At the rate of what was done so far, finished or under way; FIRST seconds at the workers'
        number count with it, so that nothing done yet is no rate."""
        now = time.perf_counter()
        under_way = {}
        for job in self.under_way.values():
            # a stage takes no longer than the longest of those that it may be
            longest = max((self.price[id] for id in job.missing & self.left), default=0.0)
            under_way[job.experiment.id] = min(now - self.since[job.experiment.id], longest)
        done = sum(map(sum, self.timed.values())) + sum(under_way.values())
        workers = max(1, self.engine.slots)
        rate = min((done + workers * FIRST) / (now - self.started + FIRST), workers)
        # the last experiments end alone
        alone = max(
            (self.cost[name] - under_way.get(name, 0.0) for name in self._unfinished()), default=0.0
        )
        rest = max(0.0, self.ahead - sum(under_way.values()))
        return max(rest / rate, alone, 0.0)

    def _unfinished(self) -> list[str]:
        return [*self.waiting, *self.under_way]


def _sort(recipe: Recipe) -> tuple[str, bool]:
    """Kind of a stage, and whether it takes steps: a fit in steps says nothing of one in closed
    form, nor of a control that fits nothing."""
    return recipe.name.rsplit("-", 1)[0], recipe.steps > 0


def run_by(
    engine: Any,
    study: Study,
    modules: Sequence[str] = (),
    keep: str = "results",
    *,
    numerics: Any = None,
    schedule: Schedule | None = None,
    costs: Costs | None = None,
    say: Callable[[str], None] = lambda text: None,
    first: Set[str] = frozenset(),
    tell: Callable[[], None] = lambda: None,
) -> SweepReport:
    """Run a study's experiments by an engine; afterwards reading them trains nothing. The engine is
    closed.

    modules  imported in every process first
    keep     see loop.run
    first    ids of experiments that come before all others; `tell` is called when the last of them
             is finished
    raises   CannotWrite         if results cannot be written; what is finished is kept
             ChildProcessError   if no process can be started; the same
    """
    from ..core.numerics import Numerics

    numerics, where = numerics or Numerics(**study.numerics), runs_folder()
    try:
        schedule = schedule or schedule_of(study, where, numerics, say)
        costs = costs or stored_costs(
            where, {piece.slot.kind for piece in schedule.pieces.values()}
        )
        farm = Farm(
            schedule,
            engine,
            lambda e: task_of(e, numerics, study.scale, where, modules),
            costs,
            keep,
            say,
            first,
            tell,
        )
        if isinstance(engine, Here):
            engine.look = farm.look
        return farm.run()
    finally:
        engine.close()
