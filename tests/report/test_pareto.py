"""Fronts and hypervolumes are those that one gets by looking at every pair and every cell."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffq.report.pareto import hypervolume, on_front

small = st.integers(0, 6)
grids = st.lists(st.tuples(small, small), max_size=12).map(lambda rows: np.array(rows, dtype=float).reshape(-1, 2))


def brute_front(values: np.ndarray) -> list[bool]:
    return [not any((b >= a).all() and (b > a).any() for b in values) for a in values]


def brute_volume(values: np.ndarray, reference: tuple[float, float]) -> int:
    """How many unit cells above the reference lie below some point."""
    cells = [(i, j) for i in range(7) for j in range(7)]
    return sum(
        i >= reference[0] and j >= reference[1] and any(x >= i + 1 and y >= j + 1 for x, y in values) for i, j in cells
    )


@settings(max_examples=300, deadline=None)
@given(grids)
def test_front_is_what_no_point_dominates(values):
    assert on_front(values).tolist() == brute_front(values)


@settings(max_examples=300, deadline=None)
@given(grids, st.tuples(small, small))
def test_hypervolume_counts_cells(values, reference):
    assert hypervolume(values, np.array(reference, dtype=float)) == brute_volume(values, reference)


@settings(max_examples=100, deadline=None)
@given(grids, st.randoms(use_true_random=False))
def test_order_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert on_front(values[order]).tolist() == on_front(values)[order].tolist()
    assert hypervolume(values[order], np.zeros(2)) == hypervolume(values, np.zeros(2))


def test_a_missing_value_is_never_on_the_front():
    assert on_front(np.array([[np.nan, 9], [1, 1], [2, np.nan]])).tolist() == [False, True, False]
