"""Distinct n-grams, and distinct texts: set-valued figures, taken source by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.counts import gram_counts
from diffq.metrics.intervals import scored, set_valued
from diffq.registry import METRICS
from diffq.settings import setting


@METRICS.register("distinct")
@dataclass(frozen=True, kw_only=True)
class Distinct(Metric):
    """Distinct n-grams over all n-grams, 0 … 100 (Li et al. 2016).

    over=source: the s samples of a source pooled, averaged over sources; over=sample: within each sample, averaged
    (what DiffuSeq prints as dist-1); over=corpus: all samples pooled, one figure, which falls as sources are added and
    whose interval is a jackknife over sources.
    """

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    n: int = setting(help="length of the n-grams", low=1, high=9)
    over: Literal["source", "sample", "corpus"] = setting("source", "source | sample | corpus: what is pooled")
    tokenizer: ngrams.Tokenizer = setting("13a", "13a (mteval, as sacrebleu) | split (white space)")

    @property
    def name(self) -> str:
        return f"distinct_{self.n}" + ("" if self.over == "source" else f"_{self.over}")

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",) if self.tokenizer == "13a" else ()

    def needs(self) -> frozenset[str]:
        return frozenset()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        how = "jackknife" if self.over == "corpus" else "mean"
        return {"n": self.n, "tok": self.tokenizer, "over": self.over, "agg": how}

    def __call__(self, answers: Answers) -> Score:
        if self.over == "corpus":
            return self._corpus(answers)
        sources = [
            [ngrams.ngrams(ngrams.words(text, self.tokenizer), self.n) for text in texts]
            for texts in answers.candidates
        ]
        if self.over == "sample":
            shares = [float(np.mean([ngrams.distinct_share(sample) for sample in s])) for s in sources]
        else:
            shares = [ngrams.distinct_share([g for sample in s for g in sample]) for s in sources]
        return scored(self, answers, np.array(shares))

    def _corpus(self, answers: Answers) -> Score:
        held = [text for group in answers.candidates for text in group]
        source = np.repeat(np.arange(len(answers.sources)), [len(group) for group in answers.candidates])
        *_, counts = gram_counts([ngrams.words(text, self.tokenizer) for text in held], self.n)
        counts = counts.pooled(source, len(answers.sources))
        sizes, lost = counts.sizes, counts.alone
        size, kinds = sizes.sum(), counts.kinds
        value = 100 * kinds / size if size else 0.0
        without = 100 * (kinds - lost) / np.maximum(size - sizes, 1)
        return set_valued(self, answers, float(value), without)


@METRICS.register("div")
@dataclass(frozen=True, kw_only=True)
class Div(Metric):
    """Distinct 4-grams over all 4-grams of a source's samples, split at white space, averaged over sources, 0 … 100:
    DiffuSeq's div-4 (arXiv 2210.08933), printed there as 0 … 1. A source without a 4-gram counts 0."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    n: int = setting(4, "length of the n-grams", low=1, high=9)

    @property
    def name(self) -> str:
        return f"div_{self.n}"

    def needs(self) -> frozenset[str]:
        return frozenset()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"n": self.n, "tok": "split", "over": "source", "agg": "mean"}

    def __call__(self, answers: Answers) -> Score:
        sources = [[g for text in texts for g in ngrams.ngrams(text.split(), self.n)] for texts in answers.candidates]
        return scored(self, answers, np.array([ngrams.distinct_share(grams) for grams in sources]))


@METRICS.register("unique")
@dataclass(frozen=True, kw_only=True)
class Unique(Metric):
    """Distinct texts among the s samples of a source, over s, averaged over sources: 100/s … 100. Texts that differ
    only in white space are one. Texts without a prompt are the samples of one source."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def needs(self) -> frozenset[str]:
        return frozenset()

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"over": "source", "agg": "jackknife" if answers.unprompted else "mean"}

    def __call__(self, answers: Answers) -> Score:
        if answers.unprompted:
            return self._of_all(answers)
        shares = [100 * len({" ".join(text.split()) for text in texts}) / len(texts) for texts in answers.candidates]
        return scored(self, answers, np.array(shares))

    def _of_all(self, answers: Answers) -> Score:
        texts = [" ".join(text.split()) for group in answers.candidates for text in group]
        times = Counter(texts)
        lost = np.array([times[text] == 1 for text in texts])
        without = 100 * (len(times) - lost) / max(len(texts) - 1, 1)
        return set_valued(self, answers, 100 * len(times) / len(texts), without)
