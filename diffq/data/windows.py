"""Running text as ids: tokenised once, kept as one long array that is mapped into memory, and cut into windows.

Documents stand one after another, each closed by the end token, and windows of `block` tokens are cut without regard
to them (packing, as the papers have it). A training shuffles windows by keys, so that batch i is known without the
batches before it. Knows no model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from diffq.data.task import Example, Split
from diffq.data.text import Text, TextCorpus
from diffq.data.tokenizers import Tokenizer
from diffq.errors import UserError
from diffq.models.base import TextBatch
from diffq.rng import Rng, Stream, bits
from diffq.store.files import making

_LAYOUT = 1  # of the cached arrays
_AT_ONCE = 512  # documents handed to the tokenizer together: memory does not grow with the corpus
_IDS, _STARTS, _FACTS = "ids.bin", "starts.bin", "text.json"


@dataclass(frozen=True)
class TokenisedText:
    """A split as ids.

    ids     (tokens,) unsigned integers, the end token after every document
    starts  (documents + 1,) where each document begins, and where the text ends
    words   words of the text, split at white space
    """

    ids: np.ndarray
    starts: np.ndarray
    words: int
    digest: str

    def windows(self, block: int) -> int:
        """How many whole windows of `block` tokens there are."""
        return len(self.ids) // block

    def window(self, index: int, block: int) -> np.ndarray:
        return np.asarray(self.ids[index * block : (index + 1) * block])


def tokenise_text(
    corpus: TextCorpus, split: Split, tokenizer: Tokenizer, cache_dir: str | Path | None = None
) -> TokenisedText:
    """A split of a corpus as ids; from the cache where the same files were tokenised by the same tokenizer before."""
    if cache_dir is None:
        ids, starts, words = _collect(_encoded(corpus.documents(split), tokenizer))
        return TokenisedText(ids, starts, words, hashlib.sha256(ids.tobytes()).hexdigest())
    key = hashlib.sha256(f"{_LAYOUT} {tokenizer.digest} {corpus.fingerprint(split)}".encode()).hexdigest()
    folder = Path(cache_dir) / "text" / key[:24]
    if not (folder / _FACTS).is_file():
        _store(_encoded(corpus.documents(split), tokenizer), tokenizer, folder)
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    ids = np.memmap(folder / _IDS, dtype=facts["dtype"], mode="r")
    starts = np.fromfile(folder / _STARTS, dtype=np.int64)
    return TokenisedText(ids, starts, facts["words"], facts["digest"])


def _encoded(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[list[int], int]]:
    """Each document's ids with the end token, and its words."""
    for part in itertools.batched(documents, _AT_ONCE) if hasattr(itertools, "batched") else _batched(documents):
        for text, ids in zip(part, tokenizer.encode_targets(list(part)), strict=True):
            yield [*ids, tokenizer.end], len(text.split())


def _batched(documents: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """`itertools.batched`, which Python 3.11 lacks."""
    rest = iter(documents)
    while part := tuple(itertools.islice(rest, _AT_ONCE)):
        yield part


def _collect(encoded: Iterable[tuple[list[int], int]]) -> tuple[np.ndarray, np.ndarray, int]:
    held, words = list(encoded), 0
    starts = np.zeros(len(held) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids, _ in held], out=starts[1:])
    words = sum(count for _, count in held)
    return np.fromiter(itertools.chain.from_iterable(ids for ids, _ in held), np.uint32, int(starts[-1])), starts, words


