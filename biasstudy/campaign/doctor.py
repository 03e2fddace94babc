"""The command `doctor`: what is installed, where things are, what takes space."""

from collections.abc import Iterator
from pathlib import Path


def checkup(prune: bool = False) -> Iterator[str]:
    """Lines that say it.

    prune   delete unfinished writes, checkpoints and scratch values
    """
    import torch

    from ..core.places import data_folder, runs_folder
    from ..core.provenance import environment
    from ..core.store import prune_all

    for name, value in environment().items():
        yield f"{name:12} {value}"
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    yield f"{'cuda':12} {cuda}"
    space = prune_all(runs_folder(), delete=prune)
    for name, folder, size in (
        ("runs", runs_folder(), space.total),
        ("data", data_folder(), _bytes(data_folder())),
    ):
        yield f"{name:12} {folder} ({f'{size / 1e6:.1f} MB' if folder.is_dir() else 'not there'})"
    freed = "deleted" if prune else "could be freed with: doctor --prune"
    yield f"{'scratch':12} {space.scratch / 1e6:.1f} MB {freed}"


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
