"""How much work a causal model of Hugging Face does, from its config.json alone.

The library's own class is made on torch's `meta` device, which has shapes and no numbers, so no size is written down
here that the library may have otherwise. Counted is what is a stack of blocks over a growing cache: families that are
tested against torch's counter. Knows no weights and no clock; what FLOPs, elements and the like are says `work`.

Symbols: D width, H heads, F head dimension, K heads of keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.models.work import Work

FAMILIES = ("gpt2", "gpt_neo", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma")
# Of a block: operations started, and passes over its D-wide stream (norms, the activation's four widths, sums); what
# is started around the blocks.
_STARTED_A_BLOCK, _STARTED_A_CALL, _PASSES = 30, 40, 50


@dataclass(frozen=True)
class PretrainedWork:
    """The `TextWork` of one network.

    vocab_size  tokens that are projected on
    inner       numbers of a position that are multiplied with each word
    parameters  numbers of the network, shared ones once
    multiplied  numbers of its matrices, those of embeddings and the projection on the vocabulary left out
    attended    H·F; kept: K·F
    """

    vocab_size: int
    inner: int
    parameters: int
    multiplied: int
    layers: int
    width: int
    heads: int
    attended: int
    kept: int

    def run(self, rows: int, tokens: int, asked: int, seen: int) -> Work:
        # The library's cache is a new tensor after every call: the old one is read and written once more.
        traffic = tokens * (_PASSES * self.width + 3 * self.heads * seen) + 4 * self.kept * seen
        return Work(
            started=_STARTED_A_BLOCK * self.layers + _STARTED_A_CALL,
            flops=rows * tokens * (2 * self.multiplied + 4 * self.layers * seen * self.attended),
            elements=rows * self.layers * traffic,
            streamed=self.multiplied,
        )

    def project(self, positions: float) -> float:
        return 2.0 * positions * self.vocab_size * self.inner

    def activations(self, rows: int, tokens: int, length: int) -> int:
        # The cache, and while a layer of it grows that layer once more.
        cache = 2 * rows * (length + 1) * self.kept * (self.layers + 1)
        return rows * tokens * 12 * self.width + cache


def work_of(folder: Path, words: int) -> PretrainedWork | None:
    """The work of the network of a folder, of whose tokens the first `words` may be drawn; None for a family that
    nobody has counted, and where attention sees a window alone."""
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    windowed = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    if config.model_type not in FAMILIES or windowed:
        return None
    return _counted(config, words)


def _counted(config: Any, words: int) -> PretrainedWork:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    matrices = [m.weight for m in model.base_model.modules() if isinstance(m, torch.nn.Linear | Conv1D)]
    vocabulary, inner = model.get_output_embeddings().weight.shape
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return PretrainedWork(
        vocab_size=min(words, vocabulary),
        inner=inner,
        parameters=sum(p.numel() for p in model.parameters()),
        multiplied=sum(w.numel() for w in matrices),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=heads,
        attended=heads * head_dim,
        kept=(getattr(config, "num_key_value_heads", None) or heads) * head_dim,
    )
