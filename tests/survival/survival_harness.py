"""Running diffq to be killed: commands in forked or in real processes, watched by the files that they write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TRAIN = ("model=gaussian_tiny", "trainer.max_minutes=null", "trainer.max_steps=12", "trainer.validation_sources=0",
         "trainer.batch_size=16", "dataset.size=400")  # fmt: skip
GRID = ("sampler=clamp_before_cfg", "scale=2", "temperature=0.5,1", "steps=6", "batch_tokens=64", "num_sources=12",
        "num_samples=4", "--json")  # fmt: skip
PATIENCE = 120.0  # seconds that a command may take


@dataclass
class Running:
    """A command at work. `pid` leads a session of its own; `mark` is in the environment of all that it starts."""

    pid: int
    mark: str
    log: Path
    wait: Callable[[], int]

    def kill(self) -> int:
        """kill -9 of the command's own process, and its exit status; its workers have to see for themselves."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def left_alive(self, within: float = 5.0) -> list[str]:
        """The processes of the command's session, or with its mark, that are alive `within` seconds after its end."""
        until = time.monotonic() + within
        while (alive := _alive(self.pid, self.mark)) and time.monotonic() < until:
            time.sleep(0.02)
        return alive


def _alive(session: int, mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == session:
            continue
        try:
            state, _, _, of_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            marked = f"DIFFQ_SURVIVAL={mark}".encode() in (folder / "environ").read_bytes()
            if state != "Z" and (int(of_session) == session or marked):
                found.append(f"{folder.name} {(folder / 'cmdline').read_bytes().decode(errors='replace')[:200]}")
        except (OSError, ValueError):
            continue
    return found


class ForkServer:
    """Starts commands by forking a process that has everything imported, one at a time."""

    def __init__(self, folder: Path, prefix: Sequence[str] = (), modules: Sequence[str] = ()):
        """
        prefix   what starts the server, such as `unshare -m`, which gives it mounts of its own
        modules  what it has imported beyond what all need
        """
        self.folder = folder
        self._server = subprocess.Popen(
            [*prefix, sys.executable, str(HERE / "fork_server.py"), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seen(self, path: Path) -> Path:
        """A path of the server's, with its mounts, as this process can open it."""
        return Path(f"/proc/{self._server.pid}/root{path}")

    def mount(self, *words: str) -> None:
        """Mounts something where the server sees it, and nobody else does."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"mount": list(words)}) + "\n")
        self._server.stdin.flush()
        assert self._server.stdout.readline() == "0\n", words

    def start(self, words: Sequence[str], **hurt: Any) -> Running:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        out = self._server.stdout
        mark, log = uuid.uuid4().hex, self.folder / "log"
        outputs = next((w.partition("=")[2] for w in words if w.startswith("outputs=")), "")
        order = {"words": list(words), "log": str(log), "mark": mark, "outputs": outputs, **hurt}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Running(int(out.readline()), mark, log, lambda: int(out.readline()))

    def run(self, words: Sequence[str], **hurt: Any) -> tuple[int, str]:
        """Exit status and what was said."""
        running = self.start(words, **hurt)
        return running.wait(), running.said()

    def finish(self, words: Sequence[str], **hurt: Any) -> str:
        status, said = self.run(words, **hurt)
        assert status == 0, said
        return said

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


class CommandLine:
    """Starts commands as a user does: a new process each."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self, words: Sequence[str], prefix: Sequence[str] = ()) -> Running:
        mark, log = uuid.uuid4().hex, self.folder / "log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "diffq", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | {"DIFFQ_SURVIVAL": mark, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return Running(process.pid, mark, log, process.wait)

    def run(self, words: Sequence[str], prefix: Sequence[str] = ()) -> tuple[int, str]:
        running = self.start(words, prefix)
        return running.wait(), running.said()

    def finish(self, words: Sequence[str]) -> str:
        status, said = self.run(words)
        assert status == 0, said
        return said


def samples_files(outputs: Path) -> list[Path]:
    return sorted(outputs.glob("points/*/*/*/*/samples.jsonl"))


def results(outputs: Path) -> dict[str, Any]:
    """All that a sweep leaves for its user, by file: bytes where they must be equal, else what of them must be.

    Times, memory and the machine are not among it. Null lines are compared in frontier.csv: a report of a part of the
    points may have kept more of them.
    """
    found: dict[str, Any] = {}
    for path in sorted([*outputs.glob("points/**/*"), *outputs.glob("sweeps/**/*"), *outputs.glob("reports/**/*")]):
        name = str(path.relative_to(outputs))
        if "nulls" in path.parts:
            continue
        if path.name == "samples.jsonl" or path.suffix in (".png", ".svg"):
            found[name] = path.read_bytes()
        elif path.suffix == ".npz":
            with np.load(path) as held:
                found[name] = _arrays(held)
        elif path.name == "metrics.json":
            scores = json.loads(path.read_bytes())
            found[name] = {k: v for k, v in scores.items() if v["name"] not in _MEASURED}
        elif path.name == "run.json":
            run = json.loads(path.read_bytes())
            found[name] = {k: run.get(k) for k in ("status", "key", "rows", *_COUNTED)}
        elif path.name == "frontier.csv":
            found[name] = _columns(path)
        elif path.is_file() and path.name.startswith("."):
            found[name] = "a file that should not be there"
    return found


_MEASURED = ("seconds", "peak_memory_bytes", "tokens_per_second", "seconds_per_sample")
_COUNTED = ("nfe_calls", "nfe_rows", "positions_projected", "tokens", "samples", "sources")


def _arrays(held: Any) -> dict[str, Any]:
    names = held["signatures"].tolist()
    return {name: held[f"s{i}"].tobytes() for i, name in sorted(enumerate(names), key=lambda pair: pair[1])}


def _columns(path: Path) -> list[dict[str, str]]:
    import csv

    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not any(m in k for m in ("seconds", "memory"))} for row in rows]


@dataclass
class Tally:
    """What the kills of one test met."""

    kills: int = 0
    partial: int = 0
    mid_line: int = 0
    by: dict[str, int] = field(default_factory=dict)

    def look(self, outputs: Path, whole: dict[str, bytes], kind: str) -> None:
        """Counts a kill that has just been made, and checks that what is on disk is a beginning of what it must be."""
        self.kills += 1
        self.by[kind] = self.by.get(kind, 0) + 1
        cut = False
        for path in samples_files(outputs):
            data = path.read_bytes()
            name = str(path.relative_to(outputs))
            assert whole[name].startswith(data), f"{name} holds other bytes than an uninterrupted run"
            cut = cut or len(data) < len(whole[name])
            self.mid_line += bool(data) and not data.endswith(b"\n")
        self.partial += cut

    def say(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.by.items())
        return (
            f"{self.kills} kills ({kinds}); {self.partial} met a samples.jsonl that was there and not complete,"
            f" {self.mid_line} of them cut within a line"
        )


def grown_to(running: Running, outputs: Path, target: int, expected: Sequence[str]) -> bool:
    """Watches samples.jsonl until all of them have `target` bytes together; False where the command ended before."""
    paths = [outputs / name for name in expected]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        size = 0
        for path in paths:
            try:
                size += os.stat(path).st_size
            except FileNotFoundError:
                continue
        if size >= target:
            return True
        if _is_over(running.pid):
            return False
    raise AssertionError(f"no {target} bytes within {PATIENCE} s: {running.said()}")


def _is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
