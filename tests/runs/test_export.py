"""`diffq export` writes one table, whole or not at all, and only where it is told to."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_up_store import SAMPLES, SOURCES, make_store
from many_points import put, put_training

from diffq.cli import main
from diffq.runs import export as module
from diffq.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "outputs")
    put(made, "a", 1, 10.0, dials={"clip": True})
    put(made, "b", 2.5, 20.0, dials={"name": 'x,"y"\nü'})
    put_training(made, "t")
    return made


def write(store: Store, path: Path, *words: str) -> int:
    return main(["export", str(path), f"outputs={store.outputs}", *words])


def test_every_format_holds_the_same(store, tmp_path, capsys):
    for ending in module.FORMATS:
        assert write(store, tmp_path / f"runs{ending}") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{tmp_path}/runs.parquet: 2 runs, ")
    whole = json.loads((tmp_path / "runs.json").read_text())
    assert [row["key"] for row in whole] == ["a", "b"]
    assert whole[1] | {"scale": 2.5, "bleu": 20.0, "bleu_low": 19.0, "name": 'x,"y"\nü', "clip": None} == whole[1]
    assert [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()] == whole
    table = pq.read_table(tmp_path / "runs.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    expected = {"scale": "double", "samples": "int64", "clip": "bool", "key": "string", "loss": "double"}
    assert types | expected | {"finished": "timestamp[us, tz=UTC]"} == types
    plain = table.drop_columns(["started", "finished", "updated"]).to_pylist()
    assert plain == [{k: v for k, v in row.items() if k not in ("started", "finished", "updated")} for row in whole]
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(whole[0])
    assert (rows[0]["clip"], rows[1]["clip"], rows[1]["name"], rows[1]["scale"]) == ("true", "", 'x,"y"\nü', "2.5")
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", *(f"runs{e}" for e in module.FORMATS)}


def test_points_are_chosen_sorted_and_cut_as_ls_does(store, tmp_path, capsys):
    path = tmp_path / "some.jsonl"
    words = ["--where", "bleu > 5", "--sort", "-bleu", "--columns", "key,bleu", "--json"]
    assert write(store, path, *words) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(path), "rows": 2, "columns": ["key", "bleu"]}
    assert path.read_text() == '{"key": "b", "bleu": 20.0}\n{"key": "a", "bleu": 10.0}\n'
    assert write(store, path, "--where", "kind = 'training'", "--columns", "folder,loss", "--force") == 0
    assert path.read_text() == '{"folder": "train/t", "loss": 2.5}\n'
    assert write(store, path, "grammar/tiny/cfg/a", "--columns", "key", "--force") == 0
    assert path.read_text() == '{"key": "a"}\n'


def test_samples_are_written_a_row_each(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 7)
    made, _ = make_store(tmp_path)
    path = tmp_path / "samples.parquet"
    assert write(made, path, "--samples", "--where", "sampler = 'dpmpp'") == 0
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == SOURCES * SAMPLES
    assert [row["row"] for row in rows] == list(range(len(rows)))
    point = next(made.points.glob("grammar/*/dpmpp/*"))
    held = [json.loads(line) for line in (point / "samples.jsonl").read_text().splitlines()]
    assert [(r["source"], r["sample"], r["text"], r["ids"]) for r in rows] == [
        (h["source"], h["sample"], h["text"], h["ids"]) for h in held
    ]
    assert {row["key"] for row in rows} == {json.loads((point / "run.json").read_text())["key"]}
    assert write(made, tmp_path / "all.jsonl", "--samples") == 0
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert len(lines) == 6 * SOURCES * SAMPLES
    assert json.loads(lines[0])["ended"] is True


def test_text_that_utf8_lacks_is_written_with_an_escape(store, tmp_path):
    folder = put(store, "a", rows=1)
    row = {"row": 0, "source": 0, "sample": 0, "prompt_ids": [], "ids": [1], "text": "a\ud800", "ended": True, "nfe": 1}
    (folder / "samples.jsonl").write_text(json.dumps(row) + "\n")
    for ending in module.FORMATS:
        assert write(store, tmp_path / f"s{ending}", "--samples", str(folder)) == 0
    assert pq.read_table(tmp_path / "s.parquet").to_pylist()[0]["text"] == "a\\ud800"


def test_what_is_there_stays_there(store, tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("mine")
    assert write(store, path) == 2
    assert "is there already; add --force" in capsys.readouterr().err
    assert write(store, path, "--where", "blue > 1", "--force") == 2
    assert write(store, path, "--where", "bleu > 1000", "--force") == 2
    assert "of which this is true" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert write(store, path, "--force") == 0
    assert path.read_text().startswith("kind,folder,key")


def test_a_failed_export_leaves_nothing(tmp_path, capsys):
    made, _ = make_store(tmp_path)
    samples = next(made.points.glob("grammar/*/dpmpp/*/samples.jsonl"))
    lines = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join([lines[0], "{broken\n", *lines[2:]]))
    (tmp_path / "old.parquet").write_text("old")
    for name in ("new.parquet", "new.csv", "old.parquet"):
        assert write(made, tmp_path / name, "--samples", "--force") == 2
        assert "line 2 is not a JSON mapping" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "old.parquet"}
    assert (tmp_path / "old.parquet").read_text() == "old"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "export needs the file to write"),
        (["runs.parqet"], "did you mean '.parquet'?"),
        (["runs"], "no ending"),
        (["nowhere/runs.csv"], "there is no folder nowhere"),
        (["x.csv", "--samples", "--columns", "key"], "with --samples there is no choice"),
        (["x.csv", "scale=2"], "only outputs= can be given"),
        (["x.csv", "outputs=none"], "there is no point under none yet"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("diffq: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert list(tmp_path.iterdir()) == []
