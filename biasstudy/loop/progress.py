"""One line of progress on stderr, in a terminal and in JupyterLab; never under papermill, nbval or
in a log file.

A sweep takes hours and says a line in a log as well, now and then.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from ..core.places import watched


class Progress:
    """Counts finished stages; `steps` shows the steps of the fit under way."""

    def __init__(self, show: bool | None = None) -> None:
        self.show = watched() if show is None else show
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


class Line:
    """One line that changes in a terminal; elsewhere a line at most every `every` seconds, and the
    last."""

    def __init__(self, every: float = 60.0) -> None:
        self.every, self._text, self._shown, self._time = every, "", "", float("-inf")

    def __call__(self, text: str) -> None:
        self._text = text
        if sys.stderr.isatty() and text != self._shown:
            self._show(f"\r\033[K{text}", "")
        elif text != self._shown and time.monotonic() - self._time >= self.every:
            self._show(text)

    def end(self) -> None:
        """The last line stays."""
        if self._text and sys.stderr.isatty():
            self._show("")
        elif self._text != self._shown:
            self._show(self._text)
        self._text = self._shown = ""
        self._time = float("-inf")

    def _show(self, what: str, end: str = "\n") -> None:
        print(what, end=end, file=sys.stderr, flush=True)
        self._shown, self._time = self._text, time.monotonic()
