"""Reading many runs at once: one row a point or training, from a cache that is rebuilt where folders changed.

`outputs/index.parquet` is that cache; deleting it costs one slow reading. It is believed only as far as the folders
confirm it: every call looks at the times, sizes and inodes of each run's files, and reads what is not as it was. A
digest inside the file tells a damaged one, and one of another format, from a good one. Without pyarrow the folders are
read each time, with the same result. `diffq.store.query` asks it in SQL.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffq.errors import UserError
from diffq.store.columns import COLUMNS, REAL, SHOWN, TEXT, TIME, WHOLE, columns_of, flat
from diffq.store.files import read_json, write_atomic
from diffq.store.root import Store
from diffq.store.scores import whole_scores

FORMAT = f"diffq index 2 {COLUMNS} {SHOWN}\n".encode()
"""What the digest inside begins with. The number is raised whenever a column comes to mean something else."""
INNER = ("_stamp", "_read_at", "_newest", "_broken", "_run", "_metrics")
"""Columns that are the cache's own: what a row was read from and when, why its files could not be read, and what they
hold as JSON."""

_SETTLED = 2_000_000_000  # ns: a file's time is coarse, so what changed just now is read again next time
_ABSENT = "-"


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
    return Record.build(store.relative(folder), run, whole_scores(read_json(folder / "metrics.json") or {}))


def read_records(store: Store, cache: bool = True) -> list[Record]:
    """Every point under outputs/points that has a run.json, by folder. UserError where one of its files is no JSON.

    cache=False neither reads nor writes index.parquet.
    """
    found = []
    for row in read_rows(store, look(store), cache):
        if row.broken:
            raise UserError(row.broken)
        if row.kind == "point":
            found.append(Record.build(row.folder, row.run, row.metrics))
    return found


@dataclass(frozen=True)
class Seen:
    """What a look at a run's two files says, without opening them: equal stamps mean equal files.

    newest   the latest of their times, in nanoseconds
    """

    stamp: str
    newest: int

    def confirms(self, stamp: str, read_at: int, newest: int, now: int) -> bool:
        """Whether what was read at `read_at` is still so.

        What had changed just before it was read is read again, as is what claims to be read later than now: a clock
        that was moved must not hide a change.
        """
        return stamp == self.stamp and read_at - newest >= _SETTLED and read_at <= now


@dataclass(frozen=True)
class Row:
    """One run as the cache holds it.

    texts    run.json and metrics.json as they were read
    broken   why one of them could not be read; else empty
    """

    folder: str
    seen: Seen
    read_at: int
    run: Mapping[str, Any]
    metrics: Mapping[str, Any]
    texts: tuple[str, str]
    broken: str = ""

    @property
    def kind(self) -> str:
        return kind_of(self.folder, self.run)


def kind_of(folder: str, run: Mapping[str, Any]) -> str:
    """`point` or `training`, by where it lies under outputs/; elsewhere by what run.json holds."""
    place = folder.partition("/")[0]
    if place in ("points", "train"):
        return "training" if place == "train" else "point"
    return "training" if "step" in run else "point"


def look(store: Store) -> dict[str, Seen]:
    """Every run's folder under outputs/ that has a run.json, in order, without opening a file."""
    found = {}
    for place, depth in ((store.points, 4), (store.train, 1)):
        root = str(place)
        for leaf in _leaves(root, depth):
            seen = _look_at(leaf)
            if seen is not None:
                found[f"{place.name}{leaf[len(root) :]}"] = seen
    return dict(sorted(found.items()))


