"""Keyed randomness: values that stored samples depend on, and the laws of every kind of draw.

False-alarm rates: draws are fixed by their keys, so a test passes always or never; the bounds are those that right
draws from fresh keys would break less than once in 1e8.
"""

from __future__ import annotations

import math

import pytest
import torch

import diffq.rng as rng_module
from diffq.rng import (
    Rng,
    Stream,
    _inverse_normal,
    _log,
    bits,
    exponential,
    integers,
    normal,
    training_normals,
    uniform,
)

N = 1 << 18
NAMES = ("seed", "stream", "row", "visit", "position", "lane")


def key_of(seed, stream, row, visit, position):
    return Rng(seed).key(stream, torch.tensor(row), visit, position)


@pytest.mark.parametrize(
    ("key", "lane", "expected"),
    [
        ((0, 1, 0, 0, 0), 0, 7020285415892639360),
        ((0, 5, 0, 0, 0), 0, -7965441632548975890),
        ((0, 5, 0, 0, 0), 127, 5122427720396204671),
        ((1, 6, 8589934609, 3, 12), 1099511627776, -544488887417115056),
        ((-1, 8, 5, 0, 39), 30521, -8522344574287784413),
        ((1099511627776, 10, 7, 0, 0), 0, -1045532662731621356),
    ],
)
def test_stored_samples_depend_on_these_bits(key, lane, expected):
    assert int(bits(key_of(*key), lane)) == expected


def slow_mix(x):
    word = (1 << 64) - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
    return x ^ (x >> 31)


@pytest.mark.parametrize("key", [(0, 1, 0, 0, 0), (-5, 11, 2**40 + 3, 7, 511), (2**62, 32, -1, 2**33, 1)])
def test_the_hash_is_splitmix64_folded_over_the_words_of_a_key(key):
    golden, word = 0x9E3779B97F4A7C15, (1 << 64) - 1
    seed, stream, row, visit, position = key
    k = slow_mix(slow_mix((seed + golden) & word) ^ stream)
    k = slow_mix((row * golden + k) & word)
    for part in (visit, position):
        k = slow_mix(((k ^ (part & word)) + golden) & word)
    expected = slow_mix((k + 9 * golden) & word)
    assert int(bits(key_of(*key), 9)) % (1 << 64) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_word_of_a_key_counts(name):
    """Any change of any word changes about half of the 64 bits, and no two keys of a grid collide."""
    base = dict(zip(NAMES, (3, 5, 8, 1, 4, 2), strict=True))

    def draw(**changed):
        words = base | changed
        return int(bits(key_of(*(words[n] for n in NAMES[:-1])), words["lane"])) % (1 << 64)

    values = {draw(**{name: i}) for i in range(1, 33)}
    assert len(values) == 32
    flipped = [bin(draw() ^ draw(**{name: base[name] ^ (1 << bit)})).count("1") for bit in range(5)]
    assert all(9 <= f <= 55 for f in flipped)  # binomial(64, ½): outside 9 … 55 below 1e-9


def test_words_do_not_stand_for_each_other():
    """Equal sums or swapped words are other keys."""
    grid = torch.arange(16)
    keys = torch.stack(
        [Rng(s).key(t, grid[:, None, None], grid[None, :, None], grid) for s in (0, 1, 2) for t in (1, 2, 3)]
    )
    draws = torch.cat([bits(keys, lane).flatten() for lane in (0, 1, 1 << 40)])
    assert len(draws.unique()) == draws.numel()


def test_a_draw_does_not_depend_on_what_is_drawn_beside_it():
    rows, columns = torch.tensor([5, 9, 2]), torch.arange(7)
    together = uniform(Rng(1).key(Stream.TOKEN, rows[:, None], 3, columns)[..., None], torch.arange(4))
    for b, row in enumerate(rows.tolist()):
        for column in range(7):
            for lane in range(4):
                assert uniform(key_of(1, Stream.TOKEN, row, 3, column), lane) == together[b, column, lane]


def test_streams_have_numbers_of_their_own():
    assert len({int(s) for s in Stream}) == len(list(Stream)) == 22


def samples(n=N, seed=0):
    return Rng(seed).key(Stream.TOKEN, torch.arange(n))


def chi_square_bound(cells):
    """What chi-square with cells − 1 degrees of freedom exceeds with probability below 1e-9 (Laurent–Massart)."""
    k, x = cells - 1, 9 * math.log(10)
    return k + 2 * math.sqrt(k * x) + 2 * x


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("word", ["row", "visit", "position", "lane"])
def test_uniforms_are_uniform_along_every_word(word):
    i = torch.arange(N)
    u = {
        "row": lambda: uniform(Rng(0).key(Stream.TIME, i)),
        "visit": lambda: uniform(Rng(0).key(Stream.TIME, torch.tensor(3), i)),
        "position": lambda: uniform(Rng(0).key(Stream.TIME, torch.tensor(3), 1, i)),
        "lane": lambda: uniform(Rng(0).key(Stream.TIME, torch.tensor(3), 1, 7), i),
    }[word]()
    assert u.dtype == torch.float64
    assert 0 < u.min() < 1e-4
    assert 1 > u.max() > 1 - 1e-4
    counts = torch.bincount((u * 256).long(), minlength=256).double()
    assert chi_square(counts, N / 256) < chi_square_bound(256)


