"""Draws of real data: seeds that share a stock, and seeds with no photograph in common."""

import dataclasses
import itertools

import numpy as np
import pytest
from conftest import FLOAT64, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biasstudy import Experiment, run
from biasstudy.data.real import real_data
from biasstudy.report.shipped import reference, save_study
from biasstudy.study import study_from

DIGITS = tiny(n_real=200, start="biased", bias=0.6, ratio=0.5, draws="disjoint", n_draws=6)
NESTED = tiny(
    dataset="standin20", n_real=400, n_test=100, start="biased", bias=0.75, draws="disjoint"
)


def photographs(e, arm):
    """Units of the start of an arm, and of all that its generations add."""
    e = e.to_arm(arm)
    real = real_data(e)
    added = [real.reserve(t).load().unit for t in range(e.n_generations if arm != "none" else 0)]
    return real, set(real.start.load().unit.tolist()), set(np.concatenate([[], *added]).tolist())


def seeds_of(e):
    return [dataclasses.replace(e, seed=seed) for seed in range(e.n_draws)]


def overlaps(sets):
    return [one & other for one, other in itertools.combinations(sets, 2) if one & other]


def test_two_seeds_share_photographs_unless_their_draws_are_disjoint():
    shared = [dataclasses.replace(DIGITS, draws="shared", n_draws=1, seed=s) for s in range(2)]
    starts = [photographs(e, "none")[1] for e in shared]
    assert overlaps(starts) and real_data(shared[0]).draws == "shared"
    assert not overlaps(photographs(e, "none")[1] for e in seeds_of(DIGITS))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.sampled_from(["colorized-mnist-5k", "standin20"]),
    n_draws=st.integers(1, 8),
    n_real=st.integers(100, 600),
    bias=st.sampled_from([0.0, 0.3, 0.75]),
    ratio=st.sampled_from([0.25, 0.5, 1.0]),
    T=st.integers(1, 3),
)
def test_a_draw_holds_what_is_said_of_it(data, n_draws, n_real, bias, ratio, T):
    base = tiny(dataset=data, n_real=n_real, n_test=100, ratio=ratio, n_generations=T)
    fields = {"start": "biased", "bias": bias, "draws": "disjoint", "n_draws": n_draws}
    e = dataclasses.replace(base, **fields)
    try:
        found = [photographs(one, "real") for one in seeds_of(e)]
    except ValueError as error:
        assert "not enough real images" in str(error)
        return
    starts, added = ([sets[i] for sets in found] for i in (1, 2))
    assert all(len(start) == n_real for start in starts) and not overlaps(starts)
    assert all(not start & more for start, more in zip(starts, added, strict=True))
    said = {real.draws for real, _, _ in found}
    if said == {"disjoint"}:
        whole = [start | more for start, more in zip(starts, added, strict=True)]
        assert not overlaps(whole)
    set_aside = set().union(
        *(part.load().unit.tolist() for part in found[0][0].instruments.values())
    )
    assert not set_aside & set().union(*starts, *added)


def test_where_reserves_do_not_fit_they_reuse_the_starts_of_others_and_say_so():
    e = dataclasses.replace(DIGITS, n_real=400)
    real, start, added = photographs(e, "real")
    assert real.draws == "disjoint starts, shared reserves"
    others = set().union(*(photographs(one, "none")[1] for one in seeds_of(e)[1:]))
    assert added & others and not start & others
    assert real_data(e).draws == real_data(e.to_arm("none")).draws == "disjoint"
    imitating = dataclasses.replace(DIGITS, generator="mixture").to_arm("real-shares")
    assert real_data(imitating).draws == "disjoint starts, shared reserves", "it takes of the shelf"


