"""What finished points say about points to come: how fast, how large, and how long answers are.

Points of the same data set, network settings, type of number and device are comparable, whatever their weights and
dials. Reads the store and writes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffq.config import Config, from_mapping
from diffq.errors import UserError
from diffq.runs.planning.clock import Clock, Timing
from diffq.runs.planning.dry import Uncounted
from diffq.runs.planning.forecast import Benches, Lengths, ends_by_itself, reference_lengths
from diffq.runs.planning.memory import offset
from diffq.runs.sampling import device_name
from diffq.runs.workbench import Workbench
from diffq.settings import as_mapping
from diffq.store import Point

_MOST, _MOST_ALIKE = 32, 4  # points that a clock is fitted to, and those of one sampler and kind of draw among them
_SMALL = 0.02  # seconds: what took less says more about the machine's mood


@dataclass(frozen=True)
class Experience:
    """What is known of one network on one device.

    clock    None where no comparable point has been sampled
    device   that the clock's points were sampled on
    besides  bytes that a process takes besides its tensors; None where no point says
    lengths  answers of the same checkpoint to the same sources; None where there is no such point
    """

    clock: Clock | None = None
    device: str = ""
    besides: int | None = None
    lengths: Lengths | None = None


@dataclass
class Experiences:
    """The experience behind each workbench, gathered once."""

    benches: Benches
    config_dirs: Sequence[Path] = ()
    _held: dict[str, Experience] = field(default_factory=dict)

    def __call__(self, config: Config, bench: Workbench, point: Point | None) -> Experience:
        """What comparable points say. point: one of the workbench's, which tells where the others lie; None where the
        network is still to be trained, and then nothing is known."""
        if point is None:
            return Experience()
        key = json.dumps([str(config.checkpoint), as_mapping(config.dataset), config.dtype, str(bench.device),
                          config.split, config.num_sources, str(point.folder.parents[1])])  # fmt: skip
        if key not in self._held:
            self._held[key] = self._gather(config, bench, point)
        return self._held[key]

    def _gather(self, config: Config, bench: Workbench, point: Point) -> Experience:
        here = device_name(bench.device)
        runs = list(comparable(point.folder.parents[1], config.dtype))
        on_device = [(p, run) for p, run in runs if run["device"] == here]
        alike = [(p, run) for p, run in runs if run["device"].split(",")[0] == here.split(",")[0]]
        timings: list[Timing] = []
        peaks: list[tuple[dict[str, Any], int]] = []
        device, seen = here, Counter[str]()
        for p, run in on_device or alike:
            kind = f"{run['sampler']} {run['dials'].get('temperature', 0) != 0} {run['dials'].get('top_p', 1) != 1}"
            if seen[kind] >= _MOST_ALIKE or len(timings) >= _MOST:
                continue
            looked_at = self.look(config, bench.loaded.digest, p, run)
            if looked_at is not None:
                seen[kind] += 1
                device = run["device"]
                timings.append(looked_at[0])
                peaks.append((run, looked_at[1]))
        return Experience(Clock.fitted(timings, device), device, offset(peaks), self._lengths(config, bench, runs))

    def look(self, config: Config, digest: str, point: Point, run: dict[str, Any]) -> tuple[Timing, int] | None:
        """What a point took and held; None for one of other settings, or whose counts are not what its batches ask.

        config, digest: of a point that is planned, and of its checkpoint.
        """
        try:
            sampled = from_mapping(point.config(), config_dirs=self.config_dirs)
            if as_mapping(sampled.model) != as_mapping(config.model):
                return None
            if run.get("checkpoint") == digest:  # wherever its folder was then
                sampled = dataclasses.replace(sampled, checkpoint=config.checkpoint)
            bench = self.benches(sampled)
            expected = answers(point) if ends_by_itself(sampled) else {}
            forecast = self.benches.forecast(sampled, bench, run["batch_tokens"], expected, whole=True)
        except (UserError, Uncounted):
            return None  # its checkpoint or its data are gone, or another version wrote it
        done = forecast.batches_done(int(run.get("rows") or 0))
        counted = forecast.left(0) if done == len(forecast.counts) else sum(forecast.counts[1:done], forecast.counts[0])
        if counted.work is None or forecast.held is None or counted.rows != run["nfe_rows"]:
            return None
        return Timing(counted.work, run["seconds"]), forecast.held

    def _lengths(
        self, config: Config, bench: Workbench, runs: Sequence[tuple[Point, dict[str, Any]]]
    ) -> Lengths | None:
        """The lengths of answers of a point of the same checkpoint, the one that answered most of these sources; None
        for a model that does not decide them."""
        if not ends_by_itself(config):
            return None
        free = bench.asked.length_name(config)
        same = [p for p, run in runs if run.get("length") == free and run.get("checkpoint") == bench.loaded.digest]
        known = [answers(point) for point in same[:_MOST_ALIKE]]
        indices = {e.index for e in bench.examples}
        best = max(known, key=lambda held: len(indices & {source for source, _ in held}), default=None)
        return best if best and indices & {source for source, _ in best} else None


def expected_lengths(config: Config, bench: Workbench, experience: Experience) -> Lengths:
    """How long each answer of a model that ends by itself will be, as far as one can tell; empty for other models.

    Those of a finished point of the same checkpoint, a sample that it lacks taken as long as one that it has; those of
    the references for sources that it lacks.
    """
    if not ends_by_itself(config):
        return {}
    there, references = experience.lengths or {}, reference_lengths(config, bench)
    samples = max((sample for _, sample in there), default=0) + 1
    return {(source, k): there.get((source, k % samples), length) for (source, k), length in references.items()}


def answers(point: Point) -> Lengths:
    return {(row["source"], row["sample"]): len(row["ids"]) for row in point.rows()}


def comparable(model: Path, dtype: str) -> Iterator[tuple[Point, dict[str, Any]]]:
    """The points in a model's folder that have been timed, the newest first, each with its run.json."""
    found = [(path.stat().st_mtime_ns, path) for path in model.glob("*/*/run.json")]
    needed = {"seconds", "nfe_rows", "batch_tokens", "device", "sampler", "dials"}
    for _, path in sorted(found, reverse=True):
        point = Point(path.parent)
        run = point.run()
        if needed <= run.keys() and run.get("dtype") == dtype and run["seconds"] >= _SMALL and run["nfe_rows"]:
            yield point, run
