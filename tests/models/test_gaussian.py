"""The embedding-diffusion model: its loss written out row by row, its session against plain calls of the network."""

from __future__ import annotations

import pytest
import torch
from reference import reductions as dense
from reference import tiny
from reference.embedding import pad

from diffq.diffusion.contracts import COND, GUIDED, UNCOND
from diffq.diffusion.draws import Draw
from diffq.diffusion.reductions import Entropy, LogProb, Top
from diffq.errors import UserError
from diffq.models.base import PairBatch, Totals
from diffq.rng import Rng, Stream, training_normals, uniform

TARGETS = [[10, 11, 12], [13], [14, 15, 16, 17, 18, 19], [20, 21], [22, 23, 24, 25], [7, 8]]


def batch_of(rows=range(6)):
    rows = list(rows)
    source, source_valid = pad([tiny.SOURCES[i] for i in rows], 0)
    target, target_valid = pad([TARGETS[i] for i in rows], 0)
    return PairBatch(
        source, source_valid, target, target_valid, torch.tensor(rows), torch.tensor([i % 3 for i in rows])
    )


def plain_loss(model, rng, rows, totals):
    """§1.6 row by row, without padding: (loss, mse, anchor, norm, dropped rows)."""
    s, table = model.settings, model.net.embed.weight
    mse = anchor = norm = 0.0
    dropped = 0
    for i in rows:
        row, visit, target = torch.tensor(i), i % 3, torch.tensor(TARGETS[i])
        t, weight = model.timestep_sampler(uniform(rng.key(Stream.TRAIN_TIME, row, visit))[None])
        is_dropped = bool(uniform(rng.key(Stream.TRAIN_DROP, row, visit)) < s.condition_dropout)
        dropped += is_dropped
        source = torch.tensor([[4]] if is_dropped else [tiny.SOURCES[i]])
        clean = table[target]
        noise = torch.stack(
            [training_normals(rng.key(Stream.TRAIN_NOISE, row, visit, p), s.embedding) for p in range(len(target))]
        )
        share = model.alpha_bar_T[t].float()
        y = share.sqrt() * clean + (1 - share).sqrt() * noise
        y0 = model.predict(y[None], t, None, source, None)[0]
        mse = mse + weight[0] * (clean - y0).square().mean() / totals.examples
        log_p = (-torch.cdist(y0, table)).log_softmax(-1)
        anchor = anchor - weight[0] * log_p[range(len(target)), target].sum() / totals.tokens
        spread = y0.mean(-1).square() + ((y0 - y0.mean(-1, keepdim=True)).square().mean(-1) - 1).square()
        norm = norm + weight[0] * spread.sum() / totals.tokens
    return mse + s.anchor * anchor + s.norm_loss * norm, mse, anchor, norm, dropped


@pytest.mark.parametrize(
    "changes",
    [
        {"condition_dropout": 0.5, "norm_loss": 0.3},
        {"condition_dropout": 1.0, "anchor": 0.0},
        {"condition_dropout": 0.0, "anchor": 2.0, "norm": "pre", "time_mlp": True},
    ],
)
def test_the_loss_and_its_gradient_are_those_of_the_formulas(changes):
    model, rng, totals = tiny.gaussian(**changes), Rng(11), Totals(examples=6, tokens=18)
    found = model.loss(batch_of(), rng, totals)
    expected, mse, anchor, norm, dropped = plain_loss(model, rng, range(6), totals)
    assert dropped in {0.5: (1, 2, 3, 4, 5), 1.0: (6,), 0.0: (0,)}[changes["condition_dropout"]]
    torch.testing.assert_close(found["loss"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["mse"], mse.detach(), rtol=1e-5, atol=1e-6)
    if model.settings.anchor:
        torch.testing.assert_close(found["anchor"], anchor.detach(), rtol=1e-5, atol=1e-6)
    if model.settings.norm_loss:
        torch.testing.assert_close(found["norm"], norm.detach(), rtol=1e-5, atol=1e-6)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(found["loss"], parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    for p, a, b in zip(parameters, ours, theirs, strict=True):
        a, b = (torch.zeros_like(p) if g is None else g for g in (a, b))
        assert (a - b).abs().max() < 1e-4 * max(1.0, float(b.abs().max()))


def test_the_loss_with_importance_sampling_is_weighted():
    model, rng, totals = tiny.gaussian(importance_sampling=True, timesteps=12).train(), Rng(3), Totals(6, 18)
    g = torch.Generator().manual_seed(0)
    model.timestep_sampler.history_TN.copy_(torch.rand(12, 10, generator=g) + 0.1)
    model.timestep_sampler.count_T.fill_(10)
    found = model.loss(batch_of(), rng, totals)
    expected, *_ = plain_loss(model, rng, range(6), totals)
    torch.testing.assert_close(found["loss"], expected, rtol=1e-5, atol=1e-6)
    records = model.records()
    assert set(records) == {"t", "loss", "use"}
    before = model.timestep_sampler.count_T.sum()
    model.observe(records)
    assert model.timestep_sampler.count_T.sum() - before == int(records["use"].sum())
    plain = tiny.gaussian(timesteps=12).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "timestep_sampler" not in k})
    watched = model.eval().loss(batch_of(), rng, totals)["loss"]  # a validation draws its timesteps as if nothing was
    torch.testing.assert_close(watched, plain.loss(batch_of(), rng, totals)["loss"])


