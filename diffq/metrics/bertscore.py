"""BERTScore by our own hand, on any Hugging Face encoder: the package of that name fails on empty candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score, reference_count
from diffq.metrics.encoders import fingerprint, token_states
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting


@METRICS.register("bertscore")
@dataclass(frozen=True, kw_only=True)
class BertScore(Metric):
    """The mean BERTScore F1 over all samples, times 100 (Zhang et al. 2020, equations 1–3): greedy matching of token
    states by cosine, no idf weights, no baseline rescaling; at most 100.

    As in the authors' package, the tokenizer's own marks can be matched but carry no weight. An empty sample or
    reference scores 0; of several references the best counts.
    """

    direction: ClassVar[Direction] = "higher"

    encoder: str | None = setting(None, "folder or hub name of a Hugging Face encoder")
    layer: int | None = setting(None, "the layer whose states are compared, 0 = embeddings, null = last", low=0)

    def packages(self) -> tuple[str, ...]:
        return ("torch", "transformers")

    def unavailable(self) -> str | None:
        if self.encoder is None:
            return "bertscore needs an encoder; set its `encoder` to the folder or hub name of a Hugging Face encoder"
        return super().unavailable()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {
            "model": PurePath(self.encoder or "none").name,
            "weights": fingerprint(self.encoder or ""),
            "layer": "last" if self.layer is None else self.layer,
            "refs": reference_count(answers),
            "idf": False,
            "rescale": False,
            "of": "f1",
            "agg": "mean",
        }

    def __call__(self, answers: Answers) -> Score:
        if self.encoder is None:
            raise UserError(str(self.unavailable()))
        texts = {t.strip() for group in (*answers.candidates, *answers.references) for t in group} - {""}
        ordered = sorted(texts)
        states = dict(zip(ordered, token_states(self.encoder, self.layer, ordered), strict=True))
        rows = [
            np.mean([max(_f1(states, text, reference) for reference in references) for text in samples])
            for samples, references in zip(answers.candidates, answers.references, strict=True)
        ]
        return scored(self, answers, 100 * np.array(rows))


def _f1(states: Mapping[str, tuple[np.ndarray, np.ndarray]], candidate: str, reference: str) -> float:
    """F1 of two texts; 0 where either has no words."""
    candidate, reference = candidate.strip(), reference.strip()
    if not candidate or not reference:
        return 0.0
    (one, own), (other, its) = states[candidate], states[reference]
    if not own.any() or not its.any():
        return 0.0
    similarity = one @ other.T
    precision = float(similarity.max(axis=1)[own].mean())
    recall = float(similarity.max(axis=0)[its].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
