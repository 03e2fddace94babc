"""Where a change comes from: batches whose shares differ, or batches whose images differ.

A generated batch differs from fresh real images in two ways: in the *shares* of its groups and in the *quality* of its
images. With M(s, q) the headline metric after training on batches of shares s and images q:

    M(start, real)        arm real             fresh real images in the shares of the start
    M(batch, real)        arm real-shares      real images in the group shares that the generated batch has
    M(start, generated)   arm rebalance        generated images, thinned to the shares of the start
    M(batch, generated)   arm generated

    shares part    = M(batch, real) - M(start, real)
    quality part   = M(start, generated) - M(start, real)
    interaction    = M(batch, generated) - M(batch, real) - M(start, generated) + M(start, real)

One piece of the quality part is made with real images alone: in the arm real-noise they carry the labels that a generator
would have told, so that label and content disagree as often, and in the same cells, as in the generated batch.

What a classifier says about groups or classes is corrected by its confusion on real test images (`correction`). Letters:
K classes, G groups, q images in a batch, k class, g group.
"""

import numpy as np
from scipy.optimize import lsq_linear

from .correction import corrected_shares, most_likely, told_counts
from .data import LabeledImages
from .registry import largest_remainder, spread
from .stages import Told
from .store import kind
from .training import Context

UNDONE = 3.0  # times that a share may have changed for `rebalance` to undo it; so it keeps at least one image in nine


# ---- Real images that copy a generated batch --------------------------------------------------------------------------