def test_one_order_for_all_seeds_and_all_sizes():
    """So a study with more generations, or a smaller start, has the same photographs first."""
    for seed in (0, 3):
        small, large = (
            dataclasses.replace(DIGITS, n_real=n, seed=seed, start="unbiased", bias=0.0)
            for n in (100, 200)
        )
        assert photographs(small, "none")[1] < photographs(large, "none")[1]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"n_draws": 3}, "n_draws is used by draws 'disjoint' alone; got 3"),
        (
            {"draws": "disjoint", "n_draws": 12, "seed": 1000},
            "draws 'disjoint' has a start for each seed below n_draws, 12; got seed 1000",
        ),
        ({"draws": "own"}, "unknown draws 'own'; known: shared, disjoint"),
    ],
)
def test_a_draw_that_is_not_there_is_told_in_one_sentence(fields, says):
    with pytest.raises(ValueError) as error:
        Experiment(**fields)
    assert str(error.value) == says


def test_a_study_of_more_seeds_than_draws_is_refused():
    study = study_from({"draws": "disjoint", "n_draws": 2, "n_real": 200, "n_seeds": 3})
    with pytest.raises(ValueError, match="for each seed below n_draws, 2; got seed 2"):
        _ = study.experiments


@pytest.mark.parametrize("base", [DIGITS, dataclasses.replace(NESTED, n_draws=40)])
def test_a_start_that_does_not_fit_is_refused_with_the_largest_that_does(base, runs):
    e = dataclasses.replace(base, n_real=1000)
    with pytest.raises(ValueError, match="disjoint draws of n_real 1000: at most n_real") as error:
        run(e.to_arm("none"), numerics=FLOAT64)
    largest = int(str(error.value).split("at most n_real ")[1].split()[0])
    assert real_data(dataclasses.replace(e, n_real=largest).to_arm("none")).draws == "disjoint"
    with pytest.raises(ValueError, match=f"at most n_real {largest} fits"):
        real_data(dataclasses.replace(e, n_real=largest + 1).to_arm("none"))


def test_what_seeds_share_is_kept_with_the_results(runs, tmp_path):
    arms = [DIGITS.to_arm("real"), dataclasses.replace(DIGITS, n_real=400).to_arm("real")]
    found = run(arms, numerics=FLOAT64)
    said = ["disjoint", "disjoint starts, shared reserves"]
    assert [o.draws for o in found.outcomes] == said
    save_study(found, tmp_path, "study", "")
    assert [o.draws for o in reference("study", tmp_path).outcomes] == said
    assert {o.draws for o in reference("colorized_mnist").outcomes} == {"shared"}


# ---- Full MNIST, CIFAR-100 -----------------------------------------------------------------------

TWELVE = {"start": "biased", "bias": 0.6, "draws": "disjoint", "n_draws": 12}


@pytest.mark.realdata
@pytest.mark.parametrize(("n_real", "ratio"), [(1300, 0.5), (800, 1.0)])
def test_twelve_seeds_of_mnist_have_no_photograph_in_common(n_real, ratio):
    e = tiny(dataset="colorized-mnist", n_real=n_real, ratio=ratio, n_generations=4, **TWELVE)
    found = [photographs(one, "real") for one in seeds_of(e)]
    assert {real.draws for real, _, _ in found} == {"disjoint"}
    whole = [start | added for _, start, added in found]
    assert {len(one) for one in whole} == {n_real + 4 * e.n_batch} and not overlaps(whole)


@pytest.mark.realdata
def test_twelve_starts_of_4000_digits_have_no_photograph_in_common():
    e = tiny(dataset="colorized-mnist", n_real=4000, ratio=0.5, **TWELVE)
    assert real_data(e.to_arm("real")).draws == "disjoint starts, shared reserves"
    assert not overlaps(photographs(one, "none")[1] for one in seeds_of(e))


@pytest.mark.realdata
def test_cifar_100_has_too_few_images_for_disjoint_starts():
    e = tiny(dataset="cifar20", n_real=5000, n_test=100, start="biased", bias=0.75)
    with pytest.raises(ValueError, match=r"for 6 disjoint draws of n_real 5000: at most n_real \d"):
        real_data(dataclasses.replace(e, draws="disjoint", n_draws=6).to_arm("none"))
