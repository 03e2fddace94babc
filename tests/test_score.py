"""Predictions of any loop: own results written out and scored are the same to the last bit, planted
changes are found, bad tables are told in one sentence."""

import dataclasses
import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

import biasstudy
from biasstudy import Results, figures, inference, reference_parts, score, score_parts
from biasstudy.__main__ import main
from biasstudy.campaign import score as command
from biasstudy.inference.gate import UNKNOWN, gate
from biasstudy.inference.power import spread
from biasstudy.inference.verdicts import change, verdict
from biasstudy.loop.results import CONFIDENCE_STEPS, Outcome, confidence_of


def plain(arms=("generated", "none"), seeds=2, generations=2, each=3, start=0) -> pd.DataFrame:
    """A small table in which nothing is wrong: two classes, two groups, texts and numbers."""
    rng = np.random.default_rng(start)
    label, group = np.repeat(["cat", "dog"], 2 * each), np.tile(["red", "green"], 2 * each)
    runs = []
    for seed in range(seeds):
        first = rng.random(len(label)) < 0.8
        for arm in arms:
            for t in range(generations):
                right = first if t == 0 else rng.random(len(label)) < 0.8
                predicted = np.where(right, label, np.where(label == "cat", "dog", "cat"))
                run = {"arm": arm, "seed": seed, "generation": t}
                runs.append(
                    pd.DataFrame(
                        {
                            **run,
                            "image": range(len(label)),
                            "label": label,
                            "group": group,
                            "predicted": predicted,
                        }
                    )
                )
    return pd.concat(runs, ignore_index=True)


def through_csv(frame: pd.DataFrame) -> pd.DataFrame:
    text = io.StringIO()
    frame.to_csv(text, index=False)
    text.seek(0)
    return pd.read_csv(text, keep_default_na=False)


def numbers(e) -> list[float]:
    return [e.mean, e.low, e.high, e.se, e.df, e.p, *e.per_seed]


# ---- There and back ------------------------------------------------------------------------------


def grouped(results: Results) -> Results:
    """A nested study turned round: fine classes are predicted, the group is the coarse class."""
    outcomes = []
    for o in results.outcomes:
        fine_of = np.array([np.flatnonzero(row)[0] for row in o.occurs])
        predicted = np.where(o.correct(), o.group, fine_of[o.predicted])
        outcomes.append(
            dataclasses.replace(
                o,
                experiment=dataclasses.replace(
                    o.experiment, start="unbiased", bias=0.0, n_thinned=2
                ),
                design="grouped",
                classes=o.groups,
                groups=o.classes,
                batches=[],
                quality=[],
                fitness=(),
                occurs=o.occurs.T,
                favoured=np.zeros_like(o.favoured.T),
                counts=o.counts.T,
                label=o.group,
                group=o.label,
                predicted=predicted,
            )
        )
    return Results(outcomes)


def with_confidences(o):
    """An outcome that ships without confidences, with made ones."""
    steps = np.random.default_rng(o.experiment.seed).integers(
        0, CONFIDENCE_STEPS + 1, o.predicted.shape
    )
    return dataclasses.replace(o, confidence=confidence_of(steps))


def ours(which: str) -> Results:
    """Results that ship, of one design each."""
    study, variant, arms = {
        "crossed": ("colorized_mnist_diffusion", None, None),
        "crossed, unbiased": (
            "colorized_mnist_start",
            "start unbiased, bias 0.0",
            ("generated", "none", "resample"),
        ),
        "crossed, no bias": ("colorized_mnist_transfer", "generator gan, bias 0.0", None),
        "crossed, photographs in one group": ("hard_imagenet", None, None),
        "nested": ("cifar20_condition", "condition class", ("generated", "none")),
        "grouped": ("cifar20_condition", "condition class", ("generated", "none")),
    }[which]
    parts = reference_parts(study)
    found = parts[variant] if variant else next(iter(parts.values()))
    kept = [o for o in found.outcomes if arms is None or o.experiment.arm in arms]
    kept = [o if o.confidence is not None else with_confidences(o) for o in kept]
    return grouped(Results(kept)) if which == "grouped" else Results(kept)


