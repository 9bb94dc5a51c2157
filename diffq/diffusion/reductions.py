"""What is kept of a projection on the vocabulary, computed tile by tile.

A projection is handed over in tiles of consecutive token ids, each a matrix of unnormalised log-weights ("scores");
−inf excludes a token. A reduction keeps a few numbers a position and never sees the whole row at once, so memory does
not grow with the vocabulary.

    Draw      a keyed categorical draw: exact at any vocabulary size, at any temperature
    NucleusDraw  the same from the top-k tokens or the nucleus of mass top-p
    Top       the k best scores and their tokens
    LogZ      log Σ exp(score)
    LogProb   the normalised log-probability of one given token a position
    LogPower  log Σ p^α of the normalised distribution
    Entropy   Shannon (order 1) or Rényi entropy, in nats

Shape suffixes: N positions, T tokens of a tile, C blocks of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from diffq.rng import exponential

BLOCK = 256  # ids a block of the exponential race; stored samples depend on it
_BLOCK_LANE = 1 << 40  # lanes of blocks, apart from those of token ids


class Accumulator(Protocol):
    """The running state of a reduction over the tiles of some positions."""

    def tile(self, scores_NT: Tensor, first: int) -> None:
        """Takes the scores of tokens first … first+T−1; `first` is a multiple of 256. It may overwrite nothing."""
        ...

    def result(self) -> Any: ...


class Reduction(Protocol):
    """Something to keep of a projection.

    order_only: True where only the order of the scores matters, so that an increasing function of them will do.
    """

    @property
    def order_only(self) -> bool: ...

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        """A fresh accumulator for the asked positions in `part`; the tiles it will be given are to be multiplied by
        `factor` to be scores."""
        ...


class _Plain:
    """A reduction that takes scores as they are: where there is a factor, every tile is multiplied by it first."""

    order_only = False

    def accumulator(self, part: slice) -> Accumulator:
        raise NotImplementedError

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        accumulator = self.accumulator(part)
        return accumulator if factor == 1 else _Scaled(accumulator, factor)


@dataclass(frozen=True)
class _Scaled:
    inner: Accumulator
    factor: float

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.inner.tile(scores_NT * self.factor, first)

    def result(self) -> Any:
        return self.inner.result()


def read_tiles(
    project: Callable[[slice, int, int], Tensor],
    positions: int,
    vocab_size: int,
    reduce: Sequence[Reduction],
    *,
    factor: float = 1.0,
    rows_a_tile: int = 512,
    words_a_tile: int = 2048,
) -> tuple[Any, ...]:
    """Runs reductions over a projection.

    project(part, first, last) gives values of tokens first … last−1 at the positions of `part`; the scores are
    `factor` times them (−1 where they are distances: that saves a pass over every tile).
    Returns one result a reduction, concatenated over positions (tuples of tensors element by element).
    Peak memory is that of rows_a_tile × words_a_tile scores, whatever the vocabulary and the batch.
    """
    if words_a_tile % BLOCK:
        raise ValueError(f"words_a_tile must be a multiple of {BLOCK}, not {words_a_tile}")
    parts: list[tuple[Any, ...]] = []
    for begin in range(0, max(positions, 1), rows_a_tile):
        part = slice(begin, min(begin + rows_a_tile, positions))
        accumulators = [r.start(part, factor) for r in reduce]
        for first in range(0, vocab_size, words_a_tile):
            scores_NT = project(part, first, min(first + words_a_tile, vocab_size))
            for accumulator in accumulators:
                accumulator.tile(scores_NT, first)
        parts.append(tuple(a.result() for a in accumulators))
    return tuple(_concatenate([p[i] for p in parts]) for i in range(len(reduce)))


def _concatenate(results: list[Any]) -> Any:
    if isinstance(results[0], tuple):
        return tuple(torch.cat(column) for column in zip(*results, strict=True))
    return torch.cat(results)


@dataclass(frozen=True)
class Draw:
    """A token from softmax(scores / temperature): the two-level exponential race, or the argmax at temperature 0.

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
        return self.temperature == 0

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        if self.temperature == 0:
            return _Argmax() if factor == 1 else _Scaled(_Argmax(), factor)
        if self.key_N is None:
            raise ValueError("a draw at temperature > 0 needs keys")
        return _Race(self.key_N[part], factor / self.temperature)


class _Argmax:
    def __init__(self) -> None:
        self.best_N: Tensor | None = None

    def tile(self, scores_NT: Tensor, first: int) -> None:
        score_N, token_N = scores_NT.max(-1)
        token_N = token_N + first
        if self.best_N is None:
            self.best_N, self.token_N = score_N, token_N
        else:
            better_N = score_N > self.best_N
            self.best_N = torch.where(better_N, score_N, self.best_N)
            self.token_N = torch.where(better_N, token_N, self.token_N)

    def result(self) -> Tensor:
        return self.token_N


