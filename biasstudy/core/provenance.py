"""Where a number was made: versions, commit, processor, memory; nothing about whose machine it
is."""

import contextlib
import functools
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

PATIENCE = 10.0  # seconds in which git must answer


def peak_memory_mb() -> int | None:
    """Largest resident memory of this process so far, in MB; None where the system does not say.

    Linux counts into what getrusage says the memory of the process from which this one was started,
    so its own word for it comes first.
    """
    if resource is None:
        return None
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text("ascii", "replace")
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return round(int(found[1]) / 2**10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, commit and processor: enough to say where a number was made, and nothing about
    whose machine it is."""
    from importlib.metadata import PackageNotFoundError, version

    record = {"python": platform.python_version(), "processor": _processor()}
    for name in ("biasstudy", "torch", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            record[name] = version(name)
    record["commit"] = _commit()
    return record


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_bytes().decode(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str:
    """Commit of the checkout that this package runs from, with '+' where code differs from it.

    Only a repository that tracks this very file can say which code runs. A package that is
    installed inside somebody's own repository has no commit, and neither has one where git is
    missing or does not answer: ''. Stored results that lie beside the code are no code.
    """
    file = Path(__file__).resolve()
    # variables such as GIT_DIR name another repository; without locks, asking writes nothing
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(file.parents[1]), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=PATIENCE,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", str(file))
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", ".", ":!reference") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
