"""What bench measures: everything that is registered, with a clock that counts the right things. No
test asserts a speed."""

import json
import math
import os
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from biasstudy import CLASSIFIERS, GENERATORS
from biasstudy.__main__ import main
from biasstudy.bench import bench, generators, likeness, peers, scaling
from biasstudy.bench.peers import Autoencoder
from biasstudy.bench.words import models_table
from biasstudy.core.context import Context
from biasstudy.core.fitting import train
from biasstudy.core.noise import noise
from biasstudy.core.numerics import Numerics
from biasstudy.core.registry import Entry
from biasstudy.core.store import Kind
from biasstudy.data.images import LabeledImages
from biasstudy.data.real import real_data
from biasstudy.experiment import experiment_from
from biasstudy.loop import clip, decomposition, stages
from biasstudy.loop import instruments as probes
from biasstudy.measures.fitness import CRITERIA, weakest
from biasstudy.models.generators.diffusion import padded

NUMERICS = Numerics()
POOL = LabeledImages(np.zeros((40, 3, 28, 28), np.uint8), np.arange(40) % 10, np.zeros(40, int))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    return bench.bench(NUMERICS, quick=True, path=path), path


def _spreads(value):
    if isinstance(value, dict):
        if "median" in value:
            yield value
        for inner in value.values():
            yield from _spreads(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _spreads(inner)


def test_every_model_has_positive_rates(report):
    measured = {(m["kind"], m["name"]): m for m in report[0]["models"]}
    left_out = {("generator", "reserve"), ("generator", "stable-diffusion")}
    assert (
        set(measured)
        == {(r.noun, name) for r in (GENERATORS, CLASSIFIERS) for name in r} - left_out
    )
    for (_, name), model in measured.items():
        with_steps = "steps" in model["options"]
        assert (model["fit"]["steps"] is not None) == with_steps, name
        assert (model["flops_per_image"] is not None) == with_steps, (
            "counted where there are steps, and said where not"
        )
        assert not with_steps or model["flops_per_image"] > 0 < model["share"]
        assert model["memory_mb"] > 0


def test_every_measurement_is_positive_finite_and_has_a_spread(report):
    found = list(_spreads(report[0]))
    assert len(found) > 2 * len(report[0]["models"])
    for one in found:
        assert one["n"] >= 3 and 0 < one["low"] <= one["median"] <= one["high"] < math.inf


def test_the_parts_sum_to_the_wall_time(report):
    loop = report[0]["loop"]
    assert set(loop["seconds"]) == {*bench.PARTS.values(), "measure", "store"}
    assert sum(loop["seconds"].values()) == pytest.approx(loop["wall"], rel=1e-9)
    assert all(seconds >= 0 for seconds in loop["seconds"].values())
    assert loop["overhead"] == pytest.approx(
        (loop["seconds"]["measure"] + loop["seconds"]["store"]) / loop["wall"]
    )
    assert loop["stages"] > 10 and loop["computed_again"] == 0, "a rerun reads everything"


def test_every_kind_of_stage_has_a_part():
    rooms = (stages, probes, decomposition, clip)
    kinds = {
        value.name for module in rooms for value in vars(module).values() if isinstance(value, Kind)
    }
    assert kinds == set(bench.PARTS) | {"candidates"}


def test_json_holds_the_whole_table(report):
    stored = json.loads(report[1].read_text())
    assert stored == report[0] and models_table(stored) == models_table(report[0])


def test_the_table_says_where_and_what(report):
    text = models_table(report[0])
    assert "on cpu, float32, 1 thread (quick: these numbers say nothing)" in text
    assert max(map(len, text.splitlines())) <= 127
    for name in [m["name"] for m in report[0]["models"]] + list(report[0]["loop"]["seconds"]):
        assert f" {name} " in text
    assert text.count("not counted not counted") == sum(
        m["flops_per_image"] is None for m in report[0]["models"]
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"only": ["gam"]}, "bench cannot measure 'gam'.*; known: diffusion, gan"),
        ({"only": ["reserve"]}, "bench cannot measure 'reserve'"),
        ({"path": "nowhere"}, "there is no folder .*nowhere for the JSON file b.json"),
    ],
)
def test_bad_options_are_one_sentence_before_anything_is_measured(
    given, sentence, tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "matmul_peak", None)
    if "path" in given:
        given = {"path": tmp_path / given["path"] / "b.json"}
    with pytest.raises(ValueError, match=sentence) as error:
        bench.bench(NUMERICS, **given)
    assert "\n" not in str(error.value)


