"""Self-BLEU: how much the samples of a source repeat one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting


@METRICS.register("self_bleu")
@dataclass(frozen=True, kw_only=True)
class SelfBleu(Metric):
    """BLEU of each sample against all other samples of its source, averaged over sources, 0 … 100 (the evaluation code
    of Buzzard 2025; Zhu et al. 2018). Lower is more diverse; equal samples of ≥ 4 words score 100.

    pool=source: one sacrebleu corpus_bleu a source, its s samples being the segments; pool=sample: one a sample, then
    their mean. Undefined for one sample a source.
    """

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    order: int = setting(4, "longest n-gram", low=1, high=9)
    tokenizer: ngrams.Tokenizer = setting("13a", "13a (mteval, as sacrebleu) | split (white space)")
    pool: Literal["source", "sample"] = setting("source", "source | sample: over what n-gram counts are summed")

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",) if self.tokenizer == "13a" else ()

    def needs(self) -> frozenset[str]:
        return frozenset({"many"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {
            "refs": "others",
            "n": self.order,
            "case": "mixed",
            "tok": self.tokenizer,
            "smooth": "exp",
            "eff": False,
            "pool": self.pool,
            "agg": "mean",
        }

    def __call__(self, answers: Answers) -> Score:
        rows = np.array([self._statistics(texts) for texts in answers.candidates])
        if self.pool == "source":
            return scored(self, answers, ngrams.bleu(rows.sum(axis=1)))
        return scored(self, answers, ngrams.bleu(rows).mean(axis=1))

    def _statistics(self, texts: Sequence[str]) -> list[list[int]]:
        """BLEU's statistics of every text against the others. The largest count among the others is the largest of
        all or, where that is the text's own, the second largest: each text's n-grams are counted once."""
        samples = [ngrams.grams(ngrams.words(text, self.tokenizer), self.order) for text in texts]
        first: dict[tuple[str, ...], int] = {}
        second: dict[tuple[str, ...], int] = {}
        for sample in samples:
            for gram, count in sample.counts.items():
                top = first.get(gram, 0)
                if count > top:
                    first[gram], second[gram] = count, top
                elif count > second.get(gram, 0):
                    second[gram] = count
        rows = []
        for i, sample in enumerate(samples):
            matches = [0] * self.order
            for gram, count in sample.counts.items():
                limit = first[gram]
                if count == limit:  # its own, or shared: then the second is as large
                    limit = second.get(gram, 0)
                matches[len(gram) - 1] += count if count < limit else limit
            nearest = ngrams.closest(sample.length, [other.length for j, other in enumerate(samples) if j != i])
            rows.append([sample.length, nearest, *matches, *ngrams.totals(sample.length, self.order)])
        return rows
