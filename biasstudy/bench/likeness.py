"""How like a trained network the local score is: both take the same noise out of the same pictures.

Two diffusion models are fitted to the start of a bench, equal but for their seeds. Real images that
neither has seen are noised. What the first network makes of them is compared with what the second
makes, and the local score with windows of all sizes. Then all make images from the same noise with
the same solver. Everything happens in the uncorrelated colours in which networks see images, so the
noise is the same for all.

    r^2 = 1 - sum |D - D_network|^2 / sum |D_network - mean|^2,  the mean of D_network by class

1: the same pictures; 0: no nearer than the mean picture of the class.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..core.context import Context, to_uint8
from ..core.noise import noise
from ..core.numerics import Numerics
from ..core.places import replacing
from ..core.provenance import environment
from ..core.seeds import seed_for
from ..data.images import LabeledImages
from ..data.real import real_data
from ..experiment import experiment_from
from ..models.generators.denoisers import Denoiser
from ..models.generators.diffusion import Diffusion, padded, schedule, solve
from ..models.generators.local_score import LocalScore, estimated, ladder
from ..report.figures import WIDTH, signed, use_style
from . import generators

IMAGES = 200
NETWORK, OTHER = "network", "network of another seed"
RULE, NEAREST = "local score, windows of the rule", "local score, windows most like the network"
MEMORY = "window of the whole image: training images anew"
Clean = Callable[[Tensor, int], Tensor]  # clean(x, t): the clean images in x at time t


@dataclass(frozen=True)
class Likeness:
    """What was found.

    by_window  level (s / a), t, window (pixels), r2, rule and nearest (whether it is that window):
               a row for each noise level and window
    by_way     way, r2_estimates (mean over noise levels), r2_images (median over images made): a
               row for each but the network
    pictures   first images of each way, made from the same noise, uint8
    """

    by_window: pd.DataFrame
    by_way: pd.DataFrame
    pictures: Mapping[str, np.ndarray]


def r_squared(found: Tensor, network: Tensor, label: np.ndarray) -> np.ndarray:
    """r^2 of each image, see the module.

    found, network  (N, C, S, S)
    label           (N,) int
    returns         (N,) float   nan where the network's pictures of a class are all equal
    """
    away = torch.empty_like(network)
    for k in np.unique(label):
        rows = torch.as_tensor(label == k, device=network.device)
        away[rows] = network[rows] - network[rows].mean(0)
    unlike, spread = (part.square().flatten(1).sum(1) for part in (found - network, away))
    return torch.where(spread > 0, 1 - unlike / spread, torch.nan).double().cpu().numpy()


def likeness(
    data: str = "digits",
    n: int = IMAGES,
    *,
    model: Diffusion | None = None,
    numerics: Numerics | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Likeness:
    """Compare the local score with a diffusion model that is fitted here.

    data     a key of `generators.BENCHES`
    n        int >= 2     test images noised, and as many made
    model    the diffusion model; default: `diffusion` with its defaults
    told     called with what is being done
    raises   ValueError   if the data are unknown, or have fewer test images
    """
    generators.check_data([data])
    model, numerics, local = model or Diffusion(), numerics or Numerics(), LocalScore()
    numerics.apply()
    context = Context(numerics)
    real = real_data(experiment_from(dict(generators.BENCHES[data].fields)))
    start, test = real.start.load(), real.test.load()
    if not 2 <= n <= len(test):
        raise ValueError(f"n must be 2 to {len(test)}, the number of test images; got {n}")
    shown = np.linspace(0, len(test) - 1, n).astype(int)
    label = test.label[shown]

    def fitted(i: int) -> Denoiser:
        told(f"network {i + 1} of 2")
        seed = seed_for("bench", "likeness", i)
        state = model.fit(start, start.label, None, seed=seed, context=context)
        return model.network_of(state, context)

    network, other = fitted(0), fitted(1)
    side = model.inner(start.images.shape[2])

    def pixels_of(images: np.ndarray | Tensor) -> Tensor:
        """Images as both networks see them: their colours are those of the same start."""
        seen: Tensor = network.colors(padded(context.pixels(images), side))
        return seen

    told("windows of the rule")
    rule = local.fit(start, start.label, None, seed=seed_for("bench", "likeness"), context=context)
    times, sizes = local.times(), ladder(side)
    alpha, sigma = (part.tolist() for part in schedule())

    def trained(by: Denoiser) -> Clean:
        clean = model.denoiser(by, int(start.label.max()) + 1, context)
        return lambda x, t: clean(x, t, context.tensor(label))

    def windowed(windows: Mapping[int, int]) -> Clean:
        return functools.partial(_windowed, start, label, windows, pixels_of)

    with torch.inference_mode():
        y = pixels_of(test.images[shown])
        eps = noise(tuple(y.shape), context, seed_for("bench", "likeness", "noise"))
        noised = {t: alpha[t] * y + sigma[t] * eps for t in times[:-1]}
        of_network = {t: trained(network)(x, t) for t, x in noised.items()}

        def mean_r2(clean: Clean, t: int) -> float:
            return float(np.nanmean(r_squared(clean(noised[t], t), of_network[t], label)))

        r2 = {}
        for t in noised:
            told(f"noise level {sigma[t] / alpha[t]:.2f}")
            r2[t] = {size: mean_r2(windowed({t: size}), t) for size in sizes}
        by_rule = dict(zip(noised, rule["windows"].tolist(), strict=True))
        rule_sizes = {t: _nearest(sizes, window) for t, window in by_rule.items()}
        nearest = {t: max(r2[t], key=r2[t].__getitem__) for t in noised}
        ways = {
            OTHER: trained(other),
            RULE: windowed(by_rule),
            NEAREST: windowed(nearest),
            MEMORY: windowed(dict.fromkeys(noised, sizes[-1])),
        }
        told("images from the same noise")
        made = {
            way: solve(clean, eps, alpha, sigma, times, local.order)
            for way, clean in {NETWORK: trained(network), **ways}.items()
        }
        by_way = [
            {
                "way": way,
                "r2_estimates": np.mean([mean_r2(clean, t) for t in noised]),
                "r2_images": np.nanmedian(r_squared(made[way], made[NETWORK], label)),
            }
            for way, clean in ways.items()
        ]
        pictures = {way: to_uint8(network.colors.back(images)) for way, images in made.items()}
    by_window = [
        {
            "level": sigma[t] / alpha[t],
            "t": t,
            "window": size,
            "r2": r2[t][size],
            "rule": size == rule_sizes[t],
            "nearest": size == nearest[t],
        }
        for t in noised
        for size in sizes
    ]
    return Likeness(pd.DataFrame(by_window), pd.DataFrame(by_way), pictures)


def _nearest(sizes: Sequence[int], window: int) -> int:
    return min(sizes, key=lambda size: abs(size - window))


def _windowed(
    start: LabeledImages,
    label: np.ndarray,
    windows: Mapping[int, int],
    pixels_of: Callable[[np.ndarray | Tensor], Tensor],
    x: Tensor,
    t: int,
) -> Tensor:
    """The estimate of the local score, told the class, with a window for each time."""
    alpha, sigma = (part.tolist() for part in schedule())
    estimate = torch.empty_like(x)
    for k in np.unique(label):
        rows = torch.as_tensor(label == k, device=x.device)
        images = torch.as_tensor(start.images[start.label == k])
        estimate[rows] = estimated(x[rows], images, alpha[t], sigma[t], windows[t], pixels_of)
    return estimate


# ---- What is shown -------------------------------------------------------------------------------


def sentences(found: Likeness, n: int) -> list[str]:
    """What was found, in words."""
    return [
        f"{row.way}: r^2 of estimates {row.r2_estimates:.2f}, of images {row.r2_images:.2f}; n = "
        f"{n} images"
        for row in found.by_way.itertuples()
    ]


def write(
    data: str, folder: Path, numerics: Numerics, told: Callable[[str], None], quick: bool = False
) -> list[str]:
    """Compare, write likeness.csv, the figure likeness.png and pictures into a folder, and say what
    was found.

    quick    few steps and few images, to see that it runs
    raises   ValueError   as `likeness`
    """
    n, model = (20, Diffusion(steps=2)) if quick else (IMAGES, Diffusion())
    found = likeness(data, n, model=model, numerics=numerics, told=told)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "likeness.csv") as file:
        found.by_window.round(4).to_csv(file, index=False)
    says = f"{generators.BENCHES[data].says}, n = {n} test images, {environment()['processor']}"
    with replacing(folder / "likeness.png") as file:
        likeness_figure(found, says).savefig(file)
    with replacing(folder / "likeness-pictures.png") as file:
        generators.wall(found.pictures).savefig(file)
    return [*sentences(found, n), str(folder)]


def likeness_figure(found: Likeness, says: str) -> Figure:
    """r^2 against the window, a line for each noise level; ring: window of the rule, dot: window
    most like the network."""
    use_style()
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    levels = list(found.by_window.groupby("level", sort=True))
    for i, (level, rows) in enumerate(levels):
        color = plt.get_cmap("viridis")(0.9 * i / max(1, len(levels) - 1))
        axis.plot(rows.window, rows.r2, color=color, linewidth=1.2, label=f"{level:.2g}")
        axis.plot(rows.window[rows.rule], rows.r2[rows.rule], "o", mfc="none", ms=8, color=color)
        axis.plot(rows.window[rows.nearest], rows.r2[rows.nearest], ".", ms=7, color=color)
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.set_ylim(-0.5, 1.02)
    axis.set_xlabel("window of the local score (pixels)")
    axis.set_ylabel("r² with the network's estimates")
    axis.legend(title="noise s / a", fontsize=7, title_fontsize=7, ncols=2)
    return signed(figure, f"{says} · ring: window of the rule · dot: window most like the network")
