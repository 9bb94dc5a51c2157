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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from diffq.config import Config
from diffq.config.checks import serves
from diffq.data.canvases import Batch, token_budget
from diffq.data.keywords import keywords_of
from diffq.data.lengths import LengthModel
from diffq.data.task import Example
from diffq.data.windows import text_questions
from diffq.diffusion.contracts import Canvas
from diffq.errors import UserError
from diffq.models.checkpoints import Described, Loaded, load, read_config
from diffq.models.published import is_published, published_settings, resolve
from diffq.registry import DATASETS
from diffq.runs.answer_questions import AnswerQuestions
from diffq.runs.form_questions import FormQuestions
from diffq.runs.pair_forms import LaidOutQuestions
from diffq.runs.questions import PairQuestions, Questions, TextTask
from diffq.settings import as_mapping, key_fields, typed
from diffq.store.identity import Identity, digest_sources, show_value
from diffq.store.root import Store, trainings


@dataclass(frozen=True)
class Workbench:
    """One loaded checkpoint beside one split of one dataset."""

    checkpoint: Path
    loaded: Loaded | Described
    denoiser: Any
    asked: Questions
    device: torch.device

    @property
    def examples(self) -> Sequence[Example]:
        return self.asked.examples

    @property
    def sources(self) -> Mapping[int, list[int]]:
        """The given tokens of each question, by its index. UserError for a source that is empty or too long."""
        return self.asked.source_ids

    @cached_property
    def sources_digest(self) -> str:
        return digest_sources((e.index, e.source, e.references) for e in self.examples)

    @property
    def target_lengths(self) -> list[int]:
        return self.asked.target_lengths

    def identity(self, config: Config) -> Identity:
        """What determines the samples of a point on this workbench."""
        length = self.asked.length_name(config)
        fitted = isinstance(self.asked, PairQuestions) and length != "free" and LengthModel.parse(length).needs_fit
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
            length=length,
            extra={
                "length_fit": self.loaded.lengths if fitted else None,
                "prompts": self.asked.prompts_digest if isinstance(self.asked, AnswerQuestions) else None,
            },
        )

    def plan(self, config: Config, batch_tokens: int) -> list[Batch]:
        """The batches of a point: a function of the point alone."""
        return self.asked.plan(config, batch_tokens)

    def canvas(self, batch: Batch) -> Canvas:
        return self.asked.canvas(batch)

    def batch_tokens(self, config: Config) -> int:
        """The token budget of a batch; what suits the device, where none is given."""
        return config.batch_tokens or token_budget(self.device)


class Workbenches:
    """The workbenches of this process, each made once."""

    def __init__(self) -> None:
        self._made: dict[str, Workbench] = {}
        self._loaded: dict[str, Loaded] = {}

    def __call__(self, config: Config) -> Workbench:
        """The workbench of a point; `config.checkpoint` must be given (see `with_checkpoint`)."""
        assert config.checkpoint is not None
        device = pick_device(config.device)
        model = json.dumps([str(config.checkpoint), str(device), config.device == "spread", config.dtype])
        key = json.dumps([model, as_mapping(config.dataset), config.split, config.num_sources])
        if key not in self._made:
            if model not in self._loaded:
                self._loaded[model] = load_for(config)
            loaded = self._loaded[model]
            self._made[key] = make_workbench(config, loaded, loaded.model.denoiser(), device)
        return self._made[key]


def make_workbench(config: Config, loaded: Loaded | Described, denoiser: Any, device: torch.device) -> Workbench:
    """The workbench of a split. UserError where it is empty, and where the sampler cannot serve the model."""
    if denoiser.process not in config.sampler.processes:
        raise UserError(
            f"checkpoint={config.checkpoint} holds a {denoiser.process} model, which sampler"
            f" {config.choices.sampler or config.sampler.kind} cannot serve"
        )
    return Workbench(
        Path(config.checkpoint or ""), loaded, denoiser, _questions(config, loaded, denoiser, device), device
    )


def _questions(config: Config, loaded: Loaded | Described, denoiser: Any, device: torch.device) -> Questions:
    """What a configuration asks. UserError where that is nothing, and for a canvas that is too long for the model."""
    corpus: Any = config.dataset.open()
    if config.dataset.task == "text":
        block: int = config.dataset.block  # type: ignore[attr-defined]
        if block > denoiser.max_length:
            raise UserError(
                f"dataset.block={block} is longer than the model's max_length={denoiser.max_length}; give"
                f" dataset.block={denoiser.max_length} or less"
            )
        asked = text_questions(corpus, config.split, loaded.tokenizer, Store(Path(config.outputs)).cache)
        return TextTask(asked, config.num_sources, device)
    if config.dataset.task == "forms":
        room: int = config.dataset.block  # type: ignore[attr-defined]
        if room > denoiser.max_length:
            raise UserError(
                f"forms of {room} places are longer than the model's max_length={denoiser.max_length}; give it more"
            )
        forms = corpus.split(config.split)[: config.num_sources]
        return FormQuestions(forms, corpus, loaded.tokenizer, room, device, config.checkpoint)
    examples = corpus.split(config.split)[: config.num_sources]
    if not examples:
        raise UserError(f"the {config.split} split of {config.choices.dataset} is empty: there is nothing to sample")
    if config.dataset.task == "answers":
        return AnswerQuestions(examples, corpus, loaded.tokenizer, denoiser.max_length, device)
    most = denoiser.max_length
    if config.laid_out:
        places: int = config.dataset.room  # type: ignore[attr-defined]
        keywords = keywords_of(config.dataset, loaded.tokenizer, places)
        return LaidOutQuestions(examples, loaded.tokenizer, places, most, device, keywords=keywords)
    keywords = keywords_of(config.dataset, loaded.tokenizer, min(most, config.dataset.max_target))  # type: ignore
    return PairQuestions(examples, loaded.tokenizer, most, loaded.lengths, device, keywords)


