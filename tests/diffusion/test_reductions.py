"""Reductions over tiles against their dense versions, and the law of the keyed draw.

Draws are fixed by their keys, so each statistical test passes always or never; its bound is one that fresh keys would
break less than once in 1e9.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import reductions as dense

from diffq.diffusion.draws import Draw, DrawAndEntropy
from diffq.diffusion.reductions import (
    Entropy,
    LogPower,
    LogProb,
    LogZ,
    Top,
    Without,
    read_tiles,
    rows_held_whole,
)
from diffq.diffusion.row_draws import NucleusDraw
from diffq.rng import Rng, Stream, exponential


def keys(n, seed=0):
    return Rng(seed).key(Stream.TOKEN, torch.arange(n))


def scores_of(n, v, seed=0, excluded=0.1, spread=3.0):
    """Random scores with −inf entries, whole blocks of them too, but never a whole row."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, v, generator=g) * spread
    scores[torch.rand(n, v, generator=g) < excluded] = -math.inf
    if v > 600:
        scores[: n // 2, 256:512] = -math.inf
        scores[n // 3 :, :256] = -math.inf
    scores[:, v - 1] = 0.0
    return scores


def read(scores, reduce, words=256, rows=512, factor=1.0):
    """Hands the scores over in tiles, each divided by `factor`, as a projection that leaves it out would."""
    project = lambda part, first, last: scores[part, first:last] / factor  # noqa: E731
    return read_tiles(
        project, len(scores), scores.shape[1], reduce, words_a_tile=words, rows_a_tile=rows, factor=factor
    )


TILES = [(256, 512, 1.0), (512, 5, -1.0), (768, 1, 1.0), (4096, 7, -0.5)]


@pytest.mark.parametrize(("words", "rows", "factor"), TILES)
@pytest.mark.parametrize("v", [3, 256, 300, 1025, 2304])
def test_every_reduction_equals_its_dense_version(v, words, rows, factor):
    scores, key = scores_of(13, v), keys(13)
    asked = torch.arange(13) * 37 % v
    orders, temperatures = [1.0, 0.5, 2.0, 3.5, math.inf], [0.0, 0.1, 0.7, 1.0, 5.0]
    reduce = [
        *[Draw(key, t) for t in temperatures],
        *[NucleusDraw(key, t, k, p) for t, k, p in ((1.0, 0, 0.9), (0.5, 5, 1.0), (2.0, 20, 0.3))],
        *[Entropy(a) for a in orders],
        *[LogPower(a) for a in (0.5, 1.0, 2.0, 4.0)],
        LogProb(asked), LogZ(), Top(2), Top(1), DrawAndEntropy(key),
    ]  # fmt: skip
    found = iter(read(scores, reduce, words, rows, factor))
    for t in temperatures:
        assert torch.equal(next(found), dense.draw(scores, key, t))
    for t, k, p in ((1.0, 0, 0.9), (0.5, 5, 1.0), (2.0, 20, 0.3)):
        assert torch.equal(next(found), dense.nucleus_draw(scores, key, t, k, p))
    for a in orders:
        torch.testing.assert_close(next(found), dense.entropy(scores, a), rtol=1e-5, atol=1e-5)
    for a in (0.5, 1.0, 2.0, 4.0):
        torch.testing.assert_close(next(found), dense.log_power(scores, a), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(next(found), dense.log_prob(scores, asked), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(next(found), dense.log_z(scores), rtol=1e-6, atol=1e-5)
    for k in (2, 1):
        top_scores, top_tokens = next(found)
        expected_scores, expected_tokens = dense.top(scores, k)
        assert torch.equal(top_scores, expected_scores)
        finite = expected_scores.isfinite()
        assert torch.equal(top_tokens[finite], expected_tokens[finite])
    drawn, entropy = next(found)
    assert torch.equal(drawn, dense.draw(scores, key, 1.0))
    torch.testing.assert_close(entropy, dense.entropy(scores, 1.0), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    v=st.integers(1, 1400),
    words=st.sampled_from([256, 512, 1024, 4096]),
    rows=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 0.05, 0.5, 1.0, 20.0]),
    seed=st.integers(0, 10**6),
)
def test_tiles_never_change_a_draw(v, words, rows, temperature, seed):
    scores, key = scores_of(5, v, seed), keys(5, seed)
    (found,) = read(scores, [Draw(key, temperature)], words, rows)
    (whole,) = read(scores, [Draw(key, temperature)], 256 * math.ceil(v / 256), 5)
    assert torch.equal(found, whole)
    assert torch.isfinite(scores.gather(1, found[:, None])).all()


def test_no_positions_give_no_results():
    empty = torch.zeros(0, 700)
    draws, tops, entropy, nucleus = read(
        empty, [Draw(keys(0), 1.0), Top(2), Entropy(), NucleusDraw(keys(0), 1.0, 3)], 256, 8
    )
    assert draws.shape == nucleus.shape == entropy.shape == (0,)
    assert tops[0].shape == (0, 2)
    assert read(empty, [Draw(None, 0.0)])[0].shape == (0,)


def test_tiles_are_whole_blocks():
    with pytest.raises(ValueError, match="multiple of 256, not 300"):
        read(torch.zeros(1, 4), [LogZ()], words=300)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_a_token_is_excluded_where_it_is_asked_for(factor):
    scores_NV = torch.randn(6, 600, generator=torch.Generator().manual_seed(0))
    scores_NV[:, 300] = 9.0
    excluded_N = torch.arange(6) % 2 == 0
    expected_NV = scores_NV.clone()
    expected_NV[excluded_N, 300] = -math.inf
    for inner in (Draw(None, 0.0), LogZ()):
        (found,) = read(scores_NV, [Without(inner, (300,), excluded_N)], words=256, rows=4, factor=factor)
        (plain,) = read(expected_NV, [inner])
        torch.testing.assert_close(found, plain)
    assert scores_NV[0, 300] == 9.0  # the tile is another reduction's too


@pytest.mark.parametrize("temperature", [1e-7, 1e-12, 1e-30])
def test_the_coldest_draws_are_the_best_token(temperature):
    scores_NV = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)) * 10
    draw = Draw(Rng(0).key(Stream.TOKEN, torch.arange(50)), temperature)
    assert torch.equal(read(scores_NV, [draw], words=256)[0], scores_NV.argmax(1))


