"""A small language to teach a network in seconds: a row is one of three words said over and over, from a random letter
on; with `slips`, a letter now and then is any letter."""

from __future__ import annotations

import torch

from diffq.models.base import TextBatch, Totals
from diffq.rng import Rng

CYCLES = torch.tensor([[11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]])


def cycles(rows, length, generator, slips=0.0):
    """Texts of the language, (rows, length)."""
    first = torch.randint(0, 4, (rows, 1), generator=generator)
    word = torch.randint(0, 3, (rows, 1), generator=generator)
    said = CYCLES[word, (first + torch.arange(length)) % 4]
    if not slips:
        return said
    other = CYCLES.flatten()[torch.randint(0, CYCLES.numel(), said.shape, generator=generator)]
    return torch.where(torch.rand(said.shape, generator=generator) < slips, other, said)


def taught(model, steps, length=24, rows=32, slips=0.0):
    """The model after so many steps of Adam."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    model.train()
    for step in range(steps):
        tokens_BL = cycles(rows, length, generator, slips)
        batch = TextBatch(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool), torch.arange(rows),
                          torch.full((rows,), step))  # fmt: skip
        loss = model.loss(batch, Rng(1), Totals(rows, tokens_BL.numel()))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()
