"""The network of `scripts/exact_sudoku.py`: its conditionals by counting, and what follows from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from diffq.data.sudoku import completions
from diffq.rng import Rng
from diffq.samplers.decoding_rules import RandomOrder

SCRIPT = Path(__file__).parent.parent / "scripts/exact_sudoku.py"
spec = importlib.util.spec_from_file_location("exact_sudoku", SCRIPT)
assert spec is not None
assert spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

SOURCES = ["1000\n0020\n0000\n4000", "0000\n0000\n0300\n0001"]


@pytest.mark.parametrize("mistakes", [0.0, 0.1])
def test_conditionals_are_shares_of_the_completions(mistakes: float) -> None:
    canvas = script.canvas_of(SOURCES)
    rows = torch.tensor([0, script.SAMPLES])
    session = script.Exact(mistakes).open(canvas)
    log_BLV = session.run(canvas.tokens_BL[rows], torch.ones(2, dtype=torch.float64))
    for b, source in enumerate(SOURCES):
        known = [grid.replace("\n", "") for grid in completions(source)]
        for cell in range(16):
            share = torch.tensor([sum(g[cell] == d for g in known) / len(known) for d in script.DIGITS]).double()
            expected = (1 - mistakes) * share + mistakes / 4
            assert torch.allclose(log_BLV[b, cell].exp(), expected, atol=1e-12)


def test_where_no_grid_is_left_every_digit_is_as_good() -> None:
    session = script.Exact(0.0).open(script.canvas_of(SOURCES))
    wrong_BL = torch.full((1, 16), script.MASK)
    wrong_BL[0, :2] = 0
    at_BK = torch.tensor([[7, 15]])
    log_BKV = session.run(wrong_BL, torch.ones(1, dtype=torch.float64), at_BK)
    assert torch.allclose(log_BKV.exp(), torch.full((1, 2, 4), 0.25, dtype=torch.float64))


def test_a_cell_at_a_time_is_always_right_and_finds_several() -> None:
    filled = RandomOrder(steps=14)(script.Exact(0.0), script.canvas_of(SOURCES), Rng(0))
    right, distinct = script.judge(filled.tokens_BL, SOURCES)
    assert right == 100
    assert distinct > 1
