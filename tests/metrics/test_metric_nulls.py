"""The null lines: what is exchanged, how often, and that a larger share keeps a smaller one's words."""

from __future__ import annotations

import random

import pytest

from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.bleu import Bleu, SourceBleu
from diffq.metrics.nulls import SHARES, copy, corrupt, null_lines
from diffq.metrics.self_bleu import SelfBleu


@pytest.fixture
def baseline() -> Answers:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(200)]
    sources = [[rng.choice(words) for _ in range(12)] for _ in range(120)]

    def near(text):
        return " ".join(rng.choice(words) if rng.random() < 0.3 else word for word in text)

    return Answers(
        sources=tuple(" ".join(text) for text in sources),
        references=tuple((near(text),) for text in sources),
        candidates=tuple(tuple(near(text) for _ in range(3)) for text in sources),
        cost={"seconds": 1.0},
    )


def words(answers):
    return [text.split() for texts in answers.candidates for text in texts]


def test_share_zero_changes_nothing_and_costs_are_dropped(baseline):
    for line in (corrupt, copy):
        assert line(baseline, 0.0).candidates == baseline.candidates
        assert line(baseline, 0.2).cost == {}
        assert line(baseline, 0.2).references == baseline.references


def test_corrupt_exchanges_its_share_of_the_words(baseline):
    pool = {w for texts in (*baseline.candidates, *baseline.references) for text in texts for w in text.split()}
    for share in (0.05, 0.4, 1.0):
        pairs = [
            (old, new)
            for before, after in zip(words(baseline), words(corrupt(baseline, share)), strict=True)
            for old, new in zip(before, after, strict=True)
        ]
        changed = sum(old != new for old, new in pairs) / len(pairs)
        # 4,320 words, of which 1 in 200 is exchanged for itself: six standard errors are below 0.05.
        assert abs(changed - share * 0.995) < 0.05
        assert {new for _, new in pairs} <= pool


def test_larger_shares_keep_the_exchanges_of_smaller_ones(baseline):
    small, large = words(corrupt(baseline, 0.1)), words(corrupt(baseline, 0.4))
    for before, less, more in zip(words(baseline), small, large, strict=True):
        for old, one, two in zip(before, less, more, strict=True):
            assert one in (old, two)


def test_more_samples_change_none(baseline):
    fewer = Answers(
        sources=baseline.sources,
        references=baseline.references,
        candidates=tuple(texts[:2] for texts in baseline.candidates),
    )
    exchanged = copy(baseline, 0.3).candidates
    assert tuple(texts[:2] for texts in exchanged) == copy(fewer, 0.3).candidates
    assert copy(baseline, 0.3, seed=1).candidates != exchanged


def test_copy_ends_in_the_source():
    given = Answers(
        sources=("a b c", "a b c d e", ""),
        references=(("r",),) * 3,
        candidates=(("x y z w", "x"), ("x y z", ""), ("x y", "x")),
    )
    assert copy(given, 1.0).candidates == (("a b c", "a"), ("a b c", ""), ("", ""))


def test_lines_go_where_they_should(baseline):
    lines = null_lines(baseline)
    assert set(lines) == {"corrupt", "copy"}
    assert [share for share, _ in lines["copy"]] == list(SHARES)
    quality = [Bleu()(made()).value for _, made in lines["corrupt"]]
    assert quality == sorted(quality, reverse=True)
    assert quality[-1] < quality[0] / 4
    diversity = [SelfBleu()(made()).value for _, made in lines["corrupt"]]
    assert diversity == sorted(diversity, reverse=True)
    copied = [SourceBleu()(made()).value for _, made in lines["copy"]]
    assert copied == sorted(copied)
    assert copied[-1] == pytest.approx(100)


def test_an_unconditional_task_has_no_copy():
    given = Answers(sources=("",), references=(("a b",),), candidates=(("c d", "e f"),))
    assert set(null_lines(given, shares=(0.5,))) == {"corrupt"}
    with pytest.raises(UserError, match="only 'corrupt'"):
        copy(given, 0.5)


def test_empty_texts_stay_empty():
    given = Answers(sources=("a",), references=(("a",),), candidates=(("", ""),))
    assert corrupt(given, 1.0).candidates == (("", ""),)
    with pytest.raises(UserError, match="0 … 1"):
        corrupt(given, 20)
