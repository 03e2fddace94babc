"""The training set of each generation: what a protocol keeps of the start and of the batches."""

from collections.abc import Sequence

import numpy as np

from ..core.counts import largest_remainder
from ..core.seeds import seed_for
from ..core.store import Store
from ..data.conditions import condition_of
from ..data.pools import Groups, Member, Pool
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
    if e.part(t) < 1:
        return part_of_start(e, real, t)
    protocol = PROTOCOLS[e.protocol]
    start = Member(real.start, "start")
    if protocol.drawn:
        told = condition_of(real.start.load(), e.condition, real.dataset.n_groups)
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


def part_of_start(e: Experiment, real: RealData, t: int) -> Pool:
    """Training set of the arm `fewer`: e.part(t) of the start, its class x group shares kept by
    largest remainder."""
    start, counts = real.start.load(), real.counts
    kept = largest_remainder(counts.ravel(), round(e.part(t) * len(start)))
    # in one order for all generations, so that a smaller part lies within a larger
    order = np.random.default_rng(seed_for(e.seed, "fewer")).permutation(len(start))
    cell = (start.label * counts.shape[1] + start.group)[order]
    chosen = np.concatenate([order[cell == c][:n] for c, n in enumerate(kept)])
    return Pool((Member(real.start, "start", index=np.sort(chosen)),))


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
