"""What is given of a running text, as a report names it. Knows no tokens and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Given:
    """What is given of a canvas of `block` tokens: so many at its beginning, at its end, and of others."""

    block: int
    prefix: int = 0
    suffix: int = 0
    others: int = 0

    @classmethod
    def of(cls, dataset: Mapping[str, Any]) -> Given | None:
        """What the settings of a data set say, as plain data; None for one that is no running text."""
        if "block" not in dataset or not dataset.keys() & {"prefix", "suffix", "keep"}:  # forms have a block, too
            return None
        block, prefix, suffix = (int(dataset.get(name) or 0) for name in ("block", "prefix", "suffix"))
        others = {int(i) for i in dataset.get("keep") or () if prefix <= int(i) < block - suffix}
        return cls(block, prefix, suffix, len(others))

    @property
    def order(self) -> tuple[bool, int, int]:
        """Prompts by their length, then infilling."""
        return (bool(self.suffix or self.others), self.prefix + self.suffix + self.others, self.block)

    def __str__(self) -> str:
        """`25 + 25 of 100`."""
        ends = [self.prefix, *([self.suffix] if self.suffix or self.others else [])]
        more = [f"{self.others} between"] if self.others else []
        return f"{' + '.join([*map(str, ends), *more])} of {self.block}"
