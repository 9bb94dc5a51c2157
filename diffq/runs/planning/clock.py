"""From work to seconds: a price for each kind of work, corrected by the points that have been sampled.

    seconds = Σ_k price_k · amount_k

Prices begin as those of one machine of a kind (`_PRICES`), known to a common factor that is unknown and to small
factors of their own. Finished points move them: one fixes the common factor, more fix the shares as well. Logarithms of
prices are fitted, so none is ever negative. Without a finished point there is no clock: another machine's seconds are
no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffq.models.work import Work

# Seconds for one of each of `Work`'s amounts, in its order. `cpu`: one core of an AMD EPYC with AVX2, torch 2.13,
# float32, fitted to 150 timings of gaussian_tiny, _mini, _small and their twins (docs/planning.md). `cuda`: worked out
# from a data sheet (30 TFLOP/s float32, 2 TB/s) and 10 µs an operation, not measured.
_PRICES = {
    #        started  flops    elements streamed projectn ranked  weighed  sorted   drawn
    "cpu": (1.05e-05, 9.6e-12, 8.0e-10, 1.0e-09, 1.3e-11, 4.5e-10, 2.2e-09, 1.05e-07, 2.0e-08),
    "cuda": (1.0e-05, 3.3e-14, 4.0e-12, 2.0e-12, 3.3e-14, 4.0e-12, 2.5e-11, 1.0e-09, 1.0e-10),
}
# What more threads of a CPU make cheaper, and how much of their number arrives.
_SHARED = (0.0, 0.8, 0.8, 0.3, 0.8, 0.8, 0.8, 0.7, 0.8)
_COMMON = 4.0  # standard deviation of the logarithm of the factor that all prices share
_OWN = 0.35  # … of each price's own factor
_NOISE = 0.12  # … of a timing
_OUTLIER = 2.0  # timings further off than so many times _NOISE count for less
_STEPS = 60


@dataclass(frozen=True)
class Timing:
    """What a finished point took: its work, and its seconds."""

    work: Work
    seconds: float


@dataclass(frozen=True)
class Clock:
    """Prices that fit what has been timed. `timings` is how many points they were fitted to."""

    prices: tuple[float, ...]
    timings: int

    def seconds(self, work: Work) -> float:
        return float(np.dot(self.prices, work.amounts))

    @classmethod
    def fitted(cls, timings: Sequence[Timing], device: str) -> Clock | None:
        """The clock of timings on one device, or None where there is none. device: as `device_name` writes it.

        The mode of the posterior: normal logarithms of prices about `_PRICES` with one common factor, normal noise on
        the logarithm of seconds, outliers weighed down (Huber's weights), by damped Gauss–Newton.
        """
        timings = [t for t in timings if t.seconds > 0 and any(t.work.amounts)]
        if not timings:
            return None
        start = np.log(_starting_prices(device))
        amounts = np.array([t.work.amounts for t in timings])
        seconds = np.log([t.seconds for t in timings])
        kinds = len(start)
        precision = np.linalg.inv(_OWN**2 * np.eye(kinds) + _COMMON**2 * np.ones((kinds, kinds)))
        # The common factor alone first: the steps below are then small ones.
        prices = start + np.median(seconds - np.log(amounts @ np.exp(start)))
        for _ in range(_STEPS):
            parts = amounts * np.exp(prices)
            total = parts.sum(1)
            off = seconds - np.log(total)
            slope = parts / total[:, None]
            weight = np.minimum(1, _OUTLIER * _NOISE / np.maximum(np.abs(off), 1e-12)) / _NOISE**2
            gradient = slope.T @ (weight * off) - precision @ (prices - start)
            step = np.linalg.solve(slope.T @ (slope * weight[:, None]) + precision, gradient)
            prices = prices + np.clip(step, -0.5, 0.5)
            if np.abs(step).max() < 1e-6:
                break
        return cls(tuple(float(p) for p in np.exp(prices)), len(timings))


def _starting_prices(device: str) -> np.ndarray:
    """Prices of a device before anything was timed on it; only their ratios matter."""
    if not device.startswith(("cpu", "mps")):
        return np.array(_PRICES["cuda"])
    words = device.removesuffix(" threads").split(", ")
    threads = int(words[1]) if len(words) == 2 and words[1].isdigit() else 1
    return np.array(_PRICES["cpu"]) / threads ** np.array(_SHARED)
