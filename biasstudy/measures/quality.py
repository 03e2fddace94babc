"""Quality of generated images: how far their features are from those of real images, and whether
they are copies.

Every function takes features of one extractor, (N, D) float, and computes in float64 on blocks of
rows, so that memory is bounded and results agree between CPUs. Values compare with each other only
within one extractor and version ("FID on lenet features"), never with published ones on Inception
features. The unit of fid is that of squared features, and the kernel of kid is meant for features
with a mean square of about 1: scaling belongs to the extractor. N images, D features; M real and N
generated images where both occur.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..core.checks import whole_numbers
from ..core.counts import largest_remainder
from ..core.seeds import seed_for
from .metrics import Value

ROWS = 128  # images compared with all others at once: blocks of ROWS x N numbers
# squared distances that differ by less than this share of the mean squared spread are equal:
# float32
TIE = 1e-6
# features of one image may differ in their last digits
NAMES = (
    "kid",
    "kid-se",
    "fid",
    "precision",
    "recall",
    "density",
    "coverage",
    "copied-share",
    "nearest-ratio",
    "kid-gap",
)
# images on each side; with fewer the standard error itself is uncertain by more than 1/sqrt(2 *
# 30), 13 %
MINIMUM = 30
CLOSE = 0.01  # quantile of held-out distances below which a generated image counts as copied
MINIMUM_CLOSE = 99  # held-out images; among fewer, no one stands at the 1 % quantile


# ---- Pairs of images -----------------------------------------------------------------------------


def _features(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as float64, checked."""
    features = [np.asarray(a, np.float64) for a in arrays]
    for a in features:
        if a.ndim != 2 or a.shape[1] != features[0].shape[1]:
            raise ValueError(
                "features must be (N, D) with one D; got "
                f"{' and '.join(str(b.shape) for b in features)}"
            )
        if not np.isfinite(a).all():
            raise ValueError("features must be finite; got nan or infinity")
    return features


def _blocks(n: int) -> Iterator[slice]:
    return (slice(i, min(i + ROWS, n)) for i in range(0, n, ROWS))


def _drop_self(block: np.ndarray, rows: slice, value: float) -> None:
    block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = value


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2; both should be centred, or digits cancel."""
    return np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T), 0)


# ---- Distances between distributions -------------------------------------------------------------


class KID(NamedTuple):
    value: float
    se: float


def kid(real: np.ndarray, fake: np.ndarray) -> KID:
    """Kernel inception distance: the squared maximum mean discrepancy between two laws of features,
    without bias.

    k(x, y) = (x.y / D + 1)^3;  KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2
                                mean_{ij} k(x_i, y_j)

    Over all pairs, so nothing is random (published values average this over subsets of 1,000). The
    standard error is the unbiased closed form for U-statistics: with the kernels centred (s2_xx,
    s2_yy, s2_xy their variances over pairs) and a(x) = E k(x, X) - E k(x, Y), b(y) likewise,
    Var = 4 Var a / M + 4 Var b / N + 2 s2_xx / (M (M - 1)) + 2 s2_yy / (N (N - 1)) + 4 s2_xy / (M
    N); the first two terms, which vanish where the laws agree, are set to 0 where their estimate is
    below. There it errs upward: on lenet features by 0 to 20 % as a median, by up to 40 % as a root
    mean square.

    real, fake  (M, D), (N, D) float   features
    returns     value   about 0 or more, slightly below 0 by chance; 0 on average if the laws agree
                se      its standard deviation over draws of both sets; both nan if M or N is below
                        4
    raises      ValueError             if features are not finite or differ in D
    source      Binkowski et al. 2018, arXiv 1801.01401; variance after Sutherland and Deka 2019,
                arXiv 1906.02104
    """
    x, y = _features(real, fake)
    m, n = len(x), len(y)
    if min(m, n) < 4:
        return KID(float("nan"), float("nan"))
    xx, _, xx2 = _kernel_sums(x, x)
    yy, _, yy2 = _kernel_sums(y, y)
    xy, yx, xy2 = _kernel_sums(x, y)
    value = xx.sum() / (m * (m - 1)) + yy.sum() / (n * (n - 1)) - 2 * xy.sum() / (m * n)

    s2_xx, s2_yy = _within(xx, xx2), _within(yy, yy2)
    s2_xy = max(xy2 - xy @ xy / n - yx @ yx / m + xy.sum() ** 2 / (m * n), 0) / ((m - 1) * (n - 1))
    var_a = np.var(xx / (m - 2) - xy / n, ddof=1) - s2_xx / (m - 2) - s2_xy / n
    var_b = np.var(yy / (n - 2) - yx / m, ddof=1) - s2_yy / (n - 2) - s2_xy / m
    variance = (
        max(4 * var_a / m + 4 * var_b / n, 0)
        + 2 * s2_xx / (m * (m - 1))
        + 2 * s2_yy / (n * (n - 1))
        + 4 * s2_xy / (m * n)
    )
    return KID(float(value), float(np.sqrt(variance)))


def _kernel_sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Sums of k(x_i, y_j) over j and over i, and sum of its squares; without i = j where x is y."""
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(y)), 0.0
    for part in _blocks(len(x)):
        k = x[part] @ y.T
        k /= x.shape[1]
        k += 1
        k *= k * k
        if x is y:
            _drop_self(k, part, 0)
        rows[part] = k.sum(1)
        columns += k.sum(0)
        squares += float(np.vdot(k, k))
    return rows, columns, squares


