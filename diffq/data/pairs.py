"""Datasets of pairs in files or on the hub: a source text and one or more reference texts, in named columns.

Knows no tokens. What is right beside the references is not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffq.data.files import Pair, Place, locate, read_hub, read_pairs, split_file
from diffq.data.task import Example, PairSettings, Split
from diffq.errors import UserError, unknown
from diffq.registry import DATASETS
from diffq.settings import setting


class PairsCorpus:
    """Pairs as they stand in the files: the index of an example is its row, and equal sources stay apart.

    Of a single file, each split is the part whose sources' hash falls to it, in the file's order, numbered anew; pairs
    with the same source fall to the same split.
    """

    def __init__(self, settings: Any):
        self.settings = settings
        self.place: Place = self._locate()
        self._splits: dict[str, tuple[Example, ...]] = {}
        self._whole: list[Pair] | None = None

    def split(self, name: Split) -> Sequence[Example]:
        """The examples of a split, read on first use. Raises UserError for a missing, malformed or empty file."""
        if str(name) not in ("train", "valid", "test"):
            raise unknown("split", name, ("train", "valid", "test"))
        if name not in self._splits:
            pairs = self._read(name)
            self._splits[name] = tuple(
                Example(index=i, source=source, references=references) for i, (source, references) in enumerate(pairs)
            )
        return self._splits[name]

    def truth(self, source: str) -> None:
        """None: nobody knows all right answers."""
        return None

    def _locate(self) -> Place:
        s = self.settings
        return locate(s.name, s.path, s.hub, s.hub_config)

    def _read(self, name: Split) -> list[Pair]:
        s, place = self.settings, self.place
        if place.path is None:
            return read_hub(s.name, place, name, s.path, s.source, s.target)
        if not place.is_file:
            return read_pairs(split_file(place.path, name), s.source, s.target)
        if self._whole is None:
            self._whole = read_pairs(place.path, s.source, s.target)
        part = [pair for pair in self._whole if self._falls_to(pair[0]) == name]
        if not part:
            raise UserError(
                f"{place.path} has {len(self._whole)} rows, of which none falls to the split '{name}';"
                " change dataset.valid_fraction and dataset.test_fraction, or give a folder with a file for each split"
            )
        return part

    def _falls_to(self, source: str) -> Split:
        """The split of a source, of a single file: a fixed hash of its text."""
        word = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        u = int.from_bytes(word, "little") / 2**64
        if u < self.settings.test_fraction:
            return "test"
        return "valid" if u < self.settings.test_fraction + self.settings.valid_fraction else "train"


@DATASETS.register("pairs")
@dataclass(frozen=True, kw_only=True)
class Pairs(PairSettings):
    """Any pairs of texts: looked for in `path`, then in the folder $DIFFQ_DATA/NAME, then on the hub."""

    path: str | None = setting(None, "a folder with train, valid and test files, or one file that is split by hash")
    hub: str | None = setting(None, "a Hugging Face `datasets` name, used where no file is found")
    hub_config: str | None = setting(None, "the hub data set's configuration, if it has several")
    source: str = setting("source", "name of the column that holds the source")
    target: str = setting("target", "name of the column that holds the target, a text or a list of texts")
    valid_fraction: float = setting(0.05, "share of the sources of a single file kept for validation", low=0, high=0.5)
    test_fraction: float = setting(0.05, "share of the sources of a single file kept for the test", low=0, high=0.4)

    def check(self) -> None:
        if self.source == self.target:
            raise UserError(f"dataset.source and dataset.target are both '{self.source}'; they must be two columns")

    def open(self) -> PairsCorpus:
        return PairsCorpus(self)
