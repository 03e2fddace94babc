"""vae, gan and diffusion, and the features and warm starts of classifiers: oracles, checkpoints,
options, precisions."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import FLOAT64
from test_registries import made, shapes

from biasstudy import CLASSIFIERS, DATASETS, GENERATORS, LabeledImages, Numerics
from biasstudy.core.context import Context
from biasstudy.core.fitting import MovingAverage
from biasstudy.models.classifiers.ridge import _ridge
from biasstudy.models.generators import diffusion, gan
from biasstudy.models.generators.colors import Colors
from biasstudy.models.generators.denoisers import NETWORKS as DENOISERS
from biasstudy.models.generators.denoisers import Waves
from biasstudy.models.generators.diffusion import (
    CLEAN,
    TIMES,
    cleaned,
    guided,
    padded,
    schedule,
    solve,
    spaced,
)

CONTEXT = Context(FLOAT64)
SMALL = {
    "vae": {"steps": 6, "batch": 16, "channels": 8},
    "diffusion": {"steps": 6, "batch": 16, "channels": 8},
}
MEAN, SD = 0.3, 0.5  # of the Gaussian whose exact denoiser is known


def built(name, **options):
    return GENERATORS[name].target(**{**SMALL[name], **options})


def fitted(name, context=CONTEXT, previous=None, seed=1, **options):
    pool = shapes()
    return built(name, **options).fit(
        pool, pool.label, None, seed=seed, context=context, previous=previous
    )


def sampled(name, state, n=12, context=CONTEXT, **options):
    return built(name, **options).sample(state, np.arange(n) % 3, 0, seed=2, context=context)


# ---- Diffusion: noise levels and solver ----------------------------------------------------------


def gaussian(x, t):
    """E[x0 | x_t] where x0 is normal with MEAN and SD."""
    a, s = (part.tolist() for part in schedule())
    return MEAN + a[t] * SD**2 / (a[t] ** 2 * SD**2 + s[t] ** 2) * (x - a[t] * MEAN)


def curved(x, t):
    """A denoiser that is not linear: two points, -0.8 and 0.6."""
    a, s = (part.tolist() for part in schedule())
    towards = torch.sigmoid((a[t] * x * 1.4 - a[t] ** 2 * (0.36 - 0.64) / 2) / s[t] ** 2)
    return 1.4 * towards - 0.8


def solved(clean, n, order, size=4000, **fresh_noise):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = (part.tolist() for part in schedule())
    return x, solve(clean, x, *levels, spaced(n), order, **fresh_noise)


def test_the_schedule_is_the_cosine_schedule_of_diffusers():
    from diffusers import DDIMScheduler

    alpha, sigma = schedule()
    kept = DDIMScheduler(
        num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2"
    ).alphas_cumprod
    assert torch.allclose(alpha[:-1].square(), kept.double(), rtol=1e-4, atol=1e-9)
    assert (
        alpha[CLEAN] == 1
        and sigma[CLEAN] == 0
        and torch.allclose(alpha**2 + sigma**2, torch.ones(TIMES + 1).double())
    )


@pytest.mark.parametrize("n", [1, 10, 15, 999, 1000])
def test_times_run_from_noise_to_clean(n):
    times = spaced(n)
    assert (
        times[0] == TIMES - 1
        and times[-1] == CLEAN
        and len(times) == n + 1
        and (np.diff(times) < 0).all()
    )


@pytest.mark.parametrize("clean", [gaussian, curved])
@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("churn", [0.0, 0.4, 1.0])
def test_order_1_is_ddim(clean, n, churn):
    """Churn is the eta of DDIM: how much noise is put back in every step."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=TIMES,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.alphas_cumprod = schedule()[0][:-1].square()
    scheduler.final_alpha_cumprod = torch.tensor(1.0).double()
    scheduler.set_timesteps(n)
    assert scheduler.timesteps.tolist() == spaced(n)[:-1]

    def fresh(t):
        return torch.randn(4000, generator=torch.Generator().manual_seed(t), dtype=torch.float64)

    x, ours = solved(clean, n, 1, churn=churn, fresh=fresh)
    for t in scheduler.timesteps:
        x = scheduler.step(
            clean(x, int(t)), t, x, eta=churn, variance_noise=fresh(int(t))
        ).prev_sample
    assert abs(ours - x).max() < 1e-5


