"""A study in which people rate texts without knowing who wrote them: what is rated, in which order, and the key.

A *system* is a point, or the references ("human"). A *text* is what one or several systems wrote to a source; systems
that wrote the same share it, so that nobody rates it twice. Every system is rated on the same sources equally often.

Knows no file, no page and no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffq.errors import UserError
from diffq.store.identity import digest

HUMAN = "human"
"""The name of the references as a system."""
FORMAT = "diffq-rating-key"
GRADES = ("bad", "poor", "fair", "good", "excellent")
"""The names of five grades, the least first (ITU-T P.800, absolute category rating)."""

_SOURCES, _SAMPLE_ORDER, _IDS, _REPEATS, _PLACES = range(5)  # what a draw is for
_LATIN, _INSIDE = 100, 200


@dataclass(frozen=True)
class System:
    """Who wrote texts. folder and key are a point's, empty for the references; texts are one a source."""

    name: str
    folder: str
    key: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What raters are asked, and the scale [low, high] of whole numbers with a word for each grade or for its ends."""

    text: str
    low: int
    high: int

    @property
    def words(self) -> dict[int, str]:
        """The words that stand beside grades."""
        if self.high - self.low == len(GRADES) - 1:
            return {self.low + at: word for at, word in enumerate(GRADES)}
        return {self.low: "worst", self.high: "best"}


@dataclass(frozen=True)
class Study:
    """What is rated and by how many.

    sources   what stands above a text, by the place of the source in the study; empty for texts without one
    indices   the source's own index in its split (or the sample's number, of texts without a source)
    repeats   texts that each rater is shown a second time
    """

    systems: tuple[System, ...]
    sources: tuple[str, ...]
    indices: tuple[int, ...]
    question: Question
    raters: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        if self.repeats > len(self.texts) // 4:
            raise UserError(
                f"--repeats {self.repeats} of {len(self.texts)} texts would come too soon after their first time; give"
                f" at most {len(self.texts) // 4}, or more --items"
            )

    @cached_property
    def texts(self) -> list[tuple[int, str, tuple[int, ...]]]:
        """(source, text, the systems that wrote it), each once."""
        found: dict[tuple[int, str], list[int]] = {}
        for at in range(len(self.sources)):
            for number, system in enumerate(self.systems):
                found.setdefault((at, system.texts[at]), []).append(number)
        return [(at, text, tuple(who)) for (at, text), who in found.items()]

    @cached_property
    def hash(self) -> str:
        """Twelve digits of all that the study is: two studies never mix their ratings."""
        asked = [self.question.text, self.question.low, self.question.high, self.raters, self.repeats, self.seed]
        systems = [[s.name, s.key, s.texts] for s in self.systems]
        return digest([FORMAT, asked, self.sources, self.indices, systems])[:12]

    @cached_property
    def pages(self) -> list[list[tuple[str, int, str]]]:
        """For each rater the slots of a page in their order: (id, number of the text, id of the slot it repeats or "").

        Ids are numbers in an order of their own: they say nothing of who wrote a text.
        """
        orders = [self._order(rater) for rater in range(self.raters)]
        slots = len(self.texts) + self.raters * self.repeats
        number = [f"{place + 1:0{len(str(slots))}d}" for place in _shuffled(slots, self.seed, _IDS)]
        made = []
        for rater, order in enumerate(orders):
            page = [(number[text], text, "") for text in order]
            made.append(self._with_repeats(page, rater, number[len(self.texts) + rater * self.repeats :]))
        return made

    def _order(self, rater: int) -> list[int]:
        """The texts in one rater's order: any beginning of it holds every system nearly equally often, and texts of one
        source are far apart.

        Sources are dealt into blocks as large as there are systems; a Latin square for each block says which system's
        text of a source comes in which round; every round goes through all blocks. What several systems wrote comes
        where the first of them would.
        """
        by_who = {(at, system): n for n, (at, _, who) in enumerate(self.texts) for system in who}
        width = len(self.systems)
        sources = _shuffled(len(self.sources), self.seed, _SAMPLE_ORDER, rater)
        blocks = [sources[start : start + width] for start in range(0, len(sources), width)]
        squares = [self._square(rater, block) for block in range(len(blocks))]
        order: dict[int, None] = {}
        last = -1
        for turn in range(width):
            for number, block in enumerate(blocks):
                inside = _shuffled(len(block), self.seed, _INSIDE + turn, rater, number)
                if block[inside[0]] == last:  # the same source twice in a row, where there is one block
                    inside = inside[1:] + inside[:1]
                last = block[inside[-1]]
                for column in inside:
                    order.setdefault(by_who[block[column], squares[number][turn][column]])
        return list(order)

    def _square(self, rater: int, block: int) -> list[list[int]]:
        """A Latin square of the systems: turns × places of a block."""
        width = len(self.systems)
        rows, names = (_shuffled(width, self.seed, _LATIN + part, rater, block) for part in (0, 1))
        return [[names[(row + column) % width] for column in range(width)] for row in rows]

    def _with_repeats(self, page: list[Any], rater: int, ids: Sequence[str]) -> list[tuple[str, int, str]]:
        """The page with texts of its first half once more in its last quarter."""
        first = _shuffled(len(page) // 2, self.seed, _REPEATS, rater)[: self.repeats]
        room = len(page) - len(page) // 4
        after = sorted(
            (room + n for n in _shuffled(len(page) // 4, self.seed, _PLACES, rater)[: self.repeats]), reverse=True
        )
        made = list(page)
        for at, place, own in zip(first, after, ids, strict=False):
            made.insert(place, (own, page[at][1], page[at][0]))
        return made

    def page(self, rater: int) -> dict[str, Any]:
        """What one rater's page holds. Nothing in it says who wrote a text, or which texts are of one system."""
        texts = self.texts
        return {
            "study": self.hash,
            "page": rater + 1,
            "pages": self.raters,
            "question": self.question.text,
            "scale": [self.question.low, self.question.high],
            "words": {str(value): word for value, word in self.question.words.items()},
            "items": [
                {"id": own, "source": self.sources[texts[n][0]], "text": texts[n][1]} for own, n, _ in self.pages[rater]
            ],
        }

    def key(self) -> dict[str, Any]:
        """What links ratings to systems; it is never part of a page."""
        items = {
            own: {"source": self.texts[n][0], "systems": list(self.texts[n][2]), "repeats": again}
            for page in self.pages
            for own, n, again in page
        }
        return {
            "format": FORMAT,
            "version": 1,
            "study": self.hash,
            "question": self.question.text,
            "scale": [self.question.low, self.question.high],
            "seed": self.seed,
            "sources": list(self.indices),
            "systems": [
                {"name": s.name, "folder": s.folder, "key": s.key, "texts": digest(list(s.texts))} for s in self.systems
            ],
            "texts": len(self.texts),
            "items": dict(sorted(items.items())),
            "pages": [[own for own, _, _ in page] for page in self.pages],
        }


def choose_sources(count: int, among: int, seed: int) -> list[int]:
    """The places of `count` sources of `among`, drawn; rising."""
    return sorted(_shuffled(among, seed, _SOURCES)[:count])


def _shuffled(count: int, seed: int, purpose: int, rater: int = 0, block: int = 0) -> list[int]:
    """0 … count − 1 in an order that the seed, the purpose, the rater and the block say."""
    import torch

    from diffq.rng import Rng, Stream, bits

    key = Rng(seed).key(Stream.RATING, torch.arange(count), visit=rater, position=purpose * 1_000_003 + block)
    drawn: Mapping[int, int] = dict(enumerate(bits(key).tolist()))
    return sorted(range(count), key=lambda n: (drawn[n], n))
