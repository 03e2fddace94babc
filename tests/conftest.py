"""What the tests share: tiny experiments, a store in a temporary folder, and where the real data are."""

import os

import pytest
import torch

from biasstudy import Experiment, Numerics
from biasstudy.loop import open_store

torch.set_num_threads(1)
FLOAT64 = Numerics("float64")
TINY = {"n_real": 100, "n_test": 20, "classifier": "ridge", "generator": "mixture", "instrument": "ridge", "n_generations": 2}


def tiny(**fields) -> Experiment:
    """An experiment of a second."""
    return Experiment(**{**TINY, **fields})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A fresh folder of results, also for code that asks the environment."""
    monkeypatch.setenv("BIASSTUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BIASSTUDY_STUDY", str(tmp_path / "study"))
    return tmp_path / "runs"


@pytest.fixture
def store(runs):
    return open_store(runs, FLOAT64)


def pytest_collection_modifyitems(config, items):
    if "slow" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="minutes: pytest -m slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)
    if not os.environ.get("BIASSTUDY_DATA"):
        skip = pytest.mark.skip(reason="set BIASSTUDY_DATA to a folder with the real data sets")
        for item in items:
            if "realdata" in item.keywords:
                item.add_marker(skip)