def test_the_loss_of_a_step_is_the_sum_of_its_parts():
    """Whatever the micro-batches, their order and their padding."""
    model, rng, totals = tiny.gaussian(condition_dropout=0.5), Rng(4), Totals(6, 18)
    whole = model.loss(batch_of(), rng, totals)["loss"]
    parts = sum(model.loss(batch_of(rows), rng, totals)["loss"] for rows in ([5, 0], [2], [4, 1, 3]))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_the_dropped_share_is_that_of_the_setting():
    rows = torch.arange(20_000)
    dropped = uniform(Rng(0).key(Stream.TRAIN_DROP, rows, 1)) < 0.1
    assert abs(int(dropped.sum()) - 2000) < 6.2 * 42.5  # σ = √(20000·0.1·0.9); false alarm below 1e-9


def test_embeddings_are_standardised_after_a_step_where_asked():
    model = tiny.gaussian(normalise_embeddings=True)
    before = model.net.embed.weight.detach().clone()
    model.after_step()
    centred = before - before.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(model.net.embed.weight, expected, atol=1e-6)
    plain = tiny.gaussian()
    before = plain.net.embed.weight.detach().clone()
    plain.after_step()
    assert torch.equal(plain.net.embed.weight, before)


NETWORKS = [
    {},
    {"norm": "pre"},
    {"time_mlp": True, "positions": "learned"},
    {"embedding": 16, "decoder_layers": 1},
    {"norm": "pre", "decoder_layers": 1, "heads": 4},
]


def state_of(canvas, model, seed=1):
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(*canvas.shape, model.settings.embedding, generator=g)
    return y, torch.randint(0, model.settings.timesteps, (len(y),), generator=g)


@torch.no_grad()
def plain(model, canvas, y, t):
    """Two whole calls of the network, one on the source and one on [MASK]."""
    mask = torch.full((len(y), 1), model.mask)
    cond = model.predict(y, t, canvas.valid_BL, canvas.source_BS, canvas.source_valid_BS)
    return cond, model.predict(y, t, canvas.valid_BL, mask, None)


@pytest.mark.parametrize("changes", NETWORKS)
@pytest.mark.parametrize("lengths", [tiny.LENGTHS, [5] * 6])
def test_a_guided_session_equals_two_calls_of_the_network(changes, lengths):
    model, canvas = tiny.gaussian(**changes), tiny.canvas(lengths=lengths)
    y, t = state_of(canvas, model)
    cond, uncond = plain(model, canvas, y, t)
    valid = canvas.valid_BL
    assert (cond - uncond)[valid].abs().max() > 0.1
    denoiser = model.denoiser()
    for branches, expected in ((GUIDED, [cond, uncond]), (COND, [cond]), (UNCOND, [uncond])):
        found = denoiser.open(canvas, branches).run(y, t)
        assert len(found) == len(y) * len(branches)
        for a, b in zip(found.chunk(len(branches)), expected, strict=True):
            assert (a - b)[valid].abs().max() < 1e-5


def test_a_session_can_be_run_again():
    model, canvas = tiny.gaussian(), tiny.canvas()
    session = model.denoiser().open(canvas, GUIDED)
    first = session.run(*state_of(canvas, model))
    session.run(*state_of(canvas, model, seed=2))
    assert torch.equal(session.run(*state_of(canvas, model)), first)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_never_leaks(norm):
    """Neither what stands on padding nor the other rows of the batch change a row's prediction beyond 1e-5."""
    model, canvas = tiny.gaussian(norm=norm), tiny.canvas()
    y, t = state_of(canvas, model)
    valid = canvas.valid_BL
    whole = model.denoiser().open(canvas, GUIDED).run(y, t)
    other = canvas.replace(
        source_BS=torch.where(canvas.source_valid_BS, canvas.source_BS, 37),
        tokens_BL=torch.where(valid, canvas.tokens_BL, 38),
    )
    y_other = torch.where(valid[..., None], y, 50.0)
    again = model.denoiser().open(other, GUIDED).run(y_other, t)
    assert (again - whole)[torch.cat([valid, valid])].abs().max() < 1e-5
    for i, (source, length) in enumerate(zip(tiny.SOURCES, tiny.LENGTHS, strict=True)):
        alone = model.denoiser().open(tiny.canvas([source], [length]), GUIDED).run(y[i : i + 1, :length], t[i : i + 1])
        assert (alone[0] - whole[i, :length]).abs().max() < 1e-5
        assert (alone[1] - whole[len(y) + i, :length]).abs().max() < 1e-5


