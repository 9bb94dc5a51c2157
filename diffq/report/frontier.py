"""A frontier: many points seen through one quality metric and one diversity metric.

Here are the Pareto front, the hypervolume, and quality at equal diversity. Knows no file and draws nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffq.errors import UserError, unknown
from diffq.report.crossfit import Cloud, crossfit, dominated_area, heights, mean_gap, slopes
from diffq.report.pareto import on_front
from diffq.report.points import Figure, Line, ReportPoint, make_lines
from diffq.report.seeds import pool_seeds

UNBOUNDED = (
    "vendi", "kl", "seconds", "tokens_per_second", "nfe_calls", "nfe_rows", "peak_memory", "gen_ppl", "unigram_entropy",
    "answer_entropy", "distinct_solutions", "distinct_answers", "mos",
)  # fmt: skip
"""Metrics (by the beginning of their names) that are not between 0 and 100."""

FROM_ZERO = ("answer_entropy", "distinct_solutions", "distinct_answers")
"""Those of them whose worst value is 0, whatever the points are; of the others it is that of the worst point."""


@dataclass(frozen=True)
class Frontier:
    """Points of equal dataset, sources and samples a source that have both figures.

    x, y      names of the diversity and the quality metric; both empty where points are only to be tabulated
    front     keys of the points that no other point dominates
    notes     what was left out and why, a sentence each
    """

    x: str
    y: str
    points: tuple[ReportPoint, ...]
    nulls: tuple[ReportPoint, ...]
    lines: tuple[Line, ...]
    front: frozenset[str]
    notes: tuple[str, ...] = ()

    def figure(self, name: str) -> Figure:
        """A metric's figure of the first point: its direction and signature, which are those of all."""
        return self.points[0].figures[name]

    @property
    def signs(self) -> np.ndarray:
        """+1 where more is better and −1 where less is, for x and y."""
        return np.array([self.figure(self.x).sign, self.figure(self.y).sign])

    def values(self, points: Iterable[ReportPoint]) -> np.ndarray:
        """P × 2 values of x and y as they were measured."""
        return np.array([[p.figures[self.x].value, p.figures[self.y].value] for p in points]).reshape(-1, 2)

    def is_share(self, column: int) -> bool:
        """Whether x (0) or y (1) is measured between 0 and 100, as far as one can see."""
        name, values = (self.x, self.y)[column], self.values([*self.points, *self.nulls])[:, column]
        return not name.startswith(UNBOUNDED) and bool(values.min() >= -1e-6 and values.max() <= 100 + 1e-6)

    def draws(self, point: ReportPoint) -> np.ndarray | None:
        """2 × B resampled values of x and y, paired; None where either has none."""
        x, y = point.figures[self.x].draws, point.figures[self.y].draws
        return None if x is None or y is None else np.stack([x, y])


def cloud_of(frontier: Frontier, points: Sequence[ReportPoint]) -> Cloud:
    """What is known of the x and y of some points."""
    return cloud_of_figures([(point.figures[frontier.x], point.figures[frontier.y]) for point in points])


def cloud_of_figures(figures_P2: Sequence[tuple[Figure, Figure]]) -> Cloud:
    """What is known of pairs of figures."""

    def together(what: str) -> np.ndarray | None:
        held = [[getattr(figure, what) for figure in row] for row in figures_P2]
        return None if any(values is None for row in held for values in row) else np.array(held)

    measured = np.array([[figure.value for figure in row] for row in figures_P2]).reshape(-1, 2)
    return Cloud(measured, together("draws"), together("halves"))


def edges_of(line: Line) -> np.ndarray:
    """E × 2: the pairs of the line's points, by their number, that are neighbours along a dial."""
    pairs, start = [], 0
    for strand in line.strands:
        pairs += [(start + at, start + at + 1) for at in range(len(strand.points) - 1)]
        start += len(strand.points)
    return np.array(pairs, dtype=int).reshape(-1, 2)


