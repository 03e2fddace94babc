"""Where a number was made: versions, commit, processor, memory; nothing about whose machine it
is."""

import contextlib
import functools
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

# ---- Provenance ----------------------------------------------------------------------------------


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, commit and processor: enough to say where a number was made, and nothing about
    whose machine it is."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "processor": _processor()}
    for name in ("biasstudy", "torch", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    found["commit"] = _commit()
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str:
    """Commit of the checkout that this package runs from, with '+' where code differs from it; ''
    outside one.

    Stored results that lie beside the code are none.
    """
    import subprocess

    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".", ":!reference") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
