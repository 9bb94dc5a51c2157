"""Claims are held, not held or undecided by their intervals; unknown figures are never shown as published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import figure, point

from diffq.report.frontier import build_frontier
from diffq.report.paper import Gap, claim_table, compare_with_paper, delta_table, difference

SPEC = yaml.safe_load((Path(__file__).parents[2] / "conf/paper/2503.10683.yaml").read_text())


def grid(before: float = 3.0, after: float = -3.0, falls: float = 6.0, spread: float = 0.2):
    made = [point("dpmpp", 30, 14, spread, scale=1.0, temperature=0.0, steps=30)]
    made += [
        point("cfg", 30 + 8 * n, 14 + 3 * n, spread, scale=s, temperature=0.0, steps=30)
        for n, s in enumerate((1.5, 2.0, 3.0), 1)
    ]
    for name, up in (("clamp_before_cfg", before), ("clamp_after_cfg", after)):
        made += [
            point(name, 30 + 8 * n - 6 * t, 14 + 3 * n + up - falls * t, spread, scale=s, temperature=t, steps=30)
            for n, s in enumerate((1.0, 2.0, 3.0), 1)
            for t in (0.0, 0.5, 1.0)
        ]
    return made


def compare(points):
    return compare_with_paper(build_frontier(points, [], "self_bleu", "bleu"), SPEC)


def verdicts(points):
    return {claim.name: claim.verdict for claim in compare(points).claims}


def test_claims_that_hold():
    assert verdicts(grid()) == {"a": "held", "b": "held", "c": "held", "d": "held"}


def test_claims_that_do_not():
    assert verdicts(grid(before=-3, after=3))["c"] == "did not hold"
    assert verdicts(grid(falls=-6))["b"] == "did not hold"


def test_claims_that_cannot_be_decided():
    assert verdicts(grid(spread=9)) == {"a": "undecided", "b": "undecided", "c": "undecided", "d": "undecided"}
    only = [p for p in grid() if p.sampler in ("dpmpp", "cfg")]
    assert verdicts(only) == {"a": "held", "b": "undecided", "c": "undecided", "d": "held"}
    bare = [replace(p, figures={k: replace(f, draws=None) for k, f in p.figures.items()}) for p in grid()]
    assert set(verdicts(bare).values()) == {"undecided"}


def test_differences_stand_beside_what_was_published():
    table = compare(grid())
    deltas = {(d.metric, d.group): d for d in table.deltas}
    assert deltas["BLEU-4", "cfg"].gap.value == pytest.approx(9)
    assert deltas["BLEU-4", "clamp_before_cfg"].gap.value == pytest.approx(12)
    assert "scale=3 temperature=0 steps=30" in deltas["BLEU-4", "cfg"].point
    assert deltas["BERTScore", "cfg"].cell == "needs deberta-xlarge-mnli"
    assert deltas["ROUGE-L", "cfg"].gap.value == pytest.approx(9)
    heads, cells = delta_table(table)
    assert heads[1] == "published"
    assert [row[:2] for row in cells] == [["BLEU-4", "+5.9"], ["ROUGE-L", "+4.8"], ["BERTScore", "+2.2"]]
    published = [row[1] for row in claim_table(table)[1]]
    assert published == ["not published here"] * 3 + ["+5.9, +4.8 and +2.2"]
    assert any("not known" in note for note in table.footnotes)


def test_what_was_not_scored_is_undecided():
    bare = [replace(p, figures={k: f for k, f in p.figures.items() if k != "rouge_l"}) for p in grid()]
    assert verdicts(bare)["d"] == "undecided"
    assert {d.metric: d.gap for d in compare(bare).deltas}["ROUGE-L"] is None


def test_bertscore_of_another_encoder_is_not_compared():
    def with_bert(p, model):
        f = replace(figure("bertscore", 80 + p.dials["scale"], 0.1), signature=f"bertscore|model:{model}|s:3")
        return replace(p, figures=dict(p.figures) | {"bertscore": f})

    small = {d.metric: d for d in compare([with_bert(p, "minilm") for p in grid()]).deltas}
    assert small["BERTScore"].gap is None
    assert small["BERTScore"].cell == "needs deberta-xlarge-mnli; computed with minilm"
    large = {d.metric: d for d in compare([with_bert(p, "deberta-xlarge-mnli") for p in grid()]).deltas}
    assert large["BERTScore"].gap.value == pytest.approx(2)


def test_an_unknown_figure_is_said_to_be_unknown():
    spec = SPEC | {"deltas": [{"metric": "bleu", "label": "BLEU-4"}]}
    table = compare_with_paper(build_frontier(grid(), [], "self_bleu", "bleu"), spec)
    assert delta_table(table)[1][0][1] == "not published here"


def test_the_baseline_has_the_same_steps():
    points = [*grid(), point("cfg", 50, 90, 0.2, scale=3.0, temperature=0.0, steps=10)]
    deltas = {(d.metric, d.group): d for d in compare(points).deltas}
    assert "steps=30" in deltas["BLEU-4", "cfg"].point  # the better one has no baseline of 10 steps


def test_gaps():
    a, b = figure("self_bleu", 20, 1, "lower", 1), figure("self_bleu", 30, 1, "lower", 2)
    assert difference(a, b).value == 10
    assert difference(a, b).verdict == "held"
    assert difference(b, a).verdict == "did not hold"
    assert difference(a, a) == Gap(0, 0, 0)
    assert difference(a, replace(b, draws=None)).verdict == "undecided"
    assert difference(a, replace(b, signature="other")).low is None


@pytest.mark.parametrize("other", [np.inf, -np.inf, np.nan])
def test_no_interval_where_many_resamples_have_no_figure(other):
    draws = np.ones(100)
    draws[:6] = other
    assert Gap.of(1, draws) == Gap(1)
    draws[1:6] = 1
    assert Gap.of(1, draws) == Gap(1, 1, 1)
