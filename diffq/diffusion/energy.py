"""The energy of a text under a masked model read as a conditional Markov random field (D-cMRF, arXiv 2411.06438;
reconstructed after Wang & Cho 2019): E per token = −(1/F) Σ over the F free positions of the potential of the token
there, the model being shown everything else.

    log_probability   log p(x_l | everything else): E is minus the pseudo-log-likelihood
    logit             the model's own score of x_l, before it is normalised

It is no energy of a chain that draws from these conditionals: that chain's law is the joint, where there is one, and
not exp(−E)/Z. It belongs to full texts: on partial canvases it rises with every token written.

Shape suffixes: B rows, L positions, N free positions of all rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from diffq.diffusion.alone import each_alone
from diffq.diffusion.contracts import Canvas
from diffq.diffusion.reductions import LogProb, LogZ

Potential = Literal["log_probability", "logit"]


def energies(denoiser: Any, canvas: Canvas, *, potential: Potential = "log_probability", rows: int = 64) -> Tensor:
    """E per token of each row of a canvas that holds texts, float64 (B,); NaN for rows without a free position.

    rows: how many the network is given at once, each a text with one position masked. Without guidance, whatever the
    texts were sampled with. ValueError for a model of another process.
    """
    if denoiser.process != "absorbing":
        raise ValueError(f"the energy is that of a masked model, not of a {denoiser.process} one")
    asked_BL = canvas.free_BL & canvas.valid_BL
    count_B = asked_BL.sum(1).double()
    sum_B = torch.zeros_like(count_B)
    for row_N, _, (log_p_N, log_z_N) in each_alone(denoiser, canvas, asked_BL, lambda t: [LogProb(t), LogZ()], rows):
        sum_B.index_add_(0, row_N, log_p_N if potential == "log_probability" else log_p_N + log_z_N)
    return -sum_B / count_B
