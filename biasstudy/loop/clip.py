"""What CLIP says about images: the judge of the filter `clip`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.context import Context, scaled
from ..core.registry import Entry
from ..core.seeds import digest
from ..core.store import Stage, Store, kind
from ..data.images import LabeledImages
from ..models.pretrained import located, quietly, tokens
from .stages import sample_batch

BATCH = 64


@kind("bar", keep=True)
def bar_of(
    context: Context, *, by: Any, batch: LabeledImages, share: float, n_classes: int
) -> dict:
    """The similarity that the most similar `share` of a trial batch reaches, of each class;
    (n_classes,) float64, 0 for a class without images."""
    similarity, bar = by(context, batch.images, batch.label), np.zeros(n_classes)
    for k in np.unique(batch.label):
        similarities = np.sort(similarity[batch.label == k])[::-1]
        bar[k] = similarities[int(np.ceil(share * len(similarities))) - 1]
    return {"bar": bar}


@dataclass(frozen=True, eq=False)
class ClipJudge:
    """A CLIP of transformers; loads as (context, images, label) -> cosine similarity of each image
    (uint8) with the prompt of its class, less the bar of the class where there is one; (N,)
    float64."""

    filter: Entry
    filter_options: dict[str, Any]
    bar: Stage | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        return {"bar": self.bar}

    @property
    def id(self) -> str:
        used = {
            name: self.filter_options[name] for name in ("model", "revision", "checksum", "prompts")
        }
        return digest(["clip", self.filter.identity, used, self.bar and self.bar.id])

    def with_bar(self, store: Store, sampling: dict[str, Any], n_classes: int) -> "ClipJudge":
        """Itself where the filter has a threshold; for a share, with the bar that this share of a
        trial batch reaches."""
        if (share := self.filter_options["share"]) == 0:
            return self
        trial = store.stage(sample_batch, **sampling)
        return replace(
            self, bar=store.stage(bar_of, by=self, batch=trial, share=share, n_classes=n_classes)
        )

    def load(self) -> Callable[..., np.ndarray]:
        bar = (
            np.zeros(len(self.filter_options["prompts"]))
            if self.bar is None
            else self.bar.load()["bar"]
        )

        def of(context: Context, images: np.ndarray, label: np.ndarray) -> np.ndarray:
            similarities = similarity(self.filter_options, context, images)[
                np.arange(len(label)), label
            ]
            return similarities - bar[label]

        return of


def similarity(options: dict[str, Any], context: Context, images: np.ndarray) -> np.ndarray:
    """Cosine similarity of images (N, 3, any, any) uint8 with each of the prompts; (N, n)
    float64."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = located("clip", options["model"], options["revision"], False, [""])
    with quietly():
        model: Any = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    context.place(model)
    mean, deviation = (
        context.tensor(np.array(v)).to(context.numerics.dtype)[:, None, None]
        for v in (processor.image_mean, processor.image_std)
    )
    side, chunks = model.config.vision_config.image_size, [np.empty((0, len(options["prompts"])))]

    def direction(found: Any) -> Tensor:
        return F.normalize(found.pooler_output.double(), dim=1)

    with torch.inference_mode(), context.numerics.autocast():
        words = tokens("clip", tokenizer, options["prompts"]).to(context.numerics.device)
        texts = direction(model.get_text_features(**words))
        for low in range(0, len(images), BATCH):
            pixels = scaled(context.pixels(images[low : low + BATCH]), side).clamp(-1, 1)
            pixels = ((pixels + 1) / 2 - mean) / deviation
            chunks.append(
                (direction(model.get_image_features(pixel_values=pixels)) @ texts.T).cpu().numpy()
            )
    return np.concatenate(chunks)