@pytest.mark.parametrize("clean", [gaussian, curved])
@pytest.mark.parametrize(("n", "order"), [(10, 1), (10, 2), (20, 2)])
def test_the_solver_is_the_multistep_midpoint_solver_of_diffusers(clean, n, order):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=TIMES,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        solver_order=order,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(n)
    assert scheduler.timesteps.tolist() == spaced(n)[:-1]
    x, ours = solved(clean, n, order)
    for t in scheduler.timesteps:
        x = scheduler.step(clean(x, int(t)), t, x).prev_sample
    assert abs(ours - x.double()).max() < 1e-4


@pytest.mark.parametrize("order", [1, 2])
def test_with_the_exact_denoiser_samples_have_the_mean_and_sd_of_the_gaussian(order):
    x, out = solved(gaussian, 250, order)
    assert abs(out - (MEAN + SD * x)).max() < 0.03, "each noise goes to its own quantile"
    assert abs(out.mean() - MEAN) < 0.03 and abs(out.std() - SD) < 0.03


def test_ancestral_samples_have_the_mean_and_sd_of_the_gaussian():
    """With churn 1 the noise of the beginning is forgotten."""
    drawn = torch.randn(
        TIMES, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x, out = solved(gaussian, 250, 1, churn=1.0, fresh=lambda t: drawn[t])
    assert abs(out.mean() - MEAN) < 0.03 and abs(out.std() - SD) < 0.03
    assert abs(torch.corrcoef(torch.stack([out, x]))[0, 1]) < 0.2


def test_order_2_is_nearer_to_the_exact_answer():
    """The exact answer is MEAN + SD x; halving the steps costs order 1 a factor of 2."""

    def error(n, order):
        x, out = solved(gaussian, n, order)
        return float(abs(out - (MEAN + SD * x)).max())

    assert error(20, 2) < error(20, 1) / 2 and error(40, 2) < error(40, 1) / 2
    assert 1.6 < error(20, 1) / error(40, 1) < 2.4


@pytest.mark.parametrize("prediction", ["x", "v", "eps"])
def test_losses_are_those_of_x_times_a_weight(prediction):
    """|f - target|^2 = w |x0_hat - x0|^2, w = 1 / s^2 for v, a^2 / s^2 for eps: by moving a
    prediction a little and looking how far the clean image moves."""
    x0, eps, error = torch.randn(
        3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    for t in (5, 400, 990):
        a, s = (float(part[t]) for part in schedule())
        target = {"x": x0, "v": a * eps - s * x0, "eps": eps}[prediction]
        moved = cleaned(prediction, a * x0 + s * eps, target + error, a, s) - x0
        weight = {"x": 1, "v": 1 / s**2, "eps": a**2 / s**2}[prediction]
        assert torch.allclose(error.square(), weight * moved.square(), rtol=1e-6)


@pytest.mark.parametrize("prediction", ["x", "v", "eps"])
def test_every_prediction_leads_back_to_the_clean_image(prediction):
    x0, eps = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, s = (float(part[400]) for part in schedule())
    target = {"x": x0, "v": a * eps - s * x0, "eps": eps}[prediction]
    assert torch.allclose(cleaned(prediction, a * x0 + s * eps, target, a, s), x0)


def test_guidance_extrapolates_from_the_null_condition():
    def network(x, t, c):
        return x + c[:, None].double() ** 2

    x, t, c = torch.ones(2, 3, dtype=torch.float64), torch.zeros(2).long(), torch.tensor([1, 2])
    free, told = network(x, t, torch.tensor([5, 5])), network(x, t, c)
    for w, expected in ((0, free), (1, told), (2, 2 * told - free), (0.5, (free + told) / 2)):
        assert torch.allclose(guided(network, x, t, c, 5, w), expected), w


@pytest.mark.parametrize(
    ("network", "table_name"),
    [("lean", "condition.weight"), ("unet", "unet.class_embedding.weight")],
)
def test_without_guidance_the_label_is_not_heard(network, table_name):
    """w = 0 is the unconditional model: what is told changes nothing, and it equals the network on
    the null condition."""
    pool = shapes()
    plain, free = (
        made(GENERATORS, "diffusion", network=network, layers=1, rate=0.02, guidance=w)
        for w in (1.0, 0.0)
    )
    state, told = plain.fit(pool, pool.label, None, seed=0, context=CONTEXT), np.arange(6) % 3
    one, other = (
        free.sample(state, said, 0, seed=1, context=CONTEXT) for said in (np.zeros(6, int), told)
    )
    assert (one == other).all()
    unconditional = {name: value.clone() for name, value in state.items()}
    table = unconditional[f"average.module.{table_name}"]
    table[:] = table[-1]  # every condition is the null condition
    of_null, heard = (
        plain.sample(weights, told, 0, seed=1, context=CONTEXT)
        for weights in (unconditional, state)
    )
    assert (one == of_null).all() and (one != heard).any()


def test_guidance_1_needs_one_pass_and_changes_nothing(monkeypatch):
    passes, forward = [], diffusion.Denoiser.forward
    monkeypatch.setattr(
        diffusion.Denoiser,
        "forward",
        lambda self, x, t, c: passes.append(len(x)) or forward(self, x, t, c),
    )
    state = fitted("diffusion")
    passes.clear()
    plain = sampled("diffusion", state, sampling_steps=3)
    assert passes == [12, 12, 12]
    guided_ = sampled("diffusion", state, sampling_steps=3, guidance=3.0)
    assert passes[3:] == [24, 24, 24] and (plain != guided_).any()


@pytest.mark.parametrize(("side", "inside"), [(28, 32), (32, 32), (30, 32)])
def test_padding_repeats_the_edge(side, inside):
    x = torch.arange(side * side, dtype=torch.float64).view(1, 1, side, side)
    out, low = padded(x, 8), (inside - side) // 2
    assert (
        out.shape[2:] == (inside, inside)
        and (out[..., low : low + side, low : low + side] == x).all()
    )
    assert (out[..., 0, :] == out[..., low, :]).all() and (
        out[..., :, -1] == out[..., :, low + side - 1]
    ).all()


def test_networks_begin_where_they_say():
    """The lean one predicts 0 before its first step, whatever it is told, and halves once; both see
    every side that is such a multiple."""
    x, t = torch.randn(2, 3, 24, 24).double(), torch.tensor([3, 900])
    with CONTEXT.initial(0):
        lean, unet = (DENOISERS[name](8, 1, 2, 3, 24) for name in ("lean", "unet"))
    assert (lean(x, t, torch.tensor([0, 3])) == 0).all()
    assert unet(x, t, torch.tensor([0, 3])).shape == (2, 3, 24, 24)
    assert [DENOISERS[name].multiple(2) for name in ("lean", "unet")] == [4, 8]


def test_the_lean_network_sees_the_whole_image_and_what_it_is_told():
    """After a few steps a corner answers to the opposite corner, to the noise level and to the
    condition."""
    with CONTEXT.initial(0):
        lean = DENOISERS["lean"](8, 3, 2, 3, 28)
    for weight in lean.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1)).double()
    other = x.clone()
    other[:, :, -1, -1] += 1
    t, c = torch.tensor([500]), torch.tensor([1])
    corner = lean(x, t, c)[0, :, 0, 0]
    for changed in (lean(other, t, c), lean(x, t - 300, c), lean(x, t, c + 1)):
        assert abs(changed[0, :, 0, 0] - corner).max() > 1e-6


