"""The columns in which a run can be asked about: what `run.json` and `metrics.json` say, flat and typed.

A run is a point or a training (`kind`). Its own columns stand in `COLUMNS`; every dial is stored as `dial_NAME`, every
metric as `metric_NAME`, `metric_NAME_low` and `metric_NAME_high`. `Names` says which of them a bare name means.
Knows no file and no SQL.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from diffq.errors import UserError, did_you_mean
from diffq.store.scores import pick_scores

TEXT, WHOLE, REAL, TIME = "text", "whole number", "number", "time"

COLUMNS: dict[str, str] = {
    "kind": TEXT,
    "folder": TEXT,
    "key": TEXT,
    "status": TEXT,
    "dataset": TEXT,
    "model": TEXT,
    "process": TEXT,
    "sampler": TEXT,
    "seed": WHOLE,
    "length": TEXT,
    "samples": WHOLE,
    "sources": WHOLE,
    "rows": WHOLE,
    "dtype": TEXT,
    "device": TEXT,
    "started": TIME,
    "finished": TIME,
    "updated": TIME,
    "seconds": REAL,
    "nfe_calls": WHOLE,
    "nfe_rows": WHOLE,
    "positions_projected": WHOLE,
    "tokens": WHOLE,
    "peak_memory_bytes": WHOLE,
    "batch_tokens": WHOLE,
    "checkpoint": TEXT,
    "checkpoint_folder": TEXT,
    "training": TEXT,
    "sources_digest": TEXT,
    "commit": TEXT,
    "python": TEXT,
    "torch": TEXT,
    "diffq": TEXT,
    "step": WHOLE,
    "loss": REAL,
    "validation_loss": REAL,
    "parameters": WHOLE,
}
"""The columns that every run has, in the order in which they are exported, and what they hold. `step`, `loss`,
`validation_loss` and `parameters` are a training's."""

SHOWN = ("shown_dials", "shown_metrics", "asked")
"""Three more, for lists alone: JSON of the dials that were changed, and of each metric's value; and the name that the
sampler was first asked for by, where that is not the one it is stored under."""

_VERSIONS = ("commit", "python", "torch", "diffq")


