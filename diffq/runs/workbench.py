"""What must be at hand before a point can be sampled: the checkpoint, the corpus, and texts as token ids.

A workbench is made once for each checkpoint, dataset and device, and serves every point of a sweep in its process.
Knows no sampler.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from diffq.config import Config
from diffq.data.canvases import BATCH_TOKENS, Batch, build_canvas, check_sources, plan_batches
from diffq.data.lengths import LengthFit, LengthModel
from diffq.data.task import Corpus, Example
from diffq.diffusion.contracts import Canvas, row_id
from diffq.errors import UserError
from diffq.models.checkpoints import Described, Loaded, load, read_config
from diffq.models.guidediffuseq import is_published, published_settings
from diffq.rng import Rng
from diffq.settings import as_mapping, key_fields, typed
from diffq.store.identity import Identity, digest_sources, show_value
from diffq.store.root import Store, trainings

_GPU_BATCH_TOKENS = 65536


@dataclass(frozen=True)
class Workbench:
    """One loaded checkpoint beside one split of one dataset."""

    checkpoint: Path
    loaded: Loaded | Described
    denoiser: Any
    corpus: Corpus
    examples: Sequence[Example]
    device: torch.device

    @cached_property
    def sources(self) -> Mapping[int, list[int]]:
        """The ids of each source, by its index in the split. UserError for one that is empty or too long."""
        ids = self.loaded.tokenizer.encode_sources([e.source for e in self.examples])
        sources = {e.index: i for e, i in zip(self.examples, ids, strict=True)}
        check_sources(sources, self.denoiser.max_length)
        return sources

    @cached_property
    def sources_digest(self) -> str:
        return digest_sources((e.index, e.source, e.references) for e in self.examples)

    @cached_property
    def target_lengths(self) -> list[int]:
        """Tokens of each source's first reference: what the oracle length model gives."""
        ids = self.loaded.tokenizer.encode_targets([e.references[0] if e.references else "" for e in self.examples])
        return [len(i) for i in ids]

    def identity(self, config: Config) -> Identity:
        """What determines the samples of a point on this workbench."""
        length = LengthModel.parse(config.length) if config.sampler.takes_length else None
        return Identity(
            dataset=config.choices.dataset,
            dataset_key=key_fields(config.dataset),
            sources=self.sources_digest,
            process=self.denoiser.process,
            model=config.choices.model,
            checkpoint=self.loaded.digest,
            sampler=config.sampler,
            seed=config.seed,
            dtype=config.dtype,
            length=str(length) if length else "free",
            extra={"length_fit": self.loaded.lengths if length and length.needs_fit else None},
        )

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        """The batches of a point: a function of the point alone."""
        source_lengths = [len(self.sources[e.index]) for e in self.examples]
        indices = [e.index for e in self.examples]
        lengths = [self.lengths(config, sample, source_lengths) for sample in range(config.num_samples)]
        if config.sampler.takes_length:
            return plan_batches(lengths, source_lengths, batch_tokens, indices)
        # A model that ends by itself is given all the room there is, but will take about as much as the source.
        batches = plan_batches([source_lengths] * config.num_samples, source_lengths, batch_tokens, indices)
        room = lengths[0][0]
        return [replace(b, rows=tuple(replace(row, length=room) for row in b.rows)) for b in batches]

    def lengths(self, config: Config, sample: int, source_lengths: Sequence[int]) -> list[int]:
        """The target length of one sample of each source, in tokens; the longest there is where the model itself
        decides when it ends."""
        longest = min(self.denoiser.max_length, config.dataset.max_target)
        if not config.sampler.takes_length:
            return [min(longest, self.denoiser.max_length - 1)] * len(source_lengths)
        return LengthModel.parse(config.length).draw(
            Rng(config.seed),
            [row_id(e.index, sample) for e in self.examples],
            [n - 2 for n in source_lengths],
            self.target_lengths,
            longest,
            LengthFit.from_mapping(self.loaded.lengths) if self.loaded.lengths else None,
        )

    def canvas(self, batch: Batch) -> Canvas:
        tokenizer = self.loaded.tokenizer
        return build_canvas(batch.rows, self.sources, tokenizer.pad, tokenizer.mask, device=self.device)

    def batch_tokens(self, config: Config) -> int:
        """The token budget of a batch where none is given: what suits the device."""
        return config.batch_tokens or (_GPU_BATCH_TOKENS if self.device.type == "cuda" else BATCH_TOKENS)


class Workbenches:
    """The workbenches of this process, each made once."""

    def __init__(self) -> None:
        self._made: dict[str, Workbench] = {}
        self._loaded: dict[str, Loaded] = {}

    def __call__(self, config: Config) -> Workbench:
        """The workbench of a point; `config.checkpoint` must be given (see `with_checkpoint`)."""
        assert config.checkpoint is not None
        device = pick_device(config.device)
        model = json.dumps([str(config.checkpoint), str(device), config.dtype])
        key = json.dumps([model, as_mapping(config.dataset), config.split, config.num_sources])
        if key not in self._made:
            if model not in self._loaded:
                self._loaded[model] = load(config.checkpoint, device, getattr(torch, config.dtype))
            loaded = self._loaded[model]
            self._made[key] = make_workbench(config, loaded, loaded.model.denoiser(), device)
        return self._made[key]


