"""What feedback does: the accuracy contrast with and without it, and the groups of the fresh real
images that it chooses."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...experiment import PROTOCOLS
from ...inference.contrasts import headline
from ...inference.verdicts import feedback, verdict
from ...loop.results import Results
from ...measures.shares import favoured_part, told_counts
from ._families import PALETTE, Variants, _mark
from ._style import WIDTH, by_seed, legend, lines_of_seeds, signed, use_style

ARMS = ("generated", "real")
MARKERS = "osD^vP"


def with_feedback(parts: Variants) -> tuple[Figure, pd.DataFrame]:
    """Over generations, for the arms generated (above) and real: the accuracy contrast, and the
    share of the cells that the start favours among the fresh real images that enter the next
    training set. A line of one colour is a variant, a thin one a seed.

    parts    variants under protocols with fresh images, from a biased start
    returns  the figure and its table: variant, arm, seed, generation, contrast, fresh share (nan in
             the last generation, after which nothing is added)
    raises   ValueError   if a variant has another protocol, or its start favours nothing
    """
    use_style()
    table = pd.concat(
        [_values(name, results, arm) for name, results in parts.items() for arm in ARMS],
        ignore_index=True,
    )
    arms = [arm for arm in ARMS if arm in set(table.arm)]
    panels = {
        "contrast": "accuracy contrast (signed)",
        "fresh share": "favoured share of fresh images (line: the start)",
    }
    started = next(iter(parts.values())).outcomes
    start_share = float(np.mean([favoured_part(o.in_start(), o.favoured) for o in started]))
    figure, axes = plt.subplots(
        len(arms), len(panels), figsize=(WIDTH, 0.7 + 2.1 * len(arms)), squeeze=False, sharey="col"
    )
    for row, arm in zip(axes, arms, strict=True):
        for axis, (column, label) in zip(row, panels.items(), strict=True):
            for i, name in enumerate(parts):
                own = table[(table.arm == arm) & (table.variant == name)].dropna(subset=[column])
                # the first two colours are those of arms elsewhere
                color, marker = PALETTE[(i + 2) % len(PALETTE)], MARKERS[i % len(MARKERS)]
                style = {"color": color, "marker": marker}
                if not own.empty:
                    lines_of_seeds(axis, by_seed(own, column), name, **style)
            level = 0.0 if column == "contrast" else start_share
            axis.axhline(level, color="#999999", linewidth=0.8)
            axis.set_title(f"{label}\narm {arm}")
            axis.set_xlabel("generation")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, axes.flat)
    return signed(figure, _mark(parts)), table


def feedback_table(parts: Variants) -> pd.DataFrame:
    """What feedback does in the last generation, see `inference.feedback`: variant, arm, P with its
    interval, M(fresh), margin, the words, n, and whether a plan had asked."""
    rows = [
        (
            found.variant,
            found.arm,
            found.change.a.mean,
            found.change.a.low,
            found.change.a.high,
            found.change.level.mean,
            found.change.margin,
            str(verdict(found.change, found.corrected)),
            found.change.a.n,
            found.status,
        )
        for found in feedback(parts)
    ]
    columns = ["variant", "arm", "P", "low", "high", "M(fresh)", "margin", "words", "n", "status"]
    return pd.DataFrame(rows, columns=columns)


def fresh_counts(o: Any) -> np.ndarray:
    """Fresh real images by class and group that generation t adds: what the next pool has more than
    its own, without the batch; (T, n_classes, n_groups) int.

    o        Outcome under a protocol that keeps the start and all batches, with fresh images
    raises   ValueError   for another protocol
    """
    protocol = PROTOCOLS[o.experiment.protocol]
    if not protocol.fresh or not protocol.start or protocol.batches != "all":
        raise ValueError(
            "fresh images are counted under protocols that add them and keep all images; got "
            f"{o.experiment.protocol!r}"
        )
    added = np.diff(o.in_pools(), axis=0)
    batches = [told_counts(b["trained"], b["group"], o.occurs.shape) for b in o.batches]
    return (added - np.array(batches))[..., :-1]


def _values(name: str, results: Results, arm: str) -> pd.DataFrame:
    """Rows of one variant and arm."""
    columns = ["variant", "arm", "seed", "generation", "contrast", "fresh share"]
    outcomes, rows = results.of(arm), []
    for o, line in zip(outcomes, headline(outcomes) if outcomes else (), strict=True):
        if not o.biased:
            raise ValueError(f"{name}: an unbiased start favours no group; use start biased")
        shares = [favoured_part(counts, o.favoured) for counts in fresh_counts(o)]
        for t, (contrast, share) in enumerate(zip(line, [*shares, np.nan], strict=True)):
            rows.append((name, arm, o.experiment.seed, t, contrast, share))
    return pd.DataFrame(rows, columns=columns)
