"""Files that are there whole or not at all: atomic writes, and line-by-line reading of what may have been cut off.

Knows nothing of points.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffq.errors import UserError

_HOST = socket.gethostname()
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}

T = TypeVar("T")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an OSError that says that nothing can be written at `path` is a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _FULL:
            raise UserError(
                f"{path} could not be written whole ({why}); make space, and the same command goes on where it was"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"{path} cannot be written ({why}); name a folder that can be: outputs=FOLDER") from error
        raise


@contextlib.contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Gives a path beside `path`, for a file or a folder, which takes its place when the block ends.

    A reader sees the old one or the new one, also after a crash where sync is True; it was written through then.
    Where the block fails nothing stays behind, and what a killed process left beside `path` is deleted first.
    UserError where the disk is full or may not be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            yield temporary
            if sync:
                for written in [temporary, *temporary.rglob("*")]:
                    make_durable(written)
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise
        if sync:
            make_durable(path.parent)


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which stands at `folder` when the block ends.

    Where another process has made the same one meanwhile, that one stays.
    """
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            yield temporary
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not folder.is_dir():
            raise


def write_atomic(path: Path, data: bytes, sync: bool = True) -> None:
    """Puts `data` at `path`; a reader sees the old file or the new one, also after a crash where sync is True."""
    with replacing(path, sync) as temporary:
        temporary.write_bytes(data)


def remove(path: Path) -> None:
    """Deletes a file or a folder, as far as it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _remove_leftovers(path: Path) -> None:
    """Deletes what processes of this machine that are no more were writing in the place of `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(_HOST)}-*.tmp"):
        owner = left.name.rpartition(f".{_HOST}-")[2].partition("-")[0]
        if owner.isdigit() and int(owner) != os.getpid() and not _lives(int(owner)):
            remove(left)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def make_durable(path: Path) -> None:
    """Waits until the disk has what a file holds, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
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
    """Each whole row of a point's JSON-lines file and the offset of the byte after it, as `read_lines` has them."""
    return read_lines(path, decode_row, "a JSON mapping", "delete the folder and the point is sampled again")


def read_lines(path: Path, decode: Callable[[bytes], T | None], what: str, remedy: str) -> Iterator[tuple[T, int]]:
    """What is on each whole line of a file and the offset of the byte after it; nothing where there is no file.

    A last line that was cut off, or that `decode` gives None for, is what a kill leaves: it is passed over. UserError
    with the file, the line, `what` it should be and a `remedy` for one that stands before others.
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
                    f"{path}, line {broken} is not {what}, though other lines follow it; the file was changed"
                    f" by something else: {remedy}"
                )
            value = decode(line) if line.endswith(b"\n") else None
            if value is None:
                broken = number
                continue
            end += len(line)
            yield value, end


def cut_back(path: Path, end: int) -> None:
    """Leaves a file its first `end` bytes, where it has more: what stands behind them a crash has left half written.

    To be called before something is appended, which would be glued to it.
    """
    if not path.exists() or path.stat().st_size <= end:
        return
    with writing(path), open(path, "r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())


def append(path: Path, data: bytes) -> None:
    """Adds bytes to the end of a file, which is made where there is none; after it they survive a crash.

    UserError where the disk is full or may not be written.
    """
    new = not path.exists()
    with writing(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        if new:
            make_durable(path.parent)
        write_through(handle, path, data)
    finally:
        os.close(handle)


def write_through(handle: int, path: Path, data: bytes) -> None:
    """Writes all bytes to the open file of `path` and waits until the disk has them. UserError as `append` has it."""
    with writing(path):
        while data:  # a write is cut short by a full disk or a signal; then the next one says which
            data = data[os.write(handle, data) :]
        os.fsync(handle)


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Plain data as YAML in its own order, written atomically."""
    import yaml

    write_atomic(path, yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True).encode())


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; UserError where it holds another thing."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a mapping")
    return value
