"""Decomposition: constructed generators whose shares, images or labels alone are wrong; the parts are found."""

import dataclasses

import numpy as np
import pytest
import torch

from biasstudy import ARMS, Experiment, Numerics, run
from biasstudy.data import LabeledImages
from biasstudy.decomposition import UNDONE, chosen, shares_in_classes, thinning_rates
from biasstudy.drawing import source_of
from biasstudy.inference import PARTS, decomposition
from biasstudy.registry import GENERATORS, spread
from biasstudy.training import uniform_of_images

FLOAT64 = Numerics("float64")
ALL = (*ARMS, "real-shares", "rebalance", "real-noise")


# ---- Constructed generators: they know the pool by heart and spoil one thing ------------------------------------------

class Knows:
    """Draws from the pool images of a told class; `weights` says which, `spoil` what becomes of them."""

    def fit(self, pool, told, reserve_t, *, seed, context, previous=None):
        return {"images": torch.as_tensor(pool.images), "told": torch.as_tensor(told)}

    def sample(self, state, told, first_index, *, seed, context):
        images, known = state["images"].numpy(), state["told"].numpy()
        chance, out = uniform_of_images(first_index, len(told), seed), np.empty((len(told), *images.shape[1:]), np.uint8)
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
    said = source_of(Experiment()).probe(images)
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
    base = Experiment(start="biased", bias=0.4, n_real=800, n_test=1000, classifier="ridge", instrument="ridge", ratio=1.0,
                      n_generations=1)
    arms = {name: ALL for name in PLANTED} | {"test-turns": ALL[:-1]}  # turned digits look like others
    return {name: run([dataclasses.replace(base, generator=name, seed=s).to_arm(arm) for s in range(2) for arm in arms[name]],
                      numerics=FLOAT64, where=where, progress=False) for name in PLANTED}


def _shares(results, arm):
    """Share of each group in each told class, among clear ones, mean over seeds."""
    tables = [np.array([np.bincount(o.batches[0]["group"][(o.batches[0]["label"] == k) & (o.batches[0]["group"] >= 0)],
                                    minlength=5) for k in range(10)]) for o in results.of(arm)]
    return np.mean([t / t.sum(1, keepdims=True) for t in tables], axis=0)


def test_real_images_take_the_shares_of_the_batch_and_the_thinned_batch_those_of_the_start(studies):
    results = studies["test-favours"]
    start = np.mean([o.counts / o.counts.sum(1, keepdims=True) for o in results.of("generated")], axis=0)
    generated = _shares(results, "generated")
    assert np.abs(generated - start).max() > 0.15, "the generator does change shares"
    assert np.abs(_shares(results, "real-shares") - generated).max() < 0.02
    assert np.abs(_shares(results, "real") - start).max() < 0.02
    after = np.abs(_shares(results, "rebalance") - start).mean()
    assert after < 0.035 and after < np.abs(generated - start).mean() / 2


def test_each_part_is_found_where_it_was_put(studies):
    """M after one generation: what a part should be, against the others, in units of what was planted."""
    parts = {name: decomposition(results) for name, results in studies.items()}
    assert set(parts["test-favours"]) == set(PARTS) and set(parts["test-turns"]) == set(PARTS) - {"label errors"}
    for found in parts.values():
        assert found["total"].mean == pytest.approx(found["shares"].mean + found["quality"].mean + found["interaction"].mean)
    shares, quality = parts["test-favours"], parts["test-turns"]
    assert abs(shares["shares"].mean) > 0.01 and np.sign(shares["shares"].mean) == np.sign(shares["total"].mean)
    assert abs(shares["shares"].mean) > 2 * abs(shares["quality"].mean)
    assert abs(quality["quality"].mean) > 0.01 and abs(quality["quality"].mean) > 2 * abs(quality["shares"].mean)


def test_real_images_with_wrong_labels_do_what_a_mislabelling_generator_does(studies):
    results = studies["test-mislabels"]
    def accuracy_of_5(arm):
        return np.mean([o.correct()[-1][:, o.label == 5].mean() for o in results.of(arm)])
    real, generated, noisy = (accuracy_of_5(arm) for arm in ("real", "generated", "real-noise"))
    assert real - generated > 0.05, "half of the fives are threes"
    assert noisy < (real + generated) / 2
    for noise, plain in zip(results.of("real-noise"), results.of("real"), strict=True):
        (told, seen), (_, seen_plain) = ((o.batches[0]["label"], o.batches[0]["oracle"]) for o in (noise, plain))
        assert (seen[told == 5] == 3).mean() > 0.4 > 0.2 > (seen_plain[told == 5] == 3).mean()
        agree, agree_plain = ((s == told)[told != 5].mean() for s in (seen, seen_plain))
        assert agree > agree_plain - 0.12, "of the other labels few are wrong"


# ---- Pieces ----------------------------------------------------------------------------------------------------------

def test_chosen_takes_the_first_of_each_cell_and_no_photograph_twice():
    label, unit = np.repeat([0, 1], 12), np.repeat(np.arange(8), 3)
    shelf = LabeledImages(np.zeros((24, 3, 2, 2), np.uint8), label, np.tile([0, 1, 2], 8), unit=unit)
    wanted_label, wanted_group = np.array([1, 0, 0, 1, 0, 1]), np.array([2, 0, 0, 1, 2, 2])
    index = chosen(shelf, wanted_label, wanted_group)
    assert (shelf.label[index] == wanted_label).all() and (shelf.group[index] == wanted_group).all()
    assert len(set(shelf.unit[index])) == 6
    with pytest.raises(ValueError, match="the reserve has 4 images of class 0 and group 1 for a batch that needs 5"):
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
    assert lost[:G].min() * UNDONE**2 >= 1 - 1e-9, "however far the shares are, no rate is below a ninth"


def test_shares_in_classes_ignore_other_classes_and_share_evenly_what_is_not_known():
    occurs = np.zeros((2, 4), bool)
    occurs[0, :2] = occurs[1, 2:] = True
    errs = 1000 * np.eye(4, 5, dtype=np.int64)
    label, said = np.array([0] * 8 + [1] * 4), np.array([0] * 6 + [1, 2] + [0, 0, 1, -1])
    found = shares_in_classes(label, said, errs, occurs)
    assert found[0, :2] == pytest.approx([6 / 7, 1 / 7], abs=0.01) and found[0, 2:].sum() == 0
    assert found[1, 2:] == pytest.approx([0.5, 0.5])


def test_spread_is_what_the_arms_use():
    assert np.bincount(spread(np.array([3, 1, 2]))).tolist() == [3, 1, 2]


# ---- Bad input -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("fields", "says"), [
    ({"imitate": "shares", "condition": "group"}, "needs condition 'class'"),
    ({"filter": "rebalance", "condition": "group"}, "needs condition 'class'"),
    ({"imitate": "labels", "filter": "classifier"}, "needs filter 'none'; got 'classifier'"),
    ({"imitate": "labels", "labels": "classifier"}, "needs labels 'told'"),
    ({"imitate": "labels", "generator": "resample"}, "batches that a generator made alone"),
    ({"imitate": "labels", "ratio": 0.0}, "batches that a generator made alone"),
    ({"imitate": "labels", "protocol": "fresh"}, "batches that a generator made alone"),
    ({"imitate": "looks"}, "unknown imitate 'looks'; known: nothing, shares, labels"),
])
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