# ---- The clock -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slow:
    """A classifier whose set-up takes 100 seconds of the fake clock, its first step 10 and each
    other step 0.25."""

    steps: int = 1
    batch: int = 8

    def fit(self, pool, n_classes, *, seed, context, previous=None):
        CLOCK[0] += 100

        def step(i):
            CLOCK[0] += 0.25 if i else 10

        train({}, step, self.steps, context)
        return {}


CLOCK = [0.0]


def test_the_peak_is_that_of_the_better_library(monkeypatch):
    # seconds of mm and of the convolution, at n = 64 and at n = 128
    products, clock = [], iter([4.0, 1.0, 8.0, 2.0])

    def timed(way, device, fill):
        products.append(way().squeeze())
        return [next(clock)] * 3

    monkeypatch.setattr(bench, "timed", timed)
    peak = bench.matmul_peak(NUMERICS, sizes=(64, 128))["float32"]
    assert peak == {
        "median": 2e-9 * 128**3 / 2,
        "low": 2e-9 * 128**3 / 2,
        "high": 2e-9 * 128**3 / 2,
        "n": 3,
        "size": 128,
    }
    (a, b), ours = (
        (noise((64, 64), Context(NUMERICS), "bench", 64, i) for i in range(2)),
        products[:2],
    )
    assert torch.allclose(ours[0], a @ b, atol=1e-4) and torch.allclose(
        ours[1], b @ a, atol=1e-4
    ), "both are products"


def test_set_up_does_not_enter_the_rate_of_a_fit(monkeypatch):
    monkeypatch.setattr(bench, "now", lambda device: CLOCK[0])
    rate, _ = bench.fit_rate(
        Entry("classifier", "slow", 1, Slow, {}), {"steps": 1, "batch": 8}, POOL, NUMERICS, fill=10
    )
    assert rate["steps"] == 32, "40 steps fill 10 seconds; a block is a multiple of 16"
    assert rate["images/s"] == {"median": 32, "low": 32, "high": 32, "n": 3}, (
        "8 images in 0.25 seconds"
    )


def test_a_fit_without_steps_is_timed_whole(monkeypatch):
    monkeypatch.setattr(bench, "now", lambda device: CLOCK[0])
    rate, _ = bench.fit_rate(Entry("classifier", "slow", 1, Slow, {}), {}, POOL, NUMERICS, fill=250)
    assert rate["images/s"]["median"] == pytest.approx(40 / 110) and rate["steps"] is None


# ---- Operations and memory -----------------------------------------------------------------------


def test_operations_of_lenet_are_those_of_its_layers():
    """Forward 2 per multiplication; backward twice that, without the gradient of the pixels."""
    first, second = 28 * 28 * 8 * 3 * 25, 14 * 14 * 16 * 8 * 25
    linear = 16 * 7 * 7 * 84 + 84 * 10
    expected = 2 * (2 * first + 3 * (second + linear))
    lenet = CLASSIFIERS["lenet"]
    assert bench.flops_per_image(lenet, lenet.defaults(), POOL, NUMERICS) == expected


def test_operations_are_proportional_to_the_batch():
    gan = GENERATORS["gan"]
    of = [
        bench.flops_per_image(gan, {**gan.defaults(), "channels": 4}, POOL, NUMERICS, batch)
        for batch in (2, 4)
    ]
    assert of[0] == of[1] > 0


@dataclass(frozen=True)
class Needs:
    """A classifier that needs so many megabytes for a fit and 300 MB for predictions."""

    megabytes: int

    def fit(self, pool, n_classes, *, seed, context, previous=None):
        return {"last": torch.tensor(np.ones(self.megabytes * 2**20, np.uint8)[-1])}

    def predict(self, state, images, *, context):
        return np.ones(300 * 2**20, np.uint8)


def memory_of_a_fit(megabytes):
    entry = Entry("classifier", "needs", 1, Needs, {"megabytes": megabytes})
    options = {"megabytes": megabytes}
    speed = bench.apart(bench.model_speed, entry, options, POOL, NUMERICS, 0.001, 1.0, 4)
    return speed["memory_mb"]


