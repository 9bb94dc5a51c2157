"""Keyed categorical draws from a projection on the vocabulary, tile by tile: exact at any vocabulary size.

    Draw            a token from the softmax at a temperature; the best token at temperature 0
    DrawAndZ        the same with log Σ exp(score) and the token's log-probability, from one pass
    DrawAndEntropy  a token at temperature 1 with the entropy of what it is drawn from, from one pass

Draws that need whole rows are in `row_draws`. See `reductions` for what tiles, scores and factors are.

Shape suffixes: N positions, T tokens of a tile, C blocks of a tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.reductions import Accumulator, LogZ, Plain, Scaled, Shannon
from diffq.rng import exponential

BLOCK = 256  # ids a block of the exponential race; stored samples depend on it
COLDEST = 1e-6  # temperatures below it are 0: float32 scores are coarser than what would decide the draw
BLOCK_LANE = 1 << 40  # lanes of blocks, apart from those of token ids


@dataclass(frozen=True)
class Draw:
    """A token from softmax(scores / temperature): the two-level exponential race, or the argmax at temperature 0
    (and below COLDEST).

    Level one: blocks of 256 ids with weights S_b = Σ exp(score/temperature); the winner is argmin_b E_b / S_b.
    Level two: within the winner, argmin_v E_v / exp(score_v/temperature). Both E are keyed standard exponentials, so
    the token has exactly the softmax's law (a minimum of exponentials falls on each with probability proportional to
    its rate), and a small change of the scores rarely changes it. Ties at temperature 0 go to the lowest id.

    key_N: 64-bit keys (diffq.rng), one a position; not needed at temperature 0.
    Returns token ids, int64.
    """

    key_N: Tensor | None = None
    temperature: float = 1.0

    @property
    def order_only(self) -> bool:
        return self.temperature < COLDEST

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        if self.temperature < COLDEST:
            return _Argmax() if factor == 1 else Scaled(_Argmax(), factor)
        if self.key_N is None:
            raise ValueError("a draw at temperature > 0 needs keys")
        return Race(self.key_N[part], factor / self.temperature)


@dataclass(frozen=True)
class DrawAndZ:
    """`Draw`, `LogZ` and `LogProb` of what was drawn, from one pass over the scores: (tokens, float64 log Σ exp(score),
    float64 log-probabilities). The temperature is the draw's alone: log Z and log-probability are those without it.

    key_N: 64-bit keys (diffq.rng), one a position; not needed at temperature 0.
    """

    key_N: Tensor | None
    temperature: float = 1.0
    order_only = False

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        if self.temperature == 1:
            assert self.key_N is not None
            return _RaceAndZ(self.key_N[part], factor)
        drawn = Draw(self.key_N, self.temperature).start(part)
        return _DrawnAndZ(drawn) if factor == 1 else Scaled(_DrawnAndZ(drawn), factor)


@dataclass(frozen=True)
class DrawAndEntropy(Plain):
    """`Draw` at temperature 1 and the Shannon `Entropy` of what is drawn from, from one pass over the scores: (tokens,
    float64 entropies in nats).

    key_N: 64-bit keys (diffq.rng), one a position.
    """

    key_N: Tensor

    def accumulator(self, part: slice) -> Accumulator:
        return _RaceAndEntropy(self.key_N[part])


def in_blocks(values_NT: Tensor, never: float) -> Tensor:
    """A tile in blocks of 256 ids, the last filled up with a value that never wins."""
    if values_NT.shape[1] % BLOCK:
        values_NT = torch.nn.functional.pad(values_NT, (0, -values_NT.shape[1] % BLOCK), value=never)
    return values_NT.unflatten(1, (-1, BLOCK))


class _LeadingBlock:
    """Finds the block of greatest merit over all tiles and carries its 256 values along."""

    merit_N: Tensor | None = None

    def lead(self, merit_NC: Tensor, blocks_NC256: Tensor, first: int) -> None:
        """Takes the merits of a tile's blocks; of equal ones the first leads."""
        merit_N, block_N = merit_NC.max(-1)
        leader_N256 = blocks_NC256[torch.arange(len(block_N), device=block_N.device), block_N]
        first_id_N = first + block_N * BLOCK
        if self.merit_N is None:
            self.merit_N, self.leader_N256, self.first_id_N = merit_N, leader_N256, first_id_N
        else:
            better_N = merit_N > self.merit_N
            self.merit_N = torch.where(better_N, merit_N, self.merit_N)
            self.first_id_N = torch.where(better_N, first_id_N, self.first_id_N)
            self.leader_N256 = torch.where(better_N[:, None], leader_N256, self.leader_N256)


