"""What SEDD and MDLM share: the network of `dit` over tokens and, last, the mask, and its sessions; and the noise and
the loss that other masked models share with MDLM.

Knows no sampling algorithm.

Shape suffixes: B rows, L positions, R = B × branches, K asked positions of a row, N asked positions, D width, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, GUIDED, UNCOND, Branch, Canvas, Process
from diffq.diffusion.noise import Noise, NoiseName
from diffq.errors import UserError
from diffq.models.base import ModelSettings, TextBatch, Totals, TrainableModel, Vocabulary
from diffq.models.dit import ConditionedSettings, DiT
from diffq.models.sessions import MaskedSession, tiles
from diffq.models.transformer import key_mask
from diffq.models.work import DiTWork
from diffq.rng import Rng, Stream, uniform
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(ModelSettings):
    """The noise that a network of text is trained with."""

    task: ClassVar[Literal["pairs", "text"]] = "text"

    noise: NoiseName = setting("log_linear", "noise schedule")
    noise_eps: float = setting(1e-3, "log_linear, cosine: the share that is not destroyed at t = 1", above=0, high=0.5)
    noise_low: float = setting(1e-4, "geometric: σ at t = 0", above=0)
    noise_high: float = setting(20.0, "geometric: σ at t = 1", above=0)

    @property
    def schedule(self) -> Noise:
        return Noise(self.noise, self.noise_eps, self.noise_low, self.noise_high)


@dataclass(frozen=True, kw_only=True)
class TextDiffusionSettings(NoiseSettings, ConditionedSettings):
    """The sizes of a diffusion transformer over text, and its noise."""

    def work(self, vocabulary: Vocabulary) -> DiTWork:
        words = tokens_of(vocabulary)
        return DiTWork(self, words, words + (self.process == "absorbing"), self.conditioning)

    def blank(self) -> dict[str, Any]:
        return {"guidable": True, "max_length": self.max_length, "noise": self.schedule}


class TextDiffusion(TrainableModel):
    """The network with its vocabulary: ids 0 … words−1 are tokens, and `mask` = words where the process has masks.

    conditioned  whether the network is told the noise level
    offset       what is added to the network's output to make log-weights of it
    """

    process: ClassVar[Process] = "absorbing"
    learnt_z: ClassVar[bool] = False

    def __init__(self, settings: TextDiffusionSettings, vocabulary: Vocabulary, conditioned: bool = True):
        super().__init__()
        self.settings = settings
        self.noise = settings.schedule
        self.words, self.mask = tokens_of(vocabulary), vocabulary.mask
        size = self.words + (self.process == "absorbing")
        self.net = DiT(settings, size, settings.conditioning)
        self.conditioned = conditioned

    @property
    def offset(self) -> float:
        return 0.0

    def sigma(self, noise_B: Tensor) -> Tensor:
        """What the network is told of rows whose share m of destroyed positions is noise_B."""
        sigma_B = self.noise.sigma_of(noise_B) if self.conditioned else torch.zeros_like(noise_B)
        return sigma_B.float()

    def log_weights(self, hidden_ND: Tensor) -> Tensor:
        """Float32 log-weights of all tokens, (N, V); for training, which needs them whole."""
        linear = self.net.output_layer.linear
        logits_NV = F.linear(hidden_ND, linear.weight[: self.words], linear.bias[: self.words])
        return logits_NV.float() + self.offset

    def denoiser(self) -> TextDenoiser:
        return TextDenoiser(self)


def tokens_of(vocabulary: Vocabulary) -> int:
    """V, the tokens before the mask. UserError where the mask is not the last id."""
    if vocabulary.mask != vocabulary.size - 1:
        raise UserError(
            f"this model needs the mask to be the last of the {vocabulary.size} ids, and the tokenizer's is"
            f" {vocabulary.mask}; dataset.tokenizer=gpt2 has it there"
        )
    return vocabulary.mask


class TextDenoiser:
    """The contract of a discrete process (`contracts.DiscreteDenoiser`)."""

    guidable = True  # the unconditional branch is the same network with the prompt masked

    def __init__(self, model: TextDiffusion):
        self.model = model.eval()
        self.process = model.process
        self.vocab_size = model.words
        self.mask = model.mask
        self.noise = model.noise
        self.learnt_z = model.learnt_z
        self.max_length = model.settings.max_length

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> TextSession:
        return TextSession(self, canvas, branches)


class TextSession(MaskedSession):
    """An opened TextDenoiser. UserError for a canvas that is too long, and as `MaskedSession`."""

    def __init__(self, denoiser: TextDenoiser, canvas: Canvas, branches: tuple[Branch, ...]):
        self.model = denoiser.model
        self.model.net.require_length(canvas.shape[1])
        masks = denoiser.process == "absorbing"
        if branches in (GUIDED, UNCOND) and not masks:
            raise UserError("guidance masks the prompt, which only models of the absorbing process know; scale=1")
        words = denoiser.vocab_size
        super().__init__(canvas, branches, mask=denoiser.mask if masks else None, size=words, words=words)

    @torch.no_grad()
    def run(self, tokens_BL: Tensor, noise_B: Tensor, at_BK: Tensor | None = None) -> Tensor:
        """Features (R, L, D), or (R, K, D) of the asked positions."""
        sigma_R = self.repeat(self.model.sigma(noise_B))
        mask = None if self.valid_BL is None else key_mask(self.repeat(self.valid_BL))
        at_RK = None if at_BK is None else self.repeat(at_BK)
        return self.model.net(self.stack(tokens_BL), sigma_R, at_RK, mask)

    @torch.no_grad()
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        """Log-weights of tokens, tile by tile."""
        linear = self.model.net.output_layer.linear
        bias_V = linear.bias.detach() + self.model.offset
        return tiles(hidden.flatten(0, 1)[positions_N], linear.weight.detach(), bias_V, self.never)


_TRAIN_EPS = 1e-3  # the smallest time that is trained on (Lou et al., Sahoo et al.: sampling_eps)


@dataclass(frozen=True)
class TrainingNoise:
    """What is destroyed of a batch of texts.

    destroyed_BL  bool; never where the text is padding
    share_B       m, the probability with which each position of a row was destroyed
    rate_B        σ'(t)
    """

    destroyed_BL: Tensor
    share_B: Tensor
    rate_B: Tensor

    @property
    def weight_of_masked(self) -> Tensor:
        """σ'(t) / (e^σ − 1) for every destroyed position, float32 (N,)."""
        weight_B = self.rate_B * (1 - self.share_B) / self.share_B
        return self.of_positions(weight_B.float(), self.destroyed_BL)

    @staticmethod
    def of_positions(value_B: Tensor, where_BL: Tensor) -> Tensor:
        """A row's value for each of its chosen positions, (N,)."""
        return value_B[:, None].expand(where_BL.shape)[where_BL]


