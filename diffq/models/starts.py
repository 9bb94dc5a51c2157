"""What a training of a masked language model starts from: the weights of a model that others, or an earlier training,
have made.

A start is a folder of Hugging Face's RoBERTa or BERT, or one of diffq's own trainings of the same kind. It says the
network's sizes, and its tokenizer must be the training's, since every row of its matrices is a token.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.errors import UserError
from diffq.models.checkpoints import WEIGHTS, describe, load_tensors, read_config, read_tensors, tensors_of
from diffq.models.eags import EAGS, EAGSSettings
from diffq.models.hf_masked import HuggingFaceMasked
from diffq.models.published import is_published, read_json, resolve
from diffq.settings import typed

if TYPE_CHECKING:
    from diffq.config import Config


def place_of(setting: str, value: str) -> Path:
    """The folder that a setting leads to. UserError where there is none."""
    try:
        folder = Path(resolve(value))
    except UserError as error:
        raise UserError(str(error).replace("checkpoint=", f"{setting}=", 1)) from error
    if not (folder / "config.json").is_file() and not (folder / "config.yaml").is_file():
        raise UserError(f"{setting}={value} holds neither a training of diffq nor a model of Hugging Face")
    return folder


def with_start(config: Config) -> Config:
    """The configuration with the sizes of its start; as it is where it has none. UserError where a size that was given
    contradicts them."""
    start = getattr(config.model, "start", None)
    if not start:
        return config
    settings = start_settings(place_of("model.start", start))
    assert isinstance(config.model, EAGSSettings)
    sizes = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    sizes = {name: value for name, value in sizes.items() if name not in EAGSSettings.not_of_start}
    for name, value in sizes.items():
        given = getattr(config.model, name)
        if f"model.{name}" in config.choices.given and given != value:
            raise UserError(f"model.{name}={given} contradicts model.start={start}, which has {value}; leave it out")
    return dataclasses.replace(config, model=config.model.replace(**sizes))


def start_settings(folder: Path) -> EAGSSettings:
    """The sizes of a start. UserError for another kind of model."""
    if is_published(folder):
        return EAGSSettings.of_library(read_json(folder / "config.json"), folder)
    section = dict(read_config(folder)["model"])
    kind = section.pop("kind", None)
    if kind != EAGSSettings.kind:
        raise UserError(f"model.start={folder} is a training of kind {kind}; this one starts from kind eags")
    return typed(EAGSSettings, section, "model.start")


def load_start(model: EAGS, start: str, tokenizer: Any) -> str:
    """The digest of a start, whose weights a network is given. UserError where its tokenizer is not the training's."""
    folder = place_of("model.start", start)
    described = describe(folder)
    require_vocabulary("model.start", start, folder, described.tokenizer, tokenizer)
    if is_published(folder):
        theirs, _ = HuggingFaceMasked().load(folder)
        load_tensors(model, tensors_of(theirs), folder)
    else:
        load_tensors(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return described.digest


def require_vocabulary(setting: str, value: str, folder: Path, theirs: Any, tokenizer: Any) -> None:
    """UserError where the tokens of a model, in its folder, are not those of the training."""
    if not theirs.same_ids(tokenizer):
        where = folder / "tokenizer"
        raise UserError(
            f"{setting}={value} has a vocabulary of {theirs.size} tokens that is not the training's, of"
            f" {tokenizer.size}; give dataset.tokenizer={where if where.is_dir() else folder}"
        )
