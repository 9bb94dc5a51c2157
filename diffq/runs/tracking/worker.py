"""The process that runs errands until the mailbox is empty and whoever started it has closed the pipe, or died.

`python -m diffq.runs.tracking.worker OUTPUTS`. An errand that fails or hangs stays in the mailbox for the next one.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from diffq.runs.tracking.mailbox import Errand, Mailbox
from diffq.runs.tracking.tracker import login, server

_PATIENCE = 3.0  # seconds for the tracker's host to answer
_LONGEST = 180  # seconds that one errand may take; a training is followed for as long as it lasts
_PAUSE = 0.25  # seconds between two looks into the mailbox


class Caller:
    """Whoever started this process, at the other end of standard input."""

    def __init__(self) -> None:
        self.gone = False

    def pause(self, seconds: float = _PAUSE) -> bool:
        """Waits, unless the caller is gone. Whether it is still there."""
        if not self.gone and select.select([0], [], [], seconds)[0]:
            self.gone = not os.read(0, 4096)
        return not self.gone


def main(outputs: Path) -> int:
    """Runs errands. Returns 0, or 1 where one failed."""
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may be closed; there is a little left to do
    mailbox, caller = Mailbox(outputs), Caller()
    with mailbox.alone():
        mailbox.put_back()
        mode, why = reachable()
        mailbox.say(mode=mode, why=why, logged=0)
        logged = 0
        while True:
            try:
                with _at_most(_LONGEST), mailbox.take() as errand:
                    if errand is not None:
                        _run(errand, mailbox, mode, caller)
            except Exception as error:
                traceback.print_exc()
                reason = (str(error).splitlines() or [""])[0][:200]
                mailbox.say(mode=mode, why=why, logged=logged, failed=f"{type(error).__name__}: {reason}")
                mailbox.put_back()
                _leave(1)
            if errand is not None:
                logged += 1
                mailbox.say(mode=mode, why=why, logged=logged)
            elif not caller.pause():
                if mailbox.waiting():
                    continue  # left between the look and the end
                _leave(0)


def _run(errand: Errand, mailbox: Mailbox, mode: str, caller: Caller) -> None:
    from diffq.runs.tracking import mirror

    if errand.what == "training":
        signal.alarm(0)
        mirror.follow(errand, mailbox, mode, caller.pause)
    else:
        mirror.log(errand, mailbox, mode)


def reachable() -> tuple[str, str]:
    """The mode of `login`, and offline where the host does not answer within seconds."""
    mode, why = login(os.environ)
    if mode == "offline" or os.environ.get("WANDB_MODE") == "online":
        return mode, why
    address = urlsplit(server(os.environ))
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    answered = threading.Event()

    def knock() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_PATIENCE):
            answered.set()

    threading.Thread(target=knock, daemon=True).start()  # resolving a name has no time limit of its own
    return (mode, why) if answered.wait(_PATIENCE) else ("offline", f"{host} cannot be reached")


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """TimeoutError after so many seconds: the client retries for days where a network goes away."""

    def over(*_: object) -> None:
        raise TimeoutError(f"logging took longer than {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _leave(status: int) -> None:
    """Ends the process at once: the client's threads may be waiting for a network that is not there."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status == 0:
        sys.exit(0)  # the client ends its own helpers
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
