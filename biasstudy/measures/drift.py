"""Drift: how far shares of groups wander if every generator is perfect and only samples its pool
(the arm `resample`).

Letters: n and k images of the start and added per generation, *per told condition*; p the realised
share of a group in the start of that condition; T generations, K classes; S shares: one per group,
and that of the cells which a biased start favours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
REPLICATES = 10_000


# ---- Drift null: one told condition --------------------------------------------------------------

# not balanced: it sets the shares of its pools itself
KNOWN = ("accumulate", "latest", "replace", "subsample", "fresh")


def _checked(protocol: str, k: Any, fresh: Any) -> None:
    if protocol not in KNOWN:
        raise ValueError(f"no drift null for protocol {protocol!r}; known: {', '.join(KNOWN)}")
    if protocol != "fresh" and np.any(fresh):
        raise ValueError(f"protocol {protocol!r} takes no fresh images; got {fresh}")
    if np.any(np.less(k, fresh)):
        raise ValueError(f"a batch of {k} cannot hold {fresh} fresh images")


def drift_variance(
    protocol: str, p: Any, n: Any, k: Any, T: int, fresh: Any = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the share of a group in pool and batch of each generation, if batches only
    resample their pool.

    One told condition: the start has n images; generation t adds k, of which k - fresh, its batch,
    are drawn with replacement from the pool of generation t and `fresh` are real, in the start's
    shares. Pool share V_t, V_0 = 0:

        replace      V_t = p(1-p) [1 - (1 - 1/k)^t];  k = n
        accumulate   V_t = p(1-p) [1 - prod_{i=1..t} (1 - k/N_i^2)],  N_i = n + i k
        latest       V_{t+1} = (k/(n+k))^2 [V_t + (p(1-p) - V_t)/k]
        fresh        N_{t+1}^2 U_{t+1} = (N_t^2 + 2 N_t g) U_t + g^2 B_t,  g = k - fresh;  V_t = U_t
        subsample    the same with g = k for the union U of start and all batches;
                     V_t = U_t + (p(1-p) - U_t)/n (N_t - n)/(N_t - 1): n of its N_t images without
                     replacement

    Batch share: B_t = V_t + (p(1-p) - V_t)/g, for what generator t makes, without the fresh images.
    Both keep the mean p.

    p, n, k, fresh   float in [0, 1], int, int, int: numbers or arrays that broadcast; k may have a
                     leading axis over t = 0..T
    returns          pool (T + 1, ...), batch (T + 1, ...): variances in generations 0..T
    raises           ValueError   for an unknown protocol or sizes that it does not allow
    source           first three: metrics.md, section 10; the others ours; all by brute simulation
                     in the tests
    """
    _checked(protocol, k, fresh)
    p, n, fresh = np.asarray(p, float), np.asarray(n, float), np.asarray(fresh, float)
    k = np.broadcast_to(
        np.asarray(k, float), (T + 1, *np.broadcast_shapes(p.shape, n.shape, fresh.shape))
    )
    limit, size = p * (1 - p), np.broadcast_to(n, k.shape[1:])
    pool = union = np.zeros(k.shape[1:])
    pools, batches = np.empty(k.shape), np.empty(k.shape)
    for t in range(T + 1):
        if protocol == "subsample":
            pool = union + (limit - union) / np.maximum(n, 1) * (size - n) / np.maximum(size - 1, 1)
        made = k[t] - fresh
        drawn = pool + (limit - pool) / np.maximum(made, 1)
        pools[t], batches[t] = pool, drawn
        if protocol == "latest":
            pool = (k[t] / (n + k[t])) ** 2 * drawn
        elif protocol == "replace":
            pool = drawn
        else:
            grown = np.maximum(size + k[t], 1)
            pool = union = ((size**2 + 2 * size * made) * union + made**2 * drawn) / grown**2
            size = size + k[t]
    return pools, batches


