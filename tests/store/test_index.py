"""Many points are read at once, from a cache that is never believed against the folders."""

from __future__ import annotations

import json
import os
import sys

import pytest

from diffq.errors import UserError
from diffq.store import PlanRow, Store, SweepFolder, newest_training
from diffq.store.index import index_file, query, read_record, read_records


def put(store: Store, name: str, scale: float, value: float | None = None, age: float = 100.0) -> None:
    folder = store.points / "grammar" / "tiny" / "cfg" / name
    folder.mkdir(parents=True, exist_ok=True)
    run = {"status": "done", "key": name, "dataset": "grammar", "model": "tiny", "sampler": "cfg", "seed": 0,
           "samples": 3, "sources": 9, "dials": {"scale": scale, "solver": "ddim"}, "changed": ["scale"]}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    if value is not None:
        score = {"name": "bleu", "value": value, "low": None, "high": None, "n": 9, "direction": "higher"}
        (folder / "metrics.json").write_text(json.dumps({"bleu|v:1": score}))
    for file in folder.iterdir():
        stamp = file.stat().st_mtime - age
        os.utime(file, (stamp, stamp))


def values(store: Store, **options) -> dict:
    return {
        r.key: (r.dials["scale"], {k: m["value"] for k, m in r.metrics.items()}) for r in read_records(store, **options)
    }


def test_the_cache_follows_the_folders(tmp_path):
    store = Store(tmp_path)
    assert read_records(store) == []
    assert not index_file(store).exists()
    put(store, "a", 1.0, 10.0)
    put(store, "b", 2)
    expected = {"a": (1.0, {"bleu|v:1": 10.0}), "b": (2, {})}
    assert values(store) == expected
    assert values(store, cache=False) == expected
    written = index_file(store).stat().st_mtime_ns
    assert values(store) == expected
    assert index_file(store).stat().st_mtime_ns == written  # nothing changed, nothing written
    put(store, "b", 2, 20.0, age=50)
    put(store, "c", 3, 30.0)
    expected |= {"b": (2, {"bleu|v:1": 20.0}), "c": (3, {"bleu|v:1": 30.0})}
    assert values(store) == expected
    (store.points / "grammar/tiny/cfg/a/metrics.json").unlink()
    expected["a"] = (1.0, {})
    assert values(store) == expected
    index_file(store).write_bytes(b"not parquet")
    assert values(store) == expected
    index_file(store).unlink()
    assert values(store) == expected


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path):
    store = Store(tmp_path)
    put(store, "a", 1.0, 10.0, age=0)
    assert values(store)["a"][1] == {"bleu|v:1": 10.0}
    path = store.points / "grammar/tiny/cfg/a/metrics.json"
    stamp = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("10.0", "11.0"))
    os.utime(path, ns=(stamp, stamp))
    assert values(store)["a"][1] == {"bleu|v:1": 11.0}


def test_without_pyarrow_the_folders_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    store = Store(tmp_path)
    put(store, "a", 1.0, 10.0)
    assert values(store) == {"a": (1.0, {"bleu|v:1": 10.0})}
    assert not index_file(store).exists()
    with pytest.raises(UserError, match="duckdb"):
        query(store, "select 1")


def test_sql(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(UserError, match="no point"):
        query(store, "select * from points")
    put(store, "a", 1, 10.0)
    put(store, "b", 2.5, 20.0)
    asked = "select key, dial_scale from points where metric_bleu > 15 and dial_solver = 'ddim'"
    assert query(store, asked).fetchall() == [("b", 2.5)]


def test_one_folder(tmp_path):
    store = Store(tmp_path)
    put(store, "a", 1.0, 10.0)
    record = read_record(store, store.points / "grammar/tiny/cfg/a")
    assert record == read_records(store, cache=False)[0]
    assert (record.samples, record.sources, record.changed) == (3, 9, ("scale",))
    assert store.open("points/grammar/tiny/cfg/a").status() == "partial"  # it has no samples
    with pytest.raises(UserError, match="no point"):
        store.open("points/grammar")
    with pytest.raises(UserError, match=r"no run\.json"):
        read_record(store, tmp_path)


def test_a_warm_reading_opens_no_folder_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for n in range(100):
        put(store, f"p{n}", n, float(n))
    cold = read_records(store)
    assert len(cold) == 100

    import diffq.store.index as index

    def no_reading(path):
        raise AssertionError(f"{path} was read though nothing changed")

    monkeypatch.setattr(index, "read_json", no_reading)
    assert read_records(store) == cold


def test_sweeps_and_trainings(tmp_path):
    store = Store(tmp_path)
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
