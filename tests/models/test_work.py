"""The work that is counted from a network's sizes is what the network does: torch's own counter is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.tiny import SIZES, canvas, vocabulary
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffq.diffusion.contracts import COND, GUIDED, UNCOND
from diffq.diffusion.draws import Draw
from diffq.models.causal import CausalSettings
from diffq.models.gaussian import GaussianSettings
from diffq.models.work import Work

GAUSSIAN = [
    {},
    {"embedding": 16},
    {"encoder_layers": 3, "decoder_layers": 1, "norm": "pre"},
    {"time_mlp": True, "positions": "learned"},
]
ROWS, LENGTH, SOURCE, VOCABULARY = 6, 7, 7, 300


def flops_of(call: Callable[[], Any]) -> int:
    """FLOPs of the matrix products in a call; attention is taken apart into its products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("changes", GAUSSIAN, ids=str)
@pytest.mark.parametrize("branches", [COND, UNCOND, GUIDED], ids="-".join)
def test_the_flops_of_embedding_diffusion(changes: dict[str, Any], branches: Any) -> None:
    settings = GaussianSettings(**(SIZES | {"timesteps": 50} | changes))
    work, denoiser = settings.work(VOCABULARY), settings.build(vocabulary(VOCABULARY)).denoiser()
    filled = canvas()
    cond, uncond = (ROWS if name in branches else 0 for name in ("cond", "uncond"))
    sessions: list[Any] = []
    assert flops_of(lambda: sessions.append(denoiser.open(filled, branches))) == work.encode(cond, SOURCE).flops
    y_BLE, t_B = torch.randn(ROWS, LENGTH, settings.embedding), torch.full((ROWS,), 3)
    assert flops_of(lambda: sessions[0].run(y_BLE, t_B)) == work.denoise(cond, uncond, LENGTH, SOURCE).flops
    positions_N = torch.arange(11)
    assert flops_of(lambda: sessions[0].read(y_BLE, positions_N, [Draw(None, 0.0)])) == work.project(11, False)


@pytest.mark.parametrize("changes", [{}, {"embedding": 16}, {"decoder_layers": 1, "norm": "pre"}], ids=str)
def test_the_flops_of_the_causal_twin(changes: dict[str, Any]) -> None:
    settings = CausalSettings(**(SIZES | changes))
    work, denoiser = settings.work(VOCABULARY), settings.build(vocabulary(VOCABULARY)).denoiser()
    session = denoiser.open(canvas())
    token_B1 = torch.full((ROWS, 1), 5)
    for seen in (1, 2, 3):
        assert flops_of(lambda: session.run(token_B1)) == work.next_token(ROWS, seen, SOURCE).flops
    hidden = session.run(token_B1)
    assert flops_of(lambda: session.read(hidden, torch.arange(ROWS), [Draw(None, 0.0)])) == work.project(ROWS, True)


@pytest.mark.parametrize("changes", GAUSSIAN, ids=str)
def test_the_number_of_parameters(changes: dict[str, Any]) -> None:
    settings = GaussianSettings(**(SIZES | changes))
    model = settings.build(vocabulary(VOCABULARY))
    assert settings.work(VOCABULARY).parameters == sum(p.numel() for p in model.parameters())
    shared = {name: value for name, value in changes.items() if name != "time_mlp"}
    twin = CausalSettings(**(SIZES | shared))
    model = twin.build(vocabulary(VOCABULARY))
    assert twin.work(VOCABULARY).parameters == sum(p.numel() for p in model.parameters())


def test_work_adds_up() -> None:
    work = Work(started=1, flops=2, drawn=3)
    assert work + work == work * 2
    assert (work * 2).amounts[0] == 2