class Untrained(UserError):
    """A point's model has yet to be trained, by a command of its own."""


def load_for(config: Config) -> Loaded:
    """The checkpoint of a configuration, where and in which type it asks for it; `config.checkpoint` must be given."""
    assert config.checkpoint is not None
    device, dtype = pick_device(config.device), getattr(torch, config.dtype)
    return load(config.checkpoint, device, dtype, spread=config.device == "spread")


def pick_device(name: str) -> torch.device:
    """The device of `device=`, the first of them for `spread`: auto takes a GPU where there is one. UserError for one
    that is not there."""
    if name in ("auto", "spread"):
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

    training = to_train(config)
    print(f"{known}: training one first, for {training.trainer.budget}", file=sys.stderr)
    return _trained(config, train(training))


def known_checkpoint(config: Config) -> Config | str:
    """The configuration with its checkpoint: the one named, or the newest finished training of the same model and
    dataset. Where one is to be trained first, on an embedded world: why.

    Untrained, with the line to run, where there is nothing to sample from.
    """
    named = config.checkpoint or getattr(config.model, "hub", None)
    if named is not None:
        folder = Path(resolve(named))
        if not is_published(folder):
            return dataclasses.replace(_as_trained(config, named, read_config(folder)), checkpoint=str(folder))
        settings = published_settings(folder)
        asked = config.model.kind if hasattr(config.model, "hub") else settings.kind
        if settings.kind != asked:
            raise UserError(
                f"checkpoint={named} holds a {settings.kind} model, and model={config.choices.model} is of the family"
                f" {asked}; name a model of its own"
            )
        if not serves(settings, config.dataset) or settings.process not in config.sampler.processes:
            raise UserError(
                f"checkpoint={named} holds a {settings.kind} model ({settings.process}, for {settings.task}), and it is"
                f" asked for dataset={config.choices.dataset} with sampler={config.choices.sampler}; name its family,"
                " as in model=hf_causal, and a sampler for it"
            )
        name = folder.resolve().name if Path(named).exists() else named.rpartition("/")[2]
        choices = config.choices.replace(model=name)
        return dataclasses.replace(config, model=settings, choices=choices, checkpoint=str(folder))
    if not config.model.trainable:
        raise UserError(
            f"model={config.choices.model} is trained by others and names no hub model; give checkpoint=FOLDER or"
            " checkpoint=NAME on the hub"
        )
    dataset, model = config.choices.dataset, config.choices.model
    found, others = _fitting_training(config, Store(Path(config.outputs)))
    if found is not None:
        return _trained(config, found)
    if config.dataset.embedded:
        with_ = f" trained with {others}" if others else ""
        return f"no{'' if others else ' trained'} {model} of {dataset}{with_} yet"
    if config.dataset.task == "answers":
        raise Untrained(
            f"there is no finished training of {model} on {dataset}, and such questions need a model that answers them;"
            " give checkpoint=FOLDER, any model of running text, or model=llada_8b, or where the dataset has a training"
            f" split run: diffq train model={model} dataset={dataset}{_elsewhere(config)}"
        )
    words = f"diffq train model={model} dataset={dataset}{' ' if others else ''}{others}"
    with_ = f" with {others}" if others else ""
    raise Untrained(f"there is no finished training of {model} on {dataset}{with_}; run: {words}{_elsewhere(config)}")


def _as_trained(config: Config, named: str, trained: Mapping[str, Any]) -> Config:
    """The configuration with the model that a training of ours has, where another of its family was named.

    UserError where a model of another family was, and where a training that knows the characters of an embedded world
    alone is asked for texts.
    """
    kind, data, name = trained["model"]["kind"], trained["dataset"]["kind"], trained["choices"]["model"]
    if kind != config.model.kind:
        raise UserError(
            f"checkpoint={named} holds a {name}, and model={config.choices.model} is of another family; leave model out"
        )
    if config.dataset.task != "forms" and data in DATASETS and DATASETS[data].task == "forms":
        raise UserError(
            f"checkpoint={named} was trained on dataset={trained['dataset'].get('name', data)}, knows no characters but"
            f" those of its forms, and is asked for dataset={config.choices.dataset}; give one trained on texts"
        )
    if name == config.choices.model:
        return config
    return dataclasses.replace(config, model=_model_of(config, trained), choices=config.choices.replace(model=name))


def _model_of(config: Config, trained: Mapping[str, Any]) -> Any:
    """The settings of the model of a training, which is of the same family as the configuration's."""
    settings = {name: value for name, value in trained["model"].items() if name != "kind"}
    return typed(type(config.model), settings, "model")


def to_train(config: Config) -> Config:
    """The training that a point without a checkpoint begins with: one serves points of every seed."""
    return dataclasses.replace(config, seed=0)


def _trained(config: Config, folder: Path) -> Config:
    trained = read_config(folder)
    learnt = {"tokenizer": trained["dataset"]["tokenizer"]}
    if config.laid_out and "dataset.room" not in config.choices.given:
        learnt["room"] = trained["dataset"].get("room", config.dataset.room)  # type: ignore[attr-defined]
    return dataclasses.replace(
        config,
        checkpoint=str(folder),
        model=_model_of(config, trained),
        dataset=config.dataset.replace(**learnt),
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
    """The given settings of model, data and training that a training had otherwise, as words of a command line."""
    wrong = []
    for word in config.choices.given:
        group, name, *_ = word.split(".")
        if group == "trainer" and name not in key_fields(config.trainer):
            continue  # budgets, and what says nothing about the weights
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
