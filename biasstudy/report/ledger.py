"""The ledger: each claim of the paper's abstract, our hypothesis, the notebook that tests it, and
what stored results say.

Claims are in our words; of the paper only its abstract is known. No number is typed: every result
is computed from the results that ship with the package, and what they cannot say is said with its
reason. docs/findings.md holds the table between marks, see `numbers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core.registry import FILTERS
from ..experiment import PATHS, Experiment
from ..inference.conjecture import HYPOTHESES
from ..inference.contrasts import difference
from ..inference.excess import OUT_OF_REACH
from ..inference.gate import FIT, NO_FIT, UNFIT, UNKNOWN
from ..inference.intervals import over_seeds
from ..inference.verdicts import (
    AMPLIFIED,
    MORE_THAN_REAL,
    SEEDS_FOR_VERDICT,
    WORDS,
    WORSE,
    in_words,
    with_interval,
)
from .summary import Stored, amplified, start_and_models


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


def _tally(table: pd.DataFrame) -> str:
    """Settings with a bias to amplify by verdict, fit generators and others apart, and the largest
    |A| among them with its interval; unbiased starts, remedies and feedback apart."""
    table = table[table.n >= SEEDS_FOR_VERDICT]
    if table.empty:
        return f"not stored with {SEEDS_FOR_VERDICT} seeds"
    biased = table[table.counted]
    plain = table[~table.remedy & ~table.feedback]
    fit, unfit, unknown = (biased[biased.fit == word] for word in (FIT, UNFIT, UNKNOWN))
    parts = [] if len(fit) or biased.empty else [f"{NO_FIT} among the biased starts"]
    for says, settings in (
        ("with a biased start and a fit generator", fit),
        ("with a biased start and an unfit generator", unfit),
        ("with a biased start and a generator whose fitness was not measured", unknown),
        ("whose favoured groups are served worse", plain[plain.word == WORSE]),
        ("from an unbiased start", plain[~plain.has_bias & (plain.word != WORSE)]),
        ("with a remedy", table[table.remedy]),
        ("with feedback on who comes", table[table.feedback]),
    ):
        if len(settings):
            count = settings.word.value_counts()
            words = ", ".join(f"{word} in {count[word]}" for word in WORDS if word in count)
            parts.append(f"{len(settings)} setting{'s' * (len(settings) > 1)} {says}: {words}")
    if len(biased):
        top = biased.loc[biased.A.abs().idxmax()]
        parts.append(
            f"largest A = {with_interval(top.A, top.A_low, top.A_high)} against a margin of "
            f"{top.margin:.3f} ({top.setting})"
        )
    return f"{'; '.join(parts)}; n = {table.n.min()} seeds; {' and '.join(table.status.unique())}"


# ---- Results of each claim -----------------------------------------------------------------------


def _amplifies(stored_results: Stored) -> str:
    table = stored_results.effects
    up = amplified(table)
    more_than_real = up.beside_real == MORE_THAN_REAL
    together = [
        f"{row.dataset}, {row.verdict}: on average over {row.settings} "
        f"setting{'s' * (row.settings > 1)} A = {with_interval(row.A, row.A_low, row.A_high)}, "
        f"M(none) = {row.M_none:.3f}"
        for row in stored_results.data_sets.itertuples()
    ]
    return (
        f"{_tally(table)}; R above 0 as well in {int(more_than_real.sum())} of the {len(up)} "
        f"amplified; {'; '.join(together)}"
    )


def _beyond_accuracy(stored_results: Stored) -> str:
    table = stored_results.effects
    rows = amplified(table)
    lines = [
        f"{row.setting}: {with_interval(row.A_logit, row.A_logit_low, row.A_logit_high, 2)} "
        f"logits, {row.beyond}"
        for row in rows.itertuples()
    ]
    by_path = []
    for path in PATHS:
        low, high = table[f"E_{path}_low"], table[f"E_{path}_high"]
        if low.notna().any():
            by_path.append(
                f"over {path} E is above 0 in {int((low > 0).sum())} and below in "
                f"{int((high < 0).sum())} of {int(low.notna().sum())} settings"
            )
    if not by_path:
        return "not stored: no study has a path of lost accuracy"
    out_of_reach = int((table.beyond == OUT_OF_REACH).sum())
    return (
        f"{'; '.join(by_path)}; accuracy below a path's reach in {out_of_reach}; amplified "
        f"settings: {'; '.join(lines) or 'none'}"
    )


def _together(stored_results: Stored) -> str:
    """Filters against their controls: pairs of variants that differ in the filter only."""
    lines = []
    for parts in stored_results.parts.values():
        by_filter = {
            _filter(r.of("generated")[0].experiment): r for r in parts.values() if r.of("generated")
        }
        for tested, control in (
            ("classifier", "random-cell"),
            ("expert", "frozen"),
            ("classifier", "none"),
            ("rank top", "rank random"),
            ("rank bottom", "rank random"),
        ):
            if tested in by_filter and control in by_filter:
                e = difference(
                    by_filter[tested].of("generated"), by_filter[control].of("generated")
                )
                first = by_filter[tested].of("generated")[0].experiment
                setting = f"{first.data_name}: {', '.join(start_and_models(first))}"
                lines.append(f"{tested} - {control} = {in_words(e)}, n = {e.n} ({setting})")
    return "; ".join(lines) or "not stored: no study compares filters"


def _filter(e: Experiment) -> str:
    """Name of a filter, and what it keeps where it ranks."""
    options = FILTERS[e.filter].resolve(e.filter_options)
    return f"{e.filter} {options['keep']}" if "keep" in options else e.filter


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
    how = "95 % intervals over seeds, uncorrected, floors not taken off"
    return f"{n} settings, {how}: {'; '.join(lines)}"


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
        f"{_data_of(stored_results.parts[study])}: {setting}, {what}: {j}"
        for (study, setting, what), j in stored_results.judgements.items()
    ]
    return "; ".join(lines) or "not stored: no study assigns several levels of bias"


def _data_of(parts: Mapping[str, Any]) -> str:
    """Data set of a study that varies the assigned bias."""
    return next(iter(parts.values())).outcomes[0].experiment.data_name


def _augmented(stored_results: Stored) -> str:
    table = stored_results.effects[
        (stored_results.effects.n >= SEEDS_FOR_VERDICT) & stored_results.effects.has_bias
    ]
    lines = []
    for protocol, rows in table.groupby("protocol", sort=True):
        count = rows.word.value_counts()
        lines.append(
            f"{protocol}: {count.get(AMPLIFIED, 0)} of {len(rows)} amplified, A "
            f"{rows.A.min():+.3f} to {rows.A.max():+.3f}"
        )
    return f"biased starts, {'; '.join(lines)}; n = {table.n.min()} seeds"


LEDGER = (
    Claim(
        "generated images in training sets may amplify the bias of later classifiers",
        "A > M(none)/4: adding generated images widens the accuracy contrast by more than a "
        "quarter, against retraining alone; more than new real images do: R > 0",
        ("summary", "colorized_mnist", "colorized_mnist_start"),
        _amplifies,
    ),
    Claim(
        "bias of subgroups is another matter than overall performance",
        "A > 0 on the logit scale as well, and E > 0 over all three paths: beyond what fewer "
        "images, shorter fits and noisier labels show at equal accuracy",
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
            [HYPOTHESES["drift"], f"{HYPOTHESES['growth']}; {HYPOTHESES['within a quarter']}"]
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
