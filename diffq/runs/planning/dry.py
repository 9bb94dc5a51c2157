"""What a sampler will ask of a network, found by running the sampler itself on a network that computes nothing.

So the counts cannot differ from what the sampler does, a user's own sampler included, as long as which calls it makes
does not depend on what the network answers. A causal model's calls do: its rows end where they are told to.
Knows no clock and no weights.

Shape suffixes: B rows, R = B × branches, L positions, N asked positions, A rows that have not ended.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from diffq.diffusion.contracts import COND, Branch, Canvas, Meter, Process, require_guidable, row_id
from diffq.diffusion.draws import Draw
from diffq.diffusion.noise import Noise
from diffq.diffusion.reductions import Reduction, Without, read_tiles
from diffq.diffusion.row_draws import NucleusDraw
from diffq.errors import UserError
from diffq.models.base import ModelSettings
from diffq.models.kept import Span, from_before, whole_blocks, widest
from diffq.models.sessions import places
from diffq.rng import Rng
from diffq.samplers.base import Sampler
from diffq.samplers.random_tokens import LeapDraw

Kind = Literal["ranked", "weighed", "sorted", "whole"]
"""What is kept of scores, from the cheapest on: the best, a draw, a draw from a nucleus, a draw for which the scores of
whole rows are held."""

_VOCABULARY, _END, _WORD, _START = 256, 1, 2, 0
_DRY_ROWS, _DRY_LENGTH = 2, 3


class Uncounted(Exception):
    """The cost of a point cannot be told from its settings."""


class Ran(NamedTuple):
    """One network call: rows before branches, tokens a row that are computed, those whose hidden states were asked for,
    and those that each of them attends to (with those of a cache)."""

    rows: int
    tokens: int
    asked: int
    seen: int


@dataclass
class Trace:
    """What was asked for on one canvas.

    calls       network calls
    rows        rows through the network, guidance rows counted
    positions   positions projected, by what was kept of them
    reads       how many times they were asked for, likewise
    branches    of the session; empty where none was opened
    runs        the network calls, each with how often there were such
    widest      positions of the largest reading
    kept        rows whose keys and values are kept beside a call's own, at most
    read_more   whether the sampler has seen more of the network than drawn tokens
    steered     whether it may therefore ask something else of another network
    """

    calls: int = 0
    rows: int = 0
    positions: dict[Kind, int] = field(default_factory=dict)
    reads: dict[Kind, int] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    runs: Counter[Ran] = field(default_factory=Counter)
    widest: int = 0
    kept: int = 0
    read_more: bool = field(default=False, compare=False)
    steered: bool = False

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
    keeps: bool = False
    block: int = 0
    shifted: bool = False

    @classmethod
    def of(cls, settings: ModelSettings, vocabulary: Any) -> Blank:
        """The blank of a model. One whose settings do not tell enough is built, with weights that mean nothing."""
        told = settings.blank()
        if told is None:
            with torch.random.fork_rng(devices=[]):
                denoiser = settings.build(vocabulary).denoiser()
            names = ("guidable", "max_length", "alpha_bar_T", "noise", "learnt_z", "keeps", "block", "shifted")
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
    return dataclasses.replace(trace, rows=trace.rows // _DRY_ROWS, positions=positions, runs=Counter(), widest=0)


def trace_ending(sampler: Sampler, blank: Blank, room: int, lengths: Sequence[int]) -> Trace:
    """The trace of a sampler on a canvas of `room` positions whose rows end by themselves after so many tokens."""
    canvas = _canvas(torch.ones(len(lengths), room, dtype=torch.bool))
    return _run(sampler, blank, canvas, torch.as_tensor(lengths))


def trace_canvas(
    sampler: Sampler, blank: Blank, canvas: Canvas, seed: int, lengths: Sequence[int] | None = None
) -> Trace:
    """The trace of a sampler on a canvas of running text. When a position is written is drawn as it will be, so the
    counts are those of the point; where a learnt z decides it, they are those of z = 1.

    lengths: where rows of a causal model end, for a canvas that has an end token.
    """
    if canvas.end is None or blank.process != "causal":
        return _run(sampler, blank, canvas, None, seed)
    return _run(sampler, blank, canvas.replace(end=_END), torch.as_tensor(lengths), seed)


def _canvas(valid_BL: Tensor) -> Canvas:
    rows = torch.tensor([row_id(i, 0) for i in range(len(valid_BL))])
    tokens_BL = torch.zeros_like(valid_BL, dtype=torch.long)
    source_BS = torch.full((len(valid_BL), _DRY_LENGTH), _WORD)
    return Canvas(tokens_BL, valid_BL.clone(), valid_BL, rows, source_BS, torch.ones_like(source_BS, dtype=torch.bool))


def _run(sampler: Sampler, blank: Blank, canvas: Canvas, ends_B: Tensor | None, seed: int = 0) -> Trace:
    if not sampler.foreseeable:
        raise Uncounted(f"how much {sampler.kind} asks of a network depends on what it says")
    trace = Trace()
    meter = Meter(_DryDenoiser(blank, trace, ends_B))
    try:
        sampler(meter, canvas, Rng(seed))
    except UserError:
        raise
    except Exception as error:  # somebody's own sampler, which wants more of a network than the contract has
        raise Uncounted(f"{sampler.kind} cannot be run without a network: {type(error).__name__}: {error}") from error
    trace.calls, trace.rows = meter.nfe_calls, meter.nfe_rows
    trace.steered = trace.read_more and not sampler.by_numbers
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
        return _DrySession(self, branches, canvas)


class _DrySession:
    """A session of the dry denoiser. Where rows end by themselves, the token of each run's column is the end's."""

    def __init__(self, denoiser: _DryDenoiser, branches: tuple[Branch, ...], canvas: Canvas):
        self.denoiser, self.branches, self.valid_BL = denoiser, branches, canvas.valid_BL
        self.spans: list[Span] | None = None
        self.kept = False
        self.ends_A = denoiser.ends_B
        self.seen = 0  # tokens in a causal model's cache

    def run(self, state: Tensor, noise_B: Tensor | None = None, at_BK: Tensor | None = None) -> Tensor:
        tokens = state.shape[1]
        self.seen = self.seen + tokens if self.denoiser.process == "causal" else tokens
        if self.spans is not None:
            tokens = widest(self.spans)
            self.seen = max(last for _, last in self.spans) if self.denoiser.block else self.seen
        if self.kept:
            self.denoiser.trace.kept = max(self.denoiser.trace.kept, len(state))
        self.denoiser.trace.runs[Ran(len(state), tokens, tokens if at_BK is None else at_BK.shape[1], self.seen)] += 1
        rows = len(state) * len(self.branches)
        size = self.denoiser.embedding_dim if self.denoiser.process == "gaussian" else 1
        return torch.zeros(rows, state.shape[1] if at_BK is None else at_BK.shape[1], size)

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        reduce = [r.inner if isinstance(r, Without) else r for r in reduce]
        self._note(len(positions_N), 1, reduce)
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
        return torch.where(self.ends_A[positions_N % len(self.ends_A)] < self.seen, _END, _WORD)

    def scores(self, hidden: Tensor, positions_N: Tensor) -> Any:
        """Equal log-weights that sum to 1: so a learnt z is 1, and draws go anywhere."""
        return lambda part, first, last: torch.full((len(positions_N[part]), last - first), -math.log(_VOCABULARY))

    def count(self, positions: int, reduce: Sequence[Reduction]) -> None:
        """Positions that guidance projects on both branches."""
        self._note(positions, 2, reduce)

    def _note(self, positions: int, reads: int, reduce: Sequence[Reduction]) -> None:
        trace, kind = self.denoiser.trace, _kind(reduce)
        trace.positions[kind] = trace.positions.get(kind, 0) + positions
        trace.reads[kind] = trace.reads.get(kind, 0) + reads
        trace.widest = max(trace.widest, positions // reads)
        trace.read_more |= not all(isinstance(r, Draw | NucleusDraw | LeapDraw) for r in reduce)

    @property
    def words(self) -> int:
        return _VOCABULARY

    def select(self, rows_K: Tensor) -> None:
        if self.ends_A is not None:
            self.ends_A = self.ends_A[rows_K]

        self.valid_BL = self.valid_BL[rows_K]
        if self.spans is not None:
            self.spans = [self.spans[r] for r in rows_K.tolist()]

    def freeze(self, columns: slice | Sequence[Span] | None) -> None:
        """The columns that the next runs compute; those of models whose keys and values can be kept."""
        if not self.denoiser.keeps:
            raise UserError("the keys and values of this model cannot be kept; switch the cache off")
        self.kept = True
        if columns is None:
            self.spans = None
            return
        rows, length = self.valid_BL.shape
        spans = [columns.indices(length)[:2]] * rows if isinstance(columns, slice) else list(columns)
        if self.denoiser.block:
            spans = [whole_blocks(span, self.denoiser.block, length) for span in spans]
        self.spans = from_before(spans, places(self.valid_BL, self.valid_BL)[1]) if self.denoiser.shifted else spans

    def adopt(self, kept: Any, rows_K: Tensor) -> None:
        """Nothing is kept."""

    def fork(self, rows_K: Tensor) -> _DrySession:
        made = copy.copy(self)
        made.select(rows_K)
        return made

    def admit_mask(self) -> None:
        """One word more: it changes no count."""


def _kind(reduce: Sequence[Reduction]) -> Kind:
    """The costliest thing that is done with the scores of a reading."""
    if any(isinstance(r, NucleusDraw) for r in reduce):
        return "sorted"
    if any(isinstance(r, LeapDraw) for r in reduce):
        return "whole"
    return "ranked" if all(r.order_only for r in reduce) else "weighed"
