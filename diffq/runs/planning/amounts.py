"""The work of a point's batches: what the dry run found, times what a network of these sizes does for it.

Counts are exact where the sampler is told its lengths; where rows end by themselves they are those of the lengths that
are expected. Knows no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffq.data.canvases import Batch
from diffq.diffusion.reductions import ALIGNMENT, tile_sizes
from diffq.models.work import Seq2SeqWork, Work
from diffq.runs.planning.dry import Kind, Trace

# Operations that one tile, and one reading around its tiles, hand to the device.
_STARTED_A_TILE: dict[Kind, int] = {"ranked": 8, "weighed": 26, "sorted": 4}
_STARTED_A_READ: dict[Kind, int] = {"ranked": 14, "weighed": 40, "sorted": 60}
_STARTED_A_BATCH = 400  # noise, keys, the canvas and its way back
_NORMAL = 8  # one keyed normal costs about as much as so many keyed exponentials


@dataclass(frozen=True)
class Counts:
    """What the Meter will count, and the work behind it; `work` is None where nobody has counted the network's."""

    calls: int = 0
    rows: int = 0
    positions: int = 0
    work: Work | None = Work()

    def __add__(self, other: Counts) -> Counts:
        work = None if self.work is None or other.work is None else self.work + other.work
        return Counts(self.calls + other.calls, self.rows + other.rows, self.positions + other.positions, work)


def fixed_counts(
    trace: Trace, batches: Sequence[Batch], source_lengths: Mapping[int, int], network: Seq2SeqWork | None, gpu: bool
) -> Counts:
    """The counts of batches whose lengths are decided beforehand; `trace` is that of one row and position."""
    total = Counts(work=Work() if network else None)
    for batch in batches:
        rows, positions = len(batch.rows), sum(row.length for row in batch.rows)
        length = max(row.length for row in batch.rows)
        source = max(source_lengths[row.source] for row in batch.rows)
        asked = {kind: count * positions for kind, count in trace.positions.items()}
        counts = Counts(trace.calls, trace.rows * rows, sum(asked.values()), total.work)
        if network is not None:
            cond, uncond = (rows if name in trace.branches else 0 for name in ("cond", "uncond"))
            work = network.encode(cond, source) + network.denoise(cond, uncond, length, source) * trace.calls
            noise = Work(started=_STARTED_A_BATCH, drawn=_NORMAL * rows * length * network.settings.embedding)
            counts = Counts(
                counts.calls, counts.rows, counts.positions, work + noise + _read(asked, trace.reads, network, gpu)
            )
        total += counts
    return total


def ending_counts(trace: Trace, sources: Sequence[int], network: Seq2SeqWork | None, gpu: bool) -> Counts:
    """The counts of one batch whose rows end by themselves, by its own trace; `sources` are its sources' lengths."""
    if network is None:
        return Counts(trace.calls, trace.rows, trace.projected, None)
    source = max(sources)
    work = network.encode(len(sources), source) + Work(started=_STARTED_A_BATCH)
    for step, rows in enumerate(trace.alive):
        work += network.next_token(rows, step + 1, source)
    return Counts(
        trace.calls, trace.rows, trace.projected, work + _read(trace.positions, trace.reads, network, gpu, causal=True)
    )


def _read(
    positions: Mapping[Kind, int], reads: Mapping[Kind, int], network: Seq2SeqWork, gpu: bool, causal: bool = False
) -> Work:
    """The work of projecting so many positions in so many readings."""
    total, vocabulary = Work(), network.vocab_size
    for kind, count in positions.items():
        times = reads[kind]
        rows, words = tile_sizes(math.ceil(count / times), gpu)
        parts = math.ceil(count / times / rows)
        tiles = parts * math.ceil(vocabulary / words)
        scores = count * vocabulary
        total += Work(
            started=times * (_STARTED_A_READ[kind] + tiles * _STARTED_A_TILE[kind]),
            streamed=times * parts * vocabulary * network.settings.embedding,
            projection=network.project(count, causal),
            ranked=scores if kind == "ranked" else 0,
            weighed=scores if kind != "ranked" else 0,
            sorted=scores if kind == "sorted" else 0,
            drawn=0 if kind == "ranked" else count * (ALIGNMENT + vocabulary / ALIGNMENT),
        )
    return total
