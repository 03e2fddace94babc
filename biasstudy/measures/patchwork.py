"""Patchworks of real images: what shares a generator would have that sees one window at a time."""

import numpy as np

from ..core.seeds import seed_for


def patchworks(
    images: np.ndarray, label: np.ndarray, told: np.ndarray, window: int, seed: int
) -> np.ndarray:
    """Images cut into squares, each square from a real image of the told class drawn at random.

    The squares lie on a grid whose origin is drawn for each patchwork. With a window of 1 every
    pixel is drawn for itself; with one much larger than the image most patchworks are whole images.
    Groups then are shared out as if nothing outside a window could be known within: the group of
    each square is drawn in the shares that the images have.

    images   (N, C, S, S) uint8   real images
    label    (N,) int             their classes
    told     (n,) int             class of each patchwork; every class occurs in label
    window   int >= 1             side of the squares in pixels
    returns  (n, C, S, S) uint8
    source   ours
    """
    rng = np.random.default_rng(seed_for(seed, "patchworks"))
    place = np.arange(images.shape[2])
    made = np.empty((len(told), *images.shape[1:]), images.dtype)
    members = {int(k): np.flatnonzero(label == k) for k in np.unique(told)}
    for i, k in enumerate(told.tolist()):
        row, column = ((place + rng.integers(window)) // window for _ in range(2))
        square = rng.choice(members[k], size=(row.max() + 1, column.max() + 1))
        shown = images[square[row[:, None], column], :, place[:, None], place]
        made[i] = shown.transpose(2, 0, 1)
    return made