def _within(rows: np.ndarray, squares: float) -> float:
    """Unbiased mean square of the centred kernel over pairs i != j, from row sums and sum of
    squares (U-centring)."""
    n = len(rows)
    return max(squares - 2 * (rows @ rows) / (n - 2) + rows.sum() ** 2 / ((n - 1) * (n - 2)), 0) / (
        n * (n - 3)
    )


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance between two Gaussians with the means and covariances of the features.

    |mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr (S_x^1/2 S_y S_x^1/2)^1/2

    The last trace is the sum of the singular values of R_x R_y^T with S = R^T R: real at every
    rank. FID is biased upward by roughly D^2 / N, so compare it only at equal N; for small sets use
    `kid`.

    real, fake  (M, D), (N, D) float   features
    returns     float, 0 or more       nan if M or N is at most D: the covariance is rank deficient,
                                       the bias dominates
    raises      ValueError             if features are not finite or differ in D
    source      Heusel et al. 2017, arXiv 1706.08500
    """
    x, y = _features(real, fake)
    if min(len(x), len(y)) <= x.shape[1]:
        return float("nan")
    root_x, root_y = (np.linalg.qr(z - z.mean(0), mode="r") / np.sqrt(len(z) - 1) for z in (x, y))
    cross = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    shift = x.mean(0) - y.mean(0)
    return max(float(shift @ shift + (root_x**2).sum() + (root_y**2).sum() - 2 * cross), 0.0)


# ---- Fidelity and variety ------------------------------------------------------------------------


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> PrecisionRecall:
    """Precision: are generated images like real ones; recall: is all that is real also generated.

    B(z) = ball around z that reaches its k-th nearest neighbour within its own set
    precision = share of generated images inside some B(real);   recall = share of real images
    inside some B(fake) density = mean number of B(real) around a generated image / k;   coverage =
    share of B(real) with a generated image inside

    All four depend on the number of images, so the larger set is cut to the size of the smaller
    one, by one fixed shuffle of its rows. A point on the sphere is inside.

    real, fake  (M, D), (N, D) float   features
    k           int, 1 or more         neighbours
    returns     precision, recall, coverage in [0, 1]; density 0 or more, about 1 where the laws
                agree; all nan if M or N is at most k
    raises      ValueError             if features are not finite or differ in D, or k is below 1
    source      Kynkaanniemi et al. 2019, arXiv 1904.06991; density, coverage: Naeem et al. 2020,
                arXiv 2002.09797
    """
    x, y = _features(real, fake)
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    n = min(len(x), len(y))
    if n <= k:
        return PrecisionRecall(*[float("nan")] * 4)
    x, y = (first_of(z, n) for z in (x, y))
    x, y = x - x.mean(0), y - x.mean(0)
    slack = TIE * float((x * x).sum(1).mean() + (y * y).sum(1).mean())
    reach_x, reach_y = _reach(x, k) + slack, _reach(y, k) + slack

    balls, covered, recalled = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
    for part in _blocks(n):
        distance = _squared_distances(y[part], x)
        inside = distance <= reach_x
        balls[part] = inside.sum(1)
        covered |= inside.any(0)
        recalled |= (distance <= reach_y[part, None]).any(0)
    return PrecisionRecall(
        float((balls > 0).mean()),
        float(recalled.mean()),
        float(balls.mean() / k),
        float(covered.mean()),
    )


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row; (N,)."""
    reach = np.zeros(len(x))
    for part in _blocks(len(x)):
        distance = _squared_distances(x[part], x)
        _drop_self(distance, part, np.inf)
        for _ in range(k - 1):
            distance[np.arange(len(distance)), distance.argmin(1)] = np.inf
        reach[part] = distance.min(1)
    return reach


def _shuffled(n: int) -> np.ndarray:
    """A fixed order of n rows, the same in every experiment, so that subsets are comparable."""
    return np.random.default_rng(seed_for("quality", "order")).permutation(n)


