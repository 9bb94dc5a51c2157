"""MDLM: the diffusion transformer as a plain predictor of masked tokens (SUBS). (Sahoo et al. 2024, arXiv 2406.07524.)

The mask has no probability, tokens that are there are copied, and the loss is a weighted cross-entropy: SEDD's with the
scores' sum fixed. Without time conditioning, which is the published default, the network is told σ = 0 always.

Shape suffixes: B rows, L positions, N scored positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import Process
from diffq.models.base import TextBatch, Totals, Vocabulary
from diffq.models.text_diffusion import TextDiffusion, TextDiffusionSettings, training_noise
from diffq.registry import MODELS
from diffq.rng import Rng
from diffq.settings import setting


@MODELS.register("mdlm")
@dataclass(frozen=True, kw_only=True)
class MDLMSettings(TextDiffusionSettings):
    """MDLM."""

    process: ClassVar[Process] = "absorbing"

    time_conditioning: bool = setting(False, "tell the network how much is masked")

    def build(self, vocabulary: Vocabulary) -> MDLM:
        return MDLM(self, vocabulary)


class MDLM(TextDiffusion):
    """Cross-entropy of masked tokens."""

    def __init__(self, settings: MDLMSettings, vocabulary: Vocabulary):
        super().__init__(settings, vocabulary, conditioned=settings.time_conditioning)

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """σ'(t) / (e^σ − 1) times the cross-entropy of the masked positions, at one keyed t a row, a token: the bound
        in nats (Sahoo et al. 2024, eq. 10)."""
        noise = training_noise(self.noise, batch, rng)
        hidden_BLD = self.net(torch.where(noise.destroyed_BL, self.mask, batch.tokens_BL), self.sigma(noise.share_B))
        weights_NV = self.log_weights(hidden_BLD[noise.destroyed_BL])
        entropy_N = F.cross_entropy(weights_NV, batch.tokens_BL[noise.destroyed_BL], reduction="none")
        return {"loss": (noise.weight_of_masked * entropy_N).sum() / totals.tokens}
