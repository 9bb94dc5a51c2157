"""Noise schedules of discrete diffusion: how much is destroyed at time t in [0, 1].

The total noise σ(t) is what the networks are told; m(t) = 1 − e^−σ(t) is the share of positions that has been
destroyed. Everything here is float64. This file knows no process and no network.

(Lou et al. 2024, arXiv 2310.16834, §5 and its code; Sahoo et al. 2024 for the cosine.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

NoiseName = Literal["log_linear", "geometric", "cosine"]

LAST_TIME = 1e-5  # where samplers stop stepping and denoise what is left (Lou et al.: sampling eps)
DREAMS_LAST_TIME = 1e-3  # the same of Dream's grid, whose last step writes what is left


@dataclass(frozen=True)
class Noise:
    """A schedule.

    log_linear  σ = −log(1 − (1−eps)·t): m grows linearly
    geometric   σ = low^(1−t) · high^t
    cosine      σ = −log(eps + (1−eps)·cos(π/2 · t))
    """

    name: NoiseName = "log_linear"
    eps: float = 1e-3
    low: float = 1e-4
    high: float = 20.0

    def total(self, t: Tensor) -> Tensor:
        """σ(t)."""
        t = t.double()
        if self.name == "log_linear":
            return -torch.log1p(-(1 - self.eps) * t)
        if self.name == "geometric":
            return self.low ** (1 - t) * self.high**t
        return -torch.log(self.eps + (1 - self.eps) * torch.cos(t * (math.pi / 2)))

    def rate(self, t: Tensor) -> Tensor:
        """dσ/dt."""
        t = t.double()
        if self.name == "log_linear":
            return (1 - self.eps) / (1 - (1 - self.eps) * t)
        if self.name == "geometric":
            return self.total(t) * math.log(self.high / self.low)
        angle = t * (math.pi / 2)
        slope = (1 - self.eps) * (math.pi / 2) * torch.sin(angle)
        return slope / (self.eps + (1 - self.eps) * torch.cos(angle))

    def share(self, t: Tensor) -> Tensor:
        """m(t) = 1 − e^−σ(t)."""
        return -torch.expm1(-self.total(t))

    @property
    def highest(self) -> float:
        """σ(1), the most noise that a network has seen."""
        return float(self.total(torch.ones((), dtype=torch.float64)))

    def sigma_of(self, share: Tensor) -> Tensor:
        """The σ of a share m in (0, 1], at most the highest."""
        return (-torch.log1p(-share.double())).clamp(max=self.highest)


def times(steps: int, last: float = LAST_TIME) -> Tensor:
    """The steps + 1 times between which a sampler steps, from 1 down to the last one, float64 (Lou et al.)."""
    return torch.linspace(1.0, last, steps + 1, dtype=torch.float64)
