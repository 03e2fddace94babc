"""Contracts over the registries: a new data set, generator, classifier or metric is tested the
moment it is registered."""

import dataclasses
import hashlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FLOAT64, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import from_disk

from biasstudy import (
    CLASSIFIERS,
    DATASETS,
    FILTERS,
    GENERATORS,
    METRICS,
    Dataset,
    LabeledImages,
    run,
)
from biasstudy.core.context import Context
from biasstudy.core.numerics import Numerics
from biasstudy.core.store import NotEnoughMemory
from biasstudy.data.real import real_data

CONTEXT = Context(FLOAT64)
FINGERPRINTS = Path(__file__).parent / "fingerprints.json"
FETCHED = ("cifar100", "cifar20", "colorized-mnist", "folder", "hard-imagenet")
OFFLINE = [name for name in DATASETS if name not in FETCHED]
GENERATED = [name for name in GENERATORS if name not in ("reserve",)]
SHORT = {"steps": 4, "batch": 16}
LIGHT = {
    "airbench": {"width": 16, "rate": 0.02},
    "diffusion": {"sampling_steps": 2, "patch": 4, "channels": 8},
    "local-score": {"sampling_steps": 3},
    "resnet18": {"steps": 1, "batch": 2},
    "resnet50": {"steps": 1, "batch": 2},
    "squeezenet": {"steps": 2, "batch": 4},
    "vit": {"width": 24, "depth": 2},
}
HEAVY = ("resnet18", "resnet50", "squeezenet")  # a step takes up to half a second on one core


def shapes(n=60, size=28, n_classes=3) -> LabeledImages:
    """Three easy classes in two colours: a bar, a block, a frame."""
    rng, label = np.random.default_rng(0), np.arange(n) % n_classes
    group, images = np.arange(n) // n_classes % 2, np.zeros((n, 3, size, size), np.uint8)
    for i, (y, g) in enumerate(zip(label, group, strict=True)):
        x = 4 + int(rng.integers(0, 3))
        images[i, g, x : x + (4 if y == 0 else 14), 6:20] = images[
            i, 2, x : x + (4 if y == 0 else 14), 6:20
        ] = 220
        if y == 2:
            images[i, :, x + 3 : x + 11, 9:17] = 0
    return LabeledImages(images, label, group)


def made(registry, name, **options):
    known = registry[name].defaults()
    light = {**SHORT, **LIGHT.get(name, {}), **from_disk(name), **options}
    return registry[name].target(**{k: v for k, v in light.items() if k in known})


def few(name, size=28) -> LabeledImages:
    """As many shapes as a test of this classifier can afford."""
    return shapes(12 if name in HEAVY else 60, size)


# ---- Data sets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OFFLINE)
def test_data_set_contract(name):
    source, again = DATASETS[name].target(), DATASETS[name].target()
    assert isinstance(source, Dataset) and source.checksum == again.checksum
    assert (source.train.images[:50] == again.train.images[:50]).all()
    assert (
        len(set(source.classes)) == source.n_classes and len(set(source.groups)) == source.n_groups
    )
    assert set(source.train.label) == set(source.test.label) == set(range(source.n_classes))
    if source.design == "nested":
        assert (source.occurs.sum(0) == 1).all(), "a group belongs to one class"
    if source.paint is None:
        assert (source.test.counts(source.n_classes, source.n_groups)[source.occurs] > 0).all()
    else:
        part = source.test[:40]
        painted = source.paint(part.images, np.ones(40, int), part.unit, 0)
        assert painted.dtype == np.uint8 and painted.shape[:2] == (40, 3)
        assert (
            painted[10:20]
            == source.paint(part.images[10:20], np.ones(10, int), part.unit[10:20], 0)
        ).all()
        assert (painted != source.paint(part.images, np.ones(40, int), part.unit, 1)).any()


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_data_set_has_a_data_card(name):
    card = inspect.getdoc(DATASETS[name].target)
    assert card and "size " in card and "flaws " in card


