"""The ledger: each claim of the paper's abstract, our hypothesis, the notebook that tests it, and
what stored results say.

Claims are in our words; of the paper only its abstract is known. No number is typed: every result
is computed from the results that ship with the package, and what they cannot say is said with its
reason. docs/findings.md holds the table between marks, see `numbers`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..inference.conjecture import HYPOTHESES
from ..inference.contrasts import difference
from ..inference.intervals import Estimate, over_seeds
from ..inference.verdicts import AMPLIFIED, CANNOT_TELL, REDUCED, SEEDS_FOR_VERDICT, UNCHANGED
from .summary import Stored


@dataclass(frozen=True)
class Claim:
    """claim: of the abstract; hypothesis: ours; notebooks: that test it; result: words from stored
    results, or why there can be none."""

    claim: str
    hypothesis: str
    notebooks: tuple[str, ...]
    result: Callable[[Stored], str] | str

    def says(self, stored_results: Stored) -> str:
        """The result in words; a sentence that begins "not stored" where the results are not
        there."""
        return (
            f"not testable here: {self.result}"
            if isinstance(self.result, str)
            else self.result(stored_results)
        )


def interval(e: Estimate) -> str:
    return f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def _tally(table: pd.DataFrame) -> str:
    """Settings by verdict, and the largest |A| with its interval."""
    table = table[table.n >= SEEDS_FOR_VERDICT]
    if table.empty:
        return f"not stored with {SEEDS_FOR_VERDICT} seeds"
    count = table.verdict.value_counts()
    known = (AMPLIFIED, REDUCED, UNCHANGED, CANNOT_TELL)
    words = ", ".join(f"{word} in {count[word]}" for word in known if word in count)
    top = table.loc[table.A.abs().idxmax()]
    settings = f"{len(table)} setting{'s' * (len(table) > 1)}"
    return (
        f"{settings}: {words}; largest A = {top.A:+.3f} [{top.A_low:+.3f}, {top.A_high:+.3f}] "
        f"({_named(top)}); n = {table.n.min()} seeds"
    )


def _named(row: Any) -> str:
    return f"{row.study}{': ' + row.variant if row.variant else ''}"


# ---- Results of each claim -----------------------------------------------------------------------


def _amplifies(stored_results: Stored) -> str:
    table = stored_results.effects
    up = table[table.verdict == AMPLIFIED]
    return (
        f"{_tally(table)}; R above 0 as well in {int(up.because.sum())} of the {len(up)} amplified"
    )


def _beyond_accuracy(stored_results: Stored) -> str:
    rows = stored_results.effects[stored_results.effects.verdict == AMPLIFIED]
    curves = stored_results.effects[stored_results.effects.E.notna()]
    if curves.empty:
        return "not stored: no study has the arm fewer"
    lines = [
        f"{_named(row)}: {row.A_logit:+.3f} [{row.A_logit_low:+.3f}, {row.A_logit_high:+.3f}] "
        "logits"
        + (
            f", E = {row.E:+.3f} [{row.E_low:+.3f}, {row.E_high:+.3f}]"
            if np.isfinite(row.E)
            else ""
        )
        for row in rows.itertuples()
    ]
    above, below = int((curves.E_low > 0).sum()), int((curves.E_high < 0).sum())
    return (
        f"of {len(curves)} settings with an accuracy curve E is above 0 in {above} and below in "
        f"{below} ({curves.E.min():+.3f} to {curves.E.max():+.3f}; n = {curves.n.min()} seeds); of "
        f"the amplified settings, {'; '.join(lines) or 'none'}"
    )


def _together(stored_results: Stored) -> str:
    """Filters against their controls: pairs of variants that differ in the filter only."""
    lines = []
    for study, parts in stored_results.parts.items():
        by_filter = {
            r.of("generated")[0].experiment.filter: r for r in parts.values() if r.of("generated")
        }
        for tested, control in (
            ("classifier", "random-cell"),
            ("expert", "frozen"),
            ("classifier", "none"),
        ):
            if tested in by_filter and control in by_filter:
                e = difference(
                    by_filter[tested].of("generated"), by_filter[control].of("generated")
                )
                lines.append(f"{tested} - {control} = {interval(e)}, n = {e.n} ({study})")
    return "; ".join(lines) or "not stored: no study compares filters"


def _of_data_set(*names: str) -> Callable[[Stored], str]:
    def result(stored_results: Stored) -> str:
        table = stored_results.effects[stored_results.effects.dataset.isin(names)]
        return _tally(table) if len(table) else f"not stored: no study on {' or '.join(names)}"

    return result


def _hundreds(stored_results: Stored) -> str:
    outcomes = stored_results.outcomes
    generated = sum(o.experiment.arm == "generated" for o in outcomes)
    return (
        f"{len(outcomes)} experiments in {len(stored_results.effects)} settings stored, "
        f"{generated} of them with a generator, the others controls; "
        f"{stored_results.cost.process_hours.sum():.0f} process hours"
    )


def _metrics(stored_results: Stored) -> str:
    """Do other metrics say the same? Last generation of the arm generated against none, counted
    over settings."""
    lines = []
    for metric in ("accuracy", "accuracy-gap", "equal-opportunity-mean", "worst-group-accuracy"):
        up = down = n = 0
        for row in stored_results.effects[
            stored_results.effects.n >= SEEDS_FOR_VERDICT
        ].itertuples():
            results = stored_results.parts[row.study][row.variant]
            d = _last(results.of("generated"), metric) - _last(results.of("none"), metric)
            e = over_seeds(d)
            up, down, n = up + (e.low > 0), down + (e.high < 0), n + 1
        lines.append(f"{metric} up in {up}, down in {down}")
    return f"95 % intervals over seeds, {n} settings, uncorrected: {'; '.join(lines)}"


def _last(outcomes: list[Any], metric: str) -> np.ndarray:
    """A metric with one value in the last generation, mean over the classifiers of a seed;
    (n_seeds,)."""
    return np.array(
        [
            np.mean([o.values(metric, -1, r)[0].value for r in range(o.predicted.shape[1])])
            for o in outcomes
        ]
    )


def _conjecture(stored_results: Stored) -> str:
    lines = [
        f"{setting} ({study}), {what}: {j}"
        for (study, setting, what), j in stored_results.judgements.items()
    ]
    return "; ".join(lines) or "not stored: no study assigns several levels of bias"


def _augmented(stored_results: Stored) -> str:
    table = stored_results.effects[
        (stored_results.effects.n >= SEEDS_FOR_VERDICT)
        & (stored_results.effects.start != "unbiased")
    ]
    lines = []
    for protocol, rows in table.groupby("protocol", sort=True):
        count = rows.verdict.value_counts()
        lines.append(
            f"{protocol}: {count.get('amplified', 0)} of {len(rows)} amplified, A "
            f"{rows.A.min():+.3f} to {rows.A.max():+.3f}"
        )
    return f"biased starts, {'; '.join(lines)}; n = {table.n.min()} seeds"


LEDGER = (
    Claim(
        "generated images in training sets may amplify the bias of later classifiers",
        "A > 0: adding generated images widens the accuracy contrast, against retraining alone; "
        "because they are generated: R > 0",
        ("summary", "colorized_mnist", "colorized_mnist_start"),
        _amplifies,
    ),
    Claim(
        "bias of subgroups is another matter than overall performance",
        "A > 0 on the logit scale as well, and E > 0: beyond what classifiers of fewer real images "
        "show at equal accuracy",
        ("summary",),
        _beyond_accuracy,
    ),
    Claim(
        "generator and classifier are trained together, in one loop",
        "a classifier of the loop that filters generated images moves the contrast beyond what its "
        "acceptance rates do",
        ("colorized_mnist_filter",),
        _together,
    ),
    Claim(
        "effects are studied on Colorized MNIST",
        "A differs from 0 on crossed groups that we paint",
        ("colorized_mnist", "colorized_mnist_start", "colorized_mnist_protocol"),
        _of_data_set("colorized-mnist", "colorized-mnist-5k"),
    ),
    Claim(
        "effects are studied on CIFAR-20 and CIFAR-100",
        "A differs from 0 on nested groups (fine in coarse classes)",
        ("cifar20", "cifar20_condition"),
        _of_data_set("cifar20", "cifar100"),
    ),
    Claim(
        "effects are studied on Hard ImageNet",
        "A differs from 0 where classes have spurious cues",
        ("hard_imagenet", "hard_imagenet_filter"),
        _of_data_set("hard-imagenet"),
    ),
    Claim(
        "hundreds of experiments",
        "the study holds hundreds of experiments, controls included",
        ("summary",),
        _hundreds,
    ),
    Claim(
        "fairness metrics change across generations",
        "several metrics differ between the arms generated and none in the last generation",
        ("summary",),
        _metrics,
    ),
    Claim(
        "data sets that are augmented again and again",
        "the way in which generated images enter (protocol) matters",
        ("colorized_mnist_protocol",),
        _augmented,
    ),
    Claim(
        "a conjecture about the dynamics of bias",
        "; rivals: ".join(
            [HYPOTHESES["drift"], f"{HYPOTHESES['growth']}; {HYPOTHESES['no change']}"]
        ),
        ("conjecture", "colorized_mnist_transfer"),
        _conjecture,
    ),
    Claim(
        "implications for fairness in real-world applications",
        "none",
        (),
        "groups are painted colours, fine classes and image sources, not people, and models are "
        "small",
    ),
)


def table(stored_results: Stored) -> pd.DataFrame:
    """The ledger with its results: claim, hypothesis, notebooks, result."""
    return pd.DataFrame(
        [(c.claim, c.hypothesis, ", ".join(c.notebooks), c.says(stored_results)) for c in LEDGER],
        columns=["claim", "hypothesis", "notebooks", "result"],
    )


def markdown(stored_results: Stored) -> str:
    """The ledger as a table in Markdown."""
    lines = [
        "| claim, in our words | our hypothesis | notebooks | result, from stored results |",
        "| --- | --- | --- | --- |",
    ]
    for row in table(stored_results).itertuples():
        notebooks = ", ".join(f"`{name}`" for name in row.notebooks.split(", ") if name) or "none"
        lines.append(
            f"| {row.claim} | {row.hypothesis} | {notebooks} | {row.result.replace('|', '/')} |"
        )
    return "\n".join(lines)
