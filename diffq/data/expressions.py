"""Whether mathematical answers are right: compared by math-verify, in processes that can be killed.

sympy can take forever, and all memory, on an expression of one line; and math-verify's own time-outs are alarms, which
work in the main thread of a process alone. So each comparison runs in one of a few processes with an alarm and a limit
on memory of its own; where a process does not answer in time it is killed, and another is started.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffq.data.task import Verdict
from diffq.errors import UserError
from diffq.sandbox.pool import cores, in_places

SECONDS = 5.0
"""That one comparison may take."""
MEMORY = 2048
"""MiB that a process may take."""

_START = 120.0  # seconds until a process must be ready, on a machine that is busy
_GRACE = 2.0  # seconds that an alarm may need to be heard
_A_PROCESS = 16  # comparisons that are worth a process of their own


def compare_all(
    pairs: Sequence[tuple[str, str]],
    seconds: float = SECONDS,
    jobs: int | None = None,
    on_done: Callable[[int], None] | None = None,
) -> list[Verdict]:
    """A verdict for each (right answer, answer given), both LaTeX, in their order.

    jobs: processes at a time; None: as many as there are cores, and no more than the pairs are worth. on_done is told
    how many are done, after each. UserError where math-verify cannot be started.
    """
    if not pairs:
        return []
    jobs = jobs or max(1, min(cores(), len(pairs) // _A_PROCESS))
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_Worker(seconds)) for _ in range(jobs)]

        def stop() -> None:
            for worker in workers:
                worker.stop()

        return in_places(lambda pair, worker: worker.compare(*pair), pairs, workers, stop, on_done)


class _Worker:
    """One process, started when it is first asked and again where it had to be killed. A context manager."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._held = b""
        self._stopped = False
        self._starting = threading.Lock()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def compare(self, right: str, answer: str) -> Verdict:
        asked = json.dumps({"right": right, "answer": answer}).encode() + b"\n"
        process = self._process or self._start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(asked)
            process.stdin.flush()
        reply = self._line(self.seconds + _GRACE)
        if reply:
            told: dict[str, Any] = json.loads(reply)
            return Verdict(told["outcome"], told["answer"])
        self._end()
        if reply is None:
            return Verdict("timed out", answer, "the process had to be ended")
        return Verdict("memory", answer, "the process died")

    def stop(self) -> None:
        """From another thread: the process ends, and none is started. Its pipes are left to the thread that reads them,
        which would not hear that they were closed."""
        with self._starting:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("expressions_worker.py")
        with self._starting:
            if self._stopped:
                raise UserError("grading was stopped")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(self.seconds), str(MEMORY)],  # -P: no module of this folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        self._held = b""
        if self._line(_START) != b"ready":
            raise UserError("the process that grades mathematics did not start: does `import math_verify` work?")
        return self._process

    def _line(self, seconds: float) -> bytes | None:
        """The next line; None where none comes in time, and nothing where the process has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        ends = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._held:
                left = ends - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    return b""
                self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line

    def _end(self) -> None:
        with self._starting:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in self._pipes(process):
            with contextlib.suppress(OSError):
                pipe.close()

    @staticmethod
    def _pipes(process: subprocess.Popen[bytes]) -> Iterator[Any]:
        yield from (pipe for pipe in (process.stdin, process.stdout) if pipe is not None)
