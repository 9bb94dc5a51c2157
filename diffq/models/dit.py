"""The transformer of SEDD and MDLM: rotary positions, adaLN-zero, no biases in attention; bidirectional or causal.

Module names are the keys of the published checkpoints (louaaron/sedd-small, kuleshov-group/mdlm-owt), so that weights
of both projects load as they are. Attention is torch's own SDPA. Where only some positions will be read, the last block
computes keys and values for all and the rest for those alone. Knows no process, no loss and no sampling.

(Peebles & Xie 2023, the diffusion transformer; Lou et al. 2024, arXiv 2310.16834, appendix C; Sahoo et al. 2024.)

Shape suffixes: B rows, L positions, K asked positions of a row, S positions attended to, D width, C conditioning,
H heads, F head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffq.errors import UserError
from diffq.models.base import ModelSettings
from diffq.settings import setting

Rotary = tuple[Tensor, Tensor]  # cosines and sines, (positions, F)
Cache = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # takes new keys and values, gives all of them

_FREQUENCIES = 256  # of the embedding of σ


@dataclass(frozen=True, kw_only=True)
class DiTSettings(ModelSettings):
    """The sizes of the transformer."""

    width: int = setting(768, "width of the transformer", low=2)
    heads: int = setting(12, "attention heads", low=1)
    layers: int = setting(12, "blocks", low=1)
    dropout: float = setting(0.1, "dropout of both branches of a block", low=0, high=0.95)
    max_length: int = setting(1024, "longest canvas, in tokens", low=1)
    tied: bool = setting(False, "the output matrix is the embedding matrix")

    def check(self) -> None:
        if self.width % (2 * self.heads):
            raise UserError(f"width={self.width} must be an even multiple of heads={self.heads}: rotary pairs halves")


@dataclass(frozen=True, kw_only=True)
class ConditionedSettings(DiTSettings):
    """The sizes of a diffusion transformer."""

    conditioning: int = setting(128, "width of the embedding of the noise level", low=1)


class LayerNorm(nn.Module):
    """Layer normalisation in float32 with a scale and no bias."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return (F.layer_norm(x.float(), self.weight.shape) * self.weight).to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Rotary positions in the rotate-half form, base 10000 (Su et al. 2021)."""

    inv_freq: Tensor  # float64, so that it stays exact where the network computes in fewer bits

    def __init__(self, head_dim: int):
        super().__init__()
        inv_freq = 10000.0 ** -(torch.arange(0, head_dim, 2).float() / head_dim)
        self.register_buffer("inv_freq", inv_freq.double())

    def forward(self, first: int, last: int) -> Rotary:
        """Cosines and sines (positions, F) of the positions first … last−1, float32."""
        return self.at(torch.arange(first, last, device=self.inv_freq.device))

    def at(self, place: Tensor) -> Rotary:
        """The same of any positions (L,), or of each row's own (B, L): then (B, 1, L, F)."""
        half = place.float()[..., None] * self.inv_freq.float()
        angle = torch.cat([half, half], -1)
        if place.dim() == 2:
            angle = angle[:, None]
        return angle.cos(), angle.sin()


def rotate(x_BHLF: Tensor, rotary: Rotary) -> Tensor:
    """Turns queries or keys by their positions; cosines and sines may also be given a row, (B, 1, L, F)."""
    cos, sin = (part.to(x_BHLF.dtype) for part in rotary)
    low, high = x_BHLF.chunk(2, -1)
    return x_BHLF * cos + torch.cat([-high, low], -1) * sin


def turned(rotary: Rotary, at_BK: Tensor) -> Rotary:
    """Cosines and sines of some columns of each row, (B, 1, K, F)."""
    cos, sin = rotary
    if cos.dim() == 2:
        return cos[at_BK][:, None], sin[at_BK][:, None]
    row_B1 = torch.arange(len(at_BK), device=at_BK.device)[:, None]
    return cos[row_B1, 0, at_BK][:, None], sin[row_B1, 0, at_BK][:, None]


