"""Differences between points and between whole lines, paired over sources, with what the pairing is worth.

All points of a frontier answered the same sources, and `draws` are the values of one set of resamples of them for every
point. So a difference of draws is paired: what is hard about a source is hard for both and cancels. Points with equal
seeds share their noise too (common random numbers); that is a second effect, and measured apart, where there are
several seeds.

A line's quality at a level of diversity is that of its best points there. Chosen by the same figures that it is judged
by, a line of many noisy points looks better than it is; `beats` therefore chooses on one half of the sources and judges
on the other half.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffq.report.frontier import REACHED, Frontier
from diffq.report.points import Figure, Line, ReportPoint
from diffq.report.power import Needed, needed

LEVELS = 15
"""Levels of diversity over which the quality of two lines is compared."""

_SEED = 20240407


@dataclass(frozen=True)
class Difference:
    """b − a in one metric, paired over sources.

    low, high    95 % interval; None where there is nothing to resample
    probability  the share of resamples in which b is the better one (ties count half)
    narrower     how many times wider the interval would be, had b answered other sources than a
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    probability: float | None = None
    narrower: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def difference(a: Figure, b: Figure) -> Difference:
    """b − a. Without an interval where one of them has no resamples; of figures with equal signatures only."""
    value = b.value - a.value
    if a.draws is None or b.draws is None or a.signature != b.signature:
        return Difference(a.name, value)
    gaps = b.draws - a.draws
    low, high = _interval(gaps)
    better = a.sign * gaps
    share = float((better > 0).mean() + 0.5 * (better == 0).mean())
    width = high - low
    apart = _interval(b.draws[_shuffle(len(b.draws))] - a.draws)
    narrower = (apart[1] - apart[0]) / width if width > 0 else None
    return Difference(a.name, value, low, high, share, narrower)


def differences(a: ReportPoint, b: ReportPoint, metrics: Sequence[str]) -> list[Difference]:
    """b − a in every named metric that both have under one signature."""
    both = [name for name in metrics if name in a.figures and name in b.figures]
    return [
        difference(a.figures[name], b.figures[name])
        for name in both
        if a.figures[name].signature == b.figures[name].signature
    ]


def neighbours(frontier: Frontier) -> Iterator[tuple[Line, ReportPoint, ReportPoint]]:
    """Pairs of points that are next to each other along a dial."""
    for line in frontier.lines:
        if line.kind == "point":
            for strand in line.strands:
                for a, b in itertools.pairwise(strand.points):
                    yield line, a, b


@dataclass(frozen=True)
class Pairing:
    """What pairing is worth for the differences of neighbours along a dial, in one metric.

    sources    ratios of widths: as if on different sources, over paired (both with the same seed)
    numbers    ratios of widths: seeds that differ, over equal seeds, both paired over sources; empty with one seed
    """

    metric: str
    sources: tuple[float, ...]
    numbers: tuple[float, ...] = ()


def pairing(frontier: Frontier, metric: str) -> Pairing:
    """How much narrower the intervals of neighbours' differences are through equal sources and through equal noise."""
    by_sources, by_numbers = [], []
    for _, a, b in neighbours(frontier):
        found = difference(a.figures[metric], b.figures[metric]).narrower
        if found is not None:
            by_sources.append(found)
        by_numbers += _seed_ratio(a, b, metric)
    return Pairing(metric, tuple(by_sources), tuple(by_numbers))


def _seed_ratio(a: ReportPoint, b: ReportPoint, metric: str) -> list[float]:
    """One ratio: the mean width over pairs of different seeds, over the mean width over pairs of equal ones."""
    drawn = {
        (side, part.seed): part.figures[metric].draws
        for side, point in enumerate((a, b))
        for part in point.parts
        if metric in part.figures and part.figures[metric].draws is not None
    }
    seeds = sorted({s for side, s in drawn if side == 0} & {s for side, s in drawn if side == 1})
    if len(seeds) < 2:
        return []

    def width(first: int, second: int) -> float:
        low, high = _interval(drawn[1, second] - drawn[0, first])  # type: ignore[operator]
        return high - low

    equal = float(np.mean([width(s, s) for s in seeds]))
    other = float(np.mean([width(s, t) for s, t in itertools.permutations(seeds, 2)]))
    return [other / equal] if equal > 0 else []


