"""Null experiments through the whole code: where nothing happens nothing is found; what is planted
is found."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from conftest import FLOAT64, tiny
from scipy import stats

from biasstudy import GENERATORS, run
from biasstudy.bench import nulls
from biasstudy.data.real import real_data
from biasstudy.inference.secondary import SECONDARY, difference
from biasstudy.inference.verdicts import change_between, verdict
from biasstudy.measures.drift import drift_band


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """`run` in a store of this module, without waiting for the disk: hundreds of experiments of
    some milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biasstudy.core.store.os.fsync", lambda handle: None)
        yield functools.partial(
            run, numerics=FLOAT64, where=tmp_path_factory.mktemp("nulls"), progress=False
        )


BASE = tiny(start="biased", bias=0.6, ratio=1.0)


def test_forty_studies_of_equal_arms_raise_no_more_alarms_than_promised(quick):
    """`real` against `real` with other images, six seeds each, through contrast, interval and
    verdict."""
    studies = nulls.aa_studies(dataclasses.replace(BASE, n_generations=1), 40, run=quick)
    assert len(studies) == 40 and set(studies.n) == {6}
    assert nulls.alarms(studies) <= stats.binom.ppf(0.99, 40, 0.05)
    assert stats.kstest(studies.p, "uniform").pvalue > 0.001
    assert studies["mean"].abs().max() > 0.01, "the arms are not simply the same"


def test_secondary_metrics_raise_no_more_alarms_than_promised_either(quick):
    """Twenty of the same studies of equal arms, each metric by its own interval."""
    real = dataclasses.replace(BASE, n_generations=1).to_arm("real")
    p_values = {metric: [] for metric in SECONDARY}
    for study in range(20):
        first, second = (
            quick(
                [
                    dataclasses.replace(
                        real, seed=6 * study + s, generator_options={"stream": stream}
                    )
                    for s in range(6)
                ]
            ).outcomes
            for stream in (0, 1)
        )
        for metric, p in p_values.items():
            p.append(difference(first, second, metric).p)
    for metric, p in p_values.items():
        assert np.sum(np.array(p) < 0.05) <= stats.binom.ppf(0.999, 20, 0.05), metric
    alarms = np.mean(np.concatenate(list(p_values.values())) < 0.05)
    assert 0 < alarms < 0.1


def test_an_alarm_is_raised_where_there_is_a_difference(quick):
    """The same code calls a planted difference a change: the arm `none` against a start that is
    less biased."""
    seeds = [
        dataclasses.replace(BASE, n_real=400, n_test=60, n_generations=1, seed=s).to_arm("none")
        for s in range(6)
    ]
    biased = quick([dataclasses.replace(e, bias=0.9) for e in seeds]).outcomes
    planted = [dataclasses.replace(o, experiment=e) for o, e in zip(biased, seeds, strict=True)]
    found = change_between(planted, quick(seeds).outcomes)
    assert verdict(found).word == "amplified"


def test_nothing_changes_where_nothing_happens(quick):
    table = nulls.changes(dataclasses.replace(BASE, n_test=60), 12, run=quick)
    means = nulls.mean_changes(table).set_index(["null", "metric"])
    se = (means.high - means.low) / (2 * stats.t.ppf(0.975, 11))
    assert (means.loc["perfect", "mean"].abs() <= 3.5 * se.loc["perfect"]).all()
    assert (means.loc["none", "mean"].abs() < 1e-9).all(), "ridge has no noise"
    assert not (se.loc["none"] > 1e-9).any(), "none at all where the seeds have one value"
    assert (se.loc["perfect"] > 0).all() and set(means.index.get_level_values("metric")) == set(
        nulls.CHANGES
    )


@pytest.mark.parametrize("protocol", ["accumulate", "latest", "replace", "subsample", "fresh"])
def test_the_bootstrap_drifts_as_the_formula_says(quick, protocol):
    """The arm `resample` through the loop, with its pools and probes: shift within 4 standard
    errors, spread within chance."""
    found = nulls.drifts(
        dataclasses.replace(BASE, n_test=10, n_generations=3), 16, (protocol,), run=quick
    )
    assert (found["shift"].abs() < 4 * found.expected_sd / 4).all()
    ratio = np.sqrt((found.sd**2).mean() / (found.expected_sd**2).mean())
    assert 0.75 < ratio < 1.3


