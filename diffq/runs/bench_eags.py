"""`diffq bench samplers eags`: EAGS in five steps against 64 steps of ancestral sampling on the same network, published
and ours, and against its own control, a random order.

The published arrangement does the same work at every step, so one is timed and multiplied; ours runs whole. Weights are
random (time does not depend on them), and what is compared takes turns. What the random order saves is what it does not
read, so its row says how much that is: most of the work where the vocabulary is RoBERTa's, hardly any where it has
512 words. Agreement with the textbook version is counted on small canvases. `diffq bench overhead eags` says where
the time of the two orders goes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from diffq.config import Request
from diffq.diffusion.contracts import Canvas, Meter
from diffq.rng import Rng
from diffq.runs.bench import against_textbook, textbook
from diffq.runs.bench_parts import Clocked, given_then_free, random_model, timed
from diffq.runs.planning.amounts import text_counts
from diffq.runs.planning.dry import Blank, trace_canvas

WORDS, CONDITION, TARGET, BATCH, STEPS = 50_265, 32, 64, 32, 64
SIZES = {"width": 384, "heads": 6, "layers": 6, "conditioning": 128, "max_length": CONDITION + TARGET, "dropout": 0.0}


@dataclass(frozen=True)
class Row:
    """The dials of EAGS, what it is held against, a sampler with its dials or the textbook's loop (None), and the
    vocabulary."""

    dials: dict[str, Any] = field(default_factory=dict)
    other: tuple[str, dict[str, Any]] | None = None
    turns: int = 3
    words: int = WORDS


ROWS: dict[str, Row] = {
    "eags/textbook_64": Row(),
    "eags/ancestral_64": Row(other=("ancestral", {"steps": STEPS})),
    "eags/random_order": Row(other=("eags", {"order": "random"}), turns=5),
    "eags/random_order_512_words": Row(other=("eags", {"order": "random"}), turns=9, words=512),
    "eags/sweep": Row({"update": "all"}, other=("ancestral", {"steps": STEPS}), turns=2),
}
OVERHEAD: dict[str, Row] = {
    "eags/five_steps": Row(),
    "eags/random_order": Row({"order": "random"}),
    "eags/five_steps_512_words": Row(words=512),
    "eags/random_order_512_words": Row({"order": "random"}, words=512),
}


def run(request: Request, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: name, ratio (the other's seconds over ours), low and high over the turns, seconds, calls; positions
    read and FLOPs beyond the other's, as shares of the other's; agreement."""
    if not names:
        return []
    rows = []
    for name in names:
        print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
        rows.append(_row(name, ROWS[name], make_model(ROWS[name].words), request.flags.full))
    return rows


def overhead(names: Sequence[str], rate: float) -> list[dict[str, Any]]:
    """The rows of `diffq bench overhead`. rate: multiply-adds a second of this machine's matrix product."""
    from diffq.registry import SAMPLERS

    rows = []
    for name in names:
        print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
        row = OVERHEAD[name]
        model, sampler = make_model(row.words), SAMPLERS["eags"](**row.dials)
        canvas, runs = given_then_free(BATCH, CONDITION, TARGET, row.words), []
        timed(sampler, model, given_then_free(2, CONDITION, TARGET, row.words), 0)  # warm-up
        for turn in range(row.turns):
            clock, began = Clocked(model.denoiser()), time.perf_counter()
            sampler(clock, canvas, Rng(turn))
            runs.append((time.perf_counter() - began, clock))
        seconds, clock = sorted(runs, key=lambda run: run[0])[row.turns // 2]
        rows.append(clock.row(name, seconds, 0.0, _work(sampler, model, canvas)[1] / 2 / rate))
    return rows


@lru_cache(maxsize=1)
def make_model(words: int) -> Any:
    """A network with random weights whose scores differ from word to word."""
    return random_model("mdlm", SIZES, vocabulary(words), 0.1)


def vocabulary(words: int) -> SimpleNamespace:
    return SimpleNamespace(size=words + 1, pad=0, mask=words, start=0, end=0)


def _row(name: str, row: Row, model: Any, full: bool) -> dict[str, Any]:
    from diffq.registry import SAMPLERS

    canvas, sampler = given_then_free(BATCH, CONDITION, TARGET, row.words), SAMPLERS["eags"](**row.dials)
    other = SAMPLERS[row.other[0]](**row.other[1]) if row.other else None
    timed(sampler, model, given_then_free(2, CONDITION, TARGET, row.words), 0)  # warm-up
    ours, theirs, meter = [], [], Meter(model.denoiser())
    for turn in range(row.turns):
        seconds, meter = timed(sampler, model, canvas, turn)
        ours.append(seconds)
        if other is None:
            theirs.append(_textbook_seconds(model, canvas, turn, full))
        else:
            theirs.append(timed(other, model, canvas, turn)[0])
    said = {"name": name, **against_textbook(ours, theirs, full or other is not None), "calls": meter.nfe_calls}
    return said | (_more_work(sampler, other, model, canvas) if other else {}) | _agreement(row, model)


def _textbook_seconds(model: Any, canvas: Canvas, turn: int, full: bool) -> float:
    """Seconds of 64 published steps and the final denoising: some of them multiplied up to all."""
    made = textbook("masked").Textbook(model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, steps=STEPS, seed=turn)
    made.start()
    steps = range(STEPS + 1) if full else [STEPS * (2 * turn + 1) // 6]
    began = time.perf_counter()
    for k in steps:
        made.step(k)
    return (time.perf_counter() - began) * (STEPS + 1) / len(steps)


def _more_work(sampler: Any, other: Any, model: Any, canvas: Canvas) -> dict[str, Any]:
    """Positions read and FLOPs beyond the other's, as shares of the other's: counted, not timed."""
    (positions, flops), (beside, other_flops) = (_work(s, model, canvas) for s in (sampler, other))
    return {"more_positions": positions / beside - 1, "more_flops": flops / other_flops - 1}


def _work(sampler: Any, model: Any, canvas: Canvas) -> tuple[int, float]:
    """Positions that are read, and FLOPs of the network and of their projections."""
    words = vocabulary(model.denoiser().mask)
    trace = trace_canvas(sampler, Blank.of(model.settings, words), canvas, 0)
    counts = text_counts(trace, model.settings.work(words), False)
    assert counts.work is not None
    return counts.positions, counts.work.flops + counts.work.projection


def _agreement(row: Row, model: Any) -> dict[str, Any]:
    """Rows that are equal to the textbook version's, on canvases that it is quick on."""
    from diffq.registry import SAMPLERS

    canvas = given_then_free(4, 4, 12)
    ours = SAMPLERS["eags"](**row.dials)(model.denoiser(), canvas, Rng(9)).tokens_BL
    book = textbook("eags").EAGS(model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, seed=9, **row.dials)
    return {"equal_rows": f"{int((ours == book.run()).all(1).sum())}/{len(ours)}"}
