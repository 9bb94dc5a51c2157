"""The two null lines of a frontier: what a baseline's samples become when some of their words are exchanged.

They cost no sampling. A sampler that does not beat them at equal diversity has shown nothing. Which words are exchanged
is keyed by (seed, source, sample, place): the words of a smaller share are among those of a larger one, and more
samples a source change none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers

if TYPE_CHECKING:
    from torch import Tensor

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def corrupt(answers: Answers, share: float, seed: int = 0) -> Answers:
    """The answers with each word replaced, with probability `share`, by one drawn from all words of the candidates and
    the references (as often as they occur there). The draw may be the word itself.

    Raises UserError for a share outside 0 … 1.
    """
    pool = [w for group in (*answers.candidates, *answers.references) for text in group for w in text.split()]
    exchanged, drawn = _draws(answers, share, seed, len(pool))
    words, at = [], 0
    for texts in answers.candidates:
        held = []
        for text in texts:
            tokens = text.split()
            here = slice(at, at + len(tokens))
            at += len(tokens)
            marks = zip(tokens, exchanged[here], drawn[here], strict=True)
            held.append(" ".join(pool[pick] if swap else word for word, swap, pick in marks))
        words.append(tuple(held))
    return dataclasses.replace(
        answers, candidates=tuple(words), ids=_corrupt_ids(answers, share, seed), cost={}, grading=None
    )


def _corrupt_ids(answers: Answers, share: float, seed: int) -> tuple[tuple[tuple[int, ...], ...], ...] | None:
    """The tokens of running text, corrupted as words are: each that was not given, by any of the samples' tokens."""
    if answers.ids is None:
        return None
    given = {i for a, b in answers.given_spans for i in range(a, b)}
    pool = [token for group in answers.ids for ids in group for token in ids]
    exchanged, drawn = _places(seed, share, len(pool), [[len(ids) for ids in group] for group in answers.ids])
    made, at = [], 0
    for group in answers.ids:
        held = []
        for ids in group:
            marks = zip(ids, exchanged[at : at + len(ids)], drawn[at : at + len(ids)], strict=True)
            at += len(ids)
            held.append(tuple(pool[p] if swap and i not in given else t for i, (t, swap, p) in enumerate(marks)))
        made.append(tuple(held))
    return tuple(made)


def copy(answers: Answers, share: float, seed: int = 0) -> Answers:
    """The answers with each word replaced, with probability `share`, by the source's word at the same place; where the
    source has ended the word is dropped. At share 1 every sample is a verbatim beginning of its source.

    Raises UserError for a share outside 0 … 1, and where no source has a word.
    """
    if "source" not in answers.given():
        raise UserError(
            "the null line 'copy' needs sources with words in them; an unconditional task has only 'corrupt'"
        )
    exchanged, _ = _draws(answers, share, seed, 1)
    words, at = [], 0
    for texts, source in zip(answers.candidates, answers.sources, strict=True):
        from_source = source.split()
        held = []
        for text in texts:
            tokens = text.split()
            swaps = exchanged[at : at + len(tokens)]
            at += len(tokens)
            kept = [
                from_source[i : i + 1] if swap else [word]
                for i, (word, swap) in enumerate(zip(tokens, swaps, strict=True))
            ]
            held.append(" ".join(word for piece in kept for word in piece))
        words.append(tuple(held))
    return dataclasses.replace(answers, candidates=tuple(words), ids=None, cost={}, grading=None)


def null_lines(
    answers: Answers, shares: Sequence[float] = SHARES, seed: int = 0
) -> dict[str, list[tuple[float, Callable[[], Answers]]]]:
    """The points of `corrupt` and, where there are sources, of `copy`: each its share, and what makes its answers."""
    lines = {"corrupt": corrupt} | ({"copy": copy} if "source" in answers.given() else {})
    return {name: [(share, partial(make, answers, share, seed)) for share in shares] for name, make in lines.items()}


def _draws(answers: Answers, share: float, seed: int, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """For every word of the candidates, in order: whether it is exchanged, and a number below `pool`."""
    return _places(seed, share, pool, [[len(text.split()) for text in texts] for texts in answers.candidates])


def _places(seed: int, share: float, pool: int, lengths: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The same for samples of these lengths, a list a source."""
    if not 0 <= share <= 1:
        raise UserError(f"share={share} of a null line is out of range; allowed: 0 … 1")
    import torch

    from diffq.rng import Rng, Stream, uniform

    samples = torch.tensor([len(group) for group in lengths], dtype=torch.long)
    length = torch.tensor([length for group in lengths for length in group], dtype=torch.long)
    source_N = torch.arange(len(samples)).repeat_interleave(samples).repeat_interleave(length)
    sample_N, place_N = _counted(samples).repeat_interleave(length), _counted(length)
    key: Tensor = Rng(seed).key(Stream.NULL_LINE, source_N, sample_N, place_N)
    picks = (uniform(key, 1) * pool).long().clamp_(max=max(pool - 1, 0))
    return (uniform(key, 0) < share).numpy(), picks.numpy()


def _counted(sizes: Tensor) -> Tensor:
    """0 … size − 1 for each size, end to end."""
    first = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return first.new_ones(len(first)).cumsum(0) - 1 - first
