"""Checkpoints in layouts of other projects: which one a folder is in, and where a name that is no folder leads.

    GuideDiffuSeq   config.json and model.pt                              (models/guidediffuseq.py)
    SEDD, MDLM      config.json and one weight file                       (models/dit_layouts.py)
    LLaDA, Dream    config.json, safetensors in one file or several       (models/llm_layouts.py)
    Hugging Face    config.json of a causal language model, its weights   (models/hf_causal.py)
                    or of a masked one                                    (models/hf_masked.py)

No pickle is opened but by torch's `weights_only`, and no code of a checkpoint is run.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from diffq.errors import UserError
from diffq.hub import no_vain_retries, why
from diffq.models.base import DenoisingModel, ModelSettings, Vocabulary

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.pt")


class Unfetched(UserError):
    """A checkpoint that is no folder here, and that the hub does not give."""


class Layout(Protocol):
    """One project's way of keeping a checkpoint; to be derived from. Those that can be written also have
    `writes(model)`, whether a model is of theirs, and `write(model, tokenizer, folder)`."""

    name: str
    places: bool

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        """Whether a folder with this config.json is in the layout."""
        ...

    def settings(self, folder: Path) -> ModelSettings:
        """The sizes of the network, as our settings have them."""
        ...

    def work(self, folder: Path, vocabulary: Vocabulary) -> Any:
        """How much work the network does, or None, as `ModelSettings.work` says it."""
        return self.settings(folder).work(vocabulary)

    def tokenizer(self, folder: Path) -> Any: ...

    def weights(self, folder: Path) -> Sequence[Path]:
        """The files that hold weights."""
        ...

    def load(self, folder: Path, place: Any = None) -> tuple[DenoisingModel, Any]:
        """(model, tokenizer). UserError for weights that are missing, left over or of another shape, listed.

        place: where the weights are to be (`placing.Place`). A layout of small networks leaves them on the CPU in
        float32 all the same; one that `places` does as it is told.
        """
        ...


def layouts() -> tuple[Layout, ...]:
    """Every layout that is known."""
    from diffq.models.dit_layouts import MDLMLayout, SEDDLayout
    from diffq.models.guidediffuseq import GuideDiffuSeqLayout
    from diffq.models.hf_causal import HuggingFaceCausal
    from diffq.models.hf_masked import HuggingFaceMasked
    from diffq.models.llm_layouts import DreamLayout, LLaDALayout

    ours = (GuideDiffuSeqLayout(), SEDDLayout(), MDLMLayout(), LLaDALayout(), DreamLayout())
    return (*ours, HuggingFaceCausal(), HuggingFaceMasked())


def is_published(folder: Path) -> bool:
    """Whether a folder is in another project's layout and not one of diffq's own trainings."""
    return (folder / "config.json").exists() and not (folder / "config.yaml").exists()


def layout_of(folder: Path) -> Layout:
    """The layout of a published folder. UserError where it is in none."""
    config, known = read_json(folder / "config.json"), layouts()
    for layout in known:
        if layout.recognises(folder, config):
            return layout
    raise UserError(
        f"checkpoint={folder}: its config.json (model_type {config.get('model_type', 'not given')}) and files are in no"
        f" layout that is known: {', '.join(layout.name for layout in known)}"
    )


def published_settings(folder: Path) -> ModelSettings:
    """The sizes of a published checkpoint. UserError as `layout_of`."""
    return layout_of(folder).settings(folder)


def written() -> Mapping[str, Any]:
    """The layouts that can be written, by the names that a user gives them."""
    return {layout.name.lower(): layout for layout in layouts() if hasattr(layout, "write")}


def write_published(model: Any, tokenizer: Any, folder: Path, layout: str | None = None, **more: Any) -> None:
    """Writes a model of diffq in a layout of `written`, that of its own project where none is named, with the tokenizer
    beside it.

    more: what the layout's own `write` takes. UserError for a model that the layout cannot hold.
    """
    kind, known = model.settings.kind, written()
    own = next((name for name, made in known.items() if made.writes(model)), None)
    if own is None:
        raise UserError(f"a model of kind {kind} has no published layout; there are those of {', '.join(known)}")
    if layout not in (None, own):
        raise UserError(f"a model of kind {kind} cannot be written in the layout {layout}; its own is {own}")
    known[own].write(model, tokenizer, folder, **more)


def resolve(checkpoint: str) -> str:
    """The folder that `checkpoint=` leads to: itself, the folder of a .safetensors file, or a hub model's snapshot.

    Unfetched where a name is neither a path nor to be had from the hub.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        if not (path.parent / "config.json").is_file():
            raise UserError(
                f"checkpoint={checkpoint}: there is no config.json beside it, which says what network it is"
            )
        return str(path.parent)
    if path.exists() or not _HUB_NAME.fullmatch(checkpoint):
        return checkpoint
    try:
        from huggingface_hub import snapshot_download

        with no_vain_retries():
            return snapshot_download(checkpoint, allow_patterns=list(_FETCHED))
    except Exception as error:  # no network, no such name, no package: each another exception
        raise Unfetched(
            f"{checkpoint} is no folder here, and as a hub model it could not be fetched"
            f" ({why(error)}); give checkpoint=FOLDER, a folder with its files"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. UserError where it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object of settings, not {type(value).__name__}")
    return value


def weight_file(folder: Path) -> Path:
    """The one weight file of a folder. UserError where there is none, and where there are several."""
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    found += [f for f in sorted(folder.glob("*.safetensors")) if f not in found]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{folder} has several weight files ({', '.join(f.name for f in found)}); keep one")
    raise UserError(f"{folder} has no weight file; expected {' or '.join(_WEIGHTS)}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file. UserError for a pickle that holds anything else."""
    if path.suffix == ".safetensors":
        from diffq.models.checkpoints import read_tensors

        return read_tensors(path)
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} is refused: it is no file of tensors alone, and nothing else is opened ({why[0]})"
        ) from error
    if not isinstance(value, Mapping) or not all(isinstance(v, Tensor) for v in value.values()):
        raise UserError(f"{path} must hold a state dict, names to tensors, and nothing else")
    return {str(name): tensor for name, tensor in value.items()}
