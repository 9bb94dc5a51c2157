"""What a sweep ends with where its metrics span no frontier: its points in a table, and why there is no more.

A frontier takes a metric of diversity and one of quality; whoever asks for one kind alone is given the figures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.config.schema import MetricSuite
from diffq.report.frontier import Frontier
from diffq.report.points import make_lines
from diffq.report.seeds import pool_seeds
from diffq.report.tables import ReportTable, plain_rows, print_table, table
from diffq.runs.energy import write_courses
from diffq.runs.report import KINDS, points_of
from diffq.runs.selection import Selection


@dataclass(frozen=True)
class Tabulated:
    """Points and their figures.

    points   as a frontier without axes and without a front
    metrics  the names of the figures that are shown
    notes    why nothing is drawn
    tables   what else is known of the points
    files    the pictures of that
    """

    points: Frontier
    metrics: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[ReportTable, ...] = ()
    files: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The parts of a report's JSON that there are."""
        return {
            "points": plain_rows(self.points),
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        } | ({"tables": [dataclasses.asdict(shown) for shown in self.tables]} if self.tables else {})

    def print(self) -> None:
        """The table, with every interval, and the notes."""
        count = len(self.points.points)
        print_table(f"{count} point{'' if count == 1 else 's'}", *table(self.points, self.metrics))
        for shown in self.tables:
            print_table(shown.title, shown.heads, shown.cells)
        for note in self.notes:
            print(f"note: {note}")
        for path in self.files:
            print(path)


def tabulate(selection: Selection, suite: MetricSuite) -> Tabulated:
    """The table of finished points. Points that differ in the seed alone are one, as on a frontier."""
    points = pool_seeds(points_of(selection))
    shown = Frontier("", "", tuple(points), (), tuple(make_lines(points)), frozenset())
    kinds = " and one of ".join(kind for axis, kind in KINDS.items() if not getattr(suite, axis))
    note = (
        f"no frontier is drawn: that takes a metric of {kinds} beside {', '.join(suite.names)}; the same sweep with"
        f" metric={','.join(suite.names)},NAME scores one more"
    )
    metrics = tuple(metric.name for metric in suite.metrics)
    tables, files = write_courses(shown.lines, selection.store, selection.folder) if selection.folder else ([], [])
    return Tabulated(shown, metrics, (note,), tuple(tables), tuple(files))
