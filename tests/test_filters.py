"""Filters: exact quotas, who judges, acceptance on record, shortfall, and a random filter that only
imitates rates."""

import dataclasses

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import FILTERS, GENERATORS, run
from biasstudy.core.context import Context
from biasstudy.data.real import real_data
from biasstudy.loop.filters import acceptance_rates
from biasstudy.loop.generations import generations
from biasstudy.loop.stages import Conditions, sample_candidates

CONTEXT = Context(FLOAT64)
# errs on a tenth
WEAK = {"classifier": "ridge", "classifier_options": {"penalty": 3.0}, "n_real": 200, "ratio": 0.5}


class Numbers:
    """A generator whose image i is the number i mod 251, whatever it is told."""

    asked: list

    def __init__(self):
        self.asked = []

    def sample(self, state, told, first_index, *, seed, context):
        self.asked.append((first_index, len(told)))
        value = (np.arange(first_index, first_index + len(told)) % 251).astype(np.uint8)
        return np.broadcast_to(value[:, None, None, None], (len(told), 3, 2, 2)).copy()


def candidates(rule, counts=(30, 20, 10), tries=5.0, shortfall="stop", first=0, generator=None):
    generator = generator or Numbers()
    entry = dataclasses.make_dataclass("Entry", ["name", "target"])("rule", rule)
    model = dataclasses.make_dataclass("Model", ["target"])(lambda: generator)
    found = sample_candidates.function(
        CONTEXT,
        model=model,
        options={},
        state={},
        told=Conditions(counts, first, "class", 5),
        filter=entry,
        filter_options={},
        judge=None,
        tries=tries,
        shortfall=shortfall,
        origin=2,
        seed=0,
    )
    return found, generator


def odd(images, label, judged, chance):
    return images[:, 0, 0, 0] % 2 == 1


def test_candidates_stop_exactly_when_the_quota_is_met():
    found, generator = candidates(odd)
    kept = np.bincount(found["told"][found["accepted"]])
    assert (kept >= [30, 20, 10]).all() and (kept == [30, 20, 10]).any() and found["accepted"][-1]
    assert [first for first, _ in generator.asked] == np.cumsum(
        [0, *[n for _, n in generator.asked]]
    )[:-1].tolist()
    assert len(found["images"]) == len(found["told"]) <= 5 * 60


def test_the_size_of_the_pieces_does_not_change_the_result():
    """The same candidates when the generator is asked for one image at a time."""
    told, q = Conditions((30, 20, 10), 0, "class", 5), 60
    stream = told.of_batch[np.arange(5 * q) % q]
    accepted = odd(Numbers().sample({}, stream, 0, seed=0, context=CONTEXT), None, None, None)
    last = 1 + max(
        np.flatnonzero(accepted & (stream == c))[n - 1] for c, n in enumerate((30, 20, 10))
    )
    found, _ = candidates(odd)
    assert len(found["told"]) == last and (found["told"] == stream[:last]).all()
    assert (found["accepted"] == accepted[:last]).all()


def test_a_filter_that_rejects_too_much_stops_with_one_sentence_or_keeps_what_there_is():
    def rule(images, label, judged, chance):
        return (label != 1) | (chance < 0.05)

    with pytest.raises(
        ValueError,
        match=r"filter 'rule' accepted \d+ of 100 images told condition 1 in generation 2, and 20",
    ):
        candidates(rule)
    found, generator = candidates(rule, shortfall="keep")
    assert len(found["told"]) == 300 == sum(n for _, n in generator.asked), (
        "at most five times the quota"
    )
    assert np.bincount(found["told"][found["accepted"]])[1] < 20


def test_the_first_images_of_a_batch_may_come_from_elsewhere():
    found, generator = candidates(odd, first=20)
    assert generator.asked[0] == (20, 40)
    quota = Conditions((30, 20, 10), 20, "class", 5).quota
    assert (np.bincount(found["told"][found["accepted"]]) >= quota).all()


@pytest.mark.parametrize("name", ["classifier", "expert", "frozen"])
@pytest.mark.parametrize("condition", ["class", "group"])
def test_a_filtered_batch_has_the_told_labels_of_an_unfiltered_one_and_only_accepted_images(
    store, name, condition
):
    e = tiny(**WEAK, filter=name, start="biased", bias=0.5)
    if condition == "group":
        e = tiny(**{**WEAK, "n_real": 500}, filter=name, condition="group")
    real = real_data(e)
    for turn in list(generations(e, real, store))[:-1]:
        batch, decided = turn.batch.load(), turn.decisions.load()
        plain = real.conditions.labeled(batch.images, real.conditions.of_batch, turn.t)
        assert (
            (batch.label == plain.label).all()
            and (batch.group == plain.group).all()
            and set(batch.origin) == {turn.t}
        )
        by = turn.batch.inputs["candidates"].inputs["judge"].load()
        assert (by(CONTEXT, batch.images).argmax(1) == batch.label).all(), (
            "the judge recognises every image it let in"
        )
        assert (decided["batch"] == batch.label).all() and len(decided["accepted"]) == len(
            turn.candidate_groups.load()["told"]
        )
        assert not decided["accepted"].all()


def test_each_filter_asks_the_judge_it_names(store):
    def judges(name):
        e = tiny(**WEAK, filter=name)
        plan = list(generations(e, real_data(e), store))
        return plan, [
            turn.batch.inputs["candidates"].inputs["judge"].state.id for turn in plan[:-1]
        ]

    plan, own = judges("classifier")
    assert (
        own == [turn.predictions[0].inputs["by"].state.id for turn in plan[:-1]]
        and own[0] != own[1]
    )
    plan, first = judges("frozen")
    assert first == [plan[0].predictions[0].inputs["by"].state.id] * 2
    plan, expert = judges("expert")
    judge = plan[0].batch.inputs["candidates"].inputs["judge"]
    images = judge.state.inputs["images"]
    e = tiny(**WEAK)
    assert images.id == real_data(e).instruments["expert"].id and expert[0] == expert[1]
    assert images.id not in (
        real_data(e).instruments["oracle"].id,
        real_data(e).instruments["extractor"].id,
    )
    oracle = plan[0].oracle.inputs["by"].state
    assert oracle.id != judge.state.id, "the model that filters never measures"


