"""A small model and small data for the trainer's tests, and a program that trains them in a process of its own."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffq.config.sections import TrainerSettings
from diffq.models.base import PairBatch, Totals, TrainableModel
from diffq.rng import Rng, Stream, normal, uniform
from diffq.runs.training.loop import Job, Trainer

ROWS, WORDS, WIDTH = 37, 11, 8


class ToyModel(TrainableModel):
    """Predicts each target token from the mean of the source; records each example's loss, as importance sampling
    does, and lets what it observed weigh on the next losses, so that order and completeness show."""

    process: ClassVar[Any] = "gaussian"

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(WIDTH, WORDS)
        self.register_buffer("seen", torch.ones(()))
        self._records: dict[str, Tensor] = {}

    def denoiser(self) -> Any:
        raise AssertionError("nobody samples it")

    def loss(self, batch: PairBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        source = (self.embed(batch.source_BS) * batch.source_valid_BS[..., None]).sum(1, keepdim=True)
        position = torch.arange(batch.target_BL.shape[1])
        noise = normal(rng.key(Stream.TRAIN_NOISE, batch.row_B[:, None], batch.visit_B[:, None], position))
        hidden = self.drop(torch.tanh(self.hidden(source + self.embed(batch.target_BL) * 0.1 + noise[..., None] * 0.1)))
        logits = self.out(hidden)
        error = nn.functional.cross_entropy(logits.flatten(0, 1), batch.target_BL.flatten(), reduction="none")
        error = error.view(batch.target_BL.shape) * batch.target_valid_BL
        self._records = {"row": batch.row_B, "loss": error.detach().sum(1)}
        example = uniform(rng.key(Stream.TRAIN_DROP, batch.row_B, batch.visit_B)).float()
        extra = (example * (hidden * batch.target_valid_BL[..., None]).square().sum((1, 2))).sum() / totals.examples
        loss = error.sum() / totals.tokens * self.seen + extra
        return {"loss": loss, "extra": extra.detach()}

    def records(self) -> Mapping[str, Tensor]:
        return self._records

    def observe(self, records: Mapping[str, Tensor]) -> None:
        weights = torch.linspace(0.5, 1.5, len(records["loss"]))
        self.seen.mul_(0.9).add_(0.1 * (records["loss"] * weights).mean().clamp(0.5, 2))


class ToyBatches:
    """Consecutive rows of a small made-up corpus with lengths from 1 to 6."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size

    def global_rows(self, step: int) -> tuple[Tensor, Tensor]:
        place = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return place % ROWS, place // ROWS

    def collate(self, rows: Tensor, visits: Tensor) -> PairBatch:
        lengths = rows * 7 % 6 + 1
        valid = torch.arange(6) < lengths[:, None]
        target = torch.where(valid, (rows[:, None] * 3 + torch.arange(6)) % WORDS, 0)
        source_valid = torch.arange(4) < (rows[:, None] % 4 + 1)
        source = torch.where(source_valid, (rows[:, None] + torch.arange(4)) % WORDS, 0)
        return PairBatch(source, source_valid, target, valid, rows, visits)


def job(folder: Path, *, dropout: float = 0.2, model: type[ToyModel] = ToyModel, **changes: Any) -> Job:
    """A training of 12 steps that logs every step."""
    values: dict[str, Any] = {"batch_size": 8, "max_steps": 12, "log_steps": 1, "save_steps": 4, "learning_rate": 0.02}
    settings = TrainerSettings(**(values | changes))
    torch.manual_seed(3)
    batches = ToyBatches(settings.batch_size)
    validation = [batches.collate(torch.arange(20), torch.zeros(20, dtype=torch.long))]
    return Job(model(dropout), batches, settings, 5, folder, validation=validation, shown=False)


def train(made: Job) -> None:
    """Trains it in this process, or with the others that a launcher has started."""
    from accelerate import Accelerator

    precision = {"fp32": "no"}.get(made.settings.precision, made.settings.precision)
    Trainer(made, Accelerator(cpu=True, mixed_precision=precision)).run()


class Killed(ToyModel):
    """Ends its process with SIGKILL when it has computed a number of losses."""

    left = 0

    def loss(self, batch: PairBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        if self.training:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(batch, rng, totals)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-after", type=int, default=10**9)
    parser.add_argument("--dropout", type=float, default=0.2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    Killed.left = arguments.kill_after
    train(job(arguments.folder, dropout=arguments.dropout, model=Killed))


if __name__ == "__main__":
    main()
