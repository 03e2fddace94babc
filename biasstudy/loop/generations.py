"""The self-consuming loop: the method section of the study, top to bottom.

`generations` lists the stages of every generation without computing anything; `run` asks for the
ones whose values are kept, and the store computes what is missing. There is no resume logic:
running again is resuming.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.registry import CLASSIFIERS, FILTERS, GENERATORS
from ..core.seeds import seed_for
from ..core.store import Stage, Store
from ..data.pools import Member, Pool
from ..data.real import SPARE, RealData
from ..experiment import PROTOCOLS, Experiment
from .clip import ClipJudge
from .decomposition import real_with_noise, real_with_shares, thinning
from .instruments import Instruments, measure_acceptance, tell
from .judges import FittedJudge, Judge, RanksJudge, RatesJudge
from .protocols import training_set
from .stages import (
    accepted_batch,
    decisions,
    draw_served,
    fit_classifier,
    fit_generator,
    measure_spurious,
    predict,
    relabel,
    sample_batch,
    sample_candidates,
    sample_grid,
    told_confidence,
)

GRID = 8  # images per class kept from every generator, made from equal noise in every generation

# times the quota that a filter may look at, unless it asks for more; of real images 1 + SPARE times
TRIES = 5.0


@dataclass(frozen=True)
class Generation:
    """Stages of one generation. From `generator` on there is nothing in the last one, nor where
    nothing is added."""

    t: int
    pool: Pool
    classifiers: tuple[FittedJudge, ...]
    predictions: tuple[Stage, ...]  # of each classifier, on the test images
    spurious: tuple[Stage, ...]  # the same on masked objects; none where test images have no masks
    generator: Stage | None = None  # its weights
    batch: Stage | None = None  # images, labelled as the generator was told
    decisions: Stage | None = None  # of a filter, about all its candidates
    candidate_groups: Stage | None = None  # what the probe says of these
    oracle: Stage | None = None  # class that each image of the batch shows
    probed: Stage | None = None  # group that each image of the batch shows
    quality: Stage | None = None  # none where the instrument has no features
    fitness: Stage | None = None  # of generated images; none of images that a control adds
    seen: Stage | None = None  # classes by which a batch is relabelled
    grid: Stage | None = None  # a sample to look at
    added: tuple[Member, ...] = ()  # what enters later pools

    def results(self) -> list[Stage]:
        """Stages whose values are kept for good."""
        drawn = [member.index for member in self.pool.members if isinstance(member.index, Stage)]
        of_batch = (self.oracle, self.probed, self.quality, self.fitness, self.seen, self.grid)
        of_filter = (self.decisions, self.candidate_groups)
        of_all = (*drawn, *self.predictions, *self.spurious, *of_filter, *of_batch)
        return [stage for stage in of_all if stage is not None]


def results_of(turns: Iterable[Generation]) -> list[Stage]:
    """The stages of an experiment whose values are kept."""
    return [stage for now in turns for stage in now.results()]


# ---- The loop ------------------------------------------------------------------------------------


def generations(e: Experiment, real: RealData, store: Store) -> Iterator[Generation]:
    """The generations of an experiment, t = 0, 1, ..., n_generations.

    Each trains classifiers on its pool and measures them on the test images. All but the last then
    train a generator on the same pool; what it makes enters the pools of later generations.
    """
    instruments = Instruments(e, real, store)
    imitated = e.reference()
    paired = list(generations(imitated, real, store)) if imitated else []
    past: list[Generation] = []
    for t in range(e.n_generations + 1):
        pool = training_set(e, real, t, [generation.added for generation in past], store)
        classifiers = fit_classifiers(instruments, t, pool, past)
        now = Generation(t, pool, classifiers, *measured(instruments, classifiers))
        if t < e.n_generations and e.n_batch > 0:
            now = with_batch(instruments, now, past, paired[t] if paired else None)
            now = judged(instruments, now)
        past.append(now)
        yield now


def fit_classifiers(
    instruments: Instruments, t: int, pool: Pool, past: Sequence[Generation]
) -> tuple[FittedJudge, ...]:
    """The classifiers of generation t, each from its initial weights, those of the instrument
    `expert` (pretraining), or its own of the generation before (warm start)."""
    e, store = instruments.e, instruments.store
    model, options = CLASSIFIERS[e.classifier], e.prepared("classifier")
    if e.path == "shorter":  # a whole fit: its learning rate falls to zero over these steps
        options["steps"] = max(1, round(e.levels[t] * options["steps"]))
    learned = instruments.fitted("expert").state if e.pretraining == "expert" else None
    first_weights: list[Stage | None] = [learned] * e.n_classifiers
    if e.warm("classifier") and past:
        first_weights = [fitted.state for fitted in past[-1].classifiers]
    weights = [
        store.stage(
            fit_classifier,
            model=model,
            options=options,
            pool=pool,
            n_classes=instruments.dataset.n_classes,
            previous=previous,
            seed=seed_for(e.seed, "classifier", t, r),
        )
        for r, previous in enumerate(first_weights)
    ]
    return tuple(FittedJudge(model, options, state) for state in weights)


def measured(
    instruments: Instruments, classifiers: Sequence[FittedJudge]
) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """Predictions of the classifiers on the test images; where these have masks, also how they
    answer noise on and around the objects."""
    test, store = instruments.real.test, instruments.store
    predictions = [store.stage(predict, by=by, images=test) for by in classifiers]
    if instruments.dataset.test.mask is None:
        return tuple(predictions), ()
    return tuple(predictions), tuple(
        store.stage(measure_spurious, by=by, images=test) for by in classifiers
    )


def with_batch(
    instruments: Instruments,
    now: Generation,
    past: Sequence[Generation],
    partner: Generation | None,
) -> Generation:
    """The generation with its generator and the batch that this makes, filtered where the
    experiment asks for it; in arms that imitate, real images in its place.

    partner   the same generation of the run that this one copies from, if there is one
    """
    e, real, store = instruments.e, instruments.real, instruments.store
    generator = {"model": GENERATORS[e.generator], "options": e.prepared("generator", real.dataset)}
    weights = store.stage(
        fit_generator,
        **generator,
        pool=now.pool,
        condition=e.condition,
        n_groups=real.dataset.n_groups,
        reserve=real.reserve(now.t) if e.generator == "reserve" else None,
        previous=past[-1].generator if past and e.warm("generator") else None,
        seed=seed_for(e.seed, "generator", now.t),
    )
    sampling = {
        **generator,
        "state": weights,
        "told": real.conditions,
        "origin": now.t,
        "seed": seed_for(e.seed, "batch", now.t),
    }
    grid = None
    if e.arm == "generated":
        seed = seed_for(e.seed, "grid")
        grid = store.stage(
            sample_grid, **generator, state=weights, told=told_of_grid(e, real), seed=seed
        )
    now = replace(now, generator=weights, grid=grid)
    if partner and e.imitate != "nothing":
        return replace(now, batch=imitation(instruments, now.t, partner))
    if e.filter == "none":
        return replace(now, batch=store.stage(sample_batch, **sampling))
    return filtered(instruments, now, past, partner, sampling)


def judged(instruments: Instruments, now: Generation) -> Generation:
    """The generation with what the instruments say of its batch, and what of it enters later pools:
    fresh real images in front where the protocol asks for them, then the batch."""
    e, real, store = instruments.e, instruments.real, instruments.store
    assert now.batch is not None, "it was made in `with_batch`"
    oracle, probed = instruments.oracle(now.batch), instruments.probe(now.batch)
    seen, trained = None, now.batch
    if e.labels == "classifier":
        seen = store.stage(tell, by=now.classifiers[0], images=now.batch)
        trained = store.stage(relabel, batch=now.batch, seen=seen)
    told = real.conditions.of_batch
    added = [Member(trained, "batch", told[e.n_fresh :], probed=probed)]
    if e.n_fresh:
        added.insert(0, fresh_images(instruments, now))
    return replace(
        now,
        oracle=oracle,
        probed=probed,
        quality=instruments.quality(now.batch, probed, now.pool),
        fitness=instruments.fitness(now.batch, oracle, probed) if e.arm == "generated" else None,
        seen=seen,
        added=tuple(added),
    )


def fresh_images(instruments: Instruments, now: Generation) -> Member:
    """The real images at the front of what generation t adds: the first of its slice of the
    reserve, in the start's group shares or, where the protocol has feedback, in shares that follow
    how well this generation's classifier serves each class and group."""
    e, real, store = instruments.e, instruments.real, instruments.store
    told, usual = real.conditions.of_batch[: e.n_fresh], real.reserve(now.t)
    if not PROTOCOLS[e.protocol].feedback:
        return Member(usual, "reserve", told, np.arange(e.n_fresh))
    arrivals = real.arrivals(now.t)
    served = store.stage(
        draw_served,
        arrivals=arrivals,
        said=store.stage(predict, by=now.classifiers[0], images=arrivals),
        usual=usual,
        n_fresh=e.n_fresh,
        sensitivity=e.sensitivity,
    )
    return Member(arrivals, "reserve", told, served)


