"""How many sources it takes to tell two points of a sweep apart, from those of its points that are scored already.

Scores are read, never computed: where there are fewer than two scored points over the same sources, that is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from diffq.config.schema import identity
from diffq.metrics.intervals import resample, value_of
from diffq.report.power import needed
from diffq.runs.planning.plan import PlannedPoint
from diffq.store import Point, Store
from diffq.store.identity import canonical_json

_MOST_POINTS = 12  # 66 pairs
_SIZES = (0.5, 1.0, 2.0, 5.0)  # differences, in the metric's own units, that one may want to see
_LESS = 1e-12


def tell_apart(store: Store, points: Sequence[PlannedPoint]) -> dict[str, Any]:
    """Per metric on the sweep's axes: {pairs, sources, samples, half_width, needed, typical}.

    half_width  half the 95 % interval of a paired difference at the sources there are, median over pairs
    needed      {difference: sources} that show it in 80 of 100 sweeps, at as many samples a source
    typical     the median difference between two points here, and the sources that it takes
    with_samples  {samples: sources} for a difference of 1, where two seeds of one point tell the draws' part
    """
    if not points:
        return {}
    suite = points[0].config.metric
    found = {}
    for name in dict.fromkeys(n for n in (suite.y, suite.x) if n):
        made = _axis(store, points, name)
        if made is not None:
            found[name] = made
    return found


def _axis(store: Store, points: Sequence[PlannedPoint], name: str) -> dict[str, Any] | None:
    held = _statistics(store, points, name)
    pairs = list(itertools.combinations(held.values(), 2))
    if not pairs:
        return None
    draws = {key: resample(rows, signature) for key, (_, signature, rows) in held.items()}
    keys, alike = list(held), {key: _but_for_seed(point) for key, (point, _, _) in held.items()}
    variances, gaps, noises = [], [], []
    for a, b in itertools.combinations(keys, 2):
        variance = float(np.var(draws[a] - draws[b]))
        (_, signature, rows), (_, _, others) = held[a], held[b]
        if alike[a] == alike[b]:
            noises.append(variance)  # two seeds of one point: the draws' part, of both points together
            continue
        variances.append(variance)
        gaps.append(abs(value_of(rows, signature) - value_of(others, signature)))
    variance = median(variances) if variances else 0.0
    if variance < _LESS:
        return None
    sources, samples = len(next(iter(held.values()))[2]), points[0].config.num_samples
    noise = median(noises) if noises else None
    made = {size: needed(size, variance, sources, samples, noise) for size in _SIZES}
    typical = median(gaps)
    return {
        "pairs": len(variances),
        "sources": sources,
        "samples": samples,
        "half_width": 1.96 * variance**0.5,
        "needed": {f"{size:g}": m.sources for size, m in made.items()},
        "typical": {
            "difference": typical,
            "sources": needed(typical, variance, sources, samples).sources if typical > _LESS else None,
        },
        "with_samples": {str(s): n for s, n in made[1.0].with_samples},
    }


def _but_for_seed(point: PlannedPoint) -> str:
    return canonical_json(identity(point.config) | {"seed": None})


def _statistics(
    store: Store, points: Sequence[PlannedPoint], name: str
) -> dict[str, tuple[PlannedPoint, str, np.ndarray]]:
    """Per-source statistics of one metric by the points' folders: those of the commonest signature and length."""
    found: dict[tuple[str, int], dict[str, tuple[PlannedPoint, str, np.ndarray]]] = {}
    for point in [p for p in points if p.state == "done" and not p.repeats]:
        on_disk = Point(store.outputs / point.folder)
        signature = next((s for s, score in on_disk.metrics().items() if score.get("name") == name), None)
        rows = on_disk.per_source().get(signature) if signature else None
        if signature is None or rows is None or len(rows) < 2:
            continue
        group = found.setdefault((signature, len(rows)), {})
        if len(group) < _MOST_POINTS:
            group[point.folder] = (point, signature, np.asarray(rows, dtype=np.float64))
    return max(found.values(), key=len, default={})
