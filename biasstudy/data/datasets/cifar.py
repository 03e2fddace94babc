"""CIFAR-100, twice: `cifar20` has 20 coarse classes, whose fine classes are the groups; `cifar100`
has the fine classes."""

import hashlib
import pickle
from pathlib import Path

import numpy as np

from ...core.places import data_folder
from ...core.registry import DATASETS
from ..images import Dataset, LabeledImages

SIDE = 32
_FILES = {  # md5 of the files, the ones that torchvision checks
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}

# In every coarse class the two fine classes that ZhangAIPI/DIM (arXiv 2403.12777) keeps 25 % of
DIM_25 = (
    "beaver",
    "otter",
    "shark",
    "aquarium_fish",
    "orchid",
    "tulip",
    "bowl",
    "can",
    "mushroom",
    "pear",
    "clock",
    "lamp",
    "table",
    "couch",
    "caterpillar",
    "butterfly",
    "bear",
    "wolf",
    "house",
    "bridge",
    "forest",
    "mountain",
    "kangaroo",
    "elephant",
    "raccoon",
    "possum",
    "lobster",
    "snail",
    "man",
    "woman",
    "snake",
    "turtle",
    "shrew",
    "squirrel",
    "willow_tree",
    "palm_tree",
    "bus",
    "bicycle",
    "streetcar",
    "tractor",
)

_INSTRUMENTS = {"n_instruments": (2000, 40_000)}


@DATASETS.register("cifar20", version=1, fetch="cifar100", within=_INSTRUMENTS)
def cifar20(*, size: int = SIDE, n_instruments: int = 10_000) -> Dataset:
    """The 50,000 + 10,000 photographs of CIFAR-100 in 20 coarse classes; the group is the fine
    class. Nested.

    what      RGB; label: one of 20 coarse classes ("fish"); group: one of 100 fine classes
              ("shark"), five to a coarse class
    options   size           int 32, 16 or 8: side in pixels; below 32 means over squares of pixels
              n_instruments  int 2,000..40,000: images set aside for the measuring devices, equally
                             many of each fine class
    size      50,000 images to draw from (500 of each fine class, instruments among them); 10,000
              test images (100 each)
    start     beside unbiased and biased: dim-25, the 40 fine classes of ZhangAIPI/DIM at 25 %
    licence   none stated; cite Krizhevsky 2009, Learning multiple layers of features from tiny
              images
    get it    python -m biasstudy fetch cifar100
    flaws     tiny pictures; labels known to be wrong for a few per cent; some test pictures have
              near copies in training
    """
    images, fine, coarse, names = _read(size, n_instruments)
    train, test = (
        LabeledImages(images[part], coarse[part], fine[part]) for part in ("train", "test")
    )
    thinned = tuple(names["fine"].index(name) for name in DIM_25)
    return Dataset(
        train,
        test,
        names["coarse"],
        names["fine"],
        "nested",
        _checksum(size),
        n_instruments,
        presets={"dim-25": thinned},
    )


@DATASETS.register("cifar100", version=1, fetch="cifar100", within=_INSTRUMENTS)
def cifar100(*, size: int = SIDE, n_instruments: int = 10_000) -> Dataset:
    """The photographs of CIFAR-100 in 100 fine classes; the group is the coarse class. Grouped: a
    class has one group.

    what      as `cifar20`, with label and group exchanged; only accuracies compare groups of
              different classes
    size      as `cifar20`, and its options
    licence, get it, flaws   see `cifar20`
    """
    images, fine, coarse, names = _read(size, n_instruments)
    train, test = (
        LabeledImages(images[part], fine[part], coarse[part]) for part in ("train", "test")
    )
    return Dataset(
        train, test, names["fine"], names["coarse"], "grouped", _checksum(size), n_instruments
    )


def _checksum(size: int) -> str:
    return _FILES["train"] if size == SIDE else f"{_FILES['train']} at {size} pixels"


def _read(size: int, n_instruments: int) -> tuple[dict, dict, dict, dict[str, tuple[str, ...]]]:
    """Images, fine and coarse labels of `train` and `test`, and the names of the classes."""
    if size not in (32, 16, 8):
        raise ValueError(f"size must be 32, 16 or 8; got {size}")
    content = check_files(data_folder() / "cifar-100-python")
    # content matched its md5
    read = {name: pickle.loads(packed, encoding="latin1") for name, packed in content.items()}
    meta = read.pop("meta")
    images = {
        part: shrunk(record["data"].reshape(-1, 3, SIDE, SIDE), size)
        for part, record in read.items()
    }
    fine, coarse = (
        {part: np.array(record[f"{which}_labels"]) for part, record in read.items()}
        for which in ("fine", "coarse")
    )
    return (
        images,
        fine,
        coarse,
        {which: tuple(meta[f"{which}_label_names"]) for which in ("fine", "coarse")},
    )


def check_files(folder: Path) -> dict[str, bytes]:
    """Content of the three files; FileNotFoundError or ValueError with the command that helps
    unless whole and unaltered."""
    content = {}
    for name, expected in _FILES.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"CIFAR-100 is not in {data_folder()}; get it with: python -m biasstudy fetch "
                "cifar100"
            )
        content[name] = path.read_bytes()
        if hashlib.md5(content[name], usedforsecurity=False).hexdigest() != expected:
            raise ValueError(
                f"{path} is truncated or altered; delete it and run: python -m biasstudy fetch "
                "cifar100"
            )
    return content


def shrunk(images: np.ndarray, size: int) -> np.ndarray:
    """Means over squares of pixels, rounded half up in whole numbers; (N, C, S, S) uint8 to (N, C,
    size, size)."""
    n, channels, side, _ = images.shape
    k = side // size
    if k == 1:
        return images
    total = images.reshape(n, channels, size, k, size, k).sum((3, 5), dtype=np.uint32)
    return ((total + k * k // 2) // (k * k)).astype(np.uint8)
