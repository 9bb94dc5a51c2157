"""SEDD's and MDLM's published layouts: names and shapes, forward passes, what is written and read again, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from reference import text_models
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from diffq.data.exact_tokenizers import characters
from diffq.errors import UserError
from diffq.models.checkpoints import describe, load
from diffq.models.published import write_published

TOKENIZER = characters(["the quick brown fox jumps over a lazy dog"])
WORDS = TOKENIZER.mask
D, C, N, H, L = 32, 8, 2, 2, 24


def published_names(rows, prefix=""):
    """The keys and shapes of the published networks."""
    shapes = {
        "vocab_embed.embedding": (rows, D),
        "sigma_map.mlp.0.weight": (C, 256), "sigma_map.mlp.0.bias": (C,),
        "sigma_map.mlp.2.weight": (C, C), "sigma_map.mlp.2.bias": (C,),
        "rotary_emb.inv_freq": (D // H // 2,),
        "output_layer.norm_final.weight": (D,),
        "output_layer.linear.weight": (rows, D), "output_layer.linear.bias": (rows,),
        "output_layer.adaLN_modulation.weight": (2 * D, C), "output_layer.adaLN_modulation.bias": (2 * D,),
    }  # fmt: skip
    for i in range(N):
        shapes |= {
            f"blocks.{i}.{name}": shape
            for name, shape in {
                "norm1.weight": (D,), "attn_qkv.weight": (3 * D, D), "attn_out.weight": (D, D), "norm2.weight": (D,),
                "mlp.0.weight": (4 * D, D), "mlp.0.bias": (4 * D,), "mlp.2.weight": (D, 4 * D), "mlp.2.bias": (D,),
                "adaLN_modulation.weight": (6 * D, C), "adaLN_modulation.bias": (6 * D,),
            }.items()
        }  # fmt: skip
    return {prefix + name: shape for name, shape in shapes.items()}


def tensors(rows, prefix=""):
    generator = torch.Generator().manual_seed(0)
    made = {n: torch.randn(s, generator=generator) * 0.3 for n, s in published_names(rows, prefix).items()}
    made[prefix + "rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, D // H, 2).float() / (D // H))
    return made


def folder_of(tmp_path, kind, weights=None, **changes):
    sedd = {
        "graph": {"type": "absorb"}, "noise": {"type": "loglinear"}, "tokens": WORDS,
        "model": {"hidden_size": D, "cond_dim": C, "length": L, "n_blocks": N, "n_heads": H, "dropout": 0.1,
                  "scale_by_sigma": True},
    }  # fmt: skip
    mdlm = {
        "vocab_size": WORDS + 1, "model_length": L, "hidden_dim": D, "cond_dim": C, "n_blocks": N, "n_heads": H,
        "dropout": 0.1, "time_conditioning": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps((sedd if kind == "sedd" else mdlm) | changes))
    TOKENIZER.save(tmp_path)
    prefix = "" if kind == "sedd" else "backbone."
    save_file(weights or tensors(WORDS + 1, prefix), tmp_path / "model.safetensors")
    return tmp_path


def reference_logits(t, tokens_BL, sigma):
    """The published forward pass in the plainest words."""

    def norm(x, name):
        return F.layer_norm(x, (D,)) * t[name]

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", torch.zeros(()))

    half = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
    angle = sigma * half
    c = linear(F.silu(linear(torch.cat([angle.cos(), angle.sin()])[None], "sigma_map.mlp.0")), "sigma_map.mlp.2")
    c = F.silu(c)
    x = t["vocab_embed.embedding"][tokens_BL]
    b, length = tokens_BL.shape
    turn = torch.outer(torch.arange(length).float(), t["rotary_emb.inv_freq"])
    cos, sin = torch.cat([turn, turn], -1).cos(), torch.cat([turn, turn], -1).sin()

    def rotate(q):
        low, high = q[..., : D // H // 2], q[..., D // H // 2 :]
        return q * cos + torch.cat([-high, low], -1) * sin

    for i in range(N):
        p = f"blocks.{i}."
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = linear(c, p + "adaLN_modulation").chunk(6, -1)
        h = norm(x, p + "norm1.weight") * (1 + scale_a) + shift_a
        q, k, v = linear(h, p + "attn_qkv").view(b, length, 3, H, D // H).permute(2, 0, 3, 1, 4)
        scores = rotate(q) @ rotate(k).transpose(-1, -2) / (D // H) ** 0.5
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, length, D)
        x = x + gate_a * linear(mixed, p + "attn_out")
        h = norm(x, p + "norm2.weight") * (1 + scale_m) + shift_m
        x = x + gate_m * linear(F.gelu(linear(h, p + "mlp.0"), approximate="tanh"), p + "mlp.2")
    shift, scale = linear(c, "output_layer.adaLN_modulation").chunk(2, -1)
    return linear(norm(x, "output_layer.norm_final.weight") * (1 + scale) + shift, "output_layer.linear")


@pytest.mark.parametrize("kind", ["sedd", "mdlm"])
def test_a_published_checkpoint_computes_what_its_own_code_does(tmp_path, kind):
    loaded = load(folder_of(tmp_path, kind))
    model = loaded.model
    assert (model.settings.kind, model.words, model.mask) == (kind, WORDS, WORDS)
    held = {n.removeprefix("backbone."): v for n, v in load_file(tmp_path / "model.safetensors").items()}
    tokens_BL = torch.randint(0, WORDS + 1, (3, 17), generator=torch.Generator().manual_seed(1))
    share = torch.full((3,), 0.37, dtype=torch.float64)
    sigma = -torch.log1p(-share[0]).float() if kind == "sedd" else torch.zeros(())
    expected = reference_logits(held, tokens_BL, sigma)
    with torch.no_grad():
        found = model.log_weights(model.net(tokens_BL, model.sigma(share)).flatten(0, 1)).view(3, 17, -1)
    if kind == "sedd":  # the published log-score, less what it is scaled by, is log(z·p)
        expected = (
            expected - torch.expm1(sigma).log() - torch.log(torch.tensor(float(WORDS))) + torch.expm1(sigma).log()
        )
    assert torch.allclose(found, expected[..., :WORDS], atol=2e-4)
    part = model.net(tokens_BL, model.sigma(share), torch.tensor([[3, 0]] * 3))
    assert torch.allclose(part, model.net(tokens_BL, model.sigma(share))[:, [3, 0]], atol=1e-5)


def test_rotary_angles_are_not_rounded_to_the_type_of_the_weights(tmp_path):
    folder = folder_of(tmp_path, "mdlm")
    dtypes = (torch.float32, torch.bfloat16)
    exact, rounded = (load(folder, dtype=dtype).model.net.rotary_emb(900, 1024) for dtype in dtypes)
    assert all(torch.equal(a, b) for a, b in zip(exact, rounded, strict=True))


@pytest.mark.parametrize("name", ["sedd", "sedd_geometric", "sedd_uniform", "mdlm_timed", "sedd_tied"])
def test_what_is_written_has_the_published_names_and_is_read_again(tmp_path, name):
    model = text_models.build(name, words=WORDS, **({"noise": "log_linear"} if name == "sedd_tied" else {}))
    write_published(model, TOKENIZER, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    rows = WORDS + (name != "sedd_uniform")
    prefix = "backbone." if name.startswith("mdlm") else ""
    assert {n: tuple(v.shape) for n, v in written.items()} == published_names(rows, prefix)
    assert {v.dtype for v in written.values()} == {torch.float32}
    again = load(tmp_path).model
    tokens_BL = torch.randint(0, rows, (2, 9))
    share = torch.tensor([0.2, 0.9], dtype=torch.float64)
    with torch.no_grad():
        one, two = (m.log_weights(m.net(tokens_BL, m.sigma(share)).flatten(0, 1)) for m in (model, again))
    assert torch.allclose(one, two, atol=1e-6)
    assert describe(tmp_path).settings == again.settings


def test_wrong_missing_and_surplus_keys_are_listed(tmp_path):
    held = tensors(WORDS + 1)
    del held["blocks.1.norm1.weight"]
    held["blocks.2.norm1.weight"] = torch.ones(D)
    with pytest.raises(UserError, match=r"missing: blocks\.1\.norm1\.weight; surplus: blocks\.2\.norm1\.weight"):
        load(folder_of(tmp_path, "sedd", held))
    held = tensors(WORDS + 1) | {"output_layer.linear.bias": torch.zeros(7)}
    with pytest.raises(UserError, match=r"output_layer\.linear\.bias has shape \(7,\)"):
        load(folder_of(tmp_path, "sedd", held))
    with pytest.raises(UserError, match="begin with backbone"):
        load(folder_of(tmp_path, "mdlm", tensors(WORDS + 1)))


def test_a_vocabulary_of_another_size_and_weights_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match=f"a network of 99 tokens, and its tokenizer has {WORDS}"):
        load(folder_of(tmp_path, "sedd", tokens=99))
    held = tensors(WORDS + 1)
    held["blocks.0.attn_out.weight"][0, 0] = float("nan")
    with pytest.raises(UserError, match=r"no numbers \(NaN or infinite\): net\.blocks\.0\.attn_out\.weight"):
        load(folder_of(tmp_path, "sedd", held))


def test_configurations_that_contradict_themselves_are_refused(tmp_path):
    for changes, words in (
        ({"graph": {"type": "roulette"}}, "must be absorb or uniform"),
        ({"graph": {"type": "uniform"}}, "model.scale_by_sigma=false"),
        ({"noise": {"type": "cubic"}}, "must be one of loglinear, geometric"),
        ({"model": {"scale_by_sigma": True}}, "model.hidden_size is missing"),
    ):
        with pytest.raises(UserError, match=words):
            load(folder_of(tmp_path, "sedd", **changes))


def test_pickles_are_opened_only_as_tensors(tmp_path):
    folder = folder_of(tmp_path, "sedd")
    (folder / "model.safetensors").unlink()
    torch.save(tensors(WORDS + 1), folder / "pytorch_model.bin")
    assert load(folder).model.words == WORDS
    torch.save({"model": TOKENIZER.save}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="no file of tensors alone"):
        load(folder)
