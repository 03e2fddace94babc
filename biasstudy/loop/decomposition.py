"""Where a change comes from: batches whose shares differ, or batches whose images differ.

A generated batch differs from fresh real images in two ways: in the *shares* of its groups and in
the *quality* of its images. With M(s, q) the headline metric after training on batches of shares s
and images q:

    M(start, real)        arm real             fresh real images in the shares of the start
    M(batch, real)        arm real-shares      real images in the group shares that the generated
                                               batch has
    M(start, generated)   arm rebalance        generated images, thinned to the shares of the start
    M(batch, generated)   arm generated

    shares part    = M(batch, real) - M(start, real)
    quality part   = M(start, generated) - M(start, real)
    interaction    = M(batch, generated) - M(batch, real) - M(start, generated) + M(start, real)

One piece of the quality part is made with real images alone: in the arm real-noise they carry the
labels that a generator would have told, so that label and content disagree as often, and in the
same cells, as in the generated batch.

What a classifier says about groups or classes is corrected by its confusion on real test images
(`correction`). Letters: K classes, G groups, q images in a batch, k class, g group.
"""

import numpy as np
from scipy.optimize import brentq, lsq_linear

from ..core.context import Context
from ..core.counts import largest_remainder, spread
from ..core.store import kind
from ..data.conditions import Conditions
from ..data.images import LabeledImages
from ..measures.correction import corrected_shares, favoured_share, most_likely
from ..measures.shares import told_counts

# times that a share may have changed for `rebalance` to undo it; so it keeps at least one image in
# nine
UNDONE = 3.0


# ---- Real images that copy a generated batch -----------------------------------------------------


