"""What the rows of `diffq bench` have in common."""

from __future__ import annotations

import dataclasses

import pytest

from diffq.config import Request
from diffq.errors import UserError
from diffq.runs import bench_caches, bench_eags, bench_masked, bench_samplers
from diffq.runs.bench import against_textbook, textbook


def test_a_row_takes_medians_over_the_turns_and_ratios_within_them():
    row = against_textbook([1.0, 2.0, 4.0], [10.0, 10.0, 10.0], full=False)
    assert (row["ratio"], row["low"], row["high"]) == (5.0, 2.5, 10.0)
    assert (row["seconds"], row["textbook_seconds"], row["extrapolated"]) == (2.0, 10.0, True)
    with pytest.raises(ValueError, match="longer"):
        against_textbook([1.0], [1.0, 2.0], full=True)


def test_a_small_row_of_discrete_diffusion_agrees_with_the_textbook(monkeypatch):
    for name, value in (("WORDS", 300), ("LENGTH", 24), ("BATCH", 2)):
        monkeypatch.setattr(bench_masked, name, value)
    sizes = {"width": 16, "heads": 2, "layers": 1, "conditioning": 8, "max_length": 24, "dropout": 0.0}
    monkeypatch.setattr(bench_masked, "SIZES", sizes)
    row = bench_masked.Row("mdlm", "ancestral", 6, {}, turns=2)
    monkeypatch.setitem(bench_masked.ROWS, "small", row)
    made = bench_masked._row("small", row, textbook("masked").Textbook, full=True)
    assert 0 < made["low"] <= made["ratio"] <= made["high"]
    assert not made["extrapolated"]
    assert (made["equal_rows"], made["unequal_tokens"]) == ("6/6", 0)


@pytest.mark.parametrize("name", list(bench_eags.ROWS))
def test_a_small_row_of_eags_agrees_with_the_textbook_and_counts_what_it_reads(monkeypatch, name):
    sizes = {"width": 16, "heads": 2, "layers": 1, "conditioning": 8, "max_length": 24, "dropout": 0.0}
    for key, value in (("CONDITION", 4), ("TARGET", 20), ("BATCH", 2), ("SIZES", sizes)):
        monkeypatch.setattr(bench_eags, key, value)
    made = bench_eags._row(name, bench_eags.ROWS[name], bench_eags.make_model(300), full=False)
    assert 0 < made["low"] <= made["ratio"] <= made["high"]
    assert made["extrapolated"] == (name == "eags/textbook_64")
    assert made["equal_rows"] == "4/4"
    assert made["calls"] == (5 + 5 + 20 if name == "eags/sweep" else 5)
    if name.startswith("eags/random_order"):
        assert made["more_positions"] == pytest.approx((20 + 16 + 12 + 8 + 4) / 20 - 1)
        assert made["more_flops"] > 0


def test_where_the_time_of_eags_goes_adds_up(monkeypatch):
    sizes = {"width": 16, "heads": 2, "layers": 1, "conditioning": 8, "max_length": 24, "dropout": 0.0}
    for key, value in (("CONDITION", 4), ("TARGET", 20), ("BATCH", 2), ("SIZES", sizes)):
        monkeypatch.setattr(bench_eags, key, value)
    small = {name: dataclasses.replace(row, words=40, turns=1) for name, row in bench_eags.OVERHEAD.items()}
    monkeypatch.setattr(bench_eags, "OVERHEAD", small)
    led, blind, *_ = rows = bench_eags.overhead(list(small), 1e9)
    for row in rows:
        assert row["network"] + row["projection"] + row["source"] + row["rest"] == pytest.approx(1)
        assert min(row["network"], row["projection"], row["rest"]) > 0
    assert led["floor_seconds"] > blind["floor_seconds"] > 0


@pytest.mark.parametrize(
    ("dataset", "model", "process"),
    [("grammar", "causal_seq2seq_tiny", "causal"), ("wikitext2", "sedd_tiny", "absorbing")],
)
def test_rows_of_embedding_diffusion_refuse_other_models(dataset, model, process):
    with pytest.raises(UserError, match=f"times gaussian models here, and model={model} is {process}"):
        bench_samplers.open_bench(Request(verb="bench", overrides=(f"dataset={dataset}", f"model={model}")))


def test_rows_of_caches_say_what_they_cost(monkeypatch):
    for name, value in (("TAUGHT", 60), ("TEXTS", 8)):
        monkeypatch.setattr(bench_caches, name, value)
    found = {name: bench_caches.error(row, textbook("cycles")) for name, row in bench_caches.ROWS.items()}
    assert found["masked/block_cache_exact"]["equal_tokens"] == 1
    assert abs(found["masked/block_cache_exact"]["mean_kl"]) < 1e-9
    for name in ("masked/prefix_cache", "masked/dual_cache"):
        assert 1e-9 < found[name]["mean_kl"] < 0.5
        assert found[name]["equal_tokens"] > 0.5


def test_a_row_of_a_cache_is_timed_against_itself_without_it(monkeypatch):
    for name, value in (("WORDS", 60), ("PROMPT", 4), ("ANSWER", 8), ("BLOCK", 4), ("TURNS", 1)):
        monkeypatch.setattr(bench_caches, name, value)
    monkeypatch.setattr(bench_caches, "SIZES", bench_caches.SMALL)
    said = bench_caches._speed(bench_caches.ROWS["masked/dual_cache"])
    assert said["calls"] == 4
    assert said["seconds"] > 0
    assert said["uncached_seconds"] > 0