def make_workbench(config: Config, loaded: Loaded | Described, denoiser: Any, device: torch.device) -> Workbench:
    """The workbench of a split. UserError where it is empty, and where the sampler cannot serve the model."""
    corpus = config.dataset.open()
    examples = corpus.split(config.split)[: config.num_sources]
    if not examples:
        raise UserError(f"the {config.split} split of {config.choices.dataset} is empty: there is nothing to sample")
    if denoiser.process not in config.sampler.processes:
        raise UserError(
            f"checkpoint={config.checkpoint} holds a {denoiser.process} model, which sampler"
            f" {config.choices.sampler or config.sampler.kind} cannot serve"
        )
    return Workbench(Path(config.checkpoint or ""), loaded, denoiser, corpus, examples, device)


class Untrained(UserError):
    """A point's model has yet to be trained, by a command of its own."""


def pick_device(name: str) -> torch.device:
    """The device of `device=`: auto takes a GPU where there is one. UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={name}: there is no GPU here that torch can use; device=cpu or device=auto work")
    return torch.device(name)


def with_checkpoint(config: Config) -> Config:
    """The configuration with the checkpoint that it is to be sampled from, and the sizes and tokenizer that this has.

    As `known_checkpoint`; where a training has to come first, it is done here.
    """
    known = known_checkpoint(config)
    if not isinstance(known, str):
        return known
    from diffq.runs.train import train

    print(f"{known}: training one first, about a minute", file=sys.stderr)
    return _trained(config, train(to_train(config)))


def known_checkpoint(config: Config) -> Config | str:
    """The configuration with its checkpoint: the one named, or the newest finished training of the same model and
    dataset. Where one is to be trained first, on an embedded world: why.

    Untrained, with the line to run, where there is nothing to sample from.
    """
    if config.checkpoint is not None:
        folder = Path(config.checkpoint)
        if not is_published(folder):
            return config
        choices = config.choices.replace(model=folder.resolve().name)
        return dataclasses.replace(config, model=published_settings(folder), choices=choices)
    dataset, model = config.choices.dataset, config.choices.model
    found, others = _fitting_training(config, Store(Path(config.outputs)))
    if found is not None:
        return _trained(config, found)
    if config.dataset.embedded:
        with_ = f" trained with {others}" if others else ""
        return f"no{'' if others else ' trained'} {model} of {dataset}{with_} yet"
    words = f"diffq train model={model} dataset={dataset}{' ' if others else ''}{others}"
    with_ = f" with {others}" if others else ""
    raise Untrained(f"there is no finished training of {model} on {dataset}{with_}; run: {words}{_elsewhere(config)}")


def to_train(config: Config) -> Config:
    """The training that a point without a checkpoint begins with: one serves points of every seed."""
    return dataclasses.replace(config, seed=0)


def _trained(config: Config, folder: Path) -> Config:
    trained = read_config(folder)
    settings = {name: value for name, value in trained["model"].items() if name != "kind"}
    return dataclasses.replace(
        config,
        checkpoint=str(folder),
        model=typed(type(config.model), settings, "model"),
        dataset=config.dataset.replace(tokenizer=trained["dataset"]["tokenizer"]),
    )


def _fitting_training(config: Config, store: Store) -> tuple[Path | None, str]:
    """The newest finished training of the model and the dataset; where none of them fits, the words that they
    contradict.

    A setting that was left as its YAML has it takes what the training had; one that was given must be as it was.
    """
    against: dict[str, None] = {}
    for folder in trainings(store, config.choices.dataset, config.choices.model):
        wrong = _contradicted(config, read_config(folder))
        if not wrong:
            return folder, ""
        against |= dict.fromkeys(wrong)
    return None, " ".join(against)


def _contradicted(config: Config, trained: Mapping[str, Any]) -> list[str]:
    """The given settings of model and training data that a training had otherwise, as words of a command line."""
    wrong = []
    for word in config.choices.given:
        group, name, *_ = word.split(".")
        asked, had = getattr(getattr(config, group), name, None), trained[group].get(name)
        if group == "dataset" and name in config.dataset.not_learnt:
            continue
        if name == "path" and asked and had and os.path.realpath(asked) == os.path.realpath(had):
            continue
        if key_fields(asked) != key_fields(had):
            wrong.append(f"{group}.{name}={show_value(asked)}")
    return wrong


def _elsewhere(config: Config) -> str:
    return "" if config.outputs == "outputs" else f" outputs={config.outputs}"
