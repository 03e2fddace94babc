"""What is kept of finished experiments, and the one tidy table made from it.

Predictions are kept, metrics are computed from them when asked for, so a new metric needs no
retraining. The table is long: one row per experiment, generation, metric, class and group. Columns
are in `COLUMNS`; undefined is NaN with n = 0.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..core.registry import FILTERS, METRICS
from ..experiment import AS_FOUND, Experiment
from ..inference.contrasts import check_one_setting
from ..inference.plans import Plan
from ..measures.fitness import CRITERIA
from ..measures.metrics import Value, cells, measure_all, refusal
from ..measures.quality import NAMES
from ..measures.shares import favoured_part, told_counts
from ..measures.spurious import values as spurious_values

COLUMNS = (
    "experiment",
    "pair",
    "scale",
    "numerics",
    "dataset",
    "start",
    "bias",
    "n_real",
    "generator",
    "condition",
    "classifier",
    "labels",
    "ratio",
    "protocol",
    "filter",
    "arm",
    "prior",
    "seed",
    "replicate",
    "generation",
    "measured_on",
    "split",
    "metric",
    "label",
    "group",
    "value",
    "n",
)
_NOTHING_OF_TRAINING = (
    "these are predictions of a loop elsewhere: nothing is known of its training sets"
)
# results keep confidences as multiples of 1 / 85: one byte in references; ECE moves < 0.003
CONFIDENCE_STEPS = 85


def steps_of(confidence: np.ndarray) -> np.ndarray:
    """Confidences in [0, 1] as whole numbers of steps of 1 / CONFIDENCE_STEPS, uint8."""
    return np.rint(confidence * CONFIDENCE_STEPS).astype(np.uint8)


def confidence_of(steps: np.ndarray) -> np.ndarray:
    """Confidences of so many steps, float32."""
    return (steps / CONFIDENCE_STEPS).astype(np.float32)


@dataclass(frozen=True)
class Outcome:
    """What is kept of one experiment.

    T + 1 generations, R classifiers a generation, N test images, q images in a batch.

    occurs      (n_classes, n_groups) bool      which groups a class has
    favoured    (n_classes, n_groups) int       1 where the start favours the cell, -1 where not
    counts      (n_classes, n_groups) int       images of the start; None of a loop elsewhere
    sizes       images per class                available, in start, reserve and instruments
    label, group, unit   (N,) int               of the test images; a unit is one photograph
    paired      every photograph is shown in every group
    predicted   (T + 1, R, N) int
    confidence  (T + 1, R, N) float             probability of the predicted class; None where it is
                                                not known
    batches     per generation, of each image   label (told), oracle (class it shows), group
                                                (probed), trained (training label); of each
                                                candidate of a filter candidate_label,
                                                candidate_group, accepted
    quality     per generation                  metric (position in quality.NAMES), value, n, where
                                                (label, group); empty if the instrument has no
                                                features
    fitness     per generation                  value and n in the order of fitness.CRITERIA; empty
                                                where nothing is generated, and in results stored
                                                without
    spurious    (T + 1, R, N, ...)              see `spurious.responses`; empty without masks
    pools       (T + 1, n_classes, n_groups + 1) int   training label x group; the last: unclear;
                                                None of a loop elsewhere
    origins     (T + 1, 3) int                  images of each pool by `pools.ORIGINS`; None in
                                                results stored without
    grids       per generation                  sample grid (n, 3, H, W) uint8, empty for controls
    confusion   (n_groups, n_groups + 1) int    probe on test images, true x told group; None if the
                                                probe is exact
    stages      generation -> ids of the stages whose values are kept
    cost        seconds by stage, memory, processor, commits, versions
    made_with   versions of registry entries, by kind and name
    caption     what figures must say of the data, beside their name
    levels      of a path, one per generation; see `Experiment.levels`
    draws       what the photographs of seeds have in common; see `RealData.draws`
    """

    experiment: Experiment
    numerics: str
    scale: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    design: str
    occurs: np.ndarray
    favoured: np.ndarray
    label: np.ndarray
    group: np.ndarray
    unit: np.ndarray
    paired: bool
    predicted: np.ndarray
    # what a table of predictions does not tell
    counts: np.ndarray | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    confidence: np.ndarray | None = None
    batches: list[dict[str, np.ndarray]] = field(default_factory=list)
    quality: list[dict[str, np.ndarray]] = field(default_factory=list)
    spurious: dict[str, np.ndarray] = field(default_factory=dict)
    pools: np.ndarray | None = None
    origins: np.ndarray | None = None
    grids: list[np.ndarray] = field(default_factory=list)
    confusion: np.ndarray | None = None
    stages: dict[str, list[str]] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=dict)
    caption: str = ""
    levels: tuple[float, ...] = ()
    draws: str = "shared"
    fitness: Sequence[dict[str, np.ndarray]] = ()

    @property
    def record(self) -> dict[str, Any]:
        """JSON that says what was run and where its values are."""
        e = self.experiment
        return {
            "experiment": e.id,
            "pair": e.pair,
            "arm": e.arm,
            "scale": self.scale,
            "numerics": self.numerics,
            "fields": e.fields(),
            "entries": self.made_with,
            "sizes": self.sizes,
            "stages": self.stages,
            "cost": self.cost,
        }

    @property
    def biased(self) -> bool:
        return bool(self.favoured.any())

    def in_start(self) -> np.ndarray:
        """`counts`; ValueError where they are not known."""
        if self.counts is None:
            raise ValueError(_NOTHING_OF_TRAINING)
        return self.counts

    def in_pools(self) -> np.ndarray:
        """`pools`; ValueError where they are not known."""
        if self.pools is None:
            raise ValueError(_NOTHING_OF_TRAINING)
        return self.pools

    def correct(self) -> np.ndarray:
        """(T + 1, R, N) bool: whether each test image was told rightly."""
        return self.predicted == self.label

    def cell_accuracy(self, t: int) -> np.ndarray:
        """Accuracy of each cell in generation t, mean over classifiers; (n_classes, n_groups), nan
        where no image."""
        return np.mean(
            [cells(self.label, p, self.group, self.occurs)[0] for p in self.predicted[t]], axis=0
        )

    def measure(self, metric: str) -> pd.DataFrame:
        """Rows of one metric; ValueError with the reason if the design forbids it."""
        return _frame([(self, self._of_predictions([metric]))])

    def rows(self) -> Iterator[tuple]:
        """What the table tells of it, row by row, in the order of `_OF_ROW`."""
        yield from self._of_predictions([name for name in METRICS if not self.refusal(name)])
        yield from self._of_masks()
        yield from self._of_batches()

    def refusal(self, metric: str) -> str | None:
        """Why a metric of its predictions is not defined, or not known; None if it is."""
        unknown = [name for name, value in self._known(0, 0).items() if value is None]
        return refusal(metric, self.design, self.biased, self.paired, unknown)

    def values(self, metric: str, t: int, r: int) -> list[Value]:
        """Values of one metric of predictions in generation t, of its classifier r; ValueError with
        the reason if the design forbids it."""
        return self._values([metric], t, r)[metric]

    def _values(self, metrics: list[str], t: int, r: int) -> dict[str, list[Value]]:
        return measure_all(
            metrics,
            self.label,
            self.predicted[t, r],
            self.group,
            design=self.design,
            biased=self.biased,
            paired=self.paired,
            known=self._known(t, r),
        )

    def _known(self, t: int, r: int) -> dict[str, np.ndarray | None]:
        """What metrics may ask for; None: not known."""
        return {
            "occurs": self.occurs,
            "favoured": self.favoured,
            "unit": self.unit,
            "start_counts": self.counts,
            "confidence": None if self.confidence is None else self.confidence[t, r],
            "pool_counts": None if self.pools is None else self.pools[t, :, :-1],
        }

    def _of_predictions(self, metrics: list[str]) -> Iterator[tuple]:
        for t, r in np.ndindex(self.predicted.shape[:2]):
            for metric, values in self._values(metrics, t, r).items():
                for value in values:
                    yield self._row(t, r, "classifier", "test", metric, value)

    def _of_masks(self) -> Iterator[tuple]:
        for t, r in np.ndindex(self.predicted.shape[:2] if self.spurious else (0, 0)):
            for metric, value in spurious_values(
                {name: array[t, r] for name, array in self.spurious.items()}, self.label
            ):
                yield self._row(t, r, "classifier", "test", metric, value)

    def _of_batches(self) -> Iterator[tuple]:
        if self.counts is not None:
            yield from self._of_start(self.counts)
        for t, batch in enumerate(self.batches):
            for metric, value in batch_values(batch, self.favoured):
                yield self._row(t, 0, "batch", "generated", metric, value)
            if self.quality:
                yield from (
                    self._row(t, 0, "batch", "generated", name, v)
                    for name, v in quality_values(self.quality[t])
                )
            if self.fitness:
                told = self.fitness[t]
                for name, value, n in zip(CRITERIA, told["value"], told["n"], strict=True):
                    measured = Value(float(value), int(n))
                    yield self._row(t, 0, "batch", "generated", f"fitness-{name}", measured)
            if "accepted" in batch:
                for metric, value in candidate_values(batch, self.favoured.shape, self.experiment):
                    yield self._row(t, 0, "candidates", "generated", metric, value)

    def _of_start(self, counts: np.ndarray) -> Iterator[tuple]:
        n_real = int(counts.sum())
        for g, n in enumerate(counts.sum(0)):
            yield self._row(
                0, 0, "start", "train", "group-share", Value(n / n_real, n_real, group=g)
            )
        if self.biased:
            favoured = favoured_part(counts, self.favoured)
            yield self._row(0, 0, "start", "train", "favoured-share", Value(favoured, n_real))

    def _row(
        self, t: int, replicate: int, measured_on: str, split: str, metric: str, v: Value
    ) -> tuple:
        label = None if v.label is None else self.classes[v.label]
        group = None if v.group is None else self.groups[v.group]
        return replicate, t, measured_on, split, metric, label, group, v.value, v.n


def batch_values(batch: dict[str, np.ndarray], favoured: np.ndarray) -> Iterator[tuple[str, Value]]:
    """Shares and label agreement of one batch; favoured (n_classes, n_groups) as in `metrics`.

    group-share      P(probed group = g), among images with a clear group; nan if there is none
    favoured-share   P(probed group is one that the biased start favours in the told class), among
                     the same images
    clear-share      P(the group is clear)
    relabelled       P(training label in later pools is not the told class)
    label-agreement  P(oracle's class = told class), of all, per class, and per probed group
    """
    label, oracle, group = batch["label"], batch["oracle"], batch["group"]
    clear, agree = group >= 0, oracle == label
    shape, n = favoured.shape, int(clear.sum())
    counts = told_counts(label, group, shape)[:, :-1]
    yield "clear-share", _rate(clear)
    if favoured.any():
        yield "favoured-share", Value(favoured_part(counts, favoured), n)
    for g, count in enumerate(counts.sum(0)):
        yield "group-share", Value(count / n if n else float("nan"), n, group=g)
    yield "relabelled", _rate(batch["trained"] != label)
    yield from _by_class_and_group("label-agreement", agree, label, group, shape)


def entries_of(e: Experiment) -> dict[str, str]:
    """Versions of the registry entries that an experiment rests on, by kind and name."""
    entries = [
        e.dataset_entry,
        *(e.entry(role) for role in ("generator", "classifier", "instrument")),
        FILTERS[e.filter],
    ]
    return {f"{entry.noun} {entry.name}": entry.identity for entry in entries}


def quality_values(found: dict[str, np.ndarray]) -> Iterator[tuple[str, Value]]:
    """Values of one batch as `quality` gave them, measured with the features of the experiment's
    instrument."""
    for metric, value, n, (y, g) in zip(
        found["metric"], found["value"], found["n"], found["where"], strict=True
    ):
        yield (
            NAMES[metric],
            Value(float(value), int(n), None if y < 0 else int(y), None if g < 0 else int(g)),
        )


def candidate_values(
    batch: dict[str, np.ndarray], shape: tuple[int, ...], e: Experiment
) -> Iterator[tuple[str, Value]]:
    """What a filter did to one batch.

    acceptance   P(accepted), of all candidates, per told class, and per probed group
    tries        candidates / images asked for
    shortfall    images asked for that the batch lacks / images asked for
    """
    asked = e.n_batch - e.n_fresh
    yield "tries", Value(len(batch["accepted"]) / asked, asked)
    yield "shortfall", Value(1 - len(batch["label"]) / asked, asked)
    yield from _by_class_and_group(
        "acceptance", batch["accepted"], batch["candidate_label"], batch["candidate_group"], shape
    )


def _rate(hit: np.ndarray, **where: int) -> Value:
    return Value(float(np.mean(hit)) if len(hit) else float("nan"), len(hit), **where)


def _by_class_and_group(
    name: str, hit: np.ndarray, label: np.ndarray, group: np.ndarray, shape: tuple[int, ...]
) -> Iterator[tuple[str, Value]]:
    """Share of hits among all, per class and per group; images of unclear group are in no group."""
    yield name, _rate(hit)
    for y in range(shape[0]):
        yield name, _rate(hit[label == y], label=y)
    for g in range(shape[1]):
        yield name, _rate(hit[group == g], group=g)


_OF_ROW = {  # columns in which rows of one experiment differ
    "replicate": np.int64,
    "generation": np.int64,
    "measured_on": object,
    "split": object,
    "metric": object,
    "label": object,
    "group": object,
    "value": np.float64,
    "n": np.int64,
}


def table_of(outcomes: Iterable[Outcome], whole: bool = False) -> pd.DataFrame:
    """The tidy table of outcomes, which are taken one after another and not kept.

    whole   only rows that are of no single class or group
    """
    return _frame((o, (row for row in o.rows() if not whole or _is_whole(row))) for o in outcomes)


def _is_whole(row: tuple) -> bool:
    told = dict(zip(_OF_ROW, row, strict=True))
    return told["label"] is None and told["group"] is None


def _frame(told: Iterable[tuple[Outcome, Iterable[tuple]]]) -> pd.DataFrame:
    """A table of outcomes and their rows, put together column by column, so that little more than
    the table is ever in memory."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _OF_ROW}
    of_outcomes: list[dict[str, Any]] = []
    for outcome, rows in told:
        by_column = list(zip(*rows, strict=True)) or [()] * len(_OF_ROW)
        for (name, dtype), column in zip(_OF_ROW.items(), by_column, strict=True):
            parts[name].append(np.array(column, dtype))
        of_outcomes.append(_of_outcome(outcome))
    n_rows = [len(part) for part in parts["n"]]
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in parts:
            values = np.concatenate(parts.pop(name))
        else:
            once = [of_outcome[name] for of_outcome in of_outcomes]
            text = isinstance(once[0], str)
            values = np.repeat(np.array(once, object if text else None), n_rows)
        columns[name] = pd.Series(values, copy=False)
    return pd.DataFrame(columns, copy=False)


def _of_outcome(outcome: Outcome) -> dict[str, Any]:
    """The columns in which all rows of one experiment agree."""
    e = outcome.experiment
    same = {
        "experiment": e.id,
        "pair": e.pair,
        "scale": outcome.scale,
        "numerics": outcome.numerics,
        "arm": e.arm,
        "prior": e.prior,
    }
    fields = [name for name in COLUMNS if name not in same and name not in _OF_ROW]
    return same | {name: getattr(e, name) for name in fields}


def _predictions_of(o: Outcome) -> pd.DataFrame:
    """The rows of one outcome, see `Results.predictions`."""
    n_generations, n_replicates, n_images = o.predicted.shape
    times, e = n_generations * n_replicates, o.experiment

    def of_image(values: np.ndarray) -> np.ndarray:
        return np.tile(values, times)

    def named(codes: np.ndarray, names: Sequence[str]) -> pd.Categorical:
        return pd.Categorical.from_codes(of_image(codes), pd.Index(names))

    columns: dict[str, Any] = {
        "arm": e.arm,
        "seed": e.seed,
        "generation": np.repeat(np.arange(n_generations), n_replicates * n_images),
        "replicate": np.tile(np.repeat(np.arange(n_replicates), n_images), n_generations),
        "image": of_image(np.arange(n_images)),
        "unit": of_image(o.unit),
        "label": of_image(o.label),
        "group": of_image(o.group),
        "predicted": o.predicted.ravel(),
        "label_name": named(o.label, o.classes),
        "group_name": named(o.group, o.groups),
    }
    if o.confidence is not None:
        columns["confidence"] = o.confidence.ravel()
    if o.biased:
        columns["favoured"] = of_image(o.favoured[o.label, o.group] > 0)
        # one as found leans by its shares, whose strength is no number
        if e.start != AS_FOUND and not math.isnan(e.bias):
            columns["bias"] = e.bias
    return pd.DataFrame(columns)


class Results:
    """Outcomes of several experiments.

    table     tidy DataFrame over all of them
    counts    how many stages of each kind this call computed and found
    plan      what was asked before they were run; None: nothing was, so all is exploratory
    settings  what a notebook was asked otherwise than its cell says, which figures carry
    study     hash of all experiments that were asked for with these; empty if nobody says
    """

    def __init__(
        self,
        outcomes: list[Outcome],
        counts: dict[tuple[str, str], int] | None = None,
        note: str = "",
        plan: Plan | None = None,
        settings: Mapping[str, Any] | None = None,
        study: str = "",
    ) -> None:
        if not outcomes:
            raise ValueError("there are no results: no experiment was given")
        self.outcomes, self.counts, self.note = outcomes, counts or {}, note
        self.plan, self.settings, self.study = plan, dict(settings or {}), study

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        return table_of(self.outcomes)

    def measure(self, metric: str) -> pd.DataFrame:
        """Rows of one metric; ValueError if it is unknown or the design forbids it, with the
        reason."""
        METRICS[metric]
        return _frame((o, o._of_predictions([metric])) for o in self.outcomes)

    def of(self, arm: str) -> list[Outcome]:
        """Outcomes of one arm, by seed."""
        return sorted(
            (o for o in self.outcomes if o.experiment.arm == arm), key=lambda o: o.experiment.seed
        )

    def predictions(self) -> pd.DataFrame:
        """Every prediction as a row: the table that `score` reads.

        returns  arm, seed, generation (of a path its level), replicate, image, unit; label, group,
                 predicted (numbers, so that a file keeps their order); label_name, group_name (how
                 they are called); confidence where it is known; of a start that favours cells also
                 favoured (whether the image is in one) and bias (strength of the start)
        raises   ValueError   if these results are of several settings
        """
        for arm in {o.experiment.arm for o in self.outcomes}:
            check_one_setting(self.of(arm))
        return pd.concat(map(_predictions_of, self.outcomes), ignore_index=True)

    def __repr__(self) -> str:
        arms = sorted({o.experiment.arm for o in self.outcomes})
        seeds = len({o.experiment.seed for o in self.outcomes})
        return f"Results: {len(self.outcomes)} experiments, {seeds} seed(s), arms {', '.join(arms)}"
