"""Gaussian diffusion of embeddings: noise schedules and the forward process (Buzzard 2025, §1.5 of its code's facts).

Time is an integer t in 0 … T−1; `alpha_bar_T[t]` is the share of signal variance that is left at t.
This file holds no network and no solver.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["sqrt", "cosine", "linear"]

_MAX_BETA = 0.999


def betas(schedule: ScheduleName, timesteps: int) -> Tensor:
    """The noise variance added at each timestep, float64 of shape (T,).

    sqrt    alpha_bar(u) = 1 − √(u + 0.0001)                  (Li et al. 2022, Diffusion-LM)
    cosine  alpha_bar(u) = cos²(π/2 · (u + 0.008) / 1.008)    (Nichol & Dhariwal 2021)
    linear  beta from 0.1/T to 20/T                           (Ho et al. 2020, stated for any T)
    The first two become beta_i = min(1 − alpha_bar((i+1)/T) / alpha_bar(i/T), 0.999).
    """
    if schedule == "linear":
        return torch.linspace(0.1 / timesteps, 20.0 / timesteps, timesteps, dtype=torch.float64).clamp(max=_MAX_BETA)
    u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    if schedule == "sqrt":
        alpha_bar = 1 - torch.sqrt(u + 1e-4)
    else:
        alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=_MAX_BETA)


def alpha_bars(schedule: ScheduleName, timesteps: int) -> Tensor:
    """alpha_bar at each timestep, the running product of 1 − beta, float64 of shape (T,)."""
    return torch.cumprod(1 - betas(schedule, timesteps), 0)


def diffuse(x0: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """The forward process, y_t = √alpha_bar · x0 + √(1 − alpha_bar) · noise; alpha_bar broadcasts from the left."""
    alpha_bar = torch.as_tensor(alpha_bar, device=x0.device)
    alpha_bar = alpha_bar.reshape(alpha_bar.shape + (1,) * (x0.dim() - alpha_bar.dim()))
    return (alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise).to(x0.dtype)
