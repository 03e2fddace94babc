"""How strongly the surroundings of an object speak for its class: the groups of data sets whose
images have masks.

A fixed classifier, fitted to instruments, sees each image with the bounding box of its object
hidden. Its confidence in the true class is the strength of the cue; an image has a *strong cue*
where that exceeds the median over the instruments of its class, else a *weak cue*. Definitions are
ours: the data sets come without groups.
"""

from dataclasses import dataclass

import numpy as np

from ...core.seeds import seed_for

GROUPS = ("strong cue", "weak cue")
STRONG, WEAK = 0, 1
CELLS = 4  # places at which colours and edges are described, each way
FOLDS = 5
PENALTY = 0.01  # per feature
SHARPNESS = 10.0  # of the softmax that makes confidences of least-squares scores
PART = 256  # images described at once


@dataclass(frozen=True)
class Cues:
    """What is known of the cues of a data set.

    train, test     strength (N,) float in [0, 1]: confidence in the true class, the object hidden
    threshold       (n_classes,) float     median over the instruments of a class, by classifiers
                                           that did not see them
    set_aside       (n,) int               positions of the instruments in `train`, equally many of
                                           each class
    accuracy        of those classifiers on the instruments
    """

    train: np.ndarray
    test: np.ndarray
    threshold: np.ndarray
    set_aside: np.ndarray
    accuracy: float

    def groups(self, strength: np.ndarray, label: np.ndarray) -> np.ndarray:
        """STRONG or WEAK for images with these strengths and classes."""
        return np.where(strength > self.threshold[label], STRONG, WEAK)


def cues_of(
    train: tuple[np.ndarray, ...], test: tuple[np.ndarray, ...], per_class: int, key: str
) -> Cues:
    """Strength of the cue of every image, and where strong begins.

    train, test   images (N, C, H, W) uint8, mask (N, H, W) bool, label (N,) int
    per_class     images of each class set aside as instruments, an even number
    key           names the data: which images are set aside depends on it alone
    raises        ValueError   if a class has fewer images
    """
    label, n_classes = train[2], int(train[2].max()) + 1
    described = [surroundings(images, mask) for images, mask, _ in (train, test)]
    order = np.random.default_rng(seed_for("cues", key)).permutation(len(label))
    members = [order[label[order] == k][:per_class] for k in range(n_classes)]
    if (few := min(map(len, members))) < per_class:
        raise ValueError(
            f"{per_class} images of each class are set aside as instruments, but one class has "
            f"{few}"
        )
    set_aside = np.concatenate(members)
    fold = np.tile(np.arange(per_class) % FOLDS, n_classes)
    features, classes = described[0][set_aside], label[set_aside]
    unseen = np.empty((len(classes), n_classes))
    for f in range(FOLDS):
        unseen[fold == f] = _fitted(
            features[fold != f], classes[fold != f], n_classes, features[fold == f]
        )
    own = unseen[np.arange(len(classes)), classes]
    confidences = [
        _fitted(features, classes, n_classes, z)[np.arange(len(k)), k]
        for z, (_, _, k) in zip(described, (train, test), strict=True)
    ]
    confidences[0][set_aside] = own
    threshold = np.array([np.median(own[classes == k]) for k in range(n_classes)])
    return Cues(
        confidences[0],
        confidences[1],
        threshold,
        set_aside,
        float((unseen.argmax(1) == classes).mean()),
    )


def _fitted(x: np.ndarray, y: np.ndarray, n_classes: int, z: np.ndarray) -> np.ndarray:
    """Confidences (n, n_classes) about z of ridge regression fitted to x, y; rounded, so that all
    machines agree."""
    mean, spread = x.mean(0), x.std(0) + 1e-6
    a, b = (x - mean) / spread, (z - mean) / spread
    target = np.eye(n_classes)[y]
    square = a @ a.T + PENALTY * a.shape[1] * len(a) * np.eye(len(a))
    score = b @ (a.T @ np.linalg.solve(square, target - target.mean(0))) + target.mean(0)
    weight = np.exp(SHARPNESS * (score - score.max(1, keepdims=True)))
    return (weight / weight.sum(1, keepdims=True)).round(9)


