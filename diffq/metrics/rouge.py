"""ROUGE by the package rouge-score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics.base import Answers, Direction, Metric, Score, reference_count
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting


@METRICS.register("rouge")
@dataclass(frozen=True, kw_only=True)
class Rouge(Metric):
    """The mean F1 over all samples, 0 … 100: longest common subsequence (L), words (1) or word pairs (2); Lin 2004.

    rouge-score's own words (lower case, letters and digits), no stemmer; of several references the best counts. An
    empty sample scores 0.
    """

    direction: ClassVar[Direction] = "higher"

    variant: Literal["rougeL", "rouge1", "rouge2"] = setting(
        "rougeL", "rougeL (longest common subsequence) | rouge1 (words) | rouge2 (word pairs)"
    )

    @property
    def name(self) -> str:
        return f"rouge_{self.variant[-1].lower()}"

    def packages(self) -> tuple[str, ...]:
        return ("rouge_score",)

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"refs": reference_count(answers), "stem": False, "of": "f1", "agg": "mean"}

    def __call__(self, answers: Answers) -> Score:
        from rouge_score import rouge_scorer

        kind = self.variant
        scorer = rouge_scorer.RougeScorer([kind], use_stemmer=False)
        means = []
        for texts, references in zip(answers.candidates, answers.references, strict=True):
            best = {
                text: max(scorer.score(reference, text)[kind].fmeasure for reference in references)
                for text in set(texts)
            }
            means.append(100 * float(np.mean([best[text] for text in texts])))
        return scored(self, answers, np.array(means))
