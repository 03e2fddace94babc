"""Experiment: every bad value is one clear sentence; names, seeds, arms and exact counts."""

import dataclasses

import numpy as np
import pytest
from conftest import tiny

from biasstudy import ARMS, Experiment
from biasstudy.core.counts import largest_remainder, spread
from biasstudy.core.registry import GENERATORS
from biasstudy.core.seeds import seed_for
from biasstudy.experiment import experiment_from

BAD = [
    ({"ratio": -0.5}, "ratio must be at least 0; got -0.5"),
    ({"ratio": float("nan")}, "ratio must be a finite number; got nan"),
    ({"ratio": float("inf")}, "ratio must be a finite number; got inf"),
    ({"ratio": "0.5"}, "ratio must be a number; got str '0.5'"),
    ({"ratio": "1e-3"}, "in YAML write 1.0e-3"),
    ({"ratio": True}, "ratio must be a number; got bool True"),
    ({"ratio": 0.0001}, "adds no image"),
    ({"seed": "[0,1]"}, "seed must be a whole number; got str '.0,1.'"),
    ({"seed": 0.5}, "seed must be a whole number; got float 0.5"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"start": "biased", "bias": 1.5}, r"bias must be in \[0, 1\]; got 1.5"),
    ({"bias": 0.5}, "an unbiased start has bias 0"),
    ({"start": "skewed"}, "unknown start 'skewed'; known: unbiased, biased"),
    ({"protocol": "replace", "ratio": 0.5}, "needs ratio 1"),
    ({"protocol": "append"}, "unknown protocol 'append'; known: accumulate"),
    (
        {"dataset": "colored-mnist"},
        "unknown data set 'colored-mnist' .*; known: .*colorized-mnist-5k",
    ),
    ({"generator": "ddmp"}, "unknown generator 'ddmp'; known: .*mixture"),
    ({"classifier": "resnet"}, "unknown classifier 'resnet' .*; known: .*lenet"),
    (
        {"filter": "best"},
        "unknown filter 'best'; known: classifier, clip, expert, frozen, none, random-cell",
    ),
    ({"condition": "colour"}, "unknown condition 'colour'; known: class, group"),
    (
        {"generator_options": {"guidance": 1.5}},
        "unknown option 'guidance' of generator 'mixture'; known: clusters",
    ),
    (
        {"generator_options": {"clusters": "many"}},
        "option 'clusters' of generator 'mixture' must be a whole number",
    ),
    ({"generator_options": [1]}, "generator_options must be a mapping"),
    ({"dataset_options": {"colors": 3}}, "unknown option 'colors' of data set"),
    (
        {"classifier": "lenet", "classifier_options": {"steps": 5}},
        "give 'steps' as classifier_steps",
    ),
    ({"generator_steps": 10}, "generator 'mixture' has no steps"),
    (
        {"warm_start": "generator"},
        "warm_start is 'generator', but generator 'mixture' has no weights to go on from",
    ),
    (
        {"warm_start": "classifier"},
        "warm_start is 'classifier', but classifier 'ridge' has no weights to go on from",
    ),
    (
        {"pretraining": "expert"},
        "pretraining 'expert' needs a classifier with weights, the same as the instrument; got "
        "classifier 'ridge', instrument 'ridge'",
    ),
    (
        {
            "pretraining": "expert",
            "classifier": "vit",
            "instrument": "vit",
            "classifier_options": {"width": 24},
        },
        "pretraining 'expert' needs the network of the instrument: its width is 192; got 24 in "
        "classifier_options",
    ),
    ({"warm_start": True}, "warm_start must be text; got bool True"),
    ({"labels": "oracle"}, "unknown labels 'oracle'; known: told, classifier"),
    ({"labels": "classifier", "condition": "group"}, "labels 'classifier' needs condition 'class'"),
    ({"shortfall": "ignore"}, "unknown shortfall 'ignore'; known: stop, keep"),
    (
        {"shortfall": "keep", "protocol": "subsample"},
        "protocol 'subsample' needs full batches; shortfall must be 'stop'",
    ),
    (
        {"fresh_share": 0.2},
        "fresh_share is used by protocols 'fresh' and 'performative' alone; got 0.2 with "
        "'accumulate'",
    ),
    (
        {"fresh_share": 1.0, "protocol": "fresh"},
        "protocol 'fresh' needs images from the reserve and from the generator",
    ),
    ({"fresh_share": 1.5, "protocol": "fresh"}, r"fresh_share must be in \[0, 1\]; got 1.5"),
    (
        {"filter": "classifier", "filter_options": {"least": 1}},
        "unknown option 'least' of filter 'classifier'; known: conf",
    ),
    (
        {"filter": "none", "filter_options": {"confidence": 0.5}},
        "unknown option 'confidence' of filter 'none'",
    ),
    ({"generator": "reserve", "generator_options": {"stream": -1}}, "stream must be at least 0"),
    ({"n_generations": 0}, "n_generations must be at least 1; got 0"),
    ({"n_real": 0}, "n_real must be at least 1"),
    ({"n_classifiers": 0}, "n_classifiers must be at least 1"),
]


@pytest.mark.parametrize(("fields", "sentence"), BAD)
def test_bad_values_are_refused_with_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        tiny(**fields)
    assert "\n" not in str(error.value)


