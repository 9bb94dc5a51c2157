"""`diffq rerun`: points sampled once more from what their own records say, and compared with what they were.

The point stays as it is. Its repetition lies in a store of its own, outputs/reruns/COMMIT-HASH, where HASH stands for
the code, the versions and the device it is repeated with: the same command goes on with what was cut off, and what is
finished is not sampled again unless that is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffq
from diffq.config import Config, Request, compose
from diffq.config.options import Options
from diffq.errors import UserError
from diffq.metrics.evaluate import evaluate, to_json, usable
from diffq.report.tables import print_table, show_interval
from diffq.runs.grid import written
from diffq.runs.judging import Judges
from diffq.runs.progress import point_progress
from diffq.runs.repetition import (
    Change,
    Repetition,
    changes,
    compare_costs,
    compare_metrics,
    compare_rows,
    one_line,
    promised,
)
from diffq.runs.sampling import device_name, sample_point
from diffq.runs.selection import outputs_of, select
from diffq.runs.workbench import Workbench, Workbenches
from diffq.store import Point, Store
from diffq.store.identity import digest
from diffq.store.versions import versions

_SETTINGS = ("device", "batch_tokens", "outputs")


@dataclass(frozen=True)
class Task:
    """One point that can be repeated: its configuration, with what it is sampled with, and what is not as it was."""

    point: Point
    run: Mapping[str, Any]
    config: Config
    bench: Workbench
    before: tuple[Change, ...]
    now: Mapping[str, Any]


def run(request: Request) -> int:
    """Repeats the runs that were named and says how they compare.

    Returns 0 where every row is what it was, or as nearly as has to be on another machine (`repetition.promised`), 1
    where one point differs more. A point that cannot be repeated is a UserError; among several the others are
    repeated, and the status is 2.
    """
    store, settings = Store(outputs_of(request)), _settings(request)
    if not request.runs:
        raise UserError("rerun needs to know what to repeat: a point's folder, or a sweep's")
    points = select(store, request.runs).points
    judges, benches = Judges(store, request.config_dirs), Workbenches()
    found: list[Repetition] = []
    refused: list[dict[str, str]] = []
    for point in points:
        name = store.relative(point.folder)
        try:
            task = prepare(point, judges, benches, settings)
            if not request.json:
                print(f"{name}\n  {one_line(task.before) or _as_recorded(task)}", flush=True)
            repetition = repeat(task, store, judges, again=request.flags.again, quiet=request.json)
        except UserError as error:
            if len(points) == 1:
                raise
            refused.append({"point": name, "refused": str(error)})
            print(f"diffq: {error}", file=sys.stderr)
            continue
        found.append(repetition)
        if not request.json:
            _print(repetition, task)
    if request.json:
        print(json.dumps([*(r.as_json() for r in found), *refused], indent=1, ensure_ascii=False))
    elif len(points) > 1:
        counts = [f"{sum(r.verdict == v for r in found)} {v}" for v in ("identical", "as promised", "different")]
        print(f"{len(points)} points: {', '.join(counts)}, {len(refused)} refused")
    return 2 if refused else int(any(r.verdict == "different" for r in found))


def _as_recorded(task: Task) -> str:
    changed = str(task.now["versions"].get("commit", "")).endswith("+")
    return f"as recorded: the same commit{' (and changes to it, then and now)' if changed else ''}, versions and device"


def _settings(request: Request) -> dict[str, Any]:
    """What may be said about how a point is repeated. UserError for everything that its record decides."""
    made: dict[str, Any] = {}
    for word in request.overrides:
        key, _, value = word.partition("=")
        if key not in _SETTINGS:
            allowed = ", ".join(f"{name}=" for name in _SETTINGS)
            raise UserError(f"{word}: a rerun repeats what the record says; only {allowed} can be given")
        if key == "batch_tokens" and not (value.isdigit() and int(value)):
            raise UserError(f"{word}: batch_tokens must be a whole number, at least 1")
        if key != "outputs":
            made[key] = int(value) if key == "batch_tokens" else value
    return made


def prepare(point: Point, judges: Judges, benches: Workbenches, settings: Mapping[str, Any]) -> Task:
    """What repeating a point takes, loaded. UserError where it is no finished point, where its checkpoint is gone or
    is another now, and where its sources or references are others."""
    run = point.run()
    if "step" in run and "key" not in run:
        words = f"diffq train model={run.get('model')} dataset={run.get('dataset')} outputs=ELSEWHERE"
        raise UserError(f"{point.folder} is a training; rerun repeats points, and `{words}` trains such a model again")
    if point.status() != "done":
        raise UserError(f"{point.folder} is no finished point; diffq sample or diffq sweep finishes it first")
    config = judges.config(point)
    folder = _checkpoint(config, point, judges.store)
    if folder is None:
        raise UserError(
            f"{point.folder} cannot be repeated: its checkpoint {config.checkpoint} is gone; put it back under"
            f" {judges.store.train}"
        )
    changed: dict[str, Any] = {"num_samples": int(run["samples"]), "batch_tokens": run.get("batch_tokens")} | dict(
        settings
    )
    config = dataclasses.replace(config, checkpoint=str(folder), **changed)
    bench = benches(config)
    identity = bench.identity(config)
    if run.get("checkpoint") != identity.checkpoint:
        raise UserError(
            f"{point.folder} cannot be repeated: the checkpoint {folder} is another than it was sampled from"
            f" (digest {identity.checkpoint[:12]}, recorded {str(run.get('checkpoint'))[:12]})"
        )
    if run.get("sources_digest") != identity.sources:
        raise UserError(
            f"{point.folder} cannot be repeated: the split {config.split} of {run.get('dataset')} has other sources or"
            f" references than it had (digest {identity.sources[:12]}, recorded {str(run.get('sources_digest'))[:12]})"
        )
    now = {"versions": versions(), "device": device_name(bench.device), "batch_tokens": bench.batch_tokens(config)}
    return Task(point, run, config, bench, tuple(changes(run, now, identity)), now)


def _checkpoint(config: Config, point: Point, store: Store) -> Path | None:
    """The point's checkpoint, in the store that is used or in the one that the point lies in."""
    own = [Store(place.parent) for place in point.folder.resolve().parents if place.name == "points"]
    found = (s.checkpoint(config.checkpoint) for s in (store, *own) if config.checkpoint)
    return next((folder for folder in found if folder), None)


