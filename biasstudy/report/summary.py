"""All stored results at once: one row per setting, the sentence that answers the question, what it
cost.

Nothing is trained here. A setting is a variant of a stored study; a study that is a part of another
is read once.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.registry import DATASETS
from ..experiment import Experiment
from ..inference.conjecture import Judgement, judgements
from ..inference.contrasts import CONTRASTS, all_contrasts, difference, excess, logit_contrast
from ..inference.dynamics import by_level, told_apart
from ..inference.verdicts import (
    AMPLIFIED,
    CANNOT_TELL,
    MARGIN,
    REDUCED,
    SEEDS_FOR_VERDICT,
    UNCHANGED,
    corrected,
    verdict,
)
from ..measures import LEVEL
from .shipped import is_part, reference_parts, seconds, studies

SETTING = (
    "dataset",
    "start",
    "bias",
    "n_real",
    "generator",
    "classifier",
    "condition",
    "ratio",
    "protocol",
    "fresh_share",
    "filter",
)


@dataclass(frozen=True)
class Stored:
    """Results to be summed up: study -> variant -> Results; each answer is computed when first
    asked for."""

    parts: Mapping[str, Mapping[str, Any]]

    @functools.cached_property
    def effects(self) -> pd.DataFrame:
        """One row per setting: see `table_of_effects`."""
        return table_of_effects(self.parts)

    @functools.cached_property
    def judgements(self) -> dict[tuple[str, str, str], Judgement]:
        """(study, setting, contrast or share) -> Judgement, of every study with at least two
        assigned levels of bias."""
        return {
            (study, *key): judgement
            for study, parts in self.parts.items()
            if by_level(parts)
            for key, judgement in judgements(parts).items()
        }

    @property
    def outcomes(self) -> list[Any]:
        """Every experiment once."""
        return list(
            {
                o.experiment.id: o
                for parts in self.parts.values()
                for r in parts.values()
                for o in r.outcomes
            }.values()
        )

    @property
    def mark(self) -> str:
        """What stands under a figure of everything."""
        scales = sorted({o.scale for o in self.outcomes})
        standins = ["stand-in data among them"] * any(
            "stands_for" in o.experiment.dataset_entry.traits for o in self.outcomes
        )
        return " · ".join(
            [
                f"{len(self.parts)} stud{'ies' if len(self.parts) > 1 else 'y'}",
                f"{len(self.outcomes)} experiments",
                f"scale {', '.join(scales)}",
                *standins,
            ]
        )

    @property
    def cost(self) -> pd.DataFrame:
        """By study: settings, experiments, process hours, processor, commit, notes of older
        versions."""
        rows = []
        for study, parts in self.parts.items():
            outcomes = list(
                {o.experiment.id: o for r in parts.values() for o in r.outcomes}.values()
            )
            cost = outcomes[0].cost
            rows.append(
                (
                    study,
                    outcomes[0].scale,
                    len(parts),
                    len(outcomes),
                    seconds(outcomes) / 3600,
                    cost["processor"],
                    cost["commits"][0],
                    next(iter(parts.values())).note.partition("made with ")[2] or "current",
                )
            )
        return pd.DataFrame(
            rows,
            columns=[
                "study",
                "scale",
                "settings",
                "experiments",
                "process_hours",
                "processor",
                "commit",
                "made_with",
            ],
        )


def stored(folder: Path | None = None) -> Stored:
    """Everything that ships with the package, or that lies in a folder."""
    return Stored(
        {
            study: reference_parts(study, folder)
            for study in studies(folder)
            if not is_part(study, folder)
        }
    )


def table_of_effects(parts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The answers of all settings: A, S, R, F of the last generation, with two corrections for
    their number.

    A_holm    p-value of A after Holm's correction over the settings of the study; the verdict uses
              it
    A_all     the same over all settings of all studies: below 0.05 it holds whatever one chose to
              look at
    because   of amplified settings: whether R is above 0 as well, that is, because the images are
              generated

    A setting that several studies hold has one row: in the study with most seeds, of these in that
    with most arms.

    returns   study, variant, the fields in SETTING, generation, apart (in what else settings differ
              that are alike in these, in words), n, verdict, detectable (80 %
              power), because, A_holm, A_all, then A, A_low, A_high, A_p and so on for S, R, F, nan
              where an arm was not run; A_logit, A_logit_low, A_logit_high: A where a uniform loss
              of accuracy near 1 counts as much as near 1/2; E, E_low, E_high: excess over the
              accuracy curve; no row without A
    """
    rows, estimates, experiments, once = [], [], [], _once(parts)
    for study, variants in parts.items():
        estimated = {name: all_contrasts(results) for name, results in variants.items()}
        estimated = {name: c for name, c in estimated.items() if "A" in c}
        p_values = corrected(c["A"] for c in estimated.values())
        for (name, c), p in zip(estimated.items(), p_values, strict=True):
            if (study, name) not in once:
                continue
            e = variants[name].of("generated")[0].experiment
            row = {
                "study": study,
                "variant": name,
                **{field: getattr(e, field) for field in SETTING},
                "generation": e.n_generations,
                "n": c["A"].n,
                "verdict": verdict(c["A"], float(p)).word,
                "detectable": c["A"].detectable,
                "because": bool("R" in c and c["R"].low > 0),
                "A_holm": p,
            }
            for key in CONTRASTS:
                d = c.get(key)
                row |= (
                    {key: d.mean, f"{key}_low": d.low, f"{key}_high": d.high, f"{key}_p": d.p}
                    if d
                    else dict.fromkeys((key, f"{key}_low", f"{key}_high", f"{key}_p"), float("nan"))
                )
            secondary: dict[str, Any] = {"A_logit": logit_contrast(variants[name], "A")}
            secondary["E"] = excess(variants[name]) if variants[name].of("fewer") else None
            for key, d in secondary.items():
                row |= dict(
                    zip(
                        (key, f"{key}_low", f"{key}_high"),
                        (d.mean, d.low, d.high) if d else 3 * [float("nan")],
                        strict=True,
                    )
                )
            rows.append(row)
            estimates.append(c["A"])
            experiments.append(e)
    table = pd.DataFrame(rows)
    table.insert(list(table).index("A_holm") + 1, "A_all", corrected(estimates))
    table.insert(list(table).index("generation") + 1, "apart", _apart(table, experiments))
    return table


