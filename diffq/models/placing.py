"""Weights of published checkpoints that are large: read tensor by tensor into a network that was built empty, each one
straight to its device and its type, over several devices where it fits on none.

Names and shapes are checked before the first weight is read. Knows no layout; what `accelerate` does with a device map
is its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffq.errors import UserError
from diffq.models.checkpoints import list_some

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DeviceMap = Mapping[str, int | str]


@dataclass(frozen=True)
class Place:
    """Where a network is to be.

    device      the device that tokens and features are on
    dtype       of the weights
    spread      whether it may take more devices than this one: all GPUs, then the CPU's memory, then the disk, where
                weights stay in the checkpoint's own files and are read whenever they are needed
    device_map  which part of the network goes where, instead of what `accelerate` would choose
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    spread: bool = False
    device_map: DeviceMap | None = None


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: those of its index, or the one file. UserError where one is not there."""
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).is_file():
            raise UserError(f"{folder} has no weights; expected {SINGLE}, or {INDEX} and the files that it names")
        return (folder / SINGLE,)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weight files: it must hold a weight_map, names to files") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{index} names files that are not there: {list_some(absent)}")
    return tuple(folder / name for name in names)


def read_headers(files: Sequence[Path]) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Of every tensor in the files, which one it is in and its shape. UserError for a damaged file."""
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as held:
                found |= {name: (path, tuple(held.get_slice(name).get_shape())) for name in held.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); it has {path.stat().st_size} bytes") from error
    return found


def fill(net: nn.Module, names: Mapping[str, str], files: Sequence[Path], place: Place) -> None:
    """Gives an empty network (built on torch's meta device) its weights, where it is to be.

    names: the published name of each of the network's own tensors.
    UserError that lists what is missing, left over, of another shape, or no number.
    """
    found = read_headers(files)
    _check(net, names, found, files[0].parent)
    device_map = _device_map(net, place)
    own = {published: name for name, published in names.items()}
    weights: dict[str, Tensor] = {}
    on_disk: dict[str, dict[str, str]] = {}
    strange = []
    for path in files:
        with safe_open(path, framework="pt") as held:
            for published in held.keys():  # noqa: SIM118
                name, value = own[published], held.get_tensor(published)
                if not bool(value.isfinite().all()):
                    strange.append(published)
                device = _device_of(name, device_map, place)
                if device == "disk":
                    kind = str(place.dtype).removeprefix("torch.")
                    on_disk[name] = {"safetensors_file": str(path), "weight_name": published, "dtype": kind}
                else:
                    weights[name] = value.to("cpu" if device == "cpu" else device, place.dtype)
    if strange:
        raise UserError(f"checkpoint={files[0].parent}: weights that are no numbers (NaN or infinite): "
                        f"{list_some(sorted(strange))}")  # fmt: skip
    net.load_state_dict(weights, strict=not on_disk, assign=True)
    net.requires_grad_(False)
    if device_map is not None:
        _dispatch(net, device_map, on_disk, place)


def _check(net: nn.Module, names: Mapping[str, str], found: Mapping[str, Any], folder: Path) -> None:
    needed = {names[name]: tuple(value.shape) for name, value in net.state_dict().items()}
    missing, surplus = sorted(needed.keys() - found.keys()), sorted(found.keys() - needed.keys())
    wrong = [
        f"{name} is {found[name][1]}, not {shape}"
        for name, shape in needed.items()
        if name in found and found[name][1] != shape
    ]
    parts = (("missing", missing), ("surplus", surplus), ("of another shape", wrong))
    said = [f"{what}: {list_some(listed)}" for what, listed in parts if listed]
    if said:
        raise UserError(f"{folder}: its weights do not fit its config.json; {'; '.join(said)}")


def _device_map(net: nn.Module, place: Place) -> dict[str, int | str] | None:
    """Which part goes where; None where all of it goes to one device."""
    if place.device_map is not None:
        return dict(place.device_map)
    if not place.spread:
        return None
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = [type(net.blocks[0]).__name__]  # type: ignore[index]
    memory = get_balanced_memory(net, no_split_module_classes=whole, dtype=place.dtype)
    return dict(infer_auto_device_map(net, memory, no_split_module_classes=whole, dtype=place.dtype))


def _device_of(name: str, device_map: DeviceMap | None, place: Place) -> Any:
    """Where a tensor goes: a device, or "disk"."""
    if device_map is None:
        return place.device
    for part, device in device_map.items():
        if part == "" or name == part or name.startswith(part + "."):
            return device
    raise ValueError(f"the device map has no place for {name}")


def _dispatch(net: nn.Module, device_map: DeviceMap, on_disk: Mapping[str, Any], place: Place) -> None:
    """Has `accelerate` move each part's inputs to its device, and bring weights from where they wait.

    UserError where what stands around the blocks is not on the first device: sessions use its weights themselves.
    """
    from accelerate import dispatch_model

    around = [name for name in net.state_dict() if not name.startswith("blocks.")]
    away = [n for n in around if _device_of(n, device_map, place) == "disk" or _elsewhere(net, n, place.device)]
    if away:
        raise UserError(
            f"{list_some(away)} must be on {place.device}, and there is no room for it; free some of its memory"
        )
    first: Any = str(place.device)  # it compares with "cpu"
    logger = logging.getLogger("accelerate.big_modeling")
    level = logger.level
    logger.setLevel(logging.ERROR)  # that some weights wait elsewhere is what was asked for
    try:
        dispatch_model(net, dict(device_map), main_device=first, offload_index=dict(on_disk) or None)
    finally:
        logger.setLevel(level)


def _elsewhere(net: nn.Module, name: str, device: torch.device) -> bool:
    own = net.get_parameter(name).device
    return own.type != device.type or (device.index or 0) != (own.index or 0)
