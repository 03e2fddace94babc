"""The work of a peer, FairFeedbackLoops (Wyllie et al. 2024), at its sizes: by our training loop,
and by the usual one.

Its generator is a variational autoencoder with 4 x 4 convolutions of 64 and 128 channels, 20 latent
numbers and binary cross-entropy, batch 256; its classifier has two 5 x 5 convolutions (6 and 16
channels), three linear layers, two classes, and sees batches of 64 that the decoder draws on the
fly. *Usual*: pictures as PIL images through a DataLoader, scaled one by one, fresh samples for each
batch of the classifier, `.item()` of every loss. *Ours*: uint8 images on the device, index tensors,
channels last, samples drawn once in large batches and stored; freed memory stays with the process,
which the usual way leaves to the C library. Networks, batches, losses and optimiser (Adam) are the
same. None of the code is theirs.

On CUDA there is a resnet18 as well, *usual* being plain torch with all that makes it fast.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.context import Context, to_uint8
from ..core.fitting import Batches, train
from ..core.noise import noise
from ..core.numerics import Numerics
from ..core.places import write_text
from ..core.registry import CLASSIFIERS
from ..core.seeds import seed_for
from ..data.real import real_data
from ..experiment import Experiment
from .bench import REPEATS, Report, apart, begin, median_and_range, now
from .words import place

LATENT, SIDE, BATCH, CLASSIFIER_BATCH, RESNET_BATCH = 20, 28, 256, 64, 128
SIZES = {"vae": BATCH, "classifier": CLASSIFIER_BATCH, "resnet18": RESNET_BATCH}
Steps = Callable[[int], None]  # makes so many optimiser steps


class Autoencoder(nn.Module):
    """Images 0..1 to a mean and log variance of the latent, and back to logits."""

    def __init__(self) -> None:
        super().__init__()
        side = SIDE // 4
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 64, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128 * side**2, 2 * LATENT),
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 128 * side**2),
            nn.Unflatten(1, (128, side, side)),
            nn.ConvTranspose2d(128, 64, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 3, 4, 2, 1),
        )

    def loss(self, x: Tensor, draw: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        logits = self.decoder(mean + (log_variance / 2).exp() * draw)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        return (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence) / len(
            x
        )


def two_convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 2),
    )


def resnet() -> nn.Module:
    return CLASSIFIERS["resnet18"].target().network(3, SIDE, 2)


# ---- The usual way -------------------------------------------------------------------------------


def usual_loader(images: np.ndarray, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless passes of a DataLoader over PIL images, turned into tensors one by one."""
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    pictures = [
        (Image.fromarray(image.transpose(1, 2, 0)), i % 2) for i, image in enumerate(images)
    ]

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return to_tensor(pictures[i][0]), pictures[i][1]

    while True:
        yield from torch.utils.data.DataLoader(Pictures(), batch, shuffle=True, drop_last=True)


def usual_steps(
    networks: nn.Module, batches: Iterator[Any], loss: Callable[..., Tensor], device: str
) -> Steps:
    """Steps as they are usually written; one call makes n of them."""
    networks.to(device)
    adam = torch.optim.Adam(networks.parameters(), lr=1e-3)

    def steps(n: int) -> None:
        total = 0.0
        for _ in range(n):
            value = loss(*(part.to(device) for part in next(batches)))
            adam.zero_grad()
            value.backward()
            adam.step()
            total += value.item()

    return steps


