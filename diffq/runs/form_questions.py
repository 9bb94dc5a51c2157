"""Forms as questions: what is given of them stands on the canvas, and their free places are filled in.

Knows no sampler's algorithm, and nothing of what is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from diffq.config import Config
from diffq.data.canvases import Batch, Row, plan_batches
from diffq.data.forms import FormCorpus, TokenisedForms, form_canvas, tokenise_forms
from diffq.data.task import Example
from diffq.diffusion.contracts import Canvas
from diffq.runs.questions import Written


@dataclass(frozen=True)
class FormQuestions:
    """Forms of `block` places, a token each."""

    examples: Sequence[Example]
    corpus: FormCorpus
    tokenizer: Any
    block: int
    device: torch.device
    checkpoint: str | None = None  # whose tokenizer it is

    @cached_property
    def forms(self) -> TokenisedForms:
        """The forms, in the order of the examples; anything may stand at their free places."""
        made = [self.corpus.form(example) for example in self.examples]
        return tokenise_forms(made, self.tokenizer, self.block, self.checkpoint)

    @cached_property
    def _place(self) -> Mapping[int, int]:
        return {example.index: place for place, example in enumerate(self.examples)}

    @cached_property
    def source_ids(self) -> Mapping[int, list[int]]:
        """What is given of each form, by the question's index."""
        forms = self.forms
        return {i: forms.ids[place][~forms.free[place]].tolist() for i, place in self._place.items()}

    @property
    def target_lengths(self) -> list[int]:
        return [self.block] * len(self.examples)

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        indices = [e.index for e in self.examples]
        lengths = [[self.block] * len(indices)] * config.num_samples
        return plan_batches(lengths, [0] * len(indices), batch_tokens, indices)

    def canvas(self, batch: Batch) -> Canvas:
        rows = (*batch.rows, *batch.beyond)
        places = [self._place[row.source] for row in rows]
        made = form_canvas(self.forms, places, [row.id for row in rows], self.tokenizer.mask)
        return made.map(lambda x: x.to(self.device))

    def row(self, row: Row) -> dict[str, Any]:
        return {"prompt_ids": self.source_ids[row.source]}

    def written(self, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]:
        """The whole form's ids, and of its text what answers the question."""
        texts = self.tokenizer.decode_batch(ids)
        asked = [self.examples[self._place[row.source]] for row in rows]
        return [Written(i, self.corpus.answer(e, text), True) for e, i, text in zip(asked, ids, texts, strict=True)]

    def length_name(self, config: Config) -> str:
        return f"block_{self.block}"