def test_full_tables_are_what_the_figure_and_the_sentences_need(quick, monkeypatch):
    import matplotlib

    matplotlib.use("agg")
    small = dataclasses.replace(nulls.SMALL, n_real=100, n_test=20)
    monkeypatch.setattr(nulls, "SMALL", small)
    tables = {
        "changes": nulls.changes(dataclasses.replace(small, n_generations=2), 3, run=quick),
        "aa": nulls.aa_studies(dataclasses.replace(small, n_generations=1), 2, run=quick),
        "drift": nulls.drifts(dataclasses.replace(small, n_generations=2), 3, run=quick),
    }
    figure, said = nulls.null_figure(tables), nulls.null_sentences(tables)
    assert len(figure.axes) == 3 and "2 A/A studies of 6 seeds" in figure.axes[1].get_title(
        loc="left"
    )
    assert any(line.startswith("A/A: ") for line in said) and len(said) == 8


# ---- What is planted is found --------------------------------------------------------------------


@pytest.fixture
def halves():
    """A generator, told nothing about groups, that makes group 0 half as often as its pool has
    it."""

    @dataclasses.dataclass(frozen=True)
    class Halves:
        def fit(self, pool, told, reserve_t, *, seed, context, previous=None):
            group = torch.from_numpy(real_data(tiny()).dataset.probe(pool.images))
            return {
                "images": torch.from_numpy(pool.images),
                "told": torch.from_numpy(told),
                "group": group,
            }

        def sample(self, state, told, first_index, *, seed, context):
            images, known, group = (state[name].numpy() for name in ("images", "told", "group"))
            out = np.empty((len(told), *images.shape[1:]), np.uint8)
            for c in np.unique(told):
                rows, members = np.flatnonzero(told == c), np.flatnonzero(known == c)
                few, many = members[group[members] == 0], members[group[members] != 0]
                n = round(len(rows) * len(few) / len(members) / 2)
                out[rows] = images[
                    np.concatenate([np.resize(few, n), np.resize(many, len(rows) - n)])
                ]
            return out

    GENERATORS.register("halves")(Halves)
    yield
    GENERATORS._entries.pop("halves")


@pytest.mark.parametrize(
    ("protocol", "shares"),
    [("accumulate", [0.2, 0.15, 0.125, 0.109, 0.098]), ("replace", [0.2, 0.1, 0.05, 0.025])],
)
def test_a_planted_generator_that_halves_a_group_is_found_with_the_closed_form(
    quick, halves, protocol, shares
):
    """Pool share p of the group at ratio 1: accumulate p_{t+1} = ((1 + t) p_t + p_t / 2) / (2 + t);
    replace p_t / 2."""
    e = tiny(
        n_real=800,
        n_test=20,
        generator="halves",
        ratio=1.0,
        protocol=protocol,
        n_generations=len(shares) - 1,
    )
    found = quick(e).outcomes[0]
    pools = found.pools[:, :, 0].sum(1) / found.pools.sum((1, 2))
    assert np.allclose(pools, shares, atol=0.006 if protocol == "accumulate" else 0.012)
    shift = found.pools[-1, :, 0].sum() / found.pools[-1].sum() - 0.2
    band = drift_band([found], of="pool").query(
        "metric == 'group-share' and group == @found.groups[0]"
    )
    band = band.set_index("generation")
    assert 0.2 + shift < band.low.loc[len(shares) - 1], "far outside of what sampling does"


def test_a_loss_in_whole_classes_is_not_called_bias(quick):
    """Two classes lose a third of their accuracy in every group: accuracy falls, the contrast does
    not move."""
    seeds = [
        dataclasses.replace(BASE, n_test=60, n_generations=1, seed=s).to_arm("none")
        for s in range(6)
    ]
    before, rng = quick(seeds).outcomes, np.random.default_rng(0)

    def spoiled(o):
        predicted = o.predicted.copy()
        for unit in np.unique(o.unit[o.label < 2]):  # a photograph is lost in all its colours
            if rng.random() < 1 / 3:
                predicted[-1, :, o.unit == unit] = 9
        return dataclasses.replace(o, predicted=predicted)

    after = [spoiled(o) for o in before]
    judged = verdict(change_between(after, before, margin=0.0))
    assert judged.word not in ("amplified", "reduced") and not judged.clause
    assert (
        np.mean(
            [
                np.mean(a.correct()[-1]) - np.mean(b.correct()[-1])
                for a, b in zip(after, before, strict=True)
            ]
        )
        < -0.02
    )
