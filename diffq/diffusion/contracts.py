"""What passes between samplers and networks: Canvas, Denoiser, Session, Meter, Step.

A sampler knows a network only through these. The contract is made so that nobody ever holds a full
batch × length × vocabulary tensor, the host never waits for the device inside a step, and one network call can be
read many times. This file holds no network and no algorithm.

Shape suffixes: B rows, L canvas positions, S source positions, N asked positions (flat indices into B·L),
E embedding dimensions, R = B × number of branches.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from diffq.diffusion.noise import Noise
from diffq.diffusion.reductions import Reduction, read_tiles
from diffq.errors import UserError

Process = Literal["gaussian", "absorbing", "uniform", "causal"]
Branch = Literal["cond", "uncond"]

COND: tuple[Branch, ...] = ("cond",)
UNCOND: tuple[Branch, ...] = ("uncond",)
GUIDED: tuple[Branch, ...] = ("cond", "uncond")


@dataclass(frozen=True)
class Canvas:
    """The token grid that a sampler fills.

    Prompt, prefix, suffix, infilling and keywords are all just positions that are not free.

    tokens_BL        token ids; what stands at a free position before sampling has no meaning
    free_BL          True where the sampler may write
    valid_BL         False where a position is padding
    row_B            the 64-bit row id that keys every draw of a row (see `row_id`)
    source_BS        the source beside the canvas, for sequence-to-sequence models
    source_valid_BS  False where a source position is padding
    end, also_end    the token at which a row of running text ends, None where rows are full; and others that end it
    leaves           whether rows that have ended leave; False where somebody looks at what is drawn behind an end
    """

    tokens_BL: Tensor
    free_BL: Tensor
    valid_BL: Tensor
    row_B: Tensor
    source_BS: Tensor | None = None
    source_valid_BS: Tensor | None = None
    end: int | None = None
    also_end: tuple[int, ...] = ()
    leaves: bool = True

    def __post_init__(self) -> None:
        if self.tokens_BL.dim() != 2:
            raise ValueError(f"a canvas is batch × length, not {tuple(self.tokens_BL.shape)}")
        for name in ("free_BL", "valid_BL"):
            if getattr(self, name).shape != self.tokens_BL.shape:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, the tokens another")
        if self.row_B.shape != self.tokens_BL.shape[:1]:
            raise ValueError(f"row_B has shape {tuple(self.row_B.shape)} for {len(self.tokens_BL)} rows")
        if (self.source_BS is None) != (self.source_valid_BS is None):
            raise ValueError("a source comes with source_valid_BS")

    @property
    def shape(self) -> torch.Size:
        return self.tokens_BL.shape

    @property
    def device(self) -> torch.device:
        return self.tokens_BL.device

    def replace(self, **changes: Any) -> Canvas:
        return replace(self, **changes)

    def map(self, change: Callable[[Tensor], Tensor]) -> Canvas:
        """The canvas with every tensor changed alike: `canvas.map(lambda x: x[rows])`, `canvas.map(Tensor.cuda)`."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return self.replace(**{name: change(v) for name, v in values if isinstance(v, Tensor)})

    @property
    def ends(self) -> tuple[int, ...]:
        """All tokens at which a row ends."""
        return () if self.end is None else (self.end, *self.also_end)

    def are_ends(self, tokens: Tensor) -> Tensor:
        """Which tokens end a row, bool of their shape. Not asked where nothing does."""
        return torch.stack([tokens == end for end in self.ends]).any(0)

    def may_end(self) -> Tensor:
        """Where an end token ends its row, (B, L): at free positions behind all that is held, such as keywords."""
        held_BL = self.valid_BL & ~self.free_BL & ~self.are_ends(self.tokens_BL)
        return self.free_BL & (held_BL.flip(1).cumsum(1).flip(1) == 0)

    def cut_at_end(self) -> Canvas:
        """The canvas without what follows the first token that ends each row, that token included."""
        if self.end is None:
            return self
        ended_BL = (self.are_ends(self.tokens_BL) & self.may_end()).cumsum(1) > 0
        return self.replace(valid_BL=self.valid_BL & ~ended_BL)


def row_id(source: int, sample: int) -> int:
    """The id that keys a row's draws: it depends on which source and which sample of it, and on nothing else."""
    return (sample << 32) | source


def source_of(row: int) -> int:
    """The source of a row id."""
    return row & 0xFFFFFFFF


class Session(Protocol):
    """A denoiser opened on one canvas: the source is encoded, guidance rows and caches are set up.

    `run` gives hidden states for R = B × len(branches) rows, branch-major (all conditional rows, then all
    unconditional ones), from one batched network call. What hidden states are is the model's own business, but for
    the gaussian process, where they are the predicted clean embeddings y0_RLE themselves.
    """

    branches: tuple[Branch, ...]

    def run(self, state: Tensor, noise_B: Tensor) -> Tensor:
        """One network call; each row has its own noise level.

        state: tokens_BL, or y_BLE for the gaussian process (there noise_B is the integer timestep).
        """
        ...

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        """Projects the asked positions (flat indices into the first two axes of `hidden`) on the vocabulary, tile
        by tile, and gives what each reduction keeps of it."""
        ...

    def select(self, rows_K: Tensor) -> None:
        """Goes on with these of the canvas rows alone: finished rows cost nothing."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A network behind the contract of its process."""

    process: Process
    vocab_size: int
    guidable: bool  # was trained with condition dropout, so that there is an unconditional branch

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> Session: ...


