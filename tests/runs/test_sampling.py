"""Sampling points: what a sweep leaves on disk, how it goes on after a kill, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from trained import command, copy_of, samples, sweep

from diffq.cli import main
from diffq.runs import sample
from diffq.store.point import Claim, Point

GRID = ("sampler=cfg", "scale=1,2", "steps=4")


@pytest.fixture
def outputs(trained: Path, tmp_path: Path) -> Path:
    return copy_of(trained, tmp_path / "outputs")


def test_all_lines_of_an_answer_are_indented(capsys: pytest.CaptureFixture[str]):
    sample._show([{"source": "1000\n0000", "text": "1234\n3412"}, {"source": "1000\n0000", "text": "12"}], False)
    assert capsys.readouterr().out == "1000\n0000\n    1234\n    3412\n    12\n"


def test_a_sweep_leaves_samples_scores_and_a_frontier(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(outputs, *GRID) == 0
    told = json.loads(capsys.readouterr().out)
    points = [row for row in told["points"] if row["kind"] == "point"]
    assert [row["dial_scale"] for row in points] == [1, 2]
    assert [row["nfe_rows"] for row in points] == [4 * 24, 2 * 4 * 24]  # guidance is a second row, not a second call
    assert (outputs / "sweeps/grammar-cfg/frontier.png").stat().st_size > 10_000
    for text in samples(outputs).values():
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["row"] for row in rows] == list(range(24))
        assert sorted((row["sample"], row["source"]) for row in rows) == [(k, i) for k in range(2) for i in range(12)]


def test_a_finished_point_is_not_sampled_again(outputs: Path) -> None:
    sweep(outputs, *GRID)
    times = {p: p.stat().st_mtime_ns for p in outputs.glob("points/**/samples.jsonl")}
    sweep(outputs, "sampler=dpmpp", "scale=2,3", "steps=4")  # scale 2 is the point that cfg has made
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())
    assert len(samples(outputs)) == 3


def test_more_samples_append_rows(outputs: Path) -> None:
    sweep(outputs, *GRID)
    before = samples(outputs)
    sweep(outputs, *GRID, "num_samples=5")
    after = samples(outputs)
    assert before.keys() == after.keys()
    assert all(after[name].startswith(text) and len(after[name]) > len(text) for name, text in before.items())


def test_an_extension_that_is_cut_off_takes_nothing_away(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first samples stay done, with the cost that they had; in the end the cost is that of one that was not cut."""
    words = ("sampler=cfg", "scale=2", "steps=4", "batch_tokens=64")
    assert sweep(outputs, *words) == 0
    (run,) = outputs.glob("points/**/run.json")
    (cost,) = [json.loads(p.read_text()) for p in outputs.glob("points/**/metrics.json")]
    before, rows = json.loads(run.read_text()), samples(outputs)
    append, calls = Claim.append, []

    def then_fail(claim: Claim, rows: list) -> None:
        append(claim, rows)
        calls.append(rows)
        if len(calls) == 5:
            raise RuntimeError("cut off")

    monkeypatch.setattr(Claim, "append", then_fail)
    assert sweep(outputs, *words, "num_samples=6") == 1
    monkeypatch.undo()
    point = Point(run.parent)
    assert (point.status(24), point.status()) == ("done", "partial")
    (point.folder / "metrics.json").unlink()
    assert sweep(outputs, *words) == 0  # the first samples are asked for again: nothing is sampled
    assert point.status() == "partial"
    assert json.loads((point.folder / "metrics.json").read_text()) == cost
    assert sweep(outputs, *words, "num_samples=6") == 0
    after = json.loads(run.read_text())
    clean = copy_of(outputs, outputs.parent / "clean")
    assert sweep(clean, *words, "num_samples=6") == 0
    whole = json.loads(next(clean.glob("points/**/run.json")).read_text())
    for name in ("nfe_calls", "nfe_rows", "tokens", "rows"):
        assert after[name] == whole[name]
    assert after["by_samples"]["2"]["nfe_rows"] == before["nfe_rows"] == whole["by_samples"]["2"]["nfe_rows"]
    assert next(iter(samples(outputs).values())).startswith(next(iter(rows.values())))


