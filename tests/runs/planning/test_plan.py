"""`diffq sweep --plan`: what it says agrees with what the sweep then does, and nothing is started or written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trained import command, copy_of, sweep

from diffq.cli import main
from diffq.runs.planning.table import _count, _seconds

GRID = ("sampler=clamp_before_cfg", "scale=1,2", "temperature=0,0.5", "steps=4", "batch_tokens=128")
TWIN = ("sampler=autoregressive", "temperature=0,1", "batch_tokens=128")


@pytest.fixture
def outputs(trained: Path, tmp_path: Path) -> Path:
    return copy_of(trained, tmp_path / "outputs")


@pytest.fixture
def plan(outputs: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Plans a sweep of the outputs folder: what `--json` prints, after holding that nothing on disk has changed."""

    def make(*words: str, status: int = 0) -> dict[str, Any]:
        before = tree(outputs)
        capsys.readouterr()
        assert sweep(outputs, *words, "--plan") == status
        assert tree(outputs) == before
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    return make


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and its time of change."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def record(outputs: Path, point: dict[str, Any]) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((outputs / point["folder"] / "run.json").read_text())
    return held


def test_a_plan_is_what_the_sweep_then_does(outputs: Path, plan: Any) -> None:
    told = plan(*GRID)
    assert told["total"]["states"] == {"new": 4, "partial": 0, "busy": 0, "done": 0, "fails": 0}
    assert told["seconds"] is None  # no point of this model has been timed
    assert "unknown until one point" in " ".join(told["notes"])
    assert sweep(outputs, *GRID) == 0
    size = 0
    for point in told["points"]:
        run = record(outputs, point)
        assert point["exact"]
        assert point["key"] == run["key"]
        for name in ("nfe_calls", "nfe_rows", "positions_projected"):
            assert point["whole"][name] == point["left"][name] == run[name]
        size += (outputs / point["folder"] / "samples.jsonl").stat().st_size
    assert told["total"]["disk_bytes"] == pytest.approx(size, rel=0.3)

    after = plan(*GRID)
    assert after["total"]["states"]["done"] == 4
    assert after["total"]["left"]["nfe_calls"] == 0
    assert after["seconds"] == 0
    assert after["points"][0]["seconds_so_far"] > 0


@pytest.mark.slow
def test_memory_after_one_point_is_that_of_the_others(outputs: Path) -> None:
    """In processes of their own: this one holds what the tests before it have left."""
    subprocess.run(command(outputs, "sampler=cfg", "scale=1", "steps=4"), capture_output=True, check=True)
    told = subprocess.run([*command(outputs, *GRID), "--plan", "--json"], capture_output=True, check=True)
    subprocess.run(command(outputs, *GRID), capture_output=True, check=True)
    for point in json.loads(told.stdout)["points"]:
        ratio = point["peak_memory_bytes"] / record(outputs, point)["peak_memory_bytes"]
        assert 1 / 1.5 < ratio < 1.5


