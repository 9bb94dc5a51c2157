"""The training loop: steps until the budget is used up, and between them logs, validations and checkpoints.

Losses stay on the device until a row of the log is due; the host waits for it at a step only where a loss gathers the
masked places. What a clock or a signal decides is decided by the first process, and all agree.
Knows no configuration files: it is given a model, batches and a folder.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffq.config.sections import TrainerSettings
from diffq.errors import UserError
from diffq.interrupts import Stopped
from diffq.models.base import Totals, TrainableModel, TrainBatch
from diffq.models.checkpoints import WEIGHTS, tensors_of, write_tensors
from diffq.rng import Rng
from diffq.runs.training import state
from diffq.runs.training.journal import Journal
from diffq.runs.training.optimise import Average, build_optimizer, learning_rate
from diffq.runs.training.progress import Progress
from diffq.runs.training.signals import Signals
from diffq.runs.training.steps import Batches, StepBatch, Stepper, divide, pinned, to_device

VALIDATION_SEED = -1  # the validation losses of all trainings are under the same draws, which no training has


class NotFinite(UserError):
    """The loss is not a number any more."""


class Interrupted(Stopped):
    """A signal ended the training after it was saved."""


@dataclass
class Job:
    """What is trained, on what, and where it is kept.

    validation  batches of the validation split, the same at every call
    preview     gives lines that show a few samples of the model as it is
    run         facts that go into run.json beside the loop's own
    """

    model: TrainableModel
    batches: Batches
    settings: TrainerSettings
    seed: int
    folder: Path
    validation: Sequence[TrainBatch] = ()
    preview: Callable[[TrainableModel], Iterable[str]] | None = None
    run: dict[str, Any] = field(default_factory=dict)
    title: str = "training"
    shown: bool = True


class Trainer:
    """One training, in one of the accelerator's processes.

    Initial weights are those of job.model; with it on disk, the newest state in job.folder is gone on from.
    """

    def __init__(self, job: Job, accelerator: Any):
        self.job, self.settings, self.accelerator = job, job.settings, accelerator
        self.rank, self.world, self.device = accelerator.process_index, accelerator.num_processes, accelerator.device
        if self.settings.batch_size % self.world:
            raise UserError(
                f"trainer.batch_size={self.settings.batch_size} cannot be shared equally by {self.world} processes;"
                f" take a multiple of {self.world}"
            )
        self.rng = Rng(job.seed)
        job.model.to(self.device).train()
        self.optimizer = build_optimizer(job.model, self.settings)
        self.average = Average(job.model, self.settings.ema) if self.settings.ema else None
        self.trained = state.Trained(job.model, self.optimizer, self.average, accelerator.scaler)
        self.done = 0  # optimiser steps taken
        self.before = 0.0  # seconds of training in earlier calls
        self.loss: float | None = None
        self.validation_loss: float | None = None
        self._pending: list[tuple[int, float, dict[str, Tensor]]] = []
        self._tokens = 0

    def run(self) -> None:
        """Trains until the budget is used up.

        Raises NotFinite, with the last good state left on disk, and Interrupted, with the present one saved.
        """
        self._resume()
        self.stepper = Stepper(self.accelerator, self.job.model, self.optimizer, self.settings.clip)
        self._started = self._logged_at = time.monotonic()
        self._seconds = self._saved_at = self._validated_at = self.before
        self._validated_step = -1
        self.journal = Journal(self.job.folder, self.rank == 0)
        if validated := self.journal.cut(self.done):
            self._validated_step, self.validation_loss = self.done, validated["validation_loss"]
        with self.journal, Signals() as self.signals, Progress(self.job.title, self._shown) as self.progress:
            if self.done:
                self.progress.say(f"goes on at step {self.done}")
            self._write_run("running")
            try:
                self._steps()
            except NotFinite:
                self._write_run("failed")
                raise

    @property
    def _shown(self) -> bool:
        return self.job.shown and self.rank == 0

    def _steps(self) -> None:
        number = self._tick()
        with self._prefetched() as batches:
            while not self._over():
                self._one_step(next(batches))
                number = self._tick()
                if number:
                    self._save("stopped")
                    raise Interrupted(number, f"the training is saved at step {self.done}")
                if self._over():
                    break
                if self._due(self._validated_at, self.settings.validate_steps, self.settings.validate_minutes):
                    self._validate()
                if self._due(self._saved_at, self.settings.save_steps, self.settings.save_minutes):
                    self._save("running")
        self._read_losses()
        self._validate()
        self._save("done")

    def _over(self) -> bool:
        steps, minutes = self.settings.max_steps, self.settings.max_minutes
        return (steps is not None and self.done >= steps) or (minutes is not None and self._seconds >= 60 * minutes)

    def _due(self, last: float, steps: int | None, minutes: float | None) -> bool:
        by_steps = steps is not None and self.done % steps == 0
        return by_steps or (minutes is not None and self._seconds - last >= 60 * minutes)

    def _tick(self) -> int:
        """Brings the clock up to date and gives the number of the signal that was received, or 0.

        Several processes agree on both: on CPUs after each step, on GPUs, which would have to be waited for, where a
        row of the log is due.
        """
        seconds = self.before + time.monotonic() - self._started
        if self.world == 1:
            self._seconds = seconds
            return self.signals.number
        if self.device.type != "cpu" and self.done % self.settings.log_steps:
            return 0
        mine = torch.tensor([[seconds, float(self.signals.number)]], device=self.device, dtype=torch.float64)
        every = self.accelerator.gather(mine).cpu()
        self._seconds = float(every[0, 0])
        return int(every[:, 1].max())

    @contextlib.contextmanager
    def _prefetched(self) -> Iterator[Iterator[StepBatch]]:
        """The steps' batches in order, each made ready in a thread while the one before is computed."""

        def load(step: int) -> StepBatch:
            rows, visits = self.job.batches.global_rows(step)
            batch = self.job.batches.collate(rows, visits)
            share = divide(batch, self.settings.micro_batch, self.rank, self.world)
            return pinned(share) if self.device.type == "cuda" else share

        def batches(pool: ThreadPoolExecutor) -> Iterator[StepBatch]:
            step = self.done
            coming = pool.submit(load, step)
            while True:
                step += 1
                ready, coming = coming.result(), pool.submit(load, step)
                yield ready

        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            yield batches(pool)

    def _one_step(self, batch: StepBatch) -> None:
        minutes = self.settings.max_minutes
        rate = learning_rate(self.settings, self.done, self._seconds / (60 * minutes) if minutes else 0.0)
        logs = (self.done + 1) % self.settings.log_steps == 0
        parts = self.stepper.step(to_device(batch, self.device), self.rng, rate, logs)
        if self.average is not None:
            self.average.update()
        self.done += 1
        self._tokens += batch.totals.tokens
        self._pending.append((self.done, rate, parts))
        if logs:
            self._read_losses()

    def _read_losses(self) -> None:
        """Brings the losses since the last call to the host, checks them, and writes a row of the log."""
        if not self._pending:
            return
        steps, rates, parts = zip(*self._pending, strict=True)
        self._pending = []
        names = [name for name in parts[0] if name != "grad_norm"]
        shares = torch.stack([torch.stack([p[name].float() for p in parts]) for name in names])
        values = self.accelerator.reduce(shares, "sum").double().cpu()
        losses = values[names.index("loss")]
        if not bool(losses.isfinite().all()):
            first = int((~losses.isfinite()).nonzero()[0])
            what = f"the loss became {float(losses[first])} at step {steps[first]} (learning rate {rates[first]:.3g})"
            raise self._not_finite(what)
        now = time.monotonic()
        speed = self._tokens / max(now - self._logged_at, 1e-9)
        self._logged_at, self._tokens = now, 0
        self.loss = float(losses.mean())
        row = {"step": steps[-1]} | {name: float(v.mean()) for name, v in zip(names, values, strict=True)}
        row |= {"learning_rate": rates[-1], "tokens_per_second": round(speed, 1)}
        if "grad_norm" in parts[-1]:
            row["grad_norm"] = float(parts[-1]["grad_norm"])
        self.journal.row(row | {"seconds": round(self._seconds, 2)})
        self.progress.update(steps[-1], self._share(), self.loss, rates[-1], speed)

    def _not_finite(self, what: str) -> NotFinite:
        newest = state.newest(self.job.folder / "state")
        kept = f"the checkpoint of {newest.name} is kept" if newest else "no checkpoint had been written"
        return NotFinite(
            f"{what}; {kept}; try a smaller trainer.learning_rate, trainer.clip=1 or a longer trainer.warmup_steps"
            + (", or trainer.precision=bf16" if self.settings.precision == "fp16" else "")
        )

    def _share(self) -> float:
        """How much of the budget is used up, 0 … 1."""
        steps, minutes = self.settings.max_steps, self.settings.max_minutes
        by_steps = self.done / steps if steps else 0.0
        return min(max(by_steps, self._seconds / (60 * minutes) if minutes else 0.0), 1.0)

    def _validate(self) -> None:
        """Logs the loss of the weights to sample with on the validation batches, and shows previews.

        Dropout is off and torch's generators are left as they were, so a training does not depend on its validations.
        """
        self._validated_at = self._seconds
        if self._validated_step == self.done or not self.job.validation:
            return
        self._validated_step = self.done
        model = self.job.model
        devices = [self.device] if self.device.type == "cuda" else []
        weights = self.average.swapped_in() if self.average is not None else contextlib.nullcontext()
        with weights, torch.random.fork_rng(devices=devices):
            model.eval()
            values = self._validation_losses()
            lines = self._previews(model)
            model.train()
        if not math.isfinite(values["loss"]):
            raise self._not_finite(f"the validation loss became {values['loss']} at step {self.done}")
        self.validation_loss = values["loss"]
        row = {"step": self.done} | {f"validation_{name}": value for name, value in values.items()}
        self.journal.row(row | {"seconds": round(self._seconds, 2)} | ({"previews": lines} if lines else {}))
        self.progress.say(f"step {self.done}  validation loss {values['loss']:.4f}")
        for line in lines:
            self.progress.say(f"  {line}")

    def _previews(self, model: TrainableModel) -> list[str]:
        """Samples to look at, or why there are none: a training does not end because of them."""
        if self.job.preview is None or self.rank:
            return []
        try:
            return list(self.job.preview(model))
        except UserError as error:
            return [f"no previews: {error}"]

    @torch.no_grad()
    def _validation_losses(self) -> dict[str, float]:
        batches = self.job.validation
        totals = Totals(examples=sum(len(b.row_B) for b in batches), tokens=sum(b.tokens for b in batches))
        rng = Rng(VALIDATION_SEED)
        sums: dict[str, Tensor] = {}
        mine = batches[self.rank :: self.world]
        with self.accelerator.autocast():
            for batch in mine or batches[:1]:  # a process without a batch of its own still names the parts
                part = to_device(StepBatch((batch,), batch.row_B, totals), self.device).parts[0]
                for name, value in self.job.model.loss(part, rng, totals).items():
                    value = value.float() if mine else torch.zeros_like(value, dtype=torch.float32)
                    sums[name] = sums[name] + value if name in sums else value
        return {name: float(self.accelerator.reduce(value, "sum")) for name, value in sums.items()}

    def _save(self, status: str) -> None:
        """Writes the state and the weights to sample with, unless the losses or the weights have gone bad
        (NotFinite): the last update may have spoilt what the loss before it does not show."""
        self._read_losses()
        if not bool(torch.stack([p.detach().isfinite().all() for p in self.job.model.parameters()]).all()):
            raise self._not_finite(f"a weight is not finite after step {self.done}")
        from accelerate.utils import gather_object

        generators = gather_object([state.generator_states(self.device)])
        if self.rank == 0:
            head = {
                "step": self.done, "seconds": self._seconds, "world": self.world, "loss": self.loss,
                "validation_loss": self.validation_loss,
            }  # fmt: skip
            state.save(self.job.folder / "state", self.settings.keep, self.trained, generators, head)
            weights = tensors_of(self.job.model)
            if self.average is not None:
                weights |= {name: value.to(weights[name].dtype) for name, value in self.average.values.items()}
            write_tensors(self.job.folder / WEIGHTS, weights)
            self._write_run(status)
        self._saved_at = self._seconds
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        held, damaged = state.read_newest(self.job.folder / "state", averaged=self.average is not None)
        if held is None:
            return
        head = state.restore(held, self.trained, self.rank, self.device)
        self.accelerator.wait_for_everyone()  # all have read; what nobody can read would hide the states to come
        if self.rank == 0 and damaged:
            print("\n".join(f"diffq: {line}: {held.place.name} is gone on from" for line in damaged), file=sys.stderr)
            state.remove_after(held)
        self.done, self.before = head["step"], head["seconds"]
        self.loss, self.validation_loss = head["loss"], head["validation_loss"]

    def _write_run(self, status: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        own = {
            "status": status, "step": self.done, "max_steps": self.settings.max_steps,
            "max_minutes": self.settings.max_minutes, "seconds": round(self._seconds, 2), "loss": self.loss,
            "validation_loss": self.validation_loss, "processes": self.world, "device": str(self.device),
            "written": now,
        }  # fmt: skip
        self.journal.run(self.job.run | own | ({"finished": now} if status == "done" else {}))