def urn(
    protocol: str,
    p: Any,
    n: Any,
    k: Any,
    T: int,
    fresh: Any = 0,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of pool and batch in generations 0..T, simulated as counts; arguments of
    `drift_variance`.

    returns  pool (T + 1, replicates, ...), batch (T + 1, replicates, ...)
    """
    _checked(protocol, k, fresh)
    p, n, k, fresh = np.broadcast_arrays(p, n, k, fresh)
    rng, shape = np.random.default_rng(seed), (replicates, *p.shape)
    # images of the group among the n of the start
    start = np.broadcast_to(np.rint(p * n), shape)
    group, size, pool = start, n, start / n
    pools, batches = np.empty((T + 1, *shape)), np.empty((T + 1, *shape))
    for t in range(T + 1):
        if protocol == "subsample" and t > 0:
            pool = (
                rng.hypergeometric(
                    group.astype(np.int64),
                    (size - group).astype(np.int64),
                    np.broadcast_to(n, shape),
                )
                / n
            )
        made = rng.binomial(k - fresh, np.clip(pool, 0, 1))
        added = made + fresh * (start / n)
        pools[t], batches[t] = pool, made / np.maximum(k - fresh, 1)
        if protocol == "replace":
            pool = added / k
        elif protocol == "latest":
            pool = (start + added) / (n + k)
        else:
            group, size = group + added, size + k
            pool = group / size
    return pools, batches


@dataclass(frozen=True)
class Drift:
    """Drift null of one share: sd, low, high (T + 1,) in generations 0..T; low and high hold 95 %
    of the replicates."""

    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray


def drift_null(
    protocol: str,
    p: float,
    n: int,
    k: int,
    T: int,
    *,
    fresh_share: float = 0.0,
    of: str = "batch",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Drift:
    """Where the share of a group in one told condition lies if every generator only samples its
    pool.

    of           "pool": share in the training set of generation t; "batch": share in what generator
                 t makes
    fresh_share  share of the k images that comes from the reserve, round(fresh_share k) of them;
                 protocol fresh only
    returns      Drift   sd in closed form, band from the simulated urn
    raises       ValueError   for an unknown protocol or share, or sizes that the protocol does not
                 allow
    """
    if of not in ("pool", "batch"):
        raise ValueError(f"of must be 'pool' or 'batch'; got {of!r}")
    which, fresh = ("pool", "batch").index(of), round(fresh_share * k)
    shares = urn(protocol, p, n, k, T, fresh, replicates=replicates, seed=seed)[which]
    low, high = np.quantile(shares, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=1)
    return Drift(np.sqrt(drift_variance(protocol, p, n, k, T, fresh)[which]), low, high)


# ---- Drift null: shares summed over told conditions ----------------------------------------------


def names_of_shares(o: Any) -> list[tuple[str, str | None]]:
    """Metric and group of the S shares of an outcome."""
    return [("group-share", name) for name in o.groups] + [("favoured-share", None)] * o.biased


def _hits(o: Any, probed: bool) -> np.ndarray:
    """P(an image of group g told class y counts for share s), (K, G, S): 1 or 0, or as often as the
    probe says so."""
    K, G = o.counts.shape
    sees = np.eye(G)
    if probed and o.confusion is not None:
        clear = o.confusion[:, :G]
        sees = clear / np.maximum(clear.sum(1, keepdims=True), 1)
    each = np.broadcast_to(sees, (K, G, G))
    return (
        np.concatenate([each, np.einsum("gs,ys->yg", sees, o.favoured > 0)[..., None]], axis=2)
        if o.biased
        else each
    )


def drift_of(o: Any, of: str = "batch", probed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the overall shares in batch or pool if every generator only sampled its
    pool: sums over classes.

    sum_y w_y p_y,  sum_y w_y^2 Var_y;  w_y share of class y in the batch (in the start for pools).
                    Where a fixed classifier
    is the probe, p_y is the share that it is expected to see in the start, by its confusion matrix
    among images with a clear group, and sum_y w_y^2 sum_g p_yg c_g (1 - c_g)/n_y is added, the
    chance in which images of the start it mistakes.

    o        Outcome with batches
    probed   False: shares of the truth, to compare with corrected shares
    returns  mean (T', S), variance (T', S)   T batches or T + 1 pools; S groups, then the favoured
             cells of a biased start;
                                              variance of the truth is 0 under condition group: the
                                              shares are told
    """
    e, n, hits = o.experiment, o.counts.sum(1), _hits(o, probed)
    within = o.counts / np.maximum(n, 1)[:, None]
    p, mistakes = (
        np.einsum("yg,ygs->ys", within, hits),
        np.einsum("yg,ygs->ys", within, hits * (1 - hits)),
    )
    made = np.array([np.bincount(batch["label"], minlength=len(n)) for batch in o.batches])
    fresh = getattr(e, "n_fresh", 0) * n / n.sum()
    k = np.concatenate([made, made[-1:]]) + fresh
    pool, batch = drift_variance(e.protocol, p, n[:, None], k[..., None], len(made), fresh[:, None])
    weight = (
        np.tile(n / n.sum(), (len(pool), 1))
        if of == "pool"
        else made / np.maximum(made.sum(1, keepdims=True), 1)
    )
    variance = (pool if of == "pool" else batch[:-1]) * (
        e.condition == "class"
    ) + mistakes / np.maximum(n, 1)[:, None]
    return weight @ p, np.einsum("ty,tys->ts", weight**2, variance)


def drift_band(outcomes: list[Any], of: str = "batch", probed: bool = True) -> pd.DataFrame:
    """Where the overall share of a group lies, for a single seed, if every generator only sampled
    its pool.

    It holds for images with a clear group. Starts of other seeds may differ: draw the band as its
    distance from `start`.

    outcomes  of one arm, one per seed, with batches; their protocol and sizes are used
    of        "batch": generation -1 is the start, then what generators 0..T-1 make; "pool":
              training sets 0..T
    probed    True: shares as the probe sees them; False: of the truth, to compare with corrected
              shares
    returns   metric (group-share, favoured-share), group, generation, start, low, high, sd; means
              over seeds, the band is 95 % (normal, from exact variances); sd / sqrt(number of
              seeds) is that of the mean over seeds
    raises    ValueError   where nothing was added, or for another `of`
    """
    if of not in ("pool", "batch"):
        raise ValueError(f"of must be 'pool' or 'batch'; got {of!r}")
    if not all(o.batches for o in outcomes):
        raise ValueError("nothing was added to a training set (arm none): there is no drift")
    moments = [drift_of(o, of, probed) for o in outcomes]
    mean, sd = (
        np.mean([m for m, _ in moments], axis=0),
        np.sqrt(np.mean([v for _, v in moments], axis=0)),
    )
    start = np.mean(
        [
            np.einsum("yg,ygs->s", o.counts, _hits(o, probed=False)) / o.counts.sum()
            for o in outcomes
        ],
        axis=0,
    )
    if of == "batch":
        mean, sd = np.vstack([start, mean]), np.vstack([0 * start, sd])
    half = stats.norm.ppf(0.5 + LEVEL / 2) * sd
    low, high = np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
    rows = [
        (metric, group, t - (of == "batch"), start[s], low[t, s], high[t, s], sd[t, s])
        for s, (metric, group) in enumerate(names_of_shares(outcomes[0]))
        for t in range(len(mean))
    ]
    return pd.DataFrame(
        rows, columns=["metric", "group", "generation", "start", "low", "high", "sd"]
    )


# ---- Shifts of shares, systematic and not --------------------------------------------------------


def systematic_shift(shift: np.ndarray) -> pd.DataFrame:
    """Whether the mean over seeds of a share's shift differs from 0: t-interval for each share.

    shift    (n_seeds, S) float   share in the batch minus share in the start of the same seed
    returns  a row per share: mean, low, high (95 %), p; nan but the mean with one seed
    """
    # exact shares differ by rounding errors
    n, shift = len(shift), np.where(np.abs(shift) < 1e-12, 0.0, shift)
    mean = shift.mean(0)
    se = shift.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(mean), np.nan)
    half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * se if n > 1 else se
    t = np.divide(np.abs(mean), se, out=np.where(mean == 0, 0.0, np.inf), where=~(se <= 0))
    p = 2 * stats.t.sf(t, n - 1) if n > 1 else se
    return pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half, "p": p})


