"""Two trainings of a few steps, made once for all tests that sample."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from diffq.cli import main

STEPS = ("trainer.max_minutes=null", "trainer.max_steps=12", "trainer.validation_sources=0")


def train_both(outputs: Path) -> Path:
    """An outputs folder that holds a trained gaussian_tiny and a trained causal_seq2seq_tiny."""
    for model in ("gaussian_tiny", "causal_seq2seq_tiny"):
        assert main(["train", f"model={model}", f"outputs={outputs}", *STEPS]) == 0
    return outputs


def copy_of(trained: Path, to: Path) -> Path:
    """A fresh outputs folder with the trainings alone."""
    shutil.copytree(trained / "train", to / "train")
    return to


def samples(outputs: Path) -> dict[str, bytes]:
    """The bytes of every samples.jsonl, by its point's folder."""
    return {str(p.parent.relative_to(outputs)): p.read_bytes() for p in sorted(outputs.glob("points/**/samples.jsonl"))}


def sweep(outputs: Path, *words: str) -> int:
    return main(["sweep", f"outputs={outputs}", "num_sources=12", "num_samples=2", "--json", *words])


def command(outputs: Path, *words: str) -> Sequence[str]:
    """The same as a command line for a process of its own."""
    import sys

    return [sys.executable, "-m", "diffq", "sweep", f"outputs={outputs}", "num_sources=12", "num_samples=2", *words]
