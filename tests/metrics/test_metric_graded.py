"""Figures of graded answers: against enumeration, and against what the words say."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from diffq.data.task import Verdict
from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.evaluate import evaluate
from diffq.metrics.graded import (
    AnswerEntropy,
    CutOff,
    DistinctAnswers,
    DistinctSolutions,
    Majority,
    PassAtK,
    PassAtN,
    Unanswered,
    pass_at_k,
)
from diffq.metrics.intervals import paired_difference
from diffq.metrics.nulls import corrupt


def answers_of(*groups: str) -> Answers:
    """A group a problem, a word a sample: `+a` passed with the answer a, `-a` failed, `?` failed without one, `!` timed
    out."""

    def verdict(word: str) -> Verdict:
        if word in ("?", "!"):
            return Verdict("failed" if word == "?" else "timed out")
        return Verdict("passed" if word[0] == "+" else "failed", word[1:])

    verdicts = tuple(tuple(map(verdict, group.split())) for group in groups)
    return Answers(
        sources=tuple(f"problem {i}" for i in range(len(groups))),
        references=tuple(("x",) for _ in groups),
        candidates=tuple(tuple(group.split()) for group in groups),
        grading=lambda: verdicts,
        grader="made_up",
    )


def test_pass_at_k_is_the_mean_over_all_draws() -> None:
    """Every n ≤ 6, every number of right answers, every k: all subsets of size k, exactly."""
    for n in range(1, 7):
        for c in range(n + 1):
            right = [i < c for i in range(n)]
            for k in range(1, n + 1):
                draws = [any(draw) for draw in itertools.combinations(right, k)]
                assert pass_at_k(n, c, k) == pytest.approx(float(Fraction(sum(draws), len(draws))), abs=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    """Over all outcomes of n independent answers, each right with probability p, its mean is 1 − (1 − p)^k."""
    for n, p in ((5, 0.3), (6, 0.05)):
        for k in range(1, n + 1):
            outcomes = itertools.product((0, 1), repeat=n)
            mean = sum(p ** sum(o) * (1 - p) ** (n - sum(o)) * pass_at_k(n, sum(o), k) for o in outcomes)
            assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_large_counts_are_exact() -> None:
    assert pass_at_k(1024, 1, 512) == pytest.approx(0.5)
    assert 0 < pass_at_k(10_000, 3, 1) < 1


def test_pass_at_k_of_answers() -> None:
    answers = answers_of("+a -b -b", "-a -b -c", "+a +a +b")
    values = {s.name: s.value for s in evaluate([PassAtK(k=k) for k in (1, 2, 3)] + [PassAtN()], answers)}
    assert values["pass_at_1"] == pytest.approx(100 * (1 / 3 + 0 + 1) / 3)
    assert values["pass_at_2"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)
    assert values["pass_at_3"] == values["pass_at_n"] == pytest.approx(100 * 2 / 3)
    with pytest.raises(UserError, match="pass_at_4 needs at least 4 samples a source, not 3"):
        evaluate([PassAtK(k=4)], answers)


def test_the_interval_is_over_problems() -> None:
    draw = random.Random(0)
    groups = [" ".join(draw.choice(["+a", "-b"]) for _ in range(4)) for _ in range(60)]
    (score,) = evaluate([PassAtK(k=1)], answers_of(*groups))
    assert score.low is not None
    assert score.high is not None
    shares = np.array([group.count("+") / 4 for group in groups])
    expected = 1.96 * 100 * shares.std(ddof=1) / np.sqrt(60)
    assert score.high - score.low == pytest.approx(2 * expected, rel=0.15)
    assert score.n == 60
    (other,) = evaluate([PassAtK(k=1)], answers_of(*["+a +a +a +a"] * 60))
    assert paired_difference(other, score).low > 0


def test_the_majority_votes_by_answers() -> None:
    cases = {
        "+a +a -b": 100,
        "+a -b -b": 0,
        "+a -b ?": 50,  # a tie: either is drawn
        "+a -b -c": 100 / 3,
        "? ? +a": 100,  # who says nothing has no vote
        "? ? !": 0,
    }
    for group, expected in cases.items():
        (score,) = evaluate([Majority()], answers_of(group))
        assert score.value == pytest.approx(expected), group


def test_different_answers_are_counted() -> None:
    answers = answers_of("+a +a +b", "-a -b ?", "+a -a !")
    values = {
        s.name: s.value for s in evaluate([DistinctSolutions(), DistinctAnswers(), Unanswered(), CutOff()], answers)
    }
    assert values == {
        "distinct_solutions": pytest.approx((2 + 0 + 1) / 3),
        "distinct_answers": pytest.approx((2 + 2 + 1) / 3),
        "unanswered": pytest.approx(100 * (0 + 1 / 3 + 1 / 3) / 3),
        "cut_off": pytest.approx(100 * (0 + 0 + 1 / 3) / 3),
    }


def test_the_entropy_of_answers() -> None:
    answers = answers_of("+a +a -b -c", "+a +a +a +a")
    (score,) = evaluate([AnswerEntropy()], answers)
    assert score.value == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(4)) / 2)


def test_samples_without_an_answer_are_one_answer_to_the_entropy_alone() -> None:
    """So it is the entropy of a function of the text, which a bound on that of texts is a bound on, too."""
    answers = answers_of("+a +a ? ?", "? ? ? ?")
    entropy, distinct = evaluate([AnswerEntropy(), DistinctAnswers()], answers)
    assert (entropy.value, distinct.value) == (pytest.approx(math.log(2) / 2), 0.5)


def test_answers_are_graded_once_and_only_where_somebody_asks() -> None:
    asked = []
    answers = answers_of("+a -b")
    answers = Answers(
        sources=answers.sources,
        references=answers.references,
        candidates=answers.candidates,
        grading=lambda: asked.append(1) or (tuple(map(Verdict, ("passed", "failed"))),),  # type: ignore[func-returns-value,arg-type]
    )
    assert "verdicts" in answers.given()
    assert not asked
    evaluate([PassAtK(k=1), PassAtN(), Majority()], answers)
    assert asked == [1]


def test_texts_that_nobody_has_graded_have_no_verdicts() -> None:
    """Null lines are of text: a corrupted answer is another one."""
    changed = corrupt(answers_of("+a -b"), 0.5)
    assert "verdicts" not in changed.given()
    with pytest.raises(UserError, match="cannot be checked"):
        changed.verdicts  # noqa: B018
    with pytest.raises(UserError, match="pass_at_1 needs answers that can be checked"):
        evaluate([PassAtK(k=1)], changed)
