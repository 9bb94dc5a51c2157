"""`diffq bench samplers absorbing uniform`: the samplers of discrete diffusion against the published arrangement.

Published: at every step one network call on all rows, the whole vocabulary at all positions, a draw everywhere. A step
of it does the same work whenever it is, so a few are timed and multiplied; ours runs whole. Weights are random (time
does not depend on them), and the two take turns. Agreement is counted on small canvases, over whole trajectories.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from diffq.config import Request
from diffq.diffusion.contracts import Canvas, Meter
from diffq.rng import Rng
from diffq.runs.bench import against_textbook, textbook
from diffq.runs.bench_parts import random_model, timed
from diffq.runs.sampling import peak_memory, watch_memory

WORDS, LENGTH, BATCH = 50_257, 256, 8
SIZES = {"width": 384, "heads": 6, "layers": 6, "conditioning": 128, "max_length": LENGTH, "dropout": 0.0}


@dataclass(frozen=True)
class Row:
    """What is timed: a model's kind and settings, our sampler's kind and dials, and the textbook's law."""

    model: str
    sampler: str
    steps: int
    settings: dict[str, Any]
    normalise: bool = True
    turns: int = 3


ROWS: dict[str, Row] = {
    "absorbing/1024": Row("mdlm", "ancestral", 1024, {}, turns=2),
    "absorbing/1024_timed": Row("mdlm", "ancestral", 1024, {"time_conditioning": True}, turns=2),
    "absorbing/64": Row("mdlm", "ancestral", 64, {}),
    "absorbing/64_timed": Row("mdlm", "ancestral", 64, {"time_conditioning": True}),
    "absorbing/64_published_law": Row("sedd", "analytic", 64, {}, normalise=False),
    "uniform/16": Row("sedd_uniform", "analytic", 16, {"noise": "geometric"}),
}


def run(request: Request, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: name, ratio (textbook seconds over ours), low and high over the turns, seconds, memory, agreement."""
    if not names:
        return []
    book = textbook("masked").Textbook
    rows = []
    for name in names:
        print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
        rows.append(_row(name, ROWS[name], book, request.flags.full))
    return rows


def make_model(row: Row) -> Any:
    """A network with random weights whose scores differ from word to word."""
    vocabulary = SimpleNamespace(size=WORDS + 1, pad=0, mask=WORDS, start=0, end=0)
    return random_model(row.model, SIZES | row.settings, vocabulary, 0.02)


def make_sampler(row: Row) -> Any:
    from diffq.registry import SAMPLERS

    dials = {} if row.normalise else {"normalise": False}
    return SAMPLERS[row.sampler](steps=row.steps, **dials)


def make_canvas(rows: int, length: int) -> Canvas:
    free_BL = torch.ones(rows, length, dtype=torch.bool)
    return Canvas(torch.zeros(rows, length, dtype=torch.long), free_BL, free_BL, torch.arange(rows))


def _row(name: str, row: Row, book: Any, full: bool) -> dict[str, Any]:
    model, sampler, canvas = make_model(row), make_sampler(row), make_canvas(BATCH, LENGTH)
    denoiser = model.denoiser()
    sampler.replace(steps=2)(denoiser, canvas, Rng(0))  # warm-up
    ours, theirs, peaks, meter = [], [], [], Meter(denoiser)
    for turn in range(row.turns):
        before = _resident()
        watch_memory(canvas.device)
        seconds, meter = timed(sampler, model, canvas, turn)
        ours.append(seconds)
        peaks.append(peak_memory(canvas.device) - before)
        theirs.append(_textbook_seconds(book, model, row, canvas, turn, full))
    return {
        "name": name,
        **against_textbook(ours, theirs, full),
        "calls": meter.nfe_calls,
        "memory_share": max(peaks) / (4 * BATCH * LENGTH * WORDS),  # of one float32 batch × length × vocabulary
        **_agreement(row, book, model),
    }


def _resident() -> int:
    """Bytes of this process that are in memory now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def _textbook_seconds(book: Any, model: Any, row: Row, canvas: Canvas, turn: int, full: bool) -> float:
    """Seconds of a whole textbook run: some steps multiplied up to all of them, the final denoising among them."""
    made = book(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, steps=row.steps, normalise=row.normalise, seed=turn
    )
    made.start()
    steps = range(row.steps + 1) if full else [(row.steps * (2 * turn + 1)) // (2 * row.turns)]
    began = time.perf_counter()
    for k in steps:
        made.step(k)
    return (time.perf_counter() - began) * (row.steps + 1) / len(steps)


def _agreement(row: Row, book: Any, model: Any) -> dict[str, Any]:
    """Rows and single tokens that are equal over whole trajectories, on canvases that the textbook is quick on."""
    canvas, steps = make_canvas(6, 24), 12
    sampler = make_sampler(row).replace(steps=steps)
    ours = sampler(model.denoiser(), canvas, Rng(9)).tokens_BL
    theirs = book(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, steps=steps, normalise=row.normalise, seed=9
    ).run()
    equal = (ours == theirs).all(1)
    return {"equal_rows": f"{int(equal.sum())}/{len(equal)}", "unequal_tokens": int((ours != theirs).sum())}
