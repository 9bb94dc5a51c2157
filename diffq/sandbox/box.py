"""The sandbox: one program, or many at a time, each watched until it ends or goes over a limit.

A program's word for how it ended comes through a pipe of its own, with a word before it that the program is not told:
that it printed something, or exited with 0, says nothing. Knows no task.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import ceil
from typing import get_args

from diffq.errors import UserError
from diffq.sandbox.enclosure import ENVIRONMENT, Bubblewrap, Nothing, bubblewrap
from diffq.sandbox.limits import SOURCE, Ended, Ending, Limits
from diffq.sandbox.pool import cores, in_places
from diffq.sandbox.usage import descendants, usage_of

_LOOK = 0.05  # seconds between two looks at what a program uses
_START = 60.0  # seconds until an interpreter must have started, however busy the machine is
_REPORT = 4096  # bytes that a report can have

UNSAFE = "dataset.allow_unsafe_execution=true"


@dataclass(frozen=True)
class Sandbox:
    """Where programs run, and what each may use. Made by `Sandbox.find`."""

    limits: Limits
    walls: Bubblewrap | Nothing

    @classmethod
    def find(cls, limits: Limits, unsafe: bool = False) -> Sandbox:
        """The sandbox of this machine; without walls where there are none and `unsafe` says that this is known.

        UserError where there is no bubblewrap, or one that does not hold what it should, which is tried out once.
        """
        walls = bubblewrap()
        wrong = "which is not installed (apt-get install bubblewrap)" if walls is None else _holes(walls)
        if not wrong and walls is not None:
            return cls(limits, walls)
        if unsafe:
            return cls(limits, Nothing())
        raise UserError(
            f"generated code is run inside bubblewrap, {wrong}; {UNSAFE} runs it without protection, with this user's"
            " rights"
        )

    @property
    def walled(self) -> bool:
        """Whether programs can reach nothing outside."""
        return not isinstance(self.walls, Nothing)

    def run(self, program: str, place: int = 0, stop: threading.Event | None = None) -> Ended:
        """How one program ends.

        place  its number among those that run at the same time
        stop   where it is set, the program is ended and nobody wants to know how
        UserError where the sandbox itself cannot be started.
        """
        try:
            source = program.encode()
        except UnicodeEncodeError:
            return Ended("refused", "no text")
        if len(source) > SOURCE:
            return Ended("refused", f"longer than {SOURCE >> 10} KiB")
        said = ""
        for wait in (0.0, 0.5, 2.0):  # a machine that is out of processes for a moment is no verdict
            time.sleep(wait)
            ended, said = self._once(source, place, stop or threading.Event())
            if ended is not None:
                return ended
        raise UserError(
            f"an interpreter could not be started to run generated code: {said.strip() or 'it says nothing'}"
        )

    def run_all(
        self, programs: Sequence[str], jobs: int | None = None, on_done: Callable[[int], None] | None = None
    ) -> list[Ended]:
        """How each program ends, in their order. jobs: how many run at a time; None: as many as there are cores.

        on_done is told how many have ended, after each. Without walls a line on standard error says so, once.
        """
        if not self.walled:
            _warn()
        jobs = max(1, min(jobs or cores(), len(programs)))
        stop = threading.Event()
        return in_places(
            lambda program, place: self.run(program, place, stop), programs, range(jobs), stop.set, on_done
        )

    def _once(self, source: bytes, place: int, stop: threading.Event) -> tuple[Ended | None, str]:
        """How the program ended, None where it was not begun; and the beginning of what was printed."""
        limits, word = self.limits, secrets.token_hex(8)
        reading, report = os.pipe()
        given = [report, self.walls.user(place), ceil(limits.seconds) + 1, limits.memory << 20, limits.processes]
        with tempfile.TemporaryFile() as program, open(reading, "rb", buffering=0) as said:
            program.write(f"{word}\n".encode() + source)
            program.seek(0)
            process = subprocess.Popen(
                [*self.walls.command(), *map(str, given)],
                stdin=program,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(report,),
                start_new_session=True,
                cwd="/",
                env=ENVIRONMENT,
            )
            os.close(report)
            watch = _Watch(process, said.fileno(), word, limits, self.walls.around, stop)
            try:
                return watch.until_it_ends(), watch.printed.decode(errors="replace")
            finally:
                self._end(process)

    def _end(self, process: subprocess.Popen) -> None:
        """Kills what is left. Inside walls all of it ends with bubblewrap."""
        below = [] if self.walled else list(descendants(process.pid))[1:]
        for one in below:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@cache
def _warn() -> None:
    """Warns whoever runs diffq, once a process."""
    print(
        f"warning: {UNSAFE}, and bubblewrap does not work here: generated programs run without walls, with all rights"
        " of this user",
        file=sys.stderr,
    )


@dataclass
class _Watch:
    """One process until its program ends."""

    process: subprocess.Popen
    report: int
    word: str
    limits: Limits
    around: int
    stop: threading.Event
    printed: bytes = b""  # the beginning of what it printed
    _size: int = 0
    _said: bytes = b""
    _looked: float = 0.0
    _ends: float = field(default_factory=lambda: time.monotonic() + _START)
    _begun: bool = False
    _closed: bool = False

    def until_it_ends(self) -> Ended | None:
        """How it ended; None where the program was not begun."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.report, selectors.EVENT_READ, self._heard)
            selector.register(self.process.stdout, selectors.EVENT_READ, self._printed)
            while True:
                for key, _ in selector.select(0.002 if self._closed else _LOOK):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                        self._closed |= key.fd == self.report
                    elif (ended := key.data(data)) is not None:
                        return ended
                if self._closed and (status := self.process.poll()) is not None:
                    return _of_status(status) if self._begun else None
                if (ended := self._over()) is not None:
                    return ended if self._begun or self.stop.is_set() else None

    def _heard(self, data: bytes) -> Ended | None:
        self._said += data
        if len(self._said) > _REPORT:
            return Ended("output", "wrote to a descriptor that is not its own")
        lines = self._said.decode(errors="replace").split("\n")
        if not self._begun and lines[0] == f"{self.word} begun":
            self._begun, self._ends = True, time.monotonic() + self.limits.clock
        word, _, outcome = lines[1].partition(" ") if len(lines) > 3 else ("", "", "")
        if word == self.word and outcome in get_args(Ending):
            return Ended(outcome, lines[2])  # type: ignore[arg-type]
        return None

    def _printed(self, data: bytes) -> Ended | None:
        self._size += len(data)
        self.printed = (self.printed + data)[:_REPORT]
        if self._size > self.limits.output << 10:
            return Ended("output", f"more than {self.limits.output} KiB")
        return None

    def _over(self) -> Ended | None:
        """The limit that the program has gone over, if it has."""
        now, limits = time.monotonic(), self.limits
        if self.stop.is_set():
            return Ended("refused", "stopped")
        if now > self._ends:
            return Ended("timed out", f"{limits.clock:g} s by the clock")
        if now - self._looked < _LOOK or not self._begun:
            return None
        self._looked = now
        used = usage_of(self.process.pid)
        if used.seconds > limits.seconds:
            return Ended("timed out", f"{limits.seconds:g} s of computing")
        if used.memory > limits.memory << 20:
            return Ended("memory", f"more than {limits.memory} MiB")
        if used.processes > limits.processes + self.around:
            return Ended("failed", f"more than {limits.processes} processes")
        return None


