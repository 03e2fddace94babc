"""The self-consuming loop: the method section of the study, top to bottom.

`generations` lists the stages of every generation without computing anything; `run` asks for the
ones whose values are kept, and the store computes what is missing. There is no resume logic:
running again is resuming.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.counts import largest_remainder
from ..core.registry import CLASSIFIERS, FILTERS, GENERATORS
from ..core.seeds import seed_for
from ..core.store import Stage, Store
from ..data.images import condition_of
from ..data.pools import Groups, Lazy, Pool
from ..data.real import SPARE, RealData
from ..experiment import PROTOCOLS, Experiment
from .clip import Clip
from .decomposition import real_with_noise, real_with_shares, thinning
from .instruments import Fitted, Instruments, Rates, acceptance, tell
from .stages import (
    Conditions,
    accepted_batch,
    decisions,
    draw_balanced,
    fit_classifier,
    fit_generator,
    measure_spurious,
    predict,
    relabel,
    sample_batch,
    sample_candidates,
    sample_grid,
)

GRID = 8  # images per class kept from every generator, made from equal noise in every generation
# times the quota that a filter may look at, unless it asks for more; of real images 1 + SPARE times
TRIES = 5.0


# ---- The loop ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generation:
    """Stages of one generation; `batch` and what follows from it are None in the last one and where
    nothing is added."""

    t: int
    pool: Pool
    predictions: list[Stage]
    spurious: list[Stage]  # none where test images have no masks
    batch: Stage | None = None
    # what instruments and filter say of the batch; the sample grid
    kept: dict[str, Stage] = field(default_factory=dict)

    def results(self) -> list[Stage]:
        """Stages whose values are kept for good."""
        drawn = [index for _, index in self.pool.parts if isinstance(index, Stage)]
        return [*drawn, *self.predictions, *self.spurious, *self.kept.values()]


@dataclass(frozen=True)
class Addition:
    """Images that one generation adds, and the condition that each was told."""

    images: Lazy
    told: np.ndarray
    index: np.ndarray | None = None
    said: Stage | None = None  # by the probe, of their groups; None: the data say


def generations(e: Experiment, real: RealData, store: Store) -> Iterator[Generation]:
    """The generations of an experiment, t = 0, 1, ..., n_generations."""
    tell_about = Instruments(e, real, store)
    classifier: dict[str, Any] = {
        "model": CLASSIFIERS[e.classifier],
        "options": e.prepared("classifier"),
    }
    generator = {"model": GENERATORS[e.generator], "options": e.prepared("generator", real.dataset)}
    filter = {"filter": FILTERS[e.filter], "filter_options": e.prepared("filter", real.dataset)}
    told = Conditions(
        tuple(np.bincount(real.told).tolist()), e.n_fresh, e.condition, real.dataset.n_groups
    )
    imitated = e.reference()
    paired = list(generations(imitated, real, store)) if imitated else []
    additions: list[list[Addition]] = []
    state: Stage | None = None
    classifiers: list[Stage] = []
    learned = tell_about.fitted("expert").state if e.pretraining == "expert" else None
    first: Fitted | None = None

    for t in range(e.n_generations + 1):
        pool = part_of_start(e, real, t) if e.part(t) < 1 else pool_of(e, real, additions, store)

        before = (
            classifiers if e.warm("classifier") and classifiers else [learned] * e.n_classifiers
        )
        classifiers = [
            store.stage(
                fit_classifier,
                **classifier,
                pool=pool,
                n_classes=real.dataset.n_classes,
                previous=before[r],
                seed=seed_for(e.seed, "classifier", t, r),
            )
            for r in range(e.n_classifiers)
        ]
        fitted = [Fitted(**classifier, state=weights) for weights in classifiers]
        first = first or fitted[0]
        predictions = [store.stage(predict, by=by, images=real.test) for by in fitted]
        spurious = [
            store.stage(measure_spurious, by=by, images=real.test)
            for by in fitted
            if real.dataset.test.mask is not None
        ]

        if t == e.n_generations or e.n_batch == 0:
            yield Generation(t, pool, predictions, spurious)
            continue

        needs_reserve = e.generator == "reserve" or e.n_fresh > 0
        reserve = real.reserve(t) if needs_reserve else None
        state = store.stage(
            fit_generator,
            **generator,
            pool=pool,
            condition=e.condition,
            n_groups=real.dataset.n_groups,
            reserve=reserve if e.generator == "reserve" else None,
            previous=state if e.warm("generator") else None,
            seed=seed_for(e.seed, "generator", t),
        )

        sampling = {
            **generator,
            "state": state,
            "told": told,
            "origin": t,
            "seed": seed_for(e.seed, "batch", t),
        }
        if e.imitate != "nothing":
            batch, kept = (
                imitation(e, real, t, told, paired[t], tell_about, store),
                dict[str, Stage](),
            )
        elif e.filter == "none":
            batch, kept = store.stage(sample_batch, **sampling), {}
        else:
            judge = judge_of(
                filter, tell_about, fitted[0], first, paired[t] if paired else None, sampling
            )
            batch, kept = filtered(e, {**sampling, **filter, "judge": judge}, tell_about, store)

        kept |= {"oracle": tell_about.oracle(batch), "probe": tell_about.probe(batch)}
        if quality := tell_about.quality(batch, kept["probe"], pool):
            kept["quality"] = quality
        if e.labels == "classifier":
            kept["seen"] = store.stage(tell, by=fitted[0], images=batch)
        if e.arm == "generated":
            kept["grid"] = store.stage(
                sample_grid,
                **generator,
                state=state,
                told=grid_told(e, real),
                seed=seed_for(e.seed, "grid"),
            )
        trained = store.stage(relabel, batch=batch, seen=kept["seen"]) if "seen" in kept else batch
        additions.append([Addition(trained, real.told[e.n_fresh :], said=kept["probe"])])
        if reserve is not None and e.n_fresh:
            additions[-1].insert(0, Addition(reserve, real.told[: e.n_fresh], np.arange(e.n_fresh)))
        yield Generation(t, pool, predictions, spurious, batch, kept)


def pool_of(e: Experiment, real: RealData, additions: list[list[Addition]], store: Store) -> Pool:
    """Training set of the next generation: what the protocol keeps of the start and of what was
    added so far."""
    protocol = PROTOCOLS[e.protocol]
    told = (
        condition_of(real.start.load(), e.condition, real.dataset.n_groups)
        if protocol.drawn
        else np.empty(0, np.int64)
    )
    kept = [Addition(real.start, told)] if protocol.start or not additions else []
    kept += [
        part
        for added in (additions if protocol.batches == "all" else additions[-1:])
        for part in added
    ]
    if protocol.drawn and additions:
        kept = drawn_without_replacement(
            kept, np.bincount(told), seed_for(e.seed, "subsample", len(additions))
        )
    pool = Pool(tuple((part.images, part.index) for part in kept))
    if protocol.balanced and additions:
        groups, counts = (
            Groups(tuple((part.images, part.said) for part in kept)),
            real.counts.sum(1).tolist(),
        )
        index = store.stage(
            draw_balanced,
            pool=pool,
            groups=groups,
            counts=counts,
            n_groups=real.dataset.n_groups,
            seed=seed_for(e.seed, "balanced", len(additions)),
        )
        pool = Pool(((pool, index),))
    return pool


def part_of_start(e: Experiment, real: RealData, t: int) -> Pool:
    """Training set of the arm `fewer`: e.part(t) of the start, its class x group shares kept by
    largest remainder."""
    start, counts = real.start.load(), real.counts
    kept = largest_remainder(counts.ravel(), round(e.part(t) * len(start)))
    # a smaller part lies within a larger
    order = np.random.default_rng(seed_for(e.seed, "fewer")).permutation(len(start))
    cell = (start.label * counts.shape[1] + start.group)[order]
    chosen = np.concatenate([order[cell == c][:n] for c, n in enumerate(kept)])
    return Pool(((real.start, np.sort(chosen)),))


def drawn_without_replacement(
    parts: list[Addition], counts: np.ndarray, seed: int
) -> list[Addition]:
    """counts[c] images of each told condition c, uniformly from all parts together."""
    rng, told = np.random.default_rng(seed), np.concatenate([part.told for part in parts])
    chosen = np.zeros(len(told), bool)
    for c, n in enumerate(counts):
        chosen[rng.permutation(np.flatnonzero(told == c))[:n]] = True
    split = np.split(chosen, np.cumsum([len(part.told) for part in parts])[:-1])
    return [
        Addition(part.images, part.told[mine], np.flatnonzero(mine))
        for part, mine in zip(parts, split, strict=True)
    ]


def imitation(
    e: Experiment,
    real: RealData,
    t: int,
    told: Conditions,
    paired: Generation,
    tell_about: Instruments,
    store: Store,
) -> Stage:
    """Real images in place of generation t's batch, which copy the shares or the label errors of
    the paired run's batch."""
    same = {
        "shelf": real.shelf(t),
        "copied": paired.batch,
        "told": told,
        "test": real.test,
        "counts": real.counts.tolist(),
        "origin": t,
    }
    said = paired.kept["probe"]
    if e.imitate == "shares":
        return store.stage(
            real_with_shares,
            **same,
            said=said,
            said_of_test=tell_about.errors_of_probe,
            favoured=real.favoured.tolist(),
        )
    crossed = real.dataset.design == "crossed"
    return store.stage(
        real_with_noise,
        **same,
        seen=paired.kept["oracle"],
        said=said if crossed else None,
        seen_of_test=tell_about.oracle(real.test),
    )


