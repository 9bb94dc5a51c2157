"""`diffq score`: metrics of saved samples, of points or of a whole sweep, merged into their metrics.json.

Knows no network: it reads samples.jsonl, and of a checkpoint the tokenizer alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.config import Config, Request, compose
from diffq.errors import UserError
from diffq.interrupts import reaching
from diffq.metrics.base import Answers, Metric
from diffq.metrics.evaluate import available, evaluate, refusal, to_json, usable
from diffq.report.tables import print_table, show_interval
from diffq.runs.grid import written
from diffq.runs.judging import Judges
from diffq.runs.selection import Selection, outputs_of, select
from diffq.store import Point, Store
from diffq.store.scores import ScoreFiles

if TYPE_CHECKING:
    from diffq.data.task import DatasetSettings


@dataclass(frozen=True)
class Scored:
    """A point with the scores that were asked for, as metrics.json holds them, and how many of them are new."""

    point: Point
    scores: dict[str, dict[str, Any]]
    new: int


def run(request: Request) -> int:
    """Scores what the command line names and prints a table. Returns 0, or 1 where a point of several failed, which
    keeps no other from being scored."""
    store = Store(outputs_of(request))
    if given := getattr(request.flags, "answers", None):
        return _run_given(request, given[-1])
    selection = select(store, request.runs)
    done, left_out = selection.finished()
    if left_out:
        print(f"diffq: {left_out} unfinished of {len(selection.chosen)} points left out", file=sys.stderr)
    if not done.chosen:
        raise UserError("none of these points is finished; sample them first")
    judges = Judges(done.store, request.config_dirs)
    suite = config_for(request, done, judges).metric
    for line in suite.left_out:
        print(f"diffq: {line}", file=sys.stderr)
    told: list[tuple[int, int]] = []

    def tell(number: int, total: int, scored: Scored) -> None:
        told.append((number, total))
        if not request.json:
            _tell(number, total)

    failed: list[UserError] = []
    with reaching(lambda: "{} of {} points are scored".format(*(told[-1] if told else (0, len(done.chosen))))):
        scored = score_points(done, suite.metrics, judges, on_point=tell, on_failed=failed.append)
    if not scored:
        raise failed[0]
    if request.json:
        found = [{"folder": store.relative(s.point.folder), "metrics": s.scores} for s in scored]
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print_table("", *_table(store, scored))
    for error in failed:
        print(f"diffq: {error}", file=sys.stderr)
    return 1 if failed else 0


def _run_given(request: Request, given: str) -> int:
    """Scores answers that were given instead of a point's, and returns 0."""
    from diffq.runs.given import score_given

    if request.runs:
        raise UserError(f"--answers {given} are scored instead of a point's samples; leave out {request.runs[0]}")
    folder, scores, left_out = score_given(request, given)
    for line in left_out:
        print(f"diffq: {line}", file=sys.stderr)
    if request.json:
        print(json.dumps([{"folder": str(folder), "metrics": scores}], indent=1, ensure_ascii=False))
    else:
        print_table("", *_table(Store(outputs_of(request)), [Scored(Point(folder), scores, len(scores))]))
    return 0


def config_for(request: Request, selection: Selection, judges: Judges) -> Config:
    """What the words ask for, for the dataset of these points: the metrics that `metric=` names, else those that the
    sweep was made with, else the dataset's own.

    A metric that the dataset or the number of samples cannot feed is refused here, before a sample is read, and one
    that cannot be computed on this machine, unless scores are only to be read (`report`). UserError where the points
    are of several datasets and the metrics differ.
    """
    fewest = min(int(c.samples or c.point.run().get("samples") or 1) for c in selection.chosen)
    configs = [judges.config(point) for point in selection.points]
    return config_of(request, configs, selection.metric, selection.options, fewest, judges)


def config_of(
    request: Request,
    configs: Sequence[Config],
    metric: str,
    options: Sequence[str],
    fewest: int,
    judges: Judges | None = None,
) -> Config:
    """The same for points whose configurations are known, with at least `fewest` samples a source.

    metric, options: the suite and what its metrics have been told, where the words name none. judges: are told what the
    words say of grading.
    """
    words = [word for word in request.overrides if word.partition("=")[0] not in ("dataset", "num_samples", "outputs")]
    if not any(word.startswith("metric=") for word in words) and metric:
        given = {word.partition("=")[0] for word in words}
        words += [f"metric={metric}", *(word for word in options if word.partition("=")[0] not in given)]
    datasets: dict[str, Config] = {}
    for config in sorted(configs, key=lambda c: not getattr(c.dataset, "keywords", 0)):  # they can feed more metrics
        datasets.setdefault(config.choices.dataset or config.dataset.kind, config)
    asked = [
        compose(
            [*words, f"dataset={name}", f"num_samples={fewest}", *_asked(config)],
            verb="report" if request.verb == "report" else "score",
            config_dirs=request.config_dirs,
        )
        for name, config in datasets.items()
    ]
    if judges is not None:
        for config in asked:
            judges.settle(config)
    if any(config.metric.metrics != asked[0].metric.metrics for config in asked):
        raise UserError(
            f"these points are of {' and '.join(datasets)}, which are measured differently; name one suite: metric=text"
        )
    return asked[0]


