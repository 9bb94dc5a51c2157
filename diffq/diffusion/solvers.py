"""ODE solvers for x0-predicting Gaussian diffusion, as tables of coefficients.

Both solvers are linear in what they are given, so a whole trajectory is known before it starts:

    y ← keep·y + x0·y0 + x0_clipped·clip(y0) + correction·(y0 − y0 of the step before)

DDIM            Song et al. 2021, eq. 12 with η = 0
DPM-Solver++2M  Lu et al. 2022, algorithm 2 (data prediction, multistep, order 1 or 2)

The flags have the meaning, and at their published settings the values, of the `diffusers` schedulers that the paper's
code uses; tests hold the two equal. This file knows no network, no clamp and no guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from diffq.errors import UserError

Spacing = Literal["linspace", "leading", "trailing"]
FinalSigma = Literal["zero", "sigma_min"]
SecondOrder = Literal["midpoint", "heun"]


@dataclass(frozen=True)
class SolverStep:
    """One step from timestep `t`: the coefficients of the update, and whether it needs the clipped prediction."""

    t: int
    keep: float
    x0: float
    x0_clipped: float = 0.0
    correction: float = 0.0


def spaced_timesteps(spacing: Spacing, steps: int, timesteps: int, *, last: bool) -> list[int]:
    """The timesteps visited, from noise to data.

    linspace  `steps` of the steps+1 (last=False) or steps (last=True) evenly spaced points of 0 … T−1
    leading   the multiples 0, r, 2r, … reversed, begins below T−1: r = T // steps, or (last=False) without the 0
              and r = T // (steps+1)
    trailing  T−1, T−1−T/steps, …: begins at T−1
    """
    if not 1 <= steps < timesteps:
        raise UserError(f"steps={steps} is out of range; this model allows 1 … {timesteps - 1}")
    if spacing == "linspace":
        points: np.ndarray = np.linspace(0, timesteps - 1, steps if last else steps + 1).round()[::-1]
        points = points if last else points[:-1]
    elif spacing == "leading":
        points = (
            np.arange(steps) * (timesteps // steps) if last else np.arange(1, steps + 1) * (timesteps // (steps + 1))
        )
        points = points[::-1]
    else:
        points = np.arange(timesteps, 0, -timesteps / steps).round()[:steps] - 1
    return [int(t) for t in points]


def ddim_steps(
    alpha_bar_T: Tensor, steps: int, *, spacing: Spacing, clip_x0: bool, set_alpha_to_one: bool
) -> list[SolverStep]:
    """DDIM's trajectory. With clip_x0 the prediction is clamped to [−1, 1] but the noise is read off the unclamped
    one, as `clip_sample=True` has it."""
    alpha_bar = alpha_bar_T.double().cpu().numpy()
    timesteps = spaced_timesteps(spacing, steps, len(alpha_bar), last=True)
    stride = len(alpha_bar) // steps
    out = []
    for t in timesteps:
        before = t - stride
        here, there = alpha_bar[t], alpha_bar[before] if before >= 0 else (1.0 if set_alpha_to_one else alpha_bar[0])
        keep = np.sqrt((1 - there) / (1 - here))
        noise_part, data_part = -keep * np.sqrt(here), np.sqrt(there)
        if clip_x0:
            out.append(SolverStep(t, float(keep), float(noise_part), x0_clipped=float(data_part)))
        else:
            out.append(SolverStep(t, float(keep), float(noise_part + data_part)))
    return out


def dpmpp_steps(
    alpha_bar_T: Tensor,
    steps: int,
    *,
    spacing: Spacing,
    order: Literal[1, 2],
    second_order: SecondOrder,
    lower_order_final: bool,
    final_sigma: FinalSigma,
) -> list[SolverStep]:
    """DPM-Solver++'s trajectory. final_sigma=zero ends exactly on the prediction with a first-order step;
    sigma_min ends at the noise level of timestep 0, as older `diffusers` did."""
    alpha_bar = alpha_bar_T.double().cpu().numpy()
    timesteps = spaced_timesteps(spacing, steps, len(alpha_bar), last=False)
    sigma = np.sqrt((1 - alpha_bar) / alpha_bar)
    sigmas = np.array([sigma[t] for t in timesteps] + [0.0 if final_sigma == "zero" else sigma[0]])
    alphas = 1 / np.sqrt(1 + sigmas**2)
    with np.errstate(divide="ignore"):
        lambdas = -np.log(sigmas)
    out = []
    for i, t in enumerate(timesteps):
        is_last = i == steps - 1
        h = lambdas[i + 1] - lambdas[i]
        shrink = -np.expm1(-h)  # 1 − e^−h; 1 where the step ends on the data
        keep = (sigmas[i + 1] * alphas[i + 1]) / (sigmas[i] * alphas[i])
        data = alphas[i + 1] * shrink
        first_order = (
            order == 1
            or i == 0
            or h == 0  # the end is the noise level of timestep 0, and we are there: nothing is left to do
            or (is_last and (final_sigma == "zero" or (lower_order_final and steps < 15)))
        )
        if first_order:
            correction = 0.0
        else:
            ratio = (lambdas[i] - lambdas[i - 1]) / h
            weight = 0.5 * shrink if second_order == "midpoint" else 1 - shrink / h
            correction = alphas[i + 1] * weight / ratio
        out.append(SolverStep(t, float(keep), float(data), correction=float(correction)))
    return out
