"""A point beside its repetition: what was not as it was before, and in what their rows and metrics differ.

Knows not how a point is sampled.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from diffq.metrics.base import Score
from diffq.metrics.evaluate import from_json
from diffq.metrics.intervals import paired_difference
from diffq.registry import METRICS
from diffq.store import Identity, Point
from diffq.store.identity import show_value
from diffq.store.scores import FIELDS

Verdict = Literal["identical", "as promised", "different"]
SHOWN = 3
COSTS = ("seconds", "nfe_calls", "nfe_rows", "positions_projected", "tokens", "peak_memory_bytes")
_PARTS = ("dataset", "process", "sampler", "seed", "dtype", "length")


@dataclass(frozen=True)
class Change:
    """Something that is recorded and is another now."""

    name: str
    was: str
    now: str


@dataclass(frozen=True)
class Differing:
    """One row whose answer is another."""

    row: int
    source: int
    sample: int
    was: str
    now: str


@dataclass(frozen=True)
class RowsCompared:
    """How many rows have the same answer, and which of its tokens stand where they stood.

    identical    nothing in any row differs: the files are the same, byte for byte
    differing    the first rows that differ
    """

    total: int
    equal: int
    tokens: int
    tokens_equal: int
    identical: bool
    differing: tuple[Differing, ...]

    @property
    def share(self) -> float:
        """The share of equal rows, 0 … 1."""
        return self.equal / self.total if self.total else 1.0


@dataclass(frozen=True)
class MetricCompared:
    """One figure before and now. low, high: the 95 % interval of now − was, paired by source, where there is one."""

    name: str
    signature: str
    was: float
    now: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Repetition:
    """A point and its repetition, compared.

    needed        the share of equal rows that is promised across machines; None where nothing is
    not_compared  why a metric of the point is not among `metrics`, a sentence each
    """

    point: str
    rerun: str
    before: tuple[Change, ...]
    rows: RowsCompared
    needed: float | None
    metrics: tuple[MetricCompared, ...] = ()
    not_compared: tuple[str, ...] = ()
    costs: tuple[Change, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        if self.rows.identical:
            return "identical"
        return "as promised" if self.needed is not None and self.rows.share >= self.needed else "different"

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"verdict": self.verdict}


def promised(run: Mapping[str, Any]) -> float | None:
    """The share of rows that have to be equal on another machine, by what run.json says: 0.995 in float32, 0.99 where
    clamping at each step feeds draws back, and no promise in half precision."""
    if run.get("dtype") not in ("float32", "float64"):
        return None
    clamps = "clamp" in str(run.get("sampler")) or run.get("dials", {}).get("clamp", "none") not in (None, "none")
    return 0.99 if clamps else 0.995


def changes(run: Mapping[str, Any], now: Mapping[str, Any], identity: Identity) -> Iterator[Change]:
    """What run.json has recorded and is another now: versions and device, then what determines the samples.

    now: `versions`, `device` and `batch_tokens` of the repetition
    """
    old, new = run.get("versions") or {}, now["versions"]
    for name in ("commit", *(n for n in dict.fromkeys([*old, *new]) if n != "commit")):
        yield from _changed(name, old.get(name), new.get(name))
    for name in ("device", "batch_tokens"):
        yield from _changed(name, run.get(name), now[name])
    about = identity.describe()
    for name in _PARTS:
        yield from _changed(name, run.get(name), about[name])
    dials, held = about["dials"], run.get("dials") or {}
    for name in dict.fromkeys([*held, *dials]):
        yield from _changed(name, held.get(name, "not there"), dials.get(name, "not there"))
    yield from _changed("key", run.get("key"), identity.key)


def _changed(name: str, was: Any, now: Any) -> Iterator[Change]:
    texts = ["not recorded" if v is None else show_value(v) for v in (was, now)]
    if (was is None and now is None) or texts[0] == texts[1]:
        return
    if name in ("commit", "key"):
        texts = [t if t == "not recorded" else t[:12] + ("+" if t.endswith("+") else "") for t in texts]
    yield Change(name, *texts)


def compare_rows(point: Point, rerun: Point, total: int) -> RowsCompared:
    """The first `total` rows of both, one beside the other. A row that one of them lacks differs."""
    equal = tokens = tokens_equal = count = 0
    identical = True
    differing: list[Differing] = []
    nothing: dict[str, Any] = {}
    for a, b in itertools.zip_longest(point.rows(total), rerun.rows(total), fillvalue=nothing):
        count += 1
        identical = identical and a == b
        ids, others = a.get("ids") or [], b.get("ids") or []
        tokens += max(len(ids), len(others))
        tokens_equal += sum(x == y for x, y in zip(ids, others, strict=False))
        if a and b and ids == others and a.get("text") == b.get("text"):
            equal += 1
        elif len(differing) < SHOWN:
            one = a or b
            made = Differing(one["row"], one["source"], one["sample"], str(a.get("text", "")), str(b.get("text", "")))
            differing.append(made)
    return RowsCompared(count, equal, tokens, tokens_equal, identical, tuple(differing))


def compare_metrics(point: Point, rerun: Point) -> tuple[list[MetricCompared], list[str]]:
    """Every figure that both have under one signature, and the signatures that the repetition lacks. What a point cost
    is no figure here."""
    old, new = _scores(point), _scores(rerun)
    compared, missing = [], []
    for signature, was in old.items():
        now = new.get(signature)
        if now is None:
            missing.append(signature)
            continue
        low = high = None
        a, b = now.per_source, was.per_source
        if a is not None and b is not None and len(a) == len(b) >= 2:
            gap = paired_difference(now, was)
            low, high = gap.low, gap.high
        compared.append(MetricCompared(was.name, signature, was.value, now.value, low, high))
    return compared, missing


def _scores(point: Point) -> dict[str, Score]:
    held = {signature: {k: entry[k] for k in FIELDS} for signature, entry in point.metrics().items()}
    scores = from_json(held, point.per_source())
    return {s.signature: s for s in scores if s.name not in METRICS or METRICS[s.name].axis != "cost"}


def compare_costs(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What both cost, as run.json has it."""
    return [Change(name, _cost(was[name]), _cost(now[name])) for name in COSTS if name in was and name in now]


def _cost(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else f"{value:.0f}"


def one_line(changed: Sequence[Change]) -> str:
    """`commit 1f3a9c → 2d1527e, torch 2.12 → 2.13`."""
    return ", ".join(f"{c.name} {c.was} → {c.now}" for c in changed)
