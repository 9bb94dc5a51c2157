"""Verdicts on answers: the protocol that worlds, mathematics and code share."""

from __future__ import annotations

from diffq.data.task import Checked, Example, Graded, Verdict


class Sums(Checked):
    """A made-up world: the source is a sum, and its answer the number."""

    grader = "sums"

    def check(self, source: str, answer: str) -> bool:
        a, b = source.split("+")
        return answer.strip() == str(int(a) + int(b))


def test_a_corpus_that_says_check_alone_is_graded() -> None:
    corpus = Sums()
    assert isinstance(corpus, Graded)
    one, two = Example(0, "1+2", ()), Example(1, "5+5", ())
    verdicts = corpus.grade([(one, "3"), (two, " 10 "), (one, "4"), (one, "")])
    assert [v.outcome for v in verdicts] == ["passed", "passed", "failed", "failed"]
    assert [v.passed for v in verdicts] == [True, True, False, False]
    assert [v.answer for v in verdicts] == ["3", "10", "4", ""]


def test_a_corpus_without_a_grader_is_not() -> None:
    class Unnamed(Checked):
        def check(self, source: str, answer: str) -> bool:
            return True

    assert not isinstance(Unnamed(), Graded)
    assert Verdict("timed out").answer == ""
