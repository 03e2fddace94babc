"""Images, sources and draws: exact counts, disjoint parts, equal starts in all arms, exact
colours."""

import dataclasses

import numpy as np
import pytest
from conftest import tiny

from biasstudy import DATASETS, LabeledImages
from biasstudy.data.conditions import condition_of
from biasstudy.data.pools import Member, Pool
from biasstudy.data.real import all_real_data, dataset_of, real_data, shares_of_start

NAMES = ["colorized-mnist-5k", "standin20"]


def images(n=4, **changed):
    blank = {
        "images": np.zeros((n, 3, 8, 8), np.uint8),
        "label": np.arange(n),
        "group": np.zeros(n, int),
    }
    return LabeledImages(**{**blank, **changed})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"images": np.zeros((4, 3, 8, 8))}, "images must be uint8"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, "images must be uint8"),
        ({"label": np.arange(3)}, "label must be 4 whole numbers"),
        ({"label": np.arange(4.0)}, "label must be 4 whole numbers"),
        ({"label": np.array([0, 1, 2, -1])}, "labels start at 0"),
        ({"group": np.zeros((4, 1), int)}, "group must be 4 whole numbers"),
        ({"mask": np.zeros((4, 7, 8), bool)}, "a mask has the height and width"),
    ],
)
def test_labeled_images_are_checked_at_birth(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        images(**changed)


@pytest.mark.parametrize("dataset", [*NAMES, "standin-hard"])
@pytest.mark.parametrize("arm", ["generated", "real"])
def test_labels_alone_are_those_of_the_images(dataset, arm):
    """Parts that are asked for labels before and after their images are drawn."""
    drawn = real_data(tiny(dataset=dataset, start="biased", bias=0.6).to_arm(arm))
    parts = [drawn.start, drawn.test, *drawn.instruments.values(), drawn.shelf(1)]
    for part in [*parts, drawn.reserve(1)]:
        bare, images = part.labels(), part.load()
        assert part.labels() is images and len(bare) == len(images) > 0
        for name in ("label", "group", "origin", "unit"):
            assert np.array_equal(getattr(bare, name), getattr(images, name)), name


def test_labels_alone_need_no_paint(monkeypatch):
    dataset = dataset_of(tiny())
    unpainted = dataclasses.replace(dataset, paint=lambda *given: pytest.fail("it painted"))
    monkeypatch.setattr("biasstudy.data.real.dataset_of", lambda e: unpainted)
    drawn = real_data(tiny())
    assert len(drawn.start.labels()) == 100 and len(drawn.test.labels()) == 20 * 5


@pytest.mark.parametrize("dataset", NAMES)
def test_parts_are_disjoint_and_counts_exact(dataset):
    e = tiny(
        dataset=dataset,
        n_real=200,
        n_test=200,
        start="biased",
        bias=0.6,
        generator="reserve",
        ratio=0.5,
    )
    real, source = real_data(e), dataset_of(e)
    parts = {
        "start": real.start,
        "reserve 0": real.reserve(0),
        "reserve 1": real.reserve(1),
        **real.instruments,
    }
    units = {name: set(part.load().unit.tolist()) for name, part in parts.items()}
    for one in units:
        for other in units:
            assert one == other or not units[one] & units[other], (
                f"{one} and {other} share photographs"
            )
    start = real.start.load()
    assert (
        start.counts(source.n_classes, source.n_groups) == real.counts
    ).all() and real.counts.sum() == 200
    assert set(real.counts.sum(1)) == {200 // source.n_classes}
    for t in range(2):
        told = np.bincount(
            condition_of(real.reserve(t).load(), "class", source.n_groups),
            minlength=source.n_classes,
        )
        assert (told == np.bincount(real.conditions.of_batch)).all(), (
            "the reserve has exactly what the generator would be told"
        )


@pytest.mark.parametrize("dataset", NAMES)
def test_the_start_is_the_same_in_every_arm_and_changes_with_the_seed(dataset):
    e = tiny(dataset=dataset, n_real=200, n_test=200)
    starts = {
        arm: real_data(e.to_arm(arm)).start for arm in ("generated", "real", "resample", "none")
    }
    assert len({part.id for part in starts.values()}) == 1
    assert (starts["real"].load().images == starts["none"].load().images).all()
    other = real_data(dataclasses.replace(e, seed=1))
    assert other.start.id != starts["none"].id and other.test.id == real_data(e).test.id
    assert {k: p.id for k, p in other.instruments.items()} == {
        k: p.id for k, p in real_data(e).instruments.items()
    }


@pytest.mark.parametrize("bias", [0.0, 0.3, 1.0])
def test_biased_starts_have_the_shares_of_the_formula(bias):
    source = dataset_of(tiny())
    shares, favoured = shares_of_start(source, "biased", bias, seed=3)
    assert np.allclose(shares.sum(1), 1) and (np.sum(favoured > 0, axis=1) == 1).all()
    assert np.allclose(shares[favoured > 0], bias + (1 - bias) / 5) and np.allclose(
        shares[favoured < 0], (1 - bias) / 5
    )
    nested = dataset_of(tiny(dataset="standin20"))
    shares, favoured = shares_of_start(nested, "biased", bias, seed=3)
    assert (np.sum(favoured < 0, axis=1) == 2).all() and (favoured[~nested.occurs] == 0).all()
    assert np.allclose(shares[favoured < 0], (1 - bias) / (3 + 2 * (1 - bias)))


SIZES = [  # fields, sentences, changes each of which fits, changes each of which just does not
    (
        {"n_real": 3500, "n_test": 5000},
        ("at most n_real 3000 fits", "n_test is 5000, but the balanced test set has at most 1000"),
        [{"n_real": 3000, "n_test": 1000}],
        [{"n_real": 3010, "n_test": 1000}, {"n_real": 3000, "n_test": 1001}],
    ),
    (
        {"n_real": 2000, "generator": "reserve", "ratio": 0.5, "n_generations": 2},
        ("at most n_real 1500 or ratio 0.25 fits",),
        [{"n_real": 1500}, {"ratio": 0.25}],
        [{"n_real": 1502}, {"ratio": 0.251}],
    ),
    (
        {"n_real": 5, "n_test": 5000},
        ("n_real must be at least the number of classes, 10; got 5", "n_test is 5000"),
        [],
        [{"n_test": 10}, {"n_real": 10}],
    ),
    (
        {"dataset": "standin20", "n_real": 20000, "generator": "reserve", "n_test": 100},
        ("at most n_real 12000 or ratio 0.1 fits",),
        [{"n_real": 12000}, {"ratio": 0.1}],
        [{"n_real": 12100}, {"ratio": 0.101}],
    ),
]


@pytest.mark.parametrize(("fields", "sentences", "fitting", "larger"), SIZES)
def test_all_sizes_that_do_not_fit_are_told_at_once_with_the_largest_that_do(
    fields, sentences, fitting, larger
):
    for changes in ({}, *larger):
        with pytest.raises(ValueError) as error:
            real_data(tiny(**{**fields, **changes}))
        if not changes:
            assert all(sentence in str(error.value) for sentence in sentences)
    for changes in fitting:
        assert real_data(tiny(**{**fields, **changes})).sizes


def test_of_several_arms_the_one_that_needs_a_reserve_is_told_first():
    e = tiny(n_real=2000, n_test=5000)
    with pytest.raises(ValueError, match=r"for the reserve; at most .*; n_test is 5000"):
        all_real_data([e, e.to_arm("real")])
    fitting = [tiny(), tiny().to_arm("real")]
    assert [real.sizes["reserve"] > 0 for real in all_real_data(fitting)] == [False, True]


def test_too_few_images_say_how_many_there_are():
    with pytest.raises(
        ValueError, match=r"class '0' has 400, 100 of them instruments, and needs 350 for the start"
    ):
        real_data(tiny(n_real=3500))
    with pytest.raises(ValueError, match=r"needs 200 for the start and 200 for the reserve"):
        real_data(tiny(n_real=2000, ratio=0.5, generator="reserve"))
    with pytest.raises(
        ValueError, match="n_test is 5000, but the balanced test set has at most 1000"
    ):
        real_data(tiny(n_test=5000))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"n_colors": 1}, "n_colors must be in 2..10"), ({"contrast": 0.0}, "contrast must be in")],
)
def test_data_set_options_are_checked(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        real_data(tiny(dataset_options=options))


@pytest.mark.parametrize("n_colors", [2, 3, 5, 10])
@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_every_painted_colour_is_told_exactly(n_colors, contrast):
    source = dataset_of(tiny(dataset_options={"n_colors": n_colors, "contrast": contrast}))
    part = source.test[::3]
    group = np.arange(len(part)) % n_colors
    assert (source.probe(source.paint(part.images, group, part.unit, 7)) == group).all()
    assert len(set(source.groups)) == n_colors


def test_images_without_a_clear_colour_are_counted_as_such():
    source = dataset_of(tiny())
    grey = np.repeat(source.test.images[:5], 3, axis=1)
    half = source.paint(source.test.images[:5], np.zeros(5, int), np.arange(5), 0)
    half[:, :, :14] = source.paint(source.test.images[:5], np.full(5, 2), np.arange(5), 0)[
        :, :, :14
    ]
    assert (source.probe(np.concatenate([grey, half, np.zeros_like(grey)])) == -1).all()


def test_test_images_show_every_photograph_in_every_colour():
    real = real_data(tiny(n_test=20))
    test = real.test.load()
    assert len(test) == 100 and all(
        (test.group[test.unit == u] == np.arange(5)).all() for u in np.unique(test.unit)
    )
    assert np.bincount(test.label).tolist() == [10] * 10


def test_contrast_makes_one_group_fainter():
    bright, faint = (dataset_of(tiny(dataset_options={"contrast": c})) for c in (1.0, 0.3))
    one = bright.test[:50]

    def mean(source, g):
        return source.paint(one.images, np.full(50, g), one.unit, 0).mean()

    assert mean(faint, 0) < 0.4 * mean(bright, 0) and mean(faint, 1) == mean(bright, 1)


def test_a_pool_is_named_by_its_parts_and_positions():
    real = real_data(tiny())
    all_of_it, half_of_it = (
        Member(real.start, "start"),
        Member(real.start, "start", index=np.arange(50)),
    )
    whole, half = Pool((all_of_it,)), Pool((half_of_it,))
    assert whole.id != half.id and len(half.load()) == 50
    both = Pool((all_of_it, half_of_it))
    assert len(both.load()) == 150 and both.id not in (whole.id, half.id)


@pytest.mark.realdata
def test_full_mnist_meets_the_sizes_that_the_design_promises():
    e = tiny(
        dataset="colorized-mnist",
        n_real=8000,
        ratio=1,
        n_generations=4,
        generator="reserve",
        n_test=2000,
    )
    real = real_data(e)
    assert real.sizes["start"] == 800 and len(real.test.load()) == 10000
    assert (dataset_of(e).probe(real.start.load().images) == real.start.load().group).all()


def test_missing_and_altered_files_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path))
    from biasstudy.data.real import _source

    _source.cache_clear()
    with pytest.raises(FileNotFoundError, match="get it with: python -m biasstudy fetch mnist"):
        DATASETS["colorized-mnist"].target()
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="truncated or altered; delete it and run"):
        DATASETS["colorized-mnist"].target()
