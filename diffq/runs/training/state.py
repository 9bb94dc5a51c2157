"""The inner state of a training on disk, from which it goes on as if it had never stopped.

A state is a folder `step-N` with the raw weights, AdamW's moments, the averaged weights and each process' generator
states as safetensors, and counters as JSON. It is written beside its place, made durable and renamed, so that a state
is there whole or not at all.
Knows nothing of the loop.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffq.errors import UserError
from diffq.models.base import TrainableModel
from diffq.models.checkpoints import load_tensors, read_tensors, tensors_of, write_tensors
from diffq.runs.training.optimise import Average, named_parameters
from diffq.store.files import read_json, sync_folder, write_json


@dataclass
class Trained:
    """Everything whose state a training goes on from."""

    model: TrainableModel
    optimizer: torch.optim.Optimizer
    average: Average | None
    scaler: Any


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators of this process."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def save(states: Path, keep: int, trained: Trained, generators: list[dict[str, Tensor]], head: dict[str, Any]) -> Path:
    """The folder of the new state; of the older ones, the last keep-1 stay.

    generators: one mapping a process. head: counters, plain data with a `step`.
    """
    place = states / f"step-{head['step']}"
    if place.exists():  # gone on from and stopped before the next step: the same state
        return place
    temporary = states / f".{place.name}.tmp"
    _remove(temporary)
    temporary.mkdir(parents=True)
    write_tensors(temporary / "weights.safetensors", tensors_of(trained.model))
    write_tensors(temporary / "optimizer.safetensors", _moments(trained))
    if trained.average is not None:
        write_tensors(temporary / "average.safetensors", trained.average.values)
    named = {f"{rank}.{name}": value for rank, held in enumerate(generators) for name, value in held.items()}
    write_tensors(temporary / "generators.safetensors", named)
    scaler = None if trained.scaler is None else trained.scaler.state_dict()
    updates = 0 if trained.average is None else trained.average.updates
    write_json(temporary / "state.json", head | {"average_updates": updates, "scaler": scaler})
    sync_folder(temporary)
    os.replace(temporary, place)
    sync_folder(states)
    for old in sorted(_all(states), key=_step)[:-keep]:
        _remove(old)
    return place


def newest(states: Path) -> Path | None:
    """The state with the most steps, or None."""
    return max(_all(states), key=_step, default=None)


def restore(place: Path, trained: Trained, rank: int, device: torch.device) -> dict[str, Any]:
    """Puts a state back and returns its head, with `exact`: whether this process had a generator state in it.

    Raises UserError where the state is damaged or belongs to another model.
    """
    head = read_json(place / "state.json")
    if head is None:
        raise UserError(f"{place} has no state.json; delete this folder and the training goes on from an older one")
    load_tensors(trained.model, read_tensors(place / "weights.safetensors"), place / "weights.safetensors")
    _restore_moments(trained, read_tensors(place / "optimizer.safetensors"), place)
    if trained.average is not None:
        values = read_tensors(place / "average.safetensors")
        if values.keys() != trained.average.values.keys():
            raise UserError(f"{place / 'average.safetensors'} belongs to another model; delete {place}")
        for name, value in trained.average.values.items():
            value.copy_(values[name])
        trained.average.updates = head["average_updates"]
    if trained.scaler is not None and head["scaler"]:
        trained.scaler.load_state_dict(head["scaler"])
    generators = read_tensors(place / "generators.safetensors")
    head["exact"] = f"{rank}.cpu" in generators
    if head["exact"]:
        torch.set_rng_state(generators[f"{rank}.cpu"])
        if device.type == "cuda" and f"{rank}.device" in generators:
            torch.cuda.set_rng_state(generators[f"{rank}.device"], device)
    return head


def _moments(trained: Trained) -> dict[str, Tensor]:
    names = {id(p): name for name, p in named_parameters(trained.model).items()}
    found = {}
    for parameter, held in trained.optimizer.state.items():
        for what, value in held.items():
            found[f"{names[id(parameter)]}/{what}"] = value.detach()
    return found


def _restore_moments(trained: Trained, tensors: dict[str, Tensor], place: Path) -> None:
    names = {id(p): name for name, p in named_parameters(trained.model).items()}
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, what = key.rpartition("/")
        by_name.setdefault(name, {})[what] = value
    if unknown := sorted(by_name.keys() - set(names.values())):
        raise UserError(
            f"{place / 'optimizer.safetensors'} belongs to another model; surplus: {', '.join(unknown[:12])}"
        )
    whole = trained.optimizer.state_dict()
    order = [p for group in trained.optimizer.param_groups for p in group["params"]]
    held = {i: by_name[names[id(p)]] for i, p in enumerate(order) if names[id(p)] in by_name}
    trained.optimizer.load_state_dict({"state": held, "param_groups": whole["param_groups"]})


def _all(states: Path) -> list[Path]:
    return [p for p in states.glob("step-*") if p.is_dir()] if states.is_dir() else []


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def _remove(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
