"""Keyed randomness: every draw is a pure function of (seed, row, stream, visit, position, lane).

Nothing here has a state, so a draw does not depend on what was drawn before it, on the batch it is drawn in, or on the
device: two points of a sweep share the noise of equal keys (common random numbers), and a run that is cut off and
taken up again draws what it would have drawn.

The generator is a counter hash: the words of the key are folded one by one through the finaliser of SplitMix64
(Steele, Lea & Flood 2014), in 64-bit integers that wrap alike on every device. Uniforms take its upper 53 bits.
Normals are computed with additions, multiplications, divisions and square roots alone (each of them rounded correctly
by IEEE 754), so they too have the same bits everywhere; exponentials go through the device's own float64 logarithm.

This file does not know what a token, a canvas or a batch is.

Shape suffixes: N keys, K lanes; keys may have any shape and broadcast against each other.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import torch
from torch import Tensor


class Stream(enum.IntEnum):
    """What a draw is for. Streams are independent; a number is never given twice, since stored samples depend on it."""

    TOKEN = 1
    TIME = 2
    ORDER = 3
    ACCEPT = 4
    INITIAL_NOISE = 5
    CLAMP_COND = 6
    CLAMP_UNCOND = 7
    ROUND = 8
    REMASK = 9
    LENGTH = 10
    CLAMP_GUIDED = 11  # the clamp of what guidance has put together
    BOUND_TIME = 12  # noise levels of a likelihood bound
    BOUND_NOISE = 13  # what is destroyed there
    TRAIN_TIME = 20
    TRAIN_NOISE = 21
    TRAIN_DROP = 22
    TRAIN_ORDER = 23
    NULL_LINE = 30
    BOOTSTRAP = 31
    DATA = 32
    KEYWORD = 33  # which words of a reference are asked for, and where words of a user's are put
    RATING = 40  # what people are asked to rate, and in which order


_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed word
_MUL_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MUL_2 = -7723592293110705685  # 0x94D049BB133111EB
_LOW_53 = (1 << 53) - 1


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical shift, which torch lacks for signed words."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every input bit reaches every output bit."""
    x = (x ^ _shift_right(x, 30)) * _MUL_1
    x = (x ^ _shift_right(x, 27)) * _MUL_2
    return x ^ _shift_right(x, 31)


def _mix_int(x: int) -> int:
    """`_mix` on one Python integer, as a signed word."""
    word = (1 << 64) - 1
    x &= word
    x = ((x ^ (x >> 30)) * (_MUL_1 & word)) & word
    x = ((x ^ (x >> 27)) * (_MUL_2 & word)) & word
    return _signed(x ^ (x >> 31))


def _signed(x: int) -> int:
    """The last 64 bits of an integer as a signed word: numbers go into device code as they are, without a copy."""
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >> 63 else x


@dataclass(frozen=True)
class Rng:
    """The source of every draw under one seed."""

    seed: int

    def key(self, stream: Stream, row: Tensor, visit: Tensor | int = 0, position: Tensor | int = 0) -> Tensor:
        """64-bit keys in the broadcast shape of row, visit and position (integers, any shape)."""
        k = _mix_int(_mix_int(self.seed + _GOLDEN) ^ int(stream))
        key = _mix(row.long() * _GOLDEN + k)
        key = _mix((key ^ visit) + _GOLDEN)
        return _mix((key ^ position) + _GOLDEN)


def bits(key: Tensor, lane: Tensor | int = 0) -> Tensor:
    """64 random bits for each (key, lane), in their broadcast shape."""
    step = lane.long() * _GOLDEN if isinstance(lane, Tensor) else _signed(lane * _GOLDEN)
    return _mix(key + step)


def uniform(key: Tensor, lane: Tensor | int = 0) -> Tensor:
    """Float64 in the open interval (0, 1), from 53 bits: never 0 and never 1, so its logarithm is finite."""
    word = bits(key, lane)
    # The largest word plus a half would round to 2^53.
    return _shift_right(word, 11).to(torch.float64).add_(0.5).mul_(2.0**-53).clamp_(max=1 - 2.0**-53)


def exponential(key: Tensor, lane: Tensor | int = 0) -> Tensor:
    """Float64 standard exponentials, between 1.1e-16 and 37.4."""
    return uniform(key, lane).log_().neg_()


def normal(key: Tensor, lane: Tensor | int = 0) -> Tensor:
    """Float32 standard normals with the same bits on every device (the inverse distribution function of a uniform)."""
    return _inverse_normal(uniform(key, lane)).to(torch.float32)


def integers(key: Tensor, low: int, high: int, lane: Tensor | int = 0) -> Tensor:
    """Integers in low..high, both included; the bias of rounding is below (high - low) / 2^53."""
    span = high - low + 1
    return (uniform(key, lane) * span).long().clamp_(max=span - 1) + low


def _log(x: Tensor) -> Tensor:
    """The natural logarithm from correctly rounded operations alone: log x = e·log 2 + 2·atanh((m-1)/(m+1))."""
    mantissa, exponent = torch.frexp(x)  # x = mantissa · 2^exponent, mantissa in [0.5, 1)
    low = mantissa < 0.7071067811865476
    mantissa = torch.where(low, mantissa * 2, mantissa)
    exponent = torch.where(low, exponent - 1, exponent).to(x.dtype)
    z = (mantissa - 1) / (mantissa + 1)  # |z| <= 0.1716
    w = z * z
    series = torch.full_like(w, 1 / 23)
    for k in (21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1):
        series = series * w + 1 / k
    return exponent * 0.6931471805599453 + 2 * z * series


# Wichura's algorithm AS 241 (1988), relative error 1e-16: numerators and denominators, highest power first.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_MIDDLE = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def _ratio(x: Tensor, polynomials: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    values = []
    for coefficients in polynomials:
        value = torch.full_like(x, coefficients[0])
        for c in coefficients[1:]:
            value = value * x + c
        values.append(value)
    return values[0] / values[1]


def _inverse_normal(u: Tensor) -> Tensor:
    """The standard normal quantile of u in (0, 1), float64."""
    q = u - 0.5
    centre = q * _ratio(0.180625 - q * q, _CENTRE)
    r = torch.sqrt(-_log(torch.minimum(u, 1 - u)))
    outer = torch.where(r <= 5, _ratio(r - 1.6, _MIDDLE), _ratio(r - 5, _TAIL))
    return torch.where(q.abs() <= 0.425, centre, torch.where(q < 0, -outer, outer))


def training_normals(key: Tensor, lanes: int) -> Tensor:
    """Float32 standard normals of shape key.shape + (lanes,), an even number of lanes: the Box–Muller pair of one
    word, about twenty times cheaper than `normal`.

    For the noise of training alone: the device's own logarithm and cosine give its last bits.
    """
    word = bits(key[..., None], torch.arange(lanes // 2, device=key.device))
    radius = _shift_right(word, 32).to(torch.float32).add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = (word & 0xFFFFFFFF).to(torch.float32).mul_(2 * torch.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)
