"""Intervals over sources: the bootstrap, paired differences, and the jackknife for set-valued figures.

A score whose value is a function of the sum of its per-source statistics is resampled exactly and cheaply: B vectors of
multinomial counts times the n × k statistics, then the function. The counts depend on n alone, so two scores over the
same sources are resampled alike, and their difference is paired.

A set-valued figure is no function of sums. Its rows are pseudo-values of the jackknife, of which it is the mean.

Aggregates are the functions from the sums to the value. Each is known by the `agg:` field of a signature, so that saved
statistics can be resampled without the metric's options at hand; `agg:mean` is the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Metric, Score, signature_parts
from diffq.registry import METRICS
from diffq.resamples import interval, share_above

RESAMPLES = 1000
SPLITS = 100
_SEED = 20250310
_BLOCK = 4_000_000  # counts held at once, 32 MB
_NORMAL_975 = 1.959963984540054  # the standard library's is 2e-16 of it less, and kept intervals have all digits

Aggregate = Callable[[np.ndarray, int, Mapping[str, str]], np.ndarray]
"""(sums … × k, sources n, fields of the signature) -> values …"""

_AGGREGATES: dict[str, Aggregate] = {}


def aggregate(name: str) -> Callable[[Aggregate], Aggregate]:
    """Registers a function under the name that stands after `agg:`; raises UserError where it is taken."""

    def add(function: Aggregate) -> Aggregate:
        other = _AGGREGATES.get(name)
        if other is not None and other.__module__ != function.__module__:
            raise UserError(
                f"the aggregate '{name}' is taken by {other.__module__}; {function.__module__} needs another name"
            )
        _AGGREGATES[name] = function
        return function

    return add


@aggregate("mean")
def _mean(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return sums[..., 0] / n


@aggregate("jackknife")
def _of_pseudo_values(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return sums[..., 0] / n


def _aggregate_of(signature: str) -> tuple[Aggregate, Mapping[str, str]]:
    fields = signature_parts(signature)
    name = fields.get("agg", "")
    if name not in _AGGREGATES:
        METRICS.names()  # imports every metric's file, and with it the aggregates they declare
    if name not in _AGGREGATES:
        raise UserError(
            f"the signature {signature} has no aggregate that can be resampled; known: {', '.join(_AGGREGATES)}"
        )
    return _AGGREGATES[name], fields


def _draw(n: int) -> Iterator[np.ndarray]:
    """Blocks (b × n) of counts: how often each source is in each of the RESAMPLES resamples."""
    generator = np.random.default_rng(_SEED)
    step = max(1, min(RESAMPLES, _BLOCK // n))
    for start in range(0, RESAMPLES, step):
        b = min(step, RESAMPLES - start)
        chosen = generator.integers(0, n, size=(b, n))
        chosen += np.arange(b)[:, None] * n
        yield np.bincount(chosen.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)


@lru_cache(maxsize=2)
def _kept(n: int) -> tuple[np.ndarray, ...]:
    return tuple(_draw(n))


def resample(per_source: np.ndarray, signature: str) -> np.ndarray:
    """The values of RESAMPLES bootstrap resamples of the sources (Efron 1979), the same draws for every n-row array."""
    function, fields = _aggregate_of(signature)
    n = len(per_source)
    blocks = _kept(n) if n * RESAMPLES <= _BLOCK else _draw(n)
    return np.concatenate([function(counts @ per_source, n, fields) for counts in blocks])


def halves(per_source: np.ndarray, signature: str) -> np.ndarray:
    """The values over either half of the sources, 2 × SPLITS, for random splits that are the same for every n-row
    array: what is chosen on one half can be judged on the other."""
    function, fields = _aggregate_of(signature)
    n = len(per_source)
    first = _splits(n) @ per_source
    rest = per_source.sum(axis=0) - first
    return np.stack([function(first, n // 2, fields), function(rest, n - n // 2, fields)])


@lru_cache(maxsize=2)
def _splits(n: int) -> np.ndarray:
    """SPLITS × n: one where a source is in the first half."""
    order = np.random.default_rng(_SEED + 1).random((SPLITS, n)).argsort(axis=1)
    return (order < n // 2).astype(np.float64)


def value_of(per_source: np.ndarray, signature: str) -> float:
    """The value that the statistics of all sources give."""
    function, fields = _aggregate_of(signature)
    return float(function(per_source.sum(axis=0), len(per_source), fields))


def scored(metric: Metric, answers: Answers, per_source: np.ndarray) -> Score:
    """The score of per-source statistics, n or n × k, with its bootstrap interval (none for a single source)."""
    rows = np.asarray(per_source, dtype=np.float64).reshape(len(answers.sources), -1)
    signature = metric.signature(answers)
    found = interval(resample(rows, signature)) if len(rows) > 1 else (None, None)
    return metric.score(answers, value_of(rows, signature), len(rows), found, rows)


@dataclass(frozen=True)
class Difference:
    """a − b with its 95 % interval, and the share of resamples in which a is greater (a tie counts half)."""

    value: float
    low: float
    high: float
    probability: float


def paired_difference(score_a: Score, score_b: Score) -> Difference:
    """The difference of two points in one metric, bootstrapped over the sources that both answered.

    Both must be over the same sources in the same order; the caller sees to that.
    Raises UserError for different signatures, different numbers of sources, and scores without per-source statistics.
    """
    a, b = score_a.per_source, score_b.per_source
    if score_a.signature != score_b.signature:
        raise UserError(f"{score_a.signature} and {score_b.signature} are different figures; compare equal signatures")
    if a is None or b is None:
        raise UserError(f"{score_a.name} has no per-source statistics, so its difference cannot be paired")
    if len(a) != len(b) or len(a) < 2:
        raise UserError(
            f"{score_a.name}: {len(a)} and {len(b)} sources cannot be paired; give the same ones, at least 2"
        )
    gaps = resample(a, score_a.signature) - resample(b, score_b.signature)
    low, high = interval(gaps)
    return Difference(score_a.value - score_b.value, low, high, share_above(gaps))


def pseudo_values(value: float, without: np.ndarray) -> np.ndarray:
    """n × 1: what each source adds to a set-valued figure, so that their mean is the value (Tukey 1958), from the n
    values with one source left out each.

    To first order the figure is this mean. So resampling these rows gives intervals of differences, paired over
    sources, whose width is the jackknife's, and repeats no source's texts, which would bias the figure itself.
    """
    rows = value + (len(without) - 1) * (without.mean() - without)
    return np.asarray(rows, dtype=np.float64)[:, None]


def jackknife(value: float, without: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """A 95 % interval from the n values with one source left out each (Efron & Stein 1981), centred on the value.

    For set-valued figures, which a bootstrap would bias because it repeats sources. None for a single source.
    """
    n = len(without)
    if n < 2:
        return None, None
    spread = _NORMAL_975 * float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
    return value - spread, value + spread


def set_valued(metric: Metric, answers: Answers, value: float, without: np.ndarray) -> Score:
    """The score of a set-valued figure from its values with one source left out each: `jackknife` for the interval,
    `pseudo_values` for differences."""
    return metric.score(answers, value, len(without), jackknife(value, without), pseudo_values(value, without))
