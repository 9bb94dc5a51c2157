"""What report.html shows, as plain data: points and lines, metrics and costs as axes, tables, and rows to copy.

Every figure that a reader may put on an axis is here; fronts are found anew in the page for the axes that are chosen.
Knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffq.report.frontier import Frontier
from diffq.report.plot import MARKERS, colour_of, marker_of, readable, subtitle
from diffq.report.points import Line, ReportPoint, said_dials, short_dials
from diffq.report.scales import FAR, is_ratio
from diffq.report.tables import ReportTable, frontier_rows, table, to_csv, to_latex, to_markdown
from diffq.store.identity import show_value

SYMBOLS = dict(zip(
    MARKERS, ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"), strict=True
))  # fmt: skip
"""The plotting library's names of the markers in frontier.png."""


COSTS: dict[str, tuple[str, Callable[[ReportPoint], float | None]]] = {
    "cost:nfe": ("network rows an answer (NFE)", lambda point: point.an_answer("nfe_rows")),
    "cost:seconds": ("seconds an answer", lambda point: point.an_answer("seconds")),
    "cost:run_seconds": ("seconds of the whole run", lambda point: point.costs.get("seconds")),
}
"""What may stand on an axis besides metrics, with its label. Less is better."""


def page_data(
    frontier: Frontier, metrics: Sequence[str], tables: Sequence[ReportTable], notes: Sequence[str]
) -> dict[str, Any]:
    """The data that a page reads when it opens.

    metrics: those of the suite, which come first.
    """
    first = frontier.points[0]
    figures, dropped = _figures(frontier, metrics)
    points: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    exports = _Exports(frontier, metrics)
    for number, line in enumerate(frontier.lines):
        lines.append(_line(line, number, len(points)))
        for point in line.points:
            points.append(_point(point, line, number, figures, frontier))
            exports.add(point)
    models = ", ".join(dict.fromkeys(point.model for point in frontier.points))
    return {
        "title": f"{first.dataset} · {models}",
        "subtitle": subtitle(frontier),
        "x": frontier.x,
        "y": frontier.y,
        "far": FAR,
        "metrics": [
            *(_metric(frontier, name, figures[name]) for name in figures),
            *(
                _axis(name, label, -1, "less is better", cost=True)
                for name, (label, value) in COSTS.items()
                if any(value(point) is not None for point in frontier.points)
            ),
            *(
                _axis(f"record:{name}", f"{readable(name)} (said by the sampler)", 0, "neither is better")
                for name in dict.fromkeys(name for point in frontier.points for name in point.records)
            ),
        ],
        "lines": lines,
        "points": points,
        "exports": exports.data(),
        "tables": [_table(shown) for shown in tables],
        "notes": [*notes, *dropped],
    }


