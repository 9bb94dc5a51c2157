"""LLaDA and Dream: bidirectional transformers that predict masked tokens and are told no noise level.

`llada` and `dream` are one network (`bidirectional`) and two readings of it: Dream's logits are shifted by one, the
prediction for a position is read at the position before it, and that for the first at itself. Trained from scratch
their loss is MDLM's without time conditioning, which under log-linear noise is LLaDA's cross-entropy with the weight
1/t. Knows no sampling algorithm and no layout of a checkpoint.

(Nie et al. 2025, arXiv 2502.09992; Ye et al. 2025, arXiv 2508.15487.)

Shape suffixes: B rows, R = B × branches, L positions, K asked positions of a row, N asked positions, D width, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, Branch, Canvas, Process
from diffq.errors import UserError
from diffq.models.base import TextBatch, Totals, TrainableModel, Vocabulary
from diffq.models.bidirectional import Bidirectional, BidirectionalSettings
from diffq.models.dit import Cache
from diffq.models.kept import Span, Windows, from_before
from diffq.models.sessions import MaskedSession, drawable, places, tiles
from diffq.models.text_diffusion import NoiseSettings, weighted_cross_entropy
from diffq.models.transformer import key_mask
from diffq.models.work import BidirectionalWork
from diffq.registry import MODELS
from diffq.rng import Rng
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class MaskedLMSettings(NoiseSettings, BidirectionalSettings):
    """A bidirectional transformer that predicts masked tokens."""

    process: ClassVar[Process] = "absorbing"
    shifted: ClassVar[bool] = False

    hub: str | None = setting(None, "the hub model that is taken where no checkpoint is given")

    def build(self, vocabulary: Vocabulary) -> MaskedLM:
        return MaskedLM(self, vocabulary)

    def work(self, vocabulary: Vocabulary) -> BidirectionalWork:
        return BidirectionalWork(self, drawable(vocabulary)[0], self.rows or vocabulary.size)

    def blank(self) -> dict[str, Any]:
        told = {"guidable": True, "max_length": self.max_length, "noise": self.schedule}
        return told | {"keeps": self.keeps, "shifted": self.shifted}


@MODELS.register("llada")
@dataclass(frozen=True, kw_only=True)
class LLaDASettings(MaskedLMSettings):
    """LLaDA: the prediction for a position is read at it."""


@MODELS.register("dream")
@dataclass(frozen=True, kw_only=True)
class DreamSettings(MaskedLMSettings):
    """Dream: the prediction for a position is read at the one before it."""

    shifted: ClassVar[bool] = True


class MaskedLM(TrainableModel):
    """The network with its vocabulary: any id of it may be the mask.

    words   one more than the last id that may be drawn: rows of the matrices beyond the tokenizer are never drawn
    never   ids below it that may not: the mask, and padding unless it also ends a text
    """

    process: ClassVar[Process] = "absorbing"
    learnt_z: ClassVar[bool] = False

    def __init__(self, settings: MaskedLMSettings, vocabulary: Vocabulary):
        super().__init__()
        self.settings, self.noise = settings, settings.schedule
        size = settings.rows or vocabulary.size
        if size < vocabulary.size:
            raise UserError(
                f"the network has embeddings of {size} tokens (rows), and its tokenizer has {vocabulary.size}; put the"
                " tokenizer that it was trained with into the folder"
            )
        self.mask = vocabulary.mask
        self.words, self.never = drawable(vocabulary)
        self.net = Bidirectional(settings, size)

    def states(
        self,
        tokens_BL: Tensor,
        valid_BL: Tensor | None = None,
        at_BK: Tensor | None = None,
        span: Span | Windows | None = None,
        caches: Sequence[Cache] | None = None,
    ) -> Tensor:
        """Hidden states from which each position, or each of `at_BK`, is predicted, (B, L or K, D).

        valid_BL  False at padding, which nobody sees; None where there is none
        span      the columns that are computed, of all rows or of each, where caches have the keys and values of the
                  others; needs `at_BK`
        """
        place, before = places(tokens_BL, valid_BL)
        if self.settings.shifted:
            if at_BK is None:
                at_BK = before.expand(tokens_BL.shape)
            else:
                at_BK = before[at_BK] if before.dim() == 1 else before.gather(1, at_BK)
        if isinstance(span, Windows) and at_BK is not None:
            tokens_BL, at_BK = span.tokens(tokens_BL), span.slots(at_BK)
            place = place[span.column_BW] if place.dim() == 1 else place.gather(1, span.column_BW)
        elif span is not None and at_BK is not None:
            assert isinstance(span, tuple)
            here = slice(*span)
            tokens_BL, place = tokens_BL[:, here], place[..., here]
            at_BK = (at_BK - span[0]).clamp(0, span[1] - span[0] - 1)
        return self.net(tokens_BL, place, at_BK, key_mask(valid_BL), caches)

    def log_weights(self, hidden_ND: Tensor) -> Tensor:
        """Float32 log-weights of all words, (N, V), −inf for what is never drawn; for training, which needs them
        whole."""
        weight_VD, bias_V = self.net.head
        bias = None if bias_V is None else bias_V[: self.words]
        logits_NV = F.linear(hidden_ND, weight_VD[: self.words], bias).float()
        return logits_NV.index_fill(1, torch.tensor(self.never, dtype=torch.long, device=logits_NV.device), -math.inf)

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """MDLM's weighted cross-entropy without time conditioning."""
        return weighted_cross_entropy(
            self, batch, rng, totals, lambda tokens_BL, _: self.states(tokens_BL, batch.seen_BL)
        )

    def denoiser(self) -> MaskedLMDenoiser:
        return MaskedLMDenoiser(self)


