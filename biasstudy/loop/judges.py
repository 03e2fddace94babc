"""Judges: who says something about images. Each is an input of stages, named by how it was made,
and loads as a function.

A filter asks one whether a candidate is good enough, an instrument which class or group an image
shows. They load as (context, images (N, C, H, W) uint8, label (N,) int) -> an array with one row
per image; those that do not look at the label ignore it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..core.context import Context
from ..core.registry import Entry
from ..core.seeds import digest
from ..core.store import Lazy, Stage
from ..models.answers import check_probabilities
from .stages import in_steps, tensors


class Judge(Lazy, Protocol):
    """Something that loads as a function of context, images and told classes."""

    def load(self) -> Callable[..., np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class FittedJudge:
    """A fitted classifier: says probabilities, (N, n) float."""

    model: Entry
    options: dict[str, Any]
    state: Stage

    @property
    def inputs(self) -> dict[str, Any]:
        return {"state": self.state}

    @property
    def id(self) -> str:
        return digest([self.model.name, self.model.identity, self.options, self.state.id])

    def load(self) -> Callable[..., np.ndarray]:
        model, state = self.model.target(**self.options), tensors(self.state.load())

        def probabilities(context: Context, images: np.ndarray, *_: Any) -> np.ndarray:
            said = model.predict(state, images, context=context)
            return check_probabilities(self.model, said, len(images))

        return probabilities


@dataclass(frozen=True, eq=False)
class PartJudge:
    """A part of what a fitted classifier tells, its class or its group: says the probability of
    each, (N, n) float, that of the answers that have it together.

    part   class or group of each answer of the classifier
    """

    fitted: FittedJudge
    part: tuple[int, ...]

    @property
    def inputs(self) -> dict[str, Any]:
        return {"fitted": self.fitted}

    @property
    def id(self) -> str:
        return digest(["part", self.fitted.id, list(self.part)])

    def load(self) -> Callable[..., np.ndarray]:
        by, part = self.fitted.load(), np.eye(max(self.part) + 1)[list(self.part)]
        return lambda context, images, *_: by(context, images) @ part


@dataclass(frozen=True, eq=False)
class ExactJudge:
    """The exact probe of a data set: says groups, (N,) int, UNKNOWN where unclear."""

    dataset: Entry
    options: dict[str, Any]
    probe: Callable[[np.ndarray], np.ndarray]

    @property
    def inputs(self) -> dict[str, Any]:
        return {}

    @property
    def id(self) -> str:
        return digest([self.dataset.name, self.dataset.identity, self.options])

    def load(self) -> Callable[..., np.ndarray]:
        return lambda context, images, *_: self.probe(images)


@dataclass(frozen=True, eq=False)
class RatesJudge:
    """Rates at which to keep images, by class and probed group: says the rate of each, (N,)
    float."""

    rates: Stage
    probe: Judge

    @property
    def inputs(self) -> dict[str, Any]:
        return {"rates": self.rates, "probe": self.probe}

    @property
    def id(self) -> str:
        return digest([self.rates.id, self.probe.id])

    def load(self) -> Callable[..., np.ndarray]:
        rates, probe = self.rates.load()["rates"], self.probe.load()

        def rate_of_each(context: Context, images: np.ndarray, label: np.ndarray) -> np.ndarray:
            return rates[label, choices(probe(context, images))]

        return rate_of_each


@dataclass(frozen=True, eq=False)
class RanksJudge:
    """A fitted classifier that compares: says which share of a trial batch told the same class is
    less confident of it than the image, and which is no more confident; (N, 2) float."""

    by: FittedJudge
    trial: Stage  # confidences of the trial batch

    @property
    def inputs(self) -> dict[str, Any]:
        return {"by": self.by, "trial": self.trial}

    @property
    def id(self) -> str:
        return digest(["ranks", self.by.id, self.trial.id])

    def load(self) -> Callable[..., np.ndarray]:
        probability_of, trial = self.by.load(), self.trial.load()

        def ranks(context: Context, images: np.ndarray, label: np.ndarray) -> np.ndarray:
            said = in_steps(probability_of(context, images)[np.arange(len(label)), label])
            places = np.empty((len(label), 2))
            for k in np.unique(label):
                known, own = np.sort(trial["confidence"][trial["label"] == k]), said[label == k]
                places[label == k, 0] = np.searchsorted(known, own, "left") / len(known)
                places[label == k, 1] = np.searchsorted(known, own, "right") / len(known)
            return places

        return ranks


@dataclass(frozen=True, eq=False)
class Extractor:
    """Features of a fitted classifier, divided by a scale: (N, d) float32."""

    fitted: FittedJudge
    scale: Stage | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        return {"fitted": self.fitted, "scale": self.scale}

    @property
    def id(self) -> str:
        return digest(["features", self.fitted.id, self.scale and self.scale.id])

    def load(self) -> Callable[..., np.ndarray]:
        model = self.fitted.model.target(**self.fitted.options)
        state = tensors(self.fitted.state.load())
        scale = np.float32(self.scale.load()["scale"] if self.scale else 1)
        return lambda context, images, *_: model.features(state, images, context=context) / scale


def choices(said: np.ndarray) -> np.ndarray:
    """What a judge of classes or groups decides for: the most probable one where it says
    probabilities; (N,) int."""
    return said if said.ndim == 1 else said.argmax(1)
