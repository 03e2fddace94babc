"""The time that a sweep says is left, against a simulated clock."""

import itertools
import re
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from biasstudy.campaign import farm
from biasstudy.campaign.cost import Costs, Recipe
from biasstudy.campaign.farm import Farm
from biasstudy.campaign.sweep import Job, Piece, Schedule

ALONE = 45.0  # seconds
START, ASIDE = 12.0, 0.4  # seconds: until a process is ready; beside each stage


class Clock:
    """Seconds that pass when somebody waits, and workers that compute stages meanwhile."""

    def __init__(self, workers):
        self.now, self.slots, self.ends, self.free = 0.0, workers, {}, [START] * workers
        self.ready, self.seconds = {}, {}

    def perf_counter(self):
        return self.now

    def submit(self, job):
        """Its stages one after the other; one that another worker computes is waited for."""
        at = max(self.now, self.free.pop(self.free.index(min(self.free))))
        for id in job.order:
            if id not in self.ready:
                if at < ALONE and self.slots > 1:  # nobody else uses the machine yet
                    self.seconds[id] *= 0.4
                self.ready[id] = at + self.seconds[id]
            at = max(at, self.ready[id]) + ASIDE
        self.free.append(at)
        self.ends[future := Future()] = at
        return future

    def wait(self, running, timeout, return_when):
        first = min(self.ends[future] for future in running)
        self.now = min(self.now + timeout, max(first, self.now))
        done = {future for future in running if self.ends[future] <= self.now}
        for future in done:
            future.set_result({"state": "done"})
        return SimpleNamespace(done=done)


def slot(clock, id):
    return SimpleNamespace(
        filled=lambda: clock.ready.get(id, clock.now + 1) <= clock.now,
        seconds=lambda: clock.seconds[id],
        discard=lambda: None,
    )


def study_of(clock, seeds, arms, kinds, generations):
    """A schedule: every arm of a seed shares generation 0, then goes on with its own stages.

    kinds   kind -> seconds, or seconds by arm
    """
    schedule = Schedule({}, {})
    for seed, arm in itertools.product(range(seeds), arms):
        order = []
        for t, (kind, cost) in itertools.product(range(generations + 1), kinds.items()):
            seconds = cost.get(arm, 0.0) if isinstance(cost, dict) else cost
            id = f"{seed}-{kind}-{t}" + f"-{arm}" * (t > 0 or isinstance(cost, dict))
            if seconds:
                # as stages of one recipe differ from one another
                clock.seconds[id] = seconds * (0.8 + 0.4 * ((7 * len(clock.seconds)) % 10) / 9)
                recipe = Recipe(f"{kind}-{arm if isinstance(cost, dict) else ''}", kind, 0)
                schedule.pieces[id] = Piece(slot(clock, id), True, recipe)
                order.append(id)
        e = SimpleNamespace(id=f"{seed}-{arm}", pair=str(seed), order=order)
        stages = frozenset(order)
        schedule.jobs[e.id] = Job(e, stages, stages, Path(__file__), set(order))
    return schedule


GAN = {"generated": 45.0, "real": 0.0, "resample": 0.0, "none": 0.0}
STUDIES = {
    "a GAN in one arm of four": (6, GAN, {"batch": 1.0, "classifier": 14.0}, 2),
    "closed forms": (12, {"generated": 2.0}, {"batch": 3.0, "classifier": 9.0}, 3),
    "one long arm": (4, {"generated": 90.0}, {"classifier": 20.0}, 2),
    "one more costly kind in one arm": (6, GAN, {"classifier": 10.0, "telling": {"none": 9.0}}, 2),
}


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("name", STUDIES)
def test_the_time_left_is_right_within_a_factor_from_the_second_minute_on(
    name, workers, monkeypatch
):
    seeds, generator, kinds, generations = STUDIES[name]
    clock, said = Clock(workers), []
    schedule = study_of(clock, seeds, GAN, {"generator": generator, **kinds}, generations)
    monkeypatch.setattr(farm, "time", clock)
    monkeypatch.setattr(farm, "wait", clock.wait)
    report = Farm(
        schedule,
        clock,
        lambda e: e,
        Costs(),
        keep="all",
        say=lambda line: said.append((clock.now, line)),
    ).run()
    assert report.finished == len(schedule.jobs) and report.seconds > 240
    total, checked = report.seconds, 0
    for now, line in said:
        left = re.search(r"about (\d+(?:\.\d)?) (s|min|h) left", line)
        if now >= 120 and total - now > 30:  # seconds round to minutes
            told = float(left[1]) * {"s": 1, "min": 60, "h": 3600}[left[2]]
            assert (total - now) / 1.5 - 30 <= told <= (total - now) * 1.5 + 30, (now, total, line)
            checked += 1
    assert checked > 10
