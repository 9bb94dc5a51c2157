"""Datasets of running text: documents in files or on the hub, split, and detokenised where they were published as
tokens.

Knows no tokens of a model; `windows` cuts tokenised documents into what is trained on and asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from diffq import hub
from diffq.data.detokenise import DETOKENISERS
from diffq.data.files import given_or_kept, read_rows, read_text
from diffq.data.task import DatasetSettings, Split, Task
from diffq.errors import UserError, unknown
from diffq.registry import DATASETS
from diffq.settings import setting

_SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
_ENDINGS = ("txt", "jsonl", "json", "parquet", "csv", "tsv")
_HEADING = re.compile(r"(?m)^ ?= [^=].*? = ?$")


@DATASETS.register("text")
@dataclass(frozen=True, kw_only=True)
class Text(DatasetSettings):
    """Running text: looked for in `path`, then under $DIFFQ_DATA, then on the hub."""

    not_learnt: ClassVar[tuple[str, ...]] = (
        "tokenizer", "models", "metric", "block", "prefix", "suffix", "keep", "windows", "starts", "ends",
    )  # fmt: skip
    task: ClassVar[Task] = "text"
    written_by: ClassVar[Literal["pairs", "text"]] = "text"

    path: str | None = setting(None, "a folder with train, valid and test files or with any texts, or one file")
    kept: str | None = setting(None, "the folder or file below $DIFFQ_DATA in which it is looked for", in_key=False)
    hub: str | None = setting(None, "a Hugging Face `datasets` name, used where no file is found")
    hub_config: str | None = setting(None, "the hub data set's configuration, if it has several")
    column: str = setting("text", "name of the column that holds a document, in files that have columns")
    documents: Literal["row", "line", "article", "blank_line", "file"] = setting(
        "row", "what a document is in a plain text file: a line, a part between blank lines, an article, all of it"
    )
    detokenise: Literal["none", "wikitext", "ptb", "lm1b", "lambada"] = setting("none", "how text is made of tokens")
    evaluated_on: Literal["own", "train", "valid"] = setting(
        "own", "own: the test split is its own; else it is another split, as the papers have it for some corpora"
    )
    held_out: int | None = setting(None, "of a single split: the last documents, kept for validation and test", low=1)
    valid_fraction: float = setting(0.05, "of a single file: the share kept for validation", above=0, high=0.5)
    test_fraction: float = setting(0.05, "of a single file: the share kept for the test", above=0, high=0.4)

    part: str = setting("all", "of the training split: all, or K/N, the K-th of N equal runs of documents")

    block: int = setting(1024, "tokens of a canvas and of a window of text", low=1)
    prefix: int = setting(0, "tokens at the beginning of the canvas that are given", low=0)
    suffix: int = setting(0, "tokens at its end that are given (infilling: both)", low=0)
    keep: tuple[int, ...] = setting((), "further positions that are given")
    windows: int = setting(
        1000, "windows of the split that prompts are taken from, and that samples are held against", low=1
    )
    starts: Literal["packed", "document"] = setting(
        "packed", "where these windows begin: spread evenly over the text, or with documents that are long enough"
    )
    ends: bool = setting(False, "a row ends at the end-of-text token; false: it is a token like another, rows are full")

    def check(self) -> None:
        self.share  # noqa: B018 - it refuses what it cannot read
        if self.prefix + self.suffix >= self.block or len(self.given) >= self.block:
            raise UserError(
                f"dataset.prefix={self.prefix} and dataset.suffix={self.suffix} leave nothing free of"
                f" dataset.block={self.block} tokens; make the block longer or give fewer tokens"
            )
        if self.given and not 0 <= self.given[0] <= self.given[-1] < self.block:
            raise UserError(
                f"dataset.keep={list(self.keep)}: positions of a canvas of dataset.block={self.block} tokens are"
                f" 0 … {self.block - 1}"
            )

    @property
    def share(self) -> tuple[int, int]:
        """K and N of `part`; (1, 1) is all."""
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", self.part)
        if self.part != "all" and (found is None or int(found[1]) > int(found[2])):
            raise UserError(f"dataset.part={self.part} must be all or K/N with K from 1 to N, such as 1/2")
        return (1, 1) if found is None else (int(found[1]), int(found[2]))

    @property
    def given(self) -> tuple[int, ...]:
        """The positions of a canvas that are given, in order."""
        ends = {*range(self.prefix), *range(self.block - self.suffix, self.block), *self.keep}
        return tuple(sorted(ends))

    def open(self) -> TextCorpus:
        return TextCorpus(self)


class TextCorpus:
    """The documents of a text data set, a split at a time, read as they are asked for.

    Of a single file the splits are consecutive parts, in the order of the file: whole documents, or characters where
    there is one document alone.
    """

    def __init__(self, settings: Text):
        self.settings = settings
        self.place = self._locate()

    def documents(self, name: Split) -> Iterator[str]:
        """The detokenised documents of a split; what is blank is left out.

        Raises UserError for a split that is not there, with the places that were looked in, and where it is empty.
        """
        if name not in _SPLITS:
            raise unknown("split", name, tuple(_SPLITS))
        s, name = self.settings, self._own(name)
        detokenise = DETOKENISERS[s.detokenise]
        found = False
        raw = self._raw(name)
        if name == "train" and s.share != (1, 1):
            number, of = s.share
            every = list(raw)
            raw = iter(every[len(every) * (number - 1) // of : len(every) * number // of])
        for document in raw:
            text = detokenise(document)
            if text.strip():
                found = True
                yield text
        if not found:
            raise UserError(f"the split '{name}' of {s.name} ({self._where()}) has no text")

    def fingerprint(self, name: Split) -> str:
        """What the documents of a split are a function of, as a digest, for caches."""
        s = self.settings
        made = hashlib.sha256(repr((s.column, s.documents, s.detokenise, s.evaluated_on, s.held_out, name)).encode())
        made.update(repr((s.valid_fraction, s.test_fraction, s.part)).encode())
        if self.place is None:
            made.update(repr((s.hub, s.hub_config)).encode())
        else:
            for file in self._files(self._own(name)):
                with open(file, "rb") as opened:
                    made.update(hashlib.file_digest(opened, "sha256").digest())
        return made.hexdigest()

    def _own(self, name: Split) -> Split:
        """The split that a split is a name of."""
        of = self.settings.evaluated_on
        return of if name == "test" and of != "own" else name

    def _locate(self) -> Path | None:
        s = self.settings
        found = given_or_kept(s.path, s.kept)
        if found is None and s.hub is None:
            raise self._nowhere("no hub data set is named; give dataset.path=FOLDER_OR_FILE")
        return found

    def _nowhere(self, more: str) -> UserError:
        """The error for a data set that is in none of its places. more: how it stands with the last of them."""
        s = self.settings
        kept = f"$DIFFQ_DATA/{s.kept}" if s.kept else "$DIFFQ_DATA (dataset.kept is not given)"
        return UserError(
            f"no files of dataset '{s.name}': dataset.path is not given, there is nothing at {kept}, and {more}"
        )

    def _where(self) -> str:
        s = self.settings
        return (
            str(self.place) if self.place is not None else f"hub:{s.hub}" + (f"/{s.hub_config}" if s.hub_config else "")
        )

    def _files(self, name: Split) -> list[Path]:
        """The files of a split; of one file or of a folder without split files, all of them."""
        assert self.place is not None
        if self.place.is_file():
            return [self.place]
        stems = _SPLITS[name]
        named = [f for f in self._all() if _is_of(f, name)]
        if named:
            if len(named) > 1:
                raise UserError(
                    f"{self.place} has both {named[0].name} and {named[1].name} for the split '{name}'; keep one"
                )
            return named
        if any(_is_of(f, split) for f in self._all() for split in _SPLITS):
            raise UserError(f"{self.place} has no file of the split '{name}'; expected {stems[0]}.txt or .jsonl")
        if not self._all():
            raise UserError(f"{self.place} holds no text: no .{', .'.join(_ENDINGS)}, each also with .gz")
        return self._all()

    def _all(self) -> list[Path]:
        assert self.place is not None
        files = [f for f in sorted(self.place.rglob("*")) if f.is_file() and _plain(f).rpartition(".")[2] in _ENDINGS]
        return files

    def _raw(self, name: Split) -> Iterator[str]:
        if self.place is None:
            yield from self._hub(name)
            return
        files = self._files(name)
        documents = (d for file in files for d in self._documents(file))
        if not self.place.is_file() and _is_of(files[0], name):
            yield from documents
        else:
            yield from self._part(list(documents), name)

    def _documents(self, file: Path) -> Iterator[str]:
        s = self.settings
        if not _plain(file).endswith(".txt"):
            for row, values in read_rows(file):
                value = values.get(s.column) if isinstance(values, dict) else values
                if isinstance(value, list) and all(isinstance(part, str) for part in value):
                    value = " ".join(value)
                if not isinstance(value, str):
                    raise UserError(
                        f"{file}, row {row}: expected a text in column '{s.column}'; name yours with dataset.column"
                    )
                yield value
            return
        text = read_text(file)
        if s.documents in ("row", "line"):
            yield from text.split("\n")
        elif s.documents == "blank_line":
            yield from re.split(r"\n\s*\n", text)
        elif s.documents == "article":
            begins = [m.start() for m in _HEADING.finditer(text)]
            edges = [0, *begins, len(text)]
            yield from (text[a:b] for a, b in itertools.pairwise(edges) if text[a:b].strip())
        else:
            yield text

    def _part(self, documents: list[str], name: Split) -> Iterable[str]:
        """The part of one file that is a split: train, then valid, then test."""
        s = self.settings
        documents = [d for d in documents if d.strip()]
        whole: Any = documents if len(documents) > 2 else "\n".join(documents)
        n = len(whole)
        test, valid = max(1, round(n * s.test_fraction)), max(1, round(n * s.valid_fraction))
        edges = {"train": (0, n - valid - test), "valid": (n - valid - test, n - test), "test": (n - test, n)}
        first, last = edges[name]
        part = whole[first:last]
        return part if isinstance(part, list) else [part]

    def _hub(self, name: Split) -> Iterator[str]:
        """Streamed. Where there is one split alone, its last `held_out` documents are validation and test."""
        s = self.settings
        try:
            if s.held_out is None:
                rows = hub.load(str(s.hub), s.hub_config, hub.split_of(name), streaming=True)
            else:
                rows = hub.load(str(s.hub), s.hub_config, "train", streaming=True)
                count = rows.info.splits["train"].num_examples
                rows = rows.take(count - s.held_out) if name == "train" else rows.skip(count - s.held_out)
            for values in rows:
                yield values[s.column]
        except Exception as error:
            raise self._nowhere(f"the hub data set {s.hub} could not be read ({hub.why(error)})") from error


def _is_of(file: Path, name: str) -> bool:
    """Whether a file is named for a split."""
    return _plain(file).rpartition(".")[0] in _SPLITS[name]


def _plain(file: Path) -> str:
    """The file's name without .gz."""
    return file.name.removesuffix(".gz")
