"""One line of progress on stderr, in a terminal and in JupyterLab; never under papermill, nbval or in a log file."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def wanted() -> bool:
    """Whether somebody is watching."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


class Progress:
    """Counts finished stages; `steps` shows the steps of the fit under way."""

    def __init__(self, show: bool | None = None) -> None:
        self.show = wanted() if show is None else show
        self._bar: Any = None

    @contextlib.contextmanager
    def over(self, stages: list[Any]) -> Iterator[None]:
        """A bar as long as the list, while inside."""
        if not self.show:
            yield
            return
        from tqdm.auto import tqdm
        with tqdm(total=len(stages), unit="stage", leave=False) as self._bar:
            yield
        self._bar = None

    def now(self, what: str) -> None:
        """One stage further; what comes now."""
        if self._bar is not None:
            self._bar.set_description(what)
            self._bar.update()

    def steps(self, i: int, n: int) -> None:
        """Step i of n of the fit under way."""
        if self._bar is not None and (i % 20 == 0 or i == n):
            self._bar.set_postfix_str(f"step {i}/{n}")