def unsystematic(shift: np.ndarray, variance: np.ndarray, size: int) -> pd.DataFrame:
    """How much more than by drift a share varies between seeds, and as how large a start.

    ratio = var_s(shift) / drift variance;  effective size = size / ratio: to first order in 1/size,
    the start that with the same protocol and ratio drifts as much

    shift     (n_seeds, S) float   see systematic_shift
    variance  (S,) float           under the drift null, mean over seeds
    size      int                  images in the start
    returns   a row per share: sd, drift_sd, ratio, ratio_low, ratio_high (95 %, chi-square),
              effective_size; nan where the drift variance is 0 or with one seed
    """
    n = len(shift)
    nan = np.full(shift.shape[1], np.nan)
    observed = shift.var(0, ddof=1) if n > 1 else nan
    ratio = np.divide(observed, variance, out=nan.copy(), where=variance > 0)
    low, high = (
        ((n - 1) / stats.chi2.ppf([0.5 + LEVEL / 2, 0.5 - LEVEL / 2], n - 1))
        if n > 1
        else (np.nan, np.nan)
    )
    effective = np.divide(size, ratio, out=nan.copy(), where=ratio > 0)
    return pd.DataFrame(
        {
            "sd": np.sqrt(observed),
            "drift_sd": np.sqrt(variance),
            "ratio": ratio,
            "ratio_low": ratio * low,
            "ratio_high": ratio * high,
            "effective_size": effective,
        }
    )


def shifts(outcomes: list[Any], generation: int = -1) -> pd.DataFrame:
    """Systematic and unsystematic shift of every share in a batch of one arm; each seed against its
    own start.

    generation  which batch; the last one by default
    returns     metric, group, n (seeds), then the columns of `systematic_shift` and `unsystematic`
    """
    moments = [drift_of(o) for o in outcomes]
    shift = np.stack(
        [
            _shares_of_batch(o, o.batches[generation]) - mean[generation]
            for o, (mean, _) in zip(outcomes, moments, strict=True)
        ]
    )
    variance = np.mean([v[generation] for _, v in moments], axis=0)
    names = pd.DataFrame(names_of_shares(outcomes[0]), columns=["metric", "group"]).assign(
        n=len(outcomes)
    )
    return pd.concat(
        [
            names,
            systematic_shift(shift),
            unsystematic(shift, variance, int(outcomes[0].counts.sum())),
        ],
        axis=1,
    )


def _shares_of_batch(o: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Overall shares among images with a clear group, in the order of `names_of_shares`."""
    clear = batch["group"] >= 0
    label, group = batch["label"][clear], batch["group"][clear]
    if not len(group):
        return np.full(len(o.groups) + o.biased, np.nan)
    shares = np.bincount(group, minlength=len(o.groups)) / len(group)
    return np.append(shares, (o.favoured[label, group] > 0).mean()) if o.biased else shares