@pytest.mark.parametrize(
    "which",
    [
        "crossed",
        "crossed, unbiased",
        "crossed, no bias",
        "crossed, photographs in one group",
        "nested",
        "grouped",
    ],
)
def test_own_results_written_out_and_scored_are_the_same_to_the_last_bit(which):
    own = ours(which)
    found = score(through_csv(own.predictions()))
    for o in own.outcomes:
        (again,) = (x for x in found.of(o.experiment.arm) if x.experiment.seed == o.experiment.seed)
        for name in ("predicted", "label", "group", "occurs", "favoured", "confidence"):
            assert (getattr(again, name) == getattr(o, name)).all(), name
        for name in ("classes", "groups", "design", "paired", "biased"):
            assert getattr(again, name) == getattr(o, name), name
        assert (np.argsort(again.unit, kind="stable") == np.argsort(o.unit, kind="stable")).all()
    for told in (inference.all_contrasts, inference.decompose):
        before, after = told(own), told(found)
        assert list(before) == list(after)
        for name in before:
            np.testing.assert_array_equal(numbers(after[name]), numbers(before[name]))
    if which == "grouped":
        assert "each class belongs to one group" in inference.sentence(found)
    else:
        assert str(verdict(change(found))) == str(verdict(change(own)))
        excesses = inference.all_excesses(own)
        assert bool(excesses) == (which == "crossed")
        for path, over in inference.all_excesses(found).items():
            assert numbers(over.estimate) == numbers(excesses[path].estimate)
        np.testing.assert_array_equal(inference.growth(found), inference.growth(own))
        np.testing.assert_array_equal(spread(found).seeds, spread(own).seeds)


@pytest.mark.parametrize("which", ["crossed, photographs in one group", "grouped"])
def test_other_metrics_are_the_same_too(which):
    own = ours(which)
    kept = [o for o in own.outcomes if o.experiment.seed < 2 and o.experiment.arm != "resample"]
    own = Results(kept)
    found = score(own.predictions())
    where = ["arm", "seed", "generation", "metric", "label", "group", "measured_on"]
    before, after = (r.table.fillna({"label": "", "group": ""}) for r in (own, found))
    known = set(after.metric)
    assert {"accuracy", "worst-group-accuracy", "overconfidence"} <= known
    missing = set(before.metric) & set(biasstudy.METRICS) - known
    assert all("needs start_counts" in found.outcomes[0].refusal(name) for name in missing)
    before = before[before.metric.isin(known) & (before.measured_on == "classifier")]
    both = before.merge(after, on=where, how="outer", indicator=True)
    assert (both._merge == "both").all()
    np.testing.assert_array_equal(both.value_x, both.value_y)
    one, other = (inference.secondary.secondary(r) for r in (own, found))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_way_back_of_what_was_scored_is_the_way_back():
    found = score(plain().assign(confidence=0.5), favoured="red")
    again = score(found.predictions())
    for o, p in zip(found.outcomes, again.outcomes, strict=True):
        assert (o.predicted == p.predicted).all() and (o.favoured == p.favoured).all()
        assert (o.classes, o.groups) == (p.classes, p.groups) == (("cat", "dog"), ("green", "red"))
    assert "bias" not in found.predictions(), "it is not known"


# ---- What is planted is found --------------------------------------------------------------------


