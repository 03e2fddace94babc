"""Stable Diffusion and CLIP on tiny random models: against diffusers and transformers, what learns,
keys, the loop, errors."""

import dataclasses
import functools
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import FLOAT64, tiny
from safetensors.torch import load as load_tensors
from test_registries import shapes
from tiny_models import from_disk, tiny_clip, tiny_pipeline

from biasstudy import FILTERS, GENERATORS, LabeledImages, Numerics, run
from biasstudy.core.context import Context, scaled, to_uint8
from biasstudy.core.noise import noise_of_images
from biasstudy.data.real import real_data
from biasstudy.loop import clip
from biasstudy.loop.generations import generations
from biasstudy.models import pretrained
from biasstudy.models.generators import stable_diffusion
from biasstudy.models.generators.stable_diffusion import Parts, StableDiffusion, noise_levels

CONTEXT = Context(FLOAT64)
POOL = shapes(24, 16)
SOURCE = SimpleNamespace(classes=("dog_sled", "swan"), groups=("ice", "elsewhere"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def made(prediction="epsilon", **options) -> StableDiffusion:
    known = {
        "prompts": ["a bar", "a block", "a frame"],
        "steps": 4,
        "batch": 8,
        "sampling_steps": 3,
        "sample_batch": 20,
    }
    return StableDiffusion(**{"pipeline": str(tiny_pipeline(prediction)), **known, **options})


def fitted(model, context=CONTEXT, seed=1, pool=POOL, **more):
    return model.fit(pool, pool.label, None, seed=seed, context=context, **more)


@functools.cache
def plain():
    """The state of a fit with the options of every test."""
    return fitted(made())


def sampled(model, state, n=9, first=0, context=CONTEXT):
    return model.sample(
        state, np.arange(first, first + n) % 3, first, seed=2, context=context
    ).astype(int)


def losses(model, state) -> np.ndarray:
    """Mean squared error of a state's prediction for each image, at fixed latents, noise and
    times."""
    parts, g = Parts(model, CONTEXT), torch.Generator().manual_seed(0)
    parts.load(state)
    posterior, eps = torch.randn((2, len(POOL), *parts.shape), generator=g, dtype=torch.float64)
    t, c = torch.arange(len(POOL)) * 999 // len(POOL), torch.from_numpy(POOL.label)
    z = parts.encode(CONTEXT.pixels(POOL.images), posterior)
    a, s = (level[t][:, None, None, None] for level in parts.levels)
    target = a * eps - s * z if parts.prediction == "v" else eps
    with torch.no_grad():
        return (parts.predict(a * z + s * eps, t, c) - target).square().mean((1, 2, 3)).numpy()


# ---- Against diffusers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "solver", "order"),
    [
        ("epsilon", "dpm", 2),
        ("epsilon", "dpm", 1),
        ("epsilon", "ddim", 1),
        ("v_prediction", "dpm", 2),
        ("v_prediction", "ddim", 1),
    ],
)
def test_images_are_those_of_the_pipeline_of_diffusers_with_the_state_as_its_lora(
    prediction, solver, order
):
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline

    model, context = (
        made(prediction, solver=solver, order=order, rate=0.05, sampling_steps=5),
        Context(Numerics("float32")),
    )
    state = fitted(model, context)
    pipe = StableDiffusionPipeline.from_pretrained(
        tiny_pipeline(prediction), local_files_only=True, safety_checker=None
    )
    pipe.load_lora_weights({name: weight for name, weight in state.items() if name != "size"})
    pipe.set_progress_bar_config(disable=True)
    config = dict(pipe.scheduler.config) | {"timestep_spacing": "trailing", "steps_offset": 0}
    if solver == "ddim":
        pipe.scheduler = DDIMScheduler.from_config(
            config | {"set_alpha_to_one": True, "clip_sample": False}
        )
    else:
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            config
            | {
                "algorithm_type": "dpmsolver++",
                "solver_type": "midpoint",
                "solver_order": order,
                "final_sigmas_type": "zero",
            }
        )
    prompts, latents = (
        [model.prompts[i % 3] for i in range(6)],
        noise_of_images(0, 6, (4, 8, 8), 2, context),
    )
    theirs = pipe(
        prompts,
        latents=latents,
        num_inference_steps=5,
        guidance_scale=model.guidance,
        output_type="pt",
    ).images
    ours = sampled(model, state, 6, context=context)
    assert abs(ours - to_uint8(theirs * 2 - 1)).max() <= 1
    plain = {
        name: weight if name == "size" else torch.zeros_like(weight)
        for name, weight in state.items()
    }
    assert abs(ours - sampled(model, plain, 6, context=context)).mean() > 1, "the state matters"


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noise_levels_and_velocity_are_those_of_the_scheduler(schedule):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=schedule)
    alpha, sigma = noise_levels(scheduler.config)
    assert torch.allclose(
        alpha[:-1].square(), scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-9
    )
    assert alpha[-1] == 1 and torch.allclose(alpha**2 + sigma**2, torch.ones(1001).double())
    z, eps, t = torch.randn(5), torch.randn(5), torch.tensor(700)
    assert torch.allclose(
        scheduler.add_noise(z, eps, t), (alpha[t] * z + sigma[t] * eps).float(), atol=1e-4
    )
    assert torch.allclose(
        scheduler.get_velocity(z, eps, t), (alpha[t] * eps - sigma[t] * z).float(), atol=1e-4
    )