@runtime_checkable
class GaussianDenoiser(Denoiser, Protocol):
    """A denoiser of embeddings. `alpha_bar_T[t]` is the share of signal variance at integer timestep t."""

    embedding_dim: int
    alpha_bar_T: Tensor

    def embed(self, tokens: Tensor) -> Tensor:
        """The embedding of each token, in one more dimension of size E."""
        ...


@runtime_checkable
class DiscreteDenoiser(Denoiser, Protocol):
    """A denoiser of tokens: of masks (`absorbing`) or of random tokens (`uniform`).

    Its sessions' `run(tokens_BL, noise_B, at_BK=None)` takes noise_B = m, the probability that a position is destroyed,
    in (0, 1], and converts it to what the network was trained with. With `at_BK`, positions of each row, it computes
    the hidden states of those alone: (R, K, ·), in that order.
    Their `fork(rows_K)` gives a session of its own on these of the rows, some perhaps several times (candidates).
    Their `scores(hidden, positions_N)` gives what `read` goes over: a function (part, first, last) of log-weights.

    Where it `keeps` keys and values, their `freeze(columns)` has a run compute some columns alone (None: all, and keeps
    what it computes), and `adopt(fork.kept, rows_K)` takes over what a fork has kept. `block`: tokens of a block that
    sees itself and what stands before it alone, so that what is kept of finished blocks is exact; 0 where all see all.

    absorbing: log-weights of the clean token at masked positions; the mask itself is never among them, unless a
        session is told to `admit_mask()`. With `learnt_z` they are those of SEDD, log(z·p) with p the clean token's
        distribution and z free; else only their softmax has a meaning, and z is 1.
    uniform: the log-score, log of p(y) / p(x) for every token y at a position that holds x. What it says of x itself
        has no meaning.
    """

    noise: Noise  # the schedule that it was trained with
    learnt_z: bool
    mask: int  # the token of a destroyed position; not used by the uniform process
    max_length: int


@dataclass(frozen=True)
class Step:
    """What a sampler tells `on_step` after each step.

    index    0, 1, …, total-1
    total    the number of steps that this run will take at most
    time_B   each row's own time after the step, from 1 (all noise) to 0 (done)
    canvas   the canvas that is being filled; gaussian samplers leave its tokens as they were
    draft    gives the tokens_BL that one would stop with now; it may cost a projection, so it is a function
    stats    named numbers of the sampler's own, one for each row
    filled   gives the draft with everything that is still masked filled by this step's draws; it may cost a network
             call, and is to be asked before the next step. None where the sampler cannot say
    """

    index: int
    total: int
    time_B: Tensor
    canvas: Canvas
    draft: Callable[[], Tensor]
    stats: Mapping[str, Tensor] = field(default_factory=dict)
    filled: Callable[[], Tensor] | None = None


OnStep = Callable[[Step], None]


class Meter:
    """Wraps a denoiser and counts what it is asked for. Nobody else calls a network.

    nfe_calls            batched network calls
    nfe_rows             rows through the network, guidance rows counted
    positions_projected  positions that were projected on the vocabulary
    finite               whether all that the network gave were numbers, scores of discrete and causal models included;
                         looked at where the host waits anyway
    """

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser
        self.nfe_calls = 0
        self.nfe_rows = 0
        self.positions_projected = 0
        self.row_nfe_B = torch.zeros(0, dtype=torch.long)
        self.finite = torch.ones((), dtype=torch.bool)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> _MeteredSession:
        """Opens the denoiser on a canvas; `row_nfe_B` then counts the rows of that canvas."""
        self.row_nfe_B = torch.zeros(len(canvas.tokens_BL), dtype=torch.long, device=canvas.device)
        self.finite = torch.ones((), dtype=torch.bool, device=canvas.device)
        rows = torch.arange(len(canvas.tokens_BL), device=canvas.device)
        return _MeteredSession(self, self.denoiser.open(canvas, branches), rows)


