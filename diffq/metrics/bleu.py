"""Corpus BLEU of the samples, against the references or against the source. It does not smooth sentences: see
sentence_bleu.py for the NLTK variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score, reference_count
from diffq.metrics.intervals import aggregate, scored
from diffq.registry import METRICS
from diffq.settings import setting


@aggregate("corpus_bleu")
def _corpus_bleu(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return ngrams.bleu(sums, effective=fields["eff"] == "yes")


@dataclass(frozen=True, kw_only=True)
class _CorpusBleu(Metric):
    order: int = setting(4, "longest n-gram", low=1, high=9)
    tokenizer: ngrams.Tokenizer = setting("13a", "13a (mteval, as sacrebleu) | split (white space)")
    effective_order: bool = setting(False, "leave out orders of which the corpus has no n-gram, instead of scoring 0")

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",) if self.tokenizer == "13a" else ()

    def _parts(self) -> dict[str, Any]:
        return {
            "n": self.order,
            "case": "mixed",
            "tok": self.tokenizer,
            "smooth": "exp",
            "eff": self.effective_order,
            "agg": "corpus_bleu",
        }


@METRICS.register("bleu")
@dataclass(frozen=True, kw_only=True)
class Bleu(_CorpusBleu):
    """BLEU-4 against the references, 0 … 100: sacrebleu's corpus_bleu in which every sample of every source is a
    segment. An empty sample counts as a segment of length 0."""

    direction: ClassVar[Direction] = "higher"

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"refs": reference_count(answers)} | self._parts()

    def __call__(self, answers: Answers) -> Score:
        rows = ngrams.statistics(answers.candidates, answers.references, self.tokenizer, self.order)
        return scored(self, answers, rows.sum(axis=1))


@METRICS.register("source_bleu")
@dataclass(frozen=True, kw_only=True)
class SourceBleu(_CorpusBleu):
    """BLEU-4 against the source, 0 … 100: how much was copied. 100 is a verbatim copy."""

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def needs(self) -> frozenset[str]:
        return frozenset({"source"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"refs": "source"} | self._parts()

    def __call__(self, answers: Answers) -> Score:
        sources = [(text,) for text in answers.sources]
        rows = ngrams.statistics(answers.candidates, sources, self.tokenizer, self.order)
        return scored(self, answers, rows.sum(axis=1))