# ---- Batches that a filter lets through, and real images that imitate a batch --------------------


def filtered(
    instruments: Instruments,
    now: Generation,
    past: Sequence[Generation],
    partner: Generation | None,
    sampling: dict[str, Any],
) -> Generation:
    """The generation with the batch of images that its filter accepts, the decisions about all
    candidates, and their probed groups."""
    e, real, store = instruments.e, instruments.real, instruments.store
    filter = {"filter": FILTERS[e.filter], "filter_options": e.prepared("filter", real.dataset)}
    first = past[0] if past else now
    judge = judge_of(instruments, filter, now, first, partner, sampling)
    candidates = store.stage(
        sample_candidates,
        **sampling,
        **filter,
        judge=judge,
        tries=tries_of(e),
        shortfall=e.shortfall,
    )
    told = sampling["told"]
    return replace(
        now,
        batch=store.stage(accepted_batch, candidates=candidates, told=told, origin=now.t),
        decisions=store.stage(decisions, candidates=candidates, told=told),
        candidate_groups=instruments.probe(candidates),
    )


def judge_of(
    instruments: Instruments,
    filter: dict[str, Any],
    now: Generation,
    first: Generation,
    partner: Generation | None,
    sampling: dict[str, Any],
) -> Judge | None:
    """Whom the filter asks about each candidate: see the trait `judge` in `filters`."""
    real, store = instruments.real, instruments.store
    match filter["filter"].traits.get("judge"):
        case None:
            return None
        case "own":
            return now.classifiers[0]
        case "first":
            return first.classifiers[0]
        case "expert":
            return instruments.fitted("expert")
        case "ranks":
            trial = store.stage(sample_batch, **sampling)
            by = now.classifiers[0]
            return RanksJudge(by, store.stage(told_confidence, by=by, batch=trial))
        case "clip":
            return ClipJudge(**filter).with_bar(store, sampling, real.dataset.n_classes)
        case "start":
            trial = store.stage(sample_batch, **sampling)
            rates = store.stage(
                thinning,
                batch=trial,
                said=instruments.probe(trial),
                test=real.test,
                counts=real.counts.tolist(),
                said_of_test=instruments.errors_of_probe,
                favoured=real.favoured.tolist(),
            )
            return RatesJudge(rates, instruments.prober)
        case "rates":
            assert partner, "a filter that asks for rates imitates another"
            rates = store.stage(
                measure_acceptance,
                decided=partner.decisions,
                groups=partner.candidate_groups,
                shape=list(real.counts.shape),
            )
            return RatesJudge(rates, instruments.prober)
        case other:
            raise ValueError(f"filter {filter['filter'].name!r} asks an unknown judge {other!r}")


