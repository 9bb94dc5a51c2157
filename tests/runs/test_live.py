"""The table of a running sweep on a terminal's screen, plain lines without one, and what a board knows."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyte
import pytest
from rich.console import Console

from diffq.report.points import Figure
from diffq.runs import live
from diffq.runs.board import Board
from diffq.samplers.clamping import ClampBeforeCFG
from diffq.store.point import Point


def planned(folder: Path, scale: float, temperature: float, total: int = 240, **dataset: Any) -> Any:
    sampler = ClampBeforeCFG(scale=scale, temperature=temperature, steps=20)
    choices = SimpleNamespace(sampler="clamp_before_cfg", dataset="grammar", model="gaussian_tiny", given=())
    about = {"dataset": SimpleNamespace(**dataset), "length": "oracle", "seed": 0, "num_samples": 3}
    config = SimpleNamespace(sampler=sampler, choices=choices, **about)
    point = Point(folder / "-".join(map(str, (scale, temperature, *dataset.values()))))
    return SimpleNamespace(point=point, total=total, config=config, done=False)


def figure(name: str, value: float, direction: str = "higher") -> Figure:
    return Figure(name, value, f"{name}|v:1", direction, value - 1.3, value + 1.3)


def board_of(tmp_path: Path, count: int) -> Board:
    return Board("name", [planned(tmp_path, 1 + i // 10, i % 10 / 10) for i in range(count)], "self_bleu", "validity")


def screen(board: Board, width: int, height: int) -> list[str]:
    """What a terminal of this size shows."""
    terminal = pyte.Screen(width, height)
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=width, height=height).print(live.render(board, width, height))
    pyte.Stream(terminal).feed(out.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in terminal.display]


@pytest.fixture
def busy(tmp_path: Path) -> Board:
    """200 points: 60 done, 3 failed, 2 running, 1 elsewhere, 1 scoring, the rest waiting."""
    board = board_of(tmp_path, 200)
    for i, entry in enumerate(board.entries[:60]):
        board.sampled(entry, 240, 6.0)
        board.set(entry, "done")
        board.scored(entry, {"self_bleu": figure("self_bleu", 20 + i, "lower"), "validity": figure("validity", i % 7)})
    for entry in board.entries[60:63]:
        board.set(entry, "failed", "too many steps")
    for entry, state in zip(board.entries[63:67], ("running", "running", "elsewhere", "scoring"), strict=True):
        board.set(entry, state)
        board.sampled(entry, 120, 3.0)
    return board


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 12), (132, 50), (60, 24)])
def test_200_points_fit_every_terminal(busy: Board, width: int, height: int) -> None:
    lines = screen(busy, width, height)
    assert lines[0].startswith("name: 60 of 200 points done, 3 failed, 2 running")  # nothing has scrolled away
    assert lines[-1] == ""  # the cursor's line
    shown = "\n".join(lines)
    assert shown.count(" running") >= 2
    assert " failed" in shown.partition("\n")[2]
    assert re.search(r"and 1[5-9]\d more", shown)
    if height >= 24:
        assert "elsewhere" in shown
        assert sum(line.startswith("*") for line in lines) >= 4  # 7 are on the front


def test_a_small_sweep_is_shown_whole_in_its_own_order(tmp_path: Path) -> None:
    board = board_of(tmp_path, 9)
    board.set(board.entries[4], "running")
    board.sampled(board.entries[4], 60, 2.0)
    board.scored(board.entries[0], {"self_bleu": figure("self_bleu", 40, "lower"), "validity": figure("validity", 71)})
    lines = screen(board, 80, 24)
    rows = [line for line in lines if "τ0" in line]
    assert re.findall(r"τ(\S+)", "\n".join(rows)) == ["0", *(f"0.{i}" for i in range(1, 9))]
    assert re.search(r"^\* τ0 .*waiting +40\.0 ±1\.30 +71\.0 ±1\.30$", rows[0])
    assert re.search(r"running +25% +30 +0:06$", rows[4])


def test_names_are_cut_and_dials_are_not(tmp_path: Path) -> None:
    board = board_of(tmp_path, 4)
    board.entries[0].name = "clamp_before_cfg_with_a_long_name"
    lines = screen(board, 80, 24)
    assert re.match(r"  clamp_before_cfg_\w*… τ0 +waiting", lines[3])
    assert "clamp_before_cfg τ0.3" in lines[6]


def test_points_of_several_prompts_are_named_for_them_and_have_a_front_each(tmp_path: Path) -> None:
    prompts = [(s, p) for p in (5, 50) for s in (1, 2)]
    board = Board("name", [planned(tmp_path, s, 0, block=100, prefix=p) for s, p in prompts], "self_bleu", "validity")
    assert [entry.dials for entry in board.entries] == [f"s{s} given {p} of 100" for s, p in prompts]
    for entry, quality in zip(board.entries, (1, 2, 30, 4), strict=True):
        board.scored(entry, {"self_bleu": figure("self_bleu", 20, "lower"), "validity": figure("validity", quality)})
    assert [entry.front for entry in board.entries] == [False, True, True, False]


def test_time_left_is_shared_out_by_passes(tmp_path: Path) -> None:
    """Guidance runs two rows: once a point without it took 6 s, one with it takes 12."""
    board = Board("name", [planned(tmp_path, 1, 0), planned(tmp_path, 2, 0)], "x", "y")
    assert board.left() is None
    first, second = board.entries
    board.sampled(first, 240, 6.0)
    board.set(first, "done")
    assert board.left_of(second) == pytest.approx(12.0)
    assert board.share == pytest.approx(1 / 3)
    board.set(second, "running")
    second.drafted = 120
    assert board.left() == pytest.approx(6.0)


def test_plain_lines(busy: Board, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with live.showing(busy):
        busy.set(busy.entries[0], "done")
        busy.set(busy.entries[66], "failed", "why")
        busy.sampled(busy.entries[63], 130, 3.0)
        monkeypatch.setattr(live, "_LINE_SECONDS", -1.0)
        busy.sampled(busy.entries[63], 130, 3.0)
    told = capsys.readouterr().err.splitlines()
    assert (
        told[0] == "[63/200] clamp_before_cfg s1 τ0  6.0 s  self_bleu 20.0 [18.7, 21.3]  validity 0.00 [-1.30, 1.30]  *"
    )
    assert told[1] == "[64/200] clamp_before_cfg s7 τ0.6  failed"
    assert re.fullmatch(r"clamp_before_cfg s7 τ0\.3: 130/240 rows, 43\.3/s, 0:03 left; sweep: .* left", told[2])
    assert len(told) == 3
    with live.showing(board := board_of(busy.entries[0].planned.point.folder, 2), quiet=True):
        board.set(board.entries[0], "done")
    assert capsys.readouterr().err == ""
