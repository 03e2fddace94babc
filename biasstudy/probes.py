"""Instruments: what tells the group and the class of an image. They measure; nothing they say enters a pool.

The *probe* tells groups: exactly from the pixels where nature allows (`Source.probe`), else by a classifier fitted to
instruments, whose confusion with the true groups on test images is kept beside every share. The *oracle* tells classes,
to see whether a generated image shows what it was told. Both are fitted once per data set, whatever the seed.
"""

from typing import Any

import numpy as np

from .data import LabeledImages
from .drawing import source_of
from .experiment import CLASSIFIERS, Experiment, seed_for
from .store import Stage, Store, kind
from .training import Context


@kind("instrument", keep=True)
def fit_instrument(context: Context, *, model: Any, options: dict, images: LabeledImages, tells: str, n: int,
                   seed: int) -> dict:
    """A fixed classifier of `tells` ("label" or "group"), fitted to instruments."""
    target = LabeledImages(images.images, getattr(images, tells), images.group)
    state = model.target(**options).fit(target, n, seed=seed, context=context)
    return {name: value.numpy() for name, value in state.items()}


@kind("telling", keep=True)
def tell(context: Context, *, model: Any, options: dict, state: dict, images: LabeledImages) -> dict:
    """What an instrument says about images; (N,) int16."""
    return {"told": predicted(context, model, options, state, images.images)[0].astype(np.int16)}


@kind("color", keep=True)
def tell_exactly(context: Context, *, dataset: Any, options: dict, images: LabeledImages, probe: Any) -> dict:
    """What the data set's own exact probe says about images; (N,) int16, UNKNOWN where unclear."""
    return {"told": probe(images.images).astype(np.int16)}


def predicted(context: Context, model: Any, options: dict, state: dict, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted class (N,) int64 of a stored classifier and the probability it gives to it (N,) float32."""
    import torch
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    probability = model.target(**options).predict(tensors, images, context=context)
    return probability.argmax(1), probability.max(1)


class Instruments:
    """The measuring devices of an experiment, as lazy stages: oracle(images) and probe(images)."""

    def __init__(self, e: Experiment, real: Any, store: Store) -> None:
        self.e, self.real, self.store, self.source = e, real, store, source_of(e)
        self.model, self.options = CLASSIFIERS[e.instrument], e.resolved("instrument")

    def _fitted(self, purpose: str, tells: str, n: int) -> Stage:
        return self.store.stage(fit_instrument, model=self.model, options=self.options, images=self.real.instruments[purpose],
                                tells=tells, n=n, seed=seed_for("instrument", purpose))

    def _told(self, purpose: str, tells: str, n: int, images: Any) -> Stage:
        fitted = self._fitted(purpose, tells, n)
        return self.store.stage(tell, model=self.model, options=self.options, state=fitted, images=images)

    def oracle(self, images: Any) -> Stage:
        """Class of each image, as a classifier of real instruments sees it."""
        return self._told("oracle", "label", self.source.n_classes, images)

    def probe(self, images: Any) -> Stage:
        """Group of each image."""
        if self.source.probe:
            return self.store.stage(tell_exactly, dataset=self.e.dataset_entry, images=images, probe=_Exact(self.source),
                                    options=self.e.dataset_entry.resolve(self.e.dataset_options))
        return self._told("probe", "group", self.source.n_groups, images)


class _Exact:
    """The exact probe of a source as a stage input: its identity is the data set's."""

    def __init__(self, source: Any) -> None:
        self.id, self._probe = "exact", source.probe

    def load(self) -> Any:
        return self._probe


def confusion_counts(true: np.ndarray, told: np.ndarray, n_groups: int) -> np.ndarray:
    """Counts of images by true group (rows) and told group (columns; the last one: unclear); (n_groups, n_groups + 1)."""
    table = np.zeros((n_groups, n_groups + 1), np.int64)
    np.add.at(table, (true, np.where(told < 0, n_groups, told)), 1)
    return table
