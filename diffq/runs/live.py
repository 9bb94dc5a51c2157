"""A sweep while it runs: a table in a terminal, plain lines elsewhere. Everything goes to stderr.

The table fits its terminal whatever its size: what is at work, what failed, the front and the newest points come first.
Knows no sampler and no metric; it is told by a Board.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from diffq.report.points import Figure
from diffq.report.tables import show_interval
from diffq.runs.board import Board, Entry, State

if TYPE_CHECKING:
    from rich.text import Text

_LINE_SECONDS = 30.0  # between two lines about a long point
_REDRAWS = 2  # a second; each takes about a millisecond
_MARGIN = 5  # lines of the table that are not points: title, bar, heads, the count of the rest, the cursor's
_STYLES: dict[State, str] = {
    "waiting": "dim", "running": "cyan", "scoring": "magenta", "done": "", "failed": "bold red", "elsewhere": "yellow",
}  # fmt: skip


@contextlib.contextmanager
def showing(board: Board, quiet: bool = False) -> Iterator[None]:
    """Shows the board inside the block: live where there is a terminal and rich, else a line for each point.

    quiet: no plain lines.
    """
    if sys.stderr.isatty() and importlib.util.find_spec("rich"):
        with _table(board):
            yield
    else:
        if not quiet:
            board.changed = Lines(board)
        yield


class Lines:
    """One line when a point ends, and one now and then about a point that takes long."""

    def __init__(self, board: Board):
        self._board, self._last = board, time.monotonic()

    def __call__(self, entry: Entry) -> None:
        board, now = self._board, time.monotonic()
        if entry.state in ("done", "failed"):
            ended = len(board.of("done", "failed"))
            self._say(f"[{ended}/{len(board.entries)}] {entry.label}  {self._outcome(entry)}", now)
        elif entry.state in ("running", "elsewhere") and now - self._last > _LINE_SECONDS:
            left = clock(board.left())
            self._say(f"{entry.label}: {progress_words(board, entry)}" + (left and f"; sweep: {left} left"), now)

    def _outcome(self, entry: Entry) -> str:
        if entry.state == "failed":
            return "failed"
        figures = [f"{name} {shown(entry.figures.get(name))}" for name in self._board.columns]
        return "  ".join([f"{entry.seconds:.1f} s", *figures]) + ("  *" if entry.front else "")

    def _say(self, text: str, now: float) -> None:
        self._last = now
        print(text, file=sys.stderr, flush=True)


def progress_words(board: Board, entry: Entry) -> str:
    """`120/240 rows, 41.3/s, 0:03 left`."""
    parts = [f"{entry.rows}/{entry.total} rows"]
    if entry.rate is not None:
        parts.append(f"{entry.rate:.3g}/s")
    if left := clock(board.left_of(entry)):
        parts.append(f"{left} left")
    return ", ".join(parts)


def shown(figure: Figure | None) -> str:
    return "–" if figure is None else show_interval(figure.value, figure.low, figure.high)


def narrow(figure: Figure | None) -> str:
    """`45.2 ±1.1`: half the interval, where there is no room for both of its ends."""
    if figure is None:
        return ""
    value = show_interval(figure.value)
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ±{show_interval((figure.high - figure.low) / 2)}"


def clock(seconds: float | None) -> str:
    """`1:02:03`, `2:03`; empty for None."""
    if seconds is None:
        return ""
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


@contextlib.contextmanager
def _table(board: Board) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)

    def now() -> Text:
        return render(board, console.width, console.height)

    live = Live(console=console, get_renderable=now, refresh_per_second=_REDRAWS, transient=True)
    with live:
        yield
    counts = _counts(board)
    console.print(f"{board.name}: {counts}, {clock(time.monotonic() - board.began)}", highlight=False, markup=False)


def choose(board: Board, room: int) -> list[Entry]:
    """At most `room` points: all in the grid's order where they fit, else what is at work, what failed, the front
    from its best quality on, what ended last, and what comes next."""
    if len(board.entries) <= room:
        return board.entries
    at_work = board.of("running", "scoring", "elsewhere")
    at_work.sort(key=lambda e: e.state == "elsewhere")
    failed = board.of("failed")
    front = [e for e in board.entries if e.front]
    front.sort(key=lambda e: -e.figures[board.y].sign * e.figures[board.y].value)
    newest = sorted(board.of("done"), key=lambda e: -e.ended)
    order = [*at_work[: room // 2], *failed[-max(1, room // 4) :], *front[: room // 2], *newest[: room // 4]]
    order += [*at_work, *board.of("waiting"), *front, *newest, *failed]
    return list(dict.fromkeys(order))[:room]


def render(board: Board, width: int, height: int) -> Text:
    """The board as it stands, no higher and no wider than this. (Laid out by hand: a tenth of a rich.Table's time.)"""
    from rich.cells import set_cell_size
    from rich.text import Text

    entries = choose(board, max(1, height - _MARGIN))
    wide, slim = width >= 110, width < 72
    widths = [] if slim else [6, 7]
    widths = [2, 0, 9, 13 if wide else 4, *widths, *[18 if wide else 11] * len(board.columns)]
    several = len({e.name for e in board.entries}) > 1
    names = [_name(e, several, 999) for e in board.entries]
    widths[1] = max(8, min(width - sum(widths) - len(widths), max(map(len, names))))
    right = {3, 4, 5} if not slim else {3}

    def line(cells: list[str], style: str) -> Text:
        sized = [
            set_cell_size(c.rjust(w) if i in right else c, w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=False))
        ]
        return Text((sized[0] + " ".join(sized[1:]))[: width - 1].rstrip() + "\n", style, no_wrap=True, end="")

    heads = ["", "point", "state", "rows", *([] if slim else ["rows/s", "left"]), *board.columns]
    title = set_cell_size(f"{board.name}: {_counts(board)}", width - 1).rstrip()
    lines = [Text(title + "\n", no_wrap=True, end=""), _bar(board, width), line(heads, "bold")]
    for entry in entries:
        cells = [
            "*" if entry.front else "",
            _name(entry, several, widths[1]),
            entry.state,
            *_numbers(board, entry, wide)[: 1 if slim else 3],
        ]
        cells += [(shown if wide else narrow)(entry.figures.get(n)) if entry.figures else "" for n in board.columns]
        lines.append(line(cells, _STYLES[entry.state]))
    if len(entries) < len(board.entries):
        lines.append(Text(f"  and {len(board.entries) - len(entries)} more\n", "dim", no_wrap=True, end=""))
    lines[-1].rstrip()
    return Text("", no_wrap=True, end="").join(lines)


