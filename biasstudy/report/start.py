"""Notebooks and parameter files laid out in a folder, for those who installed the package without
its repository."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from ..core.places import check_folder, write_bytes

_PACKAGE = Path(__file__).parents[1]
PARTS = {"notebooks": ".ipynb", "params": ".yaml"}


def start(folder: Path) -> Iterator[str]:
    """Write the notebooks and parameter files into a folder; a file that is there stays.

    folder   made if it is not there
    returns  sentences: what was written, what stayed, how to go on
    raises   ValueError          if a file stands where a folder would be
             FileNotFoundError   if this installation has no notebooks
    """
    written, same, kept = 0, 0, []
    for part, ending in PARTS.items():
        source = _source(part)
        for path in sorted(source.rglob(f"*{ending}")):
            target = folder / part / path.relative_to(source)
            check_folder(target.parent)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(target, path.read_bytes())
                written += 1
            elif target.is_file() and target.read_bytes() == path.read_bytes():
                same += 1
            else:
                kept.append(target.relative_to(folder).as_posix())
    yield f"{folder}: {written} files written, {same} were there already"
    if kept:
        yield f"left as they are, for they differ from those that ship: {', '.join(kept)}"
    here = shlex.quote(str(folder))
    yield f"go on with: cd {here} && jupyter lab notebooks/colorized_mnist.ipynb"
    yield (
        "where results and figures go: biasstudy doctor tells it, BIASSTUDY_RUNS and "
        "BIASSTUDY_STUDY change it"
    )


def _source(part: str) -> Path:
    """Where the files are: in a wheel inside the package, in a clone beside it."""
    for place in (_PACKAGE / "starter" / part, _PACKAGE.parent / part):
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"this installation has no {part}; install the wheel, or clone the repository"
    )
