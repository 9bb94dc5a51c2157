"""MDLM: the diffusion transformer as a plain predictor of masked tokens (SUBS). (Sahoo et al. 2024, arXiv 2406.07524.)

The mask has no probability, tokens that are there are copied, and the loss is a weighted cross-entropy: SEDD's with the
scores' sum fixed. Without time conditioning, which is the published default, the network is told σ = 0 always.

With `block_causal` a token sees its own block and those before it, so what a session keeps of finished blocks stays
exact (block diffusion; Arriola et al. 2025, arXiv 2503.09573; the network is ours).

Shape suffixes: B rows, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffq.diffusion.contracts import Process
from diffq.errors import UserError
from diffq.models.base import TextBatch, Totals, Vocabulary
from diffq.models.text_diffusion import TextDiffusion, TextDiffusionSettings, weighted_cross_entropy
from diffq.models.transformer import key_mask
from diffq.registry import MODELS
from diffq.rng import Rng
from diffq.settings import setting


@MODELS.register("mdlm")
@dataclass(frozen=True, kw_only=True)
class MDLMSettings(TextDiffusionSettings):
    """MDLM."""

    process: ClassVar[Process] = "absorbing"

    time_conditioning: bool = setting(False, "tell the network how much is masked")
    block_causal: int = setting(
        0,
        "tokens of a block that sees itself and what stands before it (block diffusion); 0: all see all",
        low=0,
        since="0.2",
    )

    def check(self) -> None:
        super().check()
        if self.block_causal and self.time_conditioning:
            raise UserError("blocks have noise levels of their own, which a network is not told: give"
                            " model.time_conditioning=false or model.block_causal=0")  # fmt: skip

    def build(self, vocabulary: Vocabulary) -> MDLM:
        return MDLM(self, vocabulary)


class MDLM(TextDiffusion):
    """Cross-entropy of masked tokens."""

    def __init__(self, settings: MDLMSettings, vocabulary: Vocabulary):
        super().__init__(settings, vocabulary, conditioned=settings.time_conditioning)
        self.block = settings.block_causal

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """The weighted cross-entropy; with blocks, of each block given those before it, at a time of its own (Arriola
        et al. 2025, eq. 7)."""
        if not self.block:
            return weighted_cross_entropy(
                self, batch, rng, totals,
                lambda tokens_BL, share_B: self.net(tokens_BL, self.sigma(share_B), mask=key_mask(batch.seen_BL)),
            )  # fmt: skip
        return weighted_cross_entropy(
            self, batch, rng, totals, lambda tokens_BL, _: self._in_blocks(tokens_BL, batch.tokens_BL, batch.seen_BL),
            self.block,
        )  # fmt: skip

    def _in_blocks(self, noised_BL: Tensor, tokens_BL: Tensor, seen_BL: Tensor | None = None) -> Tensor:
        """Features of the noised tokens, each block seeing itself and the text of the blocks before it, in one call:
        the text goes through the network beside what was made of it."""
        rows, length = tokens_BL.shape
        self.net.require_length(length)
        column_L = torch.arange(length, device=tokens_BL.device)
        own_LL, before_LL = visible(column_L, self.block)
        upper = torch.cat([own_LL & ~before_LL, before_LL], 1)
        lower = torch.cat([torch.zeros_like(own_LL), own_LL], 1)
        mask = torch.cat([upper, lower])[None, None]
        if seen_BL is not None:
            mask = mask & torch.cat([seen_BL, seen_BL], 1)[:, None, None]
        return self.net(
            torch.cat([noised_BL, tokens_BL], 1),
            torch.zeros(rows, device=tokens_BL.device),
            column_L.expand(rows, -1),
            mask,
            place=column_L.repeat(2),
        )


def visible(column_L: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """True where a column (first axis) may see another under blocks, and where that is of an earlier block, (L, L)."""
    number_L = column_L // block
    return number_L[:, None] >= number_L, number_L[:, None] > number_L
