"""Many runs are read at once, from a cache that is never believed against the folders."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from many_points import put, put_training

import diffq.store.index as index
from diffq.errors import UserError
from diffq.store import PlanRow, Store, SweepFolder, newest_training
from diffq.store.index import index_file, intact, read_record, read_records
from diffq.store.query import Question, ask


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old as soon as they are read: a file's time of change cannot be set back."""
    monkeypatch.setattr(index, "_SETTLED", 0)


def values(store: Store, **options) -> dict:
    return {
        r.key: (r.dials["scale"], {k: m["value"] for k, m in r.metrics.items()}) for r in read_records(store, **options)
    }


def asked(store: Store) -> list[tuple]:
    """The whole table, with its columns first."""
    answer = ask(store, Question())
    return [answer.columns, answer.types, *answer.rows]


@pytest.mark.usefixtures("settled")
def test_the_cache_follows_the_folders(store):
    assert read_records(store) == []
    assert not index_file(store).exists()
    put(store, "a", 1.0, 10.0)
    put(store, "b", 2)
    expected = {"a": (1.0, {"bleu|s:3|v:1": 10.0}), "b": (2, {})}
    assert values(store) == expected
    assert values(store, cache=False) == expected
    written = index_file(store).stat().st_mtime_ns
    assert values(store) == expected
    assert index_file(store).stat().st_mtime_ns == written  # nothing changed, nothing written
    put(store, "b", 2, 20.0, age=50)
    put(store, "c", 3, 30.0)
    expected |= {"b": (2, {"bleu|s:3|v:1": 20.0}), "c": (3, {"bleu|s:3|v:1": 30.0})}
    assert values(store) == expected
    (store.points / "grammar/tiny/cfg/a/metrics.json").unlink()
    expected["a"] = (1.0, {})
    assert values(store) == expected


def test_a_change_within_one_tick_of_the_clock_is_seen(store):
    put(store, "a", 1.0, 10.0, age=0)
    assert values(store)["a"][1] == {"bleu|s:3|v:1": 10.0}
    path = store.points / "grammar/tiny/cfg/a/metrics.json"
    stamp = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("10.0", "11.0"))
    os.utime(path, ns=(stamp, stamp))
    assert values(store)["a"][1] == {"bleu|s:3|v:1": 11.0}


def rewrite(path: Path, data: Callable[[bytes], bytes]) -> None:
    path.write_bytes(data(path.read_bytes()))


def older_format(data: bytes) -> bytes:
    """The same table, with the digest that another format number gives."""
    body, foot = data[: index._footer(data) - 32], data[index._footer(data) :]
    return body + index.hashlib.sha256(b"diffq index 1\n" + body + foot).digest() + foot


