"""Training: what step i sees depends on i alone, noise of image i on i alone, numerics are
checked."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FLOAT64
from test_registries import shapes

from biasstudy import CLASSIFIERS, GENERATORS, Numerics
from biasstudy.core.context import Context, to_uint8
from biasstudy.core.fitting import Batches, cosine, set_rate
from biasstudy.core.noise import noise, noise_of_images
from biasstudy.core.recorded import Recorded

CONTEXT = Context(FLOAT64)


@pytest.mark.parametrize(("n", "size"), [(10, 3), (7, 20), (64, 64), (5, 1)])
def test_batches_are_shuffled_passes(n, size):
    batches = Batches(n, size, 3, CONTEXT)
    seen = torch.cat([batches(i) for i in range(5 * n)])
    for epoch in range(5 * size):
        assert sorted(seen[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
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


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"precision": "float16"},
            r"unknown precision 'float16' .did you mean float64.*; known: float64, float32, bf16",
        ),
        ({"device": "tpu"}, r"unknown device 'tpu' .did you mean cpu.*; known: cpu, cuda, auto"),
        ({"threads": 0}, "threads must be at least 1; got 0"),
        ({"threads": "2"}, "threads must be a whole number; got str '2'"),
    ],
)
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
    assert numerics == Numerics(precision) and numerics.name == f"{precision}-cpu-1", (
        "resolved before it names anything"
    )
    with pytest.raises(
        ValueError, match="precision is 'auto', but it is other machines that compute"
    ):
        Numerics.elsewhere("cuda", precision="auto")


# ---- Recorded steps ------------------------------------------------------------------------------


class Graph:
    """Stands for a CUDA graph: keeps the calls that were made while it recorded, and makes them
    again."""

    def replay(self):
        self.again()


def recorded_without_a_device(monkeypatch, function):
    """`Recorded`, its streams left out, its graph one that calls the function with the tensors it
    was recorded with."""
    made = Recorded(function)
    monkeypatch.setattr(made, "_aside", lambda inputs: function(*inputs))

    def record(key, mine):
        graph, out = Graph(), torch.zeros(())
        graph.again = lambda: out.copy_(function(*mine))
        made.graphs[key] = graph, mine, out

    monkeypatch.setattr(made, "_record", record)
    return made


def test_a_recorded_function_gives_what_it_gives_for_every_input_shape_and_choice(monkeypatch):
    calls = []

    def function(x, y, twice):
        calls.append((len(x), twice))
        return (x * y).sum() * (2 if twice else 1)

    made, results = recorded_without_a_device(monkeypatch, function), []
    for i in range(40):
        x, twice = torch.arange(2.0 + i % 2) + i, i % 3 == 0
        results.append((made(x, x + 1, twice), (x * (x + 1)).sum() * (2 if twice else 1)))
    assert all(found == expected for found, expected in results), (
        "each result is a copy: later calls do not change it"
    )
    assert len(calls) == 40 and len(made.graphs) == 4, "two shapes, each with and without doubling"


def test_on_a_cpu_nothing_is_recorded_and_rates_are_numbers():
    def function():
        pass

    assert CONTEXT.recorded(function) is function
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": weights[:1], "share": 0.1}, {"params": weights[1:]}]
    made = CONTEXT.optimizer(torch.optim.SGD, groups, 1.0, momentum=0.9)
    set_rate(made, 0.5)
    assert [group["lr"] for group in made.param_groups] == [0.05, 0.5] and not made.defaults[
        "fused"
    ]


@pytest.mark.parametrize("others", [{}, {"fused": True}, {"fused": False}])
def test_on_cuda_an_optimiser_is_one_that_can_be_recorded(others):
    asked = {}

    def kind(parameters, **options):
        asked.update(options)
        return SimpleNamespace(param_groups=[])

    Context(Numerics.elsewhere("cuda", precision="float32")).optimizer(
        kind, [], 0.1, betas=(0.0, 0.99), **others
    )
    assert asked == {"lr": 0.1, "betas": (0.0, 0.99), "capturable": True, "fused": True}


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device"
)


@needs_cuda
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("others", [{}, {"fused": True}])
def test_a_recorded_step_on_cuda_is_the_step(kind, others):
    """Float64, a rate that changes with every step: recorded equals not recorded, and equals the
    CPU up to the rounding of the rate, which is float32 on the device."""
    found = []
    for device, warm in (("cuda", 3), ("cuda", 10**9), ("cpu", 3)):
        context = Context(Numerics("float64", device))
        weight = torch.nn.Parameter(
            torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4).to(device)
        )
        optimizer = context.optimizer(kind, [weight], 0.1, **others)

        def descend(x, weight=weight, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=True)
            (x @ weight).square().mean().backward()
            optimizer.step()

        step = context.recorded(descend) if warm == 3 else descend
        for i in range(20):
            set_rate(optimizer, 0.1 * cosine(i, 20))
            step(noise((5, 3), context, "x", i))
        found.append(weight.detach().cpu())
    assert torch.allclose(found[0], found[1], rtol=1e-12) and torch.allclose(
        found[0], found[2], rtol=1e-6
    )


@needs_cuda
@pytest.mark.parametrize("name", ["lenet", "vae", "gan", "diffusion"])
def test_a_recorded_fit_on_cuda_resumes_where_it_was_killed(name, tmp_path):
    pool, entry = shapes(), GENERATORS[name] if name in GENERATORS else CLASSIFIERS[name]

    def fit(progress=None, folder=None):
        context = Context(Numerics("float64", "cuda"), folder=folder, every=0.0, progress=progress)
        model = entry.target(steps=30, batch=8)
        return (
            model.fit(pool, pool.label, None, seed=0, context=context)
            if entry.noun == "generator"
            else model.fit(pool, int(pool.label.max()) + 1, seed=0, context=context)
        )

    def killed(i, n):
        if i == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(killed, tmp_path)
    whole, resumed = fit(), fit(folder=tmp_path)
    assert all(torch.allclose(whole[key], resumed[key], rtol=1e-6, atol=1e-9) for key in whole)
