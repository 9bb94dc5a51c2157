"""`diffq ls runs` shows what is asked for, as a table and as typed rows, and is quick with many points."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from many_points import put, put_training

from diffq.cli import main
from diffq.cli.complete import complete
from diffq.store import PlanRow, Store, SweepFolder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "outputs")
    put(made, "a", 1.0, 10.0)
    put(made, "b", 2.5, 20.0)
    put(made, "c", 3.0, None, sampler="clamp", status="partial")
    put_training(made, "t")
    return made


def listed(capsys: pytest.CaptureFixture, store: Store, *words: str) -> list[dict]:
    assert main(["ls", "runs", f"outputs={store.outputs}", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_sorted_and_cut(store, capsys):
    rows = listed(capsys, store)
    assert [row["run"] for row in rows] == [
        "points/grammar/tiny/cfg/a", "points/grammar/tiny/cfg/b", "points/grammar/tiny/clamp/c", "train/t"
    ]  # fmt: skip
    assert rows[1]["dials"] == {"scale": 2.5}
    assert rows[1]["metrics"] == {"bleu": 20.0}
    assert (rows[1]["sources"], rows[1]["samples"], rows[1]["seed"]) == (9, 3, 0)
    assert rows[3]["kind"] == "training"
    assert rows[3]["metrics"] == {"step": 40, "loss": 2.5, "validation_loss": 2.75}
    assert [r["key"] for r in listed(capsys, store, "--where", "sampler='cfg' and bleu > 5", "--sort", "-bleu")] == [
        "b", "a"
    ]  # fmt: skip
    assert [r["key"] for r in listed(capsys, store, "--sort=-bleu", "--limit", "1")] == ["b"]
    assert [r["key"] for r in listed(capsys, store, "--where", "scale < 3 or true", "--where", "bleu > 15")] == ["b"]
    assert [r["key"] for r in listed(capsys, store, "--where", "bleu > 1 -- all", "--where", "bleu > 15")] == ["b"]


def test_columns_are_typed_and_named_as_users_name_them(store, capsys):
    rows = listed(capsys, store, "--columns", "key,dial_scale,bleu_low,finished,samples", "--where", "key = 'b'")
    finished = "2026-01-02T03:04:05+00:00"
    assert rows == [{"key": "b", "scale": 2.5, "bleu_low": 19.0, "finished": finished, "samples": 3}]
    assert main(["ls", "runs", f"outputs={store.outputs}", "--columns", "key,bleu", "--sort", "key"]) == 0
    assert capsys.readouterr().out.splitlines() == ["key  bleu", "a    10", "b    20", "c", ""]


def test_named_runs_and_sweeps_are_asked_alone(store, capsys):
    sweep = SweepFolder(store.sweeps / "mine")
    sweep.write([PlanRow("b", "points/grammar/tiny/cfg/b"), PlanRow("x", "points/grammar/tiny/cfg/gone")])
    assert [r["key"] for r in listed(capsys, store, str(sweep.folder))] == ["b"]
    assert [r["key"] for r in listed(capsys, store, str(store.points / "grammar/tiny/cfg"))] == ["a", "b"]
    assert [r["key"] for r in listed(capsys, store, "grammar/tiny/cfg", "--where", "bleu > 15")] == ["b"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs", "--where", "blue > 1"], "did you mean 'bleu'?"),
        (["runs", "--sort", "blue"], "did you mean 'bleu'?"),
        (["runs", "--columns", "key,,bleu"], "--columns needs names"),
        (["runs", "--limit", "many"], "--limit many must be a whole number"),
        (["runs", "--where"], "expected one argument"),
        (["runs", "--where", "--json"], "expected one argument"),
        (["runs", "dataset=qqp"], "--where \"dataset='qqp'\""),
        (["runs", "seed=1"], '--where "seed=1"'),
        (["samplers", "--where", "bleu > 1"], "diffq ls runs --where"),
        (["runs", "nowhere"], "no run 'nowhere'"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(store, capsys, words, told):
    assert main(["ls", words[0], f"outputs={store.outputs}", *words[1:]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("diffq: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err


def test_an_empty_answer_and_an_empty_store_say_so(store, capsys, tmp_path):
    assert main(["ls", "runs", f"outputs={store.outputs}", "--where", "bleu > 1000"]) == 0
    assert capsys.readouterr().out == "no run is so\n"
    assert listed(capsys, store, "--where", "bleu > 1000") == []
    assert main(["ls", "runs", f"outputs={tmp_path}/none", "--where", "bleu > 1"]) == 0
    assert capsys.readouterr().out == "no runs yet\n"


def test_a_broken_record_is_told_and_hides_no_other(store, capsys):
    (store.points / "grammar/tiny/cfg/a/run.json").write_text("{")
    assert main(["ls", "runs", f"outputs={store.outputs}"]) == 0
    captured = capsys.readouterr()
    assert "cfg/a/run.json is not JSON" in captured.err
    assert "broken" in captured.out
    assert "cfg/b" in captured.out


def test_a_table_is_folded_to_the_terminal_and_nowhere_else(store, capsys, monkeypatch):
    put(store, "d", 1.25, 1.0, dials={f"dial{n}": n for n in range(9)}, changed=[f"dial{n}" for n in range(9)])
    assert main(["ls", "runs", f"outputs={store.outputs}"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 6
    assert max(map(len, out.splitlines())) > 120
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((70, 20)))
    assert main(["ls", "runs", f"outputs={store.outputs}"]) == 0
    folded = capsys.readouterr().out
    assert max(map(len, folded.splitlines())) <= 70
    assert all(f"dial{n}={n}" in folded for n in range(9))


def test_completion_knows_columns_dials_and_metrics():
    assert complete(["ls", "runs", "--sort", "-self"]) == ["-self_bleu"]
    assert complete(["ls", "runs", "--sort=scale,-self"]) == ["--sort=scale,-self_bleu"]
    assert complete(["export", "x.csv", "--columns", "key,temp"]) == ["key,temperature"]
    assert complete(["ls", "runs", "--where", "scale > 2 and datas"]) == ["scale > 2 and dataset"]
    assert "--where" in complete(["ls", "runs", "--wh"])
    assert complete(["sample", "--source", "da"]) == complete(["sample", "da"])


POINTS = 10_000


@pytest.mark.slow
def test_ten_thousand_points_are_listed_in_a_second(tmp_path):
    """The whole command, three times what is promised on an idle machine with two cores: 1 s warm, 10 s cold."""
    store = Store(tmp_path / "outputs")
    for number in range(POINTS):
        more = {f"m{n}|s:3|v:1": {"name": f"m{n}", "value": float(n), "low": 0.0, "high": 1.0, "n": 9,
                                  "direction": "higher"} for n in range(9)}  # fmt: skip
        dials = {"temperature": 0.5, "steps": 30, "clamp": "none", "spacing": "leading"}
        put(store, f"p{number}", number / 100, number / 1000, sampler=f"s{number % 4}", metrics=more, dials=dials)
    time.sleep(2.1)  # younger files are read again
    command = [sys.executable, "-m", "diffq", "ls", "runs", f"outputs={store.outputs}"]
    asked = [*command, "--where", "sampler='s1' and bleu > 5", "--sort", "-bleu"]

    def seconds(words: list[str], lines: int) -> float:
        began = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        took = time.perf_counter() - began
        assert len(done.stdout.splitlines()) == 1 + lines
        return took

    cold = seconds(command, POINTS)
    warm, question = seconds(command, POINTS), seconds(asked, 1250)
    put(store, "p1", 1.0, 2.0, sampler="s1")
    changed = seconds(command, POINTS)
    print(
        f"10,000 points: cold {cold:.2f} s, warm {warm:.2f} s, a question {question:.2f} s, one changed {changed:.2f} s"
    )
    assert cold < 30
    assert warm < 3
    assert question < 3
    assert changed < 30