def test_one_sampled_point_gives_times_for_the_others(outputs: Path, plan: Any) -> None:
    sweep(outputs, "sampler=cfg", "scale=2", "steps=40")
    told = plan("sampler=clamp", "temperature=0,1", "steps=20,40")
    times = [point["left"]["seconds"] for point in told["points"]]
    assert all(t > 0 for t in times)
    assert told["seconds"] == pytest.approx(sum(times))
    by_steps = [t for t, p in zip(times, told["points"], strict=True) if p["dials"]["temperature"] == 1]
    assert 1.4 < by_steps[1] / by_steps[0] < 2.1  # the encoder and the noise are paid once
    shared = plan("sampler=clamp", "temperature=0,1", "steps=20,40", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert shared["workers"] == 2
    assert max(times) < shared["seconds"] < sum(times)


def test_the_twin_is_planned_from_answers_that_are_there(outputs: Path, plan: Any) -> None:
    first = plan(*TWIN)
    assert not any(point["exact"] for point in first["points"])
    assert "of the references" in " ".join(first["notes"])
    sweep(outputs, *TWIN)
    later = plan("sampler=autoregressive", "temperature=0,0.9,1", "batch_tokens=128")
    new, done = later["points"][1], later["points"][2]
    assert (new["state"], done["state"]) == ("new", "done")
    assert done["exact"]
    assert done["whole"]["nfe_rows"] == record(outputs, done)["nfe_rows"]
    assert new["whole"]["nfe_rows"] == pytest.approx(done["whole"]["nfe_rows"], rel=0.3)
    assert new["left"]["seconds"] > 0


def test_what_was_cut_off_and_what_is_busy(outputs: Path, plan: Any) -> None:
    sweep(outputs, *GRID)
    held = plan(*GRID)["points"]
    cut, busy = (outputs / held[i]["folder"] for i in (1, 2))
    lines = (cut / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "samples.jsonl").write_bytes(b"".join(lines[:15]) + lines[15][:9])
    for folder in (cut, busy):
        run = json.loads((folder / "run.json").read_text()) | {"status": "partial", "rows": 12}
        (folder / "run.json").write_text(json.dumps(run))
    code = (
        f"import sys; from pathlib import Path; from diffq.store import Point; c = Point(Path({str(busy)!r})).claim()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    try:
        told = plan(*GRID)
    finally:
        process.communicate(b"")
    assert [p["state"] for p in told["points"]] == ["done", "partial", "busy", "done"]
    point = told["points"][1]
    assert (point["rows_there"], point["rows"]) == (15, 24)
    assert 0 < point["left"]["nfe_rows"] < point["whole"]["nfe_rows"]
    sweep(outputs, *GRID)  # the half-done batch is redone, and what was counted before it stays
    run = record(outputs, point)
    assert run["nfe_rows"] - held[1]["whole"]["nfe_rows"] == point["left"]["nfe_rows"]


def test_a_training_is_announced_and_not_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", f"outputs={tmp_path / 'none'}", "sampler=cfg,autoregressive", "num_sources=20", "--plan"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [t["model"] for t in told["trainings"]] == ["gaussian_tiny", "causal_seq2seq_tiny"]
    assert all(t["minutes"] > 0 for t in told["trainings"])
    assert {p["folder"] for p in told["points"]} == {""}
    assert told["points"][0]["whole"]["nfe_rows"] == 20 * 3 * 2 * 30
    assert main(words) == 0
    assert "trains first: gaussian_tiny on grammar" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_point_that_is_bound_to_fail_is_told(outputs: Path, plan: Any) -> None:
    told = plan("sampler=cfg", "scale=2", "steps=300,4", status=1)
    assert [p["state"] for p in told["points"]] == ["fails", "new"]
    assert "steps=300" in told["points"][0]["why"]
    assert told["total"]["left"]["nfe_calls"] == told["points"][1]["left"]["nfe_calls"]


def test_what_the_sweep_refuses_the_plan_refuses(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", f"outputs={outputs}", "sampler=cfg", "scale=1", "checkpoint=nowhere", "--plan"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_same_point_under_two_names_is_paid_once(plan: Any) -> None:
    told = plan("sampler=cfg,dpmpp", "scale=2", "steps=4")
    assert [p["repeats"] for p in told["points"]] == [False, True]
    assert told["total"]["points"] == 1
    assert told["total"]["left"]["nfe_calls"] == told["points"][0]["left"]["nfe_calls"]


def test_the_table_fits_a_terminal(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", f"outputs={outputs}", "num_sources=12", "--plan", "sampler=clamp_before_cfg", "steps=4"]
    assert main([*words, "scale=1,1.5,2", "temperature=0,0.25,0.5"]) == 0
    few = capsys.readouterr().out.splitlines()
    assert sum("scale=" in line or "clamp_before_cfg" in line for line in few) >= 9
    assert main([*words, "scale=1,1.5,2,3,4", "temperature=range(0,10,1)", "seed=range(0,4)"]) == 0
    many = capsys.readouterr().out.splitlines()
    assert many[0].startswith("grammar-clamp_before_cfg: 200 points")
    assert len(many) < 25
    assert "× 200" in "".join(many)
    assert max(map(len, few + many)) <= 80


def test_points_that_are_scored_say_how_many_sources_it_takes(outputs: Path, plan: Any) -> None:
    assert plan(*GRID)["power"] == {}
    sweep(outputs, *GRID)
    told = plan(*GRID)
    (axis, *_) = told["power"].values()
    assert axis["sources"] == 12
    assert axis["half_width"] > 0
    sources = list(axis["needed"].values())
    assert sources == sorted(sources, reverse=True)
    assert sources[0] > sources[-1] >= 2


def test_numbers_as_a_person_reads_them() -> None:
    assert [_count(n) for n in (0, 7, 12_345, 999_999, 3.2e12, None)] == ["0", "7", "12.3k", "1000k", "3.2T", "?"]
    assert [_seconds(s) for s in (0.0, 0.42, 12.4, 100, 7000, 2e5, None)] == [
        "0 s", "0.42 s", "12 s", "1.7 min", "1.9 h", "2.3 d", "?",
    ]  # fmt: skip


def test_a_model_that_has_to_be_trained_by_hand_is_planned_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On data that is no world a sweep would stop: its plan says how to go on, and what the sweep will cost then."""
    lines = [
        {"source": f"where is the {w}", "target": f"the {w} is where"} for w in ("cat", "dog", "cow", "pig", "hen")
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines * 40))
    words = ["dataset=pairs", f"dataset.path={file}", "dataset.tokenizer=words", "model=gaussian_tiny", "scale=1,2"]
    words += ["dataset.test_fraction=0.3", "num_sources=4", f"outputs={tmp_path / 'outputs'}"]
    assert main(["sweep", *words, "--plan", "--json"]) == 1
    planned = json.loads(capsys.readouterr().out)
    assert [p["state"] for p in planned["points"]] == ["new", "new"]
    assert planned["points"][0]["whole"]["nfe_rows"] > 0
    assert "run: diffq train model=gaussian_tiny dataset=pairs" in planned["notes"][0]
    assert not (tmp_path / "outputs").exists()