def build_frontier(points: Sequence[ReportPoint], nulls: Sequence[ReportPoint], x: str, y: str) -> Frontier:
    """The frontier of the points that can be compared; which ones were left out stands in its notes.

    Points that differ in the seed alone are one. Raises UserError where a metric is unknown to every point, or is the
    same on both axes.
    """
    points = pool_seeds(points)
    if x == y:
        raise UserError(f"x and y are both {x}; a frontier needs a diversity metric and a quality metric")
    known = {name for point in points for name in point.figures}
    for name in (x, y):
        if name not in known:
            error = unknown("scored metric", name, known)
            raise UserError(f"{error}; more are computed with diffq score RUN metric=…")
    notes: list[str] = []
    scored = [point for point in points if x in point.figures and y in point.figures]
    if len(scored) < len(points):
        missing = len(points) - len(scored)
        notes.append(f"{_points(missing)} without {x} or {y} left out; score them with diffq score RUN metric=…")
    if not scored:
        raise UserError(f"no point has both {x} and {y}; score them with diffq score RUN metric=…")
    kept, left_out = _comparable(scored, x, y)
    notes += left_out
    if asked := dict.fromkeys(name for point in kept for name in point.asked):
        notes.append(f"lines differ in {', '.join(asked)}: of one source they are asked different things")
    here = [null for null in nulls if x in null.figures and y in null.figures]
    here = [null for null in here if _group(null, x, y)[1:] == _group(kept[0], x, y)[1:]]
    made = Frontier(x, y, tuple(kept), tuple(here), tuple(make_lines([*kept, *here])), frozenset(), tuple(notes))
    best = on_front(made.values(kept) * made.signs)
    front = frozenset(point.key for point, best_one in zip(kept, best, strict=True) if best_one)
    return Frontier(x, y, made.points, made.nulls, made.lines, front, made.notes)


def _group(point: ReportPoint, x: str, y: str) -> tuple[Any, ...]:
    """What must be equal on one front. (dataset and sources, then s and both signatures)"""
    return (
        (point.dataset, point.sources_digest),
        point.samples,
        point.figures[x].signature,
        point.figures[y].signature,
    )


def _comparable(points: Sequence[ReportPoint], x: str, y: str) -> tuple[list[ReportPoint], list[str]]:
    """The largest set of points that belong on one front, and a sentence for each reason that others do not."""
    groups = Counter(_group(point, x, y) for point in points)
    chosen = groups.most_common(1)[0][0]
    kept = [point for point in points if _group(point, x, y) == chosen]
    reasons: Counter[str] = Counter()
    for point in points:
        group = _group(point, x, y)
        if group[0] != chosen[0] and point.given != kept[0].given:
            reasons[f"of other prompts left out: the front is of {kept[0].given} tokens given"] += 1
        elif group[0] != chosen[0]:
            reasons["over other sources than the rest left out: only equal sources are comparable"] += 1
        elif group[1] != chosen[1]:
            reason = f"with s={point.samples} left out: the front is of s={chosen[1]}, and diversity depends on s"
            reasons[reason] += 1
        elif group != chosen:
            reasons["whose metrics have another signature left out: they measure something else"] += 1
    return kept, [f"{_points(count)} {reason}" for reason, count in reasons.items()]


def _points(count: int) -> str:
    return f"{count} point" + ("" if count == 1 else "s")