def test_times_become_waves_in_the_dtype_of_the_times():
    wave = Waves(8)
    t = torch.tensor([0.0, 999.0], dtype=torch.float64)
    assert wave(t).dtype == torch.float64 and wave(t).shape == (2, 8)
    assert (
        torch.allclose(wave(t)[:, 0], t.cos(), atol=1e-12)
        and (wave(t)[0] == torch.tensor([1.0] * 4 + [0.0] * 4)).all()
    )


# ---- GAN: what its critic sees -------------------------------------------------------------------


def test_a_moved_image_is_a_crop_of_one_with_repeated_edges():
    """Every move of -3 .. 3 pixels against numpy; no colour appears that was not there."""
    x = torch.randn(7, 3, 28, 28, dtype=torch.float64)
    place = torch.zeros(4, 7, dtype=torch.float64)
    place[0] = (torch.arange(7) + 0.5) / 7
    place[1] = place[0].flip(0)
    out = gan.augmented(x, place, "translation")
    for i in range(7):
        down, right = i - 3, 3 - i
        edged = np.pad(x[i].numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
        expected = edged[:, 3 + down : 31 + down, 3 + right : 31 + right]
        assert (out[i].numpy() == expected).all(), i
    assert gan.augmented(x, place, "none") is x


def test_a_square_of_half_the_side_is_cut_out():
    x = torch.ones(2, 3, 28, 28, dtype=torch.float64)
    place = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.0], [0.5, 0.999]]).double()
    out = gan.augmented(x, place, "translation-cutout")
    expected = np.ones((2, 28, 28))
    expected[0, 7:21, 7:21] = 0
    expected[1, :7, 20:] = 0
    assert (out.numpy() == expected[:, None]).all()


