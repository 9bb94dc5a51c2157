"""The clock: right on made-up prices, and within the promised factor on real samplers."""

from __future__ import annotations

import itertools
import math
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import vocabulary

from diffq.config import compose
from diffq.data.canvases import build_canvas, plan_batches
from diffq.models.work import Work
from diffq.rng import Rng
from diffq.runs.planning.amounts import fixed_counts
from diffq.runs.planning.clock import _PRICES, Clock, Timing
from diffq.runs.planning.dry import Blank, trace_fixed

DEVICE = "cpu, 1 threads"


def made_up(count: int, seed: int = 0) -> list[Work]:
    """Works of very different mixtures."""
    draw = random.Random(seed)
    typical = [1 / price for price in _PRICES["cpu"]]
    return [Work(*(t * 10 ** draw.uniform(-1.5, 1.5) for t in typical)) for _ in range(count)]


def test_without_a_timing_there_is_no_clock() -> None:
    assert Clock.fitted([], DEVICE) is None
    assert Clock.fitted([Timing(Work(), 1.0)], DEVICE) is None


def test_one_timing_fixes_the_speed_and_keeps_the_shares() -> None:
    start = Clock.fitted([Timing(made_up(1)[0], 1.0)], DEVICE)
    slow = Clock.fitted([Timing(made_up(1)[0], 50.0)], DEVICE)
    assert start is not None
    assert slow is not None
    assert start.seconds(made_up(1)[0]) == pytest.approx(1.0, rel=0.01)
    assert slow.seconds(made_up(1)[0]) == pytest.approx(50.0, rel=0.01)
    for work in made_up(20, seed=5):
        assert slow.seconds(work) / start.seconds(work) == pytest.approx(50, rel=0.05)


def test_many_timings_find_a_machine_with_other_shares() -> None:
    """Seven times slower, and each price off by a factor of its own, 1.6 in the middle."""
    own = np.random.default_rng(1).normal(math.log(7), 0.7, 9)
    prices = np.array(_PRICES["cpu"]) * np.exp(own)
    clock = Clock.fitted([Timing(w, float(prices @ w.amounts)) for w in made_up(60)], DEVICE)
    first = Clock.fitted([Timing(w, float(prices @ w.amounts)) for w in made_up(1)], DEVICE)
    assert clock is not None
    assert first is not None
    off = {}
    for name, made in (("one", first), ("sixty", clock)):
        ratios = [made.seconds(w) / float(prices @ w.amounts) for w in made_up(40, seed=9)]
        off[name] = float(np.abs(np.log(ratios)).max())
    assert off["sixty"] < math.log(1.25) < off["one"]
    assert min(clock.prices) > 0


def test_a_timing_that_was_disturbed_moves_little() -> None:
    truth = Clock.fitted([Timing(made_up(1)[0], 1.0)], DEVICE)
    assert truth is not None
    timings = [Timing(w, truth.seconds(w)) for w in made_up(8)]
    timings[3] = Timing(timings[3].work, 20 * timings[3].seconds)
    clock = Clock.fitted(timings, DEVICE)
    assert clock is not None
    for work in made_up(10, seed=4):
        assert clock.seconds(work) == pytest.approx(truth.seconds(work), rel=0.3)


GRID: list[tuple[str, dict[str, Any]]] = [
    ("cfg", {"scale": 1.0, "steps": 12}),
    ("cfg", {"scale": 2.0, "steps": 6}),
    ("clamp", {"temperature": 0.0, "steps": 10}),
    ("clamp", {"temperature": 0.7, "steps": 10}),
    ("clamp_before_cfg", {"scale": 2.0, "temperature": 0.5, "steps": 6}),
    ("clamp_after_cfg", {"scale": 2.0, "temperature": 0.5, "steps": 12}),
    ("cfg", {"scale": 2.0, "steps": 20, "scale_schedule": "lerp"}),
]


def test_the_time_of_real_samplers_is_predicted_from_one_of_them() -> None:
    """gaussian_tiny, every point of a grid as the only one known. Seconds of this process, not of the wall, and the
    least of three to twelve rounds in turn, since other tests run beside; what is left of the disturbance (shared
    caches, clock rates) is why one pair in ten may be further off than the promised 1.5, and none further than 2.5."""
    model_settings = compose(["model=gaussian_tiny", "dataset=grammar"]).model
    torch.manual_seed(0)
    denoiser = model_settings.build(vocabulary(300)).denoiser()
    draw = random.Random(0)
    sources = {i: [2, *(draw.randrange(5, 300) for _ in range(draw.randint(5, 12))), 3] for i in range(24)}
    lengths = [draw.randint(5, 14) for _ in sources]
    source_lengths = {i: len(ids) for i, ids in sources.items()}
    batches = plan_batches([lengths], list(source_lengths.values()), 512)
    blank, network = Blank.of(model_settings, vocabulary(300)), model_settings.work(vocabulary(300))
    samplers = [compose(["model=gaussian_tiny", f"sampler={name}"]).sampler.replace(**dials) for name, dials in GRID]
    canvases = [build_canvas(batch.rows, sources, pad=0, mask=4) for batch in batches]
    works = [fixed_counts(trace_fixed(s, blank), batches, source_lengths, network, False).work for s in samplers]
    seconds = [math.inf] * len(samplers)

    def predictions() -> np.ndarray:
        timings = [Timing(w, s) for w, s in zip(works, seconds, strict=True) if w is not None]
        clocks = [Clock.fitted([known], DEVICE) for known in timings]
        assert all(clocks)
        pairs = itertools.permutations(zip(timings, clocks, strict=True), 2)
        return np.array([clock.seconds(other.work) / other.seconds for (_, clock), (other, _) in pairs])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads would count as work
    try:
        for turn in range(12):
            for i, sampler in enumerate(samplers):
                began = time.process_time()
                for canvas in canvases:
                    sampler(denoiser, canvas, Rng(0))
                seconds[i] = min(seconds[i], time.process_time() - began)
            if turn >= 2 and np.mean(np.abs(np.log(predictions())) <= math.log(1.5)) >= 0.9:
                break
    finally:
        torch.set_num_threads(threads)
    ratios = predictions()
    off = np.abs(np.log(ratios))
    print(f"predicted/actual: {min(ratios):.2f} … {max(ratios):.2f}, median off by {math.exp(np.median(off)):.2f}")
    assert np.mean(off <= math.log(1.5)) >= 0.9
    assert off.max() <= math.log(2.5)
