"""The embedded world `countdown`: reach a number from given ones with + − × ÷, as in Dream's planning files.

    15,44,79,50  →  44-15=29,79-29=50

The last number is the one to reach. Each number and each result is used at most once, divisions leave no rest, and the
last result is the target. Solutions are many and are not listed; every one can be checked.

In a form every number stands at the end of a field of its own, so that digits of one weight are in one column: a small
network learns in minutes to add in columns, and not at all in texts where every number shifts the next ones.

    15,44,79,50:  44-  15=  29,  79-  29=  50

Knows no tokens and no network.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from diffq.data.forms import Form, FormSettings, read_questions
from diffq.data.task import Checked, Example, Split
from diffq.errors import UserError, unknown
from diffq.registry import DATASETS
from diffq.rng import Rng, Stream, uniform
from diffq.settings import setting

_NUMBER = re.compile(r"\d+")
_STEP = re.compile(r"(\d+)([+*/-])(\d+)=(\d+)")
_SPLITS: dict[str, tuple[int, int]] = {"test": (0, 10), "valid": (10, 15), "train": (15, 100)}  # percent of questions
_BLOCK = 4096
_LARGEST, _TARGETS = 99, (10, 99)  # of the numbers, and the range of what is to be reached
_BETWEEN, _PADDING = ":", " "  # question and answer; what fills up a form
_GIVEN = 2  # digits of the numbers of a question


def evaluate(a: int, op: str, b: int) -> int | None:
    """The result of a step; None for a division with a rest and for a result below 0."""
    if op == "/":
        return a // b if b and a % b == 0 else None
    return {"+": a + b, "-": a - b, "*": a * b}[op] if op != "-" or a >= b else None


def steps_of(answer: str) -> list[tuple[int, str, int, int]] | None:
    """The steps of an answer, or None where it is not made of steps."""
    found = [_STEP.fullmatch(part) for part in answer.split(",")]
    if not all(found):
        return None
    return [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in found if m]


def solves(source: str, answer: str) -> bool:
    """Whether an answer reaches the last number of a question by right steps that use nothing twice."""
    *numbers, target = map(int, source.split(","))
    steps = steps_of(answer)
    if not steps:
        return False
    held = Counter(numbers)
    for a, op, b, result in steps:
        held.subtract((a, b))
        if min(held[a], held[b]) < 0 or evaluate(a, op, b) != result:
            return False
        held[result] += 1
    return steps[-1][3] == target


class CountdownCorpus(Checked):
    """The opened world. Splits hold disjoint questions, told apart by a hash of the numbers, in whatever order; those
    of a file may be training questions, unless `unseen` leaves these out."""

    grader = "countdown"

    def __init__(self, settings: Countdown):
        self.settings = settings
        self._splits: dict[str, tuple[Example, ...]] = {}

    def split(self, name: Split) -> Sequence[Example]:
        if name not in _SPLITS:
            raise unknown("split", name, _SPLITS)
        if name not in self._splits:
            from_file = name == "test" and self.settings.path
            asked = self._from_file() if from_file else self._drawn(name)
            self._splits[name] = tuple(Example(i, source, (answer,)) for i, (source, answer) in enumerate(asked))
        return self._splits[name]

    def documents(self, name: Split) -> Iterator[str]:
        """The filled forms."""
        yield from (form.text for form in self.solved(name))

    def truth(self, source: str) -> None:
        """None: solutions are checked, not listed."""
        return None

    def check(self, source: str, answer: str) -> bool:
        return solves(source, answer)

    def canonical(self, answer: str) -> str:
        """Steps with the terms of sums and products in order, so that 2+3=5 is 3+2=5; empty where there are none."""
        steps = steps_of(answer)
        if not steps:
            return ""
        return ",".join(f"{min(a, b)}{op}{max(a, b)}={c}" if op in "+*" else f"{a}{op}{b}={c}" for a, op, b, c in steps)

    def own(self, index: int, question: str) -> Example:
        """Numbers and the one to reach, with commas between; spaces do not count."""
        source, count = "".join(question.split()), self.settings.numbers
        if not self._is_question(source) or any(len(n) > _GIVEN for n in _NUMBER.findall(source)):
            shown = ",".join(("15", "44", "79", "8", "6")[:count])
            raise UserError(
                f"--source '{question}' is no question here; give {count} numbers below {10**_GIVEN} and the one to"
                f" reach, as in '{shown},50' (dataset.numbers says how many)"
            )
        return Example(index, source, ())

    def _is_question(self, source: str) -> bool:
        return re.fullmatch(r"[0-9]+(,[0-9]+)+", source) is not None and source.count(",") == self.settings.numbers

    def form(self, example: Example) -> Form:
        """UserError for a question or an answer that has no room."""
        return self._form(example.source, "")

    def answer(self, example: Example, text: str) -> str:
        """The fields of a filled form without the blanks before their numbers. A blank within a number stays, and so
        does a sign out of place: such an answer is wrong."""
        written, field = text[len(text) - self._room :], self._digits + 1
        cut = [written[at : at + field] for at in range(0, self._room, field)]
        return "".join(part[: field - 1].lstrip(_PADDING) + part[field - 1 :] for part in cut).rstrip(_PADDING)

    def solved(self, name: Split) -> Sequence[Form]:
        return tuple(self._form(e.source, e.references[0]) for e in self.split(name))

    @property
    def _digits(self) -> int:
        return _digits(self.settings.numbers)

    @property
    def _room(self) -> int:
        return _room(self.settings.numbers)

    def _form(self, source: str, answer: str) -> Form:
        front = self.settings.block - self._room
        asked, answered = _columns(source, _GIVEN) + _BETWEEN, _columns(answer, self._digits)
        wide = [len(n) > w for text, w in ((source, _GIVEN), (answer, self._digits)) for n in _NUMBER.findall(text)]
        if any(wide) or len(asked) > front or len(answered) > self._room:
            raise UserError(
                f"'{source}{_BETWEEN}{answer}' has no room in a form of dataset.numbers={self.settings.numbers}:"
                f" numbers of a question have {_GIVEN} digits there, those of an answer {self._digits}; leave it out"
            )
        text = asked.rjust(front, _PADDING) + answered.ljust(self._room, _PADDING)
        return Form(text, (False,) * front + (True,) * self._room)

    def _drawn(self, name: Split) -> Iterator[tuple[str, str]]:
        s = self.settings
        wanted = {"train": s.size, "valid": s.valid, "test": s.test}[name]
        low, high = _SPLITS[name]
        seen: set[str] = set()
        first = 0
        while len(seen) < wanted:
            rows = torch.arange(first, first + _BLOCK)
            key = Rng(s.seed).key(Stream.DATA, rows, visit=s.numbers, position=4 + list(_SPLITS).index(name))
            for numbers in uniform(key[:, None], torch.arange(4 * s.numbers)).tolist():
                made = _draw(iter(numbers), s.numbers)
                if made is None or len(seen) == wanted:
                    continue
                source, answer = made
                if low <= _percent(source) < high and source not in seen:
                    seen.add(source)
                    yield source, answer
            first += _BLOCK

    def _from_file(self) -> Iterator[tuple[str, str]]:
        assert self.settings.path is not None
        for number, (source, answer) in enumerate(read_questions(self.settings.path), 1):
            if not self._is_question(source):
                raise UserError(
                    f"{self.settings.path}, row {number}: expected {self.settings.numbers} numbers and the one to"
                    f" reach, with commas between; dataset.numbers says how many"
                )
            if not self.settings.unseen or _percent(source) < _SPLITS["train"][0]:
                yield source, answer


def _digits(numbers: int) -> int:
    """Digits of a field of the answer: of the numbers drawn here four would do, in a published file of five numbers
    stands one of five."""
    return max(4, numbers)


def _room(numbers: int) -> int:
    """Places of an answer: a step is three fields and a sign behind each, but the last."""
    return 3 * (_digits(numbers) + 1) * (numbers - 1) - 1


def _least_block(numbers: int) -> int:
    """Places of a form: a question has a field and a sign for each number and for the one to reach."""
    return (_GIVEN + 1) * (numbers + 1) + _room(numbers)


def _columns(text: str, width: int) -> str:
    """A text with its numbers at the ends of fields of so many places."""
    return _NUMBER.sub(lambda found: found[0].rjust(width, _PADDING), text)


def _percent(source: str) -> int:
    *numbers, target = source.split(",")
    key = ",".join([*sorted(numbers), target])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") % 100


def _draw(uniforms: Iterator[float], count: int) -> tuple[str, str] | None:
    """A question and a solution that uses all its numbers, or None where a step or the target is not allowed."""
    numbers = [1 + int(next(uniforms) * _LARGEST) for _ in range(count)]
    held, steps = list(numbers), []
    while len(held) > 1:
        a = held.pop(int(next(uniforms) * len(held)))
        b = held.pop(int(next(uniforms) * len(held)))
        op = "+-*/"[int(next(uniforms) * 4)]
        result = evaluate(a, op, b)
        if result is None or result > 9999:
            return None
        held.append(result)
        steps.append(f"{a}{op}{b}={result}")
    if not _TARGETS[0] <= held[0] <= _TARGETS[1]:
        return None
    return ",".join(map(str, [*numbers, held[0]])), ",".join(steps)


@DATASETS.register("countdown")
@dataclass(frozen=True, kw_only=True)
class Countdown(FormSettings):
    """Countdown with 3, 4 or 5 numbers."""

    not_learnt: ClassVar[tuple[str, ...]] = ("tokenizer", "models", "metric", "path", "test", "unseen")

    numbers: int = setting(3, "numbers that may be used", low=3, high=5)
    size: int = setting(100_000, "training questions", low=1)
    valid: int = setting(200, "validation questions", low=1)
    unseen: bool = setting(
        False, "of a file, only those questions that no training here can have seen, 15 % by hash", since="0.2"
    )

    def check(self) -> None:
        least = _least_block(self.numbers)
        if self.block < least:
            raise UserError(
                f"dataset.block={self.block} has no room for dataset.numbers={self.numbers}; give dataset.block={least}"
            )

    def open(self) -> CountdownCorpus:
        return CountdownCorpus(self)