# ---- Generators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("size", [28, 32])
def test_generator_contract(name, size):
    pool, model = shapes(size=size), made(GENERATORS, name)
    assert dataclasses.is_dataclass(model) and model.__dataclass_params__.frozen
    told = np.arange(300) % 3

    def fit(seed):
        return model.fit(pool, pool.label, None, seed=seed, context=CONTEXT)

    def sample(state, told=told, first=0, seed=5):
        return model.sample(state, told, first, seed=seed, context=CONTEXT)

    state = fit(1)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    images = sample(state)
    assert images.dtype == np.uint8 and images.shape == (300, 3, size, size)
    assert (images == sample(fit(1))).all(), "same seed, same images"
    assert (images != sample(state, seed=6)).any(), "other seed, other images"
    later = sample(state, told[270:], 270)
    assert abs(later.astype(int) - images[270:]).max() <= 1, (
        "image i does not depend on how many are asked for"
    )
    same_told = sample(state, np.where(np.arange(300) < 270, 0, told))
    assert abs(same_told[270:].astype(int) - images[270:]).max() <= 1, (
        "nor on what the others are told"
    )


@pytest.mark.parametrize("name", list(GENERATORS))
def test_only_reserve_looks_at_the_reserve(name):
    fit = GENERATORS[name].target.fit
    uses = inspect.getsource(fit).count("reserve_t")
    assert uses == 1 or name == "reserve"


def test_reserve_hands_out_every_image_once_in_order():
    model, fresh = made(GENERATORS, "reserve"), shapes(30)
    state = model.fit(shapes(60), shapes(60).label, fresh, seed=0, context=CONTEXT)
    first = model.sample(state, fresh.label[:20], 0, seed=0, context=CONTEXT)
    rest = model.sample(state, fresh.label[20:], 20, seed=0, context=CONTEXT)
    assert (np.concatenate([first, rest]) == fresh.images).all()
    with pytest.raises(ValueError, match="the reserve slice has 30 images; 31 were asked for"):
        model.sample(state, np.zeros(11, int), 20, seed=0, context=CONTEXT)


def test_resample_stays_within_the_told_condition():
    model, pool = made(GENERATORS, "resample"), shapes(60)
    told = np.arange(200) % 3
    out = model.sample(
        model.fit(pool, pool.label, None, seed=0, context=CONTEXT), told, 0, seed=1, context=CONTEXT
    )
    index = {image.tobytes(): y for image, y in zip(pool.images, pool.label, strict=True)}
    assert [index[image.tobytes()] for image in out] == told.tolist()


def test_mixture_has_the_mean_and_covariance_of_its_cluster():
    """One cluster: the factor A / sqrt(n - 1) must give the sample covariance, here on a few pixels
    without clipping."""
    rng = np.random.default_rng(0)
    images = np.full((200, 3, 28, 28), 128, np.uint8)
    block = rng.multivariate_normal(
        [120, 130, 140], [[200, 90, 0], [90, 150, 40], [0, 40, 100]], 200
    ).round()
    images[:, 0, 0, :3] = block.astype(np.uint8)
    model = GENERATORS["mixture"].target(clusters=1)
    state = model.fit(
        LabeledImages(images, np.zeros(200, int), np.zeros(200, int)),
        np.zeros(200, int),
        None,
        seed=0,
        context=CONTEXT,
    )
    out = model.sample(state, np.zeros(20000, int), 0, seed=1, context=CONTEXT)[:, 0, 0, :3].astype(
        float
    )
    assert np.allclose(out.mean(0), block.mean(0), atol=0.5)
    assert np.allclose(np.cov(out.T), np.cov(block.T) + np.eye(3) / 12, atol=8)


@pytest.mark.parametrize("bad", [{"clusters": 0}, {"rounds": 0}])
def test_mixture_options_are_checked(bad):
    with pytest.raises(ValueError, match="must be at least 1; got 0"):
        GENERATORS["mixture"].target(**bad)


