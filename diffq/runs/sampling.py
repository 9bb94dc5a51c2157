"""Sampling one point: batch after batch into the store, so that a killed run goes on where it was.

Knows no metric and no sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffq.config import Config
from diffq.data.canvases import Batch
from diffq.diffusion.contracts import Canvas, Meter, OnStep, Step
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.runs.energy import record_energy
from diffq.runs.trace import trace_point
from diffq.runs.training_names import name_of
from diffq.runs.workbench import Workbench
from diffq.samplers.base import Sampler
from diffq.settings import as_mapping
from diffq.store.point import Claim, Point
from diffq.store.root import Store

_COUNTS = ("seconds", "nfe_calls", "nfe_rows", "positions_projected", "tokens")


@dataclass(frozen=True)
class Progress:
    """How far a point is: rows on disk out of all, and seconds of sampling so far."""

    rows: int
    total: int
    seconds: float


OnProgress = Callable[[Progress], None]


def sample_point(
    config: Config,
    bench: Workbench,
    *,
    wait: bool = False,
    on_progress: OnProgress | None = None,
    on_step: OnStep | None = None,
) -> Point:
    """The point of a configuration with all its rows on disk; what is there already is not sampled again.

    wait: sleep while another process has the point, instead of raising Busy.
    """
    point = Store(Path(config.outputs)).point(bench.identity(config))
    _fill(point, config, bench, wait, on_progress, on_step)
    trace_point(config, bench, point)
    record_energy(config, bench, point)
    return point


def _fill(
    point: Point, config: Config, bench: Workbench, wait: bool, on_progress: OnProgress | None, on_step: OnStep | None
) -> None:
    """Samples the rows that are not there yet."""
    total = config.num_samples * len(bench.examples)
    if point.status(total) == "done":
        return
    with point.claim(wait=wait) as claim:
        if point.status(total) == "done":  # by whoever held it while we waited
            return
        earlier = point.run()
        batch_tokens = earlier.get("batch_tokens") or bench.batch_tokens(config)
        batches = bench.plan(config, batch_tokens)
        done = claim.resume([len(b.rows) for b in batches], recorded=earlier.get("rows", 0))
        claim.write_config(as_mapping(dataclasses.replace(config, batch_tokens=batch_tokens)))
        spent = {name: earlier.get(name, 0) for name in _COUNTS} if done else dict.fromkeys(_COUNTS, 0)
        about = {
            "samples": config.num_samples,
            "sources": len(bench.examples),
            "batch_tokens": batch_tokens,  # a resumed run must make the same batches, whatever the default has become
            "device": device_name(bench.device),
            "checkpoint_folder": str(config.checkpoint),
            "training": name_of(bench.loaded.config, config.choices.dataset),
            "asked": config.choices.sampler or config.sampler.kind,  # `cfg`, of a point that is stored under its solver
        }
        about["by_samples"] = _kept_marks(earlier, sum(len(b.rows) for b in batches[:done]))
        claim.record(spent | about)
        _sample_batches(config, bench, claim, batches[done:], spent, about, on_progress, on_step)
        about |= _mean_records(point, total) if config.sampler.records else {}
        claim.finish(spent | about | {"peak_memory_bytes": peak_memory(bench.device)})


def _kept_marks(earlier: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """What the first sample of every source cost, what the first two did, …: of those whose rows are still there.

    So the first samples of a point that was extended, or is being extended, keep their own cost.
    """
    marks = dict(earlier.get("by_samples", {}))
    if earlier.get("status") == "done" and "bytes" in earlier:
        about = {name: earlier.get(name, 0) for name in _COUNTS}
        marks.setdefault(str(earlier["samples"]), {"rows": earlier["rows"], "bytes": earlier["bytes"]} | about)
    return {samples: mark for samples, mark in marks.items() if mark["rows"] <= rows}


def _sample_batches(
    config: Config,
    bench: Workbench,
    claim: Claim,
    batches: list[Batch],
    spent: dict[str, Any],
    about: dict[str, Any],
    on_progress: OnProgress | None,
    on_step: OnStep | None,
) -> None:
    """Samples the batches that are not there yet, adds up what they cost in `spent`, and records it after each."""
    total = config.num_samples * len(bench.examples)
    watch_memory(bench.device)
    for batch in batches:
        meter = Meter(bench.denoiser)
        began = time.perf_counter()
        canvas = bench.canvas(batch)
        records = _Records(config.sampler, on_step)
        filled = config.sampler(meter, canvas, Rng(config.seed), records.on_step).cut_at_end()
        require_numbers(meter, config)
        rows = _rows(batch, bench, filled, meter.row_nfe_B, config.sampler.takes_length)  # waits for the device
        rows = records.into(rows)
        spent["seconds"] += time.perf_counter() - began
        spent["nfe_calls"] += meter.nfe_calls
        spent["nfe_rows"] += meter.nfe_rows
        spent["positions_projected"] += meter.positions_projected
        spent["tokens"] += sum(len(row["ids"]) for row in rows)
        claim.append(rows)
        if (batch.first + len(rows)) % len(bench.examples) == 0:  # every source has one sample more
            about["by_samples"][str(batch.rows[-1].sample + 1)] = claim.place | spent
        claim.record(spent | about)
        if on_progress is not None:
            on_progress(Progress(batch.first + len(rows), total, spent["seconds"]))


class _Records:
    """Listens to the steps of a batch and keeps the mean of some of their statistics, of some their sum too, row by
    row. Never waits for the device before the end."""

    def __init__(self, sampler: Sampler, then: OnStep | None):
        self.names, self.totals, self.then = sampler.records, sampler.totals, then
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, torch.Tensor] = {}

    @property
    def on_step(self) -> OnStep | None:
        return self._listen if self.names else self.then

    def _listen(self, step: Step) -> None:
        for name in self.names:
            if name in step.stats:
                value_B = step.stats[name].double()
                known_B = ~value_B.isnan()
                self.sums[name] = self.sums.get(name, 0.0) + value_B.nan_to_num(0.0)
                self.counts[name] = self.counts.get(name, 0) + known_B.long()
        if self.then is not None:
            self.then(step)

    def into(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with their means and sums under `stats`; without where no step had such a statistic."""
        found: list[dict[str, float]] = [{} for _ in rows]
        for name in self.sums:
            told = zip(found, self.sums[name].tolist(), self.counts[name].tolist(), strict=True)
            for stats, total, count in told:
                if count:
                    stats[name] = float(f"{total / count:.6g}")
                if count and name in self.totals:
                    stats[f"{name}_in_all"] = float(f"{total:.6g}")
        return [row | ({"stats": stats} if stats else {}) for row, stats in zip(rows, found, strict=True)]


