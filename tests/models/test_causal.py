"""The causal twin: its loss against a plain cross-entropy, its cache against the whole network."""

from __future__ import annotations

import pytest
import torch
from reference import tiny
from reference.autoregressive import next_scores
from reference.embedding import pad
from torch.nn import functional as F

from diffq.diffusion.contracts import GUIDED
from diffq.diffusion.reductions import LogProb, Top
from diffq.errors import UserError
from diffq.models.base import PairBatch, Totals
from diffq.rng import Rng

TARGETS = [[10, 11, 12], [13], [14, 15, 16, 17, 18, 19], [], [22, 23, 24, 25], [7, 8]]


def batch_of(rows=range(6)):
    rows = list(rows)
    source, source_valid = pad([tiny.SOURCES[i] for i in rows], 0)
    target, target_valid = pad([TARGETS[i] for i in rows], 0)
    return PairBatch(source, source_valid, target, target_valid, torch.tensor(rows), torch.zeros(len(rows)).long())


@pytest.mark.parametrize("norm", ["post", "pre"])
@torch.no_grad()
def test_the_loss_is_the_mean_cross_entropy_of_the_next_token(norm):
    """Row by row, without padding, the end token counted."""
    model, totals = tiny.causal(norm=norm), Totals(examples=6, tokens=16)
    total = 0.0
    for source, target in zip(tiny.SOURCES, TARGETS, strict=True):
        ids = torch.tensor([source])
        for i, token in enumerate([*target, 3]):
            prefix = torch.tensor([[2, *target[:i]]])
            scores = next_scores(model, ids, torch.ones_like(ids, dtype=torch.bool), prefix)
            total += float(F.cross_entropy(scores, torch.tensor([token]), reduction="sum"))
    found = float(model.loss(batch_of(), Rng(0), totals)["loss"])
    assert abs(found - total / 22) < 1e-5 * found
    parts = sum(float(model.loss(batch_of(rows), Rng(0), totals)["loss"]) for rows in ([3, 1], [0, 5, 2], [4]))
    assert abs(parts - found) < 1e-5 * found


def test_the_future_is_not_seen():
    model = tiny.causal()
    batch = batch_of([2])
    grads = []
    for i in range(6):
        table = model.net.embed.weight.detach()[torch.tensor([[2, *TARGETS[2]]])].requires_grad_()
        memory = model.net.encode(batch.source_BS, None)
        hidden = model.net.decoder(model.net.place(table), None, memory, None, causal=True)
        (grad,) = torch.autograd.grad(hidden[0, i].sum() + hidden[0, i, 0] * 3, table)
        grads.append(grad[0].abs().sum(-1))
    seen = torch.stack(grads) > 0
    assert torch.equal(seen, torch.ones(6, 7, dtype=torch.bool).tril())


@pytest.mark.parametrize("changes", [{}, {"norm": "pre"}, {"positions": "learned"}, {"embedding": 16, "heads": 4}])
@pytest.mark.parametrize("chunks", [[1] * 7, [7], [3, 1, 2, 1], [1, 6]])
def test_the_cache_equals_the_whole_network(changes, chunks):
    model, canvas = tiny.causal(**changes), tiny.canvas()
    tokens = torch.randint(5, 40, (6, 7), generator=torch.Generator().manual_seed(0))
    session = model.denoiser().open(canvas)
    first = 0
    for n in chunks:
        hidden = session.run(tokens[:, first : first + n])
        first += n
        assert hidden.shape[:2] == (6, n)
        last = torch.arange(6) * n + n - 1
        expected = next_scores(model, canvas.source_BS, canvas.source_valid_BS, tokens[:, :first])
        scores, best = session.read(hidden, last, [Top(40)])[0]
        assert (scores - expected.gather(1, best)).abs().max() < 1e-5
        (log_p,) = session.read(hidden, last, [LogProb(torch.full((6,), 9))])
        assert (log_p - expected.double().log_softmax(-1)[:, 9]).abs().max() < 1e-5
    assert session.length == 7


def test_selected_rows_go_on_as_before():
    model, canvas = tiny.causal(), tiny.canvas()
    tokens = torch.randint(5, 40, (6, 5), generator=torch.Generator().manual_seed(1))
    session = model.denoiser().open(canvas)
    session.run(tokens[:, :2])
    keep = torch.tensor([4, 1, 3])
    session.select(keep)
    hidden = session.run(tokens[keep, 2:])
    expected = next_scores(model, canvas.source_BS[keep], canvas.source_valid_BS[keep], tokens[keep])
    scores, best = session.read(hidden, torch.arange(3) * 3 + 2, [Top(40)])[0]
    assert (scores - expected.gather(1, best)).abs().max() < 1e-5


def test_what_it_cannot_do_is_refused():
    denoiser = tiny.causal().denoiser()
    with pytest.raises(UserError, match="has no unconditional branch"):
        denoiser.open(tiny.canvas(), GUIDED)
    session = denoiser.open(tiny.canvas(lengths=[30] * 6))
    with pytest.raises(UserError, match="a target of 17 tokens is longer than the model's max_length=16"):
        session.run(torch.full((6, 17), 5))
    with pytest.raises(UserError, match="a source of 20 tokens"):
        denoiser.open(tiny.canvas(sources=[[5] * 20], lengths=[3]))