def flat(kind: str, folder: str, run: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One run as a flat mapping: what there is of COLUMNS, of dials and of metrics, and those of SHOWN."""
    values: dict[str, Any] = {name: run[name] for name in COLUMNS if name in run}
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        values |= {name: versions[name] for name in _VERSIONS if name in versions}
    values |= {"kind": kind, "folder": folder, "status": run.get("status") or "broken"}
    dials = run.get("dials")
    dials = dials if isinstance(dials, Mapping) else {}
    for name, value in dials.items():
        values[f"dial_{name}"] = value
    shown = {}
    for name, signature in pick_scores(metrics, _samples(run)).items():
        score = metrics[signature]
        shown[name] = score["value"]
        values[f"metric_{name}"] = score["value"]
        values[f"metric_{name}_low"] = score.get("low")
        values[f"metric_{name}_high"] = score.get("high")
    if kind == "training":
        shown = {name: run[name] for name in ("step", "loss", "validation_loss") if name in run}
    changed = run.get("changed") or ()
    values["asked"] = run.get("asked")
    values["shown_dials"] = json.dumps({name: dials.get(name) for name in changed}, ensure_ascii=False)
    values["shown_metrics"] = json.dumps(shown, ensure_ascii=False)
    return values


def _samples(run: Mapping[str, Any]) -> int:
    samples = run.get("samples")
    return samples if isinstance(samples, int) else 0


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Flat rows as columns of one type each: COLUMNS and SHOWN in their types, then dials, then metrics, by name.

    A dial that is a number here and a text there is text everywhere. Names that differ in case alone are one in SQL:
    the later one gets `_2`.
    """
    found: dict[str, list[Any]] = {name: [None] * len(rows) for name in (*COLUMNS, *SHOWN)}
    for at, row in enumerate(rows):
        for name, value in row.items():
            column = found.get(name)
            if column is None:
                column = found[name] = [None] * len(rows)
            column[at] = value
    made = {name: _typed(found.pop(name), kind) for name, kind in COLUMNS.items()}
    made |= {name: _texts(found.pop(name)) for name in SHOWN}
    taken = {name.lower() for name in made}
    for name in sorted(found, key=_order):
        alone = name
        while alone.lower() in taken:
            alone += "_2"
        taken.add(alone.lower())
        made[alone] = _reals(found[name]) if name.startswith("metric_") else _one_type(found[name])
    return made


def _order(name: str) -> tuple[str, int]:
    """A metric's interval stands behind it."""
    for rank, end in enumerate(("_low", "_high"), start=1):
        if name.endswith(end):
            return name.removesuffix(end), rank
    return name, 0


def _typed(values: list[Any], kind: str) -> list[Any]:
    """Values of a column of COLUMNS; what is of another type is None (text is made of anything)."""
    if kind == TEXT:
        return _texts(values)
    if kind == TIME:
        return [_time(v) for v in values]
    return _reals(values) if kind == REAL else [v if _is_whole(v) else None for v in values]


def _texts(values: list[Any]) -> list[str | None]:
    return [None if v is None else storable(v) if isinstance(v, str) else json.dumps(v) for v in values]


def storable(text: str) -> str:
    """The text with an escape for each lone surrogate, which UTF-8 lacks."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _reals(values: list[Any]) -> list[float | None]:
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) else None
            for v in values]  # fmt: skip


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _time(value: Any) -> datetime | None:
    """An ISO time as UTC without a zone."""
    try:
        return datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        return None


def _one_type(values: list[Any]) -> list[Any]:
    """A dial's column: truth values, whole numbers, numbers, or text where the values differ in kind."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {bool} or (kinds <= {int} and all(v is None or _is_whole(v) for v in values)):
        return values
    if kinds <= {int, float}:
        return _reals(values)
    return _texts(values)


@dataclass(frozen=True)
class Names:
    """What users may call the columns of a store.

    stored     the stored column by its lower-case name: as it is stored, and bare where that means one thing
    ambiguous  lower-case bare names that are a dial's and a metric's
    written    the name that a stored column is shown and exported under: bare where that means one thing
    """

    stored: Mapping[str, str]
    ambiguous: frozenset[str]
    written: Mapping[str, str]

    @classmethod
    def of(cls, columns: Iterable[str]) -> Names:
        """The names of these stored columns. A run's own column goes before a dial or a metric of the same name."""
        columns = [name for name in columns if name not in SHOWN]
        stored = {name.lower(): name for name in columns}
        bare: dict[str, list[str]] = {}
        for name in columns:
            head, _, rest = name.partition("_")
            if name not in COLUMNS and head in ("dial", "metric"):
                bare.setdefault(rest.lower(), []).append(name)
        alone = {name: held[0] for name, held in bare.items() if len(held) == 1 and name not in stored}
        ambiguous = frozenset(name for name, held in bare.items() if len(held) > 1 and name not in stored)
        written = {name: name for name in columns} | {held: held.partition("_")[2] for held in alone.values()}
        return cls(stored | alone, ambiguous, written)

    def __getitem__(self, name: str) -> str:
        """The stored column that a user means. UserError, with what there is, where it means none, or two."""
        if (held := self.stored.get(name.lower())) is not None:
            return held
        if name.lower() in self.ambiguous:
            raise UserError(f"'{name}' is a dial and a metric here; write dial_{name} or metric_{name}")
        raise UserError(f"there is no column '{name}'{did_you_mean(name, self.written.values())}; {self.known()}")

    def known(self) -> str:
        """What there is, in half a sentence. The ends of intervals are only mentioned."""
        groups: dict[str, list[str]] = {"columns": [], "dials": [], "metrics": []}
        names = set(self.written)
        for stored, name in self.written.items():
            head = stored.partition("_")[0]
            end = next((stored.removesuffix(e) for e in ("_low", "_high") if stored.endswith(e)), "")
            if stored in COLUMNS or head not in ("dial", "metric"):
                groups["columns"].append(name)
            elif end not in names:
                groups[f"{head}s"].append(name)
        said = [f"{what}: {', '.join(held)}" for what, held in groups.items() if held]
        return "; ".join(said) + (" (each with _low and _high)" if groups["metrics"] else "")
