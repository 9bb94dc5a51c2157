"""LLaDA's and Dream's published checkpoints: their keys and shapes, their config.json, and their forward passes in the
plainest words, one head and one row at a time, in float64.

Written from the description of the layouts; nothing here is shared with the package.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def llada_config(**changes: Any) -> dict[str, Any]:
    """config.json of a small LLaDA in the published form."""
    return {
        "architectures": ["LLaDAModelLM"], "auto_map": {"AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"},
        "model_type": "llada", "d_model": 32, "n_heads": 4, "n_kv_heads": 4, "n_layers": 3, "mlp_hidden_size": 48,
        "mlp_ratio": 4, "activation_type": "silu", "block_type": "llama", "layer_norm_type": "rms",
        "layer_norm_with_affine": True, "rms_norm_eps": 1e-5, "rope": True, "rope_theta": 500000.0,
        "rope_full_precision": True, "alibi": False, "attention_layer_norm": False, "clip_qkv": None,
        "multi_query_attention": None, "include_bias": False, "include_qkv_bias": False, "bias_for_layer_norm": False,
        "max_sequence_length": 64, "vocab_size": 60, "embedding_size": 64, "weight_tying": False,
        "scale_logits": False, "input_emb_norm": False, "mask_token_id": 55, "eos_token_id": 50, "pad_token_id": 50,
        "use_cache": False,
    } | changes  # fmt: skip


def dream_config(**changes: Any) -> dict[str, Any]:
    """config.json of a small Dream in the published form."""
    return {
        "architectures": ["DreamModel"], "auto_map": {"AutoModel": "modeling_dream.DreamModel"}, "model_type": "Dream",
        "attention_dropout": 0.0, "bos_token_id": 50, "eos_token_id": 50, "mask_token_id": 55, "pad_token_id": 50,
        "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 48,
        "max_position_embeddings": 64, "max_window_layers": 3, "num_attention_heads": 4, "num_hidden_layers": 3,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000.0,
        "sliding_window": None, "tie_word_embeddings": False, "use_cache": False, "use_sliding_window": False,
        "vocab_size": 64,
    } | changes  # fmt: skip


def llada_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every key of the layout with its shape."""
    d, rows, prefix = c["d_model"], c["embedding_size"], "model.transformer."
    m, kv = c["mlp_hidden_size"], d // c["n_heads"] * (c["n_kv_heads"] or c["n_heads"])
    shapes: dict[str, tuple[int, ...]] = {prefix + "wte.weight": (rows, d), prefix + "ln_f.weight": (d,)}
    if not c["weight_tying"]:
        shapes[prefix + "ff_out.weight"] = (rows, d)
    for i in range(c["n_layers"]):
        block = {
            "attn_norm.weight": (d,), "ff_norm.weight": (d,), "q_proj.weight": (d, d), "k_proj.weight": (kv, d),
            "v_proj.weight": (kv, d), "attn_out.weight": (d, d), "ff_proj.weight": (m, d), "up_proj.weight": (m, d),
            "ff_out.weight": (d, m),
        }  # fmt: skip
        if c["include_qkv_bias"]:
            block |= {"q_proj.bias": (d,), "k_proj.bias": (kv,), "v_proj.bias": (kv,)}
        shapes |= {f"{prefix}blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def dream_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, rows, m = c["hidden_size"], c["vocab_size"], c["intermediate_size"]
    kv = d // c["num_attention_heads"] * c["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, d), "model.norm.weight": (d,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (rows, d)
    for i in range(c["num_hidden_layers"]):
        block = {
            "self_attn.q_proj.weight": (d, d), "self_attn.q_proj.bias": (d,), "self_attn.k_proj.weight": (kv, d),
            "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.weight": (kv, d), "self_attn.v_proj.bias": (kv,),
            "self_attn.o_proj.weight": (d, d), "mlp.gate_proj.weight": (m, d), "mlp.up_proj.weight": (m, d),
            "mlp.down_proj.weight": (d, m), "input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,),
        }  # fmt: skip
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Weights under which every position depends much on every other."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    norms = {n: 1 + 0.2 * v for n, v in made.items() if "norm" in n or "ln_f" in n}
    return {n: v * (0.4 if v.dim() == 2 else 0.5) for n, v in made.items()} | norms


def llada_logits(t: Tensors, c: dict[str, Any], tokens_L: Tensor) -> Tensor:
    """Logits (L, V) of one row without padding."""
    prefix = "model.transformer."
    head = prefix + ("wte.weight" if c["weight_tying"] else "ff_out.weight")
    names = {
        "norm1": "attn_norm", "norm2": "ff_norm", "q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "attn_out",
        "gate": "ff_proj", "up": "up_proj", "down": "ff_out",
    }  # fmt: skip
    blocks = [{k: f"{prefix}blocks.{i}.{n}" for k, n in names.items()} for i in range(c["n_layers"])]
    kv_heads = c["n_kv_heads"] or c["n_heads"]
    logits = _forward(t, tokens_L, prefix + "wte.weight", blocks, prefix + "ln_f.weight", head,
                      c["n_heads"], kv_heads, c["rms_norm_eps"], c["rope_theta"])  # fmt: skip
    return logits / c["d_model"] ** 0.5 if c["scale_logits"] else logits


def dream_logits(t: Tensors, c: dict[str, Any], tokens_L: Tensor) -> Tensor:
    """Logits (L, V) of one row without padding, shifted: those of position i are read at i − 1, of the first at 0."""
    head = "model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"
    names = {
        "norm1": "input_layernorm", "norm2": "post_attention_layernorm", "q": "self_attn.q_proj",
        "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj",
        "up": "mlp.up_proj", "down": "mlp.down_proj",
    }  # fmt: skip
    blocks = [{k: f"model.layers.{i}.{n}" for k, n in names.items()} for i in range(c["num_hidden_layers"])]
    heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
    plain = _forward(t, tokens_L, "model.embed_tokens.weight", blocks, "model.norm.weight", head,
                     heads, groups, c["rms_norm_eps"], c["rope_theta"])  # fmt: skip
    return torch.stack([plain[max(i - 1, 0)] for i in range(len(tokens_L))])


def _forward(
    tensors: Tensors,
    tokens_L: Tensor,
    table: str,
    blocks: list[dict[str, str]],
    last_norm: str,
    head: str,
    heads: int,
    kv_heads: int,
    eps: float,
    theta: float,
) -> Tensor:
    t = {name: value.double() for name, value in tensors.items()}

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return torch.stack([v / (v.pow(2).mean() + eps).sqrt() * weight for v in x])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", torch.zeros((), dtype=torch.float64))

    x = t[table][tokens_L]
    for b in blocks:
        n = norm(x, t[b["norm1"] + ".weight"])
        q, k, v = linear(n, b["q"]), linear(n, b["k"]), linear(n, b["v"])
        size = q.shape[1] // heads
        mixed = []
        for h in range(heads):
            g = h * kv_heads // heads
            here = slice(g * size, (g + 1) * size)
            queries, keys = turned(q[:, h * size : (h + 1) * size], theta), turned(k[:, here], theta)
            mixed.append((queries @ keys.T / size**0.5).softmax(-1) @ v[:, here])
        x = x + linear(torch.cat(mixed, 1), b["o"])
        n = norm(x, t[b["norm2"] + ".weight"])
        gate = linear(n, b["gate"])
        x = x + linear(gate / (1 + (-gate).exp()) * linear(n, b["up"]), b["down"])
    return norm(x, t[last_norm]) @ t[head].T


def turned(x_LF: Tensor, theta: float) -> Tensor:
    """Rotary positions: numbers j and j + F/2 of a head are a point in the plane, turned by position · θ^(−2j/F)."""
    out, half = x_LF.clone(), x_LF.shape[1] // 2
    for position in range(len(x_LF)):
        for j in range(half):
            angle = torch.tensor(position * theta ** (-j / half), dtype=torch.float64)
            a, b = x_LF[position, j], x_LF[position, j + half]
            out[position, j] = a * angle.cos() - b * angle.sin()
            out[position, j + half] = b * angle.cos() + a * angle.sin()
    return out
