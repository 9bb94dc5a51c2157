"""What is given of a running text, and what else is asked of a data set, as a report names it. Knows no tokens and no
file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffq.store.identity import show_value


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


# Settings that say where data and words come from, and those that `Given` and the sources tell apart.
_NOT_ASKED = {"path", "kept", "files", "tokenizer", "block", "prefix", "suffix", "keep"}


def asked_of(points: Sequence[tuple[Mapping[str, Any], Collection[str]]]) -> list[dict[str, Any]]:
    """Of each point the settings of its data set in which the points differ, such as keywords.

    points: the settings of a point's data set, and the words that somebody gave of its configuration (`dataset.room`).
    """
    given = dict.fromkeys(word.partition(".")[2] for _, words in points for word in words if word[:8] == "dataset.")
    names = [name for name in given if name not in _NOT_ASKED]
    varying = [name for name in names if len({show_value(dataset.get(name)) for dataset, _ in points}) > 1]
    return [{name: dataset[name] for name in varying if name in dataset} for dataset, _ in points]
