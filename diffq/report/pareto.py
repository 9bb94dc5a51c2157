"""Pareto fronts and hypervolumes in two dimensions, on arrays in which more is better in both columns."""

from __future__ import annotations

import numpy as np


def on_front(points_P2: np.ndarray) -> np.ndarray:
    """True for each row that no other row dominates: none is at least as good in both columns and better in one.

    Equal rows are on the front together; a row with a NaN is never on it. O(P log P).
    """
    values = np.asarray(points_P2, dtype=float).reshape(-1, 2)
    found = np.zeros(len(values), dtype=bool)
    usable = np.flatnonzero(~np.isnan(values).any(axis=1))
    order = usable[np.lexsort((-values[usable, 1], -values[usable, 0]))]
    best, best_x = -np.inf, np.inf
    for at in order:  # from the best first column on, and among equals from the best second
        x, y = values[at]
        if y > best or (y == best and x == best_x):
            found[at] = True
            best, best_x = y, x
    return found


def hypervolume(points_P2: np.ndarray, reference_2: np.ndarray) -> float:
    """The area that the rows dominate above a reference point; rows that are not above it add nothing.

    Zitzler & Thiele (1998), in two dimensions.
    """
    values = np.asarray(points_P2, dtype=float).reshape(-1, 2)
    values = values[(values > reference_2).all(axis=1)]
    area, height = 0.0, float(reference_2[1])
    for x, y in values[np.lexsort((-values[:, 1], -values[:, 0]))]:
        if y > height:
            area += (x - reference_2[0]) * (y - height)
            height = y
    return float(area)


def interpolate(x_PB: np.ndarray, y_PB: np.ndarray, at: float | np.ndarray) -> np.ndarray:
    """The highest y at which the polyline through the P points, in their order, meets x = `at`, in each of B
    resamples; NaN where it does not reach it. Nothing is extrapolated. `at` is one number, or one a resample."""
    x_PB, y_PB = (np.asarray(values, dtype=float) for values in (x_PB, y_PB))
    if len(x_PB) == 1:
        return np.where(x_PB[0] == at, y_PB[0], np.nan)
    x0, x1, y0, y1 = x_PB[:-1], x_PB[1:], y_PB[:-1], y_PB[1:]
    reached = (np.minimum(x0, x1) <= at) & (at <= np.maximum(x0, x1))
    upright = x0 == x1
    share = (at - x0) / np.where(upright, 1, x1 - x0)
    heights = np.where(upright, np.maximum(y0, y1), y0 + (y1 - y0) * share)
    best = np.where(reached, heights, -np.inf).max(axis=0)
    return np.where(np.isneginf(best), np.nan, best)
