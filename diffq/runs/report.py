"""`diffq report`: the frontier of saved points as a table, a picture and a few figures.

It reads the store. Only the null lines may still have to be scored, which needs the samples of one point.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.config import Config, Request
from diffq.config.files import group_files, read_mapping, search_dirs
from diffq.errors import UserError
from diffq.interrupts import reaching
from diffq.report.findings import Findings, findings
from diffq.report.frontier import (
    AtLevel,
    Frontier,
    Scaling,
    Volume,
    at_equal_diversity,
    build_frontier,
    reference_line,
    volumes,
)
from diffq.report.paper import PaperTable, claim_table, compare_with_paper, delta_table
from diffq.report.points import ReportPoint
from diffq.report.prompts import prompt_tables
from diffq.report.seeds import pool_seeds
from diffq.report.tables import ReportTable, level_table, print_table, table, to_json, volume_table
from diffq.runs import paper_tables
from diffq.runs.energy import write_courses
from diffq.runs.judging import Judges
from diffq.runs.nulls import null_points
from diffq.runs.report_files import Wanted, show, write_files
from diffq.runs.report_page import write_page
from diffq.runs.report_points import points_of, resampled
from diffq.runs.score import config_for, outputs_of
from diffq.runs.selection import Selection, select
from diffq.store import Store
from diffq.store.identity import digest

KINDS = {"x": "diversity", "y": "quality"}
"""What the axes of a frontier show."""


@dataclass(frozen=True)
class Report:
    """All that a report says, and the files that hold it."""

    frontier: Frontier
    metrics: tuple[str, ...]
    volumes: tuple[Volume, ...]
    box: Scaling
    levels: tuple[AtLevel, ...]
    against: str
    paper: PaperTable | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    findings: Findings

    @property
    def tables(self) -> tuple[ReportTable, ...]:
        """Everything that the report says in tables, but the frontier itself."""
        frontier = self.frontier
        shown = [ReportTable("Hypervolume", *volume_table(self.volumes), (self.box.describe(frontier.x, frontier.y),))]
        if self.levels:
            heads, cells = level_table(frontier, self.levels, self.against)
            notes = ("interpolated along each sampler's lines; of several the best", cells[-1][0])
            shown.append(ReportTable(f"{frontier.y} at equal {frontier.x}", heads, cells[:-1], notes))
        shown += self.findings.tables
        if self.paper:
            shown.append(ReportTable(f"{self.paper.title} (arXiv {self.paper.paper})", *delta_table(self.paper)))
            shown.append(ReportTable("Its claims", *claim_table(self.paper), self.paper.footnotes))
        return tuple(shown)

    def as_json(self) -> dict[str, Any]:
        body = to_json(self.frontier, self.volumes, self.box, self.levels, self.against)
        body |= {
            "tables": [dataclasses.asdict(t) for t in self.findings.tables],
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }
        return body | ({"paper": dataclasses.asdict(self.paper)} if self.paper else {})


def run(request: Request) -> int:
    """Writes and prints the report of the runs that were named; of the newest sweep where none was. Returns 0."""
    wanted = Wanted.of(request.flags)
    if (spec := paper_tables.spec_of(request)) is not None:
        return paper_tables.run(request, spec)
    selection = select(Store(outputs_of(request)), request.runs)
    done, left_out = selection.finished()
    if not done.chosen:
        raise UserError("none of these points is finished; sample them first")
    judges = Judges(done.store, request.config_dirs)
    config = config_for(request, done, judges)
    with reaching(lambda: "the report is not written yet"):
        report = make_report(done, config, judges, wanted)
    if left_out:
        print(f"diffq: {left_out} unfinished of {len(selection.chosen)} points left out", file=sys.stderr)
    if request.json:
        print(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    else:
        print_report(report)
    if wanted.open:
        page = next((file for file in report.files if file.suffix == ".html"), None)
        said = show(page) if page else "there is no report.html to open; the notes say why"
        if said:
            print(f"diffq: {said}", file=sys.stderr)
    return 0


def make_report(selection: Selection, config: Config, judges: Judges, wanted: Wanted | None = None) -> Report:
    """The report of finished points, written into the sweep's folder, or under outputs/reports/ for loose points.

    config: its metric suite gives the two axes and the other columns, `choices.paper` a paper to compare with.
    """
    wanted = wanted or Wanted()
    spec = _paper(config, judges)
    x, y = axis_of(config, "x", wanted.x), axis_of(config, "y", wanted.y)
    named = {x, y, *(row["metric"] for row in spec.get("deltas", ()))} if spec else {x, y}
    points = points_of(selection)
    if len(pool_seeds(points)) == 2:  # the two are compared in every metric
        named |= {name for point in points for name in point.figures}
    places = [chosen.point for chosen in selection.chosen]
    points = [resampled(point, at.per_source(), named) for point, at in zip(points, places, strict=True)]
    folder = selection.folder or selection.store.reports / _name(points)
    nulls, notes = _nulls(selection, points, config, judges, (x, y))
    frontier = build_frontier(points, nulls, x, y)
    found, box = volumes(frontier)
    against = reference_line(frontier)
    paper = compare_with_paper(frontier, spec) if spec else None
    metrics = tuple(metric.name for metric in config.metric.metrics if metric.axis != "cost")
    found_out = findings(frontier, against, baseline(points, (x, y)), metrics)
    found_out = found_out.after(prompt_tables(pool_seeds(points), list(dict.fromkeys([y, x, *metrics]))))
    energy_tables, pictures = write_courses(frontier.lines, selection.store, folder, wanted.formats)
    found_out = found_out.after(energy_tables)
    files, more = write_files(folder, wanted.formats, frontier, metrics, paper, found_out.tables)
    report = Report(
        frontier=frontier,
        metrics=metrics,
        volumes=tuple(found),
        box=box,
        levels=tuple(at_equal_diversity(frontier, against=against)),
        against=against.label,
        paper=paper,
        files=(*files, *pictures),
        notes=(*frontier.notes, *notes, *more),
        findings=found_out,
    )
    return _with_page(report, folder / "report.html", judges, selection.store, wanted)


def _with_page(report: Report, page: Path, judges: Judges, store: Store, wanted: Wanted) -> Report:
    """The report with report.html among its files, where it is asked for and can be written."""
    if "html" not in wanted.formats:
        return report
    written, said = write_page(
        page, report.frontier, report.metrics, report.tables, report.notes, judges, store, wanted.sources, report.files
    )
    files = (*report.files, page) if written else report.files
    return dataclasses.replace(report, files=files, notes=(*report.notes, *said))


def axis_of(config: Config, axis: str, given: str = "") -> str:
    """The name under which scores are saved of the metric that is given for an axis, else of the suite's own.
    UserError where it has none."""
    suite = config.metric
    name = given or getattr(suite, axis)
    if not name:
        raise UserError(
            f"a frontier's {axis} axis shows {KINDS[axis]}, and of {', '.join(suite.names)} none measures it; score one"
            f" with diffq score RUN metric=NAME and give it as --{axis} NAME"
        )
    by_name = dict(zip(suite.names, suite.metrics, strict=False))
    return by_name[name].name if name in by_name else name


def _paper(config: Config, judges: Judges) -> dict[str, Any]:
    if not config.choices.paper:
        return {}
    return read_mapping(group_files("paper", search_dirs(judges.config_dirs))[config.choices.paper])


def _name(points: Sequence[ReportPoint]) -> str:
    """`qqp-cfg-clamp-1a2b3c` for loose points: what they are, and a hash of which."""
    words = [points[0].dataset, *dict.fromkeys(point.sampler for point in points)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))[:80].strip(".-")
    return f"{name}-{digest(sorted(point.key for point in points))[:6]}"


def baseline(points: Sequence[ReportPoint], needed: Sequence[str]) -> ReportPoint:
    """The point that null lines start from: the plain one with the most steps; without one, the first of a diffusion
    model, or the first."""
    scored = [point for point in points if all(name in point.figures for name in needed)] or list(points)
    plain = [point for point in scored if point.plain]
    if plain:
        return max(plain, key=lambda point: point.dials.get("steps", 0))
    return next((point for point in scored if point.process != "causal"), scored[0])


def _nulls(
    selection: Selection,
    points: Sequence[ReportPoint],
    config: Config,
    judges: Judges,
    axes: tuple[str, str],
) -> tuple[list[ReportPoint], list[str]]:
    """The null lines, scored now where they are not there yet; and why there are none, where they cannot be. A frontier
    of graded answers has none: a text with other words in it is no answer that anybody has given."""
    if any(metric.name in axes and "verdicts" in metric.needs() for metric in config.metric.metrics):
        return [], []
    start = baseline(points, axes)
    place = next(c.point for c, point in zip(selection.chosen, points, strict=True) if point.key == start.key)
    metrics = [metric for metric in config.metric.metrics if not metric.costly or metric.name in axes]
    try:
        found = null_points(place, start, judges.answers(place, start.samples), metrics)
    except UserError as error:
        return [], [f"no null lines: {error}"]
    notes = [] if start.plain else [f"null lines start from {start.folder}, since there is no plain baseline here"]
    return [resampled(point, statistics, set(axes)) for point, statistics in found], notes


def print_report(report: Report) -> None:
    """The table, the hypervolumes, quality at equal diversity, the paper, and what was left out."""
    frontier = report.frontier
    print_table(
        f"{len(frontier.points)} points, * = on the Pareto front ({frontier.y} against {frontier.x})",
        *table(frontier, report.metrics, brief=True),
        least=2,  # the axes
    )
    print_table(report.box.describe(frontier.x, frontier.y), *volume_table(report.volumes))
    if report.levels:
        heads, cells = level_table(frontier, report.levels, report.against)
        print_table(f"{frontier.y} at equal {frontier.x}, interpolated; of several strands the best", heads, cells)
    for found in report.findings.headlines:
        print_table(found.title, found.heads, found.cells)
    if report.paper:
        print_table(f"{report.paper.title} (arXiv {report.paper.paper})", *delta_table(report.paper))
        print_table("", *claim_table(report.paper))
        for note in report.paper.footnotes:
            print(f"- {note}")
    for note in report.notes:
        print(f"note: {note}")
    for path in report.files:
        print(path)
