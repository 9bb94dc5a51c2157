"""Small random models on which fast and textbook code are compared, and canvases for them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from diffq.diffusion.contracts import Canvas, row_id
from diffq.models.causal import CausalSettings
from diffq.models.gaussian import GaussianSettings
from reference.embedding import pad

SIZES = {
    "embedding": 6, "width": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 3, "dropout": 0.0, "max_length": 16,
}  # fmt: skip
SOURCES = [[2, 7, 9, 3], [2, 11, 3], [2, 5, 6, 7, 8, 20, 3], [2, 29, 14, 3], [2, 35, 3], [2, 9, 9, 12, 3]]
LENGTHS = [4, 7, 3, 5, 1, 6]


def vocabulary(size: int = 40) -> SimpleNamespace:
    return SimpleNamespace(size=size, pad=0, unk=1, start=2, end=3, mask=4)


def gaussian(size: int = 40, seed: int = 0, **changes: Any) -> Any:
    """An embedding-diffusion model whose predictions depend much on everything it is given."""
    settings = GaussianSettings(**(SIZES | {"timesteps": 100, "condition_dropout": 0.1} | changes))
    torch.manual_seed(seed)
    return _lively(settings.build(vocabulary(size)))


def causal(size: int = 40, seed: int = 0, **changes: Any) -> Any:
    settings = CausalSettings(**(SIZES | changes))
    torch.manual_seed(seed)
    return _lively(settings.build(vocabulary(size)))


@torch.no_grad()
def _lively(model: Any) -> Any:
    for part, factor in ((model.net.up, 8), (model.net.down, 2)):
        for p in part.parameters():
            p.mul_(factor)
    for name, p in model.named_parameters():
        if p.dim() == 1:
            nn.init.normal_(p, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.05)
    return model.eval()


def canvas(
    sources: Sequence[Sequence[int]] = SOURCES, lengths: Sequence[int] = LENGTHS, rows: Sequence[int] | None = None
) -> Canvas:
    """Every position of every row free; row i is sample 0 of source i unless `rows` says otherwise."""
    source_BS, source_valid_BS = pad(sources, 0)
    valid_BL = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = [row_id(i, 0) for i in range(len(sources))] if rows is None else rows
    return Canvas(
        torch.where(valid_BL, 4, 0), valid_BL, valid_BL.clone(), torch.tensor(ids), source_BS, source_valid_BS
    )


def answers(filled: Canvas) -> list[list[int]]:
    """The valid tokens of every row."""
    return [row[valid].tolist() for row, valid in zip(filled.tokens_BL, filled.valid_BL, strict=True)]
