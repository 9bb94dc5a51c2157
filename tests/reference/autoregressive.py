"""Next-token sampling without a cache: the whole network over the whole prefix at every step, a dense softmax, and the
nucleus as Hugging Face has it.

Shape suffixes: B rows, S source positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffq.diffusion.contracts import row_id
from diffq.rng import Rng, Stream
from reference.embedding import pad
from reference.reductions import draw, nucleus_draw


@torch.no_grad()
def next_scores(model: Any, source_BS: Tensor, source_valid_BS: Tensor, prefix_BL: Tensor) -> Tensor:
    """The scores (B, V) of the token that follows each prefix, which begins with the start token."""
    net = model.net
    memory_BSD = net.encode(source_BS, source_valid_BS)
    hidden_BLD = net.decoder(net.place(net.embed(prefix_BL)), None, memory_BSD, source_valid_BS, causal=True)
    return net.down(hidden_BLD[:, -1]) @ net.embed.weight.t() * model.settings.embedding**-0.5


def generate(
    model: Any,
    sources: Sequence[Sequence[int]],
    longest: int,
    *,
    row_ids: Sequence[int] | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> list[list[int]]:
    """The answers, each up to its end token or `longest` tokens, without the end token."""
    ids = [row_id(i, 0) for i in range(len(sources))] if row_ids is None else row_ids
    row_B, rng = torch.tensor(ids), Rng(seed)
    source_BS, source_valid_BS = pad(sources, 0)
    prefix_BL = torch.full((len(sources), 1), model.start)
    for i in range(longest):
        scores_BV = next_scores(model, source_BS, source_valid_BS, prefix_BL)
        key_B = rng.key(Stream.TOKEN, row_B, 0, i)
        if temperature == 0 or (top_p == 1 and top_k == 0):
            token_B = draw(scores_BV, key_B, temperature)
        else:
            token_B = nucleus_draw(scores_BV, key_B, temperature, top_k, top_p)
        prefix_BL = torch.cat([prefix_BL, token_B[:, None]], 1)
    answers = []
    for row in prefix_BL[:, 1:].tolist():
        answers.append(row[: row.index(model.end)] if model.end in row else row)
    return answers
