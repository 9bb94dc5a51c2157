"""Decoding of masked models as it is published for large ones: which positions are written in a round, and with what.

One skeleton for every rule. Its rounds are those of `rounds`. A rule (`decoding_rules`) either knows its positions
before the network is asked, and then nothing else is read; or it reads every masked position of the block and ranks
them.

    random                in a random order                                                 (LLaDA: random)
    left_to_right         as an autoregressive model goes
    low_confidence        draws everywhere, writes where what was drawn was most probable   (LLaDA; Dream: maskgit_plus)
    rank_then_sample      where the best token is most probable, then draws there           (arXiv 2604.00375's TPP)
    margin                … where the best token leads the second by most                   (Dream: topk_margin)
    entropy               … where the distribution has least entropy                        (Dream: entropy)
    eags                  … where it has most, in few rounds; may re-draw (in `eags`)       (EAGS, arXiv 2411.06438)
    confidence_threshold  low_confidence, writing all above a threshold: approximate        (Fast-dLLM)
    factor                … as many as have (n + 1)·(1 − confidence) < factor: approximate  (Fast-dLLM)

Knows no network: only the contract of discrete denoisers.

Shape suffixes: B rows of the canvas, R rows of a round, L positions, K positions that are read, Q that are written,
N read slots of all rows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Step, open_guided
from diffq.diffusion.reductions import Reduction
from diffq.rng import Rng, Stream, uniform
from diffq.samplers.barring import without_ends
from diffq.samplers.keeping import CacheName, Keeping, misfit
from diffq.samplers.masked import GuidedByPrompt, MaskedSampler, mask_free
from diffq.samplers.rounds import Blocks, Ended, Looking, Pace, Plan, Round
from diffq.settings import setting

Ending = Literal["free", "last", "never"]
_BEHIND = 1e6  # more than any two merits are apart
_STEP = 2.0**-13  # between merits, that of rounding far below it


@dataclass(frozen=True, kw_only=True)
class InBlocks(GuidedByPrompt):
    """The dials of every sampler that goes through a canvas in rounds."""

    block: int = setting(0, "free positions that are decoded together, from left to right; 0: all of them", low=0)
    allow_mask: bool = setting(False, "the mask may be drawn as a token, as in published loops")

    def blocks(self, canvas: Canvas) -> Blocks:
        return Blocks(canvas, self.block)

    def open(self, denoiser: Any, canvas: Canvas) -> Any:
        session = open_guided(denoiser, canvas, self.scale)
        if self.allow_mask:
            session.admit_mask()
        return session


@dataclass(frozen=True, kw_only=True)
class Caching(InBlocks):
    """The dial of those that can leave out of a round what is not likely to have changed; see `keeping`."""

    cache: CacheName = setting(
        "off",
        "keys and values that a block's rounds take as they were: prefix, of what stands before it; dual, of all else"
        " (both approximate: Fast-dLLM); exact, of finished blocks of a model with model.block_causal",
        since="0.2",
    )

    def misfit(self, keeps: bool, sees: int) -> str:
        return misfit(self.cache, self.block, keeps, sees)

    def keeping(self, denoiser: Any, canvas: Canvas, blocks: Blocks) -> Keeping:
        return Keeping.of(self.cache, denoiser, canvas, blocks)


@dataclass(frozen=True, kw_only=True)
class Counting(InBlocks):
    """The dials of those whose rounds write a number of positions that is known beforehand."""

    by_numbers: ClassVar[bool] = True

    steps: int = setting(0, "rounds of a whole canvas, shared out among its blocks; 0: tokens_per_step decides", low=0)
    tokens_per_step: int = setting(1, "positions that a round writes, where steps is 0", low=1)
    pace: Pace = setting("even", "with steps, how many each writes: even, as LLaDA; dream: by Dream's grid of times")

    def idle(self) -> frozenset[str]:
        return super().idle() | {"tokens_per_step" if self.steps else "pace"}

    def rounds(self, canvas: Canvas, blocks: Blocks) -> Plan:
        return Plan(canvas, blocks, steps=self.steps, tokens_per_step=self.tokens_per_step, pace=self.pace)


@dataclass(frozen=True, kw_only=True)
class Decoding(Caching, MaskedSampler):
    """A rule of decoding. Subclasses say where to write: `places` before the network is asked, or `ranked` after."""

    fills: ClassVar[bool] = True

    ending: Ending = setting(
        "free",
        "the end token: free, like any other; last, its positions wait for all others of their block; never, it is not"
        " drawn",
    )

    def open(self, denoiser: Any, canvas: Canvas) -> Any:
        return without_ends(super().open(denoiser, canvas), canvas, self.ending)

    @abstractmethod
    def rounds(self, canvas: Canvas, blocks: Blocks) -> Plan | Looking: ...

    def places(self, canvas: Canvas, rng: Rng) -> Tensor | None:
        """The places of positions in an order that is known beforehand, lowest first, (B, L)."""
        return None

    def ranked(self, sight: Sight) -> tuple[Tensor, Tensor | None]:
        """How gladly each slot is written, higher first, (N,); and the tokens, where the rule has drawn them. Not asked
        of rules that say `places`."""
        raise TypeError(f"{type(self).__name__} says neither places nor how they are ranked")

    def above(self, merit_RK: Tensor) -> Tensor:
        """Which slots are written where no number is known beforehand, given merits in falling order, (R, K); the best
        is written anyway. Not asked of rules whose rounds have a number."""
        raise TypeError(f"{type(self).__name__} says neither how many positions a round writes nor which")

    def told(self, merit_RQ: Tensor, write_RQ: Tensor, words: int) -> dict[str, Tensor]:
        """Statistics of a round, a number a row, (R,): of the merits of what is written, as `ranked` gave them."""
        return {}

    def visits(self, now: Round) -> Tensor | None:
        """How often what is asked for was drawn before, (R,), where draws that are not written decide what is; None
        where a position's only draw is the one that is written."""
        return None

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        tokens_BL = mask_free(canvas, denoiser.mask)
        self.fill(denoiser, self.open(denoiser, canvas), canvas, tokens_BL, rng, on_step)
        return canvas.replace(tokens_BL=tokens_BL)

    def fill(
        self, denoiser: Any, session: Any, canvas: Canvas, tokens_BL: Tensor, rng: Rng, on_step: OnStep | None
    ) -> None:
        """Writes every free position of tokens_BL, in place. The session is used up: rows leave it."""
        masked_BL = canvas.free_BL.clone()
        blocks, order_BL = self.blocks(canvas), self.places(canvas, rng)
        keeping = self.keeping(denoiser, canvas, blocks)
        rounds = self.rounds(canvas, blocks)
        here_R = torch.arange(len(tokens_BL), device=canvas.device)
        time_B = torch.ones(len(tokens_BL), dtype=torch.float64, device=canvas.device)
        for now in rounds.rounds(masked_BL, Ended(canvas, tokens_BL)):
            if (kept := now.staying(here_R)) is not None:
                session.select(kept)
                here_R = now.row_R
            row_R1, before_RL = now.row_R[:, None], tokens_BL[now.row_R]
            if order_BL is None:
                at_RQ, token_RQ, write_RQ, merit_RQ = self._seen(session, keeping, canvas, before_RL, rng, now)
            else:
                merit_RQ = None
                at_RQ, token_RQ, write_RQ = self._ordered(session, keeping, canvas, before_RL, rng, now, order_BL)
            # A slot that is not written puts back what stands at its place: slots of a row have different places.
            tokens_BL[row_R1, at_RQ] = torch.where(write_RQ, token_RQ, tokens_BL[row_R1, at_RQ])
            masked_BL[row_R1, at_RQ] = masked_BL[row_R1, at_RQ] & ~write_RQ
            if on_step is not None:
                time_B[now.row_R] = masked_BL[now.row_R].sum(1).double() / blocks.free_B[now.row_R]
                # A session that computes some columns alone cannot be asked for others.
                filled = (
                    None
                    if self.cache != "off"
                    else partial(self._filled, session, canvas, tokens_BL, masked_BL, before_RL, rng, now)
                )
                told = {} if merit_RQ is None else self.told(merit_RQ, write_RQ, session.words)
                stats = {name: _of_rows(value_R, now.row_R, len(tokens_BL)) for name, value_R in told.items()}
                on_step(
                    Step(now.index, rounds.total, time_B.clone(), canvas, tokens_BL.clone, stats=stats, filled=filled)
                )

    def _filled(
        self,
        session: Any,
        canvas: Canvas,
        tokens_BL: Tensor,
        masked_BL: Tensor,
        before_RL: Tensor,
        rng: Rng,
        now: Round,
    ) -> Tensor:
        """The canvas after a round with this round's draws wherever it is still masked: one network call, at what stood
        there before the round."""
        full_BL, left_RL = tokens_BL.clone(), masked_BL[now.row_R]
        counts = tuple(left_RL.sum(1).tolist())
        if not any(counts):
            return full_BL
        at_RK, slots = first_in_order(left_RL, counts)
        hidden = session.run(before_RL, now.noise_R, at_RK)
        sight = Sight(self, session, hidden, canvas, rng, now.row_R, at_RK, slots, self.visits(now))
        (token_N,) = sight.read(self.token(sight.key_N))
        full_BL.view(-1)[(now.row_R[:, None] * full_BL.shape[1] + at_RK).flatten()[slots]] = token_N
        return full_BL

    def _ordered(
        self,
        session: Any,
        keeping: Keeping,
        canvas: Canvas,
        tokens_RL: Tensor,
        rng: Rng,
        now: Round,
        order_BL: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Asks the network for the positions whose turn it is, and for no others."""
        assert now.quotas is not None
        at_RQ, slots = first_in_order(now.open_RL, now.quotas, order_BL[now.row_R])
        hidden = keeping.run(session, now.where, tokens_RL, now.noise_R, at_RQ)
        sight = Sight(self, session, hidden, canvas, rng, now.row_R, at_RQ, slots, None)
        (token_N,) = sight.read(self.token(sight.key_N))
        token_RQ = torch.zeros_like(at_RQ)
        token_RQ.view(-1)[slots] = token_N
        return at_RQ, token_RQ, real(slots, at_RQ)

    def _seen(
        self, session: Any, keeping: Keeping, canvas: Canvas, tokens_RL: Tensor, rng: Rng, now: Round
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reads every masked position of the blocks, and ranks them; gives the merits, too, of what may be written."""
        at_RK, slots = first_in_order(now.open_RL, now.counts)
        hidden = keeping.run(session, now.where, tokens_RL, now.noise_R, at_RK)
        sight = Sight(self, session, hidden, canvas, rng, now.row_R, at_RK, slots, self.visits(now))
        merit_N, token_N = self.ranked(sight)
        merit_RK = of_slots(merit_N, slots, at_RK)
        if now.quotas is None:  # open positions come first in at_RK, but on a GPU nobody has counted them
            merit_RK = merit_RK.masked_fill(~now.open_RL.gather(1, at_RK), -math.inf)
        best_RQ, write_RQ = self._best(merit_RK, told_apart(merit_RK, at_RK, canvas, self.scale, rng, now), now)
        at_RQ, merit_RQ = at_RK.gather(1, best_RQ), merit_RK.gather(1, best_RQ)
        slot_RQ = best_RQ + torch.arange(len(best_RQ), device=best_RQ.device)[:, None] * at_RK.shape[1]
        if token_N is None:
            key_N = rng.key(Stream.TOKEN, canvas.row_B[now.row_R][:, None], 0, at_RQ).flatten()
            (token_RQ,) = session.read(hidden, slot_RQ.flatten(), [self.token(key_N)])
            return at_RQ, token_RQ.view_as(at_RQ), write_RQ, merit_RQ
        token_S = torch.zeros(at_RK.numel(), dtype=torch.long, device=at_RK.device)
        token_S[slots] = token_N
        return at_RQ, token_S[slot_RQ], write_RQ, merit_RQ

    def _best(self, merit_RK: Tensor, rank_RK: Tensor, now: Round) -> tuple[Tensor, Tensor]:
        """The slots that come first, (R, Q), and which of them are written, given their merits and what ranks them."""
        best_RK = rank_RK.argsort(dim=1, descending=True, stable=True)
        if now.quotas is not None:
            best_RQ = best_RK[:, : max(now.quotas)]
            return best_RQ, real(slots_of(now.quotas, best_RQ.shape[1], best_RQ.device), best_RQ)
        falling_RK = merit_RK.gather(1, best_RK)
        write_RK = self.above(falling_RK)
        write_RK[:, 0] = True
        return best_RK, write_RK & (falling_RK > -math.inf)  # nothing of a row that is done and runs along


@dataclass(frozen=True)
class Sight:
    """What a rule sees of a round: the positions that were asked for, and how to read them."""

    rule: Any
    session: Any
    hidden: Tensor
    canvas: Canvas
    rng: Rng
    row_R: Tensor
    at_RK: Tensor
    slots: Tensor
    visit_R: Tensor | None  # rounds in which these positions were drawn before; None: a position is drawn once

    @property
    def key_N(self) -> Tensor:
        """The keys of the draws. A token that was drawn and not written is drawn anew: its visits are counted."""
        visit_R1 = 0 if self.visit_R is None else self.visit_R[:, None]
        return self.rng.key(Stream.TOKEN, self.canvas.row_B[self.row_R][:, None], visit_R1, self.at_RK).flatten()[
            self.slots
        ]

    def read(self, *reductions: Reduction) -> tuple[Any, ...]:
        return tuple(self.session.read(self.hidden, self.slots, reductions))

    def untied(self, merit_N: Tensor, visit: int = 0) -> Tensor:
        """The merits without ties, see `untied`."""
        row_R1 = self.canvas.row_B[self.row_R][:, None]
        return untied(merit_N, self.rng.key(Stream.ORDER, row_R1, visit, self.at_RK).flatten()[self.slots])

    def ends_last(self, merit_N: Tensor, token_N: Tensor) -> Tensor:
        """The merits, those of end tokens below all others where they are to wait."""
        if self.rule.ending != "last" or self.canvas.end is None:
            return merit_N
        return torch.where(self.canvas.are_ends(token_N), merit_N - _BEHIND, merit_N)


def untied(merit: Tensor, key: Tensor) -> Tensor:
    """Merits in steps of 2⁻¹³, equal ones told apart by draws with these keys, float64. What differs by rounding alone
    would otherwise be ranked by it, and a row's tokens would depend on its batch."""
    return ((merit.double() / _STEP).round() + uniform(key) / 2) * _STEP


def told_apart(merit_RK: Tensor, at_RK: Tensor, canvas: Canvas, scale: float, rng: Rng, now: Round) -> Tensor:
    """What the positions at_RK are ranked by, (R, K): their merits, `untied` in rows where nothing but masks can be
    seen. There a network without absolute places finds them all alike. Elsewhere merits differ by what they are."""
    if now.index:
        return merit_RK
    seen_RL = canvas.valid_BL[now.row_R] & ~canvas.free_BL[now.row_R] & (scale != 0)  # 0: prompts are masked, too
    key_RK = rng.key(Stream.ORDER, canvas.row_B[now.row_R][:, None], 0, at_RK)
    return torch.where(seen_RL.any(1, keepdim=True), merit_RK, untied(merit_RK, key_RK))


def _of_rows(value_R: Tensor, row_R: Tensor, rows: int) -> Tensor:
    """Numbers of some rows among all, (B,); NaN for the others."""
    return value_R.new_full((rows,), math.nan).index_copy(0, row_R, value_R)


def first_in_order(open_RL: Tensor, counts: tuple[int, ...], order_RL: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """So many of each row's open positions, those that come first: (R, Q) positions, and which of these slots are
    meant, flat. The other slots hold other positions of the row. order_RL: None is from left to right."""
    length, widest = open_RL.shape[1], max(counts)
    key_RL = torch.arange(length, device=open_RL.device) if order_RL is None else order_RL
    far_RL = torch.where(open_RL, 0, length) + key_RL
    return far_RL.argsort(dim=1)[:, :widest], slots_of(counts, widest, open_RL.device)


def slots_of(counts: tuple[int, ...], widest: int, device: torch.device) -> Tensor:
    """The flat indices of the first counts[r] of `widest` slots of each row."""
    if min(counts) == widest:
        return torch.arange(len(counts) * widest, device=device)
    return on_device([r * widest + i for r, n in enumerate(counts) for i in range(n)], device)


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Whole numbers from the host, which does not wait for what the device has still to do."""
    made = torch.tensor(numbers, dtype=torch.long)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def of_slots(merit_N: Tensor, slots: Tensor, like_RK: Tensor) -> Tensor:
    """The merits of read slots at their places, float64; −inf in the slots that were not meant."""
    merit_RK = torch.full(like_RK.shape, -math.inf, dtype=torch.float64, device=like_RK.device)
    merit_RK.view(-1)[slots] = merit_N.double()
    return merit_RK


def real(slots: Tensor, like_RQ: Tensor) -> Tensor:
    """Which slots are among the flat ones, bool."""
    found = torch.zeros(like_RQ.numel(), dtype=torch.bool, device=like_RQ.device)
    found[slots] = True
    return found.view_as(like_RQ)


def random_order(canvas: Canvas, rng: Rng, visit: int = 0) -> Tensor:
    """The place of each position in a random order, keyed by row and position, (B, L); another order every visit."""
    position_L = torch.arange(canvas.shape[1], device=canvas.device)
    uniform_BL = uniform(rng.key(Stream.ORDER, canvas.row_B[:, None], visit, position_L))
    return uniform_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)


def known_order(positions: str, canvas: Canvas, rng: Rng) -> Tensor:
    """The place of each position in the order that a dial `positions` names: random or left_to_right, (B, L)."""
    return random_order(canvas, rng) if positions == "random" else from_left(canvas)


def from_left(canvas: Canvas) -> Tensor:
    """The place of each position from left to right, (B, L)."""
    return torch.arange(canvas.shape[1], device=canvas.device).expand(canvas.shape)
