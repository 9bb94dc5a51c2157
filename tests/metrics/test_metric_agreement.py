"""Krippendorff's alpha on published examples and against its definition over pairs; mean opinion scores by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from diffq.metrics.agreement import LEVELS, alpha, coincidences
from diffq.metrics.intervals import resample
from diffq.metrics.mos import opinion

X = np.nan
# Krippendorff (2011), C: four observers, twelve units, values missing.
FOUR = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
    [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
])  # fmt: skip
# Ibid., A and B: two observers; two and five categories.
BINARY = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=float)
LETTERS = np.array([[1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1], [2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4]], dtype=float)


def of(values, scale, level):
    return float(alpha(coincidences(values, scale).sum(axis=0), level))


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_table_with_missing_values(level, published):
    assert of(FOUR, (1, 5), level) == pytest.approx(published, abs=5e-4)


def test_two_observers():
    assert of(BINARY, (0, 1), "nominal") == pytest.approx(0.095, abs=5e-4)
    assert of(LETTERS, (1, 5), "nominal") == pytest.approx(0.692, abs=5e-4)


def test_coincidences_of_the_table():
    """The matrix that is printed with the example."""
    expected = [[7, 4 / 3, 1 / 3, 1 / 3, 0], [4 / 3, 10, 4 / 3, 1 / 3, 0], [1 / 3, 4 / 3, 8, 1 / 3, 0],
                [1 / 3, 1 / 3, 1 / 3, 4, 0], [0, 0, 0, 0, 3]]  # fmt: skip
    np.testing.assert_allclose(coincidences(FOUR, (1, 5)).sum(axis=0), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_its_definition_over_pairs(level, seed):
    draw = np.random.default_rng(seed)
    values = draw.integers(1, 6, size=(3, 14)).astype(float)
    values[draw.random(values.shape) < 0.3] = X
    units = [[v for v in column if v == v] for column in values.T]
    units = [unit for unit in units if len(unit) > 1]
    every = [v for unit in units for v in unit]
    count = {c: every.count(c) for c in range(1, 6)}

    def distance(a, b):
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        a, b = int(min(a, b)), int(max(a, b))
        return (sum(count[g] for g in range(a, b + 1)) - (count[a] + count[b]) / 2) ** 2

    observed = sum(distance(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)) / len(every)
    expected = sum(distance(a, b) for a, b in itertools.permutations(every, 2)) / len(every) / (len(every) - 1)
    assert of(values, (1, 5), level) == pytest.approx(1 - observed / expected)


def test_where_nothing_could_disagree_there_is_no_alpha():
    assert np.isnan(of(np.full((2, 4), 3.0), (1, 5), "ordinal"))
    assert np.isnan(of(np.array([[1.0, 2, X], [X, X, 3]]), (1, 5), "nominal"))
    same = np.array([[1.0, 2, 5], [1, 2, 5]])
    assert [of(same, (1, 5), level) for level in LEVELS] == [1, 1, 1]


def test_alpha_is_resampled_over_sources():
    rows = coincidences(FOUR, (1, 5)).reshape(12, -1)
    drawn = resample(rows, "alpha|agg:alpha_interval")
    assert len(drawn) == 1000
    assert np.nanmin(drawn) < of(FOUR, (1, 5), "interval") < np.nanmax(drawn)


def test_an_opinion_is_the_mean_of_ratings_and_needs_enough_sources_for_an_interval():
    signature = "mos|study:x|agg:mos|v:1"
    rows = np.array([[9.0, 2], [3, 1], [8, 2], [4, 1], [5, 2], [2, 1], [10, 2], [3, 1]])
    found = opinion(rows, signature)
    assert found.value == pytest.approx(44 / 12)
    assert found.low < found.value < found.high
    assert (found.n, found.direction) == (8, "higher")
    thin = opinion(np.array([[4.0, 1], [0, 0], [0, 0]]), signature)
    assert (thin.value, thin.low, thin.per_source, thin.n) == (4, None, None, 1)
    assert opinion(np.zeros((3, 2)), signature) is None