def training_noise(noise: Noise, batch: TextBatch, rng: Rng) -> TrainingNoise:
    """One time a row and one uniform a position, keyed by (row, visit)."""
    time_B = uniform(rng.key(Stream.TRAIN_TIME, batch.row_B, batch.visit_B)) * (1 - _TRAIN_EPS) + _TRAIN_EPS
    share_B = noise.share(time_B)
    position_L = torch.arange(batch.tokens_BL.shape[1], device=batch.tokens_BL.device)
    key_BL = rng.key(Stream.TRAIN_NOISE, batch.row_B[:, None], batch.visit_B[:, None], position_L)
    destroyed_BL = (uniform(key_BL) < share_B[:, None]) & batch.valid_BL
    return TrainingNoise(destroyed_BL, share_B, noise.rate(time_B))


def weighted_cross_entropy(
    model: Any, batch: TextBatch, rng: Rng, totals: Totals, hidden_of: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """σ'(t) / (e^σ − 1) times the cross-entropy of the masked positions, at one keyed t a row, a token: the bound in
    nats (Sahoo et al. 2024, eq. 10). Under log-linear noise the weight is 1/m, LLaDA's loss (Nie et al. 2025, eq. 3).

    model      has `noise`, `mask` and `log_weights`
    hidden_of  hidden states (B, L, D) of tokens in which each position is masked with its row's probability
    """
    noise = training_noise(model.noise, batch, rng)
    hidden_BLD = hidden_of(torch.where(noise.destroyed_BL, model.mask, batch.tokens_BL), noise.share_B)
    weights_NV = model.log_weights(hidden_BLD[noise.destroyed_BL])
    entropy_N = F.cross_entropy(weights_NV, batch.tokens_BL[noise.destroyed_BL], reduction="none")
    return {"loss": (noise.weight_of_masked * entropy_N).sum() / totals.tokens}
