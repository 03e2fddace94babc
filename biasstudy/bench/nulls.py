"""The instrument on known truth: experiments in which nothing may be found, run through the same
code as a study.

* `none` retrains on the start, and `real` under `replace` trains on fresh images of the start's
  distribution in every generation, as if the generator were perfect: the mean change of every
  metric must be 0.
* An A/A study compares the arm `real` with itself on other images of the reserve (another stream):
  the verdict must tell it to be above or below 0 in at most 5 % of studies.
* `resample` lets shares drift by sampling alone: their spread over seeds must be that of the
  formulas in `drift`.

What must be *found* (a generator planted to lose a group) and simulated coverage are in the tests.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from ..core.places import replacing, write_text
from ..core.provenance import environment
from ..experiment import PROTOCOLS, Experiment
from ..inference.contrasts import HEADLINE, curve
from ..inference.intervals import over_seeds
from ..inference.verdicts import SEEDS_FOR_VERDICT, change_between, verdict, with_interval
from ..loop.results import Outcome, Results
from ..loop.run import run
from ..measures import LEVEL
from ..measures.drift import drift_of, has_formula, names_of_shares
from ..measures.shares import counted_shares, told_counts
from ..report.figures import WIDTH, use_style

Run = Callable[[list[Experiment]], Results]

CHANGES = ("accuracy", "accuracy-gap", HEADLINE)


SMALL = Experiment(
    start="biased",
    bias=0.6,
    n_real=200,
    n_test=100,
    classifier="ridge",
    instrument="ridge",
    ratio=1.0,
)


def all_nulls(
    n_studies: int, n_seeds: int, n_drift: int, run: Run = run
) -> dict[str, pd.DataFrame]:
    """The three null experiments on 5,000 real digits, by name: changes, aa, drift.

    n_studies   A/A studies of six seeds; ridge regression, T = 2
    n_seeds     seeds of `none` and `perfect`; lenet, 500 images, T = 4
    n_drift     seeds of `resample` under each protocol; T = 5
    """
    network = replace(
        SMALL,
        n_real=500,
        classifier="lenet",
        classifier_steps=200,
        classifier_batch=64,
        n_generations=4,
    )
    return {
        "changes": changes(network, n_seeds, run),
        "aa": aa_studies(SMALL, n_studies, run=run),
        "drift": drifts(replace(SMALL, n_test=10, n_generations=5), n_drift, run=run),
    }


def null_sentences(tables: dict[str, pd.DataFrame]) -> list[str]:
    """What the null experiments say, in words."""
    means, studies, drifted = mean_changes(tables["changes"]), tables["aa"], tables["drift"]
    lines = [
        f"{row.null}: {row.metric} changed by {with_interval(row.mean, row.low, row.high, 4)}, n = "
        f"{row.n} seeds"
        for row in means.itertuples()
    ]
    low, high = stats.binomtest(alarms(studies), len(studies)).proportion_ci(LEVEL)
    ratio = drifted.sd / drifted.expected_sd
    t = drifted["shift"] / (drifted.expected_sd / np.sqrt(drifted.n))
    return [
        *lines,
        f"A/A: {alarms(studies)} of {len(studies)} studies told to be above or below 0, "
        f"{alarms(studies) / len(studies):.3f} [{low:.3f}, {high:.3f}]",
        f"drift: sd over seeds / formula {ratio.mean():.3f} on average ({ratio.min():.2f} to "
        f"{ratio.max():.2f} over {len(drifted)} shares), shift / standard error "
        f"{t.abs().max():.1f} at most, n = {drifted.n.max()} seeds",
    ]


# ---- Nothing changes -----------------------------------------------------------------------------


def perfect(base: Experiment) -> Experiment:
    """The experiment in which every pool is a fresh sample of the start's distribution: `real`
    under `replace`, ratio 1."""
    replaced = replace(base, protocol="replace", ratio=1.0, fresh_share=0.5, sensitivity=1.0)
    return replaced.to_arm("real")


def changes(base: Experiment, n_seeds: int, run: Run = run) -> pd.DataFrame:
    """Change of metrics since generation 0 where nothing happens.

    returns  null (none, perfect), metric, seed, generation, change: for every seed and generation
             after 0
    """
    rows: list[tuple] = []
    for null, e in (("none", base.to_arm("none")), ("perfect", perfect(base))):
        outcomes = run([replace(e, seed=base.seed + s) for s in range(n_seeds)]).outcomes
        for metric in CHANGES:
            if metric == HEADLINE and not outcomes[0].biased and n_seeds == 1:
                continue
            for o, line in zip(outcomes, curve(outcomes, metric), strict=True):
                rows += [
                    (null, metric, o.experiment.seed, t, line[t] - line[0])
                    for t in range(1, len(line))
                ]
    return pd.DataFrame(rows, columns=["null", "metric", "seed", "generation", "change"])


def mean_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of `changes` in the last generation with its 95 % t interval: null, metric,
    n, mean, low, high."""
    last = table[table.generation == table.generation.max()]
    rows = []
    for (null, metric), part in last.groupby(["null", "metric"], sort=False):
        e = over_seeds(part.change.to_numpy())
        rows.append((null, metric, e.n, e.mean, e.low, e.high))
    return pd.DataFrame(rows, columns=["null", "metric", "n", "mean", "low", "high"])


