"""SEDD: the diffusion transformer trained with score entropy, for masks (`sedd`) and for random tokens
(`sedd_uniform`). (Lou et al. 2024, arXiv 2310.16834, and its repository.)

The network's output is the log of the score; for masks less log(e^σ − 1) + log V, as published (`scale_by_sigma`), so
here what the network gives less log V are log-weights log(z·p), whatever σ.

Shape suffixes: B rows, L positions, N scored positions, V tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffq.diffusion.contracts import Process
from diffq.diffusion.discrete import Uniform
from diffq.diffusion.score_entropy import uniform_entropy
from diffq.models.base import TextBatch, Totals, Vocabulary
from diffq.models.text_diffusion import TextDiffusion, TextDiffusionSettings, training_noise
from diffq.models.transformer import key_mask
from diffq.registry import MODELS
from diffq.rng import Rng, Stream, uniform


@MODELS.register("sedd")
@dataclass(frozen=True, kw_only=True)
class SEDDSettings(TextDiffusionSettings):
    """SEDD with the absorbing process."""

    process: ClassVar[Process] = "absorbing"

    def build(self, vocabulary: Vocabulary) -> SEDD:
        return SEDD(self, vocabulary)

    def blank(self) -> dict[str, Any]:
        return super().blank() | {"learnt_z": True}


class SEDD(TextDiffusion):
    """Score entropy of masks."""

    learnt_z = True

    @property
    def offset(self) -> float:
        return -math.log(self.words)

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """σ'(t) times the score entropy of the masked positions, at one keyed t a row, a token: the bound in nats.

        `gap` is the part that would vanish if the scores summed to what they must: z − 1 − log z.
        """
        noise = training_noise(self.noise, batch, rng)
        noised_BL, mask = torch.where(noise.destroyed_BL, self.mask, batch.tokens_BL), key_mask(batch.seen_BL)
        hidden_BLD = self.net(noised_BL, self.sigma(noise.share), mask=mask)
        weights_NV = self.log_weights(hidden_BLD[noise.destroyed_BL])
        log_z_N = weights_NV.logsumexp(-1)
        clean_N = weights_NV.gather(1, batch.tokens_BL[noise.destroyed_BL][:, None]).squeeze(1)
        gap_N = torch.expm1(log_z_N) - log_z_N
        entropy_N = log_z_N - clean_N + gap_N
        weight_N = noise.weight_of_masked
        return {
            "loss": (weight_N * entropy_N).sum() / totals.tokens,
            "gap": (weight_N * gap_N.detach()).sum() / totals.tokens,
        }


@MODELS.register("sedd_uniform")
@dataclass(frozen=True, kw_only=True)
class SEDDUniformSettings(TextDiffusionSettings):
    """SEDD with the uniform process."""

    process: ClassVar[Process] = "uniform"

    def build(self, vocabulary: Vocabulary) -> SEDDUniform:
        return SEDDUniform(self, vocabulary)


class SEDDUniform(TextDiffusion):
    """Score entropy of random tokens."""

    process: ClassVar[Process] = "uniform"

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """σ'(t) times the score entropy of every position, at one keyed t a row, a token; the prior's divergence, which
        no weight changes, is left out."""
        noise = training_noise(self.noise, batch, rng)
        position_L = torch.arange(batch.tokens_BL.shape[1], device=batch.tokens_BL.device)
        key_BL = rng.key(Stream.TRAIN_NOISE, batch.row_B[:, None], batch.visit_B[:, None], position_L)
        other_BL = Uniform(self.words).prior(uniform(key_BL, 1))
        noised_BL = torch.where(noise.destroyed_BL, other_BL, batch.tokens_BL)
        hidden_BLD = self.net(noised_BL, self.sigma(noise.share))
        log_NV = self.log_weights(hidden_BLD[batch.valid_BL])
        token_N1, clean_N1 = noised_BL[batch.valid_BL][:, None], batch.tokens_BL[batch.valid_BL][:, None]
        log_NV = log_NV.scatter(1, token_N1, 0.0)  # what is said of the token itself has no meaning
        entropy_N = uniform_entropy(
            log_NV.exp().sum(-1) - 1,
            log_NV.sum(-1),
            log_NV.gather(1, clean_N1).squeeze(1),
            (token_N1 == clean_N1).squeeze(1),
            noise.of_positions(self.noise.sigma_of(noise.share).float(), batch.valid_BL),
            self.words,
        )
        weight_N = noise.of_positions(noise.rate.float(), batch.valid_BL)
        return {"loss": (weight_N * entropy_N).sum() / totals.tokens}
