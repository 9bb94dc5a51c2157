"""Ctrl-C and SIGTERM, taken note of instead of obeyed, so that a checkpoint can be written first."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Any

from diffq.interrupts import echoed, no_deadline


class Signals:
    """Inside this context the first SIGINT or SIGTERM only sets `number`, and the checkpoint may take its time.

    A second Ctrl-C does what it always did. A second SIGTERM does nothing: launchers pass on what their whole group
    got already. Outside the main thread, where Python allows no handlers, it changes nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._noted = 0.0
        self._before: dict[int, Any] = {}
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._held.enter_context(no_deadline())
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._held.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._noted = number, time.monotonic()
        elif number == signal.SIGINT and not echoed(time.monotonic() - self._noted):
            before = self._before[number]
            if callable(before):
                before(number, frame)
