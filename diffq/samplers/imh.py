"""Independent Metropolis–Hastings at every step of decoding, after arXiv 2604.00375. **Reconstructed**: the paper gives
the idea (tokens are chosen by what they leave possible, with a mean-field look-ahead, candidates in a batch), not the
algorithm; the readings that it leaves open are dials.

The distribution that best trades quality, E log p, against exploration, entropy, is p^α / Z with α = 1/λ. At a state s
its conditional of the next positions A is

    q(x_A | s) ∝ p(x_A | s)^α · Z_α(s, x_A),     Z_α(s') = Σ over what is still masked of p(· | s')^α.

Sharpening p alone, p^α, leaves the second factor out: it asks how probable a token is, not how sure the rest would be.
Taken as independent given s', Z_α is a product, log Ẑ(s') = Σ_j log Σ_v p_j(v | s')^α, which one network call gives;
and that call is the next step's, if the candidate is accepted. So: K + 1 candidates are drawn from the proposal; each
that differs is looked ahead from, all in one batch; a chain goes through them and moves from one to the next with
probability min(1, w_next / w_now), w the ratio of target and proposal. As K → ∞ the step's law is p^α·Ẑ; K = 0 is
sharpening.

    proposal     tempered: ∏ p_i^α, and w = Ẑ;          plain: ∏ p_i, and w = ∏ p_i^(α−1) · Ẑ
    lookahead    block: Ẑ goes over what is masked of the block;   canvas: over all that is masked
    within       independent: several positions of a step count as ∏ p_i;   exact: as p(x_A | s), by the chain rule, one
                 network call more for each position after the first
    select       chain;   resample: one of the candidates in proportion to w (an ablation: biased more at small K)

Knows no network. The host waits once a step, to know how many candidates differ.

Shape suffixes: B rows of the canvas, R rows of a round, C candidates, Q positions of a step, F positions that stay
masked, M candidates that differ, N slots of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Step
from diffq.diffusion.reductions import LogPower, LogProb, LogZ, Top
from diffq.diffusion.row_draws import Candidates
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng, Stream
from diffq.samplers.barring import without_ends
from diffq.samplers.chains import resample, run_chain
from diffq.samplers.decoding import (
    Caching,
    Counting,
    first_in_order,
    known_order,
    of_slots,
    real,
    slots_of,
    told_apart,
)
from diffq.samplers.keeping import Keeping
from diffq.samplers.masked import mask_free
from diffq.samplers.rounds import Ended, Round
from diffq.settings import setting


@SAMPLERS.register("imh")
@dataclass(frozen=True, kw_only=True)
class IMH(Counting, Caching):
    """Decoding whose tokens are chosen by a chain of K proposals a step that look ahead."""

    by_numbers: ClassVar[bool] = False
    at_most: ClassVar[bool] = True  # equal candidates are run once
    records: ClassVar[tuple[str, ...]] = ("acceptance", "ess", "spread", "distinct")

    alpha: float = setting(4.0, "the power of the target p^α; 1 samples p", above=0)
    chain: int = setting(4, "K, the proposals after the first; 0 sharpens p alone", low=0, high=1024)
    positions: Literal["random", "left_to_right", "confidence"] = setting(
        "random", "which positions a step writes: a random order, from left to right, or the most confident first"
    )
    lookahead: Literal["block", "canvas"] = setting("block", "what is looked ahead at: the block or the whole canvas")
    proposal: Literal["tempered", "plain"] = setting("tempered", "what candidates are drawn from: p^α or p")
    within: Literal["independent", "exact"] = setting(
        "independent", "tokens written by one step: as if they were independent, or by the chain rule"
    )
    select: Literal["chain", "resample"] = setting("chain", "how one of the candidates is chosen")
    ending: Literal["free", "never"] = setting(
        "free", "the end token: free, like any other; never, the target is that of texts without it", since="0.2"
    )

    def check(self) -> None:
        super().check()
        if self.cache != "off" and self.lookahead == "canvas":
            raise UserError(
                f"cache={self.cache} computes a block at a time, and lookahead=canvas looks beyond it; use"
                " lookahead=block or cache=off"
            )

    @property
    def looks(self) -> bool:
        """Whether there is anything to choose by: at α = 1 every weight is 1."""
        return self.chain > 0 and (self.alpha != 1 or self.within == "exact")

    def idle(self) -> frozenset[str]:
        if self.looks:
            return super().idle()
        alone = {"lookahead", "within", "select"}
        if self.alpha == 1:
            alone |= {"chain", "proposal"}
        elif self.proposal == "plain":
            alone.add("alpha")
        return super().idle() | alone

    def open(self, denoiser: Any, canvas: Canvas) -> Any:
        return without_ends(super().open(denoiser, canvas), canvas, self.ending)

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        tokens_BL = mask_free(canvas, denoiser.mask)
        session, masked_BL = self.open(denoiser, canvas), canvas.free_BL.clone()
        blocks = self.blocks(canvas)
        plan, keeping = self.rounds(canvas, blocks), self.keeping(denoiser, canvas, blocks)
        order_BL = None if self.positions == "confidence" else known_order(self.positions, canvas, rng)
        here_R = torch.arange(len(tokens_BL), device=canvas.device)
        ahead: _Ahead | None = None
        for now in plan.rounds(masked_BL, Ended(canvas, tokens_BL)):
            if (kept := now.staying(here_R)) is not None:
                session.select(kept)
                ahead, here_R = ahead and ahead.rows(kept), now.row_R
            step = _Step(self, session, keeping, canvas, rng, now, tokens_BL[now.row_R], masked_BL[now.row_R])
            at_RQ, token_RCQ, log_p_RCQ = step.candidates(ahead, None if order_BL is None else order_BL[now.row_R])
            pick_R, ahead, stats = step.choose(at_RQ, token_RCQ, log_p_RCQ)
            token_RQ = token_RCQ[torch.arange(len(pick_R), device=pick_R.device), pick_R]
            tokens_BL[now.row_R] = step.written(token_RQ, at_RQ)
            masked_BL[now.row_R] = step.left_after(at_RQ)
            if on_step is not None:
                on_step(self._told(now, plan.total, canvas, tokens_BL, masked_BL, blocks.free_B, stats))
        return canvas.replace(tokens_BL=tokens_BL)

    def _told(
        self, now: Round, total: int, canvas: Canvas, tokens_BL: Tensor, masked_BL: Tensor, free_B: Tensor, stats: Any
    ) -> Step:
        """Rows that are done, and rows that had nothing to look ahead at, have NaN for statistics."""
        time_B = masked_BL.sum(1).double() / free_B.clamp(min=1)
        told = {}
        for name, value_R in stats.items():
            told[name] = torch.full(time_B.shape, torch.nan, dtype=torch.float64, device=time_B.device)
            told[name][now.row_R] = value_R
        return Step(now.index, total, time_B, canvas, tokens_BL.clone, told)

    def log_future(self, session: Any, hidden: Tensor, slots: Tensor, tokens_ML: Tensor) -> Tensor:
        """log Σ_v p(v)^α at each slot that is looked at, (N,): their sum is the mean-field log Ẑ."""
        (log_power_N,) = session.read(hidden, slots, [LogPower(self.alpha)])
        return log_power_N


@dataclass(frozen=True)
class _Ahead:
    """What was computed for the candidates that were chosen: hidden states at the positions that stayed masked.

    hidden    (n·R, F, ·), branch-major; rows that did not look ahead hold anything
    at_RF     the positions
    has       whether a row looked ahead, on the host
    """

    hidden: Tensor
    at_RF: Tensor
    has: tuple[bool, ...]

    def rows(self, kept_K: Tensor) -> _Ahead:
        has = tuple(self.has[i] for i in kept_K.tolist())
        return _Ahead(take_rows(self.hidden, len(self.has), kept_K), self.at_RF[kept_K], has)

    def at(self, at_RQ: Tensor) -> Tensor:
        """Hidden states (n·R, Q, ·) at positions that are among its own, where a row looked ahead."""
        slot_RQ = (self.at_RF[:, None] == at_RQ[:, :, None]).long().argmax(-1)
        branches = len(self.hidden) // len(self.at_RF)
        index = slot_RQ.repeat(branches, 1)[..., None].expand(-1, -1, self.hidden.shape[-1])
        return self.hidden.gather(1, index)


def first_alike(token_RCQ: Tensor) -> Tensor:
    """Of each candidate the first one of its row that has the same tokens, (R, C)."""
    same_RCC = (token_RCQ[:, :, None] == token_RCQ[:, None]).all(-1)
    return same_RCC.long().argmax(-1)


def take_rows(hidden: Tensor, rows: int, take_K: Tensor) -> Tensor:
    """Rows of hidden states that are branch-major."""
    return hidden.unflatten(0, (-1, rows))[:, take_K].flatten(0, 1)


@dataclass(frozen=True)
class _Step:
    """One round: the state of its rows, and what may be done with it."""

    sampler: IMH
    session: Any
    keeping: Keeping
    canvas: Canvas
    rng: Rng
    now: Round
    tokens_RL: Tensor
    masked_RL: Tensor

    @property
    def row_id_R(self) -> Tensor:
        return self.canvas.row_B[self.now.row_R]

    def candidates(self, ahead: _Ahead | None, order_RL: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The positions of this step, (R, Q), and C = K + 1 draws of their tokens, or one where there is nothing to
        choose by, with the log-probabilities that they have, (R, C, Q). Slots beyond a row's quota repeat what stands
        there."""
        now, sampler = self.now, self.sampler
        assert now.quotas is not None
        widest = max(now.quotas)
        slots = slots_of(now.quotas, widest, self.tokens_RL.device)
        if order_RL is not None:
            at_RQ, _ = first_in_order(now.open_RL, now.quotas, order_RL)
            hidden = self._hidden(ahead, at_RQ)
        else:
            at_RQ, hidden = self._most_confident(ahead, widest)
        candidate_C = torch.arange(sampler.chain + 1 if sampler.looks else 1, device=at_RQ.device)
        key_RQC = self.rng.key(Stream.TOKEN, self.row_id_R[:, None, None], candidate_C, at_RQ[..., None])
        key_NC = key_RQC.flatten(0, 1)[slots]
        temperature = 1 / sampler.alpha if sampler.proposal == "tempered" else 1.0
        ((token_NC, log_p_NC),) = self.session.read(hidden, slots, [Candidates(key_NC, temperature)])
        held_RQ1 = self.tokens_RL.gather(1, at_RQ)[..., None]
        token_RQC = held_RQ1.repeat(1, 1, len(candidate_C))
        token_RQC.view(-1, len(candidate_C))[slots] = token_NC
        log_p_RQC = torch.zeros(token_RQC.shape, dtype=torch.float64, device=at_RQ.device)
        log_p_RQC.view(-1, len(candidate_C))[slots] = log_p_NC
        return at_RQ, token_RQC.transpose(1, 2), log_p_RQC.transpose(1, 2)

    def _hidden(self, ahead: _Ahead | None, at_RQ: Tensor) -> Tensor:
        """Hidden states at these positions: those of the look-ahead, and a network call for the rows that had none."""
        noise_R, where = self.now.noise_R, self.now.where
        fresh = [r for r in range(len(at_RQ)) if ahead is None or not ahead.has[r]]
        if ahead is None or len(fresh) == len(at_RQ):
            return self.keeping.run(self.session, where, self.tokens_RL, noise_R, at_RQ)
        hidden = ahead.at(at_RQ)
        if fresh:
            rows = torch.tensor(fresh, device=at_RQ.device)
            new = self.keeping.run_some(self.session, rows, [where[r] for r in fresh], self.tokens_RL, noise_R, at_RQ)
            hidden.unflatten(0, (-1, len(at_RQ)))[:, rows] = new.unflatten(0, (-1, len(fresh)))
        return hidden

    def _most_confident(self, ahead: _Ahead | None, widest: int) -> tuple[Tensor, Tensor]:
        """The open positions whose best token is most probable, and their hidden states."""
        now = self.now
        at_RK, slots = first_in_order(now.open_RL, now.counts)
        hidden = self._hidden(ahead, at_RK)
        (best_N1, _), log_z_N = self.session.read(hidden, slots, [Top(1), LogZ()])
        merit_RK = of_slots(best_N1.squeeze(1).double() - log_z_N, slots, at_RK)
        ranked_RK = told_apart(merit_RK, at_RK, self.canvas, self.sampler.scale, self.rng, now)
        best_RQ = ranked_RK.argsort(dim=1, descending=True, stable=True)[:, :widest]
        return at_RK.gather(1, best_RQ), _Ahead(hidden, at_RK, (True,) * len(at_RK)).at(at_RK.gather(1, best_RQ))

    def choose(
        self, at_RQ: Tensor, token_RCQ: Tensor, log_p_RCQ: Tensor
    ) -> tuple[Tensor, _Ahead | None, dict[str, Tensor]]:
        """The chosen candidate of each row, what was computed for it, and statistics of the choice."""
        sampler = self.sampler
        future = [f[0] if sampler.lookahead == "block" else f[1] for f in self.now.future]
        weighed = self._weighed(future)
        if not any(weighed):
            return torch.zeros(len(at_RQ), dtype=torch.long, device=at_RQ.device), None, {}
        weighed_R, first_RC = torch.tensor(weighed, device=at_RQ.device), first_alike(token_RCQ)
        differs_RC = first_RC == torch.arange(first_RC.shape[1], device=at_RQ.device)
        row_M, which_M = (differs_RC & weighed_R[:, None]).nonzero(as_tuple=True)
        self.keeping.inside(self.session, self.now.where)
        made = _Candidates(self, row_M, self.tokens_with(row_M, token_RCQ[row_M, which_M], at_RQ), at_RQ)
        log_w_M, hidden, at_RF = made.look(future)
        if sampler.proposal == "plain":
            log_w_M = log_w_M + (sampler.alpha - 1) * log_p_RCQ[row_M, which_M].sum(-1)
        if sampler.within == "exact":
            log_w_M = log_w_M + sampler.alpha * made.dependence(log_p_RCQ[row_M, which_M])
        index_RC = torch.zeros(first_RC.shape, dtype=torch.long, device=at_RQ.device)
        index_RC[row_M, which_M] = torch.arange(len(row_M), device=at_RQ.device)
        index_RC = index_RC.gather(1, first_RC)
        log_w_RC = log_w_M[index_RC]
        pick_R, stats = self._pick(log_w_RC, at_RQ)
        stats["distinct"] = differs_RC.sum(1).double()
        pick_R = torch.where(weighed_R, pick_R, 0)
        stats = {name: value_R.masked_fill(~weighed_R, torch.nan) for name, value_R in stats.items()}
        chosen_R = index_RC.gather(1, pick_R[:, None]).squeeze(1)
        ahead = None if hidden is None else _Ahead(take_rows(hidden, len(row_M), chosen_R), at_RF, tuple(future))
        return pick_R, ahead, stats

    def _weighed(self, future: list[bool]) -> list[bool]:
        """The rows whose candidates are weighed, given those that have something ahead of them."""
        if not self.sampler.looks:
            return [False] * len(future)
        if self.sampler.proposal == "plain":  # by their own probability, too, with nothing ahead
            return [True] * len(future)
        if self.sampler.within == "exact":
            return [f or q > 1 for f, q in zip(future, self.now.quotas or (), strict=True)]
        return future

    def _pick(self, log_w_RC: Tensor, at_RQ: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        key_R = self.rng.key(Stream.ACCEPT, self.row_id_R, 0, at_RQ[:, 0])
        return run_chain(log_w_RC, key_R) if self.sampler.select == "chain" else resample(log_w_RC, key_R)

    def written(self, token_RQ: Tensor, at_RQ: Tensor) -> Tensor:
        return self.tokens_RL.scatter(1, at_RQ, token_RQ)

    def tokens_with(self, row_M: Tensor, token_MQ: Tensor, at_RQ: Tensor) -> Tensor:
        """The state of these rows with these tokens written."""
        return self.tokens_RL[row_M].scatter(1, at_RQ[row_M], token_MQ)

    def left_after(self, at_RQ: Tensor) -> Tensor:
        """What is masked after this step, (R, L)."""
        assert self.now.quotas is not None
        written_RQ = real(slots_of(self.now.quotas, at_RQ.shape[1], at_RQ.device), at_RQ)
        return self.masked_RL & ~torch.zeros_like(self.masked_RL).scatter(1, at_RQ, written_RQ)


@dataclass(frozen=True)
class _Candidates:
    """The candidates that differ, each with its row."""

    step: _Step
    row_M: Tensor
    tokens_ML: Tensor
    at_RQ: Tensor

    def look(self, future: list[bool]) -> tuple[Tensor, Tensor | None, Tensor]:
        """log Ẑ of each candidate, (M,) float64; hidden states at what stays masked, (n·M, F, ·), and where that is,
        (R, F). One network call, none where nothing stays masked anywhere."""
        step, sampler = self.step, self.step.sampler
        log_z_M = torch.zeros(len(self.row_M), dtype=torch.float64, device=self.row_M.device)
        if not any(future):
            return log_z_M, None, self.at_RQ
        after_R = step.now.after_R
        assert after_R is not None
        left_RL = step.left_after(self.at_RQ)
        if sampler.lookahead == "block":
            left_RL = left_RL & step.now.open_RL
        left = left_RL.sum(1).tolist()
        at_RF, slots = first_in_order(left_RL, tuple(left))
        looked_M = torch.tensor(future, device=self.row_M.device)[self.row_M]
        place_K = looked_M.nonzero().squeeze(1)
        row_K = self.row_M[place_K]
        forked = step.session.fork(row_K)
        hidden = forked.run(self.tokens_ML[place_K], after_R[row_K], at_RF[row_K])
        slots_K = real(slots, at_RF)[row_K].flatten().nonzero().squeeze(1)
        log_future_N = sampler.log_future(forked, hidden, slots_K, self.tokens_ML[place_K])
        log_z_M.index_add_(0, place_K[slots_K // at_RF.shape[1]], log_future_N)
        if len(place_K) < len(self.row_M):  # rows with nothing ahead of them keep their place
            whole = hidden.new_zeros(len(hidden) // len(row_K), len(self.row_M), *hidden.shape[1:])
            whole[:, place_K] = hidden.unflatten(0, (-1, len(row_K)))
            hidden = whole.flatten(0, 1)
        return log_z_M, hidden, at_RF

    def dependence(self, log_p_MQ: Tensor) -> Tensor:
        """log p(x_A | s) − Σ log p_i(x_i | s), (M,): what tokens that are written together say of each other."""
        step, total_M = self.step, torch.zeros(len(self.row_M), dtype=torch.float64, device=self.row_M.device)
        quota = torch.tensor(step.now.quotas, device=self.row_M.device)
        at_MQ, free_R = self.at_RQ[self.row_M], step.canvas.free_BL.sum(1)[step.now.row_R]
        state_ML = step.tokens_RL[self.row_M]
        for j in range(1, at_MQ.shape[1]):
            state_ML = state_ML.scatter(1, at_MQ[:, j - 1 : j], self.tokens_ML.gather(1, at_MQ[:, j - 1 : j]))
            part_K = (quota[self.row_M] > j).nonzero().squeeze(1)
            row_K, at_K1 = self.row_M[part_K], at_MQ[part_K, j : j + 1]
            forked = step.session.fork(row_K)
            hidden = forked.run(state_ML[part_K], step.now.noise_R[row_K] - j / free_R[row_K], at_K1)
            token_K = self.tokens_ML[part_K].gather(1, at_K1).squeeze(1)
            slots_K = torch.arange(len(part_K), device=part_K.device)
            (log_p_K,) = forked.read(hidden, slots_K, [LogProb(token_K)])
            total_M.index_add_(0, part_K, log_p_K - log_p_MQ[part_K, j])
        return total_M
