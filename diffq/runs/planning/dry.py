"""What a sampler will ask of a network, found by running the sampler itself on a network that computes nothing.

So the counts cannot differ from what the sampler does, a user's own sampler included, as long as which calls it makes
does not depend on what the network answers. A causal model's calls do: its rows end where they are told to.
Knows no clock and no weights.

Shape suffixes: B rows, R = B × branches, L positions, N asked positions, A rows that have not ended.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import COND, Branch, Canvas, Meter, Process, require_guidable, row_id
from diffq.diffusion.draws import Draw, NucleusDraw
from diffq.diffusion.noise import Noise
from diffq.diffusion.reductions import Reduction, Without, read_tiles
from diffq.errors import UserError
from diffq.models.base import ModelSettings
from diffq.rng import Rng
from diffq.samplers.base import Sampler

Kind = Literal["ranked", "weighed", "sorted"]

_VOCABULARY, _END, _WORD, _START = 256, 1, 2, 0
_DRY_ROWS, _DRY_LENGTH = 2, 3


class Uncounted(Exception):
    """The cost of a point cannot be told from its settings."""


@dataclass
class Trace:
    """What was asked for on one canvas.

    calls       network calls
    rows        rows through the network, guidance rows counted
    positions   positions projected, by what was kept of them: the best, a draw, a draw from a nucleus
    reads       how many times they were asked for, likewise
    branches    of the session; empty where none was opened
    alive       rows of each call, before branches
    """

    calls: int = 0
    rows: int = 0
    positions: dict[Kind, int] = field(default_factory=dict)
    reads: dict[Kind, int] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    alive: list[int] = field(default_factory=list)

    @property
    def projected(self) -> int:
        return sum(self.positions.values())


@dataclass(frozen=True)
class Blank:
    """What a sampler may ask of a denoiser besides calling it: the contract's attributes, without a network."""

    process: Process
    guidable: bool
    max_length: int
    alpha_bar_T: Tensor | None = None
    noise: Noise | None = None
    learnt_z: bool = False
    vocab_size: int = _VOCABULARY
    embedding_dim: int = 2
    start: int = _START
    end: int = _END
    mask: int = _VOCABULARY

    @classmethod
    def of(cls, settings: ModelSettings, vocabulary: Any) -> Blank:
        """The blank of a model. One whose settings do not tell enough is built, with weights that mean nothing."""
        told = settings.blank()
        if told is None:
            with torch.random.fork_rng(devices=[]):
                denoiser = settings.build(vocabulary).denoiser()
            names = ("guidable", "max_length", "alpha_bar_T", "noise", "learnt_z")
            told = {name: getattr(denoiser, name) for name in names if hasattr(denoiser, name)}
        return cls(process=settings.process, **told)


