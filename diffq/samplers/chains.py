"""Choosing among weighted candidates: a chain of Independent Metropolis–Hastings, or resampling.

Candidates are drawn independently from a proposal; w is the ratio of target and proposal, up to a factor. Knows no
tokens and no network.

Shape suffixes: R rows, C candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffq.rng import exponential, uniform


def run_chain(log_w_RC: Tensor, key_R: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Goes through the candidates in their order and moves to the next with probability min(1, w_next / w_now).

    Where all weights are the same it ends at the last. Gives the place of the candidate that it ends at, (R,), and
    statistics: `acceptance`, the share of proposals that were moved to, and those of `spread_of`.
    """
    at_R = torch.zeros(len(log_w_RC), dtype=torch.long, device=log_w_RC.device)
    accepted_R = torch.zeros(len(log_w_RC), dtype=torch.float64, device=log_w_RC.device)
    proposals = log_w_RC.shape[1] - 1
    for k in range(1, proposals + 1):
        rise_R = log_w_RC[:, k] - log_w_RC.gather(1, at_R[:, None]).squeeze(1)
        accept_R = uniform(key_R, k).log() < rise_R
        at_R = torch.where(accept_R, k, at_R)
        accepted_R += accept_R
    return at_R, {"acceptance": accepted_R / max(proposals, 1), **spread_of(log_w_RC)}


def resample(log_w_RC: Tensor, key_R: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """One of the candidates with probability proportional to w, and the statistics of `spread_of`."""
    w_RC = (log_w_RC - log_w_RC.amax(1, keepdim=True)).exp()
    lane_C = torch.arange(log_w_RC.shape[1], device=key_R.device)
    return (exponential(key_R[:, None], lane_C) / w_RC).argmin(1), spread_of(log_w_RC)


def spread_of(log_w_RC: Tensor) -> dict[str, Tensor]:
    """`ess`, the effective number of candidates, (Σ w)² / Σ w², and `spread`, the standard deviation of log w."""
    w_RC = (log_w_RC - log_w_RC.amax(1, keepdim=True)).exp()
    return {"ess": w_RC.sum(1) ** 2 / (w_RC**2).sum(1), "spread": log_w_RC.std(1, correction=0)}
