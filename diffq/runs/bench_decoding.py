"""`diffq bench samplers masked imh`: decoding of a large-vocabulary masked model against LLaDA's published loop, and
IMH against low confidence.

Published: every step projects the whole vocabulary at all positions, and at a temperature above 0 draws float64 Gumbel
noise over all of it. A step of it does the same work whenever it is, so one is timed and multiplied; ours runs whole.
Weights are random (time does not depend on them), and the two take turns. IMH does another thing than low confidence,
so it is held against low confidence's time for as many rows; both write the last block of the answer alone unless
`--full` is given, since steps of all blocks cost the same. Agreement is counted on small canvases.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from diffq.config import Request
from diffq.diffusion.contracts import Canvas, Meter
from diffq.rng import Rng
from diffq.runs.bench import against_textbook, textbook
from diffq.runs.bench_parts import given_then_free, random_model, timed

WORDS, PROMPT, ANSWER, BATCH, BLOCK, TURNS = 126_464, 64, 128, 8, 32, 3
SIZES = {"width": 512, "heads": 8, "layers": 6, "mlp_width": 1376, "max_length": PROMPT + ANSWER}


@dataclass(frozen=True)
class Row:
    """A sampler's kind and dials, and the temperature of the loop that it is held against; None: low confidence."""

    sampler: str
    dials: dict[str, Any] = field(default_factory=dict)
    temperature: float | None = None


ROWS: dict[str, Row] = {
    "masked/llada_greedy": Row("low_confidence", {"block": BLOCK, "temperature": 0.0}, 0.0),
    "masked/llada_sampled": Row("low_confidence", {"block": BLOCK, "temperature": 1.0}, 1.0),
    "imh/chain4": Row("imh", {"block": BLOCK, "chain": 4}),
    "imh/chain1": Row("imh", {"block": BLOCK, "chain": 1}),
}


def run(request: Request, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: name, ratio (the other's seconds over ours), low and high over the turns, seconds, rows, agreement."""
    if not names:
        return []
    book, model = textbook("decoding").LLaDA, make_model()
    rows = []
    for name in names:
        print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
        rows.append(_row(name, ROWS[name], book, model, request.flags.full))
    return rows


def make_model(words: int = WORDS) -> Any:
    """A network with random weights whose scores differ from word to word."""
    vocabulary = SimpleNamespace(
        size=words, pad=0, unk=0, start=0, end=1, mask=words - 1, ends=(1,), specials=(0, 1, words - 1)
    )
    return random_model("llada", SIZES, vocabulary, 0.1)


def make_sampler(row: Row) -> Any:
    from diffq.registry import SAMPLERS

    return SAMPLERS[row.sampler](**row.dials)


def _row(name: str, row: Row, book: Any, model: Any, full: bool) -> dict[str, Any]:
    answer = ANSWER if full or row.temperature is not None else BLOCK
    canvas, sampler, other = given_then_free(BATCH, PROMPT + ANSWER - answer, answer), make_sampler(row), None
    if row.temperature is None:
        other = make_sampler(Row("low_confidence", {"block": BLOCK}))
    ours, theirs, meter = [], [], Meter(model.denoiser())
    for turn in range(TURNS):
        seconds, meter = timed(sampler, model, canvas, turn)
        ours.append(seconds)
        if other is None:
            theirs.append(_textbook_seconds(book, model, row, canvas, turn, full))
        else:
            seconds, beside = timed(other, model, canvas, turn)
            theirs.append(seconds * meter.nfe_rows / beside.nfe_rows)
    said = against_textbook(ours, theirs, full or other is not None)
    return {"name": name, **said, "calls": meter.nfe_calls, "rows": meter.nfe_rows, **_agreement(row, book, model)}


def _textbook_seconds(book: Any, model: Any, row: Row, canvas: Canvas, turn: int, full: bool) -> float:
    """Seconds of a whole published loop, one position a step: some steps multiplied up to all of them."""
    loop = book(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, block=BLOCK, steps=ANSWER, temperature=row.temperature,
        gumbel=True,
    )  # fmt: skip
    steps = range(ANSWER) if full else [(ANSWER * (2 * turn + 1)) // (2 * TURNS)]
    began = time.perf_counter()
    for number in steps:
        loop.step(number)
    return (time.perf_counter() - began) * ANSWER / len(steps)


def _agreement(row: Row, book: Any, model: Any) -> dict[str, Any]:
    """Rows that are equal over whole trajectories, on canvases that the loop is quick on, drawn by the same keys."""
    if row.temperature is None:
        return {}
    canvas = given_then_free(4, 4, 16)
    ours = make_sampler(row).replace(block=8)(model.denoiser(), canvas, Rng(9)).tokens_BL
    theirs = book(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, block=8, steps=16, temperature=row.temperature, seed=9
    ).run()
    return {"equal_rows": f"{int((ours == theirs).all(1).sum())}/{len(ours)}"}
