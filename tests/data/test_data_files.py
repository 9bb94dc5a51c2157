"""Readers: every format gives the same pairs, and everything that is wrong is told with its file and row."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from diffq.data import files
from diffq.data.files import locate, read_pairs, split_file
from diffq.errors import UserError

PAIRS = [("How are you?", "how do you do"), ('He said "so what"', "café, naïve"), ("tab-free", "line")]


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def as_csv() -> str:
    import io

    out = io.StringIO()
    csv.writer(out).writerows([("a", "b"), *PAIRS])
    return out.getvalue()


def as_parquet() -> bytes:
    import io

    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    table = pyarrow.table({"a": [a for a, _ in PAIRS], "b": [b for _, b in PAIRS]})
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


TEXTS = {
    "jsonl": lambda: "\n".join(json.dumps({"a": a, "b": b}) for a, b in PAIRS),
    "json": lambda: json.dumps([{"a": a, "b": b} for a, b in PAIRS]),
    "csv": as_csv,
    "tsv": lambda: "a\tb\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("ending", list(TEXTS))
def test_every_format_gives_the_same_pairs(tmp_path: Path, ending: str, gz: str) -> None:
    file = write(tmp_path / f"train.{ending}{gz}", TEXTS[ending]())
    assert split_file(tmp_path, "train") == file
    assert read_pairs(file, "a", "b") == [(a, (b,)) for a, b in PAIRS]


def test_last_line_byte_order_mark_blank_lines_and_spaces(tmp_path: Path) -> None:
    text = '\ufeff{"a": " x ", "b": "y"}\r\n\n{"a": "z", "b": ["v", "w"]}'
    assert read_pairs(write(tmp_path / "a.jsonl", text), "a", "b") == [("x", ("y",)), ("z", ("v", "w"))]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"a": "x", "b": "y"}\n{"a": "x", "b"', r"a\.jsonl, row 2: expected one JSON object a line"),
        ("a.jsonl", '{"a": "x", "b": "y"}\n["x"]', r"a\.jsonl, row 2: expected an object with 'a' and 'b'"),
        ("a.jsonl", '{"a": "x", "c": "y"}', r"row 1: there is no column 'b'; the columns are: a, c"),
        (
            "a.jsonl",
            '{"a": "x", "b": "y"}\n{"a": " ", "b": "y"}',
            r"row 2: expected a text that is not empty in col.*'a'",
        ),
        ("a.jsonl", '{"a": 3, "b": "y"}', r"row 1: expected a text .* found 3"),
        ("a.jsonl", '{"a": "x", "b": []}', r"row 1: expected a text .* column 'b', found \[\]"),
        ("a.jsonl", "", r"a\.jsonl has no rows"),
        ("a.jsonl", b'{"a": "x", "b": "\xff"}', r"after row 0 there are bytes that are not UTF-8"),
        ("a.json", '{"a": "x"}', r"expected a JSON list of objects, found"),
        ("a.json", "[", r"a\.json: expected a JSON list of objects"),
        ("a.json", "[]", r"has no rows"),
        ("a.csv", "a,b\nx,y\nx,y,z\n", r"a\.csv, row 2: expected 2 columns \(a, b\), found 3"),
        ("a.csv", "a,b\n", r"has no rows"),
        ("a.csv", "a,c\nx,y\n", r"row 1: there is no column 'b'"),
        ("a.tsv", "a\tb\nx\n", r"row 1: expected 2 columns"),
        ("a.parquet", "no parquet", r"a\.parquet is no readable parquet file"),
        ("a.txt", "x", r"unknown format '\.txt'; known: jsonl, json, csv, tsv, parquet"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_pairs(write(tmp_path / name, text), "a", "b")


def test_a_cut_archive_is_told(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(json.dumps({"a": str(i), "b": "y"}) for i in range(5000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: broken off after row [1-9]"):
        read_pairs(tmp_path / "a.jsonl.gz", "a", "b")
    (tmp_path / "b.jsonl.gz").write_bytes(b"not zipped")
    with pytest.raises(UserError, match="broken off after row 0"):
        read_pairs(tmp_path / "b.jsonl.gz", "a", "b")


def test_missing_and_doubled_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file of the split 'valid'; expected valid\.jsonl"):
        split_file(tmp_path, "valid")
    write(tmp_path / "validation.csv", "a,b\nx,y\n")
    assert split_file(tmp_path, "valid").name == "validation.csv"
    write(tmp_path / "valid.jsonl.gz", "")
    with pytest.raises(UserError, match=r"both valid\.jsonl\.gz and validation\.csv"):
        split_file(tmp_path, "valid")
    with pytest.raises(UserError, match="does not exist"):
        read_pairs(tmp_path / "none.jsonl", "a", "b")


def test_places_are_tried_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, kept = tmp_path / "mine", tmp_path / "kept" / "qqp"
    mine.mkdir()
    kept.mkdir(parents=True)
    monkeypatch.setenv("DIFFQ_DATA", str(kept.parent))
    assert locate("qqp", str(mine), "hub/name", None).path == mine
    assert locate("qqp", str(tmp_path / "none"), "hub/name", None).path == kept
    assert str(locate("other", None, "hub/name", "en")) == "hub:hub/name/en"
    for path, data in ((None, None), (str(tmp_path / "none"), str(tmp_path / "empty"))):
        monkeypatch.delenv("DIFFQ_DATA") if data is None else monkeypatch.setenv("DIFFQ_DATA", data)
        with pytest.raises(UserError) as raised:
            locate("qqp", path, None, None)
        for place in (path or "dataset.path", data or "$DIFFQ_DATA/qqp", "the hub data set"):
            assert place in str(raised.value)


def test_no_hub_tells_all_three_places(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("offline mode is enabled")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    place = locate("mine", None, "somebody/mine", None)
    with pytest.raises(
        UserError, match=r"dataset\.path \(not given\).*\$DIFFQ_DATA/mine.*dataset\.hub=somebody/mine"
    ) as e:
        files.read_hub("mine", place, "train", None, "a", "b")
    assert "offline mode" in str(e.value)


def test_the_hub_is_read_like_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None, split: str) -> list[dict[str, str]]:
        asked.append((name, config, split))
        return [{"a": "x", "b": "y"}, {"a": "x", "b": ""}][: 1 + (split == "test")]

    monkeypatch.setattr(datasets, "load_dataset", load)
    place = files.Place(hub="somebody/mine", hub_config="en")
    assert files.read_hub("mine", place, "valid", None, "a", "b") == [("x", ("y",))]
    assert asked == [("somebody/mine", "en", "validation")]
    with pytest.raises(UserError, match="hub:somebody/mine/en, test, row 2: expected a text that is not empty"):
        files.read_hub("mine", place, "test", None, "a", "b")
