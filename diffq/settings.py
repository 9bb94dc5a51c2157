"""Typed settings: frozen dataclasses whose fields say what they are for, checked when they are made.

A component's configuration stands beside its owner as a `Settings` subclass; YAML becomes one through `typed`. Below
that line there is no dictionary and no string that is looked up.
This file does not know Hydra, and no component.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal, TypeVar, Union

from diffq.errors import UserError, did_you_mean

S = TypeVar("S", bound="Settings")


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    in_key: bool = True,
    since: str | None = None,
) -> Any:
    """A dataclass field with its help text and range.

    low, high: the smallest and largest value allowed; above: a bound that is itself not allowed.
    in_key=False marks a field that does not determine the samples: it is left out of a point's key.
    since: the version that a field of an older component came with: at its default it is left out of keys.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "in_key": in_key, "since": since}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The base of everything that YAML configures. `kind` is the name it is registered under, if it is."""

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_range(field, getattr(self, field.name), f"{self.kind or type(self).__name__}: {field.name}")
        self.check()

    def check(self) -> None:
        """What ranges cannot say: raises UserError in one sentence."""

    def replace(self: S, **changes: Any) -> S:
        return dataclasses.replace(self, **changes)


def _check_range(field: dataclasses.Field, value: Any, where: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    low, high, above = (field.metadata.get(k) for k in ("low", "high", "above"))
    if math.isnan(value) or (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    ):
        raise UserError(f"{where}={value} is out of range; allowed: {describe_range(field)}")


def describe_range(field: dataclasses.Field) -> str:
    """`≥ 1`, `0 … 1`, `> 0`, or the empty string."""
    low, high, above = (field.metadata.get(k) for k in ("low", "high", "above"))
    if above is not None:
        return f"> {above:g}" + (f" and ≤ {high:g}" if high is not None else "")
    if low is not None and high is not None:
        return f"{low:g} … {high:g}"
    if low is not None:
        return f"≥ {low:g}"
    return f"≤ {high:g}" if high is not None else ""


def as_mapping(value: Any) -> Any:
    """Plain data of settings, nested settings and tuples: what YAML or JSON can hold. Fields stay in their order."""
    if isinstance(value, Settings):
        head = {"kind": value.kind} if value.kind else {}
        return head | {f.name: as_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): as_mapping(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_mapping(v) for v in value]
    return value


def key_fields(value: Any) -> Any:
    """Like `as_mapping`, for a key: fields that do not determine samples are left out, and so is every field at its
    default that was added after the first release (metadata `since`); 2.0 and 2 become one."""
    if isinstance(value, Settings):
        out: dict[str, Any] = {"kind": value.kind} if value.kind else {}
        for f in dataclasses.fields(value):
            held = getattr(value, f.name)
            if f.metadata.get("in_key", True) and not (f.metadata.get("since") and held == f.default):
                out[f.name] = key_fields(held)
        return out
    if isinstance(value, Mapping):
        return {str(k): key_fields(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [key_fields(v) for v in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def typed(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    """The settings that a mapping describes.

    where: how a user would write the place, `sampler` or `model.encoder`; it stands in every message.
    Raises UserError for an unknown key, a missing one, and a value of another type: an int is taken for a float,
    nothing else is converted ("1.5" is no number, 1 is no truth value).
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            owner = cls.kind or cls.__name__
            allowed = ", ".join(fields) or "nothing"
            raise UserError(f"{where} '{owner}' has no setting '{key}'{did_you_mean(key, fields)}; it has: {allowed}")
    made = {}
    for name, field in fields.items():
        if name in values:
            made[name] = _convert(hints[name], values[name], f"{where}.{name}")
            _check_range(field, made[name], f"{where}.{name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where}.{name} must be given ({type_name(hints[name])})")
    return cls(**made)


def type_name(hint: Any) -> str:
    """How a type is written for a person: `a whole number`, `a number or null`, `one of a, b`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join("null" if a is None else str(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin is tuple:
        member = type_name(arguments[0])
        return "list of " + (f"{member[2:]}s" if member.startswith("a ") else member)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "mapping"
    if hint is type(None):
        return "null"
    names = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        near = did_you_mean(str(value), [str(a) for a in arguments])
        raise UserError(f"{where}={value} is not allowed{near}; it is {type_name(hint)}")
    if origin in (Union, types.UnionType):
        return _convert_union(hint, arguments, value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{where}={value!r} must be a {type_name(hint)}")
        return tuple(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r} must be a mapping")
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, Settings):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r} must be a mapping")
        return typed(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    shown = "null" if value is None else repr(value)
    raise UserError(f"{where}={shown} must be {type_name(hint)}")


def _convert_union(hint: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    problem = UserError(f"{where}={value!r} must be {type_name(hint)}")
    choices = [a for a in arguments if a is not type(None)]
    for choice in sorted(choices, key=lambda a: not (isinstance(a, type) and type(value) is a)):
        try:
            return _convert(choice, value, where)
        except UserError as error:
            if len(choices) == 1:
                raise
            problem = UserError(f"{where}={value!r} must be {type_name(hint)}")
            problem.__cause__ = error
    raise problem
