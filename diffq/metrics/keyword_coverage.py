"""Whether the words that were asked for are there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import aggregate, scored
from diffq.registry import METRICS
from diffq.settings import setting


@aggregate("share")
def _share(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    """100 · found / asked; 0 where nothing was asked in a resample."""
    return 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)


def holds(text: str, word: str) -> bool:
    """Whether a word stands in a text, not as a part of another; capitals do not count."""
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def _found(texts: Sequence[str], words: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Of the words asked of each text: how many it holds, and how many there are."""
    pairs = [(text, word) for text, own in zip(texts, words, strict=True) for word in own]
    return sum(holds(text, word) for text, word in pairs), len(pairs)


@METRICS.register("keyword_coverage")
@dataclass(frozen=True, kw_only=True)
class KeywordCoverage(Metric):
    """The share of the keywords asked for (`dataset.keywords`) that the answer holds as whole words, 0 … 100.

    of=next is its null: the words that were asked of the next source, which this answer holds by chance alone.
    """

    direction: ClassVar[Direction] = "higher"

    of: Literal["own", "next"] = setting(
        "own", "own | next: whose keywords are looked for, the answer's or its neighbour's"
    )

    @property
    def name(self) -> str:
        return "keyword_coverage" if self.of == "own" else "keyword_coverage_null"

    @property
    def is_null(self) -> bool:
        return self.of == "next"

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"of": self.of, "case": "fold", "agg": "share"}

    def needs(self) -> frozenset[str]:
        return frozenset({"keywords", "other_keywords"} if self.is_null else {"keywords"})

    def __call__(self, answers: Answers) -> Score:
        asked = answers.keywords
        if asked is None or not any(words for group in asked for words in group):
            raise UserError(f"{self.name} needs answers that keywords were asked of; none of these was asked for one")
        if self.of == "next":
            asked = (*asked[1:], asked[0])
        rows = [_found(texts, words) for texts, words in zip(answers.candidates, asked, strict=True)]
        return scored(self, answers, np.array(rows))
