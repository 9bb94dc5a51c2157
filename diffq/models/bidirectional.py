"""The bidirectional transformer of LLaDA and Dream: root-mean-square norms, rotary positions, SwiGLU, grouped queries.

One network for both: Dream has biases on queries, keys and values and fewer of the latter two. Module names are those
of LLaDA's checkpoints without their prefix. Attention is torch's own SDPA. Where only some positions will be read, the
last block computes keys and values for all and the rest for those alone. Knows no process, no loss and no sampling.

(Nie et al. 2025, arXiv 2502.09992; Ye et al. 2025, arXiv 2508.15487. Parts: Zhang & Sennrich 2019, RMSNorm; Su et al.
2021, rotary positions; Shazeer 2020, SwiGLU; Ainslie et al. 2023, grouped queries.)

Shape suffixes: B rows, L positions, K asked positions of a row, S positions attended to, D width, H heads, F head
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffq.errors import UserError
from diffq.models.base import ModelSettings
from diffq.models.dit import Cache, Rotary, gather
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class BidirectionalSettings(ModelSettings):
    """The sizes of the transformer."""

    width: int = setting(512, "width of the transformer", low=2)
    heads: int = setting(8, "attention heads", low=1)
    kv_heads: int | None = setting(None, "heads of keys and values; null = as many as heads", low=1)
    layers: int = setting(6, "blocks", low=1)
    mlp_width: int = setting(1408, "width of the gated network of a block", low=1)
    max_length: int = setting(1024, "longest canvas, in tokens", low=1)
    rope_theta: float = setting(10000.0, "base of the rotary positions", above=0)
    norm_eps: float = setting(1e-5, "added to the mean square in norms", above=0)
    tied: bool = setting(False, "the output matrix is the embedding matrix")
    qkv_bias: bool = setting(False, "biases of queries, keys and values")
    bias: bool = setting(False, "biases of all linear maps")
    scale_logits: bool = setting(False, "divide the logits by the root of the width")
    rows: int | None = setting(None, "rows of the embedding matrix; null = the tokenizer's size", low=1)

    def check(self) -> None:
        if self.width % (2 * self.heads):
            raise UserError(f"width={self.width} must be an even multiple of heads={self.heads}: rotary pairs halves")
        if self.heads % self.groups:
            raise UserError(f"heads={self.heads} must be a multiple of kv_heads={self.kv_heads}")

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads


class RMSNorm(nn.Module):
    """x / √(mean x² + eps) in float32, times a weight."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1]
            return (wide * torch.rsqrt(mean_square + self.eps)).to(x.dtype) * self.weight


