"""Checkpoints: what is written is what is read, and what does not fit is named."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffq.data.task import Example
from diffq.data.tokenizers import build_tokenizer
from diffq.errors import UserError
from diffq.models import checkpoints
from diffq.models.gaussian import GaussianSettings
from diffq.settings import as_mapping
from diffq.store.files import read_yaml, write_yaml

SIZES = {"embedding": 4, "width": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "max_length": 8}


def corpus() -> SimpleNamespace:
    return SimpleNamespace(split=lambda name: [Example(0, "why is it so", ("how come it is",))], words=())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of a small model, written part by part."""
    settings = GaussianSettings(**SIZES)
    tokenizer = build_tokenizer("words", corpus())
    torch.manual_seed(1)
    checkpoints.write_tensors(tmp_path / "model.safetensors", checkpoints.tensors_of(settings.build(tokenizer)))
    write_yaml(tmp_path / "config.yaml", {"model": as_mapping(settings), "plugins": []})
    write_yaml(tmp_path / "lengths.yaml", {"mean": 0.5, "sigma": 2.0})
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path


def test_a_checkpoint_comes_back_whole(folder):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loaded = checkpoints.load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    written = checkpoints.read_tensors(folder / "model.safetensors")
    assert all(torch.equal(value, written[name]) for name, value in loaded.model.state_dict().items())
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.decode(loaded.tokenizer.encode_target("why is it so")) == "why is it so"
    assert loaded.lengths == {"mean": 0.5, "sigma": 2.0}
    assert loaded.config["model"]["width"] == 8


def test_the_digest_follows_weights_and_configuration(folder):
    first = checkpoints.load(folder).digest
    assert checkpoints.load(folder).digest == first
    tensors = checkpoints.read_tensors(folder / "model.safetensors")
    name = "net.embed.weight"
    changed = tensors[name].clone()
    changed[0, 0] += 1e-6 + changed[0, 0].abs() * 1e-6
    checkpoints.write_tensors(folder / "model.safetensors", tensors | {name: changed})
    second = checkpoints.load(folder).digest
    config = read_yaml(folder / "config.yaml")
    config["model"]["condition_dropout"] = 0.0
    write_yaml(folder / "config.yaml", config)
    assert len({first, second, checkpoints.load(folder).digest}) == 3


def test_another_dtype_leaves_the_noise_schedule_alone(folder):
    model = checkpoints.load(folder, dtype=torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.alpha_bar_T.dtype == torch.float64


def test_missing_and_surplus_weights_are_listed(folder):
    tensors = checkpoints.read_tensors(folder / "model.safetensors")
    tensors["net.other.weight"] = tensors.pop("net.embed.weight")
    checkpoints.write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(UserError, match=r"missing: net\.embed\.weight; surplus: net\.other\.weight"):
        checkpoints.load(folder)


def test_a_wrong_shape_is_named(folder):
    config = read_yaml(folder / "config.yaml")
    config["model"]["embedding"] = 6
    write_yaml(folder / "config.yaml", config)
    with pytest.raises(UserError, match=r"net\.embed\.weight has shape \(\d+, 4\), but .* needs \(\d+, 6\)"):
        checkpoints.load(folder)


def test_a_missing_layer_is_named(folder):
    config = read_yaml(folder / "config.yaml")
    config["model"]["embedding"] = 8
    write_yaml(folder / "config.yaml", config)
    with pytest.raises(UserError, match=r"surplus: net\.(down|up)"):
        checkpoints.load(folder)


@pytest.mark.parametrize("length", [0, 7, 200, -1])
def test_a_file_that_was_cut_off_is_named(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        checkpoints.load(folder)


def test_folders_that_are_no_checkpoints(folder, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        checkpoints.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds neither config\.yaml .* nor the config\.json"):
        checkpoints.load(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has not saved anything yet"):
        checkpoints.load(folder)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight


def test_shared_tensors_are_written_once(tmp_path):
    first, second = Tied(), Tied()
    tensors = checkpoints.tensors_of(first)
    assert list(tensors) == ["embed.weight"]
    checkpoints.write_tensors(tmp_path / "tied.safetensors", tensors)
    checkpoints.load_tensors(second, checkpoints.read_tensors(tmp_path / "tied.safetensors"), tmp_path)
    assert torch.equal(second.out.weight, first.out.weight)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*paths):
        raise OSError("disk full")

    path = tmp_path / "a.safetensors"
    checkpoints.write_tensors(path, {"x": torch.ones(2)})
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.write_tensors(path, {"x": torch.zeros(2)})
    assert torch.equal(checkpoints.read_tensors(path)["x"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
