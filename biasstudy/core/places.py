"""Where things are: results, data and figures, by environment variable, checkout or user's
cache."""

import os
from pathlib import Path

# ---- Where things are ----------------------------------------------------------------------------


def home(variable: str, name: str) -> Path:
    """Folder named by an environment variable, else `name` in the enclosing checkout, else in the
    user's cache.

    A checkout is the nearest folder, from the working directory or this package upwards, whose
    pyproject.toml is this project's.
    """
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    for place in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2]):
        project = place / "pyproject.toml"
        if project.is_file() and 'name = "biasstudy"' in project.read_text():
            return place / name
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "biasstudy" / name


def runs_folder() -> Path:
    """BIASSTUDY_RUNS, else runs/ of the enclosing checkout, else the user's cache."""
    return home("BIASSTUDY_RUNS", "runs")


def data_folder() -> Path:
    """BIASSTUDY_DATA, else data/ of the enclosing checkout, else the user's cache."""
    return home("BIASSTUDY_DATA", "data")


def check_folder(folder: Path) -> Path:
    """The folder, which need not be there yet.

    raises   ValueError   if a file stands where it, or a folder around it, would be
    """
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise ValueError(f"{folder} cannot be a folder: {place} is a file")
            break
    return folder
