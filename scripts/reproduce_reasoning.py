"""Trains masked models on Sudoku, Countdown and, on a GPU, GSM8K within a budget, sweeps orders of decoding, and writes
docs/results/.

What `scripts/reproduce_reasoning.sh BUDGET_MINUTES` runs. Called again it goes on: trainings and points that are
finished are not touched. Without a GPU a sixth of the budget, at most ten minutes, trains on Sudoku and half of it on
Countdown; with one a twentieth, a fifth, and a third on GSM8K. The rest is for sampling, which takes what it takes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from reproducing import ROOT, arguments, countable, counts, keep, keep_paper, on_gpu, run, train

# A network of 254,000 parameters learns 288 grids best: more steps in the time than the default one's.
SUDOKU = ("model.layers=3", "model.width=64", "trainer.learning_rate=5e-3")
COUNTDOWN = (
    "model.dropout=0", "dataset.size=400000", "trainer.batch_size=256", "trainer.learning_rate=3e-3",
    "trainer.ema=0.998",
)  # fmt: skip
KEPT = ("frontier.png", "frontier.csv", "pass_at_k.png")
PLANNING = {
    "sudoku": [f"sudoku_4x4_{givens}.jsonl" for givens in (4, 6, 7, 9, 10, 12)],
    "countdown": ["cd3_test.jsonl"],
}


def main() -> None:
    said, gpu = countable(arguments(__doc__ or "", "reasoning")).parse_args(), on_gpu()
    results = Path(said.results or ROOT / "docs" / "results" / f"reasoning-{'gpu' if gpu else 'cpu'}")
    outputs = Path(ROOT, said.outputs)
    more = [f"outputs={said.outputs}"]
    began = time.monotonic()
    minutes = {"sudoku": said.minutes / (20 if gpu else 6), "countdown": said.minutes / (5 if gpu else 2)}
    for world, words in (("sudoku", SUDOKU), ("countdown", COUNTDOWN)):
        limit = min(minutes[world], 10) if world == "sudoku" else minutes[world]
        place = train("model=mdlm_tiny", f"dataset={world}", *words, f"max_minutes={limit:.2f}", *more)
        checkpoint = f"checkpoint={place}"
        run("sweep", f"experiment=reasoning_{world}", checkpoint, *counts(said), *more)
        keep(results, [outputs / "sweeps" / f"reasoning_{world}" / name for name in KEPT], f"{world}-")
        for name in PLANNING[world]:
            file = Path(os.environ.get("DIFFQ_DATA", "")) / "planning" / name
            if os.environ.get("DIFFQ_DATA") and file.is_file():
                run("sweep", f"experiment=planning_{world}", f"dataset.path={file}", checkpoint, *counts(said), *more)
                keep(results, [outputs / "sweeps" / f"planning_{world}" / "frontier.csv"], f"{file.stem}-")
    if gpu:
        limit = f"max_minutes={said.minutes / 3:.2f}"
        run("train", "model=mdlm_small", "dataset=gsm8k", "trainer=text_gpu", limit, *more)
        run("sweep", "experiment=reasoning_gsm8k", *counts(said), *more)
        keep(results, [outputs / "sweeps" / "reasoning_gsm8k" / name for name in KEPT], "gsm8k-")
    results.mkdir(parents=True, exist_ok=True)
    keep_paper(results, "2604.00375", outputs)
    print(f"{results}: {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
