"""Differences are paired, a front is not above another by luck, and seeds are one point.

Every simulation here has fixed seeds, so it gives the same verdict on every run; the rates in the docstrings are those
with which a right implementation would have failed for other seeds.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import frontier_points, of, point

from diffq.report.compare import difference, neighbours, pairing, to_tell
from diffq.report.findings import findings, pair_table
from diffq.report.frontier import build_frontier, reference_line
from diffq.report.points import Figure, ReportPoint, make_lines
from diffq.report.power import needed
from diffq.report.seeds import pool_seeds
from diffq.report.tables import frontier_rows, table


def test_a_difference_is_paired_over_sources():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 20, 300)
    a, b = (of("a", hard, hard + rng.normal(up, 2, 300)).figures["bleu"] for up in (0, 1))
    found = difference(a, b)
    assert found.clear
    assert found.value == pytest.approx(b.value - a.value)
    assert found.probability == 1
    assert found.narrower == pytest.approx(np.sqrt(2) * 20 / (np.sqrt(2) * 2), rel=0.2)
    lower = difference(*(of("a", hard + up, hard).figures["self_bleu"] for up in (0, 1)))
    assert lower.probability == 0  # less is better, and it is more
    bare = Figure("bleu", 1.0, a.signature, "higher")
    assert (difference(a, bare).low, difference(a, bare).probability) == (None, None)


def seeded(rng, seeds: int, shared: float, n: int = 300) -> list[ReportPoint]:
    """Two settings of one sampler. A source's noise is the same in both to a share `shared` of its variance."""
    source = rng.normal(0, 8, n)
    made = []
    for seed in range(seeds):
        common = rng.normal(0, 1, n)
        for scale in (1.0, 2.0):
            noise = 10 * (np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(0, 1, n))
            made.append(of("a", 40 + 10 * scale + source + noise, 20 + source + noise, seed=seed, scale=scale))
    return made


def test_what_common_random_numbers_are_worth():
    """With three quarters of the noise shared, differences of equal seeds have half the width of others."""
    made = build_frontier(seeded(np.random.default_rng(1), 3, 0.75), [], "self_bleu", "bleu")
    assert pairing(made, "bleu").numbers == (pytest.approx(2, rel=0.15),)
    alone = build_frontier(seeded(np.random.default_rng(1), 3, 0.0), [], "self_bleu", "bleu")
    assert pairing(alone, "bleu").numbers == (pytest.approx(1, rel=0.15),)
    single = build_frontier(seeded(np.random.default_rng(1), 1, 0.75), [], "self_bleu", "bleu")
    assert pairing(single, "bleu").numbers == ()
    assert len(pairing(single, "bleu").sources) == 1


def test_seeds_are_one_point():
    made = build_frontier(seeded(np.random.default_rng(2), 3, 0.5), [], "self_bleu", "bleu")
    assert len(made.points) == 2
    one = made.points[0]
    assert one.seeds == (0, 1, 2)
    values = [part.figures["bleu"].value for part in one.parts]
    assert one.figures["bleu"].value == pytest.approx(np.mean(values))
    assert one.figures["bleu"].between == pytest.approx(np.std(values, ddof=1))
    (line,) = made.lines
    assert line.label == "a"
    other = [of("a", np.arange(9.0), np.arange(9.0), checkpoint=name, scale=1.0) for name in ("x", "y")]
    assert len(pool_seeds(other)) == 2  # two trainings are two models
    assert [each.label for each in build_frontier(other, [], "self_bleu", "bleu").lines] == [
        "a · checkpoint x",
        "a · checkpoint y",
    ]
    named = [replace(each, training=name) for each, name in zip(other, ("ens", "uniform"), strict=True)]
    assert [each.label for each in make_lines(named)] == ["a · ens", "a · uniform"]
    assert [each.label for each in make_lines(named[::-1])] == ["a · ens", "a · uniform"], "one colour in any order"
    same = [replace(each, training="ens") for each in other]
    assert [each.label for each in make_lines(same)] == ["a · checkpoint x", "a · checkpoint y"]


def test_the_interval_of_a_mean_over_seeds_covers():
    """100 worlds with a true value of 20: fewer than 87 covers have probability below 0.001 at a coverage of 95 %."""
    covers = 0
    for world in range(100):
        made = build_frontier(seeded(np.random.default_rng(world), 3, 0.5), [], "self_bleu", "bleu")
        found = made.points[0].figures["bleu"]
        covers += found.low <= 20 <= found.high
    assert covers >= 87


def test_the_number_of_sources_has_the_power_it_promises():
    """400 experiments of the size asked for: a true power of 0.8 gives 288 to 352 clear ones but for 1 in 15,000."""
    rng = np.random.default_rng(0)
    pilot = rng.normal(1, 10, 200)
    need = needed(1.0, float(np.var(pilot, ddof=1)) / 200, sources=200, samples=3)
    means = rng.normal(1.0, 10, (400, need.sources)).mean(1)
    error = np.std(pilot, ddof=1) / np.sqrt(need.sources)
    assert 288 <= (abs(means) > 1.96 * error).sum() <= 352