def _mean_records(point: Point, rows: int) -> dict[str, Any]:
    """The means over all rows of a point of what its rows keep, for run.json."""
    held: dict[str, list[float]] = {}
    for row in point.rows(rows):
        for name, value in row.get("stats", {}).items():
            held.setdefault(name, []).append(value)
    return {"records": {name: sum(values) / len(values) for name, values in held.items()}}


def require_numbers(meter: Meter, config: Config) -> None:
    """UserError where the network that a meter wraps has given anything that is no number. Waits for the device."""
    if not bool(meter.finite):
        raise UserError(
            f"the network of {config.checkpoint} gives values that are no numbers; its weights are bad, or too"
            f" large for dtype={config.dtype}"
        )


def _rows(
    batch: Batch, bench: Workbench, filled: Canvas, nfe_B: torch.Tensor, takes_length: bool
) -> list[dict[str, Any]]:
    """The rows of samples.jsonl. `ended` is False where a model that ends by itself ran out of canvas."""
    ids = [tokens[valid].tolist() for tokens, valid in zip(filled.tokens_BL.cpu(), filled.valid_BL.cpu(), strict=True)]
    written = bench.asked.written(batch.rows, ids[: len(batch.rows)], takes_length and filled.end is None)
    nfe = nfe_B.tolist()
    return [
        {
            "row": batch.first + i,
            "source": row.source,
            "sample": row.sample,
            **bench.asked.row(row),
            "ids": answer.ids,
            "text": answer.text,
            "ended": answer.ended,
            "nfe": nfe[i],
        }
        for i, (row, answer) in enumerate(zip(batch.rows, written, strict=True))
    ]


def watch_memory(device: torch.device) -> None:
    """Peaks are counted from here on. Linux can forget the process's own; elsewhere `peak_memory` is that since the
    process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, the largest resident size of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: torch.device) -> str:
    """What a table calls the device: the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
