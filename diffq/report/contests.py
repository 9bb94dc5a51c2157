"""A paper's claims about samplers, put to the test task by task: at equal steps, and at equal network rows.

What is claimed stands in conf/paper/NAME.yaml, of five kinds:

    above     one point is better in a metric than another, or gains more from one metric to another
    relative  one point has more of a metric than another, in percent of the other; beside what the paper gives
    within    the entropy of a point's answers is no more than the bound that its sampler recorded
    falls     the energy of a point's drafts falls from the first step to the last
    front     one sampler's front lies above another's

A side of a claim is a sampler, with the name of a training where models are compared, and dials. Every claim is judged
once for each value of the dial that says how many steps there are, and once alone where its sides say so themselves; a
front also against all that costs no more. Points that differ in the seed alone are one. Intervals are paired over
questions. Knows no store and no metric.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diffq.report.compare import beats
from diffq.report.frontier import build_frontier
from diffq.report.paper import UNPUBLISHED, Gap, Part, difference, together
from diffq.report.points import Figure, ReportPoint, one_line
from diffq.report.published import Table
from diffq.report.seeds import pool_seeds
from diffq.store.identity import show_value


@dataclass(frozen=True)
class Task:
    """Points that answered the same questions.

    label     what they are called in a heading
    energies  by the keys of points (of one seed) whose energies were recorded: how the mean changes over the steps,
              value, low, high
    """

    dataset: str
    label: str
    points: tuple[ReportPoint, ...]
    energies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def contest_tables(spec: Mapping[str, Any], tasks: Sequence[Task]) -> list[Table]:
    """Two tables a task, at equal steps and at equal network rows, with what each claim needs that these points cannot
    feed; one that says how to measure, for a task of which they feed none."""
    held, made = spec["contests"], []
    for name in held["tasks"]:
        here = [table for task in tasks if task.dataset == name for table in _of_task(held, task)]
        made += here or [Table(name, ["", "to measure it"], [["nothing is measured", held["commands"][name]]])]
    if made:
        made[-1] = replace(made[-1], notes=(*made[-1].notes, *spec.get("footnotes", ())))
    return made


def metrics_of(held: Mapping[str, Any]) -> set[str]:
    """The metrics that the claims are about; a name that ends in * stands for all that begin so."""
    named = {a[name] for a in map(_asked, held["claims"]) for name in ("metric", "over", "diversity") if name in a}
    return named | ({held["quality"]} if "quality" in held else set())


def _of_task(held: Mapping[str, Any], task: Task) -> list[Table]:
    task = replace(task, points=tuple(pool_seeds(task.points)))
    along = held["along"]
    found = {_value(point, along) for point in task.points} - {None}
    values = sorted(found, key=lambda value: value or math.inf, reverse=True)
    heads = [f"{along}={show_value(value)}" if value else "one token a step" for value in values]
    alone, claims, fronts = _Rows(), _Rows(), _Rows()
    for claim in held["claims"]:
        about, lack = [claim["text"], _published(claim)], _lack(held, task, claim)
        if all(along in side for side in _sides(claim)):
            alone.add(about, [_cell(_judge(held, task, claim, None))], lack)
            continue
        claims.add(about, [_cell(_judge(held, task, claim, value)) for value in values], lack)
        if "front" in claim:
            cells = [_cell(_front(held, task, claim["front"], value, equal_rows=True)) for value in values]
            if any(claims.cells[-1]):
                lack = f"needs points of sampler {claim['front']['than']['sampler']} that cost no more network rows"
            fronts.add(about, cells, lack)
    tables = (
        ("as claimed", ["measured"], alone),
        (f"at equal {along}", heads, claims),
        ("at equal network rows", heads, fronts),
    )
    if not (alone.measured or claims.measured):
        return []
    shown = [(how, of, rows) for how, of, rows in tables if rows.measured or (rows.about and rows is not fronts)]
    return [Table(f"{task.label}: {how}", *rows.filled(of)) for how, of, rows in shown]


@dataclass
class _Rows:
    """The rows of a table: what a claim says and what is published of it, a cell for each value of the dial, and what
    the claim needs where none of them holds anything."""

    about: list[list[str]] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)

    def add(self, about: list[str], cells: list[str], lack: str) -> None:
        self.about.append(about)
        self.cells.append(cells)
        self.lacks.append(lack)

    @property
    def measured(self) -> bool:
        return any(cell for row in self.cells for cell in row)

    def filled(self, heads: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """Heads and rows without the columns in which nothing was measured."""
        columns = [at for at in range(len(heads)) if any(row[at] for row in self.cells)]
        shown = [[row[at] for at in columns] for row in self.cells]
        for row, lack in zip(shown, self.lacks, strict=True):
            if not any(row):
                row[:1] = [f"not measured: {lack}"]
        found = [about + row for about, row in zip(self.about, shown, strict=True)]
        return ["claim", "published", *([heads[at] for at in columns] or ["measured"])], found


def _published(claim: Mapping[str, Any]) -> str:
    """The paper's figure, where one is known."""
    published = claim.get("relative", {}).get("published")
    return UNPUBLISHED if published is None else f"{published:+.2f} %"