def _asked(config: Config) -> list[str]:
    """The words that say how many sources were asked, what of running text, and what keywords: they decide what metrics
    can be fed."""
    names: tuple[str, ...] = ("block", "prefix", "suffix", "keep", "windows") if config.dataset.task == "text" else ()
    names += ("keywords",) if getattr(config.dataset, "keywords", 0) else ()
    words = [written(f"dataset.{name}", getattr(config.dataset, name)) for name in names]
    return [*words, written("num_sources", config.num_sources)]


def score_points(
    selection: Selection,
    metrics: Sequence[Metric],
    judges: Judges,
    on_point: Callable[[int, int, Scored], None] | None = None,
    on_failed: Callable[[UserError], None] | None = None,
) -> list[Scored]:
    """Scores every point of a selection, each once, and keeps that in its folder (`keep_scores`).

    UserError, before anything is computed, for a metric whose package is missing, and before a point is scored, for
    one that it cannot feed. on_failed: is told instead of what one point fails of, and the others are scored.
    """
    check_available(metrics)
    found: dict[tuple[Path, int], Scored] = {}
    jobs = {(c.point.folder.resolve(), c.samples): c for c in selection.chosen}
    for number, (key, chosen) in enumerate(jobs.items(), start=1):
        try:
            found[key] = _score(chosen.point, metrics, judges, chosen.samples)
        except UserError as error:
            if on_failed is None:
                raise
            on_failed(error)
            continue
        if on_point:
            on_point(number, len(jobs), found[key])
    return list(found.values())


def check_available(metrics: Sequence[Metric], datasets: Iterable[DatasetSettings] = ()) -> None:
    """UserError for a metric whose package is missing, or whose model cannot be had; and where it needs verdicts on
    answers to one of these datasets, which cannot be graded here."""
    if any("verdicts" in metric.needs() for metric in metrics):
        for dataset in datasets:
            if reason := dataset.ungradable():
                raise UserError(reason)
    for metric in metrics:
        if reason := available(metric):
            raise UserError(reason)
        metric.fetch()


def _score(point: Point, metrics: Sequence[Metric], judges: Judges, samples: int) -> Scored:
    answers = judges.answers(point, samples)
    cost = "cost" in answers.given()
    for metric in metrics:
        reason = refusal(metric, answers.given(), answers.samples)
        if reason is not None and ("cost" not in metric.needs() or cost):
            raise UserError(f"{point.folder}: {reason}")
    kept, _ = usable(metrics, answers.given(), answers.samples)
    asked = {metric.signature(answers): metric for metric in kept}
    try:
        scores, _, new = keep_scores(point.scores, asked, lambda: answers)
    except UserError as error:
        raise UserError(error if str(point.folder) in str(error) else f"{point.folder}: {error}") from error
    return Scored(point, scores, new)


def keep_scores(
    files: ScoreFiles, asked: Mapping[str, Metric], answers: Callable[[], Answers]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], int]:
    """The scores of metrics, by their signatures, as these files hold them then, with the statistics a source that some
    have; and how many are new.

    A score that is there already is not computed again, unless its statistics a source are missing. Metrics that have
    no value for these answers are told and left out.
    """
    held, rows = files.metrics(), files.per_source()
    missing = [  # the first points were scored before set-valued figures had statistics
        metric
        for signature, metric in asked.items()
        if signature not in held or ("|agg:jackknife|" in signature and signature not in rows)
    ]
    if missing:
        scores = evaluate(missing, answers(), lambda e: print(f"diffq: {files.folder}: {e}", file=sys.stderr))
        statistics = {s.signature: s.per_source for s in scores if s.per_source is not None}
        held, rows = files.merge(to_json(scores), statistics), rows | statistics
    scored, kept = ({name: of[name] for name in asked if name in of} for of in (held, rows))
    return scored, kept, len(missing)


def _tell(number: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rscored {number} of {total} points", end="\n" if number == total else "", file=sys.stderr, flush=True)


def _table(store: Store, scored: Sequence[Scored]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(score["name"] for s in scored for score in s.scores.values()))
    rows = []
    for s in scored:
        by_name = {score["name"]: score for score in s.scores.values()}
        cells = [by_name.get(name) for name in names]
        shown = ["–" if c is None else show_interval(c["value"], c["low"], c["high"]) for c in cells]
        rows.append([store.relative(s.point.folder).removeprefix("points/"), *shown])
    return ["point", *names], rows
