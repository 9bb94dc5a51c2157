"""Where each point of a sweep stands: what a live table, a plain line and an interrupt's last line are made of.

Holds numbers and words; draws nothing, samples nothing and knows no metric.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffq.report.pareto import on_front
from diffq.report.points import SHORT, Figure
from diffq.runs.planned import Planned, asked_in, given_in
from diffq.store.files import read_json
from diffq.store.identity import show_value

State = Literal["waiting", "running", "scoring", "done", "failed", "elsewhere"]
ENDED: tuple[State, ...] = ("done", "failed")


@dataclass(eq=False)
class Entry:
    """One point.

    name     the sampler's, `dials` what differs in this sweep
    weight   passes through the network a row, which time is shared out by
    rows     on disk, `drafted` how many more the batch at work amounts to
    earlier  rows that were there before this sweep saw the point
    seconds  of sampling, as its run.json has them
    figures  its scores by metric name
    """

    planned: Planned
    name: str
    dials: str
    weight: float
    state: State = "waiting"
    rows: int = 0
    drafted: float = 0.0
    earlier: int = 0
    seconds: float = 0.0
    figures: Mapping[str, Figure] = field(default_factory=dict)
    front: bool = False
    error: str = ""
    repeat: str = ""
    ended: float = 0.0
    _stamp: int = 0

    @property
    def label(self) -> str:
        """`cfg s2 τ0.5`."""
        return f"{self.name} {self.dials}".rstrip()

    @property
    def total(self) -> int:
        return self.planned.total

    @property
    def share(self) -> float:
        """How much of it is sampled, 0 … 1."""
        return min(1.0, (self.rows + self.drafted) / self.total) if self.total else 1.0

    @property
    def rate(self) -> float | None:
        """Rows a second, over all its batches so far."""
        return self.rows / self.seconds if self.rows and self.seconds > 0 else None


class Board:
    """All points of a sweep. `changed(entry)` is called after each change that a person should hear of.

    x, y     names of the metrics on the frontier's axes; empty where there is none
    columns  those of the metrics that are shown: where nothing else is said, the two
    workers  how many points are sampled at once
    """

    def __init__(self, name: str, planned: Sequence[Planned], x: str, y: str, columns: Sequence[str] = ()):
        self.name, self.x, self.y = name, x, y
        self.columns = tuple(columns) or (x, y)
        self.workers = 1
        self.began = time.monotonic()
        self.changed: Callable[[Entry], None] = lambda entry: None
        ordered = sorted(planned, key=lambda p: p.total)  # of two that differ in their number of samples, the larger
        largest = {p.point.folder: p for p in ordered}
        points = [largest[folder] for folder in dict.fromkeys(p.point.folder for p in planned)]
        dials = _dials(points)
        self.entries = [
            Entry(p, p.config.choices.sampler or p.config.sampler.kind, dials[p.point.folder], _weight(p))
            for p in points
        ]
        self._by_folder = {str(e.planned.point.folder): e for e in self.entries}
        for entry in self.entries:
            self.look(entry)
            entry.earlier = entry.rows

    def __getitem__(self, folder: str | Path) -> Entry:
        return self._by_folder[str(folder)]

    def of(self, *states: State) -> list[Entry]:
        return [entry for entry in self.entries if entry.state in states]

    def set(self, entry: Entry, state: State, error: str = "") -> None:
        """Moves a point into a state."""
        entry.state, entry.error = state, error
        if state in ENDED:
            entry.ended, entry.drafted = time.monotonic(), 0.0
        self.changed(entry)

    def sampled(self, entry: Entry, rows: int, seconds: float) -> None:
        """So many rows of a point are on disk."""
        entry.rows, entry.seconds, entry.drafted = rows, seconds, 0.0
        self.changed(entry)

    def look(self, entry: Entry) -> bool:
        """Reads how far a point is from its run.json; whether that has changed since the last look."""
        path = entry.planned.point.folder / "run.json"
        try:
            stamp = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if stamp == entry._stamp:
            return False
        entry._stamp = stamp
        run = read_json(path) or {}
        entry.rows = min(int(run.get("rows") or 0), entry.total)
        entry.seconds = float(run.get("seconds") or 0.0)
        return True

    def scored(self, entry: Entry, figures: Mapping[str, Figure]) -> None:
        """Notes a point's scores and finds the Pareto front of all that have both figures and were given as much."""
        entry.figures = figures
        asked = given_in(entry.planned.config)
        known = [(e, e.figures[self.x], e.figures[self.y]) for e in self.entries
                 if self.x in e.figures and self.y in e.figures and given_in(e.planned.config) == asked]  # fmt: skip
        best = on_front(np.array([[x.sign * x.value, y.sign * y.value] for _, x, y in known]))
        for (e, _, _), one in zip(known, best, strict=True):
            e.front = bool(one)

    def left_of(self, entry: Entry) -> float | None:
        """Seconds that the rest of a point takes, by its own rate, or by that of points like it."""
        return self._left_of(entry, self._paces())

    def left(self) -> float | None:
        """Seconds that the rest of the sweep's sampling takes."""
        paces = self._paces()
        each = [self._left_of(e, paces) for e in self.entries if e.state not in (*ENDED, "scoring")]
        return None if any(s is None for s in each) else sum(s for s in each if s is not None) / self.workers

    def _left_of(self, entry: Entry, paces: Mapping[str, float]) -> float | None:
        rows = max(0.0, entry.total - entry.rows - entry.drafted)
        if entry.rate is not None:
            return rows / entry.rate
        pace = paces.get(entry.planned.config.sampler.kind, paces.get(""))
        return None if pace is None else rows * entry.weight * pace

    def _paces(self) -> dict[str, float]:
        """Seconds a row and pass, by sampler, and of all ("")."""
        sums: dict[str, list[float]] = {}
        for entry in self.entries:
            if entry.rate is not None:
                for kind in (entry.planned.config.sampler.kind, ""):
                    held = sums.setdefault(kind, [0.0, 0.0])
                    held[0] += entry.seconds
                    held[1] += entry.rows * entry.weight
        return {kind: seconds / passes for kind, (seconds, passes) in sums.items()}

    @property
    def share(self) -> float:
        """How much of the sweep is sampled, by passes through the network, 0 … 1."""
        whole = sum(e.total * e.weight for e in self.entries)
        return sum(e.share * e.total * e.weight for e in self.entries) / whole if whole else 1.0

    def reached(self) -> str:
        """How far the sweep is, for the line that an interrupt leaves."""
        done = len(self.of("done"))
        half = [e for e in self.of("running", "scoring", "elsewhere") if e.rows]
        text = f"{done} of {len(self.entries)} points are done"
        for entry in half[:1]:
            text += f", {entry.rows} of {entry.total} rows of {entry.label}"
        return text


