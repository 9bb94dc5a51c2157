"""What SEDD and MDLM share: the network of `dit` over tokens and, last, the mask, and its sessions; and the noise and
the loss that other masked models share with MDLM.

Knows no sampling algorithm.

Shape suffixes: B rows, L positions, R = B × branches, K asked positions of a row, N asked positions, D width, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, GUIDED, UNCOND, Branch, Canvas, Process, exclude
from diffq.diffusion.noise import Noise, NoiseName
from diffq.errors import UserError
from diffq.models.base import ModelSettings, TextBatch, Totals, TrainableModel, Vocabulary
from diffq.models.dit import ConditionedSettings, DiT
from diffq.models.kept import Span, whole_blocks
from diffq.models.sessions import MaskedSession, drawable, tiles
from diffq.models.transformer import key_mask
from diffq.models.work import DiTWork
from diffq.rng import Rng, Stream, uniform
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(ModelSettings):
    """The noise that a network of text is trained with."""

    task: ClassVar[Literal["pairs", "text"]] = "text"
    keeps: ClassVar[bool] = True

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
        words, never = tokens_of(vocabulary, self.process)
        return DiTWork(self, words, words + (self.process == "absorbing" and not never), self.conditioning)

    def blank(self) -> dict[str, Any]:
        told = {"guidable": True, "max_length": self.max_length, "noise": self.schedule}
        return told | {"keeps": self.keeps, "block": getattr(self, "block_causal", 0)}


class TextDiffusion(TrainableModel):
    """The network with its vocabulary: ids 0 … words−1 may be drawn, but for `never`. `mask` = words where the process
    has masks and nobody else's tokenizer has put it among the others.

    conditioned  whether the network is told the noise level
    offset       what is added to the network's output to make log-weights of it
    block        tokens of a block that sees itself and what stands before it; 0: all see all
    """

    process: ClassVar[Process] = "absorbing"
    learnt_z: ClassVar[bool] = False
    block: int = 0

    def __init__(self, settings: TextDiffusionSettings, vocabulary: Vocabulary, conditioned: bool = True):
        super().__init__()
        self.settings = settings
        self.noise = settings.schedule
        self.words, self.never = tokens_of(vocabulary, self.process)
        self.mask = vocabulary.mask
        size = self.words + (self.process == "absorbing" and not self.never)
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
        """Float32 log-weights of all tokens, (N, V), −inf for what is never drawn; for training, which needs them
        whole."""
        linear = self.net.output_layer.linear
        logits_NV = F.linear(hidden_ND, linear.weight[: self.words], linear.bias[: self.words])
        return exclude(logits_NV.float() + self.offset, 0, self.never)

    def denoiser(self) -> TextDenoiser:
        return TextDenoiser(self)


def tokens_of(vocabulary: Vocabulary, process: Process = "uniform") -> tuple[int, tuple[int, ...]]:
    """One more than the last id that may be drawn, and ids below it that may not: with masks any id may be the mask.
    UserError where there are none and the mask is not the last id."""
    if vocabulary.mask == vocabulary.size - 1:
        return vocabulary.mask, ()
    if process == "absorbing":
        return drawable(vocabulary)
    raise UserError(
        f"this model needs the mask to be the last of the {vocabulary.size} ids, and the tokenizer's is"
        f" {vocabulary.mask}; dataset.tokenizer=gpt2 has it there"
    )


class TextDenoiser:
    """The contract of a discrete process (`contracts.DiscreteDenoiser`)."""

    guidable = True  # the unconditional branch is the same network with the prompt masked

    def __init__(self, model: TextDiffusion):
        self.keeps = model.process == "absorbing"
        self.model = model.eval()
        self.process = model.process
        self.vocab_size = model.words
        self.mask = model.mask
        self.noise = model.noise
        self.learnt_z = model.learnt_z
        self.max_length = model.settings.max_length
        self.block: int = model.block

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> TextSession:
        return TextSession(self, canvas, branches)


class TextSession(MaskedSession):
    """An opened TextDenoiser. UserError for a canvas that is too long, and as `MaskedSession`."""

    def __init__(self, denoiser: TextDenoiser, canvas: Canvas, branches: tuple[Branch, ...]):
        self.model = denoiser.model
        net, words, masks = self.model.net, denoiser.vocab_size, denoiser.process == "absorbing"
        net.require_length(canvas.shape[1])
        if branches in (GUIDED, UNCOND) and not masks:
            raise UserError("guidance masks the prompt, which only models of the absorbing process know; scale=1")
        mask = denoiser.mask if masks else None
        blocks, never = len(net.blocks) if masks else 0, self.model.never
        super().__init__(canvas, branches, mask=mask, size=words, words=words, never=never, blocks=blocks)
        self.block = denoiser.block
        self.visible_LL: Tensor | None = None
        if self.block:
            number_L = torch.arange(self.length, device=canvas.device) // self.block
            self.visible_LL = number_L[:, None] >= number_L

    @torch.no_grad()
    def run(self, tokens_BL: Tensor, noise_B: Tensor, at_BK: Tensor | None = None) -> Tensor:
        """Features (R, L, D), or (R, K, D) of the asked positions."""
        tokens_RL, at_RK = self.stack(tokens_BL), self.ask(len(tokens_BL), at_BK, tokens_BL.device)
        place, seen, visible = None, self.length, None if self.visible_LL is None else self.visible_LL[None, None]
        if self.windows is not None and at_RK is not None:
            windows = self.windows.map(self.repeat)
            tokens_RL, at_RK = windows.tokens(tokens_RL), windows.slots(at_RK)
            place, seen = windows.column_BW, windows.seen
            visible = None if self.visible_LL is None else self.visible_LL[place][:, None, :, :seen]
        elif self.span is not None and at_RK is not None:
            first, last = self.span
            tokens_RL, at_RK = tokens_RL[:, first:last], (at_RK - first).clamp(0, last - first - 1)
            place, seen = torch.arange(first, last, device=tokens_RL.device), self.seen(last)
            visible = None if visible is None else visible[:, :, first:last, :seen]
        mask = None if self.valid_BL is None else key_mask(self.repeat(self.valid_BL[:, :seen]))
        if visible is not None:
            mask = visible if mask is None else mask & visible
        sigma_R = self.repeat(self.model.sigma(noise_B))
        return self.model.net(tokens_RL, sigma_R, at_RK, mask, place=place, caches=self.caches())

    def reach(self, spans: Sequence[Span]) -> list[Span]:
        """Where tokens see their own block and those before it, whole blocks: so nothing before them can change."""
        return [whole_blocks(span, self.block, self.length) for span in spans] if self.block else list(spans)

    def begins(self, span: Span) -> bool:
        return self.block > 0 and span[0] == 0

    def seen(self, last: int) -> int:
        return last if self.block else self.length

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

    destroyed_BL  bool; only where the batch says that tokens may be
    share         m, the probability with which each position was destroyed: (B,), or (B, L) where blocks have their own
    rate          σ'(t), likewise
    """

    destroyed_BL: Tensor
    share: Tensor
    rate: Tensor

    @property
    def weight_of_masked(self) -> Tensor:
        """σ'(t) / (e^σ − 1) for every destroyed position, float32 (N,)."""
        weight = self.rate * (1 - self.share) / self.share
        return self.of_positions(weight.float(), self.destroyed_BL)

    @staticmethod
    def of_positions(value: Tensor, where_BL: Tensor) -> Tensor:
        """The value of each of the chosen positions, or of its row, (N,)."""
        value_BL = value[:, None].expand(where_BL.shape) if value.dim() == 1 else value
        return value_BL[where_BL]


