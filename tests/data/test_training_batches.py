"""Training batches: every pair once an epoch, any batch without those before it, cached tokens equal to fresh ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffq.data.batches as module
from diffq.data.batches import TokenisedPairs, TrainBatches, tokenise
from diffq.data.grammar import Grammar
from diffq.data.task import Example
from diffq.data.tokenizers import Tokenizer, build_tokenizer
from diffq.errors import UserError


@pytest.fixture(scope="module")
def corpus():
    return Grammar(name="grammar", models={}, size=300).open()


@pytest.fixture(scope="module")
def tokenizer(corpus) -> Tokenizer:
    return build_tokenizer("words", corpus)


def pairs_of(lengths: list[int]) -> TokenisedPairs:
    start = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(start[-1], dtype=np.int32)
    return TokenisedPairs(ids, start, ids, start, np.arange(len(lengths)) * 10, 0)


@given(st.integers(1, 60), st.integers(1, 17), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_every_pair_comes_once_an_epoch(count: int, batch_size: int, window: int, seed: int) -> None:
    """With bucketing an epoch's end may lie inside a window, so windows are what is whole."""
    batches = TrainBatches(pairs_of([3 + i % 7 for i in range(count)]), batch_size, seed, window)
    steps = window * (2 * count // (batch_size * window) + 1)
    drawn = [batches.global_rows(step) for step in range(steps)]
    assert all(len(rows) == len(visits) == batch_size for rows, visits in drawn)
    pairs = [(int(v), int(r)) for rows, visits in drawn for r, v in zip(rows, visits, strict=True)]
    assert len(set(pairs)) == len(pairs)
    whole = steps * batch_size // count
    assert {p for p in pairs if p[0] < whole} == {(e, r) for e in range(whole) for r in range(count)}


@given(st.integers(0, 400), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_batch_needs_none_before_it(step: int, window: int) -> None:
    pairs = pairs_of([3 + i % 7 for i in range(50)])
    one, other = TrainBatches(pairs, 8, 5, window), TrainBatches(pairs, 8, 5, window)
    for earlier in range(step % 60):
        other.global_rows(earlier)
    for a, b in zip(one.global_rows(step), other.global_rows(step), strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    pairs = pairs_of([3] * 200)
    first, second = (TrainBatches(pairs, 200, 0).global_rows(epoch)[0].tolist() for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second
    assert first != list(range(200))
    assert first != TrainBatches(pairs, 200, 1).global_rows(0)[0].tolist()


def test_a_window_shares_out_lengths() -> None:
    rng = np.random.default_rng(0)
    pairs = pairs_of(rng.integers(3, 30, 640).tolist())

    def padding(window: int) -> int:
        batches = TrainBatches(pairs, 16, 0, window)
        found = [batches.collate(*batches.global_rows(step)) for step in range(40)]
        return sum(int((~b.target_valid_BL).sum()) for b in found)

    assert padding(20) < 0.25 * padding(1)
    batches = TrainBatches(pairs, 16, 0, 20)
    mean = [pairs.target_lengths[batches.global_rows(step)[0]].mean() for step in range(20)]
    assert mean != sorted(mean)


def test_collate_pads_and_keys(corpus, tokenizer: Tokenizer) -> None:
    pairs = tokenise(corpus.split("train"), tokenizer, 24, 24)
    assert len(pairs) == 300
    assert (pairs.dropped, pairs.note) == (0, "")
    batches = TrainBatches(pairs, 7, 0, pad=tokenizer.pad)
    rows, visits = batches.global_rows(90)
    batch = batches.collate(rows, visits)
    for b, (row, visit) in enumerate(zip(rows, visits, strict=True)):
        example = corpus.split("train")[row]
        source, target = tokenizer.encode_source(example.source), tokenizer.encode_target(example.references[0])
        assert batch.source_BS[b][batch.source_valid_BS[b]].tolist() == source
        assert batch.target_BL[b][batch.target_valid_BL[b]].tolist() == target
        assert (batch.source_BS[b][~batch.source_valid_BS[b]] == tokenizer.pad).all()
        assert (batch.target_BL[b][~batch.target_valid_BL[b]] == tokenizer.pad).all()
        assert batch.source_valid_BS[b].tolist() == sorted(batch.source_valid_BS[b].tolist(), reverse=True)
        assert (int(batch.row_B[b]), int(batch.visit_B[b])) == (example.index, visit)
        assert pairs.source_lengths[row] == len(source) - 2
        assert pairs.target_lengths[row] == len(target)
    assert {90 * 7 // 300, (91 * 7 - 1) // 300} == set(visits.tolist())


def test_cached_tokens_are_the_same(
    corpus, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = corpus.split("train")
    fresh = tokenise(examples, tokenizer, 24, 8)
    stored = tokenise(examples, tokenizer, 24, 8, tmp_path)
    monkeypatch.setattr(module, "_tokenise", lambda *_: pytest.fail("tokenised again"))
    again = tokenise(examples, tokenizer, 24, 8, tmp_path)
    assert isinstance(again.source_ids, np.memmap)
    for made in (stored, again):
        for name in ("source_ids", "source_start", "target_ids", "target_start", "index"):
            np.testing.assert_array_equal(getattr(made, name), getattr(fresh, name))
        assert (made.dropped, made.note) == (fresh.dropped, fresh.note)
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    with pytest.raises(pytest.fail.Exception):
        tokenise(examples, tokenizer, 24, 9, tmp_path)
    with pytest.raises(pytest.fail.Exception):
        tokenise(examples[1:], tokenizer, 24, 8, tmp_path)


def test_what_is_too_long_is_dropped_counted_and_said(tokenizer: Tokenizer) -> None:
    texts = [("how can i", "car"), ("how can i today my car", "car"), ("how", "my car car car"), ("how", "car my")]
    examples = [Example(i, a, (b,)) for i, (a, b) in enumerate(texts)]
    pairs = tokenise(examples, tokenizer, 5, 3)
    assert pairs.index.tolist() == [0, 3]
    assert pairs.dropped == 2
    assert pairs.note.startswith("2 of 4 pairs were left out: their source has more than 5 tokens")
    with pytest.raises(UserError, match="none of the 4 pairs has a source of at most 2"):
        tokenise(examples, tokenizer, 2, 3)
