"""Byte-level BPEs of other projects: RoBERTa's, and any of them cut to the pieces that a training split needs.

A small model has most of its weights in a vocabulary of 50,000 pieces, of which a small data set uses a fifth. A cut
tokenizer keeps the pieces that occur in the training texts, those that they are merged from, and all 256 bytes. So

- every training text has the pieces that the whole tokenizer gives it: a merge that takes place in such a text leads to
  a piece that occurs or to a part of one, all of which are kept with their merges, and the first of all merges that can
  be made is also the first of those that are left;
- every other text stays encodable and comes back: what is not kept falls into smaller pieces, bytes in the end.

Ids are the published ones in their order without gaps, and last the mask. Nothing is drawn, and how often a piece
occurs does not count: the same pieces give the same tokenizer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from diffq.data.tokenizers import Tokenizer
from diffq.errors import UserError
from diffq.hub import no_vain_retries

ROBERTA = "roberta-base"
_HUB = "FacebookAI/roberta-base"
_ROLES = {"pad": "<pad>", "unk": "<unk>", "start": "<s>", "end": "</s>", "mask": "<mask>"}
_BLOCK = 1000  # texts that are encoded at once

Merges = Sequence[tuple[str, str]]


def roberta_tokenizer() -> Tokenizer:
    """RoBERTa's tokenizer, 50,265 tokens of which the mask is the last: from $DIFFQ_DATA/tokenizers/roberta-base (its
    merges.txt, or GPT-2's beside it, which is the same file), else from the hub. As for any tokenizer of pairs, space
    at the ends of a text is dropped, and special tokens are not shown."""
    data = os.environ.get("DIFFQ_DATA")
    folder = Path(data) / "tokenizers" / ROBERTA if data else None
    if folder is not None and (folder / "vocab.json").is_file():
        merges = next((f for f in (folder / "merges.txt", folder.parent / "gpt2/merges.txt") if f.is_file()), None)
        if merges is None:
            raise UserError(f"{folder} has no merges.txt beside its vocab.json; put it there (GPT-2's is the same)")
        return roberta_of(folder / "vocab.json", merges)
    place = str(folder) if folder else f"$DIFFQ_DATA/tokenizers/{ROBERTA} (DIFFQ_DATA is not set)"
    try:
        from transformers import AutoTokenizer

        with no_vain_retries():
            read = AutoTokenizer.from_pretrained(_HUB, use_fast=True)
        model = json.loads(read.backend_tokenizer.to_str())["model"]
        return _byte_level(model["vocab"], _pairs(model["merges"]), _ROLES, exact=False)
    except Exception as error:  # no network, no such name: each another exception
        raise UserError(
            f"RoBERTa's vocabulary was found neither in {place} nor on the hub as {_HUB}; give a folder with its"
            " vocab.json and merges.txt as dataset.tokenizer=PATH"
        ) from error


def roberta_of(vocabulary: Path, merges: Path) -> Tokenizer:
    """The tokenizer of RoBERTa's files. UserError where they are none."""
    from tokenizers import models

    try:
        vocab, pairs = models.BPE.read_file(str(vocabulary), str(merges))
        return _byte_level(vocab, pairs, _ROLES, exact=False)
    except Exception as error:  # the backend raises plain Exceptions
        raise UserError(f"{vocabulary} and {merges} are no byte-level BPE: {error}") from error


def is_roberta(folder: Path) -> bool:
    """Whether a folder with vocab.json and merges.txt has RoBERTa's special tokens."""
    try:
        held = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(held, dict) and set(_ROLES.values()) <= held.keys()


def cut(whole: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer without the pieces that these texts do not need.

    whole: a byte-level BPE; texts that it encodes as targets, taken one block after another.
    Raises UserError where it is another kind of tokenizer.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import pre_tokenizers

    plain = json.loads(whole.to_str())
    model = plain["model"]
    vocab: dict[str, int] = model.get("vocab") if model.get("type") == "BPE" else {}
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    if not letters <= vocab.keys() or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UserError("only byte-level BPEs can be cut, such as cut:gpt2 and cut:roberta")
    names = {index: token for token, index in vocab.items()}
    merges = _pairs(model["merges"])
    needed = _with_parts(letters | {names[i] for i in _occurring(whole, texts) if i in names}, merges)
    special = {whole.token(i) for i in (*whole.specials, *whole.ends)}
    order = {token: whole.identity(token) for token in needed | special}
    mask = whole.token(whole.mask)
    kept = [*sorted(order.keys() - {mask}, key=lambda token: order[token]), mask]
    model["vocab"] = {token: index for index, token in enumerate(kept)}
    model["merges"] = [list(pair) for pair in merges if {*pair, "".join(pair)} <= needed]
    # Special tokens are entries without merges, so no text can spell one.
    plain |= {"added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
    ends = [whole.token(i) for i in whole.ends]
    return Tokenizer(Backend.from_str(json.dumps(plain)), whole.roles, whole.exact, ends=ends)


def _occurring(whole: Tokenizer, texts: Iterable[str]) -> set[int]:
    found: set[int] = set()
    rest = iter(texts)
    while block := list(islice(rest, _BLOCK)):
        for ids in whole.encode_targets(block):
            found.update(ids)
    return found


def _with_parts(tokens: set[str], merges: Merges) -> set[str]:
    """The tokens, and all that they are merged from."""
    made_of: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        made_of.setdefault(left + right, []).append((left, right))
    found, waiting = set(tokens), list(tokens)
    while waiting:
        for pair in made_of.get(waiting.pop(), ()):
            new = set(pair) - found
            found |= new
            waiting += new
    return found


def _pairs(merges: Sequence[Any]) -> Merges:
    """Merges as a tokenizer.json has them: pairs, or in older ones two words in a text."""
    return [(m[0], m[1]) if not isinstance(m, str) else (m.partition(" ")[0], m.partition(" ")[2]) for m in merges]


def _byte_level(vocab: dict[str, int], merges: Merges, roles: dict[str, str], exact: bool) -> Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    absent = [token for token in roles.values() if token not in vocab]
    if absent:
        raise UserError(f"this vocabulary has no {absent[0]}")
    backend = tokenizers.Tokenizer(models.BPE(vocab, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, roles, exact=exact)
