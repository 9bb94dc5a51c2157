"""Datasets of pairs: folders, single files, rows that stay what they are; and the real QQP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffq.data.pairs import Pairs
from diffq.errors import UserError
from diffq.registry import DATASETS


def settings(path: Path | None, **more) -> Pairs:
    return Pairs(name="mine", models={}, path=None if path is None else str(path), **more)


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps({"source": a, "target": b}) for a, b in rows))
    return path


def test_is_registered() -> None:
    assert DATASETS["pairs"] is Pairs


def test_rows_keep_their_order_and_equal_sources_stay_apart(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [("x", "1"), ("y", "2"), ("x", "3")])
    corpus = settings(tmp_path).open()
    assert [(e.index, e.source, e.references) for e in corpus.split("test")] == [
        (0, "x", ("1",)),
        (1, "y", ("2",)),
        (2, "x", ("3",)),
    ]
    assert corpus.truth("x") is None
    with pytest.raises(UserError, match="no file of the split 'train'"):
        corpus.split("train")
    with pytest.raises(UserError, match="did you mean 'test'"):
        corpus.split("tset")  # type: ignore[arg-type]


def test_one_file_is_split_by_the_sources_hash(tmp_path: Path) -> None:
    rows = [(f"source {i % 700}", f"target {i}") for i in range(1400)]
    corpus = settings(write(tmp_path / "all.jsonl", rows), valid_fraction=0.2, test_fraction=0.1).open()
    parts = {name: corpus.split(name) for name in ("train", "valid", "test")}
    sources = {name: {e.source for e in part} for name, part in parts.items()}
    assert sum(map(len, parts.values())) == 1400
    assert not sources["train"] & sources["valid"]
    assert not sources["train"] & sources["test"]
    assert not sources["valid"] & sources["test"]
    # 700 sources: 5.5 standard deviations of a binomial on either side.
    assert abs(len(sources["valid"]) - 140) < 5.5 * (700 * 0.2 * 0.8) ** 0.5
    assert abs(len(sources["test"]) - 70) < 5.5 * (700 * 0.1 * 0.9) ** 0.5
    for part in parts.values():
        assert [e.index for e in part] == list(range(len(part)))
        numbers = [int(e.references[0].split()[1]) for e in part]
        assert numbers == sorted(numbers)
    assert settings(tmp_path / "all.jsonl", valid_fraction=0.2, test_fraction=0.1).open().split("test") == parts["test"]
    with pytest.raises(UserError, match="none falls to the split 'test'"):
        settings(tmp_path / "all.jsonl", test_fraction=0.0).open().split("test")


def test_columns_must_differ() -> None:
    with pytest.raises(UserError, match="both 'a'"):
        settings(None, source="a", target="a")


@pytest.mark.data
def test_real_qqp(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    corpus = Pairs(name="qqp", models={}, source="src", target="trg").open()
    assert [len(corpus.split(n)) for n in ("train", "valid", "test")] == [144_622, 2_048, 2_500]
    assert corpus.split("test")[1].source == "How can I be a good geologist?"
