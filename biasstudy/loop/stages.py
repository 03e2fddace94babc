"""What the loop is made of: one function per kind of stage. Each receives exactly what enters its
key, and a context."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.context import Context
from ..core.counts import largest_remainder
from ..core.noise import uniform_of_images
from ..core.registry import Entry
from ..core.seeds import seed_for
from ..core.store import kind
from ..data.conditions import Conditions, condition_of
from ..data.images import LabeledImages
from ..measures.spurious import responses
from ..models.answers import check_images, check_state


def _numpy(model: Entry, state: Any) -> dict[str, np.ndarray]:
    """What a model was fitted to, as it is stored."""
    tensors = check_state(model, state)
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in state.items()}


def _warm(previous: dict | None) -> dict[str, Any]:
    """Only a warm start hands the weights of the generation before to a model."""
    return {} if previous is None else {"previous": tensors(previous)}


# ---- Generators and their images -----------------------------------------------------------------


@kind("generator", keep=False)
def fit_generator(
    context: Context,
    *,
    model: Entry,
    options: dict,
    pool: LabeledImages,
    condition: str,
    n_groups: int,
    reserve: LabeledImages | None,
    previous: dict | None,
    seed: int,
) -> dict:
    told = condition_of(pool, condition, n_groups)
    state = model.target(**options).fit(
        pool, told, reserve, seed=seed, context=context, **_warm(previous)
    )
    return _numpy(model, state)


@kind("batch", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def sample_batch(
    context: Context,
    *,
    model: Entry,
    options: dict,
    state: dict,
    told: Conditions,
    origin: int,
    seed: int,
) -> dict:
    images = model.target(**options).sample(
        tensors(state), told.asked, told.n_fresh, seed=seed, context=context
    )
    check_images(model, images, len(told.asked))
    return told.labeled(images, told.asked, origin).arrays()


@kind("grid", keep=True)
def sample_grid(
    context: Context, *, model: Any, options: dict, state: dict, told: list[int], seed: int
) -> dict:
    images = model.target(**options).sample(
        tensors(state), np.array(told), 0, seed=seed, context=context
    )
    return {"images": check_images(model, images, len(told))}


# ---- Filtering -----------------------------------------------------------------------------------


@kind("confidences", keep=False)
def told_confidence(context: Context, *, by: Any, batch: LabeledImages) -> dict:
    """Of each image of a batch its told class and the probability of that class, in steps of
    1/65535."""
    probability = by(context, batch.images)[np.arange(len(batch)), batch.label]
    return {"label": batch.label, "confidence": in_steps(probability)}


def in_steps(confidence: np.ndarray) -> np.ndarray:
    """Confidences in steps of 1/65535: last bits differ between kinds of CPU; (N,) float64."""
    return (confidence.astype(np.float64) * 65535).round() / 65535


@dataclass(frozen=True)
class Candidates:
    """What a generator made until every told condition had its quota of accepted images, and what
    the filter said."""

    images: np.ndarray  # (N, C, H, W) uint8, in the order in which they were made
    told: np.ndarray  # (N,) condition
    accepted: np.ndarray  # (N,) bool


@kind("candidates", keep=False, decode=lambda arrays: Candidates(**arrays))
def sample_candidates(
    context: Context,
    *,
    model: Entry,
    options: dict,
    state: dict,
    told: Conditions,
    filter: Any,
    filter_options: dict,
    judge: Any,
    tries: float,
    shortfall: str,
    origin: int,
    seed: int,
) -> dict:
    """Sample in pieces until the quota is met, at most `tries` times as many as the quota.

    The size of the pieces does not change the result, because candidate i and its acceptance depend
    on i alone, and what lies behind the last that is needed is cut off.
    """
    generator, weights = model.target(**options), tensors(state)
    of_batch, quota, q = told.of_batch, told.quota, len(told.of_batch)
    position, limit = told.n_fresh, told.n_fresh + int(tries * quota.sum())
    piece = int(quota.sum())
    images, asked, accepted = [], np.empty(0, np.int64), np.empty(0, bool)
    while True:
        now = of_batch[np.arange(position, min(position + piece, limit)) % q]
        sampled = generator.sample(weights, now, position, seed=seed, context=context)
        check_images(model, sampled, len(now))
        label = told.label(now)
        judged = None if judge is None else judge(context, sampled, label)
        chance = uniform_of_images(position, len(now), seed_for(seed, "filter"))
        decided = filter.target(sampled, label, judged, chance, **filter_options).astype(bool)
        images.append(sampled)
        asked, accepted = np.concatenate([asked, now]), np.concatenate([accepted, decided])
        position += len(now)
        seen, kept = (
            np.bincount(conditions, minlength=len(quota)) for conditions in (asked, asked[accepted])
        )
        missing = np.maximum(quota - kept, 0)
        if not missing.any() or position >= limit:
            break
        # as many more as the condition that lacks most will need at the rate seen so far
        rate = np.maximum(kept, 1) / np.maximum(seen, 1)
        piece = int(np.ceil(q * (missing / rate)[missing > 0] / quota[missing > 0]).max()) + 1
    if missing.any() and shortfall == "stop":
        c = int(missing.argmax())
        raise ValueError(
            f"filter {filter.name!r} accepted {kept[c]} of {seen[c]} images told condition {c} in "
            f"generation {origin}, and {quota[c]} are needed; train the models longer, or set "
            "shortfall: keep"
        )
    needed = len(asked)
    if not missing.any():
        needed = 1 + max(
            np.flatnonzero(accepted & (asked == c))[n - 1] for c, n in enumerate(quota) if n
        )
    return {
        "images": np.concatenate(images)[:needed],
        "told": asked[:needed],
        "accepted": accepted[:needed],
    }


@kind("decisions", keep=True)
def decisions(context: Context, *, candidates: Candidates, told: Conditions) -> dict:
    """Of each candidate its told class and whether it was accepted; of each image of the batch, in
    order, its told class."""
    return {
        "label": told.label(candidates.told).astype(np.int16),
        "accepted": candidates.accepted,
        "batch": told.label(_in_order(candidates, told)[0]).astype(np.int16),
    }


@kind("filtered", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def accepted_batch(
    context: Context, *, candidates: Candidates, told: Conditions, origin: int
) -> dict:
    order, index = _in_order(candidates, told)
    return told.labeled(candidates.images[index], order, origin).arrays()


def _in_order(candidates: Candidates, told: Conditions) -> tuple[np.ndarray, np.ndarray]:
    """The batch of the first accepted candidates of each condition, in the order of an unfiltered
    batch: the told condition of each image, and which candidate it is. A place that no candidate
    fills is left out."""
    order = told.asked
    index = np.full(len(order), -1)
    for c in np.unique(order):
        places = np.flatnonzero(order == c)
        fitting = np.flatnonzero(candidates.accepted & (candidates.told == c))
        n = min(len(places), len(fitting))
        index[places[:n]] = fitting[:n]
    return order[index >= 0], index[index >= 0]


@kind("relabelled", keep=False, decode=lambda arrays: LabeledImages(**arrays))
def relabel(context: Context, *, batch: LabeledImages, seen: dict) -> dict:
    """The batch with the class that the classifier sees as its training label."""
    return LabeledImages(batch.images, seen["told"], batch.group, batch.origin).arrays()


@kind("balanced", keep=True, decode=lambda arrays: arrays["index"])
def draw_balanced(
    context: Context,
    *,
    pool: LabeledImages,
    groups: np.ndarray,
    counts: list[int],
    n_groups: int,
    seed: int,
) -> dict:
    """Positions of counts[y] images of every class y, equally many of each of its groups that there
    are, in random order without replacement; of a group with too few images each is taken equally
    often, up to one. Images of unclear group are left out."""
    rng, chosen = np.random.default_rng(seed), []
    for y, n in enumerate(counts):
        members = [np.flatnonzero((pool.label == y) & (groups == g)) for g in range(n_groups)]
        there = [index for index in members if len(index)]
        for index, quota in zip(there, largest_remainder(np.ones(len(there)), n), strict=True):
            rounds = [rng.permutation(index) for _ in range(-(-int(quota) // len(index)))]
            chosen += [np.concatenate(rounds)[:quota]] if rounds else []
    return {"index": np.sort(np.concatenate(chosen))}


# ---- Fresh images whose groups follow how well they are served -----------------------------------


@kind("served", keep=True, decode=lambda arrays: arrays["index"])
def draw_served(
    context: Context,
    *,
    arrivals: LabeledImages,
    said: dict,
    usual: LabeledImages,
    n_fresh: int,
    sensitivity: float,
) -> dict:
    """Positions of n_fresh arrivals, one of each of the first n_fresh photographs, in group shares
    that follow the accuracy of a classifier.

    With n_kg images of class k and group g under protocol `fresh`, a_kg the accuracy on all
    arrivals of that cell and s the sensitivity, there are

        n_k n_kg a_kg^s / sum_h n_kh a_kh^s,   n_k = sum_g n_kg

    by largest remainder. A class whose groups all have accuracy 0 keeps its n_kg. No more images
    than must be have another group than under `fresh`, the last of a group first.

    arrivals  every photograph in every group, see `RealData.arrivals`: asked by the classifier
              before it is trained on any, so no test image and no instrument decides
    said      what the classifier says of each
    usual     the same photographs in the groups that they have under protocol `fresh`
    source    ours; after the retention of users in Hashimoto et al., Fairness Without Demographics
              in Repeated Loss Minimization, ICML 2018, without memory of earlier generations
    """
    n_groups = int(arrivals.group.max()) + 1
    right = said["predicted"] == arrivals.label
    label, group = usual.label[:n_fresh], usual.group[:n_fresh].copy()
    for k in np.unique(label):
        of_class, own = arrivals.label == k, np.flatnonzero(label == k)
        accuracy = np.array(
            [right[of_class & (arrivals.group == g)].mean() for g in range(n_groups)]
        )
        counts = np.bincount(group[own], minlength=n_groups)
        weight = counts * accuracy**sensitivity
        if weight.any():
            group[own] = regrouped(group[own], largest_remainder(weight, len(own)))
    return {"index": np.arange(n_fresh) * n_groups + group}


def regrouped(group: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Groups of images, changed in as few as must be so that group g is there wanted[g] times; (N,)
    int."""
    changed, there = group.copy(), np.bincount(group, minlength=len(wanted))
    leaving = [np.flatnonzero(group == g)[n:] for g, n in enumerate(wanted)]
    changed[np.sort(np.concatenate(leaving))] = np.repeat(
        np.arange(len(wanted)), np.maximum(wanted - there, 0)
    )
    return changed