def _store(encoded: Iterable[tuple[list[int], int]], tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a whole folder or none, a document at a time."""
    dtype = np.uint16 if tokenizer.size <= 1 << 16 else np.uint32
    made, words, at = hashlib.sha256(), 0, 0
    starts = [0]
    with making(folder) as new:
        with open(new / _IDS, "wb") as file:
            for ids, count in encoded:
                data = np.asarray(ids, dtype=dtype).tobytes()
                file.write(data)
                made.update(data)
                at, words = at + len(ids), words + count
                starts.append(at)
        (new / _STARTS).write_bytes(np.asarray(starts, dtype=np.int64).tobytes())
        facts = {"dtype": np.dtype(dtype).name, "tokens": at, "words": words, "digest": made.hexdigest()}
        (new / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


class Shuffled:
    """The rows of a training's batches: those of batch i are a function of (count, batch_size, seed) and i alone.

    Every epoch is a permutation of all rows; epochs follow each other without a gap.
    """

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size = count, batch_size
        self._rng = Rng(seed)
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def steps_an_epoch(self) -> float:
        return self.count / self.batch_size

    def global_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of batch `step`, and each one's visit: the number of its epoch, from 0."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        visits = places // self.count
        rows = np.empty_like(places)
        for epoch in np.unique(visits):
            now = visits == epoch
            rows[now] = self._order(int(epoch))[places[now] % self.count]
        return rows, visits

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch. The last few are kept."""
        if epoch not in self._orders:
            word_N = bits(self._rng.key(Stream.TRAIN_ORDER, torch.arange(self.count), visit=epoch))
            while len(self._orders) > 1:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = torch.argsort(word_N, stable=True).numpy()
        return self._orders[epoch]


class TextBatches(Shuffled):
    """The batches of a training on windows of `block` tokens. UserError where the text has not one window."""

    def __init__(self, text: TokenisedText, block: int, batch_size: int, seed: int):
        if not text.windows(block):
            raise UserError(
                f"the text has {len(text.ids)} tokens, fewer than one window of dataset.block={block}; make it shorter"
            )
        super().__init__(text.windows(block), batch_size, seed)
        self.text, self.block = text, block

    def collate(self, rows: np.ndarray, visits: np.ndarray) -> TextBatch:
        """These windows."""
        tokens = np.stack([self.text.window(int(row), self.block) for row in rows]).astype(np.int64)
        tokens_BL = torch.from_numpy(tokens)
        return TextBatch(
            tokens_BL=tokens_BL,
            valid_BL=torch.ones_like(tokens_BL, dtype=torch.bool),
            row_B=torch.from_numpy(np.array(rows, dtype=np.int64)),
            visit_B=torch.from_numpy(np.array(visits, dtype=np.int64)),
        )


def chosen_windows(text: TokenisedText, settings: Text) -> np.ndarray:
    """The windows that prompts are taken from and samples are held against, (windows, block).

    packed: spread evenly over the text; document: the first tokens of documents that are long enough, likewise.
    UserError where there is none.
    """
    block, wanted = settings.block, settings.windows
    if settings.starts == "document":
        lengths = np.diff(text.starts) - 1  # without the end token
        starts = text.starts[:-1][lengths >= block]
        what = f"document of {block} tokens"
    else:
        starts = np.arange(text.windows(block), dtype=np.int64) * block
        what = f"window of dataset.block={block} tokens"
    if not len(starts):
        raise UserError(f"the split has {len(text.ids)} tokens and not one {what}; make the block shorter")
    count = min(wanted, len(starts))
    picked = starts[np.arange(count) * len(starts) // count]
    return np.stack([np.asarray(text.ids[s : s + block]) for s in picked]).astype(np.int64)


@dataclass(frozen=True)
class TextQuestions:
    """What is asked of a split of running text.

    Without given positions there is one question, an empty source whose references are all the windows; else every
    window is one, and its reference is the whole of it.
    """

    settings: Text
    windows: np.ndarray
    tokenizer: Tokenizer

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        texts = self.tokenizer.decode_batch(self.windows.tolist())
        if not self.settings.given:
            return (Example(index=0, source="", references=tuple(texts)),)
        return tuple(
            Example(index=i, source=self._prompt(window), references=(text,))
            for i, (window, text) in enumerate(zip(self.windows, texts, strict=True))
        )

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The given positions as spans [first, last)."""
        return spans_of(self.settings.given)

    def given_ids(self, source: int) -> list[int]:
        """The given tokens of a question, in order."""
        return [int(self.windows[source][i]) for i in self.settings.given]

    def _prompt(self, window: np.ndarray) -> str:
        parts = self.tokenizer.decode_batch([window[a:b].tolist() for a, b in self.spans])
        return " … ".join(parts)


def spans_of(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted positions as spans [first, last)."""
    spans: list[tuple[int, int]] = []
    for i in positions:
        if spans and spans[-1][1] == i:
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
    return spans


def text_questions(
    corpus: TextCorpus, split: Split, tokenizer: Tokenizer, cache_dir: str | Path | None = None
) -> TextQuestions:
    """The questions of a split under a tokenizer."""
    text = tokenise_text(corpus, split, tokenizer, cache_dir)
    return TextQuestions(corpus.settings, chosen_windows(text, corpus.settings), tokenizer)