class _Argmax(_LeadingBlock):
    """The best token: block maxima are several times cheaper on a CPU than a maximum that keeps its place."""

    def tile(self, scores_NT: Tensor, first: int) -> None:
        blocks_NC256 = in_blocks(scores_NT, -math.inf)
        self.lead(blocks_NC256.amax(-1), blocks_NC256, first)

    def result(self) -> Tensor:
        return self.first_id_N + self.leader_N256.argmax(-1)


class Race(_LeadingBlock):
    """Level one over the blocks of each tile, level two within the block that leads at the end.

    Weights are taken relative to the heaviest token of the tile, in float32 (powers of two are the cheapest to take).
    What underflows there, below 2^−126 of it, could not have won: exponentials of 53 bits lie between e^−36.7 and
    e^3.7.
    """

    def __init__(self, key_N: Tensor, factor: float):
        self.key_N, self.factor = key_N, factor

    def tile(self, values_NT: Tensor, first: int) -> None:
        self.race(values_NT, first)

    def race(self, values_NT: Tensor, first: int) -> Tensor:
        """Takes a tile and gives log Σ of the weights of each of its blocks, float64."""
        bits = self.factor / math.log(2)
        blocks_NC256 = in_blocks(values_NT, math.copysign(math.inf, -self.factor))
        largest = torch.finfo(values_NT.dtype).max / max(abs(bits), 1.0) / 2
        peak_N = (values_NT.amax(-1) if self.factor > 0 else values_NT.amin(-1)).clamp_(-largest, largest)
        shift_N11 = (peak_N * -bits)[:, None, None]
        sum_NC = self.weigh(torch.add(shift_N11, blocks_NC256, alpha=bits), peak_N)
        log_sum_NC = sum_NC.double().log_() - shift_N11[..., 0].double() * math.log(2)
        lanes = torch.arange(blocks_NC256.shape[1], device=values_NT.device) + (BLOCK_LANE + first // BLOCK)
        time_NC = exponential(self.key_N[:, None], lanes).log_() - log_sum_NC
        self.lead(-time_NC, blocks_NC256, first)
        return log_sum_NC

    def weigh(self, power_NC256: Tensor, peak_N: Tensor) -> Tensor:
        """Σ of 2^power in each block; what is handed over may be overwritten. peak_N: the value that has power 0."""
        return power_NC256.exp2_().sum(-1)

    def result(self) -> Tensor:
        ids_N256 = self.first_id_N[:, None] + torch.arange(BLOCK, device=self.first_id_N.device)
        race_N256 = exponential(self.key_N[:, None], ids_N256).log_()
        race_N256 -= self.leader_N256.double() * self.factor
        return ids_N256.gather(1, race_N256.argmin(-1, keepdim=True)).squeeze(1)


class _RaceAndZ(Race):
    log_z_N: Tensor | None = None

    def tile(self, values_NT: Tensor, first: int) -> None:
        log_z_N = torch.logsumexp(self.race(values_NT, first), -1)
        self.log_z_N = log_z_N if self.log_z_N is None else torch.logaddexp(self.log_z_N, log_z_N)

    def result(self) -> Any:
        assert self.log_z_N is not None
        token_N = super().result()
        value_N1 = self.leader_N256.gather(1, (token_N - self.first_id_N)[:, None])
        return token_N, self.log_z_N, value_N1.squeeze(1).double() * self.factor - self.log_z_N


class _RaceAndEntropy(Race):
    """Takes the entropy's two sums from the weights of the race."""

    def __init__(self, key_N: Tensor):
        super().__init__(key_N, 1.0)
        self.shannon = Shannon()

    def weigh(self, power_NC256: Tensor, peak_N: Tensor) -> Tensor:
        weights_NC256 = power_NC256.exp2()
        sum_NC = weights_NC256.sum(-1)
        # What is excluded has power −inf and weight 0: any finite power does, and 0·−inf would be no number.
        moment_NC = (weights_NC256.mul_(power_NC256.clamp_(min=-1e30))).sum(-1)
        mass_N, moment_N = sum_NC.sum(-1).double(), moment_NC.sum(-1).double() * math.log(2)
        self.shannon.add(peak_N.double(), mass_N, moment_N)
        return sum_NC

    def result(self) -> Any:
        return super().result(), self.shannon.result()


class _DrawnAndZ:
    """Any draw beside log Σ exp(score): the token's own score stands in the block that led."""

    def __init__(self, drawn: Any):
        self.drawn, self.plain = drawn, LogZ().start(slice(None))

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.drawn.tile(scores_NT, first)
        self.plain.tile(scores_NT, first)

    def result(self) -> Any:
        token_N, log_z_N = self.drawn.result(), self.plain.result()
        value_N1 = self.drawn.leader_N256.gather(1, (token_N - self.drawn.first_id_N)[:, None])
        return token_N, log_z_N, value_N1.squeeze(1).double() - log_z_N
