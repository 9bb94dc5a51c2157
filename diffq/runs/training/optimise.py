"""The optimiser, the learning-rate schedule and the averaged weights.

Knows no data and no loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diffq.config.sections import TrainerSettings


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters by name, each shared one once, in the model's own order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def build_optimizer(model: nn.Module, settings: TrainerSettings) -> torch.optim.AdamW:
    """AdamW over every trained parameter; with decay=matrices, biases, norms and embeddings are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for parameter in named_parameters(model).values():
        free = settings.decay == "matrices" and (parameter.dim() < 2 or id(parameter) in tables)
        (plain if free else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}]
    if plain:
        groups.append({"params": plain, "weight_decay": 0.0})
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def learning_rate(settings: TrainerSettings, step: int, clock: float) -> float:
    """The learning rate of optimiser step `step`, counted from 0.

    It rises linearly over the warm-up and then falls over what is left of max_steps to final_fraction of its peak. A
    training that ends by minutes alone has no last step: there `clock`, the share of the minutes used up, takes the
    place of the share of the steps, and the warm-up still counts steps.
    """
    peak, warmup, last = settings.learning_rate, settings.warmup_steps, settings.max_steps
    if last is not None and settings.schedule != "constant":  # a constant rate knows no end: more steps only go on
        warmup = min(warmup, last // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "constant":
        return peak
    done = clock if last is None else (step - warmup) / (last - warmup)
    done = min(max(done, 0.0), 1.0)
    fall = done if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * done))
    return peak * (1 - (1 - settings.final_fraction) * fall)


class Average:
    """An exponential moving average of a model's parameters, in float32.

    Its decay at update n is min(decay, (1 + n) / (10 + n)), so that the first steps do not weigh for ever.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.live = named_parameters(model)
        self.values = {name: p.detach().clone().float() for name, p in self.live.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.values.values()), [p.detach() for p in self.live.values()], 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model carries the averaged weights inside this block, and its own again afterwards."""
        own = {name: p.detach().clone() for name, p in self.live.items()}
        self._copy(self.values)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.live.items():
            parameter.copy_(values[name])
