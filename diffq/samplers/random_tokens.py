"""τ-leaping of the uniform process: every position is drawn anew at every step (Lou et al. 2024, §4 and sampling.py).

A learned score can make entries of the law negative (for the staggered score of `analytic` often, for the diagonal of
`euler` where rates are large): they are cut off at zero and the rest is normalised, as published.
Knows no network.

Shape suffixes: B rows, L positions, N positions, T tokens of a tile, V tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Step
from diffq.diffusion.discrete import Uniform
from diffq.diffusion.draws import BLOCK
from diffq.diffusion.noise import times
from diffq.diffusion.reductions import Accumulator, Plain
from diffq.diffusion.row_draws import race_of
from diffq.errors import UserError
from diffq.rng import Rng, Stream, uniform
from diffq.samplers.base import require_free


@dataclass(frozen=True)
class Law:
    """A step's law: token v at a position that holds x, with score s (s_x = 1), has the weight
        max(0, grow·s_v − shrink·Σ s) · move,          for v = x: max(0, grow − shrink·Σ s) · stay,
    or, where `stay` is None, max(0, 1 − move·Σ_{y≠x} s) for v = x: what does not move away.
    """

    grow: float
    shrink: float
    move: float
    stay: float | None


def analytic(dsigma: float, words: int) -> Law:
    """The staggered score times the transition over dσ (`discrete.Uniform`)."""
    move = -math.expm1(-dsigma) / words
    return Law(math.exp(dsigma), math.expm1(dsigma) / words, move, move + math.exp(-dsigma))


def euler(step: float, words: int) -> Law:
    """Rates s_v / V held over a step of that much noise."""
    return Law(1.0, 0.0, step / words, None)


@dataclass(frozen=True)
class LeapDraw(Plain):
    """A draw of the next token from log-scores of so many words. token_N: x."""

    words: int
    key_N: Tensor
    token_N: Tensor
    law: Law
    temperature: float
    whole_rows = True

    def accumulator(self, part: slice) -> Accumulator:
        return _LeapDraw(self, part)


class _LeapDraw:
    """Holds the scores of its positions over the whole vocabulary while it works: Σ s must be known first."""

    score_NV: Tensor | None = None  # filled up with zeros to whole blocks of the race

    def __init__(self, what: LeapDraw, part: slice):
        self.what, self.part = what, part

    def tile(self, scores_NT: Tensor, first: int) -> None:
        if self.score_NV is None:
            words = self.what.words
            self.score_NV = scores_NT.new_empty(len(scores_NT), words + -words % BLOCK)
            self.score_NV[:, words:] = 0
        torch.exp(scores_NT, out=self.score_NV[:, first : first + scores_NT.shape[1]])

    def result(self) -> Tensor:
        assert self.score_NV is not None
        law, token_N1 = self.what.law, self.what.token_N[self.part, None]
        score_NV, self.score_NV = self.score_NV, None
        score_NV.scatter_(1, token_N1, 1.0)
        total_N1 = score_NV.sum(1, keepdim=True)
        if law.stay is None:
            own_N1 = (1 - law.move * (total_N1 - 1)).clamp_(min=0)
        else:
            own_N1 = (law.grow - law.shrink * total_N1).clamp_(min=0) * law.stay
        weight_NV = score_NV.mul_(law.grow * law.move)
        if law.shrink:
            weight_NV.sub_(total_N1 * (law.shrink * law.move)).clamp_(min=0)
        weight_NV.scatter_(1, token_N1, own_N1)
        return race_of(weight_NV, self.what.key_N[self.part], self.what.temperature)


def leap(sampler: Any, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None) -> Canvas:
    """Steps of the uniform process from random tokens, then the final denoising to σ = 0.

    Temperature divides the logarithm of a step's law. UserError for dials that mean nothing here.
    """
    if sampler.scale != 1 or sampler.top_p != 1 or sampler.top_k != 0:
        raise UserError("samplers of the uniform process have no guidance and no nucleus; use scale=1 top_p=1 top_k=0")
    require_free(canvas)
    session, words, device = denoiser.open(canvas), denoiser.vocab_size, canvas.device
    position_L = torch.arange(canvas.shape[1], device=device)
    key_BL = rng.key(Stream.INITIAL_NOISE, canvas.row_B[:, None], 0, position_L)
    tokens_BL = torch.where(canvas.free_BL, Uniform(words).prior(uniform(key_BL)), canvas.tokens_BL)
    position_N = canvas.free_BL.flatten().nonzero().squeeze(1)
    row_N, column_N = canvas.row_B[position_N // canvas.shape[1]], position_N % canvas.shape[1]
    time_T = times(sampler.steps)
    sigma_T = torch.cat([denoiser.noise.total(time_T), torch.zeros(1, dtype=torch.float64)])
    share_T, rate_T = denoiser.noise.share(time_T), denoiser.noise.rate(time_T)
    last = sampler.steps + (sampler.denoise != "none")
    for k in range(last):
        final = k == sampler.steps
        hidden = session.run(tokens_BL, share_T[k].to(device).expand(len(tokens_BL)))
        if sampler.kind == "euler" and not final:
            law = euler(float(rate_T[k] * (time_T[k] - time_T[k + 1])), words)
        else:
            law = analytic(float(sigma_T[k] - sigma_T[k + 1]), words)
        temperature = 0.0 if final and sampler.denoise == "argmax" else sampler.temperature
        token_N = tokens_BL.flatten()[position_N]
        key_N = rng.key(Stream.TOKEN, row_N, k, column_N)
        (new_N,) = session.read(hidden, position_N, [LeapDraw(words, key_N, token_N, law, temperature)])
        tokens_BL.view(-1)[position_N] = new_N
        if on_step is not None:
            after = share_T[k + 1] if k < sampler.steps else torch.zeros(())
            on_step(Step(k, last, after.to(device).expand(len(tokens_BL)), canvas, tokens_BL.clone))
    return canvas.replace(tokens_BL=tokens_BL)
