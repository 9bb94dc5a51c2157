"""What the sessions of text models have in common: who sees what of a canvas, and the projection on the vocabulary.

Knows no network.

Shape suffixes: B rows, R = B × branches, L positions, K asked positions of a row, N asked positions, D width, V tokens,
T tokens of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import GUIDED, UNCOND, Branch, Canvas, TiledSession, exclude
from diffq.errors import UserError
from diffq.models.dit import Cache
from diffq.models.kept import Kept, Span, Windows
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
        self.columns: Span | None = None  # whose states are given
        self.span: Span | None = None  # which are computed
        self.windows: Windows | None = None  # which are, where each row has its own
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

    def freeze(self, columns: slice | Sequence[Span] | None) -> None:
        """From now on a `run` computes nothing outside of these columns: there, keys and values are those of the last
        run. What a run computes inside is kept too, so the next columns may be others. A slice is for all rows; else
        each has its own first … last−1.

        `freeze(None)` ends it, and has the runs that follow keep their keys and values: it must come before the run
        that is the first to be kept. `run` still takes whole canvases and positions of them; without `at_BK` it gives
        the states of a slice's columns alone, and what it gives for positions outside of them must not be read.

        An approximation, unless nothing outside of the columns depends on what was written since. (Wu et al. 2025,
        arXiv 2505.22618, Fast-dLLM: with columns from a block on it is its prefix cache, with a block's its dual one.)
        """
        if not self.blocks:
            raise UserError("the keys and values of this model cannot be kept; switch the cache off")
        if columns is None:
            self.kept = self.kept or Kept(self.blocks, self.length)
            self.columns = self.span = self.windows = None
            return
        shared = isinstance(columns, slice)
        spans = self._spans(columns)
        reached = self.reach(spans)
        if self.kept is None and all(self.begins(span) for span in reached):
            self.kept = Kept(self.blocks, self.length)
        elif self.kept is None or not any(self.kept.held):
            raise ValueError("freeze(None) comes before the run whose keys and values are to be kept")
        if shared or len(set(reached)) == 1:
            first, last = min(first for first, _ in reached), max(last for _, last in reached)
            self.columns, self.span, self.windows = spans[0] if shared else None, (first, last), None
        else:
            self.columns = self.span = None
            seen = self.seen(max(last for _, last in reached))
            self.windows = Windows.of(reached, self.length, seen, self.given_BL.device)

    def _spans(self, columns: slice | Sequence[Span]) -> list[Span]:
        """The columns of each row, (first, last). ValueError for such as a canvas does not have."""
        if isinstance(columns, slice):
            first, last, step = columns.indices(self.length)
            if step != 1 or first >= last:
                raise ValueError(f"{columns} are no columns of a canvas of {self.length}")
            return [(first, last)] * self.rows
        spans = list(columns)
        if len(spans) != self.rows or any(not 0 <= first < last <= self.length for first, last in spans):
            raise ValueError(f"{spans} are no columns of {self.rows} rows of {self.length}")
        return spans

    def reach(self, spans: Sequence[Span]) -> list[Span]:
        """The columns that must be computed for the states of these, row by row."""
        return list(spans)

    def begins(self, span: Span) -> bool:
        """Whether these columns can be computed with nothing kept."""
        return False

    def seen(self, last: int) -> int:
        """How many columns those before `last` attend to."""
        return self.length

    def caches(self) -> list[Cache] | None:
        """One a block; None where nothing is to be kept."""
        if self.kept is None:
            return None
        if self.windows is not None:
            return self.kept.placing(self.windows.map(self.repeat))
        if self.span is None:
            return self.kept.recording()
        return self.kept.writing(*self.span, self.seen(self.span[1]))

    def adopt(self, kept: Kept, rows_K: Tensor) -> None:
        """Takes over what a fork of these rows has kept (its `kept`)."""
        if self.kept is None:
            raise ValueError("freeze(None) comes before the run whose keys and values are to be kept")
        self.kept.put(self._of_branches(rows_K), kept)

    def ask(self, rows: int, at_BK: Tensor | None, device: torch.device) -> Tensor | None:
        """The asked positions of all branches, (R, K); None for all of the canvas."""
        if at_BK is None and self.columns is not None:
            at_BK = torch.arange(*self.columns, device=device).expand(rows, -1)
        if at_BK is None and (self.windows is not None or self.span is not None):
            raise ValueError("where each row has columns of its own a run must be told whose states are asked for")
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

    def _of_branches(self, rows_K: Tensor) -> Tensor:
        """The places of some rows in tensors of all branches."""
        offset_N1 = torch.arange(len(self.branches), device=rows_K.device)[:, None] * self.rows
        return (rows_K + offset_N1).flatten()

    def select(self, rows_K: Tensor) -> None:
        self.given_BL = self.given_BL[rows_K]
        self.valid_BL = None if self.valid_BL is None else self.valid_BL[rows_K]
        if self.kept is not None:  # a fork shares it until here
            self.kept = self.kept.rows(self._of_branches(rows_K))
        if self.windows is not None:
            self.windows = self.windows.map(lambda x: x[rows_K])
        self.rows = len(rows_K)
