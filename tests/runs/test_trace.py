"""Traces: the words of every step, ending as the saved samples do, and nothing else of the point changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from trained import copy_of, samples, sweep

from diffq.cli import main
from diffq.runs import trace
from diffq.runs.trace import FLAG_ROWS, Recorder, is_traced, read_traces
from diffq.store import Point
from diffq.store.files import encode_row

GRID = ("sampler=clamp", "temperature=0.8", "steps=5")


def points(outputs: Path) -> list[Path]:
    return [path.parent for path in sorted(outputs.glob("points/**/run.json"))]


def final_words(traced) -> list[str | None]:
    words: dict[int, str | None] = {}
    for step in traced["steps"]:
        words |= dict(step["changed"])
    return [words[position] for position in sorted(words)]


def check(folder: Path, count: int, steps: int | None = None) -> None:
    rows = {row["row"]: row for row in Point(folder).rows()}
    found = read_traces(folder)
    assert len(found) == count
    for traced in found:
        saved = rows[traced["row"]]
        assert (traced["source"], traced["sample"], traced["same"]) == (saved["source"], saved["sample"], True)
        assert " ".join(final_words(traced)) == saved["text"]
        assert [step["index"] for step in traced["steps"]] == list(range(len(traced["steps"])))
        times = [step["time"] for step in traced["steps"]]
        assert times == sorted(times, reverse=True)
        if steps:
            assert traced["total"] == steps


def test_a_sweep_traces_rows_of_every_point(trained, tmp_path, capsys):
    outputs = copy_of(trained, tmp_path / "outputs")
    assert sweep(outputs, *GRID, "temperature=0.5,0.8", "trace=3") == 0
    found = points(outputs)
    assert len(found) == 2
    for folder in found:
        check(folder, 3, steps=5)
    # The samples are those of a sweep without traces, and so is what they cost.
    plain = copy_of(trained, tmp_path / "plain")
    assert sweep(plain, *GRID, "temperature=0.5,0.8") == 0
    assert samples(plain) == samples(outputs)
    assert not list(plain.glob("points/**/traces.jsonl"))
    for one, other in zip(found, points(plain), strict=True):
        a, b = (Point(folder).run() for folder in (one, other))
        assert all(a[name] == b[name] for name in ("nfe_calls", "nfe_rows", "positions_projected", "key", "tokens"))
    capsys.readouterr()


def test_a_finished_point_gets_traces_later_and_keeps_them(trained, tmp_path, capsys):
    outputs = copy_of(trained, tmp_path / "outputs")
    words = [f"outputs={outputs}", "num_sources=12", "num_samples=2", *GRID]
    assert main(["sample", *words, "--json"]) == 0
    (folder,) = points(outputs)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    assert main(["sample", *words, "--trace", "--json"]) == 0
    check(folder, FLAG_ROWS)
    after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir() if p.name != trace.FILE}
    assert after == before
    made = (folder / trace.FILE).stat().st_mtime_ns
    assert main(["sample", *words, "trace=2", "--json"]) == 0  # as many are there already
    assert (folder / trace.FILE).stat().st_mtime_ns == made
    assert main(["sample", *words, "num_samples=3", "--trace", "--json"]) == 0  # more samples change no traced row
    check(folder, FLAG_ROWS)
    assert sweep(outputs, *GRID, "trace=6") == 0  # a sweep goes back to a finished point for them
    check(folder, 6)
    capsys.readouterr()


def test_more_rows_than_a_batch_has_are_those_of_the_batch(trained, tmp_path, capsys):
    outputs = copy_of(trained, tmp_path / "outputs")
    assert sweep(outputs, *GRID, "trace=500") == 0
    (folder,) = points(outputs)
    found = read_traces(folder)
    assert 0 < len(found) == found[0]["of"] <= 12
    assert is_traced(Point(folder), 500)
    made = (folder / trace.FILE).stat().st_mtime_ns
    assert sweep(outputs, *GRID, "trace=500") == 0
    assert (folder / trace.FILE).stat().st_mtime_ns == made
    capsys.readouterr()


def test_autoregressive_rows_grow_word_by_word(trained, tmp_path, capsys):
    outputs = copy_of(trained, tmp_path / "outputs")
    assert sweep(outputs, "sampler=autoregressive", "trace=3") == 0
    (folder,) = points(outputs)
    check(folder, 3)
    for traced in read_traces(folder):
        words = [change for step in traced["steps"] for change in step["changed"] if change[1] is not None]
        assert [position for position, _ in words] == list(range(len(words)))
    capsys.readouterr()


def test_a_trace_that_ends_otherwise_says_so(trained, tmp_path, capsys):
    outputs = copy_of(trained, tmp_path / "outputs")
    assert sweep(outputs, *GRID) == 0
    (folder,) = points(outputs)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    rows[0]["ids"] = [rows[0]["ids"][0]] * 3  # as another machine might have drawn it
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert main(["sample", f"outputs={outputs}", "num_sources=12", "num_samples=2", *GRID, "trace=12"]) == 0
    odd = [traced["row"] for traced in read_traces(folder) if not traced["same"]]
    assert odd == [0]
    assert "1 of 12 traces end otherwise" in capsys.readouterr().err


def test_own_sources_leave_no_point_to_trace(capsys):
    assert main(["sample", "--source", "how ?", "--trace"]) == 2
    assert "--watch" in capsys.readouterr().err


def test_trace_is_no_axis_of_a_grid(capsys):
    assert main(["sweep", "sampler=clamp", "trace=1,2"]) == 2
    assert "cannot be swept" in capsys.readouterr().err


class Letters:
    """Token n is the n-th letter; 0 is the mask."""

    mask = 0

    def token(self, token: int) -> str:
        return "_abcdefgh"[token]


def test_steps_hold_what_changed_and_the_samplers_figures():
    from diffq.diffusion.contracts import Canvas, Step

    valid = torch.tensor([[True, True, True], [True, True, False]])
    canvas = Canvas(torch.zeros(2, 3, dtype=torch.long), valid, valid, torch.arange(2))
    recorder = Recorder(Letters(), 2)
    drafts = [[[1, 0, 0], [2, 0, 0]], [[1, 2, 0], [2, 0, 0]], [[1, 2, 3], [2, 4, 0]]]
    spreads = [[0.5, float("nan")], [float("nan")] * 2, [float("nan")] * 2]
    for n, draft in enumerate(drafts):
        second = 1 / 3 if n < 2 else float("nan")  # that row is done
        figures = {"acceptance": torch.tensor([0.25 * n, second]), "spread": torch.tensor(spreads[n])}
        recorder.on_step(
            Step(n, 3, torch.full((2,), 1 - (n + 1) / 3), canvas, lambda d=draft: torch.tensor(d), figures)
        )
    first, second = recorder.steps(0, [1, 2, 3]), recorder.steps(1, [2, 5])
    assert [s["changed"] for s in first] == [[[0, "a"], [1, None], [2, None]], [[1, "b"]], [[2, "c"]]]
    assert [s["changed"] for s in second] == [[[0, "b"], [1, None]], [], [[1, "d"]], [[1, "e"]]]  # as it was returned
    told = [{"acceptance": 0.0, "spread": 0.5}, {"acceptance": 0.25}, {"acceptance": 0.5}]
    assert [s["stats"] for s in first] == told
    assert second[0]["stats"] == {"acceptance": pytest.approx(1 / 3, rel=1e-5)}
    assert "stats" not in second[2], "of a row that is done there is nothing to tell"
    for steps in (first, second):
        encode_row({"steps": steps})
