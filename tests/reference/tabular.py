"""Denoisers that know a joint distribution over a few tokens exactly, and laws of samplers by enumeration.

Shape suffixes: B rows, L positions, N asked positions, V tokens, S states of the whole canvas.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from diffq.diffusion.contracts import COND, Canvas, TiledSession
from diffq.diffusion.discrete import Uniform
from diffq.diffusion.noise import Noise
from diffq.rng import Rng


def joint(words: int, length: int, seed: int = 0) -> Tensor:
    """A joint over `length` tokens with strong dependence, shape (V, …, V), float64."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn((words,) * length, generator=generator, dtype=torch.float64).mul(1.3).exp()
    return weights / weights.sum()


def canvas(length: int, rows: int, words: int, given: dict[int, int] | None = None) -> Canvas:
    """Rows alike; `given` holds tokens by position."""
    tokens_BL = torch.full((rows, length), words)
    free_BL = torch.ones(rows, length, dtype=torch.bool)
    for position, token in (given or {}).items():
        tokens_BL[:, position], free_BL[:, position] = token, False
    return Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(rows))


class TabularMasks:
    """The exact masked denoiser of a joint. z: what its scores sum to, a function of (tokens, position, m); None: 1."""

    process, guidable, max_length = "absorbing", True, 64

    def __init__(
        self, joint: Tensor, noise: Noise | None = None, z: Callable[[tuple, int, float], float] | None = None
    ):
        self.joint, self.z = joint, z
        self.noise = noise or Noise()
        self.vocab_size = self.mask = joint.shape[0]
        self.learnt_z = z is not None
        self._cache: dict = {}

    def open(self, canvas, branches=COND):
        return _MaskSession(self, canvas, branches)

    def log_weights(self, tokens: tuple, position: int, m: float) -> Tensor:
        """log(z·p) of the clean token at a masked position, float64 (V,)."""
        key = (tokens, position)
        if key not in self._cache:
            index = tuple(slice(None) if t == self.mask else t for t in tokens)
            table = self.joint[index]
            axis = sum(t == self.mask for t in tokens[:position])
            others = [a for a in range(table.dim()) if a != axis]
            p = table.sum(others) if others else table
            self._cache[key] = (p / p.sum()).log()
        shift = torch.tensor(1.0 if self.z is None else self.z(tokens, position, m)).double().log()
        return self._cache[key] + shift


class _MaskSession(TiledSession):
    def __init__(self, denoiser, canvas, branches):
        self.denoiser, self.branches, self.words = denoiser, branches, denoiser.vocab_size
        self.given_BL = canvas.valid_BL & ~canvas.free_BL

    def run(self, tokens_BL, noise_B, at_BK=None):
        """Hidden states are what they were asked: the canvas, the position and m."""
        length = tokens_BL.shape[1]
        if at_BK is None:
            at_BK = torch.arange(length).expand(len(tokens_BL), -1)
        blank_BL = torch.where(self.given_BL, self.denoiser.mask, tokens_BL)
        parts = [tokens_BL if branch == "cond" else blank_BL for branch in self.branches]
        tokens_RL = torch.cat(parts).double()
        at_RK = at_BK.repeat(len(parts), 1)
        noise_RK1 = noise_B.double().repeat(len(parts))[:, None, None].expand(-1, at_RK.shape[1], 1)
        whole = tokens_RL[:, None].expand(-1, at_RK.shape[1], -1)
        return torch.cat([whole, at_RK[..., None].double(), noise_RK1], -1)

    def scores(self, hidden, positions_N):
        rows = hidden.flatten(0, 1)[positions_N]
        keys, back = torch.unique(rows, dim=0, return_inverse=True)
        table = torch.stack(
            [self.denoiser.log_weights(tuple(int(t) for t in k[:-2]), int(k[-2]), float(k[-1])) for k in keys]
        )
        return lambda part, first, last: table[back[part], first:last]

    def select(self, rows_K):
        self.given_BL = self.given_BL[rows_K]


class TabularUniform:
    """The exact scores of the uniform process from a joint."""

    process, guidable, learnt_z, max_length = "uniform", True, False, 64

    def __init__(self, joint: Tensor, noise: Noise):
        self.joint, self.noise = joint, noise
        self.vocab_size = self.mask = joint.shape[0]

    def open(self, canvas, branches=COND):
        return _UniformSession(self, branches)

    def marginal(self, m: float) -> Tensor:
        """The joint at the noise with share m."""
        v = self.vocab_size
        matrix = Uniform(v).transition(torch.arange(v), -torch.log1p(torch.tensor(-m, dtype=torch.float64)))
        table = self.joint
        for axis in range(table.dim()):
            table = torch.tensordot(table, matrix, ([axis], [0])).movedim(-1, axis)
        return table


