"""Settings for pytest --nbval, whatever folder it is started from."""

import os
import tempfile

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """A store of their own: with a warm one, the notebooks would only read what they are to be
    checked for."""
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):
        folder = tempfile.mkdtemp(prefix="biasstudy-nbval-")
        os.environ["BIASSTUDY_RUNS"], os.environ["BIASSTUDY_STUDY"] = (
            f"{folder}/runs",
            f"{folder}/study",
        )
        os.environ["BIASSTUDY_FIGURE_DPI"] = "40"  # pictures are not compared
        option.nbval_current_env = not option.nbval_kernel_name


def pytest_collection_modifyitems(config, items):
    """nbval does not compare cells that were never executed; such a notebook must not pass."""
    if getattr(config.option, "nbval", False):
        cells = [item for item in items if hasattr(item, "cell_num") and item.cell.source.strip()]
        bad = [item.nodeid for item in cells if item.cell.execution_count is None]
        if bad:
            raise pytest.UsageError(
                f"{len(bad)} notebook cells were never executed, so nothing would be compared: "
                f"{bad[:3]}; run: make notebooks"
            )
