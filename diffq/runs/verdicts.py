"""Verdicts on samples, kept beside them: verdicts.jsonl, a cache that is safe to delete.

A verdict stands under a digest of the grader, the question with all that decides about its answers, and the text. So an
answer is graded once, however often it was given and however often its point is scored, and never by a rule that has
changed since. Knows no metric and no grader's way of grading.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffq.data.task import Example, Graded, Verdict
from diffq.store.files import encode_row, read_rows, write_atomic

FILE = "verdicts.jsonl"
_AT_ONCE = 512  # answers that are graded before what is known is written down: a killed scoring loses no more

Verdicts = tuple[tuple[Verdict, ...], ...]
"""A row a question, in each a verdict a sample."""


def graded(folder: Path, corpus: Graded, examples: Sequence[Example], candidates: Sequence[Sequence[str]]) -> Verdicts:
    """The verdict on every candidate of every example; those that `folder` does not hold yet are made, and kept there.

    UserError where something is to be graded and cannot be graded here.
    """
    stems = [hashlib.sha256(f"{corpus.grader}\0{example!r}\0".encode("utf-8", "surrogatepass")) for example in examples]
    keys = [[_key(stem, text) for text in texts] for stem, texts in zip(stems, candidates, strict=True)]
    held = _read(folder / FILE)
    asked: dict[str, tuple[Example, str]] = {}
    for example, row, texts in zip(examples, keys, candidates, strict=True):
        asked |= {key: (example, text) for key, text in zip(row, texts, strict=True) if key not in held}
    done = 0
    for part in _parts(list(asked), max(_AT_ONCE, len(asked) // 8)):
        made = corpus.grade([asked[key] for key in part])
        held |= {
            key: {"key": key, "source": asked[key][0].index, "outcome": v.outcome, "answer": v.answer, "note": v.note}
            for key, v in zip(part, made, strict=True)
        }
        write_atomic(folder / FILE, b"".join(map(encode_row, held.values())), sync=False)
        done += len(part)
        _tell(done, len(asked))
    return tuple(tuple(_verdict(held[key]) for key in row) for row in keys)


def _key(stem: Any, text: str) -> str:
    made = stem.copy()
    made.update(text.encode("utf-8", "surrogatepass"))
    return str(made.hexdigest()[:32])


def _read(file: Path) -> dict[str, dict[str, Any]]:
    return {str(row["key"]): row for row, _ in read_rows(file) if {"key", "outcome", "answer"} <= row.keys()}


def _verdict(row: dict[str, Any]) -> Verdict:
    return Verdict(row["outcome"], row["answer"], row.get("note", ""))


def _parts(keys: list[str], size: int) -> Iterator[list[str]]:
    yield from (keys[at : at + size] for at in range(0, len(keys), size))


def _tell(done: int, total: int) -> None:
    if total > _AT_ONCE and sys.stderr.isatty():
        print(f"\rgraded {done} of {total} answers", end="\n" if done == total else "", file=sys.stderr, flush=True)