def judge_of(
    filter: dict[str, Any],
    tell_about: Instruments,
    own: Fitted,
    first: Fitted,
    paired: Generation | None,
    sampling: dict[str, Any],
) -> Fitted | Rates | Clip | None:
    """Whom the filter asks about each candidate: see the trait `judge` in `filters`."""
    judge, store, real = filter["filter"].traits.get("judge"), tell_about.store, tell_about.real
    if judge == "clip":
        return Clip(**filter).with_bar(store, sampling, real.dataset.n_classes)
    if judge == "start":
        trial = store.stage(sample_batch, **sampling)
        rates = store.stage(
            thinning,
            batch=trial,
            said=tell_about.probe(trial),
            test=real.test,
            counts=real.counts.tolist(),
            said_of_test=tell_about.errors_of_probe,
            favoured=real.favoured.tolist(),
        )
        return Rates(rates, tell_about.prober)
    if judge == "rates":
        assert paired, "the filter imitates no other"
        rates = store.stage(
            acceptance,
            decided=paired.kept["decisions"],
            groups=paired.kept["groups"],
            shape=list(real.counts.shape),
        )
        return Rates(rates, tell_about.prober)
    return {"own": own, "first": first, "expert": tell_about.fitted("expert"), None: None}[judge]


def tries_of(e: Experiment) -> float:
    """Times its quota that the filter of an experiment may look at."""
    return 1 + SPARE if e.generator == "reserve" else FILTERS[e.filter].traits.get("tries", TRIES)


def filtered(
    e: Experiment, sampling: dict[str, Any], tell_about: Instruments, store: Store
) -> tuple[Stage, dict[str, Stage]]:
    """The batch of accepted images; the decisions about all candidates and their probed groups."""
    candidates = store.stage(
        sample_candidates, **sampling, tries=tries_of(e), shortfall=e.shortfall
    )
    batch = store.stage(
        accepted_batch, candidates=candidates, told=sampling["told"], origin=sampling["origin"]
    )
    return batch, {
        "decisions": store.stage(decisions, candidates=candidates, told=sampling["told"]),
        "groups": tell_about.probe(candidates),
    }


def grid_told(e: Experiment, real: RealData) -> list[int]:
    """Conditions of the sample grid: GRID images of each class, groups in turn where the generator
    is told them."""
    if e.condition == "class":
        return np.repeat(np.arange(real.dataset.n_classes), GRID).tolist()
    rows = [np.resize(np.flatnonzero(row), GRID) for row in real.counts]
    return [k * real.dataset.n_groups + int(g) for k, row in enumerate(rows) for g in row]
