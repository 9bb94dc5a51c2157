"""Sampling of causal models: one token after another, at a temperature, from the top-k tokens or the nucleus.

The curve that has a temperature, against which diffusion's substitutes are drawn. Knows no network: only the causal
denoiser contract.

Shape suffixes: B rows, A rows that have not ended, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Process, Step
from diffq.diffusion.reductions import Without
from diffq.diffusion.row_draws import token_draw
from diffq.registry import SAMPLERS
from diffq.rng import Rng, Stream
from diffq.samplers.base import Sampler
from diffq.settings import setting

_LOOK_EVERY = 8  # steps between two looks at which rows have ended: each look makes the host wait


@SAMPLERS.register("autoregressive")
@dataclass(frozen=True, kw_only=True)
class Autoregressive(Sampler):
    """Next-token sampling with temperature, top-k and nucleus (top-p), the key–value cache on.

    The token that crosses top_p is included, as in Hugging Face's `generate`.
    """

    processes: ClassVar[tuple[Process, ...]] = ("causal",)
    takes_length: ClassVar[bool] = False

    temperature: float = setting(1.0, "divides the scores before a token is drawn; 0 takes the best token", low=0)
    top_p: float = setting(1.0, "nucleus: the smallest set of tokens with this mass; 1 is off", above=0, high=1)
    top_k: int = setting(0, "the k best tokens alone; 0 is off", low=0)

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        """Fills the canvas from left to right; a row stops at the end token, and what follows is no longer valid.

        Fixed positions are read where they stand; before a row's last fixed one the end token is not drawn.
        """
        session = denoiser.open(canvas)
        end = canvas.end if canvas.source_BS is None else denoiser.end  # running text may go on over its end token
        tokens_BL = canvas.tokens_BL.clone()
        valid_BL = torch.zeros_like(canvas.valid_BL)
        fixed_BL = canvas.valid_BL & ~canvas.free_BL
        must_go_on_BL = fixed_BL.flip(1).cumsum(1).flip(1) > 0
        has_fixed = bool(fixed_BL.any())
        alive_A = torch.arange(len(tokens_BL), device=canvas.device)
        last_A1 = torch.full_like(tokens_BL[:, :1], denoiser.start)
        open_A = canvas.valid_BL[:, 0]
        given = _given_by_all(fixed_BL) if has_fixed else 0
        if given:  # a common prompt goes through the network at once
            session.run(torch.cat([last_A1, tokens_BL[:, : given - 1]], 1))
            last_A1, valid_BL[:, :given] = tokens_BL[:, given - 1 : given], True
        for i in range(given, canvas.shape[1]):
            hidden = session.run(last_A1)
            position_A = torch.arange(len(alive_A), device=canvas.device)
            key_A = rng.key(Stream.TOKEN, canvas.row_B[alive_A], 0, i)
            draw = token_draw(key_A, self.temperature, self.top_k, self.top_p)
            if has_fixed and end is not None:
                draw = Without(draw, (end,), must_go_on_BL[alive_A, i])
            (token_A,) = session.read(hidden, position_A, [draw])
            token_A = torch.where(fixed_BL[alive_A, i], tokens_BL[alive_A, i], token_A)
            open_A = open_A & canvas.valid_BL[alive_A, i]
            if end is not None:
                open_A = open_A & ~((token_A == end) & ~must_go_on_BL[alive_A, i])  # a fixed token may be the end token
            tokens_BL[alive_A, i] = torch.where(open_A, token_A, tokens_BL[alive_A, i])
            valid_BL[alive_A, i] = open_A
            if on_step is not None:
                time_B = torch.full(canvas.row_B.shape, 1 - (i + 1) / canvas.shape[1], device=canvas.device)
                on_step(Step(i, canvas.shape[1], time_B, canvas, tokens_BL.clone))
            last_A1 = token_A[:, None]
            if i % _LOOK_EVERY == _LOOK_EVERY - 1:
                going_K = open_A.nonzero().squeeze(1)
                if not len(going_K):
                    break
                if len(going_K) < len(alive_A):
                    session.select(going_K)
                    alive_A, open_A, last_A1 = alive_A[going_K], open_A[going_K], last_A1[going_K]
        return canvas.replace(tokens_BL=tokens_BL, valid_BL=valid_BL)


def _given_by_all(fixed_BL: Tensor) -> int:
    """The leading columns that are fixed in every row, but for the last column of the canvas."""
    whole_L = fixed_BL.all(0)
    return int(whole_L[:-1].long().cumprod(0).sum())
