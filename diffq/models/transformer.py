"""The encoder–decoder transformer that the sequence-to-sequence models share: layers, positions, and their pieces.

The sub-blocks are separate methods, so that a sampling session can cache keys and values and leave out what it has
already computed. Knows no diffusion and no tokens.

Shape suffixes: B rows, L target positions, S source positions, D width, H heads, K head dimension.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["post", "pre"]


class Attention(nn.Module):
    """Multi-head attention whose query and key–value projections can be called apart."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, K)."""
        key_BSD, value_BSD = self.key_value(memory_BSD).chunk(2, -1)
        return self._split(key_BSD), self._split(value_BSD)

    def attend(
        self, x_BLD: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """Attention of x over given keys and values; `mask` is True where a key may be seen, broadcast to (B,H,L,S)."""
        query_BHLK = self._split(self.query(x_BLD))
        dropout = self.dropout if self.training else 0.0
        key_BHSK, value_BHSK = keys_values
        mixed_BHLK = F.scaled_dot_product_attention(
            query_BHLK, key_BHSK, value_BHSK, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return self.out(mixed_BHLK.transpose(1, 2).flatten(2))

    def forward(self, x_BLD: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        return self.attend(x_BLD, self.keys_values(x_BLD), mask, causal)


class FeedForward(nn.Sequential):
    """Two linear layers, four times the width between them, ReLU."""

    def __init__(self, width: int, dropout: float):
        super().__init__(nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * width, width))


class Layer(nn.Module):
    """What encoder and decoder layers have in common: self-attention, feed-forward, and where the norms stand."""

    def __init__(self, width: int, heads: int, dropout: float, norm: Norm):
        super().__init__()
        self.pre = norm == "pre"
        self.self_attention = Attention(width, heads, dropout)
        self.feed_forward = FeedForward(width, dropout)
        self.norm_self = nn.LayerNorm(width)
        self.norm_feed = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def add(self, norm: nn.LayerNorm, x: Tensor, branch: Tensor) -> Tensor:
        """The residual sum after a branch: a post-norm layer normalises it here, a pre-norm one before the branch."""
        x = x + self.drop(branch)
        return x if self.pre else norm(x)

    def inner(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """What a branch is given."""
        return norm(x) if self.pre else x

    def self_block(self, x_BLD: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        return self.add(self.norm_self, x_BLD, self.self_attention(self.inner(self.norm_self, x_BLD), mask, causal))

    def feed_block(self, x_BLD: Tensor) -> Tensor:
        return self.add(self.norm_feed, x_BLD, self.feed_forward(self.inner(self.norm_feed, x_BLD)))


class EncoderLayer(Layer):
    def forward(self, x_BSD: Tensor, mask: Tensor | None) -> Tensor:
        return self.feed_block(self.self_block(x_BSD, mask))


class DecoderLayer(Layer):
    def __init__(self, width: int, heads: int, dropout: float, norm: Norm):
        super().__init__(width, heads, dropout, norm)
        self.cross_attention = Attention(width, heads, dropout)
        self.norm_cross = nn.LayerNorm(width)

    def cross_block(self, x_BLD: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        mixed = self.cross_attention.attend(self.inner(self.norm_cross, x_BLD), keys_values, mask)
        return self.add(self.norm_cross, x_BLD, mixed)

    def forward(
        self, x_BLD: Tensor, mask: Tensor | None, memory_BSD: Tensor, memory_mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        x_BLD = self.self_block(x_BLD, mask, causal)
        x_BLD = self.cross_block(x_BLD, self.cross_attention.keys_values(memory_BSD), memory_mask)
        return self.feed_block(x_BLD)


class Encoder(nn.Module):
    """A stack of encoder layers with a LayerNorm at its end, as torch's `nn.Transformer` has it."""

    def __init__(self, layers: int, width: int, heads: int, dropout: float, norm: Norm):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout, norm) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BSD: Tensor, valid_BS: Tensor | None) -> Tensor:
        mask = key_mask(valid_BS)
        for layer in self.layers:
            x_BSD = layer(x_BSD, mask)
        return self.norm(x_BSD)


class Decoder(nn.Module):
    """A stack of decoder layers with a LayerNorm at its end."""

    def __init__(self, layers: int, width: int, heads: int, dropout: float, norm: Norm):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout, norm) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    @property
    def blocks(self) -> list[DecoderLayer]:
        """The layers in order, typed."""
        return cast(list[DecoderLayer], list(self.layers))

    def forward(
        self,
        x_BLD: Tensor,
        valid_BL: Tensor | None,
        memory_BSD: Tensor,
        memory_valid_BS: Tensor | None,
        causal: bool = False,
    ) -> Tensor:
        mask, memory_mask = key_mask(valid_BL), key_mask(memory_valid_BS)
        for layer in self.blocks:
            x_BLD = layer(x_BLD, mask, memory_BSD, memory_mask, causal)
        return self.norm(x_BLD)


def key_mask(valid_BL: Tensor | None) -> Tensor | None:
    """(B, 1, 1, L), True where a key may be seen; None where nothing is padding and no mask is needed."""
    return None if valid_BL is None else valid_BL[:, None, None, :]


def padding_or_none(valid_BL: Tensor) -> Tensor | None:
    """`valid_BL`, or None where nothing is padding. Reads the tensor once, so it is called when a canvas is opened,
    never in a step."""
    return None if bool(valid_BL.all()) else valid_BL


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sine and cosine features of numbers of any shape, interleaved, base 10000 (Vaswani et al. 2017, §3.5)."""
    rate_D = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angle = positions[..., None].float() * rate_D
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width]


def initialise(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases for every linear layer below `module`; embeddings stay as they are."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
