"""Pairs on one canvas: the layout, its padding, batches, and that no model sees or counts what it must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffq.data.batches import tokenise
from diffq.data.canvases import Row
from diffq.data.laid_out import LaidOutBatches, laid_out_canvas, separator, source_room
from diffq.data.task import Example
from diffq.data.tokenizers import Tokenizer
from diffq.errors import UserError
from diffq.models.base import Totals
from diffq.registry import MODELS
from diffq.rng import Rng

WORDS = [f"w{i}" for i in range(20)]
ROOM = 4


def tokenizer_of(style: str, mask_last: bool = True) -> Tokenizer:
    import tokenizers

    names = ["<s>", "<pad>", "</s>", "<unk>"] if style == "roberta" else ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    mask = "<mask>" if style == "roberta" else "[MASK]"
    vocabulary = [*names, *WORDS, mask] if mask_last else [*names, mask, *WORDS]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: i for i, name in enumerate(vocabulary)}, unk_token=names[3])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    roles = dict(zip(("start", "pad", "end", "unk"), names, strict=True)) | {"mask": mask}
    return Tokenizer(backend, roles)


EXAMPLES = [
    Example(0, "w0 w1 w2", ("w3 w4",)),
    Example(1, "w5", ("w6 w7 w8 w9",)),
    Example(2, "w1 w2 w3 w4 w5", ("w10",)),
    Example(3, "w9 w9", ("w11 w12 w13 w14 w15",)),
]


def batches_of(tokenizer, **more) -> LaidOutBatches:
    pairs = tokenise(EXAMPLES, tokenizer, 20, ROOM)
    return LaidOutBatches(pairs, tokenizer, ROOM, **({"batch_size": 3, "seed": 0} | more))


@pytest.mark.parametrize("style", ["roberta", "bert"])
def test_a_row_is_condition_room_and_end(style):
    tokenizer = tokenizer_of(style)
    start, end, pad = tokenizer.start, tokenizer.end, tokenizer.pad
    batches = batches_of(tokenizer)
    assert batches.pairs.dropped == 1
    assert "1 of 4 pairs were left out" in batches.pairs.note
    batch = batches.collate(np.arange(3), np.zeros(3, dtype=np.int64))
    more = [end] if style == "roberta" else []
    word = {f"w{i}": tokenizer.encode_target(f"w{i}")[0] for i in range(20)}
    first = [start, word["w0"], word["w1"], word["w2"], end, *more, word["w3"], word["w4"], end, end, end]
    second = [start, word["w5"], end, *more, word["w6"], word["w7"], word["w8"], word["w9"], end]
    for b, (row, condition) in enumerate(((first, 5 + len(more)), (second, 3 + len(more)))):
        assert batch.tokens_BL[b].tolist() == row + [pad] * (batch.tokens_BL.shape[1] - len(row))
        assert batch.valid_BL[b].nonzero().squeeze(1).tolist() == list(range(condition, condition + ROOM))
        assert batch.seen_BL[b].nonzero().squeeze(1).tolist() == list(range(len(row)))
    assert batch.tokens == 3 * ROOM
    taken = batch.take(torch.tensor([1]))
    assert taken.tokens_BL.tolist() == [second]
    assert bool(taken.seen_BL.all())


def test_the_canvas_of_sampling_is_the_rows_of_training():
    tokenizer = tokenizer_of("roberta")
    batch = batches_of(tokenizer).collate(np.arange(3), np.zeros(3, dtype=np.int64))
    conditions = {e.index: [*tokenizer.encode_source(e.source), *separator(tokenizer)] for e in EXAMPLES}
    rows = [Row(i, 2, 0) for i in range(3)]
    canvas = laid_out_canvas(rows, conditions, ROOM, tokenizer)
    assert torch.equal(canvas.tokens_BL, batch.tokens_BL.masked_fill(batch.valid_BL, tokenizer.mask))
    assert torch.equal(canvas.free_BL, batch.valid_BL)
    assert torch.equal(canvas.valid_BL, batch.seen_BL)
    assert canvas.end == tokenizer.end
    assert canvas.row_B.tolist() == [row.id for row in rows]
    kept = laid_out_canvas(rows[:1], conditions, ROOM, tokenizer, {0: {1: 9}})
    assert kept.tokens_BL[0, 7] == 9
    assert kept.free_BL[0].nonzero().squeeze(1).tolist() == [6, 8, 9]
    with pytest.raises(UserError, match="room of 4 tokens; positions are 0 … 3"):
        laid_out_canvas(rows[:1], conditions, ROOM, tokenizer, {0: {4: 9}})


def test_a_row_is_cut_at_the_first_end_that_was_written():
    tokenizer = tokenizer_of("bert")
    canvas = laid_out_canvas([Row(0, 0, 0)], {0: tokenizer.encode_source("w0")}, ROOM, tokenizer)
    full = torch.where(canvas.free_BL, 5, canvas.tokens_BL)
    assert bool(canvas.replace(tokens_BL=full).cut_at_end().valid_BL.all())
    full[0, 4] = tokenizer.end
    assert canvas.replace(tokens_BL=full).cut_at_end().valid_BL[0].tolist() == [True] * 4 + [False] * 4


def test_an_answer_ends_behind_its_keywords():
    tokenizer = tokenizer_of("roberta")
    canvas = laid_out_canvas([Row(0, 0, 0)], {0: tokenizer.encode_source("w0")}, ROOM, tokenizer, {0: {2: 9}})
    first = int(canvas.free_BL[0].nonzero()[0])
    full = torch.where(canvas.free_BL, tokenizer.end, canvas.tokens_BL)
    assert (canvas.are_ends(full) & canvas.may_end())[0].nonzero().squeeze(1).tolist() == [first + 3]
    assert int(canvas.replace(tokens_BL=full).cut_at_end().valid_BL.sum()) == first + 3
    full[0, first + 3] = 5
    assert bool(canvas.replace(tokens_BL=full).cut_at_end().valid_BL.all())


def test_rooms_that_do_not_fit_are_refused():
    tokenizer = tokenizer_of("roberta")
    assert source_room(tokenizer, 4, 20) == 14
    assert source_room(tokenizer, 4, 20, 9) == 9
    with pytest.raises(UserError, match="leaves 2 of the model's max_length=20 tokens to a source; give a room of 15"):
        source_room(tokenizer, 16, 20)
    with pytest.raises(UserError, match=r"raise dataset\.max_source and dataset\.room"):
        tokenise(EXAMPLES[3:], tokenizer, 20, 4, raised_by="dataset.max_source and dataset.room")


def test_an_epoch_in_windows_has_every_pair_once_and_sources_of_like_length_together():
    tokenizer = tokenizer_of("bert")
    examples = [Example(i, " ".join(WORDS[: 1 + i * 7 % 20]), ("w1",)) for i in range(64)]
    batches = LaidOutBatches(tokenise(examples, tokenizer, 30, ROOM), tokenizer, ROOM, 4, 0, window=16)
    rows = [batches.global_rows(step)[0] for step in range(16)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(64))
    spread = [np.ptp(batches.pairs.source_lengths[r]) for r in rows]
    assert max(spread) <= 2


SMALL = {"layers": 2, "width": 16, "heads": 2, "max_length": 40}
KINDS = {
    "eags": {"mlp_width": 24},
    "mdlm": {"conditioning": 8},
    "mdlm in blocks": {"conditioning": 8, "block_causal": 3},
    "sedd": {"conditioning": 8},
    "llada": {"mlp_width": 24},
}


@pytest.mark.parametrize("mask_last", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_model_sees_padding_or_learns_a_condition(kind, mask_last):
    tokenizer = tokenizer_of("bert", mask_last)
    torch.manual_seed(0)
    settings = MODELS[kind.partition(" ")[0]](**SMALL, **KINDS[kind])
    model = settings.build(tokenizer).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    batch = batches_of(tokenizer).collate(np.arange(3), np.zeros(3, dtype=np.int64))
    totals = Totals(3, batch.tokens)
    whole = float(model.loss(batch, Rng(0), totals)["loss"])
    assert np.isfinite(whole)
    assert whole > 0
    other = batch.tokens_BL.masked_fill(~batch.seen_BL, 7)
    held = {"valid_BL": batch.valid_BL, "row_B": batch.row_B, "visit_B": batch.visit_B, "seen_BL": batch.seen_BL}
    assert float(model.loss(type(batch)(other, **held), Rng(0), totals)["loss"]) == pytest.approx(whole, rel=1e-5)
    alone = [float(model.loss(batch.take(torch.tensor([b])), Rng(0), totals)["loss"]) for b in range(3)]
    assert sum(alone) == pytest.approx(whole, rel=1e-5)
    seen = batch.tokens_BL.clone()
    seen[:, 1] = 12  # the first word of each condition
    assert float(model.loss(type(batch)(seen, **held), Rng(0), totals)["loss"]) != pytest.approx(whole, rel=1e-5)
