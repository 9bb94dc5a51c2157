"""Dense versions of every reduction: the whole row of scores at once, one formula each.

Shape suffixes: N positions, V vocabulary, C blocks of 256 ids.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffq.rng import exponential

BLOCK = 256
BLOCK_LANE = 1 << 40


def race(weights_NV: Tensor, key_N: Tensor) -> Tensor:
    """The two-level exponential race over weights: first between the sums of blocks, then within the winner."""
    v = weights_NV.shape[1]
    whole = v // BLOCK
    sums_NC = weights_NV[:, : whole * BLOCK].unflatten(1, (whole, BLOCK)).sum(-1)
    if v % BLOCK:
        sums_NC = torch.cat([sums_NC, weights_NV[:, whole * BLOCK :].sum(-1, keepdim=True)], 1)
    lanes = BLOCK_LANE + torch.arange(sums_NC.shape[1], device=weights_NV.device)
    block_N = (exponential(key_N[:, None], lanes) / sums_NC.double()).argmin(-1)
    id_N256 = block_N[:, None] * BLOCK + torch.arange(BLOCK, device=weights_NV.device)
    winner_N256 = weights_NV.gather(1, id_N256.clamp(max=v - 1)).double().masked_fill(id_N256 >= v, 0)
    return id_N256.gather(1, (exponential(key_N[:, None], id_N256) / winner_N256).argmin(-1, keepdim=True)).squeeze(1)


def draw(scores_NV: Tensor, key_N: Tensor | None, temperature: float) -> Tensor:
    """A token from softmax(scores / temperature), or the best one."""
    if temperature == 0:
        return scores_NV.argmax(-1)
    assert key_N is not None
    return race(torch.softmax(scores_NV.double() / temperature, -1), key_N)


def nucleus(scores_NV: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The scores with all but the top k and the nucleus set to −inf, step by step as Hugging Face's warpers do it."""
    scores_NV = scores_NV.double() / temperature
    if top_k:
        kth_N1 = scores_NV.topk(min(top_k, scores_NV.shape[1]), -1).values[:, -1:]
        scores_NV = scores_NV.masked_fill(scores_NV < kth_N1, -math.inf)
    if top_p < 1:
        ascending_NV, order_NV = scores_NV.sort(-1)
        remove_NV = ascending_NV.softmax(-1).cumsum(-1) <= 1 - top_p
        remove_NV[:, -1] = False
        scores_NV = scores_NV.masked_fill(torch.zeros_like(remove_NV).scatter(1, order_NV, remove_NV), -math.inf)
    return scores_NV


def nucleus_draw(scores_NV: Tensor, key_N: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    return race(torch.softmax(nucleus(scores_NV, temperature, top_k, top_p), -1), key_N)


def top(scores_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    scores, tokens = torch.sort(scores_NV, dim=-1, descending=True, stable=True)
    return scores[:, :k], tokens[:, :k]


def log_z(scores_NV: Tensor) -> Tensor:
    return scores_NV.double().logsumexp(-1)


def log_prob(scores_NV: Tensor, token_N: Tensor) -> Tensor:
    return scores_NV.double().log_softmax(-1).gather(1, token_N[:, None]).squeeze(1)


def log_power(scores_NV: Tensor, alpha: float) -> Tensor:
    return scores_NV.double().softmax(-1).pow(alpha).sum(-1).log()


def entropy(scores_NV: Tensor, order: float) -> Tensor:
    """Shannon at order 1, −log max p at infinity, Rényi between."""
    p_NV = scores_NV.double().softmax(-1)
    if order == 1:
        return -torch.special.xlogy(p_NV, p_NV).sum(-1)
    if math.isinf(order):
        return -p_NV.amax(-1).log()
    return p_NV.pow(order).sum(-1).log() / (1 - order)
