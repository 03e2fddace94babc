"""Stand-in for Hard ImageNet: small shapes with exact masks on grounds that speak for a class,
drawn by code. Crossed."""

import numpy as np

from ...core.registry import DATASETS
from ...core.seeds import seed_for
from ..images import Dataset, LabeledImages
from .cues import GROUPS, STRONG, cues_of
from .standin20 import SHAPES, TEXTURES

SIDE = 32
CLASSES = ("ring", "cross", "arrow", "moon")  # shapes of `standin20`
# pattern and two colours of the ground that speaks for each class
GROUNDS = (
    ("striped", 0x2F6DB5, 0x72A2D7),
    ("checked", 0x2E8B57, 0x81C08A),
    ("dotted", 0xC9A227, 0xE8CF7A),
    ("bricked", 0x8C4A3C, 0xB9796A),
)
INKS = (0xD94A3A, 0xF2F2F2, 0x303038, 0xE58FD0)  # colour of each shape, before jitter
# images of each class; instruments are among the first
N_TRAIN, N_TEST, N_INSTRUMENTS = 600, 120, 200


@DATASETS.register("standin-hard", version=1, stands_for="hard-imagenet")
def standin_hard(*, agreement: float = 0.5) -> Dataset:
    """Four shapes with exact masks, each on a ground of its own or on that of another shape.

    what      32 x 32 RGB; label: the shape; group: strong cue (the ground speaks for the shape) or
              weak cue, told, as for `hard-imagenet`, by a fixed classifier that sees the image with
              the box of the shape hidden: see `cues`
    options   agreement  float in (0, 1): share of images on the ground of their own shape, in exact
                         counts; the median that separates strong from weak is meant for about 0.5
    size      2,400 images to draw from (600 of each shape, 200 of them instruments); 480 test
              images
    start     biased: the share of strong cues in every class is bias + (1 - bias) / 2
    licence   none, made by code
    get it    nothing to get; drawn in a second
    flaws     nothing like photographs: a ground is a pattern in two colours, a shape one; a
              stand-in where the photographs cannot be had, to try out spurious metrics where the
              masks are exact
    """
    if not 0 < agreement < 1:
        raise ValueError(f"agreement must be in (0, 1); got {agreement}")
    train, test = (_drawn(part, n, agreement) for part, n in (("train", N_TRAIN), ("test", N_TEST)))
    cues = cues_of(train[:3], test[:3], N_INSTRUMENTS, "standin-hard")
    parts, says = [], []
    for (images, mask, label, agrees), strength in ((train, cues.train), (test, cues.test)):
        group = cues.groups(strength, label)
        parts.append(LabeledImages(images, label, group, mask=mask))
        says.append(f"{((group == STRONG) == agrees).mean():.1%}")
    report = (
        f"Masks are exact; the object covers {train[1].mean():.0%} of an image. The groups agree "
        f"with the ground that was drawn in {says[0]} of training and {says[1]} of test images.",
    )
    return Dataset(
        parts[0],
        parts[1],
        CLASSES,
        GROUPS,
        "crossed",
        f"standin-hard-1, {agreement}",
        len(cues.set_aside),
        majority=STRONG,
        set_aside=cues.set_aside,
        caption="stand-in data",
        report=report,
    )


def _drawn(part: str, n: int, agreement: float) -> tuple[np.ndarray, ...]:
    """Images, masks, labels, and whether the ground is that of the shape; n of each shape."""
    images = np.empty((len(CLASSES), n, 3, SIDE, SIDE), np.uint8)
    mask = np.empty((len(CLASSES), n, SIDE, SIDE), bool)
    agrees = np.empty((len(CLASSES), n), bool)
    for k in range(len(CLASSES)):
        rng = np.random.default_rng(seed_for("standin-hard", part, k))
        agrees[k] = rng.permutation(n) < round(agreement * n)
        other_class = (k + rng.integers(1, len(CLASSES), n)) % len(CLASSES)
        ground = np.where(agrees[k], k, other_class)
        images[k], mask[k] = _pictures(k, ground, rng)
    label = np.repeat(np.arange(len(CLASSES)), n)
    return images.reshape(-1, 3, SIDE, SIDE), mask.reshape(-1, SIDE, SIDE), label, agrees.ravel()


def _pictures(
    k: int, ground: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, SIDE, SIDE) uint8 of shape k on these grounds, and masks; whole numbers, so
    that all machines agree."""
    n = len(ground)
    at = np.arange(SIDE)
    radius = rng.integers(6, 11, (n, 1, 1))
    y = (at - rng.integers(9, SIDE - 9, (n, 1)))[:, :, None]
    x = (at - rng.integers(9, SIDE - 9, (n, 1)))[:, None, :]
    mirrored = np.where(rng.integers(0, 2, (n, 1, 1)), -1, 1)
    x, y = np.broadcast_arrays(mirrored * x, -y)
    mask = SHAPES[CLASSES[k]](x / radius, y / radius)
    slip = rng.integers(0, 64, (2, n, 1, 1))
    images = np.empty((n, 3, SIDE, SIDE), np.int64)
    for g, (pattern, *colors) in enumerate(GROUNDS):
        members = np.flatnonzero(ground == g)
        second = TEXTURES[pattern](
            at[None, None, :] * 2 + slip[0, members], at[None, :, None] * 2 + slip[1, members]
        )
        second = np.broadcast_to(second, (len(members), SIDE, SIDE))
        images[members] = np.where(second[:, None], *(_rgb(color) for color in colors))
    images += rng.integers(-40, 41, (n, 3, 1, 1))
    ink = _rgb(INKS[k]) + rng.integers(-25, 26, (n, 3, 1, 1))
    images = np.where(mask[:, None], ink, images) + rng.integers(-16, 17, (n, 3, SIDE, SIDE))
    return images.clip(0, 255).astype(np.uint8), mask


def _rgb(color: int) -> np.ndarray:
    return np.array([color >> 16, color >> 8 & 255, color & 255]).reshape(1, 3, 1, 1)
