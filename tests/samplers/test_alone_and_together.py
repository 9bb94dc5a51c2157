"""What a row is given depends neither on the rows beside it nor on how often the host looks: the rules of decoding."""

from __future__ import annotations

import math

import pytest
import torch
from reference import text_models

from diffq.diffusion.contracts import Canvas
from diffq.rng import Rng
from diffq.samplers import rounds
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
from diffq.samplers.imh import IMH
from diffq.samplers.sequences import SequenceIMH

RANKING = (RankThenSample(), Margin(), LeastEntropy(), LowConfidence(), ConfidenceThreshold(), Factor(),
           IMH(positions="confidence", chain=2), EAGS(steps=10))  # fmt: skip
WORDS = 40


@pytest.mark.parametrize(
    ("sampler", "dials"),
    [
        pytest.param(sampler, dials, id=f"{sampler.kind} {dials}")
        for sampler in RANKING
        for dials in ({}, {"temperature": 0.0}, {"scale": 0.0})
        if dials.keys() <= vars(sampler).keys()
    ],
)
def test_what_nothing_tells_apart_is_not_told_apart_by_rounding(sampler, dials):
    """A network without absolute places finds all positions of a canvas of masks alike but for rounding, which depends
    on the batch; so it does where prompts are masked (scale=0)."""
    denoiser = text_models.build("mdlm", words=WORDS).denoiser()
    canvas = text_models.canvas(8, 20, given=0.3 if dials.get("scale") == 0 else 0.0, words=WORDS)
    made = sampler.replace(**dials)
    together = made(denoiser, canvas, Rng(0)).tokens_BL
    alone = [made(denoiser, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL for b in range(8)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("sampler", [ConfidenceThreshold(threshold=0.05), Factor(factor=4.0)], ids=lambda s: s.kind)
@pytest.mark.parametrize("more", [{}, {"block": 6}, {"ending": "last"}], ids=str)
def test_rows_that_run_along_until_the_host_looks_are_left_alone(sampler, more, monkeypatch):
    """On a GPU the host looks every eighth round; rows that are done must be as they were."""
    denoiser = text_models.build("mdlm", words=WORDS).denoiser()
    canvas = text_models.canvas(16, 20, given=0.4, words=WORDS)
    canvas.free_BL[:, 0] = False
    made = sampler.replace(**more)
    often = made(denoiser, canvas, Rng(0))
    monkeypatch.setattr(rounds, "waits", lambda _: True)
    seldom = made(denoiser, canvas, Rng(0))
    assert torch.equal(often.tokens_BL, seldom.tokens_BL)
    assert torch.equal(seldom.tokens_BL[~canvas.free_BL], canvas.tokens_BL[~canvas.free_BL])


@pytest.mark.parametrize(
    "sampler",
    [RandomOrder(), LeftToRight(), *RANKING, LowConfidence(block=5, ending="last"), EAGS(update="all"), SequenceIMH()],
    ids=lambda s: s.kind,
)
def test_rows_that_ended_are_the_same_whenever_the_host_looks(sampler, monkeypatch):
    denoiser = text_models.build("mdlm", words=WORDS).denoiser()
    canvas = text_models.canvas(16, 18, given=0.0, words=WORDS)
    canvas.free_BL[:, :3], canvas.tokens_BL[:, :3] = False, 5
    drawn = RandomOrder()(denoiser, canvas, Rng(0)).tokens_BL[:, 3:]
    canvas = canvas.replace(end=int(drawn.flatten().bincount().argmax()))  # a token that is drawn often
    often = sampler(denoiser, canvas, Rng(0)).cut_at_end()
    monkeypatch.setattr(rounds, "waits", lambda _: True)
    seldom = sampler(denoiser, canvas, Rng(0)).cut_at_end()
    assert torch.equal(often.valid_BL, seldom.valid_BL)
    assert not often.valid_BL.all(), "none has ended"
    assert torch.equal(often.tokens_BL * often.valid_BL, seldom.tokens_BL * seldom.valid_BL)


def test_the_entropy_bound_of_a_row_that_writes_less_than_others():
    """In its last round it writes 1 position where the row beside it writes 2."""
    denoiser = text_models.build("mdlm", words=WORDS).denoiser()
    tokens_BL, free_BL = torch.full((2, 5), WORDS), torch.ones(2, 5, dtype=torch.bool)
    tokens_BL[:, 0], free_BL[:, 0], tokens_BL[0, 1], free_BL[0, 1] = 3, False, 4, False
    canvas = Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(2))

    def bounds(rows: slice) -> list[list[float]]:
        told: list[list[float]] = []
        made = RankThenSample(tokens_per_step=2)
        made(denoiser, canvas.map(lambda x: x[rows]), Rng(0), lambda s: told.append(s.stats["entropy_bound"].tolist()))
        return told

    together, alone = bounds(slice(0, 2)), bounds(slice(0, 1))
    assert [row[0] for row in together] == pytest.approx([row[0] for row in alone])
    assert all(math.isfinite(value) for row in together for value in row)


def test_a_pace_without_steps_says_nothing():
    canvas = text_models.canvas(2, 16, given=0.0, words=WORDS)
    for number in (1, 4):
        made = LowConfidence(pace="dream", tokens_per_step=number)
        assert made.canonical() == LowConfidence(tokens_per_step=number)
        plan = made.rounds(canvas, made.blocks(canvas))
        assert [stage.written for stage in plan.stages[0]] == [number] * (16 // number)
    assert LowConfidence(steps=4, tokens_per_step=3).canonical() == LowConfidence(steps=4)
    assert LowConfidence(steps=4, pace="dream").canonical() == LowConfidence(steps=4, pace="dream")
