"""A process that dies before any one of its file operations, in every verb that writes: the same command finishes.

What a watched kill can miss, since it lasts microseconds, is met here one by one: the operations (files opened for
writing, renamed, deleted, folders made) are counted in an uninterrupted run, and in the next ones the process ends
with SIGKILL before the first, the second, and so on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from survival_harness import GRID, TRAIN, ForkServer, results

SAVES = ("trainer.save_steps=3", "trainer.keep=2")


def die_everywhere(
    server: ForkServer, words: Sequence[str], start: Path, tmp_path: Path, most: int, found: Any = results
) -> None:
    """Kills `words` before `most` of its operations, spread evenly, each time in a fresh copy of `start`."""
    whole = _copy(start, tmp_path / "uninterrupted")
    server.finish([*words, f"outputs={whole}"], count=str(tmp_path / "count"))
    count = int((tmp_path / "count").read_text())
    assert count > 3, "these operations were not seen"
    chosen = sorted({1 + number * (count - 1) // (most - 1) for number in range(most)})
    for number in chosen:
        outputs = _copy(start, tmp_path / "killed")
        status, said = server.run([*words, f"outputs={outputs}"], die_at=number)
        assert status == -9, f"operation {number} of {count}: {said}"
        server.finish([*words, f"outputs={outputs}"])
        assert found(outputs) == found(whole), f"operation {number} of {count}"
    print(f"{words[0]}: died before {len(chosen)} of {count} file operations")


def _copy(start: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    if start.exists():
        shutil.copytree(start, to)
    return to


def weights(outputs: Path) -> dict[str, Any]:
    """Of a training: bytes of all that is no time."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in outputs.rglob("*") if p.is_file()):
        name = str(path.relative_to(outputs))
        if path.name == "run.json":
            run = json.loads(path.read_bytes())
            found[name] = {k: run[k] for k in ("status", "step", "loss", "pairs", "tokenizer")}
        elif path.name == "train.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [(row["step"], row.get("loss"), row.get("validation_loss")) for row in rows]
        elif path.name == "state.json":
            found[name] = json.loads(path.read_bytes())["step"]
        else:
            found[name] = hashlib.sha256(path.read_bytes().replace(str(outputs).encode(), b"")).hexdigest()
    return found


@pytest.fixture
def most(request: pytest.FixtureRequest) -> int:
    """At how many operations a test kills."""
    return request.param


@pytest.mark.parametrize("most", [2, pytest.param(16, marks=pytest.mark.slow)], indirect=True)
def test_score(server: ForkServer, whole: Path, tmp_path: Path, most: int) -> None:
    start = Path(shutil.copytree(whole, tmp_path / "start"))
    for path in [*start.glob("points/**/metrics.json"), *start.glob("points/**/per_source.npz")]:
        path.unlink()
    die_everywhere(server, ["score"], start, tmp_path, most)


@pytest.mark.slow
@pytest.mark.parametrize("most", [12], indirect=True)
def test_report(server: ForkServer, whole: Path, tmp_path: Path, most: int) -> None:
    start = Path(shutil.copytree(whole, tmp_path / "start"))
    for path in (start / "sweeps").glob("*/*"):
        if path.name != "plan.jsonl":
            path.unlink()
    die_everywhere(server, ["report"], start, tmp_path, most)


@pytest.mark.slow
@pytest.mark.parametrize("most", [12], indirect=True)
def test_sweep(server: ForkServer, trained: Path, tmp_path: Path, most: int) -> None:
    die_everywhere(server, ["sweep", *GRID], trained, tmp_path, most)


@pytest.mark.slow
@pytest.mark.parametrize("most", [18], indirect=True)
def test_train(server: ForkServer, tmp_path: Path, most: int) -> None:
    die_everywhere(server, ["train", *TRAIN, *SAVES], tmp_path / "nothing", tmp_path, most, weights)
