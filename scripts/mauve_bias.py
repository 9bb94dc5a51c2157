"""What MAUVE says of equal laws, and of laws that differ by every fifth word, by the number of texts.

    python scripts/mauve_bias.py TEXT_FILE          # a text of 440,000 words or more, .txt or .txt.gz; minutes

Two sets of n windows of 100 words, MiniLM's vectors, as metric=mauve takes them. Prints a table in Markdown: mean over
draws of the two sets ± the deviation between draws; the mean deviation between clustering seeds.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffq.metrics.encoders import minilm_folder, sentence_vectors
from diffq.metrics.mauve import mauve

WINDOW, TEXTS, CHANGED, SHARE = 100, 4400, 2000, 0.2
SIZES = (5, 10, 20, 50, 100, 200, 400, 1000, 2000)

Sets = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def read_words(path: Path) -> list[str]:
    """The words of a text file, split at white space."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode().split()


def features(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(vectors of TEXTS windows in random order, vectors of the last CHANGED of them with words replaced)."""
    windows = [words[i : i + WINDOW] for i in range(0, len(words) - WINDOW + 1, WINDOW)]
    chosen = [windows[i] for i in np.random.default_rng(0).permutation(len(windows))[:TEXTS]]
    generator = np.random.default_rng(1)
    changed = [
        [words[generator.integers(len(words))] if generator.random() < SHARE else word for word in window]
        for window in chosen[-CHANGED:]
    ]
    own, other = ([" ".join(window) for window in held] for held in (chosen, changed))
    return sentence_vectors(minilm_folder(), own), sentence_vectors(minilm_folder(), other)


def row(n: int, sets: Sets) -> str:
    """One cell of the table."""
    draws = 20 if n < 50 else 8 if n <= 400 else 4
    found = np.array([mauve(*sets(np.random.default_rng(100 * n + draw), n)) for draw in range(draws)])
    means, seeds = found.mean(axis=1), found.std(axis=1, ddof=1).mean()
    return f"{means.mean():.1f} ± {means.std(ddof=1):.1f}; {seeds:.1f}"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("give one text file: python scripts/mauve_bias.py TEXT_FILE")
    words = read_words(Path(sys.argv[1]))
    if len(words) < TEXTS * WINDOW:
        sys.exit(f"{sys.argv[1]} has {len(words)} words; {TEXTS * WINDOW} are needed")
    own, changed = features(words)
    rest = own[: TEXTS - CHANGED]  # whose windows are not among the changed

    def equal(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        order = generator.permutation(len(own))
        return own[order[:n]], own[order[n : 2 * n]]

    def differing(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        return changed[generator.permutation(CHANGED)[:n]], rest[generator.permutation(len(rest))[:n]]

    print("| n | equal laws | a fifth of one side's words replaced |\n|---|---|---|")
    for n in SIZES:
        print(f"| {n:,} | {row(n, equal)} | {row(n, differing)} |", flush=True)


if __name__ == "__main__":
    main()