class _MeteredSession:
    """A session that counts. Where the session has more abilities than the contract, they are passed through."""

    def __init__(self, meter: Meter, session: Any, rows: Tensor):
        self._meter, self._session, self._rows = meter, session, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, state: Tensor, *args: Any) -> Tensor:
        branches = len(self._session.branches)
        self._meter.nfe_calls += 1
        self._meter.nfe_rows += len(state) * branches
        self._meter.row_nfe_B.index_add_(0, self._rows, torch.full_like(self._rows, branches))
        hidden = self._session.run(state, *args)
        self._meter.finite = self._meter.finite & hidden.sum(dtype=torch.float32).isfinite()
        return hidden

    def count(self, positions: int, reduce: Sequence[Reduction]) -> None:
        """Counts positions that are projected without `read`."""
        self._meter.positions_projected += positions
        self._session.count(positions, reduce)

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        self._meter.positions_projected += len(positions_N)
        if isinstance(self._session, TiledSession):
            return TiledSession.read(cast(Any, self), hidden, positions_N, reduce)
        return self._session.read(hidden, positions_N, reduce)

    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        """The session's, watched: hidden states that are numbers may still be too large to be projected."""
        project, meter = self._session.scores(hidden, positions_N), self._meter

        def watched(part: slice, first: int, last: int) -> Tensor:
            scores_NT = project(part, first, last)
            meter.finite = meter.finite & (scores_NT.sum() < math.inf)  # false for NaN too
            return scores_NT

        return watched

    def select(self, rows_K: Tensor) -> None:
        self._rows = self._rows[rows_K]
        self._session.select(rows_K)

    def fork(self, rows_K: Tensor) -> _MeteredSession:
        return _MeteredSession(self._meter, self._session.fork(rows_K), self._rows[rows_K])


def branches_for(scales: Sequence[float]) -> tuple[Branch, ...]:
    """Which branches the network must run for these guidance scales, one a step: 1 is off, 0 is unconditional, and
    each of them is one pass; anything else needs both."""
    if all(s == 1 for s in scales):
        return COND
    if all(s == 0 for s in scales):
        return UNCOND
    return GUIDED


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, uncond + scale·(cond − uncond), on predicted embeddings or log-probabilities.

    Ho & Salimans (2022) in the convention where 1 is off. LLaDA and its descendants write the same thing as
    uncond + (s+1)·(cond − uncond): their s is our scale − 1.
    """
    return torch.lerp(uncond, cond, scale)


def exclude(scores_NT: Tensor, first: int, never: tuple[int, ...]) -> Tensor:
    """The scores of tokens first … first+T−1 with −inf, written in place, for those that are never drawn."""
    for token in never:
        if first <= token < first + scores_NT.shape[1]:
            scores_NT[:, token - first] = -math.inf
    return scores_NT


class TiledSession(ABC):
    """What the sessions of discrete denoisers have in common: they read whatever their `scores` say."""

    words: int  # tokens that may be drawn: ids 0 … words − 1
    never: tuple[int, ...] = ()  # but for these

    @abstractmethod
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]: ...

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        project = self.scores(hidden, positions_N)
        return read_tiles(project, len(positions_N), self.words, reduce, device=hidden.device)

    def count(self, positions: int, reduce: Sequence[Reduction]) -> None:  # noqa: B027 - nobody has to listen
        """Is told of positions that are projected without `read`, and for what; a Meter counts them."""

    @abstractmethod
    def select(self, rows_K: Tensor) -> None: ...

    def fork(self, rows_K: Tensor) -> TiledSession:
        made = copy.copy(self)
        made.select(rows_K)
        return made


class Guided:
    """A session of both branches as one: log-weights are combined inside the tile, uncond + scale·(cond − uncond).

    Each branch's log-weights lack a constant a position, which the combination lacks too: it is normalised afterwards,
    so temperature, top-k and top-p come after guidance. For sessions that have `scores` (discrete processes).
    """

    def __init__(self, session: Any, scale: float):
        self._session, self._scale = session, scale

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def fork(self, rows_K: Tensor) -> Guided:
        return Guided(self._session.fork(rows_K), self._scale)

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        """`positions_N` are those of the conditional rows."""
        half = len(hidden) // 2 * hidden.shape[1]
        cond = self._session.scores(hidden, positions_N)
        uncond = self._session.scores(hidden, positions_N + half)

        never = getattr(self._session, "never", ())

        def project(part: slice, first: int, last: int) -> Tensor:
            return exclude(guide(cond(part, first, last), uncond(part, first, last), self._scale), first, never)

        self._session.count(2 * len(positions_N), reduce)
        return read_tiles(project, len(positions_N), self._session.words, reduce, device=hidden.device)


def open_guided(denoiser: Any, canvas: Canvas, scale: float) -> Any:
    """A session of a discrete denoiser under classifier-free guidance; the unconditional branch sees no prompt.

    UserError where something is to be guided and nothing on the canvas is given.
    """
    branches = branches_for([scale])
    require_guidable(denoiser, branches)
    session = denoiser.open(canvas, branches)
    return Guided(session, scale) if branches == GUIDED else session


def require_guidable(denoiser: Denoiser, branches: tuple[Branch, ...]) -> None:
    """Raises UserError where a model without condition dropout is asked for its unconditional branch."""
    if "uncond" in branches and not denoiser.guidable:
        raise UserError(
            "this checkpoint was trained without condition dropout, so it has no unconditional branch to guide with;"
            " use scale=1 or train with model.condition_dropout=0.1"
        )
