"""The embedded world `grammar`: questions whose paraphrases, and the probabilities of these, are exactly known.

A question is a meaning said in one way; its right answers are all other ways of saying it, with the probabilities that
the grammar gives them. The question itself is left out (and the rest renormalised), or copying it would be the best
answer of all. Made by code from a seed: nothing is downloaded. Knows no tokens and no network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import ClassVar

import torch

from diffq.data.grammar_rules import Meaning, Rules, all_words, candidates, draw, draw_meaning, enumerate_texts
from diffq.data.task import Example, PairSettings, Split
from diffq.errors import UserError, unknown
from diffq.registry import DATASETS
from diffq.rng import Rng, Stream, uniform
from diffq.settings import setting

_BLOCK = 1024
_LANES = 48  # more than a meaning and two sentences can use, but for the rare redrawing of an answer
_SPLITS: dict[str, tuple[int, int]] = {"test": (0, 10), "valid": (10, 20), "train": (20, 100)}  # percent of meanings


class GrammarCorpus:
    """The opened world. Splits hold disjoint meanings, so no held-out question was ever seen, nor any wording of it."""

    def __init__(self, settings: Grammar):
        self.settings = settings
        self.rules = Rules(level=settings.reordering, moved=settings.moved)
        self._truths: dict[str, Mapping[str, float]] = {}
        self._splits: dict[str, tuple[Example, ...]] = {}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word of the world, whatever the training pairs happen to show of it."""
        return all_words(self.settings.reordering)

    def split(self, name: Split) -> Sequence[Example]:
        """The examples of a split, made on first use; each has one reference, drawn from `truth(source)`."""
        if str(name) not in _SPLITS:
            raise unknown("split", name, _SPLITS)
        if name not in self._splits:
            self._splits[name] = tuple(self._make(name))
        return self._splits[name]

    def truth(self, source: str) -> Mapping[str, float]:
        """Every paraphrase of a source and its probability. Raises UserError where the source is none of this world."""
        if source not in self._truths:
            texts = enumerate_texts(self.rules.realise(self.meaning(source)))
            del texts[source]
            rest = sum(texts.values())
            self._truths[source] = {text: p / rest for text, p in texts.items()}
        return self._truths[source]

    def meaning(self, source: str) -> Meaning:
        """The one meaning that a source can have."""
        found = [m for m in candidates(source) if source in enumerate_texts(self.rules.realise(m))]
        if len(found) != 1:
            raise UserError(f"'{source}' is no question of the world '{self.settings.name}'; its splits hold some")
        return found[0]

    def answer(self, meaning: Meaning, source: str, uniforms: Iterator[float]) -> str:
        """A paraphrase drawn from `truth(source)`: the same tree, redrawn while it says the source itself."""
        tree = self.rules.realise(meaning)
        while (text := draw(tree, uniforms)) == source:
            pass
        return text

    def _make(self, name: Split) -> Iterator[Example]:
        wanted = {"train": self.settings.size, "valid": self.settings.valid, "test": self.settings.test}[name]
        low, high = _SPLITS[name]
        seen: set[str] = set()
        index, candidate = 0, 0
        while index < wanted:
            for row in _uniforms(self.settings.seed, name, candidate, _BLOCK):
                if index == wanted:
                    return
                uniforms = iter(row)
                meaning = draw_meaning(uniforms)
                if not low <= _percent(meaning.key) < high:
                    continue
                source = draw(self.rules.realise(meaning), uniforms)
                if name != "train" and source in seen:
                    continue
                seen.add(source)
                more = _chain(uniforms, self.settings.seed, name, index)
                yield Example(index=index, source=source, references=(self.answer(meaning, source, more),))
                index += 1
            candidate += _BLOCK


def _percent(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") % 100


def _uniforms(seed: int, split: str, first: int, count: int, visit: int = 0, lanes: int = _LANES) -> list[list[float]]:
    rows = torch.arange(first, first + count)
    key = Rng(seed).key(Stream.DATA, rows, visit=visit, position=list(_SPLITS).index(split))
    return uniform(key[:, None], torch.arange(lanes)).tolist()


def _chain(uniforms: Iterator[float], seed: int, split: str, index: int) -> Iterator[float]:
    """The given numbers, and more where an answer had to be redrawn often."""
    yield from uniforms
    for visit in count(1):
        yield from _uniforms(seed, split, index, 1, visit=visit, lanes=1024)[0]


@DATASETS.register("grammar")
@dataclass(frozen=True, kw_only=True)
class Grammar(PairSettings):
    """Questions of 5 to 13 words from about 440 word types, with 2 to several hundred known paraphrases each."""

    not_learnt: ClassVar[tuple[str, ...]] = (*PairSettings.not_learnt, "valid", "test")
    embedded: ClassVar[bool] = True
    all_known: ClassVar[bool] = True

    size: int = setting(20_000, "training pairs", low=1)
    valid: int = setting(200, "validation sources", low=1)
    test: int = setting(500, "test sources", low=1)
    seed: int = setting(0, "which questions are drawn; the language itself does not depend on it", low=0)
    reordering: int = setting(
        1, "0 synonyms and openings | 1 and neighbours swapped | 2 and phrases moved | 3 and whole clauses moved",
        low=0, high=3,
    )  # fmt: skip
    moved: float = setting(0.1, "probability of a move of weight 1", low=0.0, high=0.5)

    def open(self) -> GrammarCorpus:
        return GrammarCorpus(self)
