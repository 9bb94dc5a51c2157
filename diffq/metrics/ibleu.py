"""iBLEU: BLEU to the reference, less BLEU to the source."""

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


@aggregate("corpus_ibleu")
def _corpus_ibleu(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    alpha, half = float(fields["alpha"]), sums.shape[-1] // 2
    return alpha * ngrams.bleu(sums[..., :half]) - (1 - alpha) * ngrams.bleu(sums[..., half:])


@METRICS.register("ibleu")
@dataclass(frozen=True, kw_only=True)
class IBleu(Metric):
    """alpha · BLEU(sample, references) − (1 − alpha) · BLEU(sample, source), Sun & Zhou 2012 (ACL, "Joint Learning of a
    Dual SMT System for Paraphrase Generation"); between −100·(1 − alpha) and 100·alpha.

    level=corpus: both terms are corpus BLEU over all samples; level=sentence: the mean over samples of the same
    difference of sentence BLEUs (sacrebleu's sentence_bleu).
    """

    direction: ClassVar[Direction] = "higher"

    alpha: float = setting(0.9, "weight of the references; the rest is the source's", low=0, high=1)
    level: Literal["corpus", "sentence"] = setting("corpus", "corpus | sentence: where the two BLEUs are taken")
    order: int = setting(4, "longest n-gram", low=1, high=9)
    tokenizer: ngrams.Tokenizer = setting("13a", "13a (mteval, as sacrebleu) | split (white space)")

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",) if self.tokenizer == "13a" else ()

    def needs(self) -> frozenset[str]:
        return frozenset({"references", "source"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {
            "alpha": repr(self.alpha),
            "refs": reference_count(answers),
            "n": self.order,
            "case": "mixed",
            "tok": self.tokenizer,
            "smooth": "exp",
            "eff": self.level == "sentence",
            "agg": "corpus_ibleu" if self.level == "corpus" else "mean",
        }

    def __call__(self, answers: Answers) -> Score:
        to_reference = ngrams.statistics(answers.candidates, answers.references, self.tokenizer, self.order)
        sources = [(text,) for text in answers.sources]
        to_source = ngrams.statistics(answers.candidates, sources, self.tokenizer, self.order)
        if self.level == "corpus":
            return scored(self, answers, np.concatenate([to_reference, to_source], axis=-1).sum(axis=1))
        gain, copied = ngrams.bleu(to_reference, effective=True), ngrams.bleu(to_source, effective=True)
        return scored(self, answers, (self.alpha * gain - (1 - self.alpha) * copied).mean(axis=1))
