"""What SEDD and MDLM share: the network of `dit` over tokens and, last, the mask, and its sessions.

Knows no loss and no sampling algorithm.

Shape suffixes: B rows, L positions, R = B × branches, K asked positions of a row, N asked positions, D width, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, GUIDED, UNCOND, Branch, Canvas, Process, TiledSession
from diffq.diffusion.noise import Noise, NoiseName
from diffq.errors import UserError
from diffq.models.base import TextBatch, TrainableModel, Vocabulary
from diffq.models.dit import ConditionedSettings, DiT
from diffq.models.transformer import key_mask, padding_or_none
from diffq.models.work import DiTWork
from diffq.rng import Rng, Stream, uniform
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class TextDiffusionSettings(ConditionedSettings):
    """The sizes of a diffusion transformer over text, and its noise."""

    task: ClassVar[Literal["pairs", "text"]] = "text"

    noise: NoiseName = setting("log_linear", "noise schedule")
    noise_eps: float = setting(1e-3, "log_linear, cosine: the share that is not destroyed at t = 1", above=0, high=0.5)
    noise_low: float = setting(1e-4, "geometric: σ at t = 0", above=0)
    noise_high: float = setting(20.0, "geometric: σ at t = 1", above=0)

    @property
    def schedule(self) -> Noise:
        return Noise(self.noise, self.noise_eps, self.noise_low, self.noise_high)

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


class TextSession(TiledSession):
    """An opened TextDenoiser. The unconditional branch sees masks where tokens are given.

    UserError for a canvas that is too long, and for a prompt with the mask in it; also where there is an unconditional
    branch and nothing is given.
    """

    def __init__(self, denoiser: TextDenoiser, canvas: Canvas, branches: tuple[Branch, ...]):
        self.model, self.branches, self.words = denoiser.model, branches, denoiser.vocab_size
        self.model.net.require_length(canvas.shape[1])
        self.given_BL = canvas.valid_BL & ~canvas.free_BL
        valid_BL = padding_or_none(canvas.valid_BL)
        self.valid_BL = valid_BL
        if bool((canvas.tokens_BL >= self.words)[self.given_BL].any()):
            raise UserError(f"the prompt holds a token that is no word of the model's {self.words}, such as its mask")
        if branches in (GUIDED, UNCOND):
            if denoiser.process != "absorbing":
                raise UserError("guidance masks the prompt, which only models of the absorbing process know; scale=1")
            if not bool(self.given_BL.any()):
                raise UserError("guidance needs a prompt, and nothing on this canvas is given; use scale=1")

    @torch.no_grad()
    def run(self, tokens_BL: Tensor, noise_B: Tensor, at_BK: Tensor | None = None) -> Tensor:
        """Features (R, L, D), or (R, K, D) of the asked positions."""
        sigma_B = self.model.sigma(noise_B)
        parts = [tokens_BL if b == "cond" else self._blank(tokens_BL) for b in self.branches]
        valid_BL, n = self.valid_BL, len(parts)
        tokens_RL = parts[0] if n == 1 else torch.cat(parts)
        mask = None if valid_BL is None else key_mask(valid_BL.repeat(n, 1))
        at_RK = at_BK if at_BK is None or n == 1 else at_BK.repeat(n, 1)
        return self.model.net(tokens_RL, sigma_B.repeat(n), at_RK, mask)

    def _blank(self, tokens_BL: Tensor) -> Tensor:
        return torch.where(self.given_BL, self.model.mask, tokens_BL)

    @torch.no_grad()
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        """Log-weights of tokens, tile by tile."""
        hidden_ND = hidden.flatten(0, 1)[positions_N]
        linear, offset = self.model.net.output_layer.linear, self.model.offset
        weight_VD = linear.weight.detach()
        bias_V = linear.bias.detach() + offset

        def project(part: slice, first: int, last: int) -> Tensor:
            return F.linear(hidden_ND[part], weight_VD[first:last], bias_V[first:last]).float()

        return project

    def select(self, rows_K: Tensor) -> None:
        self.given_BL = self.given_BL[rows_K]
        self.valid_BL = None if self.valid_BL is None else self.valid_BL[rows_K]


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
