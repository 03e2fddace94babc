"""Training: what step i sees depends on i alone, noise of image i on i alone, numerics are checked."""

import numpy as np
import pytest
import torch
from conftest import FLOAT64

from biasstudy import Numerics
from biasstudy.training import Batches, Context, cosine, noise_of_images, to_uint8

CONTEXT = Context(FLOAT64)


@pytest.mark.parametrize(("n", "size"), [(10, 3), (7, 20), (64, 64), (5, 1)])
def test_batches_are_shuffled_passes(n, size):
    batches = Batches(n, size, 3, CONTEXT)
    seen = torch.cat([batches(i) for i in range(5 * n)])
    for epoch in range(5 * size):
        assert sorted(seen[epoch * n: (epoch + 1) * n].tolist()) == list(range(n))
    fresh = Batches(n, size, 3, CONTEXT)
    assert (fresh(4) == batches(4)).all(), "step 4 does not need the steps before it"
    assert n < 8 or (Batches(n, size, 4, CONTEXT)(0) != batches(0)).any()


def test_noise_of_an_image_does_not_depend_on_how_many_are_drawn():
    whole = noise_of_images(0, 700, (5,), 1, CONTEXT)
    assert (noise_of_images(250, 20, (5,), 1, CONTEXT) == whole[250:270]).all()
    assert (noise_of_images(511, 2, (5,), 1, CONTEXT) == whole[511:513]).all()
    assert abs(whole.mean()) < 0.05 and abs(whole.std() - 1) < 0.05 and len(whole.unique()) > 3400


def test_pixels_go_there_and_back():
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    for precision in ("float32", "float64"):
        context = Context(Numerics(precision))
        pixels = context.pixels(images)
        assert pixels.min() == -1 and pixels.max() == 1 and (to_uint8(pixels) == images).all()


def test_the_rate_rises_and_falls_to_zero():
    rates = [cosine(i, 100) for i in range(100)]
    assert rates[0] == 0.2 and max(rates) == 1 and rates[-1] < 0.001 and cosine(0, 1) == 1


@pytest.mark.parametrize(("fields", "sentence"), [
    ({"precision": "float16"}, "unknown precision 'float16'; known: float64, float32, bf16, auto"),
    ({"device": "tpu"}, "unknown device 'tpu'; known: cpu, cuda, auto"),
    ({"threads": 0}, "threads must be at least 1; got 0"),
    ({"threads": "2"}, "threads must be a whole number; got str '2'"),
])
def test_numerics_are_checked(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Numerics(**fields)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none_is_refused_and_auto_is_resolved():
    with pytest.raises(ValueError, match="torch finds no CUDA device here; use cpu or auto"):
        Numerics(device="cuda")
    assert Numerics(device="auto").device == "cpu"


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "float32")])
def test_automatic_precision_is_bfloat16_where_the_cpu_computes_it(monkeypatch, has, precision):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    numerics = Numerics("auto")
    assert numerics == Numerics(precision) and numerics.name == f"{precision}-cpu-1", "resolved before it names anything"
    with pytest.raises(ValueError, match="precision is 'auto', but it is other machines that compute"):
        Numerics.elsewhere("cuda", precision="auto")
