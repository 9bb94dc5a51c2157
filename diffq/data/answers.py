"""Datasets of questions whose answers are written freely behind a prompt, and then checked.

A third kind of task beside pairs and running text. Files and hub, prompts with worked examples before them, and what
ends an answer are here; what is right is said by `maths` and `programs`. Knows no tokens.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from diffq import hub
from diffq.data.files import given_or_kept, read_rows, split_file
from diffq.data.task import DatasetSettings, Example, Split, Task, Verdict
from diffq.errors import UserError, unknown
from diffq.settings import setting

_FIELDS = ("question", "tests", "answer")


@dataclass(frozen=True)
class Problem(Example):
    """A question that can be graded; its reference is a solution.

    name   what the file calls it, such as HumanEval/0
    right  what an answer is held against: the final answer, or tests
    tests  tests that the prompt may show, if any
    """

    name: str = ""
    right: str = ""
    tests: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(DatasetSettings):
    """What every dataset of checked answers has. How a row becomes a problem is said by its corpus."""

    not_learnt: ClassVar[tuple[str, ...]] = (
        "tokenizer", "models", "metric", "block", "answer", "prompt", "shots", "examples", "stop", "chat",
        "chat_prompt", "chat_stop",
    )  # fmt: skip
    task: ClassVar[Task] = "answers"
    written_by: ClassVar[Literal["pairs", "text"]] = "text"
    graded: ClassVar[bool] = True

    path: str | None = setting(None, "the file, or a folder with a file for each split", in_key=False)
    kept: str | None = setting(None, "the file or folder below $DIFFQ_DATA in which it is looked for", in_key=False)
    hub: str | None = setting(None, "a Hugging Face `datasets` name, used where no file is found", in_key=False)
    hub_config: str | None = setting(None, "the hub data set's configuration, if it has several", in_key=False)
    hub_split: str | None = setting(None, "the hub's split that is our test; null = test", in_key=False)

    leave_out: tuple[int | str, ...] = setting((), "names of problems that are not asked, such as too long ones")
    block: int = setting(256, "tokens of a window of text, where a model is trained on problems and solutions", low=1)
    answer: int = setting(512, "tokens that an answer may have", low=1)
    prompt: str = setting("{question}", "what is put before an answer; {question} and {tests} are the problem's")
    shots: int = setting(0, "worked examples before the prompt, of the training split or of dataset.examples", low=0)
    shot: str = setting("", "how a worked example is written, with {question}, {tests} and {answer}")
    examples: str | None = setting(None, "a file of problems with the dataset's columns, for worked examples")
    stop: tuple[str, ...] = setting((), "an answer ends before the first of these texts")
    chat: Literal["auto", "on", "off"] = setting(
        "auto", "whether the prompt goes through the tokenizer's chat template: auto, where it has one"
    )
    chat_prompt: str = setting("", "the prompt where it goes through a chat template; empty = the other one")
    chat_stop: tuple[str, ...] = setting((), "what ends an answer there")

    def check(self) -> None:
        for name in ("prompt", "chat_prompt"):
            text = getattr(self, name)
            if "{question}" not in text and (text or name == "prompt"):
                raise UserError(f"dataset.{name} must hold {{question}}, the place of the problem's text")
        if self.shots and not {"{question}", "{answer}"} <= set(re.findall(r"\{\w+\}", self.shot)):
            raise UserError("dataset.shots needs dataset.shot, a text with {question} and {answer} in it")
        if "" in (*self.stop, *self.chat_stop):
            raise UserError("an empty text in dataset.stop would end every answer before it began")


class AnswerCorpus:
    """The problems of a dataset, read as they are asked for. Graded (`task.Graded`); subclasses read rows and grade.

    columns  the columns that a row must have
    """

    columns: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any):
        self.settings = settings
        self.place = self._locate()
        self._splits: dict[str, tuple[Problem, ...]] = {}

    @abstractmethod
    def problem(self, index: int, row: Mapping[str, Any]) -> Problem:
        """The problem of a row."""

    @abstractmethod
    def own(self, index: int, question: str) -> Problem:
        """A problem that a user asks, which nobody can grade."""

    @property
    @abstractmethod
    def grader(self) -> str: ...

    @abstractmethod
    def grade(self, asked: Sequence[tuple[Example, str]]) -> list[Verdict]: ...

    def truth(self, source: str) -> None:
        """None: right answers are as many as there are ways to write them."""
        return None

    def split(self, name: Split) -> Sequence[Problem]:
        """The problems of a split in the order of the file, numbered before any is left out. UserError where there are
        none, and for a row that lacks a column."""
        if str(name) not in ("train", "valid", "test"):
            raise unknown("split", name, ("train", "valid", "test"))
        if name not in self._splits:
            rows = [row for row in self._rows(name) if self.is_of(row, name)]
            if not rows:
                raise UserError(f"{self._where()} has no problem of the split '{name}'; the split test has all")
            left_out = set(map(str, self.settings.leave_out))
            made = (self.problem(i, row) for i, row in enumerate(rows))
            self._splits[name] = tuple(problem for problem in made if problem.name not in left_out)
        return self._splits[name]

    def documents(self, name: Split) -> Iterator[str]:
        """Problems with their solutions, as text to be trained on. Where a dataset has no validation split, that is the
        last twentieth of the training split. UserError where it has no training split."""
        if name == "test":
            held = self.split(name)
        else:
            train, held = self.split("train"), self._validation()
            cut = len(train) - len(train) // 20
            held = (held or train[cut:]) if name == "valid" else (train if held else train[:cut])
        template = self.settings.shot or self.settings.prompt + "{answer}"
        for problem in held:
            yield _filled(template, problem, self.reference(problem)).rstrip()

    def _validation(self) -> Sequence[Problem]:
        try:
            return self.split("valid")
        except UserError:
            return ()

    def fingerprint(self, name: Split) -> str:
        """What the documents of a split are a function of, as a digest."""
        made = hashlib.sha256()
        for text in self.documents(name):
            made.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return made.hexdigest()

    def is_of(self, row: Mapping[str, Any], name: Split) -> bool:
        """Whether a row belongs to a split; all that one file holds belong to the test."""
        return name == "test" or self.place is None or self.place.is_dir()

    def prompt(self, problem: Problem, chat: bool) -> str:
        """What is put before an answer: worked examples, then the problem."""
        s = self.settings
        template = s.chat_prompt if chat and s.chat_prompt else s.prompt
        shots = "".join(_filled(s.shot, shot, self.reference(shot)) for shot in self._shots())
        return shots + _filled(template, problem)

    def cut(self, text: str, chat: bool) -> str:
        """The answer without the first text that ends it, and what follows."""
        stops = self.settings.chat_stop if chat else self.settings.stop
        ends = [at for stop in stops if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def reference(self, problem: Problem) -> str:
        """The file's own solution, as an answer to the prompt would have it."""
        return problem.references[0]

    def _shots(self) -> Sequence[Problem]:
        s = self.settings
        if not s.shots:
            return ()
        if s.examples:
            held: Sequence[Problem] = [self.problem(i, row) for i, row in enumerate(self._read(Path(s.examples)))]
        else:
            held = self.examples()
        if len(held) < s.shots:
            raise UserError(f"dataset.shots={s.shots}: there are {len(held)} worked examples; ask for fewer")
        return held[: s.shots]

    def examples(self) -> Sequence[Problem]:
        """Problems that worked examples are made of, the first ones first."""
        try:
            return self.split("train")
        except UserError as error:
            raise UserError(
                f"dataset.shots={self.settings.shots} needs worked examples, and {error}; name a file of some with"
                " dataset.examples=FILE"
            ) from error

    def _locate(self) -> Path | None:
        """The file or folder; None for the hub. UserError where nothing is there and no hub data set is named."""
        s = self.settings
        found = given_or_kept(s.path, s.kept)
        if found is None and s.hub is None:
            raise UserError(self._nowhere("is not named"))
        return found

    def _nowhere(self, hub_trouble: str) -> str:
        s = self.settings
        return (
            f"no files of dataset '{s.name}': dataset.path is not given, there is nothing at $DIFFQ_DATA/{s.kept}, and"
            f" the hub data set {s.hub} {hub_trouble}; give dataset.path=FILE"
        )

    def _where(self) -> str:
        return str(self.place) if self.place is not None else f"hub:{self.settings.hub}"

    def _rows(self, name: Split) -> Iterable[Mapping[str, Any]]:
        if self.place is None:
            return self._hub(name)
        return self._read(self.place if self.place.is_file() else split_file(self.place, name))

    def _read(self, file: Path) -> Iterator[Mapping[str, Any]]:
        for number, row in read_rows(file):
            self._check(row, f"{file}, row {number}")
            yield row

    def _check(self, row: Any, where: str) -> None:
        for column in self.columns:
            if not isinstance(row, Mapping) or not any(name in row for name in column.split("|")):
                has = ", ".join(map(str, row)) if isinstance(row, Mapping) else "none"
                raise UserError(f"{where}: there is no column '{column.replace('|', ' or ')}'; the columns are: {has}")

    def hub_splits(self, name: Split) -> str:
        """The hub's split of ours: `hub.split_of`, but where the data set has its questions elsewhere."""
        if name == "test" and self.settings.hub_split:
            return str(self.settings.hub_split)
        return hub.split_of(name)

    def _hub(self, name: Split) -> list[Mapping[str, Any]]:
        s = self.settings
        try:
            rows = list(hub.load(s.hub, s.hub_config, self.hub_splits(name)))
        except Exception as error:
            raise UserError(self._nowhere(f"could not be read ({hub.why(error)})")) from error
        for number, row in enumerate(rows, 1):
            self._check(row, f"hub:{s.hub}, row {number}")
        return rows


def _filled(template: str, problem: Problem, answer: str = "") -> str:
    """A template with the problem's texts in it. Braces of any other meaning (LaTeX has many) stay as they are."""
    texts = {"question": problem.source, "tests": problem.tests, "answer": answer}
    return re.sub(r"\{(" + "|".join(_FIELDS) + r")\}", lambda m: texts[m[1]], template)
