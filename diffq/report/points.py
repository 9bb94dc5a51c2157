"""The points of a report: records of the store seen as figures with intervals, and the lines they belong to.

Knows no file and no metric: resampled values (`draws`) are given by the caller, the same resamples for every point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from diffq.report.given import Given
from diffq.store.identity import show_value
from diffq.store.index import Record
from diffq.store.scores import pick_scores

RUNNING = ("temperature", "scale", "q", "top_p", "steps")  # the dial a line runs along, where several vary alike


COSTS = ("nfe_calls", "nfe_rows", "seconds", "rows")


@dataclass(frozen=True)
class Figure:
    """One metric of one point.

    draws    its values in bootstrap resamples of the sources, where there are any
    halves   its values over either half of the sources, 2 × splits, likewise
    between  the standard deviation between seeds, where the point is of several (their range is in its `parts`)
    """

    name: str
    value: float
    signature: str
    direction: str
    low: float | None = None
    high: float | None = None
    draws: np.ndarray | None = field(default=None, compare=False, repr=False)
    halves: np.ndarray | None = field(default=None, compare=False, repr=False)
    between: float | None = None

    @property
    def sign(self) -> int:
        """+1 where higher is better, −1 where lower is."""
        return -1 if self.direction == "lower" else 1


@dataclass(frozen=True)
class ReportPoint:
    """One point of a frontier, or of a null line (`kind` null).

    sampler     the name it was asked for; `canonical` the one it is stored under
    samples     s, how many samples a source the figures are over
    plain       True for the baseline: no guidance, temperature 0, no clamp
    idle        dials that say nothing beside the others, which labels leave out
    own         numbers that its sampler alone is dialled by, such as the alpha and chain of `imh`
    checkpoint  digest of the weights
    training    what their training was called; empty where it was given no name
    parts       the points of single seeds that this one is the mean of; empty where it is of one seed
    given       what is given of a running text; None for other tasks
    asked       settings of the data set in which the points of this report differ, such as keywords
    records     means of what the sampler said of itself, such as acceptance
    """

    key: str
    folder: str
    sampler: str
    canonical: str
    dataset: str
    model: str
    process: str
    length: str
    seed: int
    samples: int
    sources: int
    sources_digest: str
    dials: Mapping[str, Any]
    changed: tuple[str, ...]
    figures: Mapping[str, Figure]
    idle: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    costs: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["point", "null"] = "point"
    checkpoint: str = ""
    training: str = ""
    parts: tuple[ReportPoint, ...] = ()
    given: Given | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, sampler: str = "", samples: int = 0, **more: Any) -> ReportPoint:
        """What a record says; `more` is what it does not: `idle`, `own`, `given`, `asked`, `training`.

        sampler, samples: the name and the number a sweep asked for; the record's own where they are missing. Of two
        figures with one name, that over `samples` samples a source is taken.
        """
        count = samples or record.samples
        costs = {name: float(record.run[name]) for name in COSTS if name in record.run}
        return cls(
            key=record.key,
            folder=record.folder,
            sampler=sampler or record.sampler,
            canonical=record.sampler,
            dataset=record.dataset,
            model=record.model,
            process=record.process,
            length=record.length,
            seed=record.seed,
            samples=count,
            sources=record.sources,
            sources_digest=str(record.run.get("sources_digest", "")),
            dials=record.dials,
            changed=record.changed,
            figures=pick_figures(record.metrics, count),
            costs=costs,
            checkpoint=str(record.run.get("checkpoint", "")),
            records=record.run.get("records", {}),
            **more,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that the figures are of."""
        return tuple(part.seed for part in self.parts) or (self.seed,)

    @property
    def question(self) -> str:
        """`keywords 2`: what is asked of this point and not of all; empty where the same is."""
        return ", ".join(f"{name.replace('_', ' ')} {show_value(value)}" for name, value in self.asked.items())

    @property
    def plain(self) -> bool:
        """True where no dial is turned that trades quality for diversity: no guidance, temperature 0, no clamp."""
        off = {"scale": 1, "temperature": 0, "clamp": "none"}
        return (
            self.kind == "point"
            and self.process != "causal"
            and "clamp" not in self.sampler
            and "clamp" not in self.canonical
            and all(self.dials.get(name, value) == value for name, value in off.items())
        )

    def an_answer(self, cost: str) -> float | None:
        """A cost of the whole run, one of `COSTS`, divided by the rows that it sampled; None where it is not known."""
        rows = self.costs.get("rows")
        return self.costs[cost] / rows if rows and cost in self.costs else None

    def with_draws(
        self, draws: Mapping[str, np.ndarray], halves: Mapping[str, np.ndarray] | None = None
    ) -> ReportPoint:
        """The point with resampled values for the named figures, and with their values over halves of the sources."""
        split = halves or {}
        figures = {
            name: replace(f, draws=draws.get(name, f.draws), halves=split.get(name, f.halves))
            for name, f in self.figures.items()
        }
        return replace(self, figures=figures)


def pick_figures(metrics: Mapping[str, Mapping[str, Any]], samples: int) -> dict[str, Figure]:
    """Figures by name out of scores by signature; of several with one name, the one over `samples` samples a source,
    and of those the one that was written last."""
    chosen = {}
    for name, signature in pick_scores(metrics, samples).items():
        score = metrics[signature]
        chosen[name] = Figure(
            name,
            float(score["value"]),
            signature,
            str(score["direction"]),
            score.get("low"),
            score.get("high"),
        )
    return chosen


