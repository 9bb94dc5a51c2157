"""Figures by what is given of a running text: how quality goes with the length of a prompt, and with infilling.

Points of different prompts answer different questions, so they stand on no common front; here they stand side by side.
Knows no store and no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffq.report.given import Given
from diffq.report.points import ReportPoint, long_dials, varying_dials
from diffq.report.tables import ReportTable, show_figure
from diffq.store.identity import show_value


def prompt_tables(points: Sequence[ReportPoint], metrics: Sequence[str]) -> list[ReportTable]:
    """A table a metric: a row for each way of sampling, a column for each thing given, each figure with its interval.

    points: those of one sweep, seeds pooled. Empty where the same is given to all, or where nothing is text.
    """
    found = [point for point in points if point.given is not None]
    columns = sorted({point.given for point in found if point.given is not None}, key=lambda given: given.order)
    if len(columns) < 2:
        return []
    rows: dict[str, dict[Given | None, ReportPoint]] = {}
    for point, label in zip(found, _labels(found), strict=True):
        rows.setdefault(label, {})[point.given] = point
    note = "Columns: tokens given, and of how many. Each has sources of its own, so compare down a column."
    tables = []
    for metric in metrics:
        if not any(metric in point.figures for point in found):
            continue
        cells = [
            [label, *(show_figure(held[given], metric) if given in held else "–" for given in columns)]
            for label, held in rows.items()
        ]
        data = tuple(_entry(label, point, metric) for label, held in rows.items() for point in held.values())
        heads = [f"{metric}, given", *map(str, columns)]
        tables.append(ReportTable(f"{metric} by what is given of the text", heads, cells, (note,), data))
    return tables


def _labels(points: Sequence[ReportPoint]) -> list[str]:
    """`analytic steps 16`: of each point the sampler, the dials in which that sampler's points differ, and whatever
    else tells two points of it apart."""
    about = [
        {
            "": p.model,
            "checkpoint ": p.checkpoint[:6],
            "seed ": ", ".join(map(str, p.seeds)),
            "s ": p.samples,
            "n ": p.sources,
        }
        for p in points
    ]
    labels = []
    for at, point in enumerate(points):
        like = [other for other, p in enumerate(points) if p.sampler == point.sampler]
        dials = long_dials(point, varying_dials([points[other] for other in like]))
        more = [
            f"{name}{value}"
            for name, value in about[at].items()
            if len({show_value(about[other][name]) for other in like}) > 1
        ]
        labels.append(" · ".join([f"{point.sampler} {dials}".rstrip(), *more]))
    return labels


def _entry(label: str, point: ReportPoint, metric: str) -> dict[str, Any]:
    figure = point.figures.get(metric)
    return {
        "row": label,
        "given": vars(point.given),
        "key": point.key,
        "metric": metric,
        "value": None if figure is None else figure.value,
        "low": None if figure is None else figure.low,
        "high": None if figure is None else figure.high,
    }
