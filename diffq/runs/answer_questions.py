"""Problems with a prompt, as questions: the prompt stands on the canvas, and behind it the free places of an answer.

Knows no sampler's algorithm, and nothing of what is right.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from diffq.config import Config
from diffq.data.answers import AnswerCorpus, Problem
from diffq.data.canvases import Batch, Row, answer_canvas, plan_batches
from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.runs.questions import Written


def prompt_ids(tokenizer: Any, text: str, chat: bool = False) -> list[int]:
    """The tokens of a prompt: its own, or those of the tokenizer's chat template around it, up to where the model's
    answer begins."""
    if chat:
        return list(tokenizer.encode_chat([{"role": "user", "content": text}]))
    return list(tokenizer.encode_target(text))


def chats(tokenizer: Any, chat: str) -> bool:
    """Whether prompts go through the tokenizer's chat template: `dataset.chat`. UserError where it has none and is to
    have one."""
    has = tokenizer.chat is not None
    if chat == "on" and not has:
        raise UserError("dataset.chat=on, and this checkpoint's tokenizer has no chat template; use chat=auto or off")
    return has and chat != "off"


@dataclass(frozen=True)
class AnswerQuestions:
    """Problems whose answers have at most `dataset.answer` tokens."""

    examples: Sequence[Problem]
    corpus: AnswerCorpus
    tokenizer: Any
    max_length: int  # of the model
    device: torch.device

    @cached_property
    def chat(self) -> bool:
        return chats(self.tokenizer, self.corpus.settings.chat)

    @property
    def room(self) -> int:
        """Tokens that an answer may have."""
        return int(self.corpus.settings.answer)

    @cached_property
    def source_ids(self) -> Mapping[int, list[int]]:
        """The tokens of each prompt, by the problem's index. UserError for one that leaves no room for an answer."""
        found = {}
        for problem in self.examples:
            ids = prompt_ids(self.tokenizer, self.corpus.prompt(problem, self.chat), self.chat)
            if len(ids) + self.room > self.max_length:
                raise UserError(
                    f"the prompt of problem {problem.name or problem.index} has {len(ids)} tokens, and with"
                    f" dataset.answer={self.room} that is more than the model's max_length={self.max_length}; take a"
                    " model with more room (checkpoint=FOLDER or model=llada_8b), ask for shorter answers or fewer"
                    f" dataset.shots, or leave it out: dataset.leave_out=[{problem.name}]"
                )
            found[problem.index] = ids
        return found

    @cached_property
    def prompts_digest(self) -> str:
        """Of all prompts: worked examples are not among the sources that a point's key knows."""
        made = hashlib.sha256()
        for index, ids in self.source_ids.items():
            made.update(f"{index} {ids}\n".encode())
        return made.hexdigest()

    @property
    def target_lengths(self) -> list[int]:
        """Tokens that each answer may have."""
        return [self.room] * len(self.examples)

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        lengths = [len(self.source_ids[e.index]) + self.room for e in self.examples]
        indices = [e.index for e in self.examples]
        return plan_batches([lengths] * config.num_samples, [0] * len(indices), batch_tokens, indices)

    def canvas(self, batch: Batch) -> Canvas:
        made, others = self.tokenizer, self.tokenizer.ends[1:]
        return answer_canvas(batch.rows, self.source_ids, made.pad, made.mask, made.end, self.device, others)

    def row(self, row: Row) -> dict[str, Any]:
        return {"prompt_ids": self.source_ids[row.source]}

    def written(self, rows: Sequence[Row], ids: Sequence[list[int]], full: bool) -> list[Written]:
        """The answers alone: `ids` up to the end token, the text up to what else ends an answer."""
        own = [self._ended(i[len(self.source_ids[row.source]) :]) for row, i in zip(rows, ids, strict=True)]
        found = []
        for answer, text in zip(own, self.tokenizer.decode_batch(own), strict=True):
            cut = self.corpus.cut(text, self.chat)
            found.append(Written(answer, cut, len(answer) < self.room or len(cut) < len(text)))
        return found

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """The ids before the first that ends an answer; chat models have several such."""
        ends = set(self.tokenizer.ends)
        return list(itertools.takewhile(lambda i: i not in ends, ids))

    def length_name(self, config: Config) -> str:
        return f"answer_{self.room}"
