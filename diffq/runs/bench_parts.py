"""What the benches of masked and random tokens have in common: networks with random weights, canvases with something
given, and one run on the clock; and, for every bench, where the time of a run goes. Time does not depend on weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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


def given_then_free(rows: int, given: int, free: int, words: int = 1 << 20) -> Canvas:
    """Rows of different tokens below `words`, of which the first are given."""
    tokens_BL = 2 + (torch.arange(rows * (given + free)) % (words - 2)).view(rows, -1)
    free_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    free_BL[:, given:] = True
    return Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(rows))


def timed(sampler: Any, model: Any, canvas: Canvas, seed: int) -> tuple[float, Meter]:
    """Seconds of a whole run, and what it asked of the network."""
    meter = Meter(model.denoiser())
    began = time.perf_counter()
    sampler(meter, canvas, Rng(seed))
    return time.perf_counter() - began, meter


class Clocked:
    """A denoiser whose sessions add up the seconds in `run` and in `read`."""

    def __init__(self, denoiser: Any):
        self._denoiser = denoiser
        self.seconds = {"open": 0.0, "run": 0.0, "read": 0.0}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def open(self, *arguments: Any) -> Any:
        return _ClockedSession(self._timed("open", self._denoiser.open, *arguments), self._timed)

    def _timed(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments)
        self.seconds[name] += time.perf_counter() - began
        return result

    def row(self, name: str, seconds: float, padding: float, floor: float) -> dict[str, Any]:
        """What `diffq bench overhead` says of a run: shares of its seconds, and of the seconds of its floor."""
        return {
            "name": name,
            "seconds": seconds,
            "network": self.seconds["run"] / seconds,
            "projection": self.seconds["read"] / seconds,
            "source": self.seconds["open"] / seconds,
            "rest": 1 - sum(self.seconds.values()) / seconds,
            "padding": padding,
            "floor_seconds": floor,
            "floor_share": floor / seconds,
        }


class _ClockedSession:
    def __init__(self, session: Any, timed: Callable[..., Any]):
        self._session, self._timed = session, timed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *arguments: Any) -> Any:
        return self._timed("run", self._session.run, *arguments)

    def read(self, *arguments: Any) -> Any:
        return self._timed("read", self._session.read, *arguments)

    def fork(self, rows_K: torch.Tensor) -> _ClockedSession:
        return _ClockedSession(self._session.fork(rows_K), self._timed)
