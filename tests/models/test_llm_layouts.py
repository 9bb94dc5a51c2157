"""LLaDA's and Dream's published layouts: names and shapes, forward passes, shards, types, device maps, what is written
and read again, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from reference import published_llms as reference
from reference.chat_tokenizer import tokenizer_files
from safetensors.torch import load_file, save_file

from diffq.diffusion.reductions import LogProb
from diffq.errors import UserError
from diffq.models.checkpoints import describe, load
from diffq.models.llm_layouts import DreamLayout, LLaDALayout
from diffq.models.placing import Place
from diffq.models.published import layout_of, write_published

CONFIGS = {"llada": reference.llada_config, "dream": reference.dream_config}
SHAPES = {"llada": reference.llada_shapes, "dream": reference.dream_shapes}
LOGITS = {"llada": reference.llada_logits, "dream": reference.dream_logits}
CASES = {
    "llada": ("llada", {}),
    "llada_tied": ("llada", {"weight_tying": True, "scale_logits": True}),
    "llada_groups": ("llada", {"n_kv_heads": 2, "include_qkv_bias": True}),
    "dream": ("dream", {}),
    "dream_tied": ("dream", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
}


def folder_of(tmp_path, kind, weights=None, **changes):
    """A folder in the published form with random weights; (folder, config, tensors)."""
    config = CONFIGS[kind](**changes)
    tensors = reference.random_tensors(SHAPES[kind](config)) if weights is None else weights
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer_files(tmp_path, kind)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path, config, tensors


def tokens_of(rows=3, length=17, seed=1):
    """Words with masks among them."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BL = torch.randint(0, 50, (rows, length), generator=generator)
    return torch.where(torch.rand(rows, length, generator=generator) < 0.4, 55, tokens_BL)


def expected_of(kind, config, tensors, tokens_BL):
    return torch.stack([LOGITS[kind](tensors, config, row) for row in tokens_BL])


def logits_of(model, tokens_BL):
    weight, bias = model.net.head
    with torch.no_grad():
        states = model.states(tokens_BL)
        return torch.nn.functional.linear(states, weight, bias).double()


