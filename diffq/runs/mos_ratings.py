"""Files of ratings as rating pages save them, held against the key of their study, and what they say.

What does not belong is refused with the file's name; a file that is only half filled is taken as it is. Knows no store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffq.errors import UserError
from diffq.metrics.agreement import LEVELS, alpha, coincidences
from diffq.metrics.base import Score
from diffq.metrics.intervals import resample
from diffq.metrics.mos import opinion
from diffq.resamples import interval
from diffq.runs.mos_study import FORMAT
from diffq.store.identity import digest

RATINGS = "diffq-ratings"


@dataclass(frozen=True)
class Key:
    """What links the numbers of texts to systems: key.json, read."""

    study: str
    scale: tuple[int, int]
    indices: tuple[int, ...]
    systems: tuple[Mapping[str, str], ...]
    texts: int
    items: Mapping[str, Mapping[str, Any]]
    pages: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Rater:
    """One rater's file: who, on which page, and the ratings by the number of the text."""

    file: Path
    name: str
    page: int
    ratings: Mapping[str, int]
    asked: int

    @property
    def label(self) -> str:
        return f"{self.name} (page {self.page})"


def read_key(folder: Path) -> Key:
    """The key of a folder that `mos export` wrote, or of the file itself. UserError where there is none."""
    file = folder / "key.json" if folder.is_dir() else folder
    held = _mapping(file, "the key that diffq mos export wrote")
    if held.get("format") != FORMAT:
        raise UserError(f"{file} is no key of a study; name the folder that diffq mos export wrote")
    try:
        return Key(
            study=held["study"],
            scale=(held["scale"][0], held["scale"][1]),
            indices=tuple(held["sources"]),
            systems=tuple(held["systems"]),
            texts=held["texts"],
            items=held["items"],
            pages=tuple(tuple(page) for page in held["pages"]),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({type(error).__name__}: {error}); the same mos export writes it again"
        ) from error


def read_ratings(files: Sequence[Path], key: Key) -> list[Rater]:
    """The raters of these files. UserError for another study, a rater who comes twice, and what is no rating."""
    raters: dict[tuple[int, str], Rater] = {}
    for file in files:
        rater = _read(file, key)
        other = raters.setdefault((rater.page, rater.name.casefold()), rater)
        if other is not rater:
            raise UserError(f"{other.file} and {file} are both of {rater.label}; give the later one alone")
    return list(raters.values())


def _read(file: Path, key: Key) -> Rater:
    held = _mapping(file, "a file of ratings that a rating page saved")
    if held.get("format") != RATINGS or held.get("version") != 1:
        raise UserError(f"{file} is no file of ratings that a rating page saved")
    if held.get("study") != key.study:
        raise UserError(f"{file} holds ratings of the study {held.get('study')}, and this is the study {key.study}")
    page, ratings = held.get("page"), held.get("ratings")
    if not isinstance(page, int) or not 1 <= page <= len(key.pages) or not isinstance(ratings, dict):
        raise UserError(f"{file} is of page {page}, and the study has the pages 1 … {len(key.pages)}")
    own, (low, high) = set(key.pages[page - 1]), key.scale
    found = {}
    for item, said in ratings.items():
        value = said.get("rating") if isinstance(said, dict) else None
        if item not in own:
            raise UserError(f"{file} rates a text {item}, which page {page} does not have")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"{file} rates text {item} with {json.dumps(value)}; the scale is {low} … {high}, in ones")
        found[item] = value
    if not found:
        raise UserError(f"{file} holds no rating; leave it out")
    return Rater(file, str(held.get("rater") or "a rater without a name"), page, found, len(own))


def _mapping(file: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); it should be {what}") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); it should be {what}") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} holds no JSON object; it should be {what}")
    return value


@dataclass(frozen=True)
class Opinions:
    """What raters said of the systems of a study. First ratings count; those of a repeated text say how far a rater
    agrees with himself, and nothing else.

    Shapes: R raters, N sources, U texts.
    """

    key: Key
    raters: Sequence[Rater]

    @property
    def signature(self) -> str:
        """Study, the ratings themselves, how many raters, sources and texts, and the scale."""
        said = digest(sorted([r.page, r.name, dict(sorted(r.ratings.items()))] for r in self.raters))
        low, high = self.key.scale
        return (
            f"mos|study:{self.key.study}|ratings:{said[:6]}|raters:{len(self.raters)}|sources:{len(self.key.indices)}"
            f"|items:{self.key.texts}|scale:{low}-{high}|sample:first|agg:mos|v:1"
        )

    @cached_property
    def scores(self) -> list[Score | None]:
        """One a system; None for one that nobody rated."""
        rows = np.zeros((len(self.key.systems), len(self.key.indices), 2))
        for rater in self.raters:
            for item, value in rater.ratings.items():
                about = self.key.items[item]
                if not about["repeats"]:
                    rows[about["systems"], about["source"]] += (value, 1)
        return [opinion(own, self.signature) for own in rows]

    @cached_property
    def _values_RU(self) -> tuple[np.ndarray, np.ndarray]:
        """First ratings by text, NaN where there is none, and the source of each text."""
        items = [item for item, about in self.key.items.items() if not about["repeats"]]
        place = {item: at for at, item in enumerate(items)}
        values_RU = np.full((len(self.raters), len(items)), np.nan)
        for number, rater in enumerate(self.raters):
            for item, value in rater.ratings.items():
                if item in place:
                    values_RU[number, place[item]] = value
        return values_RU, np.array([self.key.items[item]["source"] for item in items])

    def agreement(self) -> dict[str, dict[str, float | None]]:
        """Krippendorff's α of first ratings at each level, with a 95 % interval bootstrapped over sources; None where
        it is not defined."""
        values_RU, source_U = self._values_RU
        number = self.key.scale[1] - self.key.scale[0] + 1
        rows = np.zeros((len(self.key.indices), number * number))
        np.add.at(rows, source_U, coincidences(values_RU, self.key.scale).reshape(len(source_U), -1))
        found: dict[str, dict[str, float | None]] = {}
        for level in LEVELS:
            value = float(alpha(rows.sum(axis=0).reshape(number, number), level))
            drawn = resample(rows, f"alpha|agg:alpha_{level}")
            low, high = interval(drawn) if np.isfinite(drawn).all() else (None, None)
            there = np.isfinite(value)
            found[level] = {
                "alpha": value if there else None,
                "low": low if there else None,
                "high": high if there else None,
            }
        return found

    def consistency(self, rater: Rater) -> dict[str, float | int] | None:
        """Of the texts that a rater rated twice: how many, the share that got the same rating and that within one, and
        the mean difference. None where there is none."""
        gaps = [
            abs(value - rater.ratings[first])
            for item, value in rater.ratings.items()
            if (first := self.key.items[item]["repeats"]) and first in rater.ratings
        ]
        if not gaps:
            return None
        return {
            "texts": len(gaps),
            "same": float(np.mean([gap == 0 for gap in gaps])),
            "within_one": float(np.mean([gap <= 1 for gap in gaps])),
            "mean_difference": float(np.mean(gaps)),
        }
