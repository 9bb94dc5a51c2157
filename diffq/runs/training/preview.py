"""A few samples of a model in the middle of its training, for a person to look at.

Lengths are those of the references. Knows no files; what is shown here is stored nowhere but in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffq.data.canvases import Row, build_canvas
from diffq.data.forms import FormCorpus, form_canvas, tokenise_forms
from diffq.data.laid_out import laid_out_canvas, separator
from diffq.data.task import Example
from diffq.diffusion.contracts import Canvas, row_id
from diffq.models.base import TrainableModel
from diffq.rng import Rng
from diffq.samplers.base import Sampler

_LONGEST = 64  # tokens of a preview of running text
_ROOM = 8  # columns beyond the longest reference, for a model that ends by itself


@dataclass(frozen=True)
class Preview:
    """Shows `source → sample (reference)` for each example, always under the same draws."""

    sampler: Sampler
    tokenizer: Any
    examples: Sequence[Example]

    @torch.no_grad()
    def __call__(self, model: TrainableModel) -> list[str]:
        device = next(model.parameters()).device
        canvas = self._canvas().map(lambda x: x.to(device))
        done = self.sampler(model.denoiser(), canvas, Rng(0))
        texts = [
            self.tokenizer.decode(tokens[valid].tolist())
            for tokens, valid in zip(done.tokens_BL.cpu(), done.valid_BL.cpu(), strict=True)
        ]
        return [
            f"{example.source} → {text} ({example.references[0]})"
            for example, text in zip(self.examples, texts, strict=True)
        ]

    def _canvas(self) -> Canvas:
        sources = self.tokenizer.encode_sources([e.source for e in self.examples])
        targets = self.tokenizer.encode_targets([e.references[0] for e in self.examples])
        room = 0 if self.sampler.takes_length else _ROOM
        rows = [
            Row(source=e.index, sample=0, length=max(len(ids), 1) + room)
            for e, ids in zip(self.examples, targets, strict=True)
        ]
        by_index = {e.index: ids for e, ids in zip(self.examples, sources, strict=True)}
        return build_canvas(rows, by_index, self.tokenizer.pad, self.tokenizer.mask)


@dataclass(frozen=True)
class LaidOutPreview:
    """Shows `source → sample (reference)` for each example on one canvas, always under the same draws."""

    sampler: Sampler
    tokenizer: Any
    examples: Sequence[Example]
    room: int

    @torch.no_grad()
    def __call__(self, model: TrainableModel) -> list[str]:
        device, tokenizer = next(model.parameters()).device, self.tokenizer
        sources = tokenizer.encode_sources([e.source for e in self.examples])
        more = separator(tokenizer)
        conditions = {e.index: [*ids, *more] for e, ids in zip(self.examples, sources, strict=True)}
        rows = [Row(e.index, 0, len(conditions[e.index]) + self.room + 1) for e in self.examples]
        canvas = laid_out_canvas(rows, conditions, self.room, tokenizer)
        done = self.sampler(model.denoiser(), canvas.map(lambda x: x.to(device)), Rng(0)).cut_at_end()
        shown = []
        for example, tokens, valid in zip(self.examples, done.tokens_BL.cpu(), done.valid_BL.cpu(), strict=True):
            first = len(conditions[example.index])
            here = slice(first, first + self.room)
            text = tokenizer.decode(tokens[here][valid[here]].tolist())
            shown.append(f"{example.source} → {text} ({example.references[0]})")
        return shown


@dataclass(frozen=True)
class TextPreview:
    """Shows unconditional samples of running text, always under the same draws, a line each."""

    sampler: Sampler
    tokenizer: Any
    count: int
    block: int

    @torch.no_grad()
    def __call__(self, model: TrainableModel) -> list[str]:
        size = (self.count, min(self.block, _LONGEST))
        tokens_BL = torch.full(size, self.tokenizer.mask)
        whole_BL = torch.ones(size, dtype=torch.bool)
        canvas = Canvas(tokens_BL, whole_BL, whole_BL, torch.tensor([row_id(0, i) for i in range(self.count)]))
        device = next(model.parameters()).device
        done = self.sampler(model.denoiser(), canvas.map(lambda x: x.to(device)), Rng(0))
        texts = self.tokenizer.decode_batch(done.tokens_BL.tolist())
        return [" ".join(text.split()) for text in texts]


@dataclass(frozen=True)
class FormPreview:
    """Shows `question → answer` for each example, always under the same draws."""

    sampler: Sampler
    tokenizer: Any
    corpus: FormCorpus
    examples: Sequence[Example]
    block: int

    @torch.no_grad()
    def __call__(self, model: TrainableModel) -> list[str]:
        device = next(model.parameters()).device
        forms = tokenise_forms([self.corpus.form(e) for e in self.examples], self.tokenizer, self.block)
        rows = [row_id(e.index, 0) for e in self.examples]
        canvas = form_canvas(forms, range(len(rows)), rows, self.tokenizer.mask)
        done = self.sampler(model.denoiser(), canvas.map(lambda x: x.to(device)), Rng(0))
        texts = self.tokenizer.decode_batch(done.tokens_BL.tolist())
        answers = [self.corpus.answer(e, text) for e, text in zip(self.examples, texts, strict=True)]
        return [
            " ".join(f"{example.source} → {answer}".split())
            for example, answer in zip(self.examples, answers, strict=True)
        ]
