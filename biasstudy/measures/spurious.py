"""Spurious metrics: does a classifier look at the object, or at what is around it? For images with
a mask of the object.

Relative foreground sensitivity (Moayeri et al. 2022, "Hard ImageNet"; their rfs.py): noise on the
object (foreground) or on all else (background), and which of the two costs more accuracy.

    RFS = (a_bg - a_fg) / (2 min(a, 1 - a)),  a = (a_fg + a_bg) / 2;  0 where a is 0 or 1

a_fg, a_bg are the accuracies with noise on foreground and background: clamp(x + M sigma N(0, 1), 0,
1), each image in TRIALS draws, averaged within classes first, then over classes. 1: noise around
the object does no harm; -1: noise on it does none. Ours is the choice that noisy pixels are rounded
to the 256 levels that every classifier here takes, and that all sigmas, arms and generations see
the same draws, which belong to the image, not to its place in a batch.

Ablations (their ablations.py) take the object away; a *small* loss of accuracy is bad. `tile`
follows their description: their code mixes up rows and columns, and its boxes lack the last row and
column of the object, where ours hold all of it.

    none         the image as it is
    grey-object  pixels of the object grey
    grey-box     the bounding box of the object grey
    tile         the box of each connected piece filled with copies of the largest adjacent patch:
                 of the four boxes beside it, cut off at the edge of the image and at the next
                 object pixel; grey where there is no room on any side

Plain numpy; imports nothing else of the package but the metrics' Value.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..core.seeds import seed_for
from .metrics import Value

SIGMAS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)  # of pixels 0..1: the grid of the authors
SIGMA = 0.25  # their default
TRIALS = 3
SEED = seed_for("spurious")  # of the noise, in every study
GREY = 128  # 0.5 as one of 256 levels
# bytes of images that a classifier is given together
AT_ONCE = 2**26

Predict = Callable[[np.ndarray], np.ndarray]


# ---- What is done to images ----------------------------------------------------------------------


def noise_of(unit: int, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """The draws that belong to one image: TRIALS times standard normal numbers, (TRIALS, *shape)
    float32.

    Each is one of 2^16 equally probable quantiles, looked up: four times as fast as drawing them,
    and the same on every machine.
    """
    n = TRIALS * int(np.prod(shape))
    drawn = np.frombuffer(np.random.default_rng([seed, unit]).bytes(2 * n), "<u2")
    return _quantiles().take(drawn).reshape(TRIALS, *shape)


@functools.cache
def _quantiles() -> np.ndarray:
    from scipy.special import ndtri  # slow to import

    return ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)


def noisy(
    image: np.ndarray, mask: np.ndarray, noise: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """An image with noise on its object and with noise on all else.

    image    (C, H, W) uint8
    mask     (H, W) bool
    noise    (TRIALS, C, H, W) float32   standard normal
    sigma    of pixels 0..1
    returns  two arrays (TRIALS, C, H, W) uint8, clamped and rounded
    """
    everywhere = noise * np.float32(255 * sigma)
    everywhere += image + np.float32(0.5)
    np.clip(everywhere, 0.5, 255.5, out=everywhere)
    changed = everywhere.astype(np.uint8)
    # the bits in which noise changes a pixel
    changed ^= image
    inside = changed & (np.uint8(255) * mask)
    return image ^ inside, image ^ (changed ^ inside)


def grey_object(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixels of the object grey."""
    return np.where(mask, np.uint8(GREY), image)


