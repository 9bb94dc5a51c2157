"""Causal language models over text: the twin and those of Hugging Face, cache against no cache, and the library's own
generation."""

from __future__ import annotations

import json

import pytest
import torch
from reference import text_models
from torch.nn import functional as F

from diffq.data.exact_tokenizers import characters
from diffq.diffusion.contracts import Canvas, Meter
from diffq.diffusion.reductions import LogProb
from diffq.errors import UserError
from diffq.models.base import TextBatch, Totals
from diffq.models.causal_lm import CausalLMSettings
from diffq.models.checkpoints import describe, load
from diffq.rng import Rng
from diffq.samplers.autoregressive import Autoregressive

TOKENIZER = characters(["the quick brown fox jumps over a lazy dog"])


def twin(words=50, **changes):
    sizes = {"width": 32, "heads": 2, "layers": 2, "max_length": 24, "dropout": 0.0} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return text_models.lively(CausalLMSettings(**sizes).build(text_models.vocabulary(words)))


def gpt2(folder):
    """A tiny GPT-2 with random weights beside a tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=TOKENIZER.mask, n_positions=32, n_embd=24, n_layer=2, n_head=2,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    TOKENIZER.save(folder)
    return folder


def canvas_of(rows, length, given=0, words=50, end=None):
    tokens_BL = torch.randint(1, words - 1, (rows, length), generator=torch.Generator().manual_seed(0))
    free_BL = torch.ones(rows, length, dtype=torch.bool)
    free_BL[:, :given] = False
    return Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.arange(rows), end=end)


def test_the_loss_is_the_cross_entropy_of_every_token():
    model = twin()
    tokens_BL = torch.randint(0, 50, (3, 11))
    batch = TextBatch(tokens_BL, torch.ones(3, 11, dtype=torch.bool), torch.arange(3), torch.zeros(3, dtype=torch.long))
    with torch.no_grad():
        loss = model.loss(batch, Rng(0), Totals(3, 33))["loss"]
    total = 0.0
    for b in range(3):
        for i in range(11):  # each token from those before it alone
            seen = torch.cat([torch.tensor([model.start]), tokens_BL[b, :i]])[None]
            with torch.no_grad():
                linear = model.net.output_layer.linear
                hidden = model.net(seen, None, causal=True)[0, -1]
                total += float(F.cross_entropy(F.linear(hidden, linear.weight, linear.bias), tokens_BL[b, i]))
    assert float(loss) == pytest.approx(total / 33, rel=1e-5)


def test_the_cache_changes_nothing():
    denoiser = twin().denoiser()
    tokens_BL = torch.randint(0, 50, (3, 10))
    whole = denoiser.open(canvas_of(3, 10)).run(tokens_BL)
    session = denoiser.open(canvas_of(3, 10))
    parts = [session.run(tokens_BL[:, a:b]) for a, b in ((0, 4), (4, 5), (5, 9), (9, 10))]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    session.select(torch.tensor([2, 0]))
    assert torch.allclose(session.run(tokens_BL[[2, 0], :1])[:, 0], denoiser.open(canvas_of(2, 11)).run(
        torch.cat([tokens_BL[[2, 0]], tokens_BL[[2, 0], :1]], 1))[:, -1], atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_a_common_prompt_goes_through_at_once_and_changes_no_token(top_p):
    denoiser = twin().denoiser()
    canvas = canvas_of(4, 16, given=6)
    meter = Meter(denoiser)
    sampler = Autoregressive(top_p=top_p)
    together = sampler(meter, canvas, Rng(0))
    assert meter.nfe_calls == 1 + 10
    ragged = canvas.replace(free_BL=canvas.free_BL.clone())
    ragged.free_BL[3, 0] = True  # one row more begins freely: no column is common
    apart = sampler(denoiser, ragged, Rng(0))
    assert torch.equal(together.tokens_BL[:3], apart.tokens_BL[:3])
    assert bool(together.valid_BL.all()), "running text goes on over its end token"


def test_rows_end_where_they_are_told_to():
    denoiser = twin().denoiser()
    end = int(Autoregressive()(denoiser, canvas_of(4, 20), Rng(0)).tokens_BL[0, 7])
    filled = Autoregressive()(denoiser, canvas_of(4, 20, end=end), Rng(0))
    row = filled.tokens_BL[0]
    length = int(filled.valid_BL[0].sum())
    assert length <= 7
    assert end not in row[:length].tolist()


def test_gpt2_gives_the_librarys_logits_and_greedy_text(tmp_path):
    from transformers import GPT2LMHeadModel

    loaded = load(gpt2(tmp_path))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    denoiser = loaded.model.denoiser()
    assert (denoiser.vocab_size, denoiser.max_length, denoiser.end) == (TOKENIZER.mask, 32, 0)
    canvas = canvas_of(3, 12, given=5, words=TOKENIZER.mask)
    session = denoiser.open(canvas)
    hidden = session.run(canvas.tokens_BL)
    expected = theirs(canvas.tokens_BL).logits.log_softmax(-1).flatten(0, 1)
    token_N = torch.randint(0, TOKENIZER.mask, (36,))
    (found,) = session.read(hidden, torch.arange(36), [LogProb(token_N)])
    assert torch.allclose(found.float(), expected.gather(1, token_N[:, None]).squeeze(1), atol=1e-4)
    filled = Autoregressive(temperature=0.0)(denoiser, canvas, Rng(0)).tokens_BL
    # Ours begins every text with the start token, which the library's caller has to put there.
    prompt = torch.cat([torch.zeros(3, 1, dtype=torch.long), canvas.tokens_BL[:, :5]], 1)
    generated = theirs.generate(prompt, max_new_tokens=7, do_sample=False, eos_token_id=None, pad_token_id=0,
                                attention_mask=torch.ones_like(prompt))  # fmt: skip
    assert torch.equal(filled, generated[:, 1:])
    assert describe(tmp_path).digest == loaded.digest


def test_foreign_and_broken_causal_checkpoints_are_refused(tmp_path):
    folder = gpt2(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    with pytest.raises(UserError, match="more than a matrix product"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    with pytest.raises(UserError, match=r"do not fit its config\.json; missing: transformer\.h\.2"):
        load(folder)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"})
    )
    with pytest.raises(UserError, match="in no layout that is known"):
        load(folder)
