"""The gate: it lets real images pass, and stops what cheats it."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import inference, run
from biasstudy.data.real import dataset_of, real_data
from biasstudy.inference.gate import FIT, UNFIT, UNKNOWN, Gate, gate
from biasstudy.loop import instruments
from biasstudy.measures.fitness import (
    CRITERIA,
    SHIFTS,
    Seen,
    Unseen,
    fitness,
    misses,
    side_of_window,
    spread,
    window_copies,
)
from biasstudy.report.shipped import reference, save_study


class Bench:
    """Real digits in four colours, measured without any model of the package: the oracle is the
    nearest of 1,000 other digits, features are a random projection of pixels."""

    def __init__(self):
        e = tiny(n_real=1000, start="biased", bias=0.6, generator="reserve", ratio=0.5)
        self.real, self.dataset = real_data(e), dataset_of(e)
        self.start = self.real.start.load()
        self.fresh = self.real.reserve(0).load()
        known = self.real.instruments["measuring"].load()
        # one colour is enough to tell shapes
        self.known = known[known.group == 0]
        rng = np.random.default_rng(0)
        self.projection = rng.normal(size=(3 * 28 * 28, 40)) / 28
        unseen = self.real.instruments["comparison"].load()
        self.unseen = Unseen(
            unseen.images, unseen.label, unseen.group, unseen.unit, self.features(unseen.images)
        )
        self.seen_start = self.seen(self.start.images, self.start.label)

    def features(self, images):
        return images.reshape(len(images), -1) @ self.projection / 255

    def oracle(self, images):
        shape, known = (x.max(1).reshape(len(x), -1) / 255 for x in (images, self.known.images))
        distance = (known**2).sum(1) - 2 * shape @ known.T
        return self.known.label[distance.argmin(1)]

    def seen(self, images, label):
        group = self.dataset.probe(images)
        return Seen(images, label, self.oracle(images), group, self.features(images))

    def missed(self, images, label):
        values = fitness(self.seen(images, label), self.seen_start, self.unseen, self.real.counts)
        return misses({name: v.value for name, v in values.items()})

    def others(self, n, seed=0):
        """n images of the start, and for each another one of its class."""
        rng = np.random.default_rng(seed)
        first = rng.permutation(len(self.start))[:n]
        second = np.array([rng.choice(np.flatnonzero(self._class_but(i))) for i in first])
        return self.start[first], self.start[second]

    def _class_but(self, i):
        same = self.start.label == self.start.label[i]
        same[i] = False
        return same


@pytest.fixture(scope="module")
def bench():
    return Bench()


def test_real_images_pass(bench):
    assert bench.missed(bench.fresh.images, bench.fresh.label) == []


def halves(one, other):
    images = one.images.copy()
    images[..., 14:] = other.images[..., 14:]
    return images


def blend(one, other):
    return (0.6 * one.images + 0.4 * other.images).round().astype(np.uint8)


def moved(one, other):
    return np.roll(one.images, 1, axis=3)


def noisy(one, other):
    noise = np.random.default_rng(0).normal(0, 10, one.images.shape)
    return np.clip(one.images + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("cheat", "misses_at_least"),
    [
        (lambda one, other: one.images, {"image-copies", "window-copies"}),
        (halves, {"window-copies"}),
        (blend, {"spread"}),
        (moved, {"window-copies"}),
        (noisy, {"image-copies"}),
    ],
    ids=["memoriser", "halves", "blend", "moved by a pixel", "noisy copy"],
)
def test_what_cheats_does_not_pass(bench, cheat, misses_at_least):
    one, other = bench.others(400)
    assert misses_at_least <= set(bench.missed(cheat(one, other), one.label))


def test_wrong_classes_unclear_groups_and_blur_do_not_pass(bench):
    images, label = bench.fresh.images, bench.fresh.label
    wrong = np.where(np.arange(len(label)) % 6 == 0, (label + 1) % 10, label)
    assert "agreement" in bench.missed(images, wrong)
    # a sixth of the digits: left half in one colour, right half in another
    mixed = images.copy()
    mixed[::6, :, :, 14:] = np.roll(mixed[::6, :, :, 14:], 1, axis=1)
    assert "clarity" in bench.missed(mixed, label)
    blurred = images.reshape(-1, 3, 7, 4, 7, 4).mean((3, 5)).repeat(4, 2).repeat(4, 3)
    assert "spread" in bench.missed(blurred.round().astype(np.uint8), label)
    one_of_each = np.array([np.flatnonzero(bench.fresh.label == k)[0] for k in range(10)])
    few = np.resize(one_of_each, 500)
    assert {"recall", "spread"} <= set(bench.missed(images[few], label[few]))


def test_spread_of_a_blend_and_of_shares_that_drift():
    rng = np.random.default_rng(0)

    def seen(images, group):
        return Seen(images, np.zeros(len(images), int), np.zeros(len(images), int), group)

    level = np.array([60.0, 180.0])  # of two groups
    group = np.repeat([0, 1], 2000)
    noise = rng.normal(0, 20, (4000, 3, 4, 4))
    start = seen(noise + level[group][:, None, None, None], group)
    partner = np.concatenate([rng.permutation(2000), 2000 + rng.permutation(2000)])
    mixed = seen(0.6 * start.images + 0.4 * start.images[partner], group)
    assert spread(mixed, start) == pytest.approx(np.sqrt(0.6**2 + 0.4**2), abs=0.01)
    rare = np.concatenate([np.arange(200), np.arange(2000, 4000)])
    assert spread(seen(start.images[rare], group[rare]), start) == pytest.approx(1, abs=0.01)
    assert np.isnan(spread(seen(start.images[:1], group[:1]), start))


def test_window_copies_by_brute_force():
    rng = np.random.default_rng(1)
    size, side = 8, side_of_window(8)
    start, unseen, images = (rng.integers(0, 256, (n, 3, size, size)) for n in (12, 40, 9))
    images[:3] = start[:3]
    labels = [rng.integers(0, 2, len(x)) for x in (start, unseen, images)]
    labels[2][:3] = labels[0][:3]
    last = size - side
    corners = sorted(set(np.linspace(0, last, -(-last // side) + 1).round().astype(int)))

    def relative(of, label):
        values = []
        for image, k in zip(of.astype(float), label, strict=True):
            for y in corners:
                for x in corners:
                    w = image[:, y : y + side, x : x + side]
                    nearest = min(
                        ((w - other[:, y + a : y + a + side, x + b : x + b + side]) ** 2).sum()
                        for other in start[labels[0] == k].astype(float)
                        for a, b in SHIFTS
                        if 0 <= y + a <= last and 0 <= x + b <= last
                    )
                    contrast = sum(((c - c.mean()) ** 2).sum() for c in w)
                    values.append((nearest, contrast))
        return np.array(values)

    known, made = relative(unseen, labels[1]), relative(images, labels[2])
    seen = known[:, 1] > 0.1 * known[:, 1].mean()
    near = np.quantile(known[seen, 0] / known[seen, 1], 0.01, method="weibull")
    shown = made[:, 1] > 0.1 * known[:, 1].mean()
    expected = np.mean(made[shown, 0] / made[shown, 1] <= near)
    value = window_copies(images, labels[2], start, labels[0], unseen, labels[1])
    assert value.value == pytest.approx(expected) and value.n == shown.sum()
    assert value.value >= 3 / 9


def test_fitness_of_images_without_features_and_of_none(bench):
    batch = bench.seen(bench.fresh.images, bench.fresh.label)._replace(features=None)
    values = fitness(batch, bench.seen_start, bench.unseen, bench.real.counts)
    assert list(values) == list(CRITERIA)
    assert np.isnan(values["recall"].value) and values["recall"].n == 0
    assert values["agreement"].value > 0.9
    nothing = Seen(*(x[:0] for x in bench.seen(bench.fresh.images[:1], bench.fresh.label[:1])))
    values = fitness(nothing, bench.seen_start, bench.unseen, bench.real.counts)
    told = [name for name, v in values.items() if not np.isnan(v.value)]
    assert told == ["oracle"]


# ---- In the loop ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    e = tiny(start="biased", bias=0.6, instrument="lenet", instrument_steps=60, n_real=200)
    arms = ("generated", "real", "none")
    return run(
        [replace(e, seed=seed).to_arm(arm) for arm in arms for seed in (0, 1)],
        where=tmp_path_factory.mktemp("runs"),
        numerics=FLOAT64,
    )


def test_every_batch_of_every_generation_has_a_fitness(results):
    for o in results.of("generated"):
        assert len(o.fitness) == o.experiment.n_generations == 2
        assert all(len(told["value"]) == len(CRITERIA) for told in o.fitness)
    assert not any(o.fitness for arm in ("real", "none") for o in results.of(arm))
    rows = results.table.query("metric.str.startswith('fitness-')")
    assert set(rows.arm) == {"generated"} and set(rows.generation) == {0, 1}
    assert sorted(rows.metric.unique()) == sorted(f"fitness-{name}" for name in CRITERIA)


def test_fitness_ships_with_results(results, tmp_path):
    save_study(results, tmp_path, "some", "command")
    again = reference("some", tmp_path)
    for before, after in zip(results.of("generated"), again.of("generated"), strict=True):
        for a, b in zip(before.fitness, after.fitness, strict=True):
            np.testing.assert_array_equal(a["value"], b["value"])
    assert str(gate(again)) == str(gate(results))


def test_older_results_have_what_can_be_pieced_together(results):
    older = without_fitness(results)
    judged, whole = gate(older), gate(results)
    assert judged and whole
    unmeasured = [name for name, value in judged.values[0].items() if np.isnan(value)]
    assert {"spread", "window-copies"} <= set(unmeasured)
    # the arm real stands for the start: other images, so about the same
    for name in ("agreement", "clarity"):
        assert judged.values[0][name] == pytest.approx(whole.values[0][name], abs=0.15)


def without_fitness(results):
    copy = type(results)([replace(o, fitness=()) for o in results.outcomes])
    assert not copy.outcomes[0].fitness
    return copy


def test_a_sentence_says_what_the_verdict_rests_on(results):
    text = inference.sentence(results)
    judged = gate(results)
    assert judged and judged.word == UNFIT
    assert "of an unfit generator (" in text.partition(". A =")[0]


# ---- Words ---------------------------------------------------------------------------------------

GOOD = {name: c.bound for name, c in CRITERIA.items()}


def test_words_of_the_gate():
    nan = dict.fromkeys(CRITERIA, float("nan"))
    assert Gate((nan, nan)).word == UNKNOWN
    assert str(Gate((GOOD, GOOD))) == "with fit images throughout"
    worse = GOOD | {"agreement": 0.6}
    assert Gate((GOOD, GOOD, worse)).word == FIT
    assert str(Gate((GOOD, worse))) == "while its images decayed (agreement 0.90 to 0.60)"
    assert Gate((worse, GOOD)).word == UNFIT
    assert str(Gate((worse,))) == "of an unfit generator (agreement 0.60 of at least 0.90)"
    partly = GOOD | {"spread": float("nan")}
    assert str(Gate((partly, partly))) == "with fit images throughout, spread not measured"
    copies = GOOD | {"image-copies": 0.5}
    assert "image-copies 0.50 of at most 0.10" in str(Gate((copies,)))


def test_an_instrument_that_fails_on_real_images_is_told_before_training(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(instruments, "_examined", set())
    weak = tiny(dataset="standin20", n_real=200, n_test=100, instrument="ridge")
    with caplog.at_level("WARNING", "biasstudy"):
        run(weak, where=tmp_path, numerics=FLOAT64)
    told = [r.getMessage() for r in caplog.records]
    assert any(text.startswith("the probe is right on 0.") for text in told)
    caplog.clear()
    monkeypatch.setattr(instruments, "_examined", set())
    run(weak, where=tmp_path, numerics=FLOAT64)
    assert [r.getMessage() for r in caplog.records] == told, "also where results are only read"
    caplog.clear()
    run(weak, where=tmp_path, numerics=FLOAT64)
    assert not caplog.records, "once in a process"


def test_thresholds_stand_once_with_their_reason():
    assert all(c.why and c.says for c in CRITERIA.values())
    assert [name for name, c in CRITERIA.items() if c.most] == ["image-copies", "window-copies"]
