"""Importance sampling of training timesteps by the size of their recent losses (Nichol & Dhariwal 2021, §3.3;
Buzzard 2025, importance_sampler.py). Knows no network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TimestepSampler(nn.Module):
    """Draws timesteps 1 … T−1: uniformly, or, with `importance`, with p_t ∝ √(mean of the last n squared losses of t),
    once every t has n of them; before that uniformly.

    Its records are buffers, so they are saved with the model and a resumed training goes on with them.
    """

    history_TN: Tensor
    count_T: Tensor

    def __init__(self, timesteps: int, importance: bool, records: int = 10):
        super().__init__()
        self.timesteps = timesteps
        self.importance = importance
        if importance:
            self.register_buffer("history_TN", torch.zeros(timesteps, records))
            self.register_buffer("count_T", torch.zeros(timesteps, dtype=torch.long))

    def forward(self, uniform_B: Tensor, flat: bool = False) -> tuple[Tensor, Tensor]:
        """(t_B, weight_B) from uniforms in (0, 1): the loss of an example is to be multiplied by its weight.

        flat: every timestep alike whatever has been recorded, so that validations can be compared.
        """
        flat_T = torch.full((self.timesteps,), 1.0 / (self.timesteps - 1), dtype=torch.float64, device=uniform_B.device)
        flat_T[0] = 0
        probability_T, is_ready = flat_T, None
        if self.importance and not flat:
            is_ready = (self.count_T[1:] >= self.history_TN.shape[1]).all()
            root_T = self.history_TN.double().mean(1).sqrt()
            root_T[0] = 0
            probability_T = torch.where(is_ready, root_T / root_T.sum().clamp(min=1e-30), flat_T)
        t_B = torch.searchsorted(probability_T.cumsum(0), uniform_B.double()).clamp(1, self.timesteps - 1)
        weight_B = torch.ones_like(uniform_B, dtype=torch.float32)
        if is_ready is not None:
            weighted_B = 1 / (probability_T[t_B] * self.timesteps).clamp(min=1e-30)
            weight_B = torch.where(is_ready, weighted_B.float(), weight_B)
        return t_B, weight_B

    @torch.no_grad()
    def observe(self, t_B: Tensor, loss_B: Tensor, use_B: Tensor) -> None:
        """Records the losses of one optimiser step, in batch order; examples with use_B False are skipped."""
        if not self.importance:
            return
        for t, loss in zip(t_B[use_B].tolist(), loss_B[use_B].float().tolist(), strict=True):
            self.history_TN[t, self.count_T[t] % self.history_TN.shape[1]] = loss**2
            self.count_T[t] += 1
