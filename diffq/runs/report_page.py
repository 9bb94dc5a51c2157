"""What report.html shows of each point besides its figures: samples beside sources and references, its configuration,
its record, and traces where there are some.

Knows no figure and no HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.errors import UserError
from diffq.report.frontier import Frontier
from diffq.report.page import LibraryMissing, build_page
from diffq.report.page_data import page_data
from diffq.report.points import ReportPoint
from diffq.report.tables import ReportTable
from diffq.runs.judging import Judges
from diffq.runs.trace import read_traces
from diffq.store import Point, Store
from diffq.store.files import write_atomic
from diffq.store.versions import versions

SOURCES = 100
"""Sources whose samples travel in the page, where nobody says how many."""


_PICTURES = {"pass_at_k.svg": "Pass@k", "energy.svg": "Energy along the steps"}


def write_page(
    file: Path,
    frontier: Frontier,
    metrics: Sequence[str],
    tables: Sequence[ReportTable],
    notes: Sequence[str],
    judges: Judges,
    store: Store,
    sources: int = SOURCES,
    files: Sequence[Path] = (),
) -> tuple[bool, list[str]]:
    """Whether the page could be written, and what is to be said about it: what it lacks and why.

    sources: of how many sources the samples are shown; the first of the split. files: those of the report, of which
    other pictures than the frontier travel in the page.
    """
    shown = _Shown(judges, store, sources)
    parts = {part.key: shown.part(part) for part in _single(frontier.points)}
    data = page_data(frontier, metrics, tables, notes) | {"name": file.parent.name, "versions": versions()}
    data |= {"asked": shown.asked, "sources": {"shown": shown.most, "all": frontier.points[0].sources}}
    data["pictures"] = [_picture(_PICTURES[file.name], file) for file in files if file.name in _PICTURES]
    said = shown.notes
    data["notes"] += said
    try:
        text = build_page(f"{data['title']} – diffq", data, parts | shown.questions)
    except LibraryMissing as error:
        return False, [*said, f"no report.html: {error}"]
    write_atomic(file, text.encode(), sync=False)
    return True, said


def _picture(title: str, file: Path) -> dict[str, str]:
    """An SVG file as the page holds it, which fetches nothing."""
    coded = base64.b64encode(file.read_bytes()).decode()
    return {"title": title, "source": f"data:image/svg+xml;base64,{coded}"}


def _single(points: Iterable[ReportPoint]) -> list[ReportPoint]:
    """The points of single seeds, each key once."""
    return list({part.key: part for point in points for part in point.parts or (point,)}.values())


_SAMPLES = 24  # shown of each source
_REAL = 3  # real texts shown beside unprompted ones


@dataclass(frozen=True)
class _Asked:
    """A source and its references."""

    source: str
    references: tuple[str, ...]


class _Shown:
    """Gathers the parts of a page.

    questions  sources and references, once for every spelling that a tokenizer gives them
    asked      by a point's key, the name of its questions
    most       of how many sources there are samples, at most
    """

    def __init__(self, judges: Judges, store: Store, sources: int):
        self.judges, self.store, self.limit = judges, store, sources
        self.questions: dict[str, dict[str, Any]] = {}
        self.asked: dict[str, str] = {}
        self.most = 0
        self.notes: list[str] = []
        self._held: dict[tuple[str, int], dict[int, _Asked]] = {}

    def part(self, point: ReportPoint) -> dict[str, Any]:
        """The configuration, the record, the samples (a list a source) and the traces of one point."""
        place = self.store.open(self.store.outputs / point.folder)
        texts = _texts(place, point.samples)
        shown = [group[:_SAMPLES] for group in texts.values()][: self.limit]
        self.most = max(self.most, len(shown))
        asked = self._asked(point, place, list(texts))
        self.asked[point.key] = self._questions(point, asked, list(texts)[: self.limit])
        config = place.folder / "config.yaml"
        return {
            "config": config.read_text(encoding="utf-8") if config.exists() else "",
            "run": place.run(),
            "samples": shown,
            "traces": [
                trace | {"asked": asked[trace["source"]].source if trace["source"] in asked else None}
                for trace in read_traces(place.folder)
            ],
        }

    def _asked(self, point: ReportPoint, place: Point, indices: list[int]) -> dict[int, _Asked]:
        """Sources and references by the source's index, in the spelling of this point's tokenizer; empty where the
        checkpoint, which holds it, is gone."""
        key = (point.checkpoint, len(indices))
        if key not in self._held:
            self._held[key] = {}
            try:
                answers = self.judges.answers(place, point.samples)
                if answers.unprompted:  # one question, and real texts to read beside the answers
                    pairs = [(indices[0], "", answers.real[:_REAL])]
                else:
                    pairs = list(zip(indices, answers.sources, answers.references, strict=True))
                self._held[key] = {index: _Asked(source, tuple(references)) for index, source, references in pairs}
            except UserError as error:
                self.notes.append(f"report.html shows samples without their sources: {error}")
        return self._held[key]

    def _questions(self, point: ReportPoint, asked: Mapping[int, _Asked], indices: list[int]) -> str:
        """The name under which the page holds the sources and references of this point."""
        name = f"questions-{point.checkpoint[:12]}-{len(indices)}"
        if name not in self.questions:
            here = [asked[index] for index in indices if index in asked]
            self.questions[name] = {
                "indices": indices,
                "sources": [one.source for one in here],
                "references": [one.references for one in here],
            }
        return name


def _texts(place: Point, samples: int) -> dict[int, list[str]]:
    """The first `samples` texts of each source, by the source's index."""
    found: dict[int, dict[int, str]] = {}
    for row in place.rows():
        if not samples or row["sample"] < samples:
            found.setdefault(row["source"], {})[row["sample"]] = row["text"]
    return {source: [texts[n] for n in sorted(texts)] for source, texts in sorted(found.items())}
