"""What the package has in closed form, simulated or by brute force."""

import itertools
from fractions import Fraction

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


def best_attack(target, group, n_classes):
    """Accuracy of the best of all attackers that guess a class from the group; target (N,
    n_classes) weights of what is true of each image, in Fractions."""
    groups = sorted(set(group))
    held = {
        g: [
            sum(row[k] for row, h in zip(target, group, strict=True) if h == g)
            for k in range(n_classes)
        ]
        for g in groups
    }
    attackers = itertools.product(range(n_classes), repeat=len(groups))
    return max(sum(held[g][guess[i]] for i, g in enumerate(groups)) for guess in attackers) / len(
        group
    )


def predictability_amplification(label, predicted, group, n_classes):
    """DPA, A -> T, of Tokas, Nair and Kerner 2025, arXiv 2412.11060: relative change from what the
    best attacker gets right of true labels, made as wrong as the predictions, to what it gets right
    of predictions; in exact fractions, every attacker tried."""
    right = Fraction(sum(int(y == k) for y, k in zip(label, predicted, strict=True)), len(label))
    wrong = (1 - right) / (n_classes - 1)
    true = [[right if k == y else wrong for k in range(n_classes)] for y in label]
    said = [[Fraction(int(k == p)) for k in range(n_classes)] for p in predicted]
    of_labels, of_predictions = (best_attack(x, group, n_classes) for x in (true, said))
    return float((of_predictions - of_labels) / (of_predictions + of_labels))


def multi_attribute_amplification(attributes, predicted, group):
    """Mean and variance of Multi_{G -> M} of Zhao, Andrews and Xiang 2023, arXiv 2210.11924, for
    images with any number of labels: over groups and all sets of labels that an image has."""
    sets = {tuple(np.flatnonzero(row)) for row in attributes if row.any()}
    shifts = [
        Fraction(int(predicted[group == g][:, m].all(1).sum()), int((group == g).sum()))
        - Fraction(int(attributes[group == g][:, m].all(1).sum()), int((group == g).sum()))
        for g in np.unique(group)
        for m in map(list, sets)
    ]
    mean = sum(shifts) / len(shifts)
    return (
        float(sum(map(abs, shifts)) / len(shifts)),
        float(sum((d - mean) ** 2 for d in shifts) / len(shifts)),
    )
