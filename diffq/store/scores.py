"""The entries of a metrics.json: which ones count, and which one is meant by a metric's name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

FIELDS = {"name", "value", "low", "high", "n", "direction"}


def whole_scores(held: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those entries of a metrics.json that have every field. One of another version, which lacks a field, counts as not
    there: scoring writes it anew."""
    return {name: score for name, score in held.items() if isinstance(score, dict) and score.keys() >= FIELDS}


def pick_scores(metrics: Mapping[str, Mapping[str, Any]], samples: int) -> dict[str, str]:
    """The signature by each metric's name: of several, one over `samples` samples a source (or that names no number),
    and of those the one that was written last."""
    chosen: dict[str, str] = {}
    for signature, score in metrics.items():
        name = str(score["name"])
        held = chosen.get(name)
        fits = samples_of(signature) in (samples, None)
        if held is None or fits or samples_of(held) not in (samples, None):
            chosen[name] = signature
    return chosen


@functools.lru_cache(maxsize=4096)
def samples_of(signature: str) -> int | None:
    """The samples a source that a signature names (`…|s:3|…`), or None."""
    for part in signature.split("|"):
        if part.startswith("s:") and part[2:].isdigit():
            return int(part[2:])
    return None
