"""What stages will cost, before they are computed: from the times of stored stages of the same
recipe, else from a probe.

The probe runs an experiment with 5 and with 25 steps of every fit, one generation, few images, in a
temporary folder:

    seconds of a fit = fixed + steps x per step,   per step = (s_25 - s_5) / 20,   fixed = s_25 - 25
    per step seconds of what is done to each image of a batch = seconds of the probe x images /
    images of the probe
"""

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..core.seeds import digest
from ..core.store import slots
from ..experiment import Experiment

SAMPLE = 400  # stored stages of each kind that are looked at
STEPS = (5, 25)  # of every fit in the probe
IMAGES = 100  # in a batch of the probe, at most
PER_IMAGE = ("batch", "candidates", "filtered", "telling")
_SAYS = ("model", "options", "filter", "filter_options", "condition", "n_classes", "tries")


class Recipe(NamedTuple):
    """What stages of equal cost have in common: kind, numerics, model and its options; `family`:
    all but the steps."""

    name: str
    family: str
    steps: int


def recipe_of(described: dict[str, Any]) -> Recipe:
    """Recipe of a stage, from what its key is made of."""
    inputs = {name: value for name, value in described["inputs"].items() if name in _SAYS}
    options = inputs.get("options", {})
    family_inputs = {
        **inputs,
        "options": {name: value for name, value in options.items() if name != "steps"},
    }
    name, family = (
        f"{described['kind']}-{digest([part, described['numerics']], 12)}"
        for part in (inputs, family_inputs)
    )
    return Recipe(name, family, options.get("steps", 0))


@dataclass
class Costs:
    """Seconds and bytes of stages by recipe, or by family from a probe."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, float] = field(default_factory=dict)
    # family -> fixed seconds, seconds per step
    probed: dict[str, tuple[float, float]] = field(default_factory=dict)

    def knows(self, recipe: Recipe) -> bool:
        return recipe.name in self.seconds or recipe.family in self.probed

    def of(self, recipes: Iterable[Recipe]) -> float:
        """Seconds of stages with these recipes; unknown ones count nothing."""
        return sum(self._seconds(recipe) for recipe in recipes)

    def _seconds(self, recipe: Recipe) -> float:
        if recipe.name in self.seconds:
            return self.seconds[recipe.name]
        fixed, per_step = self.probed.get(recipe.family, (0.0, 0.0))
        return fixed + per_step * recipe.steps

    def size(self, recipes: Iterable[Recipe]) -> float:
        """Bytes of their values."""
        return sum(
            self.bytes.get(recipe.name, self.bytes.get(recipe.family, 0.0)) for recipe in recipes
        )


def stored_costs(root: Path, kinds: Iterable[str]) -> Costs:
    """Medians over stages of these kinds in a store."""
    seconds, sizes = _measured(root, kinds)
    return Costs(
        {recipe.name: statistics.median(values) for recipe, values in seconds.items()},
        {recipe.name: statistics.median(values) for recipe, values in sizes.items()},
    )


def add_probe(
    costs: Costs, experiments: Collection[Experiment], numerics: Any, images: float
) -> None:
    """Add what a probe of each of these experiments measures.

    images   mean number of images in their batches
    """
    from ..loop.run import run

    medians: dict[int, dict[str, float]] = {}
    for steps in (2, *STEPS):  # the first warms up
        with tempfile.TemporaryDirectory() as folder:
            probes = [_short(e, steps) for e in experiments]
            run(probes, numerics=numerics, where=folder, keep="all", progress=False, tell=False)
            seconds, sizes = _measured(Path(folder))
            medians[steps] = {
                recipe.family: statistics.median(times) for recipe, times in seconds.items()
            }
            stepped = {recipe.family for recipe in seconds if recipe.steps}
            costs.bytes |= {recipe.family: statistics.median(sizes[recipe]) for recipe in sizes}
    scale = max(1.0, images / IMAGES)
    few, many = (medians[steps] for steps in STEPS)
    for family, s in many.items():
        if family.rsplit("-", 1)[0] in PER_IMAGE:
            costs.probed[family] = (s * scale, 0.0)
            costs.bytes[family] *= scale
        else:
            per_step = (
                max(0.0, s - few[family]) / (STEPS[1] - STEPS[0]) if family in stepped else 0.0
            )
            costs.probed[family] = (max(0.0, s - STEPS[1] * per_step), per_step)


def _short(e: Experiment, steps: int) -> Experiment:
    """The experiment with fewer steps, images and generations; the options of its models stay."""
    # a fit of a path costs what any other of as many steps does
    changed: dict[str, Any] = {"n_generations": 1, "path": "none"}
    for role in ("generator", "classifier", "instrument"):
        usual = e.resolved(role).get("steps", 0)
        if usual:
            changed[f"{role}_steps"] = min(usual, steps)
    if e.n_batch:
        changed |= {
            "ratio": min(e.n_batch, IMAGES) / e.n_real,
            "protocol": "accumulate",
            "fresh_share": 0.5,
            "sensitivity": 1.0,
            "shortfall": "keep",
        }
    return replace(e, **changed)


def _measured(
    root: Path, kinds: Iterable[str] = ("*",)
) -> tuple[dict[Recipe, list[float]], dict[Recipe, list[float]]]:
    """Seconds of each recipe, and bytes of the values that are there."""
    seconds: dict[Recipe, list[float]] = defaultdict(list)
    sizes: dict[Recipe, list[float]] = defaultdict(list)
    for kind in kinds:
        for slot in slots(root, kind, SAMPLE):
            described, took = slot.record(), slot.provenance().get("seconds")
            # nothing is told while it is being written, or if it is damaged
            if took is None or not isinstance(described.get("inputs"), dict):
                continue
            recipe = recipe_of(described)
            seconds[recipe].append(took)
            if slot.filled():
                sizes[recipe].append(slot.size())
    return seconds, sizes
