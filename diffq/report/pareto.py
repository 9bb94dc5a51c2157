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
