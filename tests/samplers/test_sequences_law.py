"""Whole sequences by enumeration: their laws on a joint, and the probabilities of their paths.

Each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import pytest
import torch
from reference import decoding, tabular, text_models

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.decoding_rules import RandomOrder
from diffq.samplers.sequences import BestOf, Power, SequenceIMH

WORDS, LENGTH, ROWS = 2, 3, 3000
DENOISER = tabular.TabularMasks(tabular.joint(WORDS, LENGTH, seed=5))
STATES = tabular.states(WORDS, LENGTH)
JOINT = DENOISER.joint.flatten()


def check(sampler, law):
    by_state = dict(zip(STATES, law.tolist(), strict=True))
    tabular.check(sampler, DENOISER, tabular.canvas(LENGTH, ROWS, WORDS), by_state)


def proposal_of(alpha, order):
    """q(x) of sharpening token by token along an order."""
    found = torch.zeros(len(STATES), dtype=torch.float64)
    for n, state in enumerate(STATES):
        now, q = (DENOISER.mask,) * LENGTH, 1.0
        for i in order:
            p = DENOISER.log_weights(now, i, 0.5).exp() ** alpha
            q *= float(p[state[i]] / p.sum())
            now = tuple(state[k] if k == i else t for k, t in enumerate(now))
        found[n] = q
    return found


@pytest.mark.parametrize("chain", [0, 1, 5])
def test_the_law_of_a_chain_over_texts(chain):
    for alpha in (0.5, 3.0):
        g = proposal_of(alpha, range(LENGTH))
        law = decoding.after_chain(g, alpha * JOINT.log() - g.log(), chain)
        check(SequenceIMH(alpha=alpha, chain=chain, positions="left_to_right"), law)
        law = decoding.after_chain(JOINT, (alpha - 1) * JOINT.log(), chain)
        check(SequenceIMH(alpha=alpha, chain=chain, proposal="plain"), law)


def test_a_long_chain_and_the_enumeration_sample_the_tempered_joint():
    for alpha in (0.5, 4.0):
        law = JOINT**alpha / (JOINT**alpha).sum()
        check(Power(alpha=alpha, floor=1e-12), law)
        check(SequenceIMH(alpha=alpha, chain=24, positions="left_to_right"), law)


def test_the_best_of_several_has_the_law_of_a_maximum():
    order = JOINT.argsort()
    above = JOINT[order].cumsum(0)
    law = torch.zeros_like(JOINT)
    law[order] = above**3 - torch.cat([above.new_zeros(1), above[:-1]]) ** 3
    check(BestOf(candidates=3), law)


def test_one_text_is_that_of_the_random_order():
    model, canvas = text_models.build("mdlm").denoiser(), text_models.canvas(5, 14)
    for dials in ({}, {"block": 4, "tokens_per_step": 2}):
        plain = RandomOrder(temperature=0.25, **dials)(model, canvas, Rng(1)).tokens_BL
        assert torch.equal(plain, SequenceIMH(alpha=4.0, chain=0, **dials)(model, canvas, Rng(1)).tokens_BL)
        assert torch.equal(plain, BestOf(candidates=1, temperature=0.25, **dials)(model, canvas, Rng(1)).tokens_BL)


def test_of_one_text_nothing_is_accepted_or_turned_down():
    for chain, told in ((0, set()), (2, {"acceptance", "ess", "spread"})):
        stats = []
        sampler = SequenceIMH(chain=chain)
        sampler(DENOISER, tabular.canvas(LENGTH, 5, WORDS), Rng(0), lambda s, to=stats: to.append(s.stats))
        assert set().union(*stats) == told


def test_rows_are_counted_for_the_row_that_asked():
    meter, canvas = Meter(text_models.build("mdlm").denoiser()), text_models.canvas(5, 14)
    BestOf(candidates=3)(meter, canvas, Rng(0))
    assert torch.equal(meter.row_nfe_B, 3 * canvas.free_BL.sum(1))


def test_enumeration_says_what_it_left_out_and_what_it_cannot_do():
    lost = []
    Power(floor=0.05)(DENOISER, tabular.canvas(LENGTH, 4, WORDS), Rng(0), lambda s: lost.append(s.stats["lost"]))
    kept = float(JOINT[JOINT >= 0.05].sum())
    assert float(lost[-1][0]) == pytest.approx(1 - kept, abs=1e-9)
    with pytest.raises(UserError, match="beginnings have a probability"):
        Power(floor=1e-9, limit=5)(text_models.build("mdlm").denoiser(), text_models.canvas(2, 14), Rng(0))


def test_enumeration_is_refused_at_once_where_it_is_hopeless():
    class Wide:
        """Of ten words, and never run."""

        mask, words = 10, 10

        def open(self, canvas, branches):
            return self

    with pytest.raises(UserError, match=r"120 free tokens of 10 are 10\^120 of them, more than 10\^100; ask for fewer"):
        Power()(Wide(), text_models.canvas(1, 120, given=0), Rng(0))