def _of_status(status: int) -> Ended:
    """How a program ended that said nothing: by the status of the interpreter, or of bubblewrap in its place."""
    number = -status if status < 0 else status - 128
    if number == signal.SIGXCPU:
        return Ended("timed out", "computing time")
    if number == signal.SIGKILL:
        return Ended("memory", "killed by the system")
    if number > 0:
        return Ended("failed", signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}")
    return Ended("failed", f"left with status {status}")


_PROBE = """
import os, socket
assert [name for _, name in socket.if_nameindex()] in (["lo"], []), "it has a network"
assert os.getuid() != 0, "its programs are root"
assert not os.path.exists("/proc/1"), "it shows processes"
assert os.getppid() in (0, 1), "its processes are not apart"
assert not set(os.environ) - {"PYTHONHASHSEED", "PYTHONUTF8", "PWD", "LC_CTYPE"}, "it has an environment"
for folder in ("/", "/usr", "/dev", os.path.dirname(os.__file__)):
    try:
        open(os.path.join(folder, "diffq-probe"), "w")
    except OSError:
        continue
    raise AssertionError(folder + " can be written")
"""


@cache
def _holes(walls: Bubblewrap) -> str:
    """What is wrong with bubblewrap here, as the end of a sentence; empty where it holds what it should."""
    try:
        ended = Sandbox(Limits(), walls).run(_PROBE)
    except UserError as error:
        return f"which does not start here ({error})"
    return "" if ended.outcome == "passed" else f"which does not hold here ({ended.note})"