def test_the_gradient_goes_through_a_change_of_images():
    """Moving and cutting are linear: the gradient of a weighted sum is that of finite steps."""
    place = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gan.augmented(x, place, "translation-cutout"), x)


def test_real_and_painted_images_are_changed_alike_and_each_anew(monkeypatch):
    calls, plain = [], gan.augmented
    monkeypatch.setattr(
        gan,
        "augmented",
        lambda x, place, how: calls.append((place, how, x.requires_grad)) or plain(x, place, how),
    )
    pool = shapes()
    model = GENERATORS["gan"].target(steps=2, batch=200, channels=4, augment="translation-cutout")
    model.fit(pool, pool.label, None, seed=0, context=CONTEXT)
    assert len(calls) == 6 and {how for _, how, _ in calls} == {"translation-cutout"}
    assert [learnt for *_, learnt in calls] == [False, False, True] * 2, "real, painted, painted"
    places = torch.stack([place for place, *_ in calls])
    assert places.shape == (6, 4, 200) and len(places.flatten().unique()) == places.numel()
    assert abs(places.mean((1, 2)) - 0.5).max() < 0.05 and places.min() >= 0 and places.max() < 1


def test_the_critic_is_given_means_and_covariance_of_colours():
    with CONTEXT.initial(0):
        critic = gan.Critic(4, 2, 8, True)
    for weight in critic.features.parameters():
        torch.nn.init.zeros_(weight)
    x, seen = torch.randn(5, 3, 8, 8, dtype=torch.float64), []
    critic.of_colors.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    critic(x, torch.zeros(5, dtype=torch.int64))
    for row, image in zip(seen[0].numpy(), x.numpy(), strict=True):
        flat = image.reshape(3, -1)
        assert np.allclose(row[:3], flat.mean(1))
        assert np.allclose(row[3:], 4 * np.cov(flat, bias=True).ravel())


# ---- Both ----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", list(SMALL))
def test_a_killed_fit_goes_on_where_it_was(name, tmp_path):
    def kill(i, n):
        if i == 4:
            raise Killed

    with pytest.raises(Killed):
        fitted(name, Context(FLOAT64, tmp_path, every=0, progress=kill))
    assert (tmp_path / "checkpoint").exists()
    steps = []
    resumed = fitted(
        name, Context(FLOAT64, tmp_path, every=0, progress=lambda i, n: steps.append(i))
    )
    whole = fitted(name)
    assert steps == [4, 5, 6], "the steps before the checkpoint are not repeated"
    assert resumed.keys() == whole.keys() and all(
        torch.equal(resumed[key], whole[key]) for key in whole
    )


@pytest.mark.parametrize("name", list(SMALL))
def test_a_warm_start_begins_at_the_previous_weights(name):
    """With a rate of nearly nothing the weights stay where they begin; the moving average goes on
    averaging."""
    first = fitted(name, seed=1)
    warm, cold = (
        fitted(name, previous=state, seed=7, steps=1, rate=1e-12) for state in (first, None)
    )
    expected = dict(first)
    for key in [key for key in first if key.startswith("average.module.")]:
        n, network = SMALL[name]["steps"], first[key.replace("average.module.", "network.")]
        expected[key] = torch.lerp(network, first[key], (1 + n) / (10 + n))
    weights = [key for key, value in first.items() if value.is_floating_point()]
    assert all(torch.allclose(warm[key], expected[key], atol=1e-9) for key in weights)
    assert any(not torch.allclose(cold[key], expected[key], atol=1e-3) for key in weights)
    assert GENERATORS[name].traits["warm"]
    pool = shapes(n_classes=2)
    with pytest.raises(ValueError, match="knows 3 conditions; this pool has 2"):
        built(name).fit(pool, pool.label, None, seed=0, context=CONTEXT, previous=first)


