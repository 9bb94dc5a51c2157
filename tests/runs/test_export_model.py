"""`diffq export --layout` writes a training's model as others have published theirs, and nothing where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reference.text_models import lively
from safetensors.torch import load_file

from diffq.cli import main
from diffq.cli.complete import complete
from diffq.cli.parsers import LAYOUTS
from diffq.models.checkpoints import WEIGHTS, load, tensors_of, write_tensors
from diffq.models.published import written

SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.max_length=16"]
TRAINER = ["max_steps=1", "trainer.batch_size=4", "trainer.validation_sources=0", "trainer.previews=0"]
MODELS = {
    "sedd": ["model=sedd_tiny", "model.noise=geometric", "model.noise_high=9.0"],
    "sedd_uniform": ["model=sedd_uniform_tiny"],
    "sedd_eps": ["model=sedd_tiny", "model.noise_eps=0.01"],
    "sedd_cosine": ["model=sedd_tiny", "model.noise=cosine"],
    "mdlm": ["model=mdlm_tiny", "model.tied=true", "model.time_conditioning=true"],
    "mdlm_geometric": ["model=mdlm_tiny", "model.noise=geometric"],
    "causal": ["model=causal_lm_tiny"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    text = tmp_path_factory.mktemp("text") / "all.txt"
    text.write_text("\n".join("the sea, the sun and the moon" for _ in range(60)))
    return ["dataset=textfiles", "dataset.tokenizer=characters", "dataset.block=12", f"dataset.path={text}"]


@pytest.fixture(scope="module")
def trained(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A training of one step of each model, with weights of ours in which everything matters."""
    found = {}
    for name, words in MODELS.items():
        outputs = tmp_path_factory.mktemp(name)
        assert main(["train", *words, *data, *SIZES, *TRAINER, f"outputs={outputs}"]) == 0
        (found[name],) = (outputs / "train").iterdir()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            write_tensors(found[name] / WEIGHTS, tensors_of(lively(load(found[name]).model)))
    return found


@pytest.mark.parametrize(("name", "layout"), [("sedd", "sedd"), ("sedd_uniform", "sedd"), ("mdlm", "mdlm")])
def test_what_is_exported_is_the_same_model(trained, data, tmp_path, capsys, name, layout):
    to = tmp_path / "published"
    assert main(["export", str(trained[name]), "--layout", layout, "--to", str(to)]) == 0
    one, two = load(trained[name]), load(to)
    count = sum(p.numel() for p in one.model.parameters())
    assert capsys.readouterr().out == f"{to}: {count:,} parameters in the layout of {layout.upper()}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"published"}
    assert {p.name for p in to.iterdir()} == {"config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"}
    assert all(n.startswith("backbone.") for n in load_file(to / WEIGHTS)) == (layout == "mdlm")
    assert two.tokenizer.digest == one.tokenizer.digest
    assert two.model.settings.replace(tied=False) == one.model.settings.replace(tied=False)
    tokens_BL = torch.arange(24).view(2, 12) % one.model.words
    share = torch.tensor([0.2, 0.9], dtype=torch.float64)
    with torch.no_grad():
        logits = [m.log_weights(m.net(tokens_BL, m.sigma(share)).flatten(0, 1)) for m in (one.model, two.model)]
    assert torch.equal(*logits)
    assert logits[0].std() > 0.1
    texts = []
    for checkpoint in (trained[name], to):
        outputs = tmp_path / f"outputs{len(texts)}"
        said = [*data, f"model={name}_tiny", f"checkpoint={checkpoint}", "sampler=analytic", "steps=4", "num_samples=3"]
        assert main(["sample", *said, f"outputs={outputs}"]) == 0
        (samples,) = outputs.glob("points/**/samples.jsonl")
        texts.append([json.loads(line)["ids"] for line in samples.read_text().splitlines()])
    assert texts[0] == texts[1]


def test_a_training_is_found_under_outputs_and_a_published_folder_is_written_again(trained, tmp_path, capsys):
    folder = trained["sedd"]
    outputs = f"outputs={folder.parent.parent}"
    to, empty = tmp_path / "a", tmp_path / "b"
    empty.mkdir()
    assert main(["export", f"checkpoint={folder.name}", "--layout=sedd", f"--to={to}", outputs]) == 0
    capsys.readouterr()
    assert main(["export", str(to), "--layout", "sedd", "--to", str(empty), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "sedd"
    assert load(to).digest == load(empty).digest


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("sedd", ["--layout", "mdlm"], "a model of kind sedd cannot be written in the layout mdlm; its own is sedd"),
        (
            "causal",
            ["--layout", "sedd"],
            "kind causal_lm has no published layout; there are those of sedd, mdlm",
        ),
        ("sedd_cosine", ["--layout", "sedd"], "has no place for model.noise=cosine; it has those of log_linear, geo"),
        ("sedd_eps", ["--layout", "sedd"], "cannot say model.noise_eps=0.01: whoever reads it takes model.noise_eps=0"),
        ("mdlm_geometric", ["--layout", "mdlm"], "cannot say model.noise=geometric: whoever reads it takes model.noi"),
        ("sedd", ["--layout", "sed"], "there is no layout 'sed' (did you mean 'sedd'?)"),
        ("sedd", [], "--to writes a model and needs its layout: --layout sedd or mdlm or llada or dream"),
        ("sedd", ["--layout", "sedd", "--samples"], "--samples is for tables"),
        ("sedd", ["--layout", "sedd", "--where", "bleu > 1"], "--where is for tables"),
        ("sedd", ["--layout", "sedd", "scale=2"], "writes one model; leave out scale=2"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(trained, tmp_path, capsys, name, words, told):
    assert main(["export", str(trained[name]), *words, "--to", str(tmp_path / "new")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("diffq: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_there_stay_as_they_are(trained, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for to, told in (
        ("mine", "mine is there already; name a folder that is not"),
        ("mine/notes.txt", "notes.txt is there already"),
        ("nowhere/new", "there is no folder"),
    ):
        assert main(["export", str(trained["sedd"]), "--layout", "sedd", "--to", str(tmp_path / to)]) == 2
        assert told in capsys.readouterr().err
    assert main(["export", str(trained["sedd"]), "--layout", "sedd"]) == 2
    assert "needs the folder to write: --to FOLDER" in capsys.readouterr().err
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_the_shell_knows_the_layouts():
    assert tuple(written()) == LAYOUTS
    assert complete(["export", "x", "--layout", "s"]) == ["sedd"]
    assert "--layout" in complete(["export", "x", "--la"])
