"""Pairs whose sources have several right targets, in columns beside each other or in rows of their own: detoxified
sentences, excuses for a duty.

Training has each (source, target) as an example of its own, since a training example has one reference; validation and
test have each source once, with all its targets as references. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.data.files import Pair, Place, filled_text, hub_rows, locate_kept, read_rows, split_file
from diffq.data.pairs import PairsCorpus
from diffq.data.task import PairSettings, Split
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.settings import setting


class ReferencesCorpus(PairsCorpus):
    """The pairs of a file, a folder or the hub. A split of which there are no rows of its own is the part of the
    training rows whose sources' hash falls to it; rows of one source fall to the same split."""

    settings: References

    def _locate(self) -> Place:
        s = self.settings
        return locate_kept(s.name, s.kept, s.path, s.hub, s.hub_config)

    def _read(self, name: Split) -> list[Pair]:
        own = self._own(name)
        held = list(self._pairs(name if own else "train"))
        if not own or name == "train":
            held = [pair for pair in held if self._falls_to(pair[0]) == name]
        if not held:
            raise UserError(f"{self.place} has no pair that falls to the split '{name}'")
        if name == "train":
            return [(source, (target,)) for source, targets in held for target in targets]
        gathered: dict[str, dict[str, None]] = {}
        for source, targets in held:
            gathered.setdefault(source, {}).update(dict.fromkeys(targets))
        return [(source, tuple(targets)) for source, targets in gathered.items()]

    def _falls_to(self, source: str) -> Split:
        """Of splits that have rows of their own nothing falls to another."""
        split = super()._falls_to(source)
        return "train" if split != "train" and self._own(split) else split

    def _own(self, name: Split) -> bool:
        """Whether there are rows of a split, beside those that the training rows are."""
        if self.place.path is None:
            return name in self.settings.hub_splits
        return not self.place.is_file and self._file(name) is not None

    def _file(self, name: Split) -> Path | None:
        folder = self.place.path
        assert folder is not None
        for word in self.settings.files:
            split, _, named = word.partition("=")
            if split == name and (folder / named).is_file():
                return folder / named
        try:
            return split_file(folder, name)
        except UserError:
            if name == "train":
                raise
            return None

    def _pairs(self, name: Split) -> Iterator[Pair]:
        """Each row's source and its targets, in their order; rows without a target, and of another kind, are left
        out."""
        s, place = self.settings, self.place
        only = [word.partition("=")[::2] for word in s.only]
        if place.path is None:
            where, rows = f"{place}, {name}", hub_rows(s.name, place, name, s.path)
        else:
            file = place.path if place.is_file else self._file(name)
            assert file is not None
            where, rows = str(file), read_rows(file, ragged=True)
        for number, row in rows:
            here = f"{where}, row {number}"
            if all(str(_cell(row, column, here)) == wanted for column, wanted in only):
                first, *more = s.targets
                cells = [_cell(row, first, here), *(_cell(row, column) for column in more)]
                targets = tuple(dict.fromkeys(c.strip() for c in cells if isinstance(c, str) and c.strip()))
                if targets:
                    yield filled_text(_cell(row, s.source, here), s.source, here), targets


def _cell(row: Any, column: str, where: str = "") -> Any:
    """What a row holds in the first of the columns `a|b` that it has; None for none, or UserError with the place."""
    if isinstance(row, Mapping):
        for name in column.split("|"):
            if name in row:
                return row[name]
    if not where:
        return None
    has = ", ".join(map(str, row)) if isinstance(row, Mapping) else "none"
    raise UserError(f"{where}: there is no column '{column.replace('|', ' or ')}'; the columns are: {has}")


@DATASETS.register("references")
@dataclass(frozen=True, kw_only=True)
class References(PairSettings):
    """Pairs whose sources have several right targets: looked for in `path`, then $DIFFQ_DATA/KEPT, then on the hub."""

    path: str | None = setting(
        None, "a folder with train and perhaps valid and test files, or one file that is split by hash", in_key=False
    )
    kept: str = setting(help="the file or folder below $DIFFQ_DATA in which it is looked for", in_key=False)
    hub: str | None = setting(None, "a Hugging Face `datasets` name, used where no file is found", in_key=False)
    hub_config: str | None = setting(None, "the hub data set's configuration, if it has several", in_key=False)
    hub_splits: tuple[str, ...] = setting(
        ("train",), "splits that the hub has; the others are parts of its train", in_key=False
    )
    files: tuple[str, ...] = setting((), "split files by other names, such as train=duties_train.csv", in_key=False)
    source: str = setting("source", "the column of the source; a|b is the first of several names")
    targets: tuple[str, ...] = setting(("target",), "columns of targets; the first must be there")
    only: tuple[str, ...] = setting((), "rows that count: what columns must hold, such as label=1")
    valid_fraction: float = setting(
        0.05, "share of the sources that validation has where it has no file", low=0, high=0.5
    )
    test_fraction: float = setting(0.05, "share of the sources that the test has where it has no file", low=0, high=0.4)

    def check(self) -> None:
        if not self.targets or self.source in self.targets:
            raise UserError("dataset.targets must name columns, and others than dataset.source")
        for name in ("files", "only"):
            if odd := [word for word in getattr(self, name) if not all(word.partition("="))]:
                raise UserError(f"dataset.{name} holds words such as name=value, and not '{odd[0]}'")

    def open(self) -> ReferencesCorpus:
        return ReferencesCorpus(self)
