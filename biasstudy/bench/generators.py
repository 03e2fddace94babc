"""Fitness against core seconds: what images of one generation cost, and whether they deserve a
verdict.

Each generator is fitted once to the start of an experiment and makes IMAGES images in its shares;
seconds are those of the process, on one thread. Two models that are no part of the loop stand
beside them, for as many seconds as the slowest of ours took: the autoencoder of FairFeedbackLoops,
one for each class, since it is told none, and a plain training loop of `diffusers`.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from ..core.checks import unknown
from ..core.context import Context, to_uint8
from ..core.noise import generator_for
from ..core.numerics import Numerics
from ..core.places import replacing
from ..core.provenance import environment
from ..core.registry import GENERATORS
from ..core.seeds import digest, seed_for
from ..data.conditions import condition_of
from ..data.images import UNKNOWN, LabeledImages
from ..data.real import real_data
from ..experiment import experiment_from
from ..inference.gate import wanted
from ..loop.instruments import Instruments
from ..loop.run import open_store
from ..measures.fitness import CRITERIA, misses, weakest
from ..report.figures import PALETTE, WIDTH, signed, use_style
from .peers import BATCH, LATENT, SIDE, Autoencoder

IMAGES = 2500
PEER, PLAIN = "FairFeedbackLoops' VAE", "plain diffusers loop"
AT_ONCE = 250
PLAIN_STEPS = 10  # of DDIM, as many as ours


@dataclass(frozen=True)
class Model:
    """A generator, its options, and what it is told: the class, or class and group."""

    generator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    condition: str = "class"


@dataclass(frozen=True)
class Bench:
    """Real data of one kind, and the generators that are tried on them.

    says     the data in words
    fields   of Experiment: data, start, instrument
    models   by a name for the table
    """

    says: str
    fields: Mapping[str, Any]
    models: Mapping[str, Model]


BENCHES = {
    "digits": Bench(
        "digits, 1,300",
        {
            "dataset": "colorized-mnist",
            "start": "biased",
            "bias": 0.6,
            "n_real": 1300,
            "instrument": "lenet",
        },
        {
            "mixture": Model("mixture"),
            "mixture, 32 clusters": Model("mixture", {"clusters": 32}),
            "local-score": Model("local-score"),
            "local-score, told the group": Model("local-score", condition="group"),
            "mixture, told the group": Model("mixture", condition="group"),
            "vae": Model("vae"),
            "vae, latents in clusters": Model("vae", {"clusters": 16, "beta": 2.0, "channels": 16}),
            "gan": Model("gan"),
            "gan, augmented": Model("gan", {"augment": "translation", "sees_colors": True}),
            "diffusion": Model("diffusion"),
        },
    ),
    "cifar20": Bench(
        "CIFAR-20 at 32 pixels, 5,000",
        {
            "dataset": "cifar20",
            "dataset_options": {"size": 32},
            "n_real": 5000,
            "instrument": "airbench",
            "instrument_steps": 500,
            "instrument_options": {"flip": True},
        },
        {
            "mixture": Model("mixture"),
            "mixture, told the fine class": Model("mixture", {"clusters": 4}, "group"),
            "local-score": Model("local-score"),
            "local-score, told the fine class": Model("local-score", condition="group"),
            "vae": Model("vae"),
            "gan": Model("gan"),
            "diffusion": Model("diffusion"),
        },
    ),
    "hard-imagenet": Bench(
        "four classes of Hard ImageNet at 64 pixels, 340",
        {
            "dataset": "hard-imagenet",
            "dataset_options": {
                "classes": "sunglasses, miniskirt, volleyball, snorkel",
                "size": 64,
            },
            "n_real": 340,
            "n_test": 100,
            "instrument": "squeezenet",
            "instrument_steps": 150,
            "instrument_options": {
                "flip": True,
                "enlarge": 1,
                "weights": "weights/squeezenet1_1.pth",
            },
        },
        {
            "mixture": Model("mixture"),
            "mixture, told the cue": Model("mixture", {"clusters": 5}, "group"),
            "local-score": Model("local-score", {"widen": 1.75}),
            "vae": Model("vae"),
            "gan": Model("gan"),
            "diffusion": Model("diffusion"),
        },
    ),
}


@dataclass(frozen=True, eq=False)
class Made:
    """Images that no stage made, as an input of stages."""

    labeled: LabeledImages

    @property
    def inputs(self) -> dict[str, Any]:
        return {}

    @property
    def id(self) -> str:
        content = self.labeled.images.tobytes() + self.labeled.label.tobytes()
        return digest(["made", hashlib.sha256(content).hexdigest()])

    def load(self) -> LabeledImages:
        return self.labeled


def check_data(data: Sequence[str], only: Sequence[str] = ()) -> None:
    """ValueError for an unknown key of BENCHES, or a name that is not among its models."""
    for name in data:
        if name not in BENCHES:
            raise ValueError(unknown("data", name, BENCHES))
        for model in only:
            if model not in BENCHES[name].models:
                raise ValueError(unknown("generator", model, BENCHES[name].models, f"for {name}"))


def fitness_of_generators(
    data: str,
    only: Sequence[str] = (),
    *,
    images: int = IMAGES,
    numerics: Numerics | None = None,
    where: Path | None = None,
    peers: bool = True,
    told: Callable[[str], None] = lambda text: None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """What each generator costs and how fit its images are.

    data     a key of BENCHES
    only     names in its `models`; default: all
    images   made by each, in the shares of the start
    where    store of the instruments; default: that of all runs
    peers    whether the two peers are tried, for as long as the slowest of the others took
    told     called with each row in words
    returns  a row for each: data, generator, seconds_fit, seconds_sample, images_per_second, the
             criteria of the gate, fit, misses (in words), processor; and the first images of each,
             three of every class
    raises   ValueError   if a name is unknown, or the data do not suffice; before anything is
                          fitted
    """
    check_data([data], only)
    bench = BENCHES[data]
    chosen = {name: bench.models[name] for name in only or bench.models}
    entries = {name: GENERATORS[model.generator] for name, model in chosen.items()}
    made_of = {
        name: entry.target(**entry.resolve(chosen[name].options)) for name, entry in entries.items()
    }
    numerics = numerics or Numerics()
    numerics.apply()
    e, context = experiment_from(dict(bench.fields)), Context(numerics)
    real, store = real_data(e), open_store(where, numerics)
    store.open(60_000_000)
    instruments, start = Instruments(e, real, store), real.start.load()
    instruments.warn(compute=True)
    # images of the start, evenly: what is told has its shares
    shown = np.linspace(0, len(start) - 1, images).astype(int)
    label, unknown = start.label[shown], np.full(images, UNKNOWN)
    rows: list[dict[str, Any]] = []
    pictures = {"real": _three_of_each(start.images, start.label)}

    def measure(name: str, fit: Callable[[], Any], sample: Callable[[Any], np.ndarray]) -> None:
        begun = time.process_time()
        state = fit()
        fitted = time.process_time()
        made = sample(state)
        done = time.process_time()
        batch = Made(LabeledImages(made, label, unknown))
        measured = instruments.fitness(batch, instruments.oracle(batch), instruments.probe(batch))
        values = dict(zip(CRITERIA, map(float, measured.load()["value"]), strict=True))
        missed = misses(values)
        rows.append(
            {
                "data": bench.says,
                "generator": name,
                "seconds_fit": fitted - begun,
                "seconds_sample": done - fitted,
                "images_per_second": images / max(done - fitted, 1e-9),
                **values,
                "fit": not missed,
                "misses": ", ".join(f"{m} {values[m]:.2f} {wanted(m)}" for m in missed),
                "processor": environment()["processor"],
            }
        )
        pictures[name] = _three_of_each(made, label)
        told(f"{name}: {done - begun:.0f} s, {'fit' if not missed else rows[-1]['misses']}")

    for name, model in made_of.items():
        told_start = condition_of(start, chosen[name].condition, real.dataset.n_groups)
        fit = functools.partial(
            model.fit, start, told_start, None, seed=seed_for("bench", "fit"), context=context
        )
        sample = functools.partial(
            model.sample,
            told=told_start[shown],
            first_index=0,
            seed=seed_for("bench", "sample"),
            context=context,
        )
        measure(name, fit, sample)
    if peers:
        longest = max(row["seconds_fit"] for row in rows)
        side = start.images.shape[2]
        others: dict[str, Any] = {PEER: Autoencoders(longest), PLAIN: PlainDiffusion(longest)}
        for name, peer in others.items():
            measure(
                name,
                functools.partial(peer.fit, start),
                functools.partial(peer.sample, label=label, side=side),
            )
    return pd.DataFrame(rows), pictures


def _three_of_each(images: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.concatenate([images[label == k][:3] for k in np.unique(label)])


# ---- What is shown -------------------------------------------------------------------------------


def write(
    data: Sequence[str],
    only: Sequence[str],
    folder: Path,
    numerics: Numerics,
    told: Callable[[str], None],
    images: int = IMAGES,
) -> pd.DataFrame:
    """Measure on each of the data; write generators.csv, the figure generators.png and the pictures
    generators-DATA.png, after each of the data again. Rows of other data and generators that an
    earlier call wrote are kept. ValueError as `fitness_of_generators`."""
    check_data(data, only)
    path = folder / "generators.csv"
    for name in data:
        told(f"{BENCHES[name].says}:")
        table, pictures = fitness_of_generators(
            name, only, images=images, numerics=numerics, told=told
        )
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            table = pd.concat([pd.read_csv(path, keep_default_na=False, na_values=["nan"]), table])
            table = table.drop_duplicates(["data", "generator"], keep="last", ignore_index=True)
        with replacing(folder / f"generators-{name}.png") as file:
            wall(pictures).savefig(file)
        with replacing(path) as file:
            table.round(4).to_csv(file, index=False, na_rep="nan")
        with replacing(folder / "generators.png") as file:
            fitness_figure(table).savefig(file)
    return table


def fitness_figure(table: pd.DataFrame) -> Figure:
    """How far the weakest criterion of each generator is from its bound, against core seconds for
    one generation; hollow: not fit.

    table   of `fitness_of_generators`, of one kind of data or several
    """
    use_style()
    panels = list(dict.fromkeys(table.data))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(WIDTH, 4.4), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, data in zip(axes[0], panels, strict=True):
        for i, row in enumerate(table[table.data == data].to_dict("records")):
            name, share = weakest({criterion: row[criterion] for criterion in CRITERIA})
            seconds = row["seconds_fit"] + row["seconds_sample"]
            color = PALETTE[i % len(PALETTE)]
            axis.plot(
                seconds,
                min(share, 2),
                "osD^vPX*"[i % 8],
                color=color,
                markerfacecolor=color if row["fit"] else "white",
                label=f"{row['generator']} ({name})",
            )
        axis.axhline(1, color="#666666", linewidth=0.9)
        axis.set_xscale("log")
        axis.set_ylim(-0.05)
        axis.set_title(data, fontsize=8)
        axis.set_xlabel("core seconds: fit and 2,500 images", fontsize=8)
        axis.legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.05, -0.2))
    axes[0, 0].set_ylabel("weakest criterion / its bound", fontsize=8)
    processors = " and ".join(dict.fromkeys(table.processor))
    return signed(
        figure,
        f"{processors}, one thread, one fit each · in brackets: the weakest criterion · above the "
        "line: fit · hollow: not fit",
    )


def wall(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Images of each generator, a row each, beside real ones."""
    use_style()
    figure, axes = plt.subplots(
        len(pictures), 1, figsize=(WIDTH, 0.55 * len(pictures) + 0.3), layout="constrained"
    )
    for axis, (name, images) in zip(np.atleast_1d(axes), pictures.items(), strict=True):
        shown = images[np.linspace(0, len(images) - 1, min(12, len(images))).astype(int)]
        axis.imshow(np.concatenate(list(shown.transpose(0, 2, 3, 1)), axis=1))
        axis.set_axis_off()
        axis.set_title(name, fontsize=7, loc="left", pad=1)
    return figure


