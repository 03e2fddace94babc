"""Where things are, and how files are read and written.

Results, data and figures are where an environment variable says, else in the checkout, else in the
user's cache. Text is UTF-8 on every machine, and a file is written whole or not at all.
"""

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

# ---- Reading and writing -------------------------------------------------------------------------


class CannotWrite(OSError):
    """Something cannot be written: one sentence that says what, where, why, and what to do."""


@contextlib.contextmanager
def writing(what: str, place: Path) -> Iterator[None]:
    """Inside, an OSError becomes CannotWrite.

    what    what is written there: "results", "a checkpoint"
    place   folder that the sentence names
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotWrite(
            f"cannot write {what} to {place}: {reason}; free space there, or set BIASSTUDY_RUNS"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path`, with the same endings, that takes its place at the end; after an error
    it is removed and `path` stays what it was.

    What is no regular file, such as a pipe or /dev/stdout, is itself what is written.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()  # of a link, what it points to
    partial = target.with_name(f"partial-{uuid.uuid4().hex[:12]}-{target.name}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file to its end and wait until the disk has it; after an error part of it stays."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and wait until the disk has it."""
    with replacing(path) as partial:
        if partial == path:  # a pipe cannot be synced
            path.write_bytes(data)
        else:
            write_synced(partial, data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all, line ends as they are."""
    write_bytes(path, text.encode())


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, line ends as they are; a byte order mark is dropped.

    raises   ValueError   with one sentence that names the file, if it is not UTF-8
             OSError      if it cannot be read
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise ValueError(
            f"{path} is not UTF-8 text: byte 0x{byte:02x} in line {line}; save it as UTF-8"
        ) from error


# ---- Folders -------------------------------------------------------------------------------------


def home(variable: str, name: str) -> Path:
    """Folder named by an environment variable, else `name` in the enclosing checkout, else in the
    user's cache.

    A checkout is the nearest folder, from the working directory or this package upwards, whose
    pyproject.toml is this project's.

    raises   ValueError   with one sentence, if there is no home folder to look in
    """
    if os.environ.get(variable):
        return in_home(os.environ[variable], f"set {variable} to a folder")
    for place in upwards():
        with contextlib.suppress(OSError):  # none there, or not ours to read: another project's
            # bytes: another project's file may have any encoding
            if b'name = "biasstudy"' in (place / "pyproject.toml").read_bytes():
                return place / name
    cache = os.environ.get("XDG_CACHE_HOME") or in_home("~/.cache", f"set {variable} to a folder")
    return Path(cache) / "biasstudy" / name


def upwards() -> list[Path]:
    """The folders in which a checkout may be: those around the working directory, if it is still
    there, and around this package."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        around = []
    else:
        around = [here, *here.parents]
    return [*around, Path(__file__).resolve().parents[2]]


def in_home(path: str, otherwise: str) -> Path:
    """The path, `~` being the user's home.

    otherwise   what a user without a home folder can do: "set BIASSTUDY_RUNS to a folder"
    raises      ValueError   with one sentence, if there is no home folder
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"there is no home folder for {path!r} (HOME is not set, and the system does not know "
            f"this user); {otherwise}"
        ) from error


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


def watched() -> bool:
    """Whether somebody watches stderr: in a terminal or in JupyterLab; never under papermill, nbval
    or in a log file."""
    return sys.stderr.isatty() or in_jupyterlab()


def in_jupyterlab() -> bool:
    """Whether this is the kernel of a notebook that somebody has open; never under papermill or
    nbval."""
    return "JPY_SESSION_NAME" in os.environ
