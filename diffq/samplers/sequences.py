"""Whole sequences weighed against each other, beyond arXiv 2604.00375: what its step-by-step look-ahead is an
approximation of.

Order and rounds are known before anything is drawn, so writing gives every text x a probability
P(x) = ∏ p(x_i | what was written in rounds before), a proper distribution; writing at a temperature proposes with the
known probability q(x) = ∏ q(x_i | …). At one position a round P is p, the model's own law along the order. Where a
round writes several it is the law of writing in parallel: tokens of one round count as independent.

    sequence_imh  a chain over K + 1 whole texts with w = P(x)^α / q(x): as K → ∞ the law along each order is P^α / Z
    best_of       of n texts the one with the largest P
    power         p^α itself, from left to right, by enumeration of all texts that are not too improbable: for small
                  worlds

Knows no network.

Shape suffixes: B rows of the canvas, C texts of a row, R = B·C, L positions, Q positions of a step, M prefixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Step, open_guided
from diffq.diffusion.draws import DrawAndZ
from diffq.diffusion.reductions import LogProb, LogZ, Top
from diffq.diffusion.row_draws import sharpened
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng, Stream, exponential
from diffq.samplers.chains import run_chain
from diffq.samplers.decoding import Counting, first_in_order, known_order
from diffq.samplers.masked import GuidedByPrompt, mask_free
from diffq.samplers.rounds import Ended
from diffq.settings import setting


@dataclass(frozen=True)
class Paths:
    """Texts and the log-probabilities of their paths.

    tokens_BCL
    log_p_BC    P of the module's docstring, the law of writing at temperature 1, float64
    log_q_BC    under the proposal they were drawn from
    """

    tokens_BCL: Tensor
    log_p_BC: Tensor
    log_q_BC: Tensor


@dataclass(frozen=True, kw_only=True)
class WholeSequences(Counting):
    """What samplers of whole sequences have in common: several texts of every row, written side by side."""

    positions: Literal["random", "left_to_right"] = setting(
        "random", "the order of positions, the same for all texts of a row"
    )

    def paths(
        self, denoiser: Any, canvas: Canvas, rng: Rng, count: int, temperature: float, on_step: OnStep | None
    ) -> Paths:
        """`count` texts of every row, drawn at a temperature."""
        rows_R = torch.arange(len(canvas.tokens_BL), device=canvas.device).repeat_interleave(count)
        visit_R = torch.arange(count, device=canvas.device).repeat(len(canvas.tokens_BL))
        wide = canvas.map(lambda x: x[rows_R]).replace(end=None)  # a text is weighed with what follows its end
        tokens_RL, masked_RL = mask_free(wide, denoiser.mask), wide.free_BL.clone()
        session = self.open(denoiser, canvas).fork(rows_R)
        blocks = self.blocks(wide)
        plan = self.rounds(wide, blocks)
        order_RL = known_order(self.positions, wide, rng)
        here_R = torch.arange(len(rows_R), device=canvas.device)
        log_p_R = torch.zeros(len(rows_R), dtype=torch.float64, device=canvas.device)
        log_q_R = torch.zeros_like(log_p_R)
        for now in plan.rounds(masked_RL, Ended(wide, tokens_RL)):
            if (kept := now.staying(here_R)) is not None:
                session.select(kept)
                here_R = now.row_R
            assert now.quotas is not None
            at_RQ, slots = first_in_order(now.open_RL, now.quotas, order_RL[here_R])
            hidden = session.run(tokens_RL[here_R], now.noise_R, at_RQ)
            key_N = rng.key(Stream.TOKEN, wide.row_B[here_R, None], visit_R[here_R, None], at_RQ).flatten()[slots]
            ((token_N, _, log_p_N),) = session.read(hidden, slots, [DrawAndZ(key_N, temperature)])
            log_q_N = log_p_N
            if temperature != 1:
                (log_q_N,) = session.read(hidden, slots, [sharpened(LogProb(token_N), temperature)])
            row_N, at_N = here_R[slots // at_RQ.shape[1]], at_RQ.flatten()[slots]
            tokens_RL[row_N, at_N], masked_RL[row_N, at_N] = token_N, False
            log_p_R.index_add_(0, row_N, log_p_N)
            log_q_R.index_add_(0, row_N, log_q_N)
            if on_step is not None:
                first = slice(None, None, count)
                time_B = (masked_RL.sum(1).double() / blocks.free_B.clamp(min=1))[first]
                on_step(Step(now.index, plan.total, time_B, canvas, tokens_RL[first].clone))
        shape = (len(canvas.tokens_BL), count)
        return Paths(tokens_RL.view(*shape, -1), log_p_R.view(shape), log_q_R.view(shape))

    @staticmethod
    def filled(canvas: Canvas, paths: Paths, pick_B: Tensor) -> Canvas:
        row_B = torch.arange(len(pick_B), device=pick_B.device)
        return canvas.replace(tokens_BL=paths.tokens_BCL[row_B, pick_B])


@SAMPLERS.register("best_of")
@dataclass(frozen=True, kw_only=True)
class BestOf(WholeSequences):
    """The most probable of several texts: under the model at one token a round, else under the law of writing so many
    at a time as if they were independent."""

    candidates: int = setting(4, "the texts that are compared", low=1, high=4096)
    temperature: float = setting(1.0, "that they are drawn at", above=0)

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        paths = self.paths(denoiser, canvas, rng, self.candidates, self.temperature, on_step)
        return self.filled(canvas, paths, paths.log_p_BC.argmax(1))


@SAMPLERS.register("sequence_imh")
@dataclass(frozen=True, kw_only=True)
class SequenceIMH(WholeSequences):
    """Independent Metropolis–Hastings over whole texts.

    The target is p^α at one token a round. With more (`tokens_per_step`, `steps`) it is the power of another law, that
    of writing so many at a time as if they were independent, and not near p^α.
    """

    records: ClassVar[tuple[str, ...]] = ("acceptance", "ess", "spread")

    alpha: float = setting(
        4.0, "the power of the target: of p at one token a step, else of the law of writing in parallel", above=0
    )
    chain: int = setting(4, "K, the texts proposed after the first", low=0, high=1024)
    proposal: Literal["tempered", "plain"] = setting("tempered", "tokens of texts are drawn from p^α or from p")

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        temperature = 1 / self.alpha if self.proposal == "tempered" else 1.0
        paths = self.paths(denoiser, canvas, rng, self.chain + 1, temperature, on_step)
        log_w_BC = self.alpha * paths.log_p_BC - paths.log_q_BC
        pick_B, stats = run_chain(log_w_BC, rng.key(Stream.ACCEPT, canvas.row_B))
        filled = self.filled(canvas, paths, pick_B)
        if on_step is not None:
            done_B = torch.zeros(len(pick_B), dtype=torch.float64, device=pick_B.device)
            total = int(canvas.free_BL.sum(1).max())
            told = stats if self.chain else {}  # of one text nothing is accepted or turned down
            on_step(Step(total, total + 1, done_B, filled, filled.tokens_BL.clone, told))
        return filled


_BEGINNINGS = 1024  # that the network is given at a time
_SCORES = 1 << 20  # of continuations that are held at a time: 20 MB
_MOST_TEXTS = 100  # decimal digits of a number of texts that enumeration is tried on; forms of the worlds have below 97


@SAMPLERS.register("power")
@dataclass(frozen=True, kw_only=True)
class Power(GuidedByPrompt):
    """Draws from p^α by enumeration, from left to right, of every text of at least a probability."""

    records: ClassVar[tuple[str, ...]] = ("lost",)
    foreseeable: ClassVar[bool] = False

    alpha: float = setting(1.0, "the power of the target p^α", above=0)
    floor: float = setting(1e-6, "beginnings that are less probable are left out", above=0, high=0.1)
    limit: int = setting(100_000, "the most beginnings that are followed at a time", low=1)

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        tokens_BL = mask_free(canvas, denoiser.mask)
        session = open_guided(denoiser, canvas, self.scale)
        self._refuse_hopeless(int(canvas.free_BL.sum(1).max()), session.words)
        asked_BL = torch.where(canvas.valid_BL, tokens_BL, -1)
        same_B = torch.unique(asked_BL, dim=0, return_inverse=True)[1]
        lost_B = torch.zeros(len(tokens_BL), dtype=torch.float64, device=canvas.device)
        filled_BL, groups = tokens_BL.clone(), int(same_B.max()) + 1
        for group in range(groups):
            row_K = (same_B == group).nonzero().squeeze(1)
            texts_ML, log_p_M = self._enumerate(session, canvas, row_K[0], tokens_BL[row_K[0]])
            lost_B[row_K] = 1 - log_p_M.exp().sum()
            lane_M = torch.arange(len(log_p_M), device=canvas.device)
            race_KM = exponential(rng.key(Stream.TOKEN, canvas.row_B[row_K])[:, None], lane_M).log()
            filled_BL[row_K] = texts_ML[(race_KM - self.alpha * log_p_M).argmin(1)]
            if on_step is not None:
                time_B = (same_B > group).double()
                on_step(Step(group, groups, time_B, canvas, filled_BL.clone, {"lost": lost_B.clone()}))
        return canvas.replace(tokens_BL=filled_BL)

    @staticmethod
    def _refuse_hopeless(free: int, words: int) -> None:
        """UserError where texts are so many that following them would take minutes only to find them too many."""
        digits = free * math.log10(words)
        if digits > _MOST_TEXTS:
            raise UserError(
                f"power enumerates texts, and {free} free tokens of {words} are 10^{digits:.0f} of them, more than"
                f" 10^{_MOST_TEXTS}; ask for fewer free tokens, or take sampler=sequence_imh, whose law at one token a"
                " step is p^α for long chains"
            )

    def _enumerate(self, session: Any, canvas: Canvas, row: Tensor, tokens_L: Tensor) -> tuple[Tensor, Tensor]:
        """All texts of a row, (M, L), and their log-probabilities; UserError where they are too many."""
        place_F = canvas.free_BL[row].nonzero().squeeze(1)
        texts_ML, log_p_M = tokens_L[None], torch.zeros(1, dtype=torch.float64, device=tokens_L.device)
        for i, place in enumerate(place_F):
            share = 1 - i / len(place_F)
            prefix_M, token_M, next_M = self._continued(session, row, place, share, texts_ML, log_p_M)
            if not 0 < len(prefix_M) <= self.limit:
                many = f"{len(prefix_M)} or more" if len(prefix_M) else "no"
                mend = f"raise limit, or floor to {10 * self.floor:g}" if len(prefix_M) else "lower floor"
                raise UserError(
                    f"power: after {i + 1} of {len(place_F)} tokens {many} beginnings have a probability of at least"
                    f" floor={self.floor:g}, and 1 to limit={self.limit} can be followed; {mend}"
                )
            texts_ML = texts_ML[prefix_M].index_fill(1, place, 0)
            texts_ML[:, place], log_p_M = token_M, next_M
        return texts_ML, log_p_M

    def _continued(
        self, session: Any, row: Tensor, place: Tensor, share: float, texts_ML: Tensor, log_p_M: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on from beginnings by a token at a place: whose number, the token, and the log-probability of both.
        Where they are more than can be followed some are missing."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        total = 0
        for some_M in torch.arange(len(texts_ML), device=place.device).split(_BEGINNINGS):
            count = len(some_M)
            share_M = torch.full((count,), share, dtype=torch.float64, device=place.device)
            forked = session.fork(row.expand(count))
            hidden = forked.run(texts_ML[some_M], share_M, place.expand(count, 1))
            # At most p / floor continuations of a beginning of probability p are probable enough.
            likely = float(log_p_M[some_M].max().exp()) / self.floor + 1
            words = int(min(session.words, self.limit + 1, likely))
            for slot_N in torch.arange(count, device=place.device).split(max(1, _SCORES // words)):
                (score_NT, token_NT), log_z_N = forked.read(hidden, slot_N, [Top(words), LogZ()])
                next_NT = log_p_M[some_M[slot_N], None] + score_NT.double() - log_z_N[:, None]
                at_N, rank_N = (next_NT >= math.log(self.floor)).nonzero(as_tuple=True)
                found.append((some_M[slot_N[at_N]], token_NT[at_N, rank_N], next_NT[at_N, rank_N]))
                total += len(at_N)
                if total > self.limit:
                    break
            if total > self.limit:
                break
        prefix_M, token_M, next_M = (torch.cat(part) for part in zip(*found, strict=True))
        return prefix_M, token_M, next_M
