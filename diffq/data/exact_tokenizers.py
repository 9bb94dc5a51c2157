"""Tokenizers of running text, which give back every character: GPT-2's byte-level BPE, and single characters.

In both, one token ends a text and also stands before its first, and the mask is the last id: models of tokens alone
leave it out. What a document spells like a special token is text like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffq.data.tokenizers import Tokenizer
from diffq.errors import UserError
from diffq.hub import no_vain_retries

END, MASK, UNKNOWN = "<|endoftext|>", "[MASK]", "\ufffd"


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's tokenizer, 50,257 tokens and the mask: from $DIFFQ_DATA/tokenizers/gpt2, else from the hub."""
    data = os.environ.get("DIFFQ_DATA")
    folder = Path(data) / "tokenizers" / "gpt2" if data else None
    if folder is not None and (folder / "vocab.json").is_file():
        return byte_level(folder)
    place = str(folder) if folder else "$DIFFQ_DATA/tokenizers/gpt2 (DIFFQ_DATA is not set)"
    try:
        from transformers import AutoTokenizer

        with no_vain_retries():
            return exact(AutoTokenizer.from_pretrained("gpt2").backend_tokenizer)
    except Exception as error:  # no network, no such name: each another exception
        raise UserError(
            f"GPT-2's vocabulary was found neither in {place} nor on the hub as gpt2; give a folder with its vocab.json"
            " and merges.txt as dataset.tokenizer=PATH"
        ) from error


def byte_level(folder: Path) -> Tokenizer:
    """A byte-level BPE from `vocab.json` and `merges.txt`."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the backend raises plain Exceptions
        raise UserError(f"{folder} holds no readable byte-level BPE: {error}") from error
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return exact(backend)


def exact_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, its own start and end tokens kept. UserError where there is none."""
    if (folder / "tokenizer_config.json").is_file() or (folder / "tokenizer.json").is_file():
        try:
            from transformers import AutoTokenizer

            read = AutoTokenizer.from_pretrained(folder, use_fast=True)
            end = read.eos_token or END
            return exact(read.backend_tokenizer, end, read.bos_token or end)
        except UserError:
            raise
        except Exception as error:  # a wrong folder, no fast version: each another exception
            raise UserError(f"{folder} holds no tokenizer that can be read: {error}") from error
    if (folder / "merges.txt").is_file():
        return byte_level(folder)
    raise UserError(
        f"{folder} holds no tokenizer; put its tokenizer.json, or vocab.json and merges.txt, beside the weights"
    )


def exact(backend: Any, end: str = END, start: str | None = None) -> Tokenizer:
    """A tokenizer whose special tokens are the end of the text, wherever one is needed, and the mask, put last."""
    if backend.token_to_id(end) is None:
        raise UserError(f"this tokenizer has no {end}, which ends a text")
    start = start or end
    backend.add_special_tokens(list(dict.fromkeys([end, start, MASK])))
    backend.post_processor = None
    roles = {"pad": end, "unk": end, "start": start, "end": end, "mask": MASK}
    return Tokenizer(backend, roles, exact=True)


def characters(texts: Iterable[str]) -> Tokenizer:
    """One token a character of the texts, in the order of their code points; others become �."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    found: set[str] = set()
    for text in texts:
        found |= set(text)
    vocabulary = {c: i for i, c in enumerate([END, UNKNOWN, *sorted(found - {UNKNOWN})])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return exact(backend)
