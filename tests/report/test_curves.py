"""The picture of Pass@k: which curves it has, and that it is the same for the same points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from synthetic import point

from diffq.report.curves import curve_of, draw_curves, panels, save_curves
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
    assert [title for title, _ in panels(POINTS)] == ["steps = 12", "steps = 6", "steps = 4"]
    one = panels(POINTS[:1])
    assert len(one) == 1
    assert one[0][0] == ""
    assert panels([point("cfg", 30, 20)]) == []


def test_of_a_sampler_the_plainest_and_the_best_are_drawn():
    (_, shown), *_ = panels(POINTS)
    assert [(p.sampler, p.dials.get("temperature")) for p in shown] == [
        ("random", 0.25),
        ("random", 1.0),
        ("imh", None),
    ]
    figure = draw_curves(panels(POINTS))
    assert len(figure.axes) == 3
    (line, *_) = figure.axes[0].lines
    assert np.allclose(line.get_ydata(), [value for _, value, _, _ in curve_of(shown[0])])


def test_the_same_points_give_the_same_bytes(tmp_path):
    first, second = (save_curves(POINTS, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "random, temperature 1" in first[1].read_text()
    assert save_curves([point("cfg", 30, 20)], tmp_path / "c") == ()
