"""All stored results at once: one row per setting, the sentence that answers the question, what it
cost.

Nothing is trained here. A setting is a variant of a stored study; a study that is a part of another
is read once.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.checks import listed
from ..core.registry import DATASETS
from ..experiment import PATHS, Experiment
from ..inference.conjecture import Judgement, judgements
from ..inference.contrasts import CONTRASTS, all_contrasts, difference
from ..inference.dynamics import by_level, told_apart
from ..inference.excess import BEYOND, all_excesses, beyond
from ..inference.gate import FIT, NO_FIT, UNFIT, UNKNOWN, gate
from ..inference.intervals import Estimate
from ..inference.plans import CONFIRMATORY
from ..inference.pooled import pooled_change, sharing_seeds
from ..inference.scales import growth, logit_contrast, relative_contrast
from ..inference.verdicts import (
    AMPLIFIED,
    CANNOT_TELL,
    MORE_THAN_REAL,
    REDUCED,
    SEEDS_FOR_VERDICT,
    WITHIN,
    WORSE,
    beside_real,
    corrected_changes,
    has_bias,
    status_of,
    verdict,
)
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
    "sensitivity",
    "filter",
)


# one data set, however many of its digits and however grouped
OF_MNIST = ("colorized-mnist", "colorized-mnist-5k", "digits-by-thickness", "mnist-by-thickness")


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
    def names(self) -> dict[tuple[str, str], str]:
        """(study, variant) -> the setting in words, see `names_of_settings`."""
        return names_of_settings(self.parts)

    @functools.cached_property
    def data_sets(self) -> pd.DataFrame:
        """One row per data set: see `table_of_data_sets`."""
        return table_of_data_sets(self)

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
    def largest(self) -> tuple[str, str]:
        """Study and variant of the setting with most generations, of these with most real images;
        of those with a fit generator, where there are any; where any results keep confidences, of
        those that do."""
        sized = self.effects.assign(is_fit=self.effects.fit == FIT)
        sized = sized.sort_values(["is_fit", "generation", "n_real"], kind="stable")
        names = list(zip(sized.study, sized.variant, strict=True))
        keeping = [
            (study, variant)
            for study, variant in names
            if all(o.confidence is not None for o in self.parts[study][variant].outcomes)
        ]
        return (keeping or names)[-1]

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

    def only(self, studies: Collection[str]) -> "Stored":
        """Some of the studies, for a figure that draws no others."""
        return Stored({study: parts for study, parts in self.parts.items() if study in studies})

    @property
    def mark(self) -> str:
        """What stands under a figure of everything."""
        scales = sorted({o.scale for o in self.outcomes})
        standins = ["stand-in data among them"] * any(
            "stands_for" in o.experiment.dataset_entry.traits for o in self.outcomes
        )
        settings = [r for parts in self.parts.values() for r in parts.values()]
        statuses = {status_of(r) for r in settings if r.of("generated") and r.of("none")}
        return " · ".join(
            [
                f"{len(self.parts)} stud{'ies' if len(self.parts) > 1 else 'y'}",
                f"{len(self.outcomes)} experiments",
                f"scale {', '.join(scales)}",
                *standins,
                " and ".join(sorted(statuses)),
            ]
        )

    @property
    def cost(self) -> pd.DataFrame:
        """By study: its name, what its settings are of in words, scale, settings, experiments,
        process hours, processor, commit, notes of older versions."""
        rows = []
        for study, parts in self.parts.items():
            outcomes = list(
                {o.experiment.id: o for r in parts.values() for o in r.outcomes}.values()
            )
            cost = outcomes[0].cost
            rows.append(
                (
                    study,
                    _what(outcomes),
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
                "what",
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
    """The answers of all settings in the last generation; p-values are corrected within a study.

    A setting that several studies hold has one row: in the study with most seeds, of these in that
    with most arms.

    returns   a row for each setting that has A:
              setting    in words, see `names_of_settings`
              study, variant, the fields in SETTING, generation
              apart      in what else settings differ that are alike in these, in words
              n          seeds
              status     confirmatory or exploratory: whether a plan was frozen before the first fit
              has_bias   there is a bias at the start to amplify
              remedy     the protocol is one that is meant to help
              feedback   real images, too, depend on the last classifier
              counted    in the answer: biased, without remedy and feedback, favoured groups
                         not served worse
              fit, missed, decayed, fitness   whether the generators deserve a verdict, see `gate`:
                         a word, criteria that generation 0 misses, those that later ones miss
                         alone, what a sentence says of it
      word, verdict, beside_real   of the change, see `verdicts`
              M_none, margin           contrast without generated images, and its margin
              detectable               smallest change of A found with 80 % power
              differs, changed, within   p-values after Holm's correction, see `verdicts.Corrected`
              A, A_low, A_high, A_p; likewise S, R, F   nan where an arm was not run
              growth, growth_low, growth_high   A / M_none
              A_logit, A_relative (and _low, _high)   A on other scales, see `scales`
              E_fewer, E_shorter, E_noisier (and _low, _high)   excess, see `excess`; nan where the
                         path was not run, or ends above the accuracy
              beyond     what the three say together

    raises    ValueError   if no setting has A
    """
    rows, experiments, names = [], [], names_of_settings(parts)
    once = set(_once(parts).values())
    for study, variants in parts.items():
        for name, (c, p) in corrected_changes(variants).items():
            if (study, name) not in once:
                continue
            results = variants[name]
            e = results.of("generated")[0].experiment
            contrasts, judged, fitness = all_contrasts(results), verdict(c, p), gate(results)
            row = {
                "setting": names[study, name],
                "study": study,
                "variant": name,
                **{field: getattr(e, field) for field in SETTING},
                "dataset": e.data_name,
                "generation": e.n_generations,
                "n": c.a.n,
                "status": status_of(results),
                "has_bias": has_bias(results.of("generated")[0]),
                "remedy": e.is_remedy,
                "feedback": e.has_feedback,
                "fit": fitness.word if fitness else UNKNOWN,
                "missed": ", ".join(fitness.missed) if fitness else "",
                "decayed": ", ".join(fitness.decayed) if fitness else "",
                "fitness": str(fitness or UNKNOWN),
                "word": judged.word,
                "verdict": str(judged),
                "beside_real": beside_real(judged.word, contrasts.get("R")),
                "M_none": c.level.mean,
                "margin": c.margin,
                "detectable": c.a.detectable,
                **dataclasses.asdict(p),
            }
            for key in CONTRASTS:
                row |= _columns(key, contrasts.get(key)) | {
                    f"{key}_p": contrasts[key].p if key in contrasts else float("nan")
                }
            row |= dict(zip(_names("growth"), growth(results), strict=True))
            row |= _columns("A_logit", logit_contrast(results, "A"))
            row |= _columns("A_relative", relative_contrast(results, "A"))
            excesses = all_excesses(results)
            for path in PATHS:
                row |= _columns(f"E_{path}", excesses[path].estimate if path in excesses else None)
            row["beyond"] = beyond(excesses)
            rows.append(row)
            experiments.append(e)
    if not rows:
        raise ValueError("no setting has results of the arms generated and none, which A needs")
    table = pd.DataFrame(rows)
    table.insert(list(table).index("generation") + 1, "apart", _apart(table, experiments))
    plain = ~table.remedy & ~table.feedback
    table["counted"] = table.has_bias & plain & (table.word != WORSE)
    return table


def _names(key: str) -> tuple[str, str, str]:
    return key, f"{key}_low", f"{key}_high"


def _columns(key: str, e: Estimate | None) -> dict[str, float]:
    """Mean and interval of an estimate as columns; nan where there is none."""
    values = (e.mean, e.low, e.high) if e else 3 * [float("nan")]
    return dict(zip(_names(key), values, strict=True))


def amplified(effects: pd.DataFrame) -> pd.DataFrame:
    """The settings that generated images amplify; where feedback acts as well it is asked about by
    itself, see `verdicts.feedback`."""
    return effects[(effects.word == AMPLIFIED) & ~effects.feedback]


def table_of_data_sets(stored_results: "Stored") -> pd.DataFrame:
    """What the settings of each data set say together: those on real data that have a bias to
    amplify and seeds enough for a verdict; remedies and feedback apart. Fit generators and others
    never count together.

    returns  a row for each data set and word of the gate: dataset, fit (the word; NO_FIT in place
             of UNFIT where a data set has no fit one), settings, averaged (those of them that share
             seeds, so have a mean), n (seeds that all of these have), amplified, reduced, within,
             cannot_tell (settings by word), more_than_real (amplified more than with new real
             images), beyond (amplified beyond the loss of accuracy), A, A_low, A_high (mean over
             those averaged, see `pooled`), M_none, verdict (of that mean; the word again where it
             is not FIT)
    """
    rows = []
    asked = _asked(stored_results.effects)
    asked = asked[asked.counted]
    fit_somewhere = set(asked[asked.fit == FIT].dataset)
    for (dataset, fit), settings in asked.groupby(["dataset", "fit"], sort=True):
        averaged = sharing_seeds(
            [stored_results.parts[row.study][row.variant] for row in settings.itertuples()]
        )
        c = pooled_change(averaged)
        if fit == UNFIT and dataset not in fit_somewhere:
            fit = NO_FIT
        count = settings.word.value_counts()
        up = settings[settings.word == AMPLIFIED]
        rows.append(
            {
                "dataset": dataset,
                "fit": fit,
                "settings": len(settings),
                "averaged": len(averaged),
                "n": c.a.n,
                **{
                    name: int(count.get(word, 0))
                    for name, word in (
                        ("amplified", AMPLIFIED),
                        ("reduced", REDUCED),
                        ("within", WITHIN),
                        ("cannot_tell", CANNOT_TELL),
                    )
                },
                "more_than_real": int((up.beside_real == MORE_THAN_REAL).sum()),
                "beyond": int((up.beyond == BEYOND).sum()),
                **_columns("A", c.a),
                "M_none": c.level.mean,
                "verdict": str(verdict(c)) if fit == FIT else fit,
            }
        )
    return pd.DataFrame(rows)


def _asked(effects: pd.DataFrame) -> pd.DataFrame:
    """Settings on real data that have seeds enough for a verdict."""
    standins = [name for name in DATASETS if "stands_for" in DATASETS[name].traits]
    return effects[(effects.n >= SEEDS_FOR_VERDICT) & ~effects.dataset.isin(standins)]


def _apart(table: pd.DataFrame, experiments: list[Experiment]) -> list[str]:
    """In what else settings differ that are alike in SETTING and generation, in words."""
    words = [""] * len(table)
    for alike in table.groupby([*SETTING, "generation"]).indices.values():
        told = told_apart([experiments[i] for i in alike])
        for i, text in zip(alike, told, strict=True):
            words[i] = text
    return words


def _once(parts: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """(study, variant) of everything that is generated -> that of the setting it is: of equal ones
    that with most seeds, then most arms over generations, then most paths, the first of several."""
    chosen: dict[str, tuple[tuple[int, int, int], str, str]] = {}
    same: dict[tuple[str, str], str] = {}
    for study, variants in parts.items():
        for name, results in variants.items():
            generated = results.of("generated")
            if not generated:
                continue
            of_setting = same[study, name] = _written_out(generated[0].experiment)
            arms = {o.experiment.arm for o in results.outcomes}
            size = (len(generated), len(arms - set(PATHS)), len(arms))
            if of_setting not in chosen or size > chosen[of_setting][0]:
                chosen[of_setting] = size, study, name
    return {key: chosen[of_setting][1:] for key, of_setting in same.items()}


# ---- What settings are called --------------------------------------------------------------------


def names_of_settings(parts: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """(study, variant) of everything that is generated -> data set and name of its setting, as all
    figures and tables of several studies have it; two studies that hold one setting share its name.
    """
    once = _once(parts)
    kept = [key for key in once if key in set(once.values())]
    experiments = [parts[study][name].of("generated")[0].experiment for study, name in kept]
    table = pd.DataFrame(
        [
            {field: getattr(e, field) for field in SETTING}
            | {"dataset": e.data_name, "generation": e.n_generations}
            for e in experiments
        ]
    )
    if table.empty:
        return {}
    table = table.assign(apart=_apart(table, experiments), study=[study for study, _ in kept])
    names = [f"{e.data_name}: {name}" for e, name in zip(experiments, names_of(table), strict=True)]
    of_setting = dict(zip(kept, names, strict=True))
    return {key: of_setting[setting] for key, setting in once.items()}


def names_of(table: pd.DataFrame) -> list[str]:
    """A short name of each setting: its start, generator and classifier, and whatever else is not
    the most common; where a data set has two of the name, in what else they differ, and the study
    if it still has.

    table   with the fields in SETTING, generation, apart and study, as of `table_of_effects`
    """
    words = []
    common = {
        field: table[field].mode()[0]
        for field in ("protocol", "filter", "condition", "ratio", "n_real", "sensitivity")
    }
    for row in table.itertuples():
        parts = [*start_and_models(row), f"T {row.generation}"]
        parts += [
            str(getattr(row, field)) if field == "protocol" else f"{field} {getattr(row, field)}"
            for field, usual in common.items()
            if getattr(row, field) != usual
        ]
        words.append(", ".join(parts))
    for notes in (table.apart, table.study):
        twice = pd.DataFrame({"dataset": table.dataset.to_numpy(), "name": words}).duplicated(
            keep=False
        )
        words = [
            f"{word} ({note})" if again and note else word
            for word, note, again in zip(words, notes, twice, strict=True)
        ]
    return words


def start_and_models(e: Any) -> list[str]:
    """What the name of a setting begins with: start, generator, classifier.

    e   an Experiment, or a row of `table_of_effects`
    """
    start = f"bias {e.bias:g}" if e.start == "biased" else e.start
    return [start, e.generator, e.classifier]


def _what(outcomes: list[Any]) -> str:
    """What a study is of: data sets, and each start, generator and classifier of its settings."""
    experiments = [o.experiment for o in outcomes]
    models = [start_and_models(e) for e in experiments if e.arm == "generated"]
    data = " and ".join(dict.fromkeys(e.data_name for e in experiments))
    each = [" / ".join(dict.fromkeys(words)) for words in zip(*sorted(models), strict=True)]
    return f"{data}: {', '.join(each)}" if each else data


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

    returns  remedy, setting (in words), change, low, high, n: a row per setting that has both sides
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
                    setting = stored_results.names[study, name]
                    rows.append((remedy, setting, e.mean, e.low, e.high, e.n))
    return pd.DataFrame(rows, columns=["remedy", "setting", "change", "low", "high", "n"])


def _protocol(results: Any) -> str:
    return results.of("generated")[0].experiment.protocol if results.of("generated") else ""


def _but_protocol(results: Any) -> str:
    """What a setting is, its protocol apart."""
    return _written_out(results.of("generated")[0].experiment, ("protocol", "seed"))


def answer(stored_results: Stored) -> str:
    """The answer to the question, from stored results on real data alone: settings with a bias to
    amplify, by word, those with fit generators first; then what the amplified ones are shown to
    be."""
    asked = _asked(stored_results.effects)
    biased = asked[asked.counted]
    if biased.empty:
        return (
            f"No answer: no setting on real data has a biased start and {SEEDS_FOR_VERDICT} seeds."
        )
    fit, unfit, unknown = (biased[biased.fit == word] for word in (FIT, UNFIT, UNKNOWN))
    sources = biased.dataset.replace(list(OF_MNIST), "mnist").unique()
    seeds = " to ".join(map(str, dict.fromkeys((biased.n.min(), biased.n.max()))))
    told = [
        f"{len(biased)} settings have a biased start, no remedy and no feedback "
        f"({listed(sorted(sources))}; {seeds} seeds a setting)."
    ]
    if len(fit):
        later = int((fit.decayed != "").sum())
        decay = f" (in {later} its later images decay)" if later else ""
        told.append(f"In {len(fit)} the first generator is fit{decay}: {_told(fit)}.")
    else:
        told.append("In none is the first generator fit.")
    if len(unfit):
        told.append(f"In {len(unfit)} it is unfit: {_told(unfit)}.")
    if len(unknown):
        told.append(f"In {len(unknown)} this was not measured: {_told(unknown)}.")
    planned = []
    for word, of in (("fit", fit), ("unfit", unfit), ("not measured", unknown)):
        if n := int((of.status == CONFIRMATORY).sum()):
            planned.append(f"{n} of the {len(of)} {word}")
    told.append(
        f"Confirmatory are {' and '.join(planned)}; the rest is exploratory. All models are small."
        if planned
        else "All of this is exploratory, and from small models."
    )
    return " ".join(told)


def _told(settings: pd.DataFrame) -> str:
    """In how many settings the contrast changed how; what the amplified ones are shown to be."""
    contrast = "the accuracy contrast"
    count, up = settings.word.value_counts(), settings[settings.word == AMPLIFIED]
    grew, open_ = len(up), count.get(CANNOT_TELL, 0)
    parts = [
        f"{says} in {count[word]}"
        for word, says in (
            (AMPLIFIED, "widened by more than a quarter"),
            (REDUCED, "narrowed by more than a quarter"),
            (WITHIN, "stayed within a quarter"),
        )
        if word in count
    ]
    if not parts:
        return f"whether {contrast} changed by a quarter cannot be told"
    text = f"{contrast} {', '.join(parts)}{f', and in {open_} this cannot be told' * bool(open_)}"
    if not grew:
        return text
    more = int((up.beside_real == MORE_THAN_REAL).sum())
    past = int((up.beyond == BEYOND).sum())
    return (
        f"{text}. In {more} of the {grew} it is wider than with new real images; in {past} this is "
        "shown to be more than lost accuracy alone makes"
    )