def test_memory_is_that_of_the_fit_alone():
    assert np.ones(500 * 2**20, np.uint8).min() == 1, "used by this process before"
    assert 70 < memory_of_a_fit(101) - memory_of_a_fit(1) < 130


def test_a_measuring_process_that_dies_is_one_sentence():
    with pytest.raises(ChildProcessError, match="a measuring process died"):
        bench.apart(os._exit, 1)


def test_timed_divides_by_the_number_of_calls(monkeypatch):
    monkeypatch.setattr(bench, "now", lambda device: CLOCK[0])
    calls = []

    def call():
        calls.append(time.perf_counter())
        CLOCK[0] += 0.5

    assert bench.timed(call, "cpu", 2.0) == [0.5, 0.5, 0.5] and len(calls) == 2 + 3 * 4


def test_the_peer_is_measured_beside_ours(tmp_path, capsys):
    assert main(["bench", "--peer", "--quick", "--json", str(tmp_path / "peer.json")]) == 0
    assert "the usual way" in capsys.readouterr().out
    found = json.loads((tmp_path / "peer.json").read_text())["models"]
    for row in found.values():
        assert (
            row["ratio"] == row["ours"]["median"] / row["usual"]["median"]
            and row["usual"]["n"] == bench.REPEATS
        )


def test_both_ways_take_the_same_step_of_the_autoencoder():
    """Equal weights, images and noise: the same loss to the last digits, whatever the layout in
    memory."""
    torch.manual_seed(0)
    model, images, draw = (
        Autoencoder(),
        torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8),
        torch.randn(4, 20),
    )
    usual = model.loss(images / 255, draw)
    context = Context(Numerics())
    ours = context.place(model).loss(context.pixels(images).add_(1).div_(2), draw)
    assert ours.item() == pytest.approx(usual.item(), rel=1e-6)


def test_growth_is_measured_and_its_exponent_is_that_of_the_seconds(tmp_path, capsys):
    assert main(["bench", "--scaling", "--quick", "--json", str(tmp_path / "scaling.json")]) == 0
    assert "generations" in capsys.readouterr().out
    found = json.loads((tmp_path / "scaling.json").read_text())["growth"]
    assert len(found) == 3 and all(len(growth["seconds"]) == 2 for growth in found.values())
    linear = scaling._growth((10, 100), lambda n: 0.5 * n, 1)
    assert linear["exponent"] == pytest.approx(1) and linear["per_unit"] == pytest.approx(0.5)
    assert scaling._growth((10, 100), lambda n: 3.0, 2)["exponent"] == 0


@pytest.mark.parametrize("way", ["usual", "ours"])
def test_resnet18_is_compiled_both_ways_and_learns(way, monkeypatch):
    """(That of CUDA, here on the CPU, with a compiler that only counts.)"""
    compiled, losses = [], []
    loss = peers.F.cross_entropy
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    monkeypatch.setattr(peers, "RESNET_BATCH", 4)
    monkeypatch.setattr(
        peers.F, "cross_entropy", lambda *given: losses.append(loss(*given)) or losses[-1]
    )
    torch.manual_seed(0)
    images = (
        np.where(np.arange(4) % 2, 250, 5)
        .astype(np.uint8)[:, None, None, None]
        .repeat(3, 1)
        .repeat(28, 2)
        .repeat(28, 3)
    )
    steps = (
        peers.our_resnet(images, Context(NUMERICS))
        if way == "ours"
        else peers.plain_resnet(images, NUMERICS)
    )
    steps(8)
    assert len(compiled) == 1 and len(losses) == 8
    # not each: a batch drawn from one class is normalised to nothing
    after = torch.stack(losses[1:]).median()
    assert after < losses[0] / 2


# ---- Fitness against core seconds ----------------------------------------------------------------


