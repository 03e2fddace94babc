"""Fitness: whether images of a generator deserve that one asks what training on them does.

Every batch is measured by instruments alone, beside what *real* images reach in the same measure:
those of the start, which no instrument has seen. So the numbers are shares of what is possible, and
mean the same on digits as on photographs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .metrics import Value
from .quality import MINIMUM, closer, first_of, matched, precision_recall, to_nearest

WINDOW = 0.3  # side of a window, as a share of that of an image: 9 of 28 and of 32 pixels
# windows with less contrast than this share of the usual one show nothing that could be copied
FLAT = 0.1
CLOSE = 0.01  # quantile of held-out windows below which one counts as copied
RELIABLE = 2 / 3  # of real images: an instrument that is right less often is told of
COMPARED = 300  # images of a side whose windows are compared: many more tell no more
# a copy that is moved by one pixel is a copy
SHIFTS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class Criterion:
    """What is asked of the images of a generator.

    says    what is measured, in words
    bound   it must be at least this (at most: where `most`)
    why     where the bound comes from
    """

    says: str
    bound: float
    why: str
    most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound


# Set once: real images of the start meet all of them, and each cheat of `tests/test_fitness.py`
# misses at least one.
CRITERIA: Mapping[str, Criterion] = {
    "oracle": Criterion(
        "the oracle is right on real images of the start",
        0.5,
        "an oracle that is mostly wrong cannot tell what an image shows",
    ),
    "agreement": Criterion(
        "the oracle sees the told class, as a share of what it sees on real images",
        0.9,
        "a tenth of the labels may be wrong before they change what is learned",
    ),
    "clarity": Criterion(
        "the probe sees a clear group, as a share of real images",
        0.9,
        "shares of groups are counted among clear images alone",
    ),
    "recall": Criterion(
        "real images that lie among generated ones, as a share of what real images reach",
        0.5,
        "half of what is real has something like it in a batch",
    ),
    "density": Criterion(
        "real neighbourhoods around a generated image, as a share of what real images have",
        0.5,
        "generated images lie where real ones are, not between them",
    ),
    "coverage": Criterion(
        "real neighbourhoods that hold a generated image, as a share of what real images reach",
        0.5,
        "half of the kinds of real images are made",
    ),
    "spread": Criterion(
        "standard deviation of pixels within class and group, as a share of real images",
        0.8,
        "the mean of two images has 0.72",
    ),
    "image-copies": Criterion(
        "images nearer to one of the start than 1 % of new real ones are",
        0.1,
        "ten times what new real images have",
        most=True,
    ),
    "window-copies": Criterion(
        "windows nearer to the same place of an image of the start than 1 % of new real ones are",
        0.15,
        "a collage of two halves has more than 0.35",
        most=True,
    ),
}


class Seen(NamedTuple):
    """Images and what instruments say of them; N images, D features.

    images    (N, 3, S, S) uint8
    label     (N,) int            class; of a generated image, the one it was told
    oracle    (N,) int            class that the oracle sees
    group     (N,) int            group that the probe sees, below 0 where unclear
    features  (N, D) float        of the measuring network; None where it has none
    """

    images: np.ndarray
    label: np.ndarray
    oracle: np.ndarray
    group: np.ndarray
    features: np.ndarray | None = None


class Unseen(NamedTuple):
    """Real images to which nothing was fitted: images, label, group (true), features as in `Seen`;
    images of one photograph share a `unit`."""

    images: np.ndarray
    label: np.ndarray
    group: np.ndarray
    unit: np.ndarray | None = None
    features: np.ndarray | None = None


def fitness(batch: Seen, start: Seen, unseen: Unseen, counts: np.ndarray) -> dict[str, Value]:
    """Every measure of CRITERIA for one batch of generated images.

    oracle               P(oracle's class = class) on the start, whatever the batch
    agreement, clarity   P(oracle's class = told class), P(group clear), each over that of the start
    recall, density,     see `quality.precision_recall`, against unseen real images in the shares of
    coverage             the start, each over that of as many images of the start
    spread               sqrt(mean variance of a pixel within cells of told class x probed group),
                         over that of the start, cells weighted alike
    image-copies         see `quality.Nearest`, against the start
    window-copies        see `window_copies`

    batch   images of one generator
    start   the real images of the start, what the generators of all generations come from
    unseen  real images that are in no start and to which no instrument is fitted
    counts  (n_classes, n_groups) int   images of the start per class and group
    returns name -> Value; nan where it cannot be told: without features, without real images enough
    source  ours; precision and recall see there
    """
    like_start = matched(unseen.label, unseen.group, counts, unseen.unit)
    known = start.oracle == start.label
    told_right = _rates(batch.oracle == batch.label, known)
    clear = _rates(batch.group >= 0, start.group >= 0)
    n = min(len(batch.label), len(start.label))
    values = {
        "oracle": Value(float(known.mean()) if len(known) else float("nan"), len(known)),
        "agreement": Value(told_right, len(batch.label)),
        "clarity": Value(clear, len(batch.label)),
        **_of_features(batch, start, unseen, like_start),
        "spread": Value(spread(batch, start), n),
        "window-copies": window_copies(
            batch.images,
            batch.label,
            start.images,
            start.label,
            unseen.images[like_start],
            unseen.label[like_start],
        ),
    }
    return {name: values[name] for name in CRITERIA}


def misses(values: Mapping[str, float]) -> list[str]:
    """Names of the criteria that some values do not meet; what could not be told is not missed."""
    return [
        name
        for name, value in values.items()
        if not np.isnan(value) and not CRITERIA[name].met(value)
    ]


def weakest(values: Mapping[str, float]) -> tuple[str, float]:
    """The criterion that is nearest to be missed, or missed most, and how far: its value over its
    bound (its bound over its value: where it must be at most that), so that 1 or more is fit; nan
    where nothing is told."""
    shares = {
        name: CRITERIA[name].bound / max(value, 1e-9)
        if CRITERIA[name].most
        else value / CRITERIA[name].bound
        for name, value in values.items()
        if not np.isnan(value)
    }
    if not shares:
        return "", float("nan")
    name = min(shares, key=lambda criterion: shares[criterion])
    return name, shares[name]


def _rates(hit: np.ndarray, real_hit: np.ndarray) -> float:
    """One rate over another; nan without images or where the latter is 0."""
    if not len(hit) or not len(real_hit) or not real_hit.any():
        return float("nan")
    return float(hit.mean() / real_hit.mean())


# ---- In features ---------------------------------------------------------------------------------


def _of_features(
    batch: Seen, start: Seen, unseen: Unseen, like_start: np.ndarray
) -> dict[str, Value]:
    """recall, density, coverage and image-copies."""
    names = ("recall", "density", "coverage")
    of_batch, of_start = batch.features, start.features
    if of_batch is None or of_start is None or unseen.features is None:
        return {name: Value(float("nan"), 0) for name in (*names, "image-copies")}
    real = unseen.features[like_start]
    n = min(len(real), len(of_batch), len(of_start))
    values = {}
    made, reached = (precision_recall(real, first_of(side, n)) for side in (of_batch, of_start))
    for name in names:
        possible = getattr(reached, name)
        enough = n >= MINIMUM and possible > 0
        values[name] = Value(getattr(made, name) / possible if enough else float("nan"), n)
    copied = closer(to_nearest(of_start, of_batch), to_nearest(of_start, real))
    values["image-copies"] = Value(copied.copied_share, len(of_batch))
    return values


# ---- In pixels -----------------------------------------------------------------------------------


def spread(batch: Seen, start: Seen) -> float:
    """How much images of one cell differ, as a share of how much real ones do.

    sqrt( sum_c n_c v_c / sum_c n_c r_c ),  v_c and r_c the variance of a pixel among the n_c
    generated and the real images of cell c = (told class, probed group), mean over pixels

    Cells keep shares of groups out of it: a batch in which one group is more common is no less
    varied for that.

    returns  float, 0 or more; nan where no cell has two images of each kind
    source   ours
    """
    of_batch, of_start = _variances(batch), _variances(start)
    both = [cell for cell in of_batch if cell in of_start]
    made = sum(of_batch[cell].n * of_batch[cell].variance for cell in both)
    real = sum(of_batch[cell].n * of_start[cell].variance for cell in both)
    return float(np.sqrt(made / real)) if real > 0 else float("nan")


class _Cell(NamedTuple):
    n: int
    variance: float


def _variances(side: Seen) -> dict[tuple[int, int], _Cell]:
    """By told class and probed group, unclear ones left out: number of images and the variance of a
    pixel among them; cells of one image left out."""
    cells = {(int(k), int(g)) for k, g in zip(side.label, side.group, strict=True) if g >= 0}
    values = {}
    for k, g in sorted(cells):
        here = side.images[(side.label == k) & (side.group == g)]
        if len(here) > 1:
            variance = here.astype(np.float64).var(0, ddof=1).mean()
            values[k, g] = _Cell(len(here), float(variance))
    return values


def window_copies(
    images: np.ndarray,
    label: np.ndarray,
    start: np.ndarray,
    start_label: np.ndarray,
    unseen: np.ndarray,
    unseen_label: np.ndarray,
) -> Value:
    """Share of windows of generated images that are nearer to the same place of an image of the
    start of their class than 1 % of the windows of unseen real images are.

    r(w) = min over images y of the start, class the same, of |w - y there|^2 / |w - mean colour of
           w|^2, `there` the place of w or one pixel beside it; copied: r at or below the 1 %
           quantile of r over unseen windows

    Windows with little to see, |w - mean|^2 below a tenth of what unseen windows have on average,
    count on neither side: black is no copy of black. Of whole images this finds copies, and
    collages of several, which as wholes are far from every image.

    images, start, unseen  (N, 3, S, S) uint8   at most COMPARED of the first and the last are
                                                looked at
    returns                Value                share in [0, 1], 0.01 on average for new real
                                                images, and the number of windows; nan with fewer
                                                than 30 unseen images, or without a window to see
    source                 ours
    """
    chosen, chosen_unseen = (
        first_of(np.arange(len(labels)), COMPARED) for labels in (label, unseen_label)
    )
    images, label = images[chosen], label[chosen]
    unseen, unseen_label = unseen[chosen_unseen], unseen_label[chosen_unseen]
    if len(unseen) < MINIMUM or not len(images):
        return Value(float("nan"), 0)
    contrast_unseen, distance_unseen = _windows(unseen, unseen_label, start, start_label)
    contrast, distance = _windows(images, label, start, start_label)
    least = FLAT * contrast_unseen.mean()
    seen, seen_unseen = contrast > least, contrast_unseen > least
    if not seen.any() or not seen_unseen.any():
        return Value(float("nan"), 0)
    relative = distance[seen] / contrast[seen]
    relative_unseen = distance_unseen[seen_unseen] / contrast_unseen[seen_unseen]
    near = np.quantile(relative_unseen, CLOSE, method="weibull")
    return Value(float(np.mean(relative <= near)), int(seen.sum()))


def side_of_window(side: int) -> int:
    """Side of the windows of images with this side, an odd number of pixels."""
    return max(3, 2 * (int(WINDOW * side) // 2) + 1)


def _windows(
    images: np.ndarray, label: np.ndarray, start: np.ndarray, start_label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of every image at every place: the squared contrast of its window, and the squared distance
    of this to the nearest of the start, infinite without one of its class; (N, places) each.

    Pixels are whole numbers, so float64 is exact and the same on every CPU.
    """
    side = side_of_window(images.shape[2])
    last = images.shape[2] - side
    corners = np.linspace(0, last, -(-last // side) + 1).round().astype(int)
    places = [(y, x) for y in corners for x in corners]
    contrast = np.zeros((len(images), len(places)))
    distance = np.full((len(images), len(places)), np.inf)

    def windows(of: np.ndarray, y: int, x: int) -> np.ndarray:
        return of[..., y : y + side, x : x + side].reshape(len(of), -1)

    for k in np.unique(label):
        members = np.flatnonzero(label == k)
        own, known = (
            part.astype(np.float64) for part in (images[members], start[start_label == k])
        )
        for i, (y, x) in enumerate(places):
            here = windows(own, y, x)
            size = (here**2).sum(1)
            by_colour = here.reshape(len(here), own.shape[1], -1)
            contrast[members, i] = size - (by_colour.sum(2) ** 2).sum(1) / side**2
            for dy, dx in SHIFTS:
                if 0 <= y + dy <= last and 0 <= x + dx <= last:
                    there = windows(known, y + dy, x + dx)
                    squares = (there**2).sum(1) - 2 * here @ there.T
                    nearest = size + squares.min(1, initial=np.inf)
                    distance[members, i] = np.minimum(distance[members, i], nearest)
    return contrast, distance
