"""Ways to die that the tests of pairs and of running text share, and what is compared afterwards."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from survival_harness import ForkServer, Running, Tally, grown_to, results, samples_files


def parts(whole: Path) -> dict[str, bytes]:
    return {str(path.relative_to(whole)): path.read_bytes() for path in samples_files(whole)}


def kill_again_and_again(
    start: Callable[[], Running], outputs: Path, whole: Path, targets: list[int], tally: Tally, kind: str
) -> None:
    """Starts the command once for every target, in bytes of all samples together, and kills it when it is there."""
    expected = parts(whole)
    for target in targets:
        running = start()
        reached = grown_to(running, outputs, target, list(expected))
        status = running.kill() if reached else running.wait()
        assert reached, f"the command ended with {status} before {target} bytes: {running.said()}"
        assert running.left_alive() == [], f"killed at {target} bytes"
        tally.look(outputs, expected, kind)


def targets(whole: Path, count: int, seed: int) -> list[int]:
    """Numbers of bytes, in ascending order, from the first to just before the last batch of samples."""
    size = sum(map(len, parts(whole).values()))
    return sorted(random.Random(seed).sample(range(1, int(size * 0.97)), count))


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
            counted = "windows" if "windows" in run else "pairs"
            found[name] = {k: run[k] for k in ("status", "step", "loss", counted, "tokenizer")}
        elif path.name == "train.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [(row["step"], row.get("loss"), row.get("validation_loss")) for row in rows]
        elif path.name == "state.json":
            found[name] = json.loads(path.read_bytes())["step"]
        else:
            found[name] = hashlib.sha256(path.read_bytes().replace(str(outputs).encode(), b"")).hexdigest()
    return found
