"""Keyed categorical draws from a projection on the vocabulary, tile by tile: exact at any vocabulary size.

    Draw         a token from the softmax at a temperature; the best token at temperature 0
    DrawAndZ     a token from the softmax with log Σ exp(score) and its own score, which the draw comes by anyway
    NucleusDraw  the same from the top-k tokens, or from the nucleus of mass top-p
    token_draw   the one of these that a sampler's dials ask for

See `reductions` for what tiles, scores and factors are.

Shape suffixes: N positions, T tokens of a tile, C blocks of a tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.reductions import Accumulator, Plain, Reduction, Scaled
from diffq.rng import exponential

BLOCK = 256  # ids a block of the exponential race; stored samples depend on it
COLDEST = 1e-6  # temperatures below it are 0: float32 scores are coarser than what would decide the draw
_BLOCK_LANE = 1 << 40  # lanes of blocks, apart from those of token ids


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
        return _Race(self.key_N[part], factor / self.temperature)


@dataclass(frozen=True)
class DrawAndZ:
    """`Draw` at temperature 1, `LogZ` and `LogProb` of what was drawn, from one pass over the scores: (tokens,
    float64 log Σ exp(score), float64 log-probabilities).

    key_N: 64-bit keys (diffq.rng), one a position.
    """

    key_N: Tensor
    order_only = False

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        return _RaceAndZ(self.key_N[part], factor)


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

    @staticmethod
    def blocks(values_NT: Tensor, never: float) -> Tensor:
        """The tile in blocks of 256 ids, the last filled up with a value that never wins."""
        if values_NT.shape[1] % BLOCK:
            values_NT = torch.nn.functional.pad(values_NT, (0, -values_NT.shape[1] % BLOCK), value=never)
        return values_NT.unflatten(1, (-1, BLOCK))


class _Argmax(_LeadingBlock):
    """The best token: block maxima are several times cheaper on a CPU than a maximum that keeps its place."""

    def tile(self, scores_NT: Tensor, first: int) -> None:
        blocks_NC256 = self.blocks(scores_NT, -math.inf)
        self.lead(blocks_NC256.amax(-1), blocks_NC256, first)

    def result(self) -> Tensor:
        return self.first_id_N + self.leader_N256.argmax(-1)


class _Race(_LeadingBlock):
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
        blocks_NC256 = self.blocks(values_NT, math.copysign(math.inf, -self.factor))
        largest = torch.finfo(values_NT.dtype).max / max(abs(bits), 1.0) / 2
        peak_N = (values_NT.amax(-1) if self.factor > 0 else values_NT.amin(-1)).clamp_(-largest, largest)
        shift_N11 = (peak_N * -bits)[:, None, None]
        weights_NC256 = torch.add(shift_N11, blocks_NC256, alpha=bits).exp2_()
        log_sum_NC = weights_NC256.sum(-1).double().log_() - shift_N11[..., 0].double() * math.log(2)
        lanes = torch.arange(blocks_NC256.shape[1], device=values_NT.device) + (_BLOCK_LANE + first // BLOCK)
        time_NC = exponential(self.key_N[:, None], lanes).log_() - log_sum_NC
        self.lead(-time_NC, blocks_NC256, first)
        return log_sum_NC

    def result(self) -> Tensor:
        ids_N256 = self.first_id_N[:, None] + torch.arange(BLOCK, device=self.first_id_N.device)
        race_N256 = exponential(self.key_N[:, None], ids_N256).log_()
        race_N256 -= self.leader_N256.double() * self.factor
        return ids_N256.gather(1, race_N256.argmin(-1, keepdim=True)).squeeze(1)


def race_of(weight_NV: Tensor, key_N: Tensor, temperature: float = 1.0) -> Tensor:
    """A token with probability proportional to weight^(1/temperature), from whole rows of weights ≥ 0; the first of the
    largest at temperature 0. `Draw`'s race, which needs no logarithm where weights are at hand.

    Costs no copy where rows are filled up with zeros to whole blocks of 256.
    """
    if temperature < COLDEST:
        return weight_NV.argmax(-1)
    if temperature != 1:
        weight_NV = (weight_NV / weight_NV.amax(-1, keepdim=True)).pow_(1.0 / temperature)
    blocks_NC256 = _LeadingBlock.blocks(weight_NV, 0.0)
    lane_C = torch.arange(blocks_NC256.shape[1], device=weight_NV.device) + _BLOCK_LANE
    block_N = (exponential(key_N[:, None], lane_C) / blocks_NC256.sum(-1).double()).argmin(-1)
    leader_N256 = blocks_NC256[torch.arange(len(block_N), device=block_N.device), block_N]
    ids_N256 = block_N[:, None] * BLOCK + torch.arange(BLOCK, device=block_N.device)
    winner_N1 = (exponential(key_N[:, None], ids_N256) / leader_N256.double()).argmin(-1, keepdim=True)
    return ids_N256.gather(1, winner_N1).squeeze(1)


class _RaceAndZ(_Race):
    log_z_N: Tensor | None = None

    def tile(self, values_NT: Tensor, first: int) -> None:
        log_z_N = torch.logsumexp(self.race(values_NT, first), -1)
        self.log_z_N = log_z_N if self.log_z_N is None else torch.logaddexp(self.log_z_N, log_z_N)

    def result(self) -> Any:
        assert self.log_z_N is not None
        token_N = super().result()
        value_N1 = self.leader_N256.gather(1, (token_N - self.first_id_N)[:, None])
        return token_N, self.log_z_N, value_N1.squeeze(1).double() * self.factor - self.log_z_N


@dataclass(frozen=True)
class NucleusDraw(Plain):
    """A draw from the top-k tokens, then from the nucleus of mass top_p, after dividing by the temperature.

    The token that crosses top_p is included, as in Hugging Face's `generate`; top_k=0 and top_p=1 are off. Ties at
    either edge are kept on the side of the lower id. The draw itself is `Draw`'s race on what is left.
    Unlike its siblings it holds the scores of its positions over the whole vocabulary while it works, since a nucleus
    is known only when all is sorted; so it is given few positions at a time.
    """

    key_N: Tensor
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def whole_rows(self) -> bool:
        return self.temperature >= COLDEST

    def accumulator(self, part: slice) -> Accumulator:
        return _NucleusDraw(self, part) if self.temperature >= COLDEST else _Argmax()


class _NucleusDraw:
    def __init__(self, what: NucleusDraw, part: slice):
        self.what, self.part = what, part
        self.tiles: list[Tensor] = []

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.tiles.append(scores_NT.clone())

    def result(self) -> Tensor:
        what = self.what
        scores_NV = torch.cat(self.tiles, 1)
        sorted_NV, order_NV = torch.sort(scores_NV, dim=-1, descending=True, stable=True)
        probability_NV = (sorted_NV.double() / what.temperature).softmax(-1)
        if what.top_k:
            probability_NV[:, what.top_k :] = 0
            probability_NV /= probability_NV.sum(-1, keepdim=True)
        before_NV = probability_NV.cumsum(-1) - probability_NV
        drop_NV = (probability_NV == 0) | (before_NV >= what.top_p if what.top_p < 1 else False)
        scores_NV = scores_NV.scatter(1, order_NV, sorted_NV.masked_fill(drop_NV, -math.inf))
        race = _Race(what.key_N[self.part], 1.0 / what.temperature)
        race.tile(scores_NV, 0)
        return race.result()


def token_draw(key_N: Tensor, temperature: float, top_k: int, top_p: float) -> Reduction:
    """The draw of a token under the dials temperature (0 = argmax), top_k (0 = off) and top_p (1 = off).

    key_N: 64-bit keys (diffq.rng), one a position.
    """
    if temperature == 0:
        return Draw(None, 0.0)
    if top_p == 1 and top_k == 0:
        return Draw(key_N, temperature)
    return NucleusDraw(key_N, temperature, top_k, top_p)
