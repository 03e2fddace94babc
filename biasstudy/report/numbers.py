"""The numbers in the texts: README and docs/findings.md say nothing of a result that is not written
from the results that ship with the package.

A text has marks. Between them stands what this module computes:

    <!-- NAME -->            a block: the answer, the ledger or a table; names in BLOCKS
    ...
    <!-- end -->

    <!--= NAME; study; variant -->+0.054 [+0.035, +0.073]<!--/-->     a value in a sentence; names
                                                                      in VALUES

No line may begin with a value: Markdown takes such a line for HTML.

`python -m biasstudy ledger --write README.md docs/findings.md docs/method.md docs/answer.png`
renews the texts and the figure that README shows, and a test compares. To add a table or a value:
write one function here, and its name into BLOCKS or VALUES.
"""

import inspect
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from ..core.checks import listed, unknown
from ..experiment import PATHS
from ..inference.contrasts import CONTRASTS, contrast, curve, decompose, headline
from ..inference.dynamics import held_out, prediction_errors
from ..inference.excess import all_excesses
from ..inference.gate import FIT, UNFIT, gate
from ..inference.intervals import over_seeds
from ..inference.plans import CONFIRMATORY
from ..inference.scales import growth, relative_contrast
from ..inference.secondary import secondary_of_settings
from ..inference.verdicts import feedback, in_words, verdict, with_interval
from ..loop.results import Results, batch_values, quality_values
from ..measures.fitness import CRITERIA, misses
from ..measures.shares import favoured_part
from . import figures, ledger
from .figures import corrected_table, fresh_counts
from .shipped import REFERENCE
from .summary import Stored, amplified, answer

BLOCK = re.compile(r"<!-- (?P<name>\w[\w ]*) -->\n(?:(?!<!--).)*<!-- end -->", re.S)
VALUE = re.compile(r"<!--= (?P<key>[^<>]+?) -->(?:(?!<!--).)*<!--/-->", re.S)

DATA = {
    "colorized-mnist": "full MNIST",
    "colorized-mnist-5k": "5,000 digits",
    "cifar20": "CIFAR-100",
    "hard-imagenet": "Hard ImageNet, box masks",
    "mnist-by-thickness": "MNIST by thickness of strokes",
}
MODELS = {"gan": "GAN", "vae": "autoencoder", "diffusion": "diffusion model"}


