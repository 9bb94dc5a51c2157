"""Published checkpoints of paper 1 (GuideDiffuSeq): a folder with `config.json` and `model.pt`.

The network is ours under other names: torch's `nn.Transformer` keeps queries, keys and values of an attention in one
matrix, and its fixed positions are saved with the weights. `model.pt` is opened with `weights_only`, so that no code
in it runs.

What the folder may hold beside them:
    train_config.json   says whether the condition was dropped in training (`uncond_prob`); without it the model is
                        taken to be guidable, since nothing in the weights tells
    a tokenizer file    under the name that `tokenizer_mode` ends in, or tokenizer.json, or vocab.txt

Knows no solver and no sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.errors import UserError
from diffq.models.gaussian import GaussianSeq2Seq, GaussianSettings
from diffq.models.published import Layout, read_json, read_weights
from diffq.settings import Settings, setting, typed

_ASSUMED_CONDITION_DROPOUT = 0.1


@dataclass(frozen=True, kw_only=True)
class PublishedConfig(Settings):
    """The fields of a published `config.json` with their published defaults (ModelConfig)."""

    kind: ClassVar[str] = "GuideDiffuSeq"

    embed_mode: Literal["learned", "bert"] = setting("learned", "where the embeddings came from; they are in the file")
    tokenizer_mode: str = setting("bert", "bert, or the path of a trained WordPiece")
    pos_embed_mode: Literal["fixed", "learned"] = setting("fixed", "position embeddings")
    time_embed_mode: Literal["fixed", "learned"] = setting("fixed", "learned adds a two-layer ReLU network")
    noise_schedule: Literal["linear", "cosine", "sqrt"] = setting("linear", "noise schedule")
    dim: int = setting(768, "embedding dimension", low=1)
    internal_dim: int = setting(768, "width of the transformer", low=2)
    nhead: int = setting(12, "attention heads", low=1)
    layers_encoder: int = setting(12, "encoder layers", low=1)
    layers_decoder: int = setting(12, "decoder layers", low=1)
    max_len: int = setting(128, "longest source and longest target, in tokens", low=2)
    timesteps: int = setting(1000, "number of diffusion timesteps", low=2)

    def settings(self, condition_dropout: float) -> GaussianSettings:
        """The same network in our words."""
        return GaussianSettings(
            embedding=self.dim,
            width=self.internal_dim,
            heads=self.nhead,
            encoder_layers=self.layers_encoder,
            decoder_layers=self.layers_decoder,
            dropout=0.1,
            norm="post",
            positions="learned" if self.pos_embed_mode == "learned" else "sinusoid",
            max_length=self.max_len,
            timesteps=self.timesteps,
            noise=self.noise_schedule,
            time_mlp=self.time_embed_mode == "learned",
            condition_dropout=condition_dropout,
        )


def load_guidediffuseq(folder: str | Path) -> tuple[GaussianSeq2Seq, Any]:
    """(model, tokenizer) of a published folder.

    Raises UserError for a mode that the published code does not have, a weights file that is more than tensors, weights
    that are missing, left over or of another shape (listed under their published names), and a tokenizer that is not
    to be found or has another size than the embeddings.
    """
    folder = Path(folder)
    config = typed(PublishedConfig, read_json(folder / "config.json"), "config.json")
    tensors = read_weights(folder / "model.pt")
    tokenizer = _tokenizer(folder, config.tokenizer_mode)
    with torch.random.fork_rng(devices=[]):  # the initial weights do not matter
        model = config.settings(_condition_dropout(folder)).build(tokenizer)
    _fill(model, tensors, folder / "model.pt", tokenizer.size)
    return model.eval(), tokenizer


class GuideDiffuSeqLayout(Layout):
    """The layout as `published` asks for it."""

    name = "GuideDiffuSeq"
    places = False

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        return (folder / "model.pt").exists()

    def settings(self, folder: Path) -> GaussianSettings:
        config = typed(PublishedConfig, read_json(folder / "config.json"), "config.json")
        return config.settings(_condition_dropout(folder))

    def tokenizer(self, folder: Path) -> Any:
        config = typed(PublishedConfig, read_json(folder / "config.json"), "config.json")
        return _tokenizer(folder, config.tokenizer_mode)

    def weights(self, folder: Path) -> Sequence[Path]:
        return (folder / "model.pt",)

    def load(self, folder: Path, place: Any = None) -> tuple[GaussianSeq2Seq, Any]:
        return load_guidediffuseq(folder)


def _condition_dropout(folder: Path) -> float:
    path = folder / "train_config.json"
    if not path.is_file():
        return _ASSUMED_CONDITION_DROPOUT
    value = read_json(path).get("uncond_prob", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{path}: uncond_prob={value!r} must be a number in 0 … 1")
    return float(value)


def _tokenizer(folder: Path, mode: str) -> Any:
    """The folder's own tokenizer file first; for `bert` then BERT's, for a path then that path."""
    from diffq.data.tokenizers import Tokenizer, build_tokenizer, wordpiece_file  # a checkpoint is read whole

    if (folder / "vocab.txt").is_file():
        return Tokenizer.load(folder)
    if mode == "bert" and not (folder / "tokenizer.json").is_file():
        return build_tokenizer("bert", None)  # type: ignore[arg-type]
    places = [folder / Path(mode).name, folder / "tokenizer.json", Path(mode)]
    for place in places:
        if place.is_file():
            return wordpiece_file(place)
    raise UserError(
        f"{folder / 'config.json'} names the tokenizer '{mode}', which is in none of"
        f" {', '.join(map(str, places))}; copy the file into the folder"
    )


def _fill(model: GaussianSeq2Seq, tensors: Mapping[str, Tensor], path: Path, vocabulary: int) -> None:
    """Copies the published weights to their places."""
    places = _places(model)
    missing, surplus = sorted(places.keys() - tensors.keys()), sorted(tensors.keys() - places.keys())
    if missing or surplus:
        parts = [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("surplus", surplus)) if names]
        raise UserError(f"{path} does not fit its config.json; {'; '.join(parts)}")
    if len(tensors["embed.weight"]) != vocabulary:
        raise UserError(
            f"{path} has {len(tensors['embed.weight'])} embeddings, but its tokenizer has {vocabulary} tokens;"
            " put the tokenizer that it was trained with into the folder"
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, not {(sum(len(t) for t in ours), *ours[0].shape[1:])}"
        for name, ours in places.items()
        if tensors[name].shape != (sum(len(t) for t in ours), *ours[0].shape[1:])
    ]
    if wrong:
        raise UserError(f"{path} does not fit the sizes in its config.json; {'; '.join(wrong)}")
    with torch.no_grad():
        for name, ours in places.items():
            for part, value in zip(ours, tensors[name].split([len(t) for t in ours]), strict=True):
                part.copy_(value)


def _places(model: GaussianSeq2Seq) -> dict[str, list[Tensor]]:
    """Every published name with the tensors of ours that it holds, one after another along the first axis."""
    net = model.net
    places: dict[str, list[Tensor]] = {"embed.weight": [net.embed.weight]}
    if model.settings.positions == "learned":
        places["pos_embeds.weight"] = [net.position_LD]
    else:
        places["pe"] = [net.position_LD[None]]
    if model.settings.embedding != model.settings.width:
        _linear(places, "up_proj", net.up)
        _linear(places, "down_proj", net.down)
    if model.settings.time_mlp:
        for i in (0, 2):
            _linear(places, f"time_map.{i}", model.time_mlp[i])
    for stack_name, stack in (("encoder", net.encoder), ("decoder", net.decoder)):
        for i, layer in enumerate(stack.layers):
            _layer(places, f"transformer.{stack_name}.layers.{i}", layer)
        _linear(places, f"transformer.{stack_name}.norm", stack.norm)
    return places


def _layer(places: dict[str, list[Tensor]], name: str, layer: Any) -> None:
    norms = [layer.norm_self, layer.norm_feed]
    _attention(places, f"{name}.self_attn", layer.self_attention)
    if hasattr(layer, "cross_attention"):
        _attention(places, f"{name}.multihead_attn", layer.cross_attention)
        norms.insert(1, layer.norm_cross)
    _linear(places, f"{name}.linear1", layer.feed_forward[0])
    _linear(places, f"{name}.linear2", layer.feed_forward[-1])
    for i, norm in enumerate(norms):
        _linear(places, f"{name}.norm{i + 1}", norm)


def _attention(places: dict[str, list[Tensor]], name: str, attention: Any) -> None:
    places[f"{name}.in_proj_weight"] = [attention.query.weight, attention.key_value.weight]
    places[f"{name}.in_proj_bias"] = [attention.query.bias, attention.key_value.bias]
    _linear(places, f"{name}.out_proj", attention.out)


def _linear(places: dict[str, list[Tensor]], name: str, module: Any) -> None:
    places[f"{name}.weight"] = [module.weight]
    places[f"{name}.bias"] = [module.bias]
