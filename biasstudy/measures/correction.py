"""Shares of groups when a classifier tells the groups: corrected for its errors, with intervals.

A probe that is right three times in five flattens every share. Its confusion with the true groups
on real test images says by how much, and one constrained solve per told class undoes it. Assumed:
the probe errs on generated images of a group as on real ones, and images that show no group of
their told class look to it like the test images of all other classes together.

Letters: K classes, G groups, B replicates; inside one told class d true groups (its own and
`other`, which is all the rest) and m told ones (its own and `elsewhere`, which is all the rest and
unclear).
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..core.seeds import seed_for
from . import LEVEL

BOOTSTRAPS = 400
# probability in place of 0: what no test image was told is no proof that none ever is
_NEVER = 1e-9
_ERROR = 1 / 4  # how wrong the solved share of a group may be (sd), to `favoured_share`


@dataclass(frozen=True)
class Shares:
    """Corrected shares of groups in one batch; nan where undefined.

    share, low, high        (K, G) in [0, 1]: share of a group among the images that show a group of
                            their told class
    other, other_low, other_high   (K,) in [0, 1]: images that show none; nan if every group occurs
                                   in the class
    n                       (K,) images told each class
    condition               (K,) 1..inf: condition number of the confusion that was solved; a probe
                            without errors has 1
    identifiable            (K,) bool: the confusion differs from one that cannot be solved by more
                            than its own noise
    """

    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    other: np.ndarray
    other_low: np.ndarray
    other_high: np.ndarray
    n: np.ndarray
    condition: np.ndarray
    identifiable: np.ndarray


@dataclass(frozen=True)
class FavouredShare:
    """Corrected share of the favoured groups in one batch, its interval, all in [0, 1], and the
    images n that it rests on.

    deviations   (B,) float   what value was off in replicates. Calls with one seed and one
                              confusion meet the same errors of the probe, so the spread of a
                              difference of deviations is that of a difference of values
    """

    value: float
    low: float
    high: float
    n: int
    deviations: np.ndarray


# ---- Shares of groups ----------------------------------------------------------------------------


def corrected_shares(
    told: np.ndarray,
    confusion: np.ndarray,
    occurs: np.ndarray,
    *,
    n_boot: int = BOOTSTRAPS,
    level: float = LEVEL,
    seed: int = 0,
) -> Shares:
    """Shares of groups in each told class, corrected for the errors of the probe.

    p = argmax over the simplex of sum_j f_j log (pC)_j;  share_g = p_g / (1 - p_other)

    f (m,) is what the probe says of the images told y, C (d, m) what it says of test images by true
    group; the row of `other` is the mean over test images of all other classes. The most likely p
    solves pC = f on the simplex, each equation weighed by its noise (simulated error 4 % below to 2
    % above that of least squares). The interval holds the central replicates, in which test images
    are weighted anew (Bayesian bootstrap) and the batch is drawn again, from f with half an image
    added to every told group: without it, groups that a small batch lacks get intervals that are
    too short.

    told       (K, G + 1) int    images by told class and group said (the last column: unclear)
    confusion  (G, G + 1) int    test images by true group and group said (the last column: unclear)
    occurs     (K, G) bool       which groups a class has
    n_boot     int               replicates, at least 40
    level      float             of the intervals, in (0, 1)
    returns    Shares            nan where a group does not occur in the class, where n = 0, and
                                 where less than one image seems to show the class
    raises     ValueError        for other shapes, negative counts, or a group that occurs but has
                                 no test image
    source     ours; metrics.md, section 7 (idea of CLEAM); estimator and interval chosen by
               simulation, see the tests
    """
    told, confusion, occurs = _probe_counts(told, confusion, occurs, n_boot, level)
    K, G = occurs.shape
    share, low, high = np.full((3, K, G), np.nan)
    other, other_low, other_high, condition = np.full((4, K), np.nan)
    identifiable, confusions = np.zeros(K, bool), _reweighted(confusion, n_boot, seed)
    for y in range(K):
        groups = np.flatnonzero(occurs[y])
        C, row_sizes = _system(confusions, groups)
        singular = np.linalg.svd(C[0], compute_uv=False)
        condition[y] = singular[0] / singular[-1] if singular[-1] > 0 else np.inf
        identifiable[y] = singular[-1] ** 2 > np.sum((1 - np.sum(C[0] ** 2, axis=1)) / row_sizes[0])
        n, d = told[y].sum(), len(groups)
        if n == 0:
            continue
        p = most_likely(C, _redrawn(_seen(told[y], groups), n_boot, seed, y))
        if n * p[0, :d].sum() >= 1:
            shares = p[:, :d] / p[:, :d].sum(1, keepdims=True)
            share[y, groups] = shares[0]
            (low[y, groups], high[y, groups]) = _central(shares[1:], level)
        if p.shape[1] > d:
            other[y], (other_low[y], other_high[y]) = p[0, d], _central(p[1:, d], level)
    return Shares(
        share, low, high, other, other_low, other_high, told.sum(1), condition, identifiable
    )


def most_likely(C: np.ndarray, f: np.ndarray) -> np.ndarray:
    """The mixture of rows of C that makes f most likely: argmax over the simplex of sum_j f_j log
    (pC)_j.

    A primal-dual interior-point method: Newton steps for  C(f/pC) - 1 + z = 0,  p z = mu,  with mu
    to 0. The multiplier of sum p = 1 is sum f = 1. Expectation-maximisation solves the same, in
    thousands of steps where rows of C are alike.

    C        (..., d, m) float   rows sum to 1
    f        (..., m) float      sums to 1
    returns  (..., d) float      positive, sums to 1; log-likelihood within 1e-8 of the largest
    raises   ArithmeticError     if 100 steps are not enough
    source   the method: Nocedal and Wright 2006, Numerical Optimization, chapter 19
    """
    C = np.maximum(C, _NEVER)
    Ct, d = np.swapaxes(C, -1, -2), C.shape[-2]
    p = np.full(C.shape[:-1], 1 / d)
    z = np.full_like(p, 0.1)
    for _ in range(100):
        q = (p[..., None, :] @ C)[..., 0, :]
        slope = (C @ (f / q)[..., None])[..., 0] - 1
        if np.max(p.sum(-1) * (1 + slope.max(-1))) < 1 + 1e-8:  # the duality gap
            return p / p.sum(-1, keepdims=True)
        curvature = (C * (f / q**2)[..., None, :]) @ Ct
        curvature[..., range(d), range(d)] += z / p
        mu = 0.1 * np.mean(p * z, axis=-1, keepdims=True)
        dp = np.linalg.solve(curvature, (slope + mu / p)[..., None])[..., 0]
        dz = (mu - z * dp) / p - z
        p, z = p + _inside(p, dp) * dp, z + _inside(z, dz) * dz
    raise ArithmeticError("the most likely shares were not found in 100 steps")


def _inside(x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """How much of a step may be taken for x to stay positive; (..., 1)."""
    return np.minimum(1.0, 0.995 / np.maximum(np.max(-step / x, axis=-1, keepdims=True), 0.995))


# ---- The share of the favoured groups ------------------------------------------------------------


def favoured_share(
    told: np.ndarray,
    confusion: np.ndarray,
    occurs: np.ndarray,
    favoured: np.ndarray,
    *,
    n_boot: int = BOOTSTRAPS,
    level: float = LEVEL,
    seed: int = 0,
) -> FavouredShare:
    """Share of images in groups that the biased start favours, among images that show their told
    class; all classes together.

    h = sum_y n_y p_y.v_y / sum_y n_y p_y.s_y,   v 1 in favoured groups, s 1 in the groups of the
    class, p as corrected value = h + sum_y n_y a_y.(f_y - p_y C_y) / N,   N = sum_y n_y p_y.s_y,
    t_y = v_y - h s_y
    a_y = (D C'C + V)^-1 D C't_y,   D = K / 16,   V covariance of the noise in f_y - p_y C_y
    interval = value +- sqrt(w^2 + (z b)^2),   b^2 = D sum_y (n_y / N)^2 |C a_y - t_y|^2,   2 w
    holds the central replicates

    The simplex pulls the shares of every class away from its edges, and what they have in common
    does not average out: h was 0.05 too low, and its 95 % interval missed in 3 of 4 simulated
    batches, with 250 images of each class and a probe right in 26 %. So h is corrected by what p
    leaves unexplained, a_y weighing noise against bias if each share were wrong by 1/4 (sd) in all
    K classes alike; b is the bias that is left. Value and interval are cut at 0 and 1.

    favoured   (K, G) int        above 0 where the start favours the group in the class
    others                       see `corrected_shares`
    returns    FavouredShare     nan with n = 0 if no image shows its class
    raises     ValueError        as there, or if no group is favoured
    source     ours; a one-step correction of a regularised estimate, as in the debiased lasso;
               coverage in the tests
    """
    told, confusion, occurs = _probe_counts(told, confusion, occurs, n_boot, level)
    favoured = np.asarray(favoured)
    if favoured.shape != occurs.shape or not ((favoured > 0) & occurs).any():
        raise ValueError(
            f"favoured must be {occurs.shape} and favour a group that occurs; got {favoured.shape}"
        )
    confusions, sizes, systems = _reweighted(confusion, n_boot, seed), told.sum(1), []
    for y in np.flatnonzero(sizes).tolist():
        groups = np.flatnonzero(occurs[y])
        C, row_sizes = _system(confusions, groups)
        v, s = np.zeros((2, C.shape[-2]))
        v[: len(groups)], s[: len(groups)] = favoured[y, groups] > 0, 1
        systems.append(
            (C, _redrawn(_seen(told[y], groups), n_boot, seed, y), v, s, sizes[y], row_sizes)
        )
    values, shown, bias = _debiased(systems) if systems else (np.full(n_boot + 1, np.nan), 0.0, 0.0)
    if shown < 1:
        return FavouredShare(np.nan, np.nan, np.nan, 0, np.full(n_boot, np.nan))
    replicates = values[1:]
    low, high = _central(replicates, level)
    half = np.hypot((high - low) / 2, NormalDist().inv_cdf(0.5 + level / 2) * bias)
    value, low, high = (float(np.clip(values[0] + shift, 0, 1)) for shift in (0, -half, half))
    return FavouredShare(value, low, high, int(sizes.sum()), replicates - replicates.mean())


def _debiased(systems: list[tuple]) -> tuple[np.ndarray, float, float]:
    """Values of `favoured_share`, not cut, (B + 1,); images that show their class, and b, both of
    the first."""
    solved = [most_likely(C, f) for C, f, *_ in systems]
    hits = sum(n * p @ v for p, (_, _, v, _, n, _) in zip(solved, systems, strict=True))
    shown = sum(n * p @ s for p, (_, _, _, s, n, _) in zip(solved, systems, strict=True))
    h, missing, bias, D = hits / shown, 0.0, 0.0, len(systems) * _ERROR**2
    for p, (C, f, v, s, n, row_sizes) in zip(solved, systems, strict=True):
        Ct = np.swapaxes(C, -1, -2)
        expected = (p[:, None, :] @ C)[:, 0]
        V = _covariance(expected[:, None, :], np.ones(1) / n) + _covariance(C, p**2 / row_sizes)
        target = v - h[:, None] * s
        a = np.linalg.solve(
            D * Ct @ C + V + _NEVER * np.eye(C.shape[-1]), D * Ct @ target[..., None]
        )[..., 0]
        missing = missing + n * np.sum(a * (f - expected), axis=-1)
        bias += D * n**2 * np.sum((C[0] @ a[0] - target[0]) ** 2)
    return h + missing / shown, shown[0], np.sqrt(bias) / shown[0]


def _covariance(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """sum_i w_i (diag(r_i) - r_i r_i'): of a weighted sum of multinomial rates; (..., d, m), (...,
    d) to (..., m, m)."""
    weighted = rows * weight[..., None]
    return (
        np.sum(weighted, axis=-2)[..., None] * np.eye(rows.shape[-1])
        - np.swapaxes(rows, -1, -2) @ weighted
    )


# ---- Counts and replicates -----------------------------------------------------------------------


def _counts(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in "iu" or (values.size and values.min() < 0):
        raise ValueError(
            f"{name} must be a table of whole numbers, 0 or more; got {values.dtype} {values.shape}"
            + (f" with {values.min()}" if values.size else "")
        )
    return values


def _probe_counts(
    told: np.ndarray, confusion: np.ndarray, occurs: np.ndarray, n_boot: int, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    told = _counts("told", told)
    confusion = _counts("confusion", confusion)
    occurs = np.asarray(occurs)
    K, G = occurs.shape if occurs.ndim == 2 else (0, 0)
    if occurs.dtype != bool or told.shape != (K, G + 1) or confusion.shape != (G, G + 1):
        raise ValueError(
            "occurs must be bool (K, G), told (K, G + 1), confusion (G, G + 1); got "
            f"{occurs.dtype} {occurs.shape}, {told.shape}, {confusion.shape}"
        )
    unseen = np.flatnonzero(occurs.any(0) & (confusion.sum(1) == 0))
    if len(unseen):
        raise ValueError(
            "every group that occurs needs test images in the confusion; groups without: "
            f"{unseen.tolist()}"
        )
    if not occurs.any(1).all():
        raise ValueError(
            f"every class needs a group; classes without: {np.flatnonzero(~occurs.any(1)).tolist()}"
        )
    if n_boot < 40 or not 0 < level < 1:
        raise ValueError(
            f"n_boot must be at least 40 and level inside (0, 1); got {n_boot} and {level}"
        )
    return told, confusion, occurs


def _seen(row: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Counts of one class by group said, `elsewhere` last; (m,) int."""
    return np.append(row[groups], row.sum() - row[groups].sum())


def _system(confusion: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the probe says of test images that show each group of a class, or another class; rows
    without images are left out.

    confusion  (..., G, G + 1)   counts
    returns    C (..., d, m) rates, test images behind each row (..., d)
    """
    own = confusion[..., groups, :]
    rest = confusion.sum(-2, keepdims=True) - own.sum(-2, keepdims=True)
    rows = np.concatenate([own, rest], axis=-2) if np.any(rest) else own
    size = rows.sum(-1)
    inside = rows[..., groups]
    rates = (
        np.concatenate([inside, size[..., None] - inside.sum(-1, keepdims=True)], axis=-1)
        / size[..., None]
    )
    return np.maximum(rates, 0), size


def _reweighted(confusion: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """The confusion, then replicates: its test images weighted anew, those of a group by as much in
    all; (B + 1, G, G + 1)."""
    rng = np.random.default_rng(seed_for(seed, "correction", "confusion"))
    drawn = rng.standard_gamma(np.broadcast_to(confusion.astype(float), (n_boot, *confusion.shape)))
    total, size = drawn.sum(-1, keepdims=True), confusion.sum(1, keepdims=True)
    return np.concatenate(
        [confusion[None], drawn * np.divide(size, total, out=np.zeros_like(total), where=size > 0)]
    )


def _redrawn(counts: np.ndarray, n_boot: int, seed: int, y: int) -> np.ndarray:
    """What the probe says of a batch, then of replicates drawn with half an image added to every
    entry; rates (B + 1, m)."""
    n, rng = counts.sum(), np.random.default_rng(seed_for(seed, "correction", "batch", y))
    drawn = rng.multinomial(n, (counts + 0.5) / (n + 0.5 * len(counts)), size=n_boot)
    return np.concatenate([counts[None], drawn]) / n


def _central(replicates: np.ndarray, level: float) -> np.ndarray:
    """Lower and upper end of the central replicates; (B, ...) to (2, ...)."""
    return np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2], axis=0)
