"""Instruments: what tells the group and the class of an image. They measure; what they say decides
about a pool only through the filters `expert` and `random-cell`.

The *probe* tells groups: exactly from the pixels where nature allows (`Dataset.probe`), else by a
classifier fitted to instruments, whose confusion with the true groups on test images is kept beside
every share. The *oracle* tells classes, to see whether a generated image shows what it was told;
the *extractor* gives the features in which quality is measured. All are fitted once per data set,
whatever the seed, on disjoint instruments. The *expert* filters, and measures nothing.
"""

from typing import Any

import numpy as np

from ..core.context import Context
from ..core.registry import CLASSIFIERS
from ..core.seeds import seed_for
from ..core.store import Lazy, Stage, Store, kind
from ..data.images import LabeledImages
from ..data.real import RealData
from ..experiment import Experiment
from ..measures.quality import NAMES, Sample, quality
from .filters import acceptance_rates
from .judges import ExactJudge, Extractor, FittedJudge, Judge, choices


@kind("instrument", keep=True)
def fit_instrument(
    context: Context,
    *,
    model: Any,
    options: dict,
    images: LabeledImages,
    tells: str,
    n: int,
    seed: int,
) -> dict:
    """A fixed classifier of `tells` ("label" or "group"), fitted to instruments."""
    target = LabeledImages(images.images, getattr(images, tells), images.group)
    state = model.target(**options).fit(target, n, seed=seed, context=context)
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
        """The classifier of groups ("probe") or of classes ("oracle", "expert", "extractor") fitted
        to its instruments."""
        tells, n = "label", self.dataset.n_classes
        if purpose == "probe":
            tells, n = "group", self.dataset.n_groups
        state = self.store.stage(
            fit_instrument,
            model=self.model,
            options=self.options,
            tells=tells,
            n=n,
            images=self.real.instruments[purpose],
            seed=seed_for("instrument", purpose),
        )
        return FittedJudge(self.model, self.options, state)

    @property
    def prober(self) -> Judge:
        """Who tells groups."""
        if self.dataset.probe:
            options = self.e.dataset_entry.resolve(self.e.dataset_options)
            return ExactJudge(self.e.dataset_entry, options, self.dataset.probe)
        return self.fitted("probe")

    def oracle(self, images: Lazy) -> Stage:
        """Class of each image, as a classifier of real instruments sees it."""
        return self.store.stage(tell, by=self.fitted("oracle"), images=images)

    def probe(self, images: Lazy) -> Stage:
        """Group of each image."""
        return self.store.stage(tell, by=self.prober, images=images)

    @property
    def errors_of_probe(self) -> Stage | None:
        """What the probe says of test images, whose groups are known; None if it does not err."""
        return None if self.dataset.probe else self.probe(self.real.test)

    def quality(self, batch: Stage, probed: Stage, pool: Lazy) -> Stage | None:
        """Quality of a batch against real test images, and against the pool for copies; None if the
        instrument is a model without features."""
        if not self.model.traits.get("features"):
            return None
        raw = Extractor(self.fitted("extractor"))
        of_extractor = self.real.instruments["extractor"]
        scale = self.store.stage(scale_of_features, by=raw, images=of_extractor)
        by = Extractor(raw.fitted, scale)
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
