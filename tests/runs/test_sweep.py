"""Sweeps with trouble: points that fail, that others have, whose workers die."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from trained import command, copy_of, samples, sweep

from diffq.cli import main
from diffq.runs.board import Entry
from diffq.runs.sweep import Sweeping
from diffq.runs.workers import descendants

ROW_A_BATCH = ("batch_tokens=32", "num_samples=4")
CLAIM = """
import sys, time
from pathlib import Path
from diffq.store import Point
claims = [Point(Path(folder)).claim() for folder in sys.argv[1:]]
for claim in claims: claim.__enter__()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def outputs(trained: Path, tmp_path: Path) -> Path:
    return copy_of(trained, tmp_path / "out puts")


def until(happens: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def records(outputs: Path) -> dict[str, dict]:
    return {str(p.parent): json.loads(p.read_text()) for p in outputs.glob("points/**/run.json")}


def test_the_printed_command_repeats_a_failed_point(
    outputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also one of an experiment in a folder of one's own, with a checkpoint whose model has sizes of its own."""
    more = tmp_path / "my conf"
    (more / "experiment").mkdir(parents=True)
    (more / "experiment/mine.yaml").write_text(
        "help: mine\ndefaults: {num_sources: 6}\n"
        "grids:\n  - {sampler: cfg, scale: [2], steps: [300, 4]}\n  - {sampler: clamp, temperature: 0.5, steps: 4}\n"
    )
    words = ["train", f"outputs={outputs}", "model.width=16", "trainer.max_minutes=null", "trainer.max_steps=2"]
    assert main([*words, "trainer.validation_sources=0"]) == 0
    capfd.readouterr()
    assert main(["sweep", f"outputs={outputs}", "experiment=mine", "--config-dir", str(more), "--json"]) == 1
    told, error = capfd.readouterr()
    assert len([p for p in json.loads(told)["points"] if p["kind"] == "point"]) == 2  # the others went on
    assert error.count(" failed:\n") == 1
    assert "steps=300" in error
    line = next(line for line in error.splitlines() if line.startswith("repeat it alone: "))
    argv = shlex.split(line.removeprefix("repeat it alone: "))
    assert argv[:2] == ["diffq", "sample"]
    (failed,) = [folder for folder in outputs.glob("points/*/*/*/*") if not (folder / "samples.jsonl").exists()]
    assert main([*argv[1:], "--json"]) == 2  # the same failure
    assert "300" in capfd.readouterr().err
    mended = [word.replace("steps=300", "steps=5") for word in argv[1:]]
    assert main([*mended, "--json"]) == 0
    made = json.loads(capfd.readouterr().out)["folder"]
    assert Path(made).parent == failed.parent
    assert json.loads((Path(made) / "run.json").read_text())["checkpoint_folder"] == next(
        json.loads(p.read_text())["checkpoint_folder"] for p in outputs.glob("points/*/*/clamp/*/run.json")
    )
    assert len(list(failed.parent.iterdir())) == 3


def test_a_point_that_cannot_be_scored_does_not_stop_the_others(
    outputs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("sampler=cfg", "scale=1,2", "steps=3")
    assert sweep(outputs, *words) == 0
    first = next(outputs.glob("points/**/samples.jsonl"))
    lines = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(b"".join([lines[0], b"x" * (len(lines[1]) - 1) + b"\n", *lines[2:]]))
    (first.parent / "metrics.json").unlink()
    capfd.readouterr()
    assert sweep(outputs, *words) == 1
    told, error = capfd.readouterr()
    assert f"{first.parent} failed:" in error
    assert "line 2" in error
    assert len([p for p in json.loads(told)["points"] if p["kind"] == "point"]) == 1
    argv = shlex.split(error.splitlines()[-1].removeprefix("repeat it alone: diffq "))
    assert argv[:2] == ["score", str(first.parent)]
    assert main(argv) == 2


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.parametrize("launcher", [(), pytest.param(JOBLIB, marks=pytest.mark.slow)], ids=["here", "joblib"])
def test_busy_points_are_waited_for_and_taken_over(outputs: Path, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    words = ("sampler=cfg", "scale=1,2", "steps=3")
    whole = copy_of(outputs, tmp_path / "whole")
    assert sweep(whole, *words) == 0
    place = next(iter(samples(whole)))
    holder = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(outputs / place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    made = (whole / place / "config.yaml").read_text()
    (outputs / place / "config.yaml").write_text(made.replace(str(whole), str(outputs)))
    process = subprocess.Popen(command(outputs, *words, "--json", *launcher), stdout=subprocess.PIPE)
    until(lambda: len(list(outputs.glob("points/**/metrics.json"))) == 1)  # the other point is scored meanwhile
    time.sleep(0.5)
    assert process.poll() is None
    assert place not in samples(outputs)
    holder.kill()
    holder.wait()
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len([p for p in json.loads(told)["points"] if p["kind"] == "point"]) == 2
    assert samples(outputs) == samples(whole)


@pytest.mark.slow
def test_a_killed_worker_costs_no_point(trained: Path, tmp_path: Path) -> None:
    words = ("sampler=clamp", "temperature=0.3,0.6,0.9", "steps=8", *ROW_A_BATCH)
    whole, cut = copy_of(trained, tmp_path / "whole"), copy_of(trained, tmp_path / "cut")
    subprocess.run(command(whole, *words), check=True, capture_output=True)
    process = subprocess.Popen(
        command(cut, *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: any(cut.glob("points/**/samples.jsonl")))
    workers = [p for p in descendants(process.pid) if b"LokyProcess" in Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "a worker was killed" in error
    assert "Traceback" not in error
    assert samples(cut) == samples(whole)
    assert not [p for p in workers if Path(f"/proc/{p}").exists()]


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(trained: Path, tmp_path: Path) -> None:
    """Same frontier from both, each row sampled once; one through joblib."""
    outputs, alone = copy_of(trained, tmp_path / "both"), copy_of(trained, tmp_path / "alone")
    words = ("sampler=clamp", "temperature=0.2,0.4,0.6,0.8", "steps=8", *ROW_A_BATCH, "--json")
    subprocess.run(command(alone, *words), check=True, capture_output=True)
    launchers = ((), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    both = [
        subprocess.Popen(command(outputs, *words, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for more in launchers
    ]
    told = [process.communicate(timeout=180) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    first, second = ([{k: v for k, v in p.items() if k != "seconds"} for p in json.loads(t[0])["points"]] for t in told)
    assert first == second
    assert samples(outputs) == samples(alone)


def test_a_sweep_reports_its_own_points(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another one of its name has written a plan into the folder that they share."""
    worked = Sweeping.run

    def run(self: Sweeping, done: Sequence[Entry]) -> None:
        worked(self, done)
        (plan,) = outputs.glob("sweeps/*/plan.jsonl")
        plan.write_text(json.dumps({"key": "0" * 64, "folder": "points/grammar/of/another/sweep"}) + "\n")

    monkeypatch.setattr(Sweeping, "run", run)
    assert sweep(outputs, "sampler=cfg", "scale=1,2", "steps=3") == 0
    (plan,) = outputs.glob("sweeps/*/plan.jsonl")
    assert [json.loads(line)["sampler"] for line in plan.read_text().splitlines()] == ["cfg", "cfg"]
    assert (plan.parent / "frontier.csv").is_file()