def _apart(table: pd.DataFrame, experiments: list[Experiment]) -> list[str]:
    """In what else settings differ that are alike in SETTING and generation, in words."""
    words = [""] * len(table)
    for alike in table.groupby([*SETTING, "generation"]).indices.values():
        told = told_apart([experiments[i] for i in alike])
        for i, text in zip(alike, told, strict=True):
            words[i] = text
    return words


def _once(parts: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Study and variant of every setting; of equal ones that with most seeds, then most arms, the
    first of several."""
    chosen: dict[str, tuple[tuple[int, int], str, str]] = {}
    for study, variants in parts.items():
        for name, results in variants.items():
            generated = results.of("generated")
            if not generated:
                continue
            same = _written_out(generated[0].experiment)
            size = (len(generated), len({o.experiment.arm for o in results.outcomes}))
            if same not in chosen or size > chosen[same][0]:
                chosen[same] = size, study, name
    return {(study, name) for _, study, name in chosen.values()}


def _written_out(e: Experiment, but: tuple[str, ...] = ("seed",)) -> str:
    """What an experiment is but for some fields: a default written out, or a quota without a
    filter, makes no other."""
    idle = but if e.filter != "none" else (*but, "shortfall")
    fields = {name: value for name, value in e.fields().items() if name not in idle}
    for role in ("generator", "classifier", "instrument"):
        fields |= {f"{role}_{field}": None for field in ("steps", "batch")} | {
            f"{role}_options": e.resolved(role)
        }
    return str(sorted(fields.items()))


def remedies(stored_results: Stored) -> pd.DataFrame:
    """What a remedy changes: the contrast of the last generation with it minus without it, below 0
    it helps.

    rebalance   the arm of that name: generated images thinned to the start's shares, against the
                arm generated
    balanced    the protocol of that name: pools with as many images of every group, against
                `subsample`, as many at random

    returns  remedy, study, variant, change, low, high, n: a row per setting that has both sides
    """
    rows: list[tuple] = []
    plain = {
        _but_protocol(results): results
        for variants in stored_results.parts.values()
        for results in variants.values()
        if _protocol(results) == "subsample"
    }
    for study, variants in stored_results.parts.items():
        for name, results in variants.items():
            pairs = {"rebalance": (results.of("rebalance"), results.of("generated"))}
            if _protocol(results) == "balanced" and _but_protocol(results) in plain:
                pairs["balanced"] = (
                    results.of("generated"),
                    plain[_but_protocol(results)].of("generated"),
                )
            for remedy, (first, second) in pairs.items():
                if first and second:
                    e = difference(first, second)
                    rows.append((remedy, study, name, e.mean, e.low, e.high, e.n))
    return pd.DataFrame(rows, columns=["remedy", "study", "variant", "change", "low", "high", "n"])


def _protocol(results: Any) -> str:
    return results.of("generated")[0].experiment.protocol if results.of("generated") else ""


def _but_protocol(results: Any) -> str:
    """What a setting is, its protocol apart."""
    return _written_out(results.of("generated")[0].experiment, ("protocol", "seed"))


def answer(stored_results: Stored) -> str:
    """The answer to the question in one sentence, with n, from stored results on real data
    alone."""
    real = [
        name
        for name in stored_results.effects.dataset.unique()
        if "stands_for" not in DATASETS[name].traits
    ]
    table = stored_results.effects[
        (stored_results.effects.n >= SEEDS_FOR_VERDICT) & stored_results.effects.dataset.isin(real)
    ]
    if table.empty:
        return f"No answer: no setting on real data has {SEEDS_FOR_VERDICT} seeds."
    count, up = table.verdict.value_counts(), table[table.verdict == AMPLIFIED]
    n = (
        f"{table.n.min()}"
        if table.n.min() == table.n.max()
        else f"{table.n.min()} to {table.n.max()}"
    )
    start = (
        "It depends"
        if 0 < len(up) < len(table)
        else "Yes, in every setting"
        if len(up)
        else "In no setting so far"
    )
    sources = table.dataset.str.removesuffix("-5k").nunique()  # 5,000 digits are a part of MNIST
    asked = Stored({study: stored_results.parts[study] for study in table.study.unique()})
    reduced, unchanged, open_ = (count.get(w, 0) for w in (REDUCED, UNCHANGED, CANNOT_TELL))
    return (
        f"{start}: of {len(table)} settings on {sources} data sets (n = {n} seeds each, "
        f"{len(asked.outcomes)} experiments), adding generated images amplified the bias of later "
        f"classifiers in {len(up)} ({int(up.because.sum())} of them because the images are "
        f"generated; {int((up.A_all < 1 - LEVEL).sum())} after correction for all {len(table)}; "
        f"{int((up.A_logit_low > 0).sum())} shown on the logit scale, too; of the "
        f"{int(up.E.notna().sum())} with an accuracy curve {int((up.E_low > 0).sum())} shown "
        f"beyond the loss of accuracy), reduced it in {reduced}, changed nothing beyond {MARGIN} "
        f"in {unchanged}, and {open_} cannot be told."
    )
