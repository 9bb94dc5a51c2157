"""What a training writes for people and for later verbs: train.jsonl and run.json, and the lock on its folder.

Knows no tensors.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from diffq.errors import UserError
from diffq.store import locks
from diffq.store.files import encode_row, read_rows, remove, write_atomic, write_json, writing
from diffq.store.locks import Busy

LOG = "train.jsonl"
RUN = "run.json"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds a training's folder against other processes; UserError where one has it.

    A training that failed before it wrote anything leaves no folder.
    """
    try:
        handle = locks.take(folder / "lock")
    except Busy as error:
        raise UserError(f"{folder} is being trained by another process; wait for it or stop it") from error
    try:
        yield
    finally:
        if [path.name for path in folder.iterdir()] == ["lock"]:
            (folder / "lock").unlink()
            folder.rmdir()
        os.close(handle)


class Journal:
    """The log of one training. A process that is not the first writes nothing."""

    def __init__(self, folder: Path, writes: bool):
        self.folder, self.writes = folder, writes
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        if self.writes:
            self._file = open(self.folder / LOG, "ab")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def cut(self, step: int) -> dict[str, Any] | None:
        """Takes back the rows after `step`: they will be written again.

        Gives every process the validation of `step` itself, where that is kept: it need not be made again.
        """
        path = self.folder / LOG
        rows = [row for row, _ in read_rows(path) if row["step"] <= step]
        if self.writes:
            write_atomic(path, b"".join(map(encode_row, rows)))
        return next((row for row in reversed(rows) if row["step"] == step and "validation_loss" in row), None)

    def row(self, values: Mapping[str, Any]) -> None:
        if self._file is not None:
            with writing(self.folder / LOG):
                self._file.write(encode_row(finite(values)))
                self._file.flush()

    def run(self, values: Mapping[str, Any]) -> None:
        if self.writes:
            write_json(self.folder / RUN, finite(values))


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with null in the place of what is no number: JSON has neither nan nor infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def remove_leftovers(folder: Path) -> None:
    """Deletes what a process that was killed was writing; the folder must be claimed."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("state/.*.tmp"), *folder.glob("tokenizer/.*.tmp")]:
        remove(path)
