"""The work that is counted from a network's sizes is what the network does: torch's own counter is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import text_models
from reference.flops import flops_of
from reference.tiny import SIZES, canvas, vocabulary

from diffq.diffusion.contracts import COND, GUIDED, UNCOND
from diffq.diffusion.draws import Draw
from diffq.models.causal import CausalSettings
from diffq.models.causal_lm import CausalLMSettings
from diffq.models.gaussian import GaussianSettings
from diffq.models.masked_lm import DreamSettings, LLaDASettings
from diffq.models.work import Work

GAUSSIAN = [
    {},
    {"embedding": 16},
    {"encoder_layers": 3, "decoder_layers": 1, "norm": "pre"},
    {"time_mlp": True, "positions": "learned"},
]
ROWS, LENGTH, SOURCE, VOCABULARY = 6, 7, 7, 300


@pytest.mark.parametrize("changes", GAUSSIAN, ids=str)
@pytest.mark.parametrize("branches", [COND, UNCOND, GUIDED], ids="-".join)
def test_the_flops_of_embedding_diffusion(changes: dict[str, Any], branches: Any) -> None:
    settings = GaussianSettings(**(SIZES | {"timesteps": 50} | changes))
    words = vocabulary(VOCABULARY)
    work, denoiser = settings.work(words), settings.build(words).denoiser()
    filled = canvas()
    cond, uncond = (ROWS if name in branches else 0 for name in ("cond", "uncond"))
    sessions: list[Any] = []
    assert flops_of(lambda: sessions.append(denoiser.open(filled, branches))) == work.encode(cond, SOURCE).flops
    y_BLE, t_B = torch.randn(ROWS, LENGTH, settings.embedding), torch.full((ROWS,), 3)
    assert flops_of(lambda: sessions[0].run(y_BLE, t_B)) == work.denoise(cond, uncond, LENGTH, SOURCE).flops
    positions_N = torch.arange(11)
    assert flops_of(lambda: sessions[0].read(y_BLE, positions_N, [Draw(None, 0.0)])) == work.project(11)


@pytest.mark.parametrize("changes", [{}, {"embedding": 16}, {"decoder_layers": 1, "norm": "pre"}], ids=str)
def test_the_flops_of_the_causal_twin(changes: dict[str, Any]) -> None:
    settings = CausalSettings(**(SIZES | changes))
    words = vocabulary(VOCABULARY)
    work, denoiser = settings.work(words), settings.build(words).denoiser()
    session = denoiser.open(canvas())
    token_B1 = torch.full((ROWS, 1), 5)
    for seen in (1, 2, 3):
        assert flops_of(lambda: session.run(token_B1)) == work.next_token(ROWS, seen, SOURCE).flops
    hidden = session.run(token_B1)
    assert flops_of(lambda: session.read(hidden, torch.arange(ROWS), [Draw(None, 0.0)])) == work.project(ROWS)


@pytest.mark.parametrize("changes", GAUSSIAN, ids=str)
def test_the_number_of_parameters(changes: dict[str, Any]) -> None:
    settings = GaussianSettings(**(SIZES | changes))
    model = settings.build(vocabulary(VOCABULARY))
    assert settings.work(vocabulary(VOCABULARY)).parameters == sum(p.numel() for p in model.parameters())
    shared = {name: value for name, value in changes.items() if name != "time_mlp"}
    twin = CausalSettings(**(SIZES | shared))
    model = twin.build(vocabulary(VOCABULARY))
    assert twin.work(vocabulary(VOCABULARY)).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["sedd", "sedd_tied", "mdlm", "mdlm_timed", "sedd_uniform"])
def test_the_flops_of_text_diffusion(name: str) -> None:
    """At all positions and at some, with guidance and without."""
    words = text_models.vocabulary()
    model = text_models.build(name, layers=3)
    work, filled = model.settings.work(words), text_models.canvas(ROWS, LENGTH)
    assert work.parameters == sum(p.numel() for p in model.parameters())
    share_B = torch.full((ROWS,), 0.5)
    for branches in (COND,) if name == "sedd_uniform" else (COND, GUIDED):
        session, rows = model.denoiser().open(filled, branches), ROWS * len(branches)
        assert (
            flops_of(lambda s=session: s.run(filled.tokens_BL, share_B)) == work.run(rows, LENGTH, LENGTH, LENGTH).flops
        )
        at_BK = torch.tensor([[0, 3]]).repeat(ROWS, 1)
        assert (
            flops_of(lambda s=session, at=at_BK: s.run(filled.tokens_BL, share_B, at))
            == work.run(rows, LENGTH, 2, LENGTH).flops
        )
    hidden = session.run(filled.tokens_BL, share_B)
    positions_N = torch.arange(11)
    assert flops_of(lambda: session.read(hidden, positions_N, [Draw(None, 0.0)])) == work.project(11)


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"layers": 1}], ids=str)
def test_the_flops_of_the_causal_twin_of_text(changes: dict[str, Any]) -> None:
    """A prompt at once, then one token after another, then several behind it."""
    words = text_models.vocabulary()
    sizes = {k: v for k, v in text_models.SIZES.items() if k != "conditioning"}
    model = CausalLMSettings(**(sizes | changes)).build(words)
    work = model.settings.work(words)
    assert work.parameters == sum(p.numel() for p in model.parameters())
    session, seen = model.denoiser().open(text_models.canvas(ROWS, 12)), 0
    for tokens in (4, 1, 1, 3):
        seen += tokens
        token_BK = torch.full((ROWS, tokens), 5)
        assert flops_of(lambda t=token_BK: session.run(t)) == work.run(ROWS, tokens, tokens, seen).flops
    hidden = session.run(token_BK[:, :1])
    assert flops_of(lambda: session.read(hidden, torch.arange(ROWS), [Draw(None, 0.0)])) == work.project(ROWS)


BIDIRECTIONAL = [
    (LLaDASettings, {}),
    (LLaDASettings, {"tied": True, "layers": 1}),
    (LLaDASettings, {"bias": True, "rows": 320}),
    (DreamSettings, {"qkv_bias": True, "kv_heads": 2}),
]


@pytest.mark.parametrize(("kind", "changes"), BIDIRECTIONAL, ids=str)
def test_the_flops_of_bidirectional_models(kind: Any, changes: dict[str, Any]) -> None:
    words = vocabulary(VOCABULARY)
    sizes = {"width": 32, "heads": 4, "layers": 3, "mlp_width": 40}
    model = kind(**(sizes | changes)).build(words)
    work, filled = model.settings.work(words), text_models.canvas(ROWS, LENGTH, words=200)
    assert work.parameters == sum(p.numel() for p in model.parameters())
    filled = filled.replace(tokens_BL=filled.tokens_BL + 10)
    for branches in (COND, GUIDED):
        session, rows = model.denoiser().open(filled, branches), ROWS * len(branches)
        assert flops_of(lambda s=session: s.run(filled.tokens_BL)) == work.run(rows, LENGTH, LENGTH, LENGTH).flops
        at_BK = torch.tensor([[2, 3]]).repeat(ROWS, 1)
        assert (
            flops_of(lambda s=session, at=at_BK: s.run(filled.tokens_BL, None, at))
            == work.run(rows, LENGTH, 2, LENGTH).flops
        )
    hidden = session.run(filled.tokens_BL)
    assert flops_of(lambda: session.read(hidden, torch.arange(11), [Draw(None, 0.0)])) == work.project(11)


def test_work_adds_up() -> None:
    work = Work(started=1, flops=2, drawn=3)
    assert work + work == work * 2
    assert (work * 2).amounts[0] == 2
