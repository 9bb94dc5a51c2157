"""Expressions are compared by math-verify, in processes that answer in time or are killed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from diffq.data import expressions
from diffq.data.expressions import compare_all
from diffq.errors import UserError

EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    ("2(x+1)", "2x+2"),
    ("3", "x = 3"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("5", r"5 \text{ apples}"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("(1,2)", r"\left(1, 2\right)"),
]
DIFFERENT = [("(1,2)", "(1,3)"), ("(2,1)", "(1,2)"), ("(5,3)", "(2,1)"), ("x", r"\frac{"), ("3", "4"), ("3", "")]


def test_equal_and_different_expressions() -> None:
    verdicts = compare_all([*EQUAL, *DIFFERENT], jobs=1)
    assert [v.outcome for v in verdicts] == ["passed"] * len(EQUAL) + ["failed"] * len(DIFFERENT)
    assert verdicts[0].answer == "0.5"
    assert verdicts[1].answer == "2*x + 2"
    assert verdicts[2].answer == "3"


def test_numbers_that_differ_are_spelled_differently() -> None:
    """However large: they are votes of their own, and solutions of their own."""
    asked = ("2^{100}", "2^{100}+1", "2^{1024}", "3^{2000}", "e^{1000}", "e^{1001}", r"\sqrt{2}", r"\sqrt{3}")
    assert len({v.answer for v in compare_all([("1", text) for text in asked])}) == len(asked)


def test_what_takes_too_long_is_ended_and_the_rest_goes_on() -> None:
    """Powers of powers: sympy would go on for good, and its big integers hear no alarm."""
    tower = "9^{9^{9^{9}}}"
    pairs = [("1", "1"), (tower, "9^{9^{9^{8}}}"), ("10", tower), ("2", "2")]
    began = time.monotonic()
    verdicts = compare_all(pairs, seconds=1, jobs=1)
    assert [v.outcome for v in verdicts][::3] == ["passed", "passed"]
    assert {v.outcome for v in verdicts[1:3]} <= {"timed out", "memory"}
    assert time.monotonic() - began < 60


def test_it_works_in_a_thread() -> None:
    """Where alarms do not."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(compare_all([("1/2", "0.5")])))
    thread.start()
    thread.join()
    assert [v.outcome for v in found] == ["passed"]


def test_nothing_is_asked_of_nobody() -> None:
    assert compare_all([]) == []


def test_a_process_that_does_not_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "expressions_worker.py"
    script.write_text("raise SystemExit(1)")
    monkeypatch.setattr(expressions, "__file__", str(tmp_path / "expressions.py"))
    with pytest.raises(UserError, match="did not start"):
        compare_all([("1", "2")])


def test_an_interruption_ends_the_processes() -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compare_all([("1", "2")] + [("10", "9^{9^{9^{9}}}")] * 8, seconds=60, jobs=2, on_done=interrupt)
    assert time.monotonic() - began < 50


@pytest.mark.data
@pytest.mark.slow
def test_every_answer_of_math500_is_equal_to_itself_by_math_verify_alone(data_dir: Path) -> None:
    lines = (data_dir / "math500/MATH-500.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert sum(v.passed for v in compare_all([(a, a) for a in answers])) >= 0.99 * len(answers)
    shifted = [*answers[1:], answers[0]]
    wrong = [(a, b) for a, b in zip(answers, shifted, strict=True) if a.strip() != b.strip()]
    assert sum(v.passed for v in compare_all(wrong)) <= 0.02 * len(wrong)
