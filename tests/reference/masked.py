"""The samplers of SEDD and MDLM in the published arrangement: at every step one network call on all rows, the whole
vocabulary at every position, and a draw everywhere, whatever changes.

Random numbers are ours: whether a position is written is decided by its own uniform against the running product of
what it kept, tokens by the keyed race. Everything else is float32, as published.

Shape suffixes: B rows, L positions, V tokens, Y = V + 1 states.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.noise import times
from diffq.rng import Rng, Stream, uniform
from reference.reductions import race


@dataclass
class Textbook:
    """One batch. kind: analytic, euler or ancestral; normalise as in ours; process of the model decides the rest."""

    model: Any
    tokens_BL: Tensor
    free_BL: Tensor
    row_B: Tensor
    steps: int
    kind: str = "analytic"
    normalise: bool = True
    seed: int = 0
    temperature: float = 1.0
    survival_BL: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.time = times(self.steps)
        self.sigma = torch.cat([self.model.noise.total(self.time), torch.zeros(1, dtype=torch.float64)])
        self.share = self.model.noise.share(self.time)
        self.rng, self.masked = Rng(self.seed), self.model.process == "absorbing"
        self.place_L = torch.arange(self.tokens_BL.shape[1])

    def start(self) -> None:
        words = self.model.words
        key = self.rng.key(Stream.INITIAL_NOISE, self.row_B[:, None], 0, self.place_L)
        noise = self.model.mask if self.masked else (uniform(key) * words).long()
        self.x_BL = torch.where(self.free_BL, noise, self.tokens_BL)
        self.survival_BL = torch.ones(self.x_BL.shape, dtype=torch.float64)
        self.uniform_BL = uniform(self.rng.key(Stream.TIME, self.row_B[:, None], 0, self.place_L))

    @torch.no_grad()
    def score(self, k: int) -> Tensor:
        """exp of the network's log-score, (B, L, Y)."""
        model = self.model
        noise_B = self.share[k].expand(len(self.x_BL))
        log_BLV = model.log_weights(model.net(self.x_BL, model.sigma(noise_B)).flatten(0, 1)).view(*self.x_BL.shape, -1)
        if not self.masked:
            return log_BLV.scatter(-1, self.x_BL[..., None], 0.0).exp()
        if self.normalise or not model.learnt_z:
            log_BLV = log_BLV.log_softmax(-1)
        score_BLV = log_BLV.exp() / float(torch.expm1(self.sigma[k]))
        return torch.cat([score_BLV, torch.ones_like(score_BLV[..., :1])], -1)

    def law(self, k: int) -> Tensor:
        """Weights of the states after step k, (B, L, Y)."""
        score = self.score(k)
        words = self.model.words
        if self.kind == "euler" and k < self.steps:
            step = float(self.model.noise.rate(self.time[k]) * (self.time[k] - self.time[k + 1]))
            rate = score * step if self.masked else score * (step / words)
            rate.scatter_(-1, self.x_BL[..., None], 0.0)
            rate.scatter_(-1, self.x_BL[..., None], -rate.sum(-1, keepdim=True))
            return F.one_hot(self.x_BL, score.shape[-1]) + rate
        dsigma = float(self.sigma[k] - self.sigma[k + 1])
        grow, stay = torch.tensor(dsigma).exp(), torch.tensor(-dsigma).exp()
        if self.masked:
            staggered = score * grow
            staggered[..., -1] += (1 - grow) * score.sum(-1)
            arrival = torch.where((self.x_BL == words)[..., None], 1 - stay, 0.0)
        else:
            staggered = score * grow + (1 - grow) / words * score.sum(-1, keepdim=True)
            arrival = (1 - stay) / words
        return staggered * (F.one_hot(self.x_BL, score.shape[-1]) * stay + arrival)

    def step(self, k: int) -> None:
        """One step; k = steps is the final denoising."""
        law = self.law(k).clamp_(min=0)
        words, visit = self.model.words, 0 if self.masked else k
        key = self.rng.key(Stream.TOKEN, self.row_B[:, None], visit, self.place_L)
        weights = law[..., :words].flatten(0, 1)
        if self.temperature != 1:
            weights = weights ** (1 / self.temperature)
        token_BL = race(weights, key.flatten()).view_as(self.x_BL)
        if not self.masked:
            self.x_BL = torch.where(self.free_BL, token_BL, self.x_BL)
            return
        masked_BL = (self.x_BL == words) & self.free_BL
        written = law[..., :words].double().sum(-1).clamp(max=1)
        self.survival_BL = self.survival_BL * (1 - written)
        now_BL = masked_BL if k == self.steps else masked_BL & (self.survival_BL <= self.uniform_BL)
        self.x_BL = torch.where(now_BL, token_BL, self.x_BL)

    def run(self) -> Tensor:
        self.start()
        for k in range(self.steps + 1):
            self.step(k)
        return self.x_BL
