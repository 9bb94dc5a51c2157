"""How much of a sample is new within itself: the entropy of its own unigrams, repeated n-grams, and loops.

What a perplexity is to be read beside: a sampler that repeats itself has a low one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import scored
from diffq.metrics.ngrams import distinct_share, ngrams
from diffq.registry import METRICS
from diffq.settings import setting


def _tokens(answers: Answers) -> list[list[Sequence[Hashable]]]:
    """The tokens of every sample of every source, what was given left out."""
    assert answers.ids is not None
    given = {i for a, b in answers.given_spans for i in range(a, b)}
    return [[[t for i, t in enumerate(ids) if i not in given] for ids in group] for group in answers.ids]


def unigram_entropy(tokens: Sequence[Hashable]) -> float:
    """Entropy of the shares of the different tokens, nats; 0 for none."""
    counts = np.array(list(Counter(tokens).values()), dtype=np.float64)
    shares = counts / counts.sum() if len(counts) else np.ones(1)
    return float(-(shares * np.log(shares)).sum())


@METRICS.register("unigram_entropy")
@dataclass(frozen=True, kw_only=True)
class UnigramEntropy(Metric):
    """The entropy of a sample's own tokens, averaged over samples, in nats: at most the logarithm of its length."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def needs(self) -> frozenset[str]:
        return frozenset({"ids"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"tok": "own", "unit": "nats", "over": "sample", "agg": "mean"}

    def __call__(self, answers: Answers) -> Score:
        rows = [np.mean([unigram_entropy(tokens) for tokens in group]) for group in _tokens(answers)]
        return scored(self, answers, np.array(rows))


@METRICS.register("repetition")
@dataclass(frozen=True, kw_only=True)
class Repetition(Metric):
    """The share of a sample's n-grams that occurred in it before, averaged over samples, 0 … 100 (seq-rep-n of Welleck
    et al. 2020). A sample with fewer than n tokens counts 0."""

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"

    n: int = setting(4, "length of the n-grams", low=1, high=9)

    @property
    def name(self) -> str:
        return f"repetition_{self.n}"

    def needs(self) -> frozenset[str]:
        return frozenset({"ids"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"n": self.n, "tok": "own", "over": "sample", "agg": "mean"}

    def _share(self, tokens: Sequence[Hashable]) -> float:
        grams = ngrams(tokens, self.n)
        return 100 - distinct_share(grams) if grams else 0.0

    def __call__(self, answers: Answers) -> Score:
        rows = [np.mean([self._share(tokens) for tokens in group]) for group in _tokens(answers)]
        return scored(self, answers, np.array(rows))


@METRICS.register("loops")
@dataclass(frozen=True, kw_only=True)
class Loops(Metric):
    """The share of samples that end in a loop, 0 … 100: the last `times` · p tokens are one phrase of p ≤ `longest`
    tokens again and again."""

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"

    longest: int = setting(16, "longest phrase, in tokens", low=1)
    times: int = setting(3, "how often it must stand there", low=2)

    def needs(self) -> frozenset[str]:
        return frozenset({"ids"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"longest": self.longest, "times": self.times, "tok": "own", "over": "sample", "agg": "mean"}

    def _loops(self, tokens: Sequence[Hashable]) -> bool:
        for period in range(1, min(self.longest, len(tokens) // self.times) + 1):
            tail = tokens[len(tokens) - period * self.times :]
            if all(a == b for a, b in zip(tail, tail[period:], strict=False)):
                return True
        return False

    def __call__(self, answers: Answers) -> Score:
        rows = [100 * np.mean([self._loops(tokens) for tokens in group]) for group in _tokens(answers)]
        return scored(self, answers, np.array(rows))
