"""When which position is written: the order of events of masked samplers.

With a normalised clean-token distribution the time at which a position is written (or masked again) does not depend on
the network. So all of it is drawn first, keyed by row and position. Every row then jumps from one of its own events to
its next, each row at its own noise level, and a step in which nothing is written costs nothing.

    stepwise    a grid of steps: what falls into one step of a row is written together
    one_by_one  the limit of ever more steps, exactly: every position at its own time (first hitting, Zheng et al. 2024,
                arXiv 2409.02908)
    remasked    a grid of steps in which written positions may be masked again (ReMDM)

Knows no network and no token.

Shape suffixes: B rows, L positions, T steps, E events of a row, N written positions, K positions of a row in one event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Event:
    """What is written by one network call: one event of each of the first `rows` rows.

    masked_BL    what is masked just before it, where that is not just what has not been written; else None
    visit_N      how often each position was written before
    at_BK        the positions of each row, filled up by repeating position 0
    slot_N       where each of the written positions stands in at_BK, flat
    position_N   where it stands on the canvas, flat
    noise_B      the share of masks just before the event
    after_B      the noise of the row's next event; 0 where there is none
    last_N       True at positions that no step has written: they are left to the final denoising
    any_last     whether there are any
    """

    rows: int
    at_BK: Tensor
    slot_N: Tensor
    position_N: Tensor
    noise_B: Tensor
    after_B: Tensor
    visit_N: Tensor
    last_N: Tensor
    any_last: bool
    masked_BL: Tensor | None = None


@dataclass(frozen=True)
class Schedule:
    """The events of a batch.

    order_B       rows by their number of events, most first: events are told for rows in this order
    counts        of each event in turn: rows, positions, most positions of a row, whether some are left to the end
    step_BE       the step of each event, where steps matter
    masked_TBL    what is masked before each step, rows in the canvas' order, where positions are masked again
    """

    order_B: Tensor
    counts: tuple[tuple[int, int, int, bool], ...]
    position_N: Tensor
    slot_N: Tensor
    visit_N: Tensor
    last_N: Tensor
    noise_BE: Tensor
    length: int
    step_BE: Tensor | None = None
    masked_TBL: Tensor | None = None

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[Event]:
        first = 0
        for e, (rows, positions, widest, any_last) in enumerate(self.counts):
            part = slice(first, first + positions)
            first += positions
            position_N = self.position_N[part]
            place_N = position_N // self.length * widest + self.slot_N[part]
            at_BK = torch.zeros(rows * widest, dtype=torch.long, device=position_N.device)
            at_BK[place_N] = position_N % self.length
            masked_BL = None
            if self.masked_TBL is not None and self.step_BE is not None:
                masked_BL = self.masked_TBL[self.step_BE[:rows, e], self.order_B[:rows]]
            yield Event(
                rows=rows,
                at_BK=at_BK.view(rows, widest),
                slot_N=place_N,
                position_N=position_N,
                noise_B=self.noise_BE[:rows, e],
                after_B=self.noise_BE[:rows, e + 1],
                visit_N=self.visit_N[part],
                last_N=self.last_N[part],
                any_last=any_last,
                masked_BL=masked_BL,
            )

    @property
    def left_BL(self) -> Tensor | None:
        """What is masked at the very end because it was masked again, rows in the canvas' order."""
        return None if self.masked_TBL is None else self.masked_TBL[-1]


def stepwise(uniform_BL: Tensor, free_BL: Tensor, survival_T: Tensor, noise_T: Tensor, final: bool) -> Schedule:
    """Events on a grid of T steps.

    uniform_BL   keyed, in (0, 1)
    survival_T   the probability that a position is still masked after each step, falling
    noise_T      the share of masks before each step, and last, before the final denoising: T + 1 of them
    final        whether what no step has written is written at the end
    A position is written in the first step after which survival ≤ u.
    """
    steps = len(survival_T)
    step_BL = (survival_T[:, None, None] > uniform_BL).sum(0)  # 0 … T; T is what is left
    written_BL = free_BL if final else free_BL & (step_BL < steps)
    return _once(step_BL, written_BL, steps, lambda sorted_BL, _: noise_T[sorted_BL.clamp(max=steps)])


def one_by_one(uniform_BL: Tensor, free_BL: Tensor) -> Schedule:
    """Every position at its own time: the limit of ever more steps."""
    rank_BL = uniform_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    return _once(rank_BL, free_BL, -1, lambda _, place_BL: uniform_BL.gather(1, place_BL))


def remasked(
    uniforms: Callable[[int], Tensor], free_BL: Tensor, write_T: Tensor, remask_T: Tensor, noise_T: Tensor, final: bool
) -> Schedule:
    """Events on a grid of T steps in which a masked position is written with probability write_T, and a written one
    masked again with probability remask_T.

    uniforms(k)  the keyed uniforms of step k, (B, L)
    noise_T      as in `stepwise`
    """
    masked_BL = free_BL
    masked, written = [], []
    for k in range(len(write_T)):
        uniform_BL = uniforms(k)
        write_BL = masked_BL & (uniform_BL < write_T[k])
        remask_BL = free_BL & ~masked_BL & (uniform_BL < remask_T[k])
        masked.append(masked_BL)
        written.append(write_BL)
        masked_BL = (masked_BL & ~write_BL) | remask_BL
    masked.append(masked_BL)
    written.append(masked_BL if final else torch.zeros_like(masked_BL))
    masked.append(torch.zeros_like(masked_BL) if final else masked_BL)
    return _again(torch.stack(written, 1), torch.stack(masked), noise_T)


