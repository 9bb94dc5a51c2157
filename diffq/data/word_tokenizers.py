"""Tokenizers of lower-cased words: whole words, and WordPieces, trained on a dataset's texts or read from a vocabulary.

Knows no files of tokenizers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from diffq.data.tokenizers import SPECIAL_TOKENS, Tokenizer, own_specials
from diffq.store.files import making

_ALPHABET = 1000  # characters that a trained WordPiece keeps, the trainer's own default
_TIDY = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
         (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


def _plain_backend(model: Any) -> Any:
    """BERT's normalisation (lower case, no accents) and splitting at spaces and punctuation."""
    import tokenizers

    backend = tokenizers.Tokenizer(model)
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return backend


def train_words(texts: Sequence[str], words: Iterable[str]) -> Tokenizer:
    """Every word that the dataset names, then every other of the texts, the most frequent first."""
    import tokenizers

    found = _by_frequency(_count_words(texts))
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *words, *found)))}
    return Tokenizer(_plain_backend(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")), own_specials())


def _count_words(texts: Sequence[str]) -> Counter[str]:
    import tokenizers

    backend = _plain_backend(tokenizers.models.WordLevel({}, unk_token="[UNK]"))
    counts: Counter[str] = Counter()
    for first in range(0, len(texts), 1000):
        block = backend.normalizer.normalize_str("\n".join(texts[first : first + 1000]))
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(block))
    return counts


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))


def wordpiece(size: int, texts: Sequence[str], cache_dir: str | Path | None) -> Tokenizer:
    """A WordPiece trained on the texts, kept under their hash where there is a folder for it."""
    if cache_dir is None:
        return _train_wordpiece(size, texts)
    import tokenizers

    key = hashlib.sha256(f"wordpiece {size} {tokenizers.__version__}".encode())
    for text in texts:
        key.update(b"\0" + text.encode("utf-8", "surrogatepass"))
    folder = Path(cache_dir) / "tokenizers" / f"wordpiece{size}-{key.hexdigest()[:16]}"
    if not (folder / "tokenizer.json").is_file():
        tokenizer = _train_wordpiece(size, texts)
        with making(folder) as made:
            tokenizer.save(made)
    return Tokenizer.load(folder)


def _train_wordpiece(size: int, texts: Sequence[str]) -> Tokenizer:
    """Paper 1's own tokenizer (lower-casing BertNormalizer, BertPreTokenizer) of at most `size` tokens.

    The alphabet is fixed here, at the start and inside of words: the trainer numbers characters in the order of a hash
    table that differs from run to run, and breaks ties between merges by these numbers.
    """
    import tokenizers

    first: Counter[str] = Counter()
    inner: Counter[str] = Counter()
    for word, count in _count_words(texts).items():
        first[word[0]] += count
        for character in word[1:]:
            inner[character] += count
    most = max(1, min(_ALPHABET, size // 4))
    kept = set(_by_frequency(first + inner)[:most])
    inside = [f"##{c}" for c in sorted(kept & set(inner))]
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *inside],
        initial_alphabet=sorted(kept),
        limit_alphabet=len(kept),
        show_progress=False,
    )
    trained = _plain_backend(tokenizers.models.WordPiece(unk_token="[UNK]"))
    trained.train_from_iterator(texts, trainer)
    return wordpiece_of(trained.get_vocab())


def wordpiece_of(vocabulary: dict[str, int]) -> Tokenizer:
    """Its `decode` spaces as transformers 4 did for BERT ("it's", "what?"), the spelling that paper 1 scored."""
    import tokenizers
    from tokenizers import decoders

    backend = _plain_backend(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tidy = [decoders.Replace(old, new) for old, new in _TIDY]
    backend.decoder = decoders.Sequence([decoders.WordPiece(cleanup=False), decoders.Fuse(), *tidy])
    return Tokenizer(backend, own_specials())
