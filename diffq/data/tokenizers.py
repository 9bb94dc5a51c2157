"""Text to token ids and back: one class over the Hugging Face `tokenizers` backend, and the ways of making one.

Sources carry their special tokens ([CLS] … [SEP]), targets carry none, as in paper 1.
Predictions and references both go through `decode`, so that they are compared in one spelling. Knows no batches.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq.data.task import Corpus, DocumentCorpus
from diffq.errors import UserError
from diffq.hub import no_vain_retries
from diffq.store.files import write_atomic

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Of the vocabularies that we build, in the order of their ids: padding is 0. (Paper 1's own WordPiece puts [UNK] first
and pads with 0 all the same; there as here padding is masked, so nothing depends on it.)"""

KINDS = (
    "words | wordpiece:SIZE | bert | gpt2 | roberta | cut:gpt2 | cut:roberta | cut:FOLDER | characters | a Hugging Face"
    " tokenizer folder | a BERT vocabulary file"
)
BERT = "bert-base-uncased"
_ROLES = {"pad": ("pad_token",), "unk": ("unk_token",), "mask": ("mask_token",),
          "start": ("cls_token", "bos_token"), "end": ("sep_token", "eos_token")}  # fmt: skip


class Tokenizer:
    """A vocabulary with its special tokens.

    size                         number of ids
    pad, unk, start, end, mask   ids; `mask` alone is also the unconditional source of guidance
    specials                     all of these ids
    ends                         ids that end an answer; `end` is the first
    chat                         the chat template, or None
    exact                        whether decoding gives back every character: spaces at the ends are not stripped,
                                 special tokens are shown, and what a text spells like one is text
    digest                       a hash of everything that encoding and decoding depend on
    """

    def __init__(
        self, backend: Any, specials: dict[str, str], exact: bool = False, *, ends: Sequence[str] = (), chat: Any = None
    ):
        """backend: a `tokenizers.Tokenizer`; specials: the token of each role. Missing ones are added at the end.

        ends, chat: tokens that end an answer besides `end`, and a `chat.ChatTemplate`.
        """
        backend.no_padding()
        backend.no_truncation()
        missing = [token for token in specials.values() if backend.token_to_id(token) is None]
        backend.add_tokens(list(dict.fromkeys(missing)))
        backend.encode_special_tokens = exact
        self._backend, self.exact = backend, exact
        self._special_tokens = dict(sorted(specials.items()))
        ids = {role: int(backend.token_to_id(token)) for role, token in specials.items()}
        self.size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.pad, self.unk, self.mask = ids["pad"], ids["unk"], ids["mask"]
        self.start, self.end = ids["start"], ids["end"]
        self.specials: tuple[int, ...] = tuple(sorted(set(ids.values())))
        named = list(dict.fromkeys([specials["end"], *ends]))
        self.ends: tuple[int, ...] = tuple(int(backend.token_to_id(token)) for token in named)
        self.chat = chat
        self._silent = set() if exact else {self.pad, self.start, self.end, self.mask}
        text = backend.to_str() + json.dumps(self._special_tokens) + ("exact" if exact else "")
        if len(named) > 1 or chat is not None:
            text += json.dumps([named, None if chat is None else [chat.source, sorted(chat.tokens.items())]])
        self.digest: str = hashlib.sha256(text.encode()).hexdigest()

    def encode_source(self, text: str) -> list[int]:
        """[start] the text's ids [end]."""
        return self.encode_sources([text])[0]

    def encode_target(self, text: str) -> list[int]:
        """The text's ids, without special tokens; an empty text has none."""
        return self.encode_targets([text])[0]

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self.start, *ids, self.end] for ids in self.encode_targets(texts)]

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        plain = texts if self.exact else [text.strip() for text in texts]
        found = self._backend.encode_batch_fast(plain, add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a target, and which characters [first, last) of the text each of them stands for. A token that
        begins with a space has that space; tokens of bytes share a character."""
        plain = text if self.exact else text.strip()
        before = 0 if self.exact else len(text) - len(text.lstrip())
        found = self._backend.encode(plain, add_special_tokens=False)
        return list(found.ids), [(a + before, b + before) for a, b in found.offsets]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a conversation up to where the assistant's next turn begins; special tokens that the template, or
        a message, spells are those tokens. UserError where there is no chat template."""
        if self.chat is None:
            raise UserError("this tokenizer has no chat template; ask the question as plain text")
        self._backend.encode_special_tokens = False
        try:
            return list(self._backend.encode(self.chat.render(messages), add_special_tokens=False).ids)
        finally:
            self._backend.encode_special_tokens = self.exact

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids: special tokens are skipped, but for the unknown word, which stays visible."""
        return self.decode_batch([ids])[0]

    def decode_batch(self, rows: Iterable[Iterable[int]]) -> list[str]:
        kept = [[int(i) for i in ids if int(i) not in self._silent] for ids in rows]
        texts = self._backend.decode_batch(kept, skip_special_tokens=False)
        return texts if self.exact else [text.strip() for text in texts]

    def token(self, index: int) -> str:
        """How the vocabulary spells one id."""
        token = self._backend.id_to_token(index)
        return "" if token is None else token

    def identity(self, token: str) -> int:
        """The id of a token as the vocabulary spells it. UserError for none."""
        index = self._backend.token_to_id(token)
        if index is None:
            raise UserError(f"this vocabulary has no token '{token}'")
        return int(index)

    @property
    def roles(self) -> dict[str, str]:
        """The token of each role: pad, unk, start, end, mask."""
        return dict(self._special_tokens)

    def same_ids(self, other: Tokenizer) -> bool:
        """Whether every id is the same token, in the same role: rows of one's matrices are rows of the other's. How a
        text is cut into them may be written down differently."""
        mine, theirs = (t._backend.get_vocab(with_added_tokens=True) for t in (self, other))
        return bool(mine == theirs) and self.roles == other.roles

    def to_str(self) -> str:
        """The backend as a `tokenizer.json` has it."""
        return str(self._backend.to_str())

    def save(self, folder: str | Path) -> None:
        """Writes a Hugging Face tokenizer folder, which `load` reads back to the same digest."""
        folder = Path(folder)
        write_atomic(folder / "tokenizer.json", self._backend.to_str(pretty=True).encode())
        names = {names[0]: self._special_tokens[role] for role, names in _ROLES.items()}
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **names,
            "exact": self.exact,
        }
        if len(self.ends) > 1:
            config["ends"] = [self.token(index) for index in self.ends]
        if self.chat is not None:
            config = {**self.chat.tokens, **config, "chat_template": self.chat.source}  # for other readers
            config["chat"] = {"source": self.chat.source, "tokens": dict(self.chat.tokens)}
        write_atomic(folder / "tokenizer_config.json", (json.dumps(config, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a folder: one of ours, any Hugging Face one, or one with a BERT `vocab.txt` alone.

        Raises UserError where the folder holds no tokenizer.
        """
        folder = Path(folder)
        made = from_json(folder)
        if made is not None:
            return made
        if (folder / "merges.txt").is_file() and not (folder / "tokenizer_config.json").is_file():
            from diffq.data.cut_tokenizers import is_roberta, roberta_of
            from diffq.data.exact_tokenizers import byte_level

            if is_roberta(folder):
                return roberta_of(folder / "vocab.json", folder / "merges.txt")
            return byte_level(folder)
        if (folder / "vocab.txt").is_file() and not (folder / "tokenizer_config.json").is_file():
            return _from_bert_vocabulary(folder / "vocab.txt")
        return _from_transformers(str(folder), f"{folder} holds no tokenizer that can be read")


def build_tokenizer(spec: str, corpus: Corpus, cache_dir: str | Path | None = None) -> Tokenizer:
    """The tokenizer that a dataset asks for.

    spec: `words`, `wordpiece:SIZE`, `characters` (all from the training texts), `bert`, `gpt2` and `roberta` (looked
    for in $DIFFQ_DATA/tokenizers, then on the hub), `cut:` before one of the last two or before a folder (what the
    training texts need of it), a tokenizer folder, or a BERT vocabulary file.
    cache_dir: where a trained WordPiece is kept under the hash of its texts; the same texts give the same tokenizer.
    Raises UserError for a spec that is none of these.
    """
    kind, _, size = spec.partition(":")
    path = Path(spec).expanduser()
    if spec == "words":
        from diffq.data.word_tokenizers import train_words

        return train_words(_texts(corpus), getattr(corpus, "words", ()))
    if kind == "wordpiece":
        if not size.isdigit() or int(size) < len(SPECIAL_TOKENS) + 2:
            raise UserError(f"dataset.tokenizer={spec}: SIZE in wordpiece:SIZE is a whole number such as 8000")
        from diffq.data.word_tokenizers import wordpiece

        return wordpiece(int(size), _texts(corpus), cache_dir)
    if spec == "bert":
        return _bert()
    if kind == "cut" and size:
        from diffq.data.cut_tokenizers import cut

        return cut(build_tokenizer(size, corpus, cache_dir), _stream(corpus))
    if spec == "roberta":
        from diffq.data.cut_tokenizers import roberta_tokenizer

        return roberta_tokenizer()
    if spec in ("gpt2", "characters"):
        from diffq.data import exact_tokenizers

        return exact_tokenizers.gpt2_tokenizer() if spec == "gpt2" else exact_tokenizers.characters(_texts(corpus))
    if path.is_dir():
        return Tokenizer.load(path)
    if path.is_file():
        return Tokenizer.load(path.parent) if path.name == "tokenizer.json" else _from_bert_vocabulary(path)
    raise UserError(f"dataset.tokenizer={spec} is neither a known kind nor a path that exists; allowed: {KINDS}")


def _texts(corpus: Corpus) -> list[str]:
    """The texts that a tokenizer is trained on."""
    return list(_stream(corpus))


def _stream(corpus: Corpus) -> Iterator[str]:
    """The same one after another."""
    if isinstance(corpus, DocumentCorpus):
        yield from corpus.documents("train")
        return
    for example in corpus.split("train"):
        yield from (example.source, *example.references)


def own_specials() -> dict[str, str]:
    """The token of each role in the vocabularies that we build."""
    return dict(zip(("pad", "unk", "start", "end", "mask"), SPECIAL_TOKENS, strict=True))


def _bert() -> Tokenizer:
    places = []
    if data := os.environ.get("DIFFQ_DATA"):
        folder = Path(data) / "tokenizers" / BERT
        if folder.is_dir():
            return Tokenizer.load(folder)
        places.append(str(folder))
    else:
        places.append(f"$DIFFQ_DATA/tokenizers/{BERT} (DIFFQ_DATA is not set)")
    missing = (
        f"BERT's vocabulary was found neither in {places[0]} nor on the hub as {BERT};"
        " give its file or folder as dataset.tokenizer=PATH"
    )
    return _from_transformers(BERT, missing)


def _from_bert_vocabulary(path: Path) -> Tokenizer:
    """BERT's uncased tokenizer from its file, one WordPiece a line, the line number being the id."""
    lines = path.read_text(encoding="utf-8").split("\n")
    tokens = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    absent = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if absent or len(vocabulary) != len(tokens):
        why = f"it has no {absent[0]}" if absent else "a token stands in it twice"
        raise UserError(f"{path} is no BERT vocabulary file: {why}; expected one WordPiece a line")
    from diffq.data.word_tokenizers import wordpiece_of

    return wordpiece_of(vocabulary)


def wordpiece_file(path: str | Path) -> Tokenizer:
    """The lower-casing WordPiece of a `tokenizer.json` that names no decoder and no roles, as paper 1 wrote its own;
    ids are the file's. UserError where it is none, or lacks a special token."""
    import tokenizers

    try:
        vocabulary = tokenizers.Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the backend raises plain Exceptions
        raise UserError(f"{path} holds no readable tokenizer: {error}") from error
    absent = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if absent:
        raise UserError(f"{path} is no WordPiece of paper 1: it has no {absent[0]}")
    from diffq.data.word_tokenizers import wordpiece_of

    return wordpiece_of(vocabulary)


def from_json(folder: Path) -> Tokenizer | None:
    """A folder with `tokenizer.json` whose configuration names every role, as our own do; None where it does not."""
    import tokenizers

    from diffq.data.chat import template_of

    file, config_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not file.is_file() or not config_file.is_file():
        return None
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        specials = _specials_of(config)
        if len(specials) < len(_ROLES):
            return None
        exact, ends = bool(config.get("exact")), config.get("ends") or ()
        backend = tokenizers.Tokenizer.from_file(str(file))
        return Tokenizer(backend, specials, exact, ends=ends, chat=template_of(folder))
    except UserError:
        raise
    except Exception as error:  # the backend raises plain Exceptions
        raise UserError(f"{folder} holds no readable tokenizer: {error}") from error


def _specials_of(config: dict[str, Any]) -> dict[str, str]:
    """The token of each role that a configuration names."""
    found = {}
    for role, names in _ROLES.items():
        for name in names:
            value = config.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if value and role not in found:
                found[role] = str(value)
    return found


def _from_transformers(name: str, missing: str) -> Tokenizer:
    """What `AutoTokenizer` reads. Roles it lacks are filled: start and end by each other, the rest by new tokens."""
    from transformers import AutoTokenizer

    try:
        with no_vain_retries(name):
            read = AutoTokenizer.from_pretrained(name, use_fast=True)
        backend = read.backend_tokenizer
    except Exception as error:  # a wrong folder, no network, no fast version: each another exception
        raise UserError(missing) from error
    specials = _specials_of({n: getattr(read, n, None) for names in _ROLES.values() for n in names})
    for role, other in (("start", "end"), ("end", "start")):
        if role not in specials and other in specials:
            specials[role] = specials[other]
    for role, token in own_specials().items():
        specials.setdefault(role, token)
    return Tokenizer(backend, specials)
