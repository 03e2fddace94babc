"""Variance of accuracy over groups without the part that sampling of test images adds: signed,
never clipped."""

import numpy as np

from ...core.registry import METRICS
from . import Value, per_class, shape_of, values_of


def _variance(
    key: np.ndarray,
    size: int,
    group: np.ndarray,
    n_groups: int,
    correct: np.ndarray,
    unit: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Variance over groups within each key, less its sampling noise, and the number of images in
    it.

    With e_i = (1[yhat_i = y_i] - a_g) / sqrt(n_g (n_g - 1)), m groups, photographs u:
    noise = (sum_i e_i^2 - sum_u (sum_{i in u} e_i)^2 / m) / (m - 1).
    Where each photograph is shown once the second sum is the first, and noise = mean_g a_g (1 -
    a_g) / (n_g - 1).
    """
    at = key * n_groups + group
    n = np.bincount(at, minlength=size * n_groups).reshape(size, n_groups)
    used = n > 1
    n = np.where(used, n, 0)
    m = used.sum(1)
    a = np.bincount(at, correct, n.size).reshape(n.shape) / np.maximum(n, 1)
    centre = np.sum(a, 1, where=used) / np.maximum(m, 1)
    spread = np.sum((a - centre[:, None]) ** 2, 1, where=used)
    e = (used / np.sqrt(np.maximum(n * (n - 1), 1))).ravel()[at] * (correct - a.ravel()[at])
    own = np.bincount(key, e * e, size)
    shared = own
    if unit is not None:
        key_unit = key * (1 + np.max(unit, initial=0)) + unit
        _, first, photograph = np.unique(key_unit, return_index=True, return_inverse=True)
        shared = np.bincount(key[first], np.bincount(photograph, e) ** 2, size)
    noise = own - shared / np.maximum(m, 1)
    return np.where(m > 1, (spread - noise) / np.maximum(m - 1, 1), np.nan), n.sum(1)


@METRICS.register("disparity", version=1)
def disparity(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, *, unit: np.ndarray | None = None
) -> Value:
    """Variance of the group accuracies, less what sampling of test images adds.

    V = Var_g(a_g) - mean_g a_g (1 - a_g) / (n_g - 1), ddof 1, over groups with at least two images;
    where a photograph is shown in several groups its errors go together, and only the part of the
    noise that differs between groups is taken off

    Nested and grouped: differences in the difficulty of classes are part of it.

    unit     (N,) int   photograph of each image; default: each image its own
    returns  float up to 0.5   0 on average where all groups are equal, so below 0 at times; nan if
                               fewer than two groups
    source   ours: variance components
    """
    n_groups = shape_of(label, predicted, group)[1]
    v, n = _variance(np.zeros(len(label), np.int64), 1, group, n_groups, label == predicted, unit)
    return Value(float(v[0]), int(n[0]))


_ONE_GROUP = "a class belongs to one group, so its accuracy does not vary over groups"


@per_class("class-disparity", "mean", version=1, refuses={"grouped": _ONE_GROUP})
def class_disparity(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    *,
    unit: np.ndarray | None = None,
    occurs: np.ndarray | None = None,
) -> list[Value]:
    """Variance, within a class, of the accuracies of its groups, less what sampling of test images
    adds.

    V_y, as in disparity from the images of class y alone

    unit     (N,) int   photograph of each image; default: each image its own
    returns  a Value per class, up to 0.5; nan if fewer than two of its groups have at least two
             images
    source   ours: variance components
    """
    n_classes, n_groups = shape_of(label, predicted, group, occurs)
    return values_of(
        *_variance(label, n_classes, group, n_groups, label == predicted, unit), "label"
    )
