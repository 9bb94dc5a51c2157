"""Every rule of decoding by enumeration on a joint over a few tokens.

Each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import math

import pytest
import torch
from reference import decoding, tabular

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng

WORDS, LENGTH, ROWS = 2, 4, 6000
DENOISER = tabular.TabularMasks(tabular.joint(WORDS, LENGTH, seed=5))
START = (DENOISER.mask,) * LENGTH


def check(sampler, law, canvas=None):
    canvas = tabular.canvas(LENGTH, ROWS, WORDS) if canvas is None else canvas
    tabular.check(sampler, DENOISER, canvas, law)


RULES = ["random", "left_to_right", "low_confidence", "rank_then_sample", "margin", "entropy"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("count", "temperature"), [(1, 1.0), (2, 1.0), (1, 0.5), (3, 0.7)])
def test_the_law_of_each_rule(rule, count, temperature):
    law = decoding.push(START, decoding.rule_moves(DENOISER, rule, count, temperature), DENOISER.mask)
    check(SAMPLERS[rule](tokens_per_step=count, temperature=temperature), law)


@pytest.mark.parametrize(
    ("rule", "dials"),
    [("confidence_threshold", {"threshold": 0.6}), ("factor", {"factor": 0.9}), ("factor", {"factor": 2.5})],
)
def test_the_law_of_rules_that_decide_how_much_they_write(rule, dials):
    law = decoding.push(START, decoding.rule_moves(DENOISER, rule, 1, **dials), DENOISER.mask)
    check(SAMPLERS[rule](**dials), law)


def test_one_position_a_step_in_an_order_of_its_own_samples_the_joint_itself():
    joint = dict(zip(tabular.states(WORDS, LENGTH), DENOISER.joint.flatten().tolist(), strict=True))
    for rule in ("random", "left_to_right", "rank_then_sample", "margin", "entropy"):
        law = decoding.push(START, decoding.rule_moves(DENOISER, rule, 1), DENOISER.mask)
        assert all(math.isclose(law[s], p, abs_tol=1e-12) for s, p in joint.items()), rule
    law = decoding.push(START, decoding.rule_moves(DENOISER, "low_confidence", 1), DENOISER.mask)
    assert sum(abs(law[s] - p) for s, p in joint.items()) > 0.1, "drawing before ranking sharpens"


def test_blocks_are_decoded_from_left_to_right():
    """With blocks of one position low confidence is left to right; with blocks of two the left two come first."""
    law = decoding.push(START, decoding.rule_moves(DENOISER, "left_to_right", 1), DENOISER.mask)
    check(SAMPLERS["low_confidence"](block=1), law)

    def moves(state):
        first = 0 if DENOISER.mask in state[:2] else 2
        p = {i: t for i, t in decoding.conditionals(DENOISER, state).items() if first <= i < first + 2}
        best = max(p, key=lambda i: (float(p[i].max()), -i))
        yield from decoding.outcomes({best: p[best]})

    check(SAMPLERS["rank_then_sample"](block=2), decoding.push(START, moves, DENOISER.mask))


def test_given_positions_count_for_nothing():
    canvas = tabular.canvas(LENGTH, ROWS, WORDS, given={1: 1})
    start = (DENOISER.mask, 1, DENOISER.mask, DENOISER.mask)
    law = decoding.push(start, decoding.rule_moves(DENOISER, "low_confidence", 2, 0.8), DENOISER.mask)
    check(SAMPLERS["low_confidence"](tokens_per_step=2, temperature=0.8), law, canvas)


def test_steps_are_shared_out_among_blocks_and_cost_one_row_each():
    for dials, calls in (({"steps": 4}, 4), ({"steps": 2, "block": 2}, 2), ({"tokens_per_step": 3}, 2), ({}, 4)):
        meter = Meter(DENOISER)
        SAMPLERS["low_confidence"](**dials)(meter, tabular.canvas(LENGTH, 5, WORDS), Rng(0))
        assert (meter.nfe_calls, meter.nfe_rows) == (calls, 5 * calls), dials
    with pytest.raises(UserError, match="fewer than the 4 blocks"):
        SAMPLERS["random"](steps=2, block=1)(DENOISER, tabular.canvas(LENGTH, 2, WORDS), Rng(0))


def test_a_known_order_reads_nothing_but_what_it_writes():
    meter = Meter(DENOISER)
    SAMPLERS["random"]()(meter, tabular.canvas(LENGTH, 5, WORDS), Rng(0))
    assert meter.positions_projected == 5 * LENGTH
    meter = Meter(DENOISER)
    SAMPLERS["low_confidence"]()(meter, tabular.canvas(LENGTH, 5, WORDS), Rng(0))
    assert meter.positions_projected == 5 * (4 + 3 + 2 + 1)


def test_the_entropy_bound_holds_under_its_gate():
    """Rank-then-sample with every commit at max p ≥ 1 − δ: H ≤ L·(h(δ) + δ·log(V − 1)) (papers on 2604.00375, §4)."""
    for delta in (0.05, 0.1, 0.3):
        table = torch.full((3,) * 3, 0.0, dtype=torch.float64)
        for index in tabular.states(3, 3):
            table[index] = math.prod((1 - delta) if v == 0 else delta / 2 for v in index)
        denoiser = tabular.TabularMasks(table)
        law = decoding.push((3, 3, 3), decoding.rule_moves(denoiser, "rank_then_sample", 1), 3)
        entropy = -sum(p * math.log(p) for p in law.values())
        bound = 3 * (-delta * math.log(delta) - (1 - delta) * math.log(1 - delta) + delta * math.log(2))
        assert entropy == pytest.approx(bound, rel=1e-9), "reached where errors are spread evenly"
        uneven = table.clone()
        uneven[0, 1, 0] += uneven[0, 2, 0]
        uneven[0, 2, 0] = 1e-300
        law = decoding.push((3, 3, 3), decoding.rule_moves(tabular.TabularMasks(uneven), "rank_then_sample", 1), 3)
        assert -sum(p * math.log(p) for p in law.values() if p) < bound


@pytest.mark.parametrize(("words", "dials"), [(2, {}), (2, {"temperature": 0.5}), (4, {}), (4, {"tokens_per_step": 2})])
def test_the_entropy_bound_that_is_recorded(words, dials):
    """Of two words, one position a step, it is the entropy itself; of more, or below temperature 1, it is above it. All
    by seven standard errors: fresh keys break it less than once in 1e11."""
    denoiser, rows = tabular.TabularMasks(tabular.joint(words, 3, seed=2)), 4000
    bounds = []
    sampler = SAMPLERS["rank_then_sample"](**dials)
    sampler(denoiser, tabular.canvas(3, rows, words), Rng(0), lambda step: bounds.append(step.stats["entropy_bound"]))
    per_row = torch.stack(bounds).nan_to_num(0).sum(0)
    error = 7 * float(per_row.std()) / rows**0.5
    count, temperature = dials.get("tokens_per_step", 1), dials.get("temperature", 1.0)
    moves = decoding.rule_moves(denoiser, "rank_then_sample", count, temperature)
    law = decoding.push((denoiser.mask,) * 3, moves, denoiser.mask)
    entropy = -sum(p * math.log(p) for p in law.values() if p)
    if words == 2 and not dials:
        assert abs(float(per_row.mean()) - entropy) < error
    else:
        assert float(per_row.mean()) - entropy > error


def test_no_entropy_bound_is_told_where_there_is_none():
    steps = []
    SAMPLERS["rank_then_sample"](temperature=1.5)(DENOISER, tabular.canvas(LENGTH, 4, WORDS), Rng(0), steps.append)
    assert not any(step.stats for step in steps)


def test_tempering_is_the_best_trade_of_quality_and_entropy():
    """p^α / Z maximises E log p + λ·H for λ = 1/α: log Z·λ is its value, and every other law has less."""
    p = DENOISER.joint.flatten()
    generator = torch.Generator().manual_seed(0)
    for alpha in (1.0, 2.0, 4.0):
        best = p**alpha / (p**alpha).sum()

        def value(q, alpha=alpha):
            return float((q * p.log()).sum() - (torch.special.xlogy(q, q)).sum() / alpha)

        assert value(best) == pytest.approx(float((p**alpha).sum().log()) / alpha, abs=1e-12)
        for _ in range(50):
            other = torch.rand(len(p), generator=generator, dtype=torch.float64) * best
            assert value(other / other.sum()) < value(best)
