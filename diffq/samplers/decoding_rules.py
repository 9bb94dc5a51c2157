"""The rules of decoding: where a masked model writes next. See `decoding` for the skeleton and a table of them.

Knows no network.

Shape suffixes: N read slots, R rows, K slots of a row in falling order of merit, L positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.reductions import Entropy, LogProb, LogZ, Reduction, Top
from diffq.diffusion.row_draws import sharpened
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng
from diffq.samplers.decoding import Counting, Decoding, Sight, from_left, random_order
from diffq.samplers.rounds import Blocks, Looking, Round
from diffq.settings import setting


@SAMPLERS.register("random")
@dataclass(frozen=True, kw_only=True)
class RandomOrder(Counting, Decoding):
    """Positions in a random order, keyed by row and position: LLaDA's `random` remasking, in law.

    (It ranks fresh uniforms in every round; the first of all that are left is then the first of a random order.)
    """

    def check(self) -> None:
        refuse_waiting("random", self.ending)

    def places(self, canvas: Canvas, rng: Rng) -> Tensor:
        return random_order(canvas, rng)


@SAMPLERS.register("left_to_right")
@dataclass(frozen=True, kw_only=True)
class LeftToRight(Counting, Decoding):
    """Positions from left to right, as an autoregressive model goes."""

    def check(self) -> None:
        refuse_waiting("left_to_right", self.ending)

    def places(self, canvas: Canvas, rng: Rng) -> Tensor:
        return from_left(canvas)


def refuse_waiting(rule: str, ending: str) -> None:
    """UserError for ending=last where the order is known before a token is drawn: nobody can wait for others then."""
    if ending == "last":
        raise UserError(
            f"{rule}: ending=last has positions wait where an end token is drawn, and here the order is known before"
            " anything is drawn; take ending=free or ending=never"
        )


@dataclass(frozen=True, kw_only=True)
class Ranking(Decoding):
    """Rules that rank distributions."""

    confidence: Literal["plain", "sharpened"] = setting(
        "plain", "what is ranked: the model's own distribution, or the one after temperature, top-k and top-p (Dream)"
    )

    def rank(self, reduction: Reduction) -> Reduction:
        if self.confidence == "plain":
            return reduction
        return sharpened(reduction, self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True, kw_only=True)
class _DrawThenRank(Ranking):
    """Rules that draw a token at every position and rank it."""

    def visits(self, now: Round) -> Tensor:
        return now.visit_R

    def ranked(self, sight: Sight) -> tuple[Tensor, Tensor]:
        if self.confidence == "plain":
            token_N, log_p_N = self.token_and_log_p(sight.read, sight.key_N)
        else:
            (token_N,) = sight.read(self.token(sight.key_N))
            (log_p_N,) = sight.read(self.rank(LogProb(token_N)))
        return sight.ends_last(log_p_N, token_N), token_N


@SAMPLERS.register("low_confidence")
@dataclass(frozen=True, kw_only=True)
class LowConfidence(Counting, _DrawThenRank):
    """LLaDA's low-confidence remasking: a token is drawn at every masked position of the block, and those are kept that
    were most probable, before temperature; Dream's maskgit_plus with confidence=sharpened."""


@SAMPLERS.register("rank_then_sample")
@dataclass(frozen=True, kw_only=True)
class RankThenSample(Counting, Ranking):
    """Where the best token is most probable a token is drawn: the abstraction that the entropy bound is proved of
    (TPP, papers on arXiv 2604.00375).

    `entropy_bound` of a round: the most entropy, in nats, that what it writes can have where the best token has the
    probability 1 − δ, Σ h(δ) + δ log(V − 1) (Fano). Positions are chosen by the state alone, so the sum over a row's
    rounds (`entropy_bound_in_all`), averaged over rows, bounds the entropy of the text. Not told where a temperature
    above 1 voids it.
    """

    records: ClassVar[tuple[str, ...]] = ("entropy_bound",)
    totals: ClassVar[tuple[str, ...]] = ("entropy_bound",)

    def ranked(self, sight: Sight) -> tuple[Tensor, None]:
        (best_N1, token_N1), log_z_N = sight.read(self.rank(Top(1)), self.rank(LogZ()))
        return sight.ends_last(best_N1.squeeze(1).double() - log_z_N, token_N1.squeeze(1)), None

    def told(self, merit_RQ: Tensor, write_RQ: Tensor, words: int) -> dict[str, Tensor]:
        if self.temperature > 1 or self.ending == "last":
            return {}
        return {"entropy_bound": torch.where(write_RQ, entropy_bound(merit_RQ, words), 0.0).sum(1)}