# ---- Classifiers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CLASSIFIERS))
@pytest.mark.parametrize("size", [28, 32])
def test_classifier_contract(name, size):
    pool, model = few(name, size), made(CLASSIFIERS, name)

    def predict(seed, images=pool.images):
        return model.predict(
            model.fit(pool, 5, seed=seed, context=CONTEXT), images, context=CONTEXT
        )

    p = predict(1)
    assert p.shape == (len(pool), 5) and p.dtype == np.float32, "an output for every class"
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert (p == predict(1)).all()
    if "steps" in CLASSIFIERS[name].defaults():
        assert (p != predict(2)).any()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in HEAVY else ()) for n in CLASSIFIERS]
)
def test_classifiers_learn_an_easy_task(name):
    pool, model = shapes(90), made(CLASSIFIERS, name, steps=60, batch=16)
    context = Context(Numerics("float32"))
    state = model.fit(pool, 3, seed=0, context=context)
    assert (model.predict(state, pool.images, context=context).argmax(1) == pool.label).mean() > 0.9


# ---- Filters -------------------------------------------------------------------------------------


def asked(name, **options):
    """What a filter says about 60 images, and what it was given."""
    pool, rng = shapes(), np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(3), 60)
    rates = rng.random(60)
    ranks = np.column_stack([rates, np.minimum(rates + 0.1, 1)])
    judged = {None: None, "rates": rates, "start": rates, "clip": rates, "ranks": ranks}.get(
        FILTERS[name].traits.get("judge"), probability
    )
    chance = rng.random(60)
    return (
        FILTERS[name].target(pool.images, pool.label, judged, chance, **options),
        pool,
        judged,
        chance,
    )


@pytest.mark.parametrize("name", list(FILTERS))
def test_filter_contract(name):
    accepted, pool, judged, chance = asked(name)
    assert accepted.dtype == bool and accepted.shape == (60,)
    assert FILTERS[name].traits.get("judge") in (
        None,
        "own",
        "first",
        "expert",
        "rates",
        "start",
        "clip",
        "ranks",
    )
    one = np.array([7, 41])  # the decision about an image does not depend on the others
    part = FILTERS[name].target(
        pool.images[one], pool.label[one], None if judged is None else judged[one], chance[one]
    )
    assert (part == accepted[one]).all()
    if "imitates" in FILTERS[name].traits:
        assert set(FILTERS[name].defaults()) == set(
            FILTERS[FILTERS[name].traits["imitates"]].defaults()
        )


@pytest.mark.parametrize("name", ["classifier", "frozen", "expert"])
def test_a_judge_accepts_what_it_recognises_with_enough_confidence(name):
    accepted, pool, probability, _ = asked(name)
    assert (accepted == (probability.argmax(1) == pool.label)).all() and 0 < accepted.mean() < 1
    sure, *_ = asked(name, confidence=0.6)
    assert (
        sure == accepted & (probability[np.arange(60), pool.label] >= 0.6)
    ).all() and sure.sum() < accepted.sum()


# ---- All kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "registry", [DATASETS, GENERATORS, CLASSIFIERS, FILTERS, METRICS], ids=lambda r: r.noun
)
def test_every_entry_says_what_it_is(registry):
    for name, entry in registry.items():
        text = inspect.getdoc(entry.target)
        first = text.split("\n\n")[0].rstrip() if text else ""
        assert first[:1].isupper() and first.endswith((".", ":")), name
        assert name == name.lower() and " " not in name and "_" not in name
        if registry is METRICS:
            assert "returns " in text and "nan" in text, (
                f"{name}: what is returned, and when it is nan"
            )


