"""The throughput comparison runs, cleans up after itself, and computes what it says."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from diffq.config import Request
from diffq.errors import UserError
from diffq.runs import bench_train

SMALL = (
    "dataset=grammar", "dataset.size=400", "model=gaussian_tiny", "model.width=16", "model.embedding=8",
    "model.heads=2", "trainer.batch_size=8", "device=cpu",
)  # fmt: skip


TEXT = ("dataset=sudoku", "model=mdlm_tiny", "model.width=16", "model.heads=2", "trainer.batch_size=8", "device=cpu")


@pytest.mark.parametrize(("words", "kept"), [(SMALL, ["tokens"]), (TEXT, [])], ids=["pairs", "forms"])
def test_the_comparison_runs_and_leaves_nothing(tmp_path, capsys, monkeypatch, words, kept):
    monkeypatch.setattr(bench_train.measure, "__defaults__", (2, 3))
    request = Request(verb="bench", overrides=(*words, f"outputs={tmp_path}"), json=True)
    assert bench_train.run(request) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == {"tokens": "train/grammar-gaussian_tiny"}.get("".join(kept), "train/sudoku-mdlm_tiny")
    assert row["steps"] == 6
    assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert row["ratio"] == pytest.approx(row["tokens_per_second"] / row["bare_tokens_per_second"])
    assert [p.name for p in tmp_path.glob("cache/*")] == kept
    assert not (tmp_path / "train").exists()


def test_the_ratio_is_that_of_the_total_times():
    result = bench_train._summary("x", [1.0, 2.0], [2.0, 4.0], 30.0, 4)
    assert (result.ratio, result.low, result.high) == (2.0, 2.0, 2.0)
    assert (result.ours, result.bare) == (10.0, 5.0)


def test_it_has_no_rows_to_choose_from():
    with pytest.raises(UserError, match="no rows to choose from, such as 'gaussian/cfg'"):
        bench_train.run(Request(verb="bench", flags=SimpleNamespace(names=["gaussian/cfg"])))  # type: ignore[arg-type]
