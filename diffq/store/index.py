"""Reading many points at once: one record a point, from a cache that is rebuilt where folders changed.

`outputs/index.parquet` is that cache; deleting it costs one slow reading. Without pyarrow the folders are read each
time, with the same result. DuckDB reads the file for questions in SQL.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffq.errors import UserError
from diffq.store.files import read_json, write_atomic
from diffq.store.point import Point
from diffq.store.root import Store

FORMAT = 1
_FILES = ("run.json", "metrics.json")
_SETTLED = 2_000_000_000  # ns: a file's time is coarse, so what changed just now is read again next time


@dataclass(frozen=True)
class Record:
    """One point without its samples: what `run.json` and `metrics.json` say.

    folder     under outputs/ where it lies there, else whole
    dials      every dial of the sampler with its typed value; `changed` names those that differ from their defaults
    metrics    {signature: {name, value, low, high, n, direction}}
    run        all of run.json: counts, times, versions, device
    """

    key: str
    folder: str
    status: str
    dataset: str
    model: str
    process: str
    sampler: str
    dials: Mapping[str, Any]
    changed: tuple[str, ...]
    seed: int
    dtype: str
    length: str
    samples: int
    sources: int
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def build(cls, folder: str, run: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> Record:
        """A record from the two files' contents."""
        texts = ("key", "status", "dataset", "model", "process", "sampler", "dtype", "length")
        numbers = ("seed", "samples", "sources")
        named: dict[str, Any] = {name: str(run.get(name, "")) for name in texts}
        named |= {name: int(run.get(name) or 0) for name in numbers}
        return cls(
            folder=folder,
            dials=run.get("dials", {}),
            changed=tuple(run.get("changed", ())),
            metrics=metrics,
            run=run,
            **named,
        )


def read_record(store: Store, folder: Path) -> Record:
    """The record of one folder. UserError where it holds no run.json."""
    run = read_json(folder / "run.json")
    if run is None:
        raise UserError(f"{folder} is no sampled point: it has no run.json")
    return Record.build(store.relative(folder), run, Point(folder).metrics())


def read_records(store: Store, cache: bool = True) -> list[Record]:
    """Every point under outputs/points that has a run.json, by folder.

    cache=False neither reads nor writes index.parquet.
    """
    old = _load(store) if cache else {}
    now = time.time_ns()
    rows, changed = [], False
    for folder, times in _walk(store.points):
        name, stamp = f"points/{folder}", f"{times[0]} {times[1]}"
        held = old.pop(name, None)
        if held is None or held["stamp"] != stamp or held["read_at"] - max(times) < _SETTLED:
            run = read_json(store.points / folder / "run.json") or {}
            metrics = Point(store.points / folder).metrics()
            held = {"folder": name, "stamp": stamp, "read_at": now, "run": run, "metrics": metrics}
            changed = True
        rows.append(held)
    if cache and (changed or old):
        _save(store, rows)
    return [Record.build(row["folder"], row["run"], row["metrics"]) for row in rows]


def _walk(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each point's folder under `root`, sorted, and the times of its files in nanoseconds (0: no such file)."""
    found = []
    for first in _folders(str(root)):
        for second in _folders(first):
            for third in _folders(second):
                for leaf in _folders(third):
                    run, metrics = (_time(f"{leaf}/{name}") for name in _FILES)
                    if run:
                        found.append((leaf[len(str(root)) + 1 :], (run, metrics)))
    yield from sorted(found)


def _time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def index_file(store: Store) -> Path:
    return store.outputs / "index.parquet"


def _load(store: Store) -> dict[str, dict[str, Any]]:
    """The cached rows by folder; empty where there is no usable cache."""
    path = index_file(store)
    if not path.exists():
        return {}
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return {}
    try:
        columns = ["folder", "stamp", "read_at", "run", "metrics", "format"]
        table = pq.read_table(path, columns=columns).to_pydict()
    except (OSError, pa.ArrowException, KeyError):
        return {}
    if set(table["format"]) != {FORMAT}:
        return {}
    names = ("folder", "stamp", "read_at", "run", "metrics")
    rows = zip(*(table[name] for name in names), strict=True)
    made = [dict(zip(names, row, strict=True)) for row in rows]
    # One parse of one long text is several times faster than ten thousand parses of short ones.
    runs = json.loads("[" + ",".join(row["run"] for row in made) + "]")
    metrics = json.loads("[" + ",".join(row["metrics"] for row in made) + "]")
    for row, run, scores in zip(made, runs, metrics, strict=True):
        row["run"], row["metrics"] = run, scores
    return {row["folder"]: row for row in made}


def _save(store: Store, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
    columns: dict[str, list[Any]] = {
        "folder": [row["folder"] for row in rows],
        "stamp": [row["stamp"] for row in rows],
        "read_at": [row["read_at"] for row in rows],
        "format": [FORMAT] * len(rows),
        "run": [json.dumps(row["run"]) for row in rows],
        "metrics": [json.dumps(row["metrics"]) for row in rows],
    }
    for name in ("key", "status", "dataset", "model", "process", "sampler", "seed", "dtype", "length", "samples"):
        columns[name] = _one_type([row["run"].get(name) for row in rows])
    columns |= _wide(rows)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    with contextlib.suppress(UserError):  # it is only a cache: a store that cannot be written is read all the same
        write_atomic(index_file(store), buffer.getvalue(), sync=False)


def _wide(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns for SQL: `dial_scale`, and `metric_bleu`, `metric_bleu_low`, `metric_bleu_high` by a metric's name."""
    columns: dict[str, list[Any]] = {}

    def put(name: str, at: int, value: Any) -> None:
        columns.setdefault(name, [None] * len(rows))[at] = value

    for at, row in enumerate(rows):
        for dial, value in row["run"].get("dials", {}).items():
            put(f"dial_{dial}", at, value)
        for score in row["metrics"].values():
            put(f"metric_{score['name']}", at, score["value"])
            put(f"metric_{score['name']}_low", at, score.get("low"))
            put(f"metric_{score['name']}_high", at, score.get("high"))
    return {name: _one_type(values) for name, values in sorted(columns.items())}


def _one_type(values: list[Any]) -> list[Any]:
    """A column of one type: truth values, floats, or text where the values differ in kind."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {bool} or kinds <= {int} or kinds <= {str}:
        return values
    if kinds <= {int, float}:
        return [None if v is None else float(v) for v in values]
    return [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]


def query(store: Store, sql: str) -> Any:
    """What DuckDB answers, as a relation; the table `points` is the index, brought up to date first.

    UserError where duckdb or pyarrow is missing, or there is no point.
    """
    try:
        import duckdb
        import pyarrow  # noqa: F401 - writes the index that is asked
    except ImportError as error:
        raise UserError(f"a query needs the package {error.name}; install it with pip") from error
    if not read_records(store):
        raise UserError(f"there is no point under {store.points} to ask about; sample one first")
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions=false")
    connection.read_parquet(str(index_file(store))).create_view("points")
    return connection.sql(sql)
