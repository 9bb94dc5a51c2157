"""Where a dataset's files are, and reading them: jsonl, json, csv, tsv and parquet, each also with `.gz`.

A missing or malformed file is reported with its place: which file, which row (from 1), what was expected. Knows pairs
of text and nothing of tokens.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffq import hub
from diffq.data.task import Split
from diffq.errors import UserError

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}

Pair = tuple[str, tuple[str, ...]]
"""A source and its references."""


@dataclass(frozen=True)
class Place:
    """Where a dataset was found: a folder, a single file, or a hub data set.

    kept: of a hub data set, where below $DIFFQ_DATA it was looked for
    """

    path: Path | None = None
    hub: str | None = None
    hub_config: str | None = None
    kept: str = ""

    @property
    def is_file(self) -> bool:
        return self.path is not None and self.path.is_file()

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return f"hub:{self.hub}" + (f"/{self.hub_config}" if self.hub_config else "")


def given_or_kept(path: str | None, kept: str | None) -> Path | None:
    """The file or folder at `path`, else that at $DIFFQ_DATA/kept where there is one. UserError for a path at which
    there is nothing."""
    if path is not None:
        given = Path(path).expanduser()
        if not given.exists():
            raise UserError(f"dataset.path={path} does not exist")
        return given
    data = os.environ.get("DIFFQ_DATA")
    return Path(data) / kept if data and kept and (Path(data) / kept).exists() else None


def locate_kept(name: str, kept: str, path: str | None, hub: str | None, hub_config: str | None) -> Place:
    """As `locate`, with a file or folder $DIFFQ_DATA/kept; a `path` at which there is nothing is refused."""
    found = given_or_kept(path, kept)
    if found is None and hub is None:
        raise UserError(_nowhere(name, path, hub, "is not named", kept))
    return Place(path=found) if found is not None else Place(hub=hub, hub_config=hub_config, kept=kept)


def locate(name: str, path: str | None, hub: str | None, hub_config: str | None) -> Place:
    """The first place that exists: `path`, then $DIFFQ_DATA/name, then the hub data set. All splits come from there.

    Nothing is opened. Raises UserError with all three places where none of them can be.
    """
    if path is not None and Path(path).expanduser().exists():
        return Place(path=Path(path).expanduser())
    data = os.environ.get("DIFFQ_DATA")
    if data and (Path(data) / name).is_dir():
        return Place(path=Path(data) / name)
    if hub is not None:
        return Place(hub=hub, hub_config=hub_config, kept=name)
    raise UserError(_nowhere(name, path, hub, "is not named"))


def _nowhere(name: str, path: str | None, hub: str | None, hub_trouble: str, kept: str | None = None) -> str:
    given = "dataset.path (not given)" if path is None else f"dataset.path={path} (does not exist)"
    data, place = os.environ.get("DIFFQ_DATA"), kept or name
    what = "no such folder" if kept in (None, name) else "nothing is there"
    below = f"{Path(data) / place} ({what})" if data else f"$DIFFQ_DATA/{place} (DIFFQ_DATA is not set)"
    named = f"the hub data set dataset.hub={hub or 'null'} ({hub_trouble})"
    return f"no files of dataset '{name}': looked in {given}, {below} and {named}; give dataset.path=FOLDER"


def split_file(folder: Path, split: Split) -> Path:
    """The file of a split, such as train.jsonl or valid.csv.gz. Raises UserError for none and for two."""
    names = [f"{stem}.{ending}{gz}" for stem in _NAMES[split] for ending in FORMATS for gz in ("", ".gz")]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"{folder} has no file of the split '{split}'; expected {split}.jsonl, .json, .csv, .tsv or .parquet,"
            " or one of these with .gz"
        )
    if len(found) > 1:
        raise UserError(f"{folder} has both {found[0].name} and {found[1].name} for the split '{split}'; keep one")
    return found[0]


def read_pairs(file: Path, source: str, target: str) -> list[Pair]:
    """The pairs of a file in its order. A target may be a list of texts: several references.

    source, target: the columns' names. Raises UserError for a file without rows and for the first row that is wrong.
    """
    pairs = [_pair(values, source, target, f"{file}, row {row}") for row, values in read_rows(file)]
    if not pairs:
        raise UserError(f"{file} has no rows; expected at least one with the columns '{source}' and '{target}'")
    return pairs


def read_hub(name: str, place: Place, split: Split, path: str | None, source: str, target: str) -> list[Pair]:
    """The pairs of a split of a hub data set, through the package `datasets`."""
    rows = hub_rows(name, place, split, path)
    pairs = [_pair(values, source, target, f"{place}, {split}, row {row}") for row, values in rows]
    if not pairs:
        raise UserError(f"{place} has no rows in its split '{split}'")
    return pairs


def hub_rows(name: str, place: Place, split: Split, path: str | None) -> Iterator[tuple[int, Any]]:
    """Each row of a split of a hub data set, with its number from 1. UserError where it cannot be had."""
    try:
        rows: Iterable[Any] = hub.load(str(place.hub), place.hub_config, hub.split_of(split))
    except Exception as error:
        raise UserError(_nowhere(name, path, place.hub, hub.why(error), place.kept)) from error
    return enumerate(rows, 1)


def _pair(values: Any, source: str, target: str, where: str) -> Pair:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected an object with '{source}' and '{target}', found {_shown(values)}")
    for column in (source, target):
        if column not in values:
            has = ", ".join(map(str, values)) or "none"
            raise UserError(
                f"{where}: there is no column '{column}'; the columns are: {has}"
                " (name yours with dataset.source and dataset.target)"
            )
    references = values[target] if isinstance(values[target], list) and values[target] else [values[target]]
    texts = [filled_text(values[source], source, where), *(filled_text(value, target, where) for value in references)]
    return texts[0], tuple(texts[1:])


def filled_text(value: Any, column: str, where: str) -> str:
    """The text of a cell, without space around it. UserError where it is none, or empty."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: expected a text that is not empty in column '{column}', found {_shown(value)}")
    return value.strip()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def read_rows(file: Path, ragged: bool = False) -> Iterator[tuple[int, Any]]:
    """Each row's number, from 1 (for jsonl its line, for csv and tsv without the header), and what it holds.

    ragged: a row of csv or tsv may lack its last cells, which are then empty.
    Raises UserError where the file is missing, of an unknown format, or cannot be read to its end.
    """
    name = file.name[:-3] if file.name.endswith(".gz") else file.name
    ending = name.rpartition(".")[2].lower()
    if ending not in FORMATS:
        raise UserError(f"{file}: unknown format '.{ending}'; known: {', '.join(FORMATS)}, each also with .gz")
    if not file.is_file():
        raise UserError(f"{file} does not exist")
    table = partial(_table, ragged=ragged)
    readers: dict[str, Callable[[Path, str], Iterator[tuple[int, Any]]]] = {
        "jsonl": _jsonl, "json": _json, "csv": table, "tsv": table, "parquet": _parquet
    }  # fmt: skip
    row = 0
    try:
        for row, values in readers[ending](file, ending):
            yield row, values
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: after row {row} there are bytes that are not UTF-8") from error
    except (EOFError, OSError) as error:
        raise UserError(f"{file}: broken off after row {row} ({error}); expected a whole file") from error


