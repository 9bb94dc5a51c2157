"""What a person sees while a model trains: a bar in a terminal, plain lines elsewhere.

Knows nothing of models; it is told numbers.
"""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """Shows the smoothed loss, the learning rate, tokens a second and the time left.

    share: how much of the training is done, 0 … 1. Where rich is missing, or the output is no terminal, a plain line
    is printed every `every` seconds.
    """

    def __init__(self, title: str, shown: bool = True, every: float = 15.0):
        self.shown = shown
        self.every = every
        self.title = title
        self.smooth: float | None = None
        self._bar: Any = None
        self._printed = -1e9
        self._started: tuple[float, float] | None = None

    def __enter__(self) -> Progress:
        if self.shown and sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn
                from rich.progress import Progress as Bar
            except ImportError:
                return self
            columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.percentage:>5.1f} %"))
            self._bar = Bar(*columns, TextColumn("{task.fields[line]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(self.title, total=1.0, line="")
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, step: int, share: float, loss: float, learning_rate: float, tokens_a_second: float) -> None:
        self.smooth = loss if self.smooth is None else 0.9 * self.smooth + 0.1 * loss
        if not self.shown:
            return
        now = time.monotonic()
        self._started = self._started or (now, share)
        line = (
            f"step {step}  loss {self.smooth:.4f}  lr {learning_rate:.2e}  {tokens_a_second:,.0f} tokens/s"
            f"  {self._left(now, share)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=share, line=line)
        elif now - self._printed >= self.every or share >= 1:
            self._printed = now
            print(f"{self.title}  {100 * share:5.1f} %  {line}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _left(self, now: float, share: float) -> str:
        assert self._started is not None
        seconds, before = now - self._started[0], self._started[1]
        if share <= before or seconds < 1:
            return ""
        left = int(seconds * (1 - share) / (share - before))
        return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
