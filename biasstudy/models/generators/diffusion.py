"""A conditional diffusion model for small colour images: a cosine schedule, a solver of few
steps."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checks import BATCH, RATE, STEPS, among, within
from ...core.context import Context, to_uint8
from ...core.fitting import Batches, MovingAverage, cosine, set_rate, train
from ...core.noise import generator_for, noise, noise_of_images
from ...core.registry import GENERATORS
from ...core.seeds import seed_for
from ...data.images import LabeledImages
from .denoisers import NETWORKS, Denoiser

State = dict[str, Tensor]
TIMES = 1000  # noise levels t = 0 .. TIMES - 1 of the training; -1 stands for the clean image
CLEAN = -1
FOCUS = (0, 100)  # power of a noise level
GUIDANCE = (0, 1000)  # w: at 1000 no pixel is anything but black or white


@GENERATORS.register("diffusion", version=3, warm=True)
@dataclass(frozen=True)
class Diffusion:
    """One network takes the noise out of images, told the noise level and the condition; images are
    made from pure noise.

    noisy image  x_t = alpha_t x + sigma_t eps,  eps standard normal, alpha_t^2 + sigma_t^2 = 1, t
                                                 uniform in 0 .. 999 x is the image in uncorrelated
                                                 colours (`colors`)
    loss         E sigma_t^focus |f(x_t, t, c) - target|^2 / D, target x, v = alpha_t eps - sigma_t
                 x, or eps; a share of the conditions c is replaced by a null condition. Without
                 focus the loss for v is 1 / sigma_t^2, that for eps alpha_t^2 / sigma_t^2 times the
                 squared error of x
    guidance     f(x_t, t, null) + w (f(x_t, t, c) - f(x_t, t, null));  w = 1: f(x_t, t, c) alone,
                 without a second pass

    steps           int >= 1             optimiser steps
    batch           int >= 1             images in a step
    network         "unet" or "lean"     the UNet of diffusers with three resolutions, or one of two
                                         and ours, quicker on a CPU in bf16
    channels        multiple of 8        width of the network at full resolution; twice and three
                                         times that below (lean: three times at half of it)
    layers          int >= 1             residual blocks per resolution (lean: at half of it)
    patch           int >= 1             the network sees patch x patch pixels as one, with 3
                                         patch^2 channels: much faster
    rate            float > 0            of Adam; rises over the first 5 % of the steps, then falls
                                         to 0 on a cosine
    average         float in [0, 1)      decay of the moving average that makes images, less in the
                                         first steps
    prediction      "x", "v" or "eps"    what the network predicts. With v the nearly clean image
                                         comes back as it is; with x a small network paints it
                                         anew, and many solver steps blur it
    focus           float >= 0           higher: on much noise, where it is decided what is drawn;
                                         lower: on little noise, where fine detail is. With v, 2 is
                                         the loss for x and 1 stands midway
    drop            float in [0, 1)      share of training conditions replaced by the null condition
    guidance        float >= 0           w
    solver          "dpm" or "ddim"      DPM-Solver++ (multistep, midpoint), or DDIM, which is its
                                         order 1
    order           1 or 2               of the solver
    churn           float in [0, 1]      share of fresh noise in every step; 1: ancestral sampling,
                                         which mends errors of the steps before
    sampling_steps  int 1 .. 1000        network evaluations per image
    source          Ho et al. 2020 (DDPM); Nichol and Dhariwal 2021 (cosine schedule); Salimans and
                    Ho 2022 (v); Ho and Salimans 2022 (guidance); Song et al. 2021 (DDIM); Lu et al.
                    2022 (DPM-Solver++); Kingma et al. 2021 (evenly spaced times in a batch); Li and
                    He 2025 (losses in terms of x)
    """

    steps: int = 1800
    batch: int = 16
    network: str = "unet"
    channels: int = 24
    layers: int = 1
    patch: int = 2
    rate: float = 2e-3
    average: float = 0.995
    prediction: str = "x"
    focus: float = 0.0
    drop: float = 0.1
    guidance: float = 1.0
    solver: str = "dpm"
    order: int = 2
    churn: float = 0.0
    sampling_steps: int = 10

    def __post_init__(self) -> None:
        within(
            "diffusion",
            self,
            steps=STEPS,
            batch=BATCH,
            channels=(8, 1024),
            layers=(1, 32),
            patch=(1, 64),
            rate=RATE,
            focus=FOCUS,
            guidance=GUIDANCE,
            churn=(0, 1),
            sampling_steps=(1, TIMES),
        )
        among(
            "diffusion",
            self,
            network=("unet", "lean"),
            prediction=("x", "v", "eps"),
            solver=("dpm", "ddim"),
            order=(1, 2),
        )
        if self.solver == "ddim" and self.order != 1:
            raise ValueError(f"diffusion: solver ddim has order 1; got order {self.order}")
        if self.channels % 8:
            raise ValueError(f"diffusion: channels must be a multiple of 8; got {self.channels}")
        if not (self.rate > 0 and 0 <= self.average < 1 and 0 <= self.drop < 1):
            raise ValueError(
                "diffusion: rate must be above 0, average and drop in [0, 1); got "
                f"{self.rate}, {self.average}, {self.drop}"
            )
        if self.guidance != 1 and self.drop == 0:
            raise ValueError(
                f"diffusion: guidance {self.guidance} needs drop above 0: the null condition must "
                "be learnt"
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
        size, n_conditions = pool.images.shape[2], int(told.max()) + 1
        inner, multiple = self.inner(size), NETWORKS[self.network].multiple(self.patch)
        with context.initial(seed, "init"):
            network = self._network(n_conditions, size)
        network.place(context)
        network.colors.fit(pool.images)
        average = MovingAverage(network, self.average)
        if previous is not None:
            _load(network, previous, "network.", n_conditions)
            _load(average, previous, "average.", n_conditions)
        adam = context.optimizer(torch.optim.Adam, network.parameters(), self.rate)
        images, condition = context.tensor(pool.images), context.tensor(told)
        batches = Batches(len(pool), self.batch, seed_for(seed, "batches"), context)
        alpha, sigma = (
            part.to(context.numerics.device, context.numerics.dtype) for part in schedule()
        )
        # it has no dropout; when training, diffusers copies what enters the shortcuts
        network.eval()

        @context.recorded
        def descend(index: Tensor, t: Tensor, dropped: Tensor, eps: Tensor) -> None:
            x = network.colors(padded(context.pixels(images[index]), multiple))
            c = condition[index].masked_fill(dropped, n_conditions)
            a, s = alpha[t][:, None, None, None], sigma[t][:, None, None, None]
            target = {"x": x, "v": a * eps - s * x, "eps": eps}[self.prediction]
            with context.numerics.autocast():
                f = network(a * x + s * eps, t, c)
            wrong = (f.to(x.dtype) - target).square()
            loss = (s**self.focus * wrong).mean()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()

        def step(i: int) -> None:
            set_rate(adam, self.rate * cosine(i, self.steps))
            g, n = generator_for(seed, "levels", i), self.batch
            t = (torch.rand(1, generator=g, dtype=torch.float64) + torch.arange(n) / n).mul(
                TIMES
            ).long() % TIMES
            dropped = torch.rand(n, generator=g, dtype=torch.float64) < self.drop
            eps = noise((n, 3, inner, inner), context, seed, "noise", i)
            descend(batches(i), context.tensor(t), context.tensor(dropped), eps)
            average.update_parameters(network)

        train({"network": network, "average": average, "adam": adam}, step, self.steps, context)
        state = {"n_conditions": torch.tensor(n_conditions), "size": torch.tensor(size)}
        for prefix, module in (("network.", network), ("average.", average)):
            state |= {
                prefix + name: value.detach().cpu() for name, value in module.state_dict().items()
            }
        return state

    def inner(self, size: int) -> int:
        """Side of the images that the network sees: the next multiple that it can halve."""
        return size + -size % NETWORKS[self.network].multiple(self.patch)

    def _network(self, n_conditions: int, size: int) -> Denoiser:
        """The network for images of this side, with weights yet to be learnt."""
        build: Callable[..., Denoiser] = NETWORKS[self.network]
        return build(self.channels, self.layers, self.patch, n_conditions, self.inner(size))

    # -- sampling

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        size, n_conditions = int(state["size"]), int(state["n_conditions"])
        if len(told) and not 0 <= told.min() <= told.max() < n_conditions:
            raise ValueError(
                f"diffusion knows conditions 0..{n_conditions - 1}; got {told.min()}..{told.max()}"
            )
        network = self.network_of(state, context)
        clean = self.denoiser(network, n_conditions, context)
        alpha, sigma = (part.tolist() for part in schedule())
        inner, times = self.inner(size), spaced(self.sampling_steps)
        low_edge, shape = (inner - size) // 2, (3, inner, inner)
        chunks = [np.empty((0, 3, size, size), np.uint8)]
        at_once = network.at_once(inner, context)
        with torch.inference_mode():
            for low in range(0, len(told), at_once):
                c = context.tensor(told[low : low + at_once])

                def estimate(x: Tensor, t: int, c: Tensor = c) -> Tensor:
                    return clean(x, t, c)

                def fresh(t: int, first: int = first_index + low, n: int = len(c)) -> Tensor:
                    return noise_of_images(first, n, shape, seed_for(seed, "churn", t), context)

                x = solve(
                    estimate,
                    noise_of_images(first_index + low, len(c), shape, seed, context),
                    alpha,
                    sigma,
                    times,
                    self.order,
                    self.churn,
                    fresh,
                )
                chunks.append(
                    to_uint8(
                        network.colors.back(x)[
                            :, :, low_edge : low_edge + size, low_edge : low_edge + size
                        ]
                    )
                )
        return np.concatenate(chunks)

    def network_of(self, state: State, context: Context) -> Denoiser:
        """The fitted network that makes images."""
        n_conditions = int(state["n_conditions"])
        network = self._network(n_conditions, int(state["size"]))
        _load(network, state, "average.module.", n_conditions)
        return network.place(context).eval()

    def denoiser(
        self, network: Denoiser, n_conditions: int, context: Context
    ) -> Callable[[Tensor, int, Tensor], Tensor]:
        """clean(x, t, c): the estimate of the clean images in x at time t, told the conditions c;
        all in uncorrelated colours."""
        alpha, sigma = (part.tolist() for part in schedule())

        @context.recorded
        def predicted(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
            with context.numerics.autocast():
                return guided(network, x, t, c, n_conditions, self.guidance)

        def clean(x: Tensor, t: int, c: Tensor) -> Tensor:
            f = predicted(x, torch.full((len(x),), t, device=x.device), c)
            x0 = cleaned(self.prediction, x, f.to(x.dtype), alpha[t], sigma[t])
            # no pixel lies outside
            return network.colors(network.colors.back(x0))

        return clean


# ---- Noise levels, guidance, solver --------------------------------------------------------------


def schedule() -> tuple[Tensor, Tensor]:
    """Signal alpha_t and noise sigma_t of the cosine schedule for t = 0 .. 999, and 1 and 0 at
    index -1; (1001,) float64.

    alpha_t^2 = product over i <= t of max(0.001, r((i + 1) / 1000) / r(i / 1000)),  r(u) = cos^2((u
    + 0.008) / 1.008 pi / 2)
    """
    r = torch.tensor(
        [math.cos((i / TIMES + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(TIMES + 1)],
        dtype=torch.float64,
    )
    kept = torch.cat(
        [(r[1:] / r[:-1]).clamp(min=0.001).cumprod(0), torch.ones(1, dtype=torch.float64)]
    )
    return kept.sqrt(), (1 - kept).sqrt()


def spaced(n: int) -> list[int]:
    """n + 1 noise levels from the noisiest, 999, evenly down to the clean image, -1."""
    return [round(TIMES * (1 - k / n)) - 1 for k in range(n + 1)]


def solve(
    clean: Callable[[Tensor, int], Tensor],
    x: Tensor,
    alpha: Sequence[float],
    sigma: Sequence[float],
    times: Sequence[int],
    order: int,
    churn: float = 0.0,
    fresh: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """From noise to images along times[0] > times[1] > ...: DPM-Solver++, multistep; its order 1 is
    DDIM.

    x_s = (k / sigma_t) x_t + (alpha_s - alpha_t k / sigma_t) D + e z,  k = sqrt(sigma_s^2 - e^2)
    e   = churn (sigma_s / sigma_t) sqrt(1 - alpha_t^2 / alpha_s^2), 0 in the last step
    D   = x0_t in order 1 and in the first and the last step, else x0_t + (x0_t - x0_r) (l_s - l_t)
        / (2 (l_t - l_r)),
          r the time before t, l = log(alpha / sigma)

    clean    clean(x, t) -> x0     the estimate of the clean images in x at time t
    x        (B, ...)              standard normal numbers, the noisiest images
    churn    float in [0, 1]       the share of fresh noise: 0 puts none back, 1 as much as makes
                                   every step forget the noise of the last (ancestral sampling)
    fresh    fresh(t) -> z         standard normal numbers like x for the step from time t; not
                                   called without churn
    source   Lu et al. 2022, arXiv 2211.01095, algorithm 2; Song et al. 2021, arXiv 2010.02502,
             equations 12 and 16 (churn is its eta)
    """
    level = [math.log(a / s) if s else math.inf for a, s in zip(alpha, sigma, strict=True)]
    before, r = None, CLEAN
    for t, s in itertools.pairwise(times):
        x0 = clean(x, t)
        d = x0
        if order == 2 and before is not None and s != CLEAN:
            d = x0 + (x0 - before) * ((level[s] - level[t]) / (2 * (level[t] - level[r])))
        added = churn * sigma[s] / sigma[t] * math.sqrt(1 - (alpha[t] / alpha[s]) ** 2)
        kept = math.sqrt(sigma[s] ** 2 - added**2)
        x = kept / sigma[t] * x + (alpha[s] - alpha[t] * kept / sigma[t]) * d
        if fresh is not None and added > 0:
            x = x + added * fresh(t)
        before, r = x0, t
    return x


def cleaned(prediction: str, x: Tensor, f: Tensor, a: float, s: float) -> Tensor:
    """The clean images in x = a x0 + s eps, from a prediction f of x0, of v = a eps - s x0 or of
    eps."""
    if prediction == "x":
        return f
    return a * x - s * f if prediction == "v" else (x - s * f) / a


def guided(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    c: Tensor,
    null: int,
    w: float,
) -> Tensor:
    """Prediction with classifier-free guidance: f(null) + w (f(c) - f(null)); w = 1 needs one pass
    only."""
    if w == 1:
        return network(x, t, c)
    free, conditional = network(
        torch.cat([x, x]), torch.cat([t, t]), torch.cat([torch.full_like(c, null), c])
    ).chunk(2)
    return free + w * (conditional - free)


def padded(x: Tensor, multiple: int) -> Tensor:
    """Images with their edges repeated until the side is such a multiple; (B, 3, S, S)."""
    missing = -x.shape[2] % multiple
    return F.pad(x, (missing // 2, missing - missing // 2) * 2, mode="replicate") if missing else x


def _load(module: nn.Module, state: State, prefix: str, n_conditions: int) -> None:
    """Weights from the part of a state that has this prefix."""
    if int(state["n_conditions"]) != n_conditions:
        raise ValueError(
            f"the previous diffusion knows {int(state['n_conditions'])} conditions; this pool has "
            f"{n_conditions}"
        )
    module.load_state_dict(
        {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    )
