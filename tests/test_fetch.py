"""Fetching MNIST from a server of our own: mirrors, checksums, and what is said when none
answers."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST

from biasstudy import DATASETS
from biasstudy.__main__ import main
from biasstudy.data.datasets import colorized_mnist
from biasstudy.data.datasets import fetch as fetch_module
from biasstudy.data.real import _source

N = 40


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def server(tmp_path, monkeypatch, serve):
    """Four tiny files in MNIST's format, served on loopback; torchvision is told their md5 and a
    dead mirror first."""
    rng, folder = np.random.default_rng(0), tmp_path / "served"
    folder.mkdir()
    files, md5, sha256 = {}, [], {}
    for part in ("train", "t10k"):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (N, 28, 28)).astype(np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx((np.arange(N) % 10).astype(np.uint8))
    for name, data in files.items():
        packed = gzip.compress(data, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        md5.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
        sha256[name] = hashlib.sha256(data).hexdigest()

    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", f"{serve(folder)}/"])
    monkeypatch.setattr(MNIST, "resources", md5)
    monkeypatch.setattr(colorized_mnist, "_MNIST", sha256)
    _source.cache_clear()
    yield folder
    _source.cache_clear()


def test_a_dead_mirror_is_passed_over_and_the_data_set_loads(server, tmp_path, capsys):
    assert main(["fetch", "mnist"]) == 0
    assert "MNIST: 60,000 + 10,000 digits in" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "data" / "MNIST" / "raw").iterdir()} >= set(
        colorized_mnist._MNIST
    )
    source = DATASETS["colorized-mnist"].target()
    assert len(source.train) == len(source.test) == N and source.train.label.tolist() == [
        i % 10 for i in range(N)
    ]
    assert main(["fetch", "mnist"]) == 0, "a second time is free"


def test_an_altered_file_is_refused(server, capsys):
    path = server / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["fetch", "mnist"]) == 2
    # torchvision's progress stands before it
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("biasstudy: could not download mnist: ") and "corrupted" in error


def test_files_that_only_the_mirrors_own_sums_know_are_refused(server, capsys, monkeypatch):
    monkeypatch.setitem(colorized_mnist._MNIST, "t10k-labels-idx1-ubyte", "0" * 64)
    assert main(["fetch", "mnist"]) == 2
    assert (
        "t10k-labels-idx1-ubyte is truncated or altered; delete it"
        in capsys.readouterr().err.splitlines()[-1]
    )


def test_no_mirror_at_all_is_told_in_one_sentence(server, capsys, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    assert main(["fetch", "mnist"]) == 2
    error = capsys.readouterr().err
    assert "could not download mnist" in error and "by hand" in error and error.count("\n") == 1


def test_an_unknown_name_lists_the_known_ones(capsys):
    assert main(["fetch", "emnist"]) == 2
    assert (
        capsys.readouterr().err
        == "biasstudy: unknown data set 'emnist' (did you mean mnist?); known: mnist, cifar100, "
        "hard-imagenet, waterbirds\n"
    )


# ---- Waterbirds ----------------------------------------------------------------------------------

FEW = {"train": [[30, 6], [5, 20]], "validation": [[4, 4], [3, 3]], "test": [[9, 9], [8, 8]]}


@pytest.fixture(params=fetch_module._WATERBIRD_FOLDERS)
def birds(request, tmp_path, monkeypatch):
    """The layout of its makers, with few and tiny photographs."""
    monkeypatch.setenv("BIASSTUDY_DATA", str(tmp_path))
    monkeypatch.setattr(fetch_module, "_WATERBIRDS", FEW)
    root, rows = tmp_path / request.param, []
    for split, table in enumerate(FEW.values()):
        for y, row in enumerate(table):
            for place, n in enumerate(row):
                for i in range(n):
                    file = f"{y:03}.Bird_{y}/{split}{place}_{i:04}.jpg"
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    pixels = np.random.default_rng([split, y, place, i]).integers(
                        0, 256, (20, 30, 3)
                    )
                    Image.fromarray(pixels.astype(np.uint8)).save(root / file)
                    rows.append(f"{len(rows)},{file},{y},{split},{place},/f/forest.jpg")
    header = "img_id,img_filename,y,split,place,place_filename"
    (root / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_waterbirds_are_checked_and_named(birds, capsys):
    assert main(["fetch", "waterbirds"]) == 0
    out = capsys.readouterr().out
    n = sum(sum(map(sum, table)) for table in FEW.values())
    assert "nlp.stanford.edu" in out and f"{n} photographs, counts as published" in out
    options = {"root": birds.name, "metadata": "named.csv", "size": 8}
    source = DATASETS["folder"].target(**options)
    assert source.classes == ("landbird", "waterbird") and source.groups == ("land", "water")
    assert source.train.counts(2, 2).tolist() == FEW["train"]
    assert source.test.counts(2, 2).tolist() == FEW["test"]


def test_waterbirds_that_are_not_whole_are_refused(birds, capsys, monkeypatch):
    file = next(birds.glob("*/*.jpg"))
    packed = file.read_bytes()
    file.unlink()
    assert main(["fetch", "waterbirds"]) == 2 and "images are not in" in capsys.readouterr().err
    file.write_bytes(packed)
    table = (birds / "metadata.csv").read_text()
    (birds / "metadata.csv").write_text("\n".join(table.splitlines()[:-1]) + "\n")
    assert main(["fetch", "waterbirds"]) == 2
    assert "its makers count [[9, 9], [8, 8]]" in capsys.readouterr().err
    monkeypatch.setenv("BIASSTUDY_DATA", str(birds))
    assert main(["fetch", "waterbirds"]) == 2
    captured = capsys.readouterr()
    assert "https://nlp.stanford.edu" in captured.out and "there is no folder" in captured.err


def test_the_published_counts_are_those_of_the_paper():
    totals = {split: sum(map(sum, table)) for split, table in fetch_module._WATERBIRDS.items()}
    assert totals == {"train": 4795, "validation": 1199, "test": 5794}
