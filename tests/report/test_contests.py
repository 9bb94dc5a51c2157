"""Claims about samplers, put to the test on made-up points whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from synthetic import B, point

from diffq.report.contests import Task, contest_tables, rows_a_sample
from diffq.report.points import Figure
from diffq.runs.paper_tables import markdown

SPEC = yaml.safe_load((Path(__file__).parents[2] / "conf/paper/2604.00375.yaml").read_text())
CLAIMS = [claim["text"] for claim in SPEC["contests"]["claims"]]
PASS_1, PASS_32, GAIN, DISTINCT, ENTROPY, WITHIN, FRONT_RANDOM, FRONT_LOW, *_ = CLAIMS


def figure(name: str, value: float, spread: float = 0.3, halves: bool = True) -> Figure:
    noise = np.random.default_rng(sum(map(ord, name)) + int(10 * value)).standard_normal((3, B))
    draws = value + spread * noise[0]
    low, high = np.quantile(draws, [0.025, 0.975])
    split = value + spread * 2**0.5 * noise[1:] if halves else None
    return Figure(name, value, f"{name}|s:32|v:1", "higher", float(low), float(high), draws, split)


def answers(sampler: str, once: float, often: float, rows: float = 12.0, spread: float = 0.3, entropy: float = 1.0,
            bound: float | None = None, distinct: float = 2.0, **dials):  # fmt: skip
    values = {"pass_at_1": once, "pass_at_32": often, "distinct_solutions": distinct, "answer_entropy": entropy}
    made = point(sampler, 0, 0, **({"temperature": 1.0, "steps": 12} | dials))
    return replace(
        made,
        dataset="sudoku",
        samples=32,
        sources=100,
        costs={"nfe_rows": rows * 3200},
        records={} if bound is None else {"entropy_bound": bound / rows},
        figures={
            name: figure(name, value, spread if name.startswith("pass") else spread / 20)
            for name, value in values.items()
        },
    )


def dilemma(spread: float = 0.3) -> list:
    """Low confidence is right at once and alike always; random order the other way; IMH better than both, for 1.5 times
    the rows."""
    return [
        answers("random", 40, 95, entropy=2.0, distinct=4.0, spread=spread),
        answers("random", 55, 90, entropy=1.5, distinct=3.0, spread=spread, temperature=0.5),
        answers("low_confidence", 80, 82, entropy=0.5, distinct=1.2, spread=spread),
        answers("low_confidence", 81, 81, entropy=0.4, distinct=1.1, spread=spread, temperature=0.5),
        answers("rank_then_sample", 70, 85, entropy=0.7, bound=0.9, spread=spread),
        answers(
            "imh",
            85,
            91,
            rows=18,
            spread=spread,
            alpha=4.0,
            chain=4,
            positions="random",
            distinct=3.5,
            temperature=None,
        ),
        answers(
            "imh",
            70,
            97,
            rows=18,
            spread=spread,
            alpha=2.0,
            chain=4,
            positions="random",
            distinct=4.5,
            temperature=None,
        ),
    ]


def cells(points: list, table: int = 0) -> dict[str, list[str]]:
    made = contest_tables(SPEC, [Task("sudoku", "sudoku, 100 questions", tuple(points))])[table]
    return {row[0]: row[1:] for row in made.cells}


def test_the_dilemma_is_seen():
    found = cells(dilemma())
    assert {text: found[text][0].split("\n")[0] for text in CLAIMS} == dict.fromkeys(CLAIMS, "held")
    assert found[GAIN][0].split("\n")[1].startswith("+53.0 [")  # 95 − 40 − (82 − 80)
    assert found[WITHIN][0].split("\n")[1].startswith("+0.20 [")


def test_claims_that_do_not_hold_and_claims_that_nobody_can_decide():
    turned = dilemma()
    turned[0], turned[2] = (
        replace(turned[0], figures=turned[2].figures), replace(turned[2], figures=turned[0].figures),
    )  # fmt: skip
    found = cells(turned)
    for text in (PASS_1, PASS_32, GAIN, DISTINCT, ENTROPY):
        assert found[text][0].startswith("did not hold"), text
    noisy = cells(dilemma(spread=60))
    assert all(noisy[text][0].startswith("undecided") for text in (PASS_1, PASS_32, FRONT_RANDOM, FRONT_LOW))


def test_a_bound_that_is_broken_is_told():
    points = [*dilemma()[:4], answers("rank_then_sample", 70, 85, entropy=1.2, bound=0.9)]
    assert cells(points)[WITHIN][0].startswith("did not hold\n-0.30")


def test_at_equal_rows_a_front_is_held_against_all_that_is_no_dearer():
    """With 18 rows the others are better than IMH with 18, and IMH with 6 rows meets none that is as cheap."""
    points = [
        *dilemma(),
        answers("random", 90, 99, rows=18, distinct=6.0, steps=18),
        answers("random", 95, 98, rows=18, distinct=5.0, steps=18, temperature=0.5),
        answers("imh", 50, 60, rows=6, steps=4, alpha=4.0, chain=4, positions="random"),
    ]
    assert cells(points)[FRONT_RANDOM][1].startswith("held"), "at 12 steps"
    at_rows = cells(points, table=1)[FRONT_RANDOM]
    assert at_rows[1].startswith("did not hold")
    assert at_rows[2] == ""
    assert rows_a_sample(points[0]) == 12.0


def test_of_several_settings_the_plainest_is_compared():
    points = [*dilemma(), replace(answers("random", 99, 99, block=4), changed=("temperature", "steps", "block"))]
    found, before = cells(points), cells(dilemma())
    assert {text: found[text] for text in (PASS_1, PASS_32, DISTINCT)} == {
        text: before[text] for text in (PASS_1, PASS_32, DISTINCT)
    }


def test_a_task_without_points_says_how_to_measure_it():
    sudoku, countdown = contest_tables(SPEC, [])
    assert "experiment=reasoning_sudoku" in sudoku.cells[0][1]
    assert "experiment=reasoning_countdown" in countdown.cells[0][1]
    assert "not published here" in countdown.notes[0]
    assert "nothing is measured" in markdown([sudoku, countdown])
    alone = [Task("sudoku", "none", (answers("random", 1, 1, steps=0),))]
    assert contest_tables(SPEC, alone)[0].cells[0][0] == "nothing is measured"
