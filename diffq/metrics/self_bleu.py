"""Self-BLEU: how much the samples of a source repeat one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics import ngrams
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.counts import GramCounts, gram_counts
from diffq.metrics.intervals import scored, set_valued
from diffq.registry import METRICS
from diffq.settings import setting


@METRICS.register("self_bleu")
@dataclass(frozen=True, kw_only=True)
class SelfBleu(Metric):
    """BLEU of each sample against all other samples of its source, averaged over sources, 0 … 100 (the evaluation code
    of Buzzard 2025; Zhu et al. 2018). Lower is more diverse; equal samples of ≥ 4 words score 100.

    pool=source: one sacrebleu corpus_bleu a source, its s samples being the segments; pool=sample: one a sample, then
    their mean. Undefined for one sample a source. Texts without a prompt are the samples of one source, whatever their
    number: one figure, whose interval leaves out one text at a time.
    """

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    order: int = setting(4, "longest n-gram", low=1, high=9)
    tokenizer: ngrams.Tokenizer = setting("13a", "13a (mteval, as sacrebleu) | split (white space)")
    pool: Literal["source", "sample"] = setting("source", "source | sample: over what n-gram counts are summed")

    def packages(self) -> tuple[str, ...]:
        return ("sacrebleu",) if self.tokenizer == "13a" else ()

    def needs(self) -> frozenset[str]:
        return frozenset({"many"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {
            "refs": "others",
            "n": self.order,
            "case": "mixed",
            "tok": self.tokenizer,
            "smooth": "exp",
            "eff": False,
            "pool": self.pool,
            "agg": "jackknife" if answers.unprompted else "mean",
        }

    def __call__(self, answers: Answers) -> Score:
        if answers.unprompted:
            return self._of_all(answers)
        rows = np.array([self._statistics(texts) for texts in answers.candidates])
        if self.pool == "source":
            return scored(self, answers, ngrams.bleu(rows.sum(axis=1)))
        return scored(self, answers, ngrams.bleu(rows).mean(axis=1))

    def _of_all(self, answers: Answers) -> Score:
        """Every text against all others, and the same without each text in turn, from one count of all n-grams."""
        if self.pool == "sample":
            raise UserError(
                "pool=sample of self_bleu is for several samples a source; without prompts take pool=source"
            )
        tokens = [ngrams.words(text, self.tokenizer) for group in answers.candidates for text in group]
        length = np.array([len(row) for row in tokens])
        matches, lost = np.zeros((2, len(tokens), self.order))
        for n, counts in enumerate(gram_counts(tokens, self.order)):
            matches[:, n], lost[:, n] = _matches(counts)
        totals = np.maximum(length[:, None] - np.arange(self.order), 0)
        nearest, nearest_without = _nearest(length)
        own = np.column_stack([length, matches + lost, totals])
        every = own.sum(axis=0)
        every[1 : 1 + self.order] = matches.sum(axis=0)
        value = float(ngrams.bleu(np.insert(every, 1, nearest)))
        without = ngrams.bleu(np.insert(every - own, 1, nearest_without, axis=1))
        return set_valued(self, answers, value, without)

    def _statistics(self, texts: Sequence[str]) -> list[list[int]]:
        """BLEU's statistics of every text against the others. The largest count among the others is the largest of
        all or, where that is the text's own, the second largest: each text's n-grams are counted once."""
        samples = [ngrams.grams(ngrams.words(text, self.tokenizer), self.order) for text in texts]
        first: dict[tuple[str, ...], int] = {}
        second: dict[tuple[str, ...], int] = {}
        for sample in samples:
            for gram, count in sample.counts.items():
                top = first.get(gram, 0)
                if count > top:
                    first[gram], second[gram] = count, top
                elif count > second.get(gram, 0):
                    second[gram] = count
        rows = []
        for i, sample in enumerate(samples):
            matches = [0] * self.order
            for gram, count in sample.counts.items():
                limit = first[gram]
                if count == limit:  # its own, or shared: then the second is as large
                    limit = second.get(gram, 0)
                matches[len(gram) - 1] += count if count < limit else limit
            nearest = ngrams.closest(sample.length, [other.length for j, other in enumerate(samples) if j != i])
            rows.append([sample.length, nearest, *matches, *ngrams.totals(sample.length, self.order)])
        return rows


def _matches(counts: GramCounts) -> tuple[np.ndarray, np.ndarray]:
    """(matches of each text's n-grams against all other texts, matches that the other texts lose without it).

    Of an n-gram only the largest counts c1 ≥ c2 ≥ c3 matter. Each text is clipped by c1, its holder by c2. Without that
    holder the text with c2 is clipped by c3, and without the text with c2 so is the first: c2 − c3 less, either way.
    """
    order = np.lexsort((-counts.count_M, counts.gram_M))
    gram, text, count = counts.gram_M[order], counts.text_M[order], counts.count_M[order]
    first = np.searchsorted(gram, np.arange(counts.kinds))
    held = counts.held_by_G
    second, third = (
        np.where(held > k, count[np.minimum(first + k, len(count) - 1)], 0) if counts.kinds else held for k in (1, 2)
    )
    clipped = count.copy()
    clipped[first] = second  # count[first] is the largest, so nothing else is clipped
    matches = np.bincount(text, clipped, minlength=counts.texts)
    several = np.flatnonzero(held > 1)
    gap = (second - third)[several]
    lost = np.bincount(text[first[several]], gap, minlength=counts.texts)
    lost += np.bincount(text[first[several] + 1], gap, minlength=counts.texts)
    return matches, lost


def _nearest(length: np.ndarray) -> tuple[int, np.ndarray]:
    """The sum over texts of the nearest length among the other texts, and that sum without each text in turn."""
    lengths, place, times = np.unique(length, return_inverse=True, return_counts=True)

    def total(times: np.ndarray) -> int:
        there = lengths[times > 0]
        many = times[times > 0]
        below = np.concatenate([there[:1], there[:-1]])
        above = np.concatenate([there[1:], there[-1:]])
        below[0], above[-1] = above[0], below[-1]  # the ends have one neighbour
        nearest = np.where(there - below <= above - there, below, above)
        nearest[0], nearest[-1] = above[0], below[-1]
        return int((np.where(many > 1, there, nearest) * many).sum())

    without = [total(times - (np.arange(len(lengths)) == i)) for i in range(len(lengths))]
    return total(times), np.array(without)[place]
