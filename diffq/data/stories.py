"""Short stories to be gone on with: the first sentences of a story are the source, the rest is the target.

A story is a text, or comes as five sentences in columns. A text is cut into sentences by a rule that is meant to be
looked through at a glance (`sentences`). Knows no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffq.data.files import Pair, Place, filled_text, hub_rows, locate_kept, read_rows, split_file
from diffq.data.pairs import PairsCorpus
from diffq.data.task import PairSettings, Split
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.settings import setting

SENTENCES = 5
_END = re.compile(r"""([.!?]+)["'”’)]*\s+(?=(\S))""")
_TITLES = frozenset(["mr", "mrs", "ms", "dr", "st", "jr", "sr", "prof", "vs", "mt"])
_TEXTS = ("text", "story")
_COLUMNS = tuple(f"sentence{number}" for number in range(1, SENTENCES + 1))


def sentences(text: str) -> list[str]:
    """The sentences of a text: one ends behind `.`, `!` or `?`, with the quotation marks and brackets that follow,
    where white space comes next; but not behind a title (Mr., Dr.), nor behind an abbreviation with a full stop inside
    (a.m.) that a small letter follows. Sentences whose writer left out the full stop stay together."""
    found, begin = [], 0
    for match in _END.finditer(text):
        word = re.split(r"[\s\"“(]", text[begin : match.start()])[-1]
        inside = "." in word and match[2].islower()
        if match[1] == "." and (word.lower() in _TITLES or inside):
            continue
        found.append(text[begin : match.end()].strip())
        begin = match.end()
    return [sentence for sentence in (*found, text[begin:].strip()) if sentence]


def begin_and_rest(story: Sequence[str], given: int) -> tuple[str, str]:
    """The first `given` of a story's sentences, and the others.

    Where no more than `given` sentences were found there would be no rest: such a story is cut at given/5 of its words,
    which is where a sentence ends on average. UserError for one that has too few words for that.
    """
    if len(story) > given:
        return " ".join(story[:given]), " ".join(story[given:])
    words = " ".join(story).split()
    if len(words) < 2:
        raise UserError(f"a story of {len(words)} words cannot be cut: {' '.join(words)!r}")
    cut = min(max(1, round(len(words) * given / SENTENCES)), len(words) - 1)
    return " ".join(words[:cut]), " ".join(words[cut:])


class StoriesCorpus(PairsCorpus):
    """Stories of a file, a folder or the hub; of one file the first 80 % of the rows are train, the next 10 % valid."""

    settings: Stories

    def _locate(self) -> Place:
        s = self.settings
        place = locate_kept(s.name, s.kept, s.path, s.hub, s.hub_config)
        alone = place.path / s.alone if place.path is not None and s.path is None else None
        return Place(path=alone) if alone is not None and alone.is_file() and not self._has_train(place) else place

    @staticmethod
    def _has_train(place: Place) -> bool:
        try:
            return place.path is not None and split_file(place.path, "train").is_file()
        except UserError:
            return False

    def _read(self, name: Split) -> list[Pair]:
        stories = self._stories(name)
        if self.place.is_file:
            first, second = len(stories) * 8 // 10, len(stories) * 9 // 10
            stories = {"train": stories[:first], "valid": stories[first:second], "test": stories[second:]}[name]
        if not stories:
            raise UserError(f"{self.place} has no story of the split '{name}'")
        cut = (begin_and_rest(story, self.settings.given_sentences) for story in stories)
        return [(begin, (rest,)) for begin, rest in cut]

    def _stories(self, name: Split) -> list[list[str]]:
        """The sentences of each story of a split; of a single file those of all."""
        s, place = self.settings, self.place
        rows: Iterator[tuple[int, Any]]
        if place.path is None:
            where, rows = f"{place}, {name}", hub_rows(s.name, place, name, s.path)
        else:
            file = place.path if place.is_file else split_file(place.path, name)
            where, rows = str(file), read_rows(file)
        return [_story(row, f"{where}, row {number}") for number, row in rows]


def _story(row: Any, where: str) -> list[str]:
    """The sentences of a row: a text, a list of texts, or an object with a text or with sentence1 … sentence5."""
    if isinstance(row, Mapping) and all(column in row for column in _COLUMNS):
        return [filled_text(row[column], column, where) for column in _COLUMNS]
    if isinstance(row, Mapping):
        column = next((name for name in _TEXTS if name in row), "")
        if not column:
            raise UserError(
                f"{where}: expected the column text or story, or sentence1 to sentence5; the columns are:"
                f" {', '.join(map(str, row)) or 'none'}"
            )
        return sentences(filled_text(row[column], column, where))
    texts = row if isinstance(row, list) else [row]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: expected a story, as a text, a list of texts or an object with a column text")
    return sentences(filled_text(" ".join(texts), "story", where))


@DATASETS.register("stories")
@dataclass(frozen=True, kw_only=True)
class Stories(PairSettings):
    """Stories of five sentences: the first are given, the rest is written."""

    path: str | None = setting(
        None, "a folder with train, valid and test files, or one file, cut 80 : 10 : 10 in order", in_key=False
    )
    kept: str = setting("rocstories", "the folder below $DIFFQ_DATA in which it is looked for", in_key=False)
    alone: str = setting(
        "roc_valid.jsonl", "the one file of that folder that serves where it has no train", in_key=False
    )
    hub: str | None = setting(None, "a Hugging Face `datasets` name, used where no file is found", in_key=False)
    hub_config: str | None = setting(None, "the hub data set's configuration, if it has several", in_key=False)
    given_sentences: int = setting(1, "sentences of a story that are given", low=1, high=SENTENCES - 1)

    def open(self) -> StoriesCorpus:
        return StoriesCorpus(self)
