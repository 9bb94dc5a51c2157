"""Entropy-adaptive Gibbs sampling, after arXiv 2411.06438 (Diffusion-EAGS). **Reconstructed**: the paper says that the
positions of highest entropy are updated first, in five steps; the readings that it leaves open are dials.

In each of T steps the ceil(F / T) positions of largest entropy are written, of those that are still masked, F being the
row's free positions; the last step writes what is left. Entropies and draws come from one pass over the scores.

    update=masked_only  a written position stays
    update=all          then `sweeps` Gibbs sweeps: every free position is masked again and drawn anew given all else
    update=any          a step writes the positions of largest entropy wherever they are, written ones as the network
                        that is shown them has them; the last step also writes what is still masked

A sweep asks, as the filling does, which positions are most uncertain where all that the sweep has not reached yet is
masked; and draws each of those given everything, the old tokens of what it has not reached among it. So the order
depends only on tokens that this sweep does not touch any more: given that order every draw is a Gibbs step, and the
joint stays the joint wherever the conditionals have one (checked by enumeration). A choice by the entropies given all
else would depend on tokens that are drawn later, and moves the stationary law; so would positions that are drawn
together (`within=independent`).

Knows no network: only the contract of discrete denoisers.

Shape suffixes: B rows of the canvas, R rows of a round, L positions, K positions that are read, Q that are written,
N read slots of all rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Step
from diffq.diffusion.draws import DrawAndEntropy
from diffq.diffusion.reductions import Entropy
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng
from diffq.samplers.decoding import Sight, first_in_order, of_slots, on_device, random_order, real, slots_of
from diffq.samplers.decoding_rules import Ranking, refuse_waiting
from diffq.samplers.masked import mask_free
from diffq.samplers.rounds import Blocks, Ended, Plan, Round
from diffq.settings import setting

_NEAR = 0.01  # to 1: the logarithm of a sum near 1 is divided by so much
_AGAIN = 1 << 20  # the visits of sweeps, apart from those of filling


@SAMPLERS.register("eags")
@dataclass(frozen=True, kw_only=True)
class EAGS(Ranking):
    """Positions of largest entropy first, in few steps; with update=all followed by Gibbs sweeps."""

    by_numbers: ClassVar[bool] = True

    steps: int = setting(5, "T: rounds of a whole canvas, all but the last writing ceil(free / T) positions", low=1)
    update: Literal["masked_only", "all", "any"] = setting(
        "masked_only",
        "what is written stays; all: it is drawn anew by Gibbs sweeps over the filled canvas; any: steps choose among"
        " all positions, from one pass that is shown what is written (approximate)",
    )
    sweeps: int = setting(1, "update=all: how often every free position is drawn anew", low=0)
    within: Literal["exact", "independent"] = setting(
        "exact",
        "update=all: the positions of a step are drawn anew one after the other, each given all else; or together, as"
        " if they were independent, which is approximate",
    )
    order: Literal["high_entropy", "low_entropy", "random"] = setting(
        "high_entropy", "which positions come first: the most uncertain; the surest; a random order (both controls)"
    )
    entropy: Literal["shannon", "renyi"] = setting("shannon", "the entropy that positions are ranked by")
    renyi_order: float = setting(2.0, "entropy=renyi: its order; 1 is Shannon's", above=0)

    def check(self) -> None:
        if not math.isfinite(self.renyi_order) or 0 < abs(self.renyi_order - 1) < _NEAR:
            raise UserError(
                f"eags: renyi_order={self.renyi_order} leaves float32 no digits; give 1, which is Shannon's, or a"
                f" finite order at least {_NEAR:g} away from it"
            )
        if self.order == "random":
            refuse_waiting("eags order=random", self.ending)
        everywhere = f"eags: update={self.update} draws anew all over the canvas, so"
        if self.update != "masked_only" and self.block:
            raise UserError(f"{everywhere} block={self.block} must be 0")
        if self.update != "masked_only" and self.cache != "off":
            raise UserError(f"{everywhere} cache={self.cache} must be off")

    def idle(self) -> frozenset[str]:
        names = set[str]()
        if self.update == "masked_only" or (self.update == "all" and not self.sweeps):
            names |= {"update"}
        if self.update != "all" or not self.sweeps:
            names |= {"sweeps", "within"}
        if self.order == "random" or self.uncertainty.order == 1:
            names |= {"entropy", "renyi_order"}
        if self.order == "random":
            names |= {"confidence"}
        return frozenset(names)

    def rounds(self, canvas: Canvas, blocks: Blocks) -> Plan:
        return Plan(canvas, blocks, steps=self.steps, tokens_per_step=1, pace="full")

    def places(self, canvas: Canvas, rng: Rng, visit: int = 0) -> Tensor | None:
        return random_order(canvas, rng, visit) if self.order == "random" else None

    def visits(self, now: Round) -> Tensor | None:
        """Entropies know nothing of draws; end tokens that are to wait are drawn before it is decided who does."""
        return now.visit_R if self.ending == "last" else None

    @property
    def uncertainty(self) -> Entropy:
        return Entropy(1.0 if self.entropy == "shannon" else self.renyi_order)

    def merit(self, entropy_N: Tensor) -> Tensor:
        return -entropy_N if self.order == "low_entropy" else entropy_N

    def ranked(self, sight: Sight, visit: int = 0) -> tuple[Tensor, Tensor]:
        key_N = sight.key_N
        if self.plain and self.uncertainty.order == 1:
            ((token_N, entropy_N),) = sight.read(DrawAndEntropy(key_N))
        else:
            token_N, entropy_N = sight.read(self.token(key_N), self.rank(self.uncertainty))
        return sight.ends_last(sight.untied(self.merit(entropy_N), visit), token_N), token_N

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        if self.update == "masked_only":
            return super().__call__(denoiser, canvas, rng, on_step)
        canvas = canvas.replace(leaves=False)  # sweeps draw given what stands behind an end, which may be drawn anew
        tokens_BL = mask_free(canvas, denoiser.mask)
        if self.update == "any":
            self._anywhere(self.open(denoiser, canvas), canvas, tokens_BL, rng, on_step)
            return canvas.replace(tokens_BL=tokens_BL)
        session, every_B = self.open(denoiser, canvas), torch.arange(len(tokens_BL), device=canvas.device)
        told = None if on_step is None else _in_all(on_step, 1 + self.sweeps)
        self.fill(denoiser, session.fork(every_B), canvas, tokens_BL, rng, told)
        for number in range(self.sweeps):
            _Sweep(self, canvas, rng, denoiser.mask, tokens_BL, number).run(session.fork(every_B), on_step)
        return canvas.replace(tokens_BL=tokens_BL)

    def _anywhere(self, session: Any, canvas: Canvas, tokens_BL: Tensor, rng: Rng, on_step: OnStep | None) -> None:
        """update=any: `steps` passes over canvases of masks, tokens_BL, which are written in place."""
        free_B, row_B = canvas.free_BL.sum(1), torch.arange(len(tokens_BL), device=canvas.device)
        quota_B1 = ((free_B + self.steps - 1) // self.steps)[:, None]
        at_BK, slots = first_in_order(canvas.free_BL, tuple(free_B.tolist()))
        masked_BK = meant_BK = real(slots, at_BK)
        whole_B = free_B.clamp(min=1).double()  # a row of which all is given has the share 0
        share_B = masked_BK.sum(1) / whole_B
        for step in range(self.steps):
            hidden = session.run(tokens_BL, share_B, at_BK)
            visit_B = torch.full_like(row_B, step)
            sight = Sight(self, session, hidden, canvas, rng, row_B, at_BK, slots, visit_B)
            order_BL = self.places(canvas, rng, step)
            if order_BL is None:
                merit_N, token_N = self.ranked(sight, step)
            else:
                merit_N, (token_N,) = -order_BL.gather(1, at_BK).flatten()[slots], sight.read(self.token(sight.key_N))
            place_BK = of_slots(merit_N, slots, at_BK).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            write_BK = meant_BK & (place_BK < quota_B1)
            if step == self.steps - 1:
                write_BK = write_BK | masked_BK
            before_BK = tokens_BL.gather(1, at_BK)
            token_BK = before_BK.clone()
            token_BK.view(-1)[slots] = token_N
            after_BK = torch.where(write_BK, token_BK, before_BK)
            tokens_BL.scatter_(1, at_BK, after_BK)
            masked_BK = masked_BK & ~write_BK
            share_B = masked_BK.sum(1) / whole_B
            if on_step is not None:
                filled_BL = tokens_BL.scatter(1, at_BK, torch.where(masked_BK, token_BK, after_BK))
                on_step(Step(step, self.steps, share_B, canvas, tokens_BL.clone, filled=filled_BL.clone))


def _in_all(on_step: OnStep, passes: int) -> OnStep:
    """Tells of steps as those of the first of so many passes."""
    return lambda step: on_step(replace(step, total=step.total * passes))


@dataclass(frozen=True)
class _Sweep:
    """One Gibbs sweep over the free positions of full canvases, tokens_BL, which it changes in place."""

    sampler: EAGS
    canvas: Canvas
    rng: Rng
    mask: int
    tokens_BL: Tensor
    number: int

    def run(self, session: Any, on_step: OnStep | None) -> None:
        """The session is used up: rows leave it."""
        canvas, tokens_BL = self.canvas, self.tokens_BL
        rest_BL, here_R = canvas.free_BL.clone(), torch.arange(len(tokens_BL), device=canvas.device)
        plan = self.sampler.rounds(canvas, self.sampler.blocks(canvas))
        order_BL = self.sampler.places(canvas, self.rng, 1 + self.number)
        time_B = torch.zeros(len(tokens_BL), dtype=torch.float64, device=canvas.device)
        for now in plan.rounds(rest_BL, Ended(canvas, tokens_BL)):
            if (kept := now.staying(here_R)) is not None:
                session.select(kept)
                here_R = now.row_R
            at_RQ, slots = self._chosen(session, now, order_BL)
            self._redraw(session, now, at_RQ, slots)
            row_R1 = now.row_R[:, None]
            rest_BL[row_R1, at_RQ] = rest_BL[row_R1, at_RQ] & ~real(slots, at_RQ)
            if on_step is not None:
                index, total = (1 + self.number) * plan.total + now.index, (1 + self.sampler.sweeps) * plan.total
                on_step(Step(index, total, time_B, canvas, tokens_BL.clone, filled=tokens_BL.clone))

    def _chosen(self, session: Any, now: Round, order_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """The positions of this round, (R, Q), and which of these slots are meant, flat."""
        assert now.quotas is not None
        if order_BL is not None:
            return first_in_order(now.open_RL, now.quotas, order_BL[now.row_R])
        at_RK, slots = first_in_order(now.open_RL, now.counts)
        state_RL = torch.where(now.open_RL, self.mask, self.tokens_BL[now.row_R])
        hidden = session.run(state_RL, now.noise_R, at_RK)
        sight = Sight(self.sampler, session, hidden, self.canvas, self.rng, now.row_R, at_RK, slots, None)
        (entropy_N,) = sight.read(self.sampler.rank(self.sampler.uncertainty))
        merit_N = sight.untied(self.sampler.merit(entropy_N), 1 + self.number)
        merit_RK = of_slots(merit_N, slots, at_RK)
        best_RQ = merit_RK.argsort(dim=1, descending=True, stable=True)[:, : max(now.quotas)]
        return at_RK.gather(1, best_RQ), slots_of(now.quotas, best_RQ.shape[1], best_RQ.device)

    def _redraw(self, session: Any, now: Round, at_RQ: Tensor, slots: Tensor) -> None:
        assert now.quotas is not None
        free_R = self.canvas.free_BL[now.row_R].sum(1).double()
        if self.sampler.within == "independent":
            count_R = torch.tensor(now.quotas, dtype=torch.float64, device=at_RQ.device)
            self._draw(session, now.row_R, at_RQ, slots, count_R / free_R)
            return
        for q in range(max(now.quotas)):
            going = [r for r, count in enumerate(now.quotas) if count > q]
            every_P = torch.arange(len(going), device=at_RQ.device)
            if len(going) == len(at_RQ):
                self._draw(session, now.row_R, at_RQ[:, q : q + 1], every_P, 1 / free_R)
                continue
            rows_P = on_device(going, at_RQ.device)
            self._draw(session.fork(rows_P), now.row_R[rows_P], at_RQ[rows_P, q : q + 1], every_P, 1 / free_R[rows_P])

    def _draw(self, session: Any, row_R: Tensor, at_RQ: Tensor, slots: Tensor, share_R: Tensor) -> None:
        """Masks the meant slots and draws them, given all else, in one network call."""
        state_RL = self.tokens_BL[row_R]
        held_RQ = torch.where(real(slots, at_RQ), self.mask, state_RL.gather(1, at_RQ))
        hidden = session.run(state_RL.scatter(1, at_RQ, held_RQ), share_R, at_RQ)
        visit_R = torch.full_like(row_R, _AGAIN + self.number)
        sight = Sight(self.sampler, session, hidden, self.canvas, self.rng, row_R, at_RQ, slots, visit_R)
        (token_N,) = sight.read(self.sampler.token(sight.key_N))
        flat_N = (row_R[:, None] * state_RL.shape[1] + at_RQ).flatten()[slots]
        self.tokens_BL.view(-1)[flat_N] = token_N
