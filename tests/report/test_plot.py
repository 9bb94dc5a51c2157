"""No label covers another, a point or a bar; the same points give the same bytes."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import figure, frontier_points, point

from diffq.report.frontier import build_frontier
from diffq.report.labels import Placer, crosses, inside, meet, overlap
from diffq.report.plot import COLOURS, MARKERS, STYLE, colour_of, darker, dashes_of, draw, marker_of, save_plot
from diffq.report.scales import is_logarithmic

spots = st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300), st.floats(5, 80)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(spots)
def test_placed_labels_touch_nothing(wanted):
    area = (0.0, 0.0, 400.0, 300.0)
    points = [(x - 4, y - 4, x + 4, y + 4) for x, y, _ in wanted]
    placer = Placer(area=area, blocked=list(points))
    placed = [placer.place(x, y, width, 10, 4) for x, y, width in wanted]
    boxes = [p.box for p in placed if p]
    for n, box in enumerate(boxes):
        assert inside(box, area)
        assert not any(overlap(box, other) for other in points)
        assert not any(overlap(box, other) for other in boxes[:n])
    leaders = [p.leader for p in placed if p and p.leader]
    for n, leader in enumerate(leaders):
        assert not any(meet(leader, other) for other in leaders[:n])
        own = next(p.box for p in placed if p and p.leader == leader)
        assert not any(crosses(leader, box) for box in boxes if box != own)


def test_a_lone_label_stands_beside_its_point_and_a_full_picture_has_none():
    placer = Placer(area=(0, 0, 100, 100))
    placed = placer.place(50, 50, 20, 10, 4)
    assert placed is not None
    assert placed.leader is None
    assert Placer(area=(0, 0, 100, 100), blocked=[(0, 0, 100, 100)]).place(50, 50, 20, 10, 4) is None


@pytest.mark.parametrize(
    ("segment", "answer"),
    [((0, 0, 10, 10), True), ((0, 0, 3, 3), False), ((0, 5, 10, 5), True), ((5, 0, 5, 3), False), ((4, 9, 9, 4), True)],
)
def test_segments_and_boxes(segment, answer):
    assert crosses(segment, (4, 4, 7, 7)) is answer


@pytest.fixture(scope="module")
def frontier():
    points, nulls = frontier_points()
    return build_frontier(points, nulls, "self_bleu", "bleu")


def test_no_label_of_a_crowded_picture_covers_anything(frontier):
    with matplotlib.rc_context(STYLE):
        drawn = draw(frontier)
        renderer = drawn.figure.canvas.get_renderer()
        written = [t for t in drawn.figure.axes[0].texts if t.get_text() and t.get_text() != "better"]
        seen = [t.get_window_extent(renderer) for t in written]
    boxes = [placed.box for placed in drawn.labels.values()]
    assert len(boxes) >= len(frontier.front)
    assert {p.key for p in frontier.points} == set(drawn.labels) | set(drawn.omitted)
    for n, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in (*boxes[:n], *drawn.blocked))
    for n, one in enumerate(seen):  # as the letters come out, not as they were planned
        assert not any(one.overlaps(other) for other in seen[:n])


def test_the_same_points_give_the_same_bytes(frontier, tmp_path):
    first = [path.read_bytes() for path in save_plot(frontier, tmp_path / "a")]
    second = [path.read_bytes() for path in save_plot(frontier, tmp_path / "b")]
    assert first == second
    png, svg = first
    assert png.startswith(b"\x89PNG")
    text = svg.decode()
    for word in ("clamp_before_cfg", "Pareto front", "corrupt (null line)", "300 sources × 3 samples", "length: oracle",
                 "self-BLEU", "axis reversed", "better"):  # fmt: skip
        assert word in text
    assert not re.search(r"<dc:date>|20\d\d-\d\d-\d\d", text)


def test_colours_and_markers_differ_and_labels_are_dark():
    assert len(set(COLOURS)) == len(set(MARKERS)) == 8
    assert len({(colour_of(n), marker_of(n)) for n in range(64)}) == 64
    assert len({colour_of(n) for n in range(8)}) == 8, "a picture of up to eight lines has no colour twice"
    assert [dashes_of(n) for n in (0, 7, 8, 16)] == ["-", "-", "--", ":"]

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert min(1.05 / (luminance(darker(c)) + 0.05) for c in COLOURS) > 4.0


def test_one_point_without_intervals_can_be_drawn(tmp_path):
    from dataclasses import replace

    lone = point("cfg", 20, 30, scale=1.0)
    lone = replace(lone, figures={k: replace(f, low=None, high=None, draws=None) for k, f in lone.figures.items()})
    png, _ = save_plot(build_frontier([lone], [], "self_bleu", "bleu"), tmp_path / "one")
    assert png.stat().st_size > 1000


def test_perplexities_far_apart_stand_on_a_logarithmic_axis_and_nothing_leaves_the_picture():
    name = "gen_ppl_given_by_a_judge_with_a_long_name"
    made = []
    for n, value in enumerate((20.0, 300.0, 150_000.0)):
        one = point(f"a_sampler_with_a_long_name_{n}", 30.0 + n, 1.0, steps=n + 1)
        made.append(replace(one, figures=one.figures | {name: figure(name, value, 0.1 * value, "lower", n)}))
    with matplotlib.rc_context(STYLE):
        drawn = draw(build_frontier(made, [], "self_bleu", name))
    axes, (legend,) = drawn.figure.axes[0], drawn.figure.legends
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert axes.get_ylabel().endswith("(quality; lower is better, log axis reversed)")
    assert "150,000" not in (ticks := [label.get_text() for label in axes.get_yticklabels()])
    assert "100,000" in ticks
    low, high = sorted(axes.get_ylim())
    assert low < min(p.figures[name].low for p in made) < max(p.figures[name].high for p in made) < high
    renderer = drawn.figure.canvas.get_renderer()
    for part in (legend.get_window_extent(renderer), axes.get_tightbbox(renderer)):
        assert 0 <= part.x0 < part.x1 <= drawn.figure.bbox.x1
        assert 0 <= part.y0 < part.y1 <= drawn.figure.bbox.y1


@pytest.mark.parametrize(
    ("name", "low", "high", "answer"),
    [("gen_ppl_by_a", 10, 100, True), ("gen_ppl_by_a", 10, 40, False), ("gen_ppl_by_a", 0, 9, False),
     ("cost:seconds", 0.1, 2, True), ("bleu", 0.1, 20, False)],
)  # fmt: skip
def test_which_axes_are_logarithmic(name, low, high, answer):
    assert is_logarithmic(name, low, high) is answer


def test_points_that_are_all_alike_stand_in_the_middle_of_shares_that_there_can_be():
    made = []
    for n, quality in enumerate((68.0, 96.0)):
        one = point(f"sampler_{n}", 30.0, quality, steps=n + 1)
        alike = replace(figure("pass_at_n", 100.0, 0.0), low=100.0, high=100.0)
        made.append(replace(one, figures=one.figures | {"pass_at_n": alike}))
    with matplotlib.rc_context(STYLE):
        drawn = draw(build_frontier(made, [], "pass_at_n", "bleu"))
        axes, renderer = drawn.figure.axes[0], drawn.figure.canvas.get_renderer()
        labels = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
    assert axes.get_xlim() == (95.0, 105.0)
    assert max(axes.get_xticks()) == 100
    assert max(axes.get_yticks()) <= 100
    assert all(0 <= box.x0 < box.x1 <= drawn.figure.bbox.x1 for box in labels)


def test_where_nothing_varies_the_samplers_own_dials_are_written():
    own = point("imh", 20, 30, scale=1.0, alpha=4.0, chain=4, steps=0)
    none = point("low_confidence", 25, 28, scale=1.0, temperature=1.0, steps=0)
    made = [replace(own, changed=(), own=frozenset({"alpha", "chain"})), replace(none, changed=())]
    with matplotlib.rc_context(STYLE):
        axes = draw(build_frontier(made, [], "self_bleu", "bleu")).figure.axes[0]
    assert {text.get_text() for text in axes.texts} == {"", "better", "alpha 4 chain 4"}


def test_where_many_dials_vary_those_that_are_turned_are_written():
    made = []
    for n, turned in enumerate(({"alpha": 8.0}, {"positions": "confidence"}, {"within": "exact"})):
        dials = {"alpha": 4.0, "positions": "random", "within": "independent", "steps": n + 3} | turned
        made.append(replace(point("imh", 20 + 4 * n, 30 - 3 * n, **dials), changed=(*turned, "steps")))
    with matplotlib.rc_context(STYLE):
        drawn = draw(build_frontier(made, [], "self_bleu", "bleu"))
    written = {text.get_text() for text in drawn.figure.axes[0].texts}
    assert written == {"", "better", "alpha 8 n3", "positions confidence n4", "within exact n5"}


def test_lines_have_labels_in_turn():
    """Where there is room for few, the last line has one as well as the first."""
    made = [
        point(f"sampler_{n}", 30 + k % 3 / 10 + n / 50, 20 + k / 50, t=k, u=k % 5) for n in range(4) for k in range(30)
    ]
    with matplotlib.rc_context(STYLE):
        drawn = draw(build_frontier(made, [], "self_bleu", "bleu"))
    assert drawn.omitted
    had = [key.split("-")[0] for key in drawn.labels]
    assert {had.count(f"sampler_{n}") > 0 for n in range(4)} == {True}