def first_of(rows: np.ndarray, n: int) -> np.ndarray:
    """At most n rows, the first in one fixed shuffle, in their own order."""
    return rows[np.sort(_shuffled(len(rows))[:n])]


# ---- Copies --------------------------------------------------------------------------------------


class Nearest(NamedTuple):
    """Nearest-training-image check: are generated images closer to the training set than new real
    images are? d(z) = distance of z to its nearest training image.

    copied_share   share of generated images with d at or below the 1 % quantile of d(held_out), in
                   [0, 1]; nan if there are fewer than 99 held-out images: none stands at their 1 %
                   quantile
    ratio          median d(fake) / median d(held_out), 0 or more; nan if the latter is 0; both nan
                   if a set is empty

    A perfect generator has copied_share 0.01 on average and ratio 1, one that copies has 1 and 0.
    Where more than 1 % of held_out coincide with training images, all that coincide count. Held-out
    images are real ones that nobody trained on, in the class and group shares of the generated ones
    (see `matched`).

    source   ours; the quantile is that of a new draw (Weibull plotting position)
    """

    copied_share: float
    ratio: float


def to_nearest(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Distance of each image to its nearest training image, exactly 0 for a copy; (N,), nan without
    training images."""
    if not len(train):
        return np.full(len(images), np.nan)
    centre = train.mean(0)
    train, images = train - centre, images - centre
    squared = np.concatenate(
        [np.zeros(0)] + [_squared_distances(images[p], train).min(1) for p in _blocks(len(images))]
    )
    return np.sqrt(np.where(squared <= TIE * (train * train).sum(1).mean(), 0, squared))


def closer(fake: np.ndarray, held_out: np.ndarray) -> Nearest:
    """The check, from distances."""
    if not len(fake) or not len(held_out) or np.isnan(held_out).any():
        return Nearest(float("nan"), float("nan"))
    usual = float(np.median(held_out))
    ratio = float(np.median(fake)) / usual if usual > 0 else float("nan")
    if len(held_out) < MINIMUM_CLOSE:
        return Nearest(float("nan"), ratio)
    return Nearest(float(np.mean(fake <= np.quantile(held_out, CLOSE, method="weibull"))), ratio)


# ---- Everything, by class and group --------------------------------------------------------------


class Sample(NamedTuple):
    """Features with the class and group of each image.

    features  (N, D) float
    label     (N,) int   class; of a generated image, the one it was told
    group     (N,) int   group; of a generated image, the one the probe sees, -1 where unclear
    unit      (N,) int   real images made from one photograph share it; None: every image its own
    """

    features: np.ndarray
    label: np.ndarray
    group: np.ndarray
    unit: np.ndarray | None = None


def matched(
    label: np.ndarray, group: np.ndarray, counts: np.ndarray, unit: np.ndarray | None = None
) -> np.ndarray:
    """Positions of the largest subset of images whose numbers per class and group are proportional
    to `counts`.

    N counts / sum(counts), shared out by largest remainder, for the largest N at which no cell gets
    more than it has images and no class more than it has photographs. So a batch is compared with
    real images of the start's shares, and not with a balanced test set; and no photograph counts
    twice, else the pairs of one digit in two colours raise KID and shrink the balls of precision.

    label, group  (M,) int                    class and group of each image
    counts        (n_classes, n_groups) int   wanted proportions; a cell of 0 is left out
    unit          (M,) int                    images of one photograph share it; default: every
                                              image its own
    returns       (N,) int, ascending         within a cell, the first in one fixed shuffle; empty
                                              if counts are all 0, or a wanted cell has no image
    raises        ValueError                  if a count is negative, or a label or group lies
                                              outside counts
    """
    label, group = whole_numbers("label", label), whole_numbers("group", group)
    counts = np.asarray(counts)
    if counts.ndim != 2 or (counts < 0).any():
        raise ValueError("counts must be a table (n_classes, n_groups) of whole numbers, 0 or more")
    have = _table(label, group, counts.shape)
    wanted = counts > 0
    if not wanted.any():
        return np.zeros(0, np.int64)
    order = _shuffled(len(label))
    order = order[wanted[label[order], group[order]]]
    label, group = label[order], group[order]
    unit = order if unit is None else np.unique(np.asarray(unit)[order], return_inverse=True)[1]
    photographs = np.array([len(np.unique(unit[label == y])) for y in range(len(counts))])
    total, rows = counts.sum(), wanted.any(1)
    n = int(
        min(
            (have[wanted] * total // counts[wanted]).min(),
            (photographs[rows] * total // counts.sum(1)[rows]).min(),
        )
    )
    while (
        chosen := _deal(label * counts.shape[1] + group, unit, largest_remainder(counts.ravel(), n))
    ) is None:
        n -= 1  # rounding asked a class for one photograph too many
    return np.sort(order[chosen])


def _deal(cell: np.ndarray, unit: np.ndarray, take: np.ndarray) -> np.ndarray | None:
    """Positions of the first take[c] images of every cell c, no unit twice; None if there are not
    that many."""
    free = np.ones(unit.max(initial=-1) + 1, bool)
    chosen = [np.zeros(0, np.int64)]
    for c in np.flatnonzero(take):
        here = np.flatnonzero((cell == c) & free[unit])
        here = here[np.sort(np.unique(unit[here], return_index=True)[1])][: take[c]]
        if len(here) < take[c]:
            return None
        free[unit[here]] = False
        chosen.append(here)
    return np.concatenate(chosen)


def _table(label: np.ndarray, group: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    for name, value, size in (("label", label, shape[0]), ("group", group, shape[1])):
        if len(value) and not 0 <= value.min() <= value.max() < size:
            raise ValueError(
                f"{name} of a real image must be 0 to {size - 1}; got {value.min()} to "
                f"{value.max()}"
            )
    return np.bincount(label * shape[1] + group, minlength=shape[0] * shape[1]).reshape(shape)


def quality(
    real: Sample, fake: Sample, train: np.ndarray, *, counts: np.ndarray
) -> list[tuple[str, Value]]:
    """All measures of a batch of generated images: overall, per class and per group.

    Names: kid, kid-se, fid, precision, recall, density, coverage, copied-share, nearest-ratio (see
    kid, fid, precision_recall, Nearest), and kid-gap = largest minus smallest kid of a
    group, positive by chance: read it beside kid-se. Overall: all images (a generated one of
    unclear group too) against real ones of the start's shares. Per class: those told the class,
    against real ones of the class with the start's group shares. Per group: those the probe sees in
    the group, against real ones of the group with the start's class shares.

    real     Sample                         real images that nobody trained on, groups known; also
                                            the held-out set
    fake     Sample                         the batch
    train    (T, D) float                   features of the training set of the generator
    counts   (n_classes, n_groups) int      images of the start per class and group
    returns  list of (name, Value)          n = images on the smaller side, before the cut to equal
                                            size; value nan, with its n, where n is below 30 (fid:
                                            at most D; copied-share: fewer than 99 real)
    raises   ValueError                     if lengths or D differ, a feature is not finite, or
                                            labels lie outside counts
    """
    real_features, fake_features, train = _features(real.features, fake.features, train)
    for name, sample in (("real", real), ("generated", fake)):
        if not len(sample.features) == len(sample.label) == len(sample.group):
            raise ValueError(
                f"{name} features, labels and groups must be equally many; got "
                f"{len(sample.features)}, {len(sample.label)} and {len(sample.group)}"
            )
    counts, told, seen = np.asarray(counts), np.asarray(fake.label), np.asarray(fake.group)
    real_distance = to_nearest(train, real_features)
    fake_distance = to_nearest(train, fake_features)

    rows: list[tuple[str, Value]] = []
    every_class, every_group = np.arange(counts.shape[0]), np.arange(counts.shape[1])
    for label, group in [
        (None, None),
        *((int(c), None) for c in every_class),
        *((None, int(g)) for g in every_group),
    ]:
        of, members = counts.copy(), np.full(len(fake_features), True)
        if label is not None:
            of[every_class != label] = 0
            members = told == label
        if group is not None:
            of[:, every_group != group] = 0
            members = seen == group
        i, j = matched(real.label, real.group, of, real.unit), np.flatnonzero(members)
        n = min(len(i), len(j))
        if n >= MINIMUM:
            values = _all_of(real_features[i], fake_features[j], real_distance[i], fake_distance[j])
        else:  # of a hundred small groups this saves nearly all the time
            values = dict.fromkeys(NAMES[:-1], float("nan"))
        rows += [(name, Value(value, n, label, group)) for name, value in values.items()]

    of_groups = [
        v for name, v in rows if name == "kid" and v.group is not None and not np.isnan(v.value)
    ]
    gap = float(np.ptp([v.value for v in of_groups])) if len(of_groups) > 1 else float("nan")
    return [*rows, ("kid-gap", Value(gap, sum(v.n for v in of_groups)))]


def _all_of(
    real: np.ndarray, fake: np.ndarray, real_distance: np.ndarray, fake_distance: np.ndarray
) -> dict[str, float]:
    """Every measure of one set of generated images against one of real ones, by name."""
    distance, close = kid(real, fake), closer(fake_distance, real_distance)
    return {
        "kid": distance.value,
        "kid-se": distance.se,
        "fid": fid(real, fake),
        **precision_recall(real, fake)._asdict(),
        "copied-share": close.copied_share,
        "nearest-ratio": close.ratio,
    }
