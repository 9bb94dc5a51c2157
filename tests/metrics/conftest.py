"""Made-up answers that many tests of metrics share."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from diffq.metrics.base import Answers

_WORDS = ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "why", "3.14", "it's", "x,y", "(so)", "re-do", "10-20"]


def _sentence(rng: random.Random, longest: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(0, longest))) + rng.choice(["", " ?", ".", "!"])


@pytest.fixture
def random_answers() -> Callable[..., Answers]:
    """Answers of random sentences, some of them empty, with unequal numbers of references and repeated samples."""

    def make(seed: int, n: int = 12, s: int = 4, longest: int = 9, references: int = 3) -> Answers:
        rng = random.Random(seed)
        candidates = []
        for _ in range(n):
            texts = [_sentence(rng, longest) for _ in range(s)]
            if rng.random() < 0.3:
                texts[-1] = texts[0]
            candidates.append(tuple(texts))
        return Answers(
            sources=tuple(_sentence(rng, longest) + " what" for _ in range(n)),
            references=tuple(
                tuple(_sentence(rng, longest) + " so" for _ in range(rng.randint(1, references))) for _ in range(n)
            ),
            candidates=tuple(candidates),
        )

    return make
