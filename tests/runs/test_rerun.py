"""`diffq rerun` repeats points from their own records, says what differs, and leaves them as they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from trained import copy_of, samples, sweep

from diffq.cli import main
from diffq.runs import rerun as module
from diffq.runs import sampling
from diffq.runs.repetition import RowsCompared, changes, compare_rows, promised
from diffq.store import Point, Store

WORDS = ("model=gaussian_tiny", "sampler=clamp_before_cfg", "scale=2", "temperature=0.5,1")


@pytest.fixture(scope="module")
def swept(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two points on a small model, scored."""
    outputs = copy_of(trained, tmp_path_factory.mktemp("swept"))
    assert sweep(outputs, *WORDS) == 0
    return outputs


@pytest.fixture
def outputs(swept: Path, tmp_path: Path) -> Path:
    """A copy of it, with what it holds said to lie there."""
    made = tmp_path / "outputs"
    shutil.copytree(swept, made)
    for path in made.glob("points/**/config.yaml"):
        path.write_text(path.read_text().replace(str(swept), str(made)))
    return made


def the_point(outputs: Path) -> Path:
    return sorted(outputs.glob("points/grammar/*/*/*"))[0]


def rerun(capsys: pytest.CaptureFixture, outputs: Path, *words: str | Path) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    status = main(["rerun", *map(str, words), f"outputs={outputs}", "--json"])
    out = capsys.readouterr().out
    return status, json.loads(out) if out else []


