"""What a dataset gives to the rest of the house: examples, and for a world the truth about them.

Knows no tokens, no network and no metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from diffq.settings import Settings, setting

Split = Literal["train", "valid", "test"]


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


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(Settings):
    """What every dataset has; registered subclasses add their own and implement `open`.

    A dataset's YAML also names its default models, one a process, and its default metric suite.
    """

    task: ClassVar[Literal["pairs", "text"]] = "pairs"
    # Settings in which sampling may differ from the training, or takes what the training had (the tokenizer).
    not_learnt: ClassVar[tuple[str, ...]] = ("tokenizer", "models", "metric")
    embedded: ClassVar[bool] = False  # made by code: nothing to look for, and a model of it is trained in a minute

    name: str = setting(help="what the dataset is called in folders and tables", in_key=False)
    tokenizer: str = setting(
        "words",
        "words | wordpiece:SIZE (trained on the data) | bert | gpt2 | characters | a Hugging Face tokenizer folder",
    )
    models: dict[str, str] = setting(help="the default model for each process", in_key=False)
    metric: str = setting("text", "the default metric suite", in_key=False)

    def open(self) -> Corpus:
        """The data set with its splits. UserError with the places that were looked in where it is in none of them."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PairSettings(DatasetSettings):
    """What every dataset of sources and targets has."""

    not_learnt: ClassVar[tuple[str, ...]] = ("tokenizer", "models", "metric", "max_source", "max_target")

    max_source: int = setting(126, "longest source in tokens; longer ones are an error in sampling", low=1)
    max_target: int = setting(126, "longest target in tokens", low=1)
