"""How many sources it takes to tell two points apart.

The variance of a paired difference over n sources falls as 1/n. It has two parts: what differs from source to source,
and the noise of the draws, which falls with the number s of samples a source as well:

    Var(difference) = (between + within / s) / n

Two seeds over the same sources differ by draws alone, so half the variance between them is the second part: between two
seeds of a difference (a − b with equal seeds, which share their noise), or between two seeds of either point, summed,
where their draws are independent. With a single seed it is not known; then m times as many samples save at most a
factor of m in sources, and perhaps nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

_BOTH = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.80)


@dataclass(frozen=True)
class Needed:
    """What makes the 95 % interval of a difference exclude zero with a probability of 80 %.

    difference   the size of the difference that is to be seen
    sources      how many sources it takes with as many samples a source as now
    with_samples how many it takes with many samples a source: (samples, sources) pairs; empty where nobody knows the
                 noise of the draws, and then `sources` holds whatever the samples
    least        sources below which no number of samples helps; None where that is not known
    """

    difference: float
    sources: int
    with_samples: tuple[tuple[int, int], ...] = ()
    least: int | None = None


def needed(
    difference: float,
    variance: float,
    sources: int,
    samples: int,
    noise: float | None = None,
    more: tuple[int, ...] = (1, 2, 4, 8, 16),
) -> Needed:
    """Sources (and samples) that tell a difference of this size from zero: two-sided 5 %, power 80 %.

    variance   of the difference as it was measured: that of its bootstrap resamples
    sources, samples   how many there were
    noise      the part of `variance` that is due to the draws, or None where there is one seed alone

    Normal approximation: n = (z_0.975 + z_0.80)² · n₀ · Var / difference². Raises ValueError for a difference of zero,
    which no number of sources shows.
    """
    if difference == 0 or not math.isfinite(difference):
        raise ValueError("a difference of zero cannot be told from zero")
    factor = _BOTH**2 / difference**2
    count = lambda unit: max(2, math.ceil(factor * unit - 1e-9))  # noqa: E731
    unit = variance * sources
    if noise is None:
        return Needed(abs(difference), count(unit))
    within = min(noise, variance) * sources * samples
    between = max(unit - within / samples, 0.0)
    pairs = tuple((s, count(between + within / s)) for s in more)
    return Needed(abs(difference), count(unit), pairs, count(between))