@dataclass(frozen=True)
class Beats:
    """Whether one line lies above another.

    gap          mean difference in quality (positive: the line is better) over the diversity that both reach, with
                 optimism taken out; probability: the share of resamples in which it is positive
    span         the diversity that both reach; None, and no gap, where they share none
    optimism     how much larger the gap looks when points are chosen and judged by the same sources
    """

    line: str
    other: str
    span: tuple[float, float] | None
    gap: Difference | None
    optimism: float = 0.0


def beats(frontier: Frontier, line: Line, other: Line) -> Beats:
    """Compares two lines where they overlap in diversity. Without an interval where a figure has no resamples."""
    span = _shared(frontier, line, other)
    points = [*line.points, *other.points]
    values = _measured(frontier, points), _figures(frontier, points, "draws"), _figures(frontier, points, "halves")
    gap, optimism = (None, 0.0)
    if span is not None:
        levels = np.unique(np.linspace(*span, LEVELS))

        def mean_gap(chosen: _Values, judged: _Values) -> np.ndarray:
            one_LB, two_LB = (_quality(frontier, each, levels, chosen, judged) for each in (line, other))
            gaps_LB = one_LB - two_LB
            reached_LB = ~np.isnan(gaps_LB)
            total_B, count_B = np.where(reached_LB, gaps_LB, 0).sum(0), reached_LB.sum(0)
            return np.where(count_B > 0, total_B / np.maximum(count_B, 1), np.nan)

        gap, optimism = _corrected(frontier.y, mean_gap, *values)
    return Beats(line.label, other.label, span, gap, optimism)


# Diversity and quality of every point by its key, 2 × B: as measured (B = 1), or resampled.
_Values = dict[str, np.ndarray]
_Statistic = Callable[[_Values, _Values], np.ndarray]
"""(values that choose among points, values that judge the chosen ones) -> how much better the first line is, B."""


def _measured(frontier: Frontier, points: Sequence[ReportPoint]) -> _Values:
    return {point.key: values[:, None] for point, values in zip(points, frontier.values(points), strict=True)}


def _figures(frontier: Frontier, points: Sequence[ReportPoint], what: str) -> _Values | None:
    """`draws` (2 × B) or `halves` (2 × 2 × splits) of both axes of every point; None where one has none."""
    found: _Values = {}
    for point in points:
        axes = [getattr(point.figures[name], what) for name in (frontier.x, frontier.y)]
        if any(values is None for values in axes):
            return None
        found[point.key] = np.stack(axes)
    return found


def _corrected(
    name: str, statistic: _Statistic, measured: _Values, drawn: _Values | None, split: _Values | None
) -> tuple[Difference | None, float]:
    """A statistic that chooses among points and judges the chosen ones, cross-fitted, and the optimism of choosing and
    judging by the same sources.

    The value is the mean over random splits of the sources, chosen on one half and judged on the other. The interval is
    that of the bootstrap, shifted so that it lies about this value.
    """
    naive = float(statistic(measured, measured)[0])
    if np.isnan(naive):
        return None, 0.0
    if drawn is None or split is None:
        return Difference(name, naive), 0.0
    one, two = ({key: halves[:, at] for key, halves in split.items()} for at in (0, 1))
    crossed = np.concatenate([statistic(one, two), statistic(two, one)])
    resampled = statistic(drawn, drawn)
    if min((~np.isnan(crossed)).mean(), (~np.isnan(resampled)).mean()) < REACHED:
        return Difference(name, naive), 0.0
    value = float(np.nanmean(crossed))
    shifted = resampled[~np.isnan(resampled)]
    shifted = shifted - shifted.mean() + value
    low, high = _interval(shifted)
    share = float((shifted > 0).mean() + 0.5 * (shifted == 0).mean())
    return Difference(name, value, low, high, share), naive - value


