"""Which hypothesis about the dynamics of bias? Ours, its rivals, and how each is claimed or
refuted.

The wording of the paper's conjecture is not known to us. The hypothesis under test is ours, and so
are its rivals. The evidence are changes at several assigned levels of bias (`dynamics`). By
symmetry an assigned level of 0 favours nobody in the mean, whatever a generator does, so only
levels above 0 are used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..measures import LEVEL
from .dynamics import by_level, one_step
from .intervals import over_seeds
from .verdicts import QUARTER, SEEDS_FOR_VERDICT, Change, change

HYPOTHESES = {
    "drift": "bias drifts toward the level of the generator and the filter, so that low assigned "
    "bias rises and high assigned bias falls",
    "growth": "bias grows from every assigned level",
    "within a quarter": "no assigned level changes by more than a quarter of the bias "
    "that is there",
}
LEVELS_FOR_JUDGEMENT = 3


@dataclass(frozen=True)
class Judgement:
    """word: a key of HYPOTHESES, `none of the three` or `cannot tell`; refuted: keys of HYPOTHESES;
    because: the evidence in words; levels: bias -> Change."""

    word: str
    refuted: tuple[str, ...]
    because: str
    levels: dict[float, Change]

    def __str__(self) -> str:
        refuted = f"refuted: {', '.join(self.refuted)}; " if self.refuted else ""
        return f"{self.word} ({refuted}{self.because})"


def judge(changes: Mapping[float, Change]) -> Judgement:
    """Which of the hypotheses the changes at the assigned levels above 0 support.

    What claims a hypothesis was stated before any result was seen; what refutes one was added after
    the first look at the transfer maps that ship with the package, so that their refutations are
    exploratory until new data confirm them.

    A hypothesis is *claimed* if all its parts are shown, and *refuted* if one part is shown to be
    false:

    drift      claimed: the lowest level rises and the highest falls;  refuted: the lowest falls or
               the highest rises
    growth     claimed: every level rises;                             refuted: one falls
    within a quarter  claimed: every level is within its margin, however surely it moves there;
               refuted: one is beyond it

    rises, falls: the 95 % interval is above, below 0; to refute, the interval of level 1 - 0.05/L
    (Bonferroni over L levels). All three refuted: none of the three. None claimed, with fewer than
    three levels or six seeds: cannot tell. A claim asks that *all* its tests agree, so it needs no
    correction: a false one is made in at most 2.5 % of studies for each part that is false
    (within a quarter: 5 %); a true hypothesis is refuted in at most 5 %.

    changes  bias -> change against its control, with its margin; a level of 0 is left out
    source   Berger 1982, Technometrics 24, 295-300 (intersection-union tests); error rates
             simulated in the tests
    """
    used = {level: c for level, c in sorted(changes.items()) if level > 0}
    if len(used) < LEVELS_FOR_JUDGEMENT:
        return Judgement(
            "cannot tell",
            (),
            f"needs {LEVELS_FOR_JUDGEMENT} assigned levels above 0; got {list(used)}",
            used,
        )
    if (n := min(c.a.n for c in used.values())) < SEEDS_FOR_VERDICT:
        return Judgement("cannot tell", (), f"needs {SEEDS_FOR_VERDICT} seeds; got {n}", used)
    lowest, *_, highest = used
    rises = [level for level, c in used.items() if c.a.low > 0]
    falls = [level for level, c in used.items() if c.a.high < 0]
    inside = [level for level, c in used.items() if c.p_within < 1 - LEVEL]
    outside = [level for level, c in used.items() if c.p_changed < (1 - LEVEL) / len(used)]
    claimed = {
        "growth": len(rises) == len(used),
        "drift": lowest in rises and highest in falls,
        "within a quarter": len(inside) == len(used),
    }
    wide = {level: c.a.interval(1 - (1 - LEVEL) / len(used)) for level, c in used.items()}
    refuted = tuple(
        name
        for name, shown in {
            "drift": wide[lowest][1] < 0 or wide[highest][0] > 0,
            "growth": any(high < 0 for _, high in wide.values()),
            "within a quarter": bool(outside),
        }.items()
        if shown
    )
    word = next(
        (name for name, shown in claimed.items() if shown),
        "none of the three" if len(refuted) == len(HYPOTHESES) else "cannot tell",
    )
    because = (
        "; ".join(
            f"{what} {', '.join(map(str, which)) or 'none'}"
            for what, which in (
                ("rises at", rises),
                ("falls at", falls),
                ("within a quarter at", inside),
            )
        )
        + f"; n = {n} seeds"
    )
    return Judgement(word, refuted, because, used)


def judgements(parts: Mapping[str, Any]) -> dict[tuple[str, str], Judgement]:
    """The judgement of every setting: (setting, "contrast") on A of the last generation, the
    headline; and (setting, "share") on what the first generator makes of the start, among images
    with a clear group (secondary), with a quarter of the assigned excess share as its margin."""
    by_setting = {}
    for setting, levels in by_level(parts).items():
        table = one_step(levels)
        if all(results.of("none") for results in levels.values()):
            by_setting[setting, "contrast"] = judge(
                {level: change(results) for level, results in levels.items()}
            )
        favoured = next(iter(levels.values())).of("generated")[0].favoured
        equal_share = np.mean((favoured > 0).sum(1) / (favoured != 0).sum(1))
        by_setting[setting, "share"] = judge(
            {
                float(level): _change_of_share(steps, equal_share)
                for level, steps in table.groupby("assigned")
            }
        )
    return by_setting


def _change_of_share(steps: pd.DataFrame, equal_share: float) -> Change:
    """The change of the favoured share in one step; its margin is a quarter of what the assigned
    share has over equal shares."""
    a = over_seeds((steps.share_after - steps.share_before).to_numpy())
    level = over_seeds(steps.share_before.to_numpy())
    margin = QUARTER * (level.mean - equal_share)
    return Change(a, level, a.shifted(-margin), a.shifted(margin), False, margin)


# ---- What we do not do ---------------------------------------------------------------------------

SERIES = {  # truth without noise, t = 0, 1, ...: bias in units of the noise of one generation
    "no change": lambda t: 10.0 + 0 * t,
    "growth": lambda t: 10.0 + 0.5 * t,
    "runaway": lambda t: 10.0 + 0.5 * (1.15**t - 1) / 0.15,
}


def naive_fit(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of M_{t+1} = a + b M_t within one series, as it is often done; here to show
    what it finds.

    series   (..., T + 1) float
    returns  a, b (...)   b < 1 is read as an equilibrium at a / (1 - b); nan for a constant series
    """
    x, y = series[..., :-1], series[..., 1:]
    dx, dy = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = (dx**2).sum(-1)
    b = np.divide((dx * dy).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0)
    return y.mean(-1) - b * x.mean(-1), b


def naive_study(replicates: int = 2000, T: int = 8, seed: int = 0) -> pd.DataFrame:
    """The naive fit on simulated series of which none has an equilibrium; noise of each generation
    has sd 1.

    returns  series, replicate, a, b, equilibrium (b < 1)
    """
    rng, t, tables = np.random.default_rng(seed), np.arange(T + 1.0), []
    for name, truth in SERIES.items():
        a, b = naive_fit(truth(t) + rng.standard_normal((replicates, T + 1)))
        tables.append(
            pd.DataFrame(
                {
                    "series": name,
                    "replicate": np.arange(replicates),
                    "a": a,
                    "b": b,
                    "equilibrium": b < 1,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