def repeat(task: Task, store: Store, judges: Judges, *, again: bool = False, quiet: bool = False) -> Repetition:
    """Samples the point into a store of its own, as far as that has not been done yet, scores it and compares."""
    place = _place(task, store, again)
    config = dataclasses.replace(task.config, outputs=str(place.outputs))
    with point_progress("repeating", quiet) as on_progress:
        rerun = sample_point(config, task.bench, wait=True, on_progress=on_progress)
    total = int(task.run["samples"]) * len(task.bench.examples)
    _score(task, rerun, judges)
    metrics, missing = compare_metrics(task.point, rerun)
    return Repetition(
        point=store.relative(task.point.folder),
        rerun=store.relative(rerun.folder),
        before=task.before,
        rows=compare_rows(task.point, rerun, total),
        needed=promised(task.run),
        metrics=tuple(metrics),
        not_compared=tuple(missing),
        costs=tuple(compare_costs(task.run, rerun.run())),
    )


def _place(task: Task, store: Store, again: bool) -> Store:
    """The store that the repetition belongs into: that of its code, versions, device and batches. Several repetitions
    of one point are numbered; the newest one counts, and `again` begins the next one when that is finished."""
    about = dict(task.now) | {"code": _code(task.config)}
    name = f"{task.now['versions'].get('commit', diffq.__version__)[:7]}-{digest(about)[:8]}"
    identity = task.bench.identity(task.config)
    number, newest = 1, Store(store.outputs / "reruns" / name)
    while True:
        place = Store(store.outputs / "reruns" / (name if number == 1 else f"{name}-{number}"))
        status = place.point(identity).status()
        if status == "absent":
            return place if again or number == 1 else newest
        if status == "partial":
            return place
        number, newest = number + 1, place


