"""Tiny models with random weights, saved as diffusers and transformers save large ones: a
text-to-image pipeline, a CLIP."""

import functools
import tempfile
from pathlib import Path

from biasstudy import Numerics
from biasstudy.core.context import Context

FOLDER = tempfile.TemporaryDirectory(prefix="biasstudy-tiny-")
LENGTH = 24  # tokens of a prompt
TEXT = {
    "vocab_size": 514,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}


def random_weights():
    """Inside, weights are drawn in float64, from a stream of their own."""
    return Context(Numerics("float64")).initial("tiny")


def tokenizer():
    """Every byte is a token, at the end of a word another one."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    signs = sorted(ByteLevel.alphabet())
    words = [*signs, *(f"{sign}</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=LENGTH
    )


@functools.cache
def tiny_pipeline(prediction: str = "epsilon") -> Path:
    """Stable Diffusion in miniature: images of 16 pixels, latents of 8."""
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    with random_weights():
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            norm_num_groups=4,
            latent_channels=4,
            sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        )
        text = CLIPTextModel(CLIPTextConfig(**TEXT))
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction,
    )
    pipe = StableDiffusionPipeline(
        vae=vae.float(),
        text_encoder=text.float(),
        tokenizer=tokenizer(),
        unet=unet.float(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = Path(FOLDER.name) / prediction
    pipe.save_pretrained(folder)
    return folder


@functools.cache
def tiny_clip() -> Path:
    """CLIP in miniature: images of 16 pixels in 4 patches."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    vision = {
        "image_size": 16,
        "patch_size": 8,
        **{name: TEXT[name] for name in TEXT if name.startswith(("num", "hidden"))},
    }
    with random_weights():
        model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=8))
    folder = Path(FOLDER.name) / "clip"
    model.float().save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer()).save_pretrained(folder)
    return folder


def from_disk(name: str) -> dict:
    """Options of an entry whose trait `from_disk` says that it goes on from a model on disk: a tiny
    one; of others, none."""
    if name == "stable-diffusion":
        return {
            "pipeline": str(tiny_pipeline()),
            "prompts": [f"picture {i}" for i in range(10)],
            "sampling_steps": 2,
            "sample_batch": 100,
        }
    return {}