def planted(loss: float, seed=0, n=8, photographs=300) -> pd.DataFrame:
    """Two classes, groups x and y: in generation 0 accuracy is .9 in x, .8 in y; then y loses."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["a", "b"], photographs)
    group = np.where(rng.random(len(label)) < 0.5, "x", "y")
    runs = []
    for s in range(n):
        first = rng.random(len(label)) < np.where(group == "x", 0.9, 0.8)
        for method, lost in (("fake", loss), ("nothing", 0.0)):
            for t in range(3):
                right = rng.random(len(label)) < np.where(group == "x", 0.9, 0.8 - lost)
                right = first if t == 0 else right
                runs.append(
                    pd.DataFrame(
                        {
                            "method": method,
                            "run": s,
                            "epoch": t,
                            "file": [f"{i}.png" for i in range(len(label))],
                            "truth": label,
                            "sex": group,
                            "said": np.where(right, label, np.where(label == "a", "b", "a")),
                        }
                    )
                )
    return pd.concat(runs, ignore_index=True)


THEIRS = {
    "columns": {
        "arm": "method",
        "seed": "run",
        "generation": "epoch",
        "image": "file",
        "label": "truth",
        "group": "sex",
        "predicted": "said",
    },
    "arms": {"generated": "fake", "none": "nothing"},
}


def test_a_planted_change_is_found():
    found = score(planted(loss=0.2), **THEIRS, favoured="x", name="planted")
    a = inference.contrast(found, "A")
    assert a.low < 0.2 < a.high and a.low > 0.1
    says = inference.sentence(found)
    assert says.startswith("planted, biased start, generation 2, accuracy of favoured minus other")
    assert "amplified, exploratory, fitness not measured. A = " in says
    assert gate(found).word == UNKNOWN


def test_nobody_named_as_favoured_ranks_by_generation_0_of_the_other_seeds():
    found = score(planted(loss=0.2), **THEIRS)
    a = inference.contrast(found, "A")
    assert a.low < 0.2 < a.high, "x is the better group in all seeds"
    assert inference.sentence(found).startswith("predictions, unknown start, generation 2, ")
    assert change(found).margin == 0.02


def test_where_nothing_changes_nothing_is_found():
    words = []
    for seed in range(10):
        c = change(score(planted(0.0, seed, photographs=150), **THEIRS, favoured="x"))
        words.append(verdict(c).word)
    assert words.count("amplified") + words.count("reduced") <= 1


def test_hypotheses_of_several_variants_are_corrected_together():
    table = pd.concat(
        planted(loss, photographs=100, seed=i).assign(variant=f"v{i}")
        for i, loss in enumerate((0.0, 0.08, 0.0, 0.0))
    )
    parts = score_parts(table, **THEIRS, favoured="x")
    assert list(parts) == ["v0", "v1", "v2", "v3"]
    told = inference.verdicts.corrected_changes(parts)
    own = inference.verdicts.corrected([told["v1"][0]])[0]
    assert told["v1"][1].differs == pytest.approx(min(1, 4 * own.differs))
    with pytest.raises(ValueError, match="several settings, variant v0, v1, v2, v3"):
        inference.sentence(score(table, **THEIRS, favoured="x"))


def test_output_shaped_like_that_of_fair_feedback_loops():
    """Its classifiers end in lists of labels, predictions and sensitive values (0 and 1) of the
    test images, by generation; settings MC (trained on what generators made) and NOMC, seeds by
    folder. Their contrast is what fairlearn tells of them."""
    rng = np.random.default_rng(0)
    labels, sensitive = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    runs = []
    for seed in range(6):
        rate = np.where(labels == sensitive, 0.9, 0.8)
        first = np.where(rng.random(400) < rate, labels, 1 - labels)
        for setting in ("MC", "NOMC"):
            for t in range(4):
                hurt = 0.15 * t * (setting == "MC") * (labels != sensitive)
                preds = np.where(rng.random(400) < rate - hurt, labels, 1 - labels)
                runs.append(
                    pd.DataFrame(
                        {
                            "preds": first if t == 0 else preds,
                            "labels": labels,
                            "sensitive": sensitive,
                            "generation": t,
                            "position": range(400),
                            "setting": setting,
                            "seed": seed,
                        }
                    )
                )
    frame = pd.concat(runs)
    found = score(
        frame,
        columns={
            "arm": "setting",
            "image": "position",
            "label": "labels",
            "group": "sensitive",
            "predicted": "preds",
        },
        arms={"generated": "MC", "none": "NOMC"},
        favoured={0: 0, 1: 1},
    )
    by_seed = []
    for seed in range(6):
        last = frame[(frame.seed == seed) & (frame.generation == 3)]
        contrast = {}
        for setting, rows in last.groupby("setting"):
            rates = MetricFrame(
                metrics=accuracy_score,
                y_true=rows.labels,
                y_pred=rows.preds,
                sensitive_features=rows.sensitive,
                control_features=rows.labels,
            ).by_group
            ahead = [rates[y, y] - rates[y, 1 - y] for y in (0, 1)]
            contrast[setting] = np.mean(ahead)
        by_seed.append(contrast["MC"] - contrast["NOMC"])
    np.testing.assert_allclose(inference.contrast(found, "A").per_seed, by_seed, atol=1e-12)
    assert "amplified" in inference.sentence(found)


# ---- Order does not matter -----------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_order_of_rows_and_files_changes_nothing(random, n_files):
    table = plain(("generated", "none", "real"), seeds=3).assign(confidence=0.9, replicate=1)
    table["unit"] = "u" + table.image.astype(str)
    order = list(range(len(table)))
    random.shuffle(order)
    pieces = [table.iloc[rows] for rows in np.array_split(order, n_files)]
    random.shuffle(pieces)
    columns = list(table)
    random.shuffle(columns)
    shuffled = pd.concat(pieces)[columns]
    for one, other in zip(score(table).outcomes, score(shuffled).outcomes, strict=True):
        assert one.experiment == other.experiment and one.experiment.id == other.experiment.id
        for name in ("predicted", "label", "group", "unit", "favoured", "confidence"):
            assert (getattr(one, name) == getattr(other, name)).all()


def test_labels_and_groups_may_be_text_or_numbers():
    table = plain()
    coded = table.replace({"cat": 3, "dog": 10, "red": 2.0, "green": 1.0})
    one, other = score(table), score(coded)
    assert other.outcomes[0].classes == ("3", "10") and other.outcomes[0].groups == ("1", "2")
    assert (one.outcomes[0].predicted == other.outcomes[0].predicted).all()
    named = coded.assign(label_name=table.label, group_name=table.group)
    assert score(named).outcomes[0].classes == ("cat", "dog")


def test_units_tell_photographs_that_are_shown_in_every_group():
    table = plain()
    table["unit"] = table.image // 2
    o = score(table).outcomes[0]
    assert o.paired and o.experiment.n_test == 6
    assert not score(plain()).outcomes[0].paired


def test_favoured_in_words_as_a_mapping_and_in_a_column():
    table, cells = plain(), np.array([[-1, 1], [1, -1]])  # cat, dog x green, red
    column = ((table.label == "cat") == (table.group == "red")).map({True: "yes", False: "no"})
    for found in (
        score(table, favoured="cat=red,dog=green"),
        score(table, favoured={"cat": "red", "dog": ["green"]}),
        score(table.assign(favoured=column)),
        score(table.assign(favoured=(column == "yes").astype(int))),
    ):
        assert all((o.favoured == cells).all() for o in found.outcomes)
    assert (score(table, favoured="red").outcomes[0].favoured == [[-1, 1], [-1, 1]]).all()
    assert not score(table).outcomes[0].biased


# ---- What cannot be scored -----------------------------------------------------------------------


def swapped(where, **values):
    """A change of some rows of the plain table."""

    def change_of(table):
        table = table.astype({name: object for name in values if name in table})
        table.loc[table.query(where).index, list(values)] = list(values.values())
        return table

    return change_of


BAD: dict = {
    "a list": (lambda t: t.to_dict(), "predictions are a table (pandas DataFrame); got dict"),
    "no rows": (lambda t: t.iloc[:0], "the table has no rows"),
    "no arm": (
        lambda t: t.drop(columns="arm"),
        "the table has no column arm; it has seed, generation, image, label, group, predicted; "
        "say which it is: --column arm=NAME",
    ),
    "a column twice": (lambda t: pd.concat([t, t[["seed"]]], axis=1), "more than one column seed"),
    "a label missing": (
        swapped("image == 2", label=None),
        "label is missing in 8 of 96 rows, the first is row 3",
    ),
    "an unknown arm": (
        swapped("arm == 'none'", arm="baseline"),
        "unknown arm 'baseline'; known: generated, real, resample, none",
    ),
    "a misspelt arm": (swapped("arm == 'none'", arm="non"), "(did you mean none?)"),
    "no arm none": (
        lambda t: t[t.arm != "none"],
        "arm none is missing: A needs it; the table has generated",
    ),
    "no arm generated": (
        lambda t: t[t.arm != "generated"],
        "arm generated is missing: A needs it; the table has none",
    ),
    "a seed in words": (
        swapped("seed == 1", seed="one"),
        "seed must be a whole number, 0 or more; got 'one' in 48 of 96 rows",
    ),
    "half a generation": (
        swapped("generation == 1", generation=0.5),
        "generation must be a whole number, 0 or more; got 0.5 in 48 of 96 rows",
    ),
    "a negative generation": (swapped("generation == 0", generation=-1), "0 or more; got -1"),
    "an image twice": (
        lambda t: pd.concat([t, t.query("image == 4 and seed == 0")]),
        "image 4 stands more than once in arm generated, seed 0, generation 0; 4 rows are too many;"
        " are they several classifiers? say which: column replicate",
    ),
    "an image missing": (
        lambda t: t.drop(t.query("image > 9 and arm == 'none' and seed == 1").index),
        "arm none, seed 1, generation 0 lacks 2 of 12 images, the first 10, 11; 2 of 8 runs lack "
        "some",
    ),
    "labels that differ": (
        swapped("image == 3 and seed == 1", label="dog"),
        "image 3 has label cat in arm generated, seed 0, generation 0 and dog in arm generated, "
        "seed 1, generation 0; 1 of 12 images differ",
    ),
    "groups that differ": (
        swapped("image < 4 and arm == 'none'", group="red"),
        "image 1 has group green in arm generated, seed 0, generation 0 and red in arm none",
    ),
    "other words for predictions": (
        lambda t: t.assign(predicted=t.predicted.map({"cat": 0, "dog": 1})),
        "no prediction is one of the labels: label is cat, dog, predicted 0, 1",
    ),
    "a seed of one arm": (
        lambda t: t[(t.arm == "generated") | (t.seed == 0)],
        "arm none lacks seed 1; 1 of 2 seeds; arms are paired by seed",
    ),
    "generations from 1": (
        lambda t: t.assign(generation=t.generation + 1),
        "arm generated, seed 0 lacks generation 0; generations are counted from 0 to 2",
    ),
    "a generation missing": (
        lambda t: t.drop(t.query("generation == 1 and arm == 'none' and seed == 1").index),
        "arm none, seed 1 lacks generation 1; generations are counted from 0 to 1",
    ),
    "a generation too many": (
        lambda t: t.drop(t.query("generation == 1 and arm == 'generated'").index),
        "arm none, seed 0 has generation 1, which the arm generated lacks",
    ),
    "one generation": (
        lambda t: t[t.generation == 0],
        "there is one generation: a change needs generation 0 and a later one",
    ),
    "generation 0 not shared": (
        swapped("arm == 'none' and generation == 0 and image == 5 and seed == 1", predicted="bird"),
        "arms generated and none of seed 1 differ in generation 0, which all arms share: image 5 "
        "is predicted cat and bird; 1 of 12 images differ",
    ),
    "one group": (lambda t: t.assign(group="red"), "all test images have the group red"),
    "one class": (
        lambda t: t.assign(label="cat"),
        "all test images have the label cat: nothing to compare",
    ),
    "groups that are classes": (
        lambda t: t.assign(group=t.label),
        "every class has one group and every group one class, cat with cat: nothing to compare",
    ),
    "confidence in percent": (
        lambda t: t.assign(confidence=87.0),
        "confidence must be a number in [0, 1]; got 87.0 in 96 of 96 rows",
    ),
    "favoured in words": (
        lambda t: t.assign(favoured="rather"),
        "favoured must be 1 or 0, true or false; got 'rather'",
    ),
    "favoured for half a cell": (
        lambda t: t.assign(favoured=(t.image < 2).astype(int)),
        "favoured is 1 and 0 in one cell of class and group, in seed 0: that of image 1",
    ),
    "all favoured": (
        lambda t: t.assign(favoured=1),
        "in no class is one group favoured and another not, so there is no contrast",
    ),
    "two biases": (
        lambda t: t.assign(bias=t.seed / 2, favoured=(t.group == "red").astype(int)),
        "bias is one number in a setting; got 0.0, 0.5",
    ),
    "a unit of two labels": (
        lambda t: t.assign(unit=t.image % 6),
        "unit 0 has images of several labels; 6 of 6 units do: a unit is one photograph",
    ),
    "a unit in some groups": (
        lambda t: t.assign(unit=np.where(t.image == 1, 0, t.image)),
        "of 2 groups, unit 0 is shown in 2 and unit 2 in 1: each unit is in one group, or all are",
    ),
    "replicates of one arm": (
        lambda t: pd.concat([t, t[t.arm == "none"].assign(replicate=1)]).fillna({"replicate": 0}),
        "arm generated, seed 0 lacks replicate 1; replicates are counted from 0 to 1",
    ),
    "two names of a label": (
        lambda t: t.assign(label_name="pet"),
        "label and label_name disagree: pet goes with cat, dog",
    ),
    "a variant that is not whole": (
        lambda t: pd.concat([t.assign(variant="a"), t[t.arm == "none"].assign(variant="b")]),
        "variant b: arm generated is missing",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_table_is_told_in_one_sentence(what):
    spoil, says = BAD[what]
    with pytest.raises(ValueError) as error:
        score(spoil(plain()))
    told = str(error.value)
    assert says in told and "\n" not in told and len(told) < 300


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"columns": {"methods": "arm"}}, "unknown column 'methods'; known: generation, arm"),
        ({"columns": {"arm": "methd"}}, "unknown column 'methd' for arm; known: arm, seed"),
        ({"columns": {"unit": "image"}}, "the column image cannot be both image, unit"),
        ({"arms": {"baseline": "none"}}, "unknown arm 'baseline'; known: generated, real"),
        ({"arms": {"real": "photos"}}, "unknown arm 'photos' in the table for real; known: gen"),
        ({"arms": {"generated": "none"}}, "the arms generated, none of the table are both gener"),
        ({"favoured": "blue"}, "unknown group 'blue' in favoured; known: green, red"),
        ({"favoured": "cow=red"}, "unknown class 'cow' in favoured; known: cat, dog"),
        ({"favoured": 3}, "favoured is {class: group}, or text such as 'red'"),
    ],
)
def test_a_bad_option_is_told_in_one_sentence(options, says):
    with pytest.raises(ValueError) as error:
        score(plain(), **options)
    assert says in str(error.value)


def test_what_predictions_cannot_tell_is_refused():
    found = score(plain())
    with pytest.raises(ValueError, match="'overconfidence' needs confidence, not known here"):
        found.measure("overconfidence")
    table = inference.secondary.secondary(found, ("A",)).set_index("metric")
    assert table.refused["calibration-gap"].endswith("needs confidence, not known here")
    assert table.refused["accuracy-gap"] == ""
    for figure in (figures.shares, figures.share_and_accuracy):
        with pytest.raises(ValueError, match="nothing is known of its training sets"):
            figure(found)
    with pytest.raises(ValueError, match="several settings"):
        both = reference_parts("colorized_mnist_start").values()
        Results([o for part in both for o in part.outcomes]).predictions()


# ---- The command ---------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    planted(loss=0.2, photographs=60).to_csv(tmp_path / "theirs.csv", index=False)
    return tmp_path / "theirs.csv"


OPTIONS = [
    *(f"--column={name}={theirs}" for name, theirs in THEIRS["columns"].items()),
    "--arm=generated=fake",
    "--arm=none=nothing",
    "--favoured=x",
]


def test_the_command_answers_first_then_says_what_it_found(file, capsys):
    assert main(["score", str(file), *OPTIONS]) == 0
    out = capsys.readouterr().out
    found = score(pd.read_csv(file), **THEIRS, favoured="x", name="theirs")
    assert out.startswith(inference.sentence(found) + "\n")
    a = inference.contrast(found, "A")
    assert f"generated - none {a.mean:+.3f} {a.low:+.3f} {a.high:+.3f}" in " ".join(out.split())
    assert (
        "5,760 rows\narms generated, none; 8 seeds; generations 0 to 2; 120 test images; 2 classes "
        "and 2 groups, crossed; groups are favoured\n" in out
    )


def test_several_files_are_one_table(file, tmp_path, capsys):
    assert main(["score", str(file), *OPTIONS]) == 0
    whole, table = capsys.readouterr().out, pd.read_csv(file)
    for part, rows in table.groupby("method"):
        rows.to_csv(tmp_path / f"{part}.csv.gz", index=False)
    files = [str(tmp_path / f"{part}.csv.gz") for part in ("nothing", "fake")]
    assert main(["score", *files, *OPTIONS, "--name", "theirs"]) == 0
    assert capsys.readouterr().out == whole


def test_figures_tables_and_a_page_are_written(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["score", str(file), *OPTIONS, "--out", str(out)]) == 0
    says = capsys.readouterr().out
    assert f"written: {out / 'index.html'}, 5 figures in {out / 'figures'}" in says
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == 5 and "amplified, exploratory, fitness not measured" in page
    assert "growth" in page and "made elsewhere" in page and "trained here" not in page
    told = json.loads((out / "figures" / "theirs-answer.json").read_text())
    assert told["verdict"] == "amplified, above 0" or told["verdict"].startswith("amplified")
    assert told["fitness"]["word"] == UNKNOWN and told["made"] == "made elsewhere"
    contrasts = pd.read_csv(out / "figures" / "theirs-contrasts.csv")
    assert list(contrasts.number[:2]) == ["M(none)", "A"]


def test_several_variants_have_a_panel_each(file, tmp_path, capsys):
    table = pd.read_csv(file)
    both = pd.concat([table.assign(variant="one"), table.assign(variant="two")])
    both.to_csv(file, index=False)
    assert main(["score", str(file), *OPTIONS, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("one: theirs, biased start") and "\ntwo: theirs, biased start" in out
    assert (tmp_path / "out" / "figures" / "theirs-1-grid.png").exists()


def test_power_comes_from_the_variances_of_the_predictions(file, capsys):
    assert main(["score", str(file), *OPTIONS, "--detect", "0.05"]) == 0
    out = capsys.readouterr().out
    assert (
        "variances from these predictions (8 seeds, 120 test images, 1 classifier per seed)" in out
    )
    assert "Power of `amplified` where A is 0.05 above the margin, and of `within a quarter`" in out
    assert "fewest seeds for `amplified`: " in out and "core hours" not in out


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("none.csv", None, "no file "),
        ("table.txt", "arm\n", "is no table: files end in .csv, .csv.gz"),
        ("empty.csv", "", "empty.csv: No columns to parse from file"),
        ("other.csv", "a,b\n1,2\n", "other.csv: the table has no column generation, arm, seed"),
        ("short.csv.xz", "no archive", "short.csv.xz: "),
        ("bad.csv", "generation,arm,seed,image,label,group,predicted\n" + "1,2\n" * 3, "missing"),
    ],
)
def test_a_bad_file_is_one_sentence_and_exit_2(tmp_path, capsys, name, text, says):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["score", str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("biasstudy: ") and says in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--column", "arm"], "--column takes NAME=VALUE, each name once; got arm"),
        (["--arm", "none=a", "--arm", "none=b"], "--arm takes NAME=VALUE, each name once"),
        (["--name", "a b"], "--name must be 1 to 100 letters"),
        (["--detect", "2"], "--detect must be a change of accuracy in (0, 1); got 2"),
    ],
)
def test_a_bad_option_of_the_command_is_one_sentence(file, capsys, options, says):
    assert main(["score", str(file), *OPTIONS, *options]) == 2
    assert says in capsys.readouterr().err


def test_parquet_is_read_where_it_can_be_and_else_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "theirs.parquet"
    path.write_bytes(b"")
    monkeypatch.setattr(pd, "read_parquet", lambda path: plain().assign(other=1))
    assert list(command.read_files([path], {})) == list(biasstudy.report.predictions.NEEDED)

    def lacking(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", lacking)
    with pytest.raises(ImportError, match="needs pyarrow: pip install pyarrow, or write CSV"):
        command.read_files([path], {})


# ---- Size ----------------------------------------------------------------------------------------

MILLION = """
import time
import numpy as np, pandas as pd
import biasstudy
from biasstudy import inference
from biasstudy.core.provenance import peak_memory_mb
rng, n = np.random.default_rng(0), 20_000
label, group = rng.integers(0, 10, n), rng.integers(0, 4, n)
runs = []
for seed in range(6):
    first = np.where(rng.random(n) < .9, label, 0)
    for arm in ("generated", "none", "real"):
        for t in range(3):
            predicted = first if t == 0 else np.where(rng.random(n) < .9, label, 0)
            run = {"arm": arm, "seed": seed, "generation": t, "image": np.arange(n)}
            run |= {"label": label, "group": group, "predicted": predicted}
            runs.append(pd.DataFrame(run))
table = pd.concat(runs).sample(frac=1, random_state=0)
started = time.process_time()
inference.sentence(biasstudy.score(table))
print(len(table), time.process_time() - started, peak_memory_mb() / 2**10)
"""


def test_a_million_rows_take_under_ten_seconds_of_a_core_and_two_gigabytes():
    out = subprocess.run(
        [sys.executable, "-c", MILLION], capture_output=True, text=True, check=True
    ).stdout.split()
    rows, seconds, gigabytes = int(out[0]), float(out[1]), float(out[2])
    assert rows > 1_000_000 and seconds < 10 and gigabytes < 2


def test_an_outcome_of_predictions_alone_knows_what_it_lacks():
    o = score(plain()).outcomes[0]
    lacking = [f.name for f in dataclasses.fields(Outcome) if getattr(o, f.name) is None]
    assert lacking == ["counts", "confidence", "pools", "origins", "confusion"]
