"""The loop that every sampler of embedding diffusion is: predict, clamp and guide, take a solver's step; round at the
end (Buzzard 2025, §1.7 of its code's facts). The samplers themselves, names and dials, are in `clamping.py`.

With c and u the conditional and unconditional predictions and guide(c, u) = u + k(t)·s·(c − u), the orders are

    none      guide(c, u)                          the published mode 0
    after     clamp(guide(c, u))                   mode 1
    before    guide(clamp(c), clamp(u))            mode 2
    around    clamp(guide(clamp(c), clamp(u)))     mode 3
    residual  clamp(c) + (k·s − 1)·(c − u)         mode 4, experimental

and where guidance is off, plain clamping of c in all but the first. Knows no network: only the denoiser contract.

Shape suffixes: B rows, R = B × branches, L positions, E embedding, N positions that are free and no padding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import GUIDED, Canvas, OnStep, Process, Step, branches_for, guide
from diffq.diffusion.draws import Draw
from diffq.diffusion.gaussian import diffuse
from diffq.diffusion.solvers import SolverStep
from diffq.rng import Rng, Stream, normal
from diffq.samplers.base import Sampler
from diffq.settings import setting

Order = Literal["none", "after", "before", "around", "residual"]
ScaleSchedule = Literal["constant", "lerp", "alpha"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingSampler(Sampler):
    """The loop that all samplers of embedding diffusion share, and the dials that all of them have."""

    processes: ClassVar[tuple[Process, ...]] = ("gaussian",)
    order: ClassVar[Order] = "none"

    steps: int = setting(30, "denoising steps", low=1)
    scale: float = setting(1.0, "guidance scale; 1 is off, 0 is unconditional", low=0)
    scale_schedule: ScaleSchedule = setting(
        "constant", "k(t), which multiplies the scale: constant 1 | lerp t/T | alpha √(1 − ᾱ_t)"
    )
    temperature: float = setting(
        0.0, "of every clamp and of the final rounding, whose weights are −distance; 0 takes the nearest token", low=0
    )
    normalise: bool = setting(False, "draw the prediction towards its standardised self, by 1 − t/T (published option)")

    @abstractmethod
    def trajectory(self, alpha_bar_T: Tensor) -> list[SolverStep]:
        """The solver's steps on this model's schedule; raises UserError where `steps` does not fit it."""

    def scale_at(self, t: int, alpha_bar_T: Tensor) -> float:
        """The effective guidance scale k(t)·s at timestep t."""
        if self.scale_schedule == "lerp":
            return self.scale * t / len(alpha_bar_T)
        if self.scale_schedule == "alpha":
            return self.scale * float((1 - alpha_bar_T[t]).sqrt())
        return self.scale

    def needs_guidance(self) -> bool:
        return not (self.scale == 1 and self.scale_schedule == "constant")

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        alpha_bar_T = denoiser.alpha_bar_T.double().cpu()
        trajectory = self.trajectory(alpha_bar_T)
        scales = [self.scale_at(s.t, alpha_bar_T) for s in trajectory]
        session = denoiser.open(canvas, branches_for(scales))
        fill = _Fill(session, denoiser, canvas, rng, self.temperature)

        y_BLE = fill.initial_noise(alpha_bar_T[trajectory[0].t])
        previous_BLE = None
        for i, (step, scale) in enumerate(zip(trajectory, scales, strict=True)):
            t_B = torch.full_like(canvas.row_B, step.t)
            share = step.t / len(alpha_bar_T)
            y0_RLE = session.run(y_BLE, t_B)
            y0_BLE = self.predict(fill, y0_RLE, scale, visit=i, keep=share)
            if self.normalise:
                y0_BLE = torch.lerp(y0_BLE, _standardised(y0_BLE), 1 - share)
            y0_BLE = fill.impose(y0_BLE)
            y_BLE = _advance(step, y_BLE, y0_BLE, previous_BLE)
            previous_BLE = y0_BLE
            if on_step is not None:
                time = trajectory[i + 1].t / len(alpha_bar_T) if i + 1 < len(trajectory) else 0.0
                time_B = torch.full(canvas.row_B.shape, time, device=canvas.device)
                on_step(Step(i, len(trajectory), time_B, canvas, fill.drafter(y0_BLE)))
        return canvas.replace(tokens_BL=fill.round(y_BLE))

    def predict(self, fill: _Fill, y0_RLE: Tensor, scale: float, *, visit: int, keep: float) -> Tensor:
        """The prediction (B, L, E) after clamping and guidance, in this sampler's order.

        keep: how much of the unclamped prediction stays where `clamp_lerp` is on, t/T.
        """
        if fill.branches != GUIDED:
            cond_BLE, uncond_BLE = y0_RLE, None
        else:
            cond_BLE, uncond_BLE = y0_RLE.chunk(2)
        keep = keep if getattr(self, "clamp_lerp", False) else 0.0
        return _ORDERS[self.order](fill, cond_BLE, uncond_BLE, scale, visit, keep)


class _Fill:
    """One canvas being filled: which positions, their draws, and how predictions become tokens."""

    def __init__(self, session: Any, denoiser: Any, canvas: Canvas, rng: Rng, temperature: float):
        self.session, self.denoiser, self.canvas, self.rng = session, denoiser, canvas, rng
        self.branches, self.temperature = session.branches, temperature
        self.position_N = (canvas.free_BL & canvas.valid_BL).flatten().nonzero().squeeze(1)
        self.row_N = canvas.row_B[self.position_N // canvas.shape[1]]
        self.column_N = self.position_N % canvas.shape[1]
        self.is_fixed = bool((~canvas.free_BL & canvas.valid_BL).any())

    def key_N(self, stream: Stream, visit: int = 0) -> Tensor:
        return self.rng.key(stream, self.row_N, visit, self.column_N)

    def initial_noise(self, alpha_bar: Tensor) -> Tensor:
        """y_T: standard normals; a fixed position begins as its own token's embedding, noised as far."""
        lanes_E = torch.arange(self.denoiser.embedding_dim, device=self.canvas.device)
        column_L = torch.arange(self.canvas.shape[1], device=self.canvas.device)
        key_BL = self.rng.key(Stream.INITIAL_NOISE, self.canvas.row_B[:, None], 0, column_L)
        y_BLE = normal(key_BL[..., None], lanes_E)
        if self.is_fixed:
            y_BLE = torch.where(
                self.canvas.free_BL[..., None], y_BLE, diffuse(self._fixed_BLE(), y_BLE, float(alpha_bar))
            )
        return y_BLE

    def _fixed_BLE(self) -> Tensor:
        return self.denoiser.embed(self.canvas.tokens_BL)

    def impose(self, y0_BLE: Tensor) -> Tensor:
        """The prediction with what is known put in its place: the embedding of every fixed token."""
        if not self.is_fixed:
            return y0_BLE
        return torch.where(self.canvas.free_BL[..., None], y0_BLE, self._fixed_BLE())

    def clamp(self, y0_BLE: Tensor, stream: Stream, visit: int, keep: float) -> Tensor:
        """Clamp: every prediction is replaced by a token's embedding, or drawn towards it by 1 − keep."""
        (token_N,) = self.session.read(y0_BLE, self.position_N, [self._draw(stream, visit)])
        return self._put(y0_BLE, self.denoiser.embed(token_N), keep)

    def clamp_pair(self, cond_BLE: Tensor, uncond_BLE: Tensor, visit: int, keep: float) -> tuple[Tensor, Tensor]:
        """Both branches clamped with independent draws, in one projection."""
        both_RLE = torch.cat([cond_BLE, uncond_BLE])
        position_2N = torch.cat([self.position_N, self.position_N + self.canvas.tokens_BL.numel()])
        keys = None
        if self.temperature:
            keys = torch.cat([self.key_N(Stream.CLAMP_COND, visit), self.key_N(Stream.CLAMP_UNCOND, visit)])
        (token_2N,) = self.session.read(both_RLE, position_2N, [Draw(keys, self.temperature)])
        cond_NE, uncond_NE = self.denoiser.embed(token_2N).chunk(2)
        return self._put(cond_BLE, cond_NE, keep), self._put(uncond_BLE, uncond_NE, keep)

    def _draw(self, stream: Stream, visit: int) -> Draw:
        return Draw(self.key_N(stream, visit) if self.temperature else None, self.temperature)

    def _put(self, y0_BLE: Tensor, clamped_NE: Tensor, keep: float) -> Tensor:
        flat = y0_BLE.flatten(0, 1)
        if keep:
            clamped_NE = torch.lerp(clamped_NE, flat[self.position_N], keep)
        return flat.index_copy(0, self.position_N, clamped_NE).view_as(y0_BLE)

    def round(self, y_BLE: Tensor) -> Tensor:
        """The tokens (B, L) that embeddings are rounded to, at the sampler's temperature."""
        (token_N,) = self.session.read(y_BLE, self.position_N, [self._draw(Stream.ROUND, 0)])
        return self.canvas.tokens_BL.flatten().index_copy(0, self.position_N, token_N).view(self.canvas.shape)

    def drafter(self, y0_BLE: Tensor) -> Callable[[], Tensor]:
        return lambda: self.round(y0_BLE)


