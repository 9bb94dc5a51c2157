"""Traces: how a few rows of a point were denoised, step by step.

They are recorded by running one batch of a finished point again: its rows, draws and padding are those of the run that
sampled the point, so the same words come out, and the point's samples, counts and times stay as they are. A point that
is not to be traced pays nothing. The file is described in docs/report.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.store.files import encode_row, read_rows, write_atomic
from diffq.store.point import Point

if TYPE_CHECKING:
    from diffq.config import Config
    from diffq.data.canvases import Batch
    from diffq.diffusion.contracts import Canvas, OnStep, Step
    from diffq.runs.workbench import Workbench

FILE = "traces.jsonl"
FLAG_ROWS = 4
"""Rows that `diffq sample --trace` records where no trace=n says how many."""


def read_traces(folder: Path) -> list[dict[str, Any]]:
    """The traces of a point, a mapping a row; empty where none were recorded."""
    return [row for row, _ in read_rows(folder / FILE)]


def is_traced(point: Point, wanted: int) -> bool:
    """Whether the point has as many traces as are wanted, or as many as one batch gave when as many were wanted."""
    if wanted == 0:
        return True
    found = read_traces(point.folder)
    return bool(found) and min(wanted, found[0]["of"]) <= len(found)


def trace_point(config: Config, bench: Workbench, point: Point) -> None:
    """Records `config.trace` rows of a finished point, where they are not recorded yet."""
    if is_traced(point, config.trace):
        return
    batch = middle_batch(config, bench, point, config.trace)
    recorder = Recorder(bench.loaded.tokenizer, min(config.trace, len(batch.rows)))
    again = run_again(config, bench, point, batch, bench.canvas(batch), recorder.on_step, recorder.rows)
    lines = [
        place | {"of": len(batch.rows), "same": same, "total": recorder.total, "steps": recorder.steps(at, ids)}
        for at, (place, same, ids) in enumerate(again)
    ]
    write_atomic(point.folder / FILE, b"".join(map(encode_row, lines)))
    if said := describe_rows(lines):
        print(f"diffq: {point.folder}: {said}", file=sys.stderr)


def first_samples(config: Config, bench: Workbench, point: Point) -> list[Batch]:
    """The batches of the first sample of each source, as they were sampled."""
    tokens = point.run().get("batch_tokens") or bench.batch_tokens(config)
    return [batch for batch in bench.plan(config, tokens) if batch.sample == 0]


def middle_batch(config: Config, bench: Workbench, point: Point, rows: int) -> Batch:
    """Of the batches of the first sample of each source that have so many rows the one in the middle, where they are
    neither the shortest nor the longest; the largest where none has. It is the same one however many samples are
    added."""
    batches = first_samples(config, bench, point)
    large = [batch for batch in batches if len(batch.rows) >= rows] or [max(batches, key=lambda b: len(b.rows))]
    return large[len(large) // 2]


def run_again(
    config: Config, bench: Workbench, point: Point, batch: Batch, canvas: Canvas, on_step: OnStep, count: int
) -> list[tuple[dict[str, Any], bool, list[int]]]:
    """Samples a batch of a finished point once more, with somebody listening. Of its first rows: their place, whether
    they end as the saved samples do, and their tokens as the sampler left them."""
    from diffq.diffusion.contracts import Meter
    from diffq.rng import Rng

    filled = config.sampler(Meter(bench.denoiser), canvas, Rng(config.seed), on_step).cut_at_end()
    ids = [tokens[valid].tolist() for tokens, valid in zip(filled.tokens_BL.cpu(), filled.valid_BL.cpu(), strict=True)]
    written = bench.asked.written(batch.rows, ids[: len(batch.rows)], True)
    numbers = range(batch.first, batch.first + count)
    saved = {row["row"]: row["ids"] for row in point.rows(numbers.stop) if row["row"] in numbers}
    made = []
    for at, number in enumerate(numbers):
        row = batch.rows[at]
        same = written[at].ids == saved.get(number)
        made.append(({"row": number, "source": row.source, "sample": row.sample}, same, ids[at]))
    return made


class Recorder:
    """Keeps the drafts of the first rows of a batch.

    Every step keeps what changed: the positions and the tokens that now stand there, as the tokenizer writes them; None
    for the mask, where nothing stands yet. The device is waited for at every step, so an ordinary run has no recorder.
    """

    def __init__(self, tokenizer: Any, rows: int):
        self.tokenizer, self.rows, self.total = tokenizer, rows, 0
        self._held: list[tuple[int, Any, Any, dict[str, Any]]] = []

    def on_step(self, step: Step) -> None:
        """Takes the draft of a step, as `on_step` of a sampler."""
        self.total = step.total
        stats = {name: value[: self.rows].tolist() for name, value in step.stats.items()}
        draft = step.draft()[: self.rows].tolist()
        self._held.append((step.index, draft, step.time_B[: self.rows].tolist(), stats))
        self._valid = step.canvas.valid_BL[: self.rows].tolist()

    def steps(self, at: int, final: Sequence[int]) -> list[dict[str, Any]]:
        """The steps of one row: what changed in each, and last what the sampler gave at its end.

        A step in which nothing changed has an empty list. Positions behind the row's end are left out.
        """
        made: list[dict[str, Any]] = []
        before: Sequence[int] = []
        for index, drafts, times, stats in self._held:
            tokens = [t for t, valid in zip(drafts[at], self._valid[at], strict=True) if valid]
            tokens = tokens[: len(final)] if len(final) < len(tokens) else tokens
            made.append(self._step(before, tokens) | {"index": index, "time": round(times[at], 6)})
            # A sampler has NaN for a row that was done, or of which there was nothing to tell; JSON has none.
            if told := {name: _short(values[at]) for name, values in stats.items() if math.isfinite(values[at])}:
                made[-1]["stats"] = told
            before = tokens
        if list(before) != list(final):
            made.append(self._step(before, final) | {"index": len(made), "time": 0.0})
        return made

    def _step(self, before: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
        changed = [
            [position, None if token == self.tokenizer.mask else self.tokenizer.token(token)]
            for position, token in enumerate(tokens)
            if position >= len(before) or before[position] != token
        ]
        return {"changed": changed}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def describe_rows(rows: Sequence[Mapping[str, Any]], what: str = "traces") -> str:
    """What is to be said of rows that do not end as the samples do; empty where all do."""
    odd = sum(not row["same"] for row in rows)
    if not odd:
        return ""
    return f"{odd} of {len(rows)} {what} end otherwise than the saved samples, which another machine or version made"
