"""Fetching MNIST from a server of our own: mirrors, checksums, and what is said when none
answers."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from torchvision.datasets import MNIST

from biasstudy import DATASETS
from biasstudy.__main__ import main
from biasstudy.data.datasets import colorized_mnist
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
        "hard-imagenet\n"
    )
