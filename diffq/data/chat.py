"""Tokenizers of published diffusion language models, and the chat templates that come with them.

A template is applied by jinja2 in its sandbox, with the settings and the names that `transformers` gives it; no code of
a checkpoint is run, and a template cannot call any. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from diffq.data.tokenizers import Tokenizer, from_json
from diffq.errors import UserError

TEMPLATE = "chat_template.jinja"
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Messages = Sequence[Mapping[str, str]]
"""Turns of a conversation: `role` (user, assistant, system) and `content`."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the special tokens that it may name (bos_token, eos_token, …)."""

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(self, messages: Messages, add_generation_prompt: bool = True) -> str:
        """The text of a conversation; with `add_generation_prompt` up to where the assistant's next turn begins.

        UserError where the template refuses it.
        """
        import jinja2

        try:
            return str(
                _environment()
                .from_string(self.source)
                .render(
                    messages=[dict(m) for m in messages],
                    tools=None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                    **self.tokens,
                )
            )
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template of this tokenizer refuses the conversation: {error}") from error


def _environment() -> Any:
    """As `transformers` sets it up, but for its marking of the assistant's words, which is for training alone."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def template_of(folder: Path) -> ChatTemplate | None:
    """The chat template of a tokenizer folder: its file, else what tokenizer_config.json has, the one named `default`
    where there are several. None where there is none."""
    config = _read(folder / "tokenizer_config.json")
    if isinstance(config.get("chat"), dict):  # as we write it, with the tokens that were named at first
        return ChatTemplate(**config["chat"])
    source = config.get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default") or next(iter(named.values()), None)
    if (folder / TEMPLATE).is_file():
        source = (folder / TEMPLATE).read_text(encoding="utf-8")
    if not source:
        return None
    tokens = {}
    for name in _NAMES:
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if value:
            tokens[name] = str(value)
    return ChatTemplate(str(source), tokens)


def chat_folder(folder: Path, *, mask: int, end: int | None, pad: int | None, ends: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer of a checkpoint whose configuration names its special tokens by their ids; one of ours as it is.

    ends: tokens that end an answer where the vocabulary has them, the first of them if `end` is None.
    UserError where there is no tokenizer, and for an id that it has no token for.
    """
    own = from_json(folder) if "exact" in _read(folder / "tokenizer_config.json") else None
    if own is not None and own.mask == mask and end in (None, own.end):
        return own
    backend = _backend(folder)

    def token(name: str, index: int) -> str:
        found = backend.id_to_token(int(index))
        if found is None:
            raise UserError(f"{folder / 'config.json'}: {name}={index}, and the tokenizer has no token of that id")
        return str(found)

    known = [name for name in ends if backend.token_to_id(name) is not None]
    if end is None and not known:
        raise UserError(f"{folder / 'config.json'} does not say eos_token_id, and the tokenizer has none of {ends}")
    last = token("eos_token_id", end) if end is not None else known[-1]
    config = _read(folder / "tokenizer_config.json")
    start = config.get("bos_token")
    start = start.get("content") if isinstance(start, dict) else start
    if start is None or backend.token_to_id(start) is None:
        start = last
    roles = {
        "pad": token("pad_token_id", pad) if pad is not None else last, "unk": last, "start": start, "end": last,
        "mask": token("mask_token_id", mask),
    }  # fmt: skip
    backend.post_processor = None
    return Tokenizer(backend, roles, exact=True, ends=[last, *known], chat=template_of(folder))


def _backend(folder: Path) -> Any:
    """`tokenizer.json`, or else a byte-level BPE in Qwen's form, which Dream is published with."""
    import tokenizers

    if (folder / "tokenizer.json").is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the backend raises plain Exceptions
            raise UserError(f"{folder / 'tokenizer.json'} is no tokenizer that can be read: {error}") from error
    if (folder / "merges.txt").is_file() and (folder / "vocab.json").is_file():
        return _qwen(folder)
    raise UserError(
        f"{folder} holds no tokenizer; put its tokenizer.json, or vocab.json and merges.txt, beside the weights"
    )


def _qwen(folder: Path) -> Any:
    """vocab.json and merges.txt with Qwen's splitting, and the special tokens of tokenizer_config.json at their ids."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    try:
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    except Exception as error:  # the backend raises plain Exceptions
        raise UserError(f"{folder} holds no readable byte-level BPE: {error}") from error
    split = pre_tokenizers.Split(tokenizers.Regex(_QWEN_WORDS), behavior="isolated")
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    added = _read(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    for index, entry in sorted(added.items(), key=lambda item: int(item[0])):
        backend.add_special_tokens([tokenizers.AddedToken(entry["content"], special=True, normalized=False)])
        found = backend.token_to_id(entry["content"])
        if found != int(index):
            raise UserError(
                f"{folder}: {entry['content']} should be token {index} and would be {found}; put a tokenizer.json into"
                " the folder"
            )
    return backend


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from error
    return value if isinstance(value, dict) else {}
