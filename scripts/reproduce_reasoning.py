"""Trains masked models on Sudoku, Countdown and, on a GPU, GSM8K within a budget, sweeps orders of decoding, and writes
docs/results/.

What `scripts/reproduce_reasoning.sh BUDGET_MINUTES` runs. Called again it goes on: trainings and points that are
finished are not touched. Without a GPU a sixth of the budget, at most ten minutes, trains on Sudoku and half of it on
Countdown; with one a twentieth, a fifth, and a third on GSM8K. The rest is for sampling, which takes what it takes.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from reproducing import ROOT, keep, keep_paper, on_gpu, run, trained

# A network of 150,000 parameters learns 288 grids best: more steps in the time than the default one's.
SUDOKU = ("model.layers=3", "model.width=64", "trainer.learning_rate=5e-3")
COUNTDOWN = ("trainer.learning_rate=2e-3",)
PLANNING = {
    "sudoku": [f"sudoku_4x4_{givens}.jsonl" for givens in (4, 6, 9)],
    "countdown": ["cd3_test.jsonl"],
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, help="wall-clock minutes for everything")
    parser.add_argument("--outputs", default="outputs", help="where runs go")
    parser.add_argument("--results", default=None, help="where the page goes; docs/results/reasoning-gpu or -cpu")
    parser.add_argument("--sources", type=int, default=None, help="questions a point, where not as the experiments say")
    parser.add_argument("--samples", type=int, default=None, help="samples a question, likewise")
    return parser.parse_args()


def main() -> None:
    said, gpu = arguments(), on_gpu()
    results = Path(said.results or ROOT / "docs" / "results" / f"reasoning-{'gpu' if gpu else 'cpu'}")
    outputs = Path(ROOT, said.outputs)
    more = [f"outputs={said.outputs}"]
    counts = [f"num_sources={said.sources}"] * bool(said.sources) + [f"num_samples={said.samples}"] * bool(said.samples)
    began = time.monotonic()
    minutes = {"sudoku": said.minutes / (20 if gpu else 6), "countdown": said.minutes / (5 if gpu else 2)}
    for world, words in (("sudoku", SUDOKU), ("countdown", COUNTDOWN)):
        limit = min(minutes[world], 10) if world == "sudoku" else minutes[world]
        run("train", "model=mdlm_tiny", f"dataset={world}", *words, f"max_minutes={limit:.2f}", *more)
        checkpoint = f"checkpoint={trained(outputs, f'{world}-mdlm_tiny')}"
        run("sweep", f"experiment=reasoning_{world}", checkpoint, *counts, *more)
        folder = outputs / "sweeps" / f"reasoning_{world}"
        for name in ("frontier.png", "frontier.csv", "pass_at_k.png"):
            made = folder / name
            if made.is_file():
                keep(results, [made])
                (results / name).replace(results / f"{world}-{name}")
        for name in PLANNING[world]:
            file = Path(os.environ.get("DIFFQ_DATA", "")) / "planning" / name
            if os.environ.get("DIFFQ_DATA") and file.is_file():
                run("sweep", f"experiment=planning_{world}", f"dataset.path={file}", checkpoint, *counts, *more)
    if gpu:
        limit = f"max_minutes={said.minutes / 3:.2f}"
        run("train", "model=mdlm_small", "dataset=gsm8k", "trainer=text_gpu", limit, *more)
        run("sweep", "experiment=reasoning_gsm8k", *counts, *more)
        folder = outputs / "sweeps" / "reasoning_gsm8k"
        keep(results, [folder / "frontier.png", folder / "frontier.csv", folder / "pass_at_k.png"])
    results.mkdir(parents=True, exist_ok=True)
    keep_paper(results, "2604.00375", outputs)
    print(f"{results}: {(time.monotonic() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