def test_selected_rows_go_on_as_before():
    model, canvas = tiny.gaussian(), tiny.canvas()
    y, t = state_of(canvas, model)
    whole = model.denoiser().open(canvas, GUIDED).run(y, t)
    session = model.denoiser().open(canvas, GUIDED)
    session.select(torch.tensor([5, 1, 2]))
    part = session.run(y[[5, 1, 2]], t[[5, 1, 2]])
    session.select(torch.tensor([1]))
    last = session.run(y[[1]], t[[1]])
    valid = canvas.valid_BL[[5, 1, 2]]
    for a, b in zip(part.chunk(2), whole.chunk(2), strict=True):
        assert (a - b[[5, 1, 2]])[valid].abs().max() < 1e-5
    assert (last[0] - whole[1])[canvas.valid_BL[1]].abs().max() < 1e-5


@pytest.mark.parametrize("size", [40, 300, 2500])
def test_reading_projects_on_distances(size):
    model = tiny.gaussian(size)
    canvas = tiny.canvas()
    y, _ = state_of(canvas, model)
    positions = torch.tensor([0, 8, 41, 41, 5])
    session = model.denoiser().open(canvas)
    scores = -torch.cdist(y.flatten(0, 1)[positions].double(), model.net.embed.weight.detach().double())
    key = Rng(0).key(Stream.CLAMP_COND, torch.arange(5))
    drawn, best, entropy, log_p = session.read(
        y, positions, [Draw(key, 0.7), Top(2), Entropy(), LogProb(torch.tensor([1, 2, 3, 4, 39]))]
    )
    assert torch.equal(drawn, dense.draw(scores, key, 0.7))
    assert torch.equal(best[1], dense.top(scores, 2)[1])
    assert (best[0] - dense.top(scores, 2)[0]).abs().max() < 1e-4
    assert (entropy - dense.entropy(scores, 1)).abs().max() < 1e-4
    assert (log_p - dense.log_prob(scores, torch.tensor([1, 2, 3, 4, 39]))).abs().max() < 1e-4
    (nearest,) = session.read(y, positions, [Draw(None, 0.0)])
    assert torch.equal(nearest, scores.argmax(-1))
    assert session.read(y, positions[:0], [Draw(key[:0], 1.0)])[0].shape == (0,)


def test_an_embedding_is_nearest_to_itself():
    model = tiny.gaussian(2500)
    denoiser = model.denoiser()
    tokens = torch.arange(2500)
    (found,) = denoiser.open(tiny.canvas()).read(denoiser.embed(tokens)[:, None], tokens, [Draw(None, 0.0)])
    assert torch.equal(found, tokens)


def test_a_model_without_condition_dropout_is_refused_guidance():
    denoiser = tiny.gaussian(condition_dropout=0.0).denoiser()
    assert not denoiser.guidable
    denoiser.open(tiny.canvas(), COND)
    for branches in (GUIDED, UNCOND):
        with pytest.raises(UserError, match="trained without condition dropout"):
            denoiser.open(tiny.canvas(), branches)


def test_what_is_too_long_is_refused():
    denoiser = tiny.gaussian().denoiser()
    with pytest.raises(UserError, match="a target of 17 tokens is longer than the model's max_length=16"):
        denoiser.open(tiny.canvas(lengths=[17] * 6))
    with pytest.raises(UserError, match="a source of 20 tokens is longer"):
        denoiser.open(tiny.canvas(sources=[[5] * 20], lengths=[3]))
    with pytest.raises(ValueError, match="the canvas has none"):
        denoiser.open(tiny.canvas().replace(source_BS=None, source_valid_BS=None))


@pytest.mark.parametrize("changes", [{}, {"time_mlp": True}])
def test_lower_precision_gives_nearly_the_same(changes):
    canvas = tiny.canvas()
    model = tiny.gaussian(**changes)
    y, t = state_of(canvas, model)
    expected = model.denoiser().open(canvas, GUIDED).run(y, t)
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16)
    model.net.position_LD = model.net.position_LD.to(torch.bfloat16)
    found = model.denoiser().open(canvas, GUIDED).run(y, t)
    assert found.dtype == torch.float32
    valid = torch.cat([canvas.valid_BL, canvas.valid_BL])
    assert (found - expected)[valid].abs().mean() < 0.1 * expected[valid].abs().mean()
