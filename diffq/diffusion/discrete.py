"""The two ways in which discrete diffusion destroys a token, as operators on whole rows of probabilities.

    Absorbing  a token becomes the mask and stays it; the states are V tokens and, last, the mask
    Uniform    a token becomes a token drawn uniformly from all V, its own included

Both are Markov chains in the total noise σ with transition matrix exp(σQ), and act on every position by itself.
Scores s_y(x) stand for ratios p_t(y) / p_t(x) of the marginals, a row over the states y for each position.
These are the definitions that training, bounds and tests go by; samplers use forms of them that need no whole row.

(Austin et al. 2021, D3PM; Campbell et al. 2022; Lou et al. 2024, arXiv 2310.16834, §3–4 and appendix; its graph_lib.)

Shape suffixes: the last axis Y of a matrix goes over the states; leading axes are any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class DiscreteProcess(Protocol):
    """What both processes can say of themselves. σ and dσ broadcast against the tokens."""

    words: int

    @property
    def states(self) -> int: ...

    def transition(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        """p(state y at noise σ | this token at noise 0), (…, Y)."""
        ...

    def arrival(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        """p(this state at noise σ | token y at noise 0), (…, Y): the column of the same matrix."""
        ...

    def staggered_score(self, score: Tensor, dsigma: Tensor) -> Tensor:
        """exp(−dσ·Q) applied to a score: p_{σ−dσ}(y) / p_σ(x), up to errors of a learned score (…, Y)."""
        ...

    def reverse_rate(self, score: Tensor, tokens: Tensor) -> Tensor:
        """Rates of the reversed chain from this state to every state y, a unit of σ; rows sum to 0 (…, Y)."""
        ...

    def posterior(self, tokens: Tensor, clean: Tensor, sigma: Tensor, earlier: Tensor) -> Tensor:
        """p(state y at the earlier, smaller noise | this state at σ, this clean token), (…, Y)."""
        ...

    def prior(self, uniform: Tensor) -> Tensor:
        """States of pure noise, from uniforms in (0, 1) of any shape."""
        ...

    def destroy(self, tokens: Tensor, share: Tensor, uniform: Tensor, other: Tensor | None = None) -> Tensor:
        """Tokens at the noise with m = share: those with uniform < share are destroyed; `other` are uniforms too."""
        ...


class _Chain(ABC):
    """What follows for every chain from its transition."""

    @abstractmethod
    def transition(self, tokens: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def arrival(self, tokens: Tensor, sigma: Tensor) -> Tensor: ...

    def posterior(self, tokens: Tensor, clean: Tensor, sigma: Tensor, earlier: Tensor) -> Tensor:
        """Bayes: p(y at s | x0) · p(x at t | y at s), normalised."""
        weight = self.transition(clean, earlier) * self.arrival(tokens, sigma - earlier)
        return weight / weight.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Absorbing(_Chain):
    """Q = (rows to the mask) − 1: every token is masked at rate 1."""

    words: int

    @property
    def states(self) -> int:
        return self.words + 1

    @property
    def mask(self) -> int:
        return self.words

    def transition(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        stays = torch.exp(-sigma.double())[..., None] * F.one_hot(tokens, self.states)
        stays[..., -1] += -torch.expm1(-sigma.double())
        return stays

    def arrival(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        came = torch.exp(-sigma.double())[..., None] * F.one_hot(tokens, self.states)
        return came + torch.where(tokens == self.mask, -torch.expm1(-sigma.double()), 0.0)[..., None]

    def staggered_score(self, score: Tensor, dsigma: Tensor) -> Tensor:
        """e^dσ·s for tokens; the mask's entry takes what they gained: 1 − (e^dσ − 1)·Σ_tokens s where its own is 1."""
        grown = dsigma.double().exp()[..., None] * score
        grown[..., -1] += -torch.expm1(dsigma.double()) * score.sum(-1)
        return grown

    def reverse_rate(self, score: Tensor, tokens: Tensor) -> Tensor:
        """From the mask to token y at rate s_y; a token stays."""
        rate = torch.where((tokens == self.mask)[..., None], score.double(), 0.0)
        rate[..., -1] = 0
        rate[..., -1] = -rate.sum(-1)
        return rate

    def prior(self, uniform: Tensor) -> Tensor:
        return torch.full(uniform.shape, self.mask, dtype=torch.long, device=uniform.device)

    def destroy(self, tokens: Tensor, share: Tensor, uniform: Tensor, other: Tensor | None = None) -> Tensor:
        return torch.where(uniform < share, self.mask, tokens)


@dataclass(frozen=True)
class Uniform(_Chain):
    """Q = 1/V − identity: every token is redrawn at rate 1, so it changes at rate (V−1)/V."""

    words: int

    @property
    def states(self) -> int:
        return self.words

    def transition(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        stays = torch.exp(-sigma.double())[..., None]
        return stays * F.one_hot(tokens, self.words) + (1 - stays) / self.words

    def arrival(self, tokens: Tensor, sigma: Tensor) -> Tensor:
        return self.transition(tokens, sigma)  # the matrix is symmetric

    def staggered_score(self, score: Tensor, dsigma: Tensor) -> Tensor:
        """e^dσ·s − (e^dσ − 1)/V·Σ s."""
        grow = dsigma.double().exp()[..., None]
        return grow * score - (grow - 1) / self.words * score.sum(-1, keepdim=True)

    def reverse_rate(self, score: Tensor, tokens: Tensor) -> Tensor:
        rate = (score.double() / self.words).scatter(-1, tokens[..., None], 0.0)
        return rate.scatter(-1, tokens[..., None], -rate.sum(-1, keepdim=True))

    def prior(self, uniform: Tensor) -> Tensor:
        return (uniform * self.words).long().clamp_(max=self.words - 1)

    def destroy(self, tokens: Tensor, share: Tensor, uniform: Tensor, other: Tensor | None = None) -> Tensor:
        if other is None:
            raise ValueError("the uniform process needs a second uniform, for the token that is put in")
        return torch.where(uniform < share, self.prior(other), tokens)
