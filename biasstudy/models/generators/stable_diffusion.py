"""Stable Diffusion, told conditions as prompts, fitted by LoRA.

What Stable Diffusion 1.5 needs at 512 pixels: estimates, not measurements. Parameters and
arithmetic were counted on the networks without weights (torch's flop counter on the device "meta";
a test counts again); the rest follows from them.

parameters     UNet 860 M, VAE 84 M, text encoder 123 M (on the device while it encodes); LoRA 0.8 M
               at rank 4
their memory   UNet and VAE at 4 bytes each: 3.8 GB; frozen bf16: 1.9 GB; LoRA, gradients and Adam:
               13 MB
activations    per image of a micro batch, kept for the backward pass by a fused attention: 1.6 GB
               in float32 (counted in a forward pass), about 1.1 GB with frozen bf16; with
               checkpointing 0.3 or 0.15 GB and the block computed again
TFLOP          UNet forward 0.80, backward 0.91 (checkpointing 1.50); VAE encoder 1.12, VAE decoder
               2.51; so an image costs 2.83 (3.42) to fit and 0.80 e + 2.51 to sample, e evaluations
               (twice sampling_steps where guidance is not 1)
time           = TFLOP / (share x peak). An assumed 40 % of 312 TFLOP/s (A100, bf16) gives 3 minutes
               for 1,000 steps of 8 images and 5 minutes for 1,000 images in 20 steps with guidance;
               in float32 without TF32 (19.5 TFLOP/s) 16 times that
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checks import BATCH, RATE, STEPS, within
from ...core.context import Context, scaled, to_uint8
from ...core.fitting import Batches, cosine, set_rate, train
from ...core.noise import generator_for, noise, noise_of_images
from ...core.places import read_text
from ...core.registry import GENERATORS
from ...core.seeds import seed_for
from ...data.images import LabeledImages
from ..pretrained import identified, located, prompts_for, quietly, require, tokens
from .denoisers import Waves
from .diffusion import GUIDANCE, TIMES, cleaned, guided, schedule, solve, spaced

State = dict[str, Tensor]
NAME = "stable-diffusion"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x"}
SCHEDULERS = {
    "prediction_type": tuple(PREDICTIONS),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "num_train_timesteps": (TIMES,),
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False,),
}
# layers of the UNet that LoRA changes: all projections of its attention
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@GENERATORS.register(NAME, version=1, warm=True, from_disk=True)
@dataclass(frozen=True)
class StableDiffusion:
    """A pipeline of diffusers (Stable Diffusion 1.x, 2.x) whose UNet goes on learning, told
    conditions as prompts.

    noisy latent  z_t = alpha_t z + sigma_t eps, z a draw from the VAE's posterior of the image;
                  alpha_t, sigma_t and the target (eps, v or z) as the pipeline's scheduler says; t
                  evenly spaced in a batch
    loss          E |f(z_t, t, prompt) - target|^2 / D; a share of the prompts is replaced by the
                  empty one
    LoRA          W + B A in every projection of the attention, A normal with standard deviation 1 /
                  rank, B = 0 at first; only A and B learn, and they are the state: diffusers'
                  load_lora_weights reads it
    images        scaled to the pipeline's size by bicubic interpolation with antialiasing, and back
                  by the same

    The safety checker is not loaded: it would replace images by black ones.

    steps              int >= 1          optimiser steps
    batch              int >= 1          images in a step
    pipeline           text              a folder, or an id whose files are in the hub's cache
    revision           text              branch, tag or commit of an id; "": its main branch
    checksum           text              what the pipeline must contain, as an earlier run named it;
                                         "": what is there
    download           bool              whether an id may be fetched
    template           text              prompt, {class} standing for the name of the class
    contexts           list of texts     under condition `group`, one per group: the prompt goes on
                                         with ", " and this text
    prompts            list of texts     instead of template and contexts: one per condition
    size               int >= 0          side of the images that the UNet sees; 0: the pipeline's
                                         own
    rank               int >= 1          columns of B
    rate               float > 0         of Adam, gradients clipped to norm 1; rises over the first
                                         5 % of the steps, then falls to 0 on a cosine
    drop               float in [0, 1)   share of training prompts replaced by the empty one
    guidance           float >= 0        w: f(empty) + w (f(prompt) - f(empty)); w = 1: one pass
                                         only
    solver             "dpm" or "ddim"   DPMSolverMultistepScheduler (midpoint, dpmsolver++) or
                                         DDIMScheduler of diffusers, computed in float64; times
                                         evenly spaced from the noisiest (spacing "trailing")
    order              1 or 2            of the solver; ddim has order 1
    sampling_steps     int 1 .. 1000     evaluations per image
    sample_batch       int >= 1          images sampled together
    micro_batch        int >= 0          images of a step that go through the networks together; 0:
                                         all of them
    frozen             "same" or "bf16"  precision of the weights that do not learn: that of the
                                         run, or bfloat16
    checkpointing      bool              compute activations again in the backward pass instead of
                                         keeping them
    attention_slicing  bool              attention in two parts
    vae_slicing        bool              the VAE sees one image at a time
    vae_tiling         bool              the VAE sees images in tiles; their seams are blended
    source             Rombach et al. 2022; Hu et al. 2022 (LoRA); Ho and Salimans 2022 (guidance);
                       for the solver see `diffusion`
    """

    steps: int = 1000
    batch: int = 8
    pipeline: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str = ""
    checksum: str = ""
    download: bool = False
    template: str = "a photo of a {class}"
    contexts: list = field(default_factory=list)
    prompts: list = field(default_factory=list)
    size: int = 0
    rank: int = 4
    rate: float = 1e-4
    drop: float = 0.1
    guidance: float = 3.0
    solver: str = "dpm"
    order: int = 2
    sampling_steps: int = 20
    sample_batch: int = 8
    micro_batch: int = 0
    frozen: str = "same"
    checkpointing: bool = False
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False

    def __post_init__(self) -> None:
        within(
            NAME,
            self,
            steps=STEPS,
            batch=BATCH,
            size=(0, 4096),
            rank=(1, 1024),
            rate=RATE,
            guidance=GUIDANCE,
            sampling_steps=(1, TIMES),
            sample_batch=BATCH,
            micro_batch=(0, 10**6),
        )
        for name, among in (
            ("solver", ("dpm", "ddim")),
            ("order", (1, 2)),
            ("frozen", ("same", "bf16")),
        ):
            if getattr(self, name) not in among:
                raise ValueError(
                    f"{NAME}: {name} must be {among[0]} or {among[1]}; got {getattr(self, name)}"
                )
        if self.solver == "ddim" and self.order != 1:
            raise ValueError(f"{NAME}: solver ddim has order 1; got order {self.order}")
        if not (self.rate > 0 and 0 <= self.drop < 1):
            raise ValueError(
                f"{NAME}: rate must be above 0, drop in [0, 1); got {self.rate}, {self.drop}"
            )

    @property
    def prior(self) -> str:
        """What its weights were learned from."""
        return "web"

    def named(self, classes: Sequence[str], groups: Sequence[str]) -> "StableDiffusion":
        """Itself with the prompts written out, for the groups that are told; template and contexts
        have done their work, and what is cleared is no part of a key."""
        texts = prompts_for(NAME, self.prompts, self.template, classes, self.contexts, groups)
        return replace(self, prompts=texts, template="", contexts=[])

    def prepare(self) -> "StableDiffusion":
        """Itself with the checksum of its pipeline, which is on this machine and which it knows how
        to fit."""
        require(NAME, "transformers", "peft")
        folder = located(NAME, self.pipeline, self.revision, self.download, PARTS[:3])
        check_pipeline(folder, self.size)
        return replace(
            self, checksum=identified(NAME, folder, PARTS, self.checksum), download=False
        )

    # -- fitting

    def fit(
        self,
        pool: LabeledImages,
        told: np.ndarray,
        reserve_t: LabeledImages | None,
        *,
        seed: int,
        context: Context,
        previous: State | None = None,
    ) -> State:
        parts = Parts(self, context)
        for name, weight in parts.lora.items():
            drawn = noise(tuple(weight.shape), context, seed, "init", name) / self.rank
            weight.data.copy_(drawn if ".lora_A." in name else torch.zeros_like(drawn))
        if previous is not None:
            parts.load(previous)
        learning = nn.ParameterList(parts.lora.values())
        adam = torch.optim.Adam(learning, lr=self.rate)
        images, condition = context.tensor(pool.images), context.tensor(parts.known(told))
        batches = Batches(len(pool), self.batch, seed_for(seed, "batches"), context)
        alpha, sigma = (
            part.to(context.numerics.device, context.numerics.dtype) for part in parts.levels
        )
        micro = self.micro_batch or self.batch

        def step(i: int) -> None:
            set_rate(adam, self.rate * cosine(i, self.steps))
            index, g, n = batches(i), generator_for(seed, "levels", i), self.batch
            t = (torch.rand(1, generator=g, dtype=torch.float64) + torch.arange(n) / n).mul(
                TIMES
            ).long() % TIMES
            dropped = torch.rand(n, generator=g, dtype=torch.float64) < self.drop
            t = t.to(index.device)
            c = condition[index].masked_fill(dropped.to(index.device), parts.null)
            drawn, eps = (
                noise((n, *parts.shape), context, seed, name, i) for name in ("posterior", "noise")
            )
            adam.zero_grad(set_to_none=True)
            for low in range(0, n, micro):
                now = slice(low, low + micro)
                z = parts.encode(context.pixels(images[index[now]]), drawn[now])
                a, s = (level[t[now]][:, None, None, None] for level in (alpha, sigma))
                target = {"x": z, "v": a * eps[now] - s * z, "eps": eps[now]}[parts.prediction]
                loss = F.mse_loss(
                    parts.predict(a * z + s * eps[now], t[now], c[now]), target, reduction="sum"
                )
                (loss / eps.numel()).backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            adam.step()

        train({"lora": learning, "adam": adam}, step, self.steps, context)
        return {"size": torch.tensor(pool.images.shape[2])} | {
            name: w.detach().cpu() for name, w in parts.lora.items()
        }

    # -- sampling

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        parts, size = Parts(self, context), int(state["size"])
        parts.load(state)
        alpha, sigma = (part.tolist() for part in parts.levels)
        chunks = [np.empty((0, 3, size, size), np.uint8)]
        with torch.inference_mode():
            for low in range(0, len(told), self.sample_batch):
                c = context.tensor(parts.known(told[low : low + self.sample_batch]))

                def clean(z: Tensor, t: int, c: Tensor = c) -> Tensor:
                    f = guided(
                        parts.predict,
                        z,
                        torch.full((len(z),), t, device=z.device),
                        c,
                        parts.null,
                        self.guidance,
                    )
                    return cleaned(parts.prediction, z, f, alpha[t], sigma[t])

                z = noise_of_images(first_index + low, len(c), parts.shape, seed, context)
                z = solve(clean, z, alpha, sigma, spaced(self.sampling_steps), self.order)
                chunks.append(to_uint8(scaled(parts.decode(z).clamp(-1, 1), size)))
        return np.concatenate(chunks)


# ---- The pipeline; B batch, S side of an image, s side of a latent, L tokens, D width of the text


class Parts:
    """The networks of a pipeline on the device, LoRA in the UNet, and the prompts as the text
    encoder sees them.

    lora    the weights that learn, by the names under which diffusers stores them
    table   (n + 1, L, D)   the encoded prompts; the last one is the empty prompt, number `null`
    levels  alpha_t, sigma_t; (1001,) float64 each
    shape   of a latent
    """

    def __init__(self, options: StableDiffusion, context: Context) -> None:
        from diffusers import StableDiffusionPipeline
        from peft import LoraConfig

        numerics = context.numerics
        self.numerics = numerics
        self.frozen = torch.bfloat16 if options.frozen == "bf16" else numerics.dtype
        folder = located(NAME, options.pipeline, options.revision, False, PARTS[:3])
        with (
            quietly(),
            context.initial("lora", learned=False),
        ):  # peft draws weights, which are then replaced
            pipe: Any = StableDiffusionPipeline.from_pretrained(
                folder,
                dtype=numerics.dtype,
                local_files_only=True,
                use_safetensors=True,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
            pipe.unet.requires_grad_(False)
            pipe.unet.add_adapter(
                LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=ATTENTION)
            )
        self.table = encoded(pipe, options.prompts, numerics.device).to(self.frozen)
        self.null = len(options.prompts)
        self.unet, self.vae, config = pipe.unet, pipe.vae.requires_grad_(False), pipe.unet.config
        self.lora = {
            f"unet.{name}".replace(".default.", "."): weight
            for name, weight in self.unet.named_parameters()
            if weight.requires_grad
        }
        for module in (self.unet, self.vae):
            module.to(numerics.device, memory_format=torch.channels_last)
            for weight in module.parameters():
                weight.data = weight.data.to(
                    numerics.dtype if weight.requires_grad else self.frozen
                )
        if config.flip_sin_to_cos and config.freq_shift == 0:
            # that of diffusers computes in float32
            self.unet.time_proj = Waves(config.block_out_channels[0])
        if options.checkpointing:
            self.unet.enable_gradient_checkpointing()
        if options.attention_slicing:
            self.unet.set_attention_slice("auto")
        if options.vae_slicing:
            self.vae.enable_slicing()
        if options.vae_tiling:
            self.vae.enable_tiling()
        if numerics.compile:
            self.unet.compile()
        self.prediction = PREDICTIONS[pipe.scheduler.config.prediction_type]
        self.levels = noise_levels(pipe.scheduler.config)
        self.size = options.size or config.sample_size * pipe.vae_scale_factor
        self.shape = (
            config.in_channels,
            self.size // pipe.vae_scale_factor,
            self.size // pipe.vae_scale_factor,
        )

    def known(self, told: np.ndarray) -> np.ndarray:
        """The conditions; ValueError if one has no prompt."""
        if len(told) and not 0 <= told.min() <= told.max() < self.null:
            raise ValueError(
                f"{NAME} has prompts for conditions 0..{self.null - 1}; got "
                f"{told.min()}..{told.max()}"
            )
        return told

    def load(self, state: State) -> None:
        """LoRA weights from a state."""
        for name, weight in self.lora.items():
            weight.data.copy_(state[name])

    def encode(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Latents (B, 4, s, s) of images -1..1 (B, 3, any, any), drawn from the VAE's posterior."""
        with torch.no_grad(), self.numerics.autocast():
            posterior = self.vae.encode(scaled(x, self.size).to(self.frozen)).latent_dist
            mean, deviation = posterior.mean.to(drawn.dtype), posterior.std.to(drawn.dtype)
        return (mean + deviation * drawn) * self.vae.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, S, S), about -1..1, of latents."""
        with self.numerics.autocast():
            images = self.vae.decode((z / self.vae.config.scaling_factor).to(self.frozen)).sample
        return images.to(z.dtype)

    def predict(self, z: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """What the UNet predicts for latents z at times t, told prompts c."""
        with self.numerics.autocast():
            f = self.unet(z.to(self.frozen), t.to(self.numerics.dtype), self.table[c]).sample
        return f.to(z.dtype)


def encoded(pipe: Any, prompts: list, device: str) -> Tensor:
    """Prompts and the empty prompt as the text encoder sees them; (n + 1, L, D)."""
    tokens(NAME, pipe.tokenizer, prompts)
    pipe.text_encoder.to(device)
    with torch.no_grad():
        return pipe.encode_prompt([*prompts, ""], device, 1, False)[0]


def noise_levels(scheduler: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Signal alpha_t and noise sigma_t of a scheduler of diffusers for t = 0 .. 999, and 1 and 0 at
    index -1; (1001,) float64.

    alpha_t^2 = product over i <= t of 1 - beta_i;  beta rises linearly ("linear"), or its root does
    ("scaled_linear")
    """
    if scheduler["beta_schedule"] == "squaredcos_cap_v2":
        return schedule()
    power = {"linear": 1, "scaled_linear": 2}[scheduler["beta_schedule"]]
    low, high = scheduler["beta_start"] ** (1 / power), scheduler["beta_end"] ** (1 / power)
    beta = (low + (high - low) * torch.arange(TIMES, dtype=torch.float64) / (TIMES - 1)) ** power
    kept = torch.cat([(1 - beta).cumprod(0), torch.ones(1, dtype=torch.float64)])
    return kept.sqrt(), (1 - kept).sqrt()


def check_pipeline(folder: Path, size: int) -> None:
    """ValueError with one sentence unless this generator knows how to fit a pipeline, at this size
    of its images."""

    def read(name: str) -> dict[str, Any]:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{NAME}: {folder} is no pipeline of diffusers: it has no {name}"
            )
        return json.loads(read_text(folder / name))

    if (value := read("model_index.json").get("_class_name")) != "StableDiffusionPipeline":
        raise ValueError(
            f"{NAME} knows the pipeline StableDiffusionPipeline (1.x, 2.x); got {value}"
        )
    scheduler = read("scheduler/scheduler_config.json")
    for name, known in SCHEDULERS.items():
        if (value := scheduler.get(name, known[0])) not in known:
            raise ValueError(
                f"{NAME} knows schedulers whose {name} is {' or '.join(map(str, known))}; got "
                f"{value}"
            )
    levels = [len(read(f"{part}/config.json")["block_out_channels"]) for part in ("vae", "unet")]
    if size % (multiple := 2 ** (sum(levels) - 2)):
        raise ValueError(
            f"{NAME}: size must be a multiple of {multiple} for this pipeline; got {size}"
        )
