"""Files and folders that are there whole or not at all, also after a full disk and a kill."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from diffq.errors import UserError
from diffq.store.files import append, cut_back, making, read_lines, replacing, write_atomic


def die_while_writing(path: Path, folder: bool) -> None:
    with replacing(path) as temporary:
        if folder:
            temporary.mkdir()
            (temporary / "inside").write_text("half")
        else:
            temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path, folder):
    path = tmp_path / "a.json"
    write_atomic(tmp_path / "b.json", b"a neighbour")
    child = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(path, folder))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    write_atomic(tmp_path / "b.json", b"leaves what is not its own")
    assert len(list(tmp_path.iterdir())) == 2
    write_atomic(path, b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_what_a_living_process_is_writing_stays(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("slow")
        child = multiprocessing.get_context("fork").Process(target=write_atomic, args=(path, b"fast"))
        child.start()
        child.join()
        assert path.read_bytes() == b"fast"
    assert path.read_text() == "slow"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"a\.json could not be written whole \(No space left on device\); make space, and the same"),
        (errno.EROFS, r"a\.json cannot be written \(Read-only file system\); name a folder .* outputs=FOLDER"),
        (errno.ENOTDIR, r"a\.json cannot be written \(Not a directory\)"),
        (errno.EACCES, r"a\.json cannot be written \(Permission denied\)"),
    ],
)
def test_why_nothing_can_be_written_is_said(tmp_path, monkeypatch, number, said):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=said):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def make(folder: Path, by: str) -> None:
    with making(folder) as made:
        (made / "by").write_text(by)


def test_of_two_that_make_one_folder_the_first_stays(tmp_path):
    with making(tmp_path / "a") as second:
        (second / "by").write_text("second")
        child = multiprocessing.get_context("fork").Process(target=make, args=(tmp_path / "a", "first"))
        child.start()
        child.join()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a/by").read_text() == "first"


def number(line: bytes) -> int | None:
    return int(line) if line.strip().isdigit() else None


@pytest.mark.parametrize("left", [b"", b"3", b"x\n", b"x"])
def test_what_was_cut_off_is_passed_over_and_cut_back_before_more_is_appended(tmp_path, left):
    path = tmp_path / "a.txt"
    assert list(read_lines(path, number, "a number", "delete it")) == []
    cut_back(path, 0)
    append(path, b"1\n2\n")
    with open(path, "ab") as file:
        file.write(left)
    found = list(read_lines(path, number, "a number", "delete it"))
    assert found == [(1, 2), (2, 4)]
    cut_back(path, 4)
    append(path, b"4\n")
    assert path.read_bytes() == b"1\n2\n4\n"
    path.write_bytes(b"1\nx\n4\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2 is not a number, .*: delete it"):
        list(read_lines(path, number, "a number", "delete it"))


def test_a_full_disk_is_said_when_appending(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(UserError, match="make space, and the same command goes on"):
        append(tmp_path / "a.txt", b"1\n")
