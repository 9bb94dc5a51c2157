"""Minimum Bayes risk selection: the BLEU of the candidate that agrees best with its fellows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffq.errors import UserError
from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score, reference_count
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting


@METRICS.register("mbr_bleu")
@dataclass(frozen=True, kw_only=True)
class MbrBleu(Metric):
    """BLEU-4, 0 … 100, of one chosen sample a source: of the first n the one that maximises Σ_j u(sample_i, sample_j)
    with u = sacrebleu's sentence_bleu, sample j as the reference (Buzzard 2025, evaluation code); ties go to the first.
    Its size is in its name: figures of different n are different metrics."""

    direction: ClassVar[Direction] = "higher"

    n: int = setting(10, "how many samples a source are candidates", low=2)

    @property
    def name(self) -> str:
        return f"mbr_bleu_{self.n}"

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",)

    def needs(self) -> frozenset[str]:
        return frozenset({"references", "many"})

    def least_samples(self) -> int:
        return self.n

    def samples_used(self, answers: Answers) -> int:
        return self.n

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {
            "mbr": self.n,
            "utility": "sentence_bleu",
            "refs": reference_count(answers),
            "n": 4,
            "case": "mixed",
            "tok": "13a",
            "smooth": "exp",
            "eff": False,
            "agg": "corpus_bleu",
        }

    def __call__(self, answers: Answers) -> Score:
        if answers.samples < self.n:
            raise UserError(
                f"{self.name} chooses among {self.n} samples a source and there are {answers.samples};"
                f" sample with num_samples={self.n} or choose a smaller n"
            )
        chosen = [(texts[choose(texts[: self.n])],) for texts in answers.candidates]
        return scored(self, answers, ngrams.statistics(chosen, answers.references, "13a", 4).sum(axis=1))


def choose(texts: Sequence[str]) -> int:
    """The index of the text with the largest summed sentence BLEU to all texts (itself among them)."""
    kinds = list(dict.fromkeys(texts))
    times = np.array([sum(text == kind for text in texts) for kind in kinds])
    samples = [ngrams.grams(ngrams.words(kind, "13a"), 4) for kind in kinds]
    rows = [[ngrams.segment(one, other.counts, [other.length], 4) for other in samples] for one in samples]
    utility = ngrams.bleu(np.array(rows), effective=True) @ times
    best = np.flatnonzero(utility >= utility.max() - 1e-9)[0]  # the order of summation must not break a tie
    return texts.index(kinds[int(best)])
