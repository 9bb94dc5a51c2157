"""Which tokens a training masks: a uniformly drawn share, or those of least entropy first (ENS).

Entropy-ordered training (Koh et al., arXiv 2411.06438, ENS; its details are reconstructed): a target's tokens are
ranked by how uncertain a model is of them, the surest first, and cut into T bins as equal as can be; t is drawn from
1 … T, and bins 1 … t are masked. Going back, the most uncertain are written first and the surest last.
All draws are keyed by (row, visit). Knows no network.

Shape suffixes: B rows, L positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffq.models.base import TextBatch
from diffq.rng import Rng, Stream, uniform

Fill = Literal["ranked", "apart"]
"""How what a room has beyond its target takes part: `ranked` among the target's tokens like any of them, or `apart`,
cut into bins of its own, the last place of the room in the first."""


@dataclass(frozen=True)
class Masking:
    """How a training masks: `uniform`, or `ens` in so many bins."""

    noise: Literal["uniform", "ens"] = "uniform"
    bins: int = 5
    fill: Fill = "ranked"


def rank(value_BL: Tensor, valid_BL: Tensor) -> Tensor:
    """The rank of each valid position in its row, from 0 for the least value; of equal ones the first is less. Others
    stand behind all valid ones."""
    placed_BL = value_BL.double().masked_fill(~valid_BL, math.inf)
    return placed_BL.argsort(stable=True, dim=1).argsort(stable=True, dim=1)


def bins_of(entropy_BL: Tensor, valid_BL: Tensor, bins: int) -> Tensor:
    """Each position's bin, 1 … bins, whose sizes in a row differ by one at most; 0 where it is not valid."""
    count_B1 = valid_BL.sum(1, keepdim=True).clamp(min=1)
    return torch.where(valid_BL, rank(entropy_BL, valid_BL) * bins // count_B1 + 1, 0)


def fills(tokens_BL: Tensor, valid_BL: Tensor, end: int) -> Tensor:
    """What a room has beyond its target: the places behind its first end token."""
    ended_BL = (tokens_BL == end) & valid_BL
    return valid_BL & (ended_BL.cumsum(1) - ended_BL.long() > 0)


def room_bins(entropy_BL: Tensor, tokens_BL: Tensor, valid_BL: Tensor, end: int, masking: Masking) -> Tensor:
    """The bins of rooms, as `masking` says how their fillings take part."""
    if masking.fill == "ranked":
        return bins_of(entropy_BL, valid_BL, masking.bins)
    fill_BL = fills(tokens_BL, valid_BL, end)
    from_behind_L = -torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    behind_BL = bins_of(from_behind_L.expand(tokens_BL.shape), fill_BL, masking.bins)
    return bins_of(entropy_BL, valid_BL & ~fill_BL, masking.bins) + behind_BL


def masked_uniformly(batch: TextBatch, rng: Rng) -> Tensor:
    """A number of places drawn from 1 … all that may be masked, and so many of them, all choices alike."""
    count_B = batch.valid_BL.sum(1)
    drawn_B = uniform(rng.key(Stream.TRAIN_TIME, batch.row_B, batch.visit_B))
    number_B = (drawn_B * count_B).long().clamp(max=(count_B - 1).clamp(min=0)) + 1
    return (rank(_noise(batch, rng), batch.valid_BL) < number_B[:, None]) & batch.valid_BL


def masked_by_bins(bin_BL: Tensor, bins: int, batch: TextBatch, rng: Rng) -> tuple[Tensor, Tensor]:
    """The places of bins 1 … t for a drawn t, and those of the newest of these bins that is not empty."""
    drawn_B = uniform(rng.key(Stream.TRAIN_TIME, batch.row_B, batch.visit_B))
    step_B1 = (drawn_B * bins).long().clamp(max=bins - 1)[:, None] + 1
    masked_BL = (bin_BL > 0) & (bin_BL <= step_B1)
    newest_B1 = torch.where(masked_BL, bin_BL, 0).amax(1, keepdim=True)
    return masked_BL, masked_BL & (bin_BL == newest_B1)


def halves(batch: TextBatch, rng: Rng) -> tuple[Tensor, Tensor]:
    """The places that may be masked, in two halves by keyed draws."""
    half_BL = rank(_noise(batch, rng), batch.valid_BL) < (batch.valid_BL.sum(1, keepdim=True) + 1) // 2
    return half_BL & batch.valid_BL, ~half_BL & batch.valid_BL


def _noise(batch: TextBatch, rng: Rng) -> Tensor:
    position_L = torch.arange(batch.tokens_BL.shape[1], device=batch.tokens_BL.device)
    return uniform(rng.key(Stream.TRAIN_NOISE, batch.row_B[:, None], batch.visit_B[:, None], position_L))
