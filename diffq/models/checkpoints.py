"""A trained model on disk: what a training leaves to be sampled, and how it is read back.

A checkpoint is a folder with `config.yaml` (the training's whole configuration), `model.safetensors` (the weights to
sample with), `tokenizer/` and `lengths.yaml` (the length model's fit). No file is a pickle. Folders of published
layouts are recognised by their own files and handed to their loaders.
Knows nothing of how a training goes on: its inner state lies beside these files and is read elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffq import plugins
from diffq.errors import UserError
from diffq.models.base import DenoisingModel, ModelSettings, TrainableModel
from diffq.registry import MODELS
from diffq.settings import typed
from diffq.store.files import read_yaml, replacing

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that is ready to be sampled.

    config   the training's configuration as plain data; empty for a published layout
    lengths  the fit of the length model, or None where the checkpoint has none
    digest   SHA-256 over the weights, the tokenizer and the model's configuration, in hexadecimal
    """

    model: DenoisingModel
    tokenizer: Any
    config: Mapping[str, Any]
    lengths: Mapping[str, Any] | None
    digest: str


@dataclass(frozen=True)
class Described:
    """A checkpoint without its weights.

    settings  the typed settings of the network
    work      how much work it does (`models.work`), or None where nobody has counted it; the rest is as in `Loaded`
    """

    settings: ModelSettings
    tokenizer: Any
    config: Mapping[str, Any]
    lengths: Mapping[str, Any] | None
    digest: str
    work: Any = None


def describe(path: Path | str) -> Described:
    """What `load` would say of a folder, with its weights read for their digest alone. UserError as `load`."""
    folder = Path(path)
    if _layout(folder) == "own":
        own = _describe_own(folder)
        return dataclasses.replace(own, work=own.settings.work(own.tokenizer))
    from diffq.models.published import layout_of

    layout = layout_of(folder)
    tokenizer = layout.tokenizer(folder)
    known = _digest_published(layout, folder, tokenizer)
    return Described(layout.settings(folder), tokenizer, {}, None, known, layout.work(folder, tokenizer))


def load(
    path: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    spread: bool = False,
) -> Loaded:
    """The model of a checkpoint folder in evaluation mode, with all that is needed to sample it.

    path: a training's folder, or a folder in a published layout (see `models.published`).
    spread: over all GPUs, then the CPU's memory, then the disk; `device` is the first of them.
    Raises UserError for a folder that is neither, for a damaged file, and for weights that do not fit the
    configuration, naming the missing and the surplus ones; also where a network that cannot be spread is to be.
    """
    from diffq.models.published import layout_of

    folder, own = Path(path), _layout(Path(path)) == "own"
    if own or not layout_of(folder).places:
        if spread:
            raise UserError(f"checkpoint={folder} is read onto one device; give device=auto, only LLaDA's and Dream's"
                            " layouts can be spread over several")  # fmt: skip
        loaded = _load_own(folder) if own else _load_published(folder, None)
        _require_numbers(loaded.model, folder)
        _cast(loaded.model.to(device), dtype)
    else:
        from diffq.models.placing import Place

        loaded = _load_published(folder, Place(torch.device(device), dtype, spread))
    loaded.model.eval().requires_grad_(False)
    return loaded


def _require_numbers(model: nn.Module, folder: Path) -> None:
    """UserError where a weight is NaN or infinite: whatever is sampled with it is worth nothing."""
    bad = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
    if bad:
        raise UserError(f"checkpoint={folder}: weights that are no numbers (NaN or infinite): {list_some(bad)}")


def _layout(folder: Path) -> Literal["own", "published"]:
    """Whose layout a folder is in. UserError for one in neither."""
    if not folder.is_dir():
        raise UserError(f"checkpoint={folder} is no folder; give a training's folder, such as outputs/train/NAME-hash")
    if (folder / "config.yaml").exists():
        return "own"
    if (folder / "config.json").exists():
        return "published"
    raise UserError(
        f"checkpoint={folder} holds neither config.yaml and {WEIGHTS} (a training of diffq)"
        " nor the config.json of a published checkpoint"
    )


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Gives the network's float32 tensors another type; float64 tables, such as noise schedules, stay as they are."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for value in held.values():
                if value is not None and value.dtype == torch.float32:
                    value.data = value.data.to(dtype)


