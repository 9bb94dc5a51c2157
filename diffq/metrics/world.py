"""Exact figures of worlds in which every right answer and its probability are known.

A text is a right answer if it is among the truth's keys after white space is made single; nothing else is normalised.
A copy of the source is right only where the truth lists it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import scored
from diffq.registry import METRICS


def canonical(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def truths(answers: Answers) -> list[dict[str, float]]:
    """The right answers of each source with probabilities above 0; raises UserError where a source has none."""
    if answers.truth is None:
        raise UserError("the task does not know its right answers; this metric is for the embedded worlds")
    found = []
    for i, given in enumerate(answers.truth):
        held: dict[str, float] = {}
        for text, probability in given.items():
            if probability > 0:
                key = canonical(text)
                held[key] = held.get(key, 0.0) + probability
        if not held:
            raise UserError(f"source {i} has no right answer ({answers.sources[i]!r}); every source needs at least one")
        total = math.fsum(held.values())
        if abs(total - 1) > 1e-6:
            raise UserError(
                f"the right answers of source {i} have probabilities that sum to {total:.6g}; they must sum to 1"
            )
        found.append(held)
    return found


@dataclass(frozen=True, kw_only=True)
class WorldMetric(Metric):
    """A mean over sources of a function of one source's samples and truth."""

    def needs(self) -> frozenset[str]:
        return frozenset({"truth"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"agg": "mean"}

    @abstractmethod
    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float: ...

    def __call__(self, answers: Answers) -> Score:
        rows = [
            self.of_source([canonical(text) for text in texts], truth)
            for texts, truth in zip(answers.candidates, truths(answers), strict=True)
        ]
        return scored(self, answers, np.array(rows))


@METRICS.register("validity")
@dataclass(frozen=True, kw_only=True)
class Validity(WorldMetric):
    """The share of samples that are right answers, 0 … 100."""

    direction: ClassVar[Direction] = "higher"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        return 100 * sum(text in truth for text in samples) / len(samples)


@METRICS.register("coverage")
@dataclass(frozen=True, kw_only=True)
class Coverage(WorldMetric):
    """Distinct right answers among the s samples of a source, over the most there could be, min(s, size of the set);
    averaged over sources, 0 … 100."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        return 100 * sum(text in truth for text in set(samples)) / min(len(samples), len(truth))


@METRICS.register("mass")
@dataclass(frozen=True, kw_only=True)
class Mass(WorldMetric):
    """The probability that the truth gives to the distinct right answers among a source's samples, averaged over
    sources, 0 … 100. Even the best s answers of a large set hold little of it: compare at equal s."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        return 100 * sum(truth.get(text, 0.0) for text in set(samples))
