"""Likelihoods of given tokens through the denoiser contract: exact ones of causal models, bounds of discrete diffusion.

Both are of −log p of the free tokens of a canvas, in nats a row. A causal model gives each token given all before it.
Of diffusion there is a Monte-Carlo estimate of a bound, given all tokens that are not free. Noise levels of a row are
stratified (each of n draws falls into its own n-th of the range, with one keyed shift), so their number buys more than
independent ones would; two replicates with shifts of their own tell the error. Draws are keyed by row and position
alone: rows with one id share their noise, which is how choices are compared.

Shape suffixes: B rows, L positions, N scored positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.discrete import Uniform
from diffq.diffusion.reductions import LogProb, LogZ, Reduction
from diffq.diffusion.score_entropy import ScoreSums, absorbing_entropy, uniform_entropy, uniform_prior_divergence
from diffq.rng import Rng, Stream, uniform


def bound(denoiser: Any, canvas: Canvas, rng: Rng, draws: int, replicate: int = 0) -> Tensor:
    """An unbiased estimate of the bound of each row, float64 (B,), from `draws` network calls.

    The canvas holds the text; what is free is scored, the rest is given. Rows without a free position have 0.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")
    one = _absorbing_draw if denoiser.process == "absorbing" else _uniform_draw
    session = denoiser.open(canvas)
    shift_B = uniform(rng.key(Stream.BOUND_TIME, canvas.row_B, replicate))
    total_B = torch.zeros(len(canvas.row_B), dtype=torch.float64, device=canvas.device)
    for i in range(draws):
        level_B = (shift_B + i / draws).frac()
        total_B += one(denoiser, session, canvas, rng, level_B, replicate * draws + i)
    total_B /= draws
    if denoiser.process == "uniform":
        sigma = torch.tensor(denoiser.noise.highest, dtype=torch.float64, device=canvas.device)
        total_B += uniform_prior_divergence(sigma, denoiser.vocab_size) * canvas.free_BL.sum(1)
    return total_B


def _absorbing_draw(denoiser: Any, session: Any, canvas: Canvas, rng: Rng, level_B: Tensor, visit: int) -> Tensor:
    """One draw of ∫ dm/m · E[Σ over masked positions of `absorbing_entropy`] over m in (0, 1].

    With n free positions that is n times the mean, over k = 1 … n equally likely, of the sum over k masked positions
    divided by k, where m is the k-th smallest of n uniforms and the masked positions are those of the k smallest:
    dm/m times the law of the mask is 1/k times the law of an order statistic. So no draw is lost on an empty mask, and
    no weight is large.
    """
    position_L = torch.arange(canvas.shape[1], device=canvas.device)
    uniform_BL = uniform(rng.key(Stream.BOUND_NOISE, canvas.row_B[:, None], visit, position_L))
    uniform_BL = uniform_BL.masked_fill(~canvas.free_BL, 2.0)
    count_B = canvas.free_BL.sum(1)
    k_B = ((level_B * count_B).long() + 1).clamp(max=count_B.clamp(min=1))
    noise_B = uniform_BL.sort(1).values.gather(1, k_B[:, None] - 1).squeeze(1).clamp(max=1.0)
    masked_BL = (uniform_BL <= noise_B[:, None]) & canvas.free_BL
    hidden = session.run(torch.where(masked_BL, denoiser.mask, canvas.tokens_BL), noise_B)
    position_N = masked_BL.flatten().nonzero().squeeze(1)
    log_p_N, log_z_N = session.read(hidden, position_N, [LogProb(canvas.tokens_BL.flatten()[position_N]), LogZ()])
    term_N = absorbing_entropy(log_z_N, log_p_N) if denoiser.learnt_z else -log_p_N
    return by_row(term_N, position_N, canvas) * count_B / k_B


def _uniform_draw(denoiser: Any, session: Any, canvas: Canvas, rng: Rng, level_B: Tensor, visit: int) -> Tensor:
    """One draw of ∫ dt · σ'(t) · Σ over positions of `uniform_entropy`."""
    position_L = torch.arange(canvas.shape[1], device=canvas.device)
    key_BL = rng.key(Stream.BOUND_NOISE, canvas.row_B[:, None], visit, position_L)
    share_B = denoiser.noise.share(level_B)
    process = Uniform(denoiser.vocab_size)
    noised_BL = process.destroy(canvas.tokens_BL, share_B[:, None], uniform(key_BL), uniform(key_BL, 1))
    noised_BL = torch.where(canvas.free_BL, noised_BL, canvas.tokens_BL)
    hidden = session.run(noised_BL, share_B)
    position_N = canvas.free_BL.flatten().nonzero().squeeze(1)
    token_N, clean_N = noised_BL.flatten()[position_N], canvas.tokens_BL.flatten()[position_N]
    ((sum_N, logs_N, log_clean_N),) = session.read(hidden, position_N, [ScoreSums(token_N, clean_N)])
    sigma_N = denoiser.noise.total(level_B)[position_N // canvas.shape[1]]
    term_N = uniform_entropy(sum_N, logs_N, log_clean_N, token_N == clean_N, sigma_N, denoiser.vocab_size)
    return by_row(term_N, position_N, canvas) * denoiser.noise.rate(level_B)


def exact(denoiser: Any, canvas: Canvas) -> Tensor:
    """−log p of the free tokens of each row under a causal model, float64 (B,): what `bound` is to diffusion."""
    position_N, log_p_N = teacher_forced(denoiser, canvas)
    return -by_row(log_p_N, position_N, canvas)


def teacher_forced(
    denoiser: Any, canvas: Canvas, *more: Reduction, from_start: bool = True
) -> tuple[Tensor, Tensor, *tuple[Any, ...]]:
    """The places of the free tokens in the flattened canvas (N,), and log p of each given all tokens before it in its
    row, float64 (N,), from one pass of a causal model.

    more        reductions of the same distributions, whose results follow
    from_start  the start token stands before each row; without it the model reads a token less, and ValueError where
                the first token of a row is free, since nothing stands before it
    """
    position_N = canvas.free_BL.flatten().nonzero().squeeze(1)
    token_N, length = canvas.tokens_BL.flatten()[position_N], canvas.shape[1]
    read_BL, place_N = canvas.tokens_BL[:, :-1], position_N
    if from_start:
        read_BL = torch.cat([torch.full_like(canvas.tokens_BL[:, :1], denoiser.start), read_BL], 1)
    elif bool(canvas.free_BL[:, 0].any()):
        raise ValueError("the first token of a row is free and nothing stands before it")
    else:
        place_N = position_N - position_N // length - 1  # what a token predicts stands one place behind it
    all_BL = torch.ones_like(read_BL, dtype=torch.bool)
    session = denoiser.open(Canvas(read_BL, all_BL, all_BL, canvas.row_B))
    return position_N, *session.read(session.run(read_BL), place_N, [LogProb(token_N), *more])


def by_row(term_N: Tensor, position_N: Tensor, canvas: Canvas) -> Tensor:
    """Sums of terms at places of the flattened canvas, each place once, over each row: float64 (B,).

    The terms are laid out before they are added up, since adding in place has other last bits on a GPU each time.
    """
    term_BL = torch.zeros(canvas.shape, dtype=torch.float64, device=canvas.device)
    term_BL.view(-1)[position_N] = term_N.double()
    return term_BL.sum(1)
