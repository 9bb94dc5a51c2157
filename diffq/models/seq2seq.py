"""What the embedding-diffusion model and its causal twin share: sizes, embeddings, positions, encoder, decoder.

The twin has the same network to the last matrix, so a comparison of the two compares processes and nothing else.
Knows no loss and no sampling. (Buzzard 2025; the sizes of the paper's final model are reconstructed from the
repository's templates.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffq.errors import UserError
from diffq.models.base import ModelSettings, Vocabulary
from diffq.models.transformer import Decoder, Encoder, Norm, initialise, padding_or_none, sinusoids
from diffq.models.work import Seq2SeqWork
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class Seq2SeqSettings(ModelSettings):
    """The sizes of an encoder–decoder transformer over learned embeddings."""

    embedding: int = setting(128, "embedding dimension, in which diffusion happens", low=1)
    width: int = setting(768, "width of the transformer", low=2)
    heads: int = setting(12, "attention heads", low=1)
    encoder_layers: int = setting(12, "encoder layers", low=1)
    decoder_layers: int = setting(12, "decoder layers", low=1)
    dropout: float = setting(0.1, "dropout everywhere in the transformer", low=0, high=0.95)
    norm: Norm = setting("post", "LayerNorm after each branch (the paper) or before it")
    positions: Literal["sinusoid", "learned"] = setting("sinusoid", "position embeddings")
    max_length: int = setting(128, "longest source and longest target, in tokens", low=2)

    def check(self) -> None:
        if self.width % self.heads:
            raise UserError(f"width={self.width} must be a multiple of heads={self.heads}")

    def work(self, vocabulary: Vocabulary) -> Seq2SeqWork:
        return Seq2SeqWork(self, vocabulary.size)


class Seq2Seq(nn.Module):
    """Embeddings, up- and down-projection, positions, encoder, decoder."""

    def __init__(self, settings: Seq2SeqSettings, vocabulary: Vocabulary):
        super().__init__()
        s = settings
        self.settings = s
        self.vocab_size = vocabulary.size
        self.embed = nn.Embedding(vocabulary.size, s.embedding)
        same = s.embedding == s.width
        self.up = nn.Identity() if same else nn.Linear(s.embedding, s.width)
        self.down = nn.Identity() if same else nn.Linear(s.width, s.embedding)
        if s.positions == "learned":
            self.position_LD = nn.Parameter(torch.randn(s.max_length, s.width))
        else:
            self.register_buffer("position_LD", sinusoids(torch.arange(s.max_length), s.width), persistent=False)
        self.encoder = Encoder(s.encoder_layers, s.width, s.heads, s.dropout, s.norm)
        self.decoder = Decoder(s.decoder_layers, s.width, s.heads, s.dropout, s.norm)
        initialise(self)

    def encode(self, source_BS: Tensor, valid_BS: Tensor | None) -> Tensor:
        """The memory (B, S, D) that the decoder attends to. Raises UserError where a source is too long."""
        self.require_length(source_BS.shape[1], "source")
        return self.encoder(self.place(self.embed(source_BS)), valid_BS)

    def place(self, x_BLE: Tensor, first: int = 0) -> Tensor:
        """Up-projects embeddings and adds the positions first, first+1, …"""
        return self.up(x_BLE) + self.position_LD[first : first + x_BLE.shape[1]]

    def require_length(self, length: int, what: str) -> None:
        if length > self.settings.max_length:
            raise UserError(
                f"a {what} of {length} tokens is longer than the model's max_length={self.settings.max_length}"
            )


def valid_or_none(valid: Tensor | None) -> Tensor | None:
    """None where there is no padding; see `padding_or_none`."""
    return None if valid is None else padding_or_none(valid)
