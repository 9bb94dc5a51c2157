"""The picture of Pass@k: which curves it has, and that it is the same for the same points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from synthetic import point

from diffq.report.curves import Panel, curve_of, draw_curves, panels, save_curves
from diffq.report.points import Figure


def solver(sampler: str, rate: float, **dials):
    made = point(sampler, 0, 0, **dials)
    figures = {
        f"pass_at_{k}": Figure(f"pass_at_{k}", v := 100 * (1 - (1 - rate) ** k), "s", "higher", v - 2, v + 2)
        for k in (32, 1, 8)
    }
    return replace(made, dataset="sudoku", figures=figures | {"pass_at_n": figures["pass_at_32"]})


POINTS = [
    *(solver("random", 0.2 + t / 4, temperature=t, steps=n) for t in (0.25, 1.0) for n in (12, 8, 6, 4)),
    *(solver("imh", 0.4, alpha=4.0, steps=n) for n in (12, 6, 4)),
]


def test_curves_go_by_k_and_nothing_else_is_one():
    assert [k for k, *_ in curve_of(POINTS[0])] == [1, 8, 32]
    assert curve_of(point("cfg", 30, 20)) == []


def test_panels_are_the_steps_that_samplers_share():
    (row,) = panels(POINTS)
    assert [panel.title for panel in row] == ["steps = 12", "steps = 6", "steps = 4"]
    ((one,),) = panels(POINTS[:1])
    assert one.title == ""
    assert panels([point("cfg", 30, 20)]) == []


def test_of_a_sampler_the_plainest_and_the_best_are_drawn():
    ((first, *_),) = panels(POINTS)
    assert [(p.sampler, p.dials.get("temperature")) for p in first.points] == [
        ("random", 0.25),
        ("random", 1.0),
        ("imh", None),
    ]
    figure = draw_curves(panels(POINTS))
    assert len(figure.axes) == 3
    (line, *_) = figure.axes[0].lines
    assert np.allclose(line.get_ydata(), [value for _, value, _, _ in curve_of(first.points[0])])


def test_where_a_step_costs_more_all_are_drawn_again_with_the_same_rows():
    """IMH's 6 steps cost 7.5 rows, for which others get 6 steps too; its 8 cost 12, for which they get 12."""
    costs = {("random", n): n for n in (12, 8, 6, 4)} | {("imh", 12): 18, ("imh", 8): 12, ("imh", 6): 7.5}
    made = [*POINTS[:8], solver("imh", 0.4, alpha=4.0, steps=12), solver("imh", 0.4, alpha=4.0, steps=8), POINTS[9]]
    made = [replace(p, costs={"nfe_rows": 10 * costs[p.sampler, p.dials["steps"]], "rows": 10}) for p in made]
    above, below = panels(made)
    assert [panel.title for panel in above] == ["steps = 12", "steps = 8", "steps = 6"]
    assert [panel.title for panel in below] == [f"up to {rows} network rows" for rows in ("18", "12", "7.5")]
    spent = [{(p.sampler, p.dials["steps"]) for p in panel.points} for panel in below]
    assert spent == [
        {("random", 12), ("imh", 12)},
        {("random", 12), ("imh", 8)},
        {("random", 6), ("random", 6), ("imh", 6)},
    ]
    assert len(draw_curves([above, below]).axes) == 6
    better = [replace(p, figures=solver("random", 0.9).figures) if p.dials["steps"] == 4 else p for p in made]
    (*_, panel) = panels(better)[1]
    assert [p.dials["steps"] for p in panel.points if p.sampler == "random"] == [6, 4], "the best may be a cheaper one"
    exact = replace(solver("power", 0.5), dials={"alpha": 4}, costs={"nfe_rows": 3000, "rows": 10})
    assert all(exact in panel.points for panel in panels([*made, exact])[0])
    assert not any(exact in panel.points for panel in panels([*made, exact])[1])
    whole = [*made, replace(solver("best_of", 0.5, steps=12), costs={"nfe_rows": 480, "rows": 10})]
    assert [panel.title for panel in panels(whole)[1]] == [panel.title for panel in below]


def test_the_same_points_give_the_same_bytes(tmp_path):
    first, second = (save_curves(POINTS, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "random, temperature 1" in first[1].read_text()
    assert save_curves([point("cfg", 30, 20)], tmp_path / "c") == ()


def test_settings_of_one_sampler_are_told_apart_and_look_alike_in_all_panels():
    others = ({}, {"positions": "confidence"}, {"within": "exact"})
    own = {"positions": "random", "within": "independent"}
    made = [solver("imh", 0.4 + n / 10, steps=12 - n, **(own | other)) for n, other in enumerate(others)]
    made = [replace(made_one, changed=tuple(other)) for made_one, other in zip(made, others, strict=True)]
    fewer = replace(made[0], key="fewer", dials=made[0].dials | {"steps": 4})
    rows = [
        [Panel("", tuple(made[:2])), Panel("", (made[0], made[2]))],
        [Panel("", (made[0], fewer))],
    ]
    figure = draw_curves(rows)
    shown = [
        (line.get_label(), line.get_linestyle(), line.get_markerfacecolor())
        for axes in figure.axes
        for line in axes.lines
    ]
    dashes = {label: style for label, style, _ in shown}
    assert len(set(dashes.values())) == len(dashes) == 3
    assert all(style == dashes[label] for label, style, _ in shown)
    assert dashes["imh"] == "-"
    (first, second) = [face for *_, face in shown[-2:]]
    assert (first != "white", second) == (True, "white"), "two of one name in a panel"
