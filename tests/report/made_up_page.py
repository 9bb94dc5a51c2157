"""Pages of made-up points: their data without a store, with samples of which every one says whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthetic import frontier_points, point

from diffq.report.frontier import Frontier, build_frontier
from diffq.report.page import build_page
from diffq.report.page_data import page_data
from diffq.report.points import ReportPoint
from diffq.report.tables import ReportTable


def many_points(count: int) -> list[ReportPoint]:
    """Points of eight samplers on eight curves."""
    return [
        point(f"sampler_{n % 8}", 20 + 0.25 * n, 40 - 0.1 * n - 2 * (n % 8), scale=1 + n // 8, temperature=0.5)
        for n in range(count)
    ]


def frontier(points: Sequence[ReportPoint] = (), nulls: Sequence[ReportPoint] = ()) -> Frontier:
    if not points:
        points, nulls = frontier_points()
    return build_frontier(points, nulls, "self_bleu", "bleu")


def sample_text(key: str, source: int, sample: int) -> str:
    return f"sample {sample} of source {source} by {key}"


def make_page(
    path: Path,
    seen: Frontier | None = None,
    sources: int = 12,
    texts: Mapping[tuple[int, int], str] | None = None,
    tables: Sequence[ReportTable] = (),
    notes: Sequence[str] = (),
    traces: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Writes a page and returns its data. texts: by source and sample, what stands there in every point."""
    seen = seen or frontier()
    said = texts or {}
    parts: dict[str, Any] = {
        p.key: {
            "config": "seed: 0\n",
            "run": {"status": "done", "versions": {"torch": "2.13.0"}},
            "samples": [
                [said.get((source, n), sample_text(p.key, source, n)) for n in range(3)] for source in range(sources)
            ],
            "traces": list(traces),
        }
        for p in seen.points
    }
    parts["questions"] = {
        "indices": list(range(sources)),
        "sources": [f"what is source {n}" for n in range(sources)],
        "references": [[f"this is source {n}"] for n in range(sources)],
    }
    data = page_data(seen, ["bleu", "self_bleu", "rouge_l"], tables, notes)
    data |= {"name": "made-up", "versions": {"diffq": "0"}, "sources": {"shown": sources, "all": 300}}
    data["asked"] = {p.key: "questions" for p in seen.points}
    path.write_text(build_page("made up", data, parts), encoding="utf-8")
    return data


TRACES = [
    {
        "row": 0, "source": 3, "sample": 0, "of": 8, "same": True, "total": 3, "asked": "how <b>do</b> we",
        "steps": [
            {"index": 0, "time": 0.66, "changed": [[0, "a"], [1, "b"], [2, None]], "stats": {"acceptance": 0.5}},
            {"index": 1, "time": 0.33, "changed": [[1, "<i>c</i>"]]},
            {"index": 2, "time": 0.0, "changed": [[2, "##d"]]},
        ],
    }
]  # fmt: skip
