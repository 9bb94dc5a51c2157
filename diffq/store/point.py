"""One point on disk: its rows, its lock, and how a killed run is taken up again.

    config.yaml     what was asked for, as composed
    samples.jsonl   one row a sample, append-only
    metrics.json    {signature: {name, value, low, high, n, direction}}
    per_source.npz  the statistics that intervals are bootstrapped from, by signature
    nulls/          the same two of its null lines, where a frontier begins here: corrupt-0.1.json, corrupt-0.1.npz
    run.json        status, times, counts, versions, device, and the typed dials
    lock            held while somebody samples

Knows no network and no metric: rows and metrics are plain mappings here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from diffq.errors import UserError
from diffq.store import locks
from diffq.store.files import (
    cut_back,
    encode_row,
    make_durable,
    read_json,
    read_rows,
    write_atomic,
    write_json,
    write_through,
    writing,
)
from diffq.store.identity import Identity
from diffq.store.locks import Busy
from diffq.store.scores import ScoreFiles
from diffq.store.versions import versions

Status = Literal["absent", "partial", "done"]

# POSIX record locks belong to a process: a second claim in the same process would be granted, and closing its file
# would drop the first one's lock. So claims exclude each other here first; the process id makes a forked child, which
# inherits this table but no lock, start empty.
_held: dict[str, int] = {}
_released = threading.Condition()


class Point:
    """One folder of the store. `identity` is None where a folder was opened by its path, to read it."""

    def __init__(self, folder: Path, identity: Identity | None = None):
        self.folder = Path(folder)
        self.identity = identity

    @property
    def samples_file(self) -> Path:
        return self.folder / "samples.jsonl"

    def claim(self, wait: bool = False) -> Claim:
        """The right to write this point, given back at the end of the `with` block or by `release`.

        Raises Busy where somebody else has it, in this process or another, unless `wait`, which sleeps until they are
        done. UserError where the file system has no locks.
        """
        return Claim(self, wait)

    def busy(self) -> bool:
        """Whether somebody is writing this point now; the lock is asked about, not taken, and no file is made."""
        with _released:
            if _held.get(os.path.realpath(self.folder)) == os.getpid():
                return True
            return locks.is_taken(self.folder / "lock")

    def status(self, rows: int | None = None) -> Status:
        """Whether the first `rows` rows (all that were asked for last, where None) are there and recorded as done.

        A point that is being extended by more samples keeps those that it had: they are done all the while. A file of
        another size than was recorded has been changed by something else: the point is partial again.
        """
        run, size = self.run(), self._size()
        asked = run.get("samples", 0) * run.get("sources", 0)
        if size is not None and run.get("status") == "partial" and rows is not None and rows < asked:
            marks = run.get("by_samples", {}).values()
            return "done" if any(m["rows"] >= rows and m["bytes"] <= size for m in marks) else "partial"
        if size is not None and run.get("status") == "done" and run.get("bytes", size) == size:
            return "done" if rows is None or run.get("rows", 0) >= rows else "partial"
        return "absent" if size is None and not run else "partial"

    def _size(self) -> int | None:
        """Bytes of samples.jsonl; None where there is none."""
        try:
            return self.samples_file.stat().st_size
        except FileNotFoundError:
            return None

    def rows(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The first `limit` rows (None: all), one at a time.

        UserError where a line that is not the last is broken, or the last of a point that is done.
        """
        there = 0
        for row, _ in read_rows(self.samples_file):
            if limit is not None and there >= limit:
                return
            there += 1
            yield row
        run = self.run()
        if run.get("status") == "done" and there < run.get("rows", 0):
            raise UserError(
                f"{self.samples_file} holds {there} of the {run['rows']} rows that were sampled; the file was changed"
                " by something else: delete the folder and the point is sampled again"
            )

    def run(self) -> dict[str, Any]:
        """What `run.json` holds; empty where there is none."""
        return read_json(self.folder / "run.json") or {}

    @property
    def scores(self) -> ScoreFiles:
        """`metrics.json` and `per_source.npz`."""
        return ScoreFiles(self.folder)

    def nulls(self, line: str) -> ScoreFiles:
        """What became of the samples in a null line, `corrupt-0.1`: its scores."""
        return ScoreFiles(self.folder / "nulls", line, line)

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The whole entries of `metrics.json`, by signature; empty where there is none."""
        return self.scores.metrics()

    def config(self) -> dict[str, Any]:
        """What `config.yaml` holds. UserError where the folder has none, or it is no mapping."""
        import yaml

        path = self.folder / "config.yaml"
        mended = f"delete {self.folder / 'run.json'} and the point is sampled again"
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.folder} is no point of the store: it has no config.yaml") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not YAML ({str(error).splitlines()[0]}); put it back, or {mended}") from error
        if not isinstance(value, dict):
            raise UserError(f"{path} must hold a mapping; put it back, or {mended}")
        return value

    def per_source(self) -> dict[str, Any]:
        """Arrays of sources × statistics by signature, those that have been written with the scores.

        UserError where the file is damaged.
        """
        return self.scores.per_source()

    def write_metrics(
        self, metrics: Mapping[str, Mapping[str, Any]], per_source: Mapping[str, Any] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Merges scores into the files by signature and returns all that they then hold."""
        return self.scores.merge(metrics, per_source)


