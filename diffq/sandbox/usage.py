"""What a process and everything below it uses now, read from /proc. Knows nothing of sandboxes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_TIMES = slice(11, 15)  # utime, stime, cutime, cstime among the fields of stat that follow the name


@dataclass(frozen=True)
class Usage:
    """Of a tree of processes: how many, seconds of computing so far (children that have ended included), and bytes in
    memory now, where pages that processes share count for each."""

    processes: int
    seconds: float
    memory: int


def usage_of(root: int) -> Usage:
    """What the process `root` and its descendants use. A process that ends meanwhile is left out; where the system
    keeps no /proc nothing is known, and all of it is 0."""
    count, ticks, pages = 0, 0, 0
    for process in descendants(root):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        count += 1
        ticks += sum(map(int, fields[_TIMES]))
    return Usage(count, ticks / _TICKS, pages * _PAGE)


def descendants(root: int) -> Iterator[int]:
    """The process and all below it, parents first."""
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                waiting += map(int, Path(f"/proc/{process}/task/{thread}/children").read_text().split())
            except OSError:
                continue
