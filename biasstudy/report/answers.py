"""The answer of a notebook as numbers: NAME-answer.json beside its figures.

Of one setting the file holds the keys below; of several, `variants`: a mapping from their names to
the same keys.

settings   fields of the experiment, without seed; scale, numerics, arms
n_seeds    int
accuracy   arm -> mean over seeds and classifiers, a list over generations
contrast   arm -> the headline contrast, a list over generations; null where nothing ranks groups
verdict    the words on A; null without the arms generated and none
fitness    word of the gate, what it says, its criteria in generation 0 (`first`) and in the last
           that generates (`last`), null where not measured; null where nothing is generated
sentence   the answer in words
made       "trained here", or where and when results that ship were made
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.places import write_text
from ..experiment import ALL_ARMS
from ..inference.contrasts import headline
from ..inference.gate import gate
from ..inference.verdicts import corrected_changes, line_of, sentence, verdict


def write_answers(parts: Mapping[str, Any], name: str, folder: Path) -> str:
    """Write NAME-answer.json, and its sentences as NAME.txt.

    parts    name of a variant -> Results; one without a name is the only one
    returns  the sentences, a line per variant
    """
    told = answers(parts)
    only = told[""] if list(told) == [""] else {"variants": told}
    write_text(folder / f"{name}-answer.json", json.dumps(only, indent=1, allow_nan=False) + "\n")
    text = "\n".join(line_of(variant, answer["sentence"]) for variant, answer in told.items())
    write_text(folder / f"{name}.txt", text + "\n")
    return text


def answers(parts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the file holds of each of several results, corrected by Holm's method over all that have
    a verdict."""
    changes = corrected_changes(parts)
    return {name: _answer(results, changes.get(name)) for name, results in parts.items()}


def _answer(results: Any, told: Any) -> dict[str, Any]:
    by_arm = {arm: results.of(arm) for arm in ALL_ARMS if results.of(arm)}
    first = next(iter(by_arm.values()))[0]
    settings = {key: value for key, value in first.experiment.fields().items() if key != "seed"}
    return {
        "settings": settings
        | {"scale": first.scale, "numerics": first.numerics, "arms": list(by_arm)},
        "n_seeds": len({o.experiment.seed for o in results.outcomes}),
        "accuracy": {
            arm: _numbers(np.mean([o.correct().mean((1, 2)) for o in outcomes], axis=0))
            for arm, outcomes in by_arm.items()
        },
        "contrast": {arm: _numbers(headline(outcomes).mean(0)) for arm, outcomes in by_arm.items()},
        "verdict": str(verdict(*told)) if told and not math.isnan(told[0].a.mean) else None,
        "fitness": _fitness(results),
        "sentence": sentence(results, told[1] if told else None),
        "made": results.note or "trained here",
    }


def _fitness(results: Any) -> dict[str, Any] | None:
    judged = gate(results)
    if judged is None:
        return None
    first, last = (
        dict(zip(values, _numbers(values.values()), strict=True))
        for values in (judged.values[0], judged.values[-1])
    )
    return {"word": judged.word, "says": str(judged), "first": first, "last": last}


def _numbers(values: Iterable[float]) -> list[float | None]:
    """As JSON has them: six digits after the point, null for nan."""
    return [None if math.isnan(value) else round(float(value), 6) for value in values]