class Block(nn.Module):
    """Attention and a gated network, each behind a norm."""

    def __init__(self, s: BidirectionalSettings):
        super().__init__()
        self.heads, self.groups = s.heads, s.groups
        kv_width, qkv_bias = s.width // s.heads * s.groups, s.bias or s.qkv_bias
        self.attn_norm = RMSNorm(s.width, s.norm_eps)
        self.q_proj = nn.Linear(s.width, s.width, bias=qkv_bias)
        self.k_proj = nn.Linear(s.width, kv_width, bias=qkv_bias)
        self.v_proj = nn.Linear(s.width, kv_width, bias=qkv_bias)
        self.attn_out = nn.Linear(s.width, s.width, bias=s.bias)
        self.ff_norm = RMSNorm(s.width, s.norm_eps)
        self.ff_proj = nn.Linear(s.width, s.mlp_width, bias=s.bias)
        self.up_proj = nn.Linear(s.width, s.mlp_width, bias=s.bias)
        self.ff_out = nn.Linear(s.mlp_width, s.width, bias=s.bias)

    def forward(
        self,
        x_BLD: Tensor,
        rotary: Rotary,
        mask: Tensor | None = None,
        at_BK: Tensor | None = None,
        rotary_at: Rotary | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The block's output at all positions, or at `at_BK` alone (B, K, D), whose rotary is then given too.

        mask    True where a key may be seen, broadcast to (B, H, L, S)
        cache   takes the new keys and values and gives all that are attended to
        """
        inner = self.attn_norm(x_BLD)
        key = _turn(self._split(self.k_proj(inner), self.groups), rotary)
        value = self._split(self.v_proj(inner), self.groups)
        if cache is not None:
            key, value = cache(key, value)
        x = x_BLD
        if at_BK is not None and rotary_at is not None:
            x, inner, rotary = gather(x_BLD, at_BK), gather(inner, at_BK), rotary_at
        query = _turn(self._split(self.q_proj(inner), self.heads), rotary)
        x = _add(x, self.attn_out(self._attend(query, key, value, mask).transpose(1, 2).flatten(2)))
        inner = self.ff_norm(x)
        gate, up = self.ff_proj(inner), self.up_proj(inner)
        if torch.is_grad_enabled():
            return _add(x, self.ff_out(F.silu(gate) * up))
        return _add(x, self.ff_out(F.silu(gate, inplace=True).mul_(up)))

    def _split(self, x_BLD: Tensor, heads: int) -> Tensor:
        return x_BLD.unflatten(-1, (heads, -1)).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        grouped = self.groups != self.heads
        if grouped and mask is not None:  # no fast kernel of a GPU takes both groups and a mask
            key, value = (x.repeat_interleave(self.heads // self.groups, 1) for x in (key, value))
            grouped = False
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


def _add(x: Tensor, branch: Tensor) -> Tensor:
    """The stream with a branch added, in the branch's memory where it has the stream's type: fresh memory is slow on
    CPUs."""
    return branch.add_(x) if branch.dtype == x.dtype else x + branch


def _turn(x_BHLF: Tensor, rotary: Rotary) -> Tensor:
    """Rotary positions in float32, whatever the network computes in; the sines are `signed`."""
    cos, signed = rotary
    wide = x_BHLF.to(torch.promote_types(x_BHLF.dtype, torch.float32))
    return (wide * cos).addcmul_(wide.roll(wide.shape[-1] // 2, -1), signed).to(x_BHLF.dtype)


class Bidirectional(nn.Module):
    """The whole network from tokens to the features that are projected on the vocabulary.

    size: rows of the embedding matrix. What stands around the blocks comes first, so that a device map keeps it on the
    first device.
    """

    def __init__(self, settings: BidirectionalSettings, size: int):
        super().__init__()
        s = self.settings = settings
        self.size = size
        self.wte = nn.Embedding(size, s.width)
        self.ff_out = None if s.tied else nn.Linear(s.width, size, bias=s.bias)
        self.ln_f = RMSNorm(s.width, s.norm_eps)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights of variance 1/inputs; those that write into the stream are smaller by √(2·layers) (Radford et
        al. 2019, §2.3). Embeddings are as large as what the blocks add to them: with a hundredth of it a small network
        learns a third more slowly. As the output matrix too they have to be small."""
        for name, part in self.named_modules():
            if isinstance(part, nn.Linear):
                last = name.startswith("blocks.") and name.endswith(("attn_out", "ff_out"))
                nn.init.normal_(part.weight, std=(part.in_features * (2 * self.settings.layers if last else 1)) ** -0.5)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.normal_(self.wte.weight, std=self.settings.width**-0.5 if self.settings.tied else 1.0)
        if self.ff_out is not None:
            nn.init.normal_(self.ff_out.weight, std=0.02)

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix (V, D) and the bias of the projection of features on the vocabulary."""
        if self.ff_out is None:
            return self.wte.weight, None
        bias = self.ff_out.bias
        scaled = self.settings.scale_logits and bias is not None
        return self.ff_out.weight, bias / math.sqrt(self.settings.width) if scaled else bias

    def require_length(self, length: int) -> None:
        """UserError for a canvas that is longer than the model was made for."""
        if length > self.settings.max_length:
            raise UserError(
                f"a canvas of {length} tokens is longer than the model's max_length={self.settings.max_length}"
            )

    def rotary(self, place: Tensor) -> Rotary:
        """Cosines, and sines of which the first half is negative, of places (L,) or (B, L) in the text: (L, F) or
        (B, 1, L, F), float32. Numbers j and j + F/2 of a head are turned as one point (the rotate-half form)."""
        head_dim = self.settings.width // self.settings.heads
        even = torch.arange(0, head_dim, 2, device=place.device, dtype=torch.float32)
        angle = place.float()[..., None] * (1.0 / (self.settings.rope_theta ** (even / head_dim)))
        if place.dim() == 2:
            angle = angle[:, None]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def forward(
        self,
        tokens_BL: Tensor,
        place: Tensor,
        at_BK: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[Cache] | None = None,
    ) -> Tensor:
        """Features (B, L, D), or (B, K, D) of the asked columns.

        place    the place of each token in its text, (L,) or (B, L)
        mask     True where a key may be seen, broadcast to (B, H, L, S); None where nothing is padding
        caches   one a block
        """
        rotary, rotary_at = self.rotary(place), None
        if at_BK is not None:
            rotary_at = self.rotary(place[at_BK] if place.dim() == 1 else place.gather(1, at_BK))
        x = self.wte(tokens_BL)
        for i, block in enumerate(self.blocks):
            asked = at_BK if i == len(self.blocks) - 1 else None
            x = block(x, rotary, mask, asked, rotary_at, None if caches is None else caches[i])
        x = self.ln_f(x)
        return x / math.sqrt(self.settings.width) if self.settings.scale_logits else x