# ---- What is around an object --------------------------------------------------------------------


def surroundings(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours and edges of images outside the bounding box of their object; (N, 208) float64.

    In each of CELLS x CELLS cells mean and spread of the three colours, and the strength of edges
    in four directions; and how often each of 64 colours occurs in the whole. Whole numbers until
    the last step.

    images   (N, 3, H, W) uint8   H and W multiples of CELLS
    mask     (N, H, W) bool
    """
    parts = [slice(low, low + PART) for low in range(0, len(images), PART)]
    return np.concatenate(
        [_described(images[part].astype(np.int64), ~_boxes(mask[part])) for part in parts]
    )


def _boxes(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes of masks, filled; (N, H, W) bool."""

    def between(line: np.ndarray) -> np.ndarray:
        return (
            np.logical_or.accumulate(line, 1) & np.logical_or.accumulate(line[:, ::-1], 1)[:, ::-1]
        )

    rows, columns = (between(np.any(mask, axis=axis)) for axis in (2, 1))
    return rows[:, :, None] & columns[:, None, :]


def _described(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    n, _, height, width = x.shape
    cell = (np.arange(height) * CELLS // height)[:, None] * CELLS + np.arange(
        width
    ) * CELLS // width
    # (N, H, W)
    place = np.arange(n)[:, None, None] * CELLS**2 + cell

    def summed(at: np.ndarray, bins: int, weight: np.ndarray) -> np.ndarray:
        return np.bincount(at.ravel(), weight.ravel(), n * bins).reshape(n, bins)

    area = summed(place, CELLS**2, seen)
    all_of_it = np.maximum(seen.sum((1, 2)), 1)[:, None]
    features = []
    for colour in x.transpose(1, 0, 2, 3):
        total, squares = (summed(place, CELLS**2, seen * colour**power) for power in (1, 2))
        whole = np.repeat(total.sum(1, keepdims=True) / all_of_it, CELLS**2, axis=1)
        # a hidden cell: of the whole
        mean = np.divide(total, area, out=whole, where=area > 0)
        square = np.divide(squares, area, out=mean**2, where=area > 0)
        features += [mean / 255, np.sqrt(np.maximum(square - mean**2, 0)) / 255]
    grey, both = x.sum(1), np.zeros(seen.shape, bool)
    down, right = np.zeros_like(grey), np.zeros_like(grey)
    down[:, 1:-1], right[:, :, 1:-1] = grey[:, 2:] - grey[:, :-2], grey[:, :, 2:] - grey[:, :, :-2]
    both[:, 1:-1, 1:-1] = (
        seen[:, 2:, 1:-1] & seen[:, :-2, 1:-1] & seen[:, 1:-1, 2:] & seen[:, 1:-1, :-2]
    )
    strength, a, b = np.abs(down) + np.abs(right), 12 * np.abs(down), 12 * np.abs(right)
    # 5 / 12: about tan 22.5 degrees
    steep, flat = 5 * a > 12 * b, 5 * b > 12 * a
    direction = np.where(steep, 0, np.where(flat, 1, np.where((down > 0) == (right > 0), 2, 3)))
    edges = summed(place * 4 + direction, 4 * CELLS**2, strength * both)
    features.append(np.sqrt(edges / 765 / np.repeat(np.maximum(area, 1), 4, axis=1)))
    colour_of = np.arange(n)[:, None, None] * 64 + (
        x[:, 0] // 64 * 16 + x[:, 1] // 64 * 4 + x[:, 2] // 64
    )
    features.append(np.sqrt(summed(colour_of, 64, seen) / all_of_it))
    return np.concatenate(features, axis=1)
