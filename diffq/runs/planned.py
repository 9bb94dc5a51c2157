"""The points of a sweep before anything is sampled: what each is, where it lies, and the words that make it alone.

Knows no metric and samples nothing.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.config import Config, Request, compose
from diffq.config.files import group_files, read_mapping, search_dirs
from diffq.report.given import Given, asked_of
from diffq.runs.energy import has_energy
from diffq.runs.grid import GridPoint, expand, written
from diffq.runs.trace import is_traced
from diffq.settings import as_mapping
from diffq.store import Point, Store
from diffq.store.point import Busy
from diffq.store.sweeps import PlanRow, SweepFolder

if TYPE_CHECKING:
    from diffq.runs.workbench import Workbenches


def given_in(config: Config) -> Given | None:
    """What is given of a text; None for other tasks."""
    return Given.of(vars(config.dataset))


def asked_in(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Of each configuration the settings of its data set in which they differ."""
    return asked_of([(vars(config.dataset), config.choices.given) for config in configs])


@dataclass(frozen=True)
class Planned:
    """One point of a sweep.

    config     with its checkpoint
    total      how many rows it will have
    overrides  the words of the grid that compose it
    options    the words that give its metrics their options
    """

    config: Config
    point: Point
    overrides: tuple[str, ...]
    total: int
    options: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether all rows, traces and energies that this sweep asks for are on disk."""
        if self.point.status(self.total) != "done":
            return False
        return is_traced(self.point, self.config.trace) and has_energy(self.point, self.config)

    def plan_row(self) -> PlanRow:
        config = self.config
        assert self.point.identity is not None
        return PlanRow(
            key=self.point.identity.key,
            folder=Store(Path(config.outputs)).relative(self.point.folder),
            sampler=config.choices.sampler,
            samples=config.num_samples,
            metric=",".join(config.choices.metric),
            options=self.options,
        )


def planned_points(request: Request, benches: Workbenches | None = None) -> tuple[list[Planned], SweepFolder]:
    """The sweep's points in the order of its grid, and the sweep's folder, which nothing is written to yet.

    Every point is typed and checked; checkpoints are found, or trained, here. benches: where loaded ones are kept.
    """
    points = expand(request.overrides, config_dirs=request.config_dirs)
    from diffq.runs.workbench import Workbenches, with_checkpoint

    benches = benches or Workbenches()
    options = metric_options(points[0].config, request.config_dirs)  # one sweep has one suite
    planned = []
    for grid_point in points:
        config = with_checkpoint(grid_point.config)
        bench = benches(config)
        bench.sources  # noqa: B018 - a source that is too long is refused before the first point starts
        point = Store(Path(config.outputs)).point(bench.identity(config))
        total = config.num_samples * len(bench.examples)
        planned.append(Planned(config, point, grid_point.overrides, total, options))
    return planned, SweepFolder(Store(Path(planned[0].config.outputs)).sweeps / sweep_name(points))


def metric_options(config: Config, config_dirs: Sequence[Path] = ()) -> tuple[str, ...]:
    """The words that give the metrics of a configuration the options that they have there, an experiment's among
    them, and the sweep its axes."""
    files, suite = group_files("metric", search_dirs(config_dirs)), config.metric
    words = [f"metric.{axis}={name}" for axis, name in (("x", suite.x), ("y", suite.y)) if name]
    for name, metric in zip(suite.names, suite.metrics, strict=True):
        held = read_mapping(files[name]) if name in files else {}  # a plugin's needs no file
        changed = {f.name: getattr(metric, f.name) for f in fields(metric)}
        changed = {k: v for k, v in changed.items() if v != held.get(k, getattr(type(metric), k, None))}
        words += [written(f"metric.{name}.{k}", v) for k, v in changed.items()]
    return tuple(words)


def sweep_name(points: Sequence[GridPoint]) -> str:
    """The experiment's name, or `<dataset>-<samplers>`."""
    first = points[0].config.choices
    if first.experiment:
        return first.experiment
    datasets = dict.fromkeys(p.config.choices.dataset for p in points)
    samplers = dict.fromkeys(p.config.choices.sampler for p in points)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{'-'.join(datasets)}-{'-'.join(samplers)}")[:100]


def write_configs(waiting: Sequence[Planned]) -> None:
    """Every point's config.yaml, which is all that a worker is given; a point that is being sampled has its own."""
    for planned in waiting:
        while True:
            try:
                with planned.point.claim() as claim:
                    claim.write_config(as_mapping(planned.config))
                break
            except Busy:  # by somebody who writes this file first of all, or dies
                if (planned.point.folder / "config.yaml").exists():
                    break
                time.sleep(0.02)


def alone(planned: Planned, config_dirs: Sequence[Path] = ()) -> str:
    """The command that samples this point alone: same checkpoint, same folder, quoted for a shell.

    What the grid's words do not say by themselves is added: the checkpoint, and the sizes and the tokenizer that this
    was trained with.
    """
    words = list(planned.overrides)
    composed = _flat(as_mapping(compose(words, verb="sample", config_dirs=config_dirs)))
    wanted = _flat(as_mapping(planned.config))
    for key, value in wanted.items():
        if not key.startswith("choices.") and composed.get(key) != value:
            words.append(written(key, value))
    folders = [word for folder in config_dirs for word in ("--config-dir", str(folder))]
    return shlex.join(["diffq", "sample", *words, *folders])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model.width": 32}` of nested mappings; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