def test_images_are_made_by_the_moving_average(monkeypatch):
    """After n steps the decay is min(average, (1 + n) / (10 + n)), counted from the first
    average."""
    seen = []
    update = MovingAverage.update_parameters

    def watch(self, network):
        update(self, network)
        seen.append(network.state_dict()["unet.conv_in.bias"].clone())

    monkeypatch.setattr(MovingAverage, "update_parameters", watch)
    state, expected = fitted("diffusion", average=0.15), None
    for n, value in enumerate(seen):
        decay = min(0.15, (1 + n) / (10 + n)) if n else 0
        expected = value if expected is None else decay * expected + (1 - decay) * value
    assert torch.allclose(state["average.module.unet.conv_in.bias"], expected)
    assert torch.equal(state["network.unet.conv_in.bias"], seen[-1])
    without = {
        key: torch.zeros_like(value) if key.startswith("network.") else value
        for key, value in state.items()
    }
    assert (sampled("diffusion", state) == sampled("diffusion", without)).all()


@pytest.mark.parametrize("name", list(SMALL))
def test_bfloat16_is_close_to_float32(name):
    bf16, float32 = (Context(Numerics(precision)) for precision in ("bf16", "float32"))
    state = fitted(name, bf16)
    weights = [value for value in state.values() if value.is_floating_point()]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights)
    low, high = (sampled(name, state, context=context).astype(int) for context in (bf16, float32))
    assert (low != high).any() and abs(low - high).mean() < 5, "of 255"


@pytest.mark.parametrize("name", list(SMALL))
def test_unknown_conditions_are_refused_and_none_is_fine(name):
    state, model = fitted(name), built(name)
    with pytest.raises(ValueError, match=rf"{name} knows conditions 0\.\.2; got 0\.\.3"):
        model.sample(state, np.arange(4), 0, seed=0, context=CONTEXT)
    assert model.sample(state, np.arange(0), 0, seed=0, context=CONTEXT).shape == (0, 3, 28, 28)


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("vae", {"steps": 0}, "vae: steps must be at least 1; got 0"),
        ("gan", {"augment": "color"}, "augment must be none, translation or translation-cutout; "),
        ("vae", {"beta": -1.0}, "vae: beta must be at least 0; got -1.0"),
        ("diffusion", {"sampling_steps": 0}, "sampling_steps must be at least 1; got 0"),
        ("diffusion", {"sampling_steps": 1001}, "sampling_steps must be at most 1,000; got 1001"),
        ("diffusion", {"solver": "euler"}, "solver must be dpm or ddim; got 'euler'"),
        ("diffusion", {"focus": -1.0}, "diffusion: focus must be at least 0; got -1.0"),
        ("diffusion", {"churn": 2.0}, "diffusion: churn must be at most 1; got 2.0"),
        ("diffusion", {"order": 3}, "order must be 1 or 2; got 3"),
        ("diffusion", {"solver": "ddim", "order": 2}, "solver ddim has order 1; got order 2"),
        ("diffusion", {"network": "vit"}, "network must be unet or lean; got 'vit'"),
        ("diffusion", {"prediction": "score"}, "prediction must be x, v or eps; got 'score'"),
        ("diffusion", {"channels": 20}, "channels must be a multiple of 8; got 20"),
        ("diffusion", {"drop": 1.0}, r"average and drop in \[0, 1\); got .*, 1.0$"),
        ("diffusion", {"drop": 0.0, "guidance": 2.0}, "guidance 2.0 needs drop above 0"),
    ],
)
def test_options_are_checked(name, bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        GENERATORS[name].target(**bad)


def test_ddim_is_dpm_of_order_1():
    state, steps = fitted("diffusion"), {"sampling_steps": 10}
    ddim, one, two = (
        sampled("diffusion", state, solver=solver, order=order, **steps)
        for solver, order in (("ddim", 1), ("dpm", 1), ("dpm", 2))
    )
    assert (ddim == one).all() and (one != two).any()


def test_focus_weighs_the_loss_by_a_power_of_the_noise(monkeypatch):
    """The loss of the first step against its sum over images, from a network that predicts 0: then
    the wrong part of v is v itself."""
    seen, loss_of = {}, []
    monkeypatch.setattr(diffusion.Tensor, "backward", lambda loss: loss_of.append(float(loss)))
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)

    def watched(self, x, t, c):
        seen.update(z=x, t=t)
        return torch.zeros_like(x)

    monkeypatch.setattr(diffusion.Denoiser, "forward", watched)
    plain, noise_of = diffusion.noise, []
    monkeypatch.setattr(diffusion, "noise", lambda *of: noise_of.append(plain(*of)) or noise_of[-1])
    for focus in (0.0, 1.0, 2.0):
        fitted("diffusion", steps=1, focus=focus, network="lean", prediction="v")
        a, s = (part[seen["t"]].view(-1, 1, 1, 1) for part in schedule())
        x = (seen["z"] - s * noise_of[-1]) / a
        expected = float((s**focus * (a * noise_of[-1] - s * x) ** 2).mean())
        assert loss_of[-1] == pytest.approx(expected, rel=1e-6), focus


