"""Draws over 50,257 words with a heavy tail, in the default precision: rare words come as often as they must.

False alarms: the probability that a correct sampler with fresh keys fails is below 1e-8 for each test (binomial tails
by Chernoff's bound, chi-square by Laurent & Massart).
"""

from __future__ import annotations

import math

import pytest
import torch
from reference.tabular import bound_1e9

from diffq.diffusion.draws import Draw, DrawAndZ
from diffq.diffusion.reductions import read_tiles
from diffq.diffusion.row_draws import NucleusDraw
from diffq.rng import Rng, Stream

WORDS, DRAWS = 50_257, 16_000


def tailed_law(head=64, tail_mass=0.2):
    """A Zipf head with most of the mass, and a fifth of it spread over 50,000 words of 4e-6 each, ids in no order."""
    weights = torch.full((WORDS,), tail_mass / (WORDS - head), dtype=torch.float64)
    place = torch.randperm(WORDS, generator=torch.Generator().manual_seed(0))
    zipf = 1 / torch.arange(1, head + 1, dtype=torch.float64)
    weights[place[:head]] = (1 - tail_mass) * zipf / zipf.sum()
    return weights, place[:head]


def drawn(weights, make, count=DRAWS, part=2000):
    """Tokens of `count` positions with equal float32 scores, each with a key of its own."""
    scores_V = weights.log().float()
    out = []
    for first in range(0, count, part):
        key_N = Rng(1).key(Stream.TOKEN, torch.arange(first, first + part))
        project = lambda rows, a, b: scores_V[a:b].expand(rows.stop - rows.start, -1)  # noqa: E731
        (result,) = read_tiles(project, part, WORDS, [make(key_N)])
        out.append(result[0] if isinstance(result, tuple) else result)
    return torch.cat(out)


def deviation(found, expected, n):
    """How far a count lies off, in units that a binomial exceeds 1 of less than twice in 1e9 (Chernoff)."""
    p, q = expected, found / n
    kl = (q * math.log(q / p) if q else 0.0) + (1 - q) * math.log((1 - q) / (1 - p))
    return n * kl / (9 * math.log(10))


def test_the_tail_has_its_mass_and_every_part_of_it():
    weights, head = tailed_law()
    token_N = drawn(weights, Draw)
    in_head = torch.isin(token_N, head)
    assert deviation(int((~in_head).sum()), 0.2, DRAWS) < 1
    tail = token_N[~in_head]
    cells = torch.bincount(tail * 16 // WORDS, minlength=16).double()
    share = torch.bincount(torch.arange(WORDS)[~torch.isin(torch.arange(WORDS), head)] * 16 // WORDS).double()
    expected = share / share.sum() * len(tail)
    assert float(((cells - expected) ** 2 / expected).sum()) < bound_1e9(15)
    assert len(tail.unique()) > 0.9 * len(tail), "hardly a tail word comes twice"


def test_the_head_has_its_law():
    weights, head = tailed_law()
    counts = torch.bincount(drawn(weights, DrawAndZ), minlength=WORDS)[head].double()
    expected = weights[head] * DRAWS
    other = DRAWS - expected.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum() + (counts.sum() - expected.sum()) ** 2 / other)
    assert statistic < bound_1e9(64)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_a_temperature_moves_the_tails_mass_as_it_must(temperature):
    weights, head = tailed_law()
    tempered = (weights ** (1 / temperature)) / (weights ** (1 / temperature)).sum()
    token_N = drawn(weights, lambda key: Draw(key, temperature))
    mass = float(tempered.sum() - tempered[head].sum())
    assert deviation(int((~torch.isin(token_N, head)).sum()), mass, DRAWS) < 1


def test_a_nucleus_keeps_just_its_part_of_the_tail():
    weights, head = tailed_law()
    token_N = drawn(weights, lambda key: NucleusDraw(key, top_p=0.9), count=400, part=100)
    tail = int((~torch.isin(token_N, head)).sum())
    assert deviation(tail, 0.1 / 0.9, 400) < 1


def test_float32_gumbel_loses_the_tail_that_ours_keeps():
    """The draw of many code bases, for the footguns: one word has all but 1e-8 of each of 50,256 others."""
    weights = torch.full((WORDS,), 1e-8, dtype=torch.float64)
    weights[7] = 1 - 1e-8 * (WORDS - 1)
    mass = 1e-8 * (WORDS - 1)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(400, WORDS, generator=generator)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-10)) + 1e-10)
    theirs = (weights.log().float() + gumbel).argmax(-1)
    ours = drawn(weights, Draw)
    assert deviation(int((ours != 7).sum()), mass, DRAWS) < 1
    assert int((theirs != 7).sum()) == 0
    largest = float(gumbel.max())
    assert largest < 17
    assert largest + math.log(1e-8) < -2, "so no tail word can beat a head whose own Gumbel is at its mode"