@kind("real-shares", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def real_with_shares(context: Context, *, shelf: LabeledImages, copied: LabeledImages, said: dict, test: LabeledImages,
                     said_of_test: dict | None, counts: list, told: Told, origin: int) -> dict:
    """Real images of the told classes, in the group shares that the probe finds in the batch of the paired run."""
    start = np.array(counts)
    errs = confusion_counts(test.group, said_of_test, start.shape[1])
    shares = shares_in_classes(copied.label, said["told"], errs, start > 0)
    label, group = told.label(told.whole), np.empty(len(told.whole), np.int64)
    for k, row in enumerate(shares):
        if n := int(np.count_nonzero(label == k)):
            group[label == k] = spread(largest_remainder(row, n))
    return told.labeled(shelf.images[chosen(shelf, label, group)], told.whole, origin).arrays()


@kind("real-noise", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def real_with_noise(context: Context, *, shelf: LabeledImages, copied: LabeledImages, seen: dict, said: dict | None,
                    test: LabeledImages, seen_of_test: dict, counts: list, told: Told, origin: int) -> dict:
    """Real images in the shares of the start whose labels are wrong as often as those of the batch of the paired run.

    In each cell of told class and group (or told class, where a group belongs to one class) the oracle's words about the
    batch, corrected, say which classes its images show; so many real images of those classes take the told label.
    said     the probe's words about the batch where every group meets every class, else None
    """
    start = np.array(counts)
    (K, G), errs = start.shape, confusion_counts(test.label, seen_of_test, start.shape[0])
    label = told.label(told.whole)
    group = in_start_shares(label, start)
    if said is not None:
        group = np.where(said["told"] >= 0, said["told"], group)
    cell = label * G + group if said is not None or told.condition == "group" else label * G
    content = np.empty(len(label), np.int64)
    for c in np.unique(cell):
        words = np.bincount(seen["told"][cell == c], minlength=K)
        shown = most_likely(errs[:, :K] / errs[:, :K].sum(1, keepdims=True), words / words.sum())
        content[cell == c] = spread(largest_remainder(shown, int(np.count_nonzero(cell == c))))
    if said is None:
        group = in_start_shares(content, start)
    return told.labeled(shelf.images[chosen(shelf, content, group)], told.whole, origin).arrays()


def chosen(shelf: LabeledImages, label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Which shelf image stands at each place: the first of that class and group whose photograph is not used yet; (q,) int.

    raises   ValueError   if the shelf has too few images of a class and group
    """
    G = max(int(group.max()), int(shelf.group.max())) + 1
    places = {c: list(np.flatnonzero(label * G + group == c)[::-1]) for c in np.unique(label * G + group)}
    asked, used, out = {c: len(p) for c, p in places.items()}, set[int](), np.empty(len(label), np.int64)
    for i, (c, unit) in enumerate(zip(shelf.label * G + shelf.group, shelf.unit, strict=True)):
        if unit not in used and places.get(c):
            out[places[c].pop()] = i
            used.add(unit)
    for c, left in places.items():
        if left:
            raise ValueError(f"the reserve has {asked[c] - len(left)} images of class {c // G} and group {c % G} for a batch "
                             f"that needs {asked[c]}; lower n_real, ratio or n_generations")
    return out


def in_start_shares(label: np.ndarray, start: np.ndarray) -> np.ndarray:
    """A group for each image, in the shares that its class has in the start; (q,) int."""
    group = np.empty(len(label), np.int64)
    for k in np.unique(label):
        group[label == k] = spread(largest_remainder(start[k], int(np.count_nonzero(label == k))))
    return group


# ---- Generated images thinned to the start's shares --------------------------------------------------------------------

@kind("thinning", keep=True)
def thinning(context: Context, *, batch: LabeledImages, said: dict, test: LabeledImages, said_of_test: dict | None,
             counts: list) -> dict:
    """Rates at which to keep generated images by told class and probed group so that the shares become those of the start;
    (K, G + 1) float, the last column: group unclear, or one of another class."""
    start = np.array(counts)
    errs = confusion_counts(test.group, said_of_test, start.shape[1])
    shares = shares_in_classes(batch.label, said["told"], errs, start > 0)
    wanted, errs = start / start.sum(1, keepdims=True), errs / errs.sum(1, keepdims=True)
    return {"rates": np.stack([thinning_rates(p, w, errs) for p, w in zip(shares, wanted, strict=True)])}


def thinning_rates(share: np.ndarray, wanted: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """Acceptance rates by what the probe says, for one class.

    An image of group g is to be kept r_g = wanted_g / share_g times as often as the average one. The probe says h of it with
    probability C_gh, so the rates solve  sum_h C_gh a_h = r_g  in least squares over 1 / UNDONE <= a <= UNDONE, with a = 1
    where the probe names no group of the class; then all are divided by the largest.

    share, wanted  (G,) float      shares of the groups in the class, each summing to 1; groups that do not occur: wanted 0
    confusion      (G, G + 1)      rows sum to 1
    returns        (G + 1,) float in [0, 1]   last: no group of the class
    """
    own = np.flatnonzero(wanted)
    inside = confusion[np.ix_(own, own)]
    ratio = np.divide(wanted[own], share[own], out=np.full(len(own), UNDONE), where=share[own] > 0)
    rates = np.ones(len(confusion) + 1)
    rates[own] = lsq_linear(inside, ratio - (1 - inside.sum(1)), (1 / UNDONE, UNDONE)).x
    return rates / rates.max()


# ---- What the probe and the oracle say, corrected ---------------------------------------------------------------------

_EXACT = 1_000_000  # test images of each group when nobody errs


def confusion_counts(true: np.ndarray, said: dict | None, n: int) -> np.ndarray:
    """Test images by what is true and what is said, (n, n + 1) int, the last column: unclear; None: nobody errs."""
    return _EXACT * np.eye(n, n + 1, dtype=np.int64) if said is None else told_counts(true, said["told"], (n, n))


def shares_in_classes(label: np.ndarray, said: np.ndarray, confusion: np.ndarray, occurs: np.ndarray) -> np.ndarray:
    """Corrected shares of the groups among the images of each told class that show a group of it; (K, G), rows sum to 1.

    Classes without such an image share evenly: there is nothing to copy.
    """
    found = corrected_shares(told_counts(label, said, occurs.shape), confusion, occurs, n_boot=40).share
    even = occurs / occurs.sum(1, keepdims=True)
    return np.where(np.isnan(found).all(1, keepdims=True), even, np.nan_to_num(found))
