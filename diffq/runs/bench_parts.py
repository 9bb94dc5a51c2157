"""What the benches of masked and random tokens have in common: networks with random weights, canvases with something
given, and one run on the clock. Time does not depend on the weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from diffq.diffusion.contracts import Canvas, Meter
from diffq.rng import Rng


def random_model(kind: str, sizes: Mapping[str, Any], vocabulary: SimpleNamespace, spread: float) -> Any:
    """A network with random weights whose scores differ from word to word. spread: of the last matrix's entries."""
    from diffq.registry import MODELS

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = MODELS[kind](**sizes).build(vocabulary).eval()
        last = model.net.output_layer.linear.weight if hasattr(model.net, "output_layer") else model.net.head[0]
        torch.nn.init.normal_(last, std=spread)
    return model


def given_then_free(rows: int, given: int, free: int) -> Canvas:
    """Rows of different tokens, of which the first are given."""
    tokens_BL = torch.arange(2, 2 + rows * (given + free)).view(rows, -1)
    free_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    free_BL[:, given:] = True
    return Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(rows))


def timed(sampler: Any, model: Any, canvas: Canvas, seed: int) -> tuple[float, Meter]:
    """Seconds of a whole run, and what it asked of the network."""
    meter = Meter(model.denoiser())
    began = time.perf_counter()
    sampler(meter, canvas, Rng(seed))
    return time.perf_counter() - began, meter