class Claim:
    """The exclusive right to write one point. A context manager; made by `Point.claim`."""

    def __init__(self, point: Point, wait: bool = False):
        self.point = point
        self._name = os.path.realpath(point.folder)
        self._lock: int | None = None
        self._samples: int | None = None
        self._rows = 0
        self._take(wait)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take(self, wait: bool) -> None:
        with _released:
            while _held.get(self._name) == os.getpid():
                if not wait:
                    raise Busy(f"{self.point.folder} is being sampled by this process")
                _released.wait()
            _held[self._name] = os.getpid()
        try:
            self._lock = locks.take(self.point.folder / "lock", wait)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        with _released:
            _held.pop(self._name, None)
            _released.notify_all()

    def release(self) -> None:
        """Gives the point back; a second call does nothing."""
        if self._samples is not None:
            os.close(self._samples)
            self._samples = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self._forget()

    def resume(self, plan: Sequence[int], recorded: int | None = None) -> int:
        """How many batches of the plan (sizes in rows) are whole on disk, after cutting the file back to their end.

        recorded: how many rows the counts in `run.json` are of. A batch that was written and not recorded is redone
        like a half-done one, or its cost would be missing for good; where recorded rows are gone, all are redone.
        The plan is a function of the point, so a batch that is redone gives the bytes it would have given.
        Rows beyond the plan (more samples were asked for earlier) are kept. UserError where a line that is not the
        last is broken or is not the row that belongs there.
        """
        path = self.point.samples_file
        ends = [0]
        for number, (row, end) in enumerate(read_rows(path)):
            if row.get("row") != number:
                raise UserError(
                    f"{path}, line {number + 1} holds row {row.get('row')} and not row {number}; the file was changed"
                    " by something else: delete the folder and the point is sampled again"
                )
            ends.append(end)
        there, done, boundary = len(ends) - 1, 0, 0
        if recorded is not None:  # counts of rows that are gone cannot be taken back: then all is done anew
            there = recorded if recorded <= there else 0
        for size in plan:
            if boundary + size > there:
                break
            boundary, done = boundary + size, done + 1
        keep = boundary if done < len(plan) else there
        cut_back(path, ends[keep])
        self._rows = keep
        return done

    @property
    def place(self) -> dict[str, int]:
        """Rows and bytes up to the end of what has been appended."""
        return {"rows": self._rows, "bytes": self.point._size() or 0}

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows of one batch with one write and one fsync; after it they survive a crash.

        `resume` must have been called. Rows hold no times: the file is the same whenever it is written.
        """
        rows = list(rows)
        for number, row in enumerate(rows, start=self._rows):
            if row["row"] != number:
                raise ValueError(f"row {row['row']} cannot stand on line {number + 1}")
        if self._samples is None:
            new = not self.point.samples_file.exists()
            with writing(self.point.samples_file):
                self._samples = os.open(self.point.samples_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            if new:
                make_durable(self.point.folder)
        write_through(self._samples, self.point.samples_file, b"".join(encode_row(row) for row in rows))
        self._rows += len(rows)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes `config.yaml`."""
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
        write_atomic(self.point.folder / "config.yaml", text.encode())

    def record(self, run: Mapping[str, Any]) -> None:
        """Writes `run.json` with status partial: counts and times so far, which a later process goes on from."""
        self._write_run("partial", run, sync=False)

    def finish(self, run: Mapping[str, Any]) -> None:
        """Writes `run.json` with status done.

        run: times, counts (nfe_calls, nfe_rows, positions_projected, tokens), device, `rows` (how many rows were asked
        for; all that are there where it is missing), and anything more. The identity, the versions and the time are
        added here.
        """
        self._write_run("done", run, sync=True)

    def _write_run(self, status: Status, run: Mapping[str, Any], sync: bool) -> None:
        identity = self.point.identity.describe() if self.point.identity else {}
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        name = "finished" if status == "done" else "updated"
        body = {"status": status, "rows": self._rows, "bytes": self.point._size() or 0} | identity | dict(run)
        body |= {"versions": versions(), name: stamp}
        write_json(self.point.folder / "run.json", body, sync)