def _name(entry: Entry, several: bool, width: int) -> str:
    """What a point is called in this width: its dials, and of several samplers its own, which is cut where it must."""
    if not several and entry.dials:
        return entry.dials
    room = width - len(entry.dials) - 1
    cut = entry.name if len(entry.name) <= room else entry.name[: max(3, room - 1)] + "…"
    return f"{cut} {entry.dials}".rstrip()


def _numbers(board: Board, entry: Entry, wide: bool) -> list[str]:
    """The cells of progress, rate and time left."""
    at_work = entry.state in ("running", "elsewhere")
    percent = f"{100 * entry.share:3.0f}%" if at_work or entry.share > 0 else ""
    if wide and at_work:
        percent = f"{_blocks(entry.share, 8)} {percent}"
    rate = f"{entry.rate:.3g}" if entry.rate is not None else ""
    return [percent, rate, clock(board.left_of(entry)) if at_work else ""]


def _counts(board: Board) -> str:
    """`12 of 20 done, 1 failed, 2 running`."""
    parts = [f"{len(board.of('done'))} of {len(board.entries)} points done"]
    others: tuple[State, ...] = ("failed", "running", "scoring", "elsewhere")
    counted = [(len(board.of(state)), state) for state in others]
    return ", ".join([*parts, *(f"{count} {state}" for count, state in counted if count)])


def _bar(board: Board, width: int) -> Text:
    """The share that is sampled, the time that has passed and what is left."""
    from rich.text import Text

    left = clock(board.left())
    words = f" {100 * board.share:3.0f}%  {clock(time.monotonic() - board.began)}" + (left and f", {left} left")
    return Text(_blocks(board.share, max(10, width - len(words) - 1)) + words + "\n", "cyan", no_wrap=True, end="")


def _blocks(share: float, width: int) -> str:
    """A bar of so many cells, in eighths of a cell."""
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width, "·")