# ---- A/A -----------------------------------------------------------------------------------------


def aa_studies(
    base: Experiment, n_studies: int, n_seeds: int = SEEDS_FOR_VERDICT, run: Run = run
) -> pd.DataFrame:
    """Studies of n_seeds seeds each that compare `real` with `real` on another stream of the
    reserve, with their verdicts.

    returns  study, n, mean, low, high, p, word, clause (above 0, below 0 or empty)
    """
    real = base.to_arm("real")
    rows = []
    for study in range(n_studies):
        seeds = [base.seed + study * n_seeds + s for s in range(n_seeds)]
        first, second = (
            run(
                [replace(real, seed=s, generator_options={"stream": stream}) for s in seeds]
            ).outcomes
            for stream in (0, 1)
        )
        found = change_between(first, second)
        a, judged = found.a, verdict(found)
        rows.append((study, a.n, a.mean, a.low, a.high, a.p, judged.word, judged.clause))
    columns = ["study", "n", "mean", "low", "high", "p", "word", "clause"]
    return pd.DataFrame(rows, columns=columns)


def alarms(studies: pd.DataFrame) -> int:
    """How many studies were told to be above or below 0."""
    return int((studies.clause != "").sum())


# ---- Drift ---------------------------------------------------------------------------------------


def drifts(
    base: Experiment, n_seeds: int, protocols: tuple[str, ...] = (), run: Run = run
) -> pd.DataFrame:
    """How far the shares of groups wander in the arm `resample`, against the formulas.

    protocols  default: all that have a formula
    returns  protocol, metric, group, generation, n, shift (mean over seeds of share minus its
             expectation), sd (root mean square of that over seeds), expected_sd
    """
    rows: list[tuple] = []
    for protocol in protocols or [name for name, data in PROTOCOLS.items() if has_formula(data)]:
        e = replace(base, protocol=protocol, ratio=1.0, condition="class").to_arm("resample")
        outcomes = run([replace(e, seed=base.seed + s) for s in range(n_seeds)]).outcomes
        shares, moments = np.stack([_shares(o) for o in outcomes]), [drift_of(o) for o in outcomes]
        off = shares - np.stack([mean for mean, _ in moments])
        expected = np.sqrt(np.mean([variance for _, variance in moments], axis=0))
        for s, (metric, group) in enumerate(names_of_shares(outcomes[0])):
            rows += [
                (
                    protocol,
                    metric,
                    group,
                    t,
                    n_seeds,
                    off[:, t, s].mean(),
                    np.sqrt(np.mean(off[:, t, s] ** 2)),
                    expected[t, s],
                )
                for t in range(off.shape[1])
            ]
    return pd.DataFrame(
        rows,
        columns=["protocol", "metric", "group", "generation", "n", "shift", "sd", "expected_sd"],
    )


def _shares(o: Outcome) -> np.ndarray:
    """Shares of groups, and of favoured cells, in every batch, among images with a clear group; (T,
    S)."""
    tables = [told_counts(b["label"], b["group"], o.favoured.shape)[:, :-1] for b in o.batches]
    return np.array([counted_shares(counts, o.favoured) for counts in tables])


# ---- The figure ----------------------------------------------------------------------------------