def test_random_cell_keeps_at_the_rates_of_the_paired_run_and_not_the_same_images(runs):
    base = tiny(**{**WEAK, "n_real": 800, "ratio": 1.0}, start="biased", bias=0.6, n_generations=1)
    imitating = dataclasses.replace(base, filter="random-cell", shortfall="keep")
    filtered = dataclasses.replace(base, filter="classifier", shortfall="keep")
    found = run([imitating, filtered], numerics=FLOAT64)
    random, paired = (o.batches[0] for o in found.outcomes)
    shared = min(len(random["accepted"]), len(paired["accepted"]))
    assert (random["candidate_group"][:shared] == paired["candidate_group"][:shared]).all(), (
        "the same candidates"
    )
    rates = acceptance_rates(
        paired["candidate_label"], paired["candidate_group"], paired["accepted"], 10, 5
    )
    expected = rates[random["candidate_label"], random["candidate_group"]]
    z = (random["accepted"] - expected).sum() / np.sqrt((expected * (1 - expected)).sum())
    assert abs(z) < 4 and 0.5 < expected.mean() < 0.98
    both = random["accepted"][:shared] & paired["accepted"][:shared]
    assert abs(both.mean() - (expected[:shared] * paired["accepted"][:shared]).mean()) < 0.05, (
        "no selection within cells"
    )
    oracle = [np.mean(b["oracle"] == b["label"]) for b in (random, paired)]
    assert oracle[0] < oracle[1], "selection by the classifier is what it leaves out"


def test_random_cell_alone_runs_its_reference_first(runs):
    e = tiny(**WEAK, filter="random-cell")
    run(e, numerics=FLOAT64)
    again = run(e.reference(), numerics=FLOAT64)
    assert again.counts["found", "decisions"] == 2 and ("computed", "decisions") not in again.counts


def test_acceptance_rates_of_cells():
    label, group = np.array([0, 0, 0, 1, 1, 0]), np.array([0, 0, 1, 1, -1, -1])
    rates = acceptance_rates(label, group, np.array([1, 0, 1, 0, 1, 0], bool), 3, 2)
    assert rates.tolist() == [[0.5, 1, 0], [0.5, 0, 1], [1, 1, 1]], (
        "empty cells take the rate of the class; no class: 1"
    )


def test_acceptance_is_on_record_per_class_and_group(runs):
    e = tiny(**WEAK, filter="classifier")
    table = run(e, numerics=FLOAT64).table.query("measured_on == 'candidates' and generation == 0")
    rows = table[table.metric == "acceptance"]
    assert rows.label.notna().sum() == 10 and rows.group.notna().sum() == 5
    overall = rows[rows.label.isna() & rows.group.isna()]
    classes = rows[rows.label.notna()]
    assert np.isclose(overall.value.item(), np.average(classes.value, weights=classes.n))
    tries = table[table.metric == "tries"].value.item()
    assert overall.n.item() == tries * 100 and table[table.metric == "shortfall"].value.item() == 0


def test_what_is_missing_is_on_record(runs):
    e = tiny(**WEAK, filter="classifier", filter_options={"confidence": 0.97}, shortfall="keep")
    with pytest.raises(ValueError, match="filter 'classifier' accepted"):
        run(dataclasses.replace(e, shortfall="stop"), numerics=FLOAT64)
    found = run(e, numerics=FLOAT64)
    missing = found.table.query("metric == 'shortfall' and generation == 0").value.item()
    batch = found.outcomes[0].batches[0]
    assert missing == 1 - len(batch["label"]) / 100 > 0 and len(batch["label"]) == len(
        batch["oracle"]
    ) == len(batch["group"])
    assert found.outcomes[0].pools[1].sum() == 200 + len(batch["label"])


def test_the_reserve_through_the_same_filter_uses_spare_images(runs):
    e = tiny(**WEAK, filter="classifier", shortfall="keep")
    found = run([e.to_arm("real"), e.to_arm("real-filtered")], numerics=FLOAT64)
    assert len(found.of("real-filtered")) == 1
    batch = found.of("real-filtered")[0].batches[0]
    assert len(batch["accepted"]) > 100, "rejected images were replaced by spare ones"
    assert len(batch["accepted"]) <= 150
    plain, spare = (
        real_data(e.to_arm("real")).reserve(1).load(),
        real_data(e.to_arm("real-filtered")).reserve(1).load(),
    )
    assert (spare.images[:100] == plain.images).all() and len(spare) == 150, (
        "the same reserve first"
    )


def test_a_filter_of_ones_own_is_one_function(runs):
    @FILTERS.register("bright")
    def bright(images, label, judged, chance, *, least: float = 20.0):
        """Keep bright images."""
        return images.mean((1, 2, 3)) >= least

    try:
        e = tiny(filter="bright", filter_options={"least": 25}, shortfall="keep")
        plain = run(tiny(), numerics=FLOAT64, keep="all")
        found = run(e, numerics=FLOAT64, keep="all")
    finally:
        FILTERS._entries.pop("bright")
    assert found.table.query("metric == 'acceptance'").value.min() < 1
    assert found.counts["found", "generator"] == 1 and plain.counts["computed", "generator"] == 2
    assert "mixture" in GENERATORS
