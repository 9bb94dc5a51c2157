"""One optimiser step over processes and micro-batches, with the losses and gradients of the undivided batch.

Every process is given the whole batch of the step and takes every world-th pair of it. Losses are shares of the
step's loss (see `Totals`), so they are summed over micro-batches and processes and never averaged.
Knows no schedule, no clock and no disk.

Shape suffixes: B pairs, S source positions, L target positions.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from diffq.models.base import Totals, TrainableModel, TrainBatch
from diffq.rng import Rng


class Batches(Protocol):
    """Where the pairs of a step come from."""

    def global_rows(self, step: int) -> tuple[Any, Any]:
        """The rows of optimiser step `step` over all processes, and how often each was drawn before."""
        ...

    def collate(self, rows: Any, visits: Any) -> TrainBatch: ...


@dataclass(frozen=True)
class StepBatch:
    """What one process computes in one optimiser step.

    parts    the micro-batches
    order_B  where in the process' share of the batch each pair of the parts, laid end to end, stands
    totals   the counts of the whole step
    """

    parts: tuple[TrainBatch, ...]
    order_B: Tensor
    totals: Totals


def divide(batch: TrainBatch, micro: int | None, rank: int, world: int) -> StepBatch:
    """A process' share of the batch of a step, cut into micro-batches of at most `micro` pairs of like length."""
    count = len(batch.row_B)
    totals = Totals(examples=count, tokens=batch.tokens)
    mine = torch.arange(rank, count, world)
    if micro is None or micro >= len(mine):
        return StepBatch((batch.take(mine),), torch.arange(len(mine)), totals)
    order = torch.argsort(batch.lengths_B[mine], stable=True)
    parts = tuple(batch.take(mine[part]) for part in order.split(micro))
    return StepBatch(parts, order, totals)


def pinned(batch: StepBatch) -> StepBatch:
    """The same in pinned memory, from which copies to a GPU need not wait."""
    return _mapped(batch, Tensor.pin_memory)


def to_device(batch: StepBatch, device: torch.device) -> StepBatch:
    """The same on a device."""
    return batch if device.type == "cpu" else _mapped(batch, lambda x: x.to(device, non_blocking=True))


def _mapped(batch: StepBatch, change: Callable[[Tensor], Tensor]) -> StepBatch:
    def moved(part: Any) -> Any:
        held = {f.name: getattr(part, f.name) for f in fields(part)}
        return replace(part, **{name: change(value) for name, value in held.items() if value is not None})

    return StepBatch(tuple(map(moved, batch.parts)), change(batch.order_B), batch.totals)


class Stepper:
    """Accumulates the gradients of a step and applies them."""

    def __init__(self, accelerator: Any, model: TrainableModel, optimizer: torch.optim.Optimizer, clip: float | None):
        self.accelerator = accelerator
        self.model = model
        with warnings.catch_warnings():  # accelerate knows one name of the option alone, and torch has a newer one
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            self.wrapped = accelerator.prepare_model(model)
        self.optimizer = optimizer
        self.clip = clip

    def step(self, batch: StepBatch, rng: Rng, learning_rate: float, want_norm: bool) -> dict[str, Tensor]:
        """This process' shares of the step's loss parts, and the gradient's norm `grad_norm` where it was computed.

        Nothing here makes the host wait for the device, but a step of fp16 (its scaler does).
        """
        world = self.accelerator.num_processes
        totals: dict[str, Tensor] = {}
        records: list[Mapping[str, Tensor]] = []
        for index, part in enumerate(batch.parts):
            last = index == len(batch.parts) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self.wrapped(part, rng, batch.totals)
                self.accelerator.backward(losses["loss"] * world)
            for name, value in losses.items():
                value = value.detach()
                totals[name] = totals[name] + value if name in totals else value
            seen = self.model.records()
            if seen is not None:
                records.append({name: value.detach() for name, value in seen.items()})
        norm = self._apply(learning_rate, want_norm)
        if norm is not None:
            totals["grad_norm"] = norm
        self.model.after_step()
        if records:
            self.model.observe(self._gather(records, batch.order_B))
        return totals

    def _apply(self, learning_rate: float, want_norm: bool) -> Tensor | None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = None
        if self.clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        elif want_norm:
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _gather(self, records: list[Mapping[str, Tensor]], order_B: Tensor) -> dict[str, Tensor]:
        """The observations of all processes in the order of the undivided batch."""
        world = self.accelerator.num_processes
        gathered = {}
        for name in records[0]:
            laid = torch.cat([r[name] for r in records])
            share = torch.empty_like(laid)
            share[order_B] = laid
            if world > 1:
                whole = self.accelerator.gather(share.contiguous())
                share = whole.unflatten(0, (world, -1)).transpose(0, 1).flatten(0, 1)
            gathered[name] = share
        return gathered
