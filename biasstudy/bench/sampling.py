"""How many network evaluations a diffusion model needs, and how fast it samples beside the pipeline
of diffusers."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ..core.context import Context
from ..core.numerics import Numerics
from ..core.places import replacing, write_text
from ..core.provenance import environment
from ..core.seeds import seed_for
from ..data.images import LabeledImages
from ..data.real import real_data
from ..experiment import Experiment
from ..loop.generations import generations
from ..loop.instruments import Instruments
from ..loop.run import open_store
from ..loop.stages import tensors
from ..measures.quality import kid
from ..models.generators.denoisers import UNet
from ..models.generators.diffusion import Diffusion
from ..report.figures import signed, use_style
from .bench import apart, median_and_range, timed


def quality_of_steps(
    e: Experiment,
    steps: Sequence[int],
    n: int,
    *,
    numerics: Numerics | None = None,
    where: str | Path | None = None,
) -> pd.DataFrame:
    """KID of images that generation 0's diffusion model makes from equal noise, by the number of
    network evaluations.

    e        Experiment with generator diffusion; fitted if it is not in the store yet
    steps    int 1 .. 1000     the last is the measure for all others, see `fewest`
    n        int               images of each, told the conditions of the first n images of a batch
    returns  steps, kid, kid_se, network evaluations; a row per number of steps
             kid is against all real test images, on features of the instrument; kid_se is over
             draws of both sets
    raises   ValueError        if the generator is another, or a batch has fewer than n images
    """
    if e.generator != "diffusion":
        raise ValueError(f"sampling steps belong to generator 'diffusion'; got {e.generator!r}")
    if n > e.n_batch:
        raise ValueError(f"a batch has {e.n_batch} images; {n} were asked for")
    numerics = numerics or Numerics()
    numerics.apply()
    real, store = real_data(e), open_store(where, numerics)
    instruments, context = Instruments(e, real, store), Context(numerics)
    extractor = instruments.extractor
    assert extractor, "the instrument of a diffusion study has features"
    features = extractor.load()
    batch = next(generations(e, real, store)).batch
    assert batch
    state, told = tensors(batch.inputs["state"].load()), real.conditions.of_batch[:n]
    of_real = features(context, real.test.load().images)
    model = Diffusion(**e.resolved("generator"))
    rows = []
    for k in steps:
        quicker = dataclasses.replace(model, sampling_steps=k)
        images = quicker.sample(state, told, 0, seed=seed_for(e.seed, "steps"), context=context)
        value, se = kid(of_real, features(context, images))
        rows.append(
            {
                "steps": k,
                "kid": value,
                "kid_se": se,
                "evaluations": k * (1 if model.guidance == 1 else 2),
            }
        )
    store.close()
    return pd.DataFrame(rows)


def fewest(table: pd.DataFrame) -> int:
    """The fewest steps whose KID, like that of all more steps, is within 2 standard errors of the
    last row's, or better.

    kid_k - kid_last <= 2 se_last;  images of different steps share their noise, so the true error
                                    of the difference is
    smaller, and the rule is generous to few steps;  better it can be: a model that is not fitted to
    the end adds an error with every step
    """
    near = table.kid - table.kid.iloc[-1] <= 2 * table.kid_se.iloc[-1]
    return int(table.steps[len(near) - int(near[::-1].cumprod().sum())])


def against_diffusers(
    numerics: Numerics,
    steps: int = 5,
    n: int = 64,
    side: int = 32,
    channels: int = 32,
    fill: float = 5.0,
) -> dict[str, Any]:
    """Images per second of our sampler and of diffusers' DDIMPipeline: the same network, DDIM,
    steps and images at once.

    Each is measured in a fresh process; only ours is set by `Numerics.apply`, which keeps freed
    memory.

    numerics                   where they compile networks, ours is compiled, and the pipeline is
                               measured both ways
    steps, n, side, channels   network evaluations, images at once, pixels, width of the network
    fill                       seconds of each of the repeated blocks
    returns                    {"ours", "diffusers": {"median", "low", "high", "n"} in images/s,
                               "ratio" of the medians}; where networks are compiled also "diffusers,
                               compiled" and "ratio, both compiled"
    """
    ways = {
        "ours": (_our_seconds, numerics),
        "diffusers": (_their_seconds, dataclasses.replace(numerics, compile=False)),
    }
    if numerics.compile:
        ways["diffusers, compiled"] = (_their_seconds, numerics)
    rates: dict[str, Any] = {
        name: median_and_range([n / s for s in apart(measure, by, steps, n, side, channels, fill)])
        for name, (measure, by) in ways.items()
    }
    ours = rates["ours"]["median"]
    ratios = {"ratio": ours / rates["diffusers"]["median"]}
    if numerics.compile:
        ratios["ratio, both compiled"] = ours / rates["diffusers, compiled"]["median"]
    return {**rates, **ratios}


def _our_seconds(
    numerics: Numerics, steps: int, n: int, side: int, channels: int, fill: float
) -> list[float]:
    numerics.apply()
    context, told = Context(numerics), np.arange(n) % 2
    pool = LabeledImages(np.zeros((2, 3, side, side), np.uint8), np.arange(2), np.zeros(2, int))
    model = Diffusion(
        steps=1,
        batch=2,
        network="unet",
        channels=channels,
        layers=1,
        patch=1,
        solver="ddim",
        order=1,
        sampling_steps=steps,
    )
    state = model.fit(pool, pool.label, None, seed=0, context=context)
    return timed(
        lambda: model.sample(state, told, 0, seed=0, context=context), numerics.device, fill
    )


def _their_seconds(
    numerics: Numerics, steps: int, n: int, side: int, channels: int, fill: float
) -> list[float]:
    from diffusers import DDIMPipeline, DDIMScheduler

    torch.set_num_threads(numerics.threads)
    network = UNet(channels, 1, 1, 0, side).unet.to(numerics.device, numerics.dtype).eval()
    network.class_embedding = None  # the pipeline cannot tell a class
    network.register_to_config(sample_size=side, num_class_embeds=None, class_embed_type=None)
    pipeline: Any = DDIMPipeline(network, DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    pipeline.set_progress_bar_config(disable=True)
    if numerics.compile:
        network.compile()

    def sample() -> None:
        with numerics.autocast():
            pipeline(
                batch_size=n,
                num_inference_steps=steps,
                output_type="np",
                generator=torch.Generator().manual_seed(0),
            )

    return timed(sample, numerics.device, fill)


def picture(table: pd.DataFrame, e: Experiment, n: int) -> Figure:
    """KID against sampling steps, with 2 standard errors; band: that of the most steps; ring: see
    `fewest`."""
    use_style()
    figure, axis = plt.subplots(figsize=(4.5, 2.8))
    last, chosen = table.iloc[-1], table[table.steps == fewest(table)].iloc[0]
    axis.axhspan(last.kid - 2 * last.kid_se, last.kid + 2 * last.kid_se, color="0.9", lw=0)
    axis.errorbar(table.steps, table.kid, 2 * table.kid_se, marker="o", ms=4, lw=1.2)
    axis.plot(chosen.steps, chosen.kid, "o", ms=11, mfc="none", color="0.3")
    axis.set(
        xscale="log",
        xlabel=f"solver steps ({e.resolved('generator')['solver']})",
        ylabel="KID, 2 standard errors",
    )
    axis.set_xticks(table.steps, [f"{k:,}" for k in table.steps])
    axis.minorticks_off()
    return signed(figure, f"{e.dataset} · generation 0 · {n} images each · n = 1 fit")


def write(
    e: Experiment,
    steps: Sequence[int],
    n: int,
    fill: float,
    numerics: Numerics,
    folder: Path,
    command: str,
) -> list[str]:
    """Measure both, write sampling.csv, .json and .png, and say in sentences what was found.

    Speed is that of the experiment's own width and side of images; for the other arguments see the
    two functions.
    """
    table = quality_of_steps(e, steps, n, numerics=numerics)
    side = real_data(e).test.load().images.shape[2]
    beside = against_diffusers(
        numerics, side=side, channels=e.resolved("generator")["channels"], fill=fill
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "sampling.csv", table.to_csv(index=False, float_format="%.6g"))
    drawn = picture(table, e, n)
    with replacing(folder / "sampling.png") as file:
        drawn.savefig(file)
    plt.close(drawn)
    about = {
        "command": command,
        "experiment": e.fields(),
        "images": n,
        "fewest": fewest(table),
        "side": side,
        "beside diffusers": beside,
        **environment(),
    }
    write_text(folder / "sampling.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
    return [
        table.round(4).to_string(index=False),
        f"fewest steps within 2 standard errors of {table.steps.iloc[-1]}, or better: "
        f"{about['fewest']}",
        f"images/s beside the pipeline of diffusers, same network and steps: {beside['ratio']:.2f} "
        "times"
        + (f"; both compiled: {beside['ratio, both compiled']:.2f}" if numerics.compile else ""),
        str(folder),
    ]
