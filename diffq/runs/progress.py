"""Progress of sampling: a bar in a terminal, a plain line now and then elsewhere. Everything goes to stderr."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator

from diffq.runs.sampling import OnProgress, Progress

_LINE_SECONDS = 30.0


@contextlib.contextmanager
def point_progress(what: str, quiet: bool = False) -> Iterator[OnProgress | None]:
    """A callback that shows how far one point is, with its rate and the time left; lines where rich is missing."""
    if quiet:
        yield None
    elif sys.stderr.isatty() and importlib.util.find_spec("rich"):
        with _bar(what) as show:
            yield show
    else:
        yield _Lines(what)


@contextlib.contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def show(progress: Progress) -> None:
            rate = f"{progress.rows / progress.seconds:.1f} rows/s" if progress.seconds else ""
            bar.update(task, completed=progress.rows, total=progress.total, rate=rate)

        yield show


class _Lines:
    def __init__(self, what: str):
        self.what, self.last = what, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self.last > _LINE_SECONDS:
            self.last = time.monotonic()
            print(f"{self.what}: {progress.rows}/{progress.total} rows", file=sys.stderr, flush=True)
