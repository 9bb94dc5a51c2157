"""Pairs laid out on one canvas, for masked models of running text: the condition, then a room of fixed size for the
target, then one end token.

    [start] condition [end] · room · [end]            the begin and the separator that `encode_sources` gives
    <s> condition </s></s> · room · </s>              for tokenizers whose specials are RoBERTa's

Only the room is ever masked. What it has beyond its target is filled with the end token, every place of it: one word
says "ended" and "nothing here", a sampler that cuts a row at its first end token needs no exception, and models that
never draw padding can fill it. The closing end token is given, so a model sees where the room ends. Behind it rows of
unequal condition are padded, which nobody sees. (Koh et al., arXiv 2411.06438, section on training; the layout is
reconstructed: how the paper fills the room is not known.)

Knows no model and no sampler.

Shape suffixes: B rows, L positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from diffq.data.batches import TokenisedPairs, TrainBatches
from diffq.data.canvases import Keep, Row
from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.models.base import TextBatch


def separator(tokenizer: Any) -> tuple[int, ...]:
    """What stands between an encoded source and the room, beside the source's own end: RoBERTa's second </s>."""
    roberta = tokenizer.token(tokenizer.start) == "<s>" and tokenizer.token(tokenizer.end) == "</s>"
    return (tokenizer.end,) if roberta else ()


def source_room(tokenizer: Any, room: int, max_length: int, max_source: int | None = None) -> int:
    """The most tokens that a source may have, its special ones included, beside a room of so many on a canvas of the
    model's longest; at most `max_source`. UserError where none is left."""
    left = max_length - room - 1 - len(separator(tokenizer))
    if left < 3:
        raise UserError(
            f"dataset.room={room} leaves {max(left, 0)} of the model's max_length={max_length} tokens to a source; give"
            f" a room of {max_length - 4 - len(separator(tokenizer))} or less"
        )
    return left if max_source is None else min(left, max_source)


def laid_out_canvas(
    rows: Sequence[Row],
    conditions: Mapping[int, Sequence[int]],
    room: int,
    tokenizer: Any,
    keep: Mapping[int, Keep] | None = None,
) -> Canvas:
    """The canvas of some rows.

    conditions  what stands before each room, by its source's index: an encoded source and the separator
    keep        by source index: known tokens at places of the room, from 0, which are held fixed
    UserError where a known token stands beyond the room.
    """
    size_L = max((len(conditions[row.source]) for row in rows), default=0) + room + 1
    tokens_BL = torch.full((len(rows), size_L), tokenizer.pad, dtype=torch.long)
    valid_BL = torch.zeros((len(rows), size_L), dtype=torch.bool)
    free_BL = torch.zeros_like(valid_BL)
    for b, row in enumerate(rows):
        ids = conditions[row.source]
        first, last = len(ids), len(ids) + room
        tokens_BL[b, :first] = torch.as_tensor(ids, dtype=torch.long)
        tokens_BL[b, first:last] = tokenizer.mask
        tokens_BL[b, last] = tokenizer.end
        valid_BL[b, : last + 1] = True
        free_BL[b, first:last] = True
        for place, token in (keep or {}).get(row.source, {}).items():
            if not 0 <= place < room:
                raise UserError(
                    f"a token is to be kept at position {place} of source {row.source}, whose target has a room of"
                    f" {room} tokens; positions are 0 … {room - 1}"
                )
            tokens_BL[b, first + place] = token
            free_BL[b, first + place] = False
    row_B = torch.tensor([row.id for row in rows], dtype=torch.long)
    return Canvas(tokens_BL, free_BL, valid_BL, row_B, end=tokenizer.end)


class LaidOutBatches(TrainBatches):
    """The batches of a training on pairs that are laid out. Only the room is destroyed, and counts as tokens.

    pairs: with targets of at most `room` tokens.
    """

    def __init__(self, pairs: TokenisedPairs, tokenizer: Any, room: int, batch_size: int, seed: int, window: int = 1):
        super().__init__(pairs, batch_size, seed, window, tokenizer.pad)
        if len(pairs) and int(pairs.target_lengths.max()) > room:
            raise ValueError(f"a target of {int(pairs.target_lengths.max())} tokens has no room in {room}")
        self.room, self.end, self.separator = room, tokenizer.end, separator(tokenizer)
        self.bins: np.ndarray | None = None  # (pairs, room): in which part of an order each place is masked

    def by_length(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rooms are of one size, so rows differ by their sources alone."""
        return (self.pairs.source_lengths[rows],)

    def canvases(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens of these rows, where their rooms are, and what is no padding, (B, L) each."""
        p, more = self.pairs, len(self.separator)
        source = p.source_start[rows + 1] - p.source_start[rows]
        target = p.target_start[rows + 1] - p.target_start[rows]
        first = (source + more)[:, None]
        column = np.arange(int(first.max(initial=0)) + self.room + 1)[None]
        tokens = np.where(column <= first + self.room, self.end, self.pad)  # ends wherever nothing else stands
        is_source, is_target = column < source[:, None], (column >= first) & (column < first + target[:, None])
        tokens[is_source] = p.source_ids[(p.source_start[rows][:, None] + column)[is_source]]
        tokens[is_target] = p.target_ids[(p.target_start[rows][:, None] + column - first)[is_target]]
        return tokens, (column >= first) & (column < first + self.room), column <= first + self.room

    def collate(self, rows: np.ndarray, visits: np.ndarray) -> TextBatch:  # type: ignore[override]
        """These rows, padded behind their ends to the longest."""
        tokens, room, seen = self.canvases(rows)
        bins = None
        if self.bins is not None:
            bins = np.zeros_like(tokens)
            bins[room] = self.bins[rows].reshape(-1)
        return TextBatch(
            tokens_BL=torch.from_numpy(tokens),
            valid_BL=torch.from_numpy(room),
            row_B=torch.from_numpy(np.array(self.pairs.index[rows])),
            visit_B=torch.from_numpy(np.array(visits)),
            seen_BL=None if seen.all() else torch.from_numpy(seen),
            bin_BL=None if bins is None else torch.from_numpy(bins),
        )