@kind("real-shares", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def real_with_shares(
    context: Context,
    *,
    shelf: LabeledImages,
    copied: LabeledImages,
    said: dict,
    test: LabeledImages,
    said_of_test: dict | None,
    counts: list,
    favoured: list,
    told: Conditions,
    origin: int,
) -> dict:
    """Real images of the told classes, in the group shares that the probe finds in the batch of the
    paired run."""
    shares = shares_found(copied, said, test, said_of_test, np.array(counts), np.array(favoured))
    label = told.label(told.of_batch)
    return told.labeled(
        shelf.images[chosen(shelf, label, in_shares(label, shares))], told.of_batch, origin
    ).arrays()


@kind("real-noise", version=2, keep=False, decode=lambda arrays: LabeledImages(**arrays))
def real_with_noise(
    context: Context,
    *,
    shelf: LabeledImages,
    copied: LabeledImages,
    seen: dict,
    said: dict | None,
    test: LabeledImages,
    seen_of_test: dict,
    counts: list,
    told: Conditions,
    origin: int,
) -> dict:
    """Real images in the shares of the start whose labels are wrong as often as those of the batch
    of the paired run.

    said     the probe's words about the batch where every group meets every class: labels are then
             wrong as often as in each probed group; else None: as often as over all classes or,
             under condition `group`, over the groups that are the most frequent of their class in
             the start and over the others
    """
    start, label = np.array(counts), told.label(told.of_batch)
    if said is not None:
        group = stratum = np.where(said["told"] >= 0, said["told"], in_shares(label, start))
    elif told.condition == "group":
        stratum = (start[label, told.of_batch % told.n_groups] < start[label].max(1)).astype(
            np.int64
        )
    else:
        stratum = np.zeros_like(label)
    errs = told_counts(test.label, seen_of_test["told"], (len(start), len(start)))[:, :-1]
    content = contents(label, stratum, seen["told"], errs / errs.sum(1, keepdims=True))
    if said is None:
        group = in_shares(content, start)
    return told.labeled(shelf.images[chosen(shelf, content, group)], told.of_batch, origin).arrays()


def contents(
    label: np.ndarray, stratum: np.ndarray, seen: np.ndarray, rates: np.ndarray
) -> np.ndarray:
    """The class that each image shows, in exact counts: the told class, but for as many as the
    oracle finds wrong.

    wrong share of a class in a stratum   w_k = (a_k - P(seen = k | told k)) / (a_k - b_k),  all
    lowered by one c
    so that  sum_k n_k min(1, max(0, w_k - c)) = max(0, sum_k n_k w_k):  errors of the oracle make
             no label wrong on average

    a_k, b_k: chance that the oracle sees class k in an image that shows it, and in one that shows
    another. Which other: the most likely mixture of what the oracle says of test images. (Its own
    share of wrong images is not used: it cannot be below 0, and came to an eighth for real images
    and an oracle that is right on 45 %.)

    label, stratum, seen  (q,) int     told class; images counted together; class that the oracle
                                       sees
    rates                 (K, K)       P(oracle sees column | image shows row) on test images
    returns               (q,) int
    """
    K, others = len(rates), np.full((len(rates), len(rates)), np.nan)
    for k in np.unique(label):
        mixture = most_likely(
            rates, np.bincount(seen[label == k], minlength=K) / np.count_nonzero(label == k)
        )
        mixture[k] = 0
        others[k] = mixture / mixture.sum()
    right, elsewhere = np.diagonal(rates), np.einsum("kj,jk->k", others, rates)
    content = np.empty(len(label), np.int64)
    for s in np.unique(stratum):
        cells = [
            np.flatnonzero((stratum == s) & (label == k)) for k in np.unique(label[stratum == s])
        ]
        told = np.array([label[cell[0]] for cell in cells])
        n = np.array([len(cell) for cell in cells])
        agree = np.array([np.mean(seen[cell] == label[cell]) for cell in cells])
        wrong = not_below_0((right[told] - agree) / (right[told] - elsewhere[told]), n)
        for cell, k, w in zip(cells, told, wrong, strict=True):
            content[cell] = spread(
                largest_remainder(w * others[k] + (1 - w) * (np.arange(K) == k), len(cell))
            )
    return content


def not_below_0(share: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Noisy shares, all lowered alike and cut to [0, 1] so that their mean, weighted by n, stays
    what it was, or 0; (K,)."""
    total = np.clip(n @ share, 0, n.sum())

    def lowered(c: float) -> np.ndarray:
        return np.clip(share - c, 0, 1)

    return lowered(brentq(lambda c: n @ lowered(c) - total, share.min() - 1, share.max()))


def chosen(shelf: LabeledImages, label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Which shelf image stands at each place: the first of that class and group whose photograph is
    not used yet; (q,) int.

    raises   ValueError   if the shelf has too few images of a class and group
    """
    G = max(int(group.max()), int(shelf.group.max())) + 1
    places = {
        c: list(np.flatnonzero(label * G + group == c)[::-1]) for c in np.unique(label * G + group)
    }
    asked = {c: len(p) for c, p in places.items()}
    used = set[int]()
    index = np.empty(len(label), np.int64)
    for i, (c, unit) in enumerate(zip(shelf.label * G + shelf.group, shelf.unit, strict=True)):
        if unit not in used and places.get(c):
            index[places[c].pop()] = i
            used.add(unit)
    for c, left in places.items():
        if left:
            raise ValueError(
                f"real images are to copy a generated batch that seems to have {asked[c]} images "
                f"of class number {c // G}, group number {c % G}, and the reserve has "
                f"{asked[c] - len(left)}; lower ratio or n_real, train the instruments longer, or "
                "leave out the arms real-shares and real-noise"
            )
    return index


def in_shares(label: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A group for each image, in the shares (K, G) that the groups have in its class, exact counts;
    (q,) int."""
    group = np.empty(len(label), np.int64)
    for k in np.unique(label):
        group[label == k] = spread(largest_remainder(shares[k], int(np.count_nonzero(label == k))))
    return group


# ---- Generated images thinned to the start's shares ----------------------------------------------


@kind("thinning", keep=True)
def thinning(
    context: Context,
    *,
    batch: LabeledImages,
    said: dict,
    test: LabeledImages,
    said_of_test: dict | None,
    counts: list,
    favoured: list,
) -> dict:
    """Rates at which to keep generated images by told class and probed group so that the shares
    become those of the start; (K, G + 1) float, the last column: group unclear, or one of another
    class."""
    start = np.array(counts)
    shares = shares_found(batch, said, test, said_of_test, start, np.array(favoured))
    (K, G), errs = start.shape, np.eye(start.shape[1], start.shape[1] + 1)
    if said_of_test is not None:
        errs = (
            told_counts(test.group, said_of_test["told"], (G, G))
            / np.bincount(test.group, minlength=G)[:, None]
        )
    wanted = start / start.sum(1, keepdims=True)
    return {"rates": np.stack([thinning_rates(shares[k], wanted[k], errs) for k in range(K)])}


def thinning_rates(share: np.ndarray, wanted: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """Acceptance rates by what the probe says, for one class.

    An image of group g is to be kept r_g = wanted_g / share_g times as often as the average one.
    The probe says h of it with probability C_gh, so the rates solve  sum_h C_gh a_h = r_g  in least
    squares over 1 / UNDONE <= a <= UNDONE, with a = 1 where the probe names no group of the class;
    then all are divided by the largest.

    share, wanted  (G,) float      shares of the groups in the class, each summing to 1; groups that
                                   do not occur: wanted 0
    confusion      (G, G + 1)      rows sum to 1
    returns        (G + 1,) float in [0, 1]   last: no group of the class
    """
    own = np.flatnonzero(wanted)
    inside = confusion[np.ix_(own, own)]
    ratio = np.divide(wanted[own], share[own], out=np.full(len(own), UNDONE), where=share[own] > 0)
    rates = np.ones(len(confusion) + 1)
    rates[own] = lsq_linear(inside, ratio - (1 - inside.sum(1)), (1 / UNDONE, UNDONE)).x
    return rates / rates.max()


# ---- What the probe says, corrected --------------------------------------------------------------


def shares_found(
    batch: LabeledImages,
    said: dict,
    test: LabeledImages,
    said_of_test: dict | None,
    start: np.ndarray,
    favoured: np.ndarray,
) -> np.ndarray:
    """Shares of the groups among the images of each told class that show a group of it; (K, G),
    rows sum to 1.

    A probe that errs is corrected by what it says of test images, class by class. Such shares are
    pulled away from the edges in all classes alike, so after a biased start the odds of the
    favoured groups are then multiplied by one factor, which brings their share to `favoured_share`.
    A class without an image that shows it keeps the shares of the start.
    """
    told = told_counts(batch.label, said["told"], start.shape)
    shares = start / start.sum(1, keepdims=True)
    if said_of_test is None:
        clear = np.where(start > 0, told[:, :-1], 0)
        return np.where(
            clear.sum(1, keepdims=True) > 0,
            clear / np.maximum(clear.sum(1, keepdims=True), 1),
            shares,
        )
    errs = told_counts(test.group, said_of_test["told"], (start.shape[1],) * 2)
    estimates = corrected_shares(told, errs, start > 0, n_boot=40).share
    shares = np.where(np.isnan(estimates).all(1, keepdims=True), shares, np.nan_to_num(estimates))
    if not (favoured > 0).any():
        return shares
    wanted = np.clip(favoured_share(told, errs, start > 0, favoured, n_boot=40).value, 0.01, 0.99)
    weight = told.sum(1) / told.sum()

    def moved(log_factor: float) -> np.ndarray:
        odds = shares * np.where(favoured > 0, np.exp(log_factor), 1)
        return odds / odds.sum(1, keepdims=True)

    return moved(
        brentq(lambda x: weight @ np.where(favoured > 0, moved(x), 0).sum(1) - wanted, -30, 30)
    )
