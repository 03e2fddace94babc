"""Where things are: results, data and figures, by environment variable, checkout or user's
cache."""

import contextlib
import os
from pathlib import Path


def home(variable: str, name: str) -> Path:
    """Folder named by an environment variable, else `name` in the enclosing checkout, else in the
    user's cache.

    A checkout is the nearest folder, from the working directory or this package upwards, whose
    pyproject.toml is this project's.

    raises   ValueError   with one sentence, if there is no home folder to look in
    """
    if os.environ.get(variable):
        return _in_home(os.environ[variable], variable)
    for place in _upwards():
        with contextlib.suppress(OSError):  # none there, or not ours to read: another project's
            # bytes: another project's file may have any encoding
            if b'name = "biasstudy"' in (place / "pyproject.toml").read_bytes():
                return place / name
    cache = os.environ.get("XDG_CACHE_HOME") or _in_home("~/.cache", variable)
    return Path(cache) / "biasstudy" / name


def _upwards() -> list[Path]:
    """The folders in which a checkout may be: those around the working directory, if it is still
    there, and around this package."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        around = []
    else:
        around = [here, *here.parents]
    return [*around, Path(__file__).resolve().parents[2]]


def _in_home(path: str, variable: str) -> Path:
    """The path, `~` being the user's home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"there is no home folder for {path!r} (HOME is not set, and the system does not know "
            f"this user); set {variable} to a folder"
        ) from error


def runs_folder() -> Path:
    """BIASSTUDY_RUNS, else runs/ of the enclosing checkout, else the user's cache."""
    return home("BIASSTUDY_RUNS", "runs")


def data_folder() -> Path:
    """BIASSTUDY_DATA, else data/ of the enclosing checkout, else the user's cache."""
    return home("BIASSTUDY_DATA", "data")
