"""What a point asks of its model, row by row: sources with targets to be written, or running text to be filled in.
(`answer_questions` has the third kind, problems with a prompt.)

All kinds say the same of themselves, so that sampling, planning and scoring need not ask which it is:

    examples      the questions, with what is known of right answers
    plan          which rows go into which batch
    canvas        the canvas of a batch
    row           what samples.jsonl keeps of a row besides the answer
    written       what a sampler has written, of the tokens of each row
    source_ids    the tokens that stand beside or on the canvas and are given, by the question's index

Knows no sampler's algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from diffq.config import Config
from diffq.data.canvases import Batch, Row, build_canvas, check_sources, plan_batches, text_canvas
from diffq.data.keywords import Held, Keywords
from diffq.data.lengths import LengthFit, LengthModel
from diffq.data.task import Example
from diffq.data.windows import TextQuestions
from diffq.diffusion.contracts import Canvas, row_id
from diffq.errors import UserError
from diffq.rng import Rng


@dataclass(frozen=True)
class Written:
    """An answer: its tokens, its text, and whether it came to its end before the canvas did."""

    ids: list[int]
    text: str
    ended: bool


class Questions(Protocol):
    """See the module."""

    @property
    def examples(self) -> Sequence[Example]: ...

    @property
    def source_ids(self) -> Mapping[int, list[int]]: ...

    @property
    def target_lengths(self) -> list[int]: ...

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]: ...

    def canvas(self, batch: Batch) -> Canvas: ...

    def row(self, row: Row) -> dict[str, Any]: ...

    def written(self, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]: ...

    def length_name(self, config: Config) -> str: ...


@dataclass(frozen=True)
class PairQuestions:
    """Sources whose targets are to be written."""

    examples: Sequence[Example]
    tokenizer: Any
    max_length: int  # of the model
    fit: Mapping[str, Any] | None  # of the length model
    device: torch.device
    keywords: Keywords | None = None

    @cached_property
    def source_ids(self) -> Mapping[int, list[int]]:
        """The ids of each source, by its index in the split. UserError for one that is empty or too long."""
        ids = self.tokenizer.encode_sources([e.source for e in self.examples])
        sources = {e.index: i for e, i in zip(self.examples, ids, strict=True)}
        check_sources(sources, self.max_length)
        return sources

    @cached_property
    def target_lengths(self) -> list[int]:
        """Tokens of each source's first reference: what the oracle length model gives."""
        ids = self.tokenizer.encode_targets([e.references[0] if e.references else "" for e in self.examples])
        return [len(i) for i in ids]

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        source_lengths = [len(self.source_ids[e.index]) for e in self.examples]
        indices = [e.index for e in self.examples]
        lengths = [self._lengths(config, sample, source_lengths) for sample in range(config.num_samples)]
        if config.sampler.takes_length:
            return plan_batches(lengths, source_lengths, batch_tokens, indices)
        # A model that ends by itself is given all the room there is, but will take about as much as the source.
        batches = plan_batches([source_lengths] * config.num_samples, source_lengths, batch_tokens, indices)
        room = lengths[0][0]
        return [replace(b, rows=tuple(replace(row, length=room) for row in b.rows)) for b in batches]

    def _lengths(self, config: Config, sample: int, source_lengths: Sequence[int]) -> list[int]:
        """The target length of one sample of each source, in tokens; the longest there is where the model itself
        decides when it ends."""
        dataset: Any = config.dataset
        longest = min(self.max_length, dataset.max_target)
        if not config.sampler.takes_length:
            if self.keywords is not None and self.keywords.drawn_places:
                raise UserError(
                    f"sampler '{config.choices.sampler}' ends an answer by itself, so positions of keywords cannot be"
                    " drawn before; give each its own, as in dataset.keywords=[3:storm]"
                )
            return [min(longest, self.max_length - 1)] * len(source_lengths)
        drawn = LengthModel.parse(config.length).draw(
            Rng(config.seed),
            [row_id(e.index, sample) for e in self.examples],
            [n - 2 for n in source_lengths],
            self.target_lengths,
            longest,
            LengthFit.from_mapping(self.fit) if self.fit else None,
        )
        if self.keywords is None:
            return drawn
        return [max(n, self.keywords.least(e)) for n, e in zip(drawn, self.examples, strict=True)]  # room for them

    @cached_property
    def _by_index(self) -> Mapping[int, Example]:
        return {e.index: e for e in self.examples}

    def held(self, row: Row) -> Held | None:
        """The keywords of a row; None where none are asked for."""
        return None if self.keywords is None else self.keywords.of(self._by_index[row.source], row.id, row.length)

    def canvas(self, batch: Batch) -> Canvas:
        held = {row.source: self.held(row) for row in batch.rows}  # a batch has one sample of each source
        keep = {source: one.at for source, one in held.items() if one is not None}
        pad, mask = self.tokenizer.pad, self.tokenizer.mask
        return build_canvas(batch.rows, self.source_ids, pad, mask, keep or None, self.device)

    def row(self, row: Row) -> dict[str, Any]:
        held = self.held(row)
        return {"prompt_ids": self.source_ids[row.source]} | ({} if held is None else {"keywords": list(held.words)})

    def written(self, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]:
        return _all_of(self.tokenizer, rows, ids, full)

    def length_name(self, config: Config) -> str:
        return str(LengthModel.parse(config.length)) if config.sampler.takes_length else "free"