def modulate(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    return torch.addcmul(x_BLD + shift_B1D, x_BLD, scale_B1D)


class SigmaEmbedding(nn.Module):
    """256 cosines and sines of σ through two linear layers with a SiLU between them."""

    def __init__(self, conditioning: int):
        super().__init__()
        enter, leave = nn.Linear(_FREQUENCIES, conditioning), nn.Linear(conditioning, conditioning)
        self.mlp = nn.Sequential(enter, nn.SiLU(), leave)
        nn.init.normal_(enter.weight, std=0.02)
        nn.init.normal_(leave.weight, std=0.02)

    def forward(self, sigma_B: Tensor) -> Tensor:
        half = _FREQUENCIES // 2
        rate = torch.exp(torch.arange(half, device=sigma_B.device) * (-math.log(10000.0) / half))
        angle = sigma_B.float()[:, None] * rate
        return self.mlp(torch.cat([angle.cos(), angle.sin()], -1).to(next(self.parameters()).dtype))


class Block(nn.Module):
    """Attention and a GELU network, each modulated and gated by the noise level (adaLN-zero), or by nothing.

    cond_dim None: a plain pre-norm block, as an autoregressive model has it.
    """

    def __init__(self, width: int, heads: int, cond_dim: int | None, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = LayerNorm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.adaLN_modulation = None if cond_dim is None else nn.Linear(cond_dim, 6 * width)
        if self.adaLN_modulation is not None:
            nn.init.zeros_(self.adaLN_modulation.weight)
            nn.init.zeros_(self.adaLN_modulation.bias)

    def forward(
        self,
        x_BLD: Tensor,
        cond_BC: Tensor | None,
        rotary: Rotary,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
        at_BK: Tensor | None = None,
    ) -> Tensor:
        """The block's output at all positions, or at `at_BK` alone (B, K, D).

        mask    True where a key may be seen, broadcast to (B, H, L, S)
        cache   keeps keys and values of earlier positions; `rotary` is then that of the new ones
        at_BK   positions of each row whose output is wanted
        """
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self._modulation(cond_BC)
        inner_BLD = self.norm1(x_BLD)
        if shift_a is not None and scale_a is not None:
            inner_BLD = modulate(inner_BLD, shift_a, scale_a)
        query, key, value = self._heads(inner_BLD, rotary, at_BK)
        if cache is not None:
            key, value = cache(key, value)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        x = x_BLD if at_BK is None else gather(x_BLD, at_BK)
        x = self._add(x, gate_a, self.attn_out(mixed.transpose(1, 2).flatten(2)))
        inner = self.norm2(x)
        if shift_m is not None and scale_m is not None:
            inner = modulate(inner, shift_m, scale_m)
        return self._add(x, gate_m, self.mlp(inner))

    def _modulation(self, cond_BC: Tensor | None) -> tuple[Tensor | None, ...]:
        """Shift, scale and gate of attention, then of the network, each (B, 1, D)."""
        if self.adaLN_modulation is None or cond_BC is None:
            return (None,) * 6
        return self.adaLN_modulation(cond_BC)[:, None].chunk(6, -1)

    def _heads(self, inner_BLD: Tensor, rotary: Rotary, at_BK: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (at the asked positions), keys and values, (B, H, ·, F), positions turned in."""
        if at_BK is None:
            query, key, value = (self._split(part) for part in self.attn_qkv(inner_BLD).chunk(3, -1))
            return rotate(query, rotary), rotate(key, rotary), value
        width = inner_BLD.shape[-1]
        weight = self.attn_qkv.weight
        key, value = (self._split(part) for part in F.linear(inner_BLD, weight[width:]).chunk(2, -1))
        query = self._split(F.linear(gather(inner_BLD, at_BK), weight[:width]))
        return rotate(query, turned(rotary, at_BK)), rotate(key, rotary), value

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _add(self, x: Tensor, gate: Tensor | None, branch: Tensor) -> Tensor:
        branch = F.dropout(branch, self.dropout, self.training)
        return x + branch if gate is None else torch.addcmul(x, gate, branch)


def gather(x_BLD: Tensor, at_BK: Tensor) -> Tensor:
    """The asked positions of each row, (B, K, D)."""
    return x_BLD.gather(1, at_BK[..., None].expand(-1, -1, x_BLD.shape[-1]))


class Embedding(nn.Module):
    """The token embeddings, initialised as a linear layer is."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(size, width))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.embedding)


class OutputLayer(nn.Module):
    """The last norm, its modulation, and the projection on the vocabulary, which begins at zero."""

    def __init__(self, width: int, size: int, cond_dim: int | None, tied: Embedding | None):
        super().__init__()
        self.norm_final = LayerNorm(width)
        self.linear = nn.Linear(width, size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if tied is not None:
            self.linear.weight = tied.embedding
        self.adaLN_modulation = None if cond_dim is None else nn.Linear(cond_dim, 2 * width)
        if self.adaLN_modulation is not None:
            nn.init.zeros_(self.adaLN_modulation.weight)
            nn.init.zeros_(self.adaLN_modulation.bias)

    def features(self, x_BLD: Tensor, cond_BC: Tensor | None) -> Tensor:
        """What the projection is applied to."""
        x_BLD = self.norm_final(x_BLD)
        if self.adaLN_modulation is None or cond_BC is None:
            return x_BLD
        shift_B1D, scale_B1D = self.adaLN_modulation(cond_BC)[:, None].chunk(2, -1)
        return modulate(x_BLD, shift_B1D, scale_B1D)


class DiT(nn.Module):
    """The whole network from tokens and noise levels to the features that are projected on the vocabulary.

    size      rows of the embedding matrix, the mask's included
    cond_dim  None: no noise level at all
    """

    def __init__(self, settings: DiTSettings, size: int, cond_dim: int | None):
        super().__init__()
        s = settings
        self.settings = s
        self.vocab_embed = Embedding(s.width, size)
        self.sigma_map = None if cond_dim is None else SigmaEmbedding(cond_dim)
        self.rotary_emb = RotaryEmbedding(s.width // s.heads)
        self.blocks = nn.ModuleList(Block(s.width, s.heads, cond_dim, s.dropout) for _ in range(s.layers))
        self.output_layer = OutputLayer(s.width, size, cond_dim, self.vocab_embed if s.tied else None)

    def require_length(self, length: int) -> None:
        """UserError for a canvas that is longer than the model was made for."""
        if length > self.settings.max_length:
            raise UserError(
                f"a canvas of {length} tokens is longer than the model's max_length={self.settings.max_length}"
            )

    def forward(
        self,
        tokens_BL: Tensor,
        sigma_B: Tensor | None,
        at_BK: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        place: Tensor | None = None,
        caches: Sequence[Cache] | None = None,
    ) -> Tensor:
        """Features (B, L, D), or (B, K, D) of the asked columns; `output_layer.linear` makes scores of them.

        mask     True where a key may be seen, broadcast to (B, H, L, S); None where all may be
        place    the position of each column, (L,) or (B, L), where they are not 0, 1, 2, …
        caches   one a block
        """
        if place is None:
            self.require_length(tokens_BL.shape[1])
        cond_BC = None
        if self.sigma_map is not None and sigma_B is not None:
            cond_BC = F.silu(self.sigma_map(sigma_B))
        x_BLD = self.vocab_embed(tokens_BL)
        rotary = self.rotary_emb(0, tokens_BL.shape[1]) if place is None else self.rotary_emb.at(place)
        for i, block in enumerate(self.blocks):
            asked = None
            if i == len(self.blocks) - 1 and at_BK is not None:
                asked = at_BK
                if mask is not None and mask.shape[-2] > 1:  # each column sees others: those of the asked ones
                    row_B1 = torch.arange(len(at_BK), device=mask.device)[:, None]
                    mask = mask.expand(len(at_BK), 1, -1, -1)[row_B1, 0, at_BK][:, None]
            cache = None if caches is None else caches[i]
            x_BLD = block(x_BLD, cond_BC, rotary, mask=mask, causal=causal, cache=cache, at_BK=asked)
        return self.output_layer.features(x_BLD, cond_BC)
