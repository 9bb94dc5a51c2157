"""Claims are held, not held or undecided by their intervals; unknown figures are never shown as published."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import figure, of, point

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
    return [replace(p, figures={name: halved(f) for name, f in p.figures.items()}) for p in made]


def halved(made):
    """With values over halves of the sources, as far from the whole on either side as its resamples are."""
    away = made.draws - made.value
    return replace(made, halves=np.stack([made.value + away, made.value - away]))


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


def unchanged(seed: int, sources: int = 200):
    """A sweep in which no sampler changes BLEU, and CFG raises self-BLEU."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 5, (2, sources))
    dials = [("cfg", s, 0.0) for s in (1, 1.25, 1.5, 2, 3, 4, 6)]
    dials += [(f"clamp_{how}_cfg", s, t) for how in ("before", "after") for t in (0.25, 0.5) for s in (1, 1.5, 2, 3, 4)]
    made = []
    for name, scale, temperature in dials:
        x, y = hard + rng.normal(0, 6, hard.shape)
        made.append(of(name, 40 + 8 * np.log(scale) + x, 20 + y, scale=scale, temperature=temperature, steps=30))
    return compare_with_paper(build_frontier(made, [], "self_bleu", "bleu"), BLEU_ALONE)


BLEU_ALONE = SPEC | {
    "deltas": SPEC["deltas"][:1],
    "claims": [claim | ({"quality": ["bleu"]} if "quality" in claim else {}) for claim in SPEC["claims"]],
}


def test_where_nothing_changes_quality_claims_are_decided_as_rarely_as_promised():
    """60 sweeps. A rate of 2.5 % gives more than 5 in 1 of 250 such runs; judged by what chose them, (a) would hold in
    10 %, (d) in 23 %, and (c) not in 25 % (docs/statistics.md has the rates)."""
    found = Counter((claim.name, claim.verdict) for seed in range(60) for claim in unchanged(seed).claims)
    assert found["a", "undecided"] < 60, "one that cannot be decided at all would pass, too"
    for name, verdict in (("a", "held"), ("c", "held"), ("c", "did not hold"), ("d", "held")):
        assert found[name, verdict] <= 5, (name, verdict)


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
