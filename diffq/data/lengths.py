"""Length models: how long a target is made when nobody knows how long it should be (Buzzard 2025, length_model.py).

Lengths are in tokens, those of a source without its two special tokens. (The published fit measured characters of the
decoded text, which its own sampler then took for tokens.) Knows no texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from diffq.errors import UserError
from diffq.rng import Rng, Stream, integers, normal

PUBLISHED_MINIMUM = 5
"""The shortest target that the published code makes: write `normal_min5`. Ours is 1, since answers may be short."""

ALLOWED = "oracle, normal, uniform_LO_HI (such as uniform_-2_4) or fixed_N (such as fixed_16), each also with _minN"
_SPEC = re.compile(r"(?:(oracle|normal)|(uniform)_(-?\d+)_(-?\d+)|(fixed)_(\d+))(?:_min(\d+))?", re.ASCII)


@dataclass(frozen=True)
class LengthFit:
    """Mean and standard deviation of (target length − source length) over the training pairs, in tokens."""

    mean: float
    sigma: float

    def as_mapping(self) -> dict[str, float]:
        return {"mean": self.mean, "sigma": self.sigma}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LengthFit:
        """Reads what a checkpoint holds; raises UserError for anything else."""
        try:
            return cls(mean=float(values["mean"]), sigma=float(values["sigma"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"a length fit holds the numbers mean and sigma, not {values!r}") from error


def fit(source_lengths: Sequence[int], target_lengths: Sequence[int]) -> LengthFit:
    """The fit to pairs of lengths; sigma divides by their number. Raises UserError where there are none."""
    if len(source_lengths) == 0:
        raise UserError("there are no training pairs to fit target lengths to")
    difference = torch.as_tensor(target_lengths, dtype=torch.float64) - torch.as_tensor(source_lengths)
    return LengthFit(mean=float(difference.mean()), sigma=float(difference.std(correction=0)))


@dataclass(frozen=True)
class LengthModel:
    """One way of choosing target lengths.

    oracle   the reference's own length
    normal   source length + N(mean, sigma), rounded; mean and sigma fitted on the training pairs
    uniform  source length + a whole number in low..high
    fixed    `low`, whatever the source
    """

    kind: Literal["oracle", "normal", "uniform", "fixed"]
    low: int = 0
    high: int = 0
    minimum: int = 1

    @classmethod
    def parse(cls, spec: str) -> LengthModel:
        """The model that a spec such as `uniform_-2_4` names. Raises UserError for any other text."""
        found = _SPEC.fullmatch(str(spec))
        if found is None:
            raise UserError(f"length={spec} is no length model; allowed: {ALLOWED}")
        plain, uniform, low, high, fixed, size, minimum = found.groups()
        named: Literal["oracle", "normal"] = "normal" if plain == "normal" else "oracle"
        least = int(minimum) if minimum else 1
        if uniform and int(low) > int(high):
            raise UserError(f"length={spec}: {low} is above {high}; write uniform_LO_HI with LO ≤ HI")
        if least < 1 or (fixed and int(size) < least):
            raise UserError(f"length={spec}: a target has at least {max(least, 1)} tokens; allowed: {ALLOWED}")
        if uniform:
            return cls("uniform", int(low), int(high), least)
        return cls("fixed", int(size), int(size), least) if fixed else cls(named, minimum=least)

    def __str__(self) -> str:
        name = {"uniform": f"uniform_{self.low}_{self.high}", "fixed": f"fixed_{self.low}"}.get(self.kind, self.kind)
        return name + (f"_min{self.minimum}" if self.minimum > 1 else "")

    @property
    def note(self) -> str:
        """What a reader of a table must know about it, or nothing."""
        return "true target lengths were given (oracle), which flatters BLEU" if self.kind == "oracle" else ""

    @property
    def needs_fit(self) -> bool:
        return self.kind == "normal"

    def draw(
        self,
        rng: Rng,
        row_ids: Sequence[int],
        source_lengths: Sequence[int],
        target_lengths: Sequence[int],
        maximum: int,
        fitted: LengthFit | None = None,
    ) -> list[int]:
        """A length for each row, from `minimum` (or `maximum`, if that is less) to `maximum`.

        row_ids key the draws (contracts.row_id), so a row's length does not depend on the other rows.
        Raises UserError where `normal` has no fit.
        """
        row_N = torch.as_tensor(row_ids, dtype=torch.long)
        source_N = torch.as_tensor(source_lengths, dtype=torch.long)
        key_N = rng.key(Stream.LENGTH, row_N)
        if self.kind == "oracle":
            length_N = torch.as_tensor(target_lengths, dtype=torch.long)
        elif self.kind == "fixed":
            length_N = torch.full_like(row_N, self.low)
        elif self.kind == "uniform":
            length_N = source_N + integers(key_N, self.low, self.high)
        elif fitted is None:
            raise UserError(
                "length=normal needs a fit to training pairs, which this checkpoint does not hold;"
                " use length=oracle, uniform_LO_HI or fixed_N"
            )
        else:
            length_N = (source_N + fitted.mean + fitted.sigma * normal(key_N).double()).round().long()
        return length_N.clamp(min(self.minimum, maximum), maximum).tolist()

    def probability(self, length: int, source_length: int, maximum: int, fitted: LengthFit | None = None) -> float:
        """The probability of drawing `length` for a source, exactly; for `oracle` there is none (ValueError)."""
        if self.kind == "oracle" or (self.kind == "normal" and fitted is None):
            raise ValueError(
                f"{self} has no distribution without {'a fit' if self.kind == 'normal' else 'a reference'}"
            )
        least = min(self.minimum, maximum)
        if not least <= length <= maximum:
            return 0.0
        low = -math.inf if length == least else length
        high = math.inf if length == maximum else length
        if fitted is None or self.kind != "normal":
            shift = 0 if self.kind == "fixed" else source_length
            return sum(low <= d + shift <= high for d in range(self.low, self.high + 1)) / (self.high - self.low + 1)
        centre = source_length + fitted.mean
        return _below(high + 0.5 - centre, fitted.sigma) - _below(low - 0.5 - centre, fitted.sigma)


def _below(distance: float, sigma: float) -> float:
    if sigma == 0 or math.isinf(distance):
        return float(distance > 0)
    return 0.5 * math.erfc(-distance / sigma / math.sqrt(2))
