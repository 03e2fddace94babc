"""The command `plan`: from which results, which power, which cost, and what it refuses."""

import dataclasses
import re

import numpy as np
import pytest
import yaml
from conftest import FLOAT64, TINY

from biasstudy import Experiment, Numerics, run
from biasstudy.__main__ import main
from biasstudy.campaign import plan as planning
from biasstudy.campaign.plan import Design, Planner, Question, nearest, plan_lines
from biasstudy.core.places import runs_folder
from biasstudy.inference.power import power, spread
from biasstudy.report.shipped import reference
from biasstudy.study import study_from

SMALL = {
    **TINY,
    "name": "asked",
    "n_generations": 1,
    "precision": "float64",
    "start": "biased",
    "bias": 0.6,
    "n_seeds": 6,
    "arms": ["generated", "none"],
}


@pytest.fixture(scope="module")
def pilots(tmp_path_factory):
    """A store with pilot seeds: six of one setting with two classifiers per seed, five of another
    start."""
    runs = tmp_path_factory.mktemp("pilots")
    for changed in ({"n_classifiers": 2}, {"start": "unbiased", "bias": 0.0, "n_seeds": 5}):
        study = study_from({**SMALL, "seed": 1000, **changed})
        run(study.experiments, numerics=FLOAT64, where=runs)
    return runs


@pytest.fixture
def stored(pilots, monkeypatch):
    monkeypatch.setenv("BIASSTUDY_RUNS", str(pilots))
    return pilots


def planned(parameters, tmp_path, capsys, *options):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(parameters))
    code = main(["plan", str(tmp_path / "study.yaml"), *options])
    said = capsys.readouterr()
    return code, said.out if code == 0 else said.err


def test_the_table_is_the_power_of_the_nearest_variances(stored, tmp_path, capsys):
    before = sorted(stored.glob("stages/*/*"))
    code, said = planned(SMALL, tmp_path, capsys, "--detect", "0.05")
    assert code == 0 and sorted(stored.glob("stages/*/*")) == before, "nothing is trained"
    assert f"variances from results in {stored} (6 seeds, n_real 100, 20 test images, 2 " in said
    assert ", the same setting" in said and "core hours: from times of stored stages" in said
    found = spread(nearest(study_from(SMALL).base).results)
    rows = [line.split() for line in said.splitlines() if re.match(r" +\d+ +\d+ ", line)]
    assert {(int(row[0]), int(row[1])) for row in rows} == {
        (n, k) for n in (6, 8, 10, 12, 16, 24) for k in (1, 3, 5)
    }
    row = next(row for row in rows if row[:2] == ["12", "3"])
    # 40 test images: the second column
    per_seed, images = found.at(2, 3 / 2)
    for value, change in ((row[5], found.level / 4 + 0.05), (row[7], 0.0)):
        exact = power(change, found.level, per_seed, images, 12)
        assert float(value) == pytest.approx(exact.amplified if change else exact.within, abs=0.006)


def test_the_cheapest_design_reaches_80_percent_and_no_cheaper_one_does(stored):
    study = study_from(SMALL)
    pilot = nearest(study.base)
    question = Question(pilot, spread(pilot.results), 0.05)
    planner = Planner([question], 0.05, 1, study)
    sizes = [(20, 1), (40, 1), (40, 3)]
    words = ("amplified", "within")
    best = planner.cheapest(sizes, words)
    assert best is not None

    def reaches(design):
        return min(getattr(planner.power(design), word) for word in words) >= 0.8

    assert reaches(best)
    for n_test, k in sizes:
        for seeds in range(6, 40):
            design = Design(seeds, n_test, k)
            if planner.hours(design) < planner.hours(best) - 1e-3:
                assert not reaches(design), design
    assert planner.cheapest(sizes, ("amplified",)).seeds <= best.seeds
    blind = Planner([question], 1e-9, 1, study)
    assert blind.cheapest([(20, 1)], ("amplified",)) is None


def test_the_cost_is_that_of_the_stages(stored):
    """One seed's cost is the same for every seed; what all seeds share, the instruments, counts
    once."""
    study = study_from({**SMALL, "seed": 1000, "n_classifiers": 2})
    pilot = nearest(study.base)
    planner = Planner([Question(pilot, spread(pilot.results), None)], 0.01, 1, study)
    hours = [planner.hours(Design(n, 20, 2)) for n in (6, 7, 8)]
    assert hours[2] - hours[1] == pytest.approx(hours[1] - hours[0])
    results = study.run()
    seconds = {id: s for o in results.outcomes for id, s in o.cost["seconds"].items()}
    # medians of a kind in place of its single times
    assert hours[0] * 3600 == pytest.approx(sum(seconds.values()), rel=0.5)
    assert planner.hours(Design(6, 20, 4)) > hours[0]


def test_designs_are_priced_by_one_probe(stored, monkeypatch):
    """Else hours of a busy machine differ between designs that cost the same."""
    from biasstudy.campaign import sweep

    study = study_from({**SMALL, "generator": "vae", "generator_steps": 3})
    probes = []

    def probe(costs, experiments, numerics, images):
        probes.append(len(experiments))
        unknown = {"generator", "classifier", "batch"}
        costs.probed |= {family: (1.0, 0.0) for family in families if kind_of(family) in unknown}

    def kind_of(family):
        return family.rsplit("-", 1)[0]

    schedule = sweep.schedule_of(study, runs_folder(), Numerics(**study.numerics))
    families = {piece.recipe.family for piece in schedule.pieces.values()}
    monkeypatch.setattr(sweep, "add_probe", probe)
    pilot = nearest(study_from(SMALL).base)
    planner = Planner([Question(pilot, spread(pilot.results), None)], 0.01, 1, study)
    hours = [planner.hours(Design(6, n_test, 1)) for n_test in (20, 40, 80)]
    assert len(probes) == 1 and hours[0] > 0 and np.allclose(hours, hours[0])


