"""The work that is counted of Hugging Face's causal models is what they do: torch's own counter is the oracle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference import text_models
from reference.flops import flops_of

from diffq.diffusion.draws import Draw
from diffq.models.hf_causal import HuggingFaceCausalSettings, PretrainedCausal
from diffq.models.hf_work import FAMILIES, work_of

ROWS, WORDS = 3, 50
TOKENS = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GPT2 = {"n_positions": 64, "n_embd": 24, "n_layer": 3, "n_head": 4}
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
LLAMA = SIZES | {"intermediate_size": 40, "num_key_value_heads": 2}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", GPT2),
    ("gpt2", GPT2 | {"n_inner": 40}),
    ("gpt_neo", SIZES | {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 4}),
    ("gpt_neox", SIZES | {"intermediate_size": 40}),
    ("opt", SIZES | {"ffn_dim": 40, "word_embed_proj_dim": 24}),
    ("opt", SIZES | {"ffn_dim": 40, "word_embed_proj_dim": 16}),
    ("llama", LLAMA),
    ("llama", LLAMA | {"head_dim": 8, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("mistral", LLAMA | {"sliding_window": None}),
    ("qwen2", LLAMA),
    ("qwen3", LLAMA | {"head_dim": 8}),
    ("gemma", LLAMA | {"head_dim": 8}),
]


def made(family: str, sizes: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **sizes, **TOKENS)
    with torch.random.fork_rng(devices=[]):
        return AutoModelForCausalLM.from_config(config).eval()


def test_every_family_that_is_counted_is_tested() -> None:
    assert {family for family, _ in CONFIGS} == set(FAMILIES)


@pytest.mark.parametrize(("family", "sizes"), CONFIGS, ids=str)
def test_the_flops_and_parameters_of_a_family(family: str, sizes: dict[str, Any], tmp_path: Any) -> None:
    """A prompt at once, then one token after another, then several behind it; two rows end on the way."""
    model = made(family, sizes)
    model.config.save_pretrained(tmp_path)
    work = work_of(tmp_path, WORDS - 3)
    assert work is not None
    assert work.parameters == sum(p.numel() for p in model.parameters())
    words = SimpleNamespace(start=0, end=0, mask=WORDS - 3)
    denoiser = PretrainedCausal(model, words, HuggingFaceCausalSettings(max_length=64)).denoiser()
    session, seen, rows = denoiser.open(text_models.canvas(ROWS, 24)), 0, ROWS
    for tokens in (4, 1, 1, 3, 12, 1):
        seen += tokens
        if seen == 9:
            session.select(torch.tensor([2]))
            rows = 1
        token_BK = torch.full((rows, tokens), 5)
        assert flops_of(lambda t=token_BK: session.run(t)) == work.run(rows, tokens, tokens, seen).flops
    hidden = session.run(token_BK)
    assert flops_of(lambda: session.read(hidden, torch.arange(rows), [Draw(None, 0.0)])) == work.project(rows)


def test_what_is_not_counted_is_said_to_be_unknown(tmp_path: Any) -> None:
    for family, sizes in (
        ("mistral", LLAMA | {"sliding_window": 8}),
        ("gemma2", LLAMA | {"head_dim": 8, "sliding_window": 8}),
        ("bloom", {"hidden_size": 24, "n_layer": 2, "n_head": 4}),
    ):
        made(family, sizes).config.save_pretrained(tmp_path)
        assert work_of(tmp_path, WORDS) is None


def test_a_large_network_is_counted_without_its_memory(tmp_path: Any) -> None:
    """GPT-2 XL's 1,557,611,200 parameters would take 6 GB."""
    from transformers import GPT2Config

    GPT2Config(n_embd=1600, n_layer=48, n_head=25).save_pretrained(tmp_path)
    work = work_of(tmp_path, 50_257)
    assert work is not None
    assert work.parameters == 1_557_611_200
    assert work.run(1, 1, 1, 1).flops == 48 * (2 * 12 * 1600**2 + 4 * 1600)