class MaskedLMDenoiser:
    """The contract of a discrete process (`contracts.DiscreteDenoiser`)."""

    process: ClassVar[Process] = "absorbing"
    guidable = True  # the unconditional branch is the same network with the prompt masked
    learnt_z = False
    keeps = True

    def __init__(self, model: MaskedLM):
        self.model = model.eval()
        self.vocab_size, self.mask, self.noise = model.words, model.mask, model.noise
        self.max_length = model.settings.max_length

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> MaskedLMSession:
        return MaskedLMSession(self, canvas, branches)


class MaskedLMSession(MaskedSession):
    """An opened MaskedLMDenoiser. UserError for a canvas that is too long, and as `MaskedSession`."""

    def __init__(self, denoiser: MaskedLMDenoiser, canvas: Canvas, branches: tuple[Branch, ...]):
        self.model = model = denoiser.model
        model.net.require_length(canvas.shape[1])
        size, blocks = model.net.size, len(model.net.blocks)
        super().__init__(
            canvas, branches, mask=model.mask, size=size, words=model.words, never=model.never, blocks=blocks
        )

    @torch.no_grad()
    def run(self, tokens_BL: Tensor, noise_B: Tensor | None = None, at_BK: Tensor | None = None) -> Tensor:
        """Features (R, L, D), or (R, K, D) of the asked positions. They do not depend on the noise."""
        valid_RL = None if self.valid_BL is None else self.repeat(self.valid_BL)
        at_RK = self.ask(len(tokens_BL), at_BK, tokens_BL.device)
        span = self.span if self.windows is None else self.windows.map(self.repeat)
        return self.model.states(self.stack(tokens_BL), valid_RL, at_RK, span, self.caches())

    def reach(self, spans: Sequence[Span]) -> list[Span]:
        """Where logits are shifted, also the column that the first prediction is read at. The host waits for it."""
        if not self.model.settings.shifted:
            return list(spans)
        return from_before(spans, places(self.given_BL, self.valid_BL)[1])

    @torch.no_grad()
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        """Log-weights of tokens, tile by tile."""
        weight_VD, bias_V = self.model.net.head
        bias_V = None if bias_V is None else bias_V.detach()
        return tiles(hidden.flatten(0, 1)[positions_N], weight_VD.detach(), bias_V, self.never)