# ---- Classifiers ---------------------------------------------------------------------------------


@kind("classifier", keep=False)
def fit_classifier(
    context: Context,
    *,
    model: Entry,
    options: dict,
    pool: LabeledImages,
    n_classes: int,
    previous: dict | None,
    seed: int,
) -> dict:
    state = model.target(**options).fit(
        pool, n_classes, seed=seed, context=context, **_warm(previous)
    )
    return _numpy(model, state)


@kind("prediction", keep=True)
def predict(context: Context, *, by: Any, images: LabeledImages) -> dict:
    probability = by(context, images.images)
    if probability.shape[1] <= images.label.max():
        raise ValueError(
            f"a classifier tells {probability.shape[1]} classes apart; the test images have "
            f"{images.label.max() + 1}"
        )
    # last bits differ between kinds of CPU
    confidence = (probability.max(1) * 65535).round() / 65535
    return {
        "predicted": probability.argmax(1).astype(np.int16),
        "confidence": confidence.astype(np.float32),
    }


@kind("spurious", keep=True)
def measure_spurious(context: Context, *, by: Any, images: LabeledImages) -> dict:
    """How a classifier answers noise on and around the masked object, and ablations: see
    `spurious.responses`."""
    assert images.mask is not None, "only asked for where test images have masks"
    answers = responses(
        lambda x: by(context, x), images.images, images.mask, images.label, images.unit
    )
    return {**answers, "confidence": (answers["confidence"] * 65535).round() / np.float32(65535)}