def drawn_on_the_fly(
    model: Autoencoder, judge: nn.Module, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches that the decoder makes, labelled by a classifier."""
    while True:
        with torch.no_grad():
            images = model.decoder(torch.randn(CLASSIFIER_BATCH, LATENT, device=device)).sigmoid()
            label = judge(images).argmax(1)
        yield images, label


def plain_resnet(images: np.ndarray, numerics: Numerics) -> Steps:
    """resnet18 in plain torch with all that makes it fast there: images on the device, mixed
    precision, channels last, compiled, a fused optimiser."""
    device = numerics.device
    network = resnet().to(numerics.device).to(memory_format=torch.channels_last)
    compiled = torch.compile(network)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    stored = torch.as_tensor(images).to(device)
    label = torch.arange(len(images), device=device) % 2

    def steps(n: int) -> None:
        for _ in range(n):
            index = torch.randint(len(stored), (RESNET_BATCH,), device=device)
            pixels = (
                stored[index]
                .float()
                .div_(127.5)
                .sub_(1)
                .contiguous(memory_format=torch.channels_last)
            )
            with numerics.autocast():
                value = F.cross_entropy(compiled(pixels), label[index])
            adam.zero_grad(set_to_none=True)
            value.backward()
            adam.step()

    return steps


# ---- Our way -------------------------------------------------------------------------------------


def our_steps(
    networks: nn.Module,
    inputs: Callable[[int], Sequence[Tensor]],
    loss: Callable[..., Tensor],
    context: Context,
) -> Steps:
    """Steps by `training.train`; one call makes n of them.

    inputs   of step i: which images, and what is random
    loss     of these inputs
    """
    adam = context.optimizer(torch.optim.Adam, networks.parameters(), 1e-3, fused=True)

    @context.recorded
    def descend(*given: Tensor) -> None:
        with context.numerics.autocast():
            value = loss(*given)
        adam.zero_grad(set_to_none=True)
        value.backward()
        adam.step()

    return lambda n: train({}, lambda i: descend(*inputs(i)), n, context)


def our_autoencoder(model: Autoencoder, images: np.ndarray, context: Context) -> Steps:
    context.place(model)
    stored, batches = context.tensor(images), Batches(len(images), BATCH, 0, context)

    def loss(index: Tensor, drawn: Tensor) -> Tensor:
        return model.loss(context.pixels(stored[index]).add_(1).div_(2), drawn)

    return our_steps(
        model, lambda i: (batches(i), noise((BATCH, LATENT), context, "latent", i)), loss, context
    )


def our_classifier(
    network: nn.Module, model: Autoencoder, judge: nn.Module, context: Context, passes: int = 10
) -> Steps:
    """Images are drawn and labelled once, within the time that is measured; then steps see them in
    so many passes."""
    for module in (network, model, judge):
        context.place(module)

    def steps(count: int) -> None:
        chunks, label, n = [], [], max(CLASSIFIER_BATCH, count * CLASSIFIER_BATCH // passes)
        with torch.inference_mode(), context.numerics.autocast():
            for low in range(0, n, 1024):
                pixels = (
                    model.decoder(noise((min(1024, n - low), LATENT), context, "draw", low))
                    .sigmoid()
                    .mul(2)
                    .sub(1)
                )
                chunks.append(to_uint8(pixels))
                label.append(
                    judge(context.pixels(chunks[-1]).add_(1).div_(2)).argmax(1).cpu().numpy()
                )
        stored = context.tensor(np.concatenate(chunks))
        labels = context.tensor(np.concatenate(label))
        batches = Batches(n, CLASSIFIER_BATCH, seed_for("classifier"), context)

        def loss(index: Tensor) -> Tensor:
            return F.cross_entropy(
                network(context.pixels(stored[index]).add_(1).div_(2)), labels[index]
            )

        our_steps(network, lambda i: (batches(i),), loss, context)(count)

    return steps


def our_resnet(images: np.ndarray, context: Context) -> Steps:
    """resnet18 as `plain_resnet` has it, compiled as well; the step is recorded."""
    context = replace(context, numerics=replace(context.numerics, compile=True))
    network = context.place(resnet())
    stored, batches = context.tensor(images), Batches(len(images), RESNET_BATCH, 0, context)
    label = torch.arange(len(images), device=stored.device) % 2

    def loss(index: Tensor) -> Tensor:
        return F.cross_entropy(network(context.pixels(stored[index])), label[index])

    return our_steps(network, lambda i: (batches(i),), loss, context)


# ---- Side by side --------------------------------------------------------------------------------


def beside(images: np.ndarray, numerics: Numerics, fill: float = 5.0) -> dict[str, Any]:
    """Images per second of both ways, blocks of both in turn, so that a busy machine slows both;
    each in a fresh process.

    images   (N, 3, 28, 28) uint8
    fill     seconds of a block, about
    returns  {"vae", "classifier", on CUDA "resnet18"} -> {"usual", "ours": spread in images/s,
             "ratio": of the medians, "ratios": spread of the ratios of neighbouring blocks}
    """
    report = {}
    for name in SIZES if numerics.device == "cuda" else ("vae", "classifier"):
        blocks = [
            [apart(step_rate, name, way, images, numerics, fill) for way in ("usual", "ours")]
            for _ in range(REPEATS)
        ]
        usual, ours = (median_and_range(rates) for rates in zip(*blocks, strict=True))
        report[name] = {
            "usual": usual,
            "ours": ours,
            "ratio": ours["median"] / usual["median"],
            "ratios": median_and_range([b / a for a, b in blocks]),
        }
    return report


def step_rate(name: str, way: str, images: np.ndarray, numerics: Numerics, fill: float) -> float:
    """Images per second of a model's steps. Only ours are made in a process that `Numerics.apply`
    has set."""
    device = numerics.device
    model = Autoencoder()
    judge = two_convolutions()
    network = two_convolutions()
    if way == "ours":
        numerics.apply()
        context = Context(numerics)
        if name == "resnet18":
            steps = our_resnet(images, context)
        elif name == "vae":
            steps = our_autoencoder(model, images, context)
        else:
            steps = our_classifier(network, model, judge, context)
    else:
        torch.set_num_threads(numerics.threads)
        if name == "resnet18":
            steps = plain_resnet(images, numerics)
        elif name == "vae":
            steps = usual_steps(
                model,
                usual_loader(images, BATCH),
                lambda x, _: model.loss(x, torch.randn(len(x), LATENT, device=device)),
                device,
            )
        else:
            batches = drawn_on_the_fly(model.to(device), judge.to(device), device)
            steps = usual_steps(
                network, batches, lambda x, y: F.cross_entropy(network(x), y), device
            )
    batch = SIZES[name]
    few = max(1, int(fill * BATCH / batch))
    steps(2)
    n = max(1, round(fill / _seconds(steps, few, device) * few))
    return batch * n / _seconds(steps, n, device)


def _seconds(steps: Steps, n: int, device: str) -> float:
    started = now(device)
    steps(n)
    return now(device) - started


def bench_peer(numerics: Numerics, quick: bool = False, path: Path | None = None) -> Report:
    """`beside` on 1,000 coloured digits, with what it was measured on; written to a JSON file if
    there is a path."""
    report = begin(numerics, quick, path)
    images = real_data(Experiment(n_real=BATCH if quick else 1000)).start.load().images
    report["models"] = beside(images, numerics, 0.001 if quick else 5.0)
    if path:
        write_text(path, json.dumps(report, indent=1) + "\n")
    return report


def peer_sentences(report: Report) -> list[str]:
    """The comparison in sentences."""
    lines = [
        f"models of FairFeedbackLoops' sizes on {place(report)}; load of the machine "
        f"{report['load']:.1f}"
    ]
    for name, row in report["models"].items():
        ours, usual = (f"{row[way]['median']:,.0f}" for way in ("ours", "usual"))
        lines.append(
            f"{name:10} ours {ours} images/s, the usual way {usual}: {row['ratio']:.2f} times "
            f"({row['ratios']['low']:.2f}-{row['ratios']['high']:.2f} over {REPEATS} repeats)"
        )
    return lines
