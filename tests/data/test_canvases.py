"""The batch plan's promises, by property; canvases, by looking at every position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffq.data.canvases import Row, build_canvas, check_sources, plan_batches
from diffq.diffusion.contracts import row_id
from diffq.errors import UserError

PAD, MASK = 0, 4


@st.composite
def points(draw: st.DrawFn) -> tuple[list[list[int]], list[int], int]:
    sources = draw(st.lists(st.integers(3, 30), min_size=1, max_size=25))
    samples = draw(st.integers(1, 4))
    row = st.lists(st.integers(1, 20), min_size=len(sources), max_size=len(sources))
    return [draw(row) for _ in range(samples)], sources, draw(st.integers(1, 400))


@given(points())
@settings(max_examples=200, deadline=None)
def test_every_row_once_and_no_batch_spans_two_samples(point: tuple) -> None:
    lengths, sources, budget = point
    plan = plan_batches(lengths, sources, budget)
    rows = [row for batch in plan for row in batch.rows]
    assert sorted((r.sample, r.source) for r in rows) == [
        (s, i) for s in range(len(lengths)) for i in range(len(sources))
    ]
    assert all(row.length == lengths[row.sample][row.source] for row in rows)
    assert all(len({row.sample for row in batch.rows}) == 1 for batch in plan)
    assert rows == sorted(rows, key=lambda r: (r.sample, r.length, sources[r.source], r.source))
    assert [batch.first for batch in plan] == [sum(len(b.rows) for b in plan[:i]) for i in range(len(plan))]


@given(points())
@settings(max_examples=200, deadline=None)
def test_the_budget_holds_and_is_used(point: tuple) -> None:
    lengths, sources, budget = point

    def padded(rows: tuple[Row, ...]) -> int:
        return len(rows) * (max(r.length for r in rows) + max(sources[r.source] for r in rows))

    plan = plan_batches(lengths, sources, budget)
    for batch, following in zip(plan, [*plan[1:], None], strict=True):
        assert len(batch.rows) == 1 or padded(batch.rows) <= budget
        if following is not None and following.sample == batch.sample:
            assert padded((*batch.rows, following.rows[0])) > budget


@given(points())
@settings(max_examples=100, deadline=None)
def test_more_samples_only_append_batches(point: tuple) -> None:
    lengths, sources, budget = point
    plan = plan_batches(lengths, sources, budget)
    for samples in range(1, len(lengths)):
        fewer = plan_batches(lengths[:samples], sources, budget)
        assert plan[: len(fewer)] == fewer


def test_sources_keep_their_index() -> None:
    plan = plan_batches([[5, 3]], [4, 4], 100, indices=[17, 2])
    assert plan[0].rows == (Row(source=2, sample=0, length=3), Row(source=17, sample=0, length=5))
    assert plan[0].rows[1].id == row_id(17, 0)
    with pytest.raises(UserError, match="batch_tokens=0"):
        plan_batches([[5]], [4], 0)
    with pytest.raises(ValueError, match="sample 0 has 1 lengths for 2"):
        plan_batches([[5]], [4, 4], 10)


@given(points(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_padding_is_never_valid_and_kept_tokens_never_free(point: tuple, kept: int) -> None:
    lengths, source_lengths, budget = point
    sources = {i: [2, *range(10, 8 + n), 3] for i, n in enumerate(source_lengths)}
    for batch in plan_batches(lengths, source_lengths, budget):
        keep = {row.source: {p: 50 + p for p in range(min(kept, row.length))} for row in batch.rows}
        canvas = build_canvas(batch.rows, sources, PAD, MASK, keep)
        for b, row in enumerate(batch.rows):
            size, fixed = row.length, min(kept, row.length)
            tokens = [50 + p for p in range(fixed)] + [MASK] * (size - fixed)
            padding = canvas.shape[1] - size
            assert canvas.tokens_BL[b].tolist() == tokens + [PAD] * padding
            assert canvas.valid_BL[b].tolist() == [True] * size + [False] * padding
            assert canvas.free_BL[b].tolist() == [False] * fixed + [True] * (size - fixed) + [False] * padding
            assert canvas.source_BS is not None
            assert canvas.source_valid_BS is not None
            ids = sources[row.source]
            assert canvas.source_BS[b].tolist() == ids + [PAD] * (canvas.source_BS.shape[1] - len(ids))
            assert int(canvas.source_valid_BS[b].sum()) == len(ids)
            assert bool(canvas.source_valid_BS[b, : len(ids)].all())
        assert canvas.row_B.tolist() == [row.id for row in batch.rows]
        assert canvas.tokens_BL.dtype == canvas.row_B.dtype == torch.long
        assert canvas.shape[1] == max(row.length for row in batch.rows)


def test_a_kept_token_must_stand_inside() -> None:
    rows, sources = [Row(source=3, sample=0, length=4)], {3: [2, 9, 3]}
    for position in (4, -1):
        with pytest.raises(UserError, match=f"position {position} of source 3, whose target has 4 tokens"):
            build_canvas(rows, sources, PAD, MASK, {3: {position: 9}})


def test_sources_that_cannot_be_read_are_named() -> None:
    check_sources({0: [2, 9, 3], 5: [2, *range(10, 20), 3]}, 12)
    with pytest.raises(UserError, match="source 5 has 12 tokens, and the model takes at most 11"):
        check_sources({0: [2, 9, 3], 5: [2, *range(10, 20), 3]}, 11)
    with pytest.raises(UserError, match="source 1 is empty"):
        check_sources({0: [2, 9, 3], 1: [2, 3]}, 11)
