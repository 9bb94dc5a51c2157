"""Keys and values that sessions keep from one call for the next, and the columns that the next calls compute.

The columns may be the same for all rows, or each row's own: prompts have several lengths, and rows go through their
blocks at a pace of their own. Knows no network.

Shape suffixes: B rows, R = B × branches, L columns of the canvas, W columns that are computed, H heads, F head
dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffq.models.dit import Cache

Span = tuple[int, int]
"""Columns first … last−1."""


@dataclass(frozen=True)
class Windows:
    """As many columns of every row as the widest span has, each row's own span among them.

    column_BW  which they are, rising by one from the first
    own_BW     True inside of the row's own span: what is computed elsewhere is kept by nobody
    seen       the columns before this one are attended to
    """

    column_BW: Tensor
    own_BW: Tensor
    seen: int

    @classmethod
    def of(cls, spans: Sequence[Span], length: int, seen: int, device: torch.device) -> Windows:
        """The windows of rows with these spans on a canvas of that length."""
        width = widest(spans)
        span_B2 = torch.tensor([(*span, min(span[0], length - width)) for span in spans], device=device)
        first_B1, last_B1, begin_B1 = span_B2[:, None].unbind(-1)
        column_BW = begin_B1 + torch.arange(width, device=device)
        return cls(column_BW, (column_BW >= first_B1) & (column_BW < last_B1), seen)

    def map(self, change: Callable[[Tensor], Tensor]) -> Windows:
        """The same of other rows."""
        return Windows(change(self.column_BW), change(self.own_BW), self.seen)

    def tokens(self, tokens_BL: Tensor) -> Tensor:
        """What stands on them, (B, W)."""
        return tokens_BL.gather(1, self.column_BW)

    def slots(self, at_BK: Tensor) -> Tensor:
        """Where in them some columns of the canvas stand; those outside come to stand anywhere."""
        return (at_BK - self.column_BW[:, :1]).clamp(0, self.column_BW.shape[1] - 1)


def widest(spans: Sequence[Span]) -> int:
    """Columns of the widest span."""
    return max(last - first for first, last in spans)


def whole_blocks(span: Span, block: int, length: int) -> Span:
    """The span with the rest of the model's blocks that it begins and ends in."""
    first, last = span
    return first // block * block, min(length, -(-last // block) * block)


def from_before(spans: Sequence[Span], before: Tensor) -> list[Span]:
    """The spans with the columns that their first ones are predicted at.

    before  the column of the token before each, (L,), or (B, L) with a row for each span; the host waits for it
    """
    if before.dim() == 1:
        told = before.tolist()
        return [(min(first, told[first]), last) for first, last in spans]
    first_B1 = torch.tensor([[first] for first, _ in spans], device=before.device)
    told = before.gather(1, first_B1).squeeze(1).tolist()
    return [(min(first, at), last) for (first, last), at in zip(spans, told, strict=True)]


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
                held = self._room(i, key, value)
                for kept, new in zip(held, (key, value), strict=True):
                    kept[:, :, first:last] = new
                return held[0][:, :, :seen], held[1][:, :, :seen]

            return cache

        return [write(i) for i in range(len(self.held))]

    def placing(self, windows: Windows) -> list[Cache]:
        """The same for a call over each row's own columns; `windows` are those of all branches."""
        row_R1 = torch.arange(len(windows.column_BW), device=windows.column_BW.device)[:, None]
        at = row_R1, slice(None), windows.column_BW
        own_RW11 = windows.own_BW[..., None, None]

        def place(i: int) -> Cache:
            def cache(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
                held = self._room(i, key, value)
                for kept, new in zip(held, (key, value), strict=True):
                    kept[at] = torch.where(own_RW11, new.transpose(1, 2), kept[at])
                return held[0][:, :, : windows.seen], held[1][:, :, : windows.seen]

            return cache

        return [place(i) for i in range(len(self.held))]

    def _room(self, i: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What a block keeps; room for a whole canvas, where that is nothing yet."""
        held = self.held[i]
        if held is None:
            rows, heads, _, size = key.shape
            room = rows, heads, self.length, size
            held = self.held[i] = key.new_zeros(room), value.new_zeros(room)
        return held

    def rows(self, row_R: Tensor) -> Kept:
        """What is kept of these rows, apart from what it is taken from."""
        made = Kept(len(self.held), self.length)
        made.held = [None if h is None else (h[0][row_R], h[1][row_R]) for h in self.held]
        return made

    def put(self, row_R: Tensor, other: Kept) -> None:
        """Takes over what another has of these rows."""
        for held, new in zip(self.held, other.held, strict=True):
            if held is None or new is None:
                raise ValueError("rows can be taken over where keys and values are kept on both sides")
            held[0][row_R], held[1][row_R] = new
