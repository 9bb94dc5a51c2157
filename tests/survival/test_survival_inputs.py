"""What was damaged, changed or moved behind diffq's back ends in the same results or in one sentence that mends it.

Each case takes a finished sweep, damages one file and runs a verb. Where that is refused, its sentence names the file;
then the thing that it advises is done, and the same sweep ends with the results of the undamaged one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from survival_harness import GRID, TRAIN, ForkServer, results, samples_files

Damage = Callable[[Path], Any]


def point(outputs: Path) -> Path:
    return samples_files(outputs)[0].parent


def null_lines(outputs: Path) -> Path:
    return next(outputs.glob("points/**/nulls"))


def training(outputs: Path) -> Path:
    (folder,) = outputs.glob("train/*")
    return folder


def cut(find: Callable[[Path], Path], name: str, share: float = 0.5) -> Damage:
    """Leaves the first part of a file, as bytes."""
    return lambda outputs: _cut(find(outputs) / name, share)


def _cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def put(name: str, text: str) -> Damage:
    return lambda outputs: (point(outputs) / name).write_text(text)


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    def damage(outputs: Path) -> None:
        path = point(outputs) / "samples.jsonl"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return damage


def edit(pattern: str, old: str, new: str) -> Damage:
    """Replaces words in the first file of a pattern."""

    def damage(outputs: Path) -> None:
        path = sorted(outputs.glob(pattern))[0]
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return damage


def an_older_version(outputs: Path) -> None:
    """Some scores lack fields, one has others, one is no mapping."""
    path = point(outputs) / "metrics.json"
    scores = json.loads(path.read_text())
    for score in list(scores.values())[::2]:
        del score["low"], score["n"]
    path.write_text(json.dumps(scores | {"other|v:0": {"mean": 1}, "third": 3}))


def from_the_future(outputs: Path) -> None:
    """The clock was a fortnight ahead when all of this was written."""
    then = time.time() + 14 * 86400
    for path in outputs.rglob("*"):
        os.utime(path, (then, then))


def remove(*names: str, find: Callable[[Path], Path] = point) -> Damage:
    """What a sentence advises: files or folders are deleted."""

    def mend(outputs: Path) -> None:
        for name in names:
            path = find(outputs) / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return mend


def train_again(outputs: Path) -> tuple[str, ...]:
    (training(outputs) / "run.json").unlink()
    return ("train", *TRAIN)


@dataclass(frozen=True)
class Case:
    """said: what the verb must say (its status is then 1 or 2); None where it must succeed.
    mend: does what it advises, and names a command that is to be run before the sweep."""

    name: str
    damage: Damage
    said: str | None = None
    mend: Damage | None = None
    verb: str = "sweep"


GONE = re.escape("delete the folder and the point is sampled again")
ANEW = r"run\.json deleted the same diffq train writes its files again"
CASES = (
    Case("run.json cut", cut(point, "run.json"), r"run\.json is not JSON .*delete it", remove("run.json")),
    Case("run.json empty", put("run.json", ""), r"run\.json is not JSON .*delete it", remove("run.json")),
    Case("run.json gone", remove("run.json")),
    Case("metrics.json cut", cut(point, "metrics.json"), r"metrics\.json is not JSON", remove("metrics.json")),
    Case("metrics.json a list", put("metrics.json", "[]"), r"must hold a JSON mapping", remove("metrics.json")),
    Case("metrics.json older", an_older_version),
    Case("metrics.json older, scored", an_older_version, verb="score"),
    Case("metrics.json older, reported", an_older_version, verb="report"),
    Case("metrics.json gone", remove("metrics.json")),
    Case("per_source.npz cut", cut(point, "per_source.npz"), r"per_source\.npz is damaged; delete it and metrics\.json",
         remove("per_source.npz", "metrics.json")),
    Case("per_source.npz text", put("per_source.npz", "hello"), r"per_source\.npz is damaged",
         remove("per_source.npz", "metrics.json"), "report"),
    Case("null line cut", cut(null_lines, "corrupt-0.1.json"), None),
    Case("a middle line cut", lines(lambda rows: [*rows[:5], rows[5][:-9] + b"\n", *rows[6:]]), f"line 6 .*{GONE}",
         remove(".")),
    Case("a middle line other bytes", lines(lambda rows: [*rows[:5], b"x" * (len(rows[5]) - 1) + b"\n", *rows[6:]]),
         f"line 6 .*{GONE}", remove("."), "score"),
    Case("a middle line gone", lines(lambda rows: rows[:5] + rows[6:]), f"line 6 holds row 6 .*{GONE}", remove(".")),
    Case("the last line cut", lines(lambda rows: [*rows[:-1], rows[-1][:-20]])),
    Case("the last line gone", lines(lambda rows: rows[:-1])),
    Case("the last line other bytes", lines(lambda rows: [*rows[:-1], b"x" * (len(rows[-1]) - 1) + b"\n"]),
         f"holds 47 of the 48 rows .*{GONE}", remove("."), "score"),
    Case("half a line more", lines(lambda rows: [*rows, b'{"row":'])),
    Case("samples.jsonl gone", remove("samples.jsonl")),
    Case("config.yaml cut", cut(point, "config.yaml", 0.4), r"config\.yaml.*delete .*run\.json and the point is",
         remove("run.json"), "report"),
    Case("config.yaml empty", put("config.yaml", ""), r"config\.yaml must hold a mapping; put it back, or delete",
         remove("run.json")),
    Case("config.yaml changed", edit("points/*/*/*/*/config.yaml", "scale: 2.0", "scale: 3.0"),
         r"config\.yaml says scale=3, and the samples were made with 2; .*delete .*run\.json", remove("run.json")),
    Case("plan.jsonl other keys", edit("sweeps/*/plan.jsonl", '"key":"', '"key":"0'), r"sweep again, and the plan",
         None, "report"),
    Case("plan.jsonl cut", cut(lambda o: next(o.glob("sweeps/*")), "plan.jsonl")),
    Case("weights cut", cut(training, "model.safetensors"), rf"model\.safetensors is damaged .*{ANEW}", train_again),
    Case("weights gone", remove("model.safetensors", find=training), rf"model\.safetensors is not there.*{ANEW}",
         train_again),
    Case("tokenizer gone", remove("tokenizer", find=training), rf"holds no tokenizer .*{ANEW}", train_again),
    Case("tokenizer cut", cut(training, "tokenizer/tokenizer.json"), rf"no readable tokenizer.*{ANEW}", train_again),
    *(Case(f"the training's config.yaml, first {share:.0%}", cut(training, "config.yaml", share),
           rf"config\.yaml.*{ANEW}", train_again) for share in (0.0, 0.1, 0.5, 0.9)),
    Case("the training's config.yaml gone", remove("config.yaml", find=training),
         rf"config\.yaml is not there.*{ANEW}", train_again),
    Case("the training's run.json cut", cut(training, "run.json"), r"run\.json is not JSON .*delete it", train_again),
    Case("times in the future", from_the_future),
    Case("times in the future, reported", from_the_future, verb="report"),
)  # fmt: skip
FAST = {"metrics.json older", "the last line cut", "config.yaml changed", "weights cut"}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.name.replace(" ", "_"), marks=[] if c.name in FAST else pytest.mark.slow) for c in CASES],
)
def test_what_was_damaged(case: Case, server: ForkServer, whole: Path, tmp_path: Path) -> None:
    outputs = Path(shutil.copytree(whole, tmp_path / "outputs"))
    for path in outputs.glob("points/**/config.yaml"):
        path.write_text(path.read_text().replace(str(whole), str(outputs)))
    sweep = ["sweep", f"outputs={outputs}", *GRID]
    case.damage(outputs)
    status, said = server.run(sweep if case.verb == "sweep" else [case.verb, f"outputs={outputs}", "--json"])
    assert "Traceback" not in said, said
    if case.said is None:
        assert status == 0, said
    else:
        assert status in (1, 2), said
        sentences = [line for line in said.splitlines() if re.search(case.said, line)]
        assert sentences, said
        assert all(str(outputs) in sentence for sentence in sentences)
    if case.mend is not None and (words := case.mend(outputs)):
        server.finish([words[0], f"outputs={outputs}", *words[1:]])
    if case.said is not None or case.verb != "sweep":
        server.finish(sweep)
    if case.name == "null line cut":
        assert "corrupt-0.1.json is not JSON" in said
        remove("corrupt-0.1.json", find=null_lines)(outputs)
        server.finish(sweep)
    assert results(outputs) == results(whole)


@pytest.mark.slow
def test_a_state_that_was_cut_is_passed_over(server: ForkServer, tmp_path: Path) -> None:
    """A training goes on from the last state that can be read, to the same weights."""
    words = ["train", *TRAIN, "trainer.save_steps=3", "trainer.keep=3"]
    whole, outputs = tmp_path / "whole", tmp_path / "cut"
    server.finish([*words, f"outputs={whole}"])
    shutil.copytree(whole, outputs)
    (training(outputs) / "run.json").unlink()
    _cut(training(outputs) / "state/step-12/weights.safetensors", 0.7)
    _cut(training(outputs) / "state/step-9/state.json", 0.7)
    said = server.finish([*words, f"outputs={outputs}"])
    assert said.count("step-6 is gone on from") == 2
    made = [(training(o) / "model.safetensors").read_bytes() for o in (whole, outputs)]
    assert made[0] == made[1]
    assert sorted(p.name for p in (training(outputs) / "state").iterdir()) == ["step-12", "step-6", "step-9"]


@pytest.mark.slow
@pytest.mark.parametrize("shift", [-3 * 365 * 86400.0, 86400.0])
def test_a_clock_that_moves(server: ForkServer, whole: Path, tmp_path: Path, shift: float) -> None:
    """A sweep is cut off and goes on years earlier; an extension of it, and its index, see what is newest."""
    outputs = Path(shutil.copytree(whole, tmp_path / "outputs"))
    words = ["sweep", f"outputs={outputs}", *GRID]
    server.finish(["ls", "runs", f"outputs={outputs}", "--json"])
    path = point(outputs) / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:3000])
    server.finish(words, clock=shift)
    assert results(outputs) == results(whole)
    (point(outputs) / "metrics.json").unlink()
    past = time.time() + shift
    before = json.loads(server.run(["ls", "runs", f"outputs={outputs}", "--json"], clock=shift)[1])
    server.finish(["score", f"outputs={outputs}"], clock=shift)
    os.utime(point(outputs) / "metrics.json", (past, past))
    after = json.loads(server.run(["ls", "runs", f"outputs={outputs}", "--json"], clock=shift)[1])
    assert before != after
    (outputs / "index.parquet").unlink()
    assert json.loads(server.run(["ls", "runs", f"outputs={outputs}", "--json"])[1]) == after
