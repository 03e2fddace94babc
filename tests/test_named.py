"""Classifiers of torchvision by their names."""

import numpy as np
import pytest
import torch
from conftest import FLOAT64, tiny
from safetensors.torch import load_file, save_file
from test_registries import shapes
from torchvision import models

from biasstudy import CLASSIFIERS, Experiment, run
from biasstudy.catalogue import listing
from biasstudy.core.context import Context
from biasstudy.data.real import real_data

CONTEXT = Context(FLOAT64)
SMALL = ("mobilenet_v3_small", "shufflenet_v2_x0_5")


def made(name, **options):
    return CLASSIFIERS[f"torchvision:{name}"].target(**{"steps": 2, "batch": 6, **options})


@pytest.mark.parametrize("name", SMALL)
def test_a_network_by_name_keeps_the_contract_of_classifiers(name):
    pool, model = shapes(12, 32), made(name)
    state = model.fit(pool, 5, seed=1, context=CONTEXT)
    p = model.predict(state, pool.images, context=CONTEXT)
    assert p.shape == (12, 5) and p.dtype == np.float32 and np.allclose(p.sum(1), 1, atol=1e-5)
    again = model.fit(pool, 5, seed=1, context=CONTEXT)
    assert all(torch.equal(state[key], again[key]) for key in state), "nothing random but the seed"
    other = model.fit(pool, 5, seed=2, context=CONTEXT)
    assert any(not torch.equal(state[key], other[key]) for key in state)
    seen = model.features(state, pool.images, context=CONTEXT)
    assert seen.shape == (12, model.width)
    warm = model.fit(pool, 5, seed=1, context=CONTEXT, previous=state)
    assert any(not torch.equal(state[key], warm[key]) for key in state)


def test_it_is_the_network_of_torchvision():
    """With these weights both see the same in images."""
    pool, model = shapes(6, 32), made("resnet18")
    state = model.fit(pool, 3, seed=0, context=CONTEXT)
    original = models.resnet18(num_classes=3).double().eval()
    weights = {k.removeprefix("0."): v for k, v in state.items() if k.startswith("0.")}
    weights |= {"fc.weight": state["1.weight"], "fc.bias": state["1.bias"]}
    original.load_state_dict(weights)
    with torch.no_grad():
        x = torch.from_numpy(pool.images).double() / 127.5 - 1
        expected = original(x).softmax(1).numpy()
    assert np.allclose(model.predict(state, pool.images, context=CONTEXT), expected, atol=1e-6)


def test_weights_of_a_file_are_where_it_begins(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "w.safetensors"
    save_file(models.shufflenet_v2_x0_5(weights=None).state_dict(), file)
    model = made(SMALL[1], weights=str(file), tuning=0.0, enlarge=1).prepare()
    assert model.prior == "imagenet" and len(model.sha256) == 64
    state = model.fit(shapes(6, 32), 3, seed=0, context=CONTEXT)
    learned = load_file(file)["conv1.0.weight"].double()
    assert torch.equal(state["1.conv1.0.weight"], learned)
    with pytest.raises(ValueError, match="not those of torchvision's mobilenet_v3_small"):
        made(SMALL[0], weights=str(file)).prepare()


def test_nothing_is_forgotten_at_random():
    body = made("efficientnet_b0").body(3)
    chances = [m.p for m in body.modules() if type(m).__name__ in ("Dropout", "StochasticDepth")]
    assert len(chances) > 10 and set(chances) == {0.0}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resent34", r"no classifier 'resent34' \(did you mean resnet34\?\); it has"),
        ("googlenet", "'googlenet' is not supported: it has 3 linear layers"),
        ("squeezenet1_1", "it has 0 linear layers .*; there is a classifier squeezenet"),
        ("regnet_y_400mf", "cannot be looked at without its weights"),
        ("", "unknown classifier 'torchvision:' .*; known: .*torchvision:NAME"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name, says):
    with pytest.raises(ValueError, match=says) as error:
        Experiment(classifier=f"torchvision:{name}")
    assert len(str(error.value)) < 300 and f"torchvision:{name}" not in CLASSIFIERS


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"classifier": "torchvision:alexnet"}, "cannot see images of 28 x 28 pixels; enlarge: 3"),
        ({"classifier": "torchvision:vit_b_32"}, "28 x 28 pixels; enlarge: 8 would do"),
        (
            {"classifier": "torchvision:vit_b_32", "classifier_options": {"enlarge": 2}},
            "28 x 28 pixels, enlarged to 56; enlarge: 8 would do",
        ),
        (
            {"classifier": "torchvision:vit_h_14", "classifier_options": {"pretrained": True}},
            "torchvision has no weights IMAGENET1K_V1 of it",
        ),
        (
            {"classifier": "torchvision:resnet34", "classifier_options": {"width": 3}},
            "unknown option 'width' of classifier 'torchvision:resnet34'",
        ),
    ],
)
def test_what_it_cannot_do_is_told_before_any_training(fields, says):
    with pytest.raises(ValueError, match=says):
        real_data(tiny(**fields))


def test_it_runs_in_the_loop_and_is_listed(runs):
    assert "torchvision:NAME" in listing(["classifiers"])
    e = tiny(
        classifier="torchvision:shufflenet_v2_x0_5",
        classifier_steps=2,
        classifier_batch=8,
        n_real=40,
        n_generations=1,
    )
    results = run(e, progress=False)
    assert len(results.outcomes[0].predicted) == 2
    assert len(CLASSIFIERS) == len(list(CLASSIFIERS)) and e.classifier not in list(CLASSIFIERS)
