"""A full disk, a folder that may not be written, and many processes on one store.

The disk is a small tmpfs that only the command sees (`unshare -m`; as an ordinary user `unshare -Urm`). Where neither
is allowed these tests are skipped, and say so; files that may not grow (RLIMIT_FSIZE) fail everywhere in the same way.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from survival_harness import GRID, TRAIN, CommandLine, ForkServer, results, samples_files

FULL = r"^.*(could not be written whole \((No space left on device|File too large)\); make space, and the same).*$"
ROOM = 64 * 2**20


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A fork server with mounts of its own."""
    for prefix in (["unshare", "-m"], ["unshare", "-Urm"]):
        try:
            works = subprocess.run([*prefix, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, check=False)
        except FileNotFoundError:
            break
        if works.returncode == 0:
            made = ForkServer(tmp_path_factory.mktemp("private"), prefix)
            yield made
            made.close()
            return
    pytest.skip("a small disk needs root or user namespaces, and here unshare(1) and mount(8) are not allowed")


def disk(private: ForkServer, folder: Path, start: Path | None = None) -> tuple[Path, Path]:
    """An outputs folder on a tmpfs of its own: as the server calls it, and as this process can open it."""
    place = folder / "disk"
    place.mkdir()
    private.mount("-t", "tmpfs", "-o", f"size={ROOM}", "x", str(place))
    outputs = place / "outputs"
    if start is not None:
        shutil.copytree(start, private.seen(outputs))
    return outputs, private.seen(outputs)


def fill(folder: Path, left: int) -> Path:
    """A file that leaves `left` bytes of the disk."""
    ballast = folder.parent / "ballast"
    with open(ballast, "wb") as file:
        free = shutil.disk_usage(folder.parent).free
        file.write(bytes(max(0, free - left)))
    return ballast


def refused(status: int, said: str) -> list[str]:
    """Checks that a command said in one sentence that the disk is full, and gives the files that it named."""
    assert status in (1, 2), said
    assert "Traceback" not in said, said
    found = re.finditer(FULL, said, re.MULTILINE)
    named = dict.fromkeys(Path(line[0].split(" could not")[0].split()[-1]).name for line in found)
    assert named, said
    return list(named)


@pytest.mark.parametrize(
    "lefts", [[16], pytest.param([0, 8, 16, 20, 32, 40, 56, 112, 192, 216, 232, 248, 288], marks=pytest.mark.slow)]
)
def test_a_full_disk_while_sampling_scoring_and_reporting(
    lefts: list[int], private: ForkServer, trained: Path, whole: Path, tmp_path: Path
) -> None:
    """The sweep begins with so many KiB left, fails where they end, and goes on when there is room."""
    named = []
    for left in lefts:
        folder = tmp_path / str(left)
        folder.mkdir()
        outputs, seen = disk(private, folder, trained)
        words = ["sweep", f"outputs={outputs}", *GRID]
        ballast = fill(seen, left * 1024)
        named += refused(*private.run(words))
        assert not list(seen.rglob(".*.tmp"))
        ballast.unlink()
        private.finish(words)
        assert results(seen) == results(whole), left
    print(f"a disk with {', '.join(map(str, lefts))} KiB left was full at {', '.join(sorted(set(named)))}")
    if len(lefts) > 1:
        assert {"samples.jsonl", "frontier.png"} <= set(named)
        assert {"per_source.npz", "metrics.json"} & set(named)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 64, 600, 1200, 2000, 2600])
def test_a_full_disk_while_training(left: int, private: ForkServer, server: ForkServer, tmp_path: Path) -> None:
    words = ["train", *TRAIN, "trainer.save_steps=3", "trainer.keep=3"]
    server.finish([*words, f"outputs={tmp_path / 'whole'}"])
    outputs, seen = disk(private, tmp_path)
    seen.mkdir()
    ballast = fill(seen, left * 1024)
    print(f"{left} KiB left: full at", *refused(*private.run([*words, f"outputs={outputs}"])))
    ballast.unlink()
    private.finish([*words, f"outputs={outputs}"])
    (made,), (expected,) = (list(o.glob("train/*/model.safetensors")) for o in (seen, tmp_path / "whole"))
    assert made.read_bytes() == expected.read_bytes()
    assert not [p for p in seen.rglob(".*") if "tmp" in p.name]


