"""Ctrl-C and SIGTERM in every phase of a command: exit 130 and 143, one line, no traceback, nobody left alive."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "runs"))
from trained import command, copy_of, samples, train_both

from diffq.runs.workers import descendants

WORDS = ("sampler=clamp", "temperature=0.3,0.6", "steps=20", "batch_tokens=32", "num_samples=8")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
STUCK = """
import ctypes, sys, time
import diffq.runs.ls as ls
def stuck(request):
    print("stuck", flush=True)
    ctypes.CDLL(None).sleep(30)  # in C, where no Python handler runs (the lock is free, as inside torch)
    time.sleep(30)
    return 0
def swallowing(request):
    print("stuck", flush=True)
    while True:
        try:
            time.sleep(30)
        except BaseException:
            pass
ls.run = stuck if sys.argv[1] == "stuck" else swallowing
sys.argv = ["diffq", "ls", "samplers"]
from diffq.__main__ import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_both(tmp_path_factory.mktemp("trained"))


def start(argv: Sequence[str]) -> subprocess.Popen[str]:
    """A process of a group of its own, as a terminal's are, whatever this one ignores."""
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def until(happens: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 90
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.003)


def listens(pid: int) -> bool:
    """Whether a process has a handler of its own for SIGTERM."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def ended(process: subprocess.Popen[str], number: int, within: float = 5.0) -> str:
    """What it wrote to stderr; everything that must hold of a process that this signal has ended."""
    below = descendants(process.pid)
    began = time.monotonic()
    os.killpg(process.pid, number)
    out, error = process.communicate(timeout=60)
    assert time.monotonic() - began < within
    assert process.returncode == 128 + number, error
    assert "Traceback" not in error
    assert "Warning" not in error
    assert error.count("interrupted") == 1
    assert out == ""
    end = time.monotonic() + 5
    while alive := [p for p in below if Path(f"/proc/{p}").exists()]:
        assert time.monotonic() < end, alive
        time.sleep(0.02)
    return error.splitlines()[-1]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_sweep_says_how_far_it_got_and_goes_on(trained: Path, tmp_path: Path, number: int) -> None:
    outputs = copy_of(trained, tmp_path / "outputs")
    process = start(command(outputs, *WORDS, "--json"))
    sizes: set[int] = set()  # a batch is told of after it is written: once there is a second, the first has been

    def grown() -> bool:
        sizes.update(size for f in outputs.glob("points/**/samples.jsonl") if (size := f.stat().st_size))
        return len(sizes) > 1

    until(grown, process)
    line = ended(process, number)
    assert line.startswith("diffq: interrupted: 0 of 2 points are done, ")
    assert line.endswith(" of 96 rows of clamp τ0.3; the same command goes on")
    assert not list(outputs.glob("**/*.tmp"))
    before = samples(outputs)
    subprocess.run(command(outputs, *WORDS, "--json"), check=True, capture_output=True)
    assert all(text.startswith(before.get(name, b"")) for name, text in samples(outputs).items())
    assert [text.count(b"\n") for text in samples(outputs).values()] == [96, 96]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_joblibs_workers_go_with_it(trained: Path, tmp_path: Path, number: int) -> None:
    outputs = copy_of(trained, tmp_path / "outputs")
    process = start(command(outputs, *WORDS, "--json", *JOBLIB))
    until(lambda: any(outputs.glob("points/**/samples.jsonl")), process)
    assert len(descendants(process.pid)) >= 2
    ended(process, number)


@pytest.mark.parametrize("how", ["stuck", "swallowing"])
def test_what_does_not_listen_is_ended_within_five_seconds(how: str) -> None:
    process = start([sys.executable, "-c", STUCK, how])
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    assert ended(process, signal.SIGTERM) == "diffq: interrupted; the same command goes on"


def test_ctrl_c_twice_ends_it_at_once() -> None:
    process = start([sys.executable, "-c", STUCK, "stuck"])
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    ended(process, signal.SIGINT, within=1.0)


def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """A shell's background job ignores Ctrl-C."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + STUCK.replace("sleep(30)", "sleep(1)")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "stuck"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_is_saved_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, number: int
) -> None:
    """Well within five seconds of grace, and by the last step: also under `accelerate launch`, whose agent passes on
    what its whole group has got already."""
    words = [f"outputs={tmp_path}", "trainer.max_steps=100000", "trainer.max_minutes=null", "device=cpu", "--json"]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    argv = [sys.executable, *(launch if processes == 2 else ["-m"]), "diffq", "train", *words]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    process = start(argv)
    until(lambda: any("loss" in p.read_text() for p in tmp_path.glob("train/*/train.jsonl")), process)
    below = descendants(process.pid)
    began = time.monotonic()
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    if processes == 1:
        assert process.returncode == 128 + number
        assert "Traceback" not in error
        assert time.monotonic() - began < 5
    assert process.returncode != 0
    assert error.count("diffq: interrupted: the training is saved at step ") == 1, error
    (run,) = tmp_path.glob("train/*/run.json")
    assert '"status": "stopped"' in run.read_text()
    time.sleep(0.5)
    assert not [p for p in below if Path(f"/proc/{p}").exists()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["here", "joblib"])
def test_any_moment_of_a_sweep(trained: Path, tmp_path: Path, number: int, launcher: tuple[str, ...]) -> None:
    """Six moments from the loading of the command line to its end; whatever remains, the same command ends well."""
    outputs, whole = copy_of(trained, tmp_path / "outputs"), copy_of(trained, tmp_path / "whole")
    words = ("sampler=cfg", "scale=1,2", "steps=6", "--json", *launcher)
    began = time.monotonic()
    subprocess.run(command(whole, *words), check=True, capture_output=True, timeout=120)
    takes, argv = time.monotonic() - began, command(outputs, *words)
    for moment in range(6):
        process = start(argv)
        until(lambda p=process: listens(p.pid), process)  # before, Python itself has not begun
        time.sleep(takes * moment / 6)
        if process.poll() is None:
            os.killpg(process.pid, number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number), error
        assert "Traceback" not in error, error
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert samples(outputs) == samples(whole)
