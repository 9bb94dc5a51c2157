"""`diffq bench overhead`: where the time of our samplers goes, and how near it is to the floor.

The floor is the time that this machine's matrix product needs for the multiplications that cannot be avoided: the
network on every token that is no padding, and one projection of every position that is clamped, or read.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from diffq.config import Request
from diffq.data.canvases import BATCH_TOKENS, build_canvas, plan_batches
from diffq.rng import Rng
from diffq.runs import bench_eags
from diffq.runs.bench import chosen
from diffq.runs.bench_parts import Clocked
from diffq.runs.bench_samplers import DIALS, STEPS, Bench, open_bench, open_sampler


def run(request: Request) -> list[dict[str, Any]]:
    """The rows: seconds in all, the shares of network, projection and the rest, the floor and its share."""
    names = chosen([*DIALS, *bench_eags.OVERHEAD], request.flags.names)
    rows = []
    if embedded := [name for name in names if name in DIALS]:
        config, bench = open_bench(request)
        rate = _multiplications_a_second(bench.model.settings.width)
        for name in embedded:
            print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
            sampler, _ = open_sampler(name)
            rows.append(_row(name, bench, sampler, config.batch_tokens or BATCH_TOKENS, rate))
    if discrete := [name for name in names if name in bench_eags.OVERHEAD]:
        rows += bench_eags.overhead(discrete, _multiplications_a_second(int(bench_eags.SIZES["width"])))
    return rows


def _row(name: str, bench: Bench, sampler: Any, batch_tokens: int, rate: float) -> dict[str, Any]:
    clock = Clocked(bench.denoiser)
    source_lengths = [len(s) for s in bench.sources]
    plan = plan_batches([bench.lengths], source_lengths, batch_tokens)
    padded = 0
    began = time.perf_counter()
    for batch in plan:
        canvas = build_canvas(batch.rows, dict(enumerate(bench.sources)), bench.pad, bench.mask)
        padded += canvas.tokens_BL.numel()
        sampler(clock, canvas, Rng(0))
    total = time.perf_counter() - began
    return clock.row(name, total, 1 - sum(bench.lengths) / padded, _unavoidable(bench, sampler) / rate)


def _unavoidable(bench: Bench, sampler: Any) -> float:
    """Multiply-adds of a whole run: guided rows need everything but cross-attention twice."""
    s = bench.model.settings
    tokens, guided = sum(bench.lengths), 2 if sampler.needs_guidance() else 1
    layer = 12 * s.width**2 * guided + 2 * s.width**2  # self-attention and feed-forward; cross-attention's q and out
    ends = 2 * s.embedding * s.width * guided
    attention = sum(2 * n * n * s.width * guided for n in bench.lengths)
    attention += sum(2 * n * len(x) * s.width for n, x in zip(bench.lengths, bench.sources, strict=True))
    step = tokens * (s.decoder_layers * layer + ends) + s.decoder_layers * attention
    projections = tokens * bench.denoiser.vocab_size * s.embedding
    clamps = guided if sampler.order == "before" else 0
    return STEPS * (step + clamps * projections) + projections


def _multiplications_a_second(width: int) -> float:
    """Multiply-adds a second of a matrix product as large as those of the network."""
    a, b = torch.randn(2048, width), torch.randn(width, 4 * width)
    a @ b
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2048 * width * 4 * width / min(seconds)
