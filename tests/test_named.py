"""Classifiers of torchvision and of timm by their names."""

import re

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
from biasstudy.models.classifiers import of_timm

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


# ---- Every family of torchvision -----------------------------------------------------------------

# the smallest network of each, and the words it is refused with
FAMILIES = {
    "alexnet": "", "convnext_tiny": "", "densenet121": "", "efficientnet_b0": "",
    "efficientnet_v2_s": "", "maxvit_t": "", "mnasnet0_5": "", "mobilenet_v2": "",
    "mobilenet_v3_small": "", "regnet_x_400mf": "without its weights", "resnet18": "",
    "resnext50_32x4d": "",
    "shufflenet_v2_x0_5": "", "swin_t": "", "swin_v2_t": "", "vgg11": "", "vit_b_32": "",
    "wide_resnet50_2": "", "googlenet": "3 linear layers", "inception_v3": "linear layers",
    "squeezenet1_1": "0 linear layers", "regnet_y_400mf": "without its weights",
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_every_family_sees_images_or_is_refused(name):
    if FAMILIES[name]:
        with pytest.raises(ValueError, match=FAMILIES[name]):
            CLASSIFIERS[f"torchvision:{name}"]
        return
    model = made(name, enlarge=7)
    model.check_side(32)
    with torch.device("meta"):
        network = model.network(3, 32, 5).eval()
    assert network(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 5)


def test_every_network_of_torchvision_is_of_a_family_above():
    def families(names):
        return {re.split(r"[_\d]", name)[0] for name in names}

    assert families(models.list_models(module=models)) == families(FAMILIES)


# ---- timm ----------------------------------------------------------------------------------------


def of(name, **options):
    pytest.importorskip("timm")
    return CLASSIFIERS[f"timm:{name}"].target(**{"steps": 2, "batch": 6, **options})


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "lcnet_050"])
def test_a_network_of_timm_keeps_the_contract_of_classifiers(name):
    model, pool = of(name), shapes(12, 32)
    state = model.fit(pool, 5, seed=1, context=CONTEXT)
    p = model.predict(state, pool.images, context=CONTEXT)
    assert p.shape == (12, 5) and np.allclose(p.sum(1), 1, atol=1e-5)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = model.fit(pool, 5, seed=1, context=CONTEXT)
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn from torch's own stream"
    assert all(torch.equal(state[key], again[key]) for key in state)
    assert model.features(state, pool.images, context=CONTEXT).shape == (12, model.width)


def test_it_is_the_network_of_timm():
    model, pool = of("test_efficientnet"), shapes(6, 32)
    state = model.fit(pool, 3, seed=0, context=CONTEXT)
    import timm

    whole = timm.create_model("test_efficientnet", num_classes=3).double().eval()
    names = {"0." + name.replace("classifier", "head"): name for name in whole.state_dict()}
    weights = {
        there: state["1." + there[len("classifier.") :]]
        if there.startswith("classifier.")
        else state[here]
        for here, there in names.items()
    }
    whole.load_state_dict(weights)
    pixels = CONTEXT.pixels(pool.images)
    expected = whole(pixels).softmax(1).detach().numpy()
    assert np.allclose(model.predict(state, pool.images, context=CONTEXT), expected, atol=1e-6)


def test_nothing_of_timm_is_forgotten_at_random():
    body = of("swin_tiny_patch4_window7_224").body(3)
    kinds = [(type(m).__name__, m) for m in body.modules()]
    assert {m.drop_prob for kind, m in kinds if kind == "DropPath"} == {0.0}
    assert {m.p for kind, m in kinds if kind == "Dropout"} == {0.0}


def test_weights_of_timm_come_from_its_hub_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path))
    asked = of("test_efficientnet", pretrained=True)
    with pytest.raises(FileNotFoundError, match=r"put the file model.safetensors of timm/test_eff"):
        asked.prepare()
    import huggingface_hub
    import timm

    def there(hub, file, local_dir):
        assert (hub, file) == ("timm/test_efficientnet.r160_in1k", "model.safetensors")
        local_dir.mkdir()
        save_file(timm.create_model("test_efficientnet").state_dict(), local_dir / file)
        return str(local_dir / file)

    def down(*_, **__):
        raise RuntimeError("no route\nto it")

    loading = of("test_efficientnet", pretrained=True, download=True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", down)
    with pytest.raises(OSError, match=r"could not download .*: no route to it; put its model"):
        loading.prepare()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", there)
    ready = loading.prepare()
    assert ready == asked.prepare() and len(ready.sha256) == 64
    assert ready.weights == "weights/test_efficientnet.r160_in1k.safetensors"
    state = asked.fit(shapes(6, 32), 3, seed=0, context=CONTEXT)
    learned = load_file(tmp_path / ready.weights)
    assert torch.allclose(
        state["2.conv_stem.weight"], learned["conv_stem.weight"].double(), atol=1e-2
    )


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("tes_resnet", {}, r"timm has no classifier 'tes_resnet' \(did you mean test_resnet\?\)"),
        ("deit_tiny_distilled_patch16_224", {}, "it has 2 linear layers"),
        ("test_resnet", {"pretrained": True}, r"scaled by mean \(0.5, 0.5, 0.5\) and spread"),
        ("test_vit", {}, "timm:test_vit cannot see images of 28 x 28 pixels"),
    ],
)
def test_what_of_timm_is_not_supported_is_refused_before_training(name, options, says):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=says) as error:
        real_data(tiny(classifier=f"timm:{name}", classifier_options=options))
    assert "\n" not in str(error.value)


def test_without_timm_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(of_timm, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package timm, which is not installed: pip in"):
        Experiment(classifier="timm:resnet26")


def test_weights_on_pixels_of_another_scale_are_refused():
    with pytest.raises(
        ValueError, match=r"mean \(0.5, 0.5, 0.5\) .* not done here; got pretrained"
    ):
        made("resnet18").check_scaling((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
