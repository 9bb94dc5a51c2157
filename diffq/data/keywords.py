"""Keywords: words that stand in a target before anything is written, and around which the rest is filled in.

They come from one of two places. `draw_keywords` takes content words of a reference and leaves them where they stand: a
benchmark of control over words. `place_keywords` puts words of the user's own at positions that are given, or drawn.
Both are functions of their arguments alone, and both say which target position holds which token (a `Keep`), so any
canvas can hold them fixed. (Koh et al., arXiv 2411.06438, control of words by fixed tokens; which words, and where, is
reconstructed.) Knows no canvas, no model and no sampler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffq.data.canvases import Keep
from diffq.data.task import Example
from diffq.errors import UserError
from diffq.rng import Rng, Stream, bits

Asked = int | tuple[str, ...]
"""How many content words of the reference, or the words themselves, each perhaps with its position: `3:storm`."""

_WORD = re.compile(r"(?<![\w'’-])[^\W\d_]{2,}(?![\w'’-])")  # letters alone: no part of `don't` or `well-known`
_STOP = frozenset(
    """about above across after again against all almost along already also although always am among an and another any
    anybody anyone anything are around as at away back be became because become been before behind being below between
    both but by came can cannot come could did do does doing done down during each either else even ever every everyone
    everything few first for from get gets getting give go goes going gone got had has have having he her here hers
    herself him himself his how however if in into is it its itself just keep know let like made make makes many may me
    might mine more most much must my myself near neither never next no nobody none nor not nothing now of off often on
    once one only onto or other others our ours ourselves out over own perhaps put quite rather really said same saw say
    see seem seemed several shall she should since so some somebody someone something soon still such take than that the
    their theirs them themselves then there these they thing things this those though through thus to together too took
    toward towards two under until up upon us use used very want was way we well went were what whatever when where
    whether which while who whole whom whose why will with within without would yes yet you your yours
    yourself""".split()  # noqa: SIM905 - a list of 240 quoted words could not be read
)


@dataclass(frozen=True)
class Held:
    """The keywords of one row.

    words  each in the tokenizer's spelling, in the order of their positions
    at     target positions, from 0, with the tokens that stand there
    """

    words: tuple[str, ...]
    at: Keep

    @property
    def least(self) -> int:
        """The fewest tokens that a target with these keywords has."""
        return max(self.at, default=-1) + 1


def draw_keywords(
    example: Example, tokenizer: Any, count: int, row: int, seed: int = 0, room: int | None = None
) -> Held:
    """Up to `count` content words of the example's first reference, at their places in it.

    A content word is made of letters, is no function word of English, is not repeated, and stands in tokens of its own
    among the first `room` ones, none of them unknown; there may be fewer than were asked for. Which ones is keyed by
    (seed, row): the words of a smaller count are among those of a larger one.
    UserError where there is no reference.
    """
    if not example.references:
        raise UserError(
            f"dataset.keywords={count} draws words of references, and a source of your own has none; name the words"
            " themselves: dataset.keywords=[storm,boat]"
        )
    text = example.references[0]
    ids, spans = tokenizer.encode_spans(text)
    found = []
    for match in _WORD.finditer(text):
        places = [k for k, (a, b) in enumerate(spans) if a < match.end() and b > match.start()]
        whole = places and text[spans[places[0]][0] : spans[places[-1]][1]].strip() == match[0]
        fits = whole and (room is None or places[-1] < room)
        if fits and match[0].lower() not in _STOP and tokenizer.unk not in [ids[k] for k in places]:
            found.append((match[0], places))
    key = Rng(seed).key(Stream.KEYWORD, torch.tensor(row), 0, torch.arange(len(found)))
    chosen: dict[str, list[int]] = {}
    for i in torch.argsort(bits(key), stable=True).tolist():
        if len(chosen) < count:
            chosen.setdefault(found[i][0].casefold(), found[i][1])
    places_of = sorted(chosen.values())
    words = tokenizer.decode_batch([[ids[k] for k in places] for places in places_of])
    return Held(tuple(word.strip() for word in words), {k: ids[k] for places in places_of for k in places})


def parse_keywords(words: Sequence[str]) -> tuple[tuple[str, int | None], ...]:
    """The words with their positions, None where these are to be drawn. UserError for no word, an empty one, a position
    that is none, and where some have a position and others have not."""
    if not words:
        raise UserError("dataset.keywords=[] names no word; leave it out for none, or name some: [storm,boat]")
    found: list[tuple[str, int | None]] = []
    for text in words:
        match = re.fullmatch(r"\s*(?:(\d+)\s*:)?\s*(.*?)\s*", text, re.DOTALL)
        if match is None or not match[2].strip(","):
            raise UserError(
                f"dataset.keywords: {text!r} holds no word; write a word, or a position and a word: 3:storm"
            )
        if match[1] is None and re.match(r"-?\d*\s*:", match[2]):
            raise UserError(f"dataset.keywords: {text!r} has no position that is a whole number from 0, as in 3:storm")
        found.append((match[2], None if match[1] is None else int(match[1])))
    if len({at is None for _, at in found}) > 1:
        raise UserError("dataset.keywords: give every word a position, as in 3:storm, or none")
    return tuple(found)


def place_keywords(words: Sequence[str], tokenizer: Any, length: int, row: int, seed: int = 0) -> Held:
    """The words at their positions, or in their order at drawn ones: every way of placing them in `length` tokens
    without overlapping is as likely as every other, keyed by (seed, row).

    A word has the tokens that it has inside a text. UserError where the tokenizer does not know it, where there is no
    room for all, and where two would overlap.
    """
    wanted = parse_keywords(words)
    ids = [_inside(word, tokenizer) for word, _ in wanted]
    total = sum(map(len, ids))
    if wanted and wanted[0][1] is None:
        spare = length - total
        if spare < 0:
            raise UserError(f"the keywords have {total} tokens, and there is room for {length}; ask for fewer")
        slot_S = bits(Rng(seed).key(Stream.KEYWORD, torch.tensor(row), 1, torch.arange(spare + len(ids))))
        slots = sorted(torch.argsort(slot_S, stable=True)[: len(ids)].tolist())
        before = [sum(map(len, ids[:j])) for j in range(len(ids))]
        starts = [slot - j + before[j] for j, slot in enumerate(slots)]
    else:
        starts = [at or 0 for _, at in wanted]
    held: dict[int, int] = {}
    for (word, _), start, tokens in zip(wanted, starts, ids, strict=True):
        if start + len(tokens) > length:
            raise UserError(f"keyword '{word}' at position {start} has no room in a target of {length} tokens")
        if taken := held.keys() & range(start, start + len(tokens)):
            raise UserError(f"keyword '{word}' overlaps another at position {min(taken)}; give it another position")
        held |= {start + k: token for k, token in enumerate(tokens)}
    order = sorted(range(len(starts)), key=starts.__getitem__)
    spelled = tokenizer.decode_batch([ids[j] for j in order])
    return Held(tuple(word.strip() for word in spelled), held)


def inside(word: str, tokenizer: Any) -> list[int]:
    """The tokens of a word as it stands behind another one: a BPE has its blank in them."""
    before, both = tokenizer.encode_targets(["a", f"a {word}"])
    ids: list[int] = both[len(before) :] if both[: len(before)] == before else tokenizer.encode_target(word)
    return ids


def _inside(word: str, tokenizer: Any) -> list[int]:
    """The tokens of a word inside a text. UserError where there is an unknown one."""
    ids = inside(word, tokenizer)
    if not ids or tokenizer.unk in ids:
        raise UserError(f"the tokenizer does not know the keyword '{word}'; ask for another word")
    return ids


@dataclass(frozen=True)
class Keywords:
    """What `dataset.keywords` asks of every row.

    room  the most tokens that a target may have

    Drawn words are the same for all samples of a source, and under every seed: they are part of the question. Drawn
    positions of given words are a row's own.
    """

    asked: Asked
    tokenizer: Any
    room: int

    @property
    def drawn_places(self) -> bool:
        """Whether positions are drawn, which takes a target of known length."""
        return not isinstance(self.asked, int) and parse_keywords(self.asked)[0][1] is None

    def least(self, example: Example) -> int:
        """The fewest tokens that the example's target may have. UserError where that is more than there is room."""
        if isinstance(self.asked, int):
            return self.of(example, 0, self.room).least
        if self.drawn_places:
            least = sum(len(_inside(word, self.tokenizer)) for word, _ in parse_keywords(self.asked))
        else:
            least = max((at or 0) + len(_inside(word, self.tokenizer)) for word, at in parse_keywords(self.asked))
        if least > self.room:
            raise UserError(f"these keywords need a target of {least} tokens, and it has at most {self.room}")
        return least

    def of(self, example: Example, row: int, length: int) -> Held:
        """The keywords of a row by its id; `length` is that of its target, in tokens."""
        if isinstance(self.asked, int):
            return draw_keywords(example, self.tokenizer, self.asked, example.index, room=self.room)
        return place_keywords(self.asked, self.tokenizer, length, row)


def keywords_of(dataset: Any, tokenizer: Any, room: int) -> Keywords | None:
    """What a dataset's settings ask, or None where they ask nothing."""
    return Keywords(dataset.keywords, tokenizer, room) if dataset.keywords else None
