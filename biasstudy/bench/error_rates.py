"""How often the words and numbers are wrong: simulated studies with a known truth, through the same
code as a real one.

Each scenario plants accuracies of cells and asks of many studies how often something is said. Where
it would be false, the rate is an error and has a promised bound; where it is true, the rate is the
power. docs/method.md holds the table.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from ..core.places import write_text
from ..core.provenance import environment
from ..core.seeds import seed_for
from ..experiment import PATHS
from ..inference.excess import BEYOND, all_excesses, beyond
from ..inference.scales import logit_contrast, relative_contrast
from ..inference.verdicts import AMPLIFIED, REDUCED, WITHIN, Verdict, change, corrected, verdict
from ..loop.results import Results
from .planted import favoured_cells, planted

SEEDS = (6, 7, 10, 12)
CLASSES, GROUPS = 10, 3
FAVOURED = favoured_cells(CLASSES, GROUPS)
FAMILY = 6  # hypotheses that Holm's correction goes over
UNSTEADY, HARD = 0.01, 0.05  # sd over seeds of a cell's accuracy, and over photographs


class Judged:
    """A simulated study and what is said of it, each judged once."""

    def __init__(self, results: Results) -> None:
        self.results = results

    @functools.cached_property
    def verdict(self) -> Verdict:
        return verdict(change(self.results))


@dataclass(frozen=True)
class Asked:
    """What is asked of the studies of a scenario.

    says      what may be said, in words
    said      Judged (several where a family is asked) -> whether it is
    promised  largest rate of a false one; None where it is true: the rate is the power
    """

    says: str
    said: Callable[[Any], bool]
    promised: float | None


@dataclass(frozen=True)
class Scenario:
    """truth: in words; study: rng, seeds -> Results (a list of them where a family is asked)."""

    truth: str
    study: Callable[[np.random.Generator, int], Any]
    asked: tuple[Asked, ...]


# ---- What is planted -----------------------------------------------------------------------------


def cells(accuracy: float, contrast: float, unequal: float = 0.0) -> np.ndarray:
    """Accuracies of cells with this mean over favoured cells, this contrast, and classes that
    differ by this sd on the logit scale; (n_classes, n_groups)."""
    base = np.full((CLASSES, GROUPS), accuracy)
    if unequal:
        shift = unequal * np.linspace(-1.5, 1.5, CLASSES)[:, None]
        base = expit(logit(base) + shift)
    return base - contrast * (FAVOURED < 0)


def moved(by: float, accuracy: float = 0.9, contrast: float = 0.08) -> Callable[..., Results]:
    """Studies in which the contrast grows by this share of itself."""

    def study(rng: np.random.Generator, n: int) -> Results:
        none, generated = cells(accuracy, contrast), cells(accuracy, contrast * (1 + by))
        return planted(
            rng, {"generated": generated, "none": none}, n, 30, hard=HARD, unsteady=UNSTEADY
        )

    return study


def lost(
    scale: str, accuracy: float, loss: float, per_cell: int, unequal: float = 0.0
) -> Callable[..., Results]:
    """Studies in which every cell loses alike on a scale: logit, or in proportion."""

    def study(rng: np.random.Generator, n: int) -> Results:
        none = cells(accuracy, 0.0, unequal)
        none = expit(logit(none) - 0.4 * (FAVOURED < 0))
        generated = expit(logit(none) - loss) if scale == "logit" else none * (1 - loss)
        return planted(rng, {"generated": generated, "none": none}, n, per_cell)

    return study


def along_paths(
    slopes: Mapping[str, float], slope: float, extra: float = 0.0
) -> Callable[..., Results]:
    """Studies whose generated images cost accuracy along a path of its own: the others lose `slope`
    times as much more as the favoured, and `extra` on top."""

    def at(favoured: float, slope: float, extra: float = 0.0) -> np.ndarray:
        return favoured - (slope * (0.95 - favoured) + extra) * (FAVOURED < 0)

    def study(rng: np.random.Generator, n: int) -> Results:
        levels = (0.95, 0.90, 0.82, 0.70)
        arms = {
            "generated": at(0.85, slope, extra),
            "none": at(0.95, slope),
            **{path: np.stack([at(a, slopes[path]) for a in levels]) for path in PATHS},
        }
        return planted(rng, arms, n, 60, hard=HARD, unsteady=0.005)

    return study


def family(of: Callable[..., Results]) -> Callable[..., list[Results]]:
    """FAMILY studies at once."""
    return lambda rng, n: [of(rng, n) for _ in range(FAMILY)]


# ---- What is asked -------------------------------------------------------------------------------


def word(wanted: str, promised: float | None, beside: str = "") -> Asked:
    says = f"{wanted}{beside}"
    return Asked(says, lambda study: study.verdict.word == wanted, promised)


def clause(promised: float | None) -> Asked:
    return Asked("A above or below 0", lambda study: study.verdict.clause != "", promised)


def interval_off_0(name: str, estimate: Callable[..., Any], promised: float | None) -> Asked:
    def said(study: Judged) -> bool:
        e = estimate(study.results, "A")
        return bool(e.low > 0 or e.high < 0)

    return Asked(f"{name} not 0", said, promised)


def any_changed(studies: list[Judged]) -> bool:
    changes = [change(study.results) for study in studies]
    words = [verdict(c, p).word for c, p in zip(changes, corrected(changes), strict=True)]
    return AMPLIFIED in words or REDUCED in words


def _beyond(study: Judged) -> bool:
    return beyond(all_excesses(study.results)) == BEYOND


STEEPER = {"fewer": 0.3, "shorter": 1.0, "noisier": 0.3}
SCENARIOS = (
    Scenario(
        "nothing changes; contrast .08",
        moved(0.0),
        (word(AMPLIFIED, 0.025), word(REDUCED, 0.025), clause(0.05), word(WITHIN, None)),
    ),
    Scenario(
        "grows by a quarter: on the margin",
        moved(0.25),
        (word(AMPLIFIED, 0.025), word(WITHIN, 0.05), word(REDUCED, 0.025)),
    ),
    Scenario(
        "falls by a quarter: on the margin",
        moved(-0.25),
        (word(REDUCED, 0.025), word(WITHIN, 0.05), word(AMPLIFIED, 0.025)),
    ),
    Scenario("grows by half", moved(0.5), (word(AMPLIFIED, None), clause(None))),
    Scenario("doubles", moved(1.0), (word(AMPLIFIED, None), clause(None))),
    Scenario(
        "no contrast, nothing changes",
        moved(0.0, contrast=0.0),
        (word(AMPLIFIED, 0.025), word(REDUCED, 0.025), word(WITHIN, 0.05)),
    ),
    Scenario(
        f"family of {FAMILY}, all on the margin",
        family(moved(0.25)),
        (Asked("any amplified or reduced (Holm)", any_changed, 0.05),),
    ),
    *(
        Scenario(
            f"uniform loss of {loss} logits from {accuracy}, {per_cell} images a cell"
            + (", unequal classes" if unequal else ""),
            lost("logit", accuracy, loss, per_cell, unequal),
            (interval_off_0("A on the logit scale", logit_contrast, 0.05),),
        )
        for accuracy, loss, per_cell, unequal in (
            (0.98, 0.8, 10, 0.0),
            (0.98, 0.8, 30, 0.0),
            (0.95, 0.8, 30, 0.0),
            (0.95, 0.8, 30, 0.4),
            (0.995, 0.8, 30, 0.0),
            (0.995, 0.8, 100, 0.0),
        )
    ),
    Scenario(
        "every cell loses a tenth of its accuracy",
        lost("proportion", 0.9, 0.1, 30),
        (
            interval_off_0("A over accuracy", relative_contrast, 0.05),
            interval_off_0("A on the logit scale", logit_contrast, None),
        ),
    ),
    Scenario(
        "loses accuracy as shorter fits do, fewer images cost groups less",
        along_paths(STEEPER, slope=1.0),
        (Asked(BEYOND, _beyond, 0.025),),
    ),
    Scenario(
        "loses .10 more in the other groups than any path",
        along_paths(STEEPER, slope=1.0, extra=0.10),
        (Asked(BEYOND, _beyond, None),),
    ),
)


def error_rates(
    n_studies: int, seeds: tuple[int, ...] = SEEDS, scenarios: tuple[Scenario, ...] = SCENARIOS
) -> pd.DataFrame:
    """How often each scenario's studies say what is asked.

    n_studies  of each scenario and number of seeds; a family counts as one
    returns    truth, says, promised (nan: it is true, the rate is power), then a column for each
               number of seeds: the rate
    """
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for i, scenario in enumerate(scenarios):
        for n in seeds:
            rng = np.random.default_rng(seed_for("error rates", scenario.truth, n))
            said = np.zeros(len(scenario.asked))
            for _ in range(n_studies):
                study = scenario.study(rng, n)
                judged = [Judged(s) for s in study] if isinstance(study, list) else Judged(study)
                said += [asked.said(judged) for asked in scenario.asked]
            for j, asked in enumerate(scenario.asked):
                row = rows.setdefault(
                    (i, j),
                    {
                        "truth": scenario.truth,
                        "says": asked.says,
                        "promised": float("nan") if asked.promised is None else asked.promised,
                    },
                )
                row[f"n = {n}"] = said[j] / n_studies
    return pd.DataFrame(rows.values())


def write_error_rates(n_studies: int, folder: Path) -> list[str]:
    """Simulate all scenarios and write the table as error-rates.csv, with what made it.

    returns  what is printed: the table, what broke its promise, and the file
    raises   ValueError   with fewer than two studies
    """
    if n_studies < 2:
        raise ValueError(f"words needs at least 2 studies; got {n_studies}")
    started = time.time()
    rates = error_rates(n_studies)
    broken = broken_promises(rates, n_studies)
    folder.mkdir(parents=True, exist_ok=True)
    text = rates.assign(studies=n_studies).to_csv(index=False, float_format="%.4g")
    write_text(folder / "error-rates.csv", text)
    about = {
        "command": f"python -m biasstudy nulls --only words --words {n_studies}",
        "seconds": round(time.time() - started),
        **environment(),
    }
    write_text(folder / "error-rates.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
    said = "every promise is kept" if broken.empty else f"promises broken:\n{broken.to_string()}"
    return [rates.round(3).to_string(index=False), said, str(folder / "error-rates.csv")]


def broken_promises(rates: pd.DataFrame, n_studies: int) -> pd.DataFrame:
    """Rows with a rate above what was promised by more than three standard errors."""
    columns = [name for name in rates if name.startswith("n = ")]
    allowed = rates.promised + 3 * np.sqrt(rates.promised * (1 - rates.promised) / n_studies)
    return rates[(rates[columns].max(axis=1) > allowed) & rates.promised.notna()]
