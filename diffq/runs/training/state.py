"""The inner state of a training on disk, from which it goes on as if it had never stopped.

A state is a folder `step-N` with the raw weights, AdamW's moments, the averaged weights and each process' generator
states as safetensors, and counters as JSON. It is written beside its place, made durable and renamed, so that a state
is there whole or not at all; one that was damaged afterwards is passed over for an older one.
Knows nothing of the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffq.errors import UserError
from diffq.models.base import TrainableModel
from diffq.models.checkpoints import load_tensors, read_tensors, tensors_of, write_tensors
from diffq.runs.training.optimise import Average, named_parameters
from diffq.store.files import read_json, remove, replacing, write_json


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
    with replacing(place) as temporary:
        temporary.mkdir()
        write_tensors(temporary / "weights.safetensors", tensors_of(trained.model))
        write_tensors(temporary / "optimizer.safetensors", _moments(trained))
        if trained.average is not None:
            write_tensors(temporary / "average.safetensors", trained.average.values)
        named = {f"{rank}.{name}": value for rank, held in enumerate(generators) for name, value in held.items()}
        write_tensors(temporary / "generators.safetensors", named)
        scaler = None if trained.scaler is None else trained.scaler.state_dict()
        updates = 0 if trained.average is None else trained.average.updates
        write_json(temporary / "state.json", head | {"average_updates": updates, "scaler": scaler})
    for old in sorted(_all(states), key=_step)[:-keep]:
        remove(old)
    return place


def newest(states: Path) -> Path | None:
    """The state with the most steps, or None."""
    return max(_all(states), key=_step, default=None)


@dataclass(frozen=True)
class State:
    """A state as it was read: `head` is state.json, `tensors` the other files by their stems."""

    place: Path
    head: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def read_newest(states: Path, averaged: bool) -> tuple[State | None, list[str]]:
    """The state with the most steps that can be read whole, and a line for each later one, which cannot.

    None where there is no state. UserError where there are some and none of them can be read.
    """
    damaged: list[str] = []
    for place in sorted(_all(states), key=_step, reverse=True):
        try:
            return _read(place, averaged), damaged
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise UserError(f"{damaged[0]}, and there is no older state; delete {states} and the training begins anew")
    return None, []


def _read(place: Path, averaged: bool) -> State:
    head = read_json(place / "state.json")
    if head is None or not {"step", "seconds", "loss", "validation_loss", "average_updates", "scaler"} <= head.keys():
        raise UserError(f"{place / 'state.json'} is missing or not whole")
    stems = ("weights", "optimizer", "generators", *(["average"] if averaged else []))
    return State(place, head, {stem: read_tensors(place / f"{stem}.safetensors") for stem in stems})


def remove_after(state: State) -> None:
    """Deletes the states with more steps than this one: they could not be read, and their steps are done again."""
    for place in _all(state.place.parent):
        if _step(place) > _step(state.place):
            remove(place)


def restore(state: State, trained: Trained, rank: int, device: torch.device) -> dict[str, Any]:
    """Puts a state back and returns its head, with `exact`: whether this process had a generator state in it.

    Raises UserError where the state belongs to another model.
    """
    place, head, tensors = state.place, dict(state.head), state.tensors
    load_tensors(trained.model, tensors["weights"], place / "weights.safetensors")
    _restore_moments(trained, tensors["optimizer"], place)
    if trained.average is not None:
        values = tensors["average"]
        if values.keys() != trained.average.values.keys():
            raise UserError(f"{place / 'average.safetensors'} belongs to another model; delete {place}")
        for name, value in trained.average.values.items():
            value.copy_(values[name])
        trained.average.updates = head["average_updates"]
    if trained.scaler is not None and head["scaler"]:
        trained.scaler.load_state_dict(head["scaler"])
    generators = tensors["generators"]
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
