"""The published layouts of LLaDA (GSAI-ML/LLaDA-8B-*, LLaDA-1.5) and Dream (Dream-org/Dream-v0-*), read and written.

A folder holds config.json, its tokenizer, and safetensors in one file or in several with an index. Names differ from
those of our network by a prefix (LLaDA) or by a table (Dream). No code that comes with a checkpoint is run.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffq.errors import UserError
from diffq.models.checkpoints import write_tensors
from diffq.models.masked_lm import DreamSettings, LLaDASettings, MaskedLM, MaskedLMSettings
from diffq.models.placing import INDEX, SINGLE, Place, fill, weight_files
from diffq.models.published import Layout, read_json
from diffq.store.files import write_atomic

_BLOCK = re.compile(r"blocks\.(\d+)\.(\w+)\.(weight|bias)")
_DREAM = {
    "attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm", "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj", "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj", "up_proj": "mlp.up_proj", "ff_out": "mlp.down_proj",
}  # fmt: skip
_DREAM_AROUND = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}


class _LLMLayout(Layout, ABC):
    """What the two have in common.

    model_type  of config.json, in lower case
    sizes       our settings by the names that config.json has for them
    fixed       what config.json must say where it says it at all: nothing else is implemented
    ends        tokens that end an answer, besides eos_token_id
    """

    name = ""
    places = True
    model_type = ""
    kind: ClassVar[type[MaskedLMSettings]]
    sizes: ClassVar[Mapping[str, str]] = {}
    optional: ClassVar[Mapping[str, str]] = {}
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    ends: ClassVar[tuple[str, ...]] = ()

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        return str(config.get("model_type", "")).lower() == self.model_type

    @abstractmethod
    def published_name(self, name: str) -> str:
        """The name that the layout has for a tensor of our network."""

    def settings(self, folder: Path) -> MaskedLMSettings:
        path = folder / "config.json"
        config = read_json(path)
        absent = sorted(name for name in (*self.sizes.values(), "mask_token_id") if config.get(name) is None)
        if absent:
            raise UserError(f"{path} does not say {', '.join(absent)}")
        for name, allowed in self.fixed.items():
            if config.get(name) not in (None, *allowed):
                raise UserError(f"{path}: {name}={config[name]} is not supported; it must be {allowed[0]}")
        named = {ours: config[theirs] for ours, theirs in self.sizes.items()}
        named |= {ours: config[theirs] for ours, theirs in self.optional.items() if config.get(theirs) is not None}
        for ours in ("rope_theta", "norm_eps"):
            named[ours] = float(named[ours])
        return self.kind(**named)

    def tokenizer(self, folder: Path) -> Any:
        from diffq.data.chat import chat_folder

        config = read_json(folder / "config.json")
        rows = self.settings(folder).rows
        tokenizer = chat_folder(
            folder, mask=config["mask_token_id"], end=config.get("eos_token_id"), pad=config.get("pad_token_id"),
            ends=self.ends,
        )  # fmt: skip
        if rows is not None and tokenizer.size > rows:
            raise UserError(
                f"{folder} is a network of {rows} tokens, and its tokenizer has {tokenizer.size}; put the tokenizer"
                " that it was trained with into the folder"
            )
        return tokenizer

    def weights(self, folder: Path) -> Sequence[Path]:
        return weight_files(folder)

    def load(self, folder: Path, place: Place | None = None) -> tuple[MaskedLM, Any]:
        settings, tokenizer = self.settings(folder), self.tokenizer(folder)
        with torch.device("meta"):
            model = MaskedLM(settings, tokenizer)
        names = {name: self.published_name(name) for name in model.net.state_dict()}
        fill(model.net, names, weight_files(folder), place or Place())
        return model, tokenizer

    def writes(self, model: Any) -> bool:
        return isinstance(model, MaskedLM) and type(model.settings) is self.kind

    @abstractmethod
    def config(self, model: MaskedLM, tokenizer: Any) -> dict[str, Any]: ...

    def write(self, model: MaskedLM, tokenizer: Any, folder: Path, shard_bytes: int | None = None) -> None:
        """One file of weights, or several of at most so many bytes with their index; the types are the model's."""
        folder.mkdir(parents=True, exist_ok=True)
        held = {self.published_name(name): value.detach() for name, value in model.net.state_dict().items()}
        parts = [held] if shard_bytes is None else _shards(held, shard_bytes)
        if len(parts) == 1:
            write_tensors(folder / SINGLE, parts[0])
        else:
            names = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
            for name, part in zip(names, parts, strict=True):
                write_tensors(folder / name, part)
            where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
            total = sum(value.numel() * value.element_size() for value in held.values())
            _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
        _write_json(folder / "config.json", self.config(model, tokenizer))
        tokenizer.save(folder)


