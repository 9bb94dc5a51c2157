"""Which axes are logarithmic: those of figures that say how many times as much, where they lie far apart.

A perplexity is e to a mean in nats, so equal steps of quality are equal ratios of it; so it is with time and network
rows. Knows no picture.
"""

from __future__ import annotations

RATIOS = ("gen_ppl", "cost:")
"""What the names of such figures begin with."""

FAR = 8.0
"""From this ratio of the greatest to the least figure on, most points would otherwise lie in one corner."""


def is_ratio(name: str) -> bool:
    """Whether a figure says how many times as much."""
    return name.startswith(RATIOS)


def is_logarithmic(name: str, low: float, high: float) -> bool:
    """Whether an axis on which a figure reaches from low to high is logarithmic."""
    return is_ratio(name) and low > 0 and high >= FAR * low
