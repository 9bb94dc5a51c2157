"""Files that are there whole or not at all: atomic writes, and line-by-line reading of what may have been cut off.

Knows nothing of points.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffq.errors import UserError


def write_atomic(path: Path, data: bytes, sync: bool = True) -> None:
    """Puts `data` at `path`; a reader sees the old file or the new one, also after a crash where sync is True."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any, sync: bool = True) -> None:
    """`value` as indented JSON, written atomically. NaN and infinity are refused (ValueError): JSON has none."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode("utf-8", "backslashreplace"), sync)


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping that a JSON file holds, or None where there is no file; UserError where it holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and it is made again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON mapping; delete it and it is made again")
    return value


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One JSON line with its newline. A lone surrogate, which UTF-8 lacks, becomes a JSON escape."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def decode_row(line: bytes) -> dict[str, Any] | None:
    """The mapping on a line, or None where the line holds none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each whole row of a JSON-lines file and the offset of the byte after it; nothing where there is no file.

    A last line that was cut off, or holds no mapping, is what a kill leaves: it is passed over. UserError with the
    file and the line for one that stands before others.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed by the `with` below; opening alone may fail
    except FileNotFoundError:
        return
    with file:
        end, broken = 0, 0
        for number, line in enumerate(file, start=1):
            if broken:
                raise UserError(
                    f"{path}, line {broken} is not a JSON mapping, though other lines follow it; the file was changed"
                    " by something else: delete the folder and the point is sampled again"
                )
            row = decode_row(line) if line.endswith(b"\n") else None
            if row is None:
                broken = number
                continue
            end += len(line)
            yield row, end
