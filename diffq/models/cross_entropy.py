"""The cross-entropy of a projection on a large vocabulary, and its gradients, some positions at a time.

On a CPU the scores of all masked positions (2,000 × 50,000 float32: 400 MB, several times over) cost more than the
network; here only `_AT_ONCE` positions' scores are there at a time, and their gradients are made while they are.

Shape suffixes: N positions, D width, V tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_AT_ONCE = 128  # positions


class _InParts(torch.autograd.Function):
    """Σ weight·cross-entropy. Gradients are computed with the value; going back only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, matrix_VD: Tensor, bias_V: Tensor, target_N: Tensor, weight_N: Tensor
    ) -> Tensor:
        made = tuple(torch.zeros_like(x) for x in (hidden_ND, matrix_VD, bias_V)) if any(ctx.needs_input_grad) else ()
        total = hidden_ND.new_zeros(())
        for first in range(0, len(hidden_ND), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            inner, target, weight = hidden_ND[part], target_N[part, None], weight_N[part, None]
            scores = torch.addmm(bias_V, inner, matrix_VD.t())
            log_z = scores.logsumexp(-1, keepdim=True)
            total += ((log_z - scores.gather(1, target)) * weight).sum()
            if made:
                scores.sub_(log_z).exp_().scatter_add_(1, target, scores.new_full(target.shape, -1.0)).mul_(weight)
                torch.mm(scores, matrix_VD, out=made[0][part])
                made[1].addmm_(scores.t(), inner)
                made[2].add_(scores.sum(0))
        ctx.save_for_backward(*made)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (scale,) = upstream
        return (*(gradient * scale for gradient in ctx.saved_tensors), None, None)


def weighted_sum(hidden_ND: Tensor, matrix_VD: Tensor, bias_V: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
    """Σ weight · −log softmax(hidden · matrixᵀ + bias)[target], float32. The bias may be −inf where nothing is drawn.

    On a CPU in float32 in parts, elsewhere at once. `weight_N` gets no gradient.
    """
    if hidden_ND.device.type == "cpu" and hidden_ND.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        total: Tensor = _InParts.apply(hidden_ND, matrix_VD, bias_V, target_N, weight_N)
        return total
    scores_NV = F.linear(hidden_ND, matrix_VD, bias_V).float()
    return (F.cross_entropy(scores_NV, target_N, reduction="none") * weight_N).sum()