def _load_own(folder: Path) -> Loaded:
    described = _describe_own(folder)
    with mending(folder):
        tensors = read_tensors(folder / WEIGHTS)
    model = build(described.settings, described.tokenizer)
    load_tensors(model, tensors, folder / WEIGHTS)
    return Loaded(model, described.tokenizer, described.config, described.lengths, described.digest)


def _describe_own(folder: Path) -> Described:
    from diffq.data.tokenizers import Tokenizer  # what a checkpoint holds is read whole; nothing else here knows data

    with mending(folder):
        config = read_yaml(folder / "config.yaml")
        tokenizer = Tokenizer.load(folder / "tokenizer")
    plugins.load(config.get("plugins") or ())
    section = config.get("model")
    if not isinstance(section, dict) or "kind" not in section:
        raise UserError(f"{folder / 'config.yaml'} has no model with a kind, so the network cannot be built")
    values = {name: value for name, value in section.items() if name != "kind"}
    with mending(folder):
        settings = typed(MODELS[section["kind"]], values, f"{folder / 'config.yaml'}: model")
    lengths = read_yaml(folder / "lengths.yaml") if (folder / "lengths.yaml").exists() else None
    with mending(folder):
        known = digest(folder / WEIGHTS, tokenizer.digest, section)
    return Described(settings, tokenizer, config, lengths, known)


@contextlib.contextmanager
def mending(folder: Path) -> Iterator[None]:
    """Inside, what is wrong with a training's files is said with how to have them written again."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{error}; with {folder / 'run.json'} deleted the same diffq train writes its files again from its last"
            " state"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a training was made with. UserError where its file is missing or cut off."""
    with mending(folder):
        config = read_yaml(folder / "config.yaml")
        choices = config.get("choices")  # they end the file, and `paper` ends them
        if not ({"model", "dataset"} <= config.keys() and isinstance(choices, dict) and "paper" in choices):
            raise UserError(f"{folder / 'config.yaml'} is not whole")
    return config


def _load_published(folder: Path, place: Any) -> Loaded:
    from diffq.models.published import layout_of

    layout = layout_of(folder)
    model, tokenizer = layout.load(folder, place)
    return Loaded(model, tokenizer, {}, None, _digest_published(layout, folder, tokenizer))


def _digest_published(layout: Any, folder: Path, tokenizer: Any) -> str:
    section = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return digest(layout.weights(folder), tokenizer.digest, section)


def build(settings: Any, vocabulary: Any) -> TrainableModel:
    """A network whose initial weights do not matter: torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return settings.build(vocabulary)


def digest(weights: Path | Sequence[Path], tokenizer: str, model: Mapping[str, Any]) -> str:
    """SHA-256 over the files of weights, a tokenizer's digest and a model's configuration."""
    total = hashlib.sha256()
    for path in [weights] if isinstance(weights, Path) else weights:
        try:
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError as error:
            raise _not_written(path) from error
    total.update(str(tokenizer).encode())
    total.update(json.dumps(model, sort_keys=True).encode())
    return total.hexdigest()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and persistent buffers on the CPU, each shared one once, under its first name."""
    return {name: value.detach().cpu().contiguous() for name, value in _unshared(model).items()}


def _unshared(model: nn.Module) -> dict[str, Tensor]:
    seen: set[tuple[int, int, torch.Size]] = set()
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape)
        if value.numel() and place in seen:
            continue
        seen.add(place)
        found[name] = value
    return found


@torch.no_grad()
def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copies weights into a model. Raises UserError where names or shapes do not fit; `path` stands in the message."""
    own = _unshared(model)
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or surplus:
        parts = [f"{what}: {list_some(names)}" for what, names in (("missing", missing), ("surplus", surplus)) if names]
        raise UserError(f"{path} does not fit the model of its configuration; {'; '.join(parts)}")
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise UserError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, but the model of its configuration needs"
                f" {tuple(value.shape)}"
            )
    for name, value in own.items():
        value.copy_(tensors[name])


def list_some(names: Iterable[str], shown: int = 12) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file that is there whole or not at all, also after a crash."""
    with replacing(path) as temporary:
        _save(temporary, {name: value.cpu().contiguous() for name, value in tensors.items()})


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """safetensors' own writing, with the system's error where the disk is full: it wraps it in a text."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found.group(1)), str(error), str(path)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; UserError where it is not there or was cut off."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise _not_written(path) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); it has {path.stat().st_size} bytes") from error


def _not_written(path: Path) -> UserError:
    return UserError(f"{path} is not there; the training that was to write it has not saved anything yet")
