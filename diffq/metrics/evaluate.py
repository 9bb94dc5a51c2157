"""Scoring: many metrics on one point's answers, and how scores are written down and read back.

What is refused is refused before the first metric runs. It does not know where files belong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffq.errors import Undefined, UserError
from diffq.metrics.base import Answers, Metric, Score
from diffq.settings import Settings, setting

_NEEDS = {
    "references": "a reference for every source",
    "truth": "a world that knows its right answers",
    "source": "sources with words in them",
    "many": "at least 2 samples a source",
    "cost": "the cost of sampling, which only a point of the store has",
    "real": "real running text to hold the samples against",
    "verdicts": "answers that can be checked",
    "keywords": "answers that keywords were asked of",
    "other_keywords": "keywords that are not the same for every source",
    "ids": "the tokens of the samples, which only a point of the store has",
}


@dataclass(frozen=True, kw_only=True)
class Suite(Settings):
    """Metrics that are asked for together, by the names of their YAML files, and the two that a frontier shows."""

    metrics: tuple[str, ...] = setting(help="names of metrics")
    x: str = setting(help="the metric on a frontier's x axis: diversity")
    y: str = setting(help="the metric on a frontier's y axis: quality")

    def check(self) -> None:
        for axis, name in (("x", self.x), ("y", self.y)):
            if name not in self.metrics:
                raise UserError(f"{axis}={name} is not among the suite's metrics; allowed: {', '.join(self.metrics)}")


def available(metric: Metric) -> str | None:
    """Why a metric cannot be computed on this machine, in one sentence, or None: a missing package, no encoder."""
    return metric.unavailable()


def refusal(metric: Metric, given: Iterable[str], samples: int, texts: int | None = None) -> str | None:
    """Why a task or a point cannot feed a metric, in one sentence, or None.

    given: what there is, in the words of `Metric.needs`; samples: the samples a source; texts: of all sources together.
    """
    there = set(given) | ({"many"} if samples >= 2 else set())
    lacking = [_NEEDS[need] for need in sorted(metric.needs()) if need not in there and need != "many"]
    if lacking:
        return f"{metric.name} needs {' and '.join(lacking)}; choose another metric"
    if samples < metric.least_samples():
        return (
            f"{metric.name} needs at least {metric.least_samples()} samples a source, not {samples}; raise num_samples"
        )
    if texts is not None and texts < metric.least_texts():
        return f"{metric.name} of {texts} texts is mostly bias; it needs {metric.least_texts()}: raise num_samples"
    return None


def usable(metrics: Sequence[Metric], given: Iterable[str], samples: int) -> tuple[list[Metric], list[str]]:
    """The metrics that can be computed, and one line for each that is left out, saying why."""
    kept, left_out = [], []
    for metric in metrics:
        reason = refusal(metric, given, samples) or available(metric)
        if reason is None:
            kept.append(metric)
        else:
            left_out.append(f"left out {metric.name}: {reason}")
    return kept, left_out


def evaluate(
    metrics: Sequence[Metric], answers: Answers, on_undefined: Callable[[Undefined], None] | None = None
) -> list[Score]:
    """One score a metric, in their order. on_undefined: is told why a metric has no value for these answers, which is
    then left out; None raises that.

    Raises UserError, before anything is computed, for answers that do not belong together, a metric that they cannot
    feed, a missing package, and two metrics with one signature.
    """
    answers.check()
    signatures: dict[str, str] = {}
    for metric in metrics:
        texts = sum(map(len, answers.candidates))
        reason = refusal(metric, answers.given(), answers.samples, texts) or available(metric)
        if reason is not None:
            raise UserError(reason)
        signature = metric.signature(answers)
        if signature in signatures:
            raise UserError(f"{metric.name} is asked for twice with the same options ({signature}); name it once")
        signatures[signature] = metric.name
    scores = []
    for metric in metrics:
        try:
            scores.append(metric(answers))
        except Undefined as error:
            if on_undefined is None:
                raise
            on_undefined(error)
    return scores


def to_json(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """The contents of metrics.json: {signature: {name, value, low, high, n, direction}}."""
    return {
        score.signature: {
            "name": score.name,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.n,
            "direction": score.direction,
        }
        for score in scores
    }


def from_json(held: Mapping[str, Mapping[str, Any]], statistics: Mapping[str, np.ndarray] | None = None) -> list[Score]:
    """The scores of a metrics.json, with the per-source statistics that were saved beside it."""
    rows = statistics or {}
    return [Score(signature=signature, per_source=rows.get(signature), **entry) for signature, entry in held.items()]
