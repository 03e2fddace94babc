"""Protocols by exact bookkeeping of the pool: which images, how many of each class and origin, in
which order."""

import dataclasses
from collections import Counter
from contextlib import closing

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import ARMS, PROTOCOLS, Results, figures, run
from biasstudy.data.images import REAL
from biasstudy.data.pools import Member
from biasstudy.data.real import real_data
from biasstudy.experiment import Protocol
from biasstudy.loop.generations import generations
from biasstudy.loop.protocols import drawn_without_replacement
from biasstudy.loop.run import open_store
from biasstudy.measures.drift import drift_band

N, T = 100, 3


def made(protocol, store, **fields):
    """Pools of every generation, the start, and the batches."""
    e = tiny(
        n_generations=T,
        protocol=protocol,
        **{"ratio": 1.0 if protocol == "replace" else 0.5, **fields},
    )
    plan = list(generations(e, real_data(e), store))
    return (
        e,
        [turn.pool.load() for turn in plan],
        real_data(e).start.load(),
        [turn.batch.load() for turn in plan[:-1]],
    )


def keys(images):
    return Counter(image.tobytes() for image in images)


def test_accumulate_is_the_start_and_all_batches(store):
    e, pools, start, batches = made("accumulate", store)
    for t, pool in enumerate(pools):
        assert (
            pool.images == np.concatenate([start.images, *[b.images for b in batches[:t]]])
        ).all()
        assert pool.origin.tolist() == [REAL] * N + [i for i in range(t) for _ in range(e.n_batch)]


def test_latest_is_the_start_and_the_newest_batch(store):
    e, pools, start, batches = made("latest", store)
    assert (pools[0].images == start.images).all()
    for t in range(1, T + 1):
        assert (pools[t].images == np.concatenate([start.images, batches[t - 1].images])).all()
        assert pools[t].origin.tolist() == [REAL] * N + [t - 1] * e.n_batch


def test_replace_is_the_newest_batch_alone(store):
    _, pools, start, batches = made("replace", store)
    assert (pools[0].images == start.images).all()
    for t in range(1, T + 1):
        assert (pools[t].images == batches[t - 1].images).all() and set(pools[t].origin) == {t - 1}


