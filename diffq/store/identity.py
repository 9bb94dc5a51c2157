"""What determines the samples of a point: its key, and the name of its folder.

Knows no network and no sampler, only their typed settings and digests. It never looks at a file of the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffq.settings import Settings, as_mapping, key_fields

KEY_VERSION = 1
MAX_NAME = 120
_MAX_PART = 24  # where the whole name would be too long, each of its first three parts is cut to this


def canonical_json(value: Any) -> str:
    """One text for one value: keys sorted, no spaces, 2.0 written as 2. NaN and infinity are refused (ValueError)."""
    return json.dumps(key_fields(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_sources(examples: Iterable[tuple[int, str, Sequence[str]]]) -> str:
    """A digest of (index, source, references) in their order. References count too: oracle lengths come from them."""
    made = hashlib.sha256()
    for index, source, references in examples:
        made.update(json.dumps([index, source, list(references)]).encode() + b"\n")
    return made.hexdigest()


def digest_files(paths: Sequence[Path]) -> str:
    """A digest of the names and bytes of files, in the order of their names (not of where they lie)."""
    made = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        with open(path, "rb") as file:
            made.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return made.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that determines a point's samples; how many there are of them does not.

    dataset       its name, for the folder; `dataset_key` is what the key holds (`key_fields` of its settings)
    sources       digest of the sources and references that are sampled (`digest_sources`)
    model         its name, for the folder; the key holds the digest of the checkpoint
    checkpoint    digest of the weights and of what else decides the logits
    sampler       the typed sampler; it is stored under its canonical name
    length        how the target length is decided (`oracle`, `fixed_12`, …; `free` where the model ends by itself)
    extra         anything more that the samples depend on; nothing stands in the key for an entry that is None
    """

    dataset: str
    dataset_key: Mapping[str, Any]
    sources: str
    process: str
    model: str
    checkpoint: str
    sampler: Settings
    seed: int
    dtype: str
    length: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        canonical = getattr(self.sampler, "canonical", None)
        if canonical is not None:
            object.__setattr__(self, "sampler", canonical())

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits."""
        extra = {name: value for name, value in self.extra.items() if value is not None}
        parts = {
            "v": KEY_VERSION,
            "dataset": self.dataset_key,
            "sources": self.sources,
            "process": self.process,
            "checkpoint": self.checkpoint,
            "sampler": self.sampler,
            "seed": self.seed,
            "dtype": self.dtype,
            "length": self.length,
        }
        return digest(parts | ({"extra": extra} if extra else {}))

    def folder(self, digits: int = 6) -> str:
        """`DATASET/MODEL/SAMPLER/DIALS-hash6`: at most 120 characters out of A-Za-z0-9._- and the slashes."""
        parts = [_clean(p) for p in (self.dataset, self.model, self.sampler.kind or type(self.sampler).__name__)]
        dials = [f"{_clean(name)}{_written(value)}" for name, value in changed_dials(self.sampler).items()]
        ending = f"-{self.key[:digits]}"
        if len("/".join(parts)) + 1 + len("_".join(dials)) + len(ending) > MAX_NAME:
            parts = [p[:_MAX_PART] for p in parts]
        room = MAX_NAME - len("/".join(parts)) - 1 - len(ending)
        name = "_".join(dials) or "defaults"
        while len(name) > room:
            dials.pop()
            name = "_".join([*dials, "etc"])
        return "/".join([*parts, name + ending])

    def describe(self) -> dict[str, Any]:
        """The typed identity as plain data: what `run.json` and the index hold."""
        dials = as_mapping(self.sampler)
        return {
            "key": self.key,
            "dataset": self.dataset,
            "model": self.model,
            "process": self.process,
            "sampler": dials.pop("kind", ""),
            "dials": dials,
            "changed": list(changed_dials(self.sampler)),
            "seed": self.seed,
            "dtype": self.dtype,
            "length": self.length,
            "checkpoint": self.checkpoint,
            "sources_digest": self.sources,
        } | ({"extra": as_mapping(self.extra)} if self.extra else {})


def changed_dials(sampler: Settings) -> dict[str, Any]:
    """The dials that determine samples and differ from their defaults, in the order of their declaration."""
    changed = {}
    for f in dataclasses.fields(sampler):
        value = getattr(sampler, f.name)
        if f.metadata.get("in_key", True) and (f.default is dataclasses.MISSING or value != f.default):
            changed[f.name] = value
    return changed


def show_value(value: Any) -> str:
    """A dial's value as a person writes it: 2 for 2.0, `none` for None, a list with commas."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list | tuple):
        return ",".join(show_value(v) for v in value)
    if isinstance(value, Settings | Mapping):
        return ",".join(f"{k}:{show_value(v)}" for k, v in as_mapping(value).items())
    return str(value)


def _written(value: Any) -> str:
    text = _clean(show_value(value))
    return text if isinstance(value, int | float) and not isinstance(value, bool) else f"-{text}"


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-") or "x"
