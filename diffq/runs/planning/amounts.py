"""The work of a point's batches: what the dry run found, times what a network of these sizes does for it.

Counts are exact where the sampler is told its lengths; where rows end by themselves they are those of the lengths that
are expected. Knows no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffq.data.canvases import Batch
from diffq.diffusion.reductions import ALIGNMENT, rows_held_whole, tile_sizes
from diffq.models.work import Seq2SeqWork, TextWork, Work
from diffq.runs.planning.dry import Kind, Trace

# Operations that one tile, and one reading around its tiles, hand to the device.
_STARTED_A_TILE: dict[Kind, int] = {"ranked": 8, "weighed": 26, "sorted": 4, "whole": 4}
_STARTED_A_READ: dict[Kind, int] = {"ranked": 14, "weighed": 40, "sorted": 60, "whole": 60}
_LEAP = 4  # a draw of random tokens passes over its scores so many times as often as another draw
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
                counts.calls, counts.rows, counts.positions, work + noise + _read(asked, trace, network, gpu)
            )
        total += counts
    return total


def ending_counts(trace: Trace, sources: Sequence[int], network: Seq2SeqWork | None, gpu: bool) -> Counts:
    """The counts of one batch whose rows end by themselves, by its own trace; `sources` are its sources' lengths."""
    if network is None:
        return Counts(trace.calls, trace.rows, trace.projected, None)
    source = max(sources)
    work = network.encode(len(sources), source) + Work(started=_STARTED_A_BATCH)
    for ran, times in trace.runs.items():
        work += network.next_token(ran.rows, ran.seen, source) * times
    return Counts(trace.calls, trace.rows, trace.projected, work + _read(trace.positions, trace, network, gpu))


def text_counts(trace: Trace, network: TextWork | None, gpu: bool) -> Counts:
    """The counts of one batch of running text, by its own trace."""
    if network is None:
        return Counts(trace.calls, trace.rows, trace.projected, None)
    branches, work = len(trace.branches), Work(started=_STARTED_A_BATCH)
    for ran, times in trace.runs.items():
        work += network.run(ran.rows * branches, ran.tokens, ran.asked, ran.seen) * times
    return Counts(trace.calls, trace.rows, trace.projected, work + _read(trace.positions, trace, network, gpu))


def tiles_of(kind: Kind, positions: int, vocab_size: int, gpu: bool) -> tuple[int, int]:
    """Positions and tokens a tile of a reading."""
    held = rows_held_whole(vocab_size, gpu) if kind in ("sorted", "whole") else None
    rows, words = tile_sizes(positions, gpu, held)
    return min(rows, tile_sizes(positions, gpu)[0]), words


def _read(positions: Mapping[Kind, int], trace: Trace, network: Seq2SeqWork | TextWork, gpu: bool) -> Work:
    """The work of projecting so many positions, in as many readings as the trace has."""
    total, vocabulary = Work(), network.vocab_size
    together = len(trace.branches) if isinstance(network, TextWork) else 1  # guidance draws once from both branches
    for kind, count in positions.items():
        times = trace.reads[kind]
        rows, words = tiles_of(kind, math.ceil(count / times), vocabulary, gpu)
        parts = math.ceil(count / times / rows)
        tiles = parts * math.ceil(vocabulary / words)
        scores = count / together * vocabulary
        total += Work(
            started=times * (_STARTED_A_READ[kind] + tiles * _STARTED_A_TILE[kind]),
            streamed=times * parts * vocabulary * network.inner,
            projection=network.project(count),
            ranked=scores if kind == "ranked" else 0,
            weighed=0 if kind == "ranked" else scores * (_LEAP if kind == "whole" else 1),
            sorted=scores if kind == "sorted" else 0,
            drawn=0 if kind == "ranked" else count / together * (ALIGNMENT + vocabulary / ALIGNMENT),
        )
    return total