@dataclass(frozen=True)
class TextTask:
    """Running text to be written, around what is given of it."""

    asked: TextQuestions
    count: int | None  # num_sources
    device: torch.device

    @property
    def examples(self) -> Sequence[Example]:
        return self.asked.examples[: self.count]

    @cached_property
    def source_ids(self) -> Mapping[int, list[int]]:
        """The given tokens of each question."""
        return {e.index: self.asked.given_ids(e.index) for e in self.examples}

    @property
    def target_lengths(self) -> list[int]:
        return [self.asked.settings.block] * len(self.examples)

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        block, indices = self.asked.settings.block, [e.index for e in self.examples]
        if not self.asked.settings.given:  # samples of one question: a batch spans them
            return plan_samples(config.num_samples, block, batch_tokens)
        lengths = [[block] * len(indices)] * config.num_samples
        return plan_batches(lengths, [0] * len(indices), batch_tokens, indices)

    def canvas(self, batch: Batch) -> Canvas:
        asked, settings = self.asked, self.asked.settings
        rows = (*batch.rows, *batch.beyond)
        windows = torch.from_numpy(asked.windows[[row.source for row in rows]])
        end = asked.tokenizer.end if settings.ends else None
        return text_canvas(rows, windows, settings.given, asked.tokenizer.mask, end, self.device)

    def row(self, row: Row) -> dict[str, Any]:
        return {"prompt_ids": self.source_ids[row.source], "prompt_at": self.asked.spans}

    def written(self, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]:
        return _all_of(self.asked.tokenizer, rows, ids, full)

    def length_name(self, config: Config) -> str:
        return f"block_{self.asked.settings.block}"


def _all_of(tokenizer: Any, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]:
    """Rows all of whose tokens are what was written. full: rows have the length that they were given."""
    texts = tokenizer.decode_batch(ids)
    return [Written(i, text, full or len(i) < row.length) for row, i, text in zip(rows, ids, texts, strict=True)]


def prompted(asked: TextQuestions, beginning: str, template: str | None, device: torch.device) -> TextTask:
    """The task of a text of one's own: what it begins with, and what stands behind the … of a template at its end.

    UserError where nothing is left free.
    """
    tokenizer, settings = asked.tokenizer, asked.settings
    tail = template.partition("…")[2] if template else ""
    head = template.partition("…")[0] if template else ""
    if template and "…" not in template:
        raise UserError("--template of running text holds one …, the gap that is to be filled")
    first = tokenizer.encode_target(beginning + head)
    last = tokenizer.encode_target(tail) if tail else []
    settings = settings.replace(prefix=len(first), suffix=len(last), keep=())  # refuses what leaves nothing free
    window = np.full((1, settings.block), tokenizer.mask, dtype=np.int64)
    window[0, : len(first)] = first
    window[0, settings.block - len(last) :] = last
    own = TextQuestions(settings, window, tokenizer)
    return TextTask(own, 1, device)


def plan_samples(samples: int, length: int, batch_tokens: int) -> list[Batch]:
    """The batches of many samples of one question. All are full, so that more samples append rows and change none."""
    size = max(1, batch_tokens // length)
    rows = [Row(source=0, sample=i, length=length) for i in range(-(-samples // size) * size)]
    firsts = range(0, samples, size)
    return [Batch(i, tuple(rows[i : min(i + size, samples)]), tuple(rows[max(i, samples) : i + size])) for i in firsts]
