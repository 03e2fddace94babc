"""Instruments: what tells the group and the class of an image. They measure; what they say decides
about a pool only through the filters `expert` and `random-cell`.

One *measuring network*, fitted once per data set to most of the instruments, tells the cell of an
image: its class and, where the pixels do not show it exactly (`Dataset.probe`), its group. As
*oracle* it tells classes, to see whether a generated image shows what it was told; as *probe* it
tells groups, and its confusion with the true groups on test images is kept beside every share; its
features say how far generated images are from real ones. Batches are compared with other
instruments, to which nothing is fitted. The *expert* filters, and measures nothing.
"""

import logging
from typing import Any

import numpy as np

from ..core.context import Context
from ..core.registry import CLASSIFIERS
from ..core.seeds import seed_for
from ..core.store import Lazy, Stage, Store, kind
from ..data.images import LabeledImages
from ..data.real import RealData
from ..experiment import AS_FOUND, Experiment
from ..measures.fitness import RELIABLE, Seen, Unseen, fitness
from ..measures.quality import NAMES, Sample, quality
from .filters import acceptance_rates
from .judges import ExactJudge, Extractor, FittedJudge, Judge, PartJudge, choices

log = logging.getLogger("biasstudy")

TELLS = {
    "oracle": "the oracle is right on %.2f of real images (%s, %s): what it says of generated ones "
    "tells little",
    "probe": "the probe is right on %.2f of real images (%s, %s): shares of groups are rough, also "
    "after correction",
}
CELLS = 6  # of which the accuracy on real images is told, the lowest first
_examined: set[tuple[str, str]] = set()  # oracle and probe in this process: told of once


@kind("instrument", keep=True)
def fit_instrument(
    context: Context,
    *,
    model: Any,
    options: dict,
    images: LabeledImages,
    answers: list[list[int]],
    seed: int,
) -> dict:
    """A fixed classifier, fitted to instruments: it gives answers[class][group] to an image."""
    table = np.array(answers)
    target = LabeledImages(images.images, table[images.label, images.group], images.group)
    state = model.target(**options).fit(target, int(table.max()) + 1, seed=seed, context=context)
    return {name: value.numpy() for name, value in state.items()}


@kind("telling", keep=True)
def tell(context: Context, *, by: Any, images: LabeledImages) -> dict:
    """What somebody says about images: class or group; (N,) int16, UNKNOWN where unclear."""
    return {"told": choices(by(context, images.images)).astype(np.int16)}


@kind("feature scale", keep=True)
def scale_of_features(context: Context, *, by: Any, images: LabeledImages) -> dict:
    """Root mean square of features: the kernel of KID is meant for features of about 1."""
    return {"scale": np.sqrt(np.mean(by(context, images.images).astype(np.float64) ** 2))}


@kind("features", keep=False, decode=lambda arrays: arrays["features"])
def features_of(context: Context, *, by: Any, images: LabeledImages) -> dict:
    """What the extractor sees in images; (N, d) float32, of mean square about 1 on real images."""
    return {"features": by(context, images.images)}


@kind("quality", keep=True)
def measure_quality(
    context: Context,
    *,
    real: np.ndarray,
    test: LabeledImages,
    fake: np.ndarray,
    batch: LabeledImages,
    probed: dict,
    train: np.ndarray,
    counts: list,
) -> dict:
    """The values of `quality` as arrays: metric (position in NAMES), value, n, label and group (-1:
    all)."""
    values = quality(
        Sample(real, test.label, test.group, test.unit),
        Sample(fake, batch.label, probed["told"]),
        train,
        counts=np.array(counts),
    )
    where = [[-1 if index is None else index for index in (v.label, v.group)] for _, v in values]
    return {
        "metric": np.array([NAMES.index(name) for name, _ in values]),
        "value": np.array([v.value for _, v in values]),
        "n": np.array([v.n for _, v in values]),
        "where": np.array(where),
    }