def _open(file: Path) -> io.TextIOBase:
    if file.name.endswith(".gz"):
        return io.TextIOWrapper(gzip.open(file, "rb"), encoding="utf-8-sig", newline="")
    return open(file, encoding="utf-8-sig", newline="")


def read_text(file: Path) -> str:
    """All of a text file. UserError where it is not UTF-8 or cannot be read to its end."""
    try:
        with _open(file) as opened:
            return opened.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: there are bytes that are not UTF-8 (at byte {error.start})") from error
    except (EOFError, OSError) as error:
        raise UserError(f"{file}: broken off ({error}); expected a whole file") from error


def _jsonl(file: Path, ending: str) -> Iterator[tuple[int, Any]]:
    with _open(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{file}, row {number}: expected one JSON object a line, found {_shown(line.rstrip())} ({error})"
                ) from error


def _json(file: Path, ending: str) -> Iterator[tuple[int, Any]]:
    with _open(file) as text:
        try:
            values = json.loads(text.read())
        except json.JSONDecodeError as error:
            raise UserError(f"{file}: expected a JSON list of objects ({error})") from error
    if not isinstance(values, list):
        raise UserError(f"{file}: expected a JSON list of objects, found {_shown(values)}")
    yield from enumerate(values, 1)


def _table(file: Path, ending: str, ragged: bool = False) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _open(file) as lines:
        reader = csv.reader(lines, delimiter=",") if ending == "csv" else _tabbed(lines)
        header: list[str] | None = None
        row = 0
        try:
            for cells in reader:
                if header is None:
                    header = cells
                elif cells:
                    row += 1
                    if ragged:
                        cells += [""] * (len(header) - len(cells))
                    if len(cells) != len(header):
                        raise UserError(
                            f"{file}, row {row}: expected {len(header)} columns ({', '.join(header)}),"
                            f" found {len(cells)}"
                        )
                    yield row, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise UserError(f"{file}, row {row + 1}: {error}; expected {ending} with a header row") from error


def _tabbed(lines: Iterable[str]) -> Any:
    """Tab-separated values have no quotes: a quotation mark is a character like any other."""
    return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def _parquet(file: Path, ending: str) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{file}: reading parquet needs the package pyarrow (pip install pyarrow)") from error
    data: Any = file
    if file.name.endswith(".gz"):
        with gzip.open(file, "rb") as opened:
            data = io.BytesIO(opened.read())
    try:
        table = pyarrow.parquet.ParquetFile(data)
        row = 0
        for batch in table.iter_batches():
            for values in batch.to_pylist():
                row += 1
                yield row, values
    except pyarrow.ArrowException as error:
        raise UserError(f"{file} is no readable parquet file ({error})") from error