def refused(capsys: pytest.CaptureFixture, outputs: Path, *words: str | Path) -> str:
    capsys.readouterr()
    assert main(["rerun", *map(str, words), f"outputs={outputs}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("diffq: ")
    assert told.count("\n") == 1
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_sweep_is_repeated_byte_for_byte_and_stays_as_it_is(outputs, capsys):
    before, there = contents(outputs / "points"), {path.name for path in outputs.iterdir()}
    status, found = rerun(capsys, outputs, outputs / "sweeps" / "grammar-clamp_before_cfg")
    assert status == 0
    assert contents(outputs / "points") == before
    assert [one["verdict"] for one in found] == ["identical"] * 2
    for one in found:
        assert (one["rows"]["equal"], one["rows"]["total"], one["rows"]["identical"]) == (24, 24, True)
        assert one["before"] == []
        assert one["metrics"]
        assert not one["not_compared"]
        assert all(m["was"] == m["now"] for m in one["metrics"])
        assert any(m["low"] == m["high"] == 0 for m in one["metrics"])
        assert {c["name"] for c in one["costs"]} >= {"seconds", "nfe_calls"}
        assert (outputs / one["rerun"] / "samples.jsonl").read_bytes() == before[
            one["point"].removeprefix("points/") + "/samples.jsonl"
        ]
    assert len({Path(one["rerun"]).parts[1] for one in found}) == 1, "one store for all of them"
    assert {path.name for path in outputs.iterdir()} - there == {"reruns"}
    main(["ls", "runs", f"outputs={outputs}", "--where", "kind = 'point'", "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 2, "repetitions are no points of the store"


def test_it_goes_on_where_it_was_and_repeats_only_when_asked(outputs, capsys, monkeypatch):
    point, real, batches = the_point(outputs), sampling._rows, []

    def counted(*arguments: Any) -> Any:
        batches.append(1)
        if len(batches) == stop:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sampling, "_rows", counted)
    stop = 2
    assert main(["rerun", str(point), f"outputs={outputs}", "batch_tokens=64"]) == 130
    cut = list(samples_below(outputs / "reruns").values())
    stop = 0
    status, found = rerun(capsys, outputs, point, "batch_tokens=64")
    assert status == 0
    assert len(cut) == 1
    assert 0 < len(cut[0]) < len(next(iter(samples_below(outputs / "reruns").values())))
    done = len(batches)
    assert rerun(capsys, outputs, point, "batch_tokens=64")[1] == found
    assert len(batches) == done, "what is finished is not sampled again"
    status, other = rerun(capsys, outputs, point, "batch_tokens=64", "--again")
    assert len(batches) > done
    assert Path(other[0]["rerun"]).parts[1] == Path(found[0]["rerun"]).parts[1] + "-2"
    assert rerun(capsys, outputs, point, "batch_tokens=64")[1][0]["rerun"] == other[0]["rerun"], "the newest one counts"


def samples_below(folder: Path) -> dict[str, bytes]:
    found = {}
    for place in folder.iterdir():
        found |= {f"{place.name}/{name}": held for name, held in samples(place).items()}
    return found


def test_it_says_before_what_is_not_as_it_was(outputs, capsys):
    point = the_point(outputs)
    run = json.loads((point / "run.json").read_text())
    older = {"versions": run["versions"] | {"torch": "1.0", "commit": "f" * 40}, "device": "cpu, 99 threads"}
    dials = {name: value for name, value in run["dials"].items() if name != "steps"}
    change(point / "run.json", **older, key="0" * 64, dials=dials)
    status, found = rerun(capsys, outputs, point)
    assert status == 0
    said = {c["name"]: c["was"] for c in found[0]["before"]}
    assert said == {
        "commit": "f" * 12,
        "torch": "1.0",
        "device": "cpu, 99 threads",
        "steps": "not there",
        "key": "0" * 12,
    }
    assert main(["rerun", str(point), f"outputs={outputs}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  commit ffffffffffff → ")
    assert "torch 1.0 → " in lines[1]
    assert lines[2] == "  identical: 24 of 24 rows equal, byte for byte"


def test_it_shows_after_in_what_the_results_differ(outputs, capsys):
    """The record of another result: every text of the first sample of five sources is another."""
    point = the_point(outputs)
    lines = (point / "samples.jsonl").read_text().splitlines()
    for at in range(5):
        row = json.loads(lines[at])
        lines[at] = json.dumps(row | {"text": "what <b> was", "ids": [7, *row["ids"][1:]]})
    (point / "samples.jsonl").write_text("\n".join(lines) + "\n")
    change(point / "run.json", bytes=(point / "samples.jsonl").stat().st_size)
    for name in ("metrics.json", "per_source.npz"):
        (point / name).unlink()
    assert main(["score", str(point), f"outputs={outputs}"]) == 0
    status, found = rerun(capsys, outputs, point)
    assert status == 1
    one = found[0]
    assert (one["verdict"], one["rows"]["equal"]) == ("different", 19)
    assert [d["row"] for d in one["rows"]["differing"]] == [0, 1, 2]
    assert one["rows"]["tokens_equal"] >= one["rows"]["tokens"] - 5
    assert one["needed"] == 0.99
    moved = {m["name"]: m for m in one["metrics"] if m["was"] != m["now"]}
    assert moved
    assert any(m["low"] is not None and m["low"] <= m["now"] - m["was"] <= m["high"] for m in moved.values())
    assert main(["rerun", str(point), f"outputs={outputs}"]) == 1
    shown = capsys.readouterr().out
    assert "different: 19 of 24 rows equal (79.17 %)" in shown
    assert "was  what <b> was" in shown


def test_what_cannot_be_repeated_is_refused_with_its_reason(outputs, capsys):
    point, training = the_point(outputs), sorted((outputs / "train").glob("*gaussian*"))[0]
    assert "is a training; rerun repeats points" in refused(capsys, outputs, training)
    assert "needs to know what to repeat" in refused(capsys, outputs)
    assert "only device=, batch_tokens=, outputs= can be given" in refused(capsys, outputs, point, "scale=3")
    assert "batch_tokens must be a whole number" in refused(capsys, outputs, point, "batch_tokens=few")
    settings = training / "config.yaml"
    text = settings.read_text()
    settings.write_text(re.sub(r"dropout: [\d.]+", "dropout: 0.9", text))
    assert "is another than it was sampled from" in refused(capsys, outputs, point)
    settings.write_text(text)
    run = json.loads((point / "run.json").read_text())
    change(point / "run.json", sources_digest="0" * 64)
    assert "has other sources or references than it had" in refused(capsys, outputs, point)
    change(point / "run.json", sources_digest=run["sources_digest"], status="partial")
    assert "is no finished point" in refused(capsys, outputs, point)
    change(point / "run.json", status="done")
    shutil.rmtree(training)
    assert "is gone; put it back under" in refused(capsys, outputs, point)
    assert not (outputs / "reruns").exists()


def test_a_refused_point_of_a_sweep_does_not_stop_the_others(outputs, capsys):
    change(the_point(outputs) / "run.json", sources_digest="0" * 64)
    status, found = rerun(capsys, outputs, outputs / "sweeps" / "grammar-clamp_before_cfg")
    assert status == 2
    assert sorted(one.get("verdict", "refused") for one in found) == ["identical", "refused"]


def test_a_repetition_can_be_repeated_from_where_it_lies(outputs, capsys, tmp_path):
    point = the_point(outputs)
    first = rerun(capsys, outputs, point)[1][0]
    status, found = rerun(capsys, tmp_path / "elsewhere", outputs / first["rerun"])
    assert status == 0
    assert (tmp_path / "elsewhere" / found[0]["rerun"] / "samples.jsonl").exists()


def test_what_is_promised_depends_on_precision_and_on_clamping():
    assert promised({"dtype": "float32", "sampler": "cfg", "dials": {"clamp": "none"}}) == 0.995
    assert promised({"dtype": "float32", "sampler": "clamp_before_cfg"}) == 0.99
    assert promised({"dtype": "float32", "sampler": "guided", "dials": {"clamp": "all"}}) == 0.99
    assert promised({"dtype": "bfloat16", "sampler": "cfg"}) is None


def test_rows_are_compared_with_those_that_one_side_lacks(tmp_path):
    def point(name: str, *rows: dict[str, Any]) -> Point:
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Point(tmp_path / name)

    row = {"row": 0, "source": 4, "sample": 0, "ids": [1, 2, 3], "text": "a b c", "nfe": 5}
    whole = point("whole", row, row | {"row": 1})
    same = RowsCompared(total=2, equal=2, tokens=6, tokens_equal=6, identical=True, differing=())
    assert compare_rows(whole, whole, 2) == same
    dearer = compare_rows(whole, point("dearer", row | {"nfe": 9}, row | {"row": 1}), 2)
    assert (dearer.equal, dearer.identical) == (2, False), "the same answers, otherwise come by"
    shorter = compare_rows(whole, point("shorter", row | {"ids": [1, 9], "text": "a x"}), 2)
    assert (shorter.equal, shorter.tokens, shorter.tokens_equal, shorter.identical) == (0, 6, 1, False)
    assert [d.now for d in shorter.differing] == ["a x", ""]
    assert compare_rows(whole, point("more", row, row | {"row": 1}, row | {"row": 2}), 2) == same
    assert RowsCompared(0, 0, 0, 0, True, ()).share == 1.0


def test_a_record_without_versions_says_so(outputs):
    judges = module.Judges(Store(outputs))
    task = module.prepare(Point(the_point(outputs)), judges, module.Workbenches(), {})
    said = list(
        changes({k: v for k, v in task.run.items() if k != "versions"}, task.now, task.bench.identity(task.config))
    )
    assert {c.name for c in said} >= {"python", "torch"}
    assert {c.was for c in said} == {"not recorded"}
