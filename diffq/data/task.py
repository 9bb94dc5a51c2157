"""What a dataset gives to the rest of the house: examples, for a world the truth about them, and verdicts on answers
where these can be checked.

Knows no tokens, no network and no metric.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from diffq.settings import Settings, setting

Split = Literal["train", "valid", "test"]
Task = Literal["pairs", "text", "answers", "forms"]
Outcome = Literal["passed", "failed", "timed out", "memory", "output", "refused"]


@dataclass(frozen=True)
class Example:
    """One question: its place in the split, the source text and the answers that count as references."""

    index: int
    source: str
    references: tuple[str, ...]


class PairCorpus(Protocol):
    """An opened dataset of questions with their answers."""

    def split(self, name: Split) -> Sequence[Example]:
        """The examples of a split in their own order; for training, one reference each. Raises UserError with the
        places that were looked in where the split has no file, and where it is empty."""
        ...

    def truth(self, source: str) -> Mapping[str, float] | None:
        """Every right answer to a source and its probability (they sum to 1), or None where that is not known."""
        ...


@runtime_checkable
class DocumentCorpus(Protocol):
    """An opened dataset of running text. What is asked of it depends on a tokenizer (`windows.text_questions`)."""

    def documents(self, name: Split) -> Iterator[str]:
        """The documents of a split in their own order. Raises UserError as `PairCorpus.split` does."""
        ...


Corpus = PairCorpus | DocumentCorpus


@dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    outcome  passed, or why not. Executed code also ends as `timed out`, `memory` and `output` (it went over that
             limit) and `refused` (it was not run at all)
    answer   what the text comes to, in a spelling in which equal answers are equal: the number in the box, the
             program's syntax tree, the filled grid. Empty where the text holds no answer. Votes are counted by it, and
             distinct solutions
    note     why it failed, in a few words, for a reader; nothing is computed from it
    """

    outcome: Outcome
    answer: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


@runtime_checkable
class Graded(Protocol):
    """A corpus whose answers can be checked; its settings say so with `graded`.

    A verdict is a function of the grader, the example and the text, and is kept under these: whatever else it depends
    on (tests, limits) stands in one of them. An example may be of a subclass that holds its tests.
    """

    @property
    def grader(self) -> str:
        """How answers are graded, as the signature of a metric says it: `sudoku`, `math_verify_0.9.0`. Without spaces
        and bars; another one wherever verdicts might be others."""
        ...

    def grade(self, asked: Sequence[tuple[Example, str]]) -> list[Verdict]:
        """One verdict for each (question, answer), in this order. The questions are examples of this corpus; one is
        asked as often as it has answers. Raises UserError where nothing can be graded here."""
        ...


class Checked(ABC):
    """The `grade` of a corpus that sees by looking whether an answer is right: it says `check` alone."""

    @abstractmethod
    def check(self, source: str, answer: str) -> bool:
        """Whether an answer to a source is right. A text that is no answer at all is not."""

    def canonical(self, answer: str) -> str:
        """The spelling in which equal answers are equal; the text with single spaces where nobody says otherwise."""
        return " ".join(answer.split())

    def grade(self, asked: Sequence[tuple[Example, str]]) -> list[Verdict]:
        return [
            Verdict("passed" if self.check(example.source, text) else "failed", self.canonical(text))
            for example, text in asked
        ]


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(Settings, ABC):
    """What every dataset has; registered subclasses add their own and implement `open`.

    A dataset's YAML also names its default models, one a process, and its default metric suite.
    """

    task: ClassVar[Task] = "pairs"
    written_by: ClassVar[Literal["pairs", "text"]] = "pairs"  # the task of the models that serve it
    # Settings in which sampling may differ from the training, or takes what the training had (the tokenizer).
    not_learnt: ClassVar[tuple[str, ...]] = ("tokenizer", "models", "metric")
    embedded: ClassVar[bool] = False  # made by code: nothing to look for, and a missing model is trained
    all_known: ClassVar[bool] = False  # the corpus tells every right answer (`PairCorpus.truth`)
    graded: ClassVar[bool] = False  # the corpus is Graded: its answers can be checked
    judging: ClassVar[tuple[str, ...]] = ()  # settings that decide about verdicts alone: scoring may change them

    name: str = setting(help="what the dataset is called in folders and tables", in_key=False)
    tokenizer: str = setting(
        "words",
        "words | wordpiece:SIZE (trained on the data) | bert | gpt2 | roberta | cut:gpt2, cut:roberta, cut:FOLDER (the"
        " part that the training texts need) | characters | a Hugging Face tokenizer folder",
    )
    models: dict[str, str] = setting(help="the default model for each process", in_key=False)
    metric: str = setting("text", "the default metric suite", in_key=False)

    @abstractmethod
    def open(self) -> Corpus:
        """The data set with its splits. UserError with the places that were looked in where it is in none of them."""

    def ungradable(self) -> str | None:
        """Why answers cannot be graded on this machine, in one sentence, or None."""
        return None


@dataclass(frozen=True, kw_only=True)
class PairSettings(DatasetSettings):
    """What every dataset of sources and targets has."""

    not_learnt: ClassVar[tuple[str, ...]] = ("tokenizer", "models", "metric", "max_source", "max_target", "keywords")

    max_source: int = setting(126, "longest source in tokens; longer ones are an error in sampling", low=1)
    max_target: int = setting(126, "longest target in tokens", low=1)
    room: int = setting(
        64,
        "places for a target on the canvas of a masked model of running text; longer targets are left out in training",
        low=1,
        since="0.2",
    )
    keywords: int | tuple[str, ...] = setting(
        0,
        "words held fixed in every answer: N content words of the reference where they stand in it, or words of your"
        " own, as [storm,boat] at drawn positions or [3:storm,10:boat] at these, in tokens from 0",
        low=0,
        since="0.2",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.keywords, int):
            from diffq.data.keywords import parse_keywords

            parse_keywords(self.keywords)