def _fingerprint(registry, name) -> str:
    """Hash of a tiny float64 result, rounded to 6 digits."""
    if registry is DATASETS:
        source = DATASETS[name].target()
        part = source.test[:20]
        values = (
            source.paint(part.images, np.arange(20) % 2, part.unit, 0)
            if source.paint
            else part.images
        )
    elif registry is GENERATORS:
        pool, model = shapes(), made(GENERATORS, name)
        state = model.fit(pool, pool.label, pool, seed=1, context=CONTEXT)
        values = model.sample(state, np.arange(9) % 3, 0, seed=2, context=CONTEXT)
    elif registry is CLASSIFIERS:
        pool, model = few(name), made(CLASSIFIERS, name)
        values = model.predict(
            model.fit(pool, 3, seed=1, context=CONTEXT), pool.images, context=CONTEXT
        )
    elif registry is FILTERS:
        values = asked(name)[0]
    else:
        label, group = np.arange(60) % 3, np.arange(60) // 3 % 4
        predicted = np.where(np.arange(60) % 7 < 5, label, (label + group) % 3)
        from biasstudy.measures.metrics import measure

        favoured = np.where(np.arange(4) == np.arange(3)[:, None], 1, -1)
        known = {
            "occurs": np.ones((3, 4), bool),
            "favoured": favoured,
            "confidence": np.arange(60) % 11 / 10,
            "unit": np.arange(60) // 12 * 3 + label,
            "start_counts": 3 + 2 * favoured,
            "pool_counts": np.arange(12).reshape(3, 4) + 1,
        }
        values = [
            v.value
            for v in measure(
                name, label, predicted, group, design="crossed", biased=True, known=known
            )
        ]
    rounded = np.asarray(values, float).round(6 if registry is METRICS else 5) + 0.0
    return hashlib.sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest()[:16]


ENTRIES = [
    (registry, name)
    for registry in (DATASETS, GENERATORS, CLASSIFIERS, FILTERS, METRICS)
    for name in registry
    if name not in FETCHED
]


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=[f"{r.noun} {n}" for r, n in ENTRIES])
def test_a_changed_result_has_a_new_version(registry, name):
    """Stored stages are found by version: a result that changes under the same version would mix
    old and new.

    To accept a change: raise the entry's version, then python tests/test_registries.py writes the
    new fingerprint.
    """
    key, version = f"{registry.noun} {name}", registry[name].version
    known = json.loads(FINGERPRINTS.read_text()).get(key)
    assert known, f"no fingerprint of {key!r} yet: run python tests/test_registries.py"
    found = _fingerprint(registry, name)
    if known["version"] == version:
        assert found == known["hash"], (
            f"results changed: bump the version of {name!r} and run python tests/test_registries.py"
        )
    else:
        assert found == known["hash"], (
            f"version {version} of {name!r} has no fingerprint: run python tests/test_registries.py"
        )


if __name__ == "__main__":
    old = json.loads(FINGERPRINTS.read_text()) if FINGERPRINTS.exists() else {}
    new = {}
    for registry, name in ENTRIES:
        key, version, found = (
            f"{registry.noun} {name}",
            registry[name].version,
            _fingerprint(registry, name),
        )
        if key in old and old[key]["version"] == version and old[key]["hash"] != found:
            raise SystemExit(
                f"results of {key!r} changed but its version is still {version}: bump it first"
            )
        new[key] = {"version": version, "hash": found}
    FINGERPRINTS.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")


# ---- Options that cannot be ----------------------------------------------------------------------

ROLES = {
    "generator": (GENERATORS, "generator_options"),
    "classifier": (CLASSIFIERS, "classifier_options"),
    "instrument": (CLASSIFIERS, "instrument_options"),
    "filter": (FILTERS, "filter_options"),
    "dataset": (DATASETS, "dataset_options"),
}
OPTIONS = [
    (role, name, option, default)
    for role, (registry, _) in ROLES.items()
    for name in registry
    if role != "dataset" or name in OFFLINE
    for option, default in registry[name].defaults().items()
    if option not in ("steps", "batch")  # fields of an experiment
]
NO_OPTION = st.none() | st.tuples() | st.binary(max_size=3) | st.complex_numbers()
HUGE_INT = st.integers(10**7, 10**30)
ABSURD = {  # by the type of the default
    bool: st.integers() | st.floats() | st.text() | NO_OPTION,
    int: st.integers(max_value=-1) | HUGE_INT | st.floats() | st.booleans() | st.text() | NO_OPTION,
    float: st.floats(max_value=-1e-300, exclude_max=True)
    | st.floats(min_value=1e7)
    | st.just(float("nan"))
    | HUGE_INT
    | st.booleans()
    | st.text()
    | NO_OPTION,
    str: st.integers() | st.floats() | st.lists(st.text()) | st.just("\0") | NO_OPTION,
    list: st.text()
    | st.integers()
    | st.lists(st.none() | st.just(float("nan")) | st.just(["a"]), min_size=1)
    | NO_OPTION,
}


