"""`diffq sweep --plan` of running text: what it says agrees with what the sweep then does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.flops import flops_of

from diffq.cli.main import main

DATA = ["dataset=textfiles", "dataset.tokenizer=characters", "dataset.documents=row", "dataset.block=24"]
SIZES = ["model.width=16", "model.heads=2", "model.layers=2", "model.max_length=24"]
TRAINER = ["max_steps=1", "trainer.batch_size=4", "trainer.schedule=constant", "trainer.validation_sources=0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A text, and the words that name it and its outputs; models are trained for a step."""
    folder = tmp_path_factory.mktemp("text")
    lines = [" ".join(("sun", "moon", "sea", "sand")[(i * 7 + j) % 4] for j in range(6)) for i in range(120)]
    (folder / "all.txt").write_text("\n".join(lines))
    words = [*DATA, f"dataset.path={folder / 'all.txt'}", f"outputs={folder / 'outputs'}"]
    for model in ("mdlm_tiny", "sedd_tiny", "causal_lm_tiny"):
        assert main(["train", f"model={model}", *words, *SIZES, *TRAINER, "--json"]) == 0
    return words


@pytest.fixture
def told(place: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """The points that `--plan --json` prints, beside what sampling them recorded."""

    def both(*words: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        said = ["sweep", *place, *SIZES, "num_samples=12", "batch_tokens=96", *words, "--json"]
        capsys.readouterr()
        assert main([*said, "--plan"]) == 0
        points = json.loads(capsys.readouterr().out)["points"]
        for point in points:
            assert main(["sample", *point["words"], "--json"]) == 0
        outputs = Path(place[-1].partition("=")[2])
        return [(point, json.loads((outputs / point["folder"] / "run.json").read_text())) for point in points]

    return both


def gpt2(folder: Path, words: list[str]) -> Path:
    """A tiny GPT-2 with random weights beside the tokenizer of the text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from diffq.config import compose
    from diffq.data.tokenizers import build_tokenizer

    data = compose([*words, "model=causal_lm_tiny"]).dataset
    tokenizer = build_tokenizer(data.tokenizer, data.open())
    sizes = {"n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=tokenizer.mask, bos_token_id=0, eos_token_id=0, **sizes)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def agree(point: dict[str, Any], run: dict[str, Any]) -> bool:
    names = ("nfe_calls", "nfe_rows", "positions_projected")
    return [point["whole"][name] for name in names] == [run[name] for name in names]


def test_masks_unconditional_and_around_a_prompt(told: Any) -> None:
    for words in (["steps=4,40"], ["dataset.prefix=6", "num_sources=5", "scale=1,2", "steps=7"]):
        for point, run in told("model=mdlm_tiny", "sampler=ancestral", *words):
            assert point["exact"]
            assert agree(point, run)
            assert point["whole"]["network_flops"] > 0
            assert point["peak_memory_bytes"] > 0
            assert point["disk_bytes"] == pytest.approx(run["bytes"], rel=0.3)


def test_what_a_learnt_score_decides_is_not_called_exact(told: Any) -> None:
    ((plain, run), (published, _)) = told("model=sedd_tiny", "sampler=analytic", "normalise=true,false", "steps=6")
    assert plain["exact"]
    assert agree(plain, run)
    assert not published["exact"]


def test_of_many_batches_some_are_run_dry_and_few_where_the_network_decides(
    place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 batches of four rows, where nothing was sampled before."""
    from diffq.runs.planning import forecast

    shutil.copytree(Path(place[-1].partition("=")[2], "train"), tmp_path / "train")
    ran = []
    trace = forecast.trace_canvas
    monkeypatch.setattr(forecast, "trace_canvas", lambda *args: ran.append(args) or trace(*args))
    for sampler, most in (("random", 32), ("imh", 6)):
        ran.clear()
        words = ["model=mdlm_tiny", f"sampler={sampler}", "num_samples=400", "batch_tokens=96", "--plan", "--json"]
        assert main(["sweep", *place[:-1], f"outputs={tmp_path}", *SIZES, *words]) == 0
        assert most // 2 < len(ran) <= most
        (point,) = json.loads(capsys.readouterr().out)["points"]
        assert point["whole"]["nfe_rows"] >= 400 * 24
    assert main(["sweep", *place[:-1], f"outputs={tmp_path}", *SIZES, *words[:-1]]) == 0
    assert " ≤" in (told := capsys.readouterr().out), "equal candidates are run once"
    assert "≈" not in told


def test_a_causal_model_fills_the_window_or_ends_by_itself(told: Any) -> None:
    ((point, run),) = told("model=causal_lm_tiny", "sampler=autoregressive")
    assert point["exact"]
    assert agree(point, run)
    ((point, run),) = told("model=causal_lm_tiny", "sampler=autoregressive", "dataset.ends=true")
    assert not point["exact"]


@pytest.mark.parametrize("model", ["hf_causal", "gpt2"])
def test_a_model_of_hugging_face_is_planned_from_its_sizes(
    model: str, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Around a prompt and without; FLOPs are those that torch counts while the point is sampled, and that one point
    tells the time of others."""
    words = [*place, f"model={model}", f"checkpoint={gpt2(tmp_path / model, place)}", "sampler=autoregressive"]

    def plan(*more: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["sweep", *words, "num_samples=12", "batch_tokens=96", *more, "--plan", "--json"]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["points"]
        return found

    for given in ([], ["dataset.prefix=6", "num_sources=5"]):
        (point,) = plan(*given)
        assert point["exact"]
        counted = flops_of(lambda said=point["words"]: main(["sample", *said, "--json"]))
        assert point["whole"]["network_flops"] + point["whole"]["projection_flops"] == counted
        outputs = Path(place[-1].partition("=")[2])
        run = json.loads((outputs / point["folder"] / "run.json").read_text())
        assert agree(point, run)
        assert point["peak_memory_bytes"] > 0
    assert all(other["left"]["seconds"] > 0 for other in plan("top_p=0.5,0.9"))


def test_a_model_of_hugging_face_needs_a_name(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *place, "model=hf_causal", "sampler=autoregressive", "--plan"]) == 2
    assert "model=hf_causal is trained by others and names no hub model" in capsys.readouterr().err


def test_one_sampled_point_prices_the_others(told: Any, place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told("model=mdlm_tiny", "sampler=ancestral", "steps=24", "num_samples=48")
    capsys.readouterr()
    said = ["sweep", *place, *SIZES, "model=mdlm_tiny", "sampler=remdm_cap", "steps=12,24,96", "num_samples=12"]
    assert main([*said, "--plan", "--json"]) == 0
    times = [point["left"]["seconds"] for point in json.loads(capsys.readouterr().out)["points"]]
    assert all(seconds > 0 for seconds in times)
    assert times == sorted(times)
