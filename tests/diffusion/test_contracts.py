"""Canvas, Meter and guidance: what passes between samplers and networks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from diffq.diffusion.contracts import (
    COND,
    GUIDED,
    UNCOND,
    Canvas,
    Meter,
    branches_for,
    guide,
    require_guidable,
    row_id,
)
from diffq.errors import UserError


def canvas_of(rows=3, length=4, source=5, **changes):
    whole = torch.ones(rows, length, dtype=torch.bool)
    held = {
        "tokens_BL": torch.zeros(rows, length, dtype=torch.long),
        "free_BL": whole,
        "valid_BL": whole,
        "row_B": torch.arange(rows),
        "source_BS": torch.zeros(rows, source, dtype=torch.long),
        "source_valid_BS": torch.ones(rows, source, dtype=torch.bool),
    }
    return Canvas(**(held | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_BL": torch.zeros(4, dtype=torch.long)}, r"batch × length, not \(4,\)"),
        ({"free_BL": torch.ones(3, 5, dtype=torch.bool)}, r"free_BL has shape \(3, 5\)"),
        ({"valid_BL": torch.ones(2, 4, dtype=torch.bool)}, r"valid_BL has shape \(2, 4\)"),
        ({"row_B": torch.arange(2)}, r"row_B has shape \(2,\) for 3 rows"),
        ({"source_valid_BS": None}, "comes with source_valid_BS"),
        ({"source_BS": None}, "comes with source_valid_BS"),
    ],
)
def test_a_canvas_checks_its_shapes(changes, message):
    with pytest.raises(ValueError, match=message):
        canvas_of(**changes)


def test_a_canvas_maps_and_replaces():
    canvas = canvas_of(source_BS=None, source_valid_BS=None)
    part = canvas.map(lambda x: x[[2, 0]])
    assert part.row_B.tolist() == [2, 0]
    assert part.source_BS is None
    assert part.shape == (2, 4)
    assert canvas.replace(row_B=torch.tensor([7, 8, 9])).row_B.tolist() == [7, 8, 9]


def test_row_ids_are_different_for_every_sample_of_every_source():
    ids = {row_id(source, sample) for source in range(50) for sample in range(50)}
    assert len(ids) == 2500
    assert row_id(2**32 - 1, 0) < row_id(0, 1) < 2**63


@pytest.mark.parametrize(
    ("scales", "expected"),
    [([1, 1.0], COND), ([0, 0.0], UNCOND), ([2], GUIDED), ([1, 0], GUIDED), ([0.5], GUIDED), ([1, 1, 1.001], GUIDED)],
)
def test_off_and_unconditional_are_one_pass(scales, expected):
    assert branches_for(scales) == expected


def test_guidance_moves_from_the_unconditional_through_the_conditional():
    c, u = torch.randn(5, 7), torch.randn(5, 7)
    assert torch.equal(guide(c, u, 1), c)
    assert torch.equal(guide(c, u, 0), u)
    for scale in (0.25, 0.5, 2.0, 7.5, -1.0):
        assert torch.allclose(guide(c, u, scale), u + scale * (c - u), atol=1e-5)


def test_a_model_without_condition_dropout_is_not_guided():
    for branches in (UNCOND, GUIDED):
        with pytest.raises(UserError, match=r"trained without condition dropout.*use scale=1"):
            require_guidable(SimpleNamespace(guidable=False), branches)
    require_guidable(SimpleNamespace(guidable=False), COND)
    require_guidable(SimpleNamespace(guidable=True), GUIDED)


class Counted:
    """A denoiser that counts by itself, and has an ability beyond the contract."""

    def __init__(self):
        self.calls = self.rows = self.positions = 0
        self.vocab_size = 9

    def open(self, canvas, branches):
        self.branches = branches
        outer = self

        class Session:
            def __init__(self):
                self.branches = branches
                self.kept = None

            def run(self, state, *args):
                outer.calls += 1
                outer.rows += len(state) * len(branches)
                return torch.cat([state] * len(branches))

            def read(self, hidden, positions, reduce):
                outer.positions += len(positions)
                return (positions,)

            def select(self, rows):
                self.kept = rows.tolist()

            def freeze(self):
                return "frozen"

        return Session()


def test_the_meter_counts_what_is_asked():
    inner = Counted()
    meter = Meter(inner)
    assert meter.vocab_size == 9
    session = meter.open(canvas_of(rows=3), GUIDED)
    assert session.branches == GUIDED
    assert session.freeze() == "frozen"
    hidden = session.run(torch.zeros(3, 4), torch.zeros(3))
    assert len(hidden) == 6
    session.read(hidden, torch.arange(5), [])
    session.select(torch.tensor([0, 2]))
    session.run(torch.zeros(2, 4), torch.zeros(2))
    session.select(torch.tensor([1]))
    session.run(torch.zeros(1, 4), torch.zeros(1))
    session.read(hidden, torch.arange(2), [])
    assert (meter.nfe_calls, meter.nfe_rows, meter.positions_projected) == (3, 12, 7)
    assert (inner.calls, inner.rows, inner.positions) == (3, 12, 7)
    assert meter.row_nfe_B.tolist() == [4, 2, 6]
    meter.open(canvas_of(rows=2), COND).run(torch.zeros(2, 4), torch.zeros(2))
    assert meter.row_nfe_B.tolist() == [1, 1]
    assert (meter.nfe_calls, meter.nfe_rows) == (4, 14)
