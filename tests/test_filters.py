"""Filters: exact quotas, who judges, acceptance on record, shortfall, and a random filter that only
imitates rates."""

import dataclasses

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import FILTERS, GENERATORS, LabeledImages, run
from biasstudy.core.context import Context
from biasstudy.core.registry import Entry
from biasstudy.data.real import real_data
from biasstudy.experiment import PROTOCOLS
from biasstudy.loop.filters import acceptance_rates
from biasstudy.loop.generations import generations
from biasstudy.loop.judges import RanksJudge
from biasstudy.loop.stages import Conditions, sample_candidates, told_confidence
from biasstudy.measures.drift import drift_variance

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
    model = Entry("generator", "numbers", 1, lambda: generator, {})
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
    others = real_data(e).instruments
    assert images.id not in (others["measuring"].id, others["comparison"].id)
    oracle = plan[0].oracle.inputs["by"].fitted.state
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


# ---- Rank ----------------------------------------------------------------------------------------


class Planted:
    """Images told one class, a fifth of a minority (pixel 0) of which a judge is less sure (pixel
    1); half of all confidences are equal, as where a classifier is certain."""

    def sample(self, state, told, first_index, *, seed, context):
        rng = np.random.default_rng(seed + first_index)
        minority = rng.random(len(told)) < 0.2
        sure = np.minimum(rng.normal(np.where(minority, 120, 200), 60), 200).clip(0)
        images = np.zeros((len(told), 3, 2, 2), np.uint8)
        images[:, :, 0, 0], images[:, :, 0, 1] = minority[:, None], sure[:, None]
        return images


def ranked(keep, share=0.5, seed=0, n=1000):
    """A batch of n planted images through `rank`, and the share of all candidates that it keeps."""

    def by(context, images, *_):
        sure = images[:, 0, 0, 1] / 255
        return np.column_stack([sure, 1 - sure])

    generator, told = Planted(), Conditions((n,), 0, "class", 5)
    trial = generator.sample({}, np.zeros(n, int), 10**6, seed=seed, context=CONTEXT)
    confidences = told_confidence.function(
        CONTEXT, by=by, batch=LabeledImages(trial, np.zeros(n, int), np.zeros(n, int))
    )
    make = dataclasses.make_dataclass
    judge = RanksJudge(
        make("By", ["load"])(lambda: by), make("Trial", ["load"])(lambda: confidences)
    )
    found = sample_candidates.function(
        CONTEXT,
        model=Entry("generator", "planted", 1, lambda: generator, {}),
        options={},
        state={},
        told=told,
        filter=FILTERS["rank"],
        filter_options={"keep": keep, "share": share},
        judge=judge.load(),
        tries=20.0,
        shortfall="stop",
        origin=0,
        seed=seed,
    )
    return found["images"][found["accepted"]][:n, 0, 0, 0].mean(), found["accepted"].mean()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_rank_keeps_its_share_of_a_minority_that_a_judge_doubts_least_at_the_top(share):
    """Bottom above random above top, at equal budgets; by how much, from the planted confidences
    in a population of 400,000."""
    images = Planted().sample({}, np.zeros(400_000), 1, seed=9, context=CONTEXT)[:, 0, 0]
    minority, sure = images[:, 0], images[:, 1] + np.random.default_rng(0).random(400_000)
    low, high = np.quantile(sure, [share, 1 - share])
    expected = {
        "bottom": minority[sure < low].mean(),
        "random": 0.2,
        "top": minority[sure > high].mean(),
    }
    found = {keep: ranked(keep, share) for keep in expected}
    for keep, (kept, rate) in found.items():
        assert abs(kept - expected[keep]) < 0.06 and abs(rate - share) < 0.06, keep
    assert found["bottom"][0] > found["random"][0] + 0.015 > found["top"][0] + 0.03


def test_rank_at_random_drifts_as_a_batch_without_a_filter():
    """The share of a minority in 200 batches varies as the drift null says, and no more."""
    shares = np.array([ranked("random", seed=seed, n=200)[0] for seed in range(0, 200_000, 1000)])
    _, null = drift_variance(PROTOCOLS["accumulate"], 0.2, 10**9, 200, 0)
    spread = shares.var(ddof=1) / null[0]
    assert abs(shares.mean() - 0.2) < 4 * np.sqrt(null[0] / 200)
    assert abs(spread - 1) < 4 * np.sqrt(2 / 199)


def test_rank_asks_this_generations_classifier_and_keeps_exact_budgets(runs):
    """In every generation each told class has its quota, whichever share is kept; a share of 1
    keeps what an unfiltered run keeps."""
    base = tiny(**WEAK, n_generations=1)
    kept = [
        dataclasses.replace(base, filter="rank", filter_options={"keep": keep, "share": share})
        for keep, share in [("top", 0.4), ("random", 0.4), ("bottom", 0.4), ("bottom", 1.0)]
    ]
    top, random, bottom, all_, plain = run([*kept, base], numerics=FLOAT64).outcomes
    for outcome in (top, random, bottom, all_):
        assert (np.bincount(outcome.batches[0]["label"]) == 10).all()
    agreement = [(o.batches[0]["oracle"] == o.batches[0]["label"]).mean() for o in (top, bottom)]
    assert agreement[0] > agreement[1], (
        "what a classifier is sure of shows more often what it should"
    )
    assert (all_.batches[0]["oracle"] == plain.batches[0]["oracle"]).mean() > 0.9


def test_rank_keeps_top_random_or_bottom():
    with pytest.raises(
        ValueError, match="rank: keep must be one of top, random, bottom; got 'best'"
    ):
        tiny(filter="rank", filter_options={"keep": "best"})
    with pytest.raises(ValueError, match=r"rank: share must be in \[0.1, 1\]; got 0.05"):
        tiny(filter="rank", filter_options={"share": 0.05})


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
