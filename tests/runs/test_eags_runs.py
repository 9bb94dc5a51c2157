"""Pairs on one canvas from the command line: train, resume, start from weights, mask by entropy, sample, plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from reference.flops import flops_of

from diffq.cli.main import main
from diffq.config import compose
from diffq.errors import UserError
from diffq.models.checkpoints import load, read_tensors, write_tensors
from diffq.models.starts import with_start
from diffq.runs.train import training_folder
from diffq.store import Point

SIZES = {
    "eags_tiny": ["model.width=16", "model.heads=2", "model.layers=1"],
    "mdlm_tiny": ["model.width=16", "model.heads=2", "model.layers=1", "model.conditioning=8"],
    "sedd_tiny": ["model.width=16", "model.heads=2", "model.layers=1", "model.conditioning=8"],
    "llada_tiny": ["model.width=16", "model.heads=2", "model.layers=1", "model.mlp_width=24"],
}
DATA = ["dataset=grammar", "dataset.size=300", "dataset.room=10"]
TRAINER = ["trainer.max_minutes=null", "trainer.batch_size=8", "trainer.schedule=constant",
           "trainer.validation_sources=4", "trainer.previews=1", "trainer.log_steps=1"]  # fmt: skip
FEW = ["num_sources=4", "num_samples=2", "steps=5"]


def train(outputs: Path, model: str, steps: int, *words: str) -> list[str]:
    said = [
        *DATA,
        f"model={model}",
        *SIZES[model],
        *TRAINER,
        f"trainer.max_steps={steps}",
        f"outputs={outputs}",
        *words,
    ]
    assert main(["train", *said, "--json"]) == 0
    return said


def folder_of(said: list[str]) -> Path:
    return training_folder(compose([w for w in said if not w.startswith("--")], verb="train"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three steps of every kind of masked model of running text."""
    place = tmp_path_factory.mktemp("laid_out")
    for model in SIZES:
        train(place, model, 3)
    return place


def samples_of(outputs: Path) -> dict[str, list[dict]]:
    return {
        str(file.parent.relative_to(outputs)): [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(outputs.glob("points/**/samples.jsonl"))
    }


def sampled(outputs: Path, store: Path, model: str, *words: str) -> list[dict]:
    checkpoint = next(outputs.glob(f"train/grammar-{model}-*"))
    assert main(["sample", f"outputs={store}", f"checkpoint={checkpoint}", *DATA, *FEW, *words, "--json"]) == 0
    return next(iter(samples_of(store).values()))


@pytest.mark.parametrize("model", SIZES)
def test_every_masked_model_serves_pairs_from_training_to_scores(outputs, tmp_path, model, capsys):
    rows = sampled(outputs, tmp_path, model)
    assert len(rows) == 8
    tokenizer = load(next(outputs.glob(f"train/grammar-{model}-*"))).tokenizer
    for row in rows:
        assert row["ended"] == (len(row["ids"]) < 10)
        assert tokenizer.end not in row["ids"]
        assert row["text"] == tokenizer.decode(row["ids"])
        assert row["prompt_ids"][0] == tokenizer.start
        assert row["prompt_ids"][-1] == tokenizer.end
    (point,) = tmp_path.glob("points/**/samples.jsonl")
    assert "room_10" in json.dumps(Point(point.parent).run())
    capsys.readouterr()
    assert main(["score", str(point.parent), "--json"]) == 0
    assert (point.parent / "metrics.json").is_file()


def test_a_row_does_not_depend_on_its_neighbours(outputs, tmp_path):
    one = sampled(outputs, tmp_path / "a", "eags_tiny", "dtype=float64")
    other = sampled(outputs, tmp_path / "b", "eags_tiny", "dtype=float64", "batch_tokens=1")
    key = ("source", "sample")
    texts = [{tuple(r[k] for k in key): r["ids"] for r in rows} for rows in (one, other)]
    assert texts[0] == texts[1]


def test_more_samples_append_and_guidance_masks_the_condition(outputs, tmp_path):
    """With larger weights than three steps give, so that a condition matters."""
    began = next(outputs.glob("train/grammar-eags_tiny-*"))
    folder = tmp_path / "louder" / "train" / began.name
    shutil.copytree(began, folder)
    tensors = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {name: value * 8 for name, value in tensors.items()})
    few = sampled(tmp_path / "louder", tmp_path / "guided", "eags_tiny", "scale=3")
    more = sampled(tmp_path / "louder", tmp_path / "guided", "eags_tiny", "scale=3", "num_samples=3")
    assert more[: len(few)] == few
    assert len(more) == 12
    assert len(samples_of(tmp_path / "guided")) == 1
    plain = sampled(tmp_path / "louder", tmp_path / "plain", "eags_tiny")
    assert [r["ids"] for r in plain] != [r["ids"] for r in few]


