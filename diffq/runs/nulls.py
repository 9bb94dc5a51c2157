"""The null lines of a frontier. They cost no sampling, only scoring, and are kept with the point that they start from:
nulls/corrupt-0.1.json in its folder, so every frontier that starts there has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffq.metrics.base import Answers, Metric
from diffq.metrics.evaluate import usable
from diffq.metrics.nulls import null_lines
from diffq.report.points import ReportPoint, pick_figures
from diffq.runs.score import keep_scores
from diffq.store import Point


def null_points(
    place: Point, baseline: ReportPoint, answers: Answers, metrics: Sequence[Metric]
) -> list[tuple[ReportPoint, Mapping[str, np.ndarray]]]:
    """`corrupt` and `copy` of a baseline's answers as points of a report, each with its per-source statistics by
    signature; what of them is not scored yet is scored now, with the metrics that such texts can feed.

    place: the baseline's point.
    """
    made: list[tuple[ReportPoint, Mapping[str, np.ndarray]]] = []
    for sampler, points in null_lines(answers).items():
        like = points[0][1]()  # what can be asked of one is asked of all
        kept, _ = usable(metrics, like.given(), like.samples)
        asked = {metric.signature(like): metric for metric in kept}
        for share, changed in points:
            key = f"{sampler}-{share:g}"
            scores, statistics, _ = keep_scores(place.nulls(key), asked, changed)
            point = ReportPoint(
                key=key,
                folder="",
                sampler=sampler,
                canonical=sampler,
                dataset=baseline.dataset,
                model="",
                process="",
                length="",
                seed=baseline.seed,
                samples=baseline.samples,
                sources=baseline.sources,
                sources_digest=baseline.sources_digest,
                dials={"q": share},
                changed=("q",),
                figures=pick_figures(scores, baseline.samples),
                kind="null",
            )
            made.append((point, statistics))
    return made
