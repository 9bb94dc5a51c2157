"""What is kept of a projection on the vocabulary, computed tile by tile.

A projection is handed over in tiles of consecutive token ids, each a matrix of unnormalised log-weights ("scores");
−inf excludes a token. A reduction keeps a few numbers a position and never sees the whole row at once, so memory does
not grow with the vocabulary.

    Top       the k best scores and their tokens
    LogZ      log Σ exp(score)
    LogProb   the normalised log-probability of one given token a position
    LogPower  log Σ p^α of the normalised distribution
    Entropy   Shannon (order 1) or Rényi entropy, in nats
    Without   any of them with a token excluded at some positions

Draws of tokens are reductions too; they are in `draws`.

Shape suffixes: N positions, T tokens of a tile.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

ALIGNMENT = 256  # tiles begin at multiples of it, so that draws may work in blocks
# Positions and scores a tile: 4 MiB suits a CPU's cache and its matrix product, 512 MiB keeps a GPU busy.
_CPU_TILE, _GPU_TILE = (1024, 1 << 20), (16384, 1 << 27)
# Scores that are held at once for reductions of whole rows, which need some tens of bytes for each.
_CPU_ROWS, _GPU_ROWS = 1 << 22, 1 << 25


class Accumulator(Protocol):
    """The running state of a reduction over the tiles of some positions."""

    def tile(self, scores_NT: Tensor, first: int) -> None:
        """Takes the scores of tokens first … first+T−1; `first` is a multiple of 256. It may overwrite nothing."""
        ...

    def result(self) -> Any: ...


class Reduction(Protocol):
    """Something to keep of a projection.

    order_only: True where only the order of the scores matters, so that an increasing function of them will do.
    A reduction that must see all scores of a position at once has `whole_rows = True`; it is given fewer positions a
    tile.
    """

    @property
    def order_only(self) -> bool: ...

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        """A fresh accumulator for the asked positions in `part`; the tiles it will be given are to be multiplied by
        `factor` to be scores."""
        ...


class Plain(ABC):
    """A reduction that takes scores as they are: where there is a factor, every tile is multiplied by it first."""

    order_only = False

    @abstractmethod
    def accumulator(self, part: slice) -> Accumulator: ...

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        accumulator = self.accumulator(part)
        return accumulator if factor == 1 else Scaled(accumulator, factor)


@dataclass(frozen=True)
class Scaled:
    """Hands its tiles on, multiplied by the factor."""

    inner: Accumulator
    factor: float

    def tile(self, scores_NT: Tensor, first: int) -> None:
        self.inner.tile(scores_NT * self.factor, first)

    def result(self) -> Any:
        return self.inner.result()


@dataclass(frozen=True)
class Without:
    """A reduction of the scores with some tokens excluded at some positions.

    excluded_N: bool, the positions (of those that are read) where the tokens count as impossible; None: everywhere.
    """

    inner: Reduction
    tokens: tuple[int, ...]
    excluded_N: Tensor | None = None

    @property
    def order_only(self) -> bool:
        return self.inner.order_only

    @property
    def whole_rows(self) -> bool:
        return needs_whole_rows(self.inner)

    def start(self, part: slice, factor: float = 1.0) -> Accumulator:
        never = -math.inf if factor > 0 else math.inf
        excluded_N = slice(None) if self.excluded_N is None else self.excluded_N[part]
        return _Without(self.inner.start(part, factor), self.tokens, excluded_N, never)


@dataclass(frozen=True)
class _Without:
    inner: Accumulator
    tokens: tuple[int, ...]
    excluded_N: Tensor | slice
    never: float

    def tile(self, scores_NT: Tensor, first: int) -> None:
        here = [token - first for token in self.tokens if 0 <= token - first < scores_NT.shape[1]]
        if here:
            scores_NT = scores_NT.clone()
        for column in here:
            scores_NT[self.excluded_N, column] = self.never
        self.inner.tile(scores_NT, first)

    def result(self) -> Any:
        return self.inner.result()


def needs_whole_rows(reduction: Reduction) -> bool:
    """Whether a reduction must see all scores of a position at once."""
    return getattr(reduction, "whole_rows", False)


def rows_held_whole(vocab_size: int, gpu: bool) -> int:
    """Positions a tile for reductions that hold whole rows."""
    return max(1, (_GPU_ROWS if gpu else _CPU_ROWS) // vocab_size)


def tile_sizes(positions: int, gpu: bool, rows_a_tile: int | None = None) -> tuple[int, int]:
    """Positions and tokens a tile, for so many positions asked at once."""
    rows, scores = _GPU_TILE if gpu else _CPU_TILE
    rows = rows_a_tile or rows
    return rows, max(4, scores // max(1, min(positions, rows)) // ALIGNMENT) * ALIGNMENT


def read_tiles(
    project: Callable[[slice, int, int], Tensor],
    positions: int,
    vocab_size: int,
    reduce: Sequence[Reduction],
    *,
    factor: float = 1.0,
    rows_a_tile: int | None = None,
    words_a_tile: int | None = None,
    device: torch.device | None = None,
) -> tuple[Any, ...]:
    """Runs reductions over a projection.

    project(part, first, last) gives values of tokens first … last−1 at the positions of `part`; the scores are
    `factor` times them (−1 where they are distances: that saves a pass over every tile).
    Returns one result a reduction, concatenated over positions (tuples of tensors element by element).
    Where the sizes are None the device decides them; few positions are read in few, wide tiles.
    Peak memory is that of rows_a_tile × words_a_tile scores, whatever the vocabulary and the batch.
    """
    gpu = device is not None and device.type == "cuda"
    if rows_a_tile is None and any(needs_whole_rows(r) for r in reduce):
        rows_a_tile = min(rows_held_whole(vocab_size, gpu), tile_sizes(positions, gpu)[0])
    rows, words = tile_sizes(positions, gpu, rows_a_tile)
    rows_a_tile, words_a_tile = rows, words_a_tile or words
    if words_a_tile % ALIGNMENT:
        raise ValueError(f"words_a_tile must be a multiple of {ALIGNMENT}, not {words_a_tile}")
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
class Top(Plain):
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
class LogZ(Plain):
    """log Σ exp(score), float64."""

    def accumulator(self, part: slice) -> Accumulator:
        return _LogSumExp()


@dataclass(frozen=True)
class LogProb(Plain):
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
class LogPower(Plain):
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
class Entropy(Plain):
    """The entropy of the normalised distribution in nats, float64.

    order 1: Shannon, log Z − Σ p·score. Another order a > 0: Rényi, log(Σ p^a) / (1 − a). inf: −log max p.
    """

    order: float = 1.0

    def accumulator(self, part: slice) -> Accumulator:
        return Shannon() if self.order == 1 else _Renyi(self.order)


class Shannon:
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
        self.add(peak_N.double(), mass_N, moment_N)

    def add(self, peak_N: Tensor, mass_N: Tensor, moment_N: Tensor) -> None:
        """Takes the sums of a tile, float64."""
        if self.peak_N is not None:
            new_N = torch.maximum(peak_N, self.peak_N)
            mass_N, moment_N = _rescale(mass_N, moment_N, peak_N - new_N)
            old_mass_N, old_moment_N = _rescale(self.mass_N, self.moment_N, self.peak_N - new_N)
            peak_N, mass_N, moment_N = new_N, mass_N + old_mass_N, moment_N + old_moment_N
        self.peak_N, self.mass_N, self.moment_N = peak_N, mass_N, moment_N

    def result(self) -> Tensor:
        return self.mass_N.log() - self.moment_N / self.mass_N


def entropy_of(scores_NV: Tensor) -> Tensor:
    """The entropy of the distributions with these log-weights, in nats, (N,) float64."""
    shannon = Shannon()
    shannon.tile(scores_NV, 0)
    return shannon.result()


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
