"""Keywords: which words of a reference are drawn, where words of one's own are put, and what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from diffq.data.grammar import Grammar
from diffq.data.keywords import Keywords, draw_keywords, keywords_of, parse_keywords, place_keywords
from diffq.data.pairs import Pairs
from diffq.data.task import Example
from diffq.data.tokenizers import Tokenizer, build_tokenizer
from diffq.errors import UserError
from diffq.metrics.keyword_coverage import holds
from diffq.settings import key_fields

STORY = "The old sailor didn't see the storm. A storm-proof boat, his boat, was near the harbour in 1999!"
CONTENT = {"old", "sailor", "storm", "boat", "harbour"}


class Texts:
    def split(self, name: str) -> list[Example]:
        return [Example(0, STORY, ("a b storm boat brother",))]

    def truth(self, source: str) -> None:
        return None


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return build_tokenizer("words", Texts())


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A small WordPiece: words that it has not seen are several tokens."""
    return build_tokenizer("wordpiece:120", Texts())


def asked(text: str = STORY) -> Example:
    return Example(0, "a source", (text, "another reference"))


@pytest.mark.parametrize("kind", ["words", "pieces", "characters"])
def test_drawn_words_stand_where_the_reference_has_them(kind: str, request: pytest.FixtureRequest) -> None:
    characters = kind == "characters"
    tokenizer = build_tokenizer("characters", Texts()) if characters else request.getfixturevalue(kind)
    ids = tokenizer.encode_target(STORY)
    for row in range(50):
        held = draw_keywords(asked(), tokenizer, 3, row)
        assert len(held.words) == 3
        assert set(held.words) <= CONTENT  # no function word, no part of didn't or storm-proof, no number
        assert {at: ids[at] for at in held.at} == held.at
        runs = [k for k in sorted(held.at) if k - 1 not in held.at]  # neighbours such as old sailor are one run
        assert len(runs) <= 3
        assert tokenizer.decode([held.at[k] for k in sorted(held.at)]).replace(" ", "") == "".join(held.words)
        assert held.least == max(held.at) + 1
    drawn = draw_keywords(asked(), tokenizer, 99, 0).words
    assert sorted(drawn) == sorted(CONTENT)  # all there are, each once


def test_what_is_drawn_is_keyed_and_a_smaller_count_is_part_of_a_larger(words: Tokenizer) -> None:
    draws = [[set(draw_keywords(asked(), words, n, row).words) for n in range(1, 6)] for row in range(40)]
    assert all(few < more for row in draws for few, more in itertools.pairwise(row))
    assert draws == [[set(draw_keywords(asked(), words, n, row).words) for n in range(1, 6)] for row in range(40)]
    # Each of 5 words is first in a fifth of all rows; that one of them never is in 40 rows has a chance below 7e-4,
    # and keys are fixed, so this either holds or does not.
    assert set().union(*(row[0] for row in draws)) == CONTENT
    assert draw_keywords(asked(), words, 1, 0, seed=1).words != draw_keywords(asked(), words, 1, 0, seed=2).words or (
        draw_keywords(asked(), words, 1, 1, seed=1).words != draw_keywords(asked(), words, 1, 1, seed=2).words
    )


def test_words_beyond_the_room_and_unknown_ones_are_not_drawn(words: Tokenizer) -> None:
    assert set(draw_keywords(asked(), words, 9, 0, room=3).words) == {"old", "sailor"}
    assert draw_keywords(asked("the zebra and a quagga"), words, 9, 0).words == ()
    assert draw_keywords(asked("the zebra and a boat"), words, 9, 0).words == ("boat",)
    assert draw_keywords(asked(""), words, 9, 0).least == 0
    with pytest.raises(UserError, match="a source of your own has none"):
        draw_keywords(Example(0, "a", ()), words, 2, 0)


def test_placed_words_take_every_place_alike(words: Tokenizer) -> None:
    """4,000 rows over 10 arrangements: 6.5 standard deviations, a false alarm of 1e-9."""
    counts: Counter[tuple[int, ...]] = Counter()
    for row in range(4000):
        held = place_keywords(["storm", "boat"], words, 5, row)
        assert held.words == ("storm", "boat")  # in the order given
        counts[tuple(sorted(held.at))] += 1
    assert set(counts) == set(itertools.combinations(range(5), 2))
    assert max(abs(n - 400) for n in counts.values()) < 6.5 * (4000 * 0.1 * 0.9) ** 0.5


