"""Forms through the command line: one's own questions, and checkpoints that cannot read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffq.cli import main

SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.conditioning=8"]
STEPS = ["trainer.max_minutes=null", "trainer.max_steps=3", "trainer.validation_sources=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of outputs with a training of sudoku, and that training."""
    outputs = tmp_path_factory.mktemp("forms")
    assert main(["train", "dataset=sudoku", "model=mdlm_tiny", *SIZES, *STEPS, f"outputs={outputs}"]) == 0
    (checkpoint,) = outputs.glob("train/*")
    return outputs, checkpoint


def test_a_training_that_comes_first_says_how_long_it_takes(tmp_path, capsys):
    words = ["dataset=sudoku", "sampler=random", "num_sources=2", f"outputs={tmp_path}", "--json"]
    assert main(["sample", *words, "model=dream_tiny", "model.width=16", "trainer.max_minutes=0.01"]) == 0
    assert "no trained dream_tiny of sudoku yet: training one first, for 0.01 minutes\n" in capsys.readouterr().err


def test_a_puzzle_of_ones_own_keeps_its_givens(trained, capsys):
    capsys.readouterr()
    said = ["sample", f"outputs={trained[0]}", "dataset=sudoku", "sampler=random", "num_samples=4", "--json"]
    assert main([*said, "--source", "3000 1000 0030 0300"]) == 0
    rows = json.loads(capsys.readouterr().out)["samples"]
    assert len(rows) == 4
    for row in rows:
        assert row["text"].startswith("3")
        assert "\n1" in row["text"]


def test_a_score_of_any_k_is_repeated_by_its_name(trained, capsys):
    said = [f"outputs={trained[0]}", "dataset=sudoku", "sampler=random"]
    assert main(["sample", *said, "num_samples=4", "num_sources=2", "--json"]) == 0
    (point,) = trained[0].glob("points/sudoku/*/random/*")
    assert main(["score", str(point), said[0], "metric=pass_at_3", "--json"]) == 0
    capsys.readouterr()
    assert main(["rerun", str(point), said[0]]) == 0
    assert "1 metrics: the same values" in capsys.readouterr().out


def test_a_checkpoint_is_called_what_it_was_trained_as(trained, capsys):
    outputs, checkpoint = trained
    said = [f"outputs={outputs}", "dataset=sudoku", "sampler=margin", "num_samples=1", "num_sources=2"]
    for model in ("mdlm_mini", "mdlm_tiny"):
        assert main(["sample", *said, f"checkpoint={checkpoint}", f"model={model}"]) == 0
    assert [p.parent.name for p in outputs.glob("points/sudoku/*/margin")] == ["mdlm_tiny"]


def test_a_training_is_chosen_by_its_settings(trained, capsys):
    """Not the newest one, where what is given contradicts it; a budget contradicts none."""
    outputs = trained[0]
    words = ["dataset=sudoku", "model=mdlm_tiny", *SIZES, *STEPS, f"outputs={outputs}"]
    asked = [*words, "sampler=random", "num_samples=1", "num_sources=2", "trainer.max_minutes=9", "--json"]
    for rate in ("0.01", "0.02"):
        assert main(["train", *words, f"trainer.learning_rate={rate}"]) == 0
    found = []
    for seed, more in enumerate((["trainer.learning_rate=0.01"], ["trainer.learning_rate=0.02"], ["trainer.keep=3"])):
        capsys.readouterr()
        assert main(["sample", *asked, *more, f"seed={seed}"]) == 0
        out = capsys.readouterr()
        assert "training one first" not in out.err
        run = json.loads((Path(json.loads(out.out)["folder"]) / "run.json").read_text())
        found.append(run["checkpoint"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep", "dataset=countdown", "num_sources=2"], "does not know ' ', ','"),
        (["sweep", "--plan", "dataset=countdown", "num_sources=2"], "does not know ' ', ','"),
        (["sample", "dataset=countdown", "--source", "15,44,79,50"], "does not know ','"),
        (["sweep", "dataset=grammar", "num_sources=2"], "was trained on dataset=sudoku, knows no characters but those"),
        (["sweep", "--plan", "dataset=grammar", "num_sources=2"], "was trained on dataset=sudoku, knows"),
        (
            ["sample", "dataset=sudoku", "model=eags_tiny"],
            "and model=eags_tiny is of another family",
        ),
        (["sample", "dataset=sudoku", "--source", "hello"], "'hello' is no 4x4 grid"),
        (["sample", "dataset=sudoku", "--source", "0" * 16, "--template", "1 _"], "a form has its givens in --source"),
    ],
)
def test_what_a_checkpoint_cannot_be_asked_is_one_sentence(trained, capsys, words, told):
    outputs, checkpoint = trained
    capsys.readouterr()
    assert main([*words, "sampler=random", f"checkpoint={checkpoint}", f"outputs={outputs}"]) == 2
    assert told in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert not list(outputs.glob("points/countdown/**"))
