"""The embedded world `sudoku`: 4×4 grids with some cells given, of which there are 288, so all completions are known.

A grid is written as four lines; in a question 0 stands for a cell that is to be filled in. Knows no tokens and no
network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import ClassVar

import numpy as np
import torch

from diffq.data.forms import Form, FormSettings, read_questions
from diffq.data.task import Checked, Example, Split
from diffq.errors import UserError, unknown
from diffq.registry import DATASETS
from diffq.rng import Rng, Stream, uniform
from diffq.settings import setting

_SIDE, _CELLS = 4, 16
_BLANK = "0"
_CELL_AT = tuple(i for i in range(_CELLS + _SIDE - 1) if i % (_SIDE + 1) != _SIDE)  # cells among the characters


@cache
def grids() -> tuple[str, ...]:
    """All 288 filled grids: every row, column and quarter has each of 1, 2, 3, 4."""
    rows = list(itertools.permutations("1234"))
    found = []
    for grid in itertools.product(rows, repeat=_SIDE):
        columns = zip(*grid, strict=True)
        quarters = (grid[i][j : j + 2] + grid[i + 1][j : j + 2] for i in (0, 2) for j in (0, 2))
        if all(len(set(part)) == _SIDE for part in (*columns, *quarters)):
            found.append("\n".join("".join(row) for row in grid))
    return tuple(found)


def completions(source: str) -> tuple[str, ...]:
    """The filled grids that agree with a question."""
    return tuple(g for g in grids() if all(s in (_BLANK, c) for s, c in zip(source, g, strict=True)))


@cache
def questions(givens: int) -> int:
    """How many different questions have so many givens."""
    cells_GN = np.array([[int(grid[at]) for at in _CELL_AT] for grid in grids()])
    given_CN = np.array([np.isin(range(_CELLS), some) for some in itertools.combinations(range(_CELLS), givens)])
    asked_GC = cells_GN @ (given_CN * 5 ** np.arange(_CELLS)).T  # a question's number: its cells, in base five
    asked_GC.sort(axis=0)
    return len(given_CN) + int((np.diff(asked_GC, axis=0) != 0).sum())


class SudokuCorpus(Checked):
    """The opened world. A model is trained on all grids; the questions are its own to answer, by their givens."""

    def __init__(self, settings: Sudoku):
        self.settings = settings
        self._test: tuple[Example, ...] | None = None

    grader = "sudoku"

    def split(self, name: Split) -> Sequence[Example]:
        """test: questions; train and valid: the grids, with nothing given. UserError for a file with what is none."""
        if name not in ("train", "valid", "test"):
            raise unknown("split", name, ("train", "valid", "test"))
        if name != "test":
            empty = "\n".join([_BLANK * _SIDE] * _SIDE)
            return tuple(Example(i, empty, (grid,)) for i, grid in enumerate(grids()))
        if self._test is None:
            asked = self._from_file() if self.settings.path else self._drawn()
            self._test = tuple(Example(i, source, (grid,)) for i, (source, grid) in enumerate(asked))
        return self._test

    def documents(self, name: Split) -> Iterator[str]:
        """The grids."""
        yield from grids()

    def truth(self, source: str) -> Mapping[str, float]:
        """Every completion, all of the same probability."""
        found = completions(source)
        return dict.fromkeys(found, 1 / len(found))

    def check(self, source: str, answer: str) -> bool:
        return answer in completions(source)

    def own(self, index: int, question: str) -> Example:
        """A grid in any layout of its sixteen cells: on four lines, or with spaces between the rows as a training
        shows it."""
        cells = "".join(question.split())
        if len(cells) != _CELLS or set(cells) - set("01234"):
            raise UserError(
                f"--source '{question}' is no 4x4 grid; give four rows of 1 to 4, with 0 for a cell to be filled in, as"
                " in '3000 1000 0030 0300'"
            )
        return Example(index, "\n".join(cells[i : i + _SIDE] for i in range(0, _CELLS, _SIDE)), ())

    def form(self, example: Example) -> Form:
        return Form(example.source, tuple(c == _BLANK for c in example.source))

    def answer(self, example: Example, text: str) -> str:
        return text

    def canonical(self, answer: str) -> str:
        return answer

    def solved(self, name: Split) -> Sequence[Form]:
        return tuple(Form(grid, tuple(c != "\n" for c in grid)) for grid in grids())

    def _drawn(self) -> Iterator[tuple[str, str]]:
        """A grid and the cells that are given, by keys; no question twice."""
        s, all_grids = self.settings, grids()
        seen: set[str] = set()
        candidate = 0
        while len(seen) < s.test:
            key = Rng(s.seed).key(Stream.DATA, torch.tensor([candidate]), visit=s.givens, position=3)
            numbers = uniform(key, torch.arange(_CELLS + 1)).tolist()
            candidate += 1
            grid = all_grids[int(numbers[0] * len(all_grids))]
            order = sorted(range(_CELLS), key=numbers[1:].__getitem__)
            given = set(order[: s.givens])
            blank = {_CELL_AT[cell] for cell in range(_CELLS) if cell not in given}
            source = "".join(_BLANK if i in blank else c for i, c in enumerate(grid))
            if source not in seen:
                seen.add(source)
                yield source, grid
            elif candidate > 1000 * s.test:
                raise UserError(f"there are not dataset.test={s.test} questions with {s.givens} givens; ask for fewer")

    def _from_file(self) -> Iterator[tuple[str, str]]:
        assert self.settings.path is not None
        shape = len(grids()[0])
        for number, (source, grid) in enumerate(read_questions(self.settings.path), 1):
            source, grid = source.strip(), grid.strip()
            if len(source) != shape or set(source) - set("01234\n") or grid not in completions(source):
                raise UserError(
                    f"{self.settings.path}, row {number}: expected four lines of 0 to 4 and a grid that completes them"
                )
            yield source, grid


@DATASETS.register("sudoku")
@dataclass(frozen=True, kw_only=True)
class Sudoku(FormSettings):
    """4×4 Sudoku."""

    all_known: ClassVar[bool] = True
    not_learnt: ClassVar[tuple[str, ...]] = ("tokenizer", "models", "metric", "path", "test", "seed", "givens")

    givens: int = setting(4, "cells that are given", low=0, high=15)

    def check(self) -> None:
        if self.block != _CELLS + _SIDE - 1:
            raise UserError(f"dataset.block={self.block}: a grid has {_CELLS + _SIDE - 1} characters")
        if self.path is None and self.test > comb(_CELLS, self.givens):  # each choice of cells has a question or more
            self._check_test()

    def _check_test(self) -> None:
        """UserError where there are not so many questions, which drawing them would find out slowly."""
        there = questions(self.givens)
        if self.test > there:
            enough = [str(n) for n in range(_CELLS) if questions(n) >= self.test]
            others = f", or dataset.givens={enough[0]} to {enough[-1]}" if enough else ""
            raise UserError(
                f"dataset.test={self.test}: there {'is' if there == 1 else 'are'} only {there} with"
                f" dataset.givens={self.givens}; ask for dataset.test={there} or fewer{others}"
            )

    def open(self) -> SudokuCorpus:
        return SudokuCorpus(self)