# ---- Peers ---------------------------------------------------------------------------------------


def _at(images: Tensor, side: int) -> Tensor:
    return images if images.shape[2] == side else F.interpolate(images, side, mode="area")


@dataclass(frozen=True)
class Autoencoders:
    """The autoencoder of FairFeedbackLoops, one for each class, since it is told none. Its pictures
    have 28 pixels: others are brought to that and back."""

    seconds: float

    def fit(self, start: LabeledImages) -> list[Autoencoder]:
        """Each class has an equal share of the seconds."""
        n_classes = int(start.label.max()) + 1
        return [
            self._of_class(start.images[start.label == k], k, self.seconds / n_classes)
            for k in range(n_classes)
        ]

    def _of_class(self, images: np.ndarray, k: int, seconds: float) -> Autoencoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("bench", "autoencoder", k))
            network = Autoencoder()
        own = _at(torch.from_numpy(images).float() / 255, SIDE)
        adam = torch.optim.Adam(network.parameters(), lr=1e-3)
        for g in _steps(seconds, "autoencoder", k):
            index = torch.randint(len(own), (min(BATCH, len(own)),), generator=g)
            loss = network.loss(own[index], torch.randn(len(index), LATENT, generator=g))
            adam.zero_grad()
            loss.backward()
            adam.step()
        return network

    def sample(self, state: list[Autoencoder], label: np.ndarray, side: int) -> np.ndarray:
        images = np.empty((len(label), 3, side, side), np.uint8)
        with torch.inference_mode():
            for k, network in enumerate(state):
                g = generator_for(seed_for("bench", "autoencoder", "images"), "class", k)
                latent = torch.randn(int((label == k).sum()), LATENT, generator=g)
                images[label == k] = to_uint8(_at(network.decoder(latent).sigmoid(), side) * 2 - 1)
        return images