def flipped(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES = {
    "deleted": None,
    "empty": lambda _: b"",
    "not parquet": lambda _: b"not parquet",
    "cut off": lambda data: data[: len(data) // 2],
    "its end is missing": lambda data: data[:-3],
    "one bit is flipped": flipped,
    "older": older_format,
    "without a digest": lambda data: data[: index._footer(data) - 32] + data[index._footer(data) :],
    "of nothing but a length": lambda _: b"PAR1" + bytes(40) + struct.pack("<I", 2**31) + b"PAR1",
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_changes_no_answer(store, damage):
    for number in range(20):
        put(store, f"p{number}", number / 2, float(number))
    put_training(store, "t")
    expected, records = asked(store), read_records(store)
    assert len(expected) == 2 + 21
    path = index_file(store)
    assert intact(store)
    if DAMAGES[damage] is None:
        path.unlink()
    else:
        rewrite(path, DAMAGES[damage])
        assert not intact(store)
    assert asked(store) == expected
    assert intact(store), "it is written anew"
    path.unlink()
    assert read_records(store) == records


def test_an_index_of_the_future_hides_nothing(store, monkeypatch):
    """Read by a clock that was an hour ahead, and then put back to where the point is changed in the same instant."""
    put(store, "a", 1.0, 10.0)
    real = index.time.time_ns
    monkeypatch.setattr(index.time, "time_ns", lambda: real() + 3_600_000_000_000)
    assert values(store)["a"][1] == {"bleu|s:3|v:1": 10.0}
    monkeypatch.setattr(index.time, "time_ns", real)
    opened = []
    monkeypatch.setattr(index, "read_row", lambda *a, read=index.read_row: opened.append(a[1]) or read(*a))
    assert values(store)["a"][1] == {"bleu|s:3|v:1": 10.0}
    assert opened == ["points/grammar/tiny/cfg/a"], "what was read later than now is read again"


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("age", [100.0, -3600.0, 4e8])
def test_a_clock_moved_back_or_ahead_hides_no_change(store, age):
    put(store, "a", 1.0, 10.0)
    assert asked(store)[2][asked(store)[0].index("metric_bleu")] == 10.0
    put(store, "a", 1.0, 11.0, age=age)
    assert asked(store)[2][asked(store)[0].index("metric_bleu")] == 11.0
    index_file(store).unlink()
    os.utime(store.points / "grammar/tiny/cfg/a/metrics.json", (1, 1))
    assert asked(store)[2][asked(store)[0].index("metric_bleu")] == 11.0


@pytest.mark.usefixtures("settled")
def test_folders_that_come_go_and_change_places_are_seen(store):
    one, two = put(store, "one", 1.0, 10.0), put(store, "two", 2.0, 20.0)
    before = asked(store)
    one.rename(one.with_name("x"))
    two.rename(one)
    one.with_name("x").rename(two)

    def check(count: int) -> None:
        held = asked(store)
        index_file(store).unlink(missing_ok=True)
        assert held == asked(store)
        assert len(held) == 2 + count

    after = asked(store)
    assert [row[2] for row in before[2:]] == ["one", "two"]
    assert [row[2] for row in after[2:]] == ["two", "one"]
    shutil.rmtree(one)
    check(1)
    two.parent.rename(two.parent.with_name("other"))
    check(1)
    put(store, "three", True, 1.0)
    check(2)
    put_training(store, "new")
    check(3)
    shutil.rmtree(store.points)
    check(1)


def _ask_often(outputs: str) -> list[tuple[float, ...]]:
    found = []
    for turn in range(12):
        if turn % 3 == 0:
            index_file(Store(outputs)).unlink(missing_ok=True)
        answer = ask(Store(outputs), Question(sort=("-bleu",)), ["bleu"])
        found.append(tuple(value for (value,) in answer.rows))
    return found


def test_processes_that_rebuild_at_once_agree(store):
    for number in range(30):
        put(store, f"p{number}", number, float(number))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.map(_ask_often, [str(store.outputs)] * 3)
    expected = tuple(float(n) for n in reversed(range(30)))
    assert {found for answer in answers for found in answer} == {expected}
    assert intact(store)


def test_a_broken_record_is_said_and_seen(store):
    put(store, "a", 1.0, 10.0)
    broken = put(store, "b", 2.0, 20.0)
    (broken / "run.json").write_text('{"status": "do')
    for _ in range(2):
        answer = ask(store, Question("status = 'broken'"), ["folder"])
        assert answer.rows == [("points/grammar/tiny/cfg/b",)]
        assert len(answer.broken) == 1
        assert "b/run.json is not JSON" in answer.broken[0]
        with pytest.raises(UserError, match=r"b/run\.json is not JSON"):
            read_records(store)


def test_without_pyarrow_the_folders_are_read(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    put(store, "a", 1.0, 10.0)
    assert values(store) == {"a": (1.0, {"bleu|s:3|v:1": 10.0})}
    assert not index_file(store).exists()
    with pytest.raises(UserError, match="duckdb"):
        ask(store, Question())


def test_a_store_that_cannot_be_written_is_read_all_the_same(store, monkeypatch):
    put(store, "a", 1.0, 10.0)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(index, "write_atomic", refused)
    assert values(store)["a"][0] == 1.0
    assert len(ask(store, Question()).rows) == 1
    assert not index_file(store).exists()


def test_one_folder(store):
    put(store, "a", 1.0, 10.0)
    record = read_record(store, store.points / "grammar/tiny/cfg/a")
    assert record == read_records(store, cache=False)[0]
    assert (record.samples, record.sources, record.changed) == (3, 9, ("scale",))
    assert store.open("points/grammar/tiny/cfg/a").status() == "partial"  # it has no samples
    with pytest.raises(UserError, match="no point"):
        store.open("points/grammar")
    with pytest.raises(UserError, match=r"no run\.json"):
        read_record(store, store.outputs)


@pytest.mark.usefixtures("settled")
def test_only_folders_that_changed_are_opened(store, monkeypatch):
    for n in range(100):
        put(store, f"p{n}", n, float(n))
    cold, table = read_records(store), asked(store)
    assert len(cold) == 100
    opened = []
    monkeypatch.setattr(index, "read_row", lambda *a, read=index.read_row: opened.append(a[1]) or read(*a))
    assert read_records(store) == cold
    assert asked(store) == table
    assert opened == []
    put(store, "p7", 7, 8.0)
    assert len(asked(store)) == len(table)
    assert opened == ["points/grammar/tiny/cfg/p7"]


def test_sweeps_and_trainings(store):
    assert store.newest_sweep() is None
    assert newest_training(store, "grammar", "tiny") is None
    for name, finished, status in [
        ("a", "2026-01-01", "done"),
        ("b", "2026-01-02", "done"),
        ("c", "2026-01-03", "dead"),
    ]:
        folder = store.train / name
        folder.mkdir(parents=True)
        run = {"status": status, "dataset": "grammar", "model": "tiny", "finished": finished}
        (folder / "run.json").write_text(json.dumps(run))
    assert newest_training(store, "grammar", "tiny") == store.train / "b"
    assert newest_training(store, "grammar", "small") is None
    rows = [PlanRow(key="k1", folder="points/x", samples=3), PlanRow(key="k2", folder="points/y", sampler="cfg")]
    sweep = SweepFolder(store.sweeps / "grammar-cfg")
    with pytest.raises(UserError, match=r"no plan\.jsonl"):
        sweep.read()
    sweep.write([*rows, rows[0]])
    assert sweep.read() == rows
    assert store.newest_sweep() == sweep.folder
