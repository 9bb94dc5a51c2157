"""Numbers that flags say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TypeVar

from diffq.errors import UserError

T = TypeVar("T")


def whole_number(flags: argparse.Namespace, name: str, otherwise: T, least: int = 1) -> int | T:
    """What the last `--name` says, or `otherwise` where there is none.

    UserError where that is no whole number, or less than `least`.
    """
    said: Sequence[str] = getattr(flags, name, ())
    if not said:
        return otherwise
    if not said[-1].isdecimal() or int(said[-1]) < least:
        raise UserError(f"--{name.replace('_', '-')} {said[-1]} must be a whole number, {least} or more")
    return int(said[-1])