@kind("fitness", keep=True)
def measure_fitness(
    context: Context,
    *,
    batch: LabeledImages,
    start: LabeledImages,
    unseen: LabeledImages,
    oracle: dict,
    oracle_of_start: dict,
    probed: dict,
    probed_of_start: dict,
    features: np.ndarray | None,
    features_of_start: np.ndarray | None,
    features_of_unseen: np.ndarray | None,
    counts: list,
) -> dict:
    """The values of `fitness` and their n, in the order of CRITERIA."""
    values = fitness(
        Seen(batch.images, batch.label, oracle["told"], probed["told"], features),
        Seen(
            start.images,
            start.label,
            oracle_of_start["told"],
            probed_of_start["told"],
            features_of_start,
        ),
        Unseen(unseen.images, unseen.label, unseen.group, unseen.unit, features_of_unseen),
        np.array(counts),
    )
    return {
        "value": np.array([v.value for v in values.values()]),
        "n": np.array([v.n for v in values.values()]),
    }


@kind("acceptance", keep=True)
def measure_acceptance(context: Context, *, decided: dict, groups: dict, shape: list[int]) -> dict:
    """How often a filter accepted images of each class and probed group; (n_classes, n_groups +
    1)."""
    return {
        "rates": acceptance_rates(decided["label"], groups["told"], decided["accepted"], *shape)
    }


