"""MDLM: the diffusion transformer as a plain predictor of masked tokens (SUBS). (Sahoo et al. 2024, arXiv 2406.07524.)

The mask has no probability, tokens that are there are copied, and the loss is a weighted cross-entropy: SEDD's with the
scores' sum fixed. Without time conditioning, which is the published default, the network is told σ = 0 always.

Shape suffixes: B rows, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffq.diffusion.contracts import Process
from diffq.models.base import TextBatch, Totals, Vocabulary
from diffq.models.text_diffusion import TextDiffusion, TextDiffusionSettings, weighted_cross_entropy
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
        """The weighted cross-entropy."""
        return weighted_cross_entropy(
            self, batch, rng, totals, lambda tokens_BL, share_B: self.net(tokens_BL, self.sigma(share_B))
        )