@dataclass(frozen=True)
class Strand:
    """Points of one line that differ in one dial alone, ordered along it. `fixed` are the values of the others."""

    along: str
    fixed: Mapping[str, Any]
    points: tuple[ReportPoint, ...]


@dataclass(frozen=True)
class Line:
    """All points of one sampler on one model: one colour and one marker.

    A grid over several dials falls into strands, one for each combination of the dials that it does not run along.
    """

    label: str
    kind: Literal["point", "null"]
    varying: tuple[str, ...]
    strands: tuple[Strand, ...]

    @property
    def points(self) -> list[ReportPoint]:
        return [point for strand in self.strands for point in strand.points]


def make_lines(points: Sequence[ReportPoint]) -> list[Line]:
    """One line a sampler, in the order in which they come, several trainings of one model by name; null lines last.

    Where one sampler was used with several models, checkpoints, length models or seeds, or asked several things of one
    data set, the label says which. Of a checkpoint it says what its training was called, or the first digits of its
    digest.
    """
    called = _called(points)
    groups: dict[tuple[Any, ...], list[ReportPoint]] = {}
    for point in points:
        seeds = ", ".join(map(str, point.seeds))
        key = (point.kind, point.sampler, point.model, point.checkpoint[:6], point.question, point.length, seeds)
        groups.setdefault(key, []).append(point)
    first: dict[tuple[Any, ...], int] = {}  # by names, pictures of two data sets give trainings called alike one colour
    for key in groups:
        first.setdefault(key[:3], len(first))
    lines = []
    for key, members in sorted(groups.items(), key=lambda item: (first[item[0][:3]], called.get(item[0][3], ""))):
        kind, sampler, *rest = key
        label = sampler
        for at, (value, prefix) in enumerate(zip(rest, ("", "checkpoint ", "", "length ", "seed "), strict=True)):
            like = (kind, sampler, rest[0]) if prefix == "checkpoint " else (kind, sampler)
            if len({other[at + 2] for other in groups if other[: len(like)] == like}) > 1:
                label += f" · {called.get(value) or prefix + value}" if value else ""
        varying = varying_dials(members)
        lines.append(Line(label, kind, varying, tuple(_strands(members, varying))))
    return sorted(lines, key=lambda line: line.kind == "null")


def one_line(label: str, points: Sequence[ReportPoint]) -> Line:
    """All these points as one line, whatever they differ in; strands join those that differ in dials and seeds alone,
    so a point of two seeds is a neighbour of one of a single seed."""
    groups: dict[tuple[Any, ...], list[ReportPoint]] = {}
    for point in points:
        key = (point.sampler, point.model, point.checkpoint, point.question, point.length)
        groups.setdefault(key, []).append(point)
    strands = [strand for members in groups.values() for strand in _strands(members, varying_dials(members))]
    return Line(label, "point", varying_dials(points), tuple(strands))


def _called(points: Iterable[ReportPoint]) -> dict[str, str]:
    """The names of trainings by the first digits of their checkpoints; without those that two of one model share."""
    of = {point.checkpoint[:6]: (point.model, point.training) for point in points}
    return {digits: name[1] for digits, name in of.items() if list(of.values()).count(name) == 1}


def varying_dials(points: Iterable[ReportPoint]) -> tuple[str, ...]:
    """The dials with more than one value, in the order of the sampler."""
    values: dict[str, set[str]] = {}
    for point in points:
        for name, value in point.dials.items():
            values.setdefault(name, set()).add(show_value(value))
    return tuple(name for name, seen in values.items() if len(seen) > 1)


def said_dials(point: ReportPoint, varying: Sequence[str]) -> tuple[str, ...]:
    """The dials that are said of a point of a line: those that vary along it; where none does, those that are turned
    and those that are its sampler's own."""
    return tuple(varying) or tuple(name for name in point.dials if name in point.changed or name in point.own)


def _strands(points: Sequence[ReportPoint], varying: Sequence[str]) -> list[Strand]:
    def spread(name: str) -> tuple[int, int]:
        count = len({show_value(point.dials.get(name)) for point in points})
        return (count, -RUNNING.index(name) if name in RUNNING else -len(RUNNING))

    along = max(varying, key=spread, default="")
    groups: dict[tuple[str, ...], list[ReportPoint]] = {}
    others = [name for name in varying if name != along]
    for point in points:
        groups.setdefault(tuple(show_value(point.dials.get(name)) for name in others), []).append(point)
    strands = []
    for members in groups.values():
        ordered = tuple(sorted(members, key=lambda point: _order(point.dials.get(along))))
        strands.append(Strand(along, {name: ordered[0].dials.get(name) for name in others}, ordered))
    return strands


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers in their order, before everything else by its text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, show_value(value))


SHORT = {"scale": "s", "temperature": "τ", "steps": "n", "top_p": "p", "top_k": "k", "solver": "", "clip_x0": "clip "}


def short_dials(point: ReportPoint, names: Sequence[str]) -> str:
    """`s2 τ0.5`: the named dials as they are written at a point. Steps are `n30`."""
    parts = []
    for name in names:
        if name in point.dials and name not in point.idle:
            value = show_value(point.dials[name])
            parts.append(f"{SHORT.get(name, name.replace('_', ' ') + ' ')}{value}")
    return " ".join(parts)


def long_dials(point: ReportPoint, names: Sequence[str]) -> str:
    """`scale 2, temperature 0.5`, for tables."""
    said = [name for name in names if name in point.dials and name not in point.idle]
    return ", ".join(f"{name} {show_value(point.dials[name])}" for name in said)
