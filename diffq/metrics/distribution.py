"""How far the sampled distribution of a world is from the true one, and how far exact draws would be.

Both distances are of the empirical distribution of a source's s samples, so they are biased upwards: s exact draws have
a distance too. That expectation is exact, since both distances are sums over answers and each answer's count is
binomial; it is offered as a metric of its own, the floor, with the same unit and the same s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from diffq.metrics.base import Answers, Direction
from diffq.metrics.world import WorldMetric
from diffq.registry import METRICS
from diffq.settings import setting


def binomial(s: int, p_N: np.ndarray) -> np.ndarray:
    """P(K = k), shape (s + 1) × N, for K ~ Binomial(s, p) and p in (0, 1]."""
    k = np.arange(s + 1, dtype=np.float64)[:, None]
    ways = np.array([math.lgamma(s + 1) - math.lgamma(j + 1) - math.lgamma(s - j + 1) for j in range(s + 1)])[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.where(k == s, 0.0, (s - k) * np.log1p(-np.minimum(p_N, 1.0)))
    return np.exp(ways + k * np.log(p_N) + missed)


@METRICS.register("total_variation")
@dataclass(frozen=True, kw_only=True)
class TotalVariation(WorldMetric):
    """½ Σ_x |share of x among a source's s samples − truth(x)| over right and wrong x; mean over sources, 0 … 100."""

    direction: ClassVar[Direction] = "lower"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        gap, unseen = 0.0, 1.0
        for text, count in Counter(samples).items():
            p = truth.get(text, 0.0)
            gap += abs(count / len(samples) - p)
            unseen -= p
        return 50 * (gap + max(unseen, 0.0))


@METRICS.register("total_variation_floor")
@dataclass(frozen=True, kw_only=True)
class TotalVariationFloor(WorldMetric):
    """The expectation of `total_variation` for s exact draws from the truth, averaged over sources, 0 … 100."""

    direction: ClassVar[Direction] = "none"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        s, p_N = len(samples), np.array(list(truth.values()))
        distance = np.abs(np.arange(s + 1)[:, None] / s - p_N)
        return 50 * float((binomial(s, p_N) * distance).sum())


@dataclass(frozen=True, kw_only=True)
class _Divergence(WorldMetric):
    leak: float = setting(
        0.01, "probability that the truth is taken to give to all wrong texts together", above=0, high=0.5
    )

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"leak": self.leak, "unit": "nat", "agg": "mean"}


@METRICS.register("kl")
@dataclass(frozen=True, kw_only=True)
class Kl(_Divergence):
    """KL(sampled ‖ truth') in nats, averaged over sources, where truth' = (1 − leak) · truth on right answers and
    `leak` on all wrong texts together, which are one outcome; ≥ 0, and finite whatever was sampled.

    Σ_x f(x) log(f(x) / ((1 − leak) truth(x))) + q log(q / leak), where f are the shares among a source's s samples and
    q is the share of wrong texts.
    """

    direction: ClassVar[Direction] = "lower"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        s, total, wrong = len(samples), 0.0, 0
        for text, count in Counter(samples).items():
            if text in truth:
                total += count / s * math.log(count / s / ((1 - self.leak) * truth[text]))
            else:
                wrong += count
        return total + (wrong / s * math.log(wrong / s / self.leak) if wrong else 0.0)


@METRICS.register("kl_floor")
@dataclass(frozen=True, kw_only=True)
class KlFloor(_Divergence):
    """The expectation of `kl` for s exact draws from the truth, in nats, averaged over sources."""

    direction: ClassVar[Direction] = "none"

    def of_source(self, samples: list[str], truth: Mapping[str, float]) -> float:
        s, p_N = len(samples), np.array(list(truth.values()))
        share = np.arange(1, s + 1)[:, None] / s
        return float((binomial(s, p_N)[1:] * share * np.log(share / ((1 - self.leak) * p_N))).sum())
