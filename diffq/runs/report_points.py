"""The points of a report as the store has them, with their figures in resamples of the sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from diffq.errors import UserError
from diffq.metrics.intervals import halves, resample
from diffq.registry import SAMPLERS
from diffq.report.given import Given, asked_of
from diffq.report.points import ReportPoint
from diffq.runs.selection import Selection
from diffq.runs.training_names import names_in
from diffq.store.index import Record, read_record


def points_of(selection: Selection) -> list[ReportPoint]:
    """The points as their records say, their trainings by the names that they have now."""
    called, made = names_in(selection.store), []
    configs = [c.point.config() for c in selection.chosen]
    data = [(config.get("dataset") or {}, (config.get("choices") or {}).get("given") or ()) for config in configs]
    for c, (dataset, _), asked in zip(selection.chosen, data, asked_of(data), strict=True):
        record = read_record(selection.store, c.point.folder)
        more = {"given": Given.of(dataset), "asked": asked, "training": called(record.run)}
        dials = {"idle": _idle(record), "own": _own(record)}
        made.append(ReportPoint.of(record, c.sampler, c.samples, **more, **dials))
    return made


def _idle(record: Record) -> frozenset[str]:
    """The dials that say nothing at a point; none where its sampler, a plugin's or an older one, is not to be had."""
    if record.sampler not in SAMPLERS:
        return frozenset()
    kind = SAMPLERS[record.sampler]
    held = {f.name: record.dials[f.name] for f in dataclasses.fields(kind) if f.name in record.dials}
    try:
        return kind(**held).idle()
    except UserError:
        return frozenset()


def _own(record: Record) -> frozenset[str]:
    """The numbers that the sampler's class declares itself, which it shares with no other; none where it is not to be
    had."""
    if record.sampler not in SAMPLERS:
        return frozenset()
    kind = SAMPLERS[record.sampler]
    numbers = {f.name for f in dataclasses.fields(kind) if type(f.default) in (int, float)}
    return frozenset(numbers & vars(kind).get("__annotations__", {}).keys())


def resampled(point: ReportPoint, statistics: Mapping[str, np.ndarray], named: set[str]) -> ReportPoint:
    """The point with the values of these figures in resamples of its sources, and over halves of them."""
    drawn, split = {}, {}
    for name in named & set(point.figures):
        signature = point.figures[name].signature
        rows = statistics.get(signature)
        if rows is not None and len(rows) > 1:
            drawn[name], split[name] = resample(rows, signature), halves(rows, signature)
    return point.with_draws(drawn, split)
