"""Is it amplified? A verdict in words, on A alone: one hypothesis per data set and start, with
Holm's correction over them.

All else gets an interval only; with fewer than six seeds there is no word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..measures import LEVEL
from .contrasts import CONTRASTS, all_contrasts, excess
from .intervals import Estimate, holm

MARGIN = 0.02  # a change within this margin is called no change
SEEDS_FOR_VERDICT = 6

AMPLIFIED = "amplified"
REDUCED = "reduced"
UNCHANGED = f"no change beyond {MARGIN}"
CANNOT_TELL = "cannot tell"
TOO_FEW_SEEDS = f"no verdict with fewer than {SEEDS_FOR_VERDICT} seeds"


# ---- The verdict ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What may be said of a change.

    word        AMPLIFIED, REDUCED, UNCHANGED, CANNOT_TELL, or TOO_FEW_SEEDS: no verdict
    detectable  smallest change found with 80 % power; nan with fewer than two seeds
    """

    word: str
    detectable: float

    def __str__(self) -> str:
        if self.word != CANNOT_TELL:
            return self.word
        return f"{self.word} (smallest change detectable with 80 % power: {self.detectable:.3f})"


def verdict(estimate: Estimate, p_adjusted: float | None = None) -> Verdict:
    """What may be said of a change, in one word.

    p_adjusted  p-value after Holm's correction over all primary hypotheses; default: this is the
                only one
    """
    return Verdict(_word(estimate, p_adjusted), estimate.detectable)


def _word(estimate: Estimate, p_adjusted: float | None) -> str:
    if estimate.n < SEEDS_FOR_VERDICT:
        return TOO_FEW_SEEDS
    if (estimate.p if p_adjusted is None else p_adjusted) < 1 - LEVEL:
        return AMPLIFIED if estimate.mean > 0 else REDUCED
    low, high = estimate.interval(0.90)
    return UNCHANGED if low > -MARGIN and high < MARGIN else CANNOT_TELL


def corrected(estimates: Iterable[Estimate | None]) -> np.ndarray:
    """p-values after Holm's correction over those estimates that have seeds enough for a verdict;
    (n,), nan for the others."""
    return holm([a.p if a and a.n >= SEEDS_FOR_VERDICT else np.nan for a in estimates])


def sentence(results: Any, p_adjusted: float | None = None) -> str:
    """The answer of a study in words: the primary contrast A with its verdict, then S, R and F
    where those arms were run.

    p_adjusted  see `verdict`
    """
    estimates = all_contrasts(results)
    if "A" not in estimates:
        return "No answer: the arms generated and none are needed."
    first, a = results.of("generated")[0], estimates["A"]
    what = "favoured minus other cells" if first.biased else "top minus bottom groups"
    if np.isnan(a.mean):
        return "No answer: with one seed nothing ranks the groups of an unbiased start."
    e, judged = first.experiment, verdict(a, p_adjusted)
    head = f"{e.dataset}, {e.start} start, generation {e.n_generations}, accuracy of {what}"
    clauses = []
    for name, d in estimates.items():
        interval = f"[{d.low:+.3f}, {d.high:+.3f}]" if d.n > 1 else "(one seed: no interval)"
        clauses.append(f"{name} = generated - {CONTRASTS[name][1]} = {d.mean:+.3f} {interval}")
    if results.of("fewer"):
        beyond = excess(results)
        interval = f"{beyond.mean:+.3f} [{beyond.low:+.3f}, {beyond.high:+.3f}]"
        clauses.append(
            "accuracy fell below that of the smallest part of the start: no excess over its curve"
            if np.isnan(beyond.mean)
            else f"beyond the loss of accuracy E = {interval}"
        )
    if judged.word == AMPLIFIED and "R" in estimates:
        clauses.append(
            "because the images are generated"
            if estimates["R"].low > 0
            else "not shown to be because the images are generated (R is not above 0)"
        )
    return f"{head}: {judged}. {'; '.join(clauses)}; n = {a.n} seed{'s' * (a.n > 1)}."


def sentences(parts: Mapping[str, Any]) -> list[str]:
    """The answer of each of several results, by name, with Holm's correction over all of them that
    have a verdict."""
    p_values = corrected(all_contrasts(results).get("A") for results in parts.values())
    return [
        (f"{name}: " if name else "") + sentence(results, float(p))
        for (name, results), p in zip(parts.items(), p_values, strict=True)
    ]
