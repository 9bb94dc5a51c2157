"""LLaDA's and Dream's published loops, token by token, on small random networks; the end token; rows that end."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from reference import decoding, text_models

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.decoding_rules import (
    ConfidenceThreshold,
    Factor,
    LeastEntropy,
    LeftToRight,
    LowConfidence,
    Margin,
    RandomOrder,
    RankThenSample,
)
from diffq.samplers.eags import EAGS

ROWS, PROMPT, LENGTH = 6, 4, 20


def prompted():
    canvas = text_models.canvas(ROWS, LENGTH)
    free_BL = torch.zeros_like(canvas.free_BL)
    free_BL[:, PROMPT:] = True
    return canvas.replace(free_BL=free_BL)


@pytest.mark.parametrize("name", ["mdlm", "mdlm_timed", "sedd"])
@pytest.mark.parametrize(("block", "steps"), [(16, 16), (8, 16), (4, 8), (16, 5)])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
def test_low_confidence_is_lladas_loop(name, block, steps, temperature):
    model, canvas = text_models.build(name), prompted()
    theirs = decoding.llada(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, block=block, steps=steps, temperature=temperature, seed=4
    )
    sampler = LowConfidence(block=block, steps=steps, temperature=temperature)
    assert torch.equal(sampler(model.denoiser(), canvas, Rng(4)).tokens_BL, theirs)


@pytest.mark.parametrize(
    ("sampler", "alg"), [(LowConfidence, "maskgit_plus"), (Margin, "topk_margin"), (LeastEntropy, "entropy")]
)
@pytest.mark.parametrize(
    "dials",
    [{"temperature": 0.0}, {"temperature": 0.7}, {"temperature": 0.9, "top_p": 0.8}, {"temperature": 0.0, "top_k": 9}],
)
@pytest.mark.parametrize("steps", [16, 7, 40])
def test_ranking_rules_are_dreams_loop(sampler, alg, dials, steps):
    """The paces of Dream write 40 steps' worth of nothing for 16 positions in many of its steps."""
    model, canvas = text_models.build("mdlm"), prompted()
    theirs = decoding.dream(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, steps=steps, alg=alg, seed=4, **dials
    )
    made = sampler(steps=steps, pace="dream", confidence="sharpened", **dials)
    assert torch.equal(made(model.denoiser(), canvas, Rng(4)).tokens_BL, theirs)


ALL = [
    RandomOrder(), LeftToRight(), LowConfidence(), RankThenSample(), Margin(), LeastEntropy(),
    ConfidenceThreshold(threshold=0.05), Factor(factor=3.0),
]  # fmt: skip


@pytest.mark.parametrize("sampler", ALL, ids=lambda s: s.kind)
def test_a_row_does_not_depend_on_the_rows_beside_it(sampler):
    """Rows of different numbers of free positions, so that they are in different blocks at the same time."""
    model, canvas = text_models.build("mdlm_timed").denoiser(), text_models.canvas(ROWS, LENGTH)
    for dials in ({}, {"block": 3}, {"block": 5, "scale": 1.5, "temperature": 0.8}):
        made = sampler.replace(**dials)
        together = made(model, canvas, Rng(0)).tokens_BL
        for b in (0, 2, 5):
            alone = made(model, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL
            assert torch.equal(together[b : b + 1], alone), dials


def test_the_mask_is_never_drawn_unless_it_may():
    model, canvas = text_models.build("mdlm"), prompted()
    with torch.no_grad():
        model.net.output_layer.linear.bias[model.mask] = 30.0
    filled = LowConfidence(temperature=0.0)(model.denoiser(), canvas, Rng(0)).tokens_BL
    assert int(filled.max()) < model.mask
    sampler = LowConfidence(temperature=0.0, steps=8, block=8, allow_mask=True)
    theirs = decoding.llada(
        model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, block=8, steps=8, allow_mask=True, seed=4
    )
    filled = sampler(model.denoiser(), canvas, Rng(4)).tokens_BL
    assert bool((filled == model.mask).any())
    assert torch.equal(filled, theirs)


def frequent(sampler, canvas):
    """The token that most is written of, to be the end."""
    filled = sampler(text_models.build("mdlm").denoiser(), canvas, Rng(0)).tokens_BL
    return int(filled[canvas.free_BL].mode().values)


@pytest.mark.parametrize("rule", [RandomOrder, LeftToRight, partial(EAGS, order="random")])
def test_no_end_token_waits_where_the_order_is_known(rule):
    rule(ending="never")
    with pytest.raises(UserError, match="the order is known before anything is drawn"):
        rule(ending="last")


@pytest.mark.parametrize("also", [False, True])
@pytest.mark.parametrize("rule", [LowConfidence, RankThenSample, Margin, LeastEntropy])
def test_the_end_token_waits_or_stays_away(rule, also):
    """Whether it is the first, or another of those that end an answer."""
    model, plain = text_models.build("mdlm").denoiser(), prompted()
    end = frequent(rule(), plain)
    canvas = plain.replace(end=(end + 1) % 600, also_end=(end,)) if also else plain.replace(end=end)
    written = {}
    for ending in ("free", "last", "never"):
        steps = []

        def look(step, steps=steps):
            steps.append(int(((step.draft() == end) & canvas.free_BL).sum()))

        rule(ending=ending)(model, canvas, Rng(0), look)
        written[ending] = steps
    assert written["never"][-1] == 0
    assert written["free"][-1] > 0
    assert sum(written["last"][:8]) < sum(written["free"][:8])


@pytest.mark.parametrize("sampler", ALL, ids=lambda s: s.kind)
def test_rows_that_have_ended_leave(sampler):
    """What comes before the end token is what it would be without leaving, and the network is not asked for more."""
    model, canvas = text_models.build("mdlm").denoiser(), prompted()
    made = sampler.replace(block=4)
    end = frequent(made, canvas)
    whole, stops = Meter(model), Meter(model)
    full = made(whole, canvas, Rng(0)).replace(end=end).cut_at_end()
    for ends in ({"end": end}, {"end": (end + 1) % 600, "also_end": (end,)}):
        ended = made(stops, canvas.replace(**ends), Rng(0)).cut_at_end()
        if "also_end" not in ends:
            assert torch.equal(full.valid_BL, ended.valid_BL)
        same = ended.valid_BL & full.valid_BL
        assert torch.equal(full.tokens_BL[same], ended.tokens_BL[same])
        assert bool((~ended.valid_BL | full.valid_BL).all())  # the other end may come before
        assert stops.nfe_rows < whole.nfe_rows
        stops = Meter(model)


def test_paces_and_numbers_of_steps():
    canvas = prompted()
    for steps, calls in ((16, 16), (100, 16), (5, 5), (4, 4)):
        meter = Meter(text_models.build("mdlm").denoiser())
        LowConfidence(steps=steps)(meter, canvas, Rng(0))
        assert meter.nfe_calls == calls
    with pytest.raises(UserError, match="steps=2 are fewer than the 4 blocks"):
        LowConfidence(steps=2, block=4)(text_models.build("mdlm").denoiser(), canvas, Rng(0))


def test_more_is_written_at_once_where_less_is_asked_for():
    model, canvas = text_models.build("mdlm").denoiser(), prompted()
    calls = []
    for sampler in (ConfidenceThreshold(threshold=0.9), ConfidenceThreshold(threshold=1e-6), Factor(factor=1e-6)):
        meter = Meter(model)
        sampler.replace(block=8)(meter, canvas, Rng(0))
        calls.append(meter.nfe_calls)
    assert calls[1] == 2, "a block a call"
    assert calls[0] > calls[1]
    assert calls[2] == 16
