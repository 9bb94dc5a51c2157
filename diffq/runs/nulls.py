"""The null lines of a frontier, kept beside it: nulls.json and nulls.npz. They cost no sampling, only scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffq.metrics.base import Answers, Metric
from diffq.metrics.evaluate import evaluate, to_json, usable
from diffq.metrics.nulls import null_lines
from diffq.report.points import ReportPoint, pick_figures
from diffq.store import Point
from diffq.store.files import read_json, write_json

FILE = "nulls"


def score_nulls(folder: Path, baseline: ReportPoint, answers: Answers, metrics: Sequence[Metric]) -> None:
    """Scores `corrupt` and `copy` of a baseline's answers with the metrics that texts alone can feed, and writes them.

    What was scored already for the same baseline and metrics is kept.
    """
    held = read_json(folder / f"{FILE}.json") or {}
    names = sorted(metric.signature(answers) for metric in metrics)
    same = {"baseline": baseline.key, "samples": answers.samples, "metrics": names}
    if held and all(held.get(name) == value for name, value in same.items()):
        return
    rows: list[dict[str, Any]] = []
    statistics: dict[str, np.ndarray] = {}
    for sampler, points in null_lines(answers).items():
        for share, changed in points:
            kept, _ = usable(metrics, changed.given(), changed.samples)
            scores = evaluate(kept, changed)
            name = f"{sampler}-{share:g}"
            rows.append({"key": name, "sampler": sampler, "share": share, "scores": to_json(scores)})
            statistics |= {f"{name} {s.signature}": s.per_source for s in scores if s.per_source is not None}
    point = Point(folder)
    point.write_statistics(statistics, f"{FILE}.npz")
    write_json(folder / f"{FILE}.json", same | {"lines": rows})


def read_nulls(folder: Path, baseline: ReportPoint) -> list[tuple[ReportPoint, Mapping[str, np.ndarray]]]:
    """The null lines of a folder as points of a report, with their per-source statistics by signature; empty where
    they were not scored, or for another baseline or another number of samples."""
    held = read_json(folder / f"{FILE}.json") or {}
    if held.get("baseline") != baseline.key or held.get("samples") != baseline.samples:
        return []
    statistics = Point(folder).per_source(f"{FILE}.npz")
    made: list[tuple[ReportPoint, Mapping[str, np.ndarray]]] = []
    for row in held["lines"]:
        point = ReportPoint(
            key=row["key"],
            folder="",
            sampler=row["sampler"],
            canonical=row["sampler"],
            dataset=baseline.dataset,
            model="",
            process="",
            length="",
            seed=baseline.seed,
            samples=baseline.samples,
            sources=baseline.sources,
            sources_digest=baseline.sources_digest,
            dials={"q": row["share"]},
            changed=("q",),
            figures=pick_figures(row["scores"], baseline.samples),
            kind="null",
        )
        own = {name.split(" ", 1)[1]: array for name, array in statistics.items() if name.startswith(row["key"] + " ")}
        made.append((point, own))
    return made
