"""Samplers of masked denoisers in which a written token stays: ancestral, τ-leaping and first hitting.

    ancestral      MDLM's: a mask is written with probability (m_t − m_s) / m_t   (Sahoo et al. 2024, §4.2)
    analytic       SEDD's Tweedie τ-leaping; also of the uniform process           (Lou et al. 2024, §4.2)
    euler          SEDD's Euler steps, likewise                                    (Lou et al. 2024, §4.1)
    first_hitting  the limit of ever more steps, exactly                           (Zheng et al. 2024)

m is the share of masks. With normalised posteriors the first three differ in the probability of a step alone (see
`unmasking`), and on log-linear noise in nothing. The published law of SEDD (`normalise=false`) lets a learned score
also decide how fast a position is written: with probability min(1, z·p), p that of the normalised step and z what the
score's entries sum to beside what they must.

Knows no network: only the contract of discrete denoisers. The uniform process is in `random_tokens`.

Shape suffixes: B rows, L positions, T steps, N positions that are written, K positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Process, Step, open_guided
from diffq.diffusion.draws import Draw, DrawAndZ
from diffq.diffusion.noise import DREAMS_LAST_TIME, Noise, times
from diffq.diffusion.reductions import LogProb, LogZ, Reduction
from diffq.diffusion.row_draws import token_draw
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng, Stream, uniform
from diffq.samplers.base import Sampler, require_free
from diffq.samplers.random_tokens import leap
from diffq.samplers.unmasking import Schedule, one_by_one, stepwise
from diffq.settings import setting

Denoise = Literal["draw", "argmax", "none"]

_LOOK_EVERY = 8  # steps between two looks, on a GPU, at what is still masked: each makes the host wait


@dataclass(frozen=True, kw_only=True)
class GuidedByPrompt(Sampler):
    """The dial of every sampler of masks."""

    processes: ClassVar[tuple[Process, ...]] = ("absorbing",)

    scale: float = setting(1.0, "guidance by the prompt: 1 is off, 0 sees no prompt", low=0)

    def needs_guidance(self) -> bool:
        return self.scale != 1


@dataclass(frozen=True, kw_only=True)
class MaskedSampler(GuidedByPrompt):
    """The dials of every sampler that draws clean tokens for masks."""

    temperature: float = setting(
        1.0, "divides the log-weights of the clean token before it is drawn; 0 = argmax", low=0
    )
    top_p: float = setting(1.0, "nucleus of the clean token's distribution; 1 is off", above=0, high=1)
    top_k: int = setting(0, "the k best tokens alone; 0 is off", low=0)

    @property
    def plain(self) -> bool:
        """True where clean tokens are drawn from the model's own distribution, neither sharpened nor cut."""
        return self.temperature == 1 and self.top_p == 1 and self.top_k == 0

    def token(self, key_N: Tensor) -> Reduction:
        """The draw of a clean token."""
        return token_draw(key_N, self.temperature, self.top_k, self.top_p)

    def token_and_log_p(
        self, read: Callable[..., tuple[Any, ...]], key_N: Tensor, best: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Clean tokens, and the log-probability that each has before temperature and nucleus; from one pass over the
        scores where there is no nucleus. read(*reductions) reads the positions; best: the best token, whatever the
        dials say."""
        temperature = 0.0 if best else self.temperature
        if temperature == 0 or (self.top_p == 1 and self.top_k == 0):
            ((token_N, _, log_p_N),) = read(DrawAndZ(key_N, temperature))
            return token_N, log_p_N
        (token_N,) = read(self.token(key_N))
        (log_p_N,) = read(LogProb(token_N))
        return token_N, log_p_N


def mask_free(canvas: Canvas, mask: int) -> Tensor:
    """The canvas' tokens with masks where the sampler may write. UserError where there is nothing to write."""
    require_free(canvas)
    return torch.where(canvas.free_BL, mask, canvas.tokens_BL)


def time_uniforms(rng: Rng, canvas: Canvas) -> Tensor:
    """One uniform for each position, keyed by row and position alone: 32 steps and 1,024 share them, (B, L)."""
    position_L = torch.arange(canvas.shape[1], device=canvas.device)
    return uniform(rng.key(Stream.TIME, canvas.row_B[:, None], 0, position_L))


def write_in_order(
    sampler: MaskedSampler,
    denoiser: Any,
    canvas: Canvas,
    schedule: Schedule,
    rng: Rng,
    on_step: OnStep | None,
    final: Denoise = "draw",
) -> Canvas:
    """Runs the events of a schedule: one network call each, rows whose events are over left out."""
    session = open_guided(denoiser, canvas, sampler.scale)
    session.select(schedule.order_B)
    length = canvas.shape[1]
    tokens_BL = mask_free(canvas, denoiser.mask)[schedule.order_B]
    row_B = canvas.row_B[schedule.order_B]
    rows = len(row_B)
    time_B = torch.ones(rows, dtype=torch.float64, device=canvas.device)

    def placed(values_B: Tensor) -> Tensor:
        """Rows back in the canvas' order."""
        return torch.empty_like(values_B).index_copy_(0, schedule.order_B, values_B)

    for e, event in enumerate(schedule):
        if event.rows < rows:
            rows = event.rows
            session.select(torch.arange(rows, device=canvas.device))
        if event.masked_BL is not None:
            tokens_BL[:rows] = torch.where(event.masked_BL, denoiser.mask, tokens_BL[:rows])
        hidden = session.run(tokens_BL[:rows], event.noise_B, event.at_BK)
        key_N = rng.key(Stream.TOKEN, row_B[event.position_N // length], event.visit_N, event.position_N % length)
        (token_N,) = session.read(hidden, event.slot_N, [sampler.token(key_N)])
        if event.any_last and final == "argmax":
            (best_N,) = session.read(hidden, event.slot_N, [Draw(None, 0.0)])
            token_N = torch.where(event.last_N, best_N, token_N)
        tokens_BL.view(-1)[event.position_N] = token_N
        time_B[:rows] = event.after_B
        if on_step is not None:
            on_step(Step(e, len(schedule), placed(time_B), canvas, lambda: placed(tokens_BL)))
    filled_BL = placed(tokens_BL)
    if schedule.left_BL is not None:
        filled_BL = torch.where(schedule.left_BL, denoiser.mask, filled_BL)
    return canvas.replace(tokens_BL=filled_BL)


@SAMPLERS.register("first_hitting")
@dataclass(frozen=True, kw_only=True)
class FirstHitting(MaskedSampler):
    """Writes one position a row at a time, each at its own random time: the law of infinitely many steps, in as many
    calls as there are positions to write."""

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        schedule = one_by_one(time_uniforms(rng, canvas), canvas.free_BL)
        return write_in_order(self, denoiser, canvas, schedule, rng, on_step)


@dataclass(frozen=True, kw_only=True)
class Stepping(MaskedSampler):
    """Samplers on a grid of times."""

    steps: int = setting(128, "steps from noise to text; those in which a row writes nothing cost it nothing", low=1)
    denoise: Denoise = setting(
        "draw", "what becomes of the masks that the last step has left: drawn (SEDD), the best token (MDLM), kept"
    )

    def times(self) -> Tensor:
        """The times between which it steps, float64 (T + 1,)."""
        return times(self.steps)

    def written_in_step(self, noise: Noise) -> Tensor:
        """The probability that a mask is written in each step, where posteriors are normalised, float64 (T,)."""
        share = noise.share(self.times())
        return (share[:-1] - share[1:]) / share[:-1]

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        device = canvas.device
        survival_T = (1 - self.written_in_step(denoiser.noise)).cumprod(0).to(device)
        noise_T = denoiser.noise.share(self.times()).to(device)
        uniform_BL = time_uniforms(rng, canvas)
        schedule = stepwise(uniform_BL, canvas.free_BL, survival_T, noise_T, self.denoise != "none")
        return write_in_order(self, denoiser, canvas, schedule, rng, on_step, self.denoise)


@SAMPLERS.register("ancestral")
@dataclass(frozen=True, kw_only=True)
class Ancestral(Stepping):
    """MDLM's ancestral sampling, and Dream's `origin` rule."""

    pace: Literal["even", "dream"] = setting(
        "even", "the grid of times: even, down to 1e-5; dream: down to 1e-3, and the last step writes all that is left"
    )

    def idle(self) -> frozenset[str]:
        return super().idle() | ({"denoise"} if self.pace == "dream" else set())

    def times(self) -> Tensor:
        return times(self.steps, DREAMS_LAST_TIME) if self.pace == "dream" else super().times()

    def written_in_step(self, noise: Noise) -> Tensor:
        chance_T = super().written_in_step(noise)
        if self.pace == "dream":
            chance_T[-1] = 1
        return chance_T


@dataclass(frozen=True, kw_only=True)
class Leaping(Stepping):
    """SEDD's two samplers, of masks and of random tokens.

    For masks on log-linear noise the two are one sampler, but the noise is the model's: both names are kept.
    """

    processes: ClassVar[tuple[Process, ...]] = ("absorbing", "uniform")

    normalise: bool = setting(
        True,
        "masks: fix what the scores sum to, so that how fast a position is written is the schedule's choice alone;"
        " false is the published law",
    )

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        if denoiser.process == "uniform":
            return leap(self, denoiser, canvas, rng, on_step)
        if self.normalise or not denoiser.learnt_z:
            return super().__call__(denoiser, canvas, rng, on_step)
        return self._unnormalised(denoiser, canvas, rng, on_step)

    def _unnormalised(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None) -> Canvas:
        """The published law: every masked position is read at every step, since its z decides whether it is written.

        A position is written in the first step after which its own running Π (1 − min(1, z·p)) ≤ u: the same uniforms
        and the same tokens as with z = 1.
        """
        if self.scale != 1:
            raise UserError(
                "the published law of SEDD (normalise=false) has no guidance; use scale=1 or normalise=true"
            )
        session, device, length = denoiser.open(canvas), canvas.device, canvas.shape[1]
        tokens_BL = mask_free(canvas, denoiser.mask)
        uniform_N = time_uniforms(rng, canvas).flatten()
        key_N = rng.key(Stream.TOKEN, canvas.row_B[:, None], 0, torch.arange(length, device=device)).flatten()
        survival_N = torch.ones_like(uniform_N)
        chance_T = self.written_in_step(denoiser.noise).clamp(max=1).to(device)
        noise_T = denoiser.noise.share(times(self.steps)).to(device)
        flat_N = tokens_BL.view(-1)
        masked_M = canvas.free_BL.flatten().nonzero().squeeze(1)
        look = 1 if device.type == "cpu" else _LOOK_EVERY
        for k in range(self.steps + (self.denoise != "none")):
            final = k == self.steps
            if k and (final or k % look == 0):
                masked_M = (flat_N == denoiser.mask).logical_and_(canvas.free_BL.flatten()).nonzero().squeeze(1)
                if not len(masked_M):
                    break
            hidden = session.run(tokens_BL, noise_T[k].expand(len(tokens_BL)))
            token_M, log_z_M = self._draw_and_z(session, hidden, masked_M, key_N[masked_M], final)
            if not final:
                survival_M = survival_N[masked_M] * (1 - (chance_T[k] * log_z_M.exp()).clamp(max=1))
                survival_N[masked_M] = survival_M
                here_M = flat_N[masked_M]
                token_M = torch.where((survival_M <= uniform_N[masked_M]) & (here_M == denoiser.mask), token_M, here_M)
            flat_N[masked_M] = token_M
            if on_step is not None:
                after = torch.zeros_like(noise_T[0]) if final else noise_T[k + 1]
                on_step(Step(k, self.steps + 1, after.expand(len(tokens_BL)), canvas, tokens_BL.clone))
        return canvas.replace(tokens_BL=tokens_BL)

    def _draw_and_z(
        self, session: Any, hidden: Tensor, position_M: Tensor, key_M: Tensor, final: bool
    ) -> tuple[Tensor, Tensor]:
        if final and self.denoise == "argmax":
            token_M, log_z_M = session.read(hidden, position_M, [Draw(None, 0.0), LogZ()])
        elif self.plain:
            ((token_M, log_z_M, _),) = session.read(hidden, position_M, [DrawAndZ(key_M)])
        else:
            token_M, log_z_M = session.read(hidden, position_M, [self.token(key_M), LogZ()])
        return token_M, log_z_M


@SAMPLERS.register("analytic")
@dataclass(frozen=True, kw_only=True)
class Analytic(Leaping):
    """SEDD's analytic sampler: the exact posterior of a step under the score (Tweedie τ-leaping)."""


@SAMPLERS.register("euler")
@dataclass(frozen=True, kw_only=True)
class Euler(Leaping):
    """SEDD's Euler sampler: rates held constant over a step, and probabilities above 1 cut off there."""

    def written_in_step(self, noise: Noise) -> Tensor:
        """σ'(t)·Δt / (e^σ − 1), at most 1."""
        time = times(self.steps)
        rate = noise.rate(time[:-1]) * (time[:-1] - time[1:])
        return (rate / torch.expm1(noise.total(time[:-1]))).clamp(max=1)