@dataclass(frozen=True)
class Volume:
    """The hypervolume of a line, or of all points: the share of the rectangle between the reference point and the
    other corner that is dominated, 0 … 1.

    value     where halves of the sources are known, that of points chosen on one half and judged on the other
    measured  that of the figures as they are, which is the larger the more noisy points there are
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    measured: float | None = None


@dataclass(frozen=True)
class Scaling:
    """The rectangle that hypervolumes are shares of: from the reference point (worst) to the best corner."""

    worst: tuple[float, float]
    best: tuple[float, float]
    bounded: tuple[bool, bool]

    def shares(self, values_P2B: np.ndarray) -> np.ndarray:
        """The place of x and y between worst (0) and best (1)."""
        worst, best = np.array(self.worst), np.array(self.best)
        span = np.where(best == worst, 1.0, best - worst)
        return (values_P2B - worst[:, None]) / span[:, None]

    def describe(self, x: str, y: str) -> str:
        """`reference point self_bleu=100, bleu=0; scaled by …`."""
        scales = []
        for name, worst, best, bounded in zip((x, y), self.worst, self.best, self.bounded, strict=True):
            how = "" if bounded else " (the range of these points)"
            scales.append(f"{name} from {worst:g} to {best:g}{how}")
        return f"reference point {x}={self.worst[0]:g}, {y}={self.worst[1]:g}; scaled {' and '.join(scales)}"


def scaling(frontier: Frontier) -> Scaling:
    """0 and 100 for metrics with these bounds, the worst and best value of all points and null lines for others, and 0
    for the worst of what is counted from there."""
    values = frontier.values([*frontier.points, *frontier.nulls])
    worst, best, bounded = [], [], []
    for column, (name, sign) in enumerate(zip((frontier.x, frontier.y), frontier.signs, strict=True)):
        low, high = 0.0, 100.0
        here = values[:, column]
        inside = frontier.is_share(column)
        if not inside:
            low, high = 0.0 if name.startswith(FROM_ZERO) else float(here.min()), float(here.max())
        worst.append(low if sign > 0 else high)
        best.append(high if sign > 0 else low)
        bounded.append(inside)
    return Scaling((worst[0], worst[1]), (best[0], best[1]), (bounded[0], bounded[1]))


def volumes(frontier: Frontier) -> tuple[list[Volume], Scaling]:
    """The hypervolume of all points together, then of each line (null lines too), with bootstrap intervals where both
    figures have resampled values; and the rectangle they are shares of."""
    box = scaling(frontier)
    found = [_volume(frontier, "all samplers", frontier.points, box)]
    found += [_volume(frontier, line.label, line.points, box) for line in frontier.lines]
    return found, box


def _volume(frontier: Frontier, label: str, points: Sequence[ReportPoint], box: Scaling) -> Volume:
    found = crossfit(
        lambda chosen, judged: dominated_area(box.shares(chosen), box.shares(judged)), cloud_of(frontier, points)
    )
    if found is None:
        raise ValueError(f"{label}: a figure is not a number")
    low, high = found.interval
    return Volume(label, found.value, low, high, found.measured)


@dataclass(frozen=True)
class AtLevel:
    """A line's quality at one level of diversity, and how much better that is than another line's (`gain`, positive
    where it is better). None where the line does not reach the level, or there is nothing to resample.

    Both with the optimism of choosing the best strand taken out; `measured` is the quality with it.
    """

    level: float
    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    measured: float | None = None


def reference_line(frontier: Frontier) -> Line:
    """The line that others are compared with: the autoregressive one, where there is one, since that has a
    temperature; else the one with the plain baseline; else the first."""
    lines = [line for line in frontier.lines if line.kind == "point"]
    for wanted in (lambda p: p.process == "causal", lambda p: p.plain):
        for line in lines:
            if any(wanted(point) for point in line.points):
                return line
    return lines[0]


def at_equal_diversity(
    frontier: Frontier, levels: Sequence[float] | None = None, against: Line | None = None
) -> list[AtLevel]:
    """Quality of every line at each level of diversity, by linear interpolation along its strands, of which the best
    counts: chosen on one half of the sources and judged on the other.

    levels: at most five round values that at least two lines reach, where None. against: `reference_line`, where None.
    """
    compared = against or reference_line(frontier)
    chosen = list(levels if levels is not None else _levels(frontier))
    if levels is None and len(compared.points) == 1:  # a single point is met at its own diversity alone
        chosen = list({*chosen, float(frontier.values(compared.points)[0, 0])})
    return [_at(frontier, line, compared, level) for level in sorted(chosen) for line in frontier.lines]


def _at(frontier: Frontier, line: Line, other: Line, level: float) -> AtLevel:
    sign, levels, edges = float(frontier.signs[1]), np.array([level]), edges_of(line)
    own = cloud_of(frontier, line.points).times(1, sign)
    slope = slopes(edges, levels, own.measured)
    found = crossfit(lambda chosen, judged: heights(edges, levels, chosen, judged, slope)[0], own)
    if found is None or not _reaches(frontier, line, level):
        return AtLevel(level, line.label, None)
    low, high = found.interval
    if sign < 0 and low is not None and high is not None:
        low, high = -high, -low
    made = AtLevel(level, line.label, sign * found.value, low, high, measured=sign * found.measured)
    if line is other or not _reaches(frontier, other, level):
        return made
    first, count = len(line.points), len(line.points) + len(other.points)
    both = cloud_of(frontier, [*line.points, *other.points]).times(1, sign)
    sides = np.arange(first), np.arange(first, count)
    gap = crossfit(mean_gap((edges, edges_of(other)), sides, levels, both.measured), both)
    if gap is None:
        return made
    low, high = gap.interval
    return replace(made, gain=gap.value, gain_low=low, gain_high=high)


def _reaches(frontier: Frontier, line: Line, level: float) -> bool:
    """Whether a line can be read at a level: along its strands, or at its one point's own. (Gaps between strands are
    found when it is read.)"""
    if any(len(strand.points) > 1 for strand in line.strands):
        return True
    return len(line.points) == 1 and float(frontier.values(line.points)[0, 0]) == level


def _levels(frontier: Frontier, most: int = 5) -> list[float]:
    ranges = []
    for line in frontier.lines:
        for strand in line.strands:
            xs = frontier.values(strand.points)[:, 0]
            ranges.append((line.label, float(xs.min()), float(xs.max())))
    low, high = min(r[1] for r in ranges), max(r[2] for r in ranges)
    if high == low:
        return []
    for pieces in (6, 12, 24, 48):
        step = nice_step((high - low) / pieces)
        ticks = [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        reached = [t for t in ticks if len({label for label, a, b in ranges if a <= t <= b}) >= 2]
        if len(reached) >= 3 or (reached and pieces == 48):
            kept = np.unique(np.linspace(0, len(reached) - 1, min(most, len(reached))).round().astype(int))
            return [reached[i] for i in kept]
    return []


def nice_step(raw: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-12))