def _leaves(path: str, depth: int) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            below = [entry.path for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    if depth == 1:
        yield from below
    else:
        for folder in below:
            yield from _leaves(folder, depth - 1)


def _look_at(folder: str) -> Seen | None:
    try:
        a = os.stat(f"{folder}/run.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    first = f"{a.st_mtime_ns} {a.st_ctime_ns} {a.st_size} {a.st_ino}"
    newest = max(a.st_mtime_ns, a.st_ctime_ns)
    try:
        b = os.stat(f"{folder}/metrics.json")
    except FileNotFoundError:
        return Seen(f"{first} {_ABSENT}", newest)
    return Seen(
        f"{first} {b.st_mtime_ns} {b.st_ctime_ns} {b.st_size} {b.st_ino}", max(newest, b.st_mtime_ns, b.st_ctime_ns)
    )


def index_file(store: Store) -> Path:
    return store.outputs / "index.parquet"


def read_rows(store: Store, seen: Mapping[str, Seen], cache: bool = True) -> list[Row]:
    """The rows of these folders (see `look`), those that changed read anew, and the cache written where any did."""
    rows, changed = _rows(store, seen, _load(store) if cache else {})
    if cache and changed:
        with contextlib.suppress(ImportError):  # of pyarrow, without which there is no cache
            save(store, make_table(rows))
    return rows


def read_table(store: Store, seen: Mapping[str, Seen]) -> Any:
    """The same as `read_rows` as a pyarrow table (see `make_table`)."""
    rows, changed = _rows(store, seen, _load(store))
    table = make_table(rows)
    if changed:
        save(store, table)
    return table


def _rows(store: Store, seen: Mapping[str, Seen], old: Mapping[str, Row]) -> tuple[list[Row], bool]:
    """The rows, and whether the cache is to be written."""
    now = time.time_ns()
    rows, changed = [], len(old) != len(seen)
    for folder, current in seen.items():
        held = old.get(folder)
        if held is None or not current.confirms(held.seen.stamp, held.read_at, held.seen.newest, now):
            held = read_row(str(store.outputs / folder), folder, current)
            changed = True
        rows.append(held)
    return rows, changed


def read_row(path: str, folder: str, seen: Seen | None = None) -> Row:
    """The row of the run in `path`, which is called `folder`. A file that is no JSON mapping makes it a broken one."""
    read_at = time.time_ns()
    broken, held, texts = "", [], []
    for name in ("run.json", "metrics.json"):
        text, value = "{}", {}
        try:
            with open(f"{path}/{name}", "rb") as file:
                found = file.read().decode()
            parsed = json.loads(found)
            if not isinstance(parsed, dict):
                raise ValueError("it holds no mapping")
            text, value = found, parsed
        except FileNotFoundError:
            pass
        except ValueError as error:
            broken = f"{path}/{name} is not JSON ({error}); delete it and it is made again"
        held.append(value)
        texts.append(text)
    seen = seen or _look_at(path) or Seen("", read_at)
    return Row(folder, seen, read_at, held[0], whole_scores(held[1]), (texts[0], texts[1]), broken)


def intact(store: Store) -> bool:
    """Whether there is a cache in this format that nothing has damaged."""
    try:
        data = index_file(store).read_bytes()
    except OSError:
        return False
    cut = _footer(data)
    return cut is not None and data[cut - 32 : cut] == _digest(data[: cut - 32], data[cut:])


def _footer(data: bytes) -> int | None:
    """Where the footer of a parquet file begins."""
    if len(data) < 44 or data[-4:] != b"PAR1":
        return None
    cut = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    return cut if cut >= 36 else None


def _digest(body: bytes, footer: bytes) -> bytes:
    total = hashlib.sha256(FORMAT)
    total.update(body)
    total.update(footer)
    return total.digest()


def _load(store: Store) -> dict[str, Row]:
    """The cached rows by folder; empty where there is no usable cache."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return {}
    if not intact(store):
        return {}
    try:
        table = pq.read_table(index_file(store), columns=["folder", *INNER], partitioning=None).to_pydict()
    except (OSError, pa.ArrowException, KeyError):  # replaced since it was looked at
        return {}
    # One parse of one long text is several times faster than ten thousand parses of short ones.
    runs = json.loads("[" + ",".join(table["_run"]) + "]")
    metrics = json.loads("[" + ",".join(table["_metrics"]) + "]")
    rest = (table[name] for name in ("folder", "_stamp", "_newest", "_read_at", "_broken", "_run", "_metrics"))
    rows = {}
    for folder, stamp, newest, read_at, broken, *texts, run, scores in zip(*rest, runs, metrics, strict=True):
        rows[folder] = Row(
            folder, Seen(stamp, newest), read_at, run, whole_scores(scores), (texts[0], texts[1]), broken
        )
    return rows


def save(store: Store, table: Any) -> None:
    """Writes the cache, where there is something to hold and where it can be written: it only saves time."""
    import io

    import pyarrow.parquet as pq

    if not table.num_rows and not index_file(store).exists():
        return
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    cut = _footer(data)
    assert cut is not None
    # Readers find the footer from the file's end, so a digest in front of it is seen by nobody who does not look.
    data = data[:cut] + _digest(data[:cut], data[cut:]) + data[cut:]
    with contextlib.suppress(OSError, UserError):
        write_atomic(index_file(store), data, sync=False)


def make_table(rows: Sequence[Row]) -> Any:
    """Rows as a pyarrow table: the columns of `diffq.store.columns`, then INNER."""
    import pyarrow as pa

    types = {TEXT: pa.string(), WHOLE: pa.int64(), REAL: pa.float64(), TIME: pa.timestamp("us")}
    columns = columns_of([flat(row.kind, row.folder, row.run, row.metrics) for row in rows])
    arrays = {}
    for name, values in columns.items():
        known = TEXT if name in SHOWN else COLUMNS.get(name)
        array = pa.array(values, type=types[known] if known else None)
        arrays[name] = array.cast(pa.string()) if array.type == pa.null() else array
    arrays["_stamp"] = pa.array([row.seen.stamp for row in rows], pa.string())
    arrays["_read_at"] = pa.array([row.read_at for row in rows], pa.int64())
    arrays["_newest"] = pa.array([row.seen.newest for row in rows], pa.int64())
    arrays["_broken"] = pa.array([row.broken for row in rows], pa.string())
    arrays["_run"] = pa.array([row.texts[0] for row in rows], pa.string())
    arrays["_metrics"] = pa.array([row.texts[1] for row in rows], pa.string())
    return pa.table(arrays)