def _lack(held: Mapping[str, Any], task: Task, claim: Mapping[str, Any]) -> str:
    """What a claim that was not measured needs beyond a task's points."""
    asked, sides = _asked(claim), _sides(claim)
    found = [_at(task, side, held["along"], None) for side in sides]
    points = [_described(task, side) for side, here in zip(sides, found, strict=True) if not here]
    if points:
        return f"needs {' and '.join(dict.fromkeys(points))}"
    names = [asked[name] for name in ("metric", "over", "diversity") if name in asked]
    names += [held["quality"]] if "front" in claim else []
    scores = [
        _score_needed(name, here)
        for name in names
        for here in found
        if all(_named(point, name) is None for point in here)
    ]
    if scores:
        return f"needs {' and '.join(dict.fromkeys(scores))}"
    if "falls" in claim:
        return "needs recorded energies: energy=N"
    if "within" in claim:
        return f"needs points that recorded {asked['record']}"
    return f"needs points of both at equal {held['along']}"


def _described(task: Task, side: Mapping[str, Any]) -> str:
    """The points of a side in words; with their dials where only points of others are there."""
    said = f"points of sampler {side['sampler']}"
    said += f" of training {side['training']}" if "training" in side else ""
    dials = [f"{name}={show_value(value)}" for name, value in side.items() if name not in ("sampler", "training")]
    training = side.get("training")
    alike = any(p.sampler == side["sampler"] and training in (None, p.training) for p in task.points)
    return f"{said} with {' '.join(dials)}" if alike and dials else said


def _score_needed(name: str, points: Sequence[ReportPoint]) -> str:
    """`pass_at_32: num_samples=32`: a metric that points have no score of, and what gives it."""
    k = re.fullmatch(r"pass_at_(\d+)", name)
    if k and any(point.samples < int(k[1]) for point in points):
        return f"{name}: num_samples={k[1]}"
    plain = name.removesuffix("*")
    return f"{plain}: diffq score RUN metric={plain}"