def entropy_bound(log_p: Tensor, words: int) -> Tensor:
    """The most entropy that a distribution over so many words can have whose best one has the log-probability log_p, in
    nats: h(δ) + δ log(V − 1) with δ = 1 − p (Fano's inequality)."""
    best, doubt = log_p.exp(), -torch.expm1(log_p).clamp(max=0)
    return -best * log_p - torch.xlogy(doubt, doubt) + doubt * math.log(max(words - 1, 1))


@SAMPLERS.register("margin")
@dataclass(frozen=True, kw_only=True)
class Margin(Counting, Ranking):
    """Where the best token's probability leads that of the second by most (Dream: topk_margin)."""

    def ranked(self, sight: Sight) -> tuple[Tensor, None]:
        (best_N2, token_N2), log_z_N = sight.read(self.rank(Top(2)), self.rank(LogZ()))
        p_N2 = (best_N2.double() - log_z_N[:, None]).exp()
        return sight.ends_last(p_N2[:, 0] - p_N2[:, 1], token_N2[:, 0]), None


@SAMPLERS.register("entropy")
@dataclass(frozen=True, kw_only=True)
class LeastEntropy(Counting, Ranking):
    """Where the distribution of the token has least Shannon entropy (Dream: entropy)."""

    def ranked(self, sight: Sight) -> tuple[Tensor, None]:
        if self.ending == "last":
            (_, token_N1), entropy_N = sight.read(Top(1), self.rank(Entropy()))
            return sight.ends_last(-entropy_N, token_N1.squeeze(1)), None
        (entropy_N,) = sight.read(self.rank(Entropy()))
        return -entropy_N, None


@dataclass(frozen=True, kw_only=True)
class _BySight(_DrawThenRank):
    """Rules that decide by what they see how much they write."""

    def rounds(self, canvas: Canvas, blocks: Blocks) -> Looking:
        return Looking(canvas, blocks, waits=self.cache != "off")


@SAMPLERS.register("confidence_threshold")
@dataclass(frozen=True, kw_only=True)
class ConfidenceThreshold(_BySight):
    """Every position whose drawn token has at least this probability, and the best one anyway (Fast-dLLM).

    Approximate: tokens that are written together are drawn as if they did not depend on each other.
    """

    threshold: float = setting(0.9, "the probability from which a token is written", above=0, high=1)

    def above(self, merit_RK: Tensor) -> Tensor:
        return merit_RK >= math.log(self.threshold)


@SAMPLERS.register("factor")
@dataclass(frozen=True, kw_only=True)
class Factor(_BySight):
    """The n most confident positions for the largest n with (n + 1)·(1 − c_n) < factor, c_n the least confidence among
    them, and the best one anyway (Fast-dLLM). Approximate, as confidence_threshold."""

    factor: float = setting(1.0, "how much doubt is allowed: less is slower and surer", above=0)

    def above(self, merit_RK: Tensor) -> Tensor:
        number_K = torch.arange(1, merit_RK.shape[1] + 1, device=merit_RK.device)
        agree_RK = (number_K + 1) * (1 - merit_RK.exp()) < self.factor
        return agree_RK.flip(1).cummax(1).values.flip(1)  # up to the largest n that agrees
