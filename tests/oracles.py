"""What the package has in closed form, simulated."""

import numpy as np


def urn(protocol, p, n, k, T, fresh=0, *, replicates, seed=0):
    """Shares of pool and batch in generations 0..T, simulated as counts; arguments of
    `drift.drift_variance`.

    returns  pool (T + 1, replicates), batch (T + 1, replicates)
    """
    rng = np.random.default_rng(seed)
    first = np.full(replicates, round(p * n))  # images of the group among the n of the start
    group, size = first, n
    pools, batches = np.empty((2, T + 1, replicates))
    for t in range(T + 1):
        pool = group / size
        if protocol.drawn and size > n:
            pool = rng.hypergeometric(group, size - group, n) / n
        made = rng.binomial(k - fresh, np.clip(pool, 0, 1))
        pools[t], batches[t] = pool, made / (k - fresh)
        added = made + round(fresh * p)
        if protocol.batches == "all" and (protocol.start or t > 0):
            group, size = group + added, size + k
        else:
            group, size = added + first * protocol.start, k + n * protocol.start
    return pools, batches
