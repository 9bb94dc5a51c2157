"""The published layouts of SEDD (louaaron/sedd-small, -medium) and MDLM (kuleshov-group/mdlm-owt), read and written.

Our network has the names of SEDD's; MDLM's hub copy puts `backbone.` before them. A folder holds config.json and one
weight file; a tokenizer beside them is read, else it is GPT-2's.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffq.errors import UserError
from diffq.models.checkpoints import load_tensors, write_tensors
from diffq.models.mdlm import MDLMSettings
from diffq.models.published import Layout, read_json, read_weights, weight_file
from diffq.models.sedd import SEDDSettings, SEDDUniformSettings
from diffq.models.text_diffusion import TextDiffusion, TextDiffusionSettings
from diffq.store.files import write_atomic

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
_NOISES = {"loglinear": "log_linear", "geometric": "geometric"}


class _DiTLayout(Layout, ABC):
    """What the two have in common.

    name    as messages have it
    kinds   of our models, those that it holds
    prefix  of the weights' names
    """

    name: str = ""
    kinds: ClassVar[tuple[str, ...]] = ()
    prefix: ClassVar[str] = ""
    places = False

    def settings(self, folder: Path) -> TextDiffusionSettings:
        path = folder / "config.json"
        return self.parse(read_json(path), path)

    @abstractmethod
    def parse(self, config: Mapping[str, Any], path: Path) -> TextDiffusionSettings:
        """The sizes that a config.json says. UserError, with its path, for what cannot be."""

    def writes(self, model: Any) -> bool:
        return model.settings.kind in self.kinds

    @abstractmethod
    def config(self, model: TextDiffusion) -> dict[str, Any]:
        """What config.json says of a model of ours."""

    @abstractmethod
    def words(self, folder: Path) -> int: ...

    def weights(self, folder: Path) -> Sequence[Path]:
        return (weight_file(folder),)

    def tokenizer(self, folder: Path) -> Any:
        """The folder's own, or GPT-2's. UserError where it has another number of tokens than the network."""
        from diffq.data.exact_tokenizers import gpt2_tokenizer
        from diffq.data.tokenizers import Tokenizer

        own = any((folder / name).is_file() for name in _TOKENIZER_FILES)
        tokenizer = Tokenizer.load(folder) if own else gpt2_tokenizer()
        if tokenizer.mask != self.words(folder):
            raise UserError(
                f"{folder} is a network of {self.words(folder)} tokens, and its tokenizer has {tokenizer.mask};"
                " put the tokenizer that it was trained with into the folder"
            )
        return tokenizer

    def load(self, folder: Path, place: Any = None) -> tuple[TextDiffusion, Any]:
        tokenizer, path = self.tokenizer(folder), weight_file(folder)
        tensors = read_weights(path)
        foreign = sorted(name for name in tensors if not name.startswith(self.prefix))
        if foreign:
            raise UserError(f"{path}: expected names that begin with {self.prefix}, found {', '.join(foreign[:8])}")
        with torch.random.fork_rng(devices=[]):  # the initial weights do not matter
            model: TextDiffusion = self.settings(folder).build(tokenizer)
        load_tensors(model.net, {name.removeprefix(self.prefix): t for name, t in tensors.items()}, path)
        return model, tokenizer

    def write(self, model: TextDiffusion, tokenizer: Any, folder: Path) -> None:
        """Writes a model of one of `kinds`, with its tokenizer beside it, into a folder. UserError where it would be
        another one when it is read again."""
        if model.never:
            raise UserError(
                f"the layout of {self.name} has the mask behind all tokens, and this model's is {model.mask}"
            )
        config = self.config(model)
        self._require_held(model.settings, self.parse(config, folder / "config.json"))
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {
            self.prefix + name: value.detach().cpu().to(torch.float32, copy=True)
            for name, value in model.net.state_dict().items()
        }  # a tied matrix is written twice: published networks are untied
        write_tensors(folder / "model.safetensors", tensors)
        write_atomic(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
        tokenizer.save(folder)

    def _require_held(self, had: TextDiffusionSettings, read: TextDiffusionSettings) -> None:
        idle = {"tied", *(("noise_eps",) if had.noise == "geometric" else ("noise_low", "noise_high"))}
        lost = [f.name for f in fields(had) if f.name not in idle and getattr(had, f.name) != getattr(read, f.name)]
        if lost:
            ours, theirs = (", ".join(f"model.{name}={getattr(s, name)}" for name in lost) for s in (had, read))
            raise UserError(f"the layout of {self.name} cannot say {ours}: whoever reads it takes {theirs}")


class SEDDLayout(_DiTLayout):
    """The configuration is that of the training run: graph.type, noise, tokens, model."""

    name = "SEDD"
    kinds = ("sedd", "sedd_uniform")

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        return {"graph", "model", "tokens"} <= config.keys()

    def words(self, folder: Path) -> int:
        return int(read_json(folder / "config.json")["tokens"])

    def parse(self, config: Mapping[str, Any], path: Path) -> SEDDSettings | SEDDUniformSettings:
        graph, model, noise = (config.get(name, {}) for name in ("graph", "model", "noise"))
        kind, absorb = graph.get("type"), graph.get("type") == "absorb"
        if kind not in ("absorb", "uniform"):
            raise UserError(f"{path}: graph.type={kind} must be absorb or uniform")
        if bool(model.get("scale_by_sigma")) != absorb:
            raise UserError(f"{path}: a network of graph.type={kind} has model.scale_by_sigma={str(absorb).lower()}")
        if noise.get("type") not in _NOISES:
            raise UserError(f"{path}: noise.type={noise.get('type')} must be one of {', '.join(_NOISES)}")
        try:
            values: dict[str, Any] = {
                "width": model["hidden_size"],
                "conditioning": model["cond_dim"],
                "max_length": model["length"],
                "layers": model["n_blocks"],
                "heads": model["n_heads"],
                "dropout": float(model.get("dropout", 0.0)),
                "noise": _NOISES[noise["type"]],
                "noise_low": float(noise.get("sigma_min", 1e-4)),
                "noise_high": float(noise.get("sigma_max", 20.0)),
            }
        except KeyError as error:
            raise UserError(f"{path}: model.{error.args[0]} is missing") from error
        return (SEDDSettings if absorb else SEDDUniformSettings)(**values)

    def config(self, model: TextDiffusion) -> dict[str, Any]:
        s, absorb = model.settings, model.process == "absorbing"
        names = {ours: theirs for theirs, ours in _NOISES.items()}
        if s.noise not in names:
            raise UserError(
                f"the layout of SEDD has no place for model.noise={s.noise}; it has those of {', '.join(names)}"
            )
        return {
            "graph": {"type": "absorb" if absorb else "uniform"},
            "noise": {"type": names[s.noise], "sigma_min": s.noise_low, "sigma_max": s.noise_high},
            "tokens": model.words,
            "model": {
                "name": "diffq", "type": "ddit", "hidden_size": s.width, "cond_dim": s.conditioning,
                "length": s.max_length, "n_blocks": s.layers, "n_heads": s.heads, "scale_by_sigma": absorb,
                "dropout": s.dropout,
            },
        }  # fmt: skip


class MDLMLayout(_DiTLayout):
    """Hugging Face's configuration of the hub copy."""

    name = "MDLM"
    kinds = ("mdlm",)
    prefix = "backbone."

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        return {"hidden_dim", "cond_dim", "n_blocks", "n_heads", "vocab_size"} <= config.keys()

    def words(self, folder: Path) -> int:
        return int(read_json(folder / "config.json")["vocab_size"]) - 1

    def parse(self, config: Mapping[str, Any], path: Path) -> MDLMSettings:
        return MDLMSettings(
            width=config["hidden_dim"],
            conditioning=config["cond_dim"],
            max_length=config.get("model_length", 1024),
            layers=config["n_blocks"],
            heads=config["n_heads"],
            dropout=float(config.get("dropout", 0.0)),
            time_conditioning=bool(config.get("time_conditioning", False)),
        )

    def config(self, model: TextDiffusion) -> dict[str, Any]:
        s = model.settings
        assert isinstance(s, MDLMSettings)
        return {
            "model_type": "mdlm", "vocab_size": model.words + 1, "model_length": s.max_length, "hidden_dim": s.width,
            "cond_dim": s.conditioning, "n_blocks": s.layers, "n_heads": s.heads, "dropout": s.dropout,
            "time_conditioning": s.time_conditioning,
        }  # fmt: skip
