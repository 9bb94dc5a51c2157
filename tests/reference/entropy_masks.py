"""ENS in its textbook arrangement: one target at a time, one token at a time.

Source: Koh et al., arXiv 2411.06438 (reconstructed). Symbols: T bins, N places, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def bins(entropies: Sequence[float], T: int) -> list[int]:
    """The bin of each place: the places by entropy, of equal ones the first first, cut where bN/T is reached."""
    N = len(entropies)
    order = sorted(range(N), key=lambda i: (entropies[i], i))
    found = [0] * N
    for b in range(1, T + 1):
        for i in order[math.ceil((b - 1) * N / T) : math.ceil(b * N / T)]:
            found[i] = b
    return found


@torch.no_grad()
def log_p(model: Any, tokens_L: Tensor) -> Tensor:
    """Log-probabilities of one row without padding, (L, V) float64, by the library's own pieces."""
    logits_LV = _logits(model, tokens_L)
    logits_LV[:, list(model.never)] = -math.inf
    return logits_LV.double().log_softmax(-1)


def _logits(model: Any, tokens_L: Tensor) -> Tensor:
    features_LD = model.features(model.states(tokens_L[None])[0])
    return F.linear(features_LD, model.matrix.weight, model.matrix.bias)[:, : model.words]


def entropy(log_p_V: Tensor) -> float:
    return -sum(float(p) * math.log(float(p)) for p in log_p_V.exp() if p > 0)


def frozen_full(model: Any, tokens_L: Tensor, places: Sequence[int]) -> list[float]:
    """The entropy of each place with it alone masked."""
    found = []
    for place in places:
        noised_L = tokens_L.clone()
        noised_L[place] = model.mask
        found.append(entropy(log_p(model, noised_L)[place]))
    return found


def frozen_once(model: Any, tokens_L: Tensor, places: Sequence[int]) -> list[float]:
    """The entropy of each place with nothing masked."""
    log_p_LV = log_p(model, tokens_L)
    return [entropy(log_p_LV[place]) for place in places]


def loss(model: Any, tokens_L: Tensor, masked: Sequence[int], counted: Sequence[int]) -> float:
    """The mean cross-entropy of the counted places, with the masked ones masked."""
    noised_L = tokens_L.clone()
    noised_L[list(masked)] = model.mask
    log_p_LV = log_p(model, noised_L)
    return -sum(float(log_p_LV[i, tokens_L[i]]) for i in counted) / len(counted)