@pytest.mark.parametrize(("role", "name", "option", "default"), OPTIONS)
def test_an_absurd_option_is_one_sentence_before_any_training(role, name, option, default):
    @settings(max_examples=12, deadline=None, database=None, derandomize=True)
    @given(ABSURD[type(default)])
    def check(value):
        fields = {role: name, ROLES[role][1]: {option: value}}
        with pytest.raises(ValueError) as error:
            real_data(tiny(**fields))
        sentence = str(error.value)
        assert option in sentence and "\n" not in sentence and len(sentence) < 400

    check()


@pytest.mark.parametrize("role", list(ROLES))
@given(st.integers() | st.text() | st.lists(st.integers()) | st.none() | st.floats())
@settings(max_examples=12, deadline=None, database=None, derandomize=True)
def test_options_that_are_no_mapping_are_one_sentence(role, value):
    with pytest.raises(ValueError, match=f"{ROLES[role][1]} must be a mapping of options"):
        tiny(**{ROLES[role][1]: value})


def test_a_patch_that_does_not_fit_the_images_is_told_before_any_training():
    e = tiny(classifier="vit", classifier_options={"patch": 5})
    with pytest.raises(ValueError, match="patch must divide the side of the images; got 5 and 28"):
        real_data(e)


LARGEST = {  # networks that an option at its limit makes too large for any machine
    "vit": ("classifier", {"width": 8192, "depth": 128, "heads": 1}),
    "gan": ("generator", {"channels": 1024, "latent": 4096}),
    "vae": ("generator", {"channels": 1024, "latent": 4096}),
    "diffusion": ("generator", {"channels": 1024, "layers": 32}),
}


@pytest.mark.parametrize("name", list(LARGEST))
def test_a_network_too_large_for_the_machine_says_what_to_lower(name, tmp_path, monkeypatch):
    """A machine of 50 MB: the weights are counted before they are filled, and nothing is kept."""
    monkeypatch.setattr("biasstudy.core.context.device_memory", lambda device: 5e7)
    role, options = LARGEST[name]
    e = tiny(**{role: name, f"{role}_options": options, f"{role}_steps": 1})
    with pytest.raises(NotEnoughMemory) as error:
        run(e, numerics=FLOAT64, where=tmp_path, progress=False)
    sentence = str(error.value)
    first = next(iter(options))
    assert sentence.startswith(f"not enough memory for a {role}; lower ")
    assert f"{first} {options[first]} of {name}" in sentence and sentence.endswith(
        "n_real or ratio"
    )
    assert not list((tmp_path / "stages" / role).glob("*"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(float)),
        MemoryError(),
    ],
)
def test_memory_that_cannot_be_had_is_told_with_the_options_to_lower(error, tmp_path, monkeypatch):
    def fails(*given, **options):
        raise error

    monkeypatch.setattr(CLASSIFIERS["lenet"].target, "fit", fails)
    e = tiny(classifier="lenet", classifier_batch=100)
    with pytest.raises(NotEnoughMemory, match="a classifier; lower batch 100 of lenet, n_real or"):
        run(e, numerics=FLOAT64, where=tmp_path, progress=False)


def test_another_error_of_a_model_stays_what_it_is(tmp_path, monkeypatch):
    def fails(*given, **options):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(CLASSIFIERS["ridge"].target, "fit", fails)
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        run(tiny(), numerics=FLOAT64, where=tmp_path, progress=False)
