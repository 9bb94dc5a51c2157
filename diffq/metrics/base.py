"""What metrics read and give: Answers in, Score out.

A metric reads saved texts and never a model in memory. It knows nothing of samplers, stores or plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from diffq.settings import Settings

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Answers:
    """The samples of one point, by source, beside what they are judged by.

    candidates[i] are the s texts sampled for sources[i]; every source has equally many.
    truth[i] maps every right answer to its probability, where the task knows them.
    cost holds the point's own figures: nfe_calls, nfe_rows, seconds, tokens (answers only), peak_memory_bytes.
    """

    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    candidates: tuple[tuple[str, ...], ...]
    truth: tuple[Mapping[str, float], ...] | None = None
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """s, the samples a source."""
        return len(self.candidates[0]) if self.candidates else 0


@dataclass(frozen=True)
class Score:
    """One figure with its interval.

    signature   says everything the value depends on but the texts, in sacrebleu's manner
    low, high   a 95 % interval, by bootstrap over sources where there is one (else None)
    n           how many sources the value is over
    per_source  one statistic row a source (n × k), where the value is a function of their sum; None elsewhere
    """

    name: str
    value: float
    signature: str
    direction: Direction
    n: int
    low: float | None = None
    high: float | None = None
    per_source: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Metric(Settings):
    """Registered subclasses declare their options as fields and implement `needs` and `__call__`."""

    direction: ClassVar[Direction] = "none"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"

    def signature(self, answers: Answers) -> str:
        raise NotImplementedError

    def needs(self) -> frozenset[str]:
        """What a task must give: any of 'references', 'truth', 'source', 'many' (≥ 2 samples a source), 'cost'."""
        return frozenset({"references"})

    def __call__(self, answers: Answers) -> Score:
        raise NotImplementedError