def _asked(claim: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a claim says under its kind."""
    (asked,) = (asked for asked in claim.values() if isinstance(asked, Mapping))
    return asked


def _sides(claim: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The points that a claim speaks of."""
    asked = _asked(claim)
    return [asked[name] for name in ("side", "first", "than") if name in asked]


def _judge(held: Mapping[str, Any], task: Task, claim: Mapping[str, Any], value: Any) -> list[Part]:
    if "front" in claim:
        return _front(held, task, claim["front"], value, equal_rows=False)
    found = [_at(task, side, held["along"], value) for side in _sides(claim)]
    if not all(found):
        return []
    for points in found:
        if (trainings := len({point.checkpoint for point in points})) > 1:
            return [Part(f"{trainings} trainings are called {points[0].training or 'nothing'}", None, counts=False)]
    sides = [_plainest(points) for points in found]
    if "within" in claim:
        return _within(sides[0], claim["within"])
    if "falls" in claim:
        return _falls(task, sides[0])
    asked = claim.get("above") or claim["relative"]
    a, b = (_figure(side, asked["metric"], asked.get("over")) for side in sides)
    if a is None or b is None:
        return []
    if a.signature != b.signature:
        return [Part("measured in two ways", None, counts=False)]
    return [Part("", difference(a, b))] if "above" in claim else _relative(a, b)


def _cell(parts: Sequence[Part]) -> str:
    """The verdict and what it rests on; empty where nothing was measured."""
    return "\n".join([together(parts), *(part.said().removeprefix(": ") for part in parts)]) if parts else ""


def _at(task: Task, side: Mapping[str, Any], along: str, value: Any) -> list[ReportPoint]:
    """The points of a side, at a value of the dial where the side does not say at which."""
    wanted = {name: show_value(v) for name, v in side.items() if name not in ("sampler", "training")}
    return [
        point
        for point in task.points
        if point.sampler == side["sampler"]
        and side.get("training") in (None, point.training)
        and (value is None or along in side or _value(point, along) == value)
        and all(show_value(point.dials.get(name)) == v for name, v in wanted.items())
    ]


def _value(point: ReportPoint, along: str) -> Any:
    """The value of the dial that columns run along; None where a point has none, or another number of tokens a step
    decides in its place."""
    value = point.dials.get(along)
    return None if value == 0 and point.dials.get("tokens_per_step", 1) != 1 else value


def _plainest(found: Sequence[ReportPoint]) -> ReportPoint:
    """That with the fewest dials turned."""
    return min(found, key=lambda point: (len(point.changed), point.key))


def _figure(point: ReportPoint, metric: str, over: str | None) -> Figure | None:
    """The metric, or what it is above another one."""
    top = _named(point, metric)
    if over is None or top is None:
        return top
    base = _named(point, over)
    if base is None:
        return None
    draws = None if top.draws is None or base.draws is None else top.draws - base.draws
    return replace(top, value=top.value - base.value, draws=draws, low=None, high=None, halves=None)


def _named(point: ReportPoint, metric: str) -> Figure | None:
    """A figure by its name, or the first of those whose names begin with what stands before a *."""
    if not metric.endswith("*"):
        return point.figures.get(metric)
    return next((figure for name, figure in sorted(point.figures.items()) if name.startswith(metric[:-1])), None)


def _relative(a: Figure, b: Figure) -> list[Part]:
    """100 (a / b − 1). Without an interval where a resample of b is zero or on the other side of it: of a base that may
    be nothing there is no percentage, however few resamples say so."""
    if b.value == 0:
        return [Part("of nothing there is no percentage", None, counts=False)]
    draws = None
    if a.draws is not None and b.draws is not None and not (b.draws * b.value <= 0).any():
        draws = 100 * (a.draws / b.draws - 1)
    return [Part("percent", Gap.of(100 * (a.value / b.value - 1), draws))]


def _within(point: ReportPoint, asked: Mapping[str, Any]) -> list[Part]:
    """Bound − entropy. The bound is what a point records: the mean over its rows of a sum over their rounds."""
    figure, bound = point.figures.get(asked["metric"]), point.records.get(asked["record"])
    if figure is None or bound is None:
        return []
    most = math.log(point.samples)
    if bound >= most:
        said = f"the bound is above the {most:.2f} nats that {point.samples} samples can show at most"
        return [Part(said, None, counts=False)]
    return [Part("", Gap.of(bound - figure.value, None if figure.draws is None else bound - figure.draws))]


def _falls(task: Task, point: ReportPoint) -> list[Part]:
    """By how much energy falls, in nats a token: the mean over seeds, with the mean of their intervals, which is too
    wide where there are several."""
    changes = [task.energies[seed.key] for seed in point.parts or (point,) if seed.key in task.energies]
    if not changes:
        return []
    ends = [(change["value"], change["low"], change["high"]) for change in changes]
    if any(low is None for _, low, _ in ends):
        return [Part("", Gap(-float(np.mean([value for value, _, _ in ends]))))]
    value, low, high = (-float(mean) for mean in np.mean(ends, axis=0))
    return [Part("", Gap(value, high, low))]


def _rows(point: ReportPoint) -> float:
    """Network rows an answer; a point that cannot say is as dear as can be."""
    rows = point.an_answer("nfe_rows")
    return math.inf if rows is None else rows


def _front(
    held: Mapping[str, Any], task: Task, asked: Mapping[str, Any], value: Any, *, equal_rows: bool
) -> list[Part]:
    first = _at(task, asked["first"], held["along"], value)
    than = _at(task, asked["than"], held["along"], None if equal_rows else value)
    figures = [_named(point, name) for point in first[:1] for name in (asked["diversity"], held["quality"])]
    axes = [figure.name for figure in figures if figure is not None]
    first, than = ([p for p in side if len(axes) == 2 and p.figures.keys() >= {*axes}] for side in (first, than))
    if equal_rows and first:
        most = max(_rows(point) for point in first)
        than = [point for point in than if _rows(point) <= most]
    if not first or not than:
        return []
    frontier = build_frontier([*first, *than], [], *axes)
    kept = {point.key for point in frontier.points}
    first, than = ([point for point in side if point.key in kept] for side in (first, than))
    if not first or not than:
        return [Part("measured in two ways", None, counts=False)]
    found = beats(frontier, *(one_line(side[0].sampler, side) for side in (first, than)))
    parts = [Part("hypervolume", Gap.cautious(found.volume, found.volume_optimism))]
    if found.gap is not None:  # without an interval, where resamples share no diversity, it is told and decides nothing
        at_equal = f"{axes[1]} at equal {axes[0]}"
        parts.append(Part(at_equal, Gap.cautious(found.gap, found.optimism), counts=found.gap.low is not None))
    return parts