def test_more_samples_help_as_far_as_the_draws_go():
    """The variance of a source's difference is 4 between sources and 12/s through the draws; s was 3, n was 100."""
    need = needed(1.0, (4 + 12 / 3) / 100, sources=100, samples=3, noise=12 / 3 / 100, more=(1, 3, 12))
    factor = (1.959963984540054 + 0.8416212335729143) ** 2
    assert dict(need.with_samples) == {s: int(np.ceil(factor * (4 + 12 / s))) for s in (1, 3, 12)}
    assert need.sources == dict(need.with_samples)[3]
    assert need.least == int(np.ceil(factor * 4))
    with pytest.raises(ValueError, match="zero"):
        needed(0.0, 1.0, 10, 1)


def test_two_points_tell_how_many_sources_they_need():
    made = build_frontier(seeded(np.random.default_rng(3), 3, 0.0), [], "self_bleu", "bleu")
    (pair,) = neighbours(made)
    need = to_tell(*pair[1:], "bleu")
    assert need.with_samples
    single = build_frontier(seeded(np.random.default_rng(3), 1, 0.0), [], "self_bleu", "bleu")
    assert to_tell(*next(neighbours(single))[1:], "bleu").with_samples == ()
    assert to_tell(pair[1], pair[1], "bleu") is None
    assert need.with_samples[0] == (9, need.sources)  # three seeds of three samples


def test_what_more_samples_are_worth_is_what_differs_between_seeds():
    """Differences here are noise of the draws alone, so four times the samples make do with a quarter of the sources:
    within 20 %, for three pairs of seeds over 300 sources."""
    own = build_frontier(seeded(np.random.default_rng(4), 3, 0.75), [], "self_bleu", "bleu")
    a, b = own.points
    need = to_tell(a, b, "bleu")
    once, _, four = (sources for _, sources in need.with_samples)
    assert four == pytest.approx(once / 4, rel=0.2)
    other = replace(b, parts=tuple(replace(part, seed=part.seed + 10) for part in b.parts))
    assert to_tell(a, other, "bleu").with_samples[-1][1] <= four  # unpaired noise is larger, and taken for more of it


def test_seeds_show_how_far_they_lie_apart():
    made = build_frontier(seeded(np.random.default_rng(2), 3, 0.5), [], "self_bleu", "bleu")
    row, point = frontier_rows(made)[0], made.points[0]
    values = [part.figures["bleu"].value for part in point.parts]
    assert (row["seed"], row["seeds"]) == ("0 1 2", 3)
    assert (row["bleu_least_seed"], row["bleu_greatest_seed"]) == (min(values), max(values))
    assert row["bleu_sd_of_seeds"] == pytest.approx(np.std(values, ddof=1))
    heads, cells = table(made)
    shown = cells[0][heads.index("bleu between seeds")]
    assert shown.startswith("sd ")
    assert f"{min(values):.1f} to {max(values):.1f}" in shown
    single = build_frontier(seeded(np.random.default_rng(2), 1, 0.5), [], "self_bleu", "bleu")
    assert "bleu_sd_of_seeds" not in frontier_rows(single)[0]


def test_the_tables_of_a_report():
    points, nulls = frontier_points()
    made = build_frontier(points, nulls, "self_bleu", "bleu")
    found = findings(made, reference_line(made), points[2], ("bleu", "rouge_l"))
    titles = [table.title for table in found.tables]
    assert titles[0] == "Is one sampler's front above another's?"
    assert "Differences from the baseline (dpmpp steps 30, scale 1, temperature 0)" in titles
    for shown in found.tables:
        assert {len(row) for row in shown.cells} == {len(shown.heads)}
        assert json.loads(json.dumps(shown.data, allow_nan=False))
    above = found.tables[0].data[0]
    assert {"line", "other", "span", "gap", "optimism", "volume", "volume_optimism"} <= set(above)
    two = build_frontier(points[:2], [], "self_bleu", "bleu")
    (pair,) = findings(two, two.lines[0], points[0], ("bleu", "rouge_l")).tables
    assert [row[0].split()[0] for row in pair.cells] == ["bleu", "rouge_l", "self_bleu"]
    bare = point("x", 1, 2)
    bare = replace(bare, figures={k: replace(f, draws=None) for k, f in bare.figures.items()})
    unknown = pair_table(points[0], bare, ())
    assert [row["low"] for row in unknown.data] == [None] * 3
    assert unknown.notes[-1].startswith("No interval for self_bleu, bleu, rouge_l: no statistics a source")
