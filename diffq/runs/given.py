"""`diffq score --answers`: answers that no model of ours has given, scored like a point's.

They come from a file, or are the dataset's own reference solutions, which shows whether the grader is right about what
is right. What was found lies under outputs/answers/. Knows no network and no tokenizer: texts are taken as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffq.config import Config, Request, compose
from diffq.data.files import read_rows
from diffq.data.task import Example, Graded
from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.evaluate import evaluate, to_json, usable
from diffq.runs.verdicts import graded
from diffq.settings import key_fields
from diffq.store import Point, Store
from diffq.store.files import encode_row, write_atomic
from diffq.store.identity import digest

REFERENCE = "reference"
"""The word that stands for the dataset's own solutions."""

_NAMES = ("source", "task_id", "name")
_TEXTS = ("text", "completion", "answer", "solution")

Texts = Sequence[tuple[str, ...]]
"""The answers to each question, equally many."""


def score_given(request: Request, given: str) -> tuple[Path, dict[str, dict[str, Any]], list[str]]:
    """The folder that the scores were written to, the scores by signature, and why metrics were left out.

    UserError where the file does not answer every question of the split equally often, and for running text.
    """
    config = compose(request.overrides, verb="score", config_dirs=request.config_dirs)
    if config.dataset.task == "text":
        raise UserError("--answers are answers to questions, and running text asks none; name another dataset")
    corpus: Any = config.dataset.open()
    examples: Sequence[Example] = corpus.split(config.split)[: config.num_sources]
    texts = _references(corpus, examples) if given == REFERENCE else _read(Path(given).expanduser(), examples)
    words = [*request.overrides, f"num_samples={len(texts[0])}"]
    config = compose(words, verb="score", config_dirs=request.config_dirs)
    folder = _folder(config, given, examples, texts)
    rows = [
        {"row": sample * len(examples) + i, "source": e.index, "sample": sample, "text": texts[i][sample]}
        for sample in range(len(texts[0]))
        for i, e in enumerate(examples)
    ]
    write_atomic(folder / "samples.jsonl", b"".join(map(encode_row, rows)), sync=False)
    scores, left_out = _scores(config, corpus, folder, examples, texts)
    return folder, scores, left_out


def _scores(
    config: Config, corpus: Any, folder: Path, examples: Sequence[Example], texts: Texts
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The scores of the metrics that such answers can feed; those that were computed before are read."""
    truths = [corpus.truth(e.source) for e in examples]
    known = all(truth is not None for truth in truths)
    answers = Answers(
        sources=tuple(e.source for e in examples),
        references=tuple(e.references for e in examples),
        candidates=tuple(texts),
        truth=tuple(truths) if known else None,
        grading=partial(graded, folder, corpus, examples, texts) if isinstance(corpus, Graded) else None,
        grader=corpus.grader if isinstance(corpus, Graded) else "",
        real=tuple(text for e in examples for text in e.references) if config.dataset.task == "pairs" else (),
    )
    kept, left_out = usable(config.metric.metrics, answers.given(), answers.samples)
    if not kept:
        raise UserError(f"none of these metrics can be computed of given answers: {'; '.join(left_out)}")
    point = Point(folder)
    held = point.metrics()
    signatures = [metric.signature(answers) for metric in kept]
    missing = [metric for metric, signature in zip(kept, signatures, strict=True) if signature not in held]
    if missing:
        scores = evaluate(missing, answers)
        statistics = {s.signature: s.per_source for s in scores if s.per_source is not None}
        held = point.write_metrics(to_json(scores), statistics)
    return {signature: held[signature] for signature in signatures}, left_out


def _folder(config: Config, given: str, examples: Sequence[Example], texts: Texts) -> Path:
    """One folder for a dataset's questions and these answers to them."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(given).name.partition(".")[0]).strip("-.") or "answers"
    asked = [[e.index, e.source, *texts[i]] for i, e in enumerate(examples)]
    made = digest([key_fields(config.dataset), config.split, asked])
    return Store(Path(config.outputs)).outputs / "answers" / config.choices.dataset / f"{name[:40]}-{made[:6]}"


def _references(corpus: Any, examples: Sequence[Example]) -> Texts:
    without = [e.index for e in examples if not e.references]
    if without:
        raise UserError(f"question {without[0]} has no reference, so there is no solution to be scored")
    say = getattr(corpus, "reference", lambda example: example.references[0])
    return [(say(example),) for example in examples]


def _read(file: Path, examples: Sequence[Example]) -> Texts:
    """The texts of a file, by question: its index in the split (`source`), or its name (`task_id`, `name`)."""
    by_name = {getattr(e, "name", "") or str(e.index): i for i, e in enumerate(examples)}
    by_index = {e.index: i for i, e in enumerate(examples)}
    found: list[list[str]] = [[] for _ in examples]
    for number, row in read_rows(file):
        where = f"{file}, row {number}"
        column, text = _column(row, _NAMES, where), row[_column(row, _TEXTS, where)]
        if not isinstance(text, str):
            raise UserError(f"{where}: an answer is a text, found {type(text).__name__}")
        name = row[column]
        place = by_index.get(name) if column == "source" and isinstance(name, int) else by_name.get(str(name))
        if place is not None:
            found[place].append(text)
    counts = {len(texts) for texts in found}
    if counts == {0}:
        raise UserError(f"{file} answers no question of this split; name another split or dataset")
    if len(counts) > 1:
        few = min(range(len(found)), key=lambda i: len(found[i]))
        raise UserError(
            f"{file} has {len(found[few])} answers to question {getattr(examples[few], 'name', '') or few} and"
            f" {max(counts)} to others; every question needs equally many (num_sources=N asks the first N alone)"
        )
    return [tuple(texts) for texts in found]


def _column(row: Any, names: Sequence[str], where: str) -> str:
    for name in names:
        if isinstance(row, Mapping) and name in row:
            return name
    has = ", ".join(map(str, row)) if isinstance(row, Mapping) else "none"
    raise UserError(f"{where}: expected a column {' or '.join(names)}; the columns are: {has}")
