"""Several seeds as one point: the mean over seeds, its interval, and how far the seeds lie apart.

The draws of every row are keyed by its seed and its source, so seeds are independent given the sources, and a source's
noise is independent of another source's. Resampling sources of the mean over seeds therefore holds both what differs
between sources and what differs between draws; the spread between seeds is shown beside it and is no third part.
Points of other checkpoints are other models: they are never pooled, and stand on lines of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diffq.report.points import Figure, ReportPoint
from diffq.resamples import interval
from diffq.store.identity import digest


def pool_seeds(points: Sequence[ReportPoint]) -> list[ReportPoint]:
    """The points, those that differ in the seed alone made one, in the place of the first of them.

    A figure that some of them lack, or have under another signature, is left out.
    """
    groups: dict[str, list[ReportPoint]] = {}
    for point in points:
        groups.setdefault(_without_seed(point), []).append(point)
    return [_pooled(list({p.seed: p for p in members}.values())) for members in groups.values()]


def _without_seed(point: ReportPoint) -> str:
    """Equal for points that differ in the seed alone."""
    parts: list[Any] = [
        point.kind, point.sampler, point.canonical, point.dataset, point.model, point.checkpoint, point.length,
        point.samples, point.sources_digest, dict(point.dials), dict(point.asked),
    ]  # fmt: skip
    return digest(parts if point.kind == "point" else [*parts, point.key])


def _pooled(members: Sequence[ReportPoint]) -> ReportPoint:
    if len(members) == 1:
        return members[0]
    first = members[0]
    figures = {}
    for name, figure in first.figures.items():
        own = [m.figures[name] for m in members if name in m.figures]
        if len(own) == len(members) and len({f.signature for f in own}) == 1:
            figures[name] = _mean(figure, own)
    costs = {name: float(np.mean([m.costs.get(name, np.nan) for m in members])) for name in first.costs}
    said = {name: [m.records[name] for m in members if name in m.records] for name in first.records}
    return replace(
        first,
        key=digest(sorted(m.key for m in members)),
        figures=figures,
        costs=costs,
        records={name: float(np.mean(values)) for name, values in said.items()},
        parts=tuple(sorted(members, key=lambda m: m.seed)),
    )


def _mean(first: Figure, own: Sequence[Figure]) -> Figure:
    """The mean of one figure over seeds, with the interval of its resamples; without resamples, with the mean of the
    seeds' own intervals, which is too wide: it takes their noise for one and the same."""
    values = np.array([f.value for f in own])
    drawn = [f.draws for f in own if f.draws is not None]
    low = high = None
    draws = None
    if len(drawn) == len(own):
        draws = np.mean(drawn, axis=0)
        low, high = interval(draws)
    elif all(f.low is not None and f.high is not None for f in own):
        low, high = (float(np.mean([getattr(f, end) for f in own])) for end in ("low", "high"))
    split = [f.halves for f in own if f.halves is not None]
    return replace(
        first,
        value=float(values.mean()),
        low=low,
        high=high,
        draws=draws,
        halves=np.mean(split, axis=0) if len(split) == len(own) else None,
        between=float(values.std(ddof=1)),
    )
