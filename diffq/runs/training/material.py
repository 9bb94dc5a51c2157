"""What a training is made of besides its network: a tokenizer, batches, validation batches, previews; for pairs, for
running text and for forms.

Knows no optimiser and no folder but the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from diffq.config import Config
from diffq.data import lengths
from diffq.data.batches import TrainBatches, tokenise
from diffq.data.forms import FormBatches, FormCorpus, tokenise_forms
from diffq.data.laid_out import LaidOutBatches, source_room
from diffq.data.task import Example, PairCorpus
from diffq.data.text import TextCorpus
from diffq.data.tokenizers import Tokenizer, build_tokenizer
from diffq.data.windows import TextBatches, tokenise_text
from diffq.runs.training.preview import FormPreview, LaidOutPreview, Preview, TextPreview

if TYPE_CHECKING:
    from diffq.models.base import TrainableModel, TrainBatch

_VALIDATION_BATCH = 64  # pairs
_VALIDATION_TOKENS = 2048  # of running text a batch


@dataclass(frozen=True)
class Material:
    """facts: what run.json keeps of the data, which a training that goes on must find again."""

    tokenizer: Tokenizer
    batches: Any
    validation: Sequence[TrainBatch]
    preview: Callable[[TrainableModel], Iterable[str]] | None
    facts: Mapping[str, Any]
    lengths: Mapping[str, Any] | None = None
    note: str = ""
    shown: Mapping[str, Any] = field(default_factory=dict)


def gather(
    config: Config, cache: Path, first: contextlib.AbstractContextManager[Any], device: Any = None, shown: bool = False
) -> Material:
    """The material that a configuration asks for. UserError where there is nothing to train on.

    first   inside it the main process is ahead of the others, which then find what it has put into the cache
    device  where what a model has to say of the data is computed; shown: whether its progress is
    """
    if config.dataset.task == "forms":
        return _forms(config, cache, first)
    if config.laid_out:
        return _laid_out(config, cache, first, device, shown)
    return _pairs(config, cache, first) if config.dataset.task == "pairs" else _texts(config, cache, first)


def _pairs(config: Config, cache: Path, first: contextlib.AbstractContextManager[Any]) -> Material:
    settings, corpus = config.trainer, cast(PairCorpus, config.dataset.open())
    most = _longest(config)
    with first:
        train = corpus.split("train")  # what is missing is missed before a tokenizer is looked for
        tokenizer = build_tokenizer(config.dataset.tokenizer, corpus, cache)
        pairs = tokenise(train, tokenizer, *most, cache)
    examples: Sequence[Example] = []
    if settings.validation_sources:
        examples = corpus.split("valid")[: settings.validation_sources]
    validation: list[TrainBatch] = []
    if examples:
        held_out = tokenise(examples, tokenizer, *most)
        validation = _validation_pairs(TrainBatches(held_out, 1, 0, pad=tokenizer.pad))
    preview = None
    if examples and settings.previews:
        preview = Preview(config.sampler, tokenizer, examples[: settings.previews])
    fitted = lengths.fit(pairs.source_lengths.tolist(), pairs.target_lengths.tolist())
    return Material(
        tokenizer,
        TrainBatches(pairs, settings.batch_size, config.seed, settings.window, tokenizer.pad),
        validation,
        preview,
        {"pairs": len(pairs), "pairs_digest": pairs.digest},
        fitted.as_mapping(),
        pairs.note,
    )


def _laid_out(
    config: Config, cache: Path, first: contextlib.AbstractContextManager[Any], device: Any, shown: bool
) -> Material:
    settings, dataset, corpus = config.trainer, cast(Any, config.dataset), cast(PairCorpus, config.dataset.open())
    room, longest = int(dataset.room), int(cast(Any, config.model).max_length)
    raised_by = "dataset.max_source and dataset.room"
    with first:
        train = corpus.split("train")
        tokenizer = build_tokenizer(dataset.tokenizer, corpus, cache)
        most = source_room(tokenizer, room, longest, dataset.max_source), room
        pairs = tokenise(train, tokenizer, *most, cache, raised_by)
        batches = LaidOutBatches(pairs, tokenizer, room, settings.batch_size, config.seed, settings.window)
        ordered = _ordered(config, batches, tokenizer, cache, device, shown)
    examples: Sequence[Example] = []
    if settings.validation_sources:
        examples = corpus.split("valid")[: settings.validation_sources]
    validation: list[TrainBatch] = []
    if examples:
        held_out = tokenise(examples, tokenizer, *most, raised_by=raised_by)
        validation = _validation_pairs(LaidOutBatches(held_out, tokenizer, room, 1, 0))
    preview = None
    if examples and settings.previews:
        preview = LaidOutPreview(config.sampler, tokenizer, examples[: settings.previews], room)
    facts = {"pairs": len(pairs), "pairs_digest": pairs.digest} | ordered
    return Material(tokenizer, batches, validation, preview, facts, note=pairs.note)


def _ordered(
    config: Config, batches: LaidOutBatches, tokenizer: Tokenizer, cache: Path, device: Any, shown: bool
) -> dict[str, Any]:
    """Gives batches the order in which a frozen model's entropies have their targets masked, where one is asked for;
    what run.json is to keep of it."""
    settings, start = config.trainer, getattr(config.model, "start", None)
    if settings.noise != "ens" or settings.entropy_from == "self_partial":
        return {}
    from diffq.models.entropy_masks import Masking
    from diffq.runs.training.entropies import FrozenEntropies, bins_of_all, frozen_model

    setting = "trainer.entropy_model" if settings.entropy_model else "model.start"
    where = device or torch.device("cpu")
    loaded = frozen_model(setting, settings.entropy_model or str(start), tokenizer, where)
    asked = FrozenEntropies(batches, loaded, settings.entropy_from, settings.fill, where)
    masking = Masking("ens", settings.bins, settings.fill)
    batches.bins = bins_of_all(batches, asked.all(cache, quiet=not shown), masking)
    return {"entropies": asked.digest}


def _forms(config: Config, cache: Path, first: contextlib.AbstractContextManager[Any]) -> Material:
    settings, corpus = config.trainer, cast(FormCorpus, config.dataset.open())
    block: int = config.dataset.block  # type: ignore[attr-defined]
    with first:
        tokenizer = build_tokenizer(config.dataset.tokenizer, cast(Any, corpus), cache)
    forms = tokenise_forms(corpus.solved("train"), tokenizer, block)
    validation: list[TrainBatch] = []
    if settings.validation_sources:
        held_out = FormBatches(tokenise_forms(corpus.solved("valid"), tokenizer, block), 1, 0)
        rows = np.arange(min(len(held_out), settings.validation_sources))
        parts = [rows[at : at + _VALIDATION_BATCH] for at in range(0, len(rows), _VALIDATION_BATCH)]
        validation = [held_out.collate(part, np.zeros_like(part)) for part in parts]
    preview = None
    if settings.previews:
        examples = corpus.split("test")[: settings.previews]
        preview = FormPreview(config.sampler, tokenizer, corpus, examples, block)
    digest = hashlib.sha256(forms.ids.tobytes() + forms.free.tobytes()).hexdigest()
    facts = {"forms": len(forms), "forms_digest": digest}
    return Material(tokenizer, FormBatches(forms, settings.batch_size, config.seed), validation, preview, facts)


def _longest(config: Config) -> tuple[int, int]:
    """The longest source and target, in tokens, that data set and model both take; one position of the model's is for
    a start token."""
    most = getattr(config.model, "max_length", None)
    dataset: Any = config.dataset
    source, target = dataset.max_source, dataset.max_target
    return (source, target) if most is None else (min(source, most), min(target, most - 1))


def _validation_pairs(pairs: TrainBatches) -> list[TrainBatch]:
    """All pairs, those of like length together, each as if drawn for the first time."""
    held = pairs.pairs
    order = np.lexsort((held.source_lengths, held.target_lengths))
    parts = [order[first : first + _VALIDATION_BATCH] for first in range(0, len(order), _VALIDATION_BATCH)]
    return [pairs.collate(part, np.zeros(len(part), dtype=np.int64)) for part in parts]


def _texts(config: Config, cache: Path, first: contextlib.AbstractContextManager[Any]) -> Material:
    settings, dataset = config.trainer, config.dataset
    corpus = cast(TextCorpus, dataset.open())
    block = corpus.settings.block
    with first:
        tokenizer = build_tokenizer(dataset.tokenizer, corpus, cache)
        text = tokenise_text(corpus, "train", tokenizer, cache)
        batches = TextBatches(text, block, settings.batch_size, config.seed)
        validation: list[TrainBatch] = []
        if settings.validation_sources:
            held_out = TextBatches(tokenise_text(corpus, "valid", tokenizer, cache), block, 1, 0)
            rows = np.arange(min(len(held_out), settings.validation_sources))
            rows = rows * len(held_out) // len(rows)  # spread over the split
            size = max(1, _VALIDATION_TOKENS // block)
            parts = [rows[at : at + size] for at in range(0, len(rows), size)]
            validation = [held_out.collate(part, np.zeros_like(part)) for part in parts]
    preview = TextPreview(config.sampler, tokenizer, settings.previews, block) if settings.previews else None
    facts = {"windows": len(batches), "text_tokens": len(text.ids), "text_digest": text.digest}
    return Material(tokenizer, batches, validation, preview, facts)
