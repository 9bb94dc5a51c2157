"""Published checkpoints: the same network outputs and the same tokens as a slow reference of the published code."""

from __future__ import annotations

import json

import pytest
import torch
from reference.guidediffuseq import FULL_CONFIG, Published, inference, published_betas

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.gaussian import betas
from diffq.errors import UserError
from diffq.models import checkpoints
from diffq.models.guidediffuseq import load_guidediffuseq
from diffq.rng import Rng, Stream, normal
from diffq.samplers.clamping import DDIM, ClampAfterCFG, ClampAroundCFG, ClampBeforeCFG, ClampResidualCFG, DPMSolverPP

WORDS = [f"w{chr(97 + i)}" for i in range(25)]
SOURCES = [[2, 7, 9, 3], [2, 11, 3], [2, 5, 6, 7, 8, 20, 3], [2, 29, 14, 3]]
LENGTHS = [4, 6, 3, 5]
CLAMPED = {1: ClampAfterCFG, 2: ClampBeforeCFG, 3: ClampAroundCFG, 4: ClampResidualCFG}


def published(folder, tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), **changes):
    """A random checkpoint in the published keys, with a tokenizer file of 30 words."""
    torch.manual_seed(5)
    net = Published(FULL_CONFIG | changes, 30).eval()
    net.save(folder)
    (folder / "vocab.txt").write_text("".join(f"{w}\n" for w in [*tokens, *WORDS]))
    return net


def canvas_of(noise_rows=(3, 1, 4, 8)):
    longest, length = max(map(len, SOURCES)), max(LENGTHS)
    source = torch.tensor([[*s, *[0] * (longest - len(s))] for s in SOURCES])
    source_valid = torch.tensor([[i < len(s) for i in range(longest)] for s in SOURCES])
    valid = torch.arange(length)[None] < torch.tensor(LENGTHS)[:, None]
    return Canvas(
        torch.zeros_like(valid, dtype=torch.long), valid, valid, torch.tensor(noise_rows), source, source_valid
    )


def noise_of(canvas, dim, seed=0):
    keys = Rng(seed).key(Stream.INITIAL_NOISE, canvas.row_B[:, None], 0, torch.arange(canvas.shape[1]))
    return normal(keys[..., None], torch.arange(dim))


