"""Fast samplers of discrete diffusion against the published arrangement, token by token, on small random networks; and
the whole table of masked samplers × masked models."""

from __future__ import annotations

import itertools

import pytest
import torch
from reference import text_models
from reference.masked import Textbook

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng
from diffq.samplers.masked import Analytic, Ancestral, Euler, FirstHitting

ROWS, LENGTH = 6, 20


def equal_rows(model, sampler, book):
    canvas = text_models.canvas(ROWS, LENGTH)
    ours = sampler(model.denoiser(), canvas, Rng(4)).tokens_BL
    theirs = Textbook(model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, seed=4, steps=sampler.steps, **book).run()
    assert torch.equal(ours[~canvas.free_BL], canvas.tokens_BL[~canvas.free_BL])
    assert int(ours.max()) < text_models.WORDS
    return int((ours == theirs).all(1).sum())


@pytest.mark.parametrize("steps", [3, 40])
@pytest.mark.parametrize("name", ["sedd", "sedd_geometric", "sedd_tied", "mdlm", "mdlm_timed"])
def test_normalised_samplers_equal_the_textbook(name, steps):
    model = text_models.build(name)
    for sampler, kind in ((Ancestral(steps=steps), "analytic"), (Euler(steps=steps), "euler")):
        assert equal_rows(model, sampler, {"kind": kind}) == ROWS


@pytest.mark.parametrize("steps", [3, 40])
@pytest.mark.parametrize("name", ["sedd", "sedd_geometric"])
def test_the_published_law_equals_the_textbook(name, steps):
    model = text_models.build(name)
    for kind in (Analytic, Euler):
        sampler = kind(steps=steps, normalise=False)
        assert equal_rows(model, sampler, {"kind": kind.kind, "normalise": False}) == ROWS


@pytest.mark.parametrize("steps", [3, 40])
def test_the_uniform_process_equals_the_textbook(steps):
    model = text_models.build("sedd_uniform")
    for kind in (Analytic, Euler):
        for temperature in (1.0, 0.7):
            sampler = kind(steps=steps, temperature=temperature)
            assert equal_rows(model, sampler, {"kind": kind.kind, "temperature": temperature}) == ROWS


def test_a_row_does_not_depend_on_the_rows_beside_it():
    model = text_models.build("mdlm_timed")
    canvas = text_models.canvas(ROWS, LENGTH)
    for sampler in (Ancestral(steps=8), FirstHitting(), Analytic(steps=8, temperature=0.5, top_p=0.9)):
        together = sampler(model.denoiser(), canvas, Rng(0)).tokens_BL
        for b in (0, 3):
            alone = sampler(model.denoiser(), canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL
            assert torch.equal(together[b : b + 1], alone)


def test_empty_steps_cost_nothing_and_only_what_is_written_is_projected():
    meter = Meter(text_models.build("mdlm").denoiser())
    canvas = text_models.canvas(ROWS, LENGTH)
    free = canvas.free_BL.sum(1)
    FirstHitting()(meter, canvas, Rng(0))
    assert torch.equal(meter.row_nfe_B, free)
    assert meter.nfe_calls == int(free.max())
    assert meter.positions_projected == int(free.sum())
    meter = Meter(text_models.build("mdlm").denoiser())
    Ancestral(steps=1000)(meter, canvas, Rng(0))
    assert bool((meter.row_nfe_B <= free).all())
    assert meter.positions_projected == int(free.sum())
    guided = Meter(text_models.build("mdlm").denoiser())
    Ancestral(steps=4, scale=2.0)(guided, canvas, Rng(0))
    assert guided.positions_projected == 2 * int(free.sum())


# `power` enumerates all texts, which here are too many: see test_sequences_law.
MASKED = sorted(n for n in SAMPLERS.names() if "absorbing" in SAMPLERS[n].processes and n != "power")


@pytest.mark.parametrize("sampler", MASKED)
@pytest.mark.parametrize("name", ["sedd", "sedd_geometric", "sedd_tied", "mdlm", "mdlm_timed"])
def test_every_masked_sampler_serves_every_masked_model(sampler, name):
    """All of the table, with a prompt, guidance and a nucleus: full canvases, prompts kept, the same twice."""
    denoiser = text_models.build(name).denoiser()
    canvas = text_models.canvas(4, 12)
    steps = {"steps": 6} if "steps" in SAMPLERS[sampler].__dataclass_fields__ else {}
    sharper = {"top_p": 0.8, "temperature": 0.9, "alpha": 3.0}
    sharper = {name: value for name, value in sharper.items() if name in SAMPLERS[sampler].__dataclass_fields__}
    for dials in ({}, {"scale": 1.5, **sharper}):
        made = SAMPLERS[sampler](**steps, **dials)
        filled = made(denoiser, canvas, Rng(5)).tokens_BL
        assert int(filled.max()) < denoiser.mask
        assert torch.equal(filled[~canvas.free_BL], canvas.tokens_BL[~canvas.free_BL])
        assert torch.equal(filled, made(denoiser, canvas, Rng(5)).tokens_BL)
        assert not torch.equal(filled, made(denoiser, canvas, Rng(6)).tokens_BL)


def test_on_step_tells_times_that_fall_and_the_canvas_as_it_is():
    seen = []
    canvas = text_models.canvas(ROWS, LENGTH)
    denoiser = text_models.build("mdlm").denoiser()
    filled = Ancestral(steps=5)(denoiser, canvas, Rng(0), lambda s: seen.append((s.time_B, s.draft())))
    times, drafts = zip(*seen, strict=True)
    assert all(bool((b <= a).all()) for a, b in itertools.pairwise(times))
    assert float(times[-1].max()) == 0
    masks = [int((d == denoiser.mask).sum()) for d in drafts]
    assert masks == sorted(masks, reverse=True)
    assert torch.equal(drafts[-1], filled.tokens_BL)


def test_bad_canvases_are_refused():
    denoiser = text_models.build("mdlm").denoiser()
    long = text_models.canvas(2, 30)
    with pytest.raises(UserError, match="max_length=24"):
        FirstHitting()(denoiser, long, Rng(0))
    canvas = text_models.canvas(2, 10)
    masked = canvas.replace(tokens_BL=torch.full_like(canvas.tokens_BL, denoiser.mask))
    with pytest.raises(UserError, match="no word of the model"):
        FirstHitting()(denoiser, masked, Rng(0))
    everything = canvas.replace(free_BL=torch.ones_like(canvas.free_BL))
    with pytest.raises(UserError, match="guidance needs a prompt"):
        FirstHitting(scale=2.0)(denoiser, everything, Rng(0))
    with pytest.raises(UserError, match="no guidance"):
        Analytic(scale=2.0, normalise=False)(text_models.build("sedd").denoiser(), canvas, Rng(0))
    with pytest.raises(UserError, match="steps=0 is out of range"):
        Ancestral(steps=0)


def test_what_is_no_number_is_noticed():
    model = text_models.build("mdlm")
    meter = Meter(model.denoiser())
    FirstHitting()(meter, text_models.canvas(2, 8), Rng(0))
    assert bool(meter.finite)
    with torch.no_grad():
        model.net.blocks[1].attn_out.weight[0, 0] = float("nan")
    meter = Meter(model.denoiser())
    FirstHitting()(meter, text_models.canvas(2, 8), Rng(0))
    assert not bool(meter.finite)
