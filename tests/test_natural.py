"""Starts as they are found: every count by hand, what is favoured, what is too small."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from conftest import FLOAT64, tiny

from biasstudy import DATASETS, Dataset, LabeledImages, run
from biasstudy.data.natural import even_test
from biasstudy.data.real import _source, real_data
from biasstudy.inference.verdicts import change

CLASSES, GROUPS = ("landbird", "waterbird"), ("land", "water")
# Waterbirds, a fifth of it
TRAIN = np.array([[700, 37], [11, 211]])
TEST = np.array([[451, 451], [128, 128]])


def drawn(counts: np.ndarray, part: int) -> LabeledImages:
    """Bars (class), bright in one stripe (group); every image another."""
    label, group = (
        np.repeat(of_cell, counts.ravel()) for of_cell in np.indices(counts.shape).reshape(2, -1)
    )
    rng = np.random.default_rng(part)
    images = rng.integers(0, 90, (len(label), 3, 16, 16)).astype(np.uint8)
    for i, (y, g) in enumerate(zip(label, group, strict=True)):
        images[i, 2, :, 4 * g : 4 * g + 4] += 60
        at = rng.integers(2, 12)
        images[
            i, :, *((slice(at, at + 3), slice(2, 14)) if y else (slice(2, 14), slice(at, at + 3)))
        ] += 60
    order = rng.permutation(len(label))
    return LabeledImages(images, label, group)[order]


@pytest.fixture
def birds():
    """Registers data sets by their counts: birds(name="...", train=...) -> fields of an
    experiment."""
    made = []

    def register(
        train=TRAIN, test=TEST, classes=CLASSES, groups=GROUPS, design="crossed", **fields
    ):
        name = f"test-birds-{len(made)}"
        parts = drawn(np.array(train), 0), drawn(np.array(test), 1)

        @DATASETS.register(name)
        def data() -> Dataset:
            """Birds."""
            n = fields.pop("n_instruments", 180)
            return Dataset(*parts, classes, groups, design, name, n, **fields)

        made.append(name)
        return {"dataset": name, "start": "as-found", "n_real": 500, "n_test": 600}

    yield register
    for name in made:
        DATASETS._entries.pop(name)
    _source.cache_clear()


def cells(part) -> np.ndarray:
    return part.load().counts(2, 2)


def shared_out(n: int, counts: np.ndarray) -> np.ndarray:
    """n in the shares of the counts by largest remainder, in fractions."""
    quota = [Fraction(n * int(c), int(counts.sum())) for c in counts.ravel()]
    out = [int(q) for q in quota]
    order = sorted(range(len(quota)), key=lambda i: (out[i] - quota[i], i))
    for i in order[: n - sum(out)]:
        out[i] += 1
    return np.array(out).reshape(counts.shape)


@pytest.mark.parametrize("n_real", [300, 333, 500, 540])
def test_shares_are_natural_in_start_and_reserve(birds, n_real):
    e = tiny(**{**birds(), "n_real": n_real}, ratio=0.1).to_arm("real")
    real = real_data(e)
    assert (real.counts == shared_out(n_real, TRAIN)).all()
    assert (cells(real.start) == real.counts).all()
    aside = sum(cells(part) for part in real.instruments.values())
    assert aside.tolist() == [[95, 12], [3, 70]], "180, evenly, at most a third of a cell"
    for t in range(e.n_generations):
        of_class = shared_out(e.n_batch, real.counts.sum(1))
        asked = [shared_out(n, row) for n, row in zip(of_class, real.counts, strict=True)]
        assert (cells(real.reserve(t)) == np.stack(asked)).all()
    units = [set(part.load().unit) for part in (real.start, *real.instruments.values())]
    units += [set(real.reserve(t).load().unit) for t in range(2)]
    assert len(set().union(*units)) == sum(map(len, units)), "no photograph has two parts"


def test_instruments_never_take_more_than_a_third_of_a_rare_cell(birds):
    real = real_data(tiny(**{**birds(n_as_found=900), "n_real": 300}))
    aside = sum(cells(part) for part in real.instruments.values())
    assert (aside == TRAIN // 3).all()


def test_the_test_set_is_even_as_far_as_it_goes(birds):
    e = tiny(**birds())
    assert (cells(real_data(e).test) == [[172, 172], [128, 128]]).all()
    everything = dataclasses.replace(e, n_test=int(TEST.sum()))
    assert (cells(real_data(everything).test) == TEST).all()
    with pytest.raises(ValueError, match="n_test is 1159, but the test set has at most 1158"):
        real_data(dataclasses.replace(e, n_test=1159))
    source = DATASETS[e.dataset].target()
    for n in range(0, 1158, 7):
        counts = even_test(source, n)
        assert counts.sum() == n and (counts <= TEST).all()
        free = counts[counts < TEST]
        assert not len(free) or counts.max() - free.min() <= 1


def test_larger_cells_are_favoured_and_small_ones_left_out_of_the_contrast_alone(birds):
    e = tiny(**{**birds(), "n_real": 600})
    real = real_data(e)
    assert (real.counts == [[438, 23], [7, 132]]).all()
    assert (real.favoured == [[1, -1], [0, 1]]).all(), "7 images of a cell are too few"
    assert real.start.load().counts(2, 2)[1, 0] == 7, "they stay in the data"
    text = "\n".join(real.says())
    assert "600 images in the shares of 959, 7 (waterbird, land) to 438 (landbird, land)" in text
    assert "Favoured (the larger ones): landbird: land; waterbird: water" in text
    assert "waterbird, land (7 in the start, 128 test)" in text
    assert "Instruments: 180, 3 (waterbird, land) to 95 (landbird, land)" in text
    largest = int(text.split("at most n_real ")[1].split(" ")[0])
    real_data(dataclasses.replace(e, n_real=largest))
    with pytest.raises(ValueError, match=f"at most n_real {largest} "):
        real_data(dataclasses.replace(e, n_real=largest + 1))


def test_the_largest_start_that_is_told_lies_in_a_draw(birds):
    e = tiny(**{**birds(), "n_real": 300, "draws": "disjoint", "n_draws": 2, "n_test": 300})
    largest = int("\n".join(real_data(e).says()).split("at most n_real ")[1].split(" ")[0])
    real_data(dataclasses.replace(e, n_real=largest))
    with pytest.raises(ValueError, match=f"disjoint draws .* at most n_real {largest} fits"):
        real_data(dataclasses.replace(e, n_real=largest + 1))


def test_favoured_cells_can_be_named(birds):
    fields = birds(
        train=[[300, 100, 80], [60, 200, 90]], test=[[40] * 3, [40] * 3], groups=("x", "y", "7")
    )
    named = {"landbird": ["y", 7]}
    e = tiny(**{**fields, "n_test": 120}, favoured=named)
    assert (real_data(e).favoured == [[-1, 1, 1], [0, 0, 0]]).all()
    usual = dataclasses.replace(e, favoured={})
    assert (real_data(usual).favoured == [[1, -1, -1], [-1, 1, -1]]).all()
    assert usual.id != e.id and real_data(usual).start.id == real_data(e).start.id
    for bad, says in (
        ({"duck": "x"}, "unknown class 'duck' in favoured; known: landbird, waterbird"),
        ({"landbird": "z"}, "unknown group 'z' in favoured; known: x, y, 7"),
        ({"landbird": ["x", "y", "7"]}, "must name some groups of class 'landbird' and not all"),
        ({"landbird": []}, "must name some groups"),
    ):
        with pytest.raises(ValueError, match=says):
            real_data(dataclasses.replace(e, favoured=bad))


def test_one_group_and_a_list_of_it_favour_the_same():
    words = {"landbird": "land", "waterbird": 7}
    lists = {"landbird": ["land"], "waterbird": ["7"]}
    fields = {"dataset": "folder", "dataset_options": {"root": "b"}, "start": "as-found"}
    one, other = (tiny(**fields, favoured=named) for named in (words, lists))
    assert one.id == other.id and one.favoured == other.favoured == lists


def test_cells_that_are_too_small_leave_nothing_to_contrast(birds):
    fields = birds(train=[[900, 60], [60, 900]]) | {"n_real": 100, "n_test": 100}
    with pytest.raises(ValueError, match="one group is favoured and another is not, each with 10"):
        real_data(tiny(**fields, ratio=0.1, n_generations=1))


def test_equal_cells_favour_nothing_so_there_is_nothing_to_contrast(birds):
    fields = birds(train=[[100, 100], [90, 90]], test=[[40, 40], [40, 40]])
    equal = {**fields, "n_real": 200, "n_test": 100}
    with pytest.raises(
        ValueError, match=r"all groups of a class are equally large.*use start: unb"
    ):
        real_data(tiny(**equal))
    named = real_data(tiny(**equal, favoured={"landbird": "land"}))
    assert (named.favoured == [[1, -1], [0, 0]]).all()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dataset": "colorized-mnist-5k"}, "those of this data set are painted"),
        ({"bias": 0.5}, "so bias stays 0 and n_thinned 2; got bias 0.5"),
        ({"start": "unbiased", "favoured": {"landbird": "land"}}, "by start 'as-found' alone"),
        ({"n_real": 900}, "not enough real images: class 'landbird', group 'land' has 700"),
        ({"n_real": 2}, "has no image of class 'waterbird', which has 222 of 959; raise n_real"),
        ({"n_thinned": 1}, "got bias 0.0, n_thinned 1"),
    ],
)
def test_starts_that_cannot_be_are_refused(birds, fields, says):
    with pytest.raises(ValueError, match=says):
        real_data(tiny(**{**birds(), **fields}))


def test_instruments_that_are_too_few_are_told(birds):
    fields = birds(train=[[700, 37], [4, 3]])
    with pytest.raises(ValueError, match="instruments of class 'waterbird' are too few"):
        real_data(tiny(**{**fields, "n_real": 400}))


def test_instruments_set_aside_by_name_are_all_used(birds):
    """As with the split val of a folder: nothing is taken from the cells themselves."""
    fields = birds(set_aside=np.arange(0, 959, 4))
    source = DATASETS[fields["dataset"]].target()
    aside = source.train[source.set_aside].counts(2, 2)
    real = real_data(tiny(**{**fields, "n_real": 700}))
    assert (sum(cells(part) for part in real.instruments.values()) == aside).all()
    assert (real.counts == shared_out(700, TRAIN - aside)).all()


def test_nested_and_grouped_data_have_natural_shares_too(birds):
    nested = birds([[300, 100, 0, 0], [0, 0, 50, 250]], [[50, 50, 0, 0], [0, 0, 50, 50]],
                   groups=tuple("abcd"), design="nested")  # fmt: skip
    real = real_data(tiny(**{**nested, "n_real": 350, "n_test": 200}))
    assert (real.favoured == [[1, -1, 0, 0], [0, 0, -1, 1]]).all()
    assert (real.counts == [[150, 50, 0, 0], [0, 0, 25, 125]]).all()


def test_the_contrast_is_of_the_cells_that_are_large_enough(birds, tmp_path, caplog):
    e = tiny(**{**birds(), "n_real": 600})
    results = run(
        [e.to_arm(arm) for arm in ("generated", "none")], numerics=FLOAT64, where=tmp_path
    )
    o = results.of("none")[0]
    test = real_data(e).test.load()
    right = o.predicted[-1][0] == test.label
    accuracy = {
        (y, g): right[(test.label == y) & (test.group == g)].mean() for y in (0, 1) for g in (0, 1)
    }
    told = results.table.query(
        "metric == 'accuracy-contrast' and arm == 'none' and generation == 2"
    )
    assert np.isclose(told.value.iloc[0], accuracy[0, 0] - accuracy[0, 1]), (
        "waterbirds have one cell"
    )
    assert change(results).relative, "there is a contrast that could be amplified"
    by_cell = [r.getMessage() for r in caplog.records if "right on real images: " in r.getMessage()]
    assert len(by_cell) == 1 and by_cell[0].count(" of ") == 4 and "waterbird, land" in by_cell[0]
