"""The mean of smoothed sentence BLEUs that DiffuSeq and its successors report. It is not sacrebleu's BLEU, and the two
are not to be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score, reference_count
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting

_K = 5  # the constant of Chen & Cherry's smoothing 4, as NLTK sets it


def method4(statistics: Sequence[int]) -> float:
    """Sentence BLEU, 0 … 1, of one segment's statistics: NLTK 3.9's `sentence_bleu` with uniform weights and
    `SmoothingFunction().method4` (Chen & Cherry 2014, smoothing 4)."""
    order = (len(statistics) - 2) // 2
    length, reference = statistics[:2]
    matches, total = statistics[2 : 2 + order], statistics[2 + order :]
    if length == 0 or matches[0] == 0:
        return 0.0
    logs, missed = [], 0
    for found, of in zip(matches, total, strict=True):
        numerator = float(found)
        if found == 0 and length > 1:
            missed += 1
            numerator = 1 / (2**missed * _K / math.log(length))
        if numerator > 0:
            logs.append(math.log(numerator / max(of, 1)) / order)
    brevity = 1.0 if length > reference else math.exp(1 - reference / length)
    return brevity * math.exp(math.fsum(logs))


@METRICS.register("sentence_bleu")
@dataclass(frozen=True, kw_only=True)
class SentenceBleu(Metric):
    """The mean over all samples of NLTK's sentence BLEU with smoothing method4, split at white space, 0 … 100
    (DiffuSeq, arXiv 2210.08933, prints it as 0 … 1). An empty sample scores 0."""

    direction: ClassVar[Direction] = "higher"

    order: int = setting(4, "longest n-gram; all orders up to it weigh the same", low=1, high=4)

    @property
    def name(self) -> str:
        return "sentence_bleu" if self.order == 4 else f"sentence_bleu_{self.order}"

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {
            "refs": reference_count(answers),
            "n": self.order,
            "tok": "split",
            "smooth": "nltk-method4",
            "agg": "mean",
        }

    def __call__(self, answers: Answers) -> Score:
        rows = ngrams.statistics(answers.candidates, answers.references, "split", self.order)
        means = [math.fsum(100 * method4(row) for row in source) / len(source) for source in rows.tolist()]
        return scored(self, answers, np.array(means))
