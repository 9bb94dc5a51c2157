"""When decoding writes how much: rows go through their blocks from left to right, some positions a round.

A *block* is a run of so many free positions of a row. A round is one network call: every row writes some of the masked
positions of the block that it is in. How many is known before anything is computed (`Plan`), so no row waits for
another, rows need not be in the same block, and nothing is asked of the device on the way. Rules that decide by what
they see how much they write look at the canvas instead (`Looking`).

Rows that have ended leave: an end token stands, and everything before it is written. What would follow it is no part of
the answer.

Knows no rule and no token but the end.

Shape suffixes: B rows of the canvas, R rows of a round, L positions, E rounds of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.noise import DREAMS_LAST_TIME
from diffq.errors import UserError

Pace = Literal["even", "dream"]

_LOOK_EVERY = 8  # rounds between two looks at what is still masked, where each makes the host wait


def waits(of: Tensor) -> bool:
    """Whether the host waits for the device when it looks at a tensor."""
    return of.is_cuda


class Standing(NamedTuple):
    """Where a row is: its place on the canvas, its block, and how many rounds it has been in this block before."""

    row: int
    block: int
    visit: int


@dataclass(frozen=True)
class Round:
    """One network call.

    row_R     the rows of the canvas that take part
    open_RL   the masked positions of their blocks
    counts    how many these are at most, row by row, on the host
    quotas    how many are written, row by row, on the host; None where the rule decides
    noise_R   the masked share of the row's free positions, float64
    after_R   the same after the round; None where the rule decides how much is written
    visit_R   rounds that the row has been in this block
    where     the same with its block, row by row, on the host; empty where the host has not waited to know it
    future    whether anything of the block, and of the canvas, stays masked afterwards: row by row, on the host
    """

    index: int
    row_R: Tensor
    open_RL: Tensor
    counts: tuple[int, ...]
    quotas: tuple[int, ...] | None
    noise_R: Tensor
    after_R: Tensor | None
    visit_R: Tensor
    where: tuple[Standing, ...] = ()
    future: tuple[tuple[bool, bool], ...] = ()

    def staying(self, before_R: Tensor) -> Tensor | None:
        """The places of this round's rows among those of the round before; None where none has left."""
        return torch.searchsorted(before_R, self.row_R) if len(self.row_R) < len(before_R) else None


@dataclass(frozen=True)
class _Stage:
    """A round of one row: its block, how much of it is masked before, how much is written, rounds before it."""

    block: int
    masked: int
    written: int
    visit: int


class Blocks:
    """The blocks of a canvas. block: free positions in each; 0: all of them in one."""

    def __init__(self, canvas: Canvas, block: int):
        ordinal_BL = canvas.free_BL.cumsum(1) - 1
        self.block_BL = ordinal_BL // block if block else torch.zeros_like(ordinal_BL)
        self.block_BL = self.block_BL.masked_fill(~canvas.free_BL, -1)
        self.free_B = canvas.free_BL.sum(1)
        self.size = block

    def spans(self) -> list[list[tuple[int, int]]]:
        """The columns of each block of each row, from its first free position to its last, on the host: (first, one
        more than the last)."""
        found = []
        for free_L in (self.block_BL >= 0).cpu():
            place = free_L.nonzero().squeeze(1).tolist()
            size = self.size or max(len(place), 1)
            parts = [place[at : at + size] for at in range(0, len(place), size)]
            found.append([(part[0], part[-1] + 1) for part in parts])
        return found

    def counts(self) -> list[list[int]]:
        """The positions of each block of each row, on the host: the one time that it waits for the device."""
        free = self.free_B.tolist()
        size = self.size
        return [[min(size, n - at) for at in range(0, n, size)] if size else [n] * (n > 0) for n in free]