def grey_box(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The bounding box of the object grey, its last row and column included."""
    ablation = image.copy()
    if mask.any():
        ablation[:, box_of(mask)[0], box_of(mask)[1]] = GREY
    return ablation


def box_of(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the bounding box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def tile(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The bounding box of each connected piece of the object (4-connected, in the order of its
    rows) filled with copies of the largest adjacent patch; of equally large ones the first of
    right, left, below, above."""
    from scipy import ndimage  # slow to import

    ablation = image.copy()
    for rows, columns in ndimage.find_objects(ndimage.label(mask)[0]):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        patches = [
            _beside(ablation[:, rows], mask[rows], columns, 2),
            _beside(ablation[:, :, columns], mask[:, columns], rows, 1),
        ]
        best = max((patch for pair in patches for patch in pair), key=lambda patch: patch[0].size)
        patch, axis, from_end = best
        if not patch.size:
            ablation[:, rows, columns] = GREY
            continue
        n = width if axis == 2 else height
        copies = np.concatenate([patch] * -(-n // patch.shape[axis]), axis=axis)
        # whole copies lie next to the patch
        start = copies.shape[axis] - n if from_end else 0
        ablation[:, rows, columns] = copies.take(range(start, start + n), axis=axis)
    return ablation


def _beside(
    strip: np.ndarray, mask: np.ndarray, at: slice, axis: int
) -> list[tuple[np.ndarray, int, bool]]:
    """The patches behind and before a box in a strip of the image as broad as the box; each with
    the axis along which the strip runs, and whether copies are laid out from the end of the box."""
    size, taken = at.stop - at.start, np.flatnonzero(mask.any(axis=2 - axis))
    after, before = taken[taken >= at.stop], taken[taken < at.start]
    end = min(at.stop + size, strip.shape[axis], int(after[0]) if len(after) else strip.shape[axis])
    start = max(at.start - size, 0, int(before[-1]) + 1 if len(before) else 0)
    return [
        (strip.take(range(at.stop, end), axis=axis), axis, False),
        (strip.take(range(start, at.start), axis=axis), axis, True),
    ]


ABLATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "none": lambda image, mask: image,
    "grey-object": grey_object,
    "grey-box": grey_box,
    "tile": tile,
}


# ---- What a classifier says to that --------------------------------------------------------------


def responses(
    predict: Predict,
    images: np.ndarray,
    mask: np.ndarray,
    label: np.ndarray,
    unit: np.ndarray,
    *,
    seed: int = SEED,
    at_once: int = AT_ONCE,
) -> dict[str, np.ndarray]:
    """How a classifier answers noise and ablations, image by image.

    predict  (n, C, H, W) uint8 -> (n, n_classes) probabilities
    images   (N, C, H, W) uint8
    mask     (N, H, W) bool
    label    (N,) int
    unit     (N,) int                      names the noise of each image
    at_once  bytes of images that predict is given together; does not change the result
    returns  hits (N, len(SIGMAS), 2) uint8      of TRIALS, how often it is right with noise on
             foreground, background;
             right (N, len(ABLATIONS)) bool;  confidence (N, len(ABLATIONS)) float32, probability of
                                              the true class
    """
    n, s = len(images), len(SIGMAS)
    per_image, shape = s * 2 * TRIALS + len(ABLATIONS), images.shape[1:]
    answers = {
        "hits": np.zeros((n, s, 2), np.uint8),
        "right": np.zeros((n, len(ABLATIONS)), bool),
        "confidence": np.zeros((n, len(ABLATIONS)), np.float32),
    }
    step = max(1, at_once // (per_image * int(np.prod(shape))))
    # one for all parts: fresh memory costs as much as the noise
    whole = np.empty((min(step, n), per_image, *shape), np.uint8)
    for low in range(0, n, step):
        part = slice(low, min(low + step, n))
        batch = whole[: part.stop - low]
        for i, versions in enumerate(batch, start=low):
            _disturb(images[i], mask[i], int(unit[i]), seed, versions)
        probability = predict(batch.reshape(-1, *shape)).reshape(len(batch), per_image, -1)
        right = probability.argmax(2) == label[part, None]
        answers["hits"][part] = right[:, : -len(ABLATIONS)].reshape(-1, s, 2, TRIALS).sum(3)
        answers["right"][part] = right[:, -len(ABLATIONS) :]
        answers["confidence"][part] = probability[
            np.arange(len(batch)), -len(ABLATIONS) :, label[part]
        ]
    return answers


def _disturb(image: np.ndarray, mask: np.ndarray, unit: int, seed: int, out: np.ndarray) -> None:
    """All that is made of one image: per sigma TRIALS with noise on the foreground and as many on
    the background, then the ablations."""
    noise = noise_of(unit, image.shape, seed)
    for j, sigma in enumerate(SIGMAS):
        k = 2 * TRIALS * j
        out[k : k + TRIALS], out[k + TRIALS : k + 2 * TRIALS] = noisy(image, mask, noise, sigma)
    for j, ablate in enumerate(ABLATIONS.values(), start=len(out) - len(ABLATIONS)):
        out[j] = ablate(image, mask)


# ---- Metrics -------------------------------------------------------------------------------------


def relative_foreground_sensitivity(a_fg: float, a_bg: float) -> float:
    """RFS from the accuracies with noise on foreground and background; in [-1, 1], 0 where both are
    0 or both 1."""
    total = a_fg + a_bg
    return 0.0 if total in (0, 2) else (a_bg - a_fg) / min(total, 2 - total)


def noisy_accuracies(hits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Accuracies with noise on foreground and background, mean over classes of the means within
    classes.

    hits     (N, len(SIGMAS), 2) int   of TRIALS
    returns  (len(SIGMAS), 2) float    nan if there is no image
    """
    means = [hits[label == y].mean(0, dtype=np.float64) / TRIALS for y in np.unique(label)]
    return np.mean(means, axis=0) if means else np.full(hits.shape[1:], np.nan)


def values(found: Mapping[str, np.ndarray], label: np.ndarray) -> Iterator[tuple[str, Value]]:
    """Names and values of all spurious metrics of one classifier.

    relative-foreground-sensitivity          at SIGMA; with -0.5, for example, behind it: at that
                                             sigma
    noisy-foreground-, noisy-background-accuracy   its two parts, at SIGMA
    ablated-accuracy-*, ablated-confidence-*       after each of ABLATIONS: accuracy, and mean
    probability of the true class,
                                                   over all images

    found    what `responses` returns
    label    (N,) int
    """
    n, accuracies = len(label), noisy_accuracies(found["hits"], label)
    for sigma, (a_fg, a_bg) in zip(SIGMAS, accuracies.tolist(), strict=True):
        name = "relative-foreground-sensitivity"
        yield (
            name if sigma == SIGMA else f"{name}-{sigma}",
            Value(relative_foreground_sensitivity(a_fg, a_bg), n),
        )
        if sigma == SIGMA:
            yield "noisy-foreground-accuracy", Value(a_fg, n)
            yield "noisy-background-accuracy", Value(a_bg, n)
    for j, name in enumerate(ABLATIONS):
        for kind, of in (("accuracy", "right"), ("confidence", "confidence")):
            yield (
                f"ablated-{kind}-{name}",
                Value(float(found[of][:, j].mean(dtype=np.float64)) if n else float("nan"), n),
            )
