"""Is it amplified? A verdict in words, on A alone: one hypothesis per data set and start, with
Holm's correction over them.

All else gets an interval only; with fewer than six seeds there is no word.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .contrasts import CONTRASTS, all_contrasts, excess, logit_contrast
from .intervals import LEVEL, Estimate, holm, sign_flip

MARGIN = 0.02  # a change within this margin is called no change
SEEDS_FOR_VERDICT = 6


# ---- The verdict ---------------------------------------------------------------------------------


def verdict(estimate: Estimate, p_adjusted: float | None = None) -> str:
    """One of: amplified, reduced, no change beyond 0.02, cannot tell; or why there is no verdict.

    p_adjusted  p-value after Holm's correction over all primary hypotheses; default: this is the
                only one
    """
    if estimate.n < SEEDS_FOR_VERDICT:
        return f"no verdict with fewer than {SEEDS_FOR_VERDICT} seeds"
    if (estimate.p if p_adjusted is None else p_adjusted) < 1 - LEVEL:
        return "amplified" if estimate.mean > 0 else "reduced"
    low, high = estimate.interval(0.90)
    if low > -MARGIN and high < MARGIN:
        return f"no change beyond {MARGIN}"
    return f"cannot tell (smallest change detectable with 80 % power: {estimate.detectable:.3f})"


def verdicts(studies: Mapping[str, Any]) -> pd.DataFrame:
    """The answers of several studies, one row each: verdict on A after Holm's correction; all
    contrasts with interval.

    studies  name -> Results; one per data set and start, since each is one primary hypothesis
    returns  study, dataset, start, generation, n, verdict, A_holm; then for A, S, R, F: A, A_low,
             A_high, A_p (nan if an arm was not run) and A_logit, A_logit_low, A_logit_high;
             A_sign_flip
    raises   ValueError   if two studies share data set and start, or one lacks the arms generated
             and none
    """
    rows: list[dict[str, Any]] = []
    estimates = []
    for study, results in studies.items():
        found = all_contrasts(results)
        if "A" not in found:
            raise ValueError(f"study {study!r} needs the arms {' and '.join(CONTRASTS['A'])}")
        e = results.of("generated")[0].experiment
        row = {
            "study": study,
            "dataset": e.dataset,
            "start": e.start,
            "generation": e.n_generations,
            "n": found["A"].n,
        }
        for other in rows:
            if (other["dataset"], other["start"]) == (e.dataset, e.start):
                raise ValueError(
                    f"studies {other['study']!r} and {study!r} both answer {e.dataset}, {e.start} "
                    "start; "
                    "one primary hypothesis per data set and start"
                )
        for name in CONTRASTS:
            row |= _columns(name, found.get(name))
        logit = logit_contrast(results, "A")
        row |= {"A_logit": logit.mean, "A_logit_low": logit.low, "A_logit_high": logit.high}
        rows.append(row | {"A_sign_flip": sign_flip(found["A"].per_seed)})
        estimates.append(found["A"])
    adjusted = holm([a.p if a.n >= SEEDS_FOR_VERDICT else np.nan for a in estimates])
    table = pd.DataFrame(rows)
    table.insert(5, "verdict", [verdict(a, p) for a, p in zip(estimates, adjusted, strict=True)])
    table.insert(6, "A_holm", adjusted)
    return table


def _columns(name: str, d: Estimate | None) -> dict[str, float]:
    nan = float("nan")
    mean, low, high, p = (d.mean, d.low, d.high, d.p) if d else (nan, nan, nan, nan)
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_p": p}


def sentence(results: Any, p_adjusted: float | None = None) -> str:
    """The answer of a study in words: the primary contrast A with its verdict, then S, R and F
    where those arms were run.

    p_adjusted  see `verdict`
    """
    found = all_contrasts(results)
    if "A" not in found:
        return "No answer: the arms generated and none are needed."
    first, a = results.of("generated")[0], found["A"]
    what = "favoured minus other cells" if first.biased else "top minus bottom groups"
    if np.isnan(a.mean):
        return "No answer: with one seed nothing ranks the groups of an unbiased start."
    e, word = first.experiment, verdict(a, p_adjusted)
    text = [
        f"{e.dataset}, {e.start} start, generation {e.n_generations}, accuracy of {what}: {word}."
    ]
    for name, d in found.items():
        interval = f"[{d.low:+.3f}, {d.high:+.3f}]" if d.n > 1 else "(one seed: no interval)"
        text.append(f"{name} = generated - {CONTRASTS[name][1]} = {d.mean:+.3f} {interval}")
    if results.of("fewer"):
        beyond = excess(results)
        interval = f"{beyond.mean:+.3f} [{beyond.low:+.3f}, {beyond.high:+.3f}]"
        text.append(
            "accuracy fell below that of the smallest part of the start: no excess over its curve"
            if np.isnan(beyond.mean)
            else f"beyond the loss of accuracy E = {interval}"
        )
    if word == "amplified" and "R" in found:
        text.append(
            "because the images are generated"
            if found["R"].low > 0
            else "not shown to be because the images are generated (R is not above 0)"
        )
    return " ".join(text[:1]) + " " + "; ".join(text[1:]) + f"; n = {a.n} seed{'s' * (a.n > 1)}."


def sentences(parts: Mapping[str, Any]) -> list[str]:
    """The answer of each of several results, by name, with Holm's correction over all of them that
    have a verdict."""
    found = {name: all_contrasts(results).get("A") for name, results in parts.items()}
    adjusted = holm(
        [a.p if a is not None and a.n >= SEEDS_FOR_VERDICT else np.nan for a in found.values()]
    )
    told = {
        name: None if np.isnan(p) else float(p) for name, p in zip(found, adjusted, strict=True)
    }
    return [
        (f"{name}: " if name else "") + sentence(results, told[name])
        for name, results in parts.items()
    ]
