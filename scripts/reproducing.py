"""What the scripts that train, sweep and keep have in common. Every stage is a diffq command, shown before it runs."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def arguments(said: str, results: str) -> argparse.ArgumentParser:
    """What every script is told: a budget, where runs go, and where the page goes."""
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, help="wall-clock minutes, most of them for trainings")
    parser.add_argument("--outputs", default="outputs", help="where runs go")
    parser.add_argument("--results", default=None, help=f"where the page goes; docs/results/{results}-gpu or -cpu")
    return parser


def countable(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of a script whose points can be made smaller."""
    parser.add_argument("--sources", type=int, default=None, help="sources a point, where not as the experiments say")
    parser.add_argument("--samples", type=int, default=None, help="samples a source, likewise")
    return parser


def counts(said: argparse.Namespace) -> list[str]:
    """What was told of them, as words of a command."""
    asked = (("num_sources", said.sources), ("num_samples", said.samples))
    return [f"{name}={value}" for name, value in asked if value]


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def run(*words: str, held: bool = False) -> str:
    """One diffq command; ends the script with its status where it fails. held: what it prints is returned, and shown at
    its end; else it has the terminal to itself."""
    command = [sys.executable, "-m", "diffq", *words]
    print("$ diffq " + shlex.join(words), flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE if held else None)
    print(done.stdout or "", end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def train(*words: str) -> Path:
    """The folder of a training, finished now or earlier: what `diffq train` begins its last line with."""
    return Path(ROOT, run("train", *words, held=True).splitlines()[-1].partition(": ")[0])


def keep(results: Path, files: Sequence[Path], prefix: str = "") -> None:
    """Copies those of the files that are there. prefix: what stands before their names then."""
    results.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.is_file():
            (results / f"{prefix}{file.name}").write_bytes(file.read_bytes())


def keep_paper(results: Path, paper: str, outputs: Path) -> None:
    """The paper's tables, from all that lies under outputs, as paper-NAME.md."""
    from diffq.config.files import builtin_dir, read_mapping
    from diffq.runs.paper_tables import made_tables, markdown

    spec = read_mapping(builtin_dir() / "paper" / f"{paper}.yaml")
    (results / f"paper-{paper}.md").write_text(markdown(made_tables(spec, outputs)), encoding="utf-8")
