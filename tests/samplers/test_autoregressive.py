"""Next-token sampling with a cache against the same without one, token by token."""

from __future__ import annotations

import math

import pytest
import torch
from reference import tiny
from reference.autoregressive import generate, next_scores

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.autoregressive import Autoregressive

LONGEST = 14
SOURCES = tiny.SOURCES * 4
MODEL = tiny.causal(60)


@torch.no_grad()
def let_answers_end(model):
    """Turns the end token's embedding so that it has some of the mass wherever the network looks."""
    net, canvas = model.net, tiny.canvas()
    prefix = torch.randint(5, 60, (6, 4), generator=torch.Generator().manual_seed(0))
    memory = net.encode(canvas.source_BS, canvas.source_valid_BS)
    hidden = net.decoder(net.place(net.embed(prefix)), None, memory, canvas.source_valid_BS, causal=True)
    looked = net.down(hidden).flatten(0, 1)
    wanted = (looked @ net.embed.weight.t() * model.logit_scale).logsumexp(-1) - 2.5
    net.embed.weight[3] = torch.linalg.lstsq(looked * model.logit_scale, wanted[:, None]).solution[:, 0]


let_answers_end(MODEL)
DENOISER = MODEL.denoiser()


def canvas_of(sources=SOURCES, longest=LONGEST, rows=None):
    return tiny.canvas(sources, [longest] * len(sources), rows)


DIALS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.5},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 2.0, "top_k": 20, "top_p": 0.8},
]


@pytest.mark.parametrize("dials", DIALS)
def test_it_equals_the_textbook_token_by_token(dials):
    filled = Autoregressive(**dials)(DENOISER, canvas_of(), Rng(3))
    found = tiny.answers(filled)
    assert found == generate(MODEL, SOURCES, LONGEST, seed=3, **dials)
    lengths = [len(row) for row in found]
    if dials["temperature"]:
        assert min(lengths) < LONGEST - 4
        assert len(set(lengths)) > 2, lengths


def test_nothing_after_the_end_is_valid():
    filled = Autoregressive()(DENOISER, canvas_of(), Rng(0))
    for tokens, valid in zip(filled.tokens_BL, filled.valid_BL, strict=True):
        n = int(valid.sum())
        assert valid[:n].all()
        assert 3 not in tokens[:n].tolist()
        assert (tokens[n:] == 4).all()  # left as it was


def test_rows_do_not_depend_on_their_batch_or_on_who_has_ended():
    """Rows that have ended leave the batch after eight steps; a row alone never does."""
    whole = tiny.answers(Autoregressive()(DENOISER, canvas_of(), Rng(3)))
    for i in range(0, 24, 3):
        alone = Autoregressive()(DENOISER, canvas_of([SOURCES[i]], rows=[i]), Rng(3))
        assert tiny.answers(alone) == [whole[i]]
    backwards = Autoregressive()(DENOISER, canvas_of(SOURCES[::-1], rows=list(range(24))[::-1]), Rng(3))
    assert tiny.answers(backwards) == whole[::-1]


def test_ended_rows_cost_nothing():
    meter = Meter(DENOISER)
    filled = Autoregressive()(meter, canvas_of(), Rng(3))
    lengths = filled.valid_BL.sum(1)
    assert meter.nfe_calls <= LONGEST
    assert meter.nfe_rows < LONGEST * len(SOURCES)
    for n, calls in zip(lengths.tolist(), meter.row_nfe_B.tolist(), strict=True):
        assert min(n + 1, LONGEST) <= calls <= min(8 * math.ceil((n + 1) / 8), LONGEST)
    assert int(meter.row_nfe_B.sum()) == meter.nfe_rows == meter.positions_projected


def test_everything_ended_stops_the_loop():
    model = tiny.causal(60)
    with torch.no_grad():  # the end token wins wherever the network looks
        model.net.down.bias.copy_(model.net.embed.weight[3] * 50)
    meter = Meter(model.denoiser())
    filled = Autoregressive(temperature=0.0)(meter, canvas_of(), Rng(0))
    assert not filled.valid_BL.any()
    assert meter.nfe_calls == 8


def test_fixed_tokens_stand_and_are_read():
    canvas = canvas_of()
    free = canvas.free_BL.clone()
    free[:, 3] = free[:, 9] = False
    answers = []
    for token in (20, 40):
        held = canvas.replace(free_BL=free, tokens_BL=torch.where(free, canvas.tokens_BL, token))
        filled = Autoregressive(temperature=0.7)(DENOISER, held, Rng(3))
        assert (filled.tokens_BL[:, 3] == token).all()
        assert (filled.tokens_BL[:, 9] == token).all()
        assert filled.valid_BL[:, :10].all()  # no row ends before its last known token
        assert (filled.tokens_BL[:, :10] != DENOISER.end).all()
        answers.append(filled.tokens_BL)
    assert torch.equal(answers[0][:, :3], answers[1][:, :3])
    assert (answers[0][:, 4:9] != answers[1][:, 4:9]).any(1).sum() > 12


def test_shorter_rows_of_a_canvas_stay_within_it():
    canvas = tiny.canvas(SOURCES, [1 + i % 7 for i in range(24)])
    filled = Autoregressive(temperature=2.0)(DENOISER, canvas, Rng(1))
    assert not (filled.valid_BL & ~canvas.valid_BL).any()
    assert torch.equal(filled.tokens_BL[~canvas.valid_BL], canvas.tokens_BL[~canvas.valid_BL])


def test_the_law_of_the_first_token():
    """Chi-square over 4 000 rows of one source; fresh keys would break the bound less than once in 1e9."""
    n = 4000
    source = torch.tensor([SOURCES[0]])
    canvas = tiny.canvas([SOURCES[0]] * n, [1] * n, list(range(n)))
    filled = Autoregressive(temperature=0.8)(DENOISER, canvas, Rng(0))
    scores = next_scores(MODEL, source, torch.ones_like(source, dtype=torch.bool), torch.tensor([[2]]))[0]
    expected = (scores.double() / 0.8).softmax(-1) * n
    drawn = torch.where(filled.valid_BL[:, 0], filled.tokens_BL[:, 0], 3)
    counts = torch.bincount(drawn, minlength=60).double()
    few = expected < 10
    cells = torch.cat([counts[~few], counts[few].sum()[None]])
    wanted = torch.cat([expected[~few], expected[few].sum()[None]])
    k, x = len(cells) - 1, 9 * math.log(10)
    assert k > 5
    assert float(((cells - wanted) ** 2 / wanted).sum()) < k + 2 * math.sqrt(k * x) + 2 * x


def test_steps_are_reported():
    seen = []
    filled = Autoregressive()(DENOISER, canvas_of(), Rng(3), seen.append)
    assert [s.index for s in seen] == list(range(len(seen)))
    assert seen[-1].time_B.shape == (24,)
    assert torch.equal(seen[-1].draft()[filled.valid_BL], filled.tokens_BL[filled.valid_BL])


@pytest.mark.parametrize("dials", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}])
def test_dials_out_of_range_are_refused(dials):
    with pytest.raises(UserError, match="is out of range"):
        Autoregressive(**dials)
