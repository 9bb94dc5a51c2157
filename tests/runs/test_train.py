"""`diffq train` on the embedded world: what it leaves, how it is named, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from diffq.cli.main import main
from diffq.config import Config, Request, compose
from diffq.errors import UserError
from diffq.models import checkpoints
from diffq.runs import train as verb
from diffq.runs.training.journal import claimed

SMALL = (
    "dataset=grammar", "dataset.size=400", "model=gaussian_tiny", "model.width=16", "model.embedding=8",
    "model.heads=2", "trainer.batch_size=16", "trainer.validation_sources=8", "trainer.log_steps=1",
    "trainer.max_minutes=null", "trainer.warmup_steps=2", "device=cpu",
)  # fmt: skip


def small(outputs: Path, *more: str) -> Config:
    return compose([*SMALL, f"outputs={outputs}", "trainer.max_steps=4", *more], verb="train")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return verb.train(small(tmp_path_factory.mktemp("outputs")), progress=False)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_what_a_training_leaves(trained):
    assert trained.parent.name == "train"
    assert trained.name.startswith("grammar-gaussian_tiny-")
    names = {p.name for p in trained.iterdir()}
    assert names == {
        "config.yaml", "lengths.yaml", "lock", "model.safetensors", "run.json", "state", "tokenizer", "train.jsonl",
    }  # fmt: skip
    run = json.loads((trained / "run.json").read_text())
    assert (run["status"], run["step"], run["dataset"], run["model"]) == ("done", 4, "grammar", "gaussian_tiny")
    assert run["finished"] >= run["started"]
    assert [r["step"] for r in rows(trained) if "loss" in r] == [1, 2, 3, 4]
    (validation,) = [r for r in rows(trained) if "validation_loss" in r]
    assert len(validation["previews"]) == 3
    assert all(" → " in line for line in validation["previews"])
    assert not [p for p in trained.parent.parent.rglob("*") if p.suffix in (".pt", ".pkl", ".bin", ".pth")]


def test_a_finished_training_can_be_called_something_else(tmp_path, capsys):
    folder = verb.train(small(tmp_path, "trainer.max_steps=1", "trainer.label=plain"), progress=False)
    weights = (folder / "model.safetensors").read_bytes()
    assert verb.train(small(tmp_path, "trainer.max_steps=1"), progress=False) == folder
    assert checkpoints.load(folder).config["trainer"]["label"] == "plain", "no name takes none away"
    assert verb.train(small(tmp_path, "trainer.max_steps=1", "trainer.label=first"), progress=False) == folder
    assert checkpoints.load(folder).config["trainer"]["label"] == "first"
    assert (folder / "model.safetensors").read_bytes() == weights
    words = [f"outputs={tmp_path}", "num_sources=2", "num_samples=1", "steps=2"]
    for more in ([], ["dataset=grammar_hard"]):
        assert main(["sample", "dataset=grammar", "dataset.size=400", f"checkpoint={folder}", *words, *more]) == 0
    told = [json.loads(p.read_text())["training"] for p in sorted(tmp_path.glob("points/*/**/run.json"))]
    assert told == ["first", "grammar first"]


def test_a_training_loads_as_a_checkpoint(trained):
    loaded = checkpoints.load(trained)
    assert loaded.model.settings.width == 16
    assert loaded.config["choices"]["model"] == "gaussian_tiny"
    assert set(loaded.lengths) == {"mean", "sigma"}
    assert not all(bool((p == 0).all()) for p in loaded.model.parameters())


def test_a_finished_training_is_not_touched(trained, capsys):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    assert verb.train(small(trained.parent.parent)) == trained
    assert "trained already" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def test_a_finished_training_notices_files_that_changed_under_their_name(tmp_path, capsys):
    file = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"source": f"who is {n}", "target": f"what about {n % 7}"}) for n in range(60)]
    file.write_text("\n".join(lines))
    asked = [word for word in SMALL if "grammar" not in word and "size" not in word]
    asked += ["dataset=pairs", f"dataset.path={file}", "dataset.tokenizer=words", "trainer.max_steps=2"]
    config = compose([*asked, f"outputs={tmp_path}"], verb="train")
    folder = verb.train(config, progress=False)
    weights = (folder / "model.safetensors").read_bytes()
    os.utime(file, (1, 1))  # as a copy may have it: read once more, and found to be the same
    for said in ("", "trained already"):
        capsys.readouterr()
        assert verb.train(config) == folder
        assert said in capsys.readouterr().err
        assert (folder / "model.safetensors").read_bytes() == weights
        assert json.loads((folder / "run.json").read_text())["step"] == 2
    file.write_text("\n".join(lines).replace("what", "whom"))
    with pytest.raises(UserError, match=r"was begun on other data"):
        verb.train(config, progress=False)


def test_a_larger_budget_goes_on_where_the_rate_is_constant(tmp_path):
    constant = "trainer.schedule=constant"
    first = verb.train(small(tmp_path, constant), progress=False)
    second = verb.train(small(tmp_path, constant, "trainer.max_steps=6"), progress=False)
    assert first == second
    at_once = verb.train(small(tmp_path / "at_once", constant, "trainer.max_steps=6"), progress=False)
    assert [r["loss"] for r in rows(second) if "loss" in r] == [r["loss"] for r in rows(at_once) if "loss" in r]
    assert len(rows(second)) == 8  # with two validations


def test_the_name_follows_what_determines_the_weights(tmp_path):
    base = verb.training_folder(small(tmp_path))
    for change in ("trainer.log_steps=7", "trainer.keep=5", "trainer.micro_batch=4", "device=auto", "num_samples=9"):
        assert verb.training_folder(small(tmp_path, change)) == base, change
    others = ("seed=1", "model.width=32", "trainer.learning_rate=0.1", "dataset.max_target=20", "trainer.max_steps=9",
              "trainer.precision=bf16", "trainer.window=2")  # fmt: skip
    assert len({verb.training_folder(small(tmp_path, change)) for change in others} | {base}) == len(others) + 1
    constant = [
        verb.training_folder(small(tmp_path, "trainer.schedule=constant", f"trainer.max_steps={n}")) for n in (4, 9)
    ]
    assert constant[0] == constant[1] != base


@pytest.mark.parametrize(
    "words", [("dataset=rocstories", "model=eags_tiny"), ("dataset=paradetox", "model=eags_tiny"),
              ("dataset=gsm8k", "model=mdlm_tiny")],
)  # fmt: skip
def test_another_file_is_another_training(words):
    named = [[], ["dataset.path=a.jsonl"], ["dataset.path=b.jsonl"]]
    assert len({verb.training_folder(compose([*words, *more], verb="train")) for more in named}) == 3


def test_initial_weights_follow_the_seed_alone(tmp_path):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(99 + len(found))
        folder = verb.train(small(tmp_path / name, f"seed={seed}", "trainer.max_steps=1"), progress=False)
        found.append(checkpoints.read_tensors(folder / "model.safetensors")["net.embed.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_verb_prints_where_it_trained(tmp_path, capsys):
    request = Request(verb="train", overrides=(*SMALL, "trainer.max_steps=2", f"outputs={tmp_path}"), json=True)
    assert verb.run(request) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["step"] == 2
    assert Path(printed["folder"]).is_dir()


def test_a_loss_that_is_no_number_ends_with_status_one(tmp_path, capsys):
    overrides = (*SMALL, "trainer.max_steps=40", "trainer.learning_rate=1e30", f"outputs={tmp_path}")
    assert verb.run(Request(verb="train", overrides=overrides)) == 1
    printed = capsys.readouterr().err
    assert "the loss became nan at step" in printed
    assert "trainer.clip=1" in printed


def test_a_folder_in_use_is_refused(tmp_path):
    import subprocess
    import sys

    config = small(tmp_path)
    folder = verb.training_folder(config)
    program = (
        "import sys, pathlib\nfrom diffq.runs.training.journal import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is being trained by another process"), claimed(folder):
            pass
        holder.communicate("")
    with claimed(folder):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.precision=fp16", r"fp16 needs a GPU; on a CPU use fp32 or bf16"),
        ("device=cuda:1", r"set CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        verb.train(small(tmp_path, change), progress=False)
    assert not list(tmp_path.iterdir())


def test_other_data_under_a_begun_training_is_refused(tmp_path):
    folder = verb.train(small(tmp_path, "trainer.schedule=constant"), progress=False)
    run = json.loads((folder / "run.json").read_text())
    for changed in ({"pairs": 3}, {"pairs_digest": "0" * 64}):
        (folder / "run.json").write_text(json.dumps(run | changed))
        with pytest.raises(UserError, match=r"was begun on other data \(\d+ pairs, there are \d+ now"):
            verb.train(small(tmp_path, "trainer.schedule=constant", "trainer.max_steps=6"), progress=False)


def test_other_forms_under_a_begun_training_are_refused(tmp_path):
    sizes = ("model.width=16", "model.heads=2", "model.layers=1", "model.conditioning=8", "trainer.batch_size=8")
    more = ("trainer.max_minutes=null", "trainer.schedule=constant", "trainer.validation_sources=4", "device=cpu")
    words = ["dataset=sudoku", "model=mdlm_tiny", "trainer=forms", *sizes, *more, f"outputs={tmp_path}"]
    folder = verb.train(compose([*words, "trainer.max_steps=1"], verb="train"), progress=False)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"forms_digest": "0" * 64}))
    with pytest.raises(UserError, match=r"was begun on other data \(288 forms, there are 288 now"):
        verb.train(compose([*words, "trainer.max_steps=2"], verb="train"), progress=False)


def test_previews_that_cannot_be_made_stop_nothing(tmp_path):
    """The default sampler takes 30 steps, and this model has 20."""
    folder = verb.train(small(tmp_path, "model.timesteps=20", "trainer.previews=1"), progress=False)
    assert any("no previews: " in line for row in rows(folder) for line in row.get("previews", []))
    assert (folder / "model.safetensors").exists()