@dataclass(frozen=True)
class PlainDiffusion:
    """A training loop as the tutorials of diffusers write it: UNet2DModel, eps-prediction, AdamW at
    1e-4, batches of 32; sampled by DDIM."""

    seconds: float

    def fit(self, start: LabeledImages) -> Any:
        from diffusers import DDIMScheduler, UNet2DModel  # slow to import

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("bench", "plain"))
            network: Any = UNet2DModel(
                sample_size=start.images.shape[2],
                block_out_channels=(32, 64, 64),
                layers_per_block=2,
                down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
                norm_num_groups=8,
                num_class_embeds=int(start.label.max()) + 1,
            )
        schedule: Any = DDIMScheduler(beta_schedule="squaredcos_cap_v2")
        adam = torch.optim.AdamW(network.parameters(), lr=1e-4)
        images, label = torch.from_numpy(start.images), torch.from_numpy(start.label)
        for g in _steps(self.seconds, "plain", 0):
            index = torch.randint(len(images), (32,), generator=g)
            x = images[index].float() / 127.5 - 1
            eps = torch.randn(x.shape, generator=g)
            t = torch.randint(schedule.config["num_train_timesteps"], (len(x),), generator=g)
            loss = F.mse_loss(network(schedule.add_noise(x, eps, t), t, label[index]).sample, eps)
            adam.zero_grad()
            loss.backward()
            adam.step()
        return network.eval(), schedule

    def sample(self, state: Any, label: np.ndarray, side: int) -> np.ndarray:
        network, schedule = state
        schedule.set_timesteps(PLAIN_STEPS)
        told, made = torch.from_numpy(label), []
        g = generator_for(seed_for("bench", "plain", "images"), "noise")
        with torch.inference_mode():
            for low in range(0, len(told), AT_ONCE):
                c = told[low : low + AT_ONCE]
                x = torch.randn(len(c), 3, side, side, generator=g)
                for t in schedule.timesteps:
                    x = schedule.step(network(x, t, c).sample, t, x).prev_sample
                made.append(to_uint8(x))
        return np.concatenate(made)


def _steps(seconds: float, *names: Any) -> Iterator[torch.Generator]:
    """A stream of chance for each optimiser step, until the seconds of this process are over; one
    at least."""
    until, step = time.process_time() + seconds, 0
    while step == 0 or time.process_time() < until:
        yield generator_for(seed_for("bench", *names), "step", step)
        step += 1