class Instruments:
    """The measuring devices of an experiment, as lazy stages."""

    def __init__(self, e: Experiment, real: RealData, store: Store) -> None:
        self.e, self.real, self.store, self.dataset = e, real, store, real.dataset
        self.model, self.options = CLASSIFIERS[e.instrument], e.prepared("instrument")

    def fitted(self, purpose: str) -> FittedJudge:
        """The classifier that is fitted to the instruments of a purpose: "expert" tells classes,
        "measuring" what `answers` says."""
        of_classes = np.repeat(np.arange(self.dataset.n_classes)[:, None], self.dataset.n_groups, 1)
        answers = of_classes if purpose == "expert" else self.answers
        state = self.store.stage(
            fit_instrument,
            model=self.model,
            options=self.options,
            images=self.real.instruments[purpose],
            answers=answers.tolist(),
            seed=seed_for("instrument", purpose),
        )
        return FittedJudge(self.model, self.options, state)

    @property
    def answers(self) -> np.ndarray:
        """What the measuring network answers to each class and group: the class where the pixels
        show the group exactly, else the cell, those that occur counted; (n_classes, n_groups) int,
        -1 where the group does not occur."""
        occurs = self.dataset.occurs
        if self.dataset.probe:
            return np.where(occurs, np.arange(len(occurs))[:, None], -1)
        return np.where(occurs, np.cumsum(occurs).reshape(occurs.shape) - 1, -1)

    def teller(self, of: str) -> Judge:
        """The measuring network as a judge of what is asked, "label" or "group"."""
        axis = ("label", "group").index(of)
        fitted, answers = self.fitted("measuring"), self.answers
        cells = np.argwhere(answers >= 0)
        position = np.zeros(answers.max() + 1, np.int64)
        position[answers[tuple(cells.T)]] = cells[:, axis]
        return PartJudge(fitted, tuple(position.tolist()))

    @property
    def prober(self) -> Judge:
        """Who tells groups."""
        if self.dataset.probe:
            options = self.e.dataset_entry.resolve(self.e.dataset_options)
            return ExactJudge(self.e.dataset_entry, options, self.dataset.probe)
        return self.teller("group")

    def oracle(self, images: Lazy) -> Stage:
        """Class of each image, as a classifier of real instruments sees it."""
        return self.store.stage(tell, by=self.teller("label"), images=images)

    def probe(self, images: Lazy) -> Stage:
        """Group of each image."""
        return self.store.stage(tell, by=self.prober, images=images)

    @property
    def errors_of_probe(self) -> Stage | None:
        """What the probe says of test images, whose groups are known; None if it does not err."""
        return None if self.dataset.probe else self.probe(self.real.test)

    def warn(self, compute: bool) -> None:
        """Say so if an instrument is often wrong on real images to which it was not fitted; of a
        start as found also how often it is right in every cell.

        compute   whether to find out where this is not stored
        """
        unseen = self.real.instruments["comparison"]
        said = {"oracle": self.oracle(unseen), "probe": self.probe(unseen)}
        if not compute and not all(map(self.store.has, said.values())):
            return
        told = {who: stage.load()["told"] for who, stage in said.items()}
        which = (said["oracle"].id, said["probe"].id)
        if which in _examined:
            return
        _examined.add(which)
        known = unseen.load()
        truth = {"oracle": known.label, "probe": known.group}
        for who, answers in told.items():
            accuracy = float(np.mean(answers == truth[who]))
            if accuracy < RELIABLE:
                log.warning(TELLS[who], accuracy, self.e.instrument, self.e.dataset)
        if self.e.start == AS_FOUND:
            right = {who: answers == truth[who] for who, answers in told.items()}
            log.warning("%s", self._by_cell(known, right))

    def _by_cell(self, known: LabeledImages, right: dict[str, np.ndarray]) -> str:
        """How often oracle and probe are right on real images of each cell, in a sentence."""
        cells = []
        for k, g in np.argwhere(self.dataset.occurs):
            of_cell = (known.label == k) & (known.group == g)
            rates = [float(answers[of_cell].mean()) for answers in right.values() if of_cell.any()]
            name = f"{self.dataset.classes[k]}, {self.dataset.groups[g]}"
            told = " and ".join(f"{rate:.2f}" for rate in rates)
            n = int(of_cell.sum())
            cells.append(
                (min(rates, default=0.0), f"{name} {told} of {n}" if n else f"{name} none")
            )
        lowest = [text for _, text in sorted(cells)[:CELLS]]
        more = f" (the lowest of {len(cells)})" if len(cells) > CELLS else ""
        return f"oracle and probe are right on real images{more}: {'; '.join(lowest)}"

    @property
    def extractor(self) -> Extractor | None:
        """Features of the measuring network, of mean square about 1 on real images; None if the
        instrument is a model without features."""
        if not self.model.traits.get("features"):
            return None
        raw = Extractor(self.fitted("measuring"))
        unseen = self.real.instruments["comparison"]
        return Extractor(raw.fitted, self.store.stage(scale_of_features, by=raw, images=unseen))

    def quality(self, batch: Stage, probed: Stage, pool: Lazy) -> Stage | None:
        """Quality of a batch against real test images, and against the pool for copies; None if the
        instrument is a model without features."""
        if not (by := self.extractor):
            return None
        real, fake, train = (
            self.store.stage(features_of, by=by, images=images)
            for images in (self.real.test, batch, pool)
        )
        return self.store.stage(
            measure_quality,
            real=real,
            test=self.real.test,
            fake=fake,
            batch=batch,
            probed=probed,
            train=train,
            counts=self.real.counts.tolist(),
        )

    def fitness(self, batch: Lazy, oracle: Stage, probed: Stage) -> Stage:
        """Whether a batch of generated images deserves a verdict, beside real images of the
        start."""
        start, unseen, by = self.real.start, self.real.instruments["comparison"], self.extractor
        features, of_start, of_unseen = (
            self.store.stage(features_of, by=by, images=images) if by else None
            for images in (batch, start, unseen)
        )
        return self.store.stage(
            measure_fitness,
            batch=batch,
            start=start,
            unseen=unseen,
            oracle=oracle,
            oracle_of_start=self.oracle(start),
            probed=probed,
            probed_of_start=self.probe(start),
            features=features,
            features_of_start=of_start,
            features_of_unseen=of_unseen,
            counts=self.real.counts.tolist(),
        )
