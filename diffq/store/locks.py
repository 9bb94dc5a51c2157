"""POSIX record locks on files: held by a process, gone with it, seen over NFS where that has locks.

A lock belongs to a process: a second one in the same process would be granted, and closing any handle of its file
would drop the first. So whoever takes a lock here excludes its own threads by other means, and opens the file nowhere
else. Knows nothing of points.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from pathlib import Path

from diffq.errors import UserError
from diffq.store.files import writing


class Busy(Exception):
    """Somebody else is at work here."""


def take(path: Path, wait: bool = False) -> int:
    """An open, locked handle of the file at `path`; closing it gives the lock back. Its folder is made where missing.

    wait: sleep while another process has it, instead of raising Busy. UserError where the file system has no locks.
    """
    while True:
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue
        kept = False
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The folder may have been deleted between opening and locking: then this lock guards nothing.
            kept = path.exists() and os.fstat(handle).st_ino == path.stat().st_ino
            if kept:
                return handle
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise Busy(f"{path.parent} is being worked on by another process") from None
            raise UserError(
                f"{path} cannot be locked ({error.strerror}); put outputs= on a file system with POSIX locks"
            ) from error
        finally:
            if not kept:
                os.close(handle)


def is_taken(path: Path) -> bool:
    """Whether another process holds the record lock of a file. This one must not: closing the file would drop it."""
    # struct flock: on Linux type, whence, start, length, process; on macOS and the BSDs start, length, process, type…
    linux = sys.platform == "linux"
    layout, at = ("@hhqqi0q", 0) if linux else ("@qqihh", 3)
    wanted = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        found = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(layout, *wanted))
    except OSError:
        return False  # a file system without locks: sampling will say so
    finally:
        os.close(handle)
    return bool(struct.unpack(layout, found)[at] != fcntl.F_UNLCK)
