"""Score entropy: what SEDD minimises, and the likelihood bounds that follow from it, a position at a time.

The bound of Lou et al. (2024, arXiv 2310.16834, thm 3.6) is an integral over the noise σ of
    Σ_{y≠x} Q(y, x) · [ s_y − r_y·log s_y + r_y·(log r_y − 1) ],        r_y = p(y | x0) / p(x | x0),
plus the divergence of the fully destroyed text from the prior. Knows no network.

absorbing: only masked positions count, and with log-weights ℓ = log(z·p) of the clean token (see
`contracts.DiscreteDenoiser`) the sum is r·(z − ℓ_x0 − 1) = r·(−log p(x0) + z − 1 − log z), r = 1 / (e^σ − 1). It is
least at z = 1, where it is r times the cross-entropy: MDLM's loss.

Shape suffixes: N positions, V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffq.diffusion.reductions import Accumulator, Plain


def absorbing_entropy(log_z: Tensor, log_p: Tensor) -> Tensor:
    """−log p(x0) + z − 1 − log z: what a masked position adds, in units of r."""
    return torch.expm1(log_z) - log_z - log_p


def uniform_entropy(
    sum_score: Tensor, sum_log: Tensor, log_clean: Tensor, same: Tensor, sigma: Tensor, words: int
) -> Tensor:
    """The sum above for the uniform process, Q(y, x) = 1/V.

    sum_score, sum_log  Σ s_y and Σ log s_y over y ≠ x
    log_clean           log s_x0; not used where x is x0
    same                whether x is x0
    """
    off = -torch.expm1(-sigma) / words
    ratio = off / (off + torch.exp(-sigma))  # of the probability of any other token to that of x0
    kept = sum_score - ratio * sum_log + (words - 1) * ratio * (ratio.log() - 1)
    changed = sum_score - sum_log - (1 / ratio - 1) * log_clean - (words - 2) + (-ratio.log() - 1) / ratio
    return torch.where(same, kept, changed) / words


def uniform_prior_divergence(sigma: Tensor, words: int) -> Tensor:
    """KL of a token's law at noise σ from the uniform distribution, in nats."""
    off = -torch.expm1(-sigma) / words
    diagonal = off + torch.exp(-sigma)
    return diagonal * (diagonal * words).log() + (words - 1) * off * (off * words).log()


@dataclass(frozen=True)
class ScoreSums(Plain):
    """Of log-scores: (Σ s_y, Σ log s_y) over y ≠ x and log s_x0, float64.

    token_N  x, the token that stands at each position
    clean_N  x0
    """

    token_N: Tensor
    clean_N: Tensor

    def accumulator(self, part: slice) -> Accumulator:
        return _ScoreSums(self.token_N[part], self.clean_N[part])


class _ScoreSums:
    def __init__(self, token_N: Tensor, clean_N: Tensor):
        self.token_N, self.clean_N = token_N, clean_N
        self.score_N, self.log_N, self.clean_log_N = (
            torch.zeros(token_N.shape, dtype=torch.float64, device=token_N.device) for _ in range(3)
        )

    def tile(self, scores_NT: Tensor, first: int) -> None:
        here_NT = torch.arange(first, first + scores_NT.shape[1], device=scores_NT.device)
        other_NT = here_NT != self.token_N[:, None]
        self.score_N += scores_NT.double().exp().mul_(other_NT).sum(-1)
        self.log_N += (scores_NT.double() * other_NT).sum(-1)
        self.clean_log_N += (scores_NT.double() * (here_NT == self.clean_N[:, None])).sum(-1)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.score_N, self.log_N, self.clean_log_N
