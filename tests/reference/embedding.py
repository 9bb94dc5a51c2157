"""The published sampler of embedding diffusion, written out plainly (Buzzard 2025, §1.5 to §1.7 of its code's facts).

Rows in dataset order, padded to the longest of a batch of 256; the encoder once a sample; two decoder calls a step for
guidance, the second on the one-token source [MASK] through the whole network; `torch.cdist` of every position, padding
too, against the whole vocabulary and a softmax over it; each solver's step as its paper has it. Nothing is cached,
tiled or left out.

It is run on the weights of a GaussianSeq2Seq and on the same keyed draws as the fast sampler, so that tokens can be
compared one by one.

Shape suffixes: B rows, L positions, S source positions, E embedding, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.contracts import row_id
from diffq.rng import Rng, Stream, normal
from reference.reductions import race

BATCH = 256
MODES = {"none": 0, "after": 1, "before": 2, "around": 3, "residual": 4}
"""The published clamp modes by the names of our orders."""


def sample(
    model: Any, sources: Sequence[Sequence[int]], lengths: Sequence[int], *, batch: int = BATCH, **dials: Any
) -> list[list[int]]:
    """The token ids of every row. `dials` are those of Textbook; row i is sample 0 of source i."""
    out = []
    for first in range(0, len(sources), batch):
        part = slice(first, first + batch)
        ids = [row_id(i, 0) for i in range(len(sources))[part]]
        out += Textbook(model, sources[part], lengths[part], row_ids=ids, **dials).run()
    return out


class Textbook:
    """One batch being sampled. `run` is all of it; `start`, `step(i)` for every i, `finish` are its parts.

    A single step does the same work at any i and on any state: `start` and some steps are enough to time it.
    """

    def __init__(
        self,
        model: Any,
        sources: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        row_ids: Sequence[int] | None = None,
        seed: int = 0,
        noise_BLE: Tensor | None = None,
        steps: int = 30,
        solver: str = "dpmpp",
        scale: float = 1.0,
        scale_schedule: str = "constant",
        clamp_mode: int = 0,
        clamp_lerp: bool = False,
        temperature: float = 0.0,
        normalise: bool = False,
        clip_x0: bool = False,
        set_alpha_to_one: bool = True,
        final_sigma: str = "zero",
        second_order: str = "midpoint",
    ):
        self.model, self.table_VE = model, model.net.embed.weight.detach()
        self.steps, self.solver = steps, solver
        self.scale, self.scale_schedule = scale, scale_schedule
        self.clamp_mode, self.clamp_lerp, self.temperature = clamp_mode, clamp_lerp, temperature
        self.normalise, self.clip_x0, self.set_alpha_to_one = normalise, clip_x0, set_alpha_to_one
        self.final_sigma, self.second_order = final_sigma, second_order

        self.rng = Rng(seed)
        self.lengths = list(lengths)
        self.row_B = torch.tensor(range(len(sources)) if row_ids is None else row_ids)
        self.source_BS, self.source_valid_BS = pad(sources, model.pad)
        self.valid_BL = torch.arange(max(lengths))[None, :] < torch.tensor(self.lengths)[:, None]
        self.noise_BLE = noise_BLE
        self.alpha_bar_T = model.alpha_bar_T.double()
        self.T = len(self.alpha_bar_T)
        self.timesteps = self._timesteps()
        self.is_guided = not (scale == 1 and scale_schedule == "constant")

    def _timesteps(self) -> list[int]:
        """DDIM visits 0, r, 2r, … from above; DPM-Solver++ an even division of T−1 … 0 without its last point."""
        if self.solver == "ddim":
            stride = self.T // self.steps
            return [i * stride for i in range(self.steps)][::-1]
        points = torch.linspace(self.T - 1, 0, self.steps + 1, dtype=torch.float64).round()
        return [int(t) for t in points[:-1]]

    def run(self) -> list[list[int]]:
        self.start()
        for i in range(self.steps):
            self.step(i)
        return self.finish()

    @torch.no_grad()
    def start(self) -> None:
        """Encodes both sources and draws the starting noise."""
        net = self.model.net
        self.memory_BSD = net.encode(self.source_BS, self.source_valid_BS)
        mask_B1 = torch.full((len(self.row_B), 1), self.model.mask)
        self.mask_valid_B1 = torch.ones_like(mask_B1, dtype=torch.bool)
        if self.is_guided:
            self.mask_memory_B1D = net.encode(mask_B1, self.mask_valid_B1)
        if self.noise_BLE is None:
            keys_BL = self.rng.key(Stream.INITIAL_NOISE, self.row_B[:, None], 0, torch.arange(self.valid_BL.shape[1]))
            self.y_BLE = normal(keys_BL[..., None], torch.arange(self.table_VE.shape[1]))
        else:
            self.y_BLE = self.noise_BLE.clone()
        self.previous_BLE = torch.zeros_like(self.y_BLE)

    @torch.no_grad()
    def step(self, i: int) -> None:
        """Predict, clamp and guide, take the solver's step."""
        t = self.timesteps[i]
        cond_BLE = self._decode(t, self.memory_BSD, self.source_valid_BS)
        uncond_BLE = self._decode(t, self.mask_memory_B1D, self.mask_valid_B1) if self.is_guided else None
        y0_BLE = self._clamp_and_guide(i, t, cond_BLE, uncond_BLE)
        if self.normalise:
            centred = y0_BLE - y0_BLE.mean(-1, keepdim=True)
            standard_BLE = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
            y0_BLE = y0_BLE + (1 - t / self.T) * (standard_BLE - y0_BLE)
        self.y_BLE = self._ddim(t, y0_BLE) if self.solver == "ddim" else self._dpmpp(i, y0_BLE)
        self.previous_BLE = y0_BLE

    @torch.no_grad()
    def finish(self) -> list[list[int]]:
        """Rounds every position to a token and cuts the padding off."""
        tokens_BL = self._tokens(self.y_BLE, Stream.ROUND, 0)
        return [row[:length] for row, length in zip(tokens_BL.tolist(), self.lengths, strict=True)]

    def _decode(self, t: int, memory_BSD: Tensor, memory_valid_BS: Tensor) -> Tensor:
        model = self.model
        x_BLD = model.enter(self.y_BLE, torch.full_like(self.row_B, t))
        return model.net.down(model.net.decoder(x_BLD, self.valid_BL, memory_BSD, memory_valid_BS))

    def _k(self, t: int) -> float:
        if self.scale_schedule == "lerp":
            return t / self.T
        return math.sqrt(1 - float(self.alpha_bar_T[t])) if self.scale_schedule == "alpha" else 1.0

    def _clamp_and_guide(self, i: int, t: int, cond: Tensor, uncond: Tensor | None) -> Tensor:
        clamp = lambda y0, stream: self._clamp(y0, stream, i, t)  # noqa: E731
        if uncond is None:
            return clamp(cond, Stream.CLAMP_COND) if self.clamp_mode else cond
        ks = self._k(t) * self.scale
        if self.clamp_mode == 0:
            return uncond + ks * (cond - uncond)
        if self.clamp_mode == 1:
            return clamp(uncond + ks * (cond - uncond), Stream.CLAMP_GUIDED)
        clamped = clamp(cond, Stream.CLAMP_COND)
        if self.clamp_mode == 4:
            return clamped + (ks - 1) * (cond - uncond)
        clamped_uncond = clamp(uncond, Stream.CLAMP_UNCOND)
        guided = clamped_uncond + ks * (clamped - clamped_uncond)
        return guided if self.clamp_mode == 2 else clamp(guided, Stream.CLAMP_GUIDED)

    def _clamp(self, y0_BLE: Tensor, stream: Stream, visit: int, t: int) -> Tensor:
        clamped_BLE = self.table_VE[self._tokens(y0_BLE, stream, visit)]
        return y0_BLE + (1 - t / self.T) * (clamped_BLE - y0_BLE) if self.clamp_lerp else clamped_BLE

    def _tokens(self, y_BLE: Tensor, stream: Stream, visit: int) -> Tensor:
        """Every position's token: the nearest, or one drawn from softmax(−distance / temperature)."""
        distance_NV = torch.cdist(y_BLE.flatten(0, 1), self.table_VE)
        if self.temperature == 0:
            return distance_NV.argmin(-1).view(y_BLE.shape[:2])
        weights_NV = torch.softmax(-distance_NV / self.temperature, -1)
        keys_BL = self.rng.key(stream, self.row_B[:, None], visit, torch.arange(y_BLE.shape[1]))
        return race(weights_NV, keys_BL.flatten()).view(y_BLE.shape[:2])

    def _ddim(self, t: int, y0_BLE: Tensor) -> Tensor:
        """Song et al. 2021, eq. 12 without noise: the direction is read off the unclipped prediction."""
        before = t - self.T // self.steps
        here = float(self.alpha_bar_T[t])
        there = float(self.alpha_bar_T[before]) if before >= 0 else self._last_alpha_bar()
        eps_BLE = (self.y_BLE - math.sqrt(here) * y0_BLE) / math.sqrt(1 - here)
        if self.clip_x0:
            y0_BLE = y0_BLE.clamp(-1, 1)
        return math.sqrt(there) * y0_BLE + math.sqrt(1 - there) * eps_BLE

    def _last_alpha_bar(self) -> float:
        return 1.0 if self.set_alpha_to_one else float(self.alpha_bar_T[0])

    def _level(self, i: int) -> tuple[float, float, float]:
        """(alpha, sigma, lambda) at the i-th visited timestep; after the last, at the end of the trajectory."""
        if i == self.steps and self.final_sigma == "zero":
            return 1.0, 0.0, math.inf
        alpha_bar = float(self.alpha_bar_T[0 if i == self.steps else self.timesteps[i]])
        alpha, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        return alpha, sigma, math.log(alpha / sigma)

    def _dpmpp(self, i: int, y0_BLE: Tensor) -> Tensor:
        """Lu et al. 2022, algorithm 2: multistep, data prediction, second order but at its ends."""
        _, sigma_s, lambda_s = self._level(i)
        alpha, sigma, lambda_t = self._level(i + 1)
        h = lambda_t - lambda_s
        y_BLE = sigma / sigma_s * self.y_BLE - alpha * (math.exp(-h) - 1) * y0_BLE
        is_last = i == self.steps - 1
        if i == 0 or (is_last and (self.final_sigma == "zero" or self.steps < 15)):
            return y_BLE
        r0 = (lambda_s - self._level(i - 1)[2]) / h
        d1_BLE = (y0_BLE - self.previous_BLE) / r0
        if self.second_order == "heun":
            return y_BLE + alpha * ((math.exp(-h) - 1) / h + 1) * d1_BLE
        return y_BLE - alpha * (math.exp(-h) - 1) / 2 * d1_BLE


def pad(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Ids padded to the longest, and what is no padding."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
    return ids, torch.tensor([[i < len(row) for i in range(longest)] for row in rows])
