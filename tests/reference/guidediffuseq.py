"""The published network and sampler of GuideDiffuSeq, slow and plain, on torch's own `nn.Transformer` and on
`diffusers`' schedulers (Buzzard 2025, §1.4 and §1.7 of its code's facts; names of the state dict as published).

Shape suffixes: B rows, L target positions, S source positions, E embedding, D width, V vocabulary.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FULL_CONFIG = {
    "embed_mode": "learned",
    "tokenizer_mode": "bert",
    "pos_embed_mode": "fixed",
    "time_embed_mode": "fixed",
    "noise_schedule": "sqrt",
    "dim": 6,
    "internal_dim": 16,
    "nhead": 2,
    "layers_encoder": 2,
    "layers_decoder": 2,
    "max_len": 16,
    "timesteps": 100,
}
"""Every field of a published config.json, at the sizes of a test."""


class Published(nn.Module):
    """The network under the published names: `Published(config, V).state_dict()` has the keys of a `model.pt`."""

    def __init__(self, config: Mapping[str, Any], vocabulary: int):
        super().__init__()
        self.config = dict(config)
        e, d = config["dim"], config["internal_dim"]
        self.embed = nn.Embedding(vocabulary, e)
        self.up_proj = nn.Identity() if e == d else nn.Linear(e, d)
        self.down_proj = nn.Identity() if e == d else nn.Linear(d, e)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fast paths, which this reference does not want
            self.transformer = nn.Transformer(
                d, config["nhead"], config["layers_encoder"], config["layers_decoder"], 4 * d, batch_first=True
            )
        if config["pos_embed_mode"] == "learned":
            self.pos_embeds = nn.Embedding(config["max_len"], d)
        else:
            self.register_buffer("pe", waves(torch.arange(config["max_len"]), d)[None])
        if config["time_embed_mode"] == "learned":
            self.time_map = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))
        with torch.no_grad():  # otherwise an untrained network hardly looks at what it is given
            for p in self.up_proj.parameters():
                p.mul_(8)
            for p in self.down_proj.parameters():
                p.mul_(2)
        for name, p in self.named_parameters():  # nothing at a value that would hide a wrong place
            if p.dim() == 1:
                nn.init.normal_(p, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.05)

    def place(self, embedded: Tensor) -> Tensor:
        x = self.up_proj(embedded)
        positions = self.pos_embeds.weight if self.config["pos_embed_mode"] == "learned" else self.pe[0]
        return x + positions[: x.shape[1]]

    def forward(self, y_BLE: Tensor, t_B: Tensor, y_valid: Tensor, source_BS: Tensor, source_valid: Tensor) -> Tensor:
        time = waves(t_B, self.config["internal_dim"])
        if self.config["time_embed_mode"] == "learned":
            time = self.time_map(time)
        out = self.transformer(
            self.place(self.embed(source_BS)),
            self.place(y_BLE) + time[:, None],
            src_key_padding_mask=~source_valid,
            tgt_key_padding_mask=~y_valid,
            memory_key_padding_mask=~source_valid,
        )
        return self.down_proj(out)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        torch.save(self.state_dict(), folder / "model.pt")


def waves(numbers: Tensor, width: int) -> Tensor:
    """sin and cos interleaved, base 10000."""
    out = torch.zeros(*numbers.shape, width)
    for i in range(0, width, 2):
        angle = numbers.float() * math.exp(-math.log(10000.0) * i / width)
        out[..., i] = angle.sin()
        out[..., i + 1] = angle.cos()
    return out


def published_betas(schedule: str, timesteps: int) -> list[float]:
    if schedule == "linear":
        scale = 1000 / timesteps
        low, high = scale * 0.0001, scale * 0.02
        return [low + (high - low) * i / (timesteps - 1) for i in range(timesteps)]
    if schedule == "sqrt":
        alpha_bar = lambda u: 1 - math.sqrt(u + 0.0001)  # noqa: E731
    else:
        alpha_bar = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    return [min(1 - alpha_bar((i + 1) / timesteps) / alpha_bar(i / timesteps), 0.999) for i in range(timesteps)]


@torch.no_grad()
def inference(
    net: Published,
    mask: int,
    sources: Sequence[Sequence[int]],
    lengths: Sequence[int],
    noise_BLE: Tensor,
    *,
    scheduler: str = "DPM++",
    steps: int = 30,
    cfg: float = 1.0,
    clamp_mode: int = 0,
) -> list[list[int]]:
    """The published sampler at temperature 0, from given noise; batches are padded with 0, whatever id [PAD] has."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    config = net.config
    betas = torch.tensor(published_betas(config["noise_schedule"], config["timesteps"]))
    kind = DPMSolverMultistepScheduler if scheduler == "DPM++" else DDIMScheduler
    solver = kind(config["timesteps"], prediction_type="sample", trained_betas=betas.numpy())
    solver.set_timesteps(steps)

    longest = max(len(s) for s in sources)
    source = torch.tensor([[*s, *[0] * (longest - len(s))] for s in sources])
    source_valid = torch.tensor([[i < len(s) for i in range(longest)] for s in sources])
    y_valid = torch.arange(noise_BLE.shape[1])[None] < torch.tensor(lengths)[:, None]
    masks = torch.full((len(sources), 1), mask)

    def clamp(y0: Tensor) -> Tensor:
        return net.embed(torch.cdist(y0, net.embed.weight[None]).argmin(-1))

    y = noise_BLE
    for t in solver.timesteps:
        t_B = t.expand(len(sources))
        out = c = net(y, t_B, y_valid, source, source_valid)
        if cfg != 1:
            u = net(y, t_B, y_valid, masks, torch.ones_like(masks, dtype=torch.bool))
            if clamp_mode in (2, 3):
                c, u = clamp(c), clamp(u)
            out = clamp(c) + (cfg - 1) * (c - u) if clamp_mode == 4 else u + cfg * (c - u)
            if clamp_mode in (1, 3):
                out = clamp(out)
        elif clamp_mode:
            out = clamp(c)
        y = solver.step(out, t, y).prev_sample
    tokens = torch.cdist(y, net.embed.weight[None]).argmin(-1)
    return [row[:n] for row, n in zip(tokens.tolist(), lengths, strict=True)]