def test_classifiers_may_be_fitted_otherwise_than_the_expert_whose_weights_they_begin_at():
    recipe = {"rate": 0.1, "smoothing": 0.1, "optimizer": "sgd"}
    e = tiny(
        pretraining="expert",
        classifier="resnet18",
        instrument="resnet18",
        classifier_options=recipe,
    )
    assert e.prior == "instruments"


def test_unknown_fields_are_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown parameter 'raito' .*; known: dataset, .*ratio"):
        experiment_from({"raito": 0.5})


def test_whole_numbers_become_floats_before_hashing():
    assert tiny(ratio=1).id == tiny(ratio=1.0).id and type(tiny(ratio=1).ratio) is float


def test_id_names_every_field_and_pair_all_but_the_arms():
    base = tiny(start="biased", bias=0.5)
    assert base.id == tiny(start="biased", bias=0.5).id
    assert len({base.to_arm(arm).id for arm in ARMS}) == len(ARMS)
    assert len({base.to_arm(arm).pair for arm in ARMS}) == 1
    assert dataclasses.replace(base, seed=1).pair != base.pair


def test_arms_follow_from_the_fields():
    base = tiny(protocol="replace", ratio=1)
    assert [base.to_arm(arm).arm for arm in ARMS] == list(ARMS)
    assert base.to_arm("none") == tiny(ratio=0.7).to_arm("none"), (
        "the arm none depends on neither ratio nor protocol"
    )
    with pytest.raises(ValueError, match="unknown arm 'fresh'"):
        base.to_arm("fresh")
    with pytest.raises(
        ValueError, match="the arm 'real-filtered' needs a filter; got filter 'none'"
    ):
        base.to_arm("real-filtered")


def test_arms_of_a_filtered_experiment():
    """The control of a filtered experiment is the unfiltered reserve, and the reserve through the
    same filter."""
    base = tiny(
        filter="classifier",
        filter_options={"confidence": 0.5},
        shortfall="keep",
        labels="classifier",
    )
    real, filtered, none = base.to_arm("real"), base.to_arm("real-filtered"), base.to_arm("none")
    assert (real.filter, real.filter_options, real.labels) == ("none", {}, "classifier")
    assert (filtered.arm, filtered.filter, filtered.filter_options) == (
        "real-filtered",
        "classifier",
        {"confidence": 0.5},
    )
    assert (
        none == tiny().to_arm("none") and len({e.pair for e in (base, real, filtered, none)}) == 1
    )


def test_the_reference_of_an_experiment_is_the_run_that_it_imitates():
    base = tiny(filter="random-cell", filter_options={"confidence": 0.7}, ratio=1.0)
    assert base.reference() == tiny(
        filter="classifier", filter_options={"confidence": 0.7}, ratio=1.0
    )
    assert tiny(filter="classifier").reference() is None and tiny().reference() is None


def test_seeds_are_named_and_fixed():
    assert seed_for(0, "generator", 1) == seed_for(0, "generator", 1)
    names = [
        (seed, what, t)
        for seed in range(5)
        for what in ("generator", "classifier", "batch")
        for t in range(20)
    ]
    assert len({seed_for(*name) for name in names}) == len(names)
    assert seed_for("a", "b") == 160431489130533461, (
        "a change of this number changes every result ever made"
    )


@pytest.mark.parametrize("n", [0, 1, 7, 100, 1001])
def test_largest_remainder_is_exact_and_close(n):
    shares = np.random.default_rng(n).dirichlet(np.ones(13))
    counts = largest_remainder(shares, n)
    assert counts.sum() == n and (abs(counts - n * shares) < 1).all()


def test_spread_has_exact_counts_and_even_prefixes():
    counts = np.array([30, 10, 0, 1])
    order = spread(counts)
    assert (np.bincount(order, minlength=4) == counts).all()
    for i in (4, 8, 20):
        assert (abs(np.bincount(order[:i], minlength=4) - i * counts / 41) < 1.5).all()


def test_registries_refuse_a_taken_name():
    with pytest.raises(
        ValueError, match="the generator name 'mixture' of conftest is already that of"
    ):
        GENERATORS.register("mixture")(tiny)


def test_code_of_users_is_versioned_by_its_source(tmp_path, monkeypatch):
    """Editing one's own generator in place must not meet the results of the older text."""

    def identity(text: str) -> str:
        (tmp_path / "mine.py").write_text(text)
        import importlib
        import linecache
        import sys

        linecache.clearcache()
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        importlib.import_module("mine")
        entry = GENERATORS._entries.pop("mine")
        return entry.identity

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    text = (
        "from dataclasses import dataclass\nfrom biasstudy import GENERATORS\n"
        "@GENERATORS.register('mine')\n@dataclass(frozen=True)\nclass Mine:\n    k: int = {}\n"
        "    def fit(self): ...\n    def sample(self): ...\n"
    )
    assert identity(text.format(1)) != identity(text.format(22222))
    assert GENERATORS["mixture"].identity == str(GENERATORS["mixture"].version)


def test_an_experiment_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().ratio = 1.0


def test_data_in_a_folder_are_called_by_the_folder():
    e = Experiment(
        dataset="folder", dataset_options={"root": "photographs/birds"}, start="as-found"
    )
    assert e.data_name == "birds" and Experiment().data_name == Experiment().dataset
