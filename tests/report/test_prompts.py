"""Points of one sweep that were given different parts of a text: side by side in tables, and never on one front."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import point

from diffq.report.frontier import build_frontier
from diffq.report.given import Given
from diffq.report.prompts import prompt_tables
from diffq.report.seeds import pool_seeds

FIVE, FIFTY, INFILL, LONG = Given(100, 5), Given(100, 50), Given(100, 25, 25), Given(150, 50)


def made(sampler, given, y, **changes):
    """A point of these prompts, whose bleu is y."""
    dials = changes.pop("dials", {"steps": 8})
    found = point(sampler, 30.0, y, **dials)
    return replace(found, key=f"{found.key} {given} {changes}", given=given, sources_digest=str(given), **changes)


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ({"block": 100, "prefix": 5, "suffix": 0, "keep": []}, "5 of 100"),
        ({"block": 100, "prefix": 25, "suffix": 25}, "25 + 25 of 100"),
        ({"block": 100, "suffix": 7}, "0 + 7 of 100"),
        ({"block": 100, "prefix": 2, "suffix": 3, "keep": [0, 1, 40, 41, 99]}, "2 + 3 + 2 between of 100"),
        ({"block": 100, "prefix": 0}, "0 of 100"),
    ],
)
def test_what_is_given_is_said_in_tokens(dataset, shown):
    assert str(Given.of(dataset)) == shown


def test_pairs_are_given_nothing():
    assert Given.of({"max_source": 126}) is None
    assert prompt_tables([point("cfg", 30, 10, scale=s) for s in (1, 2)], ["bleu"]) == []


def test_a_row_a_way_of_sampling_and_a_column_a_prompt():
    points = [
        made("analytic", INFILL, 4.0),
        made("analytic", FIFTY, 3.0),
        made("analytic", LONG, 3.5),
        made("analytic", FIVE, 1.0),
        made("analytic", FIVE, 2.0, dials={"steps": 16}),
        made("nucleus", FIVE, 9.0, dials={"top_p": 0.95}),
    ]
    (table,) = prompt_tables(points, ["bleu", "mauve"])
    assert table.title == "bleu by what is given of the text"
    assert table.heads == ["bleu, given", "5 of 100", "50 of 100", "50 of 150", "25 + 25 of 100"]
    rows = {row[0]: [cell.partition(" [")[0] for cell in row[1:]] for row in table.cells}
    assert rows == {
        "analytic steps 8": ["1.00", "3.00", "3.50", "4.00"],
        "analytic steps 16": ["2.00", "–", "–", "–"],
        "nucleus": ["9.00", "–", "–", "–"],
    }
    assert [entry["value"] for entry in table.data] == [4.0, 3.0, 3.5, 1.0, 2.0, 9.0]
    assert table.data[0]["given"] == {"block": 100, "prefix": 25, "suffix": 25, "others": 0}
    assert prompt_tables(points[4:], ["bleu"]) == [], "where all are given the same there is nothing to compare"


def test_whatever_tells_points_of_one_prompt_apart_stands_in_the_row():
    points = [made("a", g, 1.0, model=m, seed=s) for g in (FIVE, FIFTY) for m in ("small", "large") for s in (0, 1)]
    (table,) = prompt_tables(pool_seeds(points), ["bleu"])
    assert [row[0] for row in table.cells] == ["a · small", "a · large"]
    (table,) = prompt_tables([made("a", g, 1.0, samples=s) for g in (FIVE, FIFTY) for s in (1, 5)], ["bleu"])
    assert [row[0] for row in table.cells] == ["a · s 1", "a · s 5"]


def test_a_front_is_of_one_prompt_and_says_so():
    points = [made(name, given, 1.0) for given in (FIVE, FIFTY) for name in ("a", "b")]
    frontier = build_frontier([*points, made("c", FIFTY, 2.0)], [], "self_bleu", "bleu")
    assert {p.given for p in frontier.points} == {FIFTY}
    assert frontier.notes == ("2 points of other prompts left out: the front is of 50 of 100 tokens given",)


def test_only_of_running_text_something_is_given() -> None:
    assert Given.of({"block": 19, "givens": 4}) is None
    assert Given.of({"block": 100, "prefix": 25, "suffix": 25, "keep": None}) == Given(100, 25, 25)
