"""Training batches: pairs tokenised once, and shuffled by keys, so that batch i is known without the batches before it.

A resumed training replays nothing, and each of several processes takes its share of the same global batch. Knows no
model and no device.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from diffq.data.task import Example
from diffq.data.tokenizers import Tokenizer
from diffq.errors import UserError
from diffq.models.base import PairBatch
from diffq.rng import Rng, Stream, bits
from diffq.store.files import making

_LAYOUT = 1  # of the cached arrays


@dataclass(frozen=True)
class TokenisedPairs:
    """Pairs as flat arrays of ids; pair i has source ids [source_start[i] : source_start[i+1]], the target alike.

    index    each pair's index in its split
    dropped  how many pairs of the split were left out, being longer than the maxima or without a target
    note     that in words, or nothing
    """

    source_ids: np.ndarray
    source_start: np.ndarray
    target_ids: np.ndarray
    target_start: np.ndarray
    index: np.ndarray
    dropped: int
    note: str = ""

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is trained on, 64 hexadecimal digits; 20 ms for a hundred thousand pairs."""
        made = hashlib.sha256()
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), np.ndarray):
                made.update(
                    f"{field.name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
                )
        return made.hexdigest()

    @property
    def source_lengths(self) -> np.ndarray:
        """Tokens of each source without its two special ones: what length models are fitted to."""
        return np.diff(self.source_start) - 2

    @property
    def target_lengths(self) -> np.ndarray:
        return np.diff(self.target_start)


def tokenise(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    max_source: int,
    max_target: int,
    cache_dir: str | Path | None = None,
    raised_by: str = "dataset.max_source and dataset.max_target",
) -> TokenisedPairs:
    """The examples as ids, the first reference as target; from the cache where the same texts were tokenised before.

    max_source, max_target: in tokens, the source's special ones included; longer pairs are left out and counted.
    raised_by: the settings that set them.
    Raises UserError where no pair is left.
    """
    if cache_dir is None:
        return _tokenise(examples, tokenizer, max_source, max_target, raised_by)
    key = hashlib.sha256(f"{_LAYOUT} {tokenizer.digest} {max_source} {max_target}".encode())
    for example in examples:
        key.update(f"\0{example.index}\1{example.source}\1{example.references[0]}".encode("utf-8", "surrogatepass"))
    folder = Path(cache_dir) / "tokens" / key.hexdigest()[:24]
    if not (folder / "pairs.json").is_file():
        _store(_tokenise(examples, tokenizer, max_source, max_target, raised_by), folder)
    return _read(folder)


def _tokenise(
    examples: Sequence[Example], tokenizer: Tokenizer, max_source: int, max_target: int, raised_by: str
) -> TokenisedPairs:
    sources = tokenizer.encode_sources([e.source for e in examples])
    targets = tokenizer.encode_targets([e.references[0] for e in examples])
    lengths = zip(sources, targets, strict=True)
    kept = [i for i, (x, y) in enumerate(lengths) if len(x) <= max_source and 0 < len(y) <= max_target]
    dropped = len(examples) - len(kept)
    if not kept:
        raise UserError(
            f"none of the {len(examples)} pairs has a source of at most {max_source} and a target of 1 to {max_target}"
            f" tokens; raise {raised_by}"
        )
    note = (
        f"{dropped:,} of {len(examples):,} pairs were left out: their source has more than {max_source} tokens"
        f" or their target none or more than {max_target}"
    )
    return TokenisedPairs(
        *_flat([sources[i] for i in kept]),
        *_flat([targets[i] for i in kept]),
        index=np.array([examples[i].index for i in kept], dtype=np.int64),
        dropped=dropped,
        note=note if dropped else "",
    )


def _flat(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    start = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=start[1:])
    return np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(start[-1])), start


def _store(pairs: TokenisedPairs, folder: Path) -> None:
    """Writes a whole folder or none."""
    with making(folder) as made:
        for field in fields(pairs):
            value = getattr(pairs, field.name)
            if isinstance(value, np.ndarray):
                buffer = io.BytesIO()  # numpy's own writing to files hides why it could not
                np.save(buffer, value, allow_pickle=False)
                (made / f"{field.name}.npy").write_bytes(buffer.getbuffer())
        (made / "pairs.json").write_text(json.dumps({"dropped": pairs.dropped, "note": pairs.note}), encoding="utf-8")


