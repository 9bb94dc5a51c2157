"""How much memory a point will take at most, and how much disk its samples.

On a CPU what is recorded is the largest resident size of the process, so what Python and torch take by themselves
counts too; it is read off points that are there, or else off this process, which has loaded the same libraries.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping, Sequence
from typing import Any

from diffq.data.canvases import Batch
from diffq.models.work import Seq2SeqWork, TextWork
from diffq.runs.planning.amounts import tiles_of
from diffq.runs.planning.dry import Trace

_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_TILES: dict[str, int] = {"ranked": 2, "weighed": 5}  # float32 tiles of scores that are there at once
# Bytes a score of the whole row: scores, their order, float64 probabilities and their sums; scores and weights.
_ROWS: dict[str, int] = {"sorted": 40, "whole": 24}
_ROW = 75  # bytes of a row's names and numbers besides its ids and its text
_ID = 4.5  # bytes of an id where nothing is given that would tell


def held_bytes(
    trace: Trace,
    batches: Sequence[Batch],
    source_lengths: Mapping[int, int],
    network: Seq2SeqWork,
    dtype: str,
    gpu: bool,
) -> int:
    """Bytes of tensors at the widest batch: weights, the embedding table of the clamp, activations, tiles."""
    weights = network.parameters * _BYTES[dtype]
    causal = network.settings.process == "causal"
    uncond = "uncond" in trace.branches
    most = 0
    for batch in batches:
        rows = len(batch.rows)
        length = max(row.length for row in batch.rows)
        source = max(source_lengths[row.source] for row in batch.rows)
        asked = rows if causal else max(rows * length, 1)
        numbers = network.activations(rows, rows if uncond else 0, length, source)
        most = max(most, numbers * _BYTES[dtype] + _tile_bytes(trace, asked, network, gpu))
    return weights + network.table * 4 + most


def held_by_text(trace: Trace, length: int, network: TextWork, dtype: str, gpu: bool) -> int:
    """Bytes of tensors at the batch of a trace, whose canvas has that length: weights, activations, tiles."""
    branches = len(trace.branches)
    most = max((network.activations(r.rows * branches, r.tokens, length) for r in trace.runs), default=0)
    if trace.kept:
        most += network.kept(trace.kept * branches, length)  # type: ignore[attr-defined]  # of models that keep them
    return (network.parameters + most) * _BYTES[dtype] + _tile_bytes(trace, trace.widest, network, gpu)


def _tile_bytes(trace: Trace, asked: int, network: Seq2SeqWork | TextWork, gpu: bool) -> int:
    """Bytes of the tiles of one reading of `asked` positions, at the costliest kind of reading."""
    most = 0
    for kind in trace.positions:
        rows, words = tiles_of(kind, asked, network.vocab_size, gpu)
        if kind in _ROWS:
            most = max(most, min(asked, rows) * network.vocab_size * _ROWS[kind])
        else:
            most = max(most, min(asked, rows) * min(words, network.vocab_size) * 4 * _TILES[kind])
    return most


def resident() -> int:
    """Bytes: the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def row_bytes(prompt_ids: Sequence[int], answer: str, tokens: int) -> int:
    """About how long a line of samples.jsonl is whose answer is as long as a reference."""
    prompt = json.dumps(list(prompt_ids), separators=(",", ":"))
    an_id = len(prompt) / len(prompt_ids) if prompt_ids else _ID
    return round(_ROW + len(prompt) + an_id * tokens + len(answer.encode()))


def offset(peaks: Sequence[tuple[Mapping[str, Any], int]]) -> int | None:
    """What a process takes besides its tensors, in the middle of points that are there: (run.json, tensor bytes)."""
    left = sorted(run["peak_memory_bytes"] - held for run, held in peaks if run.get("peak_memory_bytes"))
    return max(0, left[len(left) // 2]) if left else None