@pytest.mark.parametrize("model", ["eags_tiny", "mdlm_tiny"])
def test_a_plan_counts_what_sampling_counts(outputs, tmp_path, model, capsys):
    checkpoint = next(outputs.glob(f"train/grammar-{model}-*"))
    words = [f"outputs={tmp_path}", f"checkpoint={checkpoint}", *DATA, *FEW]
    assert main(["sweep", *words, "--plan", "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["points"]
    counted = flops_of(lambda: main(["sample", *words, "--json"]))
    run = json.loads((tmp_path / planned["folder"] / "run.json").read_text())
    whole = planned["whole"]
    for name in ("nfe_calls", "nfe_rows", "positions_projected"):
        assert whole[name] == run[name]
    # The transform of a head (two matrices of the width) is not counted.
    assert whole["network_flops"] + whole["projection_flops"] == pytest.approx(counted, rel=0.05)


def test_sources_of_ones_own_and_templates(outputs, tmp_path, capsys):
    checkpoint = next(outputs.glob("train/grammar-eags_tiny-*"))
    words = [f"outputs={tmp_path}", f"checkpoint={checkpoint}", *DATA, "steps=4", "num_samples=1", "--json"]
    assert main(["sample", *words, "--source", "how do i cook rice", "--template", "how _ _ cook"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["samples"]
    told = row["text"].split()
    assert told[0] == "how"
    assert len(told) <= 4
    if len(told) == 4:
        assert told[3] == "cook"
    assert main(["sample", *words, "--source", "how do i cook rice", "--source", "where is my cat"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 2


ENS = {
    "uniform": [],
    "frozen_full": ["trainer.noise=ens", "trainer.bins=3"],
    "frozen_once": ["trainer.noise=ens", "trainer.entropy_from=frozen_once", "trainer.fill=apart", "trainer.bins=3"],
    "self_partial": ["trainer.noise=ens", "trainer.entropy_from=self_partial", "model.loss_on=newest"],
}


@pytest.mark.parametrize("how", ENS)
def test_a_training_from_a_start_is_resumed_exactly(outputs, tmp_path, how):
    start = next(outputs.glob("train/grammar-eags_tiny-*"))
    words = [f"model.start={start}", "model.dropout=0.1", *ENS[how]]
    whole = folder_of(train(tmp_path / "whole", "eags_tiny", 6, *words))
    train(tmp_path / "cut", "eags_tiny", 3, *words)
    cut = folder_of(train(tmp_path / "cut", "eags_tiny", 6, *words))
    one, other, began = (read_tensors(f / "model.safetensors") for f in (whole, cut, start))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], began[name]) for name in one)
    kept = json.loads((whole / "run.json").read_text())
    assert len(kept["start"]) == 64
    assert ("entropies" in kept) == how.startswith("frozen")


def test_a_start_brings_its_sizes_and_its_weights(outputs, tmp_path):
    start = next(outputs.glob("train/grammar-eags_tiny-*"))
    said = [*DATA, "model=eags_mini", *TRAINER, "trainer.max_steps=1", "trainer.learning_rate=1e-12"]
    said += [f"model.start={start}", f"outputs={tmp_path}", "trainer.weight_decay=0"]
    assert main(["train", *said, "--json"]) == 0
    (folder,) = tmp_path.glob("train/*")
    made, began = read_tensors(folder / "model.safetensors"), read_tensors(start / "model.safetensors")
    assert made.keys() == began.keys()
    assert all(torch.allclose(made[name], began[name], atol=1e-8) for name in made)
    wider = compose([*said, "model.width=64"], verb="train")
    with pytest.raises(UserError, match=r"model.width=64 contradicts model.start=.* which has 16; leave it out"):
        with_start(wider)


def test_frozen_entropies_are_asked_once(outputs, tmp_path, capsys, monkeypatch):
    start = next(outputs.glob("train/grammar-eags_tiny-*"))
    words = ["trainer.noise=ens", f"trainer.entropy_model={start}"]
    train(tmp_path, "eags_tiny", 1, *words)
    files = sorted(tmp_path.glob("cache/entropies/*/*/entropies.npy"))
    assert files
    monkeypatch.setattr("diffq.runs.training.entropies.FrozenEntropies.of", None)
    train(tmp_path, "eags_tiny", 1, *words, "trainer.learning_rate=0.01")
    assert sorted(tmp_path.glob("cache/entropies/*/*/entropies.npy")) == files


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["trainer.noise=ens", "trainer.entropy_from=frozen_full"],
            "asks a frozen model, and none is given; give model.start or",
        ),
        (["trainer.bins=3"], "trainer.bins=3 is for trainer.noise=ens"),
        (["trainer.fill=apart"], "trainer.fill=apart is for trainer.noise=ens"),
        (["model.loss_on=newest"], "model.loss_on=newest means the bin that trainer.noise=ens masked last"),
        (["trainer.noise=ens", "model=mdlm_tiny"], "trainer.noise=ens is for models of kind eags"),
        (
            ["trainer.noise=ens", "trainer.bins=12", "trainer.entropy_from=self_partial"],
            "dataset.room=10 cannot be masked",
        ),
        (["model=sedd_uniform_tiny"], "is for running text, and dataset 'grammar' is a source and a target"),
        (["model=eags_tiny", "length=normal"], "a target has dataset.room places and ends by itself"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_read(words, said):
    with pytest.raises(UserError, match=said):
        compose([*DATA, "model=eags_tiny", *words], verb="train")


def test_without_a_frozen_model_ens_asks_the_trained_one():
    words = [*DATA, "model=eags_tiny", "trainer.noise=ens"]
    assert compose(words, verb="train").trainer.entropy_from == "self_partial"
    assert compose([*words, "trainer.entropy_model=there"], verb="train").trainer.entropy_from == "frozen_full"
    assert compose([*words, "model.start=there"], verb="train").trainer.entropy_from == "frozen_full"


@pytest.mark.parametrize("dial", ["noise=ens", "bins=5", "entropy_from=self_partial"])
def test_settings_of_training_are_no_dials(dial):
    name = dial.partition("=")[0]
    with pytest.raises(UserError, match=f"'{name}' is a setting of training, and no dial of a sampler"):
        compose([*DATA, "model=eags_tiny", dial], verb="sample")


def test_what_does_not_fit_the_data_is_refused(outputs, tmp_path, capsys):
    def refused(*words: str) -> str:
        said = [*DATA, "model=eags_tiny", *TRAINER, "trainer.max_steps=1", f"outputs={tmp_path}", *words]
        assert main(["train", *said]) == 2
        return " ".join(capsys.readouterr().err.split())

    start = next(outputs.glob("train/grammar-eags_tiny-*"))
    other = ["dataset.tokenizer=wordpiece:300"]
    assert "that is not the training's" in refused(f"model.start={start}", *other)
    assert "that is not the training's" in refused("trainer.noise=ens", f"trainer.entropy_model={start}", *other)
    assert "raise dataset.max_source and dataset.room" in refused("dataset.room=1")
    assert "leaves 0 of the model's max_length=256" in refused("dataset.room=260")
    assert "model.start=" in refused(f"model.start={tmp_path}")
    sequence = next(iter(outputs.glob("train/grammar-llada_tiny-*")))
    assert "this one starts from kind eags" in refused(f"model.start={sequence}")