def test_images_are_scaled_bicubically_as_pillow_does():
    from PIL import Image

    image = np.random.default_rng(0).integers(40, 200, (1, 3, 24, 24)).astype(np.uint8)
    for size in (10, 60):
        ours = to_uint8(scaled(CONTEXT.pixels(image), size))[0].transpose(1, 2, 0)
        theirs = Image.fromarray(image[0].transpose(1, 2, 0)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        assert abs(ours.astype(int) - np.asarray(theirs)).max() <= 1


# ---- Fitting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_fit_lowers_the_loss_and_changes_lora_weights_alone(prediction, monkeypatch):
    model, seen = made(prediction, steps=40, rate=0.05, rank=8), []
    start = fitted(dataclasses.replace(model, steps=1, rate=1e-12))
    monkeypatch.setattr(
        stable_diffusion, "Parts", lambda *arguments: seen.append(Parts(*arguments)) or seen[-1]
    )
    state = fitted(model)
    gained = losses(model, start) - losses(model, state)
    assert gained.mean() > 4 * gained.std() / len(gained) ** 0.5 > 0
    fresh = Parts(model, CONTEXT)
    for name in ("unet", "vae"):
        pairs = zip(
            getattr(seen[0], name).state_dict().items(),
            getattr(fresh, name).state_dict().values(),
            strict=True,
        )
        assert all(
            torch.equal(after, before) for (key, after), before in pairs if ".lora_" not in key
        )
    assert set(state) == {"size", *fresh.lora} and all(".lora_" in name for name in fresh.lora)
    assert all((state[name] != start[name]).any() for name in fresh.lora)


def test_a_checkpoint_holds_lora_weights_their_optimiser_and_the_step(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, n):
        if step == 3:
            raise Killed

    model, folder = made(micro_batch=3, checkpointing=True), tmp_path / "checkpoints"
    with pytest.raises(Killed):
        fitted(model, Context(FLOAT64, folder, every=0.0, progress=kill))
    stored = load_tensors((folder / "checkpoint").read_bytes()[32:])
    state, resumed = fitted(model), fitted(model, Context(FLOAT64, folder))
    assert (
        int(stored["step"]) == 2
        and sum(name.startswith("lora/") for name in stored) == len(state) - 1
    )
    assert {name.split("/")[0] for name in stored} == {"lora", "adam", "step"}
    assert all(torch.equal(state[name], resumed[name]) for name in state)


@pytest.mark.parametrize(
    "options",
    [
        {"micro_batch": 3},
        {"checkpointing": True},
        {"attention_slicing": True},
        {"vae_slicing": True},
    ],
)
def test_savers_of_memory_change_no_result(options):
    saving, one = made(**options), plain()
    other = fitted(saving)
    assert all(torch.allclose(one[name], other[name], atol=1e-9) for name in one)
    assert abs(sampled(made(), one) - sampled(saving, one)).max() <= 1


@pytest.mark.parametrize("options", [{"frozen": "bf16"}, {"vae_tiling": True, "size": 32}])
def test_savers_that_change_results_change_them_little(options):
    saving = made(**options)
    state = fitted(saving)
    assert all(
        torch.isfinite(weight).all() and weight.dtype in (torch.float64, torch.int64)
        for weight in state.values()
    )
    difference = abs(sampled(made(size=options.get("size", 0)), state) - sampled(saving, state))
    assert 0 < difference.mean() < 8


@pytest.mark.parametrize(
    "options",
    [
        {"drop": 0.6},
        {"rank": 2},
        {"rate": 1e-3},
        {"size": 32},
        {"steps": 3},
        {"batch": 7},
        {"prompts": ["a bar", "a block", "a swan"]},
    ],
)
def test_options_change_the_fit(options):
    one, other = plain(), fitted(made(**options))
    assert any(
        one[name].shape != other[name].shape or (one[name] != other[name]).any() for name in one
    )


def test_in_bfloat16_arithmetic_and_from_earlier_weights():
    state = fitted(made(), Context(Numerics("bf16")))
    assert all(torch.isfinite(weight).all() for weight in state.values())
    still = fitted(made(steps=1, rate=1e-12), previous=plain())
    assert all(torch.allclose(still[name], weight, atol=1e-9) for name, weight in plain().items())


# ---- Sampling ------------------------------------------------------------------------------------


def test_an_image_depends_on_seed_number_and_prompt_alone():
    state = plain()
    whole = sampled(made(), state, 15)
    for size in (1, 4):
        assert abs(sampled(made(sample_batch=size), state, 15) - whole).max() <= 1
    assert abs(sampled(made(), state, 5, first=10) - whole[10:]).max() <= 1
    other = sampled(made(prompts=["a swan", "a block", "a frame"]), state, 15)
    changed = abs(other - whole).max((1, 2, 3)) > 1
    assert changed[::3].any() and not changed[1::3].any() and not changed[2::3].any(), (
        "only images told the other prompt"
    )


@pytest.mark.parametrize(
    "options", [{"guidance": 1.0}, {"solver": "ddim", "order": 1}, {"sampling_steps": 5}]
)
def test_options_change_the_images(options):
    assert (sampled(made(), state := plain()) != sampled(made(**options), state)).any()


def test_images_have_the_size_of_the_pool():
    pool = shapes(12, 28)
    state = fitted(made(), pool=pool)
    assert sampled(made(), state).shape == (9, 3, 28, 28)
    with pytest.raises(ValueError, match=r"has prompts for conditions 0\.\.2; got 1\.\.3"):
        made().sample(state, np.array([1, 3]), 0, seed=0, context=CONTEXT)


# ---- What enters keys ----------------------------------------------------------------------------


def prepared(name="stable-diffusion", condition="class", **options):
    if name == "clip":
        e = tiny(filter="clip", filter_options={"model": str(tiny_clip()), **options})
        return e.prepared("filter", SOURCE)
    e = tiny(
        generator=name,
        condition=condition,
        generator_options={"pipeline": str(tiny_pipeline()), **options},
    )
    return e.prepared("generator", SOURCE)


def test_prompts_are_made_from_names_of_classes_and_contexts_of_groups():
    assert (
        prepared()["prompts"]
        == ["a photo of a dog sled", "a photo of a swan"]
        == prepared("clip")["prompts"]
    )
    contexts = {"contexts": ["on ice", "on grass"]}
    assert prepared(condition="group", template="one {class}", **contexts)["prompts"] == [
        "one dog sled, on ice",
        "one dog sled, on grass",
        "one swan, on ice",
        "one swan, on grass",
    ]
    assert prepared(prompts=["x", "y"]) == prepared(
        prompts=["x", "y"], template="the {class}", **contexts, download=True
    )


def test_a_pipeline_is_named_by_the_files_that_are_read(tmp_path):
    shutil.copytree(tiny_pipeline(), tmp_path / "copy")

    def found():
        return prepared(pipeline=str(tmp_path / "copy"))["checksum"]

    name = found()
    assert name == prepared()["checksum"]
    (tmp_path / "copy" / "pruned.safetensors").write_bytes(b"a single file that is not read")
    (tmp_path / "copy" / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(
        b"another variant"
    )
    assert found() == name
    for file in (
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
    ):
        path = tmp_path / "copy" / file
        path.write_bytes(path.read_bytes() + b" ")
        assert found() != name
        name = found()
    with pytest.raises(
        ValueError, match=f"the model has checksum {name}; the option checksum expects abc"
    ):
        prepared(pipeline=str(tmp_path / "copy"), checksum="abc")


def test_an_id_is_looked_for_in_the_cache_alone_unless_told_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match="some/model is no folder here, nor an id in the hub's cache; the option",
    ):
        prepared(pipeline="some/model")
    commit, stored = "c" * 40, tmp_path / "models--some--model"
    shutil.copytree(tiny_pipeline(), stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    assert prepared(pipeline="some/model")["checksum"] == prepared()["checksum"]
    assert prepared(pipeline="some/model", revision=commit)["checksum"] == prepared()["checksum"]
    with pytest.raises(FileNotFoundError, match="some/model is no folder here"):
        prepared(pipeline="some/model", revision="d" * 40)
    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *arguments, **options: asked.append(options) or stored / "snapshots" / commit,
    )
    assert (
        prepared(pipeline="some/model", download=True)["download"] is False
        and asked[0]["local_files_only"] is False
    )


def test_names_of_classes_and_content_of_the_pipeline_are_part_of_stage_keys(
    store, tmp_path, monkeypatch
):
    e = tiny(
        generator="stable-diffusion",
        n_generations=1,
        generator_options={"pipeline": str(tiny_pipeline())},
    )

    def key(real):
        return next(iter(generations(e, real, store))).batch.inputs["state"].id

    real, plain = real_data(e), key(real_data(e))
    assert key(real) == plain
    renamed = dataclasses.replace(real.dataset, classes=("nought", *real.dataset.classes[1:]))
    assert key(dataclasses.replace(real, dataset=renamed)) != plain
    monkeypatch.setattr(stable_diffusion, "identified", lambda *arguments: "other weights")
    assert key(real) != plain


# ---- The loop ------------------------------------------------------------------------------------

LOOP = {
    "generator": "stable-diffusion",
    "generator_steps": 2,
    "generator_batch": 8,
    "n_generations": 1,
}


def light(**options) -> dict:
    return {"pipeline": str(tiny_pipeline()), "sampling_steps": 2, "sample_batch": 50, **options}


def test_the_loop_runs_and_running_again_is_reading(runs):
    e = tiny(**LOOP, generator_options=light())
    first, again = run(e, numerics=FLOAT64), run(e, numerics=FLOAT64)
    assert first.counts["computed", "generator"] == 1 and not [
        key for key in again.counts if key[0] == "computed"
    ]
    assert first.table.to_csv() == again.table.to_csv() and first.outcomes[0].grids[0].shape == (
        80,
        3,
        28,
        28,
    )


def test_told_groups_the_prompts_have_their_contexts(store):
    e = tiny(**{**LOOP, "n_real": 250}, condition="group", generator_options=light())
    with pytest.raises(
        ValueError, match="is told groups and needs contexts, one text for each of: red, yellow"
    ):
        list(generations(e, real_data(e), store))
    contexts = ["red", "yellow", "mint", "blue", "purple"]
    e = dataclasses.replace(e, generator_options=light(contexts=contexts))
    stage = next(iter(generations(e, real_data(e), store))).batch
    assert (
        stage.inputs["options"]["prompts"][6] == "a photo of a 1, yellow"
        and (stage.load().group >= 0).all()
    )


@pytest.mark.parametrize(
    ("options", "arm"),
    [({"share": 0.7}, "generated"), ({"share": 0.0, "threshold": 0.05}, "real-filtered")],
)
def test_a_filtered_loop_keeps_what_clip_accepts_and_records_it_by_group(runs, options, arm):
    e = tiny(
        **LOOP,
        generator_options=light(),
        filter="clip",
        filter_options={"model": str(tiny_clip()), **options},
        shortfall="keep",
        start="biased",
        bias=0.6,
    )
    found = run(e.to_arm(arm), numerics=FLOAT64)
    rows = found.table.query("metric == 'acceptance'")
    assert set(rows[rows.group.notna()].group) == {"red", "yellow", "mint", "blue", "purple"}
    batch = found.outcomes[0].batches[0]
    for g, name in enumerate(found.outcomes[0].groups):
        mine, row = batch["accepted"][batch["candidate_group"] == g], rows[rows.group == name]
        assert row.n.item() == len(mine) and (
            len(mine) == 0 or np.isclose(row.value.item(), mine.mean())
        )
    assert 0 < batch["accepted"].mean() < 1


# ---- CLIP ----------------------------------------------------------------------------------------


def directly(images, texts) -> np.ndarray:
    """Cosine similarities as transformers computes them, with its own processor."""
    from transformers import CLIPModel, CLIPProcessor

    model, processor = (
        CLIPModel.from_pretrained(tiny_clip()),
        CLIPProcessor.from_pretrained(tiny_clip()),
    )
    given = processor(
        text=texts, images=list(torch.from_numpy(images)), return_tensors="pt", padding=True
    )
    with torch.no_grad():
        out = model(**given)
    return (out.image_embeds @ out.text_embeds.T).numpy()


def noisy(n=200) -> LabeledImages:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (n, 3, 4, 4)).astype(np.uint8)
    return LabeledImages(low.repeat(5, 2).repeat(5, 3), np.arange(n) % 2, np.arange(n) // 2 % 2)


def judged(images, store, **options):
    entry, sampling = (
        FILTERS["clip"],
        {"model": SimpleNamespace(target=lambda: None), "options": {}},
    )
    return (
        clip.ClipJudge(entry, prepared("clip", **options)).with_bar(store, sampling, 2),
        entry,
        images,
    )


def test_similarities_are_those_of_transformers():
    images, options = noisy().images, prepared("clip")
    ours = clip.similarity(options, CONTEXT, images)
    assert ours.std() > 0.02 and abs(ours - directly(images, options["prompts"])).max() < 5e-3


def test_a_threshold_accepts_what_is_that_similar(store):
    pool = noisy()
    own = directly(pool.images, ["a photo of a dog sled", "a photo of a swan"])[
        np.arange(200), pool.label
    ]
    threshold = max(0.01, float(np.median(own)))
    judge, entry, _ = judged(pool.images, store, threshold=threshold, share=0.0)
    accepted = entry.target(
        pool.images,
        pool.label,
        judge.load()(CONTEXT, pool.images, pool.label),
        None,
        threshold=threshold,
    )
    clear = abs(own - threshold) > 5e-3
    assert judge.bar is None and 0.1 < accepted.mean() < 0.9
    assert clear.mean() > 0.5 and (accepted == (own >= threshold))[clear].all()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_accepts_the_most_similar_of_each_class_of_the_trial_batch(share):
    pool = noisy()
    plain = clip.ClipJudge(FILTERS["clip"], prepared("clip", share=share))
    bar = clip.bar_of.function(CONTEXT, by=plain.load(), batch=pool, share=share, n_classes=3)
    judge = dataclasses.replace(plain, bar=SimpleNamespace(id="bar", load=lambda: bar))
    accepted = FILTERS["clip"].target(
        pool.images, pool.label, judge.load()(CONTEXT, pool.images, pool.label), None
    )
    assert (
        np.bincount(pool.label[accepted]).tolist() == [round(100 * share)] * 2
        and bar["bar"][2] == 0
    )
    own = directly(pool.images, plain.filter_options["prompts"])[np.arange(200), pool.label]
    for k in range(2):
        kept, left = own[(pool.label == k) & accepted], own[(pool.label == k) & ~accepted]
        assert not len(left) or kept.min() > left.max() - 5e-3


# ---- Errors: one sentence each, before any training ----------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"pipeline": "/nowhere/at/all"},
            "stable-diffusion: /nowhere/at/all is no folder here, nor an id in the hub's cache",
        ),
        (
            {"pipeline": "no/such-id"},
            "no/such-id is no folder here, nor an id in the hub's cache; the option download: true",
        ),
        (
            {"pipeline": str(Path(__file__).parent)},
            "the folder 'unet' of .* has no weights as safetensors; expected diffusion_py",
        ),
        ({"revision": "v1"}, "a revision is for an id of the hub; got 'v1' for the folder"),
        ({"prompts": ["one"]}, "prompts must be 2 texts, one per condition that is told; got 1"),
        (
            {"template": "a photo"},
            r"template must say once where the class goes, as \{class\}; got 'a photo'",
        ),
        ({"size": 18}, "size must be a multiple of 4 for this pipeline; got 18"),
        (
            {"condition": "group", "contexts": ["one"]},
            "needs contexts, one text for each of: ice, elsewhere; got 1",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        prepared(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "model_index.json",
            "StableDiffusionPipeline",
            "FluxPipeline",
            r"knows the pipeline StableDiffusionPipeline .*got Flux",
        ),
        (
            "scheduler/scheduler_config.json",
            '"epsilon"',
            '"flow"',
            "prediction_type is epsilon or v_prediction or sample; got",
        ),
        (
            "scheduler/scheduler_config.json",
            "1000",
            "500",
            "whose num_train_timesteps is 1000; got 500",
        ),
    ],
)
def test_pipelines_of_another_make_are_refused(file, old, new, says, tmp_path):
    shutil.copytree(tiny_pipeline(), tmp_path / "copy")
    text = (tmp_path / "copy" / file).read_text()
    assert old in text
    (tmp_path / "copy" / file).write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=says):
        prepared(pipeline=str(tmp_path / "copy"))


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    there = pretrained.importlib.util.find_spec
    monkeypatch.setattr(
        pretrained.importlib.util,
        "find_spec",
        lambda name: None if name in ("peft", "transformers") else there(name),
    )
    with pytest.raises(
        ImportError,
        match=r"needs transformers and peft, not installed here: pip install 'biasstudy\[sd\]'",
    ):
        prepared()
    with pytest.raises(ImportError, match="clip needs transformers, not installed here"):
        prepared("clip")