@pytest.mark.parametrize("name", list(SMALL))
def test_told_conditions_are_learnt(name):
    """Generated bars, blocks and frames are nearest to the mean of what they were told."""
    quick = {
        "vae": {"steps": 150},
        "diffusion": {
            "steps": 100,
            "channels": 16,
            "patch": 4,
            "average": 0.9,
            "sampling_steps": 5,
        },
    }
    pool, context = shapes(), Context(Numerics("float32"))
    model = built(name, rate=4e-3, **quick[name])
    state = model.fit(pool, pool.label, None, seed=0, context=context)
    told = np.arange(60) % 3
    grey = model.sample(state, told, 0, seed=0, context=context).mean(1).reshape(60, -1)
    mean = np.array([pool.images[pool.label == k].mean((0, 1)).ravel() for k in range(3)])
    assert (abs(grey[:, None] - mean).sum(2).argmin(1) == told).mean() > 0.9


@pytest.mark.parametrize("name", list(SMALL))
def test_fitted_to_grey_images_they_make_grey_images(name):
    """Grey has no covariance between colours to divide by."""
    pool = shapes()
    grey = dataclasses.replace(pool, images=np.repeat(pool.images.max(1, keepdims=True), 3, axis=1))
    model = built(name)
    out = model.sample(
        model.fit(grey, pool.label, None, seed=0, context=CONTEXT),
        pool.label,
        0,
        seed=0,
        context=CONTEXT,
    )
    assert np.ptp(out.astype(int), axis=1).max() < 25


def test_changed_colors_are_uncorrelated_and_come_back():
    rng = np.random.default_rng(0)
    images = (
        rng.random((40, 3, 8, 8)) * [[[[250]], [[90]], [[20]]]]
        + 2 * rng.integers(0, 2, (40, 1, 8, 8))
    ).astype(np.uint8)
    colors, x = Colors().double(), CONTEXT.pixels(images)
    colors.fit(images)
    flat = colors(x).transpose(0, 1).flatten(1)
    assert (
        abs(flat.mean(1)).max() < 1e-9
        and abs(torch.cov(flat, correction=0) - torch.eye(3)).max() < 1e-9
    )
    assert abs(colors.back(colors(x)) - x).max() < 1e-9
    assert colors.back(torch.full((1, 3, 2, 2), 50.0).double()).max() == 1, "no pixel lies outside"


# ---- Classifiers ---------------------------------------------------------------------------------

NETWORKS = {"lenet": 84, "small-cnn": 128, "resnet18": 512}