def _figures(frontier: Frontier, metrics: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The signature of every metric, those of the axes and the suite first, and a note for each metric that some
    points have under another signature, which would not be comparable."""
    order = [frontier.y, frontier.x, *metrics]
    order += [name for point in frontier.points for name in point.figures]
    chosen: dict[str, str] = {}
    notes = []
    for name in dict.fromkeys(order):
        found = [point.figures[name].signature for point in frontier.points if name in point.figures]
        if found:
            chosen[name] = max(dict.fromkeys(found), key=found.count)
            others = sum(signature != chosen[name] for signature in found)
            if others:
                count = f"{others} point" + ("" if others == 1 else "s")
                notes.append(f"{name} of {count} left out of report.html: it has another signature there")
    return chosen, notes


def _metric(frontier: Frontier, name: str, signature: str) -> dict[str, Any]:
    figure = next(p.figures[name] for p in frontier.points if name in p.figures)
    sign = {"higher": 1, "lower": -1}.get(figure.direction, 0)
    said = {1: "higher is better", -1: "lower is better", 0: "neither is better"}[sign]
    return _axis(name, readable(name), sign, said, signature)


def _axis(name: str, label: str, sign: int, said: str, signature: str = "", *, cost: bool = False) -> dict[str, Any]:
    """What may stand on an axis. sign: +1 where more is better, −1 where less is, 0 where neither; said: so in words"""
    return {
        "name": name,
        "label": label,
        "sign": sign,
        "cost": cost,
        "ratio": is_ratio(name),
        "signature": signature,
        "help": said,
    }


def _line(line: Line, number: int, start: int) -> dict[str, Any]:
    """start: the number of the line's first point; its strands are runs of the points that follow."""
    is_null = line.kind == "null"
    strands, at = [], start
    for strand in line.strands:
        strands.append([at, at + len(strand.points)])
        at += len(strand.points)
    first = line.points[0]
    return {
        "label": line.label + (" (null line)" if is_null else ""),
        "null": is_null,
        "colour": "" if is_null else colour_of(number),
        "symbol": "" if is_null else SYMBOLS[marker_of(number)],
        "model": first.model,
        "seeds": " ".join(map(str, first.seeds)) if not is_null else "",
        "length": first.length,
        "strands": strands,
    }


def _point(point: ReportPoint, line: Line, number: int, figures: dict[str, str], frontier: Frontier) -> dict[str, Any]:
    """One point. `figures` are [value, low, high, spread between seeds] by metric, costs among them."""
    varying = said_dials(point, line.varying)
    held: dict[str, list[float | None]] = {
        name: [f.value, f.low, f.high, f.between]
        for name, signature in figures.items()
        if (f := point.figures.get(name)) is not None and f.signature == signature
    }
    for name, (_, value) in COSTS.items():
        if (cost := value(point)) is not None:
            held[name] = [cost, None, None, None]
    held |= {f"record:{name}": [said, None, None, None] for name, said in point.records.items()}
    parts = point.parts or (point,)
    return {
        "id": f"{point.sampler}:{point.key[:12]}",
        "line": number,
        "sampler": point.sampler,
        "short": short_dials(point, varying),
        "dials": [[name, show_value(point.dials[name])] for name in varying if name in point.dials],
        "length": point.length,
        "samples": point.samples,
        "sources": point.sources,
        "front": point.key in frontier.front,
        "figures": held,
        "parts": [
            {
                "key": part.key,
                "seed": part.seed,
                "folder": part.folder,
                "figures": {name: part.figures[name].value for name in held if name in part.figures},
            }
            for part in parts
            if point.kind == "point"
        ],
    }


def _table(shown: ReportTable) -> dict[str, Any]:
    return {
        "title": shown.title,
        "heads": list(shown.heads),
        "cells": [list(row) for row in shown.cells],
        "notes": list(shown.notes),
    }


class _Exports:
    """The table's rows as CSV, Markdown and LaTeX, one by one, so that a page can put them together in any order.

    They are the rows of frontier.csv, .md and .tex, by the same functions.
    """

    def __init__(self, frontier: Frontier, metrics: Sequence[str]):
        self._heads, self._cells = table(frontier, metrics)
        self._flat = frontier_rows(frontier)
        self._place = {id(point): at for at, point in enumerate([*frontier.points, *frontier.nulls])}
        self._rows: dict[str, list[str]] = {"csv": [], "markdown": [], "latex": []}

    def add(self, point: ReportPoint) -> None:
        """The next point, in the order of `table`."""
        cells = self._cells[len(self._rows["csv"])]
        self._rows["csv"].append(_row(to_csv([self._flat[self._place[id(point)]]]), 1, 0))
        self._rows["markdown"].append(_row(to_markdown(self._heads, [cells]), 2, 0))
        self._rows["latex"].append(_row(to_latex(self._heads, [cells]), 4, 2))

    def data(self) -> dict[str, dict[str, Any]]:
        """By format: what stands before the rows, the rows, and what stands after them."""
        whole = {
            "csv": (to_csv(self._flat[:1]), 1, 0),
            "markdown": (to_markdown(self._heads, self._cells[:1]), 2, 0),
            "latex": (to_latex(self._heads, self._cells[:1]), 4, 2),
        }
        made = {}
        for name, (text, before, after) in whole.items():
            lines = text.splitlines(keepends=True)
            made[name] = {
                "before": "".join(lines[:before]),
                "rows": self._rows[name],
                "after": "".join(lines[len(lines) - after :]),
            }
        return made


def _row(text: str, before: int, after: int) -> str:
    """What is left of a table of one row without the lines that stand around it."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[before : len(lines) - after])