def test_every_cut_is_mended_to_the_same_bytes(outputs: Path) -> None:
    words = ["sample", f"outputs={outputs}", "sampler=clamp", "temperature=0.7", "steps=3", "batch_tokens=64"]
    words += ["num_sources=12", "num_samples=2", "--json"]
    main(words)
    (file,) = outputs.glob("points/**/samples.jsonl")
    whole = file.read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 7)):
        file.write_bytes(whole[:cut])
        record = file.parent / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "partial"}))
        assert main(words) == 0
        assert file.read_bytes() == whole


def test_a_killed_sweep_goes_on_to_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    words = ("sampler=clamp_before_cfg", "scale=2", "temperature=0.5,1", "steps=6", "batch_tokens=64", "num_samples=4")
    whole, cut = copy_of(trained, tmp_path / "whole"), copy_of(trained, tmp_path / "cut")
    subprocess.run(command(whole, *words), check=True, capture_output=True)
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command(cut, *words), stdout=log, stderr=log)
    until = time.monotonic() + 60
    while not any(cut.glob("points/**/samples.jsonl")) and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert samples(cut) != samples(whole), "the kill came too late to mean anything"
    subprocess.run(command(cut, *words), check=True, capture_output=True)
    assert samples(cut) == samples(whole)


def test_joblib_makes_the_same_samples(trained: Path, tmp_path: Path) -> None:
    one, two = copy_of(trained, tmp_path / "one"), copy_of(trained, tmp_path / "two")
    words = ("sampler=cfg", "scale=1,1.5,2", "steps=3")
    subprocess.run(command(one, *words), check=True, capture_output=True)
    parallel = subprocess.run(
        command(two, *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert parallel.returncode == 0, parallel.stderr
    assert samples(one) == samples(two)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_a_failed_point_does_not_stop_the_others(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`steps` beyond the model's timesteps is only known once the model is loaded."""
    assert sweep(outputs, "sampler=cfg", "scale=2", "steps=300,4") == 1
    told = capfd.readouterr().err
    assert "steps=300" in told
    assert "diffq sample" in told
    assert len(samples(outputs)) == 1


def test_batches_of_another_size_give_the_same_tokens(trained: Path, tmp_path: Path) -> None:
    """Promise (c): logits may differ in their last bits, so all but a few rows are equal; the rate is printed."""
    found = []
    for name, budget in (("small", 48), ("large", 4096)):
        outputs = copy_of(trained, tmp_path / name)
        sweep(outputs, "sampler=cfg", "scale=2", "steps=5", f"batch_tokens={budget}", "num_sources=60")
        (text,) = samples(outputs).values()
        found.append({(r["source"], r["sample"]): r["ids"] for r in map(json.loads, text.splitlines())})
    equal = sum(found[0][k] == found[1][k] for k in found[0])
    print(f"{equal} of {len(found[0])} rows are equal")
    assert found[0].keys() == found[1].keys()
    assert equal >= 0.995 * len(found[0])


def test_own_sources_and_known_words(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", f"outputs={outputs}", "sampler=cfg", "scale=2", "steps=3", "num_samples=2", "--json"]
    assert main([*words, "--source", "how can i find my radio", "--template", "how _ i _ my radio"]) == 0
    told = json.loads(capsys.readouterr().out)
    for row in told["samples"]:
        first, _, third, _, *rest = row["text"].split()
        assert [first, third, *rest] == ["how", "i", "my", "radio"]
    assert not (outputs / "points").exists()


def test_watching_changes_nothing(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for name, flags in (("plain", []), ("watched", ["--watch"])):
        outputs = copy_of(trained, tmp_path / name)
        assert main(["sample", f"outputs={outputs}", "sampler=clamp", "steps=3", "num_sources=6", *flags]) == 0
        found.append(samples(outputs))
    assert "step 3/3" in capsys.readouterr().err
    assert found[0] == found[1]


def test_the_twin_is_sampled_from_its_own_model(outputs: Path) -> None:
    assert sweep(outputs, "sampler=autoregressive", "temperature=0,1") == 0
    records = [json.loads(p.read_text()) for p in outputs.glob("points/**/run.json")]
    assert {r["model"] for r in records} == {"causal_seq2seq_tiny"}
    assert {r["length"] for r in records} == {"free"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=qqp", "model=gaussian_tiny"], "diffq train model=gaussian_tiny dataset=qqp"),
        (["checkpoint=nowhere"], "nowhere"),
        (["device=cuda"], "there is no GPU"),
        (["--template", "a _"], "--source"),
    ],
)
def test_refusals(outputs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "device=cuda" in words and __import__("torch").cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["sample", f"outputs={outputs}", *words]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_given_setting_is_not_passed_over(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training of other sizes is not taken in silence, and what nobody said is taken from the training."""
    words = ["model=gaussian_tiny", "dataset=qqp", "model.width=32", "dataset.path=elsewhere"]
    (folder,) = outputs.glob("train/grammar-gaussian_tiny-*")
    shutil.copytree(folder, outputs / "train" / "qqp-gaussian_tiny-1")
    run = outputs / "train" / "qqp-gaussian_tiny-1" / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"dataset": "qqp"}))
    assert main(["sample", f"outputs={outputs}", *words]) == 2
    told = capsys.readouterr().err
    assert "no finished training of gaussian_tiny on qqp with dataset.path=elsewhere model.width=32; run:" in told
    assert "diffq train model=gaussian_tiny dataset=qqp dataset.path=elsewhere model.width=32" in told


def test_a_checkpoint_that_changed_after_the_plan_fails_its_points(outputs: Path, monkeypatch, capfd) -> None:
    """Where workers load it again; this process has it in memory since it was planned with."""
    from diffq.runs import sweep as verb

    write = verb.write_configs

    def then_change(*arguments) -> None:
        write(*arguments)
        (folder,) = outputs.glob("train/grammar-gaussian_tiny-*")
        tensors = load_file(folder / "model.safetensors")
        save_file({name: value * 1.01 for name, value in tensors.items()}, folder / "model.safetensors")

    monkeypatch.setattr(verb, "write_configs", then_change)
    assert sweep(outputs, *GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1") == 1
    assert capfd.readouterr().err.count("have changed since this point was planned") == 2
    assert not samples(outputs)


def test_an_empty_source_is_refused(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", f"outputs={outputs}", "--source", " "]) == 2
    assert "empty" in capsys.readouterr().err
    assert main(["sample", f"outputs={outputs}", "--source", "radio " * 100]) == 2
    assert "tokens" in capsys.readouterr().err


def test_another_process_is_waited_for(trained: Path, tmp_path: Path) -> None:
    """Two sweeps on one folder at once: each point is sampled once, and both report all of them."""
    outputs = copy_of(trained, tmp_path / "outputs")
    words = ("sampler=clamp", "temperature=0.3,0.6", "steps=8", "num_samples=3")
    both = [subprocess.Popen(command(outputs, *words), stderr=subprocess.PIPE, env=dict(os.environ)) for _ in range(2)]
    told = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(samples(outputs)) == 2
    for text in samples(outputs).values():
        assert [json.loads(line)["row"] for line in text.splitlines()] == list(range(36))


def test_a_published_checkpoint_is_sampled_by_its_own_name_and_sizes(tmp_path: Path) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    from test_guidediffuseq import published

    (tmp_path / "release").mkdir()
    published(tmp_path / "release")
    rows = [{"source": "wa wb wc", "target": "wb wc"}, {"source": "wd we", "target": "wf wg wh"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        f"checkpoint={tmp_path / 'release'}",
        "dataset=pairs",
        f"dataset.path={tmp_path}",
        f"outputs={tmp_path / 'o'}",
    ]
    assert main(["sample", *words, "sampler=dpmpp_published", "scale=2", "steps=4", "--json"]) == 0
    (record,) = (json.loads(p.read_text()) for p in (tmp_path / "o").glob("points/**/run.json"))
    assert record["model"] == "release"
    assert record["status"] == "done"
