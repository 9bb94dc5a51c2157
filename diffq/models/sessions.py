"""What the sessions of text models have in common: who sees what of a canvas, and the projection on the vocabulary.

Knows no network.

Shape suffixes: B rows, R = B × branches, L positions, K asked positions of a row, N asked positions, D width, V tokens,
T tokens of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import GUIDED, UNCOND, Branch, Canvas, TiledSession, exclude
from diffq.errors import UserError
from diffq.models.transformer import padding_or_none


def tiles(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None = None, never: tuple[int, ...] = ()
) -> Callable[[slice, int, int], Tensor]:
    """What `scores` of a session gives: a linear map on tokens first … last−1 of the positions of `part`, float32.

    never: tokens whose score is −inf.
    """

    def project(part: slice, first: int, last: int) -> Tensor:
        bias_T = None if bias_V is None else bias_V[first:last]
        return exclude(F.linear(hidden_ND[part], weight_VD[first:last], bias_T).float(), first, never)

    return project


def drawable(vocabulary: Any) -> tuple[int, tuple[int, ...]]:
    """What a masked model may draw of a vocabulary: one more than the last id, and ids below it that it may not: the
    mask, and padding unless it also ends a text."""
    words = vocabulary.size - (vocabulary.mask == vocabulary.size - 1)
    silent = {vocabulary.mask, vocabulary.pad} - set(getattr(vocabulary, "ends", (vocabulary.end,)))
    return words, tuple(sorted(token for token in silent if token < words))


def places(tokens_BL: Tensor, valid_BL: Tensor | None) -> tuple[Tensor, Tensor]:
    """The place of every column in its row's text, padding not counted, and the column of the token before it, the
    first one's own: each (L,), or (B, L) where there is padding."""
    column_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    if valid_BL is None:
        return column_L, (column_L - 1).clamp(min=0)
    last_BL = torch.where(valid_BL, column_L, -1).cummax(1).values
    before_BL = torch.cat([torch.full_like(last_BL[:, :1], -1), last_BL[:, :-1]], 1)
    return (valid_BL.cumsum(1) - 1).clamp(min=0), torch.where(before_BL < 0, column_L, before_BL)


class MaskedSession(TiledSession):
    """A canvas on which tokens are given and others are masked; the unconditional branch sees masks for what is given.

    size    ids that the network has an embedding of
    words   one more than the last id that may be drawn
    never   ids below it that may not: the mask, and padding that ends nothing
    mask    None where the process has none
    UserError for a prompt with an id that the network has no embedding of or with the mask in it, and where there is an
    unconditional branch and nothing is given.
    """

    def __init__(
        self,
        canvas: Canvas,
        branches: tuple[Branch, ...],
        *,
        mask: int | None,
        size: int,
        words: int,
        never: tuple[int, ...] = (),
    ):
        self.branches, self.mask, self.words, self.never = branches, mask, words, never
        self.given_BL = canvas.valid_BL & ~canvas.free_BL
        self.valid_BL = padding_or_none(canvas.valid_BL)
        strange_BL = canvas.tokens_BL >= size
        if mask is not None:
            strange_BL = strange_BL | (canvas.tokens_BL == mask)
        if bool(strange_BL[self.given_BL].any()):
            raise UserError(f"the prompt holds a token that is no word of the model's {words}, such as its mask")
        if branches in (GUIDED, UNCOND) and not bool(self.given_BL.any()):
            raise UserError("guidance needs a prompt, and nothing on this canvas is given; use scale=1")

    def admit_mask(self) -> None:
        """From now on the mask, and padding, are among the tokens that are scored, as in published decoding loops."""
        if self.mask is None:
            raise UserError("this model's process has no mask that could be drawn; allow_mask=false")
        self.words, self.never = max(self.words, self.mask + 1), ()

    def stack(self, tokens_BL: Tensor) -> Tensor:
        """Tokens of all branches, (R, L)."""
        parts = [tokens_BL if branch == "cond" else self._blank(tokens_BL) for branch in self.branches]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def repeat(self, value_B: Tensor) -> Tensor:
        """What is the same in all branches, (R, …)."""
        n = len(self.branches)
        return value_B if n == 1 else value_B.repeat(n, *(1,) * (value_B.dim() - 1))

    def _blank(self, tokens_BL: Tensor) -> Tensor:
        assert self.mask is not None
        return torch.where(self.given_BL, self.mask, tokens_BL)

    def select(self, rows_K: Tensor) -> None:
        self.given_BL = self.given_BL[rows_K]
        self.valid_BL = None if self.valid_BL is None else self.valid_BL[rows_K]