def tries_of(e: Experiment) -> float:
    """Times its quota that the filter of an experiment may look at."""
    return 1 + SPARE if e.generator == "reserve" else FILTERS[e.filter].traits.get("tries", TRIES)


def imitation(instruments: Instruments, t: int, partner: Generation) -> Stage:
    """Real images in place of generation t's batch, which copy the shares or the label errors of
    the paired run's batch."""
    e, real, store = instruments.e, instruments.real, instruments.store
    copied = {
        "shelf": real.shelf(t),
        "copied": partner.batch,
        "told": real.conditions,
        "test": real.test,
        "counts": real.counts.tolist(),
        "origin": t,
    }
    if e.imitate == "shares":
        return store.stage(
            real_with_shares,
            **copied,
            said=partner.probed,
            said_of_test=instruments.errors_of_probe,
            favoured=real.favoured.tolist(),
        )
    crossed = real.dataset.design == "crossed"
    return store.stage(
        real_with_noise,
        **copied,
        seen=partner.oracle,
        said=partner.probed if crossed else None,
        seen_of_test=instruments.oracle(real.test),
    )


def told_of_grid(e: Experiment, real: RealData) -> list[int]:
    """Conditions of the sample grid: GRID images of each class, groups in turn where the generator
    is told them."""
    if e.condition == "class":
        return np.repeat(np.arange(real.dataset.n_classes), GRID).tolist()
    rows = [np.resize(np.flatnonzero(row), GRID) for row in real.counts]
    return [k * real.dataset.n_groups + int(g) for k, row in enumerate(rows) for g in row]
