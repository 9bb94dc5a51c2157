"""Networks of Hugging Face `transformers`, read by the library's own classes: what its causal and its masked models
share. Nothing of theirs is trained here, and code that a checkpoint brings along is never run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from diffq.errors import UserError, in_short
from diffq.models.base import ModelSettings, Vocabulary
from diffq.models.checkpoints import list_some
from diffq.settings import setting


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings(ModelSettings):
    """A model that somebody else has trained."""

    task: ClassVar[Literal["pairs", "text"]] = "text"
    trainable: ClassVar[bool] = False
    instead: ClassVar[str] = ""  # what may be trained instead

    hub: str | None = setting(None, "the hub model that is taken where no checkpoint is given")
    max_length: int = setting(1024, "its longest text, in tokens; a checkpoint says its own", low=1)

    def build(self, vocabulary: Vocabulary) -> Any:
        raise UserError(f"models of Hugging Face are sampled here and not trained; train {self.instead} instead")


def pretrained_weights(folder: Path) -> Sequence[Path]:
    """The weight files of a folder. UserError where there is none."""
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not found:
        raise UserError(f"{folder} has no weight file; expected model.safetensors")
    return found


def read_pretrained(auto: str, folder: Path, what: str, left_over: str = "(?!)") -> Any:
    """The network in float32, by the library's class `auto`.

    what       what it is to be, for the message
    left_over  names of weights that may be there and are not needed, as a pattern
    UserError where the library cannot read it, and for weights that are missing, surplus or of another shape, listed.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is an error below, not a table
    try:
        read: Any = getattr(transformers, auto).from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, dtype=torch.float32
        )
    except Exception as error:  # a class that is not known, a damaged file: each another exception
        raise UserError(f"{folder} is no {what} that `transformers` can read: {in_short(error)}") from error
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity(level)
    model, told = read
    wrong = []
    for name in ("missing", "unexpected", "mismatched"):
        keys = sorted(map(str, told.get(f"{name}_keys") or ()))
        keys = [key for key in keys if name != "unexpected" or not re.search(left_over, key)]
        if keys:
            wrong.append(f"{name}: {list_some(keys)}")
    if wrong:
        raise UserError(f"{folder}: its weights do not fit its config.json; {'; '.join(wrong)}")
    return model
