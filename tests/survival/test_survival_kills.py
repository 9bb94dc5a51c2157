"""kill -9 of a sweep at moments chosen by watching samples.jsonl grow: nothing is lost and nothing is doubled.

Every kill ends the command's own process alone. After each one what is on disk must be a beginning of what an
uninterrupted run leaves; after the last the same command must end with the same results. `pytest -s` prints how many
kills there were and how many met a samples.jsonl that was there and not complete.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deaths import kill_again_and_again, parts, targets
from survival_harness import GRID, CommandLine, ForkServer, Tally, results, samples_files

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def test_six_kills(server: ForkServer, whole: Path, outputs: Path) -> None:
    words = ["sweep", f"outputs={outputs}", *GRID]
    tally = Tally()
    kill_again_and_again(lambda: server.start(words), outputs, whole, targets(whole, 6, 1), tally, "in a fork")
    server.finish(words)
    assert results(outputs) == results(whole)
    print(tally.say())
    assert tally.partial >= 3


@pytest.mark.slow
def test_more_samples_cut_off_and_fewer_asked_for(server: ForkServer, outputs: Path) -> None:
    """The more end with the bytes and the counts that they would have had."""
    words = ["sample", f"outputs={outputs}", "sampler=clamp", "steps=3", "batch_tokens=64", "num_sources=12", "--json"]
    server.finish([*words, "num_samples=2"])
    (few,) = [path.read_bytes() for path in samples_files(outputs)]
    status, said = server.run([*words, "num_samples=6"], limit=2 * len(few) + 100, deadly=True)
    assert status == -25, said
    server.finish([*words, "num_samples=2"])
    (path,) = samples_files(outputs)
    assert len(path.read_bytes()) > len(few)
    server.finish([*words, "num_samples=6"])
    cut = results(outputs)
    for point in outputs.glob("points"):
        shutil.rmtree(point)
    server.finish([*words, "num_samples=6"])
    assert cut == results(outputs)


@pytest.mark.slow
def test_sixty_kills(server: ForkServer, whole: Path, trained: Path, tmp_path: Path) -> None:
    """36 in forks of a warm process, 12 of the command line, 12 of the command line with two joblib workers."""
    line, tally = CommandLine(tmp_path), Tally()
    plans: list[tuple[str, int, ForkServer | CommandLine, tuple[str, ...]]] = [
        *((f"fork{i}", 12, server, ()) for i in range(3)),
        ("process", 12, line, ()),
        ("joblib", 12, line, JOBLIB),
    ]
    for seed, (name, count, starter, more) in enumerate(plans):
        outputs = Path(shutil.copytree(trained, tmp_path / name))
        words = ["sweep", f"outputs={outputs}", *GRID, *more]
        kind = {"process": "of a process", "joblib": "with two joblib workers"}.get(name, "in a fork")
        kill_again_and_again(
            lambda starter=starter, words=words: starter.start(words),  # type: ignore[misc]
            outputs,
            whole,
            targets(whole, count, seed),
            tally,
            kind,
        )
        starter.finish(words)
        assert results(outputs) == results(whole), name
    print(tally.say())
    assert tally.kills >= 50
    assert tally.partial >= 20


@pytest.mark.slow
def test_deaths_within_a_line(server: ForkServer, whole: Path, outputs: Path) -> None:
    """The kernel ends the process at a byte of samples.jsonl that is chosen beforehand (RLIMIT_FSIZE, SIGXFSZ)."""
    words = ["sweep", f"outputs={outputs}", *GRID]
    expected, tally = parts(whole), Tally()
    least = max(p.stat().st_size for p in whole.glob("points/**/*") if p.is_file() and p.name != "samples.jsonl")
    size = min(map(len, expected.values()))
    for limit in range(least + 1, size, (size - least) // 12):
        status, said = server.run(words, limit=limit, deadly=True)
        assert status == -25, said
        tally.look(outputs, expected, "by the kernel")
    server.finish(words)
    assert results(outputs) == results(whole)
    print(tally.say())
    assert tally.mid_line >= 8


@pytest.mark.slow
def test_joblib_workers_end_with_their_parent_whenever_that_ends(trained: Path, tmp_path: Path) -> None:
    """Kills while the workers start: before they have asked to die with their parent."""
    import time

    line = CommandLine(tmp_path)
    for pause in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5):
        outputs = Path(shutil.copytree(trained, tmp_path / f"outputs{pause}"))
        running = line.start(["sweep", f"outputs={outputs}", *GRID, "steps=200", *JOBLIB])
        until = time.monotonic() + 60
        while not any("loky" in name for name in running.left_alive(0)) and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(pause)
        running.kill()
        assert running.left_alive(within=20) == [], f"{pause} s after the workers began"
