"""The training set of each generation: what a protocol keeps of the start and of the batches."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.seeds import digest, seed_for
from ..core.store import Store
from ..data.conditions import condition_of
from ..data.images import LabeledImages
from ..data.pools import Groups, Member, Part, Pool
from ..data.real import RealData
from ..experiment import PROTOCOLS, Experiment
from .stages import draw_balanced


def training_set(
    e: Experiment, real: RealData, t: int, additions: Sequence[Sequence[Member]], store: Store
) -> Pool:
    """The pool of generation t.

    additions   what the generations before have added; where there is nothing, the pool is the
                start
    """
    if e.path != "none":
        return pool_of_path(e, real, t)
    protocol = PROTOCOLS[e.protocol]
    start = Member(real.start, "start")
    if protocol.drawn:
        told = condition_of(real.start.labels(), e.condition, real.dataset.n_groups)
        start = Member(real.start, "start", told)
    members = [start] if protocol.start or not additions else []
    kept = additions if protocol.batches == "all" else additions[-1:]
    members += [member for added in kept for member in added]
    if protocol.drawn and additions:
        wanted, seed = np.bincount(start.conditions), seed_for(e.seed, "subsample", t)
        members = drawn_without_replacement(members, wanted, seed)
    pool = Pool(tuple(members))
    if protocol.balanced and additions:
        index = store.stage(
            draw_balanced,
            pool=pool,
            groups=Groups(tuple(members)),
            counts=real.counts.sum(1).tolist(),
            n_groups=real.dataset.n_groups,
            seed=seed_for(e.seed, "balanced", t),
        )
        pool = Pool((Member(pool, index=index),))
    return pool


def pool_of_path(e: Experiment, real: RealData, t: int) -> Pool:
    """Training set of level t of a path: the start, a part of it, or it with wrong labels."""
    start, level = Member(real.start, "start"), e.levels[t]
    if level == e.levels[0] or e.path == "shorter":  # the fit is shorter, not the training set
        return Pool((start,))
    images = real.start.labels()
    order = in_turn(images, real.counts, seed_for(e.seed, e.path))
    if e.path == "fewer":
        kept = order[: round(level * len(images))]
        return Pool((Member(real.start, "start", index=np.sort(kept)),))
    wrong = order[: round(level * len(images))]
    told = wrong_labels(images.label, order, real.counts.shape[0], seed_for(e.seed, "wrong label"))
    label = images.label.copy()
    label[wrong] = told[wrong]
    described = {"start": real.start.id, "wrong labels": level, "labels": digest(label.tolist())}
    noisy = Part(
        described,
        lambda: replace(real.start.load(), label=label),
        lambda: replace(images, label=label),
    )
    return Pool((Member(noisy, "start"),))


def in_turn(images: LabeledImages, counts: np.ndarray, seed: int) -> np.ndarray:
    """An order of the images of a start of which every beginning has its class x group shares.

    Image j of the n in a cell, in random order, is due at (j + phase) / n. The phases of the cells
    of a class are spread evenly over [0, 1), and so are those of a group: rounding favours none.

    counts   (n_classes, n_groups) int   images of each cell
    returns  (N,) int   positions; of the first m, a cell of n has m n / N, within three images
    source   ours
    """
    rng, (n_classes, n_groups) = np.random.default_rng(seed), counts.shape
    by_class, mixed = rng.permutation(n_classes)[:, None] / n_classes, rng.permutation(n_groups)
    # the first, second, ... of the groups that a class has
    place = np.empty_like(counts)
    place[:, mixed] = (counts[:, mixed] > 0).cumsum(1)
    phase = (by_class + place / place.max(1, keepdims=True) + rng.random()) % 1
    cell, due = images.label * n_groups + images.group, np.empty(len(images))
    for c in np.unique(cell):
        index = rng.permutation(np.flatnonzero(cell == c))
        due[index] = (np.arange(len(index)) + phase.flat[c]) / len(index)
    return np.argsort(due, kind="stable")


def wrong_labels(label: np.ndarray, order: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Another class for every image: of the images of a class, in this order, each n_classes - 1 in
    succession get all other classes once, at random.

    returns  (N,) int   never the class itself
    """
    rng, told = np.random.default_rng(seed), np.empty_like(label)
    for k in range(n_classes):
        index = order[label[order] == k]
        rounds = -(-len(index) // (n_classes - 1))
        steps = [1 + rng.permutation(n_classes - 1) for _ in range(rounds)]
        told[index] = (k + np.concatenate([*steps, np.empty(0, int)])[: len(index)]) % n_classes
    return told


def drawn_without_replacement(members: list[Member], counts: np.ndarray, seed: int) -> list[Member]:
    """counts[c] images of each told condition c, uniformly from all members together."""
    rng, told = np.random.default_rng(seed), np.concatenate([m.conditions for m in members])
    chosen = np.zeros(len(told), bool)
    for c, n in enumerate(counts):
        chosen[rng.permutation(np.flatnonzero(told == c))[:n]] = True
    split = np.split(chosen, np.cumsum([len(m.conditions) for m in members])[:-1])
    return [
        Member(m.images, m.came_from, m.conditions[part], np.flatnonzero(part), m.probed)
        for m, part in zip(members, split, strict=True)
    ]
