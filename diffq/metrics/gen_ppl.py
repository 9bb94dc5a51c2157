"""Generative perplexity: how likely a causal judge finds what was sampled, in the several meanings that the field has
for it, each by name. Low values say little by themselves: a text of one repeated word has the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import aggregate, scored
from diffq.metrics.judges import Judge, judge_name, load_judge, token_losses
from diffq.registry import METRICS
from diffq.settings import setting

PUBLISHED_JUDGE = "gpt2-large"


@aggregate("ppl_token")
def _by_token(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    """exp of the mean over all tokens."""
    return np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1))


@aggregate("ppl_sample")
def _by_sample(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    """exp of the mean over sources of their samples' mean losses."""
    return np.exp(sums[..., 0] / n)


@METRICS.register("gen_ppl")
@dataclass(frozen=True, kw_only=True)
class GenPpl(Metric):
    """Perplexity of the samples under a causal judge. Lower is likelier text."""

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"

    judge: str | None = setting(None, "the judging model: a checkpoint folder, or a name on the hub such as gpt2-large")
    retokenise: bool = setting(
        False, "samples are read as text by the judge's own tokenizer; false: their own tokens, if they are the judge's"
    )
    after_end: Literal["keep", "drop"] = setting("keep", "what follows the first end-of-text token: counted, or not")
    aggregate: Literal["token", "sample", "mean_ppl"] = setting(
        "token", "exp of the mean over tokens | exp of the mean of samples' means | mean of samples' perplexities"
    )
    first_token: bool = setting(True, "the first token is predicted too, from the start token")
    scored: Literal["all", "answer"] = setting("all", "all: prompts are counted; answer: they are context alone")
    max_tokens: int | None = setting(None, "the first tokens of each sample alone", low=2)

    @property
    def name(self) -> str:
        named = judge_name(self.judge) if self.judge else PUBLISHED_JUDGE
        return "gen_ppl" if named == PUBLISHED_JUDGE else f"gen_ppl_by_{named}"

    def packages(self) -> tuple[str, ...]:
        return ("torch",)

    def needs(self) -> frozenset[str]:
        return frozenset({"ids"})

    def unavailable(self) -> str | None:
        if self.judge is None:
            return (
                f"generative perplexity needs {PUBLISHED_JUDGE} or another judge, and none is named:"
                " metric.gen_ppl.judge=FOLDER_OR_NAME"
            )
        return super().unavailable()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        judge = self._loaded()
        how = {"token": "ppl_token", "sample": "ppl_sample", "mean_ppl": "mean"}[self.aggregate]
        return {
            "judge": f"{judge.name}@{judge.digest[:6]}",
            "ids": "retokenised" if self.retokenise else "own",
            "end": self.after_end,
            "first": self.first_token,
            "over": self.scored,
            "max": self.max_tokens or "all",
            "agg": how,
        }

    def _loaded(self) -> Judge:
        if self.judge is None:
            raise UserError(self.unavailable() or "")
        return load_judge(self.judge)

    def __call__(self, answers: Answers) -> Score:
        judge = self._loaded()
        texts, skipped = self._tokens(answers, judge)
        losses = token_losses(judge, texts, self.first_token)
        rows: list[list[float]] = []
        at = 0
        for group in answers.candidates:
            part = [loss[skip:] for loss, skip in zip(losses, skipped, strict=True)][at : at + len(group)]
            at += len(group)
            rows.append(self._row(part))
        return scored(self, answers, np.array(rows))

    def _row(self, losses: Sequence[np.ndarray]) -> list[float]:
        """The statistics of one source's samples."""
        if self.aggregate == "token":
            return [float(sum(x.sum() for x in losses)), float(sum(len(x) for x in losses))]
        means = [float(x.mean()) if len(x) else 0.0 for x in losses]
        return [float(np.mean(means if self.aggregate == "sample" else np.exp(means)))]

    def _tokens(self, answers: Answers, judge: Judge) -> tuple[list[list[int]], list[int]]:
        """The tokens of every sample, and how many of its losses belong to the prompt."""
        assert answers.ids is not None
        if self.retokenise:
            texts = [text for group in answers.candidates for text in group]
            rows = [_encode(judge, text) for text in texts]
        else:
            if answers.vocabulary != judge.tokenizer.digest:
                raise UserError(
                    f"the tokens of these samples are not those of judge {judge.name};"
                    " metric.gen_ppl.retokenise=true has it read their text"
                )
            rows = [list(ids) for group in answers.ids for ids in group]
        rows = [row[: self.max_tokens] for row in rows]
        if self.after_end == "drop":
            end = judge.tokenizer.end
            rows = [row[: row.index(end) + 1] if end in row else row for row in rows]
        prompt = answers.given_spans[0][1] if answers.given_spans and answers.given_spans[0][0] == 0 else 0
        if self.scored == "answer" and (self.retokenise or len(answers.given_spans) > 1):
            raise UserError("over=answer needs the samples' own tokens and a prompt that is a prefix")
        skip = prompt - (0 if self.first_token else 1) if self.scored == "answer" else 0
        return rows, [max(skip, 0)] * len(rows)


def _encode(judge: Judge, text: str) -> list[int]:
    """The judge's tokens of a text, in which the end token's spelling is the end token."""
    name = judge.tokenizer.token(judge.tokenizer.end)
    parts = judge.tokenizer.encode_targets(text.split(name))
    row = list(parts[0])
    for part in parts[1:]:
        row += [judge.tokenizer.end, *part]
    return row
