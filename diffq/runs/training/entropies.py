"""How uncertain a frozen model is of each token of each target: what ENS orders its masks by.

    frozen_full   each token with its own position masked and everything else seen: a row a token
    frozen_once   all tokens in one pass in which nothing is masked: cheap, and an approximation, since the model sees
                  the token that it is asked about

(Koh et al., arXiv 2411.06438; which model and which context the paper means is not known: reconstructed.)

Computed once for a training set and kept under the digests of weights and data, in parts, so that one that was cut off
goes on with the next part. Knows no loss.

Shape suffixes: B rows, L positions, R places of a room, N asked positions.
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from diffq.data.canvases import token_budget
from diffq.data.laid_out import LaidOutBatches
from diffq.diffusion.alone import each_alone
from diffq.diffusion.contracts import Canvas
from diffq.diffusion.reductions import Entropy
from diffq.errors import UserError
from diffq.models.checkpoints import Loaded, load
from diffq.models.entropy_masks import Fill, Masking, fills, room_bins
from diffq.models.starts import place_of, require_vocabulary
from diffq.runs.progress import point_progress
from diffq.runs.sampling import Progress
from diffq.store.files import making

_LAYOUT = 1  # of the cached arrays
_PART = 1024  # pairs of a part
_TOKENS = 8192  # of a network call on a CPU

From = Literal["frozen_full", "frozen_once"]


def frozen_model(setting: str, value: str, tokenizer: Any, device: torch.device) -> Loaded:
    """The model that entropies are asked of. UserError where it is none of masks or has another vocabulary."""
    folder = place_of(setting, value)
    loaded = load(folder, device)
    if loaded.model.process != "absorbing":
        raise UserError(
            f"{setting}={value} is a {loaded.model.process} model; entropies of masked tokens need one of masks"
        )
    require_vocabulary(setting, value, folder, loaded.tokenizer, tokenizer)
    return loaded


@dataclass(frozen=True)
class FrozenEntropies:
    """The entropies of the targets of some pairs, in nats; where fill is `apart`, those of fillings are not asked for
    and are 0."""

    laid_out: LaidOutBatches
    loaded: Loaded
    how: From
    fill: Fill
    device: torch.device

    @property
    def digest(self) -> str:
        """Of everything that they depend on."""
        made = f"{_LAYOUT} {_PART} {self.how} {self.fill} {self.laid_out.room} {self.laid_out.separator}"
        return hashlib.sha256(f"{made} {self.loaded.digest} {self.laid_out.pairs.digest}".encode()).hexdigest()

    def all(self, cache: Path, quiet: bool = True) -> np.ndarray:
        """(pairs, R) float32; from the cache, as far as they are there."""
        count, folder, began = len(self.laid_out.pairs), cache / "entropies" / self.digest[:24], time.monotonic()
        parts = []
        firsts = range(0, count, _PART)
        if not quiet and not all(_file(folder, first).is_file() for first in firsts):
            print(f"asking {self.how} entropies of {count:,} targets, once", file=sys.stderr)
        with point_progress("entropies", quiet) as show:
            for first in firsts:
                place = _file(folder, first)
                if not place.is_file():
                    made = self.of(np.arange(first, min(first + _PART, count)))
                    with making(place.parent) as new:
                        buffer = io.BytesIO()
                        np.save(buffer, made, allow_pickle=False)
                        (new / place.name).write_bytes(buffer.getbuffer())
                parts.append(np.load(place, allow_pickle=False))
                if show is not None:
                    done = min(first + _PART, count)
                    show(Progress(done, count, time.monotonic() - began))
        return np.concatenate(parts)

    @torch.no_grad()
    def of(self, rows: np.ndarray) -> np.ndarray:
        """Those of some pairs, (rows, R) float32."""
        out = np.zeros((len(rows), self.laid_out.room), dtype=np.float32)
        order = np.argsort(self.laid_out.pairs.source_lengths[rows], kind="stable")
        budget = max(_TOKENS, token_budget(self.device))
        width = int(self.laid_out.pairs.source_lengths[rows].max()) + self.laid_out.room + 4
        for at in range(0, len(rows), size := max(1, budget // width)):
            some = order[at : at + size]
            out[some] = self._of_batch(rows[some], budget)
        return out

    def _of_batch(self, rows: np.ndarray, budget: int) -> np.ndarray:
        tokens, room, seen = (torch.from_numpy(x).to(self.device) for x in self.laid_out.canvases(rows))
        asked_BL = room & ~fills(tokens, room, self.laid_out.end) if self.fill == "apart" else room
        canvas = Canvas(tokens, room, seen, torch.arange(len(tokens), device=self.device))
        denoiser = self.loaded.model.denoiser()
        entropy_BL = torch.zeros(tokens.shape, dtype=torch.float64, device=self.device)
        if self.how == "frozen_once":
            session = denoiser.open(canvas)
            hidden = session.run(tokens, 1 / room.sum(1).double())
            (entropy_BL[asked_BL],) = session.read(hidden, asked_BL.flatten().nonzero().squeeze(1), [Entropy()])
        else:
            some = max(1, budget // tokens.shape[1])
            for row_N, place_N, (entropy_N,) in each_alone(denoiser, canvas, asked_BL, lambda _: [Entropy()], some):
                entropy_BL[row_N, place_N] = entropy_N
        return entropy_BL[room].reshape(len(rows), -1).float().cpu().numpy()


def bins_of_all(laid_out: LaidOutBatches, entropies: np.ndarray, masking: Masking) -> np.ndarray:
    """The bin of every place of every room, (pairs, R) of small integers."""
    out = np.zeros(entropies.shape, dtype=np.int8)
    for first in range(0, len(entropies), _PART):
        rows = np.arange(first, min(first + _PART, len(entropies)))
        tokens, room, _ = laid_out.canvases(rows)
        room_BR = torch.from_numpy(tokens[room].reshape(len(rows), -1))
        entropy_BR = torch.from_numpy(entropies[rows])
        bins = room_bins(entropy_BR, room_BR, torch.ones_like(room_BR, dtype=torch.bool), laid_out.end, masking)
        out[rows] = bins.numpy()
    return out


def _file(folder: Path, first: int) -> Path:
    return folder / f"{first:08}" / "entropies.npy"
