"""Ctrl-C and SIGTERM: one exception, one line of what was reached, exit status 130 or 143, and never a wait.

The first signal raises Stopped in the main thread, so that claims are given back and half-written files go. Python runs
a signal's handler only between two of its own instructions, so a thread of its own watches too: it ends the process
where Ctrl-C comes twice, or where four seconds after the first signal it is still there (supervisors kill after five).
Nothing is lost by that: every file of the store is there whole or not at all. Knows no verb.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

GRACE = 4.0  # seconds from the first signal to the end
_ECHO = 1.0  # seconds within which a launcher's copy of a signal counts as the same one
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ends the command; `number` is the signal's, `reached` says how far it got."""

    def __init__(self, number: int, reached: str = ""):
        super().__init__(reached)
        self.number, self.reached = number, reached


_saying: list[Callable[[], str]] = []
_last_deeds: list[Callable[[], object]] = []
_active: Interrupts | None = None


@contextlib.contextmanager
def unmasked() -> Iterator[None]:
    """An exception that came of an interrupt is the interrupt: what a library tidies up, once it was left in the middle
    of its work, may fail in a way of its own (OmegaConf's flags do), and what catches that blames a file for it."""
    try:
        yield
    except Exception as error:
        behind: BaseException | None = error
        while behind is not None and not isinstance(behind, Stopped):
            behind = behind.__cause__ or behind.__context__
        if behind is None:
            raise
        raise behind from None


@contextlib.contextmanager
def reaching(describe: Callable[[], str]) -> Iterator[None]:
    """What an interrupt inside this block will say about how far it got; the innermost block speaks."""
    _saying.append(describe)
    try:
        with unmasked():
            yield
    except Stopped as stop:
        stop.reached = stop.reached or describe()
        raise
    finally:
        _saying.remove(describe)


@contextlib.contextmanager
def last_deed(deed: Callable[[], object]) -> Iterator[None]:
    """What is still done where the process is ended at once inside this block, such as killing its workers."""
    _last_deeds.append(deed)
    try:
        yield
    finally:
        _last_deeds.remove(deed)


@contextlib.contextmanager
def no_deadline() -> Iterator[None]:
    """Inside this block a first signal starts no countdown: what is being saved may take as long as it needs."""
    active = _active
    if active is None:
        yield
        return
    active.held += 1
    try:
        yield
    finally:
        active.held -= 1
        active.wake()


def sentence(reached: str) -> str:
    """The line that an interrupted command ends with."""
    return f"diffq: interrupted{': ' if reached else ''}{reached}; the same command goes on"


def echoed(seconds: float) -> bool:
    """Whether a signal that comes so long after another may be a launcher's copy of it: in a terminal Ctrl-C reaches
    every process, and `accelerate launch` passes on what it gets."""
    return seconds < _ECHO and any(name in os.environ for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID"))


class Interrupts:
    """The handlers of one command, in the main thread; elsewhere it does nothing.

    final: the process ends after the command, so handlers stay, and a signal while Python shuts down ends it quietly.
    A signal that was ignored when the command began (`nohup`, a shell's background jobs) stays ignored.
    """

    def __init__(self, final: bool = False):
        self.final, self.held, self.over = final, 0, False
        self.first, self.said = 0, False
        self.status: int | None = None  # what the command returned
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        global _active
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._raise)
        self._outer, _active = _active, self
        _reset_in_children()
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
        if self.final:
            atexit.register(self._leave)  # the first to be registered is the last to be called
        return self

    def __exit__(self, *exception: object) -> None:
        global _active
        self.over = True
        if not self._before or self.final:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        _active = self._outer
        os.close(self._write)  # which ends the thread

    def say(self, stop: Stopped) -> None:
        """Prints the line that the command ends with, unless the watching thread has."""
        said, self.said = self.said, True
        if not said:
            sys.stderr.write(sentence(stop.reached) + "\n")

    def _leave(self) -> None:
        """Ends the process before Python takes itself apart, when a signal would kill it instead."""
        if self.status is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(self.status)

    def wake(self) -> None:
        """Makes the watching thread look again."""
        with contextlib.suppress(OSError):
            os.write(self._write, b"\0")

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self.over:
            os._exit(128 + number)
        if not self.first:  # later ones are the watching thread's
            self.first = number
            raise Stopped(number)

    def _watch(self) -> None:
        first, began, until = 0, 0.0, None
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                self._end(first)
            received = os.read(self._read, 64)
            if not received:
                os.close(self._read)
                return
            now = time.monotonic()
            for number in (n for n in received if n in self._before):
                if not first:
                    first, began = number, now
                elif number == signal.SIGINT and not echoed(now - began):
                    self._end(first)
            if first and until is None and not self.held:
                until = now + GRACE

    def _end(self, number: int) -> None:
        """Ends the process as it is."""
        for deed in _last_deeds:
            with contextlib.suppress(Exception):
                deed()
        text = ""
        with contextlib.suppress(Exception):
            said, self.said = self.said or self.over, True
            text = "" if said else sentence(_saying[-1]() if _saying else "") + "\n"
        with contextlib.suppress(OSError):
            shown = "\x1b[?25h\n" if os.isatty(2) else ""  # a live table hides the cursor
            os.write(2, (shown + text).encode("utf-8", "replace"))
        os._exit(128 + number)


_registered = False


def _reset_in_children() -> None:
    """A forked child has the handlers, and the pipe, of its parent: it gets neither."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
        _registered = True


def _forget() -> None:
    global _active
    if _active is not None:
        _active = None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
