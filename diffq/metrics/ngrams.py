"""Words, n-gram counts and BLEU's sufficient statistics: what the n-gram metrics share.

The statistics of a segment are sacrebleu's: [length, reference length, matches of order 1 … N, n-grams of order 1 … N];
they add up over segments, and `bleu` is the function of the sum. Equal to sacrebleu 2.x, smoothing `exp`.
It does not know what a source or a sample is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import numpy as np

Tokenizer = Literal["13a", "split"]
Token = TypeVar("Token", bound=Hashable)


@lru_cache(maxsize=1)
def _mteval() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def words(text: str, tokenizer: Tokenizer) -> list[str]:
    """The tokens of a text: mteval-v13a as sacrebleu does it (case kept), or a split at white space."""
    return (_mteval()(text.rstrip()) if tokenizer == "13a" else text).split()


class Grams(NamedTuple):
    """A text's length in tokens and the counts of its n-grams of every order, keyed by tuples."""

    length: int
    counts: Mapping[tuple[str, ...], int]


def grams(tokens: Sequence[str], order: int) -> Grams:
    """All n-grams of order 1 … `order`."""
    counts: Counter[tuple[str, ...]] = Counter()
    for n in range(1, order + 1):
        counts.update(zip(*(tokens[i:] for i in range(n)), strict=False))
    return Grams(len(tokens), counts)


def ngrams(tokens: Sequence[Token], n: int) -> list[tuple[Token, ...]]:
    """The n-grams of one order, in order."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def distinct_share(grams: Sequence[Hashable]) -> float:
    """Distinct over all, 0 … 100; no n-grams at all give 0, as in DiffuSeq's evaluation."""
    return 100 * len(set(grams)) / len(grams) if grams else 0.0


def totals(length: int, order: int) -> list[int]:
    """How many n-grams of order 1 … `order` a text of that length has."""
    return [max(length - n, 0) for n in range(order)]


def closest(length: int, lengths: Sequence[int]) -> int:
    """The reference length nearest to a length; of two equally near the shorter."""
    return min(lengths, key=lambda other: (abs(other - length), other))


def merge(references: Sequence[Grams]) -> Mapping[tuple[str, ...], int]:
    """The largest count that each n-gram has in any reference."""
    if len(references) == 1:
        return references[0].counts
    most: dict[tuple[str, ...], int] = {}
    for reference in references:
        for gram, count in reference.counts.items():
            if count > most.get(gram, 0):
                most[gram] = count
    return most


def segment(hypothesis: Grams, most: Mapping[tuple[str, ...], int], lengths: Sequence[int], order: int) -> list[int]:
    """The statistics of one segment against references with the merged counts `most` and these lengths."""
    matches = [0] * order
    for gram, count in hypothesis.counts.items():
        limit = most.get(gram)
        if limit is not None:
            matches[len(gram) - 1] += count if count < limit else limit
    length = hypothesis.length
    return [length, closest(length, lengths), *matches, *totals(length, order)]


def statistics(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenizer: Tokenizer, order: int
) -> np.ndarray:
    """Sources × samples × (2 + 2·order) statistics of every candidate against the references of its source."""
    rows = []
    for texts, judged_by in zip(candidates, references, strict=True):
        judges = [grams(words(text, tokenizer), order) for text in judged_by]
        most, lengths = merge(judges), [judge.length for judge in judges]
        rows.append([segment(grams(words(text, tokenizer), order), most, lengths, order) for text in texts])
    return np.asarray(rows, dtype=np.int64)


def bleu(sums: np.ndarray, effective: bool = False) -> np.ndarray:
    """BLEU, 0 … 100, of summed statistics (… × (2 + 2·order)); Papineni et al. 2002 with sacrebleu's `exp` smoothing.

    The k-th order without a match counts as 2^-k matches (NIST). Without a unigram match the score is 0.
    effective=False: a corpus without a single n-gram of the highest order scores 0, even against itself, as
    sacrebleu's corpus_bleu; True leaves such orders out, as its sentence_bleu.
    """
    sums = np.asarray(sums, dtype=np.float64)
    order = (sums.shape[-1] - 2) // 2
    length, reference = sums[..., 0], sums[..., 1]
    matches, total = sums[..., 2 : 2 + order], sums[..., 2 + order :]
    there, none = total > 0, matches == 0
    halvings = np.cumsum(there & none, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(none, 0.5**halvings, matches) / np.where(there, total, 1)
        logs = np.where(there, np.log(100 * precision), 0.0)
        brevity = np.where(length < reference, np.exp(1 - reference / np.maximum(length, 1)), 1.0)
    orders = there.sum(axis=-1)
    score = brevity * np.exp(logs.sum(axis=-1) / np.maximum(orders, 1))
    scored = (matches > 0).any(axis=-1) & (length > 0)
    if not effective:
        scored &= orders == order
    return np.where(scored, score, 0.0)
