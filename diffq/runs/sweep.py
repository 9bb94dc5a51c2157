"""`diffq sweep`: a grid of points, sampled, scored and seen as a frontier.

Every point is typed and checked before the first starts. Finished points are not computed again; a sweep that was cut
off goes on where it was. Knows no sampler and no metric.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffq.config import Config, Request
from diffq.config.sections import TrackerSettings
from diffq.runs.grid import GridPoint, expand
from diffq.runs.launch import Result, launch, run_points, uses_launcher
from diffq.settings import as_mapping
from diffq.store import Point, Store
from diffq.store.point import Busy
from diffq.store.sweeps import PlanRow, SweepFolder

if TYPE_CHECKING:
    from diffq.runs.sampling import OnProgress, Progress


@dataclass(frozen=True)
class Planned:
    """One point of the sweep: what it is, where it lies, and how the user called its sampler."""

    config: Config
    point: Point
    overrides: tuple[str, ...]


def run(request: Request) -> int:
    """Samples, scores and reports the grid. Returns 0, or 1 where a point failed."""
    if request.flags.plan:
        from diffq.runs import plan

        return plan.run(request)
    points = expand(request.overrides, config_dirs=request.config_dirs)
    say = _Teller(request.json)
    planned, totals = _plan(points)
    sweep = SweepFolder(Store(Path(planned[0].config.outputs)).sweeps / sweep_name(points))
    waiting = [p for p, total in zip(planned, totals, strict=True) if p.point.status(total) != "done"]
    waiting = list({p.point.folder: p for p in waiting}.values())
    say.line(f"{sweep.folder}: {len(planned)} points, {len(planned) - len(waiting)} of them done already")
    _write_configs(waiting)
    sweep.write([_plan_row(p) for p in planned])
    results = _sample(waiting, request, sweep, say)
    failed = [r for r in results if r.outcome != "done"]
    _finish(request, sweep, points[0].config.tracker, len(failed) < len(planned))
    for result in failed:
        words = next(p.overrides for p in waiting if str(p.point.folder) == result.folder)
        print(f"\n{result.folder} failed:\n{result.error.rstrip()}", file=sys.stderr)
        print(f"repeat it alone: diffq sample {' '.join(words)}", file=sys.stderr)
    return 1 if failed else 0


def sweep_name(points: Sequence[GridPoint]) -> str:
    """The experiment's name, or `<dataset>-<samplers>`."""
    first = points[0].config.choices
    if first.experiment:
        return first.experiment
    datasets = dict.fromkeys(p.config.choices.dataset for p in points)
    samplers = dict.fromkeys(p.config.choices.sampler for p in points)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{'-'.join(datasets)}-{'-'.join(samplers)}")[:100]


def _plan(points: Sequence[GridPoint]) -> tuple[list[Planned], list[int]]:
    """Every point with its folder, and how many rows each will have. Checkpoints are found, or trained, here."""
    from diffq.runs.workbench import Workbenches, with_checkpoint

    benches = Workbenches()
    planned, totals = [], []
    for grid_point in points:
        config = with_checkpoint(grid_point.config)
        bench = benches(config)
        bench.sources  # noqa: B018 - a source that is too long is refused before the first point starts
        point = Store(Path(config.outputs)).point(bench.identity(config))
        planned.append(Planned(config, point, grid_point.overrides))
        totals.append(config.num_samples * len(bench.examples))
    return planned, totals


def _write_configs(waiting: Sequence[Planned]) -> None:
    """Every point's config.yaml, which is all that a worker is given; a point that is being sampled has its own."""
    for planned in waiting:
        try:
            with planned.point.claim() as claim:
                claim.write_config(as_mapping(planned.config))
        except Busy:
            continue


def _plan_row(planned: Planned) -> PlanRow:
    config = planned.config
    assert planned.point.identity is not None
    folder = Store(Path(config.outputs)).relative(planned.point.folder)
    return PlanRow(
        key=planned.point.identity.key,
        folder=folder,
        sampler=config.choices.sampler,
        samples=config.num_samples,
        metric=",".join(config.choices.metric),
    )


def _sample(waiting: Sequence[Planned], request: Request, sweep: SweepFolder, say: _Teller) -> list[Result]:
    """Samples what is not there yet; points that another process has are waited for at the end."""
    folders = [str(p.point.folder) for p in waiting]
    if not folders:
        return []
    if uses_launcher(request.overrides):
        results = launch(folders, request.overrides, request.config_dirs, sweep.folder)
        for result in results:
            say.point(result, len(folders))
    else:
        results = run_points(
            folders,
            request.config_dirs,
            on_point=lambda r: say.point(r, len(folders)),
            on_progress=say.progress,
        )
    busy = [r.folder for r in results if r.outcome == "busy"]
    if busy:
        say.line(f"waiting for {len(busy)} points that another process is sampling")
        again = run_points(busy, request.config_dirs, wait=True, on_point=lambda r: say.point(r, len(folders)))
        results = [r for r in results if r.outcome != "busy"] + again
    return results


def _finish(request: Request, sweep: SweepFolder, settings: TrackerSettings, any_done: bool) -> None:
    """Scores, reports and logs the sweep."""
    if not any_done:
        return
    from diffq.runs.judging import Judges
    from diffq.runs.report import make_report, print_report
    from diffq.runs.score import config_for, score_points
    from diffq.runs.selection import select
    from diffq.runs.tracking import open_tracker

    store = Store(sweep.folder.parent.parent)
    selection, _ = select(store, [sweep.folder]).finished()
    judges = Judges(store, request.config_dirs)
    config = config_for(_without_grid(request), selection, judges)
    for line in config.metric.left_out:
        print(f"diffq: {line}", file=sys.stderr)
    score_points(selection, config.metric.metrics, judges)
    report = make_report(selection, config, judges)
    if request.json:
        print(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    else:
        print_report(report)
    with open_tracker(settings, store.outputs) as tracker:
        for point in selection.points:
            tracker.point(point.folder)
        tracker.sweep(sweep.folder, report.frontier.x, report.frontier.y)


def _without_grid(request: Request) -> Request:
    """The request with those words alone that scoring takes: the axes of the grid are in the plan."""
    kept = tuple(w for w in request.overrides if w.startswith(("metric=", "metric.", "outputs=", "plugins=", "paper=")))
    return dataclasses.replace(request, overrides=kept)


class _Teller:
    """What a sweep says while it runs, to stderr: a bar for the point at work, a line for each that is done."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.done = 0
        self._began = time.monotonic()

    def line(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def point(self, result: Result, total: int) -> None:
        if result.outcome == "busy":
            return
        self.done += 1
        run = Point(Path(result.folder)).run()
        name = "/".join(Path(result.folder).parts[-2:])
        took = f"{run.get('seconds', 0):.1f} s" if result.outcome == "done" else "failed"
        self.line(f"[{self.done}/{total}] {name}  {took}")

    def progress(self, folder: str) -> OnProgress | None:
        """A callback that keeps one line of the terminal up to date; None where there is no terminal."""
        if self.quiet or not sys.stderr.isatty():
            return None
        name = "/".join(Path(folder).parts[-2:])

        def show(progress: Progress) -> None:
            rate = progress.rows / progress.seconds if progress.seconds else 0.0
            left = (progress.total - progress.rows) / rate if rate else 0.0
            text = f"{name}  {progress.rows}/{progress.total} rows  {rate:.1f}/s  {left:.0f} s left"
            print(f"\r\x1b[K{text[:150]}", end="\r\x1b[K" if progress.rows >= progress.total else "", file=sys.stderr)

        return show