@pytest.mark.parametrize("case", CASES)
def test_a_published_checkpoint_computes_what_the_layout_says(tmp_path, case):
    kind, changes = CASES[case]
    folder, config, tensors = folder_of(tmp_path, kind, **changes)
    loaded = load(folder)
    assert (loaded.model.settings.kind, loaded.model.mask, loaded.model.net.size) == (kind, 55, 64)
    tokens_BL = tokens_of()
    expected = expected_of(kind, config, tensors, tokens_BL)
    assert torch.allclose(logits_of(loaded.model, tokens_BL), expected, atol=2e-4)
    at_BK = torch.tensor([[3, 0, 16], [1, 1, 5], [16, 2, 0]])
    with torch.no_grad():
        some, every = loaded.model.states(tokens_BL, at_BK=at_BK), loaded.model.states(tokens_BL)
    assert torch.allclose(some, every.gather(1, at_BK[..., None].expand(-1, -1, 32)), atol=1e-5)
    assert describe(folder).digest == loaded.digest


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_a_sharded_index_gives_the_same_weights(tmp_path, kind):
    one = load(folder_of(tmp_path, kind)[0]).model
    shards = tmp_path / "shards"
    write_published(one, load(tmp_path).tokenizer, shards, shard_bytes=40_000)
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    two = load(shards).model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    gone = sorted(shards.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError, match=f"names files that are not there: {gone.name}"):
        load(shards)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_has_the_published_names_and_is_read_again(tmp_path, case):
    kind, changes = CASES[case]
    folder, config, _ = folder_of(tmp_path, kind, **changes)
    loaded = load(folder)
    written = tmp_path / "written"
    write_published(loaded.model, loaded.tokenizer, written)
    held = load_file(written / "model.safetensors")
    assert {n: tuple(v.shape) for n, v in held.items()} == SHAPES[kind](config)
    again = load(written)
    tokens_BL = tokens_of()
    assert torch.equal(logits_of(again.model, tokens_BL), logits_of(loaded.model, tokens_BL))
    assert again.model.settings == loaded.model.settings
    assert (again.tokenizer.ends, again.tokenizer.mask) == (loaded.tokenizer.ends, 55)


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_a_training_of_ours_is_written_with_its_own_tokenizer(tmp_path, kind):
    """One that begins a text, ends it and pads it with three different tokens, and is not exact."""
    from diffq.data.tokenizers import build_tokenizer
    from diffq.models.masked_lm import DreamSettings, LLaDASettings

    class Corpus:
        words = ("sun", "moon")

        def documents(self, name):
            return ["the sun on a sea", "a moon"]

    tokenizer = build_tokenizer("words", Corpus())
    settings = {"llada": LLaDASettings, "dream": DreamSettings}[kind]
    model = settings(width=16, heads=2, layers=1, mlp_width=24, qkv_bias=kind == "dream").build(tokenizer)
    write_published(model, tokenizer, tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.tokenizer.digest == tokenizer.digest
    tokens_BL = torch.randint(0, tokenizer.size, (2, 7))
    assert torch.equal(logits_of(again.model, tokens_BL), logits_of(model, tokens_BL))
    assert (again.model.words, again.model.never) == (model.words, model.never)
    if kind == "dream":
        plain = settings(width=16, heads=2, layers=1, mlp_width=24).build(tokenizer)
        with pytest.raises(UserError, match="biases of queries, keys and values and no others"):
            write_published(plain, tokenizer, tmp_path / "plain")


@pytest.mark.parametrize(("dtype", "near"), [("bfloat16", 0.08), ("float64", 1e-4)])
def test_weights_are_read_in_the_type_that_is_asked_for(tmp_path, dtype, near):
    folder, config, tensors = folder_of(tmp_path, "llada", {
        n: v.bfloat16() for n, v in reference.random_tensors(SHAPES["llada"](CONFIGS["llada"]())).items()
    })  # fmt: skip
    model = load(folder, dtype=getattr(torch, dtype)).model
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    tokens_BL = tokens_of()
    expected = expected_of("llada", config, tensors, tokens_BL)
    error = (logits_of(model, tokens_BL) - expected).abs().mean() / expected.abs().mean()
    assert float(error) < near
    if dtype == "bfloat16":  # rotary angles are not rounded to it: two places far apart turn a key as they should
        late = model.net.rotary(torch.tensor([63]))[0]
        assert torch.allclose(late, load(folder).model.net.rotary(torch.tensor([63]))[0])


@pytest.mark.parametrize("disk", [("blocks.1",), ("blocks.0", "blocks.2"), ("blocks.1.ff_norm", "blocks.1.ff_proj")])
@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_blocks_on_disk_are_read_when_they_are_needed(tmp_path, kind, disk):
    folder, _, _ = folder_of(tmp_path, kind)
    whole = load(folder).model
    device_map = dict.fromkeys(("wte", "ff_out", "ln_f"), "cpu")
    for name, _ in whole.net.named_modules():
        if name.startswith("blocks.") and not any(True for _ in whole.net.get_submodule(name).children()):
            device_map[name] = "disk" if any(name == d or name.startswith(d + ".") for d in disk) else "cpu"
    layout = LLaDALayout() if kind == "llada" else DreamLayout()
    model, _ = layout.load(folder, Place(device_map=device_map))
    away = {name for name, p in model.net.named_parameters() if p.device.type == "meta"}
    assert away
    assert all(any(name.startswith(d + ".") for d in disk) for name in away)
    tokens_BL = tokens_of()
    assert torch.allclose(logits_of(model, tokens_BL), logits_of(whole, tokens_BL), atol=1e-6)
    assert {name for name, p in model.net.named_parameters() if p.device.type == "meta"} == away
    with pytest.raises(UserError, match=r"ff_out\.weight must be on cpu"):
        layout.load(folder, Place(device_map=device_map | {"ff_out": "disk"}))


def test_without_a_gpu_spreading_is_one_device(tmp_path):
    folder, _, _ = folder_of(tmp_path, "llada")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, which takes it all")
    tokens_BL = tokens_of()
    assert torch.equal(logits_of(load(folder, spread=True).model, tokens_BL), logits_of(load(folder).model, tokens_BL))


def test_wrong_missing_and_surplus_keys_are_listed(tmp_path):
    tensors = reference.random_tensors(SHAPES["dream"](CONFIGS["dream"]()))
    del tensors["model.layers.1.self_attn.k_proj.bias"]
    tensors["model.layers.1.self_attn.o_proj.bias"] = torch.zeros(32)
    tensors["model.norm.weight"] = torch.zeros(31)
    with pytest.raises(UserError) as error:
        load(folder_of(tmp_path, "dream", tensors)[0])
    said = str(error.value)
    assert "missing: model.layers.1.self_attn.k_proj.bias" in said
    assert "surplus: model.layers.1.self_attn.o_proj.bias" in said
    assert "of another shape: model.norm.weight is (31,), not (32,)" in said


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    tensors = reference.random_tensors(SHAPES["llada"](CONFIGS["llada"]()))
    tensors["model.transformer.blocks.0.up_proj.weight"][0, 0] = float("inf")
    with pytest.raises(UserError, match=r"no numbers .*: model\.transformer\.blocks\.0\.up_proj\.weight"):
        load(folder_of(tmp_path, "llada", tensors)[0])


def test_a_folder_of_one_layout_with_the_weights_of_another_is_refused(tmp_path):
    llada = reference.random_tensors(SHAPES["llada"](CONFIGS["llada"]()))
    with pytest.raises(UserError, match=r"missing: lm_head\.weight.*surplus: model\.transformer\.blocks\.0"):
        load(folder_of(tmp_path, "dream", llada)[0])


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("llada", {"block_type": "sequential"}, "block_type=sequential is not supported; it must be llama"),
        ("llada", {"activation_type": "gelu"}, "activation_type=gelu is not supported"),
        ("llada", {"alibi": True}, "alibi=True is not supported"),
        ("llada", {"rope_theta": None}, "does not say rope_theta"),
        ("llada", {"mask_token_id": None}, "does not say mask_token_id"),
        ("llada", {"mask_token_id": 63}, "mask_token_id=63, and the tokenizer has no token of that id"),
        ("llada", {"embedding_size": 57}, "a network of 57 tokens, and its tokenizer has 60"),
        ("dream", {"rope_scaling": {"type": "yarn"}}, "rope_scaling="),
        ("dream", {"use_sliding_window": True}, "use_sliding_window=True is not supported; it must be False"),
        ("dream", {"num_attention_heads": 3}, "must be an even multiple of heads=3"),
    ],
)
def test_configurations_that_are_not_implemented_are_refused(tmp_path, kind, changes, words):
    tensors = reference.random_tensors(SHAPES[kind](CONFIGS[kind]()))
    with pytest.raises(UserError, match=words):
        load(folder_of(tmp_path, kind, tensors, **changes)[0])