class _Race:
    """Level one over the blocks of each tile; the 256 values of the block that leads are carried along.

    Weights are taken relative to the heaviest token of the tile, in float32. What underflows there, below e^−87 of
    it, could not have won: exponentials of 53 bits lie between e^−36.7 and e^3.7.
    """

    def __init__(self, key_N: Tensor, factor: float):
        self.key_N = key_N
        self.factor = factor
        self.time_N: Tensor | None = None

    def tile(self, values_NT: Tensor, first: int) -> None:
        n, t = values_NT.shape
        if t % BLOCK:
            never = math.copysign(math.inf, -self.factor)
            values_NT = torch.nn.functional.pad(values_NT, (0, BLOCK - t % BLOCK), value=never)
        largest = torch.finfo(values_NT.dtype).max / max(abs(self.factor), 1.0) / 2
        peak_N = (values_NT.amax(-1) if self.factor > 0 else values_NT.amin(-1)).clamp_(-largest, largest)
        weights_NT = torch.add(peak_N[:, None] * -self.factor, values_NT, alpha=self.factor).exp_()
        log_sum_NC = (
            weights_NT.unflatten(1, (-1, BLOCK)).sum(-1).double().log_() + peak_N[:, None].double() * self.factor
        )
        blocks_NC256 = values_NT.unflatten(1, (-1, BLOCK))
        lanes = torch.arange(blocks_NC256.shape[1], device=values_NT.device) + (_BLOCK_LANE + first // BLOCK)
        time_NC = exponential(self.key_N[:, None], lanes).log_() - log_sum_NC
        time_N, block_N = time_NC.min(-1)
        leader_N256 = blocks_NC256[torch.arange(n, device=block_N.device), block_N]
        first_id_N = first + block_N * BLOCK
        if self.time_N is None:
            self.time_N, self.leader_N256, self.first_id_N = time_N, leader_N256, first_id_N
        else:
            better_N = time_N < self.time_N
            self.time_N = torch.where(better_N, time_N, self.time_N)
            self.first_id_N = torch.where(better_N, first_id_N, self.first_id_N)
            self.leader_N256 = torch.where(better_N[:, None], leader_N256, self.leader_N256)

    def result(self) -> Tensor:
        ids_N256 = self.first_id_N[:, None] + torch.arange(BLOCK, device=self.first_id_N.device)
        race_N256 = exponential(self.key_N[:, None], ids_N256).log_()
        race_N256 -= self.leader_N256.double() * self.factor
        return ids_N256.gather(1, race_N256.argmin(-1, keepdim=True)).squeeze(1)


@dataclass(frozen=True)
class Top(_Plain):
    """The k best scores, descending, and their tokens: (scores_NK, tokens_NK)."""

    k: int = 1

    def accumulator(self, part: slice) -> Accumulator:
        return _Top(self.k)


class _Top:
    def __init__(self, k: int):
        self.k = k
        self.scores_NK: Tensor | None = None
        self.tokens_NK: Tensor | None = None

    def tile(self, scores_NT: Tensor, first: int) -> None:
        scores_NK, tokens_NK = scores_NT.topk(min(self.k, scores_NT.shape[1]), dim=-1)
        tokens_NK = tokens_NK + first
        if self.scores_NK is not None and self.tokens_NK is not None:
            scores_NK = torch.cat([self.scores_NK, scores_NK], 1)
            tokens_NK = torch.cat([self.tokens_NK, tokens_NK], 1)
            scores_NK, order = scores_NK.topk(min(self.k, scores_NK.shape[1]), dim=-1)
            tokens_NK = tokens_NK.gather(1, order)
        self.scores_NK, self.tokens_NK = scores_NK, tokens_NK

    def result(self) -> tuple[Tensor, Tensor]:
        assert self.scores_NK is not None
        assert self.tokens_NK is not None
        return self.scores_NK, self.tokens_NK


class _LogSumExp:
    """log Σ exp(power · score), running, in float64."""

    def __init__(self, power: float = 1.0):
        self.power = power
        self.value_N: Tensor | None = None

    def tile(self, scores_NT: Tensor, first: int) -> None:
        scores_NT = scores_NT if self.power == 1 else scores_NT * self.power
        value_N = torch.logsumexp(scores_NT, -1).double()
        self.value_N = value_N if self.value_N is None else torch.logaddexp(self.value_N, value_N)

    def result(self) -> Tensor:
        assert self.value_N is not None
        return self.value_N


@dataclass(frozen=True)
class LogZ(_Plain):
    """log Σ exp(score), float64."""

    def accumulator(self, part: slice) -> Accumulator:
        return _LogSumExp()


@dataclass(frozen=True)
class LogProb(_Plain):
    """The normalised log-probability of the given token at each position, float64; −inf for an excluded token."""

    token_N: Tensor

    def accumulator(self, part: slice) -> Accumulator:
        return _LogProb(self.token_N[part])


class _LogProb(_LogSumExp):
    def __init__(self, token_N: Tensor):
        super().__init__()
        self.token_N = token_N
        self.score_N = torch.full(token_N.shape, -math.inf, dtype=torch.float64, device=token_N.device)

    def tile(self, scores_NT: Tensor, first: int) -> None:
        super().tile(scores_NT, first)
        local_N = self.token_N - first
        here_N = (local_N >= 0) & (local_N < scores_NT.shape[1])
        score_N = scores_NT.gather(1, local_N.clamp(0, scores_NT.shape[1] - 1)[:, None]).squeeze(1)
        self.score_N = torch.where(here_N, score_N.double(), self.score_N)

    def result(self) -> Tensor:
        return self.score_N - super().result()


@dataclass(frozen=True)
class LogPower(_Plain):
    """log Σ_v p(v)^alpha of the normalised distribution, float64: 0 at alpha 1, ≤ 0 above it."""

    alpha: float

    def accumulator(self, part: slice) -> Accumulator:
        return _LogPower(self.alpha)


class _LogPower:
    def __init__(self, alpha: float):
        self.alpha = alpha
        self.plain, self.powered = _LogSumExp(), _LogSumExp(alpha)

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.plain.tile(scores_NT, first)
        self.powered.tile(scores_NT, first)

    def result(self) -> Tensor:
        return self.powered.result() - self.alpha * self.plain.result()


@dataclass(frozen=True)
class Entropy(_Plain):
    """The entropy of the normalised distribution in nats, float64.

    order 1: Shannon, log Z − Σ p·score. Another order a > 0: Rényi, log(Σ p^a) / (1 − a). inf: −log max p.
    """

    order: float = 1.0

    def accumulator(self, part: slice) -> Accumulator:
        return _Shannon() if self.order == 1 else _Renyi(self.order)


class _Shannon:
    """Keeps the running peak, Σ exp(s − peak) and Σ exp(s − peak)·(s − peak)."""

    def __init__(self) -> None:
        self.peak_N: Tensor | None = None
        self.mass_N = self.moment_N = torch.zeros(())

    def tile(self, scores_NT: Tensor, first: int) -> None:
        peak_N = scores_NT.amax(-1).clamp_(min=torch.finfo(scores_NT.dtype).min)
        centred_NT = scores_NT - peak_N[:, None]
        weights_NT = centred_NT.exp()
        mass_N = weights_NT.sum(-1).double()
        moment_N = (weights_NT * centred_NT.clamp_(min=-1e30)).sum(-1).double()  # 0 · −inf is 0 here
        peak_N = peak_N.double()
        if self.peak_N is not None:
            new_N = torch.maximum(peak_N, self.peak_N)
            mass_N, moment_N = _rescale(mass_N, moment_N, peak_N - new_N)
            old_mass_N, old_moment_N = _rescale(self.mass_N, self.moment_N, self.peak_N - new_N)
            peak_N, mass_N, moment_N = new_N, mass_N + old_mass_N, moment_N + old_moment_N
        self.peak_N, self.mass_N, self.moment_N = peak_N, mass_N, moment_N

    def result(self) -> Tensor:
        return self.mass_N.log() - self.moment_N / self.mass_N


def _rescale(mass_N: Tensor, moment_N: Tensor, shift_N: Tensor) -> tuple[Tensor, Tensor]:
    """Mass and first moment about a peak that lies −shift higher."""
    factor_N = shift_N.exp()
    return mass_N * factor_N, (moment_N + mass_N * shift_N.clamp(min=-1e30)) * factor_N


class _Renyi:
    def __init__(self, order: float):
        self.order = order
        self.inner: Any = _LogPower(order) if math.isfinite(order) else _Top(1)
        self.plain = _LogSumExp()

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.inner.tile(scores_NT, first)
        if not math.isfinite(self.order):
            self.plain.tile(scores_NT, first)

    def result(self) -> Tensor:
        if math.isfinite(self.order):
            return self.inner.result() / (1 - self.order)
        return self.plain.result() - self.inner.result()[0].squeeze(1).double()


@dataclass(frozen=True)
class NucleusDraw(_Plain):
    """A draw from the top-k tokens, then from the nucleus of mass top_p, after dividing by the temperature.

    The token that crosses top_p is included, as in Hugging Face's `generate`; top_k=0 and top_p=1 are off. Ties at
    either edge are kept on the side of the lower id. The draw itself is `Draw`'s race on what is left.
    Unlike its siblings it holds the scores of its positions over the whole vocabulary while it works (at most
    rows_a_tile × vocabulary), since a nucleus is known only when all is sorted.
    """

    key_N: Tensor
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def accumulator(self, part: slice) -> Accumulator:
        return _NucleusDraw(self, part)


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
