"""Images without training: the denoiser that knows the training images and sees a window around
every pixel.

Letters: B images made, M training images, C colours, S side, P = S^2 pixels.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.checks import among, within
from ...core.context import Context, to_uint8
from ...core.noise import CHUNK, generator_for, noise, noise_of_images
from ...core.registry import GENERATORS
from ...core.seeds import seed_for
from ...data.images import LabeledImages
from .diffusion import CLEAN, TIMES, schedule, solve, spaced

State = dict[str, Tensor]
RULES, LEVELS = ("denoising", "linear"), ("geometric", "even")
# s / a of the first and the last level: where the mean colour of an image begins to show in the
# noise of all its pixels together, and where little but the noise of one pixel is left
NOISIEST, CLEANEST = 40.0, 0.15
WINDOW = (1, 10**4)
# images whose noise is held at once, and the largest (P, B, M) numbers: what fits a cache, or a GPU
AT_ONCE, BLOCK = 8 * CHUNK, {"cpu": 2**20, "cuda": 2**26}
NOTHING = 80  # exp(-80) is 2e-35
# of estimates, so that processors which sum in another order make the same images: where two
# images fit equally well, a step can make a difference a hundred thousand times as large
ROUNDING = 2.0**-20
TRIED = 64  # images of the pool on which the denoising error of a window is measured


@GENERATORS.register("local-score", version=2)
@dataclass(frozen=True)
class LocalScore:
    """Noise is taken out of every pixel by what the training images show in a window around it; no
    training.

    noisy image  x_t = a x + s eps,  eps standard normal, a^2 + s^2 = 1, the levels of `diffusion`
    estimate     D(x_t)_p = sum_y w_y y_p,  over the training images y of the told condition
    weights      w = softmax over y of -|x_t - a y|^2 / (2 s^2), squares over the colours and the
                 pixels of a window around p, which ends at the border of the image
    steps        those of `diffusion`'s solver, from noise to the last estimate

    Window 1 sees a pixel alone; a window twice the image makes training images anew. Window by
    noise level: `linear` in s from `largest` to `smallest`, the window of the last level that is
    estimated, whatever the number of steps; `denoising`, the window of least squared error on
    images of the pool whose own weight is 0, times `widen`, at least `smallest`.

    window          "denoising", "linear"  the rule
    largest         odd int >= 1           pixels, window at the noisiest level; `linear` only
    smallest        odd int >= 1           pixels, window at the last level, or the least of all
    widen           float > 0              `denoising` only
    levels          "geometric", "even"    noise levels: s / a falls by equal factors from 40 to
                                           0.15, or t by equal steps as in `diffusion`; even steps
                                           leap over the levels at which the mean colours of an
                                           image are decided, and contrast is lost
    order           1 or 2                 of the solver
    sampling_steps  int 1 .. 1000          estimates per image
    churn           float in [0, 1]        share of fresh noise in every step; 1: ancestral sampling
    source          Kamb and Ganguli 2024, arXiv 2412.20292 (local score machines; theirs compare
                    patches of all places); Niedoba et al. 2024, arXiv 2411.19339; Scarvelis et al.
                    2023, arXiv 2310.12395 (closed-form diffusion); Lukoianov et al. 2025 (locality
                    comes from the data)
    """

    window: str = "denoising"
    largest: int = 21
    smallest: int = 5
    widen: float = 1.5
    levels: str = "geometric"
    order: int = 2
    sampling_steps: int = 10
    churn: float = 0.0

    def __post_init__(self) -> None:
        within(
            "local-score",
            self,
            largest=WINDOW,
            smallest=WINDOW,
            widen=(0.01, 100),
            sampling_steps=(1, TIMES),
            churn=(0, 1),
        )
        among("local-score", self, window=RULES, order=(1, 2), levels=LEVELS)
        for name in ("largest", "smallest"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(
                    f"local-score: {name} must be odd, a pixel and as many on either side; got "
                    f"{getattr(self, name)}"
                )
        if self.window == "linear" and self.smallest > self.largest:
            raise ValueError(
                f"local-score: smallest must be at most largest {self.largest}; got {self.smallest}"
            )

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
        order = np.argsort(told, kind="stable")
        images, known = torch.as_tensor(pool.images[order]), torch.as_tensor(told[order])
        levels = self.times()[:-1]
        with torch.inference_mode():
            windows = (
                self._linear(levels)
                if self.window == "linear"
                else self._denoising(levels, images, known, seed, context)
            )
        return {"images": images, "told": known, "windows": torch.tensor(windows)}

    def times(self) -> list[int]:
        return (geometric if self.levels == "geometric" else spaced)(self.sampling_steps)

    def _linear(self, levels: list[int]) -> list[int]:
        sigma = schedule()[1]
        first, last = float(sigma[levels[0]]), float(sigma[levels[-1]])
        # 1 at the noisiest level, 0 at the last
        left = [(float(sigma[t]) - last) / (first - last) if t != levels[-1] else 0 for t in levels]
        return [odd(self.smallest + (self.largest - self.smallest) * part) for part in left]

    def _denoising(
        self, levels: list[int], images: Tensor, told: Tensor, seed: int, context: Context
    ) -> list[int]:
        """The rule on images of the pool, chosen at random from conditions that have others. From
        the noisiest level on, where the largest window is best, the window only shrinks."""
        low, high = torch.searchsorted(told, told), torch.searchsorted(told, told, right=True)
        has_others = torch.nonzero(high - low > 1)[:, 0]
        shuffled = torch.randperm(len(has_others), generator=generator_for(seed, "tried"))
        tried = has_others[shuffled[:TRIED]].sort().values
        if not len(tried):
            return [self.smallest] * len(levels)
        alpha, sigma = (part.tolist() for part in schedule())
        clean = context.pixels(images[tried])
        sizes = ladder(images.shape[2])
        best, windows = len(sizes) - 1, []
        for t in levels:
            x = alpha[t] * clean + sigma[t] * noise(tuple(clean.shape), context, seed, "tried", t)

            def error(k: int, x: Tensor = x, t: int = t) -> float:
                estimate = torch.empty_like(x)
                for c in told[tried].unique():
                    rows = torch.nonzero(told[tried] == c)[:, 0]
                    first, last = int(low[tried[rows[0]]]), int(high[tried[rows[0]]])
                    estimate[rows] = estimated(
                        x[rows],
                        images[first:last],
                        alpha[t],
                        sigma[t],
                        sizes[k],
                        context.pixels,
                        tried[rows] - first,
                    )
                return float((estimate - clean).square().mean())

            least = error(best)
            while best and (smaller := error(best - 1)) <= least * (1 + ROUNDING):
                best, least = best - 1, smaller
            windows.append(max(self.smallest, odd(self.widen * sizes[best])))
        return windows

    def sample(
        self, state: State, told: np.ndarray, first_index: int, *, seed: int, context: Context
    ) -> np.ndarray:
        images, known = state["images"], state["told"]
        shape = tuple(images.shape[1:])
        part = {
            int(c): torch.searchsorted(known, torch.tensor([c, c + 1])).tolist()
            for c in np.unique(told)
        }
        for c, (low, high) in part.items():
            if low == high:
                raise ValueError(
                    f"local-score was told condition {c}, which its training set does not have"
                )
        alpha, sigma = (levels.tolist() for levels in schedule())
        times = self.times()
        window = dict(zip(times, state["windows"].tolist(), strict=False))
        made = [np.empty((0, *shape), np.uint8)]
        with torch.inference_mode():
            for start in range(0, len(told), AT_ONCE):
                asked = torch.as_tensor(told[start : start + AT_ONCE])
                first, n = first_index + start, len(asked)

                def clean(x: Tensor, t: int, asked: Tensor = asked) -> Tensor:
                    estimate = torch.empty_like(x)
                    for c in asked.unique().tolist():
                        rows = torch.nonzero(asked == c)[:, 0].to(x.device)
                        low, high = part[c]
                        estimate[rows] = estimated(
                            x[rows], images[low:high], alpha[t], sigma[t], window[t], context.pixels
                        )
                    return estimate

                def fresh(t: int, first: int = first, n: int = n) -> Tensor:
                    return noise_of_images(first, n, shape, seed_for(seed, "churn", t), context)

                x = noise_of_images(first, n, shape, seed, context)
                x = solve(clean, x, alpha, sigma, times, self.order, self.churn, fresh)
                made.append(to_uint8(x))
        return np.concatenate(made)


# ---- Windows and estimates -----------------------------------------------------------------------


def geometric(n: int) -> list[int]:
    """n noise levels whose s / a fall by equal factors from NOISIEST to CLEANEST, then the clean
    image; fewer where two would be the same level of the schedule."""
    alpha, sigma = schedule()
    ratio = (sigma[:-1] / alpha[:-1]).log()
    wanted = torch.linspace(math.log(NOISIEST), math.log(CLEANEST), n, dtype=torch.float64)
    nearest = (ratio[None] - wanted[:, None]).abs().argmin(1).tolist()
    return [*dict.fromkeys(nearest), CLEAN]


def odd(size: float) -> int:
    """The odd number next to a size, at least 1."""
    return 2 * max(0, round((size - 1) / 2)) + 1


def ladder(side: int) -> list[int]:
    """Windows from 1 pixel to the whole image seen from any of its pixels, each about a quarter
    larger than the last."""
    sizes = [1]
    while sizes[-1] < 2 * side - 1:
        sizes.append(min(2 * side - 1, max(sizes[-1] + 2, odd(1.25 * sizes[-1]))))
    return sizes


def estimated(
    x: Tensor,
    images: Tensor,
    a: float,
    s: float,
    window: int,
    pixels_of: Callable[[Tensor], Tensor],
    own: Tensor | None = None,
) -> Tensor:
    """The clean images in x = a y + s eps, where each pixel sees a window of every training image.

    sum_y w_y y_p,  w = softmax over y of b_p(a x.y / s^2 - a^2 |y|^2 / (2 s^2)), b_p the sum over
    the window around pixel p; |x|^2 is the same for all y. Training images come in blocks, with the
    largest exponent so far taken out of the sums, so memory does not grow with them.

    x          (B, C, S, S)         clean numbers and noise
    images     (M, C, S, S) uint8   training images
    window     odd int              side of the window in pixels
    pixels_of  images to numbers    such as x has: -1..1, or uncorrelated colours
    own        (B,) int or None     training image whose weight is 0, for each of x
    returns    (B, C, S, S), rounded to ROUNDING
    """
    b, c, side, _ = x.shape
    place = torch.arange(side, device=x.device)
    # box sums as products with a band matrix on both sides: faster than cumulative sums
    band = ((place[:, None] - place).abs() <= window // 2).to(x.dtype)
    pixels = x.permute(2, 3, 0, 1).reshape(side**2, b, c)
    seen = torch.cat([a / s**2 * pixels, torch.ones_like(pixels[..., :1])], 2)
    at_once = max(1, BLOCK[x.device.type] // side**2)
    total = x.new_zeros(side**2, b, c + 1)
    peak = x.new_full((side**2, b, 1), -torch.inf)
    for low, high in blocks(len(images), max(1, min(128, at_once))):
        y = pixels_of(images[low:high]).permute(2, 3, 1, 0).reshape(side**2, c, high - low)
        squares = -(a**2) / (2 * s**2) * y.square().sum(1, keepdim=True)
        shown = torch.cat([y, squares], 1)
        values = torch.cat([y, torch.ones_like(squares)], 1).transpose(1, 2).contiguous()
        for first, last in blocks(b, max(1, at_once // (high - low))):
            exponent = torch.bmm(seen[:, first:last], shown)
            if window > 1:
                exponent = band @ exponent.view(side, -1)
                exponent = band @ exponent.view(side, side, -1)
                exponent = exponent.view(side**2, last - first, high - low)
            if own is not None:
                mine = own[first:last, None].to(x.device) == torch.arange(
                    low, high, device=x.device
                )
                exponent.masked_fill_(mine, -torch.inf)
            before = peak[:, first:last]
            after = torch.maximum(before, exponent.amax(2, keepdim=True)).clamp_(
                min=torch.finfo(x.dtype).min
            )
            # where it is nothing beside the largest, exp would leave the fast path
            weight = exponent.sub_(after).clamp_(min=-NOTHING).exp_()
            total[:, first:last] *= (before - after).exp_()
            total[:, first:last] += torch.bmm(weight, values)
            peak[:, first:last] = after
    mean = total[..., :c] / total[..., c:]
    mean = mean.div_(ROUNDING).round_().mul_(ROUNDING)
    return mean.view(side, side, b, c).permute(2, 3, 0, 1)


def blocks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Where n things in as few nearly equal blocks of at most `size` begin and end."""
    count = -(-n // size)
    return itertools.pairwise(n * k // count for k in range(count + 1)) if n else iter(())
