"""ReMDM: masked diffusion in which what is written may be masked again, so that early mistakes can be mended.
(Wang et al. 2025, arXiv 2503.00307. The marginals are checked by enumeration; `conf` and `loop` are reconstructed.)

With α the share that is kept, from t to s a written position is masked again with probability σ, and a masked one is
written with probability (α_s − (1−σ)·α_t) / (1 − α_t), which keeps the marginals of the process for every
0 ≤ σ ≤ σ_max = min(1, (1 − α_s) / α_t). All is masked at the start, so α is counted from 0 there, whatever little the
noise schedule would have kept. The rules are choices of σ:

    cap      min(eta, σ_max)
    rescale  eta · σ_max
    conf     eta · σ_max · softmax(−p), p the probability that each written token had when it was drawn: what was
             unlikely goes first. Masked positions have σ = 0 in it, so the marginals are not kept.
    loop     cap inside [t_off, t_on], where α stands still at alpha_on; plain steps outside

Knows no network.

Shape suffixes: B rows, L positions, T steps, M masked positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas, OnStep, Step, open_guided
from diffq.diffusion.noise import Noise, times
from diffq.diffusion.reductions import Reduction
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.rng import Rng, Stream, uniform
from diffq.samplers.masked import Denoise, MaskedSampler, mask_free, write_in_order
from diffq.samplers.unmasking import remasked
from diffq.settings import setting


@SAMPLERS.register("remdm")
@dataclass(frozen=True, kw_only=True)
class ReMDM(MaskedSampler):
    """Remasking diffusion. Its steps need not end with the length: more steps go on mending."""

    steps: int = setting(128, "steps from noise to text", low=1)
    rule: Literal["cap", "rescale", "conf", "loop"] = setting("cap", "how σ is chosen")
    eta: float = setting(0.02, "cap, loop: the largest σ; rescale, conf: the share of σ_max", low=0, high=1)
    t_on: float = setting(0.55, "loop: the time at which α begins to stand still", above=0, high=1)
    t_off: float = setting(0.05, "loop: the time at which it goes on", above=0, high=1)
    alpha_on: float = setting(0.9, "loop: the share kept meanwhile", above=0, high=0.9999)
    denoise: Denoise = setting(
        "draw", "what becomes of the masks that the last step has left: drawn, the best token, kept"
    )

    def check(self) -> None:
        if self.t_off >= self.t_on:
            raise UserError(f"remdm: t_off={self.t_off} must be below t_on={self.t_on}")

    def shares(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """The share of masks before each step and at the end (T + 1), and σ of each step (T), float64."""
        time = times(self.steps)
        if self.rule != "loop":
            share = noise.share(time) / noise.share(time[0])
            most = (share[1:] / (1 - share[:-1]).clamp(min=1e-300)).clamp(max=1)
            return share, most.clamp(max=self.eta) if self.rule == "cap" else most * self.eta
        alpha = torch.where(
            time > self.t_on,
            self.alpha_on * (1 - time) / (1 - self.t_on) if self.t_on < 1 else torch.zeros_like(time),
            torch.where(time >= self.t_off, self.alpha_on, 1 - (1 - self.alpha_on) * (time / self.t_off)),
        )
        share = 1 - alpha
        inside = (time[:-1] <= self.t_on) & (time[1:] >= self.t_off)
        most = (share[1:] / alpha[:-1].clamp(min=1e-300)).clamp(max=1)
        return share, torch.where(inside, most.clamp(max=self.eta), 0.0)

    def __call__(self, denoiser: Any, canvas: Canvas, rng: Rng, on_step: OnStep | None = None) -> Canvas:
        share, sigma = (x.to(canvas.device) for x in self.shares(denoiser.noise))
        position_L = torch.arange(canvas.shape[1], device=canvas.device)

        def uniforms(step: int) -> Tensor:
            return uniform(rng.key(Stream.REMASK, canvas.row_B[:, None], step, position_L))

        if self.rule == "conf":
            return self._by_confidence(denoiser, canvas, rng, share, sigma, uniforms, on_step)
        kept = 1 - share
        write_T = ((kept[1:] - (1 - sigma) * kept[:-1]) / share[:-1]).clamp(min=0, max=1)
        schedule = remasked(uniforms, canvas.free_BL, write_T, sigma, share, self.denoise != "none")
        return write_in_order(self, denoiser, canvas, schedule, rng, on_step, self.denoise)

    def _by_confidence(
        self, denoiser: Any, canvas: Canvas, rng: Rng, share: Tensor, sigma: Tensor, uniforms: Any, on_step: Any
    ) -> Canvas:
        """What is masked depends on what was drawn, so steps go one after the other for all rows together, and the host
        asks the device at each which positions are to be read."""
        session, length = open_guided(denoiser, canvas, self.scale), canvas.shape[1]
        tokens_BL = mask_free(canvas, denoiser.mask)
        masked_BL = canvas.free_BL.clone()
        confidence_BL = torch.zeros(canvas.shape, dtype=torch.float64, device=canvas.device)
        visit_BL = torch.zeros_like(tokens_BL)
        write_T = (1 - share[1:] / share[:-1]).clamp(min=0)
        for k in range(self.steps + (self.denoise != "none")):
            final = k == self.steps
            uniform_BL = uniforms(k)
            write_BL = masked_BL if final else masked_BL & (uniform_BL < write_T[k])
            remask_BL = torch.zeros_like(write_BL)
            if not final:
                weight_BL = (-confidence_BL).masked_fill(masked_BL | ~canvas.free_BL, -torch.inf).softmax(1)
                remask_BL = canvas.free_BL & ~masked_BL & (uniform_BL < sigma[k] * weight_BL.nan_to_num(0.0))
            position_M = write_BL.flatten().nonzero().squeeze(1)
            if len(position_M):
                hidden = session.run(tokens_BL, share[k].expand(len(tokens_BL)))
                row_M, place_M = canvas.row_B[position_M // length], position_M % length
                key_M = rng.key(Stream.TOKEN, row_M, visit_BL.flatten()[position_M], place_M)

                def read(*reductions: Reduction, hidden: Tensor = hidden, position_M: Tensor = position_M) -> Any:
                    return session.read(hidden, position_M, reductions)

                token_M, log_p_M = self.token_and_log_p(read, key_M, final and self.denoise == "argmax")
                tokens_BL.view(-1)[position_M] = token_M
                confidence_BL.view(-1)[position_M] = log_p_M.exp()
                visit_BL.view(-1)[position_M] += 1
            tokens_BL = torch.where(remask_BL, denoiser.mask, tokens_BL)
            masked_BL = (masked_BL & ~write_BL) | remask_BL
            if on_step is not None:
                after = torch.zeros_like(share[0]) if final else share[k + 1]
                on_step(Step(k, self.steps + 1, after.expand(len(tokens_BL)), canvas, tokens_BL.clone))
        return canvas.replace(tokens_BL=tokens_BL)
