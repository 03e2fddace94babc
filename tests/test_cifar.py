"""CIFAR-100: files checked before they are opened, coarse and fine labels, smaller pictures,
starts, the download."""

import dataclasses
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from biasstudy import DATASETS, Experiment, run
from biasstudy.__main__ import main
from biasstudy.data.datasets import cifar
from biasstudy.data.real import _source, real_data

PER_GROUP = {"train": 44, "test": 2}


def content() -> dict[str, bytes]:
    """Files in CIFAR-100's format: fine class 5 k + i is in coarse class k, pictures are random."""
    rng, files = np.random.default_rng(0), {}
    names = [f"fine {g}" for g in range(60)] + list(cifar.DIM_25)
    for part, n in PER_GROUP.items():
        fine = rng.permutation(np.repeat(np.arange(100), n))
        data = rng.integers(0, 256, (len(fine), 3072)).astype(np.uint8)
        # three of 60 and two that DIM names in each class
        coarse = np.where(fine < 60, fine // 3, (fine - 60) // 2)
        files[part] = pickle.dumps(
            {"data": data, "fine_labels": fine.tolist(), "coarse_labels": coarse.tolist()}
        )
    files["meta"] = pickle.dumps(
        {"fine_label_names": names, "coarse_label_names": [f"coarse {k}" for k in range(20)]}
    )
    return files


@pytest.fixture(scope="module")
def files():
    return content()


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """Where CIFAR-100 lies; the sums of these files stand for those of the real ones."""
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path))
    monkeypatch.setattr(
        cifar, "_FILES", {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    )
    path = tmp_path / "cifar-100-python"
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    _source.cache_clear()
    yield path
    _source.cache_clear()


def test_coarse_classes_hold_their_fine_classes(folder, files):
    source = DATASETS["cifar20"].target(n_instruments=2000)
    raw = pickle.loads(files["train"])
    assert (source.design, source.n_classes, source.n_groups) == ("nested", 20, 100)
    assert (
        source.train.images.reshape(-1, 3072) == raw["data"]
    ).all() and source.train.images.shape[1:] == (3, 32, 32)
    assert (
        source.train.label.tolist() == raw["coarse_labels"]
        and source.train.group.tolist() == raw["fine_labels"]
    )
    assert (source.occurs.sum(1) == 5).all() and (source.occurs.sum(0) == 1).all()
    turned = DATASETS["cifar100"].target(n_instruments=2000)
    assert (turned.design, turned.n_classes, turned.n_groups) == ("grouped", 100, 20)
    assert (turned.train.label == source.train.group).all() and (
        turned.train.group == source.train.label
    ).all()


@pytest.mark.parametrize("size", [16, 8])
def test_smaller_pictures_are_means_over_squares(folder, size):
    whole, small = (DATASETS["cifar20"].target(n_instruments=2000, size=s) for s in (32, size))
    k = 32 // size
    means = whole.test.images.reshape(-1, 3, size, k, size, k).mean((3, 5))
    assert np.abs(small.test.images - means).max() <= 0.5 and small.checksum != whole.checksum


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 24}, "size must be 32, 16 or 8; got 24"),
        ({"n_instruments": 100}, r"n_instruments must be in \[2000, 40000\]; got 100"),
    ],
)
def test_options_out_of_range_are_refused(folder, options, says):
    with pytest.raises(ValueError, match=says):
        DATASETS["cifar20"].target(**DATASETS["cifar20"].resolve(options))


def test_files_that_are_not_the_expected_ones_are_never_opened(folder, files, monkeypatch):
    monkeypatch.setattr(
        pickle, "loads", lambda *a, **k: pytest.fail("a file was opened before its sum was known")
    )
    for altered in (files["test"][:-1], b"cos\nsystem\n(S'true'\ntR."):
        (folder / "test").write_bytes(altered)
        with pytest.raises(
            ValueError, match=r"test is truncated or altered; delete it and run: .* fetch cifar100"
        ):
            DATASETS["cifar20"].target()
    (folder / "test").unlink()
    with pytest.raises(FileNotFoundError, match="get it with: python -m biasstudy fetch cifar100"):
        DATASETS["cifar20"].target()


# ---- Starts --------------------------------------------------------------------------------------

CIFAR = {
    "dataset": "cifar20",
    "dataset_options": {"n_instruments": 2000, "size": 8},
    "n_real": 700,
    "n_test": 200,
}