def _shared(frontier: Frontier, line: Line, other: Line) -> tuple[float, float] | None:
    """The diversity that both lines reach, as measured; None where that is nothing."""
    ends = [frontier.values(each.points)[:, 0] for each in (line, other)]
    low, high = max(e.min() for e in ends), min(e.max() for e in ends)
    return (float(low), float(high)) if low <= high else None


def _quality(frontier: Frontier, line: Line, levels: np.ndarray, chosen: _Values, judged: _Values) -> np.ndarray:
    """Signed quality (more is better) of a line at each of L levels, L × B; NaN where it does not reach the level.

    `chosen` says which edge between two neighbours of a strand is the best at the level, and where on it the level
    lies; `judged` what the edge is worth there. A line of one point is at its own level wherever that is.
    """
    sign = int(frontier.signs[1])
    edges = [pair for strand in line.strands for pair in itertools.pairwise(strand.points)]
    if not edges:
        (only,) = {point.key for point in line.points} if len(line.points) == 1 else {""}
        width = chosen[line.points[0].key].shape[1]
        value = sign * judged[only][1] if only else np.full(width, np.nan)
        return np.broadcast_to(value, (len(levels), width))
    (x0, y0), (x1, y1) = (np.stack([chosen[pair[end].key] for pair in edges]).transpose(1, 0, 2) for end in (0, 1))
    ends = [sign * np.stack([judged[pair[end].key][1] for pair in edges]) for end in (0, 1)]
    left, right = (np.broadcast_to(end, x0.shape) for end in ends)
    rows, column = [], np.arange(x0.shape[1])
    for level in levels:
        reached = (np.minimum(x0, x1) <= level) & (level <= np.maximum(x0, x1))
        share = np.clip((level - x0) / np.where(x0 == x1, 1, x1 - x0), 0, 1)
        best = np.where(reached, sign * (y0 + (y1 - y0) * share), -np.inf).argmax(0)
        worth = left[best, column] + (right - left)[best, column] * share[best, column]
        rows.append(np.where(reached.any(0), worth, np.nan))
    return np.stack(rows)


def to_tell(a: ReportPoint, b: ReportPoint, metric: str) -> Needed | None:
    """How many sources, and samples a source, tell two points apart in a metric at the intervals seen so far.

    The draws' share of the variance is known where both are of several seeds. None where one has no resamples, or they
    do not differ at all.
    """
    one, two = a.figures[metric], b.figures[metric]
    if one.draws is None or two.draws is None or one.value == two.value:
        return None
    seeds = min(len(a.seeds), len(b.seeds))
    variance = float(np.var(two.draws - one.draws, ddof=1))
    noises = [_draw_noise(point, metric) for point in (a, b)]
    known = [noise for noise in noises if noise is not None]
    noise = sum(known) / seeds if len(known) == 2 else None
    return needed(two.value - one.value, variance, a.sources, a.samples * seeds, noise)


def _draw_noise(point: ReportPoint, metric: str) -> float | None:
    """The variance of one seed's value that is due to its draws: half that between two seeds over equal sources."""
    drawn = [p.figures[metric].draws for p in point.parts if metric in p.figures]
    held = [d for d in drawn if d is not None]
    if len(held) < 2:
        return None
    return float(np.mean([np.var(x - y, ddof=1) / 2 for x, y in itertools.combinations(held, 2)]))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _shuffle(count: int) -> np.ndarray:
    """A fixed order that leaves nothing paired."""
    return np.random.default_rng(_SEED).permutation(count)