# ---- Settings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row of the table of all settings: what it says of them beside data, generator and
    generations, and which they are.

    settings  (study, variant), in the order of the results
    short     whether README shows the row, too
    """

    says: str
    settings: tuple[tuple[str, str], ...]
    short: bool = False


def _variants(study: str, *names: str) -> tuple[tuple[str, str], ...]:
    return tuple((study, name) for name in names)


LOW = (0.0, 0.2, 0.4, 0.6)  # levels of bias that one row shows

# fmt: off
ROWS = (
    Row("biased by 0.6, new digits for every seed, batches added (ratio 0.5)", _variants(
        "colorized_mnist_fit", "protocol accumulate, n_real 1300, ratio 0.5"), True),
    Row("the same, real data replaced (ratio 1)", _variants(
        "colorized_mnist_fit", "protocol replace, n_real 800, ratio 1.0")),
    Row("biased by 0.6, new digits for every seed, told digit and colour, added (ratio 0.5)",
        _variants("colorized_mnist_fit_mixture", "protocol accumulate, n_real 1300, ratio 0.5")),
    Row("biased by 0.6, new digits for every seed, told digit and colour, real data replaced",
        _variants("colorized_mnist_fit_mixture", "protocol replace, n_real 800, ratio 1.0"), True),
    Row("the same, added (ratio 0.5), twenty generations", _variants(
        "colorized_mnist_long", "protocol accumulate, n_real 1300, ratio 0.5")),
    Row("the same, real data replaced, twenty generations", _variants(
        "colorized_mnist_long", "protocol replace, n_real 800, ratio 1.0")),
    Row("biased by 0.6, new digits for every seed, batches added (ratio 1), no filter", _variants(
        "colorized_mnist_filter_fit", "filter none")),
    Row("the same, kept where the classifier sees the told digit", _variants(
        "colorized_mnist_filter_fit", "filter classifier")),
    Row("the same, kept at random at its rates", _variants(
        "colorized_mnist_filter_fit", "filter random-cell")),
    Row("biased by 0.6, new digits for every seed, the half that the classifier is surest of added",
        _variants("colorized_mnist_filter_fit", "filter rank, keep top, share 0.5"), True),
    Row("the same, a random half", _variants(
        "colorized_mnist_filter_fit", "filter rank, keep random, share 0.5")),
    Row("the same, the half that it is least sure of", _variants(
        "colorized_mnist_filter_fit", "filter rank, keep bottom, share 0.5")),
    Row("unbiased start, new digits for every seed, batches added (ratio 0.5)", _variants(
        "colorized_mnist_fit_unbiased", "protocol accumulate, n_real 1300, ratio 0.5")),
    Row("the same, real data replaced (ratio 1)", _variants(
        "colorized_mnist_fit_unbiased", "protocol replace, n_real 800, ratio 1.0")),
    Row("thick and thin as found, new digits for every seed, batches added (ratio 0.5)",
        _variants("digits_by_thickness", ""), True),
    Row("biased by 0.6, new digits for every seed, half of each batch fresh", _variants(
        "colorized_mnist_performative", "protocol fresh")),
    Row("the same, shares of fresh images follow accuracy (sensitivity 10)", _variants(
        "colorized_mnist_performative", "protocol performative, sensitivity 10.0")),
    Row("the same, sensitivity 100", _variants(
        "colorized_mnist_performative", "protocol performative, sensitivity 100.0")),
    Row("biased by 0.0 to 0.6, new digits for every seed, one batch added (ratio 1)", _variants(
        "colorized_mnist_transfer_fit", *(f"bias {b}" for b in LOW))),
    Row("the same, biased by 0.8", _variants("colorized_mnist_transfer_fit", "bias 0.8")),
    Row("start biased by 0.6", _variants("colorized_mnist_start", "start biased, bias 0.6")),
    Row("unbiased start", _variants("colorized_mnist_start", "start unbiased, bias 0.0")),
    Row("biased by 0.0 to 0.6", _variants(
        "colorized_mnist_transfer", *(f"generator mixture, bias {b}" for b in LOW))),
    Row("biased by 0.8", _variants("colorized_mnist_transfer", "generator mixture, bias 0.8")),
    Row("biased by 0.0 to 0.6", _variants(
        "colorized_mnist_transfer", *(f"generator gan, bias {b}" for b in LOW))),
    Row("biased by 0.8", _variants("colorized_mnist_transfer", "generator gan, bias 0.8")),
    Row("biased by 0.6, as `make study` trains it", _variants("colorized_mnist", "")),
    Row("biased by 0.6", _variants("colorized_mnist_gan", "")),
    Row("biased by 0.6, batches added (ratio 1)", _variants(
        "colorized_mnist_sweep", "start biased, bias 0.6, ratio 1.0, protocol accumulate")),
    Row("biased by 0.6, real data replaced", _variants(
        "colorized_mnist_sweep", "start biased, bias 0.6, ratio 1.0, protocol replace")),
    Row("biased by 0.6, subsampled to the start's size", _variants(
        "colorized_mnist_sweep", "start biased, bias 0.6, ratio 1.0, protocol subsample")),
    Row("biased by 0.6, subsampled, groups balanced (a remedy)",
        _variants("colorized_mnist_balanced", "protocol balanced"), True),
    Row("biased by 0.6",
        _variants("colorized_mnist_generator", "generator mixture", "generator vae")),
    Row("biased by 0.6",
        _variants("colorized_mnist_diffusion", "generator diffusion, guidance 1.0"), True),
    Row("biased by 0.6, guidance 1.5",
        _variants("colorized_mnist_generator", "generator diffusion, guidance 1.5")),
    Row("2 of 5 fine classes at 25 %, generator told the coarse class",
        _variants("cifar20_condition", "condition class")),
    Row("the same, told the fine class", _variants("cifar20_condition", "condition group")),
    Row("2 of 5 fine classes at 25 %, generator told the fine class",
        _variants("cifar20_fit", ""), True),
    Row("strong cues favoured by 0.4, pretrained SqueezeNet", _variants("hard_imagenet", "")),
    Row("the same, SqueezeNet from scratch", _variants("hard_imagenet_scratch", "")),
)
# fmt: on

ACCURACY = (
    *_variants(
        "colorized_mnist_fit",
        "protocol accumulate, n_real 1300, ratio 0.5",
        "protocol replace, n_real 800, ratio 1.0",
    ),
    *_variants(
        "colorized_mnist_fit_mixture",
        "protocol accumulate, n_real 1300, ratio 0.5",
        "protocol replace, n_real 800, ratio 1.0",
    ),
    *_variants(
        "colorized_mnist_filter_fit",
        "filter none",
        "filter rank, keep top, share 0.5",
        "filter rank, keep bottom, share 0.5",
    ),
    ("digits_by_thickness", ""),
    *_variants("colorized_mnist_start", "start unbiased, bias 0.0", "start biased, bias 0.6"),
    ("colorized_mnist", ""),
    ("colorized_mnist_gan", ""),
    ("colorized_mnist_diffusion", "generator diffusion, guidance 1.0"),
    ("colorized_mnist_generator", "generator diffusion, guidance 1.5"),
    ("cifar20_fit", ""),
    *_variants("cifar20_condition", "condition class", "condition group"),
    ("hard_imagenet", ""),
    ("hard_imagenet_scratch", ""),
)
BATCHES = tuple(setting for setting in ACCURACY if setting[0] != "hard_imagenet_scratch")
FEEDBACK_STUDY = "colorized_mnist_performative"
LONG_STUDY, LATER = "colorized_mnist_long", (1, 4, 10, 20)  # generations that are told
PARTS_OF = (
    ("colorized_mnist_diffusion", "generator diffusion, guidance 1.0"),
    *_variants("cifar20_condition", "condition class", "condition group"),
)
MASKS = {
    "relative-foreground-sensitivity": "foreground sensitivity",
    "ablated-accuracy-grey-object": "accuracy, object grey",
    "ablated-accuracy-grey-box": "accuracy, its box grey",
    "ablated-accuracy-tile": "accuracy, its box tiled over",
}


def _data(experiments: Iterable[Any]) -> str:
    """Data, images of the start, generators and generations of settings in words."""
    experiments = list(experiments)
    models = dict.fromkeys(MODELS.get(e.generator, e.generator) for e in experiments)
    first = experiments[0]
    generations = f"{first.n_generations} generation{'s' if first.n_generations > 1 else ''}"
    options = first.dataset_entry.resolve(first.dataset_options)
    pixels = f" at {options['size']} pixels" if first.dataset == "cifar20" else ""
    return ", ".join([f"{DATA[first.data_name]}{pixels} ({first.n_real:,})", *models, generations])


def _experiment(stored_results: Stored, study: str, variant: str) -> Any:
    return stored_results.parts[study][variant].of("generated")[0].experiment


def _setting(stored_results: Stored, study: str, variant: str) -> str:
    """A setting in words: data and generator, what makes it a variant, and n."""
    results = stored_results.parts[study][variant]
    scratch = "from scratch" if study.endswith("_scratch") else ""
    words = [_data([_experiment(stored_results, study, variant)]), variant or scratch]
    return f"{', '.join(filter(None, words))} (n = {len(results.of('generated'))})"


def _markdown(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: Iterable[float]) -> str:
    return f"{np.mean(list(values)):.2f}"


# ---- Blocks --------------------------------------------------------------------------------------


def _settings(stored_results: Stored, rows: Sequence[Row] = ROWS) -> str:
    """The answers of all settings: of several in one row that with the largest A, and the largest
    R; confirmatory stands at those that are, or in the header where all are the same."""
    lines, table = [], stored_results.effects.set_index(["study", "variant"])
    shown = table.loc[[setting for row in rows for setting in row.settings]]
    one_status = shown.status.iloc[0] if shown.status.nunique() == 1 else ""
    for row in rows:
        settings = table.loc[list(row.settings)]
        at_most = "at most " if len(settings) > 1 else ""
        a, beside = settings.loc[settings.A.idxmax()], settings[settings.R.notna()]
        r = "not run"
        if len(beside):
            most = beside.loc[beside.R.idxmax()]
            r = at_most + with_interval(most.R, most.R_low, most.R_high)
        verdicts = dict.fromkeys(
            setting.verdict
            + (f", {CONFIRMATORY}" if not one_status and setting.status == CONFIRMATORY else "")
            for setting in settings.itertuples()
        )
        lines.append(
            (
                _data(_experiment(stored_results, *setting) for setting in row.settings),
                row.says,
                str(settings.n.min()),
                f"{a.M_none:.3f}",
                at_most + with_interval(a.A, a.A_low, a.A_high),
                r,
                _fitness(settings),
                "; ".join(verdicts),
            )
        )
    last = f"verdict ({one_status})" if one_status else "verdict"
    header = ("data (start), generator", "setting", "seeds", "M(none)", "A", "R", "fit", last)
    return _markdown(header, lines)


def _fitness(settings: Any) -> str:
    """Whether the generators of some settings are fit, in a word, and what they miss."""
    return "; ".join(dict.fromkeys(map(_fit_or_not, settings.itertuples())))


def _fit_or_not(row: Any) -> str:
    if row.fit == UNFIT:
        return f"no: {row.missed}"
    if row.fit != FIT:
        return "not measured"
    return f"yes, later no: {row.decayed}" if row.decayed else "yes"


def _short(stored_results: Stored) -> str:
    return _settings(stored_results, [row for row in ROWS if row.short])


def _accuracy(stored_results: Stored) -> str:
    lines = []
    for study, variant in ACCURACY:
        results = stored_results.parts[study][variant]
        generated, real = (curve(results.of(arm), "accuracy") for arm in ("generated", "real"))
        lines.append(
            (
                _setting(stored_results, study, variant),
                f"{generated[:, 0].mean():.3f}",
                f"{generated[:, -1].mean():.3f}",
                f"{real[:, -1].mean():.3f}",
                in_words(over_seeds(generated[:, -1] - real[:, -1])),
                in_words(contrast(results, "A")),
                in_words(relative_contrast(results, "A")),
            )
        )
    header = (
        "setting",
        "generation 0",
        "last, `generated`",
        "last, `real`",
        "difference",
        "A",
        "A over accuracy",
    )
    return _markdown(header, lines)


def _of_batch(o: Any, t: int) -> dict[str, float]:
    """Metrics of one batch that are of no single class or group."""
    values = [*batch_values(o.batches[t], o.favoured)]
    values += [*quality_values(o.quality[t])] if o.quality else []
    return {name: v.value for name, v in values if v.label is None and v.group is None}


def _start_share(outcomes: list[Any]) -> float:
    return float(np.mean([favoured_part(o.counts, o.favoured) for o in outcomes]))


def _batches(stored_results: Stored) -> str:
    lines = []
    for study, variant in BATCHES:
        outcomes = stored_results.parts[study][variant].of("generated")
        ends = [[_of_batch(o, t) for o in outcomes] for t in (0, -1)]

        def both(name: str, ends: list[list[dict[str, float]]] = ends) -> str:
            values = [np.mean([batch.get(name, np.nan) for batch in end]) for end in ends]
            return "-" if np.isnan(values).any() else ", ".join(f"{v:.2f}" for v in values)

        # shares that a probe tells which errs are corrected elsewhere, or not told
        exact = outcomes[0].confusion is None and outcomes[0].biased
        lines.append(
            (
                _setting(stored_results, study, variant),
                both("label-agreement"),
                both("clear-share") if exact else "-",
                f"{_start_share(outcomes):.2f}" if exact else "-",
                both("favoured-share") if exact else "-",
                both("copied-share"),
            )
        )
    header = (
        "setting",
        "agreement",
        "clear group",
        "favoured in the start",
        "in batches",
        "copies",
    )
    return _markdown(header, lines)


def _predictions(stored_results: Stored) -> str:
    table = prediction_errors(
        held_out(
            stored_results.parts["colorized_mnist_transfer"],
            [results for parts in stored_results.parts.values() for results in parts.values()],
        )
    )
    lines = [
        (
            f"{row.setting}, {row.protocol}, bias {row.bias}, ratio {row.ratio}",
            str(row.generation),
            str(row.n),
            with_interval(row.error, row.low, row.high, 2),
            f"{row.error_unchanged:+.2f}",
        )
        for row in table.itertuples()
    ]
    header = ("setting", "generation", "seeds", "error of the map", 'error of "no change"')
    return _markdown(header, lines)


def _together(stored_results: Stored) -> str:
    lines = [
        (
            DATA[row.dataset],
            row.fit,
            str(row.settings),
            *(str(n) for n in (row.amplified, row.within, row.reduced, row.cannot_tell)),
            f"{row.M_none:.3f}",
            with_interval(row.A, row.A_low, row.A_high),
            row.verdict,
        )
        for row in stored_results.data_sets.itertuples()
    ]
    header = (
        "data",
        "generators",
        "settings",
        "amplified",
        "within a quarter",
        "reduced",
        "cannot tell",
        "M(none), mean",
        "A, mean over settings",
        "verdict on the mean",
    )
    return _markdown(header, lines)


def _excess(stored_results: Stored) -> str:
    lines = []
    effects = stored_results.effects
    for row in amplified(effects).to_dict("records"):
        results = stored_results.parts[row["study"]][row["variant"]]
        ends = [curve(results.of(arm), "accuracy")[:, -1].mean() for arm in ("generated", "real")]
        lines.append(
            (
                _setting(stored_results, row["study"], row["variant"]),
                f"{ends[0]:.3f}",
                f"{ends[1]:.3f}",
                *(_over(results, row, path) for path in PATHS),
                with_interval(row["A_logit"], row["A_logit_low"], row["A_logit_high"], digits=2),
            )
        )
    header = (
        "amplified setting",
        "accuracy",
        "with real images",
        *(f"E over `{path}`" for path in PATHS),
        "A on the logit scale",
    )
    return _markdown(header, lines)


OTHER_METRICS = {
    "worst-group-accuracy": "worst group",
    "worst-cell-accuracy": "worst cell",
    "equal-opportunity-mean": "equal opportunity",
    "equalized-odds-mean": "equalised odds",
    "calibration-gap": "calibration gap",
}


def _other_metrics(stored_results: Stored) -> str:
    """Other metrics of the amplified settings, with what a loss alike in all groups would do."""
    effects = stored_results.effects
    settings = {
        _setting(stored_results, row.study, row.variant): stored_results.parts[row.study][
            row.variant
        ]
        for row in amplified(effects).itertuples()
    }
    table = secondary_of_settings(settings, ("A",)).set_index(["setting", "metric"])
    lines = []
    for setting in settings:
        cells = [setting]
        for metric in OTHER_METRICS:
            row = table.loc[(setting, metric)]
            if np.isnan(row["mean"]):
                cells.append("confidences not kept")
                continue
            p = f"p {row['p_adjusted']:.3f}" if row["p_adjusted"] >= 0.0005 else "p < 0.001"
            cells.append(
                f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], floor "
                f"{row['floor']:+.3f}, {p}"
            )
        lines.append(cells)
    return _markdown(("amplified setting", *OTHER_METRICS.values()), lines)


def _over(results: Results, row: dict[str, Any], path: str) -> str:
    """The excess over one path, of a row of effects."""
    if not results.of(path):
        return "not run"
    mean, low, high = (row[f"E_{path}{end}"] for end in ("", "_low", "_high"))
    if np.isnan(mean):
        return "accuracy below the path"
    return with_interval(mean, low, high)


def _parts(stored_results: Stored) -> str:
    names = ("total", "shares", "quality", "interaction", "label errors")
    lines = []
    for setting in PARTS_OF:
        parts = decompose(stored_results.parts[setting[0]][setting[1]])
        cells = [in_words(parts[name]) if name in parts else "not run" for name in names]
        lines.append((_setting(stored_results, *setting), *cells))
    return _markdown(("setting", "total (R)", *names[1:]), lines)


def _colours(o: Any, t: int) -> tuple[float, float]:
    """Of the images of a batch in which the oracle sees another class than was told, with a clear
    group, where the start favours other groups in the two classes: the shares whose group is
    favoured in the told class, in the seen class."""
    told, seen, group = (o.batches[t][name] for name in ("label", "oracle", "group"))
    usual = o.favoured.argmax(1)
    wrong = (seen != told) & (group >= 0) & (usual[told] != usual[seen])
    return (
        float(np.mean(group[wrong] == usual[told[wrong]])),
        float(np.mean(group[wrong] == usual[seen[wrong]])),
    )


def _wrong_digits(stored_results: Stored) -> str:
    outcomes = stored_results.parts["colorized_mnist_diffusion"][
        "generator diffusion, guidance 1.0"
    ].of("generated")
    lines = []
    for t in range(len(outcomes[0].batches)):
        told, seen = zip(*(_colours(o, t) for o in outcomes), strict=True)
        lines.append((str(t), _mean(told), _mean(seen)))
    header = ("generation", "usual colour of the told digit", "usual colour of the digit shown")
    return _markdown(header, lines)


def _masks(stored_results: Stored) -> str:
    lines = []
    for study in ("hard_imagenet", "hard_imagenet_scratch"):
        for metric, says in MASKS.items():
            results = stored_results.parts[study][""]
            rows = results.table[
                (results.table.metric == metric)
                & results.table.label.isna()
                & results.table.group.isna()
            ]
            values = rows.pivot_table("value", ["arm", "generation"], "seed")
            last = rows.generation.max()
            change = values.loc[("generated", last)] - values.loc[("real", last)]
            lines.append(
                (
                    _setting(stored_results, study, ""),
                    says,
                    f"{values.loc[('generated', 0)].mean():+.2f}",
                    in_words(over_seeds(change.to_numpy())),
                )
            )
    return _markdown(("setting", "measure", "generation 0", "change against `real`"), lines)


def _feedback(stored_results: Stored) -> str:
    """What feedback does to the contrast and to who comes, in each arm."""
    parts = stored_results.parts[FEEDBACK_STUDY]
    lines = []
    for found in feedback(parts):
        outcomes = parts[found.variant].of(found.arm)
        shares = [favoured_part(fresh_counts(o)[-1], o.favoured) for o in outcomes]
        words = str(verdict(found.change, found.corrected))
        lines.append(
            (
                f"{outcomes[0].experiment.sensitivity:g}",
                found.arm,
                str(found.change.a.n),
                f"{_start_share(outcomes):.2f}",
                _mean(shares),
                in_words(found.change.a),
                f"{found.change.margin:.3f}",
                f"{words}, {found.status}",
            )
        )
    header = (
        "sensitivity",
        "images added",
        "seeds",
        "favoured in the start",
        "among the last fresh images",
        "P",
        "margin",
        "verdict",
    )
    return _markdown(header, lines)


def _long(stored_results: Stored) -> str:
    """The contrast over many generations, and whether it still moves in the second half."""
    lines = []
    for variant, results in stored_results.parts[LONG_STUDY].items():
        arms = {arm: results.of(arm) for arm in CONTRASTS["A"]}
        accuracy = {arm: curve(outcomes, "accuracy").mean(0) for arm, outcomes in arms.items()}
        contrasts = {arm: headline(outcomes).mean(0) for arm, outcomes in arms.items()}
        fitness = gate(results)
        assert fitness is not None  # both arms of A are there
        a = {t: contrast(results, "A", t) for t in LATER}
        for t in LATER:
            missed = misses(fitness.values[t - 1])
            lines.append(
                (
                    variant,
                    str(t),
                    *(f"{accuracy[arm][t]:.3f}" for arm in arms),
                    *(f"{contrasts[arm][t]:.3f}" for arm in arms),
                    in_words(a[t]),
                    ", ".join(f"{name} {fitness.values[t - 1][name]:.2f}" for name in missed)
                    or "none",
                )
            )
        half, whole = LATER[-2:]
        moved = over_seeds(a[whole].per_seed - a[half].per_seed)
        says = f"{half} to {whole}"
        lines.append((variant, f"{says}, change", "", "", "", "", in_words(moved), ""))
        second = [contrast(results, "A", t).per_seed for t in range(half + 1, whole + 1)]
        mean = over_seeds(np.mean(second, axis=0))
        lines.append((variant, f"{half + 1} to {whole}, mean", "", "", "", "", in_words(mean), ""))
    header = (
        "setting",
        "generation",
        "accuracy, `generated`",
        "`none`",
        "contrast, `generated`",
        "`none`",
        "A",
        "missed by the images added last",
    )
    return _markdown(header, lines)


def _error_rates(stored_results: Stored) -> str:
    """How often the words are right and wrong, as `python -m biasstudy nulls` found it."""
    rates = pd.read_csv(REFERENCE / "instrument" / "error-rates.csv")
    columns = [name for name in rates if name.startswith("n = ")]
    lines = [
        (
            row["truth"],
            row["says"],
            "true" if np.isnan(row["promised"]) else f"at most {row['promised']:g}",
            *(f"{row[name]:.3f}" for name in columns),
        )
        for row in rates.to_dict("records")
    ]
    return _markdown(("truth", "what is said", "promised", *columns), lines)


def _generators(stored_results: Stored) -> str:
    """What one generation of each generator costs and how fit it is, as `python -m biasstudy bench
    --generators` found it."""
    table = pd.read_csv(REFERENCE / "instrument" / "generators.csv")
    shown = ("agreement", "clarity", "recall", "spread", "image-copies", "window-copies")
    lines = [
        (
            row["data"],
            row["generator"],
            f"{row['seconds_fit'] + row['seconds_sample']:.1f}",
            *(f"{row[name]:.2f}" for name in shown),
            "yes" if row["fit"] else "no",
        )
        for row in table.to_dict("records")
    ]
    return _markdown(("data", "generator", "core seconds", *shown, "fit"), lines)


def _criteria(stored_results: Stored) -> str:
    """What the gate asks of generated images."""
    lines = [
        (name, c.says, f"at {'most' if c.most else 'least'} {c.bound:g}", c.why)
        for name, c in CRITERIA.items()
    ]
    return _markdown(("criterion", "what is measured", "bound", "reason"), lines)


BLOCKS: dict[str, Callable[[Stored], str]] = {
    "answer": lambda stored_results: f"**{answer(stored_results)}**",
    "short": _short,
    "settings": _settings,
    "accuracy": _accuracy,
    "batches": _batches,
    "predictions": _predictions,
    "data sets": _together,
    "excess": _excess,
    "other metrics": _other_metrics,
    "parts": _parts,
    "wrong digits": _wrong_digits,
    "masks": _masks,
    "feedback": _feedback,
    "long": _long,
    "error rates": _error_rates,
    "criteria": _criteria,
    "generators": _generators,
    "ledger": ledger.markdown,
}


# ---- Values --------------------------------------------------------------------------------------


def _a(stored_results: Stored, study: str, variant: str) -> str:
    return in_words(contrast(stored_results.parts[study][variant], "A"))


def _a_at(stored_results: Stored, study: str, variant: str, generation: str) -> str:
    return in_words(contrast(stored_results.parts[study][variant], "A", int(generation)))


def _r(stored_results: Stored, study: str, variant: str) -> str:
    return in_words(contrast(stored_results.parts[study][variant], "R"))


def _s(stored_results: Stored, study: str, variant: str) -> str:
    return in_words(contrast(stored_results.parts[study][variant], "S"))


def _e(stored_results: Stored, study: str, variant: str) -> str:
    """The excess over each path, in the order of PATHS."""
    found = all_excesses(stored_results.parts[study][variant])
    return ", ".join(in_words(found[path].estimate) for path in PATHS)


def _decay(stored_results: Stored, study: str, variant: str) -> str:
    """Every criterion of the gate that a later generation misses, in the first and in the last."""
    seen = gate(stored_results.parts[study][variant])
    if seen is None:
        raise ValueError(f"nothing is generated in {study}, {variant}")
    first, last = seen.values[0], seen.values[-1]
    told = [f"{name} {first[name]:.2f} to {last[name]:.2f}" for name in seen.decayed]
    return ", ".join(told) or "fit throughout"


def _a_of_seeds(stored_results: Stored, study: str, variant: str, seeds: str) -> str:
    chosen = [int(seed) for seed in seeds.split()]
    outcomes = stored_results.parts[study][variant].outcomes
    return in_words(contrast(Results([o for o in outcomes if o.experiment.seed in chosen]), "A"))


def _verdicts(stored_results: Stored, study: str) -> str:
    count = stored_results.effects.verdict[stored_results.effects.study == study].value_counts()
    return ", ".join(f"{word} in {n}" for word, n in count.items())


def _probe(stored_results: Stored, study: str, variant: str) -> str:
    confusion = stored_results.parts[study][variant].outcomes[0].confusion
    return f"{np.trace(confusion) / confusion.sum():.2f}"


def _corrected(stored_results: Stored, study: str, variant: str, arm: str) -> str:
    table = corrected_table({variant: Results(stored_results.parts[study][variant].of(arm))})
    return " and ".join(_mean(rows.corrected) for _, rows in table.groupby("generation"))


def _share_of_start(stored_results: Stored, study: str, variant: str) -> str:
    return f"{_start_share(stored_results.parts[study][variant].of('generated')):.2f}"


def _agreement_of_real(stored_results: Stored, study: str, variant: str) -> str:
    outcomes = stored_results.parts[study][variant].of("real")
    return _mean(_of_batch(o, 0)["label-agreement"] for o in outcomes)


def _bounds(stored_results: Stored, study: str, variant: str) -> str:
    """Favoured share of the last batch if no unclear image were favoured, and if every one were."""
    last = [_of_batch(o, -1) for o in stored_results.parts[study][variant].of("generated")]
    low = [batch["favoured-share"] * batch["clear-share"] for batch in last]
    high = [least + 1 - batch["clear-share"] for least, batch in zip(low, last, strict=True)]
    return f"{_mean(low)} to {_mean(high)}"


VALUES: dict[str, Callable[..., str]] = {
    "A": _a,
    "A at": _a_at,
    "R": _r,
    "S": _s,
    "E": _e,
    "decay": _decay,
    "A of seeds": _a_of_seeds,
    "verdicts": _verdicts,
    "probe": _probe,
    "corrected": _corrected,
    "start share": _share_of_start,
    "agreement of real": _agreement_of_real,
    "bounds": _bounds,
}


# ---- The figure of README ------------------------------------------------------------------------

GLANCE = (  # data and setting in the words of the figure; study and variant
    ("digits in colours, autoencoder", "generated images added",
        "colorized_mnist_fit", "protocol accumulate, n_real 1300, ratio 0.5"),
    ("digits in colours, autoencoder", "only the half a classifier is surest of",
        "colorized_mnist_filter_fit", "filter rank, keep top, share 0.5"),
    ("digits in colours, autoencoder", "in place of real images",
        "colorized_mnist_fit", "protocol replace, n_real 800, ratio 1.0"),
    ("digits in colours, mixture", "generated images added",
        "colorized_mnist_fit_mixture", "protocol accumulate, n_real 1300, ratio 0.5"),
    ("digits in colours, mixture", "in place of real images",
        "colorized_mnist_fit_mixture", "protocol replace, n_real 800, ratio 1.0"),
    ("digits in colours, mixture", "in their place, 20 generations",
        "colorized_mnist_long", "protocol replace, n_real 800, ratio 1.0"),
    ("digits of thick and thin strokes", "generated images added", "digits_by_thickness", ""),
    ("CIFAR-100, thinned fine classes", "generated images added", "cifar20_fit", ""),
    ("Hard ImageNet, strong and weak cues", "generated images added", "hard_imagenet", ""),
)  # fmt: skip


_GROWTH = ("growth", "growth_low", "growth_high")
_SAID = ("word", "verdict", "beyond", "fit", "decayed", "n", "status")


def glance(stored_results: Stored) -> tuple[Figure, pd.DataFrame]:
    """The figure that README shows, and its table: a setting of each kind of data that was asked
    with the fittest generator."""
    effects = stored_results.effects.set_index(["study", "variant"])
    rows = []
    for data, setting, study, variant in GLANCE:
        row = effects.loc[(study, variant), [*_GROWTH, *_SAID]]
        _, low, high = growth(stored_results.parts[study][variant], level=0.9)
        rows.append({"data": data, "setting": setting, **row, "inner_low": low, "inner_high": high})
    table = pd.DataFrame(rows)
    asked = table[table.fit == FIT]
    status = listed(sorted(asked.status.unique()))
    counted = effects[effects.counted & (effects.fit == FIT)]
    mark = (
        f"{len(asked)} of {len(counted)} settings with a fit generator · words: after correction "
        f"for several tests, lines: before · {status}"
    )
    return figures.glance(table, mark)


def picture(stored_results: Stored) -> bytes:
    """The figure of README as PNG, with what it draws as its text `table`, as CSV."""
    figure, table = glance(stored_results)
    drawn, marked = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn)
    plt.close(figure)
    text = PngImagePlugin.PngInfo()
    text.add_text("table", table.round(1).to_csv(index=False))
    Image.open(io.BytesIO(figures.packed(drawn.getvalue()))).save(
        marked, "PNG", pnginfo=text, optimize=True
    )
    return marked.getvalue()


# ---- Texts ---------------------------------------------------------------------------------------


def rewritten(text: str, stored_results: Stored) -> str:
    """A text with what stands between its marks renewed.

    raises   ValueError   if it has no mark, a mark that is not closed, or one of an unknown name,
                          study or variant
    """
    if rest := re.search("<!--.*?-->", BLOCK.sub("", VALUE.sub("", text))):
        raise ValueError(f"the mark {rest[0]} has no beginning or no end")
    if not BLOCK.search(text) and not VALUE.search(text):
        raise ValueError(f"the text has no marks; known blocks: {', '.join(BLOCKS)}")
    text = BLOCK.sub(
        lambda m: f"<!-- {m['name']} -->\n{_block(m['name'], stored_results)}\n<!-- end -->", text
    )
    return VALUE.sub(
        lambda m: f"<!--= {m['key']} -->{_value(m['key'], stored_results)}<!--/-->", text
    )


def unmarked(text: str) -> str:
    """A text without its marks and what stands between them."""
    return VALUE.sub("", BLOCK.sub("", text))


def _block(name: str, stored_results: Stored) -> str:
    if name not in BLOCKS:
        raise ValueError(unknown("block", name, BLOCKS))
    return BLOCKS[name](stored_results)


def _value(key: str, stored_results: Stored) -> str:
    name, *words = (word.strip() for word in key.split(";"))
    if name not in VALUES:
        raise ValueError(unknown("value", name, VALUES))
    takes = list(inspect.signature(VALUES[name]).parameters)[1:]
    if len(words) != len(takes):
        raise ValueError(f"{name} takes {'; '.join(takes)}, got {'; '.join(words) or 'nothing'!r}")
    given = dict(zip(takes, words, strict=True))
    if given["study"] not in stored_results.parts:
        raise ValueError(f"{key!r} names no stored study; known: {', '.join(stored_results.parts)}")
    variants = stored_results.parts[given["study"]]
    if "variant" in given and given["variant"] not in variants:
        raise ValueError(
            f"no variant {given['variant']!r} of {given['study']}; known: {', '.join(variants)}"
        )
    return VALUES[name](stored_results, **given)
