"""Masked language models of Hugging Face: the library's own logits at asked positions, padding, samplers, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from diffq.data.tokenizers import SPECIAL_TOKENS, Tokenizer
from diffq.diffusion.contracts import GUIDED, Canvas, Meter
from diffq.diffusion.draws import Draw
from diffq.diffusion.energy import energies
from diffq.diffusion.reductions import LogProb
from diffq.errors import UserError
from diffq.models.checkpoints import describe, load
from diffq.registry import SAMPLERS
from diffq.rng import Rng

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 70,
         "max_position_embeddings": 30}  # fmt: skip
CLASSES = {
    "Roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "XLMRoberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "Bert": {"pad_token_id": 1},
    "Electra": {"pad_token_id": 1, "embedding_size": 16},
    "Albert": {"pad_token_id": 1, "embedding_size": 16},
    "DistilBert": {"pad_token_id": 1, "dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 40},
    "ModernBert": {"pad_token_id": 1, "bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2},
    "DebertaV2": {"pad_token_id": 1, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
}
WORDS = [f"w{i}" for i in range(62)]


def tokenizer_of(folder, mask_last=True):
    """Ids as RoBERTa has them: <s>, <pad>, </s>, <unk>, then words; the mask last or in their middle."""
    import tokenizers

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    names = [*specials, *WORDS, "<mask>"] if mask_last else [*specials, *WORDS[:30], "<mask>", *WORDS[30:]]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    roles = {"start": "<s>", "pad": "<pad>", "end": "</s>", "unk": "<unk>", "mask": "<mask>"}
    Tokenizer(backend, roles).save(folder)


def folder_of(tmp_path, name, mask_last=True, **changes):
    """A model of the library with random weights, saved by it, and the model."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(SMALL | CLASSES.get(name, {}) | changes))
    model = getattr(transformers, f"{name}ForMaskedLM")(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    tokenizer_of(tmp_path, mask_last)
    return tmp_path, model


def canvas_of(lengths, answer, left=False):
    longest = max(lengths) + answer
    tokens_BL = torch.full((len(lengths), longest), 1)
    valid_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    free_BL = valid_BL.clone()
    generator = torch.Generator().manual_seed(0)
    for b, n in enumerate(lengths):
        first = longest - n - answer if left else 0
        tokens_BL[b, first : first + n] = torch.randint(4, 60, (n,), generator=generator)
        tokens_BL[b, first + n : first + n + answer] = 66
        valid_BL[b, first : first + n + answer] = True
        free_BL[b, first + n : first + n + answer] = True
    return Canvas(tokens_BL, free_BL, valid_BL, torch.arange(len(lengths)))


def theirs(model, tokens, words):
    """The library's log-probabilities of one row, the mask and padding left out."""
    with torch.no_grad():
        logits_LV = model(input_ids=tokens[None]).logits[0].double()
    silent = [v for v in range(logits_LV.shape[1]) if v in (1, 66) or v >= words]
    logits_LV[:, silent] = -torch.inf
    return logits_LV.log_softmax(-1)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_asked_positions_have_the_librarys_log_probabilities(tmp_path, name, left):
    folder, model = folder_of(tmp_path, name)
    loaded = load(folder)
    denoiser = loaded.model.denoiser()
    assert (denoiser.mask, denoiser.vocab_size, loaded.model.never) == (66, 66, (1,))
    canvas = canvas_of([9, 4, 6], 3, left)
    session = denoiser.open(canvas)
    at_BK = canvas.free_BL.nonzero()[:, 1].view(3, 3)
    hidden = session.run(canvas.tokens_BL, torch.ones(3), at_BK)
    assert hidden.shape == (3, 3, 24)
    for token in (0, 1, 2, 40, 65):
        (found_N,) = session.read(hidden, torch.arange(9), [LogProb(torch.full((9,), token))])
        for b in range(3):
            expected = theirs(model, canvas.tokens_BL[b][canvas.valid_BL[b]], 66)[-3:, token]
            assert torch.allclose(found_N[3 * b : 3 * b + 3], expected, atol=2e-4)
    assert describe(folder).digest == loaded.digest


def test_only_asked_positions_go_through_the_head(tmp_path):
    """Where the library's head is called, and on how many positions."""
    denoiser = load(folder_of(tmp_path, "Roberta")[0]).model.denoiser()
    seen = []
    denoiser.model.transform.lm_head.dense.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[1]))
    canvas = canvas_of([9, 4], 5)
    session = denoiser.open(canvas)
    hidden = session.run(canvas.tokens_BL, torch.ones(2))
    assert seen == []
    session.read(hidden, canvas.free_BL.flatten().nonzero().squeeze(1)[:4], [Draw(None, 0.0)])
    assert seen == [4]


