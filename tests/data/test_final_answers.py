"""Final answers: where they stand in a text, and in what spelling they are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffq.data.final_answers import boxed, final_answer, plain_number, spelled


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ \{1, 2\} }", r"\{1, 2\}"),
        (r"\fbox{7} and \framebox{8}", "8"),
        (r"\boxed 5$", "5"),
        (r"\boxed{9} and \boxed{unfinished", "9"),
        (r"\boxed{unfinished", ""),
        ("no box", ""),
        ("", ""),
    ],
)
def test_the_last_box_that_is_closed(text: str, found: str) -> None:
    assert boxed(text) == found


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        (r"Thus $x = 3$ and \boxed{x^2}. The answer is 7.", "expression", "x^2"),
        ("The final answer is $\\frac{1}{2}$. I hope it is right.", "expression", r"\frac{1}{2}"),
        ("**Answer:** p - q.", "expression", "p - q"),
        ("so $a+b$ holds, and $c$", "expression", "c"),
        (r"so \(a+b\) holds", "expression", "a+b"),
        ("there are 3 of 12", "expression", "12"),
        ("nothing", "expression", ""),
        ("9 * 2 = 18\n#### 18", "number", "18"),
        ("#### 1,450,000\n", "number", "1450000"),
        ("#### $18.00", "number", "18"),
        ("#### 5\n\nQuestion: 3 + 4", "number", "5"),
        (r"\boxed{7} or so. #### 8", "number", "8"),
        (r"\boxed{1{,}234}", "number", "1234"),
        ("The answer is 11 dollars and 12 cents.", "number", "11"),
        ("She has 3 + 4 = 7 apples", "number", "7"),
        ("minus -3.50", "number", "-3.5"),
        ("none", "number", ""),
        (r"\boxed{m + n = 204}", "integer", "204"),
        (r"\boxed{025}", "integer", "25"),
        ("#### 5 but \\boxed{6}", "integer", "6"),
        ("#### 5 but \\boxed{6}", "number", "5"),
        ("#### 18 million", "number", "18000000"),
        ("#### 204/7", "integer", "204/7"),
        ("#### 5/hour", "number", "5"),
        (r"\boxed{18\ \text{dollars}}", "number", "18"),
        (r"\boxed{90^\circ}", "number", "90"),
        (r"\boxed{\frac{204}{7}}", "integer", r"\frac{204}{7}"),
        (r"\boxed{2^{10}}", "integer", "2^{10}"),
        (r"\boxed{204\sqrt{3}}", "integer", r"204\sqrt{3}"),
        ("the answer is 073", "integer", "73"),
    ],
)
def test_where_a_final_answer_stands(text: str, kind: str, found: str) -> None:
    assert final_answer(text, kind) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "plain"),
    [("007", "7"), ("1,450.50", "1450.5"), ("-0.0", "0"), (".5", "0.5"), ("-.50", "-0.5"), ("100", "100"), ("x", "x"),
     ("1000000", "1000000"), ("0.1000", "0.1")],
)  # fmt: skip
def test_a_number_has_one_spelling(text: str, plain: str) -> None:
    assert plain_number(text) == plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"10\%", "10"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        (r"\$5.", "5"),
        ("1,234", "1234"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"x \leq 3", r"x\le 3"),
    ],
)
def test_spellings_that_are_one(one: str, other: str) -> None:
    assert spelled(one) == spelled(other)


@pytest.mark.parametrize(("one", "other"), [("(1,2)", "(2,1)"), ("12", "1, 2"), ("x^2", "x^{3}"), ("-5", "5")])
def test_spellings_that_are_not(one: str, other: str) -> None:
    assert spelled(one) != spelled(other)


@pytest.mark.data
def test_solutions_of_the_files_come_to_their_answers(data_dir: Path) -> None:
    """Of all 1,319 + 7,473 problems of GSM8K, 500 of MATH500 and 30 of AIME 2024."""

    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (data_dir / name).read_text().splitlines()]

    for row in rows("gsm8k/test.jsonl"):
        assert final_answer(row["answer"], "number") == plain_number(row["answer"].rpartition("####")[2].strip())
    for row in rows("math500/MATH-500.jsonl"):
        assert spelled(final_answer(row["solution"], "expression")) == spelled(row["answer"])
    for row in rows("aime/aime2024.jsonl"):
        assert final_answer(row["solution"], "integer") == plain_number(row["answer"])
