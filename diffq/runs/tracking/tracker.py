"""What a verb holds: it leaves errands, and starts the process that runs them. Knows no client."""

from __future__ import annotations

import contextlib
import importlib.util
import netrc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

from diffq.config.sections import TrackerSettings
from diffq.errors import UserError
from diffq.runs.tracking.mailbox import Errand, Mailbox
from diffq.store.root import Store

HOST = "https://api.wandb.ai"
_SHARE = 0.02  # of a command's time: as long as it may wait at its end for what is not logged yet
_LEAST = 0.1  # seconds; to hear of a failure at once


class Tracker(Protocol):
    """A context manager. `point`, `sweep` and `training` name a folder that holds something new."""

    def __enter__(self) -> Tracker: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def point(self, folder: Path) -> None:
        """A point has been scored."""
        ...

    def sweep(self, folder: Path, x: str, y: str) -> None:
        """A sweep's frontier has been written, of metric y against metric x."""
        ...

    def training(self, folder: Path) -> None:
        """A training begins; what it writes is followed until this tracker is closed."""
        ...


class NoTracker:
    """Logs nothing."""

    def __enter__(self) -> NoTracker:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def point(self, folder: Path) -> None:
        pass

    def sweep(self, folder: Path, x: str, y: str) -> None:
        pass

    def training(self, folder: Path) -> None:
        pass


def open_tracker(settings: TrackerSettings, outputs: Path, say: Callable[[str], None] | None = None) -> Tracker:
    """The tracker that is asked for. `say` gets its one line of what it does or why it does nothing."""
    say = say or (lambda line: print(f"diffq: {line}", file=sys.stderr, flush=True))
    if settings.name == "none":
        return NoTracker()
    if importlib.util.find_spec("wandb") is None:
        say("tracker=wandb logs nothing: the package wandb is not installed")
        return NoTracker()
    mode, why = login(os.environ)
    if mode == "disabled":
        say(f"tracker=wandb logs nothing: {why}")
        return NoTracker()
    if mode == "offline":
        say(f"tracker=wandb is offline ({why}); later: wandb sync {Path(outputs) / 'wandb'}/offline-run-*")
    return Background(settings, Path(outputs), say)


def login(environment: Mapping[str, str]) -> tuple[str, str]:
    """`online`, `offline` or `disabled`, and why: what $WANDB_MODE says, else whether somebody is logged in.

    Asks no network: a name that does not resolve can take half a minute.
    """
    wanted = environment.get("WANDB_MODE", "")
    if wanted in ("online", "offline", "disabled"):
        return wanted, "WANDB_MODE says so"
    if not environment.get("WANDB_API_KEY") and not _in_netrc(urlsplit(server(environment)).hostname or ""):
        return "offline", "nobody is logged in"
    return "online", "logged in"


def server(environment: Mapping[str, str]) -> str:
    """The address of the tracker's host."""
    return environment.get("WANDB_BASE_URL") or HOST


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Background:
    """Errands for Weights & Biases, run by a process of the lowest priority.

    Closing it waits for what is not logged yet, but no longer than a fiftieth of the command's own time, or
    `settings.wait` seconds; the process goes on by itself until the mailbox is empty.
    """

    def __init__(self, settings: TrackerSettings, outputs: Path, say: Callable[[str], None]):
        self._settings, self._store, self._say = settings, Store(outputs), say
        self._mailbox = Mailbox(outputs)
        self._began = time.monotonic()
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def point(self, folder: Path) -> None:
        self._leave(Errand("point", self._store.relative(folder), self._settings.project, self._settings.artifacts))

    def sweep(self, folder: Path, x: str, y: str) -> None:
        self._leave(Errand("sweep", self._store.relative(folder), self._settings.project, x=x, y=y))

    def training(self, folder: Path) -> None:
        folder_name, settings = self._store.relative(folder), self._settings
        self._leave(Errand("training", folder_name, settings.project, settings.artifacts))

    def _leave(self, errand: Errand) -> None:
        try:
            self._mailbox.leave(errand)
            if self._worker is None:
                self._worker = start_worker(self._mailbox)
        except OSError as error:
            self._say(f"tracker=wandb cannot log {errand.folder}: {error}")

    def close(self) -> None:
        """Tells the worker that nothing more comes, and what became of what there was."""
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        assert worker.stdin is not None
        worker.stdin.close()
        wait = self._settings.wait
        if wait is None:
            wait = max(_LEAST, _SHARE * (time.monotonic() - self._began))
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(wait)
        try:
            state = self._mailbox.state
        except UserError:  # it is being made; there is nothing to tell
            state = {}
        if state.get("failed"):
            self._say(f"tracker=wandb could not log: {state['failed']}; the whole: {self._mailbox.folder / 'log.txt'}")
        elif left := self._mailbox.waiting():
            self._say(f"tracker=wandb is logging {left} more in the background; {self._mailbox.folder / 'log.txt'}")
        elif state.get("mode") == "offline" and state.get("why") != login(os.environ)[1]:
            self._say(f"tracker=wandb logged offline: {state.get('why')}")


def start_worker(mailbox: Mailbox) -> subprocess.Popen[bytes]:
    """The process that empties the mailbox. It ends by itself when its input is closed and nothing waits.

    In a process group of its own, so that Ctrl-C on the terminal does not reach it, but in the same session: with one
    of its own Linux would give it as much of the machine as the command has, whatever its priority.
    """
    mailbox.folder.mkdir(parents=True, exist_ok=True)
    mailbox.say()
    with open(mailbox.folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "diffq.runs.tracking.worker", str(mailbox.outputs.resolve())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            process_group=0,
        )
