"""A plan as a table for a person, in 80 columns, and as JSON with everything in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffq.config.sections import budget
from diffq.runs.planned import asked_in
from diffq.runs.planning.plan import Cost, Plan, PlannedPoint
from diffq.settings import as_mapping
from diffq.store.identity import show_value

_MOST_ROWS = 40  # points that are shown one by one; more are grouped by sampler
_WIDTH = 80
_HEADS = ("point", "done", "NFE", "FLOPs", "memory", "time")
_ESTIMATED, _AT_MOST = "≈", "≤"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything that is known, as plain data. None stands for what is not known."""
    return {
        "sweep": plan.name,
        "device": plan.device,
        "points": [_point_json(p) for p in plan.points],
        "total": {
            "points": len(plan.once),
            "states": {s: sum(p.state == s for p in plan.once) for s in ("new", "partial", "busy", "done", "fails")},
            "rows": sum(p.wanted for p in plan.once),
            "rows_there": sum(p.there for p in plan.once),
            "whole": _cost_json(plan.total("whole")),
            "left": _cost_json(plan.total("left")),
            "peak_memory_bytes": _most(p.peak for p in plan.once),
            "disk_bytes": _sum(p.disk for p in plan.once),
        },
        "trainings": [vars(t) for t in plan.trainings],
        "workers": plan.workers,
        "seconds": plan.seconds,
        "power": plan.power,
        "notes": list(plan.notes),
    }


def _point_json(point: PlannedPoint) -> dict[str, Any]:
    choices = point.config.choices
    return {
        "sampler": choices.sampler,
        "model": choices.model,
        "dataset": choices.dataset,
        "dials": as_mapping(point.config.sampler),
        "seed": point.config.seed,
        "words": list(point.words),
        "folder": point.folder,
        "key": point.key,
        "repeats": point.repeats,
        "state": point.state,
        "rows": point.wanted,
        "rows_there": point.there,
        "exact": point.exact,
        "whole": _cost_json(point.whole),
        "left": _cost_json(point.left),
        "seconds_so_far": point.took,
        "peak_memory_bytes": point.peak,
        "disk_bytes": point.disk,
        "why": point.why,
    }


def _cost_json(cost: Cost) -> dict[str, Any]:
    names = {"calls": "nfe_calls", "rows": "nfe_rows", "positions": "positions_projected"}
    return {names.get(name, name): value for name, value in dataclasses.asdict(cost).items()}


def print_plan(plan: Plan) -> None:
    """The table, the sums, and what a reader must know."""
    lines = _rows(plan.points)
    left, whole = plan.total("left"), plan.total("whole")
    states = [f"{n} {s}" for s in ("done", "partial", "busy", "fails") if (n := sum(p.state == s for p in plan.once))]
    print(f"{plan.name}: {len(plan.once)} points{', ' if states else ''}{', '.join(states)} · on {plan.device}\n")
    _print_table([*lines, *_total_rows(plan, whole, left)])
    print()
    for line in [*_training_lines(plan), *_time_lines(plan, left), *_space_lines(plan), *_power_lines(plan)]:
        _say(line)
    for note in plan.notes:
        _say(f"note: {note}")
    for point in plan.once:
        if point.why:
            _say(f"{point.label} {'will fail' if point.state == 'fails' else 'has no known cost'}: {point.why}")


def _rows(points: Sequence[PlannedPoint]) -> list[tuple[str, ...]]:
    """A row a point, or, where there are many, a row for all points of one sampler; under the name of their model."""
    models: dict[str, dict[str, list[PlannedPoint]]] = {}
    for point in points:
        choices = point.config.choices
        models.setdefault(f"{choices.dataset} {choices.model}", {}).setdefault(choices.sampler, []).append(point)
    seeds = len({p.config.seed for p in points}) > 1
    prompts = len({p.given for p in points}) > 1
    asked = dict(zip(map(id, points), asked_in([p.config for p in points]), strict=True))
    rows: list[tuple[str, ...]] = []
    for name, groups in models.items():
        rows.append((f"{name}:", *[""] * (len(_HEADS) - 1)))
        for group in groups.values():
            if len(points) > _MOST_ROWS:
                rows.append(_group_row(group))
            else:
                rows += [_row(p, asked[id(p)], seeds, prompts) for p in group]
    return rows


def _row(point: PlannedPoint, asked: Mapping[str, Any], seed: bool, prompt: bool) -> tuple[str, ...]:
    label = " ".join([point.label, *(f"{name}={show_value(value)}" for name, value in asked.items())])
    label += (f", {point.given} given" if prompt else "") + (f" seed={point.config.seed}" if seed else "")
    if point.repeats:
        return (label, "as above", "", "", "", "")
    if point.state == "fails":
        return (label, "fails", "–", "–", "–", "–")
    done = {"done": "done", "new": "–"}.get(point.state, f"{point.there}/{point.wanted}")
    time = f"({_seconds(point.took)})" if point.state == "done" else _seconds(point.left.seconds)
    return (
        label,
        done + (" busy" if point.state == "busy" else ""),
        *_cells(point.whole, [point], point.peak),
        time,
    )


def _cells(cost: Cost, points: Sequence[PlannedPoint], peak: int | None) -> tuple[str, str, str]:
    """The cells of a cost, which is that of these points."""
    unsure = [point.config.sampler.at_most for point in points if not point.exact]
    sign = "" if not unsure else _AT_MOST if all(unsure) else _ESTIMATED
    return (sign + _count(cost.rows), _count(_flops(cost)), _bytes(peak))


