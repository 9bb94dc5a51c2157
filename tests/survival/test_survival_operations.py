"""A process that dies before any one of its file operations, in every verb that writes: the same command finishes.

What a watched kill can miss, since it lasts microseconds, is met here one by one: the operations (files opened for
writing, renamed, deleted, folders made) are counted in an uninterrupted run, and in the next ones the process ends
with SIGKILL before the first, the second, and so on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deaths import die_everywhere, weights
from survival_harness import GRID, TRAIN, ForkServer

SAVES = ("trainer.save_steps=3", "trainer.keep=2")


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
