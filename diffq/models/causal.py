"""The causal encoder–decoder twin of the embedding-diffusion model: next-token loss, and a denoiser with a
key–value cache.

Same sizes, same embeddings (tied: the logits are inner products with them, divided by √E). The target begins with the
start token and ends with the end token, so this model finds its own length. Knows no sampling rule.

Shape suffixes: B rows, L target positions, S source positions, K new positions, E embedding, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, Branch, Canvas, Process, require_guidable
from diffq.diffusion.reductions import Reduction, read_tiles
from diffq.models.base import PairBatch, Totals, TrainableModel, Vocabulary
from diffq.models.seq2seq import Seq2Seq, Seq2SeqSettings, valid_or_none
from diffq.models.transformer import key_mask
from diffq.registry import MODELS
from diffq.rng import Rng


@MODELS.register("causal_seq2seq")
@dataclass(frozen=True, kw_only=True)
class CausalSettings(Seq2SeqSettings):
    """The autoregressive twin of `gaussian`: the same encoder–decoder, one token after another."""

    process: ClassVar[Process] = "causal"

    def build(self, vocabulary: Vocabulary) -> CausalSeq2Seq:
        return CausalSeq2Seq(self, vocabulary)

    def blank(self) -> dict[str, Any]:
        return {"guidable": False, "max_length": self.max_length}


class CausalSeq2Seq(TrainableModel):
    """The network with its loss (cross-entropy of the next token) and its denoiser."""

    process: ClassVar[Process] = "causal"

    def __init__(self, settings: CausalSettings, vocabulary: Vocabulary):
        super().__init__()
        self.settings = settings
        self.start, self.end = vocabulary.start, vocabulary.end
        self.net = Seq2Seq(settings, vocabulary)
        self.logit_scale = settings.embedding**-0.5  # embeddings begin as N(0, 1), the first logits near it too

    def loss(self, batch: PairBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """The mean over tokens, the end token counted, of −log p(token | tokens before it, source).

        `totals.tokens` counts target tokens without the end; each example adds one.
        """
        target_BL, valid_BL = batch.target_BL, batch.target_valid_BL
        first_B1 = torch.full_like(target_BL[:, :1], self.start)
        inputs_BL = torch.cat([first_B1, target_BL], 1)
        input_valid_BL = torch.cat([torch.ones_like(valid_BL[:, :1]), valid_BL], 1)
        labels_BL = F.pad(target_BL, (0, 1)).masked_fill(~F.pad(valid_BL, (0, 1)), -100)
        labels_BL.scatter_(1, valid_BL.sum(1, keepdim=True), self.end)

        memory_BSD = self.net.encode(batch.source_BS, batch.source_valid_BS)
        x_BLD = self.net.place(self.net.embed(inputs_BL))
        # Padding follows the text, so a causal mask alone keeps it out of every position that is scored.
        hidden_BLD = self.net.decoder(x_BLD, None, memory_BSD, batch.source_valid_BS, causal=True)
        scored_BL = labels_BL != -100
        logits_NV = self.net.down(hidden_BLD[input_valid_BL & scored_BL]) @ self.net.embed.weight.t() * self.logit_scale
        loss = F.cross_entropy(logits_NV.float(), labels_BL[scored_BL], reduction="sum")
        return {"loss": loss / (totals.tokens + totals.examples)}

    def denoiser(self) -> CausalDenoiser:
        return CausalDenoiser(self)


class CausalDenoiser:
    """The causal denoiser contract: next-token scores with a key–value cache."""

    process: ClassVar[Process] = "causal"
    guidable = False

    def __init__(self, model: CausalSeq2Seq):
        self.model = model.eval()
        self.vocab_size = model.net.vocab_size
        self.start, self.end = model.start, model.end
        self.max_length = model.settings.max_length

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> CausalSession:
        require_guidable(self, branches)  # type: ignore[arg-type]
        return CausalSession(self, canvas)


class CausalSession:
    """An opened CausalDenoiser. `run` appends tokens to the cache and gives the hidden states of those tokens."""

    branches = COND

    @torch.no_grad()
    def __init__(self, denoiser: CausalDenoiser, canvas: Canvas):
        self.denoiser = denoiser
        net = denoiser.model.net
        self.length = 0
        self.source_valid_BS = valid_or_none(canvas.source_valid_BS)
        if canvas.source_BS is None:
            raise ValueError("this model is conditioned on a source; the canvas has none")
        memory_BSD = net.encode(canvas.source_BS, self.source_valid_BS)
        self.cross = [layer.cross_attention.keys_values(memory_BSD) for layer in net.decoder.blocks]
        heads, width = net.settings.heads, net.settings.width
        room = (len(canvas.tokens_BL), heads, min(canvas.shape[1] + 1, net.settings.max_length), width // heads)
        self.cache = [(memory_BSD.new_zeros(room), memory_BSD.new_zeros(room)) for _ in net.decoder.blocks]

    @torch.no_grad()
    def run(self, tokens_BK: Tensor, noise_B: Tensor | None = None) -> Tensor:
        """Hidden states (B, K, D) of K further tokens; their scores are those of the token that follows each."""
        net = self.denoiser.model.net
        first, last = self.length, self.length + tokens_BK.shape[1]
        net.require_length(last, "target")
        x = net.place(net.embed(tokens_BK), first)
        mask = None
        if last - first > 1:
            position = torch.arange(last, device=x.device)
            mask = position[None, :] <= position[first:, None]
        cross_mask = key_mask(self.source_valid_BS)
        for layer, (keys, values), cross in zip(net.decoder.blocks, self.cache, self.cross, strict=True):
            inner = layer.inner(layer.norm_self, x)
            keys[:, :, first:last], values[:, :, first:last] = layer.self_attention.keys_values(inner)
            seen = (keys[:, :, :last], values[:, :, :last])
            x = layer.add(layer.norm_self, x, layer.self_attention.attend(inner, seen, mask))
            x = layer.feed_block(layer.cross_block(x, cross, cross_mask))
        self.length = last
        return net.decoder.norm(x)

    def read(self, hidden_BKD: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        """Reduces the scores over the vocabulary at the asked positions; the start token and padding are no answers
        but are not excluded: the model has learnt that they do not come."""
        net = self.denoiser.model.net
        with torch.no_grad():
            inner_NE = net.down(hidden_BKD.flatten(0, 1)[positions_N]) * self.denoiser.model.logit_scale

        def project(part: slice, first: int, last: int) -> Tensor:
            return (inner_NE[part] @ net.embed.weight[first:last].detach().t()).float()

        return read_tiles(project, len(inner_NE), self.denoiser.vocab_size, reduce, device=hidden_BKD.device)

    def select(self, rows_K: Tensor) -> None:
        self.source_valid_BS = None if self.source_valid_BS is None else self.source_valid_BS[rows_K]
        self.cross = [(key[rows_K], value[rows_K]) for key, value in self.cross]
        self.cache = [(key[rows_K], value[rows_K]) for key, value in self.cache]
