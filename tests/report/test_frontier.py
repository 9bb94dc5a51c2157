"""A frontier holds points that can be compared, and says which ones were left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import figure, frontier_points, point

from diffq.errors import UserError
from diffq.report.frontier import at_equal_diversity, build_frontier, nice_step, reference_line, volumes
from diffq.report.points import ReportPoint, long_dials, make_lines, pick_figures, short_dials
from diffq.store.index import Record


def build(points, nulls=()):
    return build_frontier(points, list(nulls), "self_bleu", "bleu")


def test_directions_are_respected():
    good = point("a", 20, 30, scale=1)
    frontier = build([good, point("a", 30, 20, scale=2), point("a", 10, 10, scale=3), point("a", 40, 40, scale=4)])
    assert frontier.front == {"a-scale1", "a-scale3", "a-scale4"}
    assert frontier.signs.tolist() == [-1, 1]


def test_points_of_another_s_are_never_on_one_front():
    points = [point("a", 20, 30, scale=1), point("a", 30, 35, scale=2)]
    other = replace(point("a", 5, 90, scale=3), samples=8)
    other = replace(other, figures={k: replace(f, signature=f"{k}|s:8|v:1") for k, f in other.figures.items()})
    frontier = build([*points, other])
    assert {p.key for p in frontier.points} == {"a-scale1", "a-scale2"}
    assert frontier.notes == ("1 point with s=8 left out: the front is of s=3, and diversity depends on s",)
    null = replace(point("corrupt", 1, 1, kind="null", q=0.1), samples=8)
    assert build(points, [null]).nulls == ()


def test_what_else_is_left_out_is_said():
    base = [point("a", 20, 30, scale=1), point("a", 30, 35, scale=2)]
    elsewhere = replace(point("b", 1, 1, scale=1), sources_digest="other")
    unscored = replace(point("c", 1, 1, scale=1), figures={"bleu": figure("bleu", 1.0, 0.1)})
    newer = point("d", 1, 1, scale=1)
    newer = replace(
        newer, figures=dict(newer.figures) | {"bleu": replace(newer.figures["bleu"], signature="bleu|s:3|v:2")}
    )
    notes = build([*base, elsewhere, unscored, newer]).notes
    assert len(notes) == 3
    assert any("other sources" in n for n in notes)
    assert any("without self_bleu or bleu" in n for n in notes)
    assert any("another signature" in n for n in notes)
    with pytest.raises(UserError, match=r"no scored metric 'blue' \(did you mean 'bleu'\?\)"):
        build_frontier(base, [], "self_bleu", "blue")
    with pytest.raises(UserError, match="both bleu"):
        build_frontier(base, [], "bleu", "bleu")


def test_one_line_a_sampler_ordered_along_its_dial():
    points = [point("c", 1, 1, scale=s, temperature=t, steps=30) for s in (3, 1, 2) for t in (1.0, 0.0)]
    (line,) = make_lines(points)
    assert line.varying == ("scale", "temperature")
    assert [(s.along, dict(s.fixed)) for s in line.strands] == [
        ("scale", {"temperature": 1.0}),
        ("scale", {"temperature": 0.0}),
    ]
    assert [p.dials["scale"] for p in line.strands[0].points] == [1, 2, 3]
    assert short_dials(points[0], line.varying) == "s3 τ1"
    silent = replace(points[0], idle=frozenset({"temperature"}))
    assert short_dials(silent, line.varying) == "s3"
    assert long_dials(silent, line.varying) == "scale 3"
    twice = make_lines([points[0], replace(points[0], length="fixed_9"), replace(points[0], seed=1)])
    assert [line.label for line in twice] == [
        "c · length oracle · seed 0",
        "c · length fixed_9 · seed 0",
        "c · length oracle · seed 1",
    ]


def test_hypervolume_names_its_rectangle_and_scales_by_it():
    frontier = build([point("a", 40, 50, spread=1e-9, scale=1), point("b", 20, 25, spread=1e-9, scale=1)])
    found, box = volumes(frontier)
    assert box.describe("self_bleu", "bleu") == (
        "reference point self_bleu=100, bleu=0; scaled self_bleu from 100 to 0 and bleu from 0 to 100"
    )
    assert [v.label for v in found] == ["all samplers", "a", "b"]
    assert [v.value for v in found] == pytest.approx([0.6 * 0.5 + 0.2 * 0.25, 0.3, 0.2])
    assert found[0].low == pytest.approx(0.35)


def test_an_unbounded_metric_is_scaled_by_its_range():
    points = [replace(p, figures=dict(p.figures) | {"vendi_ngram": figure("vendi_ngram", v, 0.1)})
              for p, v in ((point("a", 1, 50, scale=1), 1.5), (point("a", 1, 20, scale=2), 2.5))]  # fmt: skip
    frontier = build_frontier(points, [], "vendi_ngram", "bleu")
    found, box = volumes(frontier)
    assert "vendi_ngram from 1.5 to 2.5 (the range of these points)" in box.describe("vendi_ngram", "bleu")
    assert found[0].value == pytest.approx(0.2)


def test_quality_at_equal_diversity():
    exact = {"spread": 1e-9}
    line = [point("cfg", 20, 10, scale=1, **exact), point("cfg", 40, 30, scale=2, **exact)]
    other = [point("causal", 10, 8, temperature=1.0, **exact), point("causal", 50, 28, temperature=0.5, **exact)]
    frontier = build([*line, *other])
    assert reference_line(frontier).label == "causal"
    rows = {(r.label, r.level): r for r in at_equal_diversity(frontier)}
    assert len({level for _, level in rows}) >= 3
    at = rows["cfg", 30]
    assert at.value == pytest.approx(20)
    assert at.gain == pytest.approx(2)
    assert at.gain_low == pytest.approx(2, abs=1e-6)
    assert rows["causal", 30].gain is None
    outside = at_equal_diversity(frontier, levels=[15])
    assert [r.value for r in outside] == [None, pytest.approx(10.5)]


def test_a_lone_point_is_compared_at_its_own_diversity():
    points = [point("causal", 30, 15, temperature=1.0), point("cfg", 20, 10, scale=1), point("cfg", 40, 30, scale=2)]
    (row,) = [r for r in at_equal_diversity(build(points)) if r.level == 30 and r.label == "cfg"]
    assert row.gain == pytest.approx(5)
    assert row.gain_low < 5 < row.gain_high


def test_an_interval_is_given_only_where_resamples_reach_the_level():
    points = [point("a", 20, 10, spread=2, scale=1), point("a", 40, 30, spread=2, scale=2)]
    (edge,) = at_equal_diversity(build(points), levels=[20.0])
    assert edge.value == pytest.approx(10)
    assert edge.low is None


def test_every_line_of_the_made_up_frontier_is_there():
    points, nulls = frontier_points()
    frontier = build(points, nulls)
    assert [line.label for line in frontier.lines] == [
        "dpmpp", "cfg", "clamp_before_cfg", "clamp_after_cfg", "causal", "corrupt", "copy",
    ]  # fmt: skip
    assert sum(len(line.points) for line in frontier.lines) == len(points) + len(nulls)
    assert not frontier.front & {null.key for null in nulls}


@pytest.mark.parametrize(("raw", "step"), [(0.3, 0.5), (1, 1), (1.01, 2), (7, 10), (20, 20), (0.02, 0.02)])
def test_nice_steps(raw, step):
    assert nice_step(raw) == pytest.approx(step)


def test_records_become_points():
    score = {"value": 1.0, "low": None, "high": None, "n": 9, "direction": "higher"}
    metrics = {f"bleu|s:{s}|v:1": score | {"name": "bleu", "value": float(s)} for s in (8, 3, 5)}
    assert pick_figures(metrics, 3)["bleu"].value == 3
    assert pick_figures(metrics, 8)["bleu"].value == 8
    run = {"key": "k", "dials": {"scale": 1.0, "temperature": 0.0}, "sampler": "ddim", "process": "gaussian",
           "samples": 8, "sources": 9, "seconds": 2.0, "nfe_rows": 5}  # fmt: skip
    record = Record.build("points/a", run, metrics)
    made = ReportPoint.of(record, sampler="cfg", samples=3)
    assert (made.sampler, made.canonical, made.samples, made.figures["bleu"].value) == ("cfg", "ddim", 3, 3)
    assert made.plain
    assert not ReportPoint.of(Record.build("a", run | {"sampler": "clamp"}, {})).plain
    assert not ReportPoint.of(Record.build("a", run | {"dials": {"scale": 2.0}}, {})).plain
    assert made.costs == {"seconds": 2.0, "nfe_rows": 5.0}
    assert made.with_draws({"bleu": np.ones(3)}).figures["bleu"].draws.tolist() == [1, 1, 1]