def test_a_mask_in_the_middle_of_the_vocabulary_is_never_drawn(tmp_path):
    loaded = load(folder_of(tmp_path, "Bert", mask_last=False)[0])
    denoiser = loaded.model.denoiser()
    assert (denoiser.mask, denoiser.vocab_size, loaded.model.never) == (34, 67, (1, 34))
    canvas = canvas_of([5], 4)
    canvas = canvas.replace(tokens_BL=torch.where(canvas.free_BL, 34, canvas.tokens_BL))
    session = denoiser.open(canvas, GUIDED)
    hidden = session.run(canvas.tokens_BL, torch.ones(1))
    (found_N,) = session.read(hidden, torch.arange(18), [LogProb(torch.full((18,), 34))])
    assert bool((found_N == -torch.inf).all())
    session.admit_mask()
    (found_N,) = session.read(hidden, torch.arange(18), [LogProb(torch.full((18,), 34))])
    assert bool((found_N > -100).all())


@pytest.mark.parametrize("sampler", ["ancestral", "first_hitting", "remdm", "eags"])
def test_masked_samplers_serve_them(tmp_path, sampler):
    loaded, canvas = load(folder_of(tmp_path, "Roberta")[0]), canvas_of([9, 4, 6], 4)
    made = SAMPLERS[sampler](**({} if sampler == "first_hitting" else {"steps": 4}))
    meter = Meter(loaded.model.denoiser())
    filled = made(meter, canvas, Rng(0)).tokens_BL
    assert not bool(((filled == 66) | (filled == 1))[canvas.free_BL].any())
    assert torch.equal(filled[~canvas.free_BL], canvas.tokens_BL[~canvas.free_BL])
    texts = canvas.replace(tokens_BL=filled)
    found_B = energies(loaded.model.denoiser(), texts)  # padding behind a row says nothing about it
    for b in range(3):
        alone = texts.map(
            lambda x, b=b: x[b : b + 1, : int(canvas.valid_BL[b].sum())] if x.dim() == 2 else x[b : b + 1]
        )
        torch.testing.assert_close(energies(loaded.model.denoiser(), alone), found_B[b : b + 1], rtol=1e-4, atol=1e-5)


def test_positions_are_as_many_as_the_network_has(tmp_path):
    """RoBERTa's table has two rows for nothing; BERT's has none."""
    roberta = load(folder_of(tmp_path / "a", "Roberta")[0]).model.denoiser()
    bert = load(folder_of(tmp_path / "b", "Bert")[0]).model.denoiser()
    assert (roberta.max_length, bert.max_length) == (28, 30)
    with pytest.raises(UserError, match="longer than the model's max_length=28"):
        roberta.open(canvas_of([25], 4))
    canvas = canvas_of([24], 4)
    assert bool(roberta.open(canvas).run(canvas.tokens_BL).isfinite().all())


def test_padding_that_a_model_cannot_be_told_of_is_refused(tmp_path):
    folder, _ = folder_of(tmp_path / "a", "RoFormer", pad_token_id=1, embedding_size=16)
    denoiser = load(folder).model.denoiser()
    with pytest.raises(UserError, match="put padding behind the texts"):
        denoiser.open(canvas_of([9, 4], 3, left=True))
    denoiser.open(canvas_of([9, 4], 3))
    denoiser = load(folder_of(tmp_path / "b", "FNet", pad_token_id=1)[0]).model.denoiser()
    with pytest.raises(UserError, match="cannot be told of padding"):
        denoiser.open(canvas_of([9, 4], 3))
    canvas = canvas_of([9, 9], 3)
    assert bool(denoiser.open(canvas).run(canvas.tokens_BL).isfinite().all())


def test_heads_that_are_more_than_a_matrix_are_refused(tmp_path):
    folder, _ = folder_of(tmp_path, "MobileBert", embedding_size=16, intra_bottleneck_size=24)
    with pytest.raises(UserError, match=r"more than a transform and a matrix|cannot be told from its layers"):
        load(folder)


def test_left_over_heads_are_allowed_and_other_keys_are_listed(tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = folder_of(tmp_path, "Bert")
    held = load_file(folder / "model.safetensors")
    held |= {"bert.pooler.dense.weight": torch.zeros(24, 24), "cls.seq_relationship.bias": torch.zeros(2)}
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    assert load(folder).model.words == 66
    save_file(held | {"bert.extra": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"unexpected: bert\.extra"):
        load(folder)
    del held["bert.encoder.layer.1.output.dense.bias"]
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"missing: bert\.encoder\.layer\.1\.output\.dense\.bias"):
        load(folder)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    folder, _ = folder_of(tmp_path, "Roberta", vocab_size=67)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert SPECIAL_TOKENS[-1] == "[MASK]"  # what would be added
    with pytest.raises(UserError, match="its tokenizer with its mask has 68"):
        load(folder)