def _read(folder: Path) -> TokenisedPairs:
    facts = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    arrays = {
        field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
        for field in fields(TokenisedPairs)
        if field.name not in facts
    }
    return TokenisedPairs(**arrays, **facts)


class TrainBatches:
    """The batches of a training: batch i is a function of (pairs, batch_size, seed, window) and i alone.

    Every epoch is a permutation of all pairs; epochs follow each other without a gap, so a batch may hold the end of
    one and the beginning of the next.

    window: batches whose rows are shared out by length, so that a batch has little padding; 1 is off. The rows of an
    epoch are then still drawn without replacement, and the batches of a window come in shuffled order.
    """

    def __init__(self, pairs: TokenisedPairs, batch_size: int, seed: int, window: int = 1, pad: int = 0):
        if batch_size < 1 or window < 1:
            raise ValueError(f"batch_size={batch_size} and window={window} must be at least 1")
        self.pairs, self.batch_size, self.window, self.pad = pairs, batch_size, window, pad
        self._rng = Rng(seed)
        self._orders: dict[int, np.ndarray] = {}
        self._window: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    @property
    def steps_an_epoch(self) -> float:
        return len(self.pairs) / self.batch_size

    def global_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of batch `step` (places in `pairs`), and each row's visit: the number of its epoch, from 0."""
        if self.window == 1:
            places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        else:
            places = self._places_of_window(step // self.window)[step % self.window]
        visits = places // len(self.pairs)
        rows = np.empty_like(places)
        for epoch in np.unique(visits):
            now = visits == epoch
            rows[now] = self._order(int(epoch))[places[now] % len(self.pairs)]
        return rows, visits

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch. The last few are kept."""
        if epoch not in self._orders:
            row_N = torch.arange(len(self.pairs))
            word_N = bits(self._rng.key(Stream.TRAIN_ORDER, row_N, visit=epoch))
            while len(self._orders) > 3:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = torch.argsort(word_N, stable=True).numpy()
        return self._orders[epoch]

    def _places_of_window(self, number: int) -> np.ndarray:
        if self._window[0] != number:
            size = self.window * self.batch_size
            places = np.arange(number * size, (number + 1) * size)
            rows = np.empty_like(places)
            for epoch in np.unique(places // len(self.pairs)):
                now = places // len(self.pairs) == epoch
                rows[now] = self._order(int(epoch))[places[now] % len(self.pairs)]
            order = np.lexsort((places, *self.by_length(rows)))
            by_length = places[order].reshape(self.window, self.batch_size)
            key = self._rng.key(Stream.TRAIN_ORDER, torch.arange(self.window), visit=number, position=1)
            self._window = number, by_length[torch.argsort(bits(key), stable=True).numpy()]
        return self._window[1]

    def by_length(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """What rows of like length are found by, the last first."""
        return self.pairs.source_lengths[rows], self.pairs.target_lengths[rows]

    def collate(self, rows: np.ndarray, visits: np.ndarray) -> PairBatch:
        """These rows, padded to their longest."""
        p = self.pairs
        source_BS, source_valid_BS = _padded(p.source_ids, p.source_start, rows, self.pad)
        target_BL, target_valid_BL = _padded(p.target_ids, p.target_start, rows, self.pad)
        return PairBatch(
            source_BS=source_BS,
            source_valid_BS=source_valid_BS,
            target_BL=target_BL,
            target_valid_BL=target_valid_BL,
            row_B=torch.from_numpy(np.array(p.index[rows])),
            visit_B=torch.from_numpy(np.array(visits)),
        )


def _padded(ids: np.ndarray, start: np.ndarray, rows: np.ndarray, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = start[rows + 1] - start[rows]
    offset = np.arange(int(lengths.max(initial=0)))
    valid = offset[None] < lengths[:, None]
    out = np.full(valid.shape, pad, dtype=np.int64)
    out[valid] = ids[(start[rows][:, None] + offset[None])[valid]]
    return torch.from_numpy(out), torch.from_numpy(valid)
