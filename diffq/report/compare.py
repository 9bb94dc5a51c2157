"""Differences between points and between whole lines, paired over sources, with what the pairing is worth.

All points of a frontier answered the same sources, and `draws` are the values of one set of resamples of them for every
point. So a difference of draws is paired: what is hard about a source is hard for both and cancels. Points with equal
seeds share their noise too (common random numbers); that is a second effect, and measured apart, where there are
several seeds.

A line's quality at a level of diversity, and its hypervolume, are those of its best points. Chosen by the same figures
that they are judged by, many noisy points look better than they are; `beats` therefore chooses on one half of the
sources and judges on the other half (`crossfit`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffq.report.crossfit import Estimate, crossfit, dominated_area, mean_gap
from diffq.report.frontier import Frontier, Scaling, cloud_of, edges_of, scaling
from diffq.report.points import Figure, Line, ReportPoint
from diffq.report.power import Needed, needed
from diffq.resamples import interval, share_above

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
    gaps = paired(b, a)
    if a.draws is None or b.draws is None or gaps is None:
        return Difference(a.name, value)
    low, high = interval(gaps)
    width = high - low
    apart = interval(b.draws[_shuffle(len(b.draws))] - a.draws)
    narrower = (apart[1] - apart[0]) / width if width > 0 else None
    return Difference(a.name, value, low, high, share_above(a.sign * gaps), narrower)


def paired(a: Figure, b: Figure) -> np.ndarray | None:
    """a − b in each resample; None where one has none, or they were measured in two ways."""
    if a.draws is None or b.draws is None or a.signature != b.signature:
        return None
    return a.draws - b.draws


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
        low, high = interval(drawn[1, second] - drawn[0, first])  # type: ignore[operator]
        return high - low

    equal = float(np.mean([width(s, s) for s in seeds]))
    other = float(np.mean([width(s, t) for s, t in itertools.permutations(seeds, 2)]))
    return [other / equal] if equal > 0 else []


@dataclass(frozen=True)
class Beats:
    """Whether one line lies above another, in two senses; both with the optimism of choosing points taken out.

    span       the diversity that both reach; None where they share none, and then there is no gap
    gap        mean difference in quality over that span (positive: the line is better)
    optimism   how much larger the gap looks when the same sources choose points and judge them
    volume     difference of the hypervolumes, in percent of the report's rectangle; it needs no shared diversity, and
               a line that reaches further has more of it
    volume_optimism   likewise
    """

    line: str
    other: str
    span: tuple[float, float] | None
    gap: Difference | None
    optimism: float
    volume: Difference
    volume_optimism: float


def beats(frontier: Frontier, line: Line, other: Line) -> Beats:
    """Compares two lines. Differences are without an interval where a figure has no resamples.

    Equal figures in a resample count half for either. A line of one point is compared at that point's diversity, to
    which the other line's slope carries it in every resample; lines whose points have no neighbour along a dial have
    no curve, and no gap.
    """
    points = [*line.points, *other.points]
    cloud = cloud_of(frontier, points)
    first = len(line.points)
    sides = np.arange(first), np.arange(first, len(points))
    curves = edges_of(line), edges_of(other)
    turned = cloud.times(1, frontier.signs[1])
    span = _shared(cloud.measured, sides) if all(map(_is_curve, curves, sides)) else None
    gap = None
    if span is not None:
        gap = crossfit(mean_gap(curves, sides, np.unique(np.linspace(*span, LEVELS)), turned.measured), turned)
    box = scaling(frontier)
    volume = crossfit(lambda chosen, judged: _areas(box, sides, chosen, judged), cloud)
    if volume is None:
        raise ValueError(f"{line.label} and {other.label}: a figure is not a number")
    return Beats(
        line.label,
        other.label,
        span if gap is not None else None,
        None if gap is None else as_difference(frontier.y, gap),
        0.0 if gap is None else gap.optimism,
        as_difference("hypervolume", volume),
        volume.optimism,
    )


def _is_curve(edges_E2: np.ndarray, side: np.ndarray) -> bool:
    return len(edges_E2) > 0 or len(side) == 1


def as_difference(name: str, found: Estimate) -> Difference:
    """A cross-fitted figure that is a difference, with its interval."""
    low, high = found.interval
    return Difference(name, found.value, low, high, found.probability)


def _shared(measured_P2: np.ndarray, sides: tuple[np.ndarray, np.ndarray]) -> tuple[float, float] | None:
    """The diversity that both lines reach, as measured; None where that is nothing."""
    ends = [measured_P2[side, 0] for side in sides]
    low, high = max(e.min() for e in ends), min(e.max() for e in ends)
    return (float(low), float(high)) if low <= high else None


def _areas(box: Scaling, sides: tuple[np.ndarray, np.ndarray], chosen: np.ndarray, judged: np.ndarray) -> np.ndarray:
    one, two = (dominated_area(box.shares(chosen[side]), box.shares(judged[side])) for side in sides)
    return 100 * (one - two)


def to_tell(a: ReportPoint, b: ReportPoint, metric: str) -> Needed | None:
    """How many sources, and samples a source, tell two points apart in a metric at the intervals seen so far.

    The draws' share of the variance is known where both are of several seeds; samples are counted over all of them.
    None where one has no resamples, or they do not differ at all.
    """
    one, two = a.figures[metric], b.figures[metric]
    if one.draws is None or two.draws is None or one.value == two.value:
        return None
    seeds = min(len(a.seeds), len(b.seeds))
    variance = float(np.var(two.draws - one.draws, ddof=1))
    now = a.samples * seeds
    return needed(two.value - one.value, variance, a.sources, now, _noise(a, b, metric), (now, 2 * now, 4 * now))


def _noise(a: ReportPoint, b: ReportPoint, metric: str) -> float | None:
    """The part of the variance of b − a that is due to draws: half the variance between two seeds over equal sources.

    Of equal seeds it is that of their differences, in which the noise that both points share has gone; of others the
    sum of both points'. None where a point has a single seed.
    """
    one, two = (
        {part.seed: part.figures[metric].draws for part in point.parts if metric in part.figures} for point in (a, b)
    )
    if a.seeds == b.seeds:
        return _between([two[s] - one[s] for s in one if one[s] is not None and two.get(s) is not None])  # type: ignore[operator]
    parts = [_between([d for d in held.values() if d is not None]) for held in (one, two)]
    return None if parts[0] is None or parts[1] is None else parts[0] + parts[1]


def _between(seeds: list[np.ndarray]) -> float | None:
    """The variance of the mean of several seeds' resamples that differs from seed to seed; None for a single seed."""
    if len(seeds) < 2:
        return None
    return float(np.mean([np.var(x - y, ddof=1) / 2 for x, y in itertools.combinations(seeds, 2)])) / len(seeds)


def _shuffle(count: int) -> np.ndarray:
    """A fixed order that leaves nothing paired."""
    return np.random.default_rng(_SEED).permutation(count)