def _code(config: Config) -> str:
    """A digest of the source of diffq, and of the modules that a user's own components come from: a commit does not
    say what was changed since."""
    package = Path(diffq.__file__).parent
    own = {Path(inspect.getfile(type(part))) for part in (config.sampler, config.model, config.dataset)}
    files = [*sorted(package.rglob("*.py")), *sorted(path for path in own if not path.is_relative_to(package))]
    total = hashlib.sha256()
    for path in files:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _score(task: Task, rerun: Point, judges: Judges) -> None:
    """Gives the repetition the scores that the point has: those of its own metrics, and of others by their names."""
    held, there = task.point.metrics(), rerun.metrics()
    wanted = {signature: str(score.get("name")) for signature, score in held.items() if signature not in there}
    if not wanted:
        return
    answers = judges.answers(rerun)
    metrics = list(task.config.metric.metrics)
    names = set(wanted.values()) - {metric.name for metric in metrics}
    options = Options(judges.config_dirs)
    if known := sorted(name for name in names if options.has("metric", name)):
        words = [f"dataset={task.config.choices.dataset}", f"num_samples={answers.samples}"]
        words.append(f"metric={','.join(known)}")
        if keywords := getattr(task.config.dataset, "keywords", 0):
            words.append(written("dataset.keywords", keywords))
        metrics += compose(words, verb="score", config_dirs=judges.config_dirs).metric.metrics
    kept, _ = usable(metrics, answers.given(), answers.samples)
    chosen = {metric.signature(answers): metric for metric in kept}
    scores = evaluate([metric for signature, metric in chosen.items() if signature in wanted], answers)
    statistics = {s.signature: s.per_source for s in scores if s.per_source is not None}
    rerun.write_metrics(to_json(scores), statistics)


def _print(found: Repetition, task: Task) -> None:
    rows, texts = found.rows, {e.index: e.source for e in task.bench.examples}
    share = f"{rows.equal} of {rows.total} rows equal"
    if not rows.identical:
        tokens = 100 * rows.tokens_equal / rows.tokens if rows.tokens else 100.0
        share += f" ({100 * rows.share:.2f} %), {tokens:.2f} % of the tokens"
    print(f"  {found.verdict}: {share}{_why(found)}")
    for one in rows.differing:
        print(f"    row {one.row}, sample {one.sample} of source {one.source}: {texts.get(one.source, '')}")
        print(f"      was  {one.was}\n      now  {one.now}")
    if not rows.identical and found.metrics:
        cells = [
            [m.name, f"{m.was:.4g}", f"{m.now:.4g}", show_interval(m.now - m.was, m.low, m.high, signed=True)]
            for m in found.metrics
        ]
        print_table("", ["metric", "was", "now", "difference"], cells)
    elif found.metrics:
        moved = ", ".join(m.name for m in found.metrics if m.was != m.now)
        print(f"  {len(found.metrics)} metrics: {f'other values for {moved}' if moved else 'the same values'}")
    for signature in found.not_compared:
        print(f"  not compared: {signature}, which this code does not compute from these samples")
    print(f"  {one_line(found.costs)}")
    print(f"  {found.rerun}", flush=True)


def _why(found: Repetition) -> str:
    """What was to be expected, where the rows are not the same."""
    if found.rows.identical:
        return ", byte for byte"
    if found.needed is None:
        return "; in this precision nothing is promised across machines"
    said = f"; {100 * found.needed:g} % are promised across machines and versions"
    return said if found.before else f"{said}, and all of them on the same machine"
