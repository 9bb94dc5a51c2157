"""`diffq likelihood`: perplexities of real text, exact for causal models and as upper bounds for diffusion.

The papers' protocol: unconditional, packed windows that do not overlap, every token of a window counted (Lou et al.
2024, §5.2). A result is kept under outputs/likelihood/ by what determines it, and what was scored is not scored again
when a run is cut off. Knows no sampler.

Shape suffixes: B windows, L tokens.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffq.config import Config, Request
from diffq.errors import UserError
from diffq.interrupts import reaching
from diffq.report.tables import print_table
from diffq.runs.flags import whole_number
from diffq.runs.progress import point_progress
from diffq.store.files import append, cut_back, read_json, write_json
from diffq.store.identity import digest
from diffq.store.point import Point
from diffq.store.root import Store

DRAWS = 16
REPLICATES = 2  # of which one can tell the error that drawing makes


@dataclass(frozen=True)
class Likelihood:
    """The result of one model on one split.

    nats      of each window, (windows, replicates): bounds of diffusion, exact values (one replicate) of causal models
    tokens    of each window
    """

    about: dict[str, Any]
    nats: np.ndarray
    tokens: np.ndarray

    @property
    def per_token(self) -> float:
        return float(self.nats.mean(1).sum() / self.tokens.sum())

    @property
    def drawing_error(self) -> float:
        """Standard error, nats a token, from the noise that was drawn: 0 where nothing is drawn."""
        count = self.nats.shape[1]
        if count < 2:
            return 0.0
        return float(math.sqrt((self.nats.var(axis=1, ddof=1) / count).sum()) / self.tokens.sum())

    @property
    def text_error(self) -> float | None:
        """Standard error, nats a token, from the choice of windows, the drawing included; None for a single window."""
        rows, total = self.nats.mean(1), self.tokens.sum()
        if len(rows) < 2:
            return None
        residual = rows - self.per_token * self.tokens
        return float(math.sqrt(len(rows) / (len(rows) - 1) * (residual**2).sum()) / total)

    def row(self) -> dict[str, Any]:
        """What a table and a file say of it."""
        nats = self.per_token
        return self.about | {
            "windows": len(self.tokens),
            "tokens": int(self.tokens.sum()),
            "nats_per_token": nats,
            "drawing_error": self.drawing_error,
            "text_error": self.text_error,
            "perplexity": math.exp(nats),
            "perplexity_low": math.exp(nats - 1.96 * self.drawing_error),
            "perplexity_high": math.exp(nats + 1.96 * self.drawing_error),
            "bits_per_token": nats / math.log(2),
        }


def run(request: Request) -> int:
    """Measures every model and data set that the command line names, prints a table, and returns 0."""
    from diffq.runs.grid import expand

    draws = whole_number(request.flags, "draws", DRAWS)
    points = [p.config for p in expand(request.overrides, verb="likelihood", config_dirs=request.config_dirs)]
    rows = []
    reached = ["nothing is measured yet"]
    with reaching(lambda: reached[0]):
        for config in points:
            rows.append(measure(config, draws, quiet=request.json))
            reached[0] = f"{len(rows)} of {len(points)} are measured and kept"
    if request.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows)
    return 0


def measure(config: Config, draws: int, quiet: bool = False) -> dict[str, Any]:
    """The result of one configuration as `Likelihood.row` has it, from disk where it is known."""
    from diffq.data.windows import chosen_windows, tokenise_text
    from diffq.runs.workbench import load_for, pick_device, with_checkpoint

    if config.dataset.task != "text":
        raise UserError(
            f"dataset {config.choices.dataset} is no running text, which likelihoods are of: dataset=wikitext2"
        )
    config = with_checkpoint(config)
    assert config.checkpoint is not None

    device = pick_device(config.device)
    loaded = load_for(config)
    corpus: Any = config.dataset.open()
    store = Store(Path(config.outputs))
    settings: Any = config.dataset
    denoiser = loaded.model.denoiser()
    block = min(settings.block, denoiser.max_length)
    text = tokenise_text(corpus, config.split, loaded.tokenizer, store.cache)
    wanted = config.num_sources or max(1, text.windows(block))
    windows = chosen_windows(text, settings.replace(block=block, windows=wanted, prefix=0, suffix=0, keep=()))
    exact = denoiser.process == "causal"
    about = {
        "dataset": config.choices.dataset,
        "split": config.split,
        "evaluated_on": settings.evaluated_on,
        "model": config.choices.model,
        "process": denoiser.process,
        "bound": not exact,
        "block": block,
        "draws": 0 if exact else draws * REPLICATES,
        "seed": config.seed,
        "dtype": config.dtype,
        "checkpoint": loaded.digest,
        "text": text.digest,
        "words_per_token": text.words / len(text.ids),
    }
    if settings.starts != "packed":
        about["starts"] = settings.starts
    name = f"{config.choices.dataset}-{config.choices.model}-{digest(about | {'windows': len(windows)})[:8]}"
    folder = store.outputs / "likelihood" / name
    with Point(folder).claim(wait=True):  # another process may be at it; then this one waits and reads
        held = read_json(folder / "likelihood.json")
        if held is not None:
            return dict(held)
        nats = _Kept(folder, 1 if exact else REPLICATES)
        with point_progress(name, quiet) as show:
            _fill(nats, windows, denoiser, config, draws, device, show)
        row = Likelihood(about, nats.values, np.full(len(windows), block)).row()
        write_json(folder / "likelihood.json", row)
        return row


class _Kept:
    """The nats of windows, appended to a file a batch at a time."""

    def __init__(self, folder: Path, replicates: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.replicates = folder / "nats.f64", replicates

    def resume(self, windows: int, size: int) -> int:
        """How many of so many windows are there, after cutting off what there is of a half-written batch of `size`.

        A batch is redone whole: in a smaller one the last bits of its values might be others.
        """
        row = 8 * self.replicates
        there = self.path.stat().st_size // row if self.path.exists() else 0
        done = windows if there >= windows else there // size * size
        cut_back(self.path, done * row)
        return done

    def append(self, nats: np.ndarray) -> None:
        append(self.path, nats.astype(np.float64).tobytes())

    @property
    def values(self) -> np.ndarray:
        return np.fromfile(self.path, dtype=np.float64).reshape(-1, self.replicates)


def _fill(kept: _Kept, windows: np.ndarray, denoiser: Any, config: Config, draws: int, device: Any, show: Any) -> None:
    """Scores the windows that are not there yet."""
    import time

    import torch

    from diffq.data.canvases import token_budget
    from diffq.diffusion.contracts import Canvas, row_id
    from diffq.diffusion.likelihood import bound, exact
    from diffq.rng import Rng
    from diffq.runs.sampling import Progress

    size = max(1, (config.batch_tokens or token_budget(device)) // windows.shape[1])
    began, already = time.monotonic(), kept.resume(len(windows), size)
    for first in range(already, len(windows), size):
        part = torch.from_numpy(windows[first : first + size]).to(device)
        whole = torch.ones_like(part, dtype=torch.bool)
        rows = torch.tensor([row_id(first + i, 0) for i in range(len(part))], device=device)
        canvas = Canvas(part, whole, whole, rows)
        if denoiser.process == "causal":
            nats = exact(denoiser, canvas)[:, None]
        else:
            nats = torch.stack([bound(denoiser, canvas, Rng(config.seed), draws, r) for r in range(REPLICATES)], 1)
        if not bool(nats.isfinite().all()):
            raise UserError(f"the network of {config.checkpoint} gives values that are no numbers; its weights are bad")
        kept.append(nats.cpu().numpy())
        if show is not None:
            show(Progress(first + len(part) - already, len(windows) - already, time.monotonic() - began))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    heads = ["dataset", "model", "perplexity", "nats a token", "± drawing", "± text", "windows", "block", "draws"]
    lines = [
        [
            row["dataset"],
            row["model"],
            ("≤ " if row["bound"] else "") + f"{row['perplexity']:.4g}",
            f"{row['nats_per_token']:.4f}",
            f"{row['drawing_error']:.4f}" if row["bound"] else "exact",
            "–" if row["text_error"] is None else f"{row['text_error']:.4f}",
            str(row["windows"]),
            str(row["block"]),
            str(row["draws"]) if row["bound"] else "–",
        ]
        for row in rows
    ]
    print_table("", heads, lines)
    if any(row["bound"] for row in rows):
        print("≤: an upper bound; what lies between it and the model's own perplexity is not known", file=sys.stderr)