def test_prompts_that_are_too_long_are_refused_not_cut():
    with pytest.raises(
        ValueError, match="a prompt may have 24 tokens; 'one word and then many more a' has 25"
    ):
        fitted(made(prompts=["one word and then many more a"] * 3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"threshold": 0.2},
            "a threshold or a share above 0, the other one 0; got threshold 0.2 and share 0.5",
        ),
        ({"share": 1.5}, r"clip: share must be in \[0, 1\]; got 1.5"),
        ({"model": "no/clip"}, "clip: no/clip is no folder here"),
    ],
)
def test_filter_options_are_checked(options, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        prepared("clip", **options)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"rank": 0},
        {"solver": "euler"},
        {"solver": "ddim"},
        {"frozen": "fp16"},
        {"drop": 1.0},
        {"sampling_steps": 1001},
    ],
)
def test_values_of_options_are_checked_when_an_experiment_is_made(bad):
    name, value = next(iter(bad.items()))
    fields = {"generator_steps": value} if name == "steps" and value else {"generator_options": bad}
    if name == "steps":
        with pytest.raises(ValueError, match="must be at least 1; got 0"):
            StableDiffusion(**bad)
        return
    with pytest.raises(ValueError, match=f"stable-diffusion: .*{value}"):
        tiny(generator="stable-diffusion", **fields)