def _group_row(group: Sequence[PlannedPoint]) -> tuple[str, ...]:
    """One row for the points of one sampler: its dials' ranges, and sums."""
    spans = []
    for name in dict.fromkeys(n for p in group for n in p.dials):
        values = list(dict.fromkeys(getattr(p.config.sampler, name) for p in group))
        shown = show_value(values[0]) if len(values) == 1 else f"{show_value(values[0])}…{show_value(values[-1])}"
        spans.append(f"{name}={shown}")
    once = [p for p in group if not p.repeats]
    whole = sum((p.whole for p in once if p.state != "fails"), start=Cost())
    left = sum((p.left for p in once if p.state != "fails"), start=Cost())
    done = sum(p.state == "done" for p in once)
    seconds = f"({_seconds(_sum(p.took for p in once))})" if done == len(once) else _seconds(left.seconds)
    label = f"{group[0].config.choices.sampler} × {len(group)}: {' '.join(spans)}"
    cells = _cells(whole, group, _most(p.peak for p in once))
    return (label, f"{done}/{len(once)}", *cells, seconds)


def _total_rows(plan: Plan, whole: Cost, left: Cost) -> list[tuple[str, ...]]:
    rows, there = sum(p.wanted for p in plan.once), sum(p.there for p in plan.once)
    peak = _most(p.peak for p in plan.once)
    total = ("all", f"{there}/{rows}", *_cells(whole, plan.once, peak), "")
    return [total, ("still to do", "", *_cells(left, plan.once, peak)[:2], "", _seconds(left.seconds))]


def _training_lines(plan: Plan) -> list[str]:
    said = {True: "trains first", False: "wants a training first"}
    return [
        f"{said[t.comes_first]}: {t.model} on {t.dataset}, {budget(t.minutes, t.steps)} ({t.why})"
        for t in plan.trainings
    ]


def _time_lines(plan: Plan, left: Cost) -> Iterable[str]:
    minutes = sum(t.minutes or 0 for t in plan.trainings)
    if plan.seconds is None:
        return [f"time: unknown{f', and {minutes:g} min of training' if minutes else ''}"]
    workers = f" with {plan.workers} workers ({_seconds(left.seconds)} of work)" if plan.workers > 1 else ""
    return [f"time: {_seconds(plan.seconds + 60 * minutes)} of sampling{workers}; scoring and drawing come on top"]


def _space_lines(plan: Plan) -> list[str]:
    peak, disk = _most(p.peak for p in plan.once), _sum(p.disk for p in plan.once)
    return [f"space: {_bytes(peak)} of memory at the most, about {_bytes(disk)} of samples"]


def _power_lines(plan: Plan) -> list[str]:
    if not plan.power:
        return ["to tell two points apart: no two scored points here yet, so nothing can be said"]
    lines = []
    for name, told in plan.power.items():
        sizes = ", ".join(f"{size}: {n}" for size, n in told["needed"].items())
        lines.append(
            f"to tell two points apart in {name} (now ±{told['half_width']:.2g} with {told['sources']} sources × "
            f"{told['samples']}): sources needed for a difference of {sizes}"
        )
        typical = told["typical"]
        if typical["sources"] is not None:
            lines[-1] += f"; of {typical['difference']:.2g}, as points here differ: {typical['sources']}"
        if told["with_samples"]:
            more = ", ".join(f"{s}: {n}" for s, n in told["with_samples"].items())
            lines.append(f"  for a difference of 1 with so many samples a source: {more}")
    return lines


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns aligned, the first cut to what 80 leave, with its end on lines of its own."""
    sizes = [max(len(row[i]) for row in [_HEADS, *rows]) for i in range(1, len(_HEADS))]
    room = max(20, _WIDTH - sum(sizes) - 2 * len(sizes))
    for row in [_HEADS, *rows]:
        first, *more = _folded(row[0], room)
        cells = "".join(f"  {cell:>{size}}" for cell, size in zip(row[1:], sizes, strict=True))
        print(f"{first:<{room}}{cells}".rstrip())
        for rest in more:
            print(f"  {rest}")


def _folded(text: str, room: int) -> list[str]:
    """The text in lines of at most `room` characters, broken between words."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= room - (2 if len(lines) > 1 else 0):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _say(text: str) -> None:
    """A line of at most 80 columns; what is longer goes on indented."""
    indent = " " * (len(text) - len(text.lstrip()))
    for i, line in enumerate(_folded(text.strip(), _WIDTH - 2 - len(indent))):
        print(f"{indent}{'  ' if i else ''}{line}")


def _flops(cost: Cost) -> float | None:
    parts = (cost.network_flops, cost.projection_flops)
    return None if None in parts else sum(p or 0.0 for p in parts)


def _sum(values: Iterable[Any]) -> Any:
    held = list(values)
    return None if None in held else sum(held)


def _most(values: Iterable[int | None]) -> int | None:
    return max((v for v in values if v is not None), default=None)


def _scaled(value: float, names: Sequence[str], base: float) -> str:
    for name in names:
        if value < base:
            return f"{value:.3g}{name}" if value < 100 else f"{value:.0f}{name}"
        value /= base
    return f"{value:.3g}{names[-1]}"


def _count(value: float | None) -> str:
    """12.3k, 4.5M, 6.7G, …"""
    return "?" if value is None else "0" if not value else _scaled(value, ("", "k", "M", "G", "T", "P", "E"), 1000)


def _bytes(value: float | None) -> str:
    return "?" if value is None else _scaled(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def _seconds(value: float | None) -> str:
    """0.4 s, 12 s, 3.5 min, 2.1 h, 4 d; a question mark where nobody knows."""
    if value is None:
        return "?"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{value / unit:.2g} {name}" if value / unit < 10 else f"{value / unit:.0f} {name}"
    return f"{value / 86400:.1f} d"