def test_generators_are_measured_beside_peers_and_rows_are_kept(tmp_path, monkeypatch, runs):
    fields = {"n_real": 200, "start": "biased", "bias": 0.6, "instrument": "patch-ridge"}
    models = {
        "mixture": generators.Model("mixture"),
        "by group": generators.Model("mixture", {"clusters": 2}, "group"),
    }
    tiny_bench = generators.Bench("few digits", fields, models)
    monkeypatch.setattr(generators, "BENCHES", {"few": tiny_bench})
    said: list[str] = []
    for only in (["mixture"], ["by group"]):
        table = generators.write(["few"], only, tmp_path, NUMERICS, said.append, images=120)
    assert set(table.generator) == {"mixture", "by group", generators.PEER, generators.PLAIN}
    assert len(table) == 4 and (table.seconds_fit >= 0).all() and (table.seconds_sample > 0).all()
    by_name = table.set_index("generator")
    # told the group, hardly an image is of unclear colour
    assert by_name.clarity["by group"] > 0.95 > by_name.clarity["mixture"]
    assert not by_name.fit[generators.PLAIN] and "agreement" in by_name.misses[generators.PLAIN]
    written = {path.name for path in tmp_path.iterdir()}
    assert {"generators.csv", "generators.png", "generators-few.png"} <= written
    assert any(text.startswith("mixture: ") for text in said)


def test_r_squared_is_1_for_the_same_pictures_and_0_for_the_mean_of_the_class():
    label = np.array([0, 0, 0, 1, 1])
    network = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert (likeness.r_squared(network, network, label) == 1).all()
    mean = torch.stack([network[label == k].mean(0) for k in label])
    assert np.abs(likeness.r_squared(mean, network, label)).max() < 1e-6
    beyond = 2 * network - mean  # as far beyond the network as the mean is on this side
    assert np.abs(likeness.r_squared(beyond, network, label)).max() < 1e-6
    alone = likeness.r_squared(network, network, np.arange(5))
    assert np.isnan(alone).all(), "one picture a class has no spread"


def test_the_window_most_like_a_network_that_is_a_window_is_that_window(
    tmp_path, monkeypatch, runs
):
    """Planted: what a window of 5 pixels estimates, in place of the first network's estimates."""
    fields = {"n_real": 200, "start": "biased", "bias": 0.6, "instrument": "patch-ridge"}
    tiny_bench = generators.Bench("few digits", fields, {})
    monkeypatch.setattr(generators, "BENCHES", {"few": tiny_bench})
    start = real_data(experiment_from(fields)).start.load()
    networks = []

    def denoiser(model, network, n_conditions, context):
        networks.append(network)

        def clean(x, t, c):
            def pixels_of(images):
                return network.colors(padded(context.pixels(images), x.shape[2]))

            window = 5 if network is networks[0] else 1
            return likeness._windowed(start, c.numpy(), {t: window}, pixels_of, x, t)

        return clean

    monkeypatch.setattr(likeness.Diffusion, "denoiser", denoiser)
    said: list[str] = []
    sentences = likeness.write("few", tmp_path, NUMERICS, said.append, quick=True)
    table = pd.read_csv(tmp_path / "likeness.csv")
    assert set(table.window[table.nearest]) == {5} and (table.r2[table.window == 5] == 1).all()
    assert table.rule.groupby(table.level).sum().eq(1).all()
    windows = next(text for text in sentences if text.startswith(likeness.NEAREST))
    assert "of estimates 1.00, of images 1.00" in windows
    other = next(text for text in sentences if text.startswith(likeness.OTHER))
    assert "1.00" not in other
    assert {"likeness.png", "likeness-pictures.png"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="n must be 2 to"):
        likeness.likeness("few", 10**6, numerics=NUMERICS)


def test_what_is_not_there_to_be_measured_is_refused(tmp_path):
    for data, only, reason in (
        (["faces"], [], "unknown data 'faces'; known: digits, cifar20, hard-imagenet"),
        (
            ["digits"],
            ["mixtures"],
            "unknown generator 'mixtures' for digits .did you mean mixture.*; known: mixture",
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            generators.write(data, only, tmp_path, NUMERICS, print)
    assert not list(tmp_path.iterdir())


def test_the_weakest_criterion():
    at_bounds = {name: c.bound for name, c in CRITERIA.items()}
    assert weakest(at_bounds)[1] == pytest.approx(1)
    assert weakest(at_bounds | {"spread": 0.4}) == ("spread", pytest.approx(0.5))
    assert weakest(at_bounds | {"image-copies": 0.4}) == ("image-copies", pytest.approx(0.25))
    assert np.isnan(weakest({"recall": float("nan")})[1])