# ---- Estimates -----------------------------------------------------------------------------------


def test_the_estimates_rest_on_counts():
    """Parameters and arithmetic of Stable Diffusion 1.5 at 512 pixels, counted without a weight in
    memory."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    wide = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            **wide,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        z, text, x = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768), torch.empty(1, 3, 512, 512)

    def counted(call):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() / 1e12

    tera = [
        counted(lambda: unet(z, torch.empty(1, device="meta"), text)),
        counted(lambda: vae.encode(x)),
        counted(lambda: vae.decode(z)),
    ]
    layers = [
        module
        for name, module in unet.named_modules()
        if name.endswith(tuple(stable_diffusion.ATTENTION))
    ]
    lora = sum(4 * (layer.in_features + layer.out_features) for layer in layers)
    text = " ".join(stable_diffusion.__doc__.split())
    for number in (
        f"UNet {sum(p.numel() for p in unet.parameters()) / 1e6:.0f} M",
        f"VAE {sum(p.numel() for p in vae.parameters()) / 1e6:.0f} M",
        f"LoRA {lora / 1e6:.1f} M",
        f"UNet forward {tera[0]:.2f}",
        f"VAE encoder {tera[1]:.2f}",
        f"VAE decoder {tera[2]:.2f}",
    ):
        assert number in text, number


def test_what_goes_on_from_a_model_on_disk_has_a_tiny_one_for_the_contract_tests():
    for name, entry in GENERATORS.items():
        assert bool(from_disk(name)) == ("from_disk" in entry.traits) and set(
            from_disk(name)
        ) <= set(entry.defaults())
