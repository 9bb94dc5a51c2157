"""What resampled values say: the central 95 % of them, and how many are above zero. Knows no metric and no point."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95


def interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of resampled values (percentile method)."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def share_above(values: np.ndarray) -> float:
    """The share of resampled values above zero; one of zero counts half."""
    return float((values > 0).mean() + 0.5 * (values == 0).mean())