class Plan:
    """The rounds of a batch, where each writes a number of positions that is known.

    steps            rounds for a whole row, shared out among its blocks; 0: `tokens_per_step` says
    tokens_per_step  positions written by a round
    pace             even: a block's positions are shared out evenly, the first rounds writing one more (LLaDA); dream:
                     of steps, by the time grid of Dream; full: all rounds write as much as the first, the last what is
                     left (EAGS); rounds that would write nothing are left out
    """

    def __init__(
        self, canvas: Canvas, blocks: Blocks, *, steps: int, tokens_per_step: int, pace: Pace | Literal["full"] = "even"
    ):
        made: dict[tuple[int, ...], list[_Stage]] = {}
        self.stages: list[list[_Stage]] = []
        for counts in blocks.counts():
            key = tuple(counts)
            if key not in made:
                made[key] = _stages(counts, steps, tokens_per_step, pace)
            self.stages.append(made[key])
        self.total = max(map(len, self.stages), default=0)
        self._blocks = blocks
        device = canvas.device
        self.left = left = [_left(row) for row in self.stages]
        width = self.total + 1
        share = [[x / max(rest[0], 1) for x in rest] + [0.0] * (width - len(rest)) for rest in left]
        self._noise_BE = torch.tensor(share, dtype=torch.float64).to(device)
        self._block_BE = self._table([[s.block for s in row] for row in self.stages]).to(device)
        self._visit_BE = self._table([[s.visit for s in row] for row in self.stages]).to(device)

    def _table(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor([row + [0] * (self.total - len(row)) for row in rows]).view(len(rows), self.total)

    def rounds(self, masked_BL: Tensor, ended: Ended) -> Iterator[Round]:
        """One after the other, each made when it is asked for. masked_BL changes under way."""
        device, alive = masked_BL.device, list(range(len(self.stages)))
        row_R = torch.arange(len(alive), device=device)
        for e in range(self.total):
            if ended.due(e):
                over = set(ended.look(masked_BL))
                alive = [b for b in alive if b not in over]
            going = [b for b in alive if len(self.stages[b]) > e]
            if not going:
                return
            if going != alive or len(going) != len(row_R):
                alive, row_R = going, torch.tensor(going, device=device)
            now = [self.stages[b][e] for b in alive]
            yield Round(
                index=e,
                row_R=row_R,
                open_RL=masked_BL[row_R] & (self._blocks.block_BL[row_R] == self._block_BE[row_R, e, None]),
                counts=tuple(s.masked for s in now),
                quotas=tuple(s.written for s in now),
                noise_R=self._noise_BE[row_R, e],
                after_R=self._noise_BE[row_R, e + 1],
                visit_R=self._visit_BE[row_R, e],
                where=tuple(Standing(b, s.block, s.visit) for b, s in zip(alive, now, strict=True)),
                future=tuple((s.masked > s.written, self.left[b][e + 1] > 0) for b, s in zip(alive, now, strict=True)),
            )


def _left(stages: list[_Stage]) -> list[int]:
    """What is masked before each round and after the last."""
    written = [stage.written for stage in stages]
    return [sum(written[i:]) for i in range(len(written) + 1)]


def _stages(counts: list[int], steps: int, tokens_per_step: int, pace: Pace | Literal["full"]) -> list[_Stage]:
    if steps and steps < len(counts):
        raise UserError(
            f"steps={steps} are fewer than the {len(counts)} blocks of {sum(counts)} free positions; raise steps or"
            " block"
        )
    stages = []
    for block, count in enumerate(counts):
        if steps:
            share = steps // len(counts) + (block < steps % len(counts))
        else:
            share = -(-count // tokens_per_step)
        left = count
        if pace == "dream" and steps:
            written = _dream(count, share)
        elif pace == "full":
            written = _even(count, share, False, -(-count // share))
        else:
            written = _even(count, share, steps > 0, tokens_per_step)
        for visit, now in enumerate(n for n in written if n):
            stages.append(_Stage(block, left, now, visit))
            left -= now
    return stages


def _even(count: int, steps: int, shared: bool, tokens_per_step: int) -> list[int]:
    """LLaDA's `get_num_transfer_tokens` where steps are shared out; else full rounds, and what is left."""
    if shared:
        return [count // steps + (k < count % steps) for k in range(steps)]
    return [max(0, min(tokens_per_step, count - k * tokens_per_step)) for k in range(steps)]


def _dream(count: int, steps: int) -> list[int]:
    """Dream's: of what is masked at time t, the share 1 − s/t, cut down to a whole number; the last step all of it."""
    time = torch.linspace(1, DREAMS_LAST_TIME, steps + 1)
    written, left = [], count
    for k in range(steps):
        now = left if k == steps - 1 else int(left * float(1 - time[k + 1] / time[k]))
        written.append(now)
        left -= now
    return written


class Looking:
    """Rounds for rules that decide by what they see how much they write, at least one position a row and round.

    waits: the host waits for the device in every round, so that it knows where each row is.
    """

    def __init__(self, canvas: Canvas, blocks: Blocks, waits: bool = False):
        self._blocks, self._free_B, self._waits = blocks, blocks.free_B, waits
        self.total = int(blocks.free_B.max())

    def rounds(self, masked_BL: Tensor, ended: Ended) -> Iterator[Round]:
        """See `Plan.rounds`. On a GPU the host looks only now and then what is left; until it does, rows that are done
        run along, with nothing open, and nothing is written in them."""
        seldom = waits(masked_BL) and not self._waits
        block_BL, width = self._blocks.block_BL, masked_BL.shape[1]
        last = torch.iinfo(torch.long).max
        size = min(self._blocks.size or width, width)
        row_R, visit_B = torch.arange(len(masked_BL), device=masked_BL.device), torch.zeros_like(self._free_B)
        before_B = torch.full_like(self._free_B, -1)
        for e in range(self.total):
            if not seldom or e % _LOOK_EVERY == 0:
                if ended.due(e):
                    ended.look(masked_BL)
                row_R = masked_BL.any(1).nonzero().squeeze(1)
                if not len(row_R):
                    return
            now_R = torch.where(masked_BL[row_R], block_BL[row_R], last).amin(1)
            visit_B[row_R] = torch.where(before_B[row_R] == now_R, visit_B[row_R] + 1, 0)
            before_B[row_R] = now_R
            open_RL = masked_BL[row_R] & (block_BL[row_R] == now_R[:, None])
            counts = tuple([size] * len(row_R) if seldom else open_RL.sum(1).tolist())
            noise_R = masked_BL[row_R].sum(1).double() / self._free_B[row_R]
            visit_R = visit_B[row_R]
            told = () if seldom else zip(row_R.tolist(), now_R.tolist(), visit_R.tolist(), strict=True)
            where = tuple(Standing(*row) for row in told)
            yield Round(e, row_R, open_RL, counts, None, noise_R, None, visit_R, where)


class Ended:
    """Fills rows up that have ended, so that they need no more rounds."""

    def __init__(self, canvas: Canvas, tokens_BL: Tensor):
        self._canvas, self._tokens_BL = canvas, tokens_BL
        self._may_end_BL = None if canvas.end is None else canvas.may_end()
        self._seldom = waits(tokens_BL)

    def due(self, e: int) -> bool:
        """Whether it is time to look: on a GPU the host waits when it does."""
        looks = self._canvas.leaves and self._canvas.end is not None
        return looks and e > 0 and (not self._seldom or e % _LOOK_EVERY == 0)

    def look(self, masked_BL: Tensor) -> list[int]:
        """The rows that have ended, their masks filled with the end token; a row is told more than once."""
        end, may_end_BL = self._canvas.end, self._may_end_BL
        assert end is not None
        assert may_end_BL is not None
        ends_BL = self._canvas.are_ends(self._tokens_BL) & may_end_BL & ~masked_BL
        first_B = ends_BL.long().cumsum(1).clamp(max=1)  # 1 from the end token on
        over_B = first_B.any(1) & ~(masked_BL & (first_B == 0)).any(1)
        fill_BL = masked_BL & over_B[:, None]
        self._tokens_BL.masked_fill_(fill_BL, end)
        masked_BL &= ~fill_BL
        return [int(b) for b in over_B.nonzero().squeeze(1)]
