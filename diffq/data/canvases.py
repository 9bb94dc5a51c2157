"""From token ids to canvases: which rows go into which batch, and what a batch looks like.

The plan is a function of the point and never of what is left to do, so a run that is taken up again makes the same
batches: rows are ordered by sample index first, then by length; no batch spans two sample indices, so more samples
append batches and change none. Knows no texts and no sampler.

Shape suffixes: B rows, L target positions, S source positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from diffq.diffusion.contracts import Canvas, row_id
from diffq.errors import UserError

BATCH_TOKENS = 1024
"""The token budget where none is given: on a CPU small batches of like length beat large ones with padding (on 512
test sources of QQP 5 % of the canvas is padding at 1,024 tokens, 33 % at 8,192)."""

GPU_BATCH_TOKENS = 65536
"""The same on a GPU."""

Keep = Mapping[int, int]
"""Target positions, from 0, that are known: each with its token id."""


@dataclass(frozen=True)
class Row:
    """One canvas row: which sample of which source (its index in the split), and how many target tokens it has."""

    source: int
    sample: int
    length: int

    @property
    def id(self) -> int:
        return row_id(self.source, self.sample)


@dataclass(frozen=True)
class Batch:
    """Rows that are sampled together: those from `first` on in the plan's order.

    beyond  rows that are sampled with them and thrown away, so that the batch is what it will be with more samples
    """

    first: int
    rows: tuple[Row, ...]
    beyond: tuple[Row, ...] = ()

    @property
    def sample(self) -> int:
        return self.rows[0].sample


def plan_batches(
    lengths: Sequence[Sequence[int]],
    source_lengths: Sequence[int],
    batch_tokens: int = BATCH_TOKENS,
    indices: Sequence[int] | None = None,
) -> list[Batch]:
    """The batches of a point, in order.

    lengths         the target length of each sample index (outer) of each source (inner), in tokens
    source_lengths  tokens of each source, special ones included
    batch_tokens    the most that rows × (longest target + longest source) of a batch may be; a row that is larger
                    by itself is a batch by itself
    indices         each source's index in its split, if they are not 0, 1, 2, …
    """
    if batch_tokens < 1:
        raise UserError(f"batch_tokens={batch_tokens} must be at least 1")
    names = range(len(source_lengths)) if indices is None else indices
    batches: list[Batch] = []
    first = 0
    for sample, targets in enumerate(lengths):
        if len(targets) != len(source_lengths):
            raise ValueError(f"sample {sample} has {len(targets)} lengths for {len(source_lengths)} sources")
        order = sorted(range(len(targets)), key=lambda i: (targets[i], source_lengths[i], names[i]))
        rows: list[Row] = []
        longest_target = longest_source = 0
        for i in order:
            target, source = max(longest_target, targets[i]), max(longest_source, source_lengths[i])
            if rows and (len(rows) + 1) * (target + source) > batch_tokens:
                batches.append(Batch(first, tuple(rows)))
                first += len(rows)
                rows, target, source = [], targets[i], source_lengths[i]
            rows.append(Row(source=names[i], sample=sample, length=targets[i]))
            longest_target, longest_source = target, source
        if rows:
            batches.append(Batch(first, tuple(rows)))
            first += len(rows)
    return batches


def token_budget(device: torch.device) -> int:
    """The most tokens of a network pass on a device, where nothing else is asked for."""
    return GPU_BATCH_TOKENS if device.type == "cuda" else BATCH_TOKENS


def check_sources(sources: Mapping[int, Sequence[int]], maximum: int) -> None:
    """Raises UserError for the first source that is longer than the model takes, or has no token of its own.

    sources: the ids of each source, special tokens included, by its index in the split.
    """
    for index, ids in sources.items():
        if len(ids) > maximum:
            raise UserError(
                f"source {index} has {len(ids)} tokens, and the model takes at most {maximum};"
                " leave it out, shorten it, or train with a larger dataset.max_source"
            )
        if len(ids) <= 2:
            raise UserError(f"source {index} is empty: its text has no token; give every source a text")


def build_canvas(
    rows: Sequence[Row],
    sources: Mapping[int, Sequence[int]],
    pad: int,
    mask: int,
    keep: Mapping[int, Keep] | None = None,
    device: torch.device | str = "cpu",
) -> Canvas:
    """The canvas of some rows.

    sources    the ids of each source, special tokens included, by its index in the split
    pad, mask  what stands on padding, and on positions to be filled
    keep       by source index: known target tokens, which are held fixed (infilling, keywords)
    Raises UserError where a known token stands beyond the end of its row.
    """
    size_L = max((row.length for row in rows), default=0)
    size_S = max((len(sources[row.source]) for row in rows), default=0)
    tokens_BL = torch.full((len(rows), size_L), pad, dtype=torch.long)
    valid_BL = torch.zeros((len(rows), size_L), dtype=torch.bool)
    source_BS = torch.full((len(rows), size_S), pad, dtype=torch.long)
    source_valid_BS = torch.zeros((len(rows), size_S), dtype=torch.bool)
    for b, row in enumerate(rows):
        ids = sources[row.source]
        tokens_BL[b, : row.length] = mask
        valid_BL[b, : row.length] = True
        source_BS[b, : len(ids)] = torch.as_tensor(ids)
        source_valid_BS[b, : len(ids)] = True
    free_BL = valid_BL.clone()
    for b, row in enumerate(rows):
        for position, token in (keep or {}).get(row.source, {}).items():
            if not 0 <= position < row.length:
                raise UserError(
                    f"a token is to be kept at position {position} of source {row.source}, whose target has"
                    f" {row.length} tokens; positions are 0 … {row.length - 1}"
                )
            tokens_BL[b, position] = token
            free_BL[b, position] = False
    return Canvas(
        tokens_BL=tokens_BL,
        free_BL=free_BL,
        valid_BL=valid_BL,
        row_B=torch.tensor([row.id for row in rows], dtype=torch.long),
        source_BS=source_BS,
        source_valid_BS=source_valid_BS,
    ).map(lambda x: x.to(device))


def text_canvas(
    rows: Sequence[Row],
    windows_BL: torch.Tensor,
    given: Sequence[int],
    mask: int,
    end: int | None = None,
    device: torch.device | str = "cpu",
) -> Canvas:
    """The canvas of rows of running text: the given positions of the windows stand, the others are free.

    end: the token at which a row ends, None where rows are full.
    """
    free_BL = torch.ones_like(windows_BL, dtype=torch.bool)
    free_BL[:, list(given)] = False
    return Canvas(
        tokens_BL=torch.where(free_BL, mask, windows_BL),
        free_BL=free_BL,
        valid_BL=torch.ones_like(free_BL),
        row_B=torch.tensor([row.id for row in rows], dtype=torch.long),
        end=end,
    ).map(lambda x: x.to(device))


def answer_canvas(
    rows: Sequence[Row],
    prompts: Mapping[int, Sequence[int]],
    pad: int,
    mask: int,
    end: int,
    device: torch.device | str = "cpu",
    also_end: Sequence[int] = (),
) -> Canvas:
    """The canvas of rows of prompt and answer: from the left the prompt, which stands, then the free places of the
    answer, then padding up to the longest row.

    prompts        the ids of each prompt, by its index in the split
    end, also_end  the tokens that end an answer
    """
    size_L = max((row.length for row in rows), default=0)
    tokens_BL = torch.full((len(rows), size_L), pad, dtype=torch.long)
    valid_BL = torch.zeros((len(rows), size_L), dtype=torch.bool)
    free_BL = torch.zeros_like(valid_BL)
    for b, row in enumerate(rows):
        ids = prompts[row.source]
        tokens_BL[b, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
        tokens_BL[b, len(ids) : row.length] = mask
        valid_BL[b, : row.length] = True
        free_BL[b, len(ids) : row.length] = True
    return Canvas(
        tokens_BL=tokens_BL,
        free_BL=free_BL,
        valid_BL=valid_BL,
        row_B=torch.tensor([row.id for row in rows], dtype=torch.long),
        end=end,
        also_end=tuple(also_end),
    ).map(lambda x: x.to(device))