_NULL_STYLE = {
    "none": {"color": "#555555", "marker": "D"},
    "perfect": {"color": "#0072B2", "marker": "s"},
}
_PROTOCOL_STYLES = (
    ("#0072B2", "o"),
    ("#009E73", "v"),
    ("#D55E00", "s"),
    ("#CC79A7", "^"),
    ("#8C6D00", "D"),
)


def null_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """The three null experiments side by side, from the tables of `all_nulls`."""
    use_style()
    changed, studies, drifted = tables["changes"], tables["aa"], tables["drift"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.9))
    means = mean_changes(changed)
    for i, (null, style) in enumerate(_NULL_STYLE.items()):
        null_means = means[means.null == null]
        at = np.arange(len(null_means)) + 0.16 * (2 * i - 1)
        seeds = changed[(changed.null == null) & (changed.generation == changed.generation.max())]
        for x, metric in zip(at, null_means.metric, strict=True):
            values = seeds[seeds.metric == metric].change
            left.plot(
                np.full(len(values), x), values, ".", color=style["color"], alpha=0.25, markersize=3
            )
        left.errorbar(
            at,
            null_means["mean"],
            [null_means["mean"] - null_means.low, null_means.high - null_means["mean"]],
            fmt=style["marker"],
            color=style["color"],
            capsize=3,
            label=f"{null}, n = {null_means.n.max()}",
        )
    left.axhline(0, color="#999999", linewidth=0.8)
    left.set_xticks(range(len(CHANGES)), ["accuracy", "gap", "contrast"])
    left.set_title(
        f"change by generation {changed.generation.max()} where\nnothing happens, 95 % interval"
    )
    left.legend(fontsize=7.5)

    p, n = np.sort(studies.p), len(studies)
    expected = (np.arange(n) + 0.5) / n
    low, high = (stats.beta.ppf(q, np.arange(n) + 1, n - np.arange(n)) for q in (0.025, 0.975))
    middle.fill_between(expected, low, high, color="#e0e0e0", label="95 % band")
    middle.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    middle.plot(expected, p, ".", color="#D55E00", markersize=2.5)
    middle.axhline(1 - LEVEL, color="#555555", linewidth=0.8, linestyle=":")
    middle.set_title(
        f"{n} A/A studies of {studies.n.max()} seeds:\n{alarms(studies)} false alarms "
        f"({100 * alarms(studies) / n:.1f} %)"
    )
    middle.set_xlabel("p-value expected")
    middle.set_ylabel("p-value found")

    rows = drifted[drifted.metric == drifted.metric.iloc[-1]]
    by_protocol = rows.groupby("protocol", sort=False)
    for (protocol, part), (color, marker) in zip(
        by_protocol, cycle(_PROTOCOL_STYLES), strict=False
    ):
        line = part.groupby("generation")[["sd", "expected_sd"]].mean()
        right.plot(line.index, line.expected_sd, color=color, linewidth=1.2)
        right.plot(line.index, line.sd, marker, color=color, label=protocol, markersize=4)
    right.set_title(f"drift of the favoured share:\nloop (marks, n = {rows.n.max()}) and formula")
    right.set_xlabel("made in generation")
    right.set_ylabel("sd over seeds")
    right.set_ylim(0)
    right.legend(fontsize=7, ncols=2)
    return figure


def write_nulls(studies: int, seeds: int, drift: int, folder: Path) -> list[str]:
    """Prove the instrument and write tables, figure and what they say into a folder.

    studies, seeds, drift   see `all_nulls`, at least 2 each
    returns  what is printed: the sentences, and the folder
    raises   ValueError   if one is too small
    """
    if min(studies, seeds, drift) < 2:
        raise ValueError(
            f"nulls needs at least 2 of each; got studies {studies}, seeds {seeds}, drift {drift}"
        )
    started = time.time()
    tables = all_nulls(studies, seeds, drift)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_text(folder / f"nulls-{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    with replacing(folder / "nulls.png") as file:
        null_figure(tables).savefig(file)
    sentences = null_sentences(tables)
    about = {
        "command": f"python -m biasstudy nulls --studies {studies} --seeds {seeds} --drift {drift}",
        "said": sentences,
        "seconds": round(time.time() - started),
        **environment(),
    }
    write_text(folder / "nulls.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
    return [*sentences, str(folder)]
