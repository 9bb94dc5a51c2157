"""The scores of samples on disk: which entries of a metrics.json count, and which one is meant by a metric's name."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.errors import UserError
from diffq.store import locks
from diffq.store.files import read_json, write_atomic, write_json

_writing = threading.Lock()

FIELDS = {"name", "value", "low", "high", "n", "direction"}


def whole_scores(held: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those entries of a metrics.json that have every field. One of another version, which lacks a field, counts as not
    there: scoring writes it anew."""
    return {name: score for name, score in held.items() if isinstance(score, dict) and score.keys() >= FIELDS}


def pick_scores(metrics: Mapping[str, Mapping[str, Any]], samples: int) -> dict[str, str]:
    """The signature by each metric's name: of several, one over `samples` samples a source (or that names no number),
    and of those the one that was written last."""
    chosen: dict[str, str] = {}
    for signature, score in metrics.items():
        name = str(score["name"])
        held = chosen.get(name)
        fits = samples_of(signature) in (samples, None)
        if held is None or fits or samples_of(held) not in (samples, None):
            chosen[name] = signature
    return chosen


@functools.lru_cache(maxsize=4096)
def samples_of(signature: str) -> int | None:
    """The samples a source that a signature names (`…|s:3|…`), or None."""
    for part in signature.split("|"):
        if part.startswith("s:") and part[2:].isdigit():
            return int(part[2:])
    return None


@dataclass(frozen=True)
class ScoreFiles:
    """Two files of a folder: NAME.json holds scores by signature, STATISTICS.npz the rows a source that their intervals
    are bootstrapped from.

    Scores need no claim of a point, since samples are not touched: each file is replaced whole, by one writer at a
    time. The statistics go first, so that a score whose statistics are missing is never seen.
    """

    folder: Path
    name: str = "metrics"
    statistics: str = "per_source"

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The whole entries by signature; empty where there are none."""
        return whole_scores(read_json(self.folder / f"{self.name}.json") or {})

    def per_source(self) -> dict[str, Any]:
        """Arrays of sources × statistics by signature. UserError where the file is damaged."""
        import zipfile
        import zlib

        import numpy as np

        path = self.folder / f"{self.statistics}.npz"
        try:
            with np.load(path, allow_pickle=False) as held:
                names = held["signatures"].tolist()
                return {name: held[f"s{i}"] for i, name in enumerate(names)}
        except FileNotFoundError:
            return {}
        except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError) as error:
            raise UserError(
                f"{path} is damaged; delete it and {self.name}.json beside it, and scoring makes both again"
            ) from error

    def merge(
        self, metrics: Mapping[str, Mapping[str, Any]], per_source: Mapping[str, Any] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Merges scores into the files by signature and returns all that they then hold."""
        with self._alone():
            if per_source:
                self.write_statistics(self.per_source() | dict(per_source))
            held = {signature: score for signature, score in self.metrics().items() if signature not in metrics}
            merged = held | {signature: dict(score) for signature, score in metrics.items()}  # the newest stand last
            write_json(self.folder / f"{self.name}.json", merged)
        return merged

    def write_statistics(self, arrays: Mapping[str, Any]) -> None:
        """Writes arrays by signature; `per_source` reads them."""
        write_atomic(self.folder / f"{self.statistics}.npz", _pack(arrays))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds other writers off, in this process and others, for as long as two files take."""
        with _writing:
            handle = locks.take(self.folder / "metrics.lock", wait=True)
            try:
                yield
            finally:
                os.close(handle)


def _pack(arrays: Mapping[str, Any]) -> bytes:
    """A .npz of arrays by signature. Signatures are no file names, so they go into an array of their own."""
    import numpy as np

    buffer = io.BytesIO()
    numbered = {f"s{i}": np.asarray(array) for i, array in enumerate(arrays.values())}
    np.savez_compressed(buffer, allow_pickle=False, signatures=np.array(list(arrays), dtype=str), **numbered)
    return buffer.getvalue()
