"""The causal twin of the text-diffusion networks: the same blocks without noise levels, one token after another.

A window begins with the start token, so every one of its tokens is predicted, as the bounds of
diffusion count every token.
Same sizes, same data, so a comparison of the two compares processes. Knows no sampling rule.

Shape suffixes: B rows, L positions, K new positions, N asked positions, D width, V tokens, H heads, F head dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, Branch, Canvas, Process, TiledSession, require_guidable
from diffq.models.base import TextBatch, Totals, TrainableModel, Vocabulary
from diffq.models.dit import DiT, DiTSettings
from diffq.models.sessions import tiles
from diffq.models.work import DiTWork
from diffq.registry import MODELS
from diffq.rng import Rng


@MODELS.register("causal_lm")
@dataclass(frozen=True, kw_only=True)
class CausalLMSettings(DiTSettings):
    """A decoder-only transformer with rotary positions."""

    process: ClassVar[Process] = "causal"
    task: ClassVar[Literal["pairs", "text"]] = "text"

    def build(self, vocabulary: Vocabulary) -> CausalLM:
        return CausalLM(self, vocabulary)

    def work(self, vocabulary: Vocabulary) -> DiTWork:
        words = words_of(vocabulary)
        return DiTWork(self, words, words)

    def blank(self) -> dict[str, Any]:
        return {"guidable": False, "max_length": self.max_length}


class CausalLM(TrainableModel):
    """The network with its loss (cross-entropy of the next token) and its denoiser."""

    process: ClassVar[Process] = "causal"

    def __init__(self, settings: CausalLMSettings, vocabulary: Vocabulary):
        super().__init__()
        self.settings = settings
        self.start, self.end = vocabulary.start, vocabulary.end
        self.words = words_of(vocabulary)
        self.net = DiT(settings, self.words, cond_dim=None)

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """The mean over tokens of −log p(token | tokens before it), nats."""
        start_B1 = torch.full_like(batch.tokens_BL[:, :1], self.start)
        hidden_BLD = self.net(torch.cat([start_B1, batch.tokens_BL[:, :-1]], 1), None, causal=True)
        linear = self.net.output_layer.linear
        logits_NV = F.linear(hidden_BLD[batch.valid_BL], linear.weight, linear.bias)
        loss = F.cross_entropy(logits_NV.float(), batch.tokens_BL[batch.valid_BL], reduction="sum")
        return {"loss": loss / totals.tokens}

    def denoiser(self) -> CausalLMDenoiser:
        return CausalLMDenoiser(self)


def words_of(vocabulary: Vocabulary) -> int:
    """The tokens that can be written: a mask behind all others is none of them."""
    return vocabulary.mask if vocabulary.mask == vocabulary.size - 1 else vocabulary.size


class CausalLMDenoiser:
    """The causal denoiser contract: next-token scores with a key–value cache."""

    process: ClassVar[Process] = "causal"
    guidable = False

    def __init__(self, model: CausalLM):
        self.model = model.eval()
        self.vocab_size = model.words
        self.start, self.end = model.start, model.end
        self.max_length = model.settings.max_length

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> CausalLMSession:
        require_guidable(self, branches)  # type: ignore[arg-type]
        return CausalLMSession(self, canvas)


class CausalLMSession(TiledSession):
    """An opened CausalLMDenoiser. `run` appends tokens to the cache and gives the hidden states of those tokens."""

    branches = COND

    def __init__(self, denoiser: CausalLMDenoiser, canvas: Canvas):
        self.model, self.words = denoiser.model, denoiser.vocab_size
        net, s = self.model.net, self.model.settings
        net.require_length(canvas.shape[1])
        self.length = 0
        weight = net.vocab_embed.embedding
        room = (len(canvas.tokens_BL), s.heads, canvas.shape[1] + 1, s.width // s.heads)
        self.cache = [(weight.new_zeros(room), weight.new_zeros(room)) for _ in net.blocks]

    @torch.no_grad()
    def run(self, tokens_BK: Tensor, noise_B: Tensor | None = None) -> Tensor:
        """Hidden states (B, K, D) of K further tokens; their scores are those of the token that follows each."""
        first, last = self.length, self.length + tokens_BK.shape[1]
        net = self.model.net
        x = net.vocab_embed(tokens_BK)
        rotary = net.rotary_emb(first, last)
        mask = None
        if first and last - first > 1:
            position = torch.arange(last, device=x.device)
            mask = position[None, :] <= position[first:, None]
        for block, held in zip(net.blocks, self.cache, strict=True):
            x = block(x, None, rotary, mask=mask, causal=first == 0 and last > 1, cache=_append(held, first, last))
        self.length = last
        return net.output_layer.features(x, None)

    @torch.no_grad()
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        linear = self.model.net.output_layer.linear
        return tiles(hidden.flatten(0, 1)[positions_N], linear.weight.detach(), linear.bias.detach())

    def select(self, rows_K: Tensor) -> None:
        self.cache = [(key[rows_K], value[rows_K]) for key, value in self.cache]


def _append(held: tuple[Tensor, Tensor], first: int, last: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Writes new keys and values (B, H, K, F) behind the old and gives all of them."""

    def cache(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        held[0][:, :, first:last], held[1][:, :, first:last] = key, value
        return held[0][:, :, :last], held[1][:, :, :last]

    return cache
