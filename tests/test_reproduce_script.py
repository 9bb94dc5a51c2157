"""scripts/reproduce_qqp.sh on made-up pairs: killed in the middle, called again, with nothing optional installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABSENT = ("datasets", "pyarrow", "duckdb", "wandb", "rouge_score", "matplotlib", "nltk", "pandas", "rich", "diffusers")
HIDE = f"""
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec.__func__
def find_spec(cls, name, path=None, target=None):
    return None if name.split(".")[0] in {set(ABSENT)!r} else find(cls, name, path, target)
machinery.PathFinder.find_spec = classmethod(find_spec)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """QQP's file names with made-up questions in them."""
    place = tmp_path / "qqp"
    place.mkdir()
    for split, count in (("train", 400), ("valid", 20), ("test", 20)):
        rows = [
            {"src": f"how do {n % 7} people cook {n} meals ?", "trg": f"how are {n} meals cooked ?"}
            for n in range(count)
        ]
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(HIDE)
    return tmp_path


def start(folder: Path, *more: str) -> subprocess.Popen:
    words = ["10", "model=gaussian_tiny", "trainer=cpu", "trainer.max_minutes=0.4", "trainer.save_minutes=0.05"]
    words += [f"dataset.path={folder / 'qqp'}", "dataset.tokenizer=words", "num_sources=8", "num_samples=2"]
    environment = os.environ | {
        "PYTHONPATH": str(folder / "hidden"), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "TWIN": "no",
        "RESULTS": str(folder / "results"), "DIFFQ_DATA": "",
    }  # fmt: skip
    return subprocess.Popen(
        [str(ROOT / "scripts/reproduce_qqp.sh"), *words, f"outputs={folder / 'made'}", *more],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(pattern: str, folder: Path) -> None:
    until = time.monotonic() + 180
    while not list(folder.glob(pattern)):
        assert time.monotonic() < until, pattern
        time.sleep(0.2)


def test_it_goes_on_after_kills_and_writes_its_results(folder: Path) -> None:
    state = folder / "made/reproduce/qqp/state.json"

    first = start(folder)
    wait_for("made/train/*/state/step-*", folder)
    time.sleep(3)  # until the clock has been written too
    first.send_signal(signal.SIGKILL)
    first.communicate()
    used = json.loads(state.read_text())["used_seconds"]
    assert used > 0

    second = start(folder)
    wait_for("made/points/*/*/*/*/samples.jsonl", folder)
    second.send_signal(signal.SIGKILL)
    assert "goes on at step" in second.communicate()[1]
    assert json.loads(state.read_text())["used_seconds"] > used

    third = start(folder)
    printed, said = third.communicate(timeout=400)
    assert third.returncode == 0, said
    assert "the results are in" in printed
    assert "16 points" in (folder / "results/README.md").read_text()
    assert {path.name for path in (folder / "results").iterdir()} == {
        "README.md", "frontier.csv", "frontier.md", "paper-2503.10683.md", "training-gaussian_tiny.csv",
    }  # fmt: skip
    assert "meals" not in "".join(path.read_text() for path in (folder / "results").iterdir())
    assert len(list(folder.glob("made/train/*/config.yaml"))) == 1


def test_a_call_can_be_short_and_says_that_there_is_more(folder: Path) -> None:
    call = start(folder, "--call", "0.1")
    _, said = call.communicate(timeout=120)
    assert call.returncode == 75
    assert "the same line goes on" in said


def test_missing_data_are_said_before_anything_starts(folder: Path) -> None:
    (folder / "qqp").rename(folder / "elsewhere")
    call = start(folder)
    _, said = call.communicate(timeout=60)
    assert call.returncode == 1
    assert "there are no QQP files" in said
    assert not (folder / "made").exists()
