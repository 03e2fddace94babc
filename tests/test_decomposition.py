"""Decomposition: constructed generators whose shares, images or labels alone are wrong; the parts
are found."""

import dataclasses

import numpy as np
import pytest
import torch

from biasstudy import ARMS, Experiment, Numerics, run
from biasstudy.core.noise import uniform_of_images
from biasstudy.core.registry import GENERATORS
from biasstudy.data.images import LabeledImages
from biasstudy.data.real import dataset_of
from biasstudy.inference.contrasts import PARTS_OF_R, decompose
from biasstudy.loop.decomposition import UNDONE, chosen, contents, shares_found, thinning_rates
from biasstudy.measures.shares import told_counts

FLOAT64 = Numerics("float64")
ALL = (*ARMS, "real-shares", "rebalance", "real-noise")


# ---- Constructed generators: they know the pool by heart and spoil one thing ---------------------


class Knows:
    """Draws from the pool images of a told class; `weights` says which, `spoil` what becomes of
    them."""

    def fit(self, pool, told, reserve_t, *, seed, context, previous=None):
        return {"images": torch.as_tensor(pool.images), "told": torch.as_tensor(told)}

    def sample(self, state, told, first_index, *, seed, context):
        images, known = state["images"].numpy(), state["told"].numpy()
        chance, out = (
            uniform_of_images(first_index, len(told), seed),
            np.empty((len(told), *images.shape[1:]), np.uint8),
        )
        for c in np.unique(told):
            asked, members = told == c, images[known == self.shown(int(c))]
            edges = np.cumsum(self.weights(members))
            index = np.minimum(np.searchsorted(edges / edges[-1], chance[asked]), len(members) - 1)
            out[asked] = self.spoil(members)[index]
        return out

    def shown(self, c):
        return c

    def weights(self, images):
        return np.ones(len(images))

    def spoil(self, images):
        return images


def _common(images):
    """Whether the colour of each image is the most common one among them."""
    said = dataset_of(Experiment()).probe(images)
    return said == np.bincount(said[said >= 0]).argmax()


@dataclasses.dataclass(frozen=True)
class _Favours(Knows):
    def weights(self, images):
        return np.where(_common(images), 2.5, 1.0)


@dataclasses.dataclass(frozen=True)
class _Turns(Knows):
    def spoil(self, images):
        return np.where(_common(images)[:, None, None, None], images, images[:, :, ::-1])


@dataclasses.dataclass(frozen=True)
class _Mislabels(Knows):
    def shown(self, c):
        return 3 if c == 5 else c


PLANTED = {"test-favours": _Favours, "test-turns": _Turns, "test-mislabels": _Mislabels}


@pytest.fixture(scope="module", autouse=True)
def planted():
    for name, made in PLANTED.items():
        GENERATORS.register(name)(made)
    yield
    for name in PLANTED:
        del GENERATORS._entries[name]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    where = tmp_path_factory.mktemp("runs")
    base = Experiment(
        start="biased",
        bias=0.4,
        n_real=800,
        n_test=1000,
        classifier="ridge",
        instrument="ridge",
        ratio=1.0,
        n_generations=1,
    )
    # turned digits look like others
    arms = {name: ALL for name in PLANTED} | {"test-turns": ALL[:-1]}
    return {
        name: run(
            [
                dataclasses.replace(base, generator=name, seed=s).to_arm(arm)
                for s in range(2)
                for arm in arms[name]
            ],
            numerics=FLOAT64,
            where=where,
            progress=False,
        )
        for name in PLANTED
    }


def _shares(results, arm):
    """Share of each group in each told class, among clear ones, mean over seeds."""
    tables = [
        np.array(
            [
                np.bincount(
                    o.batches[0]["group"][
                        (o.batches[0]["label"] == k) & (o.batches[0]["group"] >= 0)
                    ],
                    minlength=5,
                )
                for k in range(10)
            ]
        )
        for o in results.of(arm)
    ]
    return np.mean([t / t.sum(1, keepdims=True) for t in tables], axis=0)


def test_real_images_take_the_shares_of_the_batch_and_the_thinned_batch_those_of_the_start(studies):
    results = studies["test-favours"]
    start = np.mean(
        [o.counts / o.counts.sum(1, keepdims=True) for o in results.of("generated")], axis=0
    )
    generated = _shares(results, "generated")
    assert np.abs(generated - start).max() > 0.15, "the generator does change shares"
    assert np.abs(_shares(results, "real-shares") - generated).max() < 0.02
    assert np.abs(_shares(results, "real") - start).max() < 0.02
    after = np.abs(_shares(results, "rebalance") - start).mean()
    assert after < 0.035 and after < np.abs(generated - start).mean() / 2


