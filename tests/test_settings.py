"""Typed conversion: nothing is coerced, ranges hold, and keys ignore what does not determine samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffq.errors import UserError
from diffq.settings import Settings, as_mapping, describe_range, key_fields, setting, typed


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    depth: int = setting(1, "how deep", low=0)


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    count: int = setting(1, "an int", low=1, high=9)
    rate: float = setting(0.5, "a float", above=0, high=1000)
    flag: bool = setting(False, "a bool")
    text: str = setting("a", "a text")
    maybe: int | None = setting(None, "perhaps")
    mode: Literal["one", "two"] = setting("one", "a choice")
    parts: tuple[int, ...] = setting((), "several")
    inner: Inner = setting(Inner(), "nested")
    device: str = setting("cpu", "not part of a key", in_key=False)


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))


def accepted(**values: object) -> bool:
    try:
        typed(Sample, values, "sample")
    except UserError:
        return False
    return True


@given(PLAIN)
def test_values_are_taken_as_they_are_or_refused(value: object) -> None:
    whole = type(value) is int
    assert accepted(count=value) == (whole and 1 <= value <= 9)  # type: ignore[operator]
    assert accepted(rate=value) == (type(value) in (int, float) and 0 < value <= 1000)  # type: ignore[operator]
    assert accepted(flag=value) == (type(value) is bool)
    assert accepted(text=value) == (type(value) is str)
    assert accepted(maybe=value) == (whole or value is None)
    assert accepted(mode=value) == (value in ("one", "two"))


@given(st.integers(1, 1000))
def test_an_int_is_taken_for_a_float_and_is_the_same_key(n: int) -> None:
    a, b = typed(Sample, {"rate": n}, "sample"), typed(Sample, {"rate": float(n)}, "sample")
    assert type(a.rate) is float
    assert a == b
    assert key_fields(a) == key_fields(b)


@given(st.integers(1, 9), st.floats(0.01, 1000), st.booleans(), st.lists(st.integers(), max_size=3))
def test_mapping_and_back(count: int, rate: float, flag: bool, parts: list[int]) -> None:
    made = Sample(count=count, rate=rate, flag=flag, parts=tuple(parts), inner=Inner(depth=3))
    assert typed(Sample, as_mapping(made), "sample") == made


def test_key_leaves_out_what_does_not_determine_samples() -> None:
    assert "device" not in key_fields(Sample())
    assert key_fields(Sample(device="cuda")) == key_fields(Sample())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"coutn": 1}, ["no setting 'coutn'", "did you mean 'count'?", "count, rate"]),
        ({"count": 10}, ["count=10", "1 … 9"]),
        ({"rate": 0}, ["rate=0", "> 0 and ≤ 1000"]),
        ({"rate": float("nan")}, ["rate=nan"]),
        ({"rate": "1.5"}, ["sample.rate='1.5' must be a number"]),
        ({"mode": "on"}, ["sample.mode=on", "did you mean 'one'?", "one of one, two"]),
        ({"parts": 3}, ["sample.parts=3", "list of whole numbers"]),
        ({"parts": [1, "x"]}, ["sample.parts[1]='x' must be a whole number"]),
        ({"inner": {"depht": 1}}, ["sample.inner 'Inner' has no setting 'depht'", "did you mean 'depth'?"]),
    ],
)
def test_messages_name_value_and_what_is_allowed(values: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        typed(Sample, values, "sample")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ranges_are_described() -> None:
    fields = Sample.__dataclass_fields__
    assert [describe_range(fields[n]) for n in ("count", "rate", "flag")] == ["1 … 9", "> 0 and ≤ 1000", ""]