def _no_clamp(fill: _Fill, cond: Tensor, uncond: Tensor | None, scale: float, visit: int, keep: float) -> Tensor:
    return cond if uncond is None else guide(cond, uncond, scale)


def _clamp_after(fill: _Fill, cond: Tensor, uncond: Tensor | None, scale: float, visit: int, keep: float) -> Tensor:
    if uncond is None:
        return fill.clamp(cond, Stream.CLAMP_COND, visit, keep)
    return fill.clamp(guide(cond, uncond, scale), Stream.CLAMP_GUIDED, visit, keep)


def _clamp_before(fill: _Fill, cond: Tensor, uncond: Tensor | None, scale: float, visit: int, keep: float) -> Tensor:
    if uncond is None:
        return fill.clamp(cond, Stream.CLAMP_COND, visit, keep)
    return guide(*fill.clamp_pair(cond, uncond, visit, keep), scale)


def _clamp_around(fill: _Fill, cond: Tensor, uncond: Tensor | None, scale: float, visit: int, keep: float) -> Tensor:
    guided = _clamp_before(fill, cond, uncond, scale, visit, keep)
    return guided if uncond is None else fill.clamp(guided, Stream.CLAMP_GUIDED, visit, keep)


def _clamp_residual(fill: _Fill, cond: Tensor, uncond: Tensor | None, scale: float, visit: int, keep: float) -> Tensor:
    """Mode 4. At scale 0 the rule of all guided samplers goes before it: one unconditional pass, clamped; the limit of
    this formula would be clamp(c) − (c − u)."""
    clamped = fill.clamp(cond, Stream.CLAMP_COND, visit, keep)
    return clamped if uncond is None else clamped + (scale - 1) * (cond - uncond)


_ORDERS = {
    "none": _no_clamp,
    "after": _clamp_after,
    "before": _clamp_before,
    "around": _clamp_around,
    "residual": _clamp_residual,
}


def _standardised(y0_BLE: Tensor) -> Tensor:
    """Every vector with mean 0 and variance 1 over its dimensions."""
    variance = y0_BLE.var(-1, correction=0, keepdim=True)
    return (y0_BLE - y0_BLE.mean(-1, keepdim=True)) / (variance + 1e-5).sqrt()


def _advance(step: SolverStep, y_BLE: Tensor, y0_BLE: Tensor, previous_BLE: Tensor | None) -> Tensor:
    """The solver's update."""
    y_BLE = step.keep * y_BLE + (step.x0 + step.correction) * y0_BLE
    if step.x0_clipped:
        y_BLE = y_BLE + step.x0_clipped * y0_BLE.clamp(-1, 1)
    if step.correction and previous_BLE is not None:
        y_BLE = y_BLE - step.correction * previous_BLE
    return y_BLE
