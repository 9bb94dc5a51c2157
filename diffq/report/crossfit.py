"""Statistics that choose among noisy points and judge the chosen ones, with the optimism of doing both at once removed.

The best of many noisy points looks better than it is (the winner's curse). So the points are chosen on one half of the
sources and judged on the other, over many random halves and both ways (cross-fitting, Chernozhukov et al. 2018). Arrays
alone: knows no metric, no point and no line.

Values are P × 2 × B: two figures of P things, in B resamples of the sources or over B halves of them. Of fronts the
figures are a point's diversity and quality, of `best_gap` those of a point and of the one that it is held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffq.resamples import interval, share_above

REACHED = 0.95  # an interval is given where at least this share of the resamples has a value
WINDOW = 0.25
"""The width of the window in which a curve's slope is taken, a standard deviation, as a share of the curve's range."""

_SEED = 20251103

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(values that choose, values that judge), both P × 2 × B -> the figure in each of the B; NaN where there is none."""


@dataclass(frozen=True)
class Cloud:
    """What is known of P points, or pairs of points.

    measured  P × 2
    draws     P × 2 × B, values in resamples of the sources, the same ones for all points; None where any has none
    halves    P × 2 × 2 × S, values over either half of the sources in S splits, likewise
    """

    measured: np.ndarray
    draws: np.ndarray | None = None
    halves: np.ndarray | None = None

    def times(self, x: float, y: float) -> Cloud:
        """The cloud with diversity and quality multiplied, as by a sign."""
        factor = np.array([x, y], dtype=float)
        draws = None if self.draws is None else self.draws * factor[:, None]
        halves = None if self.halves is None else self.halves * factor[:, None, None]
        return Cloud(self.measured * factor, draws, halves)