def test_a_draw_above_temperature_0_needs_keys():
    with pytest.raises(ValueError, match="needs keys"):
        read(torch.zeros(1, 4), [Draw(None, 0.5)])


@pytest.mark.parametrize("words", [256, 1024])
def test_ties_at_temperature_0_go_to_the_lowest_id(words):
    scores = torch.zeros(3, 1000)
    scores[0, [999, 300, 600]] = 1.0
    scores[1, [256, 255]] = 2.0
    assert read(scores, [Draw(None, 0.0)], words)[0].tolist() == [300, 255, 0]


def test_the_race_is_argmin_of_the_given_exponentials():
    """By brute force: in one block the token with the least E_v / w_v; over blocks the one with the least E_b / S_b."""
    scores, key = scores_of(200, 200, excluded=0.3), keys(200)
    for temperature in (0.3, 1.0, 4.0):
        race = exponential(key[:, None], torch.arange(200)).log() - scores.double() / temperature
        assert torch.equal(read(scores, [Draw(key, temperature)])[0], race.argmin(-1))
    scores = scores_of(200, 2000)
    block = torch.nn.functional.pad(scores.double(), (0, 48), value=-math.inf).view(200, 8, 256).logsumexp(-1)
    block_race = exponential(key[:, None], (1 << 40) + torch.arange(8)).log() - block
    assert torch.equal(read(scores, [Draw(key, 1.0)])[0] // 256, block_race.argmin(-1))


def chi_square_bound(cells):
    """What chi-square with cells − 1 degrees of freedom exceeds with probability below 1e-9 (Laurent–Massart)."""
    k, x = cells - 1, 9 * math.log(10)
    return k + 2 * math.sqrt(k * x) + 2 * x


def frequencies(scores_V, n, **arguments):
    what = arguments.pop("what", Draw)
    rows = scores_V.expand(n, -1)
    project = lambda part, first, last: rows[part, first:last]  # noqa: E731
    (drawn,) = read_tiles(
        project, n, len(scores_V), [what(keys(n), **arguments)], words_a_tile=256 * math.ceil(len(scores_V) / 256)
    )
    return torch.bincount(drawn, minlength=len(scores_V)).double()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_law_on_a_small_vocabulary(temperature):
    scores = scores_of(1, 40, seed=8, spread=1.0)[0]
    n = 60_000
    expected = (scores.double() / temperature).softmax(-1) * n
    counts = frequencies(scores, n, temperature=temperature)
    assert counts[expected == 0].sum() == 0
    often = expected >= 10
    cells = torch.cat([counts[often], counts[~often].sum()[None]])
    wanted = torch.cat([expected[often], expected[~often].sum()[None].clamp(min=1e-9)])
    assert float(((cells - wanted) ** 2 / wanted).sum()) < chi_square_bound(len(cells))


def test_the_law_across_blocks():
    """512 + 88 ids in three blocks of very different weight."""
    scores = torch.linspace(-3, 1, 600)
    n = 120_000
    expected = scores.double().softmax(-1) * n
    counts = frequencies(scores, n)
    assert float(((counts - expected) ** 2 / expected).sum()) < chi_square_bound(600)


def test_the_tail_of_50_000_words_has_its_mass():
    """A Zipf-like law, heavy in its tail: mass of each decade of ranks, and of every block beyond the first."""
    v, n = 50_257, 4_000
    shuffle = torch.randperm(v, generator=torch.Generator().manual_seed(1))
    scores = torch.empty(v)
    scores[shuffle] = -1.1 * torch.arange(1, v + 1, dtype=torch.float64).log().float()
    counts = frequencies(scores, n)[shuffle]
    expected = (scores.double().softmax(-1) * n)[shuffle]
    edges = [0, 1, 10, 100, 1000, 10_000, 30_000, v]
    cells = torch.stack([counts[a:b].sum() for a, b in itertools.pairwise(edges)])
    wanted = torch.stack([expected[a:b].sum() for a, b in itertools.pairwise(edges)])
    assert wanted.min() > 10
    assert float(((cells - wanted) ** 2 / wanted).sum()) < chi_square_bound(len(cells))
    tail, mass = float(counts[1000:].sum()), float(expected[1000:].sum())
    assert abs(tail - mass) < 6.2 * math.sqrt(mass)
    assert counts[10_000:].count_nonzero() > 250  # rare words are possible


def test_a_small_change_of_temperature_rarely_changes_the_token():
    """What the race is for: paired points of a sweep. One uniform through an inverse CDF changes most of its draws."""
    g = torch.Generator().manual_seed(2)
    scores = -1.1 * torch.arange(1, 8001).float().log()[torch.randperm(8000, generator=g)].expand(2000, -1)
    warm, cool = read(scores, [Draw(keys(2000), 1.0), Draw(keys(2000), 0.9)])
    assert (warm != cool).float().mean() < 0.35


@pytest.mark.parametrize(("k", "p"), [(0, 0.9), (0, 0.3), (0, 1e-6), (1, 1.0), (7, 1.0), (50, 0.7), (3, 0.95)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_the_nucleus_is_that_of_hugging_face(k, p, temperature):
    """Every token of its support is drawn, and no other, over 20 000 draws; the rarest of them has 0.3 %."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = torch.randn(60, generator=torch.Generator().manual_seed(4)) * 0.5
    warped = TemperatureLogitsWarper(temperature)(None, scores[None].double())
    if k:
        warped = TopKLogitsWarper(k)(None, warped)
    if p < 1:
        warped = TopPLogitsWarper(p)(None, warped)
    support = warped[0].isfinite()
    ours = dense.nucleus(scores[None], temperature, k, p)[0]
    assert torch.equal(ours.isfinite(), support)
    counts = frequencies(scores, 20_000, what=NucleusDraw, temperature=temperature, top_k=k, top_p=p)
    assert torch.equal(counts > 0, support)
    expected = warped[0].softmax(-1) * 20_000
    assert expected[support].min() > 60  # a token of the support is missed with probability below e^−60
    chi = ((counts - expected)[support] ** 2 / expected[support]).sum()
    assert float(chi) < chi_square_bound(max(int(support.sum()), 2))


def test_only_a_draw_without_temperature_is_of_order_alone():
    assert Draw(None, 0.0).order_only
    others = [Draw(keys(1), 1.0), NucleusDraw(keys(1)), Top(), LogZ(), LogProb(keys(1)), LogPower(2.0), Entropy()]
    assert not any(o.order_only for o in others)


@pytest.mark.parametrize(("positions", "vocab_size"), [(5, 300), (700, 50_257), (40_000, 126_464)])
def test_no_tile_is_larger_than_the_device_wants(positions: int, vocab_size: int) -> None:
    """Memory does not grow with positions × vocabulary: a tile has at most 2^20 scores, or four blocks of one row."""
    largest, seen = 0, 0

    def project(part: slice, first: int, last: int) -> torch.Tensor:
        nonlocal largest, seen
        size = (part.stop - part.start) * (last - first)
        largest, seen = max(largest, size), seen + size
        return torch.zeros(part.stop - part.start, 1).expand(-1, last - first)

    class Nothing:
        order_only = True

        def start(self, part: slice, factor: float = 1.0) -> Nothing:
            self.part = part
            return self

        def tile(self, scores_NT: torch.Tensor, first: int) -> None:
            pass

        def result(self) -> torch.Tensor:
            return torch.zeros(self.part.stop - self.part.start)

    (got,) = read_tiles(project, positions, vocab_size, [Nothing()])
    assert len(got) == positions
    assert seen == positions * vocab_size
    assert largest <= 1 << 20


def test_whole_rows_are_held_for_few_positions_at_a_time() -> None:
    """A nucleus over 50,257 words: no tile of more positions than the device wants, and the tokens are the same."""
    words, asked = 50_257, 200
    generator = torch.Generator().manual_seed(0)
    scores_NV = 3 * torch.randn(asked, words, generator=generator)
    seen: list[int] = []

    def project(part: slice, first: int, last: int) -> torch.Tensor:
        seen.append(part.stop - part.start)
        return scores_NV[part, first:last]

    draw = NucleusDraw(torch.arange(asked) * 7919, 1.0, 0, 0.9)
    (token_N,) = read_tiles(project, asked, words, [Without(draw, (3,), torch.ones(asked, dtype=torch.bool))])
    assert max(seen) == rows_held_whole(words, gpu=False) < asked
    (at_once_N,) = read_tiles(
        project, asked, words, [Without(draw, (3,), torch.ones(asked, dtype=torch.bool))], rows_a_tile=asked
    )
    assert token_N.equal(at_once_N)
