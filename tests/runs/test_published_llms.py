"""LLaDA, Dream and masked models of Hugging Face from the command line, on small random checkpoints in the published
form: sampled by the name of their family, refused under another, spread, their cost foretold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffq.cli.main import main
from diffq.errors import UserError
from diffq.models.published import resolve

WORDS = ["dataset=textfiles", "dataset.documents=row", "dataset.block=12", "dataset.prefix=4", "num_sources=3",
         "sampler=first_hitting"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder with checkpoints llada, dream and roberta, and the words that name a small text."""
    from models.test_hf_masked import folder_of as masked_folder
    from models.test_llm_layouts import folder_of

    folder = tmp_path_factory.mktemp("published")
    for kind in ("llada", "dream"):
        (folder / kind).mkdir()
        folder_of(folder / kind, kind)
    masked_folder(folder / "roberta", "Roberta")
    lines = [" ".join(("on", "the", "w1", "w2", "a")[(i * 7 + j) % 5] for j in range(16)) for i in range(60)]
    (folder / "all.txt").write_text("\n".join(lines))
    return folder, [*WORDS, f"dataset.path={folder / 'all.txt'}"]


@pytest.mark.parametrize(
    ("model", "checkpoint"),
    [("llada_8b", "llada"), ("dream_7b", "dream"), ("hf_masked", "roberta"), ("llada_1_5", "llada")],
)
def test_a_published_folder_is_sampled_by_its_family(place, tmp_path, model, checkpoint, capsys):
    folder, words = place
    said = [f"model={model}", f"checkpoint={folder / checkpoint}", *words, f"outputs={tmp_path}", "num_samples=2"]
    assert main(["sweep", *said, "metric=running_text", "--plan"]) == 0
    assert main(["sample", *said, "scale=2"]) == 0
    rows = [json.loads(line) for line in next(tmp_path.glob("points/**/samples.jsonl")).read_text().splitlines()]
    assert len(rows) == 6
    assert all(len(row["ids"]) == 12 and len(row["prompt_ids"]) == 4 for row in rows)
    mask = 66 if checkpoint == "roberta" else 55
    assert not any(mask in row["ids"] for row in rows)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("model", "checkpoint", "message"),
    [
        ("dream_7b", "llada", "holds a llada model, and model=dream_7b is of the family dream"),
        ("llada_8b", "dream", "holds a dream model, and model=llada_8b is of the family llada"),
        ("hf_masked", "llada", "holds a llada model, and model=hf_masked is of the family hf_masked"),
        ("gpt2", "dream", "holds a dream model, and model=gpt2 is of the family hf_causal"),
    ],
)
def test_a_folder_of_another_family_is_refused(place, tmp_path, model, checkpoint, message, capsys):
    folder, words = place
    sampler = ["sampler=autoregressive"] if model == "gpt2" else []
    said = [f"model={model}", f"checkpoint={folder / checkpoint}", *words, *sampler, f"outputs={tmp_path}"]
    assert main(["sample", *said]) == 2
    assert message in capsys.readouterr().err


def test_spread_gives_the_same_samples_and_is_for_large_models_alone(place, tmp_path, capsys):
    folder, words = place
    texts = []
    for i, device in enumerate(("cpu", "spread")):
        said = ["model=llada_8b", f"checkpoint={folder / 'llada'}", *words, f"outputs={tmp_path / str(i)}"]
        assert main(["sample", *said, f"device={device}"]) == 0
        texts.append(next((tmp_path / str(i)).glob("points/**/samples.jsonl")).read_bytes())
    assert texts[0] == texts[1]
    said = ["model=hf_masked", f"checkpoint={folder / 'roberta'}", *words, f"outputs={tmp_path}", "device=spread"]
    assert main(["sample", *said]) == 2
    assert "can be spread over several" in capsys.readouterr().err
    assert main(["train", "model=llada_tiny", "device=spread", *words[:3], f"outputs={tmp_path}"]) == 2
    assert "device=spread is for sampling" in capsys.readouterr().err


def test_without_a_checkpoint_the_hub_is_named(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["sample", "model=llada_8b", *place[1], f"outputs={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "GSAI-ML/LLaDA-8B-Instruct is no folder here" in told
    assert "give checkpoint=FOLDER" in told


def test_without_the_weights_a_plan_still_shows_the_points(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [word for word in place[1] if not word.startswith(("sampler=", "temperature="))]
    said = ["sweep", "--plan", "model=llada_8b", *words, "sampler=random,imh", f"outputs={tmp_path}"]
    assert main([*said, "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert [p["sampler"] for p in plan["points"]] == ["random", "imh"]
    assert any("give checkpoint=FOLDER" in note for note in plan["notes"])
    assert all(p["whole"]["nfe_calls"] for p in plan["points"])
    assert main([*said[:2], "model=gpt2", *words, "sampler=autoregressive", f"outputs={tmp_path}"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "textfiles-autoregressive: 1 points" in told
    assert "what gpt2 costs is unknown without its files" in told
    assert main([*said, "checkpoint=nobody/nothing"]) == 2
    assert "nobody/nothing is no folder here" in capsys.readouterr().err


def test_a_reason_is_cut_between_words(monkeypatch):
    def nothing(*args, **more):
        raise RuntimeError("word " * 100)

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    with pytest.raises(UserError, match=r"\(RuntimeError: (word )+…\); give checkpoint=FOLDER"):
        resolve("nobody/nothing")
