"""What a program may use, and how it can end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffq.settings import Settings, setting

Ending = Literal["passed", "failed", "timed out", "memory", "output", "refused"]

SOURCE = 1 << 20
"""Bytes of source text that are handed to an interpreter at all."""


@dataclass(frozen=True, kw_only=True)
class Limits(Settings):
    """What one program may use. A program that goes over a limit is ended there."""

    seconds: float = setting(
        5.0, "seconds of computing, of all its processes together; by the clock it has twice as many", above=0, high=600
    )
    memory: int = setting(512, "MiB of memory, of all its processes together", low=64, high=65536)
    processes: int = setting(8, "processes and threads at a time, the program itself among them", low=1, high=256)
    output: int = setting(256, "KiB that it may write to its standard output and error together", low=1, high=65536)

    @property
    def clock(self) -> float:
        """Seconds by the clock: who sleeps computes nothing, and on a busy machine computing takes longer."""
        return 2 * self.seconds

    def __str__(self) -> str:
        """As a signature says it."""
        return f"{self.seconds:g}s_{self.memory}mb_{self.processes}p_{self.output}kb"


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    outcome  passed: it ran to its end. failed: it raised, exited or crashed. timed out, memory, output: it went over
             that limit. refused: it was not run, its text being too long or none
    note     why, in a few words
    """

    outcome: Ending
    note: str = ""