def test_words_of_several_tokens_stay_whole(pieces: Tokenizer) -> None:
    long = [len(pieces.encode_target(word)) for word in ("harbours", "sailor")]
    assert max(long) > 1
    for row in range(200):
        held = place_keywords(["harbours", "sailor"], pieces, sum(long) + 3, row)
        assert len(held.at) == sum(long)
        assert held.words == ("harbours", "sailor")
        assert pieces.decode([held.at[k] for k in sorted(held.at)]) == "harbours sailor"
    assert sorted(place_keywords(["harbours", "sailor"], pieces, sum(long), 0).at) == list(range(sum(long)))
    at = place_keywords(["9:sailor", "1:harbours"], pieces, 40, 0)
    assert at.words == ("harbours", "sailor")
    assert min(at.at) == 1
    assert at.at[9] == pieces.encode_target("sailor")[0]


@pytest.mark.parametrize(
    ("given", "length", "said"),
    [
        (["storm", "boat"], 1, "have 2 tokens, and there is room for 1"),
        (["4:storm"], 4, "at position 4 has no room in a target of 4"),
        (["2:storm", "2:boat"], 9, "overlaps another at position 2"),
        (["2:storm", "boat"], 9, "every word a position"),
        (["zebra"], 9, "does not know the keyword 'zebra'"),
        (["3:"], 9, "holds no word"),
        ([" "], 9, "holds no word"),
        ([","], 9, "holds no word"),
        (["-1:storm"], 9, "no position that is a whole number from 0"),
        ([":storm"], 9, "no position that is a whole number from 0"),
        ([], 9, "names no word"),
    ],
)
def test_what_cannot_be_placed_is_refused(given: list[str], length: int, said: str, words: Tokenizer) -> None:
    with pytest.raises(UserError, match=said):
        place_keywords(given, words, length, 0)


def test_what_the_setting_takes() -> None:
    assert parse_keywords(("3:storm", " 10 : big boat ")) == (("storm", 3), ("big boat", 10))
    settings = Pairs(name="mine", models={})
    assert keywords_of(settings, None, 9) is None
    assert "keywords" not in key_fields(settings)  # points without keywords keep their keys
    assert key_fields(settings.replace(keywords=2))["keywords"] == 2
    assert key_fields(settings.replace(keywords=("storm",)))["keywords"] == ["storm"]
    assert "keywords" in Pairs.not_learnt
    with pytest.raises(UserError, match="holds no word"):
        settings.replace(keywords=("",))
    with pytest.raises(UserError, match="≥ 0"):
        settings.replace(keywords=-1)


def test_least_is_what_a_row_needs(words: Tokenizer) -> None:
    for given, least in ((("storm", "boat"), 2), (("3:storm", "7:boat"), 8), (99, 23)):
        keywords = Keywords(given, words, 40)
        assert keywords.least(asked()) == least
        assert keywords.of(asked(), 7, least).least <= least
    with pytest.raises(UserError, match="need a target of 8 tokens, and it has at most 5"):
        Keywords(("7:storm",), words, 5).least(asked())
    assert Keywords(("storm",), words, 5).drawn_places
    assert not Keywords(("1:storm",), words, 5).drawn_places
    assert not Keywords(2, words, 5).drawn_places


def test_the_samples_of_a_source_share_drawn_words(words: Tokenizer) -> None:
    keywords = Keywords(2, words, 40)
    assert len({keywords.of(asked(), row, 20).words for row in range(20)}) == 1
    assert len({tuple(Keywords(("storm",), words, 40).of(asked(), row, 20).at) for row in range(20)}) > 5


def test_every_reference_of_the_world_keeps_its_words() -> None:
    corpus = Grammar(name="grammar", models={}, size=50).open()
    tokenizer = build_tokenizer("words", corpus)
    for example in corpus.split("test"):
        held = draw_keywords(example, tokenizer, 2, example.index)
        ids = tokenizer.encode_target(example.references[0])
        assert held.words
        assert all(ids[at] == token for at, token in held.at.items())


@pytest.mark.data
def test_real_references(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte-level pieces with their spaces, and BERT's: what is held is what the reference has there."""
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    examples = Pairs(name="qqp", models={}, source="src", target="trg").open().split("test")[:300]
    for spec in ("roberta", "gpt2", "bert"):
        tokenizer = build_tokenizer(spec, Texts())
        ids = tokenizer.encode_targets([e.references[0] for e in examples])
        drawn = [draw_keywords(e, tokenizer, 3, e.index) for e in examples]
        for row, held, example in zip(ids, drawn, examples, strict=True):
            assert all(row[at] == token for at, token in held.at.items())
            spelled = tokenizer.decode(tokenizer.encode_target(example.references[0]))  # BERT drops accents
            assert all(holds(spelled, word) for word in held.words)
        assert sum(len(held.words) == 3 for held in drawn) > 200