def test_neighbours_are_independent():
    """Pairs of neighbouring rows, positions, visits and lanes, over 32 × 32 cells."""
    i = torch.arange(N)
    rng = Rng(7)
    base = uniform(rng.key(Stream.TOKEN, i, 0, 0))
    others = [
        uniform(rng.key(Stream.TOKEN, i + 1, 0, 0)),
        uniform(rng.key(Stream.TOKEN, i, 1, 0)),
        uniform(rng.key(Stream.TOKEN, i, 0, 1)),
        uniform(rng.key(Stream.TOKEN, i, 0, 0), 1),
        uniform(rng.key(Stream.TIME, i, 0, 0)),
        uniform(Rng(8).key(Stream.TOKEN, i, 0, 0)),
    ]
    for other in others:
        cell = (base * 32).long() * 32 + (other * 32).long()
        assert chi_square(torch.bincount(cell, minlength=1024).double(), N / 1024) < chi_square_bound(1024)


def test_each_of_the_53_bits_is_fair():
    word = (uniform(samples()) * 2.0**53).long()
    for bit in range(1, 53):  # the lowest is the half that keeps a uniform off 0 and 1
        ones = int(((word >> bit) & 1).sum())
        assert abs(ones - N / 2) < 6.5 * math.sqrt(N) / 2  # 53 normal tails beyond 6.5 σ: below 1e-8


def test_the_ends_of_the_uniform_are_open(monkeypatch):
    ends = torch.tensor([0, -1])
    monkeypatch.setattr(rng_module, "bits", lambda key, lane=0: ends)
    assert uniform(ends).tolist() == [2.0**-54, 1 - 2.0**-53]
    e = exponential(ends)
    assert 37 < e[0] < 37.5
    assert 1.1e-16 < e[1] < 1.2e-16
    assert normal(ends).abs().min() > 8
    assert integers(ends, 0, 9).tolist() == [0, 9]


def test_exponentials_have_their_law():
    e = exponential(samples(seed=2))
    assert torch.equal(e, -uniform(samples(seed=2)).log())
    edges = -torch.log1p(-torch.arange(1, 256, dtype=torch.float64) / 256)
    counts = torch.bincount(torch.bucketize(e, edges), minlength=256).double()
    assert chi_square(counts, N / 256) < chi_square_bound(256)


def test_the_normal_quantile_is_right_to_the_last_bits():
    u = torch.cat(
        [
            torch.linspace(1e-6, 1 - 1e-6, 20001, dtype=torch.float64),
            torch.logspace(-16, -1, 4001, dtype=torch.float64),
            1 - torch.logspace(-15, -1, 4001, dtype=torch.float64),
            torch.tensor([0.5, 0.075, 0.925, 0.5 * 2.0**-53, 1 - 2.0**-53], dtype=torch.float64),
        ]
    )
    expected = torch.special.ndtri(u)
    assert ((_inverse_normal(u) - expected).abs() / expected.abs().clamp(min=1)).max() < 1e-12
    assert ((_log(u) - u.log()).abs() / u.log().abs().clamp(min=1e-3)).max() < 1e-14


def test_normals_have_their_law():
    z = normal(samples(seed=3))
    assert z.dtype == torch.float32
    edges = torch.special.ndtri(torch.arange(1, 256, dtype=torch.float64) / 256)
    counts = torch.bincount(torch.bucketize(z.double(), edges), minlength=256).double()
    assert chi_square(counts, N / 256) < chi_square_bound(256)


def test_training_normals_are_normal_and_their_pairs_independent():
    z = training_normals(samples(1 << 15, seed=4), 8)
    assert z.shape == (1 << 15, 8)
    assert z.dtype == torch.float32
    assert torch.isfinite(z).all()
    edges = torch.special.ndtri(torch.arange(1, 256, dtype=torch.float64) / 256)
    counts = torch.bincount(torch.bucketize(z.double().flatten(), edges), minlength=256).double()
    assert chi_square(counts, z.numel() / 256) < chi_square_bound(256)
    n, x = len(z), z.double()
    for power, mean in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = math.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[power] / z.numel())
        assert abs(float(x.pow(power).mean()) - mean) < 6.5 * spread
    correlation = (x.T @ x / n - torch.eye(8)) * math.sqrt(n)
    assert (correlation.abs() - torch.eye(8) * 3).max() < 6.5  # the diagonal's spread is √2
    squares = x.square() - 1
    assert (((squares.T @ squares / n).fill_diagonal_(0)) * math.sqrt(n) / 2).abs().max() < 6.5


def test_integers_cover_their_range_evenly():
    drawn = integers(samples(seed=5), -3, 6)
    counts = torch.bincount(drawn + 3, minlength=10).double()
    assert len(counts) == 10
    assert chi_square(counts, N / 10) < chi_square_bound(10)
    assert set(integers(samples(100), 4, 4).tolist()) == {4}
