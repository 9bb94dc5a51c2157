"""What `dtype=` asks for: both families of models run in each, and predict nearly what they predict in float32."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from diffq.diffusion.contracts import COND, GUIDED, Canvas
from diffq.registry import MODELS, SAMPLERS
from diffq.rng import Rng

SIZES = {"embedding": 16, "width": 32, "heads": 4, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0}
VOCABULARY = SimpleNamespace(size=50, pad=0, start=2, end=3, mask=4)


def canvas() -> Canvas:
    tokens_BL = torch.full((3, 6), 4)
    valid_BL = torch.arange(6)[None] < torch.tensor([6, 4, 5])[:, None]
    source_BS = torch.randint(5, 50, (3, 5), generator=torch.Generator().manual_seed(1))
    return Canvas(
        tokens_BL=tokens_BL,
        free_BL=valid_BL.clone(),
        valid_BL=valid_BL,
        row_B=torch.arange(3),
        source_BS=source_BS,
        source_valid_BS=torch.ones_like(source_BS, dtype=torch.bool),
    )


@pytest.mark.parametrize(("dtype", "near"), [("float64", 1e-4), ("bfloat16", 0.15)])
@pytest.mark.parametrize("branches", [COND, GUIDED])
def test_predictions_are_nearly_those_of_float32(dtype: str, near: float, branches: tuple) -> None:
    torch.manual_seed(0)
    model = MODELS["gaussian"](**SIZES).build(VOCABULARY)
    other = copy.deepcopy(model)
    for parameter in (*other.parameters(), *other.buffers()):
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(getattr(torch, dtype))
    y_BLE = torch.randn(3, 6, 16)
    t_B = torch.tensor([10, 400, 900])
    one, two = (m.denoiser().open(canvas(), branches).run(y_BLE, t_B) for m in (model, other))
    assert two.dtype == torch.float32
    assert float((one - two).abs().max()) < near
    assert float((one - two).abs().max()) > 0  # it did compute in another precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("family", "sampler"), [("gaussian", "clamp_before_cfg"), ("causal_seq2seq", "autoregressive")]
)
def test_every_family_samples_in_it(dtype: torch.dtype, family: str, sampler: str) -> None:
    torch.manual_seed(0)
    model = MODELS[family](**SIZES).build(VOCABULARY)
    for parameter in (*model.parameters(), *model.buffers()):
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(dtype)
    dials = {"scale": 2.0, "steps": 4, "temperature": 0.5} if family == "gaussian" else {"temperature": 1.0}
    start = canvas()
    filled = SAMPLERS[sampler](**dials)(model.denoiser(), start, Rng(0))
    assert bool((filled.tokens_BL[~start.valid_BL] == start.tokens_BL[~start.valid_BL]).all())
    assert bool(((filled.tokens_BL >= 0) & (filled.tokens_BL < 50)).all())