def test_words_are_the_tokenizers_and_the_mask_is_none_of_them(tmp_path):
    """Ids 60 … 63 are rows of the matrices and no tokens; 55 is the mask, 56 … 59 are tokens behind it."""
    from diffq.diffusion.contracts import Canvas

    model = load(folder_of(tmp_path, "llada")[0]).model
    assert (model.words, model.never) == (60, (55,))
    tokens_BL = tokens_of()
    free_BL = tokens_BL == 55
    canvas = Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(3))
    session = model.denoiser().open(canvas)
    position_N = free_BL.flatten().nonzero().squeeze(1)
    logits_NV = logits_of(model, tokens_BL).flatten(0, 1)[position_N]
    for admitted in (False, True):
        if admitted:
            session.admit_mask()
        allowed = [v for v in range(60) if admitted or v != 55]
        expected_NV = torch.full((len(position_N), 60), -torch.inf, dtype=torch.float64)
        expected_NV[:, allowed] = logits_NV[:, allowed].log_softmax(-1)
        hidden = session.run(tokens_BL, torch.ones(3))
        for token in (0, 49, 50, 55, 56, 59):
            (found_N,) = session.read(hidden, position_N, [LogProb(torch.full_like(position_N, token))])
            assert torch.allclose(found_N, expected_NV[:, token], atol=1e-4)


def test_the_layout_is_recognised_by_its_model_type(tmp_path):
    assert layout_of(folder_of(tmp_path, "dream")[0]).name == "Dream"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llada_moe"}))
    with pytest.raises(UserError, match="in no layout that is known"):
        load(tmp_path)
