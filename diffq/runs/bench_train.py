"""`diffq bench train`: our trainer's throughput against the same network in a bare PyTorch loop.

The two take turns on the same batches, a few steps each, so that whatever else the machine does falls on both.
What the bare loop lacks is what is measured: logging, averaged weights, prefetching, signals, clocks.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.config import Config, Request, compose
from diffq.errors import UserError
from diffq.runs.train import accelerator_for, prepare
from diffq.store.root import Store

BLOCK, BLOCKS = 8, 12  # steps a turn, and turns; the first one is not counted
_RESAMPLES = 2000


@dataclass(frozen=True)
class Throughput:
    """ratio: our tokens a second over the bare loop's (1 is as fast), with its 95 % interval over the turns."""

    name: str
    ratio: float
    low: float
    high: float
    ours: float
    bare: float
    steps: int

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name, "ratio": self.ratio, "low": self.low, "high": self.high,
            "tokens_per_second": self.ours, "bare_tokens_per_second": self.bare, "steps": self.steps,
        }  # fmt: skip


def run(request: Request) -> int:
    """Prints the comparison for the model, data and trainer that the command line names."""
    if names := getattr(request.flags, "names", None):
        raise UserError(
            f"bench train has no rows to choose from, such as '{names[0]}'; choose with model= and dataset="
        )
    result = measure(compose(request.overrides, verb="train", config_dirs=request.config_dirs))
    if request.json:
        print(json.dumps([result.row()]))
    else:
        print(
            f"{result.name}: {result.ours:,.0f} tokens/s, bare loop {result.bare:,.0f};"
            f" ratio {result.ratio:.3f} ({result.low:.3f} … {result.high:.3f}) over {result.steps} steps each"
        )
    return 0


def measure(config: Config, block: int = BLOCK, blocks: int = BLOCKS) -> Throughput:
    """Trains for a while in both ways. What it writes under outputs/cache is deleted again."""
    from diffq.runs.training.loop import Trainer

    trainer = config.trainer.replace(
        max_steps=block * (blocks + 1), max_minutes=None, validation_sources=0, save_steps=None, save_minutes=None
    )
    config = config.replace(trainer=trainer)
    folder = Store(Path(config.outputs)).cache / "bench_train"
    ours: list[float] = []
    theirs: list[float] = []
    shutil.rmtree(folder, ignore_errors=True)
    with accelerator_for(config) as accelerator:
        if accelerator.num_processes > 1:
            raise UserError("bench train compares two loops of one process; run it without a launcher")
        try:
            folder.mkdir(parents=True)
            job = prepare(config, folder, accelerator, False)
            bare = BareLoop(copy.deepcopy(job.model), job.batches, config, accelerator.device)

            class Turns(Trainer):
                """Our loop, which hands over to the bare one after each turn."""

                _turn = 0.0

                def _tick(self) -> int:
                    number = super()._tick()
                    if self.done and self.done % block == 0:
                        _wait(accelerator.device)
                        ours.append(time.perf_counter() - self._turn)
                        theirs.append(bare.turn(block))
                    if self.done % block == 0:
                        self._turn = time.perf_counter()
                    return number

            Turns(job, accelerator).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    name = f"train/{config.choices.dataset}-{config.choices.model}"
    return _summary(name, ours[1:], theirs[1:], bare.tokens * blocks / (blocks + 1), block * blocks)


class BareLoop:
    """What one writes by hand: collate, forward, backward, AdamW."""

    def __init__(self, model: Any, batches: Any, config: Config, device: Any):
        import torch

        from diffq.rng import Rng

        self.model, self.batches, self.settings, self.device = model.to(device).train(), batches, config.trainer, device
        t = config.trainer
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=t.learning_rate, betas=(t.beta1, t.beta2), weight_decay=t.weight_decay, fused=True
        )
        self.rng = Rng(config.seed)
        self.scaler = torch.amp.GradScaler(device.type, enabled=t.precision == "fp16")
        self.done = self.tokens = 0

    def turn(self, steps: int) -> float:
        """The seconds of so many steps."""
        start = time.perf_counter()
        for _ in range(steps):
            self._step()
        _wait(self.device)
        return time.perf_counter() - start

    def _step(self) -> None:
        import torch

        from diffq.models.base import Totals

        batch = self.batches.collate(*self.batches.global_rows(self.done))
        tokens = batch.tokens
        batch = type(batch)(**{n: v if v is None else v.to(self.device) for n, v in vars(batch).items()})
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.precision)
        with torch.autocast(self.device.type, kind) if kind else contextlib.nullcontext():
            loss = self.model(batch, self.rng, Totals(len(batch.row_B), tokens))["loss"]
        self.scaler.scale(loss).backward()
        if self.settings.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.done += 1
        self.tokens += tokens


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(name: str, ours: list[float], bare: list[float], tokens: float, steps: int) -> Throughput:
    """The ratio of total times, with a paired bootstrap over the turns."""
    import numpy as np

    from diffq.resamples import interval

    mine, theirs = np.array(ours), np.array(bare)
    pick = np.random.default_rng(0).integers(len(mine), size=(_RESAMPLES, len(mine)))
    low, high = interval(theirs[pick].sum(1) / mine[pick].sum(1))
    return Throughput(
        name=name,
        ratio=float(theirs.sum() / mine.sum()),
        low=low,
        high=high,
        ours=float(tokens / mine.sum()),
        bare=float(tokens / theirs.sum()),
        steps=steps,
    )
