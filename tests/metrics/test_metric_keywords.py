"""Coverage of keywords: whole words, its null, its intervals, and what it needs."""

from __future__ import annotations

import dataclasses

import pytest

from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.evaluate import evaluate, refusal
from diffq.metrics.intervals import value_of
from diffq.metrics.keyword_coverage import KeywordCoverage, holds
from diffq.metrics.nulls import copy, corrupt


def answers(**changed: object) -> Answers:
    made = Answers(
        sources=("the boat sank", "a dog barked"),
        references=(("r",), ("r",)),
        candidates=(("The storm hit a boat.", "storms and boats"), ("my dog ran", "nothing")),
        keywords=((("storm", "boat"), ("storm", "boat")), (("dog",), ("dog",))),
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "word", "there"),
    [
        ("The Storm!", "storm", True),
        ("storms", "storm", False),
        ("brainstorm", "storm", False),
        ("a well - known man", "well - known", True),
        ("c++ is", "c++", True),
        ("straße", "STRASSE", True),
        ("", "x", False),
    ],
)
def test_a_word_is_whole(text: str, word: str, there: bool) -> None:
    assert holds(text, word) is there


def test_the_share_is_of_words_and_not_of_sources() -> None:
    (score,) = evaluate([KeywordCoverage()], answers())
    assert score.value == pytest.approx(100 * 3 / 6)  # storm and boat of the first, dog of the third
    assert score.signature == "keyword_coverage|of:own|case:fold|agg:share|s:2|v:1"
    assert score.per_source is not None
    assert score.per_source.tolist() == [[2, 4], [1, 2]]
    assert value_of(score.per_source, score.signature) == score.value
    assert score.low is not None
    assert score.low <= score.value <= score.high  # type: ignore[operator]


def test_a_source_without_keywords_counts_for_nothing() -> None:
    (score,) = evaluate([KeywordCoverage()], answers(keywords=((("storm",), ("storm",)), ((), ()))))
    assert score.value == 50
    with pytest.raises(UserError, match="none of these was asked for one"):
        evaluate([KeywordCoverage()], answers(keywords=(((), ()), ((), ()))))


def test_the_null_is_of_other_sources_words() -> None:
    both = evaluate([KeywordCoverage(), KeywordCoverage(of="next")], answers())
    assert [score.name for score in both] == ["keyword_coverage", "keyword_coverage_null"]
    assert both[1].value == 0
    shared = answers(candidates=(("a dog in a storm, a boat",) * 2,) * 2)
    assert [round(score.value) for score in evaluate([KeywordCoverage(), KeywordCoverage(of="next")], shared)] == [
        100
    ] * 2
    one = Answers(("s",), (("r",),), (("a",),), keywords=((("a",),),))
    same = answers(keywords=((("storm",), ("storm",)), (("storm",), ("storm",))))
    for alike in (one, same):
        with pytest.raises(UserError, match="keywords that are not the same for every source"):
            evaluate([KeywordCoverage(of="next")], alike)


def test_null_lines_lose_the_words() -> None:
    words = [f"w{i}" for i in range(60)]
    held = Answers(
        sources=tuple(f"source {w}" for w in words),
        references=tuple((w,) for w in words),
        candidates=tuple((f"so {w} it is",) for w in words),
        keywords=tuple(((w,),) for w in words),
    )
    values = [evaluate([KeywordCoverage()], corrupt(held, share))[0].value for share in (0.0, 0.2, 0.7, 1.0)]
    assert values[0] == 100
    assert values == sorted(values, reverse=True)  # a smaller share's exchanged words are among a larger one's
    assert values[-1] < 20
    (copied,) = evaluate([KeywordCoverage()], copy(held, 1.0))
    assert copied.value == 100  # the sources hold these words, and what is copied too


def test_it_needs_keywords() -> None:
    without = answers(keywords=None)
    assert "keywords" not in without.given()
    assert "keywords" in answers().given()
    assert "keywords were asked of" in str(refusal(KeywordCoverage(), without.given(), 2))
