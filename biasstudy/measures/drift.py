"""Drift: how far shares of groups wander if every generator is perfect and only samples its pool
(the arm `resample`).

Letters: n and k images of the start and added per generation, *per told condition*; p the realised
share of a group in the start of that condition; T generations, K classes; S shares: one per group,
and that of the cells which a biased start favours.
"""

from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..experiment import PROTOCOLS, Protocol
from . import LEVEL
from .shares import counted_shares

# ---- Drift null: one told condition --------------------------------------------------------------

# what of a protocol the formula knows; `balanced` is not among it: the probe sets the shares of
# such a pool
_IN_THE_FORMULA = ("start", "batches", "full_batch", "drawn", "fresh")


def has_formula(protocol: Protocol) -> bool:
    """Whether `drift_variance` holds under a protocol: all that its data say is in the formula."""
    rule = [f for f in fields(protocol) if f.compare]
    unknown = [f for f in rule if f.name not in _IN_THE_FORMULA]
    return all(getattr(protocol, f.name) == f.default for f in unknown)


def drift_variance(
    protocol: Protocol, p: Any, n: Any, k: Any, T: int, fresh: Any = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the share of a group in pool and batch of each generation, if batches only
    resample their pool.

    One told condition: the start has n images; generation t adds k, of which g = k - fresh, its
    batch, are drawn with replacement from the pool of generation t and `fresh` are real, in the
    start's shares. U_t, U_0 = 0, is the variance of the share in all that the protocol keeps, N_t
    images; V_t that in the pool, B_t that in the batch, both with mean p:

        B_t = V_t + (p(1-p) - V_t)/g
        V_t = U_t;  of a pool of n images drawn from the N_t without replacement
              U_t + (p(1-p) - U_t)/n (N_t - n)/(N_t - 1)
        all batches stay    N_{t+1}^2 U_{t+1} = (N_t^2 + 2 N_t g) U_t + g^2 B_t,  N_{t+1} = N_t + k
        the newest alone    N_{t+1}^2 U_{t+1} = g^2 B_t,  N_{t+1} = k, with the start n + k

    In closed form that is p(1-p) [1 - (1 - 1/k)^t] for `replace`, and for `accumulate`
    p(1-p) [1 - prod_{i=1..t} (1 - k/N_i^2)],  N_i = n + i k.

    p, n, k, fresh   float in [0, 1], int, int, int: numbers or arrays that broadcast; k may have a
                     leading axis over t = 0..T
    returns          pool (T + 1, ...), batch (T + 1, ...): variances in generations 0..T
    raises           ValueError   for a protocol without a formula, see `has_formula`, or sizes that
                                  it does not allow
    source           `replace`, `accumulate`, `latest`: metrics.md, section 10; the others ours; all
                     by brute simulation in the tests
    """
    if not has_formula(protocol):
        raise ValueError(f"no formula for the drift of shares is known under {protocol}")
    if np.any(fresh) and not protocol.fresh:
        raise ValueError(f"a protocol that takes no fresh images got {fresh}: {protocol}")
    if np.any(np.less(k, fresh)):
        raise ValueError(f"a batch of {k} cannot hold {fresh} fresh images")
    p, n, fresh = np.asarray(p, float), np.asarray(n, float), np.asarray(fresh, float)
    k = np.broadcast_to(
        np.asarray(k, float), (T + 1, *np.broadcast_shapes(p.shape, n.shape, fresh.shape))
    )
    limit, size = p * (1 - p), np.broadcast_to(n, k.shape[1:])
    union = np.zeros(k.shape[1:])
    pools, batches = np.empty(k.shape), np.empty(k.shape)
    for t in range(T + 1):
        pool = union
        if protocol.drawn:  # n images, or all where there are fewer
            spared = np.maximum(size - n, 0) / np.maximum(size - 1, 1)
            pool = union + (limit - union) / np.maximum(n, 1) * spared
        n_generated = k[t] - fresh
        drawn = pool + (limit - pool) / np.maximum(n_generated, 1)
        pools[t], batches[t] = pool, drawn
        # generation 0 trains on the start whether or not it stays
        if protocol.batches == "all" and (protocol.start or t > 0):
            kept, covariance = size, (size**2 + 2 * size * n_generated) * union
        else:
            kept, covariance = n if protocol.start else 0 * n, 0 * union
        size = kept + k[t]
        union = (covariance + n_generated**2 * drawn) / np.maximum(size, 1) ** 2
    return pools, batches


# ---- Drift null: shares summed over told conditions ----------------------------------------------


def names_of_shares(o: Any) -> list[tuple[str, str | None]]:
    """Metric and group of the S shares of an outcome."""
    return [("group-share", name) for name in o.groups] + [("favoured-share", None)] * o.biased


def _hits(o: Any) -> np.ndarray:
    """P(an image of group g told class y counts for share s), (K, G, S): as often as the probe says
    so, 1 or 0 where it does not err."""
    K, G = o.counts.shape
    sees = np.eye(G)
    if o.confusion is not None:
        clear = o.confusion[:, :G]
        sees = clear / np.maximum(clear.sum(1, keepdims=True), 1)
    each = np.broadcast_to(sees, (K, G, G))
    return (
        np.concatenate([each, np.einsum("gs,ys->yg", sees, o.favoured > 0)[..., None]], axis=2)
        if o.biased
        else each
    )


def drift_of(o: Any, of: str = "batch") -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the overall shares in batch or pool if every generator only sampled its
    pool: sums over classes.

    sum_y w_y p_y,  sum_y w_y^2 Var_y;  w_y share of class y in the batch (in the start for pools).
    Where a fixed classifier is the probe, p_y is the share that it is expected to see in the start,
    by its confusion matrix among images with a clear group, and sum_y w_y^2 sum_g p_yg c_g (1 -
    c_g)/n_y is added, the chance in which images of the start it mistakes.

    o        Outcome with batches
    returns  mean (T', S), variance (T', S)   T batches or T + 1 pools; S groups, then the favoured
                                              cells of a biased start; variance of the truth is 0
                                              under condition group: the shares are told
    raises   ValueError   for a protocol without a formula, see `has_formula`
    """
    e, n, hits = o.experiment, o.counts.sum(1), _hits(o)
    within = o.counts / np.maximum(n, 1)[:, None]
    p = np.einsum("yg,ygs->ys", within, hits)
    mistakes = np.einsum("yg,ygs->ys", within, hits * (1 - hits))
    n_generated = np.array([np.bincount(batch["label"], minlength=len(n)) for batch in o.batches])
    fresh = getattr(e, "n_fresh", 0) * n / n.sum()
    k = np.concatenate([n_generated, n_generated[-1:]]) + fresh
    pool, batch = drift_variance(
        PROTOCOLS[e.protocol], p, n[:, None], k[..., None], len(n_generated), fresh[:, None]
    )
    weight = (
        np.tile(n / n.sum(), (len(pool), 1))
        if of == "pool"
        else n_generated / np.maximum(n_generated.sum(1, keepdims=True), 1)
    )
    variance = (pool if of == "pool" else batch[:-1]) * (
        e.condition == "class"
    ) + mistakes / np.maximum(n, 1)[:, None]
    return weight @ p, np.einsum("ty,tys->ts", weight**2, variance)


def drift_band(outcomes: list[Any], of: str = "batch") -> pd.DataFrame:
    """Where the overall share of a group lies, for a single seed, as the probe sees it, if every
    generator only sampled its pool.

    It holds for images with a clear group. Starts of other seeds may differ: draw the band as its
    distance from `start`.

    outcomes  of one arm, one per seed, with batches; their protocol and sizes are used
    of        "batch": generation -1 is the start, then what generators 0..T-1 make; "pool":
              training sets 0..T
    returns   metric (group-share, favoured-share), group, generation, start, low, high, sd; means
              over seeds, the band is 95 % (normal, from exact variances); sd / sqrt(number of
              seeds) is that of the mean over seeds
    raises    ValueError   where nothing was added, for another `of`, or a protocol without a
                           formula
    """
    if of not in ("pool", "batch"):
        raise ValueError(f"of must be 'pool' or 'batch'; got {of!r}")
    if without := [o for o in outcomes if not o.batches]:
        without[0].in_start()  # where nothing is known of batches, this says so
        raise ValueError("nothing was added to a training set (arm none): there is no drift")
    moments = [drift_of(o, of) for o in outcomes]
    mean = np.mean([m for m, _ in moments], axis=0)
    sd = np.sqrt(np.mean([v for _, v in moments], axis=0))
    start = np.mean([counted_shares(o.counts, o.favoured) for o in outcomes], axis=0)
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