def _once(step_BL: Tensor, written_BL: Tensor, last: int, noise_of: Callable[[Tensor, Tensor], Tensor]) -> Schedule:
    """A schedule in which every position is written at most once, in the given step; `last` is that of the leftovers.

    noise_of(steps, places) tells the noise of entries in the order of their rows' steps.
    """
    rows, length = step_BL.shape
    device = step_BL.device
    none = torch.iinfo(torch.long).max
    # Dense ranks of each row's steps: 0, 1, … over the steps in which something of the row is written.
    sorted_BL, place_BL = torch.where(written_BL, step_BL, none).sort(dim=1, stable=True)
    new_BL = torch.ones_like(written_BL)
    new_BL[:, 1:] = sorted_BL[:, 1:] != sorted_BL[:, :-1]
    kept_BL = sorted_BL != none
    rank_BL = new_BL.cumsum(1) - 1
    # A position's slot is its number among those of the same row and event.
    column_L = torch.arange(length, device=device)
    slot_BL = column_L - torch.where(new_BL, column_L, 0).cummax(1).values
    noise_BE = torch.zeros(rows, length + 2, dtype=torch.float64, device=device)
    noise_BE.scatter_(1, torch.where(kept_BL, rank_BL, length + 1), noise_of(sorted_BL, place_BL))
    noise_BE[:, length + 1] = 0
    row_BL = torch.arange(rows, device=device)[:, None].expand(rows, length)
    return _schedule(
        row_BL[kept_BL],
        place_BL[kept_BL],
        rank_BL[kept_BL],
        slot_BL[kept_BL],
        torch.zeros_like(place_BL[kept_BL]),
        (sorted_BL == last)[kept_BL],
        events_B=(new_BL & kept_BL).sum(1),
        noise_BE=noise_BE,
        length=length,
    )


def _again(written_BTL: Tensor, masked_TBL: Tensor, noise_T: Tensor) -> Schedule:
    """A schedule in which positions may be written more than once; the last of the steps writes the leftovers."""
    rows, steps, length = written_BTL.shape
    any_BT = written_BTL.any(2)
    rank_BT = any_BT.cumsum(1) - 1
    dump_BT = torch.where(any_BT, rank_BT, steps + 1)
    noise_BE = torch.zeros(rows, steps + 2, dtype=torch.float64, device=any_BT.device)
    noise_BE.scatter_(1, dump_BT, noise_T.expand(rows, -1))
    noise_BE[:, steps + 1] = 0
    step_T = torch.arange(steps, device=any_BT.device)
    step_BE = torch.zeros(rows, steps + 2, dtype=torch.long, device=any_BT.device)
    step_BE.scatter_(1, dump_BT, step_T.expand(rows, -1))
    row_N, step_N, place_N = written_BTL.nonzero(as_tuple=True)
    made = _schedule(
        row_N,
        place_N,
        rank_BT[row_N, step_N],
        (written_BTL.cumsum(2) - 1)[row_N, step_N, place_N],
        (written_BTL.cumsum(1) - 1)[row_N, step_N, place_N],
        step_N == steps - 1,
        events_B=any_BT.sum(1),
        noise_BE=noise_BE,
        length=length,
    )
    return replace(made, step_BE=step_BE[made.order_B], masked_TBL=masked_TBL)


def _schedule(
    row_N: Tensor,
    place_N: Tensor,
    rank_N: Tensor,
    slot_N: Tensor,
    visit_N: Tensor,
    last_N: Tensor,
    *,
    events_B: Tensor,
    noise_BE: Tensor,
    length: int,
) -> Schedule:
    """Rows with the most events first, entries by event and then by row."""
    order_B = events_B.argsort(descending=True, stable=True)
    new_row_B = torch.empty_like(order_B)
    new_row_B[order_B] = torch.arange(len(order_B), device=order_B.device)
    position_N = new_row_B[row_N] * length + place_N
    by_event = (rank_N * (len(order_B) * length) + position_N).argsort()
    position_N, rank_N, slot_N, visit_N, last_N = (x[by_event] for x in (position_N, rank_N, slot_N, visit_N, last_N))
    counts = _counts(rank_N, slot_N, last_N, events_B)
    return Schedule(order_B, counts, position_N, slot_N, visit_N, last_N, noise_BE[order_B], length)


def _counts(rank_N: Tensor, slot_N: Tensor, last_N: Tensor, events_B: Tensor) -> tuple[tuple[int, int, int, bool], ...]:
    """Brings the sizes of all events to the host at once: the one time that it waits for the device."""
    most = int(events_B.max()) if events_B.numel() else 0
    if most == 0:
        return ()
    event_E = torch.arange(most, device=rank_N.device)
    alive_E = (events_B[:, None] > event_E).sum(0)
    none_E = torch.zeros(most, dtype=torch.long, device=rank_N.device)
    positions_E = none_E.index_add(0, rank_N, torch.ones_like(rank_N))
    widest_E = none_E.scatter_reduce(0, rank_N, slot_N + 1, "amax")
    last_E = none_E.scatter_reduce(0, rank_N, last_N.long(), "amax")
    columns = torch.stack([alive_E, positions_E, widest_E, last_E]).tolist()
    return tuple((a, p, w, bool(last)) for a, p, w, last in zip(*columns, strict=True))
