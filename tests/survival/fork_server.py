"""A process that has imported diffq once and forks a child for every command: 50 kills cost seconds, not minutes.

Its arguments name more modules to import. Reads one JSON mapping a line: `words` of the command, `log` for what it
prints, and how it is to be hurt:

    limit   bytes that no file may exceed; `deadly`: reaching them ends the process, as the kernel does, in mid-line
    die_at  the number of the file operation under `outputs` before which the process ends with SIGKILL
    count   a file that gets the number of such operations at the end
    clock   seconds by which the child's clock is moved

`mount`, alone: words for mount(8), which is called here; the answer is its status.
Answers the child's process id, and then its exit status (negative: the signal).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def main() -> None:
    import accelerate  # noqa: F401
    import hydra  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch

    import diffq.runs.likelihood
    import diffq.runs.report
    import diffq.runs.sample
    import diffq.runs.sweep
    import diffq.runs.train
    import diffq.runs.workbench  # noqa: F401
    from diffq.config import compose

    for name in sys.argv[1:]:
        importlib.import_module(name)
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # as composing, this imports what every child would have to import again
    for dataset in ("grammar", "wikitext2"):
        compose([f"dataset={dataset}"])
    for line in sys.stdin:
        order = json.loads(line)
        if "mount" in order:
            print(subprocess.call(["mount", *order["mount"]]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _child(order)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(order: dict[str, Any]) -> None:
    os.setsid()
    os.environ["DIFFQ_SURVIVAL"] = order["mark"]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if limit := order.get("limit"):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if order.get("deadly"):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if shift := order.get("clock"):
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + shift
        time.time_ns = lambda: now_ns() + int(shift * 1e9)
    seen = _watch_operations(order)
    from diffq.cli import main as diffq

    status = diffq(order["words"])
    if order.get("count"):
        with open(order["count"], "w") as file:
            file.write(str(seen[0]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _watch_operations(order: dict[str, Any]) -> list[int]:
    """Counts operations that change something under `outputs` by Python's audit events; ends at `die_at`."""
    seen, last = [0], order.get("die_at")
    if not (last or order.get("count")):
        return seen
    outputs = order["outputs"]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _OPERATIONS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if not os.fspath(arguments[0] if not isinstance(arguments[0], int) else "").startswith(outputs):
            return
        seen[0] += 1
        if seen[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


if __name__ == "__main__":
    main()
