"""The world `grammar`: what lists the paraphrases and what draws them agree, and every split keeps its promises."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from diffq.data.grammar import Grammar, GrammarCorpus, _percent
from diffq.data.grammar_rules import MOVES, Rules, candidates, draw_meaning, enumerate_texts, rules
from diffq.data.grammar_words import NOUN_CLASSES, concepts, content_words
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.rng import Rng, Stream, uniform


def world(**settings) -> GrammarCorpus:
    return Grammar(name="grammar", models={}, **({"size": 2000} | settings)).open()


@pytest.fixture(scope="module")
def grammar() -> GrammarCorpus:
    return world()


def uniforms(count: int, lanes: int = 64, visit: int = 0) -> list[list[float]]:
    key = Rng(7).key(Stream.DATA, torch.arange(count), visit=visit, position=99)
    return uniform(key[:, None], torch.arange(lanes)).tolist()


def test_is_registered() -> None:
    assert DATASETS["grammar"] is Grammar


def test_has_the_promised_size(grammar: GrammarCorpus) -> None:
    assert len(grammar.words) >= 300
    assert len(rules(2)) >= 20
    assert len(rules(3)) > len(rules(2)) > len(rules(1)) > len(rules(0))
    sizes = sorted(len(grammar.truth(e.source)) for e in grammar.split("test"))
    assert len(sizes) == 500
    assert sizes[0] == 2
    assert sizes[-1] >= 500
    assert 10 <= sizes[250] <= 100


def test_every_content_word_belongs_to_one_concept() -> None:
    slots = [f"{kind}:{c}" for kind in ("noun", "verb") for c in NOUN_CLASSES]
    slots += ["adjective", "quality", "adverb", "place", "audience", "property", "owner", "time", "clause"]
    owner: dict[str, set] = {}
    for slot in slots:
        for concept in concepts(slot):
            for words in concept:
                owner.setdefault(words.split()[-1], set()).add((slot.split(":")[0], concept))
    assert {word for word, owners in owner.items() if len(owners) > 1} == set()
    assert set(owner) == set(content_words())


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_sentence_has_one_meaning(level: int) -> None:
    """Every text of 150 meanings leads back to its meaning and to no other."""
    told = Rules(level=level, moved=0.3)
    for row in uniforms(150, visit=level):
        meaning = draw_meaning(iter(row))
        for text in list(enumerate_texts(told.realise(meaning)))[:20]:
            found = [m for m in candidates(text) if text in enumerate_texts(told.realise(m))]
            assert found == [meaning]


@pytest.mark.parametrize("level", [0, 2, 3])
def test_truth_sums_to_one_and_holds_every_training_answer(level: int) -> None:
    corpus = world(size=300, reordering=level)
    for example in corpus.split("train"):
        truth = corpus.truth(example.source)
        assert math.isclose(sum(truth.values()), 1.0, rel_tol=1e-12)
        assert min(truth.values()) > 0
        assert example.source not in truth
        assert example.references[0] in truth


def test_truth_is_the_grammar_without_the_source(grammar: GrammarCorpus) -> None:
    """Two paraphrases keep the ratio that the grammar gives them, checked on a set small enough to write out."""
    assert grammar.truth("what is the capital of peru") == pytest.approx(
        {"tell me the capital of peru": 0.6, "name me the capital of peru": 0.4}
    )
    truth = grammar.truth("when shall i taste my cake")
    assert truth == pytest.approx(
        {
            "when should i taste my cake": 0.5 * 0.65 / 0.87,
            "when must i taste my cake": 0.3 * 0.65 / 0.87,
            "when should i sample my cake": 0.5 * 0.35 / 0.87,
            "when must i sample my cake": 0.3 * 0.35 / 0.87,
            "when shall i sample my cake": 0.2 * 0.35 / 0.87,
        }
    )


def test_samples_follow_the_truth(grammar: GrammarCorpus) -> None:
    """Chi-square over 12 sources × 4,000 draws; 5.6 standard deviations: false alarm below 1e-7 for all together."""
    statistic, freedom = 0.0, 0
    for example in grammar.split("test")[:12]:
        meaning, truth = grammar.meaning(example.source), grammar.truth(example.source)
        rows = uniforms(4000, lanes=160, visit=1000 + example.index)
        seen = Counter(grammar.answer(meaning, example.source, iter(row)) for row in rows)
        assert set(seen) <= set(truth)
        rare = 0.0, 0.0
        cells = []
        for text, p in truth.items():
            if 4000 * p >= 10:
                cells.append((4000 * p, seen[text]))
            else:
                rare = rare[0] + 4000 * p, rare[1] + seen[text]
        cells += [rare] if rare[0] >= 10 else []
        statistic += sum((got - expected) ** 2 / expected for expected, got in cells)
        freedom += len(cells) - 1
    # Wilson and Hilferty's cube root of a chi-square is normal to well within the margin at this many cells.
    assert freedom > 100
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert abs(z) < 5.6


def test_each_move_has_its_probability() -> None:
    """The mass of the texts that a move makes, by enumeration."""
    told = Rules(level=3, moved=0.2)
    texts = enumerate_texts(told.realise(candidates("how can i quickly buy my car")[0]))
    last = sum(p for text, p in texts.items() if text.split()[-1] in ("quickly", "rapidly", "swiftly"))
    assert last == pytest.approx(0.2)
    texts = enumerate_texts(told.realise(candidates("how much does my car cost in rome")[0]))
    assert sum(p for text, p in texts.items() if "price" in text) == pytest.approx(0.3)
    assert sum(p for text, p in texts.items() if text.startswith("in rome")) == pytest.approx(0.2)
    assert Rules(level=2, moved=0.2).chance("price_of") == 0
    assert all(0 < Rules(level=3, moved=0.2).chance(move) <= 0.5 for move in MOVES)


def test_splits_are_disjoint_and_distinct(grammar: GrammarCorpus) -> None:
    keys = {n: {grammar.meaning(e.source).key for e in grammar.split(n)} for n in ("train", "valid", "test")}
    assert not keys["train"] & keys["valid"]
    assert not keys["train"] & keys["test"]
    assert not keys["valid"] & keys["test"]
    for name, count in (("valid", 200), ("test", 500)):
        sources = [e.source for e in grammar.split(name)]
        assert len(set(sources)) == len(sources) == count
        assert [e.index for e in grammar.split(name)] == list(range(count))
    assert {_percent(k) // 10 for k in keys["test"]} == {0}


def test_same_settings_make_the_same_pairs() -> None:
    assert world(size=50).split("train") == world(size=50).split("train")
    assert world(size=50).split("train") == world(size=80).split("train")[:50]
    assert world(size=50).split("train") != world(size=50, seed=1).split("train")
    assert world(size=50).truth("what is the capital of peru") == world(seed=1).truth("what is the capital of peru")


def test_words_are_the_words_that_occur() -> None:
    for level in (0, 3):
        corpus = world(size=8000, reordering=level)
        texts = (text for e in corpus.split("train") for text in (e.source, *e.references))
        seen = {word for text in texts for word in text.split(" ")}
        assert seen <= set(corpus.words)
        assert len(set(corpus.words) - seen) <= 3
        assert all(word == word.lower() and word for word in seen)


def test_refuses_what_it_does_not_know(grammar: GrammarCorpus) -> None:
    for text in ("", "how can i", "what is love", "my my car car", "how can i swap my rabbit"):
        with pytest.raises(UserError, match="no question of the world"):
            grammar.truth(text)
    with pytest.raises(UserError, match="did you mean 'test'"):
        grammar.split("tests")  # type: ignore[arg-type]
