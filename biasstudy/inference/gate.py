"""The gate: which generators deserve a verdict.

The fitness of generation 0, whose generator saw real images only, says whether the model is worth
asking. What becomes of it in later generations is a result: a verdict says "with fit images
throughout" or "while its images decayed".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..measures.fitness import CRITERIA, misses
from ..measures.quality import NAMES

FIT, UNFIT, UNKNOWN = "fit", "unfit", "fitness not measured"
NO_FIT = "no fit generator"
_UNMEASURED = dict.fromkeys(CRITERIA, float("nan"))


@dataclass(frozen=True)
class Gate:
    """Fitness of the generators of one setting.

    values   a mapping per generation, the last has none: criterion -> mean over seeds; nan: not
             measured
    """

    values: tuple[Mapping[str, float], ...]

    @property
    def missed(self) -> list[str]:
        """Criteria that generation 0 does not meet."""
        return misses(self.values[0])

    @property
    def word(self) -> str:
        """FIT, UNFIT, or UNKNOWN where nothing is known of the images of generation 0."""
        if all(np.isnan(value) for value in self.values[0].values()):
            return UNKNOWN
        return UNFIT if self.missed else FIT

    @property
    def decayed(self) -> list[str]:
        """Criteria that generation 0 meets and a later one does not."""
        later = {name for values in self.values[1:] for name in misses(values)}
        return [name for name in CRITERIA if name in later and name not in self.missed]

    def __str__(self) -> str:
        """For a sentence: what a verdict rests on."""
        if self.word == UNKNOWN:
            return UNKNOWN
        first = self.values[0]
        if self.missed:
            named = ", ".join(f"{name} {first[name]:.2f} {wanted(name)}" for name in self.missed)
            return f"of an unfit generator ({named})"
        unknown = [name for name in CRITERIA if np.isnan(first[name])]
        unmeasured = f", {' and '.join(unknown)} not measured" if unknown else ""
        if not self.decayed:
            return f"with fit images throughout{unmeasured}"
        last = self.values[-1]
        named = ", ".join(f"{name} {first[name]:.2f} to {last[name]:.2f}" for name in self.decayed)
        return f"while its images decayed ({named}){unmeasured}"


def wanted(name: str) -> str:
    """The bound of a criterion, for a sentence."""
    criterion = CRITERIA[name]
    return f"of at {'most' if criterion.most else 'least'} {criterion.bound:.2f}"


def gate(results: Any) -> Gate | None:
    """The fitness of the generators of one setting; None where nothing was generated.

    Of a loop elsewhere, which shows predictions alone, nothing is known: UNKNOWN.
    Results that were stored before fitness was measured have it pieced together from what they
    keep: see `_pieced`.
    """
    generated = results.of("generated")
    if not generated:
        return None
    if not generated[0].batches:
        return Gate((_UNMEASURED,))
    real = results.of("real")
    return Gate(
        tuple(
            _measured(generated, t) if generated[0].fitness else _pieced(generated, real, t)
            for t in range(len(generated[0].batches))
        )
    )


def _measured(generated: Sequence[Any], t: int) -> dict[str, float]:
    mean = np.mean([o.fitness[t]["value"] for o in generated], axis=0)
    return dict(zip(CRITERIA, map(float, mean), strict=True))


def _pieced(generated: Sequence[Any], real: Sequence[Any], t: int) -> dict[str, float]:
    """Criteria that can be told of results without measured fitness: batches beside those of the
    arm `real`, features of test images. Spread and copied windows cannot: pixels are not kept."""
    if not real or not real[0].batches:
        return _UNMEASURED

    def beside(of: Any) -> float:
        possible = np.mean([of(o, 0) for o in real])
        return float(np.mean([of(o, t) for o in generated]) / possible)

    known = {
        "oracle": float(np.mean([_told_right(o, 0) for o in real])),
        "agreement": beside(_told_right),
        "clarity": beside(lambda o, t: np.mean(o.batches[t]["group"] >= 0)),
    }
    if generated[0].quality:
        for name in ("recall", "density", "coverage"):
            known[name] = beside(lambda o, t, name=name: _quality(o, t, name))
        known["image-copies"] = float(np.mean([_quality(o, t, "copied-share") for o in generated]))
    return _UNMEASURED | known


def _told_right(o: Any, t: int) -> float:
    return float(np.mean(o.batches[t]["oracle"] == o.batches[t]["label"]))


def _quality(o: Any, t: int, name: str) -> float:
    """A measure of all images of a batch."""
    measured = o.quality[t]
    whole = (measured["metric"] == NAMES.index(name)) & (measured["where"] < 0).all(1)
    return float(measured["value"][whole][0])