def test_the_preset_thins_what_dim_thins_whatever_the_seed(folder):
    tables = [
        real_data(Experiment(**CIFAR, start="dim-25", bias=0.75, seed=s)).counts for s in (0, 1)
    ]
    assert (tables[0] == tables[1]).all()
    assert (
        (tables[0].sum(0)[:60] == 10).all()
        and set(tables[0].sum(0)[60:]) == {2, 3}
        and tables[0].sum() == 700
    )


@pytest.mark.parametrize("n_thinned", [1, 2, 4])
def test_a_chosen_number_of_fine_classes_is_thinned_and_sizes_stay(folder, n_thinned):
    e = Experiment(**{**CIFAR, "n_real": 500}, start="biased", bias=0.9, n_thinned=n_thinned)
    drawn = [real_data(dataclasses.replace(e, seed=s)) for s in (0, 1)]
    for real in drawn:
        assert ((real.favoured < 0).sum(1) == n_thinned).all() and (real.counts.sum(1) == 25).all()
    assert (drawn[0].favoured != drawn[1].favoured).any(), "drawn per seed"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({**CIFAR, "start": "dim-25", "bias": 0.5}, "start 'dim-25' has bias 0.75"),
        ({"start": "dim-25", "bias": 0.75}, "no start 'dim-25'; known: unbiased, biased"),
        (
            {"start": "biased", "bias": 0.5, "n_thinned": 1},
            "n_thinned is for groups that have one class",
        ),
        (
            {"dataset": "standin20", "start": "dim-25", "bias": 0.75},
            "no start 'dim-25'; known: unbiased, biased",
        ),
        (
            {**CIFAR, "start": "biased", "bias": 0.5, "n_thinned": 5},
            "n_thinned must leave a group of each class",
        ),
        (
            {**CIFAR, "dataset": "cifar100", "start": "biased", "bias": 0.5},
            "classes of this data set have one group",
        ),
    ],
)
def test_starts_that_cannot_be_are_refused_before_training(folder, fields, says):
    with pytest.raises(ValueError, match=says):
        real_data(Experiment(**fields))


def test_grouped_groups_are_compared_by_accuracy_alone(folder):
    """A class has one group, so nothing that compares groups within a class is defined, and nothing
    else pretends to be."""
    e = Experiment(
        **{**CIFAR, "dataset": "cifar100"}, classifier="ridge", instrument="ridge", n_generations=1
    )
    results = run(e, where=folder.parent / "runs", progress=False)
    metrics = set(results.table.query("measured_on == 'classifier'").metric)
    assert {"accuracy", "group-accuracy", "worst-group-accuracy"} <= metrics
    for name in (
        "equal-opportunity-mean",
        "demographic-parity-difference",
        "within-class-ratio-mean",
        "bias-amplification",
    ):
        if name in metrics:
            pytest.fail(f"{name} is not defined for a grouped design")


# ---- Download ------------------------------------------------------------------------------------


@pytest.fixture
def server(files, tmp_path, monkeypatch, serve):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"cifar-100-python/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(packed.getvalue())

    sums = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(cifar, "_FILES", sums)
    monkeypatch.setattr(CIFAR100, "url", f"{serve(tmp_path)}/cifar-100-python.tar.gz")
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(packed.getvalue()).hexdigest())
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(
        CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    )
    return tmp_path


def test_fetched_once_and_free_the_second_time(server, capsys):
    for _ in range(2):
        assert main(["fetch", "cifar100"]) == 0
        assert "CIFAR-100: 50,000 + 10,000 photographs in" in capsys.readouterr().out
    assert len(DATASETS["cifar20"].target(n_instruments=2000).train) == 4400


def test_an_altered_archive_is_refused(server, capsys):
    path = server / "cifar-100-python.tar.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["fetch", "cifar100"]) == 2
    assert "could not download cifar100: " in capsys.readouterr().err.strip().splitlines()[-1]


# ---- The real files ------------------------------------------------------------------------------


@pytest.mark.realdata
def test_the_real_photographs():
    source = DATASETS["cifar20"].target()
    assert (len(source.train), len(source.test)) == (50_000, 10_000) and source.classes[
        14
    ] == "people"
    assert (source.train.counts(20, 100).sum(0) == 500).all() and (source.occurs.sum(1) == 5).all()
    thinned = np.zeros(100, bool)
    thinned[list(source.presets["dim-25"])] = True
    assert ((source.occurs & thinned).sum(1) == 2).all(), "two fine classes of every coarse one"
    real = real_data(
        Experiment(
            dataset="cifar20",
            start="dim-25",
            bias=0.75,
            n_real=7000,
            n_test=10_000,
            ratio=1.0,
            n_generations=3,
            generator="reserve",
        )
    )
    assert real.sizes["start"] == 350 and real.sizes["reserve"] == 1050