def test_several_hypotheses_share_the_error_rate_and_the_least_certain_counts(stored):
    starts = [{"start": "unbiased", "bias": 0.0}, {"start": "biased", "bias": 0.6}]
    study = study_from({**SMALL, "variants": starts})
    said = "\n".join(plan_lines(study, 0.05))
    assert "2 hypotheses in the family, the least certain one counts" in said
    assert "start unbiased, bias 0.0: variances from results in" in said
    assert "margin 0.020 (absolute)" in said and "(a quarter)" in said
    assert "what more of them would do is not known" in said, "one pilot had one classifier"
    questions = []
    for e, margin in zip(study.variants.values(), (0.02, None), strict=True):
        pilot = nearest(e)
        questions.append(Question(pilot, spread(pilot.results), margin))
    design = Design(8, 20, 1)
    both = Planner(questions, 0.05, 2, study).power(design)
    each = [question.power(design, 0.05, 2) for question in questions]
    assert both.amplified == min(found.amplified for found in each)
    assert both.within == min(found.within for found in each)
    alone = [question.power(design, 0.05, 1) for question in questions]
    assert all(f.amplified < a.amplified for f, a in zip(each, alone, strict=True))


# ---- The nearest results -------------------------------------------------------------------------


def test_the_nearest_of_what_ships(runs):
    e = Experiment(
        dataset="colorized-mnist", start="biased", bias=0.6, n_real=7000, classifier="lenet"
    )
    found = nearest(e)
    assert found.source == "colorized_mnist_transfer, which ships"
    assert found.experiment.n_real == 5000 and "n_real" in found.differs
    near = nearest(dataclasses.replace(e, n_real=1200))
    assert near.experiment.n_real == 1300
    named = nearest(e, pilot="colorized_mnist_transfer")
    assert named.source == "colorized_mnist_transfer, which ships"
    assert abs(named.experiment.bias - 0.6) == min(
        abs(o.experiment.bias - 0.6) for o in reference("colorized_mnist_transfer").outcomes
    )


def test_a_parameter_file_can_be_the_pilot(stored, tmp_path):
    (tmp_path / "pilot.yaml").write_text(
        yaml.safe_dump({**SMALL, "start": "unbiased", "bias": 0.0, "n_seeds": 1})
    )
    found = nearest(study_from(SMALL).base, str(tmp_path / "pilot.yaml"))
    assert found.experiment.start == "unbiased" and found.differs == ("start", "bias")
    assert len(found.results.of("generated")) == 5, "all seeds of it that are stored"


def test_two_seeds_are_too_few_for_a_variance(runs):
    study = study_from({**SMALL, "n_seeds": 2, "n_real": 90})
    run(study.experiments, numerics=FLOAT64)
    with pytest.raises(ValueError, match="and 3 seeds to take variances from; run pilot seeds"):
        nearest(study.base)


# ---- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, ["--detect", "0"], r"--detect must be a change of accuracy in \(0, 1\); got 0"),
        ({}, ["--detect", "0.1", "--margin", "third"], "--margin must be quarter or a number in"),
        ({}, ["--detect", "0.1", "--margin", "-1"], r"--margin must be quarter or .*got '-1'"),
        (
            {"start": "unbiased", "bias": 0.0},
            ["--detect", "0.1", "--margin", "quarter"],
            "a quarter of the contrast that a biased start makes, and this start is unbiased",
        ),
        (
            {},
            ["--detect", "0.1", "--pilot", "nothing"],
            "no parameter file and no study that ships",
        ),
        ({"arms": ["generated", "real"]}, ["--detect", "0.1"], "nothing is asked: a plan needs"),
        ({"source": "reference:x"}, ["--detect", "0.1"], "source is 'reference:x'"),
        (
            {"dataset": "standin20", "n_thinned": 1},
            ["--detect", "0.1"],
            "has no results with dataset standin20, start biased, classifier ridge",
        ),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_sentence(
    changes, options, sentence, stored, tmp_path, capsys
):
    code, error = planned({**SMALL, **changes}, tmp_path, capsys, *options)
    assert code == 2 and re.search(sentence, error) and error.count("\n") == 1, error


def test_without_a_contrast_there_is_no_quarter_of_it(stored, monkeypatch):
    pilot = nearest(study_from(SMALL).base)
    flat = dataclasses.replace(spread(pilot.results), level=-0.01)
    monkeypatch.setattr(planning, "spread", lambda results: flat)
    with pytest.raises(ValueError, match=r"M\(none\) is -0.010 in results in .* --margin NUMBER"):
        list(plan_lines(study_from(SMALL), 0.05))
    assert "within 0.03" in "\n".join(plan_lines(study_from(SMALL), 0.05, "0.03"))


def test_help_says_what_it_is_for(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for words in ("--detect CHANGE", "--margin MARGIN", "--pilot STUDY", "Nothing is trained"):
        assert words in said
