"""Draws and reductions that hold the scores of their positions over the whole vocabulary while they work, a few
positions at a time.

    Candidates   several independent tokens a position, and their log-probabilities
    NucleusDraw  a token from the top-k tokens, or from the nucleus of mass top-p
    token_draw   the draw that a sampler's dials ask for
    sharpened    another reduction of what temperature, top-k and top-p make of the distribution
    race_of      a token from rows of weights that are at hand

See `reductions` for what tiles, scores and factors are, and `draws` for the race.

Shape suffixes: N positions, T tokens of a tile, V tokens, B blocks of the race, C draws of a position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.draws import BLOCK, BLOCK_LANE, COLDEST, Draw, Race, in_blocks
from diffq.diffusion.reductions import Accumulator, Plain, Reduction
from diffq.rng import exponential


class _Rows:
    """Collects the tiles of its positions."""

    def __init__(self) -> None:
        self.tiles: list[Tensor] = []

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.tiles.append(scores_NT.clone())

    def rows(self) -> Tensor:
        return self.tiles[0] if len(self.tiles) == 1 else torch.cat(self.tiles, 1)


@dataclass(frozen=True)
class Candidates(Plain):
    """Several independent draws a position at one temperature, with the log-probability that each token has without it:
    (tokens int64, float64), both (N, C).

    key_NC: a key a draw.
    """

    key_NC: Tensor
    temperature: float = 1.0
    whole_rows = True

    def accumulator(self, part: slice) -> Accumulator:
        return _Candidates(self.key_NC[part], self.temperature)


class _Candidates(_Rows):
    def __init__(self, key_NC: Tensor, temperature: float):
        super().__init__()
        self.key_NC, self.temperature = key_NC, temperature

    def result(self) -> tuple[Tensor, Tensor]:
        scores_NV = self.rows()
        log_z_N1 = torch.logsumexp(scores_NV, -1, keepdim=True).double()
        if self.temperature < COLDEST:
            token_NC = scores_NV.argmax(-1, keepdim=True).expand_as(self.key_NC)
        else:
            peak_N1 = scores_NV.amax(-1, keepdim=True)
            token_NC = races(((scores_NV - peak_N1) / self.temperature).exp_(), self.key_NC)
        return token_NC, scores_NV.gather(1, token_NC).double() - log_z_N1


def race_of(weight_NV: Tensor, key_N: Tensor, temperature: float = 1.0) -> Tensor:
    """A token with probability proportional to weight^(1/temperature), from whole rows of weights ≥ 0; the first of the
    largest at temperature 0. `Draw`'s race, which needs no logarithm where weights are at hand.
    """
    if temperature < COLDEST:
        return weight_NV.argmax(-1)
    if temperature != 1:
        weight_NV = (weight_NV / weight_NV.amax(-1, keepdim=True)).pow_(1.0 / temperature)
    return races(weight_NV, key_N[:, None]).squeeze(1)


def races(weight_NV: Tensor, key_NC: Tensor) -> Tensor:
    """Independent races over the same weights ≥ 0, (N, C) tokens.

    Costs no copy where rows are filled up with zeros to whole blocks of 256.
    """
    blocks_NB256 = in_blocks(weight_NV, 0.0)
    sum_NB = blocks_NB256.sum(-1).double()
    lane_B = torch.arange(sum_NB.shape[1], device=weight_NV.device) + BLOCK_LANE
    block_NC = (exponential(key_NC[..., None], lane_B) / sum_NB[:, None]).argmin(-1)
    row_N1 = torch.arange(len(block_NC), device=weight_NV.device)[:, None]
    leader_NC256 = blocks_NB256[row_N1, block_NC].double()
    ids_NC256 = block_NC[..., None] * BLOCK + torch.arange(BLOCK, device=weight_NV.device)
    winner_NC1 = (exponential(key_NC[..., None], ids_NC256) / leader_NC256).argmin(-1, keepdim=True)
    return ids_NC256.gather(2, winner_NC1).squeeze(2)


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
        return _NucleusDraw(self, part) if self.temperature >= COLDEST else Draw(None, 0.0).start(part)


class _NucleusDraw(_Rows):
    def __init__(self, what: NucleusDraw, part: slice):
        super().__init__()
        self.what, self.part = what, part

    def result(self) -> Tensor:
        what = self.what
        scores_NV = nucleus(self.rows(), what.temperature, what.top_k, what.top_p)
        race = Race(what.key_N[self.part], 1.0 / what.temperature)
        race.tile(scores_NV, 0)
        return race.result()


def nucleus(scores_NV: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Whole rows of scores with all but the top-k tokens, and then all but the nucleus, set to −inf. See
    `NucleusDraw`."""
    sorted_NV, order_NV = torch.sort(scores_NV, dim=-1, descending=True, stable=True)
    probability_NV = (sorted_NV.double() / temperature).softmax(-1)
    if top_k:
        probability_NV[:, top_k:] = 0
        probability_NV /= probability_NV.sum(-1, keepdim=True)
    before_NV = probability_NV.cumsum(-1) - probability_NV
    drop_NV = (probability_NV == 0) | (before_NV >= top_p if top_p < 1 else False)
    return scores_NV.scatter(1, order_NV, sorted_NV.masked_fill(drop_NV, -math.inf))


def token_draw(key_N: Tensor, temperature: float, top_k: int, top_p: float) -> Reduction:
    """The draw of a token under the dials temperature (0 = argmax), top_k (0 = off) and top_p (1 = off).

    key_N: 64-bit keys (diffq.rng), one a position.
    """
    if temperature == 0:
        return Draw(None, 0.0)
    if top_p == 1 and top_k == 0:
        return Draw(key_N, temperature)
    return NucleusDraw(key_N, temperature, top_k, top_p)


def sharpened(inner: Reduction, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Reduction:
    """A reduction of the distribution after temperature, top-k and top-p, such as its entropy.

    At temperature 0 the temperature is left out, as published decoders do: all mass would be on one token.
    """
    temperature = 1.0 if temperature < COLDEST else temperature
    if top_k == 0 and top_p == 1:
        return inner if temperature == 1 else _Tempered(inner, temperature)
    return _Cut(inner, temperature, top_k, top_p)


@dataclass(frozen=True)
class _Tempered:
    inner: Reduction
    temperature: float
    order_only = False

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        return self.inner.start(part, factor / self.temperature)


@dataclass(frozen=True)
class _Cut(Plain):
    """Hands the inner reduction one tile, the whole row."""

    inner: Reduction
    temperature: float
    top_k: int
    top_p: float
    whole_rows = True

    def accumulator(self, part: slice) -> Accumulator:
        return _CutRows(self, self.inner.start(part, 1.0 / self.temperature))


class _CutRows(_Rows):
    def __init__(self, what: _Cut, inner: Accumulator):
        super().__init__()
        self.what, self.inner = what, inner

    def result(self) -> Any:
        what = self.what
        self.inner.tile(nucleus(self.rows(), what.temperature, what.top_k, what.top_p), 0)
        return self.inner.result()