def test_subsample_is_n_images_of_start_and_batches_none_twice_and_equally_many_per_class(store):
    _, pools, start, batches = made("subsample", store, ratio=1.0)
    assert (pools[0].images == start.images).all(), "generation 0 sees the whole start"
    for t in range(1, T + 1):
        available = keys(np.concatenate([start.images, *[b.images for b in batches[:t]]]))
        assert len(pools[t]) == N and not keys(pools[t].images) - available
        assert np.bincount(pools[t].label).tolist() == [N // 10] * 10
        assert {REAL, t - 1} <= set(pools[t].origin)
    drawn = [keys(pools[t].images[pools[t].origin == REAL]) for t in range(1, T + 1)]
    assert drawn[0] != drawn[1], "redrawn each generation"


def test_subsample_draws_uniformly_without_replacement():
    """Each of 30 + 20 images of a class is among the 30 drawn equally often."""
    parts = [
        Member(None, "batch", np.zeros(30, int)),
        Member(None, "batch", np.repeat([0, 1], [20, 5])),
    ]
    hits = np.zeros(50)
    for seed in range(4000):
        first, second = drawn_without_replacement(parts, np.array([30, 5]), seed)
        assert len(first.index) + len(second.index) == 35 and second.index[-5:].tolist() == [
            20,
            21,
            22,
            23,
            24,
        ]
        hits[first.index] += 1
        hits[30 + second.index[:-5]] += 1
    assert abs(hits / 4000 - 0.6).max() < 4.5 * np.sqrt(0.24 / 4000)


def test_balanced_has_as_many_of_every_group_of_a_class_as_the_probe_sees(store):
    e, pools, start, batches = made("balanced", store, ratio=1.0, start="biased", bias=0.6)
    assert (pools[0].images == start.images).all(), "generation 0 sees the start as it is"
    probe = real_data(e).dataset.probe
    for t in range(1, T + 1):
        available = np.concatenate([start.images, *[b.images for b in batches[:t]]])
        label = np.concatenate([start.label, *[b.label for b in batches[:t]]])
        group = np.concatenate([start.group, *[probe(b.images) for b in batches[:t]]])
        copies = keys(available)
        assert not keys(pools[t].images).keys() - copies.keys() and len(pools[t]) == N
        said = probe(pools[t].images)
        said[pools[t].origin == REAL] = pools[t].group[pools[t].origin == REAL]
        for y in range(10):
            n = np.bincount(said[pools[t].label == y], minlength=5)
            there = np.bincount(group[(label == y) & (group >= 0)], minlength=5)
            assert n.sum() == N // 10 and np.ptp(n[there > 0]) <= 1 and not n[there == 0].any()
            for g in np.flatnonzero(there):
                often = keys(pools[t].images[(pools[t].label == y) & (said == g)])
                times = -(-n[g] // there[g])
                assert all(k <= times * copies[image] for image, k in often.items()), (
                    "repeated no more than must be"
                )


@pytest.mark.parametrize("arm", ["generated", "real", "resample"])
def test_fresh_takes_the_first_part_of_each_batch_from_the_reserve_in_every_arm(store, arm):
    e = tiny(protocol="fresh", fresh_share=0.3, n_generations=2, start="biased", bias=0.6).to_arm(
        arm
    )
    real = real_data(e)
    m, q = 15, 50
    assert (e.n_fresh, e.n_batch) == (m, q)
    pools = [turn.pool.load() for turn in generations(e, real, store)]
    control = real_data(tiny(n_generations=2, start="biased", bias=0.6).to_arm("real"))
    for t in range(2):
        added = pools[2][N + t * q : N + (t + 1) * q]
        slice_t = control.reserve(t).load()
        assert (added.images[:m] == slice_t.images[:m]).all(), (
            "the images that the arm real uses, the same first"
        )
        assert added.origin.tolist() == [REAL] * m + [t] * (q - m)
        assert np.bincount(added.label).tolist() == [5] * 10, (
            "told labels have exact counts, both parts together"
        )
        if arm == "real":
            assert (added.images == slice_t.images).all()
        else:
            assert not keys(added.images[m:]) & keys(slice_t.images[m:])


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_counts_of_classes_are_exact_under_every_protocol_and_the_same_in_every_arm(runs, protocol):
    e = tiny(protocol=protocol, ratio=1.0, n_test=20, start="biased", bias=0.5)
    found = run([e.to_arm(arm) for arm in ARMS], numerics=FLOAT64)
    pools = {arm: found.of(arm)[0].pools for arm in ARMS}
    for arm in ("generated", "real", "resample"):
        assert (pools[arm].sum(2) == pools["generated"].sum(2)).all()
        assert (pools[arm].sum(2) % 10 == 0).all() and len(np.unique(pools[arm][2].sum(1))) == 1
    assert (pools["none"] == pools["none"][0]).all(), "the arm none keeps the start"
    counts = real_data(e).counts
    shares = pools["real"][..., :-1] / pools["real"].sum((1, 2))[:, None, None]
    if protocol not in ("subsample", "balanced", "performative"):
        assert np.allclose(shares, counts / counts.sum()), "the reserve has the shares of the start"


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_the_pool_in_the_results_is_the_pool_that_was_trained_on(runs, store, protocol):
    e = tiny(
        protocol=protocol,
        ratio=1.0,
        condition="group",
        start="biased",
        bias=0.5,
        generator="resample",
    )
    found, real = run(e, numerics=FLOAT64).outcomes[0], real_data(e)
    for turn, pool in zip(generations(e, real, store), found.pools, strict=True):
        loaded = turn.pool.load()
        probed = real.dataset.probe(loaded.images)
        by_hand = np.zeros_like(pool)
        np.add.at(by_hand, (loaded.label, probed), 1)
        assert (pool == by_hand).all()
    # mixture: its images have the generation as their origin, those of start and reserve are REAL
    found = run(dataclasses.replace(e, generator="mixture"), numerics=FLOAT64).outcomes[0]
    plan = generations(found.experiment, real_data(found.experiment), store)
    starts = {unit: "start" for unit in real.start.load().unit.tolist()}
    for now, origins in zip(plan, found.origins, strict=True):
        loaded = now.pool.load()
        is_real = loaded.origin == REAL
        of_start = sum(starts.get(u) == "start" for u in loaded.unit[is_real].tolist())
        assert origins.tolist() == [of_start, is_real.sum() - of_start, (~is_real).sum()]


def test_streams_of_the_reserve_share_no_image_and_the_first_is_unmoved(runs):
    one = tiny(generator="reserve", n_generations=2)
    other = dataclasses.replace(one, generator_options={"stream": 1})
    first, second = real_data(one), real_data(other)
    units = [
        {int(u) for t in range(2) for u in real.reserve(t).load().unit} for real in (first, second)
    ]
    assert len(units[0]) == len(units[1]) == 100 and not units[0] & units[1]
    assert other.arm == "real" and first.start.id == second.start.id
    assert first.sizes["reserve"] == 10 and second.sizes["reserve"] == 20
    with pytest.raises(ValueError, match="not enough real images"):
        real_data(dataclasses.replace(other, n_real=1200, ratio=1.0))


def test_labels_of_the_classifier_replace_the_told_ones_in_later_pools(store, runs):
    e = tiny(labels="classifier", n_real=100, ratio=1.0, classifier="lenet", classifier_steps=20)
    plan = list(generations(e, real_data(e), store))
    seen, batch = plan[0].seen.load()["told"], plan[0].batch.load()
    assert (plan[1].pool.load().label[100:] == seen).all() and (
        batch.label == real_data(e).conditions.of_batch
    ).all()
    assert (seen != batch.label).any(), "a classifier of 100 images errs"
    found = run(e, numerics=FLOAT64)
    share = found.table.query("metric == 'relabelled' and generation == 0").value.item()
    assert share == np.mean(seen != batch.label) and set(found.table.labels) == {"classifier"}
    assert (
        found.outcomes[0].pools[1].sum(1) == np.bincount(plan[1].pool.load().label, minlength=10)
    ).all()


def test_a_warm_start_hands_on_the_weights_and_a_cold_one_does_not(store):
    base = tiny(
        classifier="lenet",
        classifier_steps=3,
        generator="gan",
        generator_steps=2,
        generator_batch=8,
    )
    for warm, handed in (
        ("none", (False, False)),
        ("generator", (True, False)),
        ("classifier", (False, True)),
        ("both", (True, True)),
    ):
        plan = list(generations(dataclasses.replace(base, warm_start=warm), real_data(base), store))
        generator = plan[1].batch.inputs["state"].inputs["previous"]
        classifier = plan[1].predictions[0].inputs["by"].state.inputs["previous"]
        assert (generator is not None, classifier is not None) == handed
        assert plan[0].batch.inputs["state"].inputs["previous"] is None
        if generator:
            assert generator is plan[0].batch.inputs["state"]


@pytest.mark.parametrize(
    ("added", "formula"),
    [
        (Protocol(start=True, batches="newest", drawn=True), True),
        (Protocol(start=True, batches="newest", balanced=True), False),
    ],
    ids=["drawn", "balanced"],
)
def test_a_protocol_is_added_in_one_line(tmp_path, monkeypatch, added, formula):
    """From the line to pools, to the table of pools and to the band of drift, or its refusal."""
    monkeypatch.setitem(PROTOCOLS, "added", added)
    e = tiny(protocol="added", ratio=1.0, n_generations=T, start="biased", bias=0.6)
    results = run([e, e.to_arm("resample")], numerics=FLOAT64, where=tmp_path)
    mine = results.of("generated")[0]
    with closing(open_store(tmp_path, FLOAT64)) as store:
        pools = [turn.pool.load() for turn in generations(e, real_data(e), store)]
    of_start = [int((pool.origin == REAL).sum()) for pool in pools]
    assert [int(origins.sum()) for origins in mine.origins] == [len(pool) for pool in pools]
    assert mine.origins[:, :2].sum(1).tolist() == of_start
    table = figures.pool_table({"": results}).iloc[0].tolist()
    assert table == [
        f"{len(pool)}" if t == 0 else f"{len(pool)} ({n})"
        for t, (pool, n) in enumerate(zip(pools, of_start, strict=True))
    ]
    figure, _ = figures.shares(results)
    bands = [axis.collections for axis in figure.axes]
    if formula:
        assert all(bands) and len(drift_band(results.of("resample"))) == 6 * (T + 1)
        expected = figures.pool_table({"": Results([dataclasses.replace(mine, origins=None)])})
        assert expected.iloc[0].tolist()[1:] == ["100 (about 50)"] * T, "what is not stored"
    else:
        assert not any(bands)
        with pytest.raises(ValueError, match="no formula for the drift of shares"):
            drift_band(results.of("resample"))
    plt.close("all")
