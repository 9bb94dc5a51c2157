"""Key-value caches of decoding in blocks: which columns of a row a round computes, and which it takes as they were.

    prefix  at the beginning of a block all of the row is computed and kept; in the rounds after it, the block and what
            follows it                                    approximate (Wu et al. 2025, arXiv 2505.22618, Fast-dLLM)
    dual    … in the rounds after it the block alone      approximate (likewise: DualCache)
    exact   where tokens see their own block of the model and what stands before it alone (`model.block_causal`), the
            block alone is computed, and once more at the beginning of the next one, for what was written last

A round of a row is a function of that row, whatever stands beside it: rows of one round may have their blocks at other
columns, and may be in other blocks. Rows at the beginning of a block and rows inside of one are two network calls; what
is kept is taken over between them. Knows no network.

Shape suffixes: R rows of a round, L positions, K positions that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.samplers.rounds import Blocks, Standing

CacheName = Literal["off", "prefix", "dual", "exact"]


def misfit(cache: CacheName, block: int, keeps: bool, sees: int) -> str:
    """Why a cache cannot be had with blocks of so many tokens, in one sentence; empty where it can.

    keeps  whether the model's keys and values can be kept
    sees   tokens of a block that sees itself and what stands before it alone; 0: all see all
    """
    if cache == "off":
        return ""
    if not keeps:
        return f"cache={cache}: the keys and values of this model cannot be kept; use cache=off"
    if cache == "exact" and not sees:
        return (
            "cache=exact needs a model whose tokens see their own block and those before it alone, such as"
            " model=mdlm_blocks_tiny; this one's see all, where cache=prefix and dual approximate and off is exact"
        )
    if cache == "exact" and (block == 0 or block % sees):
        return (
            f"cache=exact keeps whole blocks of the model's {sees} tokens, and block={block} is no multiple of them;"
            f" give block={sees} or a multiple"
        )
    return ""


@dataclass(frozen=True)
class Keeping:
    """How the rounds of a canvas run a session under a cache.

    spans  the columns of each block of each row of the canvas; empty where the cache is off
    """

    cache: CacheName
    length: int
    spans: Sequence[Sequence[tuple[int, int]]]

    @classmethod
    def of(cls, cache: CacheName, denoiser: Any, canvas: Canvas, blocks: Blocks) -> Keeping:
        """UserError where the model cannot have the cache, as `misfit`."""
        keeps, sees = getattr(denoiser, "keeps", False), getattr(denoiser, "block", 0)
        if reason := misfit(cache, blocks.size, keeps, sees):
            raise UserError(reason)
        return cls(cache, canvas.shape[1], [] if cache == "off" else blocks.spans())

    def run(self, session: Any, where: Sequence[Standing], tokens_RL: Tensor, noise_R: Tensor, at_RK: Tensor) -> Tensor:
        """The session's `run` at these positions of the rows, of which no more is computed than the cache says."""
        if self.cache == "off":
            return session.run(tokens_RL, noise_R, at_RK)
        begin = [r for r, row in enumerate(where) if self.cache != "exact" and row.visit == 0]
        if len(begin) in (0, len(where)):
            session.freeze(None if begin else [self._span(row) for row in where])
            return session.run(tokens_RL, noise_R, at_RK)
        hidden: Tensor | None = None
        for part in (begin, [r for r in range(len(where)) if r not in set(begin)]):
            rows = torch.tensor(part, device=tokens_RL.device)
            new = self.run_some(session, rows, [where[r] for r in part], tokens_RL, noise_R, at_RK)
            if hidden is None:
                hidden = new.new_zeros(len(new) // len(part) * len(where), *new.shape[1:])
            hidden.unflatten(0, (-1, len(where)))[:, rows] = new.unflatten(0, (-1, len(part)))
        assert hidden is not None
        return hidden

    def run_some(
        self, session: Any, rows: Tensor, where: Sequence[Standing], tokens_RL: Tensor, noise_R: Tensor, at_RK: Tensor
    ) -> Tensor:
        """The same of some rows of the session, where `where` says they are: the session keeps what they compute."""
        forked = session.fork(rows)
        hidden = self.run(forked, where, tokens_RL[rows], noise_R[rows], at_RK[rows])
        if self.cache != "off":
            session.adopt(forked.kept, rows)
        return hidden

    def inside(self, session: Any, where: Sequence[Standing]) -> None:
        """From now on runs of the session, and of its forks, compute what a round inside of the rows' blocks does."""
        if self.cache != "off":
            session.freeze([self._span(row._replace(visit=1)) for row in where])

    def _span(self, row: Standing) -> tuple[int, int]:
        """The columns that a round computes where it does not compute all."""
        spans = self.spans[row.row]
        first, last = spans[row.block]
        if self.cache == "prefix":
            return first, self.length
        if self.cache == "exact" and row.visit == 0:  # what was written last of the block before it is yet to be kept
            return (spans[row.block - 1][0] if row.block else 0), last
        return first, last