class LLaDALayout(_LLMLayout):
    """GSAI-ML's configuration."""

    name = "LLaDA"
    model_type = "llada"
    kind = LLaDASettings
    sizes: ClassVar[Mapping[str, str]] = {
        "width": "d_model", "heads": "n_heads", "layers": "n_layers", "max_length": "max_sequence_length",
        "rope_theta": "rope_theta", "norm_eps": "rms_norm_eps", "tied": "weight_tying",
    }  # fmt: skip
    optional: ClassVar[Mapping[str, str]] = {
        "kv_heads": "n_kv_heads", "mlp_width": "mlp_hidden_size", "bias": "include_bias",
        "qkv_bias": "include_qkv_bias", "scale_logits": "scale_logits",
    }  # fmt: skip
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "activation_type": ("silu",), "block_type": ("llama",), "layer_norm_type": ("rms",), "rope": (True,),
        "layer_norm_with_affine": (True,), "alibi": (False,), "attention_layer_norm": (False,), "clip_qkv": (None,),
        "multi_query_attention": (False,), "input_emb_norm": (False,), "bias_for_layer_norm": (False,),
    }  # fmt: skip
    ends: ClassVar[tuple[str, ...]] = ("<|eot_id|>", "<|endoftext|>")

    def published_name(self, name: str) -> str:
        return f"model.transformer.{name}"

    def settings(self, folder: Path) -> MaskedLMSettings:
        config, found = read_json(folder / "config.json"), super().settings(folder)
        rows = config.get("embedding_size") or config.get("vocab_size")
        mlp = config.get("mlp_hidden_size") or round(float(config.get("mlp_ratio", 4)) * found.width)
        return found.replace(rows=rows, mlp_width=mlp)

    def config(self, model: MaskedLM, tokenizer: Any) -> dict[str, Any]:
        s = model.settings
        return {
            "architectures": ["LLaDAModelLM"], "model_type": "llada", "d_model": s.width, "n_heads": s.heads,
            "n_kv_heads": s.groups, "n_layers": s.layers, "mlp_hidden_size": s.mlp_width, "mlp_ratio": 4,
            "activation_type": "silu", "block_type": "llama", "layer_norm_type": "rms", "rms_norm_eps": s.norm_eps,
            "rope": True, "rope_theta": s.rope_theta, "rope_full_precision": True, "include_bias": s.bias,
            "include_qkv_bias": s.qkv_bias, "max_sequence_length": s.max_length, "vocab_size": tokenizer.size,
            "embedding_size": model.net.size, "weight_tying": s.tied, "scale_logits": s.scale_logits,
            "mask_token_id": tokenizer.mask, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad,
        }  # fmt: skip


class DreamLayout(_LLMLayout):
    """Dream-org's configuration."""

    name = "Dream"
    model_type = "dream"
    kind = DreamSettings
    sizes: ClassVar[Mapping[str, str]] = {
        "width": "hidden_size", "heads": "num_attention_heads", "layers": "num_hidden_layers",
        "kv_heads": "num_key_value_heads", "mlp_width": "intermediate_size", "max_length": "max_position_embeddings",
        "rope_theta": "rope_theta", "norm_eps": "rms_norm_eps", "tied": "tie_word_embeddings", "rows": "vocab_size",
    }  # fmt: skip
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",), "rope_scaling": (None,), "use_sliding_window": (False,),
    }  # fmt: skip
    ends: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")

    def published_name(self, name: str) -> str:
        found = _BLOCK.fullmatch(name)
        if found is None:
            part, _, what = name.rpartition(".")
            return f"{_DREAM_AROUND[part]}.{what}"
        number, part, what = found.groups()
        return f"model.layers.{number}.{_DREAM[part]}.{what}"

    def settings(self, folder: Path) -> MaskedLMSettings:
        return super().settings(folder).replace(qkv_bias=True)

    def config(self, model: MaskedLM, tokenizer: Any) -> dict[str, Any]:
        s = model.settings
        if not s.qkv_bias or s.bias or s.scale_logits:
            raise UserError("Dream's layout has biases of queries, keys and values and no others, and no scaled logits")
        return {
            "architectures": ["DreamModel"], "model_type": "Dream", "hidden_act": "silu", "hidden_size": s.width,
            "intermediate_size": s.mlp_width, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
            "num_key_value_heads": s.groups, "max_position_embeddings": s.max_length, "rms_norm_eps": s.norm_eps,
            "rope_theta": s.rope_theta, "rope_scaling": None, "tie_word_embeddings": s.tied,
            "use_sliding_window": False, "vocab_size": model.net.size, "mask_token_id": tokenizer.mask,
            "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad,
        }  # fmt: skip


def _shards(held: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    """Consecutive tensors of at most so many bytes together; one that is larger is alone."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in held.items():
        own = value.numel() * value.element_size()
        if parts[-1] and size + own > most:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += own
    return parts


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())