def _weight(planned: Planned) -> float:
    """Passes a row: one a step, two where guidance is on. Only ratios matter."""
    sampler = planned.config.sampler
    return float(getattr(sampler, "steps", None) or 1) * (2 if sampler.needs_guidance() else 1)


def _dials(points: Sequence[Planned]) -> dict[Path, str]:
    """`s2 τ0.5`: of each point, by its folder, what differs among the points."""
    about = []
    for planned, asked in zip(points, asked_in([p.config for p in points]), strict=True):
        config = planned.config
        idle = config.sampler.idle()
        said = [f.name for f in fields(config.sampler) if f.name not in idle]
        values: dict[str, Any] = {name: getattr(config.sampler, name) for name in said}
        values |= {"dataset": config.choices.dataset, "model": config.choices.model, "length": config.length}
        values |= asked | {"given": given_in(config)}
        about.append(values | {"seed": config.seed, "samples": config.num_samples})
    names = list(dict.fromkeys(name for values in about for name in values))
    varying = [n for n in names if len({show_value(v[n]) for v in about if n in v}) > 1]
    found = {}
    for planned, values in zip(points, about, strict=True):
        parts = [f"{SHORT.get(n, n + ' ')}{show_value(values[n])}" for n in varying if n in values]
        found[planned.point.folder] = " ".join(parts)
    return found