VARIANTS = [
    {},
    {"pos_embed_mode": "learned", "time_embed_mode": "learned"},
    {"dim": 16, "noise_schedule": "cosine", "layers_encoder": 1, "layers_decoder": 3},
    {"embed_mode": "bert", "noise_schedule": "linear", "nhead": 4},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_network_gives_what_the_published_one_gives(tmp_path, changes):
    net = published(tmp_path, **changes)
    model, tokenizer = load_guidediffuseq(tmp_path)
    assert (tokenizer.size, tokenizer.mask) == (30, 4)
    canvas, t_B = canvas_of(), torch.tensor([0, 99, 31, 57])
    y = noise_of(canvas, net.config["dim"])
    with torch.no_grad():
        expected = net(y, t_B, canvas.valid_BL, canvas.source_BS, canvas.source_valid_BS)
        found = model.predict(y, t_B, canvas.valid_BL, canvas.source_BS, canvas.source_valid_BS)
    valid = canvas.valid_BL
    assert (found[valid] - expected[valid]).abs().max() < 1e-5
    assert expected[valid].std() > 0.1


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sqrt"])
def test_the_schedules_are_the_published_ones(schedule):
    expected = torch.tensor(published_betas(schedule, 1000), dtype=torch.float64)
    assert (betas(schedule, 1000) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize(("scheduler", "steps"), [("DPM++", 30), ("DDIM", 30)])
def test_the_same_noise_gives_the_published_tokens(tmp_path, scheduler, steps, mode, scale):
    net = published(tmp_path)
    model, tokenizer = load_guidediffuseq(tmp_path)
    if mode:
        flags = {"solver": "dpmpp"} if scheduler == "DPM++" else {"solver": "ddim", "clip_x0": True}
        sampler = CLAMPED[mode](steps=steps, scale=scale, **flags)
    else:
        sampler = (
            DPMSolverPP(steps=steps, scale=scale)
            if scheduler == "DPM++"
            else DDIM(steps=steps, scale=scale, clip_x0=True)
        )
    canvas = canvas_of()
    filled = sampler(model.denoiser(), canvas, Rng(0))
    found = [row[:n] for row, n in zip(filled.tokens_BL.tolist(), LENGTHS, strict=True)]
    noise = noise_of(canvas, 6)
    expected = inference(
        net, tokenizer.mask, SOURCES, LENGTHS, noise, scheduler=scheduler, steps=steps, cfg=scale, clamp_mode=mode
    )
    assert found == expected
    assert len({t for row in found for t in row}) >= 3


def test_the_papers_own_tokenizer_has_other_ids(tmp_path):
    """[UNK] is 0 and [PAD] 1 there; the unconditional source is the one token [MASK], by its own id."""
    import tokenizers

    published(tmp_path, tokenizer_mode="datasets/QQP/tokenizer_30.json")
    (tmp_path / "vocab.txt").unlink()
    names = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *WORDS[:24], "##s"]
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    with pytest.raises(UserError, match=r"names the tokenizer 'datasets/QQP/tokenizer_30.json', which is in none of"):
        load_guidediffuseq(tmp_path)
    backend.save(str(tmp_path / "tokenizer_30.json"))
    model, tokenizer = load_guidediffuseq(tmp_path)
    assert (tokenizer.unk, tokenizer.pad, tokenizer.start, tokenizer.end, tokenizer.mask) == (0, 1, 2, 3, 4)
    assert (model.mask, model.pad) == (4, 1)
    assert tokenizer.encode_source("Wa WCs") == [2, 5, 7, 29, 3]
    assert tokenizer.decode([5, 7, 29]) == "wa wcs"


def test_checkpoints_load_finds_the_layout(tmp_path):
    published(tmp_path)
    loaded = checkpoints.load(tmp_path)
    assert loaded.model.denoiser().vocab_size == 30
    assert loaded.lengths is None
    assert len(loaded.digest) == 64


@pytest.mark.parametrize(("text", "guidable"), [(None, True), ('{"uncond_prob": 0.2}', True), ("{}", False)])
def test_the_training_configuration_says_whether_there_is_guidance(tmp_path, text, guidable):
    published(tmp_path)
    if text is not None:
        (tmp_path / "train_config.json").write_text(text)
    model, _ = load_guidediffuseq(tmp_path)
    assert model.denoiser().guidable is guidable


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_mode": "elmo"}, r"config.json.embed_mode=elmo is not allowed; it is one of learned, bert"),
        ({"pos_embed_mode": "rotary"}, r"pos_embed_mode=rotary is not allowed"),
        ({"time_embed_mode": "none"}, r"time_embed_mode=none is not allowed"),
        ({"noise_schedule": "sqr"}, r"noise_schedule=sqr is not allowed; did you mean 'sqrt'|noise_schedule=sqr"),
        ({"depth": 3}, r"has no setting 'depth'"),
        ({"layers_decoder": 1}, r"surplus: transformer\.decoder\.layers\.1\.linear1\.bias, .*norm3\.weight"),
        ({"layers_encoder": 3}, r"missing: transformer\.encoder\.layers\.2\.linear1\.bias"),
        ({"pos_embed_mode": "learned"}, r"missing: pos_embeds\.weight; surplus: pe"),
        ({"dim": 16}, r"surplus: down_proj\.bias, down_proj\.weight, up_proj\.bias, up_proj\.weight"),
        ({"dim": 8}, r"embed\.weight is \(30, 6\), not \(30, 8\)"),
        ({"internal_dim": 20}, r"in_proj_weight is \(48, 16\), not \(60, 20\)"),
        ({"nhead": 3}, r"width=16 must be a multiple of heads=3"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, message):
    published(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load_guidediffuseq(tmp_path)


class Mischief:
    ran = False

    def __reduce__(self):
        return exec, ("import sys; sys.modules[__name__].ran = True",)


def test_a_pickle_of_anything_else_is_refused(tmp_path):
    published(tmp_path)
    for value, message in (
        ({"embed.weight": Mischief()}, "is refused: it is no file of tensors alone"),
        ([torch.ones(1)], "must hold a state dict"),
        ({"epoch": 3}, "must hold a state dict"),
    ):
        torch.save(value, tmp_path / "model.pt")
        with pytest.raises(UserError, match=message) as caught:
            load_guidediffuseq(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match="is refused"):
        load_guidediffuseq(tmp_path)


def test_a_vocabulary_of_another_size_is_named(tmp_path):
    published(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    with pytest.raises(UserError, match="30 embeddings, but its tokenizer has 6 tokens"):
        load_guidediffuseq(tmp_path)
