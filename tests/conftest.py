"""What the tests share: tiny experiments, a store in a temporary folder, and where the real data
are."""

import functools
import http.server
import os
import threading
from concurrent.futures import Future

import pytest
import torch

from biasstudy import Experiment, Numerics
from biasstudy.campaign import engine
from biasstudy.loop.run import open_store

torch.set_num_threads(1)
FLOAT64 = Numerics("float64")
TINY = {
    "n_real": 100,
    "n_test": 20,
    "classifier": "ridge",
    "generator": "mixture",
    "instrument": "ridge",
    "n_generations": 2,
}


def tiny(**fields) -> Experiment:
    """An experiment of a second."""
    return Experiment(**{**TINY, **fields})


class Here:
    """An engine in this process, one task at a time; `seen` are the tasks in their order."""

    slots = 1

    def __init__(self):
        self.seen = []

    def submit(self, task):
        self.seen.append(task)
        future = Future()
        future.set_result(engine._perform(task))
        return future

    def close(self):
        pass


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A fresh folder of results, also for code that asks the environment."""
    monkeypatch.setenv("BIASSTUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BIASSTUDY_STUDY", str(tmp_path / "study"))
    return tmp_path / "runs"


@pytest.fixture
def store(runs):
    return open_store(runs, FLOAT64)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(monkeypatch):
    """serve(folder) -> address of a server on loopback that hands out its files."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    live = []

    def start(folder):
        live.append(
            http.server.ThreadingHTTPServer(
                ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
            )
        )
        threading.Thread(target=live[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{live[-1].server_port}"

    yield start
    for server in live:
        server.shutdown()
        server.server_close()


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
