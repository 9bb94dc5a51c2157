"""What every sampler is: a frozen dataclass whose fields are its dials, and which is called on a canvas.

    sampler(denoiser, canvas, rng, on_step=None) -> canvas

Dials that mean the same everywhere: scale (1 = off), temperature (0 = argmax), steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from diffq.diffusion.contracts import Canvas, OnStep, Process
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Sampler(Settings, ABC):
    """Registered subclasses name the processes they serve, declare their dials as fields with `setting(...)`, and
    implement `__call__`."""

    processes: ClassVar[tuple[Process, ...]] = ()
    takes_length: ClassVar[bool] = True  # the canvas' length is decided before sampling, by a length model
    # How much it asks of a network: can be bounded without one; is the same whatever the network answers.
    foreseeable: ClassVar[bool] = True
    by_numbers: ClassVar[bool] = False
    at_most: ClassVar[bool] = False  # what is counted of it without weights is the most that it asks
    fills: ClassVar[bool] = False  # its steps can give drafts without masks (`Step.filled`)
    records: ClassVar[tuple[str, ...]] = ()  # of the statistics of its steps, those whose mean a row keeps
    totals: ClassVar[tuple[str, ...]] = ()  # those whose sum it keeps too, under their names and "_in_all"

    @abstractmethod
    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        """Fills the free positions of the canvas and returns it; positions that are not free are never written."""

    def idle(self) -> frozenset[str]:
        """The dials that say nothing beside the others, such as the sweeps of a sampler that makes none: points are
        stored with them at their defaults, and labels leave them out."""
        return frozenset()

    def canonical(self) -> Sampler:
        """The sampler under whose name the samples are stored: two names for one algorithm share their points."""
        idle = self.idle()
        return replace(self, **{f.name: f.default for f in fields(self) if f.name in idle}) if idle else self

    def misfit(self, keeps: bool, sees: int) -> str:
        """Why it cannot serve a model whose keys and values can be kept or not, and whose tokens see blocks of `sees`
        tokens (0: all), in one sentence; empty where it can."""
        return ""

    def needs_guidance(self) -> bool:
        """True where the unconditional branch is run."""
        return False


def require_free(canvas: Canvas) -> None:
    """Raises UserError where a sampler would have nothing to write."""
    if not bool(canvas.free_BL.any()):
        raise UserError("nothing on this canvas is free: all of it is given; give fewer tokens")