@dataclass(frozen=True)
class Estimate:
    """A figure, cross-fitted where halves are known.

    measured  the same with all sources choosing and judging
    draws     its bootstrap distribution about `value`; None where there is nothing to resample, or some resamples give
              no figure
    """

    value: float
    measured: float
    draws: np.ndarray | None = None

    @property
    def optimism(self) -> float:
        """How much better the figure looks when the same sources choose and judge."""
        return self.measured - self.value

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The central 95 % of the draws."""
        if self.draws is None:
            return None, None
        return interval(self.draws)

    @property
    def probability(self) -> float | None:
        """The share of the draws above zero; a draw of zero counts half."""
        if self.draws is None:
            return None
        return share_above(self.draws)


def crossfit(statistic: Statistic, cloud: Cloud, apart: bool = False) -> Estimate | None:
    """The figure of a cloud; None where it has none.

    The value is the mean over splits, chosen on one half and judged on the other, both ways. Its draws are those of the
    bootstrap, moved so that their mean is the value.

    apart  each resample is judged by what another one chose. The best of many varies less than any of them, and less
           than what another half chose: a verdict needs the wider interval
    """
    whole = cloud.measured[:, :, None]
    measured = float(statistic(whole, whole)[0])
    if np.isnan(measured):
        return None
    if cloud.draws is None:
        return Estimate(measured, measured)
    others = np.random.default_rng(_SEED).permutation(cloud.draws.shape[-1]) if apart else slice(None)
    draws = statistic(cloud.draws[..., others], cloud.draws)
    there = ~np.isnan(draws)
    value = measured
    if cloud.halves is not None:
        one, two = cloud.halves[:, :, 0], cloud.halves[:, :, 1]
        crossed = np.concatenate([statistic(one, two), statistic(two, one)])
        there = there if (~np.isnan(crossed)).mean() >= REACHED else np.zeros_like(there)
        value = float(np.nanmean(crossed)) if there.any() else measured
    if there.mean() < REACHED:
        return Estimate(measured, measured)
    held = draws[there]
    return Estimate(value, measured, held - held.mean() + value if cloud.halves is not None else held)


def dominated_area(chosen_P2B: np.ndarray, judged_P2B: np.ndarray) -> np.ndarray:
    """The area between zero and the staircase through the points that `chosen` puts on the Pareto front, at the places
    that `judged` gives them, B values. More is better in both columns.

    The area is Σ xᵢ (yᵢ − yᵢ₋₁), linear in every point: one that was chosen elsewhere is worth what it is worth on
    average, without the luck of being chosen. Two neighbours that change places between the two cost it a little, so it
    errs downwards. It is the hypervolume where `chosen` is `judged`.
    """
    order = np.argsort(-chosen_P2B[:, 0], axis=0, kind="stable")
    x, y = (np.take_along_axis(chosen_P2B[:, at], order, axis=0) for at in (0, 1))
    own_x, own_y = (np.take_along_axis(judged_P2B[:, at], order, axis=0) for at in (0, 1))
    y = np.where(np.isnan(x + y), -np.inf, y)  # what is no number is on no front
    below = np.maximum.accumulate(np.concatenate([np.zeros_like(y[:1]), y]))[:-1]
    kept = (y > below) & (x > 0)
    last = np.maximum.accumulate(np.where(kept, np.arange(len(y))[:, None], -1))
    before = np.concatenate([np.full_like(last[:1], -1), last[:-1]])
    step = own_y - np.where(before >= 0, np.take_along_axis(own_y, before.clip(0), axis=0), 0.0)
    return np.where(kept, own_x * step, 0.0).sum(axis=0)


def heights(
    edges_E2: np.ndarray, levels_L: np.ndarray, chosen_P2B: np.ndarray, judged_P2B: np.ndarray, slopes_L: np.ndarray
) -> np.ndarray:
    """The quality (more is better) of a curve at each level of diversity, L × B; NaN where it does not reach the level.

    edges_E2  pairs of points that a straight line joins; none for a curve of one point, the first of the values
    slopes_L  of the curve about each level

    `chosen` says which edge is the best one at the level and where on it the level lies. `judged` gives that place a
    diversity and a quality of its own; the curve's slope carries the quality over to the level. Without that a strand
    would win by an unlucky diversity and keep what it won. A curve of one point is carried from wherever it lies.
    """
    if not len(edges_E2):
        x_B, y_B = judged_P2B[0]
        return y_B + slopes_L[:, None] * (levels_L[:, None] - x_B)
    (x0, y0), (x1, y1) = (chosen_P2B[edges_E2[:, end]].transpose(1, 0, 2) for end in (0, 1))
    start, end = (judged_P2B[edges_E2[:, at]] for at in (0, 1))
    upright, column = x0 == x1, np.arange(x0.shape[1])
    rows = []
    for level, slope in zip(levels_L, slopes_L, strict=True):
        reached = (np.minimum(x0, x1) <= level) & (level <= np.maximum(x0, x1))
        share = np.where(upright, y1 > y0, np.clip((level - x0) / np.where(upright, 1, x1 - x0), 0, 1))
        best = np.where(reached, y0 + (y1 - y0) * share, -np.inf).argmax(axis=0)
        part = share[best, column]
        x_B, y_B = (start[best, at, column] * (1 - part) + end[best, at, column] * part for at in (0, 1))
        rows.append(np.where(reached.any(axis=0), y_B + slope * (level - x_B), np.nan))
    return np.stack(rows)


def slopes(edges_E2: np.ndarray, levels_L: np.ndarray, measured_P2: np.ndarray, count: int = 25) -> np.ndarray:
    """The slope of a curve about each level: a straight line through its heights in a window of the level. Zero for a
    curve of one point, and for one whose points are all of one diversity."""
    if not len(edges_E2):
        return np.zeros(len(levels_L))
    low, high = measured_P2[:, 0].min(), measured_P2[:, 0].max()
    grid = np.linspace(low, high, count)
    whole = measured_P2[:, :, None]
    curve = heights(edges_E2, grid, whole, whole, np.zeros(count))[:, 0]
    grid, curve = grid[~np.isnan(curve)], curve[~np.isnan(curve)]
    if high == low or len(grid) < 2:
        return np.zeros(len(levels_L))
    away = -0.5 * ((levels_L[:, None] - grid) / (WINDOW * (high - low))) ** 2
    weights = np.exp(away - away.max(axis=1, keepdims=True))  # of a level far from the curve none would be left
    weights /= weights.sum(axis=1, keepdims=True)
    x = grid - (weights @ grid)[:, None]
    return (weights * x * (curve - (weights @ curve)[:, None])).sum(axis=1) / (weights * x * x).sum(axis=1)


def mean_gap(
    curves: tuple[np.ndarray, np.ndarray],
    sides: tuple[np.ndarray, np.ndarray],
    levels_L: np.ndarray,
    measured_P2: np.ndarray,
) -> Statistic:
    """How much higher the first of two curves lies, on average over those of the levels that both reach.

    curves  the edges of either, by the numbers of its own points; sides: which of the P points are its own

    A curve of one point moves along the other's slope, so that a resample which moves the point along the other curve
    changes nothing.
    """
    own = [slopes(edges, levels_L, measured_P2[side]) for edges, side in zip(curves, sides, strict=True)]
    if not len(curves[0]) or not len(curves[1]):
        own = [own[0] + own[1]] * 2

    def statistic(chosen: np.ndarray, judged: np.ndarray) -> np.ndarray:
        one, two = (
            heights(edges, levels_L, chosen[side], judged[side], slope)
            for edges, side, slope in zip(curves, sides, own, strict=True)
        )
        gaps = one - two
        reached = ~np.isnan(gaps)
        count = reached.sum(axis=0)
        return np.where(count > 0, np.where(reached, gaps, 0).sum(axis=0) / np.maximum(count, 1), np.nan)

    return statistic


def best_gap(group_P: np.ndarray) -> Statistic:
    """First figure − second, of the pair with the greatest first figure in each group; mean over groups."""
    members = [np.flatnonzero(group_P == group) for group in np.unique(group_P)]

    def statistic(chosen: np.ndarray, judged: np.ndarray) -> np.ndarray:
        gaps = judged[:, 0] - judged[:, 1]
        first = np.where(np.isnan(chosen[:, 0]), -np.inf, chosen[:, 0])
        column = np.arange(gaps.shape[1])
        return np.mean([gaps[own[first[own].argmax(axis=0)], column] for own in members], axis=0)

    return statistic
