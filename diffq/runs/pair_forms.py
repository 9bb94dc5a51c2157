"""Pairs asked of masked models of running text: the source stands on the canvas, before the room of its target.

`data.laid_out` says what such a canvas looks like. Knows no sampler's algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from diffq.config import Config
from diffq.data.canvases import Batch, Keep, Row, check_sources, plan_batches
from diffq.data.keywords import Held, Keywords
from diffq.data.laid_out import laid_out_canvas, separator, source_room
from diffq.data.task import Example
from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.runs.questions import Written


@dataclass(frozen=True)
class LaidOutQuestions:
    """Sources whose targets are to be written in `room` places.

    keep      by source index, known tokens at places of the room, which are held fixed
    keywords  words that are asked of every row, and held fixed too
    """

    examples: Sequence[Example]
    tokenizer: Any
    room: int
    max_length: int  # of the model
    device: torch.device
    keep: Mapping[int, Keep] = field(default_factory=dict)
    keywords: Keywords | None = None

    @cached_property
    def source_ids(self) -> Mapping[int, list[int]]:
        """What stands before each room, by the source's index. UserError for a source that is empty or too long."""
        ids = self.tokenizer.encode_sources([e.source for e in self.examples])
        sources = {e.index: i for e, i in zip(self.examples, ids, strict=True)}
        most = source_room(self.tokenizer, self.room, self.max_length)
        try:
            check_sources(sources, most)
        except UserError as error:
            raise UserError(f"{error} (dataset.room={self.room} of its max_length={self.max_length})") from error
        more = separator(self.tokenizer)
        return {index: [*i, *more] for index, i in sources.items()}

    @cached_property
    def target_lengths(self) -> list[int]:
        """Tokens of each source's first reference, as far as there is room for them."""
        ids = self.tokenizer.encode_targets([e.references[0] if e.references else "" for e in self.examples])
        return [min(len(i), self.room) for i in ids]

    @cached_property
    def _by_index(self) -> Mapping[int, Example]:
        return {e.index: e for e in self.examples}

    def held(self, row: Row) -> Held | None:
        """The keywords of a row; None where none are asked for. Drawn positions are among as many as the source has
        tokens, since an answer ends somewhere in its room, and behind its end nothing counts."""
        if self.keywords is None:
            return None
        example = self._by_index[row.source]
        about = len(self.source_ids[row.source]) - 2 - len(separator(self.tokenizer))
        return self.keywords.of(example, row.id, min(self.room, max(about, self.keywords.least(example))))

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        if self.keywords is not None:
            for example in self.examples:
                self.keywords.least(example)  # refuses what has no room
        lengths = [len(self.source_ids[e.index]) + self.room + 1 for e in self.examples]
        indices = [e.index for e in self.examples]
        return plan_batches([lengths] * config.num_samples, [0] * len(indices), batch_tokens, indices)

    def canvas(self, batch: Batch) -> Canvas:
        held = {row.source: self.held(row) for row in batch.rows}  # a batch has one sample of each source
        keep = dict(self.keep) | {source: one.at for source, one in held.items() if one is not None}
        made = laid_out_canvas(batch.rows, self.source_ids, self.room, self.tokenizer, keep)
        return made.map(lambda x: x.to(self.device))

    def row(self, row: Row) -> dict[str, Any]:
        held = self.held(row)
        return {"prompt_ids": self.source_ids[row.source]} | ({} if held is None else {"keywords": list(held.words)})

    def written(self, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]:
        """What stands in the room, without end tokens: canvases are cut at those that end an answer, and others stand
        before a keyword."""
        rooms = [i[len(self.source_ids[row.source]) :][: self.room] for row, i in zip(rows, ids, strict=True)]
        own = [[i for i in room if i != self.tokenizer.end] for room in rooms]
        texts = self.tokenizer.decode_batch(own)
        return [Written(i, text, len(i) < self.room) for i, text in zip(own, texts, strict=True)]

    def length_name(self, config: Config) -> str:
        return f"room_{self.room}"