class _UniformSession(TiledSession):
    def __init__(self, denoiser, branches):
        self.denoiser, self.branches, self.words = denoiser, branches, denoiser.vocab_size

    def run(self, tokens_BL, noise_B, at_BK=None):
        noise_BL1 = noise_B.double()[:, None, None].expand(-1, tokens_BL.shape[1], 1)
        place_BL1 = torch.arange(tokens_BL.shape[1]).double()[None, :, None].expand(len(tokens_BL), -1, 1)
        whole = tokens_BL.double()[:, None].expand(-1, tokens_BL.shape[1], -1)
        return torch.cat([whole, place_BL1, noise_BL1], -1)

    def scores(self, hidden, positions_N):
        keys, back = torch.unique(hidden.flatten(0, 1)[positions_N], dim=0, return_inverse=True)
        table = torch.stack([self._log_score(k) for k in keys])
        return lambda part, first, last: table[back[part], first:last]

    def _log_score(self, key):
        tokens, position = [int(t) for t in key[:-2]], int(key[-2])
        marginal = self.denoiser.marginal(min(float(key[-1]), 1 - 1e-15))
        row = marginal[(*tokens[:position], slice(None), *tokens[position + 1 :])]
        return (row / row[tokens[position]]).log()

    def select(self, rows_K):
        pass


def states(words: int, length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(words), repeat=length))


def masked_law(denoiser: TabularMasks, length: int, write_TP: Callable, noise_T, given=None, final="draw"):
    """The law of a stepwise masked sampler, by pushing the whole distribution over canvases through every step.

    write_TP(k, z): the probability that step k writes a masked position whose scores sum to z.
    Returns the probability of each full canvas, in the order of `states`, and that of canvases with masks left.
    """
    mask = denoiser.mask
    start = [mask] * length
    for position, token in (given or {}).items():
        start[position] = token
    law = {tuple(start): 1.0}
    for k in range(len(noise_T)):
        last = k == len(noise_T) - 1
        if last and final == "none":
            break
        following: dict[tuple, float] = {}
        for tokens, weight in law.items():
            options = []
            for position, token in enumerate(tokens):
                if token != mask:
                    options.append([(token, 1.0)])
                    continue
                log_weights = denoiser.log_weights(tokens, position, float(noise_T[k]))
                z, p = float(log_weights.logsumexp(0).exp()), log_weights.softmax(0)
                if last and final == "argmax":
                    p = torch.nn.functional.one_hot(p.argmax(), len(p)).double()
                u = 1.0 if last else float(write_TP(k, z))
                options.append([(mask, 1 - u), *((v, u * float(p[v])) for v in range(mask))])
            for choice in itertools.product(*options):
                probability = weight
                for _, q in choice:
                    probability *= q
                if probability > 0:
                    key = tuple(t for t, _ in choice)
                    following[key] = following.get(key, 0.0) + probability
        law = following
    return law


def chi_square(found: dict[tuple, int], law: dict[tuple, float], rows: int) -> tuple[float, int]:
    """Pearson's statistic over outcomes that are expected at least 5 times, the rest pooled; and degrees of freedom."""
    statistic, cells, pooled, seen = 0.0, 0, 0.0, 0
    for outcome, p in law.items():
        if p * rows >= 5:
            statistic += (found.get(outcome, 0) - p * rows) ** 2 / (p * rows)
            cells += 1
        else:
            pooled += p * rows
            seen += found.get(outcome, 0)
    if pooled >= 5:
        statistic += (seen - pooled) ** 2 / pooled
        cells += 1
    return statistic, cells - 1


def bound_1e9(freedom: int) -> float:
    """A value that a chi-square of so many degrees of freedom exceeds less than once in 1e9 (Laurent & Massart)."""
    x = 9 * 2.302585092994046
    return freedom + 2 * (freedom * x) ** 0.5 + 2 * x


def check(sampler, denoiser: TabularMasks, canvas: Canvas, law: dict[tuple, float]) -> None:
    """A sampler's texts against their law, by a bound that fresh keys would break less than once in 1e9."""
    filled, rows = sampler(denoiser, canvas, Rng(3)).tokens_BL, len(canvas.tokens_BL)
    assert abs(sum(law.values()) - 1) < 1e-9
    statistic, freedom = chi_square(Counter(map(tuple, filled.tolist())), law, rows)
    assert statistic < bound_1e9(freedom)
