"""The processes that a launcher starts on this machine: none outlives the command that started it.

Knows no launcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from diffq.interrupts import last_deed


def die_with_parent(parent: int) -> None:
    """Asks Linux to end this process when its parent does, and ends it now where that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def descendants(root: int) -> set[int]:
    """The ids of all processes below a process."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _parents() -> Iterator[tuple[int, int]]:
    """Each process of this machine that has not ended, and its parent."""
    if Path("/proc/self/stat").exists():
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                    if after_name[0] != "Z":
                        yield int(folder.name), int(after_name[1])
        return
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        process, parent = line.split()
        yield int(process), int(parent)


@contextlib.contextmanager
def none_left_alive(starting: Callable[[], bool]) -> Iterator[None]:
    """Kills the processes that were started inside this block, and theirs, where it is left by an exception or the
    command is ended at once. One with a process group of its own (the tracker's) looks after itself.

    starting: whether there is still somebody who may start more
    """
    before = descendants(os.getpid())

    def kill(all_of_them: bool = True) -> bool:
        mine = [p for p in descendants(os.getpid()) - before if _same_group(p)]
        # joblib's tracker of resources ends with us, having tidied up; it is missed, and started anew, before.
        mine = [p for p in mine if all_of_them or not _is_tracker(p)]
        for process in mine:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        return bool(mine)

    with last_deed(kill):
        try:
            yield
        except BaseException:
            until = time.monotonic() + 2.0
            while (kill(False) or starting()) and time.monotonic() < until:
                time.sleep(0.02)
            raise


def _same_group(process: int) -> bool:
    try:
        return os.getpgid(process) == os.getpgrp()
    except ProcessLookupError:
        return False


def _is_tracker(process: int) -> bool:
    try:
        return b"resource_tracker" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
