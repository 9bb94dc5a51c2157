"""Sessions that some tokens are kept from: whatever is read of them, a draw, a probability, a sum over words, is read
as if the network gave these tokens none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.reductions import Reduction, Without


class Barred:
    """A session of a discrete denoiser without some tokens. tokens: their ids."""

    def __init__(self, session: Any, tokens: Sequence[int]):
        self._session, self._tokens = session, tuple(tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def fork(self, rows_K: Tensor) -> Barred:
        return Barred(self._session.fork(rows_K), self._tokens)

    def read(self, hidden: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        return tuple(self._session.read(hidden, positions_N, [Without(r, self._tokens) for r in reduce]))


def without_ends(session: Any, canvas: Canvas, ending: str) -> Any:
    """The session, kept from the tokens at which rows of a canvas end where `ending` is never."""
    return Barred(session, canvas.ends) if ending == "never" and canvas.ends else session
