"""What the sessions of text models have in common: who sees what of a canvas, and the projection on the vocabulary.

Knows no network.

Shape suffixes: B rows, R = B × branches, L positions, K asked positions of a row, N asked positions, D width, V tokens,
T tokens of a tile, H heads, F head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import GUIDED, UNCOND, Branch, Canvas, TiledSession, exclude
from diffq.errors import UserError
from diffq.models.dit import Cache
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


class Kept:
    """Keys and values of every block of a network, (R, H, L, F), kept from one call for the next.

    length: L, the columns of the canvas.
    """

    def __init__(self, blocks: int, length: int):
        self.length = length
        self.held: list[tuple[Tensor, Tensor] | None] = [None] * blocks

    def recording(self) -> list[Cache]:
        """One cache a block that keeps what a call over the whole canvas computes."""

        def record(i: int) -> Cache:
            def cache(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                self.held[i] = key, value
                return key, value

            return cache

        return [record(i) for i in range(len(self.held))]

    def writing(self, first: int, last: int, seen: int) -> list[Cache]:
        """One cache a block for a call over the columns first … last−1: they are written over what is kept of them,
        and the columns before `seen` are attended to."""

        def write(i: int) -> Cache:
            def cache(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                held = self.held[i]
                if held is None:
                    rows, heads, _, size = key.shape
                    room = rows, heads, self.length, size
                    held = self.held[i] = key.new_zeros(room), value.new_zeros(room)
                for kept, new in zip(held, (key, value), strict=True):
                    kept[:, :, first:last] = new
                return held[0][:, :, :seen], held[1][:, :, :seen]

            return cache

        return [write(i) for i in range(len(self.held))]

    def select(self, rows_R: Tensor) -> None:
        self.held = [None if h is None else (h[0][rows_R], h[1][rows_R]) for h in self.held]


class MaskedSession(TiledSession):
    """A canvas on which tokens are given and others are masked; the unconditional branch sees masks for what is given.

    size    ids that the network has an embedding of
    words   one more than the last id that may be drawn
    never   ids below it that may not: the mask, and padding that ends nothing
    mask    None where the process has none
    blocks  of the network, where its keys and values can be kept (`freeze`); 0 where they cannot
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
        blocks: int = 0,
    ):
        self.branches, self.mask, self.words, self.never = branches, mask, words, never
        self.rows, self.length = canvas.shape
        self.blocks = blocks
        self.kept: Kept | None = None
        self.columns: tuple[int, int] | None = None  # whose states are given
        self.span: tuple[int, int] | None = None  # which are computed
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

    def freeze(self, columns: slice | None) -> None:
        """From now on a `run` computes nothing outside of these columns: there, keys and values are those of the last
        run. What a run computes inside is kept too, so the next columns may be others.

        `freeze(None)` ends it, and has the runs that follow keep their keys and values: it must come before the run
        that is the first to be kept. `run` still takes whole canvases and positions of them; without `at_BK` it gives
        the states of the columns alone, and what it gives for positions outside of them must not be read.

        An approximation, unless nothing outside of the columns depends on what was written since. (Wu et al. 2025,
        arXiv 2505.22618, Fast-dLLM: with columns from a block on it is its prefix cache, with a block's its dual one.)
        """
        if not self.blocks:
            raise UserError("the keys and values of this model cannot be kept; switch the cache off")
        if columns is None:
            self.kept = self.kept or Kept(self.blocks, self.length)
            self.columns = self.span = None
            return
        first, last, step = columns.indices(self.length)
        if step != 1 or first >= last:
            raise ValueError(f"{columns} are no columns of a canvas of {self.length}")
        span = self.reach(first, last)
        if self.kept is None and self.begins(*span):
            self.kept = Kept(self.blocks, self.length)
        elif self.kept is None or not any(self.kept.held):
            raise ValueError("freeze(None) comes before the run whose keys and values are to be kept")
        self.columns, self.span = (first, last), span

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The columns that must be computed for the states of the columns first … last−1."""
        return first, last

    def begins(self, first: int, last: int) -> bool:
        """Whether these columns can be computed with nothing kept."""
        return False

    def caches(self, seen: int | None = None) -> list[Cache] | None:
        """One a block; None where nothing is to be kept. seen: how many columns are attended to; None: all."""
        if self.kept is None:
            return None
        if self.span is None:
            return self.kept.recording()
        return self.kept.writing(*self.span, self.length if seen is None else seen)

    def ask(self, rows: int, at_BK: Tensor | None, device: torch.device) -> Tensor | None:
        """The asked positions of all branches, (R, K); None for all of the canvas."""
        if at_BK is None and self.columns is not None:
            at_BK = torch.arange(*self.columns, device=device).expand(rows, -1)
        return None if at_BK is None else self.repeat(at_BK)

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
        if self.kept is not None:
            offset_N1 = torch.arange(len(self.branches), device=rows_K.device)[:, None] * self.rows
            self.kept.select((rows_K + offset_N1).flatten())
        self.rows = len(rows_K)