def test_each_part_is_found_where_it_was_put(studies):
    """M after one generation: what a part should be, against the others, in units of what was
    planted."""
    parts = {name: decompose(results) for name, results in studies.items()}
    assert set(parts["test-favours"]) == set(PARTS_OF_R)
    assert set(parts["test-turns"]) == set(PARTS_OF_R) - {"label errors"}
    for found in parts.values():
        assert found["total"].mean == pytest.approx(
            found["shares"].mean + found["quality"].mean + found["interaction"].mean
        )
    shares, quality = parts["test-favours"], parts["test-turns"]
    assert abs(shares["shares"].mean) > 0.01 and np.sign(shares["shares"].mean) == np.sign(
        shares["total"].mean
    )
    assert abs(shares["shares"].mean) > 2 * abs(shares["quality"].mean)
    assert abs(quality["quality"].mean) > 0.01 and abs(quality["quality"].mean) > 2 * abs(
        quality["shares"].mean
    )


def test_real_images_with_wrong_labels_do_what_a_mislabelling_generator_does(studies):
    results = studies["test-mislabels"]

    def accuracy_of_5(arm):
        return np.mean([o.correct()[-1][:, o.label == 5].mean() for o in results.of(arm)])

    real, generated, noisy = (accuracy_of_5(arm) for arm in ("real", "generated", "real-noise"))
    assert real - generated > 0.05, "half of the fives are threes"
    assert noisy < (real + generated) / 2
    for noise, plain in zip(results.of("real-noise"), results.of("real"), strict=True):
        (told, seen), (_, seen_plain) = (
            (o.batches[0]["label"], o.batches[0]["oracle"]) for o in (noise, plain)
        )
        assert (seen[told == 5] == 3).mean() > 0.4 > 0.2 > (seen_plain[told == 5] == 3).mean()
        agree, agree_plain = ((s == told)[told != 5].mean() for s in (seen, seen_plain))
        assert agree > agree_plain - 0.06, "the other labels are as right as they were"


# ---- Pieces --------------------------------------------------------------------------------------


def test_chosen_takes_the_first_of_each_cell_and_no_photograph_twice():
    label, unit = np.repeat([0, 1], 12), np.repeat(np.arange(8), 3)
    shelf = LabeledImages(
        np.zeros((24, 3, 2, 2), np.uint8), label, np.tile([0, 1, 2], 8), unit=unit
    )
    wanted_label, wanted_group = np.array([1, 0, 0, 1, 0, 1]), np.array([2, 0, 0, 1, 2, 2])
    index = chosen(shelf, wanted_label, wanted_group)
    assert (shelf.label[index] == wanted_label).all() and (shelf.group[index] == wanted_group).all()
    assert len(set(shelf.unit[index])) == 6
    with pytest.raises(
        ValueError, match="5 images of class number 0, group number 1, and the reserve has 4"
    ):
        chosen(shelf, np.zeros(5, int), np.ones(5, int))


@pytest.mark.parametrize("accuracy", [1.0, 0.7, 0.5])
def test_thinning_rates_bring_shares_back_even_with_a_probe_that_errs(accuracy):
    G, rng = 5, np.random.default_rng(0)
    wanted = np.array([0.3, 0.3, 0.2, 0.1, 0.1, 0, 0])
    share = wanted * np.array([1.2, 0.8, 1.1, 0.9, 0.8, 0, 0])
    share /= share.sum()
    confusion = np.full((7, 8), (1 - accuracy) / 7)
    confusion[range(7), range(7)] = accuracy
    rates = thinning_rates(share, wanted, confusion)
    assert rates.shape == (8,) and rates.min() >= 0 and rates.max() == 1
    kept = share * (confusion @ rates)
    assert kept[:G] / kept.sum() == pytest.approx(wanted[:G], abs=1e-6)
    lost = thinning_rates(rng.dirichlet(np.ones(7)) * (wanted > 0), wanted, confusion)
    assert lost[:G].min() * UNDONE**2 >= 1 - 1e-9, (
        "however far the shares are, no rate is below a ninth"
    )


def images(label, group):
    return LabeledImages(np.zeros((len(label), 3, 2, 2), np.uint8), label, group)


def test_shares_told_exactly_are_counted_and_those_of_an_empty_class_are_the_starts():
    start = np.array([[6, 2, 0, 0], [0, 0, 3, 1]])
    label, said = np.array([0] * 8 + [1] * 4), np.array([0] * 6 + [1, 2] + [0, 0, 1, -1])
    found = shares_found(
        images(label, np.full(12, -1)), {"told": said}, None, None, start, np.zeros((2, 4), int)
    )
    assert found[0].tolist() == [6 / 7, 1 / 7, 0, 0] and found[1].tolist() == [0, 0, 0.75, 0.25]