def trace_fixed(sampler: Sampler, blank: Blank) -> Trace:
    """The trace of a sampler that is told its lengths, a row and a position of it: every other canvas is a multiple.

    Positions are a position's. UserError where the sampler does not fit the model (too many steps, no guidance).
    """
    valid_BL = torch.ones(_DRY_ROWS, _DRY_LENGTH, dtype=torch.bool)
    canvas = _canvas(valid_BL)
    trace = _run(sampler, blank, canvas, None)
    size = _DRY_ROWS * _DRY_LENGTH
    if any(count % size for count in trace.positions.values()) or trace.rows % _DRY_ROWS:
        raise Uncounted(f"sampler {sampler.kind} does not ask the same of every row and position")
    positions: dict[Kind, int] = {kind: count // size for kind, count in trace.positions.items()}
    return dataclasses.replace(trace, rows=trace.rows // _DRY_ROWS, positions=positions, alive=[])


def trace_ending(sampler: Sampler, blank: Blank, room: int, lengths: Sequence[int]) -> Trace:
    """The trace of a sampler on a canvas of `room` positions whose rows end by themselves after so many tokens."""
    canvas = _canvas(torch.ones(len(lengths), room, dtype=torch.bool))
    return _run(sampler, blank, canvas, torch.as_tensor(lengths))


def trace_canvas(sampler: Sampler, blank: Blank, canvas: Canvas, seed: int) -> Trace:
    """The trace of a sampler on a canvas of running text. When a position is written is drawn as it will be, so the
    counts are those of the point; where a learnt z decides it, they are those of z = 1."""
    return _run(sampler, blank, canvas, None, seed)


def _canvas(valid_BL: Tensor) -> Canvas:
    rows = torch.tensor([row_id(i, 0) for i in range(len(valid_BL))])
    tokens_BL = torch.zeros_like(valid_BL, dtype=torch.long)
    source_BS = torch.full((len(valid_BL), _DRY_LENGTH), _WORD)
    return Canvas(tokens_BL, valid_BL.clone(), valid_BL, rows, source_BS, torch.ones_like(source_BS, dtype=torch.bool))


def _run(sampler: Sampler, blank: Blank, canvas: Canvas, ends_B: Tensor | None, seed: int = 0) -> Trace:
    trace = Trace()
    meter = Meter(_DryDenoiser(blank, trace, ends_B))
    try:
        sampler(meter, canvas, Rng(seed))
    except UserError:
        raise
    except Exception as error:  # somebody's own sampler, which wants more of a network than the contract has
        raise Uncounted(f"{sampler.kind} cannot be run without a network: {type(error).__name__}: {error}") from error
    trace.calls, trace.rows = meter.nfe_calls, meter.nfe_rows
    return trace


class _DryDenoiser:
    """A denoiser whose sessions answer with zeros and write down what they are asked."""

    def __init__(self, blank: Blank, trace: Trace, ends_B: Tensor | None):
        self.blank, self.trace, self.ends_B = blank, trace, ends_B

    def __getattr__(self, name: str) -> Any:
        return getattr(self.blank, name)

    def embed(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, self.blank.embedding_dim)

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> _DrySession:
        require_guidable(self, branches)
        self.trace.branches = branches
        return _DrySession(self, branches)


class _DrySession:
    """A session of the dry denoiser. Where rows end by themselves, the token of each run's column is the end's."""

    def __init__(self, denoiser: _DryDenoiser, branches: tuple[Branch, ...]):
        self.denoiser, self.branches = denoiser, branches
        self.ends_A = denoiser.ends_B
        self.step = -1

    def run(self, state: Tensor, noise_B: Tensor | None = None, at_BK: Tensor | None = None) -> Tensor:
        self.step += 1
        self.denoiser.trace.alive.append(len(state))
        rows = len(state) * len(self.branches)
        size = self.denoiser.embedding_dim if self.denoiser.process == "gaussian" else 1
        return torch.zeros(rows, state.shape[1] if at_BK is None else at_BK.shape[1], size)

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        reduce = [r.inner if isinstance(r, Without) else r for r in reduce]
        trace, kind = self.denoiser.trace, _kind(reduce)
        trace.positions[kind] = trace.positions.get(kind, 0) + len(positions_N)
        trace.reads[kind] = trace.reads.get(kind, 0) + 1
        if self.denoiser.process in ("absorbing", "uniform"):
            return read_tiles(self.scores(hidden, positions_N), len(positions_N), _VOCABULARY, reduce)
        token_N = self._tokens(positions_N)
        if all(isinstance(r, Draw | NucleusDraw) for r in reduce):
            return tuple(token_N for _ in reduce)

        def project(part: slice, first: int, last: int) -> Tensor:
            return torch.nn.functional.one_hot(token_N[part], _VOCABULARY)[:, first:last].float()

        return read_tiles(project, len(positions_N), _VOCABULARY, reduce)

    def _tokens(self, positions_N: Tensor) -> Tensor:
        if self.ends_A is None:
            return torch.full_like(positions_N, _WORD)
        return torch.where(self.ends_A[positions_N % len(self.ends_A)] <= self.step, _END, _WORD)

    def scores(self, hidden: Tensor, positions_N: Tensor) -> Any:
        """Equal log-weights that sum to 1: so a learnt z is 1, and draws go anywhere."""
        return lambda part, first, last: torch.full((len(positions_N[part]), last - first), -math.log(_VOCABULARY))

    def count(self, positions: int) -> None:
        """Positions that guidance projects on both branches."""
        trace = self.denoiser.trace
        trace.positions["weighed"] = trace.positions.get("weighed", 0) + positions
        trace.reads["weighed"] = trace.reads.get("weighed", 0) + 2

    @property
    def words(self) -> int:
        return _VOCABULARY

    def select(self, rows_K: Tensor) -> None:
        if self.ends_A is not None:
            self.ends_A = self.ends_A[rows_K]


def _kind(reduce: Sequence[Reduction]) -> Kind:
    """The costliest thing that is done with the scores of a reading."""
    if any(isinstance(r, NucleusDraw) for r in reduce):
        return "sorted"
    return "ranked" if all(r.order_only for r in reduce) else "weighed"
