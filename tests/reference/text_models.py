"""Small random text-diffusion models whose answers depend much on everything they are given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from diffq.diffusion.contracts import Canvas
from diffq.models.mdlm import MDLMSettings
from diffq.models.sedd import SEDDSettings, SEDDUniformSettings

SIZES = {"width": 32, "heads": 2, "layers": 2, "conditioning": 8, "max_length": 24, "dropout": 0.0}
WORDS = 700  # several blocks of the race

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sedd": (SEDDSettings, {}),
    "sedd_geometric": (SEDDSettings, {"noise": "geometric"}),
    "sedd_tied": (SEDDSettings, {"tied": True, "noise": "cosine"}),
    "mdlm": (MDLMSettings, {}),
    "mdlm_timed": (MDLMSettings, {"time_conditioning": True}),
    "sedd_uniform": (SEDDUniformSettings, {"noise": "geometric"}),
}


def vocabulary(words: int = WORDS) -> SimpleNamespace:
    """Ids 0 … words−1, then the mask."""
    return SimpleNamespace(size=words + 1, pad=0, unk=0, start=words - 1, end=words - 1, mask=words)


def build(name: str, words: int = WORDS, seed: int = 0, **changes: Any) -> Any:
    settings, more = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return lively(settings(**(SIZES | more | changes)).build(vocabulary(words)))


@torch.no_grad()
def lively(model: Any) -> Any:
    """Fills what begins at zero, so that time and context matter."""
    for name, p in model.named_parameters():
        if "adaLN" in name:
            nn.init.normal_(p, std=0.5)
        elif "vocab_embed" in name or name.endswith("linear.weight"):
            nn.init.normal_(p, std=0.4)
        elif name.endswith("linear.bias"):
            nn.init.normal_(p, std=0.5)
        elif "attn_qkv" in name or "sigma_map" in name:
            nn.init.normal_(p, std=0.3)
    return model.eval()


def canvas(rows: int, length: int, words: int = WORDS, given: float = 0.3, seed: int = 0) -> Canvas:
    """Every row has some positions given at random; row ids are not 0, 1, 2, …"""
    generator = torch.Generator().manual_seed(seed)
    tokens_BL = torch.randint(0, words, (rows, length), generator=generator)
    free_BL = torch.rand(rows, length, generator=generator) >= given
    free_BL[:, 0] = True
    return Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(rows) * 7 + 3)
