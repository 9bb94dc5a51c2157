"""How often each n-gram stands in each of many texts, as arrays: what figures over a thousand long texts are made of.

A Python dictionary of tuples takes 200 bytes an n-gram; here it is 24. It knows no metric.

Shape suffixes: M (text, n-gram) pairs that occur, G different n-grams.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class GramCounts:
    """The n-grams of one order in texts 0 … texts − 1, in the order of n-grams and then of texts.

    text_M   which text
    gram_M   which n-gram, 0 … kinds − 1
    count_M  how often it stands there
    """

    texts: int
    kinds: int
    text_M: np.ndarray
    gram_M: np.ndarray
    count_M: np.ndarray

    @cached_property
    def held_by_G(self) -> np.ndarray:
        """In how many texts an n-gram occurs."""
        return np.bincount(self.gram_M, minlength=self.kinds)

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many n-grams each text has."""
        return np.bincount(self.text_M, self.count_M, minlength=self.texts).astype(np.int64)

    @cached_property
    def alone(self) -> np.ndarray:
        """How many of its different n-grams no other text has."""
        return np.bincount(self.text_M[self.held_by_G[self.gram_M] == 1], minlength=self.texts)

    def pooled(self, group: np.ndarray, groups: int) -> GramCounts:
        """The counts of groups of texts, `group` saying to which of 0 … groups − 1 each belongs."""
        pairs = self.gram_M * groups + group[self.text_M]
        kept, place = np.unique(pairs, return_inverse=True)
        count = np.bincount(place, self.count_M, minlength=len(kept)).astype(np.int64)
        return GramCounts(groups, self.kinds, kept % groups, kept // groups, count)


def gram_counts(tokens: Sequence[Sequence[Hashable]], order: int) -> Iterator[GramCounts]:
    """The counts of order 1, 2 … `order`, one after another."""
    number: dict[Hashable, int] = {}
    sizes = np.array([len(row) for row in tokens], dtype=np.int64)
    words = np.fromiter((number.setdefault(t, len(number)) for row in tokens for t in row), np.int64, sizes.sum())
    text = np.repeat(np.arange(len(tokens)), sizes)
    gram, left = words, np.repeat(np.cumsum(sizes), sizes) - np.arange(len(words))  # tokens to the end of the text
    for n in range(1, order + 1):
        here = np.flatnonzero(left >= n)
        if n > 1:  # the n-gram at a place is the shorter one there and the word behind it
            gram = gram[: len(words)]
            joined = gram[here] * len(number) + words[here + n - 1]
            gram = gram.copy()
            gram[here] = np.unique(joined, return_inverse=True)[1]
        kinds = int(gram[here].max()) + 1 if len(here) else 0
        pairs, count = np.unique(gram[here] * len(tokens) + text[here], return_counts=True)
        yield GramCounts(len(tokens), kinds, pairs % max(len(tokens), 1), pairs // max(len(tokens), 1), count)


def cosines(counts: GramCounts, width: int = 4096) -> np.ndarray:
    """Texts × texts cosines of the count vectors; a text without an n-gram is like itself alone.

    Computed in slabs of `width` n-grams, and of those alone that several texts have.
    """
    squares = np.bincount(counts.text_M, counts.count_M.astype(np.float64) ** 2, minlength=counts.texts)
    shared = np.flatnonzero(counts.held_by_G > 1)
    column = np.full(counts.kinds, -1)
    column[shared] = np.arange(len(shared))
    place = column[counts.gram_M]
    kept = place >= 0
    place, text, weight = place[kept], counts.text_M[kept], counts.count_M[kept] / np.sqrt(squares[counts.text_M[kept]])
    found = np.zeros((counts.texts, counts.texts))
    for first in range(0, len(shared), width):
        low, high = np.searchsorted(place, [first, first + width])  # places rise, as n-grams do
        slab = np.zeros((counts.texts, min(width, len(shared) - first)))
        slab[text[low:high], place[low:high] - first] = weight[low:high]
        found += slab @ slab.T
    np.fill_diagonal(found, 1.0)
    return found
