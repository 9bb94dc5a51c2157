"""What a masked model says of tokens of a full text, each masked alone with everything else seen: a row of the network
for each. Energies and the entropies that order masks are made of it.

Shape suffixes: B rows, L positions, N asked positions of all rows, each a row of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.contracts import Canvas


@torch.no_grad()
def each_alone(
    denoiser: Any, canvas: Canvas, asked_BL: Tensor, wanted: Callable[[Tensor], Sequence[Any]], rows: int
) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, ...]]]:
    """Rows, places and what is read of them, for some of the asked positions at a time.

    canvas  full texts; how many positions of a row are free says at what noise one of them is masked
    wanted  the reductions that are read, of the tokens that stand at the places
    rows    how many the network is given at once
    """
    count_B = (canvas.free_BL & canvas.valid_BL).sum(1).double()
    session = denoiser.open(canvas)
    for row_N, place_N in (part.unbind(1) for part in asked_BL.nonzero().split(rows)):
        state_NL = canvas.tokens_BL[row_N].scatter(1, place_N[:, None], denoiser.mask)
        some = session.fork(row_N)
        hidden = some.run(state_NL, 1 / count_B[row_N], place_N[:, None])
        every_N = torch.arange(len(row_N), device=canvas.device)
        yield row_N, place_N, tuple(some.read(hidden, every_N, list(wanted(canvas.tokens_BL[row_N, place_N]))))
