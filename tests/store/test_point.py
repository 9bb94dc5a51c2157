"""A point that is cut off anywhere goes on from a batch boundary, and one writer has it at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffq.errors import UserError
from diffq.store import Busy, Point

PLAN = [2, 3, 1, 2]


def row(number: int, text: str | None = None) -> dict:
    return {"row": number, "source": number, "sample": 0, "prompt_ids": [1], "ids": [2, number], "ended": True,
            "text": f"« {number} »\n" if text is None else text, "nfe": 3}  # fmt: skip


def write(point: Point, plan: list[int] = PLAN, texts: list[str] | None = None) -> int:
    """Samples what is missing and returns how many batches that was."""
    with point.claim() as claim:
        done = claim.resume(plan)
        for batch in range(done, len(plan)):
            start = sum(plan[:batch])
            claim.append([row(n, texts[n] if texts else None) for n in range(start, start + plan[batch])])
        claim.finish({"samples": 1})
        return len(plan) - done


def test_cut_at_every_byte_and_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and nothing crashes here
    plan = [2, 1, 2]
    whole = Point(tmp_path / "whole")
    assert write(whole, plan) == len(plan)
    data = whole.samples_file.read_bytes()
    lines = data.splitlines(keepends=True)
    starts = [sum(plan[:batch]) for batch in range(len(plan) + 1)]
    boundaries = [sum(map(len, lines[:start])) for start in starts]
    point = Point(tmp_path / "cut")
    point.folder.mkdir()
    for offset in range(len(data) + 1):
        point.samples_file.write_bytes(data[:offset])
        with point.claim() as claim:
            done = claim.resume(plan)
            assert done == sum(boundary <= offset for boundary in boundaries[1:])
            assert point.samples_file.read_bytes() == data[: boundaries[done]]
        point.samples_file.write_bytes(data[:offset])
        assert write(point, plan) == len(plan) - done
        assert point.samples_file.read_bytes() == data


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(), min_size=8, max_size=8), cut=st.integers(0, 10_000))
def test_any_text_comes_back(tmp_path_factory, texts, cut):
    point = Point(tmp_path_factory.mktemp("texts"))
    write(point, texts=texts)
    data = point.samples_file.read_bytes()
    assert [r["text"] for r in point.rows()] == texts
    point.samples_file.write_bytes(data[: cut % len(data)])
    write(point, texts=texts)
    assert point.samples_file.read_bytes() == data


def test_a_lone_surrogate_is_kept(tmp_path):
    point = Point(tmp_path / "p")
    write(point, [1], ["\udc80"])
    assert [r["text"] for r in point.rows()] == ["\udc80"]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    point = Point(tmp_path / "p")
    write(point)
    lines = point.samples_file.read_bytes().splitlines(keepends=True)
    point.samples_file.write_bytes(b"".join([*lines[:2], lines[2][:-9] + b"\n", *lines[3:]]))
    with point.claim() as claim, pytest.raises(UserError, match=r"samples\.jsonl, line 3"):
        claim.resume(PLAN)
    with pytest.raises(UserError, match="line 3"):
        list(point.rows())
    point.samples_file.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with point.claim() as claim, pytest.raises(UserError, match="line 3 holds row 3"):
        claim.resume(PLAN)


def test_rows_must_come_in_order(tmp_path):
    with Point(tmp_path / "p").claim() as claim:
        claim.resume([2])
        with pytest.raises(ValueError, match="row 1 cannot stand on line 1"):
            claim.append([row(1)])


def test_more_samples_append_and_change_nothing(tmp_path):
    point = Point(tmp_path / "p")
    write(point, PLAN[:2])
    before = point.samples_file.read_bytes()
    assert point.status(5) == "done"
    assert point.status(8) == "partial"
    assert write(point, PLAN) == 2
    assert point.samples_file.read_bytes().startswith(before)
    assert point.status(8) == "done"
    after = point.samples_file.read_bytes()
    assert write(point, PLAN[:2]) == 0  # asked for fewer: the others stay
    assert point.samples_file.read_bytes() == after
    assert len(list(point.rows(limit=5))) == 5


def test_rows_whose_cost_is_not_recorded_are_done_again(tmp_path):
    """And where rows are gone whose cost is, all of them are: it cannot be taken apart."""
    point = Point(tmp_path / "p")
    write(point)
    whole = point.samples_file.read_bytes()
    ends = [len(b"".join(whole.splitlines(keepends=True)[:n])) for n in range(9)]
    for there, recorded, done, left in ((8, 8, 4, 8), (8, 6, 3, 6), (6, 8, 0, 0), (7, 5, 2, 5), (8, 0, 0, 0)):
        point.samples_file.write_bytes(whole[: ends[there]])
        with point.claim() as claim:
            assert claim.resume(PLAN, recorded) == done
        assert point.samples_file.read_bytes() == whole[: ends[left]]


def test_a_file_that_has_changed_is_not_done(tmp_path):
    point = Point(tmp_path / "p")
    write(point)
    whole = point.samples_file.read_bytes()
    for changed in (whole[:-5], whole + b"{", b""):
        point.samples_file.write_bytes(changed)
        assert point.status() == point.status(8) == "partial"
    point.samples_file.write_bytes(whole)
    assert point.status(8) == "done"
    point.samples_file.write_bytes(whole[:-5] + b"xxxx\n")
    with pytest.raises(UserError, match=r"holds 7 of the 8 rows that were sampled; .* delete the folder"):
        list(point.rows())


def test_status(tmp_path):
    point = Point(tmp_path / "p")
    assert point.status() == "absent"
    with point.claim() as claim:
        assert point.status() == "absent"
        claim.resume([1])
        claim.append([row(0)])
        assert point.status() == "partial"
        claim.record({"seconds": 1.5})
        assert point.run()["seconds"] == 1.5
        claim.finish({"seconds": 2.5, "rows": 1})
    assert point.status() == point.status(1) == "done"
    assert point.status(2) == "partial"
    assert {"python", "diffq"} <= set(point.run()["versions"])
    assert "T" in point.run()["finished"]
    assert sorted(p.name for p in point.folder.iterdir()) == ["lock", "run.json", "samples.jsonl"]


def hold(folder, ready, done) -> None:
    with Point(folder).claim():
        ready.set()
        done.wait(30)


def try_claim(folder, answers) -> None:
    try:
        with Point(folder).claim():
            answers.put("had it")
    except Busy:
        answers.put("busy")


def test_a_batch_is_one_write_and_one_sync(tmp_path, monkeypatch):
    done = []
    with Point(tmp_path / "p").claim() as claim:
        claim.resume([3])
        claim.append([row(0)])
        write_, sync = os.write, os.fsync
        monkeypatch.setattr(os, "write", lambda *a: done.append("write") or write_(*a))
        monkeypatch.setattr(os, "fsync", lambda *a: done.append("sync") or sync(*a))
        claim.append([row(1), row(2)])
    assert done == ["write", "sync"]


def test_two_processes_cannot_have_one_point(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path / "p", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(Busy):
            Point(tmp_path / "p").claim()
        threading.Timer(0.2, done.set).start()
        with Point(tmp_path / "p").claim(wait=True):
            pass
    finally:
        done.set()
        other.join()
    assert other.exitcode == 0


def test_a_dead_owner_leaves_no_lock(tmp_path):
    fork = multiprocessing.get_context("fork")
    ready, done = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(tmp_path / "p", ready, done))
    other.start()
    assert ready.wait(30)
    os.kill(other.pid, 9)
    other.join()
    with Point(tmp_path / "p").claim():
        pass


def test_a_forked_child_neither_has_the_claim_nor_drops_it(tmp_path):
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    with Point(tmp_path / "p").claim():
        for _ in range(2):
            child = fork.Process(target=try_claim, args=(tmp_path / "p", answers))
            child.start()
            assert answers.get(timeout=30) == "busy"
            child.join()


def test_one_process_cannot_have_it_twice(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "p")
    with Point(tmp_path / "p").claim():
        for name in ("p", "link"):
            with pytest.raises(Busy):
                Point(tmp_path / name).claim()
        fork = multiprocessing.get_context("fork")
        answers = fork.Queue()  # the refusals above have not dropped the lock
        child = fork.Process(target=try_claim, args=(tmp_path / "p", answers))
        child.start()
        assert answers.get(timeout=30) == "busy"
        child.join()
    order: list[str] = []

    def second() -> None:
        with Point(tmp_path / "p").claim(wait=True):
            order.append("second")

    with Point(tmp_path / "p").claim():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def _hold(folder, conn):
    with Point(folder).claim():
        conn.send("held")
        conn.recv()


def test_who_asks_whether_a_point_is_busy_takes_nothing_and_makes_nothing(tmp_path):
    point = Point(tmp_path / "p")
    assert not point.busy()
    assert not point.folder.exists()
    with point.claim():
        assert point.busy()
        assert point.busy()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(point.folder, theirs))
    process.start()
    assert ours.recv() == "held"
    assert point.busy()
    with pytest.raises(Busy):
        point.claim()
    ours.send("go")
    process.join(30)
    assert not point.busy()
    with point.claim():
        pass


def test_scores_merge_by_signature(tmp_path):
    import numpy as np

    point = Point(tmp_path / "p")
    rest = {"low": None, "high": None, "n": 3, "direction": "higher"}
    a, b = {"name": "a", "value": 1.0} | rest, {"name": "b", "value": 2.0} | rest
    point.write_metrics({"a|v:1": a}, {"a|v:1": np.arange(6).reshape(3, 2)})
    point.write_metrics({"b|v:1": b})
    merged = point.write_metrics({"a|v:1": a | {"value": 3.0}}, {"c": np.ones((1, 1))})
    assert merged == point.metrics() == {"a|v:1": a | {"value": 3.0}, "b|v:1": b}
    assert point.per_source()["a|v:1"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert set(point.per_source()) == {"a|v:1", "c"}


def score(folders: list, name: str) -> None:
    import numpy as np

    for folder in folders:
        entry = {"name": name, "value": 1.0, "low": None, "high": None, "n": 3, "direction": "higher"}
        Point(folder).write_metrics({f"{name}|v:1": entry}, {f"{name}|v:1": np.ones((3, 2))})


def test_scores_of_many_processes_are_all_kept(tmp_path):
    folders = [tmp_path / f"p{number}" for number in range(8)]
    fork = multiprocessing.get_context("fork")
    names = [f"metric{number}" for number in range(6)]
    writers = [fork.Process(target=score, args=(folders[n:] + folders[:n], name)) for n, name in enumerate(names)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for folder in folders:
        assert set(Point(folder).metrics()) == set(Point(folder).per_source()) == {f"{name}|v:1" for name in names}


def test_an_entry_of_another_version_is_not_there(tmp_path):
    point = Point(tmp_path / "p")
    score([point.folder], "a")
    held = json.loads((point.folder / "metrics.json").read_text())
    old = {"b|v:1": {"name": "b", "value": 2.0}, "c|v:1": 3, "d|v:1": {"mean": 1}}
    (point.folder / "metrics.json").write_text(json.dumps(held | old))
    assert set(point.metrics()) == {"a|v:1"}
    score([point.folder], "b")
    assert set(json.loads((point.folder / "metrics.json").read_text())) == {"a|v:1", "b|v:1"}
    (point.folder / "per_source.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"per_source\.npz is damaged; delete it and metrics\.json beside it"):
        point.per_source()


def test_a_config_is_written_and_a_missing_one_is_said(tmp_path):
    point = Point(tmp_path / "p")
    with pytest.raises(UserError, match=r"no config\.yaml"):
        point.config()
    with point.claim() as claim:
        claim.write_config({"seed": 0, "sampler": {"kind": "cfg", "scale": 2.0}})
    assert point.config() == {"seed": 0, "sampler": {"kind": "cfg", "scale": 2.0}}
    (point.folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is not JSON"):
        json.dumps(point.run())
