"""A paper's claims about samplers, put to the test task by task: at equal steps, and at equal network rows.

What is claimed stands in conf/paper/NAME.yaml, of three kinds:

    above    one point has more of a metric than another, or gains more from one metric to another
    within   the entropy of a point's answers is no more than the bound that its sampler recorded
    front    one sampler's front lies above another's

Every claim is judged once for each value of the dial that says how many steps there are; a front also against all that
costs no more. Intervals are paired over questions. Knows no store and no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffq.report.compare import Difference, beats
from diffq.report.frontier import build_frontier
from diffq.report.paper import Gap, Part, difference, together
from diffq.report.points import Figure, ReportPoint
from diffq.report.published import Table
from diffq.store.identity import show_value


@dataclass(frozen=True)
class Task:
    """Points that answered the same questions, with one model.

    label  what they are called in a heading
    """

    dataset: str
    label: str
    points: tuple[ReportPoint, ...]


def contest_tables(spec: Mapping[str, Any], tasks: Sequence[Task]) -> list[Table]:
    """Two tables a task, at equal steps and at equal network rows; one that says how, for a task without points."""
    held, made = spec["contests"], []
    for name in held["tasks"]:
        here = [table for task in tasks if task.dataset == name for table in _of_task(held, task)]
        made += here or [Table(name, ["", "to measure it"], [["nothing is measured", held["commands"][name]]])]
    if made:
        made[-1] = replace(made[-1], notes=(*made[-1].notes, *spec.get("footnotes", ())))
    return made


def _of_task(held: Mapping[str, Any], task: Task) -> list[Table]:
    along = held["along"]
    values = sorted({p.dials[along] for p in task.points if p.dials.get(along)}, reverse=True)
    heads = ["claim", *(f"{along}={show_value(value)}" for value in values)]
    claims, fronts = [], []
    for claim in held["claims"]:
        claims.append([claim["text"], *(_cell(_judge(held, task, claim, value)) for value in values)])
        if "front" in claim:
            cells = (_cell(_front(held, task, claim["front"], value, equal_rows=True)) for value in values)
            fronts.append([claim["text"], *cells])
    found = (("at equal steps", claims), ("at equal network rows", fronts))
    kept = [(how, [row for row in rows if any(row[1:])]) for how, rows in found]
    return [Table(f"{task.label}: {how}", heads, rows) for how, rows in kept if rows]


def _judge(held: Mapping[str, Any], task: Task, claim: Mapping[str, Any], value: Any) -> list[Part]:
    if "front" in claim:
        return _front(held, task, claim["front"], value, equal_rows=False)
    if "within" in claim:
        return _within(held, task, claim["within"], value)
    asked = claim["above"]
    sides = [_point(_at(task, asked[side], held["along"], value)) for side in ("first", "than")]
    a, b = (None if side is None else _figure(side, asked["metric"], asked.get("over")) for side in sides)
    return [] if a is None or b is None else [Part("", difference(a, b))]


def _cell(parts: Sequence[Part]) -> str:
    """The verdict and what it rests on; empty where nothing was measured."""
    return "\n".join([together(parts), *(part.said().removeprefix(": ") for part in parts)]) if parts else ""


def _at(task: Task, side: Mapping[str, Any], along: str, value: Any) -> list[ReportPoint]:
    """The points of a side at a value of the dial."""
    wanted = {name: show_value(v) for name, v in side.items() if name != "sampler"}
    return [
        point
        for point in task.points
        if point.sampler == side["sampler"]
        and (value is None or point.dials.get(along) == value)
        and all(show_value(point.dials.get(name)) == v for name, v in wanted.items())
    ]


def _point(found: Sequence[ReportPoint]) -> ReportPoint | None:
    """Of several the plainest, that with the fewest dials turned."""
    return min(found, key=lambda point: (len(point.changed), point.key), default=None)


def _figure(point: ReportPoint, metric: str, over: str | None) -> Figure | None:
    """The metric, or what it is above another one."""
    top = point.figures.get(metric)
    if over is None or top is None:
        return top
    base = point.figures.get(over)
    if base is None:
        return None
    draws = None if top.draws is None or base.draws is None else top.draws - base.draws
    return replace(top, value=top.value - base.value, draws=draws, low=None, high=None, halves=None)


def _within(held: Mapping[str, Any], task: Task, asked: Mapping[str, Any], value: Any) -> list[Part]:
    """Bound − entropy. The bound is recorded as a mean over a row's rounds, each of which is one network row."""
    point = _point(_at(task, asked["side"], held["along"], value))
    figure = None if point is None else point.figures.get(asked["metric"])
    if point is None or figure is None or asked["record"] not in point.records:
        return []
    bound = point.records[asked["record"]] * rows_a_sample(point)
    return [Part("", Gap.of(bound - figure.value, None if figure.draws is None else bound - figure.draws))]


def rows_a_sample(point: ReportPoint) -> float:
    return point.costs["nfe_rows"] / (point.samples * point.sources)


def _front(
    held: Mapping[str, Any], task: Task, asked: Mapping[str, Any], value: Any, *, equal_rows: bool
) -> list[Part]:
    axes = (asked["diversity"], held["quality"])
    first, than = (
        [p for p in _at(task, asked[side], held["along"], at) if all(name in p.figures for name in axes)]
        for side, at in (("first", value), ("than", None if equal_rows else value))
    )
    if equal_rows and first:
        most = max(map(rows_a_sample, first))
        than = [point for point in than if rows_a_sample(point) <= most]
    if not first or not than:
        return []
    frontier = build_frontier([*first, *than], [], *axes)
    lines = {line.points[0].sampler: line for line in frontier.lines}
    if len(lines) < 2:
        return []
    found = beats(frontier, lines[asked["first"]["sampler"]], lines[asked["than"]["sampler"]])
    parts = [Part("hypervolume", _gap(found.volume))]
    if found.gap is not None:  # without an interval, where resamples share no diversity, it is told and decides nothing
        at_equal = f"{held['quality']} at equal {asked['diversity']}"
        parts.append(Part(at_equal, _gap(found.gap), counts=found.gap.low is not None))
    return parts


def _gap(found: Difference) -> Gap:
    return Gap(found.value, found.low, found.high)