@pytest.mark.parametrize("verb", ["sweep", pytest.param("train", marks=pytest.mark.slow)])
def test_files_that_may_not_grow(verb: str, server: ForkServer, trained: Path, whole: Path, tmp_path: Path) -> None:
    """The same as a full disk, without a disk: no file may exceed a number of bytes."""
    words, start, limits = {
        "sweep": (["sweep", *GRID], trained, (7000,)),
        "train": (["train", *TRAIN], None, (1000, 3000, 200_000)),
    }[verb]
    for limit in limits:
        outputs = tmp_path / str(limit)
        if start is not None:
            shutil.copytree(start, outputs)
        print(f"{limit} bytes:", *refused(*server.run([*words, f"outputs={outputs}"], limit=limit)))
        server.finish([*words, f"outputs={outputs}"])
        if verb == "sweep":
            assert results(outputs) == results(whole)


@pytest.mark.slow
def test_a_folder_that_may_not_be_written(private: ForkServer, whole: Path, tmp_path: Path) -> None:
    outputs, seen = disk(private, tmp_path, whole)
    private.finish(["ls", "runs", f"outputs={outputs}"])
    private.mount("-o", "remount,ro", str(tmp_path / "disk"))
    before = results(seen)
    for words in (
        ["sweep", *GRID, "scale=3"], ["sweep", *GRID], ["report"], ["score", "metric=rouge_1"],
        ["sample", "sampler=clamp", "steps=3"], ["train", *TRAIN, "seed=5"],
    ):  # fmt: skip
        status, said = private.run([words[0], f"outputs={outputs}", *words[1:]])
        assert status in (1, 2), said
        (sentence,) = [line for line in said.splitlines() if "cannot be written (Read-only file system)" in line]
        assert "outputs=FOLDER" in sentence
        assert "Traceback" not in said
    assert "scale2" in private.finish(["ls", "runs", f"outputs={outputs}", "--json"])
    assert results(seen) == before


@pytest.mark.slow
def test_six_processes_on_one_store(server: ForkServer, trained: Path, tmp_path: Path) -> None:
    """Six sweeps of overlapping grids at once, twelve points: every row is there once and was paid for once."""
    line = CommandLine(tmp_path)
    words = [*GRID[:1], "steps=5", "batch_tokens=64", "num_sources=12", "num_samples=2", "--json"]
    all_of_them = [*words, "scale=1.5,2,3", "temperature=0.3,0.5,0.7,1"]
    parts = [["scale=1.5,2", "temperature=0.3,0.5,0.7,1"], ["scale=2,3", "temperature=1,0.7,0.5,0.3"]]
    alone, shared = (Path(shutil.copytree(trained, tmp_path / name)) for name in ("alone", "shared"))
    server.finish(["sweep", f"outputs={alone}", *all_of_them])
    running = []
    for number in range(6):
        line.folder = tmp_path / f"log{number}"
        line.folder.mkdir()
        running.append(line.start(["sweep", f"outputs={shared}", *words, *parts[number % 2]]))
    for process in running:
        assert process.wait() == 0, process.said()
    server.finish(["sweep", f"outputs={shared}", *all_of_them])
    assert len(samples_files(shared)) == 12
    assert results(shared) == results(alone)


def test_a_file_system_without_locks(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS without a lock server answers ENOLCK."""
    import errno
    import fcntl

    from diffq.errors import UserError
    from diffq.runs.training.journal import claimed
    from diffq.store import Point

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.raises(UserError, match=r"lock cannot be locked \(No locks available\); put outputs= on a file system"):
        Point(outputs / "points/a").claim()
    with pytest.raises(UserError, match=r"cannot be locked \(No locks available\)"), claimed(outputs / "train/a"):
        pass
    with pytest.raises(UserError, match=r"metrics\.lock cannot be locked"):
        Point(outputs / "points/a").write_metrics({})
