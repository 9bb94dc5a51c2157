"""Forms: texts of one length, a place a character, some of whose places are to be filled in.

A grid with some cells given is one; a question with room for its answer is another. Worlds that are made of forms say
how a question becomes one and what of a filled form is the answer; models of running text fill them in, and learn from
filled ones, in which only what could ever be asked is destroyed. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch

from diffq.data.files import read_rows
from diffq.data.task import DatasetSettings, Example, Split, Task
from diffq.data.tokenizers import Tokenizer
from diffq.data.windows import Shuffled
from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.models.base import TextBatch
from diffq.settings import setting


@dataclass(frozen=True)
class Form:
    """text  every place's character; what stands at a free place has no meaning where the form is asked
    free  True where it is to be filled in"""

    text: str
    free: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.text) != len(self.free):
            raise ValueError(f"a form of {len(self.text)} characters has {len(self.free)} places")


class FormCorpus(Protocol):
    """An opened world of forms."""

    def split(self, name: Split) -> Sequence[Example]: ...

    def own(self, index: int, question: str) -> Example:
        """A question that a user asks, as this world writes it. UserError, with an example, for a text that is none."""
        ...

    def form(self, example: Example) -> Form:
        """A question as a form."""
        ...

    def answer(self, example: Example, text: str) -> str:
        """What a filled form answers to its question."""
        ...

    def solved(self, name: Split) -> Sequence[Form]:
        """Filled forms to be trained on."""
        ...


@dataclass(frozen=True, kw_only=True)
class FormSettings(DatasetSettings):
    """What every world of forms has."""

    task: ClassVar[Task] = "forms"
    written_by: ClassVar[Literal["pairs", "text"]] = "text"
    embedded: ClassVar[bool] = True
    graded: ClassVar[bool] = True

    path: str | None = setting(None, "a file of questions with columns input and output, as the test split")
    test: int = setting(200, "questions of the test split, where no file is given", low=1)
    seed: int = setting(0, "which questions are drawn", low=0)
    block: int = setting(help="places of a form", low=1)


@dataclass(frozen=True)
class TokenisedForms:
    """Forms as ids, (forms, places), and where they are free."""

    ids: np.ndarray
    free: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def tokenise_forms(
    forms: Sequence[Form], tokenizer: Tokenizer, block: int, checkpoint: str | None = None
) -> TokenisedForms:
    """The forms as ids. checkpoint: whose tokenizer it is, where that was not made for these forms.

    UserError for a tokenizer that does not give every character an id of its own, and for one that does not know a
    character that is given. What stands at free places need not be known: it is never read.
    """
    ids = tokenizer.encode_targets([form.text for form in forms])
    wrong = next((form for form, i in zip(forms, ids, strict=True) if len(i) != block), None)
    if wrong is not None:
        mend = "dataset.tokenizer must be characters"
        if checkpoint is not None:
            mend = f"checkpoint={checkpoint} has no tokenizer of characters; give one that was trained on this data set"
        raise UserError(f"a form of {len(wrong.text)} characters is not {block} tokens: {mend}")
    _refuse_unknown(forms, tokenizer, checkpoint)
    return TokenisedForms(np.array(ids, dtype=np.int64), np.array([form.free for form in forms]))


def _refuse_unknown(forms: Sequence[Form], tokenizer: Tokenizer, checkpoint: str | None) -> None:
    """UserError where a given character is none of the tokenizer's: the model would be asked something else."""
    given = {c for form in forms for c, free in zip(form.text, form.free, strict=True) if not free}
    lost = [c for c in sorted(given) if tokenizer.decode(tokenizer.encode_target(c)) != c]
    if not lost:
        return
    who, mend = "dataset.tokenizer", "dataset.tokenizer=characters"
    if checkpoint is not None:
        who, mend = f"checkpoint={checkpoint}", "a checkpoint that was trained on this data set, or none"
    raise UserError(f"{who} does not know {', '.join(map(repr, lost))}, which the questions hold; give {mend}")


def form_canvas(forms: TokenisedForms, places: Sequence[int], rows: Sequence[int], mask: int) -> Canvas:
    """The canvas of these of the forms: what is given stands, the other places are free. rows: the row ids."""
    free_BL = torch.from_numpy(forms.free[list(places)])
    tokens_BL = torch.from_numpy(forms.ids[list(places)]).masked_fill(free_BL, mask)
    return Canvas(tokens_BL, free_BL, torch.ones_like(free_BL), torch.tensor(list(rows), dtype=torch.long))


class FormBatches(Shuffled):
    """The batches of a training on filled forms. Only free places are ever destroyed, and count as tokens."""

    def __init__(self, forms: TokenisedForms, batch_size: int, seed: int):
        super().__init__(len(forms), batch_size, seed)
        self.forms = forms

    def collate(self, rows: np.ndarray, visits: np.ndarray) -> TextBatch:
        return TextBatch(
            tokens_BL=torch.from_numpy(self.forms.ids[rows]),
            valid_BL=torch.from_numpy(self.forms.free[rows]),
            row_B=torch.from_numpy(np.array(rows, dtype=np.int64)),
            visit_B=torch.from_numpy(np.array(visits, dtype=np.int64)),
        )


def read_questions(path: str) -> Iterator[tuple[str, str]]:
    """The columns input and output of a file. UserError where a row has them not."""
    for number, row in read_rows(Path(path)):
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("input", "output")):
            raise UserError(f"{path}, row {number}: expected texts in the columns input and output")
        yield row["input"], row["output"]