def probe_that_errs(rng, true, accuracy, n):
    """What is said of true groups or classes: right this often, else any other."""
    wrong = (true + rng.integers(1, n, len(true))) % n
    return {"told": np.where(rng.random(len(true)) < accuracy, true, wrong)}


@pytest.mark.parametrize("favoured_share", [0.857, 0.7])
def test_a_poor_probe_does_not_move_the_shares_that_real_images_copy(favoured_share):
    """The null of `real-shares`: 20 classes of five groups, two of them rare, and a probe that is
    right on 45 %."""
    rng, K = np.random.default_rng(0), 20
    start = np.zeros((K, 100), int)
    start[np.arange(100) // 5, np.arange(100)] = np.tile([20, 20, 20, 5, 5], K)
    favoured = np.where(start == 20, 1, np.where(start == 5, -1, 0))
    test = images(np.arange(10_000) // 500, np.arange(10_000) // 100)
    of_test = probe_that_errs(rng, test.group, 0.45, 100)
    copied = []
    for _ in range(10):
        share = np.repeat([favoured_share / 3, (1 - favoured_share) / 2], [3, 2])
        label = np.repeat(np.arange(K), 125)
        group = label * 5 + rng.choice(5, len(label), p=share)
        found = shares_found(
            images(label, np.full(len(label), -1)),
            probe_that_errs(rng, group, 0.45, 100),
            test,
            of_test,
            start,
            favoured,
        )
        assert (
            found.min() >= 0 and found.sum(1) == pytest.approx(1) and (found[start == 0] == 0).all()
        )
        copied.append(found[favoured > 0].sum() / K)
    assert np.mean(copied) == pytest.approx(favoured_share, abs=0.02)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
@pytest.mark.parametrize("accuracy", [0.45, 0.8])
def test_a_poor_oracle_does_not_make_labels_wrong(wrong, accuracy):
    """The null of `real-noise`: as many labels are wrong as there were, also where there were
    none."""
    rng, K = np.random.default_rng(1), 20
    test = np.repeat(np.arange(K), 500)
    rates = told_counts(test, probe_that_errs(rng, test, accuracy, K)["told"], (K, K))[:, :-1] / 500
    label, found = np.repeat(np.arange(K), 125), []
    for _ in range(10):
        true = np.where(rng.random(len(label)) < wrong, (label + 1) % K, label)
        shown = contents(
            label, np.zeros_like(label), probe_that_errs(rng, true, accuracy, K)["told"], rates
        )
        found.append((shown != label).mean())
    assert np.mean(found) == pytest.approx(wrong, abs=0.025)


def test_labels_are_wrong_where_they_were():
    rng, K = np.random.default_rng(2), 10
    label, stratum = np.repeat(np.arange(K), 400), np.tile([0, 1], 200 * K)
    true = np.where((stratum == 1) & (rng.random(len(label)) < 0.4), (label + 3) % K, label)
    shown = contents(label, stratum, true, np.eye(K))
    assert (shown == label)[stratum == 0].all() and (shown != label)[
        stratum == 1
    ].mean() == pytest.approx(0.4, abs=0.05)
    assert set((shown - label)[stratum == 1] % K) == {0, 3}


# ---- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"imitate": "shares", "condition": "group"}, "needs condition 'class'"),
        ({"filter": "rebalance", "condition": "group"}, "needs condition 'class'"),
        ({"imitate": "labels", "filter": "classifier"}, "needs filter 'none'; got 'classifier'"),
        ({"imitate": "labels", "labels": "classifier"}, "needs labels 'told'"),
        ({"imitate": "labels", "generator": "resample"}, "batches that a generator made alone"),
        ({"imitate": "labels", "ratio": 0.0}, "batches that a generator made alone"),
        ({"imitate": "labels", "protocol": "fresh"}, "batches that a generator made alone"),
        ({"imitate": "looks"}, "unknown imitate 'looks'; known: nothing, shares, labels"),
    ],
)
def test_arms_that_cannot_be_are_refused_with_one_sentence(fields, says):
    with pytest.raises(ValueError, match=says):
        Experiment(**fields)


@pytest.mark.parametrize("arm", ["real-shares", "rebalance", "real-noise"])
def test_an_arm_and_its_reference_name_each_other(arm):
    e = Experiment(start="biased", bias=0.5)
    derived = e.to_arm(arm)
    assert derived.arm == arm and derived.pair == e.pair and derived.id != e.id
    assert derived.reference() == (None if arm == "rebalance" else e)
    with pytest.raises(ValueError, match="needs filter 'none'" if arm == "rebalance" else "needs"):
        dataclasses.replace(e, filter="classifier").to_arm(arm)
    with pytest.raises(ValueError, match="is a control"):
        e.to_arm("real").to_arm(arm)
