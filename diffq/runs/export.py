"""`diffq export`: the whole store, or what a condition means of it, as one table in a file of the user's choice.

What is exported is the one thing that diffq writes outside `outputs=`, since it is named. It is there whole or not at
all. Models are exported by `export_model`.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq.config import Request
from diffq.errors import UserError, unknown
from diffq.runs.listing import columns_of, folders_of, plain, question_of, tell_broken
from diffq.runs.selection import outputs_of
from diffq.store import Point, Store
from diffq.store.columns import storable
from diffq.store.files import replacing
from diffq.store.query import ask

FORMATS = (".parquet", ".csv", ".json", ".jsonl")
_POINT = ("key", "folder", "status", "dataset", "model", "sampler", "seed")
_ROW = {"row": "BIGINT", "source": "BIGINT", "sample": "BIGINT", "text": "VARCHAR", "ended": "BOOLEAN",
        "nfe": "BIGINT", "prompt_ids": "BIGINT[]", "ids": "BIGINT[]"}  # fmt: skip
_CHUNK = 20_000

Types = Mapping[str, str]
"""Column names and DuckDB's names of their types."""
Rows = Iterable[Sequence[Any]]


def run(request: Request) -> int:
    """Writes the file and says what it holds; with --layout or --to a model's folder. Returns 0."""
    if request.flags.layout or request.flags.to:
        from diffq.runs import export_model

        return export_model.run(request)
    store, path = Store(outputs_of(request)), Path(request.flags.file).expanduser()
    write = _writer(path, request.flags.force)
    columns = columns_of(request)
    if request.flags.samples and columns is not None:
        raise UserError("--columns chooses among the columns of points; with --samples there is no choice")
    wanted = _POINT if request.flags.samples else columns
    answer = ask(store, question_of(request, kinds=("point",)), wanted, folders_of(request, store))
    tell_broken(answer)
    if not answer.rows:
        which = "of which this is true" if answer.columns else "yet"
        raise UserError(f"there is no point under {store.outputs} {which}, so {path} was not written")
    types = {answer.names.written[c]: t for c, t in zip(answer.columns, answer.types, strict=True)}
    rows: Rows = answer.rows
    if request.flags.samples:
        types, rows = types | _ROW, _samples(store, answer.rows)
    with writing_whole(path) as temporary:
        count = write(temporary, types, rows)
    if request.json:
        print(json.dumps({"file": str(path), "rows": count, "columns": list(types)}, ensure_ascii=False))
    else:
        what = "samples" if request.flags.samples else "runs"
        print(f"{path}: {count} {what}, {len(types)} columns")
    return 0


def _samples(store: Store, points: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """Every row of every point's samples.jsonl behind what says which point it is, one at a time."""
    place = _POINT.index("folder")
    for about in points:
        for row in Point(store.outputs / about[place]).rows():
            row["text"] = storable(row["text"])
            yield [*about, *(row.get(name) for name in _ROW)]


def _writer(path: Path, force: bool) -> Callable[[Path, Types, Rows], int]:
    """What writes a file of this name. UserError for a name that says no format, and for a file that is there."""
    if path.suffix not in FORMATS:
        if not path.suffix:
            raise UserError(f"{path} has no ending that says how it is written; use one of {', '.join(FORMATS)}")
        raise unknown("format called", path.suffix, FORMATS)
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise UserError(f"{path} {what}; name a file in a folder that is there")
    if path.exists() and not force:
        raise UserError(f"{path} is there already; add --force to write over it")
    return {".parquet": _parquet, ".csv": _csv, ".json": _json, ".jsonl": _json_lines}[path.suffix]


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` that takes its place when the block ends well. UserError where it cannot be written."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, UserError) as error:
        cause = error.__cause__ if isinstance(error, UserError) else error
        if not isinstance(cause, OSError):
            raise
        why = cause.strerror or cause
        raise UserError(f"{path} could not be written ({why}); what was there before is still there") from error


def _parquet(path: Path, types: Types, rows: Rows) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("a parquet file needs the package pyarrow: pip install pyarrow") from error
    known = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_(),
             "TIMESTAMP": pa.timestamp("us", "UTC"), "BIGINT[]": pa.list_(pa.int64())}  # fmt: skip
    schema = pa.schema([(name, known[kind]) for name, kind in types.items()])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in _chunks(rows):
            columns = zip(*chunk, strict=True)
            writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
            count += len(chunk)
    return count


def _chunks(rows: Rows) -> Iterator[list[Sequence[Any]]]:
    chunk: list[Sequence[Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _csv(path: Path, types: Types, rows: Rows) -> int:
    """Numbers in full, nothing for None, true and false, lists as JSON, lines end in a newline alone."""
    count = 0
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(types)
        for row in rows:
            writer.writerow([json.dumps(v) if isinstance(v, bool | list) else plain(v) for v in row])
            count += 1
    return count


def _encoded(types: Types, rows: Rows) -> Iterator[str]:
    for row in rows:
        yield json.dumps(dict(zip(types, map(plain, row), strict=True)), ensure_ascii=False, allow_nan=False)


def _json_lines(path: Path, types: Types, rows: Rows) -> int:
    return _write_texts(path, _encoded(types, rows), "", "\n", "\n")


def _json(path: Path, types: Types, rows: Rows) -> int:
    return _write_texts(path, _encoded(types, rows), "[\n", ",\n", "\n]\n")


def _write_texts(path: Path, texts: Iterable[str], head: str, between: str, tail: str) -> int:
    count = 0
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(head)
        for text in texts:
            file.write(between + text if count else text)
            count += 1
        file.write(tail)
    return count
