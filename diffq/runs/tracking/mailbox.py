"""Folders that wait to be logged, and what has been logged: files, so that no killed process loses any.

    outputs/wandb/diffq/waiting/NAME.json    an errand; leaving it again replaces it
    outputs/wandb/diffq/logged/NAME.json     the digest of what was logged last under this name, and how
    outputs/wandb/diffq/lock                 held by the one worker that is at work
    outputs/wandb/diffq/state.json           what the worker says of itself
    outputs/wandb/diffq/log.txt              what the client prints

Knows no tracker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from diffq.store.files import read_json, write_json
from diffq.store.identity import digest

What = Literal["point", "sweep", "training"]


@dataclass(frozen=True)
class Errand:
    """Log what a folder holds.

    folder    under outputs/
    project   the tracker's project
    artifacts which files go with the run: none, samples, checkpoints, all
    x, y      of a sweep: the two metrics of its frontier
    """

    what: What
    folder: str
    project: str
    artifacts: str = "none"
    x: str = ""
    y: str = ""

    @property
    def name(self) -> str:
        """The file's name: one errand a folder and project."""
        return f"{self.what}-{digest([self.folder, self.project])[:24]}"


class Mailbox:
    """The mailbox of an outputs folder."""

    def __init__(self, outputs: Path):
        self.outputs = Path(outputs)
        self.folder = self.outputs / "wandb" / "diffq"

    def leave(self, errand: Errand) -> None:
        """Puts an errand into the box; one tenth of a millisecond, no fsync: at worst a log entry is lost."""
        write_json(self.folder / "waiting" / f"{errand.name}.json", asdict(errand), sync=False)

    def waiting(self) -> int:
        """How many errands there are, those at work included."""
        place = self.folder / "waiting"
        return sum(path.suffix in (".json", ".taken") for path in place.iterdir()) if place.is_dir() else 0

    @contextlib.contextmanager
    def take(self) -> Iterator[Errand | None]:
        """The errand that has waited longest, or None; it is gone after the block, unless that ended in an error.

        One that is left again meanwhile is another errand, and stays.
        """
        paths = [p for p in self.folder.glob("waiting/*.json") if not p.name.startswith(".")]
        oldest = min(paths, key=lambda p: (p.stat().st_mtime_ns, p.name), default=None)
        if oldest is None:
            yield None
            return
        taken = oldest.with_suffix(".taken")
        os.replace(oldest, taken)
        yield Errand(**(read_json(taken) or {}))
        taken.unlink()

    def put_back(self) -> None:
        """Returns what was taken and not done, as if it had come last. For the holder of the lock."""
        for taken in self.folder.glob("waiting/*.taken"):
            newer = taken.with_suffix(".json")
            if newer.exists():
                taken.unlink()
            else:
                os.utime(taken)
                os.replace(taken, newer)

    def logged(self, name: str) -> Mapping[str, Any]:
        """What `remember` was told of this name; empty where nothing."""
        return read_json(self.folder / "logged" / f"{name}.json") or {}

    def remember(self, name: str, **values: Any) -> None:
        """Notes what has been logged under a name."""
        write_json(self.folder / "logged" / f"{name}.json", values, sync=False)

    @property
    def state(self) -> Mapping[str, Any]:
        """What the worker says of itself: mode, why, logged (a count), failed (a sentence)."""
        return read_json(self.folder / "state.json") or {}

    def say(self, **values: Any) -> None:
        write_json(self.folder / "state.json", values, sync=False)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other worker is at work on this box."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a", encoding="utf-8") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield
