"""Mean opinion scores: what people's ratings say of systems, with intervals over sources.

It is no metric of texts that could be computed again, so it is not registered: `diffq mos import` writes it beside the
scores that are. Knows no study and no file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffq.metrics.base import Score
from diffq.metrics.intervals import aggregate, resample, value_of
from diffq.resamples import interval


@aggregate("mos")
def _mean_of_ratings(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    """Ratings summed over sources, by how many there are; NaN where a resample has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = sums[..., 0] / sums[..., 1]
    return found


def opinion(rows: np.ndarray, signature: str) -> Score | None:
    """The score of one system from its sources' (sum of ratings, number of ratings), n × 2; None without a rating.

    Its interval is bootstrapped over sources. There is none, and there are no statistics to compare it by, where so few
    sources are rated that a resample may hold no rating.
    """
    if not rows[:, 1].any():
        return None
    value, rated = value_of(rows, signature), int((rows[:, 1] > 0).sum())
    drawn = resample(rows, signature) if rated > 1 else np.array([np.nan])
    if not np.isfinite(drawn).all():
        return Score("mos", value, signature, "higher", rated)
    return Score("mos", value, signature, "higher", rated, *interval(drawn), rows)
