"""`diffq bench samplers masked`: decoding under each key-value cache against the same decoding without one.

Time is that of random weights, which it does not depend on; the two take turns. What a cache costs in exactness is
measured on a small network of the same kind that is taught a toy language first: how many tokens are the same at
temperature 0, and how far the distributions that decoding reads are from those of a whole call at the same canvas.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from diffq.config import Request
from diffq.diffusion.contracts import COND, Branch, Canvas
from diffq.rng import Rng
from diffq.runs.bench import against_textbook, textbook
from diffq.runs.bench_parts import given_then_free, random_model, timed

WORDS, PROMPT, ANSWER, BATCH, BLOCK, TURNS = 8_192, 128, 128, 2, 32, 3
SIZES: dict[str, dict[str, Any]] = {
    "llada": {"width": 384, "heads": 6, "layers": 4, "mlp_width": 1024, "max_length": PROMPT + ANSWER},
    "mdlm": {"width": 384, "heads": 6, "layers": 4, "max_length": PROMPT + ANSWER, "block_causal": BLOCK},
}
LETTERS, TAUGHT, SLIPS, TEXTS, GIVEN, SMALL_BLOCK = 41, 300, 0.15, 64, 8, 8
SMALL: dict[str, dict[str, Any]] = {
    "llada": {"width": 32, "heads": 4, "layers": 2, "mlp_width": 48, "max_length": 40},
    "mdlm": {"width": 32, "heads": 2, "layers": 2, "max_length": 40, "dropout": 0.0, "block_causal": SMALL_BLOCK},
}


@dataclass(frozen=True)
class Row:
    """A cache, and a model's kind and changes of its settings."""

    cache: str
    model: str = "llada"
    dials: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0})


ROWS: dict[str, Row] = {
    "masked/prefix_cache": Row("prefix"),
    "masked/dual_cache": Row("dual"),
    "masked/block_cache_exact": Row("exact", "mdlm"),
}


def run(request: Request, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: name, ratio (seconds without the cache over those with it), low and high over the turns, seconds,
    calls, equal tokens and mean divergence."""
    rows = []
    for name in names:
        print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
        row = ROWS[name]
        rows.append({"name": name, **_speed(row), **error(row, textbook("cycles"))})
    return rows


def make_model(kind: str, words: int, sizes: dict[str, Any]) -> Any:
    """A network with random weights whose scores differ from word to word; the mask is its last token."""
    vocabulary = SimpleNamespace(size=words, pad=0, unk=0, start=0, end=1, mask=words - 1, ends=(1,))
    return random_model(kind, sizes, vocabulary, 0.1)


def make_sampler(row: Row, cache: str, block: int, tokens_per_step: int = 1) -> Any:
    from diffq.registry import SAMPLERS

    return SAMPLERS["low_confidence"](cache=cache, block=block, tokens_per_step=tokens_per_step, **row.dials)


def _speed(row: Row) -> dict[str, Any]:
    model, canvas = make_model(row.model, WORDS, SIZES[row.model]), given_then_free(BATCH, PROMPT, ANSWER)
    ours, theirs, calls = [], [], 0
    for turn in range(TURNS):
        seconds, meter = timed(make_sampler(row, row.cache, BLOCK, 2), model, canvas, turn)
        ours.append(seconds)
        theirs.append(timed(make_sampler(row, "off", BLOCK, 2), model, canvas, turn)[0])
        calls = meter.nfe_calls
    said = against_textbook(ours, theirs, full=True)
    return {("uncached_seconds" if k == "textbook_seconds" else k): v for k, v in said.items()} | {"calls": calls}


def error(row: Row, book: Any) -> dict[str, Any]:
    """Tokens that are equal with the cache and without, and the mean KL of what is read, in nats, on a network that has
    been taught the language of a book."""
    with torch.random.fork_rng(devices=[]):
        model = make_model(row.model, LETTERS, SMALL[row.model])
        model = book.taught(model, TAUGHT, length=40, slips=SLIPS)
    tokens_BL = book.cycles(TEXTS, 40, torch.Generator().manual_seed(9), SLIPS)
    free_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    free_BL[:, GIVEN:] = True
    canvas = Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(TEXTS))
    beside = Beside(model.denoiser())
    kept_BL = make_sampler(row, row.cache, SMALL_BLOCK)(beside, canvas, Rng(0)).tokens_BL
    plain_BL = make_sampler(row, "off", SMALL_BLOCK)(model.denoiser(), canvas, Rng(0)).tokens_BL
    return {"equal_tokens": float((kept_BL == plain_BL)[free_BL].double().mean()), "mean_kl": beside.mean}


class Beside:
    """A denoiser that is asked twice: under what the sampler freezes, and whole. The sampler reads the first; of what
    it reads, KL(whole ‖ frozen) is summed up, in nats.

    nats     the divergences of all positions that were read, one after another
    largest  how far a probability was off at most
    """

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser
        self.nats: list[Tensor] = []
        self.largest = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    @property
    def mean(self) -> float:
        return float(torch.cat(self.nats).mean())

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> Any:
        return _Both(self, self.denoiser.open(canvas, branches), self.denoiser.open(canvas, branches))


class _Both:
    """A session beside one that nothing is ever frozen of; hidden states of both stand behind one another."""

    def __init__(self, beside: Beside, frozen: Any, whole: Any):
        self.beside, self.frozen, self.whole = beside, frozen, whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self.frozen, name)

    def run(self, *asked: Any) -> Tensor:
        return torch.cat([self.frozen.run(*asked), self.whole.run(*asked)], -1)

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Any]) -> tuple[Any, ...]:
        frozen, whole = (part.contiguous() for part in hidden.chunk(2, -1))
        log_q_NV, log_p_NV = (
            session.scores(part, positions_N)(slice(None), 0, session.words).double().log_softmax(-1)
            for session, part in ((self.frozen, frozen), (self.whole, whole))
        )
        term_NV = log_p_NV.exp() * (log_p_NV - log_q_NV)
        self.beside.nats.append(term_NV.nan_to_num(0.0).sum(-1))  # what both never draw says nothing
        self.beside.largest = max(self.beside.largest, float((log_p_NV.exp() - log_q_NV.exp()).abs().max()))
        read: tuple[Any, ...] = self.frozen.read(frozen, positions_N, reduce)
        return read

    def select(self, rows_K: Tensor) -> None:
        self.frozen.select(rows_K)
        self.whole.select(rows_K)

    def fork(self, rows_K: Tensor) -> _Both:
        return _Both(self.beside, self.frozen.fork(rows_K), self.whole.fork(rows_K))