def training_noise(noise: Noise, batch: TextBatch, rng: Rng, block: int = 0) -> TrainingNoise:
    """One time a row, or with `block` one for each block of so many tokens, and one uniform a position, keyed by
    (row, visit)."""
    position_L = torch.arange(batch.tokens_BL.shape[1], device=batch.tokens_BL.device)
    row_B1, visit_B1 = batch.row_B[:, None], batch.visit_B[:, None]
    if block:
        key = rng.key(Stream.TRAIN_TIME, row_B1, visit_B1, position_L // block)
    else:
        key = rng.key(Stream.TRAIN_TIME, batch.row_B, batch.visit_B)
    time = uniform(key) * (1 - _TRAIN_EPS) + _TRAIN_EPS
    share = noise.share(time)
    key_BL = rng.key(Stream.TRAIN_NOISE, row_B1, visit_B1, position_L)
    destroyed_BL = (uniform(key_BL) < (share if block else share[:, None])) & batch.valid_BL
    return TrainingNoise(destroyed_BL, share, noise.rate(time))


def weighted_cross_entropy(
    model: Any,
    batch: TextBatch,
    rng: Rng,
    totals: Totals,
    hidden_of: Callable[[Tensor, Tensor], Tensor],
    block: int = 0,
) -> dict[str, Tensor]:
    """σ'(t) / (e^σ − 1) times the cross-entropy of the masked positions, at one keyed t a row (or block), a token: the
    bound in nats (Sahoo et al. 2024, eq. 10). Under log-linear noise the weight is (1 − eps)/m, LLaDA's loss (Nie et
    al. 2025, eq. 3).

    model      has `noise`, `mask` and `log_weights`
    hidden_of  hidden states (B, L, D) of tokens in which each position is masked with its probability
    """
    noise = training_noise(model.noise, batch, rng, block)
    hidden_BLD = hidden_of(torch.where(noise.destroyed_BL, model.mask, batch.tokens_BL), noise.share)
    weights_NV = model.log_weights(hidden_BLD[noise.destroyed_BL])
    entropy_N = F.cross_entropy(weights_NV, batch.tokens_BL[noise.destroyed_BL], reduction="none")
    return {"loss": (noise.weight_of_masked * entropy_N).sum() / totals.tokens}
