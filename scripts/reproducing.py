"""What the scripts that train, sweep and keep have in common. Every stage is a diffq command, shown before it runs."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def run(*words: str) -> None:
    """One diffq command; ends the script with its status where it fails."""
    command = [sys.executable, "-m", "diffq", *words]
    print("$ diffq " + shlex.join(words), flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def trained(outputs: Path, name: str) -> Path:
    """The folder of the training of this name, such as `sudoku-mdlm_tiny`, that was written last."""
    return max((outputs / "train").glob(f"{name}-*"), key=lambda place: place.stat().st_mtime)


def keep(results: Path, files: Sequence[Path]) -> None:
    """Copies those of the files that are there."""
    results.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.is_file():
            (results / file.name).write_bytes(file.read_bytes())


def keep_paper(results: Path, paper: str, outputs: Path) -> None:
    """The paper's tables, from all that lies under outputs, as paper-NAME.md."""
    from diffq.config.files import builtin_dir, read_mapping
    from diffq.runs.paper_tables import made_tables, markdown

    spec = read_mapping(builtin_dir() / "paper" / f"{paper}.yaml")
    (results / f"paper-{paper}.md").write_text(markdown(made_tables(spec, outputs)), encoding="utf-8")