def test_ridge_solves_the_smaller_of_two_systems():
    """n < D and n > D: both forms give the weights of least squares on (pixels, 1) with the
    constant not shrunk."""
    rng = np.random.default_rng(0)
    for n, d in ((40, 90), (90, 40)):
        x, y = torch.as_tensor(rng.random((n, d))), torch.as_tensor(rng.random((n, 3)))
        centred = x - x.mean(0), y - y.mean(0)
        primal, dual = (_ridge(*centred, 0.01 * n, dual=flag) for flag in (False, True))
        design, penalty = (
            torch.cat([x, torch.ones(n, 1).double()], 1),
            0.01 * n * torch.eye(d + 1).double(),
        )
        penalty[-1, -1] = 0
        direct = torch.linalg.solve(design.T @ design + penalty, design.T @ y)
        assert abs(primal - dual).max() < 1e-9 and abs(primal - direct[:-1]).max() < 1e-9
        assert abs(y.mean(0) - x.mean(0) @ dual - direct[-1]).max() < 1e-9


@pytest.mark.parametrize("name", list(NETWORKS))
def test_features_are_what_the_last_layer_sees(name):
    pool, model, context = (
        shapes(6),
        CLASSIFIERS[name].target(steps=1, batch=2),
        Context(Numerics("float32")),
    )
    state = model.fit(pool, 3, seed=0, context=context)
    features = model.features(state, pool.images, context=context)
    assert (
        CLASSIFIERS[name].traits["features"]
        and features.shape == (6, NETWORKS[name])
        and features.dtype == np.float32
    )
    last = [key for key in state if key.endswith("weight")][-1]
    logits = (
        features @ state[last].float().numpy().T
        + state[last.replace("weight", "bias")].float().numpy()
    )
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    assert np.allclose(softmax, model.predict(state, pool.images, context=context), atol=1e-5)


def test_features_in_parts_are_those_of_the_whole():
    images, model = (
        np.tile(shapes(60).images, (18, 1, 1, 1)),
        CLASSIFIERS["lenet"].target(steps=1, batch=8),
    )
    state = model.fit(shapes(), 3, seed=0, context=CONTEXT)
    assert np.allclose(
        model.features(state, images, context=CONTEXT)[-60:],
        model.features(state, images[-60:], context=CONTEXT),
        atol=1e-6,
    )


def test_ridge_has_no_features():
    assert "features" not in CLASSIFIERS["ridge"].traits and not hasattr(
        CLASSIFIERS["ridge"].target(), "features"
    )


@pytest.mark.parametrize("name", ["lenet", "small-cnn"])
def test_a_warm_classifier_begins_at_the_previous_weights(name):
    pool, model = shapes(), CLASSIFIERS[name].target(steps=3, batch=8)
    first = model.fit(pool, 3, seed=0, context=CONTEXT)
    still = dataclasses.replace(model, steps=1, rate=1e-12)
    warm, cold = (
        still.fit(pool, 3, seed=9, context=CONTEXT, previous=state) for state in (first, None)
    )
    weights = [key for key in first if key.endswith("weight")]
    assert all(torch.allclose(warm[key], first[key], atol=1e-9) for key in weights)
    assert any(not torch.allclose(cold[key], first[key], atol=1e-3) for key in weights)


def test_a_warm_ridge_is_the_same_ridge():
    pool, model = shapes(), CLASSIFIERS["ridge"].target()
    first = model.fit(pool, 3, seed=0, context=CONTEXT)
    assert torch.equal(
        model.fit(pool, 3, seed=0, context=CONTEXT, previous=first)["weight"], first["weight"]
    )


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_small_cnn_reads_985_of_1000_coloured_digits(seed):
    """Fitted to 50,000 digits of MNIST in colours drawn evenly; measured on the 10,000 test digits,
    likewise coloured."""
    source, rng = DATASETS["colorized-mnist"].target(), np.random.default_rng(seed)

    def colored(part, name):
        group = rng.integers(source.n_groups, size=len(part))
        return LabeledImages(source.paint(part.images, group, part.unit, name), part.label, group)

    pool, test = colored(source.train[:50_000], seed), colored(source.test, "test")
    model, context = (
        CLASSIFIERS["small-cnn"].target(steps=2500, batch=64),
        Context(Numerics("float32")),
    )
    state = model.fit(pool, source.n_classes, seed=seed, context=context)
    right = model.predict(state, test.images, context=context).argmax(1) == test.label
    print(f"seed {seed}: {right.mean():.4f} of {len(right)}")
    assert len(pool) == 50_000 and len(right) == 10_000 and right.mean() >= 0.985
    assert min(right[test.group == g].mean() for g in range(source.n_groups)) >= 0.98, (
        "in every colour"
    )
